#include "cuda/place.h"
#include "cuda/card.h"
#include "cuda/meter.h"

#include <stdio.h>
#include <string.h>

static void stay_on_cpu(const gptvq_place_need *need, gptvq_place *out) {
  *out = (gptvq_place){.name = "cpu", .kind = "cpu", .backend = gptvq_cpu_backend};
  if (need->rounds) out->backend.linalg = &gptvq_cpu_linalg_bf16;
}

static gptvq_status open_card(unsigned number, const gptvq_place_need *need, gptvq_place *out,
                              char *description, size_t size, gptvq_error *err) {
  const gptvq_card_need card = {.bytes = need->bytes, .first = (unsigned)need->neighbour};
  gptvq_card_info info;
  GPTVQ_TRY(gptvq_card_open(number, &card, &out->device, err));
  gptvq_card_describe(out->device, &info);
  (void)snprintf(out->name, sizeof out->name, "cuda:%u", info.number);
  (void)snprintf(out->kind, sizeof out->kind, "%s, driver for CUDA %d.%d", info.name, info.driver / 1000,
                 info.driver % 1000 / 10);
  (void)snprintf(description, size, "%s, compute capability %u.%u, %.1f GB, driver for CUDA %d.%d", info.name,
                 info.major, info.minor, (double)info.memory * 1e-9, info.driver / 1000,
                 info.driver % 1000 / 10);
  return GPTVQ_OK;
}

static gptvq_status open_shim(gptvq_place *out, char *description, size_t size, gptvq_error *err) {
  GPTVQ_TRY(gptvq_device_open_shim(&out->device, err));
  (void)snprintf(out->name, sizeof out->name, "shim");
  (void)snprintf(out->kind, sizeof out->kind, "shim");
  (void)snprintf(description, size, "a card's kernels on the CPU, which is slow and for tests");
  return GPTVQ_OK;
}

/* The device is open: time is measured, tables are made. */
static gptvq_status equip(const gptvq_place_need *need, gptvq_place *out, gptvq_error *err) {
  gptvq_device *metered;
  GPTVQ_TRY(gptvq_device_meter(out->device, need->stages, &metered, err));
  out->device = metered;
  if (need->forward_only) return gptvq_cuda_forward_create(metered, NULL, &out->forward, err);
  GPTVQ_TRY(gptvq_cuda_linalg_create(metered, need->rounds, &out->linalg, err));
  GPTVQ_TRY(gptvq_cuda_create(metered, out->linalg, &out->cuda, err));
  GPTVQ_TRY(gptvq_cuda_forward_create(metered, out->linalg, &out->forward, err));
  out->backend = *gptvq_cuda_backend(out->cuda);
  out->backend.linalg = gptvq_cuda_linalg_table(out->linalg);
  return GPTVQ_OK;
}

static unsigned card_number(const gptvq_device_choice *choice, const gptvq_place_need *need) {
  const bool any = choice->kind == GPTVQ_ON_ANY || (need->neighbours > 1 && !choice->numbered);
  return any ? GPTVQ_CARD_ANY : choice->card;
}

gptvq_status gptvq_place_open(const gptvq_device_choice *choice, const gptvq_place_need *need,
                              const gptvq_callbacks *callbacks, gptvq_place *out, gptvq_error *err) {
  char description[512] = "";
  const unsigned card = card_number(choice, need);
  gptvq_status status = GPTVQ_OK;
  *out = (gptvq_place){0};
  switch (choice->kind) {
  case GPTVQ_ON_CPU: stay_on_cpu(need, out); return GPTVQ_OK;
  case GPTVQ_ON_SHIM: status = open_shim(out, description, sizeof description, err); break;
  case GPTVQ_ON_CUDA: status = open_card(card, need, out, description, sizeof description, err); break;
  case GPTVQ_ON_ANY: {
    gptvq_error why;
    if (open_card(card, need, out, description, sizeof description, &why) == GPTVQ_OK) break;
    gptvq_log(callbacks, GPTVQ_LOG_INFO, "device: cpu (%s)", why.message);
    stay_on_cpu(need, out);
    return GPTVQ_OK;
  }
  }
  if (status == GPTVQ_OK) status = equip(need, out, err);
  if (status != GPTVQ_OK) {
    gptvq_place_close(out);
    return status;
  }
  gptvq_log(callbacks, GPTVQ_LOG_INFO, "device: %s (%s)", out->name, description);
  const char *left = out->cuda != NULL ? gptvq_cuda_left_to_cpu(out->cuda) : NULL;
  if (left != NULL && left[0] != '\0')
    gptvq_log(callbacks, GPTVQ_LOG_INFO, "the CPU does of the solver: %s", left);
  return GPTVQ_OK;
}

const gptvq_forward *gptvq_place_forward(const gptvq_place *place) {
  return place->forward != NULL ? gptvq_cuda_forward_table(place->forward) : NULL;
}

/* Half number i of the model's: attention and MLP of each block. */
static const char *lacks(const gptvq_model *model, size_t i) {
  return gptvq_cuda_forward_lacks(model, &model->blocks[i / 2], i % 2);
}

static bool same(const char *a, const char *b) { return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0; }

static bool lack_the_same(const gptvq_model *a, const gptvq_model *b) {
  bool all = a->config.layers == b->config.layers &&
             same(gptvq_cuda_forward_lacks(a, NULL, false), gptvq_cuda_forward_lacks(b, NULL, false));
  for (size_t i = 0; all && i < 2 * a->config.layers; i++) all = same(lacks(a, i), lacks(b, i));
  return all;
}

void gptvq_place_say_forward(const gptvq_model *model, const gptvq_model *beside,
                             const gptvq_callbacks *callbacks) {
  const size_t blocks = model->config.layers;
  const char *of_head = gptvq_cuda_forward_lacks(model, NULL, false);
  for (size_t half = 0; half < 2 * blocks; half++) {
    const char *why = lacks(model, half);
    bool said = why == NULL;
    size_t count = 0;
    for (size_t i = 0; i < half && !said; i++) said = same(lacks(model, i), why);
    for (size_t b = 0; b < blocks && !said; b++)
      count += same(lacks(model, 2 * b), why) || same(lacks(model, 2 * b + 1), why);
    if (count > 0)
      gptvq_log(callbacks, GPTVQ_LOG_INFO, "the CPU does of the forward passes: %s, in %zu of %zu blocks",
                why, count, blocks);
  }
  if (of_head != NULL)
    gptvq_log(callbacks, GPTVQ_LOG_INFO, "the CPU does of the forward passes: %s of the output head",
              of_head);
  if (beside != NULL && !lack_the_same(model, beside)) gptvq_place_say_forward(beside, NULL, callbacks);
}

void gptvq_place_say_crowded(gptvq_place *place, const gptvq_callbacks *callbacks) {
  if (place->device == NULL || !place->device->crowded || place->said_crowded) return;
  place->said_crowded = true;
  gptvq_log(
      callbacks, GPTVQ_LOG_WARNING,
      "%s has too little memory for the best way: rows are worked on in smaller pieces, or sums wait on "
      "the host, which takes longer",
      place->name);
}

void gptvq_place_close(gptvq_place *place) {
  gptvq_cuda_forward_destroy(place->forward);
  gptvq_cuda_linalg_destroy(place->linalg);
  gptvq_cuda_destroy(place->cuda);
  if (place->device != NULL) place->device->close(place->device);
  memset(place, 0, sizeof *place);
}
