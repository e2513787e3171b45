/* Rows of a chunk laid out for screening, kept from pass to pass: in an order of their own, by
 * label, so that a panel's rows have few centroids between them, and so that what is known of a row
 * lies beside what is known of the next.
 *
 * A position is a place in that order; row order[p] of the chunk is at position p. */
#ifndef FKM_STORE_H
#define FKM_STORE_H

#include "../base/pool.h"
#include "kernels.h"

typedef struct fkm_row_store {
    uint32_t frame;              /* of the tiles that the rows were packed with; 0: not packed */
    bool known;                  /* order and label hold */
    bool ordered;                /* by label */
    int64_t strays;              /* labels that have changed since */
    int64_t moved, moved_before; /* in the last pass, and in the one before */
    int64_t debt;                /* strays of all passes since */
    int32_t *order;              /* [rows rounded up to panels] */
    int32_t *label;              /* the same: labels of the last pass, by position */
    char *panels;                /* with apart behind them */
    size_t panel_bytes; /* that each has room for; 0: no panels, and none of their figures */
    int64_t panel_count;
    int64_t room;         /* bytes of panels and apart */
    float *norm;          /* see fkm_row_block */
    float *residual;      /* negative: the row cannot be screened */
    float *tail;          /* NULL: 0 */
    float *apart;         /* [panels][lots]: see apart.h; NULL: there is no room */
    float *slip, *reach;  /* [panels]: the same */
    float *ref;           /* the same */
    uint32_t apart_order; /* of the tiles that they are of; 0: none are kept */
    bool reach_holds;     /* reach is of the last pass */
    char *memory;         /* all of it */
} fkm_row_store;

typedef struct fkm_store_shape {
    int32_t panel;      /* rows of one */
    size_t panel_bytes; /* 0: none are kept */
    int32_t lots;       /* to keep distances to; 0: none */
    bool tails;         /* of rows with panels: are they kept? */
} fkm_store_shape;

/* One piece of memory, so that it lies on huge pages. */
int64_t fkm_row_store_bytes(const fkm_store_shape *shape, int64_t rows);
fkm_status fkm_row_store_open(
    fkm_row_store *s, const fkm_store_shape *shape, int64_t rows, fkm_err *e) FKM_MUST_USE;
void fkm_row_store_close(fkm_row_store *s); /* safe on zeroed structs */

/* Bytes of a panel as it is kept for these tiles; 0: it is not, as rows are screened as they are,
 * or there is no room. */
size_t fkm_row_store_packs(const fkm_row_store *s, const fkm_tiles *t);

/* Puts distances to so many lots behind panels of so many bytes, which may be fewer than there is
 * room for; those that were kept are lost. false: not even so is there room for them. */
bool fkm_row_store_place(fkm_row_store *s, size_t panel_bytes, int32_t lots);

/* Forgets the labels: rows in the order they come. labels: [count], by row. */
void fkm_row_store_start(fkm_row_store *s, const int32_t *labels, int64_t count);

/* In how many parts to sort so many rows: enough of them each to be worth counting apart. */
int32_t fkm_row_store_parts(int64_t count, int32_t clusters, int threads);

/* The order of labels: that of the positions of centroids in tiles, so that panels whose rows have
 * several are near few tiles. */
typedef struct fkm_label_order {
    int32_t clusters;
    const int32_t *rank, *label; /* [clusters]: of a label, and of a rank; NULL: by number */
} fkm_label_order;

/* Brings positions into label order, rows without a label last; what is packed is stale then.
 * start: [parts][clusters + 1] and other: [count] are scratch; pool NULL: without. */
void fkm_row_store_sort(fkm_row_store *s, int64_t count, const fkm_label_order *by, int32_t parts,
    fkm_pool *pool, int64_t *start, int32_t *other);

#endif
