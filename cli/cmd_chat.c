/* gptvq chat: a conversation, through the model's own template. */
#include "conversation.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "/system TEXT   what the model is told about its part; without TEXT: nothing\n"
    "/reset         begin again (the system message stays)\n"
    "/help          this\n"
    "/quit          leave, as Ctrl-D does\n"
    "Ctrl-C stops an answer; at the prompt, twice, it leaves. A line that ends in \\ goes on in the\n"
    "next one; one that begins with // says the rest after the first /.\n";

/* ---- one turn ---- */

static int report(gptvq_conversation *c, const char *path) {
  if (c->writer.json) return gptvq_cli_print_json(gptvq_cli_writer_json(&c->writer, path));
  (void)putchar('\n');
  int code = gptvq_cli_flush();
  if (code == 0) gptvq_cli_writer_note(&c->writer);
  return code;
}

static int say_once(gptvq_conversation *c, const char *path, const char *text) {
  gptvq_error err;
  char *read = NULL;
  size_t size = 0;
  if (text == NULL || strcmp(text, "-") == 0) {
    if (gptvq_cli_read_file("-", &read, &size, &err) != GPTVQ_OK) return gptvq_cli_fail(&err);
    while (size > 0 && (read[size - 1] == '\n' || read[size - 1] == '\r')) size--;
    if (size == 0) {
      free(read);
      return gptvq_cli_error(GPTVQ_ERROR_DATA, "standard input is empty: there is nothing to say");
    }
  } else {
    size = strlen(text);
  }
  int code = gptvq_conversation_open(c, path);
  gptvq_cli_hear_signals(); /* what was printed is ended in order */
  if (code == 0) code = gptvq_conversation_say(c, read != NULL ? read : text, size);
  free(read);
  if (code == 0) code = report(c, path);
  if (code == 0 && gptvq_cli_interrupted())
    code = gptvq_cli_error(GPTVQ_ERROR_CANCELLED, "stopped on request");
  return code;
}

/* ---- many turns ---- */

/* A line that begins with a slash; false: it was /quit. */
static bool obey(gptvq_conversation *c, const char *line, size_t size) {
  static const char *const commands[] = {"/system", "/reset", "/help", "/quit", "/exit", NULL};
  char word[16] = "";
  size_t length = 0;
  while (length < size && line[length] != ' ') length++;
  if (length < sizeof word) memcpy(word, line, length);
  const char *rest = line + length;
  size_t rest_size = size - length;
  while (rest_size > 0 && *rest == ' ') {
    rest++;
    rest_size--;
  }
  if (strcmp(word, "/quit") == 0 || strcmp(word, "/exit") == 0) return false;
  if (strcmp(word, "/reset") == 0) {
    gptvq_conversation_forget(c);
    gptvq_cli_note("the conversation begins again");
  } else if (strcmp(word, "/system") == 0) {
    if (gptvq_conversation_set_system(c, rest, rest_size) == 0)
      gptvq_cli_note("the system message is %s from the next question on",
                     rest_size > 0 ? "the new one" : "left out");
  } else if (strcmp(word, "/help") == 0) {
    (void)fputs(help, stdout);
  } else {
    const char *near = gptvq_cli_suggest(word, commands);
    if (near != NULL)
      (void)gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "unknown command %s; did you mean %s?", word, near);
    else
      (void)gptvq_cli_error(GPTVQ_ERROR_ARGUMENT,
                            "unknown command; /help lists them, // says a text that begins with /");
  }
  return true;
}

/* An answer and what there is to say about it; the exit code that ends the conversation, or 0. */
static int take_turn(gptvq_conversation *c, const char *text, size_t size) {
  int code = gptvq_conversation_say(c, text, size);
  (void)putchar('\n');
  int flushed = gptvq_cli_flush();
  if (flushed != 0) return flushed;
  if (gptvq_cli_interrupted()) {
    if (!gptvq_cli_forget_interrupt()) return gptvq_cli_error(GPTVQ_ERROR_CANCELLED, "stopped on request");
    gptvq_cli_note("(stopped)");
  } else if (code == 0 && strcmp(c->writer.stop, "context") == 0) {
    gptvq_cli_warn("the answer ends where the context of %zu tokens is full (--ctx N)", c->context);
  }
  /* what is wrong with this question need not be wrong with the next */
  return code == GPTVQ_ERROR_DATA || code == GPTVQ_ERROR_UNSUPPORTED ? 0 : code;
}

/* Appends a line to a text of several; false: out of memory. */
static bool append(char **text, size_t *size, const char *line, size_t more) {
  char *larger = realloc(*text, *size + more + 1);
  if (larger == NULL) return false;
  memcpy(larger + *size, line, more);
  *text = larger;
  *size += more;
  return true;
}

