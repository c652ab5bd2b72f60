/* A stream layer: what stands between a connection and its socket, TLS for one. It turns the
 * socket's bytes into the connection's and back; the engine moves them, so that shares, unsent
 * bytes, deadlines and closing are the same with one and without.
 *
 * The engine knows no layer but by this header; another addon makes them (native/tls). A layer
 * belongs to its slot from engine_secure to the slot's end. All calls come from one thread. */
#ifndef HEADRACE_STREAM_H
#define HEADRACE_STREAM_H

#include <stdbool.h>
#include <stdint.h>

/* A layer may hold bytes of an unfinished record: so much more than it was given it may give. */
#define STREAM_HELD (20 * 1024)
/* The most that `send` is given at once. */
#define STREAM_BATCH (64 * 1024)

typedef struct stream stream;

/* What is known of a secured stream. Texts live as long as it; NULL: there is none. */
typedef struct {
  const char *protocol, *cipher, *server_name, *verify_error;
  const uint8_t *alpn;
  uint32_t alpn_length;
  bool resumed;
  uint8_t *certificate; /* the peer's, DER; the caller's to free() */
  uint32_t certificate_length;
} stream_facts;

typedef struct {
  /* Takes all of `bytes`, which came from the peer (none: begins), and returns how many it wrote to
   * `plain`, which has room for STREAM_HELD more than `length`. */
  uint32_t (*receive)(stream *self, const uint8_t *bytes, uint32_t length, uint8_t *plain,
                      uint32_t size);
  /* Turns at most STREAM_BATCH bytes into what is to be sent. False: it failed. */
  bool (*send)(stream *self, const uint8_t *plain, uint32_t length);
  /* Says that nothing more will be sent. */
  void (*finish)(stream *self);
  void (*describe)(stream *self, stream_facts *facts);
  /* Returns the length of what `bytes` is set to, to be free()d by the caller; 0: nothing. */
  uint32_t (*session)(stream *self, uint8_t **bytes);
  void (*free)(stream *self);
} stream_ops;

struct stream {
  const stream_ops *ops;
  /* What the last call leaves to be sent to the peer; valid until the next call of any layer. */
  const uint8_t *output;
  uint32_t output_length;
  /* Kept by the layer. Failed: `error` says why, and nothing but `free` and `describe` follows. */
  bool secured, ended, failed;
  const char *error;
  /* Kept by the engine. */
  bool begun, finished;
  uint8_t *early; /* bytes that were read before it: [early_from, early_to) are not taken yet */
  uint32_t early_from, early_to;
  uint32_t owed; /* bytes that it answered by itself while the peer did not read */
};

typedef struct {
  const char *server_name; /* "": none */
  const uint8_t *session;
  uint32_t session_length;
} stream_options;

/* Where layers come from: the first member of what the other addon's handle holds. */
typedef struct stream_source stream_source;
struct stream_source {
  uint64_t magic; /* STREAM_SOURCE; another version of this header has another */
  /* 0, -ENOMEM, or -EINVAL for options that mean nothing. */
  int (*open)(stream_source *self, const stream_options *options, stream **opened);
};
#define STREAM_SOURCE 0x6865616472616301ull

#endif
