/* Every CPU path against the definition, on nasty shapes, with guards round the outputs. */
#include "each_isa.h"

#include "../short_form.h"

#include "../../src/base/mem.h"
#include "../../src/cpu/assign.h"
#include "../../src/cpu/head.h"
#include "../../src/cpu/pack.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#define GUARD 64
#define GUARD_BYTE 0xa5

/* An array with guard bytes on both sides; 64-byte aligned. */
static void *guarded(size_t bytes)
{
    size_t padded = (bytes + 63) / 64 * 64;
    char *p = aligned_alloc(64, padded + 2 * GUARD);
    assert_non_null(p);
    memset(p, GUARD_BYTE, padded + 2 * GUARD);
    return p + GUARD;
}

static void release(void *p, size_t bytes)
{
    const unsigned char *q = p;
    for (size_t i = 0; i < GUARD; i++) {
        assert_int_equal(q[-1 - (ptrdiff_t)i], GUARD_BYTE);
        assert_int_equal(q[bytes + i], GUARD_BYTE);
    }
    free((char *)p - GUARD);
}

static const int32_t some_dims[] = {
    1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 511, 512, 513, 1025};
#define SOME_DIMS (int)(sizeof some_dims / sizeof some_dims[0])

static void fill(float *x, int64_t n, uint64_t seed)
{
    uint64_t state = seed * 2654435761u + 1;
    for (int64_t i = 0; i < n; i++)
        x[i] = test_uniform(&state);
}

static void widen_is_exact(void **state)
{
    (void)state;
    const fkm_dtype types[] = {FKM_F16, FKM_BF16, FKM_U8, FKM_I8};
    uint16_t from[70];
    uint64_t random = 7;
    for (int i = 0; i < 70; i++)
        from[i] = (uint16_t)test_random(&random);
    FOR_EACH_ISA(k)
    {
        for (int t = 0; t < 4; t++) {
            for (int64_t n = 0; n <= 67; n++) {
                float *out = guarded((size_t)n * sizeof *out);
                k->widen(out, from, types[t], n);
                for (int64_t i = 0; i < n; i++) {
                    size_t size = fkm_dtype_size(types[t]);
                    float want = fkm_dtype_to_float(types[t], (char *)from + (size_t)i * size);
                    assert_true(out[i] == want || (isnan(out[i]) && isnan(want)));
                }
                release(out, (size_t)n * sizeof *out);
            }
        }
    }
}

static void pack_transposes(void **state)
{
    (void)state;
    FOR_EACH_ISA(k)
    {
        for (int i = 0; i < SOME_DIMS; i++) {
            int32_t dims = some_dims[i], panel = k->panel;
            if (k->low)
                continue; /* its layout is its own: see blocks_find_the_nearest */
            size_t bytes = (size_t)(panel * dims) * sizeof(float);
            float *x = malloc(bytes), *shift = malloc((size_t)dims * sizeof(float));
            fill(x, panel * dims, 3);
            fill(shift, dims, 4);
            for (int32_t rows = 1; rows <= panel; rows += rows < 3 ? 1 : 5) {
                float *out = guarded(bytes), *square = guarded((size_t)panel * sizeof(float));
                const void *row[64];
                for (int32_t r = 0; r < rows; r++)
                    row[r] = x + (int64_t)r * dims;
                k->pack(out, square, NULL, row, rows, dims, shift, 0.25f, NULL, NULL);
                for (int32_t r = 0; r < panel; r++) {
                    double want_square = 0;
                    for (int32_t t = 0; t < dims; t++) {
                        float want = r < rows ? x[r * dims + t] * 0.25f - shift[t] : 0;
                        assert_true(out[t * panel + r] == want);
                        want_square += (double)want * want;
                    }
                    assert_true(fabs(square[r] - want_square) <= 1e-4 * want_square);
                }
                release(out, bytes);
                release(square, (size_t)panel * sizeof(float));
            }
            free(x);
            free(shift);
        }
    }
}

/* Every other step of 64 dims loses its first, third, and last group of 4, from the second on. */
static void thin_out(uint16_t *kept, int32_t dims)
{
    for (int32_t i = 0; i < (dims + 63) / 64; i++)
        kept[i] = i % 2 ? 0x7ffa : 0xffff;
}

static bool is_kept(const uint16_t *kept, int32_t t)
{
    return kept[t / 64] >> t % 64 / FKM_GROUP & 1;
}

/* Bytes of a panel are where screening wants them if blocks find the nearest; their squares only
 * show in margins. */
