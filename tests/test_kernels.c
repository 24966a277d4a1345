// test_kernels.c - how numbers are stored, for every set of kernels this CPU can run: half precision and the
// blocks of every quantized format to the bit, and the rounding of inputs. Products: test_products.c.
//
//   test_kernels [FOLDER]      also TYPE.q of this folder against its TYPE.f32, by another engine
#include "test.h"

static const char *const sets[] = { "portable", "avx2", "avx512", "neon", "neon-dot" };

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
    const Matrix table = matrix(F16, 256, 256, halves);
    for (int i = 0; i < 65536; i++) halves[i] = (uint16_t)i;
    for (int row = 0; row < 256; row++) kernels.decode[F16](floats + 256 * row, &table, row);
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

// Many at once are what they are one by one, and no more are written.
static void test_encode_lengths(void) {
    for (int n = 0; n <= 70; n++) {
        float *x = random_floats((size_t)n);
        uint16_t *halves = malloc((n + 1) * sizeof *halves);
        halves[n] = 12345;
        kernels.encode[F16](halves, x, n);
        for (int i = 0; i < n; i++)
            CHECK(halves[i] == encoded(x[i]), "%d halves: number %d, %.9g: wanted %04x, got %04x", n, i, x[i],
                  encoded(x[i]), halves[i]);
        CHECK(halves[n] == 12345, "%d halves: one more is written", n);
        free(x), free(halves);
    }
}

static void test_other_floats(void) {
    float in[5] = { 1, -0.0f, 1e-42f, INFINITY, -3e38f }, stored[5], out[5];
    kernels.encode[F32](stored, in, 5);
    const Matrix floats = matrix(F32, 1, 5, stored),
                 uppers = matrix(BF16, 1, 5, (const uint16_t[]){ 0x3f80, 0x8000, 0x0001, 0x7f80, 0xc049 });
    kernels.decode[F32](out, &floats, 0);
    CHECK(!memcmp(in, stored, sizeof in) && !memcmp(in, out, sizeof in), "an F32 is not stored as it is");
    kernels.decode[BF16](out, &uppers, 0);              // 0x40490fdb is pi; its upper half 1.5703125 * 2
    const float want[] = { 1, -0.0f, 0x1p-133f, INFINITY, -3.140625f };
    CHECK(!memcmp(out, want, sizeof want), "wanted 1 -0 %g inf -3.140625, got %g %g %g %g %g", 0x1p-133,
          out[0], out[1], out[2], out[3], out[4]);
}

// ---------------------------------------------------------------------------- blocks, one number at a time
//
// ggml's definitions (ggml-common.h, ggml-quants.c, and quants.py of the Python package gguf, whose pictures
// of the packed scales these are). In double every product below is exact, and so is every sum: each has at
// most 51 bits, so that rounding it to a float is rounding once, as in ggml.

static int nibble(const uint8_t *bytes, int i, int upper) { return bytes[i] >> 4 * upper & 15; }
static double half_at(const uint8_t *bytes) { return value_of((uint16_t)(bytes[0] | bytes[1] << 8)); }

// The 6 bits of scale `letter`: two letters side by side are its upper two bits, four its lower four.
static int pictured(const char *const *picture, const uint8_t *bytes, char letter) {
    int value = 0;
    for (int b = 0; b < 12; b++) {
        int width = 0, shift = 0;
        for (int bit = 0; bit < 8; bit++)               // the first letter of a byte is its uppermost bit
            if (picture[b][7 - bit] == letter) shift = width++ ? shift : bit;
        int bits = bytes[b] >> shift & ((1 << width) - 1);
        value |= width == 2 ? bits << 4 : bits;
    }
    return value;
}

static const char *const picture_q3_k[] = { "IIIIAAAA", "JJJJBBBB", "KKKKCCCC", "LLLLDDDD",
                                            "MMMMEEEE", "NNNNFFFF", "OOOOGGGG", "PPPPHHHH",
                                            "MMIIEEAA", "NNJJFFBB", "OOKKGGCC", "PPLLHHDD" };
static const char *const picture_q4_k[] = { "EEAAAAAA", "FFBBBBBB", "GGCCCCCC", "HHDDDDDD",
                                            "eeaaaaaa", "ffbbbbbb", "ggcccccc", "hhdddddd",
                                            "eeeeEEEE", "ffffFFFF", "ggggGGGG", "hhhhHHHH" };

// 32 numbers: the first 16 in the lower halves of 16 bytes, the others in the upper ones. 5 bits: a fifth in
// `high`.
static int small_q(const uint8_t *q, int i) { return nibble(q, i % 16, i / 16); }
static int fifth(const uint8_t *high, int i) { return (high[i / 8] >> i % 8 & 1) * 16; }

