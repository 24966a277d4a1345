// test_products.c - products with matrices of every type, for every set of kernels this CPU can run: against
// double, and the same bits however rows are shared out.
//
//   test_products [--bench [TYPE]]     what is checked is also timed, on one thread; TYPE: no other
#include "test.h"

static const char *const sets[] = { "portable", "avx2", "avx512", "neon", "neon-dot" };

// ---------------------------------------------------------------------------- a case

// A matrix, what it holds in double, and an input in both forms. NaNs surround all of it, as all ones are NaN
// in every format's scale, so that a kernel that reads too far is found out; sanitizers guard the end.
enum { MARGIN = 256, BEHIND = SANITIZED ? 0 : MARGIN };

typedef struct {
    Matrix w;
    int T;
    uint8_t *stored, *scales;                           // with their margins
    float *values;                                      // (rows, cols)
    float *parts;                                       // (rows, cols)  |scale's part| + |offset's part|
    float *x;                                           // (T, cols)
    BlockX8 *x8;
    double *input;                                      // (T, cols)  what the kernel is to multiply with
    float *out;                                         // (T + 1, rows + 3)  12345 where it has no business
} Case;

static int stride_of(const Case *c) { return c->w.rows + 3; }
static size_t out_bytes(const Case *c) { return (size_t)(c->T + 1) * stride_of(c) * sizeof(float); }

static void add_input(Case *c, float (*number)(int i)) {
    size_t n = (size_t)c->T * c->w.cols, margin = MARGIN / BLOCK;
    size_t size = (MARGIN + n + BEHIND) * sizeof *c->x;
    size_t size8 = (MARGIN + n + BEHIND) / BLOCK * sizeof *c->x8;
    c->x = memset(malloc(size), 0xff, size);
    c->x8 = memset(malloc(size8), 0xff, size8);
    c->input = malloc(n * sizeof *c->input);
    for (size_t i = 0; i < n; i++) c->x[MARGIN + i] = number((int)i);
    bool blocks = formats[c->w.type].int8_input;
    if (blocks) kernels.quantize(c->x8 + margin, c->x + MARGIN, n);
    for (size_t i = 0; i < n; i++) {
        const BlockX8 *block = &c->x8[margin + i / BLOCK];
        c->input[i] = blocks ? (double)block->scale * block->q[i % BLOCK] : c->x[MARGIN + i];
    }
}

// How the bytes of a matrix differ from random ones around sensible scales.
typedef struct {
    int fill;               // every byte but the scales'; -1: random
    int scale;              // of every block, the bits of a half; -1: random
    int group, shift;       // of a Q8_PLANE: columns to a scale; how far the scales are from alignment
} Odd;
static const Odd plain = { -1, -1, 0, 0 };

static bool is_scale(Type type, size_t byte) {
    const Layout *l = &layouts[type];
    int at = type == Q8_PLANE ? 0 : (int)(byte % (size_t)l->bytes) & ~1;
    return type != Q8_PLANE && l->scale >= 0 && (at == l->scale || at == l->offset);
}

// What a kernel adds up are scale and offset, apart; together they may be next to nothing. Without its scale
// a block is all offset.
static void add_parts(Case *c) {
    const Layout *l = &layouts[c->w.type];
    size_t n = (size_t)c->w.rows * c->w.cols, size = bytes_of(c->w.type, n);
    c->parts = malloc(n * sizeof *c->parts + 1);
    for (size_t i = 0; i < n; i++) c->parts[i] = fabsf(c->values[i]);
    if (c->w.type == Q8_PLANE || l->scale < 0 || l->offset < 0) return;
    uint8_t *offsets = malloc(size + 1);
    float *offset = malloc(c->w.cols * sizeof *offset + 1);
    memcpy(offsets, c->w.data, size);
    for (size_t i = 0; i < size; i++)
        if ((int)(i % (size_t)l->bytes & ~1ul) == l->scale) offsets[i] = 0;
    Matrix w = { c->w.type, c->w.rows, c->w.cols, offsets, NULL, 0 };
    for (int r = 0; r < w.rows; r++) {
        float *parts = c->parts + (size_t)r * w.cols, *values = c->values + (size_t)r * w.cols;
        kernels.decode[w.type](offset, &w, r);
        for (int i = 0; i < w.cols; i++) parts[i] = fabsf(values[i] - offset[i]) + fabsf(offset[i]);
    }
    free(offsets), free(offset);
}

