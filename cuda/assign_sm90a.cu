/* The screening kernel of Hopper: TMA, mbarriers, wgmma. For sm_90a alone; see assign.cuh for what
 * a screening kernel owes, README.md for rates, hopper.cuh for the instructions.
 *
 * A block per processor goes from 256 rows to the next 256. Its three warpgroups: one that loads
 * (one thread the centroids, one the rows), two that multiply, each its 128 rows by each tile of
 * 128 centroids, which both read from the same ring. Dimensions come in slabs of 128 bytes, a box
 * of hopper.cuh a stage of the ring. Rows stay in shared memory while they are multiplied when
 * there is room for them and three stages (KEPT). When there is for 128 of them, those are what a
 * block goes by, and the warpgroups take every other tile each, with lists of their own that are
 * put together at the end (SHARED). Longer ones come through the ring with the centroids
 * (STREAMED).
 *
 * Ping-pong. When rows are kept and the ring holds a whole tile, the multiplying warpgroups take
 * turns in handing tiles to the matrix unit, so that one looks through its scores while the unit
 * works for the other. Turns cannot lock up: who has the turn needs the slabs of one tile, which
 * fit the ring, and those before it are given back without a turn. With a smaller ring that would
 * not hold, and there are no turns: then a tile is so long (5 slabs and more) that what they would
 * hide is small; and with shared rows it is the order in which tiles come that keeps warpgroups
 * apart.
 *
 * A tile: accumulators start at -|c|^2/2; slabs are multiplied, each committed, a stage given back
 * when the commit after its own is on its way; meanwhile thread t works out the threshold of row t.
 * Then one max a score and one compare a row and thread. What passes floor - reach alone raises the
 * row's second; where something passes the floor too, the parts of eight scores whose largest does
 * are looked through, and it goes on the row's list of candidates with its score;
 * bounds of single centroids wait for the end of the row, or for half a list, so that the way
 * through is short: shared memory only.
 *
 * Accuracy. wgmma m64n128k16 adds 16 products of fp16 or bf16 to a float32 accumulator. Assumed is
 * of it what margin.cuh assumes of any 16 products and an accumulator, FKM_MMA_LOSS, and its chain
 * is the same: start first, then ceil(dims / 16) steps in order (zeros beyond `stride` are not
 * multiplied). So gamma, hence every margin, covers this kernel as it covers assign.cu; FP8, of
 * which Hopper keeps fewer bits, is not used. m64n128k32 of int8 adds in int32: exact. Scores may
 * differ from assign.cu's by rounding, candidates by what margins allow; labels do not.
 *
 * Registers: 168 a thread at launch; 240 where it is multiplied (128 accumulators, 32 starts of the
 * next tile), 24 where it is loaded: (2 x 240 + 24) x 128 = 168 x 384. */
#include "assign.cuh"

#include "hopper.cuh"
#include "settle.cuh"

extern "C" {
#include "../src/base/log.h"
}

#include <atomic>
#include <type_traits>

