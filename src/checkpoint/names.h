/* checkpoint/names.h: what tensors of a folder are called outside of its blocks, in the standard form
 * (docs/FORMAT.md, section 3.1). Names inside a block: the families' files in model/arch/. */
#ifndef GPTVQ_CHECKPOINT_NAMES_H
#define GPTVQ_CHECKPOINT_NAMES_H

#define GPTVQ_NAME_PREFIX "model."
#define GPTVQ_NAME_EMBEDDING GPTVQ_NAME_PREFIX "embed_tokens" /* .weight, as of the next two */
#define GPTVQ_NAME_FINAL_NORM GPTVQ_NAME_PREFIX "norm"
#define GPTVQ_NAME_HEAD "lm_head"
#define GPTVQ_NAME_BLOCKS GPTVQ_NAME_PREFIX "layers." /* N.NAME */

#endif
