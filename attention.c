// attention.c - let every token look back at the tokens before it.
//
//   y = W_O * sum over p <= pos of softmax(q . k_p / sqrt(head_dim)) v_p                 Vaswani et al. 2017
//
// Each head compares the token's query with the keys of all positions so far, turns the scores into weights
// that sum to one, and takes that mixture of their values. Several query heads may share one key/value head
// (grouped-query attention, Ainslie et al. 2023). Position enters by rotation (RoPE, Su et al. 2021).
#include "model.h"
#include <math.h>
#include <string.h>

static int least(int a, int b) { return a < b ? a : b; }

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

typedef struct { const Config *c; State *s; int layer; } Job;

// Rotate the queries and keys of tokens begin .. end - 1.
static void turn(void *job, int begin, int end) {
    const Config *c = ((const Job *)job)->c;
    State *s = ((const Job *)job)->s;
    int q_dim = c->n_heads * c->head_dim, kv_dim = c->n_kv_heads * c->head_dim, n = end - begin;
    const float *rope = s->rope + (size_t)begin * c->rope_dim;
    rotate(s->q + (size_t)begin * q_dim, rope, n, c->n_heads, c->head_dim, c->rope_dim, c->rotation);
    rotate(s->k + (size_t)begin * kv_dim, rope, n, c->n_kv_heads, c->head_dim, c->rope_dim, c->rotation);
}

// ---------------------------------------------------------------------------- the KV cache

// A value is kept as a row, a key as a column: SPAN of them, side by side, are a matrix of head_dim rows. So
// scores are a mixture of rows, as outputs are: a row for each dimension, by what the query has there.

static void *value_at(const Config *c, const State *s, int layer, int kv_head, int pos) {
    size_t row = ((size_t)layer * c->n_kv_heads + kv_head) * s->context + pos;
    return (char *)s->values + bytes_of(s->kv_type, row * c->head_dim);
}

static void *key_at(const Config *c, const State *s, int layer, int kv_head, int pos) {
    size_t span = ((size_t)layer * c->n_kv_heads + kv_head) * spans(s->context) + pos / SPAN;
    return (char *)s->keys + bytes_of(s->kv_type, span * c->head_dim * SPAN + pos % SPAN);
}

static void put_key(void *column, Type type, const float *key, int head_dim) {
    enum { SOME = 16 };
    union { float f[SOME]; Half h[SOME]; } row;
    for (int i = 0; i < head_dim; i += SOME) {
        int n = least(head_dim - i, SOME);
        kernels.encode[type](&row, key + i, n);
        for (int j = 0; j < n; j++)
            if (type == F32) ((float *)column)[(i + j) * SPAN] = row.f[j];
            else              ((Half *)column)[(i + j) * SPAN] = row.h[j];
    }
}

// Keep the keys and values of heads begin .. end - 1.
static void remember(void *job, int begin, int end) {
    const Job *j = job;
    const Config *c = j->c;
    State *s = j->s;
    for (int h = begin; h < end; h++)
        for (int t = 0; t < s->T; t++) {
            size_t from = ((size_t)t * c->n_kv_heads + h) * c->head_dim;
            put_key(key_at(c, s, j->layer, h, s->pos + t), s->kv_type, s->k + from, c->head_dim);
            kernels.encode[s->kv_type](value_at(c, s, j->layer, h, s->pos + t), s->v + from, c->head_dim);
        }
}

// Of SPAN positions, pos a multiple of SPAN.
static Matrix keys_from(const Config *c, const State *s, int layer, int kv_head, int pos) {
    return (Matrix){ s->kv_type, c->head_dim, SPAN, key_at(c, s, layer, kv_head, pos), NULL, 0 };
}

// scores: (rows, SPAN), the first n of each: of some queries, so far apart, with n keys.
static void score(float *scores, const Matrix *keys, int n, const float *queries, int apart, int rows) {
    memset(scores, 0, ((rows - 1) * (size_t)SPAN + n) * sizeof *scores);    // n may be all that the last has
    kernels.mix[keys->type](scores, SPAN, keys, n, queries, apart, rows);
}

