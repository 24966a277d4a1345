// model.h - every type and every function of the engine, in the order you would read them: start here.
//
//   tokens -> embedding -> n_layers times { x += attention(norm(x));  x += ffn(norm(x)) } -> norm -> logits
//
// Shapes stand in memory order, the last index next to each other: (rows, cols). T is the number of tokens in
// a pass. What reads the outside world returns NULL for success, or a sentence that says what is wrong.
#ifndef MODEL_H
#define MODEL_H

#include "kernels/kernels.h"
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>

// ---------------------------------------------------------------------------- the model

// Everything the forward pass computes has a name, in the order it is computed. A weight carries the name of
// what it makes, and the observer below hears of every one.
typedef enum {
    EMBED,                                              // (T, dim)
    ATTN_NORM, Q, K, V, Q_ROPE, K_ROPE,                 // in every layer: (T, dim), (T, heads * head_dim)
    WEIGHTS,                                            // (n_heads, pos + 1) per token: who looks at whom
    MIX, ATTN_OUT, RESID_MID,                           // (T, n_heads * head_dim), (T, dim), (T, dim)
    FFN_NORM, GATE, UP, HIDDEN, FFN_OUT, RESID,         // (T, dim), three (T, hidden_dim), (T, dim) twice
    FINAL_NORM, LOGITS,                                 // (wanted, dim), (wanted, vocab_size)
    N_OPS
} Op;

// The widest and deepest model, of the most words, that is read: far beyond any there is. A layer takes some
// pages of the KV cache however narrow it is, so a small file of many would take much.
enum { MAX_DIM = 1 << 20, MAX_LAYERS = 1 << 12, MAX_VOCAB = 1 << 24 };

// Which numbers of a head RoPE turns together: (0, 1) (2, 3) ... in llama; (0, n/2) (1, n/2 + 1) ... in NeoX.
typedef enum { PAIRS, HALVES } Rotation;

typedef struct {            // the blueprint
    int dim;                // width of the residual stream
    int hidden_dim;         // width inside the feed-forward network
    int n_layers;
    int n_heads;            // query heads
    int n_kv_heads;         // key/value heads; fewer than n_heads in grouped-query attention
    int head_dim;           // width of one head
    int vocab_size;
    int seq_len;            // the longest context it was trained for
    const char *norm;       // the norm it was trained with: "rmsnorm" or "layernorm"
    int rope_dim;           // how many numbers of each head turn; the rest have no position
    float rope_theta;
    Rotation rotation;
} Config;

typedef struct {            // out = w x + bias
    Op op;                  // what it makes, and in which layer (-1: outside the layers)
    int layer;
    Matrix w;               // (rows, cols), in the mapped file
    const float *bias;      // (rows), or NULL
} Tensor;

typedef struct {
    Op op;
    int layer, dim;
    float eps;
    const float *weight;    // (dim)
    const float *bias;      // (dim), or NULL
} Norm;

typedef struct {            //                               llama2.c   GGUF         the papers
    Norm attn_norm;         // (dim)                         rms_att    attn_norm    g
    Tensor wq;              // (n_heads * head_dim, dim)     wq         attn_q       W_Q
    Tensor wk;              // (n_kv_heads * head_dim, dim)  wk         attn_k       W_K
    Tensor wv;              // (n_kv_heads * head_dim, dim)  wv         attn_v       W_V
    Tensor wo;              // (dim, n_heads * head_dim)     wo         attn_output  W_O
    Norm ffn_norm;          // (dim)                         rms_ffn    ffn_norm     g
    Tensor w_gate;          // (hidden_dim, dim)             w1         ffn_gate     W
    Tensor w_up;            // (hidden_dim, dim)             w3         ffn_up       V
    Tensor w_down;          // (dim, hidden_dim)             w2         ffn_down     W_2
} Layer;

typedef struct {
    Tensor embedding;       // (vocab_size, dim)             tok_emb    token_embd
    Layer *layers;          // n_layers of them
    Norm final_norm;        // (dim)                         rms_final  output_norm
    Tensor classifier;      // (vocab_size, dim)             wcls       output       (often shared)
} Weights;

