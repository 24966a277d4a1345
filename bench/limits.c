// limits.c - how fast this machine can be at all: bytes read from memory, and multiply-adds, per second.
//
//   limits [FILE] [-j N] [--kernels NAME] [--quick]
//
// FILE is read through a mapping, as a model is; without one, a temporary file of 1 GiB, far beyond the
// caches (--quick: 64 MiB, and few passes). The report on standard output is JSON: each rate with 1 thread
// and with N, the best of some passes.
//
// A multiplier takes a new instruction each cycle, or two, and gives its sum some cycles later: only who
// keeps many sums going at once sees how fast it is. A dozen are enough, and fit into 16 registers.
#include "../model.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static bool quick;
static double best(double a, double b) { return a > b ? a : b; }

// The compiler must believe that somebody wants what lies there.
static void keep(const void *sums) { __asm__ volatile("" : : "r"(sums) : "memory"); }

// ---------------------------------------------------------------------------- multiply-adds

enum { STEPS = 20000, SUMS = 12 };                      // of a pass of one thread: some 30 microseconds

// A Work of passes, in each of which 12 sums take STEPS steps: sum = step(sum, x).
#define PASSES(name, target, Vector, number, step)                                                           \
    target static void name(void *job, int begin, int end) {                                                 \
        Vector x = number(*(const float *)job), a = number(1), b = number(2), c = number(3), d = number(4),  \
               e = number(5), f = number(6), g = number(7), h = number(8), i = number(9), j = number(10),    \
               k = number(11), l = number(12);                                                               \
        for (int left = (end - begin) * STEPS; left > 0; left--) {                                           \
            a = step(a, x), b = step(b, x), c = step(c, x), d = step(d, x), e = step(e, x), f = step(f, x);  \
            g = step(g, x), h = step(h, x), i = step(i, x), j = step(j, x), k = step(k, x), l = step(l, x);  \
        }                                                                                                    \
        keep((Vector[]){ a, b, c, d, e, f, g, h, i, j, k, l });                                              \
    }

// What a compiler makes of plain C, where nobody tells it that the CPU has more: vectors of 16 bytes.
typedef float Floats __attribute__((vector_size(16)));
typedef uint16_t Shorts __attribute__((vector_size(16)));
#define FLOATS(x) ((Floats){ x, x, x, x })
#define SHORTS(x) ((Shorts){ x, x, x, x, x, x, x, x })
#define TIMES_PLUS(sum, x) ((sum) * (x) + (x))
PASSES(plain_floats, , Floats, FLOATS, TIMES_PLUS)
PASSES(plain_shorts, , Shorts, SHORTS, TIMES_PLUS)

typedef struct { const char *name, *kernels; bool int8; int width; Work *passes; } Instruction;

#if defined __x86_64__
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))
#define BYTES256(x) _mm256_set1_epi32((int)(x))
#define BYTES512(x) _mm512_set1_epi32((int)(x))
#define FMA256(sum, x) _mm256_fmadd_ps(x, x, sum)
#define FMA512(sum, x) _mm512_fmadd_ps(x, x, sum)
#define DOT256(sum, x) _mm256_dpbusd_epi32(sum, x, x)
#define DOT512(sum, x) _mm512_dpbusd_epi32(sum, x, x)
PASSES(fma256, AVX2, __m256, _mm256_set1_ps, FMA256)
PASSES(fma512, AVX512, __m512, _mm512_set1_ps, FMA512)
PASSES(maddubs256, AVX2, __m256i, BYTES256, _mm256_maddubs_epi16)
PASSES(dot256, AVX512, __m256i, BYTES256, DOT256)
PASSES(dot512, AVX512, __m512i, BYTES512, DOT512)
static const Instruction of_this_cpu[] = {
    { "vpmaddubsw ymm", "avx2", true, 32, maddubs256 }, { "vfmadd ymm", "avx2", false, 8, fma256 },
    { "vpdpbusd ymm", "avx512", true, 32, dot256 },     { "vpdpbusd zmm", "avx512", true, 64, dot512 },
    { "vfmadd zmm", "avx512", false, 16, fma512 },
};
#elif defined __aarch64__
#include <arm_neon.h>
#define BYTES(x) vdupq_n_s32((int)(x))
#define FMA(sum, x) vfmaq_f32(sum, x, x)
#define MLAL(sum, x) vmlal_s8(sum, vget_low_s8(vreinterpretq_s8_s16(x)), vget_low_s8(vreinterpretq_s8_s16(x)))
#ifdef __clang__
#define DOTPROD __attribute__((target("dotprod")))
#else
#define DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))
#endif
DOTPROD static inline int32x4_t sdot(int32x4_t sum, int32x4_t x) {      // clang 14 hides the intrinsic
    __asm__("sdot %0.4s, %1.16b, %1.16b" : "+w"(sum) : "w"(x));
    return sum;
}
PASSES(fma128, , float32x4_t, vdupq_n_f32, FMA)
PASSES(mlal128, , int16x8_t, vdupq_n_s16, MLAL)
PASSES(sdot128, DOTPROD, int32x4_t, BYTES, sdot)
static const Instruction of_this_cpu[] = {
    { "smlal", "neon", true, 8, mlal128 }, { "fmla", "neon", false, 4, fma128 },
    { "sdot", "neon-dot", true, 16, sdot128 },
};
#else
static const Instruction of_this_cpu[] = { { NULL, "none", false, 0, NULL } };
#endif

