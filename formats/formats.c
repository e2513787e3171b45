/* The table of formats, and how one is chosen: see format.h. */
#include "format.h"

#include "../src/base/checked.h"
#include "elements.h"
#include "foreign.h"

#include <stdio.h>
#include <string.h>

/* In equal scores the first wins: fvecs before ivecs, which look the same. */
const fkm_format *const fkm_formats[] = {
    &fkm_format_npy,
    &fkm_format_fvecs,
    &fkm_format_bvecs,
    &fkm_format_ivecs,
    &fkm_format_fbin,
    &fkm_format_f16bin,
    &fkm_format_u8bin,
    &fkm_format_i8bin,
    &fkm_format_ibin,
    &fkm_format_bin,
    &fkm_format_safetensors,
#if FKM_HAVE_HDF5
    &fkm_format_hdf5,
#endif
    NULL,
};

/* ---- probing ---- */

/* Enough to see the second row of 16000-dimensional vectors. */
#define HEAD_BYTES ((size_t)64 << 10)
#define SUFFIX_BONUS 30
#define CERTAIN_ENOUGH 40

#if !FKM_HAVE_HDF5
/* By content, or by suffix when the content says nothing else. */
static fkm_status refuse_hdf5(
    fkm_file *f, const uint8_t *head, size_t len, int best_score, fkm_err *e)
{
    bool signature = len >= 8 && !memcmp(head, "\x89HDF\r\n\x1a\n", 8);
    bool named = fkm_suffix_in(".h5 .hdf5", fkm_path_suffix(fkm_file_path(f)));
    if (!signature && (!named || best_score >= CERTAIN_ENOUGH))
        return FKM_OK;
    fkm_fail(e, FKM_EUSAGE, "%s: is HDF5, and this fkm was built without HDF5", fkm_file_path(f));
    return fkm_hint(
        e, "install libhdf5-dev and zlib1g-dev and build again, or convert the file to .npy");
}
#endif

static fkm_status unknown_format(fkm_file *f, fkm_err *e)
{
    char list[200] = "";
    size_t used = 0;
    for (int i = 0; fkm_formats[i] && used < sizeof list; i++)
        used += (size_t)snprintf(
            list + used, sizeof list - used, "%s%s", i ? " " : "", fkm_formats[i]->suffixes);
    fkm_fail(e, FKM_EDATA, "%s: not a known format, by content or by suffix", fkm_file_path(f));
    return fkm_hint(e, "known: %s; see 'fkm help formats'", list);
}

#define TAIL_BYTES 256 /* of a path: enough for its last name */

/* The suffix, or the one before the ".crop_nb_N" that big-ann's own tool adds when it cuts a file.
 */
static const char *suffix_of(char tail[TAIL_BYTES], const char *path)
{
    const char *last = fkm_path_suffix(path);
    if (strncmp(last, ".crop_nb_", 9) != 0)
        return last;
    const int64_t length = fkm_min_i64(last - path, TAIL_BYTES - 1);
    memcpy(tail, last - length, (size_t)length);
    tail[length] = '\0';
    return fkm_path_suffix(tail);
}

fkm_status fkm_format_probe(const fkm_format **out, fkm_file *f, fkm_err *e)
{
    uint8_t head[HEAD_BYTES + 1];
    char tail[TAIL_BYTES];
    int64_t bytes = fkm_file_bytes(f);
    const char *suffix = suffix_of(tail, fkm_file_path(f));
    size_t len = (size_t)fkm_min_i64(bytes, (int64_t)HEAD_BYTES);
    FKM_TRY(fkm_file_read(f, 0, head, len, e));
    head[len] = '\0';
    const fkm_format *best = NULL, *named = NULL;
    int best_score = 0;
    for (int i = 0; fkm_formats[i]; i++) {
        bool match = fkm_suffix_in(fkm_formats[i]->suffixes, suffix);
        int score = fkm_formats[i]->probe(head, len, bytes, suffix);
        if (score > 0 && match)
            score += SUFFIX_BONUS;
        if (match)
            named = fkm_formats[i];
        if (score > best_score) {
            best = fkm_formats[i];
            best_score = score;
        }
    }
#if !FKM_HAVE_HDF5
    FKM_TRY(refuse_hdf5(f, head, len, best_score, e));
#endif
    if (best_score <= CERTAIN_ENOUGH &&
        fkm_foreign(fkm_file_path(f), suffix, (const char *)head, len, e))
        return e->code;
    /* Nothing is convincing: the suffix decides, and that format's open says what is wrong. */
    if (best_score < CERTAIN_ENOUGH)
        best = named;
    if (!best)
        return unknown_format(f, e);
    *out = best;
    return FKM_OK;
}
