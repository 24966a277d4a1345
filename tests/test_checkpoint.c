// test_checkpoint.c - models in GGUF files, built here: what every key and tensor means, and what is refused.
#include "test.h"

static const Config llama = { .dim = 8, .hidden_dim = 12, .n_layers = 2, .n_heads = 4, .n_kv_heads = 2,
                              .head_dim = 2, .vocab_size = 10, .seq_len = 6, .rope_dim = 2 };
static const Config stablelm = { .dim = 8, .hidden_dim = 12, .n_layers = 2, .n_heads = 2, .n_kv_heads = 2,
                                 .head_dim = 4, .vocab_size = 10, .seq_len = 6, .rope_dim = 2 };
static const Style plain = { F32, false, false, false };

static Bytes model_file(Writer *w, const char *architecture, const Config *c, Style style) {
    add_model(w, architecture, c, style);
    return written(w);
}

static void check_refused(const char *what, Bytes file, const char *word) {
    Model m;
    memset(&m, 0xa5, sizeof m);
    const char *error = checkpoint_read(&m, file);
    CHECK(is_sentence(error) && strstr(error, word), "%s: wanted a refusal with '%s', got %s", what, word,
          error ? error : "a model");
    CHECK(!m.weights.layers && !m.frequencies, "%s: refused, but something is held", what);
    model_free(&m), free_bytes(file);
}

static void check_accepted(const char *what, Bytes file) {
    Model m;
    const char *error = checkpoint_read(&m, file);
    CHECK(!error, "%s: a good model is refused: %s", what, error);
    model_free(&m), free_bytes(file);
}

// ---------------------------------------------------------------------------- good models

static void check_vector(const float *got, int layer, const char *name, const char *suffix, int n,
                         bool there) {
    char full[64];
    full_name(full, layer, name, suffix);
    CHECK(!got == !there, "%s is %s", full, there ? "lost" : "invented");
    float *want = numbers_of(full, F32, 0, n);
    if (got && there) CHECK(!memcmp(got, want, (size_t)n * sizeof *want), "%s holds other numbers", full);
    free(want);
}

static void check_tensor(const Tensor *t, Op op, int layer, const char *name, int rows, int cols, Type type,
                         bool bias) {
    char full[64];
    full_name(full, layer, name, ".weight");
    CHECK(t->op == op && t->layer == layer && t->w.type == type && t->w.rows == rows && t->w.cols == cols &&
              !t->w.group,
          "%s: wanted %d x %d of %s, got %s of layer %d, %d x %d of %s", full, rows, cols, formats[type].name,
          op_name(t->op), t->layer, t->w.rows, t->w.cols, formats[t->w.type].name);
    void *want = numbers_of(full, type, rows, cols);
    CHECK(t->w.data && !memcmp(t->w.data, want, (size_t)rows * bytes_of(type, (size_t)cols)),
          "%s holds other numbers", full);
    free(want);
    check_vector(t->bias, layer, name, ".bias", rows, bias);
}

static void check_norm(const Norm *n, Op op, int layer, const char *name, int dim, bool bias) {
    CHECK(n->op == op && n->layer == layer && n->dim == dim && n->eps == 1e-3f,
          "%s: got %s of layer %d, %d, eps %g", name, op_name(n->op), n->layer, n->dim, n->eps);
    check_vector(n->weight, layer, name, ".weight", dim, true);
    check_vector(n->bias, layer, name, ".bias", dim, bias);
}

