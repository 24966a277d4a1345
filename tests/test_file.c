// test_file.c - lines, bytes that end too soon, and what a file is by its first bytes.
#include "test.h"

// ---------------------------------------------------------------------------- lines

static void check_lines(const char *text, size_t size, const long *lengths, int n) {
    FILE *f = tmpfile();
    CHECK(f && fwrite(text, 1, size, f) == size && !fseek(f, 0, SEEK_SET), "no file to read from");
    char *line = NULL;
    size_t room = 0, at = 0;
    for (int i = 0; i < n; at += (size_t)lengths[i++]) {
        long got = read_line(&line, &room, f);
        CHECK(got == lengths[i] && !memcmp(line, text + at, (size_t)got) && line[got] == 0,
              "line %d: expected %ld bytes, got %ld", i, lengths[i], got);
    }
    CHECK(read_line(&line, &room, f) == -1, "a line after the last");
    free(line);
    fclose(f);
}

static void test_lines(void) {                          // the same as POSIX's getline() gives
    check_lines("", 0, NULL, 0);
    check_lines("\n", 1, (long[]){ 1 }, 1);
    check_lines("one\n\ntwo\r\nthree", 15, (long[]){ 4, 1, 5, 5 }, 4);
    check_lines("a zero\0 inside\nb", 16, (long[]){ 15, 1 }, 2);
    char *text = malloc(10000);
    memset(text, 'x', 10000);
    for (long n = 120; n < 300; n++) {                  // around the sizes of its memory
        text[n - 1] = '\n';
        check_lines(text, 10000, (long[]){ n, 10000 - n }, 2);
        text[n - 1] = 'x';
    }
    free(text);
}

// ---------------------------------------------------------------------------- walking

static void test_cursor(void) {
    const uint8_t bytes[] = { 0x78, 0x56, 0x34, 0x12, 0, 0, 0x80, 0x3f, 0xff, 0xff, 0xff, 0xff, 7, 8, 9 };
    Cursor c = { bytes, sizeof bytes, false };
    CHECK(take_i32(&c) == 0x12345678, "the first int");
    CHECK(take_f32(&c) == 1, "a float, 3f800000");
    CHECK(take_i32(&c) == -1, "the second int");
    CHECK(take(&c, 0) == bytes + 12 && !c.failed, "nothing can always be taken");
    CHECK(take(&c, 2) == bytes + 12 && c.left == 1 && !c.failed, "two bytes");
    CHECK(take_i32(&c) == 0 && c.failed, "four bytes of one");
    CHECK(!take(&c, 1) && c.failed, "a failed cursor gave a byte");         // although one is left
    CHECK(!take(&c, 0), "a failed cursor gave nothing, and not NULL");
    CHECK(take_i32(&c) == 0 && take_f32(&c) == 0 && c.failed, "a failed cursor yields zeros");

    c = (Cursor){ bytes, sizeof bytes, false };
    CHECK(!take(&c, SIZE_MAX) && c.failed, "as many bytes as there are numbers");
    c = (Cursor){ bytes, sizeof bytes, false };
    CHECK(take(&c, sizeof bytes) == bytes && c.left == 0 && !c.failed, "all of the bytes");
    CHECK(!take(&c, 1) && c.failed, "one more");
    c = (Cursor){ NULL, 0, false };
    CHECK(take_f32(&c) == 0 && c.failed, "no bytes at all");
    c = (Cursor){ bytes + 1, 8, false };                // not aligned
    CHECK(take_i32(&c) == 0x00123456 && take_i32(&c) == (int32_t)0xff3f8000, "ints at odd places");
}

