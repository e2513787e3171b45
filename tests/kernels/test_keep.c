/* What is kept of rows: of much data, in a share of its memory. */
#include "each_isa.h"

#include "../../src/cpu/keep.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(much_data_keeps_little),
        cmocka_unit_test(what_is_worth_most_comes_first),
        cmocka_unit_test(little_data_keeps_distances),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
