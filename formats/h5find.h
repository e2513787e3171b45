/* Which dataset of an HDF5 file is meant: the one that is named, or the only one that can be. */
#ifndef FKM_H5FIND_H
#define FKM_H5FIND_H

#include "h5lib.h"

/* *out = the full name of the only 2-D numeric dataset that has rows. FKM_EDATA with a list when
 * there are several. fkm_free. */
fkm_status fkm_h5_find_only(char **out, hid_t file, const char *path, fkm_err *e) FKM_MUST_USE;

/* *out = wanted with soft links followed, each step of it checked to stay inside the file.
 * fkm_free. */
fkm_status fkm_h5_resolve(
    char **out, hid_t file, const char *path, const char *wanted, fkm_err *e) FKM_MUST_USE;

/* There is no such dataset: FKM_EDATA, with a list of what there is. */
fkm_status fkm_h5_no_dataset(hid_t file, const char *path, const char *wanted, fkm_err *e);

#endif
