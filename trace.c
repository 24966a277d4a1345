// trace.c - watch the forward pass: a line for every operation, for people or as JSON for programs.
//
//   layer  3  pos    7  ffn_norm      1 x 64     rms 0.6712     mean -0.0214     max 2.113     0.11 -0.5 ...
//   {"op": "ffn_norm", "layer": 3, "pos": 7, "shape": [1, 64], "rms": 0.671..., "mean": ..., "max": ...,
//    "sum": ..., "values": [0.11..., -0.5..., ...]}
#include "model.h"
#include <math.h>
#include <stdio.h>

// These names are part of the interface: they never change.
const char *op_name(Op op) {
    static const char *const names[N_OPS] = {
        [EMBED] = "embed", [ATTN_NORM] = "attn_norm", [Q] = "q", [K] = "k", [V] = "v", [Q_ROPE] = "q_rope",
        [K_ROPE] = "k_rope", [WEIGHTS] = "weights", [MIX] = "mix", [ATTN_OUT] = "attn_out",
        [RESID_MID] = "resid_mid", [FFN_NORM] = "ffn_norm", [GATE] = "gate", [UP] = "up", [HIDDEN] = "hidden",
        [FFN_OUT] = "ffn_out", [RESID] = "resid", [FINAL_NORM] = "final_norm", [LOGITS] = "logits",
    };
    return names[op];
}

typedef struct { double sum, mean, rms, largest; } Summary;        // largest: in magnitude

static Summary summary_of(const Event *e) {
    double sum = 0, squares = 0, largest = 0, n = (double)e->rows * e->cols;
    for (int r = 0; r < e->rows; r++)
        for (int c = 0; c < e->cols; c++) {
            double x = e->data[(size_t)r * e->stride + c];
            sum += x, squares += x * x;
            if (fabs(x) > largest || isnan(x)) largest = fabs(x);      // a NaN stays
        }
    return (Summary){ sum, sum / n, sqrt(squares / n), largest };
}

void trace_text(void *file, const Event *e) {
    Summary s = summary_of(e);
    char layer[16] = "-";
    if (e->layer >= 0) snprintf(layer, sizeof layer, "%d", e->layer);
    fprintf(file, "layer %2s  pos %4d  %-10s %4d x %-6d rms %-10.4g mean %-11.4g max %-10.4g",
            layer, e->pos, op_name(e->op), e->rows, e->cols, s.rms, s.mean, s.largest);
    for (int c = 0; c < e->cols && c < 3; c++) fprintf(file, " %.4g", e->data[c]);
    fputs(e->cols > 3 ? " ...\n" : "\n", file);
}

// All digits of a double; of a float, too, those of the double that it is.
void print_json_number(FILE *f, const char *before, double x) {
    if (isfinite(x)) fprintf(f, "%s%.17g", before, x);
    else fprintf(f, "%snull", before);                  // JSON knows neither infinity nor NaN
}

void trace_json(void *file, const Event *e) {
    Summary s = summary_of(e);
    fprintf(file, "{\"op\": \"%s\", \"layer\": ", op_name(e->op));
    fprintf(file, e->layer < 0 ? "null" : "%d", e->layer);
    fprintf(file, ", \"pos\": %d, \"shape\": [%d, %d]", e->pos, e->rows, e->cols);
    print_json_number(file, ", \"rms\": ", s.rms);
    print_json_number(file, ", \"mean\": ", s.mean);
    print_json_number(file, ", \"max\": ", s.largest);
    print_json_number(file, ", \"sum\": ", s.sum);
    fputs(", \"values\": [", file);
    for (int c = 0; c < e->cols && c < 8; c++) print_json_number(file, c ? ", " : "", e->data[c]);
    fputs("]}\n", file);
}
