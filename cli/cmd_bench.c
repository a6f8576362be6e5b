/* gptvq bench: tokens per second of a model, and models of random weights to measure on. */
#include "cli.h"
#include "tools/bench.h"

#include <stdlib.h>
#include <string.h>

/* ---- bench model ---- */

enum { MAX_SAMPLES = 1 << 16, MAX_BATCH = 64 };

typedef struct series {
  double *seconds; /* [MAX_SAMPLES] */
  size_t count;
} series;

typedef struct speed {
  size_t prompt, tokens, depth, repeats, batch;
  unsigned head_bits;
  int compute, json, samples;
  gptvq_model *model;
  gptvq_session *session;
  gptvq_batch *together;
  gptvq_model_info info;
  int32_t *ids;
  float *logits;
  series prompts, steps, batches;
  double load_seconds, bandwidth;
} speed;

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void record(series *s, double seconds) {
  if (s->count < MAX_SAMPLES) s->seconds[s->count++] = seconds;
}

/* Runs `count` tokens from position `at` on; the time goes to *series (NULL: nowhere). */
static int step(speed *job, size_t at, size_t count, series *into) {
  gptvq_error err;
  double start = gptvq_cli_clock();
  if (gptvq_session_forward(job->session, job->ids + at, count, job->logits, 0, &err) != GPTVQ_OK)
    return gptvq_cli_fail(&err);
  if (into != NULL) record(into, gptvq_cli_clock() - start);
  return 0;
}

/* To the first `depth` positions, which have been there before. */
static int return_to_depth(speed *job) {
  gptvq_error err;
  size_t reached;
  if (gptvq_session_rewind(job->session, job->depth, &reached, &err) != GPTVQ_OK) return gptvq_cli_fail(&err);
  return reached < job->depth ? step(job, reached, job->depth - reached, NULL) : 0;
}

/* Steps of `batch` texts, a token each, after `depth` positions; all but the first are copies of it. */
static int run_batch(speed *job, int warm_up) {
  gptvq_error err;
  gptvq_session *sessions[MAX_BATCH] = {job->session};
  const int32_t *ids[MAX_BATCH];
  size_t counts[MAX_BATCH];
  gptvq_status status = GPTVQ_OK;
  int code = return_to_depth(job);
  if (code != 0) return code;
  for (size_t i = 1; i < job->batch && status == GPTVQ_OK; i++)
    status = gptvq_session_fork(job->session, &sessions[i], &err);
  for (size_t t = 0; t < job->tokens && status == GPTVQ_OK; t++) {
    for (size_t i = 0; i < job->batch; i++)
      ids[i] = job->ids + job->depth + (t + i) % job->tokens, counts[i] = 1;
    double start = gptvq_cli_clock();
    status = gptvq_batch_forward(job->together, job->batch, sessions, ids, counts, job->logits, &err);
    if (!warm_up) record(&job->batches, gptvq_cli_clock() - start);
  }
  for (size_t i = 1; i < job->batch; i++) gptvq_session_destroy(sessions[i]);
  return status == GPTVQ_OK ? 0 : gptvq_cli_fail(&err);
}

/* One turn: the prompt from an empty context, then single tokens after `depth` positions, then batches. */
static int run_turn(speed *job, int warm_up) {
  int code = 0;
  if (job->prompt > 0) {
    gptvq_session_reset(job->session);
    code = step(job, 0, job->prompt, warm_up ? NULL : &job->prompts);
  }
  if (job->prompt == 0 && !warm_up) code = return_to_depth(job); /* they are there still */
  else {
    gptvq_session_reset(job->session);
    if (code == 0 && job->depth > 0) code = step(job, 0, job->depth, NULL);
  }
  for (size_t i = 0; i < job->tokens && code == 0; i++)
    code = step(job, job->depth + i, 1, warm_up ? NULL : &job->steps);
  return code == 0 && job->batch > 0 ? run_batch(job, warm_up) : code;
}

