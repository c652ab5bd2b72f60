/* The POSIX modules one by one, at their bounds, without Node: for a sanitizer to watch. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../native/admission.h"
#include "../../native/fds.h"
#include "../../native/socket.h"

static void test_addresses(void) {
  static const char *const good[] = {"127.0.0.1", "0.0.0.0", "::", "::1",
                                     "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255"};
  static const char *const bad[] = {"",    "localhost", "1.2.3", "1.2.3.4.5",
                                    ":::", "[::1]",     "::1%lo"};
  char text[SOCKET_TEXT_BYTES];
  socket_address address;
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    assert(socket_address_parse(&address, good[i], 65535) == 0);
    assert(socket_address_format(&address, text) == 0);
    assert(strstr(text, " 65535") != NULL);
  }
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert(socket_address_parse(&address, bad[i], 1) == -EINVAL);
  memset(&address, 0, sizeof address);
  assert(socket_address_format(&address, text) == -EAFNOSUPPORT);
}

static void test_descriptors(void) {
  int pair[2], fds[FDS_MAX], received[FDS_MAX];
  uint8_t bytes[64];
  size_t count;
  assert(fds_pair(pair) == 0);
  for (int i = 0; i < FDS_MAX; i++)
    fds[i] = pair[0];
  for (size_t sent = 0; sent <= FDS_MAX; sent += sent < 3 ? 1 : 50) {
    assert(fds_send(pair[0], (const uint8_t *)"tag", 3, fds, sent) == 0);
    assert(fds_receive(pair[1], bytes, sizeof bytes, received, &count) == 3);
    assert(count == sent);
    for (size_t i = 0; i < count; i++) {
      assert(fcntl(received[i], F_GETFD) == FD_CLOEXEC);
      close(received[i]);
    }
  }
  assert(fds_send(pair[0], bytes, 1, fds, FDS_MAX) == 0);
  assert(fds_receive(pair[1], bytes, sizeof bytes, received, &count) == 1 && count == FDS_MAX);
  for (size_t i = 0; i < count; i++)
    close(received[i]);
  assert(fds_send(pair[0], bytes, sizeof bytes, fds, 5) == 0);
  assert(fds_receive(pair[1], bytes, 10, received, &count) == -EMSGSIZE && count == 0);
  assert(fds_send(pair[0], bytes, 0, fds, 1) == -EINVAL);
  assert(fds_send(pair[0], bytes, 1, fds, FDS_MAX + 1) == -EINVAL);
  assert(fds_receive(pair[1], bytes, 10, received, &count) == -EAGAIN);
  close(pair[0]);
  assert(fds_receive(pair[1], bytes, 10, received, &count) == 0);
  close(pair[1]);
  int free_one = dup(0);
  assert(free_one == 3);
  close(free_one);
}

static void test_memory(void) {
  void *a, *b;
  int fd = fds_memory("test", 5000);
  assert(fd >= 0 && fds_map(fd, 5000, &a) == 0 && fds_map(fd, 5000, &b) == 0);
  ((char *)a)[4999] = 'x';
  assert(((char *)b)[4999] == 'x');
  assert(fds_map(-1, 5000, &a) == -EBADF);
  munmap(b, 5000);
  close(fd);
}

#define THREADS 4
#define TURNS 50000
#define CAP 7

static int32_t table[2 * THREADS];
static int admitted, most;

static void *enter_and_leave(void *column) {
  admission own = {.table = table,
                   .columns = THREADS,
                   .column = (int32_t)(intptr_t)column,
                   .rows = 2,
                   .caps = {CAP, 0}};
  for (int i = 0; i < TURNS; i++) {
    if (!admission_enter(&own, 0)) continue;
    int now = __atomic_add_fetch(&admitted, 1, __ATOMIC_SEQ_CST);
    int before = __atomic_load_n(&most, __ATOMIC_SEQ_CST);
    while (now > before && !__atomic_compare_exchange_n(&most, &before, now, false,
                                                        __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
    }
    __atomic_sub_fetch(&admitted, 1, __ATOMIC_SEQ_CST);
    admission_leave(&own, 0);
  }
  return NULL;
}

static void test_admission(void) {
  admission none = {0};
  assert(admission_enter(&none, 63));
  admission_leave(&none, 63);
  admission one = {.table = table, .columns = THREADS, .column = 0, .rows = 2, .caps = {3, 2}};
  assert(admission_enter(&one, 0) && admission_enter(&one, 0) && !admission_enter(&one, 0));
  /* A listener without a row counts towards the total alone. */
  assert(admission_enter(&one, 5) && !admission_enter(&one, 5));
  assert(table[0] == 3 && table[THREADS] == 2);
  admission_leave(&one, 0);
  admission_leave(&one, 0);
  admission_leave(&one, 5);
  pthread_t threads[THREADS];
  for (intptr_t i = 0; i < THREADS; i++)
    pthread_create(&threads[i], NULL, enter_and_leave, (void *)i);
  for (int i = 0; i < THREADS; i++)
    pthread_join(threads[i], NULL);
  assert(most > 0 && most <= CAP);
  for (int i = 0; i < 2 * THREADS; i++)
    assert(table[i] == 0);
}

int main(void) {
  test_addresses();
  test_descriptors();
  test_memory();
  test_admission();
  printf("done\n");
  return 0;
}