static void test_good_model(const char *architecture, const Config *want, Style style) {
    Writer w = { 0 };
    Bytes file = model_file(&w, architecture, want, style);
    Model m;
    const char *error = checkpoint_read(&m, file);
    CHECK(!error, "a good %s is refused: %s", architecture, error);
    if (error) return;
    const Config *c = &m.config;
    bool llama_like = !strcmp(architecture, "llama");
    CHECK(c->dim == want->dim && c->hidden_dim == want->hidden_dim && c->n_layers == want->n_layers &&
              c->seq_len == want->seq_len && c->n_heads == want->n_heads &&
              c->n_kv_heads == want->n_kv_heads && c->vocab_size == want->vocab_size,
          "%s: numbers are mixed up", architecture);
    CHECK(c->head_dim == want->head_dim && c->rope_dim == want->rope_dim && c->rope_theta == 10000,
          "%s: heads of %d, %d turn, theta %g", architecture, c->head_dim, c->rope_dim, c->rope_theta);
    CHECK(!strcmp(c->norm, llama_like ? "rmsnorm" : "layernorm") &&
              c->rotation == (llama_like ? PAIRS : HALVES),
          "%s has %s and turns %s", architecture, c->norm, c->rotation == PAIRS ? "pairs" : "halves");
    int dim = want->dim, hidden_dim = want->hidden_dim, q_dim = want->n_heads * want->head_dim,
        kv_dim = want->n_kv_heads * want->head_dim;
    bool qkv = style.qkv_biases, norms = style.norm_biases;
    check_tensor(&m.weights.embedding, EMBED, -1, "token_embd", want->vocab_size, dim, style.type, false);
    check_tensor(&m.weights.classifier, LOGITS, -1, style.tied ? "token_embd" : "output", want->vocab_size,
                 dim, style.type, false);
    check_norm(&m.weights.final_norm, FINAL_NORM, -1, "output_norm", dim, norms);
    for (int l = 0; l < want->n_layers; l++) {
        const Layer *layer = &m.weights.layers[l];
        check_norm(&layer->attn_norm, ATTN_NORM, l, "attn_norm", dim, norms);
        check_tensor(&layer->wq, Q, l, "attn_q", q_dim, dim, style.type, qkv);
        check_tensor(&layer->wk, K, l, "attn_k", kv_dim, dim, style.type, qkv);
        check_tensor(&layer->wv, V, l, "attn_v", kv_dim, dim, style.type, qkv);
        check_tensor(&layer->wo, ATTN_OUT, l, "attn_output", dim, q_dim, style.type, false);
        check_norm(&layer->ffn_norm, FFN_NORM, l, "ffn_norm", dim, norms);
        check_tensor(&layer->w_gate, GATE, l, "ffn_gate", hidden_dim, dim, style.type, false);
        check_tensor(&layer->w_up, UP, l, "ffn_up", hidden_dim, dim, style.type, false);
        check_tensor(&layer->w_down, FFN_OUT, l, "ffn_down", dim, hidden_dim, style.type, false);
    }
    model_free(&m), free_bytes(file);
    CHECK(!m.weights.layers && !m.frequencies, "a freed model still holds something");
}

static void test_good_models(void) {
    for (int i = 0; i < 16; i++) {
        Style style = { i & 8 ? BF16 : F32, i & 1, i & 2, i & 4 };
        test_good_model("llama", &llama, style);
        test_good_model("stablelm", &stablelm, style);
    }
    Config c = llama;
    c.head_dim = c.rope_dim = 6;                        // apart from dim / n_heads
    test_good_model("llama", &c, plain);
    c.rope_dim = 4;
    test_good_model("llama", &c, plain);
    c.n_kv_heads = c.n_heads;
    test_good_model("llama", &c, plain);
    for (int type = F32; type < Q8_PLANE; type++) {
        Config wide = { .dim = 256, .hidden_dim = 512, .n_layers = 1, .n_heads = 2, .n_kv_heads = 1,
                        .head_dim = 128, .vocab_size = 7, .seq_len = 3, .rope_dim = 128 };
        test_good_model("llama", &wide, (Style){ (Type)type, type % 2, false, false });
    }
}

