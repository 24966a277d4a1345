// template.c - what a chat template says around the messages of a conversation.
//
// A template is a program (Jinja) from a stranger. It is never run on what a user says: it is read, five
// times, for short conversations of which only the speakers are known. A hole stands for each message, and
// what comes out are the words between the holes. The reader knows texts, names, conditions, and one loop,
// over those few messages. Whatever else a template holds has the value NOT_KNOWN; where such a value would
// decide what is said, the reader stops and names the place.
// Jinja's rules: its Template Designer Documentation; trim_blocks and lstrip_blocks, and which variables
// there are: transformers' apply_chat_template.
#include "model.h"
#include <ctype.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_TEMPLATE = 1 << 16, MAX_MADE = 1 << 18, MAX_NAMES = 256, MAX_STEPS = 1 << 14, MAX_DEPTH = 64,
       MAX_NUMBER = 1 << 20 };

typedef enum {
    NOT_KNOWN, UNDEFINED, NOTHING, TRUTH, NUMBER, WORDS, LIST, SPLIT_REPLY, MESSAGES, ONE_MESSAGE, LOOP,
    NAMESPACE, FUNCTION, EXCEPTION
} ValueKind;
typedef struct {
    ValueKind kind;
    int n;                  // a number, a truth, which message, or the first of MESSAGES
    Text text;              // WORDS, holes among them; a LIST's, a comma (\4) around each; a NAMESPACE's name
} Value;
typedef enum { NO, YES, MAYBE } Answer;
typedef struct { Text name; Value value; } Variable;
typedef struct { char kind; Text said, inside; } Tag;   // kind: %, {, # or 0 (the end); said: what is before

typedef struct {
    Text source;
    size_t at;                                          // where in it the next sentence begins
    const char *now, *end;                              // what is left of an expression
    bool malformed, raised, thinks;
    Text unread;                                        // the sentence that is not understood
    bool has_system, thoughtful;                        // the conversation; thoughtful: replies have </think>
    int n_messages, n_steps, depth, loop_first, loop_at;
    Text setting;                                       // the variable that is about to be set
    Variable names[MAX_NAMES];
    int n_names;
    size_t n_said, n_made;
    char said[MAX_SAID], made[MAX_MADE];                // what has been said; texts of values
} Reading;

static bool stop_at(Reading *r, Text sentence) {
    if (!r->unread.data) r->unread = sentence;
    return false;
}

// ---------------------------------------------------------------------------- values

static const Value not_known = { .kind = NOT_KNOWN }, undefined = { .kind = UNDEFINED };

static Value truth(bool b) { return (Value){ .kind = TRUTH, .n = b }; }
static Value number(int n) { return (Value){ .kind = NUMBER, .n = n }; }
static Value words(Text t) { return (Value){ .kind = WORDS, .text = t }; }
static Value opposite(Answer a, bool indeed) { return a == MAYBE ? not_known : truth((a == YES) != indeed); }

static bool is_hole(char c) { return c > 0 && c < ' ' && !strchr("\t\n\r", c); }

static bool has_hole(Text t) {
    for (size_t i = 0; i < t.size; i++)
        if (is_hole(t.data[i])) return true;
    return false;
}

static bool same(Text a, Text b) { return a.size == b.size && (!a.size || !memcmp(a.data, b.data, a.size)); }

static bool holds(Text t, Text part) {
    for (size_t i = 0; i + part.size <= t.size; i++)
        if (!memcmp(t.data + i, part.data, part.size)) return true;
    return false;
}

// A hole is never empty: where there is no system prompt, there is no hole for it.
static Answer is_true(const Reading *r, Value v) {
    switch (v.kind) {
    case NOT_KNOWN:                 return MAYBE;
    case UNDEFINED: case NOTHING:   return NO;
    case TRUTH: case NUMBER:        return v.n != 0;
    case WORDS: case LIST:          return v.text.size > 0;
    case MESSAGES:                  return v.n < r->n_messages;
    default:                        return YES;
    }
}

static Text make(Reading *r, Text a, Text b) {
    char *to = r->made + r->n_made;
    if (a.size + b.size > MAX_MADE - r->n_made) return r->malformed = true, (Text){ "", 0 };
    if (a.size) memcpy(to, a.data, a.size);
    if (b.size) memcpy(to + a.size, b.data, b.size);
    r->n_made += a.size + b.size;
    return (Text){ to, a.size + b.size };
}

