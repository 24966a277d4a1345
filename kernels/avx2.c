// avx2.c - x86-64 with AVX2, FMA and F16C: eight floats, or 32 small integers, at a time.
#include "kernels.h"

#ifdef __x86_64__

static bool supported(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

const Kernels kernels_avx2 = { .name = "avx2", .supported = supported };

#else

static bool never(void) { return false; }
const Kernels kernels_avx2 = { .name = "avx2", .supported = never };

#endif