static void squares_of_packed_bytes(void **state)
{
    (void)state;
    uint16_t kept[17];
    thin_out(kept, 1025);
    FOR_EACH_BYTE_ISA(k)
    {
        for (int i = 0; i < SOME_DIMS; i++) {
            const int32_t dims = some_dims[i], panel = k->panel;
            const size_t bytes = fkm_panel_bytes(k, dims);
            uint8_t *x = malloc((size_t)(panel * dims)); /* no guards: nothing beyond is read */
            float *shift = malloc((size_t)dims * sizeof *shift);
            uint64_t random = 5;
            for (int32_t j = 0; j < panel * dims; j++)
                x[j] = (uint8_t)(test_random(&random) >> 56);
            fill(shift, dims, 4);
            for (int32_t rows = 1; rows <= panel; rows += rows < 3 ? 1 : 5) {
                char *out = guarded(bytes);
                float *square = guarded((size_t)panel * sizeof *square);
                float *residual = guarded((size_t)panel * sizeof *residual);
                const void *row[64];
                for (int32_t r = 0; r < rows; r++)
                    row[r] = x + (int64_t)r * dims;
                k->pack(out, square, residual, row, rows, dims, shift, 0x1p-8f, NULL, kept);
                for (int32_t r = 0; r < panel; r++) {
                    double want = 0, faint = 0;
                    for (int32_t t = 0; r < rows && t < dims; t++) {
                        const float v = fkm_dtype_to_float(k->takes, x + r * dims + t);
                        const double framed = v * 0x1p-8f - shift[t];
                        want += framed * framed;
                        faint += is_kept(kept, t) ? 0 : framed * framed;
                    }
                    assert_true(fabs(square[r] - want) <= (dims + 8) * 0x1p-24 * want);
                    assert_true(fabs(residual[r] - faint) <= (dims + 8) * 0x1p-24 * faint);
                }
                release(out, bytes);
                release(square, (size_t)panel * sizeof *square);
                release(residual, (size_t)panel * sizeof *residual);
            }
            free(x);
            free(shift);
        }
    }
}

static void canonical_has_the_same_bits(void **state)
{
    (void)state;
    FOR_EACH_ISA(k)
    {
        for (int i = 0; i < SOME_DIMS; i++) {
            int32_t dims = some_dims[i];
            float *x = malloc((size_t)dims * 4), *c = malloc((size_t)dims * 4);
            for (uint64_t seed = 0; seed < 20; seed++) {
                fill(x, dims, seed);
                fill(c, dims, seed + 100);
                for (int32_t t = 0; t < dims; t++)
                    x[t] = ldexpf(x[t], (int)(seed * 13 % 200) - 100);
                double got = k->canonical(x, c, dims);
                double want = fkm_kernels_scalar.canonical(x, c, dims);
                assert_memory_equal(&got, &want, sizeof got);
            }
            free(x);
            free(c);
        }
    }
}

/* And the largest coordinate has the bits of the image that kernels round. */
static void norm2_is_within_its_bound(void **state)
{
    (void)state;
    FOR_EACH_ISA(k)
    {
        for (int i = 0; i < SOME_DIMS; i++) {
            int32_t dims = some_dims[i];
            size_t bytes = (size_t)dims * sizeof(float);
            float *c = guarded(bytes), *shift = guarded(bytes);
            for (int32_t largest = 0; largest < dims; largest += largest < 20 ? 1 : dims / 7 + 1) {
                fill(c, dims, 1);
                fill(shift, dims, 3);
                c[largest] = largest % 2 ? 1000.1f : -1000.1f;
                long double want = 0;
                float top = 0, most = 0;
                for (int32_t t = 0; t < dims; t++) {
                    long double v = (long double)c[t] * 3 - (long double)shift[t];
                    want += v * v;
                    most = fmaxf(most, fabsf(c[t] * 3 - shift[t]));
                }
                double got = k->norm2(c, shift, 3, dims, &top);
                assert_true(fabsl(got - want) <= (dims + 4) * 0x1p-53L * want);
                assert_memory_equal(&top, &most, sizeof top);
            }
            release(c, bytes);
            release(shift, bytes);
        }
    }
}

static void dot_is_within_its_bound(void **state)
{
    (void)state;
    FOR_EACH_ISA(k)
    {
        for (int i = 0; i < SOME_DIMS; i++) {
            int32_t dims = some_dims[i];
            size_t bytes = (size_t)dims * sizeof(float);
            float *x = malloc(bytes), *c = malloc(bytes), *shift = malloc(bytes);
            fill(x, dims, 1);
            fill(c, dims, 2);
            fill(shift, dims, 3);
            double want = 0, size = 0;
            for (int32_t t = 0; t < dims; t++) {
                double p = (double)(x[t] * 2 - shift[t]) * c[t];
                want += p;
                size += fabs(p);
            }
            double got = k->dot(x, shift, 2, c, dims);
            assert_true(fabs(got - want) <= FKM_DOT_CHAIN(dims) * 0x1p-24 * size);
            free(x);
            free(c);
            free(shift);
        }
    }
}

static void add_row_is_exact(void **state)
{
    (void)state;
    FOR_EACH_ISA(k)
    {
        for (int i = 0; i < SOME_DIMS; i++) {
            int32_t dims = some_dims[i];
            float *x = malloc((size_t)dims * sizeof(float));
            fill(x, dims, 9);
            x[0] = -0x1.8p-40f; /* half a quantum away from an integer: ties to even */
            const double scale = 0x1p40;
            int64_t *sum = guarded((size_t)dims * sizeof *sum);
            for (int32_t t = 0; t < dims; t++)
                sum[t] = -5 + t;
            k->add_row(sum, x, dims, scale);
            for (int32_t t = 0; t < dims; t++)
                assert_int_equal(sum[t], -5 + t + llrint(x[t] * scale));
            release(sum, (size_t)dims * sizeof *sum);
            free(x);
        }
    }
}

