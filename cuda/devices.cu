/* Which GPUs there are: see devices.cuh. */
#include "devices.cuh"

#include "check.cuh"

#include <stdio.h>
#include <stdlib.h>

enum { LEAST_MAJOR = 8 };

/* How many devices the driver has; says why there is none, with a hint if one might be used. */
static fkm_status count_devices(int *found, fkm_err *e)
{
    *found = 0;
    cudaError_t st = cudaGetDeviceCount(found);
    if (st == cudaSuccess && *found > 0)
        return FKM_OK;
    (void)cudaGetLastError();
    switch (st) {
    case cudaSuccess:
    case cudaErrorNoDevice:
        return fkm_fail(e, FKM_EDEVICE, "there is no CUDA device");
    case cudaErrorStubLibrary:
        return fkm_fail(e, FKM_EDEVICE, "no NVIDIA driver is installed (a stub library was found)");
    case cudaErrorInsufficientDriver: {
        int driver = 0;
        if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
            return fkm_fail(e, FKM_EDEVICE, "no NVIDIA driver is installed");
        fkm_fail(e, FKM_EDEVICE,
            "the NVIDIA driver supports CUDA %d.%d, this fkm was built with %d.%d", driver / 1000,
            driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
        return fkm_hint(e, "update the driver");
    }
    default:
        return fkm_cuda_check(st, "cudaGetDeviceCount()", __FILE__, __LINE__, "cuda", e);
    }
}

static fkm_status check_device(int device, int found, fkm_err *e)
{
    int major = 0, minor = 0;
    if (device >= found)
        return fkm_fail(
            e, FKM_EDEVICE, "there is no device %d: this machine has 0 to %d", device, found - 1);
    FKM_CUDA("cuda", cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    FKM_CUDA("cuda", cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
    if (major < LEAST_MAJOR) {
        fkm_fail(e, FKM_EDEVICE, "device %d has compute capability %d.%d: fkm needs %d.0 or later",
            device, major, minor, (int)LEAST_MAJOR);
        return fkm_hint(e, "use another device");
    }
    return FKM_OK;
}

static fkm_status not_a_list(const char *devices, fkm_err *e)
{
    fkm_fail(e, FKM_EUSAGE, "--device cuda:%s: not a list of devices", devices);
    return fkm_hint(e, "expected distinct numbers with commas between them, as in cuda:0,2");
}

static fkm_status parse_list(
    int32_t *list, int32_t *count, const char *devices, int found, fkm_err *e)
{
    for (const char *at = devices;;) {
        char *end;
        if (*at < '0' || *at > '9' || *count == FKM_MOST_GPUS)
            return not_a_list(devices, e);
        long device = strtol(at, &end, 10);
        for (int32_t i = 0; i < *count; i++)
            if (list[i] == device)
                return not_a_list(devices, e);
        FKM_TRY(check_device(device > INT32_MAX ? INT32_MAX : (int)device, found, e));
        list[(*count)++] = (int32_t)device;
        if (*end == '\0')
            return FKM_OK;
        if (*end != ',')
            return not_a_list(devices, e);
        at = end + 1;
    }
}

fkm_status fkm_devices(int32_t *list, int32_t *count, const char *devices, fkm_err *e)
{
    int found;
    *count = 0;
    FKM_TRY(count_devices(&found, e));
    if (devices)
        return parse_list(list, count, devices, found, e);
    fkm_status st = FKM_OK;
    for (int i = 0; i < found && *count < FKM_MOST_GPUS; i++) {
        st = check_device(i, found, e);
        if (st == FKM_OK)
            list[(*count)++] = i;
    }
    return *count > 0 ? FKM_OK : st;
}

fkm_status fkm_devices_describe(fkm_gpu_info *list, int32_t *count, const char *devices, fkm_err *e)
{
    int32_t found[FKM_MOST_GPUS];
    FKM_TRY(fkm_devices(found, count, devices, e));
    for (int32_t i = 0; i < *count; i++) {
        cudaDeviceProp prop;
        char device[32];
        (void)snprintf(device, sizeof device, "cuda:%d", (int)found[i]);
        FKM_CUDA(device, cudaGetDeviceProperties(&prop, found[i]));
        list[i].device = found[i];
        (void)snprintf(list[i].name, sizeof list[i].name, "%.63s", prop.name);
        list[i].major = prop.major;
        list[i].minor = prop.minor;
        list[i].memory_bytes = (int64_t)prop.totalGlobalMem;
    }
    return FKM_OK;
}
