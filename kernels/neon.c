// neon.c - aarch64: four floats, or 16 small integers, at a time. With sdot where the CPU has it, or without.
//
// Few tokens, as in writing: reading the weights is the limit. Four rows far apart run side by side, so that
// memory delivers four streams at once. Many tokens, as in reading a prompt: arithmetic is the limit. Rows
// are unpacked into panels, a row to each lane of a register, and four tokens share what is loaded of them.
//
// The loops over plain floats are portable.c's: any compiler for this machine makes NEON of them.
#include "kernels.h"

#ifdef __aarch64__
#include "neon.h"

// ---------------------------------------------------------------------------- integers
//
// sdot: four bytes times four bytes, and their sum, in each of four lanes. Assemblers refuse the word where
// the CPU may lack it, so it is spelled by its bits: 31 ... 21, m:5, 15 ... 10, n:5, d:5. Where m is one lane
// of a register, bits 21 and 11 say which.

#define SDOT(bits, d, n, m) ".inst " bits " + (.L" m " << 16) + (.L" n " << 5) + .L" d "\n"
#define NUMBERS                                         /* .Lv7 is 7, the number of register v7 */          \
    ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"         \
    ".equ .Lv\\n, \\n\n .endr\n"

// sum + w * x. Without sdot, two products at a time still fit 16 bits: -128 * 127, twice.
INLINE int32x4_t dot(int32x4_t sum, int8x16_t w, int8x16_t x, bool sdot) {
    if (sdot) {
        __asm__(NUMBERS SDOT("0x4e809400", "%0", "%1", "%2") : "+w"(sum) : "w"(w), "w"(x));
        return sum;
    }
    int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(x)), high = vmull_high_s8(w, x);
    return vpadalq_s16(sum, vpaddq_s16(low, high));
}

// sum + 16 columns of four rows, a row to each lane, four columns to each w, times the input.
INLINE int32x4_t dot_rows(int32x4_t sum, const int8x16_t w[4], int8x16_t x, bool sdot) {
    if (sdot) {
        __asm__(NUMBERS SDOT("0x4f80e000", "%0", "%1", "%5") SDOT("0x4fa0e000", "%0", "%2", "%5")
                        SDOT("0x4f80e800", "%0", "%3", "%5") SDOT("0x4fa0e800", "%0", "%4", "%5")
                : "+&w"(sum) : "w"(w[0]), "w"(w[1]), "w"(w[2]), "w"(w[3]), "w"(x));
        return sum;
    }
    for (int i = 0; i < 4; i++)
        sum = dot(sum, w[i], vreinterpretq_s8_s32(vdupq_n_s32(vreinterpretq_s32_s8(x)[i])), false);
    return sum;
}

// ---------------------------------------------------------------------------- formats
//
// 256 columns of a row, in any format, are eight parts of 32 codes, and scales:
//
//   w = d * code + m                d and m for every 32 columns, or for every 16

typedef struct { float32x4_t d[4], m[4]; } Scales;      // eight, or 16 in order

typedef struct {
    int bytes;                                          // of 256 columns
    bool by_16;                                         // a scale for every 16 columns
    bool has_m;
    bool sdot;
    int8x16x2_t (*codes)(const void *w, int part);
    Scales (*scales)(const void *w);                    // NULL: of blocks of 32 that begin with d, or d and m
} Coding;

INLINE int8x16x2_t codes(uint8x16_t a, uint8x16_t b) {
    return (int8x16x2_t){ { vreinterpretq_s8_u8(a), vreinterpretq_s8_u8(b) } };
}
INLINE int8x16x2_t minus(int zero, int8x16x2_t q) {
    return (int8x16x2_t){ { q.val[0] - (int8_t)zero, q.val[1] - (int8_t)zero } };
}
INLINE int8x16x2_t either(int8x16x2_t a, int8x16x2_t b) {
    return (int8x16x2_t){ { a.val[0] | b.val[0], a.val[1] | b.val[1] } };
}

