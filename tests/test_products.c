// test_products.c - products with matrices of every type, for every set of kernels this CPU can run: against
// double, and the same bits however rows are shared out.
#include "test.h"

static const char *const sets[] = { "portable", "avx2", "avx512", "neon" };

// ---------------------------------------------------------------------------- a case

enum { MOST_ROWS = 13, MOST_T = 17, STRIDE = MOST_ROWS + 3, MARGIN = 256 };

// A matrix, what it holds in double, and an input in both forms. NaNs surround all of it, as all ones are NaN
// in every format's scale, so that a kernel that reads too far is found out.
typedef struct {
    Matrix w;
    uint8_t *stored, *scales;                           // with their margins
    float *values;                                      // (rows, cols)
    float *x;                                           // (T, cols)
    BlockX8 *x8;
    double *input;                                      // (T, cols)  what the kernel is to multiply with
} Case;

static void add_input(Case *c, float (*number)(int i)) {
    size_t n = (size_t)MOST_T * c->w.cols, margin = MARGIN / BLOCK;
    c->x = malloc((n + 2 * MARGIN) * sizeof *c->x);
    c->x8 = malloc((n / BLOCK + 2 * margin) * sizeof *c->x8);
    c->input = malloc(n * sizeof *c->input);
    memset(c->x, 0xff, (n + 2 * MARGIN) * sizeof *c->x);
    memset(c->x8, 0xff, (n / BLOCK + 2 * margin) * sizeof *c->x8);
    for (size_t i = 0; i < n; i++) c->x[MARGIN + i] = number((int)i);
    bool blocks = formats[c->w.type].int8_input;
    if (blocks) kernels.quantize(c->x8 + margin, c->x + MARGIN, n);
    for (size_t i = 0; i < n; i++) {
        const BlockX8 *block = &c->x8[margin + i / BLOCK];
        c->input[i] = blocks ? (double)block->scale * block->q[i % BLOCK] : c->x[MARGIN + i];
    }
}

// fill: every byte but the scales', or -1: random ones. shift: how far the scales of a Q8_PLANE are from
// alignment.
static Case make_case(Type type, int rows, int cols, int group, int shift, int fill, float (*number)(int i)) {
    Case c = { .w = { type, rows, cols, NULL, NULL, group } };
    size_t n = (size_t)rows * cols, margin = bytes_of(type, MARGIN), size = bytes_of(type, n);
    c.stored = malloc(size + 2 * margin);
    memset(c.stored, 0xff, size + 2 * margin);
    uint8_t *numbers = type == Q8_PLANE ? malloc(n) : random_numbers(type, n);
    const Layout *l = &layouts[type];
    for (size_t i = 0; i < size; i++) {
        int at = type == Q8_PLANE ? 0 : (int)(i % (size_t)l->bytes);
        bool scale =
            type != Q8_PLANE && ((at & ~1) == l->scale || (l->offset >= 0 && (at & ~1) == l->offset));
        if (fill >= 0 && !scale) numbers[i] = (uint8_t)fill;
        else if (type == Q8_PLANE) numbers[i] = (uint8_t)(random_bits() >> 9);
    }
    memcpy(c.stored + margin, numbers, size);
    free(numbers);
    c.w.data = c.stored + margin;
    if (group) {
        size_t scales = n / group * sizeof(float);
        c.scales = malloc(scales + 2 * MARGIN);
        memset(c.scales, 0xff, scales + 2 * MARGIN);
        for (size_t i = 0; i < n / group; i++)
            memcpy(c.scales + MARGIN + shift + i * sizeof(float), &(float){ random_float() }, sizeof(float));
        c.w.scales = c.scales + MARGIN + shift;
    }
    c.values = malloc(n * sizeof *c.values);
    for (int r = 0; r < rows; r++) kernels.decode[type](c.values + (size_t)r * cols, &c.w, r);
    add_input(&c, number);
    return c;
}

