// run.c - the program: read the command line, load a checkpoint, then generate text or list tokens.
//
// Standard output carries text and nothing else; everything that is said about it goes to standard error.
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
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char help[] =
    "usage: run CHECKPOINT [options]       a .gguf, or a .bin of llama2.c\n"
    "  -m MODE             generate (default), perplexity, tokenize, info\n"
    "  -i TEXT             prompt                     -f FILE  prompt from a file, - is standard input\n"
    "  -n N                tokens to write after the prompt (256; -1: until the context is full)\n"
    "  -t T                temperature (1.0; 0: always the likeliest token)\n"
    "  -p P                top-p (0.9; 1: off)        -k K     top-k (0: off)\n"
    "  --min-p P           min-p (0: off)             --repeat-penalty R  over the last 64 tokens (1: off)\n"
    "  -s SEED             of the random numbers, 64 bits (default: drawn, and printed at the end)\n"
    "  -c N                context length (default: the file's, at most 4096)\n"
    "  -j N                threads (default: the processors this process may run on)\n"
    "  -z FILE             tokenizer.bin (default: beside the checkpoint: tokenizer.bin, or tok<vocabulary "
    "size>.bin)\n"
    "  --kv f16|f32        type of the KV cache (f16)\n"
    "  --kernels NAME      portable\n"
    "  --swap-norm         run a file that was trained with the other norm\n"
    "  --special           control tokens in the prompt are such, not letters\n"
    "  --logits FILE       write the logits of every position to a .npy file\n"
    "  --json              the report of perplexity, tokenize and info, for programs\n"
    "  --trace             print what every operation computed\n"
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

static volatile sig_atomic_t interrupted;
static void interrupt(int signal) { (void)signal; interrupted = 1; }

static bool reader_left;                                // of a pipe: no error, and nothing more to say

// Nothing is lost in silence.
static void flush_output(void) {
    if (reader_left || (fflush(stdout) == 0 && !ferror(stdout))) return;
    if (errno != EPIPE) {
        fprintf(stderr, "run: cannot write the text: %s\n", strerror(errno));
        _exit(FAILED);
    }
    reader_left = true;
    interrupted = 1;
}

// ---------------------------------------------------------------------------- the command line