// What has a default, said aloud; what does not matter, there too.
static void test_every_key(void) {
    Writer w = { 0 };
    add_u32(&w, "general.alignment", 32);
    add_u32(&w, "general.file_type", 0);
    add_u32(&w, "llama.vocab_size", 10);
    add_u32(&w, "llama.attention.key_length", 2);
    add_u32(&w, "llama.attention.value_length", 2);
    add_u32(&w, "llama.rope.dimension_count", 2);
    add_f32(&w, "llama.rope.freq_base", 500000);
    add_string(&w, "llama.rope.scaling.type", "none");
    add_f32(&w, "llama.rope.scaling.factor", 4);
    add_u32(&w, "llama.expert_count", 0);
    write_bytes(put_key(&w, "split.count", GGUF_U16), "\1", 2);
    add_string(&w, "llama.tensor_data_layout", "Meta AI original pth");
    add_bool(&w, "llama.rope.scaling.finetuned", 1);
    add_u32(&w, "llama.attention.sliding_window", 6);   // no less than the context
    add_u32(&w, "llama.unheard_of", 0);
    add_string(&w, "llamas.unheard_of", "of another architecture");
    add_tensor(&w, "blk.1.attn_rot_embd", F32, 0, 1, (float[]){ 1 });
    Bytes file = model_file(&w, "llama", &llama, plain);
    Model m;
    const char *error = checkpoint_read(&m, file);
    CHECK(!error, "a model with every key is refused: %s", error);
    if (!error)
        CHECK(m.config.rope_theta == 500000 && m.frequencies[0] == 1, "theta %g", m.config.rope_theta);
    model_free(&m), free_bytes(file);
}

// ---------------------------------------------------------------------------- odd values

static const struct { const char *name; GgufType type; uint64_t bits; size_t bytes; } odd_values[] = {
    { "0", GGUF_U32, 0, 4 },                    { "-1", GGUF_I32, UINT32_MAX, 4 },
    { "-1", GGUF_I8, 0xff, 1 },                 { "-1", GGUF_I64, UINT64_MAX, 8 },
    { "3", GGUF_U32, 3, 4 },                    { "2147483647", GGUF_U32, INT32_MAX, 4 },
    { "4294967295", GGUF_U32, UINT32_MAX, 4 },  { "1099511627776", GGUF_U64, 1ull << 40, 8 },
    { "18446744073709551615", GGUF_U64, UINT64_MAX, 8 }, { "-9223372036854775808", GGUF_I64, 1ull << 63, 8 },
    { "a float", GGUF_F32, 0x41000000, 4 },     { "a double", GGUF_F64, 0x4020000000000000, 8 },
    { "a string", GGUF_STRING, 0, 8 },          { "a bool", GGUF_BOOL, 1, 1 },
    { "an array", GGUF_ARRAY, GGUF_U32, 12 },   // the type of its items, and a count of 0
};

// The others are impossible, or do not fit what the other keys and the tensors say.
static bool is_right(const char *key, const char *value) {
    bool any = !strcmp(key, "llama.context_length");
    return (any && (!strcmp(value, "3") || !strcmp(value, "2147483647"))) ||
           (!strcmp(key, "llama.expert_count") && !strcmp(value, "0"));
}

static void test_odd_values(void) {
    static const char *const keys[] = {
        "llama.context_length", "llama.embedding_length", "llama.feed_forward_length", "llama.block_count",
        "llama.attention.head_count", "llama.attention.head_count_kv", "llama.attention.key_length",
        "llama.attention.value_length", "llama.rope.dimension_count", "llama.expert_count",
    };
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
        for (size_t i = 0; i < sizeof odd_values / sizeof *odd_values; i++) {
            char what[128];
            snprintf(what, sizeof what, "%s is %s", keys[k], odd_values[i].name);
            Writer w = { .without = keys[k] };
            uint8_t value[12] = { 0 };
            memcpy(value, &odd_values[i].bits, 8);
            write_bytes(put_key(&w, keys[k], odd_values[i].type), value, odd_values[i].bytes);
            Bytes file = model_file(&w, "llama", &llama, plain);
            if (is_right(keys[k], odd_values[i].name)) check_accepted(what, file);
            else if (strstr(keys[k], "expert")) check_refused(what, file, "expert");
            else
                check_refused(what, file,
                              odd_values[i].bits == 3 ? ""
                                                      : keys[k]); // 3 is possible, but does not fit the rest
        }
    static const struct { GgufType type; size_t bytes;
    } types[] = {
        // an 8 is an 8
        { GGUF_U8, 1 },  { GGUF_I8, 1 },  { GGUF_U16, 2 }, { GGUF_I16, 2 },
        { GGUF_I32, 4 }, { GGUF_U64, 8 }, { GGUF_I64, 8 },
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        Writer w = { .without = "llama.embedding_length" };
        write_bytes(put_key(&w, "llama.embedding_length", types[i].type), (uint8_t[8]){ 8 }, types[i].bytes);
        check_accepted("an embedding_length of another type", model_file(&w, "llama", &llama, plain));
    }
}

