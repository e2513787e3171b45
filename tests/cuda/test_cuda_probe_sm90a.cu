/* What only Hopper has, one wrapper of cuda/hopper.cuh after the other, in an order in which the
 * first that fails names the cause of all that fail: boxes, each step of a product in each unit,
 * registers and turns, a wait that must end; then the rate of the very product that screening lives
 * on. A line is out before the next begins, so that a hang is told by the last one. Runs on a GPU
 * of compute capability 9.0, and on the layer of tests/cuda_on_cpu. */
#ifndef FKM_WATCHDOG
#define FKM_WATCHDOG 1
#endif
#include "hopper_test.h"

#include "../../cuda/ceilings.cuh"

#include <sys/wait.h>
#include <unistd.h>

namespace
{

enum { ALIGNMENT = 1024, GROUP = 128, PLAIN = 512, RATE_ROUNDS = 16384 };

__device__ unsigned char *boxes()
{
    FKM_SHARED_DYNAMIC(unsigned char, dynamic);
    return dynamic + (-fkm_shared_address(dynamic) & (ALIGNMENT - 1));
}

/* A barrier behind `bytes` of shared memory; by all threads of the block. */
__device__ fkm_mbarrier *new_barrier(unsigned char *base, int bytes, unsigned arrivals)
{
    fkm_mbarrier *b = (fkm_mbarrier *)(base + bytes);
    if (threadIdx.x == 0) {
        fkm_mbarrier_init(b, arrivals);
        fkm_mbarriers_ready();
    }
    __syncthreads();
    return b;
}

/* Dynamic shared memory for `bytes` behind an aligned address, and a barrier. */
template <class K> size_t shared_of(K *kernel, int bytes)
{
    const int all = bytes + ALIGNMENT + 64;
    assert_int_equal(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, all),
        cudaSuccess);
    return (size_t)all;
}

/* Waits for the device; what went before is out. */
void finish()
{
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    assert_int_equal(cudaDeviceSynchronize(), cudaSuccess);
}

fkm_tensor_map map_of(const void *p, int64_t row_bytes, int64_t rows)
{
    fkm_tensor_map map;
    assert_int_equal(fkm_tensor_map_make(&map, p, row_bytes, rows), cudaSuccess);
    return map;
}

/* ---- boxes and plain bytes ---- */

__global__ void copy_box(const __grid_constant__ fkm_tensor_map map, int byte, int row,
    const unsigned char *plain, unsigned char *out)
{
    unsigned char *base = boxes();
    fkm_mbarrier *b = new_barrier(base, FKM_BOX + PLAIN, 1);
    if (threadIdx.x == 0) {
        fkm_mbarrier_expect(b, FKM_BOX + PLAIN);
        fkm_load_bytes(base + FKM_BOX, plain, PLAIN, b);
        fkm_load_box(base, &map, byte, row, b);
    }
    fkm_mbarrier_wait(b, 0);
    for (unsigned i = threadIdx.x; i < FKM_BOX + PLAIN; i += blockDim.x)
        out[i] = base[i];
}

/* The box at (byte, row) of [rows][stride]: bytes that are outside are zero. */
void one_box(int stride, int rows, int byte, int row)
{
    std::vector<unsigned char> x((size_t)stride * (size_t)rows), plain(PLAIN);
    for (size_t i = 0; i < x.size(); i++)
        x[i] = (unsigned char)(1 + (i * 2654435761u >> 13) % 255);
    for (size_t i = 0; i < plain.size(); i++)
        plain[i] = (unsigned char)(i * 7 + 3);
    device_array<unsigned char> dx(x), dplain(plain);
    device_array<unsigned char> out(std::vector<unsigned char>(FKM_BOX + PLAIN, 0xee));
    printf("box: stride %d, %d rows, at byte %d, row %d\n", stride, rows, byte, row);
    FKM_LAUNCH(copy_box, 1, GROUP, shared_of(copy_box, FKM_BOX + PLAIN), 0,
        map_of(dx.p, stride, rows), byte, row, dplain.p, out.p);
    finish();
    const std::vector<unsigned char> got = out.fetch();
    for (int r = 0; r < FKM_BOX_ROWS; r++)
        for (int b = 0; b < FKM_BOX_BYTES; b++) {
            const bool inside = row + r < rows && byte + b < stride;
            const size_t at = (size_t)(row + r) * (size_t)stride + (size_t)(byte + b);
            assert_int_equal(got[(size_t)fkm_box_at(r, b)], inside ? x[at] : 0);
        }
    for (size_t i = 0; i < plain.size(); i++)
        assert_int_equal(got[FKM_BOX + i], plain[i]);
}