typedef struct {            // never changes once loaded; any number of States can share it
    Config config;
    Weights weights;
    float *frequencies;     // (rope_dim / 2)  radians that each pair turns per position
    float *vectors;         // those that the file holds in F16 or BF16, as floats
} Model;

// ---------------------------------------------------------------------------- a pass through it

typedef struct {            // what an operation has just computed
    Op op;
    int layer, pos;         // layer -1: outside the layers; pos: of the first row; of all rows of WEIGHTS
    int rows, cols, stride; // row r starts at data + r * stride
    const float *data;      // valid during the call only
} Event;
typedef void Observer(void *context, const Event *event);

enum { SPAN = 128 };                                    // positions that attention looks at together
static inline int spans(int context) { return (context - 1) / SPAN + 1; }        // of so many positions

typedef struct {            // the activations of one pass
    int T, pos;             // the rows under way: T tokens, the first at position pos
    int max_tokens;         // the most tokens a pass can take
    int context;            // positions the KV cache has room for
    Type kv_type;           // of the KV cache: F16 or F32
    float *x;               // (T, dim)  the residual stream
    float *xb;              // (T, dim)  inside a branch, on its way back to x
    float *q;               // (T, n_heads * head_dim)
    float *k, *v;           // (T, n_kv_heads * head_dim)
    float *weights;         // (n_heads, context)  of one token, for an observer
    float *mix;             // (T, n_heads * head_dim)  what attention gathered
    float *gate, *up;       // (T, hidden_dim)
    float *rope;            // (T, rope_dim)  cos, sin of every pair's angle
    float *logits;          // (wanted, vocab_size)
    BlockX8 *x8;            // (T, widest input / 32)  the input of a product with quantized weights
    void *keys;             // (n_layers, n_kv_heads, spans(context), head_dim, SPAN)  the KV cache: the keys
    void *values;           // (n_layers, n_kv_heads, context, head_dim)  and the values
    void *memory;           // all of the above is one allocation
    size_t memory_size;
    Observer *observer;     // when set, hears of every operation; the results stay the same
    bool spares_weights;    // but for WEIGHTS, which would be made for it alone
    void *observer_context;
} State;

// ---------------------------------------------------------------------------- the machine

// system.c: all that is asked of the operating system. Paths are UTF-8
typedef struct { const uint8_t *data; size_t size; } Bytes;
const char *map_file(Bytes *file, const char *path);    // into memory, to be read
void unmap_file(Bytes file);
void watch_file(Bytes file, const char *sentence);      // to be said, at the latest while it is read again,
const char *shortened_file(void);                       //   when it has become shorter; or here; NULL: none
FILE *open_file(const char *path, const char *mode);    // as fopen()
bool file_exists(const char *path);
bool same_file(const char *a, const char *b);           // a regular one under both names; either may be NULL
int folder_length(const char *path);                    // of what stands before the file's own name
const char *program_folder(void);                       // where this program lies, ended by a slash; or NULL
bool is_terminal(int stream);                           // 0, 1, 2
bool has_text(int stream);       // a pipe or a file: its writer means it for us; no terminal, no device
char **prepare_process(int argc, char **argv);          // its standard streams; argv in UTF-8
double seconds(void);                                   // of a clock that only goes forward
double processor_seconds(void);                         // that all threads of this process have had together
uint64_t time_of_day(void);                             // in nanoseconds
size_t peak_memory(void);                               // bytes that this process has had at its height
int processors_available(void);                         // by affinity, and by a container's share of them
double cgroup_processors(const char *groups, const char *root);     // by these files of Linux's; or infinite
void catch_interrupts(bool restart);    // once: a second one is the system's; restart: reading goes on
extern volatile sig_atomic_t interrupted;               // by this signal; -1: as the output's reader left
int end_by_signal(int number);                          // does not return, or returns the exit status

