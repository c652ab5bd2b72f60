#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "engine.h"

/* Parts joined in one sendmsg. */
#define PARTS_MAX 64
/* A buffer of unsent bytes shrinks when three quarters of it are sent, down to this. */
#define SHRINK_BYTES (64 * 1024)
/* What a closing connection still receives is read and dropped in pieces of this size. */
#define DISCARD_BYTES (16 * 1024)
/* A closing connection that makes progress may take this many times its deadline, no more. */
#define CLOSE_EXTENSIONS 10

static int32_t *unsent_column(engine *self, slot *conn) {
  return &self->memory.unsent[engine_index(self, conn)];
}

static bool has_unsent(const slot *conn) {
  return conn->unsent_to > conn->unsent_from;
}

/* The buffer is `size` bytes large from now on. */
static void count_buffer(engine *self, slot *conn, uint32_t size) {
  self->memory.totals[TOTAL_BYTES_HELD_OUT] += (double)size - conn->unsent_size;
  conn->unsent_size = size;
}

void conn_drop_unsent(engine *self, slot *conn) {
  free(conn->unsent);
  conn->unsent = NULL;
  conn->unsent_from = conn->unsent_to = 0;
  count_buffer(self, conn, 0);
}

/* The socket failed: the descriptor goes at once, the slot stays JavaScript's until it lets go, and
 * the error is reported in the next round (a flush has no input records to write). */
void conn_fail(engine *self, slot *conn, int error) {
  if (conn->state == SLOT_CLOSING) {
    engine_free(self, conn);
    return;
  }
  epoll_ctl(self->epoll_fd, EPOLL_CTL_DEL, conn->fd, NULL);
  close(conn->fd);
  conn->fd = -1;
  conn->state = SLOT_DEAD;
  conn->error = error;
  conn_drop_unsent(self, conn);
  *unsent_column(self, conn) = 0;
  engine_enqueue(self, conn);
}

static int socket_error(int fd) {
  int error = 0;
  socklen_t length = sizeof error;
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) return errno;
  return error;
}

/* ---- sending ---- */

/* Keeps a copy of what the kernel did not take. How much one connection may hold is JavaScript's
 * decision, made before the bytes come here. */
static bool keep_unsent(engine *self, slot *conn, const uint8_t *bytes, uint32_t length) {
  uint32_t held = conn->unsent_to - conn->unsent_from;
  if (conn->unsent_size - conn->unsent_to < length) {
    uint64_t size = (uint64_t)held + length;
    /* Moved to the front only when at least half is free then: else a slow reader of a full buffer
     * would have all of it moved for every few bytes that it takes. */
    if (size <= conn->unsent_size / 2) {
      memmove(conn->unsent, conn->unsent + conn->unsent_from, held);
    } else {
      if (size > INT32_MAX) return false;
      if (size < 2ull * conn->unsent_size) size = 2ull * conn->unsent_size;
      if (size < 4096) size = 4096;
      if (size > INT32_MAX) size = INT32_MAX;
      uint8_t *grown = malloc(size);
      if (!grown) return false;
      if (held > 0) memcpy(grown, conn->unsent + conn->unsent_from, held);
      free(conn->unsent);
      conn->unsent = grown;
      count_buffer(self, conn, (uint32_t)size);
    }
    conn->unsent_from = 0;
    conn->unsent_to = held;
  }
  memcpy(conn->unsent + conn->unsent_to, bytes, length);
  conn->unsent_to += length;
  return true;
}

static void drop_sent(engine *self, slot *conn, uint32_t count) {
  conn->unsent_from += count;
  if (!has_unsent(conn)) {
    conn_drop_unsent(self, conn);
    return;
  }
  /* Else a peer that leaves a byte unread would keep all of it. */
  uint32_t held = conn->unsent_to - conn->unsent_from;
  if (conn->unsent_size <= SHRINK_BYTES || held > conn->unsent_size / 4) return;
  uint32_t size = conn->unsent_size / 2;
  memmove(conn->unsent, conn->unsent + conn->unsent_from, held);
  conn->unsent_from = 0;
  conn->unsent_to = held;
  uint8_t *shrunk = realloc(conn->unsent, size);
  if (!shrunk) return;
  conn->unsent = shrunk;
  count_buffer(self, conn, size);
}

