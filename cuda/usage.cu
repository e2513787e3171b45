/* Device memory of the process: see usage.cuh. */
#include "usage.cuh"

#include "devices.cuh"

#include <atomic>

/* A process uses the devices of one list: FKM_MOST_GPUS at most. */
static struct {
    std::atomic<int> device; /* its number + 1; 0: free */
    std::atomic<int64_t> now, most;
} usages[FKM_MOST_GPUS];

void fkm_usage_add(int device, int64_t bytes)
{
    for (auto &u : usages) {
        int found = 0;
        if (!u.device.compare_exchange_strong(found, device + 1) && found != device + 1)
            continue;
        int64_t now = u.now += bytes, most = u.most;
        while (most < now && !u.most.compare_exchange_weak(most, now)) {
        }
        return;
    }
}

int64_t fkm_usage_peak(void)
{
    int64_t peak = 0;
    for (auto &u : usages)
        peak = u.most > peak ? u.most.load() : peak;
    return peak;
}
