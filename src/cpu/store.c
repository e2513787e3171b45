/* Rows laid out for screening: see store.h. */
#include "store.h"

#include "../base/checked.h"
#include "../base/mem.h"

#include <string.h>

/* Bytes of panels, of an array by position, of one by panel, and of distances: each on cache lines
 * of its own. */
typedef struct sizes {
    int64_t panels, each, one, apart;
    int32_t arrays, ones; /* how many by position, by panel */
} sizes;

enum { LINE = 64 };

static sizes sizes_of(const fkm_store_shape *shape, int64_t rows)
{
    const int32_t panel = shape->panel, figures = shape->panel_bytes > 0 ? 2 + shape->tails : 0;
    int64_t padded = fkm_round_up(rows, panel), line = LINE;
    int64_t per_panel = (int64_t)shape->panel_bytes;
    int64_t distances = shape->lots * (int64_t)sizeof(float);
    return (sizes){
        .arrays = 2 + figures + (shape->lots > 0),
        .ones = shape->lots > 0 ? 2 : 0,
        .panels = fkm_add_sat(fkm_mul_sat(padded / panel, per_panel), line),
        .each = fkm_add_sat(fkm_mul_sat(padded, (int64_t)sizeof(float)), line),
        .one = fkm_add_sat(fkm_mul_sat(padded / panel, (int64_t)sizeof(float)), line),
        .apart = fkm_add_sat(fkm_mul_sat(padded / panel, distances), line),
    };
}

static int64_t total(const sizes *s)
{
    int64_t by_panel = fkm_add_sat(fkm_add_sat(s->panels, fkm_mul_sat(s->ones, s->one)), s->apart);
    return fkm_add_sat(by_panel, fkm_mul_sat(s->arrays, s->each));
}

int64_t fkm_row_store_bytes(const fkm_store_shape *shape, int64_t rows)
{
    const sizes s = sizes_of(shape, rows);
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
    fkm_row_store *s, const fkm_store_shape *shape, int64_t rows, fkm_err *e)
{
    const sizes z = sizes_of(shape, rows);
    char *rest;
    memset(s, 0, sizeof *s);
    FKM_TRY(fkm_alloc(&s->memory, total(&z), 1, "rows laid out for screening", e));
    rest = s->memory;
    s->panel_bytes = shape->panel_bytes;
    s->panel_count = fkm_round_up(rows, shape->panel) / shape->panel;
    s->panels = take(&rest, z.panels);
    s->apart = shape->lots > 0 ? take(&rest, z.apart) : NULL;
    s->room = rest - s->panels;
    s->order = take(&rest, z.each);
    s->label = take(&rest, z.each);
    if (shape->panel_bytes > 0) {
        s->norm = take(&rest, z.each);
        s->residual = take(&rest, z.each);
        s->tail = shape->tails ? take(&rest, z.each) : NULL;
    }
    if (shape->lots > 0) {
        s->ref = take(&rest, z.each);
        s->slip = take(&rest, z.one);
        s->reach = take(&rest, z.one);
    }
    return FKM_OK;
}

size_t fkm_row_store_packs(const fkm_row_store *s, const fkm_tiles *t)
{
    const size_t bytes = fkm_panel_bytes(t->kernels, t->screened);
    return (t->kernels->low || t->axes) && bytes <= s->panel_bytes ? bytes : 0;
}

bool fkm_row_store_place(fkm_row_store *s, size_t panel_bytes, int32_t lots)
{
    const int64_t panels = fkm_round_up(s->panel_count * (int64_t)panel_bytes, LINE);
    if (!s->apart || panels + s->panel_count * lots * (int64_t)sizeof *s->apart > s->room)
        return false;
    s->apart = (float *)(void *)(s->panels + panels);
    return true;
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

/* Of a part, for each label. */
#define PART_ROWS 8

int32_t fkm_row_store_parts(int64_t count, int32_t clusters, int threads)
{
    int64_t most = count / (PART_ROWS * ((int64_t)clusters + 1));
    return (int32_t)fkm_max_i64(1, fkm_min_i64(most, threads));
}

/* A counting sort, in parts that are worked on side by side: each counts its positions' labels and
 * then has places of its own among those of each label. */
typedef struct sort_job {
    fkm_row_store *s;
    const fkm_label_order *by;
    int64_t count, ranks; /* ranks: no label has the last */
    int32_t parts;
    int64_t *start; /* [parts][ranks] */
    int32_t *other;
} sort_job;

static int64_t first_of(const sort_job *j, int64_t part)
{
    return j->count / j->parts * part + fkm_min_i64(part, j->count % j->parts);
}

static int64_t rank_at(const sort_job *j, int64_t p)
{
    const int32_t label = j->s->label[p];
    if (label < 0)
        return j->ranks - 1;
    return j->by->rank ? j->by->rank[label] : label;
}

static int32_t label_of(const sort_job *j, int64_t rank)
{
    if (rank == j->ranks - 1)
        return -1;
    return j->by->label ? j->by->label[rank] : (int32_t)rank;
}

static void count_part(void *arg, int64_t part, int worker)
{
    const sort_job *j = arg;
    int64_t *start = j->start + part * j->ranks;
    (void)worker;
    memset(start, 0, (size_t)j->ranks * sizeof *start);
    for (int64_t p = first_of(j, part); p < first_of(j, part + 1); p++)
        start[rank_at(j, p)]++;
}

static void place_part(void *arg, int64_t part, int worker)
{
    const sort_job *j = arg;
    int64_t *start = j->start + part * j->ranks;
    (void)worker;
    for (int64_t p = first_of(j, part); p < first_of(j, part + 1); p++)
        j->other[start[rank_at(j, p)]++] = j->s->order[p];
}

/* Counts become first places. */
static void add_up(const sort_job *j)
{
    int64_t before = 0;
    for (int64_t rank = 0; rank < j->ranks; rank++)
        for (int32_t part = 0; part < j->parts; part++) {
            int64_t n = j->start[part * j->ranks + rank];
            j->start[part * j->ranks + rank] = before;
            before += n;
        }
}

/* The last part's places are the ends of segments now. */
static void write_part(void *arg, int64_t part, int worker)
{
    const sort_job *j = arg;
    const int64_t *end = j->start + (j->parts - 1) * j->ranks;
    int64_t p = first_of(j, part), last = first_of(j, part + 1);
    (void)worker;
    memcpy(j->s->order + p, j->other + p, (size_t)(last - p) * sizeof *j->other);
    for (int64_t rank = 0; p < last; rank++)
        for (; p < last && p < end[rank]; p++)
            j->s->label[p] = label_of(j, rank);
}

static void for_parts(fkm_pool *pool, fkm_pool_fn fn, sort_job *j)
{
    if (pool)
        fkm_pool_for(pool, j->parts, fn, j);
    for (int32_t part = 0; !pool && part < j->parts; part++)
        fn(j, part, 0);
}

void fkm_row_store_sort(fkm_row_store *s, int64_t count, const fkm_label_order *by, int32_t parts,
    fkm_pool *pool, int64_t *start, int32_t *other)
{
    sort_job j = {s, by, count, (int64_t)by->clusters + 1, parts, start, other};
    for_parts(pool, count_part, &j);
    add_up(&j);
    for_parts(pool, place_part, &j);
    for_parts(pool, write_part, &j);
    s->ordered = true;
    s->strays = s->debt = 0;
    s->frame = 0;
    s->apart_order = 0;
}
