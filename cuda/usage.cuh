/* How much device memory the process has: all backends that are open, device by device. */
#ifndef FKM_USAGE_CUH
#define FKM_USAGE_CUH

#include <stdint.h>

/* bytes: allocated, or, less than 0, freed. Any thread. */
void fkm_usage_add(int device, int64_t bytes);

/* The most that one device had at once. */
int64_t fkm_usage_peak(void);

#endif
