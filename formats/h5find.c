/* Finding a dataset in an HDF5 file: see h5find.h. */
#include "h5find.h"

#include "../src/base/mem.h"
#include "elements.h"
#include "h5file.h"

#include <string.h>

#define MAX_LINKS 100000 /* looked at in a search for the only 2-D dataset */
#define MAX_GROUPS 4096  /* waiting to be looked at */
#define MAX_SHARED 1024  /* objects with several names */
#define MAX_SOFT_LINKS 16
#define MAX_LINK_BYTES 4096

/* ---- finding the dataset ---- */

static bool is_numeric(hid_t type)
{
    H5T_class_t class = H5Tget_class(type);
    return class == H5T_INTEGER || class == H5T_FLOAT || fkm_h5_is_bool(type);
}

typedef struct walk {
    const char *group;       /* being looked at; "" for the root */
    char *queue[MAX_GROUPS]; /* groups to look at, by full name */
    int first, last;
    haddr_t shared[MAX_SHARED]; /* objects met that have several names: each counts once */
    int shared_count;
    int links;
    char *found; /* full name of a 2-D numeric dataset with rows, the first one met */
    int found_count;
    char *empty, *table; /* of one without rows, of a 1-D compound one */
    char list[400];      /* of those with rows */
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

/* Keeps the first one met. */
static fkm_status keep_name(char **kept, const char *full, fkm_err *e)
{
    return *kept ? FKM_OK : fkm_strdup(kept, full, e);
}

static fkm_status note_kind(walk *w, hid_t type, hid_t space, const char *full)
{
    char text[40];
    hsize_t dim[2];
    int ndim = H5Sget_simple_extent_ndims(space);
    if (ndim == 1 && H5Tget_class(type) == H5T_COMPOUND)
        return keep_name(&w->table, full, w->e);
    if (ndim != 2 || !is_numeric(type) || H5Sget_simple_extent_dims(space, dim, NULL) != 2)
        return FKM_OK;
    if (dim[0] == 0 || dim[1] == 0)
        return keep_name(&w->empty, full, w->e);
    fkm_list_array(w->list, sizeof w->list, &w->list_used, full, (int64_t)dim[0], (int64_t)dim[1],
        fkm_h5_describe_type(text, sizeof text, type));
    w->found_count++;
    return keep_name(&w->found, full, w->e);
}

static void note_dataset(walk *w, hid_t group, const char *name, const char *full)
{
    hid_t data = H5Dopen2(group, name, H5P_DEFAULT);
    hid_t type = data >= 0 ? H5Dget_type(data) : -1, space = data >= 0 ? H5Dget_space(data) : -1;
    if (type < 0 || space < 0) /* it might be the one */
        w->st = fkm_h5_not_opened(w->path, full, w->e);
    else
        w->st = note_kind(w, type, space, full);
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
        w->st = fkm_h5_failed(w->path, "cannot look at an object", w->e); /* it might be the one */
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
    H5O_info_t root;
    FKM_TRY(fkm_strdup(&w->queue[w->last++], "", e));
    if (H5Oget_info_by_name2(file, "/", &root, H5O_INFO_BASIC, H5P_DEFAULT) < 0)
        return fkm_h5_failed(path, "cannot look at the root group", e);
    (void)met_before(w, &root); /* a link to it is not another group */
    while (w->first < w->last) {
        w->group = w->queue[w->first++];
        hid_t group = H5Gopen2(file, w->group[0] ? w->group : "/", H5P_DEFAULT);
        if (group < 0)
            return fkm_h5_failed(path, "cannot open a group", e);
        herr_t rc = H5Literate(group, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, visit, w);
        fkm_status st = w->st;
        if (st == FKM_OK && rc < 0)
            st = fkm_h5_failed(path, "cannot list a group", e);
        H5Gclose(group);
        FKM_TRY(st);
        if (rc > 0) {
            fkm_fail(e, FKM_EDATA, "%s: too many objects to search for its only 2-D dataset", path);
            return fkm_hint(e, "name it with --dataset PATH");
        }
    }
    return FKM_OK;
}

static fkm_status walk_file(walk **out, hid_t file, const char *path, fkm_err *e)
{
    walk *w;
    FKM_TRY(fkm_calloc(&w, 1, sizeof *w, "a search in HDF5", e));
    w->e = e;
    w->path = path;
    *out = w;
    return walk_groups(w, file, path, e);
}

static void walk_free(walk *w)
{
    if (!w)
        return;
    for (int i = 0; i < w->last; i++)
        fkm_free(w->queue[i]);
    fkm_free(w->found);
    fkm_free(w->empty);
    fkm_free(w->table);
    fkm_free(w);
}

static fkm_status only_a_table(const walk *w, fkm_err *e)
{
    char safe[160];
    fkm_fail(e, FKM_EDATA,
        "%s: has no 2-D numeric dataset; '%s' is a table: a 1-D dataset of compound rows", w->path,
        fkm_printable(safe, sizeof safe, w->table));
    return fkm_hint(e,
        "python3 -c \"import numpy, pandas; numpy.save('OUT.npy', "
        "pandas.read_hdf('IN').to_numpy('float32'))\" makes an array of a table of numbers that "
        "pandas wrote");
}

static fkm_status choose(char **out, walk *w, fkm_err *e)
{
    if (w->found_count > 1) {
        fkm_fail(
            e, FKM_EDATA, "%s: has %d 2-D numeric datasets: %s", w->path, w->found_count, w->list);
        return fkm_hint(e, "choose one with --dataset PATH");
    }
    if (w->found_count == 0 && w->table)
        return only_a_table(w, e);
    char **one = w->found ? &w->found : &w->empty; /* that it has no rows is said later */
    if (!*one) {
        fkm_fail(e, FKM_EDATA, "%s: has no 2-D numeric dataset", w->path);
        return fkm_hint(e, "fkm clusters the rows of a 2-D dataset: rows x dimensions");
    }
    *out = *one;
    *one = NULL;
    return FKM_OK;
}

fkm_status fkm_h5_find_only(char **out, hid_t file, const char *path, fkm_err *e)
{
    walk *w = NULL;
    fkm_status st = walk_file(&w, file, path, e);
    if (st == FKM_OK)
        st = choose(out, w, e);
    walk_free(w);
    return st;
}

fkm_status fkm_h5_no_dataset(hid_t file, const char *path, const char *wanted, fkm_err *e)
{
    char safe[160];
    walk *w = NULL;
    fkm_err unlisted = {0};
    bool listed = walk_file(&w, file, path, &unlisted) == FKM_OK;
    fkm_fail(
        e, FKM_EDATA, "%s: has no dataset '%s'", path, fkm_printable(safe, sizeof safe, wanted));
    if (listed)
        fkm_hint(e, "2-D numeric datasets: %s", w->list_used ? w->list : "none");
    else
        fkm_hint(e, "'h5ls -r' lists what there is");
    walk_free(w);
    return FKM_EDATA;
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
        return fkm_h5_failed(path, "cannot read a soft link", e);
    return fkm_asprintf(next, e, "%.*s%s%s", parent, name, target, name + end);
}

fkm_status fkm_h5_resolve(char **out, hid_t file, const char *path, const char *wanted, fkm_err *e)
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
            st = fkm_h5_no_dataset(file, path, wanted, e);
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
