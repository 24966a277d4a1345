// test_chat.c - templates are recognised by the marks that their models' authors put around a turn (as in the
// model card and tokenizer_config.json of each), and strangers are not; conversations are written with them.
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
        { "deepseek-llm", "{{ 'User: ' + m.content + '\n\n' }}{{ 'Assistant: ' + m.content + eos_token }}" },
        { NULL, "{{ 'User: ' + m.content + '\n' }}{{ 'Bot: ' + m.content + eos_token }}" },
        { NULL, "{{ '<|user|>\n' + m.content + '<|assistant|>\n' }}" },
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

// One that begins after 64 KB of something else is not looked for.
static void test_a_long_template(void) {
    static const char marks[] = "<|im_start|><|im_end|>";
    enum { N = 1 << 17, LONG = sizeof marks - 1 };
    char *text = malloc(N);
    for (size_t at = 0; at <= N - LONG; at += 1 << 12) {
        memset(text, '<', N);
        memcpy(text + at, marks, LONG);
        const ChatTemplate *got = recognise_template((Text){ text, N });
        CHECK(!got == (at + LONG > 1 << 16), "marks at %zu: %s", at, got ? got->name : "none");
    }
    free(text);
}

static void test_names(void) {
    char list[512];
    size_t n = 0;
    snprintf(list, sizeof list, "%s", template_names());
    for (char *name = strtok(list, ", "); name; name = strtok(NULL, ", "), n++) {
        const ChatTemplate *t = find_template(name);
        CHECK(t && !strcmp(t->name, name), "%s is in the list, and not found", name);
        CHECK(t && t->alone && t->first && t->next, "%s has no text", name);
    }
    CHECK(n == 11, "wanted 11 names, got %zu: %s", n, template_names());
    CHECK(!find_template("") && !find_template("llama") && !find_template("llama22"), "a stranger is found");
}

// ---------------------------------------------------------------------------- what a file's template says

#define EACH "{% for m in messages %}"
#define TURN "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
#define REST "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"

#define ASKED "<|im_start|>user\n" HOLE_MESSAGE "<|im_end|>\n<|im_start|>assistant\n"

static void test_what_is_read(void) {
    static const char text[] = "{{ bos_token }}" EACH "{% if loop.first and m.role != 'system' %}"
                               "{{ '<|im_start|>system\nBe good.<|im_end|>\n' }}{% endif %}" TURN REST;
    Vocabulary v = { .chat_template = { text, sizeof text - 1 } };
    ChatTemplate t;
    const char *error = read_template(&t, &v);
    CHECK(!error, "it is not read: %s", error);
    CHECK(!strcmp(t.name, "chatml") && !t.last && !t.thinks && !t.no_system && !*t.opens, "%s", t.name);
    CHECK(!strcmp(t.alone, HOLE_BOS "<|im_start|>system\nBe good.<|im_end|>\n" ASKED), "\"%s\"", t.alone);
    CHECK(!strcmp(t.first, HOLE_BOS "<|im_start|>system\n" HOLE_SYSTEM "<|im_end|>\n" ASKED), "\"%s\"",
          t.first);
    CHECK(!strcmp(t.next, "<|im_end|>\n" ASKED), "\"%s\"", t.next);
    template_free(&t);
}

// Strangers' programs that would take long, or much: each is refused at once, and the family's words stay.
static void test_what_is_not_read(void) {
    static char nested[1 << 15], deep[1 << 15], many[1 << 15], large[(1 << 16) + 2];
    static const char growing[] =
        "{% set ns = namespace(x='aaaaaaaaaaaaaaaa') %}" EACH EACH EACH EACH EACH EACH
        "{% set ns.x = ns.x ~ ns.x %}{{ ns.x }}{% endfor %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}"
        TURN REST;
    for (int i = 0; i < 3000; i++) strcpy(nested + 8 * i, "{%if 1%}");
    memset(deep, '(', sizeof deep - 1), memcpy(deep, "{{ ", 3);
    for (int i = 0; i < 1000; i++) strcpy(many + 23 * i, EACH);
    memset(large, ' ', sizeof large - 1);
    const char *const texts[] = {
        nested, deep, many, large, growing, "{{", "{%", "{% if", "{{ ' }}", "{", "{% for %}", "{% set %}",
        "{{ \1 }}", "\1", "{% endif %}", "{% else %}", "",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        Vocabulary v = { .chat_template = { texts[i], strlen(texts[i]) } };
        ChatTemplate t;
        CHECK(read_template(&t, &v) && !t.texts, "text %zu is read: %.40s", i, texts[i]);
        template_free(&t);
    }
}

// ---------------------------------------------------------------------------- conversations

