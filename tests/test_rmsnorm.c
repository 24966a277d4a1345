// test_rmsnorm.c - both norms against numbers worked by hand and against their formulas in long double.
#include "test.h"

enum { MAX_N = 4097 };

static const char *const names[] = { "rmsnorm", "layernorm", "prmsnorm", "nonorm" };
typedef void Function(float *out, const float *x, const Norm *w);
static Function *const functions[] = { rmsnorm, layernorm, prmsnorm, nonorm };
enum { ALL = sizeof functions / sizeof *functions };    // the first two are compared with their formulas

// The formula, and the mistakes that look most like it.
typedef enum { RIGHT, EPS_OUTSIDE_THE_ROOT, VARIANCE_OVER_N_MINUS_1, MEAN_LEFT_IN } Reading;

// scale: how large the normalized numbers are, typically.
static void formula(long double *out, long double *scale, const float *x, const Norm *w, bool centered,
                    Reading reading) {
    long double mean = 0, square = 0;
    int n = w->dim;
    for (int i = 0; i < n && centered && reading != MEAN_LEFT_IN; i++) mean += x[i];
    mean /= n;
    for (int i = 0; i < n; i++) square += (x[i] - mean) * (x[i] - mean);
    square /= reading == VARIANCE_OVER_N_MINUS_1 ? n - 1 : n;
    long double divisor = reading == EPS_OUTSIDE_THE_ROOT ? sqrtl(square) + w->eps : sqrtl(square + w->eps);
    for (int i = 0; i < n; i++) out[i] = (x[i] - mean) / divisor * w->weight[i] + (w->bias ? w->bias[i] : 0);
    *scale = sqrtl(square) / divisor;
}

// How far numbers are from a reading of the formula, in units of what rounding to float explains: three
// roundings of 2^-24 each, with some room, two steps of 1.4e-45 among denormals, and for the mean two of
// the typical number. Up to 1 is right.
static double distance(const float *got, const float *x, const Norm *w, bool centered, Reading reading) {
    static long double want[MAX_N];
    long double scale, worst = 0;
    formula(want, &scale, x, w, centered, reading);
    for (int i = 0; i < w->dim; i++) {
        long double bias = w->bias ? fabsl(w->bias[i]) : 0, weight = fabsl(w->weight[i]);
        long double tolerance = 3e-7L * (fabsl(want[i]) + 2 * bias) + 1.2e-7L * scale * weight + 3e-45L;
        long double d = fabsl(got[i] - want[i]) / tolerance;
        if (!(d <= worst)) worst = isfinite(got[i]) ? d : INFINITY;
    }
    return (double)worst;
}

static float ones[MAX_N], weight[MAX_N], bias[MAX_N], x[MAX_N], out[MAX_N];

