/* Memory, streams, events, graphs, several devices, and errors on demand. */
#include "cuo_check.h"

#include <cub/cub.cuh>
#include <cuda_runtime.h>
#include <cuo_control.h>

#include <string.h>
#include <thread>
#include <vector>

#define OK(call) CHECK((call) == cudaSuccess)

/* Starts afresh with these knobs, "NAME=VALUE" each. */
static void fresh(std::initializer_list<const char *> knobs)
{
    for (const char *name : {"DEVICES", "MEMORY", "FAIL", "STREAMS", "NO_DEVICE", "CC", "SEED"})
        unsetenv((std::string("CUO_") + name).c_str());
    for (const std::string k : knobs) {
        size_t equals = k.find('=');
        setenv(("CUO_" + k.substr(0, equals)).c_str(), k.c_str() + equals + 1, 1);
    }
    cuo_reset();
}

static __global__ void add(int *p, int n, int v)
{
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < (unsigned)n)
        p[i] += v;
}

static void launch_add(int *p, int n, int v, cudaStream_t s = nullptr)
{
    cuo::launch("add", add, dim3(((unsigned)n + 63) / 64), dim3(64), 0, s, p, n, v);
}

/* ---- memory ---- */

static void test_memory()
{
    fresh({"MEMORY=100000"});
    size_t free_bytes, total;
    OK(cudaMemGetInfo(&free_bytes, &total));
    CHECK(free_bytes == 100000 && total == 100000);
    char *a, *b;
    OK(cudaMalloc(&a, 60000));
    CHECK(cudaMalloc(&b, 60000) == cudaErrorMemoryAllocation && !b);
    CHECK(cudaGetLastError() == cudaErrorMemoryAllocation && cudaGetLastError() == cudaSuccess);
    OK(cudaMemGetInfo(&free_bytes, &total));
    CHECK(free_bytes == 100000 - 60416);
    char all[60000], seen = 0;
    OK(cudaMemcpy(all, a, sizeof all, cudaMemcpyDeviceToHost));
    for (char c : all)
        seen |= c;
    CHECK(seen != 0); /* garbage, not zeros */
    struct cudaPointerAttributes at;
    OK(cudaPointerGetAttributes(&at, a + 100));
    CHECK(at.type == cudaMemoryTypeDevice && at.device == 0);
    OK(cudaPointerGetAttributes(&at, all));
    CHECK(at.type == cudaMemoryTypeUnregistered);
    check_dies("bytes at", [&] { cudaMemset(a + 1, 0, 60000); });
    check_dies("bytes at", [&] { cudaMemcpy(a + 59999, "xx", 2, cudaMemcpyHostToDevice); });
    check_dies("the kind says", [&] { cudaMemcpy(a, "xx", 2, cudaMemcpyDeviceToHost); });
    check_dies("is not what cudaMalloc gave", [&] { cudaFree(a + 8); });
    OK(cudaFree(a));
    check_dies("is not what cudaMalloc gave", [&] { cudaFree(a); });
    CHECK(cuo_counts().device_blocks == 0 && cuo_counts().peak_bytes == 60416);
    OK(cudaHostRegister(all, sizeof all, 0));
    CHECK(cudaHostRegister(all + 5, 1, 0) == cudaErrorHostMemoryAlreadyRegistered);
    OK(cudaHostUnregister(all));
    CHECK(cudaHostUnregister(all) == cudaErrorHostMemoryNotRegistered);
}

/* ---- order: a copy that nothing orders against its kernel ---- */

