// tokenizer.c - text to tokens and back: SentencePiece's byte-pair encoding.
//
// The text starts as single characters. Again and again the two neighbours that together spell the piece with the
// highest score become one (of equals the leftmost), until no two neighbours spell a piece. A heap of candidate
// pairs and a list of symbols make that O(n log n). A character that no piece spells becomes its bytes.
// Sennrich et al. 2016 (BPE), Kudo & Richardson 2018 (SentencePiece).
#include "model.h"
#include <stdlib.h>
#include <string.h>

// ---------------------------------------------------------------------------- UTF-8

// The length of the character at s, 0 if it is a good beginning that needs more than n bytes, -1 if it is none.
// RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
static int character(const uint8_t *s, size_t n) {
    uint8_t first = s[0];
    if (first < 0x80) return 1;
    if (first < 0xc2 || first > 0xf4) return -1;
    int length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;           // for the second byte only
    uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    for (int i = 1; i < length; i++, low = 0x80, high = 0xbf) {
        if ((size_t)i >= n) return 0;
        if (s[i] < low || s[i] > high) return -1;
    }
    return length;
}

static int put_strays(char *out, const uint8_t *bytes, int n, bool replace) {
    if (n == 0) return 0;
    memcpy(out, replace ? (const void *)"\xef\xbf\xbd" : bytes, replace ? 3 : (size_t)n);
    return replace ? 3 : n;
}

int utf8_push(char out[8], Utf8 *u, uint8_t byte, bool replace) {
    u->held[u->count++] = byte;
    int length = character(u->held, u->count), written = 0;
    if (length < 0 && u->count > 1) {                   // what was held is cut short; the new byte may begin another
        written = put_strays(out, u->held, u->count - 1, replace);
        u->held[0] = byte, u->count = 1;
        length = character(u->held, 1);
    }
    if (length == 0) return written;
    bool whole = length > 0;
    written += put_strays(out + written, u->held, u->count, replace && !whole);
    u->count = 0;
    return written;
}

int utf8_flush(char out[8], Utf8 *u, bool replace) {
    int written = put_strays(out, u->held, u->count, replace);
    u->count = 0;
    return written;
}

// ---------------------------------------------------------------------------- the vocabulary

static uint32_t hash(const char *text, int length) {    // FNV-1a
    uint32_t h = 2166136261u;
    for (int i = 0; i < length; i++) h = (h ^ (uint8_t)text[i]) * 16777619u;
    return h ^ h >> 15;
}

// The slot that holds this text, or the empty one where it belongs.
static int *find_slot(const Vocabulary *v, const char *text, int length) {
    for (uint32_t i = hash(text, length);; i++) {
        int *slot = &v->slots[i & (uint32_t)(v->n_slots - 1)];
        if (*slot < 0) return slot;
        const Piece *p = &v->pieces[*slot];
        if (p->length == length && !memcmp(p->text, text, (size_t)length)) return slot;
    }
}

// The tables behind the pieces. Of several pieces with one text the first counts; control tokens spell nothing.
const char *vocabulary_index(Vocabulary *v) {
    v->unknown = -1;
    for (v->n_slots = 64; v->n_slots < 2 * v->size;) v->n_slots *= 2;
    v->slots = malloc((size_t)v->n_slots * sizeof *v->slots);
    if (!v->slots) return "no memory for the vocabulary";
    memset(v->slots, -1, (size_t)v->n_slots * sizeof *v->slots);
    memset(v->byte_ids, -1, sizeof v->byte_ids);
    for (int id = 0; id < v->size; id++) {
        Piece *p = &v->pieces[id];
        if (p->kind == UNKNOWN && v->unknown < 0) v->unknown = id;
        if (p->kind == BYTE) {                          // "<0x41>" stands for 'A', and spells it from now on
            int byte = (int)strtol((char[]){ p->text[3], p->text[4], 0 }, NULL, 16);
            if (v->byte_ids[byte] < 0) v->byte_ids[byte] = id;
            v->bytes[byte] = (uint8_t)byte;
            p->text = (const char *)&v->bytes[byte];
            p->length = 1;
        }
        if (p->kind != NORMAL || p->length == 0) continue;
        int *slot = find_slot(v, p->text, p->length);
        if (*slot < 0) *slot = id;
        if (p->length > v->longest) v->longest = p->length;
    }
    return NULL;
}

void vocabulary_free(Vocabulary *v) {
    free(v->pieces);
    free(v->slots);
    *v = (Vocabulary){ 0 };
}

// ---------------------------------------------------------------------------- text to tokens

