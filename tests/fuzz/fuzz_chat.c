// fuzz_chat.c - any bytes as a chat template: recognised or not, never more than read.
#include "../../model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    recognise_template((Text){ (const char *)data, size });
    return 0;
}
