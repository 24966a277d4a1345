// test.h - what the tests share: a check that says what it wanted and what it got, random numbers that are
// the same in every run, and small models and vocabularies that live in memory.
#ifndef TEST_H
#define TEST_H

#include "../model.h"
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

// ---------------------------------------------------------------------------- checks

static int checks, failures;

static inline void disagree(const char *file, int line, const char *condition, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static inline void disagree(const char *file, int line, const char *condition, const char *format, ...) {
    if (failures++ >= 20) return;                       // the first ones say enough
    va_list arguments;
    va_start(arguments, format);
    printf("%s:%d: not so: %s: ", file, line, condition);
    vprintf(format, arguments);
    putchar('\n');
    va_end(arguments);
}

// CHECK(sum == 3, "wanted 3, got %d", sum)
#define CHECK(condition, ...) \
    (checks++, (condition) ? (void)0 : disagree(__FILE__, __LINE__, #condition, __VA_ARGS__))

// The last line of every main: return finish("test_rmsnorm");
static inline int finish(const char *name) {
    if (failures) printf("%s: %d checks, %d FAILED\n", name, checks, failures);
    else printf("%s: %d checks\n", name, checks);
    return failures > 0;
}

// Is it that number, give or take the tolerance? A NaN never is.
static inline bool near(double got, double want, double tolerance) { return fabs(got - want) <= tolerance; }

// The largest difference so far; a NaN stays one.
static inline double worse(double worst, double next) { return isnan(worst) || next <= worst ? worst : next; }

static inline bool is_sentence(const char *error) { return error && strlen(error) > 8; }

// Sanitizers make everything several times slower: what takes long does less under them.
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
enum { SANITIZED = true };
#elif defined __clang__
enum { SANITIZED = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) };
#else
enum { SANITIZED = false };
#endif

// ---------------------------------------------------------------------------- random numbers

static uint32_t random_state = 1;

static inline uint32_t random_bits(void) {              // xorshift32, Marsaglia 2003
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    return random_state ^= random_state << 5;
}
static inline int random_below(int n) { return (int)(random_bits() % (uint32_t)n); }
static inline float random_float(void) {                // [-1, 1)
    return (float)((int)(random_bits() >> 8) - (1 << 23)) * 0x1p-23f;
}

static inline float *random_floats(size_t n) {
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = random_float();
    return x;
}

// ---------------------------------------------------------------------------- a small model

// A llama2.c checkpoint of version 0: seven ints, then the weights (as llama2.c's export.py writes them),
// here all random from -1 to 1, those of the norms too. Of the config: dim, hidden_dim, n_layers, n_heads,
// n_kv_heads, vocab_size, seq_len. Free the bytes with free_bytes once the model is gone.
static inline Bytes random_checkpoint(const Config *c, bool tied) {
    size_t dim = c->dim, hidden_dim = c->hidden_dim, head_dim = dim / c->n_heads,
           kv_dim = c->n_kv_heads * head_dim;
    size_t layer = 2 * dim + 2 * dim * dim + 2 * kv_dim * dim + 3 * hidden_dim * dim;
    size_t n = c->n_layers * layer + dim + c->seq_len * head_dim + c->vocab_size * dim * (tied ? 1 : 2);
    int header[7] = { c->dim, c->hidden_dim, c->n_layers, c->n_heads, c->n_kv_heads,
                      tied ? c->vocab_size : -c->vocab_size, c->seq_len };
    char *data = malloc(sizeof header + n * sizeof(float));
    memcpy(data, header, sizeof header);
    for (size_t i = 0; i < n; i++) {
        float x = random_float();
        memcpy(data + sizeof header + i * sizeof x, &x, sizeof x);
    }
    return (Bytes){ (uint8_t *)data, sizeof header + n * sizeof(float) };
}

static inline void free_bytes(Bytes b) { free((void *)(uintptr_t)b.data); }

static inline Model random_model(Bytes *file, const Config *c, bool tied) {
    Model m;
    *file = random_checkpoint(c, tied);
    const char *error = checkpoint_read(&m, *file);
    if (!error) return m;
    printf("a model of random weights was refused: %s\n", error);
    exit(1);
}

// ---------------------------------------------------------------------------- a small vocabulary

// Pieces 0 to 2 are <unk>, <s> and </s>, then come the 256 bytes if wanted, then the given texts; scores
// NULL: the later, the lower, as in a trained vocabulary. The texts stay the caller's, and v stays where it
// is: the byte pieces point into it. vocabulary_free(v) when done.
static inline void small_vocabulary(Vocabulary *v, const char *const *texts, const float *scores, int n,
                                    bool byte_pieces) {
    static char forms[256][8];
    *v = (Vocabulary){ .bos = 1, .eos = 2, .add_space = true };
    v->pieces = malloc((size_t)(n + 259) * sizeof *v->pieces);
    v->pieces[v->size++] = (Piece){ "<unk>", 5, 0, UNKNOWN };
    v->pieces[v->size++] = (Piece){ "<s>", 3, 0, CONTROL };
    v->pieces[v->size++] = (Piece){ "</s>", 4, 0, CONTROL };
    for (int byte = 0; byte < 256 && byte_pieces; byte++) {
        snprintf(forms[byte], sizeof forms[byte], "<0x%02X>", byte);
        v->pieces[v->size++] = (Piece){ forms[byte], 6, 0, BYTE };
    }
    for (int i = 0; i < n; i++)
        v->pieces[v->size++] =
            (Piece){ texts[i], (int)strlen(texts[i]), scores ? scores[i] : (float)-i, NORMAL };
    const char *error = vocabulary_index(v);
    if (!error) return;
    printf("a small vocabulary was refused: %s\n", error);
    exit(1);
}

#endif
