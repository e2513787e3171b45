/* Rows of 8 bits are screened by int8 where that leaves little in doubt: found on the first rows,
 * and judged after each pass. Whatever is chosen, the bits are the CPU's. */
#include "cuda_test.h"

#include "../../cuda/head.cuh"

namespace
{

enum { ROWS = 1500, DIMS = 32, CLUSTERS = 40, PLAIN = 1100 };

/* How rows lie. FAR: clusters far apart, as int8 likes it. NEAR: one coordinate is large and says
 * nothing, so that centroids in 8 bits are no longer told apart by the others. TURNING: PLAIN rows
 * of the first kind come before the others. */
enum layout { FAR, NEAR, TURNING };

problem make(layout l, fkm_dtype type)
{
    random_numbers r(11);
    problem p;
    memset(&p.plan, 0, sizeof p.plan);
    p.plan.rows = ROWS;
    p.plan.chunk_rows = l == TURNING ? ROWS : 1200;
    p.plan.dims = DIMS;
    p.plan.clusters = CLUSTERS;
    p.plan.dtype = type;
    p.plan.update = true;
    p.plan.top = p.plan.threads = 1;
    p.rows.resize(ROWS * DIMS);
    std::vector<double> centre(CLUSTERS * DIMS);
    for (double &c : centre)
        c = r.normal();
    const int32_t half = CLUSTERS / 2;
    for (int64_t i = 0; i < ROWS; i++) {
        const int64_t j = i < PLAIN ? i % half : half + (i - PLAIN) % half;
        const bool near = l == NEAR || (l == TURNING && j >= half);
        for (int32_t t = 0; t < DIMS; t++) {
            double v = near ? 0.06 * r.normal() + 0.02 * centre[(size_t)(j * DIMS + t)]
                            : 2 * centre[(size_t)(j * DIMS + t)] + 0.2 * r.normal();
            store(&p, i, t, near && t == 0 ? (r.below(2) ? 6.3 : -6.3) : v);
        }
    }
    for (int32_t j = 0; j < CLUSTERS; j++)
        for (int32_t t = 0; t < DIMS; t++)
            p.centroids.push_back(p.value(j < half ? j : PLAIN + j - half, t));
    choose_scale(&p, false);
    return p;
}

/* What the backend screens by, first and last: "s8-..." or "f16-...". */
void run(layout l, fkm_dtype type, const char *isa, const char *first, const char *last)
{
    random_numbers r(1);
    const char *devices = list_of[devices_for(&r)];
    const problem p = make(l, type);
    pair both(&p, isa, devices, 0, false);
    std::string seen;
    for (int start = 0; start < (l == TURNING ? 2 : 1); start++) {
        both.start();
        for (int i = 0; i < 4; i++) {
            fkm_pass_options o = {true, i == 0, true, false};
            both.compare_passes(o, i == 2);
            const char *name = both.ops[1]->isa(both.b[1]), *want = i == 0 ? first : last;
            seen += std::string(name) + " ";
            if ((i == 0 || i == 3) && strncmp(name, want, strlen(want)) != 0)
                fail_msg("pass %d by %s, expected %s", i, name, want);
            both.compare_centroids();
            both.compare_moves();
        }
    }
    printf("%s\n", seen.c_str());
}

void far_apart(void **)
{
    run(FAR, FKM_U8, NULL, "s8", "s8");
    run(FAR, FKM_I8, NULL, "s8", "s8");
    run(FAR, FKM_U8, "f16", "f16", "f16");
}

void near_together(void **)
{
    run(NEAR, FKM_U8, NULL, "f16", "f16");
    run(NEAR, FKM_I8, "s8", "s8", "s8"); /* as asked */
}

void found_out_later(void **)
{
    run(TURNING, FKM_U8, NULL, "s8", "f16");
}

} // namespace

int main()
{
    fkm_int8_least_products = 0;
    const CMUnitTest tests[] = {
        cmocka_unit_test(far_apart),
        cmocka_unit_test(near_together),
        cmocka_unit_test(found_out_later),
    };
    return RUN_ON_GPU(tests);
}