static void free_case(Case *c) {
    free(c->stored), free(c->scales), free(c->values), free(c->x), free(c->x8), free(c->input);
}

static const void *input_at(const Case *c, int t) {
    size_t i = (size_t)t * c->w.cols;
    return formats[c->w.type].int8_input ? (const void *)(c->x8 + (MARGIN + i) / BLOCK) : c->x + MARGIN + i;
}

// ---------------------------------------------------------------------------- products

// out: as the kernel leaves it, 12345 where it has no business.
static void run_kernel(float *out, const Case *c, int first, int T, int begin, int end) {
    for (int i = 0; i < MOST_T * STRIDE; i++) out[i] = 12345;
    kernels.matmul[c->w.type](out, STRIDE, &c->w, input_at(c, first), T, begin, end);
}

static void check_product(const Case *c, const float *out, int T) {
    const char *name = formats[c->w.type].name;
    int cols = c->w.cols;
    for (int t = 0; t < MOST_T; t++)
        for (int r = 0; r < STRIDE; r++) {
            float got = out[t * STRIDE + r];
            if (t >= T || r >= c->w.rows) {
                CHECK(got == 12345, "%s wrote to row %d of token %d", name, r, t);
                continue;
            }
            double want = 0, inputs = 0, weights = 0;
            for (int i = 0; i < cols; i++) {
                double w = c->values[(size_t)r * cols + i], x = c->input[(size_t)t * cols + i];
                want += w * x, inputs += fabs(x), weights = worse(weights, fabs(w));
            }
            // float's rounding, of every product and every sum, and of what an offset may cancel
            CHECK(near(got, want, weights * inputs * (cols + 8) * 0x1p-24),
                  "%s, %d columns in groups of %d, T %d, row %d of token %d: wanted %.9g, got %.9g", name,
                  cols, c->w.group, T, r, t, want, got);
        }
}

// One element is always the same sum, whichever rows are asked for beside it. With other tokens beside it, it
// may be another: what is best for one token is not what is best for many.
static void check_shares(const Case *c, const float *whole, int T) {
    float part[MOST_T * STRIDE];
    for (int begin = 0; begin < c->w.rows; begin += 4)
        for (int end = begin; end <= c->w.rows; end += 3) {
            run_kernel(part, c, 0, T, begin, end);
            for (int t = 0; t < MOST_T; t++)
                for (int r = 0; r < STRIDE; r++) {
                    float want = t < T && r >= begin && r < end ? whole[t * STRIDE + r] : 12345;
                    CHECK(!memcmp(&part[t * STRIDE + r], &want, sizeof want),
                          "%s, %d columns, T %d, rows %d to %d: row %d of token %d: wanted %.9g, got %.9g",
                          formats[c->w.type].name, c->w.cols, T, begin, end, r, t, want,
                          part[t * STRIDE + r]);
                }
        }
}

static float any(int i) { (void)i; return random_float(); }
static float ones(int i) { (void)i; return 1; }
static float minus_ones(int i) { (void)i; return -1; }
static float alternating(int i) { return i % 2 ? -1 : 1; }

static void test_shape(Type type, int rows, int cols, int group, int shift) {
    static const int lengths[] = { 1, 2, 3, 7, MOST_T };
    Case c = make_case(type, rows, cols, group, shift, -1, any);
    float out[MOST_T * STRIDE];
    for (int k = 0; k < 5; k++) {
        run_kernel(out, &c, 0, lengths[k], 0, rows);
        check_product(&c, out, lengths[k]);
        check_shares(&c, out, lengths[k]);
    }
    free_case(&c);
}

// The largest integers there are, where sums of 16 bits would overflow: -128 times 127.
static void test_extremes(Type type, int cols) {
    static const int fills[] = { 0xff, 0x80, 0x7f, 0x00, 0x88, 0x0f };
    static float (*const inputs[])(int) = { ones, minus_ones, alternating };
    for (int k = 0; k < 6 * 3; k++) {
        Case c = make_case(type, 3, cols, 0, 0, fills[k / 3], inputs[k % 3]);
        float out[MOST_T * STRIDE];
        run_kernel(out, &c, 0, MOST_T, 0, 3);
        check_product(&c, out, MOST_T);
        free_case(&c);
    }
}

