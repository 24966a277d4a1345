// neon_floats.c - aarch64 with NEON: matrices of floats, and the rounding of inputs.
//
// For few tokens four rows far apart run side by side, as in neon.c; for many, four rows by four tokens.
#include "kernels.h"

#ifdef __aarch64__
#include "neon.h"

typedef struct { int size; float32x4x2_t (*load)(const void *p); } Float;               // load: eight numbers

INLINE float32x4x2_t load_f32(const void *p) {
    return (float32x4x2_t){ { vld1q_f32(p), vld1q_f32((const float *)p + 4) } };
}
INLINE float32x4x2_t load_f16(const void *p) {
    float16x8_t h = vreinterpretq_f16_u16(vld1q_u16(p));
    return (float32x4x2_t){ { vcvt_f32_f16(vget_low_f16(h)), vcvt_high_f32_f16(h) } };
}
INLINE float32x4x2_t load_bf16(const void *p) {
    uint16x8_t upper = vld1q_u16(p);
    return (float32x4x2_t){ { vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(upper), 16)),
                              vreinterpretq_f32_u32(vshll_high_n_u16(upper, 16)) } };
}

// The eight numbers at p[at], or n of them and zeros.
INLINE float32x4x2_t eight(const void *p, int at, int n, Float f) {
    const char *from = (const char *)p + (size_t)at * f.size;
    float some[8] = { 0 };
    if (n >= 8) return f.load(from);
    memcpy(some, from, (size_t)(n * f.size));
    return f.load(some);
}

// Four rows by four tokens; or by one, whose even and odd fours are summed apart, so that no addition has to
// wait for the one before.
typedef struct { float32x4_t of[4][4]; } Tile;

INLINE Tile add_eight(Tile sum, const void *const w[4], const float *const x[4], int at, int n, int tokens,
                      Float f) {
    float32x4x2_t v[4];
    for (int i = 0; i < 4; i++) v[i] = eight(w[i], at, n, f);
    for (int t = 0; t < tokens; t++) {
        float32x4x2_t y = eight(x[t], at, n, (Float){ sizeof(float), load_f32 });
        for (int h = 0; h < 2; h++)
            for (int i = 0, j = tokens == 1 ? h : t; i < 4; i++)
                sum.of[j][i] = vfmaq_f32(sum.of[j][i], v[i].val[h], y.val[h]);
    }
    return sum;
}

// sums: of four rows for each token
INLINE void multiply_tile(float *sums, const void *const w[4], const float *const x[4], int n, int tokens,
                          Float f) {
    Tile sum = { { { { 0 } } } };
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        for (int r = 0; r < 4 && tokens == 1; r++) prefetch((const char *)w[r] + (size_t)i * f.size, 1);
        sum = add_eight(sum, w, x, i, 8, tokens, f);
    }
    if (i < n) sum = add_eight(sum, w, x, i, n - i, tokens, f);
    for (int r = 0; r < 4 && tokens == 1; r++) sum.of[0][r] += sum.of[1][r];
    for (int t = 0; t < tokens; t++) vst1q_f32(sums + 4 * t, sum_lanes(sum.of[t]));
}

INLINE const void *row_of(const Matrix *w, int row, int col, Float f) {
    return (const char *)w->data + ((size_t)row * w->cols + col) * f.size;
}

INLINE void few_tokens(float *out, int stride, const Matrix *w, const float *x, int T, int from, int to,
                       Float f) {
    int apart = (to - from + 3) / 4;
    for (int r = from; r < from + apart; r++) {
        const void *row[4];
        int at[4];
        for (int i = 0; i < 4; i++) at[i] = far_row(r, i, apart, to), row[i] = row_of(w, at[i], 0, f);
        for (int t = 0; t < T; t++) {
            const float *in[4] = { x + (size_t)t * w->cols };
            float sums[4];
            multiply_tile(sums, row, in, w->cols, 1, f);
            for (int i = 0; i < 4; i++) out[(size_t)t * stride + at[i]] = sums[i];
        }
    }
}

// So many columns at a time that they stay in the cache until all rows have met them.
INLINE void many_tokens(float *out, int stride, const Matrix *w, const float *x, int T, int from, int to,
                        Float f) {
    enum { COLUMNS = 512 };
    for (int k = 0; k < w->cols; k += COLUMNS)
        for (int r = from; r < to; r += 4) {
            const void *row[4];
            for (int i = 0; i < 4; i++) row[i] = row_of(w, smaller(r + i, to - 1), k, f);
            for (int t = 0; t < T; t += 4) {
                const float *in[4];
                float sums[4][4];
                for (int j = 0; j < 4; j++) in[j] = x + (size_t)smaller(t + j, T - 1) * w->cols + k;
                multiply_tile(*sums, row, in, smaller(COLUMNS, w->cols - k), 4, f);
                add_tile(out, stride, *sums, 4, t, smaller(t + 4, T), r, smaller(r + 4, to), k == 0);
            }
        }
}

