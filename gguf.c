// gguf.c - read GGUF, versions 2 and 3, little-endian: header, metadata, tensor index. Bytes, not behaviour.
//
//   "GGUF"  version:u32  tensors:u64  pairs:u64
//   pairs   x { key:string  type:u32  value }              string: length:u64, bytes
//   tensors x { name:string  n:u32  shape:u64 x n  type:u32  offset:u64 }
//   padding to general.alignment (32), then the tensors' data, each at its offset from here
//
// A shape lists the fastest index first: { cols, rows }. An array is { type:u32  count:u64  items }.
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#include "model.h"
#include <stdlib.h>
#include <string.h>

// ---------------------------------------------------------------------------- ggml's number formats

// Every one there is, so that a file can be described even if it cannot be run. run: ours, or -1.
static const struct { const char *name; int block, bytes, run; } ggml_types[] = {
    [0] = { "F32", 1, 4, F32 },          [1] = { "F16", 1, 2, F16 },        [2] = { "Q4_0", 32, 18, Q4_0 },
    [3] = { "Q4_1", 32, 20, Q4_1 },      [6] = { "Q5_0", 32, 22, Q5_0 },    [7] = { "Q5_1", 32, 24, Q5_1 },
    [8] = { "Q8_0", 32, 34, Q8_0 },      [9] = { "Q8_1", 32, 36, -1 },      [10] = { "Q2_K", 256, 84, Q2_K },
    [11] = { "Q3_K", 256, 110, Q3_K },   [12] = { "Q4_K", 256, 144, Q4_K }, [13] = { "Q5_K", 256, 176, Q5_K },
    [14] = { "Q6_K", 256, 210, Q6_K },   [15] = { "Q8_K", 256, 292, -1 },   [16] = { "IQ2_XXS", 256, 66, -1 },
    [17] = { "IQ2_XS", 256, 74, -1 },    [18] = { "IQ3_XXS", 256, 98, -1 }, [19] = { "IQ1_S", 256, 50, -1 },
    [20] = { "IQ4_NL", 32, 18, IQ4_NL }, [21] = { "IQ3_S", 256, 110, -1 },  [22] = { "IQ2_S", 256, 82, -1 },
    [23] = { "IQ4_XS", 256, 136, -1 },   [24] = { "I8", 1, 1, -1 },         [25] = { "I16", 1, 2, -1 },
    [26] = { "I32", 1, 4, -1 },          [27] = { "I64", 1, 8, -1 },        [28] = { "F64", 1, 8, -1 },
    [29] = { "IQ1_M", 256, 56, -1 },     [30] = { "BF16", 1, 2, BF16 },     [34] = { "TQ1_0", 256, 54, -1 },
    [35] = { "TQ2_0", 256, 66, -1 },     [39] = { "MXFP4", 32, 17, -1 },    [40] = { "NVFP4", 64, 36, -1 },
    [41] = { "Q1_0", 128, 18, -1 },
    [4] = { "Q4_2", 0, 0, -1 },          [5] = { "Q4_3", 0, 0, -1 },        [31] = { "Q4_0_4_4", 0, 0, -1 },
    [32] = { "Q4_0_4_8", 0, 0, -1 },     [33] = { "Q4_0_8_8", 0, 0, -1 },   [36] = { "IQ4_NL_4_4", 0, 0, -1 },
    [37] = { "IQ4_NL_4_8", 0, 0, -1 },   [38] = { "IQ4_NL_8_8", 0, 0, -1 },
};
enum { N_GGML_TYPES = sizeof ggml_types / sizeof *ggml_types };

// ggml has removed some formats again. The same models are published in these.
static const char *const replacement[N_GGML_TYPES] = {
    [4] = "Q4_0", [5] = "Q4_1", [31] = "Q4_0", [32] = "Q4_0", [33] = "Q4_0", [36] = "IQ4_NL", [37] = "IQ4_NL",
    [38] = "IQ4_NL",
};

const char *gguf_type_name(int ggml_type) { return ggml_types[ggml_type].name; }
int gguf_runnable(int ggml_type) { return ggml_types[ggml_type].run; }

// ---------------------------------------------------------------------------- values

