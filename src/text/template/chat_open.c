/* Finding a model's chat template and its special tokens, where transformers looks for them. */
#include "text/template/chat.h"

#include "base/file.h"
#include "gguf/model_file.h"
#include "text/template/parser.h"
#include "text/tokenizer_internal.h"
#include "text/utf8.h"

#include <stdlib.h>

static gptvq_status parse(gptvq_template *out, gptvq_string source) {
  if (setjmp(out->tpl.failed) != 0) return out->tpl.status;
  out->body = gptvq_tpl_parse(&out->tpl, source);
  return GPTVQ_OK;
}

gptvq_status gptvq_template_read(gptvq_template *out, const char *name, const char *source, size_t size,
                                 gptvq_error *err) {
  if (size > GPTVQ_TPL_MAX_SOURCE)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED, "%s: a chat template of more than %d bytes", name,
                      GPTVQ_TPL_MAX_SOURCE);
  if (!gptvq_utf8_valid(source, size))
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: the chat template is not UTF-8 text", name);
  out->name = strdup(name);
  if (out->name == NULL) return gptvq_fail_memory(err, "a chat template", strlen(name));
  gptvq_tpl_init(&out->tpl, out->name, err);
  gptvq_status status = parse(out, (gptvq_string){source, size});
  out->tpl.err = NULL; /* the caller's */
  return status;
}

void gptvq_template_release(gptvq_template *template) {
  gptvq_tpl_release(&template->tpl);
  free(template->name);
  *template = (gptvq_template){.name = NULL};
}

static gptvq_status read_template_file(gptvq_template *out, const char *path, gptvq_error *err) {
  char *source;
  size_t size;
  GPTVQ_TRY(gptvq_model_file_read(path, GPTVQ_TPL_MAX_SOURCE, &source, &size, err));
  gptvq_status status = gptvq_template_read(out, path, source, size, err);
  free(source);
  return status;
}

/* FOLDER/NAME where it exists; out stays as it is otherwise. */
static gptvq_status read_if_there(gptvq_template *out, const char *folder, const char *name,
                                  gptvq_error *err) {
  char *path = gptvq_join_path(folder, name);
  if (path == NULL) return gptvq_fail_memory(err, "a path", strlen(folder));
  gptvq_status status = gptvq_model_file_exists(path) ? read_template_file(out, path, err) : GPTVQ_OK;
  free(path);
  return status;
}

/* chat_template of tokenizer_config.json: a text, or a list of {"name": …, "template": …}. */
static gptvq_status read_config_template(gptvq_chat *chat, const json_t *config, const char *path,
                                         gptvq_error *err) {
  const json_t *value = json_object_get(config, "chat_template");
  if (value == NULL || json_is_null(value)) return GPTVQ_OK;
  if (json_is_string(value))
    return gptvq_template_read(&chat->usual, path, json_string_value(value), json_string_length(value), err);
  if (!json_is_array(value))
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: chat_template is neither a text nor a list of texts",
                      path);
  for (size_t i = 0; i < json_array_size(value); i++) {
    const json_t *one = json_array_get(value, i), *text = json_object_get(one, "template");
    const char *name = json_string_value(json_object_get(one, "name"));
    if (name == NULL || !json_is_string(text))
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: chat_template: item %zu lacks \"name\" or \"template\"",
                        path, i);
    gptvq_template *to = strcmp(name, "default") == 0    ? &chat->usual
                         : strcmp(name, "tool_use") == 0 ? &chat->with_tools
                                                         : NULL;
    if (to == NULL || to->name != NULL) continue;
    GPTVQ_TRY(gptvq_template_read(to, path, json_string_value(text), json_string_length(text), err));
  }
  return GPTVQ_OK;
}

