/* What cuda/hopper.cuh offers, on a CPU: mbarriers, boxes by TMA, wgmma, barriers of some warps.
 *
 * As late as the rules allow, by CUO_ORDER: a copy lands when somebody waits for a barrier that is
 * not complete (or at once), a wgmma reads its operands when it is waited for (or when it is
 * committed). Operands are found through the descriptor and the exchange of address bits 4-6 by
 * bits 7-9, not through the functions of hopper.cuh. */
#ifndef CUO_HOPPER_H
#define CUO_HOPPER_H

#include "cuda_runtime.h"

#include <stdio.h>

struct fkm_tensor_map {
    const unsigned char *base;
    int64_t row_bytes, rows;
};

struct fkm_mbarrier {
    uint8_t arrivals, missing, phase, unused;
    int32_t bytes; /* still to come */
};

namespace cuo
{

enum Product { PRODUCT_F16, PRODUCT_BF16, PRODUCT_S8 };

uint32_t shared_address(const void *p);
void mbarrier_init(fkm_mbarrier *b, unsigned arrivals);
void mbarriers_ready();
void mbarrier_arrive(fkm_mbarrier *b, unsigned bytes);
void mbarrier_wait(fkm_mbarrier *b, unsigned parity, const char *file, int line);
bool mbarrier_try(fkm_mbarrier *b, unsigned parity, const char *file, int line);
void load_box(void *to, const fkm_tensor_map *map, int32_t byte, int32_t row, fkm_mbarrier *b);
void load_bytes(void *to, const void *from, unsigned bytes, fkm_mbarrier *b);
void bar(int id, int threads, bool wait, const char *file, int line);
void wgmma(void *d, uint64_t a, uint64_t b, Product p);
void wgmma_commit();
void wgmma_wait(int groups);

} // namespace cuo

static inline cudaError_t fkm_tensor_map_make(
    fkm_tensor_map *map, const void *base, int64_t row_bytes, int64_t rows)
{
    *map = {(const unsigned char *)base, row_bytes, rows};
    return (uintptr_t)base % 16 || row_bytes % 16 ? cudaErrorInvalidValue : cudaSuccess;
}
static inline uint32_t fkm_shared_address(const void *p)
{
    return cuo::shared_address(p);
}
static inline void fkm_mbarrier_init(fkm_mbarrier *b, unsigned arrivals)
{
    cuo::mbarrier_init(b, arrivals);
}
static inline void fkm_mbarriers_ready()
{
    cuo::mbarriers_ready();
}
static inline void fkm_mbarrier_arrive(fkm_mbarrier *b)
{
    cuo::mbarrier_arrive(b, 0);
}
static inline void fkm_mbarrier_expect(fkm_mbarrier *b, unsigned bytes)
{
    cuo::mbarrier_arrive(b, bytes);
}
#ifdef FKM_WATCHDOG /* of a layer that knows anyway when nobody can go on */
#define FKM_WATCHDOG_CLOCKS (1u << 12)
static inline cudaError_t fkm_watchdog_arm()
{
    return cudaSuccess;
}
static inline void fkm_watchdog_bites(const void *barrier, unsigned parity)
{
    fprintf(stderr, "watchdog: block %u, warp %u waits for parity %u of the mbarrier at %u\n",
        blockIdx.x, threadIdx.x / 32, parity, cuo::shared_address(barrier));
    __trap();
}
static inline bool fkm_mbarrier_try(fkm_mbarrier *b, unsigned parity, CUO_SITE)
{
    return cuo::mbarrier_try(b, parity, file, line);
}
#else
static inline void fkm_mbarrier_wait(fkm_mbarrier *b, unsigned parity, CUO_SITE)
{
    cuo::mbarrier_wait(b, parity, file, line);
}
#endif
static inline void fkm_load_box(
    void *to, const fkm_tensor_map *map, int32_t byte, int32_t row, fkm_mbarrier *b)
{
    cuo::load_box(to, map, byte, row, b);
}
static inline void fkm_load_bytes(void *to, const void *from, unsigned bytes, fkm_mbarrier *b)
{
    cuo::load_bytes(to, from, bytes, b);
}
static inline void fkm_bar_sync(int id, int threads, CUO_SITE)
{
    cuo::bar(id, threads, true, file, line);
}
static inline void fkm_bar_arrive(int id, int threads, CUO_SITE)
{
    cuo::bar(id, threads, false, file, line);
}
template <int N> static inline void fkm_registers_down_to()
{
}
template <int N> static inline void fkm_registers_up_to()
{
}
template <class T> static inline void fkm_wgmma_hold(T (&)[64])
{
}
static inline void fkm_wgmma_begin()
{
}
static inline void fkm_wgmma_commit()
{
    cuo::wgmma_commit();
}
template <int N> static inline void fkm_wgmma_wait()
{
    cuo::wgmma_wait(N);
}
static inline void fkm_wgmma_f16(float (&d)[64], uint64_t a, uint64_t b)
{
    cuo::wgmma(d, a, b, cuo::PRODUCT_F16);
}
static inline void fkm_wgmma_bf16(float (&d)[64], uint64_t a, uint64_t b)
{
    cuo::wgmma(d, a, b, cuo::PRODUCT_BF16);
}
static inline void fkm_wgmma_s8(int (&d)[64], uint64_t a, uint64_t b)
{
    cuo::wgmma(d, a, b, cuo::PRODUCT_S8);
}

#endif
