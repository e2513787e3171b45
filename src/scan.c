/* What is in the data: extremes, NaN, and the histogram of binary exponents. See fkm.h, scan.h. */
#include "scan.h"

#include "base/checked.h"
#include "base/clock.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

#define EXPONENT_BIAS 160
#define EXPONENTS (sizeof((fkm_scan *)0)->exponents / sizeof(int64_t))
#define SCAN_BYTES (4 << 20) /* read at a time by fkm_scan_file */
#define PIECE 1024           /* values converted at a time */
#define PARTS 16             /* scanned side by side */

void fkm_scan_init(fkm_scan *s)
{
    memset(s, 0, sizeof *s);
    s->min = INFINITY;
    s->max = -INFINITY;
    s->bad_row = s->top_row = -1;
}

/* Neighbours that do not wait for each other's sum, or counter. */
enum { SETS = 4 };

/* Counters of one fkm_scan_add: exponent fields 1 to 254 stand for exponents -125 to 128. */
typedef struct fields {
    uint32_t of[SETS][256];
    int64_t values; /* counted since the last flush */
} fields;

/* One row's own figures, merged when the row turns out to be finite. */
typedef struct row_scan {
    int32_t low, high; /* ordered keys of the extremes */
    double sum;
    int64_t zeros;
} row_scan;