static void test_by_hand(void) {
    Norm plain = { .dim = 4, .eps = 0, .weight = ones };

    // mean of squares: (4 + 16 + 16 + 64) / 4 = 25, root 5
    const float a[] = { 2, 4, 4, 8 }, want_a[] = { 0.4f, 0.8f, 0.8f, 1.6f };
    rmsnorm(out, a, &plain);
    for (int i = 0; i < 4; i++)
        CHECK(near(out[i], want_a[i], 1e-7), "rmsnorm[%d]: wanted %g, got %.9g", i, want_a[i], out[i]);

    // mean 2.5, variance (2.25 + 0.25 + 0.25 + 2.25) / 4 = 1.25; over n - 1: 1.667, the first -1.1619
    const float b[] = { 1, 2, 3, 4 }, want_b[] = { -1.3416408f, -0.4472136f, 0.4472136f, 1.3416408f };
    layernorm(out, b, &plain);
    for (int i = 0; i < 4; i++)
        CHECK(near(out[i], want_b[i], 2e-7), "layernorm[%d]: wanted %g, got %.9g", i, want_b[i], out[i]);

    // docs/norms.md: mean 3, standard deviation 4, root mean square 5
    const float sides[] = { -1, -1, 7, 7 };
    const float want_sides[2][4] = { { -0.2f, -0.2f, 1.4f, 1.4f }, { -1, -1, 1, 1 } };
    for (int f = 0; f < 2; f++) {
        functions[f](out, sides, &plain);
        for (int i = 0; i < 4; i++)
            CHECK(near(out[i], want_sides[f][i], 1e-7), "%s, 3-4-5 [%d]: wanted %g, got %.9g", names[f], i,
                  want_sides[f][i], out[i]);
    }

    // weight and bias: [0.4, 0.8, 0.8, 1.6] * [1, -2, 0, 10] + [0.5, 0, 3, -1] = [0.9, -1.6, 3, 15]
    Norm full = {
        .dim = 4, .eps = 0, .weight = (float[]){ 1, -2, 0, 10 }, .bias = (float[]){ 0.5f, 0, 3, -1 }
    };
    const float want_c[] = { 0.9f, -1.6f, 3, 15 };
    rmsnorm(out, a, &full);
    for (int i = 0; i < 4; i++)
        CHECK(near(out[i], want_c[i], 1e-6), "with bias [%d]: wanted %g, got %.9g", i, want_c[i], out[i]);

    // eps is added to the square, before the root: mean of squares 1, eps 3: 1 / sqrt(1 + 3) = 0.5
    const float d[] = { 1, -1, 1, -1 };
    Norm eps = { .dim = 4, .eps = 3, .weight = ones };
    for (int f = 0; f < 2; f++) {
        functions[f](out, d, &eps);
        CHECK(near(out[0], 0.5, 1e-7) && near(out[1], -0.5, 1e-7),
              "%s, eps 3: wanted 0.5 -0.5, got %.9g %.9g", names[f], out[0], out[1]);
    }
}

static void test_other_norms_by_hand(void) {
    Norm full = {
        .dim = 4, .eps = 0, .weight = (float[]){ 1, -2, 0, 10 }, .bias = (float[]){ 0.5f, 0, 3, -1 }
    };
    // of 4 numbers the first counts: the root of 2^2 is 2, [1, 2, 2, 4] * weight + bias = [1.5, -4, 3, 39]
    const float a[] = { 2, 4, 4, 8 }, want_p[] = { 1.5f, -4, 3, 39 };
    prmsnorm(out, a, &full);
    for (int i = 0; i < 4; i++)
        CHECK(out[i] == want_p[i], "prmsnorm[%d]: wanted %g, got %.9g", i, want_p[i], out[i]);

    // of 17 the first two: (1 + 49) / 2 = 25, root 5; of 16 only the first: root 1. eps: under the root
    float b[17] = { 1, 7, [16] = 20 };
    for (int n = 16; n <= 17; n++) {
        prmsnorm(out, b, &(Norm){ .dim = n, .eps = 0, .weight = ones });
        CHECK(near(out[1], n == 17 ? 1.4 : 7, 1e-7), "prmsnorm of %d numbers: wanted %g, got %.9g", n,
              n == 17 ? 1.4 : 7.0, out[1]);
    }
    prmsnorm(out, b, &(Norm){ .dim = 17, .eps = 75, .weight = ones });
    CHECK(near(out[16], 2, 1e-7), "prmsnorm, eps 75: wanted 20 / sqrt(25 + 75), got %.9g", out[16]);

    // [2, 4, 4, 8] * weight + bias
    const float want_n[] = { 2.5f, -8, 3, 79 };
    nonorm(out, a, &full);
    for (int i = 0; i < 4; i++)
        CHECK(out[i] == want_n[i], "nonorm[%d]: wanted %g, got %.9g", i, want_n[i], out[i]);
}

// ---------------------------------------------------------------------------- kinds of numbers

