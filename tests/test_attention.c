// test_attention.c - rotations against their formula, and attention small enough to work out by hand.
#include "test.h"

// ---------------------------------------------------------------------------- RoPE

static void test_frequencies(void) {
    float f[64];
    rope_frequencies(f, 4, 10000);                      // 10000^(-0/4), 10000^(-2/4)
    CHECK(f[0] == 1 && near(f[1], 0.01, 1e-9), "over 4: wanted 1 0.01, got %.9g %.9g", f[0], f[1]);
    rope_frequencies(f, 128, 500000);
    for (int i = 0; i < 64; i++) {
        long double want = expl(-logl(500000) * i / 64);
        CHECK(near(f[i], (double)want, 1e-7 * (double)want),
              "theta 500000, pair %d of 64: wanted %.9Lg, got %.9g", i, want, f[i]);
    }
}

static void test_angles(void) {
    const float f[3] = { 1, 0.5f, 1e-4f };
    float rope[4 * 6];
    rope_angles(rope, f, 6, 1, 0);
    for (int i = 0; i < 3; i++)
        CHECK(rope[2 * i] == 1 && rope[2 * i + 1] == 0, "position 0 turns pair %d", i);

    static const int positions[] = { 5, 100000 };
    for (int k = 0; k < 2; k++) {
        rope_angles(rope, f, 6, 4, positions[k]);
        for (int t = 0; t < 4; t++)
            for (int i = 0; i < 3; i++) {
                long double angle = (long double)f[i] * (positions[k] + t);
                const float *got = rope + t * 6 + 2 * i;
                CHECK(near(got[0], (double)cosl(angle), 1e-7) && near(got[1], (double)sinl(angle), 1e-7),
                      "position %d, pair %d: wanted %.8Lf %.8Lf, got %.8f %.8f", positions[k] + t, i,
                      cosl(angle), sinl(angle), got[0], got[1]);
            }
    }
}

// The first pair turns by 90 degrees, (a, b) -> (-b, a), the second by 180, (a, b) -> (-a, -b).
static void test_rotate_by_hand(void) {
    const float rope[] = { 0, 1, -1, 0 };
    const struct { const char *name; Rotation rotation; int head_dim; float want[12]; } cases[] = {
        { "pairs", PAIRS, 4, { -2, 1, -3, -4,           -6, 5, -7, -8 } },
        { "halves", HALVES, 4, { -3, -2, 1, -4,         -7, -6, 5, -8 } },      // (1, 3) and (2, 4) are pairs
        { "4 of 6, pairs", PAIRS, 6, { -2, 1, -3, -4, 5, 6,         -8, 7, -9, -10, 11, 12 } },
        { "4 of 6, halves", HALVES, 6, { -3, -2, 1, -4, 5, 6,       -9, -8, 7, -10, 11, 12 } },
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
        for (int T = 1; T <= 2; T++) {                  // two heads of one token, then a head of each of two
            float x[12], ropes[8];
            for (int i = 0; i < 12; i++) x[i] = (float)i + 1;
            memcpy(ropes, rope, sizeof rope), memcpy(ropes + 4, rope, sizeof rope);
            rotate(x, ropes, T, 2 / T, cases[k].head_dim, 4, cases[k].rotation);
            for (int i = 0; i < 2 * cases[k].head_dim; i++)
                CHECK(x[i] == cases[k].want[i], "%s, %d tokens, [%d]: wanted %g, got %g", cases[k].name, T, i,
                      cases[k].want[i], x[i]);
        }
}

static double dot(const float *a, const float *b, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)a[i] * b[i];
    return sum;
}

// Turned by their positions m and n, a query and a key agree as their distance says, wherever they stand.
static void test_relative(void) {
    enum { DIM = 32 };
    float f[DIM / 2], rope[DIM], *q = random_floats(DIM), *k = random_floats(DIM);
    rope_frequencies(f, DIM, 10000);
    for (int halves = 0; halves < 2; halves++) {
        static const int places[][2] = { { 7, 0 }, { 8, 1 }, { 107, 100 }, { 1007, 1000 }, { 8, 0 } };
        double first = 0;
        for (int i = 0; i < 5; i++) {
            float a[DIM], b[DIM];
            memcpy(a, q, sizeof a), memcpy(b, k, sizeof b);
            rope_angles(rope, f, DIM, 1, places[i][0]);
            rotate(a, rope, 1, 1, DIM, DIM, halves ? HALVES : PAIRS);
            CHECK(near(dot(a, a, DIM), dot(q, q, DIM), 1e-5), "a rotation changes the length %g to %g",
                  dot(q, q, DIM), dot(a, a, DIM));
            CHECK(memcmp(a, q, sizeof a), "nothing was turned at position %d", places[i][0]);
            rope_angles(rope, f, DIM, 1, places[i][1]);
            rotate(b, rope, 1, 1, DIM, DIM, halves ? HALVES : PAIRS);
            if (i == 0) first = dot(a, b, DIM);
            CHECK(near(dot(a, b, DIM), first, 1e-5) == (i < 4), "%d to %d: %.7g, 7 to 0: %.7g", places[i][0],
                  places[i][1], dot(a, b, DIM), first);
        }
    }
    free(q), free(k);
}

