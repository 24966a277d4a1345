// avx2_floats.c - x86-64 with AVX2, FMA and F16C: matrices of floats, and the rounding of inputs.
//
// For few tokens four rows far apart run side by side, for many there are panels, as in avx2.c.
#include "kernels.h"

#ifdef __x86_64__
#include "avx2.h"
#include <math.h>

typedef struct { int size; __m256 (*load)(const void *eight); } Number;

INLINE __m256 load_f32(const void *eight) { return _mm256_loadu_ps(eight); }
INLINE __m256 load_f16(const void *eight) {
    __m256 v = _mm256_cvtph_ps(load_16(eight));
    __asm__("" : "+x"(v));                              // or else clang moves halves about, one by one
    return v;
}
INLINE __m256 load_bf16(const void *eight) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_16(eight)), 16));
}

// The last numbers of a row, if fewer than eight, are copied and zeros put behind them.
INLINE __m256 load(const void *p, int n, Number number) {
    float some[8] = { 0 };
    return number.load(n < 8 ? memcpy(some, p, (size_t)n * number.size) : p);
}

// Four rows times one token or two: what eight columns, or the last few, add to their sums.
INLINE void add_columns(__m256 sum[2][4], const char *const row[4], const float *const x[2], int tokens,
                        int k, int cols, Number n) {
    __m256 in[2];
    for (int t = 0; t < tokens; t++) in[t] = load(x[t] + k, cols, (Number){ sizeof(float), load_f32 });
    for (int i = 0; i < 4; i++) {
        __m256 w = load(row[i] + (size_t)k * n.size, cols, n);
        for (int t = 0; t < tokens; t++) sum[t][i] = _mm256_fmadd_ps(w, in[t], sum[t][i]);
    }
}

INLINE void multiply_four(float sums[2][4], const char *const row[4], const float *const x[2], int tokens,
                          int cols, Number n) {
    __m256 sum[2][4] = { ZERO, ZERO };
    int k = 0;
    for (; k + 32 <= cols; k += 32) {
        for (int i = 0; i < 4; i++) fetch_ahead(row[i] + (size_t)k * n.size, 32 * n.size);
        for (int j = k; j < k + 32; j += 8) add_columns(sum, row, x, tokens, j, 8, n);
    }
    for (; k + 8 <= cols; k += 8) add_columns(sum, row, x, tokens, k, 8, n);
    if (k < cols) add_columns(sum, row, x, tokens, k, cols - k, n);
    for (int t = 0; t < tokens; t++)
        _mm_storeu_ps(sums[t], sum_lanes(sum[t][0], sum[t][1], sum[t][2], sum[t][3]));
}

INLINE void few_tokens(float *out, int stride, const Matrix *w, const float *x, int T, int from, int to,
                       Number n) {
    int apart = (to - from + 3) / 4;
    for (int r = from; r < from + apart; r++) {
        const char *row[4];
        float sums[2][4];
        for (int i = 0; i < 4; i++)
            row[i] = (const char *)w->data + (size_t)far_row(r, i, apart, to) * w->cols * n.size;
        for (int t = 0; t < T; t += 2) {
            int tokens = smaller(2, T - t);
            const float *in[2] = { x + (size_t)t * w->cols, x + (size_t)(t + tokens - 1) * w->cols };
            if (tokens == 1) multiply_four(sums, row, in, 1, w->cols, n);
            else             multiply_four(sums, row, in, 2, w->cols, n);
            for (int j = 0; j < tokens; j++)
                for (int i = 0; i < 4; i++)
                    out[(size_t)(t + j) * stride + far_row(r, i, apart, to)] = sums[j][i];
        }
    }
}

