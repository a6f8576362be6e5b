#include "text/decoder.h"

#include "text/normalize.h"
#include "text/utf8.h"

void gptvq_decoder_free(gptvq_decoder *decoder) {
  gptvq_regex_free(decoder->regex);
  gptvq_bytes_free(&decoder->content);
}

void gptvq_decoder_state_free(gptvq_decoder_state *state) {
  gptvq_bytes_free(&state->held);
  gptvq_bytes_free(&state->run);
}

/* The stages from `decoders` on, and where their output goes. */
typedef struct chain {
  const gptvq_decoder *decoders;
  gptvq_decoder_state *states;
  size_t count;
  gptvq_bytes *out;
  gptvq_error *err;
} chain;

enum { STARTS = 1, ENDS = 2 }; /* flags of a fragment */

static gptvq_status feed(const chain *c, const char *data, size_t size, int flags);

static chain rest_of(const chain *c) {
  return (chain){c->decoders + 1, c->states + 1, c->count - 1, c->out, c->err};
}

/* Collects a token; true, with the token in *data and *size, once it is whole. */
static bool whole_token(gptvq_decoder_state *state, const char **data, size_t *size, int flags) {
  if (flags == (STARTS | ENDS)) return true;
  if (flags & STARTS) state->held.size = 0;
  gptvq_bytes_append(&state->held, *data, *size);
  *data = state->held.data == NULL ? "" : state->held.data;
  *size = state->held.size;
  return (flags & ENDS) != 0;
}

/* ---- byte level ---- */

/* Passes on what of the held bytes is a complete sequence; at the end also the rest. */
static gptvq_status pass_utf8(const chain *c, bool end) {
  gptvq_decoder_state *state = c->states;
  gptvq_bytes *held = &state->held;
  size_t keep = 0;
  for (size_t back = 1; !end && back <= 3 && back <= held->size;
       back++) { /* a lead byte among the last three? */
    uint32_t point;
    const char *p = held->data + held->size - back;
    if (((unsigned char)*p & 0xc0) == 0x80) continue;
    if (gptvq_utf8_decode(p, back, &point) == back && point == GPTVQ_UTF8_INCOMPLETE) keep = back;
    break;
  }
  gptvq_bytes whole = {0};
  gptvq_utf8_append_lossy(&whole, held->data, held->size - keep);
  chain rest = rest_of(c);
  gptvq_status status = GPTVQ_OK;
  if (whole.failed) status = gptvq_fail_memory(c->err, "decoded text", held->size);
  else if (whole.size > 0 || !state->open || end)
    status = feed(&rest, whole.data == NULL ? "" : whole.data, whole.size,
                  (state->open ? 0 : STARTS) | (end ? ENDS : 0));
  state->open = true;
  gptvq_bytes_free(&whole);
  if (keep > 0) memmove(held->data, held->data + held->size - keep, keep);
  held->size = keep;
  return status;
}

static void byte_level_token(gptvq_bytes *held, const char *token, size_t size) {
  size_t before = held->size, length;
  for (size_t i = 0; i < size; i += length) {
    int byte = gptvq_byte_level_byte(gptvq_utf8_get(token + i, &length));
    if (byte < 0) { /* not made of stand-ins: as it is */
      held->size = before;
      gptvq_bytes_append(held, token, size);
      return;
    }
    char value = (char)byte;
    gptvq_bytes_append(held, &value, 1);
  }
}

/* ---- byte fallback ---- */

static int hex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/* The byte that "<0xAB>" names, or -1. Rust's from_str_radix also takes a sign: "<0x+A>". */
static int byte_token(const char *token, size_t size) {
  if (size != 6 || memcmp(token, "<0x", 3) != 0 || token[5] != '>') return -1;
  int high = token[3] == '+' ? 0 : hex(token[3]), low = hex(token[4]);
  return high < 0 || low < 0 ? -1 : high << 4 | low;
}