static int prepare(speed *job, const char *path) {
  gptvq_error err;
  gptvq_model_options options = {
      .size = sizeof options, .compute = (gptvq_compute)job->compute, .head_bits = job->head_bits};
  double start = gptvq_cli_clock();
  if (gptvq_cli_open_model(path, &options, &job->model, &err) != GPTVQ_OK) return gptvq_cli_fail(&err);
  job->load_seconds = gptvq_cli_clock() - start;
  gptvq_model_info_init(&job->info);
  gptvq_model_get_info(job->model, &job->info);
  size_t positions = job->depth + job->tokens > job->prompt ? job->depth + job->tokens : job->prompt;
  if (positions == 0)
    return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "nothing to measure: --prompt and --tokens are 0");
  if (gptvq_session_create(job->model, positions, &job->session, &err) != GPTVQ_OK)
    return gptvq_cli_fail(&err);
  job->ids = malloc(positions * sizeof *job->ids);
  if (job->batch > 0 && gptvq_batch_create(job->model, job->batch, &job->together, &err) != GPTVQ_OK)
    return gptvq_cli_fail(&err);
  job->logits = calloc(job->batch > 0 ? job->batch : 1, job->info.vocab * sizeof *job->logits);
  job->prompts.seconds = malloc(MAX_SAMPLES * sizeof(double));
  job->steps.seconds = malloc(MAX_SAMPLES * sizeof(double));
  job->batches.seconds = malloc(MAX_SAMPLES * sizeof(double));
  if (job->ids == NULL || job->logits == NULL || job->prompts.seconds == NULL || job->steps.seconds == NULL ||
      job->batches.seconds == NULL)
    return gptvq_cli_error(GPTVQ_ERROR_MEMORY, "out of memory: tokens and logits");
  uint64_t state = 1;
  for (size_t i = 0; i < positions; i++) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    job->ids[i] = (int32_t)((state >> 33) % job->info.vocab);
  }
  return 0;
}

static json_t *series_json(const speed *job, series *s, size_t tokens) {
  json_t *object = json_object();
  json_t *all = job->samples ? json_array() : NULL; /* in the order of time */
  for (size_t i = 0; i < s->count && all != NULL; i++) gptvq_cli_json_append(all, json_real(s->seconds[i]));
  if (all != NULL) gptvq_cli_json_set(object, "seconds", all);
  qsort(s->seconds, s->count, sizeof *s->seconds, by_value);
  double least = s->count > 0 ? s->seconds[0] : 0, median = s->count > 0 ? s->seconds[s->count / 2] : 0;
  gptvq_cli_json_set(object, "tokens", json_integer((json_int_t)tokens));
  gptvq_cli_json_set(object, "samples", json_integer((json_int_t)s->count));
  gptvq_cli_json_set(object, "min_ms", gptvq_cli_number(1e3 * least));
  gptvq_cli_json_set(object, "median_ms", gptvq_cli_number(1e3 * median));
  gptvq_cli_json_set(object, "tokens_per_second", gptvq_cli_number(median > 0 ? (double)tokens / median : 0));
  gptvq_cli_json_set(object, "best_tokens_per_second",
                     gptvq_cli_number(least > 0 ? (double)tokens / least : 0));
  return object;
}

static void print_series(const char *name, series *s, size_t tokens) {
  if (s->count == 0) return;
  qsort(s->seconds, s->count, sizeof *s->seconds, by_value);
  double least = s->seconds[0], median = s->seconds[s->count / 2];
  printf("%-10s %5zu tokens: least %9.3f ms, median %9.3f ms of %zu; %.1f tokens/s (best %.1f)\n", name,
         tokens, 1e3 * least, 1e3 * median, s->count, (double)tokens / median, (double)tokens / least);
}

