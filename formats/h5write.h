/* Writing HDF5: what writer.c needs of it, without the library's own header. */
#ifndef FKM_H5WRITE_H
#define FKM_H5WRITE_H

#include "writer.h"

typedef struct fkm_h5_out fkm_h5_out;

/* Makes the file `name` an empty HDF5 file. `path` is what messages call it. FKM_EFILE. */
fkm_status fkm_h5_create(
    fkm_h5_out **out, const char *name, const char *path, fkm_err *e) FKM_MUST_USE;

/* Adds a dataset and gives the library's word for where its bytes lie: *offset, contiguous,
 * little-endian, row-major. The caller writes them there by itself. FKM_EFILE, FKM_EUSAGE. */
fkm_status fkm_h5_array(
    fkm_h5_out *h, const fkm_array_spec *spec, int64_t *offset, fkm_err *e) FKM_MUST_USE;

/* Writes the library's part and closes the file. FKM_EFILE. */
fkm_status fkm_h5_finish(fkm_h5_out *h, fkm_err *e) FKM_MUST_USE;

void fkm_h5_close(fkm_h5_out *h); /* NULL is fine */

#endif
