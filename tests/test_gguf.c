// test_gguf.c - GGUF files built here byte by byte: good ones are told right, damaged ones are refused in a
// sentence.
#include "test.h"
#include <time.h>

// ---------------------------------------------------------------------------- reading one

// Refused, with a sentence that has this word in it, and nothing held.
static void check_refused(const char *what, Bytes file, const char *word) {
    Gguf g;
    memset(&g, 0xa5, sizeof g);
    const char *error = gguf_read(&g, file);
    CHECK(is_sentence(error) && strstr(error, word), "%s: wanted a refusal with '%s', got %s", what, word,
          error ? error : "a file");
    CHECK(!g.pairs && !g.tensors && !g.by_key && !g.by_name, "%s: refused, but something is held", what);
    gguf_free(&g);                                      // harmless, then
    free_bytes(file);
}

static bool accepted(Gguf *g, const char *what, Bytes file) {
    const char *error = gguf_read(g, file);
    CHECK(!error, "%s: a good file is refused: %s", what, error);
    return !error;
}

static void check_accepted(const char *what, Bytes file) {
    Gguf g;
    accepted(&g, what, file);
    gguf_free(&g), free_bytes(file);
}


static void add_four(Writer *w, const char *name) { add_tensor(w, name, F32, 0, 4, (float[]){ 1, 2, 3, 4 }); }

// ---------------------------------------------------------------------------- values

