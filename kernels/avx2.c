// avx2.c - x86-64 with AVX2, FMA and F16C: eight floats, or 32 small integers, at a time.
//
// One token, as in writing: reading the weights is the limit. Four rows far apart run side by side, so that
// memory delivers four streams at once. More tokens, as in reading a prompt: arithmetic is the limit. Rows
// are unpacked into panels, a row to each lane of a register, and two tokens share all that is loaded.
#include "kernels.h"

#ifdef __x86_64__
#include "avx2.h"
#include "loops.h"
#include <cpuid.h>

// ---------------------------------------------------------------------------- formats
//
// 256 columns of a row, in any format, are eight parts of 32 codes, and scales:
//
//   w = d * (code - zero) + m       d and m for every 32 columns, or for every 16
//
// Among eight, those with even numbers come first: that is how sums fall into place.

typedef struct { __m256 d[2], m[2]; } Scales;           // eight, or 16
typedef struct { __m256i first, second; } Pair;         // two parts: columns 0-15 of both, and 16-31 of both

// A format. All of it is known to the compiler, which makes a kernel for each.
typedef struct {
    __m256i (*codes)(const void *w, int part);          // by 16
    Pair (*pair)(const void *w, int part);              // by 32: two at once, their products meet in a sum
    Scales (*scales)(const void *w);
    int bytes;                                          // of 256 columns
    int least;                                          // code: -128, -127, or 0
    int room;                                           // so many products() can be added up in 16 bits
    int zero;
    bool has_m;
    bool by_16;                                         // a scale for every 16 columns
} Coding;

INLINE int load_int(const void *p) { int i; memcpy(&i, p, sizeof i); return i; }

INLINE __m256i join(__m128i low, __m128i high) { return _mm256_set_m128i(high, low); }

// Byte i of 16 holds column i below and column i + 16 above.
INLINE Pair nibbles(const uint8_t *a, const uint8_t *b) {
    const __m256i low = _mm256_set1_epi8(15);
    __m256i both = join(load_16(a), load_16(b));
    return (Pair){ _mm256_and_si256(both, low), _mm256_and_si256(_mm256_srli_epi16(both, 4), low) };
}

// Bits of 32, `at` bytes from the beginning, become bytes, 16 or 0: every byte looks at its own bit.
INLINE __m256i fifths(__m256i blocks, int at) {
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201);
    __m256i which = _mm256_broadcastsi128_si256(_mm_set_epi64x((at + 1) * 0x0101010101010101,
                                                               at * 0x0101010101010101));
    __m256i set = _mm256_and_si256(_mm256_shuffle_epi8(blocks, which), bit);
    return _mm256_and_si256(_mm256_cmpeq_epi8(set, bit), _mm256_set1_epi8(16));
}
INLINE Pair add_fifths(Pair p, const void *a, const void *b, int at) {
    __m256i blocks = join(load_16(a), load_16(b));
    return (Pair){ _mm256_or_si256(p.first, fifths(blocks, at)),
                   _mm256_or_si256(p.second, fifths(blocks, at + 2)) };
}

// 16 bytes: the lower halves are of one part, the upper ones of the next.
INLINE __m256i lower_and_upper(const uint8_t *q) {
    const __m256i by = _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4), low = _mm256_set1_epi8(15);
    return _mm256_and_si256(_mm256_srlv_epi32(_mm256_broadcastsi128_si256(load_16(q)), by), low);
}
// Bit `part` of 16 bytes, and the next, as 16 or 0.
INLINE __m256i fifths_k(const uint8_t *high, int part) {
    __m256i v = _mm256_broadcastsi128_si256(load_16(high));
    int a = part < 4 ? 4 - part : part - 4, b = part < 4 ? 3 - part : part - 3;
    __m256i by = join(_mm_set1_epi32(a), _mm_set1_epi32(b));
    v = part < 4 ? _mm256_sllv_epi32(v, by) : _mm256_srlv_epi32(v, by);
    return _mm256_and_si256(v, _mm256_set1_epi8(16));
}

// Of each of 32 bytes those bits that are in the mask once bit `from` has moved to bit `to`.
INLINE __m256i bits(const uint8_t *bytes, int from, int to, int mask) {
    __m256i v = load_32(bytes);
    v = from > to ? _mm256_srli_epi16(v, from - to) : _mm256_slli_epi16(v, to - from);
    return _mm256_and_si256(v, _mm256_set1_epi8((char)mask));
}

