// llama2c.c - read the files of llama2.c: a model's .bin, version 0, 1 or 2, and its tokenizer.bin.
//
//   version 0   7 ints, floats
//   version 1   "24ka", 1, 7 ints, a byte, zeros up to 256, floats
//   version 2   "24ka", 2, 7 ints, a byte, group size, zeros up to 256, the norms' floats, int8 matrices
//
// The ints: dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len. In version 0 a negative
// vocab_size means that the classifier has weights of its own; later the byte is 1 where it shares the
// embedding's. The weights of all layers stand together, kind by kind, in the orders below; an int8 matrix is
// followed by the scales of its groups. They have no names and no checksum: that the file has exactly the
// size its header asks for is all there is to tell a good one by.
// https://github.com/karpathy/llama2.c, export.py
#include "model.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAGIC = 0x616b3432, HEADER_0 = 28, HEADER_1 = 256 };
enum { V0_ROPE = N_OPS, N_PARTS };                      // version 0 stores RoPE's angles too; we compute them

static const int orders[2][N_PARTS] = {                 // of version 0, and of those after it
    { EMBED, ATTN_NORM, Q, K, V, ATTN_OUT, FFN_NORM, GATE, FFN_OUT, UP, FINAL_NORM, V0_ROPE, LOGITS, -1 },
    { ATTN_NORM, FFN_NORM, FINAL_NORM, EMBED, Q, K, V, ATTN_OUT, GATE, FFN_OUT, UP, LOGITS, -1 },
};

// ---------------------------------------------------------------------------- the header

// shared: where the sign of vocab_size says whether the classifier is the embedding; NULL: it does not.
static const char *take_config(Config *c, Cursor *in, bool *shared) {
    struct { const char *name; int *value; int most; } fields[] = {
        { "dim", &c->dim, MAX_DIM },               { "hidden_dim", &c->hidden_dim, MAX_DIM },
        { "n_layers", &c->n_layers, MAX_LAYERS },  { "n_heads", &c->n_heads, MAX_DIM },
        { "n_kv_heads", &c->n_kv_heads, MAX_DIM }, { "vocab_size", &c->vocab_size, MAX_VOCAB },
        { "seq_len", &c->seq_len, INT32_MAX },
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        *fields[i].value = take_i32(in);
        if (shared && fields[i].value == &c->vocab_size && c->vocab_size > INT32_MIN) {
            *shared = c->vocab_size > 0;
            c->vocab_size = abs(c->vocab_size);
        }
        if (*fields[i].value < 1 || *fields[i].value > fields[i].most)
            return complain("the header says %s = %d; 1 to %d is possible", fields[i].name, *fields[i].value,
                            fields[i].most);
    }
    if (c->dim % c->n_heads)
        return complain("the header says dim = %d, which %d heads cannot share equally", c->dim, c->n_heads);
    if (c->n_heads % c->n_kv_heads)
        return complain("the header says n_heads = %d, which n_kv_heads = %d does not divide", c->n_heads,
                        c->n_kv_heads);
    c->head_dim = c->rope_dim = c->dim / c->n_heads;
    if (c->head_dim % 2)
        return complain("the header says dim = %d and n_heads = %d: heads of %d, but RoPE turns pairs",
                        c->dim, c->n_heads, c->head_dim);
    c->norm = "rmsnorm";
    c->rope_theta = 10000;
    c->rotation = PAIRS;
    return NULL;
}

// ---------------------------------------------------------------------------- the weights

static void shape_of(int part, const Config *c, int *rows, int *cols) {
    int kv_dim = c->n_kv_heads * c->head_dim;
    *cols = part == FFN_OUT ? c->hidden_dim : c->dim;
    switch (part) {
    case EMBED: case LOGITS: *rows = c->vocab_size; break;
    case Q: case ATTN_OUT: case FFN_OUT: *rows = c->dim; break;
    case K: case V:          *rows = kv_dim;        break;
    case GATE: case UP:      *rows = c->hidden_dim; break;
    case V0_ROPE:            *rows = c->seq_len, *cols = c->head_dim; break;     // half of them cos, half sin
    default:                 *rows = 1;             break;                       // the norms
    }
}

