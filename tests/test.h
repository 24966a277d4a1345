// test.h - what the tests share: a check that says what it wanted and what it got, random numbers that are
// the same in every run, and small models, GGUF files and vocabularies that live in memory.
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

// ---------------------------------------------------------------------------- matrices

static inline Matrix matrix(Type type, int rows, int cols, const void *data) {
    return (Matrix){ type, rows, cols, data, NULL, 0 };
}

static inline Tensor tensor(Op op, int layer, Type type, int rows, int cols, const void *data,
                            const float *bias) {
    return (Tensor){ op, layer, matrix(type, rows, cols, data), bias };
}

// out = w x + bias, in double
static inline void multiply(double *out, const Tensor *t, const double *x) {
    float *row = malloc((size_t)t->w.cols * sizeof *row);
    for (int r = 0; r < t->w.rows; r++) {
        out[r] = t->bias ? t->bias[r] : 0;
        kernels.decode[t->w.type](row, &t->w, r);
        for (int c = 0; c < t->w.cols; c++) out[r] += (double)row[c] * x[c];
    }
    free(row);
}

// Of the types that GGUF has, from ggml.h and ggml-common.h: its number, the bytes of a block, where in it
// lie the scale and, if there is one, the scale of the offset (-1: none), and which exponents, as halves have
// them, keep the largest weights near 1.
typedef struct { int number, bytes, scale, scale_exponent, offset, offset_exponent; } Layout;
static const Layout layouts[N_TYPES] = {
    [F32] = { 0, 4, -1, 0, -1, 0 },      [F16] = { 1, 2, 0, 14, -1, 0 },
    [BF16] = { 30, 2, -1, 0, -1, 0 },    [Q8_0] = { 8, 34, 0, 8, -1, 0 },
    [Q4_0] = { 2, 18, 0, 12, -1, 0 },    [Q4_1] = { 3, 20, 0, 11, 2, 14 },
    [Q5_0] = { 6, 22, 0, 11, -1, 0 },    [Q5_1] = { 7, 24, 0, 10, 2, 14 },
    [IQ4_NL] = { 20, 18, 0, 8, -1, 0 },  [Q2_K] = { 10, 84, 80, 10, 82, 11 },
    [Q3_K] = { 11, 110, 108, 8, -1, 0 }, [Q4_K] = { 12, 144, 0, 5, 2, 9 },
    [Q5_K] = { 13, 176, 0, 4, 2, 9 },    [Q6_K] = { 14, 210, 208, 3, -1, 0 },
};

static inline void random_half(uint8_t *out, int exponent) {
    Half half = (Half)((random_bits() & 0x83ff) | (uint32_t)exponent << 10);
    memcpy(out, &half, sizeof half);
}

