/* What one thread can do with datagrams that looks at nothing: receives as many as there are, waiting for the first
 * (MSG_WAITFORONE), and sends them back. No epoll, no table, no guard: the yardstick of the udp suite.
 *
 *   echo-udp PORT */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define BATCH 64
#define LONGEST 1400
#define RECEIVE_BUFFER (4 * 1024 * 1024)

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static int open_socket(int port) {
  int fd = socket(AF_INET, SOCK_DGRAM, 0), size = RECEIVE_BUFFER;
  if (fd < 0) fail("socket");
  if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0)
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) fail("bind");
  socklen_t length = sizeof address;
  getsockname(fd, (struct sockaddr *)&address, &length);
  printf("{\"msg\":\"ready\",\"listeners\":[{\"name\":\"echo\",\"address\":\"udp://127.0.0.1:%d\"}]}\n",
         ntohs(address.sin_port));
  fflush(stdout);
  return fd;
}

int main(int count, char **arguments) {
  static char bytes[BATCH][LONGEST];
  static struct sockaddr_in names[BATCH];
  static struct iovec parts[BATCH];
  static struct mmsghdr messages[BATCH];
  int fd = open_socket(count > 1 ? atoi(arguments[1]) : 0);
  for (int i = 0; i < BATCH; i++) {
    messages[i].msg_hdr = (struct msghdr){.msg_name = &names[i], .msg_iov = &parts[i], .msg_iovlen = 1};
    messages[i].msg_hdr.msg_namelen = sizeof names[i];
    parts[i] = (struct iovec){.iov_base = bytes[i], .iov_len = LONGEST};
  }
  for (;;) {
    int received = recvmmsg(fd, messages, BATCH, MSG_WAITFORONE, NULL);
    if (received < 0 && errno != EINTR) fail("recvmmsg");
    for (int i = 0; i < received; i++)
      parts[i].iov_len = messages[i].msg_len;
    for (int sent = 0; sent < received;) {
      int more = sendmmsg(fd, messages + sent, received - sent, 0);
      sent += more > 0 ? more : 1;
    }
    for (int i = 0; i < received; i++)
      parts[i].iov_len = LONGEST;
  }
}
