/* The outputs of a run: checked before the work, published together after it.
 *
 *   open (all checks, lock) -> work -> writer | file, written and finished -> publish -> close
 *
 * What is promised: a final name only ever holds a complete file; and as long as the last output,
 * the marker (stats.json of a fit), is there, the others are the ones that it vouches for. Several
 * names cannot be renamed at once, so publish takes these steps, each of which can be the last one
 * before a crash:
 *
 *   1. All new content is on disk under temporary names: ".NAME.tmp.PID-SYSTEM" (writer, file,
 * finish). What is likely to fail (space, I/O) fails here, with the earlier outputs untouched.
 *   2. A record of what is to be exchanged is put on disk, beside the marker (exchange.h).
 *   3. Earlier outputs, but for the marker, get a second name (hard link) ".NAME.old.PID-SYSTEM".
 *   4. The earlier marker is renamed to its .old name: nothing is vouched for from here on.
 *   5. New outputs are renamed to their final names, one by one, the marker last: committed.
 *   6. The .old names are removed, the marker's first, then the state, the lock, and at
 * last the record.
 *
 * A failure in 2-5 puts the earlier outputs back (and removes new ones where there was none), the
 * marker last and only if all others are back. A kill in 2-6 leaves the record behind; the next
 * open with the same marker puts the earlier outputs back, or, when the new marker is in place,
 * does the rest of 6. Then, if the same outputs are asked for of the same key, they are complete:
 * that the run which made them did not live to say so makes no difference. One output alone is
 * simply renamed: that is atomic.
 */
#ifndef FKM_OUTPUT_H
#define FKM_OUTPUT_H

#include "../formats/writer.h"
#include "base/file.h"
#include "base/status.h"
#include "exchange.h"
#include <stdbool.h>
#include <stdint.h>

typedef struct fkm_outputs fkm_outputs;

/* A file that no output may overwrite. */
typedef struct fkm_output_guard {
    const char *path;
    fkm_file_id id;
} fkm_output_guard;

/* Nothing is kept. */
typedef struct fkm_outputs_spec {
    const char *lock_name;              /* the lock is ".NAME.lock" beside it */
    const char *paths[FKM_OUTPUTS_MAX]; /* final names; the last is the marker */
    int64_t bytes[FKM_OUTPUTS_MAX];     /* expected, to check free space */
    int count;                          /* >= 1 */
    bool force;                         /* existing outputs may be replaced */
    /* Called with the lock held, and what a killed run left healed, before the checks; may be NULL.
     * *key: what the outputs follow from, as text, kept by the caller until close; NULL: not said.
     */
    fkm_status (*prepare)(void *arg, const char **key, fkm_err *e);
    void *arg;
    const char *state;              /* a file that the caller keeps during the work; or NULL */
    int64_t state_bytes;            /* expected */
    bool look_only;                 /* check, but leave what a killed run left */
    const fkm_output_guard *guards; /* the inputs */
    int guard_count;
} fkm_outputs_spec;

/* Takes the lock, heals or removes what a killed run left, and checks: directories exist and can be
 * written, names are not too long, no output is an input or another output or something else than a
 * file, none exists (unless force), space is enough. The same for the state, which may exist.
 * FKM_EFILE, FKM_EUSAGE. */
fkm_status fkm_outputs_open(
    fkm_outputs **out, const fkm_outputs_spec *spec, fkm_err *e) FKM_MUST_USE;

/* A run that was killed after its commit has made these very outputs, of the same key: there is
 * nothing to do but to close. */
bool fkm_outputs_are_complete(const fkm_outputs *o);

/* Finds out, before the work, whether output i can hold such an array: starts and abandons it. */
fkm_status fkm_outputs_rehearse(fkm_outputs *o, int i, const char *format,
    const fkm_array_spec *first, fkm_err *e) FKM_MUST_USE;

/* Starts output i, as arrays or as plain bytes. Owned by o; the caller writes and finishes it. */
fkm_status fkm_outputs_writer(
    fkm_outputs *o, int i, const char *format, fkm_writer **w, fkm_err *e) FKM_MUST_USE;
fkm_status fkm_outputs_file(fkm_outputs *o, int i, fkm_outfile **f, fkm_err *e) FKM_MUST_USE;

/* All outputs finished: makes them visible as described above, and removes the state. */
fkm_status fkm_outputs_publish(fkm_outputs *o, fkm_err *e) FKM_MUST_USE;

/* Removes temporaries of what is not published, and the lock. NULL is fine. */
void fkm_outputs_close(fkm_outputs *o);

#endif
