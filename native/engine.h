/* The engine: one epoll instance, a table of connection slots, and memory shared with JavaScript.
 *
 * engine_round() takes what is ready, moves bytes into the input arena and writes input records;
 * the caller hands them to JavaScript, which answers with output records; engine_flush() carries
 * those out, one send per connection. Nothing here looks at what the bytes mean.
 *
 * Ownership: a slot belongs to JavaScript from the record that announced it (ACCEPT) or the call
 * that returned it (connect, adopt) until JavaScript orders CLOSE or RESET, whatever happens to
 * the socket in between: when the socket fails the engine closes the descriptor, reports ERROR and
 * keeps the slot. So a slot number in a record never means another connection; the generation in
 * each output record is the second line of defence.
 *
 * Connections are watched edge-triggered: pausing needs no system call, and a paused socket that
 * hangs up cannot spin. What an edge announced and a round did not finish waits in the ready list;
 * while engine_backlog() is not 0 the caller must come back without sleeping.
 *
 * engine.c: rounds, slots, clock. listener.c: accepting. conn.c: receiving, sending, closing.
 * layer.c: the same for connections with a stream layer (TLS). datagram.c: UDP. */
#ifndef HEADRACE_ENGINE_H
#define HEADRACE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/uio.h>

#include "admission.h"
#include "socket.h"
#include "stream.h"

/* ---- what is shared with JavaScript: keep in step with src/engine/layout.ts ---- */

enum {
  HEADER_OUTPUT_RECORDS,
  HEADER_OUTPUT_BYTES,
  HEADER_OPEN,
  HEADER_FLUSHES,
  HEADER_WAITING, /* datagrams that the kernel did not take at first */
  HEADER_WORDS
};

/* The order of WORKER_FIELDS in src/os/scoreboard.ts. */
enum {
  TOTAL_CLOCK,
  TOTAL_BYTES_RECEIVED,
  TOTAL_BYTES_SENT,
  TOTAL_ACCEPTED,
  TOTAL_REJECTED,
  TOTAL_ACCEPT_ERRORS,
  TOTAL_ROUNDS,
  TOTAL_SENDS,
  TOTAL_RECEIVES,
  TOTAL_OPEN,
  TOTAL_BYTES_HELD_OUT, /* size of all buffers of unsent bytes, also of closing slots */
  /* Of TOTAL_ACCEPT_ERRORS. */
  TOTAL_ACCEPT_EMFILE,
  TOTAL_ACCEPT_ENFILE,
  TOTAL_ACCEPT_ENOBUFS,
  TOTAL_ACCEPT_ENOMEM,
  TOTAL_ACCEPT_ECONNABORTED,
  TOTAL_ACCEPT_OTHER,
  /* Seconds of rounds, which the caller counts: in engine_round, in JavaScript, in engine_flush. */
  TOTAL_RECEIVE_SECONDS,
  TOTAL_SCRIPT_SECONDS,
  TOTAL_SEND_SECONDS,
  /* Of TOTAL_REJECTED; in the order of admission_verdict. */
  TOTAL_REJECTED_CONNECTIONS,
  TOTAL_REJECTED_LISTENER,
  TOTAL_REJECTED_ADDRESS,
  TOTAL_REJECTED_RATE,
  TOTAL_REJECTED_DENIED,
  TOTAL_REJECTED_DESCRIPTORS,
  TOTAL_COUNT
};

/* Input records: kind, slot, a, b. */
enum {
  INPUT_DATA = 1,     /* a offset, b length */
  INPUT_ACCEPT,       /* a listener */
  INPUT_END,          /* the peer sends no more */
  INPUT_ERROR,        /* a errno; the descriptor is closed, the slot waits for CLOSE */
  INPUT_CONNECTED,    /* a connect succeeded */
  INPUT_WRITABLE,     /* unsent bytes fell below the mark of NOTIFY */
  INPUT_BLOCKED,      /* the kernel took no more: unsent bytes wait */
  INPUT_ACCEPT_ERROR, /* slot is the listener, a errno; a rest begins */
  INPUT_SECURED,      /* its stream layer is through with its handshake */
  INPUT_DATAGRAM,     /* slot is the listener, a offset, b length; in front: datagram_end */
};
#define INPUT_WORDS 4

