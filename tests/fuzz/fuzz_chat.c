// fuzz_chat.c - any bytes as a chat template: understood or not, never more than read. Any bytes as the
// system prompt, messages and replies of a chat: every family renders them, what the messages say is all
// there, and none of it speaks for the program. And any text comes back from its tokens.
//
// The first five bytes: which vocabulary and cutter, which family; and how long are the system prompt, a
// message, a reply.
#include "../../model.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// ---------------------------------------------------------------------------- two vocabularies

enum { BOS = 256, EOS, N_MARKS = 14, FIRST_WORD = 258 + N_MARKS };
static const char *const marks[N_MARKS] = {
    "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "[INST]",
    "[/INST]", "<start_of_turn>", "<end_of_turn>", "<|user|>", "<|assistant|>", "<|end|>", "<|system|>",
    "</think>",
};
static const char *const words[] = {                    // each, but the first, from two pieces before it
    "  ", " a", "ab", " ab", "\n\n", "er", "us", "user", "\xc3\xa9", "aa", "aaaa", ">\n", "IN", "ST", "[I",
};
static const int first_part[] = { 1, 1, 1, 1, 1, 1, 1, 2, 1, 1, 2, 1, 1, 1, 1 };
enum { N_WORDS = sizeof words / sizeof *words, SIZE = FIRST_WORD + N_WORDS };

static Vocabulary vocabularies[2];                      // SentencePiece's, and byte-level BPE
static const char *const cutters[] = { "gpt-2", "default", "llama-bpe", "qwen2", "stablelm2", "smollm",
                                       "tekken", "deepseek-llm" };

static const ChatTemplate *families[32];
static int n_families;

static void build(Vocabulary *v, bool byte_level) {
    static char forms[256][8], bytes[256];
    *v = (Vocabulary){ .size = SIZE, .bos = BOS, .eos = EOS, .eot = -1, .eom = -1, .byte_level = byte_level,
                       .add_bos = true, .add_space = !byte_level };
    v->pieces = malloc(sizeof(Piece[SIZE]));
    if (!v->pieces) abort();
    for (int byte = 0; byte < 256; byte++) {
        snprintf(forms[byte], sizeof forms[byte], "<0x%02X>", byte);
        bytes[byte] = (char)byte;
        v->pieces[byte] = (Piece){ forms[byte], 6, 0, BYTE };
        if (byte_level) v->pieces[byte] = (Piece){ &bytes[byte], 1, 0, NORMAL };
    }
    v->pieces[BOS] = (Piece){ "<s>", 3, 0, CONTROL };
    v->pieces[EOS] = (Piece){ "</s>", 4, 0, CONTROL };
    for (int i = 0; i < N_MARKS; i++)
        v->pieces[EOS + 1 + i] =
            (Piece){ marks[i], (int)strlen(marks[i]), 0, i == N_MARKS - 1 ? USER : CONTROL };
    for (int i = 0; i < N_WORDS; i++)
        v->pieces[FIRST_WORD + i] = (Piece){ words[i], (int)strlen(words[i]), (float)-i, NORMAL };
    if (vocabulary_index(v) || (byte_level && vocabulary_expect_merges(v, N_WORDS))) abort();
    for (int i = 0; byte_level && i < N_WORDS; i++)
        if (vocabulary_add_merge(v, i, words[i], first_part[i], (int)strlen(words[i]))) abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    build(&vocabularies[false], false);
    build(&vocabularies[true], true);
    char names[512];
    snprintf(names, sizeof names, "%s", template_names());
    for (char *name = strtok(names, ", "); name; name = strtok(NULL, ", "), n_families++)
        if (n_families == 32 || !(families[n_families] = find_template(name))) abort();
    return 0;
}

// ---------------------------------------------------------------------------- what must hold

// The text of n ids, to be freed; *size: its bytes.
static char *spelled(size_t *size, const Vocabulary *v, const int *ids, int n, int previous) {
    size_t room = 1, at = 0;
    for (int i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= v->size) abort();
        room += (size_t)v->pieces[ids[i]].length;
    }
    char *text = malloc(room);
    if (!text) abort();
    for (int i = 0; i < n; previous = ids[i++]) {
        Piece p = token_text(v, ids[i], previous);
        memcpy(text + at, p.text, (size_t)p.length);
        at += (size_t)p.length;
    }
    *size = at;
    return text;
}

