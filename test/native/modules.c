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
  assert(fd >= 0 && fds_map(fd, 0, 5000, &a) == 0 && fds_map(fd, 0, 5000, &b) == 0);
  ((char *)a)[4999] = 'x';
  assert(((char *)b)[4999] == 'x');
  assert(fds_map(-1, 0, 5000, &a) == -EBADF);
  munmap(b, 5000);
  close(fd);
}

#define THREADS 4
#define TURNS 50000
#define CAP 7

static _Alignas(8) int32_t table[ADMISSION_WORDS];
static int admitted, most;

static int32_t *cell(int row, int column) {
  return &table[ADMISSION_HEADER_WORDS + row * ADMISSION_COLUMNS + column];
}

static int sum_of(int row) {
  int sum = 0;
  for (int column = 0; column < ADMISSION_COLUMNS; column++)
    sum += *cell(row, column);
  return sum;
}

static bool enter(admission *self, int listener) {
  int32_t entry;
  return admission_enter(self, listener, NULL, &entry) == ADMITTED;
}

static void force(admission *self, int listener) {
  assert(admission_force(self, listener, NULL) == ADDRESS_NONE);
}

static void leave(admission *self, int listener) {
  admission_leave(self, listener, ADDRESS_NONE);
}

static void hand_over(admission *self, int listener, int count) {
  while (count-- > 0)
    admission_hand_over(self, listener, ADDRESS_NONE);
}

/* A column of either half by turns. */
static admission open_column(int turn, int cap, int listener_cap) {
  int32_t caps[ADMISSION_ROWS] = {cap, listener_cap};
  admission self = {0};
  int column = turn % 2 * ADMISSION_SEATS + turn / 2;
  assert(admission_open(&self, table, column, caps) == 0);
  return self;
}

