// avx512.c - x86-64 with AVX-512 F, BW, DQ, VL, VNNI and VBMI, and GFNI: 16 floats, or 64 small integers,
// at a time.
//
// Writing waits for memory: a few tokens are multiplied with four rows that lie far apart, so that four
// streams come in at once. Reading a prompt waits for arithmetic: 64 rows are unpacked once into a panel that
// stays in the cache, and six tokens at a time are multiplied with it.
#include "kernels.h"

#ifdef __x86_64__
#include "avx512.h"
#include "loops.h"

// ---------------------------------------------------------------------------- 256 numbers of a row
//
// Every quantized format is unpacked to the same: unsigned bytes q, and scales and offsets as floats.
// portable.c draws the formats.
//
//   w = scale * (q - zero) + offset
//
// by_16: a scale for every 16 numbers, scale[0] * small[0]; an offset, -scale[1] * small[1]. scale[i] is the
// same in all lanes, small[i] holds 16 small integers. q[k] has blocks k and k + 4, of 32 numbers.
// Otherwise one for every 32: scale[0] holds 8 scales, then 8 offsets. q[0] has the first halves of blocks 0
// to 3 and q[1] their second halves, q[2] and q[3] those of blocks 4 to 7: the products of both halves can be
// added before they are scaled.

typedef struct { __m512i q[4]; __m512 scale[2]; __m128i small[2]; } Unpacked;

typedef struct {
    void (*unpack)(Unpacked *u, const void *block);
    int bytes, zero;                                    // which 256 numbers take; stands for zero
    bool has_offsets, by_16;
} Coding;

INLINE __m512i low_bits(__m512i bytes, int n) {
    return _mm512_and_si512(bytes, _mm512_set1_epi8((char)((1 << n) - 1)));
}
INLINE __m512i or_and(__m512i a, __m512i b, char mask) {         // a | (b & mask)
    return _mm512_ternarylogic_epi32(a, b, _mm512_set1_epi8(mask), 0xf8);
}
// n bits of each byte from bit `from` on, moved down: every row of the matrix chooses a bit of the result.
INLINE __m512i bits_from(__m512i bytes, int from, int n) {
    const uint64_t identity = 0x0102040810204080, first_n = ~(uint64_t)0 << 8 * (8 - n);
    const uint64_t rows = identity << 8 * from & first_n;
    return _mm512_gf2p8affine_epi64_epi8(bytes, _mm512_set1_epi64((int64_t)rows), 0);
}

// 16 bytes, `at` bytes behind the beginning of each of four blocks of at most 24 bytes. One load holds those
// of three: of Q4_0, d:2 q:16 d:2 q:16 d:2 q:16 and ten bytes more. The fourth joins by a masked load.
INLINE __m512i four_blocks(const void *p, int at, int stride) {
    const char *b = p;
    const int begin = 2 * stride + at + 16 <= 64 ? 0 : at;          // what scales() loads, where that will do
    const int next = stride * 0x01010101, start = (at - begin) * 0x01010101;
    const __m512i quarter = _mm512_setr_epi32(0, 0, 0, 0, next, next, next, next,
                                              2 * next, 2 * next, 2 * next, 2 * next, 0, 0, 0, 0);
    const __m128i byte = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i from = _mm512_add_epi8(_mm512_broadcast_i32x4(byte), _mm512_set1_epi32(start));
    __m512i three = _mm512_permutexvar_epi8(_mm512_add_epi8(from, quarter), load64(b + begin));
    return _mm512_mask_broadcast_i32x4(three, 0xf000, load16(b + 3 * stride + at));
}

// The halves of eight blocks, `at` bytes behind their beginnings. Where 64 bytes hold those of four blocks,
// two loads do; otherwise there is a load for each, from where it comes to its place.
INLINE __m128i eight_halves(const void *p, int at, int stride) {
    const char *b = (const char *)p;
    if (3 * stride + at + 2 <= 64) {
        const short s = (short)(stride / 2), a = (short)(at / 2);
        const __m512i from = _mm512_zextsi128_si512(_mm_setr_epi16(
            a, s + a, 2 * s + a, 3 * s + a, 32 + a, 32 + s + a, 32 + 2 * s + a, 32 + 3 * s + a));
        return _mm512_castsi512_si128(_mm512_permutex2var_epi16(load64(b), from, load64(b + 4 * stride)));
    }
    __m128i v = load16(b + at);
    v = _mm_blend_epi16(v, load16(b + at + stride - 2), 1 << 1);
    v = _mm_blend_epi16(v, load16(b + at + 2 * stride - 4), 1 << 2);
    v = _mm_blend_epi16(v, load16(b + at + 3 * stride - 6), 1 << 3);
    v = _mm_blend_epi16(v, load16(b + at + 4 * stride - 8), 1 << 4);
    v = _mm_blend_epi16(v, load16(b + at + 5 * stride - 10), 1 << 5);
    v = _mm_blend_epi16(v, load16(b + at + 6 * stride - 12), 1 << 6);
    return _mm_blend_epi16(v, load16(b + at + 7 * stride - 14), 1 << 7);
}

