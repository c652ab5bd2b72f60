/* Connections with a stream layer: what conn.c does with a socket's bytes, with the layer between.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "engine.h"

/* What one turn takes from the socket: with what the layer holds it fits a share of the arena. */
#define LAYER_SHARE (RECEIVE_SHARE - STREAM_HELD)
/* Parts are joined up to this: the most that one TLS record holds. */
#define RECORD_BYTES (16 * 1024)
/* A peer may have a layer answer by itself (key updates, refused renegotiations). One that never
 * reads the answers would grow the buffer of unsent bytes without end. */
#define OWED_MOST (16 * 1024)

static const char OWED_ERROR[] = "the peer asks for answers and does not read them";

/* Sends what the layer's last call left, made of `plain` bytes that JavaScript has counted as
 * unsent. What a connection counts as sent is plaintext. False when the connection failed. */
static bool carry(engine *self, slot *conn, uint32_t plain) {
  stream *layer = conn->stream;
  int32_t index = engine_index(self, conn);
  int32_t excess = (int32_t)layer->output_length - (int32_t)plain;
  self->memory.unsent[index] += excess;
  self->memory.counters[index * COUNTER_WORDS + COUNTER_SENT] -= excess;
  if (layer->output_length == 0) return true;
  struct iovec part = {(void *)layer->output, layer->output_length};
  layer->output_length = 0;
  return conn_transmit(self, conn, &part, 1);
}

/* ---- sending ---- */

static bool encrypt(engine *self, slot *conn, const uint8_t *bytes, uint32_t length) {
  if (!conn->stream->ops->send(conn->stream, bytes, length)) {
    conn_fail(self, conn, EPROTO);
    return false;
  }
  return carry(self, conn, length);
}

bool layer_send(engine *self, slot *conn, const struct iovec *parts, int count) {
  static uint8_t joined[RECORD_BYTES];
  uint32_t held = 0;
  for (int i = 0; i < count; i++) {
    const uint8_t *bytes = parts[i].iov_base;
    size_t left = parts[i].iov_len;
    while (left > 0) {
      size_t length = left;
      if (held == 0 && (i == count - 1 || left >= RECORD_BYTES)) {
        if (i < count - 1) length -= length % RECORD_BYTES;
        if (length > STREAM_BATCH) length = STREAM_BATCH;
        if (!encrypt(self, conn, bytes, (uint32_t)length)) return false;
      } else {
        if (length > RECORD_BYTES - held) length = RECORD_BYTES - held;
        memcpy(joined + held, bytes, length);
        held += (uint32_t)length;
        if (held == RECORD_BYTES) {
          if (!encrypt(self, conn, joined, held)) return false;
          held = 0;
        }
      }
      bytes += length;
      left -= length;
    }
  }
  return held == 0 || encrypt(self, conn, joined, held);
}

void layer_finish(engine *self, slot *conn) {
  stream *layer = conn->stream;
  if (layer->finished || layer->failed) return;
  layer->finished = true;
  layer->ops->finish(layer);
  carry(self, conn, 0);
}

/* ---- receiving ---- */

/* What JavaScript and the deadlines look at begins now. */
static void begin_counting(engine *self, slot *conn) {
  double *counters = &self->memory.counters[engine_index(self, conn) * COUNTER_WORDS];
  counters[COUNTER_RECEIVED] = 0;
  counters[COUNTER_SENT] = 0 - (double)self->memory.unsent[engine_index(self, conn)];
  counters[COUNTER_RECEIVED_AT] = counters[COUNTER_PROGRESS_AT] = self->now;
}

/* The layer failed. Its last words (an alert) are on their way: the descriptor stays until the slot
 * is closed, because closing it with unread input could overtake them. */
static void break_off(engine *self, slot *conn) {
  if (conn->unsent_to > conn->unsent_from) {
    conn_fail(self, conn, EPROTO);
    return;
  }
  shutdown(conn->fd, SHUT_WR);
  conn->flags |= FLAG_FINISHED;
  conn->state = SLOT_DEAD;
  conn->error = EPROTO;
  self->memory.unsent[engine_index(self, conn)] = 0;
  engine_enqueue(self, conn);
}

void layer_linger(engine *self, slot *conn, double linger_ms) {
  conn->state = SLOT_CLOSING;
  conn->close_ms = 0;
  conn->close_end = self->now;
  engine_watch_closing(self, conn, self->now + linger_ms);
  engine_enqueue(self, conn);
}

/* Reports what the layer made of `length` bytes of the peer's. */
static void digest(engine *self, slot *conn, const uint8_t *bytes, uint32_t length) {
  stream *layer = conn->stream;
  int32_t index = engine_index(self, conn);
  bool was_secured = layer->secured;
  uint32_t plain = layer->ops->receive(layer, bytes, length, self->memory.input + self->input_used,
                                       RECEIVE_SHARE);
  if (was_secured && layer->output_length > 0) {
    if (conn->unsent_to == conn->unsent_from) layer->owed = 0;
    layer->owed += layer->output_length;
    if (layer->owed > OWED_MOST && !layer->failed) {
      layer->failed = true;
      layer->error = OWED_ERROR;
    }
  }
  if (layer->secured && !was_secured) {
    begin_counting(self, conn);
    engine_emit(self, INPUT_SECURED, index, 0, 0);
  }
  if (plain > 0) {
    engine_emit(self, INPUT_DATA, index, (int32_t)self->input_used, (int32_t)plain);
    self->input_used += plain;
    double *counters = &self->memory.counters[index * COUNTER_WORDS];
    counters[COUNTER_RECEIVED] += plain;
    counters[COUNTER_RECEIVED_AT] = self->now;
  }
  if (!carry(self, conn, 0)) return;
  if (layer->failed) {
    break_off(self, conn);
  } else if (layer->ended) {
    conn->flags |= FLAG_ENDED;
    conn->flags &= (uint16_t)~FLAG_READABLE;
    engine_emit(self, INPUT_END, index, 0, 0);
  }
}

/* What was read before the layer was there; nothing, to begin with, is a turn of its own. */
static void take_early(engine *self, slot *conn) {
  stream *layer = conn->stream;
  uint32_t from = layer->early_from, length = layer->early_to - from;
  if (length > LAYER_SHARE) length = LAYER_SHARE;
  layer->begun = true;
  layer->early_from += length;
  engine_enqueue(self, conn);
  digest(self, conn, layer->early + from, length);
  if (layer->early_from < layer->early_to) return;
  free(layer->early);
  layer->early = NULL;
}

void layer_receive(engine *self, slot *conn) {
  static uint8_t raw[LAYER_SHARE];
  if (!conn->stream->secured) {
    if (self->handshakes_left == 0) {
      engine_enqueue(self, conn);
      return;
    }
    self->handshakes_left--;
  }
  if (!conn->stream->begun || conn->stream->early) {
    take_early(self, conn);
    return;
  }
  ssize_t received = conn_take(self, conn, raw, sizeof raw);
  if (received > 0) digest(self, conn, raw, (uint32_t)received);
}

/* ---- beginning and ending ---- */

int engine_secure(engine *self, uint32_t index, uint32_t generation, stream *layer) {
  slot *conn = engine_slot(self, index, generation);
  if (!conn || conn->state != SLOT_OPEN) return -EBADF;
  if (conn->stream) return -EALREADY;
  conn->stream = layer;
  conn->flags |= FLAG_READABLE;
  engine_enqueue(self, conn);
  return 0;
}

void layer_free(slot *conn) {
  free(conn->stream->early);
  conn->stream->ops->free(conn->stream);
  conn->stream = NULL;
}
