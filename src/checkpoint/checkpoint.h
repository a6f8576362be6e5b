/* checkpoint/checkpoint.h: a Hugging Face model folder: config.json, safetensors (single or sharded), packed
 * layers. */
#ifndef GPTVQ_CHECKPOINT_CHECKPOINT_H
#define GPTVQ_CHECKPOINT_CHECKPOINT_H

#include "base/status.h"
#include "kernels/kernels.h"
#include <jansson.h>

/* ---- safetensors ---- */
typedef enum gptvq_tensor_type { /* element types that safetensors names; sizes in gptvq_tensor_type_size */
                                 GPTVQ_T_F32,
                                 GPTVQ_T_F16,
                                 GPTVQ_T_BF16,
                                 GPTVQ_T_F64,
                                 GPTVQ_T_I8,
                                 GPTVQ_T_U8,
                                 GPTVQ_T_I16,
                                 GPTVQ_T_U16,
                                 GPTVQ_T_I32,
                                 GPTVQ_T_U32,
                                 GPTVQ_T_I64,
                                 GPTVQ_T_U64,
                                 GPTVQ_T_BOOL,
                                 GPTVQ_T_F8, /* e4m3 */
                                 GPTVQ_T_OTHER
} gptvq_tensor_type;
size_t gptvq_tensor_type_size(gptvq_tensor_type type); /* bytes; 0 for OTHER */
const char *gptvq_tensor_type_name(gptvq_tensor_type type);
/* false: not a type of weights (F32, F16, BF16) */
bool gptvq_tensor_dtype(gptvq_tensor_type type, gptvq_dtype *dtype);

enum { GPTVQ_MAX_RANK = 8 };

typedef struct gptvq_tensor {
  const char *name; /* owned by the checkpoint */
  const char *file; /* path of the file that holds it, for messages */
  gptvq_tensor_type type;
  size_t rank, dims[GPTVQ_MAX_RANK];
  size_t count, bytes;
  const char
      *stored; /* what the file has where that is not `type`: "fp64", "fp8", "mxfp4", "Q4_K"; else NULL */
  size_t file_bytes;   /* what that takes there, else `bytes` */
  const uint8_t *data; /* in the mapping, aligned only as the file has it, or the checkpoint's own */
} gptvq_tensor;

/* ---- a folder ---- */
typedef struct gptvq_checkpoint gptvq_checkpoint;

/* FOLDER may be a GGUF file too: checkpoint/gguf.h. Opens config.json and model.safetensors, or the shards
 * that model.safetensors.index.json lists (which a packed folder goes by in any case), maps them, validates
 * every header: sizes, offsets in range, no overlaps and no holes, shapes × type = bytes, index and shards
 * agree. Tensors are then known by standard names and types (docs/FORMAT.md, section 3.1): those of a model
 * without "model." before its parts get it, F64 is fp32, and fp8 with scales bf16. callbacks hear warnings;
 * may be NULL, and are not kept. */
gptvq_status gptvq_checkpoint_open(const char *folder, const gptvq_callbacks *callbacks,
                                   gptvq_checkpoint **out, gptvq_error *err);
void gptvq_checkpoint_close(gptvq_checkpoint *checkpoint); /* NULL is fine */
const char *gptvq_checkpoint_folder(const gptvq_checkpoint *checkpoint);
const json_t *gptvq_checkpoint_config(const gptvq_checkpoint *checkpoint); /* parsed config.json, an object */
const json_t *gptvq_checkpoint_generation_config(const gptvq_checkpoint *checkpoint); /* or NULL */

size_t gptvq_checkpoint_tensor_count(const gptvq_checkpoint *checkpoint);
const gptvq_tensor *gptvq_checkpoint_tensor_at(const gptvq_checkpoint *checkpoint,
                                               size_t i); /* sorted by name */
const gptvq_tensor *gptvq_checkpoint_find(const gptvq_checkpoint *checkpoint,
                                          const char *name); /* NULL: absent */

/* Are its weights those of an original: no quantization_config, or one that only says in what numbers they
 * lie there (fp8, MXFP4)? */
bool gptvq_checkpoint_is_original(const gptvq_checkpoint *checkpoint);
/* `config`, which becomes the checkpoint's, in the place of config.json. */
void gptvq_checkpoint_set_config(gptvq_checkpoint *checkpoint, json_t *config);
/* How tensors of all experts of a layer, PREFIX.experts.gate_up_proj and PREFIX.experts.down_proj, are laid
 * out. */
typedef enum gptvq_experts_layout {
  GPTVQ_EXPERTS_APART,   /* there are none */
  GPTVQ_EXPERTS_STACKED, /* [experts, rows, cols], rows of gate above those of up */
  GPTVQ_EXPERTS_WOVEN /* gpt-oss: rows of gate and up alternate; [experts, cols, rows], or codes of MXFP4 in
                         …_blocks [experts, rows, cols / 32, 16] and …_scales; with …_bias [experts, rows] */
} gptvq_experts_layout;
/* Those become PREFIX.experts.E.gate_proj.weight, up_proj.weight, down_proj.weight and .bias, in memory of
 * the checkpoint's own where they do not lie so in the file (MXFP4 as bf16, which holds its numbers exactly);
 * tensors that were found before are no longer valid. Once for a checkpoint. GPTVQ_ERROR_FORMAT: other
 * shapes, no scales, or a name is there twice. */
gptvq_status gptvq_checkpoint_split_experts(gptvq_checkpoint *checkpoint, gptvq_experts_layout layout,
                                            gptvq_error *err);

/* Matrices of which one tensor, a layer's PREFIX + ending, holds the rows: groups, each with so many rows of
 * each section one after the other. PREFIX + parts[0] is made of the first sections, PREFIX + parts[1] of the
 * rest: of every section the rows of all groups, section below section. */