// 16 bytes: the lower halves, then the upper ones.
INLINE int8x16x2_t nibbles(const uint8_t *q) {
    uint8x16_t v = vld1q_u8(q);
    return codes(v & 15, v >> 4);
}

// 32 bits become 32 bytes, 16 or 0: every byte looks at its own bit.
INLINE int8x16x2_t fifths(const uint8_t *high) {
    const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
    uint8x16_t a = vcombine_u8(vdup_n_u8(high[0]), vdup_n_u8(high[1]));
    uint8x16_t b = vcombine_u8(vdup_n_u8(high[2]), vdup_n_u8(high[3]));
    return codes(vtstq_u8(a, bit) & 16, vtstq_u8(b, bit) & 16);
}

// Of each of 32 bytes those bits that are in the mask once bit `from` has moved to bit `to`.
INLINE int8x16x2_t bits(const uint8_t *bytes, int from, int to, uint8_t mask) {
    uint8x16_t a = vld1q_u8(bytes), b = vld1q_u8(bytes + 16);
    return from > to ? codes(a >> (from - to) & mask, b >> (from - to) & mask)
                     : codes(a << (to - from) & mask, b << (to - from) & mask);
}

INLINE float half(Half h) { return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h))), 0); }

// Eight halves, one in every `stride` bytes.
INLINE void halves(float32x4_t out[2], const void *p, size_t stride) {
    const char *at = p;
    Half h[8];
    for (size_t i = 0; i < 8; i++) memcpy(&h[i], at + i * stride, sizeof *h);
    float16x8_t all = vreinterpretq_f16_u16(vld1q_u16(h));
    out[0] = vcvt_f32_f16(vget_low_f16(all)), out[1] = vcvt_high_f32_f16(all);
}

// Eight small integers, times d.
INLINE void scaled(float32x4_t out[2], int8x8_t s, float d) {
    int16x8_t wide = vmovl_s8(s);
    out[0] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))) * d;
    out[1] = vcvtq_f32_s32(vmovl_high_s16(wide)) * d;
}
INLINE void sixteen(float32x4_t out[4], int8x16_t s, float d) {
    scaled(out, vget_low_s8(s), d), scaled(out + 2, vget_high_s8(s), d);
}

// The pictures of the formats are in portable.c.

INLINE int8x16x2_t codes_q8_0(const void *w, int part) {
    const int8_t *q = ((const BlockQ8_0 *)w)[part].q;
    return (int8x16x2_t){ { vld1q_s8(q), vld1q_s8(q + 16) } };
}

INLINE int8x16x2_t codes_q4_0(const void *w, int part) {
    return minus(8, nibbles(((const BlockQ4_0 *)w)[part].q));
}

INLINE int8x16x2_t codes_q4_1(const void *w, int part) { return nibbles(((const BlockQ4_1 *)w)[part].q); }

INLINE int8x16x2_t codes_q5_0(const void *w, int part) {
    const BlockQ5_0 *b = (const BlockQ5_0 *)w + part;
    return minus(16, either(nibbles(b->q), fifths(b->high)));
}

INLINE int8x16x2_t codes_q5_1(const void *w, int part) {
    const BlockQ5_1 *b = (const BlockQ5_1 *)w + part;
    return either(nibbles(b->q), fifths(b->high));
}

INLINE int8x16x2_t codes_iq4_nl(const void *w, int part) {
    const int8x16_t steps = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };
    int8x16x2_t q = nibbles(((const BlockIQ4_NL *)w)[part].q);
    return (int8x16x2_t){ { vqtbl1q_s8(steps, vreinterpretq_u8_s8(q.val[0])),
                            vqtbl1q_s8(steps, vreinterpretq_u8_s8(q.val[1])) } };
}

