/* Datagrams in the engine: what waits in a UDP socket is received in batches into the input arena,
 * each with its other end in front of it (datagram_end) and a record; what goes out stands in the
 * output arena in the same way, and leaves in batches when the round's records are carried out.
 *
 * Two things belong to a listener here: the sockets it receives from (one in each slot of the
 * server that this process serves, by the number of their watch), and one that it sends by, a
 * duplicate of ours, so that a late reply can still leave when another process has taken the slot
 * over. Nothing that waits in a socket is lost by watching it, or ceasing to, any number of times.
 *
 * Sockets are watched level-triggered: what a round leaves behind announces itself again.
 *
 * What the kernel does not take for want of room (EAGAIN, ENOBUFS) is kept, tried once more a
 * moment later, and then dropped: a datagram that waits for longer is worth little, and UDP's
 * protocols repeat what matters. */
#ifndef HEADRACE_DATAGRAM_H
#define HEADRACE_DATAGRAM_H

#include <stdint.h>

#include "engine.h"
#include "source.h"

/* ---- what is shared with JavaScript: keep in step with src/engine/layout.ts ---- */

/* In front of each datagram in both arenas. */
typedef struct {
  uint8_t address[16]; /* IPv4 in its IPv4-mapped form */
  uint32_t scope;      /* of a link-local address: the interface */
  uint16_t port;
  uint16_t listener;
  int32_t source, generation; /* its entry of the sources, if the listener has a guard */
  uint8_t local[16]; /* where an answer comes from: where it came to, as a rule; zeros: the socket
                        knows */
  uint8_t unused[16];
} datagram_end;

_Static_assert(sizeof(datagram_end) == 64, "a cache line");
_Static_assert(offsetof(datagram_end, source) == SOURCE_KEY_BYTES, "the key is what is in front");

/* Counters of a listener, in the order of DATAGRAM_FIELDS in src/os/scoreboard.ts; the rest of
 * those are JavaScript's. */
enum {
  DATAGRAM_RECEIVED,  /* handed to JavaScript */
  DATAGRAM_SENT,      /* taken by the kernel */
  DATAGRAM_TRUNCATED, /* arrived, longer than allowed: dropped */
  DATAGRAM_DENIED,    /* from an address that may not come: dropped */
  DATAGRAM_LIMITED,   /* from an address that sends too fast: dropped */
  DATAGRAM_RETRIED,   /* not taken at first for want of room */
  DATAGRAM_DROPPED,   /* nor at the second attempt, or too many waited for theirs */
  DATAGRAM_FAILED,    /* refused by the kernel for another reason: dropped */
  DATAGRAM_COUNTERS
};

/* ---- bounds ---- */

/* Datagrams of one system call. */
#define DATAGRAM_BATCH 64
/* Of one round, shared by all sockets that are ready; each gets at least one. Answers leave at the
 * end of a round: with more, the first of them would wait for too many handlers. */
#define DATAGRAMS_PER_ROUND 64
/* Of the input arena, for datagrams of one round: the rest is for connections. */
#define DATAGRAM_SHARE (512 * 1024)
/* Of UDP over IPv4 (65,535 less two headers). */
#define DATAGRAM_MOST 65507
/* Datagrams that wait for their second attempt, and when that is. */
#define DATAGRAMS_WAITING 1024
#define DATAGRAM_RETRY_MS 2

/* Epoll data of a watched UDP socket, with the number of its watch; of the timer for second
 * attempts. LISTENER_BIT is set too. */
#define DATAGRAM_BIT (1ull << 61)
#define DATAGRAM_TIMER (1 << 30)

typedef struct {
  uint32_t most; /* bytes of one datagram that may arrive */
  int32_t
      factor; /* bytes that may go to a source that is not verified, for each that came; 0: any */
  double *counters; /* DATAGRAM_COUNTERS */
} datagram_rule;

/* How `listener` takes datagrams from now on. `sources`: SOURCE_ENTRIES * SOURCE_WORDS; used from
 * the first call to the end of the engine. What the rule points to must outlive the engine. */
int datagram_rule_set(engine *self, int listener, const datagram_rule *rule, int32_t *sources);

/* Receives from `fd`, as watch `number`, datagrams of `listener`, which has a rule. The descriptor
 * stays the caller's, who closes it after datagram_stop. */
int datagram_receive(engine *self, int number, int listener, int fd);
int datagram_stop(engine *self, int number);

/* Between rounds: takes what waits in the socket of a watch, up to the bounds of a round. Returns
 * the number of input records; 0 when nothing is left. */
int datagram_receive_queued(engine *self, int number);

/* Sends what `listener` sends by a duplicate of `fd`; -1: what it sends fails. */
int datagram_sender(engine *self, int listener, int fd);

/* What epoll announced: watches that are ready, the timer among them. */
void datagram_receive_ready(engine *self, const int32_t *ready, int count);

/* An output record: `a` is where the other end stands, `b` the length of the datagram behind it.
 * Nothing leaves before the batch is full or datagram_flush. */
void datagram_collect(engine *self, int listener, int32_t a, int32_t b);
void datagram_flush(engine *self);

/* The entry of the source in `end`, also for one that has none yet if `take`; or SOURCE_NONE. */
int32_t datagram_source(engine *self, const datagram_end *end, bool take);

void datagram_close_all(engine *self);

#endif
