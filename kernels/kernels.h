// kernels.h - the inner loops, and the number formats they read.
//
// Nearly all the time goes into these few loops, so they are the one thing written more than once:
// portable.c says what to compute; avx2, avx512 and neon compute the same thing faster.
#ifndef KERNELS_H
#define KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

_Static_assert(sizeof(float) == 4 && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are little-endian");

// ---------------------------------------------------------------------------- how numbers are stored

typedef enum {
    F32, F16, BF16,                                     // floats, one by one
    Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL,               // blocks of 32 that share a scale
    Q2_K, Q3_K, Q4_K, Q5_K, Q6_K,                       // blocks of 256 with scales of their own inside
    Q8_PLANE,                                           // llama2.c: all int8 first, then all scales
    N_TYPES
} Type;

enum { BLOCK = 32, SUPER = 256 };
typedef uint16_t Half;                                  // the bits of an F16

typedef struct { Half d; int8_t  q[32]; } BlockQ8_0;                        // w = d * q
typedef struct { Half d; uint8_t q[16]; } BlockQ4_0;                        // w = d * (q - 8)
typedef struct { Half d, m; uint8_t q[16]; } BlockQ4_1;                     // w = d * q + m
typedef struct { Half d; uint8_t high[4], q[16]; } BlockQ5_0;               // w = d * (q - 16)
typedef struct { Half d, m; uint8_t high[4], q[16]; } BlockQ5_1;            // w = d * q + m
typedef struct { Half d; uint8_t q[16]; } BlockIQ4_NL;                      // w = d * table[q]
typedef struct { uint8_t scales[16], q[64]; Half d, dmin; } BlockQ2_K;      // w = d * s * q - dmin * m
typedef struct { uint8_t high[32], q[64], scales[12]; Half d; } BlockQ3_K;  // w = d * (s - 32) * (q - 4)
typedef struct { Half d, dmin; uint8_t scales[12], q[128]; } BlockQ4_K;     // w = d * s * q - dmin * m
typedef struct { Half d, dmin; uint8_t scales[12], high[32], q[128]; } BlockQ5_K; // w = d * s * q - dmin * m
typedef struct { uint8_t q[128], high[64]; int8_t scales[16]; Half d; } BlockQ6_K; // w = d * s * (q - 32)

_Static_assert(sizeof(BlockQ8_0) == 34 && sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20, "ggml's sizes");
_Static_assert(sizeof(BlockQ5_0) == 22 && sizeof(BlockQ5_1) == 24 && sizeof(BlockIQ4_NL) == 18, "ggml's");
_Static_assert(sizeof(BlockQ2_K) == 84 && sizeof(BlockQ3_K) == 110 && sizeof(BlockQ4_K) == 144, "ggml's");
_Static_assert(sizeof(BlockQ5_K) == 176 && sizeof(BlockQ6_K) == 210, "ggml's sizes");

typedef struct {
    const char *name;       // ggml's
    int block, bytes;       // numbers in a block, and the bytes that they take
    bool int8_input;        // is it multiplied with inputs of 8 bits?
} Format;
extern const Format formats[N_TYPES];

typedef struct {
    Type type;
    int rows, cols;
    const void *data;       // (rows, cols)
    const void *scales;     // (rows, cols / group) floats, of a Q8_PLANE only; not always aligned
    int group;
} Matrix;

size_t bytes_of(Type type, size_t n);                   // of n numbers, n a multiple of the block
size_t matrix_bytes(const Matrix *w);

// An input to a quantized matrix: x = scale * q, scale = largest / 127; and the sums of the two halves of q.
typedef struct { float scale; int16_t sums[2]; int8_t q[BLOCK]; } BlockX8;
_Static_assert(sizeof(BlockX8) == 40, "no padding");

// ---------------------------------------------------------------------------- the table

#define MIX_ARGUMENTS float *out, int stride, const Matrix *w, int cols, const float *scale, int pitch, int T
typedef void Mix(MIX_ARGUMENTS);

typedef struct {
    const char *name;
    bool (*supported)(void);                            // can this CPU run them?

    // A set that leaves one of the following NULL takes it from the next slower set.

    // out[t * stride + r] = dot(row r of w, row t of x)    for 0 <= t < T and from <= r < to.
    // x: (T, cols) floats, or BlockX8 where formats[type].int8_input. One element of out is summed in one
    // fixed order, whatever from and to are: however threads share the rows, not a bit changes.
    void (*matmul[N_TYPES])(float *out, int stride, const Matrix *w, const void *x, int T, int from, int to);

    // out[t * stride + c] += sum over the rows r of w of scale[t * pitch + r] * w[r][c]    for 0 <= t < T and
    // 0 <= c < cols. Rows are added in their order, whatever T and cols are.
    Mix *mix[N_TYPES];

    // A row of w as floats. And n floats as numbers of a KV cache's type, rounded to nearest, ties to even.
    void (*decode[N_TYPES])(float *out, const Matrix *w, int row);
    void (*encode[N_TYPES])(void *out, const float *in, int n);

    // Over plain floats (loops.h). exp: x = e^(scale * (x - shift)), and the sum of them. swiglu: gate =
    // silu(gate) * up. For the norms (norms.h): mean_square: of x; variance: over n, and the mean beside it;
    // normalize: out = (x - center) * scale * weight + bias, and bias may be NULL.
    float (*largest)(const float *x, int n);
    float (*exp)(float *x, int n, float scale, float shift);
    void (*swiglu)(float *gate, const float *up, int n);
    double (*mean_square)(const float *x, int n);
    double (*variance)(double *mean, const float *x, int n);
    void (*normalize)(float *out, const float *x, double center, double scale, const float *weight,
                      const float *bias, int n);

    void (*quantize)(BlockX8 *out, const float *in, size_t n);      // n a multiple of BLOCK
} Kernels;

bool cpu_has_sdot(void);                                // of an aarch64, asked in system.c
extern const Kernels kernels_portable, kernels_avx2, kernels_avx512, kernels_neon, kernels_neon_dot;

extern Kernels kernels;                                 // the chosen set: what the chapters call, once chosen
bool choose_kernels(const char *name);                  // NULL: the fastest; false: not on this CPU
const char *kernel_names(void);                         // those that this CPU can run

#endif