/* Output records: kind, slot, generation, a, b. */
enum {
  OUTPUT_SEND = 1,   /* a offset, b length */
  OUTPUT_SEND_ALONE, /* the same, never joined with others */
  OUTPUT_CLOSE,      /* a: ms to send what is unsent; then FIN, or RST when time is up */
  OUTPUT_RESET,      /* RST; what is unsent is dropped */
  OUTPUT_PAUSE,
  OUTPUT_RESUME,
  OUTPUT_FINISH,   /* FIN once everything is sent; receiving goes on */
  OUTPUT_NOTIFY,   /* a: report WRITABLE once fewer bytes than this are unsent */
  OUTPUT_DATAGRAM, /* slot is the listener, a offset of a datagram_end, b length behind it */
};
#define OUTPUT_WORDS 5

enum {
  COUNTER_RECEIVED,
  COUNTER_SENT,
  COUNTER_RECEIVED_AT, /* clock of the last byte received, or of the opening */
  COUNTER_PROGRESS_AT, /* clock of the last byte the kernel took, or of the first refused */
  COUNTER_WORDS
};

/* How a listener limits its clients: address_rule, and an ON_LIMIT_…. */
enum {
  RULE_CONNECTIONS,
  RULE_INTERVAL_NS,
  RULE_BURST_NS,
  RULE_SPACE,
  RULE_PREFIX,
  RULE_ON_LIMIT,
  RULE_NAMED_LATER,
  RULE_WORDS
};

typedef struct {
  int32_t *header;
  double *totals;
  uint8_t *input, *output;
  int32_t *input_records, *output_records;
  int32_t *generations, *unsent;
  double *counters;
  uint32_t input_bytes, output_bytes;
  uint32_t input_records_max, output_records_max;
  uint32_t slots;
} engine_memory;

/* ---- bounds ---- */

#define EVENTS_PER_ROUND 512
/* Fairness: bytes taken from one connection in one round. */
#define RECEIVE_SHARE (64 * 1024)
/* Accepts of one round, shared by all listening sockets that are ready; each gets at least one. */
#define ACCEPTS_PER_ROUND 64
#define LISTENERS_MAX 64
#define WATCHES_MAX 16384
/* A listening socket that ran out of descriptors or memory rests this long, twice as long when that
 * was in vain, and so on up to the second bound. */
#define ACCEPT_PAUSE_MS 100
#define ACCEPT_PAUSE_MOST_MS 1600
/* After our FIN: how long the peer may take to send its own before the descriptor is closed, unless
 * the listener says otherwise. */
#define LINGER_MS 1000

/* ---- slots ---- */

typedef enum {
  SLOT_FREE,
  SLOT_CONNECTING,
  SLOT_OPEN,
  SLOT_DEAD,    /* the descriptor is closed; JavaScript has still to order CLOSE */
  SLOT_CLOSING, /* JavaScript has let go; what is unsent is being sent, or the peer's FIN awaited */
} slot_state;

enum {
  FLAG_QUEUED = 1 << 0,      /* in the ready list */
  FLAG_READABLE = 1 << 1,    /* an edge came and was not used up */
  FLAG_WRITABLE = 1 << 2,    /* the same, for sending */
  FLAG_EXHAUST = 1 << 3,     /* a short read proves nothing: read until 0, an error or EAGAIN */
  FLAG_ENDED = 1 << 4,       /* recv() returned 0 */
  FLAG_PAUSED = 1 << 5,      /* JavaScript asked for no more input */
  FLAG_WRITE_ARMED = 1 << 6, /* EPOLLOUT is watched */
  FLAG_FINISH = 1 << 7,      /* FIN when everything is sent */
  FLAG_FINISHED = 1 << 8,    /* FIN sent */
  FLAG_TOUCHED = 1 << 9,     /* in the list of the running flush */
  FLAG_ALONE = 1 << 10,      /* its records of this flush are not to be joined */
  FLAG_COUNTED = 1 << 11,    /* holds a place in the admission table */
  FLAG_CLOSE = 1 << 12,      /* CLOSE was ordered in the running flush */
  FLAG_ERROR = 1 << 13,      /* EPOLLERR came */
  FLAG_BLOCKED = 1 << 14,    /* INPUT_BLOCKED is still to be reported */
};