/* Watches for writability from now on. Written only once the kernel has refused: most connections
 * never need it. The order is safe: the edge is checked again when the watch is changed. */
static void arm_write(engine *self, slot *conn) {
  if (conn->flags & FLAG_WRITE_ARMED) return;
  struct epoll_event event = {.events = WATCHED | EPOLLOUT,
                              .data.u64 = engine_event_data(self, conn)};
  epoll_ctl(self->epoll_fd, EPOLL_CTL_MOD, conn->fd, &event);
  conn->flags |= FLAG_WRITE_ARMED;
}

/* Counts what the kernel took. */
static void progress(engine *self, slot *conn, uint32_t count) {
  double *counters = &self->memory.counters[engine_index(self, conn) * COUNTER_WORDS];
  counters[COUNTER_SENT] += count;
  counters[COUNTER_PROGRESS_AT] = self->now;
  *unsent_column(self, conn) -= (int32_t)count;
  self->memory.totals[TOTAL_BYTES_SENT] += count;
}

/* One system call: bytes taken, or -errno. */
static ssize_t send_parts(engine *self, slot *conn, struct iovec *parts, int count) {
  ssize_t sent;
  self->memory.totals[TOTAL_SENDS]++;
  do {
    if (count == 1) {
      sent = send(conn->fd, parts->iov_base, parts->iov_len, MSG_NOSIGNAL);
    } else {
      struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)count};
      sent = sendmsg(conn->fd, &message, MSG_NOSIGNAL);
    }
  } while (sent < 0 && errno == EINTR);
  return sent < 0 ? -errno : sent;
}

bool conn_transmit(engine *self, slot *conn, struct iovec *parts, int count) {
  ssize_t sent = 0;
  bool waiting = has_unsent(conn);
  if (!waiting && conn->state != SLOT_CONNECTING) {
    sent = send_parts(self, conn, parts, count);
    if (sent < 0 && sent != -EAGAIN) {
      conn_fail(self, conn, (int)-sent);
      return false;
    }
    /* Also with nothing sent: the clock of a stall begins at the first refusal. */
    if (sent < 0) sent = 0;
    progress(self, conn, (uint32_t)sent);
  }
  for (int i = 0; i < count; i++) {
    size_t taken = (size_t)sent < parts[i].iov_len ? (size_t)sent : parts[i].iov_len;
    sent -= (ssize_t)taken;
    if (taken == parts[i].iov_len) continue;
    if (!keep_unsent(self, conn, (uint8_t *)parts[i].iov_base + taken,
                     (uint32_t)(parts[i].iov_len - taken))) {
      conn_fail(self, conn, ENOMEM);
      return false;
    }
  }
  if (has_unsent(conn)) {
    arm_write(self, conn);
    if (!waiting && conn->state == SLOT_OPEN) {
      conn->flags |= FLAG_BLOCKED;
      engine_enqueue(self, conn);
    }
  }
  return true;
}

/* Sends what JavaScript gave. False when the connection failed. */
static bool send_or_keep(engine *self, slot *conn, struct iovec *parts, int count) {
  return conn->stream ? layer_send(self, conn, parts, count)
                      : conn_transmit(self, conn, parts, count);
}

/* The kernel takes bytes again. False when the connection failed. */
static bool send_unsent(engine *self, slot *conn) {
  while (has_unsent(conn)) {
    struct iovec part = {conn->unsent + conn->unsent_from, conn->unsent_to - conn->unsent_from};
    ssize_t sent = send_parts(self, conn, &part, 1);
    if (sent == -EAGAIN) return true;
    if (sent < 0) {
      conn_fail(self, conn, (int)-sent);
      return false;
    }
    progress(self, conn, (uint32_t)sent);
    drop_sent(self, conn, (uint32_t)sent);
  }
  return true;
}

static void finish(engine *self, slot *conn) {
  if (!(conn->flags & FLAG_FINISH) || (conn->flags & FLAG_FINISHED)) return;
  if (conn->stream) layer_finish(self, conn);
  if (conn->state == SLOT_DEAD) return;
  if (has_unsent(conn) || conn->state == SLOT_CONNECTING) return;
  conn->flags |= FLAG_FINISHED;
  if (shutdown(conn->fd, SHUT_WR) != 0 && errno != ENOTCONN) conn_fail(self, conn, errno);
}

