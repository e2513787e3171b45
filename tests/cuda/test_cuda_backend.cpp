/* The CUDA backend against the CPU's, bit for bit: labels, distances, counters that do not depend
 * on the path, inertia, centroids, over random shapes, types, chunks and numbers of devices. */
#include "cuda_test.h"

#include "../short_form.h"

extern "C" {
#include "../../src/base/clock.h"
}

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
        const bool unlabelled = !r.below(2);
        if (!unlabelled)
            both.hand_in(&r);
        for (int i = 0; i < 5; i++) {
            fkm_pass_options o;
            o.update = r.below(5) != 0;
            o.squares = o.update && squares;
            o.labels_later = r.below(2);
            o.unlabelled = unlabelled && i == 0;
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
    const bool tsan = short_form_of("tsan"); /* two that are small, on three devices */
    uint64_t first = from ? strtoull(from, NULL, 10) : tsan ? 17 : 1;
    uint64_t count = rounds                  ? strtoull(rounds, NULL, 10)
                     : from                  ? 1
                     : tsan                  ? 2
                     : short_form_of("asan") ? 4
                                             : 20;
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
        for (int i = 0; i < (short_form_of("tsan") ? 5 : 25); i++) {
            fkm_pass_options o = {true, i == 0, true, false};
            both.compare_passes(o, false);
            both.compare_centroids();
            both.compare_moves();
        }
    }
}

/* Time of labelling: a part of the pass, and most of it when hardly anything else is done. More
 * pieces than there are laps of a stopwatch. */
void time_of_labelling(void **)
{
    if (short_form_of("tsan"))
        skip(); /* nothing of it is about order */
    random_numbers r(11);
    devices_for(&r);
#ifdef FKM_CUDA_ON_CPU
    cuo_set("STREAMS", "eager");
#endif
    problem p;
    memset(&p.plan, 0, sizeof p.plan);
    p.plan.rows = 20 * 128;
    p.plan.chunk_rows = 128;
    p.plan.dims = 16;
    p.plan.clusters = 256;
    p.plan.dtype = FKM_F32;
    p.plan.update = true;
    p.plan.top = p.plan.threads = 1;
    fill(&p, &r, NORMAL);
    choose_scale(&p, false);
    for (int32_t i = 0; i < p.plan.clusters * p.plan.dims; i++)
        p.centroids.push_back((float)r.normal());
    pair both(&p, NULL, "0", 0, true);
    both.start();
    for (int i = 0; i < 2; i++) {
        fkm_pass_options o = {i > 0, i == 1, true, false};
        const double start = fkm_now();
        const fkm_pass out = both.pass(1, o, false);
        const double s = fkm_now() - start;
        assert_true(out.assign_s > 0 && out.assign_s < s);
#ifdef FKM_CUDA_ON_CPU /* kernels take most of the time */
        if (out.assign_s < 0.4 * s)
            fail_msg("labelling took %g of %g s", out.assign_s, s);
#endif
    }
}

#ifdef FKM_CUDA_ON_CPU

/* Rows that travel in every pass, but for a few. */
problem travelling_problem(random_numbers *r, int32_t devices, const char *streams)
{
    devices_for(r);
    const char many[2] = {(char)('0' + devices), 0};
    setenv("CUO_DEVICES", many, 1);
    cuo_reset();
    cuo_set("STREAMS", streams);
    problem p;
    memset(&p.plan, 0, sizeof p.plan);
    p.plan.rows = 600 * devices;
    p.plan.chunk_rows = 100 * devices;
    p.plan.dims = 40;
    p.plan.clusters = 20;
    p.plan.dtype = FKM_F32;
    p.plan.update = p.plan.keep = true;
    p.plan.top = p.plan.threads = 1;
    fill(&p, r, BLOBS);
    choose_scale(&p, false);
    for (int32_t i = 0; i < p.plan.clusters * p.plan.dims; i++)
        p.centroids.push_back((float)r->normal());
    return p;
}

/* Whatever the order is, ThreadSanitizer sees what is not ordered. */
std::vector<const char *> stream_orders()
{
    if (short_form_of("tsan"))
        return {"random"};
    if (short_form_of("asan"))
        return {"lazy", "kernels-first"};
    return {"random", "lazy", "eager", "kernels-first", "copies-first"};
}

const int64_t travelling_budget = (int64_t)170 << 10;

/* Several GPUs at once: each is served by a thread of its own. */
void several_gpus(void **)
{
    random_numbers r(13);
    const problem p = travelling_problem(&r, 3, "random");
    pair both(&p, NULL, "2,0,1", travelling_budget, true);
    assert_true(both.ops[1]->streams(both.b[1]));
    both.start();
    for (int i = 0; i < 3; i++) {
        fkm_pass_options o = {true, i == 0, i == 1, false};
        both.compare_passes(o, i == 2);
        both.compare_centroids();
        both.compare_moves();
    }
    assert_true(cuo_counts().threads > 1);
}