typedef struct {
  /* The first cache line is what a message touches. */
  int fd;
  uint32_t generation;
  uint16_t flags;
  uint8_t state, listener;
  int32_t next;                  /* ready list or free list */
  int32_t next_touched;          /* list of the running flush */
  int32_t first_send, last_send; /* output records of the running flush */
  uint32_t unsent_from, unsent_to, unsent_size;
  uint8_t *unsent;      /* what the kernel did not take: bytes [unsent_from, unsent_to) */
  int32_t notify_below; /* 0: nobody asked */
  int32_t error;        /* SLOT_DEAD: still to be reported */
  stream *stream;       /* NULL: the socket's bytes are the connection's */
  /* Closing. */
  int32_t close_before, close_after; /* list of closing slots */
  int32_t close_ms;                  /* for progress */
  int32_t linger_ms;    /* of the listener; -1: LINGER_MS, then close() instead of RST */
  int32_t kernel_queue; /* SIOCOUTQ when last looked at */
  double close_at, close_end;
  int32_t entry;      /* where its address is counted; ADDRESS_NONE: nowhere */
  uint16_t peer_port; /* network order */
  uint16_t peer_family;
  uint8_t peer[16];
} slot;

_Static_assert(sizeof(slot) <= 128, "two cache lines");

_Static_assert(offsetof(slot, close_before) <= 64, "a message touches one cache line of its slot");

/* A listening socket that is accepted from. One listener may have several: its socket in each slot
 * of the server. */
typedef struct {
  int fd; /* -1: not in use */
  uint8_t listener;
  /* Resting: out of descriptors, until resume_at. Waiting: for a place, as `onLimit: wait` has it.
   */
  enum { WATCH_ACCEPTING, WATCH_RESTING, WATCH_WAITING } state;
  double resume_at;
  int32_t rests;  /* in a row, without an accept in between */
  uint32_t since; /* waits for a place, as in admission.h; 0: not, or it has had its turn */
  int32_t row;    /* of the admission table, in which it waits */
} watch;

typedef struct {
  int first, last;
} slot_list;

typedef struct {
  int epoll_fd;
  engine_memory memory;
  slot *slots; /* mapped, 128 bytes each */
  int32_t first_free;
  uint32_t used; /* slots ever used: those above are fresh */
  slot_list ready, closing, released;
  int32_t ready_count;
  int32_t *next_send; /* per output record: the next one of the same slot */
  uint32_t input_used, input_count;
  double now;
  watch *watches;                        /* by number */
  int32_t watches_size, watches_stopped; /* stopped: resting or waiting */
  int32_t watches_queued;                /* with `since` */
  int spare_fd;         /* given up for a moment to shed one client when no descriptor is left */
  uint32_t accept_turn; /* who of those that are ready comes first */
  int32_t linger_ms[LISTENERS_MAX]; /* of each listener's next connections */
  admission admission;
  struct datagrams *datagrams; /* datagram.h; NULL: there are none */
} engine;

/* ---- engine.c ---- */

/* Opens the engine over memory that must outlive it. */
int engine_open(engine *self, const engine_memory *memory);

/* Resets every connection. Listening sockets are left alone. */
void engine_close(engine *self);

/* Takes what is ready, up to the bounds. Returns the number of input records. */
int engine_round(engine *self);

/* Between rounds: accepts what waits in the queue of a watch, up to ACCEPTS_PER_ROUND. Returns the
 * number of input records; 0 when the queue is empty. */
int engine_accept_queued(engine *self, int number);

/* Carries out the output records. */
void engine_flush(engine *self);

/* Advances the clock: wakes rested listeners, ends closing slots whose time is up. */
void engine_tick(engine *self);

