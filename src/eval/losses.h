/* eval/losses.h: sums over the logits of a prediction, in double, compiled once per CPU level
 * (multi/losses.c). Sums run in 8 fixed lanes: the same bits at every level. */
#ifndef GPTVQ_EVAL_LOSSES_H
#define GPTVQ_EVAL_LOSSES_H

#include "base/multi.h"

#include <stddef.h>

/* Σ exp(x − shift), no x above shift; NaN where an x is. Each within 2 ulp, those below exp(−700) as large as
 * that. */
GPTVQ_MULTI_DECLARE(double, gptvq_exp_total, size_t n, const float *x, double shift);
/* KL(A ‖ B) = Σ p_A (log p_A − log p_B) of distributions that are given as logits and log Σ exp of these */
GPTVQ_MULTI_DECLARE(double, gptvq_divergence, size_t n, const float *a, double total_a, const float *b,
                    double total_b);

#endif
