/* Rows and centroids made ready for screening: see pack.cuh. A warp a row; memory-bound. */
#include "pack.cuh"

#include "margin.cuh"

namespace
{

enum { THREADS = 256, WARPS = THREADS / 32, MOST_BLOCKS = 1 << 16 };

/* Rounding to the packed type: bits to store, and the value they stand for. Saturates: what is lost
 * is in the residual. */
template <fkm_unit UNIT> struct packer;

template <> struct packer<FKM_UNIT_F16> {
    typedef uint16_t bits;
    static __device__ bits pack(float v, float, float *value)
    {
        __half h = __float2half_rn(fminf(fmaxf(v, -65504.0f), 65504.0f));
        *value = __half2float(h);
        return __half_as_ushort(h);
    }
};

template <> struct packer<FKM_UNIT_BF16> {
    typedef uint16_t bits;
    static __device__ bits pack(float v, float, float *value)
    {
        uint32_t i = __float_as_uint(v);
        i = (i + 0x7fff + ((i >> 16) & 1)) & 0xffff0000; /* to nearest, ties to even */
        *value = __uint_as_float(i);
        return (bits)(i >> 16);
    }
};

template <> struct packer<FKM_UNIT_S8> {
    typedef int8_t bits;
    static __device__ bits pack(float v, float quant, float *value)
    {
        float q = fminf(fmaxf(rintf(__fmul_rn(v, quant)), -127.0f), 127.0f);
        *value = q / quant;
        return (bits)(int)q;
    }
};

/* Packs one vector of which `get(t)` is coordinate t, by one warp; sums of squares in all lanes. */
template <fkm_unit UNIT, class F>
__device__ void pack_vector(
    void *out, float *square, float *residual, F get, int32_t dims, int32_t stride, float quant)
{
    typedef typename packer<UNIT>::bits bits;
    const int EACH = 4 / sizeof(bits); /* elements a word */
    float sum = 0, lost = 0;
    for (int32_t w = fkm_lane(); w < stride / 4; w += 32) {
        uint32_t word = 0;
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            int32_t t = w * EACH + i;
            if (t >= dims)
                break;
            float v = get(t), value;
            bits b = packer<UNIT>::pack(v, quant, &value);
            word |= ((uint32_t)b & (sizeof(bits) == 1 ? 0xffu : 0xffffu)) << (i * 8 * sizeof(bits));
            sum = __fadd_rn(sum, __fmul_rn(v, v));
            float e = __fsub_rn(v, value);
            lost = __fadd_rn(lost, __fmul_rn(e, e));
        }
        ((uint32_t *)out)[w] = word;
    }
    *square = fkm_warp_sum(sum);
    *residual = fkm_warp_sum(lost);
}

/* Writes what is known of row r, by one lane; clears a row that cannot be screened. */
struct row_figures {
    float *norm, *residual, *tail;

    __device__ void write(int32_t r, float n, float l, float t, void *packed, int32_t stride) const
    {
        bool good = n < FKM_NORM_MAX && l < FKM_NORM_MAX; /* false for NaN */
        if (!good)
            for (int32_t w = fkm_lane(); w < stride / 4; w += 32)
                ((uint32_t *)packed)[w] = 0;
        if (fkm_lane() == 0) {
            norm[r] = good ? n : 0;
            residual[r] = good ? l : -1;
            tail[r] = good ? t : 0;
        }
    }
};

template <fkm_unit UNIT, class T>
__global__ void __launch_bounds__(THREADS)
    pack_rows(void *out, row_figures figures, fkm_device_rows rows, fkm_frame frame, fkm_packing p)
{
    const int32_t warps = (int32_t)gridDim.x * WARPS;
    for (int32_t r = (int32_t)blockIdx.x * WARPS + (int32_t)(threadIdx.x >> 5); r < rows.count;
         r += warps) {
        const T *x = (const T *)rows.x + (int64_t)r * rows.dims;
        char *to = (char *)out + (int64_t)r * p.stride;
        float square, lost;
        pack_vector<UNIT>(
            to, &square, &lost, [&](int32_t t) { return fkm_framed(fkm_element(x, t), frame, t); },
            rows.dims, p.stride, p.row_quant);
        float n = fkm_norm_bound(square, rows.dims);
        figures.write(r, n, fkm_residual_bound(lost, n, rows.dims), 0, to, p.stride);
    }
}

