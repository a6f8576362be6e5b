/* gptvq/gptvq.h: everything. */
#ifndef GPTVQ_GPTVQ_H
#define GPTVQ_GPTVQ_H
#include <gptvq/status.h>
#include <gptvq/context.h>
#include <gptvq/tokenizer.h>
#include <gptvq/chat.h>
#include <gptvq/model.h>
#include <gptvq/eval.h>
#include <gptvq/quantize.h>
#include <gptvq/team.h>
#include <gptvq/layer.h>
#endif
