/* The only way to standard output and standard error (scripts/check-layers sees to it): whatever
 * the text holds, a terminal gets no control character of it. What must not be shown is written as
 * \xNN (src/base/text.h). */
#ifndef FKM_CMD_PRINT_H
#define FKM_CMD_PRINT_H

#include "../src/base/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* A piece of a line, or a line. Newlines at the two ends of `fmt` are newlines, all others are text
 * to be escaped: a name never ends a line. What is longer than 5000 bytes is cut, and ends in
 * "...". */
void print_out(const char *fmt, ...) FKM_PRINTF(1, 2);
void print_err(const char *fmt, ...) FKM_PRINTF(1, 2);
void print_to(FILE *to, const char *fmt, ...) FKM_PRINTF(2, 3);

/* text and a newline, broken at spaces within 80 columns, each line from column `indent` on. The
 * cursor is at `column`. */
void print_wrapped(FILE *to, const char *text, int column, int indent);

/* Lines that we wrote ourselves, to stdout: help. */
void print_lines(const char *text);

/* What was written to stdout so far shows now. */
void print_flush(void);

/* One live line on a terminal, on stderr: put in the place of the one before. */
void print_live(const char *line);
void print_live_clear(void); /* any thread; a no-op when there is none */

/* "fkm: fact" and "hint: help", in colour on a terminal. */
void print_failure(const fkm_err *e);

/* An fkm_text_sink for stdout; arg is not used. Takes whole lines, or JSON. Errors show when main
 * closes stdout. */
fkm_status cmd_stdout_sink(void *arg, const char *text, size_t len, fkm_err *e);

/* Whoever read stdout has gone away (fkm help | head -1): nothing more will be seen. */
bool print_is_unread(void);

/* FKM_EFILE when stdout did not arrive: a full disk must not look like success. A reader that went
 * away has seen all that it wanted: FKM_OK. */
fkm_status print_close(fkm_err *e) FKM_MUST_USE;

#endif
