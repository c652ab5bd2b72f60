/* The table of addresses without Node: its hash and its lists, sets that are full, 100,000
 * addresses, and processes that enter, leave and evict at once and are killed at any moment,
 * against a model.
 *
 *   addresses [seed [milliseconds]]
 *
 * Prints the seed and figures; exits 0 or aborts. */
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../native/admission.h"
#include "../../native/fds.h"
#include "../../native/siphash.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static uint64_t state;

static uint32_t below(uint32_t bound) {
  state = state * 6364136223846793005ull + 1442695040888963407ull;
  return (uint32_t)(state >> 33) % bound;
}

static int memory;
static int32_t *header;

/* Empty, with room for `seats` workers of each generation. */
static void open_memory(int seats) {
  void *mapped;
  memory = fds_memory("addresses", address_memory_size());
  assert(memory >= 0 && fds_map(memory, 0, ADDRESS_OFFSET, &mapped) == 0);
  header = mapped;
  header[ADMISSION_HIGH_WATER] = header[ADMISSION_HIGH_WATER1] = seats;
  for (int word = 0; word < 4; word++)
    header[ADMISSION_HASH_KEY + word] = (int32_t)below(1u << 30);
}

static void close_memory(void) {
  munmap(header, ADDRESS_OFFSET);
  close(memory);
}

static address_table open_column(int32_t column) {
  address_table self = {0};
  assert(address_open(&self, memory, header, column) == 0);
  return self;
}

/* Column of worker `index`: of either generation by turns. */
static int32_t column_of(int index) {
  return index % 2 * ADMISSION_SEATS + index / 2;
}

typedef struct {
  uint8_t bytes[ADDRESS_BYTES];
} address;

static address address_of(uint32_t number) {
  address made = {{0x20, 1, 0xd, 0xb8, (uint8_t)(number >> 24), (uint8_t)(number >> 16),
                   (uint8_t)(number >> 8), (uint8_t)number}};
  return made;
}

/* Fills `list` with addresses of one and the same set, the one that `first` belongs to: what only
 * somebody who has the key can choose. */
static void choose_colliding(address *list, size_t count, uint32_t first) {
  uint64_t key[2];
  memcpy(key, &header[ADMISSION_HASH_KEY], sizeof key);
  uint64_t wanted = 0;
  for (uint32_t number = first, found = 0; found < count; number++) {
    address made = address_of(number);
    uint8_t named[4 + ADDRESS_BYTES] = {0};
    memcpy(named + 4, made.bytes, ADDRESS_BYTES);
    uint64_t set = siphash(key, named, sizeof named) % (ADDRESS_ENTRIES / ADDRESS_WAYS);
    if (found == 0) wanted = set;
    if (set == wanted) list[found++] = made;
  }
}

/* ---- hash and lists ---- */

/* From the reference implementation: keys and bytes count up from 0. */
static void test_hash(void) {
  static const uint64_t key[2] = {0x0706050403020100, 0x0f0e0d0c0b0a0908};
  static const uint64_t expected[] = {0x726fdb47dd0e0e31, 0x74f839c593dc67fd, 0x0d6c8009d9a94f5a,
                                      0x85676696d7fb7e2d};
  uint8_t bytes[15];
  for (uint8_t i = 0; i < COUNT(bytes); i++)
    bytes[i] = i;
  for (size_t length = 0; length < COUNT(expected); length++)
    assert(siphash(key, bytes, length) == expected[length]);
  assert(siphash(key, bytes, 15) == 0xa129ca6149be45e5);
}

static void test_lists(void) {
  cidr_list list = {0};
  uint8_t starts[4][CIDR_BYTES] = {{0}, {10}, {20}, {20, 1}}, at[CIDR_BYTES] = {0};
  static const uint8_t denied[4] = {1, 0, 7, 0};
  assert(!cidr_denies(&list, at));
  assert(cidr_set(&list, starts[0], denied, 4) == 0);
  for (int first = 0; first < 256; first++) {
    for (int second = 0; second < 2; second++) {
      at[0] = (uint8_t)first;
      at[1] = (uint8_t)second;
      assert(cidr_denies(&list, at) == (first < 10 || (first == 20 && second == 0)));
    }
  }
  /* What does not ascend from 0 changes nothing. */
  assert(cidr_set(&list, starts[1], denied, 2) == -EINVAL);
  memcpy(starts[3], starts[2], CIDR_BYTES);
  assert(cidr_set(&list, starts[0], denied, 4) == -EINVAL);
  memset(at, 0, sizeof at);
  assert(cidr_denies(&list, at));
  assert(cidr_set(&list, NULL, NULL, 0) == 0 && !cidr_denies(&list, at));
}

