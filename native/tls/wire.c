#include <openssl/bio.h>
#include <stdlib.h>
#include <string.h>

#include "tls.h"

/* A batch with the overhead of its records; it doubles when a handshake needs more. */
#define LEAST_BYTES (STREAM_BATCH + 4096)
/* No call of a connection writes as much: OpenSSL would have gone astray. */
#define MOST_BYTES (4 * 1024 * 1024)

/* One for all connections: whoever called OpenSSL takes what it wrote before anybody calls again.
 */
static struct {
  uint8_t *bytes;
  uint32_t used, size;
} written;

static BIO_METHOD *method;

static int on_read(BIO *bio, char *into, size_t size, size_t *taken) {
  wire_feed *feed = BIO_get_data(bio);
  BIO_clear_retry_flags(bio);
  if (feed->left == 0) {
    BIO_set_retry_read(bio);
    return 0;
  }
  *taken = size < feed->left ? size : feed->left;
  memcpy(into, feed->bytes, *taken);
  feed->bytes += *taken;
  feed->left -= (uint32_t)*taken;
  return 1;
}

static bool make_room(size_t size) {
  uint32_t wanted = written.size > 0 ? written.size : LEAST_BYTES;
  while (wanted - written.used < size && wanted < MOST_BYTES)
    wanted *= 2;
  if (wanted - written.used < size) return false;
  uint8_t *grown = realloc(written.bytes, wanted);
  if (!grown) return false;
  written.bytes = grown;
  written.size = wanted;
  return true;
}

/* Always takes everything: what the socket does not take is kept by the engine. */
static int on_write(BIO *bio, const char *bytes, size_t size, size_t *taken) {
  BIO_clear_retry_flags(bio);
  if (written.size - written.used < size && !make_room(size)) return 0;
  memcpy(written.bytes + written.used, bytes, size);
  written.used += (uint32_t)size;
  *taken = size;
  return 1;
}

static long on_control(BIO *bio, int command, long number, void *data) {
  (void)bio;
  (void)number;
  (void)data;
  return command == BIO_CTRL_FLUSH;
}

bool wire_open(void) {
  if (method) return true;
  int type = BIO_get_new_index();
  BIO_METHOD *made = type < 0 ? NULL : BIO_meth_new(type | BIO_TYPE_SOURCE_SINK, "headrace");
  if (!made) return false;
  if (!BIO_meth_set_read_ex(made, on_read) || !BIO_meth_set_write_ex(made, on_write) ||
      !BIO_meth_set_ctrl(made, on_control)) {
    BIO_meth_free(made);
    return false;
  }
  method = made;
  return true;
}

BIO *wire_create(wire_feed *feed) {
  BIO *bio = BIO_new(method);
  if (!bio) return NULL;
  BIO_set_data(bio, feed);
  BIO_set_init(bio, 1);
  return bio;
}

void wire_clear(void) {
  written.used = 0;
}

const uint8_t *wire_written(uint32_t *length) {
  *length = written.used;
  return written.bytes;
}