static void test_odd_floats(void) {
    static const struct { const char *key; float value;
    } wrong[] = {
        { "llama.attention.layer_norm_rms_epsilon", NAN },
        { "llama.attention.layer_norm_rms_epsilon", INFINITY },
        { "llama.attention.layer_norm_rms_epsilon", -1e-5f },
        { "llama.rope.freq_base", NAN },
        { "llama.rope.freq_base", 0 },
        { "llama.rope.freq_base", -10000 },
        { "llama.rope.freq_base", INFINITY },
        { "llama.rope.scaling.factor", NAN },
        { "llama.rope.scaling.factor", -2 },
        { "llama.rope.scaling.factor", INFINITY },
        { "llama.rope.scale_linear", NAN },
        { "llama.rope.scale_linear", -1 },
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        Writer w = { .without = wrong[i].key };
        write_f32(put_key(&w, wrong[i].key, GGUF_F32), wrong[i].value);
        check_refused("a float out of range", model_file(&w, "llama", &llama, plain), wrong[i].key);
        write_u32(put_key(&w, wrong[i].key, GGUF_U32), 1);
        check_refused("a float that is a u32", model_file(&w, "llama", &llama, plain), wrong[i].key);
    }
}

// ---------------------------------------------------------------------------- what is missing, or does not
// fit

static void test_missing(void) {
    static const char *const keys[] = {
        "general.architecture", "llama.context_length", "llama.embedding_length", "llama.feed_forward_length",
        "llama.block_count", "llama.attention.head_count", "llama.attention.layer_norm_rms_epsilon",
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        Writer w = { .without = keys[i] };
        check_refused("a key is missing", model_file(&w, "llama", &llama, plain),
                      i ? keys[i] : "architecture");
    }
    Writer w = { .without = "stablelm.attention.layer_norm_epsilon" };
    check_refused("a key is missing", model_file(&w, "stablelm", &stablelm, plain), w.without);
    w.without = "llama.attention.head_count_kv"; // then there are as many as heads, and wk has another shape
    check_refused("a key is missing", model_file(&w, "llama", &llama, plain), "attn_k");
}

