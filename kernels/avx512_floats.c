// avx512_floats.c - x86-64 with AVX-512: matrices of floats, and the rounding of inputs.
//
// A few tokens and many, as in avx512.c. What lies past the end of a row is masked off, and neither read nor
// written.
#include "kernels.h"

#ifdef __x86_64__
#include "avx512.h"

enum { FEW_FLOATS = 32, FLOAT_DEPTH = 512 };            // tokens that a panel does not pay for; its columns

// bytes_of one number, but a constant.
INLINE size_t size_of(Type type) { return type == F32 ? sizeof(float) : sizeof(Half); }

INLINE __m512 load_floats(Type type, const void *row, size_t i, __mmask16 there) {
    if (type == F32) return _mm512_maskz_loadu_ps(there, (const float *)row + i);
    __m256i halves = _mm256_maskz_loadu_epi16(there, (const uint16_t *)row + i);
    if (type == F16) return _mm512_cvtph_ps(halves);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));   // an upper half
}

// Some rows times some tokens: what 16 columns add to their sums, token by token.
INLINE void add_columns(__m512 sum[16], Type type, int many, const char *row, size_t far_bytes,
                        const float *const *x, int tokens, int c, __mmask16 there) {
    __m512 w[4];
    for (int i = 0; i < many; i++) {
        const char *at = row + i * far_bytes;
        fetch_ahead(at + (size_t)c * size_of(type), 16 * (int)size_of(type));
        w[i] = in_register(load_floats(type, at, (size_t)c, there));
    }
    for (int t = 0; t < tokens; t++) {
        __m512 y = _mm512_maskz_loadu_ps(there, x[t] + c);
        for (int i = 0; i < many; i++) sum[4 * t + i] = _mm512_fmadd_ps(w[i], y, sum[4 * t + i]);
    }
}

// One row or four, so far apart, times one token, two or four, of which the first T are there. Sum 4 * t + i
// belongs to row i.
INLINE void dot_floats(float *out, int stride, Type type, int many, const char *row, size_t far,
                       size_t far_bytes, const float *x, int tokens, int T, int cols) {
    __m512 sum[16];
    const float *in[4];
    for (int i = 0; i < 4 * tokens; i++) sum[i] = _mm512_setzero_ps();
    for (int t = 0; t < tokens; t++) in[t] = x + (size_t)least(t, T - 1) * cols;
    int c = 0;
    for (; c + 16 <= cols; c += 16) add_columns(sum, type, many, row, far_bytes, in, tokens, c, 0xffff);
    if (c < cols) add_columns(sum, type, many, row, far_bytes, in, tokens, c, first(cols - c));
    for (int t = 0; t < least(tokens, T); t++) {
        float sums[4];
        _mm_storeu_ps(sums, sum_lanes(sum[4 * t], sum[4 * t + 1], sum[4 * t + 2], sum[4 * t + 3]));
        for (int i = 0; i < many; i++) out[(size_t)t * stride + i * far] = sums[i];
    }
}

INLINE void dot_tokens(float *out, int stride, Type type, int many, const char *row, size_t far,
                       size_t far_bytes, const float *x, int T, int cols) {
    for (; T > 2; T -= 4, out += 4 * (size_t)stride, x += 4 * (size_t)cols)
        dot_floats(out, stride, type, many, row, far, far_bytes, x, 4, T, cols);
    if (T == 2) dot_floats(out, stride, type, many, row, far, far_bytes, x, 2, 2, cols);
    if (T == 1) dot_floats(out, stride, type, many, row, far, far_bytes, x, 1, 1, cols);
}

INLINE void few_floats(float *out, int stride, const Matrix *w, const float *x, int T, int from, int to,
                       Type type) {
    size_t row_bytes = bytes_of(type, (size_t)w->cols), rows = (size_t)(to - from), far = rows / 4;
    const char *row = (const char *)w->data + from * row_bytes;
    for (size_t i = 0; i < far; i++, row += row_bytes)
        dot_tokens(out + from + i, stride, type, 4, row, far, far * row_bytes, x, T, w->cols);
    row += 3 * far * row_bytes;
    for (size_t i = 4 * far; i < rows; i++, row += row_bytes)
        dot_tokens(out + from + i, stride, type, 1, row, 0, 0, x, T, w->cols);
}

