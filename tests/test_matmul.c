// test_matmul.c - products with weight matrices: by hand, against double, the same bits however shared out.
#include "test.h"

static Event heard[8];
static int n_heard;
static void listen(void *context, const Event *event) { (void)context; heard[n_heard++ % 8] = *event; }

static void test_by_hand(void) {
    // [1 2 3]   [1  0 -1] -> 1 - 3, 4 - 6                  with bias [10 20]: 8 18
    // [4 5 6]   [2  1  1] -> 2 + 2 + 3, 8 + 5 + 6                             17 39
    Tensor w = tensor(GATE, 2, F32, 2, 3, (const float[]){ 1, 2, 3, 4, 5, 6 }, NULL);
    const float x[] = { 1, 0, -1, 2, 1, 1 }, want[] = { -2, -2, 7, 19 }, with_bias[] = { 8, 18, 17, 39 };
    float out[4];
    State s = { .T = 2, .pos = 6, .observer = listen };
    n_heard = 0;
    matmul(&s, &(Product){ out, &w }, 1, x);
    for (int i = 0; i < 4; i++) CHECK(out[i] == want[i], "out[%d]: wanted %g, got %g", i, want[i], out[i]);
    CHECK(n_heard == 1 && heard->op == GATE && heard->layer == 2 && heard->pos == 6 && heard->rows == 2 &&
              heard->cols == 2 && heard->stride == 2 && heard->data == out,
          "the product reported something else");

    w.bias = (const float[]){ 10, 20 };
    matmul(&s, &(Product){ out, &w }, 1, x);
    for (int i = 0; i < 4; i++)
        CHECK(out[i] == with_bias[i], "with bias [%d]: wanted %g, got %g", i, with_bias[i], out[i]);

    w = tensor(GATE, 2, F16, 2, 3, (const Half[]){ 0x3c00, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600 }, NULL);
    matmul(&s, &(Product){ out, &w }, 1, x);            // 1 2 3 4 5 6 as halves
    for (int i = 0; i < 4; i++)
        CHECK(out[i] == want[i], "halves [%d]: wanted %g, got %g", i, want[i], out[i]);
}

// Three matrices that share an input, with chunks that reach over their seams; the second one is of halves.
enum { COLS = 300, N = 3, MAX_T = 7 };
static const int heights[N] = { 301, 7, 700 };

static Tensor tensors[N];
static double *products[N];                             // of T tokens, in double
static float *x;

static void make_tensors(void) {
    x = random_floats(MAX_T * COLS);
    for (int i = 0; i < N; i++) {
        float *w = random_floats((size_t)heights[i] * COLS),
              *bias = i == 2 ? random_floats(heights[i]) : NULL;
        void *data = w;
        if (i == 1) {
            data = malloc((size_t)heights[i] * COLS * sizeof(uint16_t));
            kernels.encode[F16](data, w, heights[i] * COLS);
            const Matrix halves = matrix(F16, heights[i], COLS, data);
            for (int r = 0; r < heights[i]; r++) kernels.decode[F16](w + r * COLS, &halves, r);
        }
        tensors[i] = tensor((Op)(Q + i), i, i == 1 ? F16 : F32, heights[i], COLS, data, bias);
        products[i] = malloc((size_t)MAX_T * heights[i] * sizeof(double));
        for (int t = 0; t < MAX_T; t++)
            for (int r = 0; r < heights[i]; r++) {
                double sum = bias ? bias[r] : 0;
                for (int c = 0; c < COLS; c++) sum += (double)w[r * COLS + c] * x[t * COLS + c];
                products[i][t * heights[i] + r] = sum;
            }
        if (i == 1) free(w);
    }
}

static void free_tensors(void) {
    for (int i = 0; i < N; i++)
        free((void *)(uintptr_t)tensors[i].w.data), free((void *)(uintptr_t)tensors[i].bias),
            free(products[i]);
    free(x);
}

static void test_shared_input(int T) {
    float *separate[N], *together[N];
    for (int i = 0; i < N; i++) {
        size_t n = (size_t)T * heights[i];
        separate[i] = malloc(n * sizeof(float));
        together[i] = malloc(n * sizeof(float));
        State s = { .T = T };
        matmul(&s, &(Product){ separate[i], &tensors[i] }, 1, x);
        double worst = 0;                               // 300 products up to 1: rounding stays far below
        for (size_t k = 0; k < n; k++) worst = worse(worst, fabs(separate[i][k] - products[i][k]));
        CHECK(worst < 1e-4, "T %d, matrix %d: %g away from the product in double", T, i, worst);
    }
    static const int thread_counts[] = { 1, 2, 3, 7 };
    for (int k = 0; k < 4; k++) {
        State s = { .T = T, .pos = 1, .observer = listen };
        for (int i = 0; i < N; i++) memset(together[i], 0xff, (size_t)T * heights[i] * sizeof(float));
        n_heard = 0;
        threads_start(thread_counts[k]);
        matmul(&s,
               (Product[]){
                   { together[0], &tensors[0] }, { together[1], &tensors[1] }, { together[2], &tensors[2] } },
               N, x);
        threads_stop();
        for (int i = 0; i < N; i++) {
            CHECK(!memcmp(separate[i], together[i], (size_t)T * heights[i] * sizeof(float)),
                  "T %d, %d threads: matrix %d of three at once differs from it alone", T, thread_counts[k],
                  i);
            CHECK(heard[i].op == (Op)(Q + i) && heard[i].layer == i && heard[i].rows == T &&
                      heard[i].cols == heights[i] && heard[i].data == together[i],
                  "event %d is of %s", i, op_name(heard[i].op));
        }
        CHECK(n_heard == N, "wanted %d events, got %d", N, n_heard);
    }
    for (int i = 0; i < N; i++) free(separate[i]), free(together[i]);
}

int main(void) {
    choose_kernels(NULL);
    make_tensors();
    test_by_hand();
    test_shared_input(1);
    test_shared_input(2);
    test_shared_input(MAX_T);
    free_tensors();
    return finish("test_matmul");
}