// 16 rows by four tokens. Where there are fewer, the last one stands in for those missing.
INLINE void multiply_tile(float *out, int stride, int rows, float (*panel)[16], int cols, const float *x,
                          int pitch, int tokens, bool first) {
    const float *in[4];
    float *to[4];
    Floats ab = ZERO, cd = ZERO;
    for (int t = 0; t < 4; t++) {
        in[t] = x + (size_t)smaller(t, tokens - 1) * pitch;
        to[t] = out + (size_t)smaller(t, tokens - 1) * stride;
    }
    if (!first) {
        get(to[0], rows, &ab.x0, &ab.x1), get(to[1], rows, &ab.y0, &ab.y1);
        get(to[2], rows, &cd.x0, &cd.x1), get(to[3], rows, &cd.y0, &cd.y1);
    }
    for (int k = 0; k < cols; k++) {
        __m256 w0 = _mm256_load_ps(panel[k]), w1 = _mm256_load_ps(panel[k] + 8);
        Floats w = { w0, w1, w0, w1 };
        ab = add_all(ab, w, _mm256_set1_ps(in[0][k]), _mm256_set1_ps(in[1][k]));
        cd = add_all(cd, w, _mm256_set1_ps(in[2][k]), _mm256_set1_ps(in[3][k]));
    }
    put(to[0], rows, ab.x0, ab.x1), put(to[1], rows, ab.y0, ab.y1);
    put(to[2], rows, cd.x0, cd.x1), put(to[3], rows, cd.y0, cd.y1);
}

// Eight rows become eight lanes of a panel.
INLINE void unpack_floats(float (*panel)[16], const char *const row[8], int cols, Number n) {
    __m256 v[8];
    for (int k = 0; k < cols; k += 8) {
        if (cols - k >= 8)
            for (int i = 0; i < 8; i++) v[i] = n.load(row[i] + (size_t)k * n.size);
        else
            for (int i = 0; i < 8; i++) v[i] = load(row[i] + (size_t)k * n.size, cols - k, n);
        transpose(v);
        for (int i = 0; i < 8; i++) _mm256_store_ps(panel[k + i], v[i]);
    }
}

INLINE void many_tokens(float *out, int stride, const Matrix *w, const float *x, int T, int from, int to,
                        Number n) {
    enum { COLS = 256 };                                // 16 KB, which stay close at hand
    _Alignas(32) float panel[COLS][16];
    size_t next = 16 * (size_t)w->cols * n.size;        // 16 rows, in bytes
    for (int k = 0; k < w->cols; k += COLS)
        for (int r = from; r < to; r += 16) {
            int cols = smaller(COLS, w->cols - k);
            for (int side = 0; side < 16; side += 8) {
                const char *row[8];
                for (int i = 0; i < 8; i++) {
                    size_t at = (size_t)smaller(r + side + i, to - 1) * w->cols + k;
                    row[i] = (const char *)w->data + at * n.size;
                    fetch(row[i] + next, cols * n.size);
                }
                unpack_floats((float (*)[16])(panel[0] + side), row, cols, n);
            }
            for (int t = 0; t < T; t += 4)
                multiply_tile(out + (size_t)t * stride + r, stride, smaller(16, to - r), panel, cols,
                              x + (size_t)t * w->cols + k, w->cols, smaller(4, T - t), k == 0);
        }
}

// 8 * wide columns of the mixture, or the last few, for some tokens, tokens * wide up to 8: the sums stay in
// registers. Meanwhile comes what lies behind w, which in a cache is read next.
INLINE void mix_columns(float *out, int stride, const Matrix *w, int c, int cols, const float *scale,
                        int pitch, int tokens, int wide, Number n) {
    const Number f = { sizeof *out, load_f32 };
    size_t row_bytes = (size_t)w->cols * n.size, next = (size_t)w->rows * row_bytes;
    const char *row = (const char *)w->data + (size_t)c * n.size;
    __m256 sum[4][8];
    out += c;
    for (int t = 0; t < tokens; t++)
        for (int i = 0; i < wide; i++) sum[t][i] = load(out + (size_t)t * stride + 8 * i, cols - 8 * i, f);
    for (int r = 0; r < w->rows; r++, row += row_bytes) {
        fetch(row + next, 8 * wide * n.size);
        for (int i = 0; i < wide; i++) {
            __m256 v = load(row + 8 * i * n.size, cols - 8 * i, n);
            for (int t = 0; t < tokens; t++)
                sum[t][i] = _mm256_fmadd_ps(_mm256_set1_ps(scale[(size_t)t * pitch + r]), v, sum[t][i]);
        }
    }
    for (int t = 0; t < tokens; t++)
        for (int i = 0; i < wide; i++) {
            float some[8];
            _mm256_storeu_ps(some, sum[t][i]);
            memcpy(out + (size_t)t * stride + 8 * i, some, (size_t)smaller(cols - 8 * i, 8) * sizeof *out);
        }
}

