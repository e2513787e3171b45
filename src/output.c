/* The outputs of a run: see output.h for the protocol and its reasons. */
#include "output.h"

#include "base/checked.h"
#include "base/log.h"
#include "base/mem.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_LINKS 40
#define DECORATION 20 /* longest "." and ".tmp.PID" round a name */

struct item {
    char *path;       /* as given */
    char *dir, *name; /* of the target: symbolic links in the last component followed */
    char *target;     /* dir/name */
    char *backup;     /* dir/.name.old.PID */
    int64_t bytes;
    bool existed, backed_up, attempted;
    fkm_writer *writer; /* one of the two, once started */
    fkm_outfile *file;
};

struct fkm_outputs {
    struct item items[FKM_OUTPUTS_MAX + 1];
    int count; /* outputs */
    int all;   /* and the state after them, if there is one */
    bool force;
    char *lock_path;
    int lock_fd;
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

/* One step from *path along a symbolic link in its last component; *moved tells. */
static fkm_status follow(char **path, bool *moved, fkm_err *e)
{
    char text[PATH_MAX];
    char *dir, *name, *next = NULL;
    ssize_t len = readlink(*path, text, sizeof text - 1);
    *moved = len >= 0;
    if (len < 0)
        return fkm_is_link_unknown(errno)
                   ? fkm_fail(e, FKM_EFILE, "%s: cannot tell whether it is a link: %s", *path,
                         strerror(errno))
                   : FKM_OK;
    text[len] = '\0';
    FKM_TRY(split(&dir, &name, *path, e));
    fkm_status st =
        text[0] == '/' ? fkm_strdup(&next, text, e) : fkm_asprintf(&next, e, "%s/%s", dir, text);
    fkm_free(dir);
    fkm_free(name);
    if (st != FKM_OK)
        return st;
    fkm_free(*path);
    *path = next;
    return FKM_OK;
}

/* Fills dir, name, target and backup from path. A link is kept: what it points at is replaced. */
static fkm_status resolve(struct item *it, fkm_err *e)
{
    bool moved = true;
    FKM_TRY(fkm_strdup(&it->target, it->path, e));
    for (int i = 0; moved; i++) {
        if (i == MAX_LINKS)
            return fkm_fail(e, FKM_EFILE, "%s: too many symbolic links", it->path);
        FKM_TRY(follow(&it->target, &moved, e));
    }
    FKM_TRY(split(&it->dir, &it->name, it->target, e));
    return fkm_asprintf(&it->backup, e, "%s/.%s.old.%ld", it->dir, it->name, (long)getpid());
}

static fkm_status check_name(const char *path, const char *name, fkm_err *e)
{
    if (name[0] == '\0' || !strcmp(name, ".") || !strcmp(name, "..")) {
        fkm_fail(e, FKM_EUSAGE, "output '%s' names a directory", path);
        return fkm_hint(e, "add a name: -o %s%sNAME", path, name[0] ? "/" : "");
    }
    if (strlen(name) + DECORATION > NAME_MAX) {
        fkm_fail(e, FKM_EFILE,
            "%s: the name has %zu bytes, more than the %d that leave room for "
            "temporary names",
            path, strlen(name), NAME_MAX - DECORATION);
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

/* ---- the lock ---- */

static fkm_status lock_busy(int fd, const char *name, fkm_err *e)
{
    char text[32] = "";
    ssize_t len = pread(fd, text, sizeof text - 1, 0);
    long pid = len > 0 ? strtol(text, NULL, 10) : 0;
    if (pid > 0)
        fkm_fail(e, FKM_EFILE, "%s: in use by pid %ld", name, pid);
    else
        fkm_fail(e, FKM_EFILE, "%s: in use by another process", name);
    return fkm_hint(e, "wait until it is done, or choose other names with -o");
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

/* Whether path still names the file behind fd: its last owner removes it while holding the lock, so
 * a lock on an orphan keeps nobody out. */
static fkm_status is_named(bool *named, int fd, const char *path, fkm_err *e)
{
    struct stat a, b;
    if (fstat(fd, &a) != 0)
        return fkm_fail(e, FKM_EFILE, "cannot look up %s: %s", path, strerror(errno));
    FKM_TRY(look(named, &b, stat, path, e));
    *named = *named && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
    return FKM_OK;
}

static void write_pid(int fd)
{
    char text[32];
    int len = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)len, 0) != len)
        fkm_verbose("cannot note the process number in the lock: %s", strerror(errno));
}

/* Takes the lock once; *fd = -1 when the file was removed meanwhile: try again. */
static fkm_status lock_once(int *fd, const char *path, const char *name, fkm_err *e)
{
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (*fd < 0)
        return fkm_fail(e, FKM_EFILE, "cannot create %s: %s", path, strerror(errno));
    fkm_status st = FKM_OK;
    if (flock(*fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK)
            st = lock_busy(*fd, name, e);
        else if (errno != EINTR)
            fkm_warn("cannot lock %s (%s): a second run with the same output would not be noticed",
                path, strerror(errno));
        if (errno == EINTR || st != FKM_OK) {
            close(*fd);
            *fd = -1;
        }
        return st;
    }
    bool named = false;
    st = is_named(&named, *fd, path, e);
    if (!named) {
        close(*fd);
        *fd = -1;
    }
    return st;
}

static fkm_status take_lock(fkm_outputs *o, const char *lock_name, fkm_err *e)
{
    char *dir, *name;
    FKM_TRY(split(&dir, &name, lock_name, e));
    fkm_status st = FKM_OK;
    FKM_GO(check_name(lock_name, name, e));
    FKM_GO(check_directory(dir, e));
    FKM_GO(fkm_asprintf(&o->lock_path, e, "%s/.%s.lock", dir, name));
    while (o->lock_fd < 0)
        FKM_GO(lock_once(&o->lock_fd, o->lock_path, lock_name, e));
    write_pid(o->lock_fd);
out:
    fkm_free(dir);
    fkm_free(name);
    return st;
}

/* ---- what a killed run left ---- */

/* Whether entry is ".NAME.KIND.PID" of a process that is gone. Our own number counts as gone: in a
 * container every run may have the same one, and we have not written anything yet. */
static bool is_stale(const char *entry, const char *name, const char *kind)
{
    size_t len = strlen(name), kind_len = strlen(kind);
    if (entry[0] != '.' || strncmp(entry + 1, name, len) != 0 ||
        strncmp(entry + 1 + len, kind, kind_len) != 0)
        return false;
    const char *digits = entry + 1 + len + kind_len;
    if (*digits == '\0' || strspn(digits, "0123456789") != strlen(digits) || strlen(digits) > 9)
        return false;
    pid_t pid = (pid_t)strtol(digits, NULL, 10);
    return pid == getpid() || (kill(pid, 0) != 0 && errno == ESRCH);
}

static void handle_stale(const struct item *it, const char *entry, bool restore)
{
    char *path;
    fkm_err e = {0};
    if (fkm_asprintf(&path, &e, "%s/%s", it->dir, entry) != FKM_OK)
        return;
    if (is_stale(entry, it->name, ".tmp.")) {
        if (unlink(path) == 0)
            fkm_verbose("removed %s, left by a run that was killed", path);
    } else if (is_stale(entry, it->name, ".old.")) {
        if (restore && rename(path, it->target) == 0)
            fkm_warn("restored %s: a run was killed while it replaced it", it->path);
        unlink(path);
    }
    fkm_free(path);
}

/* Whether dir/.NAME.KIND.PID is there. */
static bool has_leftover(const struct item *it, const char *kind, const char *pid)
{
    char *path;
    fkm_err e = {0};
    struct stat s;
    if (fkm_asprintf(&path, &e, "%s/.%s.%s.%s", it->dir, it->name, kind, pid) != FKM_OK)
        return true; /* when in doubt, nothing is removed */
    bool there = lstat(path, &s) == 0 || !fkm_is_absent(errno);
    fkm_free(path);
    return there;
}

/* Process pid was killed with a marker ready and not in place. An output whose temporary is gone by
 * then was renamed to its final name; without an .old there was none before. */
static void remove_uncommitted(fkm_outputs *o, const char *pid)
{
    for (int i = 0; i < o->count - 1; i++) {
        const struct item *it = &o->items[i];
        if (!has_leftover(it, "tmp", pid) && !has_leftover(it, "old", pid) &&
            unlink(it->target) == 0)
            fkm_verbose("removed %s, left by a run that was killed before it was done", it->path);
    }
}

static void find_uncommitted(fkm_outputs *o)
{
    const struct item *marker = &o->items[o->count - 1];
    DIR *dir = opendir(marker->dir);
    if (!dir)
        return;
    for (struct dirent *d; (d = readdir(dir));)
        if (is_stale(d->d_name, marker->name, ".tmp."))
            remove_uncommitted(o, strrchr(d->d_name, '.') + 1);
    closedir(dir);
}

/* See output.h: without a marker the killed run had not committed, so its .old files are the truth.
 */
static void clean_up_after_kill(fkm_outputs *o)
{
    struct stat s;
    bool restore =
        o->count > 1 && lstat(o->items[o->count - 1].target, &s) != 0 && fkm_is_absent(errno);
    if (restore)
        find_uncommitted(o);
    for (int i = 0; i < o->all; i++) {
        DIR *dir = opendir(o->items[i].dir);
        if (!dir)
            continue;
        for (struct dirent *d; (d = readdir(dir));)
            handle_stale(&o->items[i], d->d_name, restore && i < o->count);
        closedir(dir);
    }
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
    o->lock_fd = -1;
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
    FKM_GO(check_all(o, spec, e));
    *out = o;
    return FKM_OK;
out:
    fkm_outputs_close(o);
    return st;
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

static fkm_status sync_directory(const char *dir, fkm_err *e)
{
    fkm_status st = FKM_OK;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* EINVAL: a file system that has no such operation. */
    if (fd < 0 || (fsync(fd) != 0 && errno != EINVAL && errno != EROFS))
        st = fkm_fail(e, FKM_EFILE, "cannot sync directory %s: %s", dir, strerror(errno));
    if (fd >= 0)
        close(fd);
    return st;
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

/* Steps 2 and 3 of output.h. */
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
            FKM_TRY(sync_directory(it->dir, e));
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
}

static void drop_backups(fkm_outputs *o)
{
    for (int i = o->count - 1; i >= 0; i--)
        if (o->items[i].backed_up)
            unlink(o->items[i].backup);
}

fkm_status fkm_outputs_publish(fkm_outputs *o, fkm_err *e)
{
    for (int i = 0; i < o->count; i++)
        if (!o->items[i].writer && !o->items[i].file)
            return fkm_fail(e, FKM_EBUG, "output %s was not written", o->items[i].path);
    FKM_TRY(check_still_free(o, e));
    fkm_status st = o->count > 1 ? set_aside(o, e) : FKM_OK;
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
    if (o->lock_fd >= 0) {
        unlink(o->lock_path); /* while it is held: see is_named */
        close(o->lock_fd);
    }
    fkm_free(o->lock_path);
    fkm_free(o);
}