// A NaN or an infinity in the input reaches every row, and no other token.
static void test_damage(Type type, int cols, int group) {
    static const float bad[] = { NAN, INFINITY, -INFINITY };
    for (int k = 0; k < 3; k++) {
        Case c = make_case(type, 5, cols, group, 0, -1, any);
        c.x[MARGIN + cols + cols / 2] = bad[k];         // of the second token
        if (formats[type].int8_input)
            kernels.quantize(c.x8 + MARGIN / BLOCK, c.x + MARGIN, (size_t)MOST_T * cols);
        float out[MOST_T * STRIDE];
        run_kernel(out, &c, 0, 3, 0, 5);
        for (int t = 0; t < 3; t++)
            for (int r = 0; r < 5; r++)
                CHECK(!isfinite(out[t * STRIDE + r]) == (t == 1),
                      "%s: a %g in the input of token 1: row %d of token %d is %g", formats[type].name,
                      bad[k], r, t, out[t * STRIDE + r]);
        free_case(&c);
    }
}

static void test_type(Type type) {
    if (type == Q8_PLANE) {
        static const int groups[] = { 1, 4, 32, 64 };
        for (int k = 0; k < 4; k++)
            for (int wide = 1; wide <= 5; wide += 2)
                for (int shift = 0; shift < 4; shift++)
                    test_shape(type, MOST_ROWS, wide * groups[k], groups[k], shift);
        test_shape(type, 1, 4, 4, 1);
        test_damage(type, 64, 4);
    } else if (formats[type].block == 1) {
        for (int cols = 1; cols <= 40; cols++) test_shape(type, MOST_ROWS, cols, 0, 0);
        test_shape(type, 1, 19, 0, 0);
        test_damage(type, 40, 0);
    } else {
        int block = formats[type].block;
        static const int widths[] = { 1, 2, 3, 5, 8 };
        for (int k = 0; k < (block == BLOCK ? 5 : 3); k++)
            test_shape(type, MOST_ROWS, widths[k] * block, 0, 0);
        test_shape(type, 1, block, 0, 0);
        test_extremes(type, 2 * block);
        test_damage(type, 2 * block, 0);
    }
}

// ---------------------------------------------------------------------------- mixtures of rows

static void test_mix(Type type, int cols) {
    static const int heights[] = { 0, 1, 2, 9, 130 };
    for (int k = 0; k < 5; k++) {
        int rows = heights[k];
        Case c = make_case(type, rows, cols, 0, 0, -1, any);
        float *scale = random_floats((size_t)rows + 1), *out = malloc((cols + 1) * sizeof *out);
        out[cols] = 12345;
        kernels.mix[type](out, scale, &c.w, rows);
        CHECK(out[cols] == 12345, "mix %s of %d columns wrote one more", formats[type].name, cols);
        for (int i = 0; i < cols; i++) {
            double want = 0, size = 0;
            for (int r = 0; r < rows; r++) {
                double product = (double)scale[r] * c.values[(size_t)r * cols + i];
                want += product, size += fabs(product);
            }
            CHECK(near(out[i], want, size * (rows + 1) * 0x1p-24),
                  "mix %s, %d x %d, column %d: wanted %.9g, got %.9g", formats[type].name, rows, cols, i,
                  want, out[i]);
        }
        free(scale), free(out), free_case(&c);
    }
}

int main(void) {
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        if (!choose_kernels(sets[i])) continue;
        for (int type = 0; type < N_TYPES; type++) test_type((Type)type);
        for (int cols = 1; cols <= 40; cols++) test_mix(F32, cols), test_mix(F16, cols);
    }
    return finish("test_products");
}
