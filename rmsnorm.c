// rmsnorm.c - keep the size of each token's vector steady before every branch.
//
//   rmsnorm:    y = weight * x / sqrt(mean(x^2) + eps)            (+ bias)      Zhang & Sennrich 2019
//   layernorm:  y = weight * (x - mean(x)) / sqrt(var(x) + eps)   (+ bias)      Ba et al. 2016; var over n
#include "model.h"
#include <math.h>

// Which one this build runs: make NORM=layernorm
#ifndef NORM
#define NORM rmsnorm
#endif

// Sums are double: the mean of equal numbers is that number, no float overflows, and a mean far from zero
// does no harm.
void rmsnorm(float *out, const float *x, const Norm *w) {
    double mean_square = kernels.sum_squares(x, 0, w->dim) / w->dim;
    kernels.normalize(out, x, 0, 1 / sqrt(mean_square + w->eps), w->weight, w->bias, w->dim);
}

void layernorm(float *out, const float *x, const Norm *w) {
    double mean = kernels.sum(x, w->dim) / w->dim;
    double variance = kernels.sum_squares(x, mean, w->dim) / w->dim;
    kernels.normalize(out, x, mean, 1 / sqrt(variance + w->eps), w->weight, w->bias, w->dim);
}

typedef struct { float *out; const float *x; const Norm *w; } Job;

static void rows(void *job, int begin, int end) {
    const Job *j = job;
    for (int t = begin; t < end; t++)
        NORM(j->out + (size_t)t * j->w->dim, j->x + (size_t)t * j->w->dim, j->w);
}

void norm(State *s, float *out, const float *x, const Norm *w) {
    parallel_for(s->T, 1 + 16384 / w->dim, rows, &(Job){ out, x, w });
    report(s, w->op, w->layer, out, s->T, w->dim);
}

#define QUOTE_(name) #name
#define QUOTE(name) QUOTE_(name)
const char *norm_name(void) { return QUOTE(NORM); }