INLINE int8x16x2_t codes_q2_k(const void *w, int part) {
    return bits(((const BlockQ2_K *)w)->q + part / 4 * 32, part % 4 * 2, 0, 3);
}
INLINE Scales scales_q2_k(const void *w) {
    const BlockQ2_K *b = w;
    int8x16x2_t both = nibbles(b->scales);
    Scales s;
    sixteen(s.d, both.val[0], half(b->d)), sixteen(s.m, both.val[1], -half(b->dmin));
    return s;
}

INLINE int8x16x2_t codes_q3_k(const void *w, int part) {
    const BlockQ3_K *b = w;
    return minus(4, either(bits(b->q + part / 4 * 32, part % 4 * 2, 0, 3), bits(b->high, part, 2, 4)));
}
INLINE Scales scales_q3_k(const void *w) {
    const BlockQ3_K *b = w;
    const uint32x4_t by = { 0, 2, 4, 6 };
    uint8x8_t low = vld1_u8(b->scales);
    uint32_t high;
    memcpy(&high, b->scales + 8, sizeof high);
    uint8x16_t upper = vreinterpretq_u8_u32(vdupq_n_u32(high) >> by) & 3;
    uint8x16_t six = vcombine_u8(low & 15, low >> 4) | upper << 4;
    Scales s;
    sixteen(s.d, vreinterpretq_s8_u8(six) - 32, half(b->d));
    return s;
}

// Q5_K begins as Q4_K does.
INLINE Scales scales_q4_k(const void *w) {
    const BlockQ4_K *b = w;
    uint32_t four;
    memcpy(&four, b->scales + 8, sizeof four);
    uint8x8_t six = vld1_u8(b->scales), lower = vreinterpret_u8_u32((uint32x2_t){ four, four >> 4 }) & 15;
    uint32x2_t early = vreinterpret_u32_u8(six & 63);                       // s 0-3, m 0-3
    uint32x2_t late = vreinterpret_u32_u8(lower | six >> 6 << 4);           // s 4-7, m 4-7
    Scales s;
    scaled(s.d, vreinterpret_s8_u32(vzip1_u32(early, late)), half(b->d));
    scaled(s.m, vreinterpret_s8_u32(vzip2_u32(early, late)), -half(b->dmin));
    return s;
}

INLINE int8x16x2_t codes_q4_k(const void *w, int part) {
    return bits(((const BlockQ4_K *)w)->q + part / 2 * 32, part % 2 * 4, 0, 15);
}
INLINE int8x16x2_t codes_q5_k(const void *w, int part) {
    const BlockQ5_K *b = w;
    return either(bits(b->q + part / 2 * 32, part % 2 * 4, 0, 15), bits(b->high, part, 4, 16));
}

INLINE int8x16x2_t codes_q6_k(const void *w, int part) {
    const BlockQ6_K *b = w;
    int g = part / 4, k = part % 4;
    int8x16x2_t lower = bits(b->q + g * 64 + k % 2 * 32, k / 2 * 4, 0, 15);
    return minus(32, either(lower, bits(b->high + g * 32, 2 * k, 4, 48)));
}
INLINE Scales scales_q6_k(const void *w) {
    const BlockQ6_K *b = w;
    Scales s;
    sixteen(s.d, vld1q_s8(b->scales), half(b->d));
    return s;
}

INLINE Scales scales_of(const void *w, Coding c) {
    if (c.scales) return c.scales(w);
    Scales s;
    halves(s.d, w, (size_t)c.bytes / 8);
    if (c.has_m) halves(s.m, (const Half *)w + 1, (size_t)c.bytes / 8);
    return s;
}

// Rows end where they end: the last columns, if fewer than 256, are copied to where zeros stand behind them.
// Those are there from the beginning, and stay, as all rows end with as many columns.
typedef struct { uint8_t bytes[8 * sizeof(BlockQ8_0)]; } Copy;          // the longest there is

INLINE const void *whole(Copy *last, const void *w, int parts, Coding c) {
    return parts >= 8 ? w : memcpy(last, w, (size_t)(parts * c.bytes / 8));
}

