/* gptvq/quantize.h: compress a model folder into a packed one. */
#ifndef GPTVQ_QUANTIZE_H
#define GPTVQ_QUANTIZE_H

#include <gptvq/model.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum gptvq_method {
  GPTVQ_METHOD_GPTVQ = 0, /* vector quantization with error feedback (arXiv 2402.15319) */
  GPTVQ_METHOD_GPTQ,      /* uniform, with error feedback (arXiv 2210.17323) */
  GPTVQ_METHOD_RTN,       /* uniform, round to nearest, no data */
  GPTVQ_METHOD_KMEANS     /* k-means vector quantization, no data */
} gptvq_method;

/* "gptvq", "gptq", "rtn", "kmeans" */
GPTVQ_API const char *gptvq_method_name(gptvq_method method);

/* What the codes of gptvq and kmeans are. */
typedef enum gptvq_code {
  GPTVQ_CODE_AUTO = 0, /* TRELLIS, or VQ where other options ask for vectors or for a size that no trellis
                        * has; resolved options have one of the other two */
  GPTVQ_CODE_VQ,       /* an index per sub-vector, a codebook per group */
  GPTVQ_CODE_TRELLIS /* a bit stream per row of which every weight sees a window; a table per column group, a
                      * scale per row and column group */
} gptvq_code;
/* "auto", "vq", "trellis" */
GPTVQ_API const char *gptvq_code_name(gptvq_code code);

/* Index bits and group sizes: the same for all layers, or layer by layer, by measured sensitivity. */
typedef enum gptvq_allocate_sizes {
  GPTVQ_ALLOCATE_UNIFORM = 0,
  GPTVQ_ALLOCATE_SENSITIVITY,
  GPTVQ_ALLOCATE_AUTO
} gptvq_allocate_sizes;

typedef enum gptvq_em_init { GPTVQ_INIT_MAHALANOBIS = 0, GPTVQ_INIT_KMEANSPP, GPTVQ_INIT_CDF } gptvq_em_init;
/* "mahalanobis", "kmeans++", "cdf" */
GPTVQ_API const char *gptvq_em_init_name(gptvq_em_init init);

