/* Certified screening in float32: proving that a centroid is not the nearest.
 *
 * Notation: u = 2^-24; mu a fixed shift, s a power of two; X = (x - mu) s and C = (c - mu) s in
 * exact arithmetic; X~, C~ their float32 images x s - mu s rounded; nx >= |X~|, nc >= |C~|; h~ =
 * |C|^2 / 2 rounded to float32. The nearest centroid has the largest true score S = X.C - |C|^2
 * / 2. The kernels compute S~ = -h~ + sum X~_t C~_t in float32. Then, for all data,
 *
 *   | S~ - (X~.C~ - h~) | <= gamma (nx nc + h~)      any order, at most `chain` roundings a term:
 *                                                    gamma = chain u / (1 - chain u)
 *   | X~.C~ - X.C |       <= (2u + 3u^2) nx nc       one rounding a coordinate on either side
 *   | h~ - |C|^2 / 2 |    <= 2u h~                   float64 sum, rounded once
 *
 * The label is defined by the *canonical* distance D~ = D (1 + theta) with |theta| <= (dims / 8 +
 * 8) 2^-53 (sub, mul, dims / 8 additions a lane, 3 to fold them), where D = |x - c|^2. In units of
 * the score that is |theta| D s^2 / 2 <= kappa (nx + nc)^2, kappa = theta / 2. Comparing scores
 * instead of canonical distances costs this much on either side. Thresholds are themselves computed
 * in float32: 6u (nx nc + h~) pays for the few roundings in S~ +- e and in the subtraction of the
 * tile's margin. Products, squares and scaled coordinates may underflow: with dims <= 2^20 these
 * losses are below FKM_TINY absolute. So with
 *
 *   e(i, j) = nx_i slope_j + offset_j + kappa nx_i^2
 *   slope_j  = ((gamma + 9u) nc_j + 2 kappa nc_j) (1 + 2^-10) + FKM_TINY
 *   offset_j = ((gamma + 9u) h~_j + kappa nc_j^2) (1 + 2^-10) + FKM_TINY
 *
 * the canonical distances of row i to j and to b satisfy: if S~_j + e(i, j) < S~_b - e(i, b), then
 * j is strictly farther than b and is not the label, whatever the ties. No assumption on the data
 * is made. tests/kernels/test_certificate.c holds adversarial rows for which half of this bound is
 * too small.
 *
 * A row keeps `floor`, the best S~ - e seen so far. Centroids are sorted by norm, so that the
 * margin of a tile (the largest of its slopes and offsets) is nearly that of each of its centroids:
 * the inner loop is a max per score and one compare per tile and row; what passes is handed to
 * fkm_block_candidate.
 *
 * Low precision. Matrix units screen rounded copies X^ of X~ and C^ of C~ first. With rx >= |X -
 * X^| and rc >= |C - C^|, both measured when the copies are made,
 *
 *   | S^ - S | <= rx (nc + rc) + nx rc + gamma' (nx nc + h~),    gamma' from the unit's chain
 *
 * by Cauchy-Schwarz: X^.C^ - X.C = X^.(C^ - C) + (X^ - X).C, and |X^| <= nx + rx. Copies are in
 * bf16, or in integers times a quantum of the row and one of the centroid; sums of
 * those are exact (dims at most FKM_COARSE_MOST_DIMS), and a score has three roundings, of terms
 * whose product is below (nx + rx) (nc + rc) <= 4.1 nx nc (the nearest integer, 0 being one, is off
 * a coordinate by no more than that is itself): gamma' is larger. With the same allowances as above
 * this gives a margin of the same shape,
 *
 *   m(i, j) = nx slope_j + rx residual_j + offset_j + kappa nx^2,
 *
 * and everything said of S~ and e holds of S^ and m. Rows of 8-bit integers x are not rounded at
 * all: with C^ = q g, g integers in [-127, 127] and one quantum q for a tile,
 *
 *   X.C^ - h~ = s q (sum x_t g_t - H),   H = (q sum (mu s)_t g_t + h~) / (s q)
 *
 * is summed in integers, H rounded to one (half a unit s q in the offset), and as a float once.
 * Dims along which centroids hardly extend, as of pixels at the edge, are left out of these sums:
 * with tail >= the length of X, and of C, in the dims left out, that adds tail_i tail_j to m(i, j).
 *
 * When more than one candidate is left, they are
 * scored again in float32 and judged by e(i, j), and only then by the canonical distance. */
#ifndef FKM_SCREEN_H
#define FKM_SCREEN_H

#include "../base/pool.h"
#include "../base/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Kernels sum at most this many products before adding them to an outer sum. */
#define FKM_SEGMENT 512

/* Longest chain of roundings of `dot`: 16 partial sums at least, then folded. */
#define FKM_DOT_CHAIN(dims) ((dims) / 16 + 24)

