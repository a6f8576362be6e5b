/* Lines that somebody types: edited, with a history, where libedit is there and standard input is a terminal.
 */
#define _GNU_SOURCE
#include "cli.h"

#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef GPTVQ_HAVE_LIBEDIT
#include <histedit.h>
#endif

struct gptvq_cli_lines {
  bool terminal;
  char *line; /* of getline */
  size_t room;
#ifdef GPTVQ_HAVE_LIBEDIT
  EditLine *editor; /* NULL: not edited */
  History *history;
#endif
};

static const char prompt[] = "> ";

#ifdef GPTVQ_HAVE_LIBEDIT
static char *prompt_of(EditLine *editor) {
  (void)editor;
  return (char *)(uintptr_t)prompt;
}

static void edit(gptvq_cli_lines *lines) {
  HistEvent event;
  /* characters of several bytes, whatever the locale's language */
  if (setlocale(LC_CTYPE, "") == NULL || MB_CUR_MAX == 1) (void)setlocale(LC_CTYPE, "C.UTF-8");
  lines->history = history_init();
  lines->editor = el_init("gptvq", stdin, stdout, stderr);
  if (lines->editor == NULL || lines->history == NULL) return;
  (void)history(lines->history, &event, H_SETSIZE, 500);
  (void)el_set(lines->editor, EL_PROMPT, prompt_of);
  (void)el_set(lines->editor, EL_EDITOR, "emacs");
  (void)el_set(lines->editor, EL_HIST, history, lines->history);
  (void)el_source(lines->editor, NULL); /* ~/.editrc */
}

static const char *read_edited(gptvq_cli_lines *lines, size_t *size) {
  HistEvent event;
  int count = 0;
  const char *line = el_gets(lines->editor, &count);
  if (line == NULL || count <= 0) {
    if (gptvq_cli_interrupted()) el_reset(lines->editor);
    return NULL;
  }
  if (count > 1) (void)history(lines->history, &event, H_ENTER, line);
  *size = (size_t)count;
  return line;
}
#endif

gptvq_cli_lines *gptvq_cli_lines_open(void) {
  gptvq_cli_lines *lines = calloc(1, sizeof *lines);
  if (lines == NULL) return NULL;
  lines->terminal = isatty(STDIN_FILENO) == 1;
#ifdef GPTVQ_HAVE_LIBEDIT
  if (lines->terminal && isatty(STDOUT_FILENO) == 1) edit(lines);
#endif
  return lines;
}

static const char *read_plain(gptvq_cli_lines *lines, size_t *size) {
  if (lines->terminal) {
    (void)fputs(prompt, stdout);
    (void)fflush(stdout);
  }
  ssize_t count = getline(&lines->line, &lines->room, stdin);
  clearerr(stdin); /* an interrupted read is no end */
  *size = count > 0 ? (size_t)count : 0;
  return count > 0 ? lines->line : NULL;
}

const char *gptvq_cli_lines_read(gptvq_cli_lines *lines, size_t *size) {
  const char *line;
  errno = 0;
#ifdef GPTVQ_HAVE_LIBEDIT
  if (lines->editor != NULL && lines->history != NULL) line = read_edited(lines, size);
  else
#endif
    line = read_plain(lines, size);
  if (line != NULL && line[*size - 1] == '\n') --*size;
  if (line == NULL && lines->terminal) (void)putchar('\n');
  return line;
}

void gptvq_cli_lines_close(gptvq_cli_lines *lines) {
  if (lines == NULL) return;
#ifdef GPTVQ_HAVE_LIBEDIT
  if (lines->editor != NULL) el_end(lines->editor);
  if (lines->history != NULL) history_end(lines->history);
#endif
  free(lines->line);
  free(lines);
}
