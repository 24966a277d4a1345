// chat.c - a conversation as its model has learned to read it: turns with marks around them.
//
// Every family of models has marks of its own, and many a file's template says more than its family's: words
// for the system where the user has none, a date, a thought that is opened. template.c reads what it says;
// where that is not understood, the family is recognised by its marks, and its own words are used.
#include "model.h"
#include <stdlib.h>
#include <string.h>

#define BAR "\xef\xbd\x9c"                              // U+FF5C, a wide vertical line
#define BOS HOLE_BOS
#define EOS HOLE_EOS
#define SYSTEM HOLE_SYSTEM
#define MESSAGE HOLE_MESSAGE
#define TRIMMED_SYSTEM "\33"                            // TRIM_LEFT and TRIM_RIGHT
#define TRIMMED_MESSAGE "\23"
#define MESSAGE_RTRIMMED "\22"
#define SWALLOWED_SYSTEM "\34"
#define SWALLOWED_MESSAGE "\24"

#define LLAMA3_USER "<|start_header_id|>user<|end_header_id|>\n\n" TRIMMED_MESSAGE "<|eot_id|>" \
                    "<|start_header_id|>assistant<|end_header_id|>\n\n"
#define CHATML_USER "<|im_start|>user\n" MESSAGE "<|im_end|>\n<|im_start|>assistant\n"
#define GEMMA_USER TRIMMED_MESSAGE "<end_of_turn>\n<start_of_turn>model\n"
#define PHI3_USER "<|user|>" SWALLOWED_MESSAGE "<|end|><|assistant|>"
#define ZEPHYR_USER "<|user|>\n" MESSAGE EOS "\n<|assistant|>\n"
#define DEEPSEEK_USER "<" BAR "User" BAR ">" MESSAGE "<" BAR "Assistant" BAR ">"
#define DEEPSEEK_LLM_USER "User: " MESSAGE "\n\nAssistant:"

// As in the templates that the models' authors publish. Gemma's has no place for a system prompt: it stands
// before the first message. Phi-3's marks swallow the blanks that follow them, so none are written.
// A template is of the first family whose marks are all in it: Mistral's differ from one another in blanks.
static const ChatTemplate templates[] = {
    { "llama3", .alone = BOS LLAMA3_USER, .next = "<|eot_id|>" LLAMA3_USER,
      .first = BOS "<|start_header_id|>system<|end_header_id|>\n\n" TRIMMED_SYSTEM "<|eot_id|>" LLAMA3_USER,
      .marks = { "<|start_header_id|>", "<|eot_id|>", "" } },
    { "chatml", .alone = CHATML_USER, .next = "<|im_end|>\n" CHATML_USER,
      .first = "<|im_start|>system\n" SYSTEM "<|im_end|>\n" CHATML_USER,
      .marks = { "<|im_start|>", "<|im_end|>", "" } },
    { "gemma", .alone = BOS "<start_of_turn>user\n" GEMMA_USER,
      .first = BOS "<start_of_turn>user\n" SYSTEM "\n\n" GEMMA_USER,
      .next = "<end_of_turn>\n<start_of_turn>user\n" GEMMA_USER,
      .marks = { "<start_of_turn>", "<end_of_turn>", "" } },
    { "phi3", .alone = PHI3_USER, .next = "<|end|>" PHI3_USER, .swallows = true,
      .first = "<|system|>" SWALLOWED_SYSTEM "<|end|>" PHI3_USER,
      .marks = { "<|user|>", "<|assistant|>", "<|end|>" } },
    { "zephyr", .alone = ZEPHYR_USER, .next = EOS "\n" ZEPHYR_USER,
      .first = "<|system|>\n" SYSTEM EOS "\n" ZEPHYR_USER,
      .marks = { "<|user|>", "<|assistant|>", "eos_token" } },
    { "deepseek", .alone = BOS DEEPSEEK_USER, .first = BOS SYSTEM DEEPSEEK_USER, .next = EOS DEEPSEEK_USER,
      .thinks = true, .marks = { "<" BAR "User" BAR ">", "<" BAR "Assistant" BAR ">", "" } },
    { "deepseek-llm", .alone = BOS DEEPSEEK_LLM_USER, .first = BOS SYSTEM "\n\n" DEEPSEEK_LLM_USER,
      .next = EOS DEEPSEEK_LLM_USER, .marks = { "'User: '", "'Assistant: '", "" } },
    { "llama2", .alone = BOS "[INST] " TRIMMED_MESSAGE " [/INST]",
      .first = BOS "[INST] <<SYS>>\n" SYSTEM "\n<</SYS>>\n\n" MESSAGE_RTRIMMED " [/INST]",
      .next = " " EOS BOS "[INST] " TRIMMED_MESSAGE " [/INST]",
      .marks = { "[INST]", "<<SYS>>", "" } },
    { "mistral-v1", .alone = BOS " [INST] " MESSAGE " [/INST]",
      .first = BOS " [INST] " SYSTEM "\n\n" MESSAGE " [/INST]", .next = EOS " [INST] " MESSAGE " [/INST]",
      .marks = { " [INST]", "system_message", "" } },
    { "mistral-tekken", .alone = BOS "[INST]" MESSAGE "[/INST]", .next = EOS "[INST]" MESSAGE "[/INST]",
      .first = BOS "[INST]" SYSTEM "\n\n" MESSAGE "[/INST]",
      .last = EOS "[INST]" SYSTEM "\n\n" MESSAGE "[/INST]",
      .marks = { "\"[INST]\"", "[AVAILABLE_TOOLS]", "" } },
    { "mistral-v3", .alone = BOS "[INST] " MESSAGE "[/INST]", .next = EOS "[INST] " MESSAGE "[/INST]",
      .first = BOS "[INST] " SYSTEM "\n\n" MESSAGE "[/INST]",
      .last = EOS "[INST] " SYSTEM "\n\n" MESSAGE "[/INST]",
      .marks = { "[INST]", "[AVAILABLE_TOOLS]", "" } },
    { "mistral-v1", .marks = { "[INST]", "[/INST]", "" } },        // other marks of the first of this name
};
enum { N_TEMPLATES = sizeof templates / sizeof *templates };