#define FKM_TINY 0x1p-120f
#define FKM_NORM_TINY 0x1p-64f  /* squares of coordinates below 2^-75 underflow */
#define FKM_NORM_MAX 0x1p60f    /* beyond, scores could overflow: decided canonically */
#define FKM_FLOOR_NONE (-1e37f) /* below every real score, above the score of padding */
#define FKM_HALF_PAD 3e38f      /* h~ of padding centroids */
#define FKM_UNSCORED 1e30f      /* residual of a centroid that byte kernels do not score */
#define FKM_GROUP 4             /* dims that byte kernels keep or leave out together */
#define FKM_BYTES_TOP 127       /* most of a centroid's coordinate in quanta, byte kernels */

struct fkm_kernels;

/* Of a centroid among the tiles. */
typedef struct fkm_place {
    int32_t tile, slot;
} fkm_place;

/* Centroids made ready for screening. Positions are centroids sorted by norm, padded to whole
 * tiles. */
typedef struct fkm_tiles {
    const struct fkm_kernels *kernels;
    int32_t dims, clusters;
    int32_t tile, count;         /* centroids a tile; tiles */
    size_t tile_bytes;           /* of one tile in `packed` */
    uint32_t frame;              /* number of the frame (scale, shift, kept) in use; 0: none yet */
    uint32_t order, order_frame; /* number of the order of positions; the frame it was made in */
    int32_t lot, lots;           /* positions that panels keep one distance to: a tile, or one */
    float *drift;                /* [lots]: how far centroids have moved in it, see apart.h */
    const int32_t *real; /* [positions]: those of picked centroids, see picks.h; else NULL */
    float scale;         /* s */
    float *shift;        /* [dims]: mu s */
    char *packed;        /* [count] tiles in the kernel's own layout, of C~ or C^ */
    float *rows;         /* [positions][dims]: C~ again, for `dot` */
    float *half;         /* [positions]: h~ */
    float *tile_half;    /* [count]: the least of a tile */
    float *slope, *residual, *offset;                /* [positions]: of m(i, j), or e(i, j) */
    float *tail;                                     /* [positions]: see head.h; of dims left out */
    float *fine_slope, *fine_offset;                 /* [positions]: of e(i, j) */
    float *tile_tail;                                /* [count] */
    float *tile_slope, *tile_residual, *tile_offset; /* [count]: maxima of m over a tile */
    float
        *centroid_quantum; /* [positions]: of rounded coordinates, kernels that round to integers */
    bool *narrow;          /* [count]: may a kernel add by 16 bits? see kernels_avx2_int8.c */
    int32_t *start;        /* [positions]: what sums of integers start at, or are raised by */
    float *quantum,
        *unit;  /* [count]: of rounded coordinates, and of sums, in scores; byte kernels */
    bool alike; /* one quantum would do for all tiles: their centroids can be picked */
    float kappa;
    int32_t screened;  /* coordinates that the kernel sees: dims, those kept, or of the head */
    uint16_t *kept;    /* [steps of 64 dims]: groups of FKM_GROUP dims that byte kernels see, the
                          first in the lowest bit */
    const float *axes; /* [screened][dims]: of the head, borrowed; NULL: none */
    float gram;        /* at least |axes axes' - 1|, the spectral norm */
    float *turned;     /* [tile][screened]: scratch */
    double *norm2;     /* [clusters]: |C|^2 */
    float *size, *top; /* [clusters]: largest coordinates, as they are and in the frame */
    bool measured;     /* norm2, size and top are of the centroids to be set, in this frame */
    double far;        /* at least the length of the shift */
    int32_t *index;    /* [positions]: which centroid; -1: padding */
    bool *twin;        /* [positions]: known to equal a centroid of a lower index, which has the
                          rows that are nearest to both */
    int32_t *position; /* [clusters]: inverse of index */
    fkm_place *place;  /* [clusters]: the same, by tile */
    double *order_key; /* [clusters]: scratch of the sort */
} fkm_tiles;

/* At least the length of a rounded product of `screened` axes with a vector of length 1, less the
 * exact one: each coordinate is a dot product of FKM_DOT_CHAIN roundings with an axis of length
 * near 1. */
double fkm_turn_error(int32_t screened, int32_t dims);

/* Bytes that fkm_tiles_open allocates. */
int64_t fkm_tiles_bytes(const struct fkm_kernels *k, int32_t clusters, int32_t dims);
fkm_status fkm_tiles_open(fkm_tiles *t, const struct fkm_kernels *k, int32_t clusters, int32_t dims,
    fkm_err *e) FKM_MUST_USE;
void fkm_tiles_close(fkm_tiles *t); /* safe on zeroed structs */

/* Shifts, scales, sorts and packs c: [clusters][dims], finite. The frame is kept while it suits, so
 * that rows packed in it stay good; t->frame changes when it does not. margin_factor is 1; tests
 * take 0.5 to see that the bound is not idle. */
