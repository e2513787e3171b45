/* Bounds that spare rows the search (cuda/bounds.cuh): the same bits as the CPU's, over passes in
 * which rows are spared; and rows for which the bound is no larger than it must be. */
#include "cuda_test.h"

#include "../../cuda/bounds.cuh"

namespace
{

problem make_line(int32_t clusters, int64_t rows)
{
    problem p;
    memset(&p.plan, 0, sizeof p.plan);
    p.plan.rows = p.plan.chunk_rows = rows;
    p.plan.dims = 1;
    p.plan.clusters = clusters;
    p.plan.dtype = FKM_F32;
    p.plan.update = true;
    p.plan.top = p.plan.threads = 1;
    p.rows.resize((size_t)rows * sizeof(float));
    for (int64_t i = 0; i < rows; i++)
        store(&p, i, 0, 100 * (double)((i * 7919) % rows) / (double)rows);
    choose_scale(&p, false);
    return p;
}

/* On a line a row may be as unlucky as the bound fears: its own centroid goes away from it and the
 * next one comes nearer. Half of the movement (CUO_PLANT=6) mislabels some. */
void no_larger_than_it_must_be(void **)
{
    random_numbers r(3);
    devices_for(&r);
    problem p = make_line(6, 3000);
    p.centroids = {10, 26, 41, 57, 71, 95};
    for (const char *isa : {"f16", "bf16", "s8"}) {
        pair both(&p, isa, "0", 0, false);
        both.start();
        for (int i = 0; i < 14; i++) {
            fkm_pass_options o = {true, i == 0, true, false};
            both.compare_passes(o, false);
            both.compare_moves();
        }
        printf("%s: %lld of %lld rows spared\n", isa, (long long)both.spared,
            (long long)(14 * p.plan.rows));
        assert_true(both.spared > 2 * p.plan.rows);
    }
}

float rounded_up(double v)
{
    const float f = (float)v;
    return f < v ? nextafterf(f, INFINITY) : f;
}

/* What rows lose by movements, of few clusters by one block and of many by several, against the
 * definition. Movements of the same magnitude: their sums are exact in float64. */
void movements_of_many(void **)
{
    random_numbers r(9);
    devices_for(&r);
    const float scale = 0.5f;
    for (int32_t clusters : {1, 2, 300, 4096, 4097, 9000, 40000}) {
        std::vector<double> shift((size_t)clusters);
        std::vector<float> moved, drop((size_t)clusters), again(drop);
        int32_t at = 0, next = -1;
        for (double &s : shift)
            s = 2 + 2 * (double)r.below(1 << 20) / (1 << 20);
        shift[(size_t)r.below((uint32_t)clusters)] = 4; /* twice, perhaps */
        shift[(size_t)clusters - 1] = 4;
        for (double s : shift)
            moved.push_back(rounded_up(s * scale * (1 + 0x1p-20)));
        for (int32_t j = 1; j < clusters; j++)
            at = moved[(size_t)j] > moved[(size_t)at] ? j : at;
        for (int32_t j = 0; j < clusters; j++)
            if (j != at && (next < 0 || moved[(size_t)j] > moved[(size_t)next]))
                next = j;
        double *d_shift;
        float *d_drop;
        fkm_top_two *part;
        const size_t bytes = drop.size() * sizeof drop[0];
        assert_int_equal(cudaMalloc((void **)&d_shift, 2 * bytes), cudaSuccess);
        assert_int_equal(cudaMalloc((void **)&d_drop, bytes), cudaSuccess);
        assert_int_equal(cudaMalloc((void **)&part, FKM_TOP_TWOS * sizeof *part), cudaSuccess);
        assert_int_equal(
            cudaMemcpy(d_shift, shift.data(), 2 * bytes, cudaMemcpyHostToDevice), cudaSuccess);
        for (bool add : {false, true}) {
            std::vector<float> &to = add ? again : drop;
            assert_int_equal(
                fkm_bounds_move(d_drop, part, d_shift, clusters, scale, add, 0), cudaSuccess);
            assert_int_equal(
                cudaMemcpy(to.data(), d_drop, bytes, cudaMemcpyDeviceToHost), cudaSuccess);
        }
        for (int32_t j = 0; j < clusters; j++) {
            const double other = j != at ? moved[(size_t)at] : next < 0 ? 0 : moved[(size_t)next];
            const float own = rounded_up((double)moved[(size_t)j] * (1 + 0x1p-20));
            assert_true(drop[(size_t)j] == rounded_up(own + other));
            assert_true(again[(size_t)j] == rounded_up(2 * (double)drop[(size_t)j]));
        }
        assert_int_equal(cudaFree(d_shift), cudaSuccess);
        assert_int_equal(cudaFree(d_drop), cudaSuccess);
        assert_int_equal(cudaFree(part), cudaSuccess);
    }
}

/* Centroids that are set instead of moved: what bounds knew is gone (CUO_PLANT=8: it is not). */
void centroids_set(void **)
{
    random_numbers r(4);
    devices_for(&r);
    problem p = make_line(5, 1000);
    p.centroids = {10, 30, 50, 70, 90};
    pair both(&p, NULL, "0", 0, false);
    both.start();
    fkm_err e;
    for (int i = 0; i < 9; i++) {
        fkm_pass_options o = {true, i == 0, false, false};
        both.compare_passes(o, false);
        if (i != 5) {
            both.compare_moves();
            continue;
        }
        assert_true(both.spared > 0);
        const std::vector<float> other = {5, 21, 52, 73, 99};
        for (int k = 0; k < 2; k++)
            OK(both.ops[k]->set_centroids(both.b[k], other.data(), &e));
    }
}

/* Two centroids that begin far from where they will be: bounds spare nobody at first, and are left
 * alone in the pass that follows, although by then they would. */
void pauses(void **)
{
    random_numbers r(5);
    devices_for(&r);
    problem p = make_line(2, 1000);
    p.centroids = {0, 1};
    pair both(&p, NULL, "0", 0, false);
    int64_t spared[12], before = 0;
    both.start();
    for (int i = 0; i < 12; i++) {
        fkm_pass_options o = {true, i == 0, true, false};
        both.compare_passes(o, false);
        both.compare_moves();
        spared[i] = both.spared - before;
        before = both.spared;
        printf("%d: %lld\n", i, (long long)spared[i]);
    }
    assert_true(spared[2] < p.plan.rows / 10); /* the first pass with bounds */
    assert_int_equal(spared[3], 0);            /* paused */
    assert_int_equal(spared[4], 0);            /* made anew */
    assert_true(spared[5] > p.plan.rows / 4);
}

/* Fewer rows than keep a GPU busy, fewer from pass to pass: blocks share them, each with a part of
 * the centroids. CUO_PLANT=12: the last part is lost. */
void few_rows(void **)
{
    random_numbers r(6);
    for (const char *isa : {"f16", "s8"}) {
        problem p = make_line(520, 620);
        for (int j = 0; j < 520; j++)
            p.centroids.push_back((float)(100 * r.uniform()));
        devices_for(&r);
#ifdef FKM_CUDA_ON_CPU
        cuo_set("SMS", "12");
#endif
        pair both(&p, isa, "0", 0, false);
        both.start();
        for (int i = 0; i < 4; i++) {
            fkm_pass_options o = {true, i == 0, true, false};
            both.compare_passes(o, false);
            both.compare_moves();
        }
#ifdef FKM_CUDA_ON_CPU
        cuo_set("SMS", NULL);
#endif
        assert_true(both.spared > 0);
    }
}

void one_round(uint64_t seed, int64_t *spared)
{
    random_numbers r(seed);
    int32_t devices = devices_for(&r);
    problem p = make_problem(&r, r.below(3) ? BLOBS : (kind)r.below(KINDS));
    const char *isa = fkm_backend_cuda_isa((int)r.below(3));
    int64_t budget = r.below(4) ? 0 : (1 + r.below(6)) << 20;
    pair both(&p, isa, list_of[devices], budget, r.below(2));
    for (int start = 0; start < 2; start++) {
        both.start();
        for (int i = 0; i < 8; i++) {
            fkm_pass_options o;
            o.update = i == 0 || r.below(6) != 0;
            o.squares = i == 0;
            o.labels_later = r.below(2);
            o.unlabelled = false;
            both.compare_passes(o, r.below(4) == 0);
            if (o.update)
                both.compare_centroids();
            if (o.update && r.below(5))
                both.compare_moves();
        }
    }
    *spared += both.spared;
}

void same_bits(void **)
{
    const char *from = getenv("ROUND"), *rounds = getenv("ROUNDS");
    uint64_t first = from ? strtoull(from, NULL, 10) : 1;
    uint64_t count = rounds ? strtoull(rounds, NULL, 10) : from ? 1 : 10;
    int64_t spared = 0;
    for (uint64_t seed = first; seed < first + count; seed++) {
        printf("ROUND=%llu\n", (unsigned long long)seed); /* to do it again */
        one_round(seed, &spared);
    }
    printf("%lld rows spared\n", (long long)spared);
    assert_true(from || spared > 0);
}

} // namespace

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(movements_of_many),
        cmocka_unit_test(no_larger_than_it_must_be),
        cmocka_unit_test(centroids_set),
        cmocka_unit_test(pauses),
        cmocka_unit_test(few_rows),
        cmocka_unit_test(same_bits),
    };
    return RUN_ON_GPU(tests);
}
