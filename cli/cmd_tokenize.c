/* gptvq tokenize: text to token ids and back. */
#include "cli.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { IDS_PER_LINE = 32 };

/* Ids on lines of IDS_PER_LINE, or as one JSON list on one line. */
static int print_ids(const int32_t *ids, size_t count, bool json) {
  if (json) printf("[");
  for (size_t i = 0; i < count; i++) {
    bool ends_line = !json && (i % IDS_PER_LINE == IDS_PER_LINE - 1 || i + 1 == count);
    printf("%d%s", (int)ids[i], json ? (i + 1 < count ? ", " : "") : ends_line ? "\n" : " ");
  }
  if (json) printf("]\n");
  return gptvq_cli_flush();
}

/* The ids in text: separated by white space, commas and line breaks, with or without the brackets of a JSON
 * list. */
static gptvq_status parse_ids(const char *path, const char *text, size_t size, size_t vocab, int32_t **out,
                              size_t *count, gptvq_error *err) {
  size_t capacity = size / 2 + 1, n = 0;
  int32_t *ids = malloc(capacity * sizeof *ids);
  if (ids == NULL) {
    (void)snprintf(err->message, sizeof err->message, "out of memory: the ids of %s", path);
    return err->status = GPTVQ_ERROR_MEMORY;
  }
  for (const char *p = text; p < text + size;) {
    if (isspace((unsigned char)*p) || *p == ',' || *p == '[' || *p == ']') {
      p++;
      continue;
    }
    char *end;
    errno = 0;
    long long value = strtoll(p, &end, 10); /* the text ends in NUL */
    bool number = end != p && (*end == '\0' || isspace((unsigned char)*end) || *end == ',' || *end == ']');
    if (!number || errno != 0 || value < 0 || (unsigned long long)value >= vocab) {
      int shown = (int)strcspn(p, " \t\r\n,]");
      if (number)
        (void)snprintf(err->message, sizeof err->message,
                       "%s: token id %.*s is outside the vocabulary (0 to %zu)", path,
                       shown < 30 ? shown : 30, p, vocab - 1);
      else
        (void)snprintf(err->message, sizeof err->message, "%s: '%.*s' is not a token id", path,
                       shown < 30 ? shown : 30, p);
      free(ids);
      return err->status = GPTVQ_ERROR_DATA;
    }
    ids[n++] = (int32_t)value;
    p = end;
  }
  *out = ids;
  *count = n;
  return GPTVQ_OK;
}

static int decode(const gptvq_tokenizer *tokenizer, const char *path, const char *data, size_t size,
                  bool skip, bool json) {
  gptvq_error err;
  int32_t *ids;
  size_t count, text_size;
  char *text;
  if (parse_ids(path, data, size, gptvq_tokenizer_vocab_size(tokenizer), &ids, &count, &err) != GPTVQ_OK)
    return gptvq_cli_fail(&err);
  gptvq_status status = gptvq_tokenizer_decode(tokenizer, ids, count, skip, &text, &text_size, &err);
  free(ids);
  if (status != GPTVQ_OK) return gptvq_cli_fail(&err);
  int code = 0;
  if (json) {
    code = gptvq_cli_print_json(json_stringn(text, text_size));
  } else {
    (void)fwrite(text, 1, text_size, stdout); /* the bytes, and nothing but the bytes */
  }
  gptvq_free(text);
  return code != 0 ? code : gptvq_cli_flush();
}

int gptvq_cmd_tokenize(int argc, char **argv) {
  const char *text_path = NULL;
  int bos = 1, json = 0, back = 0, skip = 0, skip_given = 0;
  const gptvq_option options[] = {
      {GPTVQ_OPTION_STRING, "text", .value = &text_path, .argument = "FILE",
       .help = "the text, or with --decode the ids; - is standard input"},
      {GPTVQ_OPTION_SWITCH, "bos", .value = &bos,
       .help = "add what the tokenizer's template adds, usually a token in front\n(default: on)"},
      {GPTVQ_OPTION_FLAG, "decode", .value = &back,
       .help = "ids to text; ids are separated by spaces or commas, or a JSON list"},
      {GPTVQ_OPTION_FLAG, "skip-special", .value = &skip, .given = &skip_given,
       .help = "with --decode: leave special tokens out"},
      {GPTVQ_OPTION_FLAG, "json", .value = &json,
       .help = "print a JSON list of ids, with --decode a JSON string"},
      {.kind = GPTVQ_OPTION_END}};
  const gptvq_cli_command command = {.name = "tokenize",
                                     .usage = "MODEL --text FILE [options]",
                                     .summary = "token ids of a text, and back",
                                     .examples = "  gptvq tokenize Llama-2-7b/ --text story.txt\n"
                                                 "  gptvq tokenize Llama-2-7b/ --text story.txt --no-bos "
                                                 "--json | gptvq tokenize Llama-2-7b/ --text - --decode\n",
                                     .options = options,
                                     .arguments = {"MODEL", NULL}};
  const char *positional[GPTVQ_CLI_MAX_ARGUMENTS];
  int code;
  if (!gptvq_cli_parse(&command, argc, argv, positional, &code)) return code;
  if (text_path == NULL)
    return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "tokenize needs --text FILE (- for standard input)");
  if (skip_given && !back) return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "--skip-special goes with --decode");
  gptvq_error err;
  gptvq_tokenizer *tokenizer;
  char *data;
  size_t size, count;
  if (gptvq_tokenizer_open(positional[0], &tokenizer, &err) != GPTVQ_OK) return gptvq_cli_fail(&err);
  if (gptvq_cli_read_file(text_path, &data, &size, &err) != GPTVQ_OK) {
    gptvq_tokenizer_close(tokenizer);
    return gptvq_cli_fail(&err);
  }
  if (back) {
    code = decode(tokenizer, text_path, data, size, skip != 0, json != 0);
  } else {
    int32_t *ids;
    gptvq_cli_warn_encoding(text_path, data, size);
    if (gptvq_tokenizer_encode(tokenizer, data, size, bos, &ids, &count, &err) != GPTVQ_OK) {
      code = gptvq_cli_fail(&err);
    } else {
      code = print_ids(ids, count, json != 0);
      gptvq_free(ids);
    }
  }
  free(data);
  gptvq_tokenizer_close(tokenizer);
  return code;
}
