/* Screening of rows against all centroids: what a kernel of cuda/table.cu is given, and what it
 * owes. The portable kernels are in assign.cu (mma.sync, sm_80 and later); a kernel for another
 * architecture implements fkm_assign_fn over the same arguments and gets a row in the table.
 *
 * For every row the kernel computes scores S^_j = start_j + x^.c^_j in its matrix unit and keeps
 *   floor      the largest S^ - m seen so far (m: see margin.cuh), warm-started;
 *   candidates every position whose S^ + m reached the floor when it was met;
 *   second     the largest S^ + m, or more, of those that reached floor - reach when they were met
 *              and are no candidates, or not any longer. What never reached that is below the final
 *              floor - reach. So max(second, floor - reach) bounds what is no candidate.
 * A row with one candidate left at the end has its label. A row with more is put on the list of
 * rows in doubt, with its candidates. A row whose candidates did not fit, or that cannot be
 * screened (residual < 0), is put on the list of rows to rescan. Nothing else is decided here:
 * resolve.cu does the rest. Any order of tiles and any number of reports of hopeless candidates is
 * right; dropping a position with S^ + m >= the final floor is wrong.
 *
 * Layouts. Rows and centroids are packed alike: `stride` bytes each, a multiple of 32 and at most
 * FKM_PACK_STRIDE_MAX, zero beyond `dims`; base addresses are aligned to 256 bytes. Centroids are
 * sorted by norm ("positions") and padded to whole tiles of FKM_TILE; padding scores -3e38, or
 * INT32_MIN for int8, below every centroid, and must not become a candidate (index is -1). Rows are
 * not padded: at row `rows` memory ends.
 *
 * Units. Scores of int8 are integers; floors and margins are floats in the same unit, and an
 * integer score is turned into a float before it is compared with them. */
#ifndef FKM_ASSIGN_CUH
#define FKM_ASSIGN_CUH

#include <cuda_runtime.h>
#include <stdint.h>

#define FKM_TILE 128            /* centroids that share a margin; positions are padded to this */
#define FKM_CANDIDATES 16       /* kept a row */
#define FKM_FLOOR_NONE (-1e37f) /* below every score but that of padding */
#define FKM_FLOOR_DEAD 1e37f    /* nothing reaches it: rows that are not screened */
#define FKM_HALF_PAD 3e38f
#define FKM_START_PAD_S8 INT32_MIN
#define FKM_S8_MOST 0x1p30 /* sums of products, and -start, are at most this */

/* Types of packed elements. */
enum fkm_unit { FKM_UNIT_F16, FKM_UNIT_BF16, FKM_UNIT_S8, FKM_UNITS };

/* Rows packed for screening, on the device; see pack.cuh. */
struct fkm_packed_rows {
    const void *x;         /* [rows] of stride bytes */
    const float *norm;     /* [rows] >= |X~|; 0 when the row cannot be screened */
    const float *residual; /* [rows] >= |X - X^|; negative: the row cannot be screened */
    const float *tail;     /* [rows] >= |X beyond the head|; 0 without a head (head.cuh) */
};

/* Centroids packed for screening, on the device; [positions] is a multiple of FKM_TILE. */
struct fkm_packed_centroids {
    const void *c;     /* [positions] of stride bytes */
    const void *start; /* [positions] float -|C|^2 / 2, or the int32 nearest to it for int8 */
    /* [positions]: m = norm slope + residual rival + tail tail + offset + kappa norm^2 */
    const float *slope, *rival, *tail, *offset;
    const float *tile_slope, *tile_rival, *tile_tail, *tile_offset; /* [tiles]: largest of a tile */
    const int32_t *index;    /* [positions]: which centroid; -1: padding */
    const int32_t *position; /* [clusters]: inverse of index */
    float kappa;
};

/* Counters of a pass, on the device; kernels add to them. */
struct fkm_screen_counts {
    unsigned long long rows, skipped, moved, in_doubt, candidates, rescans;
    unsigned long long spared; /* rows that bounds.cuh has spared the search */
};

/* Room for what is known of rows after a part of the tiles, when several blocks share a row: see
 * fkm_splits. Entry split * rows + i is that of the i-th row. */
struct fkm_parts {
    int32_t room;          /* entries; 0: rows are not shared */
    float *floor, *second; /* [room] */
    int32_t *count;        /* [room]: candidates; more than FKM_CANDIDATES: they did not fit */
    int32_t *position;     /* [FKM_CANDIDATES][room] */
    float *upper;          /* [FKM_CANDIDATES][room]: their S^ + m */
};

