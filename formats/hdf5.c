/* HDF5, through the library (1.10), for files that nobody vouches for.
 *
 * The library opens the file and describes the dataset; what it says is checked before a row is
 * read: no storage outside the file (external storage, virtual datasets, external links), no filter
 * but the three that are built in, no plugin, no dataset that is larger than what was stored of it.
 * Contiguous data are then read without the library. Chunked data go through it, in the type they
 * are stored in.
 *
 * The library is not safe for threads in every build, so one lock covers all calls. */
#include "../src/base/checked.h"
#include "../src/base/mem.h"
#include "elements.h"
#include "h5lib.h"
#include "h5write.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_CHUNK_BYTES ((int64_t)256 << 20)
#define MAX_CACHE_BYTES ((int64_t)64 << 20) /* for the chunks that one row of chunks needs */
#define MIN_CACHE_BYTES ((int64_t)1 << 20)
#define MAX_CACHE_SLOTS 10007
#define MAX_LINKS 100000 /* looked at in a search for the only 2-D dataset */
#define MAX_GROUPS 4096  /* waiting to be looked at */
#define MAX_SHARED 1024  /* objects with several names */
#define MAX_SOFT_LINKS 16
#define MAX_LINK_BYTES 4096

static pthread_mutex_t library = PTHREAD_MUTEX_INITIALIZER;

/* Every entry from outside but the first, which also loads the library. The error stack is a
 * thread's own in some builds, so it is silenced in each call; plugins would be code from wherever
 * HDF5_PLUGIN_PATH points. */
static void enter(void)
{
    pthread_mutex_lock(&library);
    (void)H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    (void)H5PLset_loading_state(0);
}

static fkm_status first_enter(fkm_err *e)
{
    pthread_mutex_lock(&library);
    fkm_status st = fkm_h5_load(e);
    pthread_mutex_unlock(&library);
    if (st == FKM_OK)
        enter();
    return st;
}

static void leave(void)
{
    pthread_mutex_unlock(&library);
}

typedef struct h5 {
    hid_t file, data, type; /* 0: not open; type: of elements in memory */
    char *name;             /* of the dataset */
    bool dense;             /* read without the library */
    fkm_dense array;        /* offset: only when dense */
} h5;

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

/* The library's innermost reason, which its next call forgets. A system error in it makes this the
 * file's fault, not the data's.
 */
static fkm_status failed(const char *path, const char *what, fkm_err *e)
{
    reason r = {"", false};
    (void)H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_first, &r);
    if (r.no_memory)
        return fkm_fail(e, FKM_ENOMEM, "%s: %s: no memory for HDF5: %s", path, what, r.text);
    fkm_status code = strstr(r.text, "errno = ") ? FKM_EFILE : FKM_EDATA;
    fkm_fail(e, code, "%s: %s: HDF5 says: %s", path, what, r.text[0] ? r.text : "nothing more");
    return fkm_hint(e, "'h5dump -H' or 'h5stat' may tell more; the file may be damaged");
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
static hid_t make_type(fkm_dtype dtype, bool big)
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
    hid_t ours = make_type(dtype, big);
    bool same = ours >= 0 && H5Tequal(type, ours) > 0;
    if (ours >= 0)
        H5Tclose(ours);
    return same;
}

/* NONE when it is none of ours. 16-bit integers with --dtype bf16 or f16 are what programs without
 * these types keep such numbers in. */
static fkm_dtype recognise(hid_t type, fkm_dtype wanted, bool *big)
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
    return FKM_DTYPE_NONE;
}

static const char *describe_type(char *out, size_t cap, hid_t type)
{
    static const char *const names[] = {"integer", "float", "time", "string", "bitfield", "opaque",
        "compound", "reference", "enumeration", "variable-length", "array"};
    H5T_class_t class = H5Tget_class(type);
    size_t bits = 8 * H5Tget_size(type);
    if (class == H5T_INTEGER)
        snprintf(out, cap, "%sint%zu", H5Tget_sign(type) == H5T_SGN_NONE ? "u" : "", bits);
    else if (class == H5T_FLOAT)
        snprintf(out, cap, "float%zu", bits);
    else
        snprintf(out, cap, "%s", class >= 0 && class <= H5T_ARRAY ? names[class] : "unknown");
    return out;
}

