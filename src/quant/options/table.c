/* The one table of quantize options: defaults, recipes, checks, the identity of a run, the command line and
 * its help, docs/CLI.md all come from it. An option is a member of gptvq_quantize_options and a row here. */
#include "quant/options/options.h"

#include <stddef.h>

static const char *const methods[] = {"gptvq", "gptq", "rtn", "kmeans", NULL};
static const char *const codes[] = {"auto", "vq", "trellis", NULL};
static const char *const inits[] = {"mahalanobis", "kmeans++", "cdf", NULL};
static const char *const metrics[] = {"diagonal", "exact", NULL};
static const char *const orders[] = {"off", "columns", "blocks", NULL};
static const char *const computes[] = {"auto", "fp32", "bf16", NULL};
static const char *const allocations[] = {"uniform", "sensitivity", "auto", NULL};

static const char size[] = "Size", calibration[] = "Calibration (gptvq and gptq)",
                  finetuning[] = "Fine-tuning (gptvq and gptq)",
                  method[] = "Method (the defaults are the best known)";

#define MEMBER(member, kind) \
  .size = sizeof(gptvq_field), .name = #member, .type = kind, \
  .offset = offsetof(gptvq_quantize_options, member)

/* Rows that are part of a run's identity stand in the order in which its JSON has them. */
static const gptvq_field fields[] = {
    {MEMBER(method, GPTVQ_FIELD_ENUM), .choices = methods, .identity = GPTVQ_IDENTITY_ALWAYS, .section = "",
     .flag = "method", .argument = "METHOD",
     .help = "gptvq: vector quantization with error feedback\n"
             "gptq: uniform, with error feedback\n"
             "rtn: uniform, round to nearest, no data\n"
             "kmeans: vector quantization without error feedback, no data"},

    {MEMBER(bits, GPTVQ_FIELD_DOUBLE), .min = 0.1, .max = 16, .initial = 2.25, .paper = 2.25,
     .derived = "from --index-bits and --group-size", .identity = GPTVQ_IDENTITY_ALWAYS, .section = size,
     .flag = "bits", .argument = "B",
     .help = "at most so many bits per weight of the layers, on the mean over the model, all that is stored\n"
             "of them counted"},
    {MEMBER(dim, GPTVQ_FIELD_UNSIGNED), .min = 1, .max = 4,
     .derived = "2; with a trellis and uniform methods 1", .identity = GPTVQ_IDENTITY_ALWAYS, .section = size,
     .flag = "dim", .argument = "1|2|4", .help = "weights per index of --code vq"},
    {MEMBER(index_bits, GPTVQ_FIELD_UNSIGNED), .min = 1, .max = 12, .derived = "from --bits",
     .identity = GPTVQ_IDENTITY_ALWAYS, .section = size, .flag = "index-bits", .argument = "N",
     .help = "bits of an index; at most 8 with rtn and gptq"},
    {MEMBER(group_size, GPTVQ_FIELD_SIZE), .min = 1, .max = GPTVQ_MAX_GROUP, .derived = "from --bits",
     .identity = GPTVQ_IDENTITY_ALWAYS, .section = size, .flag = "group-size", .argument = "L",
     .help = "weights per codebook (8 and more), or per scale with rtn and gptq"},
    {MEMBER(group_cols, GPTVQ_FIELD_SIZE), .min = 8, .max = 65536, .initial = 256, .paper = 256,
     .identity = GPTVQ_IDENTITY_ALWAYS, .section = size, .flag = "group-columns", .argument = "N",
     .help = "columns of a codebook's group, a multiple of 8"},
    {MEMBER(codebook_bits, GPTVQ_FIELD_UNSIGNED), .min = 8, .max = 16, .initial = 8, .paper = 8,
     .identity = GPTVQ_IDENTITY_ALWAYS, .section = size, .flag = "codebook-bits", .argument = "8|16",
     .help = "bits of a stored centroid value"},
    {MEMBER(scale_block, GPTVQ_FIELD_UNSIGNED), .min = 8, .max = 65536, .derived = "none",
     .identity = GPTVQ_IDENTITY_ALWAYS, .section = size, .flag = "scale-block", .argument = "N",
     .help = "one 4-bit scale per N weights, a power of two"},

    {MEMBER(calib, GPTVQ_FIELD_TEXT), .section = calibration, .flag = "calib", .argument = "FILE|self",
     .help = "a text like those the model will see; self: sampled from the model itself. Given several\n"
             "times, texts share the windows; FILE:W by weight W, else 1. Without any: self"},
    {MEMBER(calib_self, GPTVQ_FIELD_DOUBLE), .max = 0.99, .initial = 0.5, .identity = GPTVQ_IDENTITY_NONZERO,
     .section = calibration, .flag = "calib-self", .argument = "F",
     .help = "share of the windows that the model writes itself beside those of texts: what keeps it\n"
             "sound on other kinds of text"},
    {MEMBER(calib_samples, GPTVQ_FIELD_SIZE), .min = 1, .max = 1 << 24, .initial = 64, .paper = 128,
     .identity = GPTVQ_IDENTITY_DATA, .section = calibration, .flag = "calib-samples", .argument = "N",
     .help = "windows of text"},
    {MEMBER(calib_length, GPTVQ_FIELD_SIZE), .min = 2, .max = 1 << 24,
     .derived = "2048, of models with at most 2048 columns 1024, or the model's context if smaller",
     .identity = GPTVQ_IDENTITY_DATA, .section = calibration, .flag = "calib-length", .argument = "N",
     .help = "tokens per window"},
    {MEMBER(calib_compute, GPTVQ_FIELD_ENUM), .choices = computes, .identity = GPTVQ_IDENTITY_NONZERO,
     .section = calibration, .flag = "calib-compute", .argument = "auto|fp32|bf16",
     .help = "precision of the inputs of products while calibrating; auto: bf16 where the processor\n"
             "has instructions for it, and with --device cuda, else fp32"},

    {MEMBER(judge_tokens, GPTVQ_FIELD_SIZE), .max = 1 << 30, .initial = 4096,
     .identity = GPTVQ_IDENTITY_NONZERO, .section = calibration, .flag = "judge-tokens", .argument = "N",
     .help = "tokens of held-out text, and as many that the model writes, that the result is judged by\n"
             "at the end; 0 = none"},

    {MEMBER(em_init, GPTVQ_FIELD_ENUM), .choices = inits, .identity = GPTVQ_IDENTITY_ALWAYS,
     .section = method, .flag = "em-init", .argument = "INIT",
     .help = "mahalanobis, kmeans++ or cdf: where the centroids start"},
    {MEMBER(em_iterations, GPTVQ_FIELD_UNSIGNED), .max = 100000, .initial = 100, .paper = 100,
     .identity = GPTVQ_IDENTITY_ALWAYS, .section = method, .flag = "em-iterations", .argument = "N",
     .help = "EM iterations at most"},
    {MEMBER(hessian_weights, GPTVQ_FIELD_SWITCH), .initial = 1, .paper = 1, .identity = GPTVQ_IDENTITY_ALWAYS,
     .section = method, .flag = "hessian-weights", .help = "centroids weighted by the Hessian"},
    {MEMBER(exact_metric, GPTVQ_FIELD_SWITCH), .choices = metrics, .initial = 1,
     .identity = GPTVQ_IDENTITY_ALWAYS, .section = method, .flag = "metric", .argument = "exact|diagonal",
     .help = "d x d block of the inverse Hessian in look-ups and feedback, or its diagonal"},
    {MEMBER(feedback, GPTVQ_FIELD_SWITCH), .initial = 1, .paper = 1, .identity = GPTVQ_IDENTITY_ALWAYS,
     .section = method, .flag = "feedback", .help = "later columns make up for the error of earlier ones"},
    {MEMBER(codebook_update, GPTVQ_FIELD_SWITCH), .initial = 1, .paper = 1, .identity = GPTVQ_IDENTITY_ALWAYS,
     .section = method, .flag = "codebook-update", .help = "optimise the codebooks on the layer loss"},
    {MEMBER(reassign_rounds, GPTVQ_FIELD_UNSIGNED), .max = 1000, .initial = 3,
     .identity = GPTVQ_IDENTITY_ALWAYS, .section = method, .flag = "reassign-rounds", .argument = "N",
     .help = "rounds of update and re-assignment afterwards, at most"},
    {MEMBER(act_order, GPTVQ_FIELD_INT), .choices = orders, .initial = 2, .identity = GPTVQ_IDENTITY_ALWAYS,
     .section = method, .flag = "act-order", .argument = "ORDER",
     .help = "columns in the order of their weight in the loss: columns (permutation stored),\n"
             "blocks (whole groups and sub-vectors only, nothing stored) or off"},
    {MEMBER(true_sequential, GPTVQ_FIELD_SWITCH), .initial = 1, .identity = GPTVQ_IDENTITY_ALWAYS,
     .section = method, .flag = "true-sequential",
     .help = "each layer is calibrated on the quantized outputs of those before it"},
    {MEMBER(damping, GPTVQ_FIELD_DOUBLE), .max = 10, .initial = 0.01, .paper = 0.01,
     .identity = GPTVQ_IDENTITY_ALWAYS, .section = method, .flag = "damping", .argument = "F",
     .help = "added to the Hessian's diagonal, as a fraction of its mean"},

    {MEMBER(seed, GPTVQ_FIELD_SEED), .identity = GPTVQ_IDENTITY_ALWAYS, .section = calibration,
     .flag = "seed", .argument = "S", .help = "chooses windows and initial centroids"},

    {MEMBER(finetune_steps, GPTVQ_FIELD_SIZE), .max = 1 << 24, .identity = GPTVQ_IDENTITY_ALWAYS,
     .section = finetuning, .flag = "finetune-steps", .argument = "N",
     .help = "codebooks, scales and norms of the whole model are optimised against the original's\n"
             "predictions for N steps; of weights and activations one block's are in memory at a time,\n"
             "and what goes into each block"},
    {MEMBER(finetune_block_steps, GPTVQ_FIELD_SIZE), .max = 1 << 24, .identity = GPTVQ_IDENTITY_ALWAYS,
     .section = finetuning, .flag = "finetune-block-steps", .argument = "N",
     .help = "the same block after block, against the original block's outputs, for N steps each;\n"
             "needs one block in fp32 and three times the activations"},
    {MEMBER(finetune_batch, GPTVQ_FIELD_SIZE), .min = 1, .max = 1 << 20, .initial = 4, .paper = 4,
     .identity = GPTVQ_IDENTITY_ALWAYS, .section = finetuning, .flag = "finetune-batch", .argument = "N",
     .help = "calibration windows per step"},
    {MEMBER(finetune_rate, GPTVQ_FIELD_DOUBLE), .min = 1e-9, .max = 1, .initial = 0.004, .paper = 0.004,
     .identity = GPTVQ_IDENTITY_ALWAYS, .section = finetuning, .flag = "finetune-rate", .argument = "F",
     .help = "learning rate, relative to a codebook's values"},

    {MEMBER(mismatch, GPTVQ_FIELD_DOUBLE), .max = 1, .initial = 0.5, .identity = GPTVQ_IDENTITY_ALWAYS,
     .section = method, .flag = "mismatch", .argument = "F",
     .help = "share by which a layer makes up for what quantization did to its inputs (0 = not;\n"
             "needs --true-sequential and twice the activations)"},
    {MEMBER(mismatch_stream, GPTVQ_FIELD_DOUBLE), .max = 1, .initial = 0.5, .identity = GPTVQ_IDENTITY_ALWAYS,
     .section = method, .flag = "mismatch-stream", .argument = "F",
     .help = "the same for the error of the residual stream, by o_proj and down_proj"},
    {MEMBER(beam, GPTVQ_FIELD_UNSIGNED), .min = 1, .max = GPTVQ_BEAM_MAX, .initial = 4, .paper = 1,
     .identity = GPTVQ_IDENTITY_ALWAYS, .section = method, .flag = "beam", .argument = "N",
     .help = "partial assignments kept per row; 1: greedy, as published. With --code trellis half as\n"
             "many for each prefix, 1 to 4"},
    {MEMBER(finetune_index_rate, GPTVQ_FIELD_DOUBLE), .max = 1, .identity = GPTVQ_IDENTITY_ALWAYS,
     .section = finetuning, .flag = "finetune-index-rate", .argument = "F",
     .help = "the same for the indices, which then may change too; takes 12 bytes a weight and 4 an index\n"
             "of memory; 0 = they stay"},
    {MEMBER(guide, GPTVQ_FIELD_DOUBLE), .max = 1, .identity = GPTVQ_IDENTITY_ALWAYS, .section = method,
     .flag = "guide", .argument = "F",
     .help = "calibration tokens weigh by the squared gradient of the loss, to this power; 0 = all\n"
             "the same"},
    {MEMBER(allocate, GPTVQ_FIELD_SWITCH), .choices = allocations, .initial = GPTVQ_ALLOCATE_AUTO,
     .identity = GPTVQ_IDENTITY_ALWAYS, .section = size, .flag = "allocate",
     .argument = "uniform|sensitivity|auto",
     .help = "the same size for every layer, or more bits where the loss feels them, --bits for all\n"
             "together (gptvq; takes a backward pass); auto: sensitivity with a\n"
             "trellis and --bits above its smallest size, else uniform"},
    {MEMBER(head_bits, GPTVQ_FIELD_UNSIGNED), .min = 3, .max = 16,
     .derived = "with a trellis what loses least, mostly 4, else 16", .identity = GPTVQ_IDENTITY_ALWAYS,
     .section = size, .flag = "head-bits", .argument = "N",
     .help = "bits of the output head's codes: 3 to 8; 16: as the original has it. A head that is\n"
             "the embedding's matrix is packed with it, by either option"},
    /* absent means none: folders without factors stay byte for byte what they were */
    {MEMBER(svd_rank, GPTVQ_FIELD_UNSIGNED), .min = 1, .max = 256, .derived = "whole",
     .identity = GPTVQ_IDENTITY_NONZERO, .section = size, .flag = "svd-rank", .argument = "R",
     .help = "codebooks of a layer stored as int8 factors of rank R (--dim 1)"},
    {MEMBER(code, GPTVQ_FIELD_ENUM), .choices = codes, .paper = GPTVQ_CODE_VQ, .absent = GPTVQ_CODE_VQ,
     .identity = GPTVQ_IDENTITY_NONZERO, .section = size, .flag = "code", .argument = "auto|vq|trellis",
     .help =
         "vq: an index per --dim weights; trellis: a window of the row's bit stream per weight and two\n"
         "trained tables per column group, 2, 3 or 4 bits (the most that --bits has room for; with\n"
         "--allocate sensitivity by layer) and about 0.05, which loses less; auto: trellis for --bits of\n"
         "2 to 4.45 (with --allocate uniform and kmeans only from such a size up to 0.45 above 2, 3 and\n"
         "4), vq with other sizes and what only vectors have (--dim, --index-bits, --group-size,\n"
         "--scale-block, --svd-rank, --codebook-bits 16, --em-init, --finetune-index-rate); with\n"
         "--model-bits what loses less"},

    {MEMBER(embedding_bits, GPTVQ_FIELD_UNSIGNED), .min = 3, .max = 16, .absent = 16,
     .derived = "with a trellis what loses least, mostly 4, else 16", .identity = GPTVQ_IDENTITY_NONZERO,
     .section = size, .flag = "embedding-bits", .argument = "N",
     .help = "bits of the embedding's codes, as --head-bits"},

    {MEMBER(model_bits, GPTVQ_FIELD_DOUBLE), .min = 0.1, .max = 16, .derived = "none",
     .identity = GPTVQ_IDENTITY_NONZERO, .section = size, .flag = "model-bits", .argument = "B",
     .help = "budget of the whole model instead: at most so many bits of its files per parameter;\n"
             "chooses --bits, and --code, --embedding-bits and --head-bits where they are not given"},

    {MEMBER(nominal, GPTVQ_FIELD_SWITCH), .paper = 1, .section = size, .flag = "nominal",
     .help =
         "--bits are those of indices and codebooks in groups of exactly the size that makes them up, as\n"
         "papers name sizes: scales of codebooks, zero points and groups that are not whole come on top"},

    {MEMBER(device, GPTVQ_FIELD_WORD), .derived = "cpu", .section = "", .flag = "device",
     .argument = "cpu|cuda[:N]|auto|shim",
     .help =
         "where calibration and solver run: on the CPU, a CUDA card (of number N), a card where one will\n"
         "do, or, for tests, a card's kernels on the CPU; --resume may change it"},
    {MEMBER(memory_limit, GPTVQ_FIELD_BYTES), .min = 1 << 20, .max = 0x1p50, .derived = "what is available",
     .section = "", .flag = "memory-limit", .argument = "SIZE",
     .help = "keep within that much memory, such as 20G; what does not fit lies in a scratch file beside\n"
             "OUT, the output is the same"},
    {MEMBER(force, GPTVQ_FIELD_SWITCH), .section = "", .flag = "force",
     .help = "replace OUT if it is a model folder; start over instead of --resume"},
    {MEMBER(resume, GPTVQ_FIELD_SWITCH), .section = "", .flag = "resume",
     .help = "go on with an interrupted run (same options)"},
};

const gptvq_field *gptvq_fields(size_t *count) {
  *count = sizeof fields / sizeof fields[0];
  return fields;
}

const gptvq_field *gptvq_quantize_field(size_t index) {
  return index < sizeof fields / sizeof fields[0] ? &fields[index] : NULL;
}
