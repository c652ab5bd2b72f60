#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "tls.h"

/* The longest name of DNS, and one more. */
#define NAME_BYTES 256

static int compare_names(const void *a, const void *b) {
  const tls_name *left = a, *right = b;
  int order = strcmp(left->name, right->name);
  if (order != 0) return order;
  return left->variant < right->variant ? -1 : left->variant > right->variant;
}

void selection_sort(tls_context *self) {
  if (self->names_count == 0) return;
  qsort(self->names, self->names_count, sizeof *self->names, compare_names);
  uint32_t kept = 1;
  for (uint32_t i = 1; i < self->names_count; i++) {
    if (strcmp(self->names[i].name, self->names[kept - 1].name) == 0) {
      free(self->names[i].name);
    } else {
      self->names[kept++] = self->names[i];
    }
  }
  self->names_count = kept;
}

static int compare_with(const void *key, const void *element) {
  return strcmp(key, ((const tls_name *)element)->name);
}

static SSL_CTX *find(const tls_context *self, const char *name) {
  if (self->names_count == 0) return NULL;
  const tls_name *found =
      bsearch(name, self->names, self->names_count, sizeof *self->names, compare_with);
  return found ? self->variants[found->variant] : NULL;
}

/* By the name itself, else by one that stands for all names one label below another. */
static SSL_CTX *select_variant(const tls_context *self, const char *asked) {
  char name[NAME_BYTES];
  size_t length = strlen(asked);
  if (length >= sizeof name) return NULL;
  for (size_t i = 0; i <= length; i++)
    name[i] = (char)tolower((unsigned char)asked[i]);
  SSL_CTX *exact = find(self, name);
  char *dot = strchr(name, '.');
  if (exact || !dot || dot == name) return exact;
  *--dot = '*';
  return find(self, dot);
}

int selection_server_name(SSL *ssl, int *alert, void *data) {
  (void)alert;
  const char *asked = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
  SSL_CTX *variant = asked ? select_variant(data, asked) : NULL;
  if (!variant) return SSL_TLSEXT_ERR_NOACK;
  if (SSL_get_SSL_CTX(ssl) != variant) SSL_set_SSL_CTX(ssl, variant);
  return SSL_TLSEXT_ERR_OK;
}

/* Ours in order of preference; OpenSSL has checked the form of theirs. */
int selection_protocol(SSL *ssl, const unsigned char **chosen, unsigned char *chosen_length,
                       const unsigned char *offered, unsigned int offered_length, void *data) {
  (void)ssl;
  const tls_context *self = data;
  for (uint32_t i = 0; i < self->alpn_length; i += 1u + self->alpn[i]) {
    const uint8_t *ours = &self->alpn[i];
    for (unsigned int k = 0; k < offered_length; k += 1u + offered[k]) {
      if (offered[k] != *ours || memcmp(&offered[k] + 1, ours + 1, *ours) != 0) continue;
      *chosen = ours + 1;
      *chosen_length = *ours;
      return SSL_TLSEXT_ERR_OK;
    }
  }
  return SSL_TLSEXT_ERR_ALERT_FATAL;
}
