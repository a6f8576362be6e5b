/* checkpoint/output_files.h: which files of a folder gptvq may remove, replace or publish: those that a
 * model, or a run in progress, consists of. Everything else is somebody's own and stays. */
#ifndef GPTVQ_CHECKPOINT_OUTPUT_FILES_H
#define GPTVQ_CHECKPOINT_OUTPUT_FILES_H

#include "base/status.h"

#include <stdbool.h>

/* What a run keeps in its work folder beside the model: its state, which is also the mark of a work folder,
 * sampled calibration tokens, and a folder of shards. */
#define GPTVQ_STATE_NAME "resume.json"
#define GPTVQ_TOKENS_NAME "calibration.tokens"
#define GPTVQ_FINETUNED_NAME "finetuned"
/* The model card of a packed folder. */
#define GPTVQ_CARD_NAME "README.md"
/* How it was made and judged (checkpoint/record.h). */
#define GPTVQ_RECORD_NAME "gptvq.json"

/* *.json, *.model, *.txt and *.jinja, without config.json, index files and what gptvq itself keeps: what is
 * copied from a model folder beside its weights. */
bool gptvq_is_side_file(const char *name);

/* The first entry of `folder` (by name) that is not part of a model, into *foreign (malloc'd), or NULL.
 * Parts of a model are config.json, safetensors under the names that gptvq and Hugging Face give them with
 * their index, the usual side files, and side files under names that `source` (a model folder or NULL) has
 * too. In a `work` folder what a run keeps there is no foreigner either, nor is a temporary file of any. */
gptvq_status gptvq_find_foreign(const char *folder, const char *source, bool work, char **foreign,
                                gptvq_error *err);

/* Removes what gptvq_find_foreign would not name from a work folder: all of it but the state, or only
 * temporary files. */
gptvq_status gptvq_remove_work(const char *folder, const char *source, bool only_temporary, gptvq_error *err);

/* Removes a subfolder of a work folder, if it is there. GPTVQ_ERROR_IO when a foreigner is in it. */
gptvq_status gptvq_remove_subfolder(const char *folder, gptvq_error *err);

/* Does the folder hold nothing but temporary files of the state, as when a run was killed at its first
 * write? */
bool gptvq_is_unused_work(const char *folder);

#endif
