// info.c - what a file is: format, hyper-parameters, vocabulary, tensors, memory; for people, or as JSON for
// programs. It needs no model that can be run: any well-formed GGUF file will do.
#include "model.h"
#include <math.h>
#include <string.h>

// ---------------------------------------------------------------------------- one walk, two forms

typedef struct { bool json, first; int depth; } Out;

static void put_string(const Out *o, Text t) { print_string(stdout, t, o->json); }

static void put_name(Out *o, Text name) {
    if (o->json) {
        if (!o->first) fputs(", ", stdout);
        if (name.size) put_string(o, name), fputs(": ", stdout);
    } else {
        printf("%*s", 2 * o->depth, "");
        put_string(o, name);
        int width = 28 - 2 * o->depth - (int)(name.size < 100 ? name.size : 100);
        printf("%*s", width > 1 ? width : 1, "");
    }
    o->first = false;
}

static Text text_of(const char *s) { return (Text){ s, strlen(s) }; }
static void end_field(const Out *o) { if (!o->json) putchar('\n'); }

static void put_text(Out *o, const char *name, Text value) {
    put_name(o, text_of(name));
    put_string(o, value);
    end_field(o);
}

static void put_count(Out *o, const char *name, uint64_t value) {
    put_name(o, text_of(name));
    printf("%llu", (unsigned long long)value);
    end_field(o);
}

// For people with a unit: "1050624 bytes (1.05 MB)"
static void put_bytes(Out *o, const char *name, uint64_t value) {
    static const char *const units[] = { "kB", "MB", "GB", "TB" };
    put_name(o, text_of(name));
    printf("%llu", (unsigned long long)value);
    double size = (double)value / 1e3;
    int unit = 0;
    for (; size >= 999.5 && unit < 3; unit++) size /= 1e3;
    if (!o->json) printf(" bytes");
    if (!o->json && value >= 1000) printf(" (%.3g %s)", size, units[unit]);
    end_field(o);
}

static void open_group(Out *o, const char *name, char bracket) {
    if (o->json) put_name(o, text_of(name)), putchar(bracket);
    else printf("%s\n", name);
    o->first = true;
    o->depth++;
}

static void close_group(Out *o, char bracket) {
    if (o->json) putchar(bracket);
    o->first = false;
    o->depth--;
}

// ---------------------------------------------------------------------------- GGUF

static void put_pair(Out *o, Text name, const GgufPair *p) {
    Cursor in = p->items;
    uint64_t bits = 0;
    put_name(o, name);
    if (p->type == GGUF_ARRAY) {
        char text[64];
        snprintf(text, sizeof text, "%llu x %s", (unsigned long long)p->count, gguf_value_name(p->item_type));
        put_string(o, text_of(text));
    } else if (p->type == GGUF_STRING) {
        put_string(o, take_string(&in));
    } else {
        memcpy(&bits, in.at, in.left < 8 ? in.left : 8);
        float single;
        double real;
        memcpy(&single, &bits, sizeof single);
        memcpy(&real, &bits, sizeof real);
        if (p->type == GGUF_F32) real = single;
        switch (p->type) {
        case GGUF_BOOL: fputs(bits ? "true" : "false", stdout); break;
        case GGUF_I8:   printf("%d", (int8_t)bits);             break;
        case GGUF_I16:  printf("%d", (int16_t)bits);            break;
        case GGUF_I32:  printf("%d", (int32_t)bits);            break;
        case GGUF_I64:  printf("%lld", (long long)bits);        break;
        case GGUF_F32: case GGUF_F64:                   // JSON knows neither infinity nor NaN
            if (o->json && !isfinite(real)) fputs("null", stdout);
            else printf("%.*g", p->type == GGUF_F32 ? 9 : 17, real);
            break;
        default:        printf("%llu", (unsigned long long)bits);
        }
    }
    end_field(o);
}

static bool begins_with(Text t, Text prefix) {
    return prefix.size && t.size > prefix.size && !memcmp(t.data, prefix.data, prefix.size);
}

// A group of every pair whose key begins with `prefix`, without it.
static void put_pairs(Out *o, const char *group, const Gguf *g, Text prefix) {
    open_group(o, group, '{');
    for (size_t i = 0; i < g->n_pairs; i++) {
        const GgufPair *p = &g->pairs[i];
        if (begins_with(p->key, prefix))
            put_pair(o, (Text){ p->key.data + prefix.size, p->key.size - prefix.size }, p);
    }
    close_group(o, '}');
}

