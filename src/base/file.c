/* Files: see file.h. */
#include "file.h"

#include "checked.h"
#include "crc32c.h"
#include "direct.h"
#include "log.h"
#include "mem.h"
#include "sysinfo.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define SPOOL_BYTES ((size_t)1 << 18)        /* one read of a pipe */
#define WRITE_BUFFER_BYTES ((size_t)1 << 18) /* small writes are collected up to this */
#define IO_BYTES ((size_t)1 << 30)           /* most that one system call is asked for */
#define DIRECT_BYTES ((size_t)1 << 20)       /* least read that may pass the cache by */
#define MAX_SYMLINKS 40                      /* as the kernel's own limit */

static int64_t mtime_ns(const struct stat *s)
{
    return (int64_t)s->st_mtim.tv_sec * 1000000000 + s->st_mtim.tv_nsec;
}

static fkm_file_id identity(const struct stat *s)
{
    return (fkm_file_id){s->st_dev, s->st_ino, s->st_size, mtime_ns(s)};
}

/* Where the last component of path begins. */
static const char *last_component(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* *out = the directory part of path: "a/b" -> "a", "b" -> ".", "/b" -> "/". fkm_free. */
static fkm_status directory_of(char **out, const char *path, fkm_err *e)
{
    const char *name = last_component(path);
    if (name == path)
        return fkm_strdup(out, ".", e);
    int length = (int)(name - path) - 1;
    return length == 0 ? fkm_strdup(out, "/", e) : fkm_asprintf(out, e, "%.*s", length, path);
}

/* ---- inputs ---- */

struct fkm_file {
    char *path; /* as given, for messages; NULL name "-" becomes "standard input" */
    int fd;
    bool by_name; /* the bytes are those behind `path`, not a spooled copy or descriptor 0 */
    bool spooled;
    fkm_file_id id;
    fkm_direct *direct; /* NULL: all reads go through the kernel's cache */
};

static fkm_status spool_failed(fkm_err *e, const char *path, const char *dir)
{
    fkm_fail(e, FKM_EFILE, "%s: cannot keep a copy in %s: %s", path, dir, strerror(errno));
    return fkm_hint(
        e, "a pipe is copied to a temporary file first; set TMPDIR to a folder with room");
}

/* An unlinked temporary file: it goes away with its descriptor, even when the process is killed. */
static fkm_status open_spool(int *out, const char *path, const char *dir, fkm_err *e)
{
    char *name;
    FKM_TRY(fkm_asprintf(&name, e, "%s/fkm-spool-XXXXXX", dir));
    int fd = mkostemp(name, O_CLOEXEC);
    if (fd < 0) {
        fkm_status st = spool_failed(e, path, dir);
        fkm_free(name);
        return st;
    }
    unlink(name);
    fkm_free(name);
    *out = fd;
    return FKM_OK;
}

static bool write_all(int fd, const char *p, size_t len)
{
    while (len > 0) {
        ssize_t wrote = write(fd, p, len < IO_BYTES ? len : IO_BYTES);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return false;
        p += wrote;
        len -= (size_t)wrote;
    }
    return true;
}

static fkm_status copy_to_end(int to, int from, const char *path, const char *dir, fkm_err *e)
{
    char *buffer;
    FKM_TRY(fkm_alloc(&buffer, (int64_t)SPOOL_BYTES, 1, "copying a pipe", e));
    fkm_status st = FKM_OK;
    for (;;) {
        ssize_t got = read(from, buffer, SPOOL_BYTES);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            st = fkm_fail(e, FKM_EFILE, "%s: cannot read: %s", path, strerror(errno));
        else if (got > 0 && !write_all(to, buffer, (size_t)got))
            st = spool_failed(e, path, dir);
        if (got <= 0 || st != FKM_OK)
            break;
    }
    fkm_free(buffer);
    return st;
}

/* Replaces f->fd, which cannot seek, by a file with the same bytes. */
static fkm_status spool(fkm_file *f, fkm_err *e)
{
    const char *dir = getenv("TMPDIR");
    if (!dir || !*dir)
        dir = "/tmp";
    int fd = -1;
    FKM_TRY(open_spool(&fd, f->path, dir, e));
    fkm_status st = copy_to_end(fd, f->fd, f->path, dir, e);
    if (st != FKM_OK) {
        close(fd);
        return st;
    }
    close(f->fd);
    f->fd = fd;
    f->by_name = false;
    f->spooled = true;
    return FKM_OK;
}

#define DESCRIPTORS_A_FILE 3 /* its own, one past the cache, one of a library */
#define OTHER_DESCRIPTORS 64

void fkm_file_expect(int count)
{
    struct rlimit limit;
    const int64_t need = fkm_add_sat(OTHER_DESCRIPTORS, fkm_mul_sat(count, DESCRIPTORS_A_FILE));
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || (rlim_t)need <= limit.rlim_cur)
        return;
    limit.rlim_cur = (rlim_t)need < limit.rlim_max ? (rlim_t)need : limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

static fkm_status too_many_files(int error, fkm_err *e)
{
    struct rlimit limit;
    if (error == ENFILE || getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return fkm_hint(e, "all programs together have too many open");
    return fkm_hint(e,
        "%llu files may be open at once, the hard limit: have it raised (ulimit -Hn), or join "
        "some of the files",
        (unsigned long long)limit.rlim_cur);
}

static fkm_status open_descriptor(fkm_file *f, const char *path, fkm_err *e)
{
    if (!f->by_name) {
        f->fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
        if (f->fd < 0)
            return fkm_fail(e, FKM_EFILE, "standard input: cannot read: %s", strerror(errno));
        return FKM_OK;
    }
    do {
        f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    } while (f->fd < 0 && errno == EINTR);
    if (f->fd >= 0)
        return FKM_OK;
    int error = errno;
    fkm_fail(e, FKM_EFILE, "%s: cannot open: %s", path, strerror(error));
    if (error == ENOENT)
        return fkm_hint(e, "there is no file of that name; relative names start at the working "
                           "directory");
    if (error == EMFILE || error == ENFILE)
        return too_many_files(error, e);
    return FKM_EFILE;
}

/* Says what a thing is that is neither a file nor a pipe; FKM_OK when it can be read as a stream.
 */
static fkm_status refuse_special(const fkm_file *f, const struct stat *s, fkm_err *e)
{
    if (S_ISDIR(s->st_mode)) {
        fkm_fail(e, FKM_EFILE, "%s: is a directory", f->path);
        return fkm_hint(e, "name the files in it: %s/*.npy", f->by_name ? f->path : ".");
    }
    if (S_ISBLK(s->st_mode)) {
        fkm_fail(e, FKM_EFILE, "%s: is a block device, not a file", f->path);
        return fkm_hint(e, "copy its content to a file first");
    }
    if (S_ISCHR(s->st_mode) && isatty(f->fd)) {
        fkm_fail(e, FKM_EFILE, "%s: is a terminal", f->path);
        return fkm_hint(e, "redirect a file or a pipe to it: < data.npy");
    }
    if (S_ISCHR(s->st_mode) && f->by_name)
        return fkm_fail(e, FKM_EFILE, "%s: is a character device, not a file", f->path);
    return FKM_OK;
}

static fkm_status examine(fkm_file *f, fkm_err *e)
{
    struct stat s;
    if (fstat(f->fd, &s) != 0)
        return fkm_fail(e, FKM_EFILE, "%s: cannot read its size: %s", f->path, strerror(errno));
    /* A shell may hand over a regular file from which something has already been read. */
    bool whole = S_ISREG(s.st_mode) && (f->by_name || lseek(f->fd, 0, SEEK_CUR) == 0);
    if (!whole) {
        FKM_TRY(refuse_special(f, &s, e));
        FKM_TRY(spool(f, e));
        if (fstat(f->fd, &s) != 0)
            return fkm_fail(e, FKM_EFILE, "%s: cannot read its size: %s", f->path, strerror(errno));
    }
    f->id = identity(&s);
    (void)posix_fadvise(f->fd, 0, 0, POSIX_FADV_SEQUENTIAL); /* a hint: more reading ahead */
    return FKM_OK;
}

fkm_status fkm_file_open(fkm_file **out, const char *path, fkm_err *e)
{
    fkm_status st = FKM_OK;
    fkm_file *f = NULL;
    FKM_TRY(fkm_calloc(&f, 1, sizeof *f, "an open file", e));
    f->fd = -1;
    f->by_name = strcmp(path, "-") != 0;
    FKM_GO(fkm_strdup(&f->path, f->by_name ? path : "standard input", e));
    FKM_GO(open_descriptor(f, path, e));
    FKM_GO(examine(f, e));
    if (f->id.bytes > fkm_memory_available())
        fkm_file_uncached(f);
    *out = f;
    return FKM_OK;
out:
    fkm_file_close(f);
    return st;
}

void fkm_file_close(fkm_file *f)
{
    if (!f)
        return;
    fkm_direct_close(f->direct);
    if (f->fd >= 0)
        close(f->fd);
    fkm_free(f->path);
    fkm_free(f);
}

void fkm_file_uncached(fkm_file *f)
{
    if (!f->direct)
        f->direct = fkm_direct_open(f->fd);
}

bool fkm_file_is_uncached(const fkm_file *f)
{
    return f->direct != NULL;
}

bool fkm_file_was_pipe(const fkm_file *f)
{
    return f->spooled;
}

const char *fkm_file_path(const fkm_file *f)
{
    return f->path;
}

int64_t fkm_file_bytes(const fkm_file *f)
{
    return f->id.bytes;
}

const fkm_file_id *fkm_file_identity(const fkm_file *f)
{
    return &f->id;
}

int fkm_file_descriptor(const fkm_file *f)
{
    return f->fd;
}

fkm_status fkm_file_read(fkm_file *f, int64_t offset, void *dst, size_t len, fkm_err *e)
{
    char *p = dst;
    if (f->direct && len >= DIRECT_BYTES) {
        size_t done = fkm_direct_read(f->direct, offset, p, len);
        p += done;
        offset += (int64_t)done;
        len -= done;
    }
    while (len > 0) {
        ssize_t got = pread(f->fd, p, len < IO_BYTES ? len : IO_BYTES, offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fkm_fail(e, FKM_EFILE, "%s: cannot read %zu bytes at byte %lld: %s", f->path,
                len, (long long)offset, strerror(errno));
        if (got == 0) {
            fkm_fail(e, FKM_EDATA,
                "%s: file is shorter than when it was opened: ends at byte %lld, had %lld bytes",
                f->path, (long long)offset, (long long)f->id.bytes);
            return fkm_hint(e, "another program is changing it; run again when that is done");
        }
        p += got;
        offset += got;
        len -= (size_t)got;
    }
    return FKM_OK;
}

static fkm_status changed(const fkm_file *f, fkm_err *e, const char *what)
{
    fkm_fail(e, FKM_EDATA, "%s: changed while it was being read: %s", f->path, what);
    return fkm_hint(e, "the result would mix two files; run again when nothing writes to it");
}

static fkm_status compare_identity(const fkm_file *f, const struct stat *s, fkm_err *e)
{
    char text[120];
    fkm_file_id now = identity(s);
    if (now.dev != f->id.dev || now.ino != f->id.ino)
        return changed(f, e, "another file has taken its name");
    if (now.bytes != f->id.bytes) {
        snprintf(text, sizeof text, "it had %lld bytes, now %lld", (long long)f->id.bytes,
            (long long)now.bytes);
        return changed(f, e, text);
    }
    if (now.mtime_ns != f->id.mtime_ns)
        return changed(f, e, "its modification time is another one");
    return FKM_OK;
}

fkm_status fkm_file_unchanged(fkm_file *f, fkm_err *e)
{
    struct stat s;
    if (fstat(f->fd, &s) != 0)
        return fkm_fail(e, FKM_EFILE, "%s: cannot read its size: %s", f->path, strerror(errno));
    FKM_TRY(compare_identity(f, &s, e));
    if (!f->by_name)
        return FKM_OK;
    if (stat(f->path, &s) != 0) {
        if (fkm_is_absent(errno))
            return changed(f, e, strerror(errno));
        return fkm_fail(e, FKM_EFILE, "%s: cannot look it up: %s", f->path, strerror(errno));
    }
    return compare_identity(f, &s, e);
}

fkm_status fkm_file_slurp(char **out, const char *path, int64_t max_bytes, fkm_err *e)
{
    fkm_status st = FKM_OK;
    fkm_file *f = NULL;
    char *text = NULL;
    FKM_GO(fkm_file_open(&f, path, e));
    if (f->id.bytes > max_bytes) {
        st = fkm_fail(e, FKM_EDATA,
            "%s: has %lld bytes, more than the %lld that such a file may have", f->path,
            (long long)f->id.bytes, (long long)max_bytes);
        goto out;
    }
    FKM_GO(fkm_alloc(&text, f->id.bytes + 1, 1, f->path, e));
    FKM_GO(fkm_file_read(f, 0, text, (size_t)f->id.bytes, e));
    text[f->id.bytes] = '\0';
    *out = text;
    text = NULL;
out:
    fkm_free(text);
    fkm_file_close(f);
    return st;
}

/* ---- outputs ---- */

struct fkm_outfile {
    char *path;      /* as given */
    char *directory; /* of the target, symbolic links resolved */
    char *target;    /* what publish replaces */
    char *temporary; /* in the same directory, so that rename cannot cross file systems */
    int fd;
    int held;     /* keeps the lock once fd is closed; -1: none */
    char *buffer; /* [WRITE_BUFFER_BYTES], the last `used` bytes written */
    size_t used;
    int64_t bytes; /* written so far, buffered ones included */
    uint32_t crc;
    bool dirty; /* crc no longer describes the content: patched, or written by name */
    bool created, finished, published;
};

static fkm_status write_failed(const fkm_outfile *f, fkm_err *e, const char *what)
{
    int error = errno;
    fkm_fail(e, FKM_EFILE, "%s: cannot %s in %s: %s", f->path, what, f->directory, strerror(error));
    if (error == ENOSPC || error == EDQUOT)
        return fkm_hint(e, "make room, or write elsewhere with -o");
    if (error == ENOENT)
        return fkm_hint(e, "create the directory first");
    if (error == EFBIG)
        return fkm_hint(e, "the file size limit is too low: see 'ulimit -f'");
    return FKM_EFILE;
}

/* Links of the user's own and of root's are followed anywhere, as the kernel's own protection of
 * directories like /tmp has it; it does not cover readlink. */
static fkm_status check_link(const char *path, const char *dir, fkm_err *e)
{
    struct stat link, d;
    if (lstat(path, &link) != 0 || stat(dir, &d) != 0)
        return fkm_fail(e, FKM_EFILE, "cannot look up %s: %s", path, strerror(errno));
    if (link.st_uid == 0 || link.st_uid == geteuid() || !(d.st_mode & (S_IWOTH | S_ISVTX)))
        return FKM_OK;
    fkm_fail(e, FKM_EFILE,
        "%s: is a symbolic link of user %lu, in a directory where others may write", path,
        (unsigned long)link.st_uid);
    return fkm_hint(e, "name the file that it points at, if that is what you want");
}

/* *next = what the symbolic link `path` points at, as a path of its own; NULL when it is no link.
 */
static fkm_status follow_link(char **next, const char *path, fkm_err *e)
{
    char text[PATH_MAX];
    char *dir;
    ssize_t length = readlink(path, text, sizeof text - 1);
    *next = NULL;
    if (length < 0)
        return fkm_is_link_unknown(errno)
                   ? fkm_fail(e, FKM_EFILE, "%s: cannot tell whether it is a link: %s", path,
                         strerror(errno))
                   : FKM_OK;
    text[length] = '\0';
    FKM_TRY(directory_of(&dir, path, e));
    fkm_status st = check_link(path, dir, e);
    if (st == FKM_OK && text[0] == '/')
        st = fkm_strdup(next, text, e);
    else if (st == FKM_OK)
        st = fkm_asprintf(next, e, "%s/%s", dir, text);
    fkm_free(dir);
    return st;
}

fkm_status fkm_path_target(char **out, const char *path, fkm_err *e)
{
    char *name;
    FKM_TRY(fkm_strdup(&name, path, e));
    for (int i = 0; i < MAX_SYMLINKS; i++) {
        char *next;
        fkm_status st = follow_link(&next, name, e);
        if (st != FKM_OK || !next) {
            if (st == FKM_OK)
                *out = name;
            else
                fkm_free(name);
            return st;
        }
        fkm_free(name);
        name = next;
    }
    fkm_free(name);
    return fkm_fail(e, FKM_EFILE, "%s: too many symbolic links", path);
}

static fkm_status resolve_directory(char **out, const char *path, const char *name, fkm_err *e)
{
    char *dir;
    FKM_TRY(directory_of(&dir, name, e));
    char *real = realpath(dir, NULL);
    if (!real) {
        int error = errno;
        fkm_fail(e, FKM_EFILE, "%s: cannot write in %s: %s", path, dir, strerror(error));
        if (error == ENOENT)
            fkm_hint(e, "create the directory first");
        fkm_free(dir);
        return FKM_EFILE;
    }
    fkm_free(dir);
    fkm_status st = fkm_strdup(out, real, e);
    free(real);
    return st;
}

/* rename would put a plain file in the place of a device or fail on a directory, late. */
static fkm_status check_target(const fkm_outfile *f, fkm_err *e)
{
    struct stat s;
    if (stat(f->target, &s) != 0)
        return fkm_is_absent(errno) ? FKM_OK : write_failed(f, e, "look up a file");
    if (S_ISREG(s.st_mode))
        return FKM_OK;
    fkm_fail(e, FKM_EFILE, "%s: is %s", f->path,
        S_ISDIR(s.st_mode) ? "a directory" : "not a regular file");
    return fkm_hint(e, "outputs are written beside their final name and renamed: name a file");
}

static fkm_status resolve(fkm_outfile *f, fkm_err *e)
{
    fkm_status st = FKM_OK;
    char *name = NULL;
    FKM_GO(fkm_path_target(&name, f->path, e));
    const char *last = last_component(name);
    if (!*last || !strcmp(last, ".") || !strcmp(last, "..")) {
        fkm_fail(e, FKM_EFILE, "%s: is a directory", f->path);
        st = fkm_hint(e, "name a file in it");
        goto out;
    }
    FKM_GO(resolve_directory(&f->directory, f->path, name, e));
    const char *slash = strcmp(f->directory, "/") ? "/" : "";
    FKM_GO(fkm_asprintf(&f->target, e, "%s%s%s", f->directory, slash, last));
    FKM_GO(fkm_own_name(&f->temporary, f->directory, last, "tmp", e));
    FKM_GO(check_target(f, e));
out:
    fkm_free(name);
    return st;
}

fkm_status fkm_outfile_create(fkm_outfile **out, const char *path, fkm_err *e)
{
    fkm_status st = FKM_OK;
    fkm_outfile *f = NULL;
    FKM_TRY(fkm_calloc(&f, 1, sizeof *f, "an output file", e));
    f->fd = f->held = -1;
    FKM_GO(fkm_strdup(&f->path, path, e));
    FKM_GO(resolve(f, e));
    FKM_GO(fkm_alloc(&f->buffer, (int64_t)WRITE_BUFFER_BYTES, 1, "an output buffer", e));
    fkm_remove_leftovers(f->directory, last_component(f->target));
    f->fd = open(f->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (f->fd < 0) {
        st = write_failed(f, e, "create a file");
        goto out;
    }
    f->created = true;
    (void)flock(f->fd, LOCK_EX | LOCK_NB); /* without locks, other machines leave it alone */
    *out = f;
    return FKM_OK;
out:
    fkm_outfile_close(f);
    return st;
}

static fkm_status flush(fkm_outfile *f, fkm_err *e)
{
    if (f->used == 0)
        return FKM_OK;
    if (!write_all(f->fd, f->buffer, f->used))
        return write_failed(f, e, "write");
    f->used = 0;
    return FKM_OK;
}

fkm_status fkm_outfile_write(fkm_outfile *f, const void *data, size_t len, fkm_err *e)
{
    if (f->used + len > WRITE_BUFFER_BYTES)
        FKM_TRY(flush(f, e));
    if (len > WRITE_BUFFER_BYTES) {
        if (!write_all(f->fd, data, len))
            return write_failed(f, e, "write");
    } else if (len > 0) {
        memcpy(f->buffer + f->used, data, len);
        f->used += len;
    }
    f->crc = fkm_crc32c(f->crc, data, len);
    f->bytes += (int64_t)len;
    return FKM_OK;
}

fkm_status fkm_outfile_patch(
    fkm_outfile *f, int64_t offset, const void *data, size_t len, fkm_err *e)
{
    const char *p = data;
    if (offset < 0 || offset > f->bytes || (int64_t)len > f->bytes - offset)
        return fkm_fail(e, FKM_EBUG, "%s: patch of %zu bytes at byte %lld of %lld", f->path, len,
            (long long)offset, (long long)f->bytes);
    FKM_TRY(flush(f, e));
    f->dirty = true;
    while (len > 0) {
        ssize_t wrote = pwrite(f->fd, p, len < IO_BYTES ? len : IO_BYTES, offset);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return write_failed(f, e, "write");
        p += wrote;
        offset += wrote;
        len -= (size_t)wrote;
    }
    return FKM_OK;
}

const char *fkm_outfile_temporary(fkm_outfile *f)
{
    (void)flock(f->fd, LOCK_UN);
    return f->temporary;
}

fkm_status fkm_outfile_adopt(fkm_outfile *f, fkm_err *e)
{
    struct stat s;
    FKM_TRY(flush(f, e));
    (void)flock(f->fd, LOCK_EX | LOCK_NB);
    if (fstat(f->fd, &s) != 0)
        return write_failed(f, e, "read the size of a file");
    f->bytes = s.st_size;
    f->dirty = true;
    return FKM_OK;
}

/* The CRC of what is on disk. */
static fkm_status read_back(fkm_outfile *f, fkm_err *e)
{
    uint32_t crc = 0;
    for (int64_t at = 0; at < f->bytes;) {
        size_t want = (size_t)fkm_min_i64(f->bytes - at, (int64_t)WRITE_BUFFER_BYTES);
        ssize_t got = pread(f->fd, f->buffer, want, at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return write_failed(f, e, "read back");
        if (got == 0)
            return fkm_fail(e, FKM_EFILE,
                "%s: another program cut the temporary file %s at byte %lld", f->path, f->temporary,
                (long long)at);
        crc = fkm_crc32c(crc, f->buffer, (size_t)got);
        at += got;
    }
    f->crc = crc;
    f->dirty = false;
    return FKM_OK;
}

fkm_status fkm_outfile_finish(fkm_outfile *f, fkm_err *e)
{
    FKM_TRY(flush(f, e));
    if (f->dirty)
        FKM_TRY(read_back(f, e));
    /* Not retried: after a failed fsync the kernel may have dropped the pages and a second call
     * would report success for data that are gone. */
    if (fsync(f->fd) != 0)
        return write_failed(f, e, "store");
    int fd = f->fd;
    f->held = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    f->fd = -1;
    if (close(fd) != 0)
        return write_failed(f, e, "store");
    f->finished = true;
    return FKM_OK;
}

fkm_status fkm_sync_directory(const char *dir, fkm_err *e)
{
    fkm_status st = FKM_OK;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* Some network file systems have no such operation and say EINVAL: nothing more can be done. */
    if (fd < 0 || (fsync(fd) != 0 && errno != EINVAL && errno != EROFS))
        st = fkm_fail(e, FKM_EFILE, "cannot sync directory %s: %s", dir, strerror(errno));
    if (fd >= 0)
        close(fd);
    return st;
}

static void let_go(fkm_outfile *f)
{
    if (f->held >= 0)
        close(f->held);
    f->held = -1;
}

fkm_status fkm_outfile_publish(fkm_outfile *f, fkm_err *e)
{
    if (!f->finished)
        return fkm_fail(e, FKM_EBUG, "%s: published before it was finished", f->path);
    let_go(f); /* whoever opens the final name may want to lock it, as HDF5 does */
    if (rename(f->temporary, f->target) != 0)
        return write_failed(f, e, "rename a file");
    f->published = true;
    return fkm_sync_directory(f->directory, e);
}

const char *fkm_outfile_path(const fkm_outfile *f)
{
    return f->path;
}

int64_t fkm_outfile_bytes(const fkm_outfile *f)
{
    return f->bytes;
}

uint32_t fkm_outfile_crc32c(const fkm_outfile *f)
{
    return f->crc;
}

void fkm_outfile_close(fkm_outfile *f)
{
    if (!f)
        return;
    if (f->fd >= 0)
        close(f->fd);
    if (f->created && !f->published)
        (void)unlink(f->temporary);
    let_go(f);
    fkm_free(f->path);
    fkm_free(f->directory);
    fkm_free(f->target);
    fkm_free(f->temporary);
    fkm_free(f->buffer);
    fkm_free(f);
}

/* ---- files that go away with a run ---- */

fkm_status fkm_own_name(char **out, const char *dir, const char *name, const char *kind, fkm_err *e)
{
    return fkm_asprintf(out, e, "%s%s.%s.%s.%ld-%08lx", dir, strcmp(dir, "/") ? "/" : "", name,
        kind, (long)getpid(), (unsigned long)fkm_system_id());
}

fkm_owner fkm_owner_of(const char *entry, const char *name, const char *kind)
{
    size_t length = strlen(name), kind_length = strlen(kind);
    if (entry[0] != '.' || strncmp(entry + 1, name, length) != 0 || entry[1 + length] != '.' ||
        strncmp(entry + 2 + length, kind, kind_length) != 0 ||
        entry[2 + length + kind_length] != '.')
        return FKM_NOT_OWNED;
    const char *pid = entry + 3 + length + kind_length;
    size_t digits = strspn(pid, "0123456789");
    const char *system = pid + digits + 1;
    if (digits == 0 || digits > 9 || pid[digits] != '-' || strlen(system) != 8 ||
        strspn(system, "0123456789abcdef") != 8)
        return FKM_NOT_OWNED;
    if (strtoul(system, NULL, 16) != fkm_system_id())
        return FKM_OWNER_FOREIGN;
    long owner = strtol(pid, NULL, 10);
    if (owner == (long)getpid() || (kill((pid_t)owner, 0) != 0 && errno == ESRCH))
        return FKM_OWNER_GONE;
    return FKM_OWNER_LIVES;
}

/* A shared lock needs no right to write, and keeps no owner out that comes later. */
static bool is_held(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return true; /* when in doubt, nothing is removed */
    bool held = flock(fd, LOCK_SH | LOCK_NB) != 0;
    close(fd);
    return held;
}

/* Failing here is no error: creating will tell. */
void fkm_remove_leftovers(const char *dir, const char *name)
{
    fkm_err ignored = {0};
    DIR *d = opendir(dir);
    if (!d)
        return;
    for (struct dirent *entry; (entry = readdir(d));) {
        fkm_owner owner = fkm_owner_of(entry->d_name, name, "tmp");
        char *path;
        if ((owner != FKM_OWNER_GONE && owner != FKM_OWNER_FOREIGN) ||
            fkm_asprintf(&path, &ignored, "%s/%s", dir, entry->d_name) != FKM_OK)
            continue;
        if ((owner == FKM_OWNER_GONE || !is_held(path)) && unlink(path) == 0)
            fkm_verbose("removed %s, left by a run that was killed", path);
        fkm_free(path);
    }
    closedir(d);
}

/* ---- small helpers ---- */

bool fkm_path_exists(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 || !fkm_is_absent(errno);
}

bool fkm_is_absent(int error)
{
    return error == ENOENT || error == ENOTDIR;
}

/* A name that cannot be reached or is too long is no link either: what is done with it next fails
 * and says so better. */
bool fkm_is_link_unknown(int error)
{
    return error != EINVAL && !fkm_is_absent(error) && error != EACCES && error != ENAMETOOLONG;
}

int64_t fkm_free_space(const char *path)
{
    fkm_err ignored = {0};
    char *dir;
    struct statvfs v;
    if (directory_of(&dir, path, &ignored) != FKM_OK)
        return -1;
    int rc = statvfs(dir, &v);
    fkm_free(dir);
    if (rc != 0 || v.f_bavail > (uint64_t)INT64_MAX)
        return -1;
    return fkm_mul_sat((int64_t)v.f_bavail, (int64_t)v.f_frsize);
}

fkm_status fkm_path_absolute(char **out, const char *path, fkm_err *e)
{
    char *dir;
    FKM_TRY(directory_of(&dir, path, e));
    char *real = realpath(dir, NULL);
    fkm_status st =
        real ? fkm_asprintf(out, e, "%s/%s", strcmp(real, "/") ? real : "", last_component(path))
             : fkm_fail(e, FKM_EFILE, "cannot look up directory %s: %s", dir, strerror(errno));
    free(real);
    fkm_free(dir);
    return st;
}

const char *fkm_path_suffix(const char *path)
{
    const char *name = last_component(path);
    const char *dot = strrchr(name, '.');
    return dot && dot != name ? dot : "";
}

bool fkm_path_is_name(const char *path)
{
    return strcmp(path, "-") != 0 && strncmp(path, "/dev/", 5) != 0 &&
           strncmp(path, "/proc/", 6) != 0;
}

fkm_status fkm_path_base(char **out, const char *path, fkm_err *e)
{
    const char *name = last_component(path);
    int length = (int)(strlen(name) - strlen(fkm_path_suffix(path)));
    return fkm_asprintf(out, e, "%.*s", length, name);
}
