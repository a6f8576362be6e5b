/* gptvq quantize: compress a model folder into a packed one. */
#include "cli.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

static const char *const methods[] = {"gptvq", "gptq", "rtn", "kmeans", NULL};
static const char *const inits[] = {"mahalanobis", "kmeans++", "cdf", NULL};
static const char *const metrics[] = {"diagonal", "exact", NULL};
static const char *const orders[] = {"off", "columns", "blocks", "absorb", NULL};
static const char *const rotations[] = {"none", "residual", "heads", "all", NULL};
static const char *const allocations[] = {"uniform", "sensitivity", "auto", NULL};
static const char *const recipes[] = {"default", "paper", NULL};

/* The command line before it becomes gptvq_quantize_options: choices are ints, some options have two
 * spellings. */
typedef struct command_line {
  gptvq_quantize_options options;
  const char *out;
  int method, em_init, no_act_order, recipe, json;
  size_t centroids;
  int bits_given, centroids_given, index_bits_given, group_size_given;
} command_line;

static void apply_recipe(command_line *line) {
  line->recipe = line->recipe == 1;
  gptvq_quantize_options_recipe(&line->options,
                                line->recipe == 1 ? GPTVQ_RECIPE_PAPER : GPTVQ_RECIPE_DEFAULT);
  line->method = (int)line->options.method;
  line->em_init = (int)line->options.em_init;
}

