/* Template of inertia_piece (kernels.h) in vectors of doubles with fused multiply-add. The includer
 * defines
 *   D, D_LANES, D_SET1(d), D_ADD(a, b), D_SUB(a, b), D_FMA(a, b, c)
 *   D_MOVED(v, from)          sum of the lanes' bits, each less `from`: int64_t
 *   coordinates(c, n, least)  the first D_LANES of n coordinates, widened; 0 beyond n and, unless
 *                             `least` is 0, for those below it in magnitude
 *   sums(&high, &low, s, n)   likewise sums S = high + low, with high a multiple of 2^32 and
 *                             0 <= low < 2^32
 *
 * Doubles serve as integers of 53 bits: nothing is ever rounded away. In units of u =
 * 2^(base - 150), what is added up are the integers v high and v low and, in units of u^2, v v,
 * with |v| <= 2^44 - 2^20, since v is a float32 of 24 bits. A lane adds each to two doubles:
 *
 *     top' = fma(a, b, top)            takes a multiple of top's quantum, the unit in its last
 *                                      place, that is within half a quantum of a b; and
 *     rest += fma(a, b, top - top')    takes what that has left.
 *
 * Each starts in the middle of a binade, or at its beginning if it only grows, and never leaves it:
 * so its quantum is fixed, top - top' is exact, and how many quanta it has moved is the difference
 * of its bits. The quantum of the rest divides all products, and that of top is at most 2^53 of it:
 * so what is left, and rest with it, are exact, too.
 * A lane takes N = FKM_INERTIA_PIECE / 4 = 2^8 products at most:
 *
 *             |product|            top: start  quantum  moves by     rest: start  quantum  moves by
 *   v high  (2^44 - 2^20) 2^63     1.5 2^116   2^64     < 2^115      1.5 2^84     2^32     <= 2^71
 *   v low   < 2^76                 1.5 2^92    2^40     < 2^85       1.5 2^52     1        <= 2^47
 *   v v     (2^44 - 2^20)^2        2^96        2^44     < 2^96, up   1.5 2^52     1        < 2^51
 *
 * The first top moves by N |product| = 2^115 - 2^91 and N roundings of 2^63 at most, the last by
 * N |product| < 2^96 - 2^72 and roundings of 2^43, less than which a square always leaves: it is no
 * odd multiple of 2^43. u is 2^-149 to 2^84: nothing of this is near the ends of double's range. */

/* A sum, or many side by side, and the bits of what they started from. */
typedef struct sum_in_two {
    D top, rest;
    uint64_t top0, rest0;
} sum_in_two;

typedef struct inertia_lanes {
    sum_in_two high, low, square;
} inertia_lanes;

static inline void add_product(sum_in_two *s, D a, D b)
{
    const D top = D_FMA(a, b, s->top);
    s->rest = D_ADD(s->rest, D_FMA(a, b, D_SUB(s->top, top)));
    s->top = top;
}

/* Bits of 2^e, normal. */
static inline uint64_t bits_of_power(int e)
{
    return (uint64_t)(e + 1023) << 52;
}

static inline double of_bits(uint64_t bits)
{
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
}

static inline sum_in_two sum_from(uint64_t top, uint64_t rest)
{
    return (sum_in_two){D_SET1(of_bits(top)), D_SET1(of_bits(rest)), top, rest};
}

/* In quanta of the rest, of which `quantum` bits make one of top. */
static inline fkm_i128 total_of(const sum_in_two *s, int quantum)
{
    const int64_t top = D_MOVED(s->top, s->top0), rest = D_MOVED(s->rest, s->rest0);
    return (fkm_i128)top * ((fkm_i128)1 << quantum) + rest;
}

static inline void add_some(
    inertia_lanes *a, const float *c, const int64_t *sum, int32_t n, float least)
{
    const D v = coordinates(c, n, least);
    D high, low;
    sums(&high, &low, sum, n);
    add_product(&a->high, v, high);
    add_product(&a->low, v, low);
    add_product(&a->square, v, v);
}

static inline void add_all(
    inertia_lanes *a, const float *c, const int64_t *sum, int32_t dims, float least)
{
    int32_t t = 0;
    for (; t + D_LANES <= dims; t += D_LANES)
        add_some(a, c + t, sum + t, D_LANES, least);
    if (t < dims)
        add_some(a, c + t, sum + t, dims - t, least);
}

enum { LEAST_DIMS = 8 }; /* of a piece, for vectors to be quicker */

static fkm_inertia_sums inertia_piece(const float *c, const int64_t *sum, int32_t dims)
{
    if (dims < LEAST_DIMS)
        return fkm_kernels_scalar.inertia_piece(c, sum, dims);
    const uint64_t half = (uint64_t)1 << 51; /* makes 2^e 1.5 2^e */
    fkm_inertia_sums out = {.window = fkm_inertia_window_of(c, dims)};
    const int u = out.window.base - 150;
    inertia_lanes a;
    a.high = sum_from(bits_of_power(u + 116) + half, bits_of_power(u + 84) + half);
    a.low = sum_from(bits_of_power(u + 92) + half, bits_of_power(u + 52) + half);
    a.square = sum_from(bits_of_power(2 * u + 96), bits_of_power(2 * u + 52) + half);
    if (out.window.left)
        add_all(&a, c, sum, dims, (float)of_bits(bits_of_power(out.window.base - 127)));
    else
        add_all(&a, c, sum, dims, 0);
    out.product = total_of(&a.high, 32) * ((fkm_i128)1 << 32) + total_of(&a.low, 40);
    out.square = total_of(&a.square, 44);
    return out;
}
