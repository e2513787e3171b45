/* Hopper's screening kernel, and the portable one, against scores computed one by one. Rows and
 * centroids are small whole numbers, so that all units are exact, and margins are 1/4: the label is
 * the largest score, and the rows in doubt are those where it is there twice. Rows are all, or
 * listed; of each the bound of all other centroids is asked for. Runs on the layer of
 * tests/cuda_on_cpu, in three orders of threads, with copies and products as late or as early as
 * they may be, and on a GPU of compute capability 9.0. */
#include "hopper_test.h"

#include "../../cuda/assign.cuh"
#include "../../cuda/hopper.cuh"

#include <algorithm>

extern fkm_assign_fn fkm_assign_f16_sm90a, fkm_assign_bf16_sm90a, fkm_assign_s8_sm90a;

struct shape {
    int32_t rows, clusters, dims;
};

static void put(std::vector<unsigned char> *to, int64_t at, int v, fkm_unit unit)
{
    float f = (float)v;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    uint16_t half = unit == FKM_UNIT_F16 ? to_half(f) : (uint16_t)(bits >> 16);
    if (unit == FKM_UNIT_S8)
        (*to)[(size_t)at] = (unsigned char)v;
    else
        memcpy(to->data() + 2 * at, &half, sizeof half);
}

struct screening {
    shape s;
    fkm_unit unit;
    int32_t stride, tiles;
    std::vector<int> x, c; /* [rows][dims], [clusters][dims] */
    std::vector<float> residual, reach;
    std::vector<int32_t> listed; /* rows to screen, in this order; empty: all */
    int32_t processors, room;    /* for rows that blocks share */

    screening(random_numbers *r, shape sh, fkm_unit u) : s(sh), unit(u)
    {
        const int size = u == FKM_UNIT_S8 ? 1 : 2;
        stride = (s.dims * size + 31) / 32 * 32;
        tiles = (s.clusters + FKM_TILE - 1) / FKM_TILE;
        for (int64_t i = 0; i < (int64_t)s.rows * s.dims; i++)
            x.push_back((int)r->below(7) - 3);
        for (int64_t i = 0; i < (int64_t)s.clusters * s.dims; i++)
            c.push_back((int)r->below(7) - 3);
        for (int32_t i = 0; i < s.rows; i++)
            residual.push_back(r->below(19) ? 0.0f : -1.0f);
        for (int32_t i = 0; i < s.rows; i++)
            reach.push_back((float)r->one_of({0, 3, 20, 1000}));
        processors = r->one_of({1, 3, 8});
        room = r->below(4) ? processors * FKM_PART_ROWS : r->below(2) ? 700 : 0;
        if (r->below(2))
            return;
        for (int32_t i = s.rows - 1; i >= 0; i -= 1 + (int32_t)r->below(4))
            listed.push_back(i);
    }

    /* Rows as they are screened: those listed, then what was there before. */
    std::vector<int> gathered() const
    {
        std::vector<int> out((size_t)s.rows * (size_t)s.dims, 1);
        if (listed.empty())
            return x;
        for (size_t i = 0; i < listed.size(); i++)
            std::copy_n(
                x.begin() + (int64_t)listed[i] * s.dims, s.dims, out.begin() + (int64_t)i * s.dims);
        return out;
    }

    std::vector<unsigned char> packed(const std::vector<int> &v, int64_t count, int64_t room) const
    {
        const int size = unit == FKM_UNIT_S8 ? 1 : 2;
        std::vector<unsigned char> out((size_t)(room * stride));
        for (int64_t i = 0; i < count; i++)
            for (int64_t t = 0; t < s.dims; t++)
                put(&out, i * stride / size + t, v[(size_t)(i * s.dims + t)], unit);
        return out;
    }