namespace
{

enum {
    GROUP = 128,   /* threads of a warpgroup; rows it multiplies */
    CONSUMERS = 2, /* warpgroups that multiply */
    ROWS = CONSUMERS * GROUP,
    THREADS = GROUP + ROWS,
    HALVES = GROUP / FKM_WGMMA_ROWS,
    LOADING_REGISTERS = 24,
    MULTIPLYING_REGISTERS = 240,
    STEPS = FKM_BOX_BYTES / FKM_WGMMA_BYTES, /* of a slab */
    LEAST_STAGES = 3,
    MOST_STAGES = 8,
    ALIGNMENT = 1024,    /* of boxes */
    STATIC_SPARE = 1024, /* bytes left to shared memory that is not dynamic: there is none now */
    START_BYTES = 4 * FKM_TILE,
    COLUMNS = 32, /* that a thread has of a tile, in each of its rows */
    PART = 8,     /* of those are told apart by their largest */
    PARTS = COLUMNS / PART,
};
static_assert(
    FKM_TILE == FKM_WGMMA_COLUMNS && FKM_TILE == FKM_BOX_ROWS && (int)GROUP == FKM_BOX_ROWS,
    "a tile of centroids is a box, and one instruction wide");

/* Barriers of some warps: whose turn it is, those of one warpgroup, and of both that multiply. */
enum { BAR_TURN = 1, BAR_GROUP = BAR_TURN + CONSUMERS, BAR_BOTH = BAR_GROUP + CONSUMERS };

/* Which accumulator of a thread has score i < PART, in part `part`, of its row h < 2. */
constexpr __host__ __device__ int score_at(int h, int part, int i)
{
    return 2 * PART * part + 4 * (i >> 1) + 2 * h + (i & 1);
}

/* How rows come, best first. */
enum row_mode { KEPT, SHARED, STREAMED };

/* Groups of 128 rows that a block goes by. */
constexpr __host__ __device__ int32_t row_groups(row_mode mode)
{
    return mode == SHARED ? 1 : CONSUMERS;
}

/* What is kept of a warpgroup's rows. Row t's margin and floor at a tile's beginning are thread
 * t's. */
struct row_state {
    float threshold[GROUP], margin[GROUP]; /* of the tile at hand */
    int floor[GROUP], second[GROUP];       /* fkm_ordered */
    int count[GROUP];                      /* candidates; more than FKM_CANDIDATES: overflow */
    int32_t position[FKM_CANDIDATES][GROUP];
    float score[FKM_CANDIDATES][GROUP];
};

struct shared_block {
    fkm_mbarrier full[MOST_STAGES], empty[MOST_STAGES];
    fkm_mbarrier rows_full[CONSUMERS], rows_empty[CONSUMERS];
    row_state row[CONSUMERS];
    alignas(16) float start[MOST_STAGES][FKM_TILE]; /* int32 for int8; of slab 0 */
    /* then, aligned: rows [row_groups][slabs] boxes if they stay; stages of a box of centroids and,
     * if they do not, CONSUMERS boxes of rows */
};

/* What the host has worked out for a launch. */
struct layout {
    int32_t slabs, last_steps;
    int32_t stages;
    bool turns;
};

enum { TILES_AT = (sizeof(shared_block) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT };

constexpr __host__ __device__ int32_t stage_boxes(row_mode mode)
{
    return 1 + (mode == STREAMED ? CONSUMERS : 0);
}

/* Boxes of rows that stay. */
constexpr __host__ __device__ int32_t row_boxes(row_mode mode, int32_t slabs)
{
    return mode == STREAMED ? 0 : row_groups(mode) * slabs;
}

/* Stages for which there is room; the first ALIGNMENT - 1 bytes may have to be skipped. */
int32_t stages_in(int32_t shared_bytes, int32_t slabs, row_mode mode)
{
    int64_t boxes = (shared_bytes - (ALIGNMENT - 1) - TILES_AT) / FKM_BOX;
    int64_t stages = (boxes - row_boxes(mode, slabs)) / stage_boxes(mode);
    return (int32_t)(stages < 0 ? 0 : stages > MOST_STAGES ? (int)MOST_STAGES : stages);
}

/* Dynamic shared memory of a launch. */
int32_t shared_needed(const layout &n, row_mode mode)
{
    const int32_t boxes = row_boxes(mode, n.slabs) + n.stages * stage_boxes(mode);
    return ALIGNMENT - 1 + TILES_AT + boxes * FKM_BOX;
}

template <fkm_unit UNIT> using score_of = std::conditional_t<UNIT == FKM_UNIT_S8, int, float>;

__device__ __forceinline__ float larger(float a, float b, float c)
{
    return fmaxf(a, fmaxf(b, c));
}
__device__ __forceinline__ int larger(int a, int b, int c)
{
    return __vimax3_s32(a, b, c); /* one instruction */
}

template <fkm_unit UNIT>
__device__ __forceinline__ void multiply(score_of<UNIT> (&d)[64], uint64_t a, uint64_t b)
{
    if constexpr (UNIT == FKM_UNIT_F16)
        fkm_wgmma_f16(d, a, b);
    else if constexpr (UNIT == FKM_UNIT_BF16)
        fkm_wgmma_bf16(d, a, b);
    else
        fkm_wgmma_s8(d, a, b);
}

/* A place in the ring, and how often it has been passed, modulo 2. */
struct ring_place {
    int32_t stage;
    unsigned phase;