static Value in_words(Reading *r, Value v) {
    char digits[16];
    if (v.kind == UNDEFINED) return words((Text){ "", 0 });
    if (v.kind != NUMBER) return v;
    int n = snprintf(digits, sizeof digits, "%d", v.n);
    return words(make(r, (Text){ digits, (size_t)n }, (Text){ "", 0 }));
}

// Blanks at an end of a text; of a hole there, it is noted that its text loses them.
static Value trim(Reading *r, Text t, int sides) {
    t = make(r, t, (Text){ "", 0 });
    while (sides & TRIM_LEFT && t.size && isspace((unsigned char)*t.data)) t.data++, t.size--;
    while (sides & TRIM_RIGHT && t.size && isspace((unsigned char)t.data[t.size - 1])) t.size--;
    char *first = (char *)(uintptr_t)t.data, *last = first + t.size - 1;
    if (t.size && sides & TRIM_LEFT && *first >= *HOLE_MESSAGE && is_hole(*first)) *first |= TRIM_LEFT;
    if (t.size && sides & TRIM_RIGHT && *last >= *HOLE_MESSAGE && is_hole(*last)) *last |= TRIM_RIGHT;
    return words(t);
}

static Answer equal(Value a, Value b) {
    if (a.kind == NOT_KNOWN || b.kind == NOT_KNOWN) return MAYBE;
    if (a.kind == WORDS && b.kind == WORDS) {
        if (!has_hole(a.text) && !has_hole(b.text)) return same(a.text, b.text);
        return a.text.size && b.text.size ? MAYBE : NO;
    }
    bool numbers = (a.kind == NUMBER || a.kind == TRUTH) && (b.kind == NUMBER || b.kind == TRUTH);
    if (numbers || (a.kind == b.kind && a.kind == ONE_MESSAGE)) return a.n == b.n;
    if (a.kind != b.kind) return NO;
    return a.kind == NOTHING || a.kind == UNDEFINED ? YES : MAYBE;
}

// A mark in a message is no mark but letters, as nobody writes.
static Answer contained(const Reading *r, Value part, Value v) {
    if (part.kind != WORDS || has_hole(part.text)) return MAYBE;
    if (v.kind == ONE_MESSAGE) return text_is(part.text, "role") || text_is(part.text, "content");
    if (v.kind == LIST) {
        for (size_t i = 0; i + part.text.size + 2 <= v.text.size; i++)
            if (v.text.data[i] == 4 && v.text.data[i + 1 + part.text.size] == 4 &&
                !memcmp(v.text.data + i + 1, part.text.data, part.text.size)) return YES;
        return NO;
    }
    if (v.kind != WORDS) return MAYBE;
    if (text_is(v.text, HOLE_REPLY) && text_is(part.text, "</think>")) return r->thoughtful;
    bool mark = part.text.size && strchr("<[", *part.text.data);
    return holds(v.text, part.text) ? YES : has_hole(v.text) && !mark ? MAYBE : NO;
}

// ---------------------------------------------------------------------------- names

static Value *find_name(Reading *r, Text name) {
    for (int i = r->n_names - 1; i >= 0; i--)
        if (same(r->names[i].name, name)) return &r->names[i].value;
    return NULL;
}

// A new one hides one of the same name until the loop's next message, as in Jinja; a namespace's stays.
static void set_name(Reading *r, Text name, Value value) {
    Value *old = memchr(name.data, '.', name.size) ? find_name(r, name) : NULL;
    if (old) *old = value;
    else if (r->n_names < MAX_NAMES) r->names[r->n_names++] = (Variable){ name, value };
    else stop_at(r, name);
}

static Value value_of(Reading *r, Text name) {
    static const struct { const char *name; Value value; } known[] = {
        { "true", { TRUTH, 1, { 0 } } }, { "True", { TRUTH, 1, { 0 } } }, { "false", { TRUTH, 0, { 0 } } },
        { "False", { TRUTH, 0, { 0 } } }, { "none", { NOTHING, 0, { 0 } } },
        { "None", { NOTHING, 0, { 0 } } }, { "tools", { NOTHING, 0, { 0 } } },
        { "documents", { NOTHING, 0, { 0 } } },
        { "messages", { MESSAGES, 0, { 0 } } }, { "add_generation_prompt", { TRUTH, 1, { 0 } } },
        { "bos_token", { WORDS, 0, { HOLE_BOS, 1 } } }, { "eos_token", { WORDS, 0, { HOLE_EOS, 1 } } },
        { "unk_token", { NOT_KNOWN, 0, { 0 } } }, { "pad_token", { NOT_KNOWN, 0, { 0 } } },
        { "raise_exception", { FUNCTION, 0, { 0 } } }, { "strftime_now", { FUNCTION, 0, { 0 } } },
    };
    const Value *v = find_name(r, name);
    if (v) return *v;
    if (text_is(name, "loop")) return (Value){ .kind = LOOP };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (text_is(name, known[i].name)) return known[i].value;
    return undefined;
}

