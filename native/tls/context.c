#include <ctype.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "tls.h"

/* Mozilla's "intermediate", without DHE: what is left of TLS 1.2 has forward secrecy and AEAD. */
#define CIPHERS                                                                                    \
  "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"                                     \
  "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"                                     \
  "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
#define CIPHERSUITES "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
/* The first is known to OpenSSL 3.5. */
#define GROUPS_POST_QUANTUM "X25519MLKEM768:X25519:P-256:P-384"
#define GROUPS "X25519:P-256:P-384"
/* Keys of tickets are kept for 36 hours and encrypt for the first twelve. */
#define SESSION_SECONDS (24 * 3600)
/* One is enough for a client that comes back; each costs a record and its encryption. */
#define TICKETS_PER_CONNECTION 1
#define SESSION_CONTEXT_BYTES 32

static bool refuse(tls_error error, const char *format, ...) {
  va_list values;
  va_start(values, format);
  vsnprintf(error, TLS_ERROR_BYTES, format, values);
  va_end(values);
  ERR_clear_error();
  return false;
}

/* OpenSSL's words for what failed last. */
static const char *reason(void) {
  const char *text = ERR_reason_error_string(ERR_peek_last_error());
  return text ? text : "OpenSSL gave no reason";
}

tls_context *context_of(const SSL *ssl) {
  return SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
}

/* ---- callbacks ---- */

/* Lets in what is not believed; the result of the verification is kept for who asks. */
static int accept_any(int verified, X509_STORE_CTX *store) {
  (void)verified;
  (void)store;
  return 1;
}

/* Without this OpenSSL would ask at the terminal. */
static int no_passphrase(char *buffer, int size, int writing, void *data) {
  (void)buffer;
  (void)size;
  (void)writing;
  (void)data;
  return -1;
}

static void on_key_log(const SSL *ssl, const char *line) {
  struct iovec parts[] = {{(void *)line, strlen(line)}, {(void *)"\n", 1}};
  /* What cannot be written is only missing from the log. */
  if (writev(context_of(ssl)->key_log_fd, parts, 2) < 0) return;
}

/* A session keeps what was found out about the client's certificate, and each resumption prolongs
 * it: once the certificate has expired, a full handshake looks at it anew. Where the status says
 * that there is no session, none is given. */
static SSL_TICKET_RETURN on_ticket(SSL *ssl, SSL_SESSION *session, const unsigned char *name,
                                   size_t name_length, SSL_TICKET_STATUS status, void *data) {
  (void)ssl;
  (void)name;
  (void)name_length;
  (void)data;
  if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW)
    return SSL_TICKET_RETURN_IGNORE_RENEW;
  X509 *certificate = SSL_SESSION_get0_peer(session);
  /* 0: a date that cannot be read. */
  if (certificate && X509_cmp_current_time(X509_get0_notAfter(certificate)) <= 0)
    return SSL_TICKET_RETURN_IGNORE_RENEW;
  return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW;
}

/* ---- certificates ---- */

static BIO *open_text(const char *text) {
  return BIO_new_mem_buf(text, -1);
}

/* The end of a PEM file is an error to OpenSSL: anything else is one to us. */
static bool at_end_of_pem(void) {
  unsigned long code = ERR_peek_last_error();
  bool end = ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE;
  if (end) ERR_clear_error();
  return end;
}

static bool use_chain(SSL_CTX *ssl, const char *pem) {
  BIO *text = open_text(pem);
  X509 *certificate = text ? PEM_read_bio_X509_AUX(text, NULL, no_passphrase, NULL) : NULL;
  bool good = certificate && SSL_CTX_use_certificate(ssl, certificate) == 1;
  X509_free(certificate);
  while (good && (certificate = PEM_read_bio_X509(text, NULL, no_passphrase, NULL))) {
    good = SSL_CTX_add0_chain_cert(ssl, certificate) == 1;
    if (!good) X509_free(certificate);
  }
  if (good) good = at_end_of_pem();
  BIO_free(text);
  return good;
}

static bool use_key(SSL_CTX *ssl, const char *pem) {
  BIO *text = open_text(pem);
  EVP_PKEY *key = text ? PEM_read_bio_PrivateKey(text, NULL, no_passphrase, NULL) : NULL;
  bool good = key && SSL_CTX_use_PrivateKey(ssl, key) == 1;
  EVP_PKEY_free(key);
  BIO_free(text);
  return good;
}

static bool use_certificate(SSL_CTX *ssl, const tls_certificate *certificate, uint32_t number,
                            tls_error error) {
  const char *name = certificate->names_count > 0 ? certificate->names[0] : "no name";
  if (!use_chain(ssl, certificate->chain))
    return refuse(error, "certificate %u (%s): %s", number + 1, name, reason());
  if (!use_key(ssl, certificate->key))
    return refuse(error, "key of certificate %u (%s): %s", number + 1, name, reason());
  if (SSL_CTX_check_private_key(ssl) != 1)
    return refuse(error, "key of certificate %u (%s): %s", number + 1, name, reason());
  return true;
}

