#include "cli.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int threads, quiet;
static const char *cpu;

static const gptvq_option common_options[] = {
    {GPTVQ_OPTION_HEADING, .help = "Everywhere"},
    {GPTVQ_OPTION_INT, "threads", .value = &threads, .min = 0, .max = 256, .argument = "N",
     .help = "threads to use; 0 = one per core (default). Results do not depend on it"},
    {GPTVQ_OPTION_STRING, "cpu", .value = &cpu, .argument = "LIST|LEVEL",
     .help =
         "CPUs to use, such as 0-3,6: one thread bound to each. Or the highest instruction set: auto, ref,\n"
         "avx2, avx512, amx, neon, dotprod (default: $GPTVQ_CPU or auto; for both, set the variable)"},
    {GPTVQ_OPTION_FLAG, "quiet", .value = &quiet, .help = "no progress, only warnings and errors"},
    {.kind = GPTVQ_OPTION_END}};

static bool takes_value(const gptvq_option *option) {
  return option->kind != GPTVQ_OPTION_FLAG && option->kind != GPTVQ_OPTION_SWITCH;
}

/* ---- help ---- */

static void print_options(const gptvq_option *options) {
  enum { COLUMN = 30 };
  for (const gptvq_option *option = options; option->kind != GPTVQ_OPTION_END; option++) {
    if (option->kind == GPTVQ_OPTION_HEADING) {
      printf("\n%s:\n", option->help);
      continue;
    }
    char left[96];
    char letter[8] = "";
    if (option->letter != 0) (void)snprintf(letter, sizeof letter, "-%c, ", option->letter);
    (void)snprintf(left, sizeof left, "  %s--%s%s%s%s", letter,
                   option->kind == GPTVQ_OPTION_SWITCH ? "[no-]" : "", option->name,
                   takes_value(option) ? " " : "", takes_value(option) ? option->argument : "");
    printf("%-*s", COLUMN, left);
    if (strlen(left) >= COLUMN) printf("\n%*s", COLUMN, "");
    for (const char *line = option->help; line != NULL;) {
      const char *end = strchr(line, '\n');
      printf("%.*s", end != NULL ? (int)(end - line) : (int)strlen(line), line);
      if (end == NULL && option->initial[0] != '\0') printf(" (default: %s)", option->initial);
      printf("\n");
      line = end != NULL ? end + 1 : NULL;
      if (line != NULL) printf("%*s", COLUMN, "");
    }
  }
}

static void print_help(const gptvq_cli_command *command) {
  printf("gptvq %s: %s\n\n  gptvq %s %s\n", command->name, command->summary, command->name, command->usage);
  printf("\nExamples:\n%s", command->examples);
  if (command->options[0].kind != GPTVQ_OPTION_HEADING) printf("\nOptions:\n");
  print_options(command->options);
  print_options(common_options);
}

/* ---- suggestions ---- */

/* Levenshtein distance; words longer than the table are as far away as can be. */
static size_t distance(const char *a, const char *b) {
  enum { LONGEST = 40 };
  size_t row[LONGEST + 1], na = strlen(a), nb = strlen(b);
  if (na > LONGEST || nb > LONGEST) return LONGEST;
  for (size_t j = 0; j <= nb; j++) row[j] = j;
  for (size_t i = 1; i <= na; i++) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= nb; j++) {
      size_t best = diagonal + (a[i - 1] != b[j - 1]);
      if (row[j] + 1 < best) best = row[j] + 1;
      if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
      diagonal = row[j];
      row[j] = best;
    }
  }
  return row[nb];
}

const char *gptvq_cli_suggest(const char *word, const char *const *candidates) {
  const char *best = NULL;
  size_t best_distance = strlen(word) < 4 ? 2 : 3; /* further away it is a guess */
  for (; *candidates != NULL; candidates++) {
    size_t d = distance(word, *candidates);
    if (strlen(word) >= 3 && strncmp(word, *candidates, strlen(word)) == 0) d = d < 1 ? d : 1;
    if (d < best_distance) {
      best_distance = d;
      best = *candidates;
    }
  }
  return best;
}

