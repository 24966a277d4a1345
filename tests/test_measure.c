// test_measure.c - the hash against published numbers, .npy byte by byte, the count of bytes by hand.
#include "test.h"

static volatile sig_atomic_t go_on;                     // 0: nobody has asked for an end
#include <errno.h>
#include <time.h>
#include <unistd.h>

// Landon Curt Noll's test vectors of FNV-1a, 64 bits: "" and "foob", which is as long as a float. A longer
// one is "chongo was here!\n", cut to 16 bytes, by the definition: for each byte, xor it in, multiply by the
// prime.
static void test_hash(void) {
    float floats[4] = { 0 };
    CHECK(hash_logits(floats, 0) == 0xcbf29ce484222325, "nothing: got %016llx",
          (unsigned long long)hash_logits(floats, 0));
    memcpy(floats, "foob", 4);
    CHECK(hash_logits(floats, 1) == 0xdd120e790c2512af, "'foob': got %016llx",
          (unsigned long long)hash_logits(floats, 1));

    memcpy(floats, "chongo was here!", 16);
    unsigned long long want = 14695981039346656037u;
    for (int i = 0; i < 16; i++) want = (want ^ (unsigned char)"chongo was here!"[i]) * 1099511628211u;
    // one byte more, the newline, makes it the published 46810940eff5f915
    CHECK((want ^ '\n') * 1099511628211u == 0x46810940eff5f915, "the definition is not what was published");
    CHECK(hash_logits(floats, 4) == want, "wanted %016llx, got %016llx", want,
          (unsigned long long)hash_logits(floats, 4));

    float a[] = { 0.0f, 1 }, b[] = { -0.0f, 1 }, c[] = { 0.0f, nextafterf(1, 2) };
    CHECK(hash_logits(a, 2) != hash_logits(b, 2) && hash_logits(a, 2) != hash_logits(c, 2),
          "one bit makes no difference");
}

// ---------------------------------------------------------------------------- .npy

// NumPy's format, version 1.0: the magic, the version, two bytes of length, a dict of Python in ASCII,
// spaces, a newline; all of that a multiple of 64 bytes long, then the numbers.
static void check_npy(const char *path, const float *numbers, int rows, int cols) {
    FILE *f = npy_open(path);
    CHECK(f, "cannot write to %s", path);
    if (!f) return;
    fwrite(numbers, sizeof *numbers, (size_t)rows * cols, f);
    CHECK(npy_close(f, rows, cols), "cannot close %s", path);

    size_t n = (size_t)rows * cols * sizeof *numbers;
    char *got = calloc(1, 4096 + n), want[128];
    f = fopen(path, "rb");
    size_t size = fread(got, 1, 4096 + n, f);
    fclose(f);
    size_t header = 10 + (size_t)(uint8_t)got[8] + 256 * (size_t)(uint8_t)got[9];
    CHECK(!memcmp(got, "\x93NUMPY\x01\x00", 8), "the magic or the version is wrong");
    CHECK(header % 64 == 0 && size == header + n, "%zu bytes of header, %zu in all, %zu of numbers", header,
          size, n);
    snprintf(want, sizeof want, "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }", rows, cols);
    size_t length = strlen(want), spaces = 0;
    CHECK(!memcmp(got + 10, want, length), "wanted %s, got %.*s", want, (int)length, got + 10);
    while (got[10 + length + spaces] == ' ') spaces++;
    CHECK(10 + length + spaces + 1 == header && got[header - 1] == '\n',
          "after the dict: spaces up to a newline");
    CHECK(!memcmp(got + header, numbers, n), "the numbers are not those written");
    free(got);
}

static void test_npy(void) {
    char folder[64] = P_tmpdir "/prenorm-test-XXXXXX", path[80];
    CHECK(mkdtemp(folder), "no folder to write to: %s", folder);
    snprintf(path, sizeof path, "%s/logits.npy", folder);
    float numbers[] = { 1, -2, 3.5f, 1e-40f, INFINITY, 0 };
    check_npy(path, numbers, 2, 3);
    check_npy(path, numbers, 6, 1);                     // over the one before
    check_npy(path, numbers, 0, 512);
    FILE *f = npy_open(path);                           // the largest shape that ints can say
    CHECK(f && npy_close(f, 2147483647, 2147483647), "a large shape");
    unlink(path);

    errno = 0;
    f = npy_open(folder);                               // a folder
    CHECK(!f && errno, "a folder was opened for writing");
    rmdir(folder);
    f = npy_open("/dev/full");                          // every write fails
    if (!f) return;
    errno = 0;
    CHECK(!npy_close(f, 1, 1) && errno, "a full disk went unnoticed");
}

