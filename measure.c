// measure.c - numbers about a run: time, bytes, the logits and a hash of them, perplexity, bench.
#include "model.h"
#include <math.h>
#include <stdatomic.h>
#include <string.h>

// Every matrix once, but for the embedding, of which a row is next to nothing.
size_t bytes_per_token(const Model *m) {
    size_t sum = matrix_bytes(&m->weights.classifier.w);
    for (const Layer *l = m->weights.layers; l < m->weights.layers + m->config.n_layers; l++)
        sum += matrix_bytes(&l->wq.w) + matrix_bytes(&l->wk.w) + matrix_bytes(&l->wv.w) +
               matrix_bytes(&l->wo.w) + matrix_bytes(&l->w_gate.w) + matrix_bytes(&l->w_up.w) +
               matrix_bytes(&l->w_down.w);
    return sum;
}

uint64_t hash_logits(const float *logits, int n) {      // FNV-1a, 64 bits
    const uint8_t *bytes = (const uint8_t *)logits;
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t i = 0; i < n * sizeof *logits; i++) hash = (hash ^ bytes[i]) * 0x100000001b3;
    return hash;
}

// ---------------------------------------------------------------------------- NumPy's files, version 1.0
//
//   "\x93NUMPY" 1 0, length of the rest of the header:u16, a Python dict, spaces up to 128 bytes, the numbers

static void npy_header(FILE *f, int rows, int cols) {
    char header[118];
    int n = snprintf(header, sizeof header, "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }",
                     rows, cols);
    memset(header + n, ' ', sizeof header - (size_t)n);
    header[sizeof header - 1] = '\n';
    fwrite("\x93NUMPY\1\0\x76\0", 1, 10, f);
    fwrite(header, 1, sizeof header, f);
}

FILE *npy_open(const char *path) {
    FILE *f = open_file(path, "wb");
    if (f) npy_header(f, 0, 0);                         // the shape is known at the end
    return f;
}

bool npy_close(FILE *f, int rows, int cols) {
    bool good = !ferror(f) && fseek(f, 0, SEEK_SET) == 0;
    npy_header(f, rows, cols);
    good = good && !ferror(f);
    return fclose(f) == 0 && good;
}

// ---------------------------------------------------------------------------- perplexity
//
//   exp(mean of -log p(id | the ids before it in its window))
//
// Windows of the whole context follow one another, the rest of the text is dropped. The first id of each
// gives way to BOS, and only the second half is scored, where there is enough to go by. These are llama.cpp's
// windows, so the numbers compare.

double surprise(const float *logits, int n, int id) {
    double max = logits[0], sum = 0;
    for (int i = 1; i < n; i++) max = logits[i] > max ? logits[i] : max;
    for (int i = 0; i < n; i++) sum += exp(logits[i] - max);
    return log(sum) + max - logits[id];
}

const char *why_not_finite(const State *s) {
    return s->kv_type == F32 ? "the weights are damaged"
                             : "the weights are damaged, or too large for a cache of F16 (try --kv f32)";
}

