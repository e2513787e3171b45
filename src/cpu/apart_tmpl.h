/* Template of what kernels do for apart.h, in vectors of floats: V, LANES and V_... as in
 * finish_tmpl.h, and
 *   V_ROOT(a)    within 2^-14 of the root
 *   V_LEAST(v)   of the lanes
 * Included after PANEL. V_MAX takes its second argument when one is not a number, as it may be in
 * rows that cannot be screened: what is found for those does no harm, see apart.h. */
#include "apart.h"

#define APART_TINY V_SET1(FKM_APART_LEAST *FKM_APART_LEAST)

/* Distances of LANES rows to a tile, less ref. nearness: base + margin + best score. */
static inline V distances_less_ref(V nearness, const float *ref)
{
    V square = V_MUL(nearness, V_SET1(-2 * (1 - 2 * FKM_APART_ETA)));
    square = V_MAX(square, APART_TINY);
    return V_SUB(V_MUL(V_ROOT(square), V_SET1(1 - FKM_APART_ROOT)), V_LOAD(ref));
}

/* At least the distances of LANES rows to the centroids that have set their floors. most: nx^2. */
static inline V distances_of_floors(V floor, V most)
{
    const V eta = V_SET1(FKM_APART_ETA), zero = V_SET1(0);
    V square = V_FMA(floor, V_SET1(-2), most);
    const V sizes = V_ADD(V_MAX(floor, V_SUB(zero, floor)), V_MAX(square, V_SUB(zero, square)));
    square = V_FMA(V_ADD(sizes, most), eta, square);
    square = V_MAX(square, APART_TINY);
    return V_MUL(V_ROOT(square), V_SET1(1 + FKM_APART_ROOT));
}

/* After the panel's own tiles have been screened, which are not apart: base and ref of its rows,
 * and its reach. */
static void start_panel(fkm_row_block *b, const fkm_tiles *t, int32_t panel)
{
    const V share = V_SET1(fkm_apart_share(t->dims)), eta = V_SET1(FKM_APART_ETA);
    const V error = V_SET1(3 * FKM_APART_ETA), zero = V_SET1(0);
    V rise = V_SET1(-FKM_APART_FAR), top = rise;
    fkm_apart_own(b, t, panel);
    for (int32_t r = panel * PANEL; r < (panel + 1) * PANEL; r += LANES) {
        const V norm = V_LOAD(b->norm + r);
        const V most = V_MUL(V_MUL(norm, norm), V_SET1(FKM_APART_UP));
        const V near = distances_of_floors(V_LOAD(b->floor + r), most);
        V_STORE(b->base + r, V_MUL(most, share));
        const V ref = V_MIN(near, V_SET1(FKM_APART_FAR));
        const V old = b->apart_known ? V_LOAD(b->ref + r) : ref;
        V_STORE(b->ref + r, ref);
        rise = V_MAX(V_FMA(V_ADD(ref, old), eta, V_SUB(ref, old)), rise);
        top = V_MAX(V_FMA(V_ADD(near, ref), error, V_SUB(near, ref)), top);
    }
    fkm_apart_start(b, panel, -V_LEAST(V_SUB(zero, rise)), -V_LEAST(V_SUB(zero, top)));
}
