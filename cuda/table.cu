/* Which screening kernel runs where: data. Rows are tried from the top; the first that suits the
 * architecture, the unit, the packed length of a row and the shared memory of the device is taken.
 *
 * What the order says: rows in shared memory beat rows in the ring (half the traffic); 128 rows a
 * block, two blocks a processor, hide one's epilogue behind the other's arithmetic as long as both
 * fit (228 KiB a processor on 9.0 and 10.0); otherwise 256 rows, which halve the reads of
 * centroids. The last row of each unit takes 89 KiB and suits every GPU since 8.0, known or not.
 * None of this order has been measured on a GPU yet. */
#include "assign.cuh"

#include <stddef.h>

extern int32_t fkm_assign_shared(int32_t rows, bool kept, int32_t stride);

#define DECLARE(unit)                                                                              \
    extern fkm_assign_fn fkm_assign_##unit##_128_kept, fkm_assign_##unit##_256_kept,               \
        fkm_assign_##unit##_256, fkm_assign_##unit##_128;
DECLARE(f16)
DECLARE(bf16)
DECLARE(s8)
extern fkm_assign_fn fkm_assign_f16_sm90a, fkm_assign_bf16_sm90a, fkm_assign_s8_sm90a;

enum { ANY = INT32_MAX };

struct table_row {
    fkm_assign_kernel kernel; /* shared_bytes is filled in by what follows when 0 */
    int32_t rows;             /* a block */
    bool kept;                /* rows stay in shared memory */
    bool own;                 /* of one architecture: not for who asks for portable ones */
};

#define SM90A_SHARED 232448 /* bytes: all that a block of 9.0 can have */

#define ROWS(unit, UNIT)                                                                           \
    {{#unit "-128k", UNIT, 90, 109, 256, 0, fkm_assign_##unit##_128_kept}, 128, true, false},      \
        {{#unit "-256k", UNIT, 80, ANY, 512, 0, fkm_assign_##unit##_256_kept}, 256, true, false},  \
        {{#unit "-128k", UNIT, 80, ANY, 128, 0, fkm_assign_##unit##_128_kept}, 128, true, false},  \
        {{#unit "-256", UNIT, 80, ANY, ANY, 0, fkm_assign_##unit##_256}, 256, false, false},       \
    {                                                                                              \
        {#unit "-128", UNIT, 80, ANY, ANY, 0, fkm_assign_##unit##_128}, 128, false, false          \
    }

static const table_row table[] = {
#if FKM_HAVE_SM90A
    {{"f16-sm90a", FKM_UNIT_F16, 90, 90, ANY, SM90A_SHARED, fkm_assign_f16_sm90a}, 256, true, true},
    {{"bf16-sm90a", FKM_UNIT_BF16, 90, 90, ANY, SM90A_SHARED, fkm_assign_bf16_sm90a}, 256, true,
        true},
    {{"s8-sm90a", FKM_UNIT_S8, 90, 90, ANY, SM90A_SHARED, fkm_assign_s8_sm90a}, 256, true, true},
#endif
    ROWS(f16, FKM_UNIT_F16),
    ROWS(bf16, FKM_UNIT_BF16),
    ROWS(s8, FKM_UNIT_S8),
};

const fkm_assign_kernel *fkm_assign_choose(const fkm_chip *chip, fkm_unit unit, int32_t stride)
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        const fkm_assign_kernel *k = &table[i].kernel;
        int32_t shared = k->shared_bytes ? k->shared_bytes
                                         : fkm_assign_shared(table[i].rows, table[i].kept, stride);
        if (k->unit == unit && !(table[i].own && chip->portable) &&
            chip->compute >= k->compute_min && chip->compute <= k->compute_max &&
            stride <= k->stride_max && shared <= chip->shared_bytes)
            return k;
    }
    return NULL;
}
