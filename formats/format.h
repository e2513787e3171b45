/* One file format: a const table of functions. Used inside formats/ only; others see reader.h and
 * writer.h.
 *
 * A format knows bytes. It does not know about several files, row ranges or batches of files: that
 * is reader.c. Hostile input is the normal case: sizes are multiplied with overflow checks, and
 * nothing is allocated on a header's word alone. */
#ifndef FKM_FORMAT_H
#define FKM_FORMAT_H

#include "../src/base/dtype.h"
#include "../src/base/file.h"
#include "../src/base/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a file holds: `batch` independent problems of `rows` rows each (batch is 1 but for 3-D
 * .npy). */
typedef struct fkm_shape {
    int64_t batch, rows; /* >= 0; batch * rows does not overflow */
    int32_t dims;
    int ndim;          /* 2 or 3: of the array in the file; 1 if that is wanted */
    fkm_dtype dtype;   /* as stored */
    int64_t row_bytes; /* of storage that reading one row moves (an average when compressed) */
    int64_t
        heap_bytes; /* most that reading allocates beyond the reader's scratch (HDF5's caches) */
} fkm_shape;

/* Room for conversions that reader.c lends to every read: no format keeps a buffer of its own, so a
 * thousand files cost no more than one. */
#define FKM_SCRATCH_BYTES ((size_t)1 << 20)

typedef struct fkm_format_options {
    const char *dataset; /* name inside .h5, .safetensors; NULL: the only 2-D numeric one */
    fkm_dtype dtype;     /* --dtype: reinterprets untyped data; NONE: from the file */
    bool partial;        /* only rows [0, rows_end) will be read: what a file promises after them */
    int64_t rows_end;    /* need not be there */
    bool one_dim;        /* a .npy array of one dimension is rows of one number */
    bool may_be_empty;   /* no rows at all are fine: .npy, .safetensors, *bin */
} fkm_format_options;

typedef struct fkm_format {
    const char *name;     /* "npy" */
    const char *suffixes; /* ".npy", or several: ".h5 .hdf5" */
    const char *about;    /* one line for `fkm help formats` and fkm-formats.5 */
    size_t priv_size;     /* reader.c allocates and zeroes the state */

    /* 0: no .. 100: certain, from the first bytes and the file's size. No I/O. The suffix (without
     * what a crop adds to it) is added as a tie-break by formats.c. */
    int (*probe)(const uint8_t *head, size_t len, int64_t file_bytes, const char *suffix);

    /* Checks everything that can be checked without reading the data, fills *shape. FKM_EDATA with
     * path, place, expected and found. */
    fkm_status (*open)(
        void *priv, fkm_file *f, const fkm_format_options *o, fkm_shape *shape, fkm_err *e);

    /* Rows [row0, row0 + count) of the flattened batch * rows, tightly packed, native endian, as
     * fkm_dtype_in_memory(shape.dtype). scratch: FKM_SCRATCH_BYTES, aligned, lent for the call. One
     * caller at a time. */
    fkm_status (*read)(
        void *priv, fkm_file *f, int64_t row0, int64_t count, void *dst, void *scratch, fkm_err *e);

    /* Where in the file row `row` begins, when `read` takes many rows from there straight to where
     * they are wanted; -1: it does not. The member is NULL for formats that never do. */
    int64_t (*offset)(const void *priv, int64_t row);

    /* The name of the array that was chosen, borrowed from priv; the member is NULL for formats
     * whose files hold just one. */
    const char *(*dataset)(const void *priv);

    void (*close)(void *priv); /* may be NULL; safe after a failed open */
} fkm_format;

/* All formats that are built in, ending with NULL. */
extern const fkm_format *const fkm_formats[];

/* Chosen by content, suffix as the tie-break; FKM_EDATA when nothing fits, listing what is known.
 */
fkm_status fkm_format_probe(const fkm_format **out, fkm_file *f, fkm_err *e) FKM_MUST_USE;

#endif