enum { SETTLED_ROWS = 77 };

/* The label of a row of the block that has one candidate left; -1: it has none, or several. */
static int32_t settled_label(const fkm_row_block *b, const int32_t *index, int32_t r)
{
    int32_t left = 0, position = -1;
    if (b->residual[r] < 0 || b->count[r] > FKM_CANDIDATES)
        return -1;
    for (int32_t i = 0; i < b->count[r]; i++)
        if (b->upper[i * b->stride + r] >= b->floor[r]) {
            position = b->position[i * b->stride + r];
            left++;
        }
    return left == 1 ? index[position] : -1;
}

static void rows_with_one_candidate_left_are_settled(void **state)
{
    (void)state;
    enum { STRIDE = 96, POSITIONS = 50 };
    static float floor[STRIDE], residual[STRIDE], upper[STRIDE * FKM_CANDIDATES];
    static int32_t count[STRIDE], position[STRIDE * FKM_CANDIDATES], index[POSITIONS];
    uint64_t seed = 5;
    fill(floor, STRIDE, 1);
    fill(residual, STRIDE, 2);
    fill(upper, STRIDE * FKM_CANDIDATES, 3);
    for (int32_t i = 0; i < STRIDE; i++)
        count[i] = (int32_t)(test_random(&seed) % (i % 2 ? 4 : FKM_CANDIDATES + 2));
    for (int32_t i = 0; i < STRIDE * FKM_CANDIDATES; i++)
        position[i] = (int32_t)(test_random(&seed) % POSITIONS);
    for (int32_t i = 0; i < POSITIONS; i++)
        index[i] = 1000 + i;
    for (int32_t i = 0; i < STRIDE; i += 7)
        upper[i] = floor[i]; /* still stands */
    FOR_EACH_ISA(k)
    {
        for (int32_t rows = 1; rows <= SETTLED_ROWS; rows++) {
            const fkm_row_block b = {.rows = rows,
                .floor = floor,
                .residual = residual,
                .count = count,
                .stride = STRIDE,
                .position = position,
                .upper = upper};
            int32_t *label = guarded((size_t)rows * sizeof *label);
            int32_t *others = guarded((size_t)rows * sizeof *others), n = 0;
            const int32_t found = k->settle(&b, index, label, others);
            for (int32_t r = 0; r < rows; r++) {
                const int32_t want = settled_label(&b, index, r);
                if (want >= 0)
                    assert_int_equal(label[r], want);
                else
                    assert_int_equal(others[n++], r);
            }
            assert_int_equal(found, n);
            release(label, (size_t)rows * sizeof *label);
            release(others, (size_t)rows * sizeof *others);
        }
    }
}

/* x: [dims], below 1 in magnitude. */
static void check_squares(const fkm_kernels *k, const float *x, int32_t dims, int32_t bits)
{
    const double scale = ldexp(1, bits);
    fkm_i128 want = 0;
    int64_t sum[2] = {3, 4};
    for (int32_t t = 0; t < dims; t++)
        want += (fkm_i128)llrint(x[t] * scale) * llrint(x[t] * scale);
    k->add_squares(sum, x, dims, scale, scale);
    assert_true(((fkm_i128)(sum[0] - 3) << bits) + (sum[1] - 4) == want);
}

static void add_squares_is_exact(void **state)
{
    (void)state;
    const int32_t bits[] = {8, 20, 31, 43, 47, 58};
    FOR_EACH_ISA(k)
    {
        for (int i = 0; i < SOME_DIMS; i++)
            for (int b = 0; b < 6; b++) {
                int32_t dims = bits[b] == 58 && some_dims[i] > 16 ? 16 : some_dims[i];
                float *x = malloc((size_t)dims * sizeof(float));
                fill(x, dims, (uint64_t)b);
                check_squares(k, x, dims, bits[b]);
                free(x);
            }
    }
}

/* Of many squares near the largest, whose sum float64 does not hold. */
static void add_squares_is_exact_of_many(void **state)
{
    (void)state;
    enum { MANY = 30000 };
    float *x = malloc(MANY * sizeof(float));
    fill(x, MANY, 9);
    for (int32_t t = 0; t < MANY; t++)
        x[t] = 1 - fabsf(x[t]) / 64 - 0x1p-20f;
    FOR_EACH_ISA(k)
    {
        for (int32_t bits = 41; bits <= 47; bits++)
            check_squares(k, x, MANY, bits);
    }
    free(x);
}