static Text string_value(const Gguf *g, const char *key) {
    const GgufPair *p = gguf_find(g, key);
    if (!p || p->type != GGUF_STRING) return (Text){ "", 0 };
    Cursor in = p->items;
    return take_string(&in);
}

static void put_tensor(Out *o, Text name, const char *type, const uint64_t *shape, int n_dims,
                       uint64_t offset, size_t bytes) {
    if (o->json) {
        open_group(o, "", '{');
        put_text(o, "name", name);
        put_text(o, "type", text_of(type));
        open_group(o, "shape", '[');
        for (int d = n_dims - 1; d >= 0; d--) put_count(o, "", shape[d]);
        close_group(o, ']');
        put_count(o, "offset", offset);
        put_count(o, "bytes", bytes);
        close_group(o, '}');
    } else {
        put_name(o, name);
        printf("%-8s", type);
        for (int d = n_dims - 1; d >= 0; d--)
            printf("%s%llu", d < n_dims - 1 ? " x " : "", (unsigned long long)shape[d]);
        printf("   %zu bytes at %llu\n", bytes, (unsigned long long)offset);
    }
}

// What the keys of a file that cannot be run suggest.
static const char *norm_of(const Gguf *g) {
    const char *found = NULL;
    for (size_t i = 0; i < g->n_pairs; i++) {
        Text key = g->pairs[i].key;
        static const char rms[] = ".layer_norm_rms_epsilon", layer[] = ".layer_norm_epsilon";
        if (key.size > sizeof rms && !memcmp(key.data + key.size - sizeof rms + 1, rms, sizeof rms - 1))
            found = "rmsnorm";
        if (key.size > sizeof layer &&
            !memcmp(key.data + key.size - sizeof layer + 1, layer, sizeof layer - 1))
            found = "layernorm";
    }
    return found;
}

// norm: of the model that it is, or NULL
static void put_gguf(Out *o, const Gguf *g, const char *norm) {
    Text architecture = string_value(g, "general.architecture");
    char prefix[128];
    snprintf(prefix, sizeof prefix, "%.*s.", text_length(architecture), architecture.data);
    uint64_t parameters = 0;
    for (size_t i = 0; i < g->n_tensors; i++) {
        const uint64_t *shape = g->tensors[i].shape;
        parameters += shape[0] * shape[1] * shape[2] * shape[3];
    }
    put_text(o, "format", text_of("GGUF"));
    put_count(o, "version", g->version);
    put_text(o, "architecture", architecture);
    put_text(o, "norm", text_of(norm ? norm : norm_of(g) ? norm_of(g) : "unknown"));
    put_count(o, "parameters", parameters);
    Text homes[3] = { text_of("general."), text_of(prefix), text_of("tokenizer.") };
    put_pairs(o, "general", g, homes[0]);
    put_pairs(o, "config", g, homes[1]);
    put_pairs(o, "tokenizer", g, homes[2]);
    const ChatTemplate *family = recognise_template(string_value(g, "tokenizer.chat_template"));
    if (family) put_text(o, "chat", text_of(family->name));
    open_group(o, "other", '{');
    for (size_t i = 0; i < g->n_pairs; i++) {
        Text key = g->pairs[i].key;
        if (!begins_with(key, homes[0]) && !begins_with(key, homes[1]) && !begins_with(key, homes[2]))
            put_pair(o, key, &g->pairs[i]);
    }
    close_group(o, '}');
    open_group(o, "tensors", '[');
    for (size_t i = 0; i < g->n_tensors; i++) {
        const GgufTensor *t = &g->tensors[i];
        put_tensor(o, t->name, gguf_type_name(t->type), t->shape, t->n_dims, g->data_start + t->offset,
                   t->bytes);
    }
    close_group(o, ']');
}

// ---------------------------------------------------------------------------- llama2.c

static void put_matrix(Out *o, const char *name, const Tensor *t, Bytes file) {
    char full[64];
    if (t->layer < 0) snprintf(full, sizeof full, "%s", name);
    else              snprintf(full, sizeof full, "blk.%d.%s", t->layer, name);
    put_tensor(o, text_of(full), formats[t->w.type].name,
               (uint64_t[]){ (uint64_t)t->w.cols, (uint64_t)t->w.rows }, 2,
               (uint64_t)((const uint8_t *)t->w.data - file.data), matrix_bytes(&t->w));
}

