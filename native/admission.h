/* How many connections all workers hold together: a table of atomic counters in shared memory, a
 * row per limit, a column per worker process. A worker touches only its own column, so a crash
 * leaks nothing: the primary clears it.
 *
 * The columns are two halves, because the two generations of an upgrade count in one table, each
 * with seats of its own; only the columns below a half's high-water mark are summed. */
#ifndef HEADRACE_ADMISSION_H
#define HEADRACE_ADMISSION_H

#include <stdbool.h>
#include <stdint.h>

/* The layout: keep in step with src/os/admission-table.ts. A header, then the rows. */
#define ADMISSION_HEADER_WORDS 8
#define ADMISSION_HALVES 2
#define ADMISSION_SEATS 768
#define ADMISSION_COLUMNS 1536
/* Row 0 is the server's total, row 1 + n is listener n's. */
#define ADMISSION_ROWS 65
#define ADMISSION_WORDS (ADMISSION_HEADER_WORDS + ADMISSION_ROWS * ADMISSION_COLUMNS)

enum {
  ADMISSION_VERSION,
  ADMISSION_HIGH_WATER, /* seats in use, of half 0 and of half 1 */
  ADMISSION_HIGH_WATER1,
  ADMISSION_MOVES, /* raised before counts that another column has taken over are given back */
};

typedef struct {
  int32_t *table; /* NULL: everything is admitted */
  int32_t column;
  int32_t caps[ADMISSION_ROWS]; /* 0: none */
} admission;

/* Counts in `column` of `table` from now on. Called again, it may only change the caps: -EBUSY for
 * another place. -EINVAL for a column that the high-water mark of its half does not cover. */
int admission_open(admission *self, int32_t *table, int32_t column,
                   const int32_t caps[ADMISSION_ROWS]);

/* Counts one connection of `listener`, or refuses. The sum of a row is never above its cap: the
 * own column is raised first and withdrawn when the sum is too high, so that two workers that
 * decide at once may both refuse, but never both admit the last one. */
bool admission_enter(admission *self, int listener);

/* Counts one connection of `listener` that is there already, whatever the cap. */
void admission_force(admission *self, int listener);

/* Takes back what admission_enter or admission_force counted. */
void admission_leave(admission *self, int listener);

/* The same for `count` connections that another column may have taken over. */
void admission_hand_over(admission *self, int listener, int32_t count);

#endif