// threads.c
typedef void Work(void *job, int begin, int end);
int  threads_available(void);                       // processors this process may use, as far as threads go
int  threads_start(int n);                          // how many run (at least 1: the caller)
void threads_stop(void);
void parallel_for(int n, int chunk, Work *work, void *job);     // work() covers [0, n), some chunks a call

// trace.c
const char *op_name(Op op);                         // "attn_norm"
void trace_text(void *file, const Event *event);    // an Observer: prints a line to a FILE *
void trace_json(void *file, const Event *event);    // the same as an object of JSON
void print_json_number(FILE *f, const char *before, double x);      // null, where it is infinite or none

static inline void report(const State *s, Op op, int layer, const float *data, int rows, int cols) {
    if (s->observer) s->observer(s->observer_context, &(Event){ op, layer, s->pos, rows, cols, cols, data });
}

// ---------------------------------------------------------------------------- the blocks

// rmsnorm.c: out, x: (dim). out may be x.
void rmsnorm(float *out, const float *x, const Norm *w);
void layernorm(float *out, const float *x, const Norm *w);
void prmsnorm(float *out, const float *x, const Norm *w);
void nonorm(float *out, const float *x, const Norm *w);
void norm(State *s, float *out, const float *x, const Norm *w);     // the one this build runs, on (T, dim)
const char *norm_name(void);

// matmul.c: several weights that share their input in one call
typedef struct { float *out; const Tensor *w; } Product;                // out: (T, rows of w)
void matmul(State *s, const Product *products, int n, const float *x);  // x: (T, cols of every w)

// attention.c
void attention(const Model *m, State *s, int layer);    // xb: in the normed stream, out the branch
void rope_frequencies(float *frequencies, int rope_dim, float theta);   // (rope_dim / 2)
void rope_angles(float *rope, const float *frequencies, int rope_dim, int T, int pos);
void rotate(float *x, const float *rope, int T, int heads, int head_dim, int rope_dim, Rotation rotation);

// ffn.c
void ffn(const Model *m, State *s, int layer);          // xb: in the normed stream, out the branch

// ---------------------------------------------------------------------------- the whole (model.c)

size_t cache_bytes(const Config *c, int context, Type kv);      // of the KV cache: the keys in whole spans

// Room for passes of up to max_tokens tokens, for the logits of up to max_wanted of them, and for a cache of
// `context` positions in F32 or F16. Fails only for want of memory.
const char *state_create(State *s, const Config *c, int context, int max_tokens, int max_wanted, Type kv);
void state_free(State *s);

enum { PROMPT_CHUNK = 512 };                            // tokens of a prompt that go through together

// Run T tokens, the first at position pos, and return the logits of the last `wanted`: (wanted, vocab_size).
float *forward(const Model *m, State *s, const int *tokens, int T, int pos, int wanted);

// ---------------------------------------------------------------------------- text

typedef struct { const char *data; size_t size; } Text;         // not ended by a zero
int text_length(Text t);                                // for "%.*s" in a sentence: at most 100
bool text_is(Text t, const char *word);

// utf8.c
typedef struct { uint8_t held[4]; int count; } Utf8;    // a character on its way
int utf8_length(const char *s, size_t n);               // of the character at s; 0: more; -1: none
int utf8_decode(uint32_t *code, const char *s, size_t n);       // its length; U+FFFD and 1 for a byte of none
int utf8_push(char out[8], Utf8 *u, uint8_t byte, bool replace);    // bytes that are ready now, at most 6
int utf8_flush(char out[8], Utf8 *u, bool replace);     // replace: U+FFFD for bytes of no character
int utf8_encode(char out[4], uint32_t code);            // its length; U+FFFD where there is no such character
size_t utf8_from_utf16(char *out, const char *in, size_t n, bool big_endian);   // out: 3 / 2 * n + 3 bytes
bool utf8_visible(uint32_t code);                       // no control character, C1 included
void print_string(FILE *f, Text t, bool json);          // what is not UTF-8 becomes U+FFFD, as JSON demands