/* ---- one process ---- */

static const address_rule FIVE = {.connections = 5, .prefix = 64};

static void test_prefixes(void) {
  open_memory(1);
  address_table own = open_column(0);
  int32_t entry, other;
  address here = address_of(1), neighbour = here, elsewhere = address_of(2);
  neighbour.bytes[15] = 0xff;
  static const uint8_t v4[2][ADDRESS_BYTES] = {{[10] = 0xff, [11] = 0xff, [12] = 10, [15] = 1},
                                               {[10] = 0xff, [11] = 0xff, [12] = 10, [15] = 2}};
  address_rule rule = FIVE;
  rule.connections = 2;
  /* The same /64 is the same client; another is not, nor is another IPv4 address, whatever the
   * prefix. */
  assert(address_enter(&own, &rule, here.bytes, &entry) == ADDRESS_ENTERED);
  assert(address_enter(&own, &rule, neighbour.bytes, &other) == ADDRESS_ENTERED && other == entry);
  assert(address_enter(&own, &rule, neighbour.bytes, &other) == ADDRESS_FULL &&
         other == ADDRESS_NONE);
  assert(address_enter(&own, &rule, elsewhere.bytes, &other) == ADDRESS_ENTERED && other != entry);
  assert(address_force(&own, &rule, v4[0]) != address_force(&own, &rule, v4[1]));
  rule.prefix = 128;
  assert(address_enter(&own, &rule, neighbour.bytes, &other) == ADDRESS_ENTERED && other != entry);
  rule.prefix = 33;
  assert(address_force(&own, &rule, here.bytes) == address_force(&own, &rule, elsewhere.bytes));
  /* Listeners that count apart do. */
  rule = FIVE;
  rule.space = 3;
  assert(address_force(&own, &rule, here.bytes) != entry);
  /* Nothing is limited: nothing is counted. */
  rule = (address_rule){0};
  assert(address_force(&own, &rule, here.bytes) == ADDRESS_NONE);
  assert(address_enter(&own, &rule, here.bytes, &entry) == ADDRESS_ENTERED &&
         entry == ADDRESS_NONE);
  address_leave(&own, entry);
  address_close(&own);
  close_memory();
}

static int64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* A hundred a second, ten at once; nobody stays connected. */
static void test_rate(void) {
  open_memory(2);
  address_table columns[2] = {open_column(column_of(0)), open_column(column_of(1))};
  address_rule rule = {.interval_ns = 10000000, .burst_ns = 100000000, .prefix = 64};
  address client = address_of(7);
  int32_t entry;
  int admitted = 0;
  int64_t began = now_ns();
  for (int64_t passed = 0; passed < 300000000; passed = now_ns() - began) {
    address_table *own = &columns[below(2)];
    address_verdict verdict = address_enter(own, &rule, client.bytes, &entry);
    assert(verdict != ADDRESS_FULL);
    if (verdict == ADDRESS_ENTERED) admitted++;
    address_leave(own, entry);
    assert(admitted <= 10 + (now_ns() - began) / 10000000 + 1);
  }
  assert(admitted >= 36);
  /* What was allowed before does not last beyond a change of the limits. */
  rule.burst_ns = 1000000000000;
  rule.interval_ns = 1000000000;
  for (int i = 0; i < 500; i++) {
    assert(address_enter(&columns[0], &rule, client.bytes, &entry) == ADDRESS_ENTERED);
    address_leave(&columns[0], entry);
  }
  rule = (address_rule){.interval_ns = 1000000, .burst_ns = 1000000, .prefix = 64};
  assert(address_enter(&columns[0], &rule, client.bytes, &entry) == ADDRESS_FAST);
  usleep(5000);
  assert(address_enter(&columns[0], &rule, client.bytes, &entry) == ADDRESS_ENTERED);
  for (int i = 0; i < 2; i++)
    address_close(&columns[i]);
  close_memory();
}