/* Below the mark JavaScript asked about? Then let the next round report it. */
static void check_mark(engine *self, slot *conn) {
  if (*unsent_column(self, conn) < conn->notify_below) engine_enqueue(self, conn);
}

/* ---- closing ---- */

void conn_reset(engine *self, slot *conn) {
  if (conn->fd >= 0) socket_make_reset(conn->fd);
  engine_free(self, conn);
}

static double linger_ms(const slot *conn) {
  return conn->linger_ms < 0 ? LINGER_MS : conn->linger_ms;
}

/* Closing politely: send what is unsent, then FIN, then wait for the peer's FIN and drop what it
 * still sends. Closing with unread input would make the kernel send RST, which can overtake the
 * last reply on its way (RFC 9293 section 3.6.1). */
static void begin_close(engine *self, slot *conn, int32_t flush_ms) {
  if (conn->stream && conn->state == SLOT_OPEN) layer_finish(self, conn);
  if (conn->state == SLOT_DEAD && conn->fd >= 0) {
    layer_linger(self, conn, linger_ms(conn));
    return;
  }
  if (conn->state != SLOT_OPEN || (!has_unsent(conn) && (conn->flags & FLAG_ENDED))) {
    engine_free(self, conn);
    return;
  }
  conn->state = SLOT_CLOSING;
  conn->flags |= FLAG_FINISH;
  conn->flags &= (uint16_t)~FLAG_PAUSED;
  conn->close_ms = flush_ms;
  conn->close_end = self->now + (double)flush_ms * CLOSE_EXTENSIONS;
  engine_watch_closing(self, conn, self->now + (has_unsent(conn) ? flush_ms : linger_ms(conn)));
  finish(self, conn);
  if (conn->state == SLOT_CLOSING && (conn->flags & FLAG_READABLE)) engine_enqueue(self, conn);
}

/* Its time is up, unless the kernel still gets rid of what it has taken: then the peer reads, only
 * slowly. */
void conn_close_now(engine *self, slot *conn) {
  int queued = 0;
  if (!has_unsent(conn) && self->now < conn->close_end && ioctl(conn->fd, SIOCOUTQ, &queued) == 0 &&
      queued > 0 && (conn->kernel_queue == 0 || queued < conn->kernel_queue)) {
    conn->kernel_queue = queued;
    conn->close_at = self->now + linger_ms(conn);
    return;
  }
  if (has_unsent(conn) || conn->linger_ms >= 0) socket_make_reset(conn->fd);
  engine_free(self, conn);
}

/* Reads and drops what a closing connection still receives, one share a round. */
static void discard(engine *self, slot *conn) {
  uint8_t bytes[DISCARD_BYTES];
  for (size_t total = 0; total < RECEIVE_SHARE;) {
    ssize_t received = recv(conn->fd, bytes, sizeof bytes, 0);
    if (received < 0 && errno == EINTR) continue;
    if (received < 0 && errno == EAGAIN) {
      conn->flags &= (uint16_t)~FLAG_READABLE;
      return;
    }
    if (received < 0) {
      engine_free(self, conn);
      return;
    }
    if (received == 0) {
      conn->flags |= FLAG_ENDED;
      conn->flags &= (uint16_t)~FLAG_READABLE;
      if (conn->flags & FLAG_FINISHED) engine_free(self, conn);
      return;
    }
    total += (size_t)received;
  }
  engine_enqueue(self, conn);
}

static void proceed_closing(engine *self, slot *conn) {
  if ((conn->flags & FLAG_WRITABLE) && has_unsent(conn)) {
    conn->flags &= (uint16_t)~FLAG_WRITABLE;
    uint32_t before = conn->unsent_from;
    if (!send_unsent(self, conn)) return;
    /* The deadline is for progress, as it is for an open connection; close_end bounds it all. */
    if (conn->unsent_from != before && self->now + conn->close_ms < conn->close_end)
      conn->close_at = self->now + conn->close_ms;
  }
  if (!has_unsent(conn) && !(conn->flags & FLAG_FINISHED)) {
    if (conn->flags & FLAG_ENDED) {
      engine_free(self, conn);
      return;
    }
    conn->close_at = self->now + linger_ms(conn);
    finish(self, conn);
    if (conn->state != SLOT_CLOSING) return;
  }
  if (conn->flags & FLAG_READABLE) discard(self, conn);
}