INLINE const char *row_of(const Matrix *w, int row, int part, Coding c) {
    return (const char *)w->data + ((size_t)row * (w->cols / BLOCK) + part) * c.bytes / 8;
}

// ---------------------------------------------------------------------------- few tokens

// What four rows share of 256 columns of the input: as in Scales, its scales, and scale * sum of the codes.
typedef struct { const BlockX8 *x; float32x4_t scale[4], sum[4]; } Input;

INLINE Input input(const BlockX8 *x, Coding c) {
    Input in = { .x = x };
    for (int i = 0; i < 2; i++, x += 4) {
        float32x4_t scale = { x[0].scale, x[1].scale, x[2].scale, x[3].scale };
        int16_t sums[8];
        for (int j = 0; j < 4; j++) memcpy(sums + 2 * j, x[j].sums, sizeof x->sums);
        int16x8_t sum = vld1q_s16(sums);
        if (c.by_16) {
            in.scale[2 * i] = vzip1q_f32(scale, scale), in.scale[2 * i + 1] = vzip2q_f32(scale, scale);
            in.sum[2 * i] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(sum))) * in.scale[2 * i];
            in.sum[2 * i + 1] = vcvtq_f32_s32(vmovl_high_s16(sum)) * in.scale[2 * i + 1];
        } else {
            in.scale[i] = scale;
            in.sum[i] = vcvtq_f32_s32(vpaddlq_s16(sum)) * scale;
        }
    }
    return in;
}

// sum + 256 columns of a row times the input, in four lanes to be summed.
INLINE float32x4_t multiply_add(float32x4_t sum, const void *w, const Input *in, Coding c) {
    const int32x4_t zero = { 0 };
    Scales s = scales_of(w, c);
    for (int i = 0; i < (c.by_16 ? 4 : 2); i++) {       // four scales at a time, a lane for each
        int32x4_t p[4];
        for (int j = 0; j < (c.by_16 ? 2 : 4); j++) {
            int part = c.by_16 ? 2 * i + j : 4 * i + j;
            int8x16x2_t q = c.codes(w, part);
            int8x16_t x0 = vld1q_s8(in->x[part].q), x1 = vld1q_s8(in->x[part].q + 16);
            if (c.by_16) {
                p[2 * j] = dot(zero, q.val[0], x0, c.sdot);
                p[2 * j + 1] = dot(zero, q.val[1], x1, c.sdot);
            } else {
                p[j] = dot(dot(zero, q.val[0], x0, c.sdot), q.val[1], x1, c.sdot);
            }
        }
        int32x4_t dots = vpaddq_s32(vpaddq_s32(p[0], p[1]), vpaddq_s32(p[2], p[3]));
        sum = vfmaq_f32(sum, vcvtq_f32_s32(dots), s.d[i] * in->scale[i]);
        if (c.has_m) sum = vfmaq_f32(sum, s.m[i], in->sum[i]);
    }
    return sum;
}

// Four rows times one token.
INLINE float32x4_t multiply_four(const char *const row[4], const BlockX8 *x, int parts, Copy *last,
                                 Coding c) {
    float32x4_t sum[4] = { { 0 } };
    size_t at = 0;
    for (; parts >= 8; parts -= 8, x += 8, at += (size_t)c.bytes) {
        Input in = input(x, c);
        for (int i = 0; i < 4; i++) {
            prefetch(row[i] + at, c.bytes);
            sum[i] = multiply_add(sum[i], row[i] + at, &in, c);
        }
    }
    if (parts) {
        BlockX8 last_x[8] = { { 0 } };
        memcpy(last_x, x, (size_t)parts * sizeof *x);
        Input in = input(last_x, c);
        for (int i = 0; i < 4; i++)
            sum[i] = multiply_add(sum[i], whole(last, row[i] + at, parts, c), &in, c);
    }
    return sum_lanes(sum);
}

