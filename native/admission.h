/* Who may come in: how many connections all workers hold together, a table of atomic counters in
 * shared memory with a row per limit and a column per worker process; how many each client address
 * has (address.h); and which addresses are not wanted at all (cidr.h). A worker touches only its
 * own column, so a crash leaks nothing: the primary clears it.
 *
 * The columns are two halves, because the two generations of an upgrade count in one table, each
 * with seats of its own; only the columns below a half's high-water mark are summed. */
#ifndef HEADRACE_ADMISSION_H
#define HEADRACE_ADMISSION_H

#include <stdbool.h>
#include <stdint.h>

#include "address.h"
#include "cidr.h"

/* The layout: keep in step with src/os/admission-table.ts. A header, then the rows. */
#define ADMISSION_HEADER_WORDS 16
#define ADMISSION_HALVES 2
#define ADMISSION_SEATS 768
#define ADMISSION_COLUMNS 1536
/* Row 0 is the server's total, row 1 + n is listener n's. */
#define ADMISSION_ROWS 65
#define ADMISSION_LISTENERS (ADMISSION_ROWS - 1)
/* Behind the rows, as many stamps of two words: who waits for a place of the row, since when. */
#define ADMISSION_STAMPS (ADMISSION_HEADER_WORDS + ADMISSION_ROWS * ADMISSION_COLUMNS)
#define ADMISSION_WORDS (ADMISSION_STAMPS + 2 * ADMISSION_ROWS * ADMISSION_COLUMNS)

/* A sum that was disturbed by moves this often refuses. */
#define ADMISSION_SUM_ATTEMPTS 16
/* A stamp that was not renewed for so long is nobody's: its worker has died, or stands still. */
#define ADMISSION_STAMP_MS 150

enum {
  ADMISSION_VERSION,
  ADMISSION_HIGH_WATER, /* seats in use, of half 0 and of half 1 */
  ADMISSION_HIGH_WATER1,
  ADMISSION_MOVES,    /* raised before counts that another column has taken over are given back */
  ADMISSION_WAITING,  /* not 0: somebody waits for a place; whoever frees one writes to the eventfd
                       */
  ADMISSION_HASH_KEY, /* four words, random */
};

/* What becomes of a newcomer; the order of REJECT_REASONS in src/base/reasons.ts. */
typedef enum {
  ADMITTED,
  REJECT_CONNECTIONS, /* the server's total is reached */
  REJECT_LISTENER,    /* the listener's own cap is */
  REJECT_ADDRESS,     /* its address has as many as it may */
  REJECT_RATE,        /* its address connects too fast */
  REJECT_DENIED,      /* its address is not wanted */
  REJECT_DESCRIPTORS, /* this process has none left */
} admission_verdict;

#define ADMISSION_VERDICTS 7

/* What a listener does with those that it has no place for. */
enum { ON_LIMIT_RESET, ON_LIMIT_CLOSE, ON_LIMIT_WAIT };

typedef struct {
  int32_t *table; /* NULL: everything is admitted */
  int32_t column;
  int wake_fd;                  /* eventfd by which waiting workers hear of free places; -1: none */
  int32_t caps[ADMISSION_ROWS]; /* 0: none */
  uint8_t on_limit[ADMISSION_LISTENERS];
  address_rule rules[ADMISSION_LISTENERS];
  cidr_list lists[ADMISSION_LISTENERS];
  address_table addresses;
} admission;

/* The high-water mark of a half. Other processes write it: it is not trusted with our memory. */
static inline int32_t admission_seats(const int32_t *table, int half) {
  int32_t seats = __atomic_load_n(&table[ADMISSION_HIGH_WATER + half], __ATOMIC_SEQ_CST);
  return seats < 0 ? 0 : seats > ADMISSION_SEATS ? ADMISSION_SEATS : seats;
}

/* Counts in `column` of `table` from now on. Called again, it may only change the caps: -EBUSY for
 * another place. -EINVAL for a column that the high-water mark of its half does not cover. */
int admission_open(admission *self, int32_t *table, int32_t column,
                   const int32_t caps[ADMISSION_ROWS]);

/* Counts addresses too, in the shared memory `fd` that the table is part of, and wakes those that
 * wait through `wake_fd`, which must stay open. After admission_open. */
int admission_share(admission *self, int fd, int wake_fd);

void admission_close(admission *self);

/* Counts one connection of `listener`, or refuses. The sum of a row is never above its cap: the
 * own column is raised first and withdrawn when the sum is too high, so that two workers that
 * decide at once may both refuse, but never both admit the last one. `entry` is where its address
 * is counted, for admission_leave. */
admission_verdict admission_enter(admission *self, int listener, const uint8_t *address,
                                  int32_t *entry);

/* The two halves of admission_enter, for who has to know that there is a place before it accepts:
 * the place alone, and then the address alone. */
admission_verdict admission_reserve(admission *self, int listener);
admission_verdict admission_name(admission *self, int listener, const uint8_t *address,
                                 int32_t *entry);

/* Counts one connection of `listener` that is there already, whatever the limits. */
int32_t admission_force(admission *self, int listener, const uint8_t *address);

/* The client of a connection that is counted at `entry`, which was `before`, is `address` from now
 * on. One that counts as the same client stays where it is. */
admission_verdict admission_rename(admission *self, int listener, const uint8_t *before,
                                   const uint8_t *address, int32_t *entry);

/* Counts one that is there already by the rule of now, and no longer at `entry`. Returns the new
 * one. */
int32_t admission_recount(admission *self, int listener, const uint8_t *address, int32_t entry);

/* Takes back what was counted. */
void admission_leave(admission *self, int listener, int32_t entry);

/* The same for a connection that another column may have taken over. */
void admission_hand_over(admission *self, int listener, int32_t entry);

/* ---- who waits for a place ----
 *
 * Workers that wait take turns: a place is for who has waited longest. Each says in its own column
 * since when it waits, and says it again all the time; whoever finds an older stamp that is fresh
 * leaves the place to it. So a stamp is no lock: that of a worker which has died, or stands still,
 * is out of date after ADMISSION_STAMP_MS, and nobody has to clear it. Times are ms of
 * CLOCK_MONOTONIC, cut to 32 bits; 0 is none. */

/* Announces that this worker waits for a place; whether there is one is to be asked afterwards, or
 * it could be missed. */
void admission_await(admission *self);

/* The row in which a newcomer of `listener` that waits since `since` has to wait on: one that is
 * full, or in which somebody has waited for longer. ADMISSION_NO_ROW: it may come in. */
int admission_row_to_await(const admission *self, int listener, uint32_t since, uint32_t now);
#define ADMISSION_NO_ROW (-1)

/* Whether nobody has waited longer for a place that `listener` needs. */
bool admission_is_turn(const admission *self, int listener, uint32_t since, uint32_t now);

/* Waits since `since` for a place of `row`; 0: no longer. */
void admission_stamp(admission *self, int row, uint32_t since, uint32_t now);

/* The own stamp in `row` is gone: if there is a place, the next one is to look for it. */
void admission_pass_on(admission *self, int row);

#endif