void test_boxes(void **)
{
    one_box(128, 128, 0, 0);
    one_box(256, 300, 128, 128);
    one_box(256, 300, 128, 256); /* rows beyond the end */
    one_box(224, 200, 128, 128); /* bytes beyond it */
    one_box(32, 7, 0, 0);        /* shorter than a box either way */
}

/* ---- products ---- */

template <fkm_unit UNIT, class T> __device__ void add_product(T (&d)[64], uint64_t a, uint64_t b)
{
    if constexpr (UNIT == FKM_UNIT_F16)
        fkm_wgmma_f16(d, a, b);
    else if constexpr (UNIT == FKM_UNIT_BF16)
        fkm_wgmma_bf16(d, a, b);
    else
        fkm_wgmma_s8(d, a, b);
}

/* out: [64][128] = column + rows 64 half .. of x by c, steps first .. first + count of 32 bytes. */
template <fkm_unit UNIT, class T>
__global__ void multiply(const __grid_constant__ fkm_tensor_map x,
    const __grid_constant__ fkm_tensor_map c, int first, int count, int half, T *out)
{
    unsigned char *base = boxes();
    fkm_mbarrier *b = new_barrier(base, 2 * FKM_BOX, 1);
    if (threadIdx.x == 0) {
        fkm_mbarrier_expect(b, 2 * FKM_BOX);
        fkm_load_box(base, &x, 0, 0, b);
        fkm_load_box(base + FKM_BOX, &c, 0, 0, b);
    }
    fkm_mbarrier_wait(b, 0);
    const int t = (int)threadIdx.x;
    const uint64_t step = fkm_descriptor_step(FKM_WGMMA_BYTES);
    const uint64_t rows = fkm_box_descriptor(fkm_shared_address(base)) +
                          (uint64_t)half * fkm_descriptor_step(FKM_WGMMA_ROWS * FKM_BOX_BYTES);
    const uint64_t columns = fkm_box_descriptor(fkm_shared_address(base + FKM_BOX));
    T d[64];
    for (int i = 0; i < 64; i++)
        d[i] = (T)fkm_wgmma_column(t, i);
    fkm_wgmma_hold(d);
    for (int k = first; k < first + count; k++) {
        fkm_wgmma_begin();
        add_product<UNIT>(d, rows + (uint64_t)k * step, columns + (uint64_t)k * step);
    }
    fkm_wgmma_commit();
    fkm_wgmma_wait<0>();
    fkm_wgmma_hold(d);
    for (int i = 0; i < 64; i++)
        out[fkm_wgmma_row(t, i) * FKM_WGMMA_COLUMNS + fkm_wgmma_column(t, i)] = d[i];
}

const char *const unit_names[] = {"f16", "bf16", "s8"};

/* [128] rows of 128 bytes of small whole numbers. */
std::vector<unsigned char> box_of(const std::vector<int> &v, fkm_unit unit)
{
    std::vector<unsigned char> out(FKM_BOX);
    for (size_t i = 0; i < v.size(); i++) {
        const float f = (float)v[i];
        uint32_t bits;
        memcpy(&bits, &f, sizeof bits);
        const uint16_t half = unit == FKM_UNIT_F16 ? to_half(f) : (uint16_t)(bits >> 16);
        if (unit == FKM_UNIT_S8)
            out[i] = (unsigned char)v[i];
        else
            memcpy(&out[2 * i], &half, sizeof half);
    }
    return out;
}

