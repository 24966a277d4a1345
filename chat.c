// chat.c - a conversation as its model has learned to read it: turns with marks around them.
//
// Every family of models has marks of its own. The template in a file is a program (Jinja) from a stranger:
// it is recognised by the marks in it, never run. Here a family is four short texts; where they say {bos},
// {eos}, {system} or {text}, those are put in.
#include "model.h"
#include <stdlib.h>
#include <string.h>

#define BAR "\xef\xbd\x9c"                              // U+FF5C, a wide vertical line

// As in the templates that the models' authors publish. Gemma's has no place for a system prompt: it stands
// before the first message. Phi-3's marks swallow the blanks that follow them, so none are written.
// A template is of the first family whose marks are all in it: Mistral's differ from one another in blanks.
static const ChatTemplate templates[] = {
    { "llama3", .begin = "{bos}{system}", .blanks = TRIM,
      .system = "<|start_header_id|>system<|end_header_id|>\n\n{text}<|eot_id|>",
      .turn = "<|start_header_id|>user<|end_header_id|>\n\n{text}<|eot_id|>"
              "<|start_header_id|>assistant<|end_header_id|>\n\n",
      .end = "<|eot_id|>",
      .marks = { "<|start_header_id|>", "<|eot_id|>", "" } },
    { "chatml", .begin = "{system}",
      .system = "<|im_start|>system\n{text}<|im_end|>\n",
      .turn = "<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n",
      .end = "<|im_end|>\n",
      .marks = { "<|im_start|>", "<|im_end|>", "" } },
    { "gemma", .begin = "{bos}", .blanks = TRIM,
      .system = "{text}\n\n",
      .turn = "<start_of_turn>user\n{system}{text}<end_of_turn>\n<start_of_turn>model\n",
      .end = "<end_of_turn>\n",
      .marks = { "<start_of_turn>", "<end_of_turn>", "" } },
    { "phi3", .begin = "{system}", .blanks = TRIM_LEFT,
      .system = "<|system|>{text}<|end|>",
      .turn = "<|user|>{text}<|end|><|assistant|>",
      .end = "<|end|>",
      .marks = { "<|user|>", "<|assistant|>", "<|end|>" } },
    { "zephyr", .begin = "{system}",
      .system = "<|system|>\n{text}{eos}\n",
      .turn = "<|user|>\n{text}{eos}\n<|assistant|>\n",
      .end = "{eos}\n",
      .marks = { "<|user|>", "<|assistant|>", "eos_token" } },
    { "deepseek", .begin = "{bos}{system}", .thinks = true,
      .system = "{text}",
      .turn = "<" BAR "User" BAR ">{text}<" BAR "Assistant" BAR ">",
      .end = "{eos}",
      .marks = { "<" BAR "User" BAR ">", "<" BAR "Assistant" BAR ">", "" } },
    { "deepseek-llm", .begin = "{bos}{system}",
      .system = "{text}\n\n",
      .turn = "User: {text}\n\nAssistant:",
      .end = "{eos}",
      .marks = { "'User: '", "'Assistant: '", "" } },
    { "llama2", .begin = "", .blanks = TRIM_ALL,
      .system = "<<SYS>>\n{text}\n<</SYS>>\n\n",
      .turn = "{bos}[INST] {system}{text} [/INST]",
      .end = " {eos}",
      .marks = { "[INST]", "<<SYS>>", "" } },
    { "mistral-v1", .begin = "{bos}",
      .system = "{text}\n\n",
      .turn = " [INST] {system}{text} [/INST]",
      .end = "{eos}",
      .marks = { " [INST]", "system_message", "" } },
    { "mistral-tekken", .begin = "{bos}", .system_last = true,
      .system = "{text}\n\n",
      .turn = "[INST]{system}{text}[/INST]",
      .end = "{eos}",
      .marks = { "\"[INST]\"", "[AVAILABLE_TOOLS]", "" } },
    { "mistral-v3", .begin = "{bos}", .system_last = true,
      .system = "{text}\n\n",
      .turn = "[INST] {system}{text}[/INST]",
      .end = "{eos}",
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

enum { MOST = 1 << 16 };                                // bytes that are looked at; real ones have thousands

// What stands only in the templates of others, which have marks of ours besides: Mistral v7, Phi-4.
static const char *const strange[] = { "[SYSTEM_PROMPT]", "<|im_sep|>" };

const ChatTemplate *recognise_template(Text t) {
    if (t.size > MOST) t.size = MOST;
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

// ---------------------------------------------------------------------------- a conversation

typedef struct {
    const Vocabulary *v;
    const ChatTemplate *t;
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

static void put_form(Script *s, const char *form, Text text, bool with_system) {
    static const char *const names[] = { "{bos}", "{eos}", "{system}", "{text}" };
    const char *from = form, *at = form;
    while (*at) {
        int i = 0;
        while (i < 4 && strncmp(at, names[i], strlen(names[i]))) i++;
        if (i == 4) { at++; continue; }
        put_words(s, from, (size_t)(at - from));
        if (i == 0 && s->v->bos >= 0) put_ids(s, &s->v->bos, 1);
        if (i == 1 && s->v->eos >= 0) put_ids(s, &s->v->eos, 1);
        if (i == 2 && with_system) put_form(s, s->t->system, s->system, false);
        if (i == 3) s->spans[s->n++] = (Span){ .text = text };
        from = at += strlen(names[i]);
    }
    put_words(s, from, (size_t)(at - from));
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

static Text trimmed(Text t, const ChatTemplate *family, bool after_system) {
    size_t n;
    bool jinja = family->blanks >= TRIM, left = family->blanks != KEEP;
    if (family->blanks == TRIM_ALL && after_system) left = false;       // it is not what begins
    while (left && (n = blank(t, false, jinja))) t.data += n, t.size -= n;
    while (jinja && (n = blank(t, true, jinja))) t.size -= n;
    return t;
}

// How many ids at the beginning of a reply are thoughts.
static int thought(const Vocabulary *v, const Turn *turn) {
    for (int n = turn->n_reply; n > 0; n--) {
        const Piece *p = &v->pieces[turn->reply[n - 1]];
        if (text_is((Text){ p->text, (size_t)p->length }, "</think>")) return n;
    }
    return 0;
}

enum { MOST_SPANS = 16 };                               // of a turn: what a form becomes, in all families

const char *chat_ids(int **ids, int *n, const Vocabulary *v, const ChatTemplate *t, Text system,
                     const Turn *turns, int n_turns) {
    bool has_system = system.size > 0, own_turn = strstr(t->begin, "{system}");
    if (own_turn) system = trimmed(system, t, false);
    Script s = { v, t, system, malloc(((size_t)n_turns + 1) * MOST_SPANS * sizeof *s.spans), 0 };
    if (!s.spans) return "no memory for the conversation";
    put_form(&s, t->begin, (Text){ 0 }, has_system);
    for (int i = 0; i < n_turns; i++) {
        bool with_system = has_system && i == (t->system_last ? n_turns - 1 : 0);
        put_form(&s, t->turn, trimmed(turns[i].message, t, with_system), with_system);
        bool last = i == n_turns - 1;
        int thoughts = t->thinks && !last ? thought(v, &turns[i]) : 0;
        if (turns[i].n_reply > thoughts)
            put_ids(&s, turns[i].reply + thoughts, turns[i].n_reply - thoughts);
        if (!last) put_form(&s, t->end, (Text){ 0 }, false);
    }
    size_t room = 0;
    for (int i = 0; i < s.n; i++) room += 2 * s.spans[i].text.size + 1 + (size_t)s.spans[i].n_ids;
    *ids = malloc(room * sizeof **ids);
    const char *error = *ids ? tokenize(*ids, n, v, s.spans, s.n) : "no memory for the conversation";
    if (error) free(*ids), *ids = NULL;
    free(s.spans);
    return error;
}

// The longest piece that the end begins with, up to where {eos} stands. Some files take such marks for pieces
// of the user's.
int reply_end(const Vocabulary *v, const ChatTemplate *t) {
    const char *end = t->end + strspn(t->end, " \n");
    int best = -1, length = (int)strcspn(end, "{");
    for (int id = 0; id < v->size; id++) {
        const Piece *p = &v->pieces[id];
        if ((p->kind != CONTROL && p->kind != USER) || p->length == 0) continue;
        if (p->length > length || memcmp(end, p->text, (size_t)p->length)) continue;
        if (best < 0 || p->length > v->pieces[best].length) best = id;
    }
    return best;
}
