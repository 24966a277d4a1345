// generate.c - write text: read the prompt many tokens at a time, then choose one token after the other.
// And chat: a conversation is the list of its turns; the KV cache holds as much of it as the model has read.
//
// Standard output carries text and nothing else; everything that is said about it goes to standard error.
#include "model.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---------------------------------------------------------------------------- standard output

static bool reader_left;                                // of a pipe: no error, and nothing more to say

const char *flush_output(void) {
    if (reader_left || (fflush(stdout) == 0 && !ferror(stdout))) return NULL;
    if (errno != EPIPE) return complain("cannot write the text: %s", strerror(errno));
    reader_left = true;
    interrupted = -1;
    return NULL;
}

static const char *end_line(Output *out) {
    output_end(out);
    if (!out->silent) putchar('\n');
    return flush_output();
}

// ---------------------------------------------------------------------------- a run

typedef struct {
    const Writing *w;
    State state;
    int *ids, n_ids;        // what the model reads: the prompt, and what has been written
    int fed;                // ids that have been through it
    const float *last;      // the logits after the last of them
    FILE *logits;
    int n_logits;           // rows written to it
    Output out;
    double *logprobs;       // of the tokens that were chosen, one by one, for a report
    Candidate *top;         // (tokens, n_top) the likeliest; p: log probabilities
    int n_top, n_chosen;
    int n_read, n_written;  // tokens of prompts, and of texts, that have been fed; and the time it took
    double loaded, reading, writing;
} Run;

