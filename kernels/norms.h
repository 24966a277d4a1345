// norms.h - the loops of the norms. portable.c and every set for x86 compile them, for their registers.
//
// Floats are fast, doubles are safe: a sum runs for a short while in the lanes of a few registers, then goes
// on as a double. Where squares leave the range of floats, doubles do it all.
#ifndef NORMS_H
#define NORMS_H

#include "kernels.h"
#include <math.h>
#include <string.h>

#define APART __attribute__((noinline))                 // seldom needed: its registers slow no other loop
#ifndef TARGET                                          // plain C, where no set has said:
#define TARGET                                          // __attribute__((target("avx2"))), say
#define INLINE static inline __attribute__((always_inline))
#define MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
typedef float Wide __attribute__((vector_size(16)));    // a register of floats
INLINE Wide wide(float x) { return (Wide){ x, x, x, x }; }      // in every lane
INLINE Wide in_register(Wide v) { return v; }           // a set may forbid to load it for each use again
INLINE double total(Wide v) { return ((double)v[0] + v[2]) + ((double)v[1] + v[3]); }
INLINE float largest_lane(Wide v) {
    float a = v[0] > v[1] ? v[0] : v[1], b = v[2] > v[3] ? v[2] : v[3];
    return a > b ? a : b;
}
#endif

// An addition takes four steps: so many sums keep registers of 4 or 8 busy, half as many those of 16.
enum { LANE = sizeof(Wide) / sizeof(float), SUMS = LANE < 16 ? 8 : 4, STEP = SUMS * LANE, SHORT = 64 * LANE };

// ---------------------------------------------------------------------------- mean and variance

// These functions return the sum of the squares of x - center, and add the sum of x - center to *sum. RMSNorm
// passes NULL: it needs no sum, and nothing but squares is computed (tests/test_norm_loops.py looks).

INLINE Wide away(const float *x, float center) {
    Wide v;
    memcpy(&v, x, sizeof v);
    return in_register(v - wide(center));
}

// n: a multiple of STEP, at most SHORT.
INLINE double short_squares(double *sum, const float *x, float center, int n) {
    Wide sums[2] = { { 0 } }, squares[SUMS] = { { 0 } };
    for (int i = 0; i < n; i += STEP)
        for (int k = 0; k < SUMS; k += 4) {
            const float *four = x + i + LANE * k;
            Wide a = away(four, center), b = away(four + LANE, center);
            Wide c = away(four + 2 * LANE, center), d = away(four + 3 * LANE, center);
            if (sum) sums[k / 4] += (a + b) + (c + d);
            squares[k] = MULTIPLY_ADD(a, a, squares[k]);
            squares[k + 1] = MULTIPLY_ADD(b, b, squares[k + 1]);
            squares[k + 2] = MULTIPLY_ADD(c, c, squares[k + 2]);
            squares[k + 3] = MULTIPLY_ADD(d, d, squares[k + 3]);
        }
    for (int half = SUMS / 2; half; half /= 2)
        for (int k = 0; k < half; k++) squares[k] += squares[k + half];
    if (sum) *sum += total(sums[0] + sums[1]);
    return total(squares[0]);
}

// Filled up to STEP with numbers that add nothing.
TARGET APART static void fill_up(float *rest, const float *x, float center, int n) {
    for (int j = 0; j < STEP; j++) rest[j] = j < n ? x[j] : center;
}

INLINE double sum_squares(double *sum, const float *x, float center, int n) {
    double squares = 0;
    int whole = (int)((unsigned)n / STEP * STEP);
    for (int i = 0; i < whole; i += SHORT)
        squares += short_squares(sum, x + i, center, whole - i < SHORT ? whole - i : SHORT);
    if (whole == n) return squares;
    float rest[STEP];
    fill_up(rest, x + whole, center, n - whole);
    return squares + short_squares(sum, rest, center, STEP);
}

INLINE double exact_squares(double *sum, const float *x, double center, int n) {
    double squares = 0;
    for (int i = 0; i < n; i++) {
        double away = x[i] - center;
        if (sum) *sum += away;
        squares += away * away;
    }
    return squares;
}

static inline bool in_range(double squares) { return squares > 1e-30 && squares < 1e30; }

