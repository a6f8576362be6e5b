#include "eval/task.h"

#include "base/memory.h"

#include <string.h>

/* "answer": the number of a choice, its text, or its letter. */
static bool find_answer(const json_t *answer, const json_t *choices, size_t *out) {
  size_t count = json_array_size(choices);
  if (json_is_integer(answer)) {
    json_int_t number = json_integer_value(answer);
    *out = (size_t)number;
    return number >= 0 && (size_t)number < count;
  }
  for (*out = 0; *out < count; ++*out)
    if (json_equal(answer, json_array_get(choices, *out))) return true;
  const char *letter = json_string_value(answer);
  if (letter == NULL || json_string_length(answer) != 1 || letter[0] < 'A' || letter[0] > 'Z') return false;
  *out = (size_t)(letter[0] - 'A');
  return *out < count;
}

static gptvq_status read_question(const char *name, const char *line, size_t size, gptvq_question *q,
                                  gptvq_error *err) {
  json_error_t why;
  q->json = gptvq_json_parse(line, size, JSON_ALLOW_NUL, &why);
  if (q->json == NULL && gptvq_json_no_memory(&why)) return gptvq_fail_memory(err, "a question", size);
  if (q->json == NULL)
    return gptvq_fail(err, GPTVQ_ERROR_DATA, "%s: line %zu: not valid JSON: %s", name, q->line, why.text);
  const json_t *question = json_object_get(q->json, "question");
  q->choices = json_object_get(q->json, "choices");
  bool fine = json_is_string(question) && json_array_size(q->choices) >= 2;
  for (size_t i = 0; fine && i < json_array_size(q->choices); i++)
    fine = json_string_length(json_array_get(q->choices, i)) > 0;
  if (!fine)
    return gptvq_fail(err, GPTVQ_ERROR_DATA,
                      "%s: line %zu: a question is {\"question\": TEXT, \"choices\": [TEXT, TEXT, …], "
                      "\"answer\": NUMBER FROM 0, LETTER OR TEXT}",
                      name, q->line);
  if (!find_answer(json_object_get(q->json, "answer"), q->choices, &q->answer))
    return gptvq_fail(
        err, GPTVQ_ERROR_DATA,
        "%s: line %zu: \"answer\" is none of the choices: their numbers from 0, letters from A, "
        "or texts",
        name, q->line);
  q->text = json_string_value(question);
  q->size = json_string_length(question);
  return GPTVQ_OK;
}

static bool is_blank(const char *line, size_t size) {
  for (size_t i = 0; i < size; i++)
    if (strchr(" \t\r", line[i]) == NULL) return false;
  return true;
}

static gptvq_status read_lines(const char *name, const char *text, size_t size, size_t most,
                               gptvq_questions *out, gptvq_error *err) {
  size_t room = 0, line = 0;
  for (const char *at = text, *end = text + size; at < end && (most == 0 || out->count < most);) {
    const char *stop = memchr(at, '\n', (size_t)(end - at));
    size_t length = (size_t)((stop != NULL ? stop : end) - at);
    line++;
    if (!is_blank(at, length)) {
      if (out->count == room) {
        room = 2 * room + 64;
        gptvq_question *items = realloc(out->items, room * sizeof *items);
        if (items == NULL) return gptvq_fail_memory(err, "questions", room * sizeof *items);
        out->items = items;
      }
      gptvq_question *q = &out->items[out->count++];
      *q = (gptvq_question){.line = line};
      GPTVQ_TRY(read_question(name, at, length, q, err));
    }
    at += length + (stop != NULL);
  }
  if (out->count == 0) return gptvq_fail(err, GPTVQ_ERROR_DATA, "%s: there are no questions", name);
  return GPTVQ_OK;
}

gptvq_status gptvq_questions_read(const char *name, const char *text, size_t size, size_t most,
                                  gptvq_questions *out, gptvq_error *err) {
  *out = (gptvq_questions){.count = 0};
  gptvq_status status = read_lines(name, text, size, most, out, err);
  if (status != GPTVQ_OK) gptvq_questions_release(out);
  return status;
}

void gptvq_questions_release(gptvq_questions *questions) {
  for (size_t i = 0; i < questions->count; i++) json_decref(questions->items[i].json);
  free(questions->items);
  *questions = (gptvq_questions){.count = 0};
}
