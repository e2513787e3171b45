/* Centroids picked for a panel: see picks.h. */
#include "picks.h"

#include "../base/checked.h"
#include "../base/mem.h"

#include <assert.h>
#include <string.h>

int64_t fkm_picks_bytes(const fkm_kernels *k, int32_t rows, int32_t clusters, int32_t dims)
{
    if (!k->picks)
        return 0;
    const int64_t flat = FKM_PICK_TILES * 4 * (int64_t)sizeof(int32_t) * k->tile;
    const int64_t lists = 4 * (3 * (int64_t)rows + fkm_round_up(clusters, k->tile));
    return FKM_PICK_TILES * (int64_t)fkm_tile_bytes(k, dims) + flat + lists +
           (int64_t)sizeof(fkm_picks);
}

fkm_status fkm_picks_open(
    fkm_picks **out, const fkm_kernels *k, int32_t rows, int32_t clusters, int32_t dims, fkm_err *e)
{
    static const char what[] = "picked centroids";
    fkm_status st = FKM_OK;
    fkm_picks *p = NULL;
    *out = NULL;
    if (!k->picks)
        return FKM_OK;
    const int64_t places = FKM_PICK_TILES * (int64_t)k->tile;
    FKM_TRY(fkm_calloc(&p, 1, sizeof *p, what, e));
    FKM_GO(fkm_calloc(&p->packed, FKM_PICK_TILES, fkm_tile_bytes(k, dims), what, e));
    FKM_GO(fkm_calloc(&p->half, places, sizeof(float), what, e));
    FKM_GO(fkm_calloc(&p->centroid_quantum, places, sizeof(float), what, e));
    FKM_GO(fkm_calloc(&p->start, places, sizeof(int32_t), what, e));
    FKM_GO(fkm_calloc(&p->real, places, sizeof(int32_t), what, e));
    FKM_GO(fkm_alloc(&p->tile, rows, sizeof(int32_t), what, e));
    FKM_GO(fkm_alloc(&p->slot, rows, sizeof(int32_t), what, e));
    FKM_GO(fkm_calloc(&p->whole, rows / k->panel, sizeof(bool), what, e));
    FKM_GO(fkm_alloc(&p->near, fkm_round_up(clusters, k->tile), sizeof(int32_t), what, e));
    *out = p;
    return FKM_OK;
out:
    fkm_picks_close(p);
    return st;
}

void fkm_picks_close(fkm_picks *p)
{
    if (!p)
        return;
    fkm_free(p->packed);
    fkm_free(p->half);
    fkm_free(p->centroid_quantum);
    fkm_free(p->start);
    fkm_free(p->real);
    fkm_free(p->tile);
    fkm_free(p->slot);
    fkm_free(p->near);
    fkm_free(p->whole);
    fkm_free(p);
}

fkm_tiles fkm_picked_tiles(fkm_picks *p, const fkm_tiles *t)
{
    fkm_tiles picked = *t;
    assert(t->unit[0] == t->unit[t->count - 1]);
    for (int32_t i = 0; i < FKM_PICK_TILES; i++)
        p->unit[i] = t->unit[0];
    picked.count = FKM_PICK_TILES;
    picked.packed = p->packed;
    picked.half = p->half;
    picked.centroid_quantum = p->centroid_quantum;
    picked.start = p->start;
    picked.real = p->real;
    picked.unit = p->unit;
    picked.tile_slope = p->slope;
    picked.tile_residual = p->residual;
    picked.tile_offset = p->offset;
    picked.tile_tail = p->tail;
    return picked;
}

int32_t fkm_pick_own(fkm_picks *p, int32_t i, const fkm_row_block *b, const fkm_tiles *t,
    int32_t panel, int32_t *positions)
{
    const int32_t rows = t->kernels->panel;
    int32_t n = 0;
    for (int32_t r = panel * rows; r < (panel + 1) * rows; r++) {
        const int32_t at = b->old_tile[r] * t->tile + b->old_slot[r];
        p->tile[r] = p->slot[r] = -1;
        if (b->old_tile[r] < 0)
            continue;
        int32_t j = n - 1; /* mostly the same as that of the row before */
        while (j >= 0 && positions[j] != at)
            j--;
        if (j < 0) {
            j = n++;
            positions[j] = at;
        }
        p->tile[r] = i;
        p->slot[r] = j;
    }
    return n;
}

void fkm_mark_own(fkm_row_block *b, const fkm_tiles *t, int32_t panel, float apart)
{
    const int32_t rows = t->kernels->panel;
    float *to = b->apart + (int64_t)panel * t->lots;
    for (int32_t r = panel * rows, last = -1; r < (panel + 1) * rows; r++) {
        const int32_t at = b->old_tile[r] * t->tile + b->old_slot[r];
        if (at == last || b->old_tile[r] < 0)
            continue;
        to[at] = apart;
        last = at;
    }
}
