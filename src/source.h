/* Where the rows of a pass come from: memory, or a ring of buffers that a thread keeps filling.
 *
 * A data set that fits is read once and stays (resident). One that does not is read once a pass:
 * the reading thread runs ahead of the computation by as many chunks as the ring holds, across the
 * end of a pass too, since rows do not depend on centroids. */
#ifndef FKM_SOURCE_H
#define FKM_SOURCE_H

#include "backend.h"
#include "checksums.h"
#include "fkm.h"

typedef struct fkm_source fkm_source;

/* The plan says resident or ring, and the rows of a chunk. Allocates, reads nothing. checksums:
 * those of `in`, which rows that are read in their order are held to; borrowed, NULL: none. Several
 * sources may be open on one reader, each at a problem of its own. */
fkm_status fkm_source_open(fkm_source **out, fkm_reader *in, const fkm_run_plan *plan,
    fkm_checksums *checksums, fkm_err *e) FKM_MUST_USE;
void fkm_source_close(fkm_source *s); /* NULL is fine; stops the thread */

/* Pins the memory that `b` is fed from, if that helps it: the ring, or resident rows, as they are
 * asked for first, if it copies them in every pass. Undone by fkm_source_close. */
void fkm_source_pin(fkm_source *s, const fkm_backend_ops *ops, const fkm_backend *b);

/* The threads of `b`, which is fed, have nothing else to do while rows are asked for: they scan
 * them, and hold them to their checksums unless there are CPUs besides. Anew if it is opened again.
 */
void fkm_source_use(fkm_source *s, const fkm_backend_ops *ops, const fkm_backend *b);

/* Goes to one problem of the batch. Resident: loads it and, unless scan is NULL, fills *scan
 * (polling w->stop). Ring: starts the thread; *scan untouched. once: there is one pass only, beyond
 * whose end nothing is read. */
fkm_status fkm_source_start(fkm_source *s, int64_t problem, bool once, fkm_scan *scan,
    const fkm_observer *w, fkm_err *e) FKM_MUST_USE;

/* The next chunk of this pass; rows->count is 0 at its end, and the call after that begins the next
 * pass. The rows are valid until the next call. FKM_EDATA when a file was changed during the pass.
 */
fkm_status fkm_source_next(fkm_source *s, fkm_rows *rows, fkm_err *e) FKM_MUST_USE;

/* After the end of a pass: the n-th chunk, from 0, of the one that follows, if it has been read by
 * now; it stays where it is until its turn. False: it has not, no pass follows, or rows stay. */
bool fkm_source_ahead(fkm_source *s, int64_t n, fkm_rows *rows);

/* The chunk that begins with row row0 is not wanted in this pass, which has not come to it yet: it
 * is left out, and mostly not even read. For rings. */
void fkm_source_skip(fkm_source *s, int64_t row0);

/* Adds rows that fkm_source_next gave to *scan. */
void fkm_source_scan(const fkm_source *s, fkm_scan *scan, const fkm_rows *rows);

/* Adds the rest of this pass to *scan, polling w->stop: for messages that count what is wrong. */
fkm_status fkm_source_scan_rest(
    fkm_source *s, fkm_scan *scan, const fkm_observer *w, fkm_err *e) FKM_MUST_USE;

/* No pass follows the one at hand: do not read ahead beyond its end. */
void fkm_source_last_pass(fkm_source *s);

/* Rows [row, row + count) of the problem as float32, out of turn. out: [count][dims]. */
fkm_status fkm_source_rows(
    fkm_source *s, int64_t row, int64_t count, float *out, fkm_err *e) FKM_MUST_USE;

double fkm_source_wait(const fkm_source *s);  /* seconds spent waiting for reads, so far */
int64_t fkm_source_bytes_read(fkm_source *s); /* from storage, so far */

#endif
