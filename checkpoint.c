// checkpoint.c - read the files of llama2.c: a model's .bin, version 0 or 1, and its tokenizer.bin.
//
//   version 0   7 ints, then floats                     version 1   "24ka", 1, 7 ints, a byte, zeros to 256, floats
//
// The ints: dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len. In version 0 a negative vocab_size
// means that the classifier has weights of its own; in version 1 the byte is 1 where it shares the embedding's.
// The floats of all layers stand together, weight by weight, in the orders below. They have no names and no
// checksum: that the file has exactly the size its header asks for is all there is to tell a good one by.
// https://github.com/karpathy/llama2.c, export.py
#include "model.h"
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAGIC = 0x616b3432, HEADER_0 = 28, HEADER_1 = 256, MOST_TOKENS = 1 << 24 };
enum { V0_ROPE = N_OPS, N_PARTS };                      // version 0 stores RoPE's angles too; we compute them

static const int order_0[] = { EMBED, ATTN_NORM, Q, K, V, ATTN_OUT, FFN_NORM, GATE, FFN_OUT, UP, FINAL_NORM, V0_ROPE,
                               LOGITS, -1 };
static const int order_1[] = { ATTN_NORM, FFN_NORM, FINAL_NORM, EMBED, Q, K, V, ATTN_OUT, GATE, FFN_OUT, UP, LOGITS, -1 };

// ---------------------------------------------------------------------------- the header

// shared: where the sign of vocab_size says whether the classifier is the embedding; NULL: it does not.
static const char *take_config(Config *c, Cursor *in, bool *shared) {
    struct { const char *name; int *value; int most; } fields[] = {
        { "dim", &c->dim, 1 << 20 },         { "hidden_dim", &c->hidden_dim, 1 << 20 },
        { "n_layers", &c->n_layers, 1 << 16 }, { "n_heads", &c->n_heads, 1 << 20 },
        { "n_kv_heads", &c->n_kv_heads, 1 << 20 }, { "vocab_size", &c->vocab_size, 1 << 24 },
        { "seq_len", &c->seq_len, INT32_MAX },
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        *fields[i].value = take_i32(in);
        if (shared && fields[i].value == &c->vocab_size && c->vocab_size > INT32_MIN) {
            *shared = c->vocab_size > 0;
            c->vocab_size = abs(c->vocab_size);
        }
        if (*fields[i].value < 1 || *fields[i].value > fields[i].most)
            return complain("the header says %s = %d; 1 to %d is possible", fields[i].name, *fields[i].value, fields[i].most);
    }
    if (c->dim % c->n_heads)
        return complain("the header says dim = %d, which %d heads cannot share equally", c->dim, c->n_heads);
    if (c->n_heads % c->n_kv_heads)
        return complain("the header says n_heads = %d, which n_kv_heads = %d does not divide", c->n_heads, c->n_kv_heads);
    c->head_dim = c->rope_dim = c->dim / c->n_heads;
    if (c->head_dim % 2)
        return complain("the header says dim = %d and n_heads = %d: heads of %d, but RoPE turns pairs", c->dim, c->n_heads, c->head_dim);
    c->norm = "rmsnorm";
    c->rope_theta = 10000;
    c->rotation = PAIRS;
    return NULL;
}

// ---------------------------------------------------------------------------- the weights

static size_t floats_of(int part, const Config *c) {
    size_t L = c->n_layers, dim = c->dim, hidden_dim = c->hidden_dim, kv_dim = (size_t)c->n_kv_heads * c->head_dim;
    switch (part) {
    case EMBED: case LOGITS:           return times(c->vocab_size, dim);
    case ATTN_NORM: case FFN_NORM:     return times(L, dim);
    case Q: case ATTN_OUT:             return times(L, times(dim, dim));
    case K: case V:                    return times(L, times(kv_dim, dim));
    case GATE: case UP: case FFN_OUT:  return times(L, times(hidden_dim, dim));
    case FINAL_NORM:                   return dim;
    case V0_ROPE:                      return times(c->seq_len, c->head_dim);      // half of them cos, half sin
    default:                           return 0;
    }
}

