/* What the lanes of a warp do together, once all have come: votes, shuffles, fragments, and the
 * matrix unit. Layouts of fragments are those of the PTX manual. */
#include "cuo_internal.h"
#include "include/cuda_fp16.h"

#include <math.h>

namespace cuo
{

uint32_t mma_direction[16];

#define LANES(i, mask)                                                                             \
    for (unsigned rest_ = (mask), i = rest_ ? (unsigned)__builtin_ctz(rest_) : 0; rest_;           \
         rest_ &= rest_ - 1, i = rest_ ? (unsigned)__builtin_ctz(rest_) : 0)

void warp_sync(Fiber *const *, unsigned)
{
}

/* ---- shuffles ---- */

static void take(Fiber *const *lane, unsigned mask, unsigned i, int from)
{
    if (!(mask >> from & 1))
        die("%s:%d: %s reads lane %d, which is not in mask %08x", lane[i]->file, lane[i]->line,
            lane[i]->op, from, mask);
    ((Shuffle *)lane[i]->args)->out = ((Shuffle *)lane[from]->args)->in;
}

void warp_shuffle(Fiber *const *lane, unsigned mask)
{
    LANES(i, mask)
    {
        const Shuffle *s = (Shuffle *)lane[i]->args;
        take(lane, mask, i, (int)(i & ~(unsigned)(s->width - 1)) + (s->source & (s->width - 1)));
    }
}

void warp_shuffle_up(Fiber *const *lane, unsigned mask)
{
    LANES(i, mask)
    {
        const Shuffle *s = (Shuffle *)lane[i]->args;
        int base = (int)(i & ~(unsigned)(s->width - 1)), from = (int)i - s->source;
        take(lane, mask, i, from < base ? (int)i : from);
    }
}

void warp_shuffle_down(Fiber *const *lane, unsigned mask)
{
    LANES(i, mask)
    {
        const Shuffle *s = (Shuffle *)lane[i]->args;
        int end = (int)(i & ~(unsigned)(s->width - 1)) + s->width, from = (int)i + s->source;
        take(lane, mask, i, from >= end ? (int)i : from);
    }
}

void warp_shuffle_xor(Fiber *const *lane, unsigned mask)
{
    LANES(i, mask)
    {
        const Shuffle *s = (Shuffle *)lane[i]->args;
        int end = (int)(i & ~(unsigned)(s->width - 1)) + s->width, from = (int)i ^ s->source;
        take(lane, mask, i, from >= end ? (int)i : from);
    }
}

/* ---- votes ---- */

void warp_ballot(Fiber *const *lane, unsigned mask)
{
    uint64_t all = 0;
    LANES(i, mask)
    all |= ((Ballot *)lane[i]->args)->in << i;
    LANES(i, mask)
    ((Ballot *)lane[i]->args)->out = all;
}

void warp_match(Fiber *const *lane, unsigned mask)
{
    LANES(i, mask)
    {
        Ballot *mine = (Ballot *)lane[i]->args;
        mine->out = 0;
        LANES(j, mask)
        mine->out |= (uint64_t)(((Ballot *)lane[j]->args)->in == mine->in) << j;
    }
}

template <class T, class F> static void reduce(Fiber *const *lane, unsigned mask, F f)
{
    unsigned first = (unsigned)__builtin_ctz(mask);
    T all = (T)(uint32_t)((Ballot *)lane[first]->args)->in;
    LANES(i, mask & (mask - 1))
    all = f(all, (T)(uint32_t)((Ballot *)lane[i]->args)->in);
    LANES(i, mask)
    ((Ballot *)lane[i]->args)->out = (uint32_t)all;
}

#define CUO_REDUCTION(name, type, expression)                                                      \
    void name(Fiber *const *lane, unsigned mask)                                                   \
    {                                                                                              \
        reduce<type>(lane, mask, [](type a, type b) -> type { return expression; });               \
    }
CUO_REDUCTION(warp_add, uint32_t, a + b)
CUO_REDUCTION(warp_min_unsigned, uint32_t, b < a ? b : a)
CUO_REDUCTION(warp_min_int, int32_t, b < a ? b : a)
CUO_REDUCTION(warp_max_unsigned, uint32_t, a < b ? b : a)
CUO_REDUCTION(warp_max_int, int32_t, a < b ? b : a)
CUO_REDUCTION(warp_and, uint32_t, a &b)
CUO_REDUCTION(warp_or, uint32_t, a | b)
CUO_REDUCTION(warp_xor, uint32_t, a ^ b)

/* ---- ldmatrix: matrix j is the rows of lanes 8j..8j+7 ---- */

static void ldmatrix_plain(Fiber *const *lane, int matrices)
{
    for (int l = 0; l < 32; l++)
        for (int j = 0; j < matrices; j++)
            memcpy(&((Ldmatrix *)lane[l]->args)->r[j],
                ((Ldmatrix *)lane[j * 8 + (l >> 2)]->args)->row + (l & 3) * 4, 4);
}

static void ldmatrix_trans(Fiber *const *lane, int matrices)
{
    for (int l = 0; l < 32; l++)
        for (int j = 0; j < matrices; j++) {
            unsigned char *r = (unsigned char *)&((Ldmatrix *)lane[l]->args)->r[j];
            for (int h = 0; h < 2; h++)
                memcpy(r + 2 * h,
                    ((Ldmatrix *)lane[j * 8 + (l & 3) * 2 + h]->args)->row + (l >> 2) * 2, 2);
        }
}

void warp_ldmatrix_1(Fiber *const *lane, unsigned)
{
    ldmatrix_plain(lane, 1);
}
void warp_ldmatrix_2(Fiber *const *lane, unsigned)
{
    ldmatrix_plain(lane, 2);
}
void warp_ldmatrix_4(Fiber *const *lane, unsigned)
{
    ldmatrix_plain(lane, 4);
}
void warp_ldmatrix_1_trans(Fiber *const *lane, unsigned)
{
    ldmatrix_trans(lane, 1);
}
void warp_ldmatrix_2_trans(Fiber *const *lane, unsigned)
{
    ldmatrix_trans(lane, 2);
}
void warp_ldmatrix_4_trans(Fiber *const *lane, unsigned)
{
    ldmatrix_trans(lane, 4);
}

/* ---- half precision ---- */

static float widen_half(uint16_t h)
{
    uint32_t sign = (uint32_t)(h >> 15) << 31, e = h >> 10 & 31, m = h & 1023;
    if (e == 31)
        return bit_cast<float>(sign | 0x7f800000 | m << 13);
    if (e)
        return bit_cast<float>(sign | (e + 112) << 23 | m << 13);
    float small = (float)m * 0x1p-24f;
    return sign ? -small : small;
}

static float half_table[65536];
static const bool half_table_filled = [] {
    for (uint32_t h = 0; h < 65536; h++)
        half_table[h] = widen_half((uint16_t)h);
    return true;
}();

float half_to_float(uint16_t h)
{
    return half_table[h];
}

uint16_t float_to_half(float f)
{
    uint32_t u = bit_cast<uint32_t>(f), sign = u >> 16 & 0x8000;
    u &= 0x7fffffff;
    if (u > 0x7f800000)
        return 0x7fff;
    if (u >= 0x477ff000) /* rounds to 65536 or more */
        return (uint16_t)(sign | 0x7c00);
    if (u < 0x38800000) { /* subnormal: in units of 2^-24, to nearest even by the addition */
        float t = bit_cast<float>(u) + 0.5f;
        return (uint16_t)(sign | (bit_cast<uint32_t>(t) - 0x3f000000));
    }
    return (uint16_t)(sign | ((u + 0xfff + (u >> 13 & 1) - 0x38000000) >> 13));
}

/* ---- the matrix unit ---- */

typedef float row8 __attribute__((vector_size(32)));

/* A tile product of 16 x 16 by 16 x 8, added to c. */
struct Tile {
    float a[16][16]; /* [row][k] */
    row8 b[16];      /* [k] */
    row8 c[16];      /* [row] */
};

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(CUO_TSAN)
#define CUO_CLONES __attribute__((target_clones("arch=haswell", "default")))
#else
#define CUO_CLONES
#endif

CUO_CLONES static void multiply_rounded(Tile *t)
{
    for (int i = 0; i < 16; i++) {
        row8 c = t->c[i];
        for (int k = 0; k < 16; k++)
            c += t->a[i][k] * t->b[k];
        t->c[i] = c;
    }
}

static void multiply_exact(Tile *t)
{
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) {
            double s = t->c[i][j]; /* exact for what differs by less than 2^29: enough here */
            for (int k = 0; k < 16; k++)
                s += (double)t->a[i][k] * (double)t->b[k][j];
            t->c[i][j] = (float)s;
        }
}

