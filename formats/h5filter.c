/* Filters of HDF5: see h5filter.h. */
#include "h5filter.h"

#include "elements.h"

#include <inttypes.h>
#include <string.h>

fkm_status fkm_h5_inflate(z_stream *z, uint8_t *out, size_t *len, size_t cap, const uint8_t *in,
    size_t in_len, fkm_err *e)
{
    (void)inflateReset(z);
    z->next_in = in;
    z->avail_in = (uInt)in_len;
    z->next_out = out;
    z->avail_out = (uInt)cap;
    int rc = inflate(z, Z_FINISH);
    *len = cap - z->avail_out;
    if (rc == Z_STREAM_END)
        return FKM_OK;
    if (rc == Z_MEM_ERROR)
        return fkm_fail(e, FKM_ENOMEM, "no memory for zlib");
    if (rc == Z_BUF_ERROR && z->avail_out == 0)
        return fkm_fail(e, FKM_EDATA, "its gzip data inflate to more than %zu bytes", cap);
    if (rc == Z_BUF_ERROR)
        return fkm_fail(
            e, FKM_EDATA, "its gzip data end early, after %zu bytes for %zu", in_len, *len);
    return fkm_fail(e, FKM_EDATA, "its gzip data are damaged at byte %lu", z->total_in);
}

fkm_status fkm_h5_lzf(
    uint8_t *out, size_t *len, size_t cap, const uint8_t *in, size_t in_len, fkm_err *e)
{
    const uint8_t *end = in + in_len;
    size_t used = 0;
    while (in < end) {
        size_t control = *in++, count = control + 1, back = 0;
        if (control >= 32) { /* a copy of what is already there, else so many bytes as they are */
            count = control >> 5;
            if (count == 7 && in < end)
                count += *in++;
            count += 2;
            back = in < end ? ((control & 31) << 8) + *in++ + 1 : used + 1;
        }
        if (back > used || (back == 0 && count > (size_t)(end - in)))
            return fkm_fail(e, FKM_EDATA, "its lzf data are damaged, %zu bytes before their end",
                (size_t)(end - in));
        if (count > cap - used)
            return fkm_fail(e, FKM_EDATA, "its lzf data inflate to more than %zu bytes", cap);
        for (size_t i = 0; i < count; i++, used++)
            out[used] = back > 0 ? out[used - back] : *in++;
    }
    *len = used;
    return FKM_OK;
}

/* Blocks small enough for the first cache; `size` is a constant where this is inlined. */
static inline void unshuffle(uint8_t *out, const uint8_t *in, size_t count, size_t size)
{
    for (size_t at = 0, end; at < count; at = end) {
        end = count - at < 1024 ? count : at + 1024;
        for (size_t i = at; i < end; i++)
            for (size_t j = 0; j < size; j++)
                out[i * size + j] = in[j * count + i];
    }
}

void fkm_h5_unshuffle(uint8_t *out, const uint8_t *in, size_t len, size_t size)
{
    size_t count = len / size;
    if (size == 2)
        unshuffle(out, in, count, 2);
    else if (size == 4)
        unshuffle(out, in, count, 4);
    else if (size == 8)
        unshuffle(out, in, count, 8);
    else
        unshuffle(out, in, count, size);
    memcpy(out + count * size, in + count * size, len % size);
}

/* Fletcher's checksum over big-endian 16-bit words, the last byte padded with 0. */
static uint32_t fletcher32(const uint8_t *data, size_t len)
{
    uint32_t a = 0, b = 0;
    for (size_t words = len / 2; words > 0;) {
        size_t some = words < 360 ? words : 360; /* as many as do not overflow */
        words -= some;
        for (; some > 0; some--, data += 2) {
            a += (uint32_t)data[0] << 8 | data[1];
            b += a;
        }
        a = (a & 0xffff) + (a >> 16);
        b = (b & 0xffff) + (b >> 16);
    }
    if (len % 2) {
        a += (uint32_t)data[0] << 8;
        b += a;
        a = (a & 0xffff) + (a >> 16);
        b = (b & 0xffff) + (b >> 16);
    }
    a = (a & 0xffff) + (a >> 16);
    b = (b & 0xffff) + (b >> 16);
    return b << 16 | a;
}

fkm_status fkm_h5_check_sum(const uint8_t *data, size_t *len, fkm_err *e)
{
    if (*len < 4)
        return fkm_fail(e, FKM_EDATA, "it has %zu bytes, too few for a checksum", *len);
    *len -= 4;
    uint32_t want = fkm_get_u32(data + *len), have = fletcher32(data, *len);
    /* HDF5 before 1.6.3 wrote it with the bytes of its halves exchanged. */
    uint32_t other = (have & 0x00ff00ff) << 8 | (have >> 8 & 0x00ff00ff);
    if (want == have || want == other)
        return FKM_OK;
    return fkm_fail(
        e, FKM_EDATA, "its checksum is %08" PRIx32 ", its data give %08" PRIx32, want, have);
}
