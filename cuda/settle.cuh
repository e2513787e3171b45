/* The end of a row's screening, for the kernels behind assign.cuh: its label, or a place on a list.
 */
#ifndef FKM_SETTLE_CUH
#define FKM_SETTLE_CUH

#include "assign.cuh"
#include "device.cuh"

/* How many rows there are, and which the r-th is. */
static __device__ __forceinline__ int32_t fkm_row_count(const fkm_assign_args &a)
{
    return a.row ? (int32_t)*a.listed : a.rows;
}

static __device__ __forceinline__ int32_t fkm_row_at(const fkm_assign_args &a, int32_t r)
{
    return a.row ? a.row[r] : r;
}

/* Room on a list for the lanes that want it: their index, by one atomic a warp. */
static __device__ __forceinline__ unsigned fkm_take_slot(unsigned *count, bool want)
{
    unsigned all = __ballot_sync(FKM_ALL_LANES, want), base = 0;
    if (all && fkm_lane() == __ffs((int)all) - 1)
        base = atomicAdd(count, (unsigned)__popc(all));
    base = __shfl_sync(FKM_ALL_LANES, base, all ? __ffs((int)all) - 1 : 0);
    return base + (unsigned)__popc(all & ((1u << fkm_lane()) - 1));
}

static __device__ __forceinline__ void fkm_count(unsigned long long *to, unsigned n)
{
    unsigned sum = __reduce_add_sync(FKM_ALL_LANES, n);
    if (sum && fkm_lane() == 0)
        atomicAdd(to, (unsigned long long)sum);
}

/* How far below the floor of a row others are still of interest. */
static __device__ __forceinline__ float fkm_reach_of(const fkm_assign_args &a, int32_t row)
{
    return a.reach ? a.reach[row] : 0;
}

/* A row at the end of its screening. */
struct fkm_screened_row {
    bool real;           /* there is one; else a lane that takes part for its warp */
    bool screened;       /* it could be screened */
    int32_t row;         /* which */
    int32_t candidates;  /* 0: to be scanned again */
    float floor, second; /* final; second: without what never reached floor - reach */
};

/* What is known of all centroids but the label, or the candidates. */
static __device__ __forceinline__ void fkm_hand_on_bounds(
    const fkm_assign_args &a, const fkm_screened_row &r)
{
    const bool known = r.screened && r.candidates > 0;
    a.floor[r.row] = r.screened ? r.floor : FKM_FLOOR_NONE;
    if (a.second)
        a.second[r.row] =
            known ? fmaxf(r.second, r.floor - fkm_reach_of(a, r.row)) : FKM_FLOOR_DEAD;
}

/* By whole warps. position(i): the i-th candidate. */
template <class F>
static __device__ __forceinline__ void fkm_settle_row(
    const fkm_assign_args &a, const fkm_screened_row &r, F position)
{
    const int32_t n = r.candidates;
    const bool settled = n == 1, doubt = n > 1, rescan = r.real && n == 0;
    const int32_t label = settled ? a.c.index[position(0)] : -1;
    if (settled)
        a.labels[r.row] = label;
    if (doubt || rescan || (settled && a.second))
        fkm_hand_on_bounds(a, r);
    fkm_count(&a.counts->rows, settled);
    fkm_count(&a.counts->moved, settled && label != a.old[r.row]);
    fkm_count(&a.counts->in_doubt, doubt);
    fkm_count(&a.counts->candidates, (unsigned)n);
    unsigned slot = fkm_take_slot(a.doubt_count, doubt);
    if (doubt) {
        a.doubt_row[slot] = r.row;
        a.doubt_size[slot] = n;
        for (int i = 0; i < n; i++)
            a.doubt_position[(int64_t)slot * FKM_CANDIDATES + i] = position(i);
    }
    slot = fkm_take_slot(a.rescan_count, rescan);
    if (rescan)
        a.rescan_row[slot] = r.row;
}

/* The i-th row of `rows` after part `split` of the tiles: n candidates, or more than
 * FKM_CANDIDATES; position(k), upper(k): the k-th. */
template <class P, class U>
static __device__ __forceinline__ void fkm_store_part(
    const fkm_parts &p, int64_t entry, float floor, float second, int32_t n, P position, U upper)
{
    p.floor[entry] = floor;
    p.second[entry] = second;
    p.count[entry] = n;
    for (int32_t k = 0; k < n && n <= FKM_CANDIDATES; k++) {
        p.position[(int64_t)k * p.room + entry] = position(k);
        p.upper[(int64_t)k * p.room + entry] = upper(k);
    }
}

#endif
