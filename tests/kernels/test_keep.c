/* What is kept of rows: of much data, in a share of its memory. */
#include "each_isa.h"

#include "../../src/base/checked.h"
#include "../../src/cpu/keep.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

static const int32_t dims[] = {1, 8, 32, 64, 100, 128, 200, 768, 1024};
static const int32_t clusters[] = {1, 50, 256, 1000, 4096, 100000};
#define COUNT(a) (sizeof(a) / sizeof *(a))

static double share_of(const fkm_keep *keep, int64_t rows, int32_t d, fkm_dtype t)
{
    const double labels_and_bounds = 12.0 * (double)rows;
    return ((double)fkm_row_store_bytes(&keep->store, rows) + labels_and_bounds) /
           ((double)rows * d * (double)fkm_dtype_size(t));
}

static void much_data_keeps_little(void **state)
{
    (void)state;
    const fkm_dtype types[] = {FKM_F32, FKM_F16, FKM_U8};
    bool usable;
    const fkm_kernels *k;
    for (int i = 0; (k = fkm_kernels_at(i, &usable)) != NULL; i++)
        for (size_t d = 0; d < COUNT(dims); d++)
            for (size_t c = 0; c < COUNT(clusters); c++)
                for (size_t t = 0; t < COUNT(types); t++) {
                    const int64_t rows = (int64_t)1 << 30;
                    const fkm_keep keep = fkm_keep_of(k, rows, clusters[c], dims[d], types[t]);
                    const double least = /* order and labels */
                        20.0 / (dims[d] * (double)fkm_dtype_size(types[t]));
                    const double share = share_of(&keep, rows, dims[d], types[t]);
                    assert_true(share <= 0.6001 || share <= least * 1.0001);
                }
}

/* Rounded copies of 128 floats are half of them: with figures of rows and distances to tiles within
 * the share; with distances to all centroids they would not be. */
static void what_is_worth_most_comes_first(void **state)
{
    (void)state;
    const fkm_kernels *k = &fkm_kernels_amx_bf16;
    const int64_t many = 10000000;
    fkm_keep keep = fkm_keep_of(k, many, 1000, 128, FKM_F32);
    assert_int_equal(keep.store.panel_bytes, fkm_panel_bytes(k, 128));
    assert_int_equal(keep.lot, k->tile);
    keep = fkm_keep_of(k, many / 100, 1000, 128, FKM_F32);
    assert_int_equal(keep.store.panel_bytes, fkm_panel_bytes(k, 128));
    assert_int_equal(keep.lot, 1);
    keep = fkm_keep_of(k, many, 1000, 768, FKM_F32);
    assert_int_equal(keep.store.panel_bytes, fkm_panel_bytes(k, 768));
    assert_int_equal(keep.lot, 1);
    assert_true(keep.heads);
    keep = fkm_keep_of(k, many, 1000, 100, FKM_F32); /* padded to 128: distances fit */
    assert_int_equal(keep.store.panel_bytes, 0);
    assert_int_equal(keep.lot, 1);
    keep = fkm_keep_of(&fkm_kernels_avx512, many, 1000, 128, FKM_F32);
    assert_int_equal(keep.store.panel_bytes, 0);
    assert_true(keep.store.lots > 0);
}

/* Of little data, distances to tiles, by every path and with room for finer kernels. */
static void little_data_keeps_distances(void **state)
{
    (void)state;
    bool usable;
    const fkm_kernels *k;
    for (int i = 0; (k = fkm_kernels_at(i, &usable)) != NULL; i++) {
        const fkm_dtype t = k->bytes ? k->takes : FKM_F32;
        const fkm_keep keep = fkm_keep_of(k, 60000, 2000, 100, t);
        assert_true(keep.lot > 0);
        assert_true(keep.store.lots >= 2000 / keep.lot);
        assert_true(!k->finer || keep.store.lots >= 2000 / k->finer->tile);
    }
}

/* Panels and distances side by side: neither reaches the other, nor what lies behind. */
static void check_place(
    fkm_row_store *s, const fkm_kernels *k, int64_t rows, size_t panel_bytes, int32_t lots)
{
    const size_t panels = (size_t)(fkm_round_up(rows, k->panel) / k->panel);
    const size_t distances = panels * (size_t)lots;
    assert_true(fkm_row_store_place(s, panel_bytes, lots));
    for (size_t i = 0; i < distances; i++)
        s->apart[i] = 1;
    memset(s->panels, 0, panels * panel_bytes);
    for (int64_t i = 0; i < rows; i++)
        s->order[i] = 7;
    for (size_t i = 0; i < distances; i++)
        assert_true(s->apart[i] == 1);
    for (size_t i = 0; i < panels * panel_bytes; i++)
        assert_int_equal(s->panels[i], 0);
}

/* 200000 x 768 floats and 4096 clusters: distances to each fit beside 8-bit panels only. */
static void distances_take_what_coarse_panels_leave(void **state)
{
    (void)state;
    const fkm_kernels *k = &fkm_kernels_amx_bf16, *coarse = fkm_kernels_coarse(k, 768);
    const int64_t rows = 100;
    const int32_t each = 4096, tiles = each / k->tile;
    assert_non_null(coarse);
    const fkm_keep keep = fkm_keep_of(k, 200000, each, 768, FKM_F32);
    assert_int_equal(keep.lot, k->tile);
    assert_true(keep.each);
    fkm_row_store s;
    fkm_err e = {0};
    assert_int_equal(fkm_row_store_open(&s, &keep.store, rows, &e), FKM_OK);
    assert_false(fkm_row_store_place(&s, fkm_panel_bytes(k, 768), each));
    check_place(&s, k, rows, fkm_panel_bytes(coarse, 768), each);
    check_place(&s, k, rows, fkm_panel_bytes(k, 768), tiles);
    check_place(&s, k, rows, 0, 4096 / k->finer->tile + 1);
    fkm_row_store_close(&s);
    assert_false(fkm_keep_of(k, 200000, 10 * each, 768, FKM_F32).each);
    assert_false(fkm_keep_of(&fkm_kernels_avx512, 200000, each, 768, FKM_F32).each);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(much_data_keeps_little),
        cmocka_unit_test(what_is_worth_most_comes_first),
        cmocka_unit_test(little_data_keeps_distances),
        cmocka_unit_test(distances_take_what_coarse_panels_leave),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
