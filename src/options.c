/* Defaults, and the life of a result. */
#include "fkm.h"

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
