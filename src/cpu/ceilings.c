/* Memory and arithmetic rates of this CPU, measured: see ceilings.h. */
#include "ceilings.h"

#include "../base/checked.h"
#include "../base/clock.h"
#include "../base/mem.h"
#include "../base/pool.h"
#include "cpuid.h"
#include "kernels.h"

#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#define LEAST_BYTES ((int64_t)1 << 20)
#define MOST_CALIBRATIONS 5
#define CACHES 4 /* memory is walked through in this many times the last-level cache */
#define MOST_BYTES ((int64_t)1 << 30)
#define SMALL_BYTE 0x3c /* four of it are 0.0115 in float32, two in bf16 */

/* ---- what one thread does in a sample ---- */

typedef struct share {
    const fkm_rate_kernel *arithmetic;
    char *bytes; /* this thread's own */
    int64_t size;
} share;

static float read_memory(const share *s, int64_t rounds)
{
    const uint64_t *word = (const uint64_t *)(const void *)s->bytes;
    uint64_t sum[8] = {0};
    for (int64_t r = 0; r < rounds; r++)
        for (int64_t i = 0; i + 8 <= s->size / 8; i += 8)
            for (int j = 0; j < 8; j++)
                sum[j] += word[i + j];
    for (int j = 1; j < 8; j++)
        sum[0] += sum[j];
    return (float)(sum[0] & 0xff);
}

static float copy_memory(const share *s, int64_t rounds)
{
    int64_t half = s->size / 2;
    for (int64_t r = 0; r < rounds; r++)
        memcpy(s->bytes + (r & 1 ? half : 0), s->bytes + (r & 1 ? 0 : half), (size_t)half);
    return s->bytes[0];
}

static float compute(const share *s, int64_t rounds)
{
    return s->arithmetic->run(rounds, s->bytes);
}

/* Multiplications and additions as the compiler makes them for any machine of this kind. */
static float run_scalar(int64_t rounds, const char *scratch)
{
    enum { CHAINS = 32 };
    const float term = (float)scratch[0];
    float sum[CHAINS];
    for (int i = 0; i < CHAINS; i++)
        sum[i] = (float)i;
    for (int64_t r = 0; r < rounds; r++)
        for (int i = 0; i < CHAINS; i++)
            sum[i] = sum[i] * 0.999f + term;
    for (int i = 1; i < CHAINS; i++)
        sum[0] += sum[i];
    return sum[0];
}

static const fkm_rate_kernel rate_scalar = {.flop = 2 * 32, .run = run_scalar};

/* ---- the table ---- */

typedef struct row {
    const char *name;
    const char *isa; /* NULL: memory */
    unsigned needs;
    const fkm_rate_kernel *arithmetic;
    float (*run)(const share *s, int64_t rounds);
    bool bytes; /* arithmetic of 8-bit integers */
} row;

#define FLOAT32 "float32 multiply-add"
#define INT8 "8-bit multiply-add"

/* In order of appearance. Of rows of one name the first usable one counts. The first row is over
 * the update; the last one shown that is not of bytes is over the assignment, the last one that is,
 * over that of 8-bit rows. */
static const row table[] = {
    {"memory read", NULL, 0, NULL, read_memory, false},
    {"memory copy", NULL, 0, NULL, copy_memory, false},
#if defined(__x86_64__)
    {FLOAT32, "avx512", FKM_CPU_AVX512, &fkm_rate_avx512, compute, false},
    {FLOAT32, "avx2", FKM_CPU_AVX2, &fkm_rate_avx2, compute, false},
#endif
    {FLOAT32, "scalar", 0, &rate_scalar, compute, false},
#if defined(__x86_64__)
    {INT8, "avx512vnni", FKM_CPU_VNNI, &fkm_rate_vnni, compute, true},
    {INT8, "avx2", FKM_CPU_AVX2, &fkm_rate_avx2_int8, compute, true},
    {"8-bit tile product, bare", "amx", FKM_CPU_AMX_INT8, &fkm_rate_amx_int8_bare, compute, true},
    {"8-bit tile product with loads", "amx", FKM_CPU_AMX_INT8, &fkm_rate_amx_int8_loads, compute,
        true},
    {"bf16 tile product, bare", "amx", FKM_CPU_AMX_BF16, &fkm_rate_amx_bare, compute, false},
    {"bf16 tile product with loads", "amx", FKM_CPU_AMX_BF16, &fkm_rate_amx_loads, compute, false},
#endif
};
enum { ROWS = sizeof table / sizeof table[0] };

