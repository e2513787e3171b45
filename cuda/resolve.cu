/* Rows in doubt, rescans, distances, nearest lists: see resolve.cuh; the proof is in margin.cuh. */
#include "resolve.cuh"

#include "margin.cuh"

namespace
{

enum { THREADS = 256, WARPS = THREADS / 32, GROUPS = THREADS / 8, MOST_BLOCKS = 1 << 16 };

/* The nearest centroid so far: ties to the lowest label. Starts as {0, -1}. */
struct nearest {
    double distance;
    int32_t label;
};

__device__ bool before(double d, int32_t j, const nearest &b)
{
    return b.label < 0 || d < b.distance || (d == b.distance && j < b.label);
}

__device__ void take_nearer(nearest *best, double d, int32_t j)
{
    if (j >= 0 && before(d, j, *best)) {
        best->distance = d;
        best->label = j;
    }
}

__device__ nearest warp_nearest(nearest best)
{
    for (int step = 16; step > 0; step >>= 1) {
        double d = __shfl_xor_sync(FKM_ALL_LANES, best.distance, step);
        int32_t j = __shfl_xor_sync(FKM_ALL_LANES, best.label, step);
        take_nearer(&best, d, j);
    }
    return best;
}

/* S~ of a row against the centroid at a position, by a warp, in all lanes: float32. */
template <class T>
__device__ float fine_score(
    const fkm_centroid_tables &c, const fkm_frame &frame, const T *x, int32_t position)
{
    const float *row = c.rows + (int64_t)position * c.dims;
    float sum = 0;
    for (int32_t t = fkm_lane(); t < c.dims; t += 32)
        sum += fkm_framed(fkm_element(x, t), frame, t) * row[t];
    return fkm_warp_sum(sum) - c.half[position];
}

__device__ float fine_margin(
    const fkm_centroid_tables &c, float norm, float kappa, int32_t position)
{
    return norm * c.fine_slope[position] + c.fine_offset[position] + kappa * norm * norm;
}

template <class T> __device__ bool finite_row(const T *x, int32_t dims)
{
    bool finite = true;
    for (int32_t t = fkm_lane(); t < dims; t += 32)
        finite = finite && isfinite(fkm_element(x, t));
    return __all_sync(FKM_ALL_LANES, finite);
}

__device__ void add(unsigned long long *counter, unsigned long long n)
{
    if (n)
        atomicAdd(counter, n);
}

/* Writes the label of row r, by one lane. */
__device__ void settle(const fkm_resolve_args &a, int32_t r, int32_t label)
{
    a.labels[r] = label;
    add(label >= 0 ? &a.counts->rows : &a.counts->skipped, 1);
    add(&a.counts->moved, label != a.old[r]);
}

/* ---- rows in doubt: a warp each; lane i holds candidate i ---- */

/* Rivals of the label among the candidates, each lane's with its bound, for bounds.cuh. */
__device__ void hand_on_bounds(
    const fkm_resolve_args &a, int32_t r, float floor, float upper, bool rival)
{
    float second = rival ? upper : FKM_FLOOR_NONE;
    for (int step = 16; step > 0; step >>= 1)
        second = fmaxf(second, __shfl_xor_sync(FKM_ALL_LANES, second, step));
    if (fkm_lane() != 0)
        return;
    a.floor[r] = floor / a.floor_scale; /* exact: a power of two */
    a.second[r] = fmaxf(a.second[r], second / a.floor_scale);
}

template <class T> __device__ int32_t decide(const fkm_resolve_args &a, unsigned entry)
{
    const int32_t r = a.doubt_row[entry], n = a.doubt_size[entry], lane = fkm_lane();
    const T *x = (const T *)a.rows.x + (int64_t)r * a.rows.dims;
    const float norm = a.norm[r];
    int32_t mine = lane < n ? a.doubt_position[(int64_t)entry * FKM_CANDIDATES + lane] : 0;
    float lower = FKM_FLOOR_NONE, upper = FKM_FLOOR_NONE;
    for (int32_t i = 0; i < n; i++) {
        int32_t position = __shfl_sync(FKM_ALL_LANES, mine, i);
        float s = fine_score(a.c, a.frame, x, position);
        float e = fine_margin(a.c, norm, a.kappa, position);
        if (lane == i) {
            lower = s - e;
            upper = s + e;
        }
    }
    float floor = a.floor[r] * a.floor_scale;
    for (int step = 16; step > 0; step >>= 1)
        lower = fmaxf(lower, __shfl_xor_sync(FKM_ALL_LANES, lower, step));
    floor = fmaxf(floor, lower);
    unsigned left = __ballot_sync(FKM_ALL_LANES, lane < n && upper >= floor);
    int32_t index = a.c.index[mine];
    nearest best = {0, -1};
    if (__popc(left) == 1) {
        best.label = __shfl_sync(FKM_ALL_LANES, index, __ffs((int)left) - 1);
        left = 0;
    }
    while (left) { /* four at a time, eight lanes each */
        int32_t j = -1;
        for (int group = 0; group < 4; group++) {
            int from = left ? __ffs((int)left) - 1 : 0;
            int32_t candidate = __shfl_sync(FKM_ALL_LANES, index, from);
            if (lane >> 3 == group && left)
                j = candidate;
            left &= left - 1;
        }
        double d = fkm_canonical(x, a.c.master + (int64_t)(j < 0 ? 0 : j) * a.c.dims, a.c.dims);
        take_nearer(&best, d, j);
    }
    best = warp_nearest(best);
    if (a.second)
        hand_on_bounds(a, r, floor, upper, lane < n && index != best.label);
    return best.label;
}

template <class T>
__global__ void __launch_bounds__(THREADS) resolve_doubt(const __grid_constant__ fkm_resolve_args a)
{
    const unsigned count = *a.doubt_count, warps = gridDim.x * WARPS;
    for (unsigned i = blockIdx.x * WARPS + (threadIdx.x >> 5); i < count; i += warps) {
        int32_t label = decide<T>(a, i);
        if (fkm_lane() == 0)
            settle(a, a.doubt_row[i], label);
    }
}

/* ---- rows to rescan: a block each ---- */

/* Too many candidates to keep: with the floor at its final height, through all of them again. */
template <class T>
__device__ nearest rescan_row(const fkm_resolve_args &a, int32_t r, const T *x, unsigned *kept)
{
    const float norm = a.norm[r], floor = a.floor[r] * a.floor_scale;
    nearest best = {0, -1};
    for (int32_t p = (int32_t)(threadIdx.x >> 5); p < a.c.clusters; p += WARPS) {
        if (fine_score(a.c, a.frame, x, p) + fine_margin(a.c, norm, a.kappa, p) < floor)
            continue;
        int32_t j = a.c.index[p];
        double d = fkm_canonical(x, a.c.master + (int64_t)j * a.c.dims, a.c.dims);
        take_nearer(&best, d, j);
        ++*kept;
    }
    return best;
}

/* A row that cannot be screened: the definition. */
template <class T> __device__ nearest compare_all(const fkm_resolve_args &a, const T *x)
{
    nearest best = {0, -1};
    for (int32_t at = 0; at < a.c.clusters; at += GROUPS) {
        int32_t j = at + (int32_t)(threadIdx.x >> 3);
        bool real = j < a.c.clusters;
        double d = fkm_canonical(x, a.c.master + (int64_t)(real ? j : 0) * a.c.dims, a.c.dims);
        take_nearer(&best, d, real ? j : -1);
    }
    return best;
}

/* The nearest of all threads, in thread 0. */
__device__ nearest block_nearest(nearest best, nearest *shared)
{
    best = warp_nearest(best);
    __syncthreads(); /* nobody reads what the row before left here */
    if (fkm_lane() == 0)
        shared[threadIdx.x >> 5] = best;
    __syncthreads();
    if (threadIdx.x == 0)
        for (int w = 1; w < WARPS; w++)
            take_nearer(&best, shared[w].distance, shared[w].label);
    return best;
}

template <class T>
__global__ void __launch_bounds__(THREADS)
    resolve_rescans(const __grid_constant__ fkm_resolve_args a)
{
    FKM_SHARED(nearest, shared, [WARPS]);
    const unsigned count = *a.rescan_count;
    for (unsigned i = blockIdx.x; i < count; i += gridDim.x) {
        const int32_t r = a.rescan_row[i];
        const T *x = (const T *)a.rows.x + (int64_t)r * a.rows.dims;
        const bool screened = a.residual[r] >= 0;
        nearest best = {0, -1};
        unsigned kept = 0;
        if (screened)
            best = rescan_row(a, r, x, &kept);
        else if (finite_row(x, a.rows.dims))
            best = compare_all(a, x);
        best = block_nearest(best, shared);
        if (fkm_lane() == 0)
            add(&a.counts->candidates, kept);
        if (threadIdx.x != 0)
            continue;
        settle(a, r, best.label);
        add(&a.counts->rescans, screened);
        add(&a.counts->in_doubt, best.label >= 0);
        add(&a.counts->candidates, !screened && best.label >= 0 ? (unsigned)a.c.clusters : 0);
    }
}

/* ---- distances: eight lanes a row ---- */

template <class T>
__global__ void __launch_bounds__(THREADS)
    distances_to(double *out, fkm_device_rows rows, const int32_t *labels, const float *c)
{
    const int32_t step = (int32_t)gridDim.x * GROUPS;
    for (int32_t base = (int32_t)blockIdx.x * GROUPS; base < rows.count; base += step) {
        int32_t r = base + (int32_t)(threadIdx.x >> 3);
        bool real = r < rows.count;
        int32_t label = real ? labels[r] : -1;
        const T *x = (const T *)rows.x + (int64_t)(real ? r : 0) * rows.dims;
        double d = fkm_canonical(x, c + (int64_t)(label < 0 ? 0 : label) * rows.dims, rows.dims);
        if (real && (threadIdx.x & 7) == 0)
            out[r] = label < 0 ? (double)NAN : d;
    }
}

/* ---- nearest lists: a block a row ---- */

/* The `top`-th largest of v [n], by four rounds over the bytes of its ordered integers. */
__device__ float select_largest(const float *v, int32_t n, int32_t top, unsigned *histogram)
{
    FKM_SHARED(unsigned, chosen);
    FKM_SHARED(int32_t, left);
    unsigned prefix = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        __syncthreads();
        histogram[threadIdx.x] = 0; /* THREADS == 256 */
        if (threadIdx.x == 0 && shift == 24)
            left = top;
        __syncthreads();
        for (int32_t i = (int32_t)threadIdx.x; i < n; i += THREADS) {
            unsigned key = (unsigned)fkm_ordered(v[i]) ^ 0x80000000u;
            if (shift == 24 || (key ^ prefix) >> (shift + 8) == 0)
                atomicAdd(&histogram[key >> shift & 255], 1u);
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            int b = 255;
            while (b > 0 && (int32_t)histogram[b] < left)
                left -= (int32_t)histogram[b--];
            chosen = prefix | (unsigned)b << shift;
        }
        __syncthreads();
        prefix = chosen;
    }
    return fkm_unordered((int)(prefix ^ 0x80000000u));
}

