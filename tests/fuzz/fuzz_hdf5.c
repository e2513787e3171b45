/* HDF5: the input is a recipe, from which the library makes a file that is well-formed and as odd
 * as the format allows: types, shapes, layouts, filters, links, datasets that are partly or never
 * written. fkm must refuse it or read exactly what was put in. Damaged files are not tried here:
 * the library (1.10) itself crashes on them. */
#include "../../formats/elements.h"
#include "../../src/base/mem.h"

#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST_VALUES 4096
#define NAMES ((int)(sizeof names / sizeof names[0]))
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__lsan_default_suppressions(void);

/* What the library leaks is its own affair. */
const char *__lsan_default_suppressions(void)
{
    return "leak:libhdf5\n";
}

static const char *const names[] = {"x", "g/y", "g/h/z", "a b", "\x01\xff", "g/x", "train", "w"};
static char path[64];

static const uint8_t *next, *end;

static int take(int below)
{
    return next < end ? *next++ % below : 0;
}

/* Small whole numbers, which every numeric type holds. */
static double value_at(int64_t i)
{
    return (double)(i * 7 % 100);
}

static hid_t some_type(void)
{
    const hid_t types[] = {H5T_IEEE_F32LE, H5T_IEEE_F32BE, H5T_IEEE_F64LE, H5T_IEEE_F64BE,
        H5T_STD_I32LE, H5T_STD_I32BE, H5T_STD_U8LE, H5T_STD_I8LE, H5T_STD_U16LE, H5T_STD_I64LE,
        H5T_C_S1, H5T_STD_B8LE, H5T_STD_U32BE};
    int i = take((int)(sizeof types / sizeof types[0]) + 2);
    if (i < (int)(sizeof types / sizeof types[0]))
        return H5Tcopy(types[i]);
    if (i == (int)(sizeof types / sizeof types[0]))
        return H5Tvlen_create(H5T_IEEE_F32LE);
    hid_t compound = H5Tcreate(H5T_COMPOUND, 8); /* as h5py keeps complex numbers */
    H5Tinsert(compound, "r", 0, H5T_IEEE_F32LE);
    H5Tinsert(compound, "i", 4, H5T_IEEE_F32LE);
    return compound;
}

/* False: nothing may be written, because the library's own n-bit and scale-offset filters write
 * beyond their buffers for some types (1.10.8). */
static bool add_filters(hid_t p)
{
    int filters = take(32);
    if (filters & 1)
        H5Pset_shuffle(p);
    if (filters & 2)
        H5Pset_deflate(p, 1);
    if (filters & 4)
        H5Pset_fletcher32(p);
    if (filters & 8)
        H5Pset_nbit(p);
    if (filters & 16)
        H5Pset_scaleoffset(p, H5Z_SO_INT, 0);
    return !(filters & 24);
}

/* huge: nothing may be allocated; the library itself would crash. */
static hid_t some_layout(int ndim, bool huge, bool *writable)
{
    hid_t p = H5Pcreate(H5P_DATASET_CREATE);
    hsize_t chunk[4];
    switch (huge ? 4 : take(6)) {
    case 0:
    case 1:
        for (int i = 0; i < ndim; i++)
            chunk[i] = (hsize_t)take(5) + 1;
        if (ndim > 0)
            H5Pset_chunk(p, ndim, chunk);
        *writable = add_filters(p);
        break;
    case 2:
        H5Pset_layout(p, H5D_COMPACT);
        break;
    case 3:
        H5Pset_external(p, "/dev/null", 0, H5F_UNLIMITED);
        break;
    default:
        H5Pset_layout(p, H5D_CONTIGUOUS);
    }
    int when = take(4);
    H5Pset_fill_time(p, H5D_FILL_TIME_ALLOC); /* else rows never written hold what was there */
    H5Pset_alloc_time(p, huge || !*writable ? H5D_ALLOC_TIME_LATE : (H5D_alloc_time_t)when);
    return p;
}

/* Writes all, some or no values of a small dataset of numbers. */
static void write_values(hid_t data, hid_t type, const hsize_t *dim, int ndim)
{
    static double values[MOST_VALUES];
    hsize_t count = 1;
    for (int i = 0; i < ndim; i++)
        count = dim[i] > MOST_VALUES ? MOST_VALUES + 1 : count * dim[i];
    H5T_class_t class = H5Tget_class(type);
    int how = take(4);
    if (count > MOST_VALUES || (class != H5T_INTEGER && class != H5T_FLOAT) || how == 0)
        return;
    for (hsize_t i = 0; i < count; i++)
        values[i] = value_at((int64_t)i);
    hid_t space = H5Dget_space(data);
    if (how == 1 && ndim == 2 && dim[0] > 1) { /* the first row only */
        hsize_t start[2] = {0, 0}, part[2] = {1, dim[1]};
        hid_t memory = H5Screate_simple(2, part, NULL);
        H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, part, NULL);
        H5Dwrite(data, H5T_NATIVE_DOUBLE, memory, space, H5P_DEFAULT, values);
        H5Sclose(memory);
    } else {
        H5Dwrite(data, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
    }
    H5Sclose(space);
}

