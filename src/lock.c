/* The lock of a set of outputs: see lock.h. */
#include "lock.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sysinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEXT_BYTES 400 /* more than "PID SYSTEM HOST" takes */

typedef struct content {
    char text[TEXT_BYTES];
    ssize_t bytes;
} content;

static content read_content(int fd)
{
    content c = {.text = ""};
    c.bytes = pread(fd, c.text, sizeof c.text - 1, 0);
    return c;
}

/* Whether a run may have written that: a number, and words after it; or nothing yet. */
static bool is_of_a_run(const content *c)
{
    if (c->bytes < 0 || c->bytes >= TEXT_BYTES - 1 || (size_t)c->bytes != strlen(c->text))
        return false;
    size_t digits = strspn(c->text, "0123456789");
    const char *rest = c->text + digits;
    return c->bytes == 0 || (digits > 0 && (*rest == '\n' || *rest == ' ') &&
                                strcspn(c->text, "\n") + 1 == (size_t)c->bytes);
}

static fkm_status busy(int fd, const char *shown, fkm_err *e)
{
    content c = read_content(fd);
    char *end = c.text;
    long pid = is_of_a_run(&c) ? strtol(c.text, &end, 10) : 0;
    uint32_t system = pid > 0 && *end == ' ' ? (uint32_t)strtoul(end, &end, 16) : fkm_system_id();
    end[strcspn(end, "\n")] = '\0';
    if (pid <= 0)
        fkm_fail(e, FKM_EFILE, "%s: in use by another process", shown);
    else if (system != fkm_system_id() && *end == ' ')
        fkm_fail(e, FKM_EFILE, "%s: in use by pid %ld on%s, another machine or container", shown,
            pid, end);
    else
        fkm_fail(e, FKM_EFILE, "%s: in use by pid %ld", shown, pid);
    return fkm_hint(e, "wait until it is done, or choose other names with -o");
}

static fkm_status refuse(const char *path, const char *what, fkm_err *e)
{
    fkm_fail(e, FKM_EFILE, "%s: %s: not taken for the lock of a run", path, what);
    return fkm_hint(e, "if it is of no use, remove it; or choose another name with -o");
}

/* A file that was there: must be what a killed run left. dir: that it is in. */
static fkm_status check_hull(int fd, const char *path, const char *dir, fkm_err *e)
{
    struct stat s, d;
    char who[60];
    if (fstat(fd, &s) != 0 || stat(dir, &d) != 0)
        return fkm_fail(e, FKM_EFILE, "cannot look up %s: %s", path, strerror(errno));
    if (!S_ISREG(s.st_mode))
        return refuse(path, "is not a regular file", e);
    if (s.st_nlink > 1)
        return refuse(path, "is a file that has other names too", e);
    if (s.st_uid != geteuid() && s.st_uid != d.st_uid && s.st_uid != 0) {
        snprintf(who, sizeof who, "belongs to user %lu", (unsigned long)s.st_uid);
        return refuse(path, who, e);
    }
    content c = read_content(fd);
    return is_of_a_run(&c) ? FKM_OK : refuse(path, "has other content", e);
}

/* Whether path still names the file behind fd: its last owner removes it while holding the lock, so
 * a lock on an orphan keeps nobody out. */
static fkm_status is_named(bool *named, int fd, const char *path, fkm_err *e)
{
    struct stat a, b;
    *named = fstat(fd, &a) == 0 && lstat(path, &b) == 0;
    if (!*named && !fkm_is_absent(errno))
        return fkm_fail(e, FKM_EFILE, "cannot look up %s: %s", path, strerror(errno));
    *named = *named && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
    return FKM_OK;
}

typedef enum { HELD, BUSY, AGAIN, NO_LOCKS } outcome;

static outcome hold(int fd)
{
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return HELD;
    return errno == EWOULDBLOCK ? BUSY : errno == EINTR ? AGAIN : NO_LOCKS;
}

/* Removes a hull, so that a lock can be made in its place. What is in use, or no hull, is an error.
 */
static fkm_status clear(const fkm_lock *l, const char *dir, const char *shown, fkm_err *e)
{
    bool named = false;
    int fd = open(l->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 && (errno == EACCES || errno == EROFS))
        fd = open(l->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 && fkm_is_absent(errno))
        return FKM_OK; /* its owner has just removed it */
    if (fd < 0 && errno == ELOOP)
        return refuse(l->path, "is a symbolic link", e);
    if (fd < 0)
        return fkm_fail(e, FKM_EFILE, "cannot open %s: %s", l->path, strerror(errno));
    outcome lock = hold(fd);
    fkm_status st = lock == BUSY ? busy(fd, shown, e) : FKM_OK;
    if (st == FKM_OK && lock != AGAIN)
        st = is_named(&named, fd, l->path, e);
    if (st == FKM_OK && named)
        st = check_hull(fd, l->path, dir, e);
    if (st == FKM_OK && named && unlink(l->path) != 0 && !fkm_is_absent(errno))
        st = fkm_fail(e, FKM_EFILE, "cannot remove %s: %s", l->path, strerror(errno));
    close(fd);
    return st;
}

/* Who holds it: for messages. */
static void sign(int fd)
{
    char text[TEXT_BYTES];
    int len = snprintf(text, sizeof text, "%ld %08lx %s\n", (long)getpid(),
        (unsigned long)fkm_system_id(), fkm_host_name());
    if (pwrite(fd, text, (size_t)len, 0) != len)
        fkm_verbose("cannot note the process number in the lock: %s", strerror(errno));
}

/* One try: l->fd stays -1 when another is worth it. */
static fkm_status take_once(fkm_lock *l, const char *dir, const char *shown, fkm_err *e)
{
    bool named = false;
    int fd = open(l->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd < 0 && errno == EEXIST)
        return clear(l, dir, shown, e);
    if (fd < 0)
        return fkm_fail(e, FKM_EFILE, "cannot create %s: %s", l->path, strerror(errno));
    outcome lock = hold(fd);
    int error = errno;
    fkm_status st = FKM_OK;
    if (lock == HELD || lock == NO_LOCKS) /* BUSY: another run took it for a hull and removes it */
        st = is_named(&named, fd, l->path, e);
    if (!named) {
        close(fd);
        return st;
    }
    if (lock == NO_LOCKS)
        fkm_warn("cannot lock %s (%s): a second run with the same output would not be noticed",
            l->path, strerror(error));
    l->fd = fd;
    l->effective = lock == HELD;
    sign(fd);
    return FKM_OK;
}

fkm_status fkm_lock_take(
    fkm_lock *l, const char *dir, const char *name, const char *shown, fkm_err *e)
{
    fkm_status st = fkm_asprintf(&l->path, e, "%s/.%s.lock", dir, name);
    l->fd = -1;
    while (st == FKM_OK && l->fd < 0)
        st = take_once(l, dir, shown, e);
    if (st != FKM_OK) {
        fkm_free(l->path);
        l->path = NULL;
    }
    return st;
}

void fkm_lock_release(fkm_lock *l)
{
    if (!l->path)
        return;
    unlink(l->path); /* while it is held: see is_named */
    close(l->fd);
    fkm_free(l->path);
    l->path = NULL;
}
