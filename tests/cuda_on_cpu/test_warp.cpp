/* Fibers, barriers, collectives, fragments and the matrix unit, in every order of threads. */
#include "cuo_check.h"

#include <cuda_runtime.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuo_control.h>

#include <math.h>
#include <vector>

#define ALL 0xffffffffu
#define LAUNCH(kernel, grid, block, bytes, ...)                                                    \
    do {                                                                                           \
        cuo::launch(#kernel, kernel, grid, block, bytes, nullptr, __VA_ARGS__);                    \
        CHECK(cudaGetLastError() == cudaSuccess);                                                  \
        CHECK(cudaDeviceSynchronize() == cudaSuccess);                                             \
    } while (0)

/* Device memory of n elements, filled from the host. */
template <class T> static T *device(const std::vector<T> &v)
{
    T *p;
    CHECK(cudaMalloc(&p, v.size() * sizeof(T)) == cudaSuccess);
    CHECK(cudaMemcpy(p, v.data(), v.size() * sizeof(T), cudaMemcpyHostToDevice) == cudaSuccess);
    return p;
}

template <class T> static std::vector<T> host(const T *p, size_t n)
{
    std::vector<T> v(n);
    CHECK(cudaMemcpy(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost) == cudaSuccess);
    return v;
}

/* ---- a block scan: barriers, shuffles, static shared memory ---- */

static __global__ void scan(const unsigned *in, unsigned *out, unsigned *total, int n)
{
    CUO_SHARED(unsigned, sums, [32]);
    CUO_SHARED(int, blocks_seen, );
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x), lane = threadIdx.x & 31;
    int w = (int)threadIdx.x >> 5, warps = ((int)blockDim.x + 31) >> 5;
    if (threadIdx.x == 0)
        blocks_seen = 0;
    unsigned v = i < n ? in[i] : 0;
    for (int o = 1; o < 32; o <<= 1) {
        unsigned u = __shfl_up_sync(ALL, v, (unsigned)o);
        if (lane >= o)
            v += u;
    }
    if (lane == 31)
        sums[w] = v;
    __syncthreads();
    if (w == 0) {
        unsigned s = lane < warps ? sums[lane] : 0;
        for (int o = 1; o < 32; o <<= 1) {
            unsigned u = __shfl_up_sync(ALL, s, (unsigned)o);
            if (lane >= o)
                s += u;
        }
        __syncwarp();
        sums[lane] = s;
    }
    atomicAdd(&blocks_seen, 1);
    int there = __syncthreads_count(i < n);
    if (w)
        v += sums[w - 1];
    if (i < n)
        out[i] = v;
    if (threadIdx.x == 0) {
        total[2 * blockIdx.x] = (unsigned)blocks_seen;
        total[2 * blockIdx.x + 1] = (unsigned)there;
    }
}

static void test_scan(int n, int block)
{
    std::vector<unsigned> in((size_t)n);
    for (int i = 0; i < n; i++)
        in[(size_t)i] = (unsigned)i * 2654435761u >> 20;
    int blocks = (n + block - 1) / block;
    unsigned *x = device(in), *y = device(in),
             *t = device(std::vector<unsigned>(2 * (size_t)blocks));
    LAUNCH(scan, (unsigned)blocks, (unsigned)block, 0, x, y, t, n);
    std::vector<unsigned> out = host(y, (size_t)n), total = host(t, 2 * (size_t)blocks);
    unsigned s = 0;
    for (int i = 0; i < n; i++) {
        s = i % block ? s + in[(size_t)i] : in[(size_t)i];
        CHECK(out[(size_t)i] == s);
    }
    for (int b = 0; b < blocks; b++) {
        CHECK(total[2 * (size_t)b] == (unsigned)block);
        CHECK(total[2 * (size_t)b + 1] == (unsigned)(b + 1 < blocks ? block : n - b * block));
    }
    cudaFree(x), cudaFree(y), cudaFree(t);
}

/* ---- every collective, once, with full and partial masks ---- */

