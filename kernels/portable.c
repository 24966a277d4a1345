// portable.c - the reference kernels: plain C, the definition the others are tested against.
#include "kernels.h"
#include <string.h>

static bool always(void) { return true; }

// ---------------------------------------------------------------------------- F32

// Eight running sums: the order of the additions is fixed here, not by the compiler's vector width.
static float dot(const float *a, const float *b, int n) {
    float lane[8] = { 0 }, tail = 0;
    int i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++) lane[j] += a[i + j] * b[i + j];
    for (; i < n; i++) tail += a[i] * b[i];
    return ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7])) + tail;
}

static void matmul_f32(float *out, int stride, const void *w, const float *x, int cols, int T, int begin, int end) {
    for (int r = begin; r < end; r++)
        for (int t = 0; t < T; t++)
            out[(size_t)t * stride + r] = dot((const float *)w + (size_t)r * cols, x + (size_t)t * cols, cols);
}

static void mix_f32(float *out, const float *scale, const void *w, int rows, int cols) {
    const float *row = w;
    memset(out, 0, cols * sizeof *out);
    for (int r = 0; r < rows; r++, row += cols)
        for (int c = 0; c < cols; c++) out[c] += scale[r] * row[c];
}

static void copy_f32(void *out, const float *in, size_t n) { memcpy(out, in, n * sizeof *in); }
static void decode_f32(float *out, const void *in, size_t n) { memcpy(out, in, n * sizeof *out); }

// ---------------------------------------------------------------------------- F16
//
//   15    14 ... 10   9 ... 0
//   sign  exponent    fraction       (-1)^sign * 2^(exponent - 15) * 1.fraction         IEEE 754 binary16
//                                    exponent 0: 2^-14 * 0.fraction;  31: infinity, or NaN
//
// The same bits, moved to where a float has them, are 2^112 too small: one multiplication makes
// normal and subnormal numbers right; infinity and NaN get their exponent back by hand.

static float float_of(uint32_t bits) { float f; memcpy(&f, &bits, sizeof f); return f; }
static uint32_t bits_of(float f) { uint32_t bits; memcpy(&bits, &f, sizeof bits); return bits; }

static inline float half_to_float(uint16_t half) {
    uint32_t magnitude = (half & 0x7fffu) << 13, sign = (half & 0x8000u) << 16;
    uint32_t bits = bits_of(float_of(magnitude) * 0x1p112f);
    return float_of(sign | bits | (magnitude >= 0x0f800000 ? 0x7f800000 : 0));
}

// Adding a power of two whose last place is half's last place rounds exactly as half rounds.
static inline uint16_t float_to_half(float f) {
    uint32_t bits = bits_of(f), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return (uint16_t)(sign | 0x7e00);               // NaN
    if (magnitude >= 0x477ff000) return (uint16_t)(sign | 0x7c00);              // rounds to 2^16: infinity
    if (magnitude < 0x38800000)                                                 // below 2^-14: subnormal
        return (uint16_t)(sign | (bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f)));
    return (uint16_t)(sign | ((magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13));
}

static void decode_f16(float *out, const void *in, size_t n) {
    const uint16_t *half = in;
    for (size_t i = 0; i < n; i++) out[i] = half_to_float(half[i]);
}

static void encode_f16(void *out, const float *in, size_t n) {
    uint16_t *half = out;
    for (size_t i = 0; i < n; i++) half[i] = float_to_half(in[i]);
}

static float dot_f16(const uint16_t *a, const float *b, int n) {
    float lane[8] = { 0 }, tail = 0;
    int i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++) lane[j] += half_to_float(a[i + j]) * b[i + j];
    for (; i < n; i++) tail += half_to_float(a[i]) * b[i];
    return ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7])) + tail;
}

static void matmul_f16(float *out, int stride, const void *w, const float *x, int cols, int T, int begin, int end) {
    for (int r = begin; r < end; r++)
        for (int t = 0; t < T; t++)
            out[(size_t)t * stride + r] = dot_f16((const uint16_t *)w + (size_t)r * cols, x + (size_t)t * cols, cols);
}

static void mix_f16(float *out, const float *scale, const void *w, int rows, int cols) {
    const uint16_t *row = w;
    memset(out, 0, cols * sizeof *out);
    for (int r = 0; r < rows; r++, row += cols)
        for (int c = 0; c < cols; c++) out[c] += scale[r] * half_to_float(row[c]);
}

const Kernels kernels_portable = {
    .name = "portable", .supported = always,
    .matmul = { [F32] = matmul_f32, [F16] = matmul_f16 }, .mix    = { [F32] = mix_f32,  [F16] = mix_f16 },
    .decode = { [F32] = decode_f32, [F16] = decode_f16 }, .encode = { [F32] = copy_f32, [F16] = encode_f16 },
};