static void add_dataset(hid_t file, const char *name, hid_t links)
{
    hsize_t dim[4] = {0};
    int ndim = take(8) ? 2 : take(4);
    for (int i = 0; i < ndim; i++)
        dim[i] = (hsize_t)take(9);
    bool huge = ndim > 0 && take(12) == 11; /* far more than anybody stored */
    if (huge)
        dim[take(ndim)] = (hsize_t)1 << take(62);
    bool writable = true;
    hid_t type = some_type(), space = H5Screate_simple(ndim, dim, NULL),
          layout = some_layout(ndim, huge, &writable);
    hid_t data = H5Dcreate2(file, name, type, space, links, layout, H5P_DEFAULT);
    if (data >= 0) {
        if (writable)
            write_values(data, type, dim, ndim);
        H5Dclose(data);
    }
    H5Pclose(layout);
    if (space >= 0)
        H5Sclose(space);
    H5Tclose(type);
}

static void add_object(hid_t file, hid_t links)
{
    const char *name = names[take(NAMES)];
    int kind = take(10);
    if (kind == 6) {
        hid_t group = H5Gcreate2(file, name, links, H5P_DEFAULT, H5P_DEFAULT);
        if (group >= 0)
            H5Gclose(group);
    } else if (kind == 7) {
        H5Lcreate_soft(names[take(NAMES)], file, name, links, H5P_DEFAULT);
    } else if (kind == 8) {
        H5Lcreate_external("other.h5", "/x", file, name, links, H5P_DEFAULT);
    } else if (kind == 9) {
        H5Lcreate_hard(file, names[take(NAMES)], file, name, links, H5P_DEFAULT);
    } else {
        add_dataset(file, name, links);
    }
}

/* False when the library does not make such a file. */
static bool make_file(void)
{
    hid_t creation = H5Pcreate(H5P_FILE_CREATE), access_list = H5Pcreate(H5P_FILE_ACCESS);
    hid_t links = H5Pcreate(H5P_LINK_CREATE);
    const hsize_t blocks[] = {0, 0, 512, 1024};
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    H5Pset_create_intermediate_group(links, 1);
    H5Pset_userblock(creation, blocks[take(4)]);
    if (take(2))
        H5Pset_libver_bounds(access_list, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST);
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, creation, access_list);
    for (int i = take(6); file >= 0 && i >= 0; i--)
        add_object(file, links);
    bool made = file >= 0 && H5Fclose(file) >= 0;
    H5Pclose(links);
    H5Pclose(access_list);
    H5Pclose(creation);
    return made;
}

/* What was accepted holds the values that were written: nothing made up, nothing moved. */
static void check_values(void *priv, fkm_file *f, const fkm_shape *s)
{
    static _Alignas(64) char scratch[FKM_SCRATCH_BYTES];
    fkm_err e = {0};
    CHECK(s->batch == 1 && s->rows >= 1 && s->dims >= 1 && s->ndim == 2);
    if (s->rows > MOST_VALUES / s->dims)
        return;
    size_t size = fkm_dtype_size(fkm_dtype_in_memory(s->dtype));
    char *x = malloc((size_t)s->rows * (size_t)s->dims * size);
    CHECK(x);
    if (fkm_format_hdf5.read(priv, f, 0, s->rows, x, scratch, &e) == FKM_OK)
        for (int64_t i = 0; i < s->rows * s->dims; i++) {
            float v = fkm_dtype_to_float(fkm_dtype_in_memory(s->dtype), x + (size_t)i * size);
            CHECK(v == (float)value_at(i) || v == 0); /* 0: allocated early and never written */
        }
    free(x);
}

static void try_open(fkm_file *f, const char *dataset, fkm_dtype dtype)
{
    fkm_err e = {0};
    fkm_shape shape = {0};
    fkm_format_options o = {.dataset = dataset, .dtype = dtype};
    void *priv = calloc(1, fkm_format_hdf5.priv_size);
    CHECK(priv);
    fkm_status st = fkm_format_hdf5.open(priv, f, &o, &shape, &e);
    CHECK(st == FKM_OK || (e.code == st && e.msg[0] != '\0'));
    CHECK(st == FKM_OK || st == FKM_EDATA || st == FKM_EUSAGE || st == FKM_EFILE);
    if (st == FKM_OK && dtype == FKM_DTYPE_NONE)
        check_values(priv, f, &shape);
    fkm_format_hdf5.close(priv);
    free(priv);
}

static void remove_file(void)
{
    unlink(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fkm_err e = {0};
    fkm_file *f = NULL;
    if (!path[0]) {
        const char *dir = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
        snprintf(path, sizeof path, "%s/fkm-fuzz-hdf5-%ld", dir, (long)getpid());
        atexit(remove_file);
    }
    next = data;
    end = data + size;
    if (!make_file())
        return 0;
    CHECK(fkm_file_open(&f, path, &e) == FKM_OK);
    try_open(f, NULL, FKM_DTYPE_NONE);
    try_open(f, NULL, FKM_BF16);
    for (int i = 0; i < NAMES; i++)
        try_open(f, names[i], FKM_DTYPE_NONE);
    fkm_file_close(f);
    return 0;
}
