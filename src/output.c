/* The outputs of a run: see output.h for the protocol and its reasons. */
#include "output.h"

#include "base/checked.h"
#include "base/log.h"
#include "base/mem.h"
#include "exchange.h"
#include "lock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct item {
    char *path;       /* as given */
    char *dir, *name; /* of the target: symbolic links in the last component followed */
    char *target;     /* dir/name */
    char *backup;     /* dir/.name.old.PID-SYSTEM */
    int64_t bytes;
    bool existed, backed_up, attempted;
    fkm_writer *writer; /* one of the two, once started */
    fkm_outfile *file;
};

struct fkm_outputs {
    struct item items[FKM_OUTPUTS_MAX + 1];
    int count; /* outputs */
    int all;   /* and the state after them, if there is one */
    bool force, complete;
    const char *key; /* the caller's */
    fkm_lock lock;
    fkm_exchange exchange; /* its record, while that stands */
};

/* ---- names ---- */

/* Splits "a/b/c" into "a/b" and "c"; "c" into "." and "c". fkm_free both. */
static fkm_status split(char **dir, char **name, const char *path, fkm_err *e)
{
    const char *slash = strrchr(path, '/');
    *dir = *name = NULL;
    fkm_status st = fkm_strdup(name, slash ? slash + 1 : path, e);
    if (st == FKM_OK && !slash)
        st = fkm_strdup(dir, ".", e);
    else if (st == FKM_OK)
        st = fkm_asprintf(dir, e, "%.*s", slash == path ? 1 : (int)(slash - path), path);
    if (st != FKM_OK) {
        fkm_free(*name);
        *name = NULL;
    }
    return st;
}

/* Fills dir, name, target and backup from path. A link is kept: what it points at is replaced. */
static fkm_status resolve(struct item *it, fkm_err *e)
{
    FKM_TRY(fkm_path_target(&it->target, it->path, e));
    FKM_TRY(split(&it->dir, &it->name, it->target, e));
    return fkm_own_name(&it->backup, it->dir, it->name, "old", e);
}

static fkm_status check_name(const char *path, const char *name, fkm_err *e)
{
    if (name[0] == '\0' || !strcmp(name, ".") || !strcmp(name, "..")) {
        fkm_fail(e, FKM_EUSAGE, "output '%s' names a directory", path);
        return fkm_hint(e, "add a name: -o %s%sNAME", path, name[0] ? "/" : "");
    }
    if (strlen(name) + FKM_OWN_NAME_BYTES > NAME_MAX) {
        fkm_fail(e, FKM_EFILE,
            "%s: the name has %zu bytes, more than the %d that leave room for "
            "temporary names",
            path, strlen(name), NAME_MAX - FKM_OWN_NAME_BYTES);
        return fkm_hint(e, "choose a shorter name with -o");
    }
    return FKM_OK;
}

static fkm_status check_directory(const char *dir, fkm_err *e)
{
    struct stat s;
    if (stat(dir, &s) != 0) {
        int error = errno;
        fkm_fail(e, FKM_EFILE, "cannot write in directory %s: %s", dir, strerror(error));
        return error == ENOENT ? fkm_hint(e, "create it first: mkdir -p %s", dir) : FKM_EFILE;
    }
    if (!S_ISDIR(s.st_mode))
        return fkm_fail(e, FKM_EFILE, "cannot write in %s: it is not a directory", dir);
    if (faccessat(AT_FDCWD, dir, W_OK | X_OK, AT_EACCESS) != 0) {
        fkm_fail(e, FKM_EFILE, "cannot write in directory %s: %s", dir, strerror(errno));
        return fkm_hint(e, "write elsewhere with -o");
    }
    return FKM_OK;
}

/* Whether something is at path; by stat or lstat. Not knowing is not the same as absent: what is
 * there would be replaced without being asked for. */
static fkm_status look(bool *there, struct stat *s, int (*by)(const char *, struct stat *),
    const char *path, fkm_err *e)
{
    *there = by(path, s) == 0;
    if (*there || fkm_is_absent(errno))
        return FKM_OK;
    return fkm_fail(e, FKM_EFILE, "cannot look up %s: %s", path, strerror(errno));
}

