// tokenizer.c - text to tokens and back: SentencePiece's byte-pair encoding.
//
// The text starts as single characters. Again and again the two neighbours that together spell the piece with
// the highest score become one (of equals the leftmost), until no two neighbours spell a piece. A heap of
// candidate pairs and a list of symbols make that O(n log n). What no piece spells becomes its bytes.
// Sennrich et al. 2016 (BPE), Kudo & Richardson 2018 (SentencePiece).
#include "model.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

// ---------------------------------------------------------------------------- the vocabulary

enum { MOST_PROBES = 128 };                             // an honest vocabulary needs some twenty

static uint32_t hash(const char *text, int length) {    // FNV-1a
    uint32_t h = 2166136261u;
    for (int i = 0; i < length; i++) h = (h ^ (uint8_t)text[i]) * 16777619u;
    return h ^ h >> 15;
}

// The slot that holds this text, or the empty one where it belongs; NULL: neither after so many steps, as
// happens only where somebody has looked for texts of one hash.
static int *find_slot(const Vocabulary *v, const char *text, int length) {
    uint32_t h = hash(text, length), step = h >> 16 | 1;
    for (int probe = 0; probe < MOST_PROBES; probe++, h += step) {
        int *slot = &v->slots[h & (uint32_t)(v->n_slots - 1)];
        if (*slot < 0) return slot;
        const Piece *p = &v->pieces[*slot];
        if (p->length == length && !memcmp(p->text, text, (size_t)length)) return slot;
    }
    return NULL;
}

static int lookup(const Vocabulary *v, const char *text, int length) {
    const int *slot = length > v->longest ? NULL : find_slot(v, text, length);
    return slot ? *slot : -1;
}

bool spells_byte(const char *text, int length) {
    static const char form[] = "<0x##>";
    if (length != sizeof form - 1) return false;
    for (int i = 0; i < length; i++)
        if (form[i] == '#' ? !isxdigit((unsigned char)text[i]) : text[i] != form[i]) return false;
    return true;
}

// The tables behind the pieces. Of several pieces with one text the first counts; control tokens have none.
const char *vocabulary_index(Vocabulary *v) {
    v->unknown = -1;
    for (v->n_slots = 64; v->n_slots < 2 * v->size;) v->n_slots *= 2;
    v->slots = malloc((size_t)v->n_slots * sizeof *v->slots);
    v->bytes = malloc(256);
    if (!v->slots || !v->bytes) return "no memory for the vocabulary";
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
        if (!slot) return "its tokens are made to slow down who looks them up";
        if (*slot < 0) *slot = id;
        if (p->length > v->longest) v->longest = p->length;
    }
    return NULL;
}

void vocabulary_free(Vocabulary *v) {
    free(v->pieces);
    free(v->slots);
    free(v->bytes);
    free(v->texts);
    *v = (Vocabulary){ 0 };
}

// ---------------------------------------------------------------------------- text to tokens

typedef struct { int prev, next, start, length, id; } Symbol;   // id -1: no piece; length 0: no longer there
typedef struct { float score; int left, length, id; } Pair;     // symbol `left` and the next one, spelling id

typedef struct {
    const Vocabulary *v;
    const char *text;
    Symbol *symbols;
    Pair *heap;             // at most one for each symbol, and two more for each merge
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
        int length = utf8_length(text + i, (size_t)(n - i));
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
        for (int i = 0; i < count; i++) consider(&m, i);
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
    if (p.kind == CONTROL || p.kind == UNUSED) p.length = 0;
    if (v->add_space && previous == v->bos && p.length && p.text[0] == ' ') p.text++, p.length--;
    return p;
}

bool ends_text(const Vocabulary *v, int id) {
    return id == v->eos || id == v->bos || id == v->eot || id == v->eom;
}
