/* Files of the HDF5 library, for reading and writing them: its lock, its errors, its types. Used by
 * the h5*.c and hdf5.c only.
 *
 * The library is not safe for threads in every build, so one lock covers all calls. */
#ifndef FKM_H5FILE_H
#define FKM_H5FILE_H

#include "../src/base/dtype.h"
#include "../src/base/file.h"
#include "h5lib.h"

#include <stdbool.h>

/* Every call of the library is between these; the first one of all also loads it. */
fkm_status fkm_h5_first_enter(fkm_err *e) FKM_MUST_USE; /* inside only when FKM_OK */
void fkm_h5_enter(void);
void fkm_h5_leave(void);

/* The library's innermost reason, which its next call forgets. A system error in it makes this the
 * file's fault, not the data's. */
fkm_status fkm_h5_failed(const char *path, const char *what, fkm_err *e);

/* Hints at how to make a .npy of a dataset with what wrote it, h5py; `name` is its full name.
 * plugin: it has a filter that comes with hdf5plugin. Returns the error's code. */
fkm_status fkm_h5_hint_h5py(
    const char *before, const char *path, const char *name, bool plugin, fkm_err *e);

/* A dataset that is there cannot be opened: as fkm_h5_failed, with that hint. */
fkm_status fkm_h5_not_opened(const char *path, const char *name, fkm_err *e);

/* How the library shall open and create files, with bounds on what it keeps of them. H5Pclose. */
hid_t fkm_h5_access(void);

/* Opens for reading; H5Fclose. FKM_EUSAGE: a pipe. */
fkm_status fkm_h5_open(hid_t *out, fkm_file *f, fkm_err *e) FKM_MUST_USE;

/* A type of our own as HDF5 writes it, little- or big-endian. H5Tclose. */
hid_t fkm_h5_make_type(fkm_dtype dtype, bool big);

/* As h5py writes numpy's: an enumeration of two bytes, FALSE and TRUE; values are not checked. */
bool fkm_h5_is_bool(hid_t type);

/* NONE when it is none of ours. 16-bit integers with --dtype bf16 or f16 is what programs without
 * these types keep such numbers in. */
fkm_dtype fkm_h5_recognise(hid_t type, fkm_dtype wanted, bool *big);

/* "uint16", "compound": writes at most cap bytes, returns out. */
const char *fkm_h5_describe_type(char *out, size_t cap, hid_t type);

#endif
