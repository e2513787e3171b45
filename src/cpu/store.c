/* Rows laid out for screening: see store.h. */
#include "store.h"

#include "../base/checked.h"
#include "../base/mem.h"

#include <string.h>

int64_t fkm_row_store_bytes(int32_t panel, size_t panel_bytes, int32_t apart, int64_t rows)
{
    int64_t padded = fkm_round_up(rows, panel);
    int64_t panels = fkm_mul_sat(padded / panel, (int64_t)panel_bytes);
    panels = fkm_add_sat(panels, fkm_mul_sat(padded / panel, apart * (int64_t)sizeof(float)));
    return fkm_add_sat(panels, fkm_mul_sat(padded, 2 * sizeof(int32_t) + 4 * sizeof(float)));
}

fkm_status fkm_row_store_open(
    fkm_row_store *s, int32_t panel, size_t panel_bytes, int32_t apart, int64_t rows, fkm_err *e)
{
    static const char what[] = "rows laid out for screening";
    fkm_status st = FKM_OK;
    int64_t padded = fkm_round_up(rows, panel);
    memset(s, 0, sizeof *s);
    FKM_GO(fkm_alloc(&s->panels, padded / panel, panel_bytes, what, e));
    FKM_GO(fkm_alloc(&s->order, padded, sizeof *s->order, what, e));
    FKM_GO(fkm_alloc(&s->label, padded, sizeof *s->label, what, e));
    FKM_GO(fkm_alloc(&s->norm, padded, sizeof *s->norm, what, e));
    FKM_GO(fkm_alloc(&s->residual, padded, sizeof *s->residual, what, e));
    if (apart > 0)
        FKM_GO(fkm_alloc(&s->apart, padded / panel, (size_t)apart * sizeof(float), what, e));
    if (apart > 0)
        FKM_GO(fkm_alloc(&s->ref, padded, sizeof *s->ref, what, e));
    FKM_GO(fkm_alloc(&s->tail, padded, sizeof *s->tail, what, e));
    return FKM_OK;
out:
    fkm_row_store_close(s);
    return st;
}

void fkm_row_store_close(fkm_row_store *s)
{
    fkm_free(s->panels);
    fkm_free(s->order);
    fkm_free(s->label);
    fkm_free(s->norm);
    fkm_free(s->residual);
    fkm_free(s->apart);
    fkm_free(s->ref);
    fkm_free(s->tail);
    memset(s, 0, sizeof *s);
}

void fkm_row_store_start(fkm_row_store *s, const int32_t *labels, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        s->order[i] = (int32_t)i;
    memcpy(s->label, labels, (size_t)count * sizeof *labels);
    s->known = true;
    s->ordered = false;
    s->strays = s->debt = 0;
    s->moved = count;
    s->frame = 0;
    s->apart_order = 0;
}

void fkm_row_store_sort(
    fkm_row_store *s, int64_t count, int32_t clusters, int64_t *start, int32_t *other)
{
    memset(start, 0, ((size_t)clusters + 2) * sizeof *start);
    for (int64_t p = 0; p < count; p++)
        start[(s->label[p] < 0 ? clusters : s->label[p]) + 1]++;
    for (int32_t j = 0; j <= clusters; j++)
        start[j + 1] += start[j];
    for (int64_t p = 0; p < count; p++)
        other[start[s->label[p] < 0 ? clusters : s->label[p]]++] = s->order[p];
    memcpy(s->order, other, (size_t)count * sizeof *other);
    int64_t p = 0; /* start[j] is the end of segment j now */
    for (int32_t j = 0; j <= clusters; j++)
        for (; p < start[j]; p++)
            s->label[p] = j < clusters ? j : -1;
    s->ordered = true;
    s->strays = s->debt = 0;
    s->frame = 0;
    s->apart_order = 0;
}
