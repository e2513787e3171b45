/* AVX-512 VNNI kernels that screen rows of any kind rounded to 8-bit integers: four times as many
 * products as float32 has. See coarse_vnni_tmpl.h and screen.h. */
#if defined(__x86_64__)

#define COARSE_BITS 8
#include "coarse_vnni_tmpl.h"

const fkm_kernels fkm_kernels_vnni_s8 = {
    .isa = "vnniint8",
    .panel = PANEL,
    .tile = TILE,
    .item = 1,
    .dim_step = COARSE_STEP,
    .panel_more = COARSE_QUANTA,
    .rate = 112,
    .low = true,
    .named = true,
    .pack = pack,
    .pack_tile = pack_tile,
    .screen = screen,
    CALLS,
};

#else
typedef int fkm_kernels_vnni_s8_needs_x86_64;
#endif