// ---------------------------------------------------------------------------- attention

// A model that is one attention layer. Frequencies of 0 turn nothing.
static Model one_layer(Layer *layer, float *frequencies, int dim, int head_dim, int n_heads, int n_kv_heads,
                       const float *wq, const float *wk, const float *wv, const float *wo) {
    int q_dim = n_heads * head_dim, kv_dim = n_kv_heads * head_dim;
    *layer = (Layer){
        .wq = tensor(Q, 0, F32, q_dim, dim, wq, NULL),  .wk = tensor(K, 0, F32, kv_dim, dim, wk, NULL),
        .wv = tensor(V, 0, F32, kv_dim, dim, wv, NULL), .wo = tensor(ATTN_OUT, 0, F32, dim, q_dim, wo, NULL),
    };
    Config c = { .dim = dim, .hidden_dim = 1, .n_layers = 1, .n_heads = n_heads, .n_kv_heads = n_kv_heads,
                 .head_dim = head_dim, .rope_dim = head_dim, .vocab_size = 1, .seq_len = 64 };
    return (Model){ .config = c, .weights = { .layers = layer }, .frequencies = frequencies };
}

static State state_for(const Model *m, Type kv_type) {
    State s;
    const char *error = state_create(&s, &m->config, 64, 64, 1, kv_type);
    CHECK(!error, "%s", error);
    return s;
}

static void attend_to(const Model *m, State *s, const float *x, int T, int pos) {
    s->T = T, s->pos = pos;
    memcpy(s->xb, x, (size_t)T * m->config.dim * sizeof *x);
    rope_angles(s->rope, m->frequencies, m->config.rope_dim, T, pos);
    attention(m, s, 0);
}

// A token that sees only itself gets W_O v, whatever its query and key are:
//   W_V x = [1 2; 3 4] [5 6] = [17 39],  W_O v = [0 1; 1 1] [17 39] = [39 56]
static void test_single_position(void) {
    Layer layer;
    float frequencies[1] = { 1 };
    Model m = one_layer(&layer, frequencies, 2, 2, 1, 1, (const float[]){ 9, 8, 7, 6 },
                        (const float[]){ 5, 4, 3, 2 }, (const float[]){ 1, 2, 3, 4 },
                        (const float[]){ 0, 1, 1, 1 });
    for (int type = F32; type <= F16; type++) {
        State s = state_for(&m, (Type)type);
        attend_to(&m, &s, (const float[]){ 5, 6 }, 1, 0);
        CHECK(s.xb[0] == 39 && s.xb[1] == 56, "wanted 39 56, got %.9g %.9g", s.xb[0], s.xb[1]);
        state_free(&s);
    }
}

static void keep_weights(void *context, const Event *e) {       // those of one head, of the last token
    if (e->op == WEIGHTS) memcpy(context, e->data, (size_t)e->cols * sizeof(float));
}