/* A pass that all rows were fed to brings the first pieces of the next one, which is fed so much
 * less; rows that change after reset are not those that were brought. */
void rows_ahead_of_a_pass(void **)
{
    random_numbers r(17);
    for (const char *streams : stream_orders()) {
        problem p = travelling_problem(&r, 1, streams);
        fkm_err e;
        pair both(&p, NULL, "0", travelling_budget, true);
        const int64_t piece = 100 * 40 * 4;
        for (int start = 0; start < 2; start++) {
            both.start();
            for (int i = 0; i < 3; i++) {
                const fkm_pass_options o = {true, i == 0, true, false};
                fkm_pass out;
                OK(both.ops[1]->begin(both.b[1], &o, &e));
                int64_t before = cuo_counts().copied_bytes;
                both.chunks([&](const fkm_rows &c) {
                    OK(both.ops[1]->feed(both.b[1], &c, both.labels[1].data() + c.row0, NULL, &e));
                });
                const int64_t fed = cuo_counts().copied_bytes - before;
                OK(both.ops[1]->end(both.b[1], &out, &e));
                const int64_t ahead = cuo_counts().copied_bytes - before - fed;
                assert_true(ahead >= 2 * piece && ahead < 3 * piece);
                assert_true(i == 0 ? fed >= 6 * piece : fed < 4 * piece);
                OK(both.ops[1]->labels(both.b[1], both.labels[1].data(), &e));
                (void)both.pass(0, o, false);
                assert_memory_equal(
                    both.labels[0].data(), both.labels[1].data(), both.labels[0].size() * 4);
                both.compare_moves();
            }
            both.ops[1]->reset(both.b[1]);
            memmove(p.rows.data(), p.row(50), p.rows.size() - 50 * 40 * 4);
        }
    }
}

/* Rows of a file lie in a ring: the backend is told where the first of the next pass are, takes
 * them while this one ends, and is done with them when they have been fed. */
void rows_of_a_file_ahead(void **)
{
    const int64_t rows = 100, piece = rows * 40 * 4;
    random_numbers r(23);
    for (const char *streams : stream_orders()) {
        problem p = travelling_problem(&r, 1, streams);
        p.plan.keep = false;
        fkm_err e;
        pair both(&p, NULL, "0", travelling_budget, false);
        std::vector<char> ring((size_t)(4 * piece));
        assert_true(both.ops[1]->pin(ring.data(), ring.size()));
        const auto read = [&](int64_t chunk) {
            char *to = ring.data() + chunk % 4 * piece;
            memcpy(to, p.row(chunk * rows), (size_t)piece);
            return fkm_rows{to, chunk * rows, rows};
        };
        int64_t known = 0; /* chunks that were read ahead */
        both.start();
        for (int i = 0; i < 4; i++) {
            const fkm_pass_options o = {true, i == 0, true, false};
            fkm_pass out;
            OK(both.ops[1]->begin(both.b[1], &o, &e));
            const int64_t before = cuo_counts().copied_bytes;
            for (int64_t c = 0; c < 6; c++) {
                fkm_rows chunk = {ring.data() + c % 4 * piece, c * rows, rows};
                if (c >= known)
                    chunk = read(c);
                OK(both.ops[1]->feed(
                    both.b[1], &chunk, both.labels[1].data() + chunk.row0, NULL, &e));
                memset((void *)chunk.x, 0x7f, (size_t)piece); /* it is read anew */
            }
            const int64_t fed = cuo_counts().copied_bytes - before;
            bool more =
                i < 2; /* not a word of the last but one, and there is none after the last */
            for (known = 0; more && known < 4; known++) {
                const fkm_rows chunk = read(known);
                more = both.ops[1]->ahead(both.b[1], &chunk);
            }
            assert_true(!more);
            OK(both.ops[1]->end(both.b[1], &out, &e));
            const int64_t ahead = cuo_counts().copied_bytes - before - fed;
            assert_true(i < 2 ? ahead >= 2 * piece && ahead < 3 * piece : ahead < piece);
            assert_true(i == 0 ? fed >= 6 * piece : i < 3 ? fed < 4 * piece : fed >= 4 * piece);
            OK(both.ops[1]->labels(both.b[1], both.labels[1].data(), &e));
            (void)both.pass(0, o, false);
            assert_memory_equal(
                both.labels[0].data(), both.labels[1].data(), both.labels[0].size() * 4);
            both.compare_moves();
        }
        both.ops[1]->reset(both.b[1]);
        both.ops[1]->unpin(ring.data());
    }
}

