/* src/base/file.c: reads that are never short, outputs that appear whole or not at all. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../src/base/crc32c.h"
#include "../../src/base/file.h"
#include "../../src/base/sysinfo.h"
#include "../../src/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define assert_ok(call) assert_status(call, FKM_OK, NULL, &e)

static void assert_status(fkm_status st, fkm_status want, const char *words, const fkm_err *e)
{
    if (st != want)
        fail_msg("status %d, not %d: %s", st, want, e->msg);
    if (words && !strstr(e->msg, words))
        fail_msg("'%s' lacks '%s'", e->msg, words);
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

/* The whole file, zero-terminated; to be freed. */
static char *content_of(const char *path, int64_t *bytes)
{
    fkm_err e = {0};
    fkm_file *f = NULL;
    assert_ok(fkm_file_open(&f, path, &e));
    *bytes = fkm_file_bytes(f);
    char *text = calloc(1, (size_t)*bytes + 1);
    assert_ok(fkm_file_read(f, 0, text, (size_t)*bytes, &e));
    fkm_file_close(f);
    return text;
}

static void assert_content(const char *path, const char *want)
{
    int64_t bytes;
    char *text = content_of(path, &bytes);
    assert_string_equal(text, want);
    free(text);
}

static bool exists(const char *path)
{
    struct stat s;
    return lstat(path, &s) == 0;
}

/* ---- inputs ---- */

static void test_read(void **state)
{
    (void)state;
    fkm_err e = {0};
    fkm_file *f = NULL;
    char got[16] = "";
    write_text("plain", "0123456789");
    assert_ok(fkm_file_open(&f, "plain", &e));
    assert_string_equal(fkm_file_path(f), "plain");
    assert_int_equal(fkm_file_bytes(f), 10);
    assert_ok(fkm_file_read(f, 3, got, 4, &e));
    assert_string_equal(got, "3456");
    assert_int_equal(fcntl(fkm_file_descriptor(f), F_GETFD), FD_CLOEXEC);
    assert_status(fkm_file_read(f, 8, got, 4, &e), FKM_EDATA,
        "plain: file is shorter than when it was opened: ends at byte 10, had 10 bytes", &e);
    fkm_file_close(f);
    fkm_file_close(NULL);
}

/* In memory that is like the offset modulo pages, and in memory that is not. */
static void check_read(fkm_file *f, const unsigned char *want, int begin, int len, char *memory)
{
    fkm_err e = {0};
    for (int other = 0; other < 2; other++) {
        char *got = memory + begin % 4096 + other;
        memset(got - other, 0, (size_t)len + 2);
        assert_int_equal(fkm_file_read(f, begin, got, (size_t)len, &e), FKM_OK);
        assert_memory_equal(got, want + begin, (size_t)len);
        assert_int_equal(got[len], 0);
        assert_true(other == 0 || got[-1] == 0);
    }
}

