/* The CPU backend: threads, kernels by instruction set, everything in host memory. */
#ifndef FKM_BACKEND_CPU_H
#define FKM_BACKEND_CPU_H

#include "../backend.h"

extern const fkm_backend_ops fkm_backend_cpu;

/* The i-th name that plan.isa takes, best first, what is only taken by name last; NULL at
 * the end. *usable: this CPU can run it. */
const char *fkm_backend_cpu_isa(int i, bool *usable);

#endif
