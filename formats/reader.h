/* Rows of vectors from files: any format, several files as one data set, a range of rows. */
#ifndef FKM_READER_H
#define FKM_READER_H

#include "format.h"

typedef struct fkm_reader fkm_reader;

typedef struct fkm_reader_spec {
    const char *const *paths; /* one data set, in this order; "-" is standard input */
    int path_count;
    const char *dataset; /* see fkm_format_options */
    fkm_dtype dtype;
    bool one_dim, may_be_empty;
    int64_t row_begin, row_end; /* --rows A:B of the whole data set; row_end < 0: to the end */
} fkm_reader_spec;

/* One input file, for reports. */
typedef struct fkm_input {
    const char *path, *format, *dataset; /* dataset: chosen name, or NULL */
    int64_t rows;                        /* in this file, before --rows */
    int32_t dims;
    fkm_dtype dtype;
    fkm_file_id id;
    bool piped; /* a copy of what came through a pipe */
} fkm_input;

/* Opens all files. They must agree in dims and in-memory type; a 3-D file must be the only one.
 * FKM_EFILE, FKM_EDATA, FKM_EUSAGE (a range outside the data). The spec is not kept. */
fkm_status fkm_reader_open(fkm_reader **out, const fkm_reader_spec *spec, fkm_err *e) FKM_MUST_USE;
void fkm_reader_close(fkm_reader *r); /* NULL is fine */

/* The data set after --rows. shape->dtype is the *in-memory* type of the rows that read() gives. */
const fkm_shape *fkm_reader_shape(const fkm_reader *r);

/* Where that range begins in the whole data set. */
int64_t fkm_reader_first_row(const fkm_reader *r);

int fkm_reader_input_count(const fkm_reader *r);
const fkm_input *fkm_reader_input(const fkm_reader *r, int i);

/* Rows [row0, row0 + count) of the flattened batch * rows into dst, tightly packed
 * [count][dims] of shape->dtype. Any thread; they take turns. FKM_EDATA (row and place named),
 * FKM_EFILE. */
fkm_status fkm_reader_read(
    fkm_reader *r, int64_t row0, int64_t count, void *dst, fkm_err *e) FKM_MUST_USE;

/* Where in its file row row0 begins: memory that is like that modulo FKM_DIRECT_ALIGNMENT can be
 * read into without a copy, see direct.h. -1: rows are not read so. */
int64_t fkm_reader_offset(const fkm_reader *r, int64_t row0);

/* FKM_EDATA when an input is no longer the file that was opened. Any thread. */
fkm_status fkm_reader_unchanged(fkm_reader *r, fkm_err *e) FKM_MUST_USE;

/* "data.fvecs: row 12", "batch.npy: problem 3, row 12": names a row of the data set in its own
 * file, for messages. Writes at most cap bytes, returns out. */
const char *fkm_reader_row_name(const fkm_reader *r, int64_t row, char *out, size_t cap);

/* Bytes that reading `rows` rows moves from storage, headers and padding included (estimate for
 * compressed HDF5), for plans and rates. */
int64_t fkm_reader_row_bytes(const fkm_reader *r);

/* Most heap that the open reader and its reads take, for plans (compressed HDF5 needs caches). */
int64_t fkm_reader_heap_bytes(const fkm_reader *r);

#endif
