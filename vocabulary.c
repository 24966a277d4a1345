// vocabulary.c - from a file to a vocabulary: the one inside a GGUF file, or a tokenizer.bin.
//
// Two kinds: "llama", SentencePiece's, where every piece has a score; and "gpt2", byte-level BPE, with a list
// of merges and a name for the way the text is cut into words first.
#include "model.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_LENGTH = 65535 };                           // of a piece, in bytes

// tokenizer.ggml.token_type
static const PieceKind kinds[] = { NORMAL, NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE };

static const char *take_pieces(Vocabulary *v, Reader *r, int size) {
    const GgufPair *tokens = read_array(r, "tokenizer.ggml.tokens", GGUF_STRING);
    const GgufPair *scores = read_array(r, "tokenizer.ggml.scores", GGUF_F32);
    const GgufPair *types = read_array(r, "tokenizer.ggml.token_type", GGUF_I32);
    if (r->error) return r->error;
    if (!tokens || tokens->count == 0)
        return "the key tokenizer.ggml.tokens is missing or empty: the file holds no vocabulary";
    if (tokens->count > MOST_VOCAB)
        return complain("tokenizer.ggml.tokens holds %llu tokens; at most %d are possible",
                        (unsigned long long)tokens->count, MOST_VOCAB);
    if (size && tokens->count != (uint64_t)size)
        return complain("its vocabulary holds %llu tokens, and the model's embedding has %d rows",
                        (unsigned long long)tokens->count, size);
    if (scores ? scores->count != tokens->count : !v->byte_level)
        return "tokenizer.ggml.scores: one score for each token is wanted";
    if (types && types->count != tokens->count)
        return "tokenizer.ggml.token_type: one type for each token is wanted";
    v->size = (int)tokens->count;
    v->pieces = calloc((size_t)v->size, sizeof *v->pieces);
    if (!v->pieces) return "no memory for the vocabulary";
    Cursor texts = tokens->items, none = { 0 };
    Cursor numbers = scores ? scores->items : none, kind = types ? types->items : none;
    for (int id = 0; id < v->size; id++) {
        Text text = take_string(&texts);
        int type = types ? take_i32(&kind) : 1;
        if (text.size > MOST_LENGTH)
            return complain("token %d has %zu bytes; at most %d are possible", id, text.size, MOST_LENGTH);
        if (type < 0 || type > 6) return complain("token %d has the type %d; 0 to 6 are known", id, type);
        if (kinds[type] == BYTE && !spells_byte(text.data, (int)text.size))
            return complain("token %d is a byte, but not spelled <0x00>", id);
        v->pieces[id] = (Piece){ text.data, (int)text.size, take_f32(&numbers), kinds[type] };
        if (!isfinite(v->pieces[id].score))
            return complain("token %d has the score %f; a finite one is wanted", id, v->pieces[id].score);
    }
    return NULL;
}

// ---------------------------------------------------------------------------- how pieces are written

// SentencePiece writes a space as U+2581. To it, one in a text is a space too; here it stays what it is, so
// that every text comes back.
static size_t spell_space(char *out, const char *in, size_t n) {
    bool space = n >= 3 && !memcmp(in, "\xe2\x96\x81", 3);
    *out = space ? ' ' : *in;
    return space ? 3 : 1;
}

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
    if (merges->count > MOST_VOCAB)
        return complain("tokenizer.ggml.merges holds %llu merges; at most %d are possible",
                        (unsigned long long)merges->count, MOST_VOCAB);
    const char *error = vocabulary_expect_merges(v, (int)merges->count);
    Cursor in = merges->items;
    for (int rank = 0; rank < (int)merges->count && !error; rank++) {
        Text t = take_string(&in);
        const char *space = t.size > 2 ? memchr(t.data + 1, ' ', t.size - 2) : NULL, *at = t.data;
        if (!space || t.size > MOST_LENGTH)
            return complain("merge %d is not two pieces with a space between", rank);
        char text[MOST_LENGTH], *out = text;
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
    if (name.size == 0) name = (Text){ "default", 7 };
    v->cutter = find_cutter(name);
    if (v->cutter < 0)
        refuse(r, "it cuts words in the way of '%.*s'; %s are known", text_length(name), name.data,
               cutter_names());
    v->ignore_merges = v->add_bos = text_is(name, "llama-bpe") || text_is(name, "tekken");
}

// ---------------------------------------------------------------------------- any file

static int read_id(Reader *r, const char *key, const Vocabulary *v, int fallback) {
    if (!find_key(r, key)) return fallback < v->size ? fallback : -1;
    return (int)read_int(r, key, -1, 0, v->size - 1);
}

// Ids that are not used here, but have to make sense; 2^32-1 stands for none. GGUF writes "seperator".
static void check_other_ids(Reader *r, const Vocabulary *v) {
    static const char *const others[] = { "padding", "seperator", "separator", "unknown" };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char key[64];
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", others[i]);
        int64_t id = read_int(r, key, UINT32_MAX, 0, UINT32_MAX);
        if (id >= v->size && id != UINT32_MAX)
            refuse(r, "%s is %lld; 0 to %d, or 2^32-1 for none, is possible", key, (long long)id,
                   v->size - 1);
    }
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
    if ((error = take_pieces(v, &r, size)) || (error = spell_pieces(v))) return error;
    v->bos = read_id(&r, "tokenizer.ggml.bos_token_id", v, v->byte_level ? -1 : 1);     // SentencePiece's own
    v->eos = read_id(&r, "tokenizer.ggml.eos_token_id", v, v->byte_level ? -1 : 2);
    v->eot = read_id(&r, "tokenizer.ggml.eot_token_id", v, -1);
    v->eom = read_id(&r, "tokenizer.ggml.eom_token_id", v, -1);
    v->add_bos = read_bool(&r, "tokenizer.ggml.add_bos_token", v->add_bos);
    if (!v->byte_level) v->add_space = read_bool(&r, "tokenizer.ggml.add_space_prefix", true);
    check_other_ids(&r, v);
    v->chat_template = read_string(&r, "tokenizer.chat_template");
    if (r.error) return r.error;
    error = vocabulary_index(v);
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