// The scales of eight blocks, and the offsets that follow them in a block.
INLINE __m512 scales(const void *p, int stride) {
    return _mm512_castps256_ps512(_mm256_cvtph_ps(eight_halves(p, 0, stride)));
}
INLINE __m512 scales_and_offsets(const void *p, int stride) {
    return _mm512_cvtph_ps(join16(eight_halves(p, 0, stride), eight_halves(p, 2, stride)));
}

INLINE __m512 floats(__m128i bytes) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)); }

// Numbers from -128 to 127: flipping the highest bit adds 128.
INLINE void unpack_q8_0(Unpacked *u, const void *block) {
    const BlockQ8_0 *b = block;
    const __m512i highest = _mm512_set1_epi8(-128);
    for (int i = 0; i < 4; i += 2, b += 4) {
        __m512i early = _mm512_xor_si512(join(load32(b[0].q), load32(b[1].q)), highest);
        __m512i late = _mm512_xor_si512(join(load32(b[2].q), load32(b[3].q)), highest);
        u->q[i] = _mm512_shuffle_i32x4(early, late, 0x88);              // first halves
        u->q[i + 1] = _mm512_shuffle_i32x4(early, late, 0xdd);
    }
    u->scale[0] = scales(block, sizeof *b);
}

INLINE void nibbles(Unpacked *u, const void *block, int at, int stride) {
    for (int i = 0; i < 4; i += 2) {
        __m512i bytes = four_blocks((const char *)block + 2 * i * stride, at, stride);
        u->q[i] = low_bits(bytes, 4), u->q[i + 1] = bits_from(bytes, 4, 4);
    }
}

INLINE void unpack_q4_0(Unpacked *u, const void *block) {
    const BlockQ4_0 *b = block;
    nibbles(u, b, offsetof(BlockQ4_0, q), sizeof *b);
    u->scale[0] = scales(b, sizeof *b);
}

INLINE void unpack_q4_1(Unpacked *u, const void *block) {
    const BlockQ4_1 *b = block;
    nibbles(u, b, offsetof(BlockQ4_1, q), sizeof *b);
    u->scale[0] = scales_and_offsets(b, sizeof *b);
}

// The first 8 bytes of four blocks, twice each.
INLINE __m512i four_heads(const void *p, int stride) {
    const char *b = p;
    const int next = stride * 0x01010101, zero = 0x03020100, four = 0x07060504;
    const __m512i from = _mm512_setr_epi32(zero, four, zero, four,
                                           zero + next, four + next, zero + next, four + next,
                                           zero + 2 * next, four + 2 * next, zero + 2 * next, four + 2 * next,
                                           0, 0, 0, 0);
    int64_t last;
    memcpy(&last, b + 3 * stride, sizeof last);
    return _mm512_mask_set1_epi64(_mm512_permutexvar_epi8(from, load64(b)), 0xc0, last);
}

// Scales, offsets, and 32 fifth bits from bit `at` on, which come to where nibbles end.
INLINE void unpack_heads(Unpacked *u, const void *p, int at, int stride) {
    const __m512i bit = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7,
                                                             8, 9, 10, 11, 12, 13, 14, 15));
    const __m512i first = _mm512_add_epi8(bit, _mm512_set1_epi8((char)(at - 4)));
    const __m512i second = _mm512_add_epi8(bit, _mm512_set1_epi8((char)(at + 12)));
    __m512i heads[2] = { four_heads(p, stride), four_heads((const char *)p + 4 * stride, stride) };
    for (int i = 0; i < 2; i++) {
        u->q[2 * i] = or_and(u->q[2 * i], _mm512_multishift_epi64_epi8(first, heads[i]), 16);
        u->q[2 * i + 1] = or_and(u->q[2 * i + 1], _mm512_multishift_epi64_epi8(second, heads[i]), 16);
    }
    const __m512i halves = _mm512_zextsi256_si512(_mm256_setr_epi16(0, 8, 16, 24, 32, 40, 48, 56,
                                                                    1, 9, 17, 25, 33, 41, 49, 57));
    __m512i all = _mm512_permutex2var_epi16(heads[0], halves, heads[1]);
    u->scale[0] = _mm512_cvtph_ps(_mm512_castsi512_si256(all));
}

INLINE void unpack_q5_0(Unpacked *u, const void *block) {
    const BlockQ5_0 *b = block;
    nibbles(u, b, offsetof(BlockQ5_0, q), sizeof *b);
    unpack_heads(u, b, 8 * offsetof(BlockQ5_0, high), sizeof *b);
}

INLINE void unpack_q5_1(Unpacked *u, const void *block) {
    const BlockQ5_1 *b = block;
    nibbles(u, b, offsetof(BlockQ5_1, q), sizeof *b);
    unpack_heads(u, b, 8 * offsetof(BlockQ5_1, high), sizeof *b);
}