// n columns of the mixture for some tokens, tokens * n up to 32: the sums stay in registers.
INLINE void mix_strip(float *out, int stride, const Matrix *w, int c, int n, const float *scale, int pitch,
                      int tokens, Float f) {
    float32x4_t sum[4][8] = { { { 0 } } };
    for (int t = 0; t < tokens; t++) memcpy(sum[t], out + (size_t)t * stride + c, (size_t)n * sizeof *out);
    for (int r = 0; r < w->rows; r++)
        for (int i = 0; i < n; i += 8) {
            float32x4x2_t v = eight(row_of(w, r, c, f), i, n - i, f);
            for (int t = 0; t < tokens; t++) {
                float32x4_t *to = &sum[t][i / 4];
                float by = scale[(size_t)t * pitch + r];
                for (int h = 0; h < 2; h++) to[h] = vfmaq_n_f32(to[h], v.val[h], by);
            }
        }
    for (int t = 0; t < tokens; t++) memcpy(out + (size_t)t * stride + c, sum[t], (size_t)n * sizeof *out);
}

INLINE void mix(MIX_ARGUMENTS, Float f) {
    int t = 0;
    for (; t + 4 <= T; t += 4, out += 4 * (size_t)stride, scale += 4 * (size_t)pitch) {
        int c = 0;
        for (; c + 8 <= cols; c += 8) mix_strip(out, stride, w, c, 8, scale, pitch, 4, f);
        if (c < cols) mix_strip(out, stride, w, c, cols - c, scale, pitch, 4, f);
    }
    for (; t < T; t++, out += stride, scale += pitch) {
        int c = 0;
        for (; c + 32 <= cols; c += 32) mix_strip(out, stride, w, c, 32, scale, pitch, 1, f);
        for (; c + 8 <= cols; c += 8) mix_strip(out, stride, w, c, 8, scale, pitch, 1, f);
        if (c < cols) mix_strip(out, stride, w, c, cols - c, scale, pitch, 1, f);
    }
}

#define FLOAT_KERNELS(name, bytes)                                                                          \
    void neon_matmul_##name(float *out, int stride, const Matrix *w, const void *x,                         \
                            int T, int from, int to) {                                                      \
        const Float f = { bytes, load_##name };                                                             \
        if (T < MANY) few_tokens(out, stride, w, x, T, from, to, f);                                        \
        else         many_tokens(out, stride, w, x, T, from, to, f);                                        \
    }                                                                                                       \
    void neon_mix_##name(MIX_ARGUMENTS) {                                                                   \
        mix(out, stride, w, cols, scale, pitch, T, (Float){ bytes, load_##name });                          \
    }

FLOAT_KERNELS(f32, 4)
FLOAT_KERNELS(f16, 2)
FLOAT_KERNELS(bf16, 2)

// ---------------------------------------------------------------------------- rounding

void neon_encode_f16(void *out, const float *in, int n) {
    Half *to = out;
    int i = 0;
    for (; i + 4 <= n; i += 4) vst1_u16(to + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(in + i))));
    for (; i < n; i++) to[i] = vget_lane_u16(vreinterpret_u16_f16(vcvt_f16_f32(vdupq_n_f32(in[i]))), 0);
}

// The largest of a block is NaN if any number is; 0 times that, or times an infinity, is NaN: the scale.
void neon_quantize(BlockX8 *out, const float *in, size_t n) {
    for (; n >= BLOCK; n -= BLOCK, in += BLOCK, out++) {
        float32x4_t most = { 0 };
        for (int i = 0; i < BLOCK; i += 4) most = vmaxq_f32(most, vabsq_f32(vld1q_f32(in + i)));
        float largest = vmaxvq_f32(most);
        bool usable = largest > 0x1p-100f && largest < INFINITY;    // smaller ones: no inverse worth having
        float inverse = usable ? 127 / largest : 0;
        out->scale = usable ? largest / 127 : 0 * largest;
        for (int h = 0; h < 2; h++) {
            int16x4_t q[4];                             // rounded to nearest, ties to even; a NaN becomes 0
            for (int i = 0; i < 4; i++)
                q[i] = vmovn_s32(vcvtnq_s32_f32(vld1q_f32(in + 16 * h + 4 * i) * inverse));
            int16x8_t low = vcombine_s16(q[0], q[1]), high = vcombine_s16(q[2], q[3]);
            int8x16_t all = vcombine_s8(vmovn_s16(low), vmovn_s16(high));
            vst1q_s8(out->q + 16 * h, all);
            out->sums[h] = vaddlvq_s8(all);
        }
    }
}

#endif
