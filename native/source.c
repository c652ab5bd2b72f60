#include "source.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/random.h>

#include "siphash.h"

int source_open(source_table *self, int32_t *words) {
  self->words = words;
  /* Pages that no source was ever in cost nothing. */
  self->tags = calloc(SOURCE_ENTRIES, sizeof *self->tags);
  int error = self->tags ? 0 : -ENOMEM;
  if (!error && getrandom(self->hash_key, sizeof self->hash_key, 0) != sizeof self->hash_key)
    error = -errno;
  if (error) source_close(self);
  return error;
}

void source_close(source_table *self) {
  free(self->tags);
  *self = (source_table){0};
}

typedef struct {
  int32_t first;
  uint64_t tag;
} source_set;

static source_set set_of(const source_table *self, const uint8_t key[SOURCE_KEY_BYTES]) {
  uint64_t tag = siphash(self->hash_key, key, SOURCE_KEY_BYTES);
  int32_t first = (int32_t)(tag % (SOURCE_ENTRIES / SOURCE_WAYS)) * SOURCE_WAYS;
  return (source_set){.first = first, .tag = tag ? tag : 1};
}

static int32_t find(const source_table *self, source_set set) {
  for (int32_t entry = set.first; entry < set.first + SOURCE_WAYS; entry++)
    if (self->tags[entry] == set.tag) return entry;
  return SOURCE_NONE;
}

int32_t source_find(const source_table *self, const uint8_t key[SOURCE_KEY_BYTES]) {
  return find(self, set_of(self, key));
}

static int32_t *words_of(const source_table *self, int32_t entry) {
  return &self->words[entry * SOURCE_WORDS];
}

static uint32_t silence(const source_table *self, int32_t entry, uint32_t now) {
  return now - (uint32_t)words_of(self, entry)[SOURCE_HEARD];
}

/* A free entry; else, of those that are not verified, the one that was silent for longest; else the
 * same of all. */
static int32_t choose(const source_table *self, int32_t first, uint32_t now) {
  int32_t chosen = first;
  uint64_t most = 0;
  for (int32_t entry = first; entry < first + SOURCE_WAYS; entry++) {
    if (self->tags[entry] == 0) return entry;
    bool verified = words_of(self, entry)[SOURCE_CREDIT] == SOURCE_VERIFIED;
    uint64_t silent = (uint64_t)silence(self, entry, now) + 1;
    uint64_t weight = verified ? silent : silent + ((uint64_t)1 << 33);
    if (weight <= most) continue;
    most = weight;
    chosen = entry;
  }
  return chosen;
}

int32_t source_take(source_table *self, const uint8_t key[SOURCE_KEY_BYTES], uint32_t now) {
  source_set set = set_of(self, key);
  int32_t entry = find(self, set);
  if (entry == SOURCE_NONE) {
    entry = choose(self, set.first, now);
    self->tags[entry] = set.tag;
    int32_t *words = words_of(self, entry);
    words[SOURCE_CREDIT] = 0;
    words[SOURCE_GENERATION] = (words[SOURCE_GENERATION] + 1) & 0x7fffffff;
  } else if (silence(self, entry, now) > SOURCE_SILENT_MS) {
    words_of(self, entry)[SOURCE_CREDIT] = 0;
  }
  words_of(self, entry)[SOURCE_HEARD] = (int32_t)now;
  return entry;
}

void source_earn(source_table *self, int32_t entry, int64_t bytes) {
  int32_t *credit = &words_of(self, entry)[SOURCE_CREDIT];
  if (*credit == SOURCE_VERIFIED) return;
  int64_t sum = *credit + bytes;
  *credit = sum > SOURCE_CREDIT_MOST ? SOURCE_CREDIT_MOST : (int32_t)sum;
}