static void add_matrix(Case *c, Odd odd) {
    Matrix *w = &c->w;
    size_t n = (size_t)w->rows * w->cols, margin = bytes_of(w->type, MARGIN), size = bytes_of(w->type, n);
    size_t stored = margin + size + bytes_of(w->type, BEHIND);
    c->stored = memset(malloc(stored), 0xff, stored);
    w->data = c->stored + margin;
    uint8_t *numbers = w->type == Q8_PLANE ? malloc(n + 1) : random_numbers(w->type, n);
    for (size_t i = 0; i < size; i++) {
        if (w->type == Q8_PLANE) numbers[i] = (uint8_t)(random_bits() >> 9);
        if (odd.fill >= 0 && !is_scale(w->type, i)) numbers[i] = (uint8_t)odd.fill;
        if (odd.scale >= 0 && is_scale(w->type, i)) numbers[i] = (uint8_t)(odd.scale >> i % 2 * 8);
    }
    memcpy(c->stored + margin, numbers, size);
    free(numbers);
    if (odd.group) {
        size_t scales = MARGIN + odd.shift + n / odd.group * sizeof(float) + BEHIND;
        c->scales = memset(malloc(scales), 0xff, scales);
        w->scales = c->scales + MARGIN + odd.shift;
        for (size_t i = 0; i < n / odd.group; i++) {
            float f = random_float();
            memcpy(c->scales + MARGIN + odd.shift + i * sizeof f, &f, sizeof f);
        }
    }
    c->values = malloc(n * sizeof *c->values + 1);
    for (int r = 0; r < w->rows; r++) kernels.decode[w->type](c->values + (size_t)r * w->cols, w, r);
    add_parts(c);
}

static Case make_case(Type type, int rows, int cols, int T, Odd odd, float (*number)(int i)) {
    Case c = { .w = { type, rows, cols, NULL, NULL, odd.group }, .T = T };
    add_matrix(&c, odd);
    add_input(&c, number);
    c.out = malloc(out_bytes(&c));
    return c;
}

static void free_case(Case *c) {
    free(c->stored), free(c->scales), free(c->values), free(c->parts), free(c->x), free(c->x8);
    free(c->input), free(c->out);
}

// ---------------------------------------------------------------------------- products

static void run_kernel(float *out, const Case *c, int begin, int end) {
    for (size_t i = 0; i < out_bytes(c) / sizeof *out; i++) out[i] = 12345;
    const void *x = c->x + MARGIN;
    if (formats[c->w.type].int8_input) x = c->x8 + MARGIN / BLOCK;
    kernels.matmul[c->w.type](out, stride_of(c), &c->w, x, c->T, begin, end);
}

// Floats are rounded with every product and every sum, blocks are summed exactly first.
static double rounding(const Case *c, int r, int t) {
    double inputs = 0, weights = 0;
    for (int i = 0; i < c->w.cols; i++) {
        inputs += fabs(c->input[(size_t)t * c->w.cols + i]);
        weights = worse(weights, c->parts[(size_t)r * c->w.cols + i]);
    }
    int steps = formats[c->w.type].int8_input ? c->w.cols / 8 + 16 : c->w.cols + 8;
    return weights * inputs * steps * 0x1p-24;
}