static void bytes_are_added_as_floats_are(void **state)
{
    (void)state;
    FOR_EACH_ISA(k)
    {
        for (int i = 0; i < SOME_DIMS; i++)
            for (int is_signed = 0; is_signed < 2; is_signed++) {
                const int32_t dims = some_dims[i];
                const fkm_dtype t = is_signed ? FKM_I8 : FKM_U8;
                uint8_t *x = guarded((size_t)dims);
                float *f = malloc((size_t)dims * sizeof *f);
                int64_t *sum = calloc((size_t)dims, sizeof *sum), squares = 0;
                for (int32_t d = 0; d < dims; d++)
                    x[d] = (uint8_t)(d % 5 ? d * 37 : 128);
                fkm_kernels_scalar.widen(f, x, t, dims);
                for (int32_t d = 0; d < dims; d++)
                    squares += (int64_t)(f[d] * f[d]);
                k->add_bytes(sum, x, t, dims, 40, false);
                k->add_row(sum, f, dims, -0x1p40);
                for (int32_t d = 0; d < dims; d++)
                    assert_int_equal(sum[d], 0);
                k->add_bytes(sum, x, t, dims, 3, true);
                for (int32_t d = 0; d < dims; d++)
                    assert_int_equal(sum[d], -8 * (int64_t)f[d]);
                assert_int_equal(k->squares_of_bytes(x, t, dims), squares);
                release(x, (size_t)dims);
                free(f);
                free(sum);
            }
    }
}

/* Lanes of 32 bits would overflow. */
static void squares_of_many_bytes(void **state)
{
    (void)state;
    const int32_t dims = 1 << 20;
    uint8_t *x = malloc((size_t)dims);
    memset(x, 255, (size_t)dims);
    FOR_EACH_ISA(k)
    {
        assert_int_equal(k->squares_of_bytes(x, FKM_U8, dims), 65025ll << 20);
    }
    free(x);
}

static void mean_row_has_the_same_bits(void **state)
{
    (void)state;
    FOR_EACH_ISA(k)
    {
        for (int i = 0; i < SOME_DIMS; i++) {
            int32_t dims = some_dims[i];
            size_t bytes = (size_t)dims * sizeof(float);
            int64_t *sum = malloc((size_t)dims * sizeof *sum);
            float *got = guarded(bytes), *want = malloc(bytes);
            for (int32_t t = 0; t < dims; t++)
                sum[t] = (int64_t)((uint64_t)t * 0x9e3779b97f4a7c1u) >> (t % 60);
            k->mean_row(got, sum, dims, 37, 0x1p-50);
            fkm_kernels_scalar.mean_row(want, sum, dims, 37, 0x1p-50);
            assert_memory_equal(got, want, bytes);
            release(got, bytes);
            free(want);
            free(sum);
        }
    }
}

/* Quotients just beside the middle of two floats: the last bit of a float64 decides. */
static void mean_row_divides_to_the_last_bit(void **state)
{
    (void)state;
    enum { N = 64 };
    int64_t sum[N];
    float got[N], want[N];
    uint64_t random = 3;
    FOR_EACH_ISA(k)
    {
        for (int round = 0; round < 20000; round++) {
            const int64_t count = (int64_t)(test_random(&random) >> (35 + round % 29)) + 1;
            for (int32_t t = 0; t < N; t++) {
                const int64_t middle = (int64_t)(test_random(&random) >> 39) | 1 << 24 | 1;
                sum[t] = middle * count + (int64_t)(test_random(&random) >> 62) - 1;
                sum[t] = t % 2 ? -sum[t] : sum[t];
            }
            k->mean_row(got, sum, N, (double)count, 0x1p-9);
            for (int32_t t = 0; t < N; t++)
                want[t] = (float)((double)sum[t] / (double)count * 0x1p-9);
            assert_memory_equal(got, want, sizeof got);
        }
    }
}

/* ---- whole blocks against a search by canonical distance ---- */

typedef struct shape {
    int32_t rows, dims, clusters;
    int kind; /* of data */
} shape;

/* Centroids and rows: 0 random, 1 integers with ties, 2 duplicated centroids, 3 far from the
 * origin, 4 huge, 5 tiny, 6 all centroids equal, 7 an outlying row and centroid. */
static void fill_case(float *x, float *c, const shape *s)
{
    int64_t nx = (int64_t)s->rows * s->dims, nc = (int64_t)s->clusters * s->dims;
    fill(x, nx, (uint64_t)s->dims);
    fill(c, nc, (uint64_t)s->clusters + 77);
    for (int64_t i = 0; i < nx + nc; i++) {
        float *v = i < nx ? x + i : c + (i - nx);
        switch (s->kind) {
        case 1:
            *v = rintf(*v * 3);
            break;
        case 3:
            *v += 10000;
            break;
        case 4:
            *v *= 0x1p+120f;
            break;
        case 5:
            *v *= 0x1p-130f;
            break;
        default:
            break;
        }
    }
    for (int32_t j = 1; j < s->clusters; j++)
        if (s->kind == 6 || (s->kind == 2 && j % 3 == 0))
            memcpy(c + (int64_t)j * s->dims, c, (size_t)s->dims * sizeof *c);
    if (s->kind == 7) {
        x[nx - 1] = 1e12f;
        c[nc - 1] = -1e12f;
    }
}