static void test_size_times(void) {
    const size_t half = (size_t)1 << (sizeof(size_t) * 4);  // 2^32, where there are 64 bits
    const uint64_t LARGE = (uint64_t)1 << 40;
    const struct { uint64_t a, b; size_t want; } cases[] = {
        { 0, 0, 0 }, { 0, SIZE_MAX, 0 }, { SIZE_MAX, 0, 0 }, { 3, 4, 12 }, { SIZE_MAX, 1, SIZE_MAX },
        { 1, SIZE_MAX, SIZE_MAX }, { SIZE_MAX / 2, 2, SIZE_MAX - 1 }, { SIZE_MAX / 2 + 1, 2, SIZE_MAX },
        { half, half, SIZE_MAX },                       // 0, to who does not look
        { SIZE_MAX, SIZE_MAX, SIZE_MAX }, { SIZE_MAX, 2, SIZE_MAX },    // stays the most that there is
        { LARGE, 1, SIZE_MAX < LARGE ? SIZE_MAX : (size_t)LARGE },      // files count in 64 bits everywhere
        { 1, LARGE, SIZE_MAX < LARGE ? SIZE_MAX : (size_t)LARGE },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t got = size_times(cases[i].a, cases[i].b);
        CHECK(got == cases[i].want, "%llu * %llu: expected %zu, got %zu", (unsigned long long)cases[i].a,
              (unsigned long long)cases[i].b, cases[i].want, got);
    }
}

static void test_complain(void) {
    CHECK(!strcmp(complain("%d of %s", 3, "four"), "3 of four"), "got %s", complain("%d of %s", 3, "four"));
    char *long_word = malloc(100000);
    memset(long_word, 'x', 99999);
    long_word[99999] = 0;
    size_t length = strlen(complain("%s", long_word));
    CHECK(length > 100 && length < 100000, "a very long sentence has %zu letters", length);
    free(long_word);
}

// ---------------------------------------------------------------------------- what is it?

