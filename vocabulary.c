// vocabulary.c - from a file to a vocabulary: the one inside a GGUF file, or a tokenizer.bin.
//
// Two kinds: "llama", SentencePiece's, where every piece has a score; and "gpt2", byte-level BPE, with a list
// of merges and a name for the way the text is cut into words first.
//
// Files come from many converters, not all of which knew what their pieces are: where the pieces themselves
// show it, a file that says otherwise is not believed.
#include "model.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LENGTH = 65535 };                           // of a piece, in bytes

// What the user should know, a line each. A reader does not print.
static void remark(Vocabulary *v, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void remark(Vocabulary *v, const char *format, ...) {
    size_t n = strlen(v->remarks);
    va_list arguments;
    va_start(arguments, format);
    snprintf(v->remarks + n, sizeof v->remarks - n, "%s\n", complain_list(format, arguments));
    va_end(arguments);
}

// ---------------------------------------------------------------------------- numbers of any type

static bool is_number(GgufType type) {
    return type != GGUF_BOOL && type != GGUF_STRING && type != GGUF_ARRAY;
}

// llama.cpp writes token types as i32, mlx-lm as u32, others as they like.
static double take_number(Cursor *in, GgufType type, size_t size) {
    const void *at = take(in, size);
    uint64_t bits = 0;
    float single;
    double real;
    if (at) memcpy(&bits, at, size);
    memcpy(&single, &bits, sizeof single);
    memcpy(&real, &bits, sizeof real);
    switch (type) {
    case GGUF_I8:  return (int8_t)bits;
    case GGUF_I16: return (int16_t)bits;
    case GGUF_I32: return (int32_t)bits;
    case GGUF_I64: return (double)(int64_t)bits;
    case GGUF_F32: return single;
    case GGUF_F64: return real;
    default:       return (double)bits;
    }
}

// As many numbers as there are tokens; NULL, and no error, where the key is missing.
static const GgufPair *read_numbers(Reader *r, const char *key, uint64_t count) {
    const GgufPair *p = find_key(r, key);
    if (!p) return NULL;
    if (p->type != GGUF_ARRAY || !is_number(p->item_type))
        refuse(r, "%s holds %s%s; an array of numbers is expected", key,
               p->type == GGUF_ARRAY ? "an array of " : "", gguf_value_name(p->item_type));
    else if (p->count != count)
        refuse(r, "%s holds %llu numbers; %llu are expected, one for each token", key,
               (unsigned long long)p->count, (unsigned long long)count);
    return p;
}

// ---------------------------------------------------------------------------- the pieces

static const char *take_pieces(Vocabulary *v, Reader *r, int size) {
    static const PieceKind kinds[] = { NORMAL, NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE };
    const GgufPair *tokens = read_array(r, "tokenizer.ggml.tokens", GGUF_STRING);
    if (r->error) return r->error;
    if (!tokens || tokens->count == 0)
        return "the key tokenizer.ggml.tokens is missing or empty: the file holds no vocabulary";
    if (tokens->count > MAX_VOCAB)
        return complain("tokenizer.ggml.tokens holds %llu tokens; at most %d are possible",
                        (unsigned long long)tokens->count, MAX_VOCAB);
    if (size && tokens->count != (uint64_t)size)
        return complain("its vocabulary holds %llu tokens, and the model's embedding has %d rows",
                        (unsigned long long)tokens->count, size);
    const GgufPair *scores = read_numbers(r, "tokenizer.ggml.scores", tokens->count);
    const GgufPair *types = read_numbers(r, "tokenizer.ggml.token_type", tokens->count);
    if (!scores && !v->byte_level)
        refuse(r, "the key tokenizer.ggml.scores is missing: one score for each token is expected");
    if (r->error) return r->error;
    v->size = (int)tokens->count;
    v->pieces = calloc((size_t)v->size, sizeof *v->pieces);
    if (!v->pieces) return "no memory for the vocabulary";
    Cursor texts = tokens->items, none = { 0 };
    Cursor score = scores ? scores->items : none, kind = types ? types->items : none;
    size_t score_size = score.left / tokens->count, kind_size = kind.left / tokens->count;
    for (int id = 0; id < v->size; id++) {
        Text text = take_string(&texts);
        Piece *p = &v->pieces[id];
        double type = types ? take_number(&kind, types->item_type, kind_size) : 1;
        if (text.size > MAX_LENGTH)
            return complain("token %d has %zu bytes; at most %d are possible", id, text.size, MAX_LENGTH);
        if (!(type >= 0 && type <= 6) || type != (int)type)
            return complain("token %d has the type %.15g; 0 to 6 are known", id, type);
        *p = (Piece){ text.data, (int)text.size, 0, kinds[(int)type] };
        if (scores) p->score = (float)take_number(&score, scores->item_type, score_size);
        if (!isfinite(p->score))
            return complain("token %d has the score %f; a finite one is expected", id, p->score);
        if (p->kind != BYTE || spells_byte(p->text, p->length)) continue;
        if (!v->byte_level) return complain("token %d is a byte, but not spelled <0x00>", id);
        p->kind = NORMAL;
    }
    return NULL;
}

// ---------------------------------------------------------------------------- what kind they are

static bool begins_with(const Piece *p, const char *text) {
    size_t n = strlen(text);
    return (size_t)p->length >= n && !memcmp(p->text, text, n);
}

// text: no longer than the piece
static bool ends_with(const Piece *p, const char *text) {
    size_t n = strlen(text);
    return !memcmp(p->text + p->length - n, text, n);
}

static bool is_piece(const Piece *p, const char *text) {
    return text_is((Text){ p->text, (size_t)p->length }, text);
}

// What stands around the turns of a chat: "<|im_end|>", the same with DeepSeek's wide lines, and the marks of
// Gemma and Mistral.
static bool is_mark(const Piece *p) {
    static const char *const others[] = { "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]" };
    if (p->length > 4 && begins_with(p, "<|") && ends_with(p, "|>")) return true;
    if (p->length > 8 && begins_with(p, "<\xef\xbd\x9c") && ends_with(p, "\xef\xbd\x9c>")) return true;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (is_piece(p, others[i])) return true;
    return false;
}

// Where all pieces are of one kind (llama.cpp's converter of 2023 took all for the user's), or there are no
// others than the user's to spell a text with, kinds are told by how the pieces look.
static bool kinds_are_told(const Vocabulary *v) {
    int count[BYTE + 1] = { 0 };
    for (int id = 0; id < v->size; id++) count[v->pieces[id].kind]++;
    return count[NORMAL] ? count[NORMAL] < v->size : count[BYTE] || !count[USER];
}

static void check_kinds(Vocabulary *v) {
    bool told = kinds_are_told(v), spm = !v->byte_level;
    for (int id = 0; id < v->size; id++) {
        Piece *p = &v->pieces[id];
        if (!told && (p->kind == USER || p->kind == NORMAL))
            p->kind = spm && spells_byte(p->text, p->length) ? BYTE : spm && is_piece(p, "<unk>") ? UNKNOWN :
                      spm && (is_piece(p, "<s>") || is_piece(p, "</s>")) ? CONTROL : NORMAL;
        if (p->kind == NORMAL && is_mark(p)) p->kind = CONTROL;
    }
}

// ---------------------------------------------------------------------------- how pieces are written

// Byte-level BPE writes every byte as a character that can be seen (Radford et al. 2019): Latin-1's, or, for
// the 68 bytes without one, U+0100 and on. Anything else stays as it is.
static size_t spell_byte(char *out, const char *in, size_t n) {
    uint32_t code;
    int length = utf8_decode(&code, in, n);
    if (code >= 0x144) return *out = *in, 1;
    if (code >= 0x100) code = code < 0x121 ? code - 0x100 : code < 0x143 ? code - 0x121 + 127 : 173;
    *out = (char)code;
    return (size_t)length;
}

// From here on the pieces are the text that they stand for.
static const char *spell_pieces(Vocabulary *v) {
    size_t total = 0;
    for (int id = 0; id < v->size; id++) total += (size_t)v->pieces[id].length;
    char *out = v->texts = malloc(total + 1);
    if (!out) return "no memory for the vocabulary";
    for (int id = 0; id < v->size; id++) {
        Piece *p = &v->pieces[id];
        const char *in = p->text, *end = in + p->length;
        if (v->byte_level && p->kind != NORMAL) continue;       // the others are written as they are
        for (p->text = out; in < end; out++)
            in += (v->byte_level ? spell_byte : spell_space)(out, in, (size_t)(end - in));
        p->length = (int)(out - p->text);
    }
    return NULL;
}

// ---------------------------------------------------------------------------- byte-level BPE

// Strings "left right", the earlier the sooner.
static const char *take_merges(Vocabulary *v, Reader *r) {
    const GgufPair *merges = read_array(r, "tokenizer.ggml.merges", GGUF_STRING);
    need_key(r, "tokenizer.ggml.merges");
    if (r->error) return r->error;
    if (merges->count > MAX_VOCAB)
        return complain("tokenizer.ggml.merges holds %llu merges; at most %d are possible",
                        (unsigned long long)merges->count, MAX_VOCAB);
    const char *error = vocabulary_expect_merges(v, (int)merges->count);
    Cursor in = merges->items;
    for (int rank = 0; rank < (int)merges->count && !error; rank++) {
        Text t = take_string(&in);
        const char *space = t.size > 2 ? memchr(t.data + 1, ' ', t.size - 2) : NULL, *at = t.data;
        if (!space || t.size > MAX_LENGTH)
            return complain("merge %d is not two pieces with a space between", rank);
        char text[MAX_LENGTH], *out = text;
        const char *end = t.data + t.size;
        while (at < space) at += spell_byte(out++, at, (size_t)(space - at));
        int left = (int)(out - text);
        for (at = space + 1; at < end;) at += spell_byte(out++, at, (size_t)(end - at));
        error = vocabulary_add_merge(v, rank, text, left, (int)(out - text));
    }
    return error;
}

static void read_cutter(Vocabulary *v, Reader *r) {
    Text name = read_string(r, "tokenizer.ggml.pre");
    if (name.size == 0) {
        remark(v, "the key tokenizer.ggml.pre is missing, which says how a text is cut into words: it is cut "
               "by 'default', and the model may read other tokens than it was trained with");
        name = (Text){ "default", 7 };
    }
    v->cutter = find_cutter(name);
    if (v->cutter < 0)
        refuse(r, "it cuts words in the way of '%.*s'; %s are known", text_length(name), name.data,
               cutter_names());
    v->ignore_merges = v->add_bos = text_is(name, "llama-bpe") || text_is(name, "tekken");
}

// ---------------------------------------------------------------------------- any file

enum { MISSING = -2 };

// -1: there is none, as converters write by -1 or 2^32-1. An id that no token has is left out, and told.
static int read_id(Vocabulary *v, Reader *r, const char *name, bool ends) {
    char key[64];
    snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", name);
    const GgufPair *p = find_key(r, key);
    if (!p) return MISSING;
    if (!is_number(p->type) || p->type == GGUF_F32 || p->type == GGUF_F64)
        return refuse(r, "%s has the type %s; a whole number is expected", key, gguf_value_name(p->type)), -1;
    Cursor value = p->items;
    double id = take_number(&value, p->type, value.left);
    if (id == -1 || id == UINT32_MAX || id == (double)UINT64_MAX) return -1;
    if (id >= 0 && id < v->size) {
        Piece *named = &v->pieces[(int)id];
        bool mark = begins_with(named, "<") && ends_with(named, ">");
        if (ends && named->kind == NORMAL && mark) named->kind = CONTROL;
        return (int)id;
    }
    if (ends)
        remark(v, "%s is %.0f, and there are tokens 0 to %d: it is left out", key, id, v->size - 1);
    return MISSING;
}

// SentencePiece's own BOS and EOS are 1 and 2; trained without, it has ordinary pieces there.
static int default_id(const Vocabulary *v, int given, int usual, int other) {
    bool fits = !v->byte_level && usual < v->size && usual != other && v->pieces[usual].kind == CONTROL;
    return given != MISSING ? given : fits ? usual : -1;
}

static void read_ids(Vocabulary *v, Reader *r) {
    int bos = read_id(v, r, "bos", true), eos = read_id(v, r, "eos", true);
    v->bos = default_id(v, bos, 1, eos);
    v->eos = default_id(v, eos, 2, bos);
    v->eot = default_id(v, read_id(v, r, "eot", true), v->size, -1);
    v->eom = default_id(v, read_id(v, r, "eom", true), v->size, -1);
    static const char *const others[] = { "padding", "seperator", "separator" };        // GGUF has both
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) read_id(v, r, others[i], false);
}