static const struct { const char *name; int size; } value_types[] = {
    [GGUF_U8] = { "u8", 1 },       [GGUF_I8] = { "i8", 1 },     [GGUF_U16] = { "u16", 2 },
    [GGUF_I16] = { "i16", 2 },     [GGUF_U32] = { "u32", 4 },   [GGUF_I32] = { "i32", 4 },
    [GGUF_F32] = { "f32", 4 },     [GGUF_BOOL] = { "bool", 1 }, [GGUF_STRING] = { "string", 0 },
    [GGUF_ARRAY] = { "array", 0 }, [GGUF_U64] = { "u64", 8 },   [GGUF_I64] = { "i64", 8 },
    [GGUF_F64] = { "f64", 8 },
};
// Far more than any model has; without a bound, an empty file of some GB could keep us busy.
enum { MAX_NESTED = 8, MAX_ITEMS = 1 << 25, MAX_PAIRS = 1 << 16, MAX_TENSORS = 1 << 18 };

const char *gguf_value_name(GgufType type) { return value_types[type].name; }

Text take_string(Cursor *c) {
    uint64_t length = take_u64(c);
    const char *bytes = take(c, length > SIZE_MAX ? SIZE_MAX : (size_t)length);
    return bytes ? (Text){ bytes, (size_t)length } : (Text){ "", 0 };
}

// Walk over a value without looking at it. False: it does not lie in the file, or is of no known type.
static bool skip(Cursor *c, uint32_t type, uint64_t count, int depth) {
    if (type >= N_GGUF_TYPES || depth > MAX_NESTED) return false;
    if (value_types[type].size) return take(c, size_times(count, (size_t)value_types[type].size)) != NULL;
    if (count > MAX_ITEMS) return false;
    for (uint64_t i = 0; i < count && !c->failed; i++) {
        if (type == GGUF_STRING) { take_string(c); continue; }
        uint32_t item_type = take_u32(c);
        uint64_t items = take_u64(c);
        if (c->failed || !skip(c, item_type, items, depth + 1)) return false;
    }
    return !c->failed;
}

static const char *take_pair(GgufPair *pair, Cursor *in) {
    pair->key = take_string(in);
    uint32_t type = take_u32(in);
    pair->count = 1;
    if (in->failed) return "ends inside its metadata; is the download complete?";
    if (pair->key.size == 0 || pair->key.size > 65535)
        return complain("the metadata has a key of %zu bytes; 1 to 65535 are possible", pair->key.size);
    if (type >= N_GGUF_TYPES)
        return complain("%.*s has the type %u; 0 to %d are known", text_length(pair->key), pair->key.data,
                        (unsigned)type, N_GGUF_TYPES - 1);
    pair->type = pair->item_type = type;
    if (type == GGUF_ARRAY) {
        type = take_u32(in);
        pair->count = take_u64(in);
    }
    pair->items = *in;
    if (!skip(in, type, pair->count, 0))
        return complain("the value of %.*s leaves the file, or is nested deeper than %d, has more than %d "
                        "strings, or no known type", text_length(pair->key), pair->key.data, MAX_NESTED,
                        MAX_ITEMS);
    pair->item_type = type;
    pair->items.left -= in->left;
    return NULL;
}

// ---------------------------------------------------------------------------- tensors

static const char *take_tensor(GgufTensor *t, Cursor *in, uint64_t alignment) {
    t->name = take_string(in);
    uint32_t n = take_u32(in);
    if (in->failed) return "ends inside its tensor index; is the download complete?";
    int length = text_length(t->name);
    if (t->name.size == 0 || t->name.size > 65535)
        return complain("a tensor has a name of %zu bytes; 1 to 65535 are possible", t->name.size);
    if (n < 1 || n > 4)
        return complain("tensor %.*s has %u dimensions; 1 to 4 are possible", length, t->name.data, n);
    size_t numbers = 1;
    for (uint32_t i = 0; i < 4; i++) {
        t->shape[i] = i < n ? take_u64(in) : 1;
        if (in->failed) return "ends inside its tensor index; is the download complete?";
        if (t->shape[i] < 1 || t->shape[i] > INT64_MAX)
            return complain("tensor %.*s has a dimension of %llu", length, t->name.data,
                            (unsigned long long)t->shape[i]);
        numbers = size_times(numbers, t->shape[i]);
    }
    t->n_dims = (int)n;
    uint32_t type = take_u32(in);
    t->offset = take_u64(in);
    if (in->failed) return "ends inside its tensor index; is the download complete?";
    if (type >= N_GGML_TYPES)
        return complain("tensor %.*s has the type %u, which is none of ggml's that are known; if the file is "
                        "not damaged, a newer prenorm may know it", length, t->name.data, type);
    if (replacement[type])
        return complain("tensor %.*s has the type %u, %s, which llama.cpp has removed: use the model's file "
                        "in %s", length, t->name.data, type, ggml_types[type].name, replacement[type]);
    t->type = (int)type;
    if (t->shape[0] % (uint64_t)ggml_types[type].block)
        return complain("tensor %.*s has rows of %llu numbers; %s comes in blocks of %d", length,
                        t->name.data, (unsigned long long)t->shape[0], ggml_types[type].name,
                        ggml_types[type].block);
    t->bytes = size_times(numbers / (size_t)ggml_types[type].block, (size_t)ggml_types[type].bytes);
    if (numbers == SIZE_MAX || t->bytes == SIZE_MAX)
        return complain("tensor %.*s is larger than any file", length, t->name.data);
    if (t->offset % alignment)
        return complain("tensor %.*s lies at offset %llu, which is no multiple of the alignment %llu", length,
                        t->name.data, (unsigned long long)t->offset, (unsigned long long)alignment);
    return NULL;
}

