// test_formulas.c - the whole forward pass against the papers' formulas in double: both architectures,
// biases, every type of weights, shared out among threads and in pieces.
#include "test.h"

// Against quantized weights the input is quantized as well: 32 numbers share a scale, their largest is 127.
static void product(double *out, const Tensor *t, const double *x) {
    double rounded[t->w.cols];
    for (int i = 0; i < t->w.cols; i++) {
        double largest = 0;
        for (int k = i / 32 * 32; k < i / 32 * 32 + 32 && k < t->w.cols; k++)
            largest = worse(largest, fabs(x[k]));
        bool coarse = formats[t->w.type].int8_input && largest > 0;
        rounded[i] = coarse ? rint(x[i] / largest * 127) * largest / 127 : x[i];
    }
    multiply(out, t, rounded);
}

static void normalize(double *out, const Norm *w, const double *x) {
    double mean = 0, square = 0;
    for (int i = 0; i < w->dim && !strcmp(norm_name(), "layernorm"); i++) mean += x[i] / w->dim;
    for (int i = 0; i < w->dim; i++) square += (x[i] - mean) * (x[i] - mean) / w->dim;
    for (int i = 0; i < w->dim; i++)
        out[i] = w->weight[i] * (x[i] - mean) / sqrt(square + w->eps) + (w->bias ? w->bias[i] : 0);
}

// RoPE over the first rope_dim numbers of each head, by neighbours or by halves (as GPT-NeoX does).
static void turn(double *x, int heads, const Config *c, int pos) {
    for (int h = 0; h < heads; h++, x += c->head_dim)
        for (int i = 0; i < c->rope_dim / 2; i++) {
            double angle = pos * pow(c->rope_theta, -2.0 * i / c->rope_dim);
            double *a = c->rotation == PAIRS ? &x[2 * i] : &x[i],
                   *b = c->rotation == PAIRS ? a + 1 : a + c->rope_dim / 2, old = *a;
            *a = old * cos(angle) - *b * sin(angle);
            *b = old * sin(angle) + *b * cos(angle);
        }
}

// One query over the keys and values of positions 0 .. pos, kv_dim apart.
static void gather(double *out, const double *q, const double *k, const double *v, int pos, int head_dim,
                   int kv_dim) {
    double weight[pos + 1], sum = 0;
    for (int p = 0; p <= pos; p++) {
        double score = 0;
        for (int i = 0; i < head_dim; i++) score += q[i] * k[p * kv_dim + i];
        sum += weight[p] = exp(score / sqrt(head_dim));
    }
    for (int i = 0; i < head_dim; i++) {
        out[i] = 0;
        for (int p = 0; p <= pos; p++) out[i] += weight[p] / sum * v[p * kv_dim + i];
    }
}

static void reference(double *logits, const Model *m, const int *ids, int T) {
    const Config *c = &m->config;
    int dim = c->dim, q_dim = c->n_heads * c->head_dim, kv_dim = c->n_kv_heads * c->head_dim;
    double x[T][dim], normed[dim], q[q_dim], k[T][kv_dim], v[T][kv_dim], mix[q_dim], branch[dim];
    double gate[c->hidden_dim], up[c->hidden_dim];
    for (int t = 0; t < T; t++) {
        float row[dim];
        kernels.decode[m->weights.embedding.w.type](row, &m->weights.embedding.w, ids[t]);
        for (int i = 0; i < dim; i++) x[t][i] = row[i];
    }
    for (int l = 0; l < c->n_layers; l++) {
        const Layer *w = &m->weights.layers[l];
        for (int t = 0; t < T; t++) {
            normalize(normed, &w->attn_norm, x[t]);
            product(q, &w->wq, normed), product(k[t], &w->wk, normed), product(v[t], &w->wv, normed);
            turn(q, c->n_heads, c, t), turn(k[t], c->n_kv_heads, c, t);
            for (int h = 0; h < c->n_heads; h++) {
                int shared = h * c->n_kv_heads / c->n_heads * c->head_dim;
                gather(mix + h * c->head_dim, q + h * c->head_dim, &k[0][shared], &v[0][shared], t,
                       c->head_dim, kv_dim);
            }
            product(branch, &w->wo, mix);
            for (int i = 0; i < dim; i++) x[t][i] += branch[i];

            normalize(normed, &w->ffn_norm, x[t]);
            product(gate, &w->w_gate, normed), product(up, &w->w_up, normed);
            for (int i = 0; i < c->hidden_dim; i++) gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
            product(branch, &w->w_down, gate);
            for (int i = 0; i < dim; i++) x[t][i] += branch[i];
        }
    }
    for (int t = 0; t < T; t++) {
        normalize(normed, &m->weights.final_norm, x[t]);
        product(logits + (size_t)t * c->vocab_size, &m->weights.classifier, normed);
    }
}