// unicode.c: a code point's general category, as far as words.c asks for it
typedef enum {
    CHAR_OTHER, CHAR_LU, CHAR_LL, CHAR_LT, CHAR_LM, CHAR_LO, CHAR_MARK, CHAR_NUMBER, CHAR_PUNCT, CHAR_SPACE
} CharClass;
CharClass char_class(uint32_t code);

// words.c: how a text is cut before byte-level BPE
typedef void EachWord(void *context, Text word);
int find_cutter(Text name);                             // "llama-bpe"; -1: not known
const char *cutter_names(void);                         // those that are
void cut_words(int cutter, Text text, EachWord *each, void *context);

// tokenizer.c
typedef enum { NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE } PieceKind;        // USER: found as it is
typedef struct {
    const char *text;       // not ended by a zero
    int length;             // in bytes
    float score;            // the higher, the earlier it is merged
    PieceKind kind;
} Piece;

typedef struct { int left, right, id, rank; } Merge;    // two ids, the id they become, and how early

typedef struct {
    int size;
    Piece *pieces;
    int bos, eos, eot, eom; // begin and end of a text, end of a turn, end of a message; -1: it has none
    bool add_bos;           // a text begins with BOS
    bool add_space;         // put a space before the text, as SentencePiece does
    bool remove_spaces;     // of spaces in a row keep one, and none at the ends of a text
    bool byte_level;        // byte-level BPE: merges by rank, within words
    bool ignore_merges;     // a word that is a piece needs no merges
    int cutter;             // who cuts the words
    int unknown;            // stands for what no piece spells, where byte pieces are missing
    int byte_ids[256];      // the piece of a single byte, or -1
    int longest;            // bytes of the longest piece
    int *slots, n_slots;    // hash table: text -> id
    Merge *merges;          // hash table: left, right -> merge
    int n_merges;           // its slots
    bool has_unused;        // pieces that are merged, and come apart again
    const Piece **specials; // the pieces that are found whole (CONTROL, USER), in the order of their bytes
    int n_specials, first[257];     // first: where among them those begin that begin with a byte
    uint8_t *bytes;         // (256)  what the byte pieces point at
    char *texts;            // of the other pieces, where they are not the file's
    Text chat_template;     // as it stands in the file; empty: none
    char remarks[512];      // what the user should know of it: lines
} Vocabulary;

bool spells_byte(const char *text, int length);         // "<0x41>"
size_t spell_space(char *out, const char *in, size_t n);        // a byte, or U+2581 as a space; what it took
const char *vocabulary_index(Vocabulary *v);            // once the pieces are in: the tables behind them
void vocabulary_free(Vocabulary *v);
const char *vocabulary_expect_merges(Vocabulary *v, int n);
const char *vocabulary_add_merge(Vocabulary *v, int rank, const char *text, int left_length, int length);

typedef struct {            // of what goes in: a text, and after it ids as they are
    Text text;
    bool control;           // are control tokens' names in it meant?
    bool spaced;            // a space where a fragment of it begins is that of add_space
    const int *ids;
    int n_ids;
} Span;

enum { MAX_TEXT = 1 << 28 };                           // bytes

// Words may run from one span's text into the next. ids: room for 2 * text.size + 1 + n_ids of every span;
// BOS is the caller's.
const char *tokenize(int *ids, int *n, const Vocabulary *v, const Span *spans, int n_spans);
Piece token_text(const Vocabulary *v, int id, int previous);    // after BOS without the space of add_space
bool ends_text(const Vocabulary *v, int id);

// template.c: what a file's chat template says. Bytes that no text has stand for what is put in; in those of
// a message and the system prompt, bits say which blanks around it go
#define HOLE_BOS "\1"
#define HOLE_EOS "\2"
#define HOLE_REPLY "\3"
#define HOLE_MESSAGE "\20"
#define HOLE_SYSTEM "\30"
enum { TRIM_LEFT = 1, TRIM_RIGHT = 2, TRIM_SWALLOWED = 4 };     // by Jinja's trim; by the mark before it
enum { MAX_SAID = 1 << 16 };
typedef struct {
    char said[MAX_SAID + 1];
    bool raises;            // the template refuses such a conversation
    bool thinks;            // it forgets what a reply says up to "</think>"
} Saying;

