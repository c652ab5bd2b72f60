#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tls.h"

typedef struct {
  stream base; /* first */
  SSL *ssl;
  tls_context *context;
  wire_feed feed;
  char error[160]; /* what base.error points to */
} connection;

/* ---- failing ---- */

/* The first of OpenSSL's errors is the cause; those after it say what failed because of it. */
static void fail(connection *self) {
  unsigned long code = ERR_peek_error();
  const char *reason = code ? ERR_reason_error_string(code) : NULL;
  if (ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED) {
    const char *detail = X509_verify_cert_error_string(SSL_get_verify_result(self->ssl));
    snprintf(self->error, sizeof self->error, "%s: %s", reason, detail);
  } else {
    snprintf(self->error, sizeof self->error, "%s", reason ? reason : "OpenSSL gave no reason");
  }
  ERR_clear_error();
  self->base.failed = true;
  self->base.error = self->error;
}

static void fail_with(connection *self, const char *reason) {
  snprintf(self->error, sizeof self->error, "%s", reason);
  self->base.failed = true;
  self->base.error = self->error;
}

/* Node leaves errors of its own in the queue, which SSL_get_error would take for this one's. */
static void begin(void) {
  if (ERR_peek_error()) ERR_clear_error();
  wire_clear();
}

static void end(connection *self) {
  self->base.output = wire_written(&self->base.output_length);
}

/* ---- receiving ---- */

static bool handshake(connection *self) {
  int result = SSL_do_handshake(self->ssl);
  if (result == 1) {
    self->base.secured = true;
  } else if (SSL_get_error(self->ssl, result) != SSL_ERROR_WANT_READ) {
    fail(self);
  }
  return self->base.secured;
}

static uint32_t decrypt(connection *self, uint8_t *plain, uint32_t size) {
  size_t written = 0;
  /* Without the second condition there would be one more call per message, to hear that it was the
   * last. */
  while (self->feed.left > 0 || SSL_pending(self->ssl) > 0) {
    size_t read;
    if (SSL_read_ex(self->ssl, plain + written, size - written, &read)) {
      written += read;
      continue;
    }
    int error = SSL_get_error(self->ssl, 0);
    if (error == SSL_ERROR_WANT_READ) {
      /* All is taken: the rest of the record is still to come. */
      if (self->feed.left > 0) fail_with(self, "OpenSSL left bytes unread");
    } else if (error == SSL_ERROR_ZERO_RETURN) {
      self->base.ended = true;
    } else {
      fail(self);
    }
    break;
  }
  return (uint32_t)written;
}

static uint32_t receive(stream *base, const uint8_t *bytes, uint32_t length, uint8_t *plain,
                        uint32_t size) {
  connection *self = (connection *)base;
  uint32_t written = 0;
  begin();
  self->feed = (wire_feed){bytes, length};
  if (base->secured || handshake(self)) written = decrypt(self, plain, size);
  self->feed = (wire_feed){NULL, 0};
  end(self);
  return written;
}

/* ---- sending ---- */

static bool encrypt(stream *base, const uint8_t *plain, uint32_t length) {
  connection *self = (connection *)base;
  size_t taken;
  begin();
  if (!base->secured) {
    fail_with(self, "bytes were sent before the handshake was through");
  } else if (!SSL_write_ex(self->ssl, plain, length, &taken)) {
    fail(self);
  }
  end(self);
  return !base->failed;
}

static void finish(stream *base) {
  connection *self = (connection *)base;
  begin();
  /* In the midst of a handshake OpenSSL refuses. */
  if (base->secured) SSL_shutdown(self->ssl);
  ERR_clear_error();
  end(self);
}

/* ---- facts ---- */

static void describe(stream *base, stream_facts *facts) {
  connection *self = (connection *)base;
  facts->protocol = SSL_get_version(self->ssl);
  facts->cipher = SSL_get_cipher_name(self->ssl);
  facts->server_name = SSL_get_servername(self->ssl, TLSEXT_NAMETYPE_host_name);
  SSL_get0_alpn_selected(self->ssl, &facts->alpn, &facts->alpn_length);
  facts->resumed = SSL_session_reused(self->ssl);
  X509 *certificate = SSL_get0_peer_certificate(self->ssl);
  if (!certificate) return;
  long verified = SSL_get_verify_result(self->ssl);
  if (self->context->verify != VERIFY_NONE && verified != X509_V_OK)
    facts->verify_error = X509_verify_cert_error_string(verified);
  int length = i2d_X509(certificate, NULL);
  uint8_t *at = length > 0 ? malloc((size_t)length) : NULL;
  if (!at) return;
  facts->certificate = at;
  facts->certificate_length = (uint32_t)length;
  i2d_X509(certificate, &at);
}

static uint32_t session(stream *base, uint8_t **bytes) {
  connection *self = (connection *)base;
  SSL_SESSION *held = SSL_get_session(self->ssl);
  if (self->context->server || !held || !SSL_SESSION_is_resumable(held)) return 0;
  int length = i2d_SSL_SESSION(held, NULL);
  uint8_t *at = length > 0 ? malloc((size_t)length) : NULL;
  if (!at) return 0;
  *bytes = at;
  i2d_SSL_SESSION(held, &at);
  return (uint32_t)length;
}

/* ---- beginning and ending ---- */

static void release(stream *base) {
  connection *self = (connection *)base;
  SSL_free(self->ssl);
  context_release(self->context);
  free(self);
}

static const stream_ops OPS = {
    .receive = receive,
    .send = encrypt,
    .finish = finish,
    .describe = describe,
    .session = session,
    .free = release,
};

/* Whose certificate is to be believed. An address is no name: it is not asked for (RFC 6066). */
static bool expect_server(SSL *ssl, const char *name) {
  uint8_t address[16];
  if (inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1)
    return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1;
  SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  return SSL_set_tlsext_host_name(ssl, name) == 1 && SSL_set1_host(ssl, name) == 1;
}

/* A session that began without a believed certificate does not stand in for one. */
static bool resume(connection *self, const stream_options *options) {
  const unsigned char *at = options->session;
  SSL_SESSION *held = d2i_SSL_SESSION(NULL, &at, options->session_length);
  bool known = held && SSL_set_session(self->ssl, held) == 1;
  if (known && self->context->verify == VERIFY_REQUIRED &&
      SSL_get_verify_result(self->ssl) != X509_V_OK)
    known = SSL_set_session(self->ssl, NULL) == 1;
  SSL_SESSION_free(held);
  return known;
}

static int prepare(connection *self, const stream_options *options) {
  self->ssl = SSL_new(self->context->variants[0]);
  BIO *wire = wire_create(&self->feed);
  if (!self->ssl || !wire) {
    BIO_free(wire);
    return -ENOMEM;
  }
  SSL_set_bio(self->ssl, wire, wire);
  if (self->context->server) {
    SSL_set_accept_state(self->ssl);
    return 0;
  }
  SSL_set_connect_state(self->ssl);
  if (options->server_name[0] && !expect_server(self->ssl, options->server_name)) return -EINVAL;
  if (options->session_length > 0 && !resume(self, options)) return -EINVAL;
  return 0;
}

int connection_open(stream_source *source, const stream_options *options, stream **opened) {
  connection *self = calloc(1, sizeof *self);
  if (!self) return -ENOMEM;
  self->base.ops = &OPS;
  self->context = (tls_context *)source;
  context_hold(self->context);
  int error = prepare(self, options);
  ERR_clear_error();
  if (error) {
    release(&self->base);
    return error;
  }
  *opened = &self->base;
  return 0;
}
