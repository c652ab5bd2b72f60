#include "admission.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static int32_t load(const int32_t *word) {
  return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static void add(int32_t *word, int32_t count) {
  __atomic_add_fetch(word, count, __ATOMIC_SEQ_CST);
}

static const int32_t *row_of(const int32_t *table, int row) {
  return table + ADMISSION_HEADER_WORDS + row * ADMISSION_COLUMNS;
}

static int32_t *cell(admission *self, int row) {
  return self->table + ADMISSION_HEADER_WORDS + row * ADMISSION_COLUMNS + self->column;
}

int admission_open(admission *self, int32_t *table, int32_t column,
                   const int32_t caps[ADMISSION_ROWS]) {
  if (column < 0 || column >= ADMISSION_COLUMNS) return -EINVAL;
  if (column % ADMISSION_SEATS >= admission_seats(table, column / ADMISSION_SEATS)) return -EINVAL;
  if (self->table && (self->table != table || self->column != column)) return -EBUSY;
  if (!self->table) self->wake_fd = -1;
  self->table = table;
  self->column = column;
  memcpy(self->caps, caps, sizeof self->caps);
  return 0;
}

int admission_share(admission *self, int fd, int wake_fd) {
  if (!self->table) return -EINVAL;
  if (self->addresses.header) return -EBUSY;
  self->wake_fd = wake_fd;
  return address_open(&self->addresses, fd, self->table, self->column);
}

void admission_close(admission *self) {
  for (int listener = 0; listener < ADMISSION_LISTENERS; listener++)
    cidr_clear(&self->lists[listener]);
  address_close(&self->addresses);
  self->table = NULL;
}

/* ---- places ---- */

/* A connection that moves is counted by its new column before its old one lets go. Read between the
 * two in the wrong order it would be missed, and one too many admitted; but then ADMISSION_MOVES
 * has changed, and everything is read again. */
static bool is_above(const admission *self, int row, int64_t most) {
  const int32_t *cells = row_of(self->table, row);
  for (int attempt = 0; attempt < ADMISSION_SUM_ATTEMPTS; attempt++) {
    int32_t moves = load(&self->table[ADMISSION_MOVES]);
    int64_t sum = 0;
    for (int half = 0; half < ADMISSION_HALVES; half++) {
      int32_t seats = admission_seats(self->table, half);
      for (int32_t seat = 0; seat < seats; seat++)
        sum += load(&cells[half * ADMISSION_SEATS + seat]);
    }
    if (load(&self->table[ADMISSION_MOVES]) == moves) return sum > most;
  }
  return true;
}

static bool has_room(const admission *self, int row) {
  return self->caps[row] == 0 || !is_above(self, row, (int64_t)self->caps[row] - 1);
}

static bool raise(admission *self, int row) {
  add(cell(self, row), 1);
  if (self->caps[row] == 0 || !is_above(self, row, self->caps[row])) return true;
  add(cell(self, row), -1);
  return false;
}

static void wake(admission *self);

/* Refused without a write where that can be: a flood at a cap must not disturb the sums of those
 * who take a place that has just become free. What was withdrawn may have looked to somebody like
 * the last place. */
admission_verdict admission_reserve(admission *self, int listener) {
  if (!self->table) return ADMITTED;
  if (!has_room(self, 0)) return REJECT_CONNECTIONS;
  if (!has_room(self, 1 + listener)) return REJECT_LISTENER;
  if (!raise(self, 0)) {
    wake(self);
    return REJECT_CONNECTIONS;
  }
  if (raise(self, 1 + listener)) return ADMITTED;
  add(cell(self, 0), -1);
  wake(self);
  return REJECT_LISTENER;
}

/* ---- those who wait ---- */

_Static_assert(ADMISSION_STAMPS % 2 == 0, "a stamp is read and written as a whole");

/* Since when in the upper half, when that was said last in the lower one. */
static uint64_t *stamp_at(const admission *self, int row, int32_t column) {
  int32_t *words = self->table + ADMISSION_STAMPS;
  return (uint64_t *)(void *)&words[2 * (row * ADMISSION_COLUMNS + column)];
}

void admission_stamp(admission *self, int row, uint32_t since, uint32_t now) {
  if (!self->table) return;
  uint64_t stamp = since ? (uint64_t)since << 32 | now : 0;
  __atomic_store_n(stamp_at(self, row, self->column), stamp, __ATOMIC_SEQ_CST);
}

/* Whether `a` is before `b`, on a clock that begins anew every 50 days. */
static bool is_before(uint32_t a, uint32_t b) {
  return (int32_t)(a - b) < 0;
}