// Two tokens, x0 = [1 0] and x1 = [1 1]:
//   keys [0 0], [1 0];  values [4 0], [4 8];  both queries [sqrt(2) ln 3, 0]
// The second token scores 0 and sqrt(2) ln 3 / sqrt(2) = ln 3, whose softmax is 1/4 and 3/4:
//   mix = [4 6],  W_O mix = [1 1; 0 1] [4 6] = [10 6].   The first sees only itself: W_O [4 0] = [4 0].
static void test_two_positions(void) {
    Layer layer;
    float frequencies[1] = { 0 };
    const float x[] = { 1, 0, 1, 1 }, want[] = { 4, 0, 10, 6 };
    Model m = one_layer(&layer, frequencies, 2, 2, 1, 1, (const float[]){ sqrtf(2) * logf(3), 0, 0, 0 },
                        (const float[]){ 0, 1, 0, 0 }, (const float[]){ 4, 0, 0, 8 },
                        (const float[]){ 1, 1, 0, 1 });
    for (int together = 0; together < 2; together++) {
        State s = state_for(&m, F32);
        float got[4], weights[2];
        s.observer = keep_weights, s.observer_context = weights;
        attend_to(&m, &s, x, 1 + together, 0);
        memcpy(got, s.xb, sizeof got);
        if (!together) {
            attend_to(&m, &s, x + 2, 1, 1);
            memcpy(got + 2, s.xb, 2 * sizeof *got);
        }
        for (int i = 0; i < 4; i++)
            CHECK(near(got[i], want[i], 2e-6), "%s [%d]: wanted %g, got %.9g",
                  together ? "together" : "one by one", i, want[i], got[i]);
        CHECK(near(weights[0], 0.25, 1e-7) && near(weights[1], 0.75, 1e-7),
              "weights: wanted 0.25 0.75, got %.9g %.9g", weights[0], weights[1]);
        state_free(&s);
    }
}

// Scores of 100,000 and of 10^14 must not overflow: all the weight goes to the largest one, here each token's
// own, however its product with the scale, 1 / sqrt(2), was rounded.
static void test_large_scores(float size) {
    Layer layer;
    float frequencies[1] = { 0 };
    const float identity[] = { 1, 0, 0, 1 };
    Model m = one_layer(&layer, frequencies, 2, 2, 1, 1, (const float[]){ size, 0, 0, size }, identity,
                        identity, identity);
    State s = state_for(&m, F32);
    const float x[] = { 3, 4, -3, -4, 6, 8, 7, 9, 11, 10, -12, 13, -14, -15, 17, -16 };
    attend_to(&m, &s, x, 8, 0);
    for (int i = 0; i < 16; i++)
        CHECK(s.xb[i] == x[i], "%s, scores of size %g [%d]: wanted %g, got %g", kernels.name, size, i, x[i],
              s.xb[i]);
    state_free(&s);
}

// Four query heads over two key/value heads: 0 and 1 share the first, 2 and 3 the second.
static void test_grouped_queries(void) {
    enum { DIM = 8, KV = 4 };
    Layer layer;
    float frequencies[1] = { 1 }, wv[KV * DIM] = { 0 }, wo[DIM * DIM] = { 0 };
    float *wq = random_floats(DIM * DIM), *wk = random_floats(KV * DIM);
    for (int i = 0; i < KV; i++) wv[i * DIM] = (float)i + 1;            // v = 1 2 3 4
    for (int i = 0; i < DIM; i++) wo[i * DIM + i] = 1;
    const float x[DIM] = { 1 }, want[DIM] = { 1, 2, 1, 2, 3, 4, 3, 4 };
    Model m = one_layer(&layer, frequencies, DIM, 2, 4, 2, wq, wk, wv, wo);
    State s = state_for(&m, F32);
    attend_to(&m, &s, x, 1, 0);
    for (int i = 0; i < DIM; i++) CHECK(s.xb[i] == want[i], "[%d]: wanted %g, got %g", i, want[i], s.xb[i]);
    state_free(&s), free(wq), free(wk);
}

// Keys and values rounded to 11 bits move the output a little, and do move it.
static void test_cache_types(void) {
    enum { DIM = 32, HEAD = 8, KV = 16, T = 64 };
    Layer layer;
    float frequencies[HEAD / 2], *x = random_floats(T * DIM);
    float *wq = random_floats(DIM * DIM), *wk = random_floats(KV * DIM), *wv = random_floats(KV * DIM);
    float *wo = random_floats(DIM * DIM);
    rope_frequencies(frequencies, HEAD, 10000);
    Model m = one_layer(&layer, frequencies, DIM, HEAD, 4, 2, wq, wk, wv, wo);
    State wide = state_for(&m, F32), narrow = state_for(&m, F16);
    attend_to(&m, &wide, x, T, 0);
    attend_to(&m, &narrow, x, T, 0);
    double worst = 0, largest = 0;
    for (int i = 0; i < T * DIM; i++) {
        worst = worse(worst, fabs(wide.xb[i] - narrow.xb[i]));
        largest = worse(largest, fabs(wide.xb[i]));
    }
    CHECK(worst > 1e-6 * largest && worst < 0x1p-8 * largest, "an F16 cache moves outputs of up to %g by %g",
          largest, worst);
    state_free(&wide), state_free(&narrow);
    free(wq), free(wk), free(wv), free(wo), free(x);
}