static Value attribute(Reading *r, Value v, Text name) {
    if (v.kind == ONE_MESSAGE) {
        bool system = r->has_system && v.n == 0, user = (v.n - r->has_system) % 2 == 0;
        const char *role = system ? "system" : user ? "user" : "assistant";
        const char *hole = system ? HOLE_SYSTEM : user ? HOLE_MESSAGE : HOLE_REPLY;
        if (text_is(name, "role")) return words((Text){ role, strlen(role) });
        return text_is(name, "content") ? words((Text){ hole, 1 }) : undefined;
    }
    if (v.kind == LOOP) {
        int i = r->loop_at - r->loop_first, n = r->n_messages - r->loop_first;
        return text_is(name, "index0") ? number(i) : text_is(name, "index") ? number(i + 1) :
               text_is(name, "first") ? truth(i == 0) : text_is(name, "last") ? truth(i == n - 1) :
               text_is(name, "length") ? number(n) : not_known;
    }
    if (v.kind != NAMESPACE) return not_known;
    const Value *found = find_name(r, make(r, make(r, v.text, (Text){ ".", 1 }), name));
    return found ? *found : undefined;
}

// ---------------------------------------------------------------------------- expressions

static Value expression(Reading *r);
static Value postfix(Reading *r);

static bool in_name(char c) { return isalnum((unsigned char)c) || c == '_'; }

static void skip_blanks(Reading *r) { while (r->now < r->end && isspace((unsigned char)*r->now)) r->now++; }

// A sign, or a whole word.
static bool accept(Reading *r, const char *word) {
    size_t n = strlen(word);
    skip_blanks(r);
    if ((size_t)(r->end - r->now) < n || memcmp(r->now, word, n)) return false;
    if (in_name(*word) && r->now + n < r->end && in_name(r->now[n])) return false;
    r->now += n;
    return true;
}

static void expect(Reading *r, const char *word) { r->malformed |= !accept(r, word); }

static Text accept_name(Reading *r) {
    skip_blanks(r);
    const char *from = r->now;
    while (r->now < r->end && in_name(*r->now)) r->now++;
    return (Text){ from, (size_t)(r->now - from) };
}

static Value quoted(Reading *r) {
    char quote = *r->now++, *to = r->made + r->n_made;
    size_t n = 0;
    if ((size_t)(r->end - r->now) > MAX_MADE - r->n_made) return r->malformed = true, not_known;
    for (; r->now < r->end && *r->now != quote; r->now++) {
        char c = *r->now;
        if (c == '\\' && r->now + 1 < r->end) {
            static const char from[] = "nrt\\'\"", into[] = "\n\r\t\\'\"";
            const char *at = strchr(from, *++r->now);
            if (!at || !*at) return r->malformed = true, not_known;
            c = into[at - from];
        }
        to[n++] = c;
    }
    r->malformed |= r->now++ == r->end;
    r->n_made += n;
    return words((Text){ to, n });
}

// What stands between parentheses, or in a list; of more than two, and of those with names, none is kept.
static int arguments(Reading *r, Value got[2], const char *closing) {
    int n = 0;
    while (!r->malformed && !accept(r, closing)) {
        const char *before = r->now;
        Text name = accept_name(r);
        bool named = name.size && accept(r, "=") && !accept(r, "=");
        if (!named) r->now = before;
        Value v = expression(r);
        if (named && r->setting.size)                   // of a namespace
            set_name(r, make(r, make(r, r->setting, (Text){ ".", 1 }), name), v);
        else if (n < 2) got[n] = v;
        n++;
        if (!accept(r, ",")) { expect(r, closing); break; }
    }
    return n;
}

static Value list(Reading *r) {
    static const Text comma = { "\4", 1 };
    Value v = { .kind = LIST };
    while (!r->malformed && !accept(r, "]")) {
        Value item = expression(r);
        if (item.kind != WORDS || has_hole(item.text)) v.kind = NOT_KNOWN;
        else v.text = make(r, v.text.size ? v.text : comma, make(r, item.text, comma));
        if (!accept(r, ",")) { expect(r, "]"); break; }
    }
    return v;
}