static double number_of(Type type, const uint8_t *b, int i) {
    static const int steps[] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };
    // Superblocks: 128 numbers to an n, 32 to a k, 32 to a part, 16 to a scale.
    int n = i / 128, k = i % 128 / 32, l = i % 32, part = i / 32, scale = i / 16;
    char letter = (char)(part + 'A');
    switch (type) {
    case Q8_0:   return half_at(b) * (int8_t)b[2 + i];
    case Q4_0:   return half_at(b) * (small_q(b + 2, i) - 8);
    case Q4_1:   return half_at(b) * small_q(b + 4, i) + half_at(b + 2);
    case Q5_0:   return half_at(b) * (small_q(b + 6, i) + fifth(b + 2, i) - 16);
    case Q5_1:   return half_at(b) * (small_q(b + 8, i) + fifth(b + 4, i)) + half_at(b + 2);
    case IQ4_NL: return half_at(b) * steps[small_q(b + 2, i)];
    case Q2_K:   // scales[16] q[64] d dmin
        return half_at(b + 80) * (b[scale] & 15) * (b[16 + 32 * n + l] >> 2 * k & 3) -
               half_at(b + 82) * (b[scale] >> 4);
    case Q3_K: { // high[32] q[64] scales[12] d; without its high bit a number is 4 less
        int q = (b[32 + 32 * n + l] >> 2 * k & 3) - (b[l] >> part & 1 ? 0 : 4);
        return half_at(b + 108) * (pictured(picture_q3_k, b + 96, (char)(scale + 'A')) - 32) * q;
    }
    case Q4_K:   // d dmin scales[12] q[128]
    case Q5_K: { // d dmin scales[12] high[32] q[128]
        const uint8_t *q = type == Q4_K ? b + 16 : b + 48;
        int high = type == Q4_K ? 0 : (b[16 + l] >> part & 1) * 16;
        double d = half_at(b) * pictured(picture_q4_k, b + 4, letter);
        double m = half_at(b + 2) * pictured(picture_q4_k, b + 4, (char)(letter - 'A' + 'a'));
        return d * (nibble(q, i / 64 * 32 + l, i / 32 % 2) + high) - m;
    }
    case Q6_K: { // q[128] high[64] scales[16] d
        int q = nibble(b, 64 * n + 32 * (k % 2) + l, k / 2) | (b[128 + 32 * n + l] >> 2 * k & 3) << 4;
        return half_at(b + 208) * (int8_t)b[192 + scale] * (q - 32);
    }
    default:     return NAN;
    }
}

enum { WIDTH = 512 };                                   // numbers of a row: at least two blocks

static void check_row(const char *what, const Matrix *w, int row) {
    float got[WIDTH + 1];
    int block = formats[w->type].block, bytes = layouts[w->type].bytes;
    got[WIDTH] = 12345;
    kernels.decode[w->type](got, w, row);
    CHECK(got[WIDTH] == 12345, "%s: one number more is written", formats[w->type].name);
    const uint8_t *blocks = (const uint8_t *)w->data + (size_t)row * (WIDTH / block) * bytes;
    for (int i = 0; i < WIDTH; i++) {
        float want = (float)number_of(w->type, blocks + i / block * bytes, i % block);
        CHECK(isnan(want) ? isnan(got[i]) : !memcmp(&got[i], &want, sizeof want),
              "%s, %s, row %d, number %d: wanted %.9g, got %.9g", formats[w->type].name, what, row, i, want,
              got[i]);
    }
}

static void test_random_blocks(Type type) {
    enum { ROWS = 40 };
    void *data = random_numbers(type, ROWS * WIDTH);
    const Matrix w = matrix(type, ROWS, WIDTH, data);
    for (int r = 0; r < ROWS; r++) check_row("random", &w, r);
    free(data);
}

// Every byte the same, with every odd scale: zeros, subnormal ones, the largest, infinity and NaN.
static void test_odd_blocks(Type type) {
    static const uint8_t fills[] = { 0x00, 0xff, 0x80, 0x7f, 0x0f, 0xf0, 0x55, 0xaa };
    static const uint16_t scales[] = { 0,      0x8000, 1,      0x8001, 0x03ff, 0x0400,
                                       0x3c00, 0xbc00, 0x7bff, 0xfbff, 0x7c00, 0x7e00 };
    enum { FILLS = sizeof fills, SCALES = sizeof scales / sizeof *scales };
    const Layout *l = &layouts[type];
    size_t size = bytes_of(type, WIDTH);
    uint8_t *data = malloc(size);
    const Matrix w = matrix(type, 1, WIDTH, data);
    for (int k = 0; k < FILLS * SCALES * SCALES; k++) {
        memset(data, fills[k % FILLS], size);
        for (size_t b = 0; b < size; b += (size_t)l->bytes) {
            memcpy(data + b + l->scale, &scales[k / FILLS % SCALES], 2);
            if (l->offset >= 0) memcpy(data + b + l->offset, &scales[k / FILLS / SCALES], 2);
        }
        check_row("odd", &w, 0);
        if (l->offset < 0 && k + 1 == FILLS * SCALES) break;
    }
    free(data);
}

