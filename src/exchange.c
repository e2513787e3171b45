/* The record of an exchange: see exchange.h. */
#include "exchange.h"

#include "base/checked.h"
#include "base/crc32c.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEAD "fkm exchange 1\n"
#define MOST_BYTES ((int64_t)64 << 20)
#define READ_BYTES ((int64_t)1 << 18)

void fkm_exchange_free(fkm_exchange *x)
{
    for (int i = 0; i < FKM_OUTPUTS_MAX; i++) {
        fkm_free(x->files[i].dir);
        fkm_free(x->files[i].name);
    }
    fkm_free(x->key);
    fkm_free(x->state);
    fkm_free(x->record);
    memset(x, 0, sizeof *x);
}

/* ---- the text: strings as "BYTES:...\n", numbers as "N\n", at last "CRC32C\n" of all before ----
 */

typedef struct text {
    char *at;
    size_t used, cap;
} text;

static void put_string(text *t, const char *s)
{
    t->used += (size_t)snprintf(t->at + t->used, t->cap - t->used, "%zu:%s\n", strlen(s), s);
}

static void put_number(text *t, int64_t v)
{
    t->used += (size_t)snprintf(t->at + t->used, t->cap - t->used, "%" PRId64 "\n", v);
}

static fkm_status compose(text *t, const fkm_exchange *x, fkm_err *e)
{
    t->cap = 1024 + strlen(x->key) + strlen(x->state);
    for (int i = 0; i < x->count; i++)
        t->cap += 128 + strlen(x->files[i].dir) + strlen(x->files[i].name);
    FKM_TRY(fkm_alloc(&t->at, (int64_t)t->cap, 1, "the record of the outputs", e));
    t->used = (size_t)snprintf(t->at, t->cap, HEAD);
    put_string(t, x->key);
    put_string(t, x->state);
    put_number(t, x->count);
    for (int i = 0; i < x->count; i++) {
        const fkm_exchange_file *f = &x->files[i];
        put_string(t, f->dir);
        put_string(t, f->name);
        put_number(t, f->bytes);
        put_number(t, f->crc32c);
        put_number(t, f->existed);
    }
    put_number(t, fkm_crc32c(0, t->at, t->used));
    return FKM_OK;
}

/* What remains to be read; at NULL: it is not as it should be. */
typedef struct cursor {
    const char *at, *end;
} cursor;

static int64_t get_number(cursor *c, char until, int64_t most)
{
    int64_t v = 0;
    const char *p = c->at;
    while (p && p < c->end && *p >= '0' && *p <= '9' && v <= most)
        v = 10 * v + (*p++ - '0');
    bool good = p && p > c->at && p < c->end && *p == until && v <= most;
    c->at = good ? p + 1 : NULL;
    return good ? v : 0;
}

static fkm_status get_string(char **out, cursor *c, fkm_err *e)
{
    int64_t len = get_number(c, ':', MOST_BYTES);
    if (!c->at || len >= c->end - c->at || c->at[len] != '\n' || memchr(c->at, '\0', (size_t)len)) {
        c->at = NULL;
        return fkm_strdup(out, "", e);
    }
    FKM_TRY(fkm_asprintf(out, e, "%.*s", (int)len, c->at));
    c->at += len + 1;
    return FKM_OK;
}

/* *good: it is whole. */
static fkm_status parse(fkm_exchange *x, bool *good, const char *s, size_t bytes, fkm_err *e)
{
    cursor c = {s, s + bytes};
    *good = !strncmp(s, HEAD, strlen(HEAD));
    if (!*good)
        return FKM_OK;
    c.at += strlen(HEAD);
    FKM_TRY(get_string(&x->key, &c, e));
    FKM_TRY(get_string(&x->state, &c, e));
    x->count = (int)get_number(&c, '\n', FKM_OUTPUTS_MAX);
    for (int i = 0; i < x->count; i++) {
        fkm_exchange_file *f = &x->files[i];
        FKM_TRY(get_string(&f->dir, &c, e));
        FKM_TRY(get_string(&f->name, &c, e));
        f->bytes = get_number(&c, '\n', INT64_MAX / 16);
        f->crc32c = (uint32_t)get_number(&c, '\n', UINT32_MAX);
        f->existed = get_number(&c, '\n', 1) == 1;
        *good = *good && f->dir[0] == '/' && f->name[0] && !strchr(f->name, '/');
    }
    uint32_t crc = c.at ? fkm_crc32c(0, s, (size_t)(c.at - s)) : 0;
    *good =
        *good && c.at && x->count > 0 && get_number(&c, '\n', UINT32_MAX) == crc && c.at == c.end;
    return FKM_OK;
}

