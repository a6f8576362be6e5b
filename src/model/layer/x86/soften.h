/* model/layer/x86/soften.h: the softmax step of attention in bf16 (attention_bf16.c) with AVX-512. */
#ifndef GPTVQ_MODEL_LAYER_X86_SOFTEN_H
#define GPTVQ_MODEL_LAYER_X86_SOFTEN_H

#include "model/layer/vector.h"

/* weights[count] = exp(scores − maximum) rounded to bf16, their sum before that is added to the run; where
 * the maximum rises, sum and out[dim] are brought down to it. As gptvq_attend_soften and gptvq_to_bf16 do it,
 * but for an error of 3e-6 in the exponentials. weights may be the scores' memory. */
void gptvq_soften_bf16_avx512(size_t count, const float *scores, gptvq_softmax *run, size_t dim, float *out,
                              uint16_t *weights);

#endif
