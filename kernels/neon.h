// neon.h - what neon.c and neon_floats.c share.
#ifndef NEON_H
#define NEON_H

#include "kernels.h"
#include <arm_neon.h>
#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum { MANY = 4 };                                      // tokens, from which on arithmetic is the limit

INLINE int smaller(int a, int b) { return a < b ? a : b; }

// Memory answers late: every row asks for what it will need 1024 bytes from here.
INLINE void prefetch(const char *p, int bytes) {
    for (int i = 0; i < bytes; i += 64) __builtin_prefetch(p + 1024 + i);
}

// Row i of four that are computed together: r, r + apart, ... Rows side by side would share a page, and the
// hardware fetches ahead once per page. Where rows do not divide by four, the last one is computed again.
INLINE int far_row(int r, int i, int apart, int to) { return smaller(r + i * apart, to - 1); }

// { sum of v[0], sum of v[1], sum of v[2], sum of v[3] }
INLINE float32x4_t sum_lanes(const float32x4_t v[4]) {
    return vpaddq_f32(vpaddq_f32(v[0], v[1]), vpaddq_f32(v[2], v[3]));
}

// out = sums, or out += sums, of rows from .. to - 1 of tokens t .. T - 1. sums: (T - t, width)
INLINE void add_tile(float *out, int stride, const float *sums, int width, int t, int T, int from, int to,
                     bool first) {
    for (; t < T; t++, sums += width)
        for (int r = from; r < to; r++) {
            float *o = out + (size_t)t * stride + r;
            *o = first ? sums[r - from] : *o + sums[r - from];
        }
}

// neon_floats.c
typedef void Matmul(float *out, int stride, const Matrix *w, const void *x, int T, int from, int to);
Matmul neon_matmul_f32, neon_matmul_f16, neon_matmul_bf16;
Mix neon_mix_f32, neon_mix_f16, neon_mix_bf16;
void neon_encode_f16(void *out, const float *in, int n);
void neon_quantize(BlockX8 *out, const float *in, size_t n);

#endif
