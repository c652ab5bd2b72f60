/* Who sends datagrams, and what may be sent to them: the guard against amplification. A datagram's
 * source address proves nothing, so whoever forges it could have a server send to its victim more
 * than was sent to the server. Each source therefore has a credit: what came from it, times a
 * factor, less what went to it; one that has shown that it hears us is verified and needs none.
 *
 * A table of bounded size, of this process alone: the kernel gives all datagrams of one address and
 * port to one socket, so its worker knows all there is to know. Entries stand in sets of
 * SOURCE_WAYS, found by a keyed hash; the entry that was not heard of for longest goes when a set
 * is full, verified ones last. Whoever loses its entry loses its credit, never more. */
#ifndef HEADRACE_SOURCE_H
#define HEADRACE_SOURCE_H

#include <stdint.h>

#define SOURCE_ENTRIES 65536
#define SOURCE_WAYS 8
/* Credit is not saved up beyond this. */
#define SOURCE_CREDIT_MOST 16777216
/* In place of a credit. */
#define SOURCE_VERIFIED 2147483647
/* Who is verified and silent for so long is so no more: the address may be another's by then. */
#define SOURCE_SILENT_MS 300000
/* In place of an entry: none. */
#define SOURCE_NONE (-1)

/* Of each entry, shared with JavaScript: keep in step with src/engine/layout.ts. JavaScript may
 * send to a source that says nothing any more, so it looks at the clock as source_take does. */
enum {
  SOURCE_CREDIT,
  SOURCE_GENERATION,
  SOURCE_HEARD, /* ms, modulo 2^32: when it last sent, or was verified */
  SOURCE_WORDS
};

/* What a source is known by: address, scope, port, listener. */
#define SOURCE_KEY_BYTES 24

typedef struct {
  int32_t *words; /* SOURCE_WORDS per entry */
  uint64_t *tags; /* the whole hash: two sources are taken for one once in 2^64; 0: free */
  uint64_t hash_key[2];
} source_table;

/* `words` must outlive the table. */
int source_open(source_table *self, int32_t *words);
void source_close(source_table *self);

/* The entry of a source, or SOURCE_NONE. */
int32_t source_find(const source_table *self, const uint8_t key[SOURCE_KEY_BYTES]);

/* The same; a source without one gets one, with no credit. `now`: ms. */
int32_t source_take(source_table *self, const uint8_t key[SOURCE_KEY_BYTES], uint32_t now);

/* So many bytes may go to it, beyond what may already. */
void source_earn(source_table *self, int32_t entry, int64_t bytes);

#endif