/* The same bytes by either way, wherever a read begins and ends; past the end, the same error. */
static void test_uncached(void **state)
{
    (void)state;
    enum { BYTES = (9 << 20) + 777 };
    fkm_err e = {0};
    fkm_file *f;
    unsigned char *want = malloc(BYTES);
    char *memory = aligned_alloc(4096, BYTES / 4096 * 4096 + 3 * 4096);
    uint32_t random = 1;
    for (int i = 0; i < BYTES; i++) {
        random = random * 1664525 + 1013904223;
        want[i] = (unsigned char)(random >> 24);
    }
    FILE *out = fopen("uncached", "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(want, 1, BYTES, out), BYTES);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(fkm_file_open(&f, "uncached", &e), FKM_OK);
    fkm_file_uncached(f);
    const int begins[] = {0, 1, 128, 4095, 4096, 4097, (4 << 20) - 1, 4 << 20, (4 << 20) + 5};
    const int lengths[] = {1, 4096, 1 << 20, (1 << 20) + 1, 4 << 20, (4 << 20) + 4097};
    for (int b = 0; b < 9; b++)
        for (int l = 0; l < 7; l++) {
            int len = l < 6 ? lengths[l] : BYTES - begins[b];
            check_read(f, want, begins[b], len, memory);
        }
    for (int begin = 0; begin < 6; begin += 5)
        assert_status(fkm_file_read(f, begin, memory + begin, BYTES + 1, &e), FKM_EDATA,
            "shorter than when it was opened", &e);
    fkm_file_close(f);
    assert_int_equal(unlink("uncached"), 0);
    free(want);
    free(memory);
}

static void test_refused_inputs(void **state)
{
    (void)state;
    fkm_err e = {0};
    fkm_file *f = NULL;
    assert_status(fkm_file_open(&f, "absent", &e), FKM_EFILE,
        "absent: cannot open: No such file or directory", &e);
    assert_true(e.hint[0] != '\0');
    mkdir("folder", 0777);
    assert_status(fkm_file_open(&f, "folder", &e), FKM_EFILE, "folder: is a directory", &e);
    assert_non_null(strstr(e.hint, "folder/*.npy"));
    assert_status(fkm_file_open(&f, "/dev/null", &e), FKM_EFILE, "is a character device", &e);
}

/* An I/O error: the descriptor of a file opened by name is replaced by one that only writes. */
static void test_read_error(void **state)
{
    (void)state;
    fkm_err e = {0};
    fkm_file *f = NULL;
    char got[4];
    write_text("broken", "0123456789");
    assert_ok(fkm_file_open(&f, "broken", &e));
    int other = open("broken", O_WRONLY);
    assert_int_equal(dup2(other, fkm_file_descriptor(f)), fkm_file_descriptor(f));
    close(other);
    assert_status(
        fkm_file_read(f, 6, got, 4, &e), FKM_EFILE, "broken: cannot read 4 bytes at byte 6: ", &e);
    fkm_file_close(f);
}

static void test_unchanged(void **state)
{
    (void)state;
    fkm_err e = {0};
    fkm_file *f = NULL;
    write_text("data", "0123456789");
    assert_ok(fkm_file_open(&f, "data", &e));
    assert_ok(fkm_file_unchanged(f, &e));

    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 12345}};
    assert_int_equal(utimensat(AT_FDCWD, "data", times, 0), 0);
    assert_status(fkm_file_unchanged(f, &e), FKM_EDATA, "modification time", &e);
    fkm_file_close(f);

    assert_ok(fkm_file_open(&f, "data", &e));
    write_text("data", "0123456789+");
    assert_status(fkm_file_unchanged(f, &e), FKM_EDATA, "it had 10 bytes, now 11", &e);
    fkm_file_close(f);

    assert_ok(fkm_file_open(&f, "data", &e));
    write_text("other", "0123456789+");
    assert_int_equal(rename("other", "data"), 0);
    assert_status(fkm_file_unchanged(f, &e), FKM_EDATA, "another file has taken its name", &e);
    fkm_file_close(f);

    assert_ok(fkm_file_open(&f, "data", &e));
    assert_int_equal(unlink("data"), 0);
    assert_status(fkm_file_unchanged(f, &e), FKM_EDATA, "No such file", &e);
    fkm_file_close(f);
}

/* ---- pipes ---- */

/* A child that writes `bytes` bytes, byte i being i mod 251, to fd and exits. */
static pid_t feed(int fd, int bytes)
{
    pid_t child = fork();
    if (child != 0)
        return child;
    for (int i = 0; i < bytes; i++) {
        char c = (char)(i % 251);
        if (write(fd, &c, 1) != 1)
            _exit(1);
    }
    _exit(0);
}

static void check_pattern(fkm_file *f, int bytes)
{
    fkm_err e = {0};
    assert_int_equal(fkm_file_bytes(f), bytes);
    char *got = malloc((size_t)bytes);
    assert_ok(fkm_file_read(f, 0, got, (size_t)bytes, &e));
    for (int i = 0; i < bytes; i++)
        assert_int_equal(got[i], (char)(i % 251));
    free(got);
    assert_ok(fkm_file_unchanged(f, &e));
}

static bool folder_is_empty(const char *path)
{
    return rmdir(path) == 0 && mkdir(path, 0777) == 0;
}

