/* Chat templates against transformers, byte for byte (tests/golden/chat/make_fixtures.py says what the files
 * hold); where templates come from; limits; damaged templates. */
#include "base/file.h"
#include "base/json.h"
#include "base/random.h"

#include <gptvq/chat.h>
#include <gptvq/tokenizer.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#define GOLDEN TEST_SOURCE_DIR "/tests/golden/chat/"
enum { TIME = 1753660800 }; /* 2025-07-28 00:00 UTC */

static json_t *load(const char *name) {
  char path[512], *text;
  size_t size;
  gptvq_error err;
  json_error_t why;
  (void)snprintf(path, sizeof path, GOLDEN "%s", name);
  if (gptvq_read_file(path, 1 << 24, &text, &size, &err) != GPTVQ_OK) fail_msg("%s", err.message);
  json_t *json = gptvq_json_parse(text, size, JSON_ALLOW_NUL, &why);
  free(text);
  if (json == NULL) fail_msg("%s: %s", name, why.text);
  return json;
}

static char *folder; /* scratch: its own, below the working directory */

static void put(const char *name, const void *data, size_t size) {
  char path[512];
  gptvq_error err;
  (void)snprintf(path, sizeof path, "%s/%s", folder, name);
  if (gptvq_write_file(path, data, size, &err) != GPTVQ_OK) fail_msg("%s", err.message);
}
static void put_text(const char *name, const char *text) { put(name, text, strlen(text)); }

static int make_folder(void **state) {
  static char name[] = "gptvq-chat-XXXXXX";
  (void)state;
  (void)setenv("TZ", "UTC", 1);
  tzset();
  folder = mkdtemp(name);
  return folder == NULL;
}
static int remove_folder(void **state) {
  (void)state;
  return gptvq_remove_tree(folder, NULL) != GPTVQ_OK;
}

/* ---- rendering ---- */

/* A conversation of the golden files through a template; *text to be freed. */
static gptvq_status render(const gptvq_chat *chat, const json_t *conversation, char **text, size_t *size,
                           gptvq_error *err) {
  const json_t *prompt = json_object_get(conversation, "add_generation_prompt");
  const size_t flags = JSON_REAL_PRECISION(17) | JSON_ENCODE_ANY;
  char *messages = gptvq_json_dump(json_object_get(conversation, "messages"), flags), *tools = NULL,
       *variables = NULL;
  if (json_object_get(conversation, "tools") != NULL)
    tools = gptvq_json_dump(json_object_get(conversation, "tools"), flags);
  if (json_object_get(conversation, "variables") != NULL)
    variables = gptvq_json_dump(json_object_get(conversation, "variables"), flags);
  gptvq_chat_request request = {.size = sizeof request,
                                .messages = messages,
                                .messages_size = strlen(messages),
                                .tools = tools,
                                .tools_size = tools != NULL ? strlen(tools) : 0,
                                .variables = variables,
                                .variables_size = variables != NULL ? strlen(variables) : 0,
                                .add_generation_prompt = prompt == NULL || json_is_true(prompt),
                                .continue_final_message =
                                    json_is_true(json_object_get(conversation, "continue_final_message")),
                                .time = TIME};
  gptvq_status status = gptvq_chat_render(chat, &request, text, size, err);
  free(messages);
  free(tools);
  free(variables);
  return status;
}

static void check(const char *what, const json_t *expected, gptvq_status status, const char *text,
                  size_t size, const gptvq_error *err) {
  if (json_is_string(expected)) {
    if (status != GPTVQ_OK) fail_msg("%s: %s", what, err->message);
    if (size != json_string_length(expected) || memcmp(text, json_string_value(expected), size) != 0)
      fail_msg("%s:\nexpected %s\ngot      %s", what, json_string_value(expected), text);
    assert_int_equal(text[size], 0);
    return;
  }
  const char *message = json_string_value(json_object_get(expected, "error"));
  if (status == GPTVQ_OK) fail_msg("%s: transformers refuses it, but it gives %s", what, text);
  assert_null(text);
  assert_true(err->message[0] != '\0');
  if (message != NULL) assert_int_equal(status, GPTVQ_ERROR_DATA);
  if (message != NULL && strstr(err->message, message) == NULL)
    fail_msg("%s: expected the message %s, got %s", what, message, err->message);
}

