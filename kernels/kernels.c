// kernels.c - choose a set of kernels for this CPU.
#include "kernels.h"
#include <stdio.h>
#include <string.h>

static const Kernels *const sets[] = {                  // slowest first
    &kernels_portable, &kernels_avx2, &kernels_avx512, &kernels_neon, &kernels_neon_dot
};

Kernels kernels;

static void override(Kernels *to, const Kernels *from) {
    to->name = from->name;
    if (from->quantize)    to->quantize    = from->quantize;
    if (from->largest)     to->largest     = from->largest;
    if (from->exp)         to->exp         = from->exp;
    if (from->swiglu)      to->swiglu      = from->swiglu;
    if (from->mean_square) to->mean_square = from->mean_square;
    if (from->variance)    to->variance    = from->variance;
    if (from->normalize)   to->normalize   = from->normalize;
    for (int type = 0; type < N_TYPES; type++) {
        if (from->matmul[type]) to->matmul[type] = from->matmul[type];
        if (from->mix[type])    to->mix[type]    = from->mix[type];
        if (from->decode[type]) to->decode[type] = from->decode[type];
        if (from->encode[type]) to->encode[type] = from->encode[type];
    }
}

const char *kernel_names(void) {
    static char list[64];
    list[0] = 0;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        if (sets[i]->supported())
            snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", sets[i]->name);
    return list;
}

// Each set improves on the ones before it: take what it has, keep the rest.
bool choose_kernels(const char *name) {
    Kernels chosen = { 0 };
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        if (!sets[i]->supported()) continue;
        override(&chosen, sets[i]);
        if (name && !strcmp(name, chosen.name)) break;
    }
    if (name && strcmp(name, chosen.name)) return false;
    kernels = chosen;
    return true;
}
