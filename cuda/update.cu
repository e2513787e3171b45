/* Cluster sums: see update.cuh. Sort-inverse: rows are brought into label order by a radix sort of
 * (label, row), then warps go along the sorted rows and add up each segment in registers; a sum in
 * memory is touched once a segment and slice. */
#include "update.cuh"

#include "pack.cuh"

namespace
{

enum {
    THREADS = 256,
    WARPS = THREADS / 32,
    MOST_BLOCKS = 1 << 16,
    EACH = 4,         /* coordinates a lane holds */
    SPAN = 32 * EACH, /* coordinates a warp holds */
    SLICE = 128,      /* sorted rows a warp goes through */
    AHEAD = 4,        /* rows whose loads are on their way at once */
};

/* rint(x 2^e): the products are exact but where they are far below 1 (see scale_a). */
__device__ __forceinline__ float scaled(float x, const fkm_sums &s)
{
    return __fmul_rn(__fmul_rn(x, s.scale_a), s.scale_b);
}

/* q of the narrow kind: one word. */
struct narrow {
    enum { WORDS = 1 };
    static __device__ __forceinline__ void add(fkm_u64 *words, float v)
    {
        words[0] += (fkm_u64)__float2ll_rn(v);
    }
};

/* q of the wide kind, |q| < 2^126: a float32 that is an integer after rounding. */
struct wide {
    enum { WORDS = FKM_WIDE_WORDS };
    static __device__ __forceinline__ void add(fkm_u64 *words, float v)
    {
        uint32_t bits = __float_as_uint(rintf(v));
        if ((bits & 0x7fffffff) == 0)
            return; /* and below, shift > -24 */
        int shift = (int)(bits >> 23 & 255) - 150;
        fkm_u64 m = (bits & 0x7fffff) | 0x800000;
        /* below 2^23 the mantissa's low bits are zero: an integer */
        fkm_u64 low = shift < 0 ? m >> -shift : shift < 64 ? m << shift : 0, high = 0;
        if (shift >= 64)
            high = m << (shift - 64);
        else if (shift > 40)
            high = m >> (64 - shift);
        if (bits >> 31) { /* two's complement */
            low = ~low + 1;
            high = ~high + (low == 0);
        }
        words[0] += low & 0xffffffff;
        words[1] += low >> 32;
        words[2] += high & 0xffffffff;
        words[3] += high >> 32;
    }
};

__global__ void __launch_bounds__(THREADS)
    list_keys(uint32_t *key, int32_t *row, const int32_t *labels, int32_t count, int32_t clusters)
{
    int64_t step = (int64_t)gridDim.x * THREADS;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count; i += step) {
        key[i] = (uint32_t)(labels[i] < 0 ? clusters : labels[i]);
        row[i] = (int32_t)i;
    }
}

template <class KIND> struct segment {
    fkm_u64 words[EACH][KIND::WORDS];

    __device__ void clear()
    {
#pragma unroll
        for (int k = 0; k < EACH; k++)
#pragma unroll
            for (int l = 0; l < KIND::WORDS; l++)
                words[k][l] = 0;
    }

    /* Adds what was gathered of `cluster`, coordinates first + lane + 32 k. */
    __device__ void flush(const fkm_sums &s, int32_t cluster, int32_t first)
    {
#pragma unroll
        for (int k = 0; k < EACH; k++) {
            int32_t t = first + fkm_lane() + 32 * k;
            if (t >= s.dims)
                break;
            fkm_u64 *to = s.sum + ((int64_t)cluster * s.dims + t) * KIND::WORDS;
#pragma unroll
            for (int l = 0; l < KIND::WORDS; l++)
                if (words[k][l])
                    atomicAdd(to + l, words[k][l]);
        }
        clear();
    }
};

/* blockIdx.y: which SPAN of coordinates; a warp a SLICE of sorted rows. */
template <class KIND, class T>
__global__ void __launch_bounds__(THREADS)
    sum_segments(fkm_sums s, fkm_device_rows rows, const uint32_t *key, const int32_t *row)
{
    const int32_t lane = fkm_lane(), first = (int32_t)blockIdx.y * SPAN;
    const int64_t begin = ((int64_t)blockIdx.x * WARPS + (threadIdx.x >> 5)) * SLICE;
    const int64_t end = min(begin + SLICE, (int64_t)rows.count);
    segment<KIND> sum;
    sum.clear();
    int32_t current = -1, run = 0;
    for (int64_t at = begin; at < end; at += 32) {
        bool real = at + lane < end;
        uint32_t my_key = real ? key[at + lane] : (uint32_t)s.clusters;
        int32_t my_row = real ? row[at + lane] : 0;
        for (int i = 0; i < 32; i += AHEAD) {
            float v[AHEAD][EACH];
            int32_t cluster[AHEAD];
#pragma unroll
            for (int n = 0; n < AHEAD; n++) {
                cluster[n] = (int32_t)__shfl_sync(FKM_ALL_LANES, my_key, i + n);
                int32_t r = __shfl_sync(FKM_ALL_LANES, my_row, i + n);
                const T *x = (const T *)rows.x + (int64_t)r * rows.dims;
#pragma unroll
                for (int k = 0; k < EACH; k++) {
                    int32_t t = first + lane + 32 * k;
                    v[n][k] = t < s.dims && cluster[n] < s.clusters ? fkm_element(x, t) : 0;
                }
            }
#pragma unroll
            for (int n = 0; n < AHEAD; n++) {
                if (cluster[n] != current) {
                    if (current >= 0) {
                        sum.flush(s, current, first);
                        if (lane == 0 && blockIdx.y == 0)
                            atomicAdd(&s.count[current], (fkm_u64)run);
                    }
                    current = cluster[n] < s.clusters ? cluster[n] : -1;
                    run = 0;
                }
                run++;
#pragma unroll
                for (int k = 0; k < EACH; k++)
                    KIND::add(sum.words[k], scaled(v[n][k], s));
            }
        }
    }
    if (current >= 0) {
        sum.flush(s, current, first);
        if (lane == 0 && blockIdx.y == 0)
            atomicAdd(&s.count[current], (fkm_u64)run);
    }
}

