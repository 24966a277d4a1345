// test_gguf_tensors.c - the tensors of GGUF files: types, shapes, offsets and alignment, possible and
// impossible.
#include "test.h"

static void check_refused(const char *what, Bytes file, const char *word) {
    Gguf g;
    const char *error = gguf_read(&g, file);
    CHECK(is_sentence(error) && strstr(error, word), "%s: wanted a refusal with '%s', got %s", what, word,
          error ? error : "a file");
    CHECK(!g.pairs && !g.tensors, "%s: refused, but something is held", what);
    gguf_free(&g), free_bytes(file);
}

static void check_accepted(const char *what, Bytes file) {
    Gguf g;
    const char *error = gguf_read(&g, file);
    CHECK(!error, "%s: a good file is refused: %s", what, error);
    gguf_free(&g), free_bytes(file);
}

// One tensor, and so many bytes of data.
static Bytes with_tensor(uint32_t type, uint32_t n_dims, const uint64_t *shape, uint64_t offset,
                         size_t bytes) {
    Writer w = { 0 };
    put_tensor(&w, "odd.one", type, n_dims, shape, offset);
    for (size_t i = 0; i < bytes; i++) write_bytes(&w.data, "", 1);
    return written(&w);
}

// ---------------------------------------------------------------------------- types

// GGML_QUANT_SIZES of the Python package gguf 0.19.0: numbers in a block, bytes of a block; but Q8_1 by
// ggml-common.h, whose block holds two halves, not two floats.
static const struct { uint32_t type; const char *name; int block, bytes; } types[] = {
    { 0, "F32", 1, 4 },       { 1, "F16", 1, 2 },       { 2, "Q4_0", 32, 18 },    { 3, "Q4_1", 32, 20 },
    { 6, "Q5_0", 32, 22 },    { 7, "Q5_1", 32, 24 },    { 8, "Q8_0", 32, 34 },    { 9, "Q8_1", 32, 36 },
    { 10, "Q2_K", 256, 84 },  { 11, "Q3_K", 256, 110 }, { 12, "Q4_K", 256, 144 }, { 13, "Q5_K", 256, 176 },
    { 14, "Q6_K", 256, 210 }, { 15, "Q8_K", 256, 292 }, { 16, "IQ2_XXS", 256, 66 }, { 17, "IQ2_XS", 256, 74 },
    { 18, "IQ3_XXS", 256, 98 }, { 19, "IQ1_S", 256, 50 }, { 20, "IQ4_NL", 32, 18 }, { 21, "IQ3_S", 256, 110 },
    { 22, "IQ2_S", 256, 82 }, { 23, "IQ4_XS", 256, 136 }, { 24, "I8", 1, 1 },     { 25, "I16", 1, 2 },
    { 26, "I32", 1, 4 },      { 27, "I64", 1, 8 },      { 28, "F64", 1, 8 },      { 29, "IQ1_M", 256, 56 },
    { 30, "BF16", 1, 2 },     { 34, "TQ1_0", 256, 54 }, { 35, "TQ2_0", 256, 66 }, { 39, "MXFP4", 32, 17 },
    { 40, "NVFP4", 64, 36 },  { 41, "Q1_0", 128, 18 },
};

static void test_types(void) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        int block = types[i].block;
        size_t bytes = 2 * 3 * 5 * (size_t)types[i].bytes;
        uint64_t shape[] = { 2 * (uint64_t)block, 3, 5 };
        Bytes file = with_tensor(types[i].type, 3, shape, 0, bytes);
        Gguf g;
        const char *error = gguf_read(&g, file);
        CHECK(!error, "a tensor of %s is refused: %s", types[i].name, error);
        if (!error) {
            const GgufTensor *t = &g.tensors[0];
            CHECK(t->bytes == bytes, "2 x 3 x 5 blocks of %s: wanted %zu bytes, got %zu", types[i].name,
                  bytes, t->bytes);
            CHECK(t->n_dims == 3 && t->shape[0] == shape[0] && t->shape[1] == 3 && t->shape[2] == 5 &&
                      t->shape[3] == 1,
                  "%s: another shape", types[i].name);
            CHECK(t->type == (int)types[i].type && !strcmp(gguf_type_name(t->type), types[i].name),
                  "type %u: wanted %s, got %s", types[i].type, types[i].name, gguf_type_name(t->type));
            int run = gguf_runnable(t->type);           // ours, of the same name and size
            CHECK(run < 0 || (!strcmp(formats[run].name, types[i].name) && formats[run].block == block &&
                              formats[run].bytes == types[i].bytes),
                  "%s is run as %s", types[i].name, formats[run].name);
        }
        gguf_free(&g), free_bytes(file);
        if (error) continue;
        check_refused("a byte is missing", with_tensor(types[i].type, 3, shape, 0, bytes - 1), "missing");
        if (block == 1) continue;
        shape[0] = (uint64_t)block - 1; // a row is whole blocks, whatever the rows make together
        check_refused("not a whole block", with_tensor(types[i].type, 3, shape, 0, bytes), "block");
        shape[0] = (uint64_t)block / 2, shape[1] = 2;
        check_refused("half a block to a row", with_tensor(types[i].type, 3, shape, 0, bytes), "block");
        shape[0] = (uint64_t)block + 1;
        check_refused("more than a block", with_tensor(types[i].type, 3, shape, 0, bytes), "block");
    }
    for (int type = 0; type < Q8_PLANE; type++)
        CHECK(gguf_runnable(layouts[type].number) == type, "ggml's type %d is not run as %s",
              layouts[type].number, formats[type].name);
    // ggml.h: these were removed, or never given
    static const uint32_t unknown[] = { 4, 5, 31, 32, 33, 36, 37, 38, 1000, 1u << 31, UINT32_MAX };
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
        check_refused("an unknown type", with_tensor(unknown[i], 1, (uint64_t[]){ 256 }, 0, 4096), "type");
}