const char *perplexity(Perplexity *p, const Model *m, State *s, const Vocabulary *v, int *ids, int n,
                       bool progress, const volatile sig_atomic_t *stop) {
    int N = s->context, vocab_size = m->config.vocab_size;
    double sum = 0, squares = 0;
    if (N < 4) return complain("a context of %d is too short to score anything", N);
    *p = (Perplexity){ .windows = n / N, .all = n / N };
    if (!p->windows) return complain("the text has %d tokens, fewer than one window of %d", n, N);
    for (int w = 0; w < p->windows; w++, ids += N) {
        if (v->add_bos && v->bos >= 0) ids[0] = v->bos;
        for (int pos = 0, T; pos < N; pos += T) {
            T = N - pos < s->max_tokens ? N - pos : s->max_tokens;
            int unscored = N / 2 - pos, wanted = unscored < 0 ? T : unscored < T ? T - unscored : 0;
            const float *logits = forward(m, s, ids + pos, T, pos, wanted);
            for (int i = pos + T - wanted; i < pos + T && i < N - 1; i++, logits += vocab_size) {
                double nll = surprise(logits, vocab_size, ids[i + 1]);
                if (!isfinite(nll))
                    return complain("the logits at position %d of window %d are not finite: %s", i, w + 1,
                                    why_not_finite(s));
                sum += nll, squares += nll * nll, p->tokens++;
            }
        }
        double so_far = exp(sum / (double)p->tokens);
        if (progress) fprintf(stderr, "\rwindow %d of %d: perplexity %.4f ", w + 1, p->windows, so_far);
        if (*stop) p->windows = w + 1;
    }
    if (progress) fputc('\n', stderr);
    double mean = sum / (double)p->tokens, variance = squares / (double)p->tokens - mean * mean;
    p->perplexity = exp(mean);
    bool spread = p->tokens > 1 && variance > 0;
    p->standard_error = spread ? sqrt(variance / (double)(p->tokens - 1)) * p->perplexity : 0;
    return NULL;
}

// ---------------------------------------------------------------------------- bench
//
// A prompt is read, and text written after it; again and again. Where the time goes is told by the events, in
// a run of its own. The limit of writing is how fast the weights can be read at all: through the same
// mapping, by the same threads, after each run: on a shared machine it changes from one second to the next.

double mean_of(const double *x, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i];
    return sum / n;
}

double deviation_of(const double *x, int n) {
    double mean = mean_of(x, n), sum = 0;
    for (int i = 0; i < n; i++) sum += (x[i] - mean) * (x[i] - mean);
    return n > 1 ? sqrt(sum / (n - 1)) : 0;
}

typedef struct { const uint8_t *data; bool early; atomic_ullong sum; } Reading;

// Lines of 64 bytes at four places, as memory delivers several streams at once. Each place has a load of its
// own in the program: by these, CPUs tell streams apart. Whether to ask early for what comes there depends on
// the CPU.
static void read_lines(void *job, int begin, int end) {
    Reading *r = job;
    uint64_t sum[8] = { 0 };
    int apart = (end - begin + 3) / 4;
    for (int i = begin; i < begin + apart; i++)
        #pragma GCC unroll 4
        for (int place = 0; place < 4; place++) {
            int at = i + place * apart;
            const uint8_t *line = r->data + 64 * (size_t)(at < end ? at : end - 1);
            if (r->early) __builtin_prefetch(line + 2048);
            for (int j = 0; j < 8; j++) {
                uint64_t word;
                memcpy(&word, line + 8 * j, sizeof word);
                sum[j] += word;
            }
        }
    for (int j = 1; j < 8; j++) sum[0] += sum[j];
    atomic_fetch_add(&r->sum, sum[0]);                  // or the compiler would see that nobody wants it
}

static double read_weights(const Matrix *w, bool early) {
    Reading r = { .data = w->data, .early = early };
    size_t lines = matrix_bytes(w) / 64;
    if (lines > 1 << 30) lines = 1 << 30;
    parallel_for((int)lines, 4096, read_lines, &r);
    return 64.0 * (double)lines;
}

// Bytes/s of some passes over all matrices, in the better of the two ways.
static double read_limit(const Model *m) {
    enum { PASSES = 4 };
    double best = 0;
    for (int early = 0; early < 2; early++) {
        double bytes = 0, started = seconds();
        for (int pass = 0; pass < PASSES; pass++) {
            for (int i = 0; i < m->config.n_layers; i++) {
                const Layer *l = m->weights.layers + i;
                const Tensor *all[] = { &l->wq, &l->wk, &l->wv, &l->wo, &l->w_gate, &l->w_up, &l->w_down };
                for (int k = 0; k < 7; k++) bytes += read_weights(&all[k]->w, early);
            }
            bytes += read_weights(&m->weights.classifier.w, early);
        }
        double rate = bytes / (seconds() - started);
        best = rate > best ? rate : best;
    }
    return best;
}

typedef struct { double last, spent[5]; long norms; } Profile;