static const Instruction plain[] = {                    // 16 bits are the narrowest that plain C multiplies
    { "plain C, int16", "portable", true, 8, plain_shorts },
    { "plain C, float", "portable", false, 4, plain_floats },
};
enum { PLAIN = 2, OWN = sizeof of_this_cpu / sizeof *of_this_cpu, INSTRUCTIONS = PLAIN + OWN };

// Is it of the named set, or of one that a CPU with the named set has, too?
static bool can_run(const Instruction *i, const char *kernels_name) {
    static const char *const order[] = { "portable", "avx2", "avx512", "neon", "neon-dot" };
    int own = -1, named = -1;
    for (int k = 0; k < 5; k++) {
        if (!strcmp(order[k], i->kernels)) own = k;
        if (!strcmp(order[k], kernels_name)) named = k;
    }
    return own >= 0 && own <= named && choose_kernels(i->kernels);
}

static double multiply_adds(const Instruction *i, int threads) {
    float x = 1;
    int passes = threads * (quick ? 8 : 32);            // short, so that some are not disturbed
    double rate = 0;
    for (int again = 0; again < (quick ? 3 : 40); again++) {
        double started = seconds();
        parallel_for(passes, 4, i->passes, &x);
        rate = best(rate, (double)passes * STEPS * SUMS * i->width / (seconds() - started));
    }
    return rate;
}

// ---------------------------------------------------------------------------- reading
//
// A core waits for memory, unless it has asked for much at once: it reads at several places far apart, each
// in pages of its own. How many are best, and whether to ask early for what comes there, is found by trying.

enum { STRETCH = 4096, CLAIM = 32 };                    // bytes, and how many of them before the next claim

typedef struct { const uint8_t *data; size_t apart; int places; bool early; } Reading;

static inline void read_places(const Reading *r, int begin, int end, int places, bool early) {
    Shorts sums[8] = { { 0 } };
    for (size_t at = (size_t)begin * STRETCH; at < (size_t)end * STRETCH; at += 64)
        for (int p = 0; p < places; p++) {
            const uint8_t *line = r->data + p * r->apart + at;
            if (early) __builtin_prefetch(line + 2048);
            for (int i = 0; i < 4; i++) {
                Shorts part;
                memcpy(&part, line + 16 * i, sizeof part);
                sums[i + p % 2 * 4] ^= part;
            }
        }
    keep(sums);
}

static void read_stretches(void *job, int begin, int end) {
    const Reading *r = job;
#define READ(n) r->early ? read_places(r, begin, end, n, true) : read_places(r, begin, end, n, false)
    switch (r->places) {                                // so that the compiler knows how many
    case 1: READ(1); break;
    case 2: READ(2); break;
    case 4: READ(4); break;
    case 8: READ(8); break;
    }
}

static double read_rate(Bytes memory) {
    double rate = 0;
    for (int again = 0; again < (quick ? 4 : 10); again++)
        for (int places = 1; places <= 8; places *= 2) {
            int stretches = (int)(memory.size / STRETCH) / places;
            if (!stretches) break;
            Reading r = { memory.data, (size_t)stretches * STRETCH, places, again % 2 };
            double started = seconds();
            parallel_for(stretches, CLAIM, read_stretches, &r);
            rate = best(rate, (double)places * (double)r.apart / (seconds() - started));
        }
    return rate;
}