static float ordinary(int i)  { (void)i; return 3 * random_float(); }
static float zero(int i)      { (void)i; return 0; }
static float equal(int i)     { (void)i; return 0.1f; }
static float denormal(int i)  { (void)i; return 1e-40f * random_float(); }
static float large(int i)     { (void)i; return 1e15f * random_float(); }
static float largest(int i)   { (void)i; return 3e38f * random_float(); }
static float one_huge(int i)  { return i ? random_float() : 1e15f; }
static float one_zero(int i)  { return i ? random_float() : 0; }
static float one_not(int i)   { return i ? 1e-40f * random_float() : 1e-29f; }      // denormal
static float far_off(int i)   { (void)i; return 1e4f + 1.7320508f * random_float(); }   // variance 1

static const struct { const char *name; float (*number)(int i); } kinds[] = {
    { "ordinary", ordinary }, { "zeros", zero },          { "equal", equal },       { "denormal", denormal },
    { "large", large },       { "the largest", largest }, { "one huge", one_huge }, { "mean 1e4", far_off },
    { "one zero", one_zero }, { "all but one denormal", one_not },
};

static void test_against_formula(void) {
    static const int dims[] = { 1, 2, 3, 64, 288, MAX_N };
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (size_t d = 0; d < sizeof dims / sizeof *dims; d++)
            for (int with_bias = 0; with_bias < 2; with_bias++)
                for (int f = 0; f < 2; f++) {
                    Norm w = {
                        .dim = dims[d], .eps = 1e-5f, .weight = weight, .bias = with_bias ? bias : NULL
                    };
                    for (int i = 0; i < w.dim; i++) x[i] = kinds[k].number(i);
                    functions[f](out, x, &w);
                    double off = distance(out, x, &w, f, RIGHT);
                    CHECK(off <= 1, "%s of %d numbers (%s)%s: %g times further off than rounding", names[f],
                          w.dim, kinds[k].name, with_bias ? " with bias" : "", off);

                    memcpy(out, x, sizeof x);           // in place
                    float apart[MAX_N];
                    functions[f](apart, x, &w);
                    functions[f](out, out, &w);
                    CHECK(!memcmp(out, apart, (size_t)w.dim * sizeof *out),
                          "%s of %d numbers (%s) in place differs", names[f], w.dim, kinds[k].name);
                }
}

// Equal numbers have no variance: exactly the bias remains, and exactly zero without one.
static void test_equal_numbers(void) {
    for (int n = 1; n < 300; n++) {
        Norm w = { .dim = n, .eps = 1e-5f, .weight = weight, .bias = n % 2 ? bias : NULL };
        float value = 1e4f * random_float();
        for (int i = 0; i < n; i++) x[i] = value;
        layernorm(out, x, &w);
        int wrong = 0;
        for (int i = 0; i < n; i++) wrong += out[i] != (w.bias ? bias[i] : 0);
        CHECK(wrong == 0, "layernorm of %d times %.9g: wanted the bias exactly, %d numbers differ", n, value,
              wrong);
    }
}

// The test above would notice the mistakes that are made most.
static void test_mistakes_are_seen(void) {
    static const struct { Reading reading; const char *name; bool rms, layer; } mistakes[] = {
        { EPS_OUTSIDE_THE_ROOT, "eps outside the root", true, true },
        { VARIANCE_OVER_N_MINUS_1, "n - 1", true, true },
        { MEAN_LEFT_IN, "the mean left in", false, true },
    };
    for (size_t k = 0; k < sizeof mistakes / sizeof *mistakes; k++)
        for (int f = 0; f < 2; f++) {
            if (!(f ? mistakes[k].layer : mistakes[k].rms)) continue;
            Norm w = { .dim = 288, .eps = 1e-5f, .weight = weight };
            for (int i = 0; i < w.dim; i++) x[i] = ordinary(i);
            functions[f](out, x, &w);
            double off = distance(out, x, &w, f, mistakes[k].reading);
            CHECK(off > 2, "%s cannot be told from one with %s: %g", names[f], mistakes[k].name, off);
        }
}

