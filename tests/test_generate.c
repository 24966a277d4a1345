// test_generate.c - thousands of texts in one process: the same bytes each time, and no more memory.
//
// usage: test_generate [TEXTS]     (default 1000)
#include "test.h"
#include <unistd.h>
#if defined __GLIBC__
#include <malloc.h>
#endif

static const char *const words[] = { " the", " a", " cab", "the", "he", " b", "ad", "ab", "e", "a", "b" };
enum { N_WORDS = sizeof words / sizeof *words, N_PROMPT = 4, N_TEXT = 9, CONTEXT = 32 };

// Bytes of the heap that are allocated now; 0 where nobody counts them.
static size_t allocated(void) {
#if defined __GLIBC__
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
#else
    return 0;
#endif
}

static const char *write_one(const Model *m, const Vocabulary *v, bool json) {
    Sampler sampler = { .temperature = 1, .top_p = 0.9f, .repeat_penalty = 1.1f, .random = 7 };
    Writing w = { .model = m, .vocabulary = v, .sampler = &sampler, .context = CONTEXT, .n = N_TEXT,
                  .kv_type = F16, .stop = (const char *const[]){ "zebra", "cabcab" }, .n_stop = 2,
                  .ignore_eos = true, .json = json, .top = json ? 3 : 0, .file = "a model", .quiet = true,
                  .reply_end = -1 };
    return generate(&w, (Text){ "the cab", 7 }, (const int[N_PROMPT]){ 1, 3, 5, 4 }, N_PROMPT);
}

// They go to a file, where each has to be as the first.
static void test_many_texts(const Model *m, const Vocabulary *v, bool json, int texts) {
    FILE *out = tmpfile();
    int screen = dup(1), differ = 0;
    size_t early = 0;
    fflush(stdout);
    dup2(fileno(out), 1);
    const char *error = NULL;
    for (int i = 0; i < texts && !error; i++) {
        error = write_one(m, v, json);
        if (i == texts / 10) early = allocated();
    }
    size_t late = allocated();
    dup2(screen, 1);
    close(screen);
    CHECK(!error, "%s", error);
    CHECK(late == early, "memory: %zu bytes after a tenth of the texts, %zu at the end", early, late);

    fseek(out, 0, SEEK_END);
    size_t size = (size_t)ftell(out), each = size / (size_t)texts;
    char *all = malloc(size + 1);
    rewind(out);
    bool whole = size && size % (size_t)texts == 0 && fread(all, 1, size, out) == size;
    CHECK(whole, "%d texts are %zu bytes", texts, size);
    for (int i = 1; i < texts; i++) differ += memcmp(all + (size_t)i * each, all, each) != 0;
    CHECK(!differ, "%d of %d texts differ from the first: %.*s", differ, texts, (int)each, all);
    fclose(out);
    free(all);
}

int main(int argc, char **argv) {
    int texts = argc > 1 ? atoi(argv[1]) : SANITIZED ? 200 : 1000;
    Config c = { .dim = 24, .hidden_dim = 37, .n_layers = 3, .n_heads = 4, .n_kv_heads = 2,
                 .vocab_size = N_WORDS + 3, .seq_len = CONTEXT };
    Bytes file;
    Vocabulary v;
    small_vocabulary(&v, words, NULL, N_WORDS, false);
    Model m = random_model(&file, &c, true);
    choose_kernels(NULL);
    threads_start(1);
    test_many_texts(&m, &v, false, texts);
    test_many_texts(&m, &v, true, texts);
    threads_stop();
    vocabulary_free(&v);
    model_free(&m);
    free_bytes(file);
    return finish("test_generate");
}
