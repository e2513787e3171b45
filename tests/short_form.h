/* Where a sanitizer or the CUDA-on-CPU layer is in the way, tests take a part of their cases,
 * unless FKM_TEST_FULL is set (scripts/check --full). Plain builds take all of them. */
#ifndef FKM_SHORT_FORM_H
#define FKM_SHORT_FORM_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* With this sanitizer ("asan", "tsan"). */
static inline bool short_form_of(const char *sanitizer)
{
    const char *config = getenv("CONFIG");
    return config && strcmp(config, sanitizer) == 0 && !getenv("FKM_TEST_FULL");
}

static inline bool short_form(void)
{
    const char *config = getenv("CONFIG");
    const bool slow = (config && strcmp(config, "release") != 0) || getenv("EMULATED");
    return slow && !getenv("FKM_TEST_FULL");
}

#endif
