// fail_malloc.c - put before libc, it lets one allocation of a program fail: the one whose number is in
// FAIL_MALLOC. How many there were it adds to the file in COUNT_MALLOC. What the end of a program allocates
// (gcov does) is not counted.
//
//   cc -shared -fPIC tests/fail_malloc.c -o fail_malloc.so
//   FAIL_MALLOC=3 LD_PRELOAD=./fail_malloc.so ./run model.gguf
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t),
     *__libc_memalign(size_t, size_t);                  // glibc's own
static atomic_long count;
static atomic_bool over;

static void end(void) {
    over = true;
    const char *path = getenv("COUNT_MALLOC");
    FILE *f = path ? fopen(path, "a") : NULL;
    if (f) fprintf(f, "%ld\n", count), fclose(f);
}

static bool fails(void) {
    if (over) return false;
    long number = ++count;
    if (number == 1) atexit(end);                       // what is asked for last is called first
    const char *text = getenv("FAIL_MALLOC");
    if (!text || number != atol(text)) return false;
    errno = ENOMEM;
    return true;
}

void *malloc(size_t n) { return fails() ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return fails() ? NULL : __libc_calloc(n, size); }
void *realloc(void *p, size_t n) { return fails() ? NULL : __libc_realloc(p, n); }
void *aligned_alloc(size_t alignment, size_t n) { return fails() ? NULL : __libc_memalign(alignment, n); }
