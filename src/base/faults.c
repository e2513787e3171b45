/* The fault layer: system calls and allocations that fail when the environment says so. It is
 * compiled into CONFIG=faults alone; there is nothing of it in any other build.
 *
 * The program itself defines open, malloc, rename ... under their own names, so the dynamic linker
 * gives these to every caller, the libraries that fkm loads included; each passes the call on
 * unless its turn to fail has come. Calls by fkm, HDF5 and cJSON are counted, those that libc, the
 * loader or a sanitizer make for themselves are not. scripts/check-layers sees to it that no system
 * call is used that is not here.
 *
 *   FKM_FAULT=N      call N fails            FKM_FAULT=N+  it and all later ones of its class fail
 *   FKM_FAULT=N~     call N, a read or write, transfers half of what it was asked for
 *   FKM_FAULT=N!     the process is killed (SIGKILL) when it comes to call N
 *   FKM_FAULT=trace  nothing fails; every call is noted
 *   FKM_FAULT_LOG=FILE  gets a line for what was done: "N CALL CLASS ERRNO OFFSET", OFFSET being
 * the caller's address in the program (for addr2line), or 0 and the name of the library.
 *
 * Classes: memory, read, write (also create and rename), remove, other. */
#ifndef FKM_FAULTS
#error "faults.c belongs to CONFIG=faults"
#endif

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_DEPTH 12
#define EXPORT __attribute__((visibility("default")))

typedef enum { MEMORY, READ, WRITE, REMOVE, OTHER } call_class;
typedef enum { OFF, ONCE, FOR_GOOD, SHORT, KILL, TRACE } fault_mode;

static const char *const class_names[] = {"memory", "read", "write", "remove", "other"};

static fault_mode g_mode;
static long g_when;
static int g_log = -1;
static atomic_long g_calls;
static atomic_int g_failing = -1; /* the class that fails for good, once it does */

__attribute__((constructor)) static void read_settings(void)
{
    const char *fault = getenv("FKM_FAULT"), *log = getenv("FKM_FAULT_LOG");
    if (!fault)
        return;
    if (log)
        g_log = (int)syscall(
            SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);
    char *end;
    g_when = strtol(fault, &end, 10);
    if (!strcmp(fault, "trace"))
        g_mode = TRACE;
    else if (g_when > 0)
        g_mode = *end == '+' ? FOR_GOOD : *end == '~' ? SHORT : *end == '!' ? KILL : ONCE;
}

/* After main there is only libgcov, in builds for coverage, which does not bear it. */
__attribute__((destructor)) static void end(void)
{
    g_mode = OFF;
}

/* ---- who calls ---- */

extern const char __executable_start, etext;

static bool in_program(const void *site)
{
    return (const char *)site >= &__executable_start && (const char *)site < &etext;
}

/* "fkm", "hdf5", "cjson", or NULL for callers that do not count. HDF5 1.10 itself crashes when it
 * gets no memory (H5E__get_stack, H5F__close_cb and others use what they did not get): only its
 * system calls are made to fail. */
static const char *caller(const void *site, call_class class)
{
    if (in_program(site))
        return "fkm";
    Dl_info info;
    if (!dladdr(site, &info) || !info.dli_fname)
        return NULL;
    if (strstr(info.dli_fname, "cjson"))
        return "cjson";
    return class != MEMORY && strstr(info.dli_fname, "hdf5") ? "hdf5" : NULL;
}

/* Writes "hex,hex,..." of the calls that led here through the program, innermost first. The frames
 * are chained: the build has -fno-omit-frame-pointer. */
static void describe_stack(char *out, size_t cap, const void *site, const void *frame)
{
    size_t used = (size_t)snprintf(out, cap, "0");
    for (int depth = 0; in_program(site) && depth < MAX_DEPTH && used < cap - 20; depth++) {
        /* The call, not what follows it. */
        unsigned long offset = (unsigned long)((const char *)site - &__executable_start) - 1;
        used = depth ? used : 0;
        used += (size_t)snprintf(out + used, cap - used, depth ? ",%lx" : "%lx", offset);
        const void *const *link = frame;
        frame = link[0];
        site = frame ? ((const void *const *)frame)[1] : NULL;
    }
}

static void note(long n, const char *call, call_class class, int error, const char *where,
    const void *site, const void *frame)
{
    char stack[300], line[400];
    describe_stack(stack, sizeof stack, site, frame);
    int length = snprintf(line, sizeof line, "%ld %s %s %d %s %s\n", n, call, class_names[class],
        error, stack, where);
    if (g_log >= 0)
        (void)syscall(SYS_write, g_log, line, (size_t)length);
}

typedef enum { PASS, FAIL, HALVE } verdict;