/* Slots that wait for the next round without an event to announce them. */
static inline int32_t engine_backlog(const engine *self) {
  return self->ready_count;
}

/* Takes a slot for a connected (or connecting) descriptor and watches it. On failure the
 * descriptor stays the caller's. Returns the slot or -errno. */
int engine_add(engine *self, int fd, slot_state state, uint8_t listener,
               const socket_address *peer);

/* How long a closing connection of `listener` waits for the peer's FIN before RST, for those that
 * come from now on; -1: LINGER_MS, then close(). */
int engine_linger(engine *self, int listener, int32_t linger_ms);

/* The slot that `index` and `generation` mean, if JavaScript still owns it; else NULL. */
slot *engine_slot(engine *self, uint32_t index, uint32_t generation);

/* Begins to connect. Returns the slot or -errno. */
int engine_connect(engine *self, const socket_address *address, const socket_address *local,
                   const int32_t options[OPTION_COUNT]);

/* A place in the admission table. */
typedef struct {
  bool counted;
  int32_t entry; /* where its address is counted */
} engine_place;

/* Takes a connected descriptor over as a connection of `listener`, with that listener's linger.
 * `peer`: its client, where that is not the socket's peer; or NULL. `place`: what it holds in the
 * admission table already, if it is counted; else it takes a place, whatever the limits. Returns
 * the slot or -errno; then the descriptor stays the caller's and nothing is counted. */
int engine_adopt(engine *self, int listener, int fd, const socket_address *peer,
                 engine_place place);

typedef struct {
  int fd;             /* the caller's now */
  engine_place place; /* so is this: engine_leave gives it back */
  uint8_t *unsent;    /* what was not sent, to be freed by the caller */
  uint32_t length;
} engine_released;

/* Stops watching and frees the slot without closing. -EBADF for a slot not open, -EOPNOTSUPP for
 * one with a stream layer, whose state no descriptor holds. */
int engine_release(engine *self, uint32_t index, uint32_t generation, engine_released *released);

/* Resets closing slots that hold unsent bytes, the oldest first, until buffers of at least `bytes`
 * are free. Returns the bytes freed. */
double engine_abandon(engine *self, double bytes);

/* Gives the place of a released connection back that lives on elsewhere. */
void engine_leave(engine *self, int listener, int32_t entry);

/* The client of a connection is another than the socket's peer, as a proxy says: from now on it is
 * that one which is counted and shown. ADMITTED, or why that client may not come; then nothing has
 * changed but a counter of rejections. -EBADF for a slot that is not open. */
int engine_admit(engine *self, uint32_t index, uint32_t generation, const socket_address *client);

/* Counts client addresses too, in the shared memory `fd` that the admission table is part of, and
 * hears of free places by the eventfd `wake_fd`, which must stay open. */
int engine_share(engine *self, int fd, int wake_fd);

/* How `listener` limits its clients from now on. Those that are open are counted by their address
 * as it says, and no longer as the last rule did; those that wait and need not any more are turned
 * away. */
int engine_rule(engine *self, int listener, const address_rule *rule, int on_limit);

/* Puts a layer on an open slot, whose own it is from then on. It begins in the next round, as soon
 * as the slot is not paused. -EBADF when the slot is not open, -EALREADY when it has one. */
int engine_secure(engine *self, uint32_t index, uint32_t generation, stream *layer);

/* Counts a client that was not admitted. */
void engine_count_rejected(engine *self, admission_verdict verdict);

void engine_peer(const slot *conn, socket_address *address);

/* The same in ENGINE_PEER_BYTES: the address (IPv4 in the first four of 16), the port in network
 * order, and 4, 6 or 0 for the family. */
#define ENGINE_PEER_BYTES 20
void engine_write_peer(const slot *conn, uint8_t *into);

/* ---- shared by engine.c, listener.c and conn.c ---- */

/* epoll data: the number of a watch with the first bit, the second bit alone when a place may have
 * become free, or a slot's generation (of 31 bits) and number. */
#define LISTENER_BIT (1ull << 63)
#define WAKE_DATA (LISTENER_BIT | 1ull << 62)
/* No slot, no record. */
#define NONE (-1)

