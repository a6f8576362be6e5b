/* A conversation through a template, with what transformers' apply_chat_template does around it. */
#include "text/template/chat.h"

#include "base/json.h"
#include "base/sized.h"
#include "text/template/run.h"
#include "text/template/strings.h"

typedef struct rendering {
  gptvq_tpl tpl;
  const gptvq_chat *chat;
  const gptvq_chat_request *request;
  json_t *messages, *tools, *variables; /* owned */
  char *text;                           /* owned until handed out */
  size_t size;
} rendering;

/* Stands behind the message to be continued while it is rendered. */
#define MARK "CONTINUE_FINAL_MESSAGE_TAG "

/* ---- what goes in ---- */

static json_t *parse_json(gptvq_tpl *t, const char *what, const char *text, size_t size) {
  json_error_t why;
  if (text == NULL) return NULL;
  json_t *json = gptvq_json_parse(text, size, JSON_ALLOW_NUL | JSON_DECODE_ANY, &why);
  if (json == NULL && gptvq_json_no_memory(&why))
    gptvq_tpl_fail(t, GPTVQ_ERROR_MEMORY, "out of memory: %s", what);
  if (json == NULL)
    gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "%s: not valid JSON: %s (line %d, column %d)", what, why.text,
                   why.line, why.column);
  return json;
}

static void check_objects(gptvq_tpl *t, const char *what, const json_t *list) {
  bool fine = json_is_array(list);
  for (size_t i = 0; fine && i < json_array_size(list); i++) fine = json_is_object(json_array_get(list, i));
  if (!fine) gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "%s must be a JSON list of objects", what);
}

static bool is_null(const gptvq_value *v) { return v == NULL || v->kind == GPTVQ_NONE; }

/* A message without its null keys, its reasoning under the names that templates know. */
static gptvq_value message_value(gptvq_tpl *t, const json_t *json) {
  static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
  const gptvq_value all = gptvq_tpl_from_json(t, json);
  gptvq_value out = gptvq_tpl_dict_new(t, GPTVQ_DICT), reasoning = gptvq_none();
  for (size_t i = 0; i < 3 && reasoning.kind == GPTVQ_NONE; i++) {
    const gptvq_value *value =
        gptvq_tpl_dict_find_text(t, all.as.dict, (gptvq_string){names[i], strlen(names[i])});
    if (!is_null(value)) reasoning = *value;
  }
  if (reasoning.kind != GPTVQ_NONE)
    gptvq_tpl_dict_set(t, out.as.dict, gptvq_text(GPTVQ_STRING("thinking")), reasoning);
  for (size_t i = 0; i < all.as.dict->count; i++)
    if (all.as.dict->values[i].kind != GPTVQ_NONE)
      gptvq_tpl_dict_set(t, out.as.dict, all.as.dict->keys[i], all.as.dict->values[i]);
  if (reasoning.kind != GPTVQ_NONE)
    gptvq_tpl_dict_set(t, out.as.dict, gptvq_text(GPTVQ_STRING("reasoning_content")), reasoning);
  return out;
}

static void set(gptvq_tpl *t, gptvq_dict *variables, const char *name, gptvq_value value) {
  gptvq_tpl_dict_set(t, variables, gptvq_text_of(name, strlen(name)), value);
}

static void set_all(gptvq_tpl *t, gptvq_dict *variables, const json_t *json) {
  gptvq_value all = gptvq_tpl_from_json(t, json);
  for (size_t i = 0; i < all.as.dict->count; i++)
    gptvq_tpl_dict_set(t, variables, all.as.dict->keys[i], all.as.dict->values[i]);
}

/* ---- continuing the last message ---- */

/* Marks the end of the last message's text, and returns that text. */
static gptvq_string mark_last(gptvq_tpl *t, gptvq_value messages) {
  gptvq_dict *last = messages.as.list->items[messages.as.list->count - 1].as.dict;
  gptvq_value *content = gptvq_tpl_dict_find_text(t, last, GPTVQ_STRING("content"));
  for (size_t i = content != NULL && content->kind == GPTVQ_LIST ? content->as.list->count : 0; i > 0; i--) {
    gptvq_value part = content->as.list->items[i - 1];
    gptvq_value *text =
        part.kind == GPTVQ_DICT ? gptvq_tpl_dict_find_text(t, part.as.dict, GPTVQ_STRING("text")) : NULL;
    if (text == NULL) continue;
    content = text;
    break;
  }
  if (content == NULL || content->kind != GPTVQ_TEXT)
    gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "the last message has no text to continue");
  gptvq_string before = content->as.text;
  *content = gptvq_tpl_binary(t, GPTVQ_STRING("+"), *content, gptvq_text(GPTVQ_STRING(MARK)));
  return before;
}

