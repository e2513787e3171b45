/* Between the parts of the layer; kernels and tests do not include this. */
#ifndef CUO_INTERNAL_H
#define CUO_INTERNAL_H

#include "include/cuda_runtime.h"
#include "include/cuo_control.h"
#include <string>

#if defined(CUO_TSAN)
extern "C" {
void *__tsan_get_current_fiber(void);
void *__tsan_create_fiber(unsigned flags);
void __tsan_switch_to_fiber(void *fiber, unsigned flags);
void __tsan_acquire(void *p);
void __tsan_release(void *p);
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);
}
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuo
{

enum Order { FORWARD, REVERSE, RANDOM };
enum Streams { LAZY, EAGER, RANDOM_STREAMS, KERNELS_FIRST, COPIES_FIRST };
enum MmaMode { MMA_ROUNDED, MMA_EXACT, MMA_WORST };

struct Settings {
    int devices, sms, no_device;
    int cc[16][2];
    std::string name;
    size_t memory;
    Order order;
    Streams streams;
    MmaMode mma;
    unsigned seed;
    int64_t fail_call, fail_kernel; /* 0: none */
    int fail_code;
    bool fail_sticky, trace, places;
};
extern Settings settings;
extern cuo_counts_t counts;

/* A number below n, from a stream of its own: seed of CUO_SEED. */
unsigned draw(unsigned n);

/* The matrix unit's direction for an element of the tile, by seed; up or down for worst. */
extern uint32_t mma_direction[16];

/* Runs a grid to its end on this thread. `context`: the TSan contexts of the stream. */
struct TsanThreads;
TsanThreads *tsan_threads_new();
struct Kernel {
    const char *name;
    dim3 grid, block;
    size_t shared_bytes;
    const std::function<void()> *thread;
    TsanThreads *tsan;
};
void run_grid(const Kernel &k);

/* ---- what ThreadSanitizer is told ---- */

/* An order between whoever releases p and whoever acquires it later. */
static inline void tsan_release(void *p)
{
    (void)p;
#if defined(CUO_TSAN)
    __tsan_release(p);
#endif
}
static inline void tsan_acquire(void *p)
{
    (void)p;
#if defined(CUO_TSAN)
    __tsan_acquire(p);
#endif
}
static inline void *tsan_new_context()
{
#if defined(CUO_TSAN)
    return __tsan_create_fiber(0);
#else
    return nullptr;
#endif
}
static inline void *tsan_current()
{
#if defined(CUO_TSAN)
    return __tsan_get_current_fiber();
#else
    return nullptr;
#endif
}
/* From here on this thread acts as `context`, without an order against what it did before. */
static inline void tsan_become(void *context)
{
    (void)context;
#if defined(CUO_TSAN)
    __tsan_switch_to_fiber(context, 1);
#endif
}
/* The layer's own bookkeeping: no accesses of the program. */
static inline void tsan_ignore(bool on)
{
    (void)on;
#if defined(CUO_TSAN)
    if (on) {
        AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
        AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
    } else {
        AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
        AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
    }
#endif
}

} // namespace cuo

#endif
