// test_trace.c - the names that never change, and the line that an event becomes.
#include "test.h"

static void test_names(void) {
    static const struct { Op op; const char *name; } want[] = {
        { EMBED, "embed" }, { ATTN_NORM, "attn_norm" }, { Q, "q" }, { K, "k" }, { V, "v" },
        { Q_ROPE, "q_rope" }, { K_ROPE, "k_rope" }, { WEIGHTS, "weights" }, { MIX, "mix" },
        { ATTN_OUT, "attn_out" }, { RESID_MID, "resid_mid" }, { FFN_NORM, "ffn_norm" }, { GATE, "gate" },
        { UP, "up" }, { HIDDEN, "hidden" }, { FFN_OUT, "ffn_out" }, { RESID, "resid" },
        { FINAL_NORM, "final_norm" }, { LOGITS, "logits" },
    };
    CHECK(N_OPS == 19 && sizeof want / sizeof *want == 19, "there are %d operations", N_OPS);
    for (int i = 0; i < 19; i++) {
        CHECK(want[i].op == (Op)i, "%s comes as number %d, not %d", want[i].name, want[i].op, i);
        CHECK(!strcmp(op_name(want[i].op), want[i].name), "wanted %s, got %s", want[i].name,
              op_name(want[i].op));
    }
}

// The line, with every run of spaces made one.
static const char *line_of(Observer *trace, const Event *event) {
    static char line[1024];
    char *text = NULL;
    size_t size = 0, n = 0;
    FILE *f = open_memstream(&text, &size);
    trace(f, event);
    fclose(f);
    for (size_t i = 0; i < size && n + 1 < sizeof line; i++)
        if (text[i] != ' ' || (n && line[n - 1] != ' ')) line[n++] = text[i];
    line[n] = 0;
    free(text);
    return line;
}

static void check_line(Observer *trace, const Event *event, const char *want) {
    const char *got = line_of(trace, event);
    CHECK(!strcmp(got, want), "wanted %s     got %s", want, got);
}

static void test_lines(void) {
    // Two rows of two in a matrix four wide: 1 -7, 3 5. Squares 1 + 49 + 9 + 25 = 84, over 4: 21, root 4.583;
    // mean 2 / 4; the largest magnitude is the 7's. What stands beside them does not count.
    const float wide[] = { 1, -7, 1e30f, NAN, 3, 5, 1e30f, NAN };
    check_line(trace_text, &(Event){ WEIGHTS, 3, 7, 2, 2, 4, wide },
               "layer 3 pos 7 weights 2 x 2 rms 4.583 mean 0.5 max 7 1 -7\n");

    // outside the layers; more than three columns are cut short. 1 + 1 + 1 + 9 = 12, over 4: 3, root 1.732
    const float row[] = { 1, 1, -1, 3 };
    check_line(trace_text, &(Event){ LOGITS, -1, 123, 1, 4, 4, row },
               "layer - pos 123 logits 1 x 4 rms 1.732 mean 1 max 3 1 1 -1 ...\n");
    check_line(trace_text, &(Event){ RESID, 12, 0, 1, 1, 1, row },
               "layer 12 pos 0 resid 1 x 1 rms 1 mean 1 max 1 1\n");
    const float zeros[] = { 0, 0, 0 };
    check_line(trace_text, &(Event){ MIX, 0, 0, 1, 3, 3, zeros },
               "layer 0 pos 0 mix 1 x 3 rms 0 mean 0 max 0 0 0 0\n");
}

static void test_json(void) {
    // Two rows of two in a matrix three wide: 3 -4, 0 5. Squares 9 + 16 + 0 + 25 = 50, over 4: 12.5, and the
    // root of it in 17 digits 3.5355339059327378; sum 3 - 4 + 0 + 5 = 4. 0.1f is 0.100000001490116...
    const float wide[] = { 3, -4, 1e30f, 0, 5, NAN };
    check_line(trace_json, &(Event){ WEIGHTS, 3, 7, 2, 2, 3, wide },
               "{\"op\": \"weights\", \"layer\": 3, \"pos\": 7, \"shape\": [2, 2], "
               "\"rms\": 3.5355339059327378, \"mean\": 1, \"max\": 5, \"sum\": 4, \"values\": [3, -4]}\n");
    const float row[] = { 0.1f, 1, 2, 3, 4, 5, 6, 7, 8.5f };      // the ninth is not among the first values
    const char *got = line_of(trace_json, &(Event){ LOGITS, -1, 123, 1, 9, 9, row });
    CHECK(strstr(got, "\"layer\": null, \"pos\": 123, \"shape\": [1, 9], "), "%s", got);
    CHECK(strstr(got, "\"max\": 8.5, \"sum\": 36.600000001490116, "), "%s", got);
    CHECK(strstr(got, "\"values\": [0.10000000149011612, 1, 2, 3, 4, 5, 6, 7]}\n"), "%s", got);
}

// Wherever a NaN or an infinity is, the line shows it.
static void test_damage(void) {
    for (int at = 0; at < 6; at++) {
        float x[] = { 1, 2, 3, 4, 5, 6 };
        x[at] = NAN;
        const char *line = line_of(trace_text, &(Event){ UP, 0, 0, 2, 3, 3, x });
        CHECK(strstr(line, "rms nan") || strstr(line, "rms -nan"), "a NaN at %d leaves no trace in rms: %s",
              at, line);
        CHECK(strstr(line, "mean nan") || strstr(line, "mean -nan"),
              "a NaN at %d leaves no trace in mean: %s", at, line);
        CHECK(strstr(line, "max nan") || strstr(line, "max -nan"), "a NaN at %d leaves no trace in max: %s",
              at, line);
        x[at] = -INFINITY;
        line = line_of(trace_text, &(Event){ UP, 0, 0, 2, 3, 3, x });
        CHECK(strstr(line, "rms inf mean -inf max inf"), "an infinity at %d leaves no trace: %s", at, line);
    }
}

// JSON knows no NaN and no infinity: null stands for them.
static void test_damage_in_json(void) {
    const float numbers[] = { NAN, INFINITY, -INFINITY };
    for (int i = 0; i < 3; i++)
        check_line(trace_json, &(Event){ UP, 0, 0, 1, 3, 3, (float[]){ 1, numbers[i], 3 } },
                   "{\"op\": \"up\", \"layer\": 0, \"pos\": 0, \"shape\": [1, 3], \"rms\": null, "
                   "\"mean\": null, \"max\": null, \"sum\": null, \"values\": [1, null, 3]}\n");
}

int main(void) {
    test_names();
    test_lines();
    test_json();
    test_damage();
    test_damage_in_json();
    return finish("test_trace");
}