/* Where the block's scratch lies. */
struct nearest_scratch {
    float *lower;
    int32_t *survivor;
    double *distance;
};

/* Lists the centroids that may be among the nearest: all of them, or those whose upper bound
 * reaches the top-th largest lower bound. Returns how many. */
template <class T>
__device__ int32_t list_survivors(
    const fkm_nearest_args &a, const nearest_scratch &s, int32_t r, const T *x, unsigned *histogram)
{
    FKM_SHARED(int32_t, size);
    if (threadIdx.x == 0)
        size = 0;
    if (a.residual[r] < 0) {
        for (int32_t j = (int32_t)threadIdx.x; j < a.c.clusters; j += THREADS)
            s.survivor[j] = j;
        __syncthreads();
        return a.c.clusters;
    }
    const float norm = a.norm[r];
    for (int32_t p = (int32_t)(threadIdx.x >> 5); p < a.c.clusters; p += WARPS) {
        float score = fine_score(a.c, a.frame, x, p);
        if (fkm_lane() == 0)
            s.lower[p] = score - fine_margin(a.c, norm, a.kappa, p);
    }
    __syncthreads();
    float floor = select_largest(s.lower, a.c.clusters, a.top, histogram);
    for (int32_t p = (int32_t)threadIdx.x; p < a.c.clusters; p += THREADS) {
        float e = fine_margin(a.c, norm, a.kappa, p);
        /* lower + 2 e, rounded: two more roundings, which the 9 u of the margin allow for */
        if (s.lower[p] + 2 * e >= floor)
            s.survivor[atomicAdd(&size, 1)] = a.c.index[p];
    }
    __syncthreads();
    return size;
}

