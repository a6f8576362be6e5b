/* gptvq compare: how far the predictions of model B are from those of model A. */
#include "cli.h"

static json_t *as_json(const gptvq_compare_result *r, const char *const paths[2],
                       const gptvq_model_info info[2]) {
  return json_pack("{s:o, s:o, s:o, s:o, s:o, s:f, s:o, s:o, s:o, s:o, s:f, s:f, s:I}", "model_a",
                   gptvq_cli_text(paths[0]), "model_b", gptvq_cli_text(paths[1]), "kl_mean",
                   gptvq_cli_number(r->kl_mean), "kl_stderr", gptvq_cli_number(r->kl_stderr), "kl_max",
                   gptvq_cli_number(r->kl_max), "top1_agreement", r->top1_agreement, "perplexity_a",
                   gptvq_cli_number(r->perplexity_a), "perplexity_b", gptvq_cli_number(r->perplexity_b),
                   "nll_a", gptvq_cli_number(r->nll_a), "nll_b", gptvq_cli_number(r->nll_b),
                   "bits_per_value_a", info[0].bits_per_value, "bits_per_value_b", info[1].bits_per_value,
                   "tokens", (json_int_t)r->tokens);
}

static void print_one(const gptvq_compare_result *r, const char *const paths[2],
                      const gptvq_model_info info[2], double seconds) {
  char time[GPTVQ_CLI_SIZE_TEXT];
  printf("perplexity A      %.4f  (%.4f bits per value)  %s\n", r->perplexity_a, info[0].bits_per_value,
         paths[0]);
  printf("perplexity B      %.4f  (%.4f bits per value)  %s\n", r->perplexity_b, info[1].bits_per_value,
         paths[1]);
  printf("ratio B / A       %.5f\n", r->perplexity_b / r->perplexity_a);
  printf("KL(A || B)        %.6f +- %.6f nats per token, largest %.3f\n", r->kl_mean, r->kl_stderr,
         r->kl_max);
  printf("top-1 agreement   %.2f %%\n", 100 * r->top1_agreement);
  printf("predictions       %llu (%zu window%s of %zu tokens", (unsigned long long)r->tokens, r->windows,
         r->windows == 1 ? "" : "s", r->ctx);
  if (r->score_from > 1) printf(", scored from position %zu", r->score_from);
  printf(")\ntime              %s\n", gptvq_cli_time_text(seconds, time));
}

/* One text; its row, and its object into `texts`. An exit code; *kept: that of --record, where it failed. */
static int compare(gptvq_cli_eval *eval, size_t i, const char *const paths[2], gptvq_model *const models[2],
                   const gptvq_tokenizer *tokenizer, json_t *texts, double *kl, int *kept) {
  gptvq_cli_progress progress;
  gptvq_callbacks callbacks = gptvq_cli_progress_callbacks(&progress);
  gptvq_compare_result result = {.size = sizeof result};
  gptvq_model_info info[2];
  gptvq_error err;
  gptvq_cli_eval_choose(eval, i);
  double start = gptvq_cli_clock();
  gptvq_status status = gptvq_compare_text(models[0], models[1], tokenizer, eval->texts[i], eval->sizes[i],
                                           &eval->options, &callbacks, &result, &err);
  double seconds = gptvq_cli_clock() - start;
  gptvq_cli_progress_end(&progress);
  if (status != GPTVQ_OK) return gptvq_cli_fail(&err);
  for (size_t m = 0; m < 2; m++) {
    gptvq_model_info_init(&info[m]);
    gptvq_model_get_info(models[m], &info[m]);
  }
  json_t *object = as_json(&result, paths, info);
  gptvq_cli_eval_json_run(object, eval, i, result.windows, result.ctx, result.score_from, seconds);
  gptvq_cli_json_append(texts, object);
  const int code = gptvq_cli_eval_record(eval, paths[1], object);
  if (code != 0) *kept = code; /* the figures are there: they are printed all the same */
  *kl = result.kl_mean;
  if (eval->json) return 0;
  if (eval->count == 1) {
    print_one(&result, paths, info, seconds);
    return 0;
  }
  const int width = gptvq_cli_eval_width(eval);
  if (i == 0) printf("%-*s  KL(A || B)            same top  perplexity A       B / A\n", width, "text");
  printf("%-*s  %.6f +- %.6f  %6.2f %%  %12.4f  %10.5f\n", width, eval->options.name, result.kl_mean,
         result.kl_stderr, 100 * result.top1_agreement, result.perplexity_a,
         result.perplexity_b / result.perplexity_a);
  (void)fflush(stdout); /* as soon as it is known */
  return 0;
}

