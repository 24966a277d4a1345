// system.c - all that is asked of the operating system: memory from files, clocks, processors, signals. POSIX
// first, Windows after it; the rest of the program is plain C and pthreads.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE                                     // sched_getaffinity
#endif
#define _FILE_OFFSET_BITS 64                            // more than 2 GB, where addresses have 32 bits
#include "model.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// ---------------------------------------------------------------------------- clocks

static uint64_t nanoseconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

double seconds(void) { return 1e-9 * (double)nanoseconds(CLOCK_MONOTONIC); }
double processor_seconds(void) { return 1e-9 * (double)nanoseconds(CLOCK_PROCESS_CPUTIME_ID); }
uint64_t time_of_day(void) { return nanoseconds(CLOCK_REALTIME); }

// ---------------------------------------------------------------------------- interrupts

volatile sig_atomic_t interrupted;

static void interrupt(int number) { if (interrupted != SIGTERM) interrupted = number; }

#ifndef _WIN32
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

void catch_interrupts(bool restart) {
    int flags = (int)SA_RESETHAND | (restart ? SA_RESTART : 0);
    sigaction(SIGINT, &(struct sigaction){ .sa_handler = interrupt, .sa_flags = flags }, NULL);
    sigaction(SIGTERM, &(struct sigaction){ .sa_handler = interrupt, .sa_flags = flags }, NULL);
}

// A shell goes on with its loop unless the program dies of the signal itself: a status of 130 is not enough.
int end_by_signal(int number) {
    signal(number, SIG_DFL);
    raise(number);
    return 128 + number;                                // where the signal is blocked
}

// ---------------------------------------------------------------------------- files

enum { MAX_WATCHED = 4 };                              // more than a run maps
static struct { Bytes file; int fd; char sentence[1024]; } watched[MAX_WATCHED];

static int find_watched(const uint8_t *data) {          // -1: not there
    int i = MAX_WATCHED - 1;
    while (i >= 0 && watched[i].file.data != data) i--;
    return i;
}

void watch_file(Bytes file, const char *sentence) {
    int i = find_watched(file.data);
    if (i >= 0) snprintf(watched[i].sentence, sizeof watched[i].sentence, "%s\n", sentence);
}

// What has been cut off a mapped file is a bus error to who reads it. Any other bus error is the system's.
static void bus_error(int number, siginfo_t *info, void *context) {
    static atomic_flag told = ATOMIC_FLAG_INIT;
    (void)context;
    for (int i = 0; i < MAX_WATCHED; i++) {
        size_t at = (uintptr_t)info->si_addr - (uintptr_t)watched[i].file.data;
        size_t n = strlen(watched[i].sentence);
        if (at >= watched[i].file.size || n == 0) continue;
        while (atomic_flag_test_and_set(&told)) pause();            // another thread says it, and ends all
        _exit(write(2, watched[i].sentence, n) < 0 ? 1 : 1);
    }
    signal(number, SIG_DFL);
}

static const char *map_open_file(Bytes *file, int fd) {
    struct stat st;
    if (fstat(fd, &st)) return strerror(errno);
    if (S_ISDIR(st.st_mode)) return "a directory, not a file; export.py converts a model's folder";
    if (!S_ISREG(st.st_mode)) return "not a regular file: it cannot be mapped into memory";
    if (st.st_size == 0) return "an empty file";
    if ((uintmax_t)st.st_size > SIZE_MAX / 2) return "larger than the addresses of this machine";
    void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED)
        return errno == ENOMEM ? "too large for this process to map into its memory" : strerror(errno);
    *file = (Bytes){ data, (size_t)st.st_size };
    return NULL;
}

const char *map_file(Bytes *file, const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);     // a pipe without a writer holds nobody up
    if (fd < 0) return strerror(errno);
    const char *error = map_open_file(file, fd);
    int i = find_watched(NULL);
    if (error || i < 0) return close(fd), error;        // the mapping stays
    watched[i].file = *file, watched[i].fd = fd, watched[i].sentence[0] = 0;
    sigaction(SIGBUS, &(struct sigaction){ .sa_sigaction = bus_error, .sa_flags = SA_SIGINFO }, NULL);
    return NULL;
}

