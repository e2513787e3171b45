/* Text from outside: see text.h. */
#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t fkm_utf8_length(const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    if (s[0] < 0x80)
        return 1;
    size_t len = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    bool outside = (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf4 && s[1] > 0x8f);
    return overlong || outside ? 0 : len;
}

bool fkm_is_utf8(const char *text)
{
    while (*text) {
        size_t len = fkm_utf8_length(text);
        if (len == 0)
            return false;
        text += len;
    }
    return true;
}

uint32_t fkm_utf8_decode(const char *text)
{
    static const unsigned char first_bits[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    const unsigned char *s = (const unsigned char *)text;
    size_t len = fkm_utf8_length(text);
    uint32_t c = s[0] & first_bits[len];
    for (size_t i = 1; i < len; i++)
        c = c << 6 | (s[i] & 0x3f);
    return c;
}

size_t fkm_shown_length(const char *s)
{
    size_t len = fkm_utf8_length(s);
    if (len == 0)
        return 0;
    uint32_t c = fkm_utf8_decode(s);
    bool control = c < 0x20 || (c >= 0x7f && c <= 0x9f);
    bool line_end = c == 0x2028 || c == 0x2029;
    bool direction = c == 0x61c || c == 0x200e || c == 0x200f || (c >= 0x202a && c <= 0x202e) ||
                     (c >= 0x2066 && c <= 0x2069);
    return control || line_end || direction ? 0 : len;
}

const char *fkm_text_escape(char *out, size_t cap, const char *text)
{
    static const char more[] = "...";
    size_t used = 0, whole = 0; /* whole: the text up to there leaves room for "..." */
    while (*text) {
        size_t len = fkm_shown_length(text), needed = len ? len : 4;
        if (used + needed >= cap) {
            used = whole;
            if (cap >= sizeof more) {
                memcpy(out + used, more, sizeof more - 1);
                used += sizeof more - 1;
            }
            break;
        }
        if (len)
            memcpy(out + used, text, len);
        else
            snprintf(out + used, 5, "\\x%02x", (unsigned char)*text);
        used += needed;
        text += len ? len : 1;
        if (used + sizeof more <= cap)
            whole = used;
    }
    out[used] = '\0';
    return out;
}

/* ---- names that need not be UTF-8, in texts that must ---- */

void fkm_percent_encode(char *out, const char *text)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "-._~/";
    for (; *text; text++)
        if (strchr(plain, *text))
            *out++ = *text;
        else
            out += snprintf(out, 4, "%%%02X", (unsigned char)*text);
    *out = '\0';
}

bool fkm_percent_decode(char *out, const char *text)
{
    for (; *text; text++) {
        if (*text != '%') {
            *out++ = *text;
            continue;
        }
        if (strspn(text + 1, "0123456789abcdefABCDEF") < 2)
            return false;
        char hex[3] = {text[1], text[2], '\0'};
        *out = (char)strtol(hex, NULL, 16);
        if (*out++ == '\0')
            return false;
        text += 2;
    }
    *out = '\0';
    return true;
}
