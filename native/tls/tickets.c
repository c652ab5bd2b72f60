#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "tls.h"

#define PAGE_BYTES 4096
/* "HRTK" */
#define PAGE_MAGIC 0x4b545248u
#define PAGE_VERSION 1u
#define IV_BYTES 16

/* As in the memory: little-endian, which is every machine that Node runs on under Linux but s390x.
 */
typedef struct {
  uint8_t name[TICKET_NAME_BYTES];
  uint8_t cipher_key[32];
  uint8_t mac_key[32];
  double created; /* ms since the epoch */
} ticket_key;

typedef struct {
  uint32_t magic, version;
  _Atomic uint32_t sequence; /* odd while it is written */
  uint32_t count;
  ticket_key keys[TICKET_KEYS]; /* the first encrypts, all decrypt */
} ticket_page;

_Static_assert(offsetof(ticket_page, keys) == 16 && sizeof(ticket_key) == 88, "shared layout");

struct tickets {
  int references;
  ticket_page *page;
  /* A copy, so that nobody ever waits for the writer. */
  uint32_t sequence, count;
  ticket_key keys[TICKET_KEYS];
};

/* Fetched once: to look an algorithm up by its name costs as much as a ticket. */
static EVP_CIPHER *ticket_cipher;

bool tickets_prepare(void) {
  if (!ticket_cipher) ticket_cipher = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
  return ticket_cipher != NULL;
}

/* Copies the keys when there are others. While they are written, and for ever should the writer
 * have died in the midst of it, the copy is good. */
static void refresh(tickets *self) {
  uint32_t sequence = atomic_load_explicit(&self->page->sequence, memory_order_acquire);
  if (sequence == self->sequence || (sequence & 1)) return;
  ticket_key keys[TICKET_KEYS];
  uint32_t count = self->page->count;
  memcpy(keys, self->page->keys, sizeof keys);
  atomic_thread_fence(memory_order_acquire);
  if (atomic_load_explicit(&self->page->sequence, memory_order_relaxed) == sequence && count >= 1 &&
      count <= TICKET_KEYS) {
    memcpy(self->keys, keys, sizeof keys);
    self->count = count;
    self->sequence = sequence;
  }
  OPENSSL_cleanse(keys, sizeof keys);
}

int tickets_open(int fd, tickets **opened) {
  struct stat facts;
  if (fstat(fd, &facts) != 0) return -errno;
  if (facts.st_size < PAGE_BYTES) return -EINVAL;
  tickets *self = calloc(1, sizeof *self);
  if (!self) return -ENOMEM;
  self->references = 1;
  self->sequence = 1; /* no copy has it */
  self->page = mmap(NULL, PAGE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
  if (self->page == MAP_FAILED) {
    int error = -errno;
    free(self);
    return error;
  }
  /* A writer is through in less than a microsecond, but may be preempted. */
  for (int tries = 0; self->count == 0 && tries < 1000; tries++)
    refresh(self);
  if (self->page->magic != PAGE_MAGIC || self->page->version != PAGE_VERSION || self->count == 0) {
    tickets_release(self);
    return -EINVAL;
  }
  *opened = self;
  return 0;
}

void tickets_hold(tickets *self) {
  self->references++;
}

void tickets_release(tickets *self) {
  if (--self->references > 0) return;
  munmap(self->page, PAGE_BYTES);
  OPENSSL_cleanse(self, sizeof *self);
  free(self);
}

static bool set_mac_key(EVP_MAC_CTX *mac, ticket_key *key) {
  char digest[] = "SHA256";
  OSSL_PARAM params[] = {
      OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key->mac_key, sizeof key->mac_key),
      OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
      OSSL_PARAM_construct_end(),
  };
  return EVP_MAC_CTX_set_params(mac, params) == 1;
}

static int seal(tickets *self, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                EVP_MAC_CTX *mac) {
  ticket_key *key = &self->keys[0];
  memcpy(name, key->name, TICKET_NAME_BYTES);
  if (RAND_bytes(iv, IV_BYTES) != 1) return -1;
  if (EVP_EncryptInit_ex(cipher, ticket_cipher, NULL, key->cipher_key, iv) != 1) return -1;
  return set_mac_key(mac, key) ? 1 : -1;
}

/* 0: a key that is not there any more, so a full handshake. 2: the client gets a new ticket. */
static int unseal(tickets *self, const unsigned char *name, const unsigned char *iv,
                  EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac) {
  for (uint32_t i = 0; i < self->count; i++) {
    ticket_key *key = &self->keys[i];
    if (memcmp(name, key->name, TICKET_NAME_BYTES) != 0) continue;
    if (!set_mac_key(mac, key)) return -1;
    if (EVP_DecryptInit_ex(cipher, ticket_cipher, NULL, key->cipher_key, iv) != 1) return -1;
    return i == 0 ? 1 : 2;
  }
  return 0;
}

int tickets_key(SSL *ssl, unsigned char name[TICKET_NAME_BYTES], unsigned char *iv,
                EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int encrypting) {
  tickets *self = context_of(ssl)->tickets;
  refresh(self);
  return encrypting ? seal(self, name, iv, cipher, mac) : unseal(self, name, iv, cipher, mac);
}
