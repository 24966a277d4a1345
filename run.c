// run.c - the program: read the command line, load a checkpoint, then write text, chat, measure or report.
//
// Standard output carries the text, or a report; everything that is said about it goes to standard error.
#include "model.h"
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char help[] =
    "usage: run [CHECKPOINT] [options]     a .gguf, or a .bin of llama2.c (default: the one it comes with)\n"
    "  -m MODE             generate (default), chat, perplexity, bench, tokenize, info\n"
    "  -i TEXT             prompt                     -f FILE  prompt from a file, - is standard input\n"
    "  -n N                tokens to write after the prompt (256; chat: -1, until the context is full);\n"
    "                      runs of bench (5)\n"
    "  -t T                temperature (1.0; 0: always the likeliest token)\n"
    "  -p P                top-p (0.9; 1: off)        -k K     top-k (0: off)\n"
    "  --min-p P           min-p (0: off)             --repeat-penalty R  over the last 64 tokens (1: off)\n"
    "  -s SEED             of the random numbers, 64 bits (default: drawn, and printed at the end)\n"
    "  -c N                context length (default: the file's, at most 4096)\n"
    "  -j N                threads (default: the processors this process may run on)\n"
    "  -z FILE             tokenizer.bin (default: beside the checkpoint: tokenizer.bin, or tok<vocabulary "
    "size>.bin)\n"
    "  -y TEXT             chat: the system prompt\n"
    "  --template NAME     chat: whose marks stand around a turn (default: as the file says)\n"
    "  --on-full WHAT      chat: stop (default), or shift: forget the oldest turns\n"
    "  --kv f16|f32        type of the KV cache (f16)\n"
    "  --kernels NAME      portable, avx2, avx512, neon, neon-dot (default: the fastest for this CPU)\n"
    "  --swap-norm         run a file that was trained with another norm\n"
    "  --special           control tokens in the prompt are such, not letters\n"
    "  --logits FILE       write the logits of every position to a .npy file\n"
    "  --json              the report of perplexity, bench, tokenize and info, for programs\n"
    "  --trace             print what every operation computed; --trace=json: for programs\n"
    "  -q                  no statistics              -h, --help   --version\n";

// ---------------------------------------------------------------------------- endings

enum { DONE, FAILED, MISUSED };                 // exit status: fine; file, memory or machine; command line

static void fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));
static void fail(int status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fflush(stdout);
    fputs("run: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(status);
}

static void check_output(void) {
    const char *error = flush_output();
    if (!error) return;
    fprintf(stderr, "run: %s\n", error);
    _exit(FAILED);                                      // exit() would try again
}

// ---------------------------------------------------------------------------- the command line

typedef struct {
    const char *checkpoint, *mode_name, *prompt, *prompt_file, *tokenizer, *seed, *kv, *kernels, *logits,
        *system, *template_name, *on_full;
    const ChatTemplate *template;
    int n, context, threads;
    enum { GENERATE, CHAT, PERPLEXITY, BENCH, TOKENIZE, INFO } mode;
    Type kv_type;
    bool shift, swap_norm, special, trace, trace_json, json, quiet, help, version;
    Sampler sampler;
} Options;

typedef enum { SWITCH, TEXT, NAME, WHOLE, REAL } Kind;       // a NAME is never empty
typedef struct { const char *name; Kind kind; void *value; double least, most; } Option;

static double number(const Option *option, const char *text) {
    char *end;
    double x = strtod(text, &end);
    if (end == text || *end || !(x >= option->least && x <= option->most) ||
        (option->kind == WHOLE && x != floor(x)))
        fail(MISUSED, "%s %s: a %snumber from %.10g to %.10g is wanted", option->name, text,
             option->kind == WHOLE ? "whole " : "", option->least, option->most);
    return x;
}

static void set(const Option *option, const char *text) {
    if (option->kind != SWITCH && (!text || (option->kind == NAME && !*text)))
        fail(MISUSED, "%s %sneeds a value; see run --help", option->name, text ? "'' " : "");
    switch (option->kind) {
    case SWITCH: *(bool *)option->value = true;                         break;
    case TEXT:
    case NAME:   *(const char **)option->value = text;                  break;
    case WHOLE:  *(int *)option->value = (int)number(option, text);     break;
    case REAL:   *(float *)option->value = (float)number(option, text); break;
    }
}

static uint64_t read_seed(const char *text) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t clock = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    if (!text) return random_next(&clock) >> 32;        // short enough to be typed again
    char *end;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)*text) || *end || errno)
        fail(MISUSED, "-s %s: a whole number of 64 bits is wanted", text);
    return value;
}