INLINE void few_tokens(float *out, int stride, const Matrix *w, const BlockX8 *x, int T, int from, int to,
                       Coding c) {
    Copy last = { 0 };
    int apart = (to - from + 3) / 4, parts = w->cols / BLOCK;
    for (int r = from; r < from + apart; r++) {
        const char *row[4];
        int at[4];
        for (int i = 0; i < 4; i++) at[i] = far_row(r, i, apart, to), row[i] = row_of(w, at[i], 0, c);
        for (int t = 0; t < T; t++) {
            float32x4_t sums = multiply_four(row, x + (size_t)t * parts, parts, &last, c);
            for (int i = 0; i < 4; i++) out[(size_t)t * stride + at[i]] = sums[i];
        }
    }
}

// ---------------------------------------------------------------------------- many tokens

// Four rows by 256 columns, a row to each lane: q[part][k] holds four columns of them. Eight d and m, or 16.
typedef struct { int8x16_t q[8][8]; float32x4_t d[16], m[16]; } Panel;

// A store of four registers takes their lanes in turn: it transposes.
INLINE void transpose(float32x4_t *out, float32x4_t a, float32x4_t b, float32x4_t c, float32x4_t d) {
    vst4q_f32((float *)out, ((float32x4x4_t){ { a, b, c, d } }));
}
INLINE void transpose_codes(int8x16_t *out, const int8x16x2_t q[4], int half) {
    int32x4x4_t v;
    for (int r = 0; r < 4; r++) v.val[r] = vreinterpretq_s32_s8(q[r].val[half]);
    vst4q_s32((int32_t *)out, v);
}

INLINE void unpack_panel(Panel *panel, const char *const row[4], int parts, Copy last[4], Coding c) {
    const void *w[4];
    Scales s[4];
    for (int r = 0; r < 4; r++) w[r] = whole(&last[r], row[r], parts, c), s[r] = scales_of(w[r], c);
    for (int i = 0; i < (c.by_16 ? 4 : 2); i++) {
        transpose(panel->d + 4 * i, s[0].d[i], s[1].d[i], s[2].d[i], s[3].d[i]);
        if (c.has_m) transpose(panel->m + 4 * i, s[0].m[i], s[1].m[i], s[2].m[i], s[3].m[i]);
    }
    for (int part = 0; part < 8; part++) {
        int8x16x2_t q[4];
        for (int r = 0; r < 4; r++) q[r] = c.codes(w[r], part);
        transpose_codes(panel->q[part], q, 0), transpose_codes(panel->q[part] + 4, q, 1);
    }
}

// Eight rows, a panel for each four, by four tokens.
typedef struct { float32x4_t of[2][4]; } Sums;

// sum + the products of 32 columns, or of that half of them which has a scale of its own.
INLINE Sums multiply_columns(Sums sum, const Panel panel[2], const BlockX8 *const x[4], int part, int half,
                             Coding c) {
    int32x4_t dots[2][4] = { { { 0 } } };
    for (int h = c.by_16 ? half : 0; h < (c.by_16 ? half + 1 : 2); h++)
        for (int t = 0; t < 4; t++) {
            int8x16_t q = vld1q_s8(x[t]->q + 16 * h);
            for (int p = 0; p < 2; p++)
                dots[p][t] = dot_rows(dots[p][t], panel[p].q[part] + 4 * h, q, c.sdot);
        }
    int at = c.by_16 ? 2 * part + half : part;
    for (int t = 0; t < 4; t++) {
        float scale = x[t]->scale;
        float total = scale * (float)(c.by_16 ? x[t]->sums[half] : x[t]->sums[0] + x[t]->sums[1]);
        for (int p = 0; p < 2; p++) {
            sum.of[p][t] = vfmaq_f32(sum.of[p][t], vcvtq_f32_s32(dots[p][t]), panel[p].d[at] * scale);
            if (c.has_m) sum.of[p][t] = vfmaq_n_f32(sum.of[p][t], panel[p].m[at], total);
        }
    }
    return sum;
}