/* Entries that are enough for any kernel of the table. */
#define FKM_PART_ROWS 256 /* a processor */

/* What a GPU can do, as the table and kernels need it. */
struct fkm_chip {
    int32_t compute;      /* 80, 90, 120 ...: 10 major + minor */
    int32_t shared_bytes; /* most dynamic shared memory a block may ask for */
    int32_t processors;
    bool portable; /* asked for portable kernels only */
};

struct fkm_assign_args {
    int32_t rows;     /* of this launch, > 0; when they are listed: the most that may be */
    int32_t tiles;    /* of centroids, > 0 */
    int32_t clusters; /* <= tiles * FKM_TILE */
    int32_t stride;   /* bytes of a packed row or centroid */
    fkm_packed_rows x;
    fkm_packed_centroids c;

    /* Rows may be listed: x.x holds *listed of them, the i-th is row[i]. Everything else that is
     * said to be [rows] is that of all rows, and lists name rows of those. */
    const int32_t *row;     /* [*listed]; NULL: row i is row i */
    const unsigned *listed; /* on the device; <= rows */

    float *floor;       /* [rows] in: a lower bound of the nearest centroid's S^ - m, or
                           FKM_FLOOR_NONE; out: the final floor of rows in doubt and rescans, with
                           `second` of all */
    const float *reach; /* [rows] >= 0: see above; NULL: 0 */
    float *second; /* [rows] out: >= S^ + m of all centroids but the label or, of rows in doubt,
                      the candidates; FKM_FLOOR_DEAD for rescans. NULL: not wanted */
    const int32_t *old;        /* [rows]: labels before, -1: none; only compared */
    int32_t *labels;           /* [rows] out, of settled rows; others are left alone. Not `old` */
    fkm_screen_counts *counts; /* += rows, moved (settled rows); in_doubt, candidates, rescans */

    /* Few rows: blocks share them, each with a part of the tiles, and fkm_merge_parts settles them.
     */
    fkm_chip chip; /* that it runs on */
    fkm_parts parts;

    /* Rows in doubt: entry i is doubt_row[i] with doubt_size[i] candidates, 2 or more, at positions
     * doubt_position[i][FKM_CANDIDATES]. There is room for `rows` entries on either list. */
    unsigned *doubt_count;
    int32_t *doubt_row, *doubt_size, *doubt_position;
    unsigned *rescan_count;
    int32_t *rescan_row; /* [rows] */
};

/* Queues the screening on `stream`; no synchronisation, no allocation. */
typedef cudaError_t fkm_assign_fn(const fkm_assign_args *a, cudaStream_t stream);

/* How many blocks share `rows_a_block` of `rows` rows, for about `busy` blocks to have work: each a
 * range of tiles. */
#define FKM_LEAST_TILES 2 /* a block */
static inline __host__ __device__ int32_t fkm_splits(
    const fkm_assign_args &a, int32_t rows, int32_t rows_a_block, int32_t busy)
{
    const int32_t blocks = (rows - 1) / rows_a_block + 1, most = a.tiles / FKM_LEAST_TILES;
    int32_t splits = busy / blocks < most ? busy / blocks : most;
    while (splits > 1 && (int64_t)splits * rows > a.parts.room)
        splits--;
    return splits < 1 ? 1 : splits;
}

/* Settles rows that `splits` blocks have shared: merge.cu. Queued after a kernel whose rows_a_block
 * and busy these are; does nothing where it has not split. */
cudaError_t fkm_merge_parts(
    const fkm_assign_args *a, int32_t rows_a_block, int32_t busy, cudaStream_t stream);

/* A row of the table: a kernel, and for whom it is. The first row that suits is taken. */
struct fkm_assign_kernel {
    const char *name; /* for --isa, stats.json and messages: "f16-128k", "f16-sm90a" */
    fkm_unit unit;
    int32_t compute_min, compute_max; /* architectures, inclusive */
    int32_t stride_max;               /* longest packed row */
    int32_t shared_bytes;             /* dynamic shared memory it takes for that stride, at most */
    fkm_assign_fn *run;
};

/* The kernel for a chip, unit and stride; there always is one for compute >= 80. */
const fkm_assign_kernel *fkm_assign_choose(const fkm_chip *chip, fkm_unit unit, int32_t stride);

#endif
