// test_system.c - what the operating system is asked: files as memory, and files that change; a container's
// share of the processors, in every layout of Linux's control groups; clocks, memory.
#include "test.h"
#include <errno.h>
#include <math.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char folder[64] = P_tmpdir "/prenorm-test-XXXXXX", path[1024];

static const char *write_file(const char *name, const char *bytes, size_t n) {
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    bool good = f && fwrite(bytes, 1, n, f) == n;
    good = f && fclose(f) == 0 && good;
    CHECK(good, "cannot write %s", path);
    return path;
}

// ---------------------------------------------------------------------------- files

// The refusal has to contain a word that tells what is wrong.
static void check_unmappable(const char *name, const char *word) {
    Bytes file = { NULL, 0 };
    const char *error = map_file(&file, name);
    CHECK(error && strstr(error, word), "%s: expected a refusal with '%s', got %s", name, word,
          error ? error : "a file");
    CHECK(!file.data && !file.size, "%s: refused, but mapped", name);
    unmap_file(file);                                   // harmless, then
}

static void test_mapping(void) {
    Bytes file;
    const char *error = map_file(&file, write_file("file", "good\0 bytes", 11));
    CHECK(!error, "a good file: %s", error);
    CHECK(file.size == 11 && !memcmp(file.data, "good\0 bytes", 11), "%zu other bytes", file.size);
    unlink(path);
    CHECK(file.data[0] == 'g', "the bytes are gone with the name");
    unmap_file(file);

    check_unmappable(path, strerror(ENOENT));
    check_unmappable(folder, "directory");
    check_unmappable(write_file("file", "", 0), "empty");
    check_unmappable("/dev/null", "regular");
    if (!SANITIZED) {                                   // which take more room for themselves than this
        struct rlimit before, small;
        getrlimit(RLIMIT_AS, &before);
        small = before, small.rlim_cur = (rlim_t)1 << 28;
        CHECK(!truncate(write_file("file", "x", 1), (off_t)1 << 40), "no file of 1 TB to try");
        setrlimit(RLIMIT_AS, &small);
        check_unmappable(path, "map");
        setrlimit(RLIMIT_AS, &before);
    }
    unlink(path);
    CHECK(!mkfifo(path, 0600), "no pipe to try");
    alarm(10);                                          // nobody writes to it, but an answer has to come
    check_unmappable(path, "regular");
    alarm(0);
    unlink(path);
}

static void test_shortened(void) {
    Bytes files[6];
    for (int i = 0; i < 6; i++) {                       // more than are watched: the rest is mapped as well
        const char *error = map_file(&files[i], write_file("file", "some bytes", 10));
        CHECK(!error, "file %d: %s", i, error);
        watch_file(files[i], i == 2 ? "the third" : "another");
        if (i != 2) unlink(path);
        else CHECK(!rename(path, strcat(strcpy(path + 512, path), "2")), "not renamed");
    }
    CHECK(!shortened_file(), "no file has changed: %s", shortened_file());
    CHECK(!truncate(path + 512, 12) && !shortened_file(), "one has grown: %s", shortened_file());
    CHECK(!truncate(path + 512, 9), "not cut");
    const char *said = shortened_file();
    CHECK(said && !strcmp(said, "the third\n"), "expected 'the third', got %s", said ? said : "nothing");
    for (int i = 0; i < 6; i++) unmap_file(files[i]);
    CHECK(!shortened_file(), "it is mapped no more");
    unlink(path + 512);
}

static void test_names(void) {
    CHECK(folder_length("a/b/c") == 4 && folder_length("c") == 0 && folder_length("/c") == 1, "folders");
    char other[1100];
    write_file("file", "x", 1);
    snprintf(other, sizeof other, "%s/./file", folder);
    CHECK(file_exists(path) && same_file(path, other) && !same_file(path, folder), "one file by two names");
    CHECK(!same_file(path, NULL) && !same_file("/dev/null", "/dev/null"), "a device may be many things");
    unlink(path);
    CHECK(!file_exists(path) && !same_file(path, other), "it is gone");
    const char *here = program_folder();
    CHECK(here && here[strlen(here) - 1] == '/' && file_exists(here), "this program's folder: %s", here);
}

// ---------------------------------------------------------------------------- control groups

static void make_file(const char *name, const char *text) {
    char whole[1024];
    snprintf(whole, sizeof whole, "%s/%s", folder, name);
    for (char *slash = whole + strlen(folder) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = 0;
        mkdir(whole, 0700);
        *slash = '/';
    }
    write_file(name, text, strlen(text));
}

