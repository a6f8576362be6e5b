#include "cli.h"

#include <string.h>

static bool takes_value(const gptvq_option *option) {
  return option->kind != GPTVQ_OPTION_FLAG && option->kind != GPTVQ_OPTION_SWITCH;
}

/* ---- manual pages ---- */

/* Text for roff: no macros at the beginning of lines, no escapes, hyphens that can be copied. */
static void put_roff(const char *text, size_t size) {
  for (size_t i = 0; i < size; i++) {
    const bool first = i == 0 || text[i - 1] == '\n';
    if (first && (text[i] == '.' || text[i] == '\'')) printf("\\&");
    if (text[i] == '\\') printf("\\e");
    else if (text[i] == '-') printf("\\-");
    else putchar(text[i]);
  }
}
static void put_line(const char *text) {
  put_roff(text, strlen(text));
  putchar('\n');
}

static void put_options(const gptvq_option *options) {
  for (const gptvq_option *option = options; option->kind != GPTVQ_OPTION_END; option++) {
    if (option->kind == GPTVQ_OPTION_HEADING) {
      printf(".SS ");
      put_line(option->help);
      continue;
    }
    printf(".TP\n\\fB");
    if (option->letter != 0) printf("\\-%c\\fR, \\fB", option->letter);
    printf("\\-\\-%s", option->kind == GPTVQ_OPTION_SWITCH ? "[no\\-]" : "");
    put_roff(option->name, strlen(option->name));
    printf("\\fR");
    if (takes_value(option)) {
      printf(" \\fI");
      put_roff(option->argument, strlen(option->argument));
      printf("\\fR");
    }
    putchar('\n');
    put_roff(option->help, strlen(option->help));
    if (option->initial[0] != '\0') {
      printf(" (default: ");
      put_roff(option->initial, strlen(option->initial));
      putchar(')');
    }
    putchar('\n');
  }
}

void gptvq_cli_print_man(const gptvq_cli_command *command, const gptvq_option *common) {
  char name[64];
  (void)snprintf(name, sizeof name, "gptvq-%s", command->name);
  for (char *at = name; *at != '\0'; at++)
    if (*at == ' ') *at = '-';
  printf(".TH ");
  put_roff(name, strlen(name));
  printf(" 1 \"\" \"gptvq %s\" \"gptvq\"\n.SH NAME\n", gptvq_version());
  put_roff(name, strlen(name));
  printf(" \\- ");
  put_line(command->summary);
  printf(".SH SYNOPSIS\n\\fBgptvq ");
  put_roff(command->name, strlen(command->name));
  printf("\\fR ");
  put_line(command->usage);
  printf(".SH EXAMPLES\n.nf\n");
  put_line(command->examples);
  printf(".fi\n.SH OPTIONS\n");
  put_options(command->options);
  put_options(common);
  printf(".SH SEE ALSO\n\\fBgptvq\\fR(1)\n");
}

/* ---- words ---- */

static void put_word(const gptvq_option *option, const char *before) {
  const bool chosen = option->kind == GPTVQ_OPTION_CHOICE;
  printf("%s%s\t%s", before, option->name, chosen ? "" : takes_value(option) ? option->argument : "-");
  for (size_t i = 0; chosen && option->choices[i] != NULL; i++)
    printf("%c%s", i == 0 ? '=' : '|', option->choices[i]);
  printf("\t%.*s\n", (int)strcspn(option->help, "\n"), option->help);
}

void gptvq_cli_print_words(const gptvq_cli_command *command, const gptvq_option *common) {
  const gptvq_option *tables[2] = {command->options, common};
  for (size_t t = 0; t < 2; t++)
    for (const gptvq_option *option = tables[t]; option->kind != GPTVQ_OPTION_END; option++) {
      if (option->kind == GPTVQ_OPTION_HEADING) continue;
      put_word(option, "--");
      if (option->kind == GPTVQ_OPTION_SWITCH) put_word(option, "--no-");
    }
}