// A word that the answer has to contain; NULL: no answer.
static void test_what_is(void) {
    static const struct { const char *name; size_t size; const char *bytes, *word; } cases[] = {
        { "git-lfs",      46, "version https://git-lfs.github.com/spec/v1\noid", "git-lfs" },
        { "GGUF",         24, "GGUF\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "GGUF" },
        { "GGUF, big",    24, "FUGG\0\0\0\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "byte order" },
        { "llama2.c",     16, "24ka\1\0\0\0\x40\0\0\0\xac\0\0\0", "llama2.c" },
        { "llama2.c big", 16, "ak42\0\0\0\1\0\0\0\x40\0\0\0\xac", "byte order" },
        { "zip",          16, "PK\3\4\0\0\x08\x08\0\0\0\0\0\0\0\0", "zip" },
        { "torch",        16, "\x80\2\x8a\nl\xfc\x9c\x46\xf9\x20\x6a\xa8P\x19.\x80", "PyTorch" },
        { "gzip",         16, "\x1f\x8b\x08\0\0\0\0\0\0\3\xed\x9a\x09\x90\x9c\xd5", "gzip" },
        { "SentencePiece", 20, "\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\2\n\x0c\n\3", "SentencePiece" },
        { "of <pad> first", 20, "\n\x0e\n\x05<pad>\x15\0\0\0\0\x18\3\n\x0c\n\3", "SentencePiece" },
        { "a field of it too short", 14, "\n\2\n\1a\x15\0\0\0\0\x18\1\n\x0c", NULL },
        { "of no text",   14, "\n\x0a\n\0\x15\0\0\0\0\0\x18\1\n\x0c", NULL },
        { "of no score",  14, "\n\x0a\n\1a\x18\0\0\0\0\x18\1\n\x0c", NULL },
        { "of other fields", 14, "\n\x0a\x12\1a\x15\0\0\0\0\x18\1\n\x0c", NULL },
        { "of a text that ends the file", 5, "\n\x0a\n\1a", NULL },
        { "of three bytes", 3, "\n\x0a\1", NULL },
        { "of a first",   14, "\n\x0a\n\1a\x15\0\0\0\0\x18\1\n\x0c", "SentencePiece" },
        { "ggml's LoRA",  12, "algg\1\0\0\0\x08\0\0\0", "LoRA" },
        { "pickle",        8, "\x80\4\x95\x1f\0\0\0\0", "pickle" },
        { "Zstandard",     8, "\x28\xb5\x2f\xfd\4\x58\x41\0", "Zstandard" },
        { "LZ4",           8, "\4\x22\x4d\x18\x64\x40\xa7\0", "LZ4" },
        { "xz",            8, "\xfd" "7zXZ\0\0\4", "xz" },
        { "bzip2",         8, "BZh91AY&", "bzip2" },
        { "7z",            8, "7z\xbc\xaf\x27\x1c\0\4", "7z" },
        { "RAR",           8, "Rar!\x1a\7\1\0", "RAR" },
        { "NumPy",        10, "\x93NUMPY\1\0v\0", "NumPy" },
        { "HDF5",          8, "\x89HDF\r\n\x1a\n", "HDF5" },
        { "ONNX",         12, "\x08\7\x12\7pytorch\x1a", "ONNX" },
        { "TFLite",       12, "\x1c\0\0\0TFL3\x14\0\x20\0", "TensorFlow Lite" },
        { "PNG",           8, "\x89PNG\r\n\x1a\n", "picture" },
        { "PE",            8, "MZ\x90\0\3\0\0\0", "program" },
        { "Mach-O",        8, "\xcf\xfa\xed\xfe\7\0\0\1", "program" },
        { "ELF",          16, "\x7f" "ELF\2\1\1\0\0\0\0\0\0\0\0\0", "program" },
        { "safetensors",  20, "\x58\2\0\0\0\0\0\0{\"__metadata__", "safetensors" },
        { "HTML",         24, "<!DOCTYPE html><html><he", "HTML" },
        { "HTML later",   24, "\r\n  <html lang=\"en\"><hea", "HTML" },
        { "text",         24, "Once upon a time there w", "text" },
        { "text, UTF-8",  20, "Es war einmal, sp\xc3\xa4t", "text" },
        { "short text",    3, "hi\n", "text" },
        // what has no mark: headers of llama2.c's version 0; dim 640 is 80 02, as torch's files begin
        { "dim 64",       28, "\x40\0\0\0\xac\0\0\0\5\0\0\0\x08\0\0\0\4\0\0\0\0\2\0\0\0\2\0\0", NULL },
        { "dim 288",      28, "\x20\1\0\0\0\3\0\0\6\0\0\0\6\0\0\0\6\0\0\0\0\x7d\0\0\0\1\0\0", NULL },
        { "dim 640",      28,
          "\x80\2\0\0\xab\6\0\0\x0a\0\0\0\x0a\0\0\0\5\0\0\0\0\x83\xff\xff\0\4\0\0", NULL },
        { "tokenizer",    20, "\7\0\0\0\0\0\0\0\5\0\0\0<unk>\0\0\0", NULL },
        { "nothing",       0, "", NULL },
        { "zeros",        16, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "zeros" },
        { "zeros, and a 1", 16, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1", NULL },
        { "a mark cut",    5, "\x80\2\x8a\nl", NULL },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t *copy = malloc(cases[i].size);          // exactly so many bytes, for the sanitizer to watch
        memcpy(copy, cases[i].bytes, cases[i].size);
        const char *got = what_is((Bytes){ copy, cases[i].size }), *word = cases[i].word;
        CHECK(word ? got && strstr(got, word) : !got, "%s: wanted %s, got %s", cases[i].name,
              word ? word : "nothing", got ? got : "nothing");
        free(copy);
    }
    uint8_t tar[512] = "model.gguf";
    memcpy(tar + 257, "ustar", 5);
    const char *what = what_is((Bytes){ tar, sizeof tar });
    CHECK(what && strstr(what, "tar"), "a tar archive: got %s", what ? what : "nothing");
    for (size_t n = 0; n < 23; n++) {                   // any beginning of a file is safe to look at
        uint8_t *copy = malloc(n + !n);
        memcpy(copy, "version https://git-lfs", n);
        const char *got = what_is((Bytes){ copy, n });
        CHECK(!got || !strstr(got, "git-lfs"), "%zu letters are not enough to know a git-lfs pointer by", n);
        free(copy);
    }
}

int main(void) {
    test_lines();
    test_cursor();
    test_size_times();
    test_complain();
    test_what_is();
    return finish("test_file");
}
