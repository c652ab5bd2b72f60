/* TLS as a stream layer (../stream.h), by the OpenSSL that Node itself is made of: an addon of its
 * own, so that a Node without those symbols loses TLS only. API of OpenSSL 3.0.
 *
 * context.c: what connections are secured by, made of certificates and rules. selection.c: which
 * certificate (SNI) and protocol (ALPN) a client gets. tickets.c: keys that processes share.
 * wire.c: OpenSSL's bytes from and to the engine. connection.c: one of them. addon.c: all N-API. */
#ifndef HEADRACE_TLS_H
#define HEADRACE_TLS_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../stream.h"
#include "tickets.h"

/* What is wrong with options, for people. Never holds a secret. */
#define TLS_ERROR_BYTES 512
typedef char tls_error[TLS_ERROR_BYTES];

typedef struct {
  const char *chain, *key; /* PEM */
  const char **names;
  uint32_t names_count;
} tls_certificate;

typedef enum { VERIFY_NONE, VERIFY_OPTIONAL, VERIFY_REQUIRED } tls_verify;

typedef struct {
  bool server;
  tls_certificate *certificates;
  uint32_t certificates_count;
  const char *ca; /* PEM */
  tls_verify verify;
  const char **alpn;
  uint32_t alpn_count;
  int min_version;
  const char *ciphers, *ciphersuites; /* "": the defaults */
  const char *session_context;
  tickets *tickets; /* NULL: OpenSSL's own keys */
  int key_log_fd;   /* -1: none */
} tls_options;

/* A name and the certificate it is for. */
typedef struct {
  char *name;
  uint32_t variant;
} tls_name;

typedef struct {
  stream_source source; /* first: the engine sees no more than this */
  int references;       /* the handle's, and one of each connection */
  bool server;
  tls_verify verify;
  SSL_CTX **variants; /* one per certificate, else alike */
  uint32_t variants_count;
  tls_name *names; /* sorted */
  uint32_t names_count;
  uint8_t *alpn; /* as on the wire: each with its length in front */
  uint32_t alpn_length;
  tickets *tickets;
  int key_log_fd;
} tls_context;

/* ---- context.c ---- */

/* NULL, and what is wrong in `error`. */
tls_context *context_open(const tls_options *options, tls_error error);
void context_hold(tls_context *self);
void context_release(tls_context *self);
/* That of a connection. */
tls_context *context_of(const SSL *ssl);

/* ---- selection.c ---- */

/* Sorts what is in `names`; of two that are the same the first stays. */
void selection_sort(tls_context *self);
/* Callbacks of OpenSSL; `data` is the context. */
int selection_server_name(SSL *ssl, int *alert, void *data);
int selection_protocol(SSL *ssl, const unsigned char **chosen, unsigned char *chosen_length,
                       const unsigned char *offered, unsigned int offered_length, void *data);

/* ---- wire.c ---- */

/* What OpenSSL may read now. */
typedef struct {
  const uint8_t *bytes;
  uint32_t left;
} wire_feed;

/* Once per process. False without memory. */
bool wire_open(void);
/* Reads from `feed`, which must outlive it. NULL without memory. */
BIO *wire_create(wire_feed *feed);
/* Forgets what was written. */
void wire_clear(void);
/* What OpenSSL wrote since then, on whatever connection. */
const uint8_t *wire_written(uint32_t *length);

/* ---- connection.c ---- */

int connection_open(stream_source *source, const stream_options *options, stream **opened);

#endif
