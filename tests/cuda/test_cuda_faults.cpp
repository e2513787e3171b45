/* What the CUDA backend does when the device fails: every call of the CUDA runtime fails once, for
 * want of memory or for good. Nothing leaks, nothing hangs, the status is the right one, and the
 * message names the device; a run that succeeds all the same gives the right labels. On the layer
 * only: a GPU cannot be told to fail. */
#include "cuda_test.h"

#include "../short_form.h"

#include <algorithm>
#include <map>

#ifndef FKM_CUDA_ON_CPU
int main()
{
    printf("skipped: needs the CUDA-on-CPU layer\n");
    return 77;
}
#else

namespace
{

problem small_problem()
{
    random_numbers r(3);
    problem p;
    memset(&p.plan, 0, sizeof p.plan);
    p.plan.rows = 300;
    p.plan.chunk_rows = 128;
    p.plan.dims = 6;
    p.plan.clusters = 5;
    p.plan.dtype = FKM_F32;
    p.plan.update = p.plan.keep = true;
    p.plan.top = 2;
    p.plan.threads = 1;
    fill(&p, &r, NORMAL);
    choose_scale(&p, false);
    for (int32_t i = 0; i < p.plan.clusters * p.plan.dims; i++)
        p.centroids.push_back((float)r.normal());
    return p;
}

/* A short run: passes, moves, distances, nearest lists. */
fkm_status run(const problem &p, std::vector<int32_t> *labels, int64_t device_bytes, fkm_err *e,
    int passes = 3)
{
    const fkm_backend_ops *ops = &fkm_backend_cuda;
    fkm_backend *b = NULL;
    fkm_plan plan = p.plan;
    fkm_pass out;
    fkm_status st = FKM_OK;
    double shift;
    const int64_t chunk = plan.chunk_rows;
    std::vector<int32_t> near((size_t)(2 * chunk));
    std::vector<double> far((size_t)(2 * chunk));
    std::vector<float> c(p.centroids.size());
    plan.device_bytes = device_bytes;
    labels->assign((size_t)plan.rows, -1);
    const bool pinned = ops->pin((void *)p.rows.data(), p.rows.size()); /* copies do not wait */
    FKM_GO(ops->probe(NULL, e));
    FKM_GO(ops->open(&b, &plan, e));
    ops->reset(b);
    FKM_GO(ops->set_centroids(b, p.centroids.data(), e));
    FKM_GO(ops->set_scale(b, p.scale, e));
    for (int pass = 0; pass < passes; pass++) {
        fkm_pass_options o = {true, pass == 0, pass != passes - 1, false};
        FKM_GO(ops->begin(b, &o, e));
        for (int64_t at = 0; at < plan.rows; at += chunk) {
            fkm_rows r = {p.row(at), at, plan.rows - at < chunk ? plan.rows - at : chunk};
            FKM_GO(ops->feed(b, &r, labels->data() + at, NULL, e));
        }
        FKM_GO(ops->end(b, &out, e));
        if (pass != passes - 1)
            FKM_GO(ops->move(b, &shift, e));
    }
    {
        fkm_rows first = {p.row(0), 0, chunk};
        FKM_GO(ops->distances(b, &first, labels->data(), far.data(), e));
        FKM_GO(ops->nearest(b, &first, 2, near.data(), far.data(), e));
    }
    FKM_GO(ops->get_centroids(b, c.data(), NULL, e));
out:
    ops->close(b);
    if (pinned)
        ops->unpin((void *)p.rows.data());
    return st;
}

/* Calls from..to of the run that was just done, with CUO_PLACES: all, or, for each place that calls
 * (by its callers), the first, the second and the last time. */
std::vector<int64_t> calls_to_fail(int64_t from, int64_t to)
{
    std::map<uint64_t, std::vector<int64_t>> places;
    std::vector<int64_t> calls;
    for (int64_t n = from; n <= to; n++) {
        assert_true(cuo_place(n) != 0);
        places[short_form() ? cuo_place(n) : (uint64_t)n].push_back(n);
    }
    for (const auto &place : places) {
        const std::vector<int64_t> &at = place.second;
        for (size_t i = 0; i < at.size(); i++)
            if (i < 2 || i == at.size() - 1)
                calls.push_back(at[i]);
    }
    std::sort(calls.begin(), calls.end());
    printf(
        "%zu places, %zu of %lld calls\n", places.size(), calls.size(), (long long)(to - from + 1));
    return calls;
}

struct tally {
    int failed, survived;
};

/* A run in which call n fails once, or it and all later ones. */
void one_fault(const problem &p, const std::vector<int32_t> &right, int64_t n, bool sticky,
    int code, int64_t budget, int passes, tally *t)
{
    char fault[64];
    std::vector<int32_t> labels;
    fkm_err e;
    memset(&e, 0, sizeof e);
    snprintf(fault, sizeof fault, "%lld%s:%d", (long long)n, sticky ? "+" : "", code);
    setenv("CUO_FAIL", fault, 1);
    cuo_reset();
    fkm_status st = run(p, &labels, budget, &e, passes);
    cuo_counts_t c = cuo_counts();
    unsetenv("CUO_FAIL");
    if (st == FKM_OK) { /* smaller pieces, fewer rows kept, no graph, or in closing */
        assert_memory_equal(right.data(), labels.data(), right.size() * 4);
        t->survived++;
        return;
    }
    t->failed++;
    if (st != (code == 2 ? FKM_ENOMEM : FKM_EDEVICE))
        fail_msg("CUO_FAIL=%s: status %d: %s", fault, (int)st, e.msg);
    assert_true(e.code == st && e.msg[0] != '\0');
    assert_non_null(strstr(e.msg, n > 20 ? "cuda:" : "cuda"));
    /* after a sticky fault nothing can be freed either; else only a failed free loses */
    if (!sticky && (c.device_blocks != 0 || c.host_blocks != 0))
        fail_msg("CUO_FAIL=%s: %lld device and %lld host blocks left", fault,
            (long long)c.device_blocks, (long long)c.host_blocks);
}

/* A run that nothing disturbs; how many calls it makes. */
int64_t count_calls(const problem &p, std::vector<int32_t> *labels, int64_t budget, int passes)
{
    fkm_err e;
    memset(&e, 0, sizeof e);
    setenv("CUO_PLACES", "1", 1);
    cuo_reset();
    OK(run(p, labels, budget, &e, passes));
    unsetenv("CUO_PLACES");
    return cuo_counts().calls;
}

void fault_at_every_call(void **)
{
    const problem p = small_problem();
    std::vector<int32_t> right, labels;
    tally t = {0, 0};
    setenv("CUO_DEVICES", "2", 1);
    assert_true(count_calls(p, &right, 0, 3) > 100);
    const int64_t most = cuo_counts().peak_bytes / 2;
    for (int code : {2, 700}) { /* cudaErrorMemoryAllocation, cudaErrorIllegalAddress */
        const int64_t budget = code == 2 ? 0 : most - 4096; /* some rows travel */
        const std::vector<int64_t> calls = calls_to_fail(1, count_calls(p, &labels, budget, 3));
        for (size_t i = 0; i < calls.size(); i++)
            one_fault(p, right, calls[i], false, code, budget, 3, &t);
        for (size_t i = 0; i < calls.size(); i += 5)
            one_fault(p, right, calls[i], true, code, budget, 3, &t);
    }
    cuo_reset();
    printf("%d runs failed, %d went on\n", t.failed, t.survived);
    assert_true(t.failed > t.survived && t.survived > 0);
}

/* While passes are captured and launched as graphs: what cannot be captured is queued call by call.
 */
void fault_in_a_graph(void **)
{
    problem p = small_problem();
    std::vector<int32_t> right;
    tally t = {0, 0};
    p.plan.chunk_rows = p.plan.rows;
    setenv("CUO_DEVICES", "1", 1);
    const int64_t from = count_calls(p, &right, 0, 2) / 2, to = count_calls(p, &right, 0, 8);
    assert_true(cuo_counts().graphs > 3);
    const std::vector<int64_t> calls = calls_to_fail(from, to);
    for (size_t i = 0; i < calls.size(); i++)
        one_fault(p, right, calls[i], false, 2, 0, 8, &t); /* cudaErrorMemoryAllocation */
    for (size_t i = 0; i < calls.size(); i += 3)
        one_fault(p, right, calls[i], false, 900, 0, 8, &t); /* ...StreamCaptureUnsupported */
    cuo_reset();
    printf("%d runs failed, %d went on\n", t.failed, t.survived);
    assert_true(t.failed > 25 && t.survived > 25);
}

/* Less and less memory: rows stay, rows travel, pieces shrink, and in the end a clear refusal. */
void budgets(void **)
{
    const problem p = small_problem();
    std::vector<int32_t> right, labels;
    fkm_err e;
    memset(&e, 0, sizeof e);
    unsetenv("CUO_FAIL");
    setenv("CUO_DEVICES", "1", 1);
    cuo_reset();
    OK(run(p, &right, 0, &e));
    const int64_t peak = cuo_counts().peak_bytes;
    int64_t least = 0;
    for (int64_t bytes = 2 * peak; bytes > 0; bytes -= short_form() ? 2477 : 997) {
        cuo_reset();
        memset(&e, 0, sizeof e);
        fkm_status st = run(p, &labels, bytes, &e);
        if (cuo_counts().peak_bytes > bytes)
            fail_msg("%lld bytes allowed, %lld used", (long long)bytes,
                (long long)cuo_counts().peak_bytes);
        assert_int_equal(cuo_counts().device_blocks, 0);
        if (st != FKM_OK) {
            assert_int_equal(st, FKM_ENOMEM);
            assert_non_null(strstr(e.msg, "cuda:0"));
            continue;
        }
        least = bytes;
        assert_memory_equal(right.data(), labels.data(), right.size() * 4);
    }
    printf("all on the device: %lld bytes; least: %lld\n", (long long)peak, (long long)least);
    assert_true(least < peak / 10 * 8);
}

/* What a machine without a usable driver says. */
void no_device(void **)
{
    for (const char *code : {"34", "35", "100"}) {
        fkm_err e;
        memset(&e, 0, sizeof e);
        setenv("CUO_NO_DEVICE", code, 1);
        cuo_reset();
        assert_int_equal(fkm_backend_cuda.probe(NULL, &e), FKM_EDEVICE);
        assert_non_null(strstr(e.msg, code[0] == '3' ? "driver" : "no CUDA device"));
    }
    unsetenv("CUO_NO_DEVICE");
    setenv("CUO_CC", "7.5", 1);
    cuo_reset();
    fkm_err e;
    memset(&e, 0, sizeof e);
    assert_int_equal(fkm_backend_cuda.probe(NULL, &e), FKM_EDEVICE);
    assert_non_null(strstr(e.msg, "7.5"));
    unsetenv("CUO_CC");
    cuo_reset();
}

void device_lists(void **)
{
    unsetenv("CUO_FAIL");
    setenv("CUO_DEVICES", "3", 1);
    cuo_reset();
    const struct {
        const char *list;
        fkm_status st;
    } cases[] = {{"0", FKM_OK}, {"2,0,1", FKM_OK}, {"3", FKM_EDEVICE}, {"99999999999", FKM_EDEVICE},
        {"0,0", FKM_EUSAGE}, {"", FKM_EUSAGE}, {"1,", FKM_EUSAGE}, {"-1", FKM_EUSAGE},
        {"1 ", FKM_EUSAGE}};
    for (auto &c : cases) {
        fkm_err e;
        memset(&e, 0, sizeof e);
        if (fkm_backend_cuda.probe(c.list, &e) != c.st)
            fail_msg("devices \"%s\": %s", c.list, e.msg);
    }
    unsetenv("CUO_DEVICES");
    cuo_reset();
}

} // namespace

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(fault_at_every_call),
        cmocka_unit_test(fault_in_a_graph),
        cmocka_unit_test(budgets),
        cmocka_unit_test(no_device),
        cmocka_unit_test(device_lists),
    };
    cmocka_set_test_filter(getenv("ONLY"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
