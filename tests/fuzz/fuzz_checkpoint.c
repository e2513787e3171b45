/* Any bytes as a checkpoint: as they are, and as what follows a head and a key that fit, with the
 * right checksum. A run that goes on from what was accepted must end like any other. */
#include "../../src/checkpoint.h"
#include "../../src/base/crc32c.h"
#include "../../src/base/log.h"
#include "../../src/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static char data_path[64];

/* A batch of 2 problems of 6 rows of 3 dims, in memory. */
static void make_data(void)
{
    char head[128];
    float x[36];
    int fd = memfd_create("data", MFD_CLOEXEC);
    memset(head, ' ', sizeof head);
    memcpy(head, "\x93NUMPY\x01\x00\x76\x00", 10);
    int n =
        snprintf(head + 10, 117, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 6, 3)}");
    head[10 + n] = ' ';
    head[127] = '\n';
    for (int i = 0; i < 36; i++)
        x[i] = (float)(i * i % 17);
    CHECK(write(fd, head, sizeof head) == sizeof head && write(fd, x, sizeof x) == sizeof x);
    snprintf(data_path, sizeof data_path, "/proc/self/fd/%d", fd);
    fkm_log_set_level(FKM_LOG_QUIET);
}

static fkm_reader *open_data(void)
{
    fkm_err e = {0};
    fkm_reader *in;
    const char *path = data_path;
    fkm_reader_spec spec = {.paths = &path, .path_count = 1, .row_end = -1};
    CHECK(fkm_reader_open(&in, &spec, &e) == FKM_OK);
    return in;
}

/* Goes on from the file behind fd, which is never written: nothing is due, nobody stops. */
static void resume(fkm_reader *in, fkm_fit_options *o, int fd)
{
    char path[64];
    fkm_err e = {0};
    fkm_result out;
    fkm_saving saving = {.path = path, .every_s = 1e9};
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    o->saving = &saving;
    fkm_status st = fkm_fit(&out, in, o, NULL, &e);
    if (st != FKM_OK && st != FKM_EDATA && st != FKM_EFILE) {
        fprintf(stderr, "%d: %s\n", st, e.msg);
        abort();
    }
    CHECK(st == FKM_OK || e.msg[0]);
    for (int64_t i = 0; st == FKM_OK && i < out.batch * out.rows; i++)
        CHECK(out.labels[i] >= -1 && out.labels[i] < out.clusters);
    if (st == FKM_OK)
        fkm_result_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fkm_err e = {0};
    fkm_fit_options o;
    char *key;
    if (!data_path[0])
        make_data();
    fkm_reader *in = open_data();
    fkm_fit_options_default(&o);
    o.clusters = 2;
    o.restarts = 2;
    o.max_iter = 4;
    o.machine.threads = 1;
    o.machine.isa = "scalar";
    o.machine.memory_bytes = INT64_C(64) << 20;
    CHECK(fkm_state_key(&key, &o, in, &e) == FKM_OK);

    int fd = memfd_create("state", MFD_CLOEXEC);
    CHECK(write(fd, data, size) == (ssize_t)size);
    resume(in, &o, fd);

    /* The same bytes as a body. */
    uint32_t order[2] = {0x01020304, 4}; /* VERSION of checkpoint.c */
    int64_t key_bytes = (int64_t)strlen(key);
    size_t whole = 8 + sizeof order + sizeof key_bytes + (size_t)key_bytes + size;
    uint8_t *file = malloc(whole + 4), *p = file;
    memcpy(p, "fkm run\n", 8);
    memcpy(p + 8, order, sizeof order);
    memcpy(p + 16, &key_bytes, sizeof key_bytes);
    memcpy(p + 24, key, (size_t)key_bytes);
    memcpy(p + 24 + key_bytes, data, size);
    uint32_t crc = fkm_crc32c(0, file, whole);
    memcpy(file + whole, &crc, 4);
    CHECK(ftruncate(fd, 0) == 0 && pwrite(fd, file, whole + 4, 0) == (ssize_t)(whole + 4));
    resume(in, &o, fd);
    free(file);
    fkm_free(key);
    close(fd);
    fkm_reader_close(in);
    return 0;
}
