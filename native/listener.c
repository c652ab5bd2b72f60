#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "engine.h"

static int watch(engine *self, int id) {
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = LISTENER_BIT | (uint64_t)id};
  int result = epoll_ctl(self->epoll_fd, EPOLL_CTL_ADD, self->listeners[id].fd, &event);
  return result == 0 ? 0 : -errno;
}

static void unwatch(engine *self, int id) {
  epoll_ctl(self->epoll_fd, EPOLL_CTL_DEL, self->listeners[id].fd, NULL);
}

int listener_open(engine *self, int id, int fd, int32_t linger_ms) {
  if (id < 0 || id >= LISTENERS_MAX) return -EINVAL;
  if (self->listeners[id].fd >= 0) return -EBUSY;
  self->listeners[id] = (listener){.fd = fd, .linger_ms = linger_ms};
  int error = watch(self, id);
  if (error) self->listeners[id].fd = -1;
  return error;
}

int listener_close(engine *self, int id) {
  if (id < 0 || id >= LISTENERS_MAX || self->listeners[id].fd < 0) return -EINVAL;
  if (self->listeners[id].paused) {
    self->listeners_paused--;
  } else {
    unwatch(self, id);
  }
  self->listeners[id].fd = -1;
  return 0;
}

/* Out of descriptors or memory: level-triggered readiness would spin, so rest. */
static void pause_accepting(engine *self, int id) {
  listener *from = &self->listeners[id];
  unwatch(self, id);
  from->paused = true;
  from->resume_at = self->now + ACCEPT_PAUSE_MS;
  self->listeners_paused++;
}

void listener_tick(engine *self) {
  for (int id = 0; self->listeners_paused > 0 && id < LISTENERS_MAX; id++) {
    listener *from = &self->listeners[id];
    if (from->fd < 0 || !from->paused || self->now < from->resume_at) continue;
    if (watch(self, id) != 0) continue;
    from->paused = false;
    self->listeners_paused--;
  }
}

static void reject(engine *self, int fd) {
  self->memory.totals[TOTAL_REJECTED]++;
  socket_make_reset(fd);
  close(fd);
}

static void admit(engine *self, int id, int fd, const socket_address *peer) {
  if (!admission_enter(&self->admission, id)) {
    reject(self, fd);
    return;
  }
  int index = engine_add(self, fd, SLOT_OPEN, (uint8_t)id, peer);
  if (index < 0) {
    admission_leave(&self->admission, id);
    reject(self, fd);
    return;
  }
  if (self->admission.table) self->slots[index].flags |= FLAG_COUNTED;
  self->slots[index].linger_ms = self->listeners[id].linger_ms;
  self->memory.totals[TOTAL_ACCEPTED]++;
  engine_emit(self, INPUT_ACCEPT, index, id, 0);
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

void listener_accept(engine *self, int id) {
  listener *from = &self->listeners[id];
  /* Half of the records are kept for those who are here already. */
  uint32_t reserve = self->memory.input_records_max / 2;
  for (int i = 0; i < ACCEPTS_PER_ROUND && from->fd >= 0 && engine_has_room(self, reserve); i++) {
    socket_address peer = {.length = sizeof peer.v6};
    int fd = accept4(from->fd, &peer.any, &peer.length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      admit(self, id, fd, &peer);
      continue;
    }
    int error = errno;
    int kind = sort_accept_error(error);
    if (kind == NOTHING_LEFT) return;
    self->memory.totals[TOTAL_ACCEPT_ERRORS]++;
    if (kind == TRY_NEXT) continue;
    pause_accepting(self, id);
    engine_emit(self, INPUT_ACCEPT_ERROR, id, error, 0);
    return;
  }
}