/* A run of byte tokens is one string if it is well-formed as a whole; else each byte is a U+FFFD. */
static gptvq_status end_run(const chain *c) {
  gptvq_bytes *run = &c->states->run;
  if (run->size == 0) return GPTVQ_OK;
  chain rest = rest_of(c);
  gptvq_status status = GPTVQ_OK;
  if (gptvq_utf8_valid(run->data, run->size)) {
    status = feed(&rest, run->data, run->size, STARTS | ENDS);
  } else {
    for (size_t i = 0; i < run->size && status == GPTVQ_OK; i++)
      status = feed(&rest, "\xef\xbf\xbd", 3, STARTS | ENDS);
  }
  run->size = 0;
  return status;
}

static gptvq_status byte_fallback(const chain *c, const char *data, size_t size) {
  int byte = byte_token(data, size);
  if (byte >= 0) {
    char value = (char)byte;
    gptvq_bytes_append(&c->states->run, &value, 1);
    return c->states->run.failed ? gptvq_fail_memory(c->err, "decoded text", c->states->run.size) : GPTVQ_OK;
  }
  GPTVQ_TRY(end_run(c));
  chain rest = rest_of(c);
  return feed(&rest, data, size, STARTS | ENDS);
}

/* ---- strip and metaspace ---- */

/* Takes up to `start` copies of the content from the start of a token and up to `stop` from its end. `held`
 * are the last copies seen, at most `stop` of them: they go only when something else follows. */
static gptvq_status strip(const chain *c, const char *data, size_t size, int flags) {
  const gptvq_decoder *d = c->decoders;
  gptvq_decoder_state *state = c->states;
  if (flags & STARTS) {
    state->held.size = 0;
    state->cut = 0;
    state->inside = false;
  }
  gptvq_bytes pass = {0};
  for (size_t i = 0, length; i < size; i += length) {
    (void)gptvq_utf8_get(data + i, &length);
    bool same = length == d->content.size && memcmp(data + i, d->content.data, length) == 0;
    if (same && !state->inside && state->cut < d->start) {
      state->cut++;
      continue;
    }
    state->inside = true;
    if (same && d->stop > 0) {
      gptvq_bytes_append(&state->held, data + i, length);
      if (state->held.size > d->stop * length) { /* the oldest can no longer be cut */
        gptvq_bytes_append(&pass, data + i, length);
        state->held.size -= length;
      }
      continue;
    }
    gptvq_bytes_append(&pass, state->held.data, state->held.size);
    state->held.size = 0;
    gptvq_bytes_append(&pass, data + i, length);
  }
  if (flags & ENDS) state->held.size = 0;
  chain rest = rest_of(c);
  gptvq_status status = GPTVQ_OK;
  if (pass.failed || state->held.failed) status = gptvq_fail_memory(c->err, "decoded text", size);
  else if (pass.size > 0 || flags != 0)
    status = feed(&rest, pass.data == NULL ? "" : pass.data, pass.size, flags);
  gptvq_bytes_free(&pass);
  return status;
}

static gptvq_status metaspace(const chain *c, const char *data, size_t size, int flags) {
  const gptvq_decoder *d = c->decoders;
  if (flags & STARTS) c->states->tokens++;
  bool leave_out = d->start != 0 && c->states->tokens == 1;
  gptvq_bytes pass = {0};
  for (size_t i = 0, length; i < size; i += length) {
    (void)gptvq_utf8_get(data + i, &length);
    if (length == d->content.size && memcmp(data + i, d->content.data, length) == 0) {
      if (!leave_out) gptvq_bytes_append(&pass, " ", 1);
    } else {
      gptvq_bytes_append(&pass, data + i, length);
    }
  }
  chain rest = rest_of(c);
  gptvq_status status = pass.failed ? gptvq_fail_memory(c->err, "decoded text", size)
                                    : feed(&rest, pass.data == NULL ? "" : pass.data, pass.size, flags);
  gptvq_bytes_free(&pass);
  return status;
}

/* ---- the chain ---- */