static inline int32_t engine_index(const engine *self, const slot *conn) {
  return (int32_t)(conn - self->slots);
}

/* What every connection is watched for; EPOLLOUT only once the kernel has refused to take all. */
#define WATCHED (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLET)

static inline uint64_t engine_event_data(const engine *self, const slot *conn) {
  return ((uint64_t)conn->generation << 32) | (uint32_t)engine_index(self, conn);
}

/* Room for `count` more input records. */
static inline bool engine_has_room(const engine *self, uint32_t count) {
  return self->input_count + count <= self->memory.input_records_max;
}

void engine_emit(engine *self, int32_t kind, int32_t index, int32_t a, int32_t b);
void engine_enqueue(engine *self, slot *conn);
/* Closes the descriptor (if any) and gives the slot back. */
void engine_free(engine *self, slot *conn);
void engine_watch_closing(engine *self, slot *conn, double close_at);
void engine_unwatch_closing(engine *self, slot *conn);

/* ---- listener.c ---- */

/* Accepts from `fd`, as watch `number`, connections of `listener`, whose linger it sets. The
 * descriptor stays the caller's, who closes it after listener_close. */
int listener_open(engine *self, int number, int listener, int fd, int32_t linger_ms);
int listener_close(engine *self, int number);
void listener_close_all(engine *self);
void listener_accept(engine *self, int number, int most);
void listener_accept_ready(engine *self, const int32_t *ready, int count);
void listener_tick(engine *self);
/* A place may have become free. */
void listener_wake(engine *self);

/* ---- conn.c ---- */

/* What an epoll event says about a slot. */
void conn_event(engine *self, slot *conn, uint32_t events);
/* Does what a slot in the ready list waits for. The input arena has room for one share. */
void conn_proceed(engine *self, slot *conn);
/* Sends bytes after everything unsent; copies what the kernel does not take. */
void conn_send(engine *self, slot *conn, const uint8_t *bytes, uint32_t length);
/* Carries out what the running flush collected for a slot. */
void conn_flush(engine *self, slot *conn);
void conn_reset(engine *self, slot *conn);
/* Frees the buffer of unsent bytes, if there is one. */
void conn_drop_unsent(engine *self, slot *conn);
void conn_pause(slot *conn);
/* Bytes that have arrived and were not read yet. */
int conn_unread(const slot *conn);

/* The kernel's smoothed round-trip time in microseconds, and how many segments it sent again
 * (TCP_INFO, tcp(7)): 0 or -errno. One system call. */
int conn_timing(const slot *conn, uint32_t *rtt_us, uint32_t *retransmits);
/* What the kernel would say of an open connection if it were read now: PEEKED_QUIET,
 * PEEKED_BYTES, PEEKED_END, or -errno. Reads nothing and never waits. */
enum { PEEKED_QUIET, PEEKED_BYTES, PEEKED_END };
int conn_peek(const slot *conn);
void conn_resume(engine *self, slot *conn);
/* The time of a closing slot is up. */
void conn_close_now(engine *self, slot *conn);

/* ---- shared by conn.c and layer.c ---- */

/* The socket failed. */
void conn_fail(engine *self, slot *conn, int error);
/* Sends the socket's bytes, in order, after everything unsent. False when the connection failed. */
bool conn_transmit(engine *self, slot *conn, struct iovec *parts, int count);
/* Reads from the socket; what is not bytes (an end, an error) is dealt with. Returns their number
 * or something not above 0. */
ssize_t conn_take(engine *self, slot *conn, uint8_t *into, size_t size);

/* ---- layer.c: what conn.c does, for a slot with a layer ---- */

void layer_receive(engine *self, slot *conn);
/* False when the connection failed. */
bool layer_send(engine *self, slot *conn, const struct iovec *parts, int count);
/* Nothing more will be sent: says so to the peer. */
void layer_finish(engine *self, slot *conn);
/* The slot was closed after its layer had failed, with the descriptor still open. */
void layer_linger(engine *self, slot *conn, double linger_ms);
void layer_free(slot *conn);

#endif
