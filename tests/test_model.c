// test_model.c - the forward pass in pieces, shared out, watched; against the formulas it is in
// test_formulas.c.
//
//   test_model [CHECKPOINT...]     small models of random weights; these files in pieces and watched
#include "test.h"
#include <limits.h>
#include <pthread.h>

// So much memory is asked for on purpose that the sanitizers' allocators would rather stop.
const char *__asan_default_options(void);
const char *__tsan_default_options(void);
const char *__asan_default_options(void) { return "allocator_may_return_null=1"; }
const char *__tsan_default_options(void) { return "allocator_may_return_null=1"; }

static State new_state(const Model *m, int context, int T, Type kv_type) {
    State s;
    const char *error = state_create(&s, &m->config, context, T, T, kv_type);
    if (!error) return s;
    printf("no state for %d positions: %s\n", context, error);
    exit(1);
}

static int *random_ids(int n, int vocab_size) {
    int *ids = malloc(n * sizeof *ids);
    for (int i = 0; i < n; i++) ids[i] = random_below(vocab_size);
    return ids;
}

// ---------------------------------------------------------------------------- in pieces

static float *logits_by_chunks(const Model *m, State *s, const int *ids, int n, int chunk) {
    float *all = malloc((size_t)n * m->config.vocab_size * sizeof *all);
    for (int pos = 0, T; pos < n; pos += T) {
        T = n - pos < chunk ? n - pos : chunk;
        const float *logits = forward(m, s, ids + pos, T, pos, T);
        memcpy(all + (size_t)pos * m->config.vocab_size, logits,
               (size_t)T * m->config.vocab_size * sizeof *all);
    }
    return all;
}

static void test_chunks(const Model *m, int n) {
    static const int chunks[] = { 1, 7, 64 };
    int vocab_size = m->config.vocab_size, *ids = random_ids(n, vocab_size);
    size_t count = (size_t)n * vocab_size;
    State s = new_state(m, n, n, F32);
    float *whole = logits_by_chunks(m, &s, ids, n, n);
    double largest = 0;
    for (size_t i = 0; i < count; i++) largest = worse(largest, fabs(whole[i]));
    for (int k = 0; k < 3; k++) {
        float *parts = logits_by_chunks(m, &s, ids, n, chunks[k]);
        double worst = 0;
        for (size_t i = 0; i < count; i++) worst = worse(worst, fabs(whole[i] - parts[i]));
        CHECK(worst < 1e-4 * largest,
              "chunks of %d: logits of up to %g differ by %g from those of %d at once", chunks[k], largest,
              worst, n);
        free(parts);
    }

    // No logits, then the last row only, then the last three: the rows that the whole has there.
    int first = n / 2, T = n - 3 - first;
    CHECK(!forward(m, &s, ids, first, 0, 0), "logits that nobody wanted");
    for (int wanted = 1; wanted <= 3; wanted += 2, first += T, T = n - first) {
        const float *got = forward(m, &s, ids + first, T, first, wanted),
                    *want = whole + (size_t)(first + T - wanted) * vocab_size;
        double worst = 0;
        for (int i = 0; i < wanted * vocab_size; i++) worst = worse(worst, fabs(got[i] - want[i]));
        CHECK(worst < 1e-4 * largest, "the last %d of %d tokens from %d on: off by %g", wanted, T, first,
              worst);
    }
    state_free(&s), free(whole), free(ids);
}

static void test_threads(const Model *m, int n) {
    static const int thread_counts[] = { 2, 3, 7 };
    int *ids = random_ids(n, m->config.vocab_size);
    State s = new_state(m, n, n, F16);
    float *alone = logits_by_chunks(m, &s, ids, n, n - 1);          // many tokens at once, then one
    for (int k = 0; k < 3; k++) {
        threads_start(thread_counts[k]);
        float *shared = logits_by_chunks(m, &s, ids, n, n - 1);
        threads_stop();
        CHECK(!memcmp(alone, shared, (size_t)n * m->config.vocab_size * sizeof *alone),
              "%d threads give other bits than one", thread_counts[k]);
        free(shared);
    }
    state_free(&s), free(alone), free(ids);
}

typedef struct { const Model *m; const int *ids; int n; float *logits; } Pass;
static void *read_alone(void *argument) {
    Pass *r = argument;
    State s = new_state(r->m, r->n, 15, F32);
    r->logits = logits_by_chunks(r->m, &s, r->ids, r->n, 15);
    state_free(&s);
    return NULL;
}

