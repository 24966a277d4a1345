// matmul.c - multiply by weight matrices: out = W x + bias, the rows shared out over the cores.
//
// Against weights in blocks the input is quantized too, to 8 bits in blocks of 32: integers meet integers.
#include "model.h"

typedef struct { const Product *products; int n, T; const float *x; const BlockX8 *x8; } Job;

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

// Enough multiply-adds that handing out a chunk costs little beside them.
enum { CHUNK = 1 << 16 };

void matmul(State *s, const Product *products, int n, const float *x) {
    int height = 0, cols = products->w->w.cols;
    bool blocks = false;
    for (int i = 0; i < n; i++) {
        height += products[i].w->w.rows;
        blocks |= formats[products[i].w->w.type].int8_input;
    }
    if (blocks) kernels.quantize(s->x8, x, (size_t)s->T * cols);        // once for all that share it
    parallel_for(height, (int)(1 + CHUNK / ((size_t)cols * s->T)), rows,
                 &(Job){ products, n, s->T, x, s->x8 });
    for (int i = 0; i < n; i++) {
        const Tensor *w = products[i].w;
        report(s, w->op, w->layer, products[i].out, s->T, w->w.rows);
    }
}