    /* 2 S: whole numbers, also for odd norms. The kernel's start is half of what it subtracts. */
    int start(int32_t j) const
    {
        int sum = 0;
        for (int32_t t = 0; t < s.dims; t++)
            sum += c[(size_t)j * (size_t)s.dims + (size_t)t] *
                   c[(size_t)j * (size_t)s.dims + (size_t)t];
        return -sum / 2;
    }
    int score(int32_t i, int32_t j) const
    {
        int sum = start(j);
        for (int32_t t = 0; t < s.dims; t++)
            sum += x[(size_t)i * (size_t)s.dims + (size_t)t] *
                   c[(size_t)j * (size_t)s.dims + (size_t)t];
        return sum;
    }
    void check(fkm_assign_fn *run, bool warm) const;
};

void screening::check(fkm_assign_fn *run, bool warm) const
{
    const size_t n = (size_t)s.rows, positions = (size_t)tiles * FKM_TILE;
    std::vector<int32_t> index(positions, -1), inverse;
    std::vector<uint32_t> start_bits(positions);
    std::vector<float> floors(n, FKM_FLOOR_NONE);
    std::vector<std::vector<int32_t>> best(n);
    std::vector<int> most(n, INT32_MIN), next(n, INT32_MIN);
    std::vector<bool> wanted(n, listed.empty());
    for (int32_t i : listed)
        wanted[(size_t)i] = true;
    for (size_t p = 0; p < positions; p++) {
        bool real = p < (size_t)s.clusters;
        float f = real ? (float)start((int32_t)p) : -FKM_HALF_PAD;
        int32_t v = real ? start((int32_t)p) : FKM_START_PAD_S8;
        if (unit == FKM_UNIT_S8)
            memcpy(&start_bits[p], &v, 4);
        else
            memcpy(&start_bits[p], &f, 4);
        if (real) {
            index[p] = (int32_t)p + 1000; /* labels are told from positions */
            inverse.push_back((int32_t)p);
        }
    }
    for (size_t i = 0; i < n; i++) {
        int top = INT32_MIN;
        for (int32_t j = 0; j < s.clusters; j++) {
            int v = score((int32_t)i, j);
            if (v > top)
                best[i].clear();
            if (v >= top)
                best[i].push_back(j);
            next[i] = std::max(next[i], std::min(top, v));
            top = std::max(top, v);
        }
        most[i] = top;
        if (warm)
            floors[i] = (float)top - 0.25f - (float)(i % 5);
    }
    std::vector<float> none(std::max(n, positions), 0.0f), quarter(positions, 0.25f);
    device_array<unsigned char> dx(packed(gathered(), s.rows, s.rows)),
        dc(packed(c, s.clusters, (int64_t)positions));
    device_array<float> zero(none), offset(quarter), dresidual(residual), dfloor(floors);
    device_array<float> dreach(reach), dsecond(std::vector<float>(n, 7e30f));
    device_array<int32_t> drow(listed.empty() ? std::vector<int32_t>(1) : listed);
    device_array<unsigned> dlisted(std::vector<unsigned>(1, (unsigned)listed.size()));
    device_array<uint32_t> dstart(start_bits);
    device_array<int32_t> dindex(index), dinverse(inverse), old(std::vector<int32_t>(n, -1));
    device_array<int32_t> labels(std::vector<int32_t>(n, -7)),
        doubt_row(std::vector<int32_t>(n, 0));
    device_array<int32_t> doubt_size(std::vector<int32_t>(n, 0)),
        rescan_row(std::vector<int32_t>(n, 0));
    device_array<int32_t> doubt_position(std::vector<int32_t>(n * FKM_CANDIDATES, 0));
    device_array<unsigned> lists(std::vector<unsigned>(2, 0));
    device_array<fkm_screen_counts> counts(std::vector<fkm_screen_counts>(1));

    fkm_assign_args a;
    memset(&a, 0, sizeof a);
    a.rows = s.rows;
    a.tiles = tiles;
    a.clusters = s.clusters;
    a.stride = stride;
    a.x = {dx.p, zero.p, dresidual.p, zero.p};
    a.c.c = dc.p;
    a.c.start = dstart.p;
    a.c.slope = a.c.rival = a.c.tail = a.c.tile_slope = a.c.tile_rival = a.c.tile_tail = zero.p;
    a.c.offset = a.c.tile_offset = offset.p;
    a.c.index = dindex.p;
    a.c.position = dinverse.p;
    a.row = listed.empty() ? NULL : drow.p;
    a.listed = dlisted.p;
    a.floor = dfloor.p;
    a.reach = dreach.p;
    a.second = dsecond.p;
    a.old = old.p;
    a.labels = labels.p;
    a.counts = counts.p;
    const size_t entries = (size_t)std::max(room, 1);
    device_array<float> part_floor(std::vector<float>(entries, 0)), part_second(part_floor.fetch());
    device_array<float> part_upper(std::vector<float>(entries * FKM_CANDIDATES, 0));
    device_array<int32_t> part_count(std::vector<int32_t>(entries, 0));
    device_array<int32_t> part_position(std::vector<int32_t>(entries * FKM_CANDIDATES, 0));
    a.chip = {90, 232448, processors, false};
    a.parts = {room, part_floor.p, part_second.p, part_count.p, part_position.p, part_upper.p};
    a.doubt_count = lists.p;
    a.rescan_count = lists.p + 1;
    a.doubt_row = doubt_row.p;
    a.doubt_size = doubt_size.p;
    a.doubt_position = doubt_position.p;
    a.rescan_row = rescan_row.p;
    assert_int_equal(run(&a, 0), cudaSuccess);
    assert_int_equal(cudaDeviceSynchronize(), cudaSuccess);

    const std::vector<int32_t> label = labels.fetch(), row = doubt_row.fetch(),
                               size = doubt_size.fetch();
    const std::vector<int32_t> position = doubt_position.fetch(), again = rescan_row.fetch();
    const std::vector<unsigned> list = lists.fetch();
    std::vector<int> seen(n, 0);
    size_t overflows = 0;
    for (unsigned i = 0; i < list[1]; i++) {
        seen[(size_t)again[i]]++;
        overflows += residual[(size_t)again[i]] >= 0;
    }
    for (unsigned i = 0; i < list[0]; i++) {
        const int32_t r = row[i];
        const int32_t *first = position.data() + (size_t)i * FKM_CANDIDATES;
        std::vector<int32_t> got(first, first + size[i]);
        std::sort(got.begin(), got.end());
        assert_true(residual[(size_t)r] >= 0);
        assert_true(got == best[(size_t)r]);
        seen[(size_t)r]++;
    }
    const std::vector<float> second = dsecond.fetch(), floor = dfloor.fetch();
    for (size_t i = 0; i < n; i++) {
        if (seen[i] || !wanted[i]) {
            assert_int_equal(seen[i], wanted[i]);
            assert_int_equal(label[i], -7);
            assert_true(wanted[i] || second[i] == 7e30f);
            continue;
        }
        assert_true(residual[i] >= 0);
        assert_int_equal(best[i].size(), 1);
        assert_int_equal(label[i], best[i][0] + 1000);
        /* the best of the others, but for those beyond reach */
        assert_true(floor[i] == (float)most[i] - 0.25f);
        assert_true(second[i] >= (float)next[i] + 0.25f);
        assert_true(second[i] <= std::max((float)next[i] + 0.25f, floor[i] - reach[i]));
    }
    assert_true(
        overflows <= (warm ? 0 : n / 8)); /* 16 better ones in a tile, one after the other: rare */
}

