/* generate/messages.h: messages as clients of OpenAI's interface write them, in the form that chat
 * templates are made for. */
#ifndef GENERATE_MESSAGES_H
#define GENERATE_MESSAGES_H

#include "base/strbuf.h"
#include "format/json.h"

/**
 * A list of messages with
 *   content that is a list, [{"type": "text", "text": ...}, ...], as one text,
 *   content that is null or absent as an empty text,
 *   arguments of calls that are a text as the JSON that it holds,
 * which is what mlx_lm.server gives to templates. All else stays.
 *
 * Errors: CLM_ERR_ARG (a message is no object, a part has no text), CLM_ERR_UNSUPPORTED (a part of
 * another type), CLM_ERR_NOMEM. Returns a document of its own, or NULL with *err filled.
 */
json *messages_for_template(const json *messages, clm_error *err);

/* Append the arguments of a call, a text [size] of JSON, as they are; a text that is no JSON, or
 * has a key twice, as a string. */
void messages_add_arguments(struct strbuf *out, const char *text, size_t size);

#endif
