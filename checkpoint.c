// checkpoint.c - from a file to a model: what the keys and tensors of a GGUF file mean; llama2.c's have none.
//
// Architectures: llama, and stablelm, which is llama with LayerNorm and a rotation of only the first part of
// each head, by halves. Keys begin with the architecture's name, tensors of layer l with "blk.l."; what is
// optional has a default; keys and tensors that would change the result in a way that we do not compute are
// refused by name.
#include "model.h"
#include <stdlib.h>
#include <string.h>

// ---------------------------------------------------------------------------- the blueprint

// Of other architectures, mostly; a file that has them means something by it.
static void refuse_what_we_do_not_compute(Reader *r, const Config *c) {
    static const struct { const char *key; float neutral; } scales[] = {
        { "*.attention.clamp_kqv", 0 },  { "*.attention.scale", 0 },  { "*.attention.max_alibi_bias", 0 },
        { "*.logit_scale", 1 },          { "*.embedding_scale", 1 },  { "*.residual_scale", 1 },
        { "*.attn_logit_softcapping", 0 }, { "*.final_logit_softcapping", 0 },
        { "*.rope.scaling.attn_factor", 1 },
    };
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) {
        float x = read_float(r, scales[i].key, scales[i].neutral, -1e30f, 1e30f);
        if (x != scales[i].neutral && x != 0)
            refuse(r, "%s%s is %g: that cannot be run yet", r->architecture, scales[i].key + 1, x);
    }
    if (!read_bool(r, "*.attention.causal", true))
        refuse(r, "its attention is not causal: that cannot be run yet");
    if (read_int(r, "*.expert_count", 0, 0, INT32_MAX) > 0)
        refuse(r, "a mixture of experts: that cannot be run yet");
    if (read_bool(r, "*.use_parallel_residual", false))
        refuse(r, "parallel residuals: that cannot be run yet");
    int64_t window = read_int(r, "*.attention.sliding_window", 0, 0, INT32_MAX);
    if (window > 0 && window < c->seq_len)
        refuse(r, "%s.attention.sliding_window is %lld, and the context is %d: attention that sees only so "
               "far back cannot be run yet", r->architecture, (long long)window, c->seq_len);
}

static void read_config(Reader *r, Config *c) {
    bool stablelm = !strcmp(r->architecture, "stablelm");
    c->seq_len    = (int)read_int(r, "*.context_length", -1, 1, INT32_MAX);
    c->dim        = (int)read_int(r, "*.embedding_length", -1, 1, MAX_DIM);
    c->hidden_dim = (int)read_int(r, "*.feed_forward_length", -1, 1, MAX_DIM);
    c->n_layers   = (int)read_int(r, "*.block_count", -1, 1, MAX_LAYERS);
    c->n_heads    = (int)read_int(r, "*.attention.head_count", -1, 1, MAX_DIM);
    c->n_kv_heads = (int)read_int(r, "*.attention.head_count_kv", c->n_heads, 1, MAX_DIM);
    c->head_dim   = (int)read_int(r, "*.attention.key_length", c->dim / c->n_heads, 1, MAX_DIM);
    c->rope_dim   = (int)read_int(r, "*.rope.dimension_count", c->head_dim, 2, MAX_DIM);
    c->rope_theta = read_float(r, "*.rope.freq_base", 10000, 1e-3f, 1e15f);
    c->rotation   = stablelm ? HALVES : PAIRS;
    c->norm       = stablelm ? "layernorm" : "rmsnorm";
    if (r->error) return;
    if (!find_key(r, "*.attention.key_length") && c->dim % c->n_heads)
        refuse(r, "%d heads cannot share a width of %d equally", c->n_heads, c->dim);
    else if (c->n_heads % c->n_kv_heads)
        refuse(r, "%d heads cannot share %d key/value heads equally", c->n_heads, c->n_kv_heads);
    else if (c->rope_dim % 2 || c->rope_dim > c->head_dim)
        refuse(r, "heads of %d, of which %d turn (rope.dimension_count): an even number up to all is wanted",
               c->head_dim, c->rope_dim);
    else if (size_times(c->n_heads, c->head_dim) > MAX_DIM)
        refuse(r, "%d heads of %d are wider than %d", c->n_heads, c->head_dim, MAX_DIM);
    else if (read_int(r, "*.attention.value_length", c->head_dim, 1, MAX_DIM) != c->head_dim)
        refuse(r, "%s.attention.value_length differs from key_length, %d: that cannot be run",
               r->architecture, c->head_dim);
    refuse_what_we_do_not_compute(r, c);
}