static fkm_status open_store(fkm_row_store *store, const fkm_tiles *t, int32_t rows, fkm_err *e)
{
    const fkm_store_shape kept = {
        .panel = t->kernels->panel,
        .panel_bytes = fkm_panel_bytes(t->kernels, t->dims),
        .tails = true,
    };
    return fkm_row_store_open(store, &kept, rows, e);
}

/* The same labels from rows that are kept, rounded and in another order, whatever it is. */
static void check_store(const fkm_assign_job *plain, fkm_assign_scratch *scratch, int32_t block)
{
    fkm_err e = {0};
    fkm_row_store store;
    fkm_assign_job job = *plain;
    int32_t rows = (int32_t)job.count;
    int32_t *labels = guarded((size_t)rows * sizeof *labels);
    assert_int_equal(open_store(&store, job.tiles, rows, &e), FKM_OK);
    for (int32_t i = 0; i < rows; i++)
        labels[i] = i % 3 ? i % job.tiles->clusters : -1;
    fkm_row_store_start(&store, labels, rows);
    for (int32_t i = 0; i < rows; i++) {
        store.order[i] = (i * 7 + 3) % rows; /* a permutation: 7 does not divide any count below */
        store.label[i] = labels[store.order[i]];
    }
    job.store = &store;
    job.labels = labels;
    job.distances = NULL;
    const fkm_label_order by = {job.tiles->clusters, job.tiles->position, job.tiles->index};
    for (int pass = 0; pass < 4; pass++) {
        int64_t start[3 * 101];
        int32_t other[80];
        if (pass == 2)
            fkm_row_store_sort(&store, rows, &by, 3, NULL, start, other);
        job.pack = pass != 1;
        job.keep = pass != 3;
        for (int32_t first = 0; first < rows; first += block)
            fkm_assign_block(&job, scratch, first, rows - first < block ? rows - first : block);
        for (int32_t i = 0; i < rows; i++) {
            assert_int_equal(labels[i], plain->labels[i]);
            assert_int_equal(store.label[i], labels[store.order[i]]);
            assert_true(
                pass < 2 || i == 0 || by.rank[store.label[i - 1]] <= by.rank[store.label[i]]);
        }
    }
    fkm_row_store_close(&store);
    release(labels, (size_t)rows * sizeof *labels);
}

enum { HEADS = 48 };

/* Random orthonormal axes [HEADS][dims], and the bound of what is amiss: made once for every dims.
 */
static const float *random_axes(int32_t dims, float *gram_bound)
{
    static float axes[SOME_DIMS][HEADS * 1025], bounds[SOME_DIMS];
    int which = 0;
    while (some_dims[which] != dims)
        which++;
    float *out = axes[which];
    *gram_bound = bounds[which];
    if (*gram_bound != 0)
        return out;
    fill(out, (int64_t)HEADS * dims, 12);
    double gram = 0;
    for (int32_t a = 0; a < HEADS; a++) {
        for (int32_t b = 0; b <= a; b++) {
            double along = 0;
            for (int32_t d = 0; d < dims; d++)
                along += (double)out[a * dims + d] * out[b * dims + d];
            for (int32_t d = 0; d < dims; d++)
                out[a * dims + d] = b < a ? (float)(out[a * dims + d] - along * out[b * dims + d])
                                          : (float)(out[a * dims + d] / sqrt(along));
        }
        for (int32_t b = 0; b <= a; b++) {
            double g = a == b ? -1 : 0;
            for (int32_t d = 0; d < dims; d++)
                g += (double)out[a * dims + d] * out[b * dims + d];
            gram += 2 * g * g;
        }
    }
    assert_true(gram < 1e-6);
    *gram_bound = bounds[which] = (float)sqrt(gram) * 1.001f;
    return out;
}

/* The same labels by the first coordinates along some axes: random ones, which suit nothing, so
 * that tails are long and candidates many. */
static void check_head(const fkm_assign_job *plain, fkm_assign_scratch *scratch, int32_t block)
{
    fkm_tiles *t = (fkm_tiles *)(uintptr_t)plain->tiles;
    float gram;
    const float *axes = random_axes(t->dims, &gram);
    fkm_tiles_turn(t, axes, HEADS, gram);
    fkm_tiles_set(t, plain->centroids, 1, NULL);
    check_store(plain, scratch, block);
    fkm_tiles_turn(t, NULL, 0, 0);
    fkm_tiles_set(t, plain->centroids, 1, NULL);
}

/* The same labels if some dims are left out, which suits nothing, either. */
static void check_faint(const fkm_assign_job *plain, fkm_assign_scratch *scratch, int32_t block)
{
    fkm_tiles *t = (fkm_tiles *)(uintptr_t)plain->tiles;
    uint64_t random = (uint64_t)t->dims;
    const int32_t groups = (t->dims + FKM_GROUP - 1) / FKM_GROUP;
    uint16_t kept[17];
    for (int32_t left = (groups - 1) / 16 * 16; left > 0; left -= 32) {
        int32_t now = 0;
        memset(kept, 0, sizeof kept);
        while (now < left) {
            const int32_t g = (int32_t)(test_random(&random) >> 33) % groups;
            now += !(kept[g / 16] >> g % 16 & 1);
            kept[g / 16] |= (uint16_t)(1u << g % 16);
        }
        fkm_tiles_keep(t, kept);
        fkm_tiles_set(t, plain->centroids, 1, NULL);
        assert_int_equal(t->screened, FKM_GROUP * left);
        check_store(plain, scratch, block);
    }
    fkm_tiles_keep(t, NULL);
    fkm_tiles_set(t, plain->centroids, 1, NULL);
}

