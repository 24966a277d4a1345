// test_sampler.c - the generator against its published numbers, the draws against exact probabilities.
#include "test.h"
#include <time.h>

// The first numbers from seed 1234567, as Rosetta Code and others print them.
static void test_generator(void) {
    static const uint64_t want[] = { 6457827717110365317u, 3203168211198807973u, 9817491932198370423u,
                                     4593380528125082431u, 16408922859458223821u };
    uint64_t state = 1234567;
    for (int i = 0; i < 5; i++) {
        uint64_t got = random_next(&state);
        CHECK(got == want[i], "number %d: wanted %llu, got %llu", i, (unsigned long long)want[i],
              (unsigned long long)got);
    }
}

static Sampler new_sampler(int vocab_size, Sampler settings) {
    const char *error = sampler_create(&settings, vocab_size);
    CHECK(!error, "%s", error);
    return settings;
}

static const Sampler plain = { .temperature = 1, .top_p = 1, .repeat_penalty = 1, .random = 42 };

// ---------------------------------------------------------------------------- without chance

static int greedy(const float *logits, int vocab_size, float penalty, const int *history, int n) {
    Sampler s =
        new_sampler(vocab_size, (Sampler){ .temperature = 0, .top_p = 0.9f, .repeat_penalty = penalty });
    int id = sample(&s, logits, vocab_size, history, n);
    CHECK(s.random == 0, "a random number was drawn where nothing is left to chance");
    sampler_free(&s);
    return id;
}

