/* For the tests of the CUDA backend: a problem made at random, and a backend run on it. Runs on a
 * GPU, and on the layer of tests/cuda_on_cpu. */
#ifndef FKM_CUDA_TEST_H
#define FKM_CUDA_TEST_H

extern "C" {
#include "../../cuda/fkm_cuda.h"
#include "../../src/base/distance.h"
#include "../../src/cpu/backend_cpu.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
}

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <string>
#include <vector>

#ifdef FKM_CUDA_ON_CPU
#include "../cuda_on_cpu/include/cuo_control.h"
#endif

/* Without a GPU there is nothing to test: exit 77, which means skipped. */
static inline void skip_without_gpu(void)
{
    fkm_err e;
    memset(&e, 0, sizeof e);
    if (fkm_backend_cuda.probe(NULL, &e) == FKM_OK)
        return;
    printf("skipped: %s\n", e.msg);
    exit(77);
}

/* main() of a test that may run on a GPU; ONLY in the environment: the tests of that name. */
#define RUN_ON_GPU(tests)                                                                          \
    (skip_without_gpu(), cmocka_set_test_filter(getenv("ONLY")),                                   \
        cmocka_run_group_tests(tests, NULL, NULL))

/* xorshift64*: the tests' own numbers. */
struct random_numbers {
    uint64_t state;
    explicit random_numbers(uint64_t seed) : state(seed * 0x9e3779b97f4a7c15u + 1)
    {
    }
    uint64_t next()
    {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        return state * 0x2545f4914f6cdd1du;
    }
    int64_t below(int64_t n)
    {
        return (int64_t)(next() >> 11) % n;
    }
    double uniform()
    {
        return (double)(next() >> 11) * 0x1p-53;
    }
    double normal()
    {
        double sum = -6;
        for (int i = 0; i < 12; i++)
            sum += uniform();
        return sum;
    }
    template <class T> T one_of(std::initializer_list<T> list)
    {
        return list.begin()[below((int64_t)list.size())];
    }
};

/* Rows [n][dims] of a type, and centroids. */
struct problem {
    fkm_plan plan;
    std::vector<char> rows;
    std::vector<float> centroids;
    fkm_scale scale;

    const char *row(int64_t i) const
    {
        return rows.data() + (size_t)i * (size_t)plan.dims * fkm_dtype_size(plan.dtype);
    }
    float value(int64_t i, int32_t t) const
    {
        return fkm_dtype_to_float(plan.dtype, row(i) + (size_t)t * fkm_dtype_size(plan.dtype));
    }
};

static inline uint16_t to_half(float v)
{
    int exponent = 0;
    if (v == 0)
        return 0;
    double m = frexp(fabs((double)v), &exponent); /* [0.5, 1) */
    if (exponent > 16)
        return v < 0 ? 0xfbff : 0x7bff;
    int step = exponent - 11 < -24 ? -24 : exponent - 11;
    int64_t q = llrint(ldexp(m, exponent - step));
    double r = ldexp((double)q, step);
    int e2;
    if (r == 0)
        return 0;
    double m2 = frexp(r, &e2);
    uint16_t bits = r < 0x1p-14 ? (uint16_t)ldexp(r, 24)
                                : (uint16_t)((e2 + 14) << 10 | ((int)ldexp(m2, 11) & 0x3ff));
    return (uint16_t)(bits | (v < 0 ? 0x8000 : 0));
}

static inline void store(problem *p, int64_t i, int32_t t, double v)
{
    char *to = p->rows.data() +
               ((size_t)i * (size_t)p->plan.dims + (size_t)t) * fkm_dtype_size(p->plan.dtype);
    float f = (float)v;
    uint32_t bits;
    uint16_t half;
    memcpy(&bits, &f, sizeof bits);
    switch (p->plan.dtype) {
    case FKM_F16:
        half = to_half(f);
        memcpy(to, &half, sizeof half);
        break;
    case FKM_BF16:
        half = (uint16_t)(bits >> 16);
        memcpy(to, &half, sizeof half);
        break;
    case FKM_U8:
        *to = (char)(uint8_t)fmin(255, fmax(0, rint(v * 20 + 128)));
        break;
    case FKM_I8:
        *to = (char)(int8_t)fmin(127, fmax(-128, rint(v * 20)));
        break;
    default:
        memcpy(to, &f, sizeof f);
        break;
    }
}

/* The scale that the engine would take, or a finer one. */
static inline void choose_scale(problem *p, bool wide)
{
    double top = 0;
    for (int64_t i = 0; i < p->plan.rows; i++)
        for (int32_t t = 0; t < p->plan.dims; t++)
            if (isfinite(p->value(i, t)))
                top = fmax(top, fabs((double)p->value(i, t)));
    int exponent = 0, room = 1;
    (void)frexp(top, &exponent);
    while ((int64_t)1 << room < p->plan.rows)
        room++;
    bool eight = p->plan.dtype == FKM_U8 || p->plan.dtype == FKM_I8;
    p->scale.bits = 0; /* not known */
    p->scale.wide = wide && !eight;
    p->scale.exponent = eight ? 0 : (p->scale.wide ? 124 : 60) - room - exponent;
}