static int choice(const char *flag, const char *text, const char *const *names) {
    char list[256] = "";
    for (int i = 0; names[i]; i++) {
        if (!strcmp(text, names[i])) return i;
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", names[i]);
    }
    fail(MISUSED, "%s %s: one of %s is wanted", flag, text, list);
}

// A device may be many things at once.
static bool same_file(const char *a, const char *b) {
    struct stat x, y;
    return a && b && stat(a, &x) == 0 && stat(b, &y) == 0 && S_ISREG(x.st_mode) && x.st_dev == y.st_dev &&
           x.st_ino == y.st_ino;
}

// The model it comes with lies in models/ beside the program, or in share/prenorm/models/ where it is
// installed. NULL: neither.
static const char *default_checkpoint(void) {
    static char path[PATH_MAX + 64];
    ssize_t n = readlink("/proc/self/exe", path, PATH_MAX);
    while (n > 0 && path[n - 1] != '/') n--;
    static const char *const folders[] = { "", "../share/prenorm/" };
    for (int i = 0; i < 2 && n > 0; i++) {
        snprintf(path + n, sizeof path - (size_t)n, "%smodels/stories-%s.gguf", folders[i], norm_name());
        if (access(path, F_OK) == 0) return path;
    }
    return NULL;
}

static Options parse(int argc, char **argv) {
    Options o = { .mode_name = "generate", .kv = "f16", .n = INT_MIN,
                  .sampler = { .temperature = 1, .top_p = 0.9f, .repeat_penalty = 1 } };
    const Option options[] = {
        { "-m", NAME, &o.mode_name, 0, 0 },             { "-i", TEXT, &o.prompt, 0, 0 },
        { "-f", NAME, &o.prompt_file, 0, 0 },           { "-n", WHOLE, &o.n, -1, INT_MAX },
        { "-t", REAL, &o.sampler.temperature, 0, 100 }, { "-p", REAL, &o.sampler.top_p, 0, 1 },
        { "-k", WHOLE, &o.sampler.top_k, 0, INT_MAX },  { "--min-p", REAL, &o.sampler.min_p, 0, 1 },
        { "--repeat-penalty", REAL, &o.sampler.repeat_penalty, 0.01, 100 },
        { "-s", NAME, &o.seed, 0, 0 },                  { "-c", WHOLE, &o.context, 1, INT_MAX },
        { "-j", WHOLE, &o.threads, 1, 256 },            { "-z", NAME, &o.tokenizer, 0, 0 },
        { "--kv", NAME, &o.kv, 0, 0 },                  { "--kernels", NAME, &o.kernels, 0, 0 },
        { "--swap-norm", SWITCH, &o.swap_norm, 0, 0 },  { "--logits", NAME, &o.logits, 0, 0 },
        { "--special", SWITCH, &o.special, 0, 0 },      { "-y", TEXT, &o.system, 0, 0 },
        { "--template", NAME, &o.template_name, 0, 0 }, { "--on-full", NAME, &o.on_full, 0, 0 },
        { "--json", SWITCH, &o.json, 0, 0 },            { "--trace", SWITCH, &o.trace, 0, 0 },
        { "--trace=json", SWITCH, &o.trace_json, 0, 0 }, { "-q", SWITCH, &o.quiet, 0, 0 },
        { "-h", SWITCH, &o.help, 0, 0 },                { "--help", SWITCH, &o.help, 0, 0 },
        { "--version", SWITCH, &o.version, 0, 0 },
    };
    int n = sizeof options / sizeof *options;
    for (int i = 1, k; i < argc; i++) {
        for (k = 0; k < n && strcmp(argv[i], options[k].name); k++) {}
        if (k < n) {
            set(&options[k], argv[i + 1]);
            i += options[k].kind != SWITCH;
        } else if (argv[i][0] == '-') {
            fail(MISUSED, "there is no option %s; see run --help", argv[i]);
        } else if (!argv[i][0]) {
            fail(MISUSED, "the checkpoint's name is empty");
        } else if (o.checkpoint) {
            fail(MISUSED, "one checkpoint is wanted, not both %s and %s", o.checkpoint, argv[i]);
        } else {
            o.checkpoint = argv[i];
        }
    }
    if (o.help || o.version) {
        fputs(o.help ? help : "prenorm 0.1\n", stdout);
        check_output();
        exit(DONE);
    }
    if (!choose_kernels(o.kernels))
        fail(MISUSED, "--kernels %s: this CPU runs %s", o.kernels, kernel_names());
    if (o.prompt && o.prompt_file) fail(MISUSED, "one prompt is wanted, not both -i and -f");
    static const char *const modes[] = {
        "generate", "chat", "perplexity", "bench", "tokenize", "info", NULL
    };
    o.mode = choice("-m", o.mode_name, modes);
    bool writes = o.mode == GENERATE || o.mode == CHAT;
    if ((o.trace || o.trace_json || o.logits) && !writes)
        fail(MISUSED, "%s is for -m generate and chat", o.logits ? "--logits" : "--trace");
    if (o.json && writes) fail(MISUSED, "--json is for reports: -m perplexity, bench, tokenize, info");
    if (o.special && o.mode == CHAT) fail(MISUSED, "--special: in a chat, the template puts such tokens in");
    if ((o.system || o.template_name || o.on_full) && o.mode != CHAT)
        fail(MISUSED, "%s is for -m chat", o.system ? "-y" : o.template_name ? "--template" : "--on-full");
    if (o.template_name && !(o.template = find_template(o.template_name)))
        fail(MISUSED, "--template %s: one of %s is wanted", o.template_name, template_names());
    if (o.n == INT_MIN) o.n = o.mode == CHAT ? -1 : o.mode == BENCH ? 5 : 256;
    if (o.mode == BENCH && (o.n < 1 || o.n > MOST_RUNS))
        fail(MISUSED, "-n %d: 1 to %d runs are wanted", o.n, MOST_RUNS);
    o.shift = o.on_full && choice("--on-full", o.on_full, (const char *[]){ "stop", "shift", NULL });
    if (o.mode == PERPLEXITY && !o.prompt && !o.prompt_file) fail(MISUSED, "which text? -f FILE or -i TEXT");
    if ((o.prompt || o.prompt_file) && (o.mode == BENCH || o.mode == INFO))
        fail(MISUSED, "%s: -m %s reads no text", o.prompt ? "-i" : "-f", o.mode_name);
    if (!o.checkpoint) {
        o.checkpoint = default_checkpoint();            // which would as soon begin in the middle of a story
        if (o.mode == GENERATE && !o.prompt && !o.prompt_file) o.prompt = "Once upon a time";
    }
    if (!o.checkpoint)
        fail(MISUSED, "which checkpoint? There is no models/stories-%s.gguf beside the program; "
             "see run --help", norm_name());
    if (o.logits && (same_file(o.logits, o.checkpoint) || same_file(o.logits, o.tokenizer) ||
                     same_file(o.logits, o.prompt_file) || same_file(o.logits, "/dev/stdin") ||
                     same_file(o.logits, "/dev/stdout")))
        fail(MISUSED, "--logits %s would write over what is read or written", o.logits);
    o.kv_type = choice("--kv", o.kv, (const char *[]){ "f16", "f32", NULL }) ? F32 : F16;
    o.sampler.random = read_seed(o.seed);
    return o;
}