// ---------------------------------------------------------------------------- whose is it?

static bool contains(Text t, const char *mark) {
    size_t n = strlen(mark);
    for (size_t i = 0; i + n <= t.size; i++)
        if (!memcmp(t.data + i, mark, n)) return true;
    return false;
}

enum { MAX_SEARCHED = 1 << 16 };                // bytes that are looked at; real ones have thousands

// What stands only in the templates of others, which have marks of ours besides: Mistral v7, Phi-4.
static const char *const strange[] = { "[SYSTEM_PROMPT]", "<|im_sep|>" };

const ChatTemplate *recognise_template(Text t) {
    if (t.size > MAX_SEARCHED) t.size = MAX_SEARCHED;
    for (size_t i = 0; i < sizeof strange / sizeof *strange; i++)
        if (contains(t, strange[i])) return NULL;
    for (const ChatTemplate *known = templates; known < templates + N_TEMPLATES; known++) {
        const char *const *marks = known->marks;
        if (contains(t, marks[0]) && contains(t, marks[1]) && contains(t, marks[2]))
            return find_template(known->name);
    }
    return NULL;
}

const ChatTemplate *find_template(const char *name) {
    for (int i = 0; i < N_TEMPLATES; i++)
        if (!strcmp(templates[i].name, name)) return &templates[i];
    return NULL;
}

const char *template_names(void) {
    static char list[256];
    size_t n = 0;
    for (int i = 0; i < N_TEMPLATES - 1; i++)           // the last is there for its marks
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", templates[i].name);
    return list;
}

// ---------------------------------------------------------------------------- what a file's says

static bool is_hole(char c, const char *of) { return (c & ~7) == *of; }

static int count_holes(const char *form, const char *of) {
    int n = 0;
    for (; *form; form++) n += is_hole(*form, of);
    return n;
}

typedef struct { Saying saying; const char *parts[3]; } Said;

// What a template says for so many turns, parted where the replies are; each part has one message.
static const char *hear(Said *s, Text source, bool has_system, int n_turns, bool thoughtful) {
    static const char odd[] = "the chat template does not say every message once, one after the other";
    const char *error = read_template_for(&s->saying, source, has_system, n_turns, thoughtful);
    if (error) return error;
    char *at = s->saying.said;
    for (int i = 0; i < n_turns; i++) {
        if (!at) return odd;
        s->parts[i] = at;
        if ((at = strchr(at, *HOLE_REPLY))) *at++ = 0;
        if (count_holes(s->parts[i], MESSAGE) != 1) return odd;
    }
    return at ? odd : NULL;
}

// What stands before the reply that is to be written and not before those that were. NULL: they differ in
// more than that. Blanks that those begin with are their own.
static const char *opening(const char *earlier, const char *last) {
    size_t n = strlen(earlier);
    if (strncmp(last, earlier, n))
        while (n && strchr(" \n", earlier[n - 1])) n--;
    return strncmp(last, earlier, n) ? NULL : last + n;
}