// Keys 0 .. n - 1 of one head, (n, head_dim), from the columns in which the cache has them.
static float *keys_of(const State *s, const Config *c, int kv_head, int n) {
    float *keys = malloc((size_t)n * c->head_dim * sizeof *keys), columns[SPAN];
    Matrix all = { s->kv_type, 0, SPAN, s->keys, NULL, 0 };
    for (int p = 0, span = kv_head * spans(s->context); p < n; p += SPAN, span++)
        for (int i = 0; i < c->head_dim; i++) {
            kernels.decode[s->kv_type](columns, &all, span * c->head_dim + i);
            for (int j = p; j < n && j < p + SPAN; j++) keys[(size_t)j * c->head_dim + i] = columns[j - p];
        }
    return keys;
}

// softmax(q . k / sqrt(head_dim)) v of one row in double, from what the cache holds.
static void attend_in_double(double *out, const State *s, const Config *c, int head, int t) {
    int kv_head = head / (c->n_heads / c->n_kv_heads), seen = s->pos + t + 1;
    const float *q = s->q + ((size_t)t * c->n_heads + head) * c->head_dim;
    double score[512], largest = -INFINITY, sum = 0;
    float *keys = keys_of(s, c, kv_head, seen), *row = malloc((size_t)c->head_dim * sizeof *row);
    Matrix values = { s->kv_type, s->context, c->head_dim, s->values, NULL, 0 };
    for (int p = 0; p < seen; p++) {
        score[p] = dot(q, keys + (size_t)p * c->head_dim, c->head_dim) / sqrt(c->head_dim);
        largest = score[p] > largest ? score[p] : largest;
    }
    for (int p = 0; p < seen; p++) sum += score[p] = exp(score[p] - largest);
    for (int i = 0; i < c->head_dim; i++) out[i] = 0;
    for (int p = 0; p < seen; p++) {
        kernels.decode[s->kv_type](row, &values, kv_head * s->context + p);
        for (int i = 0; i < c->head_dim; i++) out[i] += score[p] / sum * row[i];
    }
    free(keys), free(row);
}

static float *any_weights(int rows, int cols) {         // that turn inputs of size 1 into outputs of size 1
    float *w = random_floats((size_t)rows * cols);
    for (int i = 0; i < rows * cols; i++) w[i] *= sqrtf(3 / (float)cols);
    return w;
}

// T tokens at position pos: every row of what they find against double, and never what comes after them: the
// cache is NaN beyond, and the last token's value infinite.
static void check_attention(int head_dim, int n_heads, int n_kv_heads, int pos, int T, Type type) {
    enum { DIM = 16, CONTEXT = 500, PADDED = 512 };     // whole spans of keys
    int q_dim = n_heads * head_dim, kv_dim = n_kv_heads * head_dim;
    Layer layer;
    float *frequencies = calloc((size_t)head_dim, sizeof *frequencies);
    float *x = random_floats((size_t)(pos + T) * DIM), *wq = any_weights(q_dim, DIM);
    float *wk = any_weights(kv_dim, DIM), *wv = any_weights(kv_dim, DIM), *wo = any_weights(DIM, q_dim);
    Model m = one_layer(&layer, frequencies, DIM, head_dim, n_heads, n_kv_heads, wq, wk, wv, wo);
    m.config.rope_dim = 0;                              // an odd head_dim has no pairs to turn
    for (int damaged = 0; damaged < 2; damaged++) {
        State s;
        const char *error = state_create(&s, &m.config, CONTEXT, pos > T ? pos : T, 1, type);
        CHECK(!error, "%s", error);
        memset(s.keys, 0xff, bytes_of(type, (size_t)PADDED * kv_dim));
        memset(s.values, 0xff, bytes_of(type, (size_t)CONTEXT * kv_dim));
        if (damaged) x[(size_t)(pos + T) * DIM - 1] = INFINITY;
        if (pos) attend_to(&m, &s, x, pos, 0);
        attend_to(&m, &s, x + (size_t)pos * DIM, T, pos);
        double want[256];
        for (int t = 0; t < T - damaged; t++)
            for (int h = 0; h < n_heads; h++) {
                attend_in_double(want, &s, &m.config, h, t);
                for (int i = 0; i < head_dim; i++) {
                    float got = s.mix[((size_t)t * n_heads + h) * head_dim + i];
                    CHECK(near(got, want[i], 1e-5),
                          "%s, %d heads of %d over %d, token %d of %d at %d, head %d [%d]: wanted %.9g, "
                          "got %.9g", kernels.name, n_heads, head_dim, n_kv_heads, t, T, pos, h, i, want[i],
                          got);
                }
            }
        state_free(&s);
    }
    free(frequencies), free(x), free(wq), free(wk), free(wv), free(wo);
}

