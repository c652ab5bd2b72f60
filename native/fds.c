#include "fds.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

int fds_pair(int pair[2]) {
  int result = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair);
  return result == 0 ? 0 : -errno;
}

int fds_send(int channel, const uint8_t *bytes, size_t length, const int *fds, size_t count) {
  return fds_send_to(channel, NULL, 0, bytes, length, fds, count);
}

int fds_send_to(int channel, const struct sockaddr *to, socklen_t to_size, const uint8_t *bytes,
                size_t length, const int *fds, size_t count) {
  union {
    char bytes[CMSG_SPACE(sizeof(int) * FDS_MAX)];
    struct cmsghdr align;
  } control;
  /* A seqpacket message without a byte could not be told from the end of the stream. */
  if (length == 0 || count > FDS_MAX) return -EINVAL;
  struct iovec part = {.iov_base = (void *)bytes, .iov_len = length};
  struct msghdr message = {
      .msg_name = (void *)to, .msg_namelen = to_size, .msg_iov = &part, .msg_iovlen = 1};
  if (count > 0) {
    memset(&control, 0, sizeof control);
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * count);
    memcpy(CMSG_DATA(header), fds, sizeof(int) * count);
  }
  ssize_t sent;
  do
    sent = sendmsg(channel, &message, MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  return sent < 0 ? -errno : 0;
}

int fds_receive(int channel, uint8_t *bytes, size_t size, int fds[FDS_MAX], size_t *count) {
  union {
    char bytes[CMSG_SPACE(sizeof(int) * FDS_MAX)];
    struct cmsghdr align;
  } control;
  struct iovec part = {.iov_base = bytes, .iov_len = size};
  struct msghdr message = {.msg_iov = &part,
                           .msg_iovlen = 1,
                           .msg_control = control.bytes,
                           .msg_controllen = sizeof control.bytes};
  ssize_t received;
  *count = 0;
  /* A peer that closed with messages of ours unread leaves one ECONNRESET behind, in front of what
   * it sent itself, which is told first: a message that left is never lost. */
  do
    received = recvmsg(channel, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  while (received < 0 && (errno == EINTR || errno == ECONNRESET));
  if (received < 0) return -errno;
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  for (; header; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    *count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    memcpy(fds, CMSG_DATA(header), *count * sizeof(int));
  }
  if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
    while (*count > 0)
      close(fds[--*count]);
    return -EMSGSIZE;
  }
  return (int)received;
}

int fds_peer(int fd, struct ucred *peer) {
  socklen_t length = sizeof *peer;
  return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, peer, &length) == 0 ? 0 : -errno;
}

typedef struct {
  int channel, after_ms;
} peer_watch;

static void *watch_peer(void *argument) {
  peer_watch watch = *(peer_watch *)argument;
  free(argument);
  /* No event is asked for: POLLHUP alone is always reported (poll(2)). */
  struct pollfd channel = {.fd = watch.channel};
  while (poll(&channel, 1, -1) < 0 && errno == EINTR)
    continue;
  struct timespec left = {.tv_sec = watch.after_ms / 1000,
                          .tv_nsec = (long)(watch.after_ms % 1000) * 1000000};
  while (nanosleep(&left, &left) != 0 && errno == EINTR)
    continue;
  _exit(1);
}

int fds_exit_with_peer(int channel, int after_ms) {
  peer_watch *watch = malloc(sizeof *watch);
  if (!watch) return -ENOMEM;
  *watch = (peer_watch){.channel = channel, .after_ms = after_ms};
  pthread_t thread;
  /* Signals stay with the threads that Node has for them. */
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int error = pthread_create(&thread, NULL, watch_peer, watch);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (error) {
    free(watch);
    return -error;
  }
  pthread_detach(thread);
  return 0;
}

int fds_lock(int fd) {
  return flock(fd, LOCK_EX | LOCK_NB) == 0 ? 0 : -errno;
}

int fds_inherit(int fd) {
  if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) return -errno;
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) return -errno;
  return 0;
}

int fds_event(void) {
  int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  return fd < 0 ? -errno : fd;
}

int fds_memory(const char *name, size_t size) {
  int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return -errno;
  if (ftruncate(fd, (off_t)size) != 0 ||
      fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    int error = -errno;
    close(fd);
    return error;
  }
  return fd;
}

int fds_map(int fd, size_t offset, size_t size, void **memory) {
  *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
  return *memory == MAP_FAILED ? -errno : 0;
}
