#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "engine.h"

/* The first table of watches; it doubles. */
#define WATCHES_LEAST 64
/* Who has the turn takes so many places, if there are, before it looks who else waits. */
#define PLACES_PER_TURN 8

/* Exclusive, because several workers may accept from one socket (epoll_ctl(2)). While this epoll
 * hangs in libuv's, the kernel wakes them all even so: it takes only a thread that waits in this
 * epoll for a taker (ep_poll_callback). Whoever comes too late finds nothing ready, or EAGAIN. */
static int begin_watch(engine *self, int number) {
  struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE,
                              .data.u64 = LISTENER_BIT | (uint64_t)number};
  int result = epoll_ctl(self->epoll_fd, EPOLL_CTL_ADD, self->watches[number].fd, &event);
  return result == 0 ? 0 : -errno;
}

static void end_watch(engine *self, int number) {
  epoll_ctl(self->epoll_fd, EPOLL_CTL_DEL, self->watches[number].fd, NULL);
}

/* Makes room for a watch of this number. */
static int grow(engine *self, int number) {
  int32_t size = self->watches_size > 0 ? self->watches_size : WATCHES_LEAST;
  while (size <= number)
    size *= 2;
  if (size == self->watches_size) return 0;
  watch *grown = realloc(self->watches, (size_t)size * sizeof *grown);
  if (!grown) return -ENOMEM;
  for (int32_t i = self->watches_size; i < size; i++)
    grown[i] = (watch){.fd = -1};
  self->watches = grown;
  self->watches_size = size;
  return 0;
}

/* ---- the turn of those that wait for a place (admission.h) ---- */

static uint32_t wait_clock(const engine *self) {
  uint32_t now = (uint32_t)(int64_t)self->now;
  return now ? now : 1;
}

/* A worker's stamp in a row is that of its watch which has waited longest there. */
static void stamp(engine *self, int row) {
  uint32_t eldest = 0;
  for (int32_t number = 0; number < self->watches_size; number++) {
    const watch *from = &self->watches[number];
    if (from->since == 0 || from->row != row) continue;
    if (eldest == 0 || (int32_t)(from->since - eldest) < 0) eldest = from->since;
  }
  admission_stamp(&self->admission, row, eldest, wait_clock(self));
}

static void renew_stamps(engine *self) {
  bool renewed[ADMISSION_ROWS] = {false};
  for (int32_t number = 0; self->watches_queued > 0 && number < self->watches_size; number++) {
    const watch *from = &self->watches[number];
    if (from->since == 0 || renewed[from->row]) continue;
    stamp(self, from->row);
    renewed[from->row] = true;
  }
}

static void set_wait(engine *self, watch *from, int row, uint32_t since) {
  int32_t before = from->row;
  bool moves = from->since != 0 && before != row;
  self->watches_queued += (since != 0) - (from->since != 0);
  from->row = row;
  from->since = since;
  if (moves) stamp(self, before);
  stamp(self, row);
}

/* Others may have left it a place that it does not need any more. */
static void end_wait(engine *self, watch *from) {
  if (from->since == 0) return;
  set_wait(self, from, from->row, 0);
  admission_pass_on(&self->admission, from->row);
}

static bool is_open(const engine *self, int number) {
  return number >= 0 && number < self->watches_size && self->watches[number].fd >= 0;
}

int listener_open(engine *self, int number, int listener, int fd, int32_t linger_ms) {
  if (number < 0 || number >= WATCHES_MAX) return -EINVAL;
  if (listener < 0 || listener >= LISTENERS_MAX) return -EINVAL;
  if (is_open(self, number)) return -EBUSY;
  int error = grow(self, number);
  if (error) return error;
  self->watches[number] = (watch){.fd = fd, .listener = (uint8_t)listener};
  error = begin_watch(self, number);
  if (error) {
    self->watches[number].fd = -1;
    return error;
  }
  return engine_linger(self, listener, linger_ms);
}

int listener_close(engine *self, int number) {
  if (!is_open(self, number)) return -EINVAL;
  end_wait(self, &self->watches[number]);
  if (self->watches[number].state == WATCH_ACCEPTING) {
    end_watch(self, number);
  } else {
    self->watches_stopped--;
  }
  self->watches[number].fd = -1;
  return 0;
}

void listener_close_all(engine *self) {
  for (int32_t number = 0; number < self->watches_size; number++)
    listener_close(self, number);
  free(self->watches);
  self->watches = NULL;
  self->watches_size = 0;
}

/* ---- stopping for a while: level-triggered readiness would spin ---- */

static void stop_accepting(engine *self, int number, int state) {
  end_watch(self, number);
  self->watches[number].state = state;
  self->watches_stopped++;
}