/* One upload, one kernel, one download on two streams. Returns whether the result is right. */
static bool pipeline(bool with_events)
{
    const int N = 1000;
    cudaStream_t copy, compute;
    cudaEvent_t up, done;
    int *pinned, *d;
    OK(cudaStreamCreateWithFlags(&copy, cudaStreamNonBlocking));
    OK(cudaStreamCreateWithFlags(&compute, cudaStreamNonBlocking));
    OK(cudaEventCreate(&up));
    OK(cudaEventCreateWithFlags(&done, cudaEventDisableTiming));
    OK(cudaHostAlloc(&pinned, N * sizeof(int), 0));
    OK(cudaMalloc(&d, N * sizeof(int)));
    for (int i = 0; i < N; i++)
        pinned[i] = i;
    OK(cudaMemcpyAsync(d, pinned, N * sizeof(int), cudaMemcpyHostToDevice, copy));
    OK(cudaEventRecord(up, copy));
    if (with_events)
        OK(cudaStreamWaitEvent(compute, up));
    launch_add(d, N, 7, compute);
    OK(cudaEventRecord(done, compute));
    if (with_events)
        OK(cudaStreamWaitEvent(copy, done));
    OK(cudaMemcpyAsync(pinned, d, N * sizeof(int), cudaMemcpyDeviceToHost, copy));
    OK(cudaStreamSynchronize(copy));
    bool right = true;
    for (int i = 0; i < N; i++)
        right = right && pinned[i] == i + 7;
    OK(cudaDeviceSynchronize());
    OK(cudaStreamDestroy(copy));
    OK(cudaStreamDestroy(compute));
    OK(cudaEventDestroy(up));
    OK(cudaEventDestroy(done));
    OK(cudaFreeHost(pinned));
    OK(cudaFree(d));
    return right;
}

static void test_order()
{
    fresh({});
    CHECK(pipeline(true));
    fresh({"STREAMS=eager"});
    CHECK(pipeline(true));
    fresh({"STREAMS=kernels-first"});
    CHECK(pipeline(true));
    int wrong = 0;
    for (int seed = 1; seed <= 10; seed++) {
        std::string s = "SEED=" + std::to_string(seed);
        fresh({"STREAMS=random", s.c_str()});
        CHECK(pipeline(true));
    }
#if !defined(__SANITIZE_THREAD__) /* it would stop here, and rightly */
    fresh({});
    CHECK(!pipeline(false)); /* lazy: the kernel was never asked for */
    fresh({"STREAMS=kernels-first"});
    CHECK(!pipeline(false)); /* the kernel came before its copy */
    for (int seed = 1; seed <= 10; seed++) {
        std::string s = "SEED=" + std::to_string(seed);
        fresh({"STREAMS=random", s.c_str()});
        wrong += !pipeline(false);
    }
    CHECK(wrong > 0);
#endif
    (void)wrong;
}

