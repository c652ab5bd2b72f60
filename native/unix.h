/* Unix sockets by their path. Knows nothing of JavaScript. Returns 0 or a descriptor, or -errno. */
#ifndef HEADRACE_UNIX_H
#define HEADRACE_UNIX_H

#include <stddef.h>
#include <stdint.h>

/* A bound, listening SOCK_STREAM socket whose file has mode 0600 from its first moment. Whoever
 * calls removes the file. -EADDRINUSE when there is one, -ENAMETOOLONG past 107 bytes. */
int unix_listen(const char *path);

/* Sends one datagram, with descriptors, to the datagram socket at `path`; "@name" is an abstract
 * name (unix(7)). Never waits: -EAGAIN when the receiver's queue is full. */
int unix_send(const char *path, const uint8_t *bytes, size_t length, const int *fds, size_t count);

#endif
