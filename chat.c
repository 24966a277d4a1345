// chat.c - which chat template is it? A template in a file is a program (Jinja) from a stranger: it is
// recognised by the marks that it puts around a turn, never run.
#include "model.h"
#include <string.h>

static bool contains(Text t, const char *mark) {
    size_t n = strlen(mark);
    for (size_t i = 0; i + n <= t.size; i++)
        if (!memcmp(t.data + i, mark, n)) return true;
    return false;
}

enum { MOST = 1 << 16 };                                // bytes that are looked at; real ones have thousands

#define BAR "\xef\xbd\x9c"                              // U+FF5C, a wide vertical line

// The first family whose marks are all there. Mistral's differ from version to version in blanks alone.
const char *chat_template(Text t) {
    static const struct { const char *name, *marks[3]; } families[] = {
        { "llama3",         { "<|start_header_id|>", "<|eot_id|>", "" } },
        { "chatml",         { "<|im_start|>", "<|im_end|>", "" } },
        { "gemma",          { "<start_of_turn>", "<end_of_turn>", "" } },
        { "phi3",           { "<|user|>", "<|assistant|>", "<|end|>" } },
        { "zephyr",         { "<|user|>", "<|assistant|>", "eos_token" } },
        { "deepseek",       { "<" BAR "User" BAR ">", "<" BAR "Assistant" BAR ">", "" } },
        { "llama2",         { "[INST]", "<<SYS>>", "" } },
        { "mistral-v1",     { " [INST]", "system_message", "" } },
        { "mistral-tekken", { "\"[INST]\"", "[AVAILABLE_TOOLS]", "" } },
        { "mistral-v3",     { "[INST]", "[AVAILABLE_TOOLS]", "" } },
        { "mistral-v1",     { "[INST]", "[/INST]", "" } },
    };
    if (t.size > MOST) t.size = MOST;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        const char *const *marks = families[i].marks;
        if (contains(t, marks[0]) && contains(t, marks[1]) && contains(t, marks[2])) return families[i].name;
    }
    return NULL;
}
