// test_ffn.c - SwiGLU: silu at known places, a feed-forward network by hand, a larger one against double.
#include "test.h"

// A model that is one feed-forward layer.
static Model one_layer(Layer *layer, int dim, int hidden_dim, const float *gate, const float *up,
                       const float *down) {
    *layer = (Layer){ .w_gate = tensor(GATE, 0, F32, hidden_dim, dim, gate, NULL),
                      .w_up = tensor(UP, 0, F32, hidden_dim, dim, up, NULL),
                      .w_down = tensor(FFN_OUT, 0, F32, dim, hidden_dim, down, NULL) };
    Config c = { .dim = dim, .hidden_dim = hidden_dim, .n_layers = 1, .n_heads = 1, .n_kv_heads = 1,
                 .head_dim = dim, .vocab_size = 1, .seq_len = 1 };
    return (Model){ .config = c, .weights = { .layers = layer } };
}

static float hidden[64];
static int n_hidden;
static void listen(void *context, const Event *e) {
    (void)context;
    if (e->op == HIDDEN) memcpy(hidden, e->data, (n_hidden = e->rows * e->cols) * sizeof *hidden);
}

static void feed(const Model *m, State *s, const float *x, int T) {
    const char *error = state_create(s, &m->config, 1, T, 1, F32);
    CHECK(!error, "%s", error);
    s->T = T;
    memcpy(s->xb, x, (size_t)T * m->config.dim * sizeof *x);
}

// With x = 1 and W_up = 1 the hidden numbers are silu of the gate's weights. silu(z) = z / (1 + e^-z):
// silu(1) = 1 / (1 + 0.36787944) = 0.73105858; silu(-1) = silu(1) - 1, as silu(z) - silu(-z) = z.
static void test_silu(void) {
    static const float gate[] = { 0, 1, -1, 2, -2, 10, -10, 100, -100, 1000, -1000, 1e30f, -1e30f };
    static const double want[] = { 0, 0.7310585786, -0.2689414214, 1.7615941560, -0.2384058440, 9.9995460213,
                                   -0.00045397868702, 100, -3.7200759760e-42, 1000, 0, 1e30, 0 };
    enum { N = sizeof gate / sizeof *gate };
    float ones[N];
    for (int i = 0; i < N; i++) ones[i] = 1;
    Layer layer;
    Model m = one_layer(&layer, 1, N, gate, ones, ones);
    State s;
    feed(&m, &s, ones, 1);
    s.observer = listen;
    ffn(&m, &s, 0);
    CHECK(n_hidden == N, "wanted %d hidden numbers, got %d", N, n_hidden);
    for (int i = 0; i < N; i++)                         // e^100 is no float: 0 is close enough to -4e-42
        CHECK(near(hidden[i], want[i], 2e-7 * fabs(want[i]) + 1e-41), "silu(%g): wanted %.9g, got %.9g",
              gate[i], want[i], hidden[i]);
    state_free(&s);
}

// Two tokens, [1 2] and [-1 0]:
//   gate = [1 0; 0 0] x = [1 0], [-1 0];   silu: [0.7310586 0], [-0.2689414 0]
//   up   = [1 1; 1 2] x = [3 5], [-1 -1];  hidden: [2.1931757 0], [0.2689414 0]
//   down = [1 7; 10 7] hidden:             [2.1931757 21.931757], [0.2689414 2.689414]
static void test_by_hand(void) {
    Layer layer;
    Model m = one_layer(&layer, 2, 2, (const float[]){ 1, 0, 0, 0 }, (const float[]){ 1, 1, 1, 2 },
                        (const float[]){ 1, 7, 10, 7 });
    const double want[] = { 2.1931757, 21.931757, 0.2689414, 2.689414 };
    State s;
    feed(&m, &s, (const float[]){ 1, 2, -1, 0 }, 2);
    ffn(&m, &s, 0);
    for (int i = 0; i < 4; i++)
        CHECK(near(s.xb[i], want[i], 3e-7 * want[i]), "[%d]: wanted %.8g, got %.8g", i, want[i], s.xb[i]);
    state_free(&s);
}

// Large enough that the threads share it, against the formula in double.
static void test_against_formula(void) {
    enum { DIM = 24, HIDDEN_DIM = 300, T = 41 };
    float *x = random_floats(T * DIM), *gate = random_floats(HIDDEN_DIM * DIM),
          *up = random_floats(HIDDEN_DIM * DIM), *down = random_floats(DIM * HIDDEN_DIM);
    static double want[T * DIM], h[HIDDEN_DIM];
    for (int t = 0; t < T; t++) {
        for (int i = 0; i < HIDDEN_DIM; i++) {
            double g = 0, u = 0;
            for (int c = 0; c < DIM; c++)
                g += (double)gate[i * DIM + c] * x[t * DIM + c],
                    u += (double)up[i * DIM + c] * x[t * DIM + c];
            h[i] = g / (1 + exp(-g)) * u;
        }
        for (int r = 0; r < DIM; r++)
            for (int i = 0; i < HIDDEN_DIM; i++) want[t * DIM + r] += down[r * HIDDEN_DIM + i] * h[i];
    }
    Layer layer;
    Model m = one_layer(&layer, DIM, HIDDEN_DIM, gate, up, down);
    float first[T * DIM];
    static const int thread_counts[] = { 1, 2, 3, 7 };
    for (int k = 0; k < 4; k++) {
        State s;
        feed(&m, &s, x, T);
        threads_start(thread_counts[k]);
        ffn(&m, &s, 0);
        threads_stop();
        double worst = 0;                               // of outputs around 30, each a sum of 300 roundings
        for (int i = 0; i < T * DIM; i++) worst = worse(worst, fabs(s.xb[i] - want[i]));
        CHECK(worst < 1e-4, "%d threads: %g away from the formula", thread_counts[k], worst);
        if (k == 0) memcpy(first, s.xb, sizeof first);
        CHECK(!memcmp(first, s.xb, sizeof first), "%d threads give other bits than one", thread_counts[k]);
        state_free(&s);
    }
    free(x), free(gate), free(up), free(down);
}

int main(void) {
    choose_kernels(NULL);
    test_silu();
    test_by_hand();
    test_against_formula();
    return finish("test_ffn");
}
