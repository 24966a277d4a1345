// test_utf8.c - characters in bytes, against RFC 3629 and the Unicode standard.
#include "test.h"

// What comes out when these bytes go in one at a time, as a string.
static const char *pushed(const char *bytes, int n, bool replace) {
    static char all[256];
    int length = 0, most = 0;
    Utf8 u = { { 0 }, 0 };
    for (int i = 0; i < n; i++) {
        char out[8];
        int ready = utf8_push(out, &u, (uint8_t)bytes[i], replace);
        memcpy(all + length, out, (size_t)ready);
        length += ready;
        if (ready > most) most = ready;
    }
    CHECK(most <= 6, "%d bytes came out at once", most);
    length += utf8_flush(all + length, &u, replace);
    CHECK(u.count == 0, "%d bytes are held after the flush", u.count);
    all[length] = 0;
    return all;
}

static int spell(char out[5], uint32_t point) {         // RFC 3629, section 3
    int n = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    static const uint8_t first[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
    for (int i = n - 1; i > 0; i--, point >>= 6) out[i] = (char)(0x80 | (point & 0x3f));
    out[0] = (char)(first[n] | point);
    return n;
}

// Every character comes out whole, with its last byte and not before.
static void test_all_characters(void) {
    for (int replace = 0; replace < 2; replace++)
        for (uint32_t point = 0; point <= 0x10ffff; point++) {
            if (point >= 0xd800 && point < 0xe000) continue;
            char bytes[5], out[8];
            int n = spell(bytes, point), early = 0, late = 0;
            Utf8 u = { { 0 }, 0 };
            for (int i = 0; i < n; i++) early += late, late = utf8_push(out, &u, (uint8_t)bytes[i], replace);
            CHECK(early == 0 && late == n && !memcmp(out, bytes, (size_t)n) && u.count == 0,
                  "U+%04X: %d bytes too early, then %d of %d", point, early, late, n);
        }
}

#define R "\xef\xbf\xbd"                                // U+FFFD

// The Unicode standard, section 3.9, tables 3-8 to 3-11: one U+FFFD for each maximal part of a character.
static void test_ill_formed(void) {
    static const struct { const char *name, *bytes, *want; } cases[] = {
        { "overlong",    "\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41",             R R R R R R R R "A" },
        { "surrogates",  "\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41",             R R R R R R R R "A" },
        { "too high",    "\xf4\x91\x92\x93\xff\x41\x80\xbf\x42",             R R R R R "A" R R "B" },
        { "cut short",   "\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41",             R R R R "A" },
        { "mixed",       "a\xf1\x80\x80\xe1\x80\xc2" "b\x80" "c\x80\xbf" "d",   "a" R R R "b" R "c" R R "d" },
        { "never used",  "\xc0\x81\xc1\xbf\xf5\x81\x81\x81\xf8\xff",         R R R R R R R R R R },
        { "at the end",  "ab\xf0\x9f\x98",                                   "ab" R },
        { "stray",       "\x80",                                             R },
        { "whole",       "\xc3\xab \xf0\x9f\x98\x80",                       "\xc3\xab \xf0\x9f\x98\x80" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int n = (int)strlen(cases[i].bytes);
        CHECK(!strcmp(pushed(cases[i].bytes, n, true), cases[i].want), "%s, replaced: wanted '%s', got '%s'",
              cases[i].name, cases[i].want, pushed(cases[i].bytes, n, true));
        CHECK(!strcmp(pushed(cases[i].bytes, n, false), cases[i].bytes), "%s: not the bytes that went in",
              cases[i].name);
    }
    for (int round = 0; round < 20000; round++) {       // random bytes from the edges of the ranges
        static const uint8_t likely[] = { 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0,
                                          0xc2, 0xdf, 0xe0, 0xed, 0xef, 0xf0, 0xf4, 0xf5 };
        char bytes[17] = "";
        for (int i = 0; i < 16; i++) bytes[i] = (char)likely[random_below(sizeof likely)];
        CHECK(!strcmp(pushed(bytes, 16, false), bytes), "round %d: not the bytes that went in", round);
    }
}

// The code points themselves, and what a byte of no character is.
static void test_decode(void) {
    static const struct { const char *bytes; size_t n; uint32_t code; int length; } known[] = {
        { "A", 1, 'A', 1 },                     { "\xc3\xa9", 2, 0xe9, 2 },          // from RFC 3629
        { "\xe2\x89\xa2", 3, 0x2262, 3 },          { "\xf0\xa3\x8e\xb4", 4, 0x233b4, 4 },
        { "\xf4\x8f\xbf\xbf", 4, 0x10ffff, 4 },    { "\xff", 1, 0xfffd, 1 },
        { "\xe2\x89", 2, 0xfffd, 1 },              { "\xed\xa0\x80", 3, 0xfffd, 1 },
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint32_t code = 0;
        int length = utf8_decode(&code, known[i].bytes, known[i].n);
        CHECK(code == known[i].code && length == known[i].length, "%zu: wanted U+%X in %d, got U+%X in %d",
              i, (unsigned)known[i].code, known[i].length, (unsigned)code, length);
    }
}

// To UTF-8 and back, all of them; a surrogate alone is no character, nor is anything beyond U+10FFFF.
static void test_encode(void) {
    for (uint32_t point = 0; point <= 0x110000; point += point < 0x3000 ? 1 : 97) {
        bool none = point > 0x10ffff || (point >= 0xd800 && point < 0xe000);
        char got[4], want[5];
        int length = utf8_encode(got, point), wanted = spell(want, none ? 0xfffd : point);
        CHECK(length == wanted && !memcmp(got, want, (size_t)length), "U+%04X: %d bytes, and %d are expected",
              (unsigned)point, length, wanted);
    }
}

// The examples of RFC 2781, section 4, and what is damaged.
static void test_utf16(void) {
    static const struct { const char *big, *little; size_t n; const char *want; } cases[] = {
        { "\xd8\x08\xdf\x45\0=\0R\0a", "\x08\xd8\x45\xdf=\0R\0a\0", 10, "\xf0\x92\x8d\x85=Ra" },
        { "\x20\xac\0\xe9", "\xac\x20\xe9\0", 4, "\xe2\x82\xac\xc3\xa9" },
        { "\xd8\x08\0a", "\x08\xd8" "a\0", 4, R "a" },                // half a pair
        { "\xdf\x45\xd8\x08", "\x45\xdf\x08\xd8", 4, R R },           // the wrong way round
        { "\xd8\x08\xd8\x08\xdf\x45", "\x08\xd8\x08\xd8\x45\xdf", 6, R "\xf0\x92\x8d\x85" },
        { "\0a\0", "a\0b", 3, "a" R },                                  // half a unit
        { "", "", 0, "" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int big = 0; big < 2; big++) {
            char got[32];
            size_t n = utf8_from_utf16(got, big ? cases[i].big : cases[i].little, cases[i].n, big);
            got[n] = 0;
            bool same = n == strlen(cases[i].want) && !strcmp(got, cases[i].want);
            CHECK(same, "case %zu, %s end first: got %s", i, big ? "big" : "little", got);
        }
}

static void test_visible(void) {
    CHECK(utf8_visible(' ') && utf8_visible('~') && utf8_visible(0xa0) && utf8_visible(0x4e2d), "hidden");
    CHECK(!utf8_visible(0) && !utf8_visible(27) && !utf8_visible(127) && !utf8_visible(0x9b), "shown");
}

static void check_string(Text t, bool json, const char *want) {
    char *got = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&got, &size);
    print_string(f, t, json);
    fclose(f);
    CHECK(!strcmp(got, want), "wanted %s, got %s", want, got);
    free(got);
}

static void test_strings(void) {
    Text odd = { "a\"b\\c\n\0\x7f\xc2\x85\xc3\xa9\xff!", 14 };      // U+0085 is invisible, 0xff no character
    check_string(odd, true, "\"a\\\"b\\\\c\\u000a\\u0000\\u007f\\u0085\xc3\xa9\xef\xbf\xbd!\"");
    check_string(odd, false, "a\"b\\c\\u000a\\u0000\\u007f\\u0085\xc3\xa9\xef\xbf\xbd!");
    check_string((Text){ "", 0 }, true, "\"\"");
    check_string((Text){ "\xe4\xbd", 2 }, true, "\"\xef\xbf\xbd\"");     // cut short
}

int main(void) {
    test_all_characters();
    test_ill_formed();
    test_decode();
    test_encode();
    test_utf16();
    test_visible();
    test_strings();
    return finish("test_utf8");
}
