// measure.c - numbers about a run: time, bytes, a hash of the logits, and the logits themselves.
#include "model.h"
#include <string.h>
#include <time.h>

double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static size_t tensor_bytes(const Tensor *w) { return w->rows * bytes_of(w->type, (size_t)w->cols); }

// Every matrix once; of the embedding only a row.
size_t bytes_per_token(const Model *m) {
    size_t sum = tensor_bytes(&m->weights.classifier);
    for (const Layer *l = m->weights.layers; l < m->weights.layers + m->config.n_layers; l++)
        sum += tensor_bytes(&l->wq) + tensor_bytes(&l->wk) + tensor_bytes(&l->wv) + tensor_bytes(&l->wo)
             + tensor_bytes(&l->w_gate) + tensor_bytes(&l->w_up) + tensor_bytes(&l->w_down);
    return sum;
}

uint64_t hash_logits(const float *logits, int n) {      // FNV-1a, 64 bits
    const uint8_t *bytes = (const uint8_t *)logits;
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t i = 0; i < n * sizeof *logits; i++) hash = (hash ^ bytes[i]) * 0x100000001b3;
    return hash;
}

// ---------------------------------------------------------------------------- NumPy's file format, version 1.0
//
//   "\x93NUMPY" 1 0, length of the rest of the header (2 bytes), a Python dict, spaces up to 128 bytes, the numbers

static void npy_header(FILE *f, int rows, int cols) {
    char header[118];
    int n = snprintf(header, sizeof header, "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }", rows, cols);
    memset(header + n, ' ', sizeof header - (size_t)n);
    header[sizeof header - 1] = '\n';
    fwrite("\x93NUMPY\1\0\x76\0", 1, 10, f);
    fwrite(header, 1, sizeof header, f);
}

FILE *npy_open(const char *path) {
    FILE *f = fopen(path, "wb");
    if (f) npy_header(f, 0, 0);                         // the shape is known at the end
    return f;
}

bool npy_close(FILE *f, int rows, int cols) {
    bool good = !ferror(f) && fseek(f, 0, SEEK_SET) == 0;
    npy_header(f, rows, cols);
    good = good && !ferror(f);
    return fclose(f) == 0 && good;
}
