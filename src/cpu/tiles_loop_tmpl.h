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

static void screen(
    fkm_row_block *b, int32_t panel, int32_t panels, const fkm_tiles *t, int32_t begin, int32_t end)
{
    for (int32_t p = panel; p < panel + panels; p++) {
        if (begin == 0)
            screen_own(b, p, t);
        for (int32_t i = begin; i < end; i++)
            if (!fkm_is_own(b->own + (int64_t)p * FKM_OWN_TILES, i) && !fkm_is_apart(b, t, p, i))
                screen_tile(b, p, t, i);
    }
}
