/* Reads by O_DIRECT: see direct.h. */
#include "direct.h"

#include "mem.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BUFFER_BYTES ((int64_t)4 << 20)
#define ALIGNMENT ((int64_t)4096) /* of offsets and lengths; of any storage with such reads */

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

/* Where the aligned bytes that hold offset begin in the buffer; -1: an error. *held: how many are
 * there. */
static int64_t fill(fkm_direct *d, int64_t offset, size_t len, int64_t *held)
{
    int64_t begin = offset / ALIGNMENT * ALIGNMENT;
    int64_t want = BUFFER_BYTES;
    if ((int64_t)len < BUFFER_BYTES - (offset - begin))
        want = (offset - begin + (int64_t)len + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    do
        *held = pread(d->fd, d->buffer, (size_t)want, begin);
    while (*held < 0 && errno == EINTR);
    if (*held < 0)
        atomic_store(&d->refused, true);
    return *held < 0 ? -1 : offset - begin;
}

size_t fkm_direct_read(fkm_direct *d, int64_t offset, void *dst, size_t len)
{
    size_t done = 0;
    if (atomic_load(&d->refused) || pthread_mutex_trylock(&d->busy) != 0)
        return 0;
    while (done < len) {
        int64_t held, at = fill(d, offset + (int64_t)done, len - done, &held);
        if (at < 0 || held <= at)
            break;
        size_t some = (size_t)(held - at) < len - done ? (size_t)(held - at) : len - done;
        memcpy((char *)dst + done, d->buffer + at, some);
        done += some;
        if (held % ALIGNMENT != 0)
            break; /* the end of the file */
    }
    pthread_mutex_unlock(&d->busy);
    return done;
}
