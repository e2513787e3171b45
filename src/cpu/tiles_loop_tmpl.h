/* Template of the loop over panels and tiles. Included after apart_tmpl.h and screen_tile, which
 * scores a panel and a tile and sees what comes of it. */

/* The tiles of the rows' own centroids: the floors that they set tell which others to look at. */
static void screen_own(fkm_row_block *b, int32_t panel, const fkm_tiles *t)
{
    const int32_t *own = b->own + (int64_t)panel * FKM_OWN_TILES;
    float *apart = b->apart;
    b->apart = NULL;
    for (int i = 0; i < FKM_OWN_TILES; i++)
        if (own[i] >= 0)
            screen_tile(b, panel, t, own[i]);
    b->apart = apart;
    if (apart)
        start_panel(b, t, panel);
}

/* Those of tiles [begin, end), 64 at most, that are not its own, as bits. */
static inline uint64_t tiles_left(const int32_t *own, int32_t begin, int32_t end)
{
    uint64_t left = end - begin < 64 ? ((uint64_t)1 << (end - begin)) - 1 : UINT64_MAX;
    for (int i = 0; i < FKM_OWN_TILES; i++) {
        const uint32_t at = (uint32_t)own[i] - (uint32_t)begin;
        left &= ~((uint64_t)(at < 64) << (at & 63));
    }
    return left;
}

static void screen(
    fkm_row_block *b, int32_t panel, int32_t panels, const fkm_tiles *t, int32_t begin, int32_t end)
{
    for (int32_t p = panel; p < panel + panels; p++) {
        if (begin == 0)
            screen_own(b, p, t);
        const bool spares = b->apart_known || b->unmoved[p];
        for (int32_t first = begin; first < end; first += 64) {
            uint64_t left = tiles_left(b->own + (int64_t)p * FKM_OWN_TILES, first, end);
            for (; left; left &= left - 1) {
                const int32_t i = first + __builtin_ctzll(left);
                if (!spares || !fkm_is_apart(b, t, p, i))
                    screen_tile(b, p, t, i);
            }
        }
    }
}