// Eight halves, one in every `stride` bytes: each is loaded from where it comes to its place.
INLINE __m256 halves(const void *p, int stride) {
    const char *h = p;
    __m128i v = load_16(h);
    v = _mm_blend_epi16(v, load_16(h + 2 * stride - 2), 1 << 1);
    v = _mm_blend_epi16(v, load_16(h + 4 * stride - 4), 1 << 2);
    v = _mm_blend_epi16(v, load_16(h + 6 * stride - 6), 1 << 3);
    v = _mm_blend_epi16(v, load_16(h + 1 * stride - 8), 1 << 4);
    v = _mm_blend_epi16(v, load_16(h + 3 * stride - 10), 1 << 5);
    v = _mm_blend_epi16(v, load_16(h + 5 * stride - 12), 1 << 6);
    return _mm256_cvtph_ps(_mm_blend_epi16(v, load_16(h + 7 * stride - 14), 1 << 7));
}

// The same where two follow each other: d, then m.
INLINE Scales halves_by_two(const void *p, int stride) {
    const char *h = p;
    __m256i v = load_32(h);
    v = _mm256_blend_epi32(v, load_32(h + 2 * stride - 4), 1 << 1);
    v = _mm256_blend_epi32(v, load_32(h + 4 * stride - 8), 1 << 2);
    v = _mm256_blend_epi32(v, load_32(h + 6 * stride - 12), 1 << 3);
    v = _mm256_blend_epi32(v, load_32(h + 1 * stride - 16), 1 << 4);
    v = _mm256_blend_epi32(v, load_32(h + 3 * stride - 20), 1 << 5);
    v = _mm256_blend_epi32(v, load_32(h + 5 * stride - 24), 1 << 6);
    v = _mm256_blend_epi32(v, load_32(h + 7 * stride - 28), 1 << 7);
    const __m128i apart = _mm_set_epi64x(0x0f0e0b0a07060302, 0x0d0c090805040100);
    v = _mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(apart));
    v = _mm256_permute4x64_epi64(v, 0xd8);
    return (Scales){ .d = { _mm256_cvtph_ps(_mm256_castsi256_si128(v)) },
                     .m = { _mm256_cvtph_ps(_mm256_extracti128_si256(v, 1)) } };
}

INLINE __m256 half(Half h) { return _mm256_cvtph_ps(_mm_set1_epi16((short)h)); }

// The lower eight of 16 signed bytes, times d.
INLINE __m256 scaled(__m128i s, __m256 d) {
    return _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(s)), d);
}

INLINE __m128i evens_first(__m128i s) {
    return _mm_shuffle_epi8(s, _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
}

INLINE Scales sixteen(__m128i s, __m256 d) {
    s = evens_first(s);
    return (Scales){ .d = { scaled(s, d), scaled(_mm_srli_si128(s, 8), d) } };
}

// portable.c has a picture of each format. w: 256 columns, that is eight blocks of 32 or one of 256.

INLINE Pair pair_q8_0(const void *w, int part) {
    const BlockQ8_0 *b = (const BlockQ8_0 *)w + part;
    return (Pair){ join(load_16(b[0].q), load_16(b[1].q)), join(load_16(b[0].q + 16), load_16(b[1].q + 16)) };
}
INLINE Scales scales_q8_0(const void *w) { return (Scales){ .d = { halves(w, sizeof(BlockQ8_0)) } }; }

INLINE Pair pair_q4_0(const void *w, int part) {
    const BlockQ4_0 *b = (const BlockQ4_0 *)w + part;
    return nibbles(b[0].q, b[1].q);
}
INLINE Scales scales_q4_0(const void *w) { return (Scales){ .d = { halves(w, sizeof(BlockQ4_0)) } }; }

INLINE Pair pair_q4_1(const void *w, int part) {
    const BlockQ4_1 *b = (const BlockQ4_1 *)w + part;
    return nibbles(b[0].q, b[1].q);
}
INLINE Scales scales_q4_1(const void *w) { return halves_by_two(w, sizeof(BlockQ4_1)); }

INLINE Pair pair_q5_0(const void *w, int part) {
    const BlockQ5_0 *b = (const BlockQ5_0 *)w + part;
    return add_fifths(nibbles(b[0].q, b[1].q), b, b + 1, offsetof(BlockQ5_0, high));
}
INLINE Scales scales_q5_0(const void *w) { return (Scales){ .d = { halves(w, sizeof(BlockQ5_0)) } }; }

INLINE Pair pair_q5_1(const void *w, int part) {
    const BlockQ5_1 *b = (const BlockQ5_1 *)w + part;
    return add_fifths(nibbles(b[0].q, b[1].q), b, b + 1, offsetof(BlockQ5_1, high));
}
INLINE Scales scales_q5_1(const void *w) { return halves_by_two(w, sizeof(BlockQ5_1)); }

INLINE Pair pair_iq4_nl(const void *w, int part) {
    const __m256i steps = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113));
    const BlockIQ4_NL *b = (const BlockIQ4_NL *)w + part;
    Pair p = nibbles(b[0].q, b[1].q);
    return (Pair){ _mm256_shuffle_epi8(steps, p.first), _mm256_shuffle_epi8(steps, p.second) };
}
INLINE Scales scales_iq4_nl(const void *w) { return (Scales){ .d = { halves(w, sizeof(BlockIQ4_NL)) } }; }

