/* The margin of screening on the matrix units (cuda/margin.cuh) is no larger than it must be: rows
 * made so that half of it gives wrong labels. With the whole margin they are right; the suite also
 * runs this with the margin halved (CUO_PLANT=2), and expects it to fail.
 *
 * Rounding: a row that loses nearly half a unit in each of 64 coordinates, along a centroid that
 * points that way, loses all that Cauchy-Schwarz allows.
 *
 * Adding up: after a first product of 513 the unit has steps of 2^-14. The true best, GOOD, then
 * adds 511 times 0.99 of a step, all of which may be cut off. The other, BAD, adds 511 times 0.01
 * of a step, each of which may become a whole one; its true score is a little lower. Needs the
 * layer's CUO_MMA=worst; there are 64 such rows, because directions of cuts depend on the place. */
#include "cuda_test.h"

namespace
{

enum { CLUSTERS = 7, GOOD = 5, BAD = 2, ROWS = 64 };

double distance(const float *x, const float *c, int32_t dims)
{
    return fkm_distance(x, c, dims);
}

/* Labels of ROWS times the row x; warm: they had the label BAD. */
std::vector<int32_t> labels_of(const std::vector<float> &x, const std::vector<float> &c,
    int32_t dims, const char *isa, bool warm)
{
    const fkm_backend_ops *ops = &fkm_backend_cuda;
    fkm_backend *b = NULL;
    fkm_err e;
    fkm_plan plan;
    fkm_pass pass;
    fkm_pass_options o;
    memset(&e, 0, sizeof e);
    memset(&plan, 0, sizeof plan);
    memset(&o, 0, sizeof o);
    plan.rows = plan.chunk_rows = ROWS;
    plan.dims = dims;
    plan.clusters = CLUSTERS;
    plan.dtype = FKM_F32;
    plan.top = plan.threads = 1;
    plan.isa = isa;
    std::vector<float> rows;
    for (int i = 0; i < ROWS; i++)
        rows.insert(rows.end(), x.begin(), x.end());
    std::vector<int32_t> labels(ROWS, warm ? BAD : -1);
    OK(ops->open(&b, &plan, &e));
    OK(ops->set_centroids(b, c.data(), &e));
    OK(ops->begin(b, &o, &e));
    fkm_rows r = {rows.data(), 0, ROWS};
    OK(ops->feed(b, &r, labels.data(), NULL, &e));
    OK(ops->end(b, &pass, &e));
    ops->close(b);
    return labels;
}

void check(const std::vector<float> &x, const std::vector<float> &c, int32_t dims, const char *isa)
{
    double good = distance(x.data(), &c[(size_t)(GOOD * dims)], dims);
    double bad = distance(x.data(), &c[(size_t)(BAD * dims)], dims);
    assert_true(good < bad); /* or the case is none */
    for (int warm = 0; warm < 2; warm++)
        for (int32_t label : labels_of(x, c, dims, isa, warm))
            assert_int_equal(label, GOOD);
}

void lost_in_rounding(void **)
{
    const int32_t dims = 66;
    for (int bf16 = 0; bf16 < 2; bf16++) {
        std::vector<float> x(dims, 0), c(CLUSTERS * dims, 0);
        x[0] = 16;
        for (int t = 1; t <= 64; t++) {
            x[t] = 1 + 0.49f * (bf16 ? 0x1p-7f : 0x1p-10f);
            c[GOOD * dims + t] = 0.125f;
        }
        double want = 64 * 0.125 * (double)x[1] - 0.5 - (bf16 ? 0.005 : 0.0005);
        c[BAD * dims] = (float)(16 - sqrt(256 - 2 * want)); /* 16 b - b^2 / 2 */
        check(x, c, dims, bf16 ? "bf16" : "f16");
    }
}

void lost_in_adding(void **)
{
    const int32_t dims = 512;
    std::vector<float> x(dims, 1), c(CLUSTERS * dims, 0);
    float *good = &c[GOOD * dims], *bad = &c[BAD * dims];
    x[0] = 1024;
    x[1] = 8;
    good[0] = bad[0] = 0.5f + 0x1p-10f; /* sums stay above 512 */
    for (int t = 2; t < dims; t++) {
        good[t] = 1014 * 0x1p-24f; /* 0.99 of a step of 2^-14, exact in fp16 once scaled */
        bad[t] = 10 * 0x1p-24f;
    }
    /* BAD's second coordinate brings it as near as it may come */
    for (int k = 0; k < 2048; k++) {
        float v = (float)k * 0x1p-18f, was = bad[1];
        bad[1] = v;
        if (distance(x.data(), bad, dims) > distance(x.data(), good, dims))
            continue;
        bad[1] = was;
        break;
    }
#ifdef FKM_CUDA_ON_CPU
    for (const char *seed : {"1", "2", "3"}) {
        cuo_set("MMA", "worst");
        cuo_set("SEED", seed);
        check(x, c, dims, "f16");
    }
    cuo_set("MMA", NULL);
    cuo_set("SEED", NULL);
#else
    check(x, c, dims, "f16");
#endif
}

} // namespace

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(lost_in_rounding),
        cmocka_unit_test(lost_in_adding),
    };
    return RUN_ON_GPU(tests);
}
