// test_words.c - how texts are cut before byte-level BPE, by hand from the published expressions; byte-level
// merges by hand; tokens that are found whole. (test_words.py holds it all against another implementation.)
#include "test.h"

// ---------------------------------------------------------------------------- cutting

static char cut[512];

static void note(void *context, Text word) {            // "a| b|" for "a b"
    (void)context;
    size_t n = strlen(cut);
    snprintf(cut + n, sizeof cut - n, "%.*s|", (int)word.size, word.data);
}

static const char *words(const char *cutter, const char *text) {
    cut[0] = 0;
    int found = find_cutter((Text){ cutter, strlen(cutter) });
    if (found < 0) return "no such cutter";
    cut_words(found, (Text){ text, strlen(text) }, note, NULL);
    return cut;
}

static void test_cutting(void) {
    static const struct { const char *cutter, *text, *want; } known[] = {
        { "gpt-2", "I'll go,  you'LL 12 é!", "I|'ll| go|,| | you|'|LL| 12| é|!|" },
        { "gpt-2", "a\n\n b  ", "a|\n\n| b|  |" },           // all the blanks, but for the one that b takes
        { "llama-bpe", "I'LL go,\n\n 12345 x", "I|'LL| go|,\n\n| |123|45| x|" },
        { "llama-bpe", "a \n \n  b", "a| \n \n| | b|" },     // white space up to its last line end
        { "llama-bpe", "(abc) 'ſ", "(abc|)| '|ſ|" },
        { "qwen2", "x12", "x|1|2|" },
        { "stablelm2", "x12", "x|1|2|" },
        { "smollm", "ab 12  3", "ab| |1|2|  |3|" },          // digits are cut out first
        { "default", "1234 a+b's", "123|4| a|+|b|'|s|" },
        { "tekken", "helloWorld HTMLTag/\n1", "hello|World| HTMLTag|/\n|1|" },
        { "tekken", "ABc AB", "ABc| AB|" },
        { "deepseek-llm", "ab 12中文。c ", "ab| |12|中文|。|c| |" },
        { "gpt-2", "", "" },
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const char *got = words(known[i].cutter, known[i].text);
        CHECK(!strcmp(got, known[i].want), "%s cuts '%s': wanted '%s', got '%s'", known[i].cutter,
              known[i].text, known[i].want, got);
    }
    CHECK(find_cutter((Text){ "llama", 5 }) < 0 && find_cutter((Text){ "", 0 }) < 0, "strangers are known");
}

// Nothing is lost, whatever the bytes: the words side by side are the text.
static void count_bytes(void *context, Text word) { *(size_t *)context += word.size; }

static void test_nothing_is_lost(void) {
    char text[64];
    for (int round = 0; round < 20000; round++) {
        int n = random_below(64);
        static const char hot[] = "' \n\xe2\x82\xac" "1aZ.";
        for (int i = 0; i < n; i++)
            text[i] = (char)(random_below(4) ? hot[random_below((int)sizeof hot)] : random_below(256));
        for (int cutter = 0; cutter < 8; cutter++) {
            size_t sum = 0;
            cut_words(cutter, (Text){ text, (size_t)n }, count_bytes, &sum);
            CHECK(sum == (size_t)n, "cutter %d makes %zu bytes of %d", cutter, sum, n);
        }
    }
}

// The general category, from the code charts.
static void test_classes(void) {
    static const struct { uint32_t code; CharClass class; } known[] = {
        { 'A', CHAR_LU }, { 'z', CHAR_LL }, { 0x1c5, CHAR_LT }, { 0x2b0, CHAR_LM }, { 0x4e2d, CHAR_LO },
        { 0x301, CHAR_MARK }, { '7', CHAR_NUMBER }, { 0xbd, CHAR_NUMBER }, { '!', CHAR_PUNCT },
        { ' ', CHAR_SPACE }, { 0x3000, CHAR_SPACE }, { 0x85, CHAR_SPACE }, { '+', CHAR_OTHER },
        { 0, CHAR_OTHER }, { 0x10ffff, CHAR_OTHER },
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        CHECK(char_class(known[i].code) == known[i].class, "U+%04X: wanted class %d, got %d",
              (unsigned)known[i].code, (int)known[i].class, (int)char_class(known[i].code));
}

// ---------------------------------------------------------------------------- byte-level merges

enum { A, B, C, AB, BC, ABC, END, USER_1, USER_2 };

// Merges in this order: b c, a b, a bc.
static void make_vocabulary(Vocabulary *v) {
    static const struct { const char *text; PieceKind kind; } pieces[] = {
        { "a", NORMAL },  { "b", NORMAL },   { "c", NORMAL },      { "ab", NORMAL }, { "bc", NORMAL },
        { "abc", NORMAL }, { "<end>", CONTROL }, { "ba", USER },   { "bab", USER },
    };
    *v = (Vocabulary){ .bos = -1, .eos = END, .eot = -1, .eom = -1, .byte_level = true };
    v->cutter = find_cutter((Text){ "gpt-2", 5 });
    v->pieces = calloc(9, sizeof *v->pieces);
    for (v->size = 0; v->size < 9; v->size++)
        v->pieces[v->size] = (Piece){ .text = pieces[v->size].text, .kind = pieces[v->size].kind,
                                      .length = (int)strlen(pieces[v->size].text) };
    const char *error = vocabulary_index(v);
    if (!error) error = vocabulary_expect_merges(v, 3);
    if (!error) error = vocabulary_add_merge(v, 0, "bc", 1, 2);
    if (!error) error = vocabulary_add_merge(v, 1, "ab", 1, 2);
    if (!error) error = vocabulary_add_merge(v, 2, "abc", 1, 3);
    CHECK(!error, "a small vocabulary is refused: %s", error);
}

static void check_ids(const Vocabulary *v, const char *text, bool control, const char *want) {
    int ids[64], n;
    char got[256] = "";
    Span span = { .text = { text, strlen(text) }, .control = control };
    const char *error = tokenize(ids, &n, v, &span, 1);
    for (int i = 0; i < n && !error; i++) {
        size_t used = strlen(got);
        snprintf(got + used, sizeof got - used, "%d ", ids[i]);
    }
    CHECK(!error && !strcmp(got, want), "'%s': wanted %s, got %s", text, want, error ? error : got);
}

static void test_merges(void) {
    Vocabulary v;
    make_vocabulary(&v);
    check_ids(&v, "abc", false, "5 ");                  // b c first, then a bc; a b comes too late
    check_ids(&v, "ab", false, "3 ");
    check_ids(&v, "abcab", false, "5 3 ");
    check_ids(&v, "cb", false, "2 1 ");
    check_ids(&v, "ab<end>c", true, "3 6 2 ");
    check_ids(&v, "aba", false, "0 7 ");                // "ba" is found whole, before any merge
    check_ids(&v, "abab", false, "0 8 ");               // the longest of them
    check_ids(&v, "c<end", true, "2 ");                 // no piece spells the rest, and none stands for it
    v.ignore_merges = true;
    check_ids(&v, "ab", false, "3 ");
    vocabulary_free(&v);
}

int main(void) {
    test_cutting();
    test_nothing_is_lost();
    test_classes();
    test_merges();
    return finish("test_words");
}