template <fkm_unit UNIT, class T> void one_product(int first, int count, int half)
{
    const int size = UNIT == FKM_UNIT_S8 ? 1 : 2, depth = FKM_BOX_BYTES / size;
    const int each = FKM_WGMMA_BYTES / size;
    std::vector<int> x, c;
    random_numbers r(3);
    for (int i = 0; i < FKM_BOX_ROWS * depth; i++) {
        x.push_back((int)r.below(7) - 3);
        c.push_back((int)r.below(7) - 3);
    }
    device_array<unsigned char> dx(box_of(x, UNIT)), dc(box_of(c, UNIT));
    device_array<T> out(std::vector<T>(FKM_WGMMA_ROWS * FKM_WGMMA_COLUMNS, (T)-9999));
    auto kernel = multiply<UNIT, T>;
    printf("wgmma %s: steps %d to %d, half %d\n", unit_names[UNIT], first, first + count, half);
    FKM_LAUNCH(kernel, 1, GROUP, shared_of(kernel, 2 * FKM_BOX), 0,
        map_of(dx.p, FKM_BOX_BYTES, FKM_BOX_ROWS), map_of(dc.p, FKM_BOX_BYTES, FKM_BOX_ROWS), first,
        count, half, out.p);
    finish();
    const std::vector<T> got = out.fetch();
    for (int i = 0; i < FKM_WGMMA_ROWS; i++)
        for (int j = 0; j < FKM_WGMMA_COLUMNS; j++) {
            int sum = j;
            for (int t = first * each; t < (first + count) * each; t++)
                sum += x[(size_t)((half * FKM_WGMMA_ROWS + i) * depth + t)] *
                       c[(size_t)(j * depth + t)];
            assert_true(got[(size_t)(i * FKM_WGMMA_COLUMNS + j)] == (T)sum);
        }
}

template <fkm_unit UNIT, class T> void all_products()
{
    for (int half = 0; half < 2; half++)
        for (int first = 0; first < 4; first++)
            one_product<UNIT, T>(first, 1, half);
    one_product<UNIT, T>(0, 4, 1);
}

void test_f16(void **)
{
    all_products<FKM_UNIT_F16, float>();
}
void test_bf16(void **)
{
    all_products<FKM_UNIT_BF16, float>();
}
void test_s8(void **)
{
    all_products<FKM_UNIT_S8, int>();
}

/* ---- registers that move, and turns ---- */

enum { TURNS = 1000, BAR_TURN = 1 };

/* out: [TURNS][2]: what each warpgroup has found the counter at. */
__global__ void __launch_bounds__(3 * GROUP, 1) take_turns(int *out)
{
    FKM_SHARED(int, counter, );
    if (threadIdx.x == 0)
        counter = 0;
    __syncthreads();
    const int warp = __shfl_sync(FKM_ALL_LANES, (int)threadIdx.x / 32, 0);
    if (warp < GROUP / 32) {
        fkm_registers_down_to<24>();
        return;
    }
    fkm_registers_up_to<240>();
    const int group = warp / (GROUP / 32) - 1;
    if (group == 1)
        fkm_bar_arrive(BAR_TURN, 2 * GROUP); /* the first has the first turn */
    for (int i = 0; i < TURNS; i++) {
        fkm_bar_sync(BAR_TURN + group, 2 * GROUP);
        if (threadIdx.x % GROUP == 0) {
            out[2 * i + group] = counter;
            counter = counter + 1;
        }
        if (i < TURNS - 1 || group == 0)
            fkm_bar_arrive(BAR_TURN + (group ^ 1), 2 * GROUP);
    }
}

void test_turns(void **)
{
    device_array<int> out(std::vector<int>(2 * TURNS, -1));
    printf("registers move, warpgroups take turns\n");
    FKM_LAUNCH(take_turns, 1, 3 * GROUP, 0, 0, out.p);
    finish();
    const std::vector<int> got = out.fetch();
    for (int i = 0; i < 2 * TURNS; i++)
        assert_int_equal(got[(size_t)i], i);
}

