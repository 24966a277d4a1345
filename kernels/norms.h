// norms.h - the loops of the norms. Every set compiles them anew, for the registers that it has.
//
// Floats are fast, doubles are safe: a sum runs for a short while in the lanes of four registers, then goes
// on as a double. Where squares leave the range of floats, doubles do it all.
#ifndef NORMS_H
#define NORMS_H

#include "kernels.h"
#include <math.h>
#include <string.h>

#ifndef TARGET                                          // plain C, where no set has said:
#define TARGET                                          // __attribute__((target("avx2"))), say
#define INLINE static inline __attribute__((always_inline))
#define MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
typedef float Wide __attribute__((vector_size(16)));    // a register of floats
#endif

enum { LANE = sizeof(Wide) / sizeof(float), STEP = 4 * LANE, SHORT = 16 * STEP };

// ---------------------------------------------------------------------------- mean and variance

typedef struct { double sum, squares; } Moments;        // of x - center

INLINE double add_lanes_up(Wide a, Wide b, Wide c, Wide d) {
    float lane[LANE];
    double sum[LANE / 2];
    Wide all = (a + b) + (c + d);
    memcpy(lane, &all, sizeof all);
    for (int j = 0; j < LANE / 2; j++) sum[j] = (double)lane[j] + lane[j + LANE / 2];
    for (int half = LANE / 4; half; half /= 2)
        for (int j = 0; j < half; j++) sum[j] += sum[j + half];
    return sum[0];
}

// n: a multiple of STEP, at most SHORT.
INLINE void add_moments(Moments *m, const float *x, float center, int n) {
    Wide sum[4] = { { 0 } }, squares[4] = { { 0 } };
    for (int i = 0; i < n; i += STEP)
        for (int k = 0; k < 4; k++) {
            Wide d;
            memcpy(&d, x + i + LANE * k, sizeof d);
            d -= center;
            sum[k] += d;
            squares[k] = MULTIPLY_ADD(d, d, squares[k]);
        }
    m->sum += add_lanes_up(sum[0], sum[1], sum[2], sum[3]);
    m->squares += add_lanes_up(squares[0], squares[1], squares[2], squares[3]);
}

INLINE Moments moments(const float *x, float center, int n) {
    Moments m = { 0, 0 };
    int whole = n - n % STEP;
    for (int i = 0; i < whole; i += SHORT)
        add_moments(&m, x + i, center, whole - i < SHORT ? whole - i : SHORT);
    if (whole < n) {
        float rest[STEP];                               // filled up with numbers that add nothing
        for (int j = 0; j < STEP; j++) rest[j] = whole + j < n ? x[whole + j] : center;
        add_moments(&m, rest, center, STEP);
    }
    return m;
}

static inline Moments exact_moments(const float *x, double center, int n) {
    Moments m = { 0, 0 };
    for (int i = 0; i < n; i++) m.sum += x[i] - center, m.squares += (x[i] - center) * (x[i] - center);
    return m;
}

static inline bool in_range(double squares) { return squares > 1e-30 && squares < 1e30; }

TARGET static double mean_square_loop(const float *x, int n) {
    double part = 1.0 / n, squares = moments(x, 0, n).squares;
    return part * (in_range(squares) ? squares : exact_moments(x, 0, n).squares);
}

// In one pass about a guess: var(x) = mean((x - guess)^2) - (mean(x) - guess)^2. The difference loses digits
// where the guess is further off than the numbers are from each other; then the mean found is the next guess.
TARGET static double variance_loop(double *mean, const float *x, int n) {
    float guess = x[0];
    if (n >= 8) guess = (((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7]))) / 8;
    double part = 1.0 / n;
    for (int pass = 0; pass < 2; pass++, guess = (float)*mean) {
        Moments m = moments(x, guess, n);
        double off = m.sum * part, variance = m.squares * part - off * off;
        *mean = guess + off;
        if (in_range(m.squares) && off * off <= variance) return variance;
    }
    *mean = exact_moments(x, 0, n).sum / n;
    return exact_moments(x, *mean, n).squares / n;
}

// ---------------------------------------------------------------------------- the way out

// How many numbers it has done; fewer than STEP are left. parts: of the center.
INLINE int normalize_steps(float *out, const float *x, const float *center, int parts, float scale,
                           const float *weight, const float *bias, bool biased, int n) {
    int i = 0;
    for (; i + STEP <= n; i += STEP)
        for (int k = i; k < i + STEP; k += LANE) {
            Wide v, w, b;
            memcpy(&v, x + k, sizeof v);
            memcpy(&w, weight + k, sizeof w);
            if (parts > 0) v -= center[0];
            if (parts > 1) v -= center[1];
            v = v * scale * w;
            if (biased) memcpy(&b, bias + k, sizeof b), v += b;
            memcpy(out + k, &v, sizeof v);
        }
    return i;
}

// The center is a double: the nearest float, and where that is not near enough, another for the rest of it.
TARGET static void normalize_loop(float *out, const float *x, double center, double scale,
                                  const float *weight, const float *bias, int n) {
    float c[2] = { (float)center, (float)(center - (float)center) }, s = (float)scale;
    int parts = center == 0 ? 0 : fabs(c[1] * scale) < 1e-8 ? 1 : 2, i = 0;
#define STEPS(parts, biased) normalize_steps(out, x, c, parts, s, weight, bias, biased, n)
    if (s > 1e-30f && s < 1e30f && (parts == 0 || fabs(center) > 1e-30))
        i = bias ? (parts == 0 ? STEPS(0, true) : parts == 1 ? STEPS(1, true) : STEPS(2, true))
                 : (parts == 0 ? STEPS(0, false) : parts == 1 ? STEPS(1, false) : STEPS(2, false));
#undef STEPS
    for (; i < n; i++) out[i] = (float)((x[i] - center) * scale) * weight[i] + (bias ? bias[i] : 0);
}

#endif
