// words.c - cut a text into words before byte-level BPE: no token reaches from one word into the next.
//
// Every family of models cuts in its own way, published as regular expressions: one after the other is
// searched for in the pieces that those before it have left; what it finds is a piece of its own, and so is
// what lies between. Here each expression is a function that says how long its match at the front of a text
// is. It stands above it: \p{L} a letter, \p{N} a number, \p{M} a mark, \p{P} punctuation, \s white space.
#include "model.h"
#include <string.h>

// ---------------------------------------------------------------------------- characters

typedef struct { uint32_t code; CharClass class; int length; } Char;        // length 0: the end of the text

static Char look(Text t, size_t at) {
    Char c = { 0, CHAR_OTHER, 0 };
    if (at < t.size) c.length = utf8_decode(&c.code, t.data + at, t.size - at);
    if (c.length > 0) c.class = char_class(c.code);
    return c;
}

static bool is_letter(Char c) { return c.class >= CHAR_LU && c.class <= CHAR_LO; }
static bool is_number(Char c) { return c.class == CHAR_NUMBER; }
static bool is_space(Char c) { return c.class == CHAR_SPACE; }
static bool is_newline(Char c) { return c.code == '\r' || c.code == '\n'; }
static bool is_end(Char c) { return c.length == 0; }
static bool is_other(Char c) { return !is_end(c) && !is_letter(c) && !is_number(c) && !is_space(c); }
static bool is_upper(Char c) { return (is_letter(c) && c.class != CHAR_LL) || c.class == CHAR_MARK; }
static bool is_lower(Char c) { return c.class >= CHAR_LL && c.class <= CHAR_MARK && c.class != CHAR_LT; }

// Where the run of such characters that begins at `at` ends.
static size_t run(Text t, size_t at, bool (*of)(Char)) {
    for (Char c; (c = look(t, at)).length && of(c);) at += (size_t)c.length;
    return at;
}

// ---------------------------------------------------------------------------- what most expressions share

// '(s|t|re|ve|m|ll|d)     any_case: (?i), where the long s is an s, too
static size_t contraction(Text t, bool any_case) {
    static const char *const endings[] = { "s", "t", "re", "ve", "m", "ll", "d" };
    if (t.size < 2 || t.data[0] != '\'') return 0;
    if (any_case && t.size > 2 && !memcmp(t.data + 1, "\xc5\xbf", 2)) return 3;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t n = strlen(endings[i]), same = 0;
        if (t.size < 1 + n) continue;
        while (same < n && (t.data[1 + same] | (any_case ? 0x20 : 0)) == endings[i][same]) same++;
        if (same == n) return 1 + n;
    }
    return 0;
}

// \s+(?!\S): white space up to the end of the text, or all but the last of it
static size_t space_before_space(Text t) {
    size_t at = 0, last = 0;
    for (Char c; is_space(c = look(t, at)); at += (size_t)c.length) last = at;
    return at == t.size ? at : last;
}

// \s+(?!\S)|\s+
static size_t space(Text t) {
    size_t some = space_before_space(t);
    return some ? some : run(t, 0, is_space);
}

// \s*[\r\n]+: white space up to its last line end
static size_t space_to_newline(Text t) {
    size_t at = 0, end = 0;
    for (Char c; is_space(c = look(t, at));) {
        at += (size_t)c.length;
        if (is_newline(c)) end = at;
    }
    return end;
}

// [^\r\n\p{L}\p{N}]?, where it takes something
static size_t one_before_letters(Text t) {
    Char c = look(t, 0);
    return is_end(c) || is_newline(c) || is_letter(c) || is_number(c) ? 0 : (size_t)c.length;
}

// ?[^\s\p{L}\p{N}]+[\r\n]*     the first is a space; `after` follows in any number
static bool is_newline_or_slash(Char c) { return is_newline(c) || c.code == '/'; }
static size_t symbols(Text t, bool (*after)(Char)) {
    size_t begin = t.size && t.data[0] == ' ', end = run(t, begin, is_other);
    return end == begin ? 0 : run(t, end, after);
}

