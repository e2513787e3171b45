/* Devices, memory, errors, and the knobs. */
#include "cuo_runtime.h"

#include <execinfo.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace cuo
{

Device devices[16];
/* Never destroyed: leak checkers look at what they hold after the end of main(). */
std::vector<cuo_stream *> &streams = *new std::vector<cuo_stream *>;
thread_local int current_device;

static thread_local cudaError_t last_error;
static int64_t resets;
static thread_local int64_t caller; /* resets + 1: this thread has been counted since */
/* By end - 1, so that lower_bound finds the container. */
static std::map<uintptr_t, Block> &blocks = *new std::map<uintptr_t, Block>;
static std::map<const void *, int> shared_attributes;
static bool started;

/* ---- one lock around the layer. TSan must not see it: it would order the program's threads ----
 */

static uint32_t lock_word; /* 0 free, 1 taken, 2 taken and waited for */

static void lock()
{
    uint32_t seen = 0;
    if (__atomic_compare_exchange_n(
            &lock_word, &seen, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
        return;
    while (__atomic_exchange_n(&lock_word, 2, __ATOMIC_ACQUIRE) != 0)
        syscall(SYS_futex, &lock_word, FUTEX_WAIT_PRIVATE, 2, nullptr, nullptr, 0);
}

static void unlock()
{
    if (__atomic_exchange_n(&lock_word, 0, __ATOMIC_RELEASE) == 2)
        syscall(SYS_futex, &lock_word, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

/* ---- knobs ---- */

static std::map<std::string, std::string> overrides;

static const char *knob(const char *name)
{
    auto o = overrides.find(name);
    return o != overrides.end() ? o->second.c_str() : getenv((std::string("CUO_") + name).c_str());
}

[[noreturn]] static void bad_knob(const char *name, const char *value, const char *expected)
{
    die("CUO_%s=%s: expected %s", name, value, expected);
}

static int64_t knob_number(const char *name, int64_t otherwise, int64_t low, int64_t high)
{
    const char *v = knob(name);
    if (!v || !*v)
        return otherwise;
    char *end;
    long long n = strtoll(v, &end, 10);
    if (*end || n < low || n > high)
        bad_knob(name, v, "a number in its range");
    return n;
}

/* The index of the value among the |-separated names, 0 when not set. */
static int knob_choice(const char *name, const char *names)
{
    const char *v = knob(name);
    if (!v || !*v)
        return 0;
    int i = 0;
    for (const char *p = names; p; i++) {
        const char *bar = strchr(p, '|');
        size_t n = bar ? (size_t)(bar - p) : strlen(p);
        if (strlen(v) == n && !strncmp(p, v, n))
            return i;
        p = bar ? bar + 1 : nullptr;
    }
    bad_knob(name, v, names);
}

static void read_fail()
{
    settings.fail_call = settings.fail_kernel = 0;
    const char *v = knob("FAIL");
    if (!v || !*v)
        return;
    bool of_kernel = !strncmp(v, "kernel ", 7);
    char *end;
    long long n = strtoll(of_kernel ? v + 7 : v, &end, 10);
    settings.fail_sticky = *end == '+';
    end += settings.fail_sticky;
    if (n < 1 || *end != ':')
        bad_knob("FAIL", v, "N:CODE, N+:CODE or kernel N:CODE");
    settings.fail_code = (int)strtol(end + 1, &end, 10);
    if (*end || settings.fail_code < 1)
        bad_knob("FAIL", v, "N:CODE, N+:CODE or kernel N:CODE");
    (of_kernel ? settings.fail_kernel : settings.fail_call) = n;
}

static void read_cc()
{
    const char *v = knob("CC");
    int cc[2] = {9, 0};
    for (int i = 0; i < 16; i++) {
        if (v && *v) {
            char *end;
            cc[0] = (int)strtol(v, &end, 10);
            if (*end != '.')
                bad_knob("CC", v, "numbers like 9.0");
            cc[1] = (int)strtol(end + 1, &end, 10);
            v = *end == ',' ? end + 1 : nullptr;
        }
        settings.cc[i][0] = cc[0];
        settings.cc[i][1] = cc[1];
    }
}

static void read_settings()
{
    settings.devices = (int)knob_number("DEVICES", 1, 1, 16);
    settings.sms = (int)knob_number("SMS", 2, 1, 1024);
    settings.no_device = (int)knob_number("NO_DEVICE", 0, 0, 999);
    settings.memory = (size_t)knob_number("MEMORY", 1 << 30, 0, INT64_MAX);
    settings.order = (Order)knob_choice("ORDER", "forward|reverse|random");
    settings.streams =
        (Streams)knob_choice("STREAMS", "lazy|eager|random|kernels-first|copies-first");
    settings.mma = (MmaMode)knob_choice("MMA", "rounded|exact|worst");
    settings.seed = (unsigned)knob_number("SEED", 1, 0, UINT32_MAX);
    settings.places = knob_number("PLACES", 0, 0, 1) != 0;
    settings.trace = knob_number("TRACE", 0, 0, 1) != 0;
    settings.name = knob("NAME") ? knob("NAME") : "Emulated GPU";
    planted = (int)knob_number("PLANT", 0, 0, 1 << 20);
    read_cc();
    read_fail();
    seed_draws(settings.seed);
    for (uint32_t &d : mma_direction)
        d = draw(256);
}

static std::string report_path;

static void write_report()
{
    FILE *f = fopen(report_path.c_str(), "w");
    if (!f)
        die("CUO_REPORT=%s: cannot write", report_path.c_str());
    fprintf(f,
        "{\"calls\": %lld, \"kernels\": %lld, \"peak_bytes\": %lld, \"device_blocks\": %lld, "
        "\"host_blocks\": %lld, \"copied_bytes\": %lld, \"pageable\": %lld, \"graphs\": %lld}\n",
        (long long)counts.calls, (long long)counts.kernels, (long long)counts.peak_bytes,
        (long long)counts.device_blocks, (long long)counts.host_blocks,
        (long long)counts.copied_bytes, (long long)counts.pageable, (long long)counts.graphs);
    fclose(f);
}

static void start()
{
    if (started)
        return;
    started = true;
    read_settings();
    if (knob("REPORT") && report_path.empty()) {
        report_path = knob("REPORT");
        atexit(write_report);
    }
    for (int i = 0; i < settings.devices; i++) {
        devices[i] = Device();
        devices[i].legacy = new_stream(i, true);
    }
}

/* ---- calls ---- */

static std::vector<uint64_t> &places = *new std::vector<uint64_t>;

/* FNV-1a of the return addresses. */
static uint64_t place_of_caller()
{
    void *at[32];
    const int n = backtrace(at, 32);
    uint64_t hash = 0xcbf29ce484222325u;
    for (int i = 0; i < n; i++)
        hash = (hash ^ (uintptr_t)at[i]) * 0x100000001b3u;
    return hash;
}

Call::Call(const char *name, bool counted, bool needs_device) : error(cudaSuccess)
{
    lock();
    tsan_ignore(true);
    start();
    if (settings.no_device) {
        error = (cudaError_t)settings.no_device;
    } else if (counted) {
        counts.calls++;
        counts.threads += caller != resets + 1;
        caller = resets + 1;
        if (settings.places)
            places.push_back(place_of_caller());
        if (settings.fail_call &&
            (counts.calls == settings.fail_call ||
                (settings.fail_sticky && counts.calls > settings.fail_call))) {
            if (settings.trace)
                fprintf(stderr, "cuo: call %lld, %s, fails with %d\n", (long long)counts.calls,
                    name, settings.fail_code);
            error = (cudaError_t)settings.fail_code;
        }
    }
    if (!error && needs_device && devices[current_device].lost)
        error = (cudaError_t)devices[current_device].lost;
    if (error && counted)
        last_error = error;
}

Call::~Call()
{
    close_memory();
    tsan_ignore(false);
    unlock();
}

cudaError_t Call::end(cudaError_t e)
{
    if (!e && devices[current_device].lost)
        e = (cudaError_t)devices[current_device].lost;
    if (e && e != cudaErrorNotReady)
        last_error = e;
    return e;
}

/* ---- memory ---- */

static void poison(const Block &b, bool on)
{
    (void)b, (void)on;
#if defined(__SANITIZE_ADDRESS__)
    if (on)
        __asan_poison_memory_region(b.p, b.bytes);
    else
        __asan_unpoison_memory_region(b.p, b.bytes);
#endif
}

/* Which memory is open is the layer's affair, on whatever stream it is changed. */
static int open_device = -1;
static std::vector<Block> opened;

void close_memory()
{
    tsan_ignore(true);
    for (const Block &b : opened)
        if (blocks.count((uintptr_t)b.p + b.bytes - 1))
            poison(b, true);
    opened.clear();
    open_device = -1;
    tsan_ignore(false);
}

void open_memory(int device)
{
    if (open_device == device)
        return;
    close_memory();
    tsan_ignore(true);
    for (const auto &entry : blocks) {
        const Block &b = entry.second;
        if (b.device == device || (b.device >= 0 && devices[device].peers >> b.device & 1)) {
            poison(b, false);
            opened.push_back(b);
        }
    }
    open_device = device;
    tsan_ignore(false);
}

void open_block(const Block *b)
{
    if (!b || b->device < 0 || b->device == open_device)
        return;
    tsan_ignore(true);
    poison(*b, false);
    opened.push_back(*b);
    tsan_ignore(false);
}

Block *find_block(const void *p)
{
    auto it = blocks.lower_bound((uintptr_t)p);
    return it != blocks.end() && (uintptr_t)it->second.p <= (uintptr_t)p ? &it->second : nullptr;
}

static void add_block(void *p, size_t bytes, int device, bool registered)
{
    Block b = {(char *)p, bytes, device, registered};
    blocks[(uintptr_t)p + bytes - 1] = b;
    (device >= 0 ? counts.device_blocks : counts.host_blocks)++;
}

/* What fresh memory holds: NaN and -1, or large finite numbers, in turn. */
static int garbage()
{
    static unsigned n;
    return (n++ + settings.seed) % 2 ? 0xff : 0x7e;
}

static size_t budgeted(size_t bytes)
{
    return (bytes + 511) / 512 * 512;
}

static int64_t used_by_all()
{
    int64_t sum = 0;
    for (int i = 0; i < settings.devices; i++)
        sum += (int64_t)devices[i].used;
    return sum;
}

cudaError_t allocate(void **p, size_t bytes)
{
    Call call("cudaMalloc");
    if (call.error)
        return call.error;
    if (capture_forbids(current_device))
        return call.end(cudaErrorStreamCaptureUnsupported);
    *p = nullptr;
    if (!bytes)
        return cudaSuccess;
    Device &d = devices[current_device];
    if (bytes > settings.memory || budgeted(bytes) > settings.memory - d.used)
        return call.end(cudaErrorMemoryAllocation);
    void *fresh;
    if (posix_memalign(&fresh, 256, bytes))
        return call.end(cudaErrorMemoryAllocation);
    memset(fresh, garbage(), bytes);
    d.used += budgeted(bytes);
    add_block(fresh, bytes, current_device, false);
    if (counts.peak_bytes < used_by_all())
        counts.peak_bytes = used_by_all();
    poison(*find_block(fresh), true);
    *p = fresh;
    return call.end(cudaSuccess);
}

static void release_block(Block *b)
{
    Block copy = *b;
    blocks.erase((uintptr_t)copy.p + copy.bytes - 1);
    (copy.device >= 0 ? counts.device_blocks : counts.host_blocks)--;
    if (copy.device >= 0) {
        devices[copy.device].used -= budgeted(copy.bytes);
        poison(copy, false);
    }
    if (!copy.registered)
        free(copy.p);
}

cudaError_t allocate_host(void **p, size_t bytes, unsigned)
{
    Call call("cudaHostAlloc");
    if (call.error)
        return call.error;
    *p = nullptr;
    if (!bytes)
        return cudaSuccess;
    if (posix_memalign(p, 4096, bytes))
        return call.end(cudaErrorMemoryAllocation);
    memset(*p, garbage(), bytes);
    add_block(*p, bytes, -1, false);
    return call.end(cudaSuccess);
}

cudaError_t host_pointer(void **device, void *host)
{
    Call call("cudaHostGetDevicePointer");
    if (call.error)
        return call.error;
    const Block *b = find_block(host);
    if (!b || b->device >= 0)
        return call.end(cudaErrorInvalidValue);
    *device = host;
    return call.end(cudaSuccess);
}

/* ---- kernels' attributes ---- */

static size_t shared_optin(int device)
{
    int major = settings.cc[device][0], minor = settings.cc[device][1];
    if (major == 8 && minor == 0)
        return 163 << 10;
    return major == 9 || major == 10 ? 227 << 10 : 99 << 10;
}

int attribute_shared(const void *kernel)
{
    auto it = shared_attributes.find(kernel);
    return it == shared_attributes.end() ? 48 << 10 : it->second;
}

cudaError_t set_attribute(const void *kernel, enum cudaFuncAttribute attribute, int value)
{
    Call call("cudaFuncSetAttribute");
    if (call.error)
        return call.error;
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize)
        return call.end(cudaSuccess);
    if (value < 0 || (size_t)value > shared_optin(current_device))
        return call.end(cudaErrorInvalidValue);
    shared_attributes[kernel] = value;
    return call.end(cudaSuccess);
}

cudaError_t get_attributes(struct cudaFuncAttributes *a, const void *kernel)
{
    Call call("cudaFuncGetAttributes");
    if (call.error)
        return call.error;
    memset(a, 0, sizeof *a);
    a->maxThreadsPerBlock = 1024;
    a->numRegs = 64;
    a->ptxVersion = a->binaryVersion =
        settings.cc[current_device][0] * 10 + settings.cc[current_device][1];
    a->maxDynamicSharedSizeBytes = attribute_shared(kernel);
    return call.end(cudaSuccess);
}

cudaError_t occupancy(int *n, const void *, int threads, size_t shared_bytes)
{
    Call call("cudaOccupancyMaxActiveBlocksPerMultiprocessor");
    if (call.error)
        return call.error;
    *n = threads <= 1024 && shared_bytes <= shared_optin(current_device);
    return call.end(cudaSuccess);
}

} // namespace cuo

using namespace cuo;

extern "C" {

cudaError_t cudaFree(void *p)
{
    Call call("cudaFree");
    if (call.error)
        return call.error;
    if (!p)
        return cudaSuccess;
    if (capture_forbids(current_device))
        return call.end(cudaErrorStreamCaptureUnsupported);
    Block *b = find_block(p);
    if (!b || b->p != p || b->device < 0)
        die("cudaFree: %p is not what cudaMalloc gave", p);
    wait_device(b->device);
    close_memory();
    release_block(b);
    return call.end(cudaSuccess);
}

cudaError_t cudaFreeAsync(void *p, cudaStream_t)
{
    return cudaFree(p);
}

cudaError_t cudaFreeHost(void *p)
{
    Call call("cudaFreeHost");
    if (call.error)
        return call.error;
    if (!p)
        return cudaSuccess;
    Block *b = find_block(p);
    if (!b || b->p != p || b->device >= 0 || b->registered)
        die("cudaFreeHost: %p is not what cudaHostAlloc gave", p);
    check_not_pending(b->p, b->p + b->bytes);
    release_block(b);
    return call.end(cudaSuccess);
}

cudaError_t cudaHostRegister(void *p, size_t bytes, unsigned)
{
    Call call("cudaHostRegister");
    if (call.error)
        return call.error;
    if (!p || !bytes)
        return call.end(cudaErrorInvalidValue);
    if (find_block(p) || find_block((char *)p + bytes - 1))
        return call.end(cudaErrorHostMemoryAlreadyRegistered);
    add_block(p, bytes, -1, true);
    return call.end(cudaSuccess);
}

cudaError_t cudaHostUnregister(void *p)
{
    Call call("cudaHostUnregister");
    if (call.error)
        return call.error;
    Block *b = find_block(p);
    if (!b || b->p != p || !b->registered)
        return call.end(cudaErrorHostMemoryNotRegistered);
    check_not_pending(b->p, b->p + b->bytes);
    release_block(b);
    return call.end(cudaSuccess);
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *a, const void *p)
{
    Call call("cudaPointerGetAttributes");
    if (call.error)
        return call.error;
    const Block *b = find_block(p);
    memset(a, 0, sizeof *a);
    a->device = b && b->device >= 0 ? b->device : -2;
    if (b) {
        a->type = b->device >= 0 ? cudaMemoryTypeDevice : cudaMemoryTypeHost;
        a->devicePointer = const_cast<void *>(p);
        a->hostPointer = b->device >= 0 ? nullptr : const_cast<void *>(p);
    }
    return call.end(cudaSuccess);
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    Call call("cudaMemGetInfo");
    if (call.error)
        return call.error;
    *total = settings.memory;
    *free_bytes = settings.memory - devices[current_device].used;
    return call.end(cudaSuccess);
}

/* ---- devices ---- */

cudaError_t cudaGetDeviceCount(int *count)
{
    Call call("cudaGetDeviceCount", true, false);
    if (call.error)
        return call.error;
    *count = settings.devices;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device)
{
    Call call("cudaGetDevice", true, false);
    if (call.error)
        return call.error;
    *device = current_device;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    Call call("cudaSetDevice", true, false);
    if (call.error)
        return call.error;
    if (device < 0 || device >= settings.devices)
        return call.end(cudaErrorInvalidDevice);
    current_device = device;
    return call.end(cudaSuccess);
}

cudaError_t cudaSetDeviceFlags(unsigned)
{
    Call call("cudaSetDeviceFlags");
    return call.error;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device)
{
    Call call("cudaGetDeviceProperties", true, false);
    if (call.error)
        return call.error;
    if (device < 0 || device >= settings.devices)
        return call.end(cudaErrorInvalidDevice);
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "%s", settings.name.c_str());
    p->totalGlobalMem = settings.memory;
    p->sharedMemPerBlock = 48 << 10;
    p->sharedMemPerBlockOptin = shared_optin(device);
    p->sharedMemPerMultiprocessor = shared_optin(device) + 1024;
    p->reservedSharedMemPerBlock = 1024;
    p->regsPerBlock = p->regsPerMultiprocessor = 65536;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 0x7fffffff;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->totalConstMem = 65536;
    p->major = settings.cc[device][0];
    p->minor = settings.cc[device][1];
    p->multiProcessorCount = settings.sms;
    p->canMapHostMemory = p->concurrentKernels = p->unifiedAddressing = 1;
    p->hostRegisterSupported = 1;
    p->asyncEngineCount = 3;
    p->memoryBusWidth = 5120;
    p->l2CacheSize = 1 << 20;
    p->maxThreadsPerMultiProcessor = 2048;
    p->maxBlocksPerMultiProcessor = 32;
    p->pciBusID = device + 1;
    return call.end(cudaSuccess);
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
    Call call("cudaDeviceGetAttribute", true, false);
    if (call.error)
        return call.error;
    if (device < 0 || device >= settings.devices)
        return call.end(cudaErrorInvalidDevice);
    switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
        *value = 1024;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        *value = 48 << 10;
        break;
    case cudaDevAttrMultiProcessorCount:
        *value = settings.sms;
        break;
    case cudaDevAttrL2CacheSize:
        *value = 1 << 20;
        break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
        *value = 2048;
        break;
    case cudaDevAttrComputeCapabilityMajor:
        *value = settings.cc[device][0];
        break;
    case cudaDevAttrComputeCapabilityMinor:
        *value = settings.cc[device][1];
        break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        *value = (int)shared_optin(device) + 1024;
        break;
    case cudaDevAttrMaxRegistersPerMultiprocessor:
        *value = 65536;
        break;
    case cudaDevAttrCanUseHostPointerForRegisteredMem:
        *value = 1;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = (int)shared_optin(device);
        break;
    default:
        return call.end(cudaErrorInvalidValue);
    }
    return call.end(cudaSuccess);
}

cudaError_t cudaDriverGetVersion(int *version)
{
    Call call("cudaDriverGetVersion", false, false);
    *version = (int)knob_number("DRIVER", settings.no_device ? 0 : CUDART_VERSION, 0, 99999);
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void)
{
    Call call("cudaDeviceSynchronize");
    if (call.error)
        return call.error;
    if (capture_forbids(current_device))
        return call.end(cudaErrorStreamCaptureUnsupported);
    counts.waits++;
    wait_device(current_device);
    return call.end(cudaSuccess);
}

cudaError_t cudaDeviceReset(void)
{
    Call call("cudaDeviceReset", true, false);
    if (call.error)
        return call.error;
    drop_all(current_device);
    std::vector<Block> mine;
    for (const auto &entry : blocks)
        if (entry.second.device == current_device)
            mine.push_back(entry.second);
    for (const Block &b : mine)
        release_block(find_block(b.p));
    devices[current_device].lost = 0;
    return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer)
{
    Call call("cudaDeviceCanAccessPeer", true, false);
    if (call.error)
        return call.error;
    if (device < 0 || device >= settings.devices || peer < 0 || peer >= settings.devices)
        return call.end(cudaErrorInvalidDevice);
    *can = device != peer;
    return call.end(cudaSuccess);
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned)
{
    Call call("cudaDeviceEnablePeerAccess");
    if (call.error)
        return call.error;
    if (peer < 0 || peer >= settings.devices || peer == current_device)
        return call.end(cudaErrorInvalidDevice);
    if (devices[current_device].peers >> peer & 1)
        return call.end(cudaErrorPeerAccessAlreadyEnabled);
    devices[current_device].peers |= 1u << peer;
    return call.end(cudaSuccess);
}

cudaError_t cudaDeviceDisablePeerAccess(int peer)
{
    Call call("cudaDeviceDisablePeerAccess");
    if (call.error)
        return call.error;
    if (peer < 0 || peer >= settings.devices || !(devices[current_device].peers >> peer & 1))
        return call.end(cudaErrorPeerAccessNotEnabled);
    devices[current_device].peers &= ~(1u << peer);
    return call.end(cudaSuccess);
}

/* ---- errors ---- */

cudaError_t cudaGetLastError(void)
{
    Call call("cudaGetLastError", false);
    cudaError_t e = call.error ? call.error : last_error;
    last_error = cudaSuccess;
    return e;
}

cudaError_t cudaPeekAtLastError(void)
{
    Call call("cudaPeekAtLastError", false);
    return call.error ? call.error : last_error;
}

#define CUO_ERRORS(X)                                                                              \
    X(cudaSuccess, "no error")                                                                     \
    X(cudaErrorInvalidValue, "invalid argument")                                                   \
    X(cudaErrorMemoryAllocation, "out of memory")                                                  \
    X(cudaErrorInitializationError, "initialization error")                                        \
    X(cudaErrorInvalidConfiguration, "invalid configuration argument")                             \
    X(cudaErrorStubLibrary,                                                                        \
        "CUDA driver is a stub library and the driver version is insufficient")                    \
    X(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version") \
    X(cudaErrorDevicesUnavailable, "CUDA-capable device(s) is/are busy or unavailable")            \
    X(cudaErrorInvalidDeviceFunction, "invalid device function")                                   \
    X(cudaErrorNoDevice, "no CUDA-capable device is detected")                                     \
    X(cudaErrorInvalidDevice, "invalid device ordinal")                                            \
    X(cudaErrorECCUncorrectable, "uncorrectable ECC error encountered")                            \
    X(cudaErrorInvalidResourceHandle, "invalid resource handle")                                   \
    X(cudaErrorNotReady, "device not ready")                                                       \
    X(cudaErrorIllegalAddress, "an illegal memory access was encountered")                         \
    X(cudaErrorLaunchOutOfResources, "too many resources requested for launch")                    \
    X(cudaErrorLaunchTimeout, "the launch timed out and was terminated")                           \
    X(cudaErrorPeerAccessAlreadyEnabled, "peer access is already enabled")                         \
    X(cudaErrorMisalignedAddress, "misaligned address")                                            \
    X(cudaErrorLaunchFailure, "unspecified launch failure")                                        \
    X(cudaErrorNotSupported, "operation not supported")                                            \
    X(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing")       \
    X(cudaErrorUnknown, "unknown error")

const char *cudaGetErrorName(cudaError_t e)
{
    switch (e) {
#define X(code, text)                                                                              \
    case code:                                                                                     \
        return #code;
        CUO_ERRORS(X)
#undef X
    default:
        return "unrecognized error code";
    }
}

const char *cudaGetErrorString(cudaError_t e)
{
    switch (e) {
#define X(code, text)                                                                              \
    case code:                                                                                     \
        return text;
        CUO_ERRORS(X)
#undef X
    default:
        return "unrecognized error code";
    }
}

/* ---- control ---- */

cuo_counts_t cuo_counts(void)
{
    lock();
    cuo_counts_t now = counts;
    unlock();
    return now;
}

uint64_t cuo_place(int64_t call)
{
    lock();
    const bool known = call > 0 && (size_t)call <= places.size();
    const uint64_t place = known ? places[(size_t)call - 1] : 0;
    unlock();
    return place;
}

void cuo_set(const char *name, const char *value)
{
    lock();
    tsan_ignore(true);
    start();
    if (value)
        overrides[name] = value;
    else
        overrides.erase(name);
    read_settings();
    tsan_ignore(false);
    unlock();
}

void cuo_reset(void)
{
    lock();
    tsan_ignore(true);
    streams_reset();
    close_memory();
    while (!blocks.empty())
        release_block(&blocks.begin()->second);
    shared_attributes.clear();
    overrides.clear();
    places.clear();
    counts = cuo_counts_t();
    resets++;
    current_device = 0;
    last_error = cudaSuccess;
    started = false;
    tsan_ignore(false);
    unlock();
}

} // extern "C"
