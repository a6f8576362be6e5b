#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/regex.h"

#include "text/utf8.h"

#include <pcre2.h>

struct gptvq_regex {
  pcre2_code *code; /* NULL for a plain string */
  bool jit;
  gptvq_bytes literal;
};

void gptvq_regex_free(gptvq_regex *regex) {
  if (regex == NULL) return;
  pcre2_code_free(regex->code);
  gptvq_bytes_free(&regex->literal);
  free(regex);
}

static gptvq_status compile(gptvq_regex *regex, const char *pattern, size_t size, gptvq_error *err) {
  gptvq_bytes translated = {0};
  gptvq_status status = gptvq_regex_translate(pattern, size, &translated, err);
  pcre2_compile_context *context = status == GPTVQ_OK ? pcre2_compile_context_create(NULL) : NULL;
  if (status == GPTVQ_OK && context == NULL) status = gptvq_fail_memory(err, "a regular expression", size);
  if (status == GPTVQ_OK) {
    int code = 0;
    PCRE2_SIZE offset = 0;
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(context, 200);
    regex->code = pcre2_compile((PCRE2_SPTR)translated.data, translated.size,
                                PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code,
                                &offset, context);
    if (regex->code == NULL) {
      PCRE2_UCHAR reason[128] = "unknown error";
      (void)pcre2_get_error_message(code, reason, sizeof reason);
      bool memory = code == PCRE2_ERROR_HEAP_FAILED;
      status = gptvq_fail(err, memory ? GPTVQ_ERROR_MEMORY : GPTVQ_ERROR_UNSUPPORTED,
                          "regular expression \"%.*s\": %s", (int)gptvq_min_size(size, 200), pattern,
                          (const char *)reason);
    } else {
      regex->jit = pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE) == 0; /* without it: the interpreter */
    }
  }
  pcre2_compile_context_free(context);
  gptvq_bytes_free(&translated);
  return status;
}

gptvq_status gptvq_regex_compile(const char *pattern, size_t size, bool literal, gptvq_regex **out,
                                 gptvq_error *err) {
  *out = NULL;
  if (size == 0) return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED, "an empty pattern is not supported");
  gptvq_regex *regex = calloc(1, sizeof *regex);
  if (regex == NULL) return gptvq_fail_memory(err, "a regular expression", sizeof *regex);
  gptvq_status status = GPTVQ_OK;
  if (literal) {
    gptvq_bytes_append(&regex->literal, pattern, size);
    if (regex->literal.failed) status = gptvq_fail_memory(err, "a pattern", size);
  } else {
    status = compile(regex, pattern, size, err);
  }
  if (status != GPTVQ_OK) gptvq_regex_free(regex);
  else *out = regex;
  return status;
}

gptvq_status gptvq_regex_begin(gptvq_regex_walk *walk, const gptvq_regex *regex, gptvq_error *err) {
  enum { JIT_STACK_START = 32 * 1024, JIT_STACK_MOST = 64 * 1024 * 1024 };
  *walk = (gptvq_regex_walk){.regex = regex};
  if (regex->code == NULL) return GPTVQ_OK;
  walk->match = pcre2_match_data_create(1, NULL);
  walk->context = pcre2_match_context_create(NULL);
  if (walk->match == NULL || walk->context == NULL) {
    gptvq_regex_finish(walk);
    return gptvq_fail_memory(err, "a regular expression", JIT_STACK_START);
  }
  pcre2_set_match_limit(walk->context, 1000000000); /* steps of one match: a long text may need many */
  if (regex->jit) { /* without a stack of its own the JIT uses 32 KiB of ours */
    walk->stack = pcre2_jit_stack_create(JIT_STACK_START, JIT_STACK_MOST, NULL);
    if (walk->stack != NULL) pcre2_jit_stack_assign(walk->context, NULL, walk->stack);
  }
  return GPTVQ_OK;
}

void gptvq_regex_text(gptvq_regex_walk *walk, const char *text, size_t size) {
  walk->text = text;
  walk->size = size;
  walk->at = walk->last_end = 0;
  walk->matched = false;
}

void gptvq_regex_finish(gptvq_regex_walk *walk) {
  pcre2_match_data_free(walk->match);
  pcre2_match_context_free(walk->context);
  pcre2_jit_stack_free(walk->stack);
  *walk = (gptvq_regex_walk){0};
}

static bool find_literal(const gptvq_regex_walk *walk, size_t *begin, size_t *end) {
  const gptvq_bytes *literal = &walk->regex->literal;
  for (size_t i = walk->at; walk->size - i >= literal->size; i++) {
    const char *hit = memchr(walk->text + i, literal->data[0], walk->size - i - literal->size + 1);
    if (hit == NULL) return false;
    i = (size_t)(hit - walk->text);
    if (memcmp(hit, literal->data, literal->size) == 0) {
      *begin = i;
      *end = i + literal->size;
      return true;
    }
  }
  return false;
}

gptvq_status gptvq_regex_next(gptvq_regex_walk *walk, bool *found, size_t *begin, size_t *end,
                              gptvq_error *err) {
  *found = false;
  if (walk->regex->code == NULL) {
    *found = find_literal(walk, begin, end);
    if (*found) walk->at = *end;
    return GPTVQ_OK;
  }
  while (walk->at <= walk->size) {
    PCRE2_SPTR text = (PCRE2_SPTR)(walk->text == NULL ? "" : walk->text);
    int result = pcre2_match(walk->regex->code, text, walk->size, walk->at, PCRE2_NO_UTF_CHECK, walk->match,
                             walk->context);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter keeps its frames on the heap */
      result = pcre2_match(walk->regex->code, text, walk->size, walk->at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                           walk->match, walk->context);
    if (result == PCRE2_ERROR_NOMATCH) return GPTVQ_OK;
    if (result < 0) {
      PCRE2_UCHAR reason[128] = "unknown error";
      (void)pcre2_get_error_message(result, reason, sizeof reason);
      return gptvq_fail(err, result == PCRE2_ERROR_NOMEMORY ? GPTVQ_ERROR_MEMORY : GPTVQ_ERROR_DATA,
                        "the tokenizer's regular expression gives up at byte %zu of a %zu-byte text: %s",
                        walk->at, walk->size, (const char *)reason);
    }
    PCRE2_SIZE *span = pcre2_get_ovector_pointer(walk->match);
    if (span[1] < span[0])
      return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED, "regular expression: a match ends before it starts");
    if (span[0] == span[1] && walk->matched && walk->last_end == span[1]) {
      size_t length = 1;
      if (walk->at < walk->size) (void)gptvq_utf8_get(walk->text + walk->at, &length);
      walk->at += length;
      continue;
    }
    *found = true;
    *begin = span[0];
    *end = walk->at = walk->last_end = span[1];
    walk->matched = true;
    return GPTVQ_OK;
  }
  return GPTVQ_OK;
}
