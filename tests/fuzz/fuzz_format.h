/* What the targets of file formats share: bytes in, a format's open and read over them.
 *
 * Files that open are read whole, into a buffer of exactly the promised size, so that
 * AddressSanitizer sees a byte too many. Sizes must match exactly, so small inputs cannot ask for
 * large buffers. */
#ifndef FUZZ_FORMAT_H
#define FUZZ_FORMAT_H

#include "../../formats/elements.h"
#include "../../formats/foreign.h"
#include "../../src/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A bug in a target's own assumptions is a finding too. */
#define FUZZ_CHECK(condition)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static inline fkm_file *fuzz_file(const uint8_t *data, size_t size, int *fd)
{
    char path[64];
    fkm_err e = {0};
    fkm_file *f = NULL;
    *fd = memfd_create("fuzz", MFD_CLOEXEC);
    FUZZ_CHECK(*fd >= 0 && write(*fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", *fd);
    FUZZ_CHECK(fkm_file_open(&f, path, &e) == FKM_OK);
    return f;
}

static inline void fuzz_read(const fkm_format *format, void *priv, fkm_file *f, const fkm_shape *s)
{
    static _Alignas(64) char scratch[FKM_SCRATCH_BYTES];
    fkm_err e = {0};
    int64_t rows = s->batch * s->rows;
    FUZZ_CHECK(s->batch >= 1 && s->rows >= 1 && s->dims >= 1 && (s->ndim == 2 || s->ndim == 3));
    size_t row = (size_t)s->dims * fkm_dtype_size(fkm_dtype_in_memory(s->dtype));
    /* 16-bit integers are the ones that grow. */
    FUZZ_CHECK(rows <= fkm_file_bytes(f) && (size_t)rows * row <= 2 * (size_t)fkm_file_bytes(f));
    char *x = malloc((size_t)rows * row), *last = malloc(row);
    fkm_status all = format->read(priv, f, 0, rows, x, scratch, &e);
    fkm_status end = format->read(priv, f, rows - 1, 1, last, scratch, &e);
    FUZZ_CHECK(all != FKM_OK || end == FKM_OK);
    FUZZ_CHECK(all != FKM_OK || !memcmp(x + (size_t)(rows - 1) * row, last, row));
    FUZZ_CHECK(all == FKM_OK || e.msg[0] != '\0' || end == FKM_OK);
    free(x);
    free(last);
}

/* Every outcome is a status with a message; nothing leaks. */
static inline void fuzz_open(const fkm_format *format, fkm_file *f, fkm_dtype dtype)
{
    fkm_err e = {0};
    fkm_shape shape = {0};
    fkm_format_options o = {.dtype = dtype};
    void *priv = calloc(1, format->priv_size);
    fkm_status st = format->open(priv, f, &o, &shape, &e);
    FUZZ_CHECK(st == FKM_OK || (e.code == st && e.msg[0] != '\0'));
    FUZZ_CHECK(st == FKM_OK || st == FKM_EDATA || st == FKM_EUSAGE);
    if (st == FKM_OK)
        fuzz_read(format, priv, f, &shape);
    if (format->close)
        format->close(priv);
    free(priv);
}

/* Probing is over bytes alone, so it is asked of every format, whatever the target. */
static inline void fuzz_probe(const uint8_t *data, size_t size)
{
    for (int i = 0; fkm_formats[i]; i++) {
        int score = fkm_formats[i]->probe(data, size, (int64_t)size, fkm_formats[i]->suffixes);
        FUZZ_CHECK(score >= 0 && score <= 100);
    }
    char *head = malloc(size + 1);
    memcpy(head, data, size);
    head[size] = '\0';
    static const char *const suffixes[] = {"", ".csv", ".npz", ".json"};
    for (int i = 0; i < 4; i++) {
        fkm_err e = {0};
        bool known = fkm_foreign("a.b", suffixes[i], head, size, &e);
        FUZZ_CHECK(known == (e.code == FKM_EDATA) && known == (e.hint[0] != '\0'));
    }
    free(head);
}

#endif