// ---------------------------------------------------------------------------- shapes

static void test_shapes(void) {
    uint64_t shape[6] = { 4, 1, 1, 1, 1, 1 };
    for (uint32_t n = 1; n <= 4; n++) check_accepted("1 to 4 dimensions", with_tensor(0, n, shape, 0, 16));
    static const uint32_t wrong[] = { 0, 5, 6, 1 << 16, UINT32_MAX };
    for (int i = 0; i < 5; i++) { // the shape in the file is as long as it says, up to 6
        Writer w = { 0 };
        write_text(&w.index, "odd.one"), write_u32(&w.index, wrong[i]);
        for (uint32_t d = 0; d < wrong[i] && d < 6; d++) write_u64(&w.index, shape[d]);
        write_u32(&w.index, 0), write_u64(&w.index, 0), w.n_tensors = 1;
        for (int k = 0; k < 64; k++) write_bytes(&w.data, "", 1);
        check_refused("a wrong number of dimensions", written(&w), "dimension");
    }
    // Each product would be small if it wrapped around at 2^64, or its bytes would.
    static const struct { uint32_t type; uint64_t shape[4]; } large[] = {
        { 0, { 0, 1, 1, 1 } },                  { 0, { 4, 0, 1, 1 } },
        { 0, { UINT64_MAX, 1, 1, 1 } },         { 0, { 1ull << 63, 2, 1, 1 } },
        { 0, { 1ull << 32, 1ull << 32, 1, 1 } }, { 0, { 1ull << 31, 1ull << 31, 4, 1 } },
        { 0, { 1ull << 62, 1, 1, 1 } },         { 0, { (1ull << 62) + 4, 1, 1, 1 } },   // 4 bytes each
        { 0, { 1ull << 16, 1ull << 16, 1ull << 16, 1ull << 16 } },
        { 8, { 1ull << 63, 1, 1, 1 } },         { 8, { 1ull << 59, 32, 1, 1 } },
        { 8, { 32, (1ull << 59) + 1, 1, 1 } },  { 28, { 1ull << 61, 1, 1, 1 } },
        { 24, { 1ull << 60, 16, 1, 1 } },       { 24, { 1ull << 62, 2, 2, 1 } },
        { 24, { INT64_MAX, 1, 1, 1 } },         { 24, { 1, 1, 1, INT64_MAX } },
        { 12, { 256, 1ull << 56, 1, 1 } },      { 15, { 1ull << 62, 1, 1, 1 } },
    };
    for (size_t i = 0; i < sizeof large / sizeof *large; i++)
        check_refused("an impossible size", with_tensor(large[i].type, 4, large[i].shape, 0, 4096),
                      "odd.one");
}

static void test_names(void) {
    char *name = calloc(1, 65537);
    for (int length = 65535; length <= 65536; length++) {
        memset(name, 'n', (size_t)length);
        Writer w = { 0 };
        add_tensor(&w, name, F32, 0, 1, (float[]){ 1 });
        if (length == 65535) check_accepted("the longest name", written(&w));
        else check_refused("a name too long", written(&w), "name");
    }
    free(name);
    Writer w = { 0 };
    add_tensor(&w, "", F32, 0, 1, (float[]){ 1 });
    check_refused("an empty name", written(&w), "name");
    for (int i = 0; i < 5; i++)
        add_tensor(&w, (const char *[]){ "a", "twice", "b", "twice", "c" }[i], F32, 0, 1, (float[]){ 1 });
    check_refused("a name twice", written(&w), "twice occurs twice");
}

// ---------------------------------------------------------------------------- places

// Two tensors of 16 bytes at these offsets, and so many bytes of data.
static Bytes with_offsets(uint64_t a, uint64_t b, size_t bytes) {
    Writer w = { 0 };
    put_tensor(&w, "a", 0, 1, (uint64_t[]){ 4 }, a);
    put_tensor(&w, "b", 0, 1, (uint64_t[]){ 4 }, b);
    for (size_t i = 0; i < bytes; i++) write_bytes(&w.data, "", 1);
    return written(&w);
}