static int report(speed *job, const char *path) {
  const gptvq_model_info *info = &job->info;
  if (!job->json) {
    printf("%s: %zu layers, %.4f bits per value, head %u bits; compute %s, %s, %d threads; reads %.1f GB/s\n",
           path, info->layers, info->bits_per_value, info->head_bits, gptvq_compute_name(info->compute),
           gptvq_get_cpu(), gptvq_get_threads(), 1e-9 * job->bandwidth);
    print_series("prompt", &job->prompts, job->prompt);
    print_series("decoding", &job->steps, 1);
    print_series("batch", &job->batches, job->batch);
    return gptvq_cli_flush();
  }
  json_t *object = json_object();
  gptvq_cli_json_set(object, "model", gptvq_cli_text(path));
  gptvq_cli_json_set(object, "layers", json_integer((json_int_t)info->layers));
  gptvq_cli_json_set(object, "bits_per_value", gptvq_cli_number(info->bits_per_value));
  gptvq_cli_json_set(object, "linear_bytes", json_integer((json_int_t)info->linear_bytes));
  gptvq_cli_json_set(object, "head_bits", json_integer((json_int_t)info->head_bits));
  gptvq_cli_json_set(object, "compute", json_string(gptvq_compute_name(info->compute)));
  gptvq_cli_json_set(object, "cpu", json_string(gptvq_get_cpu()));
  gptvq_cli_json_set(object, "threads", json_integer(gptvq_get_threads()));
  gptvq_cli_json_set(object, "depth", json_integer((json_int_t)job->depth));
  gptvq_cli_json_set(object, "load_seconds", gptvq_cli_number(job->load_seconds));
  gptvq_cli_json_set(object, "bandwidth_gb_per_s", gptvq_cli_number(1e-9 * job->bandwidth));
  gptvq_cli_json_set(object, "prompt", series_json(job, &job->prompts, job->prompt));
  gptvq_cli_json_set(object, "decode", series_json(job, &job->steps, 1));
  if (job->batch > 0) gptvq_cli_json_set(object, "batch", series_json(job, &job->batches, job->batch));
  return gptvq_cli_print_json(object);
}

static int bench_model(int argc, char **argv) {
  speed job = {.prompt = 512, .tokens = 32, .repeats = 5, .compute = GPTVQ_COMPUTE_AUTO};
  const gptvq_option options[] = {
      {GPTVQ_OPTION_SIZE, "prompt", .value = &job.prompt, .min = 0, .max = 1 << 20, .argument = "N",
       .help = "tokens of the prompt (default 512); 0 = no prompt"},
      {GPTVQ_OPTION_SIZE, "tokens", 'n', .value = &job.tokens, .min = 0, .max = 1 << 20, .argument = "N",
       .help = "single tokens per repeat (default 32); 0 = none"},
      {GPTVQ_OPTION_SIZE, "depth", .value = &job.depth, .min = 0, .max = 1 << 20, .argument = "N",
       .help = "positions already in the context when single tokens are measured (default 0)"},
      {GPTVQ_OPTION_SIZE, "batch", .value = &job.batch, .min = 0, .max = MAX_BATCH, .argument = "N",
       .help = "texts that go a token further together, after each turn's single tokens; 0 = none (default)"},
      {GPTVQ_OPTION_SIZE, "repeats", .value = &job.repeats, .min = 1, .max = 1 << 16, .argument = "N",
       .help = "turns of prompt and single tokens (default 5), after one to warm up"},
      {GPTVQ_OPTION_CHOICE, "compute", .value = &job.compute, .choices = gptvq_cli_computes(),
       .argument = "auto|fp32|bf16|int8",
       .help = "arithmetic (default auto: int8 for packed folders, else bf16 where the weights and the\n"
               "processor have it, or fp32)"},
      {GPTVQ_OPTION_UNSIGNED, "head-bits", .value = &job.head_bits, .min = 8, .max = 16, .argument = "8|16",
       .help = "weights of the output head (default: 8 with int8, else as stored)"},
      {GPTVQ_OPTION_FLAG, "json", .value = &job.json, .help = "everything as JSON"},
      {GPTVQ_OPTION_FLAG, "samples", .value = &job.samples, .help = "every single time in the JSON"},
      {.kind = GPTVQ_OPTION_END}};
  const gptvq_cli_command command = {
      .name = "bench model",
      .usage = "MODEL [--prompt N] [--tokens N] [options]",
      .summary = "tokens per second of a model folder, on random tokens",
      .examples = "  gptvq bench model small/\n"
                  "  gptvq bench model small/ --prompt 0 --tokens 64 --depth 1024 --threads 2 --json\n",
      .options = options,
      .arguments = {"MODEL"}};
  const char *path;
  int code;
  if (!gptvq_cli_parse(&command, argc, argv, &path, &code)) return code;
  code = prepare(&job, path);
  if (code == 0) job.bandwidth = gptvq_measure_bandwidth(2);
  for (size_t i = 0; i <= job.repeats && code == 0; i++) code = run_turn(&job, i == 0);
  if (code == 0) code = report(&job, path);
  free(job.batches.seconds);
  free(job.steps.seconds);
  free(job.prompts.seconds);
  free(job.logits);
  free(job.ids);
  gptvq_session_destroy(job.session);
  gptvq_batch_destroy(job.together);
  gptvq_model_close(job.model);
  return code;
}