// Those of odd parts stay two bits higher, and have a quarter of the scale: that saves shifts.
INLINE __m256i codes_q2_k(const void *w, int part) {
    return bits(((const BlockQ2_K *)w)->q + part / 4 * 32, part % 4 / 2 * 4, 0, part % 2 ? 12 : 3);
}
INLINE Scales scales_q2_k(const void *w) {
    const BlockQ2_K *b = w;
    __m128i low = _mm_set1_epi8(15), s = load_16(b->scales), m = _mm_and_si128(_mm_srli_epi16(s, 4), low);
    const __m256 shares = _mm256_setr_ps(1, 0.25f, 1, 0.25f, 1, 0.25f, 1, 0.25f);
    Scales scales = sixteen(_mm_and_si128(s, low), _mm256_mul_ps(half(b->d), shares));
    Scales mins = sixteen(m, half(b->dmin ^ 0x8000));
    return (Scales){ .d = { scales.d[0], scales.d[1] }, .m = { mins.d[0], mins.d[1] } };
}

INLINE __m256i codes_q3_k(const void *w, int part) {
    const BlockQ3_K *b = w;
    return _mm256_or_si256(bits(b->q + part / 4 * 32, part % 4 * 2, 0, 3), bits(b->high, part, 2, 4));
}
INLINE Scales scales_q3_k(const void *w) {
    const BlockQ3_K *b = w;
    int low = load_int(b->scales), next = load_int(b->scales + 4), high = load_int(b->scales + 8);
    __m128i lower = _mm_srlv_epi32(_mm_setr_epi32(low, next, low, next), _mm_setr_epi32(0, 0, 4, 4));
    __m128i upper = _mm_srlv_epi32(_mm_set1_epi32(high), _mm_setr_epi32(0, 2, 4, 6));
    __m128i s = _mm_or_si128(_mm_and_si128(lower, _mm_set1_epi8(15)),
                             _mm_slli_epi16(_mm_and_si128(upper, _mm_set1_epi8(3)), 4));
    return sixteen(_mm_sub_epi8(s, _mm_set1_epi8(32)), half(b->d));
}

// d, dmin, and 12 bytes: 0-7 hold s 0-3 and m 0-3, and in their upper two bits those of s 4-7 and m 4-7.
INLINE Scales scales_k(const void *w) {
    __m128i block = load_16(w);                         // s 0-3, s 4-7, m 0-3, m 4-7:
    __m128i v = _mm_shuffle_epi32(block, _MM_SHUFFLE(3, 2, 3, 1));
    __m128i lower = _mm_and_si128(_mm_srlv_epi32(v, _mm_setr_epi32(0, 0, 0, 4)),
                                  _mm_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f));
    __m128i upper = _mm_and_si128(_mm_slli_epi64(v, 30), _mm_set1_epi8(0x30));     // two to the right, one on
    __m128i both = evens_first(_mm_or_si128(lower, upper));
    __m128 d = _mm_cvtph_ps(block);
    __m256 dmin = _mm256_xor_ps(_mm256_broadcastss_ps(_mm_movehdup_ps(d)), _mm256_set1_ps(-0.0f));
    return (Scales){ .d = { scaled(both, _mm256_broadcastss_ps(d)) },
                     .m = { scaled(_mm_srli_si128(both, 8), dmin) } };
}

INLINE Pair pair_q4_k(const void *w, int part) {
    const uint8_t *q = ((const BlockQ4_K *)w)->q + part / 2 * 32;
    return (Pair){ lower_and_upper(q), lower_and_upper(q + 16) };
}
INLINE Scales scales_q4_k(const void *w) { return scales_k(w); }

INLINE Pair pair_q5_k(const void *w, int part) {
    const BlockQ5_K *b = w;
    const uint8_t *q = b->q + part / 2 * 32;
    return (Pair){ _mm256_or_si256(lower_and_upper(q), fifths_k(b->high, part)),
                   _mm256_or_si256(lower_and_upper(q + 16), fifths_k(b->high + 16, part)) };
}
INLINE Scales scales_q5_k(const void *w) { return scales_k(w); }

INLINE __m256i codes_q6_k(const void *w, int part) {
    const BlockQ6_K *b = w;
    int g = part / 4, k = part % 4;
    return _mm256_or_si256(bits(b->q + g * 64 + k % 2 * 32, k / 2 * 4, 0, 15),
                           bits(b->high + g * 32, k * 2, 4, 48));
}
INLINE Scales scales_q6_k(const void *w) {
    const BlockQ6_K *b = w;
    return sixteen(load_16(b->scales), half(b->d));
}

