// test_tokenizer.c - merging by hand and against the plain way to do it.
#include "test.h"
#include <time.h>

// ---------------------------------------------------------------------------- merging

// The definition, read aloud: as long as two neighbours spell a piece, join those whose piece has the highest
// score, of equals the leftmost; what is no piece then becomes its bytes.
static int find_piece(const Vocabulary *v, const char *text, int length) {
    for (int id = 0; id < v->size; id++)
        if (v->pieces[id].kind == NORMAL && v->pieces[id].length == length &&
            !memcmp(v->pieces[id].text, text, (size_t)length))
            return id;
    return -1;
}

static int tokenize_plainly(int *ids, const Vocabulary *v, const char *given, int length) {
    char text[256] = " ";
    int start[257], n = 0, n_ids = 0;                   // symbol i: text[start[i]] .. text[start[i + 1] - 1]
    memcpy(text + 1, given, (size_t)length++);
    for (int i = 0; i < length; i++)                    // these texts have no ill-formed UTF-8
        if (((uint8_t)text[i] & 0xc0) != 0x80) start[n++] = i;
    start[n] = length;
    for (int best = 0; best >= 0;) {
        best = -1;
        float score = -INFINITY;
        for (int i = 0; i + 1 < n; i++) {
            int id = find_piece(v, text + start[i], start[i + 2] - start[i]);
            if (id >= 0 && v->pieces[id].score > score) best = i, score = v->pieces[id].score;
        }
        if (best >= 0) memmove(start + best + 1, start + best + 2, (size_t)(n-- - best - 1) * sizeof *start);
    }
    for (int i = 0; i < n; i++) {
        int id = find_piece(v, text + start[i], start[i + 1] - start[i]);
        if (id >= 0) ids[n_ids++] = id;
        else for (int j = start[i]; j < start[i + 1]; j++) ids[n_ids++] = 3 + (uint8_t)text[j];
    }
    return n_ids;
}

static void check_ids(const Vocabulary *v, const char *text, size_t length, const int *want, int n_want) {
    int n = -1, *ids = malloc((length + 1) * sizeof *ids);
    const char *error = tokenize(ids, &n, v, &(Span){ .text = { text, length } }, 1);
    CHECK(!error && n == n_want, "'%s': wanted %d tokens, got %d %s", text, n_want, n, error ? error : "");
    for (int i = 0; i < n && n == n_want; i++)
        CHECK(ids[i] == want[i], "'%s', token %d: wanted %d, got %d", text, i, want[i], ids[i]);
    free(ids);
}

#define IDS(...) (const int[]){ __VA_ARGS__ }, (int)(sizeof(int[]){ __VA_ARGS__ } / sizeof(int))

static void test_by_hand(void) {
    // ids                                3    4    5    6     7     8      9     10    11   12  13
    static const char *const texts[] = { "a", "b", "c", "ab", "bc", "abc", " a", "aa", " ", "", "ab" };
    static const float scores[] = {       -9,  -9,  -9,  -2,   -1,   -3,    -4,   -5,  -9,   9,    7 };
    Vocabulary v;
    small_vocabulary(&v, texts, scores, 11, false);
    CHECK(v.longest == 3, "the longest piece has 3 bytes, not %d", v.longest);
    CHECK(v.unknown == 0, "the unknown piece is 0, not %d", v.unknown);

    check_ids(&v, "", 0, NULL, 0);
    check_ids(&v, "c", 1, IDS(11, 5));                  // ' ' goes before the text
    check_ids(&v, "bc", 2, IDS(11, 7));
    check_ids(&v, "cabc", 4, IDS(11, 5, 8));            // bc (-1) before ab (-2), then a + bc = abc (-3)
    check_ids(&v, "cab", 3, IDS(11, 5, 6));             // the first "ab" counts, not the later, better one
    check_ids(&v, "a", 1, IDS(9));
    check_ids(&v, "aaa", 3, IDS(9, 10));                // ' a' (-4) before aa (-5)
    check_ids(&v, "caaa", 4, IDS(11, 5, 10, 3));        // two equals: the leftmost
    check_ids(&v, "caaaaa", 6, IDS(11, 5, 10, 10, 3));
    check_ids(&v, "ab", 2, IDS(11, 6));                 // ab takes the a from ' a'
    check_ids(&v, "cd", 2, IDS(11, 5, 0));              // d: no piece, no byte piece
    check_ids(&v, "c<s>", 4, IDS(11, 5, 0));            // control tokens spell nothing; one for all unknown
    check_ids(&v, "dcd", 3, IDS(11, 0, 5, 0));
    check_ids(&v, "c\0c", 3, IDS(11, 5, 0, 5));
    v.add_space = false;
    check_ids(&v, "cab", 3, IDS(5, 6));
    vocabulary_free(&v);
    CHECK(!v.pieces && !v.slots && v.size == 0, "a freed vocabulary still holds something");
}

