// test_measure.c - the hash against published numbers, .npy byte by byte, the count of bytes by hand.
#include "test.h"
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
        m.weights.layers[1].w_up.type = F16;            // 96 numbers of 2 bytes less
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

int main(void) {
    test_hash();
    test_npy();
    test_bytes_per_token();
    test_seconds();
    return finish("test_measure");
}