// n numbers of a type, any but Q8_PLANE, as a file holds them: random bits around sensible scales.
static inline void *random_numbers(Type type, size_t n) {
    const Layout *l = &layouts[type];
    size_t blocks = n / (size_t)formats[type].block;
    uint8_t *out = malloc(blocks * (size_t)l->bytes + 1), *block = out;
    for (size_t b = 0; b < blocks; b++, block += l->bytes) {
        float f = random_float();
        for (int i = 0; i < l->bytes; i++) block[i] = (uint8_t)(random_bits() >> 13);
        if (type == F32) memcpy(block, &f, sizeof f);
        if (type == BF16) memcpy(block, (const uint8_t *)&f + 2, 2);            // the upper half of a float
        if (l->scale >= 0) random_half(block + l->scale, l->scale_exponent);
        if (l->offset >= 0) random_half(block + l->offset, l->offset_exponent);
    }
    return out;
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

// ---------------------------------------------------------------------------- GGUF files

typedef struct { uint8_t *data; size_t size, room; } Buffer;

static inline void write_bytes(Buffer *b, const void *bytes, size_t n) {
    if (b->size + n > b->room) b->data = realloc(b->data, b->room = 2 * (b->size + n));
    if (n) memcpy(b->data + b->size, bytes, n);
    b->size += n;
}
static inline void write_u32(Buffer *b, uint32_t value) { write_bytes(b, &value, sizeof value); }
static inline void write_u64(Buffer *b, uint64_t value) { write_bytes(b, &value, sizeof value); }
static inline void write_f32(Buffer *b, float value) { write_bytes(b, &value, sizeof value); }
static inline void write_text(Buffer *b, const char *text) {
    write_u64(b, strlen(text));
    write_bytes(b, text, strlen(text));
}
static inline void pad(Buffer *b, size_t alignment) {
    while (b->size % alignment) write_bytes(b, "", 1);
}

// A file in the making: {0} to begin with.
typedef struct {
    Buffer pairs, index, data;
    uint64_t n_pairs, n_tensors;
    uint32_t version, alignment;                        // 0: 3 and 32
    const char *without;                                // the add_...s leave this key or tensor out
} Writer;

// The value is the caller's to write, into what this returns.
static inline Buffer *put_key(Writer *w, const char *key, uint32_t type) {
    write_text(&w->pairs, key);
    write_u32(&w->pairs, type);
    w->n_pairs++;
    return &w->pairs;
}

static inline bool left_out(const Writer *w, const char *name) {
    return w->without && !strcmp(name, w->without);
}
static inline void add_u32(Writer *w, const char *key, uint32_t value) {
    if (!left_out(w, key)) write_u32(put_key(w, key, GGUF_U32), value);
}
static inline void add_f32(Writer *w, const char *key, float value) {
    if (!left_out(w, key)) write_f32(put_key(w, key, GGUF_F32), value);
}
static inline void add_bool(Writer *w, const char *key, uint8_t value) {
    if (!left_out(w, key)) write_bytes(put_key(w, key, GGUF_BOOL), &value, 1);
}
static inline void add_string(Writer *w, const char *key, const char *text) {
    if (!left_out(w, key)) write_text(put_key(w, key, GGUF_STRING), text);
}

static inline void put_tensor(Writer *w, const char *name, uint32_t type, uint32_t n_dims,
                              const uint64_t *shape, uint64_t offset) {
    write_text(&w->index, name);
    write_u32(&w->index, n_dims);
    for (uint32_t i = 0; i < n_dims; i++) write_u64(&w->index, shape[i]);
    write_u32(&w->index, type);
    write_u64(&w->index, offset);
    w->n_tensors++;
}

// rows 0: a vector
static inline void add_tensor(Writer *w, const char *name, Type type, int rows, int cols, const void *data) {
    if (left_out(w, name)) return;
    pad(&w->data, w->alignment ? w->alignment : 32);
    put_tensor(w, name, (uint32_t)layouts[type].number, rows ? 2 : 1,
               (uint64_t[]){ (uint64_t)cols, (uint64_t)rows }, w->data.size);
    write_bytes(&w->data, data,
                (size_t)(rows ? rows : 1) * (size_t)(cols / formats[type].block * layouts[type].bytes));
}

// The file, in a block of exactly its size, for free_bytes. The writer is empty again.
static inline Bytes written(Writer *w) {
    Buffer out = { 0 };
    write_bytes(&out, "GGUF", 4);
    write_u32(&out, w->version ? w->version : 3);
    write_u64(&out, w->n_tensors);
    write_u64(&out, w->n_pairs);
    write_bytes(&out, w->pairs.data, w->pairs.size);
    write_bytes(&out, w->index.data, w->index.size);
    pad(&out, w->alignment ? w->alignment : 32);
    write_bytes(&out, w->data.data, w->data.size);
    free(w->pairs.data), free(w->index.data), free(w->data.data);
    *w = (Writer){ .version = w->version, .alignment = w->alignment, .without = w->without };
    return (Bytes){ realloc(out.data, out.size), out.size };
}

// Random numbers that a name decides, so that a test can tell whose they are.
static inline void *numbers_of(const char *name, Type type, int rows, int cols) {
    uint32_t before = random_state;
    random_state = 2166136261u;
    for (const char *c = name; *c; c++) random_state = (random_state ^ (uint8_t)*c) * 16777619u;
    random_state |= 1;
    void *numbers = random_numbers(type, (size_t)(rows ? rows : 1) * (size_t)cols);
    for (int i = 0; i < cols && !rows; i++) ((float *)numbers)[i] *= 0.25f; // norms keep the residuals small
    random_state = before;
    return numbers;
}

static inline const char *full_name(char full[64], int layer, const char *name, const char *suffix) {
    if (layer < 0) snprintf(full, 64, "%s%s", name, suffix);
    else           snprintf(full, 64, "blk.%d.%s%s", layer, name, suffix);
    return full;
}

static inline void add_numbers(Writer *w, int layer, const char *name, const char *suffix, Type type,
                               int rows, int cols) {
    char full[64];
    full_name(full, layer, name, suffix);
    void *numbers = numbers_of(full, type, rows, cols);
    add_tensor(w, full, type, rows, cols, numbers);
    free(numbers);
}

typedef struct { Type type; bool tied, norm_biases, qkv_biases; } Style;

// The keys and tensors of a model; of the keys that have a default only those that differ from it.
static inline void add_model(Writer *w, const char *architecture, const Config *c, Style style) {
    bool stablelm = !strcmp(architecture, "stablelm");
    const struct { const char *name; int value; bool wanted; } keys[] = {
        { "context_length", c->seq_len, true },               { "embedding_length", c->dim, true },
        { "feed_forward_length", c->hidden_dim, true },       { "block_count", c->n_layers, true },
        { "attention.head_count", c->n_heads, true },
        { "attention.head_count_kv", c->n_kv_heads, c->n_kv_heads != c->n_heads },
        { "attention.key_length", c->head_dim, c->head_dim != c->dim / c->n_heads },
        { "attention.value_length", c->head_dim, c->head_dim != c->dim / c->n_heads },
        { "rope.dimension_count", c->rope_dim, c->rope_dim != c->head_dim },
    };
    char key[64];
    add_string(w, "general.architecture", architecture);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        snprintf(key, sizeof key, "%s.%s", architecture, keys[i].name);
        if (keys[i].wanted) add_u32(w, key, (uint32_t)keys[i].value);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm%s_epsilon", architecture, stablelm ? "" : "_rms");
    add_f32(w, key, 1e-3f);

    const struct { const char *name; int rows, cols; bool bias; } parts[] = {
        { "attn_norm", 0, c->dim, style.norm_biases },
        { "attn_q", c->n_heads * c->head_dim, c->dim, style.qkv_biases },
        { "attn_k", c->n_kv_heads * c->head_dim, c->dim, style.qkv_biases },
        { "attn_v", c->n_kv_heads * c->head_dim, c->dim, style.qkv_biases },
        { "attn_output", c->dim, c->n_heads * c->head_dim, false },
        { "ffn_norm", 0, c->dim, style.norm_biases },
        { "ffn_gate", c->hidden_dim, c->dim, false },
        { "ffn_up", c->hidden_dim, c->dim, false },
        { "ffn_down", c->dim, c->hidden_dim, false },
    };
    add_numbers(w, -1, "token_embd", ".weight", style.type, c->vocab_size, c->dim);
    for (int l = 0; l < c->n_layers; l++)
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
            int rows = parts[i].rows, cols = parts[i].cols;
            add_numbers(w, l, parts[i].name, ".weight", rows ? style.type : F32, rows, cols);
            if (parts[i].bias) add_numbers(w, l, parts[i].name, ".bias", F32, 0, rows ? rows : cols);
        }
    add_numbers(w, -1, "output_norm", ".weight", F32, 0, c->dim);
    if (style.norm_biases) add_numbers(w, -1, "output_norm", ".bias", F32, 0, c->dim);
    if (!style.tied) add_numbers(w, -1, "output", ".weight", style.type, c->vocab_size, c->dim);
}

// ---------------------------------------------------------------------------- a small vocabulary

// Pieces 0 to 2 are <unk>, <s> and </s>, then come the 256 bytes if wanted, then the given texts; scores
// NULL: the later, the lower, as in a trained vocabulary. The texts stay the caller's, and v stays where it
// is: the byte pieces point into it. vocabulary_free(v) when done.
static inline void small_vocabulary(Vocabulary *v, const char *const *texts, const float *scores, int n,
                                    bool byte_pieces) {
    static char forms[256][8];
    *v = (Vocabulary){ .bos = 1, .eos = 2, .eot = -1, .eom = -1, .add_bos = true, .add_space = true };
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