// Rows end where they end: the last columns, if fewer than 256, are copied to where zeros stand behind them.
// Those are there from the beginning, and stay, as all rows end with as many columns.
typedef struct { uint8_t bytes[8 * sizeof(BlockQ8_0)]; } Copy;          // the longest there is

INLINE const void *whole(Copy *last, const void *w, int parts, Coding c) {
    return parts >= 8 ? w : memcpy(last, w, (size_t)parts * c.bytes / 8);
}

// Products of bytes, sums of two in 16 bits. One side has to be unsigned, its sign moves over: of x, once
// for many rows; or of w, if that can be -128, which has no counterpart. At most 128 * 127 * 2 = 32512.
INLINE __m256i products(__m256i w, __m256i x, Coding c) {
    if (c.least == 0) return _mm256_maddubs_epi16(w, x);
    if (c.least == -128) return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
    return _mm256_maddubs_epi16(_mm256_abs_epi8(x), _mm256_sign_epi8(w, x));
}

// Here v is in a register, and no more is known about it. Otherwise compilers add in pairs first, or load a
// number again for each of its uses, and run out of registers.
INLINE __m256i kept(__m256i v) { __asm__("" : "+x"(v)); return v; }

// ---------------------------------------------------------------------------- one token

// 256 columns of the input, as they meet those of a row: codes in the same order; scales in the order of
// the row's, these times the sums of x, and what the codes that stand for zero add to eight sums.
typedef struct { __m256i q[8], zero[2]; __m256 scale[2], sum[2]; } Input;

enum { SPAN = 8192 };                                   // columns that are prepared at a time

INLINE int place(int i) { return i / 8 * 8 + i % 2 * 4 + i % 8 / 2; }        // evens first

INLINE Input prepare(const BlockX8 *x, Coding c) {
    int zero[16] = { 0 };
    float scale[16] = { 0 }, sum[16] = { 0 };
    for (int i = 0; i < (c.by_16 ? 16 : 8); i++) {
        const BlockX8 *b = c.by_16 ? x + i / 2 : x + i;
        int s = c.by_16 ? b->sums[i % 2] : b->sums[0] + b->sums[1];
        zero[place(i)] = c.zero * s, scale[place(i)] = b->scale, sum[place(i)] = b->scale * (float)s;
    }
    Input in;
    for (int i = 0; i < 2; i++) {
        in.zero[i] = load_32(zero + 8 * i);
        in.scale[i] = _mm256_loadu_ps(scale + 8 * i), in.sum[i] = _mm256_loadu_ps(sum + 8 * i);
    }
    for (int i = 0; i < 8; i++) {
        const BlockX8 *first = x + i / 2 * 2;           // of a pair
        in.q[i] = c.pair ? join(load_16(first[0].q + i % 2 * 16), load_16(first[1].q + i % 2 * 16))
                         : load_32(x[i].q);
    }
    return in;
}

INLINE void prepare_row(Input *out, const BlockX8 *x, int parts, Coding c) {
    for (; parts >= 8; parts -= 8, x += 8) *out++ = prepare(x, c);
    if (!parts) return;
    BlockX8 last[8] = { { 0 } };
    memcpy(last, x, (size_t)parts * sizeof *x);
    *out = prepare(last, c);
}

typedef struct { __m256i a, b, c, d; } Four;            // one of each of four rows

// Two parts, and their sums in the two halves of a register; or one part, with a scale for each half.
INLINE __m256i sums(const char *w, __m256i x, __m256i next, int i, Coding c) {
    if (c.by_16) return products(c.codes(w, i), x, c);
    Pair pair = c.pair(w, 2 * i);
    __m256i first = products(pair.first, x, c), second = products(pair.second, next, c);
    return c.room < 2 ? _mm256_add_epi32(widen(first), widen(second)) : _mm256_add_epi16(first, second);
}

// The input is loaded once for four rows.
INLINE Four four_sums(const char *const w[4], const Input *in, int i, Coding c) {
    __m256i x = kept(in->q[c.by_16 ? i : 2 * i]), y = c.by_16 ? x : kept(in->q[2 * i + 1]);
    return (Four){ sums(w[0], x, y, i, c), sums(w[1], x, y, i, c),
                   sums(w[2], x, y, i, c), sums(w[3], x, y, i, c) };
}

// { a + a, b + b } in both halves, in 16 bits or in 32
INLINE __m256i add(__m256i a, __m256i b, bool in_16) {
    return in_16 ? _mm256_add_epi16(a, b) : _mm256_add_epi32(a, b);
}
INLINE __m256i fold(__m256i a, __m256i b, bool in_16) {
    return add(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b), in_16);
}
INLINE Four fold_four(Four v, Four w, Coding c) {
    bool in_16 = c.room >= (c.by_16 ? 2 : 4);
    return (Four){ fold(v.a, w.a, in_16), fold(v.b, w.b, in_16),
                   fold(v.c, w.c, in_16), fold(v.d, w.d, in_16) };
}

