/* The innermost loops of the CPU backend, chosen once at run time by instruction set.
 *
 * Every kernel of a slot computes the same thing; canonical, widen and all that adds up give the
 * same bits everywhere, pack, screen, dot and norm2 may round differently within the bound of
 * screen.h. */
#ifndef FKM_KERNELS_H
#define FKM_KERNELS_H

#include "../base/dtype.h"
#include "../base/inertia.h"
#include "screen.h"
#include <stdbool.h>
#include <stdint.h>

typedef struct fkm_kernels {
    const char *isa;
    int32_t panel;      /* rows side by side in a panel: rows lie along the vector lanes */
    int32_t tile;       /* centroids in a tile; panel x tile scores live in registers */
    int32_t item;       /* bytes of an element in panels and tiles */
    int32_t dim_step;   /* they pad dims with zeros to a multiple of this */
    int32_t panel_more; /* bytes of a panel beyond its elements */
    float rate;         /* multiply-adds a cycle that screening sustains, for choices of strategy */
    bool low;           /* elements are rounded: screening is followed by scores in float32 */
    bool bytes;         /* for rows of 8-bit integers, not rounded; sums are 32-bit integers */
    fkm_dtype takes;    /* which, when bytes */
    float most_quanta;  /* largest coordinate of a rounded centroid, when bytes */
    bool picks;         /* can screen by picked centroids: lots of one, see picks.h */
    bool named;         /* in use only when asked for by name, or as what is `coarse` to others */
    const struct fkm_kernels *coarse; /* see fkm_kernels_coarse */
    const struct fkm_kernels *finer;  /* in float32, with the same panels, for rows that these leave
                                         in too much doubt: see doubt.h; NULL: none */

    /* out[i] = (float)x[i], exactly; t is an in-memory type other than float32. */
    void (*widen)(float *out, const void *x, fkm_dtype t, int64_t n);

    /* Shifts, scales and lays out the rows of one panel: v = x[r][t] * scale - shift[t], missing
     * rows (rows < panel) zero. square[r] = sum over t of v^2; residual[r] = sum over t of (v -
     * rounded v)^2, low precision only. x: [rows] pointers to [dims], of float32, or of `takes`
     * when bytes; out: 64-byte aligned. The float32 layout is [dims][panel]. ahead: [panel]
     * pointers to [dims], which kernels may fetch from memory meanwhile: the rows of the next
     * panel; NULL: there is none. kept: see fkm_tiles, for byte kernels; what they leave out counts
     * as rounded to 0. */
    void (*pack)(void *out, float *square, float *residual, const void *const *x, int32_t rows,
        int32_t dims, const float *shift, float scale, const void *const *ahead,
        const uint16_t *kept);

    /* Lays out the tile of positions [first, first + tile): c: [tile][t->screened], in the frame
     * and turned; byte kernels: [tile][t->dims]. Fills their place in t->packed, t->residual (as
     * above); byte kernels: of what is kept, t->tail: the same of what is not, and t->start. */
    void (*pack_tile)(fkm_tiles *t, int64_t first, const float *c);

    /* Scores `panels` panels of the block, from `panel` on, against tiles [begin, end) and reports
     * every score that passes its row's threshold with fkm_block_candidate. The tiles of b->own
     * come first, when begin is 0, and are left out later. */
    void (*screen)(fkm_row_block *b, int32_t panel, int32_t panels, const fkm_tiles *t,
        int32_t begin, int32_t end);

    /* Labels the rows of a screened block that one candidate is left to, by index: of positions.
     * others: [rows], which the other rows are; returns how many. label: [rows]. */
    int32_t (*settle)(
        const fkm_row_block *b, const int32_t *index, int32_t *label, int32_t *others);

    /* out[r][h] = sum over t of x[r][t] axes[h][t], within FKM_DOT_CHAIN(dims)
     * roundings. x: [rows][dims]; axes: [heads][dims]; out: [rows][heads]. */
    void (*rotate)(
        float *out, const float *x, int32_t rows, int32_t dims, const float *axes, int32_t heads);

    /* sum over t of (x[t] * scale - shift[t]) * c[t]: any order of summation whose longest chain of
     * roundings is within FKM_DOT_CHAIN(dims). */
    float (*dot)(const float *x, const float *shift, float scale, const float *c, int32_t dims);

    /* |C|^2 in float64, in any order, of C = c * scale - shift; *top: the largest magnitude of its
     * coordinates as float32. */
    double (*norm2)(const float *c, const float *shift, float scale, int32_t dims, float *top);

    /* The canonical squared distance (CONTRIBUTING.md, "The contract"), bit for bit. */
    double (*canonical)(const float *x, const float *c, int32_t dims);

    /* sum[t] += rint(x[t] * scale), scale a power of two, |x * scale| < 2^62. */
    void (*add_row)(int64_t *sum, const float *x, int32_t dims, double scale);

    /* The same of 8-bit integers (t: FKM_U8 or FKM_I8): sum[i] += x[i] << shift, or -= when they
     * leave; and the sum of x[i]^2. */
    void (*add_bytes)(
        int64_t *sum, const void *x, fkm_dtype t, int32_t dims, int32_t shift, bool leaves);
    int64_t (*squares_of_bytes)(const void *x, fkm_dtype t, int32_t dims);

    /* mean[t] = (float)((double)sum[t] / count * scale), scale a power of two. */
    void (*mean_row)(float *mean, const int64_t *sum, int32_t dims, double count, double scale);

    /* With q = rint(x[t] * scale): sum[0] += h, sum[1] += q^2 - h split, |q^2 - h split| <= split,
     * over all t. split is a power of two at least |q|; the caller sees to it that no sum
     * overflows. */
    void (*add_squares)(int64_t sum[2], const float *x, int32_t dims, double scale, double split);

    /* What inertia is made of, of at most FKM_INERTIA_PIECE dims: see base/inertia.h. */
    fkm_inertia_piece *inertia_piece;
} fkm_kernels;