void unmap_file(Bytes file) {
    if (!file.data) return;
    munmap((void *)(uintptr_t)file.data, file.size);
    int i = find_watched(file.data);
    if (i < 0) return;
    close(watched[i].fd);
    watched[i].file = (Bytes){ NULL, 0 };
}

// What is cut off the last page reads as zeros, and no bus error tells of it.
const char *shortened_file(void) {
    struct stat st;
    for (int i = 0; i < MAX_WATCHED; i++)
        if (watched[i].file.data && !fstat(watched[i].fd, &st) && (size_t)st.st_size < watched[i].file.size)
            return watched[i].sentence;
    return NULL;
}

FILE *open_file(const char *path, const char *mode) { return fopen(path, mode); }
bool file_exists(const char *path) { return access(path, F_OK) == 0; }

// A device may be many things at once.
bool same_file(const char *a, const char *b) {
    struct stat x, y;
    return a && b && stat(a, &x) == 0 && stat(b, &y) == 0 && S_ISREG(x.st_mode) && x.st_dev == y.st_dev &&
           x.st_ino == y.st_ino;
}

int folder_length(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? (int)(slash - path) + 1 : 0;
}

// ---------------------------------------------------------------------------- the process

// The first file that is opened must not take the place of a standard stream that is closed. (Read only:
// writing to it fails, and is reported.) A pipe whose reader has left fails as well, and does not kill.
char **prepare_process(int argc, char **argv) {
    (void)argc;
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDONLY) < 0) exit(1);
    signal(SIGPIPE, SIG_IGN);
    return argv;
}

bool is_terminal(int stream) { return isatty(stream); }

bool has_text(int stream) {
    struct stat st;
    return fstat(stream, &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISREG(st.st_mode));
}

#ifdef __APPLE__
#include <mach-o/dyld.h>
#include <sys/sysctl.h>

static bool own_path(char path[PATH_MAX]) { return _NSGetExecutablePath(path, &(uint32_t){ PATH_MAX }) == 0; }
enum { MAXRSS_UNIT = 1 };                               // of ru_maxrss: bytes here, elsewhere kilobytes

bool cpu_has_sdot(void) {
    int has = 0;
    return !sysctlbyname("hw.optional.arm.FEAT_DotProd", &has, &(size_t){ sizeof has }, NULL, 0) && has;
}
#else
static bool own_path(char path[PATH_MAX]) { return readlink("/proc/self/exe", path, PATH_MAX - 1) > 0; }
enum { MAXRSS_UNIT = 1024 };
#endif

const char *program_folder(void) {
    static char path[PATH_MAX];
    memset(path, 0, sizeof path);
    if (!own_path(path)) return NULL;
    path[folder_length(path)] = 0;
    return path;
}

size_t peak_memory(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (size_t)usage.ru_maxrss * MAXRSS_UNIT;
}

#ifdef __linux__
#include <sched.h>

// The first number of a file, and with `second` the second; "max" is -1, which means no limit.
static bool read_numbers(const char *path, double *first, double *second) {
    char text[64] = "";
    FILE *f = fopen(path, "r");
    if (!f) return false;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    if (n > 3 && !strncmp(text, "max", 3)) memcpy(text, " -1", 3);
    return second ? sscanf(text, "%lf %lf", first, second) == 2 : sscanf(text, "%lf", first) == 1;
}

// The least share that a group grants, or one above it: cpu.max in version 2 of control groups, two files in
// version 1. Where a container sees its own part of the groups alone, the outermost folder is its group.
static double least_share(const char *root, const char *folder, const char *group) {
    double least = HUGE_VAL, quota, period;
    char path[PATH_MAX + 64], inner[PATH_MAX];
    snprintf(inner, sizeof inner, "%s", group);
    for (char *end = inner + strlen(inner); end; end = strrchr(inner, '/')) {
        *end = 0;
        int n = snprintf(path, PATH_MAX, "%s/%s%s", root, folder, inner);
        if (n < 0 || n >= PATH_MAX) continue;
        strcpy(path + n, "/cpu.max");
        bool found = read_numbers(path, &quota, &period);
        strcpy(path + n, "/cpu.cfs_quota_us");
        if (!found && read_numbers(path, &quota, NULL)) {
            strcpy(path + n, "/cpu.cfs_period_us");
            found = read_numbers(path, &period, NULL);
        }
        if (found && quota > 0 && period > 0) least = fmin(least, quota / period);
    }
    return least;
}