static void *enter_and_leave(void *turn) {
  admission own = open_column((int)(intptr_t)turn, CAP, 0);
  for (int i = 0; i < TURNS; i++) {
    if (!enter(&own, 0)) continue;
    int now = __atomic_add_fetch(&admitted, 1, __ATOMIC_SEQ_CST);
    int before = __atomic_load_n(&most, __ATOMIC_SEQ_CST);
    while (now > before && !__atomic_compare_exchange_n(&most, &before, now, false,
                                                        __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
    }
    __atomic_sub_fetch(&admitted, 1, __ATOMIC_SEQ_CST);
    leave(&own, 0);
  }
  return NULL;
}

static bool moving;

/* One connection that wanders between two columns, never uncounted. */
static void *wander(void *unused) {
  admission homes[2] = {open_column(0, CAP, 0), open_column(2 * ADMISSION_SEATS - 1, CAP, 0)};
  (void)unused;
  int at = 0;
  force(&homes[at], 0);
  while (__atomic_load_n(&moving, __ATOMIC_SEQ_CST)) {
    force(&homes[1 - at], 0);
    hand_over(&homes[at], 0, 1);
    at = 1 - at;
  }
  hand_over(&homes[at], 0, 1);
  return NULL;
}

/* All but one place is taken, and that by the one that wanders: nobody may get in. */
static void test_moves(void) {
  pthread_t mover;
  table[ADMISSION_HIGH_WATER] = table[ADMISSION_HIGH_WATER1] = ADMISSION_SEATS;
  admission full = open_column(2, CAP, 0), newcomer = open_column(3, CAP, 0);
  for (int i = 0; i < CAP - 1; i++)
    force(&full, 0);
  moving = true;
  pthread_create(&mover, NULL, wander, NULL);
  while (__atomic_load_n(cell(0, 0), __ATOMIC_SEQ_CST) == 0)
    continue;
  for (int i = 0; i < TURNS; i++)
    assert(!enter(&newcomer, 0));
  __atomic_store_n(&moving, false, __ATOMIC_SEQ_CST);
  pthread_join(mover, NULL);
  assert(sum_of(0) == CAP - 1 && enter(&newcomer, 0) && !enter(&newcomer, 0));
  leave(&newcomer, 0);
  hand_over(&full, 0, CAP - 1);
}

static bool flooding;

/* Newcomers of a listener that is full, for ever. */
static void *flood(void *unused) {
  admission own = open_column(2, 2, 1);
  (void)unused;
  while (__atomic_load_n(&flooding, __ATOMIC_SEQ_CST))
    assert(!enter(&own, 0));
  return NULL;
}

/* A flood at a listener's own cap takes no place from anybody, not for a moment. */
static void test_flood(void) {
  pthread_t flooder;
  admission full = open_column(0, 2, 1), other = open_column(1, 2, 1);
  assert(enter(&full, 0));
  flooding = true;
  pthread_create(&flooder, NULL, flood, NULL);
  for (int i = 0; i < 10 * TURNS; i++) {
    assert(enter(&other, 5));
    leave(&other, 5);
  }
  __atomic_store_n(&flooding, false, __ATOMIC_SEQ_CST);
  pthread_join(flooder, NULL);
  leave(&full, 0);
}

static void test_turns(void) {
  const uint32_t now = 5, long_ago = UINT32_MAX - 1000;
  admission one = open_column(0, 2, 1), two = open_column(3, 2, 1), none = {0};
  assert(admission_row_to_await(&none, 0, now, now) == ADMISSION_NO_ROW);
  assert(admission_is_turn(&none, 0, now, now));
  admission_stamp(&none, 0, now, now);
  admission_pass_on(&none, 0);
  /* Somebody has waited for longer, as long as it says so; the clock may begin anew meanwhile. */
  admission_stamp(&two, 0, long_ago, now);
  assert(!admission_is_turn(&one, 5, now, now) && admission_is_turn(&two, 5, long_ago, now));
  assert(admission_is_turn(&one, 5, long_ago, now) &&
         admission_is_turn(&one, 5, long_ago - 1, now));
  assert(admission_row_to_await(&one, 5, now, now) == 0);
  assert(!admission_is_turn(&one, 5, now, now + ADMISSION_STAMP_MS));
  assert(!admission_is_turn(&one, 5, now, now - ADMISSION_STAMP_MS));
  assert(admission_is_turn(&one, 5, now, now + ADMISSION_STAMP_MS + 1));
  assert(admission_is_turn(&one, 5, now, now - ADMISSION_STAMP_MS - 1));
  assert(admission_is_turn(&one, 5, now, now + UINT32_MAX / 2));
  /* It waits for a place of one listener only: nobody else's concern. */
  admission_stamp(&two, 0, 0, now);
  admission_stamp(&two, 1, long_ago, now);
  assert(admission_is_turn(&one, 5, now, now) && !admission_is_turn(&one, 0, now, now));
  assert(admission_row_to_await(&one, 0, now, now) == 1);
  /* What is full comes first, the server before the listener. */
  assert(enter(&one, 0) && admission_row_to_await(&two, 0, long_ago, now) == 1);
  assert(admission_row_to_await(&two, 5, long_ago, now) == ADMISSION_NO_ROW);
  assert(enter(&two, 5) && admission_row_to_await(&two, 0, long_ago, now) == 0);
  leave(&one, 0);
  leave(&two, 5);
  /* Above the mark of its half nobody is looked at. */
  table[ADMISSION_HIGH_WATER1] = 1;
  assert(admission_is_turn(&one, 0, now, now));
  table[ADMISSION_HIGH_WATER1] = THREADS;
  admission_stamp(&two, 1, 0, now);
}

static void test_admission(void) {
  admission none = {0};
  assert(enter(&none, 63));
  force(&none, 63);
  leave(&none, 63);
  hand_over(&none, 63, 5);
  int32_t caps[ADMISSION_ROWS] = {3, 2};
  /* A column that nobody would sum is no place to count in. */
  table[ADMISSION_HIGH_WATER] = 2;
  assert(admission_open(&none, table, -1, caps) == -EINVAL);
  assert(admission_open(&none, table, 2, caps) == -EINVAL);
  assert(admission_open(&none, table, ADMISSION_SEATS, caps) == -EINVAL);
  assert(admission_open(&none, table, ADMISSION_COLUMNS, caps) == -EINVAL);
  table[ADMISSION_HIGH_WATER1] = 2;
  admission one = open_column(0, 3, 2), two = open_column(1, 3, 2);
  assert(admission_open(&one, table, 1, caps) == -EBUSY);
  assert(enter(&one, 0) && enter(&two, 0) && !enter(&one, 0));
  assert(enter(&one, 63) && !enter(&two, 63));
  assert(*cell(0, 0) == 2 && *cell(0, ADMISSION_SEATS) == 1 && sum_of(1) == 2 && sum_of(64) == 1);
  /* Above the cap by force; then other caps at the same place. */
  force(&one, 0);
  assert(sum_of(0) == 4 && !enter(&two, 1));
  caps[0] = 5;
  assert(admission_open(&two, table, ADMISSION_SEATS, caps) == 0);
  assert(enter(&two, 1) && !enter(&two, 0) && !enter(&one, 1));
  /* Of a half, only what is below the mark counts. */
  table[ADMISSION_HIGH_WATER1] = 0;
  assert(!enter(&one, 1));
  leave(&one, 63);
  hand_over(&one, 0, 1);
  assert(enter(&one, 1));
  table[ADMISSION_HIGH_WATER1] = INT32_MAX;
  assert(!enter(&one, 1));
  leave(&one, 0);
  leave(&one, 1);
  leave(&two, 0);
  leave(&two, 1);
  table[ADMISSION_HIGH_WATER] = table[ADMISSION_HIGH_WATER1] = THREADS;
  pthread_t threads[THREADS];
  for (intptr_t i = 0; i < THREADS; i++)
    pthread_create(&threads[i], NULL, enter_and_leave, (void *)i);
  for (int i = 0; i < THREADS; i++)
    pthread_join(threads[i], NULL);
  assert(most > 0 && most <= CAP);
  test_flood();
  test_turns();
  test_moves();
  for (int row = 0; row < ADMISSION_ROWS; row++)
    assert(sum_of(row) == 0);
}

int main(void) {
  test_addresses();
  test_descriptors();
  test_memory();
  test_admission();
  printf("done\n");
  return 0;
}