/* ---- bench make-model ---- */

static int make_model(int argc, char **argv) {
  static const char *const methods[] = {"gptvq", "gptq", NULL}, *const codes[] = {"vq", "trellis", NULL};
  gptvq_random_model model;
  gptvq_random_model_init(&model);
  gptvq_quantize_options *format = &model.format;
  int shape = 0, method = 0, code_of_layers = 0, group_given = 0, index_given = 0, bits_given = 0;
  const char *out = NULL;
  gptvq_option bits = gptvq_cli_field("bits", format), index_bits = gptvq_cli_field("index_bits", format),
               group_size = gptvq_cli_field("group_size", format);
  bits.given = &bits_given;
  bits.help = "bits per value of indices and codebooks (quantize --nominal)";
  index_bits.given = &index_given;
  group_size.given = &group_given;
  const gptvq_option options[] = {
      {GPTVQ_OPTION_STRING, "output", 'o', .value = &out, .argument = "DIR",
       .help = "where the model is written"},
      {GPTVQ_OPTION_CHOICE, "shape", .value = &shape, .choices = gptvq_random_shapes(), .argument = "NAME",
       .help = "llama-2-7b (default), llama-2-13b, llama-2-70b, llama-3-8b, llama-3.2-1b, llama-3.2-3b,\n"
               "mistral-7b, mixtral-8x7b, phi-3-mini, qwen2.5-0.5b, qwen2.5-1.5b, qwen2.5-7b, smollm2-135m,\n"
               "smollm2-360m or stories (the example model)"},
      {GPTVQ_OPTION_SIZE, "layers", .value = &model.layers, .min = 1, .max = 1000, .argument = "N",
       .help = "decoder blocks (default: as many as the real model)"},
      {GPTVQ_OPTION_FLAG, "dense", .value = &model.dense, .help = "bf16 weights, not packed"},
      {GPTVQ_OPTION_CHOICE, "method", .value = &method, .choices = methods, .argument = "gptvq|gptq",
       .help = "vector or uniform quantization (default gptvq)"},
      bits,
      {GPTVQ_OPTION_CHOICE, "code", .value = &code_of_layers, .choices = codes, .argument = "vq|trellis",
       .help = "of gptvq: vectors (default) or a trellis of 2, 3 or 4 bits, the whole part of --bits"},
      gptvq_cli_field("dim", format),
      index_bits,
      group_size,
      gptvq_cli_field("scale_block", format),
      {GPTVQ_OPTION_SEED, "seed", .value = &model.seed, .argument = "S", .help = "other random weights"},
      {GPTVQ_OPTION_FLAG, "force", .value = &model.force, .help = "replace an existing model folder"},
      {.kind = GPTVQ_OPTION_END}};
  const gptvq_cli_command command = {
      .name = "bench make-model",
      .usage = "-o DIR [--shape NAME] [--layers N] [options]",
      .summary = "write a model of random weights, to measure speed",
      .examples = "  gptvq bench make-model --shape llama-2-7b --layers 2 -o two/\n"
                  "  gptvq bench make-model --shape llama-2-7b --layers 4 --bits 3.125 -o four/\n"
                  "      time per layer = (four - two) / 2; the whole model = two + 30 layers\n"
                  "  gptvq bench make-model --shape mixtral-8x7b --layers 2 --dense -o dense/\n",
      .options = options,
      .arguments = {NULL}};
  int code;
  if (!gptvq_cli_parse(&command, argc, argv, NULL, &code)) return code;
  if (out == NULL) return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "give an output folder: -o DIR");
  model.shape = gptvq_random_shapes()[shape];
  format->method = method == 1 ? GPTVQ_METHOD_GPTQ : GPTVQ_METHOD_GPTVQ;
  if (code_of_layers == 1) format->code = GPTVQ_CODE_TRELLIS;
  if (!bits_given && group_given && index_given) format->bits = 0; /* they say it all */
  gptvq_error err;
  return gptvq_write_random_model(&model, out, &err) == GPTVQ_OK ? 0 : gptvq_cli_fail(&err);
}

