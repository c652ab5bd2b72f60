#include "cidr.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool ascends(const uint8_t *starts, size_t count) {
  static const uint8_t zero[CIDR_BYTES];
  if (memcmp(starts, zero, CIDR_BYTES) != 0) return false;
  for (size_t i = 1; i < count; i++)
    if (memcmp(starts + (i - 1) * CIDR_BYTES, starts + i * CIDR_BYTES, CIDR_BYTES) >= 0)
      return false;
  return true;
}

int cidr_set(cidr_list *list, const uint8_t *starts, const uint8_t *denied, size_t count) {
  cidr_list fresh = {.count = count};
  if (count > 0) {
    if (!ascends(starts, count)) return -EINVAL;
    fresh.starts = malloc(count * sizeof *fresh.starts);
    fresh.denied = malloc(count * sizeof *fresh.denied);
    if (!fresh.starts || !fresh.denied) {
      cidr_clear(&fresh);
      return -ENOMEM;
    }
    memcpy(fresh.starts, starts, count * CIDR_BYTES);
    for (size_t i = 0; i < count; i++)
      fresh.denied[i] = denied[i] != 0;
  }
  cidr_clear(list);
  *list = fresh;
  return 0;
}

void cidr_clear(cidr_list *list) {
  free(list->starts);
  free(list->denied);
  *list = (cidr_list){0};
}

bool cidr_denies(const cidr_list *list, const uint8_t address[CIDR_BYTES]) {
  if (list->count == 0) return false;
  /* starts[from] <= address < starts[to] */
  size_t from = 0, to = list->count;
  while (to - from > 1) {
    size_t middle = from + (to - from) / 2;
    if (memcmp(list->starts[middle], address, CIDR_BYTES) <= 0) {
      from = middle;
    } else {
      to = middle;
    }
  }
  return list->denied[from];
}
