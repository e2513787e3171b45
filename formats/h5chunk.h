/* Filtered chunks of a dataset. The library only finds and reads them as they are stored; they are
 * inflated here, where a chunk that would become larger than the dataset says is stopped. What is
 * kept of them is bounded, and known before anything is read. */
#ifndef FKM_H5CHUNK_H
#define FKM_H5CHUNK_H

#include "h5lib.h"

#include <stdint.h>

#define FKM_H5_FILTERS 32 /* the library's own limit */

/* In the order of writing. */
typedef struct fkm_h5_filter {
    H5Z_filter_t id; /* one of those of h5filter.h */
    size_t element;  /* of shuffle, at least 1 */
} fkm_h5_filter;

typedef struct fkm_h5_layout {
    int64_t rows, dims;             /* of the dataset */
    int64_t chunk_rows, chunk_dims; /* 0: it has no chunks */
    size_t element;                 /* bytes */
    int filter_count;
    fkm_h5_filter filters[FKM_H5_FILTERS];
} fkm_h5_layout;

/* Rows and columns of a dataset. */
typedef struct fkm_h5_region {
    int64_t row0, rows, column0, columns;
} fkm_h5_region;

typedef struct fkm_h5_chunks fkm_h5_chunks;

/* Chunks of at most 256 MiB; nothing is allocated for them yet. fkm_h5_chunks_close. */
fkm_status fkm_h5_chunks_open(
    fkm_h5_chunks **out, const fkm_h5_layout *layout, fkm_err *e) FKM_MUST_USE;
void fkm_h5_chunks_close(fkm_h5_chunks *c); /* NULL is fine */

/* Most that reading will allocate. */
int64_t fkm_h5_chunks_bytes(const fkm_h5_chunks *c);

/* Elements of the region as stored, row i of it at dst + i * stride. Inside the library's lock.
 * FKM_EDATA, FKM_ENOMEM. */
fkm_status fkm_h5_chunks_read(fkm_h5_chunks *c, hid_t data, const char *path,
    const fkm_h5_region *r, char *dst, size_t stride, fkm_err *e) FKM_MUST_USE;

#endif
