#include "server/api/service.h"

#include "base/status.h"

#include <string.h>

gptvq_status gptvq_service_look(gptvq_service *service, gptvq_error *err) {
  gptvq_model_info info;
  gptvq_model_info_init(&info);
  gptvq_model_get_info(service->model, &info);
  service->vocab = info.vocab;
  service->bos = gptvq_tokenizer_bos(service->tokenizer);
  if (service->bos < 0) service->bos = info.bos;
  service->eos = gptvq_tokenizer_eos(service->tokenizer);
  if (service->eos < 0 && info.eos_count > 0) service->eos = info.eos[0];
  service->end_of_turn = service->anchor = -1;
  if (service->chat != NULL)
    GPTVQ_TRY(gptvq_chat_end_of_turn(service->chat, service->tokenizer, &service->end_of_turn, err));
  int32_t *ids;
  size_t count;
  char *text;
  GPTVQ_TRY(gptvq_tokenizer_encode(service->tokenizer, "a", 1, 0, &ids, &count, err));
  if (count > 0) service->anchor = ids[count - 1];
  gptvq_free(ids);
  if (service->anchor < 0) return GPTVQ_OK;
  GPTVQ_TRY(
      gptvq_tokenizer_decode(service->tokenizer, &service->anchor, 1, 0, &text, &service->anchor_size, err));
  gptvq_free(text);
  return GPTVQ_OK;
}

char *gptvq_service_token(const gptvq_service *service, int32_t id, size_t *size) {
  const int32_t ids[2] = {service->anchor, id};
  const bool behind = service->anchor >= 0;
  gptvq_error err;
  char *text;
  if (gptvq_tokenizer_decode(service->tokenizer, behind ? ids : ids + 1, behind ? 2 : 1, 0, &text, size,
                             &err) != GPTVQ_OK)
    return NULL;
  if (behind && *size >= service->anchor_size) {
    *size -= service->anchor_size;
    memmove(text, text + service->anchor_size, *size + 1);
  }
  return text;
}
