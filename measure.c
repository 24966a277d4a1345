// measure.c - numbers about a run: time, bytes, a hash of the logits, and the logits themselves.
#include "model.h"
#include <math.h>
#include <string.h>
#include <time.h>

double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

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
    FILE *f = fopen(path, "wb");
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

// -log softmax(logits)[id]
static double surprise(const float *logits, int n, int id) {
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
    *p = (Perplexity){ .windows = n / N };
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