static gptvq_string cut_at_mark(gptvq_tpl *t, gptvq_string text, gptvq_string last) {
  const gptvq_string mark = GPTVQ_STRING(MARK), bare = {mark.data, mark.size - 1}, none = GPTVQ_STRING("");
  size_t at = gptvq_tpl_find(t, text, bare, 0);
  if (at == SIZE_MAX || gptvq_tpl_find(t, text, gptvq_tpl_strip(t, last, none, true, true), 0) == SIZE_MAX)
    gptvq_tpl_fail(t, GPTVQ_ERROR_DATA,
                   "the template leaves out (parts of) the last message, which is to be continued");
  for (size_t next = at; next != SIZE_MAX; next = gptvq_tpl_find(t, text, bare, next + 1)) at = next;
  gptvq_string before = gptvq_part(text, 0, at);
  bool whole =
      gptvq_tpl_find(t, gptvq_part(text, at, gptvq_min_size(at + mark.size, text.size)), mark, 0) == 0;
  return whole ? before : gptvq_tpl_strip(t, before, none, false, true);
}

/* ---- all of it ---- */

static gptvq_status run(rendering *r) {
  gptvq_tpl *t = &r->tpl;
  const gptvq_chat_request *request = r->request;
  if (setjmp(t->failed) != 0) return t->status;
  r->messages = parse_json(t, "messages", request->messages, request->messages_size);
  r->tools = parse_json(t, "tools", request->tools, request->tools_size);
  r->variables = parse_json(t, "variables", request->variables, request->variables_size);
  check_objects(t, "messages", r->messages);
  if (json_array_size(r->messages) == 0) gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "it has no messages");
  if (r->tools != NULL) check_objects(t, "tools", r->tools);
  if (r->variables != NULL && !json_is_object(r->variables))
    gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "variables must be a JSON object");

  gptvq_value variables = gptvq_tpl_dict_new(t, GPTVQ_DICT),
              messages = gptvq_tpl_sequence(t, GPTVQ_LIST, json_array_size(r->messages));
  for (size_t i = 0; i < messages.as.list->count; i++)
    messages.as.list->items[i] = message_value(t, json_array_get(r->messages, i));
  gptvq_string last = request->continue_final_message ? mark_last(t, messages) : GPTVQ_STRING("");
  set(t, variables.as.dict, "documents", gptvq_none());
  set_all(t, variables.as.dict, r->chat->tokens);
  if (r->variables != NULL) set_all(t, variables.as.dict, r->variables);
  set(t, variables.as.dict, "messages", messages);
  set(t, variables.as.dict, "tools", r->tools != NULL ? gptvq_tpl_from_json(t, r->tools) : gptvq_none());
  set(t, variables.as.dict, "add_generation_prompt", gptvq_bool(request->add_generation_prompt != 0));

  const gptvq_template *template =
      r->tools != NULL && r->chat->with_tools.name != NULL ? &r->chat->with_tools : &r->chat->usual;
  gptvq_builder out = {0};
  t->name = template->name;
  gptvq_tpl_run_template(t, &template->body, variables.as.dict, &out);
  t->line = 0;
  gptvq_string text = gptvq_tpl_built(&out);
  if (request->continue_final_message) text = cut_at_mark(t, text, last);
  r->text = malloc(text.size + 1);
  if (r->text == NULL) gptvq_tpl_fail(t, GPTVQ_ERROR_MEMORY, "out of memory: a text of %zu bytes", text.size);
  memcpy(r->text, text.data, text.size);
  r->text[text.size] = '\0';
  r->size = text.size;
  return GPTVQ_OK;
}

gptvq_status gptvq_chat_render(const gptvq_chat *chat, const gptvq_chat_request *request, char **text,
                               size_t *size, gptvq_error *err) {
  gptvq_chat_request own = {.size = sizeof own};
  rendering r = {.chat = chat, .request = &own};
  *text = NULL;
  *size = 0;
  GPTVQ_TRY(GPTVQ_TAKE(gptvq_chat_request, request, &own, err));
  if (own.messages == NULL) return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "there are no messages");
  if (own.add_generation_prompt && own.continue_final_message)
    return gptvq_fail(
        err, GPTVQ_ERROR_ARGUMENT,
        "add_generation_prompt and continue_final_message: either the assistant's turn begins, or "
        "the last message goes on");
  gptvq_tpl_init(&r.tpl, "the conversation", err);
  r.tpl.now = own.time;
  gptvq_status status = run(&r);
  if (status == GPTVQ_OK) {
    *text = r.text;
    *size = r.size;
  }
  json_decref(r.messages);
  json_decref(r.tools);
  json_decref(r.variables);
  gptvq_tpl_release(&r.tpl);
  return status;
}
