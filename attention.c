// attention.c - let every token look back at the tokens before it.
//
//   y = W_O * sum over p <= pos of softmax(q . k_p / sqrt(head_dim)) v_p                 Vaswani et al. 2017
//
// Each head compares the token's query with the keys of all positions so far, turns the scores into weights
// that sum to one, and takes that mixture of their values. Several query heads may share one key/value head
// (grouped-query attention, Ainslie et al. 2023). Position enters by rotation (RoPE, Su et al. 2021).
#include "model.h"
#include <math.h>

// ---------------------------------------------------------------------------- RoPE

// Pair i of a head turns by theta^(-2i / rope_dim) radians per position: the first fast, the last slowly.
void rope_frequencies(float *frequencies, int rope_dim, float theta) {
    for (int i = 0; i < rope_dim / 2; i++) frequencies[i] = (float)pow(theta, -2.0 * i / rope_dim);
}

// rope: (T, rope_dim), cos and sin of each pair's angle in turn. The angles are double: at position 100,000 a
// float is off by 0.004 radians.
void rope_angles(float *rope, const float *frequencies, int rope_dim, int T, int pos) {
    for (int t = 0; t < T; t++)
        for (int i = 0; i < rope_dim / 2; i++) {
            double angle = (double)(pos + t) * frequencies[i];
            *rope++ = (float)cos(angle);
            *rope++ = (float)sin(angle);
        }
}

// Turn the first rope_dim numbers of every head, in place. x: (T, heads * head_dim).
void rotate(float *x, const float *rope, int T, int heads, int head_dim, int rope_dim, Rotation rotation) {
    int step = rotation == PAIRS ? 2 : 1, other = rotation == PAIRS ? 1 : rope_dim / 2;
    for (int t = 0; t < T; t++, rope += rope_dim)
        for (int h = 0; h < heads; h++, x += head_dim)
            for (int i = 0; i < rope_dim / 2; i++) {
                float c = rope[2 * i], s = rope[2 * i + 1], a = x[i * step], b = x[i * step + other];
                x[i * step]         = a * c - b * s;
                x[i * step + other] = a * s + b * c;
            }
}

// ---------------------------------------------------------------------------- the KV cache

static void *cache_row(void *cache, const Config *c, const State *s, int layer, int kv_head, int pos) {
    size_t row = ((size_t)layer * c->n_kv_heads + kv_head) * s->context + pos;
    return (char *)cache + bytes_of(s->kv_type, row * c->head_dim);
}

// The keys (or values) of one head are a matrix that grows by a row with every token.
static Matrix cache_matrix(void *cache, const Config *c, const State *s, int layer, int kv_head, int rows) {
    return (Matrix){ s->kv_type, rows, c->head_dim, cache_row(cache, c, s, layer, kv_head, 0), NULL, 0 };
}

static void remember(const Config *c, State *s, int layer) {
    for (int t = 0; t < s->T; t++)
        for (int h = 0; h < c->n_kv_heads; h++) {
            size_t from = ((size_t)t * c->n_kv_heads + h) * c->head_dim;
            void *key = cache_row(s->keys, c, s, layer, h, s->pos + t);
            void *value = cache_row(s->values, c, s, layer, h, s->pos + t);
            kernels.encode[s->kv_type](key, s->k + from, c->head_dim);
            kernels.encode[s->kv_type](value, s->v + from, c->head_dim);
        }
}

// ---------------------------------------------------------------------------- looking back

static void softmax(float *x, int n) {
    float max = x[0], sum = 0;
    for (int i = 1; i < n; i++) max = x[i] > max ? x[i] : max;
    for (int i = 0; i < n; i++) sum += x[i] = expf(x[i] - max);
    for (int i = 0; i < n; i++) x[i] /= sum;
}

typedef struct { const Config *c; State *s; int layer, t; } Job;

// Token t through the eyes of heads begin .. end - 1. Scores are a product with the matrix of keys.
static void attend(void *job, int begin, int end) {
    const Job *j = job;
    const Config *c = j->c;
    State *s = j->s;
    int seen = s->pos + j->t + 1;
    float scale = 1 / sqrtf((float)c->head_dim);
    for (int h = begin; h < end; h++) {
        size_t head = ((size_t)j->t * c->n_heads + h) * c->head_dim;
        int kv_head = h / (c->n_heads / c->n_kv_heads);
        float *score = s->scores + (size_t)h * s->context;
        Matrix keys = cache_matrix(s->keys, c, s, j->layer, kv_head, seen);
        Matrix values = cache_matrix(s->values, c, s, j->layer, kv_head, seen);
        kernels.matmul[s->kv_type](score, seen, &keys, s->q + head, 1, 0, seen);
        for (int p = 0; p < seen; p++) score[p] *= scale;
        softmax(score, seen);
        kernels.mix[s->kv_type](s->mix + head, score, &values, seen);
    }
}

enum { CHUNK = 1 << 15 };                            // multiply-adds worth handing to another core

static void look_back(const Config *c, State *s, int layer) {
    for (int t = 0; t < s->T; t++) {
        int seen = s->pos + t + 1;
        parallel_for(c->n_heads, (int)(1 + CHUNK / ((size_t)seen * c->head_dim)), attend,
                     &(Job){ c, s, layer, t });
        if (s->observer)
            s->observer(s->observer_context,
                        &(Event){ WEIGHTS, layer, s->pos + t, c->n_heads, seen, s->context, s->scores });
    }
    report(s, MIX, layer, s->mix, s->T, c->n_heads * c->head_dim);
}

void attention(const Model *m, State *s, int layer) {
    const Config *c = &m->config;
    const Layer *w = &m->weights.layers[layer];

    matmul(s, (Product[]){ { s->q, &w->wq }, { s->k, &w->wk }, { s->v, &w->wv } }, 3, s->xb);
    rotate(s->q, s->rope, s->T, c->n_heads, c->head_dim, c->rope_dim, c->rotation);
    rotate(s->k, s->rope, s->T, c->n_kv_heads, c->head_dim, c->rope_dim, c->rotation);
    report(s, Q_ROPE, layer, s->q, s->T, c->n_heads * c->head_dim);
    report(s, K_ROPE, layer, s->k, s->T, c->n_kv_heads * c->head_dim);
    remember(c, s, layer);
    look_back(c, s, layer);
    matmul(s, &(Product){ s->xb, &w->wo }, 1, s->mix);
}