/* A host buffer that is filled again before its copy has run. */
static void test_reuse()
{
    fresh({});
    int *pinned, *d, out;
    OK(cudaHostAlloc(&pinned, sizeof *pinned, 0));
    OK(cudaMalloc(&d, sizeof *d));
    cudaStream_t s;
    OK(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
    *pinned = 1;
    OK(cudaMemcpyAsync(d, pinned, sizeof *d, cudaMemcpyHostToDevice, s));
#if !defined(__SANITIZE_THREAD__)
    *pinned = 2;
#endif
    check_dies("is released while", [&] { cudaFreeHost(pinned); });
    OK(cudaStreamSynchronize(s));
    OK(cudaMemcpy(&out, d, sizeof out, cudaMemcpyDeviceToHost));
#if !defined(__SANITIZE_THREAD__)
    CHECK(out == 2);
#endif
    int pageable = 5; /* taken at the call, as documented */
    OK(cudaMemcpyAsync(d, &pageable, sizeof *d, cudaMemcpyHostToDevice, s));
    pageable = 6;
    OK(cudaMemcpyAsync(&out, d, sizeof out, cudaMemcpyDeviceToHost, s));
    CHECK(out == 5 && cuo_counts().pageable == 2);
    OK(cudaStreamDestroy(s));
    OK(cudaFree(d));
    OK(cudaFreeHost(pinned));
}

static void count_up(void *p)
{
    ++*(int *)p;
}

static void test_default_stream()
{
    for (const char *how : {"STREAMS=lazy", "STREAMS=eager", "STREAMS=random"}) {
        fresh({how});
        cudaStream_t s;
        OK(cudaStreamCreate(&s));
        int *d, out, calls = 0;
        OK(cudaMalloc(&d, sizeof *d));
        OK(cudaMemset(d, 0, sizeof *d));
        launch_add(d, 1, 1, s);        /* after the memset, without a word */
        launch_add(d, 1, 10, nullptr); /* after that */
        OK(cudaLaunchHostFunc(s, count_up, &calls));
        OK(cudaMemcpy(&out, d, sizeof out, cudaMemcpyDeviceToHost));
        CHECK(out == 11);
        OK(cudaStreamSynchronize(s));
        CHECK(calls == 1);
        OK(cudaStreamDestroy(s));
        OK(cudaFree(d));
    }
}

static void test_events()
{
    fresh({});
    cudaEvent_t a, b;
    OK(cudaEventCreate(&a));
    OK(cudaEventCreate(&b));
    int *d;
    OK(cudaMalloc(&d, 4000));
    OK(cudaMemset(d, 0, 4000));
    OK(cudaEventRecord(a));
    launch_add(d, 1000, 1);
    OK(cudaEventRecord(b));
    float ms = -1;
    CHECK(cudaEventElapsedTime(&ms, a, b) == cudaErrorNotReady);
    CHECK(cudaEventQuery(b) == cudaErrorNotReady);
    CHECK(cudaEventQuery(b) == cudaSuccess);
    OK(cudaEventElapsedTime(&ms, a, b));
    CHECK(ms >= 0 && cudaGetLastError() == cudaSuccess);
    OK(cudaEventDestroy(a));
    OK(cudaEventDestroy(b));
    OK(cudaFree(d));
}

/* ---- graphs ---- */

static void test_graph()
{
    for (const char *how : {"STREAMS=lazy", "STREAMS=random"}) {
        fresh({how});
        cudaStream_t s, side;
        cudaEvent_t fork, join;
        cudaGraph_t never, g;
        cudaGraphExec_t e;
        int *d, *pinned;
        OK(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
        OK(cudaStreamCreateWithFlags(&side, cudaStreamNonBlocking));
        OK(cudaEventCreate(&fork));
        OK(cudaEventCreate(&join));
        OK(cudaMalloc(&d, 2 * sizeof *d));
        OK(cudaHostAlloc(&pinned, 2 * sizeof *pinned, 0));
        OK(cudaMemset(d, 0, 2 * sizeof *d));
        OK(cudaDeviceSynchronize());
        OK(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal));
        launch_add(d, 2, 1, s);
        OK(cudaEventRecord(fork, s));
        OK(cudaStreamWaitEvent(side, fork));
        launch_add(d, 1, 10, side);
        launch_add(d + 1, 1, 100, s);
        int *no;
        CHECK(cudaMalloc(&no, 4) == cudaErrorStreamCaptureUnsupported);
        CHECK(cudaMemcpyAsync(&no, d, 4, cudaMemcpyDeviceToHost, s) ==
              cudaErrorStreamCaptureUnsupported);
        OK(cudaEventRecord(join, side));
        OK(cudaStreamWaitEvent(s, join));
        OK(cudaMemcpyAsync(pinned, d, 2 * sizeof *d, cudaMemcpyDeviceToHost, s));
        OK(cudaStreamEndCapture(s, &g));
        OK(cudaGraphInstantiate(&e, g));
        for (int i = 1; i <= 5; i++) {
            OK(cudaGraphLaunch(e, s));
            OK(cudaStreamSynchronize(s));
            CHECK(pinned[0] == 11 * i && pinned[1] == 101 * i);
        }
        for (auto mode : {cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal,
                 cudaStreamCaptureModeRelaxed}) {
            cudaError_t here, elsewhere;
            int *some;
            OK(cudaStreamBeginCapture(s, mode));
            std::thread([&] { elsewhere = cudaMalloc(&some, 4); }).join();
            here = cudaMalloc(&no, 4);
            OK(cudaStreamEndCapture(s, &never));
            OK(cudaGraphDestroy(never));
            CHECK((here == cudaSuccess) == (mode == cudaStreamCaptureModeRelaxed));
            CHECK((elsewhere == cudaSuccess) == (mode != cudaStreamCaptureModeGlobal));
            if (here == cudaSuccess)
                OK(cudaFree(no));
            if (elsewhere == cudaSuccess)
                OK(cudaFree(some));
        }
        OK(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal));
        OK(cudaEventRecord(fork, s));
        OK(cudaStreamWaitEvent(side, fork));
        launch_add(d, 1, 10, side);
        CHECK(cudaStreamEndCapture(s, &never) == cudaErrorStreamCaptureUnjoined);
        OK(cudaEventDestroy(fork));
        OK(cudaEventDestroy(join));
        OK(cudaGraphExecDestroy(e));
        OK(cudaGraphDestroy(g));
        OK(cudaFree(d));
        OK(cudaFreeHost(pinned));
    }
}