/* More addresses than a set has entries. */
static void test_overflow(void) {
  open_memory(2);
  address_table own = open_column(0), other = open_column(ADMISSION_SEATS);
  address clients[40];
  int32_t entries[COUNT(clients)];
  choose_colliding(clients, COUNT(clients), 1000);
  size_t ways = 0;
  for (; ways < COUNT(clients); ways++) {
    assert(address_enter(&own, &FIVE, clients[ways].bytes, &entries[ways]) == ADDRESS_ENTERED);
    if (entries[ways] == ADDRESS_OVERFLOW) break;
  }
  assert(ways == ADDRESS_WAYS || ways == ADDRESS_WAYS - 1);
  /* Whoever has no entry shares the one of all such, and its limit. */
  for (int i = 1; i < FIVE.connections; i++)
    assert(address_enter(&other, &FIVE, clients[ways + (size_t)i].bytes, &entries[ways + 1]) ==
               ADDRESS_ENTERED &&
           entries[ways + 1] == ADDRESS_OVERFLOW);
  assert(address_enter(&own, &FIVE, clients[ways + 10].bytes, &entries[ways + 1]) == ADDRESS_FULL);
  /* Who has one is not touched by that. */
  for (int i = 1; i < FIVE.connections; i++)
    assert(address_enter(&other, &FIVE, clients[3].bytes, &entries[ways + 1]) == ADDRESS_ENTERED);
  assert(address_enter(&own, &FIVE, clients[3].bytes, &entries[ways + 1]) == ADDRESS_FULL);
  /* Only an entry that nobody counts in is given away. */
  address_leave(&own, entries[3]);
  assert(address_enter(&own, &FIVE, clients[ways + 10].bytes, &entries[ways + 1]) == ADDRESS_FULL);
  address_leave(&own, entries[5]);
  assert(address_enter(&own, &FIVE, clients[ways + 10].bytes, &entries[ways + 1]) ==
         ADDRESS_ENTERED);
  assert(entries[ways + 1] == entries[5]);
  /* A mark that its maker did not live to carry out or undo holds nothing up. */
  address_leave(&own, entries[5]);
  own.keys[entries[5]] |= 77;
  own.keys[entries[6]] |= 78;
  assert(address_enter(&own, &FIVE, clients[6].bytes, &entries[6]) == ADDRESS_ENTERED);
  assert((own.keys[entries[6]] & 2047) == 0);
  assert(address_enter(&other, &FIVE, clients[ways + 11].bytes, &entries[7]) == ADDRESS_ENTERED);
  assert(entries[7] == entries[5]);
  address_close(&own);
  address_close(&other);
  close_memory();
}

/* What only somebody who has the key could do: 100,000 addresses for a few sets, from each as many
 * connects as it is let in. Nobody elsewhere notices; who is there already stays itself; and one
 * connect costs the attacked no more than another does, since a set has an end. */
#define ATTACKED 16
#define ATTACKERS 100000