// The eight sums that were in four registers. In 16 bits for as long as there is room, then in 32.
INLINE __m256i fold_last(__m256i a, __m256i b, __m256i zero, Coding c) {
    int least = c.by_16 ? 2 : 4;
    if (c.room >= least && c.room < 2 * least) a = widen(a), b = widen(b);
    __m256 v = _mm256_castsi256_ps(a), w = _mm256_castsi256_ps(b);
    __m256i dot = add(_mm256_castps_si256(_mm256_shuffle_ps(v, w, 0x88)),
                      _mm256_castps_si256(_mm256_shuffle_ps(v, w, 0xdd)), c.room >= 2 * least);
    if (c.room >= 2 * least) dot = widen(dot);
    return c.zero ? _mm256_sub_epi32(dot, zero) : dot;
}

INLINE __m256 scale_dot(__m256 sum, __m256i dot, Scales s, const Input *in, int i, Coding c) {
    sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_mul_ps(s.d[i], in->scale[i]), sum);
    return c.has_m ? _mm256_fmadd_ps(s.m[i], in->sum[i], sum) : sum;
}

// As many columns as have eight scales.
INLINE void eight_more(__m256 sum[4], const char *const w[4], const Scales s[4], const Input *in, int i,
                       Coding c) {
    Four v = fold_four(four_sums(w, in, 4 * i, c), four_sums(w, in, 4 * i + 1, c), c);
    Four u = fold_four(four_sums(w, in, 4 * i + 2, c), four_sums(w, in, 4 * i + 3, c), c);
    sum[0] = scale_dot(sum[0], fold_last(v.a, u.a, in->zero[i], c), s[0], in, i, c);
    sum[1] = scale_dot(sum[1], fold_last(v.b, u.b, in->zero[i], c), s[1], in, i, c);
    sum[2] = scale_dot(sum[2], fold_last(v.c, u.c, in->zero[i], c), s[2], in, i, c);
    sum[3] = scale_dot(sum[3], fold_last(v.d, u.d, in->zero[i], c), s[3], in, i, c);
}

// sum + 256 columns of four rows times the input, in eight lanes.
INLINE void multiply_add(__m256 sum[4], const char *const w[4], const Input *in, Coding c) {
    const Scales s[4] = { c.scales(w[0]), c.scales(w[1]), c.scales(w[2]), c.scales(w[3]) };
    eight_more(sum, w, s, in, 0, c);
    if (c.by_16) eight_more(sum, w, s, in, 1, c);
}

// Four rows times the input.
INLINE __m128 multiply_four(const char *const row[4], const Input *in, int parts, Copy last[4], Coding c) {
    __m256 sum[4] = ZERO;
    size_t at = 0;
    for (; parts >= 8; parts -= 8, in++, at += (size_t)c.bytes) {
        const char *const w[4] = { row[0] + at, row[1] + at, row[2] + at, row[3] + at };
        for (int i = 0; i < 4; i++) fetch_ahead(w[i], c.bytes);
        multiply_add(sum, w, in, c);
    }
    if (parts) {
        const char *w[4];
        for (int i = 0; i < 4; i++) w[i] = whole(&last[i], row[i] + at, parts, c);
        multiply_add(sum, w, in, c);
    }
    return sum_lanes(sum[0], sum[1], sum[2], sum[3]);
}

INLINE void one_token(float *out, const Matrix *w, const BlockX8 *x, int from, int to, Coding c) {
    Input in[SPAN / SUPER];
    Copy last[4] = { 0 };
    int apart = (to - from + 3) / 4, all = w->cols / BLOCK;
    for (int k = 0; k < all; k += SPAN / BLOCK) {
        int parts = smaller(SPAN / BLOCK, all - k);
        prepare_row(in, x + k, parts, c);
        for (int r = from; r < from + apart; r++) {
            const char *row[4];
            float sums[4];
            for (int i = 0; i < 4; i++)
                row[i] = (const char *)w->data + ((size_t)far_row(r, i, apart, to) * all + k) * c.bytes / 8;
            _mm_storeu_ps(sums, multiply_four(row, in, parts, last, c));
            for (int i = 0; i < 4 && r + i * apart < to; i++) {
                float *o = out + r + i * apart;
                *o = k == 0 ? sums[i] : *o + sums[i];
            }
        }
    }
}

// ---------------------------------------------------------------------------- many tokens

// 16 rows by 32 columns, a row to a lane: q[k][0] holds columns 4k to 4k + 3 of eight rows, q[k][1] of the
// other eight; d[0] and m[0] are their scales, d[1] and m[1] those of the last 16 columns if they have some.
typedef struct { __m256i q[8][2]; __m256 d[2][2], m[2][2]; } Panel;