/* ---- heads ---- */

enum { TURN_ROWS = 64, TURN_AXES = 64, TURN_STEP = 16 };

/* y[r][a] = sum over t of v_r[t] axes[a][t]: chains of TURN_STEP products, whose sums are added up,
 * within FKM_DOT_CHAIN(dims). A block 64 rows and 64 axes, a thread 4 x 4 of them. get(r, t): v. */
template <class F> __device__ void turn(float *y, int32_t count, const fkm_packing &p, F get)
{
    FKM_SHARED(float, v, [TURN_STEP][TURN_ROWS + 1]);
    FKM_SHARED(float, w, [TURN_STEP][TURN_AXES + 1]);
    const int32_t row0 = (int32_t)blockIdx.x * TURN_ROWS, axis0 = (int32_t)blockIdx.y * TURN_AXES;
    const int32_t ty = (int32_t)threadIdx.x / 16, tx = (int32_t)threadIdx.x % 16;
    float sum[4][4] = {};
    for (int32_t t0 = 0; t0 < p.dims; t0 += TURN_STEP) {
        for (int32_t i = (int32_t)threadIdx.x; i < TURN_ROWS * TURN_STEP; i += THREADS) {
            int32_t r = i / TURN_STEP, t = i % TURN_STEP;
            v[t][r] = row0 + r < count && t0 + t < p.dims ? get(row0 + r, t0 + t) : 0;
            w[t][r] = axis0 + r < p.screened && t0 + t < p.dims
                          ? p.axes[(int64_t)(axis0 + r) * p.dims + t0 + t]
                          : 0;
        }
        __syncthreads();
        float part[4][4] = {};
#pragma unroll
        for (int t = 0; t < TURN_STEP; t++)
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    part[i][j] += v[t][ty + 16 * i] * w[t][tx + 16 * j];
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                sum[i][j] += part[i][j];
        __syncthreads(); /* before v and w are filled again */
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            int32_t r = row0 + ty + 16 * i, a = axis0 + tx + 16 * j;
            if (r < count && a < p.screened)
                y[(int64_t)r * p.screened + a] = sum[i][j];
        }
}

template <class T>
__global__ void __launch_bounds__(THREADS)
    turn_rows(float *y, fkm_device_rows rows, fkm_frame frame, fkm_packing p)
{
    turn(y, rows.count, p, [&](int32_t r, int32_t t) {
        return fkm_framed(fkm_element((const T *)rows.x, (int64_t)r * rows.dims + t), frame, t);
    });
}

__global__ void __launch_bounds__(THREADS)
    turn_centroids(float *y, fkm_centroid_tables c, fkm_frame frame, fkm_packing p)
{
    turn(y, c.clusters, p, [&](int32_t j, int32_t t) {
        return fkm_framed(c.master[(int64_t)j * c.dims + t], frame, t);
    });
}

/* Packs the heads y of rows; norms are those of the whole rows. */
template <fkm_unit UNIT, class T>
__global__ void __launch_bounds__(THREADS) pack_heads(void *out, row_figures figures,
    fkm_device_rows rows, fkm_frame frame, fkm_packing p, const float *y)
{
    const int32_t warps = (int32_t)gridDim.x * WARPS;
    const double error = fkm_turn_error(p.screened, p.dims);
    for (int32_t r = (int32_t)blockIdx.x * WARPS + (int32_t)(threadIdx.x >> 5); r < rows.count;
         r += warps) {
        const T *x = (const T *)rows.x + (int64_t)r * rows.dims;
        const float *head = y + (int64_t)r * p.screened;
        char *to = (char *)out + (int64_t)r * p.stride;
        float whole = 0, square, lost;
        for (int32_t t = fkm_lane(); t < rows.dims; t += 32) {
            float v = fkm_framed(fkm_element(x, t), frame, t);
            whole = __fadd_rn(whole, __fmul_rn(v, v));
        }
        float n = fkm_norm_bound(fkm_warp_sum(whole), rows.dims);
        pack_vector<UNIT>(
            to, &square, &lost, [&](int32_t a) { return head[a]; }, p.screened, p.stride,
            p.row_quant);
        double least = sqrt((double)square) * (1 - (p.screened + 8) * FKM_U);
        float l = fkm_residual_bound(lost, n, rows.dims) + (float)(error * n * (1 + 0x1p-20));
        float t = (float)(fkm_tail_bound(n, least, error, p.gram) * (1 + 0x1p-20));
        figures.write(r, n, l, t, to, p.stride);
    }
}

