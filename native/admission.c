#include "admission.h"

#include <errno.h>
#include <string.h>

/* A sum that was disturbed by moves this often refuses. */
#define SUM_ATTEMPTS 16

static int32_t load(const int32_t *word) {
  return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static void add(int32_t *word, int32_t count) {
  __atomic_add_fetch(word, count, __ATOMIC_SEQ_CST);
}

static int32_t *row_of(int32_t *table, int row) {
  return table + ADMISSION_HEADER_WORDS + row * ADMISSION_COLUMNS;
}

static int32_t *cell(admission *self, int row) {
  return row_of(self->table, row) + self->column;
}

/* Other processes write the mark: it is not trusted with our memory. */
static int32_t high_water(const int32_t *table, int half) {
  int32_t seats = load(&table[ADMISSION_HIGH_WATER + half]);
  return seats < 0 ? 0 : seats > ADMISSION_SEATS ? ADMISSION_SEATS : seats;
}

int admission_open(admission *self, int32_t *table, int32_t column,
                   const int32_t caps[ADMISSION_ROWS]) {
  if (column < 0 || column >= ADMISSION_COLUMNS) return -EINVAL;
  if (column % ADMISSION_SEATS >= high_water(table, column / ADMISSION_SEATS)) return -EINVAL;
  if (self->table && (self->table != table || self->column != column)) return -EBUSY;
  self->table = table;
  self->column = column;
  memcpy(self->caps, caps, sizeof self->caps);
  return 0;
}

/* A connection that moves is counted by its new column before its old one lets go. Read between the
 * two in the wrong order it would be missed, and one too many admitted; but then ADMISSION_MOVES
 * has changed, and everything is read again. */
static bool is_above(admission *self, int row) {
  const int32_t *cells = row_of(self->table, row);
  for (int attempt = 0; attempt < SUM_ATTEMPTS; attempt++) {
    int32_t moves = load(&self->table[ADMISSION_MOVES]);
    int64_t sum = 0;
    for (int half = 0; half < ADMISSION_HALVES; half++) {
      int32_t seats = high_water(self->table, half);
      for (int32_t seat = 0; seat < seats; seat++)
        sum += load(&cells[half * ADMISSION_SEATS + seat]);
    }
    if (load(&self->table[ADMISSION_MOVES]) == moves) return sum > self->caps[row];
  }
  return true;
}

static bool raise(admission *self, int row) {
  add(cell(self, row), 1);
  if (self->caps[row] == 0 || !is_above(self, row)) return true;
  add(cell(self, row), -1);
  return false;
}

bool admission_enter(admission *self, int listener) {
  if (!self->table) return true;
  if (!raise(self, 0)) return false;
  if (raise(self, 1 + listener)) return true;
  add(cell(self, 0), -1);
  return false;
}

static void add_both(admission *self, int listener, int32_t count) {
  add(cell(self, 0), count);
  add(cell(self, 1 + listener), count);
}

void admission_force(admission *self, int listener) {
  if (self->table) add_both(self, listener, 1);
}

void admission_leave(admission *self, int listener) {
  if (self->table) add_both(self, listener, -1);
}

void admission_hand_over(admission *self, int listener, int32_t count) {
  if (!self->table) return;
  add(&self->table[ADMISSION_MOVES], 1);
  add_both(self, listener, -count);
}