// Each tensor missing, of another shape, of another type.
static void test_tensors(void) {
    static const struct { const char *name; int rows, cols;
    } tensors[] = {
        { "token_embd.weight", 10, 8 },    { "output.weight", 10, 8 },
        { "output_norm.weight", 0, 8 },    { "blk.0.attn_norm.weight", 0, 8 },
        { "blk.1.attn_q.weight", 8, 8 },   { "blk.0.attn_k.weight", 4, 8 },
        { "blk.1.attn_v.weight", 4, 8 },   { "blk.0.attn_output.weight", 8, 8 },
        { "blk.1.ffn_norm.weight", 0, 8 }, { "blk.0.ffn_gate.weight", 12, 8 },
        { "blk.1.ffn_up.weight", 12, 8 },  { "blk.0.ffn_down.weight", 8, 12 },
        { "output_norm.bias", 0, 8 },      { "blk.1.attn_norm.bias", 0, 8 },
        { "blk.1.attn_q.bias", 0, 8 },     { "blk.0.attn_k.bias", 0, 4 },
        { "blk.0.ffn_norm.bias", 0, 8 },
    };
    static const float zeros[4096];
    Style style = { F32, false, true, true };
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        const char *name = tensors[i].name;
        Writer w = { .without = name };
        bool optional = strstr(name, ".bias") || !strcmp(name, "output.weight");
        if (optional) check_accepted(name, model_file(&w, "llama", &llama, style));
        else check_refused("a tensor is missing", model_file(&w, "llama", &llama, style), name);

        int rows = tensors[i].rows, cols = tensors[i].cols;
        const struct { uint32_t type; uint64_t cols, rows;
        } others[] = {
            { 0, (uint64_t)cols + 1, (uint64_t)rows },
            { 0, (uint64_t)cols - 1, (uint64_t)rows },
            { 0, (uint64_t)cols, rows ? (uint64_t)rows + 1 : 2 },
            { 0, (uint64_t)cols, rows ? (uint64_t)rows - 1 : 3 },
            { 0, (uint64_t)cols * 2, (uint64_t)(rows + 1) / 2 },
            { 0, 1, (uint64_t)cols },
            { 28, (uint64_t)cols, (uint64_t)rows }, // F64
            { 26, (uint64_t)cols, (uint64_t)rows }, // I32
            { 24, (uint64_t)cols, (uint64_t)rows }, // I8
        };
        for (size_t k = 0; k < sizeof others / sizeof *others; k++) {
            w.without = NULL;
            put_tensor(&w, name, others[k].type, others[k].rows ? 2 : 1,
                       (uint64_t[]){ others[k].cols, others[k].rows }, 0);
            write_bytes(&w.data, zeros, 4096);
            w.without = name;
            check_refused("a tensor that does not fit", model_file(&w, "llama", &llama, style),
                          !strcmp(name, "token_embd.weight") ? "" : name);
        }
        for (int k = 2; k < 4; k++) {
            uint64_t shape[4] = { (uint64_t)cols, rows ? (uint64_t)rows : 1, 1, 1 };
            put_tensor(&w, name, 0, (uint32_t)k + 1, shape, 0);
            write_bytes(&w.data, zeros, 4096);
            check_accepted("more dimensions, all of them 1", model_file(&w, "llama", &llama, style));
            shape[k] = 2;
            put_tensor(&w, name, 0, (uint32_t)k + 1, shape, 0);
            write_bytes(&w.data, zeros, 4096);
            check_refused("more dimensions", model_file(&w, "llama", &llama, style), name);
        }
    }
}

// Norms, biases and RoPE's factors in F16 and BF16. What the bits are worth is written out by hand.
static void test_half_vectors(void) {
    static const struct { uint32_t type; Half bits[8]; float values[8]; } halves[] = {
        { 1, { 0x3c00, 0xc000, 0x3555, 0x0001, 0x7bff, 0x8000, 0x0400, 0x3bff },
          { 1, -2, 0.333251953125f, 0x1p-24f, 65504, -0.0f, 0x1p-14f, 0.99951171875f } },
        { 30, { 0x3f80, 0xc000, 0x3eab, 0x0001, 0x7f7f, 0x8000, 0x0080, 0x3f7f },
          { 1, -2, 0.333984375f, 0x1p-133f, 0x1.fep127f, -0.0f, 0x1p-126f, 0.99609375f } },
    };
    static const char *const names[] = {
        "output_norm.weight", "blk.1.ffn_norm.weight", "blk.0.attn_norm.bias", "blk.1.attn_q.bias",
    };
    Style style = { F32, false, true, true };
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < 4; i++) {
            Writer w = { .without = names[i] };
            put_tensor(&w, names[i], halves[k].type, 1, (uint64_t[]){ 8 }, 0);
            write_bytes(&w.data, halves[k].bits, sizeof halves[k].bits);
            Bytes file = model_file(&w, "llama", &llama, style);
            Model m;
            const char *error = checkpoint_read(&m, file);
            CHECK(!error, "%s in type %u is refused: %s", names[i], halves[k].type, error);
            const Weights *q = &m.weights;
            const float *got = error ? NULL : i == 0 ? q->final_norm.weight
                               : i == 1 ? q->layers[1].ffn_norm.weight
                               : i == 2 ? q->layers[0].attn_norm.bias : q->layers[1].wq.bias;
            for (int n = 0; n < 8 && got; n++)
                CHECK(!memcmp(&got[n], &halves[k].values[n], sizeof *got),
                      "%s in type %u [%d]: expected %g, got %g", names[i], halves[k].type, n,
                      halves[k].values[n], got[n]);
            if (got) check_vector(q->layers[0].ffn_norm.weight, 0, "ffn_norm", ".weight", 8, true);
            model_free(&m), free_bytes(file);
        }
        Writer w = { 0 };
        put_tensor(&w, "rope_freqs.weight", halves[k].type, 1, (uint64_t[]){ 1 }, 0);
        write_bytes(&w.data, &(Half){ 0x4080 }, sizeof(Half));      // 2.25, or 4 in BF16
        Bytes file = model_file(&w, "llama", &llama, plain);
        Model m;
        const char *error = checkpoint_read(&m, file);
        float by = k ? 4 : 2.25f;
        CHECK(!error && m.frequencies[0] == 1 / by, "a factor in type %u: %s", halves[k].type, error);
        model_free(&m), free_bytes(file);
    }
}