// ---------------------------------------------------------------------------- loading

static Text read_prompt(const Options *o) {
    const char *given = o->prompt ? o->prompt : "";
    if (!o->prompt_file) return (Text){ given, strlen(given) };
    FILE *f = strcmp(o->prompt_file, "-") ? fopen(o->prompt_file, "rb") : stdin;
    if (!f) fail(FAILED, "%s: %s", o->prompt_file, strerror(errno));
    char *data = NULL;
    size_t size = 0;
    for (size_t room = 0; !feof(f) && !ferror(f); size += fread(data + size, 1, room - size, f)) {
        if (size > MOST_TEXT) fail(FAILED, "%s: a text of more than 256 MB is too long", o->prompt_file);
        if (room - size < 4096 && !(data = realloc(data, room = 2 * room + 65536)))
            fail(FAILED, "%s: no memory for a text of this size", o->prompt_file);
    }
    if (ferror(f)) {
        int reason = errno;
        free(data);
        fail(FAILED, "%s: %s", o->prompt_file, strerror(reason));
    }
    if (f != stdin) fclose(f);
    return (Text){ data, size };
}

static const char *try_vocabulary(Vocabulary *v, Bytes *file, const char *path, int vocab_size) {
    const char *error = map_file(file, path);
    if (error) return error;
    error = vocabulary_read(v, *file, vocab_size);
    if (error) unmap_file(*file);
    return error;
}

