/* The canonical distance outside the kernels is that of the kernels. */
#include "each_isa.h"

#include "../../src/base/distance.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>

static void equals_every_kernel(void **state)
{
    (void)state;
    enum { MOST = 300 };
    float x[MOST], c[MOST];
    uint64_t random = 11;
    FOR_EACH_ISA(k)
    {
        for (int32_t dims = 1; dims <= MOST; dims++) {
            float scale = ldexpf(1, dims % 200 - 100);
            for (int32_t t = 0; t < dims; t++) {
                x[t] = scale * test_uniform(&random);
                c[t] = scale * test_uniform(&random);
            }
            assert_true(fkm_distance(x, c, dims) == k->canonical(x, c, dims));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(equals_every_kernel)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
