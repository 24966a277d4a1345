// file.c - bytes from outside: walk a file without trusting it, and say what a wrong one is.
#include "model.h"
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *complain_list(const char *format, va_list arguments) {
    static _Thread_local char sentence[1024];
    char fresh[sizeof sentence];                        // an argument may be the sentence before
    vsnprintf(fresh, sizeof fresh, format, arguments);
    uint32_t code;
    for (size_t at = 0, n = strlen(fresh), length; at < n; at += length) {      // one line, come what may
        length = (size_t)utf8_decode(&code, fresh + at, n - at);
        if (code == 0xfffd || !utf8_visible(code)) memset(fresh + at, '?', length);
    }
    return memcpy(sentence, fresh, sizeof fresh);
}

const char *complain(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const char *sentence = complain_list(format, arguments);
    va_end(arguments);
    return sentence;
}

int text_length(Text t) { return t.size < 100 ? (int)t.size : 100; }
bool text_is(Text t, const char *word) { return t.size == strlen(word) && !memcmp(t.data, word, t.size); }

// As getline() of POSIX: the bytes of a line with its newline, or -1 at the end or on a failure.
long read_line(char **line, size_t *room, FILE *f) {
    size_t n = 0;
    int byte = 0;
    while (byte != '\n' && (byte = getc(f)) != EOF) {
        if (n + 1 >= *room) {
            char *more = realloc(*line, *room = 2 * *room + 128);
            if (!more) return -1;
            *line = more;
        }
        (*line)[n++] = (char)byte;
    }
    if (n == 0 || ferror(f)) return -1;
    (*line)[n] = 0;
    return (long)n;
}

// ---------------------------------------------------------------------------- walking bytes

size_t size_times(uint64_t a, uint64_t b) { return b && a > SIZE_MAX / b ? SIZE_MAX : (size_t)(a * b); }

const void *take(Cursor *c, size_t bytes) {
    if (c->failed || bytes > c->left) {
        c->failed = true;
        return NULL;
    }
    const void *start = c->at;
    c->at += bytes;
    c->left -= bytes;
    return start;
}

static void take_into(void *value, Cursor *c, size_t size) {
    const void *bytes = take(c, size);
    if (bytes) memcpy(value, bytes, size);
}

uint32_t take_u32(Cursor *c) { uint32_t value = 0; take_into(&value, c, sizeof value); return value; }
int32_t  take_i32(Cursor *c) { int32_t  value = 0; take_into(&value, c, sizeof value); return value; }
uint64_t take_u64(Cursor *c) { uint64_t value = 0; take_into(&value, c, sizeof value); return value; }
float    take_f32(Cursor *c) { float    value = 0; take_into(&value, c, sizeof value); return value; }

// ---------------------------------------------------------------------------- what is this?

// Text, if the first bytes are all printable: then they cannot be a sensible number either.
static const char *what_text(Bytes file) {
    size_t i = 0, n = file.size < 64 ? file.size : 64;
    while (i < n && isspace(file.data[i])) i++;
    bool tag = i < n && file.data[i] == '<';
    for (i = 0; i < n; i++)
        if (file.data[i] < 0x80 && !isprint(file.data[i]) && !isspace(file.data[i])) return NULL;
    if (n == 0) return NULL;
    return tag ? "a web page: the download answered with HTML or XML; fetch the raw file" : "a text file";
}

// A protocol buffer whose first field is a piece: its length, then the piece's text, then its score.
static bool is_sentencepiece(Bytes file) {
    const uint8_t *d = file.data;
    return file.size > 4 && d[0] == '\n' && d[2] == '\n' && d[3] && d[3] + 2 < d[1] &&
           file.size > 4u + d[3] && d[4 + d[3]] == 0x15;
}

static bool is_zeros(Bytes file) {
    size_t i = 0, n = file.size < 64 ? file.size : 64;
    while (i < n && !file.data[i]) i++;
    return n && i == n;
}

// A header of llama2.c begins with dim, and none with these bytes: dim would be odd, or larger than MAX_DIM.
const char *what_is(Bytes file) {
    static const struct { int offset; const char *mark, *meaning; } known[] = {
        { 0, "version https://git-lfs", "a git-lfs pointer, not the file: fetch it with 'git lfs pull'" },
        { 0, "GGUF", "a GGUF file" },
        { 0, "FUGG", "a GGUF file of the other byte order" },
        { 0, "24ka", "a llama2.c checkpoint" },
        { 0, "ak42", "a llama2.c checkpoint of the other byte order" },
        { 0, "tjgg", "a ggml file from before GGUF: it has to be converted first" },
        { 0, "lmgg", "a ggml file from before GGUF: it has to be converted first" },
        { 0, "fmgg", "a ggml file from before GGUF: it has to be converted first" },
        { 0, "algg", "an adapter (LoRA) from before GGUF, not a model" },
        { 0, "PK\3\4", "a zip archive (as PyTorch's .pt and .pth are): it has to be converted first" },
        { 0, "\x80\2\x8a\nl\xfc", "a PyTorch file of the old form: it has to be converted first" },
        { 0, "\x80\2}", "a Python pickle: it has to be converted first" },
        { 0, "\x80\3}", "a Python pickle: it has to be converted first" },
        { 0, "\x80\4\x95", "a Python pickle: it has to be converted first" },
        { 0, "\x80\5\x95", "a Python pickle: it has to be converted first" },
        { 0, "\x93NUMPY", "a NumPy array, not a model" },
        { 0, "\x89HDF\r\n\x1a\n", "an HDF5 file (as Keras writes): it cannot be converted here" },
        { 4, "TFL3", "a TensorFlow Lite model: it cannot be converted here" },
        { 0, "\x1f\x8b\x08", "a gzip archive: unpack it first" },
        { 0, "\x28\xb5\x2f\xfd", "a Zstandard archive: unpack it first (unzstd)" },
        { 0, "\x04\x22\x4d\x18", "an LZ4 archive: unpack it first" },
        { 0, "\xfd" "7zXZ", "an xz archive: unpack it first" },
        { 0, "BZh", "a bzip2 archive: unpack it first" },
        { 0, "7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first" },
        { 0, "Rar!\x1a\x07", "a RAR archive: unpack it first" },
        { 257, "ustar", "a tar archive: unpack it first" },
        { 0, "%PDF", "a PDF document" },
        { 0, "\x89PNG", "a picture" },
        { 0, "\xff\xd8\xff", "a picture" },
        { 0, "SQLite format 3", "an SQLite database" },
        { 0, "PAR1", "a Parquet file, not a model" },
        { 0, "ARROW1", "an Arrow file, not a model" },
        { 0, "\x7f" "ELF", "a program" },
        { 0, "\xcf\xfa\xed\xfe", "a program" },
        { 0, "MZ\x90", "a program" },
        { 0, "MZqFpD", "a program (a llamafile holds its model as a zip archive does: unzip it)" },
        { 0, "\x08\x07\x12", "an ONNX model: it cannot be converted here" },
        { 8, "{\"", "a safetensors file: it has to be converted first" },
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t offset = known[i].offset, length = strlen(known[i].mark);
        if (file.size >= offset + length && !memcmp(file.data + offset, known[i].mark, length))
            return known[i].meaning;
    }
    if (is_sentencepiece(file)) return "a SentencePiece model: it has to be converted first";
    if (is_zeros(file)) return "it begins with zeros: a download that never came, or a part of a file";
    return what_text(file);
}
