/* gptvq eval: perplexity of a model, original or packed, on a text, or its answers to questions. */
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
  int kept = 0; /* exit code of --record */
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
    const int code = gptvq_cli_eval_record(eval, path, object);
    if (code != 0) kept = code; /* the figures are there: they are printed all the same */
    if (eval->json) continue;
    if (eval->count == 1) print_one(&result, model);
    else if (i == 0) printf("%-*s  perplexity       nll  predictions\n", width, "text");
    if (eval->count > 1)
      printf("%-*s  %10.4f  %8.6f  %11llu\n", width, eval->options.name, result.perplexity, result.nll,
             (unsigned long long)result.tokens);
    (void)fflush(stdout); /* a row as soon as it is known */
  }
  int code;
  if (eval->json) {
    code = gptvq_cli_eval_print_json(eval, texts);
  } else {
    json_decref(texts);
    code = gptvq_cli_flush();
  }
  return kept != 0 ? kept : code;
}

static int run_task(gptvq_cli_eval *eval, const char *path, const gptvq_model *model,
                    const gptvq_tokenizer *tokenizer) {
  gptvq_cli_progress progress;
  gptvq_callbacks callbacks = gptvq_cli_progress_callbacks(&progress);
  gptvq_task_result r = {.size = sizeof r};
  gptvq_error err;
  char time[GPTVQ_CLI_SIZE_TEXT];
  gptvq_cli_eval_warn(eval, path, model);
  gptvq_cli_eval_choose(eval, 0);
  gptvq_status status =
      gptvq_eval_task(model, tokenizer, eval->texts[0], eval->sizes[0], &eval->options, &callbacks, &r, &err);
  gptvq_cli_progress_end(&progress);
  if (status != GPTVQ_OK) return gptvq_cli_fail(&err);
  if (r.cut > 0)
    gptvq_cli_warn(
        "%llu of %llu choices do not fit %zu tokens with their question, whose beginning is left out",
        (unsigned long long)r.cut, (unsigned long long)r.choices, r.ctx);
  if (eval->json) {
    json_t *object = json_object();
    gptvq_cli_json_set(object, "model", gptvq_cli_text(path));
    gptvq_cli_json_set(object, "task", gptvq_cli_text(eval->task_path));
    gptvq_cli_json_set(object, "accuracy", gptvq_cli_number(r.accuracy));
    gptvq_cli_json_set(object, "accuracy_stderr", gptvq_cli_number(r.accuracy_stderr));
    gptvq_cli_json_set(object, "accuracy_norm", gptvq_cli_number(r.accuracy_norm));
    gptvq_cli_json_set(object, "accuracy_norm_stderr", gptvq_cli_number(r.accuracy_norm_stderr));
    gptvq_cli_json_set(object, "questions", json_integer((json_int_t)r.questions));
    gptvq_cli_json_set(object, "choices", json_integer((json_int_t)r.choices));
    gptvq_cli_json_set(object, "cut", json_integer((json_int_t)r.cut));
    gptvq_cli_json_set(object, "ctx", json_integer((json_int_t)r.ctx));
    gptvq_cli_json_set(object, "bos", json_boolean(eval->options.bos));
    gptvq_cli_json_set(object, "compute", json_string(gptvq_compute_name((gptvq_compute)eval->compute)));
    gptvq_cli_json_set(object, "seconds", gptvq_cli_number(r.seconds));
    return gptvq_cli_print_json(object);
  }
  printf("accuracy        %.4f ± %.4f\n", r.accuracy, r.accuracy_stderr);
  printf("normalized      %.4f ± %.4f (by the length of the choices)\n", r.accuracy_norm,
         r.accuracy_norm_stderr);
  printf("questions       %llu with %llu choices\n", (unsigned long long)r.questions,
         (unsigned long long)r.choices);
  printf("time            %s\n", gptvq_cli_time_text(r.seconds, time));
  return gptvq_cli_flush();
}

int gptvq_cmd_eval(int argc, char **argv) {
  gptvq_cli_eval eval;
  gptvq_option options[GPTVQ_CLI_EVAL_OPTIONS + 1];
  gptvq_cli_eval_init(&eval);
  gptvq_cli_eval_table(&eval, options + 1);
  options[0] = options[1]; /* --text, --task, … */
  options[1] = (gptvq_option){
      GPTVQ_OPTION_STRING, "task", .value = &eval.task_path, .argument = "FILE",
      .help = "or questions to answer, a line of JSON each:\n"
              "{\"question\": \"…\", \"choices\": [\"…\", \"…\"], \"answer\": 0} (a number from 0, a letter\n"
              "from A, or the text); --max-windows are questions then"};
  const gptvq_cli_command command = {
      .name = "eval",
      .usage = "MODEL --text FILE | --task FILE [options]",
      .summary = "perplexity of a model folder, original or packed, on a text, or accuracy on questions",
      .examples = "  gptvq eval Llama-2-7b/ --text wiki.test.txt\n"
                  "      2048-token windows, every one predicted from its own start\n"
                  "  gptvq eval small/ --text wiki.test.txt --ctx 512 --score-from 256 --json\n"
                  "      llama.cpp's protocol, result as JSON\n"
                  "  gptvq eval small/ --text prose.txt --text code.txt\n"
                  "      a row for each\n"
                  "  gptvq eval Llama-2-7b/ --text wiki.test.txt --device cuda --compute bf16\n"
                  "      on a card\n"
                  "  gptvq eval small/ --task questions.jsonl\n"
                  "      multiple choice, as lm-evaluation-harness counts it\n",
      .options = options,
      .arguments = {"MODEL"}};
  const char *path;
  int code;
  if (!gptvq_cli_parse(&command, argc, argv, &path, &code)) return code;
  if (eval.text_paths != NULL && eval.task_path != NULL)
    return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "--text is predicted, --task answered: give one of them");
  if (eval.task_path != NULL && eval.options.score_from > 0)
    return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "--score-from is for --text");
  if (eval.task_path != NULL && eval.record)
    return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "--record is for --text");
  if (eval.task_path != NULL && eval.device_name != NULL)
    return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "--device is for --text: a --task is answered on the CPU");
  gptvq_model *model = NULL;
  gptvq_tokenizer *tokenizer = NULL;
  gptvq_error err;
  code = gptvq_cli_eval_load(&eval, command.name);
  if (code == 0 && (gptvq_cli_open_model(path, &eval.model_options, &model, &err) != GPTVQ_OK ||
                    gptvq_tokenizer_open(path, &tokenizer, &err) != GPTVQ_OK))
    code = gptvq_cli_fail(&err);
  if (code == 0 && eval.record) code = gptvq_cli_eval_packed(path, model);
  if (code == 0) code = gptvq_cli_eval_open_device(&eval, model, NULL);
  if (code == 0) code = (eval.task_path != NULL ? run_task : run)(&eval, path, model, tokenizer);
  gptvq_tokenizer_close(tokenizer);
  gptvq_model_close(model);
  gptvq_cli_eval_release(&eval);
  return code;
}