static int unknown_option(const gptvq_cli_command *command, const char *argument, size_t length) {
  enum { MOST = 64 };
  const char *names[MOST + 1];
  size_t count = 0;
  const gptvq_option *tables[2] = {command->options, common_options};
  for (size_t t = 0; t < 2; t++)
    for (const gptvq_option *option = tables[t]; option->kind != GPTVQ_OPTION_END && count < MOST; option++)
      if (option->kind != GPTVQ_OPTION_HEADING) names[count++] = option->name;
  names[count] = NULL;
  char word[64];
  (void)snprintf(word, sizeof word, "%.*s", (int)(length < 60 ? length : 60), argument);
  const char *bare = word + strspn(word, "-"), *no = "";
  if (strncmp(bare, "no-", 3) == 0) {
    bare += 3;
    no = "no-";
  }
  const char *near = gptvq_cli_suggest(bare, names);
  if (near != NULL)
    return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "unknown option %s; did you mean --%s%s?", word, no, near);
  return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "unknown option %s; see gptvq %s --help", word, command->name);
}

/* ---- values ---- */

static int bad_choice(const char *shown, const gptvq_option *option, const char *text) {
  char list[256] = "";
  for (size_t i = 0, at = 0; option->choices[i] != NULL && at < sizeof list; i++)
    at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", i != 0 ? ", " : "", option->choices[i]);
  return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "option %s: '%s' is not one of %s", shown, text, list);
}

static int out_of_range(const char *shown, const gptvq_option *option, const char *text) {
  if (isinf(option->max) || option->max >= (double)SIZE_MAX)
    return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "option %s: %s is out of range, at least %.10g", shown, text,
                           option->min);
  return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "option %s: %s is out of range, %.10g to %.10g", shown, text,
                         option->min, option->max);
}

static int set_number(const char *shown, const gptvq_option *option, const char *text) {
  char *end;
  errno = 0;
  double value = strtod(text, &end);
  if (end == text || *end != '\0' || isnan(value) || text[0] == ' ')
    return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "option %s: '%s' is not a number", shown, text);
  bool zero = option->zero && value == 0;
  if (!zero && (value < option->min || value > option->max || isinf(value)))
    return out_of_range(shown, option, text);
  if (option->kind == GPTVQ_OPTION_DOUBLE) *(double *)option->value = value;
  else *(float *)option->value = (float)value;
  return 0;
}

static int set_integer(const char *shown, const gptvq_option *option, const char *text) {
  char *end;
  errno = 0;
  bool negative = text[0] == '-';
  const char *digits = text + (negative || text[0] == '+');
  unsigned long long value = strtoull(digits, &end, 10);
  if (digits[0] < '0' || digits[0] > '9' || *end != '\0') {
    double fraction = strtod(text, &end);
    if (end != text && *end == '\0' && !isnan(fraction))
      return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "option %s: '%s' is not a whole number", shown, text);
    return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "option %s: '%s' is not a number", shown, text);
  }
  if (option->kind == GPTVQ_OPTION_SEED) {
    if (errno == ERANGE || negative)
      return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "option %s: %s is out of range, 0 to %llu", shown, text,
                             ULLONG_MAX);
    *(uint64_t *)option->value = value;
    return 0;
  }
  double wide = negative ? -(double)value : (double)value;
  bool zero = option->zero && wide == 0;
  if (errno == ERANGE || (!zero && (wide < option->min || wide > option->max)))
    return out_of_range(shown, option, text);
  if (option->kind == GPTVQ_OPTION_INT)
    *(int *)option->value = negative ? (int)-(long long)value : (int)value;
  else if (option->kind == GPTVQ_OPTION_UNSIGNED) *(unsigned *)option->value = (unsigned)value;
  else *(size_t *)option->value = (size_t)value;
  return 0;
}