// What it says for so many messages of a user, and replies to all but the last (thoughtful: with "</think>"
// in them). Fails, naming the place, where it is not understood.
const char *read_template_for(Saying *s, Text source, bool has_system, int n_turns, bool thoughtful);

// chat.c: a conversation as its model has learned to read it
typedef struct { Text message; const int *reply; int n_reply; } Turn;   // reply: ids, without the end's
typedef struct {
    const char *name;
    const char *alone;      // the first message, up to where its reply begins
    const char *first;      // the same with a system prompt
    const char *next;       // the end of a reply, and another message
    const char *last;       // the same, for the last one with a system prompt that moves to it; or NULL
    const char *opens;      // what the reply that is to be written begins with, such as "<think>\n"; or NULL
    bool thinks;            // what an earlier reply says up to "</think>" is not read again
    bool swallows;          // its marks take the blanks that follow them
    bool no_system;         // the file's template has no place for a system prompt: `first` is the family's
    char *texts;            // of those that are read from a file, otherwise NULL
    const char *marks[3];   // what a template of this family contains
} ChatTemplate;
const ChatTemplate *recognise_template(Text t);         // NULL: none that is known
const ChatTemplate *find_template(const char *name);    // "chatml"; NULL: not known
const char *template_names(void);                       // those that are

// The vocabulary's own, to be freed. Returns NULL where all of it is understood, otherwise what is not; then
// it is the family's, and where that is not known either, its name is NULL.
const char *read_template(ChatTemplate *t, const Vocabulary *v);
void template_free(ChatTemplate *t);

// The ids of a conversation up to where the last turn's reply goes on, to be freed. Fails as tokenize() does.
const char *chat_ids(int **ids, int *n, const Vocabulary *v, const ChatTemplate *t, Text system,
                     const Turn *turns, int n_turns);
int reply_end(const Vocabulary *v, const ChatTemplate *t);      // the id that ends a reply; -1: none

// sampler.c
typedef struct { float p; int id; } Candidate;
typedef struct {
    float temperature;      // 0: always the likeliest
    int top_k;              // keep the k likeliest; 0: all
    float top_p;            // keep the likeliest whose probabilities reach p together; 1: all
    float min_p;            // keep those at least min_p times as likely as the likeliest; 0: all
    float repeat_penalty;   // 1: none
    uint64_t random;        // the generator's state; starts as the seed
    Candidate *candidates;  // (vocab_size)
    const bool *never;      // (vocab_size) ids that are not chosen; or NULL
} Sampler;
const char *sampler_create(Sampler *s, int vocab_size);         // the memory; the settings are the caller's
void sampler_free(Sampler *s);
int sample(Sampler *s, const float *logits, int vocab_size, const int *history, int n);     // history: n ids
void likeliest(Candidate *best, int n, const Sampler *s, const float *logits, int vocab_size);  // p: logits
uint64_t random_next(uint64_t *state);

// ---------------------------------------------------------------------------- files

// file.c: bytes from outside, of which none is trusted
typedef struct { const uint8_t *at; size_t left; bool failed; } Cursor;     // once failed, it yields zeros

long read_line(char **line, size_t *room, FILE *f);     // as getline()
const char *complain(const char *format, ...) __attribute__((format(printf, 1, 2)));    // till the next one
const char *complain_list(const char *format, va_list arguments);
const char *what_is(Bytes file);                        // "a web page: ...", or NULL: it has no mark we know
size_t size_times(uint64_t a, uint64_t b);              // a * b, or SIZE_MAX where that overflows
const void *take(Cursor *c, size_t bytes);              // the next bytes, or NULL
uint32_t take_u32(Cursor *c);
int32_t take_i32(Cursor *c);
uint64_t take_u64(Cursor *c);
float take_f32(Cursor *c);