// Fills one side of the panels, eight rows, with eight parts or the last few.
INLINE void unpack_rows(Panel *panel, int side, const char *const row[8], int parts, Copy last[8], Coding c) {
    const void *w[8];
    __m256 v[4][8];
    for (int r = 0; r < 8; r++) {
        w[r] = whole(&last[r], row[r], parts, c);
        Scales s = c.scales(w[r]);
        v[0][r] = s.d[0], v[1][r] = s.d[1], v[2][r] = s.m[0], v[3][r] = s.m[1];
    }
    for (int i = 0; i < 4; i++)
        if ((i < 2 || c.has_m) && (i % 2 == 0 || c.by_16)) transpose(v[i]);
    for (int part = 0; part < 8 && part < parts; part++) {
        for (int h = 0; h < 1 + c.by_16; h++) {
            int i = place(c.by_16 ? 2 * part + h : part);
            panel[part].d[h][side] = v[i / 8][i % 8];
            if (c.has_m) panel[part].m[h][side] = v[2 + i / 8][i % 8];
        }
    }
    for (int part = 0; part < 8 && part < parts; part += c.pair ? 2 : 1) {
        for (int r = 0; r < 8 && c.pair; r++) {
            Pair pair = c.pair(w[r], part);
            v[0][r] = _mm256_castsi256_ps(pair.first), v[1][r] = _mm256_castsi256_ps(pair.second);
        }
        for (int r = 0; r < 8 && !c.pair; r++) v[0][r] = _mm256_castsi256_ps(c.codes(w[r], part));
        transpose(v[0]);
        if (c.pair) transpose(v[1]);
        for (int k = 0; k < 8; k++)
            if (c.pair) {
                panel[part + k / 4].q[k % 4][side] = _mm256_castps_si256(v[0][k]);
                panel[part + k / 4].q[k % 4 + 4][side] = _mm256_castps_si256(v[1][k]);
            } else {
                panel[part].q[k][side] = _mm256_castps_si256(v[0][k]);
            }
    }
}

typedef struct { __m256i x0, x1, y0, y1; } Ints;        // as Floats, of avx2.h

INLINE Ints add_16(Ints a, Ints b) {
    return (Ints){ kept(_mm256_add_epi16(a.x0, b.x0)), kept(_mm256_add_epi16(a.x1, b.x1)),
                   kept(_mm256_add_epi16(a.y0, b.y0)), kept(_mm256_add_epi16(a.y1, b.y1)) };
}
INLINE Ints add_32(Ints a, Ints b) {
    return (Ints){ kept(_mm256_add_epi32(a.x0, b.x0)), kept(_mm256_add_epi32(a.x1, b.x1)),
                   kept(_mm256_add_epi32(a.y0, b.y0)), kept(_mm256_add_epi32(a.y1, b.y1)) };
}
INLINE Ints widen_all(Ints a) { return (Ints){ widen(a.x0), widen(a.x1), widen(a.y0), widen(a.y1) }; }

INLINE __m256 scale(__m256i a, __m256 d) { return _mm256_mul_ps(_mm256_cvtepi32_ps(a), d); }
INLINE Floats scale_all(Ints a, const __m256 d[2]) {
    return (Floats){ scale(a.x0, d[0]), scale(a.x1, d[1]), scale(a.y0, d[0]), scale(a.y1, d[1]) };
}
INLINE __m256i columns(const BlockX8 *x, int k) { return _mm256_set1_epi32(load_int(x->q + 4 * k)); }

INLINE Ints multiply_columns(const __m256i q[2], const BlockX8 *x, const BlockX8 *y, int k, Coding c) {
    __m256i a = columns(x, k), b = columns(y, k), q0 = kept(q[0]), q1 = kept(q[1]);
    return (Ints){ products(q0, a, c), products(q1, a, c), products(q0, b, c), products(q1, b, c) };
}

// Added up in 16 bits for as long as there is room, then in 32.
INLINE Ints dots(const Panel *p, const BlockX8 *x, const BlockX8 *y, int k, int end, Coding c) {
    Ints sum = { 0 };
    for (int begin = k; k < end; k += c.room) {
        Ints some = multiply_columns(p->q[k], x, y, k, c);
        for (int i = k + 1; i < k + c.room; i++) some = add_16(some, multiply_columns(p->q[i], x, y, i, c));
        some = widen_all(some);
        sum = k == begin ? some : add_32(sum, some);
    }
    return sum;
}

// The sums of the two halves of a block, each times a factor.
INLINE __m256i sum_of(const BlockX8 *x, int first, int second) {
    __m256i factors = _mm256_set1_epi32((int)(((unsigned)first & 0xffff) | (unsigned)second << 16));
    return _mm256_madd_epi16(factors, _mm256_set1_epi32(load_int(x->sums)));
}

