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
__device__ void pack_vector(void *out, float *square, float *residual, F get, int32_t dims,
    int32_t stride, float quant)
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

template <fkm_unit UNIT, class T>
__global__ void __launch_bounds__(THREADS) pack_rows(void *out, float *norm, float *residual,
    fkm_device_rows rows, fkm_frame frame, fkm_packing p)
{
    const int32_t warps = (int32_t)gridDim.x * WARPS;
    for (int32_t r = (int32_t)blockIdx.x * WARPS + (int32_t)(threadIdx.x >> 5); r < rows.count;
         r += warps) {
        const T *x = (const T *)rows.x + (int64_t)r * rows.dims;
        char *to = (char *)out + (int64_t)r * p.stride;
        float square, lost;
        pack_vector<UNIT>(
            to, &square, &lost,
            [&](int32_t t) { return fkm_framed(fkm_element(x, t), frame, t); }, rows.dims,
            p.stride, p.row_quant);
        float n = fkm_norm_bound(square, rows.dims);
        float l = fkm_residual_bound(lost, n, rows.dims);
        bool good = n < FKM_NORM_MAX && l < FKM_NORM_MAX; /* false for NaN */
        if (!good)
            for (int32_t w = fkm_lane(); w < p.stride / 4; w += 32)
                ((uint32_t *)to)[w] = 0;
        if (fkm_lane() == 0) {
            norm[r] = good ? n : 0;
            residual[r] = good ? l : -1;
        }
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

template <fkm_unit UNIT>
__global__ void __launch_bounds__(THREADS) warm_floors(float *floor, fkm_packed_rows x,
    int32_t rows, const int32_t *labels, fkm_packed_centroids c, int32_t clusters, int32_t stride)
{
    const int32_t warps = (int32_t)gridDim.x * WARPS;
    for (int32_t r = (int32_t)blockIdx.x * WARPS + (int32_t)(threadIdx.x >> 5); r < rows;
         r += warps) {
        int32_t label = labels[r];
        float low = FKM_FLOOR_NONE, residual = x.residual[r], norm = x.norm[r];
        if (label >= 0 && label < clusters && residual >= 0) {
            int32_t p = c.position[label];
            float score =
                low_score<UNIT>((const uint32_t *)((const char *)x.x + (int64_t)r * stride),
                    (const uint32_t *)((const char *)c.c + (int64_t)p * stride), c.start, p,
                    stride / 4);
            low = score - (norm * c.slope[p] + residual * c.rival[p] + c.offset[p] +
                              c.kappa * norm * norm);
        }
        if (fkm_lane() == 0)
            floor[r] = low;
    }
}

/* ---- centroids ---- */

__global__ void __launch_bounds__(THREADS) measure_norms(fkm_centroid_tables t, fkm_frame frame)
{
    const int32_t warps = (int32_t)gridDim.x * WARPS;
    for (int32_t j = (int32_t)blockIdx.x * WARPS + (int32_t)(threadIdx.x >> 5); j < t.clusters;
         j += warps) {
        double sum = 0;
        for (int32_t d = fkm_lane(); d < t.dims; d += 32) {
            double v = fkm_framed(t.master[(int64_t)j * t.dims + d], frame, d);
            sum += v * v;
        }
        sum = fkm_warp_sum(sum);
        if (fkm_lane() == 0) {
            t.norm2[j] = sum;
            t.key[j] = __float_as_uint((float)sum); /* >= 0: its bits are in order */
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
        pack_vector<UNIT>(
            (char *)t.packed + (int64_t)at * p.stride, &square, &lost,
            [&](int32_t d) {
                float v = real ? fkm_framed(c[d], frame, d) : 0;
                row[d] = v;
                return v;
            },
            t.dims, p.stride, p.centroid_quant);
        if (fkm_lane() != 0)
            continue;
        double norm2 = real ? t.norm2[j] : 0;
        float half = real ? (float)(norm2 / 2) : FKM_HALF_PAD;
        fkm_margin m = {0, 0, 0, 0, 0};
        double start = real ? -rint(fmin(half * (double)unit, FKM_S8_MOST)) : FKM_START_PAD_S8;
        double start_error = UNIT == FKM_UNIT_S8 ? fabs(start / unit + half) : 0;
        if (real) {
            m = fkm_margin_of(norm2, half, lost, UNIT, t.dims, start_error);
            t.position[j] = at;
        } else {
            t.index[at] = -1;
        }
        t.half[at] = half;
        t.fine_slope[at] = m.fine_slope;
        t.fine_offset[at] = m.fine_offset;
        t.slope[at] = m.slope * unit;
        t.rival[at] = m.rival * unit;
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
    float slope = 0, rival = 0, offset = 0;
    for (int32_t i = fkm_lane(); i < FKM_TILE; i += 32) {
        slope = fmaxf(slope, t.slope[tile * FKM_TILE + i]);
        rival = fmaxf(rival, t.rival[tile * FKM_TILE + i]);
        offset = fmaxf(offset, t.offset[tile * FKM_TILE + i]);
    }
    slope = warp_max(slope);
    rival = warp_max(rival);
    offset = warp_max(offset);
    if (fkm_lane() == 0) {
        t.tile_slope[tile] = slope;
        t.tile_rival[tile] = rival;
        t.tile_offset[tile] = offset;
    }
}

template <fkm_unit UNIT>
cudaError_t pack_rows_as(void *x, float *norm, float *residual, const fkm_device_rows *rows,
    const fkm_frame *frame, const fkm_packing *p, cudaStream_t stream)
{
    unsigned blocks = fkm_blocks(rows->count, WARPS, MOST_BLOCKS);
    FKM_BY_DTYPE(rows->dtype, FKM_LAUNCH((pack_rows<UNIT, T>), blocks, THREADS, 0, stream, x, norm,
                                  residual, *rows, *frame, *p));
    return cudaGetLastError();
}

} // namespace

int32_t fkm_pack_stride(fkm_unit unit, int32_t dims)
{
    int32_t bytes = dims * (unit == FKM_UNIT_S8 ? 1 : 2);
    return (bytes + 31) / 32 * 32;
}

cudaError_t fkm_pack_rows(void *x, float *norm, float *residual, const fkm_device_rows *rows,
    const fkm_frame *frame, const fkm_packing *p, cudaStream_t stream)
{
    switch (p->unit) {
    case FKM_UNIT_BF16:
        return pack_rows_as<FKM_UNIT_BF16>(x, norm, residual, rows, frame, p, stream);
    case FKM_UNIT_S8:
        return pack_rows_as<FKM_UNIT_S8>(x, norm, residual, rows, frame, p, stream);
    default:
        return pack_rows_as<FKM_UNIT_F16>(x, norm, residual, rows, frame, p, stream);
    }
}

cudaError_t fkm_warm_floors(float *floor, const fkm_packed_rows *x, int32_t rows,
    const int32_t *labels, const fkm_packed_centroids *c, int32_t clusters, const fkm_packing *p,
    cudaStream_t stream)
{
    unsigned blocks = fkm_blocks(rows, WARPS, MOST_BLOCKS);
    auto kernel = p->unit == FKM_UNIT_BF16 ? warm_floors<FKM_UNIT_BF16>
                  : p->unit == FKM_UNIT_S8 ? warm_floors<FKM_UNIT_S8>
                                           : warm_floors<FKM_UNIT_F16>;
    FKM_LAUNCH(kernel, blocks, THREADS, 0, stream, floor, *x, rows, labels, *c, clusters, p->stride);
    return cudaGetLastError();
}

cudaError_t fkm_prepare_centroids(const fkm_centroid_tables *t, const fkm_frame *frame,
    const fkm_packing *p, cudaStream_t stream)
{
    FKM_LAUNCH(measure_norms, fkm_blocks(t->clusters, WARPS, MOST_BLOCKS), THREADS, 0, stream, *t,
        *frame);
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
    FKM_LAUNCH(kernel, fkm_blocks(positions, WARPS, MOST_BLOCKS), THREADS, 0, stream, *t, *frame, *p);
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
    c.offset = t->offset;
    c.tile_slope = t->tile_slope;
    c.tile_rival = t->tile_rival;
    c.tile_offset = t->tile_offset;
    c.index = t->index;
    c.position = t->position;
    c.kappa = (float)(fkm_kappa(t->dims) * FKM_HIGHER_ORDER *
                      (p->unit == FKM_UNIT_S8 ? (double)p->row_quant * p->centroid_quant : 1));
    return c;
}
