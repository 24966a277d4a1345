// run.c - the program: read the command line, load a checkpoint, then write text, chat, measure or report.
//
// Standard output carries the text, or a report; everything that is said about it goes to standard error.
#include "model.h"
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---------------------------------------------------------------------------- endings

enum { DONE, FAILED, MISUSED };                 // exit status: fine; file, memory or machine; command line

static void fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));
static void fail(int status, const char *format, ...) {
    const char *shortened = shortened_file();           // is what all else comes from
    va_list arguments;
    fflush(stdout);
    if (shortened) {
        fputs(shortened, stderr);
        exit(FAILED);
    }
    va_start(arguments, format);
    say_list(format, arguments);
    exit(interrupted > 0 ? end_by_signal(interrupted) : status);
}

static void check_output(void) {
    const char *error = flush_output();
    if (!error) return;
    say("%s", error);
    _Exit(FAILED);                                      // exit() would try again
}

// ---------------------------------------------------------------------------- what to read

// The model it comes with lies in models/ beside the program, or in share/prenorm/models/ where it is
// installed. NULL: neither.
static const char *default_checkpoint(void) {
    static char path[5000];
    static const char *const folders[] = { "", "../share/prenorm/" };
    const char *here = program_folder();
    for (int i = 0; i < 2 && here; i++) {
        snprintf(path, sizeof path, "%s%smodels/stories-%s.gguf", here, folders[i], norm_name());
        if (file_exists(path)) return path;
    }
    return NULL;
}

static void ask_for_text(void) { fail(MISUSED, "which text? -f FILE, -i TEXT, or a pipe"); }

static Options parse(int argc, char **argv) {
    Options o;
    const char *error = read_options(&o, argc, argv);
    if (error) fail(MISUSED, "%s", error);
    if (o.help || o.version) {
        if (o.help) print_help();
        else puts("prenorm 0.1");
        check_output();
        exit(DONE);
    }
    if (o.like_threads && !o.trace_json)
        say("-t %g is the temperature; did you mean -j %g, the threads?", o.sampler.temperature,
            o.sampler.temperature);
    bool reads = o.mode == GENERATE || o.mode == TOKENIZE || o.mode == PERPLEXITY;
    o.piped = reads && !o.prompt && !o.prompt_file && has_text(0);
    if (o.mode == PERPLEXITY && !o.prompt && !o.prompt_file && !o.piped) ask_for_text();
    if (!o.checkpoint) {
        o.checkpoint = default_checkpoint();            // which would as soon begin in the middle of a story
        if (o.mode == GENERATE && !o.prompt && !o.prompt_file) o.prompt = "Once upon a time";
    }
    if (!o.checkpoint)
        fail(MISUSED, "which checkpoint? There is no models/stories-%s.gguf beside the program; "
             "see %s --help", norm_name(), program);
    if (o.logits && (same_file(o.logits, o.checkpoint) || same_file(o.logits, o.tokenizer) ||
                     same_file(o.logits, o.prompt_file) || same_file(o.logits, "/dev/stdin") ||
                     same_file(o.logits, "/dev/stdout")))
        fail(MISUSED, "--logits %s would write over what is read or written", o.logits);
    return o;
}

// ---------------------------------------------------------------------------- loading

static Text read_stream(FILE *f, const char *name) {
    char *data = NULL;
    size_t size = 0;
    for (size_t room = 0; !feof(f) && !ferror(f); size += fread(data + size, 1, room - size, f)) {
        if (size > MAX_TEXT) fail(FAILED, "%s: a text of more than 256 MB is too long", name);
        if (room - size < 4096 && !(data = realloc(data, room = 2 * room + 65536)))
            fail(FAILED, "%s: no memory for a text of this size", name);
    }
    if (ferror(f)) {
        int reason = errno;
        free(data);
        fail(FAILED, "%s: %s", name, strerror(reason));
    }
    return (Text){ data, size };
}

// A byte order mark says that a text is UTF-16, or that it is UTF-8. It is no part of the text.
static Text without_mark(Text t, const char *name) {
    bool big = t.size >= 2 && !memcmp(t.data, "\xfe\xff", 2);
    bool little = t.size >= 2 && !memcmp(t.data, "\xff\xfe", 2);
    size_t mark = big || little ? 2 : t.size >= 3 && !memcmp(t.data, "\xef\xbb\xbf", 3) ? 3 : 0;
    if (!mark) return t;
    char *data = malloc(t.size / 2 * 3 + 3);
    if (!data) fail(FAILED, "%s: no memory for a text of this size", name);
    size_t size = t.size - mark;
    if (mark == 2) size = utf8_from_utf16(data, t.data + mark, size, big);
    else memcpy(data, t.data + mark, size);
    free((void *)(uintptr_t)t.data);
    return (Text){ data, size };
}