// A byte shuffle looks up sixteen steps at once; all of them 128 higher.
INLINE void unpack_iq4_nl(Unpacked *u, const void *block) {
    const __m512i steps = _mm512_broadcast_i32x4(_mm_setr_epi8(
        128 - 127, 128 - 104, 128 - 83, 128 - 65, 128 - 49, 128 - 35, 128 - 22, 128 - 10,
        1 - 128, 13 - 128, 25 - 128, 38 - 128, 53 - 128, 69 - 128, 89 - 128, 113 - 128));
    unpack_q4_0(u, block);
    for (int k = 0; k < 4; k++) u->q[k] = _mm512_shuffle_epi8(steps, u->q[k]);
}

// Bit `from` comes to where bit `to` was; neighbours in 16 bits stray.
INLINE __m512i move_bit(__m512i v, int from, int to) {
    unsigned left = (unsigned)(to - from), right = (unsigned)(from - to);
    return from < to ? _mm512_slli_epi16(v, left) : _mm512_srli_epi16(v, right);
}

// 32 bytes, twice: of each the bit `low`, and in the upper half the bit `high`, moved to bit `to`.
INLINE __m512i bit_of_halves(const uint8_t *bytes, int low, int high, int to) {
    const int64_t l = 1ll << low << 8 * (7 - to), h = 1ll << high << 8 * (7 - to);      // as in bits_from
    __m512i twice = _mm512_broadcast_i64x4(load32(bytes));
    return _mm512_gf2p8affine_epi64_epi8(twice, _mm512_setr_epi64(l, l, l, l, h, h, h, h), 0);
}

INLINE void unpack_q2_k(Unpacked *u, const void *block) {
    const BlockQ2_K *b = block;
    const __m128i bytes = load16(b->scales), low = _mm_set1_epi8(15);
    for (int k = 0; k < 4; k++) u->q[k] = bits_from(load64(b->q), 2 * k, 2);
    u->small[0] = _mm_and_si128(bytes, low), u->small[1] = _mm_and_si128(_mm_srli_epi16(bytes, 4), low);
    u->scale[0] = half(b->d), u->scale[1] = half(b->dmin);
}

// The scales' 6 bits: the lower four of 0-7 and of 8-15 are the halves of eight bytes, the upper two of four
// times four are the quarters of four bytes.
INLINE void unpack_q3_k(Unpacked *u, const void *block) {
    const BlockQ3_K *b = block;
    int64_t eight;
    int32_t four;
    memcpy(&eight, b->scales, sizeof eight), memcpy(&four, b->scales + 8, sizeof four);
    __m128i low = _mm_srlv_epi64(_mm_set1_epi64x(eight), _mm_set_epi64x(4, 0));
    __m128i high = _mm_srlv_epi32(_mm_set1_epi32(four), _mm_setr_epi32(0, 2, 4, 6));
    low = _mm_and_si128(low, _mm_set1_epi8(15));
    high = _mm_slli_epi16(_mm_and_si128(high, _mm_set1_epi8(3)), 4);
    u->small[0] = _mm_sub_epi8(_mm_or_si128(low, high), _mm_set1_epi8(32)), u->scale[0] = half(b->d);
    for (int k = 0; k < 4; k++)
        u->q[k] = _mm512_or_si512(bits_from(load64(b->q), 2 * k, 2), bit_of_halves(b->high, k, k + 4, 2));
}

// The scales and mins of Q4_K and Q5_K, eight of each, from the first 16 bytes:
//   d:16   dmin:16   bytes 4-7: s 0-3   8-11: m 0-3   12-15: lower bits of s and m 4-7, whose upper two lie
//   above s 0-3 and m 0-3
INLINE __m512 scales_k(const void *block) {
    const __m128i lower = _mm_setr_epi8(4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m128i upper = _mm_setr_epi8(-1, -1, -1, -1, 4, 5, 6, 7, -1, -1, -1, -1, 8, 9, 10, 11);
    const __m128i mask = _mm_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f);
    __m128i bytes = load16(block);
    __m128i low = _mm_srlv_epi32(_mm_shuffle_epi8(bytes, lower), _mm_setr_epi32(0, 0, 0, 4));
    __m128i high = _mm_and_si128(_mm_srli_epi16(_mm_shuffle_epi8(bytes, upper), 2), _mm_set1_epi8(48));
    __m128i all = _mm_or_si128(_mm_and_si128(low, mask), high);
    __m128 d = _mm_cvtph_ps(_mm_xor_si128(bytes, _mm_setr_epi16(0, (short)0x8000, 0, 0, 0, 0, 0, 0)));
    const __m512i each = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    return _mm512_mul_ps(_mm512_permutexvar_ps(each, _mm512_castps128_ps512(d)), floats(all));
}

// Four blocks, from 64 bytes that hold blocks 0 and 2 below, 1 and 3 above.
INLINE void by_halves_k(__m512i *q, __m512i even, __m512i odd) {
    q[0] = _mm512_permutex2var_epi64(even, _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13), odd);
    q[1] = _mm512_permutex2var_epi64(even, _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15), odd);
}

