/* gguf/ggml.h: the element types of GGUF files: blocks of values, row after row (ggml's ggml-common.h and
 * ggml-quants.c have the layouts). */
#ifndef GPTVQ_GGUF_GGML_H
#define GPTVQ_GGUF_GGML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Numbers of ggml_type: those that are read; export/ writes the first, F16, Q8_0 and BF16. */
typedef enum gptvq_ggml_type {
  GPTVQ_GGML_F32 = 0,
  GPTVQ_GGML_F16 = 1,
  GPTVQ_GGML_Q4_0 = 2,
  GPTVQ_GGML_Q4_1 = 3,
  GPTVQ_GGML_Q5_0 = 6,
  GPTVQ_GGML_Q5_1 = 7,
  GPTVQ_GGML_Q8_0 = 8, /* blocks of 32: an fp16 scale and 32 int8 codes */
  GPTVQ_GGML_Q2_K = 10,
  GPTVQ_GGML_Q3_K = 11,
  GPTVQ_GGML_Q4_K = 12,
  GPTVQ_GGML_Q5_K = 13,
  GPTVQ_GGML_Q6_K = 14,
  GPTVQ_GGML_IQ4_NL = 20,
  GPTVQ_GGML_IQ4_XS = 23,
  GPTVQ_GGML_BF16 = 30
} gptvq_ggml_type;
enum { GPTVQ_Q8_0_VALUES = 32, GPTVQ_Q8_0_BYTES = 34 };

/* "Q4_K"; NULL: a number that ggml does not have. */
const char *gptvq_ggml_name(uint32_t type);
/* Values and bytes of a block (1 and 2 or 4 of floating types); false: not a type that is read. */
bool gptvq_ggml_block(uint32_t type, size_t *values, size_t *bytes);
/* Bytes of a row of n values, whole blocks, of a type that is read. */
size_t gptvq_ggml_row_bytes(gptvq_ggml_type type, size_t n);

/* n values, whole blocks, as fp32: equal to ggml's in every bit. data: aligned as it comes. */
void gptvq_ggml_decode(gptvq_ggml_type type, const uint8_t *data, size_t n, float *out);

#endif