// ---------------------------------------------------------------------------- looking back
//
// Query heads that share keys and values look at them together, and so do neighbouring tokens: a block of the
// cache is read once for all of them. A block knows only its own scores, so the softmax runs along: where a
// larger score appears, what was gathered before shrinks (Milakov & Gimelshein 2018, Dao et al. 2022).

enum { TOGETHER = 16, ROWS = 128 };                     // tokens, and queries, that look together: at most

typedef struct {            // some tokens through some heads that share one key/value head
    _Alignas(64) float scores[ROWS * SPAN];     // (rows, SPAN), a row for each query
    float largest[ROWS], sum[ROWS];             // of the scores so far, and of their exponentials
    const Config *c;
    State *s;
    int layer, kv_head, head, heads, first, tokens;
    int rows, next_head, next_token;            // from the row of a query to those of its neighbours
    int line, apart;        // rows for one call of a kernel, and how far from one to the next in q and mix
} Look;

static int token_of(const Look *l, int row) { return row / l->next_token % l->tokens; }

static float *row_of(const Look *l, float *x, int row) {                // in (T, n_heads, head_dim)
    size_t token = l->first + token_of(l, row), head = l->head + row / l->next_head % l->heads;
    return x + (token * l->c->n_heads + head) * l->c->head_dim;
}

// A line is the heads of a token, or else the tokens of a head: kernels take four rows at a time.
static void begin_look(Look *l) {
    int head_dim = l->c->head_dim;
    bool of_a_token = l->heads % 4 == 0 || l->tokens == 1;
    l->rows = l->tokens * l->heads;
    l->line = of_a_token ? l->heads : l->tokens;
    l->apart = of_a_token ? head_dim : l->c->n_heads * head_dim;
    l->next_head = of_a_token ? 1 : l->tokens;
    l->next_token = of_a_token ? l->heads : 1;
    for (int row = 0; row < l->rows; row++) {
        memset(row_of(l, l->s->mix, row), 0, head_dim * sizeof(float));
        l->largest[row] = -INFINITY, l->sum[row] = 0;
    }
}

// How many of the positions p .. p + n - 1 token t may see: none that comes after it.
static int visible_to(const Look *l, int t, int p, int n) {
    int visible = l->s->pos + l->first + t + 1 - p;
    return visible < 0 ? 0 : least(visible, n);
}

// Add the values of positions begin .. end - 1 of those from p on, by their weights, to what some rows found:
// row, row + next, ..., so far apart in mix.
static void gather(Look *l, int row, int rows, int next, int apart, int p, int begin, int end) {
    State *s = l->s;
    void *first = value_at(l->c, s, l->layer, l->kv_head, p + begin);
    Matrix values = { s->kv_type, end - begin, l->c->head_dim, first, NULL, 0 };
    kernels.mix[s->kv_type](row_of(l, s->mix, row), apart, &values, l->c->head_dim,
                            l->scores + (size_t)row * SPAN + begin, next * SPAN, rows);
}

// Positions p .. p + n - 1, as far as each token may see them.
static void look_at(Look *l, int p, int n) {
    const Config *c = l->c;
    State *s = l->s;
    float scale = 1 / sqrtf((float)c->head_dim);        // of scores: it comes with the exponential
    Matrix keys = keys_from(c, s, l->layer, l->kv_head, p);
    for (int row = 0; row < l->rows; row += l->line)
        score(l->scores + (size_t)row * SPAN, &keys, n, row_of(l, s->q, row), l->apart, l->line);
    for (int row = 0; row < l->rows; row++) {
        float *scores = l->scores + (size_t)row * SPAN;
        for (int i = visible_to(l, token_of(l, row), p, n); i < n; i++) scores[i] = -INFINITY;
        float largest = kernels.largest(scores, n);
        if (!(largest > l->largest[row])) continue;
        float *found = row_of(l, s->mix, row), shrink = expf(scale * (l->largest[row] - largest));
        for (int i = 0; i < c->head_dim; i++) found[i] *= shrink;
        l->sum[row] *= shrink, l->largest[row] = largest;
    }
    for (int row = 0; row < l->rows; row++)             // apart: none waits for another one's largest
        l->sum[row] += kernels.exp(l->scores + (size_t)row * SPAN, n, scale, l->largest[row]);
    int common = visible_to(l, 0, p, n);                // what the first token sees, all see
    for (int row = 0; row < l->rows; row += l->line) gather(l, row, l->line, 1, l->apart, p, 0, common);
    for (int t = 1; t < l->tokens; t++)
        gather(l, t * l->next_token, l->heads, l->next_head, c->head_dim, p, common, visible_to(l, t, p, n));
}