static inline double cut(double v, bool up)
{
    return up ? ceil(v) : floor(v);
}

/* v to 24 significant bits, in the given direction. */
static float cut_to_float(double v, bool up)
{
    if (v == 0 || !isfinite(v))
        return (float)v;
    int e;
    frexp(v, &e);
    return (float)ldexp(cut(ldexp(v, 24 - e), up), e - 24);
}

/* README.md, "The matrix unit". Products of bf16 and of fp16 are exact in float64. */
static float worst(const double term[17], bool up)
{
    double largest = 0, sum = 0;
    for (int k = 0; k < 17; k++)
        largest = fmax(largest, fabs(term[k]));
    int e;
    frexp(largest, &e); /* largest in [2^(e-1), 2^e) */
    if (largest == 0 || !isfinite(largest) || e < -990) {
        for (int k = 0; k < 17; k++)
            sum += term[k];
        return (float)sum;
    }
    double to_quanta = ldexp(1, 24 - e);
    for (int k = 0; k < 17; k++)
        sum += cut(term[k] * to_quanta, up); /* integers below 2^29 */
    return cut_to_float(sum * ldexp(1, e - 24), up);
}

static void multiply_worst(Tile *t)
{
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) {
            double term[17];
            for (int k = 0; k < 16; k++)
                term[k] = (double)t->a[i][k] * (double)t->b[k][j];
            term[16] = t->c[i][j];
            t->c[i][j] = worst(term, mma_direction[i] >> j & 1);
        }
}

