/* What a file of labels holds: see labels.h. */
#include "labels.h"

#include "../src/base/checked.h"
#include "../src/base/mem.h"

#define AT_ONCE ((int64_t)1 << 18) /* labels */

bool labels_are(const fkm_reader *in)
{
    return fkm_reader_input(in, 0)->dtype == FKM_I32 && fkm_reader_shape(in)->dims == 1;
}

bool labels_can_be(const fkm_scan *scan)
{
    return scan->values == 0 || scan->min >= -1;
}

static void count(label_facts *out, uint64_t *seen, const float *labels, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        int64_t label = (int64_t)labels[i]; /* int32 that is not exact in float32 was refused */
        if (label < 0) {
            out->unlabelled++;
            continue;
        }
        uint64_t bit = UINT64_C(1) << (label & 63);
        out->clusters += (seen[label / 64] & bit) == 0;
        seen[label / 64] |= bit;
        out->least = fkm_min_i64(out->least, label);
        out->most = fkm_max_i64(out->most, label);
    }
}

fkm_status labels_count(label_facts *out, fkm_reader *in, const fkm_scan *scan, fkm_err *e)
{
    int64_t rows = fkm_reader_shape(in)->rows;
    int64_t most = scan->values > 0 && scan->max > 0 ? (int64_t)scan->max : 0;
    fkm_status st = FKM_OK;
    uint64_t *seen = NULL;
    float *labels = NULL;
    *out = (label_facts){.least = INT64_MAX, .most = -1};
    FKM_GO(fkm_calloc(&seen, most / 64 + 1, sizeof *seen, "a bit for each label", e));
    FKM_GO(fkm_alloc(&labels, AT_ONCE, sizeof *labels, "a buffer for reading", e));
    for (int64_t row = 0, now; row < rows; row += now) {
        now = fkm_min_i64(AT_ONCE, rows - row);
        FKM_GO(fkm_reader_read(in, row, now, labels, e));
        count(out, seen, labels, now);
    }
out:
    fkm_free(labels);
    fkm_free(seen);
    return st;
}
