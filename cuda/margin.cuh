/* The certificate of the matrix units: how far a score may be from the truth.
 *
 * Notation of src/cpu/screen.h: u = 2^-24; X = (x - mu) s, C = (c - mu) s exactly; X~, C~ their
 * float32 images; nx >= |X~|, |X| (1 - u); nc, h~ = |C|^2 / 2 likewise. The kernels see X^ and C^,
 * any vectors with rx >= |X - X^| and rc >= |C - C^|, both measured when the copies are made. The
 * true score is S = X.C - |C|^2 / 2, the kernel's S^ = -h~ + sum X^_t C^_t as its unit adds it up.
 *
 *   | X^.C^ - X.C | <= |X^ - X| |C| + |X^| |C^ - C| <= rx nc + (nx + rx) rc       (Cauchy-Schwarz)
 *   | S^ - (X^.C^ - h~) | <= gamma ((nx + rx) (nc + rc) + h~)
 *
 * gamma: what the unit loses by adding. Products of fp16 and of bf16 are exact in float32. How the
 * unit adds them is not documented. Assumed is, of one m16n8k16 (or any 16 products and an
 * accumulator, in any shape of instruction):
 *
 *   | d - (a + sum p_k) | <= FKM_MMA_LOSS M,    M = the largest of |a|, |p_k|, |d|,
 *
 * with FKM_MMA_LOSS = 18 2^-23: each of 17 addends aligned to the largest and cut to 24 bits, the
 * sum cut again. That is coarser than what has been published of V100, A100 and H100 (cuts toward
 * zero of 24, 25 and 26 bits; Fasi, Higham, Mikaitis, Pranesh 2021). Every partial sum is within
 * h~ + |X^| |C^|, so gamma = g / (1 - g), g = ceil(dims / 16) FKM_MMA_LOSS. The layer of the tests
 * has a mode that cuts like this, always in the direction that hurts (CUO_MMA=worst).
 *
 * int8: sums of int32 are exact, gamma = 0; -h~ is rounded to an integer number of quanta (and cut,
 * should it not fit), and by how much, measured, is in the offset. The score is turned into float32
 * once: 1 u, paid for by the 9 u below.
 *
 * Float32 in the doubt (resolve.cu): a dot product in any order with chains of at most
 * FKM_DOT_CHAIN roundings, as on the CPU. With the canonical slack kappa and the allowances for
 * thresholds (9 u, see src/cpu/screen.h) this gives
 *
 *   e(i, j) = nx fine_slope + fine_offset + kappa nx^2
 *   m(i, j) = nx slope + rx rival + offset + kappa nx^2
 *   slope   = fine_slope + rc + (gamma + 9 u) (nc + rc)
 *   rival   = (nc + rc) (1 + gamma + 9 u)
 *   offset  = fine_offset + (gamma + 9 u) h~ + | start + h~ |
 *
 * Fewer dimensions. With axes A, |A A' - 1| <= gram (head.cuh), the unit sees X^ and C^ near y = A
 * X and z = A C, and X.C = y.z - y'(A A' - 1) z + x_t.c_t for what is beyond them. |y| <= |X| (1 +
 * gram); rx and rc then include how far the computed y and z may be off, fkm_turn_error of the
 * length each:
 *
 *   m      = nx slope + rx rival + tail_i tail_j + offset + kappa nx^2
 *   slope  = fine_slope + (1 + gram)^2 (rc + (gamma + 9 u) (nc + rc) + gram nc)
 *   rival  = (1 + gram)^2 (nc + rc) (1 + gamma + 9 u)
 *   tail^2 = |X|^2 - |y|^2 (1 - gram), from bounds of both; likewise of C
 *
 * and if S^_j + m(i, j) < S^_b - m(i, b), then j is strictly farther than b in the canonical
 * distance. Everything is computed in float64 and rounded up. No assumption on the data is made.
 *
 * tests/cuda: rows for which half of this margin gives a wrong label. */
#ifndef FKM_MARGIN_CUH
#define FKM_MARGIN_CUH

#include "assign.cuh"
#include "device.cuh"

#include <math.h>

#define FKM_U 0x1p-24
#define FKM_MMA_LOSS (18 * 0x1p-23)
#define FKM_DOT_CHAIN(dims) ((dims) / 16 + 24)
#define FKM_HIGHER_ORDER (1 + 0x1p-10) /* second-order terms, and rounding of the bound itself */
#define FKM_TINY 0x1p-100f             /* underflow, with dims <= 2^20 */
#define FKM_NORM_TINY 0x1p-64f         /* squares of coordinates below 2^-75 underflow */
#define FKM_NORM_MAX 0x1p60f           /* beyond, scores could overflow: decided canonically */