// The tokenizer that was named, else the one of two beside the checkpoint that fits it.
static void find_vocabulary(Vocabulary *v, Bytes *file, const Options *o, int vocab_size) {
    const char *slash = strrchr(o->checkpoint, '/'), *path = o->tokenizer, *error;
    int folder = slash ? (int)(slash - o->checkpoint) + 1 : 0;
    char plain[4096], sized[4096];
    snprintf(plain, sizeof plain, "%.*stokenizer.bin", folder, o->checkpoint);
    snprintf(sized, sizeof sized, "%.*stok%d.bin", folder, o->checkpoint, vocab_size);
    if (!path) path = plain;
    if (same_file(o->logits, plain) || same_file(o->logits, sized))
        fail(MISUSED, "--logits %s would write over a tokenizer", o->logits);
    error = try_vocabulary(v, file, path, vocab_size);
    if (error && !o->tokenizer && access(sized, F_OK) == 0)
        error = try_vocabulary(v, file, path = sized, vocab_size);
    if (error) fail(FAILED, "%s: %s%s", path, error, o->tokenizer ? "" : "; name a tokenizer with -z FILE");
}

// Of a GGUF file, which has it inside, or of a tokenizer file named with -z.
static void load_vocabulary(Vocabulary *v, Bytes *file, const Options *o, Bytes checkpoint, int vocab_size) {
    if (o->tokenizer || !is_gguf(checkpoint)) {
        find_vocabulary(v, file, o, vocab_size);
        return;
    }
    const char *error = vocabulary_read(v, checkpoint, vocab_size);
    if (error) fail(FAILED, "%s: %s", o->checkpoint, error);
}

static void load_model(Model *m, Bytes file, const Options *o) {
    const char *error = checkpoint_read(m, file);
    if (error) fail(FAILED, "%s: %s", o->checkpoint, error);
    if (strcmp(m->config.norm, norm_name()) && !o->swap_norm && o->mode != TOKENIZE)
        fail(FAILED, "%s was trained with %s, and this build runs %s: use the one of 'make NORM=%s', or run "
             "it on purpose with --swap-norm", o->checkpoint, m->config.norm, norm_name(), m->config.norm);
}

// ---------------------------------------------------------------------------- what it does

// The ids of BOS and the prompt.
static int *prompt_ids(int *n, const Vocabulary *v, Text prompt, const Options *o, bool bos) {
    int *ids = malloc((2 * prompt.size + 2) * sizeof *ids);
    const char *error = "no memory for the prompt";
    if (ids) error = tokenize(ids + bos, n, v, &(Span){ .text = prompt, .control = o->special }, 1);
    if (error) fail(FAILED, "%s: %s", o->prompt_file ? o->prompt_file : "the prompt", error);
    if (bos) ids[0] = v->bos, ++*n;
    return ids;
}

static void choose_template(ChatTemplate *t, const Options *o, const Vocabulary *v) {
    const char *unread = o->template ? NULL : read_template(t, v);
    if (o->template) *t = *o->template;
    if (!t->name)
        fail(FAILED, "%s has %s; with --template NAME it is taken for one of %s", o->checkpoint,
             v->chat_template.size ? "a chat template that is not known" : "no chat template",
             template_names());
    if (unread && !o->trace_json)
        fprintf(stderr, "run: %s: the words of %s are used instead; see --template\n", unread, t->name);
    if (t->no_system && o->system && *o->system && !o->trace_json)
        fprintf(stderr, "run: the chat template has no place for a system prompt; it stands where %s has it, "
                "if anywhere; see --template\n", t->name);
}

