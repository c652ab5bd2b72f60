#include "socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Since Linux 5.14 (socket(7)). */
#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif
#ifndef SOCK_SNDBUF_LOCK
#define SOCK_SNDBUF_LOCK 1
#define SOCK_RCVBUF_LOCK 2
#endif

#define NO_RETURN -1

/* One row per plain integer option; IPV6_V6ONLY and the backlog have code of their own.
 * `listen_only`: means nothing to an outbound connection. Accepted sockets inherit all the others
 * from the listener (the kernel clones the listening sock: tcp_create_openreq_child).
 * `kernels`: the value that gives the option back to the kernel. */
static const struct {
  int option, level, name, kernels;
  bool listen_only;
} INTEGER_OPTIONS[] = {
    {OPTION_NO_DELAY, IPPROTO_TCP, TCP_NODELAY, 0, false},
    {OPTION_KEEP_ALIVE, IPPROTO_TCP, TCP_KEEPIDLE, NO_RETURN, false},
    {OPTION_KEEP_ALIVE_INTERVAL, IPPROTO_TCP, TCP_KEEPINTVL, NO_RETURN, false},
    {OPTION_KEEP_ALIVE_COUNT, IPPROTO_TCP, TCP_KEEPCNT, NO_RETURN, false},
    {OPTION_USER_TIMEOUT, IPPROTO_TCP, TCP_USER_TIMEOUT, 0, false},
    {OPTION_DEFER_ACCEPT, IPPROTO_TCP, TCP_DEFER_ACCEPT, 0, true},
    {OPTION_FAST_OPEN, IPPROTO_TCP, TCP_FASTOPEN, 0, true},
    {OPTION_NOT_SENT_LOW_WATER, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 0, false},
    {OPTION_RECEIVE_BUFFER, SOL_SOCKET, SO_RCVBUF, NO_RETURN, false},
    {OPTION_SEND_BUFFER, SOL_SOCKET, SO_SNDBUF, NO_RETURN, false},
};

#define INTEGER_OPTION_COUNT (sizeof INTEGER_OPTIONS / sizeof INTEGER_OPTIONS[0])

static int set_integer(int fd, int level, int name, int value) {
  return setsockopt(fd, level, name, &value, sizeof value) == 0 ? 0 : -errno;
}

