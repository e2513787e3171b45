/* The portable screening kernel: mma.sync over tiles of 128 centroids, sm_80 and later.
 *
 * A block holds 64 * WARPS_M rows and goes through all centroids, a tile of 128 at a time; each
 * warp has 64 x 64 scores of it in registers. Dimensions come in slabs of 128 bytes: centroids (and
 * rows, unless they stay in shared memory) through a ring filled by cp.async, one barrier a slab.
 * Slabs lie in shared memory as [128 bytes] a row, 16-byte chunks exchanged by row % 8, so that
 * ldmatrix meets no bank twice.
 *
 * Epilogue: one max a score, one compare a row and tile with floor - reach - margin(tile), which
 * thread t has computed for row t at the beginning of the tile. What passes that and not floor -
 * margin(tile) raises the row's second by its own maximum; what passes both goes the slow way
 * (`report`).
 *
 * Registers: 128 accumulators a thread. Shared memory: fkm_assign_shared(). Rates: README.md. */
#include "assign.cuh"

#include "ptx.cuh"
#include "settle.cuh"

#include <type_traits>

namespace
{

enum {
    SLAB = 128, /* bytes of dimensions at a time */
    STEP = 32,  /* bytes an mma takes */
    CHUNK = 16, /* bytes a cp.async moves */
    WARP_ROWS = 64,
    WARP_COLUMNS = 64,
    MOST_STAGES = 3,
    SCRATCH = 9, /* scores a thread hands to its slow path at once, + 1 against bank conflicts */
};

/* What is kept of a row while it is in a block. */
template <int ROWS> struct row_state {
    float threshold[ROWS]; /* of the tile at hand */
    int floor[ROWS];       /* fkm_ordered */
    int count[ROWS];       /* candidates; more than FKM_CANDIDATES: overflow */
    int second[ROWS];      /* fkm_ordered */
    float norm[ROWS], residual[ROWS], tail[ROWS], slack[ROWS];
    int32_t position[ROWS][FKM_CANDIDATES];
    float upper[ROWS][FKM_CANDIDATES];
};

template <int WARPS_M> struct shared_block {
    enum { ROWS = WARP_ROWS * WARPS_M, THREADS = 64 * WARPS_M };
    float start[MOST_STAGES][FKM_TILE]; /* int32 for int8 */
    row_state<ROWS> row;
    float scratch[THREADS][SCRATCH];
    /* then, aligned to 1024: rows [slabs][ROWS][SLAB] if resident, the ring of STAGES times
     * centroids [FKM_TILE][SLAB] and, if not resident, rows [ROWS][SLAB] */
};

template <int WARPS_M> size_t tiles_offset()
{
    return (sizeof(shared_block<WARPS_M>) + 1023) / 1024 * 1024;
}

template <int WARPS_M> size_t shared_bytes(int32_t stride, bool resident, int stages)
{
    const size_t rows = WARP_ROWS * WARPS_M, slabs = (size_t)(stride + SLAB - 1) / SLAB;
    size_t stage = (size_t)FKM_TILE * SLAB + (resident ? 0 : rows * SLAB);
    return tiles_offset<WARPS_M>() + (resident ? slabs * rows * SLAB : 0) + stages * stage;
}

/* Where chunk c of row r lies within a slab. */
__device__ __forceinline__ int chunk_at(int r, int c)
{
    return r * SLAB + ((c ^ (r & 7)) * CHUNK);
}

template <fkm_unit UNIT> using score_of = std::conditional_t<UNIT == FKM_UNIT_S8, int, float>;

template <fkm_unit UNIT>
__device__ __forceinline__ void multiply(
    score_of<UNIT> (*d)[4], const uint32_t a[4], const uint32_t (*b)[2])
{
    if constexpr (UNIT == FKM_UNIT_F16)
        fkm_mma_row_f16<8>(d, a, b);
    else if constexpr (UNIT == FKM_UNIT_BF16)
        fkm_mma_row_bf16<8>(d, a, b);
    else
        fkm_mma_row_s8<8>(d, a, b);
}

template <fkm_unit UNIT>
__device__ __forceinline__ void multiply_from(score_of<UNIT> (*d)[4], const uint32_t a[4],
    const uint32_t (*b)[2], const score_of<UNIT> (*start)[2])
{
    if constexpr (UNIT == FKM_UNIT_F16)
        fkm_mma_row_from_f16<8>(d, a, b, start);
    else if constexpr (UNIT == FKM_UNIT_BF16)
        fkm_mma_row_from_bf16<8>(d, a, b, start);
    else
        fkm_mma_row_from_s8<8>(d, a, b, start);
}

/* The kernel, as a struct so that its parts share what does not change. */
template <fkm_unit UNIT, int WARPS_M, bool RESIDENT, int STAGES> struct screen {
    typedef score_of<UNIT> score;
    typedef shared_block<WARPS_M> block;
    enum { ROWS = block::ROWS, THREADS = block::THREADS };

    const fkm_assign_args &a;
    block &s;
    unsigned char *tiles;
    int32_t rows, row0, slabs, warp_m, warp_n;
    int32_t splits, split;    /* blocks that share these rows, and which this is */
    int32_t first_tile, last; /* its tiles: up to before `last` */
    float reach;              /* of row t */

    __device__ screen(const fkm_assign_args &args, unsigned char *memory, size_t offset)
        : a(args), s(*(block *)memory), tiles(memory + offset), rows(fkm_row_count(args)), row0(0),
          slabs((args.stride + SLAB - 1) / SLAB), warp_m((int32_t)(threadIdx.x >> 5) >> 1),
          warp_n((int32_t)(threadIdx.x >> 5) & 1), splits(1), split(0), first_tile(0), last(0),
          reach(0)
    {
    }

    /* Takes the block's share of the work; false: there is none. */
    __device__ bool take_share(int32_t busy)
    {
        const int32_t blocks = (rows + ROWS - 1) / ROWS;
        if (blocks == 0)
            return false; /* none is listed */
        splits = fkm_splits(a, rows, ROWS, busy);
        split = (int32_t)blockIdx.x / blocks;
        row0 = (int32_t)blockIdx.x % blocks * ROWS;
        first_tile = (int32_t)((int64_t)a.tiles * split / splits);
        last = (int32_t)((int64_t)a.tiles * (split + 1) / splits);
        if (FKM_PLANT(4) && last == a.tiles && a.tiles > 1)
            last--;
        return split < splits;
    }

    __device__ unsigned char *rows_at(int slab, int stage)
    {
        return RESIDENT ? tiles + (size_t)slab * ROWS * SLAB
                        : tiles + (size_t)stage * (FKM_TILE + ROWS) * SLAB + FKM_TILE * SLAB;
    }

    __device__ unsigned char *centroids_at(int stage)
    {
        return RESIDENT ? tiles + ((size_t)slabs * ROWS + (size_t)stage * FKM_TILE) * SLAB
                        : tiles + (size_t)stage * (FKM_TILE + ROWS) * SLAB;
    }

    /* Chunks of one slab: chunks beyond the stride are never read; rows beyond the last are zero.
     */
    __device__ void load_rows(unsigned char *to, int slab)
    {
        const unsigned char *x = (const unsigned char *)a.x.x;
        for (int i = (int)threadIdx.x; i < ROWS * (SLAB / CHUNK); i += THREADS) {
            int r = i / (SLAB / CHUNK), c = i % (SLAB / CHUNK), at = slab * SLAB + c * CHUNK;
            bool real = row0 + r < rows;
            if (at < a.stride)
                fkm_copy16(to + chunk_at(r, c),
                    x + (int64_t)(real ? row0 + r : row0) * a.stride + at, real ? CHUNK : 0);
        }
    }

    /* Queues what iteration `it` (tile by tile, slab by slab) reads; always one group. */
    __device__ void load(int64_t it, int64_t iterations)
    {
        if (it < iterations) {
            int tile = first_tile + (int)(it / slabs), slab = (int)(it % slabs);
            int stage = (int)(it % STAGES);
            const unsigned char *c = (const unsigned char *)a.c.c;
            unsigned char *to = centroids_at(stage);
            for (int i = (int)threadIdx.x; i < FKM_TILE * (SLAB / CHUNK); i += THREADS) {
                int r = i / (SLAB / CHUNK), k = i % (SLAB / CHUNK), at = slab * SLAB + k * CHUNK;
                if (at < a.stride)
                    fkm_copy16(to + chunk_at(r, k),
                        c + ((int64_t)tile * FKM_TILE + r) * a.stride + at, CHUNK);
            }
            if (slab == 0 && threadIdx.x < FKM_TILE * 4 / CHUNK)
                fkm_copy16((char *)s.start[stage] + threadIdx.x * CHUNK,
                    (const char *)a.c.start + (int64_t)tile * FKM_TILE * 4 + threadIdx.x * CHUNK,
                    CHUNK);
            if (!RESIDENT)
                load_rows(rows_at(slab, stage), slab);
        }
        fkm_copy_commit();
    }

    /* Thread t looks after row t. */
    __device__ void start_row()
    {
        int t = (int)threadIdx.x, r = row0 + t < rows ? fkm_row_at(a, row0 + t) : -1;
        if (t >= ROWS)
            return;
        bool real = r >= 0 && a.x.residual[r] >= 0;
        s.row.norm[t] = real ? a.x.norm[r] : 0;
        s.row.residual[t] = real ? a.x.residual[r] : 0;
        s.row.tail[t] = real ? a.x.tail[r] : 0;
        s.row.slack[t] = a.c.kappa * s.row.norm[t] * s.row.norm[t];
        s.row.floor[t] = fkm_ordered(real ? a.floor[r] : FKM_FLOOR_DEAD);
        s.row.second[t] = fkm_ordered(FKM_FLOOR_NONE);
        s.row.count[t] = 0;
        reach = real ? fkm_reach_of(a, r) : 0;
    }

    /* A centroid, or several, whose S^ + m are at most `upper` are no candidates. */
    __device__ void raise_second(int t, float upper)
    {
        if (!FKM_PLANT(7))
            atomicMax(&s.row.second[t], fkm_ordered(upper));
    }

    /* Drops candidates that the floor has overtaken; not after an overflow. */
    __device__ int compact(int t)
    {
        float floor = fkm_unordered(s.row.floor[t]);
        int kept = 0, n = s.row.count[t];
        for (int i = 0; i < n; i++) {
            if (s.row.upper[t][i] < floor) {
                raise_second(t, s.row.upper[t][i]);
                continue;
            }
            s.row.position[t][kept] = s.row.position[t][i];
            s.row.upper[t][kept] = s.row.upper[t][i];
            kept++;
        }
        return s.row.count[t] = kept;
    }

    __device__ float tile_margin(int t, int tile)
    {
        return s.row.norm[t] * a.c.tile_slope[tile] + s.row.residual[t] * a.c.tile_rival[tile] +
               s.row.tail[t] * a.c.tile_tail[tile] + a.c.tile_offset[tile] + s.row.slack[t];
    }

    /* At the beginning of a tile, after a barrier: nobody is in the slow path of the one before. */
    __device__ void start_tile(int tile)
    {
        int t = (int)threadIdx.x;
        if (t >= ROWS)
            return;
        if (s.row.count[t] > FKM_CANDIDATES / 2 && s.row.count[t] <= FKM_CANDIDATES)
            compact(t);
        s.row.threshold[t] = fkm_unordered(s.row.floor[t]) - reach - tile_margin(t, tile);
    }

    /* A score that passed its row's threshold. Several threads may report for one row at once. */
    __device__ void report(int t, int position, float v)
    {
        if (a.c.index[position] < 0)
            return; /* padding: only int8's reaches a threshold, and only in a cold start */
        float m = s.row.norm[t] * a.c.slope[position] + s.row.residual[t] * a.c.rival[position] +
                  s.row.tail[t] * a.c.tail[position] + a.c.offset[position] + s.row.slack[t];
        float lower = v - m, upper = v + m;
        if (upper < fkm_unordered(atomicMax(&s.row.floor[t], fkm_ordered(lower)))) {
            raise_second(t, upper);
            return;
        }
        int slot = atomicAdd(&s.row.count[t], 1);
        if (slot >= FKM_CANDIDATES)
            return; /* the count says so */
        s.row.position[t][slot] = position;
        s.row.upper[t][slot] = upper;
    }

    /* acc: 4 row tiles of 16, 8 column tiles of 8; a thread has rows g and g + 8 of each row tile,
     * columns 2q and 2q + 1 of each column tile. */
    __device__ void finish_tile(score acc[4][8][4], int tile)
    {
        const int g = fkm_lane() >> 2, q = fkm_lane() & 3;
        unsigned hits = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                score top = acc[i][0][2 * h];
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    top = max(top, acc[i][j][2 * h]);
                    top = max(top, acc[i][j][2 * h + 1]);
                }
                int t = warp_m * WARP_ROWS + i * 16 + h * 8 + g;
                if ((float)top >= s.row.threshold[t]) {
                    const float margin = tile_margin(t, tile), upper = (float)top + margin;
                    /* the best of these raises the floor before the others are looked at */
                    const int floor = atomicMax(&s.row.floor[t], fkm_ordered((float)top - margin));
                    if (upper < fkm_unordered(floor))
                        raise_second(t, upper);
                    else
                        hits |= 1u << (2 * i + h);
                }
            }
        }
        float *mine = s.scratch[threadIdx.x];
        while (hits) {
            int hit = __ffs((int)hits) - 1;
            hits &= hits - 1;
            int t = warp_m * WARP_ROWS + (hit >> 1) * 16 + (hit & 1) * 8 + g;
            /* read by an atomic, as others may be raising it; any of its values is right */
            const int floor = atomicMax(&s.row.floor[t], INT32_MIN);
            const float margin = tile_margin(t, tile), threshold = fkm_unordered(floor) - margin;
            float below = FKM_FLOOR_NONE; /* the best of those that do not pass */
            for (int part = 0; part < 2; part++) {
#pragma unroll
                for (int i = 0; i < 4; i++)
#pragma unroll
                    for (int h = 0; h < 2; h++)
#pragma unroll
                        for (int p = 0; p < 2; p++)
                            if (hit == 2 * i + h && part == p) {
#pragma unroll
                                for (int j = 0; j < 8; j++)
                                    mine[j] = (float)acc[i][4 * p + j / 2][2 * h + (j & 1)];
                            }
                for (int j = 0; j < 8; j++)
                    if (mine[j] >= threshold)
                        report(t,
                            tile * FKM_TILE + warp_n * WARP_COLUMNS + (4 * part + j / 2) * 8 +
                                2 * q + (j & 1),
                            mine[j]);
                    else
                        below = fmaxf(below, mine[j]);
            }
            raise_second(t, below + margin);
        }
    }

    __device__ void multiply_slab(score acc[4][8][4], int slab, int stage)
    {
        const unsigned char *x = rows_at(slab, stage) + warp_m * WARP_ROWS * SLAB;
        const unsigned char *c = centroids_at(stage) + warp_n * WARP_COLUMNS * SLAB;
        const int lane = fkm_lane(), steps = min((int)SLAB, a.stride - slab * SLAB) / STEP;
        for (int k = 0; k < steps; k++) {
            uint32_t left[4][4], right[8][2];
#pragma unroll
            for (int i = 0; i < 4; i++)
                fkm_ldmatrix_x4(left[i], x + chunk_at(i * 16 + (lane & 15), 2 * k + (lane >> 4)));
#pragma unroll
            for (int j = 0; j < 4; j++) {
                uint32_t r[4];
                fkm_ldmatrix_x4(r,
                    c + chunk_at(j * 16 + (lane & 7) + (lane >> 4) * 8, 2 * k + ((lane >> 3) & 1)));
                right[2 * j][0] = r[0];
                right[2 * j][1] = r[1];
                right[2 * j + 1][0] = r[2];
                right[2 * j + 1][1] = r[3];
            }
            if (slab == 0 && k == 0) {
                const score *start =
                    (const score *)s.start[stage] + warp_n * WARP_COLUMNS + 2 * (lane & 3);
                score first[8][2];
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    first[j][0] = start[8 * j];
                    first[j][1] = start[8 * j + 1];
                }
#pragma unroll
                for (int i = 0; i < 4; i++)
                    multiply_from<UNIT>(acc[i], left[i], right, first);
            } else {
#pragma unroll
                for (int i = 0; i < 4; i++)
                    multiply<UNIT>(acc[i], left[i], right);
            }
        }
    }

    __device__ void run()
    {
        const int64_t iterations = (int64_t)(last - first_tile) * slabs;
        score acc[4][8][4];
        start_row();
        if (RESIDENT)
            for (int slab = 0; slab < slabs; slab++)
                load_rows(rows_at(slab, 0), slab); /* in the first group */
        for (int i = 0; i < STAGES - 1; i++)
            load(i, iterations);
        int tile = first_tile, slab = 0, stage = 0;
        for (int64_t it = 0; it < iterations; it++) {
            fkm_copy_wait<STAGES - 2>();
            /* everybody's copies of this stage are there; nobody reads the one filled next; nobody
             * is in the slow path of the tile before */
            if (!FKM_PLANT(1))
                __syncthreads();
            load(it + STAGES - 1, iterations);
            if (slab == 0)
                start_tile(tile);
            multiply_slab(acc, slab, stage);
            stage = stage + 1 == STAGES ? 0 : stage + 1;
            if (++slab < slabs)
                continue;
            if (slabs == 1)
                __syncthreads(); /* thresholds of all threads; else the second slab's barrier */
            finish_tile(acc, tile);
            slab = 0;
            tile++;
        }
        fkm_copy_wait<0>();
        __syncthreads();
        settle_row();
    }

    __device__ void store_part(int t)
    {
        const int n = s.row.count[t] <= FKM_CANDIDATES ? compact(t) : s.row.count[t];
        fkm_store_part(
            a.parts, (int64_t)split * rows + row0 + t, fkm_unordered(s.row.floor[t]),
            fkm_unordered(s.row.second[t]), n, [&](int k) { return s.row.position[t][k]; },
            [&](int k) { return s.row.upper[t][k]; });
    }

    /* Whole warps come here: ROWS is a multiple of 32. */
    __device__ void settle_row()
    {
        int t = (int)threadIdx.x;
        if (t >= ROWS)
            return;
        fkm_screened_row r;
        r.real = row0 + t < rows;
        r.row = r.real ? fkm_row_at(a, row0 + t) : 0;
        r.screened = r.real && a.x.residual[r.row] >= 0;
        if (splits > 1) {
            if (r.screened)
                store_part(t);
            return;
        }
        r.candidates = r.screened && s.row.count[t] <= FKM_CANDIDATES ? compact(t) : 0;
        r.floor = fkm_unordered(s.row.floor[t]);
        r.second = fkm_unordered(s.row.second[t]);
        fkm_settle_row(a, r, [&](int i) { return s.row.position[t][i]; });
    }
};