void fkm_tiles_set(fkm_tiles *t, const float *c, double margin_factor, fkm_pool *pool);

/* Measures centroid j, c: [dims], for the next fkm_tiles_set or _follow, which need not when all
 * that have changed since the last one are measured and t->measured is set. From any thread. */
void fkm_tiles_measure(fkm_tiles *t, int32_t j, const float *c);

/* The same for centroids that have moved by shift[j]: [clusters], in data units, since they were
 * set; they keep their positions as long as the frame stays. */
void fkm_tiles_follow(fkm_tiles *t, const float *c, const double *shift, fkm_pool *pool);

/* Lots of so many centroids from now on, while no distances to any are kept. Tiles of byte kernels
 * are to be set again for lots of one: picked ones need one quantum for all. */
void fkm_tiles_lots(fkm_tiles *t, int32_t lot);

/* Screens by the first coordinates along `axes` from the next fkm_tiles_set on, in a new frame: see
 * head.h. axes NULL: by all coordinates again. */
void fkm_tiles_turn(fkm_tiles *t, const float *axes, int32_t screened, float gram);

/* Byte kernels see the groups of `kept` alone from the next fkm_tiles_set on, in a new frame: as
 * many as fill whole steps. NULL: all. */
void fkm_tiles_keep(fkm_tiles *t, const uint16_t *kept);

/* The next fkm_tiles_set chooses a frame, and what byte kernels see, anew. */
void fkm_tiles_renew(fkm_tiles *t);

/* Screens with other kernels of the same panels from the next fkm_tiles_set on, in a new frame:
 * those that t was opened with, or what is coarse or finer to them. */
void fkm_tiles_use(fkm_tiles *t, const struct fkm_kernels *k);

/* ---- rows being screened ---- */

#define FKM_CANDIDATES 64 /* kept a row; more and the row is screened again on its own */

#define FKM_OWN_TILES 8 /* tiles of a panel's own centroids that are screened first */

/* A block of rows being screened, padded to whole panels; padding has floor = +big. Arrays are a
 * worker's scratch, or a part of an fkm_row_store. */
typedef struct fkm_row_block {
    int32_t rows;      /* real ones */
    char *panels;      /* [panels] in the kernel's own layout, of X~ or X^ */
    float *norm;       /* [rows]: nx, rounded up */
    float *residual;   /* [rows]: rx, rounded up; 0 unless low precision */
    float *tail;       /* [rows]: |x in what is not screened|, rounded up; 0 if all is */
    float *slack;      /* [rows]: kappa nx^2 */
    float *floor;      /* [rows]: best S - m seen so far: below the score of the nearest */
    int32_t *count;    /* [rows]: candidates; FKM_CANDIDATES + 1: overflow */
    int32_t stride;    /* rows that there is room for */
    int32_t *position; /* [FKM_CANDIDATES][stride]: the candidates of each row */
    float *upper;      /* [FKM_CANDIDATES][stride]: their S + m */
    int32_t *own;      /* [panels][FKM_OWN_TILES]: screened first; -1: none */
    bool rivals;       /* collect `second` */
    float *second;     /* [rows]: no centroid but the row's old one has a true score above this */
    int32_t *old_tile, *old_slot; /* [rows]: where its old centroid is; -1: it had none */
    float *apart;                 /* [panels][lots]: to be kept, see apart.h; NULL: not wanted */
    bool apart_known;             /* apart, slip and ref hold */
    float *slip;                  /* [panels]; kept with apart */
    float *ref;                   /* [rows] */
    float *base;                  /* [rows]; when apart */
    float *reach;                 /* [panels]; kept with apart */
    bool *unmoved;           /* [panels]: the centroids of its rows' labels have not moved since
                                they were the nearest, and are in its own tiles */
    const bool *moved_lot;   /* [lots]: have any of its centroids? when panels are unmoved */
    float *beyond;           /* [panels]: least apart - drift of the lots that were left out */
    int64_t spared;          /* pairs of a panel and a lot that were left out */
    struct fkm_picks *picks; /* see picks.h; NULL: kernels do not pick */
} fkm_row_block;

/* Has this tile been screened first? own: [FKM_OWN_TILES] of the panel. */
static inline bool fkm_is_own(const int32_t *own, int32_t tile)
{
    bool found = false;
    for (int i = 0; i < FKM_OWN_TILES; i++)
        found |= own[i] == tile;
    return found;
}

/* m(i, j) of a row and a position. */
float fkm_block_margin(const fkm_row_block *b, int32_t row, const fkm_tiles *t, int32_t position);

/* A score that passed its row's threshold: raises the floor, keeps the candidate if it still
 * stands. position -1: padding of picked centroids. */
void fkm_block_candidate(
    fkm_row_block *b, int32_t row, const fkm_tiles *t, int32_t position, float score);

#endif