static uint32_t bits_of(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* Integers that are ordered as the floats are. */
static int32_t key_of(uint32_t bits)
{
    return (int32_t)(bits ^ (bits >> 31 ? 0x7fffffffu : 0));
}

static float float_of(int32_t key)
{
    uint32_t bits = (uint32_t)key ^ (key < 0 ? 0x7fffffffu : 0);
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* The largest |value| of a row, as bits: above those of infinity when there is a NaN, whose keys
 * are beyond all others. */
static uint32_t top_of(const row_scan *r)
{
    uint32_t low = bits_of(float_of(r->low)) & 0x7fffffffu;
    uint32_t high = bits_of(float_of(r->high)) & 0x7fffffffu;
    return low > high ? low : high;
}

static uint32_t *field_of(fields *f, int set, float v)
{
    return &f->of[set][(bits_of(v) & 0x7fffffffu) >> 23];
}

static void count_fields(fields *f, const float *x, int32_t n, uint32_t step)
{
    int32_t t = 0;
    for (; t + SETS <= n; t += SETS)
        for (int i = 0; i < SETS; i++)
            *field_of(f, i, x[t + i]) += step;
    for (; t < n; t++)
        *field_of(f, 0, x[t]) += step;
}

static void find_extremes(row_scan *r, const float *x, int32_t n)
{
    int32_t low = r->low, high = r->high;
    for (int32_t t = 0; t < n; t++) {
        int32_t key = key_of(bits_of(x[t]));
        low = key < low ? key : low;
        high = key > high ? key : high;
    }
    r->low = low;
    r->high = high;
}

static double sum_of(const float *x, int32_t n)
{
    double sum[SETS] = {0};
    int32_t t = 0;
    for (; t + SETS <= n; t += SETS)
        for (int i = 0; i < SETS; i++)
            sum[i] += (double)x[t + i];
    for (; t < n; t++)
        sum[0] += (double)x[t];
    return sum[0] + sum[1] + sum[2] + sum[3];
}

/* Zeros and subnormals share a field: told apart, these go straight to s->exponents. */
static void count_small(fkm_scan *s, row_scan *r, const float *x, int32_t n, int step)
{
    for (int32_t t = 0; t < n; t++) {
        if ((bits_of(x[t]) & 0x7fffffffu) >= 0x800000u)
            continue;
        int exponent = 0;
        if (x[t] == 0) {
            r->zeros++;
            continue;
        }
        (void)frexpf(x[t], &exponent);
        s->exponents[exponent + EXPONENT_BIAS] += step;
    }
}

static uint32_t small_values(const fields *f)
{
    uint32_t n = 0;
    for (int i = 0; i < SETS; i++)
        n += f->of[i][0];
    return n;
}

/* Adds (step 1) or takes back (step -1) n values. */
static void scan_values(fkm_scan *s, fields *f, row_scan *r, const float *x, int32_t n, int step)
{
    const uint32_t before = small_values(f);
    count_fields(f, x, n, (uint32_t)step);
    find_extremes(r, x, n);
    r->sum += sum_of(x, n);
    if (small_values(f) != before)
        count_small(s, r, x, n, step);
}

static void to_floats(float *out, const void *x, fkm_dtype dtype, int32_t n)
{
    const uint16_t *half = x;
    if (dtype == FKM_F32) {
        memcpy(out, x, (size_t)n * sizeof *out);
    } else if (dtype == FKM_U8) {
        for (int32_t i = 0; i < n; i++)
            out[i] = ((const uint8_t *)x)[i];
    } else if (dtype == FKM_I8) {
        for (int32_t i = 0; i < n; i++)
            out[i] = ((const int8_t *)x)[i];
    } else {
        for (int32_t i = 0; i < n; i++)
            out[i] = fkm_dtype_to_float(dtype, half + i);
    }
}

static const void *element(const void *row, fkm_dtype dtype, int32_t t)
{
    return (const char *)row + (size_t)t * fkm_dtype_size(dtype);
}

static void scan_row(
    fkm_scan *s, fields *f, row_scan *r, const void *x, fkm_dtype dtype, int32_t dims, int step)
{
    *r = (row_scan){.low = INT32_MAX, .high = INT32_MIN};
    if (dtype == FKM_F32) {
        scan_values(s, f, r, x, dims, step);
        return;
    }
    float piece[PIECE];
    for (int32_t t = 0; t < dims; t += PIECE) {
        int32_t n = dims - t < PIECE ? dims - t : PIECE;
        to_floats(piece, element(x, dtype, t), dtype, n);
        scan_values(s, f, r, piece, n, step);
    }
}

/* Of |value| > 0, by its bits. */
static int exponent_of(uint32_t bits)
{
    int exponent = (int)(bits >> 23) - 126;
    if (bits < 0x800000u) /* subnormal */
        (void)frexpf(float_of((int32_t)bits), &exponent);
    return exponent;
}

static void flush(fkm_scan *s, fields *f)
{
    for (int field = 1; field < 255; field++)
        for (int i = 0; i < SETS; i++)
            s->exponents[field - 126 + EXPONENT_BIAS] += f->of[i][field];
    memset(f, 0, sizeof *f);
}

static void note_bad_row(fkm_scan *s, const void *x, fkm_dtype dtype, int64_t row, int32_t dims)
{
    s->rows_not_finite++;
    for (int32_t t = 0; t < dims; t++) {
        float v = fkm_dtype_to_float(dtype, element(x, dtype, t));
        s->nans += isnan(v) != 0;
        s->infinities += isinf(v) != 0;
        if (isfinite(v) || s->bad_row >= 0)
            continue;
        s->bad_row = row;
        s->bad_column = t;
        s->bad_value = v;
    }
}

static void note_top(fkm_scan *s, const void *x, fkm_dtype dtype, int64_t row, int32_t dims)
{
    float top = fmaxf(fabsf(s->min), fabsf(s->max));
    s->top_row = row;
    for (int32_t t = 0; t < dims; t++) {
        s->top_column = t;
        if (fabsf(fkm_dtype_to_float(dtype, element(x, dtype, t))) == top)
            return;
    }
}

void fkm_scan_add(
    fkm_scan *s, const void *x, fkm_dtype dtype, int64_t row0, int64_t count, int32_t dims)
{
    size_t row_bytes = (size_t)dims * fkm_dtype_size(dtype);
    double sum = s->mean * (double)s->values;
    fields f;
    memset(&f, 0, sizeof f);
    for (int64_t i = 0; i < count; i++) {
        const void *row = (const char *)x + (size_t)i * row_bytes;
        row_scan r;
        s->rows++;
        scan_row(s, &f, &r, row, dtype, dims, 1);
        const uint32_t top = top_of(&r);
        if (top >= 0x7f800000u) { /* such a row takes no part */
            scan_row(s, &f, &r, row, dtype, dims, -1);
            note_bad_row(s, row, dtype, row0 + i, dims);
            continue;
        }
        float before = s->top_row < 0 ? -1 : fmaxf(fabsf(s->min), fabsf(s->max));
        s->min = fminf(s->min, float_of(r.low));
        s->max = fmaxf(s->max, float_of(r.high));
        if (float_of((int32_t)top) > before)
            note_top(s, row, dtype, row0 + i, dims);
        if (top > 0)
            s->tops[exponent_of(top) + EXPONENT_BIAS]++;
        s->zeros += r.zeros;
        s->values += dims;
        sum += r.sum;
        f.values += dims;
        if (f.values > INT32_MAX / 4)
            flush(s, &f);
    }
    flush(s, &f);
    s->mean = s->values ? sum / (double)s->values : 0;
}

void fkm_scan_merge(fkm_scan *s, const fkm_scan *o)
{
    double sum = s->mean * (double)s->values + o->mean * (double)o->values;
    float here = s->top_row < 0 ? -1 : fmaxf(fabsf(s->min), fabsf(s->max));
    float there = o->top_row < 0 ? -1 : fmaxf(fabsf(o->min), fabsf(o->max));
    if (there > here) {
        s->top_row = o->top_row;
        s->top_column = o->top_column;
    }
    if (s->bad_row < 0 || (o->bad_row >= 0 && o->bad_row < s->bad_row)) {
        s->bad_row = o->bad_row;
        s->bad_column = o->bad_column;
        s->bad_value = o->bad_value;
    }
    s->min = fminf(s->min, o->min);
    s->max = fmaxf(s->max, o->max);
    s->rows += o->rows;
    s->values += o->values;
    s->zeros += o->zeros;
    s->nans += o->nans;
    s->infinities += o->infinities;
    s->rows_not_finite += o->rows_not_finite;
    for (size_t i = 0; i < EXPONENTS; i++) {
        s->exponents[i] += o->exponents[i];
        s->tops[i] += o->tops[i];
    }
    s->mean = s->values ? sum / (double)s->values : 0;
}

/* Rows cut into as many parts. */
typedef struct parts {
    const char *x;
    fkm_dtype dtype;
    int64_t row0, count;
    int32_t dims;
    fkm_scan of[PARTS];
} parts;

static void scan_part(void *arg, int64_t i, int worker)
{
    (void)worker;
    parts *p = arg;
    const int64_t from = p->count * i / PARTS, to = p->count * (i + 1) / PARTS;
    const size_t row_bytes = (size_t)p->dims * fkm_dtype_size(p->dtype);
    fkm_scan_init(&p->of[i]);
    fkm_scan_add(
        &p->of[i], p->x + (size_t)from * row_bytes, p->dtype, p->row0 + from, to - from, p->dims);
}

void fkm_scan_add_by(fkm_pool *pool, fkm_scan *s, const void *x, fkm_dtype dtype, int64_t row0,
    int64_t count, int32_t dims)
{
    if (!pool || fkm_pool_threads(pool) == 1) {
        fkm_scan_add(s, x, dtype, row0, count, dims);
        return;
    }
    parts p = {.x = x, .dtype = dtype, .row0 = row0, .count = count, .dims = dims};
    fkm_pool_for(pool, PARTS, scan_part, &p);
    for (int i = 0; i < PARTS; i++)
        fkm_scan_merge(s, &p.of[i]);
}

fkm_status fkm_scan_file(fkm_scan *out, fkm_reader *in, const fkm_observer *w, fkm_err *e)
{
    const fkm_shape *shape = fkm_reader_shape(in);
    int64_t rows = shape->batch * shape->rows, done = 0;
    size_t row_bytes = (size_t)shape->dims * fkm_dtype_size(shape->dtype);
    int64_t chunk = fkm_max_i64(1, fkm_min_i64(rows, SCAN_BYTES / (int64_t)row_bytes));
    double begin = fkm_now();
    fkm_status st = FKM_OK;
    void *buffer = NULL;
    FKM_TRY(fkm_alloc(&buffer, chunk, row_bytes, "a reading buffer", e));
    fkm_scan_init(out);
    while (done < rows) {
        int64_t n = fkm_min_i64(chunk, rows - done);
        if (w && w->stop && *w->stop) {
            st = fkm_fail(e, FKM_ESTOPPED, "stopped by a signal");
            goto out;
        }
        FKM_GO(fkm_reader_read(in, done, n, buffer, e));
        fkm_scan_add(out, buffer, shape->dtype, done, n, shape->dims);
        done += n;
        if (w && w->progress) {
            fkm_progress p = {.rows_done = done,
                .rows_total = rows,
                .bytes_read = done * fkm_reader_row_bytes(in),
                .elapsed_s = fkm_now() - begin};
            w->progress(w->arg, &p);
        }
    }
out:
    fkm_free(buffer);
    return st;
}

fkm_status fkm_scan_not_finite(const fkm_scan *s, const fkm_reader *in, int64_t base, fkm_err *e)
{
    char name[300];
    fkm_reader_row_name(in, base + s->bad_row, name, sizeof name);
    fkm_fail(e, FKM_EDATA, "%s has %s in column %d (%lld of %lld rows have NaN or Inf)", name,
        isnan(s->bad_value) ? "NaN" : "Inf", s->bad_column, (long long)s->rows_not_finite,
        (long long)s->rows);
    return fkm_hint(
        e, "clean the data, or use --nan skip: such rows get label -1 and take no part");
}

/* The lower median exponent of those counted, of which there are some. */
static int typical_exponent(const int64_t *counts)
{
    int64_t all = 0, below = 0;
    size_t i = 0;
    for (size_t j = 0; j < EXPONENTS; j++)
        all += counts[j];
    for (; below + counts[i] <= (all - 1) / 2; i++)
        below += counts[i];
    return (int)i - EXPONENT_BIAS;
}

/* rows < 2^count_bits(rows). */
static int count_bits(int64_t rows)
{
    return 64 - __builtin_clzll((unsigned long long)rows);
}

/* The finest exponent at which |sum of rows| < 2^width: every |x| < 2^top. */
static int finest_exponent(const fkm_scan *s, int64_t rows, int width)
{
    int top;
    (void)frexpf(fmaxf(fabsf(s->min), fabsf(s->max)), &top);
    return width - count_bits(rows) - top;
}

bool fkm_scale_holds(fkm_scale v, const fkm_scan *s, int64_t rows)
{
    return s->values == s->zeros || v.exponent <= finest_exponent(s, rows, v.wide ? 126 : 62);
}

/* The narrowest sums whose quantum is at most 2^-24 of a typical value; false: there are none. */
static bool choose_by(fkm_scale *out, const fkm_scan *s, int64_t rows, int typical)
{
    out->bits = 62 - count_bits(rows);
    out->exponent = finest_exponent(s, rows, 62);
    out->wide = out->exponent < 24 - typical;
    if (out->wide)
        out->exponent = finest_exponent(s, rows, 126);
    return out->exponent >= 24 - typical;
}

/* Typical is a coordinate; but if most are next to nothing, as in outputs of a softmax, which no
 * distance would show, then the largest of a row. */
fkm_status fkm_scale_choose(
    fkm_scale *out, const fkm_scan *s, int64_t rows, const fkm_reader *in, int64_t base, fkm_err *e)
{
    *out = (fkm_scale){0, false, 0};
    if (s->values == s->zeros || choose_by(out, s, rows, typical_exponent(s->exponents)))
        return FKM_OK;
    const int typical = typical_exponent(s->tops);
    if (choose_by(out, s, rows, typical))
        return FKM_OK;
    char name[300];
    fkm_reader_row_name(in, base + s->top_row, name, sizeof name);
    fkm_fail(e, FKM_EDATA,
        "%s has %g in column %d, while half of the rows have nothing above %g: too far apart to be "
        "summed exactly",
        name, (double)fmaxf(fabsf(s->min), fabsf(s->max)), s->top_column, ldexp(1, typical));
    return fkm_hint(e, "remove or clip that row, or scale the data's columns alike");
}