// ---------------------------------------------------------------------------- the expressions

// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)
static size_t gpt2_but_space(Text t) {
    size_t some = contraction(t, false);
    if (some) return some;
    size_t begin = t.size && t.data[0] == ' ';
    Char c = look(t, begin);
    if (is_letter(c)) return run(t, begin, is_letter);
    if (is_number(c)) return run(t, begin, is_number);
    if (is_other(c)) return run(t, begin, is_other);
    return space_before_space(t);
}

// the same |\s+
static size_t gpt2(Text t) {
    size_t some = gpt2_but_space(t);
    return some ? some : run(t, 0, is_space);
}

// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+
//   |\s+(?!\S)|\s+
static size_t llama3_with(Text t, int most_digits) {
    size_t some = contraction(t, true);
    if (some) return some;
    size_t begin = one_before_letters(t), end = run(t, begin, is_letter);
    if (end > begin) return end;
    end = 0;
    for (Char c; most_digits > 0 && is_number(c = look(t, end)); most_digits--) end += (size_t)c.length;
    if (end) return end;
    if ((some = symbols(t, is_newline))) return some;
    if ((some = space_to_newline(t))) return some;
    return space(t);
}

static size_t llama3(Text t) { return llama3_with(t, 3); }
static size_t qwen2(Text t) { return llama3_with(t, 1); }           // \p{N} alone

// [^\r\n\p{L}\p{N}]?U*W+ | [^\r\n\p{L}\p{N}]?U+W*
//   U = [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}], W = [\p{Ll}\p{Lm}\p{Lo}\p{M}]
static size_t capitalized(Text t, size_t begin, bool needs_lower) {
    size_t at = begin, after_both = 0;
    for (Char c; is_upper(c = look(t, at));) {
        at += (size_t)c.length;
        if (is_lower(c)) after_both = at;               // what is in both sets can stand for the W
    }
    size_t end = run(t, at, is_lower);
    if (end > at) return end;
    return needs_lower ? after_both : at > begin ? at : 0;
}

// the two | \p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
static size_t tekken(Text t) {
    size_t skip = one_before_letters(t), some;
    for (int needs_lower = 1; needs_lower >= 0; needs_lower--) {
        if (skip && (some = capitalized(t, skip, needs_lower))) return some;
        if ((some = capitalized(t, 0, needs_lower))) return some;
    }
    if (is_number(look(t, 0))) return (size_t)look(t, 0).length;
    if ((some = symbols(t, is_newline_or_slash))) return some;
    if ((some = space_to_newline(t))) return some;
    return space(t);
}

// \p{N}
static size_t number(Text t) {
    Char c = look(t, 0);
    return is_number(c) ? (size_t)c.length : 0;
}

// \p{N}+
static size_t numbers(Text t) { return run(t, 0, is_number); }

// [0-9][0-9][0-9]
static size_t three_digits(Text t) {
    for (size_t i = 0; i < 3; i++)
        if (i >= t.size || t.data[i] < '0' || t.data[i] > '9') return 0;
    return 3;
}

// [\p{P}\$\+<=>\^~\|]+
static bool is_sign(Char c) {
    return c.class == CHAR_PUNCT || (c.code && c.code < 128 && strchr("$+<=>^~|", (int)c.code));
}
static size_t signs(Text t) { return run(t, 0, is_sign); }

// ---------------------------------------------------------------------------- deepseek-llm

// [\r\n]
static size_t newline(Text t) { return is_newline(look(t, 0)); }

typedef struct { uint32_t first, last; } Range;

static bool in_ranges(uint32_t code, const Range *ranges, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (code >= ranges[i].first && code <= ranges[i].last) return true;
    return false;
}

