/* The filters that fkm reads, undone: gzip, lzf, shuffle and fletcher32. No more than the room that
 * the caller gives is ever written, whatever the data say. */
#ifndef FKM_H5FILTER_H
#define FKM_H5FILTER_H

#include "h5lib.h"

#include <stdint.h>

#define FKM_H5_LZF 32000 /* registered for it; gzip, shuffle and fletcher32 are H5Z_FILTER_* */

/* out[0..*len) = what in[0..in_len) inflates to. z: from inflateInit. FKM_EDATA: the data are
 * damaged, or inflate to more than cap bytes. */
fkm_status fkm_h5_inflate(z_stream *z, uint8_t *out, size_t *len, size_t cap, const uint8_t *in,
    size_t in_len, fkm_err *e) FKM_MUST_USE;

/* The same of what h5py's own filter has compressed, by LibLZF. */
fkm_status fkm_h5_lzf(uint8_t *out, size_t *len, size_t cap, const uint8_t *in, size_t in_len,
    fkm_err *e) FKM_MUST_USE;

/* out = in, whose bytes are sorted by their place in elements of `size` bytes, in their order. */
void fkm_h5_unshuffle(uint8_t *out, const uint8_t *in, size_t len, size_t size);

/* Takes the checksum off the end of data[0..*len). FKM_EDATA: it is another one. */
fkm_status fkm_h5_check_sum(const uint8_t *data, size_t *len, fkm_err *e) FKM_MUST_USE;

#endif
