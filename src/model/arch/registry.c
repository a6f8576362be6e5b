#include "checkpoint/names.h"
#include "model/arch/arch.h"

#include <stdio.h>
#include <string.h>

#define ADDRESS_OF(name) &gptvq_arch_##name,
static const gptvq_arch *const families[] = {GPTVQ_FAMILIES(ADDRESS_OF)};
const gptvq_block_input gptvq_input_order[GPTVQ_ALL_INPUTS] = {
    GPTVQ_INPUT_QKV, GPTVQ_INPUT_Q_B, GPTVQ_INPUT_KV_B, GPTVQ_INPUT_O, GPTVQ_INPUT_GATE_UP, GPTVQ_INPUT_DOWN};
enum { FAMILIES = sizeof families / sizeof families[0] };

const gptvq_arch *gptvq_find_arch(const char *architecture) {
  for (size_t i = 0; i < FAMILIES; i++) {
    size_t length = strlen(families[i]->name);
    const char *rest = architecture + length;
    if (strncmp(architecture, families[i]->name, length) == 0 &&
        (strcmp(rest, "ForCausalLM") == 0 || strcmp(rest, "Model") == 0))
      return families[i];
  }
  return NULL;
}

const gptvq_arch *gptvq_find_model_type(const char *model_type) {
  for (size_t i = 0; i < FAMILIES; i++)
    if (strcmp(families[i]->model_type, model_type) == 0) return families[i];
  return NULL;
}

gptvq_status gptvq_fail_arch(const char *folder, const char *architecture, gptvq_error *err) {
  char supported[32 * FAMILIES] = "";
  for (size_t i = 0; i < FAMILIES; i++) {
    size_t used = strlen(supported);
    (void)snprintf(supported + used, sizeof supported - used, "%s%s", i == 0 ? "" : ", ", families[i]->name);
  }
  return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                    "%s/config.json: architecture %s is not supported; supported: …ForCausalLM of %s", folder,
                    architecture, supported);
}

const char *gptvq_block_name(size_t block, const char *name, const char *suffix,
                             char text[GPTVQ_TENSOR_NAME]) {
  (void)snprintf(text, GPTVQ_TENSOR_NAME, GPTVQ_NAME_BLOCKS "%zu.%s%s", block, name, suffix);
  return text;
}

const char *gptvq_linear_name(const gptvq_arch *arch, size_t block, gptvq_block_input input, size_t part,
                              size_t mlp, char text[GPTVQ_TENSOR_NAME]) {
  const char *name = arch->linears[input].names[part];
  char prefix[64] = "";
  if (arch->experts == NULL || !gptvq_input_in_mlp(input)) return gptvq_block_name(block, name, "", text);
  if (mlp == GPTVQ_MLP_DENSE) return gptvq_block_name(block, arch->dense, name, text);
  if (mlp == GPTVQ_MLP_SHARED) return gptvq_block_name(block, arch->shared, name, text);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
  (void)snprintf(prefix, sizeof prefix, arch->experts, mlp); /* a constant of the family */
#pragma GCC diagnostic pop
  return gptvq_block_name(block, prefix, name, text);
}
