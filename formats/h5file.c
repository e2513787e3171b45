/* The HDF5 library's files: see h5file.h. */
#include "h5file.h"

#include "elements.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define METADATA_CACHE_BYTES ((size_t)256 << 10)

/* ---- the library's door ---- */

static pthread_mutex_t library = PTHREAD_MUTEX_INITIALIZER;

/* Every entry from outside but the first, which also loads the library. The error stack is a
 * thread's own in some builds, so it is silenced in each call; plugins would be code from wherever
 * HDF5_PLUGIN_PATH points. */
void fkm_h5_enter(void)
{
    pthread_mutex_lock(&library);
    (void)H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    (void)H5PLset_loading_state(0);
}

fkm_status fkm_h5_first_enter(fkm_err *e)
{
    pthread_mutex_lock(&library);
    fkm_status st = fkm_h5_load(e);
    pthread_mutex_unlock(&library);
    if (st == FKM_OK)
        fkm_h5_enter();
    return st;
}

void fkm_h5_leave(void)
{
    pthread_mutex_unlock(&library);
}

/* ---- errors ---- */

typedef struct reason {
    char text[160];
    bool no_memory;
} reason;

static herr_t keep_first(unsigned n, const H5E_error2_t *record, void *arg)
{
    reason *r = arg;
    (void)n;
    fkm_printable(r->text, sizeof r->text, record->desc ? record->desc : "");
    r->no_memory = record->maj_num == H5E_RESOURCE && record->min_num == H5E_NOSPACE;
    return 1;
}

fkm_status fkm_h5_failed(const char *path, const char *what, fkm_err *e)
{
    reason r = {"", false};
    (void)H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_first, &r);
    if (r.no_memory)
        return fkm_fail(e, FKM_ENOMEM, "%s: %s: no memory for HDF5: %s", path, what, r.text);
    fkm_status code = strstr(r.text, "errno = ") ? FKM_EFILE : FKM_EDATA;
    fkm_fail(e, code, "%s: %s: HDF5 says: %s", path, what, r.text[0] ? r.text : "nothing more");
    return fkm_hint(e, "the file is damaged, or made for a newer HDF5 library than %d.%d",
        H5_VERS_MAJOR, H5_VERS_MINOR);
}

/* Whether a name can stand between single quotes in Python and double quotes in a shell, as it is.
 */
static bool needs_no_escape(const char *name)
{
    for (; *name; name++)
        if ((unsigned char)*name < 0x20 || strchr("\"'\\$`!\x7f", *name))
            return false;
    return true;
}

fkm_status fkm_h5_hint_h5py(
    const char *before, const char *path, const char *name, bool plugin, fkm_err *e)
{
    bool plain =
        needs_no_escape(path) && needs_no_escape(name) && 2 * strlen(path) + strlen(name) < 140;
    const char *file = plain ? path : "IN";
    return fkm_hint(e,
        "%s: python3 -c \"import %sh5py, numpy; numpy.save('%s.npy', h5py.File('%s')['%s'][:])\" "
        "makes a .npy",
        before, plugin ? "hdf5plugin, " : "", file, file, plain ? name : "NAME");
}

fkm_status fkm_h5_not_opened(const char *path, const char *name, fkm_err *e)
{
    char safe[160], what[200], why[80];
    snprintf(
        what, sizeof what, "cannot open the dataset '%s'", fkm_printable(safe, sizeof safe, name));
    if (fkm_h5_failed(path, what, e) != FKM_EDATA)
        return e->code;
    snprintf(why, sizeof why, "damaged, or made for a newer HDF5 library than %d.%d", H5_VERS_MAJOR,
        H5_VERS_MINOR);
    return fkm_h5_hint_h5py(why, path, name, false, e);
}

/* ---- files ---- */

/* The cache of metadata is small and stays so: by itself it grows to 32 MiB, which, as entries of
 * an index of chunks are ten times as large in memory as in the file, is a lot more. Rows are read
 * in order, which needs a path through such an index. */
static void bound_cache(hid_t p)
{
    H5AC_cache_config_t c = {.version = H5AC__CURR_CACHE_CONFIG_VERSION};
    if (H5Pget_mdc_config(p, &c) < 0)
        return;
    c.set_initial_size = true;
    c.initial_size = c.min_size = c.max_size = METADATA_CACHE_BYTES;
    c.incr_mode = H5C_incr__off;
    c.flash_incr_mode = H5C_flash_incr__off;
    c.decr_mode = H5C_decr__off;
    (void)H5Pset_mdc_config(p, &c);
}

/* Plain system calls whatever HDF5_DRIVER says, and no locks, which fail on some network file
 * systems (fkm_file_unchanged sees a change). */
hid_t fkm_h5_access(void)
{
    hid_t p = H5Pcreate(H5P_FILE_ACCESS);
    if (p < 0)
        return p;
    (void)H5Pset_fapl_sec2(p);
    (void)H5Pset_fclose_degree(p, H5F_CLOSE_STRONG);
    bound_cache(p);
#if H5_VERSION_GE(1, 10, 7)
    (void)H5Pset_file_locking(p, 0, 1);
#endif
    return p;
}

/* By descriptor where the system allows it: these are then the bytes that fkm_file has opened. The
 * library wants a file with a name, which the copy of a pipe has not. */
