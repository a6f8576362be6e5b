/* cli/cli.h: what the commands share: options, output, progress. Commands use only the public headers of the
 * library.
 *
 * A command is `int gptvq_cmd_X(int argc, char **argv)` in cmd_X.c (argv[0] is the command's name); it
 * returns the exit code, which is the number of a gptvq_status. Results go to standard output, everything
 * else to standard error. */
#ifndef GPTVQ_CLI_CLI_H
#define GPTVQ_CLI_CLI_H

#include <gptvq/gptvq.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

/* What the FLOP of stages are of. */
#define GPTVQ_CLI_COUNTED \
  "products and factorisations; look-ups, a trellis' paths and the update's additions are not counted"

/* ---- options.c ---- */
typedef enum gptvq_option_kind {
  GPTVQ_OPTION_END = 0,  /* ends a table */
  GPTVQ_OPTION_HEADING,  /* a line in the help, `help` is its text */
  GPTVQ_OPTION_FLAG,     /* int: set to 1 by --name */
  GPTVQ_OPTION_SWITCH,   /* int: 1 by --name, 0 by --no-name */
  GPTVQ_OPTION_INT,      /* int, in [min, max] */
  GPTVQ_OPTION_UNSIGNED, /* unsigned, in [min, max] */
  GPTVQ_OPTION_SIZE,     /* size_t, in [min, max] */
  GPTVQ_OPTION_SEED,     /* uint64_t, any */
  GPTVQ_OPTION_BYTES,    /* size_t, in [min, max]; 20G */
  GPTVQ_OPTION_FLOAT,    /* float, in [min, max] */
  GPTVQ_OPTION_DOUBLE,   /* double, in [min, max] */
  GPTVQ_OPTION_STRING,   /* const char *, not empty */
  GPTVQ_OPTION_TEXT,     /* const char *, may be empty */
  GPTVQ_OPTION_LINES,    /* const char *, not empty; given several times: a line each. NULL beforehand */
  GPTVQ_OPTION_CHOICE    /* int: index into choices */
} gptvq_option_kind;

typedef struct gptvq_option {
  gptvq_option_kind kind;
  const char *name;           /* without dashes */
  char letter;                /* short form, or 0 */
  void *value;                /* where the result goes; left alone when the option is absent */
  double min, max;            /* numbers */
  bool zero;                  /* 0 is possible too, whatever min is */
  const char *const *choices; /* CHOICE: NULL-terminated */
  const char *argument;       /* what the help calls the value, e.g. "FILE"; not for FLAG and SWITCH */
  const char *help;           /* one or more lines, separated by \n */
  char initial[96];           /* what holds without the option, for the help; may be empty */
  int *given;                 /* set to 1 when the option is present; may be NULL */
} gptvq_option;

enum { GPTVQ_CLI_MAX_ARGUMENTS = 2 };

typedef struct gptvq_cli_command {
  const char *name;
  const char *usage;    /* what follows the name: "MODEL --text FILE [options]" */
  const char *summary;  /* one line */
  const char *examples; /* lines of the help, each ending in \n */
  const gptvq_option *options;
  const char *arguments[GPTVQ_CLI_MAX_ARGUMENTS +
                        1]; /* names of the positional arguments, all required; NULL-terminated */
} gptvq_cli_command;

/* Reads argv[1..]: --name VALUE, --name=VALUE, -x VALUE, -xVALUE, flags, --no-name, "--" ends options;
 * positional[] gets the arguments. --threads, --cpu, --quiet and --help are added to every command and take
 * effect here. Returns GPTVQ_OK to go on; otherwise *exit_code is the code to return at once (0 after --help;
 * the error line is printed). */
bool gptvq_cli_parse(const gptvq_cli_command *command, int argc, char **argv, const char **positional,
                     int *exit_code);

/* ---- help_forms.c: the option table as other programs want it ---- */
/* A manual page (roff, man macros). */
void gptvq_cli_print_man(const gptvq_cli_command *command, const gptvq_option *common);
/* A line for each way to write an option, for the completion of shells, with tabs between: the option, its
 * argument ("-": none; of a choice "=A|B|C") and the first line of its help. */
void gptvq_cli_print_words(const gptvq_cli_command *command, const gptvq_option *common);

