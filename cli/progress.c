#define _GNU_SOURCE /* struct winsize */
#include "cli.h"

#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <unistd.h>

enum { PATIENCE = 10 }; /* seconds */
static volatile sig_atomic_t interrupted, heard, bar_open, in_team, leads = 1;
static _Atomic(gptvq_session *) running; /* what a signal cancels */

static void say(const char *text) {
  if (bar_open) (void)!write(STDERR_FILENO, "\r\x1b[K", 4);
  (void)!write(STDERR_FILENO, text, strlen(text));
}

static const char team_stopped[] = "gptvq: error: stopped on request, or as another rank has died; the same "
                                   "options with --resume go on after the last finished block\n";

static void on_signal(int signal_number) {
  if (!heard) {
    if (leads) say(in_team ? team_stopped : "gptvq: error: stopped on request\n");
    _exit(GPTVQ_ERROR_CANCELLED);
  }
  interrupted = signal_number;
  gptvq_session *session = atomic_load(&running);
  if (session != NULL) gptvq_session_cancel(session); /* stores a flag, no more */
  if (!in_team) {
    (void)alarm(PATIENCE);
    return;
  }
  /* mpirun kills what is left of a job after a second */
  const struct itimerval soon = {.it_value = {.tv_usec = 600000}};
  (void)setitimer(ITIMER_REAL, &soon, NULL);
}

static void on_alarm(int signal_number) {
  (void)signal_number;
  if (!in_team)
    say("gptvq: error: stopped on request, in the middle of a step that takes too long to end in order\n");
  else if (leads) say(team_stopped);
  _exit(GPTVQ_ERROR_CANCELLED);
}

/* Weights are read where the kernel has mapped their files. When one of them is cut short, there is nothing
 * to return to: one line, and the end. Only functions that a signal handler may call. */
static void on_bus_error(int signal_number, siginfo_t *info, void *context) {
  static const char before[] = "gptvq: error: ",
                    after[] = " was cut short, or its disk failed, while it was read\n";
  (void)context;
  const char *path = gptvq_mapped_file(info->si_addr);
  if (path == NULL) { /* no file of ours: what would have happened without this handler */
    (void)signal(signal_number, SIG_DFL);
    return;
  }
  static atomic_flag reported = ATOMIC_FLAG_INIT;
  while (atomic_flag_test_and_set(&reported)) (void)pause(); /* another thread is saying so */
  char line[4096];
  size_t length = 0, size = strlen(path);
  if (size > sizeof line - 4 - sizeof before - sizeof after)
    size = sizeof line - 4 - sizeof before - sizeof after;
  if (bar_open) memcpy(line, "\r\x1b[K", 4);
  length += bar_open ? 4 : 0;
  memcpy(line + length, before, sizeof before - 1);
  length += sizeof before - 1;
  for (size_t i = 0; i < size; i++) line[length++] = (unsigned char)path[i] < 0x20 ? '?' : path[i];
  memcpy(line + length, after, sizeof after - 1);
  length += sizeof after - 1;
  ssize_t written = write(STDERR_FILENO, line, length);
  (void)written;
  _exit(GPTVQ_ERROR_IO);
}

/* The second one ends the process at once. */
static void catch_once(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_signal;
  action.sa_flags = (int)SA_RESETHAND;
  (void)sigaction(SIGINT, &action, NULL);
  (void)sigaction(SIGTERM, &action, NULL);
}

void gptvq_cli_catch_signals(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_alarm;
  (void)sigaction(SIGALRM, &action, NULL);
  catch_once();
  action.sa_handler =
      SIG_IGN; /* a file-size limit is an error of write(), not a death that leaves half a file */
  action.sa_flags = 0;
  (void)sigaction(SIGXFSZ, &action, NULL);
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO;
  (void)sigaction(SIGBUS, &action, NULL);
}

void gptvq_cli_in_team(size_t rank) {
  in_team = 1;
  leads = rank == 0;
}
bool gptvq_cli_interrupted(void) { return interrupted != 0; }
void gptvq_cli_hear_signals(void) { heard = 1; }

void gptvq_cli_cancel_on_signal(gptvq_session *session) { atomic_store(&running, session); }

bool gptvq_cli_forget_interrupt(void) {
  bool was = interrupted == SIGINT;
  if (!was) return false;
  (void)alarm(0);
  interrupted = 0;
  catch_once();
  return true;
}

static size_t terminal_width(void) {
  struct winsize size;
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 20) return size.ws_col;
  return 80;
}

/* What the number of each phase is. */
static const char *value_name(const char *phase) {
  if (strcmp(phase, "evaluate") == 0) return "perplexity";
  if (strcmp(phase, "compare") == 0) return "KL";
  if (strcmp(phase, "choose") == 0) return "accuracy";
  return "error";
}

