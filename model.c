// model.c - the forward pass: the whole transformer in one screen, and the one allocation it works in.
//
// Pre-norm decoder blocks: a branch reads a normalized copy of the residual stream x, and adds to x itself.
// Vaswani et al. 2017 (transformer), Touvron et al. 2023 (LLaMA).
#include "model.h"
#include <stdlib.h>
#include <string.h>

static void embed(const Model *m, State *s, const int *tokens) {
    const Matrix *w = &m->weights.embedding.w;
    for (int t = 0; t < s->T; t++) kernels.decode[w->type](s->x + (size_t)t * w->cols, w, tokens[t]);
    report(s, EMBED, -1, s->x, s->T, w->cols);
}

static void add_branch(void *state, int begin, int end) {
    const State *s = state;
    for (int i = begin; i < end; i++) s->x[i] += s->xb[i];
}

// What the branch found joins the residual stream.
static void add(State *s, Op op, int layer, int dim) {
    parallel_for(s->T * dim, 1 << 14, add_branch, s);
    report(s, op, layer, s->x, s->T, dim);
}

float *forward(const Model *m, State *s, const int *tokens, int T, int pos, int wanted) {
    const Config *c = &m->config;
    const Weights *w = &m->weights;
    s->T = T, s->pos = pos;

    embed(m, s, tokens);
    rope_angles(s->rope, m->frequencies, c->rope_dim, T, pos);

    for (int l = 0; l < c->n_layers; l++) {
        norm(s, s->xb, s->x, &w->layers[l].attn_norm);
        attention(m, s, l);
        add(s, RESID_MID, l, c->dim);

        norm(s, s->xb, s->x, &w->layers[l].ffn_norm);
        ffn(m, s, l);
        add(s, RESID, l, c->dim);
    }

    s->T = wanted, s->pos = pos + T - wanted;           // from here on only the last `wanted` tokens matter
    if (wanted == 0) return NULL;
    norm(s, s->xb, s->x + (size_t)(T - wanted) * c->dim, &w->final_norm);
    matmul(s, &(Product){ s->logits, &w->classifier }, 1, s->xb);
    return s->logits;
}

// ---------------------------------------------------------------------------- memory

static const size_t MAX_MEMORY = SIZE_MAX / 2 + 1;            // more than any machine has

static size_t padded(size_t size) { return (size + 63) / 64 * 64; }

// What all keys of a position take; its values take as much.
static size_t position_bytes(const Config *c, Type kv) {
    return size_times(c->n_layers, size_times(size_times(c->n_kv_heads, c->head_dim), bytes_of(kv, 1)));
}

size_t cache_bytes(const Config *c, int context, Type kv) {
    return size_times(position_bytes(c, kv), (size_t)spans(context) * SPAN + (size_t)context);
}

// Sizes first, then one allocation, then addresses, each at the start of a cache line.
const char *state_create(State *s, const Config *c, int context, int max_tokens, int max_wanted, Type kv) {
    size_t q_dim = size_times(c->n_heads, c->head_dim), kv_dim = size_times(c->n_kv_heads, c->head_dim);
    size_t widest = q_dim > (size_t)c->hidden_dim ? q_dim : (size_t)c->hidden_dim;
    if (widest < (size_t)c->dim) widest = (size_t)c->dim;
    size_t T = max_tokens, f = sizeof(float), position = position_bytes(c, kv);
    size_t keys = size_times(position, (size_t)spans(context) * SPAN), values = size_times(position, context);
    *s = (State){ .max_tokens = max_tokens, .context = context, .kv_type = kv };
    struct { void *buffer; size_t size; } plan[] = {
        { &s->x,    size_times(T, c->dim * f) },        { &s->xb,      size_times(T, c->dim * f) },
        { &s->q,    size_times(T, q_dim * f) },         { &s->mix,     size_times(T, q_dim * f) },
        { &s->k,    size_times(T, kv_dim * f) },        { &s->v,       size_times(T, kv_dim * f) },
        { &s->gate, size_times(T, c->hidden_dim * f) }, { &s->up,      size_times(T, c->hidden_dim * f) },
        { &s->rope, size_times(T, c->rope_dim * f) },   { &s->weights, size_times(context, c->n_heads * f) },
        { &s->logits, size_times(max_wanted, c->vocab_size * f) },
        { &s->x8,   size_times(T, widest / BLOCK * sizeof(BlockX8)) },
        { &s->keys, keys },                             { &s->values,  values },
    };
    size_t count = sizeof plan / sizeof *plan, total = 0;
    for (size_t i = 0; i < count; i++)
        total = plan[i].size > MAX_MEMORY - total ? MAX_MEMORY : total + padded(plan[i].size);
    s->memory = total < MAX_MEMORY ? malloc(total + 63) : NULL;       // untouched pages cost nothing
    if (!s->memory)
        return complain("no memory for a context of %d: it takes %.1f MB; choose a smaller one with -c",
                        context, total / 1e6);
    s->memory_size = total + 63;
    char *p = (char *)s->memory + (64 - (uintptr_t)s->memory % 64) % 64;
    for (size_t i = 0; i < count; i++) {
        memcpy(plan[i].buffer, &p, sizeof p);
        p += padded(plan[i].size);
    }
    return NULL;
}

void state_free(State *s) { free(s->memory); }