/* 0 means "derive it" where so noted. */
typedef struct gptvq_quantize_options {
  size_t size;
  gptvq_method method;
  double bits;            /* of a model's linears together at most so many stored bits per weight, exactly:
                           * chooses k and l, of a trellis the sizes of its layers. With `nominal`, and for a
                           * matrix alone (gptvq/layer.h), as papers count: indices and codebooks (and scales)
                           * of whole groups of l. 0: use those below; where both are given they decide */
  unsigned dim;           /* d: 1, 2, 4 (VQ); 0 = 2, or 1 of a trellis and of uniform methods */
  unsigned index_bits;    /* log2 k, 0 = from bits */
  size_t group_size;      /* l, weights per codebook (VQ) or per scale (uniform); 0 = from bits */
  size_t group_cols;      /* columns per VQ group, 256 */
  unsigned codebook_bits; /* 8 or 16 */
  unsigned scale_block;   /* N_s: block-wise scales every N_s weights, 0 = none */
  gptvq_em_init em_init;
  unsigned em_iterations;   /* at most; 100 */
  int hessian_weights;      /* 1: E- and M-step weighted by the Hessian */
  int exact_metric;         /* 1: d × d block metric and feedback; 0: its diagonal, as the published code */
  int feedback;             /* 1: error feedback */
  int codebook_update;      /* 1: optimise codebooks on the layer loss afterwards */
  unsigned reassign_rounds; /* rounds of (update, coordinate-descent re-assignment) at most */
  int act_order; /* by descending H_ii: 0 off, 1 columns (permutation stored), 2 whole groups and sub-vectors
                  * (nothing stored) */
  int true_sequential; /* 1: each layer sees the quantized outputs of the layers before it inside the block */
  double damping;      /* fraction of the mean diagonal of H, 0.01 */
  const char *calib; /* text file, or "self" (and NULL): sampled from the model itself. Several, a line each,
                      * share the windows by their weights: "FILE:WEIGHT", any numbers above 0 up to 1e6, 1
                      * without; a path that itself ends like that needs a weight behind it */
  size_t calib_samples; /* windows, 64 */
  size_t calib_length;  /* tokens per window; 0 = 2048, where no layer has more than 2048 inputs 1024, or the
                         * model's context if smaller */
  uint64_t seed;
  int force;  /* replace an existing output folder, if it is a model and nothing else */
  int resume; /* continue a killed run in the output folder */
  /* Fine-tuning of codebooks, uniform scales, norms and biases by back-propagation; needs calibration data.
   */
  size_t finetune_steps; /* Adam steps on the whole model against the original's predictions, at the end; 0 =
                            none */
  size_t finetune_block_steps; /* on each block against the original block's outputs, as soon as it is
                                  quantized; 0 = none */
  size_t finetune_batch;       /* windows per step, 4 */
  double finetune_rate; /* learning rate relative to a codebook's rms value, 0.004; half of it for norms and
                           biases */
  double finetune_index_rate; /* the same for the weights behind the VQ indices; 0 = indices stay */
  unsigned beam; /* partial assignments kept per row in the GPTVQ loop (1 to 64); 1: greedy, as published. Of
                  * a trellis: half as many for each of its prefixes, 1 to 4 */
  double mismatch; /* 0 … 1: share by which each layer makes up for its inputs' deviation from the original
                    * model's (with true_sequential only; twice the activations and forward passes) */
  double mismatch_stream; /* 0 … 1: the same for the residual stream's deviation, by o_proj and down_proj */
  double guide; /* 0 … 1: calibration tokens are weighted by (squared gradient of the loss by the layer's
                 * outputs)^guide; 0 = equally */
  int allocate; /* gptvq_allocate_sizes. SENSITIVITY (GPTVQ only): within `bits` all together; vectors with
                 * `nominal` within the bytes that equal sizes would take; AUTO (default): that with a trellis
                 * whose `bits` leave something to choose, else UNIFORM */
  unsigned head_bits; /* of the output head's codes in the file: 3 to 8; 16: as the original has it; 0
                         (default): with a trellis as many, from 4 on, as lose least in a file of that size,
                         as with `model_bits`, else 16. A head that is the embedding's matrix is packed with
                         it, by either option: where one is given, 0 of the other follows it */
  unsigned svd_rank;  /* R > 0: the codebooks of a layer, a matrix of one row per group, are stored as int8
                       * factors of rank R (dim 1, at most 256 centroids, no fine-tuning; layers with fewer
                       * groups than R: that many). codebook_bits is then the precision of the codebooks that
                       * the factors are multiplied out to; 0 (default): none */
  gptvq_compute calib_compute; /* of the calibration passes and of what is summed over their inputs: FP32;
                                * BF16 (inputs of products rounded, sums in fp32 and double), which takes a
                                * processor with AVX512-BF16, or `device` cuda;
                                * AUTO (default): BF16 where it can be had */
  size_t judge_tokens; /* of held-out text, and as many that the model writes, by which the result is judged
                        * at the end (the report's `loss_text` and `loss_self`); at most a quarter of what it
                        * is calibrated on; 4096; 0 = none */
  double calib_self;   /* 0 to 0.99: share of the windows that the model writes itself where `calib` names
                        * texts, but not "self"; 0.5 */
  size_t memory_limit; /* bytes of resident memory that a run keeps within, which changes how often it runs
                        * through the windows and what lies in a scratch file, not what it writes (but for
                        * what the model writes where caches exceed it or 4 GiB); 0: what is available */
  gptvq_code code;     /* VQ, or TRELLIS: then index_bits is the most of 2 to 4 that bits has room for, dim 1;
                        * group_size, scale_block, svd_rank and em_init are not used, codebook_bits is 8; with
                        * allocate layers share what is left of bits. AUTO (default): TRELLIS for bits of 2 to
                        * 4.45, without allocate only from such a size, some 0.04 above 2, 3 and 4, up to 0.45
                        * above; VQ otherwise, with uniform methods, and where one of dim, index_bits,
                        * group_size, scale_block, svd_rank, codebook_bits, em_init and finetune_index_rate is
                        * not at its default; with model_bits the one whose predicted loss is less */
  const char *device;  /* where calibration and the solver run: "cpu" (and NULL), "cuda" or "cuda:N", a card;
                        * "auto", the first card that will do, else the CPU; "shim", a card's kernels on the
                        * CPU, for tests. No part of a run's identity: `resume` may change it, where the
                        * precision of the calibration stays. docs/GPU.md */
  unsigned embedding_bits; /* as head_bits, of the embedding */
  double model_bits; /* > 0: the model's safetensors files take at most so many bits per parameter: chooses
                      * bits, index_bits and group_size, code where it is AUTO, and embedding_bits and
                      * head_bits where they are 0, when the model is known; 0 (default): they are as given */
  int nominal;       /* 1: `bits` as papers name sizes, 0 (default): a ceiling of what is stored */
} gptvq_quantize_options;

