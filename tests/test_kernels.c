// test_kernels.c - every set of kernels this CPU can run: half precision to the bit, products against double.
#include "test.h"

static const char *const sets[] = { "portable", "avx2", "avx512", "neon" };
static const char *const type_names[] = { [F32] = "F32", [F16] = "F16" };

// ---------------------------------------------------------------------------- half precision

// IEEE 754 binary16: (-1)^sign * 1.fraction * 2^(exponent - 15), in whole numbers
// (1024 + fraction) * 2^(exponent - 25).
static double value_of(uint16_t half) {
    int exponent = half >> 10 & 31, fraction = half & 1023;
    double magnitude = exponent == 0 ? ldexp(fraction, -24)
                     : exponent < 31 ? ldexp(1024 + fraction, exponent - 25) : fraction ? NAN : INFINITY;
    return half & 0x8000 ? -magnitude : magnitude;
}

static uint16_t encoded(float x) {
    uint16_t half;
    kernels.encode[F16](&half, &x, 1);
    return half;
}

static void test_decode_halves(void) {
    static uint16_t halves[65536], again[65536];
    static float floats[65536];
    for (int i = 0; i < 65536; i++) halves[i] = (uint16_t)i;
    kernels.decode[F16](floats, halves, 65536);
    kernels.encode[F16](again, floats, 65536);
    for (int i = 0; i < 65536; i++) {
        double want = value_of(halves[i]);
        if (isnan(want)) {
            CHECK(isnan(floats[i]), "half %04x is a NaN, got %g", i, floats[i]);
            CHECK(isnan(value_of(again[i])), "the NaN %04x came back as %04x", i, again[i]);
        } else {
            CHECK(floats[i] == want && !signbit(floats[i]) == !signbit(want), "half %04x is %.9g, got %.9g",
                  i, want, floats[i]);
            CHECK(again[i] == i, "half %04x came back as %04x", i, again[i]);
        }
    }
}