static __global__ void collectives(int *bad)
{
    int lane = threadIdx.x & 31;
    auto expect = [&](bool ok) {
        if (!ok)
            atomicAdd(bad, 1);
    };
    expect(__shfl_sync(ALL, lane * 2, 5) == 10);
    expect(__shfl_sync(ALL, lane, 1, 8) == (lane & ~7) + 1);
    expect(__shfl_xor_sync(ALL, (double)lane, 3) == (lane ^ 3));
    expect(__shfl_down_sync(ALL, (long long)lane, 4) == (lane < 28 ? lane + 4 : lane));
    expect(__shfl_up_sync(ALL, lane, 1u, 4) == (lane & 3 ? lane - 1 : lane));
    expect(__ballot_sync(ALL, lane & 1) == 0xaaaaaaaau);
    expect(__any_sync(ALL, lane == 7) && !__any_sync(ALL, 0));
    expect(!__all_sync(ALL, lane != 7) && __all_sync(ALL, 1));
    expect(__match_any_sync(ALL, lane / 8) == 0xffu << (lane & ~7));
    expect(__reduce_add_sync(ALL, lane) == 496);
    expect(__reduce_min_sync(ALL, lane - 5) == -5 && __reduce_max_sync(ALL, -lane) == 0);
    expect(__reduce_min_sync(ALL, (unsigned)(lane - 5)) == 0);
    expect(__reduce_max_sync(ALL, (unsigned)(lane - 1)) == ALL);
    expect(__reduce_or_sync(ALL, 1u << lane) == ALL && __reduce_and_sync(ALL, ~(1u << lane)) == 0);
    expect(__reduce_xor_sync(ALL, (unsigned)lane) == 0);
    if (lane < 16) {
        expect(__reduce_add_sync(0xffffu, 1) == 16);
        expect(__ballot_sync(0xffffu, 1) == 0xffffu);
    } else if (lane & 1)
        expect(__shfl_sync(0xaaaa0000u, lane, 17) == 17);
    __syncwarp();
    expect(__syncthreads_or(threadIdx.x == 40) && !__syncthreads_or(0));
    expect(__syncthreads_and(1) && !__syncthreads_and(threadIdx.x != 40));
}

static void test_collectives()
{
    int *bad = device(std::vector<int>{0});
    LAUNCH(collectives, 3, 64, 0, bad);
    CHECK(host(bad, 1)[0] == 0);
    cudaFree(bad);
}

/* ---- fragments ---- */

template <int KIND>
static __global__ void fragments(const uint32_t *a, const uint32_t *b, void *d, int tiles)
{
    unsigned lane = threadIdx.x;
    uint32_t x[4], y[4][2];
    for (int i = 0; i < 4; i++)
        x[i] = a[lane * 4 + (unsigned)i];
    for (int t = 0; t < tiles; t++)
        for (int i = 0; i < 2; i++)
            y[t][i] = b[((unsigned)t * 32 + lane) * 2 + (unsigned)i];
    float f[4][4] = {};
    int n[4][4] = {};
    if (KIND == 0)
        cuo_mma_bf16_row(f, x, y, tiles);
    if (KIND == 1)
        for (int t = 0; t < tiles; t++)
            cuo_mma_f16(f[t], x, y[t]);
    if (KIND == 2)
        cuo_mma_s8s8_row(n, x, y, tiles);
    if (KIND == 3)
        cuo_mma_u8s8_row(n, x, y, tiles);
    if (KIND == 4)
        cuo_mma_s8u8_row(n, x, y, tiles);
    if (KIND == 5)
        cuo_mma_u8u8_row(n, x, y, tiles);
    for (int t = 0; t < tiles; t++)
        for (int i = 0; i < 4; i++)
            ((int *)d)[((unsigned)t * 32 + lane) * 4 + (unsigned)i] =
                KIND < 2 ? __float_as_int(f[t][i]) : n[t][i];
}

static uint32_t pseudo()
{
    static uint32_t s = 99;
    return (s = s * 1664525u + 1013904223u) >> 8;
}

/* The PTX manual's layouts, written down a second time: element (row, k) of A and (k, column) of B
 * in register r, part h of lane l; 16-bit elements pair up, 8-bit ones come in fours. */
