/* What others may ask of the engine beside fkm_fit (fkm.h): the plan that a fit follows. */
#ifndef FKM_ENGINE_H
#define FKM_ENGINE_H

#include "backend.h"
#include "fkm.h"

/* Checks the options against the data and plans the run. The backend's plan has no room for 128-bit
 * sums yet, the bytes count it. Statuses as fkm_fit. */
fkm_status fkm_fit_plan(fkm_run_plan *run, fkm_plan *backend, const fkm_backend_ops **ops,
    const fkm_fit_options *o, const fkm_reader *in, fkm_err *e) FKM_MUST_USE;

#endif