// Pieces for single bytes alone: byte b has the id 3 + b, \1 in a text is BOS and \2 EOS.
static void check_text(const Vocabulary *v, const char *name, const char *system, const Turn *turns,
                       int n_turns, const char *want) {
    int *ids, n;
    char got[1024] = "";
    const char *error = chat_ids(&ids, &n, v, find_template(name), (Text){ system, strlen(system) }, turns,
                                 n_turns);
    CHECK(!error && n < 1000, "%s: %d ids %s", name, n, error ? error : "");
    if (error) return;
    for (int i = 0; i < n && i < 1000; i++) got[i] = (char)(ids[i] < 3 ? ids[i] : ids[i] - 3);
    CHECK(!strcmp(got, want), "%s: wanted \"%s\", got \"%s\"", name, want, got);
    free(ids);
}

#define TEXT(s) { s, sizeof s - 1 }
#define REPLY(...) (const int[]){ __VA_ARGS__ }, (int)(sizeof(int[]){ __VA_ARGS__ } / sizeof(int))

// Two turns, "hi" answered by "ok", then "yo"; without and with the system prompt "be".
static void test_conversations(void) {
    const Turn turns[] = { { TEXT("hi"), REPLY(3 + 'o', 3 + 'k') }, { .message = TEXT("yo") } };
    static const struct { const char *name, *plain, *with_system; } known[] = {
        { "llama2", "\1[INST] hi [/INST]ok \2\1[INST] yo [/INST]",
          "\1[INST] <<SYS>>\nbe\n<</SYS>>\n\nhi [/INST]ok \2\1[INST] yo [/INST]" },
        { "llama3", "\1<|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
          "<|start_header_id|>assistant<|end_header_id|>\n\nok<|eot_id|>"
          "<|start_header_id|>user<|end_header_id|>\n\nyo<|eot_id|>"
          "<|start_header_id|>assistant<|end_header_id|>\n\n",
          "\1<|start_header_id|>system<|end_header_id|>\n\nbe<|eot_id|>"
          "<|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
          "<|start_header_id|>assistant<|end_header_id|>\n\nok<|eot_id|>"
          "<|start_header_id|>user<|end_header_id|>\n\nyo<|eot_id|>"
          "<|start_header_id|>assistant<|end_header_id|>\n\n" },
        { "chatml", "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nok<|im_end|>\n"
          "<|im_start|>user\nyo<|im_end|>\n<|im_start|>assistant\n",
          "<|im_start|>system\nbe<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
          "<|im_start|>assistant\nok<|im_end|>\n<|im_start|>user\nyo<|im_end|>\n<|im_start|>assistant\n" },
        { "gemma", "\1<start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\nok<end_of_turn>\n"
          "<start_of_turn>user\nyo<end_of_turn>\n<start_of_turn>model\n",
          "\1<start_of_turn>user\nbe\n\nhi<end_of_turn>\n<start_of_turn>model\nok<end_of_turn>\n"
          "<start_of_turn>user\nyo<end_of_turn>\n<start_of_turn>model\n" },
        { "phi3", "<|user|>hi<|end|><|assistant|>ok<|end|><|user|>yo<|end|><|assistant|>",
          "<|system|>be<|end|><|user|>hi<|end|><|assistant|>ok<|end|><|user|>yo<|end|><|assistant|>" },
        { "zephyr", "<|user|>\nhi\2\n<|assistant|>\nok\2\n<|user|>\nyo\2\n<|assistant|>\n",
          "<|system|>\nbe\2\n<|user|>\nhi\2\n<|assistant|>\nok\2\n<|user|>\nyo\2\n<|assistant|>\n" },
        { "deepseek", "\1<" BAR "User" BAR ">hi<" BAR "Assistant" BAR ">ok\2<" BAR "User" BAR ">yo<" BAR
          "Assistant" BAR ">", "\1be<" BAR "User" BAR ">hi<" BAR "Assistant" BAR ">ok\2<" BAR "User" BAR
          ">yo<" BAR "Assistant" BAR ">" },
        { "deepseek-llm", "\1User: hi\n\nAssistant:ok\2User: yo\n\nAssistant:",
          "\1be\n\nUser: hi\n\nAssistant:ok\2User: yo\n\nAssistant:" },
        { "mistral-v1", "\1 [INST] hi [/INST]ok\2 [INST] yo [/INST]",
          "\1 [INST] be\n\nhi [/INST]ok\2 [INST] yo [/INST]" },
        { "mistral-v3", "\1[INST] hi[/INST]ok\2[INST] yo[/INST]",
          "\1[INST] hi[/INST]ok\2[INST] be\n\nyo[/INST]" },
        { "mistral-tekken", "\1[INST]hi[/INST]ok\2[INST]yo[/INST]",
          "\1[INST]hi[/INST]ok\2[INST]be\n\nyo[/INST]" },
    };
    Vocabulary v;
    small_vocabulary(&v, NULL, NULL, 0, true);
    v.add_space = false;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        check_text(&v, known[i].name, "", turns, 2, known[i].plain);
        check_text(&v, known[i].name, "be", turns, 2, known[i].with_system);
    }
    v.bos = v.eos = -1;                                 // a vocabulary without them
    check_text(&v, "zephyr", "", turns, 1, "<|user|>\nhi\n<|assistant|>\nok");
    check_text(&v, "deepseek-llm", "", turns, 2, "User: hi\n\nAssistant:okUser: yo\n\nAssistant:");
    vocabulary_free(&v);
}