// Rounding changes its mind halfway between two neighbours and nowhere else: the middle and the floats beside
// it are all there is to test. After the last half, 65504, would come 65536: it stands for infinity.
static void test_encode_halves(void) {
    for (int i = 0; i <= 0x7bff; i++)
        for (int sign = 0; sign <= 0x8000; sign += 0x8000) {
            double low = value_of((uint16_t)i), high = i == 0x7bff ? 65536 : value_of((uint16_t)(i + 1));
            float s = sign ? -1 : 1, middle = (float)((low + high) / 2), below = nextafterf(middle, 0);
            float above = nextafterf(middle, INFINITY);
            int even = i % 2 ? i + 1 : i;
            CHECK(encoded(s * below) == (sign | i), "%.9g: wanted %04x, got %04x", s * below, sign | i,
                  encoded(s * below));
            CHECK(encoded(s * middle) == (sign | even), "%.9g, a tie: wanted %04x, got %04x", s * middle,
                  sign | even, encoded(s * middle));
            CHECK(encoded(s * above) == (sign | (i + 1)), "%.9g: wanted %04x, got %04x", s * above,
                  sign | (i + 1), encoded(s * above));
        }
    static const struct { float x; uint16_t half; } known[] = {
        { 0, 0 }, { -0.0f, 0x8000 }, { 1, 0x3c00 }, { -2, 0xc000 }, { 65504, 0x7bff }, { 65519.996f, 0x7bff },
        { 65520, 0x7c00 }, { 65536, 0x7c00 }, { 3.4e38f, 0x7c00 }, { INFINITY, 0x7c00 },
        { -INFINITY, 0xfc00 }, { 0x1p-24f, 1 }, { 0x1p-25f, 0 }, { 0x1.8p-25f, 1 }, { 0x1p-149f, 0 },
        { -1e-40f, 0x8000 }, { 0x1p-14f, 0x0400 },
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        CHECK(encoded(known[i].x) == known[i].half, "%.9g: wanted %04x, got %04x", known[i].x, known[i].half,
              encoded(known[i].x));
    CHECK(isnan(value_of(encoded(NAN))) && isnan(value_of(encoded(-NAN))), "a NaN is encoded as %04x",
          encoded(NAN));
    union { uint32_t bits; float f; } low = { 0x7f800001 };         // a half has no room for that last bit
    CHECK(isnan(value_of(encoded(low.f))), "the NaN 7f800001 is encoded as %04x", encoded(low.f));
}

static void test_floats_stay(void) {
    float in[5] = { 1, -0.0f, 1e-42f, INFINITY, -3e38f }, stored[5], out[5];
    kernels.encode[F32](stored, in, 5);
    kernels.decode[F32](out, stored, 5);
    CHECK(!memcmp(in, stored, sizeof in) && !memcmp(in, out, sizeof in), "an F32 is not stored as it is");
    CHECK(bytes_of(F32, 3) == 12 && bytes_of(F16, 3) == 6, "3 numbers take %zu and %zu bytes",
          bytes_of(F32, 3), bytes_of(F16, 3));
}

// ---------------------------------------------------------------------------- products

// Random numbers as the type stores them, and the same as floats. NaNs surround them, so that a kernel that
// reads too far is found out.
static void *make_matrix(float **values, Type type, size_t n) {
    size_t margin = 64;
    float *padded = malloc((n + 2 * margin) * sizeof *padded);
    char *stored = malloc(bytes_of(type, n + 2 * margin));
    for (size_t i = 0; i < n + 2 * margin; i++)
        padded[i] = i < margin || i >= margin + n ? NAN : random_float();
    kernels.encode[type](stored, padded, n + 2 * margin);
    kernels.decode[type](padded, stored, n + 2 * margin);
    *values = padded;
    return stored;
}

enum { MARGIN = 64, ROWS = 13, MOST_T = 17, STRIDE = ROWS + 3 };

static void test_matmul(Type type, int cols) {
    static const int lengths[] = { 1, 3, MOST_T };
    float *w, *x = random_floats((size_t)MOST_T * cols), out[MOST_T * STRIDE], alone[MOST_T * STRIDE];
    char *stored = make_matrix(&w, type, (size_t)ROWS * cols);
    const char *matrix = stored + bytes_of(type, MARGIN);
    for (int k = 0; k < 3; k++) {
        int T = lengths[k];
        for (int i = 0; i < MOST_T * STRIDE; i++) out[i] = 12345;
        kernels.matmul[type](out, STRIDE, matrix, x, cols, T, 0, ROWS);
        for (int t = 0; t < MOST_T; t++)
            for (int r = 0; r < STRIDE; r++) {
                float got = out[t * STRIDE + r];
                if (t >= T || r >= ROWS) {
                    CHECK(got == 12345, "%s wrote to row %d of token %d", type_names[type], r, t);
                    continue;
                }
                double want = 0, size = 0;
                for (int c = 0; c < cols; c++) {
                    double product = (double)w[MARGIN + r * cols + c] * x[t * cols + c];
                    want += product, size += fabs(product);
                }
                CHECK(near(got, want, size * (cols + 1) * 0x1p-24),
                      "%s, %d columns, T %d, row %d: wanted %.9g, got %.9g", type_names[type], cols, T, r,
                      want, got);
            }
        // One element is always the same sum, whichever rows and tokens are asked for beside it.
        for (int begin = 0; begin < ROWS; begin += 4)
            for (int end = begin; end <= ROWS; end += 3)
                for (int t = 0; t < T; t += 5) {
                    int few = T - t < 2 ? 1 : 2;
                    for (int i = 0; i < MOST_T * STRIDE; i++) alone[i] = 12345;
                    kernels.matmul[type](alone, STRIDE, matrix, x + (size_t)t * cols, cols, few, begin, end);
                    for (int u = 0; u < few; u++)
                        for (int r = 0; r < ROWS; r++) {
                            float want = r >= begin && r < end ? out[(t + u) * STRIDE + r] : 12345;
                            CHECK(alone[u * STRIDE + r] == want,
                                  "%s, %d columns: rows %d to %d of token %d: row %d is %.9g, "
                                  "%.9g in the whole",
                                  type_names[type], cols, begin, end, t + u, r, alone[u * STRIDE + r], want);
                        }
                }
    }
    free(w), free(x), free(stored);
}

static void test_mix(Type type, int cols) {
    static const int heights[] = { 0, 1, 2, 9, 130 };
    for (int k = 0; k < 5; k++) {
        int rows = heights[k];
        float *w, *scale = random_floats((size_t)rows + 1), *out = malloc((cols + 1) * sizeof *out);
        char *stored = make_matrix(&w, type, (size_t)rows * cols);
        out[cols] = 12345;
        kernels.mix[type](out, scale, stored + bytes_of(type, MARGIN), rows, cols);
        CHECK(out[cols] == 12345, "mix %s of %d columns wrote one more", type_names[type], cols);
        for (int c = 0; c < cols; c++) {
            double want = 0, size = 0;
            for (int r = 0; r < rows; r++) {
                double product = (double)scale[r] * w[MARGIN + r * cols + c];
                want += product, size += fabs(product);
            }
            CHECK(near(out[c], want, size * (rows + 1) * 0x1p-24),
                  "mix %s, %d x %d, column %d: wanted %.9g, got %.9g", type_names[type], rows, cols, c, want,
                  out[c]);
        }
        free(w), free(scale), free(out), free(stored);
    }
}

int main(void) {
    CHECK(!choose_kernels("none of this name"), "kernels of an invented name were found");
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        if (!choose_kernels(sets[i])) continue;
        CHECK(!strcmp(kernels.name, sets[i]), "asked for %s, got %s", sets[i], kernels.name);
        test_decode_halves();
        test_encode_halves();
        test_floats_stay();
        for (int type = 0; type < N_TYPES; type++)
            for (int cols = 1; cols <= 40; cols++) {
                test_matmul((Type)type, cols);
                test_mix((Type)type, cols);
            }
    }
    CHECK(choose_kernels(NULL), "no kernels for this CPU");
    return finish("test_kernels");
}