/* ---- writing ---- */

static fkm_status failed(const char *path, const char *what, fkm_err *e)
{
    return fkm_fail(e, FKM_EFILE, "cannot %s %s: %s", what, path, strerror(errno));
}

static fkm_status store(int fd, const char *path, const text *t, fkm_err *e)
{
    for (size_t done = 0; done < t->used;) {
        ssize_t wrote = write(fd, t->at + done, t->used - done);
        if (wrote < 0 && errno != EINTR)
            return failed(path, "write", e);
        done += wrote > 0 ? (size_t)wrote : 0;
    }
    return fsync(fd) == 0 ? FKM_OK : failed(path, "store", e);
}

fkm_status fkm_exchange_write(fkm_exchange *x, fkm_err *e)
{
    const fkm_exchange_file *marker = &x->files[x->count - 1];
    text t = {NULL, 0, 0};
    char *path = NULL;
    int fd = -1;
    fkm_status st = FKM_OK;
    FKM_GO(compose(&t, x, e));
    FKM_GO(fkm_own_name(&path, marker->dir, marker->name, "set", e));
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        st = failed(path, "create", e);
        goto out;
    }
    x->record = path;
    path = NULL;
    FKM_GO(store(fd, x->record, &t, e));
    int whole = fd;
    fd = -1;
    if (close(whole) != 0)
        FKM_GO(failed(x->record, "store", e));
    FKM_GO(fkm_sync_directory(marker->dir, e));
out:
    if (fd >= 0)
        close(fd);
    fkm_free(t.at);
    fkm_free(path);
    return st;
}

/* ---- healing ---- */

/* Whether a file has the content that the exchange gave it. */
static fkm_status is_new(bool *same, const fkm_exchange_file *x, fkm_err *e)
{
    char *path = NULL, *buffer = NULL;
    fkm_file *f = NULL;
    uint32_t crc = 0;
    fkm_status st = FKM_OK;
    struct stat s;
    *same = false;
    FKM_GO(fkm_asprintf(&path, e, "%s/%s", x->dir, x->name));
    if (lstat(path, &s) != 0) {
        st = fkm_is_absent(errno) ? FKM_OK : failed(path, "look up", e);
        goto out;
    }
    if (!S_ISREG(s.st_mode) || s.st_size != x->bytes)
        goto out;
    FKM_GO(fkm_file_open(&f, path, e));
    FKM_GO(fkm_alloc(&buffer, READ_BYTES, 1, "a reading buffer", e));
    for (int64_t at = 0, n; at < x->bytes; at += n) {
        n = fkm_min_i64(READ_BYTES, x->bytes - at);
        FKM_GO(fkm_file_read(f, at, buffer, (size_t)n, e));
        crc = fkm_crc32c(crc, buffer, (size_t)n);
    }
    *same = crc == x->crc32c;
out:
    fkm_free(buffer);
    fkm_file_close(f);
    fkm_free(path);
    return st;
}

bool fkm_exchange_is_whole(const fkm_exchange *x)
{
    fkm_err ignored = {0};
    bool same = true;
    for (int i = 0; same && i < x->count; i++)
        same = is_new(&same, &x->files[i], &ignored) == FKM_OK && same;
    return same;
}

/* Names of one file, from the exchange of the owner "PID-SYSTEM". */
typedef struct names {
    char *final, *old, *tmp;
} names;

static void free_names(names *n)
{
    fkm_free(n->final);
    fkm_free(n->old);
    fkm_free(n->tmp);
}

static fkm_status name_all(names *n, const fkm_exchange_file *f, const char *owner, fkm_err *e)
{
    *n = (names){NULL, NULL, NULL};
    fkm_status st = fkm_asprintf(&n->final, e, "%s/%s", f->dir, f->name);
    if (st == FKM_OK)
        st = fkm_asprintf(&n->old, e, "%s/.%s.old.%s", f->dir, f->name, owner);
    if (st == FKM_OK)
        st = fkm_asprintf(&n->tmp, e, "%s/.%s.tmp.%s", f->dir, f->name, owner);
    return st;
}

static fkm_status put_back(const names *n, bool is_marker, fkm_err *e)
{
    if (rename(n->old, n->final) != 0)
        return failed(n->final, "put back", e);
    unlink(n->old); /* rename does nothing between two names of one file */
    if (is_marker)
        fkm_warn("restored %s: a run was killed while it replaced it", n->final);
    return FKM_OK;
}

