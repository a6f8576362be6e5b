/* gptvq quantize: compress a model folder into a packed one. */
#include "cli.h"
#include "mpi/mpi.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

static const char *const recipes[] = {"default", "paper", NULL};

/* The command line before it becomes gptvq_quantize_options: some options have two spellings. */
typedef struct command_line {
  gptvq_quantize_options options;
  const char *out;
  int no_act_order, recipe, json, dry_run;
  size_t centroids;
  int bits_given, model_bits_given, centroids_given, index_bits_given, group_size_given;
} command_line;

/* What the table of options does not have: where the result goes, and second spellings. Put before a
 * section's own rows. */
static size_t own_options(command_line *line, const char *section, gptvq_option *table) {
  static char paper[512];
  size_t n = 0;
  if (section[0] == '\0') {
    table[n++] = (gptvq_option){GPTVQ_OPTION_STRING, "output",          'o',
                                .value = &line->out, .argument = "OUT", .help = "the folder to make"};
    table[n++] =
        (gptvq_option){GPTVQ_OPTION_FLAG, "json", .value = &line->json, .help = "the report as JSON"};
    table[n++] =
        (gptvq_option){GPTVQ_OPTION_FLAG, "dry-run", .value = &line->dry_run,
                       .help = "say what size, memory and time it would take, and stop: reads headers\n"
                               "only (fp8 folders whole, as they are widened on\n"
                               "opening), measures this machine for two seconds;\n"
                               "its time is without reading and writing files, and\n"
                               "without --finetune-block-steps"};
  } else if (strcmp(section, "Size") == 0) {
    table[n++] =
        (gptvq_option){GPTVQ_OPTION_SIZE,
                       "centroids",
                       .value = &line->centroids,
                       .min = 2,
                       .max = 4096,
                       .argument = "K",
                       .given = &line->centroids_given,
                       .help = "centroids of a codebook, a power of two: the same as --index-bits log2(K)"};
  } else if (strncmp(section, "Method", 6) == 0) {
    (void)snprintf(paper, sizeof paper, "paper: as published (arXiv 2402.15319):\n");
    gptvq_cli_paper_recipe(paper + strlen(paper), sizeof paper - strlen(paper));
    size_t used = strlen(paper);
    (void)snprintf(paper + used, sizeof paper - used, ".\nOther options override it");
    table[n++] =
        (gptvq_option){GPTVQ_OPTION_CHOICE,         "recipe",     .value = &line->recipe, .choices = recipes,
                       .argument = "default|paper", .help = paper};
    table[n++] = (gptvq_option){GPTVQ_OPTION_FLAG, "no-act-order", .value = &line->no_act_order,
                                .help = "the same as --act-order off"};
  }
  return n;
}

static void note_given(command_line *line, gptvq_option *option) {
  if (strcmp(option->name, "model-bits") == 0) option->given = &line->model_bits_given;
  if (strcmp(option->name, "bits") == 0) option->given = &line->bits_given;
  if (strcmp(option->name, "index-bits") == 0) option->given = &line->index_bits_given;
  if (strcmp(option->name, "group-size") == 0) option->given = &line->group_size_given;
}

