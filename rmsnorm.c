// rmsnorm.c - keep the size of each token's vector steady before every branch.
//
//   rmsnorm:    y = weight * x / sqrt(mean(x^2) + eps)            (+ bias)      Zhang & Sennrich 2019
//   layernorm:  y = weight * (x - mean(x)) / sqrt(var(x) + eps)   (+ bias)      Ba et al. 2016; var over n
//   prmsnorm:   rmsnorm by the mean of the first ceil(n / 16) squares: p = 6.25 % of Zhang & Sennrich
//   nonorm:     y = weight * x                                    (+ bias)      what the others are for
#include "model.h"
#include <math.h>

// Which one this build runs: make NORM=layernorm, or any other that stands here
#ifndef NORM
#define NORM rmsnorm
#endif

// The mean of equal numbers is that number, no float overflows, and a mean far from zero does no harm: see
// kernels/norms.h.
void rmsnorm(float *out, const float *x, const Norm *w) {
    double mean_square = kernels.mean_square(x, w->dim);
    kernels.normalize(out, x, 0, 1 / sqrt(mean_square + w->eps), w->weight, w->bias, w->dim);
}

void layernorm(float *out, const float *x, const Norm *w) {
    double mean, variance = kernels.variance(&mean, x, w->dim);
    kernels.normalize(out, x, mean, 1 / sqrt(variance + w->eps), w->weight, w->bias, w->dim);
}

void prmsnorm(float *out, const float *x, const Norm *w) {
    int first = (w->dim + 15) / 16;
    double mean_square = kernels.mean_square(x, first);
    kernels.normalize(out, x, 0, 1 / sqrt(mean_square + w->eps), w->weight, w->bias, w->dim);
}

void nonorm(float *out, const float *x, const Norm *w) {
    kernels.normalize(out, x, 0, 1, w->weight, w->bias, w->dim);
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