/* ---- receiving ---- */

void conn_pause(slot *conn) {
  conn->flags |= FLAG_PAUSED;
}

int conn_unread(const slot *conn) {
  int count = 0;
  if (conn->fd < 0) return 0;
  return ioctl(conn->fd, FIONREAD, &count) == 0 ? count : -errno;
}

int conn_timing(const slot *conn, uint32_t *rtt_us, uint32_t *retransmits) {
  struct tcp_info info;
  socklen_t length = sizeof info;
  if (conn->fd < 0) return -EBADF;
  if (getsockopt(conn->fd, IPPROTO_TCP, TCP_INFO, &info, &length) != 0) return -errno;
  *rtt_us = info.tcpi_rtt;
  *retransmits = info.tcpi_total_retrans;
  return 0;
}

int conn_peek(const slot *conn) {
  uint8_t byte;
  if (conn->state != SLOT_OPEN) return -ENOTCONN;
  ssize_t seen = recv(conn->fd, &byte, sizeof byte, MSG_PEEK | MSG_DONTWAIT);
  if (seen < 0) return errno == EAGAIN || errno == EINTR ? PEEKED_QUIET : -errno;
  return seen == 0 ? PEEKED_END : PEEKED_BYTES;
}

void conn_resume(engine *self, slot *conn) {
  conn->flags &= (uint16_t)~FLAG_PAUSED;
  if (conn->flags & FLAG_READABLE) engine_enqueue(self, conn);
}

/* A short read means the socket is drained (epoll(7), on edge-triggered streams), unless a hang-up
 * was announced, behind which stands the end, or urgent data, at whose mark recv() stops short
 * (tcp(7)). */
ssize_t conn_take(engine *self, slot *conn, uint8_t *into, size_t size) {
  ssize_t received;
  self->memory.totals[TOTAL_RECEIVES]++;
  do
    received = recv(conn->fd, into, size, 0);
  while (received < 0 && errno == EINTR);
  if (received > 0) {
    self->memory.totals[TOTAL_BYTES_RECEIVED] += (double)received;
    if ((size_t)received < size && !(conn->flags & FLAG_EXHAUST)) {
      conn->flags &= (uint16_t)~FLAG_READABLE;
    } else {
      engine_enqueue(self, conn);
    }
  } else if (received == 0) {
    conn->flags |= FLAG_ENDED;
    conn->flags &= (uint16_t)~FLAG_READABLE;
    engine_emit(self, INPUT_END, engine_index(self, conn), 0, 0);
  } else if (errno == EAGAIN) {
    conn->flags &= (uint16_t) ~(FLAG_READABLE | FLAG_EXHAUST);
  } else {
    conn_fail(self, conn, errno);
  }
  return received;
}

/* Takes one share into the input arena. */
static void receive(engine *self, slot *conn) {
  ssize_t received = conn_take(self, conn, self->memory.input + self->input_used, RECEIVE_SHARE);
  if (received <= 0) return;
  int32_t index = engine_index(self, conn);
  engine_emit(self, INPUT_DATA, index, (int32_t)self->input_used, (int32_t)received);
  self->input_used += (uint32_t)received;
  double *counters = &self->memory.counters[index * COUNTER_WORDS];
  counters[COUNTER_RECEIVED] += (double)received;
  counters[COUNTER_RECEIVED_AT] = self->now;
}

static void proceed_connecting(engine *self, slot *conn) {
  conn->flags &= (uint16_t)~FLAG_WRITABLE;
  int error = socket_error(conn->fd);
  if (error) {
    conn_fail(self, conn, error);
    return;
  }
  conn->state = SLOT_OPEN;
  engine_emit(self, INPUT_CONNECTED, engine_index(self, conn), 0, 0);
  if (has_unsent(conn) && !send_unsent(self, conn)) return;
  if (has_unsent(conn)) conn->flags |= FLAG_BLOCKED;
  finish(self, conn);
}

void conn_event(engine *self, slot *conn, uint32_t events) {
  if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI))
    conn->flags |= FLAG_EXHAUST | FLAG_READABLE;
  if (events & EPOLLERR) conn->flags |= FLAG_ERROR;
  if (events & EPOLLIN) conn->flags |= FLAG_READABLE;
  if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) conn->flags |= FLAG_WRITABLE;
  engine_enqueue(self, conn);
}