static fkm_assign_fn *const kernel_of[] = {
    fkm_assign_f16_sm90a, fkm_assign_bf16_sm90a, fkm_assign_s8_sm90a};

static void run_shapes(uint64_t seed)
{
    /* one slab and less, a partial one, rings shorter than a tile, rows that warpgroups share, with
     * turns and without, rows through the ring, rows that
     * blocks share */
    static const shape shapes[] = {{1, 1, 1}, {300, 130, 16}, {257, 300, 100}, {600, 700, 64},
        {1100, 140, 33}, {130, 260, 200}, {140, 150, 256}, {270, 280, 330}, {129, 390, 400},
        {100, 1100, 20}, {140, 770, 70}, {520, 600, 150}, {300, 400, 300}, {140, 520, 500},
        {130, 140, 600}};
    random_numbers r(seed);
    for (const shape &s : shapes)
        for (int unit = 0; unit < FKM_UNITS; unit++) {
            shape of = s;
            of.dims = unit == FKM_UNIT_S8 ? 2 * s.dims - s.dims % 3 : s.dims;
            const screening rows(&r, of, (fkm_unit)unit);
            const bool warm = r.below(2) != 0;
            const fkm_chip portable = {90, 232448, 132, true};
            rows.check(kernel_of[unit], warm);
            rows.check(fkm_assign_choose(&portable, (fkm_unit)unit, rows.stride)->run, warm);
        }
}

