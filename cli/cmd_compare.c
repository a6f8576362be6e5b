/* gptvq compare: how far the predictions of model B are from those of model A. */
#include "cli.h"

#include <stdlib.h>

static int run(gptvq_cli_eval *eval, const char *const paths[2], gptvq_model *const models[2],
               const gptvq_tokenizer *tokenizer) {
  gptvq_cli_progress progress;
  gptvq_callbacks callbacks = gptvq_cli_progress_callbacks(&progress);
  gptvq_compare_result result = {.size = sizeof result};
  gptvq_error err;
  for (size_t i = 0; i < 2; i++) gptvq_cli_eval_warn(eval, paths[i], models[i]);
  double start = gptvq_cli_clock();
  gptvq_status status = gptvq_compare_text(models[0], models[1], tokenizer, eval->text, eval->text_size,
                                           &eval->options, &callbacks, &result, &err);
  double seconds = gptvq_cli_clock() - start;
  gptvq_cli_progress_end(&progress);
  if (status != GPTVQ_OK) return gptvq_cli_fail(&err);
  gptvq_model_info info[2];
  for (size_t i = 0; i < 2; i++) {
    gptvq_model_info_init(&info[i]);
    gptvq_model_get_info(models[i], &info[i]);
  }
  if (eval->json) {
    json_t *object =
        json_pack("{s:o, s:o, s:o, s:o, s:o, s:f, s:o, s:o, s:o, s:o, s:f, s:f, s:I}", "model_a",
                  gptvq_cli_text(paths[0]), "model_b", gptvq_cli_text(paths[1]), "kl_mean",
                  gptvq_cli_number(result.kl_mean), "kl_stderr", gptvq_cli_number(result.kl_stderr), "kl_max",
                  gptvq_cli_number(result.kl_max), "top1_agreement", result.top1_agreement, "perplexity_a",
                  gptvq_cli_number(result.perplexity_a), "perplexity_b",
                  gptvq_cli_number(result.perplexity_b), "nll_a", gptvq_cli_number(result.nll_a), "nll_b",
                  gptvq_cli_number(result.nll_b), "bits_per_value_a", info[0].bits_per_value,
                  "bits_per_value_b", info[1].bits_per_value, "tokens", (json_int_t)result.tokens);
    gptvq_cli_eval_json_run(object, eval, result.windows, result.ctx, result.score_from, seconds);
    return gptvq_cli_print_json(object);
  }
  printf("perplexity A      %.4f  (%.4f bits per value)  %s\n", result.perplexity_a, info[0].bits_per_value,
         paths[0]);
  printf("perplexity B      %.4f  (%.4f bits per value)  %s\n", result.perplexity_b, info[1].bits_per_value,
         paths[1]);
  printf("ratio B / A       %.5f\n", result.perplexity_b / result.perplexity_a);
  printf("KL(A || B)        %.6f +- %.6f nats per token, largest %.3f\n", result.kl_mean, result.kl_stderr,
         result.kl_max);
  printf("top-1 agreement   %.2f %%\n", 100 * result.top1_agreement);
  printf("predictions       %llu (%zu window%s of %zu tokens", (unsigned long long)result.tokens,
         result.windows, result.windows == 1 ? "" : "s", result.ctx);
  if (result.score_from > 1) printf(", scored from position %zu", result.score_from);
  char time[GPTVQ_CLI_SIZE_TEXT];
  printf(")\ntime              %s\n", gptvq_cli_time_text(seconds, time));
  return gptvq_cli_flush();
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
                  "      mean KL(A || B) with its standard error, top-1 agreement, both perplexities\n",
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
  if (code == 0) code = run(&eval, paths, models, tokenizer);
  gptvq_tokenizer_close(tokenizer);
  for (size_t i = 0; i < 2; i++) gptvq_model_close(models[i]);
  free(eval.text);
  return code;
}