/* Reads the command line. The recipe comes first wherever it stands: every other option overrides it. */
static bool parse(command_line *line, int argc, char **argv, const char **path, int *code) {
  enum { CAPACITY = 64, OWN = 8 };
  gptvq_option options[CAPACITY];
  size_t n = 0;
  const char *section;
  for (size_t s = 0; (section = gptvq_cli_field_section(s)) != NULL && n + OWN < CAPACITY; s++) {
    if (s > 0) options[n++] = (gptvq_option){GPTVQ_OPTION_HEADING, .help = section};
    n += own_options(line, section, options + n);
    n += gptvq_cli_fields(section, &line->options, options + n, CAPACITY - 1 - n);
  }
  options[n] = (gptvq_option){.kind = GPTVQ_OPTION_END};
  for (size_t i = 0; i < n; i++)
    if (options[i].name != NULL) note_given(line, &options[i]);
  const gptvq_cli_command command = {
      .name = "quantize",
      .usage = "MODEL -o OUT [options]",
      .summary = "compress the linear layers of a model folder",
      .examples =
          "  gptvq quantize Llama-2-7b/ -o small/ --calib wiki.train.txt\n"
          "      the least loss at some 2 bits: a trellis of up to 2.25 bits per weight, embedding and head "
          "in 4\n"
          "  gptvq quantize Llama-2-7b/ -o small/ --bits 3 --calib self\n"
          "      3 bits; no text at hand: calibrated on what the model itself writes\n"
          "  gptvq quantize Llama-2-7b/ -o small/ --dim 2 --bits 2.25 --calib wiki.train.txt\n"
          "      pairs of weights: decodes fastest on Arm\n"
          "  gptvq quantize Llama-2-7b/ -o small/ --calib wiki.train.txt:2 --calib code.txt --calib self\n"
          "      half of the windows from the first text, a quarter from each of the others\n"
          "  gptvq quantize Llama-2-7b/ -o g128/ --method gptq --index-bits 4 --group-size 128 "
          "--calib wiki.train.txt\n"
          "  gptvq quantize Llama-2-7b/ -o small/ --calib wiki.train.txt --resume\n"
          "      after Ctrl-C or a power cut: goes on after the last finished block\n",
      .options = options,
      .arguments = {"MODEL"}};
  for (int pass = 0; pass < 2; pass++) {
    gptvq_quantize_options_recipe(&line->options,
                                  line->recipe == 1 ? GPTVQ_RECIPE_PAPER : GPTVQ_RECIPE_DEFAULT);
    if (!gptvq_cli_parse(&command, argc, argv, path, code)) return false;
  }
  return true;
}

/* Choices and second spellings; an exit code. */
static int finish(command_line *line) {
  gptvq_quantize_options *o = &line->options;
  if (line->no_act_order) o->act_order = 0;
  if (line->out == NULL && !line->dry_run)
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
  if (line->model_bits_given &&
      (line->bits_given || line->centroids_given || line->index_bits_given || line->group_size_given))
    return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT,
                           "--model-bits chooses the sizes of layers: leave out --bits, --index-bits, "
                           "--centroids and --group-size");
  /* both parts of the size are given: nothing is left for --bits to decide */
  if ((line->centroids_given || line->index_bits_given) && line->group_size_given) {
    if (line->bits_given)
      return gptvq_cli_error(
          GPTVQ_ERROR_ARGUMENT,
          "--bits follows from the size of index and group: give --bits and at most one of them");
    o->bits = 0;
  }
  if (o->code == GPTVQ_CODE_TRELLIS && (line->index_bits_given || line->centroids_given) && !line->bits_given)
    o->bits = 0;
  gptvq_quantize_options resolved = *o; /* says what is wrong before any work */
  gptvq_error err;
  if (gptvq_quantize_options_resolve(&resolved, &err) != GPTVQ_OK) return gptvq_cli_fail(&err);
  return 0;
}

/* A number of the folders, null when they could not be read back. */
static json_t *byte_count(bool known, uint64_t bytes) {
  return known ? json_integer((json_int_t)bytes) : json_null();
}

/* null where no time was estimated */
static json_t *estimate(const gptvq_quantize_report *r, double seconds) {
  return r->estimated_seconds > 0 ? json_real(seconds) : json_null();
}

static json_t *stages_json(const gptvq_quantize_report *r) {
  json_t *stages = json_array();
  for (size_t i = 0; i < r->stage_count; i++) {
    const gptvq_stage_time *s = &r->stages[i];
    const double device = r->stage_device_seconds[i];
    gptvq_cli_json_append(stages, json_pack("{s:s, s:f, s:o, s:f, s:f, s:s, s:f}", "name", s->name, "seconds",
                                            s->seconds, "estimated_seconds",
                                            estimate(r, r->stage_estimated_seconds[i]), "cpu_seconds",
                                            s->cpu_seconds, "flop", s->flop, "device",
                                            device > 0 ? r->device : "cpu", "device_seconds", device));
  }
  return stages;
}

