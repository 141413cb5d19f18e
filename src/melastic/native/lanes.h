// Vectors of LANES floats, one for each instruction set, in the compiler's own vector types.
#pragma once
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "abi.h"

#if defined(__AVX512F__) || defined(__F16C__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif

#define INLINE static inline __attribute__((always_inline))
#define INLINE_METHOD inline __attribute__((always_inline))

namespace {

typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef float Loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));
typedef uint16_t LooseHalves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

INLINE Lanes splat(float x) { return x - Lanes{}; }
INLINE Lanes load(const float *p) { return *(const Loose *)p; }
INLINE void store(float *p, Lanes x) { *(Loose *)p = x; }
INLINE Lanes larger(Lanes a, Lanes b) {
#if defined(__AVX512F__)
    return (Lanes)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (Lanes)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return a > b ? a : b;
#endif
}
INLINE Lanes smaller(Lanes a, Lanes b) {
#if defined(__AVX512F__)
    return (Lanes)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (Lanes)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return a < b ? a : b;
#endif
}

// Not so where a number is none.
INLINE bool all_below(Lanes x, float limit) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(limit), _CMP_LT_OQ) == 0xffff;
#elif defined(__AVX2__)
    return _mm256_movemask_ps(_mm256_cmp_ps((__m256)x, _mm256_set1_ps(limit), _CMP_LT_OQ)) == 0xff;
#else
    bool all = true;
    for (int i = 0; i < LANES; i++) all &= x[i] < limit;
    return all;
#endif
}

// 2^x = (1 + fraction) 2^whole to 1.1e-7. The fraction is as precise: near 0, where it is all that a
// slow decay takes away, 1 + fraction has rounded most of it off, alike at every step of a long clip.
struct Power {
    Lanes fraction, whole;
};

// 1.5 * 2^23: adding it rounds to a whole number, which 127 more makes a float's exponent.
const float MAGIC = 12582912.0f + 127.0f;

// Within what power_of takes; NaN stays NaN.
INLINE Lanes held(Lanes x) {
#if defined(__AVX512F__)
    return x;
#else
    return smaller(splat(127.0f), larger(splat(-126.0f), x));
#endif
}

INLINE Lanes whole_of(Lanes x) {
#if defined(__AVX512F__)
    return (Lanes)_mm512_roundscale_ps((__m512)x, 0);
#else
    return held(x) + MAGIC;
#endif
}

// 2^r - 1 between -0.5 and 0.5.
INLINE Lanes fraction_of(Lanes r) {
    Lanes p = r * 0x1.5bba14p-10f + 0x1.3cea88p-7f;
    p = p * r + 0x1.c6b752p-5f;
    p = p * r + 0x1.ebf9bcp-3f;
    p = p * r + 0x1.62e42ap-1f;
    return p * r;
}

// What whole_of leaves: between -0.5 and 0.5.
INLINE Lanes rest_of(Lanes x, Lanes whole) {
#if defined(__AVX512F__)
    return x - whole;
#else
    return held(x) - (whole - MAGIC);
#endif
}

INLINE Power power_of(Lanes x) {
    const Lanes whole = whole_of(x);
    return {fraction_of(rest_of(x, whole)), whole};
}

// x 2^whole, the whole number as power_of gives it.
INLINE Lanes scaled(Lanes x, Lanes whole) {
#if defined(__AVX512F__)
    return (Lanes)_mm512_scalef_ps((__m512)x, (__m512)whole);
#else
    return x * (Lanes)((Bits)whole << 23);
#endif
}

// The polynomial of fraction_of with half as many steps one behind the other: where few powers are
// computed side by side, waiting takes longer than arithmetic.
INLINE Lanes exp2_of(Lanes x) {
    const Lanes whole = whole_of(x), r = rest_of(x, whole), rr = r * r;
    const Lanes low = r * 0x1.ebf9bcp-3f + 0x1.62e42ap-1f;
    const Lanes high = rr * 0x1.5bba14p-10f + (r * 0x1.3cea88p-7f + 0x1.c6b752p-5f);
    return scaled((high * rr + low) * r + 1.0f, whole);
}

// 2^x h, and 2^x h + a b.
INLINE Lanes decayed(Lanes h, Power power) {
    const Lanes left = scaled(h, power.whole);
    return power.fraction * left + left;
}
INLINE Lanes decayed(Lanes h, Power power, Lanes a, Lanes b) {
    const Lanes left = scaled(h, power.whole);
    return power.fraction * left + (a * b + left);
}

const float LOG2E = 0x1.715476p+0f;

// 1 - e^-x, precise near 0 too.
INLINE Lanes one_minus_exp_of(Lanes x) {
    const Power power = power_of(x * -LOG2E);
    return (1.0f - scaled(splat(1.0f), power.whole)) - scaled(power.fraction, power.whole);
}

INLINE Lanes silu_of(Lanes x) { return x / (1.0f + exp2_of(x * -LOG2E)); }
INLINE Lanes sigmoid_of(Lanes x) { return 1.0f / (1.0f + exp2_of(x * -LOG2E)); }