static void test_attack(void) {
  open_memory(2);
  address_table own = open_column(0), other = open_column(ADMISSION_SEATS);
  static address attackers[ATTACKERS];
  uint64_t key[2];
  memcpy(key, &header[ADMISSION_HASH_KEY], sizeof key);
  address bystanders[2 * ATTACKED]; /* two in each set that is attacked */
  int found[ATTACKED] = {0};
  size_t count = 0;
  for (uint32_t number = 1; count < ATTACKERS; number++) {
    address made = address_of(number);
    uint8_t named[4 + ADDRESS_BYTES] = {0};
    memcpy(named + 4, made.bytes, ADDRESS_BYTES);
    uint64_t set = siphash(key, named, sizeof named) % (ADDRESS_ENTRIES / ADDRESS_WAYS);
    if (set == 0 || set > ATTACKED) continue;
    if (found[set - 1] < 2) {
      bystanders[2 * (set - 1) + (uint64_t)found[set - 1]++] = made;
    } else {
      attackers[count++] = made;
    }
  }
  /* One of each pair is there before. */
  int32_t entry, there[ATTACKED];
  for (int i = 0; i < ATTACKED; i++)
    assert(address_enter(&own, &FIVE, bystanders[2 * i].bytes, &there[i]) == ADDRESS_ENTERED);
  int64_t admitted = 0, tries = 0, began = now_ns();
  for (size_t i = 0; i < ATTACKERS; i++) {
    for (int again = 0; again < FIVE.connections + 1; again++, tries++) {
      address_table *at = again % 2 ? &own : &other;
      if (address_enter(at, &FIVE, attackers[i].bytes, &entry) == ADDRESS_ENTERED) admitted++;
    }
  }
  double each = (double)(now_ns() - began) / (double)tries;
  /* As many as the sets have entries left, and the one entry that all others share. */
  assert(admitted == (ATTACKED * (ADDRESS_WAYS - 1) + 1) * FIVE.connections);
  /* Who was there has its own limit still, and a stranger in an attacked set shares the last. */
  for (int i = 0; i < ATTACKED; i++) {
    for (int more = 1; more < FIVE.connections; more++)
      assert(address_enter(&other, &FIVE, bystanders[2 * i].bytes, &entry) == ADDRESS_ENTERED &&
             entry == there[i]);
    assert(address_enter(&other, &FIVE, bystanders[2 * i].bytes, &entry) == ADDRESS_FULL);
    assert(address_enter(&own, &FIVE, bystanders[2 * i + 1].bytes, &entry) == ADDRESS_FULL);
  }
  /* Everybody else: unharmed, but for those whose set is one of the few. */
  int refused = 0, ordinary = 20000;
  began = now_ns();
  for (uint32_t number = 0; number < (uint32_t)ordinary; number++) {
    address client = address_of(0x80000000u + number);
    if (address_enter(&own, &FIVE, client.bytes, &entry) != ADDRESS_ENTERED) refused++;
  }
  double ordinary_each = (double)(now_ns() - began) / ordinary;
  assert(refused < 100);
  printf("%d addresses for %d sets: %lld of %lld connects let in, %.0f ns each; of %d others %d "
         "refused, %.0f ns each\n",
         ATTACKERS, ATTACKED, (long long)admitted, (long long)tries, each, ordinary, refused,
         ordinary_each);
  fflush(stdout);
  assert(each < 20 * ordinary_each);
  /* They go, and who was refused comes in. */
  assert(address_clear(memory, 0, ADMISSION_COLUMNS) == 0);
  for (int i = 0; i < ATTACKED; i++)
    assert(address_enter(&own, &FIVE, bystanders[2 * i + 1].bytes, &entry) == ADDRESS_ENTERED &&
           entry != ADDRESS_OVERFLOW);
  address_close(&own);
  address_close(&other);
  close_memory();
}

/* More than anybody has clients: all have their own entry or the shared one, and the memory stays
 * bounded. */
static void test_many(void) {
  open_memory(4);
  address_table columns[8];
  int overflowed = 0;
  for (int i = 0; i < 8; i++)
    columns[i] = open_column(column_of(i));
  for (uint32_t number = 0; number < 100000; number++) {
    address client = address_of(number);
    int32_t entry;
    address_verdict verdict = address_enter(&columns[number % 8], &FIVE, client.bytes, &entry);
    if (verdict != ADDRESS_ENTERED || entry == ADDRESS_OVERFLOW) overflowed++;
  }
  struct stat facts;
  assert(fstat(memory, &facts) == 0);
  long long mib = (long long)facts.st_blocks * 512 / (1024 * 1024);
  printf("100000 addresses: %d without an entry of their own, %lld MiB in 8 columns\n", overflowed,
         mib);
  fflush(stdout);
  assert(overflowed < 50 && mib <= 5 + 8);
  /* A worker's death gives everything back, its memory too. */
  assert(address_clear(memory, 0, ADMISSION_COLUMNS) == 0);
  assert(fstat(memory, &facts) == 0 && (long long)facts.st_blocks * 512 / (1024 * 1024) <= 5);
  for (int i = 0; i < 8; i++) {
    for (int32_t entry = 0; entry < ADDRESS_ENTRIES; entry++)
      assert(columns[i].counts[(size_t)columns[i].column * ADDRESS_ENTRIES + (size_t)entry] == 0);
    address_close(&columns[i]);
  }
  close_memory();
}

