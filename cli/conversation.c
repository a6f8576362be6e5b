#include "conversation.h"

#include <stdlib.h>
#include <string.h>

static int out_of_memory(void) {
  return gptvq_cli_error(GPTVQ_ERROR_MEMORY, "out of memory: the conversation");
}

static const char *role_of(const gptvq_conversation *c, size_t i) {
  const char *role = json_string_value(json_object_get(json_array_get(c->messages, i), "role"));
  return role != NULL ? role : "";
}

/* ---- messages as tokens ---- */

static int render(const gptvq_conversation *c, const json_t *messages, bool open_answer, char **text,
                  size_t *size) {
  gptvq_error err;
  size_t json_size;
  char *json = gptvq_cli_json_text(messages, JSON_COMPACT, &json_size);
  if (json == NULL) return out_of_memory();
  gptvq_chat_request request = {.size = sizeof request,
                                .messages = json,
                                .messages_size = json_size,
                                .add_generation_prompt = open_answer};
  gptvq_status status = gptvq_chat_render(c->chat, &request, text, size, &err);
  free(json);
  return status == GPTVQ_OK ? 0 : gptvq_cli_fail(&err);
}

static int encode(const gptvq_conversation *c, int32_t **ids, size_t *count) {
  gptvq_error err;
  char *text;
  size_t size;
  int code = render(c, c->messages, true, &text, &size);
  if (code != 0) return code;
  /* the template writes BOS and the like itself */
  gptvq_status status = gptvq_tokenizer_encode(c->writer.tokenizer, text, size, 0, ids, count, &err);
  gptvq_free(text);
  return status == GPTVQ_OK ? 0 : gptvq_cli_fail(&err);
}

/* Do these ids say less when special tokens are left out? */
static int look_for_special(const gptvq_tokenizer *tokenizer, const int32_t *ids, size_t count, bool *found) {
  gptvq_error err;
  char *all = NULL, *plain = NULL;
  size_t all_size = 0, plain_size = 0;
  bool failed = gptvq_tokenizer_decode(tokenizer, ids, count, 0, &all, &all_size, &err) != GPTVQ_OK ||
                gptvq_tokenizer_decode(tokenizer, ids, count, 1, &plain, &plain_size, &err) != GPTVQ_OK;
  gptvq_free(all);
  gptvq_free(plain);
  *found = plain_size < all_size;
  return failed ? gptvq_cli_fail(&err) : 0;
}

static int warn_special(const gptvq_conversation *c, const char *text, size_t size) {
  gptvq_error err;
  int32_t *ids;
  size_t count;
  bool found;
  if (gptvq_tokenizer_encode(c->writer.tokenizer, text, size, 0, &ids, &count, &err) != GPTVQ_OK)
    return gptvq_cli_fail(&err);
  int code = look_for_special(c->writer.tokenizer, ids, count, &found);
  gptvq_free(ids);
  if (code == 0 && found)
    gptvq_cli_warn("the text holds special tokens of the model, which it takes for the template's own");
  return code;
}

/* ---- the conversation ---- */

int gptvq_conversation_open(gptvq_conversation *c, const char *path) {
  gptvq_error err;
  gptvq_cli_writer *w = &c->writer;
  if (gptvq_chat_open(path, c->template_file, &c->chat, &err) != GPTVQ_OK) return gptvq_cli_fail(&err);
  int code = gptvq_cli_writer_open(w, path);
  if (code != 0) return code;
  size_t limit = w->info.max_positions > 0 ? w->info.max_positions : SIZE_MAX;
  if (c->context > limit) {
    c->context = limit;
    gptvq_cli_warn("--ctx: the model's context has %zu tokens", limit);
  }
  if (c->context == 0) c->context = limit < 4096 ? limit : 4096;
  w->keep = true;
  c->messages = json_array();
  if (c->messages == NULL) return out_of_memory();
  if (gptvq_chat_end_of_turn(c->chat, w->tokenizer, &w->end_of_turn, &err) != GPTVQ_OK)
    return gptvq_cli_fail(&err);
  code = gptvq_cli_writer_start(w, c->context);
  if (code == 0 && c->system != NULL) code = gptvq_conversation_set_system(c, c->system, strlen(c->system));
  return code;
}

/* A new message; NULL after an error line. */
static json_t *message(const char *role, const char *text, size_t size, int *code) {
  json_t *content = json_stringn(text, size), *object = json_object();
  *code = 0;
  if (content == NULL && object != NULL)
    *code = gptvq_cli_error(GPTVQ_ERROR_DATA, "the text is not UTF-8, or there is too little memory for it");
  bool made = content != NULL && json_object_set_new(object, "role", json_string(role)) == 0 &&
              json_object_set(object, "content", content) == 0;
  json_decref(content);
  if (made) return object;
  json_decref(object);
  if (*code == 0) *code = out_of_memory();
  return NULL;
}

