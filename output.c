// output.c - what reaches the reader: a text on its way out, and sentences about it.
//
// A terminal obeys escape sequences, and a model or a file's name can hold any. So terminals get whole
// characters, and see control characters as \u001b; pipes and files get the bytes as they are.
#include "model.h"
#include <stdlib.h>
#include <string.h>

const char *program = "run";

void say_list(const char *format, va_list arguments) {
    char sentence[8192];
    vsnprintf(sentence, sizeof sentence, format, arguments);
    Text parts[] = { { program, strlen(program) }, { ": ", 2 }, { sentence, strlen(sentence) } };
    for (int i = 0; i < 3; i++)
        if (is_terminal(2)) print_string(stderr, parts[i], false);
        else fwrite(parts[i].data, 1, parts[i].size, stderr);
    fputc('\n', stderr);
}

void say(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    say_list(format, arguments);
    va_end(arguments);
}

// A byte that is no character alone is called as SentencePiece calls it.
void print_token(FILE *f, const Vocabulary *v, int id) {
    const Piece *p = &v->pieces[id];
    if (p->kind == BYTE && (uint8_t)p->text[0] >= 0x80) fprintf(f, "\"<0x%02X>\"", (uint8_t)p->text[0]);
    else print_string(f, (Text){ p->text, (size_t)p->length }, true);
}

// ---------------------------------------------------------------------------- to standard output

// Whole characters.
static void print_ready(const char *bytes, size_t n, bool terminal) {
    uint32_t code;
    for (size_t at = 0, length; at < n; at += length) {
        length = terminal ? (size_t)utf8_decode(&code, bytes + at, n - at) : n;
        bool control = terminal && !utf8_visible(code) && code != '\n' && code != '\t';
        if (control) printf("\\u%04x", (unsigned)code);
        else fwrite(bytes + at, 1, length, stdout);
    }
}

void output_text(Output *o, Text t) {
    char ready[8];
    bool terminal = is_terminal(1);
    for (size_t i = 0; i < t.size; i++)
        print_ready(ready, (size_t)utf8_push(ready, &o->utf8, (uint8_t)t.data[i], terminal), terminal);
}

static void print_up_to(Output *o, size_t end) {
    if (!o->silent && end > o->printed) output_text(o, (Text){ o->data + o->printed, end - o->printed });
    if (end > o->printed) o->printed = end;
}

// ---------------------------------------------------------------------------- texts that end it

// Does the text from `at` on begin with a stop text, or is all of it the beginning of one?
static bool stops_at(const Output *o, size_t at, bool whole) {
    size_t left = o->size - at;
    for (int i = 0; i < o->n_stop; i++) {
        size_t n = strlen(o->stop[i]);
        if (whole == (n <= left) && !memcmp(o->data + at, o->stop[i], whole ? n : left)) return true;
    }
    return false;
}

// Printed is what comes before the first place where a stop text may be coming.
const char *output_piece(Output *o, Piece piece, bool *stopped) {
    size_t n = (size_t)piece.length;
    if (o->room - o->size < n) {
        size_t room = 2 * o->room + n + 1024;
        char *data = realloc(o->data, room);
        if (!data) return "no memory for the text";
        o->data = data, o->room = room;
    }
    if (n) memcpy(o->data + o->size, piece.text, n);
    o->size += n;
    size_t at = o->printed;
    while (at < o->size && !stops_at(o, at, true) && !stops_at(o, at, false)) at++;
    size_t end = at;                                    // behind it, another stop text may be whole already
    while (at < o->size && !stops_at(o, at, true)) at++;
    if ((*stopped = at < o->size)) o->size = end = at;
    print_up_to(o, end);
    return NULL;
}

// What was held back: the text has ended without a stop text, or in the middle of a character.
void output_end(Output *o) {
    char rest[8];
    bool terminal = is_terminal(1);
    print_up_to(o, o->size);
    if (o->silent) return;
    print_ready(rest, (size_t)utf8_flush(rest, &o->utf8, terminal), terminal);
}

void output_clear(Output *o) {
    free(o->data);
    *o = (Output){ .stop = o->stop, .n_stop = o->n_stop, .silent = o->silent };
}
