/* Heap memory: see mem.h. */
#include "mem.h"

#include "checked.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Arrays of this size and more ask for huge pages: k-means walks them row by row in label order,
 * and with 4 KiB pages each row costs a TLB miss. */
#define HUGE_PAGE_BYTES ((size_t)2 << 20)

static fkm_status out_of_memory(fkm_err *e, const char *what, int64_t count, size_t size)
{
    char text[32];
    int64_t bytes = fkm_mul_sat(count, (int64_t)size);
    fkm_fail(e, FKM_ENOMEM, "no memory for %s: %s (%lld x %zu bytes)", what,
        fkm_bytes_text(text, sizeof text, bytes), (long long)count, size);
    return fkm_hint(e, "use a smaller --memory, fewer clusters, or a larger machine");
}

fkm_status fkm_alloc(void *out, int64_t count, size_t size, const char *what, fkm_err *e)
{
    size_t bytes;
    if (count < 0 || !fkm_mul_size(&bytes, (size_t)count, size) || bytes > (size_t)INT64_MAX - 4096)
        return out_of_memory(e, what, count, size);
    size_t align = bytes >= 2 * HUGE_PAGE_BYTES ? HUGE_PAGE_BYTES : 64;
    size_t rounded = (bytes + 63) / 64 * 64;
    void *p = NULL;
    if (posix_memalign(&p, align, rounded ? rounded : 64) != 0)
        return out_of_memory(e, what, count, size);
    if (align == HUGE_PAGE_BYTES)
        (void)madvise(p, rounded / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES, MADV_HUGEPAGE);
    memcpy(out, &p, sizeof p);
    return FKM_OK;
}

fkm_status fkm_calloc(void *out, int64_t count, size_t size, const char *what, fkm_err *e)
{
    void *p;
    FKM_TRY(fkm_alloc(&p, count, size, what, e));
    memset(p, 0, (size_t)count * size);
    memcpy(out, &p, sizeof p);
    return FKM_OK;
}

fkm_status fkm_strdup(char **out, const char *text, fkm_err *e)
{
    return fkm_asprintf(out, e, "%s", text);
}

fkm_status fkm_asprintf(char **out, fkm_err *e, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int length = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *text = NULL;
    fkm_status st = fkm_alloc(&text, (int64_t)length + 1, 1, "text", e);
    if (st == FKM_OK) {
        vsnprintf(text, (size_t)length + 1, fmt, again);
        *out = text;
    }
    va_end(again);
    return st;
}

void fkm_free(void *p)
{
    free(p);
}

const char *fkm_bytes_text(char *out, size_t cap, int64_t bytes)
{
    static const char *const unit[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    int u = 0;
    while (value >= 1024 && u < 6) {
        value /= 1024;
        u++;
    }
    snprintf(out, cap, u == 0 ? "%.0f %s" : "%.1f %s", value, unit[u]);
    return out;
}