/* ---- finding the dataset ---- */

static bool is_numeric(hid_t type)
{
    H5T_class_t class = H5Tget_class(type);
    return class == H5T_INTEGER || class == H5T_FLOAT;
}

typedef struct walk {
    const char *group;       /* being looked at; "" for the root */
    char *queue[MAX_GROUPS]; /* groups to look at, by full name */
    int first, last;
    haddr_t shared[MAX_SHARED]; /* objects met that have several names: each counts once */
    int shared_count;
    int links;
    char *found; /* full name of a 2-D numeric dataset, the first one met */
    int found_count;
    char list[400]; /* of all of them */
    size_t list_used;
    const char *path; /* of the file */
    fkm_status st;    /* our own failure inside the library's callback */
    fkm_err *e;
} walk;

static bool met_before(walk *w, const H5O_info_t *info)
{
    if (info->rc < 2)
        return false;
    for (int i = 0; i < w->shared_count; i++)
        if (w->shared[i] == info->addr)
            return true;
    if (w->shared_count < MAX_SHARED)
        w->shared[w->shared_count++] = info->addr;
    return false;
}

static void note_dataset(walk *w, hid_t group, const char *name, const char *full)
{
    hid_t data = H5Dopen2(group, name, H5P_DEFAULT);
    hid_t type = data >= 0 ? H5Dget_type(data) : -1, space = data >= 0 ? H5Dget_space(data) : -1;
    hsize_t dim[2];
    if (type < 0 || space < 0) /* it might be the one */
        w->st = failed(w->path, "cannot open a dataset", w->e);
    else if (is_numeric(type) && H5Sget_simple_extent_ndims(space) == 2 &&
             H5Sget_simple_extent_dims(space, dim, NULL) == 2) {
        char text[40];
        fkm_list_array(w->list, sizeof w->list, &w->list_used, full, (int64_t)dim[0],
            (int64_t)dim[1], describe_type(text, sizeof text, type));
        if (w->found_count++ == 0)
            w->st = fkm_strdup(&w->found, full, w->e);
    }
    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    if (data >= 0)
        H5Dclose(data);
}

/* Links into other files and soft links are passed over: what they name has a name of its own. */
static herr_t visit(hid_t group, const char *name, const H5L_info_t *link, void *arg)
{
    walk *w = arg;
    H5O_info_t info;
    if (++w->links > MAX_LINKS || w->last == MAX_GROUPS)
        return 1;
    if (link->type != H5L_TYPE_HARD)
        return 0;
    if (H5Oget_info_by_name2(group, name, &info, H5O_INFO_BASIC, H5P_DEFAULT) < 0) {
        w->st = failed(w->path, "cannot look at an object", w->e); /* it might be the one */
        return 1;
    }
    if (met_before(w, &info))
        return 0;
    char *full;
    w->st = fkm_asprintf(&full, w->e, "%s/%s", w->group, name);
    if (w->st != FKM_OK)
        return 1;
    if (info.type == H5O_TYPE_DATASET)
        note_dataset(w, group, name, full);
    if (info.type == H5O_TYPE_GROUP)
        w->queue[w->last++] = full;
    else
        fkm_free(full);
    return w->st == FKM_OK ? 0 : 1;
}

static fkm_status walk_groups(walk *w, hid_t file, const char *path, fkm_err *e)
{
    FKM_TRY(fkm_strdup(&w->queue[w->last++], "", e));
    while (w->first < w->last) {
        w->group = w->queue[w->first++];
        hid_t group = H5Gopen2(file, w->group[0] ? w->group : "/", H5P_DEFAULT);
        if (group < 0)
            return failed(path, "cannot open a group", e);
        herr_t rc = H5Literate(group, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, visit, w);
        fkm_status st = w->st;
        if (st == FKM_OK && rc < 0)
            st = failed(path, "cannot list a group", e);
        H5Gclose(group);
        FKM_TRY(st);
        if (rc > 0) {
            fkm_fail(e, FKM_EDATA, "%s: too many objects to search for its only 2-D dataset", path);
            return fkm_hint(e, "name it with --dataset PATH");
        }
    }
    return FKM_OK;
}