// ---------------------------------------------------------------------------- a model against them

enum { T = 12 };

static State new_state(const Model *m, Type kv_type) {
    State s;
    const char *error = state_create(&s, &m->config, T, T, T, kv_type);
    if (!error) return s;
    printf("no state: %s\n", error);
    exit(1);
}

// What the logits are off by, as a part of the largest.
static double distance(const Model *m, const float *got, const double *want) {
    double worst = 0, largest = 0;
    for (int i = 0; i < T * m->config.vocab_size; i++)
        worst = worse(worst, fabs(got[i] - want[i])), largest = worse(largest, fabs(want[i]));
    return worst / largest;
}

static int by_size(const void *a, const void *b) {
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

// The same of each token, from the best to the worst.
static void distances(double off[T], const Model *m, const float *got, const double *want) {
    double largest = 0;
    int n = m->config.vocab_size;
    for (int i = 0; i < T * n; i++) largest = worse(largest, fabs(want[i]));
    for (int t = 0; t < T; t++) {
        off[t] = 0;
        for (int i = t * n; i < (t + 1) * n; i++) off[t] = worse(off[t], fabs(got[i] - want[i]) / largest);
    }
    qsort(off, T, sizeof *off, by_size);
}

static double *formulas(const Model *m, const int *ids) {
    double *logits = malloc((size_t)T * m->config.vocab_size * sizeof *logits);
    reference(logits, m, ids, T);
    return logits;
}

static const int *some_ids(const Config *c) {
    static int ids[T];
    for (int i = 0; i < T; i++) ids[i] = random_below(c->vocab_size);
    return ids;
}

static void test_model(const char *what, const Model *m, double tolerance) {
    const int *ids = some_ids(&m->config);
    double *want = formulas(m, ids);
    State s = new_state(m, F32);
    double off = distance(m, forward(m, &s, ids, T, 0, T), want);
    CHECK(off < tolerance, "%s, %d kv heads: logits are off by %g of the largest", what, m->config.n_kv_heads,
          off);
    state_free(&s), free(want);
}

static Model gguf_model(Bytes *file, const char *architecture, const Config *c, Style style) {
    Writer w = { 0 };
    add_model(&w, architecture, c, style);
    *file = written(&w);
    Model m;
    const char *error = checkpoint_read(&m, *file);
    if (!error) return m;
    printf("a model of random weights was refused: %s\n", error);
    exit(1);
}

// Each architecture with and without its biases. That a bias matters is shown by the formulas without it.
static void test_architectures(void) {
    for (int i = 0; i < 8; i++) {
        bool llama = i & 1;
        Bytes file;
        Config c = { .dim = 48, .hidden_dim = 56, .n_layers = 3, .n_heads = 6, .n_kv_heads = i & 2 ? 2 : 3,
                     .head_dim = llama ? 12 : 8, .rope_dim = llama ? 12 : 4, .vocab_size = 43,
                     .seq_len = 96 };
        Model m = gguf_model(&file, llama ? "llama" : "stablelm", &c, (Style){ F32, i & 2, i & 4, i & 4 });
        test_model(llama ? "llama" : "stablelm", &m, 1e-4);
        const int *ids = some_ids(&m.config);
        Layer *l = &m.weights.layers[1];
        const float **biases[] = { &l->wq.bias,        &l->wk.bias,       &l->wv.bias,
                                   &l->attn_norm.bias, &l->ffn_norm.bias, &m.weights.final_norm.bias };
        for (int k = 0; k < 6 && i & 4; k++) {
            const float *bias = *biases[k];
            CHECK(bias, "bias %d is lost", k);
            *biases[k] = NULL;
            double *without = formulas(&m, ids);
            *biases[k] = bias;
            State s = new_state(&m, F32);
            double off = distance(&m, forward(&m, &s, ids, T, 0, T), without);
            CHECK(off > 1e-3, "bias %d makes a difference of %g only", k, off);
            state_free(&s), free(without);
        }
        model_free(&m), free_bytes(file);
    }
}

static void test_llama2c(void) {
    static const int kv_heads[] = { 2, 8, 1 };          // grouped, one each, one for all
    for (int i = 0; i < 3; i++) {
        Bytes file;
        Config c = { .dim = 48, .hidden_dim = 56, .n_layers = 3, .n_heads = 8, .n_kv_heads = kv_heads[i],
                     .vocab_size = 43, .seq_len = 96 };
        Model m = random_model(&file, &c, i != 1);
        test_model("a .bin", &m, 1e-4);
        model_free(&m), free_bytes(file);
    }
}

// ---------------------------------------------------------------------------- every type of weights

// llama2.c's int8 in place of what the tensor was.
static void make_plane(Tensor *t) {
    size_t n = (size_t)t->w.rows * t->w.cols;
    int group = 32;
    char *data = malloc(n + n / group * sizeof(float));
    for (size_t i = 0; i < n; i++) data[i] = (char)(random_bits() >> 11);
    for (size_t i = 0; i < n / group; i++)
        memcpy(data + n + i * sizeof(float), &(float){ random_float() / 127 }, sizeof(float));
    t->w = (Matrix){ Q8_PLANE, t->w.rows, t->w.cols, data, data + n, group };
}

static void each_tensor(Model *m, void (*call)(Tensor *t)) {
    Layer *l = m->weights.layers;                       // there is one
    Tensor *const all[] = { &m->weights.embedding,
                            &m->weights.classifier,
                            &l->wq,
                            &l->wk,
                            &l->wv,
                            &l->wo,
                            &l->w_gate,
                            &l->w_up,
                            &l->w_down };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) call(all[i]);
}