static int converse(gptvq_conversation *c, gptvq_cli_lines *lines) {
  char *text = NULL;
  size_t size = 0, length;
  int interrupts = 0, code = 0;
  for (bool going = true; going && code == 0;) {
    const char *line = gptvq_cli_lines_read(lines, &length);
    if (line == NULL && gptvq_cli_interrupted()) {
      if (!gptvq_cli_forget_interrupt()) code = gptvq_cli_error(GPTVQ_ERROR_CANCELLED, "stopped on request");
      else if (++interrupts == 2) going = false;
      else gptvq_cli_note("(Ctrl-C once more, or Ctrl-D, leaves)");
      size = 0;
      continue;
    }
    if (line == NULL) break;
    interrupts = 0;
    bool goes_on = length > 0 && line[length - 1] == '\\', first = size == 0;
    if (first && length > 1 && line[0] == '/' && line[1] == '/') line++, length--;
    else if (first && length > 0 && line[0] == '/') {
      going = obey(c, line, length);
      continue;
    }
    if (!append(&text, &size, line, goes_on ? length - 1 : length) ||
        (goes_on && !append(&text, &size, "\n", 1)))
      code = gptvq_cli_error(GPTVQ_ERROR_MEMORY, "out of memory: a text of %zu bytes", size + length);
    if (goes_on || code != 0) continue;
    if (size > 0) code = take_turn(c, text, size);
    size = 0;
  }
  free(text);
  return code;
}

static int talk(gptvq_conversation *c, const char *path) {
  int code = gptvq_conversation_open(c, path);
  gptvq_cli_hear_signals();
  if (code != 0) return code;
  gptvq_cli_lines *lines = gptvq_cli_lines_open();
  if (lines == NULL) return gptvq_cli_error(GPTVQ_ERROR_MEMORY, "out of memory: the prompt");
  gptvq_cli_note("%s, %zu tokens of context; /help lists the commands, Ctrl-D leaves", path, c->context);
  code = converse(c, lines);
  gptvq_cli_lines_close(lines);
  return code;
}

int gptvq_cmd_chat(int argc, char **argv) {
  enum { FIRST = 6 };
  gptvq_conversation c = {.most = 0};
  const char *path, *text = NULL;
  int interactive = 0, code;
  gptvq_cli_writer_init(&c.writer);
  const gptvq_option first[FIRST] = {
      {GPTVQ_OPTION_TEXT, "prompt", 'p', .value = &text, .argument = "TEXT",
       .help =
           "say TEXT, print the answer and leave; - reads it from standard input, as happens anyway when\n"
           "that is no terminal"},
      {GPTVQ_OPTION_STRING, "system", .value = &c.system, .argument = "TEXT",
       .help = "the system message: what the model is told about its part (default: the template's)"},
      {GPTVQ_OPTION_SIZE, "max-tokens", 'n', .value = &c.most, .min = 1, .max = 1 << 24, .argument = "N",
       .help = "tokens of an answer at most (default: as many as the context has room for)"},
      {GPTVQ_OPTION_SIZE, "ctx", .value = &c.context, .min = 16, .max = 1 << 24, .argument = "N",
       .help = "tokens of conversation that the model remembers (default: 4096, or the model's context if\n"
               "smaller)"},
      {GPTVQ_OPTION_STRING, "template", .value = &c.template_file, .argument = "FILE",
       .help = "a chat template (Jinja) instead of the model's"},
      {GPTVQ_OPTION_FLAG, "interactive", 'i', .value = &interactive,
       .help = "each line of standard input is a turn, though it is no terminal"}};
  gptvq_option options[FIRST + GPTVQ_CLI_SAMPLING_OPTIONS + GPTVQ_CLI_COMPUTE_OPTIONS + 1] = {
      {.kind = GPTVQ_OPTION_END}};
  memcpy(options, first, sizeof first);
  gptvq_cli_sampling_table(&c.writer, options + FIRST);
  gptvq_cli_compute_table(&c.writer, options + FIRST + GPTVQ_CLI_SAMPLING_OPTIONS);
  const gptvq_cli_command command = {
      .name = "chat",
      .usage = "MODEL [-p TEXT] [options]",
      .summary = "talk to a chat model, original or packed, through its own template",
      .examples = "  gptvq chat small/\n"
                  "      a conversation; /help lists its commands\n"
                  "  gptvq chat small/ --system \"You are a pirate.\" --temp 0.6\n"
                  "  gptvq chat small/ -p \"What is vector quantization?\"\n"
                  "      one answer\n"
                  "  gptvq chat small/ < question.txt > answer.txt\n",
      .options = options,
      .arguments = {"MODEL"}};
  if (!gptvq_cli_parse(&command, argc, argv, &path, &code)) return code;
  if (text != NULL && text[0] == '\0')
    return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "-p is empty: there is nothing to say");
  if (text != NULL && interactive)
    return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "-p TEXT is one turn, --interactive many: give one of them");
  bool many = interactive || (text == NULL && isatty(STDIN_FILENO) == 1);
  if (many && c.writer.json)
    return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT,
                           "--json is for one turn: give -p TEXT, or a text on standard input");
  code = many ? talk(&c, path) : say_once(&c, path, text);
  gptvq_conversation_close(&c);
  return code;
}