static void mention_zeros(Text t, const char *name) {
    size_t zeros = 0;
    for (size_t i = 0; i < t.size; i++) zeros += t.data[i] == 0;
    if (zeros)
        say("%s: %zu of %zu bytes are zeros (NUL), and are read as such; is it UTF-16 without a byte order "
            "mark?", name, zeros, t.size);
}

static Text given_prompt(const Options *o) {
    char *copy = strdup(o->prompt ? o->prompt : "");
    if (!copy) fail(FAILED, "no memory for the prompt");
    return (Text){ copy, strlen(copy) };
}

// To be freed.
static Text read_prompt(const Options *o) {
    bool from_stream = o->piped || (o->prompt_file && !strcmp(o->prompt_file, "-"));
    const char *name = from_stream ? "standard input" : o->prompt_file;
    if (!name) return given_prompt(o);
    FILE *f = from_stream ? stdin : open_file(name, "rb");
    if (!f) fail(FAILED, "%s: %s", name, strerror(errno));
    Text t = without_mark(read_stream(f, name), name);
    if (!from_stream) fclose(f);
    if (o->piped && t.size && t.data[t.size - 1] == '\n') t.size--;       // which echo adds
    if (!t.size && o->mode == PERPLEXITY) ask_for_text();
    if (o->piped && !t.size) free((void *)(uintptr_t)t.data), t = given_prompt(o);
    if (!o->trace_json) mention_zeros(t, name);
    return t;
}

static const char *map_and_watch(Bytes *file, const char *path) {
    const char *error = map_file(file, path);
    if (!error) watch_file(*file, complain("%s: %s became shorter while it was being read", program, path));
    return error;
}

static const char *try_vocabulary(Vocabulary *v, Bytes *file, const char *path, int vocab_size) {
    const char *error = map_and_watch(file, path);
    if (error) return error;
    error = vocabulary_read(v, *file, vocab_size);
    if (error) unmap_file(*file);
    return error;
}

// The tokenizer that was named, else the one of two beside the checkpoint that fits it.
static void find_vocabulary(Vocabulary *v, Bytes *file, const Options *o, int vocab_size) {
    const char *path = o->tokenizer, *error;
    int folder = folder_length(o->checkpoint);
    char plain[4096], sized[4096];
    snprintf(plain, sizeof plain, "%.*stokenizer.bin", folder, o->checkpoint);
    snprintf(sized, sizeof sized, "%.*stok%d.bin", folder, o->checkpoint, vocab_size);
    if (!path) path = plain;
    if (same_file(o->logits, plain) || same_file(o->logits, sized))
        fail(MISUSED, "--logits %s would write over a tokenizer", o->logits);
    error = try_vocabulary(v, file, path, vocab_size);
    if (error && !o->tokenizer && file_exists(sized))
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

// A trace for programs has standard error to itself.
static void print_remarks(const Vocabulary *v, const Options *o) {
    for (const char *line = v->remarks, *end; (end = strchr(line, '\n')) && !o->trace_json; line = end + 1)
        fprintf(stderr, "run: %.*s\n", (int)(end - line), line);
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
    if (bos && *n > 1 && ids[1] == v->bos && !o->trace_json)
        fputs("run: the text begins with BOS, and the model is given one before any text: two\n", stderr);
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
        .stop = o->stop, .n_stop = o->n_stop, .ignore_eos = o->ignore_eos, .json = o->json, .top = o->top,
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
    if ((error = perplexity(&p, m, &state, v, ids, n, is_terminal(2) && !o->quiet, &interrupted)))
        fail(FAILED, "%s: %s", o->prompt_file ? o->prompt_file : "the text", error);
    double taken = seconds() - started;
    if (o->json) {
        print_json_number(stdout, "{\"perplexity\": ", p.perplexity);
        print_json_number(stdout, ", \"stderr\": ", p.standard_error);
        printf(", \"tokens\": %ld, \"windows\": %d, \"all_windows\": %d, \"interrupted\": %s, "
               "\"context\": %d, \"seconds\": %.17g, \"norm\": \"%s\", \"kernels\": \"%s\"}\n", p.tokens,
               p.windows, p.all, p.windows < p.all ? "true" : "false", context, taken, norm_name(),
               kernels.name);
    } else {
        printf("perplexity %.4f +/- %.4f over %ld tokens in %d windows of %d%s\n", p.perplexity,
               p.standard_error, p.tokens, p.windows, context, p.windows < p.all ? ", interrupted" : "");
    }
    check_output();
    if (p.windows < p.all) say("interrupted after %d of %d windows", p.windows, p.all);
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
    int context = o->context ? o->context : default_context(&m->config);
    bool progress = is_terminal(2) && !o->quiet;
    const char *error = bench(&b, m, o->kv_type, context, o->n, progress, &interrupted);
    if (error) fail(FAILED, "%s: %s", o->checkpoint, error);
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
        printf(", \"norm_ns\": %.17g, \"load_ms\": %.17g, \"peak_bytes\": %zu, \"norm\": \"%s\", "
               "\"kernels\": \"%s\", \"threads\": %d, \"interrupted\": %s}\n", b.decode.norm_ns, load * 1e3,
               peak_memory(), norm_name(), kernels.name, threads, interrupted > 0 ? "true" : "false");
    } else {
        printf("weights  %9.2f GB/s, %.0f %% of the %.2f GB/s at which they can be read\n", rate / 1e9,
               100 * rate / limit, limit / 1e9);
        if (b.decode.norm_ns > 0)                       // otherwise it was stopped before
            printf("decoding norm %.1f %%, attention %.1f %%, ffn %.1f %%, matmul %.1f %%, other %.1f %%; "
                   "a norm takes %.0f ns\n", 100 * share[0], 100 * share[1], 100 * share[2], 100 * share[3],
                   100 * share[4], b.decode.norm_ns);
        printf("load     %9.2f ms, peak memory %.1f MB, %s, kernels %s, %d threads%s\n", load * 1e3,
               (double)peak_memory() / 1e6, norm_name(), kernels.name, threads,
               interrupted > 0 ? ", interrupted" : "");
    }
    check_output();
    if (b.runs < o->n) say("interrupted after %d of %d runs", b.runs, o->n);
}