// Files are a list of name, text, ..., NULL. Expected values: the quota by the period, as the kernel's
// documentation has it (admin-guide/cgroup-v2.rst; scheduler/sched-bwc.rst for version 1).
static void check_share(double expected, const char *const *files, const char *what) {
    char groups[128], root[128], command[160];
    for (int i = 0; files[i]; i += 2) make_file(files[i], files[i + 1]);
    snprintf(groups, sizeof groups, "%s/groups", folder);
    snprintf(root, sizeof root, "%s/fs", folder);
    double got = cgroup_processors(groups, root);
    CHECK(got == expected, "%s: expected %g processors, got %g", what, expected, got);
    snprintf(command, sizeof command, "rm -rf %s/groups %s/fs", folder, folder);
    CHECK(!system(command), "%s", command);
}
#define SHARE(expected, ...) check_share(expected, (const char *const[]){ __VA_ARGS__, NULL }, #__VA_ARGS__)

static void test_groups(void) {
#ifdef __linux__
    SHARE(HUGE_VAL, "fs/x", "");                        // no control groups at all
    // version 2: alone, and in a container, which sees its own group as the root
    SHARE(2, "groups", "0::/a/b\n", "fs/a/b/cpu.max", "200000 100000\n");
    SHARE(1.5, "groups", "0::/a/b\n", "fs/a/b/cpu.max", "max 100000\n", "fs/a/cpu.max", "150000 100000\n");
    SHARE(0.5, "groups", "0::/\n", "fs/cpu.max", "50000 100000\n");
    SHARE(HUGE_VAL, "groups", "0::/a\n", "fs/a/cpu.max", "max 100000\n");
    SHARE(HUGE_VAL, "groups", "0::/a\n", "fs/b/cpu.max", "100000 100000\n");        // another's
    // version 1: folders by the controllers, alone or several
    SHARE(3, "groups", "4:cpu:/\n", "fs/cpu/cpu.cfs_quota_us", "300000\n",
          "fs/cpu/cpu.cfs_period_us", "100000\n");
    SHARE(0.25, "groups", "4:memory:/a\n3:cpu,cpuacct:/docker/abc\n0::/\n",
          "fs/cpu,cpuacct/cpu.cfs_quota_us", "25000\n", "fs/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    SHARE(2, "groups", "3:cpuacct,cpu:/a\n", "fs/cpu/a/cpu.cfs_quota_us", "100000\n",
          "fs/cpu/a/cpu.cfs_period_us", "50000\n");
    SHARE(HUGE_VAL, "groups", "3:cpu:/\n", "fs/cpu/cpu.cfs_quota_us", "-1\n",
          "fs/cpu/cpu.cfs_period_us", "100000\n");
    SHARE(HUGE_VAL, "groups", "3:cpuset:/\n2:cpuacct:/\n", "fs/cpu/cpu.cfs_quota_us", "100000\n",
          "fs/cpu/cpu.cfs_period_us", "100000\n");      // cpu is not among them
    SHARE(HUGE_VAL, "groups", "3:cpu:/\n", "fs/cpu/cpu.cfs_quota_us", "100000\n");  // no period
    // both: version 2 lies in a folder of its own, and the least share counts
    SHARE(1, "groups", "3:cpu:/a\n0::/b\n", "fs/cpu/a/cpu.cfs_quota_us", "400000\n",
          "fs/cpu/a/cpu.cfs_period_us", "100000\n", "fs/unified/b/cpu.max", "100000 100000\n");
    SHARE(4, "groups", "3:cpu:/a\n0::/b\n", "fs/cpu/a/cpu.cfs_quota_us", "400000\n",
          "fs/cpu/a/cpu.cfs_period_us", "100000\n", "fs/unified/b/cpu.max", "max 100000\n");
    // what nobody should write
    SHARE(HUGE_VAL, "groups", "nonsense\n::\n0:\n0::/a\n", "fs/a/cpu.max", "nonsense\n");
    SHARE(HUGE_VAL, "groups", "0::/a\n", "fs/a/cpu.max", "100000 0\n");
    SHARE(HUGE_VAL, "groups", "0::/a\n", "fs/a/cpu.max", "");
#endif
    CHECK(processors_available() >= 1, "%d processors", processors_available());
}

// ---------------------------------------------------------------------------- clocks and memory

static void test_numbers(void) {
    double started = seconds(), used = processor_seconds();
    size_t before = peak_memory(), size = (size_t)64 << 20;
    volatile char *memory = malloc(size);
    CHECK(memory, "no 64 MB");
    for (size_t i = 0; i < size; i += 1024) memory[i] = 1;
    CHECK(peak_memory() >= before + size / 2 && peak_memory() < 4000000000u, "%zu bytes, and %zu before",
          peak_memory(), before);
    CHECK(seconds() > started && processor_seconds() > used, "a clock stands still");
    CHECK(processor_seconds() - used < 2 * (seconds() - started) + 0.1, "one thread had two processors");
    CHECK(time_of_day() / 1000000000 - (uint64_t)time(NULL) + 2 < 4, "another time than time()'s");
    free((void *)memory);
}

int main(void) {
    CHECK(mkdtemp(folder), "no folder to write to: %s", folder);
    test_mapping();
    test_shortened();
    test_names();
    test_groups();
    test_numbers();
    rmdir(folder);
    return finish("test_system");
}
