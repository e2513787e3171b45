/* What this CPU can run: instruction sets that the processor has and the kernel saves. */
#ifndef FKM_CPUID_H
#define FKM_CPUID_H

enum {
    FKM_CPU_AVX2 = 1,     /* AVX2, FMA, F16C */
    FKM_CPU_AVX512 = 2,   /* AVX-512 F, DQ, BW, VL and the above */
    FKM_CPU_VNNI = 4,     /* AVX-512 VNNI and the above */
    FKM_CPU_AMX_INT8 = 8, /* AMX tiles with int8, granted by the kernel, and AVX-512 */
    FKM_CPU_AMX_BF16 = 16 /* AMX tiles with bf16, AVX-512 BF16, granted, and AVX-512 */
};

/* A mask of the above. Any thread. */
unsigned fkm_cpu_features(void);

#endif