fkm_status fkm_h5_open(hid_t *out, fkm_file *f, fkm_err *e)
{
    char name[64];
    const char *path = fkm_file_path(f);
    struct stat status;
    if (fstat(fkm_file_descriptor(f), &status) == 0 && status.st_nlink == 0) {
        fkm_fail(e, FKM_EUSAGE, "%s: HDF5 cannot be read from a pipe", path);
        return fkm_hint(e, "save it to a file first, or redirect a file: < data.h5");
    }
    snprintf(name, sizeof name, "/proc/self/fd/%d", fkm_file_descriptor(f));
    hid_t access_list = fkm_h5_access();
    hid_t file = H5Fopen(access(name, R_OK) == 0 ? name : path, H5F_ACC_RDONLY, access_list);
    fkm_status st = FKM_OK;
    if (file >= 0)
        *out = file;
    else
        st = fkm_h5_failed(
            path, "cannot open as HDF5", e); /* before the next call forgets the reason */
    H5Pclose(access_list);
    return st;
}

/* ---- types ---- */

/* The two-byte floats that HDF5 has no name for. The caller closes it. */
static hid_t two_byte_float(fkm_dtype dtype, H5T_order_t order)
{
    bool half = dtype == FKM_F16;
    size_t exponent = half ? 5 : 8, mantissa = half ? 10 : 7;
    hid_t t = H5Tcopy(H5T_IEEE_F32LE);
    if (t < 0 || H5Tset_fields(t, 15, mantissa, exponent, 0, mantissa) < 0 ||
        H5Tset_size(t, 2) < 0 || H5Tset_ebias(t, half ? 15 : 127) < 0 ||
        H5Tset_order(t, order) < 0) {
        if (t >= 0)
            H5Tclose(t);
        return -1;
    }
    return t;
}

/* A type of our own as HDF5 writes it, little- or big-endian; the caller closes it. */
hid_t fkm_h5_make_type(fkm_dtype dtype, bool big)
{
    switch (dtype) {
    case FKM_F32:
        return H5Tcopy(big ? H5T_IEEE_F32BE : H5T_IEEE_F32LE);
    case FKM_F64:
        return H5Tcopy(big ? H5T_IEEE_F64BE : H5T_IEEE_F64LE);
    case FKM_F16:
    case FKM_BF16:
        return two_byte_float(dtype, big ? H5T_ORDER_BE : H5T_ORDER_LE);
    case FKM_U8:
        return H5Tcopy(big ? H5T_STD_U8BE : H5T_STD_U8LE);
    case FKM_I8:
        return H5Tcopy(big ? H5T_STD_I8BE : H5T_STD_I8LE);
    case FKM_U16:
        return H5Tcopy(big ? H5T_STD_U16BE : H5T_STD_U16LE);
    case FKM_I16:
        return H5Tcopy(big ? H5T_STD_I16BE : H5T_STD_I16LE);
    case FKM_U32:
        return H5Tcopy(big ? H5T_STD_U32BE : H5T_STD_U32LE);
    case FKM_I32:
        return H5Tcopy(big ? H5T_STD_I32BE : H5T_STD_I32LE);
    case FKM_U64:
        return H5Tcopy(big ? H5T_STD_U64BE : H5T_STD_U64LE);
    case FKM_I64:
        return H5Tcopy(big ? H5T_STD_I64BE : H5T_STD_I64LE);
    case FKM_BOOL: /* an enumeration there */
    case FKM_DTYPE_NONE:
        break;
    }
    return -1;
}

static bool same_type(hid_t type, fkm_dtype dtype, bool big)
{
    hid_t ours = fkm_h5_make_type(dtype, big);
    bool same = ours >= 0 && H5Tequal(type, ours) > 0;
    if (ours >= 0)
        H5Tclose(ours);
    return same;
}

bool fkm_h5_is_bool(hid_t type)
{
    return H5Tget_class(type) == H5T_ENUM && H5Tget_size(type) == 1 && H5Tget_nmembers(type) == 2;
}

/* NONE when it is none of ours. 16-bit integers with --dtype bf16 or f16 are what programs without
 * these types keep such numbers in. */
fkm_dtype fkm_h5_recognise(hid_t type, fkm_dtype wanted, bool *big)
{
    static const fkm_dtype known[] = {FKM_F32, FKM_F64, FKM_F16, FKM_BF16, FKM_U8, FKM_I8, FKM_U16,
        FKM_I16, FKM_U32, FKM_I32, FKM_U64, FKM_I64};
    const bool half = wanted == FKM_BF16 || wanted == FKM_F16;
    for (size_t i = 0; i < 2 * (sizeof known / sizeof known[0]); i++) {
        const fkm_dtype type_now = known[i / 2];
        *big = i % 2 == 1;
        if (same_type(type, type_now, *big))
            return half && (type_now == FKM_U16 || type_now == FKM_I16) ? wanted : type_now;
    }
    *big = false;
    return fkm_h5_is_bool(type) ? FKM_BOOL : FKM_DTYPE_NONE;
}

const char *fkm_h5_describe_type(char *out, size_t cap, hid_t type)
{
    static const char *const names[] = {"integer", "float", "time", "string", "bitfield", "opaque",
        "compound", "reference", "enumeration", "variable-length", "array"};
    H5T_class_t class = H5Tget_class(type);
    size_t bits = 8 * H5Tget_size(type);
    if (class == H5T_INTEGER)
        snprintf(out, cap, "%sint%zu", H5Tget_sign(type) == H5T_SGN_NONE ? "u" : "", bits);
    else if (class == H5T_FLOAT)
        snprintf(out, cap, "float%zu", bits);
    else if (fkm_h5_is_bool(type))
        snprintf(out, cap, "bool");
    else
        snprintf(out, cap, "%s", class >= 0 && class <= H5T_ARRAY ? names[class] : "unknown");
    return out;
}
