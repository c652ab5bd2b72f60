#include "address.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "admission.h"
#include "siphash.h"

/* The lower bits of a key: who is about to take the entry (column + 1), or 0. */
#define MARK_BITS 11
#define MARKS ((UINT64_C(1) << MARK_BITS) - 1)
/* Who finds the table changing under its hands more often than this uses the overflow entry. */
#define ATTEMPTS 64

_Static_assert(ADMISSION_COLUMNS < (1 << MARK_BITS) - 1, "a mark names a column");
_Static_assert(ADDRESS_COLUMN_BYTES == ADDRESS_ENTRIES * sizeof(int32_t), "a column is its counts");
_Static_assert(ADMISSION_WORDS * sizeof(int32_t) <= ADDRESS_OFFSET,
               "the table comes after the rows");

static size_t table_size(void) {
  return ADDRESS_ENTRIES * (sizeof(uint64_t) + sizeof(int64_t)) +
         (size_t)ADMISSION_COLUMNS * ADDRESS_COLUMN_BYTES;
}

size_t address_memory_size(void) {
  return ADDRESS_OFFSET + table_size();
}

int address_open(address_table *self, int fd, const int32_t *header, int32_t column) {
  struct stat facts;
  if (fstat(fd, &facts) != 0) return -errno;
  if ((size_t)facts.st_size != address_memory_size()) return -EINVAL;
  void *memory = mmap(NULL, table_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, ADDRESS_OFFSET);
  if (memory == MAP_FAILED) return -errno;
  self->keys = memory;
  self->clocks = (int64_t *)(self->keys + ADDRESS_ENTRIES);
  self->counts = (int32_t *)(self->clocks + ADDRESS_ENTRIES);
  self->header = header;
  self->column = column;
  memcpy(self->hash_key, &header[ADMISSION_HASH_KEY], sizeof self->hash_key);
  return 0;
}

void address_close(address_table *self) {
  if (self->header) munmap(self->keys, table_size());
  self->header = NULL;
}

int address_clear(int fd, int32_t first, int32_t columns) {
  off_t start = ADDRESS_OFFSET + (off_t)ADDRESS_ENTRIES * (sizeof(uint64_t) + sizeof(int64_t));
  int result =
      fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                start + (off_t)first * ADDRESS_COLUMN_BYTES, (off_t)columns * ADDRESS_COLUMN_BYTES);
  return result == 0 ? 0 : -errno;
}

/* ---- keys ---- */

typedef struct {
  int32_t first, end; /* entries */
  uint64_t tag;       /* the key, unmarked */
} address_set;

/* An address as far as it tells clients apart. */
static void copy_client(uint8_t bytes[ADDRESS_BYTES], const address_rule *rule,
                        const uint8_t address[ADDRESS_BYTES]) {
  static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
  memcpy(bytes, address, ADDRESS_BYTES);
  if (memcmp(address, mapped, sizeof mapped) == 0) return;
  for (int i = 0; i < ADDRESS_BYTES; i++) {
    int bits = rule->prefix - i * 8;
    if (bits < 8) bytes[i] &= bits <= 0 ? 0 : (uint8_t)(0xff00 >> bits);
  }
}

bool address_is_same(const address_rule *rule, const uint8_t a[ADDRESS_BYTES],
                     const uint8_t b[ADDRESS_BYTES]) {
  uint8_t clients[2][ADDRESS_BYTES];
  copy_client(clients[0], rule, a);
  copy_client(clients[1], rule, b);
  return memcmp(clients[0], clients[1], ADDRESS_BYTES) == 0;
}

/* Key and set together hold all bits of the hash: two addresses are taken for one once in 2^64. */
static address_set set_of(const address_table *self, const address_rule *rule,
                          const uint8_t address[ADDRESS_BYTES]) {
  uint8_t named[sizeof rule->space + ADDRESS_BYTES];
  memcpy(named, &rule->space, sizeof rule->space);
  copy_client(named + sizeof rule->space, rule, address);
  uint64_t hash = siphash(self->hash_key, named, sizeof named);
  int32_t first = (int32_t)(hash % (ADDRESS_ENTRIES / ADDRESS_WAYS)) * ADDRESS_WAYS;
  uint64_t tag = hash & ~MARKS;
  return (address_set){.first = first + (first == ADDRESS_OVERFLOW),
                       .end = first + ADDRESS_WAYS,
                       .tag = tag ? tag : MARKS + 1};
}

