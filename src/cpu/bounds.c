/* Bounds that spare rows the search: see bounds.h for the proof. */
#include "bounds.h"

#include "../base/checked.h"
#include "../base/mem.h"

#include <math.h>
#include <string.h>

#define ETA 0x1p-20f
#define UP (1 + 0x1p-22f)
#define DOWN (1 - 0x1p-22f)
#define LEAST_SHARE 0.1  /* of rows spared, for bounds to be worth their keep */
#define LONGEST_PAUSE 64 /* passes */

int64_t fkm_bounds_bytes(int64_t rows, int32_t clusters)
{
    return fkm_add_sat(fkm_mul_sat(rows, 2 * sizeof(float)), (int64_t)clusters * 4 + 4096);
}

fkm_status fkm_bounds_open(fkm_bounds *b, int64_t rows, int32_t clusters, fkm_err *e)
{
    static const char what[] = "bounds of rows";
    fkm_status st = FKM_OK;
    memset(b, 0, sizeof *b);
    b->patience = 1;
    FKM_GO(fkm_alloc(&b->upper, rows, sizeof(float), what, e));
    FKM_GO(fkm_alloc(&b->lower, rows, sizeof(float), what, e));
    FKM_GO(fkm_calloc(&b->shift, clusters, sizeof(float), what, e));
    b->clusters = clusters;
    return FKM_OK;
out:
    fkm_bounds_close(b);
    return st;
}

void fkm_bounds_close(fkm_bounds *b)
{
    fkm_free(b->upper);
    fkm_free(b->lower);
    fkm_free(b->shift);
    memset(b, 0, sizeof *b);
}

void fkm_bounds_begin(fkm_bounds *b, uint32_t frame, bool known)
{
    if (b->frame != frame)
        b->valid = false;
    b->frame = frame;
    b->settled = b->seen = 0;
    if (b->pause > 0)
        b->pause--;
    b->collect = b->upper && known && b->pause == 0;
    if (!b->collect)
        b->valid = false;
}

void fkm_bounds_end(fkm_bounds *b)
{
    if (!b->upper)
        return; /* never opened: rows are not kept */
    if (b->valid && (double)b->settled < LEAST_SHARE * (double)b->seen) {
        b->pause = b->patience;
        b->patience = b->patience < LONGEST_PAUSE ? 2 * b->patience : LONGEST_PAUSE;
    } else if (b->valid) {
        b->patience = 1;
    }
    b->valid = b->collect;
    memset(b->shift, 0, (size_t)b->clusters * sizeof *b->shift); /* taken in, or of no use */
    b->shift_most = b->shift_next = 0;
}

void fkm_bounds_move(fkm_bounds *b, const double *shift, float scale)
{
    b->shift_most = b->shift_next = 0;
    b->shift_most_at = -1;
    for (int32_t j = 0; j < b->clusters; j++) {
        float moved = (b->shift[j] + (float)(shift[j] * scale * (1 + 0x1p-20))) * UP;
        b->shift[j] = moved;
        if (moved > b->shift_most) {
            b->shift_next = b->shift_most;
            b->shift_most = moved;
            b->shift_most_at = j;
        } else if (moved > b->shift_next) {
            b->shift_next = moved;
        }
    }
}

/* The bounds of a row. */
typedef struct limits {
    float upper, lower;
} limits;

/* After the movements since they were brought up to date. */
static inline limits limits_now(const fkm_bounds *b, int64_t row, int32_t own)
{
    if (own < 0)
        return (limits){INFINITY, 0};
    const float others = own == b->shift_most_at ? b->shift_next : b->shift_most;
    return (limits){(b->upper[row] + b->shift[own]) * UP, (b->lower[row] - others) * DOWN};
}

static inline bool is_settled(limits l)
{
    return l.upper * (1 + ETA) < l.lower;
}

int64_t fkm_bounds_list(
    fkm_bounds *b, int32_t *list, int64_t row0, const int32_t *labels, int64_t count)
{
    int64_t n = 0;
    if (!b->valid)
        return count;
    float *upper = b->upper + row0, *lower = b->lower + row0;
    for (int64_t i = 0; i < count; i++) {
        const limits now = limits_now(b, row0 + i, labels[i]);
        upper[i] = now.upper;
        lower[i] = now.lower;
        list[n] = (int32_t)i;
        n += !is_settled(now);
    }
    b->seen += count;
    b->settled += count - n;
    return n;
}

bool fkm_bounds_settle(fkm_bounds *b, int64_t row0, const int32_t *labels, int64_t count)
{
    if (!b->valid)
        return false;
    for (int64_t i = 0; i < count; i++)
        if (!is_settled(limits_now(b, row0 + i, labels[i])))
            return false;
    for (int64_t i = 0; i < count; i++) {
        const limits now = limits_now(b, row0 + i, labels[i]);
        b->upper[row0 + i] = now.upper;
        b->lower[row0 + i] = now.lower;
    }
    b->seen += count;
    b->settled += count;
    return true;
}

void fkm_bounds_set(float *upper, float *lower, const fkm_row_block *b, int32_t r, int32_t dims,
    float beyond, bool same)
{
    *upper = INFINITY;
    *lower = 0;
    if (!same || b->residual[r] < 0)
        return;
    float most = b->norm[r] * b->norm[r] * UP;
    float least = most * (1 - (float)(3 * (int64_t)dims + 64) * 0x1p-24f);
    float near = most - 2 * b->floor[r], far = least - 2 * b->second[r];
    near += ETA * (most + fabsf(b->floor[r]) + fabsf(near));
    far -= ETA * (most + fabsf(b->second[r]) + fabsf(far));
    *upper = near > 0 ? sqrtf(near) * UP : 0;
    *lower = far > 0 ? fminf(sqrtf(far) * DOWN, beyond) : 0;
}
