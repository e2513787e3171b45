/* Drawing rows in proportion to masses: see mass.h. */
#include "mass.h"

#include "base/checked.h"
#include "base/mem.h"

#include <string.h>

static int64_t blocks_of(int64_t count)
{
    return (count + FKM_MASS_BLOCK - 1) / FKM_MASS_BLOCK;
}

int64_t fkm_mass_bytes(int64_t count)
{
    return blocks_of(count) * (int64_t)sizeof(double);
}

fkm_status fkm_mass_open(
    fkm_mass *m, const double *distance, const int64_t *weight, int64_t count, fkm_err *e)
{
    *m = (fkm_mass){distance, weight, count, blocks_of(count), NULL};
    return fkm_alloc(&m->up_to, m->blocks, sizeof *m->up_to, "sums of masses", e);
}

void fkm_mass_close(fkm_mass *m)
{
    fkm_free(m->up_to);
    memset(m, 0, sizeof *m);
}

static double mass_of(const fkm_mass *m, int64_t i)
{
    double d = m->distance ? m->distance[i] : 1;
    return m->weight ? d * (double)m->weight[i] : d;
}

double fkm_mass_sum(fkm_mass *m)
{
    double total = 0;
    for (int64_t b = 0; b < m->blocks; b++) {
        int64_t end = fkm_min_i64(m->count, (b + 1) * FKM_MASS_BLOCK);
        double sum = 0;
        for (int64_t i = b * FKM_MASS_BLOCK; i < end; i++)
            sum += mass_of(m, i);
        m->up_to[b] = total += sum;
    }
    return total;
}

/* The first block whose sum so far is above `goal`; should rounding leave none, the last that has
 * mass. */
static int64_t find_block(const fkm_mass *m, double goal)
{
    int64_t low = 0, high = m->blocks;
    double most = m->up_to[m->blocks - 1];
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (m->up_to[middle] > goal || m->up_to[middle] == most)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

int64_t fkm_mass_find(const fkm_mass *m, double u)
{
    double goal = u * m->up_to[m->blocks - 1];
    int64_t b = find_block(m, goal), found = -1;
    double sum = 0;
    goal -= b > 0 ? m->up_to[b - 1] : 0;
    int64_t end = fkm_min_i64(m->count, (b + 1) * FKM_MASS_BLOCK);
    for (int64_t i = b * FKM_MASS_BLOCK; i < end; i++) {
        double mass = mass_of(m, i);
        if (mass == 0)
            continue;
        found = i;
        sum += mass;
        if (sum > goal)
            break;
    }
    return found;
}
