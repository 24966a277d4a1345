// test_llama2c.c - llama2.c's files, built here as its export.py writes them, good and damaged.
#include "test.h"

// ---------------------------------------------------------------------------- a file, number by number

static const Config even = { .dim = 8, .hidden_dim = 12, .n_layers = 3, .n_heads = 4, .n_kv_heads = 2,
                             .head_dim = 2, .vocab_size = 10, .seq_len = 6 };
// Of version 2 only: 11 x 10 and 15 x 10 bytes leave what follows them off the multiples of 4.
static const Config odd = { .dim = 10, .hidden_dim = 15, .n_layers = 2, .n_heads = 5, .n_kv_heads = 1,
                            .head_dim = 2, .vocab_size = 11, .seq_len = 7 };
static Config shape;
enum { MAX_BYTES = 32768 };

// seams: where tensors end
typedef struct { uint8_t data[MAX_BYTES]; size_t size, seams[128]; int n_seams; } File;

static void put(File *f, const void *bytes, size_t n) {
    memcpy(f->data + f->size, bytes, n);
    f->size += n;
}
static void put_int(File *f, int value) { put(f, &value, sizeof value); }

// Every number says where it belongs; all of them are whole and below 2^24, so that a float holds them.
static float planted(int op, int layer, int row, int col) {
    return (float)(op * 1000000 + layer * 10000 + row * 100 + col);
}

static void put_floats(File *f, int op, int layers, int rows, int cols) {
    for (int l = 0; l < layers; l++)
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < cols; c++) put(f, &(float){ planted(op, l, r, c) }, sizeof(float));
    f->seams[f->n_seams++] = f->size;
}

// int8, then a scale for each group.
static int planted_byte(int op, int layer, int row, int col) {
    return (op * 7 + layer * 41 + row * 13 + col * 5) % 255 - 127;
}

static void put_plane(File *f, int op, int layers, int rows, int cols, int group) {
    for (int l = 0; l < layers; l++) {
        for (int i = 0; i < rows * cols; i++)
            put(f, &(int8_t){ (int8_t)planted_byte(op, l, i / cols, i % cols) }, 1);
        f->seams[f->n_seams++] = f->size;
        for (int r = 0; r < rows; r++)
            for (int g = 0; g < cols / group; g++) put(f, &(float){ planted(op, l, r, g) }, sizeof(float));
        f->seams[f->n_seams++] = f->size;
    }
}

static const int *header_of(bool negative) {
    static int header[7];
    const int numbers[7] = { shape.dim, shape.hidden_dim, shape.n_layers, shape.n_heads, shape.n_kv_heads,
                             negative ? -shape.vocab_size : shape.vocab_size, shape.seq_len };
    return memcpy(header, numbers, sizeof header);
}

// export.py, legacy_export: w1 is the gate, w2 leads down, w3 is up.
static void make_version_0(File *f, bool tied) {
    const Config *c = &shape;
    int L = c->n_layers;
    *f = (File){ .size = 0 };
    put(f, header_of(!tied), 28);
    put_floats(f, EMBED, 1, c->vocab_size, c->dim);
    put_floats(f, ATTN_NORM, L, 1, c->dim);
    put_floats(f, Q, L, c->dim, c->dim);
    put_floats(f, K, L, (c->n_kv_heads * c->head_dim), c->dim);
    put_floats(f, V, L, (c->n_kv_heads * c->head_dim), c->dim);
    put_floats(f, ATTN_OUT, L, c->dim, c->dim);
    put_floats(f, FFN_NORM, L, 1, c->dim);
    put_floats(f, GATE, L, c->hidden_dim, c->dim);
    put_floats(f, FFN_OUT, L, c->dim, c->hidden_dim);
    put_floats(f, UP, L, c->hidden_dim, c->dim);
    put_floats(f, FINAL_NORM, 1, 1, c->dim);
    put_floats(f, Q_ROPE, 1, c->seq_len, c->head_dim / 2);             // freqs_cos, freqs_sin
    put_floats(f, K_ROPE, 1, c->seq_len, c->head_dim / 2);
    if (!tied) put_floats(f, LOGITS, 1, c->vocab_size, c->dim);
}