static void test_standard_input(void **state)
{
    (void)state;
    fkm_err e = {0};
    fkm_file *f = NULL;
    int ends[2], before = dup(STDIN_FILENO);
    mkdir("spool", 0777);
    setenv("TMPDIR", "spool", 1);
    assert_int_equal(pipe(ends), 0);
    pid_t child = feed(ends[1], 70000);
    close(ends[1]);
    dup2(ends[0], STDIN_FILENO);
    close(ends[0]);
    assert_ok(fkm_file_open(&f, "-", &e));
    assert_string_equal(fkm_file_path(f), "standard input");
    check_pattern(f, 70000);
    fkm_file_close(f);
    assert_true(folder_is_empty("spool"));
    waitpid(child, NULL, 0);

    /* A regular file is read in place, from its beginning; what is left of one is spooled. */
    write_text("redirected", "0123456789");
    int fd = open("redirected", O_RDONLY);
    dup2(fd, STDIN_FILENO);
    close(fd);
    assert_ok(fkm_file_open(&f, "-", &e));
    struct stat s;
    assert_int_equal(stat("redirected", &s), 0);
    assert_true(fkm_file_identity(f)->ino == s.st_ino);
    fkm_file_close(f);
    assert_int_equal(lseek(STDIN_FILENO, 4, SEEK_SET), 4);
    assert_ok(fkm_file_open(&f, "-", &e));
    assert_int_equal(fkm_file_bytes(f), 6);
    fkm_file_close(f);

    setenv("TMPDIR", "not-there", 1);
    assert_int_equal(lseek(STDIN_FILENO, 4, SEEK_SET), 4);
    assert_status(fkm_file_open(&f, "-", &e), FKM_EFILE,
        "standard input: cannot keep a copy in not-there: No such file", &e);
    assert_non_null(strstr(e.hint, "TMPDIR"));
    unsetenv("TMPDIR");
    dup2(before, STDIN_FILENO);
    close(before);
}

static void test_fifo(void **state)
{
    (void)state;
    fkm_err e = {0};
    fkm_file *f = NULL;
    assert_int_equal(mkfifo("fifo", 0666), 0);
    pid_t child = fork();
    if (child == 0) {
        int fd = open("fifo", O_WRONLY);
        pid_t writer = feed(fd, 300000);
        waitpid(writer, NULL, 0);
        _exit(0);
    }
    assert_ok(fkm_file_open(&f, "fifo", &e));
    assert_string_equal(fkm_file_path(f), "fifo");
    check_pattern(f, 300000);
    fkm_file_close(f);
    waitpid(child, NULL, 0);
}

/* ---- outputs ---- */

static fkm_outfile *create(const char *path)
{
    fkm_err e = {0};
    fkm_outfile *f = NULL;
    assert_ok(fkm_outfile_create(&f, path, &e));
    return f;
}

static void finish_and_publish(fkm_outfile *f)
{
    fkm_err e = {0};
    assert_ok(fkm_outfile_finish(f, &e));
    assert_ok(fkm_outfile_publish(f, &e));
    fkm_outfile_close(f);
}

static void test_publish(void **state)
{
    (void)state;
    fkm_err e = {0};
    struct stat s;
    mode_t mask = umask(027);
    fkm_outfile *f = create("out");
    umask(mask);
    char want[100], temporary[500];
    snprintf(
        want, sizeof want, "/.out.tmp.%ld-%08lx", (long)getpid(), (unsigned long)fkm_system_id());
    snprintf(temporary, sizeof temporary, "%s", fkm_outfile_temporary(f));
    assert_non_null(strstr(temporary, want));
    assert_ok(fkm_outfile_write(f, "one ", 4, &e));
    assert_ok(fkm_outfile_write(f, "two", 3, &e));
    assert_false(exists("out"));
    assert_status(fkm_outfile_publish(f, &e), FKM_EBUG, "before it was finished", &e);
    assert_ok(fkm_outfile_finish(f, &e));
    assert_false(exists("out"));
    assert_true(exists(temporary));
    assert_ok(fkm_outfile_publish(f, &e));
    assert_false(exists(temporary));
    assert_int_equal(fkm_outfile_bytes(f), 7);
    assert_int_equal(fkm_outfile_crc32c(f), fkm_crc32c(0, "one two", 7));
    fkm_outfile_close(f);
    assert_content("out", "one two");
    assert_int_equal(stat("out", &s), 0);
    assert_int_equal(s.st_mode & 0777, 0640);
}

static void test_abandon(void **state)
{
    (void)state;
    fkm_err e = {0};
    write_text("kept", "old");
    fkm_outfile *f = create("kept");
    char temporary[500];
    snprintf(temporary, sizeof temporary, "%s", fkm_outfile_temporary(f));
    assert_ok(fkm_outfile_write(f, "new", 3, &e));
    assert_true(exists(temporary));
    fkm_outfile_close(f);
    assert_false(exists(temporary));
    assert_content("kept", "old");
    f = create("kept");
    assert_ok(fkm_outfile_write(f, "new", 3, &e));
    assert_ok(fkm_outfile_finish(f, &e));
    fkm_outfile_close(f);
    assert_content("kept", "old");
    fkm_outfile_close(NULL);
}