TARGET static double mean_square_loop(const float *x, int n) {
    double part = 1.0 / n, squares = sum_squares(NULL, x, 0, n);
    return part * (in_range(squares) ? squares : exact_squares(NULL, x, 0, n));
}

// var(x) = mean((x - c)^2) - (mean(x) - c)^2 for any c. The difference loses digits where c is further from
// the mean than the numbers are from each other: false then, and the mean is a better c.
INLINE bool variance_around(float c, double *variance, double *mean, const float *x, int n) {
    double part = 1.0 / n, sum = 0, squares = sum_squares(&sum, x, c, n), off = sum * part;
    *variance = squares * part - off * off;
    *mean = c + off;
    return in_range(squares) && off * off <= *variance;
}

TARGET APART static double variance_far_from_zero(double *mean, const float *x, int n) {
    double variance, sum = 0;
    if (variance_around((float)*mean, &variance, mean, x, n)) return variance;
    exact_squares(&sum, x, 0, n);
    *mean = sum / n;
    return exact_squares(NULL, x, *mean, n) / n;
}

// Zero is near enough to the mean of most vectors.
TARGET static double variance_loop(double *mean, const float *x, int n) {
    double variance;
    return variance_around(0, &variance, mean, x, n) ? variance : variance_far_from_zero(mean, x, n);
}

// ---------------------------------------------------------------------------- the way out

// The next row is asked for before it is summed, where two rows, their output and the weights are at home in
// the first cache.
enum { AHEAD = 1024 };

// How many numbers it has done; fewer than FOUR are left. minus: so many parts of the center, negative. The
// scale comes last, as it is known last: a core computes ahead what need not wait for it. (But numbers may be
// so small that only the scale lifts them out of the denormals: then it comes first.)
INLINE int normalize_steps(float *out, const float *x, const float *minus, int parts, float scale,
                           bool scale_last, const float *weight, const float *bias, bool biased, int n) {
    enum { FOUR = 4 * LANE };
    Wide all = wide(scale);
    int i = 0;
    for (; i + FOUR <= n; i += FOUR)
        for (int k = i; k < i + FOUR; k += LANE) {
            Wide v, w, b;
            memcpy(&v, x + k, sizeof v);
            if (n <= AHEAD && (k - i) % 16 == 0) __builtin_prefetch(x + k + n);
            memcpy(&w, weight + k, sizeof w);
            if (parts > 0) v += wide(minus[0]);
            if (parts > 1) v += wide(minus[1]);
            v *= scale_last ? w : all;
            w = scale_last ? all : w;
            if (biased) memcpy(&b, bias + k, sizeof b), v = MULTIPLY_ADD(v, w, b);
            else v *= w;
            memcpy(out + k, &v, sizeof v);
        }
    return i;
}

TARGET APART static void normalize_rest(float *out, const float *x, double center, double scale,
                                        const float *weight, const float *bias, int n) {
    for (int i = 0; i < n; i++) out[i] = (float)((x[i] - center) * scale) * weight[i] + (bias ? bias[i] : 0);
}

// The center is a double: the nearest float, and where that is not near enough, another for the rest of it.
TARGET static void normalize_loop(float *out, const float *x, double center, double scale,
                                  const float *weight, const float *bias, int n) {
    float c[2] = { -(float)center, (float)((float)center - center) }, s = (float)scale;
    int parts = center == 0 ? 0 : fabs(c[1] * scale) < 1e-8 ? 1 : 2, i = 0;
    bool small = fabsf(*x) < 1e-30f;                    // beside one that is not, what others lose is nothing
#define STEPS(parts, last) (bias ? normalize_steps(out, x, c, parts, s, last, weight, bias, true, n)         \
                                 : normalize_steps(out, x, c, parts, s, last, weight, bias, false, n))
    if (s > 1e-15f && s < 1e15f && (parts == 0 || fabs(center) > 1e-30))
        i = parts == 2 ? STEPS(2, true) : parts == 1 ? STEPS(1, true)
                                        : small ? STEPS(0, false) : STEPS(0, true);
#undef STEPS
    if (i < n) normalize_rest(out + i, x + i, center, scale, weight + i, bias ? bias + i : NULL, n - i);
}

#endif