template <fkm_unit UNIT, int WARPS_M, bool RESIDENT, int STAGES>
__global__ void __launch_bounds__(64 * WARPS_M, WARPS_M == 2 ? 2 : 1)
    screen_rows(const __grid_constant__ fkm_assign_args a, size_t offset, int32_t busy)
{
    FKM_SHARED_DYNAMIC(unsigned char, memory);
    screen<UNIT, WARPS_M, RESIDENT, STAGES> block(a, memory, offset);
    if (block.take_share(busy)) /* fewer rows may be listed than there might have been */
        block.run();
}

/* ---- launching ---- */

template <fkm_unit UNIT, int WARPS_M, bool RESIDENT, int STAGES>
cudaError_t launch(const fkm_assign_args *a, cudaStream_t stream)
{
    const int rows = WARP_ROWS * WARPS_M;
    const int32_t busy = FKM_PART_ROWS / rows * a->chip.processors;
    size_t bytes = shared_bytes<WARPS_M>(a->stride, RESIDENT, STAGES);
    auto kernel = screen_rows<UNIT, WARPS_M, RESIDENT, STAGES>;
    cudaError_t st =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    if (st != cudaSuccess)
        return st;
    unsigned blocks = fkm_blocks(a->rows, rows, INT32_MAX);
    if (a->parts.room > 0 && blocks < (unsigned)busy)
        blocks = (unsigned)busy; /* how many have work is known where rows are counted */
    FKM_LAUNCH(kernel, blocks, 64 * WARPS_M, bytes, stream, *a, tiles_offset<WARPS_M>(), busy);
    st = cudaGetLastError();
    return st == cudaSuccess ? fkm_merge_parts(a, rows, busy, stream) : st;
}

} // namespace