static gptvq_status replace(const chain *c, const char *data, size_t size) {
  gptvq_bytes replaced = {0};
  bool kept_start;
  gptvq_status status =
      gptvq_replace(c->decoders->regex, &c->decoders->content, data, size, &replaced, &kept_start, c->err);
  chain rest = rest_of(c);
  if (status == GPTVQ_OK && replaced.failed) status = gptvq_fail_memory(c->err, "decoded text", size);
  if (status == GPTVQ_OK)
    status = feed(&rest, replaced.data == NULL ? "" : replaced.data, replaced.size, STARTS | ENDS);
  gptvq_bytes_free(&replaced);
  return status;
}

/* A fragment through the stages of the chain. Well-formed, cut between code points. */
static gptvq_status feed(const chain *c, const char *data, size_t size, int flags) {
  if (c->count == 0) {
    gptvq_bytes_append(c->out, data, size);
    return c->out->failed ? gptvq_fail_memory(c->err, "decoded text", c->out->size) : GPTVQ_OK;
  }
  gptvq_decoder_state *state = c->states;
  chain rest = rest_of(c);
  switch (c->decoders->kind) {
  case GPTVQ_DECODE_BYTE_LEVEL:
  case GPTVQ_DECODE_REPLACE:
  case GPTVQ_DECODE_BYTE_FALLBACK: {
    gptvq_bytes collected = state->held;
    if (c->decoders->kind == GPTVQ_DECODE_BYTE_LEVEL) {
      /* its `held` are bytes; a token in fragments is collected in `run` */
      if (flags != (STARTS | ENDS)) {
        gptvq_bytes_append(&state->run, data, size);
        if (!(flags & ENDS)) break;
        byte_level_token(&state->held, state->run.data, state->run.size);
        state->run.size = 0;
      } else {
        byte_level_token(&state->held, data, size);
      }
      if (state->held.failed) return gptvq_fail_memory(c->err, "decoded text", collected.size);
      return pass_utf8(c, false);
    }
    bool whole = whole_token(state, &data, &size, flags);
    if (state->held.failed) return gptvq_fail_memory(c->err, "decoded text", collected.size);
    if (!whole) break;
    return c->decoders->kind == GPTVQ_DECODE_REPLACE ? replace(c, data, size) : byte_fallback(c, data, size);
  }
  case GPTVQ_DECODE_FUSE: {
    int starts = state->open ? 0 : STARTS;
    state->open = true;
    return feed(&rest, data, size, starts);
  }
  case GPTVQ_DECODE_STRIP: return strip(c, data, size, flags);
  case GPTVQ_DECODE_METASPACE: return metaspace(c, data, size, flags);
  case GPTVQ_DECODE_JOIN:
    if ((flags & STARTS) && state->tokens++ > 0) GPTVQ_TRY(feed(&rest, " ", 1, STARTS | ENDS));
    return feed(&rest, data, size, flags);
  }
  return GPTVQ_OK;
}

gptvq_status gptvq_decoder_push(const gptvq_decoder *decoders, gptvq_decoder_state *states, size_t count,
                                const char *token, size_t size, gptvq_bytes *out, gptvq_error *err) {
  chain all = {decoders, states, count, out, err};
  return feed(&all, token, size, STARTS | ENDS);
}

gptvq_status gptvq_decoder_flush(const gptvq_decoder *decoders, gptvq_decoder_state *states, size_t count,
                                 gptvq_bytes *out, gptvq_error *err) {
  for (size_t i = 0; i < count; i++) {
    chain c = {decoders + i, states + i, count - i, out, err};
    chain rest = rest_of(&c);
    switch (decoders[i].kind) {
    case GPTVQ_DECODE_BYTE_LEVEL: GPTVQ_TRY(pass_utf8(&c, true)); break;
    case GPTVQ_DECODE_BYTE_FALLBACK: GPTVQ_TRY(end_run(&c)); break;
    case GPTVQ_DECODE_FUSE: GPTVQ_TRY(feed(&rest, "", 0, (states[i].open ? 0 : STARTS) | ENDS)); break;
    default: break;
    }
  }
  return GPTVQ_OK;
}
