/* Products of AMX tiles, in bf16 and in 8-bit integers: bare, and with the loads that a matrix
 * product cannot do without.
 *
 * Four tiles of sums take turns, as in amx_tmpl.h: a product occupies the unit for 16 cycles and
 * is ready after 52. Bare, the operands stay in their tile registers. With loads, each step of four
 * products brings two operand tiles from the first-level cache and two from the second. Neither
 * stores anything nor looks at a result: screening has that on top. */
#if defined(__x86_64__)

#include "ceilings.h"

#include "amx_tiles_tmpl.h"

enum { PART = 16 * 64, STEP_BYTES = 2 * PART };

#define FLOP_A_STEP (4.0 * 2 * 16 * 16 * 32) /* bf16; of bytes there are twice as many */

static void begin(void)
{
    configure();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

static float finish(void)
{
    float sums[4][16][16] __attribute__((aligned(64)));
    _tile_stored(0, sums[0], 64);
    _tile_stored(1, sums[1], 64);
    _tile_stored(2, sums[2], 64);
    _tile_stored(3, sums[3], 64);
    _tile_release();
    return sums[0][0][0] + sums[1][1][1] + sums[2][2][2] + sums[3][3][3];
}

#define NAME(f) bf16_##f
#define PRODUCTS(d, a, b) _tile_dpbf16ps(d, a, b)
#include "ceilings_amx_tmpl.h"

#define NAME(f) int8_##f
#define PRODUCTS(d, a, b) _tile_dpbsud(d, a, b)
#include "ceilings_amx_tmpl.h"

const fkm_rate_kernel fkm_rate_amx_bare = {.flop = FLOP_A_STEP, .run = bf16_bare};
const fkm_rate_kernel fkm_rate_amx_loads = {.flop = FLOP_A_STEP, .run = bf16_loads};
const fkm_rate_kernel fkm_rate_amx_int8_bare = {.flop = 2 * FLOP_A_STEP, .run = int8_bare};
const fkm_rate_kernel fkm_rate_amx_int8_loads = {.flop = 2 * FLOP_A_STEP, .run = int8_loads};

#else
typedef int fkm_ceilings_amx_needs_x86_64;
#endif