// "cpu" is one of "cpu,cpuacct".
static bool lists_cpu(const char *controllers) {
    for (const char *c = controllers; c; c = strchr(c, ',')) {
        c += *c == ',';
        if (!strncmp(c, "cpu", 3) && (!c[3] || c[3] == ',')) return true;
    }
    return false;
}

double cgroup_processors(const char *groups, const char *root) {
    double least = HUGE_VAL;
    char line[PATH_MAX + 256];
    FILE *f = fopen(groups, "r");
    while (f && fgets(line, sizeof line, f)) {          // hierarchy:controllers:group; version 2: 0::group
        char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group) continue;
        *group++ = 0, controllers++;
        group[strcspn(group, "\n")] = 0;
        bool v2 = !*controllers;
        if (!v2 && !lists_cpu(controllers)) continue;
        least = fmin(least, least_share(root, v2 ? "" : controllers, group));
        least = fmin(least, least_share(root, v2 ? "unified" : "cpu", group));
    }
    if (f) fclose(f);
    return least;
}

int processors_available(void) {
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) ? (int)sysconf(_SC_NPROCESSORS_ONLN) : CPU_COUNT(&set);
    double share = ceil(cgroup_processors("/proc/self/cgroup", "/sys/fs/cgroup"));
    return share < n ? (int)share : n;
}

#else
double cgroup_processors(const char *groups, const char *root) { return (void)groups, (void)root, HUGE_VAL; }
int processors_available(void) { return (int)sysconf(_SC_NPROCESSORS_ONLN); }
#endif

#if defined __linux__ && defined __aarch64__
#include <sys/auxv.h>
bool cpu_has_sdot(void) { return getauxval(AT_HWCAP) & HWCAP_ASIMDDP; }
#elif !defined __APPLE__
bool cpu_has_sdot(void) { return false; }
#endif

#else // ---------------------------------------------------------------------- Windows
#define BYTE WindowsByte                                // model.h has another BYTE
#include <windows.h>
#include <fcntl.h>
#include <io.h>
#include <psapi.h>
#include <shellapi.h>

enum { LONGEST_PATH = 4096 };

void catch_interrupts(bool restart) {                   // here, too, a second one is the system's
    (void)restart;
    signal(SIGINT, interrupt);
    signal(SIGTERM, interrupt);
}

int end_by_signal(int number) { return 128 + number; }

// Names are UTF-8 here, and UTF-16 there.
static const wchar_t *wide_path(wchar_t wide[LONGEST_PATH], const char *path) {
    return MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide, LONGEST_PATH) ? wide : L"";
}

static bool narrow_path(char *path, int size, const wchar_t *wide) {
    return WideCharToMultiByte(CP_UTF8, 0, wide, -1, path, size, NULL, NULL);
}

static const char *last_error(void) {
    static char text[256];
    DWORD flags = FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS;
    DWORD code = GetLastError(), n = FormatMessageA(flags, NULL, code, 0, text, sizeof text, NULL);
    while (n && (text[n - 1] == '\n' || text[n - 1] == '\r' || text[n - 1] == '.')) text[--n] = 0;
    return n ? text : "an error of the system";
}

static HANDLE open_to_read(const char *path) {
    wchar_t wide[LONGEST_PATH];
    DWORD share = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
    DWORD flags = FILE_FLAG_BACKUP_SEMANTICS;           // folders as well
    return CreateFileW(wide_path(wide, path), GENERIC_READ, share, NULL, OPEN_EXISTING, flags, NULL);
}

static const char *map_open_file(Bytes *file, HANDLE handle) {
    BY_HANDLE_FILE_INFORMATION info;
    if (GetFileType(handle) != FILE_TYPE_DISK) return "not a regular file: it cannot be mapped into memory";
    if (!GetFileInformationByHandle(handle, &info)) return last_error();
    uint64_t size = (uint64_t)info.nFileSizeHigh << 32 | info.nFileSizeLow;
    if (info.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY)
        return "a directory, not a file; export.py converts a model's folder";
    if (size == 0) return "an empty file";
    if (size > SIZE_MAX / 2) return "larger than the addresses of this machine";
    HANDLE mapping = CreateFileMappingW(handle, NULL, PAGE_READONLY, 0, 0, NULL);
    void *data = mapping ? MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0) : NULL;
    const char *error = data ? NULL : last_error();
    if (mapping) CloseHandle(mapping);
    if (data) *file = (Bytes){ data, (size_t)size };
    return error;
}