/* Calibration tokens of one block's experts: null where they are not known. */
static json_t *expert_json(const gptvq_quantize_report *r) {
  json_t *blocks = json_array();
  for (size_t b = 0; r->expert_tokens != NULL && b < r->expert_blocks; b++) {
    const uint64_t *tokens = r->expert_tokens + b * r->experts;
    json_t *list = tokens[0] == UINT64_MAX ? json_null() : json_array();
    for (size_t e = 0; tokens[0] != UINT64_MAX && e < r->experts; e++)
      gptvq_cli_json_append(list, json_integer((json_int_t)tokens[e]));
    gptvq_cli_json_append(blocks, list);
  }
  return blocks;
}

/* One line for each block: how unevenly its tokens fell on its experts. */
static void print_experts(const gptvq_quantize_report *r) {
  if (r->expert_tokens == NULL) return;
  printf("calibration tokens of the %zu experts\n      block      fewest        mean        most   without "
         "any\n",
         r->experts);
  for (size_t b = 0; b < r->expert_blocks; b++) {
    const uint64_t *tokens = r->expert_tokens + b * r->experts;
    if (tokens[0] == UINT64_MAX) continue;
    uint64_t fewest = tokens[0], most = tokens[0], sum = 0;
    size_t none = 0;
    for (size_t e = 0; e < r->experts; e++) {
      fewest = tokens[e] < fewest ? tokens[e] : fewest;
      most = tokens[e] > most ? tokens[e] : most;
      sum += tokens[e];
      none += tokens[e] == 0;
    }
    printf("%11zu %11llu %11.1f %11llu %13zu\n", b, (unsigned long long)fewest,
           (double)sum / (double)r->experts, (unsigned long long)most, none);
  }
}

static json_t *loss_json(const gptvq_quantize_loss *loss) {
  if (loss->tokens == 0) return json_null();
  return json_pack("{s:o, s:o, s:o, s:o, s:I, s:b}", "kl", gptvq_cli_number(loss->kl), "kl_stderr",
                   gptvq_cli_number(loss->kl_stderr), "perplexity_before",
                   gptvq_cli_number(loss->perplexity_before), "perplexity",
                   gptvq_cli_number(loss->perplexity), "tokens", (json_int_t)loss->tokens, "seen",
                   loss->seen);
}

static void print_loss(const char *name, const char *on, const gptvq_quantize_loss *loss) {
  if (loss->tokens == 0) return;
  printf("%-16s KL divergence %.4f +- %.4f, perplexity %.2f -> %.2f (%llu predictions of %s)\n", name,
         loss->kl, loss->kl_stderr, loss->perplexity_before, loss->perplexity,
         (unsigned long long)loss->tokens, on);
}

/* A stage that a device took part in, by the time that it took. */
static void print_device(const gptvq_quantize_report *r, size_t stage) {
  const double seconds = r->stages[stage].seconds, device = r->stage_device_seconds[stage];
  if (device > 5e-4 * seconds)
    printf("   %s %5.1f %% of %.1f s", r->device, 100.0 * device / seconds, seconds);
}

/* Where the CPU time went, the longest first. */
static void print_stages(const gptvq_quantize_report *r) {
  bool shown[GPTVQ_MAX_STAGES] = {false};
  printf("CPU time         %.1f s (GFLOP/s: %s)\n", r->cpu_seconds, GPTVQ_CLI_COUNTED);
  for (size_t n = 0; n < r->stage_count; n++) {
    const gptvq_stage_time *most = NULL;
    for (size_t i = 0; i < r->stage_count; i++)
      if (!shown[i] && (most == NULL || r->stages[i].cpu_seconds > most->cpu_seconds)) most = &r->stages[i];
    shown[most - r->stages] = true;
    if (most->cpu_seconds < 0.0005 * r->cpu_seconds) break;
    printf("  %-18s %9.1f s %5.1f %%", most->name, most->cpu_seconds,
           100.0 * most->cpu_seconds / r->cpu_seconds);
    if (most->flop > 0) printf(" %7.1f GFLOP/s a core", 1e-9 * most->flop / most->cpu_seconds);
    print_device(r, (size_t)(most - r->stages));
    printf("\n");
  }
}