template <int KIND> static void test_fragments()
{
    const int tiles = 3, per = KIND < 2 ? 2 : 4, depth = 8 * per;
    std::vector<uint32_t> a(128, 0), b(64 * tiles, 0);
    std::vector<double> va((size_t)(16 * depth)), vb((size_t)(depth * 8 * tiles));
    auto encode = [](int v) -> uint32_t {
        if (KIND == 0)
            return __bfloat16_as_ushort(__float2bfloat16_rn((float)v));
        if (KIND == 1)
            return __half_as_ushort(__float2half_rn((float)v));
        return (uint32_t)v & 255;
    };
    auto value = [](bool is_signed) {
        return is_signed ? (int)(pseudo() % 256) - 128 : (int)(pseudo() % 256);
    };
    bool a_signed = KIND < 3 || KIND == 4, b_signed = KIND < 4;
    for (int l = 0; l < 32; l++)
        for (int h = 0; h < per; h++) {
            int g = l / 4, k = l % 4 * per + h, bits = 32 / per;
            for (int r = 0; r < 4; r++) {
                int v = value(a_signed);
                va[(size_t)((g + r % 2 * 8) * depth + k + r / 2 * depth / 2)] = v;
                a[(size_t)(l * 4 + r)] |= encode(v) << bits * h;
            }
            for (int t = 0; t < tiles; t++)
                for (int r = 0; r < 2; r++) {
                    int v = value(b_signed);
                    vb[(size_t)((t * depth + k + r * depth / 2) * 8 + g)] = v;
                    b[(size_t)((t * 32 + l) * 2 + r)] |= encode(v) << bits * h;
                }
        }
    uint32_t *x = device(a), *y = device(b);
    int *d = device(std::vector<int>(128 * tiles));
    LAUNCH(fragments<KIND>, 1, 32, 0, x, y, d, tiles);
    std::vector<int> out = host(d, 128 * tiles);
    for (int t = 0; t < tiles; t++)
        for (int l = 0; l < 32; l++)
            for (int q = 0; q < 4; q++) {
                int row = l / 4 + q / 2 * 8, column = l % 4 * 2 + q % 2;
                double s = 0;
                for (int k = 0; k < depth; k++)
                    s += va[(size_t)(row * depth + k)] * vb[(size_t)((t * depth + k) * 8 + column)];
                int bits = out[(size_t)((t * 32 + l) * 4 + q)];
                CHECK(KIND < 2 ? __int_as_float(bits) == (float)s : bits == (int)s);
            }
    cudaFree(x), cudaFree(y), cudaFree(d);
}

/* ---- the matrix unit's error is what README.md says, and worst comes near it ---- */

static __global__ void chain(const uint32_t *a, const uint32_t *b, float *d, int steps)
{
    unsigned lane = threadIdx.x;
    float c[4] = {0, 0, 0, 0};
    for (int s = 0; s < steps; s++)
        cuo_mma_bf16(c, a + (unsigned)s * 128 + lane * 4, b + (unsigned)s * 64 + lane * 2);
    for (int i = 0; i < 4; i++)
        d[lane * 4 + (unsigned)i] = c[i];
}

/* All products are equal. Returns the largest relative error. */
static double chain_error(const char *mode, int steps, float p)
{
    cuo_set("MMA", mode);
    uint32_t one = 0x3fab * 0x10001u, v = __bfloat16_as_ushort(__float2bfloat16_rn(p)) * 0x10001u;
    uint32_t *a = device(std::vector<uint32_t>((size_t)(128 * steps), one));
    uint32_t *b = device(std::vector<uint32_t>((size_t)(64 * steps), v));
    float *d = device(std::vector<float>(128));
    LAUNCH(chain, 1, 32, 0, a, b, d, steps);
    double worst = 0,
           exact = 16.0 * steps * 0x1.56p0 * (double)__bfloat162float(__float2bfloat16_rn(p));
    for (float c : host(d, 128))
        worst = fmax(worst, fabs((double)c - exact) / exact);
    cudaFree(a), cudaFree(b), cudaFree(d);
    cuo_set("MMA", nullptr);
    return worst;
}