static Norm norm_at(Op op, int layer, const float *weights, int dim) {
    return (Norm){ op, layer, dim, 1e-5f, weights + (layer < 0 ? 0 : (size_t)layer * dim), NULL };
}

static Tensor tensor_at(Op op, int layer, const float *weights, int rows, int cols) {
    return (Tensor){ op, layer, F32, rows, cols, weights + (layer < 0 ? 0 : (size_t)layer * rows * cols), NULL };
}

static void link_weights(Model *m, const float *const part[]) {
    const Config *c = &m->config;
    Weights *w = &m->weights;
    int kv_dim = c->n_kv_heads * c->head_dim;
    w->embedding  = tensor_at(EMBED, -1, part[EMBED], c->vocab_size, c->dim);
    w->final_norm = norm_at(FINAL_NORM, -1, part[FINAL_NORM], c->dim);
    w->classifier = tensor_at(LOGITS, -1, part[LOGITS], c->vocab_size, c->dim);
    for (int l = 0; l < c->n_layers; l++)
        w->layers[l] = (Layer){
            .attn_norm = norm_at(ATTN_NORM, l, part[ATTN_NORM], c->dim),
            .wq        = tensor_at(Q, l, part[Q], c->dim, c->dim),
            .wk        = tensor_at(K, l, part[K], kv_dim, c->dim),
            .wv        = tensor_at(V, l, part[V], kv_dim, c->dim),
            .wo        = tensor_at(ATTN_OUT, l, part[ATTN_OUT], c->dim, c->dim),
            .ffn_norm  = norm_at(FFN_NORM, l, part[FFN_NORM], c->dim),
            .w_gate    = tensor_at(GATE, l, part[GATE], c->hidden_dim, c->dim),
            .w_up      = tensor_at(UP, l, part[UP], c->hidden_dim, c->dim),
            .w_down    = tensor_at(FFN_OUT, l, part[FFN_OUT], c->dim, c->hidden_dim),
        };
}

static const char *take_weights(Model *m, Cursor in, size_t file_size, const int *order, bool shared) {
    const Config *c = &m->config;
    size_t start = file_size - in.left, wanted = start;
    for (const int *part = order; *part >= 0; part++) {
        size_t bytes = shared && *part == LOGITS ? 0 : times(floats_of(*part, c), sizeof(float));
        wanted = bytes > SIZE_MAX - wanted ? SIZE_MAX : wanted + bytes;
    }
    if (file_size < wanted)
        return complain("%zu bytes long, but its header asks for %zu: %zu are missing; is the download complete?",
                        file_size, wanted, wanted - file_size);
    if (file_size > wanted)
        return complain("%zu bytes long, but its header asks for %zu: one of them is wrong", file_size, wanted);

    const float *part[N_PARTS] = { 0 };
    for (; *order >= 0; order++)
        part[*order] = shared && *order == LOGITS ? part[EMBED] : take(&in, floats_of(*order, c) * sizeof(float));
    m->weights.layers = calloc(c->n_layers, sizeof *m->weights.layers);
    m->frequencies = calloc(c->rope_dim / 2, sizeof *m->frequencies);
    if (!m->weights.layers || !m->frequencies) return "no memory for the table of its weights";
    rope_frequencies(m->frequencies, c->rope_dim, c->rope_theta);
    link_weights(m, part);
    return NULL;
}

