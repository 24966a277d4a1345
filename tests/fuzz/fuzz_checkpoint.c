// fuzz_checkpoint.c - any bytes as a file: refused, or described, run, its vocabulary used, all inside it.
#include "../../model.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    if (!freopen("/dev/null", "w", stdout)) abort();    // where info writes
    return !choose_kernels(NULL);
}

// One pass over a few tokens reads every weight there is.
static void run(const Model *m) {
    const Config *c = &m->config;
    int ids[3] = { 0, c->vocab_size - 1, c->vocab_size / 2 };
    State s;
    if (state_create(&s, c, 4, 2, 1, F16)) return;
    forward(m, &s, ids, 2, 0, 1);
    forward(m, &s, ids + 2, 1, 2, 1);
    state_free(&s);
}

// A sentence is one line, and not empty.
static bool check(const char *error) {
    if (error && (!*error || strpbrk(error, "\n\r\t\x1b\x7f"))) abort();
    return !error;
}

// Every piece can be read, and every text of the file's own bytes be spelled.
static void use(const Vocabulary *v, const char *text, size_t length) {
    unsigned sum = 0;
    for (int id = 0; id < v->size; id++) {
        Piece p = token_text(v, id, id ? id - 1 : v->bos);
        for (int i = 0; i < p.length; i++) sum += (uint8_t)p.text[i];
        sum += ends_text(v, id);
        if (!isfinite(v->pieces[id].score)) abort();
    }
    int *ids = malloc((2 * length + 1) * sizeof *ids), n = (int)sum;
    if (tokenize(ids, &n, v, &(Span){ .text = { text, length }, .control = length % 2 }, 1)) abort();
    if (n < 0 || (size_t)n > 2 * length + 1) abort();
    for (int i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= v->size) abort();
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;                            // map_file refuses empty files
    Bytes file = { data, size };
    Model model;
    Vocabulary vocabulary;
    if (check(vocabulary_read(&vocabulary, file, 0))) {
        size_t tail = size < 1000 ? size : 1000;
        use(&vocabulary, (const char *)data + size - tail, tail);
        vocabulary_free(&vocabulary);
    }
    if (check(checkpoint_read(&model, file))) {
        run(&model);
        model_free(&model);
    }
    bool plain = check(print_info(file, false)), json = check(print_info(file, true));
    if (plain != json) abort();
    return 0;
}