/* Whose certificates are believed; a server also names them to its clients. */
static bool use_ca(SSL_CTX *ssl, const tls_options *options, tls_error error) {
  if (!options->ca[0]) return true;
  BIO *text = open_text(options->ca);
  X509_STORE *store = SSL_CTX_get_cert_store(ssl);
  X509 *certificate;
  int count = 0;
  bool good = text != NULL;
  while (good && (certificate = PEM_read_bio_X509_AUX(text, NULL, no_passphrase, NULL))) {
    good = X509_STORE_add_cert(store, certificate) == 1 &&
           (!options->server || SSL_CTX_add_client_CA(ssl, certificate) == 1);
    X509_free(certificate);
    count++;
  }
  if (good) good = at_end_of_pem() && count > 0;
  BIO_free(text);
  return good || refuse(error, "ca: %s", count > 0 ? reason() : "it holds no certificate");
}

/* ---- rules ---- */

static const char *ciphers_of(const tls_options *options) {
  return options->ciphers[0] ? options->ciphers : CIPHERS;
}

static const char *ciphersuites_of(const tls_options *options) {
  return options->ciphersuites[0] ? options->ciphersuites : CIPHERSUITES;
}

/* Sessions are resumed by contexts that ask the same of a client, and by no other: OpenSSL itself
 * goes on with a cipher that has been taken off the list. */
static bool set_session_context(SSL_CTX *ssl, const tls_options *options) {
  uint8_t digest[EVP_MAX_MD_SIZE];
  const char *texts[] = {options->session_context, options->ca, ciphers_of(options),
                         ciphersuites_of(options)};
  int numbers[] = {(int)options->verify, options->min_version};
  EVP_MD_CTX *hash = EVP_MD_CTX_new();
  bool good = hash && EVP_DigestInit_ex(hash, EVP_sha256(), NULL) == 1 &&
              EVP_DigestUpdate(hash, numbers, sizeof numbers) == 1;
  /* With the end of each, so that none of one can pass for another's. */
  for (size_t i = 0; good && i < sizeof texts / sizeof *texts; i++)
    good = EVP_DigestUpdate(hash, texts[i], strlen(texts[i]) + 1) == 1;
  good = good && EVP_DigestFinal_ex(hash, digest, NULL) == 1 &&
         SSL_CTX_set_session_id_context(ssl, digest, SESSION_CONTEXT_BYTES) == 1;
  EVP_MD_CTX_free(hash);
  return good;
}

static bool set_ciphers(SSL_CTX *ssl, const tls_options *options, tls_error error) {
  const char *ciphers = ciphers_of(options), *ciphersuites = ciphersuites_of(options);
  if (SSL_CTX_set_cipher_list(ssl, ciphers) != 1)
    return refuse(error, "ciphers \"%.200s\": %s", ciphers, reason());
  if (SSL_CTX_set_ciphersuites(ssl, ciphersuites) != 1)
    return refuse(error, "ciphersuites \"%.200s\": %s", ciphersuites, reason());
  if (SSL_CTX_set1_groups_list(ssl, GROUPS_POST_QUANTUM) != 1) {
    ERR_clear_error();
    if (SSL_CTX_set1_groups_list(ssl, GROUPS) != 1) return refuse(error, "groups: %s", reason());
  }
  return true;
}

static void set_verify(SSL_CTX *ssl, const tls_options *options) {
  if (options->verify == VERIFY_NONE) {
    SSL_CTX_set_verify(ssl, SSL_VERIFY_NONE, NULL);
  } else if (options->verify == VERIFY_OPTIONAL) {
    SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER, accept_any);
  } else {
    SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
  }
}

static bool set_server_rules(SSL_CTX *ssl, tls_context *self, const tls_options *options,
                             tls_error error) {
  SSL_CTX_set_tlsext_servername_callback(ssl, selection_server_name);
  SSL_CTX_set_tlsext_servername_arg(ssl, self);
  if (self->alpn_length > 0) SSL_CTX_set_alpn_select_cb(ssl, selection_protocol, self);
  if (!set_session_context(ssl, options)) return refuse(error, "sessions: %s", reason());
  if (self->tickets) SSL_CTX_set_tlsext_ticket_key_evp_cb(ssl, tickets_key);
  if (self->verify != VERIFY_NONE) SSL_CTX_set_session_ticket_cb(ssl, NULL, on_ticket, NULL);
  SSL_CTX_set_num_tickets(ssl, TICKETS_PER_CONNECTION);
  SSL_CTX_set_timeout(ssl, SESSION_SECONDS);
  return true;
}

