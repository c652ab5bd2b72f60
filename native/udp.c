#include "udp.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/sock_diag.h>
#include <string.h>
#include <unistd.h>

/* A UDP socket has no window that would hold a sender back, and the kernel does not tune its
 * buffer: the default of 208 KiB is full after some 280 small datagrams. Without the privilege to
 * have more, net.core.rmem_max bounds it. */
#define RECEIVE_BUFFER (4 * 1024 * 1024)

static int set_integer(int fd, int level, int name, int value) {
  return setsockopt(fd, level, name, &value, sizeof value) == 0 ? 0 : -errno;
}

static int set_buffer(int fd, int forced, int name, int value) {
  return set_integer(fd, SOL_SOCKET, forced, value) == 0 ? 0
                                                         : set_integer(fd, SOL_SOCKET, name, value);
}

int udp_apply(int fd, const int32_t options[OPTION_COUNT]) {
  int32_t receive = options[OPTION_RECEIVE_BUFFER], send = options[OPTION_SEND_BUFFER];
  int error = set_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, receive < 0 ? RECEIVE_BUFFER : receive);
  if (!error && send >= 0) error = set_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, send);
  return error;
}

static int close_with(int fd, int error) {
  close(fd);
  return error;
}

int udp_bind(const socket_address *address, bool exclusive, const int32_t options[OPTION_COUNT]) {
  int family = address->any.sa_family;
  int fd = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  int error = 0;
  if (!exclusive) error = set_integer(fd, SOL_SOCKET, SO_REUSEPORT, 1);
  if (!error && family == AF_INET6 && options[OPTION_IPV6_ONLY] >= 0)
    error = set_integer(fd, IPPROTO_IPV6, IPV6_V6ONLY, options[OPTION_IPV6_ONLY]);
  if (!error) error = udp_apply(fd, options);
  if (!error && bind(fd, &address->any, address->length) != 0) error = -errno;
  /* SO_REUSEADDR is never set: for UDP it would let anybody of the same mind bind beside us. */
  if (!error && exclusive) error = set_integer(fd, SOL_SOCKET, SO_REUSEPORT, 1);
  return error ? close_with(fd, error) : fd;
}

int udp_probe(const socket_address *address, const int32_t options[OPTION_COUNT]) {
  int fd = udp_bind(address, true, options);
  return fd < 0 ? fd : close_with(fd, 0);
}

/* Offsets from the network header, wherever the program's data begins (net/core/filter.c). */
#define NET(offset) ((uint32_t)(SKF_NET_OFF + (offset)))
#define IP4_SOURCE 12
#define IP6_SOURCE 8
#define IP6_HEADER 40
/* Odd, with bits all over: 2^32 divided by the golden ratio. */
#define SPREAD 0x9e3779b1u

int udp_steer(int fd, int count) {
  if (count <= 0) return -EINVAL;
  /* The accumulator ends as the index of the member that the kernel is to choose. A packet that is
   * too short for a load goes to the first member. Behind extension headers of IPv6 the port is not
   * found where it is looked for: then what stands there is, which is no worse. */
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, NET(0)),
      BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 4),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 6, 6, 0),
      /* IPv4: the port stands behind a header of so many words. */
      BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, NET(0)),
      BPF_STMT(BPF_LD | BPF_H | BPF_IND, NET(0)),
      BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, SPREAD),
      BPF_STMT(BPF_MISC | BPF_TAX, 0),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, NET(IP4_SOURCE)),
      BPF_STMT(BPF_JMP | BPF_JA, 16),
      /* IPv6. */
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, NET(IP6_SOURCE)),
      BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, SPREAD),
      BPF_STMT(BPF_MISC | BPF_TAX, 0),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, NET(IP6_SOURCE + 4)),
      BPF_STMT(BPF_ALU | BPF_XOR | BPF_X, 0),
      BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, SPREAD),
      BPF_STMT(BPF_MISC | BPF_TAX, 0),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, NET(IP6_SOURCE + 8)),
      BPF_STMT(BPF_ALU | BPF_XOR | BPF_X, 0),
      BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, SPREAD),
      BPF_STMT(BPF_MISC | BPF_TAX, 0),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, NET(IP6_SOURCE + 12)),
      BPF_STMT(BPF_ALU | BPF_XOR | BPF_X, 0),
      BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, SPREAD),
      BPF_STMT(BPF_MISC | BPF_TAX, 0),
      BPF_STMT(BPF_LD | BPF_H | BPF_ABS, NET(IP6_HEADER)),
      /* Both: the last word, and the others in X. */
      BPF_STMT(BPF_ALU | BPF_XOR | BPF_X, 0),
      BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, SPREAD),
      BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 16),
      BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, (uint32_t)count),
      BPF_STMT(BPF_RET | BPF_A, 0),
  };
  struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
  int result = setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program);
  return result == 0 ? 0 : -errno;
}

int udp_drops(int fd) {
  uint32_t info[SK_MEMINFO_VARS];
  socklen_t length = sizeof info;
  if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &length) != 0) return -errno;
  return (int)(info[SK_MEMINFO_DROPS] & 0x7fffffff);
}

bool udp_is_wildcard(int fd) {
  socket_address address;
  if (socket_name(fd, false, &address) != 0) return false;
  if (address.any.sa_family == AF_INET) return address.v4.sin_addr.s_addr == INADDR_ANY;
  return address.any.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&address.v6.sin6_addr);
}
