#include "unix.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "fds.h"

static int close_with(int fd, int error) {
  close(fd);
  return error;
}

/* The size of the address, or -errno. */
static int take_path(struct sockaddr_un *address, const char *path) {
  size_t length = strlen(path);
  memset(address, 0, sizeof *address);
  address->sun_family = AF_UNIX;
  if (length == 0) return -EINVAL;
  if (length >= sizeof address->sun_path) return -ENAMETOOLONG;
  memcpy(address->sun_path, path, length);
  return (int)(offsetof(struct sockaddr_un, sun_path) + length + 1);
}

int unix_listen(const char *path) {
  struct sockaddr_un address;
  int size = take_path(&address, path);
  if (size < 0) return size;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  /* bind() gives the file the mode of the socket itself, less the umask (unix_bind_bsd): no moment
   * at which others could connect, and no umask to change, which all threads share. */
  if (fchmod(fd, S_IRUSR | S_IWUSR) != 0) return close_with(fd, -errno);
  if (bind(fd, (struct sockaddr *)&address, (socklen_t)size) != 0) return close_with(fd, -errno);
  if (listen(fd, SOMAXCONN) != 0) {
    int error = -errno;
    unlink(path);
    return close_with(fd, error);
  }
  return fd;
}

int unix_send(const char *path, const uint8_t *bytes, size_t length, const int *fds, size_t count) {
  struct sockaddr_un address;
  int size = take_path(&address, path);
  if (size < 0) return size;
  if (path[0] == '@') {
    address.sun_path[0] = 0;
    size--; /* no zero byte at the end: it would belong to the name */
  }
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  int error =
      fds_send_to(fd, (struct sockaddr *)&address, (socklen_t)size, bytes, length, fds, count);
  return close_with(fd, error);
}