static void free_plane(Tensor *t) { free((void *)(uintptr_t)t->w.data); }

// Fast kernels add up in another order when there are many tokens: then, against quantized weights, an input
// that lies between two steps may be rounded the other way. Portable ones never do.
static void test_chunks(const Model *m, Type type, const int *ids, const float *whole) {
    const char *name = formats[type].name;
    double limit = formats[type].int8_input && strcmp(kernels.name, "portable") ? 1e-2 : 1e-4;
    static const int chunks[] = { 1, 7 };
    int vocab_size = m->config.vocab_size;
    double largest = 0;
    for (int i = 0; i < T * vocab_size; i++) largest = worse(largest, fabs(whole[i]));
    for (int k = 0; k < 2; k++) {
        State s = new_state(m, F32);
        double worst = 0;
        for (int pos = 0, n; pos < T; pos += n) {
            n = T - pos < chunks[k] ? T - pos : chunks[k];
            const float *got = forward(m, &s, ids + pos, n, pos, n);
            for (int i = 0; i < n * vocab_size; i++)
                worst = worse(worst, fabs(got[i] - whole[pos * vocab_size + i]));
        }
        CHECK(worst < limit * largest,
              "%s, chunks of %d: logits of up to %g differ by %g from those of %d at once", name, chunks[k],
              largest, worst, T);
        state_free(&s);
    }
}

static void test_threads(const Model *m, const char *name, const int *ids, const float *alone) {
    static const int thread_counts[] = { 1, 2, 3, 7 };
    for (int k = 0; k < 4; k++) {
        State s = new_state(m, F32);
        threads_start(thread_counts[k]);
        const float *shared = forward(m, &s, ids, T, 0, T);
        threads_stop();
        CHECK(!memcmp(alone, shared, (size_t)T * m->config.vocab_size * sizeof *alone),
              "%s, %d threads give other bits than one", name, thread_counts[k]);
        state_free(&s);
    }
}

// Large enough for every product to be shared out. Against quantized weights an input that lies between two
// steps may be rounded down where the formulas round up: a few do, and each moves the logits by a step's part
// of them.
static void test_type(Type type) {
    Bytes file;
    Config c = { .dim = 256, .hidden_dim = 512, .n_layers = 1, .n_heads = 4, .n_kv_heads = 2,
                 .head_dim = 64, .rope_dim = 64, .vocab_size = 300, .seq_len = T };
    Model m = gguf_model(&file, "llama", &c, (Style){ type == Q8_PLANE ? F32 : type, false, false, true });
    if (type == Q8_PLANE) each_tensor(&m, make_plane);
    const int *ids = some_ids(&m.config);
    double *want = formulas(&m, ids);
    State s = new_state(&m, F32);
    const float *whole = forward(&m, &s, ids, T, 0, T);
    double off[T];
    distances(off, &m, whole, want);
    CHECK(off[T / 4] < 0.01, "%s: the logits of most tokens are off by %g of the largest", formats[type].name,
          off[T / 4]);
    CHECK(off[T - 1] < (formats[type].int8_input ? 0.1 : 1e-4), "%s: logits are off by %g of the largest",
          formats[type].name, off[T - 1]);
    test_chunks(&m, type, ids, whole);
    test_threads(&m, formats[type].name, ids, whole);
    state_free(&s), free(want);
    if (type == Q8_PLANE) each_tensor(&m, free_plane);
    model_free(&m), free_bytes(file);
}

int main(void) {
    static const char *const sets[] = { "portable", "avx2", "avx512", "neon", "neon-dot" };
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        if (!choose_kernels(sets[i])) continue;
        test_llama2c();
        test_architectures();
        for (int type = 0; type < N_TYPES; type++) test_type((Type)type);
    }
    return finish("test_formulas");
}
