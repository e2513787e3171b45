/* Bounds that spare rows the search: see bounds.cuh for the proof. */
#include "bounds.cuh"

#include "settle.cuh"

#include <math.h>

namespace
{

enum {
    THREADS = 256,
    WARPS = THREADS / 32,
    EACH = 4,
    MOST_BLOCKS = 1 << 16,
    EACH_BLOCK = 4096, /* clusters: up to these one block does, by one launch */
};

#define ETA 0x1p-20

__device__ void take(fkm_top_two *top, float v, int32_t j)
{
    if (v > top->most) {
        top->next = top->most;
        top->most = v;
        top->at = j;
    } else {
        top->next = fmaxf(top->next, v);
    }
}

__device__ void take(fkm_top_two *top, const fkm_top_two &other)
{
    take(top, other.most, other.at);
    top->next = fmaxf(top->next, other.next);
}

__device__ float movement(const double *shift, int32_t j, double scale)
{
    return __double2float_ru(shift[j] * scale * (1 + 0x1p-20));
}

/* Of all threads of the block, for all of them. Any order: of two that are the largest, `next` is
 * the other. */
__device__ fkm_top_two of_block(const fkm_top_two &mine)
{
    FKM_SHARED(fkm_top_two, part, [THREADS]);
    const int32_t t = (int32_t)threadIdx.x;
    part[t] = mine;
    __syncthreads();
    for (int32_t step = THREADS / 2; step > 0; step /= 2) {
        if (t < step)
            take(&part[t], part[t + step]);
        __syncthreads();
    }
    return part[0];
}

__device__ fkm_top_two of_clusters(const double *shift, int32_t clusters, float scale)
{
    fkm_top_two top = {0, 0, -1};
    for (int64_t j = (int64_t)blockIdx.x * THREADS + threadIdx.x; j < clusters;
         j += (int64_t)gridDim.x * THREADS)
        take(&top, movement(shift, (int32_t)j, scale), (int32_t)j);
    return of_block(top);
}

/* Each block's part of the clusters. */
__global__ void __launch_bounds__(THREADS)
    find_movements(fkm_top_two *part, const double *shift, int32_t clusters, float scale)
{
    const fkm_top_two top = of_clusters(shift, clusters, scale);
    if (threadIdx.x == 0)
        part[blockIdx.x] = top;
}

/* part: of as many blocks as there are now; with one block there need be none. */
__global__ void __launch_bounds__(THREADS) sum_movements(float *drop, const fkm_top_two *part,
    const double *shift, int32_t clusters, float scale, bool add)
{
    const int32_t t = (int32_t)threadIdx.x, blocks = (int32_t)gridDim.x;
    fkm_top_two top = {0, 0, -1};
    if (t < blocks && blocks > 1)
        top = part[t];
    top = blocks > 1 ? of_block(top) : of_clusters(shift, clusters, scale);
    for (int64_t j = (int64_t)blockIdx.x * THREADS + t; j < clusters;
         j += (int64_t)blocks * THREADS) {
        float own = __fmul_ru(movement(shift, (int32_t)j, scale), (float)(1 + ETA));
        float v = __fadd_ru(own, j == top.at ? top.next : top.most);
        if (FKM_PLANT(6))
            v /= 2;
        drop[j] = add ? __fadd_ru(drop[j], v) : v;
    }
}

/* A block EACH * THREADS rows, in runs of 32 a warp: those listed stay together. */
__global__ void __launch_bounds__(THREADS) list_rows(int32_t *row, unsigned *listed,
    fkm_u64 *spared, float *slack, const int32_t *labels, const float *drop, int32_t rows)
{
    FKM_SHARED(unsigned, count, [EACH * WARPS]);
    FKM_SHARED(unsigned, base);
    const int32_t first = (int32_t)blockIdx.x * (EACH * THREADS) + (int32_t)threadIdx.x;
    const int warp = (int)threadIdx.x >> 5;
    unsigned active[EACH];
    for (int k = 0; k < EACH; k++) {
        const int32_t i = first + k * THREADS;
        bool left = i < rows;
        if (left) {
            const int32_t label = labels[i];
            const float s = label < 0 ? -1 : __fsub_rd(slack[i], drop ? drop[label] : 0);
            slack[i] = s;
            left = !(s > 0);
        }
        active[k] = __ballot_sync(FKM_ALL_LANES, left);
        if (fkm_lane() == 0)
            count[k * WARPS + warp] = (unsigned)__popc(active[k]);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        unsigned sum = 0;
        for (int w = 0; w < EACH * WARPS; w++) {
            const unsigned n = count[w];
            count[w] = sum;
            sum += n;
        }
        const int32_t here = min(rows - first, (int32_t)(EACH * THREADS));
        if ((unsigned)here > sum)
            atomicAdd(spared, (fkm_u64)((unsigned)here - sum));
        base = atomicAdd(listed, sum);
    }
    __syncthreads();
    for (int k = 0; k < EACH; k++) {
        const unsigned before = active[k] & ((1u << fkm_lane()) - 1);
        if (active[k] >> fkm_lane() & 1)
            row[base + count[k * WARPS + warp] + (unsigned)__popc(before)] = first + k * THREADS;
    }
}

/* See bounds.cuh. f, s: in the frame; nx >= |X| (1 - u). */
__device__ float slack_of(double nx, double f, double s)
{
    const double square = nx * nx * (1 + 0x1p-21), lost = ETA * (fabs(f) + fabs(s));
    f -= lost;
    s += lost;
    const double near = square - 2 * f, far = square - 2 * s;
    if (!(f > s) || !(far > 0))
        return -1;
    const double a = sqrt(fmax(0.0, near)), both = a + sqrt(far);
    const double between = fmin(2 * (f - s), far); /* of the squares */
    return __double2float_rd(between / both - (ETA + 0x1p-30) * a - 0x1p-40 * both);
}

__global__ void __launch_bounds__(THREADS) set_slack(const __grid_constant__ fkm_bounds_args a)
{
    const int32_t rows = a.row ? (int32_t)*a.listed : a.rows, step = (int32_t)gridDim.x * THREADS;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < rows; i += step) {
        const int32_t r = a.row ? a.row[i] : (int32_t)i;
        a.slack[r] = a.labels[r] < 0 ? -1
                                     : slack_of(a.norm[r], (double)a.floor[r] * a.score_unit,
                                           (double)a.second[r] * a.score_unit);
    }
}

} // namespace

