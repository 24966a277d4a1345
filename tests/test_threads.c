// test_threads.c - every step of a loop once, by however many threads, so often that they would collide.
// Calls begin with a chunk, and are few: each begins anew to fetch from memory.
#include "test.h"
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

enum { MAX_N = 1005 };

typedef struct { atomic_int seen[MAX_N]; atomic_int calls, largest, wrong; int n, chunk; } Tally;

static void count(void *job, int begin, int end) {
    Tally *tally = job;
    bool whole = begin % tally->chunk == 0 && (end % tally->chunk == 0 || end == tally->n);
    if (begin < 0 || begin >= end || end > tally->n || !whole) {
        atomic_fetch_add(&tally->wrong, 1);
        return;
    }
    for (int i = begin; i < end; i++) atomic_fetch_add(&tally->seen[i], 1);
    atomic_fetch_add(&tally->calls, 1);
    int largest = atomic_load(&tally->largest);
    while (end - begin > largest && !atomic_compare_exchange_weak(&tally->largest, &largest, end - begin)) {}
}

static void check_loop(int threads, int n, int chunk) {
    static Tally tally;
    memset(&tally, 0, sizeof tally);
    tally.n = n, tally.chunk = chunk;
    parallel_for(n, chunk, count, &tally);
    int wrong = atomic_load(&tally.wrong), missed = 0;
    for (int i = 0; i < MAX_N; i++) missed += atomic_load(&tally.seen[i]) != (i < n);
    CHECK(wrong == 0 && missed == 0, "%d threads, %d steps by %d: %d wrong ranges, %d steps not done once",
          threads, n, chunk, wrong, missed);
    int share = (n + chunk - 1) / chunk / threads + 1;  // in chunks
    if (threads > 1)                                    // alone, one call does it all
        CHECK(atomic_load(&tally.largest) <= share * chunk, "%d threads, %d steps by %d: %d at once", threads,
              n, chunk, atomic_load(&tally.largest));
    int calls = 0;                                      // by halves of a share it would take so many
    for (int left = n; left > 0; left -= 1 + left / (2 * threads)) calls++;
    CHECK(atomic_load(&tally.calls) <= calls, "%d threads, %d steps by %d: in %d calls", threads, n, chunk,
          atomic_load(&tally.calls));
    if (n == 0) CHECK(atomic_load(&tally.calls) == 0, "work without steps");
}

static void test_coverage(int threads) {
    static const int lengths[] = { 0, 1, 2, 3, 64 };
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        for (int chunk = 1; chunk <= lengths[i] + 5; chunk++) check_loop(threads, lengths[i], chunk);
    for (int chunk = 1; chunk <= 1005; chunk += 1 + chunk / 7) check_loop(threads, 1000, chunk);
    for (int chunk = 995; chunk <= 1005; chunk++) check_loop(threads, 1000, chunk);
}

// Loops so short that a thread which is late for one meets the next. What one loop writes, the caller and the
// next loop read, without an atomic in sight: that the loops are in order is parallel_for's promise.
typedef struct { int from[8], to[8]; } Copy;
static void copy(void *job, int begin, int end) {
    Copy *c = job;
    for (int i = begin; i < end; i++) c->to[i] = c->from[i] + 1;
}

static void test_many_loops(int threads, int loops) {
    Copy c = { { 0 }, { 0 } };
    int wrong = 0;
    for (int loop = 0; loop < loops; loop++) {
        int n = 2 + loop % 7;
        parallel_for(n, 1 + loop % 2, copy, &c);
        for (int i = 0; i < n; i++) wrong += c.to[i] != loop + 1;
        for (int i = 0; i < 8; i++) c.from[i] = loop + 1;
    }
    CHECK(wrong == 0, "%d threads, %d loops in a row: %d steps missed", threads, loops, wrong);
}

// Two steps that wait for one another end only if two threads take them, also threads that have been asleep.
static void meet(void *job, int begin, int end) {
    atomic_int *arrived = job;
    atomic_fetch_add(arrived, end - begin);
    for (double start = seconds(); atomic_load(arrived) % 2 && seconds() - start < 3;) sched_yield();
}

static void test_company(void) {
    for (int i = 0; i < 20; i++) {
        atomic_int arrived = 0;
        nanosleep(&(struct timespec){ 0, i * 1000000 }, NULL);
        double start = seconds();
        parallel_for(2, 1, meet, &arrived);
        bool met = seconds() - start < 3;
        CHECK(met, "two threads did not meet in %.1f s", seconds() - start);
        if (!met) return;
    }
}

static void test_start_and_stop(void) {
    for (int i = 0; i < 300; i++) {
        int n = 1 + i % 5, got = threads_start(n);
        CHECK(got >= 1 && got <= n, "asked for %d threads, got %d", n, got);
        if (i % 3) check_loop(got, 100, 7);             // now and then nothing is done before they stop
        threads_stop();
    }
    CHECK(threads_start(0) == 1, "no threads at all");
    check_loop(1, 100, 7);
    threads_stop();
    CHECK(threads_start(-3) == 1, "-3 threads");
    threads_stop();
    threads_stop();                                     // once more does no harm
    check_loop(1, 100, 7);
    int many = threads_start(1000000);
    CHECK(many >= 1 && many < 1000000, "%d threads were started", many);
    for (int i = 0; i < 50; i++) check_loop(many, 1000, 1);
    threads_stop();
}

static void test_available(void) {
    int n = threads_available();
    CHECK(n >= 1, "%d processors", n);
#ifdef __linux__
    cpu_set_t before, one;
    if (sched_getaffinity(0, sizeof before, &before)) return;
    CHECK(n <= CPU_COUNT(&before), "%d processors, and this process may use %d", n, CPU_COUNT(&before));
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE && !CPU_COUNT(&one); i++)
        if (CPU_ISSET(i, &before)) CPU_SET(i, &one);
    if (sched_setaffinity(0, sizeof one, &one)) return;
    CHECK(threads_available() == 1, "bound to one processor: %d", threads_available());
    threads_start(7);                                   // all seven on that one
    test_many_loops(7, 300);
    threads_stop();
    sched_setaffinity(0, sizeof before, &before);
#endif
}

int main(void) {
    static const int thread_counts[] = { 1, 2, 3, 7 };
    for (int i = 0; i < 4; i++) {
        int threads = threads_start(thread_counts[i]);
        CHECK(threads == thread_counts[i], "asked for %d threads, got %d", thread_counts[i], threads);
        test_coverage(threads);
        test_many_loops(threads, threads <= 2 ? 100000 : 10000);
        if (threads > 1) test_company();
        threads_stop();
    }
    test_start_and_stop();
    test_available();
    return finish("test_threads");
}
