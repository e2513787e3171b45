/* Which GPUs there are, and which of them fkm was asked to use. */
#ifndef FKM_DEVICES_CUH
#define FKM_DEVICES_CUH

#include <stdint.h>

extern "C" {
#include "../src/base/status.h"
#include "../src/base/sysinfo.h"
}

/* list, *count: the devices named by "0,2" in that order, or, for NULL, all that fkm can use.
 * FKM_EDEVICE: no driver, an old one, no such device, none with compute capability 8.0; FKM_EUSAGE:
 * not a list of numbers. Makes no context. */
fkm_status fkm_devices(int32_t *list, int32_t *count, const char *devices, fkm_err *e);

/* The same, with what they are. list: room for FKM_MOST_GPUS. */
fkm_status fkm_devices_describe(
    fkm_gpu_info *list, int32_t *count, const char *devices, fkm_err *e);

#endif
