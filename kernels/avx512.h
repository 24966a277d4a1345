// avx512.h - what avx512.c and avx512_floats.c share: vectors and memory, panels of rows, tiles of tokens.
#ifndef AVX512_H
#define AVX512_H

#include "kernels.h"
#include <immintrin.h>
#include <string.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,gfni,f16c")))
#define INLINE TARGET static inline __attribute__((always_inline))      // so that a format is all constants

typedef __m512 Wide;
#define MULTIPLY_ADD _mm512_fmadd_ps
INLINE Wide wide(float x) { return _mm512_set1_ps(x); }      // in every lane

// For each of its uses compilers would load it again.
INLINE Wide in_register(Wide v) { __asm__("" : "+v"(v)); return v; }

INLINE double total(Wide v) {                           // of its lanes
    __m256 low = _mm512_castps512_ps256(v), high = _mm512_extractf32x8_ps(v, 1);
    return _mm512_reduce_add_pd(_mm512_add_pd(_mm512_cvtps_pd(low), _mm512_cvtps_pd(high)));
}

INLINE float largest_lane(Wide v) { return _mm512_reduce_max_ps(v); }

INLINE __m256 half_sum(__m512 v) {
    return _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
}

// { sum of a, sum of b, sum of c, sum of d }
INLINE __m128 sum_lanes(__m512 a, __m512 b, __m512 c, __m512 d) {
    __m256 ab = _mm256_hadd_ps(half_sum(a), half_sum(b)), cd = _mm256_hadd_ps(half_sum(c), half_sum(d));
    __m256 all = _mm256_hadd_ps(ab, cd);
    return _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
}

static inline int least(int a, int b) { return a < b ? a : b; }

INLINE __m128i load16(const void *p) { return _mm_loadu_si128(p); }                // so many bytes
INLINE __m256i load32(const void *p) { return _mm256_loadu_si256(p); }
INLINE __m512i load64(const void *p) { return _mm512_loadu_si512(p); }

INLINE __m256i join16(__m128i low, __m128i high) { return _mm256_set_m128i(high, low); }
INLINE __m512i join(__m256i low, __m256i high) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}
INLINE __m512 half(Half h) { return _mm512_cvtph_ps(_mm256_set1_epi16((short)h)); }     // in every lane
INLINE __mmask16 first(int n) { return (__mmask16)(n >= 16 ? 0xffff : n > 0 ? (1 << n) - 1 : 0); }

// What will be read a while from now: into the second level, and the first is left to what is in use.
INLINE void fetch(const char *p, int bytes) {
    for (int i = 0; i < bytes; i += 64) _mm_prefetch(p + i, _MM_HINT_T1);
}

// Memory answers late: a core is asked for what each of four rows will need 2048 bytes from here. Zen 4
// fetches as many streams ahead by itself, and faster when left alone.
INLINE void fetch_ahead(const void *p, int bytes) {
    if (__builtin_cpu_is("amdfam19h")) return;
    for (int i = 0; i < bytes; i += 64) _mm_prefetch((const char *)p + 2048 + i, _MM_HINT_T0);
}

// v[i][j] becomes v[j][i]: pairs, then fours, then the quarters of the vectors.
INLINE void transpose(__m512i v[16]) {
    __m512i w[16];
    for (int i = 0; i < 16; i += 2) {
        w[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        w[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            v[i + 2 * j] = _mm512_unpacklo_epi64(w[i + j], w[i + 2 + j]);
            v[i + 2 * j + 1] = _mm512_unpackhi_epi64(w[i + j], w[i + 2 + j]);
        }
    for (int j = 0; j < 4; j++) {                       // v[4i + j]: columns j, j + 4, ... of four rows
        w[j] = _mm512_shuffle_i32x4(v[j], v[j + 4], 0x88);
        w[j + 4] = _mm512_shuffle_i32x4(v[j], v[j + 4], 0xdd);
        w[j + 8] = _mm512_shuffle_i32x4(v[j + 8], v[j + 12], 0x88);
        w[j + 12] = _mm512_shuffle_i32x4(v[j + 8], v[j + 12], 0xdd);
    }
    for (int j = 0; j < 4; j++) {
        v[j] = _mm512_shuffle_i32x4(w[j], w[j + 8], 0x88);
        v[j + 4] = _mm512_shuffle_i32x4(w[j + 4], w[j + 12], 0x88);
        v[j + 8] = _mm512_shuffle_i32x4(w[j], w[j + 8], 0xdd);
        v[j + 12] = _mm512_shuffle_i32x4(w[j + 4], w[j + 12], 0xdd);
    }
}

// Many tokens: so many rows of a panel, and so many tokens at a time. What belongs to a token is named, by a
// macro for token t, because compilers leave an array of sums in memory.
enum { ROWS = 64, TILE = 6 };
#define EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5)

// The sums of a tile join those of earlier columns.
INLINE void add_tile(float *out, int stride, const __m512 *tile, int width, int rows, int T, bool fresh) {
    for (int t = 0; t < least(T, TILE); t++)
        for (int i = 0; i < width; i++) {
            __mmask16 there = first(rows - 16 * i);
            float *to = out + (size_t)t * stride + 16 * i;
            __m512 before = fresh ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(there, to);
            _mm512_mask_storeu_ps(to, there, _mm512_add_ps(before, tile[width * t + i]));
        }
}

#define ARGUMENTS float *out, int stride, const Matrix *w, const void *x, int T, int from, int to
typedef void Matmul(ARGUMENTS);

// avx512_floats.c
Matmul avx512_matmul_f32, avx512_matmul_f16, avx512_matmul_bf16;
Mix avx512_mix_f32, avx512_mix_f16, avx512_mix_bf16;
void avx512_encode_f16(void *out, const float *in, int n);
void avx512_quantize(BlockX8 *out, const float *in, size_t n);

#endif