// Two passes at the same time, each in a State of its own, over one Model.
static void test_two_states(const Model *m, int n) {
    Pass alone[2], at_once[2];
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        alone[i] = at_once[i] = (Pass){ m, random_ids(n, m->config.vocab_size), n, NULL };
        read_alone(&alone[i]);
    }
    for (int i = 0; i < 2; i++)
        CHECK(!pthread_create(&threads[i], NULL, read_alone, &at_once[i]), "no thread");
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < 2; i++) {
        CHECK(!memcmp(alone[i].logits, at_once[i].logits, (size_t)n * m->config.vocab_size * sizeof(float)),
              "State %d is disturbed by the other", i);
        free((void *)(uintptr_t)alone[i].ids), free(alone[i].logits), free(at_once[i].logits);
    }
}

// ---------------------------------------------------------------------------- watched

// A pass of five tokens after nine, with the logits of the last two.
enum { BEFORE = 9, T_NOW = 5, WANTED = 2 };

typedef struct { Event event; float *data; } Record;    // data: (rows, cols), without a stride
static struct { Record records[4000]; int n, read; } heard;

static void keep(void *unused, const Event *e) {
    (void)unused;
    if (heard.n == 3999) return;                        // the last one stays empty
    float *data = malloc((size_t)e->rows * e->cols * sizeof *data);
    for (int r = 0; r < e->rows; r++)
        memcpy(data + (size_t)r * e->cols, e->data + (size_t)r * e->stride, e->cols * sizeof *data);
    heard.records[heard.n++] = (Record){ *e, data };
}

// What was heard next: this, in this shape, or the test ends here.
static const float *next_at(Op op, int layer, int pos, int rows, int cols) {
    const Record *record = &heard.records[heard.read++];
    const Event *e = &record->event;
    bool right = record->data && e->op == op && e->layer == layer && e->pos == pos && e->rows == rows &&
                 e->cols == cols;
    CHECK(right, "event %d: wanted %s of layer %d, pos %d, %d x %d; got %s of layer %d, pos %d, %d x %d",
          heard.read, op_name(op), layer, pos, rows, cols, op_name(e->op), e->layer, e->pos, e->rows,
          e->cols);
    if (!right) exit(finish("test_model"));
    return record->data;
}

static const float *next(Op op, int layer, int cols) { return next_at(op, layer, BEFORE, T_NOW, cols); }

static bool is_sum(const float *sum, const float *a, const float *b, int n) {
    for (int i = 0; i < n; i++)
        if (sum[i] != a[i] + b[i]) return false;
    return true;
}

static bool rows_sum_to_one(const float *x, int rows, int cols) {
    for (int r = 0; r < rows; r++) {
        double sum = 0;
        for (int i = 0; i < cols; i++) sum += x[(size_t)r * cols + i];
        if (!near(sum, 1, 1e-5)) return false;
    }
    return true;
}

static bool is_product(const float *out, const Tensor *t, const float *x, int T) {
    double worst = 0, *in = malloc(t->w.cols * sizeof *in), *want = malloc(t->w.rows * sizeof *want);
    for (int row = 0; row < T; row++) {
        for (int c = 0; c < t->w.cols; c++) in[c] = x[(size_t)row * t->w.cols + c];
        multiply(want, t, in);
        for (int r = 0; r < t->w.rows; r++)
            worst = worse(worst, fabs(out[(size_t)row * t->w.rows + r] - want[r]) / (1 + fabs(want[r])));
    }
    free(in), free(want);
    return worst < 1e-4;
}

// The keys and values of this pass: a value is a row of the cache, a key a column, SPAN side by side.
static bool is_cached(const float *k, const float *v, const Config *c, const State *s, int layer) {
    const float *keys = s->keys, *values = s->values;
    for (int t = 0, pos = BEFORE; t < T_NOW; t++, pos++)
        for (int h = 0; h < c->n_kv_heads; h++)
            for (int i = 0; i < c->head_dim; i++, k++, v++) {
                size_t head = (size_t)layer * c->n_kv_heads + h;
                size_t span = head * ((s->context + SPAN - 1) / SPAN) + pos / SPAN;
                if (keys[(span * c->head_dim + i) * SPAN + pos % SPAN] != *k) return false;
                if (values[(head * s->context + pos) * c->head_dim + i] != *v) return false;
            }
    return true;
}