static const int value_sizes[N_GGUF_TYPES] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
static const char *const value_names[N_GGUF_TYPES] = { "u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                                       "bool", "string", "array", "u64", "i64", "f64" };

// Every type alone and as an array of 3, and an array of none.
static void test_value_types(uint32_t version) {
    Writer w = { .version = version };
    char key[32], bytes[24];
    for (int i = 0; i < 24; i++) bytes[i] = (char)(i + 1);
    for (uint32_t type = 0; type < N_GGUF_TYPES; type++)
        for (int form = 0; form < 3 && type != GGUF_ARRAY; form++) {
            snprintf(key, sizeof key, "%s.%d", value_names[type], form);
            Buffer *b = put_key(&w, key, form ? GGUF_ARRAY : type);
            int count = form == 0 ? 1 : form == 1 ? 3 : 0;
            if (form) write_u32(b, type), write_u64(b, (uint64_t)count);
            for (int i = 0; i < count; i++)
                if (type == GGUF_STRING) write_text(b, &"\0ab"[i == 0 ? 0 : 3 - i]);     // "", "b", "ab"
                else write_bytes(b, bytes + i * value_sizes[type], (size_t)value_sizes[type]);
        }
    Bytes file = written(&w);
    Gguf g;
    if (!accepted(&g, "every type", file)) return;
    CHECK(g.version == version && g.alignment == 32 && g.n_tensors == 0 && g.n_pairs == 36,
          "wanted version %u, alignment 32, 36 pairs, got %u, %u, %zu", version, g.version, g.alignment,
          g.n_pairs);
    for (size_t i = 0; i < g.n_pairs; i++) {
        const GgufPair *p = &g.pairs[i];
        GgufType type = (GgufType)(i / 3 < GGUF_ARRAY ? i / 3 : i / 3 + 1);
        int form = (int)(i % 3), count = form == 0 ? 1 : form == 1 ? 3 : 0;
        snprintf(key, sizeof key, "%s.%d", value_names[type], form);
        CHECK(!strcmp(gguf_value_name(type), value_names[type]), "type %d is called %s", type,
              gguf_value_name(type));
        CHECK(p->key.size == strlen(key) && !memcmp(p->key.data, key, p->key.size),
              "pair %zu: wanted the key %s, got %.*s", i, key, text_length(p->key), p->key.data);
        CHECK(p->type == (form ? GGUF_ARRAY : type) && p->item_type == type && p->count == (uint64_t)count,
              "%s: got type %d, items %d, %d of them", key, p->type, p->item_type, (int)p->count);
        size_t size = type == GGUF_STRING ? (form == 0   ? 8
                                             : form == 1 ? 8 + 9 + 10
                                                         : 0)
                                          : (size_t)count * (size_t)value_sizes[type];
        CHECK(p->items.left == size && (type == GGUF_STRING || !memcmp(p->items.at, bytes, size)),
              "%s: wanted %zu bytes, got %zu", key, size, p->items.left);
        Cursor items = p->items;
        for (int k = 0; k < count && type == GGUF_STRING; k++) {
            Text text = take_string(&items);
            const char *want = form == 0 || k == 0 ? "" : k == 1 ? "b" : "ab";
            CHECK(text.size == strlen(want) && !memcmp(text.data, want, text.size), "%s [%d]: got '%.*s'",
                  key, k, text_length(text), text.data);
        }
    }
    gguf_free(&g), free_bytes(file);
}

// Arrays in arrays in arrays: 3 numbers at the bottom.
static Bytes nested(int depth) {
    Writer w = { 0 };
    Buffer *b = put_key(&w, "deep", GGUF_ARRAY);
    for (int i = 0; i < depth; i++) write_u32(b, GGUF_ARRAY), write_u64(b, 1);
    write_u32(b, GGUF_U16), write_u64(b, 3), write_bytes(b, "abcdef", 6);
    add_u32(&w, "after", 7);
    return written(&w);
}

static void test_nested(void) {
    for (int depth = 0; depth <= 8; depth++) {
        Bytes file = nested(depth);
        Gguf g;
        if (accepted(&g, "nested arrays", file)) {
            const GgufPair *after = gguf_find(&g, "after");
            CHECK(after && after->items.left == 4 && after->items.at[0] == 7,
                  "%d deep: what comes after is lost", depth);
        }
        gguf_free(&g), free_bytes(file);
    }
    static const int too_deep[] = { 10, 100, 100000 };  // the last would take the stack with it
    for (int i = 0; i < 3; i++) check_refused("nested too deep", nested(too_deep[i]), "deep");
}

// One pair whose value is these bytes.
static Bytes with_value(const char *key, uint32_t type, const void *bytes, size_t n) {
    Writer w = { 0 };
    write_bytes(put_key(&w, key, type), bytes, n);
    return written(&w);
}

static Bytes with_array(uint32_t item_type, uint64_t count, size_t bytes) {
    Writer w = { 0 };
    Buffer *b = put_key(&w, "key", GGUF_ARRAY);
    write_u32(b, item_type), write_u64(b, count);
    for (size_t i = 0; i < bytes; i++) write_bytes(b, "", 1);
    return written(&w);
}

static void test_damaged_values(void) {
    static const uint32_t types[] = { 13, 14, 255, 1u << 31, UINT32_MAX };
    for (int i = 0; i < 5; i++) {
        check_refused("an unknown type", with_value("key", types[i], "12345678", 8), "key");
        check_refused("items of an unknown type", with_array(types[i], 1, 64), "key");
        check_refused("no items of an unknown type", with_array(types[i], 0, 64), "key");
    }
    static const uint64_t counts[] = { 97,         1 << 20,    1ull << 61, (1ull << 61) + 1,
                                       1ull << 62, 1ull << 63, UINT64_MAX };
    for (int i = 0; i < 7; i++)
        for (uint32_t type = 0; type < N_GGUF_TYPES; type++) {
            if (type == GGUF_ARRAY) continue;
            clock_t start = clock();
            check_refused("an array longer than the file", with_array(type, counts[i], 64), "key");
            CHECK((double)(clock() - start) / CLOCKS_PER_SEC < 1, "%llu items of type %u take long",
                  (unsigned long long)counts[i], type);
        }
    check_refused("arrays longer than the file", with_array(GGUF_ARRAY, 1ull << 60, 1 << 16), "key");
    static const uint64_t lengths[] = { 40, 1ull << 40, 1ull << 63, UINT64_MAX - 8, UINT64_MAX };
    for (int i = 0; i < 5; i++)
        check_refused("a string longer than the file", with_value("key", GGUF_STRING, &lengths[i], 8), "key");
}

static void test_keys(void) {
    char *name = calloc(1, 65537);
    memset(name, 'k', 65535);
    check_accepted("the longest key", with_value(name, GGUF_U32, "1234", 4));
    name[65535] = 'k';
    check_refused("a key too long", with_value(name, GGUF_U32, "1234", 4), "key");
    check_refused("an empty key", with_value("", GGUF_U32, "1234", 4), "key");
    check_accepted("a key that is no UTF-8", with_value("\xff\x80", GGUF_U32, "1234", 4));
    free(name);
    for (int apart = 0; apart < 3; apart++) {
        Writer w = { 0 };
        add_u32(&w, "twice", 1);
        if (apart) add_u32(&w, "twic", 1), add_u32(&w, "twice.", 1);
        if (apart == 2) add_u32(&w, "other", 1);
        else add_string(&w, "twice", "");
        if (apart == 2) check_accepted("keys that are alike", written(&w));
        else check_refused("a key twice", written(&w), "twice occurs twice");
    }
}

// ---------------------------------------------------------------------------- the header

static Bytes with_header(uint32_t version, uint64_t tensors, uint64_t pairs) {
    Writer w = { .version = version };
    add_u32(&w, "some.key", 1);
    add_four(&w, "some.tensor");
    w.n_tensors = tensors, w.n_pairs = pairs;
    return written(&w);
}

static void test_header(void) {
    check_accepted("version 2", with_header(2, 1, 1));
    check_accepted("version 3", with_header(3, 1, 1));
    static const struct { uint32_t version; const char *word;
    } versions[] = {
        { 1, "version 1" },         { 4, "version 4" },         { 5, "version 5" },
        { 1u << 24, "byte order" }, { 3u << 24, "byte order" }, { 2u << 24, "byte order" },
    };
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        check_refused("another version", with_header(versions[i].version, 1, 1), versions[i].word);
        // what the version is comes before what the rest means
        check_refused("another version, odd counts", with_header(versions[i].version, UINT64_MAX, UINT64_MAX),
                      versions[i].word);
    }
    static const uint64_t counts[] = { 2,          100,        1 << 30,    1ull << 32, 1ull << 58,
                                       1ull << 60, 1ull << 61, 1ull << 63, UINT64_MAX };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        check_refused("too many tensors", with_header(3, counts[i], 1), "");
        check_refused("too many pairs", with_header(3, 1, counts[i]), "");
        check_refused("too many of both", with_header(3, counts[i], counts[i]), "");
    }
    Writer w = { 0 };
    check_accepted("nothing at all", written(&w));
    for (int i = 0; i < 2; i++) {                       // as many as fit into 10 MB, but more than are read
        w.data.data = calloc(1, w.data.size = w.data.room = 10 << 20);
        w.n_tensors = i ? (1 << 18) + 1 : 0, w.n_pairs = i ? 0 : (1 << 16) + 1;
        check_refused("more than any model has", written(&w), "are read");
    }
}