static void test_bytes(void) {
    static const char *const texts[] = { "a", "\xc3\xa9", " " };
    Vocabulary v;
    small_vocabulary(&v, texts, NULL, 3, true);          // byte b is id 3 + b; then 259, 260, 261
    check_ids(&v, "a\xc3\xa9", 3, IDS(261, 259, 260));
    check_ids(&v, "\xc3\xab" "a", 3, IDS(261, 3 + 0xc3, 3 + 0xab, 259));
    check_ids(&v, "\xe2\x82\xac", 3, IDS(261, 3 + 0xe2, 3 + 0x82, 3 + 0xac));
    check_ids(&v, "\xff\xc3", 2, IDS(261, 3 + 0xff, 3 + 0xc3));     // no UTF-8 at all
    check_ids(&v, "\xc3" "a", 2, IDS(261, 3 + 0xc3, 259));
    check_ids(&v, "<0x41>", 6, IDS(261, 3 + '<', 3 + '0', 3 + 'x', 3 + '4', 3 + '1', 3 + '>'));
    for (int byte = 0; byte < 256; byte++) {
        Piece p = token_text(&v, 3 + byte, 259);
        CHECK(v.byte_ids[byte] == 3 + byte && p.length == 1 && (uint8_t)p.text[0] == byte,
              "byte %02x is not spelled", byte);
    }
    vocabulary_free(&v);
}