/* Sets every option that is not -1. The first failure is returned. */
static int set_options(int fd, const int32_t options[OPTION_COUNT], bool listening) {
  for (size_t i = 0; i < INTEGER_OPTION_COUNT; i++) {
    int value = options[INTEGER_OPTIONS[i].option];
    if (value < 0 || (INTEGER_OPTIONS[i].listen_only && !listening)) continue;
    int error = set_integer(fd, INTEGER_OPTIONS[i].level, INTEGER_OPTIONS[i].name, value);
    if (error) return error;
  }
  if (options[OPTION_KEEP_ALIVE] >= 0) {
    int error = set_integer(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    if (error) return error;
  }
  return 0;
}

/* Gives the options that are -1 back to the kernel. */
static int return_options(int fd, const int32_t options[OPTION_COUNT]) {
  for (size_t i = 0; i < INTEGER_OPTION_COUNT; i++) {
    int value = INTEGER_OPTIONS[i].kernels;
    if (options[INTEGER_OPTIONS[i].option] >= 0 || value == NO_RETURN) continue;
    int error = set_integer(fd, INTEGER_OPTIONS[i].level, INTEGER_OPTIONS[i].name, value);
    if (error) return error;
  }
  if (options[OPTION_KEEP_ALIVE] < 0) {
    int error = set_integer(fd, SOL_SOCKET, SO_KEEPALIVE, 0);
    if (error) return error;
  }
  /* A buffer whose size was set is locked at it. */
  int locks = (options[OPTION_SEND_BUFFER] >= 0 ? SOCK_SNDBUF_LOCK : 0) |
              (options[OPTION_RECEIVE_BUFFER] >= 0 ? SOCK_RCVBUF_LOCK : 0);
  int error = set_integer(fd, SOL_SOCKET, SO_BUF_LOCK, locks);
  return error == -ENOPROTOOPT ? 0 : error;
}

int socket_address_parse(socket_address *address, const char *host, uint16_t port) {
  memset(address, 0, sizeof *address);
  if (inet_pton(AF_INET, host, &address->v4.sin_addr) == 1) {
    address->v4.sin_family = AF_INET;
    address->v4.sin_port = htons(port);
    address->length = sizeof address->v4;
    return 0;
  }
  if (inet_pton(AF_INET6, host, &address->v6.sin6_addr) == 1) {
    address->v6.sin6_family = AF_INET6;
    address->v6.sin6_port = htons(port);
    address->length = sizeof address->v6;
    return 0;
  }
  return -EINVAL;
}

int socket_address_format(const socket_address *address, char text[SOCKET_TEXT_BYTES]) {
  char host[INET6_ADDRSTRLEN];
  bool v4 = address->any.sa_family == AF_INET;
  if (!v4 && address->any.sa_family != AF_INET6) return -EAFNOSUPPORT;
  const void *bytes = v4 ? (const void *)&address->v4.sin_addr : &address->v6.sin6_addr;
  uint16_t port = ntohs(v4 ? address->v4.sin_port : address->v6.sin6_port);
  if (!inet_ntop(address->any.sa_family, bytes, host, sizeof host)) return -errno;
  snprintf(text, SOCKET_TEXT_BYTES, "%s %u", host, port);
  return 0;
}

bool socket_address_bytes(const socket_address *address, uint8_t bytes[16]) {
  if (address->any.sa_family == AF_INET6) {
    memcpy(bytes, &address->v6.sin6_addr, 16);
    return true;
  }
  if (address->any.sa_family != AF_INET) return false;
  memset(bytes, 0, 10);
  memset(bytes + 10, 0xff, 2);
  memcpy(bytes + 12, &address->v4.sin_addr, 4);
  return true;
}

static int open_socket(int family) {
  int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  return fd < 0 ? -errno : fd;
}

static int close_with(int fd, int error) {
  close(fd);
  return error;
}

/* A socket bound to `address` with its options, not listening yet. */
static int open_bound(const socket_address *address, bool exclusive,
                      const int32_t options[OPTION_COUNT]) {
  int fd = open_socket(address->any.sa_family);
  if (fd < 0) return fd;
  int error = set_integer(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if (!error && !exclusive) error = set_integer(fd, SOL_SOCKET, SO_REUSEPORT, 1);
  if (!error && address->any.sa_family == AF_INET6 && options[OPTION_IPV6_ONLY] >= 0)
    error = set_integer(fd, IPPROTO_IPV6, IPV6_V6ONLY, options[OPTION_IPV6_ONLY]);
  if (!error) error = set_options(fd, options, true);
  if (!error && bind(fd, &address->any, address->length) != 0) error = -errno;
  return error ? close_with(fd, error) : fd;
}

int socket_listen(const socket_address *address, bool exclusive,
                  const int32_t options[OPTION_COUNT]) {
  int fd = open_bound(address, exclusive, options);
  if (fd < 0) return fd;
  if (listen(fd, options[OPTION_BACKLOG]) != 0) return close_with(fd, -errno);
  /* Two sockets without SO_REUSEPORT may both bind (SO_REUSEADDR allows it while neither listens),
   * but only one of them can listen: that is what makes the guard atomic. */
  if (exclusive) {
    int error = set_integer(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (error) return close_with(fd, error);
  }
  return fd;
}

int socket_apply(int fd, const int32_t options[OPTION_COUNT]) {
  socket_facts facts;
  int error = socket_kind(fd, &facts);
  if (!error && !facts.listening) error = -EINVAL;
  if (!error) error = set_options(fd, options, true);
  if (!error) error = return_options(fd, options);
  if (error) return error;
  /* Repeated, it changes the backlog and keeps the queue. */
  return listen(fd, options[OPTION_BACKLOG]) == 0 ? 0 : -errno;
}

int socket_steer(int fd, int count) {
  if (count <= 0) return -EINVAL;
  /* Returns the index of the member that the kernel is to choose: random % count. */
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_RANDOM)),
      BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, (uint32_t)count),
      BPF_STMT(BPF_RET | BPF_A, 0),
  };
  struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
  int result = setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program);
  return result == 0 ? 0 : -errno;
}