/* Place of a path in the table of kernels, best first. */
static int place(const char *isa)
{
    bool usable;
    for (int i = 0;; i++) {
        const fkm_kernels *k = fkm_kernels_at(i, &usable);
        if (!k || (isa ? !strcmp(k->isa, isa) : usable))
            return i;
    }
}

/* Do 8-bit rows meet arithmetic of their own on the path at this place? */
static bool has_bytes(int at, bool by_name)
{
    bool usable;
    const fkm_kernels *k;
    while ((k = fkm_kernels_at(at, &usable)) != NULL && (!usable || (k->named && !by_name)))
        at++;
    while (k && !fkm_kernels_take(k, FKM_U8, 1))
        k = fkm_kernels_at(++at, &usable);
    return k && k->bytes;
}

static bool is_named_before(const row *const *list, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (!strcmp(list[i]->name, name))
            return true;
    return false;
}

/* The rows that a machine bound to `isa` can reach. */
static int reachable(const row *list[ROWS], const char *isa)
{
    int count = 0, best = place(isa);
    bool bytes = has_bytes(best, isa != NULL);
    for (int i = 0; i < ROWS; i++) {
        const row *r = &table[i];
        if ((r->isa && place(r->isa) < best) || (r->bytes && !bytes))
            continue;
        if ((fkm_cpu_features() & r->needs) == r->needs && !is_named_before(list, count, r->name))
            list[count++] = r;
    }
    return count;
}

/* What the i-th of some rows is over. */
static fkm_ceiling_over over_of(const row *const *list, int count, int i)
{
    if (i == 0)
        return FKM_OVER_UPDATE;
    for (int later = i + 1; later < count; later++)
        if (list[later]->bytes == list[i]->bytes)
            return FKM_OVER_NOTHING;
    return list[i]->bytes ? FKM_OVER_ASSIGN_BYTES : FKM_OVER_ASSIGN;
}

/* ---- measuring ---- */

typedef struct sample {
    const row *row;
    fkm_pool *pool;
    int threads;
    char *bytes; /* [threads][each] */
    int64_t each;
    double *begin, *end; /* [threads] each, fkm_now() */
    int64_t rounds;
    atomic_int arrived;
    _Atomic float result; /* of all threads: nothing may be optimised away */
} sample;

/* Nobody starts before everybody is there: two shares never run on one thread, one after the other.
 */
static void run_share(void *arg, int64_t block, int worker)
{
    sample *s = arg;
    share mine = {s->row->arithmetic, s->bytes + block * s->each, s->each};
    (void)worker;
    atomic_fetch_add(&s->arrived, 1);
    while (atomic_load(&s->arrived) < s->threads)
        sched_yield();
    s->begin[block] = fkm_now();
    atomic_store(&s->result, s->row->run(&mine, s->rounds));
    s->end[block] = fkm_now();
}

/* From when all are there: on a busy machine that alone may take longer than the work. */
static double run_sample(sample *s)
{
    atomic_store(&s->arrived, 0);
    fkm_pool_for(s->pool, s->threads, run_share, s);
    double begin = s->begin[0], end = s->end[0];
    for (int i = 1; i < s->threads; i++) {
        begin = fmin(begin, s->begin[i]);
        end = fmax(end, s->end[i]);
    }
    return end - begin;
}

