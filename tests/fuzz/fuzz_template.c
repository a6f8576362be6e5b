/* Any bytes as a chat template: it gives a text, or one line that says why not. */
#include "fuzz.h"

#include "text/template/chat.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char messages[] =
      "[{\"role\": \"system\", \"content\": \"Be \\u00fc.\"}, {\"role\": \"user\", \"content\": "
      "\" Hello <|x|> \\ud83d\\ude00\\n\"}, {\"role\": \"assistant\", \"tool_calls\": [{\"id\": "
      "\"123456789\", \"function\": {\"name\": \"f\", \"arguments\": {\"a\": [1, 2.5, null]}}}]}]";
  gptvq_chat chat = {.tokens = json_pack("{s:s}", "bos_token", "<s>")};
  gptvq_error err = {GPTVQ_OK, ""};
  char *text = NULL;
  size_t text_size;
  gptvq_status status = gptvq_template_read(&chat.usual, "template", (const char *)data, size, &err);
  if (status == GPTVQ_OK) {
    gptvq_chat_request request = {.size = sizeof request,
                                  .messages = messages,
                                  .messages_size = sizeof messages - 1,
                                  .tools = messages,
                                  .tools_size = sizeof messages - 1,
                                  .add_generation_prompt = 1,
                                  .time = 1};
    status = gptvq_chat_render(&chat, &request, &text, &text_size, &err);
  }
  if (status != GPTVQ_OK && (err.status != status || err.message[0] == '\0')) abort();
  if (status == GPTVQ_ERROR_INTERNAL || (status == GPTVQ_OK) != (text != NULL)) abort();
  free(text);
  gptvq_template_release(&chat.usual);
  json_decref(chat.tokens);
  return 0;
}