static void test_conversations(void **state) {
  (void)state;
  json_t *all = load("expected.json"), *conversations = load("conversations.json"), *results, *expected;
  const char *name, *conversation;
  size_t checked = 0;
  put_text("tokenizer_config.json",
           "{\"bos_token\": \"<s>\", \"eos_token\": {\"content\": \"</s>\"}, \"pad_token\": null}");
  put_text("special_tokens_map.json", "{\"pad_token\": \"<pad>\", \"bos_token\": \"not this\"}");
  json_object_foreach(all, name, results) {
    char path[512], what[256];
    gptvq_chat *chat;
    gptvq_error err;
    (void)snprintf(path, sizeof path, GOLDEN "templates/%s.jinja", name);
    if (gptvq_chat_open(folder, path, &chat, &err) != GPTVQ_OK) fail_msg("%s", err.message);
    json_object_foreach(results, conversation, expected) {
      char *text;
      size_t size;
      gptvq_status status = render(chat, json_object_get(conversations, conversation), &text, &size, &err);
      (void)snprintf(what, sizeof what, "%s, %s", name, conversation);
      check(what, expected, status, text, size, &err);
      gptvq_free(text);
      checked++;
    }
    gptvq_chat_close(chat);
  }
  assert_true(checked >= 20 * 12);
  json_decref(all);
  json_decref(conversations);
}

static void test_snippets(void **state) {
  (void)state;
  json_t *all = load("snippets.json"), *snippets = json_object_get(all, "snippets"), *snippet;
  json_t *conversation =
      json_pack("{s:[{s:s,s:s}],s:O,s:b}", "messages", "role", "user", "content", "x", "variables",
                json_object_get(all, "variables"), "add_generation_prompt", 0);
  size_t i;
  assert_true(json_array_size(snippets) > 200);
  json_array_foreach(snippets, i, snippet) {
    const json_t *source = json_array_get(snippet, 0);
    char path[512], *text = NULL;
    size_t size = 0;
    gptvq_chat *chat;
    gptvq_error err;
    put("snippet", json_string_value(source), json_string_length(source));
    (void)snprintf(path, sizeof path, "%s/snippet", folder);
    gptvq_status status = gptvq_chat_open(NULL, path, &chat, &err);
    if (status == GPTVQ_OK) status = render(chat, conversation, &text, &size, &err);
    check(json_string_value(source), json_array_get(snippet, 1), status, text, size, &err);
    gptvq_free(text);
    gptvq_chat_close(chat);
  }
  json_decref(conversation);
  json_decref(all);
}

/* ---- where templates are ---- */

static char *say(const char *tools) { /* "hi" through the folder's template */
  static const char messages[] = "[{\"role\": \"user\", \"content\": \"hi\"}]";
  gptvq_chat *chat;
  gptvq_error err;
  char *text;
  size_t size;
  gptvq_chat_request request = {.size = sizeof request,
                                .messages = messages,
                                .messages_size = sizeof messages - 1,
                                .tools = tools,
                                .tools_size = tools != NULL ? strlen(tools) : 0};
  if (gptvq_chat_open(folder, NULL, &chat, &err) != GPTVQ_OK) fail_msg("%s", err.message);
  if (gptvq_chat_render(chat, &request, &text, &size, &err) != GPTVQ_OK) fail_msg("%s", err.message);
  gptvq_chat_close(chat);
  return text;
}

static void expect_said(const char *tools, const char *expected) {
  char *text = say(tools);
  assert_string_equal(text, expected);
  gptvq_free(text);
}

static void expect_no_chat(const char *file, gptvq_status status, const char *message) {
  gptvq_chat *chat = (gptvq_chat *)&status;
  gptvq_error err;
  assert_int_equal(gptvq_chat_open(folder, file, &chat, &err), status);
  assert_null(chat);
  if (strstr(err.message, message) == NULL) fail_msg("%s", err.message);
}

