// loops.h - the loops over plain floats. portable.c and every set for x86 compile them, for their registers.
//
// Sums run in LANES lanes that are added at the end, in an order that is fixed here and not by the compiler:
// wide registers hold a part of them, or all.
#ifndef LOOPS_H
#define LOOPS_H

#include "norms.h"
#include <math.h>
#include <string.h>

enum { LANES = 16 };

static inline float add_lanes(const float *s) {
    float four[4];
    for (int j = 0; j < 4; j++) four[j] = (s[j] + s[j + 4]) + (s[j + 8] + s[j + 12]);
    return (four[0] + four[2]) + (four[1] + four[3]);
}

typedef uint32_t Bits __attribute__((vector_size(sizeof(Wide))));           // of a Wide: (Bits)v

INLINE Wide choose(Bits where, Wide a, Wide b) { return (Wide)(((Bits)a & where) | ((Bits)b & ~where)); }

// The numbers at x, of which n are there: the others are zeros, and are not written.
INLINE Wide load_wide(const float *x, int n) {
    Wide v = { 0 };
    memcpy(&v, x, n < LANE ? (size_t)n * sizeof *x : sizeof v);
    return v;
}
INLINE void store_wide(float *x, int n, Wide v) {
    memcpy(x, &v, n < LANE ? (size_t)n * sizeof *x : sizeof v);
}

// e^x = 2^n * e^r, n whole and |r| <= ln(2) / 2. e^r is 1 + r + r^2 q(r), q fitted so that the largest
// relative error is least: 3e-9, to which rounding adds 1e-7. Below -87, where floats end, it is 0, above 88
// infinity. NaN stays NaN.
INLINE Wide exp_of(Wide x) {
    const Wide whole = wide(12582912);                  // 1.5 * 2^23: a float of this size has no fraction
    Wide shifted = MULTIPLY_ADD(x, wide(1.44269504f), whole), n = shifted - whole;
    Wide r = MULTIPLY_ADD(n, wide(-0.693145752f), x);   // ln 2 in two parts: the first is short
    r = MULTIPLY_ADD(n, wide(-1.42860677e-6f), r);
    Wide q = MULTIPLY_ADD(r, wide(0.00138145975f), wide(0.008368717f));
    q = MULTIPLY_ADD(q, r, wide(0.0416683881f));
    q = MULTIPLY_ADD(q, r, wide(0.166665206f));
    q = MULTIPLY_ADD(q, r, wide(0.499999934f));
    Wide power = (Wide)(((Bits)shifted << 23) + 0x3f800000);        // 2^n: the shift drops what `whole` added
    Wide y = (MULTIPLY_ADD(r * r, q, r) + 1) * power;
    return choose((Bits)(x < -87), wide(0), choose((Bits)(x > 88), wide(INFINITY), y));
}

// In each lane x > v ? x : v, so that a NaN in x is passed over.
INLINE Wide larger(const float *x, Wide v) {
    Wide w = load_wide(x, LANE);
    return choose((Bits)(w > v), w, v);
}

TARGET static float largest_loop(const float *x, int n) {
    Wide a = wide(x[0]), b = a;
    int i = 0;
    for (; i + 2 * LANE <= n; i += 2 * LANE) a = larger(x + i, a), b = larger(x + i + LANE, b);
    for (; i + LANE <= n; i += LANE) a = larger(x + i, a);
    float most = largest_lane(choose((Bits)(a > b), a, b));
    for (; i < n; i++) most = x[i] > most ? x[i] : most;
    return most;
}

// The difference first: the largest number of a softmax gets exactly 1, however the product is rounded.
INLINE Wide exp_at(float *x, int n, Wide scale, Wide shift) {
    Wide y = exp_of((load_wide(x, n) - shift) * scale);
    store_wide(x, n, y);
    return y;
}

TARGET static float exp_loop(float *x, int n, float scale, float shift) {
    Wide sum[LANES / LANE] = { { 0 } };
    float lane[LANES];
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES / LANE; j++)
            sum[j] += exp_at(x + i + j * LANE, LANE, wide(scale), wide(shift));
    memcpy(lane, sum, sizeof sum);
    for (; i < n; i += LANE) {
        exp_at(x + i, n - i, wide(scale), wide(shift));
        for (int j = i; j < n && j < i + LANE; j++) lane[j % LANES] += x[j];
    }
    return add_lanes(lane);
}

INLINE void swiglu_at(float *gate, const float *up, int n) {
    Wide g = load_wide(gate, n);
    store_wide(gate, n, g / (1 + exp_of(-g)) * load_wide(up, n));
}

TARGET static void swiglu_loop(float *gate, const float *up, int n) {
    int i = 0;
    for (; i + LANE <= n; i += LANE) swiglu_at(gate + i, up + i, LANE);
    if (i < n) swiglu_at(gate + i, up + i, n - i);
}

#define LOOPS .largest = largest_loop, .exp = exp_loop, .swiglu = swiglu_loop, \
              .mean_square = mean_square_loop, .variance = variance_loop, .normalize = normalize_loop

#endif
