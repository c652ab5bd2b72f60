#include "siphash.h"

#include <string.h>

static uint64_t rotate(uint64_t word, int bits) {
  return word << bits | word >> (64 - bits);
}

static void mix(uint64_t v[4], int rounds) {
  while (rounds-- > 0) {
    v[0] += v[1];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[0] = rotate(v[0], 32);
    v[2] += v[3];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[2] = rotate(v[2], 32);
  }
}

/* Both machines that Node runs on here are little-endian, as the hash is. */
static void absorb(uint64_t v[4], uint64_t word) {
  v[3] ^= word;
  mix(v, 2);
  v[0] ^= word;
}

uint64_t siphash(const uint64_t key[2], const uint8_t *bytes, size_t length) {
  uint64_t v[4] = {key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d,
                   key[0] ^ 0x6c7967656e657261, key[1] ^ 0x7465646279746573};
  uint64_t word;
  size_t whole = length & ~(size_t)7;
  for (size_t at = 0; at < whole; at += 8) {
    memcpy(&word, bytes + at, 8);
    absorb(v, word);
  }
  word = (uint64_t)length << 56;
  for (size_t at = whole; at < length; at++)
    word |= (uint64_t)bytes[at] << (8 * (at - whole));
  absorb(v, word);
  v[2] ^= 0xff;
  mix(v, 4);
  return v[0] ^ v[1] ^ v[2] ^ v[3];
}
