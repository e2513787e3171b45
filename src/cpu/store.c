/* Rows laid out for screening: see store.h. */
#include "store.h"

#include "../base/checked.h"
#include "../base/mem.h"

#include <string.h>

/* Bytes of panels, of an array by position, and of distances: each on cache lines of its own. */
typedef struct sizes {
    int64_t panels, each, apart;
} sizes;

enum { ARRAYS = 6, LINE = 64 };

static sizes sizes_of(int32_t panel, size_t panel_bytes, int32_t apart, int64_t rows)
{
    int64_t padded = fkm_round_up(rows, panel), line = LINE;
    int64_t per_panel = (int64_t)panel_bytes, distances = apart * (int64_t)sizeof(float);
    return (sizes){
        .panels = fkm_add_sat(fkm_mul_sat(padded / panel, per_panel), line),
        .each = fkm_add_sat(fkm_mul_sat(padded, (int64_t)sizeof(float)), line),
        .apart = fkm_add_sat(fkm_mul_sat(padded / panel, distances), line),
    };
}

static int64_t total(const sizes *s)
{
    return fkm_add_sat(fkm_add_sat(s->panels, s->apart), fkm_mul_sat(ARRAYS, s->each));
}

int64_t fkm_row_store_bytes(int32_t panel, size_t panel_bytes, int32_t apart, int64_t rows)
{
    const sizes s = sizes_of(panel, panel_bytes, apart, rows);
    return total(&s);
}

/* The next `bytes` of the store. */
static void *take(char **rest, int64_t bytes)
{
    void *p = *rest;
    *rest += bytes / LINE * LINE;
    return p;
}

fkm_status fkm_row_store_open(
    fkm_row_store *s, int32_t panel, size_t panel_bytes, int32_t apart, int64_t rows, fkm_err *e)
{
    const sizes z = sizes_of(panel, panel_bytes, apart, rows);
    char *rest;
    memset(s, 0, sizeof *s);
    FKM_TRY(fkm_alloc(&s->memory, total(&z), 1, "rows laid out for screening", e));
    rest = s->memory;
    s->panels = take(&rest, z.panels);
    s->order = take(&rest, z.each);
    s->label = take(&rest, z.each);
    s->norm = take(&rest, z.each);
    s->residual = take(&rest, z.each);
    s->tail = take(&rest, z.each);
    s->ref = take(&rest, z.each);
    s->apart = apart > 0 ? take(&rest, z.apart) : NULL;
    return FKM_OK;
}

void fkm_row_store_close(fkm_row_store *s)
{
    fkm_free(s->memory);
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
    s->moved = 2 * count; /* as it were: the first pass moves all */
    s->moved_before = 4 * count;
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