static int run(gptvq_cli_eval *eval, const char *const paths[2], gptvq_model *const models[2],
               const gptvq_tokenizer *tokenizer) {
  json_t *texts = json_array();
  double sum = 0, worst = 0;
  int code = 0, kept = 0;
  for (size_t i = 0; i < 2; i++) gptvq_cli_eval_warn(eval, paths[i], models[i]);
  for (size_t i = 0; i < eval->count && code == 0; i++) {
    double kl = 0;
    code = compare(eval, i, paths, models, tokenizer, texts, &kl, &kept);
    if (code != 0) break;
    sum += kl;
    if (kl > worst) worst = kl;
  }
  if (code == 0 && eval->json) {
    code = gptvq_cli_eval_print_json(eval, texts);
    return kept != 0 ? kept : code;
  }
  json_decref(texts);
  if (code != 0) return code;
  if (eval->count > 1) {
    const int width = gptvq_cli_eval_width(eval);
    printf("%-*s  %.6f\n%-*s  %.6f\n", width, "mean", sum / (double)eval->count, width, "worst", worst);
  }
  code = gptvq_cli_flush();
  return kept != 0 ? kept : code;
}

int gptvq_cmd_compare(int argc, char **argv) {
  gptvq_cli_eval eval;
  gptvq_option options[GPTVQ_CLI_EVAL_OPTIONS];
  gptvq_cli_eval_init(&eval);
  gptvq_cli_eval_table(&eval, options);
  const gptvq_cli_command command = {
      .name = "compare",
      .usage = "A B --text FILE [options]",
      .summary =
          "KL divergence of model B's predictions from model A's, and how often their first choices agree",
      .examples = "  gptvq compare Llama-2-7b/ small/ --text wiki.test.txt --ctx 2048\n"
                  "      mean KL(A || B) with its standard error, top-1 agreement, both perplexities\n"
                  "  gptvq compare Llama-2-7b/ small/ --text prose.txt --text code.txt --text german.txt\n"
                  "      a row for each kind of text, their mean and the worst\n"
                  "  gptvq compare Llama-2-7b/ small/ --text wiki.test.txt --device cuda --compute bf16\n"
                  "      on a card\n",
      .options = options,
      .arguments = {"A", "B"}};
  const char *paths[2];
  int code;
  if (!gptvq_cli_parse(&command, argc, argv, paths, &code)) return code;
  gptvq_model *models[2] = {NULL, NULL};
  gptvq_tokenizer *tokenizer = NULL;
  gptvq_error err;
  code = gptvq_cli_eval_load(&eval, command.name);
  if (code == 0 && (gptvq_cli_open_model(paths[0], &eval.model_options, &models[0], &err) != GPTVQ_OK ||
                    gptvq_cli_open_model(paths[1], &eval.model_options, &models[1], &err) != GPTVQ_OK ||
                    gptvq_tokenizer_open(paths[0], &tokenizer, &err) != GPTVQ_OK))
    code = gptvq_cli_fail(&err);
  if (code == 0 && eval.record) code = gptvq_cli_eval_packed(paths[1], models[1]);
  if (code == 0) code = gptvq_cli_eval_open_device(&eval, models[0], models[1]);
  if (code == 0) code = run(&eval, paths, models, tokenizer);
  gptvq_tokenizer_close(tokenizer);
  for (size_t i = 0; i < 2; i++) gptvq_model_close(models[i]);
  gptvq_cli_eval_release(&eval);
  return code;
}