static void check_product(const Case *c) {
    const char *name = formats[c->w.type].name;
    int cols = c->w.cols;
    run_kernel(c->out, c, 0, c->w.rows);
    for (int t = 0; t <= c->T; t++)
        for (int r = 0; r < stride_of(c); r++) {
            float got = c->out[t * stride_of(c) + r];
            if (t >= c->T || r >= c->w.rows) {
                CHECK(got == 12345, "%s, T %d, wrote to row %d of token %d", name, c->T, r, t);
                continue;
            }
            double want = 0;
            for (int i = 0; i < cols; i++)
                want += (double)c->values[(size_t)r * cols + i] * c->input[(size_t)t * cols + i];
            CHECK(near(got, want, rounding(c, r, t)),
                  "%s, %s, %d x %d in groups of %d, T %d, row %d of token %d: wanted %.9g, got %.9g",
                  kernels.name, name, c->w.rows, cols, c->w.group, c->T, r, t, want, got);
        }
}

// One element is always the same sum, whichever rows are asked for beside it. With other tokens beside it, it
// may be another: what is best for one token is not what is best for many.
static void check_shares(const Case *c) {
    float *part = malloc(out_bytes(c));
    int rows = c->w.rows;
    for (int k = 0; k < 8; k++) {
        int begin = k == 0 ? rows - 1 : random_below(rows), end = begin + random_below(rows - begin + 1);
        if (k < 2) end = begin + 1;
        run_kernel(part, c, begin, end);
        for (int t = 0; t <= c->T; t++)
            for (int r = 0; r < stride_of(c); r++) {
                int i = t * stride_of(c) + r;
                float want = t < c->T && r >= begin && r < end ? c->out[i] : 12345;
                CHECK(!memcmp(&part[i], &want, sizeof want),
                      "%s, %s, %d x %d, T %d, only rows %d to %d: row %d of token %d: wanted %.9g, got %.9g",
                      kernels.name, formats[c->w.type].name, rows, c->w.cols, c->T, begin, end, r, t, want,
                      part[i]);
            }
    }
    free(part);
}

static float any(int i) { (void)i; return random_float(); }
static float ones(int i) { (void)i; return 1; }
static float minus_ones(int i) { (void)i; return -1; }
static float alternating(int i) { return i % 2 ? -1 : 1; }
static float gaps(int i) { return i / BLOCK % 2 ? 0 : random_float(); }

static bool benching;

// The best of some batches, each long enough for the clock. The weights lie in a cache by then.
static void time_product(const Case *c) {
    const void *x = c->x + MARGIN;
    if (formats[c->w.type].int8_input) x = c->x8 + MARGIN / BLOCK;
    double best = INFINITY;
    for (int batch = 0, n = 1; batch < 5;) {
        double started = seconds();
        for (int i = 0; i < n; i++)
            kernels.matmul[c->w.type](c->out, stride_of(c), &c->w, x, c->T, 0, c->w.rows);
        double taken = seconds() - started;
        if (taken < 1e-4) { n *= 2; continue; }
        best = taken / n < best ? taken / n : best;
        batch++;
    }
    printf("%-8s %-8s %4d x %4d %4d %9.2f %12.2f\n", kernels.name, formats[c->w.type].name, c->w.rows,
           c->w.cols, c->T, (double)matrix_bytes(&c->w) / best / 1e9,
           (double)c->w.rows * c->w.cols * c->T / best / 1e9);
}

static void test_shape(Type type, int rows, int cols, int T, Odd odd, float (*number)(int i)) {
    Case c = make_case(type, rows, cols, T, odd, number);
    check_product(&c);
    check_shares(&c);
    bool ordinary = odd.fill < 0 && odd.scale < 0 && number == any, worth_it = rows * cols * T >= 1 << 14;
    if (benching && ordinary && worth_it) time_product(&c);
    free_case(&c);
}

// The largest integers there are, where sums of 16 bits would overflow: -128 times 127.
static void test_extremes(Type type, int cols) {
    static const int fills[] = { 0xff, 0x80, 0x7f, 0x00, 0x88, 0x0f };
    static float (*const inputs[])(int) = { ones, minus_ones, alternating, gaps };
    for (int k = 0; k < 6 * 4; k++)
        for (int T = 1; T <= 9; T += 4)
            test_shape(type, 17, cols, T, (Odd){ fills[k / 4], -1, 0, 0 }, inputs[k % 4]);
}