INLINE void unpack_q4_k(Unpacked *u, const void *block) {
    const BlockQ4_K *b = block;
    for (int i = 0; i < 4; i += 2) {
        __m512i bytes = load64(b->q + 32 * i);
        by_halves_k(u->q + i, low_bits(bytes, 4), bits_from(bytes, 4, 4));
    }
    u->scale[0] = scales_k(b);
}

INLINE void unpack_q5_k(Unpacked *u, const void *block) {
    const BlockQ5_K *b = block;
    for (int i = 0; i < 4; i += 2) {
        __m512i bytes = load64(b->q + 32 * i);
        __m512i even = bit_of_halves(b->high, 2 * i, 2 * i + 2, 4);
        __m512i odd = bit_of_halves(b->high, 2 * i + 1, 2 * i + 3, 4);
        by_halves_k(u->q + i, or_and(even, bytes, 15), _mm512_or_si512(bits_from(bytes, 4, 4), odd));
    }
    u->scale[0] = scales_k(b);
}

INLINE void unpack_q6_k(Unpacked *u, const void *block) {
    const BlockQ6_K *b = block;
    __m512i high = load64(b->high);
    for (int k = 0; k < 2; k++) {
        __m512i bytes = join(load32(b->q + 32 * k), load32(b->q + 64 + 32 * k));
        u->q[k] = or_and(low_bits(bytes, 4), move_bit(high, 2 * k, 4), 48);
        u->q[k + 2] = or_and(bits_from(bytes, 4, 4), move_bit(high, 2 * k + 4, 4), 48);
    }
    u->small[0] = load16(b->scales), u->scale[0] = half(b->d);
}

// Rows end where they end: the last columns, if fewer than 256, are copied to where zeros stand behind them.
// Those are there from the beginning, and stay, as all rows end with as many columns.
typedef struct { char bytes[8 * sizeof(BlockQ8_0)]; } Copy;             // the longest there is

INLINE const char *whole(Copy *last, const char *p, int cols, Coding f) {
    return cols >= SUPER ? p : memcpy(last->bytes, p, (size_t)(f.bytes / 8 * (cols / BLOCK)));
}

INLINE void unpack(Unpacked *u, const char *p, Coding f) {
    u->scale[1] = _mm512_setzero_ps(), u->small[1] = _mm_setzero_si128();
    f.unpack(u, p);
}

// ---------------------------------------------------------------------------- a few tokens
//
// Products are summed by fours, as integers and exactly, in blocks of 32 two such sums at once. Then come the
// scales: there, lane l of sum i belongs to scale 4i + l / 4.

enum { FEW = 3, SPAN = 8192 };                          // tokens; the columns that are prepared at a time

// x to meet an Unpacked. sum of w * x = w.scale * x.scale * sum of (w.q - zero) * x.q
//                                     + w.offset * x.scale * sum of x.q
typedef struct { __m512i q[4], zeros[4]; __m512 scale[2]; __m256 each; __m256i sums; } Input;

// 16 columns of each of four blocks.
INLINE __m512i four_halves(const BlockX8 *x, int at) {
    return join(join16(load16(x[0].q + at), load16(x[1].q + at)),
                join16(load16(x[2].q + at), load16(x[3].q + at)));
}

INLINE void prepare(Input *out, const BlockX8 *x, Coding f) {   // of 8 blocks
    int16_t halves[8][2];
    for (int b = 0; b < 8; b++) memcpy(halves[b], x[b].sums, sizeof *halves);
    __m256i sums = load32(halves);
    __m256 scale = _mm256_setr_ps(x[0].scale, x[1].scale, x[2].scale, x[3].scale,
                                  x[4].scale, x[5].scale, x[6].scale, x[7].scale);
    __m512 both = _mm512_castps256_ps512(scale);
    if (f.by_16) {
        const __m512i block = _mm512_setr_epi32(0, 0, 1, 1, 0, 0, 1, 1, 4, 4, 5, 5, 4, 4, 5, 5);
        both = _mm512_mul_ps(both, _mm512_set1_ps(1.0f / 256));
        out->scale[0] = _mm512_permutexvar_ps(block, both);
        out->scale[1] = _mm512_permutexvar_ps(_mm512_add_epi32(block, _mm512_set1_epi32(2)), both);
        out->each = scale, out->sums = sums;
        for (int k = 0; k < 4; k++) out->q[k] = join(load32(x[k].q), load32(x[k + 4].q));
    } else {
        sums = _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
        out->scale[0] = _mm512_insertf32x8(both, _mm256_mul_ps(scale, _mm256_cvtepi32_ps(sums)), 1);
        for (int k = 0; k < 4; k++) out->q[k] = four_halves(x + k / 2 * 4, k % 2 * 16);
    }
    for (int k = 0; k < 4; k++) {
        __m512i minus = _mm512_sub_epi8(_mm512_setzero_si512(), out->q[k]);
        __m512i s = f.by_16 || k % 2 == 0 ? _mm512_setzero_si512() : out->zeros[k / 2];
        out->zeros[f.by_16 ? k : k / 2] = _mm512_dpbusd_epi32(s, _mm512_set1_epi8((char)f.zero), minus);
    }
}

