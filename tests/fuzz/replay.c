// replay.c - every file of a folder once through a fuzz target, without a fuzzer: what it found stays found.
//
//     cc tests/fuzz/replay.c tests/fuzz/fuzz_chat.c ... -o replay && ./replay tests/fuzz/corpus/chat
#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv);   // which not every target has
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_BYTES = 1 << 20 };

// The bytes are on the heap, and no more of them than there are, so that a sanitizer sees who reads beyond.
static bool replay(const char *path) {
    static uint8_t buffer[MAX_BYTES];
    FILE *file = fopen(path, "rb");
    if (!file) return false;
    size_t size = fread(buffer, 1, sizeof buffer, file);
    fclose(file);
    uint8_t *data = malloc(size ? size : 1);
    if (!data) return false;
    for (size_t i = 0; i < size; i++) data[i] = buffer[i];
    LLVMFuzzerTestOneInput(data, size);
    free(data);
    return true;
}

int main(int argc, char **argv) {
    DIR *folder = argc == 2 ? opendir(argv[1]) : NULL;
    if (!folder) {
        fprintf(stderr, "usage: replay FOLDER\n");
        return 2;
    }
    if (LLVMFuzzerInitialize) LLVMFuzzerInitialize(&argc, &argv);
    int n = 0;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL; n++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", argv[1], entry->d_name);
        if (entry->d_name[0] == '.') n--;
        else if (!replay(path)) return perror(path), 1;
    }
    closedir(folder);
    fprintf(stderr, "%s: %d inputs replayed\n", argv[1], n);
    return n == 0;
}