// 0, subnormal ones, and the largest.
static void test_scales(Type type, int cols) {
    static const int scales[] = { 0, 0x0001, 0x8001, 0x03ff, 0x0400, 0x7bff, 0xfbff };
    for (int k = 0; k < 7; k++)
        for (int T = 1; T <= 9; T += 4) test_shape(type, 3, cols, T, (Odd){ -1, scales[k], 0, 0 }, any);
}

// A NaN or an infinity in the input reaches every row, and no other token.
static void test_damage(Type type, int cols, int group) {
    static const float bad[] = { NAN, INFINITY, -INFINITY };
    static const int lengths[] = { 2, 3, 9, 20 };
    for (int k = 0; k < 3 * 4; k++) {
        Case c = make_case(type, 5, cols, lengths[k / 3], (Odd){ -1, -1, group, 0 }, any);
        c.x[MARGIN + cols + cols / 2] = bad[k % 3];     // of the second token
        if (formats[type].int8_input)
            kernels.quantize(c.x8 + MARGIN / BLOCK, c.x + MARGIN, (size_t)c.T * cols);
        run_kernel(c.out, &c, 0, 5);
        for (int t = 0; t < c.T; t++)
            for (int r = 0; r < 5; r++)
                CHECK(!isfinite(c.out[t * stride_of(&c) + r]) == (t == 1),
                      "%s, %s: a %g in the input of token 1: row %d of token %d of %d is %g", kernels.name,
                      formats[type].name, bad[k % 3], r, t, c.T, c.out[t * stride_of(&c) + r]);
        free_case(&c);
    }
}

// Kernels have tiles of rows and of tokens, and take columns by the piece: every number here leaves a rest in
// most of them.
static void test_shapes(Type type) {
    static const int heights[] = { 1, 3, 5, 13, 31, 33, 67, 130 }, lengths[] = { 1, 2, 3, 6, 7, 8, 17, 64 };
    int block = formats[type].block, widths[] = { block, 2 * block, 3 * block, 5 * block, 9 * block };
    for (int k = 0; k < 8; k++)
        for (int i = 0; i < 8; i++)
            test_shape(type, heights[k], widths[(i + k) % (block == SUPER ? 3 : 5)], lengths[i], plain, any);
    int wide = block == SUPER ? 4096 + SUPER : 4096 + BLOCK + (block == 1);
    static const struct { int rows, T; } large[] = { { 1, 1 }, { 5, 3 }, { 18, 2 }, { 3, 9 }, { 33, 17 } };
    for (int i = 0; i < (SANITIZED ? 3 : 5); i++)
        test_shape(type, large[i].rows, wide, large[i].T, plain, any);
    test_shape(type, 6, 4096 + wide, 2, plain, any);
    test_shape(type, 33, block == 1 ? 67 : block, SANITIZED ? 64 : 512, plain, any);
}

// Real models have such: to write, for some tokens, and to read a prompt.
static void test_real_shapes(Type type) {
    static const int lengths[] = { 1, 8, 64 };
    for (int i = 0; i < 3; i++)
        test_shape(type, 256, 2048, lengths[i], (Odd){ -1, -1, type == Q8_PLANE ? 32 : 0, 0 }, any);
}

static void test_type(Type type) {
    if (type == Q8_PLANE) {
        static const int groups[] = { 1, 4, 32, 64 }, lengths[] = { 1, 2, 3, 7, 17 };
        for (int k = 0; k < 4; k++)
            for (int wide = 1; wide <= 5; wide += 2)
                for (int shift = 0; shift < 4; shift++)
                    for (int i = 0; i < 5; i++) {
                        Odd odd = { -1, -1, groups[k], shift };
                        test_shape(type, 13, wide * groups[k], lengths[i], odd, any);
                    }
        test_shape(type, 1, 4, 3, (Odd){ -1, -1, 4, 1 }, any);
        test_damage(type, 64, 4);
        return;
    }
    test_shapes(type);
    int cols = formats[type].block == 1 ? 40 : 2 * formats[type].block;
    test_damage(type, cols, 0);
    if (formats[type].int8_input) test_extremes(type, cols), test_scales(type, cols);
    else
        for (cols = 1; cols <= 40; cols++)
            for (int T = 1; T <= 17; T += 8) test_shape(type, 13, cols, T, plain, any);
}