typedef struct {
    const char *checkpoint, *mode_name, *prompt, *prompt_file, *tokenizer, *seed, *kv, *kernels, *logits;
    int n, context, threads;
    enum { GENERATE, PERPLEXITY, TOKENIZE, INFO } mode;
    Type kv_type;
    bool swap_norm, special, trace, json, quiet, help, version;
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

static bool same_file(const char *a, const char *b) {
    struct stat x, y;
    return a && b && stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static Options parse(int argc, char **argv) {
    Options o = { .mode_name = "generate", .kv = "f16", .n = 256,
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
        { "--special", SWITCH, &o.special, 0, 0 },
        { "--json", SWITCH, &o.json, 0, 0 },            { "--trace", SWITCH, &o.trace, 0, 0 },
        { "-q", SWITCH, &o.quiet, 0, 0 },               { "-h", SWITCH, &o.help, 0, 0 },
        { "--help", SWITCH, &o.help, 0, 0 },            { "--version", SWITCH, &o.version, 0, 0 },
    };
    int n = sizeof options / sizeof *options;
    for (int i = 1, k; i < argc; i++) {
        for (k = 0; k < n && strcmp(argv[i], options[k].name); k++) {}
        if (k < n) {
            set(&options[k], argv[i + 1]);
            i += options[k].kind != SWITCH;
        } else if (argv[i][0] == '-') {
            fail(MISUSED, "there is no option %s; see run --help", argv[i]);
        } else if (o.checkpoint) {
            fail(MISUSED, "one checkpoint is wanted, not both %s and %s", o.checkpoint, argv[i]);
        } else {
            o.checkpoint = argv[i];
        }
    }
    if (o.help || o.version) {
        fputs(o.help ? help : "prenorm 0.1\n", stdout);
        flush_output();
        exit(DONE);
    }
    if (!choose_kernels(o.kernels))
        fail(MISUSED, "--kernels %s: portable is what there is", o.kernels);
    if (o.prompt && o.prompt_file) fail(MISUSED, "one prompt is wanted, not both -i and -f");
    static const char *const modes[] = { "generate", "perplexity", "tokenize", "info", NULL };
    o.mode = choice("-m", o.mode_name, modes);
    if ((o.trace || o.logits) && o.mode != GENERATE)
        fail(MISUSED, "%s is for -m generate", o.trace ? "--trace" : "--logits");
    if (o.json && o.mode == GENERATE) fail(MISUSED, "--json is for reports: -m perplexity, tokenize, info");
    if (o.mode == PERPLEXITY && !o.prompt && !o.prompt_file) fail(MISUSED, "which text? -f FILE or -i TEXT");
    if (!o.checkpoint || !*o.checkpoint) fail(MISUSED, "which checkpoint? See run --help");
    if (o.logits && (same_file(o.logits, o.checkpoint) || same_file(o.logits, o.tokenizer) ||
                     same_file(o.logits, o.prompt_file)))
        fail(MISUSED, "--logits %s would write over what is read", o.logits);
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
    for (size_t room = 0, got = 1; got; size += got) {
        if (room - size < 4096 && !(data = realloc(data, room = 2 * room + 65536)))
            fail(FAILED, "%s: no memory for a text of this size", o->prompt_file);
        got = fread(data + size, 1, room - size, f);
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

// ---------------------------------------------------------------------------- generating

enum { PROMPT_CHUNK = 512 };                            // tokens of a prompt that go through together

typedef struct {
    const Options *o;
    const Model *m;
    const Vocabulary *v;
    State state;
    int *ids, n_ids;        // BOS, the prompt, and what has been written
    int fed;                // ids that have been through the model
    FILE *logits;
    const float *last;      // logits after the last id fed
} Run;

// Feed the ids that the model has not seen, T at a time, and keep the logits after the last.
static void feed(Run *r, int most) {
    int vocab_size = r->m->config.vocab_size, first = r->fed;
    while (r->fed < r->n_ids && !interrupted) {
        int T = r->n_ids - r->fed < most ? r->n_ids - r->fed : most;
        int wanted = r->logits ? T : r->fed + T == r->n_ids;
        const float *logits = forward(r->m, &r->state, r->ids + r->fed, T, r->fed, wanted);
        r->fed += T;
        if (r->logits) fwrite(logits, sizeof(float), (size_t)wanted * vocab_size, r->logits);
        if (wanted) r->last = logits + (size_t)(wanted - 1) * vocab_size;
        if (r->n_ids - first > most && isatty(2) && !r->o->quiet)
            fprintf(stderr, "\rreading the prompt: %d of %d%s", r->fed, r->n_ids,
                    r->fed == r->n_ids ? "\n" : "");
    }
    for (int i = 0; i < vocab_size && r->last; i++)
        if (!isfinite(r->last[i]))
            fail(FAILED, "%s: the logits after position %d are not finite: %s", r->o->checkpoint, r->fed - 1,
                 why_not_finite(&r->state));
}

static void write_token(Utf8 *utf8, const Piece *piece, bool terminal) {
    char ready[8];
    for (int i = 0; i < piece->length; i++)
        fwrite(ready, 1, (size_t)utf8_push(ready, utf8, (uint8_t)piece->text[i], terminal), stdout);
    flush_output();
}

// Token after token, until there are enough, the text has ended or the context is full. True: the last.
static bool write_text(Run *r, Sampler *sampler) {
    const Options *o = r->o;
    bool terminal = isatty(1), full = false;
    Utf8 utf8 = { { 0 }, 0 };
    for (int written = 0; written != o->n && !interrupted && !full; written++) {
        if (written) feed(r, 1);
        if (interrupted) break;
        int id = sample(sampler, r->last, r->m->config.vocab_size, r->ids, r->n_ids);
        if (ends_text(r->v, id)) break;
        Piece piece = token_text(r->v, id, r->ids[r->n_ids - 1]);
        write_token(&utf8, &piece, terminal);
        r->ids[r->n_ids++] = id;
        full = r->fed == r->state.context && written + 1 != o->n;
    }
    char rest[8];
    fwrite(rest, 1, (size_t)utf8_flush(rest, &utf8, terminal), stdout);
    putchar('\n');
    flush_output();
    return full;
}

static void print_statistics(const Run *r, double load, double prefill, double decode, int prompt,
                             uint64_t seed) {
    int decoded = r->fed > prompt ? r->fed - prompt : 0, fed = r->fed - decoded;
    fprintf(stderr, "%s, kernels %s, context %d\n", norm_name(), kernels.name, r->state.context);
    fprintf(stderr, "load     %.2f ms\n", load * 1e3);
    fprintf(stderr, "prefill  %.2f ms, %d tokens, %.1f tokens/s\n", prefill * 1e3, fed, fed / prefill);
    if (decoded)
        fprintf(stderr, "decode   %.2f ms, %d tokens, %.1f tokens/s, %.2f GB/s of weights\n", decode * 1e3,
                decoded, decoded / decode, 1e-9 * (double)bytes_per_token(r->m) * decoded / decode);
    fprintf(stderr, "seed     %llu\n", (unsigned long long)seed);
    if (r->last)
        fprintf(stderr, "hash     %016llx\n",
                (unsigned long long)hash_logits(r->last, r->m->config.vocab_size));
}

// The ids of BOS and the prompt, with room for `more`.
static int *prompt_ids(int *n, const Vocabulary *v, Text prompt, const Options *o, bool bos, size_t more) {
    int *ids = malloc((2 * prompt.size + 2 + more) * sizeof *ids);
    const char *error = "no memory for the prompt";
    if (ids) error = tokenize(ids + bos, n, v, prompt, o->special);
    if (error) fail(FAILED, "%s: %s", o->prompt_file ? o->prompt_file : "the prompt", error);
    if (bos) ids[0] = v->bos, ++*n;
    return ids;
}

static void generate(Options *o, const Model *m, const Vocabulary *v, Text prompt, double started) {
    const Config *c = &m->config;
    int context = o->context ? o->context : default_context(c);
    uint64_t seed = o->sampler.random;
    Run r = { .o = o, .m = m, .v = v };
    r.ids = prompt_ids(&r.n_ids, v, prompt, o, v->add_bos && v->bos >= 0, (size_t)context);
    if (r.n_ids == 0) fail(MISUSED, "this model has no token to begin with: give it a prompt, -i TEXT");
    if (r.n_ids > context)
        fail(MISUSED, "the prompt takes %d tokens, the context holds %d: see -c", r.n_ids, context);
    int prompt_length = r.n_ids, most = r.n_ids < PROMPT_CHUNK ? r.n_ids : PROMPT_CHUNK;
    const char *error = state_create(&r.state, c, context, most, o->logits ? most : 1, o->kv_type);
    if (!error) error = sampler_create(&o->sampler, c->vocab_size);
    if (error) fail(FAILED, "%s: %s", o->checkpoint, error);
    if (context > c->seq_len)
        fprintf(stderr, "run: the model was trained for %d positions; beyond them it may lose the thread\n",
                c->seq_len);
    if (o->trace) r.state.observer = trace_text, r.state.observer_context = stderr;
    if (o->logits && !(r.logits = npy_open(o->logits))) fail(FAILED, "%s: %s", o->logits, strerror(errno));

    double loaded = seconds();
    fwrite(prompt.data, 1, prompt.size, stdout);
    flush_output();
    feed(&r, most);
    double read = seconds();
    bool full = write_text(&r, &o->sampler);
    double done = seconds();

    if (r.logits && !npy_close(r.logits, r.fed, c->vocab_size))
        fail(FAILED, "%s: %s", o->logits, strerror(errno));
    if (full && !reader_left)
        fprintf(stderr, "run: the context of %d is full; -c makes it longer\n", context);
    if (!o->quiet && !reader_left)
        print_statistics(&r, loaded - started, read - loaded, done - read, prompt_length, seed);
    sampler_free(&o->sampler);
    state_free(&r.state);
    free(r.ids);
}

// ---------------------------------------------------------------------------- measuring

static void print_perplexity(const Options *o, const Model *m, const Vocabulary *v, Text text) {
    int context = o->context ? o->context : default_context(&m->config), n;
    int *ids = prompt_ids(&n, v, text, o, v->add_bos && v->bos >= 0, 0);
    int most = context < PROMPT_CHUNK ? context : PROMPT_CHUNK;
    State state;
    Perplexity p;
    const char *error = state_create(&state, &m->config, context, most, most, o->kv_type);
    if (error) fail(FAILED, "%s: %s", o->checkpoint, error);
    double started = seconds();
    if ((error = perplexity(&p, m, &state, v, ids, n, isatty(2) && !o->quiet, &interrupted)))
        fail(FAILED, "%s: %s", o->prompt_file ? o->prompt_file : "the text", error);
    double taken = seconds() - started;
    if (o->json)
        printf("{\"perplexity\": %.17g, \"stderr\": %.17g, \"tokens\": %ld, \"windows\": %d, "
               "\"context\": %d, \"seconds\": %.17g, \"norm\": \"%s\", \"kernels\": \"%s\"}\n", p.perplexity,
               p.standard_error, p.tokens, p.windows, context, taken, norm_name(), kernels.name);
    else
        printf("perplexity %.4f +/- %.4f over %ld tokens in %d windows of %d\n", p.perplexity,
               p.standard_error, p.tokens, p.windows, context);
    flush_output();
    if (!o->quiet)
        fprintf(stderr, "%s, kernels %s, %.2f s, %.1f tokens/s\n", norm_name(), kernels.name, taken,
                (double)p.windows * context / taken);
    state_free(&state);
    free(ids);
}

static void print_tokens(const Options *o, const Vocabulary *v, Text text) {
    int n, *ids = prompt_ids(&n, v, text, o, false, 0);
    if (o->json) fputs("{\"tokens\": [", stdout);
    for (int i = 0; i < n; i++) printf("%s%s%d", i && o->json ? "," : "", i ? " " : "", ids[i]);
    puts(o->json ? "]}" : "");
    flush_output();
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
    if (!error && o.mode == INFO && !(error = print_info(file, o.json))) flush_output();
    if (error) fail(FAILED, "%s: %s", o.checkpoint, error);
    if (o.mode == INFO) {
        unmap_file(file);
        return DONE;
    }

    bool vocabulary_only = o.mode == TOKENIZE && (o.tokenizer || is_gguf(file));
    if (!vocabulary_only) load_model(&model, file, &o);
    load_vocabulary(&vocabulary, &vocabulary_file, &o, file, model.config.vocab_size);
    Text text = read_prompt(&o);
    int flags = SA_RESTART | (int)SA_RESETHAND;         // the second one is not ours
    sigaction(SIGINT, &(struct sigaction){ .sa_handler = interrupt, .sa_flags = flags }, NULL);
    sigaction(SIGTERM, &(struct sigaction){ .sa_handler = interrupt, .sa_flags = flags }, NULL);
    threads_start(o.threads ? o.threads : threads_available());
    if (o.mode == GENERATE) generate(&o, &model, &vocabulary, text, started);
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
