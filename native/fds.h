/* Descriptors between processes: SCM_RIGHTS over SOCK_SEQPACKET, shared memory, locks, peers.
 * Every function returns 0 or a positive value, or -errno. */
#ifndef HEADRACE_FDS_H
#define HEADRACE_FDS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* The kernel's SCM_MAX_FD (unix(7)). */
#define FDS_MAX 253

/* A connected, non-blocking, close-on-exec SOCK_SEQPACKET pair. */
int fds_pair(int pair[2]);

/* Sends one message. The descriptors stay open here. -EAGAIN when the channel is full. */
int fds_send(int channel, const uint8_t *bytes, size_t length, const int *fds, size_t count);

/* The same, to an address when the socket is not connected. */
int fds_send_to(int channel, const struct sockaddr *to, socklen_t to_size, const uint8_t *bytes,
                size_t length, const int *fds, size_t count);

/* Receives one message without waiting: its length (0 = the other end is closed), or -EAGAIN, or
 * -EMSGSIZE when bytes or descriptors did not fit, in which case those that came are closed. */
int fds_receive(int channel, uint8_t *bytes, size_t size, int fds[FDS_MAX], size_t *count);

/* SO_PEERCRED. */
int fds_peer(int fd, struct ucred *peer);

/* Starts a thread that waits until the other end of `channel` is closed, then `after_ms` more, and
 * then ends the process with code 1, whatever its other threads do. */
int fds_exit_with_peer(int channel, int after_ms);

/* flock(LOCK_EX | LOCK_NB); held until every duplicate of the descriptor is closed. */
int fds_lock(int fd);

/* Makes a descriptor that came from the process before close-on-exec and non-blocking. */
int fds_inherit(int fd);

/* A non-blocking eventfd. */
int fds_event(void);

/* A zeroed memfd, sealed: nobody who has it can make it shorter (which would be a SIGBUS for those
 * who map it). */
int fds_memory(const char *name, size_t size);

/* Maps `size` bytes of it shared, from `offset`, a multiple of the page size. */
int fds_map(int fd, size_t offset, size_t size, void **memory);

#endif