/* The same data as 8-bit rows. Huge and outlying centroids stay: they cannot be scored. */
static void to_bytes(const fkm_kernels *k, float *x, int64_t nx, float *c, int64_t nc, int kind)
{
    float shift = k->takes == FKM_I8 ? 0 : 128;
    for (int64_t i = 0; i < nx; i++)
        x[i] = test_byte(k, x[i] * (kind == 1 ? 1 : 40) + shift);
    for (int64_t i = 0; i < nc && kind != 4; i++)
        c[i] = c[i] * (kind == 1 ? 1 : 40) + shift;
}

static void check_block(const fkm_kernels *k, const shape *s)
{
    fkm_err e = {0};
    int64_t nx = (int64_t)s->rows * s->dims, nc = (int64_t)s->clusters * s->dims;
    float *x = malloc((size_t)nx * sizeof *x), *c = malloc((size_t)nc * sizeof *c);
    int32_t top = s->clusters < 3 ? s->clusters : 3;
    fill_case(x, c, s);
    if (k->bytes)
        to_bytes(k, x, nx, c, nc, s->kind);
    uint8_t *bytes = malloc((size_t)nx);
    fkm_dtype dtype;
    const void *data = test_rows(k, x, nx, bytes, &dtype);
    fkm_tiles tiles;
    fkm_assign_scratch scratch;
    assert_int_equal(fkm_tiles_open(&tiles, k, s->clusters, s->dims, &e), FKM_OK);
    const int32_t block = fkm_assign_block_rows(k, s->dims);
    assert_int_equal(
        fkm_assign_scratch_open(&scratch, k, block, s->clusters, s->dims, dtype, 3, &e), FKM_OK);
    fkm_tiles_set(&tiles, c, 1, NULL);
    int32_t *labels = guarded((size_t)s->rows * sizeof *labels);
    double *distances = guarded((size_t)s->rows * sizeof *distances);
    int32_t *near = guarded((size_t)(s->rows * top) * sizeof *near);
    double *near_distances = guarded((size_t)(s->rows * top) * sizeof *near_distances);
    for (int32_t i = 0; i < s->rows; i++)
        labels[i] = i % 2 ? -1 : i % s->clusters; /* cold and warm starts */
    fkm_assign_job job = {
        .tiles = &tiles,
        .centroids = c,
        .dtype = dtype,
        .x = data,
        .count = s->rows,
        .labels = labels,
        .distances = distances,
        .top = top,
    };
    for (int32_t first = 0; first < s->rows; first += block)
        fkm_assign_block(&job, &scratch, first, s->rows - first < block ? s->rows - first : block);
    check_store(&job, &scratch, block);
    if (fkm_head_most(k, s->dims) > 0)
        check_head(&job, &scratch, block);
    if (k->bytes)
        check_faint(&job, &scratch, block);
    job.labels = near;
    job.distances = near_distances;
    for (int32_t first = 0; first < s->rows; first += block)
        fkm_assign_nearest(
            &job, &scratch, first, s->rows - first < block ? s->rows - first : block);
    for (int32_t i = 0; i < s->rows; i++) {
        int32_t best = -1;
        double least = INFINITY;
        for (int32_t j = 0; j < s->clusters; j++) {
            double d = fkm_kernels_scalar.canonical(
                x + (int64_t)i * s->dims, c + (int64_t)j * s->dims, s->dims);
            if (d < least) {
                least = d;
                best = j;
            }
        }
        assert_int_equal(labels[i], best);
        assert_true(distances[i] == least);
        assert_int_equal(near[i * top], best);
        for (int32_t m = 1; m < top; m++)
            assert_true(near_distances[i * top + m] > near_distances[i * top + m - 1] ||
                        near[i * top + m] > near[i * top + m - 1]);
    }
    release(labels, (size_t)s->rows * sizeof *labels);
    release(distances, (size_t)s->rows * sizeof *distances);
    release(near, (size_t)(s->rows * top) * sizeof *near);
    release(near_distances, (size_t)(s->rows * top) * sizeof *near_distances);
    fkm_assign_scratch_close(&scratch);
    fkm_tiles_close(&tiles);
    free(x);
    free(c);
    free(bytes);
}

