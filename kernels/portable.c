// portable.c - the reference kernels: plain C, the definition the others are tested against.
#include "loops.h"
#include <math.h>
#include <string.h>

static bool always(void) { return true; }

// ---------------------------------------------------------------------------- floats
//
//          31     30 ... 23   22 ... 0
//   F32    sign   exponent    fraction     (-1)^sign * 2^(exponent - 127) * 1.fraction      IEEE 754 binary32
//   BF16   sign   exponent    7 bits       the upper half of an F32
//
//          15     14 ... 10   9 ... 0
//   F16    sign   exponent    fraction     (-1)^sign * 2^(exponent - 15) * 1.fraction       IEEE 754 binary16
//
// An exponent of zeros: a subnormal number, 0.fraction; of ones: infinity, or NaN.

static inline uint32_t bits_of(float f) { uint32_t bits; memcpy(&bits, &f, sizeof bits); return bits; }
static inline float float_of(uint32_t bits) { float f; memcpy(&f, &bits, sizeof f); return f; }

static inline float from_float(float f) { return f; }
static inline float from_bfloat(uint16_t upper) { return float_of((uint32_t)upper << 16); }

// The bits of a half, moved to where a float has them, make it 2^112 too small: one multiplication sets
// normal and subnormal numbers right; infinity and NaN get their exponent by hand.
static inline float from_half(Half half) {
    uint32_t magnitude = (half & 0x7fffu) << 13, sign = (half & 0x8000u) << 16;
    uint32_t bits = bits_of(float_of(magnitude) * 0x1p112f);
    return float_of(sign | bits | (magnitude >= 0x0f800000 ? 0x7f800000 : 0));
}

static inline Half to_half(float f) {
    uint32_t bits = bits_of(f), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return (Half)(sign | 0x7e00);                   // NaN
    if (magnitude >= 0x477ff000) return (Half)(sign | 0x7c00);                  // rounds to 2^16: infinity
    if (magnitude < 0x38800000)                     // subnormal: the last place of 0.5 is where a half rounds
        return (Half)(sign | (bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f)));
    return (Half)(sign | ((magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13));
}

// The loops over one kind of float. Eight running sums: the order of the additions is fixed here, not by the
// compiler's vector width.
#define FLOAT_KERNELS(name, Number, load)                                                                   \
    static float dot_##name(const Number *a, const float *b, int n) {                                       \
        float s[8] = { 0 }, tail = 0;                                                                       \
        int i = 0;                                                                                          \
        for (; i + 8 <= n; i += 8)                                                                          \
            for (int j = 0; j < 8; j++) s[j] += load(a[i + j]) * b[i + j];                                  \
        for (; i < n; i++) tail += load(a[i]) * b[i];                                                       \
        return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7])) + tail;                    \
    }                                                                                                       \
    static void matmul_##name(float *out, int stride, const Matrix *w, const void *x,                       \
                              int T, int from, int to) {                                                    \
        for (int r = from; r < to; r++)                                                                     \
            for (int t = 0; t < T; t++)                                                                     \
                out[(size_t)t * stride + r] = dot_##name((const Number *)w->data + (size_t)r * w->cols,     \
                                                         (const float *)x + (size_t)t * w->cols, w->cols);  \
    }                                                                                                       \
    static void mix_##name(MIX_ARGUMENTS) {                                                                 \
        for (int t = 0; t < T; t++, out += stride, scale += pitch) {                                        \
            const Number *row = w->data;                                                                    \
            for (int r = 0; r < w->rows; r++, row += w->cols)                                               \
                for (int c = 0; c < cols; c++) out[c] += scale[r] * load(row[c]);                           \
        }                                                                                                   \
    }                                                                                                       \
    static void decode_##name(float *out, const Matrix *w, int row) {                                       \
        const Number *in = (const Number *)w->data + (size_t)row * w->cols;                                 \
        for (int i = 0; i < w->cols; i++) out[i] = load(in[i]);                                             \
    }