static void accept_again(engine *self, int number) {
  if (begin_watch(self, number) != 0) return; /* Tried again at the next tick. */
  self->watches[number].state = WATCH_ACCEPTING;
  self->watches_stopped--;
}

/* Out of descriptors or memory. */
static void rest(engine *self, int number) {
  stop_accepting(self, number, WATCH_RESTING);
  watch *from = &self->watches[number];
  end_wait(self, from);
  int32_t ms = ACCEPT_PAUSE_MS << from->rests;
  if (ms < ACCEPT_PAUSE_MOST_MS) from->rests++;
  from->resume_at = self->now + ms;
}

static bool has_queue(const watch *from) {
  struct pollfd queue = {.fd = from->fd, .events = POLLIN};
  return poll(&queue, 1, 0) != 0;
}

/* Whether one that waits may accept; where it may not, its stamp says so. Who has nobody to accept
 * holds nobody up. */
static bool has_turn(engine *self, watch *from) {
  bool waits = self->admission.on_limit[from->listener] == ON_LIMIT_WAIT;
  uint32_t now = wait_clock(self), since = from->since ? from->since : now;
  int row = waits ? admission_row_to_await(&self->admission, from->listener, since, now)
                  : ADMISSION_NO_ROW;
  if (row != ADMISSION_NO_ROW) {
    if (from->since == 0 || from->row != row) set_wait(self, from, row, since);
    return false;
  }
  if (!waits || !has_queue(from)) end_wait(self, from);
  return true;
}

static bool may_go_on(engine *self, watch *from) {
  if (from->state == WATCH_RESTING) return self->now >= from->resume_at;
  return from->state == WATCH_WAITING && has_turn(self, from);
}

static bool is_waiting(const engine *self) {
  for (int32_t number = 0; number < self->watches_size; number++)
    if (self->watches[number].fd >= 0 && self->watches[number].state == WATCH_WAITING) return true;
  return false;
}

/* Who waits says so before it looks, so that a place that becomes free meanwhile is not missed. */
void listener_wake(engine *self) {
  if (self->watches_stopped == 0) return;
  if (is_waiting(self)) admission_await(&self->admission);
  for (int32_t number = 0; self->watches_stopped > 0 && number < self->watches_size; number++)
    if (self->watches[number].fd >= 0 && may_go_on(self, &self->watches[number]))
      accept_again(self, number);
}

/* Who has had its turn for a round or more, and did not use it, found its queue empty: another
 * process was quicker. */
void listener_tick(engine *self) {
  for (int32_t number = 0; self->watches_queued > 0 && number < self->watches_size; number++)
    if (self->watches[number].state == WATCH_ACCEPTING) end_wait(self, &self->watches[number]);
  renew_stamps(self);
  listener_wake(self);
}

static void wait_for_place(engine *self, int number) {
  stop_accepting(self, number, WATCH_WAITING);
  admission_await(&self->admission);
  if (may_go_on(self, &self->watches[number])) accept_again(self, number);
}

/* ---- admitting ---- */

/* `onLimit` is about places; who is not wanted, or cannot be held, gets what costs least. */
static void reject(engine *self, uint8_t listener, int fd, admission_verdict verdict) {
  engine_count_rejected(self, verdict);
  bool no_place = verdict == REJECT_CONNECTIONS || verdict == REJECT_LISTENER;
  if (!no_place || self->admission.on_limit[listener] != ON_LIMIT_CLOSE) socket_make_reset(fd);
  close(fd);
}

/* `reserved`: it has a place already. */
static void admit(engine *self, uint8_t listener, int fd, const socket_address *peer,
                  bool reserved) {
  admission *gate = &self->admission;
  uint8_t bytes[ADDRESS_BYTES];
  /* A proxy's own address is neither listed nor counted: that of its client will be. */
  bool named = !gate->rules[listener].named_later && socket_address_bytes(peer, bytes);
  const uint8_t *address = named ? bytes : NULL;
  int32_t entry;
  admission_verdict verdict = reserved ? admission_name(gate, listener, address, &entry)
                                       : admission_enter(gate, listener, address, &entry);
  if (verdict != ADMITTED) {
    if (reserved) admission_leave(gate, listener, ADDRESS_NONE);
    reject(self, listener, fd, verdict);
    return;
  }
  int index = engine_add(self, fd, SLOT_OPEN, listener, peer);
  if (index < 0) {
    admission_leave(gate, listener, entry);
    reject(self, listener, fd, REJECT_DESCRIPTORS);
    return;
  }
  if (gate->table) self->slots[index].flags |= FLAG_COUNTED;
  self->slots[index].entry = entry;
  self->memory.totals[TOTAL_ACCEPTED]++;
  engine_emit(self, INPUT_ACCEPT, index, listener, 0);
}

