// loops.h - the loops over plain floats. Every set compiles them anew, for the registers that it has.
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

static inline uint32_t bits_of(float f) { uint32_t bits; memcpy(&bits, &f, sizeof bits); return bits; }
static inline float float_of(uint32_t bits) { float f; memcpy(&f, &bits, sizeof f); return f; }

// a where the condition holds, otherwise b, without a branch: a loop with branches finds no wide registers.
static inline float choose(bool condition, float a, float b) {
    uint32_t mask = -(uint32_t)condition;
    return float_of((bits_of(a) & mask) | (bits_of(b) & ~mask));
}

// e^x = 2^n * e^r, n whole and |r| <= ln(2) / 2. e^r is 1 + r + r^2 q(r), q fitted so that the largest
// relative error is least: 3e-9, to which rounding adds 1e-7. Below -87, where floats end, it is 0, above 88
// infinity. NaN stays NaN.
static inline float exp_of(float x) {
    const float whole = 12582912;                       // 1.5 * 2^23: a float of this size has no fraction
    float shifted = x * 1.44269504f + whole, n = shifted - whole;
    float r = x - n * 0.693145752f - n * 1.42860677e-6f;            // ln 2 in two parts: the first is short
    float q = 0.00138145975f;
    q = q * r + 0.008368717f;
    q = q * r + 0.0416683881f;
    q = q * r + 0.166665206f;
    q = q * r + 0.499999934f;
    float power = float_of((bits_of(shifted) << 23) + 0x3f800000);  // 2^n: the shift drops what `whole` added
    float y = (r * r * q + r + 1) * power;
    return choose(x < -87, 0, choose(x > 88, INFINITY, y));
}

// In each lane x > v ? x : v, so that a NaN in x is passed over.
INLINE Wide larger(const float *x, Wide v) {
    typedef int32_t Mask __attribute__((vector_size(sizeof(Wide))));
    Wide w;
    memcpy(&w, x, sizeof w);
    Mask more = w > v;
    return (Wide)(((Mask)w & more) | ((Mask)v & ~more));
}

TARGET static float largest_loop(const float *x, int n) {
    Wide a = x[0] - (Wide){ 0 }, b = a;
    float most = x[0], rest[2 * LANE];
    int i = 0;
    for (; i + 2 * LANE <= n; i += 2 * LANE) a = larger(x + i, a), b = larger(x + i + LANE, b);
    if (i < n) {
        for (int j = 0; j < 2 * LANE; j++) rest[j] = i + j < n ? x[i + j] : most;
        a = larger(rest, a), b = larger(rest + LANE, b);
    }
    memcpy(rest, &b, sizeof b), a = larger(rest, a);
    memcpy(rest, &a, sizeof a);
    for (int j = 0; j < LANE; j++) most = rest[j] > most ? rest[j] : most;
    return most;
}

TARGET static float exp_loop(float *x, int n, float scale, float shift) {
    for (int i = 0; i < n; i++) x[i] = exp_of(x[i] * scale - shift);
    float lane[LANES] = { 0 }, tail = 0;                // apart, or else compilers add them one by one
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) lane[j] += x[i + j];
    for (; i < n; i++) tail += x[i];
    return add_lanes(lane) + tail;
}

TARGET static void swiglu_loop(float *gate, const float *up, int n) {
    for (int i = 0; i < n; i++) gate[i] = gate[i] / (1 + exp_of(-gate[i])) * up[i];
}

#define LOOPS .largest = largest_loop, .exp = exp_loop, .swiglu = swiglu_loop, \
              .mean_square = mean_square_loop, .variance = variance_loop, .normalize = normalize_loop

#endif
