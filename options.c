// options.c - the command line: one table, from which parsing, --help and the man page follow.
//
// The letters are llama2.c's, the long names those of llama.cpp. Where the same letter means something else
// there, a sentence says what to type here.
#include "model.h"
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

// ---------------------------------------------------------------------------- the table

// A NAME is never empty. LIST: a NAME that can be given several times.
typedef enum { HEADING, SWITCH, TEXT, NAME, LIST, WHOLE, REAL } Kind;

typedef struct {
    const char *letter, *name;      // "-i", "--prompt"; NULL: it has none
    Kind kind;
    size_t field;                   // where its value stands in Options
    double min, max;                // of a number
    const char *value, *help;       // "TEXT", and what it does: a line, or several
} Option;

#define AT(field) offsetof(Options, field)
static const Option options[] = {
    { NULL, "What to do", HEADING, 0, 0, 0, NULL, NULL },
    { "-m", "--mode", NAME, AT(mode_name), 0, 0, "MODE",
      "generate (default), chat, perplexity, bench, tokenize, info; in a chat, lines\n"
      "between \"\"\" are one message, and /clear begins a new conversation" },
    { NULL, "--model", NAME, AT(checkpoint), 0, 0, "FILE", "the checkpoint, as it is named elsewhere" },
    { "-z", "--tokenizer", NAME, AT(tokenizer), 0, 0, "FILE",
      "tokenizer.bin (default: beside the checkpoint: tokenizer.bin, or\ntok<vocabulary size>.bin)" },
    { NULL, "--swap-norm", SWITCH, AT(swap_norm), 0, 0, NULL,
      "run a file that was trained with another norm" },

    { NULL, "The text", HEADING, 0, 0, 0, NULL, NULL },
    { "-i", "--prompt", TEXT, AT(prompt), 0, 0, "TEXT",
      "the prompt (default: what comes through a pipe, without its last newline)" },
    { "-f", "--file", NAME, AT(prompt_file), 0, 0, "FILE",
      "the prompt from a file, UTF-16 by its mark; - is standard input" },
    { NULL, "--special", SWITCH, AT(special), 0, 0, NULL,
      "control tokens in the prompt are such, not letters" },
    { "-n", "--n-predict", WHOLE, AT(n), -1, INT_MAX, "N",
      "tokens to write after the prompt (256; chat: -1, until the context is full);\nruns of bench (5)" },
    { NULL, "--stop", LIST, AT(stop), 0, 0, "TEXT", "end before this text; it can be given several times" },
    { NULL, "--ignore-eos", SWITCH, AT(ignore_eos), 0, 0, NULL, "never choose a token that ends the text" },
    { "-c", "--ctx-size", WHOLE, AT(context), 1, INT_MAX, "N",
      "context length (default: the file's, at most 4096)" },

    { NULL, "How the next token is chosen", HEADING, 0, 0, 0, NULL, NULL },
    { "-t", "--temp", REAL, AT(sampler.temperature), 0, 100, "T",
      "temperature (1.0; 0: always the likeliest token)" },
    { "-p", "--top-p", REAL, AT(sampler.top_p), 0, 1, "P", "top-p (0.9; 1: off)" },
    { "-k", "--top-k", WHOLE, AT(sampler.top_k), 0, INT_MAX, "K", "top-k (0: off)" },
    { NULL, "--min-p", REAL, AT(sampler.min_p), 0, 1, "P", "min-p (0: off)" },
    { NULL, "--repeat-penalty", REAL, AT(sampler.repeat_penalty), 0.01, 100, "R",
      "over the last 64 tokens (1: off)" },
    { "-s", "--seed", NAME, AT(seed_text), 0, 0, "SEED",
      "of the random numbers, 64 bits (default: drawn, and printed at the end); it\n"
      "writes the same text again with the same --kernels: others round otherwise" },

    { NULL, "Chat", HEADING, 0, 0, 0, NULL, NULL },
    { "-y", "--system-prompt", TEXT, AT(system), 0, 0, "TEXT", "the system prompt" },
    { NULL, "--template", NAME, AT(template_name), 0, 0, "NAME",
      "whose marks stand around a turn (default: as the file says)" },
    { NULL, "--on-full", NAME, AT(on_full), 0, 0, "WHAT",
      "stop (default), or shift: forget the oldest turns" },

    { NULL, "The machine", HEADING, 0, 0, 0, NULL, NULL },
    { "-j", "--threads", WHOLE, AT(threads), 1, 256, "N",
      "threads (default: the processors this process may run on)" },
    { NULL, "--kv", NAME, AT(kv), 0, 0, "TYPE", "type of the KV cache: f16 (default), f32" },
    { NULL, "--kernels", NAME, AT(kernels), 0, 0, "NAME",
      "portable, avx2, avx512, neon, neon-dot (default: the fastest for this CPU)" },

    { NULL, "What is told", HEADING, 0, 0, 0, NULL, NULL },
    { NULL, "--json", SWITCH, AT(json), 0, 0, NULL,
      "for programs: generate's text, ids, log probabilities and why it ended; the\n"
      "reports of perplexity, bench, tokenize and info" },
    { NULL, "--top", WHOLE, AT(top), 1, MAX_TOP, "N",
      "generate: the likeliest N at each position, and their probabilities" },
    { NULL, "--pieces", SWITCH, AT(pieces), 0, 0, NULL, "tokenize: a line for each token, with its text" },
    { NULL, "--logits", NAME, AT(logits), 0, 0, "FILE",
      "write the logits of every position to a .npy file" },
    { NULL, "--trace", SWITCH, AT(trace), 0, 0, NULL, "print what every operation computed" },
    { NULL, "--trace=json", SWITCH, AT(trace_json), 0, 0, NULL, "the same for programs" },
    { "-q", "--quiet", SWITCH, AT(quiet), 0, 0, NULL, "no statistics" },
    { "-h", "--help", SWITCH, AT(help), 0, 0, NULL, "this text" },
    { NULL, "--version", SWITCH, AT(version), 0, 0, NULL, "the version" },
};
enum { N_OPTIONS = sizeof options / sizeof *options };

