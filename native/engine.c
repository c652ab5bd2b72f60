#include "engine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "datagram.h"

/* CLOCK_MONOTONIC_COARSE: no system call and a few ns, at the price of one jiffy (1 to 4 ms). */
static double monotonic_ms(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
  return (double)time.tv_sec * 1000 + (double)time.tv_nsec / 1e6;
}

static void advance_clock(engine *self) {
  self->now = monotonic_ms();
  self->memory.totals[TOTAL_CLOCK] = self->now;
}

static size_t slots_size(const engine_memory *memory) {
  return (size_t)memory->slots * sizeof(slot);
}

int engine_open(engine *self, const engine_memory *memory) {
  memset(self, 0, sizeof *self);
  self->memory = *memory;
  self->first_free = NONE;
  self->ready = self->closing = self->released = (slot_list){NONE, NONE};
  for (int listener = 0; listener < LISTENERS_MAX; listener++)
    self->linger_ms[listener] = -1;
  self->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  /* Pages of slots that were never used cost nothing. */
  self->slots =
      mmap(NULL, slots_size(memory), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (self->slots == MAP_FAILED) self->slots = NULL;
  self->next_send = calloc(memory->output_records_max, sizeof *self->next_send);
  self->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  int error = self->epoll_fd < 0 ? -errno : 0;
  if (!error && (!self->slots || !self->next_send)) error = -ENOMEM;
  if (error) {
    if (self->slots) munmap(self->slots, slots_size(memory));
    free(self->next_send);
    if (self->epoll_fd >= 0) close(self->epoll_fd);
    if (self->spare_fd >= 0) close(self->spare_fd);
    return error;
  }
  advance_clock(self);
  return 0;
}

void engine_close(engine *self) {
  for (uint32_t i = 0; i < self->used; i++) {
    slot *conn = &self->slots[i];
    if (conn->state == SLOT_FREE) continue;
    if (conn->fd >= 0) socket_make_reset(conn->fd);
    engine_free(self, conn);
  }
  listener_close_all(self);
  datagram_close_all(self);
  close(self->epoll_fd);
  if (self->spare_fd >= 0) close(self->spare_fd);
  admission_close(&self->admission);
  munmap(self->slots, slots_size(&self->memory));
  free(self->next_send);
  /* No slot, no descriptor: whoever still calls gets -EBADF, -ENOSPC or nothing. */
  *self = (engine){.epoll_fd = -1, .spare_fd = -1, .first_free = NONE, .ready = {NONE, NONE}};
}

/* ---- slots ---- */

static slot *take(engine *self) {
  if (self->first_free != NONE) {
    slot *conn = &self->slots[self->first_free];
    self->first_free = conn->next;
    return conn;
  }
  return self->used < self->memory.slots ? &self->slots[self->used++] : NULL;
}

/* Makes a slot usable again from the next round on: in the running one, JavaScript may still hold
 * input records that speak of its last connection. */
static void give_back(engine *self, slot *conn) {
  conn->state = SLOT_FREE;
  conn->next = self->released.first;
  self->released.first = engine_index(self, conn);
  if (self->released.last == NONE) self->released.last = self->released.first;
}

static void reuse_released(engine *self) {
  if (self->released.first == NONE) return;
  self->slots[self->released.last].next = self->first_free;
  self->first_free = self->released.first;
  self->released = (slot_list){NONE, NONE};
}

static void remember_peer(slot *conn, const socket_address *peer) {
  conn->peer_family = peer->any.sa_family;
  if (conn->peer_family == AF_INET) {
    conn->peer_port = peer->v4.sin_port;
    memcpy(conn->peer, &peer->v4.sin_addr, sizeof peer->v4.sin_addr);
  } else if (conn->peer_family == AF_INET6) {
    conn->peer_port = peer->v6.sin6_port;
    memcpy(conn->peer, &peer->v6.sin6_addr, sizeof peer->v6.sin6_addr);
  }
}

void engine_write_peer(const slot *conn, uint8_t *into) {
  memcpy(into, conn->peer, sizeof conn->peer);
  memcpy(into + sizeof conn->peer, &conn->peer_port, sizeof conn->peer_port);
  into[sizeof conn->peer + sizeof conn->peer_port] =
      conn->peer_family == AF_INET ? 4 : conn->peer_family == AF_INET6 ? 6 : 0;
}

void engine_peer(const slot *conn, socket_address *address) {
  memset(address, 0, sizeof *address);
  address->any.sa_family = conn->peer_family;
  if (conn->peer_family == AF_INET) {
    address->v4.sin_port = conn->peer_port;
    memcpy(&address->v4.sin_addr, conn->peer, sizeof address->v4.sin_addr);
  } else if (conn->peer_family == AF_INET6) {
    address->v6.sin6_port = conn->peer_port;
    memcpy(&address->v6.sin6_addr, conn->peer, sizeof address->v6.sin6_addr);
  }
}

int engine_add(engine *self, int fd, slot_state state, uint8_t listener,
               const socket_address *peer) {
  slot *conn = take(self);
  if (!conn) return -ENOSPC;
  int32_t index = engine_index(self, conn);
  uint32_t generation = (conn->generation + 1) & 0x7fffffff;
  *conn = (slot){.fd = fd,
                 .generation = generation ? generation : 1,
                 .state = (uint8_t)state,
                 .listener = listener,
                 .entry = ADDRESS_NONE,
                 .linger_ms = state == SLOT_OPEN ? self->linger_ms[listener] : -1,
                 .first_send = NONE,
                 .close_before = NONE,
                 .close_after = NONE};
  if (peer) remember_peer(conn, peer);
  /* EPOLLOUT only for a connect, whose outcome it announces; else it is armed when the kernel first
   * refuses to take everything, and stays armed: an edge costs nothing until then. */
  struct epoll_event event = {.events = WATCHED, .data.u64 = engine_event_data(self, conn)};
  if (state == SLOT_CONNECTING) {
    event.events |= EPOLLOUT;
    conn->flags |= FLAG_WRITE_ARMED;
  }
  if (epoll_ctl(self->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
    int error = -errno;
    give_back(self, conn);
    return error;
  }
  self->memory.generations[index] = (int32_t)conn->generation;
  self->memory.unsent[index] = 0;
  double *counters = &self->memory.counters[index * COUNTER_WORDS];
  counters[COUNTER_RECEIVED] = counters[COUNTER_SENT] = 0;
  counters[COUNTER_RECEIVED_AT] = counters[COUNTER_PROGRESS_AT] = self->now;
  self->memory.header[HEADER_OPEN]++;
  self->memory.totals[TOTAL_OPEN] = self->memory.header[HEADER_OPEN];
  return index;
}

/* Everything but the descriptor. */
static void forget(engine *self, slot *conn) {
  if (conn->state == SLOT_CLOSING) engine_unwatch_closing(self, conn);
  if (conn->flags & FLAG_COUNTED) admission_leave(&self->admission, conn->listener, conn->entry);
  conn_drop_unsent(self, conn);
  if (conn->stream) layer_free(conn);
  conn->fd = -1;
  self->memory.header[HEADER_OPEN]--;
  self->memory.totals[TOTAL_OPEN] = self->memory.header[HEADER_OPEN];
  /* The shared column tells JavaScript that its records for this slot are stale. */
  conn->generation = (conn->generation + 1) & 0x7fffffff;
  self->memory.generations[engine_index(self, conn)] = (int32_t)conn->generation;
  /* A queued slot is given back when the ready list reaches it: it is linked by the same field. */
  if (conn->flags & FLAG_QUEUED) {
    conn->state = SLOT_FREE;
  } else {
    give_back(self, conn);
  }
}

/* EPOLL_CTL_DEL before every close: with a duplicate of the descriptor elsewhere, close() alone
 * would leave an event that nobody can remove (epoll(7)). */
static void unwatch(engine *self, slot *conn) {
  epoll_ctl(self->epoll_fd, EPOLL_CTL_DEL, conn->fd, NULL);
}

void engine_free(engine *self, slot *conn) {
  if (conn->fd >= 0) {
    unwatch(self, conn);
    close(conn->fd);
  }
  forget(self, conn);
}

slot *engine_slot(engine *self, uint32_t index, uint32_t generation) {
  if (index >= self->used) return NULL;
  slot *conn = &self->slots[index];
  bool owned =
      conn->state == SLOT_OPEN || conn->state == SLOT_CONNECTING || conn->state == SLOT_DEAD;
  return owned && conn->generation == generation ? conn : NULL;
}

int engine_connect(engine *self, const socket_address *address, const socket_address *local,
                   const int32_t options[OPTION_COUNT]) {
  int fd = socket_connect(address, local, options);
  if (fd < 0) return fd;
  int index = engine_add(self, fd, SLOT_CONNECTING, 0, address);
  if (index < 0) close(fd);
  return index;
}

int engine_linger(engine *self, int listener, int32_t linger_ms) {
  if (listener < 0 || listener >= LISTENERS_MAX) return -EINVAL;
  self->linger_ms[listener] = linger_ms;
  return 0;
}

int engine_adopt(engine *self, int listener, int fd, const socket_address *client,
                 engine_place place) {
  if (listener < 0 || listener >= LISTENERS_MAX) return -EINVAL;
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) return -errno;
  socket_address peer;
  bool known = client != NULL || socket_name(fd, true, &peer) == 0;
  if (client) peer = *client;
  /* The new watch announces again what its last one had announced already: unread bytes, the peer's
   * FIN, an error. */
  int index = engine_add(self, fd, SLOT_OPEN, (uint8_t)listener, known ? &peer : NULL);
  if (index < 0 || !self->admission.table) return index;
  slot *conn = &self->slots[index];
  uint8_t bytes[ADDRESS_BYTES];
  const uint8_t *address = known && socket_address_bytes(&peer, bytes) ? bytes : NULL;
  if (!place.counted) {
    conn->entry = admission_force(&self->admission, listener, address);
  } else if (place.entry != ADDRESS_NONE) {
    conn->entry = place.entry;
  } else if (address) {
    /* Its limit may be younger than its place. */
    conn->entry =
        address_force(&self->admission.addresses, &self->admission.rules[listener], address);
  }
  conn->flags |= FLAG_COUNTED;
  return index;
}

int engine_release(engine *self, uint32_t index, uint32_t generation, engine_released *released) {
  slot *conn = engine_slot(self, index, generation);
  if (!conn || conn->state != SLOT_OPEN) return -EBADF;
  if (conn->stream) return -EOPNOTSUPP;
  *released = (engine_released){
      .fd = conn->fd,
      .place = {.counted = (conn->flags & FLAG_COUNTED) != 0, .entry = conn->entry},
      .unsent = conn->unsent,
      .length = conn->unsent_to - conn->unsent_from};
  if (released->length > 0)
    memmove(conn->unsent, conn->unsent + conn->unsent_from, released->length);
  self->memory.totals[TOTAL_BYTES_HELD_OUT] -= conn->unsent_size;
  conn->unsent = NULL;
  conn->unsent_from = conn->unsent_to = conn->unsent_size = 0;
  conn->flags &= (uint16_t)~FLAG_COUNTED;
  unwatch(self, conn);
  forget(self, conn);
  return 0;
}

void engine_leave(engine *self, int listener, int32_t entry) {
  if (listener < 0 || listener >= LISTENERS_MAX) return;
  if (entry < ADDRESS_NONE || entry >= ADDRESS_ENTRIES) return;
  admission_hand_over(&self->admission, listener, entry);
}

void engine_count_rejected(engine *self, admission_verdict verdict) {
  self->memory.totals[TOTAL_REJECTED]++;
  self->memory.totals[TOTAL_REJECTED_CONNECTIONS + verdict - REJECT_CONNECTIONS]++;
}

/* The place stays, and with it the number of all connections: only the address is another. */
int engine_admit(engine *self, uint32_t index, uint32_t generation, const socket_address *client) {
  slot *conn = engine_slot(self, index, generation);
  uint8_t address[ADDRESS_BYTES];
  if (!conn || conn->state != SLOT_OPEN) return -EBADF;
  if (!socket_address_bytes(client, address)) return -EINVAL;
  socket_address peer;
  uint8_t bytes[ADDRESS_BYTES];
  engine_peer(conn, &peer);
  const uint8_t *before = socket_address_bytes(&peer, bytes) ? bytes : NULL;
  admission_verdict verdict =
      admission_rename(&self->admission, conn->listener, before, address, &conn->entry);
  if (verdict != ADMITTED) {
    engine_count_rejected(self, verdict);
    return (int)verdict;
  }
  remember_peer(conn, client);
  return ADMITTED;
}

int engine_share(engine *self, int fd, int wake_fd) {
  int error = admission_share(&self->admission, fd, wake_fd);
  if (error) return error;
  /* By edges: whoever writes wakes every worker, and nobody has to read. */
  struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = WAKE_DATA};
  return epoll_ctl(self->epoll_fd, EPOLL_CTL_ADD, wake_fd, &event) == 0 ? 0 : -errno;
}