// Embeddings and classifiers are filled up to a multiple of 64, or more: rows beyond the last token are cut.
static void test_spare_rows(void) {
    for (int tokens = 1; tokens <= 12; tokens++)
        for (int tied = 0; tied < 2; tied++) {
            Writer w = { 0 };
            Buffer *b = put_key(&w, "tokenizer.ggml.tokens", GGUF_ARRAY);
            write_u32(b, GGUF_STRING), write_u64(b, (uint64_t)tokens);
            for (int i = 0; i < tokens; i++) write_text(b, "x");
            Bytes file = model_file(&w, "llama", &llama, (Style){ F32, tied, false, false });
            Model m;
            const char *error = checkpoint_read(&m, file);
            int rows = tokens < 10 ? tokens : 10;       // more tokens than rows: vocabulary.c refuses them
            CHECK(!error, "%d tokens for 10 rows are refused: %s", tokens, error);
            if (error) continue;
            CHECK(m.config.vocab_size == rows, "%d tokens for 10 rows: %d", tokens, m.config.vocab_size);
            check_tensor(&m.weights.embedding, EMBED, -1, "token_embd", rows, 8, F32, false);
            check_tensor(&m.weights.classifier, LOGITS, -1, tied ? "token_embd" : "output", rows, 8, F32,
                         false);
            model_free(&m), free_bytes(file);
        }
}