// export.py, version1_export
static void make_version_1(File *f, bool tied) {
    const Config *c = &shape;
    int L = c->n_layers;
    *f = (File){ .size = 0 };
    put_int(f, 0x616b3432);
    put_int(f, 1);
    put(f, header_of(false), 28);
    put(f, &(uint8_t){ tied }, 1);
    f->size = 256;
    put_floats(f, ATTN_NORM, L, 1, c->dim);
    put_floats(f, FFN_NORM, L, 1, c->dim);
    put_floats(f, FINAL_NORM, 1, 1, c->dim);
    put_floats(f, EMBED, 1, c->vocab_size, c->dim);
    put_floats(f, Q, L, c->dim, c->dim);
    put_floats(f, K, L, (c->n_kv_heads * c->head_dim), c->dim);
    put_floats(f, V, L, (c->n_kv_heads * c->head_dim), c->dim);
    put_floats(f, ATTN_OUT, L, c->dim, c->dim);
    put_floats(f, GATE, L, c->hidden_dim, c->dim);
    put_floats(f, FFN_OUT, L, c->dim, c->hidden_dim);
    put_floats(f, UP, L, c->hidden_dim, c->dim);
    if (!tied) put_floats(f, LOGITS, 1, c->vocab_size, c->dim);
}

// export.py, version2_export
static void make_version_2(File *f, bool tied, int group) {
    const Config *c = &shape;
    int L = c->n_layers, kv_dim = c->n_kv_heads * c->head_dim;
    *f = (File){ .size = 0 };
    put_int(f, 0x616b3432);
    put_int(f, 2);
    put(f, header_of(false), 28);
    put(f, &(uint8_t){ tied }, 1);
    put_int(f, group);
    f->size = 256;
    put_floats(f, ATTN_NORM, L, 1, c->dim);
    put_floats(f, FFN_NORM, L, 1, c->dim);
    put_floats(f, FINAL_NORM, 1, 1, c->dim);
    put_plane(f, EMBED, 1, c->vocab_size, c->dim, group);
    put_plane(f, Q, L, c->dim, c->dim, group);
    put_plane(f, K, L, kv_dim, c->dim, group);
    put_plane(f, V, L, kv_dim, c->dim, group);
    put_plane(f, ATTN_OUT, L, c->dim, c->dim, group);
    put_plane(f, GATE, L, c->hidden_dim, c->dim, group);
    put_plane(f, FFN_OUT, L, c->dim, c->hidden_dim, group);
    put_plane(f, UP, L, c->hidden_dim, c->dim, group);
    if (!tied) put_plane(f, LOGITS, 1, c->vocab_size, c->dim, group);
}

// A copy of exactly so many bytes, so that a sanitizer sees a reader go beyond them.
static const char *read_bytes(Model *m, const File *f, size_t size) {
    uint8_t *copy = malloc(size + !size);
    memcpy(copy, f->data, size);
    const char *error = checkpoint_read(m, (Bytes){ copy, size });
    free(copy);
    return error;
}

// ---------------------------------------------------------------------------- good files

static void check_tensor(const Tensor *t, Op op, Op planted_op, int layer, int rows, int cols, int group) {
    CHECK(t->op == op && t->layer == layer && t->w.rows == rows && t->w.cols == cols && !t->bias,
          "%s of layer %d: got %s of layer %d, %d x %d", op_name(op), layer, op_name(t->op), t->layer,
          t->w.rows, t->w.cols);
    CHECK(t->w.type == (group ? Q8_PLANE : F32) && t->w.group == group,
          "%s of layer %d: wanted groups of %d, got %s in groups of %d", op_name(op), layer, group,
          formats[t->w.type].name, t->w.group);
    for (int r = 0, l = layer < 0 ? 0 : layer; r < rows; r++)
        for (int c = 0; c < cols; c++) {
            int i = r * cols + c;
            float want = planted(planted_op, l, r, group ? c / group : c), got;
            memcpy(&got, group ? (const char *)t->w.scales + i / group * 4 : (const char *)t->w.data + i * 4,
                   sizeof got);
            CHECK(got == want, "%s of layer %d [%d, %d]: wanted %.0f, got %.0f", op_name(op), layer, r, c,
                  want, got);
            if (!group) continue;
            int byte = ((const int8_t *)t->w.data)[i];
            CHECK(byte == planted_byte(planted_op, l, r, c), "%s of layer %d [%d, %d]: wanted %d, got %d",
                  op_name(op), layer, r, c, planted_byte(planted_op, l, r, c), byte);
        }
}

static void check_norm(const Norm *w, Op op, int layer, int dim) {
    CHECK(w->op == op && w->layer == layer && w->dim == dim && w->eps == 1e-5f && !w->bias,
          "%s of layer %d: got %s of layer %d, %d, eps %g", op_name(op), layer, op_name(w->op), w->layer,
          w->dim, w->eps);
    for (int i = 0; i < dim; i++) {
        float want = planted(op, layer < 0 ? 0 : layer, 0, i);
        CHECK(w->weight[i] == want, "%s of layer %d [%d]: wanted %.0f, got %.0f", op_name(op), layer, i, want,
              w->weight[i]);
    }
}

