/* quant/run/budget.h: sizes that the model decides; `model_bits`, the budget of the whole folder.
 * docs/METHOD.md, "The budget of a whole model". */
#ifndef GPTVQ_QUANT_RUN_BUDGET_H
#define GPTVQ_QUANT_RUN_BUDGET_H

#include "quant/run/pipeline.h"

/* Chooses `bits` of the layers and, where they are not given, of embedding and head: of all choices whose
 * safetensors files keep within model_bits per parameter, headers included, the one whose predicted loss is
 * least. Without model_bits only those of embedding and head beside a trellis, where they are not given: as
 * many as lose least in a file of that size. GPTVQ_ERROR_ARGUMENT: there is none, or an option that changes
 * sizes later. */
gptvq_status gptvq_budget_settle(const gptvq_model *model, const gptvq_callbacks *callbacks,
                                 gptvq_resolved *options, gptvq_error *err);

#endif
