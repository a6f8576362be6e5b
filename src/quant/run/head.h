/* quant/run/head.h: the output head, or the embedding, as a packed uniform layer of 8 bits (docs/FORMAT.md,
 * section 4.5). */
#ifndef GPTVQ_QUANT_RUN_HEAD_H
#define GPTVQ_QUANT_RUN_HEAD_H

#include "model/model_internal.h"

/* Symmetric codes, scales of 256 columns each rounded up to fp16 (so that no code is cut off), zero points of
 * 128. The arrays of *packed lie in one block at *memory that the caller frees. GPTVQ_ERROR_MEMORY;
 * GPTVQ_ERROR_NUMERIC naming a row with NaN, infinity, or numbers that fp16 scales do not reach, and
 * `instead`, what to do. */
gptvq_status gptvq_pack_head(const gptvq_linear *head, const char *instead, gptvq_packed *packed,
                             void **memory, gptvq_error *err);

#endif