// ---------------------------------------------------------------------------- lookups

static void test_lookup(void) {
    enum { N = 400 };
    static char names[N][16];
    Writer w = { 0 };
    for (int i = 0; i < N; i++) {                       // many of them beginnings of others
        snprintf(names[i], sizeof names[i], "%.*s%d", random_below(6), "aaaaaa", (i * 7919) % 1000);
        add_u32(&w, names[i], (uint32_t)i);
        add_four(&w, names[i]);
    }
    Bytes file = written(&w);
    Gguf g;
    if (!accepted(&g, "many names", file)) return;
    for (int i = 0; i < N; i++) {
        CHECK(gguf_find(&g, names[i]) == &g.pairs[i], "the key %s is not found", names[i]);
        CHECK(gguf_tensor(&g, names[i]) == &g.tensors[i], "the tensor %s is not found", names[i]);
        CHECK(g.tensors[i].data == file.data + g.data_start + 32 * i, "the tensor %s is not where it lies",
              names[i]);
        char longer[20];
        snprintf(longer, sizeof longer, "%.15s.", names[i]);
        CHECK(!gguf_find(&g, longer) && !gguf_tensor(&g, longer), "%s is found, and is not there", longer);
    }
    CHECK(!gguf_find(&g, "") && !gguf_tensor(&g, "") && !gguf_find(&g, "b") && !gguf_tensor(&g, "zzz"),
          "something is found that is not there");
    gguf_free(&g), free_bytes(file);

    Writer none = { 0 };
    file = written(&none);
    if (accepted(&g, "nothing", file))
        CHECK(!gguf_find(&g, "a") && !gguf_tensor(&g, "a"), "something is found in nothing");
    gguf_free(&g), free_bytes(file);
}

