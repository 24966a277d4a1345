// fuzz_tokenizer.c - any bytes as a vocabulary, of either kind; any bytes as a text, which has to come back
// from its tokens.
//
// The first two bytes say how many of the others are the vocabulary.
#include "../../model.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool has_all_bytes(const Vocabulary *v) {
    for (int byte = 0; byte < 256; byte++)
        if (v->byte_ids[byte] < 0) return false;
    return true;
}

// SentencePiece takes U+2581 in a text for a space. *length: that of the copy, which is to be freed.
static char *with_spaces(const Vocabulary *v, const char *text, size_t *length) {
    size_t n = *length, at = 0;
    char *copy = malloc(n + 1);
    if (!copy) abort();
    for (size_t i = 0; i < n;) {
        bool space = !v->byte_level && i + 3 <= n && !memcmp(text + i, "\xe2\x96\x81", 3);
        copy[at++] = space ? ' ' : text[i];
        i += space ? 3 : 1;
    }
    *length = at;
    return copy;
}

// With a piece for each byte nothing is lost. (Where BOS can be part of a text, a space after it is.)
static void round_trip(const Vocabulary *v, const char *given, size_t length) {
    bool whole = has_all_bytes(v) && (v->bos < 0 || v->pieces[v->bos].kind == CONTROL) && !v->remove_spaces;
    int *ids = malloc((2 * length + 1) * sizeof *ids), n, previous = v->bos;
    size_t at = 0;
    if (tokenize(ids, &n, v, &(Span){ .text = { given, length } }, 1)) abort();
    if (n < 0 || (size_t)n > 2 * length + 1) abort();
    char *text = with_spaces(v, given, &length);
    for (int i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= v->size) abort();
        Piece p = token_text(v, ids[i], previous);
        if (whole && ((size_t)p.length > length - at || memcmp(text + at, p.text, (size_t)p.length))) abort();
        at += (size_t)p.length;
        previous = ids[i];
    }
    if (whole && at != length) abort();
    free(text);
    free(ids);
}

static void all_texts(const Vocabulary *v) {
    unsigned sum = 0;
    for (int id = 0; id < v->size; id++) {
        Piece p = token_text(v, id, v->bos);
        for (int i = 0; i < p.length; i++) sum += (uint8_t)p.text[i];
        sum += ends_text(v, id);
    }
    volatile unsigned read = sum;
    (void)read;
}

// A byte at a time: as it is, nothing is lost; with replacement, what comes is UTF-8 already.
static void stream(const uint8_t *text, size_t length) {
    Utf8 plain = { { 0 }, 0 }, mended = { { 0 }, 0 }, again = { { 0 }, 0 };
    char out[8], twice[8];
    size_t at = 0;
    for (size_t i = 0; i <= length; i++) {
        int n = i < length ? utf8_push(out, &plain, text[i], false) : utf8_flush(out, &plain, false);
        if (n < 0 || n > 6 || at + (size_t)n > length || memcmp(out, text + at, (size_t)n)) abort();
        at += (size_t)n;
        n = i < length ? utf8_push(out, &mended, text[i], true) : utf8_flush(out, &mended, true);
        if (n < 0 || n > 6) abort();
        int m = 0;
        for (int j = 0; j < n; j++) {
            char piece[8];
            int k = utf8_push(piece, &again, (uint8_t)out[j], true);
            if (m + k > n) abort();
            memcpy(twice + m, piece, (size_t)k);
            m += k;
        }
        if (m != n || memcmp(out, twice, (size_t)n)) abort();
    }
    if (at != length) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    size_t part = data[0] | (size_t)data[1] << 8;
    if (part > size - 2) part = size - 2;
    stream(data + 2 + part, size - 2 - part);
    uint8_t *file = malloc(part ? part : 1);            // of its own, so that a step outside is noticed
    memcpy(file, data + 2, part);
    Vocabulary v;
    if (part && !vocabulary_read(&v, (Bytes){ file, part }, 0)) {
        all_texts(&v);
        round_trip(&v, (const char *)data + 2 + part, size - 2 - part);
        vocabulary_free(&v);
    }
    free(file);
    return 0;
}