/* The output is complete: when the folders cannot be read back, the report is shorter, and that is all. */
static int report(const command_line *line, const char *path, const gptvq_quantize_report *r) {
  gptvq_model_info info[2];
  for (size_t i = 0; i < 2; i++) gptvq_model_info_init(&info[i]);
  const char *paths[2] = {path, line->out};
  char method[32] = "";
  gptvq_error err;
  if (gptvq_quantize_options_get(&line->options, "method", method, sizeof method, &err) != GPTVQ_OK)
    return gptvq_cli_fail(&err);
  const gptvq_model_options open = {.size = sizeof open, .compute = GPTVQ_COMPUTE_FP32};
  bool known = true;
  for (size_t i = 0; i < 2 && known; i++) {
    gptvq_model *model;
    known = gptvq_model_open(paths[i], &open, &model, &err) == GPTVQ_OK;
    if (!known) {
      gptvq_cli_warn("%s is complete, but the report lacks sizes: %s", line->out, err.message);
      break;
    }
    gptvq_model_get_info(model, &info[i]);
    gptvq_model_close(model);
  }
  uint64_t before = info[0].linear_bytes + info[0].other_bytes,
           after = info[1].linear_bytes + info[1].other_bytes;
  const bool calibrated = r->calib_compute != GPTVQ_COMPUTE_AUTO;
  if (line->json) {
    return gptvq_cli_print_json(json_pack(
        "{s:o, s:o, s:s, s:f, s:o, s:o, s:I, s:I, s:o, s:o, s:o, s:f, s:o, s:f, s:I, s:I, s:I, s:I, "
        "s:o, s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:I, s:I, s:I}",
        "model", gptvq_cli_text(path), "output", gptvq_cli_text(line->out), "method", method,
        "bits_per_value", r->bits_per_value, "model_bits_per_value",
        gptvq_cli_number(known ? info[1].model_bits_per_value : NAN), "mean_error",
        gptvq_cli_number(r->mean_error), "linear_values", (json_int_t)r->linear_values, "linear_bytes",
        (json_int_t)r->linear_bytes, "linear_bytes_before", byte_count(known, info[0].linear_bytes),
        "tensor_bytes_before", byte_count(known, before), "tensor_bytes", byte_count(known, after), "seconds",
        r->seconds, "estimated_seconds", estimate(r, r->estimated_seconds), "cpu_seconds", r->cpu_seconds,
        "peak_bytes", (json_int_t)r->peak_bytes, "estimated_peak_bytes", (json_int_t)r->estimated_peak_bytes,
        "layers", (json_int_t)r->layers, "blocks_resumed", (json_int_t)r->blocks_resumed, "finetune_before",
        gptvq_cli_number(r->finetune_before), "finetune_after", gptvq_cli_number(r->finetune_after),
        "calib_compute", calibrated ? json_string(gptvq_compute_name(r->calib_compute)) : json_null(),
        "device", r->device, "stages", stages_json(r), "expert_tokens", expert_json(r), "loss_text",
        loss_json(&r->loss_text), "loss_self", loss_json(&r->loss_self), "ranks", (json_int_t)r->ranks,
        "sent_bytes", (json_int_t)r->sent_bytes, "sent_bytes_block", (json_int_t)r->sent_bytes_block));
  }
  char a[GPTVQ_CLI_SIZE_TEXT], b[GPTVQ_CLI_SIZE_TEXT];
  printf("wrote            %s (%s)\n", line->out, method);
  printf("bits per value   %.4f in %llu weights of %zu linear layers, from the bytes written\n",
         r->bits_per_value, (unsigned long long)r->linear_values, r->layers);
  if (known) {
    printf("linear layers    %s -> %s\n", gptvq_cli_size_text(info[0].linear_bytes, a),
           gptvq_cli_size_text(r->linear_bytes, b));
    printf("whole model      %s -> %s (%.4f bits per value)\n", gptvq_cli_size_text(before, a),
           gptvq_cli_size_text(after, b), info[1].model_bits_per_value);
  }
  if (calibrated) printf("calibration      in %s\n", gptvq_compute_name(r->calib_compute));
  if (r->ranks > 1)
    printf("processes        %zu, which sent %s, at most %s for a block\n", r->ranks,
           gptvq_cli_size_text(r->sent_bytes, a), gptvq_cli_size_text(r->sent_bytes_block, b));
  printf("mean error       %.5f of a layer's output\n", r->mean_error);
  if (isfinite(r->finetune_before))
    printf("fine-tuning      KL divergence %.5f -> %.5f nats per token\n", r->finetune_before,
           r->finetune_after);
  print_loss("loss on the text",
             r->loss_text.seen ? "windows that were calibrated on"
                               : "windows held out of the calibration text",
             &r->loss_text);
  print_loss("on its own text", "what the model itself writes, not seen by calibration", &r->loss_self);
  printf("time             %s", gptvq_cli_time_text(r->seconds, a));
  if (r->estimated_seconds > 0) printf(" (estimated %s)", gptvq_cli_time_text(r->estimated_seconds, b));
  if (r->blocks_resumed > 0) printf(" (%zu blocks were already there)", r->blocks_resumed);
  printf("\npeak memory      %s", gptvq_cli_size_text(r->peak_bytes, a));
  if (r->estimated_peak_bytes > 0) printf(" (estimated %s)", gptvq_cli_size_text(r->estimated_peak_bytes, b));
  printf("\n");
  print_experts(r);
  print_stages(r);
  return gptvq_cli_flush();
}