// 4-bit numbers 0 to 15 and back, d = 0.5, worked out by hand.
static void test_block_by_hand(void) {
    uint8_t block[18] = { 0x00, 0x38 };                 // 0.5 as a half is 0x3800
    float got[32];
    for (int i = 0; i < 16; i++) block[2 + i] = (uint8_t)(i | (15 - i) << 4);
    const Matrix w = matrix(Q4_0, 1, 32, block);
    kernels.decode[Q4_0](got, &w, 0);
    for (int i = 0; i < 32; i++) {
        float want = i < 16 ? (float)i / 2 - 4 : (float)(31 - i) / 2 - 4;
        CHECK(got[i] == want, "Q4_0 [%d]: wanted %g, got %g", i, want, got[i]);
    }
}

static void test_sizes(void) {
    CHECK(bytes_of(F32, 3) == 12 && bytes_of(F16, 3) == 6 && bytes_of(BF16, 3) == 6 &&
              bytes_of(Q8_PLANE, 3) == 3,
          "3 numbers take %zu, %zu, %zu and %zu bytes", bytes_of(F32, 3), bytes_of(F16, 3), bytes_of(BF16, 3),
          bytes_of(Q8_PLANE, 3));
    for (int type = Q8_0; type < Q8_PLANE; type++) {
        size_t want = WIDTH / (type < Q2_K ? 32 : 256) * (size_t)layouts[type].bytes;
        CHECK(bytes_of((Type)type, WIDTH) == want, "%d of %s: wanted %zu bytes, got %zu", WIDTH,
              formats[type].name, want, bytes_of((Type)type, WIDTH));
    }
    Matrix w = { Q8_PLANE, 6, 20, NULL, NULL, 4 };      // 120 numbers, 30 scales
    CHECK(matrix_bytes(&w) == 120 + 30 * 4, "6 x 20 in groups of 4: wanted 240 bytes, got %zu",
          matrix_bytes(&w));
    w = matrix(Q6_K, 3, 512, NULL);
    CHECK(matrix_bytes(&w) == 3 * 2 * 210, "3 x 512 of Q6_K: wanted 1260 bytes, got %zu", matrix_bytes(&w));
}

// ---------------------------------------------------------------------------- another engine's blocks

static void *read_all(const char *folder, const char *name, const char *suffix, size_t size) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s%s", folder, name, suffix);
    FILE *f = fopen(path, "rb");
    char *bytes = malloc(size + 1);
    size_t n = f ? fread(bytes, 1, size + 1, f) : 0;
    CHECK(n == size, "%s: wanted %zu bytes, got %zu", path, size, n);
    if (f) fclose(f);
    if (n == size) return bytes;
    free(bytes);
    return NULL;
}

static void test_golden(const char *folder) {
    static const struct { const char *name; Type type; } files[] = {
        { "f16", F16 },   { "bf16", BF16 }, { "q8_0", Q8_0 }, { "q4_0", Q4_0 }, { "q4_1", Q4_1 },
        { "q5_0", Q5_0 }, { "q5_1", Q5_1 }, { "iq4_nl", IQ4_NL }, { "q2_K", Q2_K }, { "q3_K", Q3_K },
        { "q4_K", Q4_K }, { "q5_K", Q5_K }, { "q6_K", Q6_K },
    };
    for (size_t k = 0; k < sizeof files / sizeof *files; k++) {
        Type type = files[k].type;
        size_t size = 8 * 256 / (size_t)formats[type].block * (size_t)layouts[type].bytes;
        void *data = read_all(folder, files[k].name, ".q", size);
        float *want = read_all(folder, files[k].name, ".f32", 8 * 256 * sizeof(float)), got[256];
        const Matrix w = matrix(type, 8, 256, data);
        for (int r = 0; r < 8 && data && want; r++) {
            kernels.decode[type](got, &w, r);
            for (int i = 0; i < 256; i++)
                CHECK(!memcmp(&got[i], &want[256 * r + i], sizeof *got),
                      "%s, row %d, number %d: wanted %.9g, got %.9g", files[k].name, r, i, want[256 * r + i],
                      got[i]);
        }
        free(data), free(want);
    }
}

// ---------------------------------------------------------------------------- inputs