static bool set_rules(SSL_CTX *ssl, tls_context *self, const tls_options *options,
                      tls_error error) {
  SSL_CTX_set_app_data(ssl, self);
  SSL_CTX_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_options(ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  /* Tickets are the sessions: none is kept here, whose number a client would decide. */
  SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
  if (SSL_CTX_set_min_proto_version(ssl, options->min_version) != 1 ||
      SSL_CTX_set_max_proto_version(ssl, TLS1_3_VERSION) != 1)
    return refuse(error, "versions: %s", reason());
  set_verify(ssl, options);
  if (self->key_log_fd >= 0) SSL_CTX_set_keylog_callback(ssl, on_key_log);
  if (!set_ciphers(ssl, options, error) || !use_ca(ssl, options, error)) return false;
  if (self->server) return set_server_rules(ssl, self, options, error);
  /* This one returns 0 when it is done. */
  if (self->alpn_length > 0 && SSL_CTX_set_alpn_protos(ssl, self->alpn, self->alpn_length) != 0)
    return refuse(error, "alpn: %s", reason());
  return true;
}

/* ---- names and protocols ---- */

static bool take_protocols(tls_context *self, const tls_options *options, tls_error error) {
  size_t length = 0;
  for (uint32_t i = 0; i < options->alpn_count; i++) {
    size_t own = strlen(options->alpn[i]);
    if (own == 0 || own > 255)
      return refuse(error, "alpn: \"%.40s\" has %zu bytes; allowed: 1 to 255", options->alpn[i],
                    own);
    length += 1 + own;
  }
  if (length > UINT16_MAX) return refuse(error, "alpn: %zu bytes; allowed: 65535", length);
  if (length == 0) return true;
  uint8_t *at = self->alpn = malloc(length);
  if (!at) return refuse(error, "out of memory");
  self->alpn_length = (uint32_t)length;
  for (uint32_t i = 0; i < options->alpn_count; i++) {
    size_t own = strlen(options->alpn[i]);
    *at++ = (uint8_t)own;
    memcpy(at, options->alpn[i], own);
    at += own;
  }
  return true;
}

static bool take_names(tls_context *self, const tls_options *options) {
  size_t count = 0;
  for (uint32_t i = 0; i < options->certificates_count; i++)
    count += options->certificates[i].names_count;
  self->names = calloc(count + 1, sizeof *self->names);
  if (!self->names) return false;
  for (uint32_t i = 0; i < options->certificates_count; i++) {
    const tls_certificate *certificate = &options->certificates[i];
    for (uint32_t k = 0; k < certificate->names_count; k++) {
      char *name = strdup(certificate->names[k]);
      if (!name) return false;
      for (char *at = name; *at; at++)
        *at = (char)tolower((unsigned char)*at);
      self->names[self->names_count++] = (tls_name){name, i};
    }
  }
  selection_sort(self);
  return true;
}

/* ---- life ---- */

static bool build(tls_context *self, const tls_options *options, tls_error error) {
  uint32_t count = options->certificates_count > 0 ? options->certificates_count : 1;
  if (self->server && options->certificates_count == 0)
    return refuse(error, "a server needs a certificate");
  if (self->server && options->verify != VERIFY_NONE && !options->ca[0])
    return refuse(error, "client certificates are asked for, and no ca says which are believed");
  self->variants = calloc(count, sizeof *self->variants);
  if (!self->variants || !take_names(self, options)) return refuse(error, "out of memory");
  if (!take_protocols(self, options, error)) return false;
  for (uint32_t i = 0; i < count; i++) {
    SSL_CTX *ssl = SSL_CTX_new(self->server ? TLS_server_method() : TLS_client_method());
    if (!ssl) return refuse(error, "%s", reason());
    self->variants[self->variants_count++] = ssl;
    if (!set_rules(ssl, self, options, error)) return false;
    if (options->certificates_count > 0 &&
        !use_certificate(ssl, &options->certificates[i], i, error))
      return false;
  }
  return true;
}

tls_context *context_open(const tls_options *options, tls_error error) {
  tls_context *self = calloc(1, sizeof *self);
  if (!self) {
    refuse(error, "out of memory");
    return NULL;
  }
  self->source = (stream_source){.magic = STREAM_SOURCE, .open = connection_open};
  self->references = 1;
  self->server = options->server;
  self->verify = options->verify;
  self->key_log_fd = options->key_log_fd;
  self->tickets = options->tickets;
  if (self->tickets) tickets_hold(self->tickets);
  ERR_clear_error();
  if (build(self, options, error)) return self;
  context_release(self);
  return NULL;
}

void context_hold(tls_context *self) {
  self->references++;
}

void context_release(tls_context *self) {
  if (--self->references > 0) return;
  for (uint32_t i = 0; i < self->variants_count; i++)
    SSL_CTX_free(self->variants[i]);
  for (uint32_t i = 0; i < self->names_count; i++)
    free(self->names[i].name);
  if (self->tickets) tickets_release(self->tickets);
  free(self->variants);
  free(self->names);
  free(self->alpn);
  free(self);
}