/* ---- errors on demand ---- */

static void test_failures()
{
    int n = 7;
    for (const char *code : {"NO_DEVICE=35", "NO_DEVICE=34", "NO_DEVICE=100"}) {
        fresh({code});
        CHECK(cudaGetDeviceCount(&n) == (cudaError_t)atoi(code + 10) && n == 7);
    }
    fresh({"FAIL=2:2"});
    char *p, *q;
    OK(cudaMalloc(&p, 10));
    CHECK(cudaMalloc(&q, 10) == cudaErrorMemoryAllocation);
    OK(cudaMalloc(&q, 10));
    fresh({"FAIL=2+:700"});
    OK(cudaMalloc(&p, 10));
    CHECK(cudaMalloc(&q, 10) == cudaErrorIllegalAddress);
    CHECK(cudaDeviceSynchronize() == cudaErrorIllegalAddress);
    fresh({"FAIL=kernel 2:719"});
    int *d;
    OK(cudaMalloc(&d, 4));
    OK(cudaMemset(d, 0, 4));
    launch_add(d, 1, 1);
    launch_add(d, 1, 1);
    launch_add(d, 1, 1);
    OK(cudaGetLastError()); /* nothing has run yet */
    CHECK(cudaDeviceSynchronize() == cudaErrorLaunchFailure);
    CHECK(cudaFree(d) == cudaErrorLaunchFailure && cudaMalloc(&p, 4) == cudaErrorLaunchFailure);
    fresh({});
    OK(cudaMalloc(&d, 4));
    cuo::launch("add", add, dim3(1), dim3(2000), 0, nullptr, d, 1, 1);
    CHECK(cudaGetLastError() == cudaErrorInvalidConfiguration);
    cuo::launch("add", add, dim3(1), dim3(32), 60000, nullptr, d, 1, 1);
    CHECK(cudaGetLastError() == cudaErrorInvalidValue);
    OK(cudaFuncSetAttribute(add, cudaFuncAttributeMaxDynamicSharedMemorySize, 60000));
    cuo::launch("add", add, dim3(1), dim3(32), 60000, nullptr, d, 1, 1);
    OK(cudaGetLastError());
    fresh({"CC=8.6"});
    CHECK(cudaFuncSetAttribute(add, cudaFuncAttributeMaxDynamicSharedMemorySize, 120000) ==
          cudaErrorInvalidValue);
    CHECK(!strcmp(cudaGetErrorName(cudaErrorNoDevice), "cudaErrorNoDevice"));
}

/* ---- several devices, a host thread each ---- */