// sums: of eight rows for each of four tokens
INLINE void multiply_tile(float *sums, Panel (*panels)[2], const BlockX8 *const x[4], int parts, Coding c) {
    Sums sum = { { { { 0 } } } };
    for (int i = 0; i < parts; i++) {
        const BlockX8 *const at[4] = { x[0] + i, x[1] + i, x[2] + i, x[3] + i };
        for (int half = 0; half < 1 + c.by_16; half++)
            sum = multiply_columns(sum, panels[i / 8], at, i % 8, half, c);
    }
    for (int i = 0; i < 8; i++) vst1q_f32(sums + 4 * i, sum.of[i % 2][i / 2]);
}

// Where rows or tokens do not divide by eight or four, the last one is computed more than once.
INLINE void many_tokens(float *out, int stride, const Matrix *w, const BlockX8 *x, int T, int from, int to,
                        Coding c) {
    enum { PANELS = 4 };                                // 1024 columns: they stay in the cache
    Panel panels[PANELS][2];
    Copy last[4] = { 0 };
    int parts = w->cols / BLOCK;
    for (int k = 0; k < parts; k += 8 * PANELS)
        for (int r = from; r < to; r += 8) {
            int n = smaller(8 * PANELS, parts - k);
            for (int i = 0; i < n; i += 8)
                for (int p = 0; p < 2; p++) {
                    const char *row[4];
                    for (int j = 0; j < 4; j++) row[j] = row_of(w, smaller(r + 4 * p + j, to - 1), k + i, c);
                    unpack_panel(&panels[i / 8][p], row, n - i, last, c);
                }
            for (int t = 0; t < T; t += 4) {
                const BlockX8 *in[4];
                float sums[4][8];
                for (int j = 0; j < 4; j++) in[j] = x + (size_t)smaller(t + j, T - 1) * parts + k;
                multiply_tile(*sums, panels, in, n, c);
                add_tile(out, stride, *sums, 8, t, smaller(t + 4, T), r, smaller(r + 8, to), k == 0);
            }
        }
}

#define CODED_KERNEL(name, ...)                                                                             \
    INLINE void multiply_##name(float *out, int stride, const Matrix *w, const BlockX8 *x,                  \
                                int T, int from, int to, bool sdot) {                                       \
        const Coding c = { .codes = codes_##name, .sdot = sdot, __VA_ARGS__ };                              \
        if (T < MANY) few_tokens(out, stride, w, x, T, from, to, c);                                        \
        else         many_tokens(out, stride, w, x, T, from, to, c);                                        \
    }                                                                                                       \
    static void matmul_##name(float *out, int stride, const Matrix *w, const void *x,                       \
                              int T, int from, int to) {                                                    \
        multiply_##name(out, stride, w, x, T, from, to, false);                                             \
    }                                                                                                       \
    static void sdot_##name(float *out, int stride, const Matrix *w, const void *x,                         \
                            int T, int from, int to) {                                                      \
        multiply_##name(out, stride, w, x, T, from, to, true);                                              \
    }

CODED_KERNEL(q8_0, .bytes = 8 * sizeof(BlockQ8_0))
CODED_KERNEL(q4_0, .bytes = 8 * sizeof(BlockQ4_0))
CODED_KERNEL(q4_1, .bytes = 8 * sizeof(BlockQ4_1), .has_m = true)
CODED_KERNEL(q5_0, .bytes = 8 * sizeof(BlockQ5_0))
CODED_KERNEL(q5_1, .bytes = 8 * sizeof(BlockQ5_1), .has_m = true)
CODED_KERNEL(iq4_nl, .bytes = 8 * sizeof(BlockIQ4_NL))
CODED_KERNEL(q2_k, .bytes = sizeof(BlockQ2_K), .scales = scales_q2_k, .by_16 = true, .has_m = true)
CODED_KERNEL(q3_k, .bytes = sizeof(BlockQ3_K), .scales = scales_q3_k, .by_16 = true)
CODED_KERNEL(q4_k, .bytes = sizeof(BlockQ4_K), .scales = scales_q4_k, .has_m = true)
CODED_KERNEL(q5_k, .bytes = sizeof(BlockQ5_K), .scales = scales_q4_k, .has_m = true)
CODED_KERNEL(q6_k, .bytes = sizeof(BlockQ6_K), .scales = scales_q6_k, .by_16 = true)