static Value today(Reading *r, Value form) {
    char format[64], text[128];
    time_t now = time(NULL);
    const struct tm *date = localtime(&now);
    if (form.kind != WORDS || form.text.size >= sizeof format || !date) return not_known;
    snprintf(format, sizeof format, "%.*s", (int)form.text.size, form.text.data);
    size_t n = strftime(text, sizeof text, format, date);
    return n ? words(make(r, (Text){ text, n }, (Text){ "", 0 })) : not_known;
}

static Value called(Reading *r, Text name) {
    Value got[2] = { undefined, undefined };
    Text outer = r->setting;
    bool space = text_is(name, "namespace");
    if (!space) r->setting = (Text){ 0 };
    int n = arguments(r, got, ")");
    r->setting = outer;
    if (space) return (Value){ .kind = NAMESPACE, .text = r->setting };
    if (text_is(name, "strftime_now") && n == 1) return today(r, got[0]);
    return text_is(name, "raise_exception") ? (Value){ .kind = EXCEPTION } : not_known;
}

// A reply is kept as the ids that the model wrote, blanks included.
static Value method(Reading *r, Value v, Text name) {
    Value got[2] = { undefined, undefined };
    int n = arguments(r, got, ")");
    int sides = text_is(name, "strip") ? TRIM_LEFT | TRIM_RIGHT : text_is(name, "lstrip") ? TRIM_LEFT :
                text_is(name, "rstrip") ? TRIM_RIGHT : 0;
    if (v.kind == ONE_MESSAGE && text_is(name, "get") && n >= 1 && got[0].kind == WORDS) {
        Value found = attribute(r, v, got[0].text);
        return found.kind != UNDEFINED ? found : n > 1 ? got[1] : (Value){ .kind = NOTHING };
    }
    if (v.kind != WORDS) return not_known;
    if (sides && text_is(v.text, HOLE_REPLY)) return v;
    if (sides && n == 0) return trim(r, v.text, sides);
    if (text_is(name, "split") && text_is(v.text, HOLE_REPLY) && n == 1 && got[0].kind == WORDS &&
        text_is(got[0].text, "</think>")) return (Value){ .kind = SPLIT_REPLY };
    bool begins = text_is(name, "startswith");
    if ((!begins && !text_is(name, "endswith")) || n != 1 || got[0].kind != WORDS || has_hole(v.text) ||
        has_hole(got[0].text)) return not_known;
    Text part = got[0].text;
    size_t from = begins || part.size > v.text.size ? 0 : v.text.size - part.size;
    return truth(part.size <= v.text.size && !memcmp(v.text.data + from, part.data, part.size));
}

static Value item(Reading *r, Value v) {
    bool open = accept(r, ":");
    Value i = open ? not_known : expression(r);
    if (open || accept(r, ":")) {                       // a slice: messages[1:]
        bool whole = accept(r, "]");
        while (!whole && r->now < r->end && !accept(r, "]")) r->now++;
        if (!whole || open || v.kind != MESSAGES || i.kind != NUMBER || i.n < 0) return not_known;
        return (Value){ .kind = MESSAGES, .n = v.n + i.n < r->n_messages ? v.n + i.n : r->n_messages };
    }
    expect(r, "]");
    if (i.kind == WORDS && !has_hole(i.text)) return attribute(r, v, i.text);
    if (i.kind != NUMBER) return not_known;
    if (v.kind == SPLIT_REPLY && i.n == -1) return r->thinks = true, words((Text){ HOLE_REPLY, 1 });
    int which = i.n < 0 ? r->n_messages + i.n : v.n + i.n;
    if (v.kind != MESSAGES || which < v.n) return not_known;
    return which < r->n_messages ? (Value){ .kind = ONE_MESSAGE, .n = which } : undefined;
}

static Value filtered(Reading *r, Value v) {
    Text name = accept_name(r);
    Value got[2] = { undefined, undefined };
    int n = accept(r, "(") ? arguments(r, got, ")") : 0;
    if (text_is(name, "trim") && n == 0 && v.kind == WORDS)
        return text_is(v.text, HOLE_REPLY) ? v : trim(r, v.text, TRIM_LEFT | TRIM_RIGHT);
    if (text_is(name, "default") && n == 1 && v.kind != NOT_KNOWN) return v.kind == UNDEFINED ? got[0] : v;
    if (text_is(name, "length") && v.kind == MESSAGES) return number(r->n_messages - v.n);
    if ((text_is(name, "string") || text_is(name, "safe")) && v.kind == WORDS) return v;
    return not_known;
}

