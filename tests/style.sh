#!/bin/sh
# What a reader may rely on: no line over 110 columns, no file over 700 lines, no function over 100, no getenv.
cd "$(dirname "$0")/.." || exit 1
LC_ALL=C awk '
    function complain(what) { print FILENAME ":" FNR ": " what; bad = 1 }
    FNR == 1                                  { begin = 0 }
    { line = $0; gsub(/[\200-\277]/, "", line) }       # a character of several bytes is one column
    length(line) > 110                        { complain("a line of " length(line) " columns") }
    /[ \t]$/                                  { complain("blanks at the end of a line") }
    FNR == 701                                { complain("a file of more than 700 lines") }
    FILENAME ~ /\.[ch]$/ && /^[A-Za-z].*\(/   { head = FNR }          # which may go on in the next line
    FILENAME ~ /\.[ch]$/ && /\) \{$/ && FNR - head < 3 { begin = head }
    FILENAME ~ /\.[ch]$/ && /^}/ && begin     { if (FNR - begin > 99) complain("a function of " FNR - begin + 1 " lines")
                                                begin = 0 }
    FILENAME !~ /^tests/ && /getenv/          { complain("a switch in the environment") }
    END { if (!bad) print "style: as promised"; exit bad }
' *.c *.h kernels/*.c kernels/*.h tests/*.c tests/*.h tests/*.py tests/fuzz/*.c \
  export.py ablate.py convert/*.py lab/*.py train/*.py bench/*.c bench/*.py docs/*.py