INLINE void prepare_row(Input *out, const BlockX8 *x, int cols, Coding f) {
    BlockX8 padded[8] = { 0 };
    for (; cols >= SUPER; cols -= SUPER, x += 8) prepare(out++, x, f);
    if (cols) prepare(out, memcpy(padded, x, (size_t)(cols / BLOCK) * sizeof *x), f);
}

// For four rows, step by step: while one waits for a result, the others go ahead.
INLINE void add_products(__m512 sum[4], const char *const row[4], size_t at, const Input *x, Coding f) {
    const __m512i quarter = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    Unpacked w[4];
    for (int r = 0; r < 4; r++) unpack(&w[r], row[r] + at, f);
    __m512 scale[4];
    for (int r = 0; r < 4; r++) scale[r] = _mm512_mul_ps(w[r].scale[0], x->scale[0]);
    for (int i = 0; i < 2; i++) {
        const __m512i which = _mm512_add_epi32(quarter, _mm512_set1_epi32(4 * i));
        __m512i s[4];
        for (int r = 0; r < 4; r++) {
            s[r] = f.zero ? x->zeros[i] : _mm512_setzero_si512();
            s[r] = _mm512_dpbusd_epi32(s[r], w[r].q[2 * i], x->q[2 * i]);
            s[r] = _mm512_dpbusd_epi32(s[r], w[r].q[2 * i + 1], x->q[2 * i + 1]);
        }
        for (int r = 0; r < 4; r++) {
            __m512 spread = _mm512_permutexvar_ps(which, scale[r]);
            sum[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(s[r]), spread, sum[r]);
        }
    }
    for (int r = 0; r < 4 && f.has_offsets; r++)        // offsets are scaled just so
        sum[r] = _mm512_mask_add_ps(sum[r], 0xff00, sum[r], scale[r]);
}

// Sums of four products, of numbers of at most 6 bits, fit into 16: two vectors of them share one, 16 numbers
// of one block, then of the next. Scales stand in the upper halves of 16 bits, 256 times too large.
INLINE __m512 add_products_by_16(__m512 sum, const char *p, const Input *x, Coding f) {
    Unpacked w;
    unpack(&w, p, f);
    const __m512i scale = _mm512_setr_epi32(0, 0, 2, 2, 1, 1, 3, 3, 8, 8, 10, 10, 9, 9, 11, 11);
    const __m512i upper = _mm512_mullo_epi32(scale, _mm512_set1_epi32(0x01000100));
    __m512i small = _mm512_castsi128_si512(w.small[0]);
    __m512 block = _mm512_setzero_ps();
    for (int i = 0; i < 2; i++) {
        const __m512i *zeros = x->zeros + 2 * i, none = _mm512_setzero_si512();
        __m512i a = _mm512_dpbusd_epi32(f.zero ? zeros[0] : none, w.q[2 * i], x->q[2 * i]);
        __m512i b = _mm512_dpbusd_epi32(f.zero ? zeros[1] : none, w.q[2 * i + 1], x->q[2 * i + 1]);
        __m512i from = _mm512_add_epi8(upper, _mm512_set1_epi8((char)(4 * i)));
        __m512i s = _mm512_maskz_permutexvar_epi8(0xaaaaaaaaaaaaaaaa, from, small);
        s = _mm512_madd_epi16(_mm512_packs_epi32(a, b), s);
        block = _mm512_fmadd_ps(_mm512_cvtepi32_ps(s), x->scale[i], block);
    }
    sum = _mm512_fmadd_ps(block, w.scale[0], sum);
    if (!f.has_offsets) return sum;
    __m256i offsets = _mm256_madd_epi16(_mm256_cvtepu8_epi16(w.small[1]), x->sums);
    __m256 scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(offsets), x->each);
    return _mm512_fnmadd_ps(_mm512_zextps256_ps512(scaled), w.scale[1], sum);
}

// Four rows times x, n times 256 columns.
INLINE __m128 dot_four(const char *const row[4], const Input *x, int n, Coding f) {
    __m512 sum[4] = { _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps() };
    for (size_t at = 0; n > 0; n--, at += (size_t)f.bytes, x++) {
        for (int r = 0; r < 4; r++) fetch_ahead(row[r] + at, f.bytes);
        if (f.by_16) {                                  // too few registers for four rows at once
            sum[0] = add_products_by_16(sum[0], row[0] + at, x, f);
            sum[1] = add_products_by_16(sum[1], row[1] + at, x, f);
            sum[2] = add_products_by_16(sum[2], row[2] + at, x, f);
            sum[3] = add_products_by_16(sum[3], row[3] + at, x, f);
        } else {
            add_products(sum, row, at, x, f);
        }
    }
    return sum_lanes(sum[0], sum[1], sum[2], sum[3]);
}

