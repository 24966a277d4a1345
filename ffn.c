// ffn.c - let every token think on its own: SwiGLU.
//
//   y = W_down * (silu(W_gate * x) * (W_up * x)),    silu(z) = z / (1 + e^-z)            Shazeer 2020
#include "model.h"

typedef struct { float *gate; const float *up; } Job;

static void swiglu(void *job, int begin, int end) {
    const Job *j = job;
    kernels.swiglu(j->gate + begin, j->up + begin, end - begin);
}

void ffn(const Model *m, State *s, int layer) {
    const Layer *w = &m->weights.layers[layer];
    int n = s->T * m->config.hidden_dim;

    matmul(s, (Product[]){ { s->gate, &w->w_gate }, { s->up, &w->w_up } }, 2, s->xb);
    parallel_for(n, 4096, swiglu, &(Job){ s->gate, s->up });
    report(s, HIDDEN, layer, s->gate, s->T, m->config.hidden_dim);
    matmul(s, &(Product){ s->xb, &w->w_down }, 1, s->gate);
}
