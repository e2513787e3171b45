/* Arrays into files, published whole: open -> array -> write ... -> finish -> publish -> close. */
#ifndef FKM_WRITER_H
#define FKM_WRITER_H

#include "../src/base/dtype.h"
#include "../src/base/status.h"
#include <stdint.h>

typedef struct fkm_writer fkm_writer;

/* ndim 1: [dim0]; 2: [dim0][dim1]; 3: [dim0][dim1][dim2]. Row-major, little-endian. */
typedef struct fkm_array_spec {
    const char *name; /* inside .h5; ignored by formats that hold one array */
    fkm_dtype dtype;  /* npy, h5: any; fvecs, fbin: FKM_F32; ivecs, ibin: FKM_I32;
                         bvecs, u8bin: FKM_U8; i8bin: FKM_I8; f16bin: FKM_F16 */
    int ndim;         /* the vecs and bin families store ndim 1 as rows of one element, and ndim 3
                         as its flattened rows */
    int64_t dim[3];
} fkm_array_spec;

/* Starts a temporary beside `path` (see fkm_outfile_create). `format` is a name such as "npy",
 * "fvecs", "ivecs", "fbin", "ibin", "h5". FKM_EUSAGE: no such writer (or HDF5 not built in);
 * FKM_EFILE. */
fkm_status fkm_writer_open(
    fkm_writer **out, const char *path, const char *format, fkm_err *e) FKM_MUST_USE;

/* Begins an array; the previous one must be complete. Only h5 takes more than one.
 * FKM_EUSAGE when the format cannot hold it (type, or dims over its int32 or uint32). */
fkm_status fkm_writer_array(fkm_writer *w, const fkm_array_spec *spec, fkm_err *e) FKM_MUST_USE;

/* Appends `count` elements to the current array, any split. */
fkm_status fkm_writer_write(
    fkm_writer *w, const void *elements, int64_t count, fkm_err *e) FKM_MUST_USE;

/* All arrays complete (else FKM_EBUG): flush, fsync. Still under the temporary name. */
fkm_status fkm_writer_finish(fkm_writer *w, fkm_err *e) FKM_MUST_USE;

/* Renames to the final name. Needs finish. */
fkm_status fkm_writer_publish(fkm_writer *w, fkm_err *e) FKM_MUST_USE;

int64_t fkm_writer_bytes(const fkm_writer *w);   /* after finish */
uint32_t fkm_writer_crc32c(const fkm_writer *w); /* after finish */

/* The size that such a file will have, to check free space before the work (estimate for h5). */
int64_t fkm_writer_predict_bytes(const char *format, const fkm_array_spec *specs, int count);

/* Abandons (removes the temporary) unless published. NULL is fine. */
void fkm_writer_close(fkm_writer *w);

#endif