/* *out = the full name of the only 2-D numeric dataset. fkm_free. */
static fkm_status find_only(char **out, hid_t file, const char *path, fkm_err *e)
{
    walk *w;
    FKM_TRY(fkm_calloc(&w, 1, sizeof *w, "a search in HDF5", e));
    w->e = e;
    w->path = path;
    fkm_status st = walk_groups(w, file, path, e);
    if (st == FKM_OK && w->found_count == 0) {
        fkm_fail(e, FKM_EDATA, "%s: has no 2-D numeric dataset", path);
        st = fkm_hint(e, "fkm clusters the rows of a 2-D dataset: rows x dimensions");
    } else if (st == FKM_OK && w->found_count > 1) {
        fkm_fail(
            e, FKM_EDATA, "%s: has %d 2-D numeric datasets: %s", path, w->found_count, w->list);
        st = fkm_hint(e, "choose one with --dataset PATH");
    } else if (st == FKM_OK) {
        *out = w->found;
        w->found = NULL;
    }
    for (int i = 0; i < w->last; i++)
        fkm_free(w->queue[i]);
    fkm_free(w->found);
    fkm_free(w);
    return st;
}

static fkm_status no_dataset(const char *path, const char *name, fkm_err *e)
{
    char safe[160];
    fkm_fail(e, FKM_EDATA, "%s: has no dataset '%s'", path, fkm_printable(safe, sizeof safe, name));
    return fkm_hint(e, "without --dataset, fkm takes the only 2-D dataset or lists them");
}

/* *next = name with its soft link name[0..end) replaced by what it points at. fkm_free. */
static fkm_status expand_soft(
    char **next, hid_t file, const char *path, char *name, size_t end, fkm_err *e)
{
    char target[MAX_LINK_BYTES + 1] = "";
    char kept = name[end];
    name[end] = '\0';
    bool got = H5Lget_val(file, name, target, MAX_LINK_BYTES, H5P_DEFAULT) >= 0;
    const char *slash = strrchr(name, '/');
    int parent = slash && target[0] != '/' ? (int)(slash - name) + 1 : 0;
    name[end] = kept;
    if (!got)
        return failed(path, "cannot read a soft link", e);
    return fkm_asprintf(next, e, "%.*s%s%s", parent, name, target, name + end);
}

/* *out = wanted with soft links followed, each step of it checked to stay inside the file.
 * fkm_free. */
static fkm_status resolve(char **out, hid_t file, const char *path, const char *wanted, fkm_err *e)
{
    char *name;
    fkm_status st = FKM_OK;
    FKM_TRY(fkm_strdup(&name, wanted, e));
    int hops = 0;
    for (size_t at = strspn(name, "/"); name[at];) {
        size_t end = at + strcspn(name + at, "/");
        char kept = name[end];
        H5L_info_t link;
        name[end] = '\0';
        bool there = H5Lget_info(file, name, &link, H5P_DEFAULT) >= 0;
        name[end] = kept;
        if (!there || hops > MAX_SOFT_LINKS) {
            st = no_dataset(path, wanted, e);
            goto out;
        }
        if (link.type == H5L_TYPE_SOFT) {
            char *next = NULL;
            FKM_GO(expand_soft(&next, file, path, name, end, e));
            fkm_free(name);
            name = next;
            hops++;
            at = strspn(name, "/");
        } else if (link.type == H5L_TYPE_HARD) {
            at = end + strspn(name + end, "/");
        } else {
            fkm_fail(e, FKM_EDATA, "%s: '%s' is an external link, which fkm does not follow", path,
                wanted);
            st = fkm_hint(e, "name the file that holds the data");
            goto out;
        }
    }
    *out = name;
    return FKM_OK;
out:
    fkm_free(name);
    return st;
}

/* ---- checking the dataset ---- */

/* What is known of a dataset while it is being opened. */
typedef struct facts {
    const char *path;
    char name[160]; /* printable */
    hid_t type, space, props;
    int64_t rows, dims, bytes; /* bytes: of all elements */
    fkm_dtype dtype;
    bool big;
    int64_t chunk_bytes, cache_bytes; /* 0 unless chunked */
} facts;

