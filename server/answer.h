/* server/answer.h: what a job's tokens say, up to a stop text. */
#ifndef GPTVQ_SERVER_ANSWER_H
#define GPTVQ_SERVER_ANSWER_H

#include "server/job.h"

/* Shows the prompt to the text stream: what a token looks like may depend on those before it. */
gptvq_status gptvq_answer_begin(gptvq_job *job, const gptvq_tokenizer *tokenizer, gptvq_error *err);
/* Appends a token that was generated, and its text. *stopped: a stop text ends the answer, which is cut
 * before it. What could be the beginning of one is not `ready` yet. */
gptvq_status gptvq_answer_add(gptvq_job *job, int32_t id, bool *stopped, gptvq_error *err);
/* The end of the stream's text. */
gptvq_status gptvq_answer_flush(gptvq_job *job, bool *stopped, gptvq_error *err);

#endif