static void test_blanks(void) {
    static const struct { const char *name, *message, *want; } cases[] = {
        { "chatml", " \n a b\t ", "<|im_start|>user\n \n a b\t <|im_end|>\n<|im_start|>assistant\n" },
        { "gemma", " \n a b\t ", "\1<start_of_turn>user\na b<end_of_turn>\n<start_of_turn>model\n" },
        { "gemma", " \n\t ", "\1<start_of_turn>user\n<end_of_turn>\n<start_of_turn>model\n" },
        { "gemma", "\xc2\xa0" "a\xe3\x80\x80",         // a no-break space, an ideographic one
          "\1<start_of_turn>user\na<end_of_turn>\n<start_of_turn>model\n" },
        { "gemma", "\xa0\xa0" "a\xc2", "\1<start_of_turn>user\n\xa0\xa0" "a\xc2<end_of_turn>\n"
          "<start_of_turn>model\n" },                  // no UTF-8, and no blanks
        { "phi3", " \n a b\t ", "<|user|>a b\t <|end|><|assistant|>" },
        { "phi3", " \n\t ", "<|user|><|end|><|assistant|>" },
        { "llama2", "\n\n\na  b\n", "\1[INST] a  b [/INST]" },
        { "mistral-v3", " a ", "\1[INST]  a [/INST]" },
    };
    Vocabulary v;
    small_vocabulary(&v, NULL, NULL, 0, true);
    v.add_space = false;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_text(&v, cases[i].name, "",
                   &(Turn){ .message = { cases[i].message, strlen(cases[i].message) } }, 1, cases[i].want);
    vocabulary_free(&v);
}

// A mark is one token in the program's words, its letters in a message; and it ends a reply.
static void test_marks_as_tokens(void) {
    static const char *const texts[] = { "<|im_start|>", "<|im_end|>", "</think>", "<|end|>", " ", "{" };
    enum { START = 259, END, THOUGHT, PHI, BLANK, BRACE };
    Vocabulary v;
    small_vocabulary(&v, texts, NULL, 6, true);
    free(v.slots), free(v.specials), free(v.bytes);     // to be made again
    v.n_specials = 0;
    v.pieces[START].kind = v.pieces[END].kind = CONTROL;
    v.pieces[THOUGHT].kind = v.pieces[BLANK].kind = v.pieces[BRACE].kind = USER;
    for (int byte = 0; byte < 256; byte++) {
        static char forms[256][8];
        snprintf(forms[byte], sizeof forms[byte], "<0x%02X>", byte);
        v.pieces[3 + byte] = (Piece){ forms[byte], 6, 0, BYTE };
    }
    CHECK(!vocabulary_index(&v), "the vocabulary is refused");
    v.add_space = false;
    int *ids, n, controls = 0, letters = 0;
    const Turn message = { .message = TEXT("<|im_start|>") };
    chat_ids(&ids, &n, &v, find_template("chatml"), (Text){ 0 }, &message, 1);
    for (int i = 0; i < n; i++) controls += ids[i] == START || ids[i] == END, letters += ids[i] == 3 + '|';
    CHECK(controls == 3 && letters == 2, "wanted 3 marks and 2 bars, got %d and %d", controls, letters);
    free(ids);

    CHECK(reply_end(&v, find_template("chatml")) == END, "the end: wanted %d", END);
    CHECK(reply_end(&v, find_template("phi3")) == -1, "a piece that is no control token ends a reply");
    static const char *const eos[] = { "zephyr", "llama2", "mistral-v3" };      // {eos} and blanks
    for (int i = 0; i < 3; i++)
        CHECK(reply_end(&v, find_template(eos[i])) == -1, "of %s's there is none but EOS", eos[i]);

    const Turn thinks[] = { { TEXT("a"), REPLY(3 + 'b', THOUGHT, 3 + 'c', THOUGHT, 3 + 'd') },
                            { TEXT("e"), REPLY(3 + 'f', THOUGHT) }, { .message = TEXT("g") } };
    check_text(&v, "deepseek", "", thinks, 3, "\1<" BAR "User" BAR ">a<" BAR "Assistant" BAR ">d\2<" BAR
               "User" BAR ">e<" BAR "Assistant" BAR ">\2<" BAR "User" BAR ">g<" BAR "Assistant" BAR ">");
    check_text(&v, "mistral-tekken", "", thinks + 1, 2, "\1[INST]e[/INST]f\x02\2[INST]g[/INST]");
    vocabulary_free(&v);
}

int main(void) {
    test_families();
    test_ends();
    test_a_long_template();
    test_names();
    test_what_is_read();
    test_what_is_not_read();
    test_conversations();
    test_blanks();
    test_marks_as_tokens();
    return finish("test_chat");
}