FLOAT_KERNELS(f32, float, from_float)
FLOAT_KERNELS(f16, Half, from_half)
FLOAT_KERNELS(bf16, uint16_t, from_bfloat)

static void encode_f32(void *out, const float *in, int n) { memcpy(out, in, (size_t)n * sizeof *in); }
static void encode_f16(void *out, const float *in, int n) {
    for (int i = 0; i < n; i++) ((Half *)out)[i] = to_half(in[i]);
}

// ---------------------------------------------------------------------------- blocks of 32
//
// Every quantized format is unpacked to the same: 32 small integers, a scale and an offset for each half.
//
//   w = scale * q + offset

typedef struct { int8_t q[BLOCK]; float scale[2], offset[2]; } Unpacked;

#define NO_OFFSET (-0.0f)                               // leaves every number as it is, -0 too

static void set_scale(Unpacked *u, float scale, float offset) {
    u->scale[0] = u->scale[1] = scale;
    u->offset[0] = u->offset[1] = offset;
}

// 16 bytes hold 32 numbers of 4 bits: byte i holds number i below and number i + 16 above.
static void unpack_nibbles(Unpacked *u, const uint8_t *q) {
    for (int i = 0; i < 16; i++) {
        u->q[i] = q[i] & 15;
        u->q[i + 16] = q[i] >> 4;
    }
}

// The fifth bit of number i is bit i of four bytes.
static void add_fifth_bits(Unpacked *u, const uint8_t *high) {
    for (int i = 0; i < BLOCK; i++) u->q[i] |= (high[i / 8] >> i % 8 & 1) << 4;
}

static void shift(Unpacked *u, int by) {
    for (int i = 0; i < BLOCK; i++) u->q[i] -= (int8_t)by;
}

// Q8_0     d:16   q: 32 x 8, signed
static void unpack_q8_0(Unpacked *u, const void *row, int b) {
    const BlockQ8_0 *in = (const BlockQ8_0 *)row + b;
    memcpy(u->q, in->q, BLOCK);
    set_scale(u, from_half(in->d), NO_OFFSET);
}

// Q4_0     d:16   q: 16 x { 4 low: number i, 4 high: number i + 16 }, 8 stands for zero
static void unpack_q4_0(Unpacked *u, const void *row, int b) {
    const BlockQ4_0 *in = (const BlockQ4_0 *)row + b;
    unpack_nibbles(u, in->q);
    shift(u, 8);
    set_scale(u, from_half(in->d), NO_OFFSET);
}

// Q4_1     d:16   m:16   q as in Q4_0, 0 stands for m
static void unpack_q4_1(Unpacked *u, const void *row, int b) {
    const BlockQ4_1 *in = (const BlockQ4_1 *)row + b;
    unpack_nibbles(u, in->q);
    set_scale(u, from_half(in->d), from_half(in->m));
}

// Q5_0     d:16   high: 32 x 1, bit i is the fifth of number i   q as in Q4_0; 16 stands for zero
static void unpack_q5_0(Unpacked *u, const void *row, int b) {
    const BlockQ5_0 *in = (const BlockQ5_0 *)row + b;
    unpack_nibbles(u, in->q);
    add_fifth_bits(u, in->high);
    shift(u, 16);
    set_scale(u, from_half(in->d), NO_OFFSET);
}

// Q5_1     d:16   m:16   high and q as in Q5_0, 0 stands for m
static void unpack_q5_1(Unpacked *u, const void *row, int b) {
    const BlockQ5_1 *in = (const BlockQ5_1 *)row + b;
    unpack_nibbles(u, in->q);
    add_fifth_bits(u, in->high);
    set_scale(u, from_half(in->d), from_half(in->m));
}