static float read_eps(Reader *r) {
    bool layernorm = !strcmp(r->architecture, "stablelm");
    const char *key = layernorm ? "*.attention.layer_norm_epsilon" : "*.attention.layer_norm_rms_epsilon";
    need_key(r, key);
    return read_float(r, key, 0, 0, 1);
}

// A value of 0, false or "" says that there is no such thing.
static bool says_none(Cursor value) {
    for (; value.left; value.at++, value.left--)
        if (*value.at) return false;
    return true;
}

// A key of the architecture that nobody has asked for may change the result.
static void refuse_other_keys(Reader *r) {
    static const char *const without_effect[] = {       // on a model of this shape
        "*.vocab_size", "*.tensor_data_layout", "*.pooling_type", "*.expert_used_count",
        "*.rope.scaling.finetuned", "*.rope.scaling.original_context_length",
        "*.rope.scaling.low_freq_factor", "*.rope.scaling.high_freq_factor",
    };
    for (size_t i = 0; i < sizeof without_effect / sizeof *without_effect; i++)
        find_key(r, without_effect[i]);
    size_t length = strlen(r->architecture);
    for (const GgufPair *p = r->g->pairs; p < r->g->pairs + r->g->n_pairs; p++) {
        bool ours = p->key.size > length && p->key.data[length] == '.' &&
                    !memcmp(p->key.data, r->architecture, length);
        if (ours && !p->asked_for && !says_none(p->items))
            refuse(r, "the key %.*s is not known and may change the result: that cannot be run yet",
                   text_length(p->key), p->key.data);
    }
}

// ---------------------------------------------------------------------------- the weights

// NULL where it is missing. Numbers are read where they lie, so they have to lie at multiples of their size.
static const GgufTensor *named_tensor(Reader *r, int layer, const char *name, const char *suffix,
                                      char full[64]) {
    if (layer < 0) snprintf(full, 64, "%s%s", name, suffix);
    else           snprintf(full, 64, "blk.%d.%s%s", layer, name, suffix);
    const GgufTensor *t = gguf_tensor(r->g, full);
    int size = t && gguf_runnable(t->type) == F32 ? sizeof(float) : sizeof(Half);
    if (t && (uintptr_t)t->data % (uintptr_t)size)
        refuse(r, "the tensor %s lies at byte %zu, no multiple of %d: it cannot be run in place", full,
               r->g->data_start + (size_t)t->offset, size);
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
        refuse(r, "the tensor %s has rows of %llu numbers in %s; one of %d in F32, F16 or BF16 is expected",
               full, (unsigned long long)t->shape[0], gguf_type_name(t->type), n);
    return t->data;
}

// "(128, 32)": the slowest index first, as in model.h.
static const char *shape_text(char text[100], const GgufTensor *t) {
    int length = 0;
    for (int i = t->n_dims - 1; i >= 0; i--)
        length += snprintf(text + length, 100 - (size_t)length, "%s%llu", i == t->n_dims - 1 ? "(" : ", ",
                           (unsigned long long)t->shape[i]);
    snprintf(text + length, 100 - (size_t)length, ")");
    return text;
}

