/* Cluster sums as integers, and what follows from them: means, movements, inertia.
 *
 * Coordinates are added as q = rint(x 2^e). A sum is one 64-bit word, or, when 128 bits are asked
 * for, four words that each add up 32 bits of q's two's complement: the sum is the sum of words
 * times 2^(32 l), mod 2^128. Words are added with integer atomics, so nothing here has an order. */
#ifndef FKM_UPDATE_CUH
#define FKM_UPDATE_CUH

#include "rows.cuh"

#define FKM_WIDE_WORDS 4

/* Sums of one device. */
struct fkm_sums {
    fkm_u64 *sum;   /* [clusters][dims][words] */
    fkm_u64 *count; /* [clusters] */
    int32_t clusters, dims;
    int32_t words;          /* 1, or FKM_WIDE_WORDS */
    float scale_a, scale_b; /* 2^exponent, as a product: either may not be a float32 alone */
};

/* Scratch of the sort of one chunk. */
struct fkm_sort_room {
    uint32_t *key, *sorted_key; /* [rows] */
    int32_t *row, *sorted_row;  /* [rows] */
    void *scratch;
    size_t scratch_bytes;
};

/* Adds rows by labels (-1: none): sorts them by label and sums each segment in registers. */
cudaError_t fkm_sums_add(const fkm_sums *s, const fkm_device_rows *rows, const int32_t *labels,
    const fkm_sort_room *room, cudaStream_t stream);

/* The same for rows that the sums hold by the labels `old`: touches only what differs. */
cudaError_t fkm_sums_change(const fkm_sums *s, const fkm_device_rows *rows, const int32_t *old,
    const int32_t *labels, cudaStream_t stream);

/* to += from, word by word; of the same shape. */
cudaError_t fkm_sums_merge(const fkm_sums *to, const fkm_sums *from, cudaStream_t stream);

/* ---- what a pass brings back ---- */

/* Exact sums, gathered by exponent: bin g holds terms t 2^(16 g) as four words of 32 bits, the last
 * with its sign, summed; 2^(32 l) weighs word l. */
#define FKM_BINS 16
#define FKM_BIN_WORDS 4
typedef long long fkm_bins[FKM_BINS][FKM_BIN_WORDS];

/* Squares of coordinates: rows' q = m 2^(x - 23), bin x / 16, value m^2 2^(2 x % 32); exponent of
 * bin g: 2 (16 g - 23) - 2 e. */
struct fkm_squares {
    fkm_bins bin;
};

/* squares += |q|^2 of rows with a label. */
cudaError_t fkm_squares_add(fkm_squares *squares, const fkm_sums *s, const fkm_device_rows *rows,
    const int32_t *labels, cudaStream_t stream);

/* From a set of sums: terms of inertia against `c`, and the means. Exponents of bin g, for a
 * centroid coordinate m 2^(f - 150), g = f / 16: square 2 (16 g - 150); product 16 g - 149 - e (to
 * be subtracted), product_high 64 more (wide sums only). */
struct fkm_moments {
    fkm_bins square, product, product_high;
    fkm_u64 empty;
    fkm_u64 max_shift; /* bits of the largest movement, a float64 >= 0 */
    fkm_u64 max_value; /* bits of the largest |coordinate| of the means, a float32 >= 0 */
};

/* mean: [clusters][dims] = sum / count 2^-e rounded once, or c where count is 0; shift [clusters] =
 * |mean - c|. *m is added to: zero it before. */
cudaError_t fkm_finalise(fkm_moments *m, float *mean, double *shift, const fkm_sums *s,
    const float *c, double unscale, unsigned blocks, cudaStream_t stream);

#endif