static void test_symmetries(void) {
    Norm w = { .dim = 64, .eps = 0, .weight = weight };
    float scaled[64], shifted[64], again[64];
    for (int i = 0; i < w.dim; i++) {
        x[i] = ldexpf((float)(random_below(2001) - 1000), -10);     // short numbers: the shift is exact
        scaled[i] = 4 * x[i];
        shifted[i] = x[i] + 8;
    }
    for (int f = 0; f < 2; f++) {
        functions[f](out, x, &w);
        functions[f](again, scaled, &w);
        CHECK(!memcmp(out, again, sizeof again), "%s, eps 0: four times the input gives another output",
              names[f]);
        functions[f](again, shifted, &w);
        double worst = 0;
        for (int i = 0; i < w.dim; i++) worst = worse(worst, fabs(again[i] - out[i]));
        CHECK(f ? worst < 1e-6 : worst > 0.1, "%s: a shift of the input by 8 moves the output by %g",
              names[f], worst);
    }
}

// A turn of the input, pair by pair, and the same turn of the output. The direction (1, 1, ..., 1) turns too,
// and LayerNorm does not follow.
static void turn(float *y, const float *from, int n) {
    for (int i = 0; i < n; i += 2) {
        y[i] = 0.8f * from[i] - 0.6f * from[i + 1];
        y[i + 1] = 0.6f * from[i] + 0.8f * from[i + 1];
    }
}

static void test_rotation(void) {
    Norm w = { .dim = 64, .eps = 1e-5f, .weight = ones };
    float turned[64], first[64], last[64];
    for (int i = 0; i < w.dim; i++) x[i] = (float)random_below(2001) / 1000 - 0.5f;     // around 0.5
    turn(turned, x, w.dim);
    for (int f = 0; f < 2; f++) {
        functions[f](first, turned, &w);
        functions[f](out, x, &w);
        turn(last, out, w.dim);
        double worst = 0;
        for (int i = 0; i < w.dim; i++) worst = worse(worst, fabs(first[i] - last[i]));
        CHECK(f ? worst > 0.1 : worst < 1e-6, "%s: turned before and after differ by %g", names[f], worst);
    }
}

// ---------------------------------------------------------------------------- the norm of this build

static Event heard;
static int times_heard;
static void listen(void *context, const Event *event) { (void)context; heard = *event; times_heard++; }

static void test_norm(void) {
    enum { T = 37, DIM = 2048 };
    int f = 0;
    while (f < ALL && strcmp(norm_name(), names[f])) f++;
    CHECK(f < ALL, "norm_name() says %s", norm_name());
    if (f == ALL) return;
    float *in = random_floats(T * DIM), *got = malloc(T * DIM * sizeof *got),
          *want = malloc(T * DIM * sizeof *want);
    Norm w = { .op = FFN_NORM, .layer = 3, .dim = DIM, .eps = 1e-5f, .weight = weight, .bias = bias };
    for (int t = 0; t < T; t++) functions[f](want + t * DIM, in + t * DIM, &w);

    for (int n = 1; n <= 3; n++) {
        State s = { .T = T, .pos = 5, .observer = listen };
        times_heard = 0;
        threads_start(n);
        memset(got, 0, T * DIM * sizeof *got);
        norm(&s, got, in, &w);
        threads_stop();
        CHECK(!memcmp(got, want, T * DIM * sizeof *got), "norm() with %d threads is not %s, row by row", n,
              norm_name());
        CHECK(times_heard == 1 && heard.op == FFN_NORM && heard.layer == 3 && heard.pos == 5 &&
                  heard.rows == T && heard.cols == DIM && heard.stride == DIM && heard.data == got,
              "the norm reported something else");
    }
    State alone = { .T = T };
    norm(&alone, in, in, &w);
    CHECK(!memcmp(in, want, T * DIM * sizeof *in), "norm() in place differs");
    free(in), free(got), free(want);
}

int main(void) {
    choose_kernels(NULL);
    for (int i = 0; i < MAX_N; i++) ones[i] = 1, weight[i] = 2 * random_float(), bias[i] = random_float();
    test_by_hand();
    test_other_norms_by_hand();
    test_against_formula();
    test_equal_numbers();
    test_mistakes_are_seen();
    test_symmetries();
    test_rotation();
    test_norm();
    return finish("test_rmsnorm");
}