// A file with no name, gone when the program ends. NULL, or what is wrong.
static const char *map_temporary(Bytes *memory) {
    enum { PIECE = 1 << 20 };
    int pieces = quick ? 64 : 1024;
    static uint32_t piece[PIECE / 4];
    FILE *f = tmpfile();
    if (!f) return strerror(errno);
    for (int i = 0; i < pieces; i++) {
        for (int j = 0; j < PIECE / 4; j++) piece[j] = (uint32_t)(i + j) * 2654435761u;
        if (fwrite(piece, PIECE, 1, f) != 1) return strerror(errno);
    }
    if (fflush(f)) return strerror(errno);
    memory->size = (size_t)PIECE * (size_t)pieces;
    memory->data = mmap(NULL, memory->size, PROT_READ, MAP_SHARED, fileno(f), 0);
    fclose(f);
    return memory->data == MAP_FAILED ? strerror(errno) : NULL;
}

// ---------------------------------------------------------------------------- the program

static int fail(const char *what, const char *why) {
    fprintf(stderr, "limits: %s: %s\n", what, why);
    return 1;
}

// One thread, then all of them; or the one that there is.
static void print_rates(const double *rates, int n) {
    printf("[%.17g", rates[0] / 1e9);
    if (n > 1) printf(", %.17g", rates[1] / 1e9);
    printf("]");
}

static void report_limits(Bytes memory, int threads, const char *set) {
    Instruction all[INSTRUCTIONS];
    double reads[2] = { 0 }, rates[INSTRUCTIONS][2] = { { 0 } }, most[2][2] = { { 0 } };
    int n = threads > 1 ? 2 : 1;
    memcpy(all, plain, sizeof plain), memcpy(all + PLAIN, of_this_cpu, sizeof of_this_cpu);
    for (int j = 0; j < n; j++) {
        int here = threads_start(j ? threads : 1);
        reads[j] = read_rate(memory);
        for (int i = 0; i < INSTRUCTIONS; i++) {
            if (!can_run(&all[i], set)) continue;
            rates[i][j] = multiply_adds(&all[i], here);
            most[all[i].int8][j] = best(most[all[i].int8][j], rates[i][j]);
        }
        threads_stop();
    }
    printf("{\"threads\": [1%s", n > 1 ? ", " : "");
    if (n > 1) printf("%d", threads);
    printf("], \"bytes\": %zu, \"kernels\": \"%s\", \"read_gb_per_s\": ", memory.size, set);
    print_rates(reads, n);
    printf(", \"int8_g_per_s\": "), print_rates(most[1], n);
    printf(", \"float_g_per_s\": "), print_rates(most[0], n);
    printf(", \"instructions\": [");
    for (int i = 0, any = 0; i < INSTRUCTIONS; i++) {
        if (!rates[i][0]) continue;
        printf("%s{\"name\": \"%s\", \"kernels\": \"%s\", \"int8\": %s, \"g_per_s\": ", any++ ? ", " : "",
               all[i].name, all[i].kernels, all[i].int8 ? "true" : "false");
        print_rates(rates[i], n);
        printf("}");
    }
    printf("]}\n");
}

int main(int argc, char **argv) {
    const char *path = NULL, *name = NULL, *error;
    int threads = threads_available();
    Bytes memory = { 0 };
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--quick")) quick = true;
        else if (!strcmp(argv[i], "--kernels") && argv[i + 1]) name = argv[++i];
        else if (!strcmp(argv[i], "-j") && argv[i + 1]) threads = atoi(argv[++i]);
        else if (argv[i][0] != '-' && !path) path = argv[i];
        else return fail(argv[i], "usage: limits [FILE] [-j N] [--kernels NAME] [--quick]"), 2;
    }
    if (threads < 1 || threads > 256) return fail("-j", "a number from 1 to 256 is wanted"), 2;
    if (!choose_kernels(name)) return fail(name, "this CPU does not run these kernels"), 2;
    name = kernels.name;                                // what can_run() chooses is not asked for again
    error = path ? map_file(&memory, path) : map_temporary(&memory);
    if (error) return fail(path ? path : "a temporary file", error);
    if (memory.size < STRETCH) return fail(path, "less than a page is no measure");
    report_limits(memory, threads, name);
    return 0;
}
