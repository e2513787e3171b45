/* What this CPU can sustain at best: memory and arithmetic rates that fkm's own speed is held
 * against. The loops do nothing useful, as fast as the machine goes. */
#ifndef FKM_CEILINGS_H
#define FKM_CEILINGS_H

#include "../backend.h"

/* See fkm_backend_ops.ceiling. */
fkm_status fkm_cpu_ceiling(
    fkm_ceiling *out, int i, const fkm_ceiling_options *o, fkm_err *e) FKM_MUST_USE;

/* Arithmetic of one instruction set, for one thread. */
typedef struct fkm_rate_kernel {
    double flop; /* of a round, floats or integers; a multiply-add counts two */
    /* Runs `rounds` rounds. scratch: FKM_RATE_SCRATCH bytes, 64-byte aligned, of this thread's own,
     * filled with small numbers. The result depends on all of the work. */
    float (*run)(int64_t rounds, const char *scratch);
} fkm_rate_kernel;

#define FKM_RATE_NEAR ((size_t)8 << 10)  /* of the scratch: a block that the first cache keeps */
#define FKM_RATE_FAR ((size_t)256 << 10) /* what follows: a set that the second cache keeps */
#define FKM_RATE_SCRATCH (FKM_RATE_NEAR + FKM_RATE_FAR)

extern const fkm_rate_kernel fkm_rate_avx2, fkm_rate_avx512;
extern const fkm_rate_kernel fkm_rate_amx_bare, fkm_rate_amx_loads;

/* Products of 8-bit integers. */
extern const fkm_rate_kernel fkm_rate_avx2_int8, fkm_rate_vnni;
extern const fkm_rate_kernel fkm_rate_amx_int8_bare, fkm_rate_amx_int8_loads;

#endif