int socket_unsteer(int fd) {
  int error = set_integer(fd, SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0);
  /* Nothing was attached. */
  return error == -ENOENT ? 0 : error;
}

static int listening_info(int fd, struct tcp_info *info) {
  socklen_t length = sizeof *info;
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &length) != 0) return -errno;
  return info->tcpi_state == TCP_LISTEN ? 0 : -EINVAL;
}

/* Of a listening socket tcpi_unacked is the queue, and tcpi_sacked its limit (tcp_get_info). */
int socket_queue(int fd) {
  struct tcp_info info;
  int error = listening_info(fd, &info);
  return error ? error : (int)info.tcpi_unacked;
}

int socket_queue_limit(int fd) {
  struct tcp_info info;
  int error = listening_info(fd, &info);
  return error ? error : (int)info.tcpi_sacked;
}

int socket_cookie(int fd, uint64_t *cookie) {
  socklen_t length = sizeof *cookie;
  return getsockopt(fd, SOL_SOCKET, SO_COOKIE, cookie, &length) == 0 ? 0 : -errno;
}

static int read_integer(int fd, int name, int *value) {
  socklen_t length = sizeof *value;
  return getsockopt(fd, SOL_SOCKET, name, value, &length) == 0 ? 0 : -errno;
}

int socket_kind(int fd, socket_facts *facts) {
  int listening = 0;
  int error = read_integer(fd, SO_TYPE, &facts->type);
  if (!error) error = read_integer(fd, SO_DOMAIN, &facts->family);
  if (!error) error = read_integer(fd, SO_ACCEPTCONN, &listening);
  facts->listening = listening != 0;
  return error;
}

int socket_probe(const socket_address *address, const int32_t options[OPTION_COUNT]) {
  int fd = open_bound(address, true, options);
  return fd < 0 ? fd : close_with(fd, 0);
}

int socket_connect(const socket_address *address, const socket_address *local,
                   const int32_t options[OPTION_COUNT]) {
  int fd = open_socket(address->any.sa_family);
  if (fd < 0) return fd;
  int error = set_options(fd, options, false);
  if (!error && local) {
    /* Leaves the choice of port to connect(), which knows the destination: one port then serves
     * many destinations (ip(7)). */
    error = set_integer(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
    if (!error && bind(fd, &local->any, local->length) != 0) error = -errno;
  }
  if (!error && connect(fd, &address->any, address->length) != 0 && errno != EINPROGRESS)
    error = -errno;
  return error ? close_with(fd, error) : fd;
}

int socket_name(int fd, bool peer, socket_address *address) {
  address->length = sizeof address->v6;
  int result = peer ? getpeername(fd, &address->any, &address->length)
                    : getsockname(fd, &address->any, &address->length);
  return result == 0 ? 0 : -errno;
}

int socket_option_read(int fd, int option) {
  int value = 0;
  socklen_t length = sizeof value;
  if (option == OPTION_IPV6_ONLY)
    return getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &value, &length) == 0 ? value : -errno;
  for (size_t i = 0; i < INTEGER_OPTION_COUNT; i++) {
    if (INTEGER_OPTIONS[i].option != option) continue;
    if (getsockopt(fd, INTEGER_OPTIONS[i].level, INTEGER_OPTIONS[i].name, &value, &length) != 0)
      return -errno;
    return value;
  }
  return -EINVAL;
}

void socket_make_reset(int fd) {
  struct linger linger = {.l_onoff = 1, .l_linger = 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}