static void test_matrix_unit()
{
    const int steps = 96;
    const float p = 1.0f / 3 + 0.001f;
    double exact = chain_error("exact", steps, p), rounded = chain_error("rounded", steps, p);
    double worst = chain_error("worst", steps, p), bound = 18 * steps * 0x1p-23;
    CHECK(exact <= steps * 0x1p-24);
    CHECK(rounded <= 16 * steps * 0x1p-24);
    CHECK(worst <= bound && worst > bound / 8 && worst > 1.5 * rounded);
}

/* ---- ldmatrix and cp.async ---- */

static __global__ void tiles(const uint16_t *g, uint32_t *out, int wait)
{
    CUO_SHARED_DYNAMIC(uint16_t, s); /* [32][8] */
    unsigned lane = threadIdx.x;
    cuo_cp_async16(s + lane * 8, g + lane * 8, lane == 31 ? 4u : 16u);
    cuo_cp_async_commit();
    if (wait)
        cuo_cp_async_wait<0>();
    __syncwarp();
    uint32_t r[4];
    cuo_ldmatrix_x4(r, s + lane * 8);
    for (unsigned i = 0; i < 4; i++)
        out[lane * 8 + i] = r[i];
    cuo_ldmatrix_x4_trans(r, s + lane * 8);
    for (unsigned i = 0; i < 4; i++)
        out[lane * 8 + 4 + i] = r[i];
    cuo_cp_async_wait_all();
}

static void test_tiles()
{
    std::vector<uint16_t> in(256);
    for (size_t i = 0; i < 256; i++)
        in[i] = (uint16_t)(i + 1);
    uint16_t *g = device(in);
    uint32_t *d = device(std::vector<uint32_t>(256));
    LAUNCH(tiles, 1, 32, 512, g, d, 1);
    std::vector<uint32_t> out = host(d, 256);
    for (size_t i = 250; i < 256; i++)
        in[i] = 0; /* the last row was valid for 4 bytes */
    for (size_t l = 0; l < 32; l++)
        for (size_t j = 0; j < 4; j++) {
            const uint16_t *m = &in[j * 64];
            CHECK(out[l * 8 + j] ==
                  (m[l / 4 * 8 + l % 4 * 2] | (uint32_t)m[l / 4 * 8 + l % 4 * 2 + 1] << 16));
            CHECK(out[l * 8 + 4 + j] ==
                  (m[l % 4 * 2 * 8 + l / 4] | (uint32_t)m[(l % 4 * 2 + 1) * 8 + l / 4] << 16));
        }
    cudaFree(g), cudaFree(d);
}

/* ---- directed rounding and conversions ---- */

static void test_arithmetic()
{
    volatile float a = 1.0f, tiny = 0x1p-30f;
    CHECK(__fadd_rn(a, tiny) == 1 && __fadd_rd(a, tiny) == 1 && __fadd_rz(a, tiny) == 1);
    CHECK(__fadd_ru(a, tiny) == 1 + 0x1p-23f);
    CHECK(__fsub_rd(a, tiny) == 1 - 0x1p-24f && __fsub_ru(a, tiny) == 1);
    CHECK(__fmul_ru(1 + 0x1p-23f, 1 + 0x1p-23f) > __fmul_rd(1 + 0x1p-23f, 1 + 0x1p-23f));
    CHECK(__dmul_ru(1.1, 1.1) > __dmul_rd(1.1, 1.1));
    CHECK(__fmaf_rn(3, 5, 7) == 22 && __fma_rn(3, 5, 7) == 22);
    CHECK(__double2float_ru(0.1) > __double2float_rd(0.1));
    CHECK(__fsqrt_ru(2) > __fsqrt_rd(2) && __fdiv_ru(1, 3) > __fdiv_rd(1, 3));
    CHECK(__float2int_rn(2.5f) == 2 && __float2int_ru(2.1f) == 3 && __float2int_rz(-2.9f) == -2);
    CHECK(__double2ll_rn(-3.5) == -4 && __double2ll_rd(-3.1) == -4);
    CHECK(__float2int_rn(1e30f) == INT32_MAX && __float2int_rn(-1e30f) == INT32_MIN);
    CHECK(__double2ll_rn(1e30) == INT64_MAX && __double2ll_rn(-1e30) == INT64_MIN);
    CHECK(__float2uint_rn(-5.f) == 0 && __float2int_rn(NAN) == 0);
    CHECK(
        __ll2double_rn((1LL << 53) + 1) == 0x1p53 && __ll2float_ru((1LL << 24) + 1) == 0x1p24f + 2);
    CHECK(__clz(1) == 31 && __clz(0) == 32 && __ffs(8) == 4 && __popcll(~0ull) == 64);
    CHECK(__byte_perm(0x33221100, 0x77665544, 0x7531) == 0x77553311);
    for (uint32_t h = 0; h < 65536; h++) {
        float f = __half2float(__ushort_as_half((uint16_t)h));
        if (f == f)
            CHECK(__half_as_ushort(__float2half_rn(f)) == h);
    }
    CHECK(__half_as_ushort(__float2half_rn(65519.f)) == 0x7bff);
    CHECK(__half_as_ushort(__float2half_rn(65520.f)) == 0x7c00);
    CHECK(__half_as_ushort(__float2half_rn(1 + 0x1p-11f)) == 0x3c00);
    CHECK(__half_as_ushort(__float2half_rn(1 + 0x1.8p-10f)) == 0x3c02);
    CHECK(__half_as_ushort(__float2half_rn(0x1p-25f)) == 0 &&
          __half_as_ushort(__float2half_rn(0x1.8p-24f)) == 2);
}