INLINE void mix_few(float *out, int stride, const Matrix *w, int cols, const float *scale, int pitch,
                    int tokens, int wide, Number n) {
    int c = 0;
    for (; c + 8 * wide <= cols; c += 8 * wide)
        mix_columns(out, stride, w, c, 8 * wide, scale, pitch, tokens, wide, n);
    for (; c + 8 <= cols; c += 8) mix_columns(out, stride, w, c, 8, scale, pitch, tokens, 1, n);
    if (c < cols) mix_columns(out, stride, w, c, cols - c, scale, pitch, tokens, 1, n);
}

INLINE void mix(MIX_ARGUMENTS, Number n) {
    for (; T >= 4; T -= 4, out += 4 * (size_t)stride, scale += 4 * (size_t)pitch)
        mix_few(out, stride, w, cols, scale, pitch, 4, 2, n);
    for (; T > 0; T--, out += stride, scale += pitch) mix_few(out, stride, w, cols, scale, pitch, 1, 8, n);
}

#define FLOAT_KERNELS(name, bytes)                                                                          \
    TARGET void avx2_matmul_##name(float *out, int stride, const Matrix *w, const void *x,                  \
                                     int T, int from, int to) {                                             \
        const Number n = { bytes, load_##name };                                                            \
        if (T < 8) few_tokens(out, stride, w, x, T, from, to, n);                                           \
        else      many_tokens(out, stride, w, x, T, from, to, n);                                           \
    }                                                                                                       \
    TARGET void avx2_mix_##name(MIX_ARGUMENTS) {                                                            \
        mix(out, stride, w, cols, scale, pitch, T, (Number){ bytes, load_##name });                         \
    }

FLOAT_KERNELS(f32, 4)
FLOAT_KERNELS(f16, 2)
FLOAT_KERNELS(bf16, 2)

TARGET void avx2_encode_f16(void *out, const float *in, int n) {
    for (int i = 0; i < n; i += 8) {
        __m256 v = load(in + i, n - i, (Number){ sizeof *in, load_f32 });
        __m128i h = _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT);
        if (n - i >= 8) _mm_storeu_si128((__m128i *)((Half *)out + i), h);
        else memcpy((Half *)out + i, &h, (size_t)(n - i) * sizeof(Half));
    }
}

// ---------------------------------------------------------------------------- inputs

// Infinity and NaN, times 0, are NaN: the block's scale, as in portable.c.
TARGET void avx2_quantize(BlockX8 *out, const float *in, size_t n) {
    const __m256 absolute = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff)), zero = _mm256_setzero_ps();
    for (; n >= BLOCK; n -= BLOCK, in += BLOCK, out++) {
        __m256 v[4], most = zero, poison = zero;
        __m256i q[4];
        for (int i = 0; i < 4; i++) {
            v[i] = _mm256_loadu_ps(in + 8 * i);
            most = _mm256_max_ps(most, _mm256_and_ps(v[i], absolute));
            poison = _mm256_add_ps(poison, _mm256_mul_ps(v[i], zero));
        }
        float largest = largest_lane(most);
        bool poisoned = _mm256_movemask_ps(_mm256_cmp_ps(poison, poison, _CMP_UNORD_Q));
        bool usable = !poisoned && largest > 0x1p-100f;         // smaller ones have no inverse worth having
        out->scale = usable ? largest / 127 : poisoned ? NAN : 0;
        if (!usable) for (int i = 0; i < 4; i++) v[i] = zero;
        __m256 inverse = _mm256_set1_ps(usable ? 127 / largest : 0);
        for (int i = 0; i < 4; i++) q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse));
        // Packing works within halves of registers; the permutation puts groups of four in order.
        __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
        bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        _mm256_storeu_si256((__m256i *)out->q, bytes);
        __m256i sums = widen(_mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes));     // four to each half
        sums = _mm256_add_epi32(sums, _mm256_shuffle_epi32(sums, 0x4e));
        sums = _mm256_add_epi32(sums, _mm256_shuffle_epi32(sums, 0xb1));
        out->sums[0] = (int16_t)_mm256_extract_epi32(sums, 0);
        out->sums[1] = (int16_t)_mm256_extract_epi32(sums, 4);
    }
}

#endif
