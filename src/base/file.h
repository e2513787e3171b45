/* Files: positioned reads that are never short, and outputs that appear whole or not at all. */
#ifndef FKM_FILE_H
#define FKM_FILE_H

#include "status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* ---- inputs ---- */

typedef struct fkm_file fkm_file;

/* What a file was when it was opened: the run is about these bytes. */
typedef struct fkm_file_id {
    dev_t dev;
    ino_t ino;
    int64_t bytes, mtime_ns;
} fkm_file_id;

/* Makes room for so many open files, as far as the hard limit allows: the soft one is 1024 on most
 * systems. Best effort: opening tells. */
void fkm_file_expect(int count);

/* Opens a file for reading. "-" is standard input. A pipe, by either way, is first copied to an
 * unlinked temporary file (in $TMPDIR, else /tmp), so that formats can seek.
 * FKM_EFILE: absent, a directory, a device, no permission. */
fkm_status fkm_file_open(fkm_file **out, const char *path, fkm_err *e) FKM_MUST_USE;
void fkm_file_close(fkm_file *f); /* NULL is fine */

/* Large reads pass the kernel's cache by from now on, if they can. So they do from the start in
 * files larger than the memory available, which the cache could not keep for the next pass. Before
 * any other thread reads; holds 4 MiB. */
void fkm_file_uncached(fkm_file *f);

bool fkm_file_is_uncached(const fkm_file *f);
bool fkm_file_was_pipe(const fkm_file *f); /* what is read is the copy */

const char *fkm_file_path(const fkm_file *f); /* as given; "standard input" for "-" */
int64_t fkm_file_bytes(const fkm_file *f);    /* size when opened */
const fkm_file_id *fkm_file_identity(const fkm_file *f);
int fkm_file_descriptor(const fkm_file *f); /* for libraries that want one; still owned by f */

/* Reads exactly len bytes at offset into dst. Any thread, several at once. FKM_EFILE: an I/O error,
 * naming the offset; FKM_EDATA: the file has become shorter than it was when opened. */
fkm_status fkm_file_read(
    fkm_file *f, int64_t offset, void *dst, size_t len, fkm_err *e) FKM_MUST_USE;

/* FKM_EDATA if size, mtime or inode behind the path or descriptor are not those of the opening. */
fkm_status fkm_file_unchanged(fkm_file *f, fkm_err *e) FKM_MUST_USE;

/* *out = the whole file, zero-terminated; refuses more than max_bytes with FKM_EDATA. fkm_free. */
fkm_status fkm_file_slurp(char **out, const char *path, int64_t max_bytes, fkm_err *e) FKM_MUST_USE;

/* ---- outputs: create -> write -> finish -> publish, or close at any point to abandon ---- */

typedef struct fkm_outfile fkm_outfile;

/* Starts a temporary file ".NAME.tmp.PID-SYSTEM", with O_EXCL, beside `path` (after following
 * path's symbolic links), and removes those that killed runs left for the same name. One at a time
 * for a name: see lock.h. Until it is published it is held by flock, which tells other machines
 * that its owner lives. FKM_EFILE with the directory named. */
fkm_status fkm_outfile_create(fkm_outfile **out, const char *path, fkm_err *e) FKM_MUST_USE;

/* Appends; buffered, CRC32C on the way. FKM_EFILE (no space left, I/O error). */
fkm_status fkm_outfile_write(fkm_outfile *f, const void *data, size_t len, fkm_err *e) FKM_MUST_USE;

/* Overwrites len bytes at offset, both inside what was written: for headers known last. The
 * CRC of fkm_outfile_crc32c is then recomputed by finish. */
fkm_status fkm_outfile_patch(
    fkm_outfile *f, int64_t offset, const void *data, size_t len, fkm_err *e) FKM_MUST_USE;

/* For libraries that write by name (HDF5), and may lock the file themselves: the temporary's path,
 * which is no longer held. After such writing call
 * fkm_outfile_adopt, which takes the size from the file on disk; finish then reads it for the CRC.
 */
const char *fkm_outfile_temporary(fkm_outfile *f);
fkm_status fkm_outfile_adopt(fkm_outfile *f, fkm_err *e) FKM_MUST_USE;

/* Flushes, fsyncs, closes. The content is final, the name still temporary. Never retried. */
fkm_status fkm_outfile_finish(fkm_outfile *f, fkm_err *e) FKM_MUST_USE;

/* Renames to the final name and fsyncs the directory. Needs finish. */
fkm_status fkm_outfile_publish(fkm_outfile *f, fkm_err *e) FKM_MUST_USE;

const char *fkm_outfile_path(const fkm_outfile *f); /* the final name, as given */
int64_t fkm_outfile_bytes(const fkm_outfile *f);
uint32_t fkm_outfile_crc32c(const fkm_outfile *f);

/* Removes the temporary unless published. NULL is fine. */
void fkm_outfile_close(fkm_outfile *f);

/* ---- files that go away with a run ---- */

/* Most bytes that stand round a NAME: ".NAME.KIND.PID-SYSTEM", KIND having three letters. */
#define FKM_OWN_NAME_BYTES 26

/* *out = "DIR/.NAME.KIND.PID-SYSTEM": a file of this process, see fkm_system_id. fkm_free. */
fkm_status fkm_own_name(
    char **out, const char *dir, const char *name, const char *kind, fkm_err *e) FKM_MUST_USE;

typedef enum fkm_owner {
    FKM_NOT_OWNED,    /* not such a name */
    FKM_OWNER_LIVES,  /* here */
    FKM_OWNER_GONE,   /* our own number too: in a container every run may have the same one */
    FKM_OWNER_FOREIGN /* of another machine or container, or of this one before it was restarted */
} fkm_owner;

/* entry: a file's name, without directory. */
fkm_owner fkm_owner_of(const char *entry, const char *name, const char *kind);

/* Removes the temporaries dir/.name.tmp.* of runs that are gone. Of a foreign one the file's lock
 * says whether it is. */
void fkm_remove_leftovers(const char *dir, const char *name);

/* ---- small helpers ---- */

/* *out = path with the symbolic links in its last component followed, as far as they lead: realpath
 * would refuse a link whose target is not there yet. FKM_EFILE: also a link that a stranger has put
 * into a directory where others may write: who follows it replaces a file of the stranger's choice.
 * fkm_free. */
fkm_status fkm_path_target(char **out, const char *path, fkm_err *e) FKM_MUST_USE;
/* *out = the same file by a path that does not depend on the working directory. fkm_free. */
fkm_status fkm_path_absolute(char **out, const char *path, fkm_err *e) FKM_MUST_USE;

/* What has been created, renamed or removed in dir outlasts a loss of power. FKM_EFILE. */
fkm_status fkm_sync_directory(const char *dir, fkm_err *e) FKM_MUST_USE;

/* Follows symbolic links. True also when that cannot be found out: opening it tells why. */
bool fkm_path_exists(const char *path);
/* Whether this errno of stat, open or readlink says that there is nothing of that name. */
bool fkm_is_absent(int error);
/* Whether this errno of readlink leaves open what is there. */
bool fkm_is_link_unknown(int error);
int64_t fkm_free_space(const char *path);      /* bytes free for files beside path; -1: unknown */
const char *fkm_path_suffix(const char *path); /* ".npy", or "" */
/* Whether outputs can be named after this input: "-" and what a shell makes of <(...) say nothing.
 */
bool fkm_path_is_name(const char *path);
fkm_status fkm_path_base(
    char **out, const char *path, fkm_err *e) FKM_MUST_USE; /* "a/b.npy" -> "b"; fkm_free */

#endif