/* Each survivor's rank is the number of survivors before it; the first `top` go out. */
__device__ void write_ranked(
    const fkm_nearest_args &a, const nearest_scratch &s, int32_t r, int32_t n)
{
    for (int32_t i = (int32_t)threadIdx.x; i < n; i += THREADS) {
        nearest mine = {s.distance[i], s.survivor[i]};
        int32_t rank = 0;
        for (int32_t k = 0; k < n && rank < a.top; k++)
            rank += k != i && before(s.distance[k], s.survivor[k], mine);
        if (rank < a.top) {
            a.labels[(int64_t)r * a.top + rank] = mine.label;
            a.distances[(int64_t)r * a.top + rank] = mine.distance;
        }
    }
}

template <class T>
__global__ void __launch_bounds__(THREADS) find_nearest(const __grid_constant__ fkm_nearest_args a)
{
    FKM_SHARED(unsigned, histogram, [THREADS]);
    const int64_t base = (int64_t)blockIdx.x * a.c.clusters;
    const nearest_scratch s = {a.lower + base, a.survivor + base, a.survivor_distance + base};
    for (int32_t r = (int32_t)blockIdx.x; r < a.rows.count; r += (int32_t)gridDim.x) {
        const T *x = (const T *)a.rows.x + (int64_t)r * a.rows.dims;
        if (a.residual[r] < 0 && !finite_row(x, a.rows.dims)) {
            for (int32_t i = (int32_t)threadIdx.x; i < a.top; i += THREADS) {
                a.labels[(int64_t)r * a.top + i] = -1;
                a.distances[(int64_t)r * a.top + i] = (double)NAN;
            }
            if (threadIdx.x == 0)
                add(&a.counts->skipped, 1);
            continue;
        }
        __syncthreads(); /* scratch of the row before is free */
        int32_t n = list_survivors(a, s, r, x, histogram);
        for (int32_t at = 0; at < n; at += GROUPS) {
            int32_t i = at + (int32_t)(threadIdx.x >> 3);
            int32_t j = i < n ? s.survivor[i] : 0;
            double d = fkm_canonical(x, a.c.master + (int64_t)j * a.c.dims, a.c.dims);
            if (i < n && (threadIdx.x & 7) == 0)
                s.distance[i] = d;
        }
        __syncthreads();
        write_ranked(a, s, r, n);
        if (threadIdx.x == 0) {
            add(&a.counts->rows, 1);
            add(&a.counts->candidates, (unsigned)n);
        }
    }
}

} // namespace

cudaError_t fkm_resolve(const fkm_resolve_args *a, unsigned blocks, cudaStream_t stream)
{
    FKM_BY_DTYPE(a->rows.dtype, {
        FKM_LAUNCH(resolve_doubt<T>, blocks, THREADS, 0, stream, *a);
        FKM_LAUNCH(resolve_rescans<T>, blocks, THREADS, 0, stream, *a);
    });
    return cudaGetLastError();
}

cudaError_t fkm_distances_to(double *out, const fkm_device_rows *rows, const int32_t *labels,
    const float *c, cudaStream_t stream)
{
    unsigned blocks = fkm_blocks(rows->count, GROUPS, MOST_BLOCKS);
    FKM_BY_DTYPE(rows->dtype,
        FKM_LAUNCH(distances_to<T>, blocks, THREADS, 0, stream, out, *rows, labels, c));
    return cudaGetLastError();
}

cudaError_t fkm_nearest(const fkm_nearest_args *a, cudaStream_t stream)
{
    unsigned blocks = fkm_blocks(a->rows.count, 1, a->blocks);
    FKM_BY_DTYPE(a->rows.dtype, FKM_LAUNCH(find_nearest<T>, blocks, THREADS, 0, stream, *a));
    return cudaGetLastError();
}
