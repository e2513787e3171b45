/* The CUDA backend against the CPU's, bit for bit: labels, distances, counters that do not depend
 * on the path, inertia, centroids, over random shapes, types, chunks and numbers of devices. */
#include "cuda_test.h"

namespace
{

/* Both backends side by side. */
struct pair {
    const problem *p;
    const fkm_backend_ops *ops[2];
    fkm_backend *b[2];
    std::vector<int32_t> labels[2];
    std::vector<double> distances[2];
    fkm_err e;
    bool pinned; /* the rows, so that copies are asynchronous */

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
        assert_true(c.candidates >= c.rows); /* no label without a candidate */
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

const char *const list_of[] = {"0", "0", "0,1", "2,0,1"};

/* How many devices this round may use. */
int32_t devices_for(random_numbers *r)
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

void one_round(uint64_t seed)
{
    random_numbers r(seed);
    int32_t devices = devices_for(&r);
    problem p = make_problem(&r, (kind)r.below(KINDS));
    const char *isa = fkm_backend_cuda_isa((int)r.below(3));
    int64_t budget = r.below(3) ? 0 : (1 + r.below(6)) << 20;
    pair both(&p, isa, list_of[devices], budget, r.below(2));
    for (int start = 0; start < 2; start++) {
        bool squares = true;
        both.start();
        if (r.below(2))
            both.hand_in(&r);
        for (int i = 0; i < 5; i++) {
            fkm_pass_options o;
            o.update = r.below(5) != 0;
            o.squares = o.update && squares;
            o.labels_later = r.below(2);
            squares = squares && !o.update;
            if (squares && i == 4)
                break; /* no pass with update yet */
            both.compare_passes(o, r.below(3) == 0);
            if (!o.update)
                continue;
            both.compare_centroids();
            if (r.below(4))
                both.compare_moves();
        }
        both.compare_outside_passes();
    }
}

void same_bits(void **)
{
    const char *from = getenv("ROUND"), *rounds = getenv("ROUNDS");
    uint64_t first = from ? strtoull(from, NULL, 10) : 1;
    uint64_t count = from ? 1 : rounds ? strtoull(rounds, NULL, 10) : 20;
    for (uint64_t seed = first; seed < first + count; seed++) {
        printf("ROUND=%llu\n", (unsigned long long)seed); /* to do it again */
        one_round(seed);
    }
}

/* Many passes in which few rows move: sums are changed, not rebuilt. */
void same_bits_when_few_move(void **)
{
    random_numbers r(5);
    devices_for(&r);
    for (int wide = 0; wide < 2; wide++) {
        problem p;
        memset(&p.plan, 0, sizeof p.plan);
        p.plan.rows = 600;
        p.plan.chunk_rows = 250;
        p.plan.dims = 5;
        p.plan.clusters = 6;
        p.plan.dtype = FKM_F32;
        p.plan.update = true;
        p.plan.wide = wide;
        p.plan.top = 1;
        p.plan.threads = 1;
        fill(&p, &r, NORMAL);
        choose_scale(&p, wide);
        for (int32_t i = 0; i < p.plan.clusters * p.plan.dims; i++)
            p.centroids.push_back((float)r.normal());
        pair both(&p, NULL, "0", 0, true);
        both.start();
        for (int i = 0; i < 25; i++) {
            fkm_pass_options o = {true, i == 0, true};
            both.compare_passes(o, false);
            both.compare_centroids();
            both.compare_moves();
        }
    }
}

/* A pass that is given up, then a new problem: nothing of it is left. */
void abandoned_pass(void **)
{
    random_numbers r(7);
    devices_for(&r);
    problem p = make_problem(&r, BLOBS);
    pair both(&p, NULL, "0", 0, true);
    both.start();
    fkm_err e;
    fkm_pass_options o = {true, true, false};
    std::vector<int32_t> gone((size_t)p.plan.rows, -1);
    OK(both.ops[1]->begin(both.b[1], &o, &e));
    fkm_rows first = {p.row(0), 0, p.plan.chunk_rows};
    OK(both.ops[1]->feed(both.b[1], &first, gone.data(), NULL, &e));
    both.start();
    gone.assign(gone.size(), 12345);
    both.compare_passes(o, true);
    for (int32_t label : gone)
        assert_int_equal(label, 12345); /* nobody wrote there */
}

} // namespace

int main()
{
    skip_without_gpu();
    const CMUnitTest tests[] = {
        cmocka_unit_test(same_bits),
        cmocka_unit_test(same_bits_when_few_move),
        cmocka_unit_test(abandoned_pass),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