static void test_good_file(const File *f, bool tied, int group) {
    Model m;
    const char *error = checkpoint_read(&m, (Bytes){ f->data, f->size });
    CHECK(!error, "a good file is refused: %s", error);
    if (error) return;
    const Config *c = &m.config;
    CHECK(c->dim == shape.dim && c->hidden_dim == shape.hidden_dim && c->n_layers == shape.n_layers &&
              c->n_heads == shape.n_heads && c->n_kv_heads == shape.n_kv_heads &&
              c->vocab_size == shape.vocab_size && c->seq_len == shape.seq_len &&
              c->head_dim == shape.head_dim,
          "the numbers of the header are mixed up");
    CHECK(!strcmp(c->norm, "rmsnorm") && c->rope_dim == 2 && c->rope_theta == 10000 && c->rotation == PAIRS,
          "not a llama");
    CHECK(m.frequencies[0] == 1, "the first pair turns by 1 radian, not by %g", m.frequencies[0]);
    int dim = shape.dim, hidden_dim = shape.hidden_dim, kv_dim = shape.n_kv_heads * shape.head_dim;
    check_tensor(&m.weights.embedding, EMBED, EMBED, -1, shape.vocab_size, dim, group);
    check_tensor(&m.weights.classifier, LOGITS, tied ? EMBED : LOGITS, -1, shape.vocab_size, dim, group);
    check_norm(&m.weights.final_norm, FINAL_NORM, -1, dim);
    for (int l = 0; l < shape.n_layers; l++) {
        const Layer *w = &m.weights.layers[l];
        check_norm(&w->attn_norm, ATTN_NORM, l, dim);
        check_tensor(&w->wq, Q, Q, l, dim, dim, group);
        check_tensor(&w->wk, K, K, l, kv_dim, dim, group);
        check_tensor(&w->wv, V, V, l, kv_dim, dim, group);
        check_tensor(&w->wo, ATTN_OUT, ATTN_OUT, l, dim, dim, group);
        check_norm(&w->ffn_norm, FFN_NORM, l, dim);
        check_tensor(&w->w_gate, GATE, GATE, l, hidden_dim, dim, group);
        check_tensor(&w->w_up, UP, UP, l, hidden_dim, dim, group);
        check_tensor(&w->w_down, FFN_OUT, FFN_OUT, l, dim, hidden_dim, group);
    }
    model_free(&m);
    CHECK(!m.weights.layers && !m.frequencies, "a freed model still holds something");
}

// ---------------------------------------------------------------------------- damaged files

static const char *check_refused(const char *what, const File *f, size_t size) {
    Model m;
    memset(&m, 0xa5, sizeof m);
    const char *error = read_bytes(&m, f, size);
    CHECK(is_sentence(error), "%s, %zu bytes: wanted a refusal, got %s", what, size,
          error ? error : "a model");
    CHECK(!m.weights.layers && !m.frequencies, "%s, %zu bytes: refused, but something is held", what, size);
    model_free(&m);                                     // harmless, then
    return error ? error : "";
}

static void test_wrong_sizes(File *f, size_t header) {
    for (size_t size = 0; size <= header; size++) {
        const char *error = check_refused("the header cut short", f, size);
        CHECK(!strstr(error, "version"), "%zu bytes of a good header: %s", size, error);
    }
    for (int i = 0; i < f->n_seams; i++) {
        if (i + 1 < f->n_seams) check_refused("cut at a seam", f, f->seams[i]);
        check_refused("cut before a seam", f, f->seams[i] - 1);
    }
    f->size += 16;
    check_refused("a byte too long", f, f->size - 15);
    check_refused("four floats too long", f, f->size);
}

static void test_wrong_fields(const File *good, size_t first_field) {
    static const int fields[][6] = {                    // beside the shape above
        { 0, -8, 7, 9, 4, 0x7fffffff },                 // 7 and 9: not shared equally; 4: heads of one number
        { 0, -12, 13, 11, 1 << 21, INT32_MIN },
        { 0, -3, 2, 4, 1 << 17, 0x7fffffff },
        { 0, -4, 3, 8, 1 << 21, INT32_MIN },
        { 0, -2, 3, 5, 8, 0x7fffffff },
        { 0, INT32_MIN, 9, 11, 1 << 25, 0x7fffffff },
        { 0, -6, 5, 7, INT32_MIN, 0x7fffffff },
    };
    for (int i = 0; i < 7; i++)
        for (int k = 0; k < 6; k++) {
            if (first_field && i == 6 && fields[i][k] > 0) continue;    // version 1 stores no angles
            File f = *good;
            memcpy(f.data + first_field + 4 * (size_t)i, &fields[i][k], 4);
            check_refused("a field out of place", &f, f.size);
        }
}