    __device__ void advance(int32_t stages)
    {
        if (++stage == stages) {
            stage = 0;
            phase ^= 1;
        }
    }
};

/* Where things are, for all warps. */
template <row_mode MODE> struct memory {
    shared_block &s;
    unsigned char *tiles;
    const layout &n;
    int32_t rows, blocks; /* of row_groups(MODE) * GROUP rows each */
    int32_t splits;       /* each goes through a part of the tiles */

    /* Shares of the work: block + split * blocks. */
    __device__ int32_t shares() const
    {
        return blocks * splits;
    }
    __device__ int32_t first_tile(int32_t tiles, int32_t share) const
    {
        return (int32_t)((int64_t)tiles * (share / blocks) / splits);
    }
    __device__ int32_t end_tile(int32_t tiles, int32_t share) const
    {
        return (int32_t)((int64_t)tiles * (share / blocks + 1) / splits);
    }

    __device__ unsigned char *stage_at(int32_t stage) const
    {
        return tiles + (size_t)(row_boxes(MODE, n.slabs) + stage * stage_boxes(MODE)) * FKM_BOX;
    }
    __device__ unsigned char *centroids_at(int32_t stage) const
    {
        return stage_at(stage);
    }
    __device__ unsigned char *rows_at(int group, int32_t slab, int32_t stage) const
    {
        return MODE == KEPT     ? tiles + (size_t)(group * n.slabs + slab) * FKM_BOX
               : MODE == SHARED ? tiles + (size_t)slab * FKM_BOX
                                : stage_at(stage) + (size_t)(1 + group) * FKM_BOX;
    }
};

/* ---- loading ---- */

/* Slab after slab of all centroids, for each block of rows. One thread. */
template <row_mode MODE>
__device__ void load_centroids(const fkm_assign_args &a, const memory<MODE> &m,
    const fkm_tensor_map *centroids, const fkm_tensor_map *rows)
{
    ring_place at = {0, 0};
    for (int32_t share = (int32_t)blockIdx.x; share < m.shares(); share += (int32_t)gridDim.x) {
        const int32_t end = m.end_tile(a.tiles, share);
        for (int32_t tile = m.first_tile(a.tiles, share); tile < end; tile++)
            for (int32_t slab = 0; slab < m.n.slabs; slab++) {
                fkm_mbarrier *full = &m.s.full[at.stage];
                fkm_mbarrier_wait(&m.s.empty[at.stage], at.phase ^ 1);
                fkm_mbarrier_expect(
                    full, stage_boxes(MODE) * (int)FKM_BOX + (slab == 0 ? (int)START_BYTES : 0));
                if (slab == 0)
                    fkm_load_bytes(m.s.start[at.stage],
                        (const char *)a.c.start + (int64_t)tile * START_BYTES, START_BYTES, full);
                fkm_load_box(m.centroids_at(at.stage), centroids, slab * FKM_BOX_BYTES,
                    tile * FKM_TILE, full);
                for (int group = 0; group < CONSUMERS && MODE == STREAMED; group++)
                    fkm_load_box(m.rows_at(group, slab, at.stage), rows, slab * FKM_BOX_BYTES,
                        share % m.blocks * ROWS + group * GROUP, full);
                at.advance(m.n.stages);
            }
    }
}

/* Rows that stay, of one warpgroup after the other. One thread. */
template <row_mode MODE>
__device__ void load_rows(const memory<MODE> &m, const fkm_tensor_map *rows)
{
    unsigned phase = 0;
    for (int32_t share = (int32_t)blockIdx.x; share < m.shares(); share += (int32_t)gridDim.x) {
        for (int group = 0; group < row_groups(MODE); group++) {
            fkm_mbarrier *full = &m.s.rows_full[group];
            fkm_mbarrier_wait(&m.s.rows_empty[group], phase ^ 1);
            fkm_mbarrier_expect(full, (unsigned)(m.n.slabs * FKM_BOX));
            for (int32_t slab = 0; slab < m.n.slabs; slab++)
                fkm_load_box(m.rows_at(group, slab, 0), rows, slab * FKM_BOX_BYTES,
                    share % m.blocks * (row_groups(MODE) * GROUP) + group * GROUP, full);
        }
        phase ^= 1;
    }
}

/* ---- multiplying ---- */

/* A warpgroup that multiplies, as a struct so that its parts share what does not change. */
template <fkm_unit UNIT, row_mode MODE> struct screen {
    typedef score_of<UNIT> score;

    const fkm_assign_args &a;
    const memory<MODE> &m;
    const int group, t; /* which warpgroup, which of its threads */
    row_state &row;
    ring_place at;
    float norm, residual, tail, slack, reach; /* of row t */

    __device__ screen(const fkm_assign_args &args, const memory<MODE> &mem, int which)
        : a(args), m(mem), group(which), t((int)threadIdx.x % GROUP),
          row(mem.s.row[which]), at{0, 0}, norm(0), residual(0), tail(0), slack(0), reach(0)
    {
    }

    __device__ void group_sync()
    {
        fkm_bar_sync(BAR_GROUP + group, GROUP);
    }

    /* A barrier that all four warps of a consumer arrive at, and nobody else of it. */
    __device__ void give_back(fkm_mbarrier *b)
    {
        __syncwarp(); /* all lanes have read what they read of it themselves */
        if (fkm_lane() == 0)
            fkm_mbarrier_arrive(b);
    }

    /* r: -1 where there is none */
    __device__ void start_row(int32_t r)
    {
        bool real = r >= 0 && a.x.residual[r] >= 0;
        norm = real ? a.x.norm[r] : 0;
        residual = real ? a.x.residual[r] : 0;
        tail = real ? a.x.tail[r] : 0;
        slack = a.c.kappa * norm * norm;
        reach = real ? fkm_reach_of(a, r) : 0;
        row.floor[t] = fkm_ordered(real ? a.floor[r] : FKM_FLOOR_DEAD);
        row.second[t] = fkm_ordered(FKM_FLOOR_NONE);
        row.count[t] = 0;
    }

    /* A centroid, or several, whose S^ + m are at most `upper` are no candidates. */
    __device__ void raise_second(int r, float upper)
    {
        atomicMax(&row.second[r], fkm_ordered(upper));
    }

    __device__ float tile_margin(int32_t tile)
    {
        return norm * a.c.tile_slope[tile] + residual * a.c.tile_rival[tile] +
               tail * a.c.tile_tail[tile] + a.c.tile_offset[tile] + slack;
    }

    /* m(t, position) of margin.cuh */
    __device__ float margin(int32_t position)
    {
        return norm * a.c.slope[position] + residual * a.c.rival[position] +
               tail * a.c.tail[position] + a.c.offset[position] + slack;
    }

    /* Raises the floor by each candidate's own bound and drops those that it has overtaken; not
     * after an overflow. */
    __device__ int compact()
    {
        const int n = row.count[t];
        float floor = fkm_unordered(row.floor[t]);
        int kept = 0;
        for (int i = 0; i < n; i++)
            floor = fmaxf(floor, row.score[i][t] - margin(row.position[i][t]));
        for (int i = 0; i < n; i++) {
            int32_t position = row.position[i][t];
            float v = row.score[i][t], upper = v + margin(position);
            if (upper < floor) {
                raise_second(t, upper);
                continue;
            }
            row.position[kept][t] = position;
            row.score[kept][t] = v;
            kept++;
        }
        row.floor[t] = fkm_ordered(floor);
        return row.count[t] = kept;
    }

    /* The threshold of row t, when nobody is in the slow path of the tile before. */
    __device__ void start_tile(int32_t tile)
    {
        float margin = tile_margin(tile);
        group_sync();
        if (row.count[t] > FKM_CANDIDATES / 2 && row.count[t] <= FKM_CANDIDATES)
            compact();
        row.margin[t] = margin;
        row.threshold[t] = fkm_unordered(row.floor[t]) - reach - margin;
        group_sync();
    }

    /* Accumulators start: those of columns 8 j + 2 q and the next, j < 16, alike in all rows. */
    __device__ __forceinline__ void set_start(score (&acc)[HALVES][64])
    {
        const score *start = (const score *)m.s.start[at.stage] + 2 * (t & 3);
#pragma unroll
        for (int j = 0; j < COLUMNS / 2; j++) {
            const score first = start[8 * j], second = start[8 * j + 1];
#pragma unroll
            for (int half = 0; half < HALVES; half++) {
                acc[half][4 * j] = acc[half][4 * j + 2] = first;
                acc[half][4 * j + 1] = acc[half][4 * j + 3] = second;
            }
        }
#pragma unroll
        for (int half = 0; half < HALVES; half++)
            fkm_wgmma_hold(acc[half]);
    }

    __device__ __forceinline__ void multiply_step(score (&acc)[HALVES][64], uint64_t x, uint64_t c)
    {
#pragma unroll
        for (int half = 0; half < HALVES; half++)
            multiply<UNIT>(
                acc[half], x + half * fkm_descriptor_step(FKM_WGMMA_ROWS * FKM_BOX_BYTES), c);
    }

    /* Hands a slab to the matrix unit, of the last one what is within the stride. */
    __device__ __forceinline__ void multiply_slab(score (&acc)[HALVES][64], int32_t slab)
    {
        const uint64_t step = fkm_descriptor_step(FKM_WGMMA_BYTES);
        uint64_t x = fkm_box_descriptor(fkm_shared_address(m.rows_at(group, slab, at.stage)));
        uint64_t c = fkm_box_descriptor(fkm_shared_address(m.centroids_at(at.stage)));
        if (slab + 1 < m.n.slabs || m.n.last_steps == STEPS) {
            fkm_wgmma_begin();
#pragma unroll
            for (int k = 0; k < STEPS; k++)
                multiply_step(acc, x + k * step, c + k * step);
            fkm_wgmma_commit();
        } else {
            int steps = m.n.last_steps;
#pragma unroll 1
            do {
                fkm_wgmma_begin(); /* each round a sequence: the compiler adds what is missing, else
                                    */
                multiply_step(acc, x, c);
                fkm_wgmma_commit();
                x += step;
                c += step;
            } while (--steps > 0);
        }
    }

    /* Hands a tile to the matrix unit. All slabs but the last are done and given back when this
     * returns, the last is on its way; returns its stage. */
    __device__ __forceinline__ int32_t multiply_tile(score (&acc)[HALVES][64])
    {
        int32_t stage = at.stage; /* has been waited for */
        multiply_slab(acc, 0);
        at.advance(m.n.stages);
        for (int32_t slab = 1; slab < m.n.slabs; slab++) {
            fkm_mbarrier_wait(&m.s.full[at.stage], at.phase);
            multiply_slab(acc, slab);
            fkm_wgmma_wait<1>();
            give_back(&m.s.empty[stage]);
            stage = at.stage;
            at.advance(m.n.stages);
        }
        return stage;
    }

    /* A score that passed the threshold of row r. Several threads may report for one row at once.
     */
    __device__ void report(int r, int32_t position, float v)
    {
        if (position >= a.clusters)
            return; /* padding: only int8's reaches a threshold, and only in a cold start */
        int slot = atomicAdd(&row.count[r], 1);
        if (slot >= FKM_CANDIDATES)
            return; /* the count says so */
        row.position[slot][r] = position;
        row.score[slot][r] = v;
    }

    /* The PART scores of row r in columns 32 `part` and on: reports those that pass, and raises
     * *below to the best of the others. */
    __device__ __forceinline__ void report_part(
        const score (&d)[64], int h, int part, int r, int32_t tile, float *below)
    {
        /* read by an atomic, as others may be raising it; any of its values is right */
        const int floor = atomicMax(&row.floor[r], INT32_MIN);
        const float threshold = fkm_unordered(floor) - row.margin[r];
        unsigned passed = 0;
#pragma unroll
        for (int i = 0; i < PART; i++) {
            const float v = (float)d[score_at(h, part, i)];
            const bool passes = v >= threshold;
            passed |= (passes ? 1u : 0u) << i;
            *below = passes ? *below : fmaxf(*below, v);
        }
        while (passed) {
            const int one = __ffs((int)passed) - 1;
            float v = 0;
            passed &= passed - 1;
#pragma unroll
            for (int i = 0; i < PART; i++)
                v = one == i ? (float)d[score_at(h, part, i)] : v;
            report(r, tile * FKM_TILE + fkm_wgmma_column(t, score_at(0, part, one)), v);
        }
    }

    /* Raises the floor of row r by the largest of four parts, and raises *below to those that
     * cannot hold a candidate. Returns the others, a bit each: they are to be looked at when all
     * lanes have raised their floors. */
    __device__ __forceinline__ unsigned choose_parts(
        const score (&most)[PARTS], float top, int r, float *below)
    {
        const float margin = row.margin[r];
        const float raised = top - margin;
        const int floor = atomicMax(&row.floor[r], fkm_ordered(raised));
        const float threshold = fmaxf(fkm_unordered(floor), raised) - margin;
        unsigned parts = 0;
        if (top + margin < fkm_unordered(floor)) {
            *below = top;
            return 0;
        }
#pragma unroll
        for (int g = 0; g < PARTS; g++)
            if ((float)most[g] >= threshold)
                parts |= 1u << g;
            else
                *below = fmaxf(*below, (float)most[g]);
        return parts;
    }

    /* A tile's scores of 64 rows, of which each thread has two: one compare a row, mostly. */
    __device__ __forceinline__ void finish_half(const score (&d)[64], int half, int32_t tile)
    {
        float below[2] = {FKM_FLOOR_NONE, FKM_FLOOR_NONE}; /* best of those that do not pass */
        unsigned parts = 0, passed = 0;                    /* PARTS bits a row; a bit a row */
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int r = half * FKM_WGMMA_ROWS + fkm_wgmma_row(t, 2 * h);
            score most[PARTS];
#pragma unroll
            for (int g = 0; g < PARTS; g++) {
                most[g] = d[score_at(h, g, 0)];
#pragma unroll
                for (int i = 1; i < PART - 1; i += 2)
                    most[g] = larger(most[g], d[score_at(h, g, i)], d[score_at(h, g, i + 1)]);
                most[g] = larger(most[g], d[score_at(h, g, PART - 1)], d[score_at(h, g, PART - 1)]);
            }
            const float top = (float)larger(larger(most[0], most[1], most[2]), most[3], most[3]);
            if (top >= row.threshold[r]) {
                passed |= 1u << h;
                parts |= choose_parts(most, top, r, &below[h]) << (PARTS * h);
            }
        }
        if (!passed)
            return;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int r = half * FKM_WGMMA_ROWS + fkm_wgmma_row(t, 2 * h);
#pragma unroll
            for (int g = 0; g < PARTS; g++)
                if (parts >> (PARTS * h + g) & 1)
                    report_part(d, h, g, r, tile, &below[h]);
            if (passed >> h & 1)
                raise_second(r, below[h] + row.margin[r]);
        }
    }