static void test_places(void **state) {
  (void)state;
  char path[512];
  put_text("special_tokens_map.json", "{}");
  put_text("tokenizer_config.json", "{}");
  expect_no_chat(NULL, GPTVQ_ERROR_UNSUPPORTED, "no chat template");
  put_text("tokenizer_config.json", "{\"chat_template\": null}");
  expect_no_chat(NULL, GPTVQ_ERROR_UNSUPPORTED, "no chat template");
  put_text("tokenizer_config.json", "{\"chat_template\": 5}");
  expect_no_chat(NULL, GPTVQ_ERROR_FORMAT, "neither a text nor a list");
  put_text("tokenizer_config.json", "{\"chat_template\": [{\"name\": \"default\"}]}");
  expect_no_chat(NULL, GPTVQ_ERROR_FORMAT, "item 0 lacks");
  put_text("tokenizer_config.json", "{\"chat_template\": [{\"name\": \"rag\", \"template\": \"x\"}]}");
  expect_no_chat(NULL, GPTVQ_ERROR_UNSUPPORTED, "no chat template");
  put_text("tokenizer_config.json", "{\"chat_template\": \"{% if %}\"}");
  expect_no_chat(NULL, GPTVQ_ERROR_FORMAT, "tokenizer_config.json: line 1: ");
  put_text("tokenizer_config.json",
           "{\"chat_template\": \"A{{ messages[0].content }}{{ bos_token }}{{ image_token }}\", "
           "\"bos_token\": \"<b>\", \"extra_special_tokens\": {\"image_token\": \"<i>\"}}");
  expect_said(NULL, "Ahi<b><i>");
  put_text("tokenizer_config.json",
           "{\"chat_template\": [{\"name\": \"default\", \"template\": \"B{{ tools }}\"}, "
           "{\"name\": \"tool_use\", \"template\": \"C{{ tools }}\"}]}");
  expect_said(NULL, "BNone");
  expect_said("[{\"a\": 1}]", "C[{'a': 1}]");
  put_text("chat_template.jinja", "D{{ messages[0]['content'] }}\n");
  expect_said("[{}]", "Dhi");
  (void)snprintf(path, sizeof path, "%s/additional_chat_templates", folder);
  assert_int_equal(gptvq_make_folder(path, NULL), GPTVQ_OK);
  put_text("additional_chat_templates/tool_use.jinja", "E");
  expect_said("[{}]", "E");
  expect_said(NULL, "Dhi");
  put_text("other", "\xff");
  (void)snprintf(path, sizeof path, "%s/other", folder);
  expect_no_chat(path, GPTVQ_ERROR_FORMAT, "not UTF-8");
  expect_no_chat("no such file", GPTVQ_ERROR_IO, "no such file");
}

/* ---- what is asked for ---- */

static void expect_refused(const gptvq_chat *chat, gptvq_chat_request request, gptvq_status status,
                           const char *message) {
  char *text = (char *)&status;
  size_t size;
  gptvq_error err;
  request.size = sizeof request;
  if (request.messages != NULL) request.messages_size = strlen(request.messages);
  if (request.tools != NULL) request.tools_size = strlen(request.tools);
  if (request.variables != NULL) request.variables_size = strlen(request.variables);
  assert_int_equal(gptvq_chat_render(chat, &request, &text, &size, &err), status);
  assert_null(text);
  if (strstr(err.message, message) == NULL) fail_msg("expected %s, got %s", message, err.message);
  assert_int_equal(gptvq_chat_render(chat, &request, &text, &size, NULL), status);
}

