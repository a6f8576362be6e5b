/* checkpoint/output.h: output folders that appear whole or not at all, and the small files that travel
 * with a model. */
#ifndef GPTVQ_CHECKPOINT_OUTPUT_H
#define GPTVQ_CHECKPOINT_OUTPUT_H

#include "base/status.h"
#include "checkpoint/checkpoint.h"

/* Where a run writes: `work` becomes `path` when all is done. Zeroed before use.
 *
 * A work folder is marked by its state, resume.json: {"run": {"format", "gptvq_version", "command", …}, …}.
 * It is the first file written there and the last one removed. Just before the work folder becomes OUT its
 * state gets "complete": true and, in "replaces", the identity of the folder that OUT was before; so the next
 * run knows what a kill in the midst of it has left, and finishes it. Without these marks, and beside files
 * that gptvq does not write, nothing is removed or replaced. */
typedef struct gptvq_output {
  char *path;         /* OUT, without trailing slashes */
  char *work;         /* OUT.partial */
  char *aside;        /* OUT.replaced, for a moment, where the system cannot exchange two folders */
  const char *source; /* the input folder, whose side files travel along, or NULL; not owned */
  bool force;         /* an OUT that is there may be replaced */
  int lock;           /* file descriptor that holds the lock on the work folder, -1: none */
  bool published;     /* OUT is complete; at most tidying up is left */
} gptvq_output;

enum { GPTVQ_STATE_FORMAT = 6 };

/* Paths and the checks that need no work: OUT is neither the source folder nor around it; it does not exist,
 * or `force` is set and it holds a model and nothing else, or nothing (anything else is never replaced); its
 * parent exists. When OUT is a link to a folder, that folder is the output and the link stays. An interrupted
 * publication is finished first; with `resume` its state is kept for the caller, who sees `published` set and
 * calls gptvq_output_settle. GPTVQ_ERROR_IO or _ARGUMENT. The caller releases *out, also on failure. */
gptvq_status gptvq_output_check(const char *out_dir, const char *source_dir, int force, int resume,
                                gptvq_output *out, gptvq_error *err);
gptvq_status gptvq_output_settle(gptvq_output *out, gptvq_error *err);

/* Creates the work folder if it is not there and locks it. What an interrupted run left there is in *state
 * (new reference), NULL when nothing is; temporary files are removed. GPTVQ_ERROR_IO when another process
 * holds it, when it is no run's, or when it holds a file that no run has written. */
gptvq_status gptvq_output_open(gptvq_output *out, json_t **state, gptvq_error *err);
/* A fresh start in an open work folder: marked as `run`, and emptied. GPTVQ_ERROR_IO when the state `before`
 * (or NULL) counts finished blocks, unless `force` is set. */
gptvq_status gptvq_output_begin(const gptvq_output *out, const json_t *before, json_t *run, int force,
                                gptvq_error *err);
/* Both, for a command whose runs cannot be resumed. */
gptvq_status gptvq_output_start(gptvq_output *out, const char *command, int force, gptvq_error *err);

/* {"format", "gptvq_version", "command"} (new reference; NULL: out of memory) */
json_t *gptvq_output_run(const char *command);
/* FOLDER/resume.json: *state stays NULL when there is none; GPTVQ_ERROR_FORMAT when it is damaged or not
 * gptvq's. */
gptvq_status gptvq_output_read_state(const char *folder, json_t **state, gptvq_error *err);
gptvq_status gptvq_output_write_state(const gptvq_output *out, const json_t *state, gptvq_error *err);

/* GPTVQ_ERROR_IO when the file system has clearly less than `bytes` free. */
gptvq_status gptvq_output_check_space(const gptvq_output *out, uint64_t bytes, gptvq_error *err);
/* The work folder becomes OUT, without its state: an OUT that is there is exchanged in one step where the
 * system can do that, and then removed. GPTVQ_ERROR_IO when one has appeared that gptvq_output_check would
 * not let be replaced. What fails after that step is a warning. */
gptvq_status gptvq_output_publish(gptvq_output *out, const gptvq_callbacks *callbacks, gptvq_error *err);
/* Removes the work folder, unless it has been published or is not this run's. */
void gptvq_output_discard(gptvq_output *out);
void gptvq_output_release(gptvq_output *out);

/* "WORK/NAME" into path; GPTVQ_ERROR_IO when it is too long. */
enum { GPTVQ_PATH_MAX = 4096 };
gptvq_status gptvq_output_path(const gptvq_output *out, const char *name, char path[GPTVQ_PATH_MAX],
                               gptvq_error *err);

/* Copies the tokenizer, generation_config.json and the like: regular files *.json, *.model, *.txt, *.jinja of
 * at most 256 MiB, without config.json and index files. Bytes are copied unchanged. */
gptvq_status gptvq_copy_side_files(const char *from, const char *to, gptvq_error *err);

/* Hash of names and bytes of all these files. */
gptvq_status gptvq_hash_side_files(const char *folder, uint64_t *hash, gptvq_error *err);

/* Writes `json` indented, with a final newline. */
gptvq_status gptvq_write_json(const char *path, const json_t *json, gptvq_error *err);

/* One tensor as it is in the checkpoint. */
gptvq_status gptvq_declare_tensor(gptvq_st_writer *writer, const gptvq_tensor *tensor, gptvq_error *err);

#endif