/* ---- rules that are broken ---- */

static __global__ void divergent(int kind)
{
    if (kind == 0 && threadIdx.x < 32)
        __syncthreads();
    else if (kind == 0)
        __syncthreads();
    if (kind == 1 && threadIdx.x != 3)
        __syncwarp();
    if (kind == 2 && (threadIdx.x & 1))
        __shfl_sync(0x1u, 1, 0);
    if (kind == 3 && threadIdx.x < 16)
        __shfl_sync(0xffffu, 1, 20);
    if (kind == 4 && threadIdx.x < 2) {
        if (threadIdx.x)
            __syncwarp(3);
        else
            __ballot_sync(3, 1);
    }
    if (kind == 5) {
        CUO_SHARED(char, big, [50000]);
        big[threadIdx.x] = 1;
    }
    if (kind == 6)
        ((volatile char *)cuo::shared_dynamic())[0] = 1;
    if (kind == 7)
        __trap();
    if (kind == 8) {
        CUO_SHARED(uint32_t, word, [8]);
        cuo_cp_async4(word, (char *)&word[2] + 1);
    }
    if (kind == 9) {
        CUO_SHARED(uint4, chunk, [1]);
        cuo_cp_async16(chunk, chunk);
    }
}

static void test_deaths()
{
    const char *texts[] = {"__syncthreads while others",
        "deadlock|names lanes that have|returns while", "is not in its mask", "reads lane",
        "are in", "static shared memory", "asks for none", "__trap", "not aligned",
        "cp.async are pending"};
    for (int kind = 0; kind < 10; kind++) {
        if (kind == 1)
            continue;
        check_dies(texts[kind], [&] { LAUNCH(divergent, 1, 64, 0, kind); });
    }
    /* Lane 3 returns before, while or after the others wait for it. */
    cuo_set("ORDER", "forward");
    check_dies("returns while others wait", [] { LAUNCH(divergent, 1, 64, 0, 1); });
    cuo_set("ORDER", "reverse");
    check_dies("returns while others wait", [] { LAUNCH(divergent, 1, 64, 0, 1); });
}

int main()
{
    const char *orders[] = {"forward", "reverse", "random", "random"};
    for (int i = 0; i < 4; i++) {
        cuo_set("ORDER", orders[i]);
        cuo_set("SEED", i == 3 ? "7" : "1");
        test_collectives();
        test_scan(1, 256);
        test_scan(1000, 256);
        test_scan(5000, 1024);
        test_scan(4096, 32);
        test_fragments<0>();
        test_fragments<1>();
        test_fragments<2>();
        test_fragments<3>();
        test_fragments<4>();
        test_fragments<5>();
        test_matrix_unit();
        test_tiles();
    }
    test_arithmetic();
    test_deaths();
    return 0;
}