/* Labels come and go by asynchronous copies, though the caller's memory is pageable: no feed waits
 * for its own work. They come with every piece when none stay on the device, else once. */
void labels_through_pinned_memory(void **)
{
    random_numbers r(29);
    for (const char *streams : stream_orders())
        for (const bool update : {false, true}) {
            problem p = travelling_problem(&r, 1, streams);
            p.plan.update = update;
            p.plan.chunk_rows = 90; /* the last is shorter */
            fkm_err e;
            pair both(&p, NULL, "0", 0, true);
            both.start();
            both.hand_in(&r);
            for (int i = 0; i < 2; i++) {
                const fkm_pass_options o = {update, i == 0, true, false};
                fkm_pass out;
                const int64_t pageable = cuo_counts().pageable;
                OK(both.ops[1]->begin(both.b[1], &o, &e));
                both.chunks([&](const fkm_rows &c) {
                    OK(both.ops[1]->feed(both.b[1], &c, both.labels[1].data() + c.row0, NULL, &e));
                });
                OK(both.ops[1]->end(both.b[1], &out, &e));
                OK(both.ops[1]->labels(both.b[1], both.labels[1].data(), &e));
                assert_int_equal(cuo_counts().pageable, pageable);
                const fkm_pass of_cpu = both.pass(0, o, false);
                assert_int_equal(out.moved, of_cpu.moved);
                assert_memory_equal(
                    both.labels[0].data(), both.labels[1].data(), both.labels[0].size() * 4);
            }
        }
}

/* Small problems: passes that are like earlier ones are launched as graphs, whatever comes between
 * them. */
void passes_as_graphs(void **)
{
    random_numbers r(19);
    const int passes = short_form_of("tsan") ? 28 : 48;
    for (const char *streams : stream_orders()) {
        problem p = travelling_problem(&r, 1, streams);
        fkm_err e;
        p.plan.chunk_rows = p.plan.rows = 200;
        pair both(&p, NULL, "0", 0, true);
        int64_t most = 0, least = INT64_MAX;
        for (int start = 0; start < 2; start++) {
            const int64_t before = cuo_counts().graphs;
            int launched = 0;
            both.start();
            for (int i = 0; i < passes; i++) {
                const fkm_pass_options o = {true, i == 0 || i == passes / 4 * 3, true, false};
                if (i == passes / 2) /* from outside */
                    for (int side = 0; side < 2; side++)
                        OK(both.ops[side]->set_centroids(both.b[side], p.centroids.data(), &e));
                if (i == passes / 4 * 3) { /* another scale */
                    p.scale.exponent--;
                    for (int side = 0; side < 2; side++)
                        OK(both.ops[side]->set_scale(both.b[side], p.scale, &e));
                }
                (void)both.pass(0, o, false);
                const int64_t calls = cuo_counts().calls, graphs = cuo_counts().graphs;
                const fkm_pass out = both.pass(1, o, false);
                const int64_t took = cuo_counts().calls - calls;
                const bool replayed = cuo_counts().graphs > graphs;
                assert_true(out.assign_s > 0 && (!out.as_graph || replayed));
                launched += out.as_graph;
                if (replayed)
                    least = took < least ? took : least;
                else
                    most = took > most ? took : most;
                assert_memory_equal(
                    both.labels[0].data(), both.labels[1].data(), both.labels[0].size() * 4);
                both.compare_centroids();
                both.compare_moves();
            }
            assert_true(cuo_counts().graphs - before > passes / 4 && launched > passes / 4);
            memmove(p.rows.data(), p.row(50), p.rows.size() - 50 * 40 * 4);
        }
        printf("calls of a pass: %lld, as a graph %lld\n", (long long)most, (long long)least);
        assert_true(least < most / 2);
    }
}

#endif

/* A pass that is given up, then a new problem: nothing of it is left. */
void abandoned_pass(void **)
{
    random_numbers r(7);
    devices_for(&r);
    problem p = make_problem(&r, BLOBS);
    pair both(&p, NULL, "0", 0, true);
    both.start();
    fkm_err e;
    fkm_pass_options o = {true, true, false, false};
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
    const CMUnitTest tests[] = {
        cmocka_unit_test(same_bits),
        cmocka_unit_test(same_bits_when_few_move),
#ifdef FKM_CUDA_ON_CPU
        cmocka_unit_test(several_gpus),
        cmocka_unit_test(rows_ahead_of_a_pass),
        cmocka_unit_test(rows_of_a_file_ahead),
        cmocka_unit_test(labels_through_pinned_memory),
        cmocka_unit_test(passes_as_graphs),
#endif
        cmocka_unit_test(time_of_labelling),
        cmocka_unit_test(abandoned_pass),
    };
    return RUN_ON_GPU(tests);
}