const char *map_file(Bytes *file, const char *path) {
    HANDLE handle = open_to_read(path);
    if (handle == INVALID_HANDLE_VALUE) return last_error();
    const char *error = map_open_file(file, handle);
    CloseHandle(handle);                                // the mapping stays
    return error;
}

// Nobody can cut a mapped file short: the system refuses it.
void watch_file(Bytes file, const char *sentence) { (void)file, (void)sentence; }
void unmap_file(Bytes file) { if (file.data) UnmapViewOfFile(file.data); }
const char *shortened_file(void) { return NULL; }

FILE *open_file(const char *path, const char *mode) {
    wchar_t wide[LONGEST_PATH], wide_mode[8];
    MultiByteToWideChar(CP_UTF8, 0, mode, -1, wide_mode, 8);
    return _wfopen(wide_path(wide, path), wide_mode);
}

bool file_exists(const char *path) {
    wchar_t wide[LONGEST_PATH];
    return GetFileAttributesW(wide_path(wide, path)) != INVALID_FILE_ATTRIBUTES;
}

static bool identify(BY_HANDLE_FILE_INFORMATION *info, const char *path) {
    HANDLE handle = path ? open_to_read(path) : INVALID_HANDLE_VALUE;
    bool good = handle != INVALID_HANDLE_VALUE && GetFileInformationByHandle(handle, info);
    if (handle != INVALID_HANDLE_VALUE) CloseHandle(handle);
    return good;
}

bool same_file(const char *a, const char *b) {
    BY_HANDLE_FILE_INFORMATION x, y;
    return identify(&x, a) && identify(&y, b) && x.dwVolumeSerialNumber == y.dwVolumeSerialNumber &&
           x.nFileIndexHigh == y.nFileIndexHigh && x.nFileIndexLow == y.nFileIndexLow;
}

int folder_length(const char *path) {
    int n = (int)strlen(path);
    while (n && !strchr("/\\:", path[n - 1])) n--;
    return n;
}

// Bytes pass the standard streams as they are, terminals show UTF-8, and arguments come as UTF-8.
char **prepare_process(int argc, char **argv) {
    for (int stream = 0; stream <= 2; stream++) _setmode(stream, _O_BINARY);
    SetConsoleOutputCP(CP_UTF8);
    int n;
    wchar_t **wide = CommandLineToArgvW(GetCommandLineW(), &n);
    for (int i = 0; wide && n == argc && i < n; i++) {
        int size = WideCharToMultiByte(CP_UTF8, 0, wide[i], -1, NULL, 0, NULL, NULL);
        char *text = malloc((size_t)size + 1);
        if (text && narrow_path(text, size, wide[i])) argv[i] = text;
    }
    LocalFree(wide);
    return argv;
}

bool is_terminal(int stream) { return _isatty(stream); }

bool has_text(int stream) {
    DWORD type = GetFileType((HANDLE)_get_osfhandle(stream));
    return type == FILE_TYPE_DISK || type == FILE_TYPE_PIPE;
}

const char *program_folder(void) {
    static char path[LONGEST_PATH];
    wchar_t wide[LONGEST_PATH];
    DWORD n = GetModuleFileNameW(NULL, wide, LONGEST_PATH);
    if (!n || n == LONGEST_PATH || !narrow_path(path, sizeof path, wide)) return NULL;
    path[folder_length(path)] = 0;
    return path;
}

size_t peak_memory(void) {
    PROCESS_MEMORY_COUNTERS counters = { .cb = sizeof counters };
    GetProcessMemoryInfo(GetCurrentProcess(), &counters, sizeof counters);
    return counters.PeakWorkingSetSize;
}

int processors_available(void) {
    DWORD_PTR own = 0, all;
    GetProcessAffinityMask(GetCurrentProcess(), &own, &all);
    return __builtin_popcountll(own);
}

double cgroup_processors(const char *groups, const char *root) { return (void)groups, (void)root, HUGE_VAL; }
bool cpu_has_sdot(void) { return IsProcessorFeaturePresent(PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE); }
#endif