// A matrix may be written with more dimensions, all of them 1.
static Tensor read_tensor(Reader *r, Op op, int layer, const char *name, int rows, int cols) {
    char full[64], shape[100];
    Tensor out = { op, layer, { .rows = rows, .cols = cols }, NULL };
    const GgufTensor *t = named_tensor(r, layer, name, ".weight", full);
    if (!t) {
        refuse(r, "the tensor %s is missing", full);
        return out;
    }
    if (t->shape[0] != (uint64_t)cols || t->shape[1] != (uint64_t)rows ||
        t->shape[2] != 1 || t->shape[3] != 1) {
        refuse(r, "the tensor %s has the shape %s; (%d, %d) is expected", full, shape_text(shape, t), rows,
               cols);
    } else if (gguf_runnable(t->type) < 0) {
        refuse(r, "the tensor %s has the type %s, which cannot be run yet", full, gguf_type_name(t->type));
    } else {
        out.w.type = (Type)gguf_runnable(t->type);
    }
    out.w.data = t->data;
    if (op != EMBED) out.bias = read_vector(r, layer, name, ".bias", rows, false);
    return out;
}

static Norm read_norm(Reader *r, Op op, int layer, const char *name, int dim, float eps) {
    const float *weight = read_vector(r, layer, name, ".weight", dim, true);
    return (Norm){ op, layer, dim, eps, weight, read_vector(r, layer, name, ".bias", dim, false) };
}

