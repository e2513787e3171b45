/* The record of an exchange: what a run is about to put in the place of what, on disk before the
 * first name changes, so that whoever finds it half done can tell what belongs to it.
 *
 * It is a file ".MARKER.set.PID-SYSTEM" beside the marker, the output that comes last. An output is
 * taken for one of that exchange only if its bytes and CRC32C are those of the record, and a record
 * is believed only if it is the user's own, whole and without a second name. */
#ifndef FKM_EXCHANGE_H
#define FKM_EXCHANGE_H

#include "base/status.h"
#include <stdbool.h>
#include <stdint.h>

#define FKM_OUTPUTS_MAX 4

typedef struct fkm_exchange_file {
    char *dir, *name; /* of the final name; dir is absolute */
    int64_t bytes;    /* of the new content */
    uint32_t crc32c;
    bool existed; /* there was something before */
} fkm_exchange_file;

typedef struct fkm_exchange {
    char *key;                                /* what the outputs follow from; "": not said */
    fkm_exchange_file files[FKM_OUTPUTS_MAX]; /* the last is the marker */
    int count;
    char *state;  /* a file of no use once all is done; absolute; "": none */
    char *record; /* path of the record, when it is on disk */
} fkm_exchange;

/* Fields only; safe on zeroed structs. The record stays on disk. */
void fkm_exchange_free(fkm_exchange *x);

/* Puts the record on disk and sets x->record. FKM_EFILE. */
fkm_status fkm_exchange_write(fkm_exchange *x, fkm_err *e) FKM_MUST_USE;

/* Looks for a record that a run which is gone left beside the marker dir/name, and heals: without
 * the new marker, what was set aside (".NAME.old.PID-SYSTEM") is put back and new outputs that had
 * no predecessor are removed; with it, what is left to do is done, and *done is the exchange, whose
 * record still stands. Else *done is zeroed. alone: no other run can be at work on these outputs.
 * Failing is no error: the record then waits for the next run. */
void fkm_exchange_heal(fkm_exchange *done, const char *dir, const char *name, bool alone);

/* Whether all files of the exchange are there with the content that it gave them. */
bool fkm_exchange_is_whole(const fkm_exchange *x);

#endif
