// test_info.c - what -m info prints: valid JSON whatever the file's strings hold, with the numbers that are
// in the file.
#include "test.h"
#include <unistd.h>

// ---------------------------------------------------------------------------- standard output, caught

static const char *printed(Bytes file, bool json, const char **error) {
    static char text[1 << 18];
    FILE *f = tmpfile();
    fflush(stdout);
    int out = dup(1);
    if (!f || out < 0 || dup2(fileno(f), 1) < 0) exit(1);
    *error = print_info(file, json);
    fflush(stdout);
    dup2(out, 1), close(out);
    rewind(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    return text;
}

// ---------------------------------------------------------------------------- a reader of JSON, RFC 8259

static const char *spaces(const char *p) {
    while (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r') p++;
    return p;
}

// The end of the UTF-8 character at p (RFC 3629), or NULL.
static const char *after_character(const char *p) {
    const uint8_t *s = (const uint8_t *)p;
    uint32_t code = s[0];
    int more = code < 0x80 ? 0 : code < 0xc0 ? -1 : code < 0xe0 ? 1 : code < 0xf0 ? 2 : code < 0xf8 ? 3 : -1;
    if (more < 0) return NULL;
    if (more) code &= 0x3f >> more;
    for (int i = 1; i <= more; i++) {
        if ((s[i] & 0xc0) != 0x80) return NULL;
        code = code << 6 | (s[i] & 0x3f);
    }
    static const uint32_t least[] = { 0, 0x80, 0x800, 0x10000 };
    if (code < least[more] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return NULL;
    return p + more + 1;
}

static const char *after_string(const char *p) {
    if (*p++ != '"') return NULL;
    while (*p != '"') {
        if ((uint8_t)*p < ' ') return NULL;             // control bytes have to be escaped
        if (*p == '\\') {
            p++;
            if (*p == 'u') {
                if (strspn(p + 1, "0123456789abcdefABCDEF") < 4) return NULL;
                p += 5;
            } else if (*p && strchr("\"\\/bfnrt", *p)) p++;
            else return NULL;
        } else if (!(p = after_character(p))) return NULL;
    }
    return p + 1;
}

// The end of the value at p, or NULL. name: of a member to be found on the way; what it holds comes into
// *found.
static const char *after_value(const char *p, const char *name, const char **found) {
    p = spaces(p);
    if (*p == '{' || *p == '[') {
        char end = *p == '{' ? '}' : ']';
        bool object = *p == '{';
        p = spaces(p + 1);
        while (*p != end) {
            if (object) {
                const char *key = p + 1;
                if (!(p = after_string(p))) return NULL;
                bool here = name && (size_t)(p - 1 - key) == strlen(name) && !memcmp(key, name, strlen(name));
                p = spaces(p);
                if (*p++ != ':') return NULL;
                if (here && *found) return NULL;        // twice
                if (here) *found = spaces(p);
            }
            if (!(p = after_value(p, NULL, NULL))) return NULL;
            p = spaces(p);
            if (*p == ',' && *spaces(p + 1) != end) p = spaces(p + 1);
            else if (*p != end) return NULL;
        }
        return p + 1;
    }
    if (*p == '"') return after_string(p);
    static const char *const words[] = { "true", "false", "null" };
    for (int i = 0; i < 3; i++)
        if (!strncmp(p, words[i], strlen(words[i]))) return p + strlen(words[i]);
    char *end; // strtod takes more than JSON has: inf, nan, hexadecimal
    if (!strchr("-0123456789", *p) || (p[0] == '-' && !strchr("0123456789", p[1])) || strchr("xX", p[1]))
        return NULL;
    strtod(p, &end);
    return end > p ? end : NULL;
}

// "config.dim", "tensors.0.name": the text of the value, as it stands there.
static const char *at(const char *json, const char *path) {
    static char value[4096];
    char name[64];
    while (*path && json) {
        size_t length = strcspn(path, ".");
        snprintf(name, sizeof name, "%.*s", (int)length, path);
        path += length + (path[length] == '.');
        const char *found = NULL;
        if (*json == '[') {
            found = spaces(json + 1);
            for (int i = atoi(name); i > 0 && found; i--)
                found = (found = after_value(found, NULL, NULL)) && *spaces(found) == ','
                            ? spaces(spaces(found) + 1)
                            : NULL;
        } else after_value(json, name, &found);
        json = found;
    }
    const char *end = json ? after_value(json, NULL, NULL) : NULL;
    if (!end) return "nothing";
    snprintf(value, sizeof value, "%.*s", (int)(end - json), json);
    return value;
}

static const char *json_of(Bytes file) {
    const char *error, *json = printed(file, true, &error), *end = after_value(json, NULL, NULL);
    CHECK(!error, "a good file is refused: %s", error);
    CHECK(end && *spaces(end) == 0 && *json == '{', "not one JSON object: %.200s", end ? end : json);
    return json;
}

static void check_at(const char *json, const char *path, const char *want) {
    CHECK(!strcmp(at(json, path), want), "%s: wanted %s, got %s", path, want, at(json, path));
}

typedef struct { const char *path, *want; } Line;
static void check_all(const char *json, const Line *lines, size_t n) {
    for (size_t i = 0; i < n; i++) check_at(json, lines[i].path, lines[i].want);
}

// ---------------------------------------------------------------------------- models

static const Config shape = { .dim = 8, .hidden_dim = 12, .n_layers = 2, .n_heads = 4, .n_kv_heads = 2,
                              .head_dim = 2, .vocab_size = 10, .seq_len = 6, .rope_dim = 2 };

// A layer: two norms of 8, Q 64, K and V 32 each, O 64, three of 96: 496. In all 10 * 8 + 2 * 496 + 8 = 1080,
// and 80 more for a classifier. A token reads what is in matrices, 2 * 480 + 80 numbers. The cache: in two
// layers 4 halves of keys for 128 positions, and as many values for 6: (128 + 6) * 4 * 2 * 2 = 2144 bytes.
static void test_gguf(bool tied) {
    Writer w = { 0 };
    add_string(&w, "general.name", "a name");
    add_string(&w, "tokenizer.ggml.model", "llama");
    add_model(&w, "llama", &shape, (Style){ F32, tied, false, false });
    Bytes file = written(&w);
    const char *json = json_of(file);
    char size[32];
    snprintf(size, sizeof size, "%zu", file.size);
    const Line lines[] = {
        { "format", "\"GGUF\"" },
        { "version", "3" },
        { "architecture", "\"llama\"" },
        { "norm", "\"rmsnorm\"" },
        { "parameters", tied ? "1080" : "1160" },
        { "config.embedding_length", "8" },
        { "config.feed_forward_length", "12" },
        { "config.block_count", "2" },
        { "config.attention.head_count_kv", "nothing" },
        { "tensors.0.name", "\"token_embd.weight\"" },
        { "tensors.0.type", "\"F32\"" },
        { "tensors.0.shape", "[10, 8]" },
        { "tensors.0.bytes", "320" },
        { "tensors.1.name", "\"blk.0.attn_norm.weight\"" },
        { "tensors.1.shape", "[8]" },
        { "tensors.9.shape", "[8, 12]" },
        { "memory.file", size },
        { "memory.per_token", "4160" },
        { "memory.context", "6" },
        { "memory.cache", "2144" },
        { "refused", "nothing" },
    };
    check_all(json, lines, sizeof lines / sizeof *lines);
    void *embedding = numbers_of("token_embd.weight", F32, 10, 8);
    CHECK(!memcmp(file.data + strtoul(at(json, "tensors.0.offset"), NULL, 10), embedding, 320),
          "the embedding does not lie at byte %s", at(json, "tensors.0.offset"));
    free(embedding);
    CHECK(strstr(at(json, "config"), "\"attention.head_count_kv\": 2") &&
              strstr(at(json, "config"), "\"attention.head_count\": 4"),
          "the heads are not told: %s", at(json, "config"));
    CHECK(strstr(at(json, "tokenizer"), "\"llama\""), "the tokenizer is not told: %s", at(json, "tokenizer"));
    check_at(json, tied ? "tensors.20" : "tensors.21", "nothing");

    const char *error, *text = printed(file, false, &error);
    CHECK(!error, "%s", error);
    static const char *const words[] = {
        "GGUF", "llama", "rmsnorm", "a name", "token_embd.weight", "10 x 8", "blk.1.ffn_down.weight"
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        CHECK(strstr(text, words[i]), "'%s' is not in the text", words[i]);
    free_bytes(file);

    add_model(&w, "stablelm", &shape, (Style){ F32, tied, true, false });
    file = written(&w);
    json = json_of(file);
    check_at(json, "norm", "\"layernorm\"");
    check_at(json, "parameters", tied ? "1120" : "1200");           // five biases of 8 more
    free_bytes(file);
}

static void test_llama2c(bool tied) {
    Bytes file = random_checkpoint(&shape, tied);
    const char *json = json_of(file);
    const Line lines[] = {
        { "format", "\"llama2.c\"" },
        { "version", "0" },
        { "architecture", "\"llama\"" },
        { "norm", "\"rmsnorm\"" },
        { "parameters", tied ? "1080" : "1160" },
        { "config.dim", "8" },
        { "config.hidden_dim", "12" },
        { "config.n_layers", "2" },
        { "config.n_heads", "4" },
        { "config.n_kv_heads", "2" },
        { "config.vocab_size", "10" },
        { "config.seq_len", "6" },
        { "tokenizer", "{}" },
        { "tensors.0.type", "\"F32\"" },
        { "tensors.0.shape", "[10, 8]" },
        { "tensors.0.offset", "28" },
        { "tensors.0.bytes", "320" },
        { "tensors.1.shape", "[8]" },
        { "tensors.1.offset", "348" },
        { "memory.per_token", "4160" },
        { "memory.cache", "2144" },
    };
    check_all(json, lines, sizeof lines / sizeof *lines);
    check_at(json, tied ? "tensors.20" : "tensors.21", "nothing");
    const char *error, *text = printed(file, false, &error);
    CHECK(!error && strstr(text, "llama2.c") && strstr(text, "hidden_dim"), "%s", error ? error : text);
    free_bytes(file);
}

// Version 2: a header of 256 bytes, five norms of 8 floats, then int8 in groups of 4, each with a float: two
// bytes a number.
static void test_int8(void) {
    Buffer b = { 0 };
    static const uint32_t header[] = { 0x616b3432, 2, 8, 12, 2, 4, 2, 10, 6 };
    write_bytes(&b, header, sizeof header);
    write_bytes(&b, "\1\4\0\0\0", 5);                // shared, groups of 4
    pad(&b, 256);
    for (int i = 0; i < 5 * 8 + (80 + 2 * 480) / 2; i++) write_f32(&b, 0);
    const Line lines[] = {
        { "version", "2" },
        { "parameters", "1080" },
        { "config.group_size", "4" },
        { "config.hidden_dim", "12" },
        { "tensors.0.shape", "[10, 8]" },
        { "tensors.0.offset", "416" },
        { "tensors.0.bytes", "160" },
        { "memory.per_token", "2080" },
    };
    check_all(json_of((Bytes){ b.data, b.size }), lines, sizeof lines / sizeof *lines);
    free(b.data);
}

// ---------------------------------------------------------------------------- odd files

static void put_bytes(Writer *w, const char *key, const char *bytes, size_t n) {
    Buffer *b = put_key(w, key, GGUF_STRING);
    write_u64(b, n), write_bytes(b, bytes, n);
}

static void test_strings(void) {
    static const struct { const char *bytes; size_t n; const char *want; } cases[] = {
        { "plain", 5, "\"plain\"" },
        { "a \"quote\"", 9, "\"a \\\"quote\\\"\"" },
        { "back\\slash", 10, "\"back\\\\slash\"" },
        { "\xc3\xa9 \xf0\x9f\x98\x80", 7, "\"\xc3\xa9 \xf0\x9f\x98\x80\"" },
        { "a\xff" "b", 3, "\"a\xef\xbf\xbd" "b\"" },
        { "\xe2\x82", 2, "\"\xef\xbf\xbd\"" },          // cut short at the end
        { "\xc0\xaf", 2, "\"\xef\xbf\xbd\xef\xbf\xbd\"" },
        { "", 0, "\"\"" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Writer w = { 0 };
        put_bytes(&w, "general.name", cases[i].bytes, cases[i].n);
        Bytes file = written(&w);
        check_at(json_of(file), "general.name", cases[i].want);
        free_bytes(file);
    }
    // Any bytes at all, in a value, in a key, as the architecture and in a tensor's name.
    for (int round = 0; round < 600; round++) {
        char bytes[21] = "";
        for (int i = 0; i < 20; i++)
            bytes[i] = (char)(round < 256       ? round
                              : random_below(3) ? random_below(256)
                                                : "\"\\\n{"[random_below(4)]);
        for (int i = 0; i < 20; i++) bytes[i] += !bytes[i];
        char key[32];
        snprintf(key, sizeof key, "general.%s", bytes);
        Writer w = { 0 };
        put_bytes(&w, "general.architecture", bytes, 20);
        put_bytes(&w, "general.zero", "a\0b", 3);
        add_string(&w, key, bytes);
        snprintf(key, sizeof key, "%s.key", bytes);
        add_f32(&w, key, 1);
        add_tensor(&w, bytes, F32, 0, 1, (float[]){ 1 });
        Bytes file = written(&w);
        const char *json = json_of(file), *error;
        CHECK(strcmp(at(json, "tensors.0.name"), "nothing") && strcmp(at(json, "refused"), "nothing"),
              "round %d: something is lost", round);
        for (const char *c = printed(file, false, &error); *c; c++)
            CHECK(*c == '\n' || ((uint8_t)*c >= ' ' && *c != 127), "round %d: byte %d reaches the terminal",
                  round, *c);
        free_bytes(file);
    }
}

static void test_numbers(void) {
    static const struct { GgufType type; uint64_t bits; size_t bytes; const char *want;
    } cases[] = {
        { GGUF_U8, 255, 1, "255" },
        { GGUF_I8, 0x80, 1, "-128" },
        { GGUF_U16, 65535, 2, "65535" },
        { GGUF_I16, 0x8000, 2, "-32768" },
        { GGUF_U32, UINT32_MAX, 4, "4294967295" },
        { GGUF_I32, 1u << 31, 4, "-2147483648" },
        { GGUF_U64, UINT64_MAX, 8, "18446744073709551615" },
        { GGUF_I64, 1ull << 63, 8, "-9223372036854775808" },
        { GGUF_BOOL, 0, 1, "false" },
        { GGUF_BOOL, 1, 1, "true" },
        { GGUF_F32, 0x3fc00000, 4, "1.5" },
        { GGUF_F64, 0x3ff8000000000000, 8, "1.5" },
        { GGUF_F32, 0xff800000, 4, "null" },
        { GGUF_F64, 0x7ff8000000000000, 8, "null" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Writer w = { 0 };
        write_bytes(put_key(&w, "general.x", cases[i].type), &cases[i].bits, cases[i].bytes);
        Bytes file = written(&w);
        check_at(json_of(file), "general.x", cases[i].want);
        free_bytes(file);
    }
    for (int i = 0; i < 300; i++) {                     // all their digits
        union { uint32_t bits; float f; } x = { random_bits() };
        union { uint64_t bits; double d; } y = { (uint64_t)random_bits() << 32 | random_bits() };
        if (!isfinite(x.f) || !isfinite(y.d)) continue;
        Writer w = { 0 };
        add_f32(&w, "general.x", x.f);
        write_u64(put_key(&w, "general.y", GGUF_F64), y.bits);
        Bytes file = written(&w);
        const char *json = json_of(file);
        CHECK(strtof(at(json, "general.x"), NULL) == x.f, "%.9g came back as %s", x.f, at(json, "general.x"));
        CHECK(strtod(at(json, "general.y"), NULL) == y.d, "%.17g came back as %s", y.d,
              at(json, "general.y"));
        free_bytes(file);
    }
}

static void test_other_files(void) {
    Writer w = { 0 };
    add_string(&w, "general.architecture", "mamba");
    add_f32(&w, "mamba.attention.layer_norm_rms_epsilon", 1e-5f);
    uint64_t shape_3[] = { 256, 3, 5 };
    put_tensor(&w, "some", 23, 3, shape_3, 0);          // IQ4_XS: 136 bytes for 256; nothing we run
    for (int i = 0; i < 15 * 136; i++) write_bytes(&w.data, "", 1);
    Bytes file = written(&w);
    const char *json = json_of(file), *error;
    const Line lines[] = { { "architecture", "\"mamba\"" },
                           { "norm", "\"rmsnorm\"" },
                           { "parameters", "3840" },
                           { "tensors.0.type", "\"IQ4_XS\"" },
                           { "tensors.0.shape", "[5, 3, 256]" },
                           { "tensors.0.bytes", "2040" } };
    check_all(json, lines, sizeof lines / sizeof *lines);
    CHECK(strstr(at(json, "refused"), "mamba"), "it does not say why it cannot be run: %s",
          at(json, "refused"));
    free_bytes(file);

    file = written(&w);                                 // nothing but a header
    json = json_of(file);
    check_at(json, "tensors", "[]");
    check_at(json, "parameters", "0");
    free_bytes(file);

    static const char *const damaged[] = { "GGUF", "GGUF\3\0\0\0", "<!DOCTYPE html>", "24ka", "nonsense" };
    for (size_t i = 0; i < sizeof damaged / sizeof *damaged; i++)
        for (int form = 0; form < 2; form++) {
            const char *text =
                printed((Bytes){ (const uint8_t *)damaged[i], strlen(damaged[i]) }, form, &error);
            CHECK(is_sentence(error) && !*text,
                  "%s: wanted a refusal and nothing printed, got %s and '%.100s'", damaged[i],
                  error ? error : "none", text);
        }
}

int main(void) {
    for (int tied = 0; tied < 2; tied++) test_gguf(tied), test_llama2c(tied);
    test_int8();
    test_strings();
    test_numbers();
    test_other_files();
    return finish("test_info");
}
