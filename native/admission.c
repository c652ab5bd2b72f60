#include "admission.h"

static int32_t *cell(admission *self, int row) {
  return &self->table[row * self->columns + self->column];
}

static bool raise(admission *self, int row) {
  __atomic_add_fetch(cell(self, row), 1, __ATOMIC_SEQ_CST);
  if (self->caps[row] == 0) return true;
  int64_t sum = 0;
  for (int32_t i = 0; i < self->columns; i++)
    sum += __atomic_load_n(&self->table[row * self->columns + i], __ATOMIC_SEQ_CST);
  if (sum <= self->caps[row]) return true;
  __atomic_sub_fetch(cell(self, row), 1, __ATOMIC_SEQ_CST);
  return false;
}

bool admission_enter(admission *self, int listener) {
  if (!self->table) return true;
  if (!raise(self, 0)) return false;
  if (1 + listener >= self->rows || raise(self, 1 + listener)) return true;
  __atomic_sub_fetch(cell(self, 0), 1, __ATOMIC_SEQ_CST);
  return false;
}

void admission_leave(admission *self, int listener) {
  if (!self->table) return;
  __atomic_sub_fetch(cell(self, 0), 1, __ATOMIC_SEQ_CST);
  if (1 + listener < self->rows) __atomic_sub_fetch(cell(self, 1 + listener), 1, __ATOMIC_SEQ_CST);
}