// The ids in a line; or with --pieces, a line for each, and its text.
static void print_tokens(const Options *o, const Vocabulary *v, Text text) {
    int n, *ids = prompt_ids(&n, v, text, o, false);
    if (o->json) fputs("{\"tokens\": [", stdout);
    for (int i = 0; i < n; i++) {
        if (!o->pieces || o->json) {
            printf("%s%s%d", i && o->json ? "," : "", i ? " " : "", ids[i]);
        } else {
            printf("%7d  ", ids[i]);
            print_token(stdout, v, ids[i]);
            putchar('\n');
        }
    }
    if (o->json) fputs("], \"pieces\": [", stdout);
    for (int i = 0; i < n && o->json; i++) {
        if (i) fputs(", ", stdout);
        print_token(stdout, v, ids[i]);
    }
    if (o->json || !o->pieces) puts(o->json ? "]}" : "");
    check_output();
    free(ids);
}

// ---------------------------------------------------------------------------- the program

// What a run returns: a file that has become shorter was not read as a whole, and who interrupts a run wants
// a shell's loop over models to end.
static int exit_status(void) {
    const char *sentence = shortened_file();
    if (sentence) fputs(sentence, stderr);
    return sentence ? FAILED : interrupted > 0 ? end_by_signal(interrupted) : DONE;
}

int main(int argc, char **argv) {
    double started = seconds();
    if (argc && *argv[0]) program = argv[0] + folder_length(argv[0]);
    Options o = parse(argc, prepare_process(argc, argv));
    Bytes file = { 0 }, vocabulary_file = { 0 };
    Model model = { 0 };
    Vocabulary vocabulary = { 0 };
    const char *error = map_and_watch(&file, o.checkpoint);
    if (!error && o.mode == INFO && !(error = print_info(file, o.json))) check_output();
    if (error) fail(FAILED, "%s: %s", o.checkpoint, error);
    if (o.mode == INFO) {
        int status = exit_status();
        unmap_file(file);
        return status;
    }

    bool vocabulary_only = o.mode == TOKENIZE && (o.tokenizer || is_gguf(file));
    if (!vocabulary_only) load_model(&model, file, &o);
    load_vocabulary(&vocabulary, &vocabulary_file, &o, file, model.config.vocab_size);
    print_remarks(&vocabulary, &o);
    Text text = read_prompt(&o);
    catch_interrupts(true);
    int threads = threads_start(o.threads ? o.threads : threads_available());
    if (o.mode == GENERATE || o.mode == CHAT) write_text(&o, &model, &vocabulary, text, started);
    if (o.mode == BENCH) print_bench(&o, &model, seconds() - started, threads);
    if (o.mode == PERPLEXITY) print_perplexity(&o, &model, &vocabulary, text);
    if (o.mode == TOKENIZE) print_tokens(&o, &vocabulary, text);

    threads_stop();
    free((void *)(uintptr_t)text.data);
    vocabulary_free(&vocabulary);
    model_free(&model);
    int status = exit_status();
    unmap_file(vocabulary_file);
    unmap_file(file);
    return status;
}
