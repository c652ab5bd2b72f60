/* How many connections each client address has, in all workers together, and how fast it connects:
 * a table of bounded size in shared memory, after the counters of admission.h.
 *
 * An entry is a key, a clock of its connects, and a counter in each worker's column. A worker
 * raises and lowers only its own column, so a crash leaks nothing: the primary clears the column.
 * Entries stand in sets of ADDRESS_WAYS, found by a keyed hash. One that nobody counts in, and
 * whose clock has run out, is given to a newcomer. When a set has none, the newcomer is counted in
 * the overflow entry, which all such addresses share.
 *
 * No lock: an entry is taken over in two steps, of which the first (its taker's mark in the key) is
 * undone by whoever counts in it meanwhile, and taken over by whoever wants it too. So a process
 * may die at any point without holding anything up.
 *
 *   taker:   mark ──► sum is 0? ──► exchange key, if the mark is still there
 *   counter: raise own counter ──► is the key mine, unmarked? (marked: unmark it; another: lower)
 *
 * Either the counter comes before the mark, and then the taker's sum shows it, or it finds the
 * mark. Two that enter the same address at once may give it two entries of its set: every sum is
 * over all of them, and the superfluous one falls to 0 in time. */
#ifndef HEADRACE_ADDRESS_H
#define HEADRACE_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The layout: keep in step with src/os/admission-table.ts. Keys, clocks, then a column per worker.
 */
#define ADDRESS_OFFSET 1310720
#define ADDRESS_WAYS 16
#define ADDRESS_ENTRIES 262144
#define ADDRESS_COLUMN_BYTES 1048576

/* The shared entry; its set has one way less. */
#define ADDRESS_OVERFLOW 0
/* In place of an entry: none. */
#define ADDRESS_NONE (-1)
#define ADDRESS_BYTES 16

/* How a listener's clients are limited. */
typedef struct {
  int32_t connections; /* of one address; 0: any number */
  int64_t interval_ns; /* a connect is earned this often; 0: any rate */
  int64_t burst_ns;    /* connects that may come at once, as what it takes to earn them */
  uint32_t space;      /* listeners with the same number count together */
  uint8_t prefix;      /* bits of an IPv6 address that make it the same client */
  bool named_later;    /* who connects is a proxy, and says later for whom: see engine_admit */
} address_rule;

typedef enum { ADDRESS_ENTERED, ADDRESS_FULL, ADDRESS_FAST } address_verdict;

typedef struct {
  const int32_t *header; /* that of admission.h; NULL: nothing is counted */
  uint64_t *keys;
  int64_t *clocks; /* CLOCK_MONOTONIC ns until which connects have used up what was earned */
  int32_t *counts; /* column after column */
  int32_t column;
  uint64_t hash_key[2];
} address_table;

/* The size of the whole shared memory, what is before the table included. */
size_t address_memory_size(void);

/* Maps the table out of the shared memory `fd`, whose header is mapped at `header`. */
int address_open(address_table *self, int fd, const int32_t *header, int32_t column);
void address_close(address_table *self);

static inline bool address_is_limited(const address_rule *rule) {
  return rule->connections > 0 || rule->interval_ns > 0;
}

/* Counts a connection of `address`, which is IPv6 or IPv4-mapped. When it is entered, `entry` says
 * where. */
address_verdict address_enter(address_table *self, const address_rule *rule,
                              const uint8_t address[ADDRESS_BYTES], int32_t *entry);

/* Counts one that is there already, whatever the limits. Returns the entry. */
int32_t address_force(address_table *self, const address_rule *rule,
                      const uint8_t address[ADDRESS_BYTES]);

void address_leave(address_table *self, int32_t entry);

/* Whether the rule takes both for the same client. */
bool address_is_same(const address_rule *rule, const uint8_t a[ADDRESS_BYTES],
                     const uint8_t b[ADDRESS_BYTES]);

/* Frees the memory of `columns` columns from `first` on, which then are 0: of dead workers. */
int address_clear(int fd, int32_t first, int32_t columns);

#endif
