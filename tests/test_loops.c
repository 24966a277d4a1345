// test_loops.c - the loops over plain floats, for every set of kernels this CPU can run: against double, at
// every length.
#include "test.h"

static const char *const sets[] = { "portable", "avx2", "avx512", "neon", "neon-dot" };

enum { MAX_N = 100 };

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
    for (int i = 0; i < MAX_N + 8; i++) x[i] = i < n ? (float)(size * random_float()) : 12345;
    return x;
}

static void check_margin(const char *what, const float *x, int n) {
    for (int i = n; i < MAX_N + 8; i++) CHECK(x[i] == 12345, "%s of %d numbers wrote number %d", what, n, i);
}

static void test_softmax(int n) {
    float x[MAX_N + 8], y[MAX_N + 8];
    memcpy(y, guarded(x, n, 20), sizeof y);
    double largest = -INFINITY, want = 0;
    for (int i = 0; i < n; i++) largest = x[i] > largest ? x[i] : largest;
    CHECK(kernels.largest(x, n) == largest, "largest of %d: wanted %g, got %g", n, largest,
          kernels.largest(x, n));
    float sum = kernels.exp(y, n, 0.25f, (float)largest);
    for (int i = 0; i < n; i++) {
        double e = exp(0.25 * ((double)x[i] - largest));
        CHECK(near(y[i], e, 2e-6 * e), "exp, %d of %d: wanted %g, got %g", i, n, e, y[i]);
        want += e;
    }
    CHECK(near(sum, want, 2e-6 * want), "sum of %d exponentials: wanted %g, got %g", n, want, sum);
    check_margin("exp", y, n);
}

// What is not a number is passed over, but for the first.
static void test_largest(int n) {
    float x[MAX_N + 8];
    guarded(x, n, 20);
    for (int i = 0; i < n; i++) x[i] = -INFINITY;
    CHECK(kernels.largest(x, n) == -INFINITY, "largest of %d times -inf: got %g", n, kernels.largest(x, n));
    for (int i = 1; i < n; i++) x[i] = i % 3 ? NAN : (float)-i;
    float want = n > 3 ? -3 : -INFINITY;
    CHECK(kernels.largest(x, n) == want, "largest of %d, some NaN: wanted %g, got %g", n, want,
          kernels.largest(x, n));
    x[0] = NAN;
    CHECK(isnan(kernels.largest(x, n)), "largest of %d, NaN first: got %g", n, kernels.largest(x, n));
}

static void test_swiglu(int n) {
    float gate[MAX_N + 8], z[MAX_N + 8], up[MAX_N + 8];
    memcpy(z, guarded(gate, n, 30), sizeof z), guarded(up, n, 3);
    kernels.swiglu(gate, up, n);
    for (int i = 0; i < n; i++) {
        double want = z[i] / (1 + exp(-(double)z[i])) * up[i];
        CHECK(near(gate[i], want, 4e-7 * fabs(want)), "swiglu(%g, %g), %d of %d: wanted %.9g, got %.9g", z[i],
              up[i], i, n, want, gate[i]);
    }
    check_margin("swiglu", gate, n);
}

// What float sums would lose, or overflow: a square may err by what 16 additions in a row can lose, a mean by
// two roundings of what the numbers are apart.
static void check_sums(const char *kind, const float *x, int n) {
    long double sum = 0, squares = 0, apart = 0;
    for (int i = 0; i < n; i++) sum += x[i], squares += (long double)x[i] * x[i];
    for (int i = 0; i < n; i++) apart += (x[i] - sum / n) * (x[i] - sum / n);
    double mean, variance = kernels.variance(&mean, x, n), square = kernels.mean_square(x, n);
    double want = (double)(apart / n), want_mean = (double)(sum / n), want_square = (double)(squares / n);
    CHECK(near(variance, want, 7e-7 * want), "%s, variance of %d: wanted %.17g, got %.17g", kind, n, want,
          variance);
    CHECK(near(mean, want_mean, 1.2e-7 * sqrt(want)), "%s, mean of %d: wanted %.17g, got %.17g", kind, n,
          want_mean, mean);
    CHECK(near(square, want_square, 7e-7 * want_square), "%s, mean square of %d: wanted %.17g, got %.17g",
          kind, n, want_square, square);
}

static void test_sums(void) {
    static const struct { const char *name; double center, size, first; } kinds[] = {
        { "ordinary", 0, 1, 0 },   { "mean 1e4", 1e4, 1.7, 0 },     { "large", 0, 1e30, 0 },
        { "largest", 0, 3e38, 0 }, { "all large", 3e38, 1e36, 0 },  { "tiny", 0, 1e-25, 0 },
        { "equal", 0.1, 0, 0 },    { "the first far off", 0, 1, 1e4 }, { "one huge", 0, 1, 1e15 },
    };
    static float x[5000];
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (int n = 1; n <= 5000; n += n < 300 ? 1 : 47) {
            for (int i = 0; i < n; i++)
                x[i] = (float)(kinds[k].center + kinds[k].size * random_float() + (i ? 0 : kinds[k].first));
            check_sums(kinds[k].name, x, n);
        }
}

static void test_normalize(int n, double center, double size) {
    float x[MAX_N + 8], out[MAX_N + 8], weight[MAX_N + 8], bias[MAX_N + 8];
    guarded(x, n, size), guarded(out, n, 1), guarded(weight, n, 1), guarded(bias, n, 1);
    for (int i = 0; i < n; i++) x[i] = (float)(x[i] + center);
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
        for (int n = 1; n <= MAX_N; n++) {
            test_softmax(n), test_largest(n), test_swiglu(n);
            test_normalize(n, 0, 1), test_normalize(n, 1e4, 1), test_normalize(n, 0, 1e30);
        }
        test_sums();
    }
    return finish("test_loops");
}