static Value tested(Reading *r, Value v) {
    Value got[2];
    bool not = accept(r, "not");
    Text name = accept_name(r);
    bool text = v.kind == WORDS, many = v.kind == MESSAGES || v.kind == LIST;
    Answer a = text_is(name, "defined")   ? v.kind != UNDEFINED :
               text_is(name, "undefined") ? v.kind == UNDEFINED :
               text_is(name, "none")      ? v.kind == NOTHING :
               text_is(name, "string")    ? text :
               text_is(name, "mapping")   ? v.kind == ONE_MESSAGE :
               text_is(name, "iterable") || text_is(name, "sequence") ? text || many :
               text_is(name, "true")      ? v.kind == TRUTH && v.n :
               text_is(name, "false")     ? v.kind == TRUTH && !v.n : MAYBE;
    if (accept(r, "(")) arguments(r, got, ")"), a = MAYBE;
    return opposite(v.kind == NOT_KNOWN ? MAYBE : a, not);
}

static Value primary(Reading *r) {
    Value v = not_known, got[2];
    skip_blanks(r);
    if (r->now == r->end || r->depth > MAX_DEPTH) return r->malformed = true, v;
    if (*r->now == '\'' || *r->now == '"') {
        for (v = words((Text){ "", 0 }); !r->malformed; skip_blanks(r)) {
            if (r->now == r->end || (*r->now != '\'' && *r->now != '"')) break;
            v.text = make(r, v.text, quoted(r).text);
        }
    } else if (isdigit((unsigned char)*r->now)) {
        for (v = number(0); r->now < r->end && isdigit((unsigned char)*r->now); r->now++)
            v.n = v.n < MAX_NUMBER ? 10 * v.n + *r->now - '0' : v.n;
    } else if (accept(r, "-")) {
        v = postfix(r);
        return v.kind == NUMBER ? number(-v.n) : not_known;
    } else if (accept(r, "(")) {
        v = expression(r);
        if (!accept(r, ")")) { accept(r, ","), arguments(r, got, ")"), v = not_known; }
    } else if (accept(r, "[")) {
        v = list(r);
    } else if (accept(r, "{")) {                        // a dictionary
        while (!r->malformed && !accept(r, "}")) {
            expression(r), expect(r, ":"), expression(r);
            if (!accept(r, ",")) { expect(r, "}"); break; }
        }
    } else {
        Text name = accept_name(r);
        if (!name.size) return r->malformed = true, v;
        v = value_of(r, name);
        if (accept(r, "(")) v = called(r, name);
    }
    return v;
}

// With what is behind it: attributes, then filters and tests.
static Value postfix(Reading *r) {
    r->depth++;
    Value v = primary(r);
    while (!r->malformed) {
        if (accept(r, "[")) v = item(r, v);
        else if (accept(r, "(")) v = called(r, (Text){ 0 });
        else if (accept(r, ".")) {
            Text name = accept_name(r);
            v = accept(r, "(") ? method(r, v, name) : attribute(r, v, name);
        } else break;
    }
    while (!r->malformed) {
        if (accept(r, "|")) v = filtered(r, v);
        else if (accept(r, "is")) v = tested(r, v);
        else break;
    }
    r->depth--;
    return v;
}

static Value product(Reading *r) {
    Value a = postfix(r);
    while (!r->malformed) {
        bool modulo = accept(r, "%");
        if (!modulo && !accept(r, "*") && !accept(r, "//") && !accept(r, "/")) break;
        Value b = postfix(r);
        bool known = modulo && a.kind == NUMBER && b.kind == NUMBER && a.n >= 0 && b.n > 0;
        a = known ? number(a.n % b.n) : not_known;
    }
    return a;
}

static Value sum(Reading *r) {
    Value a = product(r);
    while (!r->malformed) {
        bool tilde = accept(r, "~"), plus = !tilde && accept(r, "+");
        if (!tilde && !plus && !accept(r, "-")) break;
        Value b = product(r);
        bool numbers = a.kind == NUMBER && b.kind == NUMBER && abs(a.n) < MAX_NUMBER && abs(b.n) < MAX_NUMBER;
        if (numbers && !tilde) { a.n += plus ? b.n : -b.n; continue; }
        if (tilde) a = in_words(r, a), b = in_words(r, b);
        bool texts = a.kind == WORDS && b.kind == WORDS;
        a = texts && (plus || tilde) ? words(make(r, a.text, b.text)) : not_known;
    }
    return a;
}