static int print_plan_json(const gptvq_quantize_plan *p) {
  json_t *phases = json_array(), *stages = json_array();
  for (size_t i = 0; i < p->phase_count; i++)
    if (p->phases[i].bytes > 0)
      gptvq_cli_json_append(phases, json_pack("{s:s, s:I}", "name", p->phases[i].name, "peak_bytes",
                                              (json_int_t)p->phases[i].bytes));
  for (size_t i = 0; i < p->stage_count; i++)
    if (p->stages[i].seconds > 0)
      gptvq_cli_json_append(stages, json_pack("{s:s, s:f, s:f}", "name", p->stages[i].name, "seconds",
                                              p->stages[i].seconds, "flop", p->stages[i].flop));
  return gptvq_cli_print_json(
      json_pack("{s:I, s:s, s:f, s:b, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:o, s:f, s:o}", "linear_values",
                (json_int_t)p->linear_values, "format", p->format, "bits", p->bits, "allocates", p->allocates,
                "embedding_bits", (int)p->embedding_bits, "head_bits", (int)p->head_bits, "output_bytes",
                (json_int_t)p->output_bytes, "limit_bytes", (json_int_t)p->limit_bytes, "peak_bytes",
                (json_int_t)p->peak_bytes, "least_bytes", (json_int_t)p->least_bytes, "scratch_bytes",
                (json_int_t)p->scratch_bytes, "phases", phases, "seconds", p->seconds, "stages", stages));
}

