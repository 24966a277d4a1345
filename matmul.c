// matmul.c - multiply by weight matrices: out = W x + bias, the rows shared out over the cores.
//
// Against weights in blocks the input is quantized too, to 8 bits in blocks of 32: integers meet integers.
#include "model.h"

typedef struct { const Product *products; int n, T; const float *x; BlockX8 *x8; } Job;

static void product(const Product *p, const Job *j, int begin, int end) {
    const Matrix *w = &p->w->w;
    const float *bias = p->w->bias;
    const void *x = formats[w->type].int8_input ? (const void *)j->x8 : j->x;
    kernels.matmul[w->type](p->out, w->rows, w, x, j->T, begin, end);
    if (!bias) return;
    for (int t = 0; t < j->T; t++)
        for (int r = begin; r < end; r++) p->out[(size_t)t * w->rows + r] += bias[r];
}

// The products stand one below the other: [begin, end) are rows of that tall matrix.
static void rows(void *job, int begin, int end) {
    const Job *j = job;
    int top = 0;
    for (int i = 0; i < j->n; i++) {
        int height = j->products[i].w->w.rows;
        int first = begin > top ? begin - top : 0, last = end < top + height ? end - top : height;
        if (first < last) product(&j->products[i], j, first, last);
        top += height;
    }
}

static void quantize(void *job, int begin, int end) {       // blocks of the input
    const Job *j = job;
    kernels.quantize(j->x8 + begin, j->x + (size_t)begin * BLOCK,
                     (size_t)(end - begin) * BLOCK);
}

// Rows to claim at once. For one token or a few, a claim begins new streams from memory: it should be worth
// it, and there should be enough of them for all threads. For more, rows are unpacked into panels of 64.
static int chunk(size_t bytes, int height, int T) {
    if (T >= 8) return 64;
    size_t share = bytes / 16, least = 1 << 15, most = 3 << 16;
    share = share < least ? least : share > most ? most : share;
    return ((int)(share / (bytes / height + 1)) + 4) / 4 * 4;
}

void matmul(State *s, const Product *products, int n, const float *x) {
    int height = 0, cols = products->w->w.cols;
    size_t bytes = 0;
    bool blocks = false;
    for (int i = 0; i < n; i++) {
        const Matrix *w = &products[i].w->w;
        height += w->rows;
        bytes += matrix_bytes(w);
        blocks |= formats[w->type].int8_input;
    }
    Job job = { products, n, s->T, x, s->x8 };
    if (blocks) parallel_for(s->T * (cols / BLOCK), 1024, quantize, &job);      // once for all that share it
    parallel_for(height, chunk(bytes, height, s->T), rows, &job);
    for (int i = 0; i < n; i++) {
        const Tensor *w = products[i].w;
        report(s, w->op, w->layer, products[i].out, s->T, w->w.rows);
    }
}
