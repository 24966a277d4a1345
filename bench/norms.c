// norms.c - how fast is each norm, as a part of the fastest it could be: make bench-norm
//
// The limit is a plain pass with the same reads and writes, out[i] = x[i] * weight[i] (+ bias[i]), in the
// registers of the same set of kernels. A norm reads x once more, and a large x has left the first cache by
// then. One thread; time is the processor's. Norms and limits take turns, so that whatever else the machine
// does falls on all of them; a ratio is formed within a turn, and its median and quartiles are told. RMSNorm
// is compared with LayerNorm without a bias and with one, which models that are trained with LayerNorm have.
//
// usage: norms [--json] [dim ...]
#include "../model.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_T = 64, TURNS = 41, MAX_N = 16384 };

// ---------------------------------------------------------------------------- what is compared

typedef void Function(float *out, const float *x, const Norm *w);

// Sixty-four numbers at a time, for which any compiler finds registers enough.
#define PASS(name, target)                                                                                   \
    target static void name(float *restrict out, const float *restrict x, const Norm *w) {                   \
        const float *restrict weight = w->weight, *restrict bias = w->bias;                                  \
        int i = 0;                                                                                           \
        for (; !bias && i + 64 <= w->dim; i += 64)                                                           \
            for (int j = 0; j < 64; j++) out[i + j] = x[i + j] * weight[i + j];                              \
        for (; bias && i + 64 <= w->dim; i += 64)                                                            \
            for (int j = 0; j < 64; j++) out[i + j] = x[i + j] * weight[i + j] + bias[i + j];                \
        for (; i < w->dim; i++) out[i] = x[i] * weight[i] + (bias ? bias[i] : 0);                            \
    }
PASS(pass_portable,)
#if defined __x86_64__
PASS(pass_avx2, __attribute__((target("avx2,fma"))))
PASS(pass_avx512, __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))))
#else
#define pass_avx2 pass_portable
#define pass_avx512 pass_portable
#endif

static const struct { const char *name; Function *pass; } sets[] = {
    { "portable", pass_portable }, { "avx2", pass_avx2 }, { "avx512", pass_avx512 },
    { "neon", pass_portable },     { "neon-dot", pass_portable },
};

static const struct { const char *name; Function *norm; bool bias; } norms[] = {
    { "rmsnorm", rmsnorm, false }, { "layernorm", layernorm, false }, { "with bias", layernorm, true },
    { "prmsnorm", prmsnorm, false }, { "nonorm", nonorm, false },
};
enum { RMS, LAYER };                                    // where they stand; with a bias: LAYER + 1
enum { N = sizeof norms / sizeof *norms, N_SETS = sizeof sets / sizeof *sets };

// ---------------------------------------------------------------------------- time

typedef struct { double median, low, high; } Spread;                    // and the quartiles

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static Spread spread_of(const double *turns) {
    double sorted[TURNS];
    memcpy(sorted, turns, sizeof sorted);
    qsort(sorted, TURNS, sizeof *sorted, by_size);
    return (Spread){ sorted[TURNS / 2], sorted[TURNS / 4], sorted[TURNS - 1 - TURNS / 4] };
}

// What else runs on the machine takes nothing of this.
static double processor_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return 1e9 * (double)t.tv_sec + (double)t.tv_nsec;
}

// Nanoseconds that f takes for T rows, called often enough for the clock.
static double time_of(Function *f, float *out, const float *x, const Norm *w, int T) {
    int repeats = 1 + (1 << 20) / (T * w->dim + 64);
    double started = processor_ns();
    for (int r = 0; r < repeats; r++)
        for (int t = 0; t < T; t++) f(out + (size_t)t * w->dim, x + (size_t)t * w->dim, w);
    return (processor_ns() - started) / repeats;
}

// [2]: limit without a bias and with one; RMSNorm (always without) to LayerNorm without and with
typedef struct { Spread ns[N], limit[2], part[N], rms_to_layer[2]; } Result;

static Result measure(Function *pass, float *out, const float *x, Norm w, int T) {
    static double ns[N][TURNS], limit[2][TURNS], part[N][TURNS], ratio[2][TURNS];
    const float *bias = w.bias;
    Result r;
    for (int turn = -1; turn < TURNS; turn++) {         // the first one warms up
        int k = turn < 0 ? 0 : turn;
        for (int b = 0; b < 2; b++) w.bias = b ? bias : NULL, limit[b][k] = time_of(pass, out, x, &w, T);
        for (int i = 0; i < N; i++) {
            w.bias = norms[i].bias ? bias : NULL;
            ns[i][k] = time_of(norms[i].norm, out, x, &w, T);
            part[i][k] = limit[norms[i].bias][k] / ns[i][k];
        }
        for (int b = 0; b < 2; b++) ratio[b][k] = ns[RMS][k] / ns[LAYER + b][k];
    }
    for (int i = 0; i < N; i++) r.ns[i] = spread_of(ns[i]), r.part[i] = spread_of(part[i]);
    for (int b = 0; b < 2; b++) r.limit[b] = spread_of(limit[b]), r.rms_to_layer[b] = spread_of(ratio[b]);
    return r;
}

