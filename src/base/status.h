/* How anything fails. A return value says *that* something failed, fkm_err says *what*.
 *
 * Every fallible function returns fkm_status and takes an fkm_err last. The message is written
 * where the facts are (path, place, found, expected), context is prepended on the way up, and
 * `main` prints it once. Outputs of a failed function are untouched unless its header says
 * otherwise. */
#ifndef FKM_STATUS_H
#define FKM_STATUS_H

#define FKM_MUST_USE __attribute__((warn_unused_result))
#define FKM_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

typedef enum fkm_status {
    FKM_OK = 0,
    FKM_EBUG,     /* exit 1: an invariant of fkm itself is broken */
    FKM_EUSAGE,   /* exit 2: the command line */
    FKM_EDATA,    /* exit 3: the content of an input */
    FKM_EFILE,    /* exit 4: a file, a lock, an existing output */
    FKM_ENOMEM,   /* exit 5: memory, of the host or the device */
    FKM_EDEVICE,  /* exit 6: the GPU failed or is absent */
    FKM_ESTOPPED, /* exit 128+N: a signal asked to stop */
} fkm_status;

/* Caller-owned, usually on the stack; initialise with {0}; never passed as NULL. */
typedef struct fkm_err {
    fkm_status code;
    char msg[640];  /* one line of fact: lower case, no full stop */
    char hint[320]; /* one line of help, may be empty */
} fkm_err;

/* Sets code and message, clears the hint, returns code. */
fkm_status fkm_fail(fkm_err *e, fkm_status code, const char *fmt, ...) FKM_PRINTF(3, 4);

/* Adds the line of help; returns the error's code, so it can end a function. */
fkm_status fkm_hint(fkm_err *e, const char *fmt, ...) FKM_PRINTF(2, 3);

/* Prepends "context: "; keeps code and hint; returns the code. */
fkm_status fkm_wrap(fkm_err *e, const char *fmt, ...) FKM_PRINTF(2, 3);

/* For scripts/analyze: these never return FKM_OK, which an analyser of one file cannot know. */
#ifdef FKM_ANALYSIS
#define fkm_fail(e, code, ...) ((void)fkm_fail(e, code, __VA_ARGS__), (code))
#define fkm_hint(...) ((void)fkm_hint(__VA_ARGS__), FKM_EBUG)
#define fkm_wrap(...) ((void)fkm_wrap(__VA_ARGS__), FKM_EBUG)
#endif

/* The exit code of a status, but for FKM_ESTOPPED, whose code depends on the signal. */
int fkm_exit_code(fkm_status s);

/* Forwarding: FKM_TRY only while nothing is held; FKM_GO needs `fkm_status st` and one `out:`. */
#define FKM_TRY(call)                                                                              \
    do {                                                                                           \
        fkm_status try_st_ = (call);                                                               \
        if (try_st_ != FKM_OK)                                                                     \
            return try_st_;                                                                        \
    } while (0)
#define FKM_GO(call)                                                                               \
    do {                                                                                           \
        st = (call);                                                                               \
        if (st != FKM_OK)                                                                          \
            goto out;                                                                              \
    } while (0)

#endif