// ---------------------------------------------------------------------------- the rest

// dim 8, hidden_dim 12, 2 layers, 4 heads, 2 kv heads (kv_dim 4), vocab_size 10:
//   a layer: Q 64, K 32, V 32, O 64, gate, up and down 96 each: 480 numbers;  classifier 80
//   2 * 480 + 80 = 1040 numbers in matrices, 4160 bytes. Norms (5 * 8) and one embedding (8) may count too.
static void test_bytes_per_token(void) {
    for (int tied = 0; tied < 2; tied++) {
        Bytes file;
        Model m = random_model(&file,
                               &(Config){ .dim = 8,
                                          .hidden_dim = 12,
                                          .n_layers = 2,
                                          .n_heads = 4,
                                          .n_kv_heads = 2,
                                          .vocab_size = 10,
                                          .seq_len = 4 },
                               tied);
        size_t got = bytes_per_token(&m), most = 4160 + (5 * 8 + 8) * 4;
        CHECK(got >= 4160 && got <= most, "wanted 4160 to %zu bytes, got %zu", most, got);
        size_t before = got;
        m.weights.layers[1].w_up.w.type = F16;            // 96 numbers of 2 bytes less
        CHECK(bytes_per_token(&m) == before - 192, "96 halves instead of floats: wanted %zu, got %zu",
              before - 192, bytes_per_token(&m));
        model_free(&m), free_bytes(file);
    }
}

static void test_seconds(void) {
    double start = seconds(), last = start;
    for (int i = 0; i < 1000; i++) {
        double now = seconds();
        CHECK(now >= last, "the clock went back by %g s", last - now);
        last = now;
    }
    nanosleep(&(struct timespec){ 0, 20000000 }, NULL);
    double took = seconds() - start;
    CHECK(took >= 0.02 && took < 5, "20 ms took %g s", took);
}

// ---------------------------------------------------------------------------- perplexity

static const Config small = {
    .dim = 16, .hidden_dim = 24, .n_layers = 2, .n_heads = 4, .n_kv_heads = 2, .vocab_size = 43, .seq_len = 64
};

static State new_state(const Model *m, int context, int max_tokens) {
    State s;
    const char *error = state_create(&s, &m->config, context, max_tokens, max_tokens, F32);
    if (!error) return s;
    printf("no state: %s\n", error);
    exit(1);
}

static int *random_ids(int n, int vocab_size) {
    int *ids = malloc((size_t)n * sizeof *ids);
    for (int i = 0; i < n; i++) ids[i] = random_below(vocab_size);
    return ids;
}