/* The i-th table entry, best first; NULL at the end. *usable: this CPU can run it. */
const fkm_kernels *fkm_kernels_at(int i, bool *usable);

/* Most dims of rows that byte kernels take: their sums fit 32 bits (bytes_tmpl.h). */
#define FKM_BYTES_MOST_DIMS 16384

/* Most dims of rows that are rounded to 8-bit integers (screen.h). */
#define FKM_COARSE_MOST_DIMS 65536

/* Can these kernels screen such rows? */
static inline bool fkm_kernels_take(const fkm_kernels *k, fkm_dtype t, int32_t dims)
{
    if (k->named) /* nothing is to be gained by rounding 8-bit integers */
        return t != FKM_U8 && t != FKM_I8 && dims <= FKM_COARSE_MOST_DIMS;
    return !k->bytes || (k->takes == t && dims <= FKM_BYTES_MOST_DIMS);
}

/* Bytes of a panel, and of a tile. */
static inline size_t fkm_panel_bytes(const fkm_kernels *k, int32_t dims)
{
    return (size_t)((dims + k->dim_step - 1) / k->dim_step * k->dim_step) *
               (size_t)(k->panel * k->item) +
           (size_t)k->panel_more;
}

static inline size_t fkm_tile_bytes(const fkm_kernels *k, int32_t dims)
{
    return (size_t)((dims + k->dim_step - 1) / k->dim_step * k->dim_step) *
           (size_t)(k->tile * k->item);
}

/* Low kernels with the panels and tiles of k, quicker and less precise, for rows whose margins are
 * wide; NULL: there are none, or none that would fit into the room of k. */
static inline const fkm_kernels *fkm_kernels_coarse(const fkm_kernels *k, int32_t dims)
{
    const fkm_kernels *c = k->coarse;
    bool fits = c && dims <= FKM_COARSE_MOST_DIMS &&
                fkm_panel_bytes(c, dims) <= fkm_panel_bytes(k, dims) &&
                fkm_tile_bytes(c, dims) <= fkm_tile_bytes(k, dims);
    return fits ? c : NULL;
}

extern const fkm_kernels fkm_kernels_scalar, fkm_kernels_avx2, fkm_kernels_avx512,
    fkm_kernels_amx_bf16, fkm_kernels_amx_s8, fkm_kernels_amx_u8, fkm_kernels_amx_i8,
    fkm_kernels_vnni_u8, fkm_kernels_vnni_i8, fkm_kernels_vnni_s8, fkm_kernels_vnni_s16,
    fkm_kernels_avx2_u8, fkm_kernels_avx2_i8, fkm_kernels_avx2_s8;

#endif