// The events of a layer, which starts from x; returns what it leaves.
static const float *check_layer(const Model *m, const State *s, const float *x, int l) {
    const Config *c = &m->config;
    const Layer *w = &m->weights.layers[l];
    int dim = c->dim, hidden_dim = c->hidden_dim, q_dim = c->n_heads * c->head_dim,
        kv_dim = c->n_kv_heads * c->head_dim;

    const float *normed = next(ATTN_NORM, l, dim), *q = next(Q, l, q_dim), *k = next(K, l, kv_dim),
                *v = next(V, l, kv_dim);
    CHECK(is_product(q, &w->wq, normed, T_NOW), "layer %d: Q is not W_Q ATTN_NORM", l);
    CHECK(is_product(k, &w->wk, normed, T_NOW), "layer %d: K is not W_K ATTN_NORM", l);
    CHECK(is_product(v, &w->wv, normed, T_NOW), "layer %d: V is not W_V ATTN_NORM", l);
    const float *q_rope = next(Q_ROPE, l, q_dim), *k_rope = next(K_ROPE, l, kv_dim);
    CHECK(memcmp(q, q_rope, (size_t)T_NOW * q_dim * sizeof *q), "layer %d: Q_ROPE is Q", l);
    CHECK(is_cached(k_rope, v, c, s, l), "layer %d: the cache does not hold K_ROPE and V", l);
    for (int pos = BEFORE; pos < BEFORE + T_NOW; pos++)
        CHECK(rows_sum_to_one(next_at(WEIGHTS, l, pos, c->n_heads, pos + 1), c->n_heads, pos + 1),
              "layer %d, pos %d: WEIGHTS do not sum to 1", l, pos);
    const float *mix = next(MIX, l, q_dim), *branch = next(ATTN_OUT, l, dim),
                *middle = next(RESID_MID, l, dim);
    CHECK(is_product(branch, &w->wo, mix, T_NOW), "layer %d: ATTN_OUT is not W_O MIX", l);
    CHECK(is_sum(middle, x, branch, T_NOW * dim), "layer %d: RESID_MID is not RESID before + ATTN_OUT", l);

    normed = next(FFN_NORM, l, dim);
    const float *gate = next(GATE, l, hidden_dim), *up = next(UP, l, hidden_dim),
                *hidden = next(HIDDEN, l, hidden_dim);
    CHECK(is_product(gate, &w->w_gate, normed, T_NOW), "layer %d: GATE is not W_gate FFN_NORM", l);
    CHECK(is_product(up, &w->w_up, normed, T_NOW), "layer %d: UP is not W_up FFN_NORM", l);
    branch = next(FFN_OUT, l, dim);
    CHECK(is_product(branch, &w->w_down, hidden, T_NOW), "layer %d: FFN_OUT is not W_down HIDDEN", l);
    const float *after = next(RESID, l, dim);
    CHECK(is_sum(after, middle, branch, T_NOW * dim), "layer %d: RESID is not RESID_MID + FFN_OUT", l);
    return after;
}

// Everything is reported once, in the order it is computed, and what is reported adds up.
static void test_identities(const Model *m) {
    const Config *c = &m->config;
    int *ids = random_ids(BEFORE + T_NOW, c->vocab_size);
    size_t size = (size_t)WANTED * c->vocab_size * sizeof(float);
    State s = new_state(m, 2 * BEFORE, BEFORE, F32);
    forward(m, &s, ids, BEFORE, 0, 0);
    float *unwatched = malloc(size);
    memcpy(unwatched, forward(m, &s, ids + BEFORE, T_NOW, BEFORE, WANTED), size);

    memset(&heard, 0, sizeof heard);
    s.observer = keep;
    const float *watched = forward(m, &s, ids + BEFORE, T_NOW, BEFORE, WANTED);
    CHECK(!memcmp(watched, unwatched, size), "watching changes the logits");
    const float *x = next(EMBED, -1, c->dim);
    for (int l = 0; l < c->n_layers; l++) x = check_layer(m, &s, x, l);
    int last = BEFORE + T_NOW - WANTED;
    const float *normed = next_at(FINAL_NORM, -1, last, WANTED, c->dim),
                *logits = next_at(LOGITS, -1, last, WANTED, c->vocab_size);
    CHECK(is_product(logits, &m->weights.classifier, normed, WANTED),
          "LOGITS are not the classifier's product with FINAL_NORM");
    CHECK(heard.read == heard.n, "%d events came after the last", heard.n - heard.read);
    CHECK(!memcmp(logits, unwatched, size), "LOGITS are not what forward returned");
    for (int i = 0; i < heard.n; i++) free(heard.records[i].data);
    free(unwatched), free(ids), state_free(&s);
}

// ---------------------------------------------------------------------------- memory

static int by_address(const void *a, const void *b) {
    const Bytes *x = a, *y = b;
    return (x->data > y->data) - (x->data < y->data);
}