// ---------------------------------------------------------------------------- llama2.c's int8
//
// Floats meet whole numbers, a group with its scale at a time.

INLINE float32x4_t add_eight(float32x4_t sum, const int8_t *q, const float *x) {
    int16x8_t wide = vmovl_s8(vld1_s8(q));
    sum = vfmaq_f32(sum, vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))), vld1q_f32(x));
    return vfmaq_f32(sum, vcvtq_f32_s32(vmovl_high_s16(wide)), vld1q_f32(x + 4));
}

INLINE float32x4_t add_group(float32x4_t sum, const int8_t *q, const float *x, int n, const void *at) {
    float32x4_t even = { 0 }, odd = { 0 };
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
    return vfmaq_n_f32(sum, even + odd, scale);
}

static void matmul_plane(float *out, int stride, const Matrix *w, const void *x, int T, int from, int to) {
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
            float32x4_t sum[4] = { { 0 } };
            for (int g = 0; g < groups; g++)
                for (int i = 0; i < 4; i++) {
                    size_t c = (size_t)g * group;
                    prefetch((const char *)row[i] + c, group);
                    sum[i] = add_group(sum[i], row[i] + c, in + c, group, scales[i] + g * sizeof(float));
                }
            float32x4_t sums = sum_lanes(sum);
            for (int i = 0; i < 4; i++) out[(size_t)t * stride + far_row(r, i, apart, to)] = sums[i];
        }
    }
}

static bool always(void) { return true; }

const Kernels kernels_neon = {
    .name = "neon", .supported = always, .quantize = neon_quantize,
    .matmul = { [F32] = neon_matmul_f32, [F16] = neon_matmul_f16, [BF16] = neon_matmul_bf16,
                [Q8_0] = matmul_q8_0, [Q4_0] = matmul_q4_0, [Q4_1] = matmul_q4_1, [Q5_0] = matmul_q5_0,
                [Q5_1] = matmul_q5_1, [IQ4_NL] = matmul_iq4_nl, [Q2_K] = matmul_q2_k, [Q3_K] = matmul_q3_k,
                [Q4_K] = matmul_q4_k, [Q5_K] = matmul_q5_k, [Q6_K] = matmul_q6_k, [Q8_PLANE] = matmul_plane },
    .mix    = { [F32] = neon_mix_f32, [F16] = neon_mix_f16, [BF16] = neon_mix_bf16 },
    .encode = { [F16] = neon_encode_f16 },
};

const Kernels kernels_neon_dot = {
    .name = "neon-dot", .supported = cpu_has_sdot,
    .matmul = { [Q8_0] = sdot_q8_0, [Q4_0] = sdot_q4_0, [Q4_1] = sdot_q4_1, [Q5_0] = sdot_q5_0,
                [Q5_1] = sdot_q5_1, [IQ4_NL] = sdot_iq4_nl, [Q2_K] = sdot_q2_k, [Q3_K] = sdot_q3_k,
                [Q4_K] = sdot_q4_k, [Q5_K] = sdot_q5_k, [Q6_K] = sdot_q6_k },
};

#else

static bool never(void) { return false; }
const Kernels kernels_neon = { .name = "neon", .supported = never };
const Kernels kernels_neon_dot = { .name = "neon-dot", .supported = never };

#endif