// ---------------------------------------------------------------------------- damage

// Two tensors, the last one's end without padding; every beginning of the file is refused that does not hold
// it whole.
static void test_truncation(void) {
    Writer w = { 0 };
    add_string(&w, "general.name", "small");
    Buffer *b = put_key(&w, "list", GGUF_ARRAY);
    write_u32(b, GGUF_STRING), write_u64(b, 2), write_text(b, "a"), write_text(b, "");
    add_bool(&w, "yes", 1);
    add_four(&w, "a");
    add_tensor(&w, "b", F32, 2, 3, (float[]){ 1, 2, 3, 4, 5, 6 });
    Bytes whole = written(&w);
    for (size_t size = 0; size <= whole.size + 40; size++) {
        uint8_t *copy = calloc(1, size + !size);        // beyond its end comes padding, or anything
        memcpy(copy, whole.data, size < whole.size ? size : whole.size);
        if (size >= whole.size) check_accepted("padding at the end", (Bytes){ copy, size });
        else if (size) check_refused("cut short", (Bytes){ copy, size }, "");
        else free(copy);
    }
    free_bytes(whole);
}

// Whatever the bytes are: refused, or all of it lies in the file.
static void test_random_damage(void) {
    Writer w = { 0 };
    add_u32(&w, "general.alignment", 32);
    for (int i = 0; i < 3; i++) add_string(&w, (char[]){ (char)('a' + i), 0 }, "text");
    Buffer *b = put_key(&w, "list", GGUF_ARRAY);
    write_u32(b, GGUF_ARRAY), write_u64(b, 1), write_u32(b, GGUF_U8), write_u64(b, 4),
        write_bytes(b, "1234", 4);
    for (int i = 0; i < 3; i++) add_four(&w, (char[]){ (char)('a' + i), 0 });
    Bytes good = written(&w);
    int n_accepted = 0;
    for (int round = 0; round < (SANITIZED ? 20000 : 200000); round++) {
        uint8_t *copy = malloc(good.size);
        memcpy(copy, good.data, good.size);
        for (int n = 1 + random_below(3); n > 0; n--)
            copy[4 + random_below((int)good.size - 4)] =
                random_below(2) ? (uint8_t)random_bits() : (uint8_t)(random_below(5) * 63 + random_below(5));
        Gguf g;
        const char *error = gguf_read(&g, (Bytes){ copy, good.size });
        CHECK(!error || is_sentence(error), "round %d: %s", round, error);
        n_accepted += !error;
        for (size_t i = 0; i < g.n_tensors; i++) {
            const uint8_t *data = g.tensors[i].data;
            bool inside = data >= copy && g.tensors[i].bytes <= good.size &&
                          (size_t)(data - copy) <= good.size - g.tensors[i].bytes;
            CHECK(inside, "round %d: a tensor leaves the file", round);
        }
        for (size_t i = 0; i < g.n_pairs; i++)
            CHECK(g.pairs[i].items.left <= good.size - (size_t)(g.pairs[i].items.at - copy),
                  "round %d: a value leaves the file", round);
        gguf_free(&g), free(copy);
    }
    CHECK(n_accepted > 1000, "only %d of the files are still good: the others show little", n_accepted);
    free_bytes(good);
}

int main(void) {
    test_value_types(2);
    test_value_types(3);
    test_nested();
    test_damaged_values();
    test_keys();
    test_header();
    test_lookup();
    test_truncation();
    test_random_damage();
    return finish("test_gguf");
}