/* One row's part of one cluster, straight into memory. sign -1: it leaves. */
template <class KIND, class T>
__device__ void add_row(const fkm_sums &s, const T *x, int32_t cluster, float sign)
{
    for (int32_t t = fkm_lane(); t < s.dims; t += 32) {
        fkm_u64 words[KIND::WORDS] = {0};
        KIND::add(words, scaled(sign * fkm_element(x, t), s)); /* rint is odd */
        fkm_u64 *to = s.sum + ((int64_t)cluster * s.dims + t) * KIND::WORDS;
#pragma unroll
        for (int l = 0; l < KIND::WORDS; l++)
            atomicAdd(to + l, words[l]);
    }
    if (fkm_lane() == 0)
        atomicAdd(&s.count[cluster], sign < 0 ? ~(fkm_u64)0 : (fkm_u64)1);
}

template <class KIND, class T>
__global__ void __launch_bounds__(THREADS)
    change_sums(fkm_sums s, fkm_device_rows rows, const int32_t *old, const int32_t *labels)
{
    const int64_t step = (int64_t)gridDim.x * THREADS;
    for (int64_t base = ((int64_t)blockIdx.x * WARPS + (threadIdx.x >> 5)) * 32; base < rows.count;
         base += step) {
        int64_t r = base + fkm_lane();
        int32_t from = r < rows.count ? old[r] : -1, to = r < rows.count ? labels[r] : -1;
        unsigned moved = __ballot_sync(FKM_ALL_LANES, from != to);
        for (; moved; moved &= moved - 1) {
            int i = __ffs((int)moved) - 1;
            int32_t leaves = __shfl_sync(FKM_ALL_LANES, from, i);
            int32_t joins = __shfl_sync(FKM_ALL_LANES, to, i);
            const T *x = (const T *)rows.x + (base + i) * rows.dims;
            if (leaves >= 0)
                add_row<KIND>(s, x, leaves, -1);
            if (joins >= 0)
                add_row<KIND>(s, x, joins, 1);
        }
    }
}

__global__ void __launch_bounds__(THREADS) merge_words(fkm_u64 *to, const fkm_u64 *from, int64_t n)
{
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < n;
         i += (int64_t)gridDim.x * THREADS)
        to[i] += from[i];
}

int bits_for(uint32_t largest)
{
    int bits = 1;
    while (largest >> bits)
        bits++;
    return bits;
}

template <class KIND>
cudaError_t add_sorted(
    const fkm_sums *s, const fkm_device_rows *rows, const fkm_sort_room *room, cudaStream_t stream)
{
    dim3 grid(fkm_blocks(rows->count, SLICE * WARPS, INT32_MAX),
        (unsigned)((rows->dims + SPAN - 1) / SPAN));
    FKM_BY_DTYPE(rows->dtype, FKM_LAUNCH((sum_segments<KIND, T>), grid, THREADS, 0, stream, *s,
                                  *rows, room->sorted_key, room->sorted_row));
    return cudaGetLastError();
}

template <class KIND>
cudaError_t change(const fkm_sums *s, const fkm_device_rows *rows, const int32_t *old,
    const int32_t *labels, cudaStream_t stream)
{
    FKM_BY_DTYPE(rows->dtype,
        FKM_LAUNCH((change_sums<KIND, T>), fkm_blocks(rows->count, THREADS, MOST_BLOCKS), THREADS,
            0, stream, *s, *rows, old, labels));
    return cudaGetLastError();
}

} // namespace

cudaError_t fkm_sums_add(const fkm_sums *s, const fkm_device_rows *rows, const int32_t *labels,
    const fkm_sort_room *room, cudaStream_t stream)
{
    FKM_LAUNCH(list_keys, fkm_blocks(rows->count, THREADS, MOST_BLOCKS), THREADS, 0, stream,
        room->key, room->row, labels, rows->count, s->clusters);
    cudaError_t st = cudaGetLastError();
    if (st == cudaSuccess)
        st = fkm_sort(room->scratch, room->scratch_bytes, room->sorted_key, room->key,
            room->sorted_row, room->row, rows->count, bits_for((uint32_t)s->clusters), stream);
    if (st != cudaSuccess)
        return st;
    return s->words == 1 ? add_sorted<narrow>(s, rows, room, stream)
                         : add_sorted<wide>(s, rows, room, stream);
}

cudaError_t fkm_sums_change(const fkm_sums *s, const fkm_device_rows *rows, const int32_t *old,
    const int32_t *labels, cudaStream_t stream)
{
    return s->words == 1 ? change<narrow>(s, rows, old, labels, stream)
                         : change<wide>(s, rows, old, labels, stream);
}

cudaError_t fkm_sums_merge(const fkm_sums *to, const fkm_sums *from, cudaStream_t stream)
{
    int64_t n = (int64_t)to->clusters * to->dims * to->words;
    FKM_LAUNCH(merge_words, fkm_blocks(n, THREADS, MOST_BLOCKS), THREADS, 0, stream, to->sum,
        (const fkm_u64 *)from->sum, n);
    FKM_LAUNCH(merge_words, fkm_blocks(to->clusters, THREADS, MOST_BLOCKS), THREADS, 0, stream,
        to->count, (const fkm_u64 *)from->count, (int64_t)to->clusters);
    return cudaGetLastError();
}
