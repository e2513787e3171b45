/* Bounds that spare panels whole tiles: see apart.h for the proof. */
#include "apart.h"

#define LONGEST_PAUSE 64 /* passes */

float fkm_apart_beyond(const fkm_row_block *b, int32_t row, int32_t rows)
{
    const float left = b->beyond[row / rows], slip = b->slip[row / rows], ref = b->ref[row];
    return left - slip + ref - FKM_APART_ETA * (fabsf(left) + fabsf(slip) + ref);
}

bool fkm_apart_rests(const fkm_row_block *b, const fkm_tiles *t, int32_t panel)
{
    for (int32_t i = 0; i < t->lots; i++)
        if (b->moved_lot[i] && !(fkm_apart_left(b, t, panel, i) > b->reach[panel]))
            return false;
    return true;
}

void fkm_apart_begin(fkm_apart *a)
{
    a->spared = a->seen = 0;
    if (a->pause > 0)
        a->pause--;
    a->collect = a->possible && a->pause == 0;
}

void fkm_apart_end(fkm_apart *a)
{
    if (a->seen == 0)
        return;
    a->share = (double)a->spared / (double)a->seen;
    if (a->share >= a->least) {
        a->patience = 1;
        return;
    }
    a->pause = a->patience + 1;
    a->patience = a->patience < LONGEST_PAUSE ? 2 * a->patience : LONGEST_PAUSE;
}