/* An upper bound of |X~| from its float32 sum of squares in any order. NaN stays NaN. */
static __device__ __forceinline__ float fkm_norm_bound(float square, int32_t dims)
{
    return __fsqrt_rn(square) * (1 + (float)(dims + 8) * 0x1p-24f) + FKM_NORM_TINY;
}

/* An upper bound of |X - X^| from the float32 sum of (X~ - X^)^2: X~ is one rounding off X. */
static __device__ __forceinline__ float fkm_residual_bound(float square, float norm, int32_t dims)
{
    return fkm_norm_bound(square, dims) + norm * 0x1p-22f;
}

/* At least the length of a computed head of a vector of length 1, less the exact one: each
 * coordinate is a dot product of FKM_DOT_CHAIN roundings with an axis of length near 1. */
static inline __host__ __device__ double fkm_turn_error(int32_t screened, int32_t dims)
{
    double chain = FKM_DOT_CHAIN(dims);
    return chain * FKM_U / (1 - chain * FKM_U) * sqrt((double)screened) * FKM_HIGHER_ORDER;
}

/* At least the length beyond the head of a vector of length at most `norm`, whose computed head has
 * length at least `head`. */
static inline __host__ __device__ double fkm_tail_bound(
    double norm, double head, double turn_error, double gram)
{
    double least = fmax(0.0, head - turn_error * norm);
    double rest = norm * norm * (1 + 0x1p-40) - least * least * (1 - gram);
    return sqrt(fmax(0.0, rest)) * (1 + 0x1p-20) + FKM_NORM_TINY;
}

/* What packing a centroid has measured, in float64; half in float32. */
struct fkm_packed_figures {
    double norm2;       /* |C~|^2 */
    double half;        /* h~ */
    double lost2;       /* sum of (C~ - C^)^2, or of (z~ - C^)^2 */
    double start_error; /* | start + h~ | */
    double head2;       /* |z~|^2; with a head only */
};

struct fkm_margin {
    float fine_slope, fine_offset, slope, rival, tail, offset;
};

static inline __host__ __device__ double fkm_kappa(int32_t dims)
{
    return (dims / 8.0 + 8) * 0x1p-53 / 2 * FKM_HIGHER_ORDER;
}

static inline __host__ __device__ double fkm_mma_gamma(fkm_unit unit, int32_t dims)
{
    double g = (dims + 15) / 16 * FKM_MMA_LOSS;
    return unit == FKM_UNIT_S8 ? 0 : g / (1 - g);
}

/* The margins of a centroid. screened: dims, or the length of a head. */
static inline __device__ fkm_margin fkm_margin_of(
    const fkm_packed_figures &c, fkm_unit unit, int32_t dims, int32_t screened, double gram)
{
    const double chain = FKM_DOT_CHAIN(dims),
                 fine = chain * FKM_U / (1 - chain * FKM_U) + 9 * FKM_U;
    const double gamma = fkm_mma_gamma(unit, screened) + 9 * FKM_U, kappa = fkm_kappa(dims);
    const double f = FKM_PLANT(2) ? 0.5 : FKM_HIGHER_ORDER, wide = (1 + gram) * (1 + gram);
    const bool head = screened < dims;
    const double turn_error = head ? fkm_turn_error(screened, dims) : 0;
    double nc = sqrt(c.norm2) * (1 + 0x1p-20);
    double rc = sqrt(c.lost2) * (1 + dims * FKM_U) + (2 * FKM_U + turn_error) * nc + FKM_NORM_TINY;
    double least = sqrt(c.head2) * (1 - (screened + 8) * FKM_U);
    fkm_margin m;
    m.fine_slope = (float)((fine + 2 * kappa) * nc * f) + FKM_TINY;
    m.fine_offset = (float)((fine * c.half + kappa * nc * nc) * f) + FKM_TINY;
    m.slope = (float)(((fine + 2 * kappa) * nc + wide * (rc + gamma * (nc + rc) + gram * nc)) * f) +
              FKM_TINY;
    m.rival = (float)(wide * (nc + rc) * (1 + gamma) * f) + FKM_TINY;
    m.tail = head && !FKM_PLANT(5)
                 ? (float)(fkm_tail_bound(nc, least, turn_error, gram) * f) + FKM_TINY
                 : 0;
    m.offset = (float)(((fine + gamma) * c.half + kappa * nc * nc + c.start_error) * f) + FKM_TINY;
    return m;
}

#endif