/* What shall become of this call; error: as it is to fail. */
static verdict judge(
    const char *call, call_class class, int error, const void *site, const void *frame)
{
    int saved = errno;
    const char *where = g_mode == OFF ? NULL : caller(site, class);
    errno = saved;
    if (!where)
        return PASS;
    long n = atomic_fetch_add(&g_calls, 1) + 1;
    bool mine = g_mode != TRACE && n == g_when;
    bool again = g_mode == FOR_GOOD && atomic_load(&g_failing) == (int)class;
    if (mine && g_mode == FOR_GOOD)
        atomic_store(&g_failing, (int)class);
    if (mine || g_mode == TRACE)
        note(n, call, class, error, where, site, frame);
    if (mine && g_mode == KILL)
        (void)syscall(SYS_kill, getpid(), SIGKILL);
    errno = saved;
    if (mine && g_mode == SHORT)
        return HALVE;
    if (!mine && !again)
        return PASS;
    errno = error;
    return FAIL;
}

/* In a function that stands for a call: its caller, and its own frame. */
#define SITE __builtin_return_address(0), __builtin_frame_address(0)
#define FAILS(name, class, error) (judge(#name, class, error, SITE) == FAIL)

/* The next definition of a name: a sanitizer's or libc's. */
#define NEXT(name) ((__typeof__(&name))next_of(#name))

static void *next_of(const char *name)
{
    int saved = errno;
    void *p = dlsym(RTLD_NEXT, name);
    errno = saved;
    return p;
}

/* name(args) passed on, or `failed` with errno set. */
#define INTERPOSE(type, name, params, args, class, error, failed)                                  \
    EXPORT type name params                                                                        \
    {                                                                                              \
        return FAILS(name, class, error) ? (failed) : NEXT(name) args;                             \
    }

/* ---- memory. The sanitizer's entry points by name: dlsym is not ready when the loader calls ----
 */

extern void *__interceptor_malloc(size_t size);
extern void *__interceptor_calloc(size_t count, size_t size);
extern void *__interceptor_realloc(void *p, size_t size);
extern int __interceptor_posix_memalign(void **out, size_t align, size_t size);

EXPORT void *malloc(size_t size)
{
    return FAILS(malloc, MEMORY, ENOMEM) ? NULL : __interceptor_malloc(size);
}

EXPORT void *calloc(size_t count, size_t size)
{
    return FAILS(calloc, MEMORY, ENOMEM) ? NULL : __interceptor_calloc(count, size);
}

EXPORT void *realloc(void *p, size_t size)
{
    return FAILS(realloc, MEMORY, ENOMEM) ? NULL : __interceptor_realloc(p, size);
}

EXPORT int posix_memalign(void **out, size_t align, size_t size)
{
    return FAILS(posix_memalign, MEMORY, ENOMEM) ? ENOMEM
                                                 : __interceptor_posix_memalign(out, align, size);
}

INTERPOSE(char *, strdup, (const char *text), (text), MEMORY, ENOMEM, NULL)
INTERPOSE(int, madvise, (void *p, size_t len, int advice), (p, len, advice), OTHER, EINVAL, -1)

EXPORT int pthread_create(
    pthread_t *out, const pthread_attr_t *attributes, void *(*fn)(void *), void *arg)
{
    return FAILS(pthread_create, MEMORY, EAGAIN) ? EAGAIN
                                                 : NEXT(pthread_create)(out, attributes, fn, arg);
}

/* ---- opening and closing ---- */

EXPORT int open(const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    unsigned mode = flags & O_CREAT ? va_arg(ap, unsigned) : 0;
    va_end(ap);
    if (flags & O_CREAT)
        return FAILS(open, WRITE, ENOSPC) ? -1 : NEXT(open)(path, flags, mode);
    return FAILS(open, READ, EMFILE) ? -1 : NEXT(open)(path, flags);
}

INTERPOSE(int, mkstemp, (char *name), (name), WRITE, ENOSPC, -1)
INTERPOSE(int, mkostemp, (char *name, int flags), (name, flags), WRITE, ENOSPC, -1)
INTERPOSE(FILE *, fopen, (const char *path, const char *mode), (path, mode), READ, EMFILE, NULL)
INTERPOSE(DIR *, opendir, (const char *path), (path), READ, EMFILE, NULL)

/* With a message for dlerror. */
EXPORT void *dlopen(const char *path, int flags)
{
    return NEXT(dlopen)(FAILS(dlopen, READ, ENOENT) ? "no such library" : path, flags);
}

/* A close that fails has closed all the same. */
EXPORT int close(int fd)
{
    bool fails = FAILS(close, WRITE, EIO);
    int rc = NEXT(close)(fd);
    if (fails)
        errno = EIO;
    return fails ? -1 : rc;
}

EXPORT int fclose(FILE *f)
{
    bool fails = FAILS(fclose, WRITE, ENOSPC);
    int rc = NEXT(fclose)(f);
    if (fails)
        errno = ENOSPC;
    return fails ? EOF : rc;
}

/* ---- reading ---- */

