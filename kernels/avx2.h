// avx2.h - what avx2.c and avx2_floats.c share: moving numbers between the lanes of a register and memory.
#ifndef AVX2_H
#define AVX2_H

#include "kernels.h"
#include <immintrin.h>
#include <string.h>

#define TARGET __attribute__((target("avx2,fma,f16c")))
#define INLINE static inline __attribute__((always_inline, target("avx2,fma,f16c")))

typedef __m256 Wide;
#define MULTIPLY_ADD _mm256_fmadd_ps
INLINE Wide wide(float x) { return _mm256_set1_ps(x); }      // in every lane

// For each of its uses compilers would load it again.
INLINE Wide in_register(Wide v) { __asm__("" : "+x"(v)); return v; }

INLINE double total(Wide v) {                           // of its lanes
    __m128 low = _mm256_castps256_ps128(v), high = _mm256_extractf128_ps(v, 1);
    __m256d four = _mm256_add_pd(_mm256_cvtps_pd(low), _mm256_cvtps_pd(high));
    __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

INLINE float largest_lane(Wide v) {
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

INLINE int smaller(int a, int b) { return a < b ? a : b; }

INLINE __m128i load_16(const void *p) { return _mm_loadu_si128((const __m128i *)p); }
INLINE __m256i load_32(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

// What will be read a while from now: into the second level, and the first is left to what is in use.
INLINE void fetch(const char *p, int bytes) {
    for (int i = 0; i < bytes; i += 64) _mm_prefetch(p + i, _MM_HINT_T1);
}

// Memory answers late: a core is asked for what each row will need 2048 bytes from here. AMD's cores from
// Zen to Zen 4 fetch four streams ahead by themselves, and faster when left alone.
INLINE void fetch_ahead(const void *p, int bytes) {
    if (__builtin_cpu_is("amdfam17h") || __builtin_cpu_is("amdfam19h")) return;
    for (int i = 0; i < bytes; i += 64) _mm_prefetch((const char *)p + 2048 + i, _MM_HINT_T0);
}

// Row i of four that are computed together: r, r + apart, ... Rows side by side would share a page, and the
// hardware fetches ahead once per page. Where rows do not divide by four, the last one is computed again.
INLINE int far_row(int r, int i, int apart, int to) { return smaller(r + i * apart, to - 1); }

// { sum of a, sum of b, sum of c, sum of d }
INLINE __m128 sum_lanes(__m256 a, __m256 b, __m256 c, __m256 d) {
    __m256 all = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
}

// Of 16 numbers of 16 bits the sums of two, in 32.
INLINE __m256i widen(__m256i v) { return _mm256_madd_epi16(v, _mm256_set1_epi16(1)); }

// Lane j of v[i] goes to lane i of v[j].
INLINE void transpose(__m256 v[8]) {
    __m256d pair[8];
    for (int i = 0; i < 8; i += 2) {
        pair[i] = _mm256_castps_pd(_mm256_unpacklo_ps(v[i], v[i + 1]));
        pair[i + 1] = _mm256_castps_pd(_mm256_unpackhi_ps(v[i], v[i + 1]));
    }
    __m256 four[8];
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            four[i + 2 * j] = _mm256_castpd_ps(_mm256_unpacklo_pd(pair[i + j], pair[i + j + 2]));
            four[i + 2 * j + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(pair[i + j], pair[i + j + 2]));
        }
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_permute2f128_ps(four[i], four[i + 4], 0x20);
        v[i + 4] = _mm256_permute2f128_ps(four[i], four[i + 4], 0x31);
    }
}

// The first n of 16 floats.
INLINE void get(const float *in, int n, __m256 *v0, __m256 *v1) {
    float some[16] = { 0 };
    if (n < 16) in = memcpy(some, in, (size_t)n * sizeof *in);
    *v0 = _mm256_loadu_ps(in), *v1 = _mm256_loadu_ps(in + 8);
}
INLINE void put(float *out, int n, __m256 v0, __m256 v1) {
    float some[16], *to = n < 16 ? some : out;
    _mm256_storeu_ps(to, v0), _mm256_storeu_ps(to + 8, v1);
    if (n < 16) memcpy(out, some, (size_t)n * sizeof *out);
}

// 16 rows by two tokens, x and y: sums that are in registers together.
typedef struct { __m256 x0, x1, y0, y1; } Floats;

#define ZERO { _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps() }

// sum + a * x for the first token, + a * y for the other
INLINE Floats add_all(Floats sum, Floats a, __m256 x, __m256 y) {
    return (Floats){ _mm256_fmadd_ps(a.x0, x, sum.x0), _mm256_fmadd_ps(a.x1, x, sum.x1),
                     _mm256_fmadd_ps(a.y0, y, sum.y0), _mm256_fmadd_ps(a.y1, y, sum.y1) };
}

// avx2_floats.c
typedef void Matmul(float *out, int stride, const Matrix *w, const void *x, int T, int from, int to);
Matmul avx2_matmul_f32, avx2_matmul_f16, avx2_matmul_bf16;
Mix avx2_mix_f32, avx2_mix_f16, avx2_mix_bf16;
void avx2_encode_f16(void *out, const float *in, int n);
void avx2_quantize(BlockX8 *out, const float *in, size_t n);

#endif