    __device__ __forceinline__ void finish_tile(const score (&acc)[HALVES][64], int32_t tile)
    {
#pragma unroll
        for (int half = 0; half < HALVES; half++)
            finish_half(acc[half], half, tile);
    }

    /* Adds what the other warpgroup knows of row t: it has gone through the other tiles. Both have
     * been compacted. */
    __device__ void take_from(const row_state &other)
    {
        const float floor = fmaxf(fkm_unordered(row.floor[t]), fkm_unordered(other.floor[t]));
        row.floor[t] = fkm_ordered(floor);
        raise_second(t, fkm_unordered(other.second[t]));
        if (row.count[t] > FKM_CANDIDATES || other.count[t] > FKM_CANDIDATES) {
            row.count[t] = FKM_CANDIDATES + 1;
            return;
        }
        int n = compact();
        for (int i = 0; i < other.count[t]; i++) {
            const int32_t position = other.position[i][t];
            const float v = other.score[i][t], upper = v + margin(position);
            if (upper < floor) {
                raise_second(t, upper);
                continue;
            }
            if (n < FKM_CANDIDATES) {
                row.position[n][t] = position;
                row.score[n][t] = v;
            }
            n++;
        }
        row.count[t] = n;
    }

    /* The rows of both warpgroups are the same: the first settles them. False: this is the other.
     */
    __device__ bool join()
    {
        if (row.count[t] <= FKM_CANDIDATES)
            compact();
        fkm_bar_sync(BAR_BOTH, ROWS);
        if (group == 0)
            take_from(m.s.row[1]);
        fkm_bar_sync(BAR_BOTH, ROWS); /* the other's list may be begun anew */
        return group == 0;
    }