static bool has_elder(const admission *self, int row, uint32_t since, uint32_t now) {
  if (self->caps[row] == 0) return false;
  for (int half = 0; half < ADMISSION_HALVES; half++) {
    const uint64_t *stamps = stamp_at(self, row, half * ADMISSION_SEATS);
    int32_t seats = admission_seats(self->table, half);
    for (int32_t seat = 0; seat < seats; seat++) {
      uint64_t stamp = __atomic_load_n(&stamps[seat], __ATOMIC_SEQ_CST);
      if (stamp == 0 || !is_before((uint32_t)(stamp >> 32), since)) continue;
      /* From both sides: what a dead one left must not become fresh when the clock begins anew. */
      uint32_t renewed = (uint32_t)stamp;
      if (now - renewed <= ADMISSION_STAMP_MS || renewed - now <= ADMISSION_STAMP_MS) return true;
    }
  }
  return false;
}

bool admission_is_turn(const admission *self, int listener, uint32_t since, uint32_t now) {
  return !self->table ||
         !(has_elder(self, 0, since, now) || has_elder(self, 1 + listener, since, now));
}

int admission_row_to_await(const admission *self, int listener, uint32_t since, uint32_t now) {
  const int rows[] = {0, 1 + listener};
  if (!self->table) return ADMISSION_NO_ROW;
  for (int i = 0; i < 2; i++)
    if (!has_room(self, rows[i])) return rows[i];
  for (int i = 0; i < 2; i++)
    if (has_elder(self, rows[i], since, now)) return rows[i];
  return ADMISSION_NO_ROW;
}

void admission_await(admission *self) {
  if (self->table) __atomic_store_n(&self->table[ADMISSION_WAITING], 1, __ATOMIC_SEQ_CST);
}

/* After a place has become free. Should this process die between the two steps, the next tick of
 * those who wait shows them the place. */
static void wake(admission *self) {
  if (load(&self->table[ADMISSION_WAITING]) == 0 || self->wake_fd < 0) return;
  if (__atomic_exchange_n(&self->table[ADMISSION_WAITING], 0, __ATOMIC_SEQ_CST) == 0) return;
  uint64_t one = 1;
  ssize_t written = write(self->wake_fd, &one, sizeof one);
  /* EAGAIN after 2^64 wakes: the descriptor is readable, and that is all that was wanted. */
  (void)written;
}

void admission_pass_on(admission *self, int row) {
  if (self->table && has_room(self, row)) wake(self);
}

/* ---- connections ---- */

admission_verdict admission_name(admission *self, int listener, const uint8_t *address,
                                 int32_t *entry) {
  *entry = ADDRESS_NONE;
  if (!self->table || !address) return ADMITTED;
  if (cidr_denies(&self->lists[listener], address)) return REJECT_DENIED;
  switch (address_enter(&self->addresses, &self->rules[listener], address, entry)) {
  case ADDRESS_FULL:
    return REJECT_ADDRESS;
  case ADDRESS_FAST:
    return REJECT_RATE;
  default:
    return ADMITTED;
  }
}

admission_verdict admission_rename(admission *self, int listener, const uint8_t *before,
                                   const uint8_t *address, int32_t *entry) {
  const address_rule *rule = &self->rules[listener];
  if (*entry != ADDRESS_NONE && before && address_is_same(rule, before, address))
    return cidr_denies(&self->lists[listener], address) ? REJECT_DENIED : ADMITTED;
  int32_t renamed;
  admission_verdict verdict = admission_name(self, listener, address, &renamed);
  if (verdict != ADMITTED) return verdict;
  address_leave(&self->addresses, *entry);
  *entry = renamed;
  return ADMITTED;
}

/* The address first: one that is over its own limit must not disturb the sums of all. */
admission_verdict admission_enter(admission *self, int listener, const uint8_t *address,
                                  int32_t *entry) {
  admission_verdict verdict = admission_name(self, listener, address, entry);
  if (verdict != ADMITTED) return verdict;
  verdict = admission_reserve(self, listener);
  if (verdict == ADMITTED) return ADMITTED;
  address_leave(&self->addresses, *entry);
  *entry = ADDRESS_NONE;
  return verdict;
}

int32_t admission_force(admission *self, int listener, const uint8_t *address) {
  if (!self->table) return ADDRESS_NONE;
  add(cell(self, 0), 1);
  add(cell(self, 1 + listener), 1);
  return address ? address_force(&self->addresses, &self->rules[listener], address) : ADDRESS_NONE;
}

int32_t admission_recount(admission *self, int listener, const uint8_t *address, int32_t entry) {
  if (!self->table) return ADDRESS_NONE;
  int32_t counted = address_force(&self->addresses, &self->rules[listener], address);
  add(&self->table[ADMISSION_MOVES], 1);
  address_leave(&self->addresses, entry);
  return counted;
}

void admission_leave(admission *self, int listener, int32_t entry) {
  if (!self->table) return;
  address_leave(&self->addresses, entry);
  add(cell(self, 1 + listener), -1);
  add(cell(self, 0), -1);
  wake(self);
}

void admission_hand_over(admission *self, int listener, int32_t entry) {
  if (!self->table) return;
  add(&self->table[ADMISSION_MOVES], 1);
  admission_leave(self, listener, entry);
}