static void test_offsets(void) {
    static const struct { const char *what; uint64_t a, b; size_t bytes; const char *word;
    } cases[] = {
        { "side by side", 0, 32, 48, NULL },
        { "the other way round", 32, 0, 48, NULL },
        { "a gap between", 0, 128, 144, NULL },
        { "a gap before", 64, 96, 112, NULL },
        { "bytes after the last", 0, 32, 1000, NULL },
        { "one place for two", 0, 0, 64, "overlap" },
        { "both past the end", 64, 64, 64, "" },
        { "misaligned", 0, 16, 64, "alignment" },
        { "misaligned by one", 0, 33, 64, "alignment" },
        { "misaligned, the first", 8, 32, 64, "alignment" },
        { "a byte missing", 0, 32, 47, "1 are missing" },
        { "past the end", 0, 64, 64, "16 are missing" },
        { "far past the end", 0, 1ull << 40, 64, "missing" },
        { "at 2^63", 0, 1ull << 63, 64, "missing" },
        { "wrapping around", 0, UINT64_MAX - 31, 64, "missing" },
        { "both wrapping", UINT64_MAX - 31, UINT64_MAX - 63, 64, "" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Bytes file = with_offsets(cases[i].a, cases[i].b, cases[i].bytes);
        if (cases[i].word) check_refused(cases[i].what, file, cases[i].word);
        else check_accepted(cases[i].what, file);
    }
    for (uint64_t bytes = 95; bytes <= 97;
         bytes++) { // up to byte 160, where the next begins, and one further
        Writer w = { 0 };
        put_tensor(&w, "first", 24, 1, &bytes, 64);
        put_tensor(&w, "second", 24, 1, (uint64_t[]){ 32 }, 160);
        for (int i = 0; i < 256; i++) write_bytes(&w.data, "", 1);
        if (bytes <= 96) check_accepted("up to the next", written(&w));
        else check_refused("a byte of the next", written(&w), "overlap");
    }
    for (uint64_t offset = 0; offset <= 192;
         offset += 32) { // 100 bytes at 64, and another at each place around
        Writer w = { 0 };
        put_tensor(&w, "large", 24, 1, (uint64_t[]){ 100 }, 64);
        put_tensor(&w, "small", 24, 1, (uint64_t[]){ 32 }, offset);
        for (int i = 0; i < 256; i++) write_bytes(&w.data, "", 1);
        if (offset < 64 || offset >= 192) check_accepted("beside a large one", written(&w));
        else check_refused("inside a large one", written(&w), "overlap");
    }
}

// ---------------------------------------------------------------------------- alignment

// The key comes last: it counts for the tensors all the same.
static Bytes with_alignment(uint32_t alignment, uint32_t padding, uint64_t second) {
    Writer w = { .alignment = padding };
    add_u32(&w, "other", 1);
    put_tensor(&w, "a", 0, 1, (uint64_t[]){ 4 }, 0);
    put_tensor(&w, "b", 0, 1, (uint64_t[]){ 4 }, second);
    while (w.data.size < 256) write_f32(&w.data, (float)(w.data.size / 4));     // number i of the data is i
    add_u32(&w, "general.alignment", alignment);
    return written(&w);
}

static void test_alignment(void) {
    static const uint32_t wrong[] = { 0, 3, 13, 24, 33, 48, (1u << 31) + 8, UINT32_MAX }; // no powers of two
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        check_refused("a wrong alignment", with_alignment(wrong[i], 32, 32), "general.alignment");
    static const uint32_t good[] = { 8, 16, 32, 64, 128 };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        uint32_t a = good[i], second = a < 16 ? 16 : a;
        Bytes file = with_alignment(a, a, second);
        Gguf g;
        const char *error = gguf_read(&g, file);
        CHECK(!error && g.alignment == a && g.data_start % a == 0, "alignment %u: %s", a,
              error ? error : "is not kept");
        for (int k = 0; k < 2 && !error; k++) {
            float first;
            memcpy(&first, g.tensors[k].data, sizeof first);
            CHECK(first == (float)(k * second / 4), "alignment %u, tensor %d: wanted %u, got %g", a, k,
                  k * second / 4, first);
        }
        gguf_free(&g), free_bytes(file);
        if (a > 8) check_refused("half the alignment", with_alignment(a, a, a / 2 * 3), "alignment");
    }
    check_refused("2^31, and the data is not there", with_alignment(1u << 31, 32, 0), "");
    Writer w = { 0 };
    add_u32(&w, "general.alignment", 1u << 31);
    check_accepted("2^31, without a tensor", written(&w));
    static const struct { uint32_t type; size_t bytes;
    } others[] = {
        { GGUF_U8, 1 },  { GGUF_U16, 2 },    { GGUF_I32, 4 },  { GGUF_F32, 4 },
        { GGUF_U64, 8 }, { GGUF_STRING, 8 }, { GGUF_BOOL, 1 },
    };
    for (int i = 0; i < 7; i++) {                       // gguf.md, and ggml: it is a u32
        write_bytes(put_key(&w, "general.alignment", others[i].type),
                    (const uint8_t[8]){ 32 * (others[i].type != GGUF_STRING) }, others[i].bytes);
        check_refused("an alignment of another type", written(&w), "u32");
    }
}

int main(void) {
    test_types();
    test_shapes();
    test_names();
    test_offsets();
    test_alignment();
    return finish("test_gguf_tensors");
}