typedef struct { int prev, next, start, length, id; } Symbol;       // id -1: no piece; length 0: merged into its left
typedef struct { float score; int left, length, id; } Pair;         // symbol `left` and the one after it, spelling id

typedef struct {
    const Vocabulary *v;
    const char *text;
    Symbol *symbols;
    Pair *heap;
    int n_pairs;
} Merger;

static bool before(Pair a, Pair b) { return a.score > b.score || (a.score == b.score && a.left < b.left); }

static void push(Merger *m, Pair pair) {
    int i = m->n_pairs++;
    for (; i > 0 && before(pair, m->heap[(i - 1) / 2]); i = (i - 1) / 2) m->heap[i] = m->heap[(i - 1) / 2];
    m->heap[i] = pair;
}

static Pair pop(Merger *m) {
    Pair top = m->heap[0], last = m->heap[--m->n_pairs];
    int i = 0;
    for (int child; (child = 2 * i + 1) < m->n_pairs; i = child) {
        if (child + 1 < m->n_pairs && before(m->heap[child + 1], m->heap[child])) child++;
        if (!before(m->heap[child], last)) break;
        m->heap[i] = m->heap[child];
    }
    m->heap[i] = last;
    return top;
}

static int lookup(const Vocabulary *v, const char *text, int length) {
    return length > v->longest ? -1 : *find_slot(v, text, length);
}

static void consider(Merger *m, int left) {
    if (left < 0 || m->symbols[left].next < 0) return;
    const Symbol *a = &m->symbols[left], *b = &m->symbols[a->next];
    int length = a->length + b->length, id = lookup(m->v, m->text + a->start, length);
    if (id >= 0) push(m, (Pair){ m->v->pieces[id].score, left, length, id });
}

static void merge(Merger *m) {
    while (m->n_pairs) {
        Pair pair = pop(m);
        Symbol *a = &m->symbols[pair.left];
        if (a->length == 0 || a->next < 0) continue;
        Symbol *b = &m->symbols[a->next];
        if (a->length + b->length != pair.length) continue;     // one of them has grown since
        a->length = pair.length;
        a->id = pair.id;
        a->next = b->next;
        b->length = 0;
        if (a->next >= 0) m->symbols[a->next].prev = pair.left;
        consider(m, a->prev);
        consider(m, pair.left);
    }
}

static int split(Symbol *symbols, const Vocabulary *v, const char *text, int n) {
    int count = 0;
    for (int i = 0; i < n;) {
        int length = character((const uint8_t *)text + i, (size_t)(n - i));
        if (length < 1) length = 1;                     // a stray byte stands for itself
        symbols[count] = (Symbol){ count - 1, count + 1, i, length, lookup(v, text + i, length) };
        count++;
        i += length;
    }
    symbols[count - 1].next = -1;
    return count;
}

static int spell(int *ids, const Vocabulary *v, const Symbol *symbols, const char *text) {
    int n = 0;
    for (int i = 0; i >= 0; i = symbols[i].next) {
        const Symbol *s = &symbols[i];
        if (s->id >= 0) { ids[n++] = s->id; continue; }
        for (int j = 0; j < s->length; j++) {
            int id = v->byte_ids[(uint8_t)text[s->start + j]];
            if (id < 0) id = v->unknown;
            if (id >= 0) ids[n++] = id;
        }
    }
    return n;
}

const char *tokenize(int *ids, int *n, const Vocabulary *v, const char *text, size_t length) {
    *n = 0;
    if (length == 0) return NULL;
    if (length > INT32_MAX / 4) return "a text of more than 512 MB is too long to tokenize";
    size_t room = length + 1;
    char *copy = malloc(room);
    Merger m = { v, copy, malloc(room * sizeof(Symbol)), malloc(3 * room * sizeof(Pair)), 0 };
    const char *error = "no memory to tokenize the text";
    if (copy && m.symbols && m.heap) {
        copy[0] = ' ';
        memcpy(copy + v->add_space, text, length);
        int count = split(m.symbols, v, copy, (int)length + v->add_space);
        for (int i = 0; i < count; i++) consider(&m, i);        // at most one pair each, and two more per merge
        merge(&m);
        *n = spell(ids, v, m.symbols, copy);
        error = NULL;
    }
    free(copy);
    free(m.symbols);
    free(m.heap);
    return error;
}

// ---------------------------------------------------------------------------- tokens to text

Piece token_text(const Vocabulary *v, int id, int previous) {
    Piece p = v->pieces[id];
    if (p.kind == CONTROL) p.length = 0;
    if (v->add_space && previous == v->bos && p.length && p.text[0] == ' ') p.text++, p.length--;
    return p;
}

bool ends_text(const Vocabulary *v, int id) { return id == v->eos || id == v->bos; }
