/* Rows that several blocks have shared, each with a part of the centroids: see fkm_parts in
 * assign.cuh.
 *
 * Each part's floor is a lower bound of the nearest centroid's S^ - m, so the largest is one too;
 * what a part has dropped was below its own floor or, in `second`, is bounded there. Candidates of
 * all parts that reach the largest floor are the row's. */
#include "settle.cuh"

namespace
{

enum { THREADS = 128 };

/* Gathers the candidates of row i into its first entry; returns how many, 0 if they do not fit. */
__device__ int32_t merge_lists(
    const fkm_parts &p, int32_t rows, int32_t i, int32_t splits, float floor, float *second)
{
    int32_t n = 0;
    bool fits = true;
    for (int32_t split = 0; split < splits - FKM_PLANT(12); split++) {
        const int64_t entry = (int64_t)split * rows + i;
        const int32_t count = p.count[entry];
        fits = fits && count <= FKM_CANDIDATES;
        for (int32_t k = 0; k < count && fits; k++) {
            const int32_t position = p.position[(int64_t)k * p.room + entry];
            const float upper = p.upper[(int64_t)k * p.room + entry];
            if (upper < floor) {
                *second = fmaxf(*second, upper);
                continue;
            }
            fits = n < FKM_CANDIDATES;
            if (fits) /* never before what is still to be read: of split 0, n <= k */
                p.position[(int64_t)n++ * p.room + i] = position;
        }
    }
    return fits ? n : 0;
}

__global__ void __launch_bounds__(THREADS)
    merge_parts(const __grid_constant__ fkm_assign_args a, int32_t rows_a_block, int32_t busy)
{
    const int32_t rows = fkm_row_count(a);
    const int32_t splits = rows > 0 ? fkm_splits(a, rows, rows_a_block, busy) : 1;
    const int32_t step = (int32_t)gridDim.x * THREADS;
    if (splits == 1)
        return; /* the blocks have settled their rows themselves */
    for (int32_t first = (int32_t)blockIdx.x * THREADS; first < rows; first += step) {
        const int32_t i = first + (int32_t)threadIdx.x;
        fkm_screened_row r;
        r.real = i < rows;
        r.row = r.real ? fkm_row_at(a, i) : 0;
        r.screened = r.real && a.x.residual[r.row] >= 0;
        r.floor = r.second = FKM_FLOOR_NONE;
        for (int32_t split = 0; split < splits && r.screened; split++) {
            r.floor = fmaxf(r.floor, a.parts.floor[(int64_t)split * rows + i]);
            r.second = fmaxf(r.second, a.parts.second[(int64_t)split * rows + i]);
        }
        r.candidates = r.screened ? merge_lists(a.parts, rows, i, splits, r.floor, &r.second) : 0;
        fkm_settle_row(
            a, r, [&](int k) { return a.parts.position[(int64_t)k * a.parts.room + i]; });
    }
}

} // namespace

cudaError_t fkm_merge_parts(
    const fkm_assign_args *a, int32_t rows_a_block, int32_t busy, cudaStream_t stream)
{
    if (a->parts.room == 0 || (!a->row && fkm_splits(*a, a->rows, rows_a_block, busy) == 1))
        return cudaSuccess;
    FKM_LAUNCH(merge_parts, fkm_blocks(a->rows, THREADS, (int64_t)busy * rows_a_block / THREADS),
        THREADS, 0, stream, *a, rows_a_block, busy);
    return cudaGetLastError();
}