// gguf.c: what lies where in a GGUF file. All of it points into the file
typedef enum {
    GGUF_U8, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL, GGUF_STRING, GGUF_ARRAY,
    GGUF_U64, GGUF_I64, GGUF_F64, N_GGUF_TYPES
} GgufType;
typedef struct {
    Text key;
    GgufType type, item_type;       // item_type: of an array's items, otherwise type
    uint64_t count;                 // of an array's items, otherwise 1
    Cursor items;
    bool asked_for;                 // by gguf_find
} GgufPair;
typedef struct {
    Text name;
    int type, n_dims;               // type: ggml's number of it
    uint64_t shape[4];              // the fastest index first: { cols, rows, 1, 1 }
    uint64_t offset;
    size_t bytes;
    const void *data;
    bool asked_for;                 // by gguf_tensor
} GgufTensor;
typedef struct {
    uint32_t version, alignment;
    size_t n_pairs, n_tensors, data_start;
    GgufPair *pairs, **by_key;      // in the file's order, and sorted
    GgufTensor *tensors, **by_name;
} Gguf;

bool is_gguf(Bytes file);
const char *gguf_read(Gguf *g, Bytes file);
void gguf_free(Gguf *g);
const GgufPair *gguf_find(const Gguf *g, const char *key);              // NULL: not there
const GgufTensor *gguf_tensor(const Gguf *g, const char *name);
const char *gguf_type_name(int ggml_type);              // "Q4_K"
int gguf_runnable(int ggml_type);                       // our Type, or -1
const char *gguf_value_name(GgufType type);             // "u32"
Text take_string(Cursor *c);

// Values by their keys, with a sticky error: of all that goes wrong, the first is told. The star of "*.x" is
// the architecture
typedef struct { const Gguf *g; const char *architecture, *error; } Reader;
void refuse(Reader *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
const GgufPair *find_key(const Reader *r, const char *key);
const GgufPair *need_key(Reader *r, const char *key);   // NULL where it is missing, which is an error
int64_t read_int(Reader *r, const char *key, int64_t fallback, int64_t least, int64_t most);
float read_float(Reader *r, const char *key, float fallback, float least, float most);
bool read_bool(Reader *r, const char *key, bool fallback);
Text read_string(Reader *r, const char *key);
const GgufPair *read_array(Reader *r, const char *key, GgufType items);

// llama2c.c, checkpoint.c, vocabulary.c: what is read points into `file`, which has to outlive it. Those of
// llama2c.c may leave something to free when they refuse, the others leave nothing
const char *llama2c_read(Model *m, Bytes file);         // a .bin of version 0, 1 or 2
const char *llama2c_vocabulary(Vocabulary *v, Bytes file, int size);    // a tokenizer.bin; size 0: any
const char *checkpoint_read(Model *m, Bytes file);      // a model of any format
const char *vocabulary_read(Vocabulary *v, Bytes file, int size);       // of a GGUF file, or a tokenizer.bin
void model_free(Model *m);
int default_context(const Config *c);                   // what it was trained for, at most 4096

// ---------------------------------------------------------------------------- numbers about a run

// measure.c
size_t bytes_per_token(const Model *m);                 // what writing one token reads of the weights
uint64_t hash_logits(const float *logits, int n);       // two runs agree to the bit, or their hashes differ
FILE *npy_open(const char *path);                       // a NumPy file of floats; NULL, and errno, on failure
bool npy_close(FILE *f, int rows, int cols);            // false, and errno, if anything could not be written

double surprise(const float *logits, int n, int id);    // -log softmax(logits)[id]
typedef struct {
    double perplexity, standard_error;
    long tokens;
    int windows, all;                       // that were scored; that there are
} Perplexity;
const char *perplexity(Perplexity *p, const Model *m, State *s, const Vocabulary *v, int *ids, int n,
                       bool progress, const volatile sig_atomic_t *stop);      // stop: when this is not 0

enum { MAX_RUNS = 16 };
typedef struct {
    int tokens;
    double runs[MAX_RUNS];             // tokens/s
    double cpu_runs[MAX_RUNS];         // and per second that it had the processors
    double share[5], norm_ns;           // of the time: norm, attention, ffn, matmul, other; a token's norm
} Phase;
typedef struct {
    Phase prefill, decode;              // a prompt is read, and as many tokens written after it
    int runs;
    double read_limits[MAX_RUNS];      // bytes/s, after each run: all threads read the weights, and no more
} Bench;
const char *bench(Bench *b, const Model *m, Type kv, int context, int runs, bool progress,
                  const volatile sig_atomic_t *stop);
double mean_of(const double *x, int n);
double deviation_of(const double *x, int n);            // over n - 1

const char *why_not_finite(const State *s);             // what may have happened to the logits

// ---------------------------------------------------------------------------- what the program does

// output.c: control characters reach pipes as bytes, terminals as \u001b
extern const char *program;                             // its name, before what it says
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));        // to standard error
void say_list(const char *format, va_list arguments);
void print_token(FILE *f, const Vocabulary *v, int id); // in quotation marks, as JSON has them
typedef struct {            // a text on its way to standard output
    const char *const *stop;        // texts that end it, and that nobody gets to see
    int n_stop;
    bool silent;                    // it is kept for a report, not printed
    char *data;                     // so far, its prompt not included
    size_t size, room, printed;
    Utf8 utf8;
} Output;
void output_text(Output *o, Text t);                    // of the prompt
const char *output_piece(Output *o, Piece piece, bool *stopped);
void output_end(Output *o);
void output_clear(Output *o);                           // for the next text