/* Undoes the exchange of one file. *lost: what was there before is gone; the marker is then of no
 * use and goes, too. */
static fkm_status undo(
    const fkm_exchange_file *f, const names *n, bool is_marker, bool *lost, fkm_err *e)
{
    struct stat s;
    bool is_ours, aside = lstat(n->old, &s) == 0;
    if (!aside && !fkm_is_absent(errno))
        return failed(n->old, "look up", e);
    if (aside && !is_marker)
        return put_back(n, false, e);
    if (aside && lstat(n->final, &s) != 0 && !*lost)
        return fkm_is_absent(errno) ? put_back(n, true, e) : failed(n->final, "look up", e);
    if (aside)
        return unlink(n->old) == 0 ? FKM_OK : failed(n->old, "remove", e);
    FKM_TRY(is_new(&is_ours, f, e));
    *lost = *lost || (is_ours && f->existed);
    if (!is_ours || f->existed)
        return FKM_OK;
    if (unlink(n->final) != 0)
        return failed(n->final, "remove", e);
    fkm_verbose("removed %s, left by a run that was killed before it was done", n->final);
    return FKM_OK;
}

/* The new marker is in place: the rest of the exchange. */
static void complete(const fkm_exchange *x, const names *n)
{
    for (int i = x->count - 1; i >= 0; i--)
        unlink(n[i].old);
    if (x->state[0])
        unlink(x->state);
}

/* *done: the new marker is in place. */
static fkm_status heal(const fkm_exchange *x, bool *done, const char *owner, fkm_err *e)
{
    names n[FKM_OUTPUTS_MAX] = {{NULL, NULL, NULL}};
    fkm_status st = FKM_OK;
    bool lost = false;
    for (int i = 0; i < x->count; i++)
        FKM_GO(name_all(&n[i], &x->files[i], owner, e));
    FKM_GO(is_new(done, &x->files[x->count - 1], e));
    if (*done)
        complete(x, n);
    for (int i = 0; !*done && i < x->count; i++)
        FKM_GO(undo(&x->files[i], &n[i], i == x->count - 1, &lost, e));
    for (int i = 0; i < x->count; i++)
        unlink(n[i].tmp);
out:
    for (int i = 0; i < x->count; i++)
        free_names(&n[i]);
    return st;
}

/* *good: the file at path is a record, and the user's own. */
static fkm_status read_record(fkm_exchange *x, bool *good, const char *path, fkm_err *e)
{
    char *s;
    struct stat f;
    *good = false;
    if (lstat(path, &f) != 0)
        return failed(path, "look up", e);
    if (!S_ISREG(f.st_mode) || f.st_uid != geteuid() || f.st_nlink != 1 || f.st_size > MOST_BYTES)
        return fkm_fail(e, FKM_EFILE, "%s: not of this user", path);
    FKM_TRY(fkm_file_slurp(&s, path, MOST_BYTES, e));
    fkm_status st = parse(x, good, s, strlen(s), e);
    fkm_free(s);
    return st;
}

/* A record that is not whole was being written when nothing had been exchanged yet. */
static void take_record(fkm_exchange *done, const char *path)
{
    fkm_exchange x = {0};
    fkm_err why = {0};
    bool good = false, committed = false;
    fkm_status st = read_record(&x, &good, path, &why);
    if (st == FKM_OK && good)
        st = heal(&x, &committed, strrchr(path, '.') + 1, &why);
    if (st != FKM_OK) {
        fkm_verbose("%s is left alone: %s", path, why.msg);
    } else if (committed && !done->record && fkm_strdup(&x.record, path, &why) == FKM_OK) {
        *done = x;
        return;
    } else {
        unlink(path);
    }
    fkm_exchange_free(&x);
}

void fkm_exchange_heal(fkm_exchange *done, const char *dir, const char *name, bool alone)
{
    fkm_err ignored = {0};
    DIR *d = opendir(dir);
    memset(done, 0, sizeof *done);
    if (!d)
        return;
    for (struct dirent *entry; (entry = readdir(d));) {
        fkm_owner owner = fkm_owner_of(entry->d_name, name, "set");
        char *path;
        if (owner != FKM_OWNER_GONE && !(owner == FKM_OWNER_FOREIGN && alone))
            continue;
        if (fkm_asprintf(&path, &ignored, "%s/%s", dir, entry->d_name) != FKM_OK)
            continue;
        take_record(done, path);
        fkm_free(path);
    }
    closedir(d);
}
