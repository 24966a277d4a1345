#!/bin/sh
# layers.sh turns red when it should: breaches of every kind, planted in a copy of the house.
here=$(cd "$(dirname "$0")/.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
checks=0

fresh_copy() {
    rm -rf "$copy/house" && mkdir -p "$copy/house/kernels" &&
    cp "$here"/*.c "$here"/*.h "$copy/house" && cp "$here"/kernels/* "$copy/house/kernels" || exit 1
}
plant() { printf '%s\n' "$2" >> "$copy/house/$1"; }     # file, line
expect() {                                              # what layers.sh has to say
    sh "$here/tests/layers.sh" "$copy/house" > "$copy/said" 2>&1 && { echo "FAIL: not noticed: $1"; exit 1; }
    grep -qF "$1" "$copy/said" || { echo "FAIL: expected '$1', got: $(cat "$copy/said")"; exit 1; }
    checks=$((checks + 1))
    fresh_copy
}

fresh_copy
sh "$here/tests/layers.sh" "$copy/house" > "$copy/said" || { echo "FAIL: the house itself: $(cat "$copy/said")"; exit 1; }

plant ffn.c 'float *again(const Model *m, State *s) { return forward(m, s, 0, 1, 0, 1); }'
expect 'ffn.c reaches up to forward() in model.c'

plant model.c 'int forward2(int x) { return x; }'                  # a digit in the name
plant ffn.c 'int forward2(int); int again(int x) { return forward2(x); }'
expect 'ffn.c reaches up to forward2() in model.c'

plant sampler.c 'void aside(const Model *m, State *s) { ffn(m, s, 0); }'
expect 'sampler.c reaches up to ffn() in ffn.c'                     # beside is up, too

plant ffn.c 'int beside; int *up(void) { return &beside; }'
plant kernels/portable.c 'extern int beside; int *down(void) { return &beside; }'
expect 'kernels/portable.c reaches up to beside() in ffn.c'         # data as well as functions

plant kernels/portable.c '#include "../model.h"'
expect 'includes that leave the tree: kernels/portable.c'

plant file.c 'size_t times(size_t a) { return a; }'
expect 'file.c defines times, which is a name of the C library'

printf 'int stray;\n' > "$copy/house/cellar.c"
expect 'cellar.c has no layer'

echo "test_layers: $checks breaches planted, $checks found"
