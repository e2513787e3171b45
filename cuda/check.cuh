/* Failures of CUDA calls as statuses. */
#ifndef FKM_CHECK_CUH
#define FKM_CHECK_CUH

#include <cuda_runtime.h>

extern "C" {
#include "../src/base/status.h"
}

/* FKM_OK, or: out of device memory FKM_ENOMEM, everything else FKM_EDEVICE, with the call, the
 * place and the device's name. A pending error is taken away, so that it is not blamed on a later
 * call; one that stays (a lost device) makes every later call fail the same way. */
fkm_status fkm_cuda_check(
    cudaError_t st, const char *call, const char *file, int line, const char *device, fkm_err *e);

#define FKM_CUDA(device, call)                                                                     \
    FKM_TRY(fkm_cuda_check((call), #call, __FILE__, __LINE__, (device), e))

#endif
