/* Which addresses may come: a list of ranges, made from the configured CIDRs by JavaScript
 * (src/config/cidr.ts), searched by halves. IPv4 addresses are in their IPv4-mapped form. */
#ifndef HEADRACE_CIDR_H
#define HEADRACE_CIDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CIDR_BYTES 16

typedef struct {
  uint8_t (*starts)[CIDR_BYTES]; /* ascending; a range ends where the next one begins */
  bool *denied;
  size_t count; /* 0: everybody may come */
} cidr_list;

/* Replaces the list by copies. -EINVAL when it does not ascend from 0; then nothing has changed. */
int cidr_set(cidr_list *list, const uint8_t *starts, const uint8_t *denied, size_t count);

void cidr_clear(cidr_list *list);

bool cidr_denies(const cidr_list *list, const uint8_t address[CIDR_BYTES]);

#endif