// n numbers from -1 to 1. Each array begins elsewhere in its page: reads that seem to come after writes
// to the same place would wait for it.
static float *numbers(size_t n) {
    static _Alignas(4096) float memory[4 * 1024 + 2 * MAX_N + 2 * MAX_T * MAX_N];
    static size_t taken;
    float *x = memory + (taken += 16 * 13);
    uint64_t state = 1;
    taken += (n + 1023) / 1024 * 1024;
    for (size_t i = 0; i < n; i++) x[i] = (float)(random_next(&state) >> 40) * 0x1p-23f - 1;
    return x;
}

// ---------------------------------------------------------------------------- the report

// Bytes that T rows take: x, the weight, perhaps a bias, and out.
static double bytes(int T, int dim, bool bias) { return (3.0 + bias) * T * dim * sizeof(float); }

static void print_heading(const char *set) {
    printf("\n%s kernels: time of T rows of dim numbers, and speed in %% of the limit's, a plain pass with\n"
           "the same reads and writes; \"with bias\" is LayerNorm with one\n\n", set);
    printf("%9s %17s", "", "limit");
    for (int i = 0; i < N; i++) printf("%18s", norms[i].name);
    printf("   %-22s   %s\n", "rmsnorm : layernorm", "rmsnorm : with bias");
    printf("%5s %3s %10s %6s", "dim", "T", "ns", "GB/s");
    for (int i = 0; i < N; i++) printf("  %10s %5s", "ns", "limit");
    printf("   %-22s   %s\n", "median (quartiles)", "median (quartiles)");
}

static void print_text(const Result *r, int dim, int T) {
    printf("%5d %3d %10.1f %6.1f", dim, T, r->limit[0].median, bytes(T, dim, false) / r->limit[0].median);
    for (int i = 0; i < N; i++) printf("  %10.1f %3.0f %%", r->ns[i].median, 100 * r->part[i].median);
    for (int b = 0; b < 2; b++) {
        Spread ratio = r->rms_to_layer[b];
        printf("   %.3f (%.3f to %.3f)", ratio.median, ratio.low, ratio.high);
    }
    printf("\n");
}

static void put_spread(const char *before, const char *name, Spread s) {
    printf("%s\"%s\": {\"median\": %.17g, \"low\": %.17g, ", before, name, s.median, s.low);
    printf("\"high\": %.17g}", s.high);
}

static void print_json(const char *before, const Result *r, const char *set, int dim, int T) {
    printf("%s\n{\"kernels\": \"%s\", \"dim\": %d, \"T\": %d, \"norms\": {", before, set, dim, T);
    for (int i = 0; i < N; i++) {
        printf("%s\"%s\": {", i ? ", " : "", norms[i].bias ? "layernorm with bias" : norms[i].name);
        put_spread("", "ns", r->ns[i]);
        put_spread(", ", "limit_ns", r->limit[norms[i].bias]);
        put_spread(", ", "of_limit", r->part[i]);
        printf(", \"gb_per_s\": %.17g}", bytes(T, dim, norms[i].bias) / r->ns[i].median);
    }
    printf("}, ");
    put_spread("", "rms_to_layer", r->rms_to_layer[0]);
    put_spread(", ", "rms_to_layer_with_bias", r->rms_to_layer[1]);
    printf("}");
}

int main(int argc, char **argv) {
    int dims[32] = { 64, 128, 256, 512, 768, 1024, 2048, 4096, 5632, 8192, MAX_N };
    int n_dims = 11, given = 0;
    bool json = argc > 1 && !strcmp(argv[1], "--json");
    for (int i = 1 + json; i < argc && given < 32; i++) {
        dims[given++] = atoi(argv[i]);
        if (dims[given - 1] < 1 || dims[given - 1] > MAX_N)
            return fprintf(stderr, "usage: norms [--json] [dim ...]      a dim: 1 to %d\n", MAX_N), 2;
    }
    if (given) n_dims = given;
    size_t n = (size_t)MAX_T * MAX_N;
    float *x = numbers(n), *out = numbers(n), *weight = numbers(MAX_N), *bias = numbers(MAX_N);
    printf("%s", json ? "{\"clock\": \"CLOCK_PROCESS_CPUTIME_ID\", \"results\": [" : "");
    const char *before = "";
    for (int s = 0; s < N_SETS; s++) {
        if (!choose_kernels(sets[s].name)) continue;
        if (!json) print_heading(sets[s].name);
        for (int d = 0; d < n_dims; d++)
            for (int T = 1; T <= MAX_T; T *= MAX_T) {
                Norm w = { .dim = dims[d], .eps = 1e-5f, .weight = weight, .bias = bias };
                Result r = measure(sets[s].pass, out, x, w, T);
                if (json) print_json(before, &r, sets[s].name, dims[d], T);
                else print_text(&r, dims[d], T);
                before = ",";
                fflush(stdout);
            }
    }
    printf("%s", json ? "]}\n" : "");
    return 0;
}