// All weights are 0, so all logits are: every one of 43 ids is as likely as every other, and the perplexity
// 43. Of a window of N, the ids N/2 + 1 to N - 1 are scored; what does not fill a window is not looked at.
static void test_uniform(void) {
    Bytes file = random_checkpoint(&small, true);
    memset((uint8_t *)(uintptr_t)file.data + 28, 0, file.size - 28);
    Model m;
    CHECK(!checkpoint_read(&m, file), "a model of zeros is refused");
    static const struct { int context, n, windows; long tokens;
    } cases[] = {
        { 8, 8, 1, 3 },    { 8, 15, 1, 3 }, { 8, 16, 2, 6 },    { 7, 24, 3, 9 },
        { 4, 40, 10, 10 }, { 5, 9, 1, 2 },  { 64, 200, 3, 93 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int *ids = random_ids(cases[i].n, 43);
        for (int k = cases[i].windows * cases[i].context; k < cases[i].n; k++)
            ids[k] = 1 << 30; // no id at all
        State s = new_state(&m, cases[i].context, 5);
        Perplexity p;
        const char *error =
            perplexity(&p, &m, &s, &(Vocabulary){ .bos = 1, .add_bos = true }, ids, cases[i].n, false,
                       &go_on);
        CHECK(!error && near(p.perplexity, 43, 1e-9), "windows of %d: wanted 43, got %.17g %s",
              cases[i].context, p.perplexity, error ? error : "");
        CHECK(near(p.standard_error, 0, 1e-5), "windows of %d: the standard error is %g", cases[i].context,
              p.standard_error);
        CHECK(p.windows == cases[i].windows && p.tokens == cases[i].tokens,
              "%d ids, windows of %d: wanted %d with %ld, got %d with %ld", cases[i].n, cases[i].context,
              cases[i].windows, cases[i].tokens, p.windows, p.tokens);
        state_free(&s), free(ids);
    }
    model_free(&m), free_bytes(file);
}

// The definition: a whole window at a time, the softmax in double.
static Perplexity plainly(const Model *m, const int *ids, int n, int N, int bos) {
    double sum = 0, squares = 0;
    Perplexity p = { .windows = n / N };
    State s = new_state(m, N, N);
    for (int w = 0; w < p.windows; w++) {
        int window[N];
        memcpy(window, ids + w * N, sizeof window);
        if (bos >= 0) window[0] = bos;
        const float *logits = forward(m, &s, window, N, 0, N);
        for (int i = N / 2 + 1; i < N; i++) {
            const float *row = logits + (size_t)(i - 1) * m->config.vocab_size;
            double total = 0;
            for (int k = 0; k < m->config.vocab_size; k++) total += exp(row[k] - row[window[i]]);
            sum += log(total), squares += log(total) * log(total), p.tokens++;
        }
    }
    state_free(&s);
    double mean = sum / (double)p.tokens, variance = squares / (double)p.tokens - mean * mean;
    p.perplexity = exp(mean);
    p.standard_error = exp(mean) * sqrt(variance / (double)(p.tokens - 1));     // d exp(x) = exp(x) dx
    return p;
}

static void test_against_definition(void) {
    enum { N_IDS = 200 };
    Bytes file;
    Model m = random_model(&file, &small, false);
    static const struct { int context, chunk, bos; bool add_bos;
    } cases[] = {
        { 32, 32, 1, true },  { 32, 1, 1, true },  { 32, 7, 1, true },  { 33, 16, 1, true },
        { 32, 32, 1, false }, { 32, 5, -1, true }, { 64, 48, 2, true }, { 6, 512, 1, true },
    };
    double first = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        random_state = 99;
        int *ids = random_ids(N_IDS, 43);
        Perplexity want = plainly(&m, ids, N_IDS, cases[i].context, cases[i].add_bos ? cases[i].bos : -1),
                   got;
        State s = new_state(&m, cases[i].context, cases[i].chunk);
        Vocabulary v = { .bos = cases[i].bos, .add_bos = cases[i].add_bos };
        const char *error = perplexity(&got, &m, &s, &v, ids, N_IDS, false, &go_on);
        CHECK(!error && near(got.perplexity, want.perplexity, 1e-5 * want.perplexity),
              "case %zu: wanted %.9g, got %.9g %s", i, want.perplexity, got.perplexity, error ? error : "");
        CHECK(near(got.standard_error, want.standard_error, 1e-4 * want.standard_error),
              "case %zu: wanted +- %.9g, got %.9g", i, want.standard_error, got.standard_error);
        CHECK(got.tokens == want.tokens && got.windows == want.windows,
              "case %zu: wanted %ld tokens, got %ld", i, want.tokens, got.tokens);
        if (i == 0) first = want.perplexity;
        if (i == 4 || i == 5)
            CHECK(fabs(want.perplexity - first) > 1e-3, "BOS makes no difference here: it shows nothing");
        state_free(&s), free(ids);
    }
    model_free(&m), free_bytes(file);
}

static void check_no_perplexity(const Model *m, int context, int n, const char *word, const char *other) {
    State s = new_state(m, context, 4);
    int *ids = random_ids(n + 1, m->config.vocab_size);
    Perplexity p;
    const char *error = perplexity(&p, m, &s, &(Vocabulary){ .bos = 1, .add_bos = true }, ids, n, false,
                                   &go_on);
    CHECK(is_sentence(error) && strstr(error, word) && strstr(error, other),
          "%d ids, a context of %d: wanted a refusal with '%s', '%s', got %s", n, context, word, other,
          error ? error : "a number");
    state_free(&s), free(ids);
}

static void test_no_perplexity(void) {
    Bytes file;
    Model m = random_model(&file, &small, true);
    check_no_perplexity(&m, 64, 63, "63", "64");
    check_no_perplexity(&m, 16, 0, "0", "16");
    for (int context = 1; context < 4; context++)
        check_no_perplexity(&m, context, 100, (char[]){ (char)('0' + context), 0 }, "short");
    for (int i = 0; i < 3; i++) {
        float *weight = (float *)(uintptr_t)m.weights.final_norm.weight, before = weight[3];
        weight[3] = (float[]){ NAN, INFINITY, -INFINITY }[i];
        check_no_perplexity(&m, 16, 40, "finite", "weights");
        weight[3] = before;
    }
    model_free(&m), free_bytes(file);
}

int main(void) {
    choose_kernels(NULL);
    test_hash();
    test_npy();
    test_bytes_per_token();
    test_seconds();
    test_uniform();
    test_against_definition();
    test_no_perplexity();
    return finish("test_measure");
}