static uint64_t key_of(const address_table *self, int32_t entry) {
  return __atomic_load_n(&self->keys[entry], __ATOMIC_SEQ_CST);
}

static bool exchange_key(address_table *self, int32_t entry, uint64_t before, uint64_t after) {
  return __atomic_compare_exchange_n(&self->keys[entry], &before, after, false, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST);
}

/* The first entry of the set that has its tag. */
static int32_t find(const address_table *self, const address_set *set) {
  for (int32_t entry = set->first; entry < set->end; entry++)
    if ((key_of(self, entry) & ~MARKS) == set->tag) return entry;
  return ADDRESS_NONE;
}

/* ---- counts ---- */

static void add(address_table *self, int32_t entry, int32_t count) {
  int32_t *cell = &self->counts[(size_t)self->column * ADDRESS_ENTRIES + (size_t)entry];
  __atomic_add_fetch(cell, count, __ATOMIC_SEQ_CST);
}

static int64_t sum_of(const address_table *self, int32_t entry) {
  int64_t sum = 0;
  for (int half = 0; half < ADMISSION_HALVES; half++) {
    int32_t seats = admission_seats(self->header, half);
    const int32_t *cell =
        &self->counts[(size_t)half * ADMISSION_SEATS * ADDRESS_ENTRIES + (size_t)entry];
    for (int32_t seat = 0; seat < seats; seat++, cell += ADDRESS_ENTRIES)
      sum += __atomic_load_n(cell, __ATOMIC_SEQ_CST);
  }
  return sum;
}

/* Of all entries of the address that `entry` was found for. */
static int64_t sum_of_all(const address_table *self, const address_set *set, int32_t entry) {
  if (entry == ADDRESS_OVERFLOW) return sum_of(self, entry);
  int64_t sum = 0;
  for (int32_t each = set->first; each < set->end; each++)
    if ((key_of(self, each) & ~MARKS) == set->tag) sum += sum_of(self, each);
  return sum;
}

/* Whether the address has `count` connections or more. A sum that moves disturb is taken again, as
 * in admission.c. */
static bool reaches(const address_table *self, const address_set *set, int32_t entry,
                    int64_t count) {
  for (int attempt = 0; attempt < ADMISSION_SUM_ATTEMPTS; attempt++) {
    int32_t moves = __atomic_load_n(&self->header[ADMISSION_MOVES], __ATOMIC_SEQ_CST);
    int64_t sum = sum_of_all(self, set, entry);
    if (__atomic_load_n(&self->header[ADMISSION_MOVES], __ATOMIC_SEQ_CST) == moves)
      return sum >= count;
  }
  return true;
}

/* ---- the clock: of an address that earns a connect every interval, and saves up a burst ---- */

static int64_t clock_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int64_t read_clock(const address_table *self, int32_t entry) {
  return __atomic_load_n(&self->clocks[entry], __ATOMIC_SEQ_CST);
}

/* The clock of an entry, brought back to what a burst may use up, should it be beyond: the limits
 * were others when it got there. */
