/* SipHash-2-4 (Aumasson, Bernstein 2012): a keyed hash whose collisions nobody can choose who does
 * not have the key. */
#ifndef HEADRACE_SIPHASH_H
#define HEADRACE_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t siphash(const uint64_t key[2], const uint8_t *bytes, size_t length);

#endif
