// matmul.c - multiply by weight matrices: out = W x + bias, the rows shared out over the cores.
#include "model.h"

void decode_row(float *out, const Tensor *w, int row) {
    const char *data = w->data;
    kernels.decode[w->type](out, data + row * bytes_of(w->type, w->cols), w->cols);
}

typedef struct { const Product *products; int n, T; const float *x; } Job;

static void product(const Product *p, const float *x, int T, int begin, int end) {
    const Tensor *w = p->w;
    kernels.matmul[w->type](p->out, w->rows, w->data, x, w->cols, T, begin, end);
    if (w->bias)
        for (int t = 0; t < T; t++)
            for (int r = begin; r < end; r++) p->out[(size_t)t * w->rows + r] += w->bias[r];
}

// The products stand one below the other: [begin, end) are rows of that tall matrix.
static void rows(void *job, int begin, int end) {
    const Job *j = job;
    int top = 0;
    for (int i = 0; i < j->n; i++) {
        int height = j->products[i].w->rows;
        int first = begin > top ? begin - top : 0, last = end < top + height ? end - top : height;
        if (first < last) product(&j->products[i], j->x, j->T, first, last);
        top += height;
    }
}

// Enough multiply-adds that handing out a chunk costs little beside them.
enum { CHUNK = 1 << 16 };

void matmul(State *s, const Product *products, int n, const float *x) {
    int height = 0;
    for (int i = 0; i < n; i++) height += products[i].w->rows;
    size_t row = (size_t)products->w->cols * s->T;
    parallel_for(height, (int)(1 + CHUNK / row), rows, &(Job){ products, n, s->T, x });
    for (int i = 0; i < n; i++) {
        const Tensor *w = products[i].w;
        report(s, w->op, w->layer, products[i].out, s->T, w->rows);
    }
}
