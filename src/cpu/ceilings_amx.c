/* Products of AMX tiles in bf16: bare, and with the loads that a matrix product cannot do without.
 *
 * Four tiles of sums take turns, as in amx_tmpl.h: a product occupies the unit for 16 cycles and
 * is ready after 52. Bare, the operands stay in their tile registers. With loads, each step of four
 * products brings two operand tiles from the first-level cache and two from the second. Neither
 * stores anything nor looks at a result: screening has that on top. */
#if defined(__x86_64__)

#include "ceilings.h"

#include "amx_tiles_tmpl.h"

enum { PART = 16 * 64, STEP_BYTES = 2 * PART };

#define FLOP_A_STEP (4.0 * 2 * 16 * 16 * 32)

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

static float run_bare(int64_t rounds, const char *scratch)
{
    begin();
    _tile_loadd(4, scratch, 64);
    _tile_loadd(5, scratch + PART, 64);
    _tile_loadd(6, scratch + 2 * PART, 64);
    _tile_loadd(7, scratch + 3 * PART, 64);
    for (int64_t r = 0; r < rounds; r++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    return finish();
}

static float run_loads(int64_t rounds, const char *scratch)
{
    const char *far = scratch + FKM_RATE_NEAR;
    size_t near_at = 0, far_at = 0;
    begin();
    for (int64_t r = 0; r < rounds; r++) {
        _tile_loadd(4, far + far_at, 64);
        _tile_loadd(6, scratch + near_at, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, scratch + near_at + PART, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, far + far_at + PART, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        near_at = (near_at + STEP_BYTES) % FKM_RATE_NEAR;
        far_at = (far_at + STEP_BYTES) % FKM_RATE_FAR;
    }
    return finish();
}

const fkm_rate_kernel fkm_rate_amx_bare = {.flop = FLOP_A_STEP, .run = run_bare};
const fkm_rate_kernel fkm_rate_amx_loads = {.flop = FLOP_A_STEP, .run = run_loads};

#else
typedef int fkm_ceilings_amx_needs_x86_64;
#endif