int engine_rule(engine *self, int listener, const address_rule *rule, int on_limit) {
  if (listener < 0 || listener >= LISTENERS_MAX) return -EINVAL;
  address_rule before = self->admission.rules[listener];
  bool other = before.space != rule->space || before.prefix != rule->prefix;
  self->admission.rules[listener] = *rule;
  self->admission.on_limit[listener] = (uint8_t)on_limit;
  listener_wake(self);
  if (!other && !address_is_limited(rule)) return 0;
  for (uint32_t index = 0; index < self->used; index++) {
    slot *conn = &self->slots[index];
    if (conn->state == SLOT_FREE || conn->listener != listener) continue;
    if (!(conn->flags & FLAG_COUNTED) || (conn->entry != ADDRESS_NONE && !other)) continue;
    socket_address peer;
    uint8_t address[ADDRESS_BYTES];
    engine_peer(conn, &peer);
    if (socket_address_bytes(&peer, address))
      conn->entry = admission_recount(&self->admission, listener, address, conn->entry);
  }
  return 0;
}

double engine_abandon(engine *self, double bytes) {
  double freed = 0;
  for (int32_t index = self->closing.first; index != NONE && freed < bytes;) {
    slot *conn = &self->slots[index];
    index = conn->close_after;
    if (conn->unsent_size == 0) continue;
    freed += conn->unsent_size;
    conn_reset(self, conn);
  }
  return freed;
}

