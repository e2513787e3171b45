/* What this CPU can run: see cpuid.h. */
#include "cpuid.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* State components that the operating system saves on a context switch. */
static uint64_t saved_state(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static bool has(uint32_t word, int bit)
{
    return word >> bit & 1;
}

/* Tile registers are large, so Linux wants to be asked, once a process, before they are used. */
static bool tiles_granted(uint64_t saved)
{
    const long request_permission = 0x1023, tile_data = 18;
    if ((saved & 0x60000) != 0x60000)
        return false;
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

unsigned fkm_cpu_features(void)
{
    unsigned a, b, c1, d, b7, c7, d7;
    if (!__get_cpuid(1, &a, &b, &c1, &d) || !has(c1, 27)) /* 27: OSXSAVE, so xgetbv exists */
        return 0;
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d7))
        return 0;
    uint64_t saved = saved_state();
    unsigned features = 0;
    bool ymm = (saved & 0x6) == 0x6, zmm = (saved & 0xe6) == 0xe6;
    if (ymm && has(c1, 28) && has(c1, 12) && has(c1, 29) && has(b7, 5))
        features |= FKM_CPU_AVX2;
    if ((features & FKM_CPU_AVX2) && zmm && has(b7, 16) && has(b7, 17) && has(b7, 30) &&
        has(b7, 31))
        features |= FKM_CPU_AVX512;
    if ((features & FKM_CPU_AVX512) && has(c7, 11))
        features |= FKM_CPU_VNNI;
    if ((features & FKM_CPU_AVX512) && has(d7, 24) && has(d7, 25) && tiles_granted(saved))
        features |= FKM_CPU_AMX_INT8;
    unsigned a71, b71, c71, d71;
    if (!(features & FKM_CPU_AVX512) || !__get_cpuid_count(7, 1, &a71, &b71, &c71, &d71))
        return features;
    if (has(a71, 5) && has(d7, 22) && has(d7, 24) && tiles_granted(saved))
        features |= FKM_CPU_AMX_BF16;
    return features;
}

#else

unsigned fkm_cpu_features(void)
{
    return 0;
}

#endif