/* One word of packed elements of each side: the sum of products, added to `sum`. */
template <fkm_unit UNIT> __device__ float add_products(float sum, uint32_t x, uint32_t c)
{
    if (UNIT == FKM_UNIT_F16) {
        sum += __half2float(__ushort_as_half((uint16_t)x)) *
               __half2float(__ushort_as_half((uint16_t)c));
        sum += __half2float(__ushort_as_half((uint16_t)(x >> 16))) *
               __half2float(__ushort_as_half((uint16_t)(c >> 16)));
    } else {
        sum += __uint_as_float(x << 16) * __uint_as_float(c << 16);
        sum += __uint_as_float(x & 0xffff0000) * __uint_as_float(c & 0xffff0000);
    }
    return sum;
}

/* Any order of addition is within the unit's gamma; int8 is exact. */
template <fkm_unit UNIT>
__device__ float low_score(
    const uint32_t *x, const uint32_t *c, const void *start, int32_t position, int32_t words)
{
    if (UNIT == FKM_UNIT_S8) {
        int sum = 0;
        for (int32_t w = fkm_lane(); w < words; w += 32)
            sum = __dp4a((int)x[w], (int)c[w], sum);
        return (float)(__reduce_add_sync(FKM_ALL_LANES, sum) + ((const int *)start)[position]);
    }
    float sum = 0;
    for (int32_t w = fkm_lane(); w < words; w += 32)
        sum = add_products<UNIT>(sum, x[w], c[w]);
    return fkm_warp_sum(sum) + ((const float *)start)[position];
}

/* How far below the floor rivals are still of interest, in the frame: as far as makes the row last
 * PASSES passes like the last, but no farther than OF_DISTANCE of its distance. From
 * (a + d)^2 = a^2 + 2 (a d + d^2 / 2). Any value is right. */
__device__ float reach_of(float norm, float floor, float drop)
{
    const float PASSES = 8, OF_DISTANCE = 0.25f;
    float a = __fsqrt_rn(fmaxf(0, norm * norm - 2 * floor));
    float d = fminf(PASSES * drop, OF_DISTANCE * a);
    return d * (a + d / 2);
}

template <fkm_unit UNIT>
__global__ void __launch_bounds__(THREADS)
    warm_floors(const __grid_constant__ fkm_warm_args a, int32_t stride, float score_unit)
{
    const int32_t warps = (int32_t)gridDim.x * WARPS, count = a.row ? (int32_t)*a.listed : a.rows;
    for (int32_t i = (int32_t)blockIdx.x * WARPS + (int32_t)(threadIdx.x >> 5); i < count;
         i += warps) {
        const int32_t r = a.row ? a.row[i] : i, label = a.labels[r];
        const char *x = (const char *)a.x.x + (int64_t)r * stride;
        float low = FKM_FLOOR_NONE, reach = 0, residual = a.x.residual[r], norm = a.x.norm[r];
        if (label >= 0 && label < a.clusters && residual >= 0) {
            int32_t p = a.c.position[label];
            float score = low_score<UNIT>((const uint32_t *)x,
                (const uint32_t *)((const char *)a.c.c + (int64_t)p * stride), a.c.start, p,
                stride / 4);
            low = score - (norm * a.c.slope[p] + residual * a.c.rival[p] +
                              a.x.tail[r] * a.c.tail[p] + a.c.offset[p] + a.c.kappa * norm * norm);
            if (a.reach && a.drop)
                reach = reach_of(norm, low * score_unit, a.drop[label]) / score_unit;
        }
        if (a.row)
            for (int32_t w = fkm_lane(); w < stride / 16; w += 32)
                ((uint4 *)a.gathered)[(int64_t)i * (stride / 16) + w] = ((const uint4 *)x)[w];
        if (fkm_lane() == 0) {
            a.floor[r] = low;
            if (a.reach)
                a.reach[r] = reach;
        }
    }
}

