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

// An array of n items, which the caller writes into what this returns.
static Buffer *put_array(Writer *w, const char *key, GgufType items, uint64_t n) {
    Buffer *b = put_key(w, key, GGUF_ARRAY);
    write_u32(b, items), write_u64(b, n);
    return b;
}

static void add_arrays(Writer *w, const Odd *odd) {
    Buffer *b;
    if (!left_out(w, "tokenizer.ggml.tokens")) {
        b = put_array(w, "tokenizer.ggml.tokens", GGUF_STRING, odd->texts);
        for (int i = 0; i < (int)odd->texts; i++)
            write_text(b, i == odd->at && odd->text ? odd->text : tokens[i % N].text);
    }
    if (!left_out(w, "tokenizer.ggml.scores")) {
        b = put_array(w, "tokenizer.ggml.scores", GGUF_F32, odd->scores);
        for (int i = 0; i < (int)odd->scores; i++)
            write_f32(b, i == odd->at ? odd->score : tokens[i % N].score);
    }
    if (!left_out(w, "tokenizer.ggml.token_type")) {
        b = put_array(w, "tokenizer.ggml.token_type", GGUF_I32, odd->types);
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

// A file that has such an id for a role, one of those in test_settings: it is left out. That is told if no
// token has it, unless nobody needs the role. SentencePiece's own BOS and EOS take the place of one left out.
static void check_role(const char *what, Writer *w, const char *key, int role, bool beyond) {
    Bytes file = vocabulary_file(w, &none);
    Vocabulary v = read_good(what, file);
    const int got[] = { v.bos, v.eos, v.eot, v.eom };
    for (int i = 0; i < 4; i++) {
        int expected = i > 1 || (i == role && !beyond) ? -1 : i + 1;
        CHECK(got[i] == expected, "%s, %s: expected %d, got %d", what, key, expected, got[i]);
    }
    bool told = strstr(v.remarks, key);
    CHECK(told == (beyond && role < 4), "%s, %s: the remark is '%s'", what, key, v.remarks);
    vocabulary_free(&v), free_bytes(file);
}

// Where SentencePiece was trained without BOS and EOS, 1 and 2 are something else.
static void test_no_bos(void) {
    static const struct { int types[3]; int bos, eos, given_bos, given_eos; } cases[] = {
        { { 2, 3, 3 }, 1, 2, -1, -1 },  { { 2, 1, 1 }, -1, -1, -1, -1 }, { { 2, 4, 5 }, -1, -1, -1, -1 },
        { { 2, 6, 3 }, -1, 2, -1, -1 }, { { 2, 3, 1 }, 1, -1, -1, -1 },
        { { 3, 3, 2 }, -1, 1, -1, 1 },                  // T5 has padding, EOS, unknown
        { { 3, 3, 3 }, 2, -1, 2, -1 },                  // who names 2 as BOS has no EOS there
        { { 2, 1, 1 }, 1, 2, 1, 2 },                    // what a file names, it means
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Writer w = { 0 };
        Buffer *b;
        if (cases[i].given_bos >= 0) add_u32(&w, "tokenizer.ggml.bos_token_id", (uint32_t)cases[i].given_bos);
        if (cases[i].given_eos >= 0) add_u32(&w, "tokenizer.ggml.eos_token_id", (uint32_t)cases[i].given_eos);
        add_string(&w, "tokenizer.ggml.model", "llama");
        b = put_array(&w, "tokenizer.ggml.tokens", GGUF_STRING, 4);
        for (int id = 0; id < 4; id++)
            write_text(b, (const char *[]){ "<0x00>", "<0x01>", "<0x02>", "a" }[id]);
        b = put_array(&w, "tokenizer.ggml.scores", GGUF_F32, 4);
        for (int id = 0; id < 4; id++) write_f32(b, 0);
        b = put_array(&w, "tokenizer.ggml.token_type", GGUF_I32, 4);
        for (int id = 0; id < 3; id++) write_u32(b, (uint32_t)cases[i].types[id]);
        write_u32(b, 1);
        Bytes file = written(&w);
        Vocabulary v = read_good("trained without ends", file);
        CHECK(v.bos == cases[i].bos && v.eos == cases[i].eos, "case %zu: expected %d %d, got %d %d", i,
              cases[i].bos, cases[i].eos, v.bos, v.eos);
        vocabulary_free(&v), free_bytes(file);
    }
}

// The marks of chat templates are control tokens, whatever a converter took them for: each is one token where
// it is meant, letters where a user writes it, nothing when it is printed, and one of them ends a reply.
static void test_marks(void) {
    static const char *const marks[] = {
        "<|im_start|>",    "<|im_end|>",    "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
        "<start_of_turn>", "<end_of_turn>", "<|user|>",            "<|assistant|>",     "<|system|>",
        "<|end|>",         "[INST]",        "[/INST]",             "<\xef\xbd\x9cUser\xef\xbd\x9c>",
    };
    static const struct { const char *template, *end; } ends[] = {
        { "chatml", "<|im_end|>" },    { "llama3", "<|eot_id|>" },
        { "gemma", "<end_of_turn>" },  { "phi3", "<|end|>" },
    };
    enum { N_MARKS = sizeof marks / sizeof *marks, ALL = 256 + N_MARKS };
    const char *texts[ALL];
    char bytes[256][8];
    for (int i = 0; i < ALL; i++) {
        if (i < 256) snprintf(bytes[i], sizeof bytes[i], "<0x%02X>", (unsigned)i);
        texts[i] = i < 256 ? bytes[i] : marks[i - 256];
    }
    Writer w = { 0 };
    Buffer *b;
    add_string(&w, "tokenizer.ggml.model", "llama");
    b = put_array(&w, "tokenizer.ggml.tokens", GGUF_STRING, ALL);
    for (int i = 0; i < ALL; i++) write_text(b, texts[i]);
    b = put_array(&w, "tokenizer.ggml.scores", GGUF_F32, ALL);
    for (int i = 0; i < ALL; i++) write_f32(b, 0);
    b = put_array(&w, "tokenizer.ggml.token_type", GGUF_I32, ALL);
    for (int i = 0; i < ALL; i++) write_u32(b, i < 256 ? 6 : 1);
    add_bool(&w, "tokenizer.ggml.add_space_prefix", 0);
    Bytes file = written(&w);
    Vocabulary v = read_good("marks that are typed NORMAL", file);
    for (int i = 0; i < N_MARKS; i++) {
        int ids[64], n, id = 256 + i;
        Span span = { .text = { marks[i], strlen(marks[i]) }, .control = true };
        const char *error = tokenize(ids, &n, &v, &span, 1);
        CHECK(!error && n == 1 && ids[0] == id, "%s: expected %d, got %d tokens", marks[i], id, n);
        CHECK(token_text(&v, id, -1).length == 0, "%s is printed", marks[i]);
        span.control = false;
        error = tokenize(ids, &n, &v, &span, 1);
        CHECK(!error && n == (int)strlen(marks[i]), "%s in a message: expected its bytes, got %d tokens",
              marks[i], n);
    }
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        int id = reply_end(&v, find_template(ends[i].template));
        CHECK(id >= 256 && !strcmp(texts[id], ends[i].end), "%s: a reply ends at %d", ends[i].template, id);
    }
    vocabulary_free(&v), free_bytes(file);
}

// What a piece is, by what the file says of it and of the others. Types: 1 normal, 3 control, 4 user, 6 byte.
static void test_kinds(void) {
    static const struct { const char *model; struct { const char *text; int type; PieceKind kind; } pieces[5];
    } cases[] = {
        { "llama", { { "<unk>", 1, UNKNOWN }, { "<s>", 1, CONTROL }, { "</s>", 1, CONTROL },
                     { "a", 1, NORMAL }, { "<0x41>", 1, BYTE } } },   // all alike: that says nothing
        { "llama", { { "<unk>", 4, UNKNOWN }, { "<s>", 4, CONTROL }, { "</s>", 4, CONTROL },
                     { "a", 4, NORMAL }, { "b", 3, CONTROL } } },     // none else could spell a text
        { "llama", { { "<unk>", 3, CONTROL }, { "<s>", 3, CONTROL }, { "</s>", 3, CONTROL },
                     { "a", 3, CONTROL }, { "b", 3, CONTROL } } },
        { "llama", { { "<unk>", 4, USER }, { "<s>", 4, USER }, { "</s>", 4, USER }, { "a", 4, USER },
                     { "<0x41>", 6, BYTE } } },         // bytes can
        { "llama", { { "<|im_end|>", 1, CONTROL }, { "<|im_end>", 1, NORMAL }, { "<|>", 1, NORMAL },
                     { "<\xef\xbd\x9c""begin of", 1, NORMAL }, { "b", 4, USER } } },
        { "gpt2",  { { "a", 6, NORMAL }, { "b", 1, NORMAL }, { "<0x41>", 6, BYTE }, { "c", 1, NORMAL },
                     { "</s", 1, NORMAL } } },          // a byte that is not spelled as one; EOS is id 4
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Writer w = { 0 };
        Buffer *b;
        add_string(&w, "tokenizer.ggml.model", cases[i].model);
        b = put_array(&w, "tokenizer.ggml.tokens", GGUF_STRING, 5);
        for (int id = 0; id < 5; id++) write_text(b, cases[i].pieces[id].text);
        b = put_array(&w, "tokenizer.ggml.scores", GGUF_F32, 5);
        for (int id = 0; id < 5; id++) write_f32(b, 0);
        b = put_array(&w, "tokenizer.ggml.token_type", GGUF_I32, 5);
        for (int id = 0; id < 5; id++) write_u32(b, (uint32_t)cases[i].pieces[id].type);
        b = put_array(&w, "tokenizer.ggml.merges", GGUF_STRING, 0);
        if (!strcmp(cases[i].model, "gpt2")) add_u32(&w, "tokenizer.ggml.eos_token_id", 4);
        b = put_array(&w, "tokenizer.ggml.precompiled_charsmap", GGUF_U8, 0);        // nothing is rewritten
        Bytes file = written(&w);
        Vocabulary v = read_good(cases[i].model, file);
        for (int id = 0; id < 5 && id < v.size; id++)
            CHECK(v.pieces[id].kind == cases[i].pieces[id].kind, "case %zu, %s: expected kind %d, got %d", i,
                  cases[i].pieces[id].text, cases[i].pieces[id].kind, v.pieces[id].kind);
        vocabulary_free(&v), free_bytes(file);
    }
    Writer w = { 0 };
    write_bytes(put_array(&w, "tokenizer.ggml.precompiled_charsmap", GGUF_U8, 1), "x", 1);
    check_gguf_refused("a text rewritten", vocabulary_file(&w, &none), "precompiled_charsmap");
    w = (Writer){ 0 };
    add_string(&w, "tokenizer.ggml.model", "gpt2");
    write_text(put_array(&w, "tokenizer.ggml.tokens", GGUF_STRING, 1), "a");
    write_f32(put_array(&w, "tokenizer.ggml.token_type", GGUF_F32, 1), 1.5f);
    check_gguf_refused("half a type", written(&w), "1.5");
}

// Byte-level BPE that does not say how it cuts words is cut somehow, and that is told.
static void test_missing_pre(void) {
    for (int named = 0; named < 2; named++) {
        Writer w = { 0 };
        Buffer *b;
        add_string(&w, "tokenizer.ggml.model", "gpt2");
        if (named) add_string(&w, "tokenizer.ggml.pre", "gpt-2");
        b = put_array(&w, "tokenizer.ggml.tokens", GGUF_STRING, 3);
        for (int i = 0; i < 3; i++) write_text(b, (const char *[]){ "a", "b", "ab" }[i]);
        b = put_array(&w, "tokenizer.ggml.merges", GGUF_STRING, 1);
        write_text(b, "a b");
        Bytes file = written(&w);
        Vocabulary v = read_good("byte-level BPE", file);
        bool told = strstr(v.remarks, "tokenizer.ggml.pre");
        CHECK(told != named, "the remark is '%s'", v.remarks);
        vocabulary_free(&v), free_bytes(file);
    }
}

// Scores and types as any type of number, the smallest and the largest included.
static void write_number(Buffer *b, GgufType type, int number) {
    const float single = (float)number;
    const double real = number;
    const int64_t whole = number;                       // little-endian: its first bytes are a shorter one's
    static const int sizes[N_GGUF_TYPES] = { [GGUF_U8] = 1, [GGUF_I8] = 1, [GGUF_U16] = 2, [GGUF_I16] = 2,
                                             [GGUF_U32] = 4, [GGUF_I32] = 4, [GGUF_U64] = 8, [GGUF_I64] = 8 };
    if (type == GGUF_F32) write_bytes(b, &single, sizeof single);
    else if (type == GGUF_F64) write_bytes(b, &real, sizeof real);
    else write_bytes(b, &whole, (size_t)sizes[type]);
}

static void test_number_types(void) {
    for (GgufType type = 0; type < N_GGUF_TYPES; type++) {
        if (type == GGUF_BOOL || type == GGUF_STRING || type == GGUF_ARRAY) continue;
        bool is_signed = type != GGUF_U8 && type != GGUF_U16 && type != GGUF_U32 && type != GGUF_U64;
        Writer w = { 0 };
        Buffer *b;
        w.without = "tokenizer.ggml.token_type";
        b = put_array(&w, "tokenizer.ggml.token_type", type, N);
        for (int id = 0; id < N; id++) write_number(b, type, tokens[id].type);
        Bytes file = vocabulary_file(&w, &none);
        Vocabulary v = read_good("types of another type", file);
        CHECK(v.size == N && v.pieces[0].kind == UNKNOWN && v.pieces[9].kind == UNUSED,
              "token types as %s are read as others", gguf_value_name(type));
        vocabulary_free(&v), free_bytes(file);

        w = (Writer){ .without = "tokenizer.ggml.scores" };
        b = put_array(&w, "tokenizer.ggml.scores", type, N);
        for (int id = 0; id < N; id++) write_number(b, type, is_signed ? -id : id);
        file = vocabulary_file(&w, &none);
        v = read_good("scores of another type", file);
        for (int id = 0; id < v.size; id++)
            CHECK(v.pieces[id].score == (float)(is_signed ? -id : id), "score %d as %s is read as %g", id,
                  gguf_value_name(type), v.pieces[id].score);
        vocabulary_free(&v), free_bytes(file);
    }
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

    static const char *const roles[] = { "bos",     "eos",     "eot",       "eom",
                                         "padding", "unknown", "seperator", "separator" };
    for (int i = 0; i < 8; i++) {
        char key[64];
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", roles[i]);
        add_u32(&w, key, N);
        check_role("an id one too large", &w, key, i, true);
        write_u32(put_key(&w, key, GGUF_I32), (uint32_t)-2);
        check_role("an id of -2", &w, key, i, true);
        write_u64(put_key(&w, key, GGUF_U64), (1ull << 32) + 1);
        check_role("an id of 2^32 + 1", &w, key, i, true);
        add_u32(&w, key, UINT32_MAX);
        check_role("an id of 2^32 - 1", &w, key, i, false);
        write_u32(put_key(&w, key, GGUF_I32), (uint32_t)-1);
        check_role("an id of -1", &w, key, i, false);
        write_u64(put_key(&w, key, GGUF_I64), (uint64_t)-1);
        check_role("an id of -1 in 64 bits", &w, key, i, false);
        add_string(&w, key, "<s>");
        check_gguf_refused("an id that is a string", vocabulary_file(&w, &none), key);
        add_f32(&w, key, 1);
        check_gguf_refused("an id that is a float", vocabulary_file(&w, &none), key);
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
        Buffer *b = put_array(&w, keys[i], i ? GGUF_BOOL : GGUF_U8, N);
        for (int k = 0; k < N; k++) write_bytes(b, "", 1);
        check_gguf_refused("an array of others", vocabulary_file(&w, &none), keys[i]);
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
    test_no_bos();
    test_marks();
    test_kinds();
    test_missing_pre();
    test_number_types();
    test_damaged_arrays();
    return finish("test_vocabulary");
}