static void test_requests(void **state) {
  (void)state;
  static const char one[] = "[{\"role\": \"user\", \"content\": \"hi\"}]";
  char path[512], *text;
  size_t size;
  gptvq_chat *chat;
  gptvq_error err;
  put_text("plain", "{{ messages[0].content }}");
  (void)snprintf(path, sizeof path, "%s/plain", folder);
  assert_int_equal(gptvq_chat_open(NULL, path, &chat, &err), GPTVQ_OK);
  expect_refused(chat, (gptvq_chat_request){0}, GPTVQ_ERROR_ARGUMENT, "no messages");
  expect_refused(chat, (gptvq_chat_request){.messages = "[]"}, GPTVQ_ERROR_DATA, "no messages");
  expect_refused(chat, (gptvq_chat_request){.messages = "[{]"}, GPTVQ_ERROR_DATA,
                 "messages: not valid JSON: ");
  expect_refused(chat, (gptvq_chat_request){.messages = "{}"}, GPTVQ_ERROR_DATA,
                 "must be a JSON list of objects");
  expect_refused(chat, (gptvq_chat_request){.messages = "[1]"}, GPTVQ_ERROR_DATA,
                 "must be a JSON list of objects");
  expect_refused(chat, (gptvq_chat_request){.messages = one, .tools = "{}"}, GPTVQ_ERROR_DATA,
                 "tools must be");
  expect_refused(chat, (gptvq_chat_request){.messages = one, .variables = "[]"}, GPTVQ_ERROR_DATA,
                 "variables must be");
  expect_refused(
      chat, (gptvq_chat_request){.messages = one, .add_generation_prompt = 1, .continue_final_message = 1},
      GPTVQ_ERROR_ARGUMENT, "either");
  expect_refused(chat,
                 (gptvq_chat_request){.messages = "[{\"role\": \"user\"}]", .continue_final_message = 1},
                 GPTVQ_ERROR_DATA, "no text to continue");
  gptvq_chat_request unset = {.size = 0};
  assert_int_equal(gptvq_chat_render(chat, &unset, &text, &size, &err), GPTVQ_ERROR_ARGUMENT);
  assert_non_null(strstr(err.message, "gptvq_chat_request"));
  assert_int_equal(gptvq_chat_render(chat, NULL, &text, &size, &err), GPTVQ_ERROR_ARGUMENT);
  gptvq_chat_close(chat);
  assert_int_equal(gptvq_chat_open(NULL, NULL, &chat, &err), GPTVQ_ERROR_ARGUMENT);
  gptvq_chat_close(NULL);
}

/* ---- limits ---- */

static void expect_limit(const char *source, gptvq_status status, const char *message) {
  char path[512];
  gptvq_chat *chat;
  gptvq_error err;
  put_text("hostile", source);
  (void)snprintf(path, sizeof path, "%s/hostile", folder);
  gptvq_status opened = gptvq_chat_open(NULL, path, &chat, &err);
  if (opened == GPTVQ_OK) {
    expect_refused(chat, (gptvq_chat_request){.messages = "[{\"role\": \"user\", \"content\": \"hi\"}]"},
                   status, message);
  } else {
    assert_int_equal(opened, status);
    if (strstr(err.message, message) == NULL) fail_msg("%s", err.message);
  }
  gptvq_chat_close(chat);
}