static void test_greedy(void) {
    static const struct { float logits[4]; int want; } cases[] = {
        { { 1, 3, 2, 0 }, 1 }, { { -5, -4, -3, -9 }, 2 }, { { 7, 7, 7, 7 }, 0 }, { { 0, 2, 1, 2 }, 1 },
        { { -INFINITY, -1e30f, -INFINITY, -INFINITY }, 1 }, { { 1e30f, 3e38f, 0, 0 }, 1 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int got = greedy(cases[i].logits, 4, 1, NULL, 0);
        CHECK(got == cases[i].want, "case %zu: wanted %d, got %d", i, cases[i].want, got);
    }
    CHECK(greedy((const float[]){ -3 }, 1, 1, NULL, 0) == 0, "a vocabulary of one has one answer");
}

// A penalty of 2 halves what is positive and doubles what is negative, once for each id of the last 64.
static void test_repeat_penalty(void) {
    static const struct { const char *name; float logits[3]; int history[4], n, want; } cases[] = {
        { "nothing seen", { 2, 1.5f, -9 }, { 0 }, 0, 0 },
        { "2 / 2 = 1 < 1.5", { 2, 1.5f, -9 }, { 0 }, 1, 1 },
        { "4 / 2 = 2 > 1.5, once", { 4, 1.5f, -9 }, { 0, 0, 0, 0 }, 4, 0 },
        { "2 / 2 = 1 < 1.5, 1.5 / 2 < 1", { 2, 1.5f, -9 }, { 0, 1, 2 }, 3, 0 },
        { "-1 * 2 = -2 < -1.5", { -1, -1.5f, -9 }, { 0 }, 1, 1 },
        { "-1 * 2 = -2 > -3, once", { -1, -3, -9 }, { 0, 0, 0 }, 3, 0 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int got = greedy(cases[i].logits, 3, 2, cases[i].history, cases[i].n);
        CHECK(got == cases[i].want, "%s: wanted %d, got %d", cases[i].name, cases[i].want, got);
    }
    int history[100];
    for (int i = 0; i < 100; i++) history[i] = i == 100 - 65 ? 0 : 2;       // 0 was 65 tokens ago
    CHECK(greedy((const float[]){ 2, 1.5f, -9 }, 3, 2, history, 100) == 0,
          "a token is punished after 65 tokens");
    history[100 - 64] = 0;
    CHECK(greedy((const float[]){ 2, 1.5f, -9 }, 3, 2, history, 100) == 1,
          "a token is not punished after 64 tokens");
}

// ---------------------------------------------------------------------------- the likeliest

// In order, of equals the first; and a sample after it is none the worse.
static void test_likeliest(void) {
    static const float x[] = { 1, 5, -INFINITY, 5, 2, -3, 4 };
    static const int order[] = { 1, 3, 6, 4, 0, 5, 2 };
    Sampler s = new_sampler(7, plain);
    for (int n = 0; n <= 7; n++) {
        Candidate best[7];
        likeliest(best, n, &s, x, 7);
        for (int i = 0; i < n; i++)
            CHECK(best[i].id == order[i] && best[i].p == x[order[i]], "%d of %d: got %d", i, n, best[i].id);
    }
    s.temperature = 0;
    CHECK(sample(&s, x, 7, NULL, 0) == 1, "the likeliest has changed");
    sampler_free(&s);
}

// What is never chosen is not, whatever is asked for; the others keep their chances.
static void test_never(void) {
    static const float x[] = { 9, 1, 8, 1, -1 };
    const bool never[] = { true, false, true, false, false };
    static const Sampler settings[] = {
        { 0, 0, 1, 0, 1, 1, NULL, NULL },       { 1, 0, 1, 0, 1, 1, NULL, NULL },
        { 100, 0, 1, 0, 1, 1, NULL, NULL },     { 1, 2, 1, 0, 1, 1, NULL, NULL },
        { 1, 0, 0.9f, 0, 1, 1, NULL, NULL },    { 1, 0, 1, 0.5f, 1, 1, NULL, NULL },
        { 1, 0, 1, 0, 2, 1, NULL, NULL },
    };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        Sampler s = new_sampler(5, settings[i]);
        s.never = never;
        int seen[5] = { 0 };
        for (int draws = 0; draws < 2000; draws++) seen[sample(&s, x, 5, (const int[]){ 0, 1, 3 }, 3)]++;
        CHECK(!seen[0] && !seen[2] && seen[1], "case %zu: %d and %d were chosen", i, seen[0], seen[2]);
        bool even = settings[i].temperature == 0 ? !seen[3] : abs(seen[1] - seen[3]) < 200;    // 4.5 sigma
        CHECK(even, "case %zu: two that are equally likely: %d and %d times", i, seen[1], seen[3]);
        sampler_free(&s);
    }
}

// ---------------------------------------------------------------------------- draws

enum { VOCAB = 12, DRAWS = 50000 };
static const float logits[VOCAB] = { 0.3f, -1.1f, 2, 0.9f, -0.4f, 1.4f, 2, -2.1f, 0, 1.1f, -0.7f, 0.6f };
static const int history[] = { 2, 7, 7, 11, 2 };

// The probabilities that the settings ask for, in double and by sorting.
static void exact(double *p, Sampler s) {
    double total = 0, mass = 0;
    int order[VOCAB], kept = s.top_k > 0 && s.top_k < VOCAB ? s.top_k : VOCAB, few = 0;
    for (int i = 0; i < VOCAB; i++) {
        double logit = logits[i];
        bool seen = i == 2 || i == 7 || i == 11;
        if (seen) logit = logit > 0 ? logit / s.repeat_penalty : logit * s.repeat_penalty;
        p[i] = exp(logit / s.temperature);
        int at = i;                                     // insertion: the likeliest first, of equals the first
        for (; at > 0 && p[order[at - 1]] < p[i]; at--) order[at] = order[at - 1];
        order[at] = i;
    }
    for (int i = 0; i < kept; i++) total += p[order[i]];
    while (few < kept && (few == 0 || mass < s.top_p * total)) mass += p[order[few++]];
    while (p[order[few - 1]] < s.min_p * p[order[0]]) mass -= p[order[--few]];
    for (int i = 0; i < few; i++) p[order[i]] /= mass;
    for (int i = few; i < VOCAB; i++) p[order[i]] = 0;
}

// Pearson's sum of (seen - expected)^2 / expected, as a fraction of the value that chance exceeds once in
// 10,000 times (p = 1e-4; Wilson & Hilferty 1931, 3.719 is the normal distribution's quantile). More than 1:
// another distribution. Infinite: something was drawn that cannot be.
static double chi_square(const int *seen, const double *p) {
    double sum = 0;
    int freedom = -1;
    for (int i = 0; i < VOCAB; i++) {
        double expected = p[i] * DRAWS;
        if (p[i] == 0 && seen[i]) return INFINITY;
        if (p[i] == 0) continue;
        CHECK(expected > 5, "too few draws: %g of %d", expected, i);
        sum += (seen[i] - expected) * (seen[i] - expected) / expected;
        freedom++;
    }
    if (freedom == 0) return sum == 0 ? 0 : INFINITY;
    double spread = 2 / (9.0 * freedom), root = 1 - spread + 3.719 * sqrt(spread);
    return sum / (freedom * root * root * root);
}

static void draw(int *seen, Sampler settings) {
    Sampler s = new_sampler(VOCAB, settings);
    memset(seen, 0, VOCAB * sizeof *seen);
    for (int i = 0; i < DRAWS; i++)
        seen[sample(&s, logits, VOCAB, history, sizeof history / sizeof *history)]++;
    sampler_free(&s);
}

// { temperature, top-k, top-p, min-p, repeat penalty, seed }, and how many of the twelve remain
static const struct { Sampler settings; int kept; } draws[] = {
    { { 1,    0,  1,     0,    1,    1, NULL, NULL }, 12 },
    { { 0.5f, 0,  1,     0,    1,    2, NULL, NULL }, 12 },
    { { 2,    0,  1,     0,    1,    3, NULL, NULL }, 12 },
    { { 1,    3,  1,     0,    1,    4, NULL, NULL }, 3 },
    { { 1,    1,  1,     0,    1,    5, NULL, NULL }, 1 },
    { { 1,    50, 1,     0,    1,    6, NULL, NULL }, 12 },   // more than there are
    { { 1,    0,  0.5f,  0,    1,    7, NULL, NULL }, 3 },  // 2 e^2 + e^1.4 = 18.8 of 30.1; but 1.4: 14.8
    { { 1,    0,  0.9f,  0,    1,    8, NULL, NULL }, 7 },    // 27.5 of 30.1; without 0.3's 26.1
    { { 1,    0,  0,     0,    1,    9, NULL, NULL }, 1 },    // the likeliest alone; of two equals the first
    { { 1,    0,  1,     0.2f, 1,   10, NULL, NULL }, 6 },    // at least e^2 / 5: logits from 0.39 on
    { { 1,    0,  1,     1,    1,   11, NULL, NULL }, 2 },    // as likely as the likeliest
    { { 1,    0,  1,     0,    1.5f, 12, NULL, NULL }, 12 },
    { { 0.7f, 6,  0.95f, 0,    1.2f, 13, NULL, NULL }, 0 },   // 0: the formula alone says how many
    { { 1.5f, 9,  0.8f,  0.1f, 1.1f, 14, NULL, NULL }, 0 },
    { { 2,    0,  0.6f,  0.3f, 1,   15, NULL, NULL }, 0 },
    { { 0.5f, 4,  1,     0.05f, 2,  16, NULL, NULL }, 0 },
};

static void test_draws(void) {
    for (size_t i = 0; i < sizeof draws / sizeof *draws; i++) {
        double p[VOCAB];
        int seen[VOCAB], kept = 0;
        exact(p, draws[i].settings);
        for (int k = 0; k < VOCAB; k++) kept += p[k] > 0;
        CHECK(!draws[i].kept || kept == draws[i].kept, "case %zu: wanted %d candidates, counted %d", i,
              draws[i].kept, kept);
        draw(seen, draws[i].settings);
        double measure = chi_square(seen, p);
        CHECK(measure < 1, "case %zu: chi-square is %g times what chance explains", i, measure);
    }
}

// The measure tells settings apart that are close to one another, so it can fail.
static void test_measure_can_fail(void) {
    static const Sampler near_ones[] = {
        { 1.05f, 0, 1, 0, 1, 1, NULL, NULL },   { 1, 11, 1, 0, 1, 1, NULL, NULL },
        { 1, 0, 0.97f, 0, 1, 1, NULL, NULL },   { 1, 0, 1, 0.05f, 1, 1, NULL, NULL },
        { 1, 0, 1, 0, 1.05f, 1, NULL, NULL },
    };
    double p[VOCAB];
    int seen[VOCAB];
    draw(seen, plain);
    for (size_t i = 0; i < sizeof near_ones / sizeof *near_ones; i++) {
        exact(p, near_ones[i]);
        CHECK(chi_square(seen, p) > 1, "case %zu cannot be told from plain draws: %g", i,
              chi_square(seen, p));
    }
}

static void test_seeds(void) {
    Sampler a = new_sampler(VOCAB, plain), b = new_sampler(VOCAB, plain), c = new_sampler(VOCAB, plain);
    c.random++;
    int same = 0, other = 0;
    for (int i = 0; i < 1000; i++) {
        int id = sample(&a, logits, VOCAB, NULL, 0);
        same += id == sample(&b, logits, VOCAB, NULL, 0);
        other += id == sample(&c, logits, VOCAB, NULL, 0);
    }
    CHECK(same == 1000, "one seed, two stories: %d of 1000 draws agree", same);
    CHECK(other < 500, "two seeds, one story: %d of 1000 draws agree", other);
    sampler_free(&a), sampler_free(&b), sampler_free(&c);
}

// ---------------------------------------------------------------------------- extremes

static void test_extremes(void) {
    Sampler s = new_sampler(4, plain);
    for (int i = 0; i < 1000; i++) {
        int id = sample(&s, (const float[]){ -INFINITY, 0, -INFINITY, 0 }, 4, NULL, 0);
        CHECK(id == 1 || id == 3, "drew %d, which is impossible", id);
        id = sample(&s, (const float[]){ 1e30f, 3e38f, -3e38f, 0 }, 4, NULL, 0);
        CHECK(id == 1, "drew %d; 1 is all but certain", id);
    }
    for (int truncate = 0; truncate < 2; truncate++) {  // damaged weights: any answer, but an id
        s.top_p = truncate ? 0.9f : 1;
        int id = sample(&s, (const float[]){ NAN, NAN, NAN, NAN }, 4, NULL, 0);
        CHECK(id >= 0 && id < 4, "drew %d of 4", id);
    }
    s.temperature = 1e-30f;
    CHECK(sample(&s, (const float[]){ 1, 2, 3, 2.5f }, 4, NULL, 0) == 2,
          "next to no temperature is no temperature");
    sampler_free(&s);

    s = new_sampler(
        1, (Sampler){ .temperature = 1, .top_k = 5, .top_p = 0.5f, .min_p = 0.5f, .repeat_penalty = 2 });
    CHECK(sample(&s, (const float[]){ 3 }, 1, (const int[]){ 0 }, 1) == 0,
          "a vocabulary of one has one answer");
    sampler_free(&s);
}

// 32000 equal logits: nothing is worse to sort, and of equals the first half reaches 0.5.
static void test_large_vocabulary(void) {
    enum { N = 32000, TIMES = 30 };
    static float flat[N];
    Sampler s =
        new_sampler(N, (Sampler){ .temperature = 1, .top_p = 0.5f, .repeat_penalty = 1.1f, .random = 3 });
    int largest = 0;
    clock_t start = clock();
    for (int i = 0; i < TIMES; i++) {
        int id = sample(&s, flat, N, history, 5);
        if (id > largest) largest = id;
    }
    double each = (double)(clock() - start) / CLOCKS_PER_SEC / TIMES;
    CHECK(largest < N / 2 && largest > N / 4, "the largest of %d draws below 16000 is %d", TIMES, largest);
    CHECK(each < (SANITIZED ? 0.5 : 0.05), "a draw from %d takes %.0f ms", N, each * 1e3);
    sampler_free(&s);
}

int main(void) {
    test_generator();
    test_greedy();
    test_repeat_penalty();
    test_likeliest();
    test_never();
    test_draws();
    test_measure_can_fail();
    test_seeds();
    test_extremes();
    test_large_vocabulary();
    return finish("test_sampler");
}
