/* Defaults, and the life of a result. */
#include "fkm.h"

#include "base/checked.h"
#include "base/mem.h"
#include "checksums.h"

#include <string.h>

void fkm_fit_options_default(fkm_fit_options *o)
{
    memset(o, 0, sizeof *o);
    o->max_iter = 100;
    o->tol = 1e-4;
    o->restarts = 1;
    o->empty = FKM_EMPTY_FARTHEST;
}

int64_t fkm_problems_listed(const fkm_fit_options *o, int64_t batch)
{
    const int64_t most = 1 << 18; /* 16 MiB of them, 50 MB as text */
    return fkm_min_i64(batch, most / fkm_min_i64(o->max_iter, FKM_USUAL_ITERATIONS));
}

void fkm_result_free(fkm_result *r)
{
    fkm_free(r->centroids);
    fkm_free(r->labels);
    fkm_free(r->counts);
    fkm_free(r->problems);
    fkm_free(r->restarts);
    fkm_free(r->iterations);
    fkm_free(r->key);
    if (r->checksums)
        fkm_checksums_close(r->checksums);
    fkm_free(r->checksums);
    memset(r, 0, sizeof *r);
}
