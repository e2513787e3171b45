/* Template of a table of byte kernels, after pack_tile and screen of an instruction set: BIAS,
 * NAME(f), TABLE, ISA and TAKES tell unsigned and signed rows apart. All else is AVX-512's. */
static void NAME(pack)(void *panel, float *square, float *residual, const float *const *x,
    int32_t rows, int32_t dims, const float *shift, float scale)
{
    pack_bytes(panel, square, residual, x, rows, dims, shift, scale, BIAS);
}

static void NAME(pack_tile)(fkm_tiles *t, int64_t first, const float *c)
{
    pack_tile(t, first, c, BIAS);
}

static void NAME(widen)(float *out, const void *x, fkm_dtype t, int64_t n)
{
    fkm_kernels_avx512.widen(out, x, t, n);
}

static float NAME(dot)(
    const float *x, const float *shift, float scale, const float *c, int32_t dims)
{
    return fkm_kernels_avx512.dot(x, shift, scale, c, dims);
}

static double NAME(canonical)(const float *x, const float *c, int32_t dims)
{
    return fkm_kernels_avx512.canonical(x, c, dims);
}

static void NAME(add_row)(int64_t *sum, const float *x, int32_t dims, double scale)
{
    fkm_kernels_avx512.add_row(sum, x, dims, scale);
}

static void NAME(mean_row)(
    float *mean, const int64_t *sum, int32_t dims, double count, double scale)
{
    fkm_kernels_avx512.mean_row(mean, sum, dims, count, scale);
}

static void NAME(add_squares)(
    int64_t sum[2], const float *x, int32_t dims, double scale, double split)
{
    fkm_kernels_avx512.add_squares(sum, x, dims, scale, split);
}

const fkm_kernels TABLE = {
    .isa = ISA,
    .panel = PANEL,
    .tile = TILE,
    .item = 1,
    .dim_step = BYTES_STEP,
    .low = true,
    .bytes = true,
    .takes = TAKES,
    .widen = NAME(widen),
    .pack = NAME(pack),
    .pack_tile = NAME(pack_tile),
    .screen = screen,
    .dot = NAME(dot),
    .canonical = NAME(canonical),
    .add_row = NAME(add_row),
    .mean_row = NAME(mean_row),
    .add_squares = NAME(add_squares),
};

#undef BIAS
#undef NAME
#undef TABLE
#undef ISA
#undef TAKES