    __device__ void store_part(int32_t i, int32_t split)
    {
        const int n = row.count[t] <= FKM_CANDIDATES ? compact() : row.count[t];
        fkm_store_part(
            a.parts, (int64_t)split * m.rows + i, fkm_unordered(row.floor[t]),
            fkm_unordered(row.second[t]), n, [&](int k) { return row.position[k][t]; },
            [&](int k) { return row.score[k][t] + margin(row.position[k][t]); });
    }

    /* Row `which`, -1: none; it is the i-th. */
    __device__ void settle(int32_t which, int32_t i, int32_t split)
    {
        fkm_screened_row r;
        r.real = which >= 0;
        r.row = r.real ? which : 0;
        r.screened = r.real && a.x.residual[r.row] >= 0;
        group_sync(); /* nobody is in the slow path of the last tile */
        if (MODE == SHARED && !join())
            return;
        if (m.splits > 1) {
            if (r.screened)
                store_part(i, split);
            return;
        }
        r.candidates = r.screened && row.count[t] <= FKM_CANDIDATES ? compact() : 0;
        r.floor = fkm_unordered(row.floor[t]);
        r.second = fkm_unordered(row.second[t]);
        fkm_settle_row(a, r, [&](int i) { return row.position[i][t]; });
    }

    /* One tile. last: of this warpgroup; last_of_rows: of these rows. */
    __device__ __forceinline__ void run_tile(int32_t tile, bool last_of_rows, bool last)
    {
        score acc[HALVES][64];
        fkm_mbarrier_wait(&m.s.full[at.stage], at.phase);
        set_start(acc);
        if (m.n.turns)
            fkm_bar_sync(BAR_TURN + group, ROWS);
        int32_t stage = multiply_tile(acc);
        if (m.n.turns && !(last && group == CONSUMERS - 1)) /* nobody would come for it */
            fkm_bar_arrive(BAR_TURN + (group + 1) % CONSUMERS, ROWS);
        start_tile(tile);
        fkm_wgmma_wait<0>();
#pragma unroll
        for (int half = 0; half < HALVES; half++)
            fkm_wgmma_hold(acc[half]);
        give_back(&m.s.empty[stage]);
        if (MODE == KEPT && last_of_rows)
            give_back(&m.s.rows_empty[group]);
        finish_tile(acc, tile);
    }