static bool is_cased(Char c) {                          // letters with upper and lower case, as listed there
    static const Range ranges[] = {
        { 0x41, 0x5a }, { 0x61, 0x7a }, { 0xb5, 0xb5 }, { 0xc0, 0xd6 }, { 0xd8, 0xf6 }, { 0xf8, 0x1ba },
        { 0x1bc, 0x1bf }, { 0x1c4, 0x293 }, { 0x295, 0x2af }, { 0x370, 0x373 }, { 0x376, 0x376 },
        { 0x377, 0x377 }, { 0x37b, 0x37d }, { 0x37f, 0x37f }, { 0x386, 0x386 }, { 0x388, 0x38a },
        { 0x38c, 0x38c }, { 0x38e, 0x3a1 }, { 0x3a3, 0x3f5 }, { 0x3f7, 0x481 }, { 0x48a, 0x52f },
        { 0x531, 0x556 }, { 0x10a0, 0x10c5 }, { 0x13a0, 0x13f5 }, { 0x13f8, 0x13fd }, { 0x1c90, 0x1cba },
        { 0x1cbd, 0x1cbf }, { 0x1d00, 0x1d2b }, { 0x1d6b, 0x1d77 }, { 0x1d79, 0x1d9a }, { 0x1e00, 0x1f15 },
        { 0x1f18, 0x1f1d }, { 0x1f20, 0x1f45 }, { 0x1f48, 0x1f4d }, { 0x1f50, 0x1f57 }, { 0x1f59, 0x1f59 },
        { 0x1f5b, 0x1f5b }, { 0x1f5d, 0x1f5d }, { 0x1f5f, 0x1f7d }, { 0x1f80, 0x1fb4 }, { 0x1fb6, 0x1fbc },
        { 0x1fbe, 0x1fbe }, { 0x1fc2, 0x1fc4 }, { 0x1fc6, 0x1fcc }, { 0x1fd0, 0x1fd3 }, { 0x1fd6, 0x1fdb },
        { 0x1fe0, 0x1fec }, { 0x1ff2, 0x1ff4 }, { 0x1ff6, 0x1ffc }, { 0x2102, 0x2102 }, { 0x2107, 0x2107 },
        { 0x210a, 0x2113 }, { 0x2115, 0x2115 }, { 0x2119, 0x211d }, { 0x2124, 0x2124 }, { 0x2126, 0x2126 },
        { 0x2128, 0x2128 }, { 0x212a, 0x212d }, { 0x212f, 0x2134 }, { 0x2139, 0x2139 }, { 0x213c, 0x213f },
        { 0x2145, 0x2149 }, { 0x214e, 0x214e }, { 0x2183, 0x2183 }, { 0x2184, 0x2184 }, { 0x2c00, 0x2c7b },
        { 0x2c7e, 0x2ce4 }, { 0x2ceb, 0x2cee }, { 0x2cf2, 0x2cf2 }, { 0x2cf3, 0x2cf3 }, { 0xa640, 0xa66d },
        { 0xa680, 0xa69b }, { 0xa722, 0xa76f }, { 0xa771, 0xa787 }, { 0xa78b, 0xa78e }, { 0xab70, 0xabbf },
        { 0xfb00, 0xfb06 }, { 0xfb13, 0xfb17 }, { 0xff21, 0xff3a }, { 0xff41, 0xff5a },
        { 0x10400, 0x1044f }, { 0x104b0, 0x104d3 }, { 0x104d8, 0x104fb }, { 0x10c80, 0x10cb2 },
        { 0x10cc0, 0x10cf2 }, { 0x118a0, 0x118df }, { 0x1e900, 0x1e943 },
    };
    return in_ranges(c.code, ranges, sizeof ranges / sizeof *ranges);
}

static bool is_wide_sign(Char c) {                      // [!-/:-~！-／：-～‘-‟　-。]
    static const Range ranges[] = { { '!', '/' }, { ':', '~' }, { 0xff01, 0xff0f }, { 0xff1a, 0xff5e },
                                    { 0x2018, 0x201f }, { 0x3000, 0x3002 } };
    return in_ranges(c.code, ranges, sizeof ranges / sizeof *ranges);
}

