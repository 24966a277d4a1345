// avx512.c - x86-64 with AVX-512 F, BW, DQ, VL, VNNI and VBMI: 16 floats, or 64 small integers, at a time.
#include "kernels.h"

#ifdef __x86_64__

static bool supported(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
}

const Kernels kernels_avx512 = { .name = "avx512", .supported = supported };

#else

static bool never(void) { return false; }
const Kernels kernels_avx512 = { .name = "avx512", .supported = never };

#endif
