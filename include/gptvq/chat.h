/* gptvq/chat.h: conversations as the text that a chat model was trained on, by the model's own chat template.
 *
 * Templates are Jinja, rendered byte for byte as transformers' apply_chat_template does: the subset that chat
 * templates use (docs/CLI.md, "Chat templates"). They come with models from anywhere: one can neither read
 * files nor change anything, and memory, output, depth and run time are limited; of the stack, rendering
 * takes up to 512 KiB. */
#ifndef GPTVQ_CHAT_H
#define GPTVQ_CHAT_H

#include <gptvq/status.h>
#include <gptvq/tokenizer.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct gptvq_chat
    gptvq_chat; /* a template and its tokens; immutable, may be shared between threads */

/* FOLDER: a model folder; its template is chat_template.jinja (with additional_chat_templates/tool_use.jinja
 * for conversations with tools) or else chat_template of tokenizer_config.json, and the texts of its special
 * tokens (bos_token, eos_token, …) are variables of the template. template_file: a template to use instead,
 * or NULL. folder may be NULL when that is given: then there are no special tokens. On success *out is owned
 * by the caller (gptvq_chat_close); on failure *out is NULL: GPTVQ_ERROR_UNSUPPORTED when there is no
 * template or it uses what is not supported, GPTVQ_ERROR_FORMAT when it is malformed, naming file and line.
 */
GPTVQ_API gptvq_status gptvq_chat_open(const char *folder, const char *template_file, gptvq_chat **out,
                                       gptvq_error *err);
GPTVQ_API void gptvq_chat_close(gptvq_chat *chat); /* NULL is fine */

/* What is to be rendered. Texts are UTF-8; nothing is kept after the call. */
typedef struct gptvq_chat_request {
  size_t size;
  const char *messages; /* JSON, [messages_size]: [{"role": "user", "content": "…"}, …], as OpenAI has them */
  size_t messages_size;
  const char *tools; /* JSON, [tools_size]: a list of objects; NULL: none */
  size_t tools_size;
  const char *variables; /* JSON, [variables_size]: an object of further variables; NULL: none */
  size_t variables_size;
  int add_generation_prompt;  /* end with what opens the assistant's turn */
  int continue_final_message; /* end within the last message, for the model to go on there */
  int64_t time; /* seconds since 1970 for templates that ask for the date (in local time); 0 = now */
} gptvq_chat_request;
static inline void gptvq_chat_request_init(gptvq_chat_request *request) { GPTVQ_INIT(request); }

/* The conversation as one text (NUL-terminated, *size excludes the NUL; free with gptvq_free). Encode it with
 * gptvq_tokenizer_encode and add_special 0: the template writes special tokens itself. Special tokens are
 * recognised wherever they stand in that text, in the contents of messages too: take them out of what is not
 * trusted before. As transformers does, keys of messages that are null are left out, and a message's
 * reasoning_content, thinking or reasoning is known under the first two names.
 * GPTVQ_ERROR_DATA: the template refuses the conversation (the message is its own), or it cannot be rendered
 * with it; JSON that is malformed. GPTVQ_ERROR_UNSUPPORTED: a limit, or something of Jinja that is missing.
 * GPTVQ_ERROR_ARGUMENT: add_generation_prompt together with continue_final_message. On failure *text is NULL.
 */
GPTVQ_API gptvq_status gptvq_chat_render(const gptvq_chat *chat, const gptvq_chat_request *request,
                                         char **text, size_t *size, gptvq_error *err);

/* The special token that the template puts behind an answer, or -1: models whose files name another EOS end
 * their turns with it all the same. *id is -1 where the template refuses the conversation that is tried. */
GPTVQ_API gptvq_status gptvq_chat_end_of_turn(const gptvq_chat *chat, const gptvq_tokenizer *tokenizer,
                                              int32_t *id, gptvq_error *err);

#ifdef __cplusplus
}
#endif
#endif