    /* Lets a tile of the other warpgroup go by. Every stage is waited for and given back by both,
     * or one could take a phase of a barrier for the next but one, which has the same parity. */
    __device__ void pass_tile()
    {
        for (int32_t slab = 0; slab < m.n.slabs; slab++) {
            fkm_mbarrier_wait(&m.s.full[at.stage], at.phase);
            give_back(&m.s.empty[at.stage]);
            at.advance(m.n.stages);
        }
    }

    /* Tiles from `first` to before `end`; sequence: of tiles, over all rows of the block. */
    __device__ void run_tiles(int32_t first, int32_t end, bool last_share, int64_t sequence)
    {
        for (int32_t tile = first; tile < end; tile++, sequence++) {
            const bool last = tile + 1 == end;
            if (MODE != SHARED || (sequence & 1) == group)
                run_tile(tile, last, last && last_share);
            else
                pass_tile();
        }
    }

    __device__ void run()
    {
        unsigned phase = 0;
        int64_t sequence = 0;
        if (m.n.turns && group == CONSUMERS - 1)
            fkm_bar_arrive(BAR_TURN, ROWS); /* the first has the first turn */
        for (int32_t share = (int32_t)blockIdx.x; share < m.shares(); share += (int32_t)gridDim.x) {
            const int32_t rows_group = MODE == SHARED ? 0 : group;
            const int32_t i =
                share % m.blocks * (row_groups(MODE) * GROUP) + rows_group * GROUP + t;
            const int32_t r = i < m.rows ? fkm_row_at(a, i) : -1;
            const int32_t first = m.first_tile(a.tiles, share), end = m.end_tile(a.tiles, share);
            start_row(r);
            if (MODE != STREAMED)
                fkm_mbarrier_wait(&m.s.rows_full[rows_group], phase);
            phase ^= 1;
            run_tiles(first, end, share + (int32_t)gridDim.x >= m.shares(), sequence);
            sequence += end - first;
            if (MODE == SHARED)
                give_back(&m.s.rows_empty[0]);
            settle(r, i, share / m.blocks);
        }
    }
};

