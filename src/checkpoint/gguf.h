/* checkpoint/gguf.h: a GGUF file in the place of a folder. */
#ifndef GPTVQ_CHECKPOINT_GGUF_H
#define GPTVQ_CHECKPOINT_GGUF_H

#include "checkpoint/checkpoint_internal.h"

/* Opens checkpoint->folder, a GGUF file: its metadata as config, its tensors under the names and in the
 * layout of a Hugging Face folder, as the one of its files. Those in blocks become F16, in memory of the
 * checkpoint's own; F32 ones become what the embedding is, where that holds them exactly. */
gptvq_status gptvq_checkpoint_open_gguf(gptvq_checkpoint *checkpoint, gptvq_error *err);

#endif