static fkm_status check_shape(facts *k, fkm_dtype wanted, fkm_err *e)
{
    char text[40];
    hsize_t dim[2];
    int ndim = H5Sget_simple_extent_ndims(k->space);
    if (ndim != 2) {
        fkm_fail(e, FKM_EDATA, "%s: dataset '%s' is %d-D, expected 2-D: rows x dimensions", k->path,
            k->name, ndim);
        return fkm_hint(e, ndim == 1 ? "store it as one row or one column of a 2-D dataset"
                                     : "choose another one with --dataset, or reshape it");
    }
    if (H5Sget_simple_extent_dims(k->space, dim, NULL) != 2)
        return failed(k->path, "cannot read the extent of the dataset", e);
    k->dtype = recognise(k->type, wanted, &k->big);
    if (k->dtype == FKM_DTYPE_NONE) {
        fkm_fail(e, FKM_EDATA, "%s: dataset '%s' holds %s, which fkm does not read", k->path,
            k->name, describe_type(text, sizeof text, k->type));
        return fkm_hint(e, "it reads floats of 16, 32 and 64 bits, and integers; store bools "
                           "as a.astype('uint8')");
    }
    FKM_TRY(fkm_check_wanted(k->path, k->dtype, wanted, e));
    if (dim[0] > INT64_MAX || dim[1] > INT64_MAX)
        return fkm_fail(e, FKM_EDATA, "%s: dataset '%s' is %llu x %llu, beyond 63 bits", k->path,
            k->name, (unsigned long long)dim[0], (unsigned long long)dim[1]);
    k->rows = (int64_t)dim[0];
    k->dims = (int64_t)dim[1];
    return fkm_array_bytes(&k->bytes, k->path, k->rows, k->dims, k->dtype, e);
}

static fkm_status check_filters(const facts *k, fkm_err *e)
{
    int count = H5Pget_nfilters(k->props);
    for (int i = 0; i < count; i++) {
        unsigned flags, config;
        size_t values = 0;
        char name[64] = "", safe[64];
        H5Z_filter_t id = H5Pget_filter2(
            k->props, (unsigned)i, &flags, &values, NULL, sizeof name - 1, name, &config);
        if (id == H5Z_FILTER_SHUFFLE || id == H5Z_FILTER_FLETCHER32 || id == H5Z_FILTER_DEFLATE)
            continue;
        fkm_fail(e, FKM_EDATA,
            "%s: dataset '%s' is filtered by '%s' (filter %d), which fkm does not read", k->path,
            k->name, fkm_printable(safe, sizeof safe, name), (int)id);
        return fkm_hint(e, "it reads gzip, shuffle and fletcher32: h5repack -f GZIP=1 IN OUT");
    }
    return FKM_OK;
}

static fkm_status only_partly(const facts *k, fkm_err *e)
{
    fkm_fail(e, FKM_EDATA, "%s: dataset '%s' is %lld x %lld %s, but only partly written", k->path,
        k->name, (long long)k->rows, (long long)k->dims, fkm_dtype_name(k->dtype));
    return fkm_hint(
        e, "the missing rows would read as zeros; was the program that wrote it stopped?");
}