/* The error of accept4, sorted once (accept(2)): */
static enum { TRY_NEXT, NOTHING_LEFT, REST } sort_accept_error(int error) {
  switch (error) {
  case EAGAIN:
    return NOTHING_LEFT;
  /* The connection died in the queue, or the kernel passes on a network error of its own. */
  case EINTR:
  case ECONNABORTED:
  case EPROTO:
  case ENETDOWN:
  case ENOPROTOOPT:
  case EHOSTDOWN:
  case ENONET:
  case EHOSTUNREACH:
  case EOPNOTSUPP:
  case ENETUNREACH:
  case EPERM:
    return TRY_NEXT;
  /* EMFILE, ENFILE, ENOBUFS, ENOMEM, and whatever we do not know. */
  default:
    return REST;
  }
}

static void count_accept_error(engine *self, int error) {
  int cell = TOTAL_ACCEPT_OTHER;
  switch (error) {
  case EMFILE:
    cell = TOTAL_ACCEPT_EMFILE;
    break;
  case ENFILE:
    cell = TOTAL_ACCEPT_ENFILE;
    break;
  case ENOBUFS:
    cell = TOTAL_ACCEPT_ENOBUFS;
    break;
  case ENOMEM:
    cell = TOTAL_ACCEPT_ENOMEM;
    break;
  case ECONNABORTED:
    cell = TOTAL_ACCEPT_ECONNABORTED;
    break;
  default:
    break;
  }
  self->memory.totals[TOTAL_ACCEPT_ERRORS]++;
  self->memory.totals[cell]++;
}

/* Half of the records are kept for those who are here already. */
static bool has_room(const engine *self) {
  return engine_has_room(self, self->memory.input_records_max / 2);
}

static int accept_next(const watch *from, socket_address *peer) {
  peer->length = sizeof peer->v6;
  int fd = accept4(from->fd, &peer->any, &peer->length, SOCK_NONBLOCK | SOCK_CLOEXEC);
  return fd < 0 ? -errno : fd;
}

/* No descriptor is left: one client is told so, by means of the spare one, instead of being left in
 * the queue without a word. Another thread may be quicker to take it; then there is none until the
 * next time. */
static void shed(engine *self, const watch *from) {
  socket_address peer;
  if (self->spare_fd >= 0) {
    close(self->spare_fd);
    int fd = accept_next(from, &peer);
    if (fd >= 0) reject(self, from->listener, fd, REJECT_DESCRIPTORS);
  }
  self->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* Before a client that may have to wait is accepted: a place for it, when it is its turn. */
static bool take_place(engine *self, const watch *from, bool look) {
  admission *gate = &self->admission;
  uint32_t now = wait_clock(self);
  if (look && !admission_is_turn(gate, from->listener, from->since ? from->since : now, now))
    return false;
  return admission_reserve(gate, from->listener) == ADMITTED;
}

void listener_accept(engine *self, int number, int most) {
  if (!is_open(self, number) || self->watches[number].state != WATCH_ACCEPTING) return;
  watch *from = &self->watches[number];
  /* Who is to wait stays in the queue: there has to be a place before it is accepted. */
  bool waits = self->admission.on_limit[from->listener] == ON_LIMIT_WAIT;
  for (int i = 0; i < most && has_room(self); i++) {
    socket_address peer;
    if (waits && !take_place(self, from, i % PLACES_PER_TURN == 0)) {
      wait_for_place(self, number);
      return;
    }
    int fd = accept_next(from, &peer);
    end_wait(self, from);
    if (fd >= 0) {
      from->rests = 0;
      admit(self, from->listener, fd, &peer, waits);
      continue;
    }
    if (waits) admission_leave(&self->admission, from->listener, ADDRESS_NONE);
    int kind = sort_accept_error(-fd);
    if (kind == NOTHING_LEFT) return;
    count_accept_error(self, -fd);
    if (kind == TRY_NEXT) continue;
    if ((fd == -EMFILE || fd == -ENFILE) && !waits) shed(self, from);
    rest(self, number);
    engine_emit(self, INPUT_ACCEPT_ERROR, from->listener, -fd, 0);
    return;
  }
}

/* Those that are ready share the accepts of the round. When the records do not suffice for all, the
 * next round begins with those that were left out: epoll reports in the same order each time. */
void listener_accept_ready(engine *self, const int32_t *ready, int count) {
  if (count == 0) return;
  int share = count < ACCEPTS_PER_ROUND ? ACCEPTS_PER_ROUND / count : 1;
  uint32_t first = self->accept_turn % (uint32_t)count;
  int served = 0;
  for (; served < count && has_room(self); served++)
    listener_accept(self, ready[(first + (uint32_t)served) % (uint32_t)count], share);
  self->accept_turn = first + (uint32_t)served;
}
