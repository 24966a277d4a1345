// test_vocabulary.c - vocabularies as files hold them: llama2.c's tokenizer.bin, and the keys of a GGUF file.
#include "test.h"

// ---------------------------------------------------------------------------- tokenizer.bin

typedef struct { Buffer b; size_t seams[64]; int n_seams; } File;      // seams: where pieces end

static void put_piece(File *f, float score, const char *text, int length) {
    write_f32(&f->b, score);
    write_u32(&f->b, (uint32_t)length);
    write_bytes(&f->b, text, strlen(text));
    f->seams[f->n_seams++] = f->b.size;
}

static void make_vocabulary(File *f) {
    *f = (File){ .n_seams = 0 };
    write_u32(&f->b, 7);
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
    memcpy(*copy, f->b.data, size);
    return vocabulary_read(v, (Bytes){ *copy, size }, 0);
}

static void test_tokenizer_bin(void) {
    static const struct { const char *text; int length; float score; PieceKind kind; } want[] = {
        { "<unk>", 5, 0, UNKNOWN }, { "\n<s>\n", 5, 0, CONTROL }, { "\n</s>\n", 6, 0, CONTROL },
        { "A", 1, 0, BYTE },        { "<0xzz>", 6, 0, NORMAL },   { " there ", 7, -1, NORMAL },
        { "", 0, -2.5f, NORMAL },   { "\xc3\xa9", 2, -3, NORMAL },
    };
    File f;
    Vocabulary v;
    uint8_t *copy;
    make_vocabulary(&f);
    const char *error = read_vocabulary(&v, &f, f.b.size, &copy);
    CHECK(!error, "a good tokenizer is refused: %s", error);
    CHECK(v.size == 8 && v.unknown == 0 && v.longest == 7, "%d pieces, up to %d bytes", v.size, v.longest);
    CHECK(v.bos == 1 && v.eos == 2 && v.eot == -1 && v.eom == -1 && v.add_bos && v.add_space,
          "wanted BOS 1, EOS 2 and no others, got %d %d %d %d", v.bos, v.eos, v.eot, v.eom);
    for (int i = 0; i < v.size && i < 8; i++) {
        const Piece *p = &v.pieces[i];
        CHECK(p->length == want[i].length && !memcmp(p->text, want[i].text, (size_t)p->length) &&
                  p->score == want[i].score && p->kind == want[i].kind,
              "piece %d: wanted '%s', got '%.*s', score %g, kind %d", i, want[i].text, p->length, p->text,
              p->score, p->kind);
    }
    CHECK(v.byte_ids[0x41] == 3 && v.byte_ids[0x42] == -1, "<0x41> is byte piece %d", v.byte_ids[0x41]);
    vocabulary_free(&v), free(copy), free(f.b.data);
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

static void test_damaged_tokenizer_bin(void) {
    File good, f;
    make_vocabulary(&good);
    for (size_t size = 0, seam = 0; size < good.b.size; size++) {
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
        memcpy(good.b.data + words[i].offset, &words[i].value, 4);
        check_vocabulary_refused(words[i].name, &good, good.b.size);
        free(good.b.data);
        make_vocabulary(&good);
    }
    f = (File){ .n_seams = 0 };                         // no piece takes less room than one without text
    write_u32(&f.b, 1);
    for (int i = 0; i < 20; i++) put_piece(&f, 0, "", 0);
    for (size_t extra = 1; extra < 8; extra++)
        check_vocabulary_refused("20 empty pieces and a bit", &f, f.b.size + extra);
    check_vocabulary_refused("three pieces", &f, 4 + 3 * 8);
    f.b.data[0] = 'G', f.b.data[1] = 'G', f.b.data[2] = 'U', f.b.data[3] = 'F';
    check_vocabulary_refused("a GGUF file", &f, f.b.size);

    static const int sizes[] = { 7, 9, 1 };             // it holds 8
    for (int i = 0; i < 3; i++) {
        Vocabulary v;
        const char *error = vocabulary_read(&v, (Bytes){ good.b.data, good.b.size }, sizes[i]);
        CHECK(is_sentence(error) && !v.pieces, "8 pieces where %d are wanted: %s", sizes[i],
              error ? error : "accepted");
        vocabulary_free(&v);
    }
    free(good.b.data), free(f.b.data);
}

// ---------------------------------------------------------------------------- GGUF

static const struct { const char *text; float score; int type;
} tokens[] = {
    { "<unk>", 0, 2 },
    { "<s>", 0, 3 },
    { "</s>", 0, 3 },
    { "<0x41>", 0, 6 },
    { "<0xfF>", 0, 6 },
    { "\xe2\x96\x81there\xe2\x96\x81", -1, 1 },
    { "", -2.5f, 1 },
    { "\xc3\xa9", -3, 1 },
    { "x\xe2\x96", -4, 1 },
    { "<pad>", 0, 5 },
    { "\xff\xe2\x96\x81\xe2\x96\x81", -5, 1 },
    { "x\xe2\x96", -6, 1 },
    { "<eot>", 0, 3 },
    { "<eom>", 0, 3 },
};
enum { N = sizeof tokens / sizeof *tokens };

// The three arrays; one of them may be as long as it likes, and an odd one may stand at place `at`.
typedef struct { uint64_t texts, scores, types; int at; const char *text; float score; int type; } Odd;
static const Odd none = { N, N, N, -1, NULL, 0, 0 };

static void add_arrays(Writer *w, const Odd *odd) {
    Buffer *b;
    if (!left_out(w, "tokenizer.ggml.tokens")) {
        b = put_key(w, "tokenizer.ggml.tokens", GGUF_ARRAY);
        write_u32(b, GGUF_STRING), write_u64(b, odd->texts);
        for (int i = 0; i < (int)odd->texts; i++)
            write_text(b, i == odd->at && odd->text ? odd->text : tokens[i % N].text);
    }
    if (!left_out(w, "tokenizer.ggml.scores")) {
        b = put_key(w, "tokenizer.ggml.scores", GGUF_ARRAY);
        write_u32(b, GGUF_F32), write_u64(b, odd->scores);
        for (int i = 0; i < (int)odd->scores; i++)
            write_f32(b, i == odd->at ? odd->score : tokens[i % N].score);
    }
    if (!left_out(w, "tokenizer.ggml.token_type")) {
        b = put_key(w, "tokenizer.ggml.token_type", GGUF_ARRAY);
        write_u32(b, GGUF_I32), write_u64(b, odd->types);
        for (int i = 0; i < (int)odd->types; i++)
            write_u32(b, (uint32_t)(i == odd->at ? odd->type : tokens[i % N].type));
    }
}

static Bytes vocabulary_file(Writer *w, const Odd *odd) {
    add_string(w, "tokenizer.ggml.model", "llama");
    add_arrays(w, odd);
    return written(w);
}

static void check_gguf_refused(const char *what, Bytes file, const char *word) {
    Vocabulary v;
    const char *error = vocabulary_read(&v, file, 0);
    CHECK(is_sentence(error) && strstr(error, word), "%s: wanted a refusal with '%s', got %s", what, word,
          error ? error : "a vocabulary");
    CHECK(!v.pieces && !v.slots && !v.texts, "%s: refused, but something is held", what);
    vocabulary_free(&v), free_bytes(file);
}

static Vocabulary read_good(const char *what, Bytes file) {
    Vocabulary v;
    const char *error = vocabulary_read(&v, file, 0);
    CHECK(!error, "%s: a good vocabulary is refused: %s", what, error);
    return v;
}

static void test_pieces(void) {
    static const struct { const char *text; PieceKind kind;
    } want[N] = {
        { "<unk>", UNKNOWN },    { "<s>", CONTROL },    { "</s>", CONTROL },  { "A", BYTE },
        { "\xff", BYTE },        { " there ", NORMAL }, { "", NORMAL },       { "\xc3\xa9", NORMAL },
        { "x\xe2\x96", NORMAL }, { "<pad>", UNUSED },   { "\xff  ", NORMAL }, { "x\xe2\x96", NORMAL },
        { "<eot>", CONTROL },    { "<eom>", CONTROL },
    };
    Writer w = { 0 };
    Bytes file = vocabulary_file(&w, &none);
    Vocabulary v = read_good("every kind", file);
    CHECK(v.size == N, "wanted %d pieces, got %d", N, v.size);
    for (int i = 0; i < N && i < v.size; i++) {
        const Piece *p = &v.pieces[i];
        CHECK(p->length == (int)strlen(want[i].text) && !memcmp(p->text, want[i].text, (size_t)p->length) &&
                  p->score == tokens[i].score && p->kind == want[i].kind,
              "piece %d: wanted '%s', got '%.*s', score %g, kind %d", i, want[i].text, p->length, p->text,
              p->score, p->kind);
    }
    CHECK(v.byte_ids[0x41] == 3 && v.byte_ids[0xff] == 4 && v.byte_ids[0] == -1, "byte pieces %d %d %d",
          v.byte_ids[0x41], v.byte_ids[0xff], v.byte_ids[0]);
    CHECK(v.bos == 1 && v.eos == 2 && v.eot == -1 && v.eom == -1, "SentencePiece has 1 and 2: %d %d %d %d",
          v.bos, v.eos, v.eot, v.eom);
    CHECK(v.add_bos && v.add_space && v.unknown == 0, "the defaults are others");
    int ids[16], n;
    const char *failed = tokenize(ids, &n, &v, &(Span){ .text = { "\xc3\xa9", 2 } }, 1);
    CHECK(!failed && n == 2 && ids[1] == 7, "the text of id 7 is not told");
    vocabulary_free(&v);
    const char *error = vocabulary_read(&v, file, N);
    CHECK(!error, "%d tokens where as many are wanted: %s", N, error);
    vocabulary_free(&v);
    for (int size = N - 1; size <= N + 1; size += 2) {
        error = vocabulary_read(&v, file, size);
        CHECK(is_sentence(error) && !v.pieces, "%d tokens where %d are wanted: %s", N, size,
              error ? error : "accepted");
        vocabulary_free(&v);
    }
    free_bytes(file);
}

static void test_settings(void) {
    Writer w = { 0 };
    add_u32(&w, "tokenizer.ggml.bos_token_id", 1);
    add_u32(&w, "tokenizer.ggml.eos_token_id", 2);
    add_u32(&w, "tokenizer.ggml.eot_token_id", 12);
    add_u32(&w, "tokenizer.ggml.eom_token_id", N - 1);
    add_u32(&w, "tokenizer.ggml.padding_token_id", UINT32_MAX);
    add_u32(&w, "tokenizer.ggml.seperator_token_id", UINT32_MAX);
    add_u32(&w, "tokenizer.ggml.unknown_token_id", 0);
    add_bool(&w, "tokenizer.ggml.add_bos_token", 0);
    add_bool(&w, "tokenizer.ggml.add_space_prefix", 0);
    Bytes file = vocabulary_file(&w, &none);
    Vocabulary v = read_good("every setting", file);
    CHECK(v.bos == 1 && v.eos == 2 && v.eot == 12 && v.eom == N - 1, "wanted 1 2 12 %d, got %d %d %d %d",
          N - 1, v.bos, v.eos, v.eot, v.eom);
    CHECK(!v.add_bos && !v.add_space, "a text begins with BOS or a space, and should not");
    for (int id = 0; id < v.size; id++)
        CHECK(ends_text(&v, id) == (id == 1 || id == 2 || id == 12 || id == N - 1), "id %d %s a text", id,
              ends_text(&v, id) ? "ends" : "does not end");
    vocabulary_free(&v), free_bytes(file);

    static const char *const ends[] = { "bos",     "eos",     "eot",       "eom",
                                        "padding", "unknown", "seperator", "separator" };
    for (int i = 0; i < 8; i++) {
        char key[64];
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", ends[i]);
        add_u32(&w, key, N);
        check_gguf_refused("an id one too large", vocabulary_file(&w, &none), key);
        write_u32(put_key(&w, key, GGUF_I32), UINT32_MAX);
        check_gguf_refused("an id of -1", vocabulary_file(&w, &none), key);
        write_u64(put_key(&w, key, GGUF_U64), (1ull << 32) + 1);
        check_gguf_refused("an id of 2^32 + 1", vocabulary_file(&w, &none), key);
        add_string(&w, key, "<s>");
        check_gguf_refused("an id that is a string", vocabulary_file(&w, &none), key);
        if (i >= 4) continue;
        add_u32(&w, key, UINT32_MAX);
        check_gguf_refused("an end without an id", vocabulary_file(&w, &none), key);
    }
    for (int i = 0; i < 2; i++) {
        const char *key = i ? "tokenizer.ggml.add_bos_token" : "tokenizer.ggml.add_space_prefix";
        add_u32(&w, key, 1);
        check_gguf_refused("a bool that is a u32", vocabulary_file(&w, &none), key);
    }
}

static void test_damaged_arrays(void) {
    Writer w = { 0 };
    const struct { const char *what, *word; Odd odd;
    } cases[] = {
        { "no tokens", "tokens", { 0, 0, 0, -1, NULL, 0, 0 } },
        { "a score less", "scores", { N, N - 1, N, -1, NULL, 0, 0 } },
        { "a score more", "scores", { N, N + 1, N, -1, NULL, 0, 0 } },
        { "a type less", "token_type", { N, N, N - 1, -1, NULL, 0, 0 } },
        { "a type more", "token_type", { N, N, N + 1, -1, NULL, 0, 0 } },
        { "a score of NaN", "token 5", { N, N, N, 5, NULL, NAN, 1 } },
        { "an infinite score", "token 5", { N, N, N, 5, NULL, INFINITY, 1 } },
        { "type 7", "token 5", { N, N, N, 5, NULL, 0, 7 } },
        { "type -1", "token 5", { N, N, N, 5, NULL, 0, -1 } },
        { "type 2^31-1", "token 5", { N, N, N, 5, NULL, 0, INT32_MAX } },
        { "a byte that is none", "token 5", { N, N, N, 5, "x", 0, 6 } },
        { "a byte cut short", "token 3", { N, N, N, 3, "<0x4>", 0, 6 } },
        { "a byte too long", "token 3", { N, N, N, 3, "<0x411>", 0, 6 } },
        { "no hexadecimal", "token 3", { N, N, N, 3, "<0x4g>", 0, 6 } },
        { "an empty byte", "token 3", { N, N, N, 3, "", 0, 6 } },
        { "a byte of another form", "token 3", { N, N, N, 3, "<1x41>", 0, 6 } },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_gguf_refused(cases[i].what, vocabulary_file(&w, &cases[i].odd), cases[i].word);

    const Odd spelled = { N, N, N, 7, "<0x42>", 0, 1 };  // a text that looks like a byte
    Bytes file = vocabulary_file(&w, &spelled);
    Vocabulary v = read_good("a text that looks like a byte", file);
    CHECK(v.size == N && v.pieces[7].kind == NORMAL && v.pieces[7].length == 6 && v.byte_ids[0x42] == -1,
          "it became a byte");
    vocabulary_free(&v), free_bytes(file);

    static const char *const keys[] = { "tokenizer.ggml.tokens", "tokenizer.ggml.scores" };
    for (int i = 0; i < 2; i++) {
        w.without = keys[i];
        check_gguf_refused("a key is missing", vocabulary_file(&w, &none), keys[i]);
        write_u32(put_key(&w, keys[i], GGUF_U32), N);
        check_gguf_refused("a number, not an array", vocabulary_file(&w, &none), keys[i]);
        Buffer *b = put_key(&w, keys[i], GGUF_ARRAY);
        write_u32(b, GGUF_U32), write_u64(b, N);
        for (int k = 0; k < N; k++) write_u32(b, 0);
        check_gguf_refused("an array of numbers", vocabulary_file(&w, &none), keys[i]);
    }
    w.without = "tokenizer.ggml.model";
    check_gguf_refused("no kind", vocabulary_file(&w, &none), "vocabulary");
    for (int i = 0; i < 3; i++) {
        const char *kind = (const char *[]){ "bert", "t5", "rwkv" }[i];
        write_text(put_key(&w, "tokenizer.ggml.model", GGUF_STRING), kind);
        check_gguf_refused("another kind", vocabulary_file(&w, &none), kind);
    }
    write_text(put_key(&w, "tokenizer.ggml.model", GGUF_STRING), "gpt2");
    check_gguf_refused("byte-level BPE without merges", vocabulary_file(&w, &none), "merges");
    w.without = NULL;
    check_gguf_refused("nothing", written(&w), "vocabulary");
}

int main(void) {
    test_tokenizer_bin();
    test_damaged_tokenizer_bin();
    test_pieces();
    test_settings();
    test_damaged_arrays();
    return finish("test_vocabulary");
}
