/* What this CPU can run: instruction sets that the processor has and the kernel saves. */
#ifndef FKM_CPUID_H
#define FKM_CPUID_H

enum {
    FKM_CPU_AVX2 = 1,   /* AVX2, FMA, F16C */
    FKM_CPU_AVX512 = 2, /* AVX-512 F, DQ, BW, VL and the above */
    FKM_CPU_AMX_BF16 =
        4, /* AMX tiles with bf16, AVX-512 BF16, granted by the kernel, and the above */
};

/* A mask of the above. Any thread. */
unsigned fkm_cpu_features(void);

#endif