static int by_offset(const void *a, const void *b) {
    const GgufTensor *x = *(GgufTensor *const *)a, *y = *(GgufTensor *const *)b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

// Every tensor lies in the file, and none on top of another.
static const char *place_tensors(Gguf *g, Bytes file) {
    GgufTensor **order = malloc(g->n_tensors * sizeof *order + 1), *last = NULL;
    if (!order) return "no memory for its tensor index";
    for (size_t i = 0; i < g->n_tensors; i++) order[i] = &g->tensors[i];
    qsort(order, g->n_tensors, sizeof *order, by_offset);

    const char *error = NULL;
    size_t room = file.size > g->data_start ? file.size - g->data_start : 0;
    for (size_t i = 0; i < g->n_tensors && !error; i++) {
        GgufTensor *t = order[i];
        if (last && t->offset - last->offset < last->bytes)
            error = complain("tensors %.*s and %.*s overlap", text_length(last->name), last->name.data,
                             text_length(t->name), t->name.data);
        t->data = file.data + g->data_start + (t->offset < room ? t->offset : 0);
        last = t;
    }
    if (!error && last && (last->offset > room || last->bytes > room - last->offset))
        error = complain("%zu bytes long; tensor %.*s would end at byte %.0f: %.0f are missing; is the "
                         "download complete?", file.size, text_length(last->name), last->name.data,
                         (double)g->data_start + (double)last->offset + (double)last->bytes,
                         (double)last->offset + (double)last->bytes - (double)room);
    free(order);
    return error;
}

// ---------------------------------------------------------------------------- the index

static int compare(Text a, Text b) {
    int order = memcmp(a.data, b.data, a.size < b.size ? a.size : b.size);
    return order ? order : (a.size > b.size) - (a.size < b.size);
}

static int by_key(const void *a, const void *b) {
    return compare((*(GgufPair *const *)a)->key, (*(GgufPair *const *)b)->key);
}

static int by_name(const void *a, const void *b) {
    return compare((*(GgufTensor *const *)a)->name, (*(GgufTensor *const *)b)->name);
}

// Sorted for looking up, names that occur twice stand together; they are refused.
static const char *sort_pairs(Gguf *g) {
    for (size_t i = 0; i < g->n_pairs; i++) g->by_key[i] = &g->pairs[i];
    qsort(g->by_key, g->n_pairs, sizeof *g->by_key, by_key);
    for (size_t i = 1; i < g->n_pairs; i++)
        if (!by_key(&g->by_key[i - 1], &g->by_key[i]))
            return complain("the key %.*s occurs twice", text_length(g->by_key[i]->key),
                            g->by_key[i]->key.data);
    return NULL;
}

static const char *sort_tensors(Gguf *g) {
    for (size_t i = 0; i < g->n_tensors; i++) g->by_name[i] = &g->tensors[i];
    qsort(g->by_name, g->n_tensors, sizeof *g->by_name, by_name);
    for (size_t i = 1; i < g->n_tensors; i++)
        if (!by_name(&g->by_name[i - 1], &g->by_name[i]))
            return complain("the tensor %.*s occurs twice", text_length(g->by_name[i]->name),
                            g->by_name[i]->name.data);
    return NULL;
}

const GgufPair *gguf_find(const Gguf *g, const char *key) {
    GgufPair wanted = { .key = { key, strlen(key) } }, *pointer = &wanted;
    GgufPair **found = bsearch(&pointer, g->by_key, g->n_pairs, sizeof *g->by_key, by_key);
    if (found) (*found)->asked_for = true;
    return found ? *found : NULL;
}

const GgufTensor *gguf_tensor(const Gguf *g, const char *name) {
    GgufTensor wanted = { .name = { name, strlen(name) } }, *pointer = &wanted;
    GgufTensor **found = bsearch(&pointer, g->by_name, g->n_tensors, sizeof *g->by_name, by_name);
    if (found) (*found)->asked_for = true;
    return found ? *found : NULL;
}

// ---------------------------------------------------------------------------- the file

static const char *take_header(Gguf *g, Cursor *in) {
    take(in, 4);                                        // the mark
    g->version = take_u32(in);
    uint64_t n_tensors = take_u64(in), n_pairs = take_u64(in);
    if (in->failed) return "ends inside its header; is the download complete?";
    if (g->version >= 1 << 16) return "a GGUF file of the other byte order: this machine wants little-endian";
    if (g->version == 1) return "a GGUF file of version 1, which nobody writes any more: 2 and 3 can be read";
    if (g->version < 2 || g->version > 3)
        return complain("a GGUF file of version %u: 2 and 3 can be read%s", (unsigned)g->version,
                        g->version > 3 ? "; a newer prenorm may know it" : "");
    // The smallest pair takes 14 bytes, the smallest tensor 33: who promises more than fit gets no memory.
    bool pairs = n_pairs > in->left / 14;
    if (pairs || n_tensors > in->left / 33)
        return complain("the header promises %llu %s, more than fit into the file; is the download complete?",
                        (unsigned long long)(pairs ? n_pairs : n_tensors),
                        pairs ? "pairs of metadata" : "tensors");
    if (n_pairs > MAX_PAIRS || n_tensors > MAX_TENSORS)
        return complain("the header promises %llu pairs and %llu tensors; up to %d and %d are read",
                        (unsigned long long)n_pairs, (unsigned long long)n_tensors, MAX_PAIRS, MAX_TENSORS);
    g->n_pairs = (size_t)n_pairs;
    g->n_tensors = (size_t)n_tensors;
    return NULL;
}

static const char *take_alignment(Gguf *g) {
    const GgufPair *pair = gguf_find(g, "general.alignment");
    g->alignment = 32;
    if (!pair) return NULL;
    if (pair->type != GGUF_U32)
        return complain("general.alignment has the type %s; u32 is wanted", value_types[pair->type].name);
    Cursor value = pair->items;
    g->alignment = take_u32(&value);
    if (g->alignment == 0 || g->alignment & (g->alignment - 1))
        return complain("general.alignment is %u; a power of two is wanted", (unsigned)g->alignment);
    return NULL;
}

static const char *read_index(Gguf *g, Bytes file, Cursor in) {
    const char *error;
    for (size_t i = 0; i < g->n_pairs; i++)
        if ((error = take_pair(&g->pairs[i], &in))) return error;
    if ((error = sort_pairs(g)) || (error = take_alignment(g))) return error;
    for (size_t i = 0; i < g->n_tensors; i++)
        if ((error = take_tensor(&g->tensors[i], &in, g->alignment))) return error;
    size_t end = file.size - in.left;
    g->data_start = end + (g->alignment - end % g->alignment) % g->alignment;
    if ((error = sort_tensors(g))) return error;
    return place_tensors(g, file);
}

bool is_gguf(Bytes file) { return file.size >= 4 && !memcmp(file.data, "GGUF", 4); }

const char *gguf_read(Gguf *g, Bytes file) {
    *g = (Gguf){ 0 };
    Cursor in = { file.data, file.size, false };
    const char *error = take_header(g, &in);
    if (error) return error;
    g->pairs   = calloc(g->n_pairs + 1, sizeof *g->pairs);
    g->tensors = calloc(g->n_tensors + 1, sizeof *g->tensors);
    g->by_key  = calloc(g->n_pairs + 1, sizeof *g->by_key);
    g->by_name = calloc(g->n_tensors + 1, sizeof *g->by_name);
    error = g->pairs && g->tensors && g->by_key && g->by_name ? read_index(g, file, in)
                                                              : "no memory for its index";
    if (error) gguf_free(g);
    return error;
}

void gguf_free(Gguf *g) {
    free(g->pairs);
    free(g->tensors);
    free(g->by_key);
    free(g->by_name);
    *g = (Gguf){ 0 };
}

// ---------------------------------------------------------------------------- typed values

const GgufPair *find_key(const Reader *r, const char *key) {
    char name[128];                                     // "*.rope.freq_base": the star is the architecture
    if (*key == '*') snprintf(name, sizeof name, "%s%s", r->architecture, key + 1);
    return gguf_find(r->g, *key == '*' ? name : key);
}

void refuse(Reader *r, const char *format, ...) {
    if (r->error) return;
    va_list arguments;
    va_start(arguments, format);
    r->error = complain_list(format, arguments);
    va_end(arguments);
}

const GgufPair *need_key(Reader *r, const char *key) {
    const GgufPair *p = find_key(r, key);
    if (!p)
        refuse(r, "the key %s%s is missing, without which it cannot be read: convert the model again",
               *key == '*' ? r->architecture : "", key + (*key == '*'));
    return p;
}

static void wrong_type(Reader *r, const GgufPair *p, const char *wanted) {
    refuse(r, "%.*s has the type %s; %s is wanted", text_length(p->key), p->key.data,
           gguf_value_name(p->type), wanted);
}

// A whole number of any integer type, from least to most. Where the key is missing: fallback, or, if that is
// -1, an error.
int64_t read_int(Reader *r, const char *key, int64_t fallback, int64_t least, int64_t most) {
    const GgufPair *p = fallback < 0 ? need_key(r, key) : find_key(r, key);
    if (!p) return fallback < 0 ? least : fallback;
    static const int8_t sign[N_GGUF_TYPES] = {
        [GGUF_I8] = 1, [GGUF_I16] = 1, [GGUF_I32] = 1, [GGUF_I64] = 1
    };
    static const int8_t size[N_GGUF_TYPES] = {
        [GGUF_U8] = 1,  [GGUF_I8] = 1,  [GGUF_U16] = 2, [GGUF_I16] = 2,
        [GGUF_U32] = 4, [GGUF_I32] = 4, [GGUF_U64] = 8, [GGUF_I64] = 8
    };
    if (!size[p->type]) {
        wrong_type(r, p, "a whole number");
        return least;
    }
    uint64_t bits = 0;
    memcpy(&bits, p->items.at, (size_t)size[p->type]);
    bool negative = sign[p->type] && bits >> (8 * size[p->type] - 1);
    if (negative || bits < (uint64_t)least || bits > (uint64_t)most) {
        if (negative) bits |= size[p->type] == 8 ? 0 : UINT64_MAX << 8 * size[p->type];
        refuse(r, "%.*s is %s%llu; %lld to %lld is possible", text_length(p->key), p->key.data,
               negative ? "-" : "", (unsigned long long)(negative ? 0 - bits : bits), (long long)least,
               (long long)most);
        return least;
    }
    return (int64_t)bits;
}

float read_float(Reader *r, const char *key, float fallback, float least, float most) {
    const GgufPair *p = find_key(r, key);
    if (!p) return fallback;
    if (p->type != GGUF_F32) {
        wrong_type(r, p, "f32");
        return fallback;
    }
    Cursor value = p->items;
    float x = take_f32(&value);
    if (!(x >= least && x <= most))
        refuse(r, "%.*s is %g; %g to %g is possible", text_length(p->key), p->key.data, x, least, most);
    return x;
}

bool read_bool(Reader *r, const char *key, bool fallback) {
    const GgufPair *p = find_key(r, key);
    if (!p) return fallback;
    if (p->type != GGUF_BOOL) {
        wrong_type(r, p, "bool");
        return fallback;
    }
    return *p->items.at != 0;
}

// Empty where the key is missing.
Text read_string(Reader *r, const char *key) {
    const GgufPair *p = find_key(r, key);
    if (!p) return (Text){ "", 0 };
    if (p->type != GGUF_STRING) {
        wrong_type(r, p, "string");
        return (Text){ "", 0 };
    }
    Cursor value = p->items;
    return take_string(&value);
}

// An array of one kind of items; NULL, and no error, where the key is missing.
const GgufPair *read_array(Reader *r, const char *key, GgufType items) {
    const GgufPair *p = find_key(r, key);
    if (!p) return NULL;
    if (p->type == GGUF_ARRAY && p->item_type == items) return p;
    refuse(r, "%s holds %s%s; an array of %s is wanted", key, p->type == GGUF_ARRAY ? "an array of " : "",
           gguf_value_name(p->item_type), gguf_value_name(items));
    return NULL;
}
