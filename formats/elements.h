/* What the formats share: dense arrays, conversion of elements, checks of sizes, safe text.
 * Used inside formats/ only. */
#ifndef FKM_ELEMENTS_H
#define FKM_ELEMENTS_H

#include "format.h"
#include <stdbool.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "fkm needs a little-endian machine");

/* ---- the formats, one table each ---- */

extern const fkm_format fkm_format_npy, fkm_format_fvecs, fkm_format_bvecs, fkm_format_ivecs,
    fkm_format_fbin, fkm_format_f16bin, fkm_format_u8bin, fkm_format_i8bin, fkm_format_ibin,
    fkm_format_bin, fkm_format_safetensors,
    fkm_format_hdf5; /* the last one only when it is built in */

/* ---- dense arrays ---- */

/* A row-major array that lies in one piece in a file. */
typedef struct fkm_dense {
    int64_t offset; /* of its first byte */
    int32_t dims;
    fkm_dtype dtype; /* as stored */
    bool swap;       /* stored big-endian */
} fkm_dense;

/* fkm_format.read of such an array. */
fkm_status fkm_dense_read(const fkm_dense *a, fkm_file *f, int64_t row0, int64_t count, void *dst,
    void *scratch, fkm_err *e) FKM_MUST_USE;

/* fkm_format.offset of such an array. */
int64_t fkm_dense_offset(const fkm_dense *a, int64_t row);

/* *bytes = rows * dims * size; FKM_EDATA when that overflows, or when rows or dims are not at least
 * 1, or dims exceeds int32: nothing can be clustered there. rows counts the whole batch. */
fkm_status fkm_array_bytes(int64_t *bytes, const char *path, int64_t rows, int64_t dims,
    fkm_dtype dtype, fkm_err *e) FKM_MUST_USE;

/* The same, but no rows at all are fine where the options say so. */
fkm_status fkm_rows_bytes(int64_t *bytes, const char *path, int64_t rows, int64_t dims,
    fkm_dtype dtype, const fkm_format_options *o, fkm_err *e) FKM_MUST_USE;

/* FKM_EDATA when the file does not end where `rows` rows do, unless the rows that will be read are
 * there: partial downloads are used so, with --rows. */
fkm_status fkm_check_end(fkm_file *f, const fkm_dense *a, int64_t rows, const fkm_format_options *o,
    fkm_err *e) FKM_MUST_USE;

/* How to use the first rows of a file that has only those. */
fkm_status fkm_hint_rows(fkm_err *e, int64_t rows, const char *otherwise);

/* FKM_EUSAGE when --dtype asks for something else than what the file says it holds. */
fkm_status fkm_check_wanted(
    const char *path, fkm_dtype stored, fkm_dtype wanted, fkm_err *e) FKM_MUST_USE;

/* ---- elements ---- */

uint32_t fkm_get_u32(const void *p); /* little-endian, unaligned */
uint64_t fkm_get_u64(const void *p);

/* Reverses the bytes of each of count elements of 1, 2, 4 or 8 bytes, in place. */
void fkm_swap_elements(void *p, int64_t count, size_t size);

/* Where elements come from, for messages: element i is row0 + i / dims, column0 + i % dims, or,
 * when `down` is set, row0 + i in column0. */
typedef struct fkm_place {
    const char *path;
    int64_t row0;
    int32_t column0, dims;
    bool down;
} fkm_place;

/* Whether rows of such a file are not in memory what they are in the file. */
bool fkm_is_converted(fkm_dtype stored);

/* Whether they even have another size there: such elements are read to somewhere else first. */
bool fkm_is_resized(fkm_dtype stored);

/* count stored elements, native-endian, to what they are in memory; nothing for types that are not
 * converted. float64 is rounded to nearest: FKM_EDATA when a finite value is beyond float32.
 * Integers must be exact in float32, and bools 0 or 1, else FKM_EDATA. Neither needs alignment. dst
 * may be where src is, or end where src ends. */
fkm_status fkm_convert(fkm_dtype stored, void *dst, const void *src, int64_t count,
    const fkm_place *place, fkm_err *e) FKM_MUST_USE;

/* ---- text ---- */

/* Whether a suffix, such as ".npy", is in a list such as ".h5 .hdf5"; case does not matter. */
bool fkm_suffix_in(const char *list, const char *suffix);

/* text for messages, as fkm_text_escape makes it; returns out. */
const char *fkm_printable(char *out, size_t cap, const char *text);

/* Appends "name (5 x 3 float32)" to a comma-separated list of at most cap bytes, with "..." when it
 * is full; *used is the length so far. For "which dataset?" messages. */
void fkm_list_array(char *list, size_t cap, size_t *used, const char *name, int64_t rows,
    int64_t dims, const char *type);

#endif