// Rows r, r + apart, ... Rows side by side would share a page, and the hardware fetches ahead once per page.
// Where rows do not divide by four, the last one is computed again, and not stored.
INLINE void matmul_few(float *out, int stride, const Matrix *w, const BlockX8 *x, int T, int from, int to,
                       Coding f) {
    Input in[FEW][SPAN / SUPER];
    Copy last[4] = { 0 };
    size_t row_bytes = bytes_of(w->type, (size_t)w->cols);
    int apart = (to - from + 3) / 4;
    for (int c = 0, cols; c < w->cols; c += cols) {
        cols = least(w->cols - c, SPAN);
        if (cols > SUPER) cols -= cols % SUPER;         // the rest is a pass of its own
        const char *first = (const char *)w->data + bytes_of(w->type, (size_t)c);
        for (int t = 0; t < T; t++) prepare_row(in[t], x + ((size_t)t * w->cols + c) / BLOCK, cols, f);
        for (int r = from; r < from + apart; r++) {
            const char *row[4];
            int at[4];
            for (int i = 0; i < 4; i++) {
                at[i] = least(r + i * apart, to - 1);
                row[i] = whole(&last[i], first + at[i] * row_bytes, cols, f);
            }
            for (int t = 0; t < T; t++) {
                float sums[4], *o = out + (size_t)t * stride;
                _mm_storeu_ps(sums, dot_four(row, in[t], (cols + SUPER - 1) / SUPER, f));
                for (int i = 0; i < 4 && r + i * apart < to; i++)
                    o[at[i]] = c == 0 ? sums[i] : o[at[i]] + sums[i];
            }
        }
    }
}

// ---------------------------------------------------------------------------- many tokens
//
// A panel holds 64 rows, 16 to a strip. Lane r of a vector belongs to row r; a vector of small integers holds
// four columns of each row, so that four bytes of x, in all lanes, meet 16 rows at once.

enum { DEPTH = 2048 };                                  // columns at a time

typedef struct { __m512i q[8]; __m512 scale[2], offset[2]; } Strip;     // 16 rows x 32 columns

// 16 rows from `row` on; those after the last stand for rows that there are not, and nobody asks for theirs.
INLINE void fill_strip(Strip *out, Coding f, const char *row, size_t row_bytes, int rows, int cols) {
    Copy last = { 0 };
    for (; cols > 0; cols -= SUPER, row += f.bytes, out += 8) {
        __m512i q[4][16], scale[2][16];
        for (int r = 0; r < 16; r++) {
            Unpacked u;
            const char *block = row + (size_t)least(r, rows - 1) * row_bytes;
            fetch(block + 16 * row_bytes, f.bytes);     // nothing finds 16 streams by itself
            unpack(&u, whole(&last, block, cols, f), f);
            for (int k = 0; k < 4; k++) q[k][r] = u.q[k];
            for (int k = 0; k < 2; k++) {
                __m512 v = f.by_16 ? _mm512_mul_ps(u.scale[k], floats(u.small[k])) : u.scale[k];
                if (f.by_16 && k == 1) v = _mm512_sub_ps(_mm512_setzero_ps(), v);
                scale[k][r] = _mm512_castps_si512(v);
            }
        }
        for (int k = 0; k < 4; k++) {
            transpose(q[k]);
            for (int i = 0; i < 16; i++)
                if (f.by_16) out[k + i / 8 * 4].q[i % 8] = q[k][i];
                else out[k / 2 * 4 + i / 4].q[k % 2 * 4 + i % 4] = q[k][i];
        }
        transpose(scale[0]);
        if (f.by_16 && f.has_offsets) transpose(scale[1]);
        for (int i = 0; i < 16; i++) {
            if (f.by_16) out[i / 2].scale[i % 2] = _mm512_castsi512_ps(scale[0][i]);
            else if (i < 8) out[i].scale[0] = _mm512_castsi512_ps(scale[0][i]);
            else if (f.has_offsets) out[i - 8].offset[0] = _mm512_castsi512_ps(scale[0][i]);
            if (f.by_16 && f.has_offsets) out[i / 2].offset[i % 2] = _mm512_castsi512_ps(scale[1][i]);
        }
    }
}

// Of a block of x the sum of the first half, of the second or of both: vectors have enough to do already.
static inline int sum_of(const BlockX8 *x, bool low, bool high) {
    return (low ? x->sums[0] : 0) + (high ? x->sums[1] : 0);
}
INLINE __m512i four_of(const int8_t *q) {
    int32_t bytes;
    memcpy(&bytes, q, sizeof bytes);
    return _mm512_set1_epi32(bytes);
}

