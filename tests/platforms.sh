#!/bin/sh
# Other platforms: the program is built for each, and tells the beginning of a story that has to be this machine's,
# letter for letter. i686 has no SSE here; Windows runs by wine; what cannot be run is built and linked, and said so.
# usage: tests/platforms.sh
cd "$(dirname "$0")/.." || exit 1
built=$(mktemp -d)
trap 'rm -rf "$built" 2> /dev/null || { sleep 5; rm -rf "$built"; }' EXIT         # wine's server ends a little later
export WINEPREFIX="$built/wine" WINEDEBUG=-all
story() { "$@" models/stories-rmsnorm.gguf -i "Once upon a time" -n 16 -t 0 -q; }

# -O1: what is compiled here runs for a second, and compiling takes the time. -Werror, but for what gcc says of other
# ABIs: vectors in registers of SSE, and printf() as Microsoft had it.
strict='-O1 -Wall -Wextra -Wpedantic -Werror -Wno-psabi -Wno-maybe-uninitialized'

build() {                                               # folder, compiler, flags
    make -s -j 2 BUILD="$built/$1" CC="$2" CFLAGS="$strict $3" "$built/$1/run" && return
    echo "FAILED: $1 does not build"
    failed=1
    return 1
}
try() {                                                 # name, compiler, flags, how to run it ...
    name=$1 compiler=$2 flags=$3
    shift 3
    command -v "$compiler" > /dev/null || { echo "*** SKIPPED: $name: there is no $compiler ***"; return; }
    build "$name" "$compiler" "$flags" || return
    command -v "$1" > /dev/null || { echo "*** $name: built and linked, not run: there is no $1 ***"; return; }
    program=$built/$name/run
    [ -e "$program.exe" ] && program=$program.exe
    story "$@" "$program" > "$built/$name/story" 2> "$built/$name/said" &&
        cmp "$built/story" "$built/$name/story" && { echo "$name tells the story"; return; }
    echo "FAILED: $name: expected '$(cat "$built/story")', got '$(cat "$built/$name/story")'"
    cat "$built/$name/said"
    failed=1
}

build here "${CC:-cc}" || exit 1
story "$built/here/run" > "$built/story" || { echo "FAILED: this machine tells no story"; exit 1; }
try i686      i686-linux-gnu-gcc     -static qemu-i386 -cpu pentium2
try aarch64   aarch64-linux-gnu-gcc  -static qemu-aarch64
try riscv64   riscv64-linux-gnu-gcc  -static qemu-riscv64
try musl      musl-gcc               -static env
try mingw-w64 x86_64-w64-mingw32-gcc "-static -Wno-format" wine
[ -z "$failed" ] && echo "platforms: all that could be had tell the same story"