/* Reads the command line. The recipe comes first wherever it stands: every other option overrides it. */
static bool parse(command_line *line, int argc, char **argv, const char **path, int *code) {
  gptvq_quantize_options *o = &line->options;
  const gptvq_option options[] = {
      {GPTVQ_OPTION_STRING, "output", 'o', .value = &line->out, .argument = "OUT",
       .help = "the folder to make"},
      {GPTVQ_OPTION_CHOICE, "method", .value = &line->method, .choices = methods, .argument = "METHOD",
       .help = "gptvq: vector quantization with error feedback (default)\n"
               "gptq: uniform, with error feedback\n"
               "rtn: uniform, round to nearest, no data\n"
               "kmeans: vector quantization without error feedback, no data"},
      {GPTVQ_OPTION_FLAG, "force", .value = &o->force, .help = "replace OUT if it exists"},
      {GPTVQ_OPTION_FLAG, "resume", .value = &o->resume,
       .help = "go on with an interrupted run (same options)"},
      {GPTVQ_OPTION_FLAG, "json", .value = &line->json, .help = "the report as JSON"},

      {GPTVQ_OPTION_HEADING, .help = "Size"},
      {GPTVQ_OPTION_DOUBLE, "bits", .value = &o->bits, .min = 0.1, .max = 16, .argument = "B",
       .given = &line->bits_given, .help = "bits per value, codebooks and scales included (default 2.25)"},
      {GPTVQ_OPTION_UNSIGNED, "dim", .value = &o->dim, .min = 1, .max = 64, .argument = "D",
       .help = "weights per index: 1, 2 or 4 (default 2)"},
      {GPTVQ_OPTION_UNSIGNED, "index-bits", .value = &o->index_bits, .min = 1, .max = 12, .argument = "N",
       .given = &line->index_bits_given, .help = "bits of an index (default: from --bits)"},
      {GPTVQ_OPTION_SIZE, "centroids", .value = &line->centroids, .min = 2, .max = 4096, .argument = "K",
       .given = &line->centroids_given,
       .help = "centroids of a codebook, a power of two: the same as --index-bits log2(K)"},
      {GPTVQ_OPTION_SIZE, "group-size", .value = &o->group_size, .min = 1, .max = 1 << 28, .argument = "L",
       .given = &line->group_size_given,
       .help = "weights per codebook, or per scale with rtn and gptq (default: from --bits)"},
      {GPTVQ_OPTION_SIZE, "group-columns", .value = &o->group_cols, .min = 1, .max = 1 << 24, .argument = "N",
       .help = "columns of a codebook's group (default 256)"},
      {GPTVQ_OPTION_UNSIGNED, "codebook-bits", .value = &o->codebook_bits, .min = 1, .max = 32,
       .argument = "8|16", .help = "bits of a stored centroid value (default 8)"},
      {GPTVQ_OPTION_UNSIGNED, "scale-block", .value = &o->scale_block, .min = 0, .max = 1 << 20,
       .argument = "N", .help = "one 4-bit scale per N weights; 0 = none (default)"},
      {GPTVQ_OPTION_UNSIGNED, "svd-rank", .value = &o->svd_rank, .min = 1, .max = 256, .argument = "R",
       .help = "codebooks of a layer stored as int8 factors of rank R (--dim 1; default: whole)"},
      {GPTVQ_OPTION_UNSIGNED, "head-bits", .value = &o->head_bits, .min = 8, .max = 16, .argument = "8|16",
       .help = "the output head as int8 codes (half its size), or as the original has it (default 16)"},
      {GPTVQ_OPTION_CHOICE, "allocate", .value = &o->allocate, .choices = allocations,
       .argument = "uniform|sensitivity",
       .help = "the same size for every layer (default), or more bits where the loss feels them,\n"
               "for the same total (gptvq; takes a backward pass)"},

      {GPTVQ_OPTION_HEADING, .help = "Calibration (gptvq and gptq)"},
      {GPTVQ_OPTION_STRING, "calib", .value = &o->calib, .argument = "FILE|self",
       .help = "a text like those the model will see; self: sampled from the model itself"},
      {GPTVQ_OPTION_SIZE, "calib-samples", .value = &o->calib_samples, .min = 1, .max = 1 << 24,
       .argument = "N", .help = "windows of text (default 128)"},
      {GPTVQ_OPTION_SIZE, "calib-length", .value = &o->calib_length, .min = 2, .max = 1 << 24,
       .argument = "N", .help = "tokens per window (default: 2048, or the model's context if smaller)"},
      {GPTVQ_OPTION_SEED, "seed", .value = &o->seed, .argument = "S",
       .help = "chooses windows and initial centroids (default 0)"},

      {GPTVQ_OPTION_HEADING, .help = "Fine-tuning (gptvq and gptq)"},
      {GPTVQ_OPTION_SIZE, "finetune-steps", .value = &o->finetune_steps, .min = 0, .max = 1 << 24,
       .argument = "N",
       .help = "codebooks, scales and norms of the whole model are optimised against the original's\n"
               "predictions for N steps; needs the model's weights in memory in fp32; 0 = off (default)"},
      {GPTVQ_OPTION_SIZE, "finetune-block-steps", .value = &o->finetune_block_steps, .min = 0, .max = 1 << 24,
       .argument = "N",
       .help = "the same block after block, against the original block's outputs, for N steps each;\n"
               "needs one block in fp32 and three times the activations; 0 = off (default)"},
      {GPTVQ_OPTION_SIZE, "finetune-batch", .value = &o->finetune_batch, .min = 1, .max = 1 << 20,
       .argument = "N", .help = "calibration windows per step (default 4)"},
      {GPTVQ_OPTION_DOUBLE, "finetune-rate", .value = &o->finetune_rate, .min = 1e-9, .max = 1,
       .argument = "F", .help = "learning rate, relative to a codebook's values (default 0.01)"},
      {GPTVQ_OPTION_DOUBLE, "finetune-index-rate", .value = &o->finetune_index_rate, .min = 0, .max = 1,
       .argument = "F",
       .help = "the same for the indices, which then may change too; takes three times the memory;\n"
               "0 = they stay (default)"},

      {GPTVQ_OPTION_HEADING, .help = "Method (the defaults are the best known)"},
      {GPTVQ_OPTION_CHOICE, "recipe", .value = &line->recipe, .choices = recipes, .argument = "default|paper",
       .help = "paper: as published (arXiv 2402.15319): --metric diagonal, --codebook-update,\n"
               "--reassign-rounds 0, --beam 1, --no-act-order, --no-true-sequential, --mismatch 0,\n"
               "--mismatch-stream 0, --guide 0, --allocate uniform; other options override it"},
      {GPTVQ_OPTION_CHOICE, "em-init", .value = &line->em_init, .choices = inits, .argument = "INIT",
       .help = "mahalanobis (default), kmeans++ or cdf: where the centroids start"},
      {GPTVQ_OPTION_UNSIGNED, "em-iterations", .value = &o->em_iterations, .min = 0, .max = 100000,
       .argument = "N", .help = "EM iterations at most (default 100)"},
      {GPTVQ_OPTION_SWITCH, "hessian-weights", .value = &o->hessian_weights,
       .help = "centroids weighted by the Hessian"},
      {GPTVQ_OPTION_CHOICE, "metric", .value = &o->exact_metric, .choices = metrics,
       .argument = "exact|diagonal",
       .help = "d x d block of the inverse Hessian in look-ups and feedback, or its diagonal"},
      {GPTVQ_OPTION_SWITCH, "feedback", .value = &o->feedback,
       .help = "later columns make up for the error of earlier ones"},
      {GPTVQ_OPTION_SWITCH, "codebook-update", .value = &o->codebook_update,
       .help = "optimise the codebooks on the layer loss"},
      {GPTVQ_OPTION_UNSIGNED, "reassign-rounds", .value = &o->reassign_rounds, .min = 0, .max = 1000,
       .argument = "N", .help = "rounds of update and re-assignment afterwards, at most"},
      {GPTVQ_OPTION_UNSIGNED, "beam", .value = &o->beam, .min = 1, .max = 64, .argument = "N",
       .help = "partial assignments kept per row (1: greedy, as published; default 4)"},
      {GPTVQ_OPTION_CHOICE, "act-order", .value = &o->act_order, .choices = orders, .argument = "ORDER",
       .help = "columns in the order of their weight in the loss: columns (permutation stored),\n"
               "blocks (whole groups and sub-vectors only, nothing stored; default), absorb (blocks, and\n"
               "columns of down_proj and o_proj with the order taken up by the layers before) or off"},
      {GPTVQ_OPTION_FLAG, "no-act-order", .value = &line->no_act_order,
       .help = "the same as --act-order off"},
      {GPTVQ_OPTION_CHOICE, "rotate", .value = &o->rotate, .choices = rotations, .argument = "WHAT",
       .help = "Hadamard rotation, folded into the weights, of the residual stream, of the values in\n"
               "each attention head, or of both (all); default none. Takes a temporary fp32 copy\n"
               "of the model on disk"},
      {GPTVQ_OPTION_SWITCH, "true-sequential", .value = &o->true_sequential,
       .help = "each layer is calibrated on the quantized outputs of those before it"},
      {GPTVQ_OPTION_DOUBLE, "mismatch", .value = &o->mismatch, .min = 0, .max = 1, .argument = "F",
       .help = "share by which a layer makes up for what quantization did to its inputs (default 1,\n"
               "0 = not; needs --true-sequential and twice the activations)"},
      {GPTVQ_OPTION_DOUBLE, "mismatch-stream", .value = &o->mismatch_stream, .min = 0, .max = 1,
       .argument = "F",
       .help = "the same for the error of the residual stream, by o_proj and down_proj (default 1)"},
      {GPTVQ_OPTION_DOUBLE, "guide", .value = &o->guide, .min = 0, .max = 1, .argument = "F",
       .help =
           "calibration tokens weigh by the squared gradient of the loss, to this power; 0 = all the same"},
      {GPTVQ_OPTION_DOUBLE, "damping", .value = &o->damping, .min = 0, .max = 10, .argument = "F",
       .help = "added to the Hessian's diagonal, as a fraction of its mean (default 0.01)"},
      {GPTVQ_OPTION_END}};
  const gptvq_cli_command command = {
      .name = "quantize",
      .usage = "MODEL -o OUT [options]",
      .summary = "compress the linear layers of a model folder",
      .examples = "  gptvq quantize Llama-2-7b/ -o small/ --dim 2 --bits 2.25 --calib wiki.train.txt\n"
                  "      GPTVQ, pairs of weights, 2.25 bits per value with everything counted\n"
                  "  gptvq quantize Llama-2-7b/ -o small/ --dim 4 --bits 2.25 --calib self\n"
                  "      no text at hand: calibrated on what the model itself writes\n"
                  "  gptvq quantize Llama-2-7b/ -o g128/ --method gptq --index-bits 4 --group-size 128 "
                  "--calib wiki.train.txt\n"
                  "  gptvq quantize Llama-2-7b/ -o small/ --bits 2.25 --calib wiki.train.txt --resume\n"
                  "      after Ctrl-C or a power cut: goes on after the last finished block\n",
      .options = options,
      .arguments = {"MODEL"}};
  for (int pass = 0; pass < 2; pass++) {
    apply_recipe(line);
    if (!gptvq_cli_parse(&command, argc, argv, path, code)) return false;
  }
  return true;
}