/* One of the parts that the time of a run falls into. */
typedef struct gptvq_stage_time {
  const char *name; /* static storage */
  double seconds, cpu_seconds;
  double flop; /* of its matrix products and factorisations, not of look-ups, a trellis' paths and the
                * additions of the codebook update; 0: none */
} gptvq_stage_time;
enum { GPTVQ_MAX_STAGES = 16 };

/* What was lost on some windows of text. tokens 0: not measured. */
typedef struct gptvq_quantize_loss {
  uint64_t tokens; /* predictions */
  int seen;        /* 1: on windows that the model was calibrated on, as the text was too short for others */
  double kl, kl_stderr; /* mean KL(original ‖ quantized), nats per token */
  double perplexity_before, perplexity;
} gptvq_quantize_loss;

typedef struct gptvq_quantize_report {
  size_t size;
  uint64_t linear_values, linear_bytes;
  double bits_per_value; /* exact, from the bytes written */
  double mean_error;     /* mean over layers of the relative layer error ‖WX − QX‖² / ‖WX‖² */
  double seconds;
  uint64_t peak_bytes; /* peak resident memory of the process */
  size_t layers, blocks_resumed;
  /* KL divergence per token, nats, before and after fine-tuning, on windows held out of it (of a text too
   * short for any, which a warning says, on those it was trained on); both NaN without it */
  double finetune_before, finetune_after;
  double cpu_seconds; /* of all threads */
  size_t stage_count;
  gptvq_stage_time stages[GPTVQ_MAX_STAGES]; /* their times sum up to the run's */
  gptvq_quantize_loss loss_text, loss_self;  /* on the calibration texts; on what the model itself writes */
  gptvq_compute calib_compute;   /* what the calibration ran in: FP32 or BF16; AUTO without calibration */
  uint64_t estimated_peak_bytes; /* what peak_bytes was expected to be; 0: not known */
  /* [expert_blocks × experts]: calibration tokens that reached each expert; UINT64_MAX in blocks that have
   * none, or that an interrupted run had finished. NULL: a model without experts, or no data. The caller
   * releases it with gptvq_free. */
  uint64_t *expert_tokens;
  size_t expert_blocks, experts;
  size_t ranks; /* processes that worked on it (gptvq/team.h) */
  /* what they sent each other for the blocks, all together, and for the block with most; a broadcast counts
   * once for each that gets it */
  uint64_t sent_bytes, sent_bytes_block;
  char device[32]; /* "cpu", "shim", "cuda:0": where calibration and solver ran, as far as it has functions
                    * for them
                    */
  double stage_device_seconds[GPTVQ_MAX_STAGES]; /* of each stage's seconds those that the device took; on the
                                                  * CPU 0 */
  /* What `seconds`, and those of each stage, were expected to be (as gptvq_quantize_plan); 0: not known, as
   * of a run on a device, by several processes, resumed, or so short that measuring the machine does not pay.
   */
  double estimated_seconds, stage_estimated_seconds[GPTVQ_MAX_STAGES];
  /* of each stage's flop those in bf16 and in double, as on the CPU; the rest is in fp32 */
  double stage_bf16_flop[GPTVQ_MAX_STAGES], stage_double_flop[GPTVQ_MAX_STAGES];
} gptvq_quantize_report;
static inline void gptvq_quantize_report_init(gptvq_quantize_report *report) { GPTVQ_INIT(report); }

/* What gptvq_quantize would make and take. */
typedef struct gptvq_plan_phase {
  const char *name; /* static storage */
  uint64_t bytes;   /* of resident memory at its peak; 0: there is no such phase */
} gptvq_plan_phase;
enum { GPTVQ_MAX_PHASES = 8 };
typedef struct gptvq_quantize_plan {
  size_t size;
  uint64_t linear_values, output_bytes; /* of the tensors; headers and side files aside */
  uint64_t limit_bytes, peak_bytes;     /* limit 0: not known */
  uint64_t least_bytes;                 /* the smallest memory_limit that would do */
  uint64_t scratch_bytes;               /* of disk, for activations that memory has no room for */
  size_t phase_count;
  gptvq_plan_phase phases[GPTVQ_MAX_PHASES];
  double seconds; /* with the context's threads; reading, writing and fine-tuning of blocks are not in it */
  size_t stage_count;
  gptvq_stage_time stages[GPTVQ_MAX_STAGES]; /* cpu_seconds 0 */
  double bits; /* stored bits per value of the layers, exact; with `allocate` what they take at most */
  unsigned embedding_bits, head_bits; /* 16: as they are; those of a tied pair are the same */
  const char *format;                 /* "vq", "trellis" or "uniform"; static storage */
  int allocates;                      /* layers have sizes of their own */
} gptvq_quantize_plan;
static inline void gptvq_quantize_plan_init(gptvq_quantize_plan *plan) { GPTVQ_INIT(plan); }