/* ---- centroids ---- */

/* Norms, and what positions are sorted by: what margins depend on most, the norm, or with a head
 * the length beyond it. */
__global__ void __launch_bounds__(THREADS)
    measure_norms(fkm_centroid_tables t, fkm_frame frame, fkm_packing p)
{
    const int32_t warps = (int32_t)gridDim.x * WARPS;
    for (int32_t j = (int32_t)blockIdx.x * WARPS + (int32_t)(threadIdx.x >> 5); j < t.clusters;
         j += warps) {
        double sum = 0;
        for (int32_t d = fkm_lane(); d < t.dims; d += 32) {
            double v = fkm_framed(t.master[(int64_t)j * t.dims + d], frame, d);
            sum += v * v;
        }
        double head = 0;
        for (int32_t a = fkm_lane(); p.axes && a < p.screened; a += 32) {
            double v = t.head[(int64_t)j * p.screened + a];
            head += v * v;
        }
        sum = fkm_warp_sum(sum);
        head = fkm_warp_sum(head);
        if (fkm_lane() == 0) {
            t.norm2[j] = sum;
            t.key[j] = __float_as_uint((float)fmax(0.0, sum - head)); /* its bits are in order */
        }
    }
}

__global__ void __launch_bounds__(THREADS) count_up(int32_t *out, int32_t n)
{
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < n;
         i += (int64_t)gridDim.x * THREADS)
        out[i] = (int32_t)i;
}

template <fkm_unit UNIT>
__global__ void __launch_bounds__(THREADS)
    pack_centroids(fkm_centroid_tables t, fkm_frame frame, fkm_packing p)
{
    const int32_t warps = (int32_t)gridDim.x * WARPS, positions = t.tiles * FKM_TILE;
    const float unit = UNIT == FKM_UNIT_S8 ? p.row_quant * p.centroid_quant : 1;
    for (int32_t at = (int32_t)blockIdx.x * WARPS + (int32_t)(threadIdx.x >> 5); at < positions;
         at += warps) {
        const bool real = at < t.clusters;
        const int32_t j = real ? t.index[at] : -1;
        const float *c = t.master + (int64_t)(real ? j : 0) * t.dims;
        float *row = t.rows + (int64_t)at * t.dims;
        float square, lost;
        for (int32_t d = fkm_lane(); d < t.dims; d += 32)
            row[d] = real ? fkm_framed(c[d], frame, d) : 0;
        __syncwarp();
        const float *from = p.axes ? t.head + (int64_t)(real ? j : 0) * p.screened : row;
        pack_vector<UNIT>((char *)t.packed + (int64_t)at * p.stride, &square, &lost,
            [&](int32_t d) { return real ? from[d] : 0; }, p.screened, p.stride, p.centroid_quant);
        if (fkm_lane() != 0)
            continue;
        double norm2 = real ? t.norm2[j] : 0;
        float half = real ? (float)(norm2 / 2) : FKM_HALF_PAD;
        double start = real ? -rint(fmin(half * (double)unit, FKM_S8_MOST)) : FKM_START_PAD_S8;
        double start_error = UNIT == FKM_UNIT_S8 ? fabs(start / unit + half) : 0;
        fkm_margin m = {0, 0, 0, 0, 0, 0};
        if (real) {
            const fkm_packed_figures figures = {norm2, half, lost, start_error, square};
            m = fkm_margin_of(figures, UNIT, t.dims, p.screened, p.gram);
            t.position[j] = at;
        } else {
            t.index[at] = -1;
        }
        t.half[at] = half;
        t.fine_slope[at] = m.fine_slope;
        t.fine_offset[at] = m.fine_offset;
        t.slope[at] = m.slope * unit;
        t.rival[at] = m.rival * unit;
        t.tail[at] = m.tail * unit;
        t.offset[at] = m.offset * unit;
        if (UNIT == FKM_UNIT_S8)
            ((int32_t *)t.start)[at] = (int32_t)start;
        else
            ((float *)t.start)[at] = -half;
    }
}