/* Choices and second spellings; an exit code. */
static int finish(command_line *line) {
  gptvq_quantize_options *o = &line->options;
  o->method = (gptvq_method)line->method;
  o->em_init = (gptvq_em_init)line->em_init;
  if (line->no_act_order) o->act_order = 0;
  if (line->out == NULL)
    return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "-o OUT is missing; see gptvq quantize --help");
  if (line->centroids_given) {
    if (line->index_bits_given)
      return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT,
                             "--centroids and --index-bits say the same thing: give one of them");
    if ((line->centroids & (line->centroids - 1)) != 0)
      return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "option --centroids: %zu is not a power of two",
                             line->centroids);
    for (o->index_bits = 0; (size_t)1 << o->index_bits < line->centroids;) o->index_bits++;
  }
  /* both parts of the size are given: nothing is left for --bits to decide */
  if ((line->centroids_given || line->index_bits_given) && line->group_size_given) {
    if (line->bits_given)
      return gptvq_cli_error(
          GPTVQ_ERROR_ARGUMENT,
          "--bits follows from the size of index and group: give --bits and at most one of them");
    o->bits = 0;
  }
  gptvq_quantize_options resolved = *o; /* says what is wrong before any work */
  gptvq_error err;
  if (gptvq_quantize_options_resolve(&resolved, &err) != GPTVQ_OK) return gptvq_cli_fail(&err);
  return 0;
}

