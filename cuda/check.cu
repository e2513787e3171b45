/* Failures of CUDA calls as statuses: see check.cuh. */
#include "check.cuh"

#include <string.h>

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

fkm_status fkm_cuda_check(
    cudaError_t st, const char *call, const char *file, int line, const char *device, fkm_err *e)
{
    if (st == cudaSuccess)
        return FKM_OK;
    (void)cudaGetLastError();
    int length = (int)strcspn(call, "(");
    if (st == cudaErrorMemoryAllocation) {
        fkm_fail(e, FKM_ENOMEM, "%s: no device memory (%.*s, %s:%d)", device, length, call,
            base_name(file), line);
        return fkm_hint(e, "give less --gpu-memory if others use the GPU, or --device cpu: the "
                           "results are the same bits");
    }
    fkm_fail(e, FKM_EDEVICE, "%s: %s (%s) in %.*s, %s:%d", device, cudaGetErrorString(st),
        cudaGetErrorName(st), length, call, base_name(file), line);
    return fkm_hint(e, "use --device cpu: the results are the same bits");
}