static void test_cannot_run(void) {
    Writer w = { 0 };
    add_u32(&w, "llama.expert_count", 8);
    check_refused("experts", model_file(&w, "llama", &llama, plain), "expert");
    add_bool(&w, "stablelm.use_parallel_residual", 1);
    check_refused("a parallel residual", model_file(&w, "stablelm", &stablelm, plain), "parallel");
    add_bool(&w, "stablelm.use_parallel_residual", 0);
    check_accepted("no parallel residual", model_file(&w, "stablelm", &stablelm, plain));
    w.without = "blk.1.ffn_norm.weight";
    check_refused("no ffn_norm", model_file(&w, "stablelm", &stablelm, plain), "parallel");
    w.without = "general.architecture";
    for (int i = 0; i < 3; i++) {
        const char *name = (const char *[]){ "mamba", "llama4", "lla" }[i];
        write_text(put_key(&w, "general.architecture", GGUF_STRING), name);
        check_refused("another architecture", model_file(&w, "llama", &llama, plain), name);
    }
    add_string(&w, "x", ""), write_u32(put_key(&w, "general.architecture", GGUF_U32), 7);
    check_refused("an architecture of another type", model_file(&w, "llama", &llama, plain),
                  "general.architecture");
    w.without = NULL;
    for (int i = 0; i < 2; i++) {
        const char *kind = (const char *[]){ "yarn", "longrope" }[i];
        add_string(&w, "llama.rope.scaling.type", kind);
        check_refused("a rope we do not run", model_file(&w, "llama", &llama, plain), kind);
    }
    write_bytes(put_key(&w, "split.count", GGUF_U16), "\2", 2);
    check_refused("a part of a model", model_file(&w, "llama", &llama, plain), "split");
    add_tensor(&w, "blk.1.attn_q_norm.weight", F32, 0, 2, (float[]){ 1, 1 });
    check_refused("norms of q", model_file(&w, "llama", &llama, plain), "norm");
    static const char *const others[] = {
        "blk.1.post_attention_norm.weight", "blk.0.attn_q.scale", "blk.0.ffn_gate_inp.weight",
        "token_embd_norm.weight", "position_embd.weight", "token_embd.bias", "rope_factors_long.weight",
        "cls.weight", "blk.0", "blk.", "blk.x.attn_norm.weight", "output_norm.weight.weight",
        "blk.00.attn_q.weight",
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        add_tensor(&w, others[i], F32, 0, 2, (float[]){ 1, 1 });
        check_refused("a tensor that we do not read", model_file(&w, "llama", &llama, plain), others[i]);
    }
    Style tied = { F32, true, false, false };
    add_tensor(&w, "output.bias", F32, 0, 10, (float[10]){ 1 });
    check_refused("a bias of no classifier", model_file(&w, "llama", &llama, tied), "output.bias");
    static const char *const beyond[] = {
        "blk.2.attn_norm.weight", "blk.99999999999999999999.ffn_up.weight",
    };
    for (int i = 0; i < 2; i++) {
        add_tensor(&w, beyond[i], F32, 0, 8, (float[8]){ 1 });
        check_refused("a layer too many", model_file(&w, "llama", &llama, plain), "block_count is 2");
    }
    add_u32(&w, "llama.attention.sliding_window", 5);
    check_refused("a window of 5, context 6", model_file(&w, "llama", &llama, plain), "sliding_window");
    static const char *const keys[] = {
        "llama.xielu.alpha_n", "llama.attention.temperature_scale", "llama.x",
    };
    for (int i = 0; i < 3; i++) {
        add_f32(&w, keys[i], 0.5f);
        check_refused("a key that we do not read", model_file(&w, "llama", &llama, plain), keys[i]);
    }
    for (int i = 0; i < 3; i++) {
        add_string(&w, "general.type", (const char *[]){ "adapter", "mmproj", "imatrix" }[i]);
        check_refused("no model", model_file(&w, "llama", &llama, plain),
                      (const char *[]){ "LoRA", "mmproj", "imatrix" }[i]);
    }
    add_string(&w, "adapter.type", "lora");
    check_refused("an adapter", written(&w), "LoRA");
    check_refused("nothing but a mark", written(&w), "");
    check_refused("a model of a key", (add_string(&w, "general.architecture", "llama"), written(&w)), "");

    Config c = llama;
    for (int heads = 3; heads <= 5; heads += 2) {       // 8 is not shared by 3 or 5
        c.n_heads = c.n_kv_heads = heads, c.head_dim = 8 / heads;
        check_refused("heads that do not fit", model_file(&w, "llama", &c, plain), "heads");
    }
    for (int kv_heads = 3; kv_heads <= 8; kv_heads += 5) {      // 4 heads, and tensors that fit
        c = llama, c.n_kv_heads = kv_heads;
        check_refused("key/value heads that do not fit", model_file(&w, "llama", &c, plain),
                      "key/value heads");
    }
    c = stablelm, c.rope_dim = 6;
    check_refused("more turns than there is", model_file(&w, "stablelm", &c, plain), "rope.dimension_count");
    c.rope_dim = 3;
    check_refused("an odd number turns", model_file(&w, "stablelm", &c, plain), "rope.dimension_count");
}

// Numbers are read where they lie: where they do not lie well, the file is refused.
static void test_places(void) {
    for (uint32_t alignment = 1; alignment <= 8; alignment *= 2)
        for (int shift = 0; shift < 8; shift++) {
            Writer w = { .alignment = alignment };
            add_u32(&w, "general.alignment", alignment);
            add_string(&w, "general.name", &"1234567"[shift]);
            Bytes file = model_file(&w, "llama", &llama, plain);
            Model m;
            const char *error = checkpoint_read(&m, file);
            CHECK(error ? is_sentence(error) : (uintptr_t)m.weights.layers[1].wq.w.data % 4 == 0,
                  "alignment %u: %s", alignment, error ? error : "numbers lie badly");
            CHECK(alignment < 8 || !error, "alignment 8: %s", error);
            model_free(&m), free_bytes(file);
        }
}

int main(void) {
    test_good_models();
    test_every_key();
    test_odd_values();
    test_odd_floats();
    test_missing();
    test_tensors();
    test_half_vectors();
    test_spare_rows();
    test_cannot_run();
    test_places();
    return finish("test_checkpoint");
}