typedef enum gptvq_recipe {
  GPTVQ_RECIPE_DEFAULT = 0, /* the best known: what gptvq_quantize_options_init gives */
  GPTVQ_RECIPE_PAPER        /* the published algorithm, everything that goes beyond it off */
} gptvq_recipe;
/* "default", "paper" */
GPTVQ_API const char *gptvq_recipe_name(gptvq_recipe recipe);
/* GPTVQ_ERROR_ARGUMENT: no such name; *recipe stays as it is. */
GPTVQ_API gptvq_status gptvq_recipe_from_name(const char *name, gptvq_recipe *recipe, gptvq_error *err);

/* All members within options->size; what the next two begin with. */
GPTVQ_API void gptvq_quantize_options_fill(gptvq_quantize_options *options, gptvq_recipe recipe);
static inline void gptvq_quantize_options_recipe(gptvq_quantize_options *options, gptvq_recipe recipe) {
  GPTVQ_INIT(options);
  gptvq_quantize_options_fill(options, recipe);
}
static inline void gptvq_quantize_options_init(gptvq_quantize_options *options) {
  gptvq_quantize_options_recipe(options, GPTVQ_RECIPE_DEFAULT);
}

/* Resolves bits/dim into index_bits and group_size for a layer of unlimited size, as with `nominal`, and
 * checks every member: what a run makes of `bits` follows from its model, too (gptvq_quantize_plan_make).
 * GPTVQ_ERROR_ARGUMENT with an explanation and the nearest possible sizes otherwise. */
GPTVQ_API gptvq_status gptvq_quantize_options_resolve(gptvq_quantize_options *options, gptvq_error *err);

/* ---- The options as data: what the command line, its help and docs/CLI.md are made from ---- */
typedef enum gptvq_field_type {
  GPTVQ_FIELD_SWITCH = 0, /* int, 0 or not 0; JSON: true or false */
  GPTVQ_FIELD_INT,        /* int */
  GPTVQ_FIELD_UNSIGNED,   /* unsigned */
  GPTVQ_FIELD_SIZE,       /* size_t */
  GPTVQ_FIELD_SEED,       /* uint64_t, any value */
  GPTVQ_FIELD_DOUBLE,     /* double */
  GPTVQ_FIELD_ENUM,       /* an enum; JSON: the name of the choice */
  GPTVQ_FIELD_TEXT,       /* const char *, not copied; NULL: none */
  GPTVQ_FIELD_BYTES,      /* size_t; as text perhaps with K, M, G or T: times 2^10, 2^20, 2^30, 2^40 */
  GPTVQ_FIELD_WORD        /* as TEXT, but never several lines */
} gptvq_field_type;
/* "switch", "int", "unsigned", "size", "seed", "double", "enum", "text", "bytes", "word" */
GPTVQ_API const char *gptvq_field_type_name(gptvq_field_type type);

/* Does a run with another value count as another run? (--resume refuses; packed folders say the value) */
typedef enum gptvq_field_identity {
  GPTVQ_IDENTITY_NONE = 0,
  GPTVQ_IDENTITY_ALWAYS,
  GPTVQ_IDENTITY_NONZERO, /* as ALWAYS, but `absent` is left out */
  GPTVQ_IDENTITY_DATA     /* of methods that take calibration data */
} gptvq_field_identity;
/* "none", "always", "nonzero", "data" */
GPTVQ_API const char *gptvq_field_identity_name(gptvq_field_identity identity);

/* One member of gptvq_quantize_options. Static storage. */
typedef struct gptvq_field {
  size_t size;      /* of this struct in the library */
  const char *name; /* of the member, and in JSON; messages of the library quote it `like_this` */
  gptvq_field_type type;
  size_t offset;              /* of the member in the struct, bytes */
  double min, max;            /* numbers without choices; inclusive */
  double initial, paper;      /* values in the two recipes; SEED 0, TEXT and WORD NULL */
  const char *derived;        /* not NULL: 0 is possible too and means this, such as "from --bits" */
  const char *const *choices; /* not NULL: names of the values 0, 1, …; NULL-terminated */
  gptvq_field_identity identity;
  const char *section;  /* headline in the help; "": at its head */
  const char *flag;     /* on the command line, without dashes */
  const char *argument; /* what the help calls the value; NULL for switches */
  const char *help;     /* one or more lines, without the default */
  double absent;        /* of NONZERO: what a folder means that does not say the value; 0 of most */
} gptvq_field;