static fkm_status check_chunks(facts *k, hid_t data, fkm_err *e)
{
    hsize_t chunk[2], stored;
    if (H5Pget_chunk(k->props, 2, chunk) != 2 || chunk[0] < 1 || chunk[1] < 1 ||
        H5Dget_num_chunks(data, k->space, &stored) < 0)
        return failed(k->path, "cannot read the chunks of the dataset", e);
    int64_t size = (int64_t)fkm_dtype_size(k->dtype);
    if (chunk[0] > (hsize_t)MAX_CHUNK_BYTES || chunk[1] > (hsize_t)MAX_CHUNK_BYTES ||
        !fkm_mul_i64(&k->chunk_bytes, (int64_t)chunk[0], (int64_t)chunk[1]) ||
        !fkm_mul_i64(&k->chunk_bytes, k->chunk_bytes, size) || k->chunk_bytes > MAX_CHUNK_BYTES) {
        fkm_fail(e, FKM_EDATA, "%s: dataset '%s' has chunks of %llu x %llu %s, the most is 256 MiB",
            k->path, k->name, (unsigned long long)chunk[0], (unsigned long long)chunk[1],
            fkm_dtype_name(k->dtype));
        return fkm_hint(
            e, "h5repack -l CHUNK=4096x%lld IN OUT makes smaller ones", (long long)k->dims);
    }
    int64_t down = (k->rows - 1) / (int64_t)chunk[0] + 1;
    int64_t across = (k->dims - 1) / (int64_t)chunk[1] + 1;
    if (stored != (hsize_t)fkm_mul_sat(down, across))
        return only_partly(k, e);
    int64_t row = fkm_mul_sat(across, k->chunk_bytes);
    k->cache_bytes = fkm_max_i64(
        MIN_CACHE_BYTES, fkm_max_i64(k->chunk_bytes, fkm_min_i64(row, MAX_CACHE_BYTES)));
    return check_filters(k, e);
}

static fkm_status check_contiguous(h5 *h, const facts *k, fkm_file *f, fkm_err *e)
{
    haddr_t offset = H5Dget_offset(h->data);
    if (offset == HADDR_UNDEF || H5Dget_storage_size(h->data) < (hsize_t)k->bytes)
        return only_partly(k, e);
    int64_t have = fkm_file_bytes(f);
    if (k->bytes > have || offset > (haddr_t)(have - k->bytes)) {
        fkm_fail(e, FKM_EDATA, "%s: dataset '%s' must end at byte %llu, the file ends at byte %lld",
            k->path, k->name, (unsigned long long)offset + (unsigned long long)k->bytes,
            (long long)have);
        return fkm_hint(e, "the file may be truncated");
    }
    h->array.offset = (int64_t)offset;
    h->dense = true;
    return FKM_OK;
}

static fkm_status check_storage(h5 *h, facts *k, fkm_file *f, fkm_err *e)
{
    H5D_layout_t layout = H5Pget_layout(k->props);
    if (H5Pget_external_count(k->props) > 0) {
        fkm_fail(e, FKM_EDATA, "%s: the values of dataset '%s' are kept in another file", k->path,
            k->name);
        return fkm_hint(e, "fkm reads only the file that is named: h5repack -l CONTI IN OUT");
    }
    switch (layout) {
    case H5D_CONTIGUOUS:
        return check_contiguous(h, k, f, e);
    case H5D_CHUNKED:
        return check_chunks(k, h->data, e);
    case H5D_COMPACT:
        return H5Dget_storage_size(h->data) < (hsize_t)k->bytes ? only_partly(k, e) : FKM_OK;
    case H5D_LAYOUT_ERROR:
    case H5D_VIRTUAL:
    case H5D_NLAYOUTS:
        break;
    }
    fkm_fail(e, FKM_EDATA,
        "%s: dataset '%s' is a view of other datasets (virtual), which fkm does not "
        "read",
        k->path, k->name);
    return fkm_hint(e, "name the files that hold the data; several files can be one data set");
}

/* ---- opening ---- */

static int probe_h5(const uint8_t *head, size_t len, int64_t bytes, const char *suffix)
{
    (void)bytes;
    (void)suffix;
    /* The signature is at 0, or after a user block at 512, 1024, 2048 ... */
    for (size_t at = 0; at + 8 <= len; at = at ? 2 * at : 512)
        if (!memcmp(head + at, "\x89HDF\r\n\x1a\n", 8))
            return at == 0 ? 100 : 80;
    return 0;
}

/* How the library shall open files: plain system calls whatever HDF5_DRIVER says, and without
 * locks, which fail on some network file systems (fkm_file_unchanged sees a change). */
static hid_t access_properties(void)
{
    hid_t p = H5Pcreate(H5P_FILE_ACCESS);
    if (p < 0)
        return p;
    (void)H5Pset_fapl_sec2(p);
    (void)H5Pset_fclose_degree(p, H5F_CLOSE_STRONG);
#if H5_VERSION_GE(1, 10, 7)
    (void)H5Pset_file_locking(p, 0, 1);
#endif
    return p;
}