static void test_quantize_by_hand(void) {
    // The largest is 127, so the scale is 1 and ties are to be seen: to the even neighbour.
    float x[64] = {
        127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 126.5f, 125.5f, -126.5f, 0.49f, -0.51f, -0.0f
    };
    const int want[64] = { 127, 0, 2, 2, 0, -2, -2, 126, 126, -126, 0, -1, 0 };
    x[32 + 5] = -2;                                     // the other block: scale 2 / 127
    x[32 + 31] = 1;                                     // 63.5: a tie, if it comes out exactly
    BlockX8 out[3] = { { 0 } };
    out[2].scale = 12345;
    kernels.quantize(out, x, 64);
    CHECK(out[0].scale == 1, "the largest is 127: wanted a scale of 1, got %.9g", out[0].scale);
    for (int i = 0; i < 32; i++)
        CHECK(out[0].q[i] == want[i], "%g: wanted %d, got %d", x[i], want[i], out[0].q[i]);
    CHECK(out[1].scale == 2.0f / 127, "the largest is 2: wanted %.9g, got %.9g", 2.0f / 127, out[1].scale);
    CHECK(out[1].q[5] == -127 && (out[1].q[31] == 63 || out[1].q[31] == 64), "-2 and 1: got %d and %d",
          out[1].q[5], out[1].q[31]);
    CHECK(out[2].scale == 12345, "a block more is written");

    memset(x, 0, sizeof x), memset(out, 0xa5, sizeof out);
    kernels.quantize(out, x, 32);
    CHECK(out[0].scale == 0, "zeros: the scale is %g", out[0].scale);
    for (int i = 0; i < 32; i++) CHECK(out[0].q[i] == 0, "a zero became %d", out[0].q[i]);
}

// Every number is off by half a step at most, the largest becomes 127 or -127.
static void test_quantize_random(void) {
    static const float sizes[] = { 1, 1e-3f, 1e-20f, 1e-28f, 1e-38f, 1e-42f, 1e20f, 3e38f };
    for (int k = 0; k < 8 * 200; k++) {
        float x[32], size = sizes[k % 8];
        double largest = 0;
        for (int i = 0; i < 32; i++) x[i] = size * random_float(), largest = worse(largest, fabs(x[i]));
        BlockX8 out;
        kernels.quantize(&out, x, 32);
        int most = 0, sums[2] = { 0 };
        for (int i = 0; i < 32; i++) {
            double step = largest / 127, got = (double)out.scale * out.q[i];
            // what is smaller than 2^-100 may become 0
            CHECK(near(got, x[i], step * 0.50002 + 0x1p-100), "%.9g of at most %.9g became %.9g", x[i],
                  largest, got);
            CHECK(out.q[i] > -128, "-128 has no counterpart");
            sums[i / 16] += out.q[i];
            most = abs(out.q[i]) > most ? abs(out.q[i]) : most;
        }
        CHECK(out.sums[0] == sums[0] && out.sums[1] == sums[1], "the halves add up to %d, %d, got %d, %d",
              sums[0], sums[1], out.sums[0], out.sums[1]);
        if (size > 1e-29f) CHECK(most == 127, "the largest of a block, %g, became %d", largest, most);
    }
}

static void test_quantize_damage(void) {
    static const float bad[] = { NAN, -NAN, INFINITY, -INFINITY };
    for (int k = 0; k < 4 * 32 * 2; k++) {
        float x[96];
        for (int i = 0; i < 96; i++) x[i] = k < 128 ? random_float() : 0;
        x[32 + k / 4 % 32] = bad[k % 4];
        BlockX8 out[3];
        kernels.quantize(out, x, 96);
        CHECK(isnan(out[1].scale), "a %g at %d leaves the scale %g", bad[k % 4], k / 4 % 32, out[1].scale);
        CHECK(isfinite(out[0].scale) && isfinite(out[2].scale), "a %g reaches the blocks beside it",
              bad[k % 4]);
    }
}

int main(int argc, char **argv) {
    CHECK(!choose_kernels("none of this name"), "kernels of an invented name were found");
    test_sizes();
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        if (!choose_kernels(sets[i])) continue;
        CHECK(!strcmp(kernels.name, sets[i]), "asked for %s, got %s", sets[i], kernels.name);
        test_decode_halves();
        test_encode_halves();
        test_encode_lengths();
        test_other_floats();
        test_block_by_hand();
        for (int type = Q8_0; type < Q8_PLANE; type++)
            test_random_blocks((Type)type), test_odd_blocks((Type)type);
        test_quantize_by_hand();
        test_quantize_random();
        test_quantize_damage();
        if (argc > 1) test_golden(argv[1]);
    }
    CHECK(choose_kernels(NULL), "no kernels for this CPU");
    return finish("test_kernels");
}
