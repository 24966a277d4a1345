// sampler.c - from logits to the next token.
//
//   repeat penalty -> temperature -> softmax -> top-k -> top-p -> min-p -> draw
//
// The likeliest tokens come from a heap, one at a time, until the settings say stop: no sorting of the whole
// vocabulary. Holtzman et al. 2020 (top-p), Fan et al. 2018 (top-k), Nguyen et al. 2024 (min-p),
// Keskar et al. 2019 (repeat penalty).
#include "model.h"
#include <math.h>
#include <stdlib.h>

// SplitMix64 (Steele, Lea & Flood 2014): a counter, well stirred. Any seed is as good as any other.
uint64_t random_next(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

const char *sampler_create(Sampler *s, int vocab_size) {
    s->candidates = malloc((size_t)vocab_size * sizeof *s->candidates);
    return s->candidates ? NULL : "no memory for the sampler";
}

void sampler_free(Sampler *s) { free(s->candidates); }

// ---------------------------------------------------------------------------- the likeliest first

static bool likelier(Candidate a, Candidate b) { return a.p > b.p || (a.p == b.p && a.id < b.id); }

static void sift_down(Candidate *heap, int n, int i) {
    Candidate moving = heap[i];
    for (int child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && likelier(heap[child + 1], heap[child])) child++;
        if (!likelier(heap[child], moving)) break;
        heap[i] = heap[child];
    }
    heap[i] = moving;
}

// A heap in c[0 .. n-1] gives its likeliest to c[n-1]; the rest is a heap of n - 1.
static void pop(Candidate *c, int n) {
    Candidate top = c[0];
    c[0] = c[n - 1];
    c[n - 1] = top;
    sift_down(c, n - 1, 0);
}

static void make_heap(Candidate *c, int n) {
    for (int i = n / 2 - 1; i >= 0; i--) sift_down(c, n, i);
}

void likeliest(Candidate *best, int n, const Sampler *s, const float *logits, int vocab_size) {
    Candidate *c = s->candidates;
    for (int i = 0; i < vocab_size; i++) c[i] = (Candidate){ logits[i], i };
    make_heap(c, vocab_size);
    for (int i = 0; i < n; i++) {
        pop(c, vocab_size - i);
        best[i] = c[vocab_size - 1 - i];
    }
}

// Move the candidates to keep to the end of the array, the likeliest last; returns how many.
static int truncate_candidates(const Sampler *s, int n) {
    Candidate *c = s->candidates;
    make_heap(c, n);

    int most = s->top_k > 0 && s->top_k < n ? s->top_k : n, popped = 0, kept = 0;
    double total = 0, mass = 0;
    if (most < n)
        for (; popped < most; popped++) {
            pop(c, n - popped);
            total += c[n - 1 - popped].p;
        }
    else
        for (int i = 0; i < n; i++) total += c[i].p;

    for (; kept < most && (kept == 0 || mass < s->top_p * total); kept++) {
        if (kept == popped) pop(c, n - popped++);
        Candidate next = c[n - 1 - kept];
        if (kept && next.p < s->min_p * c[n - 1].p) break;
        mass += next.p;
    }
    return kept;
}

// ---------------------------------------------------------------------------- one token

enum { REPEAT_WINDOW = 64 };                            // how far back the penalty looks, in tokens

// Seen tokens become less likely, each once, however often it was seen.
static void penalize(const Sampler *s, int vocab_size, const int *history, int n) {
    for (int i = n > REPEAT_WINDOW ? n - REPEAT_WINDOW : 0; i < n; i++) {
        Candidate *c = &s->candidates[history[i]];
        if (c->id < vocab_size) {
            c->p = c->p > 0 ? c->p / s->repeat_penalty : c->p * s->repeat_penalty;
            c->id += vocab_size;                        // a mark: done
        }
    }
    for (int i = 0; i < vocab_size; i++) s->candidates[i].id = i;
}

static int likeliest_of(const Candidate *c, int n) {
    int best = 0;
    for (int i = 1; i < n; i++)
        if (c[i].p > c[best].p) best = i;
    return best;
}

int sample(Sampler *s, const float *logits, int vocab_size, const int *history, int n) {
    Candidate *c = s->candidates;
    for (int i = 0; i < vocab_size; i++) c[i] = (Candidate){ logits[i], i };
    for (int i = 0; i < vocab_size && s->never; i++)
        if (s->never[i]) c[i].p = -INFINITY;
    if (s->repeat_penalty != 1) penalize(s, vocab_size, history, n);
    int best = likeliest_of(c, vocab_size);
    if (s->temperature == 0) return best;

    float max = c[best].p;
    for (int i = 0; i < vocab_size; i++) c[i].p = expf((c[i].p - max) / s->temperature);

    int kept = vocab_size;
    bool truncate = s->top_k > 0 || s->top_p < 1 || s->min_p > 0;
    if (truncate) {
        kept = truncate_candidates(s, vocab_size);
        c += vocab_size - kept;
    }
    double total = 0, reached = 0;
    for (int i = 0; i < kept; i++) total += c[i].p;
    double target = (double)(random_next(&s->random) >> 11) * 0x1p-53 * total;          // in [0, total)
    for (int i = 0; i < kept; i++)
        if ((reached += c[i].p) > target) return c[i].id;
    return c[kept - 1].id;                              // only rounding leads here
}
