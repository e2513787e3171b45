/* Where rows come from: what is pinned when, and what is known of the next pass at the end of one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../src/base/mem.h"
#include "../../src/source.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { ROWS = 5000, DIMS = 12, PAGE = 4096 }; /* 60000 bytes */

static const char *const path = "source.npy";
static fkm_reader *in;

static uint8_t value(int64_t i)
{
    return (uint8_t)(i * 2654435761u >> 24);
}

static int set_up(void **state)
{
    (void)state;
    static uint8_t x[ROWS * DIMS];
    char head[128];
    fkm_err e = {0};
    memset(head, ' ', sizeof head);
    memcpy(head, "\x93NUMPY\x01\x00\x76\x00", 10);
    int n = snprintf(
        head + 10, 117, "{'descr': '|u1', 'fortran_order': False, 'shape': (%d, %d)}", ROWS, DIMS);
    head[10 + n] = ' ';
    head[127] = '\n';
    for (int64_t i = 0; i < ROWS * DIMS; i++)
        x[i] = value(i);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(head, 1, sizeof head, f) != sizeof head ||
        fwrite(x, 1, sizeof x, f) != sizeof x || fclose(f) != 0)
        return -1;
    const char *paths = path;
    fkm_reader_spec spec = {.paths = &paths, .path_count = 1, .row_end = -1};
    return fkm_reader_open(&in, &spec, &e) == FKM_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    fkm_reader_close(in);
    return unlink(path);
}

static void check_rows(const fkm_rows *r)
{
    const uint8_t *x = r->x;
    for (int64_t i = 0; i < r->count * DIMS; i++)
        if (x[i] != value(r->row0 * DIMS + i))
            fail_msg("row %lld differs", (long long)(r->row0 + i / DIMS));
}

/* ---- a backend of which only pinning matters ---- */

static struct {
    char *from, *to;
} pinned[64];
static int pins, unpins, most_pins;

static bool pin(void *p, size_t bytes)
{
    if (pins == most_pins)
        return false;
    pinned[pins].from = p;
    pinned[pins++].to = (char *)p + bytes;
    return true;
}

static void unpin(void *p)
{
    assert_ptr_equal(p, pinned[unpins++].from);
}

static bool streams(const fkm_backend *b)
{
    return b != NULL;
}

static const fkm_backend_ops ops = {.pin = pin, .unpin = unpin, .streams = streams};
static char someone;
static const fkm_backend *const streaming = (const fkm_backend *)(const void *)&someone;

/* ---- tests ---- */

/* Slices are disjoint, of whole pages and of whole chunks, and pinned when a chunk of theirs is
 * asked for; the first that cannot be pinned is the last that is tried. */
static void check_pins(int64_t chunk_rows, int most)
{
    fkm_err e = {0};
    fkm_source *s;
    fkm_rows r;
    const fkm_run_plan plan = {.resident = true, .chunk_rows = chunk_rows};
    pins = unpins = 0;
    most_pins = most;
    assert_int_equal(fkm_source_open(&s, in, &plan, NULL, &e), FKM_OK);
    fkm_source_pin(s, &ops, streaming);
    assert_int_equal(fkm_source_start(s, 0, false, NULL, NULL, &e), FKM_OK);
    assert_int_equal(pins, 0);
    assert_false(fkm_source_ahead(s, 0, &r)); /* rows that stay are known */
    for (int pass = 0; pass < 2; pass++)
        for (;;) {
            assert_int_equal(fkm_source_next(s, &r, &e), FKM_OK);
            if (r.count == 0)
                break;
            check_rows(&r);
            const char *from = r.x, *to = from + r.count * DIMS;
            bool inside = false;
            for (int i = 0; i < pins; i++)
                inside = inside || (pinned[i].from <= from && to <= pinned[i].to);
            assert_true(inside || pins == most);
            assert_true(pass > 0 || pins == most || pinned[pins - 1].to >= to);
            assert_true(pass > 0 || pins == 0 || pinned[pins - 1].from <= from);
        }
    for (int i = 0; i < pins; i++) {
        assert_int_equal((uintptr_t)pinned[i].from % PAGE, 0);
        assert_true(i == 0 || pinned[i].from == pinned[i - 1].to);
    }
    if (pins < most)
        assert_int_equal(pinned[pins - 1].to - pinned[0].from, ROWS * DIMS);
    fkm_source_close(s);
    assert_int_equal(unpins, pins);
}

static void test_pins(void **state)
{
    (void)state;
    check_pins(ROWS, 64);
    check_pins(1024, 64); /* three pages */
    assert_int_equal(pins, 5);
    check_pins(512, 64); /* a page and a half */
    assert_int_equal(pins, 5);
    check_pins(320, 64); /* 16 chunks of 15/16 of a page would be more than there is */
    assert_int_equal(pins, 1);
    check_pins(7, 64);
    assert_int_equal(pins, 1);
    check_pins(1024, 2);
    check_pins(1024, 0);
}

/* Chunks of the next pass, as far as the ring holds them, in their order; they stay where they are
 * until it is their turn. */
static void test_ahead(void **state)
{
    (void)state;
    fkm_err e = {0};
    fkm_source *s;
    fkm_rows r, known[3];
    const fkm_run_plan plan = {.chunk_rows = 1000, .ring_chunks = 3};
    assert_int_equal(fkm_source_open(&s, in, &plan, NULL, &e), FKM_OK);
    assert_int_equal(fkm_source_start(s, 0, false, NULL, NULL, &e), FKM_OK);
    for (int pass = 0; pass < 4; pass++) {
        for (int64_t c = 0; c <= 5; c++) {
            assert_int_equal(fkm_source_next(s, &r, &e), FKM_OK);
            assert_int_equal(r.count, c < 5 ? 1000 : 0);
            if (c == 5)
                break;
            check_rows(&r);
            assert_false(fkm_source_ahead(s, 0, &known[0])); /* of a pass that has begun */
            if (pass > 0 && c == 0)
                assert_ptr_equal(r.x, known[0].x);
            if (pass == 3 && c == 0)
                fkm_source_last_pass(s);
        }
        for (int64_t i = 0; i < 3 && pass < 3; i++) {
            while (!fkm_source_ahead(s, i, &known[i]))
                sched_yield(); /* it is being read */
            assert_int_equal(known[i].row0, 1000 * i);
            check_rows(&known[i]);
        }
        assert_false(fkm_source_ahead(s, 3, &r));
        assert_true(pass < 3 || !fkm_source_ahead(s, 0, &r));
    }
    fkm_source_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pins),
        cmocka_unit_test(test_ahead),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
