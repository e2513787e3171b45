/* A finished run, read back: see verify.h. */
#include "verify.h"

#include "../src/base/checked.h"
#include "../src/base/crc32c.h"
#include "../src/base/file.h"
#include "../src/base/mem.h"
#include "../src/base/parse_json.h"
#include "../src/base/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FILES 64
#define STATS_SUFFIX ".stats.json"
#define READ_BYTES ((int64_t)1 << 20)

static fkm_status not_stats(const char *path, const char *what, fkm_err *e)
{
    fkm_fail(e, FKM_EDATA, "%s: not the statistics of a run: %s", path, what);
    return fkm_hint(e, "expected the stats.json that 'fkm fit' wrote (schema fkm-stats/1)");
}

/* Where an output's name goes on behind the PREFIX of its run. */
static const char *after_prefix(const char *name)
{
    static const char *const words[] = {".labels.", ".centroids."};
    const char *found = NULL;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        for (const char *at = name; (at = strstr(at, words[i])); at++)
            found = at > found || !found ? at : found;
    return found ? found : fkm_path_suffix(name);
}

/* The file's name beside stats.json: a run may have been moved, or seen from another directory, or
 * renamed as a whole. */
static fkm_status beside(char **out, const char *stats_path, const char *recorded, fkm_err *e)
{
    const char *slash = strrchr(stats_path, '/'), *name = strrchr(recorded, '/');
    int prefix = (int)(strlen(stats_path) - strlen(STATS_SUFFIX));
    name = name ? name + 1 : recorded;
    FKM_TRY(fkm_asprintf(out, e, "%.*s%s", prefix, stats_path, after_prefix(name)));
    if (fkm_path_exists(*out))
        return FKM_OK;
    fkm_free(*out);
    if (!slash)
        return fkm_strdup(out, name, e);
    return fkm_asprintf(out, e, "%.*s%s", (int)(slash + 1 - stats_path), stats_path, name);
}

/* The path of an output: "path", or for a name that is not UTF-8 "path_encoded". */
static fkm_status take_path(char **out, const char *stats_path, const cJSON *item, fkm_err *e)
{
    const cJSON *path = cJSON_GetObjectItemCaseSensitive(item, "path");
    const cJSON *code = cJSON_GetObjectItemCaseSensitive(item, "path_encoded");
    if (!code)
        return beside(out, stats_path, path->valuestring, e);
    char *name = NULL;
    if (!cJSON_IsString(code))
        return not_stats(stats_path, "a path_encoded that is not a text", e);
    FKM_TRY(fkm_strdup(&name, code->valuestring, e));
    fkm_status st = fkm_percent_decode(name, code->valuestring)
                        ? beside(out, stats_path, name, e)
                        : not_stats(stats_path, "a path_encoded that is no encoded path", e);
    fkm_free(name);
    return st;
}

static fkm_status take_file(verified_file *f, const char *stats_path, const cJSON *item, fkm_err *e)
{
    const cJSON *path = cJSON_GetObjectItemCaseSensitive(item, "path");
    const cJSON *bytes = cJSON_GetObjectItemCaseSensitive(item, "bytes");
    const cJSON *crc = cJSON_GetObjectItemCaseSensitive(item, "crc32c");
    char *end = NULL;
    if (!cJSON_IsString(path) || !cJSON_IsNumber(bytes) || !cJSON_IsString(crc) ||
        bytes->valuedouble < 0 || bytes->valuedouble > 0x1p53 || strlen(crc->valuestring) != 8)
        return not_stats(stats_path, "an output without path, bytes or crc32c", e);
    f->bytes = (int64_t)bytes->valuedouble;
    f->crc32c = (uint32_t)strtoul(crc->valuestring, &end, 16);
    if (*end != '\0')
        return not_stats(stats_path, "a crc32c that is not a hexadecimal number", e);
    return take_path(&f->path, stats_path, item, e);
}

static fkm_status take_files(verified_run *run, const cJSON *outputs, fkm_err *e)
{
    int count = cJSON_GetArraySize(outputs);
    if (!cJSON_IsArray(outputs) || count > MAX_FILES)
        return not_stats(run->stats_path, "no list of outputs", e);
    FKM_TRY(fkm_calloc(&run->files, count, sizeof *run->files, "the outputs of a run", e));
    const cJSON *item;
    cJSON_ArrayForEach(item, outputs)
    {
        FKM_TRY(take_file(&run->files[run->file_count], run->stats_path, item, e));
        run->file_count++;
    }
    return FKM_OK;
}

