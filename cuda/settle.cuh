/* The end of a row's screening, for the kernels behind assign.cuh: its label, or a place on a list.
 */
#ifndef FKM_SETTLE_CUH
#define FKM_SETTLE_CUH

#include "assign.cuh"
#include "device.cuh"

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

/* Row r, at the end: n candidates, position(i) the i-th; 0: to be scanned again. By whole warps: a
 * lane without a row says real = false; screened: it has one that could be. floor: the final one.
 */
template <class F>
static __device__ __forceinline__ void fkm_settle_row(
    const fkm_assign_args &a, int32_t r, bool real, bool screened, float floor, int n, F position)
{
    bool settled = n == 1, doubt = n > 1, rescan = real && n == 0;
    int32_t label = settled ? a.c.index[position(0)] : -1;
    if (settled)
        a.labels[r] = label;
    if (doubt || rescan)
        a.floor[r] = screened ? floor : FKM_FLOOR_NONE;
    fkm_count(&a.counts->rows, settled);
    fkm_count(&a.counts->moved, settled && label != a.old[r]);
    fkm_count(&a.counts->in_doubt, doubt);
    fkm_count(&a.counts->candidates, (unsigned)n);
    unsigned slot = fkm_take_slot(a.doubt_count, doubt);
    if (doubt) {
        a.doubt_row[slot] = r;
        a.doubt_size[slot] = n;
        for (int i = 0; i < n; i++)
            a.doubt_position[(int64_t)slot * FKM_CANDIDATES + i] = position(i);
    }
    slot = fkm_take_slot(a.rescan_count, rescan);
    if (rescan)
        a.rescan_row[slot] = r;
}

#endif
