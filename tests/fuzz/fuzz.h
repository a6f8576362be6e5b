/* tests/fuzz/fuzz.h: the entry point that libFuzzer and driver.c call. */
#ifndef GPTVQ_TESTS_FUZZ_H
#define GPTVQ_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