// 64 rows times 6 tokens, one column at a time.
INLINE void multiply_float_tile(__m512 *out, const float (*w)[ROWS], const float *const *x, int cols) {
#define BEGIN_FLOATS(t)                                                                                     \
    const float *x##t = x[t];                                                                               \
    __m512 a##t = _mm512_setzero_ps(), b##t = a##t, c##t = a##t, d##t = a##t;
    EACH(BEGIN_FLOATS)
#define COLUMN(t)                                                                                           \
    y = _mm512_set1_ps(x##t[i]);                                                                            \
    a##t = _mm512_fmadd_ps(w0, y, a##t), b##t = _mm512_fmadd_ps(w1, y, b##t);                               \
    c##t = _mm512_fmadd_ps(w2, y, c##t), d##t = _mm512_fmadd_ps(w3, y, d##t);
    for (int i = 0; i < cols; i++) {
        __m512 w0 = _mm512_load_ps(w[i]), w1 = _mm512_load_ps(w[i] + 16), y;
        __m512 w2 = _mm512_load_ps(w[i] + 32), w3 = _mm512_load_ps(w[i] + 48);
        EACH(COLUMN)
    }
#define END_FLOATS(t) out[4 * t] = a##t, out[4 * t + 1] = b##t, out[4 * t + 2] = c##t, out[4 * t + 3] = d##t;
    EACH(END_FLOATS)
}

// out = panel * x, or out += panel * x. x: (T, pitch), of which cols count.
INLINE void multiply_panel(float *out, int stride, const float (*panel)[ROWS], int rows, const float *x,
                           int pitch, int cols, int T, bool fresh) {
    __m512 tile[4 * TILE];
    for (int t = 0; t < T; t += TILE) {
        const float *in[TILE];
        for (int k = 0; k < TILE; k++) in[k] = x + (size_t)least(t + k, T - 1) * pitch;
        multiply_float_tile(tile, panel, in, cols);
        add_tile(out + (size_t)t * stride, stride, tile, 4, rows, T - t, fresh);
    }
}

INLINE void many_floats(float *out, int stride, const Matrix *w, const float *x, int T, int from, int to,
                        Type type) {
    _Alignas(64) float panel[FLOAT_DEPTH][ROWS];
    size_t row_bytes = bytes_of(type, (size_t)w->cols);
    for (int r = from; r < to; r += ROWS)
        for (int c = 0; c < w->cols; c += FLOAT_DEPTH) {
            int rows = least(to - r, ROWS), cols = least(w->cols - c, FLOAT_DEPTH);
            for (int i = 0; i < ROWS; i += 16)
                for (int k = 0; k < cols; k += 16) {
                    __m512i v[16];
                    for (int j = 0; j < 16; j++) {
                        const char *row = (const char *)w->data + least(r + i + j, to - 1) * row_bytes;
                        v[j] = _mm512_castps_si512(load_floats(type, row, (size_t)(c + k), first(cols - k)));
                    }
                    transpose(v);
                    for (int j = 0; j < 16; j++) _mm512_store_si512(&panel[k + j][i], v[j]);
                }
            multiply_panel(out + r, stride, (const float (*)[ROWS])panel, rows, x + c, w->cols, cols, T,
                           c == 0);
        }
}

// 64 columns of the mixture, or the last few, for at most four tokens: the sums stay in registers. Meanwhile
// comes what lies behind w, which in a cache is read next.
INLINE void mix_columns(float *out, int stride, const Matrix *w, int c, int cols, const float *scale,
                        int pitch, int tokens, Type type) {
    size_t row_bytes = bytes_of(type, (size_t)w->cols), next = (size_t)w->rows * row_bytes;
    const char *row = (const char *)w->data + (size_t)c * size_of(type);
    __m512 sum[4][4];
    __mmask16 there[4];
    for (int i = 0; i < 4; i++) there[i] = first(cols - 16 * i);
    for (int t = 0; t < tokens; t++)
        for (int i = 0; i < 4; i++)
            sum[t][i] = _mm512_maskz_loadu_ps(there[i], out + (size_t)t * stride + c + 16 * i);
    for (int r = 0; r < w->rows; r++, row += row_bytes) {
        __m512 v[4];
        for (int i = 0; i < 4; i++) v[i] = load_floats(type, row, 16 * (size_t)i, there[i]);
        fetch(row + next, 64 * (int)size_of(type));
        for (int t = 0; t < tokens; t++) {
            __m512 y = _mm512_set1_ps(scale[(size_t)t * pitch + r]);
            for (int i = 0; i < 4; i++) sum[t][i] = _mm512_fmadd_ps(v[i], y, sum[t][i]);
        }
    }
    for (int t = 0; t < tokens; t++)
        for (int i = 0; i < 4; i++)
            _mm512_mask_storeu_ps(out + (size_t)t * stride + c + 16 * i, there[i], sum[t][i]);
}

INLINE void mix_few(float *out, int stride, const Matrix *w, int cols, const float *scale, int pitch,
                    int tokens, Type type) {
    int c = 0;
    for (; c + 64 <= cols; c += 64) mix_columns(out, stride, w, c, 64, scale, pitch, tokens, type);
    if (c < cols) mix_columns(out, stride, w, c, cols - c, scale, pitch, tokens, type);
}

INLINE void mix(MIX_ARGUMENTS, Type type) {
    for (; T >= 4; T -= 4, out += 4 * (size_t)stride, scale += 4 * (size_t)pitch)
        mix_few(out, stride, w, cols, scale, pitch, 4, type);
    for (; T > 0; T--, out += stride, scale += pitch) mix_few(out, stride, w, cols, scale, pitch, 1, type);
}

#define FLOAT_KERNELS(name, type)                                                                           \
    TARGET static void few_##name(ARGUMENTS) { few_floats(out, stride, w, x, T, from, to, type); }          \
    TARGET static void many_##name(ARGUMENTS) { many_floats(out, stride, w, x, T, from, to, type); }        \
    void avx512_matmul_##name(ARGUMENTS) {                                                                  \
        (T <= FEW_FLOATS ? few_##name : many_##name)(out, stride, w, x, T, from, to);                       \
    }                                                                                                       \
    TARGET void avx512_mix_##name(MIX_ARGUMENTS) { mix(out, stride, w, cols, scale, pitch, T, type); }

FLOAT_KERNELS(f32, F32)
FLOAT_KERNELS(f16, F16)
FLOAT_KERNELS(bf16, BF16)

TARGET void avx512_encode_f16(void *out, const float *in, int n) {
    for (int i = 0; i < n; i += 16) {
        __mmask16 there = first(n - i);
        __m512 x = _mm512_maskz_loadu_ps(there, in + i);
        _mm256_mask_storeu_epi16((Half *)out + i, there, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
    }
}

// As in portable.c, bit for bit.
TARGET void avx512_quantize(BlockX8 *out, const float *in, size_t n) {
    const __m512 zero = _mm512_setzero_ps();
    for (; n >= BLOCK; n -= BLOCK, in += BLOCK, out++) {
        __m512 low = _mm512_loadu_ps(in), high = _mm512_loadu_ps(in + 16);
        float largest = largest_lane(_mm512_max_ps(_mm512_abs_ps(low), _mm512_abs_ps(high)));
        __m512 poison = _mm512_fmadd_ps(low, zero, _mm512_mul_ps(high, zero));      // of what is not finite
        bool finite = _mm512_cmp_ps_mask(poison, poison, _CMP_ORD_Q) == 0xffff;
        bool usable = finite && largest > 0x1p-100f;
        __m512 inverse = _mm512_set1_ps(usable ? 127 / largest : 0);
        __m512i a = _mm512_cvtps_epi32(_mm512_mul_ps(low, inverse));
        __m512i b = _mm512_cvtps_epi32(_mm512_mul_ps(high, inverse));
        if (!finite) a = b = _mm512_setzero_si512();
        out->scale = usable ? largest / 127 : finite ? 0 : _mm512_reduce_add_ps(poison);
        out->sums[0] = (int16_t)_mm512_reduce_add_epi32(a);
        out->sums[1] = (int16_t)_mm512_reduce_add_epi32(b);
        _mm_storeu_si128((__m128i *)out->q, _mm512_cvtepi32_epi8(a));
        _mm_storeu_si128((__m128i *)(out->q + 16), _mm512_cvtepi32_epi8(b));
    }
}

#endif