static void use_device(int device, int *out)
{
    OK(cudaSetDevice(device));
    cudaStream_t s;
    OK(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
    int *d, *pinned;
    OK(cudaMalloc(&d, 4000));
    OK(cudaHostAlloc(&pinned, 4000, 0));
    for (int i = 0; i < 1000; i++)
        pinned[i] = device;
    OK(cudaMemcpyAsync(d, pinned, 4000, cudaMemcpyHostToDevice, s));
    for (int i = 0; i < 20; i++)
        launch_add(d, 1000, 1, s);
    OK(cudaMemcpyAsync(pinned, d, 4000, cudaMemcpyDeviceToHost, s));
    OK(cudaStreamSynchronize(s));
    *out = pinned[999];
    OK(cudaStreamDestroy(s));
    OK(cudaFree(d));
    OK(cudaFreeHost(pinned));
}

static void test_devices()
{
    fresh({"DEVICES=3"});
    int n, out[3], can;
    OK(cudaGetDeviceCount(&n));
    CHECK(n == 3 && cudaSetDevice(3) == cudaErrorInvalidDevice);
    std::thread a(use_device, 0, &out[0]), b(use_device, 1, &out[1]), c(use_device, 2, &out[2]);
    a.join(), b.join(), c.join();
    CHECK(out[0] == 20 && out[1] == 21 && out[2] == 22);
    int *on0, *on1, v = 5, w = 0;
    OK(cudaMalloc(&on0, 4));
    OK(cudaSetDevice(1));
    OK(cudaMalloc(&on1, 4));
    OK(cudaDeviceCanAccessPeer(&can, 1, 0));
    CHECK(can);
    OK(cudaMemcpy(on0, &v, 4, cudaMemcpyHostToDevice));
    OK(cudaMemcpyPeer(on1, 1, on0, 0, 4));
    OK(cudaMemcpy(&w, on1, 4, cudaMemcpyDeviceToHost));
    CHECK(w == 5);
    cudaStream_t s;
    OK(cudaStreamCreate(&s));
    OK(cudaSetDevice(0));
    launch_add(on0, 1, 1, s); /* a stream of another device */
    CHECK(cudaGetLastError() == cudaErrorInvalidResourceHandle);
    OK(cudaFree(on0));
    OK(cudaFree(on1));
}

/* ---- CUB ---- */

static void test_cub()
{
    fresh({});
    const int N = 1000;
    uint32_t keys[N], *kin, *kout;
    int32_t values[N], *vin, *vout;
    for (int i = 0; i < N; i++) {
        keys[i] = (uint32_t)i * 2654435761u >> 27;
        values[i] = i;
    }
    OK(cudaMalloc(&kin, sizeof keys));
    OK(cudaMalloc(&kout, sizeof keys));
    OK(cudaMalloc(&vin, sizeof values));
    OK(cudaMalloc(&vout, sizeof values));
    OK(cudaMemcpy(kin, keys, sizeof keys, cudaMemcpyHostToDevice));
    OK(cudaMemcpy(vin, values, sizeof values, cudaMemcpyHostToDevice));
    size_t bytes = 0;
    OK(cub::DeviceRadixSort::SortPairs(nullptr, bytes, kin, kout, vin, vout, N, 0, 5));
    void *t;
    OK(cudaMalloc(&t, bytes));
    OK(cub::DeviceRadixSort::SortPairs(t, bytes, kin, kout, vin, vout, N, 0, 5));
    OK(cub::DeviceScan::ExclusiveSum(t, bytes, kin, kin, N));
    OK(cudaMemcpy(values, vout, sizeof values, cudaMemcpyDeviceToHost));
    for (int i = 1; i < N; i++) {
        uint32_t a = keys[values[i - 1]], b = keys[values[i]];
        CHECK(a < b || (a == b && values[i - 1] < values[i]));
    }
    uint32_t sums[N], sum = 0;
    OK(cudaMemcpy(sums, kin, sizeof sums, cudaMemcpyDeviceToHost));
    for (int i = 0; i < N; i++) {
        CHECK(sums[i] == sum);
        sum += keys[i];
    }
    OK(cudaFree(kin));
    OK(cudaFree(kout));
    OK(cudaFree(vin));
    OK(cudaFree(vout));
    OK(cudaFree(t));
}

int main()
{
    test_memory();
    test_order();
    test_reuse();
    test_default_stream();
    test_events();
    test_graph();
    test_failures();
    test_devices();
    test_cub();
    return 0;
}
