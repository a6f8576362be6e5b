/* quant/plan/ceiling.h: sizes of a model's layers within `bits`. docs/METHOD.md, "The ceiling". */
#ifndef GPTVQ_QUANT_PLAN_CEILING_H
#define GPTVQ_QUANT_PLAN_CEILING_H

#include "model/model_internal.h"
#include "quant/options/options.h"

/* Where `bits` is to be kept within (options->ceiling): the longest index, and the smallest groups with it,
 * of which all linears of the model together store at most so many bits per weight, counted exactly; what of
 * the two is given stays. With a trellis the most bits of the stream, and, where `allocate` is open, whether
 * layers get sizes of their own; vectors where `code` is open and that is less than the whole part of `bits`,
 * all layers of one size. Otherwise nothing changes. GPTVQ_ERROR_ARGUMENT: nothing fits; the message
 * says the smallest size. */
gptvq_status gptvq_ceiling_settle(const gptvq_model *model, gptvq_resolved *options, gptvq_error *err);

#endif
