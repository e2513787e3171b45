/* AVX-512 VNNI kernels for rows of any kind, rounded to 16-bit integers: twice as many products as
 * float32 has, and nearly its digits. See coarse_vnni_tmpl.h and screen.h. */
#if defined(__x86_64__)

#define COARSE_BITS 16
#include "coarse_vnni_tmpl.h"

const fkm_kernels fkm_kernels_vnni_s16 = {
    .isa = "avx512vnni",
    .panel = PANEL,
    .tile = TILE,
    .item = 2,
    .dim_step = COARSE_STEP,
    .panel_more = COARSE_QUANTA,
    .rate = 56,
    .low = true,
    .coarse = &fkm_kernels_vnni_s8,
    .finer = &fkm_kernels_avx512,
    .pack = pack,
    .pack_tile = pack_tile,
    .screen = screen,
    CALLS,
};

#else
typedef int fkm_kernels_vnni_s16_needs_x86_64;
#endif