int gptvq_conversation_set_system(gptvq_conversation *c, const char *text, size_t size) {
  int code;
  json_t *system = NULL;
  if (size > 0 && (system = message("system", text, size, &code)) == NULL) return code;
  if (json_array_size(c->messages) > 0 && strcmp(role_of(c, 0), "system") == 0)
    (void)json_array_remove(c->messages, 0);
  return system == NULL || json_array_insert_new(c->messages, 0, system) == 0 ? 0 : out_of_memory();
}

/* The first message that is not the system's. */
static size_t first_turn(const gptvq_conversation *c) {
  return json_array_size(c->messages) > 0 && strcmp(role_of(c, 0), "system") == 0;
}

void gptvq_conversation_forget(gptvq_conversation *c) {
  while (json_array_size(c->messages) > first_turn(c)) (void)json_array_remove(c->messages, first_turn(c));
}

/* Leaves the oldest question out, with its answer; false: there is only one. */
static bool drop_oldest(gptvq_conversation *c) {
  size_t first = first_turn(c), next = first + 1;
  while (next < json_array_size(c->messages) && strcmp(role_of(c, next), "user") != 0) next++;
  if (next >= json_array_size(c->messages)) return false;
  for (; next > first; next--) (void)json_array_remove(c->messages, first);
  return true;
}

/* All messages as ids, without the oldest ones where the context is too small: an answer has a quarter of it,
 * if it wants so much. */
static int fit(gptvq_conversation *c, int32_t **ids, size_t *count) {
  size_t reserve = c->context / 4, dropped = 0;
  if (c->most > 0 && c->most < reserve) reserve = c->most;
  for (;; dropped++) {
    int code = encode(c, ids, count);
    if (code != 0) return code;
    if (*count + reserve <= c->context || !drop_oldest(c)) break;
    gptvq_free(*ids);
  }
  if (dropped > 0)
    gptvq_cli_warn("the conversation does not fit into %zu tokens any more: its oldest %s left out (--ctx N)",
                   c->context, dropped == 1 ? "question and answer are" : "questions and answers are");
  if (*count < c->context) return 0;
  gptvq_free(*ids);
  return gptvq_cli_error(GPTVQ_ERROR_DATA,
                         "this takes %zu tokens, and the context has %zu: say less, or --ctx N", *count,
                         c->context);
}

/* The ids as the writer's prompt; what the session has seen already it need not see again. */
static int take_prompt(gptvq_cli_writer *w, const int32_t *ids, size_t count) {
  gptvq_error err;
  size_t same = 0, seen = gptvq_session_position(w->session);
  while (same < seen && same + 1 < count && w->ids[same] == ids[same]) same++;
  if (gptvq_session_rewind(w->session, same, NULL, &err) != GPTVQ_OK) return gptvq_cli_fail(&err);
  memcpy(w->ids, ids, count * sizeof *ids);
  w->prompt_count = count;
  return 0;
}

static int answer(gptvq_conversation *c) {
  gptvq_cli_writer *w = &c->writer;
  int32_t *ids;
  size_t count;
  int code = fit(c, &ids, &count);
  if (code != 0) return code;
  code = take_prompt(w, ids, count);
  gptvq_free(ids);
  if (code == 0) code = gptvq_cli_writer_read(w, false);
  gptvq_cli_cancel_on_signal(w->session);
  if (code == 0) code = gptvq_cli_writer_prompt(w, true);
  size_t room = c->context - count;
  bool full = c->most == 0 || c->most > room;
  w->stop = full ? "context" : "length";
  if (code == 0) code = gptvq_cli_writer_decode(w, full ? room : c->most);
  gptvq_cli_cancel_on_signal(NULL);
  return code;
}

int gptvq_conversation_say(gptvq_conversation *c, const char *text, size_t size) {
  gptvq_cli_writer *w = &c->writer;
  int code;
  json_t *said = message("user", text, size, &code);
  if (said == NULL) return code;
  if (json_array_append_new(c->messages, said) != 0) return out_of_memory();
  code = warn_special(c, text, size);
  if (code == 0) code = answer(c);
  if (code == 0 && w->generated > 0) {
    json_t *answered = message("assistant", w->text != NULL ? w->text : "", w->text_size, &code);
    if (answered != NULL && json_array_append_new(c->messages, answered) != 0) code = out_of_memory();
  }
  if (code != 0 || w->generated == 0) /* a question without an answer would stand before the next one */
    (void)json_array_remove(c->messages, json_array_size(c->messages) - 1);
  return code;
}

void gptvq_conversation_close(gptvq_conversation *c) {
  json_decref(c->messages);
  gptvq_chat_close(c->chat);
  gptvq_cli_writer_release(&c->writer);
}