// One panel. The codes that stand for zero leave while sums are whole numbers, and nothing is rounded.
INLINE Floats multiply_panel(Floats sum, const Panel *p, const BlockX8 *x, const BlockX8 *y, Coding c) {
    __m256 dx = _mm256_set1_ps(x->scale), dy = _mm256_set1_ps(y->scale);
    for (int h = 0; h < 1 + c.by_16; h++) {
        int first = !c.by_16 || h == 0, second = !c.by_16 || h == 1;
        Ints dot = dots(p, x, y, 4 * h, c.by_16 ? 4 * h + 4 : 8, c);
        if (c.zero) {
            __m256i zx = sum_of(x, -c.zero * first, -c.zero * second);
            __m256i zy = sum_of(y, -c.zero * first, -c.zero * second);
            dot = add_32(dot, (Ints){ zx, zx, zy, zy });
        }
        sum = add_all(sum, scale_all(dot, p->d[h]), dx, dy);
        if (c.has_m) {
            __m256 mx = scale(sum_of(x, first, second), dx), my = scale(sum_of(y, first, second), dy);
            sum = add_all(sum, (Floats){ p->m[h][0], p->m[h][1], p->m[h][0], p->m[h][1] }, mx, my);
        }
    }
    return sum;
}

// Where there is only one token, it is computed twice.
INLINE void multiply_tile(float *out, int stride, int rows, const Panel *panel, int parts, const BlockX8 *x,
                          size_t pitch, bool two, bool first, Coding c) {
    const BlockX8 *y = two ? x + pitch : x;
    float *other = two ? out + stride : out;
    Floats sum = ZERO;
    if (!first) get(out, rows, &sum.x0, &sum.x1), get(other, rows, &sum.y0, &sum.y1);
    for (int i = 0; i < parts; i++) sum = multiply_panel(sum, panel + i, x + i, y + i, c);
    put(out, rows, sum.x0, sum.x1), put(other, rows, sum.y0, sum.y1);
}

INLINE void many_tokens(float *out, int stride, const Matrix *w, const BlockX8 *x, int T, int from, int to,
                        Coding c) {
    enum { PANELS = 16 };                               // by 32 columns: 12 KB, which stay close at hand
    Panel panel[PANELS];
    Copy last[8] = { 0 };
    int parts = w->cols / BLOCK;
    size_t next = 16 * (size_t)parts * c.bytes / 8;     // 16 rows, in bytes
    for (int k = 0; k < parts; k += PANELS)
        for (int r = from; r < to; r += 16) {
            int n = smaller(PANELS, parts - k);
            for (int i = k; i < k + n; i += 8)
                for (int side = 0; side < 2; side++) {
                    const char *row[8];
                    for (int j = 0; j < 8; j++) {
                        row[j] = (const char *)w->data +
                                 ((size_t)smaller(r + 8 * side + j, to - 1) * parts + i) * c.bytes / 8;
                        fetch(row[j] + next, c.bytes);
                    }
                    unpack_rows(panel + (i - k), side, row, k + n - i, last, c);
                }
            for (int t = 0; t < T; t += 2)
                multiply_tile(out + (size_t)t * stride + r, stride, smaller(16, to - r), panel, n,
                              x + (size_t)t * parts + k, (size_t)parts, t + 1 < T, k == 0, c);
        }
}

#define CODED_KERNEL(name, size, ...)                                                                       \
    TARGET static void matmul_##name(float *out, int stride, const Matrix *w, const void *x,                \
                                     int T, int from, int to) {                                             \
        const Coding c = { .scales = scales_##name, .bytes = size, __VA_ARGS__ };                           \
        if (T == 1) one_token(out, w, x, from, to, c);                                                      \
        else      many_tokens(out, stride, w, x, T, from, to, c);                                           \
    }

// room: of 4 bits 15 * 127 * 2 fits eight times, of 5 bits 31 * 127 * 2 four times, of 6 bits twice; by 16
// columns there are no more than four.
CODED_KERNEL(q8_0,   8 * sizeof(BlockQ8_0),   .pair = pair_q8_0,    .room = 1, .least = -128)
CODED_KERNEL(q4_0,   8 * sizeof(BlockQ4_0),   .pair = pair_q4_0,    .room = 8, .zero = 8)
CODED_KERNEL(q4_1,   8 * sizeof(BlockQ4_1),   .pair = pair_q4_1,    .room = 8, .has_m = true)
CODED_KERNEL(q5_0,   8 * sizeof(BlockQ5_0),   .pair = pair_q5_0,    .room = 4, .zero = 16)
CODED_KERNEL(q5_1,   8 * sizeof(BlockQ5_1),   .pair = pair_q5_1,    .room = 4, .has_m = true)
CODED_KERNEL(iq4_nl, 8 * sizeof(BlockIQ4_NL), .pair = pair_iq4_nl,  .room = 1, .least = -127)
CODED_KERNEL(q2_k,   sizeof(BlockQ2_K),       .codes = codes_q2_k,  .room = 4, .by_16 = true, .has_m = true)
CODED_KERNEL(q3_k,   sizeof(BlockQ3_K),       .codes = codes_q3_k,  .room = 4, .by_16 = true, .zero = 4)
CODED_KERNEL(q4_k,   sizeof(BlockQ4_K),       .pair = pair_q4_k,    .room = 8, .has_m = true)
CODED_KERNEL(q5_k,   sizeof(BlockQ5_K),       .pair = pair_q5_k,    .room = 4, .has_m = true)
CODED_KERNEL(q6_k,   sizeof(BlockQ6_K),       .codes = codes_q6_k,  .room = 2, .by_16 = true, .zero = 32)

// ---------------------------------------------------------------------------- llama2.c's int8
//
// Floats meet whole numbers, a group with its scale at a time.

INLINE __m256 add_eight(__m256 sum, const int8_t *q, const float *x) {
    __m128i bytes = _mm_loadl_epi64((const __m128i *)q);
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)), _mm256_loadu_ps(x), sum);
}