static fkm_status take_lock(fkm_outputs *o, const char *lock_name, fkm_err *e)
{
    char *dir, *name;
    FKM_TRY(split(&dir, &name, lock_name, e));
    fkm_status st = FKM_OK;
    FKM_GO(check_name(lock_name, name, e));
    FKM_GO(check_directory(dir, e));
    FKM_GO(fkm_lock_take(&o->lock, dir, name, lock_name, e));
out:
    fkm_free(dir);
    fkm_free(name);
    return st;
}

/* ---- what a killed run left ---- */

static bool is_same_file(const fkm_exchange_file *f, const struct item *it)
{
    struct stat a, b;
    return !strcmp(f->name, it->name) && stat(f->dir, &a) == 0 && stat(it->dir, &b) == 0 &&
           a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* Whether these outputs are what `done` made, of what is to be done now. */
static bool is_done(const fkm_outputs *o, const fkm_exchange *done, const char *key)
{
    bool same = key && done->record && !strcmp(done->key, key) && done->count == o->count;
    for (int i = 0; same && i < o->count; i++)
        same = is_same_file(&done->files[i], &o->items[i]);
    return same && fkm_exchange_is_whole(done);
}

/* The record of outputs that turn out to be complete stays until the end. */
static void find_complete(fkm_outputs *o)
{
    o->complete = is_done(o, &o->exchange, o->key);
    if (!o->complete && o->exchange.record)
        unlink(o->exchange.record);
    if (!o->complete)
        fkm_exchange_free(&o->exchange);
}

static void clean_up_after_kill(fkm_outputs *o)
{
    const struct item *marker = &o->items[o->count - 1];
    fkm_exchange_heal(&o->exchange, marker->dir, marker->name, o->lock.effective);
    for (int i = 0; i < o->all; i++)
        fkm_remove_leftovers(o->items[i].dir, o->items[i].name);
}

/* ---- checks ---- */

static bool same_id(const struct stat *s, const fkm_file_id *id)
{
    return s->st_dev == id->dev && s->st_ino == id->ino;
}

static fkm_status check_target(
    struct item *it, const fkm_outputs_spec *spec, bool may_exist, fkm_err *e)
{
    struct stat s;
    FKM_TRY(look(&it->existed, &s, stat, it->target, e));
    if (!it->existed)
        return FKM_OK;
    for (int g = 0; g < spec->guard_count; g++)
        if (same_id(&s, &spec->guards[g].id)) {
            fkm_fail(
                e, FKM_EFILE, "output %s is also the input %s", it->path, spec->guards[g].path);
            return fkm_hint(e, "choose another name with -o");
        }
    if (!S_ISREG(s.st_mode))
        return fkm_fail(e, FKM_EFILE, "output %s exists and is not a regular file", it->path);
    if (!may_exist) {
        fkm_fail(e, FKM_EFILE, "output %s exists", it->path);
        return fkm_hint(e, "replace it with -f, or choose another name with -o");
    }
    return FKM_OK;
}

/* Two outputs, one file? Directories are compared as inodes, names as text. */
static fkm_status check_distinct(const fkm_outputs *o, fkm_err *e)
{
    struct stat a, b;
    for (int i = 0; i < o->all; i++)
        for (int j = 0; j < i; j++)
            if (!strcmp(o->items[i].name, o->items[j].name) && stat(o->items[i].dir, &a) == 0 &&
                stat(o->items[j].dir, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
                return fkm_fail(e, FKM_EFILE, "outputs %s and %s are the same file",
                    o->items[j].path, o->items[i].path);
    return FKM_OK;
}

/* Old and new exist side by side until the end, so what -f replaces gives no room. The state is
 * there twice for moments before the outputs are, and once beside them. */
static fkm_status check_space(const fkm_outputs *o, fkm_err *e)
{
    for (int i = 0; i < o->all; i++) {
        struct stat here, there;
        int64_t needed = 0, available = fkm_free_space(o->items[i].target);
        if (available < 0 || stat(o->items[i].dir, &here) != 0)
            continue;
        for (int j = 0; j < o->all; j++)
            if (stat(o->items[j].dir, &there) == 0 && there.st_dev == here.st_dev)
                needed = fkm_add_sat(needed, o->items[j].bytes);
        if (needed > available) {
            char need[32], have[32];
            fkm_fail(e, FKM_EFILE, "not enough space in %s: the outputs need %s, %s are free",
                o->items[i].dir, fkm_bytes_text(need, sizeof need, needed),
                fkm_bytes_text(have, sizeof have, available));
            return fkm_hint(e, "make room, or write elsewhere with -o%s",
                o->all > o->count ? "; --checkpoint off needs less" : "");
        }
    }
    return FKM_OK;
}

static fkm_status check_all(fkm_outputs *o, const fkm_outputs_spec *spec, fkm_err *e)
{
    for (int i = 0; i < o->all; i++)
        FKM_TRY(check_target(&o->items[i], spec, spec->force || i == o->count, e));
    FKM_TRY(check_distinct(o, e));
    return check_space(o, e);
}

fkm_status fkm_outputs_open(fkm_outputs **out, const fkm_outputs_spec *spec, fkm_err *e)
{
    fkm_status st = FKM_OK;
    fkm_outputs *o = NULL;
    FKM_TRY(fkm_calloc(&o, 1, sizeof *o, "the outputs", e));
    o->count = spec->count;
    o->all = spec->count + (spec->state != NULL);
    o->force = spec->force;
    FKM_GO(take_lock(o, spec->lock_name, e));
    for (int i = 0; i < o->all; i++) {
        struct item *it = &o->items[i];
        it->bytes = i < o->count ? spec->bytes[i] : spec->state_bytes;
        FKM_GO(fkm_strdup(&it->path, i < o->count ? spec->paths[i] : spec->state, e));
        FKM_GO(resolve(it, e));
        FKM_GO(check_name(it->path, it->name, e));
        FKM_GO(check_directory(it->dir, e));
    }
    if (!spec->look_only)
        clean_up_after_kill(o);
    if (spec->prepare)
        FKM_GO(spec->prepare(spec->arg, &o->key, e));
    find_complete(o);
    if (!o->complete)
        FKM_GO(check_all(o, spec, e));
    *out = o;
    return FKM_OK;
out:
    fkm_outputs_close(o);
    return st;
}

bool fkm_outputs_are_complete(const fkm_outputs *o)
{
    return o->complete;
}

/* ---- writing ---- */

fkm_status fkm_outputs_rehearse(
    fkm_outputs *o, int i, const char *format, const fkm_array_spec *first, fkm_err *e)
{
    fkm_writer *w = NULL;
    FKM_TRY(fkm_writer_open(&w, o->items[i].path, format, e));
    fkm_status st = fkm_writer_array(w, first, e);
    fkm_writer_close(w);
    return st;
}

fkm_status fkm_outputs_writer(fkm_outputs *o, int i, const char *format, fkm_writer **w, fkm_err *e)
{
    FKM_TRY(fkm_writer_open(&o->items[i].writer, o->items[i].path, format, e));
    *w = o->items[i].writer;
    return FKM_OK;
}

fkm_status fkm_outputs_file(fkm_outputs *o, int i, fkm_outfile **f, fkm_err *e)
{
    FKM_TRY(fkm_outfile_create(&o->items[i].file, o->items[i].path, e));
    *f = o->items[i].file;
    return FKM_OK;
}

/* ---- publishing ---- */

/* Step 2 of output.h. */
static fkm_status note_exchange(fkm_outputs *o, fkm_err *e)
{
    fkm_exchange *x = &o->exchange;
    struct stat s;
    x->count = o->count;
    FKM_TRY(fkm_strdup(&x->key, o->key ? o->key : "", e));
    if (o->all > o->count)
        FKM_TRY(fkm_path_absolute(&x->state, o->items[o->count].target, e));
    else
        FKM_TRY(fkm_strdup(&x->state, "", e));
    for (int i = 0; i < o->count; i++) {
        struct item *it = &o->items[i];
        fkm_exchange_file *f = &x->files[i];
        char *path;
        FKM_TRY(fkm_path_absolute(&path, it->target, e));
        fkm_status st = split(&f->dir, &f->name, path, e);
        fkm_free(path);
        FKM_TRY(st);
        FKM_TRY(look(&f->existed, &s, lstat, it->target, e));
        f->bytes = it->writer ? fkm_writer_bytes(it->writer) : fkm_outfile_bytes(it->file);
        f->crc32c = it->writer ? fkm_writer_crc32c(it->writer) : fkm_outfile_crc32c(it->file);
    }
    return fkm_exchange_write(x, e);
}

/* Somebody may have created a final name during the work. */
static fkm_status check_still_free(const fkm_outputs *o, fkm_err *e)
{
    struct stat s;
    for (int i = 0; i < o->count; i++) {
        bool there = false;
        if (!o->items[i].existed && !o->force)
            FKM_TRY(look(&there, &s, lstat, o->items[i].target, e));
        if (there) {
            fkm_fail(e, FKM_EFILE, "output %s was created by another program meanwhile",
                o->items[i].path);
            return fkm_hint(e, "nothing was written; replace it with -f, or use other names");
        }
    }
    return FKM_OK;
}

/* Steps 3 and 4 of output.h. */
static fkm_status set_aside(fkm_outputs *o, fkm_err *e)
{
    for (int i = 0; i < o->count; i++) {
        struct item *it = &o->items[i];
        struct stat s;
        FKM_TRY(look(&it->existed, &s, lstat, it->target, e));
        if (!it->existed)
            continue;
        bool marker = i == o->count - 1;
        int rc = marker ? rename(it->target, it->backup) : link(it->target, it->backup);
        it->backed_up = rc == 0;
        if (rc != 0 && marker)
            return fkm_fail(e, FKM_EFILE, "cannot set aside %s: %s", it->path, strerror(errno));
        if (rc != 0) /* a file system without hard links: replaced all the same */
            fkm_verbose("cannot keep a copy of %s until the end: %s", it->path, strerror(errno));
        if (marker)
            FKM_TRY(fkm_sync_directory(it->dir, e));
    }
    return FKM_OK;
}

static fkm_status publish_item(struct item *it, fkm_err *e)
{
    it->attempted = true;
    return it->writer ? fkm_writer_publish(it->writer, e) : fkm_outfile_publish(it->file, e);
}

/* Undoes one output; false when the earlier content is lost. An attempt may fail after its rename.
 */
static bool put_back(struct item *it)
{
    if (it->backed_up) {
        bool back = rename(it->backup, it->target) == 0;
        if (back)
            unlink(it->backup); /* rename does nothing between two names of one file */
        return back;
    }
    if (it->attempted && !it->existed)
        unlink(it->target);
    return !it->attempted || !it->existed;
}

/* The record stays if something could not be put back: the next run tries again. */
static void roll_back(fkm_outputs *o)
{
    bool all = true;
    for (int i = 0; i < o->count; i++) {
        struct item *it = &o->items[i];
        if (i < o->count - 1 || all)
            all = put_back(it) && all;
        else
            fkm_warn("%s was removed: it no longer describes the files beside it", it->path);
    }
    if (!all)
        fkm_exchange_free(&o->exchange);
}

/* The record stays if one could not be removed: the next run tries again. */
static void drop_backups(fkm_outputs *o)
{
    bool all = true;
    for (int i = o->count - 1; i >= 0; i--)
        if (o->items[i].backed_up)
            all = unlink(o->items[i].backup) == 0 && all;
    if (!all)
        fkm_exchange_free(&o->exchange);
}

fkm_status fkm_outputs_publish(fkm_outputs *o, fkm_err *e)
{
    for (int i = 0; i < o->count; i++)
        if (!o->items[i].writer && !o->items[i].file)
            return fkm_fail(e, FKM_EBUG, "output %s was not written", o->items[i].path);
    FKM_TRY(check_still_free(o, e));
    fkm_status st = o->count > 1 ? note_exchange(o, e) : FKM_OK;
    if (st == FKM_OK && o->count > 1)
        st = set_aside(o, e);
    for (int i = 0; st == FKM_OK && i < o->count; i++)
        st = publish_item(&o->items[i], e);
    if (st != FKM_OK) {
        roll_back(o);
        return st;
    }
    drop_backups(o);
    if (o->all > o->count)
        unlink(o->items[o->count].target); /* the run is complete: nothing to go on with */
    return FKM_OK;
}

void fkm_outputs_close(fkm_outputs *o)
{
    if (!o)
        return;
    for (int i = 0; i < o->all; i++) {
        struct item *it = &o->items[i];
        fkm_writer_close(it->writer);
        fkm_outfile_close(it->file);
        fkm_free(it->path);
        fkm_free(it->dir);
        fkm_free(it->name);
        fkm_free(it->target);
        fkm_free(it->backup);
    }
    fkm_lock_release(&o->lock);
    if (o->exchange.record)
        unlink(o->exchange
                   .record); /* the very last: what a kill up to here leaves is known to be whole */
    fkm_exchange_free(&o->exchange);
    fkm_free(o);
}