// What was computed since the last event took the time since then.
static void take_time(void *context, const Event *e) {
    static const int kinds[N_OPS] = {
        [EMBED] = 4, [ATTN_NORM] = 0, [Q] = 3, [K] = 3, [V] = 3, [Q_ROPE] = 1, [K_ROPE] = 1, [WEIGHTS] = 1,
        [MIX] = 1, [ATTN_OUT] = 3, [RESID_MID] = 4, [FFN_NORM] = 0, [GATE] = 3, [UP] = 3, [HIDDEN] = 2,
        [FFN_OUT] = 3, [RESID] = 4, [FINAL_NORM] = 0, [LOGITS] = 3,
    };
    Profile *p = context;
    double now = seconds();
    p->spent[kinds[e->op]] += now - p->last;
    p->norms += kinds[e->op] == 0 ? e->rows : 0;
    p->last = now;
}

typedef void Feed(const Model *m, State *s, int from, int n);

// Any ids will do: every token costs the same.
static void read_tokens(const Model *m, State *s, int from, int n) {
    int ids[PROMPT_CHUNK];
    for (int i = 0; i < n; i++) ids[i] = i * 11 % m->config.vocab_size;
    forward(m, s, ids, n, from, 1);
}

static void write_tokens(const Model *m, State *s, int from, int n) {
    for (int i = 0; i < n; i++) forward(m, s, &(int){ i * 7 % m->config.vocab_size }, 1, from + i, 1);
}

static void time_run(Phase *p, int run, Feed *feed, const Model *m, State *s, int from) {
    double started = seconds(), used = processor_seconds();
    feed(m, s, from, p->tokens);
    if (run < 0) return;
    p->runs[run] = p->tokens / (seconds() - started);
    p->cpu_runs[run] = p->tokens / (processor_seconds() - used);
}

// Of some passes the fastest counts: what else runs on the machine was not there.
static void time_parts(Phase *phase, int passes, Feed *feed, const Model *m, State *s, int from) {
    double best = INFINITY;
    s->spares_weights = true;
    for (int pass = 0; pass < passes; pass++) {
        double started = seconds();
        Profile p = { .last = started };
        s->observer = take_time, s->observer_context = &p;
        feed(m, s, from, phase->tokens);
        double total = seconds() - started;
        if (total >= best) continue;
        best = total;
        for (int i = 0; i < 5; i++) phase->share[i] = p.spent[i] / total;
        phase->norm_ns = 1e9 * p.spent[0] / (double)p.norms;
    }
    s->observer = NULL;
}

const char *bench(Bench *b, const Model *m, Type kv, int context, int runs, bool progress,
                  const volatile sig_atomic_t *stop) {
    enum { PROMPT = PROMPT_CHUNK, WRITTEN = 128 };
    State s;
    int most = context < PROMPT + WRITTEN ? context : PROMPT + WRITTEN;
    if (most < 2) return "a context of 1 is too short to measure anything";
    int written = most < 2 * WRITTEN ? most / 2 : WRITTEN, prompt = most - written;
    *b = (Bench){ .prefill.tokens = prompt, .decode.tokens = written };
    const char *error = state_create(&s, &m->config, most, prompt, 1, kv);
    if (error) return error;
    for (int run = -1; run < runs && !*stop; run++) {   // the first one warms up
        if (progress) fprintf(stderr, "\rrun %d of %d ", run + 1, runs);
        time_run(&b->prefill, run, read_tokens, m, &s, 0);
        time_run(&b->decode, run, write_tokens, m, &s, prompt);
        b->runs = run + 1;
        if (run >= 0) b->read_limits[run] = read_limit(m);
    }
    if (progress) fputc('\n', stderr);
    int passes = runs < 3 ? runs : 3;
    if (!*stop) time_parts(&b->prefill, passes, read_tokens, m, &s, 0);
    if (!*stop) time_parts(&b->decode, passes, write_tokens, m, &s, prompt);
    state_free(&s);
    return b->runs ? NULL : "stopped before the first run was over";
}
