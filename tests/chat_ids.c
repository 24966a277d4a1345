// chat_ids.c - what chat_ids() makes of a conversation, for tests that compare it with others.
//
//   chat_ids VOCABULARY.gguf TEMPLATE < conversation        TEMPLATE -: as the file says
//
// A number is written in decimal and ended by one byte. The conversation: the length of the system prompt,
// its bytes, how many turns; of each turn the length of the message, its bytes, how many ids the reply has,
// and they.
#include "../model.h"
#include <stdlib.h>
#include <string.h>

static void fail(const char *what, const char *why) {
    fprintf(stderr, "chat_ids: %s: %s\n", what, why);
    exit(1);
}

static size_t take_number(size_t most) {
    size_t n = 0;
    int digits = 0, c;
    for (; (c = getchar()) >= '0' && c <= '9' && n <= most; digits++) n = 10 * n + (size_t)(c - '0');
    if (!digits || n > most || c == EOF) fail("standard input", "a number is missing, or too large");
    return n;
}

static Text take_bytes(void) {
    size_t n = take_number(1 << 28);
    char *data = malloc(n + 1);
    if (!data || fread(data, 1, n, stdin) != n) fail("standard input", "it is too short");
    return (Text){ data, n };
}

static Turn take_turn(const Vocabulary *v) {
    Turn turn = { .message = take_bytes() };
    int n = (int)take_number(1 << 24), *ids = malloc(((size_t)n + 1) * sizeof *ids);
    for (int i = 0; i < n; i++) ids[i] = (int)take_number((size_t)v->size - 1);
    turn.reply = ids, turn.n_reply = n;
    return turn;
}

int main(int argc, char **argv) {
    if (argc != 3) fail("usage", "chat_ids VOCABULARY.gguf TEMPLATE < conversation");
    Bytes file;
    Vocabulary v;
    const char *error = map_file(&file, argv[1]);
    if (!error) error = vocabulary_read(&v, file, 0);
    if (error) fail(argv[1], error);
    bool named = strcmp(argv[2], "-") != 0;
    ChatTemplate own = { 0 };
    const ChatTemplate *t = named ? find_template(argv[2]) : &own;
    if (!named && (error = read_template(&own, &v))) fail(argv[2], error);
    if (!t) fail(argv[2], "the template is not known");

    Text system = take_bytes();
    int n_turns = (int)take_number(1 << 16), *ids, n;
    Turn *turns = malloc(((size_t)n_turns + 1) * sizeof *turns);
    for (int i = 0; i < n_turns; i++) turns[i] = take_turn(&v);
    if ((error = chat_ids(&ids, &n, &v, t, system, turns, n_turns))) fail(argv[1], error);
    for (int i = 0; i < n; i++) printf("%s%d", i ? " " : "", ids[i]);
    putchar('\n');

    for (int i = 0; i < n_turns; i++) {
        free((void *)(uintptr_t)turns[i].message.data);
        free((void *)(uintptr_t)turns[i].reply);
    }
    free((void *)(uintptr_t)system.data);
    free(turns);
    free(ids);
    template_free(&own);
    vocabulary_free(&v);
    unmap_file(file);
    return 0;
}
