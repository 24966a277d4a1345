// test_checkpoint.c - llama2.c's files, built here as its export.py writes them, good and damaged.
#include "test.h"

// ---------------------------------------------------------------------------- a file, number by number

static const Config shape = { .dim = 8, .hidden_dim = 12, .n_layers = 3, .n_heads = 4, .n_kv_heads = 2,
                              .vocab_size = 10, .seq_len = 6 };
enum { HEAD_DIM = 2, KV_DIM = 4, MAX_BYTES = 32768 };

// seams: where tensors end
typedef struct { uint8_t data[MAX_BYTES]; size_t size, seams[64]; int n_seams; } File;

static void put(File *f, const void *bytes, size_t n) {
    memcpy(f->data + f->size, bytes, n);
    f->size += n;
}
static void put_int(File *f, int value) { put(f, &value, sizeof value); }

// Every number says where it belongs; all of them are whole and below 2^24, so that a float holds them.
static float planted(int op, int layer, int row, int col) {
    return (float)(op * 1000000 + layer * 10000 + row * 100 + col);
}

static void put_tensor(File *f, int op, int layers, int rows, int cols) {
    for (int l = 0; l < layers; l++)
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < cols; c++) put(f, &(float){ planted(op, l, r, c) }, sizeof(float));
    f->seams[f->n_seams++] = f->size;
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
    put_tensor(f, EMBED, 1, c->vocab_size, c->dim);
    put_tensor(f, ATTN_NORM, L, 1, c->dim);
    put_tensor(f, Q, L, c->dim, c->dim);
    put_tensor(f, K, L, KV_DIM, c->dim);
    put_tensor(f, V, L, KV_DIM, c->dim);
    put_tensor(f, ATTN_OUT, L, c->dim, c->dim);
    put_tensor(f, FFN_NORM, L, 1, c->dim);
    put_tensor(f, GATE, L, c->hidden_dim, c->dim);
    put_tensor(f, FFN_OUT, L, c->dim, c->hidden_dim);
    put_tensor(f, UP, L, c->hidden_dim, c->dim);
    put_tensor(f, FINAL_NORM, 1, 1, c->dim);
    put_tensor(f, Q_ROPE, 1, c->seq_len, HEAD_DIM / 2);             // freqs_cos, freqs_sin
    put_tensor(f, K_ROPE, 1, c->seq_len, HEAD_DIM / 2);
    if (!tied) put_tensor(f, LOGITS, 1, c->vocab_size, c->dim);
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
    put_tensor(f, ATTN_NORM, L, 1, c->dim);
    put_tensor(f, FFN_NORM, L, 1, c->dim);
    put_tensor(f, FINAL_NORM, 1, 1, c->dim);
    put_tensor(f, EMBED, 1, c->vocab_size, c->dim);
    put_tensor(f, Q, L, c->dim, c->dim);
    put_tensor(f, K, L, KV_DIM, c->dim);
    put_tensor(f, V, L, KV_DIM, c->dim);
    put_tensor(f, ATTN_OUT, L, c->dim, c->dim);
    put_tensor(f, GATE, L, c->hidden_dim, c->dim);
    put_tensor(f, FFN_OUT, L, c->dim, c->hidden_dim);
    put_tensor(f, UP, L, c->hidden_dim, c->dim);
    if (!tied) put_tensor(f, LOGITS, 1, c->vocab_size, c->dim);
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