static void look(Look *l) {
    begin_look(l);
    int seen = l->s->pos + l->first + l->tokens;
    for (int p = 0; p < seen; p += SPAN) look_at(l, p, least(seen - p, SPAN));
    for (int row = 0; row < l->rows; row++) {
        float *found = row_of(l, l->s->mix, row), share = 1 / l->sum[row];
        for (int i = 0; i < l->c->head_dim; i++) found[i] *= share;
    }
}

static void attend(void *job, int begin, int end) {
    const Job *j = job;
    const Config *c = j->c;
    int group = c->n_heads / c->n_kv_heads;
    Look l;                                             // an initializer would clear all scores, too
    l.c = c, l.s = j->s, l.layer = j->layer;
    for (int item = begin; item < end; item++) {
        if (j->s->T == 1) remember(job, item, item + 1);        // a head, whose key this core reads next
        l.kv_head = item % c->n_kv_heads, l.first = item / c->n_kv_heads * TOGETHER;
        l.tokens = least(j->s->T - l.first, TOGETHER);
        for (int h = 0; h < group; h += l.heads) {
            l.head = l.kv_head * group + h, l.heads = least(group - h, ROWS / l.tokens);
            look(&l);
        }
    }
}

// Who looks at whom, all at once, for those who watch.
static void show_weights(const Config *c, State *s, int layer, int t) {
    int seen = s->pos + t + 1;
    for (int h = 0; h < c->n_heads; h++) {
        const float *q = s->q + ((size_t)t * c->n_heads + h) * c->head_dim;
        float *weight = s->weights + (size_t)h * s->context, scale = 1 / sqrtf((float)c->head_dim);
        for (int p = 0; p < seen; p += SPAN) {
            Matrix keys = keys_from(c, s, layer, h / (c->n_heads / c->n_kv_heads), p);
            score(weight + p, &keys, least(seen - p, SPAN), q, c->head_dim, 1);
        }
        float sum = kernels.exp(weight, seen, scale, kernels.largest(weight, seen));
        for (int p = 0; p < seen; p++) weight[p] /= sum;
    }
    s->observer(s->observer_context,
                &(Event){ WEIGHTS, layer, s->pos + t, c->n_heads, seen, s->context, s->weights });
}

enum { CHUNK = 1 << 16 };                               // multiply-adds worth handing to another core

static void look_back(const Config *c, State *s, int layer) {
    int blocks = (s->T + TOGETHER - 1) / TOGETHER, tokens = least(s->T, TOGETHER);
    size_t cost = (size_t)tokens * (c->n_heads / c->n_kv_heads) * (s->pos + s->T) * c->head_dim * 2;
    if (s->T > 1) parallel_for(c->n_kv_heads, 1, remember, &(Job){ c, s, layer });      // blocks share heads
    parallel_for(blocks * c->n_kv_heads, (int)(1 + CHUNK / cost), attend, &(Job){ c, s, layer });
    if (s->observer && !s->spares_weights)
        for (int t = 0; t < s->T; t++) show_weights(c, s, layer, t);
    report(s, MIX, layer, s->mix, s->T, c->n_heads * c->head_dim);
}

void attention(const Model *m, State *s, int layer) {
    const Config *c = &m->config;
    const Layer *w = &m->weights.layers[layer];

    matmul(s, (Product[]){ { s->q, &w->wq }, { s->k, &w->wk }, { s->v, &w->wv } }, 3, s->xb);
    parallel_for(s->T, 8, turn, &(Job){ c, s, layer });
    report(s, Q_ROPE, layer, s->q, s->T, c->n_heads * c->head_dim);
    report(s, K_ROPE, layer, s->k, s->T, c->n_kv_heads * c->head_dim);
    look_back(c, s, layer);
    matmul(s, &(Product){ s->xb, &w->wo }, 1, s->mix);
}