// A column of names, and one of what they do.
void print_help(void) {
    printf("usage: %s [CHECKPOINT] [options]\n\n", program);
    puts("The checkpoint is a .gguf, or a .bin of llama2.c (default: the model the program comes with).");
    for (const Option *o = options; o < options + N_OPTIONS; o++) {
        if (o->kind == HEADING) {
            printf("\n%s:\n", o->name);
            continue;
        }
        char names[64];
        snprintf(names, sizeof names, "%s%s%s%s%s", o->letter ? o->letter : "    ", o->letter ? ", " : "",
                 o->name, o->value ? " " : "", o->value ? o->value : "");
        printf("  %-26s", names);
        for (const char *line = o->help; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
            printf("%*s%.*s\n", line == o->help ? 0 : 28, "", (int)strcspn(line, "\n"), line);
    }
}

// ---------------------------------------------------------------------------- one option

static bool is_text(Kind kind) { return kind == TEXT || kind == NAME || kind == LIST; }

static const char *set_number(Options *o, const Option *option, const char *name, const char *text) {
    char *end;
    double x = strtod(text, &end);
    bool whole = option->kind == WHOLE, words = *end && !strcmp(name, "-p");     // elsewhere, the prompt
    if (end == text || *end || !(x >= option->min && x <= option->max) || (whole && x != floor(x)))
        return complain("%s %s: a %snumber from %.10g to %.10g is expected%s", name, text,
                        whole ? "whole " : "", option->min, option->max,
                        words ? "; the prompt is -i TEXT" : "");
    char *field = (char *)o + option->field;
    if (whole) *(int *)(void *)field = (int)x;
    else *(float *)(void *)field = (float)x;
    if (option->field == AT(sampler.temperature))
        o->like_threads = !strcmp(name, "-t") && x > 2 && x == floor(x);
    return NULL;
}

// name: as it was typed
static const char *set(Options *o, const Option *option, const char *name, const char *text) {
    char *field = (char *)o + option->field;
    if (option->kind != SWITCH && (!text || (option->kind != TEXT && !*text)))
        return complain("%s %sneeds a value; see %s --help", name, text ? "'' " : "", program);
    if (option->kind == SWITCH && text) return complain("%s=%s: %s takes no value", name, text, name);
    if (option->field == AT(checkpoint) && o->checkpoint && option->kind == NAME)
        return complain("one checkpoint is expected, not both %s and %s", o->checkpoint, text);
    if (option->kind == SWITCH) *(bool *)(void *)field = true;
    else if (option->kind == LIST && o->n_stop == MAX_STOP)
        return complain("%s: at most %d texts are possible", name, MAX_STOP);
    else if (option->kind == LIST) o->stop[o->n_stop++] = text;
    else if (is_text(option->kind)) *(const char **)(void *)field = text;
    else return set_number(o, option, name, text);
    return NULL;
}

// What other engines call it.
static const struct { const char *theirs, *ours; } elsewhere[] = {
    { "-cnv", "-m chat" },                          { "--conversation", "-m chat" },
    { "-sys", "--system-prompt" },                  { "--system", "--system-prompt" },
    { "-r", "--stop" },                             { "--reverse-prompt", "--stop" },
    { "--predict", "--n-predict" },                 { "--steps", "--n-predict" },
    { "--max-tokens", "--n-predict" },              { "--max-new-tokens", "--n-predict" },
    { "--temperature", "--temp" },                  { "--repetition-penalty", "--repeat-penalty" },
    { "--chat-template", "--template" },            { "--n-probs", "--top" },
    { "-ctk", "--kv" },                             { "--cache-type-k", "--kv" },
};

static const char *complain_of(const char *unknown) {
    size_t length = strcspn(unknown, "=");
    for (size_t i = 0; i < sizeof elsewhere / sizeof *elsewhere; i++)
        if (strlen(elsewhere[i].theirs) == length && !strncmp(unknown, elsewhere[i].theirs, length))
            return complain("there is no option %s; here it is %s", unknown, elsewhere[i].ours);
    for (const Option *o = options; o < options + N_OPTIONS; o++)
        if (o->letter && !strncmp(unknown, o->letter, 2) && isdigit((unsigned char)unknown[2]))
            return complain("there is no option %s; did you mean %s %s?", unknown, o->letter, unknown + 2);
    return complain("there is no option %s; see %s --help", unknown, program);
}

// The option that this argument names, alone or up to its "="; *n: the length of the name.
static const Option *find_option(const char *argument, size_t *n) {
    for (int joined = 0; joined < 2; joined++) {
        *n = joined ? strcspn(argument, "=") : strlen(argument);
        for (const Option *o = options; o < options + N_OPTIONS; o++) {
            if (o->kind == HEADING) continue;
            if (strlen(o->name) == *n && !strncmp(argument, o->name, *n)) return o;
            if (o->letter && *n == 2 && !strncmp(argument, o->letter, 2)) return o;
        }
    }
    return NULL;
}

static const char *read_arguments(Options *o, int argc, char **argv) {
    const char *error = NULL;
    for (int i = 1; i < argc && !error; i++) {
        size_t n;
        const Option *option = find_option(argv[i], &n);
        if (option) {
            char name[32];
            snprintf(name, sizeof name, "%.*s", (int)n, argv[i]);
            bool joined = argv[i][n], takes = option->kind != SWITCH;
            const char *value = joined ? argv[i] + n + 1 : takes && i + 1 < argc ? argv[++i] : NULL;
            error = set(o, option, name, value);
        } else if (argv[i][0] == '-') {
            error = complain_of(argv[i]);
        } else if (!argv[i][0]) {
            error = "the checkpoint's name is empty";
        } else if (o->checkpoint) {
            error = complain("one checkpoint is expected, not both %s and %s", o->checkpoint, argv[i]);
        } else {
            o->checkpoint = argv[i];
        }
    }
    return error;
}

// ---------------------------------------------------------------------------- what they mean together

static const char *read_seed(uint64_t *seed, const char *text) {
    uint64_t clock = time_of_day();
    *seed = random_next(&clock) >> 32;                  // short enough to be typed again
    if (!text) return NULL;
    char *end;
    errno = 0;
    *seed = strtoull(text, &end, 10);
    if (isdigit((unsigned char)*text) && !*end && !errno) return NULL;
    return complain("-s %s: a whole number of 64 bits is expected; without -s, one is drawn", text);
}

// Which of the names the text is; -1, and *error, if it is none of them.
static int choice(const char **error, const char *flag, const char *text, const char *const *names) {
    char list[256] = "";
    for (int i = 0; names[i]; i++) {
        if (!strcmp(text, names[i])) return i;
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", names[i]);
    }
    bool file = !strcmp(flag, "-m") && strpbrk(text, "./");
    *error = complain("%s %s: one of %s is expected%s", flag, text, list,
                      file ? "; a checkpoint is named without a flag, or by --model" : "");
    return -1;
}

// None is dropped in silence.
static const char *check_mode(const Options *o) {
    bool generates = o->mode == GENERATE, writes = generates || o->mode == CHAT;
    const struct { bool given, fits; const char *name, *where; } only[] = {
        { o->logits != NULL, writes, "--logits", "generate and chat" },
        { o->trace || o->trace_json, writes, "--trace", "generate and chat" },
        { o->n_stop > 0, writes, "--stop", "generate and chat" },
        { o->ignore_eos, generates, "--ignore-eos", "generate" },
        { o->top > 0, generates, "--top", "generate" },
        { o->pieces, o->mode == TOKENIZE, "--pieces", "tokenize" },
        { o->system != NULL, o->mode == CHAT, "-y", "chat" },
        { o->template_name != NULL, o->mode == CHAT, "--template", "chat" },
        { o->on_full != NULL, o->mode == CHAT, "--on-full", "chat" },
    };
    for (size_t i = 0; i < sizeof only / sizeof *only; i++)
        if (only[i].given && !only[i].fits) return complain("%s is for -m %s", only[i].name, only[i].where);
    if (o->json && o->mode == CHAT) return "--json is for every mode but chat";
    if (o->top && o->trace_json && !o->json) return "--top and --trace=json: one of them needs --json";
    if (o->special && o->mode == CHAT) return "--special: in a chat, the template puts such tokens in";
    if (o->mode == BENCH && (o->n < 1 || o->n > MAX_RUNS))
        return complain("-n %d: 1 to %d runs are expected", o->n, MAX_RUNS);
    if ((o->prompt || o->prompt_file) && (o->mode == BENCH || o->mode == INFO))
        return complain("%s: -m %s reads no text", o->prompt ? "-i" : "-f", o->mode_name);
    return NULL;
}

const char *read_options(Options *o, int argc, char **argv) {
    static const char *const modes[] = {
        "generate", "chat", "perplexity", "bench", "tokenize", "info", NULL
    };
    *o = (Options){ .mode_name = "generate", .kv = "f16", .n = INT_MIN,
                    .sampler = { .temperature = 1, .top_p = 0.9f, .repeat_penalty = 1 } };
    const char *error = read_arguments(o, argc, argv);
    if (error || o->help || o->version) return error;
    int mode = choice(&error, "-m", o->mode_name, modes);
    if (error) return error;
    o->mode = mode;
    if (o->n == INT_MIN) o->n = o->mode == CHAT ? -1 : o->mode == BENCH ? 5 : 256;
    if (!choose_kernels(o->kernels))
        return complain("--kernels %s: this CPU runs %s", o->kernels, kernel_names());
    if (o->prompt && o->prompt_file) return "one prompt is expected, not both -i and -f";
    if ((error = check_mode(o))) return error;
    if (o->template_name && !(o->template = find_template(o->template_name)))
        return complain("--template %s: one of %s is expected", o->template_name, template_names());
    static const char *const endings[] = { "stop", "shift", NULL }, *const types[] = { "f16", "f32", NULL };
    o->shift = o->on_full && choice(&error, "--on-full", o->on_full, endings) == 1;
    o->kv_type = choice(&error, "--kv", o->kv, types) == 1 ? F32 : F16;
    return error ? error : read_seed(&o->sampler.random, o->seed_text);
}
