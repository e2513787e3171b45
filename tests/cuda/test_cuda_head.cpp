/* Screening by a head on the GPU: rows whose variance decays are screened by fewer coordinates,
 * rows that are flat are not, and the bits are the CPU's in either case. Planted: half the margin.
 */
#include "cuda_test.h"

#include "../short_form.h"

#include "../../cuda/head.cuh"

namespace
{

enum { ROWS = 4200, DIMS = 384, CLUSTERS = 60 };

problem make(double decay, fkm_dtype type)
{
    random_numbers r(11);
    problem p;
    memset(&p.plan, 0, sizeof p.plan);
    p.plan.rows = p.plan.chunk_rows = ROWS;
    p.plan.dims = DIMS;
    p.plan.clusters = CLUSTERS;
    p.plan.dtype = type;
    p.plan.update = true;
    p.plan.top = p.plan.threads = 1;
    p.rows.resize((size_t)ROWS * DIMS * fkm_dtype_size(type));
    for (int64_t i = 0; i < ROWS; i++)
        for (int32_t t = 0; t < DIMS; t++) /* the order of coordinates must not matter */
            store(&p, i, t * 5 % DIMS, r.normal() * exp(-decay * t));
    store(&p, 17, 3, 1e4); /* far outside what fp16 holds at this scale, or nearly */
    if (type == FKM_F32)
        store(&p, 40, 0, NAN);
    choose_scale(&p, false);
    for (int32_t j = 0; j < CLUSTERS; j++)
        for (int32_t t = 0; t < DIMS; t++)
            p.centroids.push_back(p.value(100 + 61 * j, t));
    return p;
}

/* Three iterations of both backends; the kernel that the GPU ended with. */
void run(const problem &p, char *kernel, size_t room)
{
    const fkm_backend_ops *ops[2] = {&fkm_backend_cpu, &fkm_backend_cuda};
    std::vector<int32_t> labels[2];
    std::vector<float> c[2];
    fkm_pass out[2][3];
    fkm_err e;
    memset(&e, 0, sizeof e);
    for (int i = 0; i < 2; i++) {
        fkm_backend *b = NULL;
        double shift;
        labels[i].assign(ROWS, -1);
        c[i].resize(p.centroids.size());
        OK(ops[i]->open(&b, &p.plan, &e));
        ops[i]->reset(b);
        OK(ops[i]->set_centroids(b, p.centroids.data(), &e));
        OK(ops[i]->set_scale(b, p.scale, &e));
        for (int pass = 0; pass < 3; pass++) {
            fkm_pass_options o = {true, pass == 0, false, false};
            fkm_rows r = {p.row(0), 0, ROWS};
            OK(ops[i]->begin(b, &o, &e));
            OK(ops[i]->feed(b, &r, labels[i].data(), NULL, &e));
            OK(ops[i]->end(b, &out[i][pass], &e));
            OK(ops[i]->move(b, &shift, &e));
        }
        OK(ops[i]->get_centroids(b, c[i].data(), NULL, &e));
        snprintf(kernel, room, "%s", ops[i]->isa(b));
        ops[i]->close(b);
    }
    for (int pass = 0; pass < 3; pass++) {
        assert_int_equal(out[0][pass].moved, out[1][pass].moved);
        assert_memory_equal(&out[0][pass].inertia, &out[1][pass].inertia, sizeof(double));
    }
    assert_memory_equal(labels[0].data(), labels[1].data(), ROWS * sizeof(int32_t));
    assert_memory_equal(c[0].data(), c[1].data(), c[0].size() * sizeof(float));
}

void decaying_rows(void **)
{
    char kernel[64];
    for (fkm_dtype type : {FKM_F32, FKM_F16}) {
        if (type == FKM_F16 && short_form_of("asan"))
            continue;
        run(make(0.03, type), kernel, sizeof kernel);
        printf("decaying: %s\n", kernel);
        assert_non_null(strstr(kernel, "128k")); /* that of short packed rows */
    }
}

void flat_rows(void **)
{
    char kernel[64];
    run(make(0, FKM_F32), kernel, sizeof kernel);
    printf("flat: %s\n", kernel);
    assert_null(strstr(kernel, "128k"));
}

/* Orthonormal to what `gram` says, and turned towards the variance. */
void axes(void **)
{
    random_numbers r(2);
    std::vector<float> sample((size_t)FKM_HEAD_SAMPLE * DIMS), a(192 * DIMS), gram(192);
    fkm_err e;
    memset(&e, 0, sizeof e);
    for (size_t i = 0; i < sample.size(); i++)
        sample[i] = (float)(r.normal() * exp(-0.03 * (double)(i % DIMS)));
    OK(fkm_head_axes(a.data(), gram.data(), sample.data(), DIMS, 2, &e));
    double sum = 0, first = 0;
    for (int i = 0; i < 64; i++)
        for (int k = 0; k < 64; k++) {
            double g = 0;
            for (int t = 0; t < DIMS; t++)
                g += (double)a[i * DIMS + t] * a[k * DIMS + t];
            sum += (g - (i == k)) * (g - (i == k));
        }
    assert_true(sqrt(sum) <= gram[63] && gram[63] < 1e-4);
    for (int t = 0; t < 10; t++)
        first += (double)a[t] * a[t];
    assert_true(first > 0.9); /* the first axis lies among the first coordinates */
}

} // namespace

int main()
{
    fkm_head_least_products = 0;
    const CMUnitTest tests[] = {
        cmocka_unit_test(axes),
        cmocka_unit_test(decaying_rows),
        cmocka_unit_test(flat_rows),
    };
    return RUN_ON_GPU(tests);
}