/* Sanitizers look at memory, which depends on shapes: of the kinds of data they see a part. */
static void check_shapes(const fkm_kernels *k)
{
    const int step = short_form() ? 4 : 1;
    const int32_t clusters[] = {1, 2, 4, 6, 7, 12, 13, 40, 100};
    const int32_t rows[] = {1, 15, 17, 33, 71};
    for (int d = 0; d < SOME_DIMS; d++)
        for (int c = 0; c < 9; c++)
            for (int kind = (d + c) % step; kind < 8; kind += step) {
                shape s = {rows[(c + d + kind) % 5], some_dims[d], clusters[c], kind};
                if ((int64_t)s.rows * s.dims * s.clusters < 3000000)
                    check_block(k, &s);
            }
}

static void blocks_find_the_nearest(void **state)
{
    (void)state;
    FOR_EACH_ISA(k)
    {
        check_shapes(k);
    }
}

static void blocks_of_bytes_find_the_nearest(void **state)
{
    (void)state;
    FOR_EACH_BYTE_ISA(k)
    {
        check_shapes(k);
    }
}

/* Pixels at the edge: 784 dims, of which centroids hardly know the first 100 and the last 90. */
static void faint_dims_are_left_out(void **state)
{
    (void)state;
    enum { D = 784, K = 40 };
    static float c[K * D];
    FOR_EACH_BYTE_ISA(k)
    {
        fkm_err e = {0};
        fkm_tiles t;
        uint64_t random = 1;
        for (int32_t i = 0; i < K * D; i++) {
            const bool faint = i % D < 100 || i % D >= D - 90;
            c[i] = test_uniform(&random) * (faint ? 0.01f : 100);
        }
        assert_int_equal(fkm_tiles_open(&t, k, K, D, &e), FKM_OK);
        fkm_tiles_set(&t, c, 1, NULL);
        assert_int_equal(t.screened, 10 * 64); /* of 594 dims that matter */
        for (int32_t d = 100; d < D - 90; d++)
            assert_true(is_kept(t.kept, d));
        const uint32_t frame = t.frame;
        for (int32_t i = 0; i < K * D; i++)
            c[i] = test_uniform(&random) * 100;
        fkm_tiles_set(&t, c, 1, NULL); /* rows that are packed stay good */
        assert_int_equal(t.screened, 10 * 64);
        assert_int_equal(t.frame, frame);
        fkm_tiles_renew(&t);
        fkm_tiles_set(&t, c, 1, NULL);
        assert_int_equal(t.screened, D);
        assert_true(t.frame != frame);
        fkm_tiles_close(&t);
    }
}

/* The centroid of a single row among means of many: rows are not in doubt for that, but in its
 * tile. */
static void large_centroids_coarsen_their_tile_only(void **state)
{
    (void)state;
    enum { D = 64, K = 160 };
    static float c[K * D];
    FOR_EACH_BYTE_ISA(k)
    {
        fkm_err e = {0};
        fkm_tiles t;
        uint64_t random = 1;
        for (int32_t i = 0; i < K * D; i++)
            c[i] = test_uniform(&random) * (i / D == 17 ? 100 : 5);
        assert_int_equal(fkm_tiles_open(&t, k, K, D, &e), FKM_OK);
        fkm_tiles_set(&t, c, 1, NULL);
        assert_false(t.alike);
        for (int32_t i = 0; i < t.count; i++) {
            const bool large = i == t.place[17].tile;
            assert_true(t.quantum[i] * k->most_quanta >= (large ? 50 : 2.5f) * t.scale);
            assert_true(t.quantum[i] * k->most_quanta <= (large ? 110 : 7) * t.scale);
        }
        fkm_tiles_lots(&t, 1); /* picked tiles have one quantum */
        fkm_tiles_set(&t, c, 1, NULL);
        for (int32_t i = 0; i < t.count; i++)
            assert_true(t.quantum[i] == t.quantum[t.place[17].tile]);
        fkm_tiles_lots(&t, t.tile);
        for (int32_t i = 0; i < D; i++)
            c[17 * D + i] /= 20;
        fkm_tiles_renew(&t);
        fkm_tiles_set(&t, c, 1, NULL);
        assert_true(t.alike);
        fkm_tiles_close(&t);
    }
}

/* Initial rows may be the same, as those of zeros often are: all rows near them have one candidate,
 * not all. */