/* ---- several processes ---- */

#define WORKERS 6
#define CLIENTS 40
#define HELD 2
#define CAP 3

/* The model: per client, how many connections each worker has, 8 bits each in one word, so that a
 * worker changes its own and sees all in one step. Raised after the table has admitted, lowered
 * before it is left: never above the cap. */
typedef struct {
  uint64_t held[CLIENTS];
  int64_t admitted, refused, most, overflowed;
} model;

static model *truth;

static void observe(uint64_t word) {
  int64_t sum = 0;
  for (int worker = 0; worker < WORKERS; worker++)
    sum += word >> (8 * worker) & 255;
  assert(sum <= CAP);
  int64_t most = __atomic_load_n(&truth->most, __ATOMIC_SEQ_CST);
  while (sum > most && !__atomic_compare_exchange_n(&truth->most, &most, sum, false,
                                                    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
  }
}

/* Enters and leaves for ever, a few at a time, all of one set: there are more clients than entries,
 * but never more at once. */
static void work(int worker, const address *clients) {
  address_table own = open_column(column_of(worker));
  address_rule rule = {.connections = CAP, .prefix = 64};
  struct {
    uint32_t client;
    int32_t entry;
  } held[HELD];
  uint32_t count = 0;
  uint64_t one = UINT64_C(1) << (8 * worker);
  for (;;) {
    if (count < HELD && below(2)) {
      uint32_t client = below(4) ? below(CLIENTS) : below(3);
      int32_t entry;
      if (address_enter(&own, &rule, clients[client].bytes, &entry) == ADDRESS_ENTERED) {
        observe(__atomic_add_fetch(&truth->held[client], one, __ATOMIC_SEQ_CST));
        __atomic_add_fetch(&truth->admitted, 1, __ATOMIC_RELAXED);
        if (entry == ADDRESS_OVERFLOW) __atomic_add_fetch(&truth->overflowed, 1, __ATOMIC_RELAXED);
        held[count].client = client;
        held[count++].entry = entry;
      } else {
        __atomic_add_fetch(&truth->refused, 1, __ATOMIC_RELAXED);
      }
    } else if (count > 0) {
      uint32_t which = below(count);
      __atomic_sub_fetch(&truth->held[held[which].client], one, __ATOMIC_SEQ_CST);
      address_leave(&own, held[which].entry);
      held[which] = held[--count];
    }
  }
}

static pid_t hire(int worker, const address *clients) {
  pid_t pid = fork();
  assert(pid >= 0);
  if (pid > 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  state += (uint64_t)getpid() * 2654435761u;
  work(worker, clients);
  _exit(0);
}

/* As the primary does. The model first: what the dead one held is free only once its column is
 * empty. */
static void bury(int worker, pid_t pid) {
  int status;
  assert(kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid);
  assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  for (int client = 0; client < CLIENTS; client++)
    __atomic_fetch_and(&truth->held[client], ~(UINT64_C(255) << (8 * worker)), __ATOMIC_SEQ_CST);
  __atomic_add_fetch(&header[ADMISSION_MOVES], 1, __ATOMIC_SEQ_CST);
  assert(address_clear(memory, column_of(worker), 1) == 0);
}

static void test_deaths(int milliseconds) {
  open_memory(WORKERS / 2);
  truth = mmap(NULL, sizeof *truth, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  assert(truth != MAP_FAILED);
  address clients[CLIENTS];
  choose_colliding(clients, CLIENTS, 5000);
  pid_t workers[WORKERS];
  for (int worker = 0; worker < WORKERS; worker++)
    workers[worker] = hire(worker, clients);
  int deaths = 0;
  for (int64_t end = now_ns() + (int64_t)milliseconds * 1000000; now_ns() < end; deaths++) {
    usleep(500 + below(3000));
    int worker = (int)below(WORKERS);
    bury(worker, workers[worker]);
    workers[worker] = hire(worker, clients);
  }
  for (int worker = 0; worker < WORKERS; worker++)
    bury(worker, workers[worker]);
  /* Nothing is left behind: each may come up to its cap again. */
  address_table own = open_column(column_of(0));
  address_rule rule = {.connections = CAP, .prefix = 64};
  for (int client = 0; client < CLIENTS; client++) {
    int32_t entries[CAP + 1];
    for (int i = 0; i < CAP; i++)
      assert(address_enter(&own, &rule, clients[client].bytes, &entries[i]) == ADDRESS_ENTERED);
    assert(address_enter(&own, &rule, clients[client].bytes, &entries[CAP]) == ADDRESS_FULL);
    for (int i = 0; i < CAP; i++)
      address_leave(&own, entries[i]);
  }
  printf("%d deaths, %lld admitted, %lld of them without an entry, %lld refused, at most %lld of "
         "%d at once\n",
         deaths, (long long)truth->admitted, (long long)truth->overflowed,
         (long long)truth->refused, (long long)truth->most, CAP);
  fflush(stdout);
  fflush(stdout);
  assert(truth->most == CAP && truth->refused > 0);
  address_close(&own);
  munmap(truth, sizeof *truth);
  close_memory();
}

/* One client at its cap, whose connections wander between two workers, never uncounted: nobody else
 * gets in. */
static void test_moves(int milliseconds) {
  open_memory(2);
  address client = address_of(99), strangers[CLIENTS];
  address_rule rule = {.connections = CAP, .prefix = 64};
  pid_t mover = fork();
  assert(mover >= 0);
  if (mover == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    admission homes[2] = {{0}, {0}};
    int32_t caps[ADMISSION_ROWS] = {0}, entry = ADDRESS_NONE;
    for (int i = 0; i < 2; i++) {
      assert(admission_open(&homes[i], header, column_of(2 + i), caps) == 0);
      assert(admission_share(&homes[i], memory, -1) == 0);
      homes[i].rules[0] = rule;
    }
    for (int i = 0; i < CAP; i++)
      entry = admission_force(&homes[0], 0, client.bytes);
    for (int at = 0;; at = 1 - at) {
      for (int i = 0; i < CAP; i++) {
        int32_t next = admission_force(&homes[1 - at], 0, client.bytes);
        admission_hand_over(&homes[at], 0, entry);
        if (i == CAP - 1) entry = next;
      }
    }
  }
  address_table own = open_column(column_of(0));
  int32_t *row = header + ADMISSION_HEADER_WORDS;
  while (__atomic_load_n(&row[column_of(3)], __ATOMIC_SEQ_CST) == 0)
    continue;
  choose_colliding(strangers, CLIENTS, 99);
  int attempts = 0, admitted = 0;
  for (int64_t end = now_ns() + (int64_t)milliseconds * 1000000; now_ns() < end; attempts++) {
    int32_t entry;
    assert(address_enter(&own, &rule, client.bytes, &entry) == ADDRESS_FULL);
    /* Others take turns at what is free in its set. */
    uint32_t stranger = 1 + below(CLIENTS - 1);
    if (address_enter(&own, &rule, strangers[stranger].bytes, &entry) == ADDRESS_ENTERED)
      admitted++;
    address_leave(&own, entry);
  }
  /* A sum that moves disturb too often refuses: not the rule, even here, where they never pause. */
  assert(admitted > attempts / 2);
  assert(kill(mover, SIGKILL) == 0 && waitpid(mover, NULL, 0) == mover);
  printf("%d attempts at a client that wanders\n", attempts);
  address_close(&own);
  close_memory();
}

int main(int argc, char **argv) {
  state = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
  int milliseconds = argc > 2 ? atoi(argv[2]) : 2000;
  printf("seed %llu\n", (unsigned long long)state);
  fflush(stdout);
  test_hash();
  test_lists();
  test_prefixes();
  test_rate();

  test_overflow();
  test_many();
  test_attack();
  fflush(stdout);
  test_deaths(milliseconds);
  test_moves(milliseconds);
  printf("done\n");
  return 0;
}