/* ---- bench memory ---- */

static int bench_memory(int argc, char **argv) {
  size_t rounds = 2;
  int json = 0;
  const gptvq_option options[] = {
      {GPTVQ_OPTION_SIZE, "rounds", .value = &rounds, .min = 1, .max = 1 << 16, .argument = "N",
       .help = "passes over 256 MiB, of which the fastest sixteenth counts (default 2)"},
      {GPTVQ_OPTION_FLAG, "json", .value = &json, .help = "as JSON"},
      {.kind = GPTVQ_OPTION_END}};
  const gptvq_cli_command command = {.name = "bench memory",
                                     .usage = "[--rounds N] [options]",
                                     .summary = "how fast this machine reads memory, the ceiling of decoding",
                                     .examples = "  gptvq bench memory --threads 2\n",
                                     .options = options,
                                     .arguments = {NULL}};
  int code;
  if (!gptvq_cli_parse(&command, argc, argv, NULL, &code)) return code;
  double bandwidth = gptvq_measure_bandwidth(rounds);
  if (bandwidth == 0.0) return gptvq_cli_error(GPTVQ_ERROR_MEMORY, "out of memory: 256 MiB to read");
  if (json)
    return gptvq_cli_print_json(
        json_pack("{s:i, s:f}", "threads", gptvq_get_threads(), "bandwidth_gb_per_s", 1e-9 * bandwidth));
  printf("%d threads read %.1f GB/s\n", gptvq_get_threads(), 1e-9 * bandwidth);
  return gptvq_cli_flush();
}

/* ---- bench ---- */

static int help(void) {
  printf("gptvq bench: how fast this machine runs models.\n\n"
         "  gptvq bench model MODEL [options]        tokens per second, prompt and decoding\n"
         "  gptvq bench make-model -o DIR [options]  a model of random weights in the shape of a known one\n"
         "  gptvq bench kernels [options]            the kernels alone, against memory and 4-bit integers\n"
         "  gptvq bench memory [options]             how fast memory is read\n"
         "  gptvq bench quantize [options]           where the time of quantizing goes\n"
         "  gptvq bench device [options]             copies and products on a card\n\n"
         "gptvq bench model --help and so on explain them.\n");
  return gptvq_cli_flush();
}

int gptvq_cmd_bench(int argc, char **argv) {
  static const char *const names[] = {"model", "make-model", "kernels", "memory", "quantize", "device", NULL};
  const char *name = argc > 1 ? argv[1] : "";
  if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) return help();
  if (strcmp(name, names[0]) == 0) return bench_model(argc - 1, argv + 1);
  if (strcmp(name, names[1]) == 0) return make_model(argc - 1, argv + 1);
  if (strcmp(name, names[2]) == 0) return gptvq_cmd_bench_kernels(argc - 1, argv + 1);
  if (strcmp(name, names[3]) == 0) return bench_memory(argc - 1, argv + 1);
  if (strcmp(name, names[4]) == 0) return gptvq_cmd_bench_quantize(argc - 1, argv + 1);
  if (strcmp(name, names[5]) == 0) return gptvq_cmd_bench_device(argc - 1, argv + 1);
  if (argc < 2)
    return gptvq_cli_error(
        GPTVQ_ERROR_ARGUMENT,
        "bench what? model, make-model, kernels, memory, quantize or device; see gptvq bench --help");
  const char *near = gptvq_cli_suggest(name, names);
  if (near != NULL)
    return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "unknown bench '%s'; did you mean %s?", name, near);
  return gptvq_cli_error(
      GPTVQ_ERROR_ARGUMENT,
      "unknown bench '%s': model, make-model, kernels, memory, quantize or device; see gptvq bench --help",
      name);
}
