/* Error messages: see status.h. */
#include "status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

fkm_status fkm_fail(fkm_err *e, fkm_status code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    e->code = code;
    e->hint[0] = '\0';
    return code;
}

fkm_status fkm_hint(fkm_err *e, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->hint, sizeof e->hint, fmt, ap);
    va_end(ap);
    return e->code;
}

fkm_status fkm_wrap(fkm_err *e, const char *fmt, ...)
{
    char old[sizeof e->msg];
    memcpy(old, e->msg, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    int used = vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    size_t at = used < 0 ? 0 : (size_t)used;
    if (at + 2 < sizeof e->msg) { /* a cut message is still a message */
        size_t length = strlen(old), room = sizeof e->msg - at - 3;
        memcpy(e->msg + at, ": ", 2);
        memcpy(e->msg + at + 2, old, length < room ? length : room);
        e->msg[at + 2 + (length < room ? length : room)] = '\0';
    }
    return e->code;
}

int fkm_exit_code(fkm_status s)
{
    switch (s) {
    case FKM_OK:
        return 0;
    case FKM_EBUG:
        return 1;
    case FKM_EUSAGE:
        return 2;
    case FKM_EDATA:
        return 3;
    case FKM_EFILE:
        return 4;
    case FKM_ENOMEM:
        return 5;
    case FKM_EDEVICE:
        return 6;
    case FKM_ESTOPPED:
        return 75;
    }
    return 1;
}