static int64_t bounded_clock(address_table *self, const address_rule *rule, int32_t entry,
                             int64_t now) {
  int64_t clock = read_clock(self, entry), most = now + rule->burst_ns;
  while (clock > most && !__atomic_compare_exchange_n(&self->clocks[entry], &clock, most, false,
                                                      __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
  }
  return clock > most ? most : clock;
}

static int64_t after_one_more(const address_rule *rule, int64_t clock, int64_t now) {
  return (clock < now ? now : clock) + rule->interval_ns;
}

static bool is_too_fast(address_table *self, const address_rule *rule, int32_t entry) {
  int64_t now = clock_ns(), clock = bounded_clock(self, rule, entry, now);
  return after_one_more(rule, clock, now) > now + rule->burst_ns;
}

/* Uses up one connect. The entry is counted in, so nobody takes it. */
static bool charge(address_table *self, const address_rule *rule, int32_t entry) {
  int64_t now = clock_ns(), clock = bounded_clock(self, rule, entry, now);
  do {
    if (after_one_more(rule, clock, now) > now + rule->burst_ns) return false;
  } while (!__atomic_compare_exchange_n(&self->clocks[entry], &clock,
                                        after_one_more(rule, clock, now), false, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST));
  return true;
}

/* ---- entries ---- */

static bool is_idle(const address_table *self, int32_t entry, int64_t now) {
  return sum_of(self, entry) == 0 && read_clock(self, entry) <= now;
}

/* Gives the set's address an entry: a fresh one, else one that nobody needs. A clock that has run
 * out is as good as none, so it stays. */
static int32_t claim(address_table *self, const address_set *set) {
  for (int32_t entry = set->first; entry < set->end; entry++)
    if (key_of(self, entry) == 0 && exchange_key(self, entry, 0, set->tag)) return entry;
  int64_t now = clock_ns();
  uint64_t mark = (uint64_t)self->column + 1;
  for (int32_t entry = set->first; entry < set->end; entry++) {
    if (!is_idle(self, entry, now)) continue;
    uint64_t key = key_of(self, entry), marked = (key & ~MARKS) | mark;
    if (!exchange_key(self, entry, key, marked)) continue;
    if (!is_idle(self, entry, now)) {
      exchange_key(self, entry, marked, key & ~MARKS);
    } else if (exchange_key(self, entry, marked, set->tag)) {
      return entry;
    }
  }
  return ADDRESS_NONE;
}

/* After the own count was raised: the entry is the address's, and stays so while it is counted in.
 */
static bool settle(address_table *self, const address_set *set, int32_t entry) {
  for (;;) {
    uint64_t key = key_of(self, entry);
    if (key == set->tag) return true;
    if ((key & ~MARKS) != set->tag) return false;
    if (exchange_key(self, entry, key, set->tag)) return true;
  }
}

static int32_t count_in(address_table *self, const address_set *set) {
  for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
    int32_t entry = find(self, set);
    if (entry == ADDRESS_NONE) entry = claim(self, set);
    if (entry == ADDRESS_NONE) break;
    add(self, entry, 1);
    if (settle(self, set, entry)) return entry;
    add(self, entry, -1);
  }
  add(self, ADDRESS_OVERFLOW, 1);
  return ADDRESS_OVERFLOW;
}

/* What can be refused without a write is: whoever floods must not disturb the counts of others. */
static address_verdict judge_known(address_table *self, const address_rule *rule,
                                   const address_set *set) {
  int32_t entry = find(self, set);
  if (entry == ADDRESS_NONE) return ADDRESS_ENTERED;
  if (rule->connections > 0 && reaches(self, set, entry, rule->connections)) return ADDRESS_FULL;
  if (rule->interval_ns > 0 && is_too_fast(self, rule, entry)) return ADDRESS_FAST;
  return ADDRESS_ENTERED;
}

address_verdict address_enter(address_table *self, const address_rule *rule,
                              const uint8_t address[ADDRESS_BYTES], int32_t *entry) {
  *entry = ADDRESS_NONE;
  if (!self->header || !address_is_limited(rule)) return ADDRESS_ENTERED;
  address_set set = set_of(self, rule, address);
  address_verdict verdict = judge_known(self, rule, &set);
  if (verdict != ADDRESS_ENTERED) return verdict;
  int32_t counted = count_in(self, &set);
  if (rule->connections > 0 && reaches(self, &set, counted, (int64_t)rule->connections + 1)) {
    verdict = ADDRESS_FULL;
  } else if (rule->interval_ns > 0 && !charge(self, rule, counted)) {
    verdict = ADDRESS_FAST;
  }
  if (verdict == ADDRESS_ENTERED) {
    *entry = counted;
  } else {
    add(self, counted, -1);
  }
  return verdict;
}

int32_t address_force(address_table *self, const address_rule *rule,
                      const uint8_t address[ADDRESS_BYTES]) {
  if (!self->header || !address_is_limited(rule)) return ADDRESS_NONE;
  address_set set = set_of(self, rule, address);
  return count_in(self, &set);
}

void address_leave(address_table *self, int32_t entry) {
  if (self->header && entry != ADDRESS_NONE) add(self, entry, -1);
}