const char *checkpoint_read(Model *m, Bytes file) {
    *m = (Model){ 0 };
    Cursor in = { file.data, file.size, false };
    const char *error, *kind = what_is(file);
    bool shared = true, version_1 = take_i32(&in) == MAGIC;
    if (!version_1 && kind) return complain("%s; a llama2.c checkpoint (.bin) is wanted", kind);
    size_t header = version_1 ? HEADER_1 : HEADER_0;
    if (file.size < header)
        return complain("%zu bytes long, and a llama2.c checkpoint's header alone takes %zu", file.size, header);
    if (version_1) {
        int version = take_i32(&in);
        if (version == 2) return "a llama2.c checkpoint of version 2 (int8): only versions 0 and 1 (float) can be read";
        if (version != 1) return complain("a llama2.c checkpoint of version %d: only 0 and 1 can be read", version);
    } else {
        in = (Cursor){ file.data, file.size, false };
    }
    if ((error = take_config(&m->config, &in, version_1 ? NULL : &shared))) return error;
    if (version_1) {
        const uint8_t *flag = take(&in, 1);
        if (*flag > 1) return complain("the header says shared_classifier = %d; 0 or 1 is possible", *flag);
        shared = *flag;
    }
    in = (Cursor){ file.data + header, file.size - header, false };
    error = take_weights(m, in, file.size, version_1 ? order_1 : order_0, shared);
    if (error) model_free(m);
    return error;
}

void model_free(Model *m) {
    free(m->weights.layers);
    free(m->frequencies);
    *m = (Model){ 0 };
}

// ---------------------------------------------------------------------------- the tokenizer
//
//   int longest;  then for each id:  float score;  int length;  char text[length]
//
// By convention 0 is <unk>, 1 begins a text, 2 ends it, and "<0x41>" is the byte 0x41. A space is a space.

static PieceKind kind_of(int id, const char *text, int length) {
    static const char form[] = "<0x##>";
    if (id == 0) return UNKNOWN;
    if (id <= 2) return CONTROL;
    if (length != sizeof form - 1) return NORMAL;
    for (int i = 0; i < length; i++)
        if (form[i] == '#' ? !isxdigit((unsigned char)text[i]) : text[i] != form[i]) return NORMAL;
    return BYTE;
}

static const char *take_piece(Piece *piece, Cursor *in, int id, int longest) {
    piece->score = take_f32(in);
    piece->length = take_i32(in);
    if (in->failed) return complain("it ends inside token %d; is the download complete?", id);
    if (!isfinite(piece->score)) return complain("token %d has the score %f; a finite one is wanted", id, piece->score);
    if (piece->length < 0 || piece->length > longest)
        return complain("token %d is %d bytes long; 0 to %d is possible, says the header", id, piece->length, longest);
    piece->text = take(in, (size_t)piece->length);
    if (in->failed) return complain("it ends inside token %d; is the download complete?", id);
    piece->kind = kind_of(id, piece->text, piece->length);
    return NULL;
}

static const char *take_pieces(Vocabulary *v, Cursor *in, int size) {
    int longest = take_i32(in), most = size ? size : MOST_TOKENS;
    if (in->failed || longest < 1) return complain("the header says that the longest token has %d bytes; is it a tokenizer.bin?", longest);
    size_t room = in->left / 8 + 1;                     // a token takes 8 bytes and its text; the last may be cut off
    v->pieces = malloc((room < (size_t)most ? room : (size_t)most) * sizeof *v->pieces);
    if (!v->pieces) return "no memory for its tokens";
    for (; in->left; v->size++) {
        if (v->size == most) return complain("it holds more than the %d tokens that are wanted", most);
        const char *error = take_piece(&v->pieces[v->size], in, v->size, longest);
        if (error) return error;
    }
    return size && v->size < size ? complain("it holds %d tokens, and %d are wanted", v->size, size) : NULL;
}

const char *vocabulary_read(Vocabulary *v, Bytes file, int size) {
    *v = (Vocabulary){ .bos = 1, .eos = 2, .add_space = true };
    Cursor in = { file.data, file.size, false };
    const char *kind = what_is(file);
    if (kind) return complain("%s; a llama2.c tokenizer.bin is wanted", kind);
    const char *error = take_pieces(v, &in, size);
    if (!error && v->size < 4) error = complain("it holds %d tokens; is it a tokenizer.bin?", v->size);
    if (!error) error = vocabulary_index(v);
    if (error) vocabulary_free(v);
    return error;
}
