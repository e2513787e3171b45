/* Rows packed for screening, a panel ahead of the memory: see pack.h. */
#include "pack.h"

#include "kernels.h"

enum { LEAST_DIMS = 160, MOST_DIMS = 4096, MOST_HEAD = 192 };

int32_t fkm_head_most(const fkm_kernels *k, int32_t dims)
{
    if (k->bytes || dims < LEAST_DIMS || dims > MOST_DIMS)
        return 0;
    return dims / 2 < MOST_HEAD ? dims / 2 : MOST_HEAD;
}

#define MAX_PANEL 32 /* rows of a panel */

void fkm_name_rows(const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t rows)
{
    const fkm_row_store *store = job->store;
    int64_t *restrict index = s->index;
    int32_t *restrict old = s->old;
    if (store && !job->list) {
        const int32_t *order = store->order + first, *label = store->label + first;
        for (int32_t r = 0; r < rows; r++) {
            index[r] = order[r];
            old[r] = label[r];
        }
        return;
    }
    for (int32_t r = 0; r < rows; r++) {
        int64_t at = job->list ? job->list[first + r] : first + r;
        index[r] = store ? store->order[at] : at;
        old[r] = store ? store->label[at] : job->labels[index[r]];
    }
}

/* An upper bound of |X - X^| from the float32 sum of (X~ - X^)^2: X~ itself is one rounding off X.
 */
static float residual_bound(float square, float norm, int32_t dims)
{
    return fkm_norm_bound(square, dims) + norm * 0x1p-22f;
}

/* An upper bound of the length beyond the head, see head.h: `bound` is that of the whole row. */
static float tail_bound(const fkm_tiles *t, float bound, float square)
{
    double error = fkm_turn_error(t->screened, t->dims) * bound;
    double head = fmax(0, sqrt(square) * (1 - (t->screened + 8) * 0x1p-24) - error);
    double rest = (double)bound * bound - head * head * (1 - t->gram);
    return (float)(sqrt(fmax(0, rest)) * (1 + 0x1p-20)) + FKM_NORM_TINY;
}

/* Where a packed panel and the figures of its rows go. */
typedef struct panel_rows {
    char *panel;
    float *norm, *residual, *tail; /* residual is negative where the row cannot be screened */
} panel_rows;

/* Packs the heads of one panel of rows x: [live] of [dims]. */
static void pack_heads(const fkm_assign_job *job, fkm_assign_scratch *s, const panel_rows *at,
    const void *const *x, int32_t live)
{
    const fkm_kernels *k = job->tiles->kernels;
    const fkm_tiles *t = job->tiles;
    const double error = fkm_turn_error(t->screened, t->dims);
    for (int32_t r = 0; r < live; r++) {
        const float *row = x[r];
        float *v = s->framed + (int64_t)r * t->dims;
        for (int32_t d = 0; d < t->dims; d++)
            v[d] = row[d] * t->scale - t->shift[d];
        at->norm[r] = fkm_norm_bound(k->dot(v, s->zero, 1, v, t->dims), t->dims);
    }
    const void *heads[MAX_PANEL];
    for (int32_t r = 0; r < live; r++)
        heads[r] = s->turned + (int64_t)r * t->screened;
    k->rotate(s->turned, s->framed, live, t->dims, t->axes, t->screened);
    k->pack(at->panel, s->square, at->residual, heads, live, t->screened, s->zero, 1, NULL, NULL);
    for (int32_t r = 0; r < k->panel; r++) {
        float bound = r < live ? at->norm[r] : 0;
        bool good = r < live && fkm_screenable(bound);
        at->norm[r] = good ? bound : 0;
        at->tail[r] = good ? tail_bound(t, bound, s->square[r]) : 0;
        float lost = k->low ? at->residual[r] : 0;
        at->residual[r] =
            !good ? -1
                  : residual_bound(lost, bound, t->dims) + (float)(error * bound * (1 + 0x1p-20));
    }
}

/* Figures of a panel's rows, of which `live` are real, from the squares of their lengths and of
 * what they lost, which is in at->residual. */
static void set_figures(
    const fkm_tiles *t, const panel_rows *at, const float *restrict square, int32_t live)
{
    const int32_t panel = t->kernels->panel, dims = t->dims;
    const bool low = t->kernels->low, bytes = t->kernels->bytes;
    const bool faint = bytes && t->screened < dims;
    float *restrict norm = at->norm, *restrict residual = at->residual, *restrict tail = at->tail;
    for (int32_t r = 0; r < panel; r++) {
        const float bound = fkm_norm_bound(square[r], dims);
        const float left_out = residual_bound(residual[r], bound, dims);
        const float lost = bytes ? residual_bound(0, bound, dims) : left_out;
        const bool good = r < live && fkm_screenable(bound);
        norm[r] = good ? bound : 0;
        tail[r] = good && faint ? left_out : 0;
        residual[r] = !good ? -1 : low ? lost : 0;
    }
}

/* Packs rows [begin, begin + live) of the block as one panel. */
static void pack_panel(const fkm_assign_job *job, fkm_assign_scratch *s, const panel_rows *at,
    int32_t begin, int32_t live, const void *const *ahead)
{
    const fkm_kernels *k = job->tiles->kernels;
    const fkm_tiles *t = job->tiles;
    const void *x[MAX_PANEL];
    for (int32_t r = 0; r < live; r++)
        x[r] = fkm_row_to_pack(job, s, begin + r);
    if (t->axes) {
        pack_heads(job, s, at, x, live);
        return;
    }
    k->pack(
        at->panel, s->square, at->residual, x, live, t->dims, t->shift, t->scale, ahead, t->kept);
    set_figures(t, at, s->square, live);
}

/* The rows of the panel that begins at row `begin` of the block, for packing to fetch while it is
 * at the panel before: *ahead points at them. Rows that are widened are fetched at once. */
static const void *const *look_ahead(const fkm_assign_job *job, const fkm_assign_scratch *s,
    int32_t begin, int32_t rows, const void **ahead)
{
    int32_t panel = job->tiles->kernels->panel;
    bool direct = (job->dtype == FKM_F32 || job->tiles->kernels->bytes) && !job->tiles->axes;
    if (begin >= rows)
        return NULL;
    for (int32_t i = 0; i < panel; i++) {
        int32_t r = begin + i < rows ? begin + i : rows - 1;
        if (direct)
            ahead[i] = fkm_row_bytes(job, s, r);
        else
            fkm_prefetch_row(job, s, r);
    }
    return direct ? ahead : NULL;
}

void fkm_pack_block(const fkm_assign_job *job, fkm_assign_scratch *s, int32_t rows)
{
    const fkm_row_block *b = &s->block;
    const void *ahead[MAX_PANEL];
    int32_t panel = job->tiles->kernels->panel;
    int64_t panel_bytes = (int64_t)fkm_panel_bytes(job->tiles->kernels, job->tiles->screened);
    for (int32_t r = 0; r < panel && r < rows; r++)
        fkm_prefetch_row(job, s, r);
    for (int32_t begin = 0; begin < rows; begin += panel) {
        int32_t live = rows - begin < panel ? rows - begin : panel;
        panel_rows at = {b->panels + begin / panel * panel_bytes, b->norm + begin,
            b->residual + begin, b->tail + begin};
        pack_panel(job, s, &at, begin, live, look_ahead(job, s, begin + panel, rows, ahead));
    }
}

bool fkm_row_is_finite(const float *x, int32_t dims)
{
    for (int32_t t = 0; t < dims; t++)
        if (!isfinite(x[t]))
            return false;
    return true;
}
