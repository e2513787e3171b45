/* Means, movements and the terms of inertia from integer sums; squares of rows. See update.cuh.
 *
 * The terms of inertia are integers times powers of two (src/base/inertia.h). Each thread adds its
 * own into 128-bit numbers, one a group of 16 exponents, that lie in shared memory in a column of
 * their own: no atomics, no order. At the end a block adds its columns up and the sums to memory.
 *
 * Room: a square n m^2 takes 48 bits of m^2 and those of n, shifted by up to 30; the counts of all
 * clusters add up to N, so a thread's sum stays below 2^(78 + log2 N + log2 (dims / 64)), inside
 * 128 bits for N < 2^40 and dims <= 2^20. A product m S takes 24 + 63 bits, shifted by up to 15:
 * 102, and a thread sees at most 2^24 of them. */
#include "update.cuh"

namespace
{

enum { THREADS = 64, MOST_BLOCKS = 1 << 12, LANES = 8 };

typedef __int128 i128;
typedef unsigned __int128 u128;

/* A column of 128-bit sums for each thread. */
struct columns {
    u128 sum[FKM_BINS][THREADS];

    __device__ void clear()
    {
        for (int g = 0; g < FKM_BINS; g++)
            sum[g][threadIdx.x] = 0;
    }

    __device__ void add(int group, u128 v)
    {
        sum[group][threadIdx.x] += v;
    }