static int report(const command_line *line, const char *path, const gptvq_quantize_report *r) {
  gptvq_model *models[2] = {NULL, NULL};
  gptvq_model_info info[2];
  const char *paths[2] = {path, line->out};
  gptvq_error err;
  int code = 0;
  for (size_t i = 0; i < 2 && code == 0; i++) {
    if (gptvq_model_open(paths[i], NULL, &models[i], &err) != GPTVQ_OK)
      code = gptvq_cli_error(err.status, "%s is written and whole, but there is no report: %s", line->out,
                             err.message);
    else gptvq_model_get_info(models[i], &info[i]);
  }
  for (size_t i = 0; i < 2; i++) gptvq_model_close(models[i]);
  if (code != 0) return code;
  uint64_t before = info[0].linear_bytes + info[0].other_bytes,
           after = info[1].linear_bytes + info[1].other_bytes;
  if (line->json) {
    return gptvq_cli_print_json(json_pack(
        "{s:o, s:o, s:s, s:f, s:f, s:o, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:I, s:I, s:I, s:o, s:o}", "model",
        gptvq_cli_text(path), "output", gptvq_cli_text(line->out), "method", methods[line->method],
        "bits_per_value", r->bits_per_value, "model_bits_per_value", info[1].model_bits_per_value,
        "mean_error", gptvq_cli_number(r->mean_error), "linear_values", (json_int_t)r->linear_values,
        "linear_bytes", (json_int_t)r->linear_bytes, "linear_bytes_before", (json_int_t)info[0].linear_bytes,
        "tensor_bytes_before", (json_int_t)before, "tensor_bytes", (json_int_t)after, "seconds", r->seconds,
        "cpu_seconds", r->cpu_seconds, "peak_bytes", (json_int_t)r->peak_bytes, "layers",
        (json_int_t)r->layers, "blocks_resumed", (json_int_t)r->blocks_resumed, "finetune_before",
        gptvq_cli_number(r->finetune_before), "finetune_after", gptvq_cli_number(r->finetune_after)));
  }
  char a[GPTVQ_CLI_SIZE_TEXT], b[GPTVQ_CLI_SIZE_TEXT];
  printf("wrote            %s (%s)\n", line->out, methods[line->method]);
  printf("bits per value   %.4f in %llu weights of %zu linear layers, from the bytes written\n",
         r->bits_per_value, (unsigned long long)r->linear_values, r->layers);
  printf("linear layers    %s -> %s\n", gptvq_cli_size_text(info[0].linear_bytes, a),
         gptvq_cli_size_text(r->linear_bytes, b));
  printf("whole model      %s -> %s (%.4f bits per value)\n", gptvq_cli_size_text(before, a),
         gptvq_cli_size_text(after, b), info[1].model_bits_per_value);
  printf("mean error       %.5f of a layer's output\n", r->mean_error);
  if (isfinite(r->finetune_before))
    printf("fine-tuning      KL divergence %.5f -> %.5f on held-out calibration windows\n",
           r->finetune_before, r->finetune_after);
  printf("time             %s", gptvq_cli_time_text(r->seconds, a));
  if (r->blocks_resumed > 0) printf(" (%zu blocks were already there)", r->blocks_resumed);
  printf("\npeak memory      %s\n", gptvq_cli_size_text(r->peak_bytes, a));
  return gptvq_cli_flush();
}

/* Did the interrupted run leave finished blocks (OUT.partial)? */
static bool has_partial(const char *out) {
  char path[4096];
  size_t length = strlen(out);
  while (length > 1 && out[length - 1] == '/') length--;
  int written = snprintf(path, sizeof path, "%.*s.partial", (int)length, out);
  return written > 0 && (size_t)written < sizeof path && access(path, F_OK) == 0;
}

int gptvq_cmd_quantize(int argc, char **argv) {
  command_line line;
  memset(&line, 0, sizeof line);
  const char *path;
  int code;
  if (!parse(&line, argc, argv, &path, &code)) return code;
  code = finish(&line);
  if (code != 0) return code;
  gptvq_cli_progress progress;
  gptvq_callbacks callbacks = gptvq_cli_progress_callbacks(&progress);
  gptvq_quantize_report result;
  gptvq_error err;
  gptvq_status status = gptvq_quantize(path, line.out, &line.options, &callbacks, &result, &err);
  gptvq_cli_progress_end(&progress);
  if (status == GPTVQ_ERROR_CANCELLED && has_partial(line.out))
    return gptvq_cli_error(status, "%s; the same command with --resume goes on after the last finished block",
                           err.message);
  if (status != GPTVQ_OK) return gptvq_cli_fail(&err);
  return report(&line, path, &result);
}