template <row_mode MODE>
__device__ __forceinline__ void start_barriers(shared_block &s, const layout &n)
{
    const unsigned warps = GROUP / 32, both = CONSUMERS * warps;
    for (int32_t i = 0; i < n.stages; i++) {
        fkm_mbarrier_init(&s.full[i], 1);
        fkm_mbarrier_init(&s.empty[i], both);
    }
    for (int i = 0; i < CONSUMERS; i++) {
        fkm_mbarrier_init(&s.rows_full[i], 1);
        fkm_mbarrier_init(&s.rows_empty[i], MODE == SHARED ? both : warps);
    }
    fkm_mbarriers_ready();
}

template <fkm_unit UNIT, row_mode MODE>
__global__ void __launch_bounds__(THREADS, 1) screen_rows_sm90a(
    const __grid_constant__ fkm_assign_args a, const __grid_constant__ layout n,
    const __grid_constant__ fkm_tensor_map rows, const __grid_constant__ fkm_tensor_map centroids)
{
    FKM_SHARED_DYNAMIC(unsigned char, dynamic);
    unsigned char *base = dynamic + (-fkm_shared_address(dynamic) & (ALIGNMENT - 1));
    const int32_t block_rows = row_groups(MODE) * GROUP, count = fkm_row_count(a);
    const int32_t blocks = (count + block_rows - 1) / block_rows;
    const int32_t splits = count > 0 ? fkm_splits(a, count, block_rows, (int32_t)gridDim.x) : 1;
    const memory<MODE> m = {*(shared_block *)base, base + TILES_AT, n, count, blocks, splits};
    const int warp = __shfl_sync(FKM_ALL_LANES, (int)threadIdx.x / 32, 0); /* known to be uniform */
    if ((int32_t)blockIdx.x >= m.shares())
        return; /* fewer rows may be listed than there might have been */
    if (threadIdx.x == 0)
        start_barriers<MODE>(m.s, n);
    __syncthreads();
    if (warp < GROUP / 32) {
        fkm_registers_down_to<LOADING_REGISTERS>();
        if (warp == 0 && fkm_lane() == 0)
            load_centroids(a, m, &centroids, &rows);
        if (MODE != STREAMED && warp == 1 && fkm_lane() == 0)
            load_rows(m, &rows);
    } else {
        fkm_registers_up_to<MULTIPLYING_REGISTERS>();
        screen<UNIT, MODE>(a, m, warp / (GROUP / 32) - 1).run();
    }
}

/* ---- launching ---- */

/* The portable kernel, where this one cannot be: said once. */
cudaError_t run_portable(
    fkm_unit unit, const fkm_assign_args *a, const char *why, cudaStream_t stream)
{
    static std::atomic<bool> said(false);
    fkm_chip chip = a->chip;
    chip.portable = true;
    const fkm_assign_kernel *k = fkm_assign_choose(&chip, unit, a->stride);
    if (!k)
        return cudaErrorInvalidDevice;
    if (!said.exchange(true))
        fkm_verbose("screening by %s, not by Hopper's own kernel: %s", k->name, why);
    return k->run(a, stream);
}