// Where a block has one scale and no offset, it can meet the token's scale while the products are summed.
INLINE bool scale_alone(Coding f) { return !f.by_16 && !f.has_offsets; }
INLINE __m512 times_scale(__m512 sum, __m512i products, __m512 scale, bool add, Coding f) {
    __m512 p = _mm512_cvtepi32_ps(products);
    if (scale_alone(f)) return p;
    return add ? _mm512_fmadd_ps(p, scale, sum) : _mm512_mul_ps(p, scale);
}

// 32 rows times 6 tokens. Of token t, at and bt are sums of integers, pt and qt of a block, ft and gt of all.
INLINE void multiply_tile(__m512 *out, Coding f, const Strip *v, const Strip *w, const BlockX8 *const *x,
                          int blocks) {
    const int parts = f.by_16 ? 2 : 1;
#define BEGIN(t)                                                                                            \
    const BlockX8 *x##t = x[t];                                                                             \
    __m512 f##t = _mm512_setzero_ps(), g##t = f##t;
    EACH(BEGIN)
    for (int i = 0; i < blocks; i++, v++, w++) {
#define ZERO(t) __m512 p##t = _mm512_setzero_ps(), q##t = p##t;
        EACH(ZERO)
        for (int h = 0; h < parts; h++) {               // 16 columns with scales of their own, or all 32
            const bool low = parts == 1 || h == 0, high = parts == 1 || h == 1;
#define START(t)                                                                                            \
    __m512i a##t = _mm512_set1_epi32(-f.zero * sum_of(x##t + i, low, high));                                \
    __m512i b##t = a##t;
            EACH(START)
#define FOUR_COLUMNS(t)                                                                                     \
    q = four_of(x##t[i].q + 4 * k);                                                                         \
    a##t = _mm512_dpbusd_epi32(a##t, v->q[k], q);                                                           \
    b##t = _mm512_dpbusd_epi32(b##t, w->q[k], q);
            for (int k = 8 / parts * h; k < 8 / parts * (h + 1); k++) {
                __m512i q;
                EACH(FOUR_COLUMNS)
            }
#define SCALE(t)                                                                                            \
    p##t = times_scale(p##t, a##t, v->scale[h], h, f);                                                      \
    q##t = times_scale(q##t, b##t, w->scale[h], h, f);                                                      \
    if (f.has_offsets) {                                                                                    \
        __m512 s = _mm512_set1_ps((float)sum_of(x##t + i, low, high));                                      \
        p##t = _mm512_fmadd_ps(v->offset[h], s, p##t);                                                      \
        q##t = _mm512_fmadd_ps(w->offset[h], s, q##t);                                                      \
    }
            EACH(SCALE)
        }
#define ADD(t)                                                                                              \
    d = _mm512_set1_ps(x##t[i].scale);                                                                      \
    f##t = _mm512_fmadd_ps(p##t, scale_alone(f) ? _mm512_mul_ps(v->scale[0], d) : d, f##t);                 \
    g##t = _mm512_fmadd_ps(q##t, scale_alone(f) ? _mm512_mul_ps(w->scale[0], d) : d, g##t);
        __m512 d;
        EACH(ADD)
    }
#define END(t) out[2 * t] = f##t, out[2 * t + 1] = g##t;
    EACH(END)
}

INLINE void matmul_many(float *out, int stride, const Matrix *w, const BlockX8 *x, int T, int from, int to,
                        Coding f) {
    Strip panel[ROWS / 16][DEPTH / BLOCK];
    __m512 tile[2 * TILE];
    size_t row_bytes = bytes_of(w->type, (size_t)w->cols);
    for (int r = from; r < to; r += ROWS)
        for (int c = 0; c < w->cols; c += DEPTH) {
            int rows = least(to - r, ROWS), cols = least(w->cols - c, DEPTH);
            const char *row = (const char *)w->data + r * row_bytes + bytes_of(w->type, (size_t)c);
            for (int i = 0; i < rows; i += 16)
                fill_strip(panel[i / 16], f, row + i * row_bytes, row_bytes, rows - i, cols);
            for (int t = 0; t < T; t += TILE)
                for (int i = 0; i < rows; i += 32) {
                    const Strip *v = panel[i / 16], *u = rows - i > 16 ? panel[i / 16 + 1] : v;
                    const BlockX8 *in[TILE];
                    for (int k = 0; k < TILE; k++)      // the last token stands for those that there are not
                        in[k] = x + ((size_t)least(t + k, T - 1) * w->cols + c) / BLOCK;
                    multiply_tile(tile, f, v, u, in, cols / BLOCK);
                    add_tile(out + (size_t)t * stride + r + i, stride, tile, 2, rows - i, T - t, c == 0);
                }
        }
}

#define MATMUL(name, ...)                                                                                   \
    static const Coding as_##name = { unpack_##name, __VA_ARGS__ };                                         \
    TARGET static void few_##name(ARGUMENTS) { matmul_few(out, stride, w, x, T, from, to, as_##name); }     \
    TARGET static void many_##name(ARGUMENTS) { matmul_many(out, stride, w, x, T, from, to, as_##name); }   \
    static void matmul_##name(ARGUMENTS) {                                                                  \
        (T <= FEW ? few_##name : many_##name)(out, stride, w, x, T, from, to);                              \
    }

MATMUL(q8_0,   8 * sizeof(BlockQ8_0), .zero = 128)
MATMUL(q4_0,   8 * sizeof(BlockQ4_0), .zero = 8)
MATMUL(q4_1,   8 * sizeof(BlockQ4_1), .has_offsets = true)
MATMUL(q5_0,   8 * sizeof(BlockQ5_0), .zero = 16)
MATMUL(q5_1,   8 * sizeof(BlockQ5_1), .has_offsets = true)
MATMUL(iq4_nl, 8 * sizeof(BlockIQ4_NL), .zero = 128)
MATMUL(q2_k,   sizeof(BlockQ2_K), .has_offsets = true, .by_16 = true)
MATMUL(q3_k,   sizeof(BlockQ3_K), .zero = 4, .by_16 = true)
MATMUL(q4_k,   sizeof(BlockQ4_K), .has_offsets = true)
MATMUL(q5_k,   sizeof(BlockQ5_K), .has_offsets = true)
MATMUL(q6_k,   sizeof(BlockQ6_K), .zero = 32, .by_16 = true)

// ---------------------------------------------------------------------------- llama2.c's int8
//
// Floats meet whole numbers, a group with its scale at a time.

INLINE __m512 add_group(__m512 sum, const int8_t *q, const float *x, int n, const void *at) {
    __m512 even = _mm512_setzero_ps(), odd = even;
    int i = 0;
    for (; i + 32 <= n; i += 32) {
        even = _mm512_fmadd_ps(floats(load16(q + i)), _mm512_loadu_ps(x + i), even);
        odd = _mm512_fmadd_ps(floats(load16(q + i + 16)), _mm512_loadu_ps(x + i + 16), odd);
    }
    for (; i < n; i += 16) {
        __mmask16 there = first(n - i);
        __m512 some = floats(_mm_maskz_loadu_epi8(there, q + i));
        even = _mm512_fmadd_ps(some, _mm512_maskz_loadu_ps(there, x + i), even);
    }
    float scale;
    memcpy(&scale, at, sizeof scale);                   // not always aligned
    return _mm512_fmadd_ps(_mm512_add_ps(even, odd), _mm512_set1_ps(scale), sum);
}

TARGET static void matmul_plane(ARGUMENTS) {
    int apart = (to - from + 3) / 4, group = w->group, groups = w->cols / group;
    for (int r = from; r < from + apart; r++) {
        const int8_t *row[4];
        const char *scales[4];
        for (int i = 0; i < 4; i++) {
            size_t at = (size_t)least(r + i * apart, to - 1);
            row[i] = (const int8_t *)w->data + at * w->cols;
            scales[i] = (const char *)w->scales + at * groups * sizeof(float);
        }
        for (int t = 0; t < T; t++) {
            const float *in = (const float *)x + (size_t)t * w->cols;
            __m512 sum[4] = { _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(),
                              _mm512_setzero_ps() };
            float sums[4];
            for (int g = 0; g < groups; g++)
                for (int i = 0; i < 4; i++) {
                    size_t c = (size_t)g * group;
                    fetch_ahead(row[i] + c, group);
                    sum[i] = add_group(sum[i], row[i] + c, in + c, group, scales[i] + g * sizeof(float));
                }
            _mm_storeu_ps(sums, sum_lanes(sum[0], sum[1], sum[2], sum[3]));
            for (int i = 0; i < 4 && r + i * apart < to; i++)
                out[(size_t)t * stride + r + i * apart] = sums[i];
        }
    }
}

static bool supported(void) {                           // F16C: no CPU has these without it
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi") &&
           __builtin_cpu_supports("gfni");
}

const Kernels kernels_avx512 = {
    .name = "avx512", .supported = supported, .quantize = avx512_quantize, LOOPS,
    .matmul = { [F32] = avx512_matmul_f32, [F16] = avx512_matmul_f16, [BF16] = avx512_matmul_bf16,
                [Q8_0] = matmul_q8_0, [Q4_0] = matmul_q4_0, [Q4_1] = matmul_q4_1, [Q5_0] = matmul_q5_0,
                [Q5_1] = matmul_q5_1, [IQ4_NL] = matmul_iq4_nl, [Q2_K] = matmul_q2_k, [Q3_K] = matmul_q3_k,
                [Q4_K] = matmul_q4_k, [Q5_K] = matmul_q5_k, [Q6_K] = matmul_q6_k, [Q8_PLANE] = matmul_plane },
    .mix    = { [F32] = avx512_mix_f32, [F16] = avx512_mix_f16, [BF16] = avx512_mix_bf16 },
    .encode = { [F16] = avx512_encode_f16 },
};

#else

static bool never(void) { return false; }
const Kernels kernels_avx512 = { .name = "avx512", .supported = never };

#endif
