/* model/linear.h: applying several linears at once, with scratch memory that outlives the call. */
#ifndef GPTVQ_MODEL_LINEAR_H
#define GPTVQ_MODEL_LINEAR_H

#include "model/model_internal.h"

/* Memory for decoded panels and prepared inputs. Grows to what the largest call needs and is then reused: a
 * token loop allocates nothing after its first token. Zero-initialise; release with free(data). */
typedef struct gptvq_scratch {
  void *data;
  size_t bytes;
  bool alone; /* each token gets the numbers that it has in a call by itself, whatever n: each pass over the
                 weights is shared, but takes more arithmetic than the ways for many tokens */
} gptvq_scratch;

/* Up to this many tokens use the matrix × vector kernels, which give each the numbers that it has alone; when
 * inputs are int8 codes, up to gptvq_packed_few_tokens. */
enum { GPTVQ_MATVEC_TOKENS = 4 };

/* Bytes of scratch that gptvq_linears_forward takes for `count` linears of at most max_cols inputs and n
 * tokens. */
size_t gptvq_linears_scratch(size_t count, size_t max_cols, size_t n, gptvq_compute compute);

/* Y[n][offset[i] …] = X Wᵢᵀ + bᵢ for i < count <= GPTVQ_MAX_PARTS, all reading the same X[n × cols]; one
 * parallel region for all. Strides in elements. Results do not depend on the number of threads. BF16 and INT8
 * round X to bf16 for dense layers, and for many tokens also weights that are stored otherwise, BF16 for many
 * tokens those of packed layers too; INT8 takes X as int8 codes for packed layers where there are kernels.
 * GPTVQ_ERROR_MEMORY. */
gptvq_status gptvq_linears_forward(const gptvq_linear *const *linears, const size_t *offsets, size_t count,
                                   gptvq_compute compute, size_t n, const float *x, size_t ldx, float *y,
                                   size_t ldy, gptvq_scratch *scratch, gptvq_error *err);

#endif
