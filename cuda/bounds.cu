/* Bounds that spare rows the search: see bounds.cuh for the proof. */
#include "bounds.cuh"

#include "settle.cuh"

#include <math.h>

namespace
{

enum { THREADS = 256, WARPS = THREADS / 32, EACH = 4, MOST_BLOCKS = 1 << 16 };

#define ETA 0x1p-20

/* The largest of some movements, where it is, and the largest of the others. */
struct top_two {
    float most, next;
    int32_t at;

    __device__ void take(float v, int32_t j)
    {
        if (v > most) {
            next = most;
            most = v;
            at = j;
        } else {
            next = fmaxf(next, v);
        }
    }
};

__device__ float movement(const double *shift, int32_t j, double scale)
{
    return __double2float_ru(shift[j] * scale * (1 + 0x1p-20));
}

/* One block: clusters are few beside rows. */
__global__ void __launch_bounds__(THREADS)
    sum_movements(float *drop, const double *shift, int32_t clusters, float scale, bool add)
{
    FKM_SHARED(top_two, part, [THREADS]);
    const int32_t t = (int32_t)threadIdx.x;
    top_two top = {0, 0, -1};
    for (int32_t j = t; j < clusters; j += THREADS)
        top.take(movement(shift, j, scale), j);
    part[t] = top;
    __syncthreads();
    for (int32_t step = THREADS / 2; step > 0; step /= 2) {
        if (t < step) {
            const top_two other = part[t + step];
            part[t].take(other.most, other.at);
            part[t].next = fmaxf(part[t].next, other.next);
        }
        __syncthreads();
    }
    top = part[0];
    for (int32_t j = t; j < clusters; j += THREADS) {
        float own = __fmul_ru(movement(shift, j, scale), (float)(1 + ETA));
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

cudaError_t fkm_bounds_move(
    float *drop, const double *shift, int32_t clusters, float scale, bool add, cudaStream_t stream)
{
    FKM_LAUNCH(sum_movements, 1, THREADS, 0, stream, drop, shift, clusters, scale, add);
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