__device__ float warp_max(float v)
{
    for (int step = 16; step > 0; step >>= 1)
        v = fmaxf(v, __shfl_xor_sync(FKM_ALL_LANES, v, step));
    return v;
}

/* A block of one warp a tile. */
__global__ void tile_margins(fkm_centroid_tables t)
{
    const int32_t tile = (int32_t)blockIdx.x;
    float slope = 0, rival = 0, tail = 0, offset = 0;
    for (int32_t i = fkm_lane(); i < FKM_TILE; i += 32) {
        slope = fmaxf(slope, t.slope[tile * FKM_TILE + i]);
        rival = fmaxf(rival, t.rival[tile * FKM_TILE + i]);
        tail = fmaxf(tail, t.tail[tile * FKM_TILE + i]);
        offset = fmaxf(offset, t.offset[tile * FKM_TILE + i]);
    }
    slope = warp_max(slope);
    rival = warp_max(rival);
    tail = warp_max(tail);
    offset = warp_max(offset);
    if (fkm_lane() == 0) {
        t.tile_slope[tile] = slope;
        t.tile_rival[tile] = rival;
        t.tile_tail[tile] = tail;
        t.tile_offset[tile] = offset;
    }
}

template <fkm_unit UNIT>
cudaError_t pack_rows_as(void *x, const row_figures &figures, const fkm_device_rows *rows,
    const fkm_frame *frame, const fkm_packing *p, cudaStream_t stream)
{
    unsigned blocks = fkm_blocks(rows->count, WARPS, MOST_BLOCKS);
    FKM_BY_DTYPE(rows->dtype, FKM_LAUNCH((pack_rows<UNIT, T>), blocks, THREADS, 0, stream, x,
                                  figures, *rows, *frame, *p));
    return cudaGetLastError();
}

dim3 turn_grid(int64_t count, const fkm_packing *p)
{
    return dim3(fkm_blocks(count, TURN_ROWS, INT32_MAX), fkm_blocks(p->screened, TURN_AXES, 65535));
}

/* Heads go through a buffer of FKM_TURN_ROWS rows. */
template <fkm_unit UNIT>
cudaError_t pack_heads_as(void *x, const row_figures &figures, const fkm_device_rows *rows,
    const fkm_frame *frame, const fkm_packing *p, cudaStream_t stream)
{
    const int64_t row_bytes = (int64_t)rows->dims * (int64_t)fkm_dtype_size(rows->dtype);
    for (int32_t at = 0; at < rows->count; at += FKM_TURN_ROWS) {
        fkm_device_rows part = *rows;
        part.x = (const char *)rows->x + at * row_bytes;
        part.count = rows->count - at < FKM_TURN_ROWS ? rows->count - at : FKM_TURN_ROWS;
        row_figures to = {figures.norm + at, figures.residual + at, figures.tail + at};
        void *packed = (char *)x + (int64_t)at * p->stride;
        dim3 grid = turn_grid(part.count, p);
        unsigned blocks = fkm_blocks(part.count, WARPS, MOST_BLOCKS);
        FKM_BY_DTYPE(rows->dtype, {
            FKM_LAUNCH(turn_rows<T>, grid, THREADS, 0, stream, p->turned, part, *frame, *p);
            FKM_LAUNCH((pack_heads<UNIT, T>), blocks, THREADS, 0, stream, packed, to, part, *frame,
                *p, p->turned);
        });
    }
    return cudaGetLastError();
}

template <fkm_unit UNIT>
cudaError_t pack_as(void *x, const row_figures &figures, const fkm_device_rows *rows,
    const fkm_frame *frame, const fkm_packing *p, cudaStream_t stream)
{
    return p->axes ? pack_heads_as<UNIT>(x, figures, rows, frame, p, stream)
                   : pack_rows_as<UNIT>(x, figures, rows, frame, p, stream);
}

} // namespace

