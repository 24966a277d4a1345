// test_loops.c - the loops over plain floats, for every set of kernels this CPU can run: against double, at
// every length.
#include "test.h"

static const char *const sets[] = { "portable", "avx2", "avx512", "neon", "neon-dot" };

enum { MOST = 100 };

static float exp_of(float x) {
    kernels.exp(&x, 1, 1, 0);
    return x;
}

// The error that loops.h states: 1e-7 of e^x, from -87 to 88.
static void test_exp(void) {
    double error = 0;
    float at = 0;
    for (int i = 0; i <= 1750000; i++) {
        float x = -87 + (float)i * 1e-4f;
        double e = fabs(exp_of(x) / exp((double)x) - 1);
        if (!(e <= error)) error = e, at = x;
    }
    CHECK(error <= 1.03e-7, "exp(%.9g): wanted %.9g, got %.9g, off by %.3g", at, exp((double)at),
          exp_of(at), error);
    static const struct { float x, want; } ends[] = {
        { 0, 1 }, { -0.0f, 1 }, { -87.5f, 0 }, { -104, 0 }, { -3e38f, 0 }, { -INFINITY, 0 },
        { 88.5f, INFINITY }, { 3e38f, INFINITY }, { INFINITY, INFINITY }, { 1e-40f, 1 },
    };
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        CHECK(exp_of(ends[i].x) == ends[i].want, "exp(%g): wanted %g, got %g", ends[i].x, ends[i].want,
              exp_of(ends[i].x));
    CHECK(isnan(exp_of(NAN)), "exp(NaN) is %g", exp_of(NAN));
}

// x: n numbers with a margin that nobody may touch.
static float *guarded(float *x, int n, double size) {
    for (int i = 0; i < MOST + 8; i++) x[i] = i < n ? (float)(size * random_float()) : 12345;
    return x;
}

static void check_margin(const char *what, const float *x, int n) {
    for (int i = n; i < MOST + 8; i++) CHECK(x[i] == 12345, "%s of %d numbers wrote number %d", what, n, i);
}

static void test_softmax(int n) {
    float x[MOST + 8], y[MOST + 8];
    memcpy(y, guarded(x, n, 20), sizeof y);
    double largest = -INFINITY, want = 0;
    for (int i = 0; i < n; i++) largest = x[i] > largest ? x[i] : largest;
    CHECK(kernels.largest(x, n) == largest, "largest of %d: wanted %g, got %g", n, largest,
          kernels.largest(x, n));
    float sum = kernels.exp(y, n, 0.25f, (float)(0.25 * largest));
    for (int i = 0; i < n; i++) {
        double e = exp(0.25 * ((double)x[i] - largest));
        CHECK(near(y[i], e, 2e-6 * e), "exp, %d of %d: wanted %g, got %g", i, n, e, y[i]);
        want += e;
    }
    CHECK(near(sum, want, 2e-6 * want), "sum of %d exponentials: wanted %g, got %g", n, want, sum);
    check_margin("exp", y, n);
}

static void test_swiglu(int n) {
    float gate[MOST + 8], z[MOST + 8], up[MOST + 8];
    memcpy(z, guarded(gate, n, 30), sizeof z), guarded(up, n, 3);
    kernels.swiglu(gate, up, n);
    for (int i = 0; i < n; i++) {
        double want = z[i] / (1 + exp(-(double)z[i])) * up[i];
        CHECK(near(gate[i], want, 4e-7 * fabs(want)), "swiglu(%g, %g), %d of %d: wanted %.9g, got %.9g", z[i],
              up[i], i, n, want, gate[i]);
    }
    check_margin("swiglu", gate, n);
}

// Far from zero and far apart: what float sums would lose.
static void test_norm_sums(int n, double center, double size) {
    float x[MOST + 8], out[MOST + 8], weight[MOST + 8], bias[MOST + 8];
    guarded(x, n, size), guarded(out, n, 1), guarded(weight, n, 1), guarded(bias, n, 1);
    double sum = 0, squares = 0, sizes = 0;
    for (int i = 0; i < n; i++) x[i] = (float)(x[i] + center), sum += x[i], sizes += fabs(x[i]);
    for (int i = 0; i < n; i++) squares += (x[i] - center) * (x[i] - center);
    CHECK(near(kernels.sum(x, n), sum, 1e-14 * sizes), "sum of %d: wanted %.17g, got %.17g", n, sum,
          kernels.sum(x, n));
    CHECK(near(kernels.sum_squares(x, center, n), squares, 1e-14 * squares),
          "squares of %d about %g: wanted %.17g, got %.17g", n, center, squares,
          kernels.sum_squares(x, center, n));
    for (int with_bias = 0; with_bias < 2; with_bias++) {
        kernels.normalize(out, x, center, 0.7, weight, with_bias ? bias : NULL, n);
        for (int i = 0; i < n; i++) {
            double want = (x[i] - center) * 0.7 * weight[i] + (with_bias ? bias[i] : 0);
            CHECK(near(out[i], want, 3e-7 * (fabs(want) + 1)), "normalize, %d of %d: wanted %.9g, got %.9g",
                  i, n, want, out[i]);
        }
        check_margin("normalize", out, n);
    }
}

int main(void) {
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        if (!choose_kernels(sets[i])) continue;
        test_exp();
        for (int n = 1; n <= MOST; n++) {
            test_softmax(n), test_swiglu(n);
            test_norm_sums(n, 0, 1), test_norm_sums(n, 1e4, 1), test_norm_sums(n, 0, 1e30);
        }
    }
    return finish("test_loops");
}