static int set_bytes(const char *shown, const gptvq_option *option, const char *text) {
  size_t bytes;
  gptvq_error err;
  if (gptvq_bytes_from_text(text, &bytes, &err) != GPTVQ_OK)
    return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "option %s: %s", shown, err.message);
  if (!(option->zero && bytes == 0) && ((double)bytes < option->min || (double)bytes > option->max))
    return out_of_range(shown, option, text);
  *(size_t *)option->value = bytes;
  return 0;
}

/* Joined texts are kept to the end of the process, as argv is. */
static int add_line(const gptvq_option *option, const char *text) {
  static struct joined {
    struct joined *before;
    char text[];
  } * all;
  const char **value = option->value;
  if (*value == NULL) {
    *value = text;
    return 0;
  }
  size_t size = strlen(*value) + 1 + strlen(text) + 1;
  struct joined *joined = malloc(sizeof *joined + size);
  if (joined == NULL) return gptvq_cli_error(GPTVQ_ERROR_MEMORY, "out of memory for the command line");
  joined->before = all;
  all = joined;
  (void)snprintf(joined->text, size, "%s\n%s", *value, text);
  *value = joined->text;
  return 0;
}

static int set_value(const char *shown, const gptvq_option *option, const char *text) {
  switch (option->kind) {
  case GPTVQ_OPTION_FLOAT:
  case GPTVQ_OPTION_DOUBLE: return set_number(shown, option, text);
  case GPTVQ_OPTION_INT:
  case GPTVQ_OPTION_UNSIGNED:
  case GPTVQ_OPTION_SIZE:
  case GPTVQ_OPTION_SEED: return set_integer(shown, option, text);
  case GPTVQ_OPTION_BYTES: return set_bytes(shown, option, text);
  case GPTVQ_OPTION_STRING:
    if (text[0] == '\0') return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "option %s: the value is empty", shown);
    *(const char **)option->value = text;
    return 0;
  case GPTVQ_OPTION_LINES:
    if (text[0] == '\0') return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "option %s: the value is empty", shown);
    return add_line(option, text);
  case GPTVQ_OPTION_TEXT: *(const char **)option->value = text; return 0;
  case GPTVQ_OPTION_CHOICE:
    for (int i = 0; option->choices[i] != NULL; i++) {
      if (strcmp(text, option->choices[i]) == 0) {
        *(int *)option->value = i;
        return 0;
      }
    }
    return bad_choice(shown, option, text);
  default: return gptvq_cli_error(GPTVQ_ERROR_INTERNAL, "option %s has no value", shown);
  }
}

/* ---- the command line ---- */

/* The option called name[0..length), or with *negated the switch called no-NAME. */
static const gptvq_option *find(const gptvq_cli_command *command, const char *name, size_t length,
                                bool *negated) {
  const gptvq_option *tables[2] = {command->options, common_options};
  for (size_t t = 0; t < 2; t++) {
    for (const gptvq_option *option = tables[t]; option->kind != GPTVQ_OPTION_END; option++) {
      if (option->kind == GPTVQ_OPTION_HEADING) continue;
      *negated = false;
      if (strlen(option->name) == length && strncmp(option->name, name, length) == 0) return option;
      *negated = option->kind == GPTVQ_OPTION_SWITCH && length > 3 && strncmp(name, "no-", 3) == 0 &&
                 strlen(option->name) == length - 3 && strncmp(option->name, name + 3, length - 3) == 0;
      if (*negated) return option;
    }
  }
  return NULL;
}

static const gptvq_option *find_letter(const gptvq_cli_command *command, char letter) {
  for (const gptvq_option *option = command->options; option->kind != GPTVQ_OPTION_END; option++)
    if (option->kind != GPTVQ_OPTION_HEADING && option->letter == letter) return option;
  return NULL;
}

/* Is it one of the command's options? Then it is not the value of the one before it. */
static bool looks_like_option(const gptvq_cli_command *command, const char *argument) {
  bool negated;
  return strncmp(argument, "--", 2) == 0 && argument[2] != '\0' &&
         find(command, argument + 2, strcspn(argument + 2, "="), &negated) != NULL;
}