static int print_plan(const gptvq_quantize_plan *p) {
  char a[GPTVQ_CLI_SIZE_TEXT], b[GPTVQ_CLI_SIZE_TEXT];
  printf("output           %s, %llu weights quantized\n", gptvq_cli_size_text(p->output_bytes, a),
         (unsigned long long)p->linear_values);
  printf("sizes            %s, %s%.4f bits per weight, embedding %u, output head %u\n", p->format,
         p->allocates ? "at most " : "", p->bits, p->embedding_bits, p->head_bits);
  printf("peak memory      %s of %s; at least %s\n", gptvq_cli_size_text(p->peak_bytes, a),
         p->limit_bytes > 0 ? gptvq_cli_size_text(p->limit_bytes, b) : "?",
         gptvq_cli_size_text(p->least_bytes, (char[GPTVQ_CLI_SIZE_TEXT]){0}));
  for (size_t i = 0; i < p->phase_count; i++)
    if (p->phases[i].bytes > 0)
      printf("  %-18s %11s\n", p->phases[i].name, gptvq_cli_size_text(p->phases[i].bytes, a));
  if (p->scratch_bytes > 0)
    printf("scratch files    %s in OUT.partial\n", gptvq_cli_size_text(p->scratch_bytes, a));
  printf("time             %s\n", gptvq_cli_time_text(p->seconds, a));
  for (size_t i = 0; i < p->stage_count; i++)
    if (p->stages[i].seconds > 0.0005 * p->seconds) {
      printf("  %-18s %11s", p->stages[i].name, gptvq_cli_time_text(p->stages[i].seconds, a));
      if (p->stages[i].flop > 0) printf(" %10.3f TFLOP", p->stages[i].flop * 1e-12);
      printf("\n");
    }
  return gptvq_cli_flush();
}

/* --dry-run */
static int show_plan(const command_line *line, const char *path) {
  gptvq_quantize_plan plan;
  gptvq_quantize_plan_init(&plan);
  gptvq_error err;
  if (gptvq_quantize_plan_make(path, &line->options, NULL, &plan, &err) != GPTVQ_OK)
    return gptvq_cli_fail(&err);
  return line->json ? print_plan_json(&plan) : print_plan(&plan);
}

static int stop(void) { return gptvq_cli_interrupted(); }

/* The exit code after one line, whichever of the processes says it. */
static int fail(const gptvq_team *team, const gptvq_error *err) {
  const int speaks = gptvq_mpi_speaks(err->status);
  if (speaks) {
    gptvq_error own = *err;
    gptvq_cli_set_mute(false);
    if (team->rank > 0)
      (void)snprintf(own.message, sizeof own.message, "rank %zu: %.990s", team->rank, err->message);
    (void)gptvq_cli_fail(&own);
  }
  if (team->count > 1) gptvq_cli_in_team(1); /* all is said */
  gptvq_mpi_abort(speaks, (int)err->status);
  return (int)err->status;
}

int gptvq_cmd_quantize(int argc, char **argv) {
  command_line line;
  memset(&line, 0, sizeof line);
  const char *path;
  int code;
  size_t rank; /* what the command line is told is said once */
  if (gptvq_mpi_launched(&rank) > 1) {
    gptvq_cli_set_mute(rank > 0);
    gptvq_cli_in_team(rank);
  }
  if (!parse(&line, argc, argv, &path, &code) || (code = finish(&line)) != 0) {
    if (rank > 0) (void)sleep(1); /* mpirun ends the others with the first that ends */
    return code;
  }
  if (line.dry_run) return rank > 0 ? 0 : show_plan(&line, path);
  gptvq_team team;
  gptvq_error err;
  if (gptvq_mpi_join(stop, &team, &err) != GPTVQ_OK) return fail(&team, &err);
  if (team.count > 1) gptvq_cli_in_team(team.rank);
  gptvq_cli_progress progress;
  gptvq_callbacks callbacks = gptvq_cli_progress_callbacks(&progress);
  gptvq_quantize_report result = {.size = sizeof result};
  gptvq_status status = gptvq_quantize_team(path, line.out, &line.options, &callbacks, &team, &result, &err);
  gptvq_cli_progress_end(&progress);
  if (status != GPTVQ_OK) return fail(&team, &err);
  gptvq_mpi_leave();
  code = team.rank > 0 ? 0 : report(&line, path, &result);
  gptvq_free(result.expert_tokens);
  return code;
}