static void check_tensor(const Tensor *w, Op op, Op planted_op, int layer, int rows, int cols) {
    CHECK(w->op == op && w->layer == layer && w->type == F32 && w->rows == rows && w->cols == cols &&
              !w->bias,
          "%s of layer %d: got %s of layer %d, %d x %d", op_name(op), layer, op_name(w->op), w->layer,
          w->rows, w->cols);
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++) {
            float want = planted(planted_op, layer < 0 ? 0 : layer, r, c),
                  got = ((const float *)w->data)[r * cols + c];
            CHECK(got == want, "%s of layer %d [%d, %d]: wanted %.0f, got %.0f", op_name(op), layer, r, c,
                  want, got);
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

static void test_good_file(const File *f, bool tied) {
    Model m;
    const char *error = checkpoint_read(&m, (Bytes){ f->data, f->size });
    CHECK(!error, "a good file is refused: %s", error);
    if (error) return;
    const Config *c = &m.config;
    CHECK(c->dim == 8 && c->hidden_dim == 12 && c->n_layers == 3 && c->n_heads == 4 && c->n_kv_heads == 2 &&
              c->vocab_size == 10 && c->seq_len == 6 && c->head_dim == 2,
          "the numbers of the header are mixed up");
    CHECK(!strcmp(c->norm, "rmsnorm") && c->rope_dim == 2 && c->rope_theta == 10000 && c->rotation == PAIRS,
          "not a llama");
    CHECK(m.frequencies[0] == 1, "the first pair turns by 1 radian, not by %g", m.frequencies[0]);
    check_tensor(&m.weights.embedding, EMBED, EMBED, -1, 10, 8);
    check_tensor(&m.weights.classifier, LOGITS, tied ? EMBED : LOGITS, -1, 10, 8);
    check_norm(&m.weights.final_norm, FINAL_NORM, -1, 8);
    for (int l = 0; l < 3; l++) {
        const Layer *w = &m.weights.layers[l];
        check_norm(&w->attn_norm, ATTN_NORM, l, 8);
        check_tensor(&w->wq, Q, Q, l, 8, 8);
        check_tensor(&w->wk, K, K, l, 4, 8);
        check_tensor(&w->wv, V, V, l, 4, 8);
        check_tensor(&w->wo, ATTN_OUT, ATTN_OUT, l, 8, 8);
        check_norm(&w->ffn_norm, FFN_NORM, l, 8);
        check_tensor(&w->w_gate, GATE, GATE, l, 12, 8);
        check_tensor(&w->w_up, UP, UP, l, 12, 8);
        check_tensor(&w->w_down, FFN_OUT, FFN_OUT, l, 8, 12);
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

static void test_version_1_fields(const File *good) {
    static const struct { const char *name; size_t offset; uint8_t value; } bytes[] = {
        { "version 0", 4, 0 }, { "version 2", 4, 2 }, { "version 3", 4, 3 },
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

static void test_other_files(void) {
    static const char *const others[] = { "GGUF\3\0\0\0", "PK\3\4", "<!DOCTYPE html>",
                                          "version https://git-lfs" };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        File f = { .size = 0 };
        put(&f, others[i], strlen(others[i]));
        check_refused(others[i], &f, 4096);
    }
    File zeros = { .size = 0 };
    check_refused("zeros", &zeros, 4096);
}

// ---------------------------------------------------------------------------- tokenizer.bin

static void put_piece(File *f, float score, const char *text, int length) {
    put(f, &score, sizeof score);
    put_int(f, length);
    put(f, text, strlen(text));
    f->seams[f->n_seams++] = f->size;
}

static void make_vocabulary(File *f) {
    *f = (File){ .size = 0 };
    put_int(f, 7);
    put_piece(f, 0, "<unk>", 5);
    put_piece(f, 0, "\n<s>\n", 5);
    put_piece(f, 0, "\n</s>\n", 6);
    put_piece(f, 0, "<0x41>", 6);
    put_piece(f, 0, "<0xzz>", 6);                       // not a byte: a text
    put_piece(f, -1, " there ", 7);
    put_piece(f, -2.5f, "", 0);
    put_piece(f, -3, "\xc3\xa9", 2);
}

static const char *read_vocabulary(Vocabulary *v, const File *f, size_t size, uint8_t **copy) {
    *copy = malloc(size + !size);
    memcpy(*copy, f->data, size);
    return vocabulary_read(v, (Bytes){ *copy, size }, 0);
}

static void test_vocabulary(void) {
    static const struct { const char *text; int length; float score; PieceKind kind; } want[] = {
        { "<unk>", 5, 0, UNKNOWN }, { "\n<s>\n", 5, 0, CONTROL }, { "\n</s>\n", 6, 0, CONTROL },
        { "A", 1, 0, BYTE },        { "<0xzz>", 6, 0, NORMAL },   { " there ", 7, -1, NORMAL },
        { "", 0, -2.5f, NORMAL },   { "\xc3\xa9", 2, -3, NORMAL },
    };
    File f;
    Vocabulary v;
    uint8_t *copy;
    make_vocabulary(&f);
    const char *error = read_vocabulary(&v, &f, f.size, &copy);
    CHECK(!error, "a good tokenizer is refused: %s", error);
    CHECK(v.size == 8 && v.bos == 1 && v.eos == 2 && v.add_space && v.unknown == 0 && v.longest == 7,
          "%d pieces, up to %d bytes", v.size, v.longest);
    for (int i = 0; i < v.size && i < 8; i++) {
        const Piece *p = &v.pieces[i];
        CHECK(p->length == want[i].length && !memcmp(p->text, want[i].text, (size_t)p->length) &&
                  p->score == want[i].score && p->kind == want[i].kind,
              "piece %d: wanted '%s', got '%.*s', score %g, kind %d", i, want[i].text, p->length, p->text,
              p->score, p->kind);
    }
    CHECK(v.byte_ids[0x41] == 3 && v.byte_ids[0x42] == -1, "<0x41> is byte piece %d", v.byte_ids[0x41]);
    vocabulary_free(&v), free(copy);

    static const int sizes[] = { 1, 7, 8, 9, INT32_MAX };           // of which one is the right one
    for (int i = 0; i < 5; i++) {
        error = vocabulary_read(&v, (Bytes){ f.data, f.size }, sizes[i]);
        CHECK(sizes[i] == 8 ? !error && v.size == 8 : is_sentence(error) && !v.pieces && !v.slots,
              "eight pieces, and %d are wanted: %s", sizes[i], error ? error : "accepted");
        vocabulary_free(&v);
    }
}

static void check_vocabulary_refused(const char *what, const File *f, size_t size) {
    Vocabulary v;
    uint8_t *copy;
    const char *error = read_vocabulary(&v, f, size, &copy);
    CHECK(is_sentence(error), "%s, %zu bytes: wanted a refusal, got %s", what, size,
          error ? error : "a vocabulary");
    CHECK(!v.pieces && !v.slots, "%s, %zu bytes: refused, but something is held", what, size);
    vocabulary_free(&v), free(copy);
}

static void test_damaged_vocabularies(void) {
    File good, f;
    make_vocabulary(&good);
    for (size_t size = 0, seam = 0; size < good.size; size++) {
        while (good.seams[seam] < size) seam++;
        if (seam >= 3 && size == good.seams[seam]) continue;        // a shorter one, of four pieces or more
        check_vocabulary_refused("cut short", &good, size);
    }
    static const struct { const char *name; size_t offset; uint32_t value; } words[] = {
        { "longest 0", 0, 0 },           { "longest -1", 0, 0xffffffff }, { "longest 6", 0, 6 },
        { "length -1", 8, 0xffffffff },  { "length 8", 8, 8 },            { "length huge", 8, 0x7fffffff },
        { "score NaN", 4, 0x7fc00000 },  { "score infinite", 4, 0xff800000 },
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        f = good;
        memcpy(f.data + words[i].offset, &words[i].value, 4);
        check_vocabulary_refused(words[i].name, &f, f.size);
    }
    f = (File){ .size = 0 };                            // no piece takes less room than one without text
    put_int(&f, 1);
    for (int i = 0; i < 20; i++) put_piece(&f, 0, "", 0);
    for (size_t extra = 1; extra < 8; extra++)
        check_vocabulary_refused("20 empty pieces and a bit", &f, f.size + extra);
    check_vocabulary_refused("three pieces", &f, 4 + 3 * 8);
    f.data[0] = 'G', f.data[1] = 'G', f.data[2] = 'U', f.data[3] = 'F';
    check_vocabulary_refused("a GGUF file", &f, f.size);
}

int main(void) {
    File f;
    for (int tied = 0; tied < 2; tied++) {
        make_version_0(&f, tied);
        test_good_file(&f, tied);
        test_wrong_fields(&f, 0);
        test_wrong_sizes(&f, 28);
        make_version_1(&f, tied);
        test_good_file(&f, tied);
        test_wrong_fields(&f, 8);
        test_version_1_fields(&f);
        test_wrong_sizes(&f, 256);
    }
    test_impossible_shapes();
    test_other_files();
    test_vocabulary();
    test_damaged_vocabularies();
    return finish("test_checkpoint");
}
