/* gptvq eval: perplexity of a model, original or packed, on a text. */
#include "cli.h"

static void print_one(const gptvq_eval_result *result, const gptvq_model *model) {
  gptvq_model_info info = {.size = sizeof info};
  char time[GPTVQ_CLI_SIZE_TEXT];
  gptvq_model_get_info(model, &info);
  printf("perplexity      %.4f\n", result->perplexity);
  printf("nll             %.6f nats per token\n", result->nll);
  printf("predictions     %llu (%zu window%s of %zu tokens", (unsigned long long)result->tokens,
         result->windows, result->windows == 1 ? "" : "s", result->ctx);
  if (result->score_from > 1) printf(", scored from position %zu", result->score_from);
  printf(")\nbits per value  %.4f in the block linears, %.4f in the whole model\n", info.bits_per_value,
         info.model_bits_per_value);
  printf("time            %s, %.0f tokens/s\n", gptvq_cli_time_text(result->seconds, time),
         result->seconds > 0 ? (double)result->windows * (double)result->ctx / result->seconds : 0.0);
}

static int run(gptvq_cli_eval *eval, const char *path, const gptvq_model *model,
               const gptvq_tokenizer *tokenizer) {
  gptvq_cli_progress progress;
  gptvq_callbacks callbacks = gptvq_cli_progress_callbacks(&progress);
  gptvq_error err;
  json_t *texts = json_array();
  const int width = gptvq_cli_eval_width(eval);
  gptvq_cli_eval_warn(eval, path, model);
  for (size_t i = 0; i < eval->count; i++) {
    gptvq_eval_result result = {.size = sizeof result};
    gptvq_cli_eval_choose(eval, i);
    gptvq_status status = gptvq_eval_text(model, tokenizer, eval->texts[i], eval->sizes[i], &eval->options,
                                          &callbacks, &result, &err);
    gptvq_cli_progress_end(&progress);
    if (status != GPTVQ_OK) {
      json_decref(texts);
      return gptvq_cli_fail(&err);
    }
    json_t *object = gptvq_cli_eval_json(&result, path, model);
    gptvq_cli_eval_json_run(object, eval, i, result.windows, result.ctx, result.score_from, result.seconds);
    gptvq_cli_json_append(texts, object);
    if (eval->json) continue;
    if (eval->count == 1) print_one(&result, model);
    else if (i == 0) printf("%-*s  perplexity       nll  predictions\n", width, "text");
    if (eval->count > 1)
      printf("%-*s  %10.4f  %8.6f  %11llu\n", width, eval->options.name, result.perplexity, result.nll,
             (unsigned long long)result.tokens);
    (void)fflush(stdout); /* a row as soon as it is known */
  }
  if (eval->json) return gptvq_cli_eval_print_json(eval, texts);
  json_decref(texts);
  return gptvq_cli_flush();
}

int gptvq_cmd_eval(int argc, char **argv) {
  gptvq_cli_eval eval;
  gptvq_option options[GPTVQ_CLI_EVAL_OPTIONS];
  gptvq_cli_eval_init(&eval);
  gptvq_cli_eval_table(&eval, options);
  const gptvq_cli_command command = {
      .name = "eval",
      .usage = "MODEL --text FILE [options]",
      .summary = "perplexity of a model folder, original or packed, on a text",
      .examples = "  gptvq eval Llama-2-7b/ --text wiki.test.txt\n"
                  "      2048-token windows, every one predicted from its own start\n"
                  "  gptvq eval small/ --text wiki.test.txt --ctx 512 --score-from 256 --json\n"
                  "      llama.cpp's protocol, result as JSON\n"
                  "  gptvq eval small/ --text prose.txt --text code.txt\n"
                  "      a row for each\n",
      .options = options,
      .arguments = {"MODEL"}};
  const char *path;
  int code;
  if (!gptvq_cli_parse(&command, argc, argv, &path, &code)) return code;
  gptvq_model *model = NULL;
  gptvq_tokenizer *tokenizer = NULL;
  gptvq_error err;
  code = gptvq_cli_eval_load(&eval, command.name);
  if (code == 0 && (gptvq_cli_open_model(path, &eval.model_options, &model, &err) != GPTVQ_OK ||
                    gptvq_tokenizer_open(path, &tokenizer, &err) != GPTVQ_OK))
    code = gptvq_cli_fail(&err);
  if (code == 0) code = run(&eval, path, model, tokenizer);
  gptvq_tokenizer_close(tokenizer);
  gptvq_model_close(model);
  gptvq_cli_eval_release(&eval);
  return code;
}