// ---------------------------------------------------------------------------- mixtures of rows

// Mixtures of the first `cols` columns are added to what is there, and what lies beyond is left alone. Scales
// lie further apart than there are rows, NaN between them; and results further apart than rows are long.
static void test_mix(Type type, int rows, int width, int cols, int T) {
    Case c = make_case(type, rows, width, T, plain, any);
    int pitch = rows + 3, stride = width + 5;
    size_t n = (size_t)T * stride;
    float *scale = random_floats((size_t)T * pitch);
    float *out = random_floats(n + 1), *before = malloc((n + 1) * sizeof *before);
    for (int t = 0; t < T; t++)
        for (int r = rows; r < pitch; r++) scale[(size_t)t * pitch + r] = NAN;
    out[n] = 12345;
    memcpy(before, out, n * sizeof *out);
    kernels.mix[type](out, stride, &c.w, cols, scale, pitch, T);
    CHECK(out[n] == 12345, "%s, mix %s of %d columns wrote one more", kernels.name, formats[type].name, cols);
    for (size_t i = 0; i < n; i++) {
        int t = (int)(i / (size_t)stride), col = (int)(i % (size_t)stride);
        double want = before[i], size = col < cols ? fabs(want) : 0;
        for (int r = 0; r < rows && col < cols; r++) {
            double product = (double)scale[(size_t)t * pitch + r] * c.values[(size_t)r * width + col];
            want += product, size += fabs(product);
        }
        CHECK(near(out[i], want, size * (rows + 1) * 0x1p-24),
              "%s, mix %s, %d columns of %d x %d, column %d of token %d of %d: wanted %.9g, got %.9g",
              kernels.name, formats[type].name, cols, rows, width, col, t, T, want, out[i]);
    }
    free(scale), free(out), free(before), free_case(&c);
}

static void test_mixtures(Type type) {
    static const int heights[] = { 0, 1, 2, 9, 63, 64, 65, 130 };
    static const int lengths[] = { 1, 2, 3, 4, 5, 8, 9, 17, 130 };
    static const int widths[] = { 1, 3, 8, 15, 17, 24, 31, 33, 64, 80, 128, 200, 256 };
    for (int i = 0; i < 8; i++)
        for (int k = 0; k < 9; k++)
            for (int j = (i + k) % 3; j < 13; j += 3)
                test_mix(type, heights[i], widths[j], widths[j], lengths[k]);
    for (int cols = 1; cols <= 40; cols++)
        test_mix(type, 9, cols, cols, 1 + cols % 7), test_mix(type, 9, 128, cols, 1 + cols % 7);
    for (int T = 1; T <= (SANITIZED ? 20 : 130); T++)
        test_mix(type, 5, 13, 13, T), test_mix(type, 5, 80, 65, T);
}

int main(int argc, char **argv) {
    benching = argc > 1 && !strcmp(argv[1], "--bench");
    const char *only = argc > 2 ? argv[2] : NULL;
    if (benching) puts("kernels  type     rows x cols    T      GB/s  G mul-add/s");
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        if (!choose_kernels(sets[i])) continue;
        for (int type = 0; type < N_TYPES; type++) {
            if (only && strcmp(only, formats[type].name)) continue;
            test_type((Type)type);
            if (benching) test_real_shapes((Type)type);
        }
    }
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        if (choose_kernels(sets[i])) test_mixtures(F32), test_mixtures(F16), test_mixtures(BF16);
    return finish("test_products");
}