static void test_token_text(void) {
    static const char *const texts[] = { " a", "a", " ", "  a" };
    Vocabulary v;
    small_vocabulary(&v, texts, NULL, 4, true);          // 259 to 262
    static const struct { int id, previous; const char *want; } cases[] = {
        { 259, 260, " a" }, { 259, 1, "a" },   { 260, 1, "a" },    { 261, 1, "" },
        { 261, 260, " " },  { 262, 1, " a" },  { 3 + ' ', 1, "" }, { 3 + ' ', 260, " " },
        { 1, 260, "" },     { 2, 1, "" },      { 3 + 'x', 1, "x" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Piece p = token_text(&v, cases[i].id, cases[i].previous);
        CHECK(p.length == (int)strlen(cases[i].want) && !memcmp(p.text, cases[i].want, (size_t)p.length),
              "token %d after %d: wanted '%s', got '%.*s'", cases[i].id, cases[i].previous, cases[i].want,
              p.length, p.text);
    }
    v.add_space = false;                                // where no space was put, none goes
    CHECK(token_text(&v, 259, 1).length == 2, "a space is missing that was not put there");
    CHECK(ends_text(&v, 1) && ends_text(&v, 2) && !ends_text(&v, 0) && !ends_text(&v, 259),
          "a text ends at the wrong token");
    v.bos = v.eos = -1;
    CHECK(!ends_text(&v, 1) && !ends_text(&v, 2), "a text ends without an end token");
    vocabulary_free(&v);
}

// ---------------------------------------------------------------------------- spans

static void special_vocabulary(Vocabulary *v) {
    static const struct { const char *text; float score; PieceKind kind; } pieces[] = {
        { "<unk>", 0, UNKNOWN }, { "<s>", 0, CONTROL }, { "</s>", 0, CONTROL },                 // 0 1 2
        { "a", -9, NORMAL }, { "b", -9, NORMAL }, { "ab", -1, NORMAL },                         // 3 4 5
        { " ", -9, NORMAL }, { " a", -2, NORMAL },                                              // 6 7
        { "[X]", 0, CONTROL }, { "[X]]", 0, CONTROL }, { "<u>", 0, USER }, { "<u>>", 0, USER }, // 8 9 10 11
    };
    enum { N = sizeof pieces / sizeof *pieces };
    *v = (Vocabulary){ .bos = 1, .eos = 2, .eot = -1, .eom = -1, .add_space = true, .size = N };
    v->pieces = malloc(sizeof(Piece[N]));
    for (int i = 0; i < N; i++)
        v->pieces[i] =
            (Piece){ pieces[i].text, (int)strlen(pieces[i].text), pieces[i].score, pieces[i].kind };
    const char *error = vocabulary_index(v);
    CHECK(!error, "the vocabulary was refused: %s", error);
}

static void check_spans(const Vocabulary *v, const char *what, const Span *spans, int n_spans,
                        const int *want, int n_want) {
    char wanted[256] = "", got[256] = "";
    int ids[64], n = -1;
    const char *error = tokenize(ids, &n, v, spans, n_spans);
    for (int i = 0; i < n_want; i++) snprintf(wanted + strlen(wanted), 8, " %d", want[i]);
    for (int i = 0; i < n; i++) snprintf(got + strlen(got), 8, " %d", ids[i]);
    CHECK(!error && !strcmp(wanted, got), "%s: wanted%s, got%s", what, wanted, got);
}

#define SPANS(...) (const Span[]){ __VA_ARGS__ }, (int)(sizeof(Span[]){ __VA_ARGS__ } / sizeof(Span))
#define T(s) .text = { s, sizeof s - 1 }

static void test_spans(void) {
    const int ends[] = { 2, 1 };
    Vocabulary v;
    special_vocabulary(&v);
    check_spans(&v, "nothing", NULL, 0, NULL, 0);
    check_spans(&v, "no text", SPANS({ T("") }, { T(""), .control = true }), NULL, 0);
    check_spans(&v, "a word runs on", SPANS({ T("a") }, { T("b"), .control = true }), IDS(6, 5));
    check_spans(&v, "three parts of a word", SPANS({ T("a") }, { T("") }, { T("ba"), .spaced = true }),
                IDS(6, 5, 3));
    check_spans(&v, "control that is not meant", SPANS({ T("[X]") }), IDS(6, 0));
    check_spans(&v, "control that is", SPANS({ T("[X]"), .control = true }), IDS(8));
    check_spans(&v, "meant here, not there",
                SPANS({ T("[X]"), .control = true }, { T("[X]a") }, { T("[X]b"), .control = true }),
                IDS(8, 6, 0, 3, 8, 6, 4));
    check_spans(&v, "the longest", SPANS({ T("[X]][X]"), .control = true }), IDS(9, 8));
    check_spans(&v, "half of it here", SPANS({ T("[X"), .control = true }, { T("]"), .control = true }),
                IDS(6, 0));
    check_spans(&v, "the rest of one that is longer", SPANS({ T("[X]"), .control = true }, { T("]") }),
                IDS(8, 6, 0));
    check_spans(&v, "BOS by name", SPANS({ T("a<s>b</s>"), .control = true }), IDS(7, 1, 6, 4, 2));
    check_spans(&v, "pieces of the user", SPANS({ T("a<u>ab<u>>") }), IDS(7, 10, 6, 5, 11));
    check_spans(&v, "in the program's words", SPANS({ T("<u>[X]"), .control = true }), IDS(10, 8));
    check_spans(&v, "a space of its own", SPANS({ T(" a"), .spaced = true }), IDS(7));
    check_spans(&v, "and another", SPANS({ T(" a") }), IDS(6, 7));
    check_spans(&v, "nothing before it", SPANS({ T("") }, { T(" a"), .spaced = true }), IDS(7));
    check_spans(&v, "who begins decides", SPANS({ T(" "), .spaced = true }, { T("a") }), IDS(7));
    check_spans(&v, "after it comes a space again", SPANS({ T(" a<u>a"), .spaced = true }), IDS(7, 10, 7));
    check_spans(&v, "ids between", SPANS({ T("a"), .ids = ends, .n_ids = 2 }, { T("b") }),
                IDS(7, 2, 1, 6, 4));
    check_spans(&v, "ids first", SPANS({ .ids = ends, .n_ids = 2 }, { .ids = ends, .n_ids = 1 },
                                       { T(" a"), .spaced = true }), IDS(2, 1, 2, 7));
    check_spans(&v, "ids last", SPANS({ T("a"), .control = true }, { T("b"), .ids = ends, .n_ids = 1 }),
                IDS(6, 5, 2));
    v.add_space = false;
    check_spans(&v, "no spaces", SPANS({ T("a<u>b"), .ids = ends, .n_ids = 1 }, { T("a") }),
                IDS(3, 10, 4, 2, 3));
    vocabulary_free(&v);
}

// What SentencePiece's normalizer makes of spaces, worked out by its rules; tests/test_vocabularies.py has
// the library's word.
static void test_spaces(void) {
    static const char *const texts[] = { "a", " ", " a", "  " };            // 259 to 262
    static const float scores[] = { -9, -9, -1, -2 };
    const int end = 2;
    Vocabulary v;
    small_vocabulary(&v, texts, scores, 4, true);
    check_ids(&v, "a\xe2\x96\x81" "a", 5, IDS(261, 261));                  // U+2581 is a space
    check_ids(&v, "\xe2\x96\x81", 3, IDS(262));
    check_ids(&v, "\xe2\x96", 2, IDS(260, 3 + 0xe2, 3 + 0x96));
    v.remove_spaces = true;
    check_ids(&v, "  ", 2, NULL, 0);
    check_ids(&v, "a   a", 5, IDS(261, 261));
    check_ids(&v, "  a  ", 5, IDS(261));
    check_ids(&v, "\xe2\x96\x81 a", 5, IDS(262, 261));                     // which is not looked for in front
    check_spans(&v, "each text", SPANS({ T(" a "), .ids = &end, .n_ids = 1 }, { T(" a ") }),
                IDS(261, 2, 261));
    check_spans(&v, "in two spans", SPANS({ T("a ") }, { T(" a ") }, { T(" ") }), IDS(261, 261));
    v.add_space = false;
    check_ids(&v, "  a  a", 6, IDS(259, 261));
    vocabulary_free(&v);
}

// An UNUSED piece is merged as any other, and then comes apart into what it was made of.
static void test_unused(void) {
    static const char *const texts[] = { "a", "b", "c", "ab", "bc", "abc", "abcc" };        // 3 to 9
    static const float scores[] = { -9, -9, -9, -1, -2, -3, -4 };
    Vocabulary v;
    small_vocabulary(&v, texts, scores, 7, false);
    v.add_space = false;
    v.pieces[3 + 5].kind = UNUSED;                      // abc: its table is made again
    free(v.slots), free(v.specials), free(v.bytes);
    v.n_specials = 0;
    vocabulary_index(&v);
    check_ids(&v, "abc", 3, IDS(6, 5));
    check_ids(&v, "abcc", 4, IDS(9));                   // which only abc leads to
    check_ids(&v, "abcabc", 6, IDS(6, 5, 6, 5));
    v.pieces[3 + 3].kind = UNUSED;                      // ab as well
    check_ids(&v, "abc", 3, IDS(3, 4, 5));
    check_ids(&v, "abab", 4, IDS(3, 4, 3, 4));
    v.pieces[3].kind = UNUSED;                          // a letter cannot come apart
    check_ids(&v, "ab", 2, IDS(3, 4));
    vocabulary_free(&v);
}

// ---------------------------------------------------------------------------- pieces that are found whole

// Read aloud: of those that stand here, the longest, of equals the first.
static int find_special(const Vocabulary *v, const char *text, int length, bool control) {
    int best = -1;
    for (int id = 0; id < v->size; id++) {
        const Piece *p = &v->pieces[id];
        bool found = p->kind == USER || (p->kind == CONTROL && control);
        if (!found || !p->length || p->length > length || memcmp(p->text, text, (size_t)p->length)) continue;
        if (best < 0 || p->length > v->pieces[best].length) best = id;
    }
    return best;
}

static void test_specials(void) {
    for (int round = 0; round < 2000; round++) {
        enum { MAX_N = 40 };
        char texts[MAX_N][8] = { "<unk>", "<s>", "</s>" }, text[64];
        int ids[66], n, expected[66], n_expected = 0, size = 4 + random_below(MAX_N - 4);
        bool control = random_below(2);
        Vocabulary v = { .bos = 1, .eos = 2, .eot = -1, .eom = -1, .byte_level = false, .size = size };
        v.pieces = malloc((size_t)size * sizeof *v.pieces);
        for (int id = 0; id < size; id++) {
            for (int k = id < 3 ? 0 : 1 + random_below(6); k > 0; k--)
                strcat(texts[id], random_below(2) ? "a" : "\xff");
            PieceKind kind = id == 0 ? UNKNOWN : id < 3 || random_below(2) ? CONTROL : USER;
            v.pieces[id] = (Piece){ texts[id], (int)strlen(texts[id]), 0, kind };
        }
        const char *error = vocabulary_index(&v);
        int length = random_below(64);
        for (int i = 0; i < length; i++) text[i] = random_below(20) ? (random_below(2) ? 'a' : '\xff') : 'b';
        for (int at = 0; at < length;) {
            int id = find_special(&v, text + at, length - at, control);
            bool again = id < 0 && n_expected && expected[n_expected - 1] == 0;     // an unknown
            if (!again) expected[n_expected++] = id < 0 ? 0 : id;
            at += id < 0 ? 1 : v.pieces[id].length;
        }
        Span span = { .text = { text, (size_t)length }, .control = control };
        if (!error) error = tokenize(ids, &n, &v, &span, 1);
        CHECK(!error && n == n_expected && !memcmp(ids, expected, (size_t)n * sizeof *ids),
              "round %d: %d tokens, %d were expected", round, n, n_expected);
        vocabulary_free(&v);
    }
}

// ---------------------------------------------------------------------------- random texts

// Pieces of up to 5 letters from a small alphabet, some twice, many of equal score.
static void random_vocabulary(Vocabulary *v, char (*texts)[16], const char **list, float *scores, int n) {
    static const char *const letters[] = { "a", "b", " ", "\xc3\xa9" };
    for (int i = 0; i < n; i++) {
        texts[i][0] = 0;
        for (int k = 1 + random_below(5); k > 0; k--) strcat(texts[i], letters[random_below(4)]);
        list[i] = texts[i], scores[i] = (float)-random_below(12);
    }
    small_vocabulary(v, list, scores, n, true);
}

static void test_against_plain_merging(void) {
    for (int round = 0; round < 300; round++) {
        char texts[60][16], text[256] = "";
        const char *list[60];
        float scores[60];
        int want[257], n = 10 + random_below(50);
        Vocabulary v;
        random_vocabulary(&v, texts, list, scores, n);
        do strcat(text, random_below(9) ? list[random_below(n)] : "z");     // no piece has a z
        while (strlen(text) < 200 && random_below(40));
        check_ids(&v, text, strlen(text), want, tokenize_plainly(want, &v, text, (int)strlen(text)));
        vocabulary_free(&v);
    }
}

// Text to tokens and back: any bytes at all.
static void test_round_trip(void) {
    char texts[60][16];
    const char *list[60];
    float scores[60];
    Vocabulary v;
    random_vocabulary(&v, texts, list, scores, 60);
    for (int round = 0; round < 3000; round++) {
        char text[64], back[80];
        int ids[65], n, length = random_below(64), used = 0, previous = v.bos;
        for (int i = 0; i < length; i++)
            text[i] = random_below(4) ? " ab\xc3\xa9\xe2\x80"[random_below(7)] : (char)random_below(256);
        const char *error = tokenize(ids, &n, &v, &(Span){ .text = { text, (size_t)length } }, 1);
        CHECK(!error && n <= length + 1, "%d tokens of %d bytes", n, length);
        for (int i = 0; i < n; previous = ids[i++]) {
            Piece p = token_text(&v, ids[i], previous);
            memcpy(back + used, p.text, (size_t)p.length);
            used += p.length;
        }
        CHECK(used == length && !memcmp(back, text, (size_t)length), "round %d: '%.*s' came back as '%.*s'",
              round, length, text, used, back);
    }
    vocabulary_free(&v);
}

// ---------------------------------------------------------------------------- long texts

enum { N = SANITIZED ? 1 << 17 : 1 << 20 };

// A megabyte must not take minutes, whatever it says. `repeat` is written over and over.
static void check_time(const Vocabulary *v, const char *name, const char *repeat, int want) {
    static char text[N];
    static int ids[N + 1];
    int n = 0;
    for (size_t i = 0, length = strlen(repeat); i < N; i++) text[i] = repeat[i % length];
    clock_t start = clock();
    const char *error = tokenize(ids, &n, v, &(Span){ .text = { text, N } }, 1);
    double took = (double)(clock() - start) / CLOCKS_PER_SEC;
    CHECK(!error && n == want, "%s: wanted %d tokens, got %d", name, want, n);
    CHECK(took < 2, "%s: %d bytes took %.1f s", name, N, took);
}

static void test_long_texts(void) {
    enum { LONGEST = 64 };
    static char letters[LONGEST][LONGEST + 1];
    const char *doubling[7], *growing[LONGEST];
    float scores[LONGEST];
    for (int i = 0; i < LONGEST; i++) {
        memset(letters[i], 'a', (size_t)i + 1);
        growing[i] = letters[i];
        scores[i] = (float)i;
    }
    for (int i = 0; i < 7; i++) doubling[i] = letters[(1 << i) - 1];        // a, aa, aaaa ... 64 of them
    Vocabulary doubles;
    small_vocabulary(&doubles, doubling, NULL, 7, true);         // the shorter are merged first
    check_time(&doubles, "a's, doubling", "a", 1 + N / 64);         // and the ' ' in front
    check_time(&doubles, "bytes, doubling", "\xe2\x82\xac", 1 + N);
    vocabulary_free(&doubles);

    small_vocabulary(&doubles, doubling, scores, 7, true);                  // the longer first
    check_time(&doubles, "a's, the longer first", "a", 1 + N / 64);
    vocabulary_free(&doubles);

    Vocabulary grows;
    small_vocabulary(&grows, growing, scores, LONGEST, true);    // the leftmost grows letter by letter
    check_time(&grows, "a's, growing", "a", 1 + N / 64);
    check_time(&grows, "a's in words", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa b", 1 + N / 32 * 3);
    vocabulary_free(&grows);
}

// 100,000 pieces that are found whole must not take longer than a few. `format` makes their texts from their
// ids times `step`.
static void check_time_of_specials(const char *what, PieceKind kind, const char *format, int step,
                                   const char *repeat) {
    enum { ROOM = 24, n = 100000 };
    static char text[100000];
    char (*texts)[ROOM] = malloc((size_t)n * sizeof *texts);
    int n_ids = -1, *ids = malloc((2 * sizeof text + 1) * sizeof *ids);
    Vocabulary v = { .bos = -1, .eos = -1, .eot = -1, .eom = -1, .size = n };
    v.pieces = malloc((size_t)n * sizeof *v.pieces);
    for (int id = 0; id < n; id++) {
        int length = snprintf(texts[id], ROOM, format, id * step);
        v.pieces[id] = (Piece){ texts[id], length, 0, id ? kind : UNKNOWN };
    }
    for (size_t i = 0; i < sizeof text; i++) text[i] = repeat[i % strlen(repeat)];
    const char *error = vocabulary_index(&v);
    clock_t start = clock();
    Span span = { .text = { text, sizeof text }, .control = true };
    if (!error) error = tokenize(ids, &n_ids, &v, &span, 1);
    double took = (double)(clock() - start) / CLOCKS_PER_SEC;
    CHECK(!error && n_ids > 0, "%s: %s", what, error ? error : "no token");
    CHECK(took < (SANITIZED ? 5 : 0.5), "%s: %zu bytes took %.2f s", what, sizeof text, took);
    vocabulary_free(&v), free(texts), free(ids);
}

static void test_many_specials(void) {
    static const PieceKind kinds[] = { USER, CONTROL };
    for (int i = 0; i < 2; i++) {
        check_time_of_specials("words", kinds[i], "word%d", 1, "the word word1 word99999 ");
        check_time_of_specials("one beginning", kinds[i], "<|extra_token_%05d|>", 1, "<|extra_token_");
        check_time_of_specials("one beginning, cut short", kinds[i], "<|extra_token_%05d|>", 1, "<");
        check_time_of_specials("found all the time", kinds[i], "%d", 1, "31415926535");
        check_time_of_specials("all of one text", kinds[i], "aaaaaaaa%d", 0, "aaaaaaaa1");
    }
}

int main(void) {
    test_by_hand();
    test_bytes();
    test_token_text();
    test_spans();
    test_spaces();
    test_unused();
    test_specials();
    test_against_plain_merging();
    test_round_trip();
    test_long_texts();
    test_many_specials();
    return finish("test_tokenizer");
}