static Value comparison(Reading *r) {
    int negated = 0;
    while (accept(r, "not")) negated++;
    Value a = sum(r), b;
    static const char *const signs[] = { "==", "!=", "<=", ">=", "<", ">", "in", "not" };
    for (int i = 0; i < 8 && !r->malformed; i++) {
        if (!accept(r, signs[i])) continue;
        if (i == 7) expect(r, "in");
        b = sum(r);
        bool numbers = a.kind == NUMBER && b.kind == NUMBER;
        Answer x = i < 2 ? equal(a, b) : i > 5 ? contained(r, a, b) : !numbers ? MAYBE :
                   i == 2 ? a.n <= b.n : i == 3 ? a.n >= b.n : i == 4 ? a.n < b.n : a.n > b.n;
        a = opposite(x, i == 1 || i == 7);
        i = -1;                                         // another may follow
    }
    return negated ? opposite(is_true(r, a), negated % 2) : a;
}

// As in Python, the value is the one that decides. "and" binds more tightly than "or".
static Value either(Reading *r, bool and) {
    Value a = and ? comparison(r) : either(r, true);
    while (!r->malformed && accept(r, and ? "and" : "or")) {
        Value b = and ? comparison(r) : either(r, true);
        Answer x = is_true(r, a), decides = and ? NO : YES;
        if (x == MAYBE && is_true(r, b) == decides) a = truth(!and);
        else if (x != MAYBE && x != decides) a = b;
    }
    return a;
}

static Value expression(Reading *r) {
    r->depth++;
    Value a = either(r, false);
    if (!r->malformed && accept(r, "if")) {
        Answer x = is_true(r, either(r, false));
        Value b = accept(r, "else") ? expression(r) : undefined;
        a = x == MAYBE ? not_known : x == YES ? a : b;
    }
    r->depth--;
    return a;
}

// The value of a sentence's expression; whole: nothing follows it.
static Value evaluate(Reading *r, Text text, bool whole) {
    r->now = text.data, r->end = text.data + text.size;
    Value v = expression(r);
    skip_blanks(r);
    if (r->malformed || (whole && r->now < r->end)) stop_at(r, text);
    return v;
}

// ---------------------------------------------------------------------------- sentences

static bool at_blank(const Reading *r, size_t i) { return isspace((unsigned char)r->source.data[i]); }

// Up to the next tag, and behind it; without the blanks that its dashes, trim_blocks and lstrip_blocks take.
static Tag next_tag(Reading *r) {
    const char *s = r->source.data;
    size_t size = r->source.size, from = r->at, i = from, end = size;
    while (i < size && !(s[i] == '{' && i + 1 < size && strchr("%{#", s[i + 1]) && s[i + 1])) i++;
    Tag t = { 0, { s + from, i - from }, { s + size, 0 } };
    if ((r->at = i) == size) return t;
    t.kind = s[i + 1];
    char closing = t.kind == '{' ? '}' : t.kind, quote = 0, sign = i + 2 < size ? s[i + 2] : 0;
    size_t begin = i + 2 + (sign == '-' || sign == '+');
    int braces = 0;
    for (size_t k = begin; k + 1 < size && end == size; k++) {
        if (quote) quote = s[k] == '\\' ? (k++, quote) : s[k] == quote ? 0 : quote;
        else if (s[k] == closing && s[k + 1] == '}' && braces == 0) end = k;
        else if (t.kind != '#' && (s[k] == '\'' || s[k] == '"')) quote = s[k];
        else if (t.kind != '#') braces += (s[k] == '{') - (s[k] == '}');
    }
    if (end == size) return stop_at(r, (Text){ s + i, size - i }), t;
    r->at = end + 2;
    char last = end > begin ? s[end - 1] : 0;
    t.inside = (Text){ s + begin, end - begin - (last == '-' || last == '+') };
    if (sign == '-') while (t.said.size && at_blank(r, from + t.said.size - 1)) t.said.size--;
    if (sign != '-' && sign != '+' && t.kind != '{') {
        size_t line = i;
        while (line > from && (s[line - 1] == ' ' || s[line - 1] == '\t')) line--;
        if (line == 0 || s[line - 1] == '\n') t.said.size = line - from;
    }
    if (last == '-') while (r->at < size && at_blank(r, r->at)) r->at++;
    else if (last != '+' && t.kind != '{' && r->at < size && s[r->at] == '\n') r->at++;
    return t;
}