/* "20G": a number of bytes, perhaps with a fraction and one of K, M, G, T (powers of 1024).
 * GPTVQ_ERROR_ARGUMENT: it is none. */
GPTVQ_API gptvq_status gptvq_bytes_from_text(const char *text, size_t *bytes, gptvq_error *err);

/* Number `index` of them, from 0; NULL: there are not so many. */
GPTVQ_API const gptvq_field *gptvq_quantize_field(size_t index);

/* By name of the member. Values are numbers or names of choices; a text is not copied and must outlive the
 * options. GPTVQ_ERROR_ARGUMENT, and nothing changed: no such option, or not a value in its range. */
GPTVQ_API gptvq_status gptvq_quantize_options_set(gptvq_quantize_options *options, const char *name,
                                                  const char *value, gptvq_error *err);
/* The present value as text that gptvq_quantize_options_set takes; GPTVQ_ERROR_ARGUMENT when it does not fit
 * into value[size]. */
GPTVQ_API gptvq_status gptvq_quantize_options_get(const gptvq_quantize_options *options, const char *name,
                                                  char *value, size_t size, gptvq_error *err);

/* MODEL_DIR is left untouched; OUT_DIR appears complete or, when interrupted, stays as OUT_DIR.partial for
 * resume. Nothing fails any more once it has appeared. Files that gptvq has not written are neither removed
 * from OUT_DIR or OUT_DIR.partial nor published: GPTVQ_ERROR_IO names the first. GPTVQ_ERROR_NUMERIC before
 * any work: NaN or infinity in a tensor (named, with row and column), weights that fp16 scales of uniform
 * codes do not hold; later: activations that overflow. GPTVQ_ERROR_CANCELLED: the message says so where
 * finished blocks are left to resume, and where they are. callbacks and report may be NULL. */
GPTVQ_API gptvq_status gptvq_quantize(const char *model_dir, const char *out_dir,
                                      const gptvq_quantize_options *options, const gptvq_callbacks *callbacks,
                                      gptvq_quantize_report *report, gptvq_error *err);

/* Reads the headers of the model's files (an fp8 folder, widened on opening, whole) and measures this machine
 * for two seconds; writes nothing. The calib text is not opened. Errors as gptvq_quantize of options and
 * model. callbacks may be NULL. */
GPTVQ_API gptvq_status gptvq_quantize_plan_make(const char *model_dir, const gptvq_quantize_options *options,
                                                const gptvq_callbacks *callbacks, gptvq_quantize_plan *plan,
                                                gptvq_error *err);

/* De-quantizes PACKED_DIR into a Hugging Face folder of bf16 weights at OUT_DIR (whole or not at all). What
 * an interrupted export has left at OUT_DIR.partial is removed. */
GPTVQ_API gptvq_status gptvq_export_hf(const char *packed_dir, const char *out_dir, int force,
                                       const gptvq_callbacks *callbacks, gptvq_error *err);

/* How matrices are stored in a GGUF file; vectors are fp32. */
typedef enum gptvq_gguf_type {
  GPTVQ_GGUF_AUTO = 0, /* Q8_0 where rows are whole blocks of 32 columns, else F16 */
  GPTVQ_GGUF_F16,
  GPTVQ_GGUF_BF16,
  GPTVQ_GGUF_Q8_0 /* the same as AUTO, but other rows are an error */
} gptvq_gguf_type;

/* Writes the model of MODEL_DIR, packed or not, as a GGUF file for llama.cpp, tokenizer and chat template
 * included (whole or not at all). A file that is there is replaced only with `force`.
 * GPTVQ_ERROR_UNSUPPORTED: a family or a tokenizer that llama.cpp would run otherwise; GPTVQ_ERROR_NUMERIC:
 * values beyond the range of fp16 (named). callbacks may be NULL. */
GPTVQ_API gptvq_status gptvq_export_gguf(const char *model_dir, const char *out_file, gptvq_gguf_type type,
                                         int force, const gptvq_callbacks *callbacks, gptvq_error *err);

/* Writes one HTML page that needs nothing else (no network, no scripts) about packed_dirs[0]: error and bits
 * of its layers, and what its gptvq.json records: evaluations (by size, beside those of the other folders),
 * times, tokens of experts. The file appears whole or not at all; one that is there is replaced only with
 * `force`. GPTVQ_ERROR_ARGUMENT: a folder is not packed; otherwise as gptvq_model_open. */
GPTVQ_API gptvq_status gptvq_export_report(const char *const *packed_dirs, size_t count, const char *out_file,
                                           int force, gptvq_error *err);

#ifdef __cplusplus
}
#endif
#endif