static inline float widen(uint32_t bits, bool half)
{
    return half ? half_table[bits & 0xffff] : bit_cast<float>(bits << 16);
}

template <bool half> static void mma_16(Fiber *const *lane)
{
    Tile t;
    int n = ((Mma *)lane[0]->args)->n;
    for (int l = 0; l < 32; l++) {
        const Mma *m = (Mma *)lane[l]->args;
        if (m->n != n)
            die("mma: lane %d gives %d tiles, lane 0 gives %d", l, m->n, n);
        for (int r = 0; r < 4; r++)
            for (int h = 0; h < 2; h++)
                t.a[(l >> 2) + (r & 1) * 8][(l & 3) * 2 + h + (r >> 1) * 8] =
                    widen(m->a[r] >> 16 * h, half);
    }
    for (int tile = 0; tile < n; tile++) {
        for (int l = 0; l < 32; l++) {
            const Mma *m = (Mma *)lane[l]->args;
            const uint32_t *b = m->b + tile * 2;
            const float *d = (const float *)m->d + tile * 4;
            int g = l >> 2, p = (l & 3) * 2;
            for (int r = 0; r < 2; r++)
                for (int h = 0; h < 2; h++)
                    t.b[p + h + r * 8][g] = widen(b[r] >> 16 * h, half);
            memcpy((float *)&t.c[g] + p, d, 8);
            memcpy((float *)&t.c[g + 8] + p, d + 2, 8);
        }
        switch (settings.mma) {
        case MMA_ROUNDED:
            multiply_rounded(&t);
            break;
        case MMA_EXACT:
            multiply_exact(&t);
            break;
        case MMA_WORST:
            multiply_worst(&t);
            break;
        }
        for (int l = 0; l < 32; l++) {
            float *d = (float *)((Mma *)lane[l]->args)->d + tile * 4;
            int g = l >> 2, p = (l & 3) * 2;
            memcpy(d, (float *)&t.c[g] + p, 8);
            memcpy(d + 2, (float *)&t.c[g + 8] + p, 8);
        }
    }
    counts.mma += n;
}

