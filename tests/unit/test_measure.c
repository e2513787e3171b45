/* The parts of fkm bench that do not depend on a clock. */
#include "../../src/cpu/backend_cpu.h"
#include "../../src/measure.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_spread(void **state)
{
    (void)state;
    const double five[] = {3, 1, 100, 2, 4}, four[] = {4, 1, 3, 2}, one[] = {7};
    fkm_spread s = fkm_spread_of(five, 5);
    assert_true(s.median == 3 && s.low == 1 && s.high == 100);
    s = fkm_spread_of(four, 4);
    assert_true(s.median == 2.5 && s.low == 1 && s.high == 4);
    s = fkm_spread_of(one, 1);
    assert_true(s.median == 7 && s.low == 7 && s.high == 7);
    assert_true(five[0] == 3); /* samples keep their order */
}

static void test_blobs(void **state)
{
    (void)state;
    enum { ROWS = 4000, DIMS = 16, BLOBS = 3 };
    static float x[ROWS * DIMS], again[ROWS * DIMS];
    static uint8_t bytes[ROWS * DIMS];
    double sum = 0, squares = 0;
    const fkm_bench_shape shape = {ROWS, DIMS, BLOBS, FKM_F32, false, 1};
    fkm_make_blobs(x, &shape, 0, ROWS, 5);
    fkm_make_blobs(again, &shape, 0, 7, 5);
    fkm_make_blobs(again + 7 * DIMS, &shape, 7, ROWS - 7, 5);
    assert_memory_equal(x, again, sizeof x);
    fkm_make_blobs(again, &shape, 0, ROWS, 6);
    assert_memory_not_equal(x, again, sizeof x);
    for (int i = 0; i < ROWS; i++) { /* of one coordinate: its centre's variance is small here */
        sum += (double)x[i * DIMS];
        squares += (double)x[i * DIMS] * (double)x[i * DIMS];
    }
    double variance = squares / ROWS - sum / ROWS * sum / ROWS;
    assert_true(variance > 0.9 && variance < 5);
    const fkm_bench_shape of_bytes = {ROWS, DIMS, BLOBS, FKM_U8, false, 1};
    fkm_make_blobs(bytes, &of_bytes, 0, ROWS, 5);
    int outside = 0;
    for (int i = 0; i < ROWS * DIMS; i++) {
        float expected = 128 + 30 * x[i];
        outside += expected < 0 || expected >= 256;
        if (expected >= 0 && expected < 256)
            assert_int_equal(bytes[i], (int)expected);
    }
    assert_true(outside < ROWS * DIMS / 20);
}

/* Rows on a line, at 0, 1, 2 ...; centroids at 0, 10, 20, 10. */
static void test_wrong_label(void **state)
{
    (void)state;
    enum { ROWS = 21 };
    float x[ROWS];
    double row;
    int32_t labels[ROWS], nearest;
    const float c[] = {0, 10, 20, 10};
    const fkm_bench_shape shape = {ROWS, 1, 4, FKM_F32, false, 1};
    for (int i = 0; i < ROWS; i++) {
        x[i] = (float)i;
        labels[i] = i <= 5 ? 0 : i <= 15 ? 1 : 2; /* ties at 5, 15 and between 1 and 3: the lower */
    }
    assert_int_equal(fkm_find_wrong_label(&nearest, &shape, x, c, labels, ROWS, &row), -1);
    const int wrong[][3] = {{5, 1, 0}, {10, 3, 1}, {20, 1, 2}, {0, -1, 0}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        int32_t right = labels[wrong[i][0]];
        labels[wrong[i][0]] = wrong[i][1];
        assert_int_equal(
            fkm_find_wrong_label(&nearest, &shape, x, c, labels, ROWS, &row), wrong[i][0]);
        assert_int_equal(nearest, wrong[i][2]);
        labels[wrong[i][0]] = right;
    }
    const uint8_t bytes[] = {0, 255, 100};
    const fkm_bench_shape small = {3, 1, 2, FKM_U8, false, 1};
    const float far[] = {0, 200};
    int32_t own[] = {0, 1, 0}; /* a tie */
    assert_int_equal(fkm_find_wrong_label(&nearest, &small, bytes, far, own, 3, &row), -1);
    own[1] = 0;
    assert_int_equal(fkm_find_wrong_label(&nearest, &small, bytes, far, own, 3, &row), 1);
}

