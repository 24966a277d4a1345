// tokenizer.c - text to tokens and back: byte-pair encoding, SentencePiece's and the byte-level kind.
//
// A text starts as single characters (or bytes). Again and again two neighbours become one: SentencePiece
// takes the pair that spells the piece with the highest score, byte-level BPE the pair with the earliest
// merge, of equals the leftmost, until none are left. A heap of candidate pairs and a list of symbols make
// that O(n log n).
// Sennrich et al. 2016 (BPE), Kudo & Richardson 2018 (SentencePiece), Radford et al. 2019 (byte-level BPE).
#include "model.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

// ---------------------------------------------------------------------------- the vocabulary

enum { MAX_PROBES = 128 };                             // llama's, gpt-2's and qwen2's need 10 to 21

static uint32_t hash(const char *text, int length) {    // FNV-1a
    uint32_t h = 2166136261u;
    for (int i = 0; i < length; i++) h = (h ^ (uint8_t)text[i]) * 16777619u;
    return h ^ h >> 15;
}

// The slot that holds this text, or the empty one where it belongs; NULL: neither after so many steps, as
// happens only where somebody has looked for texts of one hash.
static int *find_slot(const Vocabulary *v, const char *text, int length) {
    uint32_t h = hash(text, length), step = h >> 16 | 1;
    for (int probe = 0; probe < MAX_PROBES; probe++, h += step) {
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

// SentencePiece writes a space as U+2581, and one in a text is a space to it as well.
size_t spell_space(char *out, const char *in, size_t n) {
    bool space = n >= 3 && !memcmp(in, "\xe2\x96\x81", 3);
    *out = space ? ' ' : *in;
    return space ? 3 : 1;
}

static const char *index_piece(Vocabulary *v, int id) {
    Piece *p = &v->pieces[id];
    if (p->kind == UNKNOWN && v->unknown < 0) v->unknown = id;
    if ((p->kind == CONTROL || p->kind == USER) && p->length) v->specials[v->n_specials++] = p;
    if (p->kind == BYTE) {                              // "<0x41>" stands for 'A', and spells it from now on
        int byte = (int)strtol((char[]){ p->text[3], p->text[4], 0 }, NULL, 16);
        if (v->byte_ids[byte] < 0) v->byte_ids[byte] = id;
        v->bytes[byte] = (uint8_t)byte;
        p->text = (const char *)&v->bytes[byte];
        p->length = 1;
    }
    bool merges = p->kind == NORMAL || (p->kind == UNUSED && !v->byte_level);
    if (!merges || p->length == 0) return NULL;
    int *slot = find_slot(v, p->text, p->length);
    if (!slot) return "its tokens are made to slow down who looks them up";
    if (*slot < 0 || (v->pieces[*slot].kind == UNUSED && p->kind == NORMAL)) *slot = id;
    if (p->kind == UNUSED) v->has_unused = true;
    if (p->length > v->longest) v->longest = p->length;
    int *byte = &v->byte_ids[(uint8_t)*p->text];
    if (v->byte_level && p->length == 1 && *byte < 0) *byte = id;
    return NULL;
}

static int compare(const Piece *x, const Piece *y) {
    int order = memcmp(x->text, y->text, (size_t)(x->length < y->length ? x->length : y->length));
    return order ? order : x->length - y->length;
}

static int by_bytes(const void *a, const void *b) {
    const Piece *x = *(const Piece *const *)a, *y = *(const Piece *const *)b;
    int order = compare(x, y);
    return order ? order : (x > y) - (x < y);
}

// In the order of their bytes, those that begin with one byte stand together. Of equal ones the first counts;
// where that is a control token, so does the first of USER, since control tokens are not always meant.
static void sort_specials(Vocabulary *v) {
    int n = 0;
    qsort(v->specials, (size_t)v->n_specials, sizeof *v->specials, by_bytes);
    for (int i = 0; i < v->n_specials; i++) {
        const Piece *p = v->specials[i], *last = n ? v->specials[n - 1] : NULL;
        if (last && !compare(last, p) && (last->kind == USER || p->kind == CONTROL)) continue;
        v->specials[n++] = p;
    }
    v->n_specials = n;
    for (int byte = 0, i = 0; byte <= 256; byte++) {
        while (i < n && (uint8_t)*v->specials[i]->text < byte) i++;
        v->first[byte] = i;
    }
}

// The tables behind the pieces. Of several pieces with one text the first counts; control tokens have none.
const char *vocabulary_index(Vocabulary *v) {
    v->unknown = -1;
    for (v->n_slots = 64; v->n_slots < 2 * v->size;) v->n_slots *= 2;
    v->slots = malloc((size_t)v->n_slots * sizeof *v->slots);
    v->specials = malloc(((size_t)v->size + 1) * sizeof *v->specials);
    v->bytes = malloc(256);
    if (!v->slots || !v->specials || !v->bytes) return "no memory for the vocabulary";
    memset(v->slots, -1, (size_t)v->n_slots * sizeof *v->slots);
    memset(v->byte_ids, -1, sizeof v->byte_ids);
    for (int id = 0; id < v->size; id++) {
        const char *error = index_piece(v, id);
        if (error) return error;
    }
    sort_specials(v);
    return NULL;
}

void vocabulary_free(Vocabulary *v) {
    free(v->pieces);
    free(v->slots);
    free(v->specials);
    free(v->merges);
    free(v->bytes);
    free(v->texts);
    *v = (Vocabulary){ 0 };
}

// ---------------------------------------------------------------------------- merges

// As find_slot.
static Merge *find_merge(const Vocabulary *v, int left, int right) {
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15, step = h >> 48 | 1;
    h >>= 16;
    for (int probe = 0; probe < MAX_PROBES; probe++, h += step) {
        Merge *m = &v->merges[h & (uint64_t)(v->n_merges - 1)];
        if (m->rank < 0 || (m->left == left && m->right == right)) return m;
    }
    return NULL;
}

const char *vocabulary_expect_merges(Vocabulary *v, int n) {
    for (v->n_merges = 64; v->n_merges / 2 < n;) v->n_merges *= 2;
    v->merges = malloc((size_t)v->n_merges * sizeof *v->merges);
    if (!v->merges) return "no memory for the merges";
    for (int i = 0; i < v->n_merges; i++) v->merges[i].rank = -1;
    return NULL;
}

// One that makes no piece of the vocabulary is never used.
const char *vocabulary_add_merge(Vocabulary *v, int rank, const char *text, int left_length, int length) {
    int left = lookup(v, text, left_length), right = lookup(v, text + left_length, length - left_length);
    int id = lookup(v, text, length);
    if (left < 0 || right < 0 || id < 0) return NULL;
    Merge *m = find_merge(v, left, right);
    if (!m) return "its merges are made to slow down who looks them up";
    if (m->rank < 0) *m = (Merge){ left, right, id, rank };
    return NULL;
}

// ---------------------------------------------------------------------------- text to tokens

typedef struct { int prev, next, start, length, id; } Symbol;   // id -1: no piece; length 0: no longer there
typedef struct { float score; int left, length, id; } Pair;     // symbol `left` and the next one, as id

typedef struct {
    const Vocabulary *v;
    const char *text;       // of the word or fragment under way
    Symbol *symbols;
    Pair *heap;             // at most one for each symbol, and two more for each merge
    int n_pairs;
    int *splits;            // (size)  of how many symbols the left part of an UNUSED piece was; NULL: none is
    int *ids, n;            // what has come out so far
} Encoder;

static bool before(Pair a, Pair b) { return a.score > b.score || (a.score == b.score && a.left < b.left); }

static void push(Encoder *e, Pair pair) {
    int i = e->n_pairs++;
    for (; i > 0 && before(pair, e->heap[(i - 1) / 2]); i = (i - 1) / 2) e->heap[i] = e->heap[(i - 1) / 2];
    e->heap[i] = pair;
}

static Pair pop(Encoder *e) {
    Pair top = e->heap[0], last = e->heap[--e->n_pairs];
    int i = 0;
    for (int child; (child = 2 * i + 1) < e->n_pairs; i = child) {
        if (child + 1 < e->n_pairs && before(e->heap[child + 1], e->heap[child])) child++;
        if (!before(e->heap[child], last)) break;
        e->heap[i] = e->heap[child];
    }
    e->heap[i] = last;
    return top;
}

static void consider(Encoder *e, int left) {
    if (left < 0 || e->symbols[left].next < 0) return;
    const Symbol *a = &e->symbols[left], *b = &e->symbols[a->next];
    int length = a->length + b->length;
    if (e->v->byte_level) {
        const Merge *m = find_merge(e->v, a->id, b->id);
        if (m && m->rank >= 0) push(e, (Pair){ (float)-m->rank, left, length, m->id });
    } else {
        int id = lookup(e->v, e->text + a->start, length);
        if (id >= 0) push(e, (Pair){ e->v->pieces[id].score, left, length, id });
        if (id >= 0 && e->v->pieces[id].kind == UNUSED) e->splits[id] = a->next - left;
    }
}

static void merge(Encoder *e, int count) {
    e->n_pairs = 0;
    for (int i = 0; i < count; i++) consider(e, i);
    while (e->n_pairs) {
        Pair pair = pop(e);
        Symbol *a = &e->symbols[pair.left];
        if (a->length == 0 || a->next < 0) continue;
        Symbol *b = &e->symbols[a->next];
        if (a->length + b->length != pair.length) continue;     // one of them has grown since
        a->length = pair.length;
        a->id = pair.id;
        a->next = b->next;
        b->length = 0;
        if (a->next >= 0) e->symbols[a->next].prev = pair.left;
        consider(e, a->prev);
        consider(e, pair.left);
    }
}

// An UNUSED piece helps to merge, and comes apart in the end, into the two that were last looked at as its
// parts: wherever in the text that was, since SentencePiece remembers one such pair a piece.
static void come_apart(Encoder *e, int i) {
    Symbol *left = &e->symbols[i];
    for (int n; e->splits && left->id >= 0 && (n = e->splits[left->id]);) {
        Symbol *right = left + n;                       // the place that its first character had
        int length = right->start - left->start;
        *right = (Symbol){ i, left->next, right->start, left->length - length, -1 };
        *left = (Symbol){ left->prev, i + n, left->start, length, -1 };
        left->id = lookup(e->v, e->text + left->start, left->length);
        right->id = lookup(e->v, e->text + right->start, right->length);
    }
}

// What no piece spells becomes its bytes. Where those are missing, SentencePiece writes one unknown for all
// that stands together.
static void spell(Encoder *e) {
    const Vocabulary *v = e->v;
    int begin = e->n;
    for (int i = 0; i >= 0; i = e->symbols[i].next) {
        come_apart(e, i);
        const Symbol *s = &e->symbols[i];
        if (s->id >= 0) { e->ids[e->n++] = s->id; continue; }
        for (int j = 0; j < s->length; j++) {
            int id = v->byte_ids[(uint8_t)e->text[s->start + j]];
            bool known = id >= 0, again = !v->byte_level && e->n > begin && e->ids[e->n - 1] == v->unknown;
            if (!known && again) continue;
            if (!known) id = v->unknown;
            if (id >= 0) e->ids[e->n++] = id;
        }
    }
}

// SentencePiece begins with characters, byte-level BPE with bytes. A stray byte stands for itself.
static void encode_word(void *encoder, Text t) {
    Encoder *e = encoder;
    const Vocabulary *v = e->v;
    int count = 0, whole = v->ignore_merges ? lookup(v, t.data, (int)t.size) : -1;
    if (whole >= 0) { e->ids[e->n++] = whole; return; }
    for (int i = 0, length; i < (int)t.size; i += length, count++) {
        length = v->byte_level ? 1 : utf8_length(t.data + i, t.size - (size_t)i);
        if (length < 1) length = 1;
        int id = v->byte_level ? v->byte_ids[(uint8_t)t.data[i]] : lookup(v, t.data + i, length);
        e->symbols[count] = (Symbol){ count - 1, count + 1, i, length, id };
    }
    if (count == 0) return;
    e->symbols[count - 1].next = -1;
    e->text = t.data;
    merge(e, count);
    spell(e);
}

// The text between special tokens. Before it stands a byte that is no longer needed. has_space: a
// space that it begins with is the one of add_space.
static void encode_fragment(Encoder *e, char *text, size_t size, bool has_space) {
    if (size == 0) return;
    bool spaced = e->v->add_space && !(has_space && *text == ' ');
    if (spaced) *--text = ' ';
    Text fragment = { text, size + spaced };
    if (e->v->byte_level) cut_words(e->v->cutter, fragment, encode_word, e);
    else encode_word(e, fragment);
}

// Of specials[begin] to [end - 1], which share their first `at` bytes: the first whose next is >= byte.
static int first_from(const Vocabulary *v, int begin, int end, int at, int byte) {
    while (begin < end) {
        int middle = begin + (end - begin) / 2;
        if ((uint8_t)v->specials[middle]->text[at] < byte) begin = middle + 1;
        else end = middle;
    }
    return begin;
}

// The longest piece that stands here as it is, or -1. Control tokens only where they are asked for: a user's
// text must not speak for the program. Byte after byte fewer pieces begin as the text does, and they stand
// next to each other, so that the search is short however many pieces there are.
static int special_at(const Vocabulary *v, const char *text, size_t n, bool control) {
    int begin = v->first[(uint8_t)*text], end = v->first[(uint8_t)*text + 1], found = -1;
    for (int at = 1; begin < end; at++) {
        for (bool here = false; begin < end && v->specials[begin]->length == at; begin++) {
            if (here || (v->specials[begin]->kind == CONTROL && !control)) continue;
            found = (int)(v->specials[begin] - v->pieces);
            here = true;
        }
        if ((size_t)at == n) break;
        int byte = (uint8_t)text[at];
        begin = first_from(v, begin, end, at, byte);
        end = first_from(v, begin, end, at, byte + 1);
    }
    return found;
}

// A text as the pieces spell it. With remove_spaces, of spaces in a row one stays, and none where it begins.
static size_t copy_text(char *out, const Vocabulary *v, Text t, bool *after_space) {
    char *from = out;
    for (size_t i = 0, length; i < t.size; i += length) {
        bool space = t.data[i] == ' ', dropped = v->remove_spaces && space && *after_space;
        length = v->byte_level ? 1 : spell_space(out, t.data + i, t.size - i);
        if (v->byte_level) *out = t.data[i];
        if (!dropped) out++;
        *after_space = space;
    }
    return (size_t)(out - from);
}

// A special token ends a fragment, and so do ids; where one span of text ends and another begins does not.
static void encode_spans(Encoder *e, const Span *spans, int n_spans, char *text) {
    const Vocabulary *v = e->v;
    bool spaced = false, after_space = true;
    char *from = text, *end = text;
    for (const Span *s = spans; s < spans + n_spans; s++) {
        if (from == end) spaced = s->spaced;
        char *at = end;
        end += copy_text(end, v, s->text, &after_space);
        bool text_ends = s->n_ids || s == spans + n_spans - 1;
        while (v->remove_spaces && text_ends && end > from && end[-1] == ' ') end--;
        while (at < end) {
            int id = special_at(v, at, (size_t)(end - at), s->control);
            if (id < 0) { at++; continue; }
            encode_fragment(e, from, (size_t)(at - from), spaced);
            e->ids[e->n++] = id;
            from = at += v->pieces[id].length;
            spaced = s->spaced;
        }
        if (s->n_ids == 0) continue;
        encode_fragment(e, from, (size_t)(end - from), spaced);
        memcpy(e->ids + e->n, s->ids, (size_t)s->n_ids * sizeof *s->ids);
        e->n += s->n_ids;
        from = end;
        after_space = true;
    }
    encode_fragment(e, from, (size_t)(end - from), spaced);
}

const char *tokenize(int *ids, int *n, const Vocabulary *v, const Span *spans, int n_spans) {
    *n = 0;
    size_t room = 1;                                    // one byte is for the space before the text
    for (int i = 0; i < n_spans; i++) {
        if (spans[i].text.size > MAX_TEXT - room)
            return "a text of more than 256 MB is too long to tokenize";
        room += spans[i].text.size;
    }
    char *copy = malloc(room);
    Encoder e = { .v = v, .ids = ids };
    e.symbols = malloc(room * sizeof *e.symbols);
    e.heap = malloc(3 * room * sizeof *e.heap);
    if (v->has_unused) e.splits = calloc((size_t)v->size, sizeof *e.splits);
    bool ready = copy && e.symbols && e.heap && (e.splits || !v->has_unused);
    if (ready) encode_spans(&e, spans, n_spans, copy + 1);
    *n = e.n;
    free(copy);
    free(e.symbols);
    free(e.heap);
    free(e.splits);
    return ready ? NULL : "no memory to tokenize the text";
}

// ---------------------------------------------------------------------------- tokens to text

Piece token_text(const Vocabulary *v, int id, int previous) {
    Piece p = v->pieces[id];
    if (p.kind == CONTROL || p.kind == UNUSED) p.length = 0;
    if (v->add_space && previous == v->bos && p.length && p.text[0] == ' ') p.text++, p.length--;
    return p;
}

// By name, where no key of the file says which token ends a turn, or a message. Many a file's EOS ends a text
// and not a turn; after a turn's end a model writes on without one.
static bool named_end(const Vocabulary *v, int id) {
    static const char *const turns[] = {
        "<|eot_id|>", "<|im_end|>", "<end_of_turn>", "<|end|>", "<|end_of_turn|>", "<end_of_utterance>",
        "<EOT>", "<|endoftext|>", "<|end_of_text|>",
    };
    const Piece *p = &v->pieces[id];
    Text name = { p->text, (size_t)p->length };
    if (p->kind != CONTROL && p->kind != USER) return false;
    if (v->eom < 0 && text_is(name, "<|eom_id|>")) return true;
    for (size_t i = 0; i < sizeof turns / sizeof *turns && v->eot < 0; i++)
        if (text_is(name, turns[i])) return true;
    return false;
}

bool ends_text(const Vocabulary *v, int id) {
    return id == v->eos || id == v->bos || id == v->eot || id == v->eom || named_end(v, id);
}