/* One option at argv[*at] (and its value, which moves *at); an exit code, 0 to go on. */
static int parse_option(const gptvq_cli_command *command, int argc, char **argv, int *at) {
  const char *argument = argv[*at], *attached = NULL;
  const gptvq_option *option;
  bool negated = false;
  char shown[64];
  if (argument[1] == '-') {
    size_t length = strcspn(argument + 2, "=");
    if (argument[2 + length] == '=') attached = argument + 2 + length + 1;
    option = find(command, argument + 2, length, &negated);
    if (option == NULL) return unknown_option(command, argument, length + 2);
    (void)snprintf(shown, sizeof shown, "--%s%s", negated ? "no-" : "", option->name);
  } else {
    option = find_letter(command, argument[1]);
    if (option == NULL) return unknown_option(command, argument, strlen(argument));
    if (argument[2] != '\0') attached = argument + 2;
    (void)snprintf(shown, sizeof shown, "-%c", option->letter);
  }
  if (option->given != NULL) *option->given = 1;
  if (!takes_value(option)) {
    if (attached != NULL) return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "option %s takes no value", shown);
    *(int *)option->value = !negated;
    return 0;
  }
  if (attached == NULL) {
    if (*at + 1 >= argc || looks_like_option(command, argv[*at + 1]))
      return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "option %s needs a value: %s %s", shown, shown,
                             option->argument);
    attached = argv[++*at];
  }
  return set_value(shown, option, attached);
}

static int apply_common(void) {
  gptvq_error err;
  gptvq_cli_set_quiet(quiet != 0);
  bool list = cpu != NULL && cpu[0] >= '0' && cpu[0] <= '9';
  if (list && gptvq_set_affinity(cpu, &err) != GPTVQ_OK)
    return gptvq_cli_error(err.status, "option --cpu: %s", err.message);
  if (list && threads > gptvq_get_threads())
    return gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "--threads %d needs as many CPUs, but --cpu %s names %d",
                           threads, cpu, gptvq_get_threads());
  gptvq_set_threads(threads);
  const char *level = cpu != NULL && !list ? cpu : getenv("GPTVQ_CPU");
  if (level != NULL && level[0] != '\0' && gptvq_set_cpu(level, &err) != GPTVQ_OK) {
    if (level == cpu) return gptvq_cli_error(err.status, "option --cpu: %s", err.message);
    return gptvq_cli_error(err.status, "environment variable GPTVQ_CPU: %s", err.message);
  }
  return 0;
}

bool gptvq_cli_parse(const gptvq_cli_command *command, int argc, char **argv, const char **positional,
                     int *exit_code) {
  size_t wanted = 0, count = 0;
  while (command->arguments[wanted] != NULL) wanted++;
  bool options_end = false;
  for (int at = 1; at < argc; at++) {
    const char *argument = argv[at];
    if (!options_end && argument[0] == '-' && argument[1] != '\0') {
      if (strcmp(argument, "--") == 0) {
        options_end = true;
        continue;
      }
      if (strcmp(argument, "--help=man") == 0 || strcmp(argument, "--help=options") == 0) {
        if (argument[7] == 'm') gptvq_cli_print_man(command, common_options);
        else gptvq_cli_print_words(command, common_options);
        *exit_code = gptvq_cli_flush();
        return false;
      }
      if (strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0) {
        print_help(command);
        *exit_code = gptvq_cli_flush();
        return false;
      }
      *exit_code = parse_option(command, argc, argv, &at);
      if (*exit_code != 0) return false;
    } else if (count == wanted) {
      *exit_code = gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "unexpected argument '%s'; see gptvq %s --help",
                                   argument, command->name);
      return false;
    } else if (argument[0] == '\0') { /* usually a shell variable that is not set */
      *exit_code = gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "%s is empty: gptvq %s %s",
                                   command->arguments[count], command->name, command->usage);
      return false;
    } else {
      positional[count++] = argument;
    }
  }
  if (count < wanted) {
    *exit_code = gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "%s is missing: gptvq %s %s",
                                 command->arguments[count], command->name, command->usage);
    return false;
  }
  *exit_code = apply_common();
  return *exit_code == 0;
}