static void remark(const Writing *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void remark(const Writing *w, const char *format, ...) {
    va_list arguments;
    if (reader_left || w->trace == trace_json) return;
    va_start(arguments, format);
    say_list(format, arguments);
    va_end(arguments);
}

// Room for what a report says of every token that is chosen.
static const char *begin_report(Run *r) {
    const Writing *w = r->w;
    int vocab_size = w->model->config.vocab_size;
    size_t n = (size_t)(w->n >= 0 && w->n < w->context ? w->n : w->context) + 1;
    r->n_top = w->top < vocab_size ? w->top : vocab_size;
    r->logprobs = calloc(n, sizeof *r->logprobs);
    r->top = calloc(n, ((size_t)r->n_top + 1) * sizeof *r->top);
    return r->logprobs && r->top ? NULL : "no memory for the report";
}

static const char *forbid_ends(Sampler *s, const Vocabulary *v, int vocab_size) {
    bool *never = malloc((size_t)vocab_size * sizeof *never);
    if (!never) return "no memory for the sampler";
    for (int id = 0; id < vocab_size; id++) never[id] = ends_text(v, id);
    s->never = never;
    return NULL;
}

static const char *begin_run(Run *r, const Writing *w, int longest_prompt) {
    const Config *c = &w->model->config;
    int most = longest_prompt < PROMPT_CHUNK ? longest_prompt : PROMPT_CHUNK;
    *r = (Run){ .w = w, .out = { .stop = w->stop, .n_stop = w->n_stop, .silent = w->json } };
    const char *error = state_create(&r->state, c, w->context, most, w->logits ? most : 1, w->kv_type);
    if (!error) error = sampler_create(w->sampler, c->vocab_size);
    if (!error && w->ignore_eos) error = forbid_ends(w->sampler, w->vocabulary, c->vocab_size);
    if (!error && (w->json || w->top)) error = begin_report(r);
    if (error) return error;
    if (!(r->ids = malloc(((size_t)w->context + 1) * sizeof *r->ids))) return "no memory for the text";
    if (w->logits && !(r->logits = npy_open(w->logits)))
        return complain("cannot write %s: %s", w->logits, strerror(errno));
    if (w->context > c->seq_len)
        remark(w, "the model was trained for %d positions; beyond them it may lose the thread", c->seq_len);
    r->state.observer = w->trace, r->state.observer_context = stderr;
    r->loaded = seconds();
    return NULL;
}

// Feed the ids that the model has not seen, many at a time, and keep the logits after the last.
static const char *feed(Run *r, bool progress) {
    int vocab_size = r->w->model->config.vocab_size, from = r->fed, most = r->state.max_tokens;
    while (r->fed < r->n_ids && !interrupted) {
        int T = r->n_ids - r->fed < most ? r->n_ids - r->fed : most;
        int wanted = r->logits ? T : r->fed + T == r->n_ids;
        const float *logits = forward(r->w->model, &r->state, r->ids + r->fed, T, r->fed, wanted);
        r->fed += T;
        r->n_logits += wanted;
        if (r->logits) fwrite(logits, sizeof(float), (size_t)wanted * vocab_size, r->logits);
        if (wanted) r->last = logits + (size_t)(wanted - 1) * vocab_size;
        if (progress && r->n_ids - from > most)
            fprintf(stderr, "\rreading the prompt: %d of %d%s", r->fed, r->n_ids,
                    r->fed == r->n_ids ? "\n" : "");
    }
    for (int i = 0; i < vocab_size && r->last; i++)
        if (!isfinite(r->last[i]))
            return complain("the logits after position %d are not finite: %s", r->fed - 1,
                            why_not_finite(&r->state));
    return NULL;
}

// The first line of a trace for programs: what the lines after it are about. In a chat, before each reply.
static void trace_header(const Run *r) {
    const Writing *w = r->w;
    fputs("{\"file\": ", stderr);
    print_string(stderr, (Text){ w->file, strlen(w->file) }, true);
    fprintf(stderr, ", \"norm\": \"%s\", \"kernels\": \"%s\", \"seed\": %llu, \"ids\": [", norm_name(),
            kernels.name, (unsigned long long)w->seed);
    for (int i = 0; i < r->n_ids; i++) fprintf(stderr, "%s%d", i ? ", " : "", r->ids[i]);
    fputs("]}\n", stderr);
}

static const char *read_prompt(Run *r) {
    double started = seconds();
    if (r->w->trace == trace_json) trace_header(r);
    int from = r->fed;
    const char *error = feed(r, is_terminal(2) && !r->w->quiet);
    r->reading += seconds() - started;
    r->n_read += r->fed - from;
    return error;
}

// What the model thought of the token, and of the likeliest, before temperature and the like.
static void note_token(Run *r, int id) {
    int vocab_size = r->w->model->config.vocab_size;
    Candidate *best = r->top + (size_t)r->n_chosen * (size_t)r->n_top;
    double loss = surprise(r->last, vocab_size, id), all = loss + r->last[id];  // log of the sum of exponents
    r->logprobs[r->n_chosen++] = -loss;
    likeliest(best, r->n_top, r->w->sampler, r->last, vocab_size);
    for (int i = 0; i < r->n_top; i++) best[i].p = (float)(best[i].p - all);
}

typedef enum { ENDED, STOPPED, LIMIT, FULL, INTERRUPTED } Ending;

// Token after token, until the text has ended, there are `left`, or the context is full.
static const char *write_text(Run *r, Ending *ending, int *left, int previous) {
    const Writing *w = r->w;
    const char *error = NULL;
    double started = seconds();
    int from = r->fed;
    bool stopped = false;
    for (*ending = LIMIT; !error && !interrupted && *left; previous = r->ids[r->n_ids - 1]) {
        int id = sample(w->sampler, r->last, w->model->config.vocab_size, r->ids, r->n_ids);
        if (ends_text(w->vocabulary, id) || id == w->reply_end) {
            *ending = ENDED;
            break;
        }
        error = output_piece(&r->out, token_text(w->vocabulary, id, previous), &stopped);
        if (!error) error = flush_output();
        if (r->logprobs) note_token(r, id);
        r->ids[r->n_ids++] = id;
        if (stopped) {
            *ending = STOPPED;
            break;
        }
        if (--*left == 0 || error) break;
        if (r->fed == r->state.context) { *ending = FULL; break; }
        error = feed(r, false);
    }
    if (interrupted && *ending == LIMIT && *left) *ending = INTERRUPTED;
    r->writing += seconds() - started;
    r->n_written += r->fed - from;
    return error;
}

static void print_statistics(const Run *r) {
    const Writing *w = r->w;
    fprintf(stderr, "%s, kernels %s, context %d\n", norm_name(), kernels.name, r->state.context);
    fprintf(stderr, "load     %.2f ms\n", (r->loaded - w->started) * 1e3);
    fprintf(stderr, "prefill  %.2f ms, %d tokens, %.1f tokens/s\n", r->reading * 1e3, r->n_read,
            r->n_read ? r->n_read / r->reading : 0);
    if (r->n_written)
        fprintf(stderr, "decode   %.2f ms, %d tokens, %.1f tokens/s, %.2f GB/s of weights\n",
                r->writing * 1e3, r->n_written, r->n_written / r->writing,
                1e-9 * (double)bytes_per_token(w->model) * r->n_written / r->writing);
    fprintf(stderr, "seed     %llu\n", (unsigned long long)w->seed);
    if (w->sampler->temperature > 0)                    // other kernels round otherwise
        fprintf(stderr, "again    -s %llu --kernels %s\n", (unsigned long long)w->seed, kernels.name);
    if (r->last)
        fprintf(stderr, "hash     %016llx\n",
                (unsigned long long)hash_logits(r->last, w->model->config.vocab_size));
}

static const char *end_run(Run *r, const char *error) {
    const Writing *w = r->w;
    if (r->logits && !npy_close(r->logits, r->n_logits, w->model->config.vocab_size) && !error)
        error = complain("cannot write %s: %s", w->logits, strerror(errno));
    if (!error && !w->quiet && !reader_left) print_statistics(r);
    sampler_free(w->sampler);
    free((void *)(uintptr_t)w->sampler->never);
    w->sampler->never = NULL;
    state_free(&r->state);
    output_clear(&r->out);
    free(r->logprobs);
    free(r->top);
    free(r->ids);
    return error;
}

static void say_full(const Run *r, const char *hint) {
    remark(r->w, "the context of %d is full; -c makes it longer%s", r->state.context, hint);
}

static void print_ids(const char *name, const int *ids, int n) {
    printf(", \"%s\": [", name);
    for (int i = 0; i < n; i++) printf("%s%d", i ? ", " : "", ids[i]);
    putchar(']');
}

// The generated text as one object of JSON. A stop text is not in the text, but its tokens are among the ids.
static const char *print_report(const Run *r, Text prompt, int n_prompt, Ending ending) {
    static const char *const endings[] = {
        [ENDED] = "eos", [STOPPED] = "stop", [LIMIT] = "limit", [FULL] = "full", [INTERRUPTED] = "interrupt",
    };
    fputs("{\"text\": ", stdout);
    print_string(stdout, (Text){ r->out.data, r->out.size }, true);
    print_ids("ids", r->ids + n_prompt, r->n_chosen);
    fputs(", \"logprobs\": [", stdout);
    for (int i = 0; i < r->n_chosen; i++) print_json_number(stdout, i ? ", " : "", r->logprobs[i]);
    fputs("], \"top\": [", stdout);
    for (int i = 0; i < r->n_chosen && r->n_top; i++) {
        const Candidate *best = r->top + (size_t)i * (size_t)r->n_top;
        for (int k = 0; k < r->n_top; k++) {
            printf("%s{\"id\": %d, \"text\": ", k ? ", " : i ? ", [" : "[", best[k].id);
            print_token(stdout, r->w->vocabulary, best[k].id);
            print_json_number(stdout, ", \"logprob\": ", best[k].p);
            putchar('}');
        }
        putchar(']');
    }
    printf("], \"stop\": \"%s\", \"seed\": %llu, \"hash\": ", endings[ending],
           (unsigned long long)r->w->seed);
    if (!r->last) fputs("null", stdout);
    else printf("\"%016llx\"", (unsigned long long)hash_logits(r->last, r->w->model->config.vocab_size));
    fputs(", \"prompt\": ", stdout);
    print_string(stdout, prompt, true);
    print_ids("prompt_ids", r->ids, n_prompt);
    printf(", \"context\": %d, \"norm\": \"%s\", \"kernels\": \"%s\"}\n", r->state.context, norm_name(),
           kernels.name);
    return flush_output();
}

// For people: a line for each token, what it was, and what else it could have been.
static void print_top(const Run *r, int n_prompt) {
    for (int i = 0; i < r->n_chosen && !reader_left; i++) {
        fprintf(stderr, "top %5d  ", n_prompt + i);
        print_token(stderr, r->w->vocabulary, r->ids[n_prompt + i]);
        fprintf(stderr, " %.2f %% of", 100 * exp(r->logprobs[i]));
        for (int k = 0; k < r->n_top; k++) {
            const Candidate *best = r->top + (size_t)i * (size_t)r->n_top + k;
            fputs(k ? ", " : " ", stderr);
            print_token(stderr, r->w->vocabulary, best->id);
            fprintf(stderr, " %.2f %%", 100 * exp(best->p));
        }
        fputc('\n', stderr);
    }
}

const char *generate(const Writing *w, Text prompt, const int *ids, int n) {
    Run r;
    Ending ending = LIMIT;
    int left = w->n;
    const char *error = begin_run(&r, w, n);
    if (error) return end_run(&r, error);
    memcpy(r.ids, ids, (size_t)n * sizeof *ids);
    r.n_ids = n;
    if (!w->json) output_text(&r.out, prompt);
    error = flush_output();
    if (!error) error = read_prompt(&r);
    if (!error) error = write_text(&r, &ending, &left, ids[n - 1]);
    if (interrupted && r.fed < n) ending = INTERRUPTED;
    if (!error) error = end_line(&r.out);
    if (!error && w->json && !reader_left) error = print_report(&r, prompt, n, ending);
    else if (!error && w->top) print_top(&r, n);
    if (!error && ending == FULL && !w->json) say_full(&r, "");
    return end_run(&r, error);
}

// ---------------------------------------------------------------------------- a conversation

typedef struct {
    Run run;
    Turn *turns;            // their messages and replies are its own
    int n;
} Chat;

static void forget_turn(Chat *c, int which) {
    free((void *)(uintptr_t)c->turns[which].message.data);
    free((void *)(uintptr_t)c->turns[which].reply);
    memmove(c->turns + which, c->turns + which + 1, (size_t)(c->n - which - 1) * sizeof *c->turns);
    c->n--;
}

// Takes over the message.
static const char *add_turn(Chat *c, Text message) {
    Turn *turns = realloc(c->turns, ((size_t)c->n + 1) * sizeof *turns);
    if (!turns) free((void *)(uintptr_t)message.data);
    if (!turns) return "no memory for the conversation";
    c->turns = turns;
    turns[c->n++] = (Turn){ .message = message };
    return NULL;
}

static const char *keep_reply(Chat *c, const int *ids, int n) {
    Turn *turn = &c->turns[c->n - 1];
    int *copy = realloc((void *)(uintptr_t)turn->reply, ((size_t)n + 1) * sizeof *copy);
    if (!copy) return "no memory for the conversation";
    memcpy(copy, ids, (size_t)n * sizeof *ids);
    turn->reply = copy, turn->n_reply = n;
    return NULL;
}

static const char *script(const Chat *c, int first, int **ids, int *n) {
    const Writing *w = c->run.w;
    return chat_ids(ids, n, w->vocabulary, w->template, w->system, c->turns + first, c->n - first);
}

// Forget the oldest turns, until a quarter of the context is free. Where not even the last turn fits into it,
// nothing is forgotten.
static const char *forget(Chat *c, int **ids, int *n) {
    int context = c->run.w->context, first = c->n, n_fewer, *fewer, most = context;
    const char *error = NULL;
    for (; first > 1 && !(error = script(c, first - 1, &fewer, &n_fewer)); first--) {
        if (n_fewer > most) { free(fewer); break; }
        free(*ids);
        *ids = fewer, *n = n_fewer;
        most = context - context / 4;
    }
    if (error || first == c->n) return error;
    remark(c->run.w, "the context of %d is full: the oldest %d of %d turns are forgotten", context, first,
           c->n);
    while (first--) forget_turn(c, 0);
    return NULL;
}

// What the model reads: all turns, *n ids. Those that it has read in the same place are not read again. If
// they do not fit into the context, what it reads stays as it was.
static const char *recall(Chat *c, int *n) {
    Run *r = &c->run;
    int *ids = NULL, context = r->w->context, same = 0;
    const char *error = script(c, 0, &ids, n);
    if (!error && *n > context && r->w->shift && c->n > 1) error = forget(c, &ids, n);
    if (!error && *n == 0) error = "this model's vocabulary has no token for this conversation";
    if (error) return free(ids), error;
    if (*n <= context) {
        while (same < r->fed && same < *n - 1 && ids[same] == r->ids[same]) same++;
        memcpy(r->ids, ids, (size_t)*n * sizeof *ids);
        r->n_ids = *n;
        r->fed = same;
    }
    free(ids);
    return NULL;
}

// The reply to the last turn. *full: it could not be written to its end.
static const char *reply(Chat *c, bool *full) {
    Run *r = &c->run;
    const Writing *w = r->w;
    Ending ending = FULL;
    int left = w->n, previous = w->vocabulary->bos, n;
    const char *error = recall(c, &n);
    if (error) return error;
    if (n > w->context) {
        remark(w, "with this message the conversation takes %d tokens, the context holds %d: it is left "
               "out; see -c%s", n, w->context, w->shift ? "" : ", --on-full");
        forget_turn(c, c->n - 1);
        return NULL;
    }
    while (!error && ending == FULL && n <= w->context) {
        int begin = r->n_ids - c->turns[c->n - 1].n_reply;
        error = read_prompt(r);
        if (!error) error = write_text(r, &ending, &left, previous);
        if (!error) error = keep_reply(c, r->ids + begin, r->n_ids - begin);
        previous = r->ids[r->n_ids - 1];
        if (!error && ending == FULL) error = recall(c, &n);
    }
    *full = ending == FULL;
    const char *failed = end_line(&r->out);
    output_clear(&r->out);
    return error ? error : failed;
}

// A line of standard input; *message: its data is NULL when there are no more, or an interrupt ends it.
static const char *ask_line(const Writing *w, Text *message, const char *question) {
    char *line = NULL;
    size_t room = 0;
    bool asks = is_terminal(0) && w->trace != trace_json;
    if (asks) fputs(question, stderr);
    if (interrupted == SIGINT) interrupted = 0;
    catch_interrupts(false);
    errno = 0;
    long n = read_line(&line, &room, stdin);
    int reason = errno;
    catch_interrupts(true);
    if (n < 0) {
        free(line);
        *message = (Text){ NULL, 0 };
        if (asks) fputc('\n', stderr);
        return interrupted || feof(stdin) ? NULL : complain("standard input: %s", strerror(reason));
    }
    while (n && (line[n - 1] == '\n' || line[n - 1] == '\r')) n--;
    *message = (Text){ line, (size_t)n };
    return NULL;
}

// A message: a line, or several between """ and """; what follows the first and stands before the second is
// of the message too, but for a line's end there. Where the input ends, so does the message.
static const char *read_message(const Writing *w, Text *message) {
    static const char quotes[] = "\"\"\"";
    const char *error = ask_line(w, message, "> ");
    if (error || message->size < 3 || memcmp(message->data, quotes, 3)) return error;
    char *text = (char *)(uintptr_t)message->data;
    size_t n = message->size - 3;
    memmove(text, text + 3, n);
    while (n < 3 || memcmp(text + n - 3, quotes, 3)) {
        Text line;
        error = ask_line(w, &line, "... ");
        if (error || (!line.data && interrupted)) return free(text), *message = line, error;
        if (!line.data) {
            n += 3;                                     // as if the second """ had come
            break;
        }
        char *longer = realloc(text, n + line.size + 2);
        if (longer) {
            text = longer;
            text[n++] = '\n';
            memcpy(text + n, line.data, line.size);
            n += line.size;
        }
        free((void *)(uintptr_t)line.data);
        if (!longer) return free(text), "no memory for the message";
    }
    n -= 3;
    if (n && text[n - 1] == '\n') n--;
    if (n && text[0] == '\n') memmove(text, text + 1, --n);
    *message = (Text){ text, n };
    return NULL;
}

static const char *answer(Chat *c, Text message, bool *full) {
    bool shift = c->run.w->shift;
    const char *error = add_turn(c, message);
    *full = false;
    if (!error) error = reply(c, full);
    if (!error && *full) say_full(&c->run, shift ? "" : ", --on-full shift forgets the oldest turns");
    return error;
}

// -i or -f, whose last line ends before its newline as those of standard input do.
static const char *copy_message(Text *copy, Text text) {
    while (text.size && (text.data[text.size - 1] == '\n' || text.data[text.size - 1] == '\r')) text.size--;
    char *data = malloc(text.size + 1);
    if (!data) return "no memory for the conversation";
    if (text.size) memcpy(data, text.data, text.size);
    *copy = (Text){ data, text.size };
    return NULL;
}

const char *chat(const Writing *w, Text first) {
    Chat c = { .turns = NULL };
    Text message = { NULL, 0 };
    bool full = false;
    const char *error = begin_run(&c.run, w, w->context);
    if (!error) error = copy_message(&message, first);
    for (bool typed = false; !error; typed = true) {
        bool clear = typed && text_is(message, "/clear");
        if (clear && c.n) remark(w, "the conversation begins anew");
        while (clear && c.n) forget_turn(&c, c.n - 1);
        if (message.size && !clear) error = answer(&c, message, &full);
        else free((void *)(uintptr_t)message.data);
        if (error || interrupted == SIGTERM || reader_left || (full && !w->shift)) break;
        if ((error = read_message(w, &message)) || !message.data) break;
    }
    while (c.n) forget_turn(&c, c.n - 1);
    free(c.turns);
    return end_run(&c.run, error);
}