static bool is_east_asian(Char c) {                     // [一-龥ࠀ-一가-퟿]
    static const Range ranges[] = { { 0x800, 0x9fa5 }, { 0xac00, 0xd7ff } };
    return in_ranges(c.code, ranges, sizeof ranges / sizeof *ranges);
}

// \s?X+
static size_t space_and(Text t, bool (*of)(Char)) {
    Char c = look(t, 0);
    size_t begin = is_space(c) ? (size_t)c.length : 0, end = run(t, begin, of);
    if (end == begin && begin) return run(t, 0, of);    // the space may be one of them
    return end > begin ? end : 0;
}

static size_t cased_letters(Text t) { return space_and(t, is_cased); }
static size_t wide_signs(Text t) { return space_and(t, is_wide_sign); }
static size_t east_asian(Text t) { return run(t, 0, is_east_asian); }

// \s+$
static size_t start_of_last_spaces(Text t) {
    size_t start = t.size, at = 0;
    for (Char c; (c = look(t, at)).length; at += (size_t)c.length) {
        if (!is_space(c)) start = t.size;
        else if (start == t.size) start = at;
    }
    return start;
}
static size_t space_at_end(Text t) { return start_of_last_spaces(t) == 0 ? t.size : 0; }

// ---------------------------------------------------------------------------- who cuts how

typedef size_t Match(Text t);
enum { MAX_STEPS = 6 };

static const struct { const char *name; Match *steps[MAX_STEPS]; } cutters[] = {
    { "gpt-2",        { gpt2 } },
    { "default",      { signs, gpt2_but_space, numbers, three_digits } },
    { "llama-bpe",    { llama3 } },
    { "qwen2",        { qwen2 } },
    { "stablelm2",    { qwen2 } },
    { "smollm",       { number, gpt2 } },
    { "tekken",       { tekken } },
    { "deepseek-llm", { newline, cased_letters, wide_signs, space_at_end, east_asian, numbers } },
};

const char *cutter_names(void) {
    static char names[256];
    names[0] = 0;
    for (size_t i = 0; i < sizeof cutters / sizeof *cutters; i++)
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", i ? ", " : "", cutters[i].name);
    return names;
}

int find_cutter(Text name) {
    for (size_t i = 0; i < sizeof cutters / sizeof *cutters; i++)
        if (text_is(name, cutters[i].name)) return (int)i;
    return -1;
}

static void cut_step(int cutter, int step, Text t, EachWord *each, void *context) {
    if (t.size == 0) return;
    Match *match = step < MAX_STEPS ? cutters[cutter].steps[step] : NULL;
    if (!match) {
        each(context, t);
        return;
    }
    if (match == space_at_end) {                        // found from the end, or a long run costs its square
        size_t end = start_of_last_spaces(t);
        cut_step(cutter, step + 1, (Text){ t.data, end }, each, context);
        cut_step(cutter, step + 1, (Text){ t.data + end, t.size - end }, each, context);
        return;
    }
    for (size_t at = 0, from = 0; at < t.size;) {       // from: the end of the last match
        Text rest = { t.data + at, t.size - at };
        size_t length = match(rest), next = length ? length : (size_t)look(t, at).length;
        if (length) {
            cut_step(cutter, step + 1, (Text){ t.data + from, at - from }, each, context);
            cut_step(cutter, step + 1, (Text){ rest.data, length }, each, context);
            from = at + length;
        } else if (at + next == t.size) {
            cut_step(cutter, step + 1, (Text){ t.data + from, t.size - from }, each, context);
        }
        at += next;
    }
}

void cut_words(int cutter, Text text, EachWord *each, void *context) {
    cut_step(cutter, 0, text, each, context);
}
