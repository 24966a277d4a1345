// utf8.c - characters in bytes, RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
#include "model.h"
#include <string.h>

int utf8_length(const char *text, size_t n) {
    const uint8_t *s = (const uint8_t *)text;
    uint8_t first = s[0];
    if (first < 0x80) return 1;
    if (first < 0xc2 || first > 0xf4) return -1;
    int length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;           // for the second byte only
    uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    for (int i = 1; i < length; i++, low = 0x80, high = 0xbf) {
        if ((size_t)i >= n) return 0;
        if (s[i] < low || s[i] > high) return -1;
    }
    return length;
}

int utf8_decode(uint32_t *code, const char *s, size_t n) {
    int length = utf8_length(s, n);
    *code = length == 1 ? (uint8_t)s[0] : length < 1 ? 0xfffd : (uint8_t)s[0] & (0xffu >> (length + 1));
    for (int i = 1; i < length; i++) *code = *code << 6 | ((uint8_t)s[i] & 63);
    return length < 1 ? 1 : length;
}

int utf8_encode(char out[4], uint32_t code) {
    static const uint8_t first[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
    if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) code = 0xfffd;
    int length = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (int i = length - 1; i > 0; i--, code >>= 6) out[i] = (char)(0x80 | (code & 63));
    out[0] = (char)(first[length] | code);
    return length;
}

// RFC 2781. A surrogate without its other half, and half a unit at the end, become U+FFFD.
size_t utf8_from_utf16(char *out, const char *text, size_t n, bool big_endian) {
    const uint8_t *in = (const uint8_t *)text;
    size_t size = 0;
    uint32_t high = 0;                                  // a surrogate that waits for its other half
    for (size_t i = 0; i < n; i += 2) {
        uint32_t unit = 0xfffd;
        if (i + 1 < n) unit = big_endian ? in[i] * 256u + in[i + 1] : in[i + 1] * 256u + in[i];
        bool low = unit >= 0xdc00 && unit < 0xe000;
        if (high && !low) size += (size_t)utf8_encode(out + size, high);
        if (high && low) unit = 0x10000 + ((high - 0xd800) << 10) + (unit - 0xdc00);
        high = unit >= 0xd800 && unit < 0xdc00 ? unit : 0;
        if (!high) size += (size_t)utf8_encode(out + size, unit);
    }
    return high ? size + (size_t)utf8_encode(out + size, high) : size;
}

bool utf8_visible(uint32_t code) { return code >= ' ' && (code < 0x7f || code >= 0xa0); }

// ---------------------------------------------------------------------------- byte by byte

static int put_strays(char *out, const uint8_t *bytes, int n, bool replace) {
    if (n == 0) return 0;
    memcpy(out, replace ? (const void *)"\xef\xbf\xbd" : bytes, replace ? 3 : (size_t)n);
    return replace ? 3 : n;
}

int utf8_push(char out[8], Utf8 *u, uint8_t byte, bool replace) {
    u->held[u->count++] = byte;
    int length = utf8_length((const char *)u->held, (size_t)u->count), written = 0;
    if (length < 0 && u->count > 1) {               // what is held is cut short; the byte may begin another
        written = put_strays(out, u->held, u->count - 1, replace);
        u->held[0] = byte, u->count = 1;
        length = utf8_length((const char *)u->held, 1);
    }
    if (length == 0) return written;
    written += put_strays(out + written, u->held, u->count, replace && length < 0);
    u->count = 0;
    return written;
}

int utf8_flush(char out[8], Utf8 *u, bool replace) {
    int written = put_strays(out, u->held, u->count, replace);
    u->count = 0;
    return written;
}

// ---------------------------------------------------------------------------- for people and for programs

void print_string(FILE *f, Text t, bool json) {
    Utf8 utf8 = { { 0 }, 0 };
    char ready[8];
    if (json) fputc('"', f);
    for (size_t i = 0; i <= t.size; i++) {
        bool more = i < t.size;
        int n = more ? utf8_push(ready, &utf8, (uint8_t)t.data[i], true) : utf8_flush(ready, &utf8, true);
        for (int j = 0, length; j < n; j += length) {
            uint32_t code;
            length = utf8_decode(&code, ready + j, (size_t)(n - j));
            if (!utf8_visible(code)) fprintf(f, "\\u%04x", (unsigned)code);
            else fprintf(f, json && (code == '"' || code == '\\') ? "\\%.*s" : "%.*s", length, ready + j);
        }
    }
    if (json) fputc('"', f);
}
