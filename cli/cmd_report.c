#define _GNU_SOURCE /* realpath */
/* gptvq report: what a packed folder says of itself, as a page to look at. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_BESIDE = 63 };

/* "small/" -> "small.html", in the current folder: models may lie where nobody writes. */
static char *default_name(const char *folder) {
  size_t end = strlen(folder), begin;
  while (end > 1 && folder[end - 1] == '/') end--;
  for (begin = end; begin > 0 && folder[begin - 1] != '/'; begin--) continue;
  /* "." and ".." have a name elsewhere */
  const bool stands = end - begin <= 2 && strspn(folder + begin, ".") >= end - begin;
  char *full = stands ? realpath(folder, NULL) : NULL;
  if (full != NULL) {
    folder = full;
    end = strlen(full);
    begin = (size_t)(strrchr(full, '/') - full) + 1;
  }
  size_t size = end - begin + sizeof ".html";
  char *name = malloc(size);
  if (name != NULL) (void)snprintf(name, size, "%.*s.html", (int)(end - begin), folder + begin);
  free(full);
  return name;
}

int gptvq_cmd_report(int argc, char **argv) {
  const char *out = NULL, *beside = NULL, *paths[1 + MAX_BESIDE];
  int force = 0, code;
  const gptvq_option options[] = {
      {GPTVQ_OPTION_STRING, "output", 'o', .value = &out, .argument = "FILE",
       .help = "the page to make (default: FOLDER's name and .html, in the current folder)"},
      {GPTVQ_OPTION_LINES, "beside", .value = &beside, .argument = "FOLDER",
       .help = "another packed folder, whose evaluations stand beside in size and quality. Several: give it\n"
               "for each"},
      {GPTVQ_OPTION_FLAG, "force", .value = &force, .help = "replace FILE"},
      {.kind = GPTVQ_OPTION_END}};
  const gptvq_cli_command command = {
      .name = "report",
      .usage = "FOLDER [-o FILE] [--beside FOLDER]… [--force]",
      .summary = "a page about a packed folder: errors and bits of layers, size and quality, times, experts",
      .examples = "  gptvq report small/ -o small.html\n"
                  "      one file for a browser; it needs no network\n"
                  "  gptvq compare Llama-2-7b/ small/ --text wiki.test.txt --record && gptvq report small/\n"
                  "      with this evaluation in it\n"
                  "  gptvq report llama-2b/ --beside llama-3b/ --beside llama-4b/\n",
      .options = options,
      .arguments = {"FOLDER"}};
  if (!gptvq_cli_parse(&command, argc, argv, paths, &code)) return code;
  char *name = out == NULL ? default_name(paths[0]) : strdup(out);
  char *list = beside == NULL ? NULL : strdup(beside), *rest = NULL;
  size_t count = 1;
  if (name == NULL || (beside != NULL && list == NULL)) {
    free(name);
    free(list);
    return gptvq_cli_error(GPTVQ_ERROR_MEMORY, "out of memory");
  }
  for (char *at = list == NULL ? NULL : strtok_r(list, "\n", &rest); at != NULL && count <= MAX_BESIDE;
       at = strtok_r(NULL, "\n", &rest))
    paths[count++] = at;
  gptvq_error err;
  code = rest != NULL && *rest != '\0'
             ? gptvq_cli_error(GPTVQ_ERROR_ARGUMENT, "--beside: at most %d folders", MAX_BESIDE)
         : gptvq_export_report(paths, count, name, force, &err) != GPTVQ_OK ? gptvq_cli_fail(&err)
                                                                            : 0;
  if (code == 0) gptvq_cli_note("wrote %s", name);
  free(name);
  free(list);
  return code;
}