/* Every variant for every unit: rows a block, where they stay, stages of the ring. */
#define FKM_VARIANTS(unit, UNIT)                                                                   \
    cudaError_t fkm_assign_##unit##_128_kept(const fkm_assign_args *a, cudaStream_t s)             \
    {                                                                                              \
        return launch<UNIT, 2, true, 3>(a, s);                                                     \
    }                                                                                              \
    cudaError_t fkm_assign_##unit##_256_kept(const fkm_assign_args *a, cudaStream_t s)             \
    {                                                                                              \
        return launch<UNIT, 4, true, 3>(a, s);                                                     \
    }                                                                                              \
    cudaError_t fkm_assign_##unit##_256(const fkm_assign_args *a, cudaStream_t s)                  \
    {                                                                                              \
        return launch<UNIT, 4, false, 3>(a, s);                                                    \
    }                                                                                              \
    cudaError_t fkm_assign_##unit##_128(const fkm_assign_args *a, cudaStream_t s)                  \
    {                                                                                              \
        return launch<UNIT, 2, false, 2>(a, s);                                                    \
    }
FKM_VARIANTS(f16, FKM_UNIT_F16)
FKM_VARIANTS(bf16, FKM_UNIT_BF16)
FKM_VARIANTS(s8, FKM_UNIT_S8)

int32_t fkm_assign_shared(int32_t rows, bool kept, int32_t stride)
{
    return (int32_t)(rows == 256 ? shared_bytes<4>(stride, kept, 3)
                                 : shared_bytes<2>(stride, kept, kept ? 3 : 2));
}
