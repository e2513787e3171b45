/* Texts to values, and back: see opt.h. */
#include "opt.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

bool opt_to_seed(const char *text, uint64_t *out)
{
    uint64_t value = 0;
    if (!isdigit((unsigned char)*text))
        return false;
    for (; isdigit((unsigned char)*text); text++)
        if (__builtin_mul_overflow(value, UINT64_C(10), &value) ||
            __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value))
            return false;
    *out = value;
    return *text == '\0';
}

bool opt_to_count(const char *text, int64_t *out)
{
    char digits[24];
    size_t len = strspn(text, "0123456789");
    int64_t unit = 1;
    if (!strcmp(text + len, "k"))
        unit = 1000;
    else if (!strcmp(text + len, "M"))
        unit = 1000000;
    else if (text[len] != '\0')
        return false;
    uint64_t value;
    if (len == 0 || len >= sizeof digits)
        return false;
    memcpy(digits, text, len);
    digits[len] = '\0';
    int64_t result;
    if (!opt_to_seed(digits, &value) || value > INT64_MAX ||
        __builtin_mul_overflow((int64_t)value, unit, &result))
        return false;
    *out = result;
    return true;
}

/* Decimal only: strtod would also take "inf", "nan" and hexadecimal. *end: what follows. */
static bool leading_real(const char *text, double *out, const char **end)
{
    if (!isdigit((unsigned char)*text) && *text != '.' && *text != '-' && *text != '+')
        return false;
    size_t sign = *text == '-' || *text == '+';
    if (!isdigit((unsigned char)text[sign]) && text[sign] != '.')
        return false;
    if (text[sign] == '0' && (text[sign + 1] == 'x' || text[sign + 1] == 'X'))
        return false;
    char *stop;
    double value = strtod(text, &stop);
    if (stop == text || !isfinite(value))
        return false;
    *out = value;
    *end = stop;
    return true;
}

bool opt_to_real(const char *text, double *out)
{
    const char *end;
    double value;
    if (!leading_real(text, &value, &end) || *end != '\0')
        return false;
    *out = value;
    return true;
}

bool opt_to_rows(const char *text, opt_rows *out)
{
    char left[32];
    const char *colon = strchr(text, ':');
    opt_rows rows = {0, -1};
    if (!colon || (size_t)(colon - text) >= sizeof left || (colon == text && colon[1] == '\0'))
        return false;
    memcpy(left, text, (size_t)(colon - text));
    left[colon - text] = '\0';
    if (left[0] != '\0' && !opt_to_count(left, &rows.begin))
        return false;
    if (colon[1] != '\0' && (!opt_to_count(colon + 1, &rows.end) || rows.end <= rows.begin))
        return false;
    *out = rows;
    return true;
}

/* Factor of a size suffix, 0 when it is none. */
static double size_unit(const char *suffix)
{
    static const char letters[] = "KMGT";
    if (suffix[0] == '\0' || !strcmp(suffix, "B"))
        return 1;
    const char *at = strchr(letters, toupper((unsigned char)suffix[0]));
    if (!at)
        return 0;
    int power = (int)(at - letters) + 1;
    if (suffix[1] == '\0' || !strcmp(suffix + 1, "iB"))
        return pow(1024, power);
    return !strcmp(suffix + 1, "B") ? pow(1000, power) : 0;
}

bool opt_to_size(const char *text, int64_t whole, int64_t *out)
{
    const char *end;
    double value;
    if (!leading_real(text, &value, &end) || value < 0)
        return false;
    double unit = size_unit(end);
    if (!strcmp(end, "%")) {
        if (whole <= 0 || value > 100)
            return false;
        unit = (double)whole / 100;
    }
    double bytes = floor(value * unit);
    if (unit == 0 || bytes >= 0x1p63)
        return false;
    *out = (int64_t)bytes;
    return true;
}

static const struct {
    const char *name;
    double seconds;
} time_units[] = {{"d", 86400}, {"h", 3600}, {"m", 60}, {"s", 1}, {"ms", 1e-3}};
#define TIME_UNITS (sizeof time_units / sizeof time_units[0])

bool opt_to_time(const char *text, double *out)
{
    const char *end;
    double value;
    if (!leading_real(text, &value, &end))
        return false;
    for (size_t i = 0; i < TIME_UNITS; i++)
        if (!strcmp(end, time_units[i].name)) {
            value *= time_units[i].seconds;
            if (!(value > 0 && value < 0x1p31))
                return false;
            *out = value;
            return true;
        }
    return false;
}

const char *opt_time_text(char *out, size_t cap, double seconds)
{
    size_t i = 0;
    while (i < TIME_UNITS - 1 &&
           (seconds < time_units[i].seconds || fmod(seconds, time_units[i].seconds) != 0))
        i++;
    snprintf(out, cap, "%.12g%s", seconds / time_units[i].seconds, time_units[i].name);
    return out;
}
