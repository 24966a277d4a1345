#!/bin/sh
# A call goes downward only: a file may use what files on lower lines define, and nothing beside or above it.
# Includes are a tree: *.c -> model.h -> kernels/kernels.h. No name is the C library's.    usage: tests/layers.sh [folder]
cd "${1:-.}" || exit 1
layers='
run
options info generate
measure output
model checkpoint vocabulary
attention ffn gguf llama2c sampler chat
matmul rmsnorm tokenizer template
words
threads trace file kernels/kernels
utf8 unicode
kernels/portable kernels/avx2 kernels/avx512 kernels/neon
kernels/avx2_floats kernels/avx512_floats kernels/neon_floats
kernels/formats system
'
objects=$(mktemp -d)
trap 'rm -rf "$objects"' EXIT
for file in *.c kernels/*.c; do
    echo "$layers" | grep -qw "${file%.c}" || { echo "$file has no layer: give it one in tests/layers.sh"; bad=1; }
    ${CC:-cc} -std=c11 -D_GNU_SOURCE -O0 -c "$file" -o "$objects/$(echo "${file%.c}" | tr / @).o" || exit 1
done

# "file D name" for what it defines, "file U name" for what it uses; the height of a file is its line above.
for object in "$objects"/*.o; do
    nm -g "$object" | awk -v file="$(basename "$object" .o | tr @ /)" '{ print file, ($(NF-1) == "U" ? "U" : "D"), $NF }'
done > "$objects/symbols"
echo "$layers" | awk '
    FNR == NR { for (i = 1; i <= NF; i++) height[$i] = -NR; next }
    $2 == "D" { home[$3] = $1 }
    $2 == "U" { use[++n] = $1 " " $3 }
    END {
        for (i = 1; i <= n; i++) {
            split(use[i], u, " ")
            to = home[u[2]]
            if (to && height[to] >= height[u[1]]) { print u[1] ".c reaches up to " u[2] "() in " to ".c"; bad = 1 }
        }
        exit bad
    }' - "$objects/symbols" || bad=1

# A name of the C library's, POSIX's included, would be taken for ours by whatever else lies in one program with us.
for library in libc.so.6 libm.so.6; do
    file=$(${CC:-cc} -print-file-name=$library)
    [ -e "$file" ] && nm -D --defined-only "$file" | sed 's/@.*//' | awk '{ print $NF }'
done > "$objects/library"
awk 'FNR == NR { taken[$1] = 1; next } $2 == "D" && taken[$3] {
         print $1 ".c defines " $3 ", which is a name of the C library"; bad = 1 } END { exit bad }' \
    "$objects/library" "$objects/symbols" || bad=1

wrong=$(grep -n '#include "' *.c | grep -v '"model.h"'; grep -n '#include "' model.h | grep -v '"kernels/kernels.h"'
        grep -n '#include "' kernels/*.[ch] | grep -vE '"(kernels|loops|norms|avx2|avx512|neon).h"')
[ -z "$wrong" ] || { echo "includes that leave the tree: $wrong"; bad=1; }
[ -z "$bad" ] && echo "layers: every call goes down, every include stays in the tree"
