/* The flag that asks work to end early: see stop.h. */
#include "stop.h"

#include <stdatomic.h>

bool fkm_is_stopped(const void *flag)
{
    const atomic_int *f = flag;
    return f && atomic_load_explicit(f, memory_order_relaxed) != 0;
}
