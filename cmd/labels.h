/* What a file of labels holds, for info. */
#ifndef FKM_CMD_LABELS_H
#define FKM_CMD_LABELS_H

#include "../formats/reader.h"
#include "../src/fkm.h"

typedef struct label_facts {
    int64_t least, most; /* labels, without -1; most < least: no row has one */
    int64_t clusters;    /* how many different ones */
    int64_t unlabelled;  /* rows with -1 */
} label_facts;

/* One int32 a row: what fit and predict write, but for a batch or --top. */
bool labels_are(const fkm_reader *in);

/* Whether the numbers are labels: none below -1. */
bool labels_can_be(const fkm_scan *scan);

/* Reads all of them once more, after a scan that found them to be labels. FKM_ENOMEM: a bit for
 * each label up to the largest. */
fkm_status labels_count(
    label_facts *out, fkm_reader *in, const fkm_scan *scan, fkm_err *e) FKM_MUST_USE;

#endif