/* ---- a shape is fed to its backend as a fit feeds it: the CPU's, overheard ---- */

enum { CHUNK = 100, HEARD_ROWS = 250 };
static struct {
    int passes, squares, resets, scales, wrong;
    bool fresh; /* labels are -1: a scale was set, and no pass since */
    bool fetched;
    const void *pinned;
    size_t pinned_bytes;
} heard;

static void hear_reset(fkm_backend *b)
{
    heard.resets++;
    fkm_backend_cpu.reset(b);
}

static fkm_status hear_scale(fkm_backend *b, fkm_scale s, fkm_err *e)
{
    heard.scales++;
    heard.fresh = true;
    return fkm_backend_cpu.set_scale(b, s, e);
}

static fkm_status hear_begin(fkm_backend *b, const fkm_pass_options *o, fkm_err *e)
{
    heard.passes++;
    heard.squares += o->squares;
    heard.wrong += !o->update || !o->labels_later || o->unlabelled != heard.fresh;
    heard.fresh = false;
    return fkm_backend_cpu.begin(b, o, e);
}

static fkm_status hear_feed(
    fkm_backend *b, const fkm_rows *r, int32_t *labels, double *distances, fkm_err *e)
{
    const int64_t left = HEARD_ROWS - r->row0;
    heard.wrong += r->row0 % CHUNK != 0 || r->count != (left < CHUNK ? left : CHUNK) || distances ||
                   (r->row0 == 0 && heard.pinned && r->x != heard.pinned);
    return fkm_backend_cpu.feed(b, r, labels, distances, e);
}

static fkm_status hear_labels(fkm_backend *b, int32_t *labels, fkm_err *e)
{
    heard.fetched = true;
    return fkm_backend_cpu.labels(b, labels, e);
}

static bool hear_pin(void *p, size_t bytes)
{
    heard.pinned = p;
    heard.pinned_bytes = bytes;
    return true;
}

static void hear_unpin(void *p)
{
    heard.wrong += p != heard.pinned;
    heard.pinned = NULL;
}

static bool does_stream(const fkm_backend *b)
{
    (void)b;
    return true;
}

static void test_feeding(void **state)
{
    (void)state;
    fkm_backend_ops ops = fkm_backend_cpu;
    ops.reset = hear_reset;
    ops.set_scale = hear_scale;
    ops.begin = hear_begin;
    ops.feed = hear_feed;
    ops.labels = hear_labels;
    ops.pin = hear_pin;
    ops.unpin = hear_unpin;
    ops.chunk_rows = CHUNK;
    const fkm_measure m = {.ops = &ops, .threads = 1, .memory_bytes = 1 << 28};
    const fkm_bench_shape shape = {HEARD_ROWS, 5, 7, FKM_F32, false, 1};
    for (int streams = 0; streams < 2; streams++) {
        fkm_speed speed;
        fkm_err e = {0};
        memset(&heard, 0, sizeof heard);
        ops.streams = streams ? does_stream : fkm_backend_cpu.streams;
        assert_int_equal(fkm_measure_shape(&speed, &m, &shape, &e), FKM_OK);
        assert_int_equal(heard.wrong, 0);
        assert_true(heard.fetched && speed.checked_rows == 64);
        /* squares follow from rows and scale alone: once a start, never in the cold passes */
        assert_int_equal(heard.squares, heard.resets);
        assert_true(heard.scales > heard.resets && heard.passes > heard.scales);
        assert_int_equal(heard.pinned_bytes, streams ? HEARD_ROWS * 5 * sizeof(float) : 0);
        assert_null(heard.pinned);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spread),
        cmocka_unit_test(test_blobs),
        cmocka_unit_test(test_wrong_label),
        cmocka_unit_test(test_feeding),
    };
    return cmocka_run_group_tests_name("measure", tests, NULL, NULL);
}