// log(1 + w) / w between 0 and 1, to 6e-8; a polynomial around the middle.
INLINE Lanes log_share_of(Lanes w) {
    const Lanes t = w - 0.5f, tt = t * t, tttt = tt * tt;
    const Lanes first = t * -0x1.277388p-2f + 0x1.9f323ep-1f;
    const Lanes second = t * -0x1.15589ap-4f + 0x1.0f955ap-3f;
    const Lanes third = t * -0x1.4b6b6ap-6f + 0x1.2c1ac6p-5f;
    const Lanes fourth = t * -0x1.18f7ccp-7f + 0x1.7baa68p-7f;
    const Lanes high = tttt * 0x1.56ee0ap-8f + (fourth * tt + third);
    return high * tttt + (second * tt + first);
}

// log(1 + e^x), and x itself above 20: where torch switches too.
INLINE Lanes softplus_of(Lanes x) {
    const Lanes w = exp2_of(larger(x, -x) * -LOG2E);
    const Lanes full = log_share_of(w) * w + larger(x, Lanes{});
    const Ints kept = x > 20.0f;
    return (Lanes)(((Ints)x & kept) | ((Ints)full & ~kept));
}

INLINE float from_bfloat(uint16_t half) {
    const uint32_t bits = (uint32_t)half << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

INLINE uint16_t to_bfloat(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if (x != x) return (uint16_t)(bits >> 16 | 64);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

INLINE float from_half(uint16_t half) {
    _Float16 h;
    memcpy(&h, &half, 2);
    return (float)h;
}

INLINE uint16_t to_half(float x) {
    const _Float16 h = (_Float16)x;
    uint16_t half;
    memcpy(&half, &h, 2);
    return half;
}

// LANES neighbours, converted.
template <int DTYPE>
INLINE Lanes read_lanes(const void *data, int64_t at) {
    if (DTYPE == FLOAT32) return load((const float *)data + at);
    const uint16_t *p = (const uint16_t *)data + at;
    if (DTYPE == BFLOAT16) {
        const Halves halves = *(const LooseHalves *)p;
        return (Lanes)(__builtin_convertvector(halves, Bits) << 16);
    }
#if defined(__AVX512F__)
    return (Lanes)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
#elif defined(__AVX2__)
    return (Lanes)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
#else
    Lanes x;
    for (int i = 0; i < LANES; i++) x[i] = from_half(p[i]);
    return x;
#endif
}

template <int DTYPE>
INLINE void write_lanes(void *data, int64_t at, Lanes x) {
    if (DTYPE == FLOAT32) return store((float *)data + at, x);
    uint16_t *p = (uint16_t *)data + at;
    if (DTYPE == BFLOAT16) {
        const Bits bits = (Bits)x;
        const Bits rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
        const Bits odd = (Bits)(x != x);  // not a number stays so
        *(LooseHalves *)p =
            __builtin_convertvector((rounded & ~odd) | ((bits >> 16 | 64u) & odd), Halves);
        return;
    }
#if defined(__AVX512F__)
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph((__m512)x, 0));
#elif defined(__AVX2__)
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph((__m256)x, 0));
#else
    for (int i = 0; i < LANES; i++) p[i] = to_half(x[i]);
#endif
}

template <int DTYPE>
INLINE float read_one(const void *data, int64_t at) {
    if (DTYPE == FLOAT32) return ((const float *)data)[at];
    const uint16_t half = ((const uint16_t *)data)[at];
    return DTYPE == BFLOAT16 ? from_bfloat(half) : from_half(half);
}

template <int DTYPE>
INLINE void write_one(void *data, int64_t at, float x) {
    if (DTYPE == FLOAT32)
        ((float *)data)[at] = x;
    else
        ((uint16_t *)data)[at] = DTYPE == BFLOAT16 ? to_bfloat(x) : to_half(x);
}

// Lower and upper halves of two vectors, lane by lane in turn.
INLINE Lanes weave_low(Lanes a, Lanes b) {
#if LANES == 16
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
#elif LANES == 8
    return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
#else
    return __builtin_shufflevector(a, b, 0, 4, 1, 5);
#endif
}
INLINE Lanes weave_high(Lanes a, Lanes b) {
#if LANES == 16
    return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                                   31);
#elif LANES == 8
    return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#else
    return __builtin_shufflevector(a, b, 2, 6, 3, 7);
#endif
}

// Turn LANES vectors over their diagonal, in place.
INLINE void transpose(Lanes *rows) {
    Lanes other[LANES];
    Lanes *from = rows, *to = other;
#pragma GCC unroll 4
    for (int stage = 1; stage < LANES; stage *= 2) {
#pragma GCC unroll 16
        for (int i = 0; i < LANES / 2; i++) {
            to[2 * i] = weave_low(from[i], from[i + LANES / 2]);
            to[2 * i + 1] = weave_high(from[i], from[i + LANES / 2]);
        }
        Lanes *swap = from;
        from = to;
        to = swap;
    }
    if (from != rows)
        for (int i = 0; i < LANES; i++) rows[i] = from[i];
}

}  // namespace
