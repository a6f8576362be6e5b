/* The library's table of quantize options as options of the command line. */
#include "cli.h"

#include <math.h>
#include <string.h>

static gptvq_option as_option(const gptvq_field *field, gptvq_quantize_options *options) {
  static const gptvq_option_kind kinds[] = {
      [GPTVQ_FIELD_SWITCH] = GPTVQ_OPTION_SWITCH,     [GPTVQ_FIELD_INT] = GPTVQ_OPTION_INT,
      [GPTVQ_FIELD_UNSIGNED] = GPTVQ_OPTION_UNSIGNED, [GPTVQ_FIELD_SIZE] = GPTVQ_OPTION_SIZE,
      [GPTVQ_FIELD_SEED] = GPTVQ_OPTION_SEED,         [GPTVQ_FIELD_DOUBLE] = GPTVQ_OPTION_DOUBLE,
      [GPTVQ_FIELD_ENUM] = GPTVQ_OPTION_CHOICE,       [GPTVQ_FIELD_TEXT] = GPTVQ_OPTION_LINES,
      [GPTVQ_FIELD_BYTES] = GPTVQ_OPTION_BYTES,       [GPTVQ_FIELD_WORD] = GPTVQ_OPTION_STRING};
  gptvq_option option = {.kind = field->choices != NULL ? GPTVQ_OPTION_CHOICE : kinds[field->type],
                         .name = field->flag,
                         .value = (char *)options + field->offset,
                         .min = field->min,
                         .max = field->max,
                         .zero = field->derived != NULL,
                         .choices = field->choices,
                         .argument = field->argument,
                         .help = field->help};
  const char *word = NULL;
  if (field->choices != NULL) word = field->choices[(int)field->initial];
  else if (field->initial == 0 && field->derived != NULL) word = field->derived;
  else if (field->type == GPTVQ_FIELD_SWITCH &&
           (field->identity != GPTVQ_IDENTITY_NONE || field->paper != field->initial))
    word = field->initial != 0 ? "on" : "off";
  else if (field->type == GPTVQ_FIELD_SWITCH) option.kind = GPTVQ_OPTION_FLAG; /* nothing to turn off */
  if (word != NULL) (void)snprintf(option.initial, sizeof option.initial, "%s", word);
  else if (field->type != GPTVQ_FIELD_TEXT && field->type != GPTVQ_FIELD_WORD &&
           field->type != GPTVQ_FIELD_SWITCH)
    (void)snprintf(option.initial, sizeof option.initial, "%.10g", field->initial);
  return option;
}

gptvq_option gptvq_cli_field(const char *name, gptvq_quantize_options *options) {
  const gptvq_field *field;
  for (size_t i = 0; (field = gptvq_quantize_field(i)) != NULL; i++)
    if (strcmp(field->name, name) == 0) return as_option(field, options);
  return (gptvq_option){.kind = GPTVQ_OPTION_END};
}

size_t gptvq_cli_fields(const char *section, gptvq_quantize_options *options, gptvq_option *table,
                        size_t capacity) {
  size_t n = 0;
  const gptvq_field *field;
  for (size_t i = 0; (field = gptvq_quantize_field(i)) != NULL && n < capacity; i++)
    if (strcmp(field->section, section) == 0) table[n++] = as_option(field, options);
  return n;
}

const char *gptvq_cli_field_section(size_t wanted) {
  size_t seen = 0;
  const gptvq_field *field;
  for (size_t i = 0; (field = gptvq_quantize_field(i)) != NULL; i++) {
    bool first = true;
    for (size_t j = 0; j < i; j++)
      first = first && strcmp(gptvq_quantize_field(j)->section, field->section) != 0;
    if (first && seen++ == wanted) return field->section;
  }
  return NULL;
}

void gptvq_cli_name_flags(const char *text, char *out, size_t size) {
  size_t used = 0;
  const gptvq_field *field;
  while (*text != '\0' && used + 1 < size) {
    const char *end = *text == '`' ? strchr(text + 1, '`') : NULL;
    const char *flag = NULL;
    for (size_t i = 0; end != NULL && flag == NULL && (field = gptvq_quantize_field(i)) != NULL; i++) {
      size_t length = strlen(field->name);
      if (length == (size_t)(end - text - 1) && memcmp(field->name, text + 1, length) == 0)
        flag = field->flag;
    }
    if (flag == NULL) {
      out[used++] = *text++;
      continue;
    }
    int written = snprintf(out + used, size - used, "--%s", flag);
    used += written > 0 ? (size_t)written : 0;
    if (used > size - 1) used = size - 1;
    text = end + 1;
  }
  out[used] = '\0';
}

void gptvq_cli_paper_recipe(char *text, size_t size) {
  enum { WIDTH = 78 };
  size_t used = 0, line = 0;
  const gptvq_field *f;
  text[0] = '\0';
  for (size_t i = 0; (f = gptvq_quantize_field(i)) != NULL; i++) {
    char one[96];
    if (f->paper == f->initial) continue;
    if (f->choices != NULL) (void)snprintf(one, sizeof one, "--%s %s", f->flag, f->choices[(int)f->paper]);
    else if (f->type == GPTVQ_FIELD_SWITCH)
      (void)snprintf(one, sizeof one, "--%s%s", f->paper != 0 ? "" : "no-", f->flag);
    else (void)snprintf(one, sizeof one, "--%s %.10g", f->flag, f->paper);
    bool wrap = line > 0 && line + strlen(one) + 2 > WIDTH;
    int written = snprintf(text + used, size - used, "%s%s", used == 0 ? "" : wrap ? ",\n" : ", ", one);
    if (written < 0 || (size_t)written >= size - used) return;
    used += (size_t)written;
    line = wrap || line == 0 ? strlen(one) : line + 2 + strlen(one);
  }
}