    /* Thread g * 4 + l adds word l of bin g; after a barrier. THREADS == FKM_BINS * FKM_BIN_WORDS.
     */
    __device__ void flush(fkm_bins bins)
    {
        int g = (int)threadIdx.x / FKM_BIN_WORDS, l = (int)threadIdx.x % FKM_BIN_WORDS;
        long long total = 0;
        for (int i = 0; i < THREADS; i++) {
            uint32_t word = (uint32_t)(sum[g][i] >> (32 * l));
            total += l == FKM_BIN_WORDS - 1 ? (long long)(int32_t)word : (long long)word;
        }
        if (total)
            atomicAdd((fkm_u64 *)&bins[g][l], (fkm_u64)total);
    }
};

/* v = m 2^(field - 150): m with its sign. */
__device__ int32_t float_parts(float v, int *field)
{
    uint32_t bits = __float_as_uint(v);
    int32_t m = (int32_t)(bits & 0x7fffff), f = (int32_t)(bits >> 23 & 255);
    if (f)
        m |= 0x800000;
    *field = f ? f : 1;
    return bits >> 31 ? -m : m;
}

/* ---- squares of rows ---- */

template <class T>
__global__ void __launch_bounds__(THREADS)
    add_squares(fkm_squares *out, fkm_sums s, fkm_device_rows rows, const int32_t *labels)
{
    FKM_SHARED_DYNAMIC(columns, c);
    c->clear();
    for (int32_t r = (int32_t)blockIdx.x; r < rows.count; r += (int32_t)gridDim.x) {
        if (labels[r] < 0)
            continue;
        const T *x = (const T *)rows.x + (int64_t)r * rows.dims;
        for (int32_t t = (int32_t)threadIdx.x; t < rows.dims; t += THREADS) {
            float q = rintf(__fmul_rn(__fmul_rn(fkm_element(x, t), s.scale_a), s.scale_b));
            int field;
            int64_t m =
                float_parts(q, &field); /* q = m 2^(field - 150), an integer: field >= 127 */
            if (m == 0)
                continue;
            int at = field - 127; /* >= 0; m 2^(at - 23) */
            c->add(at / 16, (u128)(uint64_t)(m * m) << (2 * (at % 16)));
        }
    }
    __syncthreads();
    c->flush(out->bin);
}

/* ---- means and inertia ---- */

/* The double nearest to a 128-bit integer, ties to even. */
__device__ double round_wide(i128 v)
{
    bool negative = v < 0;
    u128 m = negative ? -(u128)v : (u128)v;
    uint64_t high = (uint64_t)(m >> 64), low = (uint64_t)m;
    int shift = high ? 64 - __clzll((long long)high) : 0; /* bits beyond 64 */
    uint64_t lead = high ? (uint64_t)(m >> shift) : low;
    if (shift && (m & (((u128)1 << shift) - 1)) != 0)
        lead |= 1; /* sticky: 64 > 53 + 1 bits round as the whole does */
    double r = ldexp(__ull2double_rn(lead), shift);
    return negative ? -r : r;
}

template <bool WIDE> __device__ i128 sum_at(const fkm_sums &s, int64_t cell)
{
    if (!WIDE)
        return (int64_t)s.sum[cell];
    const fkm_u64 *w = s.sum + cell * FKM_WIDE_WORDS;
    u128 v = 0;
    for (int l = FKM_WIDE_WORDS - 1; l >= 0; l--)
        v = (v << 32) + w[l];
    return (i128)v;
}

template <bool WIDE> struct terms {
    columns square, product, product_high[WIDE ? 1 : 0];
};
template <> struct terms<false> {
    columns square, product;
};

template <bool WIDE> __device__ void add_terms(terms<WIDE> *b, float c, i128 sum, fkm_u64 rows)
{
    int field;
    int64_t m = float_parts(c, &field);
    if (m == 0)
        return;
    int group = field / 16, shift = field % 16;
    b->square.add(group, ((u128)(uint64_t)(m * m) * rows) << (2 * shift));
    if constexpr (WIDE) {
        i128 low = (i128)m * (i128)(u128)(uint64_t)sum, high = (i128)m * (i128)(int64_t)(sum >> 64);
        b->product.add(group, (u128)low << shift);
        b->product_high[0].add(group, (u128)high << shift);
    } else {
        b->product.add(group, (u128)((i128)m * (int64_t)sum) << shift);
    }
}

/* A block goes through clusters in strides. A movement is a canonical distance: thread l < LANES
 * adds up lane l, coordinates l, l + LANES and so on in this order, from what the block has
 * computed. */
template <bool WIDE>
__global__ void __launch_bounds__(THREADS) finalise(
    fkm_moments *out, float *mean, double *shift, fkm_sums s, const float *c, double unscale)
{
    FKM_SHARED_DYNAMIC(terms<WIDE>, b);
    FKM_SHARED(double, moved, [THREADS]);
    FKM_SHARED(double, lanes, [LANES]);
    const int32_t me = (int32_t)threadIdx.x;
    float largest = 0;
    double most = 0;
    fkm_u64 empty = 0;
    b->square.clear();
    b->product.clear();
    if constexpr (WIDE)
        b->product_high[0].clear();
    for (int32_t j = (int32_t)blockIdx.x; j < s.clusters; j += (int32_t)gridDim.x) {
        const fkm_u64 rows = s.count[j];
        const double n = __ull2double_rn(rows);
        double lane = 0;
        for (int32_t first = 0; first < s.dims; first += THREADS) {
            int32_t t = first + me;
            int64_t cell = (int64_t)j * s.dims + t;
            double step = 0;
            if (t < s.dims) {
                float was = c[cell], now = was;
                if (rows) {
                    i128 sum = sum_at<WIDE>(s, cell);
                    double total = WIDE ? round_wide(sum) : __ll2double_rn((int64_t)sum);
                    now = __double2float_rn(__dmul_rn(__ddiv_rn(total, n), unscale));
                    add_terms<WIDE>(b, was, sum, rows);
                }
                mean[cell] = now;
                largest = fmaxf(largest, fabsf(now));
                step = __dsub_rn((double)now, (double)was);
            }
            moved[me] = __dmul_rn(step, step);
            __syncthreads();
            if (me < LANES)
                for (int32_t i = me; i < min((int32_t)THREADS, s.dims - first); i += LANES)
                    lane = __dadd_rn(lane, moved[i]);
            __syncthreads();
        }
        if (me < LANES)
            lanes[me] = lane;
        __syncthreads(); /* before thread 0 reads; the next round's come after its first barrier */
        if (me == 0) {
            double low = __dadd_rn(__dadd_rn(lanes[0], lanes[4]), __dadd_rn(lanes[2], lanes[6]));
            double high = __dadd_rn(__dadd_rn(lanes[1], lanes[5]), __dadd_rn(lanes[3], lanes[7]));
            shift[j] = rows ? __dsqrt_rn(__dadd_rn(low, high)) : 0;
            most = fmax(most, shift[j]);
            empty += rows == 0;
        }
    }
    __syncthreads();
    b->square.flush(out->square);
    b->product.flush(out->product);
    if constexpr (WIDE)
        b->product_high[0].flush(out->product_high);
    atomicMax(&out->max_value, (fkm_u64)__float_as_uint(largest));
    if (me == 0) {
        atomicMax(&out->max_shift, (fkm_u64)__double_as_longlong(most));
        if (empty)
            atomicAdd(&out->empty, empty);
    }
}

template <bool WIDE>
cudaError_t finalise_as(fkm_moments *m, float *mean, double *shift, const fkm_sums *s,
    const float *c, double unscale, unsigned blocks, cudaStream_t stream)
{
    auto kernel = finalise<WIDE>;
    const int bytes = (int)sizeof(terms<WIDE>);
    cudaError_t st =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (st != cudaSuccess)
        return st;
    FKM_LAUNCH(kernel, blocks, THREADS, bytes, stream, m, mean, shift, *s, c, unscale);
    return cudaGetLastError();
}

} // namespace

cudaError_t fkm_squares_add(fkm_squares *squares, const fkm_sums *s, const fkm_device_rows *rows,
    const int32_t *labels, cudaStream_t stream)
{
    unsigned blocks = fkm_blocks(rows->count, 16, MOST_BLOCKS);
    FKM_BY_DTYPE(rows->dtype, FKM_LAUNCH(add_squares<T>, blocks, THREADS, sizeof(columns), stream,
                                  squares, *s, *rows, labels));
    return cudaGetLastError();
}

cudaError_t fkm_finalise(fkm_moments *m, float *mean, double *shift, const fkm_sums *s,
    const float *c, double unscale, unsigned blocks, cudaStream_t stream)
{
    return s->words == 1 ? finalise_as<false>(m, mean, shift, s, c, unscale, blocks, stream)
                         : finalise_as<true>(m, mean, shift, s, c, unscale, blocks, stream);
}