static void read_layer(Reader *r, Layer *w, int l, const Config *c, float eps) {
    int q_dim = c->n_heads * c->head_dim, kv_dim = c->n_kv_heads * c->head_dim;
    char full[64];
    named_tensor(r, l, "attn_rot_embd", "", full);      // of old converters: RoPE's frequencies
    named_tensor(r, l, "attn_rot_embd", ".weight", full);
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

// A tensor that nobody has asked for would change the result.
static void refuse_other_tensors(Reader *r, int n_layers) {
    for (const GgufTensor *t = r->g->tensors; t < r->g->tensors + r->g->n_tensors; t++) {
        char name[64];
        snprintf(name, sizeof name, "%.*s", text_length(t->name), t->name.data);
        if (!t->asked_for && !strncmp(name, "blk.", 4) && strtol(name + 4, NULL, 10) >= n_layers)
            refuse(r, "%s.block_count is %d, but the file holds %.*s: one of them is wrong", r->architecture,
                   n_layers, text_length(t->name), t->name.data);
        else if (!t->asked_for)
            refuse(r, "the tensor %.*s is none of a plain %s and would change the result: that cannot be run "
                   "yet", text_length(t->name), t->name.data, r->architecture);
    }
}

// Norms and biases that are stored in F16 or BF16 are widened, here and in the index: to a float it is exact.
static const char *widen_vectors(Model *m, const Gguf *g) {
    size_t total = 0;
    for (int pass = 0; pass < 2; pass++) {
        float *out = m->vectors;
        for (GgufTensor *t = g->tensors; t < g->tensors + g->n_tensors; t++) {
            int type = gguf_runnable(t->type), n = t->shape[0] < MAX_VOCAB ? (int)t->shape[0] : 0;
            if ((type != F16 && type != BF16) || t->bytes != (size_t)n * sizeof(Half) ||
                (uintptr_t)t->data % sizeof(Half))
                continue;
            if (pass == 0) {
                total += (size_t)n;
                continue;
            }
            kernels_portable.decode[type](out, &(Matrix){ (Type)type, 1, n, t->data, NULL, 0 }, 0);
            *t = (GgufTensor){ t->name, 0, t->n_dims, { t->shape[0], 1, 1, 1 }, t->offset,
                               (size_t)n * sizeof(float), out, false };
            out += n;
        }
        if (pass == 0 && !(m->vectors = calloc(total + 1, sizeof *m->vectors)))
            return "no memory for its vectors";
    }
    return NULL;
}

static void read_weights(Reader *r, Model *m, float eps) {
    Config *c = &m->config;
    const GgufTensor *embedding = gguf_tensor(r->g, "token_embd.weight");
    const GgufPair *tokens = find_key(r, "tokenizer.ggml.tokens");      // which vocabulary.c checks
    if (embedding->shape[1] > MAX_VOCAB)
        refuse(r, "token_embd.weight has %llu rows; at most %d are possible",
               (unsigned long long)embedding->shape[1], MAX_VOCAB);
    if (r->error) return;
    int rows = (int)embedding->shape[1];
    m->weights.embedding  = read_tensor(r, EMBED, -1, "token_embd", rows, c->dim);
    m->weights.classifier = m->weights.embedding;
    m->weights.classifier.op = LOGITS;
    if (gguf_tensor(r->g, "output.weight"))
        m->weights.classifier = read_tensor(r, LOGITS, -1, "output", rows, c->dim);
    // Both may be filled up to a multiple of 64, or more: the rows beyond the last token stand for nothing.
    c->vocab_size = rows;
    if (tokens && tokens->type == GGUF_ARRAY && tokens->count && tokens->count < (uint64_t)rows)
        c->vocab_size = (int)tokens->count;
    m->weights.embedding.w.rows = m->weights.classifier.w.rows = c->vocab_size;
    m->weights.final_norm = read_norm(r, FINAL_NORM, -1, "output_norm", c->dim, eps);
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
    if (factor != 0 && factor < 1e-6f) refuse(r, "a rope scaling by %g: 1e-6 and more is possible", factor);
    if (factor == 0) factor = 1;                        // llama.cpp's way to say none
    if (text_is(type, "llama3") && !by) {
        float low = read_float(r, "*.rope.scaling.low_freq_factor", 1, 1e-3f, 1e6f);
        float high = read_float(r, "*.rope.scaling.high_freq_factor", 4, 1e-3f, 1e6f);
        if (!(high > low)) refuse(r, "rope.scaling.high_freq_factor is not above low_freq_factor");
        stretch_llama3(frequencies, n, factor, low, high,
                       (float)read_int(r, "*.rope.scaling.original_context_length", 8192, 1, INT32_MAX));
    } else if (text_is(type, "linear") || type.size == 0) {
        for (int i = 0; i < n; i++) frequencies[i] /= factor;
    } else if (!text_is(type, "none") && !text_is(type, "llama3")) {
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

// What else comes as GGUF, and is taken for a model.
static void refuse_other_kinds(Reader *r) {
    Text type = read_string(r, "general.type");
    if (text_is(type, "adapter") || find_key(r, "adapter.type"))
        refuse(r, "an adapter (LoRA), not a model: llama-export-lora merges it with its model");
    if (text_is(type, "mmproj")) refuse(r, "the eyes or ears of a model (mmproj), not the model itself");
    if (text_is(type, "imatrix")) refuse(r, "an importance matrix for quantizing (imatrix), not a model");
}

static const char *read_model(Model *m, const Gguf *g) {
    Reader r = { g, "", NULL };
    refuse_other_kinds(&r);
    Text architecture = read_string(&r, "general.architecture");
    if (read_int(&r, "split.count", 0, 0, 65535) > 1)
        refuse(&r, "one part of a split model: join the parts with llama-gguf-split --merge");
    if (text_is(architecture, "llama")) r.architecture = "llama";
    else if (text_is(architecture, "stablelm")) r.architecture = "stablelm";
    else if (!architecture.size) refuse(&r, "the key general.architecture is missing: it is no model");
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
    const char *error = widen_vectors(m, g);
    if (error) return error;
    read_weights(&r, m, eps);
    if (!r.error) read_scaling(&r, &m->config, m->frequencies);
    if (!r.error) refuse_other_tensors(&r, m->config.n_layers);
    if (!r.error) refuse_other_keys(&r);
    return r.error;
}

// Behind an int, a score and a length, its first token.
static bool is_tokenizer(Bytes file) { return file.size > 17 && !memcmp(file.data + 12, "<unk>", 5); }

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
    } else if (!marked && is_tokenizer(file)) {
        error = "a tokenizer.bin, not a model: give it with -z";
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
    free(m->vectors);
    *m = (Model){ 0 };
}
