#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "engine.h"

/* The first table of watches; it doubles. */
#define WATCHES_LEAST 64

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
  if (self->watches[number].paused) {
    self->watches_paused--;
  } else {
    end_watch(self, number);
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

/* Out of descriptors or memory: level-triggered readiness would spin, so rest. */
static void pause_accepting(engine *self, int number) {
  watch *from = &self->watches[number];
  end_watch(self, number);
  from->paused = true;
  from->resume_at = self->now + ACCEPT_PAUSE_MS;
  self->watches_paused++;
}

void listener_tick(engine *self) {
  for (int32_t number = 0; self->watches_paused > 0 && number < self->watches_size; number++) {
    watch *from = &self->watches[number];
    if (from->fd < 0 || !from->paused || self->now < from->resume_at) continue;
    if (begin_watch(self, number) != 0) continue;
    from->paused = false;
    self->watches_paused--;
  }
}

static void reject(engine *self, int fd) {
  self->memory.totals[TOTAL_REJECTED]++;
  socket_make_reset(fd);
  close(fd);
}

static void admit(engine *self, uint8_t listener, int fd, const socket_address *peer) {
  if (!admission_enter(&self->admission, listener)) {
    reject(self, fd);
    return;
  }
  int index = engine_add(self, fd, SLOT_OPEN, listener, peer);
  if (index < 0) {
    admission_leave(&self->admission, listener);
    reject(self, fd);
    return;
  }
  if (self->admission.table) self->slots[index].flags |= FLAG_COUNTED;
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

/* Half of the records are kept for those who are here already. */
static bool has_room(const engine *self) {
  return engine_has_room(self, self->memory.input_records_max / 2);
}

void listener_accept(engine *self, int number, int most) {
  if (!is_open(self, number) || self->watches[number].paused) return;
  const watch *from = &self->watches[number];
  for (int i = 0; i < most && has_room(self); i++) {
    socket_address peer = {.length = sizeof peer.v6};
    int fd = accept4(from->fd, &peer.any, &peer.length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      admit(self, from->listener, fd, &peer);
      continue;
    }
    int error = errno;
    int kind = sort_accept_error(error);
    if (kind == NOTHING_LEFT) return;
    self->memory.totals[TOTAL_ACCEPT_ERRORS]++;
    if (kind == TRY_NEXT) continue;
    pause_accepting(self, number);
    engine_emit(self, INPUT_ACCEPT_ERROR, from->listener, error, 0);
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