enum kind { NORMAL, BLOBS, OFFSET, TIES, OUTLIERS, KINDS };

static inline void fill(problem *p, random_numbers *r, kind k)
{
    const fkm_plan *plan = &p->plan;
    const bool small = plan->dtype != FKM_F32;
    std::vector<double> centre((size_t)plan->clusters * (size_t)plan->dims);
    for (double &c : centre)
        c = r->normal();
    p->rows.resize((size_t)plan->rows * (size_t)plan->dims * fkm_dtype_size(plan->dtype));
    for (int64_t i = 0; i < plan->rows; i++) {
        const double *c = &centre[(size_t)(r->below(plan->clusters) * plan->dims)];
        double far = k == OUTLIERS ? exp(r->normal() * (small ? 1 : 8)) : 1;
        for (int32_t t = 0; t < plan->dims; t++) {
            double v = r->normal();
            v = k == BLOBS ? c[t] + 0.1 * v : k == OFFSET ? (small ? 3 : 1000) + v : v * far;
            store(p, i, t, k == TIES ? rint(v) : v);
        }
        if (r->below(50) == 0 && (plan->dtype == FKM_F32))
            store(p, i, (int32_t)r->below(plan->dims), r->below(2) ? NAN : -INFINITY);
    }
}

static inline problem make_problem(random_numbers *r, kind k)
{
    problem p;
    memset(&p.plan, 0, sizeof p.plan);
    p.plan.dims =
        r->one_of<int32_t>({1, 2, 3, 7, 8, 15, 16, 17, 32, 33, 64, 65, 100, 129, 200, 300});
    p.plan.clusters = r->one_of<int32_t>({1, 2, 5, 16, 60, 127, 128, 129, 260});
    p.plan.rows = p.plan.clusters + r->below(400);
    p.plan.chunk_rows = r->below(3) ? 1 + r->below(p.plan.rows) : p.plan.rows;
    p.plan.dtype = r->one_of<fkm_dtype>({FKM_F32, FKM_F32, FKM_F16, FKM_BF16, FKM_U8, FKM_I8});
    p.plan.update = true;
    p.plan.wide = r->below(3) == 0;
    p.plan.keep = r->below(2);
    p.plan.top = (int32_t)(1 + r->below(p.plan.clusters < 9 ? p.plan.clusters : 9));
    p.plan.threads = 1;
    fill(&p, r, k);
    choose_scale(&p, p.plan.wide);
    for (int32_t j = 0; j < p.plan.clusters; j++)
        for (int64_t i = r->below(p.plan.rows);; i = r->below(p.plan.rows)) {
            bool finite = true;
            for (int32_t t = 0; t < p.plan.dims; t++)
                finite = finite && isfinite(p.value(i, t));
            for (int32_t t = 0; finite && t < p.plan.dims; t++)
                p.centroids.push_back(p.value(i, t));
            if (finite)
                break;
        }
    return p;
}