static void put_norm(Out *o, const char *name, const Norm *n, Bytes file) {
    char full[64];
    if (n->layer < 0) snprintf(full, sizeof full, "%s", name);
    else              snprintf(full, sizeof full, "blk.%d.%s", n->layer, name);
    put_tensor(o, text_of(full), "F32", (uint64_t[]){ (uint64_t)n->dim }, 1,
               (uint64_t)((const uint8_t *)n->weight - file.data), (size_t)n->dim * sizeof(float));
}

static void put_llama2c(Out *o, const Model *m, Bytes file) {
    const Config *c = &m->config;
    const Weights *w = &m->weights;
    bool tied = w->classifier.w.data == w->embedding.w.data, marked = !memcmp(file.data, "24ka", 4);
    uint64_t dim = (uint64_t)c->dim, kv_dim = (uint64_t)(c->n_kv_heads * c->head_dim);
    uint64_t layer = dim * (2 + 2 * dim + 2 * kv_dim + 3 * (uint64_t)c->hidden_dim);
    put_text(o, "format", text_of("llama2.c"));
    put_count(o, "version", marked ? file.data[4] : 0);
    put_text(o, "architecture", text_of("llama"));
    put_text(o, "norm", text_of(c->norm));
    put_count(o, "parameters",
              (uint64_t)c->n_layers * layer + dim + (tied ? 1 : 2) * dim * (uint64_t)c->vocab_size);
    open_group(o, "config", '{');
    put_count(o, "dim", (uint64_t)c->dim);
    put_count(o, "hidden_dim", (uint64_t)c->hidden_dim);
    put_count(o, "n_layers", (uint64_t)c->n_layers);
    put_count(o, "n_heads", (uint64_t)c->n_heads);
    put_count(o, "n_kv_heads", (uint64_t)c->n_kv_heads);
    put_count(o, "vocab_size", (uint64_t)c->vocab_size);
    put_count(o, "seq_len", (uint64_t)c->seq_len);
    if (w->embedding.w.group) put_count(o, "group_size", (uint64_t)w->embedding.w.group);
    close_group(o, '}');
    open_group(o, "tokenizer", '{');                    // lies in a file of its own
    close_group(o, '}');
    open_group(o, "tensors", '[');
    put_matrix(o, "token_embd", &w->embedding, file);
    for (const Layer *l = w->layers; l < w->layers + c->n_layers; l++) {
        put_norm(o, "attn_norm", &l->attn_norm, file);
        put_matrix(o, "attn_q", &l->wq, file);
        put_matrix(o, "attn_k", &l->wk, file);
        put_matrix(o, "attn_v", &l->wv, file);
        put_matrix(o, "attn_output", &l->wo, file);
        put_norm(o, "ffn_norm", &l->ffn_norm, file);
        put_matrix(o, "ffn_gate", &l->w_gate, file);
        put_matrix(o, "ffn_up", &l->w_up, file);
        put_matrix(o, "ffn_down", &l->w_down, file);
    }
    put_norm(o, "output_norm", &w->final_norm, file);
    if (!tied) put_matrix(o, "output", &w->classifier, file);
    close_group(o, ']');
}

// ---------------------------------------------------------------------------- any file

// What running it takes: the mapped file, and a KV cache of F16 for the default context.
static void put_memory(Out *o, const Model *m, Bytes file) {
    const Config *c = &m->config;
    int context = default_context(c);
    open_group(o, "memory", '{');
    put_bytes(o, "file", file.size);
    put_bytes(o, "per_token", bytes_per_token(m));
    put_count(o, "context", (uint64_t)context);
    put_bytes(o, "cache", cache_bytes(c, context, F16));
    close_group(o, '}');
}

const char *print_info(Bytes file, bool json) {
    Out o = { json, true, 0 };
    Model m;
    Gguf g = { 0 };
    bool gguf = is_gguf(file);
    const char *error = gguf ? gguf_read(&g, file) : NULL;
    if (error) return error;
    const char *refused = checkpoint_read(&m, file);    // no fault in a GGUF file: many hold no model of ours
    if (refused && !gguf) return refused;
    if (json) putchar('{');
    if (gguf) put_gguf(&o, &g, refused ? NULL : m.config.norm);
    else put_llama2c(&o, &m, file);
    if (refused) put_text(&o, "refused", text_of(refused));
    else put_memory(&o, &m, file);
    if (json) puts("}");
    gguf_free(&g);
    if (!refused) model_free(&m);
    return NULL;
}