cudaError_t fkm_bounds_move(float *drop, fkm_top_two *part, const double *shift, int32_t clusters,
    float scale, bool add, cudaStream_t stream)
{
    static_assert(FKM_TOP_TWOS <= THREADS, "a block reads all parts at once");
    const unsigned blocks = fkm_blocks(clusters, EACH_BLOCK, FKM_TOP_TWOS);
    if (blocks > 1)
        FKM_LAUNCH(find_movements, blocks, THREADS, 0, stream, part, shift, clusters, scale);
    FKM_LAUNCH(sum_movements, blocks, THREADS, 0, stream, drop, part, shift, clusters, scale, add);
    return cudaGetLastError();
}

cudaError_t fkm_bounds_list(int32_t *row, unsigned *listed, unsigned long long *spared,
    float *slack, const int32_t *labels, const float *drop, int32_t rows, cudaStream_t stream)
{
    FKM_LAUNCH(list_rows, fkm_blocks(rows, EACH * THREADS, INT32_MAX), THREADS, 0, stream, row,
        listed, spared, slack, labels, drop, rows);
    return cudaGetLastError();
}

cudaError_t fkm_bounds_set(const fkm_bounds_args *a, cudaStream_t stream)
{
    FKM_LAUNCH(set_slack, fkm_blocks(a->rows, THREADS, MOST_BLOCKS), THREADS, 0, stream, *a);
    return cudaGetLastError();
}