static void test_buffers(const Config *c) {
    enum { CONTEXT = 50, T = 7, WANTED = 3 };
    size_t f = sizeof(float), q_dim = (size_t)c->n_heads * c->head_dim,
           kv_dim = (size_t)c->n_kv_heads * c->head_dim;
    for (int type = F32; type <= F16; type++) {
        State s;
        const char *error = state_create(&s, c, CONTEXT, T, WANTED, (Type)type);
        CHECK(!error && s.context == CONTEXT && s.kv_type == (Type)type && !s.observer, "%s",
              error ? error : "not what was asked for");
        size_t position = c->n_layers * kv_dim * (type == F32 ? 4 : 2);
        Bytes buffers[] = {
            { (void *)s.x, T * c->dim * f },              { (void *)s.xb, T * c->dim * f },
            { (void *)s.q, T * q_dim * f },               { (void *)s.mix, T * q_dim * f },
            { (void *)s.k, T * kv_dim * f },              { (void *)s.v, T * kv_dim * f },
            { (void *)s.gate, T * c->hidden_dim * f },    { (void *)s.up, T * c->hidden_dim * f },
            { (void *)s.rope, T * c->rope_dim * f },      { (void *)s.weights, c->n_heads * CONTEXT * f },
            { (void *)s.logits, WANTED * c->vocab_size * f },
            { s.keys, position * SPAN },                  { s.values, position * CONTEXT },
            { (uint8_t *)s.memory + s.memory_size, 0 },
        };
        size_t n = sizeof buffers / sizeof *buffers;
        qsort(buffers, n, sizeof *buffers, by_address);
        CHECK(buffers[0].data >= (uint8_t *)s.memory, "a buffer begins before the memory");
        for (size_t i = 0; i + 1 < n; i++) {
            CHECK(buffers[i].data + buffers[i].size <= buffers[i + 1].data,
                  "buffer %zu reaches into the next, or beyond the memory", i);
            CHECK((uintptr_t)buffers[i].data % 64 == 0, "buffer %zu does not start a cache line", i);
        }
        state_free(&s);
    }
}

static void test_too_much_memory(void) {
    const struct { Config c; int context, T; } cases[] = {
        { { .dim = 1 << 20, .hidden_dim = 1 << 20, .n_layers = 1 << 16, .n_heads = 1 << 10,
            .n_kv_heads = 1 << 10, .head_dim = 1 << 10, .vocab_size = 1 << 24 }, INT_MAX, 512 },
        // the cache: 2^16 * 2^30 * 2^16 numbers of 4 bytes, 2^64 bytes: 0 to who does not look
        { { .dim = 64, .hidden_dim = 64, .n_layers = 1 << 16, .n_heads = 1, .n_kv_heads = 1 << 10,
            .head_dim = 1 << 6, .vocab_size = 64, .rope_dim = 64 }, 1 << 30, 1 },
        // 70 petabytes: more than addresses reach
        { { .dim = 64, .hidden_dim = 64, .n_layers = 1 << 16, .n_heads = 8, .n_kv_heads = 8, .head_dim = 8,
            .vocab_size = 64, .rope_dim = 8 }, INT_MAX, 1 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        State s;
        const char *error = state_create(&s, &cases[i].c, cases[i].context, cases[i].T, 1, F32);
        CHECK(is_sentence(error), "case %zu, a context of %d: wanted a refusal, got %s", i, cases[i].context,
              error ? error : "memory");
        state_free(&s);
    }
}

// ---------------------------------------------------------------------------- on files

static void test_file(const char *path) {
    Bytes file;
    Model m;
    const char *error = map_file(&file, path);
    CHECK(!error, "%s: %s", path, error);
    if (error) return;
    error = checkpoint_read(&m, file);
    CHECK(!error, "%s: %s", path, error);
    if (!error) {
        threads_start(threads_available());
        test_chunks(&m, m.config.seq_len < 512 ? m.config.seq_len : 512);
        test_identities(&m);
        threads_stop();
    }
    model_free(&m);
    unmap_file(file);
}

int main(int argc, char **argv) {
    choose_kernels(NULL);
    static const int kv_heads[] = { 2, 8, 1 };          // grouped, one each, one for all
    for (int i = 0; i < 3; i++) {
        Bytes file;
        Config c = { .dim = 48, .hidden_dim = 56, .n_layers = 3, .n_heads = 8, .n_kv_heads = kv_heads[i],
                     .vocab_size = 43, .seq_len = 96 };
        Model m = random_model(&file, &c, i != 1);
        test_chunks(&m, 90);
        test_identities(&m);
        test_two_states(&m, 60);
        test_buffers(&m.config);
        model_free(&m), free_bytes(file);
    }
    Bytes file;                                         // large enough for every loop to be shared out
    Config c = { .dim = 128, .hidden_dim = 200, .n_layers = 1, .n_heads = 8, .n_kv_heads = 4,
                 .vocab_size = 300, .seq_len = 300 };
    Model m = random_model(&file, &c, true);
    test_threads(&m, 300);
    threads_start(3);                                   // one pool for two passes
    for (int round = 0; round < 10; round++) test_two_states(&m, 300);
    threads_stop();
    model_free(&m), free_bytes(file);
    test_too_much_memory();
    for (int i = 1; i < argc; i++) test_file(argv[i]);
    return finish("test_model");
}