static bool opens_alike(const char *earlier, const char *last, const char *opens) {
    const char *got = opening(earlier, last);
    return got && opens && !strcmp(got, opens);
}

// The forms of a conversation, from what a template says for five: of one and of three turns, without and
// with a system prompt; and of three whose replies are without thoughts.
static const char *read_forms(ChatTemplate *t, Text source, Said s[5]) {
    static const char differs[] = "the chat template says other words around every message";
    const char *error;
    if ((error = hear(&s[0], source, false, 1, true)) || (error = hear(&s[1], source, false, 3, true)) ||
        (error = hear(&s[2], source, false, 3, false))) return error;
    const char *alone = s[0].parts[0], *const *plain = s[1].parts, *next = plain[2];
    const char *opens = opening(plain[0], alone), *first = NULL, *last = NULL;
    if (!opens_alike(plain[1], next, opens)) return differs;
    for (int i = 0; i < 3; i++)
        if (strcmp(plain[i], s[2].parts[i])) return differs;
    error = hear(&s[3], source, true, 1, true);
    if (!error) error = hear(&s[4], source, true, 3, true);
    t->no_system = s[3].saying.raises || (!error && !count_holes(s[3].parts[0], SYSTEM));
    if (!t->no_system) {
        const char *const *with = s[4].parts;
        if (error) return error;
        first = s[3].parts[0];
        bool moves = count_holes(with[2], SYSTEM);
        if (moves) last = with[2];
        if (count_holes(first, SYSTEM) != 1 || count_holes(with[1], SYSTEM) ||
            count_holes(with[0], SYSTEM) + count_holes(with[2], SYSTEM) != 1 ||
            !opens_alike(with[0], moves ? alone : first, opens) || !opens_alike(with[1], next, opens) ||
            !opens_alike(plain[1], moves ? next : with[2], opens)) return differs;
    }
    const char *from[] = { alone, first, next, last, opens };
    const char **to[] = { &t->alone, &t->first, &t->next, &t->last, &t->opens };
    size_t room = 0, ending = strlen(opens);
    for (int i = 0; i < 5; i++) room += from[i] ? strlen(from[i]) + 1 : 0;
    char *at = t->texts = malloc(room);
    if (!at) return "no memory for the chat template";
    for (int i = 0; i < 5; i++) {
        if (!from[i] && i == 1) continue;               // the family's
        *to[i] = from[i] ? at : NULL;
        if (!from[i]) continue;
        size_t n = strlen(from[i]) - (i < 4 ? ending : 0);
        memcpy(at, from[i], n);
        at[n] = 0;
        at += n + 1;
    }
    t->thinks = s[1].saying.thinks;
    return NULL;
}

// In place: the blanks that follow a mark go, and so do those of a text there.
static void swallow(char *form) {
    char *to = form;
    bool marked = false;
    for (const char *at = form; *at; at++) {
        if (marked && strchr(" \n", *at)) continue;
        bool hole = is_hole(*at, MESSAGE) || is_hole(*at, SYSTEM);
        *to++ = marked && hole ? (char)(*at | TRIM_SWALLOWED) : *at;
        marked = to - form >= 2 && to[-1] == '>' && to[-2] == '|';
    }
    *to = 0;
}

const char *read_template(ChatTemplate *t, const Vocabulary *v) {
    const ChatTemplate *family = recognise_template(v->chat_template);
    *t = family ? *family : (ChatTemplate){ 0 };
    ChatTemplate own = *t;
    Said *said = calloc(5, sizeof *said);
    const char *error = said ? read_forms(&own, v->chat_template, said) : "no memory for the chat template";
    free(said);
    if (error) return error;
    *t = own;
    if (!t->first) t->first = t->alone;
    if (!t->name) t->name = "its own";
    if (t->swallows && !v->byte_level) {
        const char *forms[] = { t->alone, t->no_system ? NULL : t->first, t->next, t->last, t->opens };
        for (int i = 0; i < 5; i++)
            if (forms[i]) swallow((char *)(uintptr_t)forms[i]);
    }
    return NULL;
}

void template_free(ChatTemplate *t) {
    free(t->texts);
    *t = (ChatTemplate){ 0 };
}

// ---------------------------------------------------------------------------- a conversation

typedef struct {
    const Vocabulary *v;
    Text system;
    Span *spans;
    int n;
} Script;

static void put_ids(Script *s, const int *ids, int n) {
    s->spans[s->n++] = (Span){ .ids = ids, .n_ids = n };
}

// The program's words, whose control tokens are meant.
static void put_words(Script *s, const char *words, size_t n) {
    if (n) s->spans[s->n++] = (Span){ .text = { words, n }, .control = true, .spaced = true };
}