static bool begins(Tag t, const char *word) {
    size_t n = strlen(word), i = 0;
    while (i < t.inside.size && isspace((unsigned char)t.inside.data[i])) i++;
    return t.kind == '%' && t.inside.size - i >= n && !memcmp(t.inside.data + i, word, n) &&
           (t.inside.size - i == n || !in_name(t.inside.data[i + n]) || !strcmp(word, "end"));
}

// What follows the word that a sentence begins with.
static Text after(Tag t, const char *word) {
    const char *end = t.inside.data + t.inside.size, *from = t.inside.data;
    while (isspace((unsigned char)*from)) from++;
    from += strlen(word);
    return (Text){ from, (size_t)(end - from) };
}

static bool append(Reading *r, Text t) {
    if (t.size > MAX_SAID - r->n_said) return stop_at(r, t);
    if (t.size) memcpy(r->said + r->n_said, t.data, t.size);
    r->n_said += t.size;
    return true;
}

static bool read_set(Reading *r, Tag t) {
    r->now = after(t, "set").data, r->end = t.inside.data + t.inside.size;
    Text name = accept_name(r);
    while (accept(r, ".")) accept_name(r), name.size = (size_t)(r->now - name.data);
    if (!accept(r, "=")) return stop_at(r, t.inside);
    r->setting = name;
    Value v = evaluate(r, (Text){ r->now, (size_t)(r->end - r->now) }, true);
    r->setting = (Text){ 0 };
    if (!r->unread.data) set_name(r, name, v);
    return !r->unread.data;
}

// Pass over a block, to the sentence that goes on after it or ends it. in_doubt: perhaps it is not passed
// over; then nothing may be said in it, and what it sets is not known. One that raises an exception is not
// meant for conversations like these.
static bool pass(Reading *r, Tag *t, Text in_doubt) {
    bool speaks = false, blanks = false, raises = false;
    for (int inside = 0;;) {
        *t = next_tag(r);
        if (!t->kind || r->unread.data || ++r->n_steps > MAX_STEPS) return stop_at(r, t->said);
        for (size_t i = 0; i < t->said.size; i++)
            if (isspace((unsigned char)t->said.data[i])) blanks = true;
            else speaks = true;
        if (t->kind == '{' && holds(t->inside, (Text){ "raise_exception", 15 })) raises = true;
        else if (t->kind == '{') speaks = true;
        if (inside == 0 && (begins(*t, "elif") || begins(*t, "else") || begins(*t, "end"))) break;
        bool block = begins(*t, "set") && !memchr(t->inside.data, '=', t->inside.size);
        if (begins(*t, "end")) inside--;
        else if (block || begins(*t, "if") || begins(*t, "for") || begins(*t, "macro") ||
                 begins(*t, "generation") || begins(*t, "filter") || begins(*t, "call")) inside++;
        if (!in_doubt.data || !begins(*t, "set")) continue;
        r->now = after(*t, "set").data, r->end = t->inside.data + t->inside.size;
        Text name = accept_name(r);
        while (accept(r, ".") || accept(r, ",")) accept_name(r), name.size = (size_t)(r->now - name.data);
        set_name(r, name, not_known);
    }
    return !in_doubt.data || !(speaks || (blanks && !raises)) ? true : stop_at(r, in_doubt);
}

static bool follow(Reading *r, Tag *t);

static bool read_if(Reading *r, Tag *t) {
    static const Text sure = { NULL, 0 };
    bool taken = false, going_on = true;
    Text doubt = sure, condition = after(*t, "if");
    for (bool last = false; going_on && !begins(*t, "endif");) {
        Answer x = taken ? NO : last ? YES : is_true(r, evaluate(r, condition, true));
        if (r->unread.data) return false;
        if (x == MAYBE) doubt = t->inside;
        going_on = x == YES && !doubt.data ? follow(r, t) : pass(r, t, x == NO ? sure : doubt);
        taken |= x == YES;
        if (going_on && (last || (!begins(*t, "elif") && !begins(*t, "else"))) && !begins(*t, "endif"))
            return stop_at(r, t->inside);
        last = begins(*t, "else");
        if (begins(*t, "elif")) condition = after(*t, "elif");
    }
    return going_on;
}

