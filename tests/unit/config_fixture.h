/* config.json as text, for the tests of model/arch/config. */
#ifndef GPTVQ_TEST_CONFIG_FIXTURE_H
#define GPTVQ_TEST_CONFIG_FIXTURE_H

#include "model/arch/config.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

/* One quote character in these texts stands for a double quote, so that they can be read. */
static json_t *parse_text(const char *text) {
  char json[4096];
  size_t n = strlen(text);
  assert_true(n < sizeof json);
  for (size_t i = 0; i <= n; i++) json[i] = text[i] == '\'' ? '"' : text[i];
  json_error_t where;
  json_t *value = json_loads(json, 0, &where);
  if (value == NULL) fail_msg("%s: %s", where.text, json);
  return value;
}

/* base with the keys of `changes` put over it; a key with the value 'absent' is removed */
static gptvq_status parse(const char *base, const char *changes, const char *generation, gptvq_config *out,
                          gptvq_error *err) {
  json_t *config = parse_text(base), *over = parse_text(changes), *value;
  const char *key;
  json_object_foreach(over, key, value) {
    const char *text = json_string_value(value);
    if (text != NULL && strcmp(text, "absent") == 0) json_object_del(config, key);
    else json_object_set(config, key, value);
  }
  json_t *second = generation != NULL ? parse_text(generation) : NULL;
  gptvq_status status = gptvq_config_parse("some/model", config, second, out, err);
  json_decref(second);
  json_decref(over);
  json_decref(config);
  return status;
}

static gptvq_config accept(const char *base, const char *changes, const char *generation) {
  gptvq_error err;
  gptvq_config config;
  if (parse(base, changes, generation, &config, &err) != GPTVQ_OK) fail_msg("%s: %s", changes, err.message);
  return config;
}

static const char llama[] =
    "{'architectures': ['LlamaForCausalLM'], 'hidden_size': 64, 'intermediate_size': 96,"
    "'num_hidden_layers': 3, 'num_attention_heads': 8, 'vocab_size': 100,"
    "'max_position_embeddings': 512, 'rms_norm_eps': 1e-5}";

#endif