/* The candidate (NULL-terminated list) most like `word`, or NULL when none is close. */
const char *gptvq_cli_suggest(const char *word, const char *const *candidates);

/* ---- fields.c ---- */
/* A member of gptvq_quantize_options as an option: the first by its name in the struct (there is one), then a
 * whole section of the table, without headline, into table[0 … returned count). */
gptvq_option gptvq_cli_field(const char *name, gptvq_quantize_options *options);
size_t gptvq_cli_fields(const char *section, gptvq_quantize_options *options, gptvq_option *table,
                        size_t capacity);
/* The sections in their order, "" first; NULL at the end. */
const char *gptvq_cli_field_section(size_t i);
/* `text` with the names of members that the library quotes (`like_this`) as the flags of the command line. */
void gptvq_cli_name_flags(const char *text, char *out, size_t size);
/* "--metric diagonal, --reassign-rounds 0, …": where the paper's recipe differs from the default, in lines.
 */
void gptvq_cli_paper_recipe(char *text, size_t size);

/* ---- output.c ---- */
/* Prints "gptvq: error: …" and returns `status` as an exit code. */
int gptvq_cli_error(gptvq_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same for an error that the library reported. */
int gptvq_cli_fail(const gptvq_error *err);
void gptvq_cli_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A line on standard error, unless --quiet. */
void gptvq_cli_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
void gptvq_cli_set_quiet(bool quiet);
bool gptvq_cli_quiet(void);
void gptvq_cli_set_mute(bool mute); /* no line at all, of errors neither: another process says it */

/* A number for JSON: null for NaN and infinity, which JSON does not have. */
json_t *gptvq_cli_number(double value);
/* A string for JSON: a path may hold bytes that are not UTF-8, they become '?'. */
json_t *gptvq_cli_text(const char *text);
/* Adds what may be NULL for want of memory: that, or a failure to add it, shows in gptvq_cli_print_json. */
void gptvq_cli_json_set(json_t *object, const char *key, json_t *value);
void gptvq_cli_json_append(json_t *array, json_t *value);
/* json_loadb; NULL: *where says why. Ends the process with code 7 when memory runs out, which jansson's
 * reader does not survive. */
json_t *gptvq_cli_parse_json(const char *text, size_t size, json_error_t *where);
/* A JSON value as text, to be released with free(); NULL: out of memory. */
char *gptvq_cli_json_text(const json_t *value, size_t flags, size_t *size);
/* Prints a JSON value in one piece and a newline to standard output, and releases it. NULL: out of memory.
 * Returns an exit code. */
int gptvq_cli_print_json(json_t *value);
/* Flushes standard output; an exit code, with an error line when what was printed could not be written. */
int gptvq_cli_flush(void);

/* "1.23 GB", "456 bytes": into the caller's buffer, returned. */
enum { GPTVQ_CLI_SIZE_TEXT = 32 };
const char *gptvq_cli_size_text(uint64_t bytes, char buffer[GPTVQ_CLI_SIZE_TEXT]);
/* "1:02:03", "4:05", "7.1 s" */
const char *gptvq_cli_time_text(double seconds, char buffer[GPTVQ_CLI_SIZE_TEXT]);

/* What errno means: GPTVQ_ERROR_MEMORY or GPTVQ_ERROR_IO. */
gptvq_status gptvq_cli_errno_status(void);
/* A whole file ("-": standard input) as a NUL-terminated buffer that the caller frees with free(). */
gptvq_status gptvq_cli_read_file(const char *path, char **data, size_t *size, gptvq_error *err);

/* "standard input" for "-", else the path */
const char *gptvq_cli_file_name(const char *path);
/* Warns when a file that was read is not UTF-8 text. */
void gptvq_cli_warn_encoding(const char *path, const char *data, size_t size);

/* Wall clock in seconds from an arbitrary start. */
double gptvq_cli_clock(void);

/* ---- progress.c ---- */
/* Ctrl-C (and SIGTERM) end the process at once, until a command says that it hears them: then
 * gptvq_cli_interrupted() is true and the progress callback asks the library to stop; a second one, or ten
 * seconds without an end, end the process. */
void gptvq_cli_catch_signals(void);
void gptvq_cli_hear_signals(void); /* making the progress callbacks says so too */
bool gptvq_cli_interrupted(void);
/* This process is member `rank` of a team: when it is told to stop there is little time, and 0 alone speaks.
 */
void gptvq_cli_in_team(size_t rank);
/* The session whose gptvq_session_forward a signal cancels; NULL: none. */
void gptvq_cli_cancel_on_signal(gptvq_session *session);
/* Ctrl-C stopped something, but not the program: was it so? Not after SIGTERM. */
bool gptvq_cli_forget_interrupt(void);

typedef struct gptvq_cli_progress {
  bool terminal;  /* a bar that is redrawn; otherwise plain lines now and then */
  bool line_open; /* a bar is on the screen */
  double phase_start, last_print, last_item;
  size_t phase_first; /* items done when the phase began (after a resume) */
  size_t done;        /* items done at last_item, the time of the last change */
  char phase[32];
} gptvq_cli_progress;

/* Callbacks that print to standard error; `progress` must outlive them. */
gptvq_callbacks gptvq_cli_progress_callbacks(gptvq_cli_progress *progress);
/* Takes the bar off the screen; before any other output. */
void gptvq_cli_progress_end(gptvq_cli_progress *progress);
/* gptvq_model_open whose warnings are printed. options may be NULL; its callbacks are not used. */
gptvq_status gptvq_cli_open_model(const char *path, const gptvq_model_options *options, gptvq_model **out,
                                  gptvq_error *err);

/* ---- eval_options.c ---- */
/* Choices of --compute, NULL-terminated. */
const char *const *gptvq_cli_computes(void);
/* The options of eval and compare, and what they share. */
typedef struct gptvq_cli_eval {
  gptvq_eval_options options; /* name: of the text at work */
  gptvq_model_options model_options;
  const char *text_paths; /* a line each */
  const char *task_path;  /* in their place: eval alone */
  const char *device_name;
  int compute, json, record;
  gptvq_eval_device *device; /* owned; NULL: the CPU */
  size_t count;              /* texts; all owned */
  char **paths, **texts;
  size_t *sizes;
} gptvq_cli_eval;
enum { GPTVQ_CLI_EVAL_OPTIONS = 11 };
void gptvq_cli_eval_init(gptvq_cli_eval *eval);
void gptvq_cli_eval_table(gptvq_cli_eval *eval, gptvq_option table[GPTVQ_CLI_EVAL_OPTIONS]);
/* After parsing: reads the texts; an exit code. */
int gptvq_cli_eval_load(gptvq_cli_eval *eval, const char *command);
/* Once the models are open, b or NULL: --device; an exit code. */
int gptvq_cli_eval_open_device(gptvq_cli_eval *eval, const gptvq_model *a, const gptvq_model *b);
void gptvq_cli_eval_release(gptvq_cli_eval *eval);
/* options.name becomes that of text i. */
void gptvq_cli_eval_choose(gptvq_cli_eval *eval, size_t i);
/* Warns when the windows are longer than the model was trained for. */
void gptvq_cli_eval_warn(const gptvq_cli_eval *eval, const char *path, const gptvq_model *model);
/* Columns that a table of texts needs for their names. */
int gptvq_cli_eval_width(const gptvq_cli_eval *eval);
/* One model's figures as a new JSON object; then those of the run on text i added to an object. */
json_t *gptvq_cli_eval_json(const gptvq_eval_result *result, const char *path, const gptvq_model *model);
void gptvq_cli_eval_json_run(json_t *object, const gptvq_cli_eval *eval, size_t i, size_t windows, size_t ctx,
                             size_t score_from, double seconds);
/* Before the work, with --record: an error (exit code) unless the model is a packed folder's, and that can be
 * written to. */
int gptvq_cli_eval_packed(const char *path, const gptvq_model *model);
/* --record: keeps the run's figures in the packed folder; an exit code. */
int gptvq_cli_eval_record(const gptvq_cli_eval *eval, const char *folder, const json_t *object);
/* Of several texts: prints {"texts": […]}; of one: that object itself. An exit code. */
int gptvq_cli_eval_print_json(const gptvq_cli_eval *eval, json_t *texts);

/* ---- lines.c ---- */
typedef struct gptvq_cli_lines gptvq_cli_lines;
gptvq_cli_lines *gptvq_cli_lines_open(void); /* NULL: out of memory */
/* The next line of standard input without its end, valid until the next call; NULL: there is no more, or
 * gptvq_cli_interrupted(). */
const char *gptvq_cli_lines_read(gptvq_cli_lines *lines, size_t *size);
void gptvq_cli_lines_close(gptvq_cli_lines *lines);

/* ---- writer.c ---- */
/* What generate and chat share: a model that goes on with a text. Functions return exit codes. */
typedef struct gptvq_cli_writer {
  /* options */
  gptvq_sampler sampler;
  uint64_t seed;
  unsigned head_bits;
  int seed_given, compute, json, ignore_eos;
  bool keep;           /* what is printed goes into `text` too, as with json */
  int32_t end_of_turn; /* ends a text as EOS does; -1: nothing more does */
  /* state; all owned */
  gptvq_model *model;
  gptvq_tokenizer *tokenizer;
  gptvq_session *session;
  gptvq_text_stream *stream;
  int32_t *ids; /* the prompt [prompt_count], then what was generated */
  float *logits;
  char *text;
  size_t text_size, text_capacity;
  /* results */
  gptvq_model_info info;
  size_t prompt_count, prompt_read, generated; /* prompt_read: tokens that the session had not seen before */
  double prompt_seconds, decode_seconds;
  const char *stop; /* "length", "eos", "context", "interrupted" */
} gptvq_cli_writer;
enum { GPTVQ_CLI_SAMPLING_OPTIONS = 6, GPTVQ_CLI_COMPUTE_OPTIONS = 3 };
void gptvq_cli_writer_init(gptvq_cli_writer *writer);
void gptvq_cli_sampling_table(gptvq_cli_writer *writer, gptvq_option table[GPTVQ_CLI_SAMPLING_OPTIONS]);
void gptvq_cli_compute_table(gptvq_cli_writer *writer, gptvq_option table[GPTVQ_CLI_COMPUTE_OPTIONS]);
int gptvq_cli_writer_open(gptvq_cli_writer *writer, const char *path); /* model, tokenizer, seed */
/* A session of that many positions, room for as many ids (those there are stay). */
int gptvq_cli_writer_start(gptvq_cli_writer *writer, size_t positions);
/* Shows the prompt to the text stream, and on the screen with echo; prompt_count is set by the caller. */
int gptvq_cli_writer_read(gptvq_cli_writer *writer, bool echo);
/* Runs the ids of the prompt that the session has not seen, up to an interruption. */
int gptvq_cli_writer_prompt(gptvq_cli_writer *writer, bool logits);
int gptvq_cli_writer_decode(gptvq_cli_writer *writer, size_t most); /* at most so many tokens */
void gptvq_cli_writer_note(const gptvq_cli_writer *writer);         /* a line with the speed */
json_t *gptvq_cli_writer_json(const gptvq_cli_writer *writer, const char *path);
void gptvq_cli_writer_release(gptvq_cli_writer *writer);

/* ---- folder.c ---- */
typedef struct gptvq_cli_files {
  size_t count;                 /* safetensors files that the model consists of */
  uint64_t bytes, header_bytes; /* of all; the rest are tensors */
} gptvq_cli_files;
/* packed: of a packed model, which goes by its index; another by model.safetensors where that is there */
gptvq_status gptvq_cli_weigh_folder(const char *folder, bool packed, gptvq_cli_files *files,
                                    gptvq_error *err);

/* ---- commands ---- */
int gptvq_cmd_quantize(int argc, char **argv);
int gptvq_cmd_eval(int argc, char **argv);
int gptvq_cmd_compare(int argc, char **argv);
int gptvq_cmd_generate(int argc, char **argv);
int gptvq_cmd_chat(int argc, char **argv);
int gptvq_cmd_serve(int argc, char **argv);
int gptvq_cmd_inspect(int argc, char **argv);
int gptvq_cmd_report(int argc, char **argv);
int gptvq_cmd_tokenize(int argc, char **argv);
int gptvq_cmd_export(int argc, char **argv);
int gptvq_cmd_bench(int argc, char **argv);
int gptvq_cmd_bench_kernels(int argc, char **argv);  /* bench kernels */
int gptvq_cmd_bench_quantize(int argc, char **argv); /* bench quantize */
int gptvq_cmd_bench_device(int argc, char **argv);   /* bench device */

#endif
