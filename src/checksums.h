/* Checksums of the rows, so that a file that changes between two passes is noticed even when its
 * size and modification time do not tell.
 *
 * Rows are cut into blocks of a fixed number, whatever chunks they are read in: CRC32C of a block
 * is noted when it is read for the first time, and compared from then on; also by a run that
 * resumes with other chunks. What is summed is the rows as they are in memory, so containers do not
 * matter.
 */
#ifndef FKM_CHECKSUMS_H
#define FKM_CHECKSUMS_H

#include "../formats/reader.h"
#include "base/pool.h"
#include "base/status.h"
#include <stdatomic.h>
#include <stdint.h>

typedef struct fkm_checksums {
    const fkm_reader *in;
    int64_t rows;       /* of one problem */
    int64_t block_rows; /* of one block; the last one of a problem may have fewer */
    int64_t blocks;     /* of one problem */
    int64_t batch;
    size_t row_bytes;
    uint32_t *crc;          /* [batch][blocks]: of each problem the first `known` of them */
    _Atomic int64_t *known; /* [batch]; any thread may read it, and crc below it */
    int64_t *restored;      /* [batch]: of these, from a checkpoint */
    atomic_bool outdated;   /* a block is not what it was when that was written */
} fkm_checksums;

/* Where reading is, within one problem. One for each thread that takes rows in. */
typedef struct fkm_checksum_cursor {
    int64_t at;   /* the next row of the data set */
    uint32_t sum; /* of the rows of its block that have come */
} fkm_checksum_cursor;

int64_t fkm_checksums_block_rows(const fkm_shape *shape);
int64_t fkm_checksums_bytes(const fkm_shape *shape); /* that open allocates */
fkm_status fkm_checksums_open(fkm_checksums *c, const fkm_reader *in, fkm_err *e) FKM_MUST_USE;
void fkm_checksums_close(fkm_checksums *c); /* safe on zeroed structs */

/* Takes in rows [row, row + count) of the data set, all of one problem: x: [count][dims]. They
 * follow those that came last, or begin a block; in the first pass over them, none is left out. By
 * the threads of `pool`; NULL: by the caller. One call at a time a problem. FKM_EDATA: a block is
 * not what it was. */
fkm_status fkm_checksums_add(fkm_checksums *c, fkm_checksum_cursor *t, int64_t row, int64_t count,
    const void *x, fkm_pool *pool, fkm_err *e) FKM_MUST_USE;

/* Reads all rows of a problem, of which every sum is known, and holds them to these. FKM_EDATA: a
 * block is not what it was; FKM_ESTOPPED: *stop, which may be NULL, became nonzero. */
fkm_status fkm_checksums_verify(fkm_checksums *c, fkm_reader *in, int64_t problem,
    const atomic_int *stop, fkm_err *e) FKM_MUST_USE;

/* The rows of a problem may be others than those that its sums are of. */
void fkm_checksums_forget(fkm_checksums *c, int64_t problem);

#endif