static void write_text(Options *o, const Model *m, const Vocabulary *v, Text text, double started) {
    const char *error;
    ChatTemplate template = { 0 };
    Writing w = {
        .model = m, .vocabulary = v, .sampler = &o->sampler, .seed = o->sampler.random, .n = o->n,
        .context = o->context ? o->context : default_context(&m->config), .kv_type = o->kv_type,
        .logits = o->logits, .trace = o->trace_json ? trace_json : o->trace ? trace_text : NULL,
        .file = o->checkpoint, .quiet = o->quiet || o->trace_json, .started = started, .reply_end = -1,
    };
    if (o->mode == CHAT) {
        choose_template(&template, o, v);
        w.template = &template;
        w.reply_end = reply_end(v, w.template);
        w.system = (Text){ o->system ? o->system : "", o->system ? strlen(o->system) : 0 };
        w.shift = o->shift;
        error = chat(&w, text);
        template_free(&template);
    } else {
        int n, *ids = prompt_ids(&n, v, text, o, v->add_bos && v->bos >= 0);
        if (n == 0) fail(MISUSED, "this model has no token to begin with: give it a prompt, -i TEXT");
        if (n > w.context)
            fail(MISUSED, "the prompt takes %d tokens, the context holds %d: see -c", n, w.context);
        error = generate(&w, text, ids, n);
        free(ids);
    }
    if (!error && w.trace && ferror(stderr)) error = "the trace could not be written";
    if (error) fail(FAILED, "%s: %s", o->checkpoint, error);
}

static void print_perplexity(const Options *o, const Model *m, const Vocabulary *v, Text text) {
    int context = o->context ? o->context : default_context(&m->config), n;
    int *ids = prompt_ids(&n, v, text, o, v->add_bos && v->bos >= 0);
    int most = context < PROMPT_CHUNK ? context : PROMPT_CHUNK;
    State state;
    Perplexity p;
    const char *error = state_create(&state, &m->config, context, most, most, o->kv_type);
    if (error) fail(FAILED, "%s: %s", o->checkpoint, error);
    double started = seconds();
    if ((error = perplexity(&p, m, &state, v, ids, n, isatty(2) && !o->quiet, &interrupted)))
        fail(FAILED, "%s: %s", o->prompt_file ? o->prompt_file : "the text", error);
    double taken = seconds() - started;
    if (o->json) {
        print_json_number(stdout, "{\"perplexity\": ", p.perplexity);
        print_json_number(stdout, ", \"stderr\": ", p.standard_error);
        printf(", \"tokens\": %ld, \"windows\": %d, \"context\": %d, \"seconds\": %.17g, \"norm\": \"%s\", "
               "\"kernels\": \"%s\"}\n", p.tokens, p.windows, context, taken, norm_name(), kernels.name);
    } else {
        printf("perplexity %.4f +/- %.4f over %ld tokens in %d windows of %d\n", p.perplexity,
               p.standard_error, p.tokens, p.windows, context);
    }
    check_output();
    if (p.windows < p.all) fprintf(stderr, "run: interrupted after %d of %d windows\n", p.windows, p.all);
    if (!o->quiet)
        fprintf(stderr, "%s, kernels %s, %.2f s, %.1f tokens/s\n", norm_name(), kernels.name, taken,
                (double)p.windows * context / taken);
    state_free(&state);
    free(ids);
}

static void print_share(const double *share) {
    static const char *const parts[] = { "norm", "attention", "ffn", "matmul", "other" };
    fputs("\"share\": {", stdout);
    for (int i = 0; i < 5; i++) printf("%s\"%s\": %.17g", i ? ", " : "", parts[i], share[i]);
    fputs("}", stdout);
}

static void print_numbers(const char *name, const double *x, int n) {
    printf("\"%s\": [", name);
    for (int i = 0; i < n; i++) printf("%s%.17g", i ? ", " : "", x[i]);
    fputs("], ", stdout);
}

static void print_phase(const char *name, const Phase *p, int n, bool json) {
    double mean = mean_of(p->runs, n), sd = deviation_of(p->runs, n);
    if (!json) {
        printf("%-8s %9.1f +/- %.1f tokens/s, %d tokens, %d runs\n", name, mean, sd, p->tokens, n);
        return;
    }
    printf("\"%s\": {\"tokens\": %d, ", name, p->tokens);
    print_numbers("runs", p->runs, n);
    print_numbers("cpu_runs", p->cpu_runs, n);
    printf("\"mean\": %.17g, \"sd\": %.17g", mean, sd);
}