EXPORT ssize_t read(int fd, void *p, size_t len)
{
    verdict v = judge("read", READ, EIO, SITE);
    return v == FAIL ? -1 : NEXT(read)(fd, p, v == HALVE && len > 1 ? len / 2 : len);
}

EXPORT ssize_t pread(int fd, void *p, size_t len, off_t at)
{
    verdict v = judge("pread", READ, EIO, SITE);
    return v == FAIL ? -1 : NEXT(pread)(fd, p, v == HALVE && len > 1 ? len / 2 : len, at);
}

INTERPOSE(struct dirent *, readdir, (DIR * dir), (dir), READ, EIO, NULL)
INTERPOSE(ssize_t, readlink, (const char *path, char *p, size_t len), (path, p, len), READ, EIO, -1)
INTERPOSE(char *, realpath, (const char *path, char *out), (path, out), READ, EIO, NULL)
INTERPOSE(off_t, lseek, (int fd, off_t at, int whence), (fd, at, whence), READ, EIO, -1)
INTERPOSE(int, stat, (const char *path, struct stat *s), (path, s), READ, EIO, -1)
INTERPOSE(int, lstat, (const char *path, struct stat *s), (path, s), READ, EIO, -1)
INTERPOSE(int, fstat, (int fd, struct stat *s), (fd, s), READ, EIO, -1)
INTERPOSE(int, access, (const char *path, int mode), (path, mode), READ, EIO, -1)
INTERPOSE(int, faccessat, (int dir, const char *path, int mode, int flags),
    (dir, path, mode, flags), READ, EIO, -1)
INTERPOSE(char *, fgets, (char *text, int cap, FILE *f), (text, cap, f), READ, EIO, NULL)
INTERPOSE(int, statvfs, (const char *path, struct statvfs *v), (path, v), OTHER, ENOSYS, -1)

/* ---- writing ---- */

EXPORT ssize_t write(int fd, const void *p, size_t len)
{
    verdict v = judge("write", WRITE, ENOSPC, SITE);
    return v == FAIL ? -1 : NEXT(write)(fd, p, v == HALVE && len > 1 ? len / 2 : len);
}

EXPORT ssize_t pwrite(int fd, const void *p, size_t len, off_t at)
{
    verdict v = judge("pwrite", WRITE, ENOSPC, SITE);
    return v == FAIL ? -1 : NEXT(pwrite)(fd, p, v == HALVE && len > 1 ? len / 2 : len, at);
}

INTERPOSE(int, fflush, (FILE * f), (f), WRITE, ENOSPC, EOF)
INTERPOSE(int, fsync, (int fd), (fd), WRITE, EIO, -1)
INTERPOSE(int, fdatasync, (int fd), (fd), WRITE, EIO, -1)
INTERPOSE(int, ftruncate, (int fd, off_t len), (fd, len), WRITE, ENOSPC, -1)
INTERPOSE(int, rename, (const char *from, const char *to), (from, to), WRITE, EIO, -1)
INTERPOSE(int, link, (const char *from, const char *to), (from, to), WRITE, EMLINK, -1)
INTERPOSE(int, flock, (int fd, int operation), (fd, operation), OTHER, ENOLCK, -1)
INTERPOSE(int, unlink, (const char *path), (path), REMOVE, EIO, -1)
INTERPOSE(
    int, unlinkat, (int dir, const char *path, int flags), (dir, path, flags), REMOVE, EIO, -1)

/* ---- the machine ---- */

EXPORT int posix_fadvise(int fd, off_t at, off_t len, int advice)
{
    return FAILS(posix_fadvise, OTHER, EINVAL) ? EINVAL : NEXT(posix_fadvise)(fd, at, len, advice);
}

EXPORT int fcntl(int fd, int command, ...)
{
    va_list ap;
    va_start(ap, command);
    void *arg = va_arg(ap, void *);
    va_end(ap);
    return FAILS(fcntl, READ, EMFILE) ? -1 : NEXT(fcntl)(fd, command, arg);
}

EXPORT int ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    va_start(ap, request);
    void *arg = va_arg(ap, void *);
    va_end(ap);
    return FAILS(ioctl, OTHER, ENOTTY) ? -1 : NEXT(ioctl)(fd, request, arg);
}

INTERPOSE(long, sysconf, (int name), (name), OTHER, EINVAL, -1)
INTERPOSE(
    int, getrlimit, (__rlimit_resource_t what, struct rlimit *out), (what, out), OTHER, EINVAL, -1)
INTERPOSE(int, setrlimit, (__rlimit_resource_t what, const struct rlimit *limit), (what, limit),
    OTHER, EPERM, -1)
INTERPOSE(int, getrusage, (__rusage_who_t who, struct rusage *out), (who, out), OTHER, EINVAL, -1)
INTERPOSE(int, sched_getaffinity, (pid_t pid, size_t size, cpu_set_t *set), (pid, size, set), OTHER,
    EINVAL, -1)
