/* Keys of session tickets, in memory that one process writes (src/os/ticket-keys.ts) and all read:
 * whichever of them a client comes back to, it can resume its session. */
#ifndef HEADRACE_TICKETS_H
#define HEADRACE_TICKETS_H

#include <openssl/ssl.h>
#include <stdint.h>

#define TICKET_KEYS 3
#define TICKET_NAME_BYTES 16

typedef struct tickets tickets;

/* Maps the memory; the descriptor stays the caller's. 0, -EINVAL for memory that holds no keys of
 * this version, or -errno. */
int tickets_open(int fd, tickets **opened);
void tickets_hold(tickets *self);
void tickets_release(tickets *self);

/* Once per process. False without memory. */
bool tickets_prepare(void);
/* Callback of OpenSSL: SSL_CTX_set_tlsext_ticket_key_evp_cb(3). */
int tickets_key(SSL *ssl, unsigned char name[TICKET_NAME_BYTES], unsigned char *iv,
                EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int encrypting);

#endif
