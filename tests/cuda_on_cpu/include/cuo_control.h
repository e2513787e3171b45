/* Control of the layer, for tests. Plain C too. Not thread-safe against CUDA calls. */
#ifndef CUO_CONTROL_H
#define CUO_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cuo_counts {
    int64_t calls;        /* of the CUDA API, as CUO_FAIL counts them */
    int64_t kernels;      /* run */
    int64_t copies;       /* run: cudaMemcpy* */
    int64_t copied_bytes; /* host to device and back */
    int64_t waits;        /* calls in which the host waited for the device */
    int64_t pageable;     /* asynchronous copies that were not, for want of pinned memory */
    int64_t mma;          /* of the matrix unit */
    int64_t device_blocks, host_blocks; /* allocated now */
    int64_t peak_bytes;                 /* most device memory at once, of all devices */
    int64_t graphs;                     /* launched */
    int64_t threads;                    /* that have made calls which CUO_FAIL counts */
} cuo_counts_t;

/* Since the process started or the last reset. */
cuo_counts_t cuo_counts(void);

/* Where call number `call` (from 1, as CUO_FAIL counts) of those since the last reset came from:
 * the same for the same chain of callers in this process. 0 without CUO_PLACES=1. */
uint64_t cuo_place(int64_t call);

/* Forgets devices, memory, streams and faults, as if the process had just started, and reads the
 * environment again. Whatever was allocated is gone. */
void cuo_reset(void);

/* As the environment variable CUO_<name> would, from now on; NULL: the default. Counts go on.
 * Devices and their memory change with cuo_reset() only. */
void cuo_set(const char *name, const char *value);

#ifdef __cplusplus
}
#endif

#endif
