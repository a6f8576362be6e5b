/* The token that a template ends answers with. */
#include <gptvq/chat.h>
#include <gptvq/tokenizer.h>

#include "base/status.h"

#include <stdbool.h>
#include <string.h>

/* Does this id say less when special tokens are left out? */
static gptvq_status look(const gptvq_tokenizer *tokenizer, int32_t id, bool *special, gptvq_error *err) {
  char *all = NULL, *plain = NULL;
  size_t all_size = 0, plain_size = 0;
  gptvq_status status = gptvq_tokenizer_decode(tokenizer, &id, 1, 0, &all, &all_size, err);
  if (status == GPTVQ_OK) status = gptvq_tokenizer_decode(tokenizer, &id, 1, 1, &plain, &plain_size, err);
  gptvq_free(all);
  gptvq_free(plain);
  *special = plain_size < all_size;
  return status;
}

gptvq_status gptvq_chat_end_of_turn(const gptvq_chat *chat, const gptvq_tokenizer *tokenizer, int32_t *id,
                                    gptvq_error *err) {
  static const char said[] = "(answer)", messages[] = "[{\"role\": \"user\", \"content\": \"x\"}, "
                                                      "{\"role\": \"assistant\", \"content\": \"(answer)\"}]";
  const gptvq_chat_request request = {
      .size = sizeof request, .messages = messages, .messages_size = sizeof messages - 1};
  char *text;
  size_t size, count = 0;
  int32_t *ids = NULL;
  bool special = false;
  *id = -1;
  gptvq_status status = gptvq_chat_render(chat, &request, &text, &size, err);
  if (status == GPTVQ_ERROR_MEMORY) return status;
  if (status != GPTVQ_OK) return GPTVQ_OK; /* it may like what is really said better */
  const char *behind = strstr(text, said);
  if (behind != NULL) {
    behind += strlen(said);
    status = gptvq_tokenizer_encode(tokenizer, behind, strlen(behind), 0, &ids, &count, err);
  }
  gptvq_free(text);
  if (status == GPTVQ_OK && count > 0) status = look(tokenizer, ids[0], &special, err);
  if (special) *id = ids[0];
  gptvq_free(ids);
  return status;
}