static void draw(gptvq_cli_progress *state, const gptvq_progress *p, double eta) {
  enum { BAR = 24 };
  char bar[BAR + 1], line[512], value[48] = "", left[GPTVQ_CLI_SIZE_TEXT] = "";
  size_t filled = p->total > 0 ? (size_t)((double)p->done / (double)p->total * BAR) : 0;
  if (filled > BAR) filled = BAR;
  memset(bar, '.', BAR);
  memset(bar, '#', filled);
  bar[BAR] = '\0';
  if (!isnan(p->value)) (void)snprintf(value, sizeof value, "  %s %.4g", value_name(p->phase), p->value);
  if (isfinite(eta)) (void)gptvq_cli_time_text(eta, left);
  (void)snprintf(line, sizeof line, "%s [%s] %zu/%zu%s%s%s%s%s", p->phase, bar, p->done, p->total,
                 left[0] != '\0' ? "  ETA " : "", left, value, p->item[0] != '\0' ? "  " : "", p->item);
  size_t width = terminal_width() - 1;
  if (width < strlen(line)) line[width] = '\0';
  (void)fprintf(stderr, "\r%s\x1b[K", line);
  (void)fflush(stderr);
  state->line_open = true;
  bar_open = 1;
}

static void print_plain(const gptvq_progress *p, double eta) {
  char value[48] = "", left[GPTVQ_CLI_SIZE_TEXT + 8] = "", text[GPTVQ_CLI_SIZE_TEXT];
  if (!isnan(p->value)) (void)snprintf(value, sizeof value, ", %s %.4g", value_name(p->phase), p->value);
  if (isfinite(eta) && p->done < p->total)
    (void)snprintf(left, sizeof left, ", ETA %s", gptvq_cli_time_text(eta, text));
  (void)fprintf(stderr, "%s %zu/%zu%s%s%s%s\n", p->phase, p->done, p->total, p->item[0] != '\0' ? ": " : "",
                p->item, value, left);
}

static int on_progress(void *user, const gptvq_progress *p) {
  gptvq_cli_progress *state = user;
  if (interrupted) return 1;
  if (gptvq_cli_quiet() || !leads) return 0;
  double now = gptvq_cli_clock();
  if (strncmp(state->phase, p->phase, sizeof state->phase - 1) != 0 || p->done < state->phase_first) {
    (void)snprintf(state->phase, sizeof state->phase, "%s", p->phase);
    state->phase_start = now;
    state->phase_first = p->done;
    state->last_print = now;
    state->last_item = now;
    state->done = p->done;
    if (!state->terminal && (p->item[0] == '\0' || isnan(p->value))) return 0;
  }
  bool changed = p->done != state->done || p->done == state->phase_first;
  if (p->done != state->done) {
    state->last_item = now;
    state->done = p->done;
  }
  /* the mean time of the items so far for those that are left, less what the current one has already taken;
   * of one that takes longer than the mean nobody knows */
  double eta = NAN;
  if (p->done > state->phase_first && p->total >= p->done) {
    double mean = (state->last_item - state->phase_start) / (double)(p->done - state->phase_first),
           left = (double)(p->total - p->done);
    double current = now - state->last_item;
    if (current < mean || left == 0) eta = fmax(mean * left - current, 0);
    else if (left > 1) eta = mean * (left - 1);
  }
  bool last = p->done >= p->total && changed;
  if (state->terminal) {
    if (!last && now - state->last_print < 0.1 && state->line_open) return 0;
    draw(state, p, eta);
  } else {
    /* a log: every named item (a layer with its error) is worth a line, anything else one now and then, in a
     * run of hours once a minute */
    bool named = p->item[0] != '\0' && !isnan(p->value);
    double pause = fmin(fmax((now - state->phase_start) / 20, 5), 60);
    if (!named && !last && now - state->last_print < pause) return 0;
    print_plain(p, eta);
  }
  state->last_print = now;
  return 0;
}

static void on_log(void *user, gptvq_log_level level, const char *line) {
  gptvq_cli_progress *state = user;
  char text[1400];
  gptvq_cli_progress_end(state);
  gptvq_cli_name_flags(line, text, sizeof text);
  if (level == GPTVQ_LOG_WARNING) gptvq_cli_warn("%s", text);
  else gptvq_cli_note("%s", text);
}

gptvq_callbacks gptvq_cli_progress_callbacks(gptvq_cli_progress *progress) {
  memset(progress, 0, sizeof *progress);
  progress->terminal = isatty(STDERR_FILENO) == 1;
  gptvq_cli_hear_signals();
  return (gptvq_callbacks){
      .size = sizeof(gptvq_callbacks), .user = progress, .log = on_log, .progress = on_progress};
}

void gptvq_cli_progress_end(gptvq_cli_progress *progress) {
  if (!progress->line_open) return;
  (void)fputs("\r\x1b[K", stderr);
  (void)fflush(stderr);
  progress->line_open = false;
  bar_open = 0;
}

gptvq_status gptvq_cli_open_model(const char *path, const gptvq_model_options *options, gptvq_model **out,
                                  gptvq_error *err) {
  gptvq_cli_progress none = {0};
  const gptvq_callbacks callbacks = {
      .size = sizeof callbacks, .user = &none, .log = on_log}; /* nothing that would poll for Ctrl-C */
  gptvq_model_options with_callbacks = {.size = sizeof with_callbacks};
  if (options != NULL) with_callbacks = *options;
  with_callbacks.callbacks = &callbacks;
  return gptvq_model_open(path, &with_callbacks, out, err);
}
