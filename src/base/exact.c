/* Exact accumulation: see exact.h. */
#include "exact.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

/* Adds a 64-bit word at limb i, then lets the carry run. */
static void add_word(fkm_exact *a, int i, uint64_t word)
{
    for (; word != 0 && i < FKM_EXACT_LIMBS; i++)
        word = __builtin_add_overflow(a->limb[i], word, &a->limb[i]);
}

static void subtract_word(fkm_exact *a, int i, uint64_t word)
{
    for (; word != 0 && i < FKM_EXACT_LIMBS; i++)
        word = __builtin_sub_overflow(a->limb[i], word, &a->limb[i]);
}

void fkm_exact_add(fkm_exact *a, fkm_i128 v, int exponent)
{
    assert(exponent >= FKM_EXACT_LOW);
    bool negative = v < 0;
    fkm_u128 m = negative ? -(fkm_u128)v : (fkm_u128)v;
    int bit = exponent - FKM_EXACT_LOW, i = bit / 64, shift = bit % 64;
    uint64_t low = (uint64_t)m, high = (uint64_t)(m >> 64);
    uint64_t word[3] = {low << shift, high << shift, 0};
    if (shift) {
        word[1] |= low >> (64 - shift);
        word[2] = high >> (64 - shift);
    }
    for (int w = 0; w < 3; w++) {
        if (negative)
            subtract_word(a, i + w, word[w]);
        else
            add_word(a, i + w, word[w]);
    }
}

void fkm_exact_merge(fkm_exact *a, const fkm_exact *b)
{
    uint64_t carry = 0;
    for (int i = 0; i < FKM_EXACT_LIMBS; i++) {
        fkm_u128 sum = (fkm_u128)a->limb[i] + b->limb[i] + carry;
        a->limb[i] = (uint64_t)sum;
        carry = (uint64_t)(sum >> 64);
    }
}

static void negate(fkm_exact *a)
{
    fkm_exact zero = {{0}}, one = {{1}};
    for (int i = 0; i < FKM_EXACT_LIMBS; i++)
        zero.limb[i] = ~a->limb[i];
    fkm_exact_merge(&zero, &one);
    *a = zero;
}

/* Bits [from, from + 64) of a magnitude; from may be negative (zeros come in). */
static uint64_t bits_at(const fkm_exact *a, int from)
{
    uint64_t out = 0;
    for (int b = 0; b < 64; b++) {
        int bit = from + b;
        if (bit >= 0 && bit < 64 * FKM_EXACT_LIMBS && a->limb[bit / 64] >> (bit % 64) & 1)
            out |= (uint64_t)1 << b;
    }
    return out;
}

static bool any_below(const fkm_exact *a, int bit)
{
    for (int b = 0; b < bit; b++)
        if (a->limb[b / 64] >> (b % 64) & 1)
            return true;
    return false;
}

double fkm_exact_round(const fkm_exact *a)
{
    fkm_exact m = *a;
    bool negative = m.limb[FKM_EXACT_LIMBS - 1] >> 63;
    if (negative)
        negate(&m);
    int top = 64 * FKM_EXACT_LIMBS - 1;
    while (top >= 0 && !(m.limb[top / 64] >> (top % 64) & 1))
        top--;
    if (top < 0)
        return 0;
    /* 64 leading bits, the last of them sticky: converting such an integer to double rounds the
     * whole number to nearest even, because 64 > 53 + 1. The range keeps clear of subnormals. */
    uint64_t lead = bits_at(&m, top - 63);
    if (any_below(&m, top - 63))
        lead |= 1;
    double r = ldexp((double)lead, top - 63 + FKM_EXACT_LOW);
    return negative ? -r : r;
}
