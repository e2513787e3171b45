/* Writing HDF5: see h5write.h. */
#include "h5write.h"

#include "../src/base/mem.h"
#include "h5file.h"

struct fkm_h5_out {
    hid_t file;
    char *path;
};

/* As fkm_h5_failed(), for files of ours: nothing about them can be wrong data. */
static fkm_status write_failed(const char *path, const char *what, fkm_err *e)
{
    if (fkm_h5_failed(path, what, e) == FKM_ENOMEM)
        return FKM_ENOMEM;
    e->code = FKM_EFILE;
    return fkm_hint(e, "make room, or write elsewhere with -o");
}

fkm_status fkm_h5_create(fkm_h5_out **out, const char *name, const char *path, fkm_err *e)
{
    fkm_h5_out *h;
    FKM_TRY(fkm_calloc(&h, 1, sizeof *h, "an HDF5 output", e));
    fkm_status st = fkm_strdup(&h->path, path, e);
    if (st == FKM_OK && (st = fkm_h5_first_enter(e)) == FKM_OK) {
        hid_t access_list = fkm_h5_access();
        h->file = H5Fcreate(name, H5F_ACC_TRUNC, H5P_DEFAULT, access_list);
        if (h->file < 0) {
            h->file = 0;
            st = write_failed(path, "cannot create HDF5", e);
        }
        H5Pclose(access_list);
        fkm_h5_leave();
    }
    if (st == FKM_OK)
        *out = h;
    else
        fkm_h5_close(h);
    return st;
}

/* Space is taken at once and never filled, so that the offset is known and the bytes can be written
 * without the library; no times are kept, so that equal results are equal files. */
static hid_t creation_properties(void)
{
    hid_t p = H5Pcreate(H5P_DATASET_CREATE);
    if (p < 0)
        return p;
    (void)H5Pset_layout(p, H5D_CONTIGUOUS);
    (void)H5Pset_alloc_time(p, H5D_ALLOC_TIME_EARLY);
    (void)H5Pset_fill_time(p, H5D_FILL_TIME_NEVER);
    (void)H5Pset_obj_track_times(p, false);
    return p;
}

static fkm_status array_locked(
    fkm_h5_out *h, const fkm_array_spec *spec, int64_t *offset, fkm_err *e)
{
    hsize_t dim[3];
    bool empty = false;
    for (int i = 0; i < spec->ndim; i++) {
        dim[i] = (hsize_t)spec->dim[i];
        empty = empty || dim[i] == 0;
    }
    hid_t type = fkm_h5_make_type(spec->dtype, false),
          space = H5Screate_simple(spec->ndim, dim, NULL);
    hid_t props = creation_properties();
    hid_t data = H5Dcreate2(h->file, spec->name, type, space, H5P_DEFAULT, props, H5P_DEFAULT);
    haddr_t at = data >= 0 ? H5Dget_offset(data) : HADDR_UNDEF;
    /* The flush extends the file over the new space. */
    bool good =
        data >= 0 && (empty || at != HADDR_UNDEF) && H5Fflush(h->file, H5F_SCOPE_LOCAL) >= 0;
    fkm_status st = good ? FKM_OK : write_failed(h->path, "cannot add a dataset", e);
    if (data >= 0)
        H5Dclose(data);
    if (props >= 0)
        H5Pclose(props);
    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    if (good)
        *offset = empty ? 0 : (int64_t)at;
    return st;
}

fkm_status fkm_h5_array(fkm_h5_out *h, const fkm_array_spec *spec, int64_t *offset, fkm_err *e)
{
    fkm_h5_enter();
    fkm_status st = array_locked(h, spec, offset, e);
    fkm_h5_leave();
    return st;
}

fkm_status fkm_h5_finish(fkm_h5_out *h, fkm_err *e)
{
    fkm_h5_enter();
    hid_t file = h->file;
    h->file = 0;
    fkm_status st = H5Fclose(file) >= 0 ? FKM_OK : write_failed(h->path, "cannot write", e);
    fkm_h5_leave();
    return st;
}

void fkm_h5_close(fkm_h5_out *h)
{
    if (!h)
        return;
    if (h->file > 0) {
        fkm_h5_enter();
        H5Fclose(h->file);
        fkm_h5_leave();
    }
    fkm_free(h->path);
    fkm_free(h);
}
