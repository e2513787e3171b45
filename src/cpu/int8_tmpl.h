/* Template of a table of byte kernels, after pack_bytes, pack_tile and screen of an instruction
 * set: BIAS, NAME(f), TABLE, ISA and TAKES tell unsigned and signed rows apart, QUANTA is the
 * table's most_quanta, RATE its rate. All else is that of BASE (calls_tmpl.h). */
static void NAME(pack)(void *panel, float *square, float *residual, const void *const *x,
    int32_t rows, int32_t dims, const float *shift, float scale, const void *const *ahead,
    const uint16_t *kept)
{
    pack_bytes(panel, square, residual, x, rows, dims, shift, scale, BIAS, ahead, kept);
}

static void NAME(pack_tile)(fkm_tiles *t, int64_t first, const float *c)
{
    pack_tile(t, first, c, BIAS);
}

const fkm_kernels TABLE = {
    .isa = ISA,
    .panel = PANEL,
    .tile = TILE,
    .item = 1,
    .dim_step = BYTES_STEP,
    .rate = RATE,
    .low = true,
    .picks = PICKS,
    .bytes = true,
    .takes = TAKES,
    .most_quanta = QUANTA,
    .finer = &BASE,
    .pack = NAME(pack),
    .pack_tile = NAME(pack_tile),
    .screen = screen,
    CALLS,
};

#undef BIAS
#undef NAME
#undef TABLE
#undef ISA
#undef TAKES