// The bytes of a blank at the beginning, or at the end; 0: there is none. Jinja's trim is Python's, to which
// four separators of ASCII are blanks too.
static size_t blank(Text t, bool end, bool separators) {
    uint32_t code;
    for (int n = 1; n <= 4 && (size_t)n <= t.size; n++) {
        const char *at = end ? t.data + t.size - n : t.data;
        if (utf8_decode(&code, at, (size_t)n) != n) continue;
        if (char_class(code) == CHAR_SPACE || (separators && code >= 0x1c && code <= 0x1f)) return (size_t)n;
    }
    return 0;
}

static Text trimmed(Text t, int sides) {
    size_t n;
    bool jinja = sides & (TRIM_LEFT | TRIM_RIGHT);
    while (sides & (TRIM_LEFT | TRIM_SWALLOWED) && (n = blank(t, false, jinja))) t.data += n, t.size -= n;
    while (sides & TRIM_RIGHT && (n = blank(t, true, true))) t.size -= n;
    return t;
}

static void put_form(Script *s, const char *form, Text message) {
    const char *from = form;
    for (const char *at = form; *at; at++) {
        bool own = is_hole(*at, MESSAGE), system = is_hole(*at, SYSTEM);
        if (!own && !system && *at != *BOS && *at != *EOS) continue;
        put_words(s, from, (size_t)(at - from));
        if (*at == *BOS && s->v->bos >= 0) put_ids(s, &s->v->bos, 1);
        if (*at == *EOS && s->v->eos >= 0) put_ids(s, &s->v->eos, 1);
        if (own || system) s->spans[s->n++] = (Span){ .text = trimmed(own ? message : s->system, *at & 7) };
        from = at + 1;
    }
    put_words(s, from, strlen(from));
}

// At most so many spans does a form become.
static size_t count_spans(const char *form) {
    size_t n = 1;
    for (; form && *form; form++) n += 2 * (*form > 0 && *form < ' ');
    return n;
}

// How many ids at the beginning of a reply are thoughts.
static int thought(const Vocabulary *v, const Turn *turn) {
    for (int n = turn->n_reply; n > 0; n--) {
        const Piece *p = &v->pieces[turn->reply[n - 1]];
        if (text_is((Text){ p->text, (size_t)p->length }, "</think>")) return n;
    }
    return 0;
}

const char *chat_ids(int **ids, int *n, const Vocabulary *v, const ChatTemplate *t, Text system,
                     const Turn *turns, int n_turns) {
    bool has_system = system.size > 0;
    size_t most = count_spans(t->alone) + count_spans(t->first) + count_spans(t->next) + count_spans(t->last);
    Script s = { v, system, malloc(((size_t)n_turns + 1) * (most + 2) * sizeof *s.spans), 0 };
    if (!s.spans) return "no memory for the conversation";
    for (int i = 0; i < n_turns; i++) {
        bool last = i == n_turns - 1, moved = has_system && t->last && n_turns > 1;
        put_form(&s, i ? moved && last ? t->last : t->next : has_system && !moved ? t->first : t->alone,
                 turns[i].message);
        if (last && t->opens) put_words(&s, t->opens, strlen(t->opens));
        int thoughts = t->thinks && !last ? thought(v, &turns[i]) : 0;
        if (turns[i].n_reply > thoughts)
            put_ids(&s, turns[i].reply + thoughts, turns[i].n_reply - thoughts);
    }
    size_t room = 1;
    for (int i = 0; i < s.n; i++) room += 2 * s.spans[i].text.size + 1 + (size_t)s.spans[i].n_ids;
    *ids = malloc(room * sizeof **ids);
    const char *error = *ids ? tokenize(*ids, n, v, s.spans, s.n) : "no memory for the conversation";
    if (error) free(*ids), *ids = NULL;
    free(s.spans);
    return error;
}

// The longest piece that the end begins with, up to where something is put in. Some files take such marks for
// pieces of the user's.
int reply_end(const Vocabulary *v, const ChatTemplate *t) {
    const char *end = t->next + strspn(t->next, " \n");
    int best = -1, length = 0;
    while ((unsigned char)end[length] >= ' ') length++;
    for (int id = 0; id < v->size; id++) {
        const Piece *p = &v->pieces[id];
        if ((p->kind != CONTROL && p->kind != USER) || p->length == 0) continue;
        if (p->length > length || memcmp(end, p->text, (size_t)p->length)) continue;
        if (best < 0 || p->length > v->pieces[best].length) best = id;
    }
    return best;
}