void conn_proceed(engine *self, slot *conn) {
  int32_t index = engine_index(self, conn);
  bool connecting = conn->state == SLOT_CONNECTING;
  if (connecting && (conn->flags & FLAG_WRITABLE)) proceed_connecting(self, conn);
  if (conn->state == SLOT_CLOSING) {
    proceed_closing(self, conn);
    return;
  }
  if (conn->state == SLOT_OPEN && (conn->flags & FLAG_WRITABLE)) {
    conn->flags &= (uint16_t)~FLAG_WRITABLE;
    if (has_unsent(conn) && send_unsent(self, conn)) finish(self, conn);
  }
  if (conn->state == SLOT_OPEN && (conn->flags & FLAG_BLOCKED)) {
    conn->flags &= (uint16_t)~FLAG_BLOCKED;
    engine_emit(self, INPUT_BLOCKED, index, 0, 0);
  }
  if (conn->state == SLOT_OPEN && self->memory.unsent[index] < conn->notify_below) {
    conn->notify_below = 0;
    engine_emit(self, INPUT_WRITABLE, index, 0, 0);
  }
  /* A connection that is not read any more would not notice that it failed. */
  if (conn->state == SLOT_OPEN && (conn->flags & FLAG_ERROR) &&
      (conn->flags & (FLAG_PAUSED | FLAG_ENDED))) {
    int error = socket_error(conn->fd);
    conn_fail(self, conn, error ? error : ECONNRESET);
  }
  if (conn->state == SLOT_OPEN && (conn->flags & FLAG_READABLE) &&
      !(conn->flags & (FLAG_PAUSED | FLAG_ENDED))) {
    /* Who hears that it is connected may put a layer on it, before anything is read. */
    if (connecting) {
      engine_enqueue(self, conn);
    } else if (conn->stream) {
      layer_receive(self, conn);
    } else {
      receive(self, conn);
    }
  }
  if (conn->state == SLOT_DEAD && conn->error) {
    engine_emit(self, INPUT_ERROR, index, conn->error, 0);
    conn->error = 0;
  }
}

/* ---- the second pass of a flush ---- */

static bool flush_sends(engine *self, slot *conn) {
  struct iovec parts[PARTS_MAX];
  int count = 0;
  int limit = conn->flags & FLAG_ALONE ? 1 : PARTS_MAX;
  for (int32_t i = conn->first_send; i != NONE; i = self->next_send[i]) {
    const int32_t *record = &self->memory.output_records[i * OUTPUT_WORDS];
    uint32_t offset = (uint32_t)record[3], length = (uint32_t)record[4];
    if (offset > self->memory.output_bytes || length > self->memory.output_bytes - offset) continue;
    parts[count++] = (struct iovec){self->memory.output + offset, length};
    if (count < limit) continue;
    if (!send_or_keep(self, conn, parts, count)) return false;
    count = 0;
  }
  return count == 0 || send_or_keep(self, conn, parts, count);
}

void conn_flush(engine *self, slot *conn) {
  bool resetting = (conn->flags & FLAG_CLOSE) && conn->close_ms < 0;
  if (conn->state == SLOT_DEAD) {
    *unsent_column(self, conn) = 0;
  } else if (conn->first_send != NONE && !resetting) {
    flush_sends(self, conn);
  }
  conn->first_send = NONE;
  conn->flags &= (uint16_t)~FLAG_ALONE;
  if (conn->flags & FLAG_CLOSE) {
    conn->flags &= (uint16_t)~FLAG_CLOSE;
    if (resetting) {
      conn_reset(self, conn);
    } else {
      begin_close(self, conn, conn->close_ms);
    }
    return;
  }
  if (conn->state != SLOT_OPEN) return;
  finish(self, conn);
  if (conn->state == SLOT_OPEN) check_mark(self, conn);
}

void conn_send(engine *self, slot *conn, const uint8_t *bytes, uint32_t length) {
  if (conn->state == SLOT_DEAD) {
    *unsent_column(self, conn) = 0;
    return;
  }
  struct iovec part = {(void *)bytes, length};
  if (send_or_keep(self, conn, &part, 1)) check_mark(self, conn);
}