enum { GPTVQ_WOVEN_SECTIONS = 4 };
typedef struct gptvq_woven {
  const char *ending, *parts[2];
  size_t groups, rows[GPTVQ_WOVEN_SECTIONS], first_sections;
} gptvq_woven;
/* They take the place of the tensor, in memory of the checkpoint's own; tensors that were found before are no
 * longer valid. Once for a checkpoint. GPTVQ_ERROR_FORMAT: another number of rows, or a name is there twice.
 */
gptvq_status gptvq_checkpoint_unweave(gptvq_checkpoint *checkpoint, const gptvq_woven *kinds, size_t count,
                                      gptvq_error *err);

/* Bytes of all tensors in the files. */
uint64_t gptvq_checkpoint_bytes(const gptvq_checkpoint *checkpoint);
/* Forgets the tensors whose keep[] is false; the numbers of others change. */
void gptvq_checkpoint_keep(gptvq_checkpoint *checkpoint, const bool *keep);

/* A floating tensor (F32, F16, BF16) of exactly these dims. GPTVQ_ERROR_FORMAT naming file and tensor:
 * missing, wrong shape (both shapes in the message); GPTVQ_ERROR_UNSUPPORTED: another dtype. */
gptvq_status gptvq_checkpoint_get(const gptvq_checkpoint *checkpoint, const char *name, size_t rank,
                                  const size_t *dims, const gptvq_tensor **out, gptvq_dtype *dtype,
                                  gptvq_error *err);
/* GPTVQ_ERROR_NUMERIC naming file, tensor and place (row and column of a matrix) of the first NaN or
 * infinity. Threaded; as fast as the file can be read. */
gptvq_status gptvq_tensor_check_finite(const gptvq_tensor *tensor, gptvq_error *err);
/* Are numbers at … at + n of the tensor finite? For passes that read it for another reason too. */
bool gptvq_tensor_is_finite(const gptvq_tensor *tensor, size_t at, size_t n);

/* ---- packed layers (docs/FORMAT.md) ---- */
/* Layers and folders are written in the oldest version that knows what is in them; the last one is the
 * newest. */
enum {
  GPTVQ_FORMAT_VERSION_PLAIN = 1,
  GPTVQ_FORMAT_VERSION_FACTORED = 2, /* svd_rank > 0 */
  GPTVQ_FORMAT_VERSION_TRELLIS = 3,
  GPTVQ_FORMAT_VERSION = GPTVQ_FORMAT_VERSION_TRELLIS
};
/* Is there a packed layer of that name (NAME.indices)? */
bool gptvq_checkpoint_has_packed(const gptvq_checkpoint *checkpoint, const char *name);
typedef struct gptvq_packed_info {
  char method[16];
  double error;   /* relative layer error, NaN if unknown */
  uint64_t bytes; /* of all its tensors */
} gptvq_packed_info;
/* Views into the mapping, plus a small heap block (*owned: permutation widened to u32, codebooks made from
 * their factors, aligned copies of what the file misaligns) that the caller frees with free(). Everything is
 * validated: shape against metadata, every array's dtype and size, permutation a permutation, finite scales.
 */
gptvq_status gptvq_checkpoint_get_packed(const gptvq_checkpoint *checkpoint, const char *name,
                                         gptvq_packed *packed, gptvq_packed_info *info, void **owned,
                                         gptvq_error *err);

/* ---- writing ---- */
/* One safetensors file: declare all tensors in order, then write their bytes in the same order. Appears whole
 * on commit. */
typedef struct gptvq_st_writer gptvq_st_writer;
gptvq_status gptvq_st_writer_create(const char *path, gptvq_st_writer **out, gptvq_error *err);
gptvq_status gptvq_st_writer_declare(gptvq_st_writer *writer, const char *name, gptvq_tensor_type type,
                                     size_t rank, const size_t *dims, gptvq_error *err);
gptvq_status gptvq_st_writer_metadata(gptvq_st_writer *writer, const char *key, const char *value,
                                      gptvq_error *err);
/* the next declared tensor's bytes, in one or more calls; the first call ends the declarations */
gptvq_status gptvq_st_writer_write(gptvq_st_writer *writer, const void *data, size_t bytes, gptvq_error *err);
/* Both release the writer. Commit fails (GPTVQ_ERROR_INTERNAL) when bytes are missing. */
gptvq_status gptvq_st_writer_commit(gptvq_st_writer *writer, gptvq_error *err);
void gptvq_st_writer_abort(gptvq_st_writer *writer);

/* A packed layer in two steps, in the same order of layers; metadata carries shape, method and error as JSON
 * under the key "gptvq.NAME". */
gptvq_status gptvq_packed_declare(gptvq_st_writer *writer, const char *name, const gptvq_packed *packed,
                                  const char *method, double error, gptvq_error *err);
gptvq_status gptvq_packed_write(gptvq_st_writer *writer, const gptvq_packed *packed, gptvq_error *err);

/* Files as hubs name them: "model-00002-of-00005.safetensors" for shard 1 of 5; "model.safetensors" of 1. */
enum { GPTVQ_SHARD_NAME = 64 };
void gptvq_shard_name(size_t shard, size_t count, char name[GPTVQ_SHARD_NAME]);

/* model.safetensors.index.json for the listed shard files (names relative to the folder), from their headers.
 */
gptvq_status gptvq_write_index(const char *folder, const char *const *shards, size_t count, gptvq_error *err);
/* The same for the first `written` of `count` shards that are named as above. */
gptvq_status gptvq_write_numbered_index(const char *folder, size_t written, size_t count, gptvq_error *err);

#endif
