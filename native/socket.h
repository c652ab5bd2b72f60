/* TCP sockets: addresses, options, listening and connecting. Knows nothing of JavaScript.
 * Every function returns 0 or a descriptor, or -errno; every descriptor is close-on-exec and
 * non-blocking. */
#ifndef HEADRACE_SOCKET_H
#define HEADRACE_SOCKET_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* Rows of the option array, in the order of src/os/socket.ts. A value of -1 leaves the option to
 * the kernel. */
enum socket_option {
  OPTION_NO_DELAY,
  OPTION_KEEP_ALIVE,          /* idle seconds */
  OPTION_KEEP_ALIVE_INTERVAL, /* seconds */
  OPTION_KEEP_ALIVE_COUNT,
  OPTION_USER_TIMEOUT, /* ms */
  OPTION_DEFER_ACCEPT, /* seconds */
  OPTION_FAST_OPEN,    /* queue length */
  OPTION_NOT_SENT_LOW_WATER,
  OPTION_RECEIVE_BUFFER,
  OPTION_SEND_BUFFER,
  OPTION_IPV6_ONLY,
  OPTION_BACKLOG,
  OPTION_COUNT
};

typedef struct {
  union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
  };
  socklen_t length;
} socket_address;

/* Enough for "[ipv6]%scope" and a port. */
#define SOCKET_TEXT_BYTES 64

/* Parses an IP literal. -EINVAL when it is none. */
int socket_address_parse(socket_address *address, const char *host, uint16_t port);

/* Writes "address port". */
int socket_address_format(const socket_address *address, char text[SOCKET_TEXT_BYTES]);

/* The 16 bytes of an IPv6 address; those of an IPv4 address in its IPv4-mapped form. False for what
 * is neither. */
bool socket_address_bytes(const socket_address *address, uint8_t bytes[16]);

/* A bound, listening socket. With `exclusive` SO_REUSEPORT is set only after listen(): a socket
 * of anyone else on the address makes bind() fail with EADDRINUSE, and later members of our own
 * group may still join. */
int socket_listen(const socket_address *address, bool exclusive,
                  const int32_t options[OPTION_COUNT]);

/* 0 when socket_listen(exclusive) could bind now. Never listens, so no client ever sees it. */
int socket_probe(const socket_address *address, const int32_t options[OPTION_COUNT]);

/* Sets the options of a listening socket for the connections it accepts from now on, and its
 * backlog; IPV6_V6ONLY stays. -1 gives an option back to the kernel, but a buffer keeps its size
 * and is tuned from there, and keepalive's interval and count stay. -EINVAL when it does not
 * listen. */
int socket_apply(int fd, const int32_t options[OPTION_COUNT]);

/* Spreads new connections of the socket's SO_REUSEPORT group over its first `count` members, in the
 * order of their listen(). Whatever waits in the others' queues stays there. */
int socket_steer(int fd, int count);

/* Over all members again. */
int socket_unsteer(int fd);

/* Connections that wait in the accept queue. */
int socket_queue(int fd);

/* How many may wait there: the smaller of the backlog and net.core.somaxconn. */
int socket_queue_limit(int fd);

/* SO_COOKIE: the same for every descriptor of one socket, and never used again (socket(7)). */
int socket_cookie(int fd, uint64_t *cookie);

typedef struct {
  int type, family; /* SOCK_…, AF_… */
  bool listening;
} socket_facts;

int socket_kind(int fd, socket_facts *facts);

/* Begins to connect: a descriptor, whose outcome is SO_ERROR once it is writable. `local` may be
 * NULL. */
int socket_connect(const socket_address *address, const socket_address *local,
                   const int32_t options[OPTION_COUNT]);

/* The address of this end, or of the peer. */
int socket_name(int fd, bool peer, socket_address *address);

/* Reads one option back, in the unit of its row. */
int socket_option_read(int fd, int option);

/* Makes the next close() send RST and drop what was not sent (SO_LINGER with 0 s, socket(7)). */
void socket_make_reset(int fd);

#endif