/* ---- a wait that ends ---- */

/* One arrival comes, and more are expected. */
__global__ void wait_in_vain(unsigned expected)
{
    fkm_mbarrier *b = new_barrier(boxes(), 0, expected);
    if (threadIdx.x == 0)
        fkm_mbarrier_arrive(b);
    if (threadIdx.x / 32 == 1)
        fkm_mbarrier_wait(b, 0);
}

/* In a process of its own, whose GPU is lost. Returns with a status that is not 0. */
int bark()
{
    if (fkm_watchdog_arm() != cudaSuccess)
        return 3;
    FKM_LAUNCH(wait_in_vain, 1, 2 * 32, shared_of(wait_in_vain, 0), 0, 2u);
    return cudaDeviceSynchronize() == cudaSuccess ? 0 : 6;
}

void test_watchdog(void **)
{
    char self[4096], said[1024] = "", command[4200];
    const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(length > 0);
    self[length] = 0;
    snprintf(command, sizeof command, "exec '%s' bark 2>&1", self);
    printf("a wait in vain ends\n");
    fflush(stdout);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    const size_t n = fread(said, 1, sizeof said - 1, f);
    said[n] = 0;
    const int status = pclose(f);
    if (!WIFEXITED(status) || WEXITSTATUS(status) == 0 ||
        !strstr(said, "watchdog: block 0, warp 1 waits for parity 0 of the mbarrier at "))
        fail_msg("status %d, said: %s", status, said);
}

/* ---- the rate of products ---- */

void test_rate(void **)
{
    int processors = 0;
    assert_int_equal(
        cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0), cudaSuccess);
    device_array<uint32_t> out(
        std::vector<uint32_t>((size_t)processors * FKM_MULTIPLY_THREADS, 0x7fc00000));
#ifdef FKM_CUDA_ON_CPU
    const int rounds[] = {1};
#else
    const int rounds[] = {64, 1024, RATE_ROUNDS}; /* before the power limit, and after */
#endif
    cudaEvent_t from, to;
    assert_int_equal(cudaEventCreate(&from), cudaSuccess);
    assert_int_equal(cudaEventCreate(&to), cudaSuccess);
    for (int unit = 0; unit < FKM_UNITS; unit++)
        for (int n : rounds) {
            float ms = 0;
            for (int warm = 0; warm < 2; warm++) {
                assert_int_equal(cudaEventRecord(from, 0), cudaSuccess);
                assert_int_equal(
                    fkm_multiply_sm90a(out.p, (fkm_unit)unit, (unsigned)processors, n, 0),
                    cudaSuccess);
                assert_int_equal(cudaEventRecord(to, 0), cudaSuccess);
            }
            finish();
            assert_int_equal(cudaEventElapsedTime(&ms, from, to), cudaSuccess);
            const double flop = 2.0 * (double)FKM_MULTIPLY_BYTES / (unit == FKM_UNIT_S8 ? 1 : 2);
            printf("wgmma %s: %d rounds %.3f ms, %.1f TFLOP/s\n", unit_names[unit], n, (double)ms,
                flop * n * processors / (double)ms * 1e-9);
            const std::vector<uint32_t> got = out.fetch();
            for (uint32_t bits : got)
                assert_true(bits != 0x7fc00000); /* all threads are through */
        }
    assert_int_equal(cudaEventDestroy(from), cudaSuccess);
    assert_int_equal(cudaEventDestroy(to), cudaSuccess);
}

} // namespace

int main(int argc, char **)
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(test_boxes),
        cmocka_unit_test(test_f16),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_s8),
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_rate),
        cmocka_unit_test(test_watchdog),
    };
    setvbuf(stdout, NULL, _IOLBF, 0);
    skip_without_gpu();
    skip_without_hopper();
    return argc > 1 ? bark() : RUN_ON_GPU(tests);
}
