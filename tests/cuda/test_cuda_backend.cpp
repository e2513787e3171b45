/* The CUDA backend against the CPU's, bit for bit: labels, distances, counters that do not depend on
 * the path, inertia, centroids, over random shapes, types, chunks and numbers of devices. */
#include "cuda_test.h"

namespace
{

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