static void test_large_writes(void **state)
{
    (void)state;
    fkm_err e = {0};
    const size_t sizes[] = {1, 100000, 262143, 262144, 262145, 1000000, 3, 0, 262144};
    char *x = malloc(1000000);
    for (size_t i = 0; i < 1000000; i++)
        x[i] = (char)(i * 7 + i / 251);
    fkm_outfile *f = create("large");
    uint32_t crc = 0;
    int64_t total = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        assert_ok(fkm_outfile_write(f, x, sizes[i], &e));
        crc = fkm_crc32c(crc, x, sizes[i]);
        total += (int64_t)sizes[i];
    }
    assert_ok(fkm_outfile_finish(f, &e));
    assert_int_equal(fkm_outfile_crc32c(f), crc);
    assert_ok(fkm_outfile_publish(f, &e));
    fkm_outfile_close(f);
    int64_t bytes;
    char *text = content_of("large", &bytes);
    assert_int_equal(bytes, total);
    assert_int_equal(fkm_crc32c(0, text, (size_t)total), crc);
    free(text);
    free(x);
}

static void test_patch(void **state)
{
    (void)state;
    fkm_err e = {0};
    fkm_outfile *f = create("patched");
    assert_ok(fkm_outfile_write(f, "0123456789", 10, &e));
    assert_ok(fkm_outfile_patch(f, 2, "ab", 2, &e));
    assert_ok(fkm_outfile_write(f, "!", 1, &e));
    assert_status(fkm_outfile_patch(f, 10, "xy", 2, &e), FKM_EBUG, "patch of 2 bytes", &e);
    assert_status(fkm_outfile_patch(f, -1, "xy", 2, &e), FKM_EBUG, "patch of 2 bytes", &e);
    assert_ok(fkm_outfile_finish(f, &e));
    assert_int_equal(fkm_outfile_crc32c(f), fkm_crc32c(0, "01ab456789!", 11));
    assert_ok(fkm_outfile_publish(f, &e));
    fkm_outfile_close(f);
    assert_content("patched", "01ab456789!");
}

static void test_adopt(void **state)
{
    (void)state;
    fkm_err e = {0};
    fkm_outfile *f = create("adopted");
    write_text(fkm_outfile_temporary(f), "by a library");
    assert_ok(fkm_outfile_adopt(f, &e));
    assert_int_equal(fkm_outfile_bytes(f), 12);
    assert_ok(fkm_outfile_finish(f, &e));
    assert_int_equal(fkm_outfile_crc32c(f), fkm_crc32c(0, "by a library", 12));
    assert_ok(fkm_outfile_publish(f, &e));
    fkm_outfile_close(f);
    assert_content("adopted", "by a library");
}

static void test_symbolic_links(void **state)
{
    (void)state;
    fkm_err e = {0};
    struct stat s;
    mkdir("store", 0777);
    write_text("store/real", "old");
    assert_int_equal(symlink("store/real", "link"), 0);
    assert_int_equal(symlink("link", "link2"), 0);
    fkm_outfile *f = create("link2");
    assert_non_null(strstr(fkm_outfile_temporary(f), "/store/.real.tmp."));
    assert_ok(fkm_outfile_write(f, "new", 3, &e));
    finish_and_publish(f);
    assert_int_equal(lstat("link2", &s), 0);
    assert_true(S_ISLNK(s.st_mode));
    assert_int_equal(lstat("store/real", &s), 0);
    assert_true(S_ISREG(s.st_mode));
    assert_content("store/real", "new");

    assert_int_equal(symlink("store/later", "dangling"), 0);
    f = create("dangling");
    assert_ok(fkm_outfile_write(f, "x", 1, &e));
    finish_and_publish(f);
    assert_content("store/later", "x");

    assert_int_equal(symlink("circle", "circle"), 0);
    assert_status(
        fkm_outfile_create(&f, "circle", &e), FKM_EFILE, "circle: too many symbolic links", &e);
}

static void test_refused_outputs(void **state)
{
    (void)state;
    fkm_err e = {0};
    fkm_outfile *f = NULL;
    mkdir("dir", 0777);
    assert_status(fkm_outfile_create(&f, "dir", &e), FKM_EFILE, "dir: is a directory", &e);
    assert_status(fkm_outfile_create(&f, "dir/", &e), FKM_EFILE, "dir/: is a directory", &e);
    assert_status(fkm_outfile_create(&f, "no/such/out", &e), FKM_EFILE,
        "no/such/out: cannot write in no/such: No such file or directory", &e);
    assert_non_null(strstr(e.hint, "create the directory"));
    assert_status(
        fkm_outfile_create(&f, "/dev/null", &e), FKM_EFILE, "/dev/null: is not a regular file", &e);
    assert_status(
        fkm_outfile_create(&f, "/proc/x", &e), FKM_EFILE, "cannot create a file in /proc", &e);
}

