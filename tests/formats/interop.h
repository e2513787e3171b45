/* The C side of interop.py: runs it, and reads its tables. For the tests in this folder. */
#ifndef INTEROP_H
#define INTEROP_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../src/base/status.h"
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define INTEROP_SKIP 77
#define INTEROP_COLUMNS 12

/* Runs interop.py COMMAND in the working directory; false when it fails. */
static inline bool interop_run(const char *command)
{
    const char *src = getenv("SRC"), *python = getenv("PYTHON");
    char line[2000];
    snprintf(line, sizeof line, "'%s' '%s/tests/formats/interop.py' %s .",
        python ? python : "/usr/bin/python3", src ? src : ".", command);
    return system(line) == 0;
}

static bool interop_h5py; /* set by interop_available */

/* Whether interop.py can run; says why not. */
static inline bool interop_available(void)
{
    const char *python = getenv("PYTHON");
    char line[1000];
    python = python ? python : "/usr/bin/python3";
    snprintf(line, sizeof line, "'%s' -c 'import numpy' > /dev/null 2>&1", python);
    if (system(line) != 0) {
        printf("skipped: %s has no NumPy (package python3-numpy)\n", python);
        return false;
    }
    snprintf(line, sizeof line, "'%s' -c 'import h5py' > /dev/null 2>&1", python);
    interop_h5py = system(line) == 0;
    if (!interop_h5py)
        printf("without HDF5: %s has no h5py (package python3-h5py)\n", python);
    return true;
}

/* Whether the build can read the file of a table's row. */
static inline bool interop_readable(const char *name)
{
    return FKM_HAVE_HDF5 || (!strstr(name, ".h5") && !strstr(name, ".hdf5"));
}

/* One tab-separated row, split in place; absent columns are "". False at the end. */
static inline bool interop_row(FILE *table, char *line, int cap, char *column[INTEROP_COLUMNS])
{
    if (!fgets(line, cap, table))
        return false;
    line[strcspn(line, "\n")] = '\0';
    for (int i = 0; i < INTEROP_COLUMNS; i++) {
        column[i] = line;
        line += strcspn(line, "\t");
        if (*line)
            *line++ = '\0';
    }
    return true;
}

static inline void assert_ok(fkm_status st, const fkm_err *e)
{
    if (st != FKM_OK)
        fail_msg("status %d: %s (%s)", st, e->msg, e->hint);
}

#endif