static void test_against_double(void) {
    static const int head_dims[] = { 1, 3, 8, 64, 80, 128, 256 };
    static const struct { int heads, kv_heads; } heads[] = { { 2, 2 }, { 3, 1 }, { 8, 1 }, { 12, 2 } };
    static const struct { int pos, T; } places[] = {
        { 0, 1 }, { 0, 17 }, { 5, 1 }, { 127, 1 }, { 128, 1 }, { 300, 1 }, { 120, 9 }, { 250, 40 },
        { 0, 130 },
    };
    for (int i = 0; i < 7; i++)
        for (int k = 0; k < 9; k++)
            check_attention(head_dims[i], heads[(i + k) % 4].heads, heads[(i + k) % 4].kv_heads,
                            places[k].pos, places[k].T, k % 2 ? F16 : F32);
    check_attention(8, 150, 1, 40, 1, F16);             // heads that do not all look at once
    check_attention(8, 150, 1, 120, 20, F16);
    check_attention(64, 11, 1, 120, 20, F16);
}

static float *eighths(size_t n) {                       // from -1 to 1: their products' sums are exact
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = (float)(random_below(17) - 8) / 8;
    return x;
}

// What a token finds does not depend, not by a bit, on how many others look with it. Queries, keys and values
// are exact, however they are summed.
static void check_one_by_one(int head_dim, int n_heads, int n_kv_heads, int T, Type type) {
    enum { DIM = 8, TOKENS = 140 };
    size_t q_dim = (size_t)n_heads * head_dim, kv_dim = (size_t)n_kv_heads * head_dim;
    Layer layer;
    float *x = eighths(TOKENS * DIM), *wq = eighths(q_dim * DIM), *wk = eighths(kv_dim * DIM);
    float *wv = eighths(kv_dim * DIM), *wo = eighths(DIM * q_dim);
    float *want = malloc(TOKENS * q_dim * sizeof *want);
    Model m = one_layer(&layer, NULL, DIM, head_dim, n_heads, n_kv_heads, wq, wk, wv, wo);
    m.config.rope_dim = 0;
    State s;
    const char *error = state_create(&s, &m.config, TOKENS, T, 1, type);
    CHECK(!error, "%s", error);
    for (int pos = 0; pos < TOKENS; pos++) {
        attend_to(&m, &s, x + pos * DIM, 1, pos);
        memcpy(want + (size_t)pos * q_dim, s.mix, q_dim * sizeof *want);
    }
    for (int pos = 0, n; pos < TOKENS; pos += n) {
        n = TOKENS - pos < T ? TOKENS - pos : T;
        attend_to(&m, &s, x + pos * DIM, n, pos);
        CHECK(!memcmp(s.mix, want + (size_t)pos * q_dim, (size_t)n * q_dim * sizeof *want),
              "%s, %d heads of %d over %d: %d tokens at %d find something else than one by one", kernels.name,
              n_heads, head_dim, n_kv_heads, n, pos);
    }
    state_free(&s);
    free(x), free(wq), free(wk), free(wv), free(wo), free(want);
}

static void test_one_by_one(void) {
    static const int lengths[] = { 2, 3, 16, 17, 50, 140 };
    for (int i = 0; i < 6; i++) {
        Type type = i % 2 ? F16 : F32;
        check_one_by_one(64, 8, 1, lengths[i], type), check_one_by_one(20, 3, 3, lengths[i], type);
        check_one_by_one(8, 150, 1, lengths[i], type), check_one_by_one(33, 22, 2, lengths[i], type);
    }
}

int main(void) {
    static const char *const sets[] = { "portable", "avx2", "avx512", "neon", "neon-dot" };
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        if (choose_kernels(sets[i])) test_against_double(), test_one_by_one();
    choose_kernels(NULL);
    test_frequencies();
    test_angles();
    test_rotate_by_hand();
    test_relative();
    test_single_position();
    test_two_positions();
    test_large_scores(1e4f), test_large_scores(1e12f);
    test_grouped_queries();
    test_cache_types();
    return finish("test_attention");
}
