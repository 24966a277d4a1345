// formats.c - what the number formats are called, and how much room they take.
#include "kernels.h"

const Format formats[N_TYPES] = {
    [F32]    = { "F32",    1,     sizeof(float),       false },
    [F16]    = { "F16",    1,     sizeof(Half),        false },
    [BF16]   = { "BF16",   1,     sizeof(uint16_t),    false },
    [Q8_0]   = { "Q8_0",   BLOCK, sizeof(BlockQ8_0),   true },
    [Q4_0]   = { "Q4_0",   BLOCK, sizeof(BlockQ4_0),   true },
    [Q4_1]   = { "Q4_1",   BLOCK, sizeof(BlockQ4_1),   true },
    [Q5_0]   = { "Q5_0",   BLOCK, sizeof(BlockQ5_0),   true },
    [Q5_1]   = { "Q5_1",   BLOCK, sizeof(BlockQ5_1),   true },
    [IQ4_NL] = { "IQ4_NL", BLOCK, sizeof(BlockIQ4_NL), true },
    [Q2_K]   = { "Q2_K",   SUPER, sizeof(BlockQ2_K),   true },
    [Q3_K]   = { "Q3_K",   SUPER, sizeof(BlockQ3_K),   true },
    [Q4_K]   = { "Q4_K",   SUPER, sizeof(BlockQ4_K),   true },
    [Q5_K]   = { "Q5_K",   SUPER, sizeof(BlockQ5_K),   true },
    [Q6_K]   = { "Q6_K",   SUPER, sizeof(BlockQ6_K),   true },
    [Q8_PLANE] = { "Q8",   1,     sizeof(int8_t),      false },
};

size_t bytes_of(Type type, size_t n) { return n / formats[type].block * formats[type].bytes; }

size_t matrix_bytes(const Matrix *w) {
    size_t scales = w->group ? (size_t)w->rows * (w->cols / w->group) * sizeof(float) : 0;
    return w->rows * bytes_of(w->type, (size_t)w->cols) + scales;
}