/* By descriptor where the system allows it: these are then the bytes that fkm_file has opened. The
 * library wants a file with a name, which the copy of a pipe has not. */
static fkm_status open_file(h5 *h, fkm_file *f, fkm_err *e)
{
    char name[64];
    const char *path = fkm_file_path(f);
    struct stat status;
    if (fstat(fkm_file_descriptor(f), &status) == 0 && status.st_nlink == 0) {
        fkm_fail(e, FKM_EUSAGE, "%s: HDF5 cannot be read from a pipe", path);
        return fkm_hint(e, "save it to a file first, or redirect a file: < data.h5");
    }
    snprintf(name, sizeof name, "/proc/self/fd/%d", fkm_file_descriptor(f));
    hid_t access_list = access_properties();
    h->file = H5Fopen(access(name, R_OK) == 0 ? name : path, H5F_ACC_RDONLY, access_list);
    fkm_status st = FKM_OK;
    if (h->file < 0) {
        h->file = 0;
        st = failed(path, "cannot open as HDF5", e); /* before the next call forgets the reason */
    }
    H5Pclose(access_list);
    return st;
}

static fkm_status open_named(h5 *h, facts *k, fkm_err *e)
{
    H5O_info_t info;
    if (H5Oget_info_by_name2(h->file, h->name, &info, H5O_INFO_BASIC, H5P_DEFAULT) < 0 ||
        info.type != H5O_TYPE_DATASET)
        return no_dataset(k->path, k->name, e);
    h->data = H5Dopen2(h->file, h->name, H5P_DEFAULT);
    if (h->data < 0) {
        h->data = 0;
        return failed(k->path, "cannot open the dataset", e);
    }
    k->type = H5Dget_type(h->data);
    k->space = H5Dget_space(h->data);
    k->props = H5Dget_create_plist(h->data);
    if (k->type < 0 || k->space < 0 || k->props < 0)
        return failed(k->path, "cannot describe the dataset", e);
    return FKM_OK;
}

/* Opens the dataset anew with a cache that holds a row of its chunks: reads that end inside one do
 * not inflate it twice. */
static fkm_status reopen_with_cache(h5 *h, const facts *k, fkm_err *e)
{
    int64_t slots = fkm_min_i64(k->cache_bytes / k->chunk_bytes * 10 + 521, MAX_CACHE_SLOTS);
    hid_t p = H5Pcreate(H5P_DATASET_ACCESS);
    if (p < 0)
        return failed(k->path, "cannot set the chunk cache", e);
    (void)H5Pset_chunk_cache(p, (size_t)slots, (size_t)k->cache_bytes, 1.0);
    H5Dclose(h->data);
    h->data = H5Dopen2(h->file, h->name, p);
    H5Pclose(p);
    if (h->data >= 0)
        return FKM_OK;
    h->data = 0;
    return failed(k->path, "cannot open the dataset", e);
}

/* What the library shall convert to: the stored type, little-endian. 16-bit integers that hold
 * two-byte floats must not be converted to floats by value. */
static fkm_status set_memory_type(h5 *h, const facts *k, fkm_err *e)
{
    bool raw = H5Tget_class(k->type) == H5T_INTEGER && fkm_dtype_size(k->dtype) == 2;
    fkm_dtype as = !raw ? k->dtype : H5Tget_sign(k->type) == H5T_SGN_NONE ? FKM_U16 : FKM_I16;
    h->type = make_type(as, false);
    if (h->type >= 0)
        return FKM_OK;
    h->type = 0;
    return failed(k->path, "cannot make an element type", e);
}

static fkm_status open_dataset(
    h5 *h, facts *k, fkm_file *f, const fkm_format_options *o, fkm_err *e)
{
    fkm_printable(k->name, sizeof k->name, h->name);
    FKM_TRY(open_named(h, k, e));
    FKM_TRY(check_shape(k, o->dtype, e));
    FKM_TRY(check_storage(h, k, f, e));
    FKM_TRY(set_memory_type(h, k, e));
    h->array.dims = (int32_t)k->dims;
    h->array.dtype = k->dtype;
    h->array.swap = k->big;
    return k->chunk_bytes > 0 ? reopen_with_cache(h, k, e) : FKM_OK;
}

