/* Text from outside: file names, names inside files, values of options. Any bytes, and a terminal
 * obeys some of them. */
#ifndef FKM_TEXT_H
#define FKM_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the valid UTF-8 sequence at s, or 0. Overlong forms, surrogates and values above
 * U+10FFFF are not valid. s ends with 0, which counts as a sequence. */
size_t fkm_utf8_length(const char *s);
bool fkm_is_utf8(const char *text);

/* The character that a valid sequence stands for. */
uint32_t fkm_utf8_decode(const char *s);

/* Bytes of the character at s when it may be shown as it is, 0 when it must not: bytes that are not
 * UTF-8, control characters (C0 and newlines among them, DEL, C1), those that end a line or turn
 * the direction of what follows. */
size_t fkm_shown_length(const char *s);

/* text with each byte of what must not be shown as \xNN; returns out. What has no room in cap is
 * left out and "..." ends it. What is shown twice is the same: backslashes stay as they are. */
const char *fkm_text_escape(char *out, size_t cap, const char *text);

/* ---- names that need not be UTF-8, in texts that must ---- */

/* As in URLs: %NN for each byte but letters, digits and "-._~/". out: [3 * strlen(text) + 1]. */
void fkm_percent_encode(char *out, const char *text);

/* The reverse; false when text is no such name (a bad %NN, a byte 0). out: [strlen(text) + 1]. */
bool fkm_percent_decode(char *out, const char *text);

#endif