static void print_bench(const Options *o, const Model *m, double load, int threads) {
    Bench b;
    struct rusage usage;
    int context = o->context ? o->context : default_context(&m->config);
    bool progress = isatty(2) && !o->quiet;
    const char *error = bench(&b, m, o->kv_type, context, o->n, progress, &interrupted);
    if (error) fail(FAILED, "%s: %s", o->checkpoint, error);
    getrusage(RUSAGE_SELF, &usage);
    double rate = mean_of(b.decode.runs, b.runs) * (double)bytes_per_token(m);
    double limit = mean_of(b.read_limits, b.runs);
    const double *share = b.decode.share;
    printf("%s", o->json ? "{" : "");
    print_phase("prefill", &b.prefill, b.runs, o->json);
    if (o->json) {
        printf(", "), print_share(b.prefill.share);
        printf(", \"norm_ns\": %.17g}, ", b.prefill.norm_ns);
    }
    print_phase("decode", &b.decode, b.runs, o->json);
    if (o->json) {
        for (int i = 0; i < b.runs; i++) b.read_limits[i] /= 1e9;
        printf(", "), print_numbers("read_limits_gb_per_s", b.read_limits, b.runs);
        printf("\"gb_per_s\": %.17g}, \"read_limit_gb_per_s\": %.17g, ", rate / 1e9, limit / 1e9);
        print_share(share);
        printf(", \"norm_ns\": %.17g, \"load_ms\": %.17g, \"peak_bytes\": %ld, \"norm\": \"%s\", "
               "\"kernels\": \"%s\", \"threads\": %d}\n", b.decode.norm_ns, load * 1e3,
               usage.ru_maxrss * 1024, norm_name(), kernels.name, threads);
    } else {
        printf("weights  %9.2f GB/s, %.0f %% of the %.2f GB/s at which they can be read\n", rate / 1e9,
               100 * rate / limit, limit / 1e9);
        if (b.decode.norm_ns > 0)                       // otherwise it was stopped before
            printf("decoding norm %.1f %%, attention %.1f %%, ffn %.1f %%, matmul %.1f %%, other %.1f %%; "
                   "a norm takes %.0f ns\n", 100 * share[0], 100 * share[1], 100 * share[2], 100 * share[3],
                   100 * share[4], b.decode.norm_ns);
        printf("load     %9.2f ms, peak memory %.1f MB, %s, kernels %s, %d threads\n", load * 1e3,
               (double)usage.ru_maxrss / 1e3, norm_name(), kernels.name, threads);
    }
    check_output();
    if (b.runs < o->n) fprintf(stderr, "run: interrupted after %d of %d runs\n", b.runs, o->n);
}

static void print_tokens(const Options *o, const Vocabulary *v, Text text) {
    int n, *ids = prompt_ids(&n, v, text, o, false);
    if (o->json) fputs("{\"tokens\": [", stdout);
    for (int i = 0; i < n; i++) printf("%s%s%d", i && o->json ? "," : "", i ? " " : "", ids[i]);
    puts(o->json ? "]}" : "");
    check_output();
    free(ids);
}

// ---------------------------------------------------------------------------- the program

// The first file that we open must not take the place of a standard stream that is closed. (Read only:
// writing to it fails, and is reported.)
static void reserve_standard_streams(void) {
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDONLY) < 0) exit(FAILED);
}

int main(int argc, char **argv) {
    double started = seconds();
    reserve_standard_streams();
    sigaction(SIGPIPE, &(struct sigaction){ .sa_handler = SIG_IGN }, NULL);
    Options o = parse(argc, argv);
    Bytes file = { 0 }, vocabulary_file = { 0 };
    Model model = { 0 };
    Vocabulary vocabulary = { 0 };
    const char *error = map_file(&file, o.checkpoint);
    if (!error && o.mode == INFO && !(error = print_info(file, o.json))) check_output();
    if (error) fail(FAILED, "%s: %s", o.checkpoint, error);
    if (o.mode == INFO) {
        unmap_file(file);
        return DONE;
    }

    bool vocabulary_only = o.mode == TOKENIZE && (o.tokenizer || is_gguf(file));
    if (!vocabulary_only) load_model(&model, file, &o);
    load_vocabulary(&vocabulary, &vocabulary_file, &o, file, model.config.vocab_size);
    Text text = read_prompt(&o);
    catch_interrupts(true);
    int threads = threads_start(o.threads ? o.threads : threads_available());
    if (o.mode == GENERATE || o.mode == CHAT) write_text(&o, &model, &vocabulary, text, started);
    if (o.mode == BENCH) print_bench(&o, &model, seconds() - started, threads);
    if (o.mode == PERPLEXITY) print_perplexity(&o, &model, &vocabulary, text);
    if (o.mode == TOKENIZE) print_tokens(&o, &vocabulary, text);

    threads_stop();
    if (o.prompt_file) free((void *)(uintptr_t)text.data);
    vocabulary_free(&vocabulary);
    model_free(&model);
    unmap_file(vocabulary_file);
    unmap_file(file);
    return DONE;
}
