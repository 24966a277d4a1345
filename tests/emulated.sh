#!/bin/sh
# The kernels on CPUs that are not here, under qemu-user: aarch64 with sdot and without, x86-64 with AVX2 and
# with neither. Each has to name the sets it should, and to pass their tests. qemu knows no AVX-512.
# usage: tests/emulated.sh [quick]      quick: without test_products, which takes most of the time
cd "$(dirname "$0")/.." || exit 1
tests='test_kernels test_loops test_products'
[ "$1" = quick ] && tests='test_kernels test_loops'
strict='-O3 -Wall -Wextra -Wpedantic -Werror'
built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
running=

missing() {                                             # what for, tools ...
    what=$1; shift
    for tool; do
        command -v "$tool" > /dev/null || { echo "*** SKIPPED: $what: there is no $tool ***"; return 0; }
    done
    return 1
}
build() {                                               # folder, compiler: static, as qemu has no libraries
    folder=$built/$1
    make -s -j 2 BUILD="$folder" CC="$2" CFLAGS="$strict -static" "$folder/run" \
        $(for test in $tests; do echo "$folder/rmsnorm/$test"; done)
}
emulate() {                                             # folder, qemu, CPU, the sets it should have
    names=$("$2" -cpu "$3" "$built/$1/run" --kernels none 2>&1 | sed -n 's/.*this CPU runs //p')
    echo "$3 runs $names"
    [ "$names" = "$4" ] || { echo "FAILED: $3 should run $4"; return 1; }
    for test in $tests; do
        "$2" -cpu "$3" "$built/$1/rmsnorm/$test" > "$built/$3" 2>&1 || bad=1
        grep -v 'warning: TCG' "$built/$3" | sed "s/^/$3: /"
        [ -z "$bad" ] || { echo "FAILED: $test on $3"; return 1; }
    done
}
start() { emulate "$@" & running="$running $!"; }

if ! missing "aarch64" aarch64-linux-gnu-gcc qemu-aarch64; then
    build aarch64 aarch64-linux-gnu-gcc || exit 1
    start aarch64 qemu-aarch64 max "portable, neon, neon-dot"
    start aarch64 qemu-aarch64 cortex-a53 "portable, neon"
fi
if ! missing "clang for aarch64" clang aarch64-linux-gnu-gcc; then
    for file in kernels/*.c; do
        clang --target=aarch64-linux-gnu -std=c11 -D_GNU_SOURCE $strict -c "$file" -o "$built/o" || exit 1
    done
    echo "clang compiles the kernels for aarch64"
fi
if [ "$(uname -m)" != x86_64 ]; then
    echo "*** SKIPPED: x86-64 without AVX-512: this machine is none ***"
elif ! missing "x86-64 without AVX-512" qemu-x86_64; then
    build x86_64 cc || exit 1
    start x86_64 qemu-x86_64 Haswell "portable, avx2"
    start x86_64 qemu-x86_64 max,-f16c "portable"
    start x86_64 qemu-x86_64 Nehalem "portable"
fi
for job in $running; do wait "$job" || failed=1; done
[ -z "$failed" ] && echo "emulated: every CPU that could be had runs its sets, and they pass"