/* Calls that must succeed. */
#define OK(call)                                                                                   \
    do {                                                                                           \
        fkm_status ok_st_ = (call);                                                                \
        if (ok_st_ != FKM_OK)                                                                      \
            fail_msg("%s: status %d: %s", #call, (int)ok_st_, e.msg);                              \
    } while (0)

/* Both backends side by side. */
struct pair {
    const problem *p;
    const fkm_backend_ops *ops[2];
    fkm_backend *b[2];
    std::vector<int32_t> labels[2];
    std::vector<double> distances[2];
    fkm_err e;
    bool pinned;        /* the rows, so that copies are asynchronous */
    int64_t spared = 0; /* rows, by bounds, so far */

    pair(const problem *of, const char *isa, const char *devices, int64_t device_bytes, bool pin)
        : p(of), pinned(pin && fkm_backend_cuda.pin((void *)of->rows.data(), of->rows.size()))
    {
        memset(&e, 0, sizeof e);
        ops[0] = &fkm_backend_cpu;
        ops[1] = &fkm_backend_cuda;
        fkm_plan plan = p->plan;
        OK(ops[0]->open(&b[0], &plan, &e));
        plan.isa = isa;
        plan.devices = devices;
        plan.device_bytes = device_bytes;
        OK(ops[1]->open(&b[1], &plan, &e));
        for (int i = 0; i < 2; i++) {
            labels[i].assign((size_t)p->plan.rows, -1);
            distances[i].assign((size_t)p->plan.rows, -1);
        }
    }

    ~pair()
    {
        for (int i = 0; i < 2; i++)
            ops[i]->close(b[i]);
        if (pinned)
            fkm_backend_cuda.unpin((void *)p->rows.data());
    }

    void start()
    {
        for (int i = 0; i < 2; i++) {
            ops[i]->reset(b[i]);
            OK(ops[i]->set_centroids(b[i], p->centroids.data(), &e));
            OK(ops[i]->set_scale(b[i], p->scale, &e));
            labels[i].assign((size_t)p->plan.rows, -1);
        }
    }

    /* Labels as of a run that is resumed: of clusters, or -1. */
    void hand_in(random_numbers *r)
    {
        for (int32_t &label : labels[0])
            label = (int32_t)r->below((uint32_t)p->plan.clusters + 1) - 1;
        labels[1] = labels[0];
    }

    template <class F> void chunks(F f)
    {
        for (int64_t at = 0; at < p->plan.rows; at += p->plan.chunk_rows) {
            fkm_rows r = {p->row(at), at,
                p->plan.rows - at < p->plan.chunk_rows ? p->plan.rows - at : p->plan.chunk_rows};
            f(r);
        }
    }

    fkm_pass pass(int i, const fkm_pass_options &o, bool with_distances)
    {
        fkm_pass out;
        OK(ops[i]->begin(b[i], &o, &e));
        chunks([&](const fkm_rows &r) {
            OK(ops[i]->feed(b[i], &r, labels[i].data() + r.row0,
                with_distances ? distances[i].data() + r.row0 : NULL, &e));
        });
        OK(ops[i]->end(b[i], &out, &e));
        if (o.labels_later)
            OK(ops[i]->labels(b[i], labels[i].data(), &e));
        return out;
    }

    void compare_passes(const fkm_pass_options &o, bool with_distances)
    {
        fkm_pass a = pass(0, o, with_distances), c = pass(1, o, with_distances);
        assert_memory_equal(labels[0].data(), labels[1].data(), labels[0].size() * 4);
        if (with_distances)
            assert_memory_equal(distances[0].data(), distances[1].data(), distances[0].size() * 8);
        assert_int_equal(a.rows, c.rows);
        assert_int_equal(a.skipped, c.skipped);
        assert_int_equal(a.moved, c.moved);
        assert_int_equal(a.empty, c.empty);
        assert_memory_equal(&a.inertia, &c.inertia, sizeof a.inertia);
        /* no label without a candidate */
        assert_true(c.candidates + c.skipped_by_bounds >= c.rows);
        spared += c.skipped_by_bounds;
    }

    void compare_moves()
    {
        double shift[2];
        for (int i = 0; i < 2; i++)
            OK(ops[i]->move(b[i], &shift[i], &e));
        assert_memory_equal(&shift[0], &shift[1], sizeof shift[0]);
    }

    void compare_centroids()
    {
        const size_t k = (size_t)p->plan.clusters;
        std::vector<float> c[2];
        std::vector<int64_t> counts[2];
        for (int i = 0; i < 2; i++) {
            c[i].resize(k * (size_t)p->plan.dims);
            counts[i].resize(k);
            OK(ops[i]->get_centroids(b[i], c[i].data(), counts[i].data(), &e));
        }
        assert_memory_equal(c[0].data(), c[1].data(), c[0].size() * 4);
        assert_memory_equal(counts[0].data(), counts[1].data(), k * 8);
    }

    void compare_outside_passes()
    {
        const size_t top = (size_t)p->plan.top;
        chunks([&](const fkm_rows &r) {
            std::vector<double> d[2], all[2];
            std::vector<int32_t> near[2];
            for (int i = 0; i < 2; i++) {
                d[i].resize((size_t)r.count);
                all[i].resize((size_t)r.count * top);
                near[i].resize((size_t)r.count * top);
                OK(ops[i]->distances(b[i], &r, labels[i].data() + r.row0, d[i].data(), &e));
                if (top > 1)
                    OK(ops[i]->nearest(b[i], &r, p->plan.top, near[i].data(), all[i].data(), &e));
            }
            assert_memory_equal(d[0].data(), d[1].data(), d[0].size() * 8);
            if (top > 1) {
                assert_memory_equal(near[0].data(), near[1].data(), near[0].size() * 4);
                assert_memory_equal(all[0].data(), all[1].data(), all[0].size() * 8);
            }
        });
    }
};

static const char *const list_of[] = {"0", "0", "0,1", "2,0,1"};

/* How many devices this round may use. */
static inline int32_t devices_for(random_numbers *r)
{
#ifdef FKM_CUDA_ON_CPU
    char many[2] = {(char)('1' + r->below(3)), 0};
    setenv("CUO_DEVICES", many, 1);
    cuo_reset();
    cuo_set("STREAMS", r->one_of<const char *>({"lazy", "eager", "random"}));
    cuo_set("ORDER", r->one_of<const char *>({"forward", "reverse", "random"}));
    cuo_set("MMA", r->one_of<const char *>({"rounded", "exact", "worst"}));
    return many[0] - '0';
#else
    (void)r;
    return 1;
#endif
}

#endif
