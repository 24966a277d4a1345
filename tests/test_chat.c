// test_chat.c - templates are recognised by the marks that their models' authors put around a turn (as in the
// model card and tokenizer_config.json of each), and strangers are not.
#include "test.h"

#define BAR "\xef\xbd\x9c"                              // the wide bar of DeepSeek's marks

static void test_families(void) {
    static const struct { const char *want, *text; } known[] = {
        { "llama3", "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>' + m.content + '<|eot_id|>'" },
        { "chatml", "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}" },
        { "gemma", "{{ '<start_of_turn>' + role + '\n' + m.content + '<end_of_turn>\n' }}" },
        { "phi3", "{{ '<|user|>\n' + m.content + '<|end|>\n<|assistant|>\n' }}" },
        { "zephyr", "{{ '<|user|>\n' + m.content + eos_token + '<|assistant|>' }}" },
        { "deepseek", "{{ '<" BAR "User" BAR ">' + m.content + '<" BAR "Assistant" BAR ">' }}" },
        { "llama2", "{{ '[INST] <<SYS>>\n' + system + '\n<</SYS>>\n\n' + m.content + ' [/INST]' }}" },
        { "mistral-v1", "{{ ' [INST] ' + system_message + m.content + ' [/INST]' }}" },
        { "mistral-v3", "{{ '[AVAILABLE_TOOLS] ' + tools + '[INST] ' + m.content + '[/INST]' }}" },
        { "mistral-tekken", "{{ \"[AVAILABLE_TOOLS]\" + tools + \"[INST]\" + m.content + \"[/INST]\" }}" },
        { "mistral-v1", "{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}" },
        { NULL, "{{ '### Instruction:\n' + m.content }}" },
        { NULL, "<|im_start|" }, { NULL, "<|im_start|>" }, { NULL, "" }, { NULL, "<" },
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const ChatTemplate *found = recognise_template((Text){ known[i].text, strlen(known[i].text) });
        const char *got = found ? found->name : NULL;
        bool same = got && known[i].want ? !strcmp(got, known[i].want) : got == known[i].want;
        CHECK(same, "%s: wanted %s, got %s", known[i].text, known[i].want ? known[i].want : "none",
              got ? got : "none");
    }
}

// Marks at the very end, cut off, and on an exactly sized block: a step outside would be noticed.
static void test_ends(void) {
    static const char text[] = "<|im_end|>< <|im_start|>";
    for (size_t n = 0; n < sizeof text; n++) {
        char *copy = malloc(n + !n);
        memcpy(copy, text, n);
        const ChatTemplate *got = recognise_template((Text){ copy, n });
        CHECK(!got == (n < sizeof text - 1), "%zu bytes: %s", n, got ? got->name : "none");
        free(copy);
    }
}

int main(void) {
    test_families();
    test_ends();
    return finish("test_chat");
}
