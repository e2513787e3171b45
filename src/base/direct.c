/* Reads by O_DIRECT: see direct.h. */
#include "direct.h"

#include "checked.h"
#include "mem.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ALIGNMENT FKM_DIRECT_ALIGNMENT
#define BUFFER_BYTES ((int64_t)4 << 20)
#define MOST_BYTES ((int64_t)1 << 30) /* that one system call is asked for */

struct fkm_direct {
    int fd;
    atomic_bool refused; /* after an error: left to ordinary reads for good */
    char *buffer;        /* [BUFFER_BYTES], aligned */
    pthread_mutex_t busy;
};

fkm_direct *fkm_direct_open(int fd)
{
    char path[40];
    fkm_err ignored = {0};
    fkm_direct *d = NULL;
    if (fkm_calloc(&d, 1, sizeof *d, "a file", &ignored) != FKM_OK)
        return NULL;
    pthread_mutex_init(&d->busy, NULL);
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    d->fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (d->fd >= 0 &&
        fkm_alloc(&d->buffer, BUFFER_BYTES, 1, "a reading buffer", &ignored) == FKM_OK)
        return d;
    fkm_direct_close(d);
    return NULL;
}

void fkm_direct_close(fkm_direct *d)
{
    if (!d)
        return;
    if (d->fd >= 0)
        close(d->fd);
    fkm_free(d->buffer);
    pthread_mutex_destroy(&d->busy);
    fkm_free(d);
}

/* All of it aligned. Returns how many bytes were read; -1: an error. */
static int64_t read_aligned(fkm_direct *d, void *dst, int64_t len, int64_t offset)
{
    int64_t got;
    do
        got = pread(d->fd, dst, (size_t)len, offset);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        atomic_store(&d->refused, true);
    return got;
}

/* Some bytes at offset, through the buffer. Returns how many; fewer than 1: no more can be had. */
static int64_t read_some(fkm_direct *d, int64_t offset, char *dst, int64_t len)
{
    const int64_t begin = offset / ALIGNMENT * ALIGNMENT, before = offset - begin;
    int64_t want = BUFFER_BYTES;
    if (len < BUFFER_BYTES - before)
        want = fkm_round_up(before + len, ALIGNMENT);
    const int64_t held = read_aligned(d, d->buffer, want, begin) - before;
    const int64_t some = held < len ? held : len;
    if (some > 0)
        memcpy(dst, d->buffer + before, (size_t)some);
    return some;
}

/* As many bytes as can be read to where they belong; 0: none can. */
static int64_t read_in_place(fkm_direct *d, int64_t offset, char *dst, int64_t len)
{
    const bool aligned = offset % ALIGNMENT == 0 && (uintptr_t)dst % ALIGNMENT == 0;
    const int64_t whole = fkm_min_i64(len, MOST_BYTES) / ALIGNMENT * ALIGNMENT;
    return aligned && whole > 0 ? read_aligned(d, dst, whole, offset) : 0;
}

/* Bytes that lie before the next boundary, if that is one in memory too; else all. */
static int64_t to_boundary(int64_t offset, const char *dst, int64_t len)
{
    const int64_t before = ALIGNMENT - offset % ALIGNMENT;
    const bool alike = (uintptr_t)dst % ALIGNMENT == (uintptr_t)(offset % ALIGNMENT);
    return alike && before < ALIGNMENT ? fkm_min_i64(before, len) : len;
}

size_t fkm_direct_read(fkm_direct *d, int64_t offset, void *dst, size_t len)
{
    size_t done = 0;
    if (atomic_load(&d->refused) || pthread_mutex_trylock(&d->busy) != 0)
        return 0;
    while (done < len) {
        char *to = (char *)dst + done;
        const int64_t at = offset + (int64_t)done, left = (int64_t)(len - done);
        int64_t got = read_in_place(d, at, to, left);
        if (got == 0)
            got = read_some(d, at, to, to_boundary(at, to, left));
        if (got <= 0)
            break;
        done += (size_t)got;
    }
    pthread_mutex_unlock(&d->busy);
    return done;
}