static gptvq_status add_token(gptvq_chat *chat, const char *name, const json_t *value, gptvq_error *err) {
  if (json_is_object(value)) value = json_object_get(value, "content");
  if (!json_is_string(value) || json_object_get(chat->tokens, name) != NULL) return GPTVQ_OK;
  if (json_object_set(chat->tokens, name, (json_t *)(uintptr_t)value) != 0)
    return gptvq_fail_memory(err, "the special tokens", strlen(name));
  return GPTVQ_OK;
}

/* X_token of an object, and all of its extra_special_tokens. */
static gptvq_status add_tokens(gptvq_chat *chat, json_t *config, gptvq_error *err) {
  const char *key;
  json_t *value;
  json_object_foreach(config, key, value) {
    size_t size = strlen(key);
    if (size > 6 && strcmp(key + size - 6, "_token") == 0) GPTVQ_TRY(add_token(chat, key, value, err));
  }
  json_object_foreach(json_object_get(config, "extra_special_tokens"), key, value)
      GPTVQ_TRY(add_token(chat, key, value, err));
  return GPTVQ_OK;
}

static gptvq_status read_config(gptvq_chat *chat, const char *folder, const char *name, bool with_template,
                                gptvq_error *err) {
  char *path = gptvq_join_path(folder, name), nul[GPTVQ_NUL_STAND_IN];
  json_t *config = NULL;
  if (path == NULL) return gptvq_fail_memory(err, "a path", strlen(folder));
  gptvq_status status = gptvq_model_file_exists(path)
                            ? gptvq_text_read_json(path, GPTVQ_MAX_CONFIG_BYTES, nul, &config, err)
                            : GPTVQ_OK;
  if (status == GPTVQ_OK && config != NULL && with_template)
    status = read_config_template(chat, config, path, err);
  if (status == GPTVQ_OK && config != NULL) status = add_tokens(chat, config, err);
  json_decref(config);
  free(path);
  return status;
}

static gptvq_status open_chat(gptvq_chat *chat, const char *folder, const char *template_file,
                              gptvq_error *err) {
  chat->tokens = json_object();
  if (chat->tokens == NULL) return gptvq_fail_memory(err, "a chat template", sizeof *chat);
  if (template_file != NULL) {
    GPTVQ_TRY(read_template_file(&chat->usual, template_file, err));
  } else {
    GPTVQ_TRY(read_if_there(&chat->usual, folder, "chat_template.jinja", err));
    GPTVQ_TRY(read_if_there(&chat->with_tools, folder, "additional_chat_templates/tool_use.jinja", err));
  }
  if (folder != NULL) {
    GPTVQ_TRY(read_config(chat, folder, "tokenizer_config.json", chat->usual.name == NULL, err));
    GPTVQ_TRY(read_config(chat, folder, "special_tokens_map.json", false, err));
  }
  if (chat->usual.name == NULL)
    return gptvq_fail(
        err, GPTVQ_ERROR_UNSUPPORTED,
        "%s: this model has no chat template (neither chat_template.jinja nor chat_template in "
        "tokenizer_config.json): give one (gptvq chat --template FILE), or let it continue texts "
        "(gptvq generate)",
        folder);
  return GPTVQ_OK;
}

gptvq_status gptvq_chat_open(const char *folder, const char *template_file, gptvq_chat **out,
                             gptvq_error *err) {
  *out = NULL;
  if (folder == NULL && template_file == NULL)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "gptvq_chat_open needs a folder or a template");
  gptvq_chat *chat = calloc(1, sizeof *chat);
  if (chat == NULL) return gptvq_fail_memory(err, "a chat template", sizeof *chat);
  gptvq_status status = open_chat(chat, folder, template_file, err);
  if (status == GPTVQ_OK) *out = chat;
  else gptvq_chat_close(chat);
  return status;
}

void gptvq_chat_close(gptvq_chat *chat) {
  if (chat == NULL) return;
  gptvq_template_release(&chat->usual);
  gptvq_template_release(&chat->with_tools);
  json_decref(chat->tokens);
  free(chat);
}