static fkm_status open_locked(
    h5 *h, fkm_file *f, const fkm_format_options *o, fkm_shape *shape, fkm_err *e)
{
    facts k = {.path = fkm_file_path(f), .type = -1, .space = -1, .props = -1};
    FKM_TRY(open_file(h, f, e));
    if (o->dataset)
        FKM_TRY(resolve(&h->name, h->file, k.path, o->dataset, e));
    else
        FKM_TRY(find_only(&h->name, h->file, k.path, e));
    fkm_status st = open_dataset(h, &k, f, o, e);
    if (st == FKM_OK) {
        int64_t row = k.dims * (int64_t)fkm_dtype_size(k.dtype);
        if (k.chunk_bytes > 0)
            row = (int64_t)(H5Dget_storage_size(h->data) / (hsize_t)k.rows);
        *shape = (fkm_shape){.batch = 1,
            .rows = k.rows,
            .dims = (int32_t)k.dims,
            .ndim = 2,
            .dtype = k.dtype,
            .row_bytes = row,
            .heap_bytes = k.cache_bytes + 2 * k.chunk_bytes};
    }
    if (k.props >= 0)
        H5Pclose(k.props);
    if (k.space >= 0)
        H5Sclose(k.space);
    if (k.type >= 0)
        H5Tclose(k.type);
    return st;
}

static fkm_status open_h5(
    void *priv, fkm_file *f, const fkm_format_options *o, fkm_shape *shape, fkm_err *e)
{
    if (first_enter(e) != FKM_OK)
        return fkm_wrap(e, "%s", fkm_file_path(f));
    fkm_status st = open_locked(priv, f, o, shape, e);
    leave();
    return st;
}

static void close_h5(void *priv)
{
    h5 *h = priv;
    if (h->file <= 0)
        return; /* the library may not even be there */
    enter();
    if (h->type > 0)
        H5Tclose(h->type);
    if (h->data > 0)
        H5Dclose(h->data);
    H5Fclose(h->file);
    leave();
    fkm_free(h->name);
}

/* ---- reading ---- */

/* Rows and columns of a dataset. */
typedef struct region {
    int64_t row0, rows, column0, columns;
} region;

static fkm_status read_region(const h5 *h, const char *path, const region *r, void *dst, fkm_err *e)
{
    hsize_t start[2] = {(hsize_t)r->row0, (hsize_t)r->column0};
    hsize_t count[2] = {(hsize_t)r->rows, (hsize_t)r->columns};
    hid_t file_space = H5Dget_space(h->data), memory_space = H5Screate_simple(2, count, NULL);
    bool good = file_space >= 0 && memory_space >= 0 &&
                H5Sselect_hyperslab(file_space, H5S_SELECT_SET, start, NULL, count, NULL) >= 0 &&
                H5Dread(h->data, h->type, memory_space, file_space, H5P_DEFAULT, dst) >= 0;
    fkm_status st = FKM_OK;
    if (!good) {
        char what[80];
        if (r->rows == 1)
            snprintf(what, sizeof what, "cannot read row %lld", (long long)r->row0);
        else
            snprintf(what, sizeof what, "cannot read rows %lld to %lld", (long long)r->row0,
                (long long)(r->row0 + r->rows - 1));
        st = failed(path, what, e);
    }
    if (memory_space >= 0)
        H5Sclose(memory_space);
    if (file_space >= 0)
        H5Sclose(file_space);
    return st;
}

/* Elements that have another size in memory: pieces that fit in the scratch, whole rows if they do,
 * else parts of one. */