// IQ4_NL   d:16   q as in Q4_0, an index into sixteen steps that lie closer together near zero
static void unpack_iq4_nl(Unpacked *u, const void *row, int b) {
    static const int8_t steps[16] = { -127, -104, -83, -65, -49, -35, -22, -10,
                                      1, 13, 25, 38, 53, 69, 89, 113 };
    const BlockIQ4_NL *in = (const BlockIQ4_NL *)row + b;
    unpack_nibbles(u, in->q);
    for (int i = 0; i < BLOCK; i++) u->q[i] = steps[u->q[i]];
    set_scale(u, from_half(in->d), NO_OFFSET);
}

// ---------------------------------------------------------------------------- blocks of 256, eight times 32
//
// Block b of a row is part b % 8 of superblock b / 8.

// Q2_K     scales: 16 x { 4 low: s, 4 high: m }, one for every 16 numbers
//          q: 2 x 32 bytes; bits 2k, 2k+1 of byte i: number i of part k, in the second 32 of part k + 4
//          d:16   dmin:16
static void unpack_q2_k(Unpacked *u, const void *row, int b) {
    const BlockQ2_K *in = (const BlockQ2_K *)row + b / 8;
    int part = b % 8;
    float d = from_half(in->d), dmin = from_half(in->dmin);
    for (int i = 0; i < BLOCK; i++) u->q[i] = in->q[part / 4 * 32 + i] >> part % 4 * 2 & 3;
    for (int h = 0; h < 2; h++) {
        uint8_t s = in->scales[2 * part + h];
        u->scale[h] = d * (float)(s & 15);
        u->offset[h] = -(dmin * (float)(s >> 4));
    }
}

// Q3_K     high: bit k of byte i is the third bit of number i of part k
//          q as in Q2_K; 4 stands for zero
//          scales: 16 x 6 bits, one for every 16 numbers, 32 stands for zero: the lower four in bytes 0-7
//          (low halves: scales 0-7, high halves: 8-15), the upper two in bytes 8-11 (bits 2k, 2k+1: 4k-4k+3)
//          d:16
static void unpack_q3_k(Unpacked *u, const void *row, int b) {
    const BlockQ3_K *in = (const BlockQ3_K *)row + b / 8;
    int part = b % 8;
    float d = from_half(in->d);
    for (int i = 0; i < BLOCK; i++) {
        int low = in->q[part / 4 * 32 + i] >> part % 4 * 2 & 3, high = in->high[i] >> part & 1;
        u->q[i] = (int8_t)((low | high << 2) - 4);
    }
    for (int h = 0; h < 2; h++) {
        int j = 2 * part + h;
        int low = in->scales[j % 8] >> j / 8 * 4 & 15, high = in->scales[8 + j % 4] >> j / 4 * 2 & 3;
        u->scale[h] = d * (float)((low | high << 4) - 32);
        u->offset[h] = NO_OFFSET;
    }
}

// The scales of Q4_K and Q5_K: eight scales s and eight mins m of 6 bits in 12 bytes
//          bytes 0-3: { 6 low: s 0-3, 2 high: upper bits of s 4-7 }    bytes 4-7: the same for m
//          bytes 8-11: { 4 low: s 4-7, 4 high: m 4-7 }
static void unpack_scales_k(Unpacked *u, const uint8_t *scales, int part, Half d, Half dmin) {
    int j = part % 4, s = scales[j] & 63, m = scales[4 + j] & 63;
    if (part >= 4) {
        s = (scales[8 + j] & 15) | scales[j] >> 6 << 4;
        m = scales[8 + j] >> 4 | scales[4 + j] >> 6 << 4;
    }
    set_scale(u, from_half(d) * (float)s, -(from_half(dmin) * (float)m));
}

// Q4_K     d:16   dmin:16   scales
//          q: 4 x 32 bytes; of byte i of group k the low half is number i of part 2k, the high of part 2k + 1
static void unpack_q4_k(Unpacked *u, const void *row, int b) {
    const BlockQ4_K *in = (const BlockQ4_K *)row + b / 8;
    int part = b % 8;
    for (int i = 0; i < BLOCK; i++) u->q[i] = in->q[part / 2 * 32 + i] >> part % 2 * 4 & 15;
    unpack_scales_k(u, in->scales, part, in->d, in->dmin);
}

