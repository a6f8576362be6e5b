/* text/judge.h: warnings about texts that are hardly what their user thinks they are. */
#ifndef GPTVQ_TEXT_JUDGE_H
#define GPTVQ_TEXT_JUDGE_H

#include <gptvq/tokenizer.h>

#include "base/status.h"

#include <stdbool.h>

/* What gptvq_text_judge has to say goes to the log as a warning; was there anything? */
bool gptvq_text_warn(const gptvq_callbacks *callbacks, const char *name, const char *text, size_t size,
                     const int32_t *ids, size_t count);

#endif