INLINE __m256 add_group(__m256 sum, const int8_t *q, const float *x, int n, const void *at) {
    __m256 even = _mm256_setzero_ps(), odd = even;
    int i = 0;
    for (; i + 16 <= n; i += 16)
        even = add_eight(even, q + i, x + i), odd = add_eight(odd, q + i + 8, x + i + 8);
    for (; i < n; i += 8) {
        int8_t last_q[8] = { 0 };
        float last_x[8] = { 0 };
        memcpy(last_q, q + i, (size_t)smaller(n - i, 8));
        memcpy(last_x, x + i, (size_t)smaller(n - i, 8) * sizeof *x);
        even = add_eight(even, last_q, last_x);
    }
    float scale;
    memcpy(&scale, at, sizeof scale);                   // not always aligned
    return _mm256_fmadd_ps(_mm256_add_ps(even, odd), _mm256_set1_ps(scale), sum);
}

TARGET static void matmul_plane(float *out, int stride, const Matrix *w, const void *x,
                                int T, int from, int to) {
    int apart = (to - from + 3) / 4, group = w->group, groups = w->cols / group;
    for (int r = from; r < from + apart; r++) {
        const int8_t *row[4];
        const char *scales[4];
        for (int i = 0; i < 4; i++) {
            size_t at = (size_t)far_row(r, i, apart, to);
            row[i] = (const int8_t *)w->data + at * w->cols;
            scales[i] = (const char *)w->scales + at * groups * sizeof(float);
        }
        for (int t = 0; t < T; t++) {
            const float *in = (const float *)x + (size_t)t * w->cols;
            __m256 sum[4] = ZERO;
            float sums[4];
            for (int g = 0; g < groups; g++)
                for (int i = 0; i < 4; i++) {
                    size_t c = (size_t)g * group;
                    fetch_ahead(row[i] + c, group);
                    sum[i] = add_group(sum[i], row[i] + c, in + c, group, scales[i] + g * sizeof(float));
                }
            _mm_storeu_ps(sums, sum_lanes(sum[0], sum[1], sum[2], sum[3]));
            for (int i = 0; i < 4; i++) out[(size_t)t * stride + far_row(r, i, apart, to)] = sums[i];
        }
    }
}

static bool supported(void) {
    unsigned a, b, c, d;                                // F16C has no name that every compiler knows
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_F16C)) return false;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

const Kernels kernels_avx2 = {
    .name = "avx2", .supported = supported, .quantize = avx2_quantize, LOOPS,
    .matmul = { [F32] = avx2_matmul_f32, [F16] = avx2_matmul_f16, [BF16] = avx2_matmul_bf16,
                [Q8_0] = matmul_q8_0, [Q4_0] = matmul_q4_0, [Q4_1] = matmul_q4_1, [Q5_0] = matmul_q5_0,
                [Q5_1] = matmul_q5_1, [IQ4_NL] = matmul_iq4_nl, [Q2_K] = matmul_q2_k, [Q3_K] = matmul_q3_k,
                [Q4_K] = matmul_q4_k, [Q5_K] = matmul_q5_k, [Q6_K] = matmul_q6_k, [Q8_PLANE] = matmul_plane },
    .mix    = { [F32] = avx2_mix_f32, [F16] = avx2_mix_f16, [BF16] = avx2_mix_bf16 },
    .encode = { [F16] = avx2_encode_f16 },
};

#else

static bool never(void) { return false; }
const Kernels kernels_avx2 = { .name = "avx2", .supported = never };

#endif
