// checkpoint.c - from a file to a model: what the keys and tensors of a GGUF file mean; llama2.c's have none.
//
// Architectures: llama, and stablelm, which is llama with LayerNorm and a rotation of only the first part of
// each head, by halves. Keys begin with the architecture's name, tensors of layer l with "blk.l."; what is
// optional has a default, what changes the result and is not known here is refused by name.
#include "model.h"
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

// ---------------------------------------------------------------------------- typed values

// A reader with a sticky error: of all that goes wrong, the first is told.
typedef struct { const Gguf *g; const char *architecture, *error; } Reader;

static const GgufPair *find(Reader *r, const char *key) {
    char name[128];                                     // "*.rope.freq_base": the star is the architecture
    if (*key == '*') snprintf(name, sizeof name, "%s%s", r->architecture, key + 1);
    return gguf_find(r->g, *key == '*' ? name : key);
}

static void refuse(Reader *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void refuse(Reader *r, const char *format, ...) {
    if (r->error) return;
    va_list arguments;
    va_start(arguments, format);
    r->error = complain_list(format, arguments);
    va_end(arguments);
}

static void wrong_type(Reader *r, const GgufPair *p, const char *wanted) {
    refuse(r, "%.*s has the type %s; %s is wanted", text_length(p->key), p->key.data,
           gguf_value_name(p->type), wanted);
}

// A whole number of any integer type, from least to most. Where the key is missing: fallback, or, if that is
// -1, an error.
static int64_t read_int(Reader *r, const char *key, int64_t fallback, int64_t least, int64_t most) {
    const GgufPair *p = find(r, key);
    if (!p && fallback >= 0) return fallback;
    if (!p) {
        refuse(r, "the key %s%s is missing", *key == '*' ? r->architecture : "", key + (*key == '*'));
        return least;
    }
    static const int8_t sign[N_GGUF_TYPES] = {
        [GGUF_I8] = 1, [GGUF_I16] = 1, [GGUF_I32] = 1, [GGUF_I64] = 1
    };
    static const int8_t size[N_GGUF_TYPES] = {
        [GGUF_U8] = 1,  [GGUF_I8] = 1,  [GGUF_U16] = 2, [GGUF_I16] = 2,
        [GGUF_U32] = 4, [GGUF_I32] = 4, [GGUF_U64] = 8, [GGUF_I64] = 8
    };
    if (!size[p->type]) {
        wrong_type(r, p, "a whole number");
        return least;
    }
    uint64_t bits = 0;
    memcpy(&bits, p->items.at, (size_t)size[p->type]);
    bool negative = sign[p->type] && bits >> (8 * size[p->type] - 1);
    if (negative || bits < (uint64_t)least || bits > (uint64_t)most) {
        if (negative) bits |= size[p->type] == 8 ? 0 : UINT64_MAX << 8 * size[p->type];
        refuse(r, "%.*s is %s%llu; %lld to %lld is possible", text_length(p->key), p->key.data,
               negative ? "-" : "", (unsigned long long)(negative ? 0 - bits : bits), (long long)least,
               (long long)most);
        return least;
    }
    return (int64_t)bits;
}

static float read_float(Reader *r, const char *key, float fallback, float least, float most) {
    const GgufPair *p = find(r, key);
    if (!p) return fallback;
    if (p->type != GGUF_F32) {
        wrong_type(r, p, "f32");
        return fallback;
    }
    Cursor value = p->items;
    float x = take_f32(&value);
    if (!(x >= least && x <= most))
        refuse(r, "%.*s is %g; %g to %g is possible", text_length(p->key), p->key.data, x, least, most);
    return x;
}

static bool read_bool(Reader *r, const char *key, bool fallback) {
    const GgufPair *p = find(r, key);
    if (!p) return fallback;
    if (p->type != GGUF_BOOL) {
        wrong_type(r, p, "bool");
        return fallback;
    }
    return *p->items.at != 0;
}

// Empty where the key is missing.
static Text read_string(Reader *r, const char *key) {
    const GgufPair *p = find(r, key);
    if (!p) return (Text){ "", 0 };
    if (p->type != GGUF_STRING) {
        wrong_type(r, p, "string");
        return (Text){ "", 0 };
    }
    Cursor value = p->items;
    return take_string(&value);
}

static bool is(Text text, const char *word) {
    return text.size == strlen(word) && !memcmp(text.data, word, text.size);
}

// An array of one kind of items; NULL, and no error, where the key is missing.
static const GgufPair *read_array(Reader *r, const char *key, GgufType items) {
    const GgufPair *p = find(r, key);
    if (!p) return NULL;
    if (p->type == GGUF_ARRAY && p->item_type == items) return p;
    refuse(r, "%s holds %s%s; an array of %s is wanted", key, p->type == GGUF_ARRAY ? "an array of " : "",
           gguf_value_name(p->item_type), gguf_value_name(items));
    return NULL;
}

// ---------------------------------------------------------------------------- the blueprint

enum { MOST_DIM = 1 << 20, MOST_LAYERS = 1 << 16, MOST_VOCAB = 1 << 24 };

static void read_config(Reader *r, Config *c) {
    bool stablelm = !strcmp(r->architecture, "stablelm");
    c->seq_len    = (int)read_int(r, "*.context_length", -1, 1, INT32_MAX);
    c->dim        = (int)read_int(r, "*.embedding_length", -1, 1, MOST_DIM);
    c->hidden_dim = (int)read_int(r, "*.feed_forward_length", -1, 1, MOST_DIM);
    c->n_layers   = (int)read_int(r, "*.block_count", -1, 1, MOST_LAYERS);
    c->n_heads    = (int)read_int(r, "*.attention.head_count", -1, 1, MOST_DIM);
    c->n_kv_heads = (int)read_int(r, "*.attention.head_count_kv", c->n_heads, 1, MOST_DIM);
    c->head_dim   = (int)read_int(r, "*.attention.key_length", c->dim / c->n_heads, 1, MOST_DIM);
    c->rope_dim   = (int)read_int(r, "*.rope.dimension_count", c->head_dim, 2, MOST_DIM);
    c->rope_theta = read_float(r, "*.rope.freq_base", 10000, 1e-3f, 1e15f);
    c->rotation   = stablelm ? HALVES : PAIRS;
    c->norm       = stablelm ? "layernorm" : "rmsnorm";
    if (r->error) return;
    if (!find(r, "*.attention.key_length") && c->dim % c->n_heads)
        refuse(r, "%d heads cannot share a width of %d equally", c->n_heads, c->dim);
    else if (c->n_heads % c->n_kv_heads)
        refuse(r, "%d heads cannot share %d key/value heads equally", c->n_heads, c->n_kv_heads);
    else if (c->rope_dim % 2 || c->rope_dim > c->head_dim)
        refuse(r, "%s.rope.dimension_count is %d; an even number up to %d is wanted", r->architecture,
               c->rope_dim, c->head_dim);
    else if (times(c->n_heads, c->head_dim) > MOST_DIM)
        refuse(r, "%d heads of %d are wider than %d", c->n_heads, c->head_dim, MOST_DIM);
    else if (read_int(r, "*.attention.value_length", c->head_dim, 1, MOST_DIM) != c->head_dim)
        refuse(r, "%s.attention.value_length differs from key_length, %d: that cannot be run",
               r->architecture, c->head_dim);
    else if (read_int(r, "*.expert_count", 0, 0, INT32_MAX) > 0)
        refuse(r, "a mixture of experts: that cannot be run yet");
    else if (stablelm && read_bool(r, "*.use_parallel_residual", false))
        refuse(r, "a stablelm with parallel residuals: that cannot be run yet");
}

static float read_eps(Reader *r) {
    bool layernorm = !strcmp(r->architecture, "stablelm");
    const char *key = layernorm ? "*.attention.layer_norm_epsilon" : "*.attention.layer_norm_rms_epsilon";
    if (!find(r, key)) refuse(r, "the key %s%s is missing", r->architecture, key + 1);
    return read_float(r, key, 0, 0, 1);
}

// ---------------------------------------------------------------------------- the weights

// NULL where it is missing. Numbers are read where they lie, so they have to lie at multiples of their size.
static const GgufTensor *named_tensor(Reader *r, int layer, const char *name, const char *suffix,
                                      char full[64]) {
    if (layer < 0) snprintf(full, 64, "%s%s", name, suffix);
    else           snprintf(full, 64, "blk.%d.%s%s", layer, name, suffix);
    const GgufTensor *t = gguf_tensor(r->g, full);
    int wanted = t && gguf_runnable(t->type) == F32 ? sizeof(float) : sizeof(Half);
    size_t at = t ? r->g->data_start + (size_t)t->offset : 0;
    if (at % (size_t)wanted)
        refuse(r, "the tensor %s lies at byte %zu, no multiple of %d: it cannot be run in place", full, at,
               wanted);
    return t;
}

// A vector of n floats; NULL where it is missing, which is an error if it is needed.
static const float *read_vector(Reader *r, int layer, const char *name, const char *suffix, int n,
                                bool needed) {
    char full[64];
    const GgufTensor *t = named_tensor(r, layer, name, suffix, full);
    if (!t) {
        if (needed) refuse(r, "the tensor %s is missing", full);
        return NULL;
    }
    if (gguf_runnable(t->type) != F32 || t->shape[0] != (uint64_t)n || t->bytes != n * sizeof(float))
        refuse(r, "the tensor %s has rows of %llu numbers in %s; one of %d in F32 is wanted", full,
               (unsigned long long)t->shape[0], gguf_type_name(t->type), n);
    return t->data;
}

static Tensor read_tensor(Reader *r, Op op, int layer, const char *name, int rows, int cols) {
    char full[64];
    Tensor out = { op, layer, { .rows = rows, .cols = cols }, NULL };
    const GgufTensor *t = named_tensor(r, layer, name, ".weight", full);
    if (!t) {
        refuse(r, "the tensor %s is missing", full);
        return out;
    }
    if (t->n_dims > 2 || t->shape[0] != (uint64_t)cols || t->shape[1] != (uint64_t)rows) {
        refuse(r, "the tensor %s has the shape (%llu, %llu); (%d, %d) is wanted", full,
               (unsigned long long)t->shape[1], (unsigned long long)t->shape[0], rows, cols);
    } else if (gguf_runnable(t->type) < 0) {
        refuse(r, "the tensor %s has the type %s, which cannot be run yet", full, gguf_type_name(t->type));
    } else {
        out.w.type = (Type)gguf_runnable(t->type);
    }
    out.w.data = t->data;
    out.bias = read_vector(r, layer, name, ".bias", rows, false);
    return out;
}

static Norm read_norm(Reader *r, Op op, int layer, const char *name, int dim, float eps) {
    const float *weight = read_vector(r, layer, name, ".weight", dim, true);
    return (Norm){ op, layer, dim, eps, weight, read_vector(r, layer, name, ".bias", dim, false) };
}

static void read_layer(Reader *r, Layer *w, int l, const Config *c, float eps) {
    int q_dim = c->n_heads * c->head_dim, kv_dim = c->n_kv_heads * c->head_dim;
    char full[64];
    if (named_tensor(r, l, "attn_q_norm", ".weight", full) ||
        named_tensor(r, l, "attn_k_norm", ".weight", full))
        refuse(r, "its attention normalizes q and k: that cannot be run yet");
    if (!named_tensor(r, l, "ffn_norm", ".weight", full) && !strcmp(r->architecture, "stablelm"))
        refuse(r, "a stablelm with parallel residuals (it has no ffn_norm): that cannot be run yet");
    w->attn_norm = read_norm(r, ATTN_NORM, l, "attn_norm", c->dim, eps);
    w->wq        = read_tensor(r, Q, l, "attn_q", q_dim, c->dim);
    w->wk        = read_tensor(r, K, l, "attn_k", kv_dim, c->dim);
    w->wv        = read_tensor(r, V, l, "attn_v", kv_dim, c->dim);
    w->wo        = read_tensor(r, ATTN_OUT, l, "attn_output", c->dim, q_dim);
    w->ffn_norm  = read_norm(r, FFN_NORM, l, "ffn_norm", c->dim, eps);
    w->w_gate    = read_tensor(r, GATE, l, "ffn_gate", c->hidden_dim, c->dim);
    w->w_up      = read_tensor(r, UP, l, "ffn_up", c->hidden_dim, c->dim);
    w->w_down    = read_tensor(r, FFN_OUT, l, "ffn_down", c->dim, c->hidden_dim);
}

static void read_weights(Reader *r, Model *m, float eps) {
    Config *c = &m->config;
    const GgufTensor *embedding = gguf_tensor(r->g, "token_embd.weight");
    if (embedding->shape[1] > MOST_VOCAB)
        refuse(r, "token_embd.weight has %llu rows; at most %d are possible",
               (unsigned long long)embedding->shape[1], MOST_VOCAB);
    if (r->error) return;
    c->vocab_size = (int)embedding->shape[1];
    m->weights.embedding  = read_tensor(r, EMBED, -1, "token_embd", c->vocab_size, c->dim);
    m->weights.final_norm = read_norm(r, FINAL_NORM, -1, "output_norm", c->dim, eps);
    bool own = gguf_tensor(r->g, "output.weight") != NULL;
    m->weights.classifier = read_tensor(r, LOGITS, -1, own ? "output" : "token_embd", c->vocab_size, c->dim);
    m->weights.embedding.bias = NULL;                   // there is no such thing
    if (!own) m->weights.classifier.bias = NULL;
    for (int l = 0; l < c->n_layers && !r->error; l++) read_layer(r, &m->weights.layers[l], l, c, eps);
}

// ---------------------------------------------------------------------------- RoPE's frequencies

// Llama 3.1: waves longer than the context it was first trained for are slowed down, short ones stay, those
// between go from one to the other.
static void stretch_llama3(float *frequencies, int n, float factor, float low, float high, float original) {
    for (int i = 0; i < n; i++) {
        float turns = original * frequencies[i] / 6.2831853f;           // over the original context
        float smooth = (turns - low) / (high - low);
        smooth = smooth < 0 ? 0 : smooth > 1 ? 1 : smooth;
        frequencies[i] *= smooth + (1 - smooth) / factor;
    }
}

// Llama 3.1's stretching, computed by who made the file: each frequency has a number to be divided by.
static void divide_frequencies(Reader *r, float *frequencies, int n, const float *by) {
    if (r->error) return;
    for (int i = 0; i < n; i++) {
        if (!(by[i] > 0 && by[i] < 1e30f))
            refuse(r, "rope_freqs.weight holds %g; a positive number is wanted", by[i]);
        frequencies[i] /= by[i];
    }
}

static void read_scaling(Reader *r, const Config *c, float *frequencies) {
    int n = c->rope_dim / 2;
    const float *by = read_vector(r, -1, "rope_freqs", ".weight", n, false);
    if (by) divide_frequencies(r, frequencies, n, by);
    Text type = read_string(r, "*.rope.scaling.type");
    float factor = read_float(r, "*.rope.scaling.factor",
                              read_float(r, "*.rope.scale_linear", 1, 0, 1e6f), 0, 1e6f);
    if (factor == 0) factor = 1;                        // llama.cpp's way to say none
    if (is(type, "llama3") && !by) {
        float low = read_float(r, "*.rope.scaling.low_freq_factor", 1, 1e-3f, 1e6f);
        float high = read_float(r, "*.rope.scaling.high_freq_factor", 4, 1e-3f, 1e6f);
        if (!(high > low)) refuse(r, "rope.scaling.high_freq_factor is not above low_freq_factor");
        stretch_llama3(frequencies, n, factor, low, high,
                       (float)read_int(r, "*.rope.scaling.original_context_length", 8192, 1, INT32_MAX));
    } else if (is(type, "linear") || type.size == 0) {
        for (int i = 0; i < n; i++) frequencies[i] /= factor;
    } else if (!is(type, "none") && !is(type, "llama3")) {
        refuse(r, "rope scaling of the kind '%.*s': none, linear and llama3 can be run", text_length(type),
               type.data);
    }
}

// ---------------------------------------------------------------------------- a model

static bool set_frequencies(Model *m) {
    m->frequencies = calloc(m->config.rope_dim / 2, sizeof *m->frequencies);
    if (m->frequencies) rope_frequencies(m->frequencies, m->config.rope_dim, m->config.rope_theta);
    return m->frequencies != NULL;
}

static const char *read_model(Model *m, const Gguf *g) {
    Reader r = { g, "", NULL };
    Text architecture = read_string(&r, "general.architecture");
    if (read_int(&r, "split.count", 0, 0, 65535) > 1)
        refuse(&r, "one part of a split model: join the parts with llama-gguf-split --merge");
    if (is(architecture, "llama")) r.architecture = "llama";
    else if (is(architecture, "stablelm")) r.architecture = "stablelm";
    else if (!architecture.size) refuse(&r, "it names no architecture, so it is no model");
    else refuse(&r, "the architecture '%.*s': llama and stablelm can be run", text_length(architecture),
                architecture.data);
    if (!r.error) read_config(&r, &m->config);
    float eps = r.error ? 0 : read_eps(&r);
    if (r.error) return r.error;
    if (!gguf_tensor(g, "token_embd.weight"))
        return "the tensor token_embd.weight is missing: a vocabulary alone cannot be run";
    if ((size_t)m->config.n_layers > g->n_tensors)
        return complain("%s.block_count is %d, and there are %zu tensors", r.architecture, m->config.n_layers,
                        g->n_tensors);
    m->weights.layers = calloc(m->config.n_layers, sizeof *m->weights.layers);
    if (!m->weights.layers || !set_frequencies(m)) return "no memory for the table of its weights";
    read_weights(&r, m, eps);
    if (!r.error) read_scaling(&r, &m->config, m->frequencies);
    return r.error;
}

const char *checkpoint_read(Model *m, Bytes file) {
    *m = (Model){ 0 };
    const char *kind = what_is(file), *error;
    bool marked = file.size >= 4 && !memcmp(file.data, "24ka", 4);
    Gguf g = { 0 };
    if (is_gguf(file)) {
        error = gguf_read(&g, file);
        if (!error) error = read_model(m, &g);
        gguf_free(&g);
    } else if (kind && !marked) {
        error = complain("%s; a model is wanted, .gguf or llama2.c's .bin", kind);
    } else {
        error = llama2c_read(m, file);
        if (!error && !set_frequencies(m)) error = "no memory for the angles of its positions";
    }
    if (error) model_free(m);
    return error;
}

int default_context(const Config *c) { return c->seq_len < 4096 ? c->seq_len : 4096; }

void model_free(Model *m) {
    free(m->weights.layers);
    free(m->frequencies);
    *m = (Model){ 0 };
}

// ---------------------------------------------------------------------------- a vocabulary

// tokenizer.ggml.token_type
static const PieceKind kinds[] = { NORMAL, NORMAL, UNKNOWN, CONTROL, NORMAL, UNUSED, BYTE };

static int read_id(Reader *r, const char *key, const Vocabulary *v, int fallback) {
    if (!find(r, key)) return fallback < v->size ? fallback : -1;
    return (int)read_int(r, key, -1, 0, v->size - 1);
}

static const char *take_pieces(Vocabulary *v, Reader *r, int size) {
    const GgufPair *tokens = read_array(r, "tokenizer.ggml.tokens", GGUF_STRING);
    const GgufPair *scores = read_array(r, "tokenizer.ggml.scores", GGUF_F32);
    const GgufPair *types = read_array(r, "tokenizer.ggml.token_type", GGUF_I32);
    if (r->error) return r->error;
    if (!tokens || tokens->count == 0)
        return "the key tokenizer.ggml.tokens is missing or empty: the file holds no vocabulary";
    if (tokens->count > MOST_VOCAB)
        return complain("tokenizer.ggml.tokens holds %llu tokens; at most %d are possible",
                        (unsigned long long)tokens->count, MOST_VOCAB);
    if (size && tokens->count != (uint64_t)size)
        return complain("it holds %llu tokens, and %d are wanted", (unsigned long long)tokens->count, size);
    if (!scores || scores->count != tokens->count)
        return "tokenizer.ggml.scores: one score for each token is wanted";
    if (types && types->count != tokens->count)
        return "tokenizer.ggml.token_type: one type for each token is wanted";
    v->size = (int)tokens->count;
    v->pieces = calloc((size_t)v->size, sizeof *v->pieces);
    if (!v->pieces) return "no memory for the vocabulary";
    Cursor texts = tokens->items, numbers = scores->items, kind = types ? types->items : (Cursor){ 0 };
    for (int id = 0; id < v->size; id++) {
        Text text = take_string(&texts);
        int type = types ? take_i32(&kind) : 1;
        if (text.size > 65535)
            return complain("token %d is %zu bytes long; at most 65535 are possible", id, text.size);
        if (type == 6 && !spells_byte(text.data, (int)text.size))
            return complain("token %d is a byte, but not spelled <0x00>", id);
        if (type < 0 || type > 6) return complain("token %d has the type %d; 0 to 6 are known", id, type);
        v->pieces[id] = (Piece){ text.data, (int)text.size, take_f32(&numbers), kinds[type] };
        if (!isfinite(v->pieces[id].score))
            return complain("token %d has the score %f; a finite one is wanted", id, v->pieces[id].score);
    }
    return NULL;
}

// SentencePiece writes a space as U+2581; we keep spaces.
static const char *spell_spaces(Vocabulary *v) {
    size_t total = 0;
    for (int id = 0; id < v->size; id++) total += (size_t)v->pieces[id].length;
    char *out = v->texts = malloc(total + 1);
    if (!out) return "no memory for the vocabulary";
    for (int id = 0; id < v->size; id++) {
        Piece *p = &v->pieces[id];
        const char *in = p->text, *end = in + p->length;
        p->text = out;
        while (in < end) {
            bool space = end - in >= 3 && !memcmp(in, "\xe2\x96\x81", 3);
            *out++ = space ? ' ' : *in;
            in += space ? 3 : 1;
        }
        p->length = (int)(out - p->text);
    }
    return NULL;
}

static const char *gguf_vocabulary(Vocabulary *v, const Gguf *g, int size) {
    Reader r = { g, "", NULL };
    Text model = read_string(&r, "tokenizer.ggml.model");
    if (!r.error && !is(model, "llama"))
        return complain("a vocabulary of the kind '%.*s': only llama's (SentencePiece) can be read yet",
                        text_length(model), model.data);
    const char *error = take_pieces(v, &r, size);
    if (error || (error = spell_spaces(v))) return error;
    v->bos = read_id(&r, "tokenizer.ggml.bos_token_id", v, 1);       // SentencePiece's own
    v->eos = read_id(&r, "tokenizer.ggml.eos_token_id", v, 2);
    v->eot = read_id(&r, "tokenizer.ggml.eot_token_id", v, -1);
    v->eom = read_id(&r, "tokenizer.ggml.eom_token_id", v, -1);
    v->add_bos = read_bool(&r, "tokenizer.ggml.add_bos_token", true);
    v->add_space = read_bool(&r, "tokenizer.ggml.add_space_prefix", true);
    static const char *const others[] = { "padding", "seperator", "separator", "unknown" };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char key[64];
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", others[i]);
        int64_t id = read_int(&r, key, UINT32_MAX, 0, UINT32_MAX);
        if (id >= v->size && id != UINT32_MAX)
            refuse(&r, "%s is %lld; 0 to %d, or 2^32-1 for none, is possible", key, (long long)id,
                   v->size - 1);
    }
    if (r.error) return r.error;
    return vocabulary_index(v);
}

const char *vocabulary_read(Vocabulary *v, Bytes file, int size) {
    *v = (Vocabulary){ 0 };
    const char *kind = what_is(file), *error;
    Gguf g = { 0 };
    if (is_gguf(file)) {
        error = gguf_read(&g, file);
        if (!error) error = gguf_vocabulary(v, &g, size);
        gguf_free(&g);
    } else {
        error = kind ? complain("%s; a tokenizer.bin or a .gguf is wanted", kind)
                     : llama2c_vocabulary(v, file, size);
    }
    if (error) vocabulary_free(v);
    return error;
}