// Q5_K     d:16   dmin:16   scales   high: bit k of byte i is the fifth of number i of part k   q as in Q4_K
static void unpack_q5_k(Unpacked *u, const void *row, int b) {
    const BlockQ5_K *in = (const BlockQ5_K *)row + b / 8;
    int part = b % 8;
    for (int i = 0; i < BLOCK; i++)
        u->q[i] = (int8_t)((in->q[part / 2 * 32 + i] >> part % 2 * 4 & 15) | (in->high[i] >> part & 1) << 4);
    unpack_scales_k(u, in->scales, part, in->d, in->dmin);
}

// Q6_K     q: 2 x 64 bytes; of group g, byte i (0-31) holds number i of parts 4g (low) and 4g + 2 (high),
//          byte 32 + i those of parts 4g + 1 and 4g + 3
//          high: 2 x 32 bytes; bits 2k, 2k+1 of byte i of group g: the upper bits of number i of part 4g + k
//          scales: 16 x 8, signed, one for every 16 numbers; 32 stands for zero
//          d:16
static void unpack_q6_k(Unpacked *u, const void *row, int b) {
    const BlockQ6_K *in = (const BlockQ6_K *)row + b / 8;
    int part = b % 8, g = part / 4, k = part % 4;
    float d = from_half(in->d);
    for (int i = 0; i < BLOCK; i++) {
        int low = in->q[g * 64 + k % 2 * 32 + i] >> k / 2 * 4 & 15, high = in->high[g * 32 + i] >> 2 * k & 3;
        u->q[i] = (int8_t)((low | high << 4) - 32);
    }
    for (int h = 0; h < 2; h++) {
        u->scale[h] = d * (float)in->scales[2 * part + h];
        u->offset[h] = NO_OFFSET;
    }
}

static void (*const unpack[N_TYPES])(Unpacked *u, const void *row, int b) = {
    [Q8_0] = unpack_q8_0, [Q4_0] = unpack_q4_0, [Q4_1] = unpack_q4_1, [Q5_0] = unpack_q5_0,
    [Q5_1] = unpack_q5_1, [IQ4_NL] = unpack_iq4_nl, [Q2_K] = unpack_q2_k, [Q3_K] = unpack_q3_k,
    [Q4_K] = unpack_q4_k, [Q5_K] = unpack_q5_k, [Q6_K] = unpack_q6_k,
};

static const void *row_of(const Matrix *w, int row) {
    return (const char *)w->data + (size_t)row * bytes_of(w->type, (size_t)w->cols);
}

static void decode_blocks(float *out, const Matrix *w, int row) {
    Unpacked u;
    for (int b = 0; b < w->cols / BLOCK; b++) {
        unpack[w->type](&u, row_of(w, row), b);
        for (int i = 0; i < BLOCK; i++) *out++ = u.scale[i / 16] * (float)u.q[i] + u.offset[i / 16];
    }
}

// The integers are multiplied and summed as integers, exactly; then come the scales.
static float dot_block(const Unpacked *u, const BlockX8 *x) {
    float sum = 0;
    for (int h = 0; h < 2; h++) {
        int products = 0;
        for (int i = 16 * h; i < 16 * h + 16; i++) products += u->q[i] * x->q[i];
        sum += u->scale[h] * (float)products + u->offset[h] * (float)x->sums[h];
    }
    return sum * x->scale;
}

static void matmul_blocks(float *out, int stride, const Matrix *w, const void *in, int T, int from, int to) {
    const BlockX8 *x = in;
    int blocks = w->cols / BLOCK;
    Unpacked u;
    for (int r = from; r < to; r++) {
        for (int t = 0; t < T; t++) out[(size_t)t * stride + r] = 0;
        for (int b = 0; b < blocks; b++) {
            unpack[w->type](&u, row_of(w, r), b);
            for (int t = 0; t < T; t++)
                out[(size_t)t * stride + r] += dot_block(&u, x + (size_t)t * blocks + b);
        }
    }
}