static double number_of(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

/* What is read of stats.json: of a batch, the rest can be a lot. */
typedef struct parts {
    verified_run *run;
    char *schema;
    double clusters;
} parts;

static fkm_status is_wanted(void *arg, const char *name, char first, bool *wanted, fkm_err *e)
{
    static const char *const names[] = {
        "schema", "started_utc", "status", "params", "result", "outputs"};
    (void)arg, (void)first, (void)e;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        *wanted = *wanted || !strcmp(name, names[i]);
    return FKM_OK;
}

static fkm_status take_text(char **out, const cJSON *value, fkm_err *e)
{
    fkm_free(*out);
    *out = NULL;
    return cJSON_IsString(value) ? fkm_strdup(out, value->valuestring, e) : FKM_OK;
}

static fkm_status take_part(void *arg, const char *name, const cJSON *value, fkm_err *e)
{
    parts *p = arg;
    verified_run *run = p->run;
    if (!strcmp(name, "schema"))
        return take_text(&p->schema, value, e);
    if (!strcmp(name, "started_utc"))
        return take_text(&run->started_utc, value, e);
    if (!strcmp(name, "status"))
        return take_text(&run->status, value, e);
    if (!strcmp(name, "outputs"))
        return run->files ? not_stats(run->stats_path, "two lists of outputs", e)
                          : take_files(run, value, e);
    if (!strcmp(name, "params"))
        p->clusters = number_of(value, "k");
    else
        run->inertia = number_of(value, "inertia");
    return FKM_OK;
}

static fkm_status unknown_if_null(char **text, fkm_err *e)
{
    return *text ? FKM_OK : fkm_strdup(text, "unknown", e);
}

static fkm_status read_stats(verified_run *run, fkm_err *e)
{
    fkm_file *f = NULL;
    parts p = {.run = run};
    const fkm_json_visitor v = {&p, is_wanted, take_part};
    fkm_status st = FKM_OK;
    FKM_GO(fkm_file_open(&f, run->stats_path, e));
    st = fkm_json_members(f, 0, fkm_file_bytes(f), &v, e);
    if (st == FKM_EDATA && !e->hint[0]) {
        const fkm_err why = *e;
        st = not_stats(run->stats_path, why.msg, e);
    }
    if (st != FKM_OK)
        goto out;
    if (!p.schema || strcmp(p.schema, "fkm-stats/1") != 0)
        FKM_GO(not_stats(run->stats_path, "another schema", e));
    if (!run->files)
        FKM_GO(not_stats(run->stats_path, "no list of outputs", e));
    run->clusters = p.clusters >= 0 && p.clusters < 0x1p53 ? (int64_t)p.clusters : 0;
    FKM_GO(unknown_if_null(&run->started_utc, e));
    FKM_GO(unknown_if_null(&run->status, e));
out:
    fkm_free(p.schema);
    fkm_file_close(f);
    return st;
}

fkm_status verified_run_load(verified_run *out, const char *prefix, fkm_err *e)
{
    fkm_status st = FKM_OK;
    verified_run run = {0};
    FKM_GO(fkm_asprintf(&run.stats_path, e, "%s" STATS_SUFFIX, prefix));
    FKM_GO(read_stats(&run, e));
    *out = run;
    memset(&run, 0, sizeof run);
out:
    verified_run_free(&run);
    return st;
}

void verified_run_free(verified_run *run)
{
    for (int i = 0; i < run->file_count; i++)
        fkm_free(run->files[i].path);
    fkm_free(run->files);
    fkm_free(run->stats_path);
    fkm_free(run->started_utc);
    fkm_free(run->status);
    memset(run, 0, sizeof *run);
}

const verified_file *verified_run_centroids(const verified_run *run)
{
    for (int i = 0; i < run->file_count; i++) {
        const char *path = run->files[i].path;
        const char *suffix = fkm_path_suffix(path);
        size_t stem = strlen(path) - strlen(suffix), word = strlen(".centroids");
        if (!strcmp(suffix, ".h5") ||
            (stem >= word && !strncmp(path + stem - word, ".centroids", word)))
            return &run->files[i];
    }
    return NULL;
}

static fkm_status checksum(uint32_t *crc, fkm_file *f, fkm_err *e)
{
    char *buffer;
    FKM_TRY(fkm_alloc(&buffer, READ_BYTES, 1, "a buffer for reading", e));
    fkm_status st = FKM_OK;
    *crc = 0;
    for (int64_t at = 0, len; at < fkm_file_bytes(f); at += len) {
        len = fkm_min_i64(READ_BYTES, fkm_file_bytes(f) - at);
        FKM_GO(fkm_file_read(f, at, buffer, (size_t)len, e));
        *crc = fkm_crc32c(*crc, buffer, (size_t)len);
    }
out:
    fkm_free(buffer);
    return st;
}

fkm_status verified_file_check(const verified_file *f, const char *stats_path, fkm_err *e)
{
    fkm_file *file = NULL;
    if (!fkm_path_exists(f->path)) {
        fkm_fail(e, FKM_EDATA, "%s is missing, %s names it", f->path, stats_path);
        return fkm_hint(e, "files of a run are moved and renamed together: PREFIX.stats.json, "
                           "PREFIX.centroids.* and so on");
    }
    FKM_TRY(fkm_file_open(&file, f->path, e));
    uint32_t crc = 0;
    fkm_status st = FKM_OK;
    if (fkm_file_bytes(file) != f->bytes)
        st = fkm_fail(e, FKM_EDATA, "%s has %" PRId64 " bytes, %s says %" PRId64, f->path,
            fkm_file_bytes(file), stats_path, f->bytes);
    else if ((st = checksum(&crc, file, e)) == FKM_OK && crc != f->crc32c)
        st = fkm_fail(e, FKM_EDATA, "%s has crc32c %08" PRIx32 ", %s says %08" PRIx32, f->path, crc,
            stats_path, f->crc32c);
    if (st == FKM_EDATA)
        fkm_hint(e, "the file was changed after the run; run 'fkm fit' again");
    fkm_file_close(file);
    return st;
}