/* ---- lists ---- */

void engine_enqueue(engine *self, slot *conn) {
  if (conn->flags & FLAG_QUEUED) return;
  int32_t index = engine_index(self, conn);
  conn->flags |= FLAG_QUEUED;
  conn->next = NONE;
  if (self->ready.last == NONE) {
    self->ready.first = index;
  } else {
    self->slots[self->ready.last].next = index;
  }
  self->ready.last = index;
  self->ready_count++;
}

static slot *dequeue(engine *self) {
  slot *conn = &self->slots[self->ready.first];
  self->ready.first = conn->next;
  if (self->ready.first == NONE) self->ready.last = NONE;
  self->ready_count--;
  conn->flags &= (uint16_t)~FLAG_QUEUED;
  return conn;
}

void engine_watch_closing(engine *self, slot *conn, double close_at) {
  int32_t index = engine_index(self, conn);
  conn->close_at = close_at;
  conn->close_before = self->closing.last;
  conn->close_after = NONE;
  if (self->closing.last == NONE) {
    self->closing.first = index;
  } else {
    self->slots[self->closing.last].close_after = index;
  }
  self->closing.last = index;
}

void engine_unwatch_closing(engine *self, slot *conn) {
  if (conn->close_before == NONE) {
    self->closing.first = conn->close_after;
  } else {
    self->slots[conn->close_before].close_after = conn->close_after;
  }
  if (conn->close_after == NONE) {
    self->closing.last = conn->close_before;
  } else {
    self->slots[conn->close_after].close_before = conn->close_before;
  }
}

