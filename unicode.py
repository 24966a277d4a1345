"""unicode.py - write unicode.c: which code points are letters, marks, numbers, punctuation and white space.

    pip install unicodedata2==16.0.0 && python3 unicode.py > unicode.c

Python's own unicodedata is as old as the Python; unicodedata2 is the same with a version to choose. 16.0 is what
Hugging Face's `tokenizers` knows. White space is the property White_Space, which \\s means there.
"""

import unicodedata2

CLASSES = {"Lu": "LU", "Ll": "LL", "Lt": "LT", "Lm": "LM", "Lo": "LO", "M": "MARK", "N": "NUMBER", "P": "PUNCT"}
WHITE_SPACE = {*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F,
               0x3000}


def class_of(code):
    category = unicodedata2.category(chr(code))
    if code in WHITE_SPACE:
        return "SPACE"
    return CLASSES.get(category) or CLASSES.get(category[0]) or "OTHER"


def ranges():
    """(first code point, class) of every run of one class."""
    last = None
    for code in range(0x110000):
        if (found := class_of(code)) != last:
            last = found
            yield code, found


HEAD = f"""// unicode.c - what kind of character a code point is. Written by unicode.py: change that, not this.
//
// Unicode {unicodedata2.unidata_version}. Each entry begins a run of code points of one class, up to the next entry.
#include "model.h"

#define RUN(first, class) ((first) << 4 | (class))

static const uint32_t runs[] = {{
"""

TAIL = """};

CharClass char_class(uint32_t code) {
    size_t low = 0, high = sizeof runs / sizeof *runs;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (runs[middle] >> 4 <= code) low = middle;
        else high = middle;
    }
    return (CharClass)(runs[low] & 15);
}
"""

if __name__ == "__main__":
    names = ["OTHER", "LU", "LL", "LT", "LM", "LO", "MARK", "NUMBER", "PUNCT", "SPACE"]
    entries = [f"0x{first << 4 | names.index(found):06x}," for first, found in ranges()]
    print(HEAD.replace("#define RUN(first, class) ((first) << 4 | (class))\n\n", ""), end="")
    for i in range(0, len(entries), 10):
        print("    " + " ".join(entries[i : i + 10]))
    print(TAIL, end="")