// Files as long as their headers ask for, with shapes that no model has.
static void test_impossible_shapes(void) {
    static const Config shapes[] = {
        { .dim = 9, .n_heads = 2, .n_kv_heads = 2 },                // heads of four and a half
        { .dim = 6, .n_heads = 2, .n_kv_heads = 2 },                // of three: not pairs
        { .dim = 8, .n_heads = 4, .n_kv_heads = 3 },                // four cannot share three
        { .dim = 8, .n_heads = 2, .n_kv_heads = 4 },
        { .dim = 8, .n_heads = 2, .n_kv_heads = 1 },                // this one is good
    };
    for (int i = 0; i < 5; i++) {
        Config c = shapes[i];
        c.hidden_dim = 4, c.n_layers = 1, c.vocab_size = 5, c.seq_len = 4;
        Bytes file = random_checkpoint(&c, true);
        Model m;
        const char *error = checkpoint_read(&m, file);
        CHECK(i < 4 ? is_sentence(error) : !error, "dim %d, %d heads, %d kv heads: %s", c.dim, c.n_heads,
              c.n_kv_heads, error ? error : "accepted");
        model_free(&m), free_bytes(file);
    }
}

static void test_marked_fields(const File *good) {
    const struct { const char *name; size_t offset; uint8_t value; } bytes[] = {
        { "version 0", 4, 0 }, { "version 1 or 2", 4, good->data[4] ^ 3 }, { "version 3", 4, 3 },
        { "shared 2", 36, 2 }, { "shared 255", 36, 255 }, { "another magic", 0, 0x33 },
    };
    for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++) {
        File f = *good;
        f.data[bytes[i].offset] = bytes[i].value;
        check_refused(bytes[i].name, &f, f.size);
    }
    File f = *good;
    memcpy(f.data + 28, &(int){ -10 }, 4);              // only version 0 says it with a sign
    check_refused("a negative vocab_size", &f, f.size);
}

// An int8 file with these groups would be as long as it is, or is not; none of them fits both 8 and 12.
static void test_groups(const File *good, int group) {
    static const int groups[] = { 0, -1, -4, 3, 5, 6, 8, 12, 24, INT32_MIN, INT32_MAX };
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        File f = *good;
        memcpy(f.data + 37, &groups[i], 4);
        const char *error = check_refused("a wrong group size", &f, f.size);
        CHECK(strstr(error, "group_size"), "a group size of %d: %s", groups[i], error);
    }
    for (int other = 1; other <= 4; other *= 2) {       // possible, but another length would go with it
        File f = *good;
        memcpy(f.data + 37, &other, 4);
        if (other != group) check_refused("another group size", &f, f.size);
    }
}

static void test_other_files(void) {
    static const char *const others[] = { "GGUF", "PK\3\4", "<!DOCTYPE html>",
                                          "version https://git-lfs" };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        File f = { .size = 0 };
        put(&f, others[i], strlen(others[i]));
        check_refused(others[i], &f, 4096);
    }
    File zeros = { .size = 0 };
    check_refused("zeros", &zeros, 4096);
}

int main(void) {
    File f;
    shape = even;
    for (int tied = 0; tied < 2; tied++) {
        make_version_0(&f, tied);
        test_good_file(&f, tied, 0);
        test_wrong_fields(&f, 0);
        test_wrong_sizes(&f, 28);
        make_version_1(&f, tied);
        test_good_file(&f, tied, 0);
        test_wrong_fields(&f, 8);
        test_marked_fields(&f);
        test_wrong_sizes(&f, 256);
        for (int group = 1; group <= 4; group *= 2) {
            make_version_2(&f, tied, group);
            test_good_file(&f, tied, group);
            test_wrong_fields(&f, 8);
            test_marked_fields(&f);
            test_groups(&f, group);
            test_wrong_sizes(&f, 256);
        }
    }
    shape = odd;
    for (int tied = 0; tied < 2; tied++) {
        make_version_2(&f, tied, 5);
        test_good_file(&f, tied, 5);
        test_wrong_sizes(&f, 256);
    }
    test_impossible_shapes();
    test_other_files();
    return finish("test_llama2c");
}
