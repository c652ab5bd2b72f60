/*
 * The yardstick: what one thread of plain C does with epoll, and no more. It returns the bytes as
 * they come, so it serves lines, frames and raw bytes alike and does less than every other peer,
 * which all cut messages out of the stream. Level-triggered; one recv and one send per event; a
 * connection whose send came up short is not read again until the rest has left, so memory stays
 * bounded by one read per connection.
 *
 * Usage: echo PORT (0 lets the kernel choose). Prints one line when it listens; runs until a signal
 * ends it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS_PER_WAIT = 512, READ_BYTES = 64 * 1024, BACKLOG = 65535 };

/* Bytes that the kernel did not take yet. `bytes` is NULL while nothing waits. */
struct pending {
  char *bytes;
  size_t sent;
  size_t length;
};

static char input[READ_BYTES];
static struct pending *pendings; /* by descriptor */

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void watch(int epoll, int operation, int fd, unsigned events) {
  struct epoll_event event = {.events = events, .data.fd = fd};
  if (epoll_ctl(epoll, operation, fd, &event) < 0) fail("epoll_ctl");
}

/* TCP_NODELAY is set on the listener: accepted sockets inherit it, which saves a call per
 * connection. */
static int listen_on(unsigned short port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) fail("socket");
  int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) fail("bind");
  if (listen(fd, BACKLOG) < 0) fail("listen");
  socklen_t size = sizeof address;
  getsockname(fd, (struct sockaddr *)&address, &size);
  printf("{\"msg\":\"ready\",\"listeners\":[{\"name\":\"echo\",\"address\":\"127.0.0.1:%d\"}]}\n",
         ntohs(address.sin_port));
  fflush(stdout);
  return fd;
}

static void accept_all(int epoll, int listener) {
  for (;;) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN);
      continue;
    }
    if (errno == EAGAIN) return;
    if (errno == EINTR || errno == ECONNABORTED) continue;
    fail("accept4");
  }
}

static void close_connection(int fd) {
  free(pendings[fd].bytes);
  pendings[fd] = (struct pending){0};
  close(fd);
}

/* Bytes taken by the kernel, or -1 when the peer is gone. */
static ssize_t send_some(int fd, const char *bytes, size_t length) {
  ssize_t sent;
  do
    sent = send(fd, bytes, length, MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  if (sent < 0 && errno == EAGAIN) return 0;
  return sent;
}

static void on_readable(int epoll, int fd) {
  ssize_t got = recv(fd, input, sizeof input, 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) return close_connection(fd);
  ssize_t sent = send_some(fd, input, (size_t)got);
  if (sent == got) return;
  if (sent < 0) return close_connection(fd);
  size_t rest = (size_t)(got - sent);
  char *bytes = malloc(rest);
  if (bytes == NULL) fail("malloc");
  memcpy(bytes, input + sent, rest);
  pendings[fd] = (struct pending){.bytes = bytes, .length = rest};
  watch(epoll, EPOLL_CTL_MOD, fd, EPOLLOUT);
}

static void on_writable(int epoll, int fd) {
  struct pending *pending = &pendings[fd];
  ssize_t sent = send_some(fd, pending->bytes + pending->sent, pending->length - pending->sent);
  if (sent < 0) return close_connection(fd);
  pending->sent += (size_t)sent;
  if (pending->sent < pending->length) return;
  free(pending->bytes);
  *pending = (struct pending){0};
  watch(epoll, EPOLL_CTL_MOD, fd, EPOLLIN);
}

int main(int argc, char **argv) {
  struct rlimit descriptors;
  if (getrlimit(RLIMIT_NOFILE, &descriptors) < 0) fail("getrlimit");
  descriptors.rlim_cur = descriptors.rlim_max;
  setrlimit(RLIMIT_NOFILE, &descriptors);
  pendings = calloc(descriptors.rlim_cur, sizeof *pendings);
  if (pendings == NULL) fail("calloc");

  int epoll = epoll_create1(EPOLL_CLOEXEC);
  if (epoll < 0) fail("epoll_create1");
  int listener = listen_on((unsigned short)(argc > 1 ? atoi(argv[1]) : 0));
  watch(epoll, EPOLL_CTL_ADD, listener, EPOLLIN);

  static struct epoll_event events[EVENTS_PER_WAIT];
  for (;;) {
    int ready = epoll_wait(epoll, events, EVENTS_PER_WAIT, -1);
    if (ready < 0 && errno != EINTR) fail("epoll_wait");
    for (int i = 0; i < ready; i++) {
      int fd = events[i].data.fd;
      if (fd == listener)
        accept_all(epoll, listener);
      else if (pendings[fd].bytes != NULL)
        on_writable(epoll, fd);
      else
        on_readable(epoll, fd);
    }
  }
}