void warp_mma_bf16(Fiber *const *lane, unsigned)
{
    mma_16<false>(lane);
}
void warp_mma_f16(Fiber *const *lane, unsigned)
{
    mma_16<true>(lane);
}

/* 16 x 32 by 32 x 8, of bytes. */
typedef uint32_t ints8 __attribute__((vector_size(32)));

struct ByteTile {
    uint32_t a[16][32];
    ints8 b[32], c[16];
};

CUO_CLONES static void multiply_bytes(ByteTile *t)
{
    for (int i = 0; i < 16; i++) {
        ints8 c = t->c[i];
        for (int k = 0; k < 32; k++)
            c += t->a[i][k] * t->b[k];
        t->c[i] = c;
    }
}

template <class A, class B> static void mma_bytes(Fiber *const *lane)
{
    ByteTile t;
    int n = ((Mma *)lane[0]->args)->n;
    for (int l = 0; l < 32; l++) {
        const Mma *m = (Mma *)lane[l]->args;
        if (m->n != n)
            die("mma: lane %d gives %d tiles, lane 0 gives %d", l, m->n, n);
        for (int r = 0; r < 4; r++)
            for (int h = 0; h < 4; h++)
                t.a[(l >> 2) + (r & 1) * 8][(l & 3) * 4 + h + (r >> 1) * 16] =
                    (uint32_t)(A)(m->a[r] >> 8 * h);
    }
    for (int tile = 0; tile < n; tile++) {
        for (int l = 0; l < 32; l++) {
            const Mma *m = (Mma *)lane[l]->args;
            const int *d = (const int *)m->d + tile * 4;
            int g = l >> 2, p = (l & 3) * 2;
            for (int r = 0; r < 2; r++)
                for (int h = 0; h < 4; h++)
                    t.b[(l & 3) * 4 + h + r * 16][g] = (uint32_t)(B)(m->b[tile * 2 + r] >> 8 * h);
            memcpy((int *)&t.c[g] + p, d, 8);
            memcpy((int *)&t.c[g + 8] + p, d + 2, 8);
        }
        multiply_bytes(&t);
        for (int l = 0; l < 32; l++) {
            int *d = (int *)((Mma *)lane[l]->args)->d + tile * 4;
            int g = l >> 2, p = (l & 3) * 2;
            memcpy(d, (int *)&t.c[g] + p, 8);
            memcpy(d + 2, (int *)&t.c[g + 8] + p, 8);
        }
    }
    counts.mma += n;
}

void warp_mma_s8s8(Fiber *const *lane, unsigned)
{
    mma_bytes<int8_t, int8_t>(lane);
}
void warp_mma_s8u8(Fiber *const *lane, unsigned)
{
    mma_bytes<int8_t, uint8_t>(lane);
}
void warp_mma_u8s8(Fiber *const *lane, unsigned)
{
    mma_bytes<uint8_t, int8_t>(lane);
}
void warp_mma_u8u8(Fiber *const *lane, unsigned)
{
    mma_bytes<uint8_t, uint8_t>(lane);
}

} // namespace cuo