static void test_limits(void **state) {
  (void)state;
  enum { DEEP = 200000 };
  char *deep = malloc(2 * DEEP + 64);
  assert_non_null(deep);
  expect_limit("{% for a in range(99999) %}{{ 'x' * 9999 == 'y' * 9999 }}{% endfor %}",
               GPTVQ_ERROR_UNSUPPORTED, "memory");
  expect_limit("{% set r = range(99999) %}{% for a in r if a in r %}{% endfor %}", GPTVQ_ERROR_UNSUPPORTED,
               "seems to loop");
  /* work inside of one node: what is compared, looked through, trimmed by */
  expect_limit("{{ ('a' * 3000000 ~ 'b') in ('a' * 9000000) }}", GPTVQ_ERROR_UNSUPPORTED, "steps");
  expect_limit("{{ ('a' * 9000000).rsplit('a' * 3000000 ~ 'b') }}", GPTVQ_ERROR_UNSUPPORTED, "steps");
  expect_limit("{% set a = 'a' * 9000000 ~ 'b' %}{% set b = 'a' * 9000000 ~ 'c' %}"
               "{% for i in range(99999) %}{% if a == b %}x{% endif %}{% endfor %}",
               GPTVQ_ERROR_UNSUPPORTED, "steps");
  expect_limit("{% set a = 'a' * 999999 %}{% set x = a.startswith((a[1:] ~ 'b',) * 999999) %}",
               GPTVQ_ERROR_UNSUPPORTED, "steps");
  expect_limit("{{ ('a' * 999999).strip('b' * 999999 ~ 'a') }}", GPTVQ_ERROR_UNSUPPORTED, "steps");
  expect_limit("{% set l = [0] * 2000000 %}{% for i in range(99999) %}{% set x = l | sum %}{% endfor %}",
               GPTVQ_ERROR_UNSUPPORTED, "steps");
  expect_limit(
      "{% set l = (0,) * 2000000 %}{% for i in range(99999) %}{% if l in {} %}{% endif %}{% endfor %}",
      GPTVQ_ERROR_UNSUPPORTED, "steps");
  expect_limit("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", GPTVQ_ERROR_UNSUPPORTED, "levels");
  expect_limit("{{ 'a' | map(*(['map'] * 1000000)) | list }}", GPTVQ_ERROR_UNSUPPORTED, "levels");
  expect_limit("{% set ns = namespace(x='0123456789') %}{% for a in range(99) %}{% set ns.x = ns.x ~ ns.x "
               "%}{% endfor %}",
               GPTVQ_ERROR_UNSUPPORTED, "more than");
  expect_limit("{{ [1] * 9999999999999 }}", GPTVQ_ERROR_UNSUPPORTED, "memory");
  expect_limit("{{ 'x' * 999999999 }}", GPTVQ_ERROR_UNSUPPORTED, "a text of more than");
  expect_limit("{{ 9223372036854775807 + 1 }}", GPTVQ_ERROR_UNSUPPORTED, "64 bits");
  expect_limit("{{ 2 ** 9999999999 }}", GPTVQ_ERROR_UNSUPPORTED, "64 bits");
  expect_limit("{{ 99999999999999999999 }}", GPTVQ_ERROR_UNSUPPORTED, "too large");
  expect_limit(
      "{% set ns = namespace(x=[]) %}{% for a in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
      GPTVQ_ERROR_UNSUPPORTED, "levels");
  expect_limit(
      "{% set ns = namespace(x=[]) %}{% for a in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x == "
      "[ns.x] }}{{ ns.x | tojson }}",
      GPTVQ_ERROR_UNSUPPORTED, "levels");
  expect_limit("{% include 'x' %}", GPTVQ_ERROR_UNSUPPORTED, "line 1: {% include %} is not supported");
  expect_limit("\n\n{{ 'a' | urlize }}", GPTVQ_ERROR_UNSUPPORTED,
               "line 3: the filter 'urlize' is not supported");
  expect_limit("\n{{ 'a'.zfill(2) }}", GPTVQ_ERROR_UNSUPPORTED, "line 2: zfill() is not supported");
  expect_limit("{% for a in [] recursive %}{% endfor %}", GPTVQ_ERROR_UNSUPPORTED, "recursive");
  (void)strcpy(deep, "{{ ");
  memset(deep + 3, '(', DEEP);
  (void)strcpy(deep + 3 + DEEP, "1}}");
  expect_limit(deep, GPTVQ_ERROR_UNSUPPORTED, "levels of brackets");
  for (size_t i = 0; i < DEEP; i += 4) memcpy(deep + 3 + i, "not ", 4);
  expect_limit(deep, GPTVQ_ERROR_UNSUPPORTED, "levels");
  for (size_t i = 0; i < DEEP; i += 2) memcpy(deep + 3 + i, "1+", 2);
  (void)strcpy(deep + 3 + DEEP, "1}}");
  expect_limit(deep, GPTVQ_ERROR_UNSUPPORTED, "levels");
  deep[0] = '\0';
  for (size_t i = 0; i < DEEP / 20; i++) (void)strcpy(deep + 10 * i, "{% if 1 %}");
  expect_limit(deep, GPTVQ_ERROR_UNSUPPORTED, "levels");
  free(deep);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_conversations), cmocka_unit_test(test_snippets),
                                     cmocka_unit_test(test_places), cmocka_unit_test(test_requests),
                                     cmocka_unit_test(test_limits)};
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