/* ---- rounds ---- */

void engine_emit(engine *self, int32_t kind, int32_t index, int32_t a, int32_t b) {
  int32_t *record = &self->memory.input_records[self->input_count++ * INPUT_WORDS];
  record[0] = kind;
  record[1] = index;
  record[2] = a;
  record[3] = b;
}

/* Asked before a slot leaves the list: one that had to go back would queue behind the others, and
 * could starve. */
static bool has_room_for_share(const engine *self) {
  return engine_has_room(self, 6) && self->memory.input_bytes - self->input_used >= RECEIVE_SHARE;
}

int engine_round(engine *self) {
  struct epoll_event events[EVENTS_PER_ROUND];
  self->input_used = self->input_count = 0;
  self->memory.totals[TOTAL_ROUNDS]++;
  reuse_released(self);
  int count = epoll_wait(self->epoll_fd, events, EVENTS_PER_ROUND, 0);
  advance_clock(self);
  int32_t accepting[EVENTS_PER_ROUND], receiving[EVENTS_PER_ROUND];
  int accepting_count = 0, receiving_count = 0;
  for (int i = 0; i < count; i++) {
    uint64_t data = events[i].data.u64;
    if (data == WAKE_DATA) {
      listener_wake(self);
      continue;
    }
    if ((data & LISTENER_BIT) && (data & DATAGRAM_BIT)) {
      receiving[receiving_count++] = (int32_t)(data & ~(LISTENER_BIT | DATAGRAM_BIT));
      continue;
    }
    if (data & LISTENER_BIT) {
      accepting[accepting_count++] = (int32_t)(data & ~LISTENER_BIT);
      continue;
    }
    slot *conn = &self->slots[(uint32_t)data];
    if (conn->state != SLOT_FREE && conn->generation == data >> 32)
      conn_event(self, conn, events[i].events);
  }
  listener_accept_ready(self, accepting, accepting_count);
  datagram_receive_ready(self, receiving, receiving_count);
  /* Only those queued by now: one that has more comes again next round, behind the others. Each may
   * write up to six records (blocked, writable, secured, data, end, error). */
  for (int32_t left = self->ready_count; left > 0 && has_room_for_share(self); left--) {
    slot *conn = dequeue(self);
    if (conn->state == SLOT_FREE) {
      give_back(self, conn);
    } else {
      conn_proceed(self, conn);
    }
  }
  return (int)self->input_count;
}