// info.c: what a file is, to standard output
const char *print_info(Bytes file, bool json);

// generate.c: text to standard output, remarks and statistics to standard error
typedef struct {
    const Model *model;
    const Vocabulary *vocabulary;
    Sampler *sampler;               // its settings; the memory comes from here
    int context, n;                 // n: most tokens of a text, of a reply; -1: as the context allows
    Type kv_type;
    const char *logits;             // a .npy file for those of every position; or NULL
    Observer *trace;                // trace_text, trace_json (which wants standard error alone), or NULL
    const char *const *stop;        // texts that end it
    int n_stop;
    bool ignore_eos;                // no token that ends the text is chosen
    bool json;                      // generate alone: a report instead of the text
    int top;                        //   with the likeliest so many at each position
    const char *file;               // the checkpoint's name, for the trace
    bool quiet;
    uint64_t seed;                  // for the statistics, as is
    double started;
    const ChatTemplate *template;   // chat alone: whose marks,
    int reply_end;                  //   the id that ends a reply (-1: ends_text knows them all),
    Text system;                    //   the system prompt, which may be empty,
    bool shift;                     //   and whether to forget the oldest turns when the context is full
} Writing;
const char *generate(const Writing *w, Text prompt, const int *ids, int n);     // ids: BOS and the prompt's
const char *chat(const Writing *w, Text first);         // first: the message before those of standard input
const char *flush_output(void);                         // a reader that has left is no error

// options.c: the command line
enum { MAX_STOP = 16, MAX_TOP = 100 };
typedef struct {
    const char *checkpoint, *mode_name, *prompt, *prompt_file, *tokenizer, *seed_text, *kv, *kernels, *logits,
        *system, *template_name, *on_full, *stop[MAX_STOP];
    const ChatTemplate *template;
    int n, context, threads, n_stop, top;
    enum { GENERATE, CHAT, PERPLEXITY, BENCH, TOKENIZE, INFO } mode;
    Type kv_type;
    bool shift, swap_norm, special, ignore_eos, pieces, trace, trace_json, json, quiet, help, version;
    bool piped;                     // the prompt is what comes through a pipe
    bool like_threads;              // the temperature was asked for as other engines ask for threads: -t 4
    Sampler sampler;
} Options;
const char *read_options(Options *o, int argc, char **argv);    // what they point at is argv's
void print_help(void);

#endif
