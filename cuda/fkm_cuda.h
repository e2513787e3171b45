/* The GPU backend for src/backend.c: all that is seen of cuda/ from outside. */
#ifndef FKM_CUDA_H
#define FKM_CUDA_H

#ifdef __cplusplus
extern "C" {
#endif

#include "../src/backend.h"

extern const fkm_backend_ops fkm_backend_cuda;

/* The i-th element type of screening, for --isa; NULL at the end. */
const char *fkm_backend_cuda_isa(int i);

#ifdef __cplusplus
}
#endif

#endif
