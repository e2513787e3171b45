/* The table of CPU kernels, best first; those that take some rows only before those of the same
 * instruction set that take all. */
#include "kernels.h"

#include "cpuid.h"

#include <stddef.h>

static const struct {
    const fkm_kernels *kernels;
    unsigned needs;
} table[] = {
#if defined(__x86_64__)
    {&fkm_kernels_amx_s8, FKM_CPU_AVX512 | FKM_CPU_AMX_BF16 | FKM_CPU_AMX_INT8},
    {&fkm_kernels_amx_u8, FKM_CPU_AVX512 | FKM_CPU_AMX_INT8},
    {&fkm_kernels_amx_i8, FKM_CPU_AVX512 | FKM_CPU_AMX_INT8},
    {&fkm_kernels_amx_bf16, FKM_CPU_AVX512 | FKM_CPU_AMX_BF16},
    {&fkm_kernels_vnni_s8, FKM_CPU_AVX512 | FKM_CPU_VNNI},
    {&fkm_kernels_vnni_u8, FKM_CPU_AVX512 | FKM_CPU_VNNI},
    {&fkm_kernels_vnni_i8, FKM_CPU_AVX512 | FKM_CPU_VNNI},
    {&fkm_kernels_vnni_s16, FKM_CPU_AVX512 | FKM_CPU_VNNI},
    {&fkm_kernels_avx512, FKM_CPU_AVX2 | FKM_CPU_AVX512},
    {&fkm_kernels_avx2_s8, FKM_CPU_AVX2},
    {&fkm_kernels_avx2_u8, FKM_CPU_AVX2},
    {&fkm_kernels_avx2_i8, FKM_CPU_AVX2},
    {&fkm_kernels_avx2, FKM_CPU_AVX2},
#endif
    {&fkm_kernels_scalar, 0},
};

const fkm_kernels *fkm_kernels_at(int i, bool *usable)
{
    if (i < 0 || (size_t)i >= sizeof table / sizeof table[0])
        return NULL;
    *usable = (fkm_cpu_features() & table[i].needs) == table[i].needs;
    return table[i].kernels;
}
