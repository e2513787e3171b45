/* What a GPU can sustain at best: copies, and products of the matrix unit from registers. */
#ifndef FKM_CEILINGS_CUH
#define FKM_CEILINGS_CUH

extern "C" {
#include "../src/backend.h"
}

/* See fkm_backend_ops.ceiling; of the first device that fkm can use. */
fkm_status fkm_cuda_ceiling(fkm_ceiling *out, int i, const fkm_ceiling_options *o, fkm_err *e);

#endif