int engine_accept_queued(engine *self, int number) {
  self->input_used = self->input_count = 0;
  listener_accept(self, number, ACCEPTS_PER_ROUND);
  return (int)self->input_count;
}

static void collect_send(engine *self, slot *conn, int32_t record) {
  self->next_send[record] = NONE;
  if (conn->first_send == NONE) {
    conn->first_send = record;
  } else {
    self->next_send[conn->last_send] = record;
  }
  conn->last_send = record;
}

/* Two passes: the first sorts the records by connection (a broadcast interleaves them), so that the
 * second can give each connection one system call. */
void engine_flush(engine *self) {
  int32_t *header = self->memory.header;
  int32_t count = header[HEADER_OUTPUT_RECORDS];
  if (count <= 0) return;
  if ((uint32_t)count > self->memory.output_records_max)
    count = (int32_t)self->memory.output_records_max;
  slot_list touched = {NONE, NONE};
  for (int32_t i = 0; i < count; i++) {
    const int32_t *record = &self->memory.output_records[i * OUTPUT_WORDS];
    if (record[0] == OUTPUT_DATAGRAM) {
      datagram_collect(self, record[1], record[3], record[4]);
      continue;
    }
    slot *conn = engine_slot(self, (uint32_t)record[1], (uint32_t)record[2]);
    if (!conn) continue;
    switch (record[0]) {
    case OUTPUT_SEND_ALONE:
      conn->flags |= FLAG_ALONE;
      collect_send(self, conn, i);
      break;
    case OUTPUT_SEND:
      collect_send(self, conn, i);
      break;
    case OUTPUT_CLOSE:
      conn->flags |= FLAG_CLOSE;
      conn->close_ms = record[3];
      break;
    case OUTPUT_FINISH:
      conn->flags |= FLAG_FINISH;
      break;
    case OUTPUT_NOTIFY:
      conn->notify_below = record[3];
      break;
    case OUTPUT_PAUSE:
      conn_pause(conn);
      continue;
    case OUTPUT_RESUME:
      conn_resume(self, conn);
      continue;
    case OUTPUT_RESET:
      /* Carried out in the second pass: earlier records of this slot are linked by now. */
      conn->flags |= FLAG_CLOSE;
      conn->close_ms = -1;
      break;
    default:
      continue;
    }
    if (conn->flags & FLAG_TOUCHED) continue;
    int32_t index = engine_index(self, conn);
    conn->flags |= FLAG_TOUCHED;
    conn->next_touched = NONE;
    if (touched.last == NONE) {
      touched.first = index;
    } else {
      self->slots[touched.last].next_touched = index;
    }
    touched.last = index;
  }
  datagram_flush(self);
  header[HEADER_OUTPUT_RECORDS] = 0;
  header[HEADER_FLUSHES]++;
  for (int32_t index = touched.first; index != NONE;) {
    slot *conn = &self->slots[index];
    index = conn->next_touched;
    conn->flags &= (uint16_t)~FLAG_TOUCHED;
    conn_flush(self, conn);
  }
  header[HEADER_OUTPUT_BYTES] = 0;
}

void engine_tick(engine *self) {
  advance_clock(self);
  if (self->watches_stopped > 0 || self->watches_queued > 0) listener_tick(self);
  for (int32_t index = self->closing.first; index != NONE;) {
    slot *conn = &self->slots[index];
    index = conn->close_after;
    if (self->now >= conn->close_at) conn_close_now(self, conn);
  }
}