static void equal_centroids_are_one_candidate(void **state)
{
    (void)state;
    enum { D = 10, K = 300, N = 32 };
    static float c[K * D], x[N * D];
    uint64_t random = 3;
    for (int32_t i = 0; i < K * D; i++)
        c[i] = i / D % 3 ? 0 : test_uniform(&random);
    for (int32_t i = 0; i < N * D; i++)
        x[i] = 0.1f * test_uniform(&random);
    FOR_EACH_ISA(k)
    {
        fkm_err e = {0};
        fkm_tiles t;
        fkm_assign_scratch scratch;
        int32_t labels[N];
        int64_t twins = 0;
        memset(labels, -1, sizeof labels);
        assert_int_equal(fkm_tiles_open(&t, k, K, D, &e), FKM_OK);
        assert_int_equal(fkm_assign_scratch_open(&scratch, k, N, K, D, FKM_F32, 1, &e), FKM_OK);
        fkm_tiles_set(&t, c, 1, NULL);
        for (int32_t p = 0; p < K; p++)
            twins += t.twin[p];
        assert_int_equal(twins, 199);
        fkm_assign_job job = {
            .tiles = &t, .centroids = c, .dtype = FKM_F32, .x = x, .count = N, .labels = labels};
        for (int32_t first = 0; first < N; first += k->panel)
            fkm_assign_block(&job, &scratch, first, k->panel);
        for (int32_t i = 0; i < N; i++)
            assert_int_equal(labels[i], 1);
        assert_int_equal(scratch.counts.rescans, 0);
        assert_true(scratch.counts.candidates <= N * 2);
        double shift[K] = {0};
        shift[K - 1] = 1; /* the last twin is elsewhere now, and wins the rows that are there */
        for (int32_t d = 0; d < D; d++)
            c[(K - 1) * D + d] = x[d];
        fkm_tiles_follow(&t, c, shift, NULL);
        fkm_assign_block(&job, &scratch, 0, k->panel);
        assert_int_equal(labels[0], K - 1);
        memset(c + (K - 1) * D, 0, D * sizeof *c);
        fkm_assign_scratch_close(&scratch);
        fkm_tiles_close(&t);
    }
}

static void rows_that_are_not_finite_have_no_label(void **state)
{
    (void)state;
    enum { D = 5, K = 3, N = 4 };
    float c[K * D] = {0}, x[N * D] = {0};
    c[D] = 1;
    x[1 * D + 4] = NAN;
    x[2 * D] = -INFINITY;
    x[3 * D] = 3e38f; /* finite, beyond what can be screened */
    FOR_EACH_ISA(k)
    {
        fkm_err e = {0};
        fkm_tiles tiles;
        fkm_assign_scratch scratch;
        int32_t labels[N] = {-1, 0, 0, 0};
        double distances[N];
        assert_int_equal(fkm_tiles_open(&tiles, k, K, D, &e), FKM_OK);
        assert_int_equal(
            fkm_assign_scratch_open(&scratch, k, k->panel, K, D, FKM_F32, 1, &e), FKM_OK);
        fkm_tiles_set(&tiles, c, 1, NULL);
        fkm_assign_job job = {.tiles = &tiles,
            .centroids = c,
            .dtype = FKM_F32,
            .x = x,
            .count = N,
            .labels = labels,
            .distances = distances};
        fkm_assign_block(&job, &scratch, 0, N);
        assert_int_equal(labels[0], 0);
        assert_int_equal(labels[1], -1);
        assert_int_equal(labels[2], -1);
        assert_int_equal(labels[3], 0); /* so far away that both are as far: the lowest index */
        assert_true(isnan(distances[1]));
        assert_int_equal(scratch.counts.skipped, 2);
        fkm_assign_scratch_close(&scratch);
        fkm_tiles_close(&tiles);
    }
}

static void frame_is_kept_while_it_suits(void **state)
{
    (void)state;
    enum { D = 3, K = 5 };
    float c[K * D];
    fkm_err e = {0};
    fkm_tiles tiles;
    fill(c, K * D, 1);
    assert_int_equal(fkm_tiles_open(&tiles, &fkm_kernels_scalar, K, D, &e), FKM_OK);
    fkm_tiles_set(&tiles, c, 1, NULL);
    uint32_t frame = tiles.frame;
    assert_int_not_equal(frame, 0);
    for (int i = 0; i < K * D; i++)
        c[i] *= 1.5f;
    fkm_tiles_set(&tiles, c, 1, NULL);
    assert_int_equal(tiles.frame, frame);
    for (int i = 0; i < K * D; i++)
        c[i] *= 1000;
    fkm_tiles_set(&tiles, c, 1, NULL);
    assert_int_equal(tiles.frame, frame + 1);
    fkm_tiles_close(&tiles);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(widen_is_exact),
        cmocka_unit_test(pack_transposes),
        cmocka_unit_test(squares_of_packed_bytes),
        cmocka_unit_test(canonical_has_the_same_bits),
        cmocka_unit_test(norm2_is_within_its_bound),
        cmocka_unit_test(dot_is_within_its_bound),
        cmocka_unit_test(add_row_is_exact),
        cmocka_unit_test(rows_with_one_candidate_left_are_settled),
        cmocka_unit_test(add_squares_is_exact),
        cmocka_unit_test(add_squares_is_exact_of_many),
        cmocka_unit_test(bytes_are_added_as_floats_are),
        cmocka_unit_test(squares_of_many_bytes),
        cmocka_unit_test(mean_row_has_the_same_bits),
        cmocka_unit_test(mean_row_divides_to_the_last_bit),
        cmocka_unit_test(blocks_find_the_nearest),
        cmocka_unit_test(blocks_of_bytes_find_the_nearest),
        cmocka_unit_test(frame_is_kept_while_it_suits),
        cmocka_unit_test(faint_dims_are_left_out),
        cmocka_unit_test(large_centroids_coarsen_their_tile_only),
        cmocka_unit_test(equal_centroids_are_one_candidate),
        cmocka_unit_test(rows_that_are_not_finite_have_no_label),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
