/* Rows and centroids made ready for screening: shifted, scaled, rounded, with norms and residuals
 * that margin.cuh builds on. */
#ifndef FKM_PACK_CUH
#define FKM_PACK_CUH

#include "assign.cuh"
#include "rows.cuh"

/* How elements are packed. Packed bytes of a row: `stride`, the screened dims rounded up to 32
 * bytes.
 */
struct fkm_packing {
    fkm_unit unit;
    int32_t dims;
    int32_t screened;  /* dims, or the length of the head */
    const float *axes; /* [screened][dims] on the device, of the head; NULL: none. See head.cuh */
    float gram;        /* of the axes; 0 */
    float *turned;     /* [FKM_TURN_ROWS][FKM_HEAD_MOST]: scratch of heads; NULL without axes */
    int32_t stride;
    float row_quant, centroid_quant; /* int8: elements a unit of the frame, powers of two; else 1 */
};

#define FKM_HEAD_MOST 192        /* longest head */
#define FKM_TURN_ROWS (64 << 10) /* rows whose heads are computed at once */

int32_t fkm_pack_stride(fkm_unit unit, int32_t dims);

/* Rows to packed rows: x [count][stride]; norm, residual and tail [count]: see fkm_packed_rows. */
cudaError_t fkm_pack_rows(void *x, float *norm, float *residual, float *tail,
    const fkm_device_rows *rows, const fkm_frame *frame, const fkm_packing *p, cudaStream_t stream);

/* Where the search of rows begins. */
struct fkm_warm_args {
    fkm_packed_rows x;
    int32_t rows;
    const int32_t *labels; /* [rows]: before */
    fkm_packed_centroids c;
    int32_t clusters;
    float *floor; /* [rows] out: S^ - m of the row's old centroid, FKM_FLOOR_NONE without one */
    /* For bounds.cuh; NULL: not wanted. reach: [rows] out, in units of the score; drop: [clusters],
     * what rows of a label have lost last, NULL: nothing. */
    float *reach;
    const float *drop;
    /* As in fkm_assign_args: those rows alone, whose packed copies go to gathered [*listed]. */
    const int32_t *row;
    const unsigned *listed;
    void *gathered;
};
cudaError_t fkm_warm_floors(const fkm_warm_args *a, const fkm_packing *p, cudaStream_t stream);

/* Centroids on the device, made ready. Owned by the backend; positions = tiles * FKM_TILE. */
struct fkm_centroid_tables {
    int32_t clusters, dims, tiles;
    float *master; /* [clusters][dims]: float32, the centroids */
    float *rows;   /* [positions][dims]: C~ */
    float *head; /* [clusters][FKM_HEAD_MOST]: room for their heads; NULL: there will be no axes */
    float *half; /* [positions]: h~; FKM_HALF_PAD for padding */
    float *fine_slope, *fine_offset; /* [positions] */
    double *norm2;                   /* [clusters]: |C~|^2 */
    uint32_t *key, *sorted_key;      /* [clusters]: norms as integers of the same order */
    int32_t *identity;               /* [clusters]: 0, 1, 2 ... */
    void *packed, *start;            /* see fkm_packed_centroids */
    float *slope, *rival, *tail, *offset;
    float *tile_slope, *tile_rival, *tile_tail, *tile_offset;
    int32_t *index, *position;
    void *sort_scratch;
    size_t sort_scratch_bytes;
};

/* Everything but `master` from `master`. */
cudaError_t fkm_prepare_centroids(const fkm_centroid_tables *t, const fkm_frame *frame,
    const fkm_packing *p, cudaStream_t stream);

fkm_packed_centroids fkm_packed_view(const fkm_centroid_tables *t, const fkm_packing *p);

/* Bytes of scratch that sorting `count` keys takes (sort.cu). */
cudaError_t fkm_sort_bytes(size_t *bytes, int64_t count);

/* Sorts keys < 2^bits with their values; stable. in and out are distinct. */
cudaError_t fkm_sort(void *scratch, size_t scratch_bytes, uint32_t *key_out, const uint32_t *key_in,
    int32_t *value_out, const int32_t *value_in, int64_t count, int bits, cudaStream_t stream);

#endif