// As a text comes back, to be freed: with add_space, what follows a piece that is found whole begins with
// a space. SentencePiece's U+2581 in a text is a space, too.
static Text with_spaces(const Vocabulary *v, Text t) {
    static const char mark[] = "</think>";              // the one of USER
    size_t n = sizeof mark - 1, at = 0;
    char *out = malloc(2 * t.size + 1);
    if (!out) abort();
    bool after = false;
    for (size_t i = 0; i < t.size;) {
        bool found = i + n <= t.size && !memcmp(t.data + i, mark, n);
        if (after && !found && v->add_space) out[at++] = ' ';
        bool space = !v->byte_level && i + 3 <= t.size && !memcmp(t.data + i, "\xe2\x96\x81", 3);
        if (space) out[at++] = ' ', i += 3;
        else for (size_t end = found ? i + n : i + 1; i < end;) out[at++] = t.data[i++];
        after = found;
    }
    return (Text){ out, at };
}

static void round_trip(const Vocabulary *v, Text text) {
    int *ids = malloc((2 * text.size + 1) * sizeof *ids), n;
    if (!ids || tokenize(ids, &n, v, &(Span){ .text = text }, 1)) abort();
    if (n < 0 || (size_t)n > 2 * text.size + 1) abort();
    size_t size;
    char *back = spelled(&size, v, ids, n, v->bos);
    Text want = with_spaces(v, text);
    if (size != want.size || memcmp(back, want.data, size)) abort();
    free((void *)(uintptr_t)want.data);
    free(back);
    free(ids);
}

static int controls(const Vocabulary *v, const int *ids, int n) {
    int sum = 0;
    for (int i = 0; i < n; i++) sum += v->pieces[ids[i]].kind == CONTROL;
    return sum;
}

// A message is in the text as it is, but for blanks around it; it is no more than letters.
static void check_chat(const Vocabulary *v, const ChatTemplate *t, Text system, const Turn *turns,
                       int n_turns) {
    int *ids, *silent_ids, n, n_silent;
    Turn silent[2] = { turns[0], turns[1] };
    silent[0].message.size = silent[1].message.size = 0;
    Text some = { "", system.size > 0 };                // its byte is the zero
    if (chat_ids(&ids, &n, v, t, system, turns, n_turns)) abort();
    if (chat_ids(&silent_ids, &n_silent, v, t, some, silent, n_turns)) abort();
    size_t size;
    char *text = spelled(&size, v, ids, n, -1), *at = text;
    if (controls(v, ids, n) != controls(v, silent_ids, n_silent)) abort();
    for (int i = 0; i < n_turns && strchr(t->alone, *HOLE_MESSAGE); i++) {
        Text message = with_spaces(v, turns[i].message);
        at = memmem(at, size - (size_t)(at - text), message.data, message.size);
        if (!at) abort();
        at += message.size;
        free((void *)(uintptr_t)message.data);
    }
    free(text);
    free(ids);
    free(silent_ids);
}

static Text take_text(Text *rest, size_t n) {
    if (n > rest->size) n = rest->size;
    Text t = { rest->data, n };
    rest->data += n, rest->size -= n;
    return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ChatTemplate own;
    read_template(&own, &(Vocabulary){ .chat_template = { (const char *)data, size } });
    template_free(&own);
    if (size < 5) return 0;
    Vocabulary *v = &vocabularies[data[0] & 1];
    const char *cutter = cutters[data[0] >> 1 & 7];
    v->cutter = find_cutter((Text){ cutter, strlen(cutter) });
    v->ignore_merges = v->byte_level && data[0] >> 4 & 1;
    if (!v->byte_level) v->add_space = data[0] >> 4 & 1;
    v->bos = data[0] >> 5 & 1 ? -1 : BOS;

    Text rest = { (const char *)data + 5, size - 5 };
    round_trip(v, rest);
    Text system = take_text(&rest, data[2]), first = take_text(&rest, data[3]);
    Text reply = take_text(&rest, data[4]);
    int *ids = malloc((reply.size + 1) * sizeof *ids);
    if (!ids) abort();
    for (size_t i = 0; i < reply.size; i++) ids[i] = (uint8_t)reply.data[i] * (SIZE - 1) / 255;
    const Turn turns[] = { { first, ids, (int)reply.size }, { .message = rest } };
    const ChatTemplate *t = families[data[1] % n_families];
    check_chat(v, t, system, turns, 2);
    check_chat(v, t, system, turns, 1);
    if (reply_end(v, t) >= SIZE) abort();
    free(ids);
    return 0;
}
