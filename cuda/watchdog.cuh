/* make WATCHDOG=1: where a wait for an mbarrier has lasted too long, and the end of it. Part of
 * hopper.cuh.
 *
 * A barrier that misses an arrival, or bytes, is a kernel that hangs, and says nothing. Here it
 * notes block, warp, barrier and parity in memory of the host and traps: the launch fails, which is
 * status 6, and the note is printed when the process exits. printf would be a call, across which
 * wgmma is serialised; nothing else is different from the kernel that is looked at. */
#ifndef FKM_WATCHDOG_CUH
#define FKM_WATCHDOG_CUH

#include <cuda_runtime.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define FKM_WATCHDOG_CLOCKS (1u << 30) /* of a processor: about 0.6 s */

struct fkm_watchdog_note {
    uint32_t bitten, block, warp, parity, barrier;
};

static __device__ volatile fkm_watchdog_note *fkm_watchdog_to;

/* Several may: any of their notes will do. */
static __device__ __forceinline__ void fkm_watchdog_bites(const void *barrier, unsigned parity)
{
    volatile fkm_watchdog_note *note = fkm_watchdog_to;
    if (note) {
        note->block = blockIdx.x;
        note->warp = threadIdx.x / 32;
        note->parity = parity;
        note->barrier = (uint32_t)__cvta_generic_to_shared(barrier);
        __threadfence_system();
        note->bitten = 1;
        __threadfence_system();
    }
    __trap();
}

static fkm_watchdog_note *fkm_watchdog_from;

static void fkm_watchdog_report()
{
    const volatile fkm_watchdog_note *n = fkm_watchdog_from;
    if (n->bitten)
        fprintf(stderr, "watchdog: block %u, warp %u waits for parity %u of the mbarrier at %u\n",
            n->block, n->warp, n->parity, n->barrier);
}

/* Before a launch, outside captures the first time on a device. */
static inline cudaError_t fkm_watchdog_arm()
{
    static bool armed[64];
    int device;
    cudaError_t st = cudaGetDevice(&device);
    if (st != cudaSuccess || device >= 64 || armed[device])
        return st;
    if (!fkm_watchdog_from) {
        st = cudaHostAlloc(
            (void **)&fkm_watchdog_from, sizeof *fkm_watchdog_from, cudaHostAllocPortable);
        if (st != cudaSuccess)
            return st;
        *fkm_watchdog_from = fkm_watchdog_note();
        (void)atexit(fkm_watchdog_report);
    }
    armed[device] = true;
    return cudaMemcpyToSymbol(fkm_watchdog_to, &fkm_watchdog_from, sizeof fkm_watchdog_from);
}

#endif