// A block with an infinity or a NaN in it gets NaN for a scale: they are not lost on the way to the logits.
static void quantize(BlockX8 *out, const float *in, size_t n) {
    for (; n >= BLOCK; n -= BLOCK, in += BLOCK, out++) {
        float largest = 0, poison = 0;
        for (int i = 0; i < BLOCK; i++) {
            largest = fabsf(in[i]) > largest ? fabsf(in[i]) : largest;
            poison += 0 * in[i];
        }
        bool usable = largest > 0x1p-100f && poison == 0;       // smaller ones have no inverse worth having
        float inverse = usable ? 127 / largest : 0;
        out->scale = usable ? largest / 127 : poison;
        out->sums[0] = out->sums[1] = 0;
        for (int i = 0; i < BLOCK; i++) {
            out->q[i] = usable ? (int8_t)lrintf(in[i] * inverse) : 0;
            out->sums[i / 16] = (int16_t)(out->sums[i / 16] + out->q[i]);
        }
    }
}

// ---------------------------------------------------------------------------- llama2.c's int8
//
// Q8_PLANE  q: rows x cols x 8, signed   scales: rows x (cols / group) floats          w = scale * q

static float scale_at(const Matrix *w, int row, int col) {
    float scale;
    size_t i = (size_t)row * (w->cols / w->group) + col / w->group;
    memcpy(&scale, (const char *)w->scales + i * sizeof scale, sizeof scale);
    return scale;
}

static void decode_plane(float *out, const Matrix *w, int row) {
    const int8_t *q = (const int8_t *)w->data + (size_t)row * w->cols;
    for (int i = 0; i < w->cols; i++) out[i] = scale_at(w, row, i) * q[i];
}

static void matmul_plane(float *out, int stride, const Matrix *w, const void *in, int T, int from, int to) {
    for (int r = from; r < to; r++)
        for (int t = 0; t < T; t++) {
            const int8_t *q = (const int8_t *)w->data + (size_t)r * w->cols;
            const float *x = (const float *)in + (size_t)t * w->cols;
            float sum = 0;
            for (int i = 0; i < w->cols; i += w->group) {
                float dot = 0;
                for (int j = i; j < i + w->group; j++) dot += (float)q[j] * x[j];
                sum += scale_at(w, r, i) * dot;
            }
            out[(size_t)t * stride + r] = sum;
        }
}

#define BLOCKS(type) [type] = matmul_blocks
#define DECODE(type) [type] = decode_blocks

const Kernels kernels_portable = {
    .name = "portable", .supported = always, .quantize = quantize, LOOPS,
    .matmul = { [F32] = matmul_f32, [F16] = matmul_f16, [BF16] = matmul_bf16, [Q8_PLANE] = matmul_plane,
                BLOCKS(Q8_0), BLOCKS(Q4_0), BLOCKS(Q4_1), BLOCKS(Q5_0), BLOCKS(Q5_1), BLOCKS(IQ4_NL),
                BLOCKS(Q2_K), BLOCKS(Q3_K), BLOCKS(Q4_K), BLOCKS(Q5_K), BLOCKS(Q6_K) },
    .decode = { [F32] = decode_f32, [F16] = decode_f16, [BF16] = decode_bf16, [Q8_PLANE] = decode_plane,
                DECODE(Q8_0), DECODE(Q4_0), DECODE(Q4_1), DECODE(Q5_0), DECODE(Q5_1), DECODE(IQ4_NL),
                DECODE(Q2_K), DECODE(Q3_K), DECODE(Q4_K), DECODE(Q5_K), DECODE(Q6_K) },
    .mix    = { [F32] = mix_f32,    [F16] = mix_f16, [BF16] = mix_bf16 },
    .encode = { [F32] = encode_f32, [F16] = encode_f16 },
};