// The one loop: over the messages. One over nothing is passed over, and so is any that says nothing.
static bool read_for(Reading *r, Tag *t) {
    Text head = t->inside;
    r->now = after(*t, "for").data, r->end = head.data + head.size;
    Text name = accept_name(r);
    bool plain = accept(r, "in");
    Value list = plain ? either(r, false) : not_known;
    skip_blanks(r);
    if (r->malformed) return stop_at(r, head);
    bool known = plain && r->now == r->end;
    if (known && is_true(r, list) == NO) head.data = NULL;      // there is no doubt
    if (!known || list.kind != MESSAGES || !head.data)
        return pass(r, t, head) && (begins(*t, "endfor") || stop_at(r, t->inside));
    size_t body = r->at;
    int names = r->n_names, first = r->loop_first, at = r->loop_at;
    for (int i = list.n; i < r->n_messages; i++, r->n_names = names) {
        r->at = body, r->loop_first = list.n, r->loop_at = i;
        set_name(r, name, (Value){ .kind = ONE_MESSAGE, .n = i });
        if (!follow(r, t)) return false;
        if (!begins(*t, "endfor")) return stop_at(r, t->inside);
    }
    r->loop_first = first, r->loop_at = at;
    return true;
}

// Read on, up to a sentence that goes on or ends the block that this is, or to the template's end.
static bool follow(Reading *r, Tag *t) {
    if (++r->depth > MAX_DEPTH) return stop_at(r, t->inside);
    for (bool going_on = true; going_on;) {
        *t = next_tag(r);
        if (++r->n_steps > MAX_STEPS) return stop_at(r, t->inside);
        if (r->unread.data || !append(r, t->said)) return false;
        if (t->kind == 0 || begins(*t, "elif") || begins(*t, "else")) break;
        if (t->kind == '#' || begins(*t, "generation") || begins(*t, "endgeneration")) continue;
        if (begins(*t, "end")) break;
        if (t->kind == '{') {
            Value v = in_words(r, evaluate(r, t->inside, true));
            r->raised |= v.kind == EXCEPTION;
            going_on = v.kind == WORDS && !r->unread.data ? append(r, v.text) : stop_at(r, t->inside);
        }
        else if (begins(*t, "set")) going_on = read_set(r, *t);
        else if (begins(*t, "if")) going_on = read_if(r, t);
        else if (begins(*t, "for")) going_on = read_for(r, t);
        else if (begins(*t, "macro")) going_on = pass(r, t, (Text){ NULL, 0 });
        else going_on = stop_at(r, t->inside);
        if (!going_on) return false;
    }
    r->depth--;
    return true;
}

// ---------------------------------------------------------------------------- a conversation

const char *read_template_for(Saying *s, Text source, bool has_system, int n_turns, bool thoughtful) {
    if (source.size == 0 || source.size > MAX_TEMPLATE)
        return complain("a chat template of %zu bytes; 1 to %d are read", source.size, MAX_TEMPLATE);
    for (size_t i = 0; i < source.size; i++)
        if (is_hole(source.data[i]) || source.data[i] == 0 || source.data[i] == '\r')
            return complain("the chat template holds the control character %d", source.data[i]);
    Reading *r = malloc(sizeof *r);
    if (!r) return "no memory for the chat template";
    memset(r, 0, offsetof(Reading, said));
    Tag t = { 0 };
    if (source.size && source.data[source.size - 1] == '\n') source.size--;     // as Jinja does
    r->source = source, r->has_system = has_system, r->thoughtful = thoughtful;
    r->n_messages = has_system + 2 * n_turns - 1;
    if (follow(r, &t) && t.kind) stop_at(r, t.inside);
    memcpy(s->said, r->said, r->n_said);
    s->said[r->n_said] = 0;
    s->raises = r->raised, s->thinks = r->thinks;
    Text unread = r->unread;
    char place[64];                                     // a stranger's text: one line that can be printed
    size_t n = 0;
    while (unread.size && isspace((unsigned char)*unread.data)) unread.data++, unread.size--;
    for (; n < unread.size && n < sizeof place - 1; n++)
        place[n] = unread.data[n] >= ' ' && unread.data[n] < 127 ? unread.data[n] : ' ';
    place[n] = 0;
    bool whole = !unread.data;
    free(r);                                            // with texts that are made, of which that may be one
    return whole ? NULL : complain("the chat template holds what is not understood, \"%s%s\"", place,
                    n < unread.size ? " ..." : "");
}