static void test_scores(void **state)
{
    (void)state;
#ifdef FKM_CUDA_ON_CPU
    static const char *const orders[] = {"forward", "reverse", "random"};
    for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++) {
        cuo_set("CUO_ORDER", orders[i]);
        run_shapes(i + 1);
    }
#else
    run_shapes(1);
#endif
}

/* The exchange of chunks and the descriptor's steps, from the definition: address bits 4-6 change
 * by bits 7-9, and a step of 32 bytes goes along a row of 128. */
static void test_boxes(void **state)
{
    (void)state;
    for (int r = 0; r < FKM_BOX_ROWS; r++)
        for (int b = 0; b < FKM_BOX_BYTES; b++) {
            unsigned linear = (unsigned)(r * FKM_BOX_BYTES + b);
            assert_int_equal(fkm_box_at(r, b), linear ^ (linear >> 3 & 0x70));
        }
    const uint64_t d = fkm_box_descriptor(0x2c400);
    assert_true((d & 0x3fff) == 0x2c40 && (d >> 32 & 0x3fff) == 64 && (d >> 49 & 7) == 0);
    assert_true(d >> 62 == 1);
    assert_true(((d + fkm_descriptor_step(96)) & 0x3fff) == 0x2c46);
}

/* Which maps are mended: small ones, of drivers that mark them; and nothing but the mark changes.
 */
static void test_marked_maps(void **state)
{
    (void)state;
    for (int driver : {12000, 12080, 13000, 13010, 13011, 13020})
        for (int64_t rows : {7, 1023, 1024, 1025, 1 << 20})
            assert_int_equal(
                fkm_tensor_map_is_marked(driver, rows * 128), driver <= 13010 && rows < 1024);
    uint64_t words[16], before[16];
    for (uint64_t fill : {UINT64_MAX, (uint64_t)0, UINT64_C(0x5a5a5a5a5a5a5a5a)}) {
        std::fill(words, words + 16, fill);
        memcpy(before, words, sizeof words);
        fkm_tensor_map_unmark(words);
        assert_true((words[1] >> 21 & 1) == 0);
        words[1] |= before[1] & UINT64_C(1) << 21;
        assert_memory_equal(words, before, sizeof words);
    }
}

/* Every place of the tile belongs to one accumulator of one thread. */
static void test_accumulators(void **state)
{
    (void)state;
    std::vector<int> owners(FKM_WGMMA_ROWS * FKM_WGMMA_COLUMNS, 0);
    for (int t = 0; t < 128; t++)
        for (int i = 0; i < 64; i++)
            owners[(size_t)(fkm_wgmma_row(t, i) * FKM_WGMMA_COLUMNS + fkm_wgmma_column(t, i))]++;
    for (int n : owners)
        assert_int_equal(n, 1);
    /* rows of a thread: its group of four lanes', and 8 further; columns: pairs */
    assert_true(fkm_wgmma_row(37, 0) == 17 && fkm_wgmma_row(37, 2) == 25);
    assert_true(fkm_wgmma_column(37, 5) == 11);
}

int main()
{
    const struct CMUnitTest pure[] = {cmocka_unit_test(test_boxes),
        cmocka_unit_test(test_marked_maps), cmocka_unit_test(test_accumulators)};
    const struct CMUnitTest device[] = {cmocka_unit_test(test_scores)};
    int failed = cmocka_run_group_tests(pure, NULL, NULL);
    skip_without_gpu();
    if (failed == 0)
        skip_without_hopper();
    return failed + cmocka_run_group_tests(device, NULL, NULL);
}