static bool in_every_layer(int part) {
    return part != EMBED && part != LOGITS && part != FINAL_NORM && part != V0_ROPE;
}

static bool is_norm(int part) { return part == ATTN_NORM || part == FFN_NORM || part == FINAL_NORM; }

// Of one layer's share of a part.
static size_t bytes_of_part(int part, const Config *c, int group) {
    int rows, cols;
    shape_of(part, c, &rows, &cols);
    size_t n = size_times(rows, cols);
    if (is_norm(part) || !group) return size_times(n, sizeof(float));
    return size_times(n / group, group + sizeof(float));
}

static Tensor tensor_at(Op op, int layer, const void *const part[], const Config *c, int group) {
    Tensor t = { op, layer, { .type = group ? Q8_PLANE : F32, .group = group }, NULL };
    shape_of(op, c, &t.w.rows, &t.w.cols);
    t.w.data = (const char *)part[op] + (layer < 0 ? 0 : layer * bytes_of_part(op, c, group));
    if (group) t.w.scales = (const char *)t.w.data + (size_t)t.w.rows * t.w.cols;
    return t;
}

static Norm norm_at(Op op, int layer, const void *const part[], const Config *c) {
    const float *weight = (const float *)part[op] + (layer < 0 ? 0 : (size_t)layer * c->dim);
    return (Norm){ op, layer, c->dim, 1e-5f, weight, NULL };
}

static void link_weights(Model *m, const void *const part[], int group) {
    const Config *c = &m->config;
    Weights *w = &m->weights;
    w->embedding  = tensor_at(EMBED, -1, part, c, group);
    w->final_norm = norm_at(FINAL_NORM, -1, part, c);
    w->classifier = tensor_at(LOGITS, -1, part, c, group);
    for (int l = 0; l < c->n_layers; l++)
        w->layers[l] = (Layer){
            .attn_norm = norm_at(ATTN_NORM, l, part, c),
            .wq        = tensor_at(Q, l, part, c, group),
            .wk        = tensor_at(K, l, part, c, group),
            .wv        = tensor_at(V, l, part, c, group),
            .wo        = tensor_at(ATTN_OUT, l, part, c, group),
            .ffn_norm  = norm_at(FFN_NORM, l, part, c),
            .w_gate    = tensor_at(GATE, l, part, c, group),
            .w_up      = tensor_at(UP, l, part, c, group),
            .w_down    = tensor_at(FFN_OUT, l, part, c, group),
        };
}

static const char *take_weights(Model *m, Cursor in, size_t file_size, const int *order, bool shared,
                                int group) {
    const Config *c = &m->config;
    size_t size[N_PARTS], wanted = file_size - in.left;
    for (int i = 0; order[i] >= 0; i++) {
        int part = order[i], many = shared && part == LOGITS ? 0 : in_every_layer(part) ? c->n_layers : 1;
        size[part] = size_times((size_t)many, bytes_of_part(part, c, group));
        wanted = size[part] > SIZE_MAX - wanted ? SIZE_MAX : wanted + size[part];
    }
    if (file_size < wanted)
        return complain("%zu bytes long, but its header asks for %zu: %zu are missing; is the download "
                        "complete?", file_size, wanted, wanted - file_size);
    if (file_size > wanted)
        return complain("%zu bytes long, but its header asks for %zu: one of them is wrong", file_size,
                        wanted);

    const void *part[N_PARTS] = { 0 };
    for (; *order >= 0; order++) part[*order] = take(&in, size[*order]);
    if (shared) part[LOGITS] = part[EMBED];
    m->weights.layers = calloc(c->n_layers, sizeof *m->weights.layers);
    if (!m->weights.layers) return "no memory for the table of its weights";
    link_weights(m, part, group);
    return NULL;
}

// Groups do not reach from one row into the next.
static const char *check_group(const Config *c, int group) {
    if (group < 1 || c->dim % group || c->hidden_dim % group)
        return complain("the header says group_size = %d, which does not divide dim = %d and hidden_dim = %d",
                        group, c->dim, c->hidden_dim);
    return NULL;
}