/* A process id that nobody has. */
static long dead_process(void)
{
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    waitpid(child, NULL, 0);
    return (long)child;
}

static void test_stale_temporaries(void **state)
{
    (void)state;
    fkm_err e = {0};
    char dead[100], own[100], other[100], odd[100], live[100], away[100], held[100];
    long gone = dead_process();
    unsigned long here = fkm_system_id();
    snprintf(dead, sizeof dead, ".stale.tmp.%ld-%08lx", gone, here);
    snprintf(own, sizeof own, ".stale.tmp.%ld-%08lx", (long)getpid(), here);
    snprintf(other, sizeof other, ".stales.tmp.%ld-%08lx", gone, here);
    snprintf(odd, sizeof odd, ".stale.tmp.%ld-%08lxx", gone, here);
    snprintf(live, sizeof live, ".stale.tmp.%ld-%08lx", (long)getppid(), here);
    snprintf(away, sizeof away, ".stale.tmp.%ld-%08lx", (long)getppid(), here ^ 1);
    snprintf(held, sizeof held, ".stale.tmp.%ld-%08lx", (long)getppid(), here ^ 2);
    const char *const all[] = {dead, own, other, odd, live, away, held};
    for (int i = 0; i < 7; i++)
        write_text(all[i], "left behind");
    int fd = open(held, O_RDONLY);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    fkm_outfile *f = create("stale");
    assert_false(exists(dead));
    assert_false(exists(away)); /* of another machine: nobody holds it */
    assert_true(exists(held));
    close(fd);
    assert_true(exists(other));
    assert_true(exists(odd));
    assert_true(exists(live));
    assert_ok(fkm_outfile_write(f, "x", 1, &e));
    finish_and_publish(f);
    assert_content("stale", "x");
    assert_false(exists(own));
}

/* A limit on file sizes stands in for a full disk. */
static void test_write_fails(void **state)
{
    (void)state;
    fkm_err e = {0};
    struct rlimit old, small;
    char x[1000] = {0};
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 300000;
    write_text("full", "old");
    fkm_outfile *f = create("full");
    char temporary[500];
    snprintf(temporary, sizeof temporary, "%s", fkm_outfile_temporary(f));
    setrlimit(RLIMIT_FSIZE, &small);
    fkm_status st = FKM_OK;
    for (int i = 0; i < 1000 && st == FKM_OK; i++)
        st = fkm_outfile_write(f, x, sizeof x, &e);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_status(st, FKM_EFILE, "full: cannot write in ", &e);
    assert_non_null(strstr(e.msg, "File too large"));
    assert_non_null(strstr(e.hint, "ulimit -f"));
    fkm_outfile_close(f);
    assert_false(exists(temporary));
    assert_content("full", "old");
    signal(SIGXFSZ, SIG_DFL);
}

/* ---- helpers ---- */

static void test_paths(void **state)
{
    (void)state;
    fkm_err e = {0};
    static const char *const table[][3] = {
        {"a/b.npy", ".npy", "b"},
        {"b", "", "b"},
        {"a.d/b", "", "b"},
        {"x.tar.gz", ".gz", "x.tar"},
        {".npy", "", ".npy"},
        {"/r/.hid.npy", ".npy", ".hid"},
        {"b.", ".", "b"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        char *base = NULL;
        assert_string_equal(fkm_path_suffix(table[i][0]), table[i][1]);
        assert_ok(fkm_path_base(&base, table[i][0], &e));
        assert_string_equal(base, table[i][2]);
        fkm_free(base);
    }
    write_text("here", "");
    assert_true(fkm_path_exists("here"));
    assert_false(fkm_path_exists("not-here"));
    assert_true(fkm_free_space("here") > 0);
    assert_true(fkm_free_space("./not-yet") > 0);
    assert_int_equal(fkm_free_space("no/such/dir/x"), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_uncached),
        cmocka_unit_test(test_refused_inputs),
        cmocka_unit_test(test_read_error),
        cmocka_unit_test(test_unchanged),
        cmocka_unit_test(test_standard_input),
        cmocka_unit_test(test_fifo),
        cmocka_unit_test(test_publish),
        cmocka_unit_test(test_abandon),
        cmocka_unit_test(test_large_writes),
        cmocka_unit_test(test_patch),
        cmocka_unit_test(test_adopt),
        cmocka_unit_test(test_symbolic_links),
        cmocka_unit_test(test_refused_outputs),
        cmocka_unit_test(test_stale_temporaries),
        cmocka_unit_test(test_write_fails),
        cmocka_unit_test(test_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
