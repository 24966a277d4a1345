// kernels.h - the inner loops, and the number formats they read.
//
// Nearly all the time goes into these few loops, so they are the one thing written more than once:
// portable.c says what to compute, every other file of this folder computes the same thing faster.
#ifndef KERNELS_H
#define KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

_Static_assert(sizeof(float) == 4 && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "checkpoints are little-endian");

typedef enum { F32, F16, N_TYPES } Type;                // how a matrix is stored

// Bytes of n numbers of a type; rows of a matrix follow one another without gaps.
size_t bytes_of(Type type, size_t n);

typedef struct {
    const char *name;
    bool (*supported)(void);                            // can this CPU run them?

    // A set that leaves one of the following NULL takes it from the next slower set.

    // out[t * stride + r] = dot(row r of w, row t of x)    for 0 <= t < T and begin <= r < end.
    // w: (rows, cols) of the type; x: (T, cols). One element of out is summed in one fixed order, whatever
    // T, begin and end are: threads may share the rows in any way and the result stays the same to the bit.
    void (*matmul[N_TYPES])(float *out, int stride, const void *w, const float *x, int cols, int T, int begin, int end);

    // out[c] = sum over r of scale[r] * w[r][c]            w: (rows, cols) of the type, rows added in order.
    void (*mix[N_TYPES])(float *out, const float *scale, const void *w, int rows, int cols);

    // n numbers between float and the type. Encoding rounds to nearest, ties to even.
    void (*decode[N_TYPES])(float *out, const void *in, size_t n);
    void (*encode[N_TYPES])(void *out, const float *in, size_t n);
} Kernels;

extern const Kernels kernels_portable;

extern Kernels kernels;                                 // the chosen set: what the chapters call
bool choose_kernels(const char *name);                  // NULL: the fastest; false: this CPU has none of that name

#endif