static fkm_status read_resized(const h5 *h, const char *path, int64_t row0, int64_t count,
    float *dst, void *scratch, fkm_err *e)
{
    const int64_t most = (int64_t)(FKM_SCRATCH_BYTES / fkm_dtype_size(h->array.dtype));
    int32_t dims = h->array.dims;
    region r = {.columns = fkm_min_i64(dims, most), .row0 = row0};
    const int64_t rows = fkm_max_i64(1, most / dims), end = row0 + count;
    for (; r.row0 < end; r.row0 += r.rows) {
        r.rows = fkm_min_i64(rows, end - r.row0);
        for (r.column0 = 0; r.column0 < dims; r.column0 += most) {
            r.columns = fkm_min_i64(most, dims - r.column0);
            FKM_TRY(read_region(h, path, &r, scratch, e));
            fkm_place place = {path, r.row0, (int32_t)r.column0, dims, false};
            FKM_TRY(fkm_convert(h->array.dtype, dst, scratch, r.rows * r.columns, &place, e));
            dst += r.rows * r.columns;
        }
    }
    return FKM_OK;
}

static fkm_status read_locked(const h5 *h, const char *path, int64_t row0, int64_t count, void *dst,
    void *scratch, fkm_err *e)
{
    if (fkm_is_resized(h->array.dtype))
        return read_resized(h, path, row0, count, dst, scratch, e);
    region r = {row0, count, 0, h->array.dims};
    FKM_TRY(read_region(h, path, &r, dst, e));
    fkm_place place = {path, row0, 0, h->array.dims, false};
    return fkm_convert(h->array.dtype, dst, dst, count * h->array.dims, &place, e);
}

static fkm_status read_h5(
    void *priv, fkm_file *f, int64_t row0, int64_t count, void *dst, void *scratch, fkm_err *e)
{
    const h5 *h = priv;
    if (h->dense)
        return fkm_dense_read(&h->array, f, row0, count, dst, scratch, e);
    enter();
    fkm_status st = read_locked(h, fkm_file_path(f), row0, count, dst, scratch, e);
    leave();
    return st;
}

static const char *dataset(const void *priv)
{
    const h5 *h = priv;
    return h->name;
}

const fkm_format fkm_format_hdf5 = {
    .name = "hdf5",
    .suffixes = ".h5 .hdf5",
    .about = "HDF5; a 2-D dataset, by --dataset if there are several",
    .priv_size = sizeof(h5),
    .probe = probe_h5,
    .open = open_h5,
    .read = read_h5,
    .dataset = dataset,
    .close = close_h5,
};

/* ---- writing ---- */

struct fkm_h5_out {
    hid_t file;
    char *path;
};

/* As failed(), for files of ours: nothing about them can be wrong data. */
static fkm_status write_failed(const char *path, const char *what, fkm_err *e)
{
    if (failed(path, what, e) == FKM_ENOMEM)
        return FKM_ENOMEM;
    e->code = FKM_EFILE;
    return fkm_hint(e, "make room, or write elsewhere with -o");
}

fkm_status fkm_h5_create(fkm_h5_out **out, const char *name, const char *path, fkm_err *e)
{
    fkm_h5_out *h;
    FKM_TRY(fkm_calloc(&h, 1, sizeof *h, "an HDF5 output", e));
    fkm_status st = fkm_strdup(&h->path, path, e);
    if (st == FKM_OK && (st = first_enter(e)) == FKM_OK) {
        hid_t access_list = access_properties();
        h->file = H5Fcreate(name, H5F_ACC_TRUNC, H5P_DEFAULT, access_list);
        if (h->file < 0) {
            h->file = 0;
            st = write_failed(path, "cannot create HDF5", e);
        }
        H5Pclose(access_list);
        leave();
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
    hid_t type = make_type(spec->dtype, false), space = H5Screate_simple(spec->ndim, dim, NULL);
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
    enter();
    fkm_status st = array_locked(h, spec, offset, e);
    leave();
    return st;
}

fkm_status fkm_h5_finish(fkm_h5_out *h, fkm_err *e)
{
    enter();
    hid_t file = h->file;
    h->file = 0;
    fkm_status st = H5Fclose(file) >= 0 ? FKM_OK : write_failed(h->path, "cannot write", e);
    leave();
    return st;
}

void fkm_h5_close(fkm_h5_out *h)
{
    if (!h)
        return;
    if (h->file > 0) {
        enter();
        H5Fclose(h->file);
        leave();
    }
    fkm_free(h->path);
    fkm_free(h);
}
