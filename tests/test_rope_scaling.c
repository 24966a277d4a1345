// test_rope_scaling.c - the frequencies that a GGUF file's keys and rope_freqs.weight ask for, against the
// published formulas in double.
#include "test.h"

enum { HEAD = 64, N = HEAD / 2 };
static const Config shape = { .dim = HEAD,
                              .hidden_dim = 4,
                              .n_layers = 1,
                              .n_heads = 1,
                              .n_kv_heads = 1,
                              .head_dim = HEAD,
                              .vocab_size = 3,
                              .seq_len = 8,
                              .rope_dim = HEAD };

// The model's frequencies are these; or it is refused, with that word.
static void check_frequencies(const char *what, Writer *w, const char *architecture, const Config *c,
                              const double *want, const char *word) {
    add_model(w, architecture, c, (Style){ F32, true, false, false });
    Bytes file = written(w);
    Model m;
    const char *error = checkpoint_read(&m, file);
    if (word)
        CHECK(is_sentence(error) && strstr(error, word), "%s: wanted a refusal with '%s', got %s", what, word,
              error ? error : "a model");
    else CHECK(!error, "%s: %s", what, error);
    for (int i = 0; i < c->rope_dim / 2 && !error && want; i++)
        CHECK(near(m.frequencies[i], want[i], 2e-6 * want[i]), "%s, pair %d: wanted %.9g, got %.9g", what, i,
              want[i], m.frequencies[i]);
    model_free(&m), free_bytes(file);
}

static void frequencies(double *f, int rope_dim, double theta) {
    for (int i = 0; i < rope_dim / 2; i++) f[i] = pow(theta, -2.0 * i / rope_dim);
}

static void test_plain(void) {
    double want[N];
    Writer w = { 0 };
    frequencies(want, HEAD, 10000);
    check_frequencies("the default", &w, "llama", &shape, want, NULL);
    frequencies(want, HEAD, 500000);
    add_f32(&w, "llama.rope.freq_base", 500000);
    check_frequencies("theta 500000", &w, "llama", &shape, want, NULL);
    Config c = shape;
    c.rope_dim = 16;                                    // a quarter of the head: 16 is what counts, not 64
    frequencies(want, 16, 10000);
    check_frequencies("a quarter", &w, "stablelm", &c, want, NULL);
    check_frequencies("a quarter", &w, "llama", &c, want, NULL);
}

// Positions of a longer context pressed into that of the training: Chen et al. 2023.
static void test_linear(void) {
    double want[N];
    Writer w = { 0 };
    frequencies(want, HEAD, 10000);
    for (int i = 0; i < N; i++) want[i] /= 4;
    add_string(&w, "llama.rope.scaling.type", "linear"), add_f32(&w, "llama.rope.scaling.factor", 4);
    check_frequencies("linear", &w, "llama", &shape, want, NULL);
    add_f32(&w, "llama.rope.scale_linear", 4);          // the old key
    check_frequencies("scale_linear", &w, "llama", &shape, want, NULL);
    frequencies(want, HEAD, 10000);
    add_string(&w, "llama.rope.scaling.type", "none"), add_f32(&w, "llama.rope.scaling.factor", 4);
    check_frequencies("none", &w, "llama", &shape, want, NULL);
}

// Meta's reference code of Llama 3.1, apply_scaling.
static double llama3(double f, double factor, double low, double high, double original) {
    double wavelength = 2 * acos(-1) / f;
    if (wavelength < original / high) return f;
    if (wavelength > original / low) return f / factor;
    double smooth = (original / wavelength - low) / (high - low);
    return (1 - smooth) * f / factor + smooth * f;
}

static void test_llama3(void) {
    static const struct { float factor, low, high; uint32_t original; } cases[] = {
        { 8, 1, 4, 8192 }, { 32, 1, 4, 8192 }, { 4, 0.5f, 8, 512 }, { 8, 1, 1.25f, 64 },
    };
    double want[N];
    Writer w = { 0 };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        int slowed = 0, between = 0;
        frequencies(want, HEAD, 500000);
        for (int i = 0; i < N; i++) {
            double f = want[i];
            want[i] = llama3(f, cases[k].factor, cases[k].low, cases[k].high, cases[k].original);
            slowed += want[i] == f / cases[k].factor, between += want[i] < f && want[i] > f / cases[k].factor;
        }
        CHECK(slowed > 2 && (between > 1 || k == 3), "case %zu shows little: %d slowed, %d between", k,
              slowed, between);
        add_f32(&w, "llama.rope.freq_base", 500000);
        add_string(&w, "llama.rope.scaling.type", "llama3");
        add_f32(&w, "llama.rope.scaling.factor", cases[k].factor);
        add_f32(&w, "llama.rope.scaling.low_freq_factor", cases[k].low);
        add_f32(&w, "llama.rope.scaling.high_freq_factor", cases[k].high);
        add_u32(&w, "llama.rope.scaling.original_context_length", cases[k].original);
        check_frequencies("llama3", &w, "llama", &shape, want, NULL);
    }
    add_string(&w, "llama.rope.scaling.type", "llama3");
    add_f32(&w, "llama.rope.scaling.low_freq_factor", 4),
        add_f32(&w, "llama.rope.scaling.high_freq_factor", 4);
    check_frequencies("low and high are one", &w, "llama", &shape, NULL, "high_freq_factor");
}

// The same, computed by who made the file: each frequency is divided by its number.
static void test_rope_freqs(void) {
    double want[N];
    float factors[N + 1];
    Writer w = { 0 };
    frequencies(want, HEAD, 500000);
    for (int i = 0; i < N; i++) {
        factors[i] = (float)(want[i] / llama3(want[i], 8, 1, 4, 8192));
        want[i] /= factors[i];
    }
    for (int i = 0; i < 2; i++) {
        add_f32(&w, "llama.rope.freq_base", 500000);
        if (i)
            add_string(&w, "llama.rope.scaling.type", "llama3"),
                add_f32(&w, "llama.rope.scaling.factor", 8); // not twice
        add_tensor(&w, "rope_freqs.weight", F32, 0, N, factors);
        check_frequencies("rope_freqs", &w, "llama", &shape, want, NULL);
    }
    add_tensor(&w, "rope_freqs.weight", F32, 0, N - 1, factors);
    check_frequencies("one factor less", &w, "llama", &shape, NULL, "rope_freqs");
    factors[N] = 1;
    add_tensor(&w, "rope_freqs.weight", F32, 0, N + 1, factors);
    check_frequencies("one factor more", &w, "llama", &shape, NULL, "rope_freqs");
    add_tensor(&w, "rope_freqs.weight", F16, 0, N, factors);
    check_frequencies("factors of F16", &w, "llama", &shape, NULL, "rope_freqs");
    for (int i = 0; i < 4; i++) {
        factors[7] = (float[]){ 0, -1, NAN, INFINITY }[i];
        add_tensor(&w, "rope_freqs.weight", F32, 0, N, factors);
        check_frequencies("an impossible factor", &w, "llama", &shape, NULL, "rope_freqs");
    }
}

int main(void) {
    test_plain();
    test_linear();
    test_llama3();
    test_rope_freqs();
    return finish("test_rope_scaling");
}