/* Rounds that take about so long; warms caches and clocks on the way. */
static void calibrate(sample *s, double seconds)
{
    s->rounds = 1;
    double took = run_sample(s);
    while (took < seconds / 2 && s->rounds < INT64_C(1) << 50) {
        s->rounds *= 2;
        took = run_sample(s);
    }
    double more = took > 0 ? seconds / took : 1;
    if (more > 1)
        s->rounds = (int64_t)((double)s->rounds * more);
}

/* Far more than the last-level cache, within what is allowed. */
static int64_t memory_bytes(int64_t allowed)
{
    long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    int64_t want = CACHES * fkm_max_i64(cache, (int64_t)32 << 20);
    return fkm_max_i64(LEAST_BYTES, fkm_min_i64(allowed, fkm_min_i64(want, MOST_BYTES)));
}

/* Do two of the samples agree that this is the best there is? */
static bool is_settled(const fkm_ceiling *c)
{
    double best = INFINITY, next = INFINITY;
    for (int32_t i = 0; i < c->samples; i++) {
        next = fmin(next, fmax(best, c->seconds[i]));
        best = fmin(best, c->seconds[i]);
    }
    return next <= 1.05 * best;
}

/* At least as many samples as are asked for, and more while other work disturbs them. A calibration
 * that was disturbed itself gives rounds that are too few: it is made again. */
static void take_samples(fkm_ceiling *out, sample *s, const fkm_ceiling_options *o)
{
    calibrate(s, o->seconds);
    out->samples = 0;
    for (int again = 0;
         out->samples < o->samples || (out->samples < FKM_CEILING_SAMPLES && !is_settled(out));) {
        double seconds = run_sample(s);
        out->seconds[out->samples++] = seconds;
        if (seconds >= o->seconds / 2 || again == MOST_CALIBRATIONS)
            continue;
        again++;
        calibrate(s, o->seconds);
        out->samples = 0;
    }
}

static fkm_status measure(fkm_ceiling *out, const row *r, const fkm_ceiling_options *o, fkm_err *e)
{
    sample s = {.row = r, .threads = out->threads};
    fkm_status st = FKM_OK;
    s.each = r->isa ? (int64_t)FKM_RATE_SCRATCH : memory_bytes(o->bytes) / s.threads / 128 * 128;
    FKM_GO(fkm_pool_open(&s.pool, s.threads, e));
    FKM_GO(fkm_alloc(&s.begin, s.threads, sizeof *s.begin, "clocks", e));
    FKM_GO(fkm_alloc(&s.end, s.threads, sizeof *s.end, "clocks", e));
    FKM_GO(fkm_alloc(&s.bytes, s.threads, (size_t)s.each, "measuring memory", e));
    memset(s.bytes, SMALL_BYTE, (size_t)(s.threads * s.each));
    take_samples(out, &s, o);
    out->work = (double)s.rounds * s.threads * (r->isa ? r->arithmetic->flop : (double)s.each);
out:
    fkm_free(s.bytes);
    fkm_free(s.begin);
    fkm_free(s.end);
    fkm_pool_close(s.pool);
    return st;
}

fkm_status fkm_cpu_ceiling(fkm_ceiling *out, int i, const fkm_ceiling_options *o, fkm_err *e)
{
    const row *list[ROWS];
    int count = reachable(list, o->isa), variants = o->threads > 1 ? 2 : 1;
    memset(out, 0, sizeof *out);
    if (i >= count * variants)
        return FKM_OK;
    const row *r = list[i / variants];
    out->name = r->name;
    out->isa = r->isa;
    out->threads = i % variants == 0 ? 1 : o->threads;
    out->in_bytes = !r->isa;
    if (i % variants == variants - 1) /* with all threads */
        out->over = over_of(list, count, i / variants);
    return measure(out, r, o, e);
}