static const char *gguf_vocabulary(Vocabulary *v, const Gguf *g, int size) {
    Reader r = { g, "", NULL };
    const char *error;
    Text model = read_string(&r, "tokenizer.ggml.model");
    if (!find_key(&r, "tokenizer.ggml.model"))
        refuse(&r, "the key tokenizer.ggml.model is missing: it holds no vocabulary; name one with -z FILE");
    v->byte_level = text_is(model, "gpt2");
    v->add_bos = v->add_space = !v->byte_level;
    if (!v->byte_level && !text_is(model, "llama"))
        refuse(&r, "a vocabulary of the kind '%.*s'; llama (SentencePiece), gpt2 (byte-level BPE) are known",
               text_length(model), model.data);
    if (!r.error && v->byte_level) read_cutter(v, &r);
    if (r.error) return r.error;
    if ((error = take_pieces(v, &r, size))) return error;
    check_kinds(v);
    read_ids(v, &r);
    if ((error = spell_pieces(v))) return error;
    v->add_bos = read_bool(&r, "tokenizer.ggml.add_bos_token", v->add_bos);
    if (!v->byte_level) {
        v->add_space = read_bool(&r, "tokenizer.ggml.add_space_prefix", true);
        v->remove_spaces = read_bool(&r, "tokenizer.ggml.remove_extra_whitespaces", false);
        const GgufPair *rewritten = find_key(&r, "tokenizer.ggml.precompiled_charsmap");
        if (rewritten && rewritten->count)
            refuse(&r, "the key tokenizer.ggml.precompiled_charsmap rewrites a text before it is cut: that "
                   "cannot be run");
    }
    v->chat_template = read_string(&r, "tokenizer.chat_template");
    if (r.error) return r.error;
    error = vocabulary_index(v);
    int unknown = read_id(v, &r, "unknown", false);
    if (v->unknown < 0 && !v->byte_level && unknown >= 0) v->unknown = unknown;
    if (r.error) return r.error;
    return !error && v->byte_level ? take_merges(v, &r) : error;
}

const char *vocabulary_read(Vocabulary *v, Bytes file, int size) {
    *v = (Vocabulary){ 0 };
    const char *kind = what_is(file), *error;
    Gguf g = { 0 };
    if (is_gguf(file)) {
        error = gguf_read(&g, file);
        if (!error) error = gguf_vocabulary(v, &g, size);
        gguf_free(&g);
    } else {
        error = kind ? complain("%s; a tokenizer.bin or a .gguf is wanted", kind)
                     : llama2c_vocabulary(v, file, size);
    }
    if (error) vocabulary_free(v);
    return error;
}
