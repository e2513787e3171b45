/* Lanes: each problem is solved once, saves find all standing still, and a failure is the one that
 * problems one after the other would have come to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../src/base/clock.h"
#include "../../src/lanes.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { PROBLEMS = 60, ROUNDS = 30 };

typedef struct work {
    fkm_lanes lanes;
    int solved[PROBLEMS];
    int done_before; /* problems that were done already: every third, if set */
    int fails[PROBLEMS];
    atomic_int moving[PROBLEMS]; /* the problem changes at this moment */
    atomic_int most, at_work;
    int value[PROBLEMS], noted[PROBLEMS]; /* what a problem has come to; what a save is to find */
    int saves;
    atomic_int torn;
    bool busy;  /* saves all the time */
    bool meets; /* the first problems wait for each other */
} work;

static void pause_us(int us)
{
    struct timespec t = {0, us * 1000L};
    nanosleep(&t, NULL);
}

static bool is_done(void *arg, int64_t i)
{
    return ((work *)arg)->done_before && i % 3 == 0;
}

static fkm_status solve(void *arg, int32_t lane, int64_t i, fkm_err *e)
{
    work *w = arg;
    w->torn += lane < 0 || lane >= w->lanes.count; /* cmocka's checks are for one thread */
    int at_work = atomic_fetch_add(&w->at_work, 1) + 1, most = w->most;
    while (most < at_work && !atomic_compare_exchange_weak(&w->most, &most, at_work)) {
    }
    fkm_status st = FKM_OK;
    for (int ms = 0; w->meets && w->most < 2 && ms < 5000; ms++)
        pause_us(1000); /* a second one comes */
    for (int round = 0; round < ROUNDS && st == FKM_OK; round++) {
        if (w->busy && fkm_lanes_is_due(&w->lanes)) {
            w->noted[i] = w->value[i];
            fkm_lanes_meet(&w->lanes);
        }
        if (round == ROUNDS / 2) {
            w->noted[i] = w->value[i];
            fkm_lanes_still(&w->lanes);
            pause_us(20);
            fkm_lanes_move(&w->lanes);
        }
        atomic_store(&w->moving[i], 1);
        w->value[i]++;
        if (round % 8 == 0)
            pause_us(1);
        atomic_store(&w->moving[i], 0);
        if (fkm_lanes_is_over(&w->lanes, i))
            st = fkm_fail(e, FKM_ESTOPPED, "problem %d is over", (int)i);
        else if (w->fails[i] == round + 1)
            st = fkm_fail(e, FKM_EDATA, "problem %d is bad", (int)i);
    }
    w->solved[i] += st == FKM_OK;
    w->noted[i] = w->value[i];
    atomic_fetch_sub(&w->at_work, 1);
    return st;
}

static void save(void *arg)
{
    work *w = arg;
    w->saves++;
    for (int i = 0; i < PROBLEMS; i++)
        w->torn += atomic_load(&w->moving[i]) || w->noted[i] != w->value[i];
    fkm_lanes_set_due(&w->lanes, 0);
}

static fkm_status run(work *w, int lanes, fkm_err *e)
{
    w->lanes = (fkm_lanes){.count = lanes,
        .problems = PROBLEMS,
        .arg = w,
        .is_done = is_done,
        .solve = solve,
        .save = save};
    fkm_lanes_open(&w->lanes);
    if (w->busy)
        fkm_lanes_set_due(&w->lanes, 0);
    fkm_status st = fkm_lanes_run(&w->lanes, e);
    fkm_lanes_close(&w->lanes);
    assert_int_equal(w->at_work, 0);
    return st;
}

static void each_is_solved_once(void **state)
{
    (void)state;
    static const int counts[] = {1, 2, 7, FKM_MOST_LANES};
    for (int c = 0; c < 8; c++) {
        fkm_err e = {0};
        work w = {.done_before = c & 1, .meets = counts[c / 2] > 1};
        assert_int_equal(run(&w, counts[c / 2], &e), FKM_OK);
        for (int i = 0; i < PROBLEMS; i++)
            assert_int_equal(w.solved[i], !(w.done_before && i % 3 == 0));
        assert_in_range(w.most, 1, counts[c / 2]);
        assert_true(counts[c / 2] == 1 || w.most > 1);
        assert_int_equal(w.saves, 0);
    }
}

static void saves_find_all_still(void **state)
{
    (void)state;
    for (int lanes = 1; lanes <= 8; lanes++) {
        fkm_err e = {0};
        work w = {.busy = true};
        assert_int_equal(run(&w, lanes, &e), FKM_OK);
        assert_int_equal(w.torn, 0);
        assert_in_range(w.saves, ROUNDS, PROBLEMS * ROUNDS);
    }
}

/* Problems 20 and 23 fail: 20 is told of though it takes longer to, and all before it are solved.
 */
static void the_first_failure_counts(void **state)
{
    (void)state;
    for (int lanes = 1; lanes <= 8; lanes++) {
        fkm_err e = {0};
        work w = {.busy = lanes & 1};
        w.fails[20] = ROUNDS - 2;
        w.fails[23] = 1;
        assert_int_equal(run(&w, lanes, &e), FKM_EDATA);
        assert_string_equal(e.msg, "problem 20 is bad");
        for (int i = 0; i < 20; i++)
            assert_int_equal(w.solved[i], 1);
        assert_int_equal(w.torn, 0);
        assert_int_equal(w.solved[20] + w.solved[23], 0);
        for (int i = 21; lanes == 1 && i < PROBLEMS; i++) /* never begun */
            assert_int_equal(w.value[i], 0);
    }
}

static void only_the_first_speaks(void **state)
{
    (void)state;
    work w = {.busy = false};
    w.lanes = (fkm_lanes){.count = 3, .problems = PROBLEMS};
    fkm_lanes_open(&w.lanes);
    w.lanes.at[0] = 7;
    w.lanes.at[2] = 5;
    assert_true(fkm_lanes_is_first(&w.lanes, 5));
    assert_false(fkm_lanes_is_first(&w.lanes, 7));
    fkm_lanes_close(&w.lanes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_is_solved_once),
        cmocka_unit_test(saves_find_all_still),
        cmocka_unit_test(the_first_failure_counts),
        cmocka_unit_test(only_the_first_speaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