int32_t fkm_pack_stride(fkm_unit unit, int32_t dims)
{
    int32_t bytes = dims * (unit == FKM_UNIT_S8 ? 1 : 2);
    return (bytes + 31) / 32 * 32;
}

cudaError_t fkm_pack_rows(void *x, float *norm, float *residual, float *tail,
    const fkm_device_rows *rows, const fkm_frame *frame, const fkm_packing *p, cudaStream_t stream)
{
    const row_figures figures = {norm, residual, tail};
    switch (p->unit) {
    case FKM_UNIT_BF16:
        return pack_as<FKM_UNIT_BF16>(x, figures, rows, frame, p, stream);
    case FKM_UNIT_S8:
        return pack_as<FKM_UNIT_S8>(x, figures, rows, frame, p, stream);
    default:
        return pack_as<FKM_UNIT_F16>(x, figures, rows, frame, p, stream);
    }
}

cudaError_t fkm_warm_floors(const fkm_warm_args *a, const fkm_packing *p, cudaStream_t stream)
{
    unsigned blocks = fkm_blocks(a->rows, WARPS, MOST_BLOCKS);
    auto kernel = p->unit == FKM_UNIT_BF16 ? warm_floors<FKM_UNIT_BF16>
                  : p->unit == FKM_UNIT_S8 ? warm_floors<FKM_UNIT_S8>
                                           : warm_floors<FKM_UNIT_F16>;
    FKM_LAUNCH(
        kernel, blocks, THREADS, 0, stream, *a, p->stride, 1 / (p->row_quant * p->centroid_quant));
    return cudaGetLastError();
}

cudaError_t fkm_prepare_centroids(
    const fkm_centroid_tables *t, const fkm_frame *frame, const fkm_packing *p, cudaStream_t stream)
{
    if (p->axes)
        FKM_LAUNCH(
            turn_centroids, turn_grid(t->clusters, p), THREADS, 0, stream, t->head, *t, *frame, *p);
    FKM_LAUNCH(measure_norms, fkm_blocks(t->clusters, WARPS, MOST_BLOCKS), THREADS, 0, stream, *t,
        *frame, *p);
    FKM_LAUNCH(count_up, fkm_blocks(t->clusters, THREADS, MOST_BLOCKS), THREADS, 0, stream,
        t->identity, t->clusters);
    cudaError_t st = cudaGetLastError();
    if (st == cudaSuccess)
        st = fkm_sort(t->sort_scratch, t->sort_scratch_bytes, t->sorted_key, t->key, t->index,
            t->identity, t->clusters, 32, stream);
    if (st != cudaSuccess)
        return st;
    auto kernel = p->unit == FKM_UNIT_BF16 ? pack_centroids<FKM_UNIT_BF16>
                  : p->unit == FKM_UNIT_S8 ? pack_centroids<FKM_UNIT_S8>
                                           : pack_centroids<FKM_UNIT_F16>;
    int64_t positions = (int64_t)t->tiles * FKM_TILE;
    FKM_LAUNCH(
        kernel, fkm_blocks(positions, WARPS, MOST_BLOCKS), THREADS, 0, stream, *t, *frame, *p);
    FKM_LAUNCH(tile_margins, (unsigned)t->tiles, 32, 0, stream, *t);
    return cudaGetLastError();
}

fkm_packed_centroids fkm_packed_view(const fkm_centroid_tables *t, const fkm_packing *p)
{
    fkm_packed_centroids c;
    c.c = t->packed;
    c.start = t->start;
    c.slope = t->slope;
    c.rival = t->rival;
    c.tail = t->tail;
    c.offset = t->offset;
    c.tile_slope = t->tile_slope;
    c.tile_rival = t->tile_rival;
    c.tile_tail = t->tile_tail;
    c.tile_offset = t->tile_offset;
    c.index = t->index;
    c.position = t->position;
    c.kappa = (float)(fkm_kappa(t->dims) * FKM_HIGHER_ORDER *
                      (p->unit == FKM_UNIT_S8 ? (double)p->row_quant * p->centroid_quant : 1));
    return c;
}
