// threads.c - one loop over many cores: OpenMP when the compiler has it on, pthreads otherwise.
//
// A loop of n steps is cut into chunks, and every thread, the caller included, takes the next ones until none
// are left: at first many at once, as memory is fastest for who goes on where he is, then ever fewer, so that
// all end together. A thread that is late, or that the system has put aside, takes fewer.
#include "model.h"
#include <pthread.h>
#include <stdatomic.h>

enum { MAX_THREADS = 256 };

int threads_available(void) {
    int n = processors_available();
    return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : n;
}

typedef struct { Work *work; void *job; int n, chunk; } Loop;

static int count_chunks(int n, int chunk) { return (int)(((long long)n + chunk - 1) / chunk); }

// Of those that nobody has taken yet, the next `count`.
static void run_chunks(const Loop *loop, int left, int count) {
    long long begin = (long long)(count_chunks(loop->n, loop->chunk) - left) * loop->chunk;
    long long end = begin + (long long)count * loop->chunk;
    loop->work(loop->job, (int)begin, end < loop->n ? (int)end : loop->n);
}

static int n_threads = 1;

// How many to take: two thirds of an equal share, so that a thread of half the speed is not too late.
static int portion(int left) { return 1 + (left - 1) / n_threads * 2 / 3; }

#ifdef _OPENMP

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

static void *pass_gate(void *unused) {
    pthread_mutex_lock(&gate);
    pthread_mutex_unlock(&gate);
    return unused;
}

// OpenMP ends the program where it cannot make a thread, so as many are made before, all alive at once.
int threads_start(int n) {
    pthread_t threads[MAX_THREADS];
    if (n > MAX_THREADS) n = MAX_THREADS;
    pthread_mutex_lock(&gate);
    for (n_threads = 1; n_threads < n; n_threads++)
        if (pthread_create(&threads[n_threads], NULL, pass_gate, NULL)) break;
    pthread_mutex_unlock(&gate);
    for (int i = 1; i < n_threads; i++) pthread_join(threads[i], NULL);
    return n_threads;
}

void threads_stop(void) { n_threads = 1; }

void parallel_for(int n, int chunk, Work *work, void *job) {
    Loop loop = { work, job, n, chunk };
    int chunks = count_chunks(n, chunk);
    if (chunks <= 1 || n_threads == 1) { if (n > 0) work(job, 0, n); return; }
    atomic_int rest = chunks;
    #pragma omp parallel num_threads(n_threads)
    for (int left = atomic_load(&rest); left; left = atomic_load(&rest)) {
        int count = portion(left);
        if (atomic_compare_exchange_weak(&rest, &left, left - count)) run_chunks(&loop, left, count);
    }
}

#else
#include <sched.h>

// ticket: how many chunks of the present loop nobody has taken yet. Whoever lowers it owns as many, and only
// then looks at `loop`, which stays as it is until every chunk is done. The upper half counts the loops, so
// that a ticket read during an earlier loop cannot be mistaken for one of this loop.
static atomic_flag busy = ATOMIC_FLAG_INIT;             // there is one pool: who comes second works alone
static Loop loop;
static atomic_ullong ticket;
static atomic_int unfinished;                           // chunks of the present loop that are not done

enum { SPINS = 4000 };                                  // the next loop may be microseconds away; then sleep
static pthread_t threads[MAX_THREADS];
static atomic_int sleepers, stopping;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;

static bool work_left(void) { return (uint32_t)atomic_load(&ticket) != 0; }

static void pause_a_little(unsigned spin) {
    if (spin % 64 == 63) sched_yield();
    else atomic_signal_fence(memory_order_seq_cst);
}

static void take_chunks(void) {
    for (unsigned long long t = atomic_load(&ticket); (uint32_t)t; t = atomic_load(&ticket)) {
        int left = (int)(uint32_t)t, count = portion(left);
        if (atomic_compare_exchange_weak(&ticket, &t, t - (unsigned)count)) {
            run_chunks(&loop, left, count);
            atomic_fetch_sub(&unfinished, count);
        }
    }
}

static void *worker(void *unused) {
    while (!atomic_load(&stopping)) {
        for (unsigned spin = 0; !work_left() && spin < SPINS; spin++) pause_a_little(spin);
        if (!work_left()) {
            pthread_mutex_lock(&lock);
            atomic_fetch_add(&sleepers, 1);
            while (!work_left() && !atomic_load(&stopping)) pthread_cond_wait(&wake, &lock);
            atomic_fetch_sub(&sleepers, 1);
            pthread_mutex_unlock(&lock);
        }
        take_chunks();
    }
    return unused;
}

static void wake_sleepers(void) {
    pthread_mutex_lock(&lock);
    pthread_cond_broadcast(&wake);
    pthread_mutex_unlock(&lock);
}

int threads_start(int n) {
    if (n > MAX_THREADS) n = MAX_THREADS;
    for (n_threads = 1; n_threads < n; n_threads++)
        if (pthread_create(&threads[n_threads], NULL, worker, NULL)) break;
    return n_threads;
}

void threads_stop(void) {
    atomic_store(&stopping, 1);
    wake_sleepers();
    for (int i = 1; i < n_threads; i++) pthread_join(threads[i], NULL);
    n_threads = 1;
    atomic_store(&stopping, 0);
}

void parallel_for(int n, int chunk, Work *work, void *job) {
    int chunks = count_chunks(n, chunk);
    if (chunks <= 1 || n_threads == 1 || atomic_flag_test_and_set(&busy)) {
        if (n > 0) work(job, 0, n);
        return;
    }
    loop = (Loop){ work, job, n, chunk };
    atomic_store(&unfinished, chunks);
    unsigned long long loops = atomic_load(&ticket) >> 32;
    atomic_store(&ticket, (loops + 1) << 32 | (unsigned)chunks);
    if (atomic_load(&sleepers)) wake_sleepers();
    take_chunks();
    for (unsigned spin = 0; atomic_load(&unfinished); spin++) pause_a_little(spin);
    atomic_flag_clear(&busy);
}

#endif
