/* quant/pipeline_folder.h: output folders that appear whole or not at all, and the small files that travel
 * with a model. */
#ifndef GPTVQ_QUANT_PIPELINE_FOLDER_H
#define GPTVQ_QUANT_PIPELINE_FOLDER_H

#include "base/status.h"
#include "checkpoint/checkpoint.h"

/* Where a run writes: `work` becomes `path` when all is done. Zeroed before use. */
typedef struct gptvq_output {
  char *path; /* OUT, without trailing slashes */
  char *work; /* OUT.partial */
  int lock;   /* file descriptor that holds the lock on the work folder, -1: none */
} gptvq_output;

/* Paths and the checks that need no work: OUT is neither the source folder nor around it; it does not exist,
 * or `force` is set and it is a model folder or empty (anything else is never replaced); its parent exists.
 * When OUT is a link to a folder, that folder is the output and the link stays. GPTVQ_ERROR_IO or _ARGUMENT.
 * The caller releases *out, also on failure. */
gptvq_status gptvq_output_check(const char *out_dir, const char *source_dir, int force, gptvq_output *out,
                                gptvq_error *err);
/* Creates the work folder if it is not there and locks it. GPTVQ_ERROR_IO also when another process holds it.
 */
gptvq_status gptvq_output_open(gptvq_output *out, gptvq_error *err);
/* Removes files NAME.tmp.PID that a killed process left in the work folder (the lock says that nobody is
 * writing them). */
void gptvq_output_clean(const gptvq_output *out);
/* GPTVQ_ERROR_IO when the file system has clearly less than `bytes` free. */
gptvq_status gptvq_output_check_space(const gptvq_output *out, uint64_t bytes, gptvq_error *err);
/* The work folder becomes OUT: an OUT that is there is exchanged in one step where the system can do that,
 * and then removed. */
gptvq_status gptvq_output_publish(gptvq_output *out, gptvq_error *err);
/* Removes the work folder. */
void gptvq_output_discard(gptvq_output *out);
void gptvq_output_release(gptvq_output *out);

/* "WORK/NAME" into path; GPTVQ_ERROR_IO when it is too long. */
enum { GPTVQ_PATH_MAX = 4096 };
gptvq_status gptvq_output_path(const gptvq_output *out, const char *name, char path[GPTVQ_PATH_MAX],
                               gptvq_error *err);

/* Copies the tokenizer, generation_config.json and the like: regular files *.json, *.model, *.txt, *.jinja of
 * at most 256 MiB, without config.json and index files. Bytes are copied unchanged. */
gptvq_status gptvq_copy_side_files(const char *from, const char *to, gptvq_error *err);

/* Writes `json` indented, with a final newline. */
gptvq_status gptvq_write_json(const char *path, const json_t *json, gptvq_error *err);

/* One tensor as it is in the checkpoint. */
gptvq_status gptvq_declare_tensor(gptvq_st_writer *writer, const gptvq_tensor *tensor, gptvq_error *err);

#endif