const char *llama2c_read(Model *m, Bytes file) {
    *m = (Model){ 0 };
    Cursor in = { file.data, file.size, false };
    bool marked = take_i32(&in) == MAGIC;
    size_t header = marked ? HEADER_1 : HEADER_0;
    if (file.size < header)
        return complain("%zu bytes long, and a llama2.c checkpoint's header alone takes %zu", file.size,
                        header);
    int version = marked ? take_i32(&in) : 0, group = 0;
    if (marked && (version < 1 || version > 2))
        return complain("a llama2.c checkpoint of version %d: 0, 1 and 2 can be read", version);
    if (!marked) in = (Cursor){ file.data, file.size, false };

    bool shared = true;
    const char *error = take_config(&m->config, &in, version ? NULL : &shared);
    if (error && !marked)                               // there is no mark to tell one by
        return complain("neither a GGUF file nor a llama2.c checkpoint (%s); is it a part of a larger file?",
                        error);
    if (error) return error;
    if (version) {
        const uint8_t *flag = take(&in, 1);
        if (*flag > 1) return complain("the header says shared_classifier = %d; 0 or 1 is possible", *flag);
        shared = *flag;
    }
    if (version == 2 && (error = check_group(&m->config, group = take_i32(&in)))) return error;
    in = (Cursor){ file.data + header, file.size - header, false };
    return take_weights(m, in, file.size, orders[version > 0], shared, group);
}

// ---------------------------------------------------------------------------- the tokenizer
//
//   int longest;  then for each id:  float score;  int length;  char text[length]
//
// By convention 0 is <unk>, 1 begins a text, 2 ends it, and "<0x41>" is the byte 0x41. A space is a space.

static PieceKind kind_of(int id, const char *text, int length) {
    return id == 0 ? UNKNOWN : id <= 2 ? CONTROL : spells_byte(text, length) ? BYTE : NORMAL;
}

static const char *take_piece(Piece *piece, Cursor *in, int id, int longest) {
    piece->score = take_f32(in);
    piece->length = take_i32(in);
    if (in->failed) return complain("it ends inside token %d; is the download complete?", id);
    if (!isfinite(piece->score))
        return complain("token %d has the score %f; a finite one is wanted", id, piece->score);
    if (piece->length < 0 || piece->length > longest)
        return complain("token %d is %d bytes long; 0 to %d is possible, says the header", id, piece->length,
                        longest);
    piece->text = take(in, (size_t)piece->length);
    if (in->failed) return complain("it ends inside token %d; is the download complete?", id);
    piece->kind = kind_of(id, piece->text, piece->length);
    return NULL;
}

static const char *take_pieces(Vocabulary *v, Cursor *in, int size) {
    int longest = take_i32(in), most = size ? size : MAX_VOCAB;
    if (in->failed || longest < 1)
        return complain("the header says that the longest token has %d bytes",
                        longest);
    size_t room = in->left / 8 + 1;                     // a token takes 8 bytes and its text, or is cut off
    v->pieces = malloc((room < (size_t)most ? room : (size_t)most) * sizeof *v->pieces);
    if (!v->pieces) return "no memory for its tokens";
    for (; in->left; v->size++) {
        if (v->size == most)
            return complain("it holds more tokens than the %d rows of the model's embedding", most);
        const char *error = take_piece(&v->pieces[v->size], in, v->size, longest);
        if (error) return error;
    }
    return size && v->size < size
        ? complain("it holds %d tokens, and the model's embedding has %d rows", v->size, size) : NULL;
}

const char *llama2c_vocabulary(Vocabulary *v, Bytes file, int size) {
    *v = (Vocabulary){ .bos = 1, .eos = 2, .eot = -1, .eom = -1, .add_bos = true, .add_space = true };
    Cursor in = { file.data, file.size, false };
    const char *error = take_pieces(v, &in, size);
    if (error && v->size < 3) error = complain("%s; is it a tokenizer.bin?", error);
    if (!error && v->size < 4) error = complain("it holds %d tokens; is it a tokenizer.bin?", v->size);
    return error ? error : vocabulary_index(v);
}
