/* How many connections all workers hold together: a table of atomic counters in shared memory, a
 * row per limit, a column per worker. A worker touches only its own column, so a crash leaks
 * nothing: the primary clears it. */
#ifndef HEADRACE_ADMISSION_H
#define HEADRACE_ADMISSION_H

#include <stdbool.h>
#include <stdint.h>

/* Row 0 is the server's total, row 1 + id a listener's. */
#define ADMISSION_ROWS_MAX 65

typedef struct {
  int32_t *table; /* NULL: everything is admitted */
  int32_t columns, column, rows;
  int32_t caps[ADMISSION_ROWS_MAX]; /* 0: none */
} admission;

/* Counts one connection of `listener`, or refuses. The sum of a row is never above its cap: the
 * own column is raised first and withdrawn when the sum is too high, so that two workers that
 * decide at once may both refuse, but never both admit the last one. */
bool admission_enter(admission *self, int listener);

/* Takes back what admission_enter counted. */
void admission_leave(admission *self, int listener);

#endif
