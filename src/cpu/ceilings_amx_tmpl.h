/* Template of the loops of ceilings_amx.c for one type of element: NAME(f) is their name,
 * PRODUCTS(d, a, b) the tile instruction. */
static float NAME(bare)(int64_t rounds, const char *scratch)
{
    begin();
    _tile_loadd(4, scratch, 64);
    _tile_loadd(5, scratch + PART, 64);
    _tile_loadd(6, scratch + 2 * PART, 64);
    _tile_loadd(7, scratch + 3 * PART, 64);
    for (int64_t r = 0; r < rounds; r++) {
        PRODUCTS(0, 4, 6);
        PRODUCTS(1, 4, 7);
        PRODUCTS(2, 5, 6);
        PRODUCTS(3, 5, 7);
    }
    return finish();
}

static float NAME(loads)(int64_t rounds, const char *scratch)
{
    const char *far = scratch + FKM_RATE_NEAR;
    size_t near_at = 0, far_at = 0;
    begin();
    for (int64_t r = 0; r < rounds; r++) {
        _tile_loadd(4, far + far_at, 64);
        _tile_loadd(6, scratch + near_at, 64);
        PRODUCTS(0, 4, 6);
        _tile_loadd(7, scratch + near_at + PART, 64);
        PRODUCTS(1, 4, 7);
        _tile_loadd(5, far + far_at + PART, 64);
        PRODUCTS(2, 5, 6);
        PRODUCTS(3, 5, 7);
        near_at = (near_at + STEP_BYTES) % FKM_RATE_NEAR;
        far_at = (far_at + STEP_BYTES) % FKM_RATE_FAR;
    }
    return finish();
}

#undef NAME
#undef PRODUCTS