/* The map of rows or centroids, made when it is asked for the first time: a map depends on nothing
 * but these numbers. NULL: the driver makes none. Each thread has its own, as it has its own GPU.
 */
const fkm_tensor_map *map_of(const void *base, int64_t row_bytes, int64_t rows)
{
    struct known {
        const void *base;
        int64_t row_bytes, rows; /* 0: no map */
        fkm_tensor_map map;
    };
    enum { KNOWN = 64 };
    static thread_local known all[KNOWN];
    known &k =
        all[((uint64_t)(uintptr_t)base / 256 * 0x9e3779b97f4a7c15u ^ (uint64_t)rows) % KNOWN];
    if (k.rows == rows && k.base == base && k.row_bytes == row_bytes)
        return &k.map;
    k = {base, row_bytes, 0, {}};
    if (fkm_tensor_map_make(&k.map, base, row_bytes, rows) != cudaSuccess) {
        (void)cudaGetLastError();
        return NULL;
    }
    k.rows = rows;
    return &k.map;
}

template <fkm_unit UNIT, row_mode MODE>
cudaError_t launch_kernel(const fkm_assign_args *a, const layout &n, const fkm_tensor_map &rows,
    const fkm_tensor_map &centroids, cudaStream_t stream)
{
    const int32_t block_rows = row_groups(MODE) * GROUP, bytes = shared_needed(n, MODE);
    auto kernel = screen_rows_sm90a<UNIT, MODE>;
    cudaError_t st = fkm_watchdog_arm();
    if (st == cudaSuccess)
        st = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (st != cudaSuccess)
        return st;
    const int32_t busy = a->parts.room > 0 ? a->chip.processors : 1;
    const unsigned needed = fkm_blocks(a->rows, block_rows, a->chip.processors);
    const unsigned blocks = needed < (unsigned)busy ? (unsigned)busy : needed;
    FKM_LAUNCH(kernel, blocks, THREADS, (size_t)bytes, stream, *a, n, rows, centroids);
    st = cudaGetLastError();
    return st == cudaSuccess ? fkm_merge_parts(a, block_rows, (int32_t)blocks, stream) : st;
}

template <fkm_unit UNIT> cudaError_t launch(const fkm_assign_args *a, cudaStream_t stream)
{
    const int32_t shared_bytes = a->chip.shared_bytes - STATIC_SPARE;
    if (a->chip.compute != 90)
        return run_portable(UNIT, a, "the device is not one of compute capability 9.0", stream);
    if (a->rows > INT32_MAX - ROWS || a->tiles > INT32_MAX / FKM_TILE)
        return run_portable(UNIT, a, "too many rows or centroids for its coordinates", stream);
    layout n;
    n.slabs = (a->stride + FKM_BOX_BYTES - 1) / FKM_BOX_BYTES;
    n.last_steps = (a->stride - (n.slabs - 1) * FKM_BOX_BYTES) / FKM_WGMMA_BYTES;
    row_mode mode = KEPT;
    while (mode != STREAMED && stages_in(shared_bytes, n.slabs, mode) < LEAST_STAGES)
        mode = (row_mode)(mode + 1);
    n.stages = stages_in(shared_bytes, n.slabs, mode);
    n.turns = mode == KEPT && n.stages >= n.slabs;
    if (n.stages < LEAST_STAGES)
        return run_portable(UNIT, a, "the device has too little shared memory", stream);
    const fkm_tensor_map *rows = map_of(a->x.x, a->stride, a->rows);
    const fkm_tensor_map copy =
        rows ? *rows : fkm_tensor_map{}; /* one may take the other's place */
    const fkm_tensor_map *centroids = map_of(a->c.c, a->stride, (int64_t)a->tiles * FKM_TILE);
    if (!rows || !centroids)
        return run_portable(UNIT, a, "the driver makes no tensor maps for it", stream);
    return mode == KEPT     ? launch_kernel<UNIT, KEPT>(a, n, copy, *centroids, stream)
           : mode == SHARED ? launch_kernel<UNIT, SHARED>(a, n, copy, *centroids, stream)
                            : launch_kernel<UNIT, STREAMED>(a, n, copy, *centroids, stream);
}

} // namespace

cudaError_t fkm_assign_f16_sm90a(const fkm_assign_args *a, cudaStream_t stream)
{
    return launch<FKM_UNIT_F16>(a, stream);
}
cudaError_t fkm_assign_bf16_sm90a(const fkm_assign_args *a, cudaStream_t stream)
{
    return launch<FKM_UNIT_BF16>(a, stream);
}
cudaError_t fkm_assign_s8_sm90a(const fkm_assign_args *a, cudaStream_t stream)
{
    return launch<FKM_UNIT_S8>(a, stream);
}
