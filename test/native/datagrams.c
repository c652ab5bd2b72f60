/* Datagrams without Node, for a sanitizer to watch: random sizes, rules and records against real
 * sockets, where nothing may be lost, changed or at the wrong address; a kernel that is short of
 * room (sendmmsg is wrapped: loopback never is); and the table of sources against a model.
 *
 *   datagrams SEED STEPS */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../native/datagram.h"
#include "../../native/udp.h"

#define INPUT_BYTES (256 * 1024)
#define OUTPUT_BYTES (256 * 1024)
#define RECORDS 256
#define CLIENTS 16
#define LONGEST 1400

static uint64_t state;

static uint32_t below(uint32_t limit) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(state >> 33) % limit;
}

/* ---- a kernel that may be short of room ---- */

/* How many calls fail, and with what. */
static int failing, failure;

int __real_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags);
int __wrap_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags);

int __wrap_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags) {
  if (failing == 0) return __real_sendmmsg(fd, messages, count, flags);
  if (failing > 0) failing--;
  errno = failure;
  return -1;
}

/* ---- the engine ---- */

static int32_t header[HEADER_WORDS], input_records[RECORDS * INPUT_WORDS];
static int32_t output_records[RECORDS * OUTPUT_WORDS], generations[4], unsent[4];
static double totals[TOTAL_COUNT], slot_counters[4 * COUNTER_WORDS], counters[DATAGRAM_COUNTERS];
static uint8_t input[INPUT_BYTES] __attribute__((aligned(64)));
static uint8_t output[OUTPUT_BYTES] __attribute__((aligned(64)));
static int32_t sources[SOURCE_ENTRIES * SOURCE_WORDS];
static engine core;
static int server;
static struct sockaddr_in server_name;

static void open_all(uint32_t most, int32_t factor) {
  memset(counters, 0, sizeof counters);
  memset(header, 0, sizeof header);
  memset(sources, 0, sizeof sources);
  engine_memory memory = {.header = header,
                          .totals = totals,
                          .input = input,
                          .output = output,
                          .input_records = input_records,
                          .output_records = output_records,
                          .generations = generations,
                          .unsent = unsent,
                          .counters = slot_counters,
                          .input_bytes = INPUT_BYTES,
                          .output_bytes = OUTPUT_BYTES,
                          .input_records_max = RECORDS,
                          .output_records_max = RECORDS,
                          .slots = 4};
  assert(engine_open(&core, &memory) == 0);
  int32_t options[OPTION_COUNT];
  memset(options, -1, sizeof options);
  socket_address address;
  assert(socket_address_parse(&address, "127.0.0.1", 0) == 0);
  server = udp_bind(&address, true, options);
  assert(server >= 0 && socket_name(server, false, &address) == 0);
  server_name = address.v4;
  datagram_rule rule = {.most = most, .factor = factor, .counters = counters};
  assert(datagram_receive(&core, 0, 0, server) == -EINVAL);
  assert(datagram_rule_set(&core, 0, &rule, sources) == 0);
  assert(datagram_receive(&core, 0, 0, server) == 0);
  assert(datagram_receive(&core, 0, 0, server) == -EBUSY);
  assert(datagram_sender(&core, 0, server) == 0);
}

static void close_all(void) {
  engine_close(&core);
  close(server);
}

static int open_client(void) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  assert(fd >= 0 && connect(fd, (struct sockaddr *)&server_name, sizeof server_name) == 0);
  return fd;
}

/* Answers record `index` with its own bytes. */
static void echo(int index) {
  const int32_t *record = &input_records[index * INPUT_WORDS];
  assert(record[0] == INPUT_DATAGRAM && record[1] == 0);
  uint32_t size = (uint32_t)sizeof(datagram_end) + (uint32_t)record[3];
  uint32_t at = ((uint32_t)header[HEADER_OUTPUT_BYTES] + 7) / 8 * 8;
  if (at + size > OUTPUT_BYTES || header[HEADER_OUTPUT_RECORDS] == RECORDS) {
    engine_flush(&core);
    at = 0;
  }
  memcpy(output + at, input + record[2] - sizeof(datagram_end), size);
  int32_t *out = &output_records[header[HEADER_OUTPUT_RECORDS]++ * OUTPUT_WORDS];
  out[0] = OUTPUT_DATAGRAM;
  out[1] = 0;
  out[2] = 0;
  out[3] = (int32_t)at;
  out[4] = record[3];
  header[HEADER_OUTPUT_BYTES] = (int32_t)(at + size);
}

static int echo_round(void) {
  int count = engine_round(&core);
  for (int i = 0; i < count; i++)
    echo(i);
  engine_flush(&core);
  assert(header[HEADER_OUTPUT_RECORDS] == 0 && header[HEADER_OUTPUT_BYTES] == 0);
  return count;
}

/* ---- random traffic ---- */

static void fill(uint8_t *bytes, int client, uint32_t number, uint32_t length) {
  for (uint32_t i = 0; i < length; i++)
    bytes[i] = (uint8_t)((uint32_t)client * 31 + number * 7 + i);
}

static void test_traffic(long steps) {
  open_all(LONGEST, 3);
  int clients[CLIENTS];
  uint32_t sent[CLIENTS] = {0}, got[CLIENTS] = {0}, lengths[CLIENTS][64];
  uint8_t bytes[LONGEST + 200], expected[LONGEST];
  double truncated = 0, received = 0;
  for (int i = 0; i < CLIENTS; i++)
    clients[i] = open_client();
  for (long step = 0; step < steps; step++) {
    int client = (int)below(CLIENTS);
    if (below(8) == 0) {
      assert(send(clients[client], bytes, LONGEST + 1 + below(100), 0) > 0);
      truncated++;
    } else if (sent[client] - got[client] < 60) {
      uint32_t length = below(5) == 0 ? below(LONGEST + 1) : below(80);
      fill(bytes, client, sent[client], length);
      assert(send(clients[client], bytes, length, 0) == (ssize_t)length);
      lengths[client][sent[client]++ % 64] = length;
      received++;
    }
    if (below(20) == 0) {
      while (echo_round() > 0) {
      }
    }
    if (below(50) == 0) {
      assert(datagram_stop(&core, 0) == 0 && datagram_stop(&core, 0) == -EINVAL);
      int number = (int)below(200);
      assert(datagram_receive(&core, number, 0, server) == 0);
      assert(datagram_stop(&core, number) == 0 && datagram_receive(&core, 0, 0, server) == 0);
    }
    for (int i = 0; i < CLIENTS; i++) {
      for (ssize_t length; (length = recv(clients[i], bytes, sizeof bytes, 0)) >= 0; got[i]++) {
        assert(got[i] < sent[i] && (uint32_t)length == lengths[i][got[i] % 64]);
        fill(expected, i, got[i], (uint32_t)length);
        assert(memcmp(bytes, expected, (size_t)length) == 0);
      }
    }
  }
  while (echo_round() > 0) {
  }
  for (int i = 0; i < CLIENTS; i++) {
    while (recv(clients[i], bytes, sizeof bytes, 0) >= 0)
      got[i]++;
    assert(got[i] == sent[i]);
    close(clients[i]);
  }
  assert(counters[DATAGRAM_RECEIVED] == received && counters[DATAGRAM_SENT] == received);
  assert(counters[DATAGRAM_TRUNCATED] == truncated && udp_drops(server) == 0);
  assert(counters[DATAGRAM_FAILED] == 0 && counters[DATAGRAM_RETRIED] == 0);
  close_all();
}

/* ---- a shortage ---- */

static int receive_all(int client) {
  uint8_t bytes[64];
  int count = 0;
  while (recv(client, bytes, sizeof bytes, 0) >= 0)
    count++;
  return count;
}

static void wait_for_retry(void) {
  for (int i = 0; i < 1000 && header[HEADER_WAITING] > 0; i++) {
    usleep(1000);
    engine_round(&core);
  }
  assert(header[HEADER_WAITING] == 0);
}

static void test_shortage(int error) {
  open_all(100, 0);
  int client = open_client();
  failure = error;
  for (int i = 0; i < 5; i++)
    assert(send(client, "x", 1, 0) == 1);
  failing = 1;
  assert(echo_round() == 5);
  assert(counters[DATAGRAM_RETRIED] == 5 && header[HEADER_WAITING] == 5);
  assert(receive_all(client) == 0);
  wait_for_retry();
  assert(receive_all(client) == 5 && counters[DATAGRAM_SENT] == 5);
  assert(counters[DATAGRAM_DROPPED] == 0);
  /* Once, and no more. */
  for (int i = 0; i < 5; i++)
    assert(send(client, "x", 1, 0) == 1);
  failing = -1;
  assert(echo_round() == 5);
  wait_for_retry();
  failing = 0;
  assert(counters[DATAGRAM_DROPPED] == 5 && receive_all(client) == 0);
  /* Only so many wait. */
  failing = -1;
  for (int i = 0; i < DATAGRAMS_WAITING + 50; i++) {
    assert(send(client, "x", 1, 0) == 1);
    /* Its second attempt must not come meanwhile. */
    datagram_receive_queued(&core, 0);
    echo(0);
    engine_flush(&core);
  }
  assert(header[HEADER_WAITING] == DATAGRAMS_WAITING && counters[DATAGRAM_DROPPED] == 55);
  failing = 0;
  wait_for_retry();
  /* More than the client's buffer holds. */
  assert(counters[DATAGRAM_SENT] == 5 + DATAGRAMS_WAITING && receive_all(client) > 0);
  close(client);
  /* What waits when the engine is closed is freed. */
  client = open_client();
  assert(send(client, "x", 1, 0) == 1);
  failing = 1;
  assert(echo_round() == 1 && header[HEADER_WAITING] == 1);
  close(client);
  close_all();
}

static void test_failures(void) {
  open_all(100, 0);
  int client = open_client();
  /* Any other error concerns that datagram alone. */
  failure = EPERM;
  failing = 1;
  for (int i = 0; i < 3; i++)
    assert(send(client, "x", 1, 0) == 1);
  assert(echo_round() == 3);
  assert(counters[DATAGRAM_FAILED] == 1 && receive_all(client) == 2);
  failure = EINTR;
  failing = 3;
  assert(send(client, "x", 1, 0) == 1);
  assert(echo_round() == 1 && receive_all(client) == 1);
  /* Records that make no sense are no datagrams. */
  const int32_t wrong[][3] = {{64, 0, 1}, {-1, 0, 1},
                              {0, -8, 1}, {0, OUTPUT_BYTES - 64, 1},
                              {0, 0, -1}, {0, 0, DATAGRAM_MOST + 1},
                              {0, 4, 1},  {1, 0, 1}};
  double sent = counters[DATAGRAM_SENT];
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    int32_t *out = &output_records[header[HEADER_OUTPUT_RECORDS]++ * OUTPUT_WORDS];
    memcpy(out, (int32_t[]){OUTPUT_DATAGRAM, wrong[i][0], 0, wrong[i][1], wrong[i][2]}, 20);
  }
  engine_flush(&core);
  assert(counters[DATAGRAM_SENT] == sent);
  /* Without a socket nothing is sent, and that is counted. */
  assert(datagram_sender(&core, 0, -1) == 0 && datagram_sender(&core, 64, -1) == -EINVAL);
  assert(send(client, "x", 1, 0) == 1);
  assert(echo_round() == 1 && counters[DATAGRAM_FAILED] == 2);
  close(client);
  close_all();
}

/* ---- sources ---- */

#define MODEL 20000

static void test_sources(long steps) {
  source_table table;
  static int32_t words[SOURCE_ENTRIES * SOURCE_WORDS];
  static int64_t earned[MODEL];
  static int32_t generation[MODEL];
  memset(words, 0, sizeof words);
  assert(source_open(&table, words) == 0);
  uint8_t key[SOURCE_KEY_BYTES] = {0};
  uint32_t now = 4294900000u; /* the clock wraps */
  long evicted = 0;
  for (long step = 0; step < steps; step++) {
    uint32_t who = below(MODEL);
    memcpy(key, &who, sizeof who);
    now += below(3);
    int32_t before = source_find(&table, key), entry = source_take(&table, key, now);
    int32_t *word = &words[entry * SOURCE_WORDS];
    assert(entry >= 0 && entry < SOURCE_ENTRIES && (before == SOURCE_NONE || before == entry));
    assert(source_find(&table, key) == entry);
    if (before == SOURCE_NONE || generation[who] != word[SOURCE_GENERATION]) {
      if (earned[who] > 0) evicted++;
      earned[who] = 0;
      generation[who] = word[SOURCE_GENERATION];
    }
    /* Never more than it has earned. */
    assert(word[SOURCE_CREDIT] == SOURCE_VERIFIED || word[SOURCE_CREDIT] <= earned[who]);
    int64_t bytes = below(5000);
    source_earn(&table, entry, bytes);
    earned[who] += bytes;
    if (word[SOURCE_CREDIT] != SOURCE_VERIFIED && below(4) == 0) {
      int32_t spent = (int32_t)below((uint32_t)word[SOURCE_CREDIT] + 1);
      word[SOURCE_CREDIT] -= spent;
      earned[who] -= spent;
    }
  }
  /* Silent for too long, a verified source is so no more; one that is not is forgotten first. */
  uint32_t vip = MODEL + 1;
  memcpy(key, &vip, sizeof vip);
  int32_t entry = source_take(&table, key, now);
  words[entry * SOURCE_WORDS] = SOURCE_VERIFIED;
  source_earn(&table, entry, 10);
  for (uint32_t other = MODEL + 2; other < MODEL + 2 + 8 * SOURCE_ENTRIES; other++) {
    memcpy(key, &other, sizeof other);
    source_take(&table, key, now + 1);
  }
  memcpy(key, &vip, sizeof vip);
  assert(source_find(&table, key) == entry && words[entry * SOURCE_WORDS] == SOURCE_VERIFIED);
  assert(source_take(&table, key, now + SOURCE_SILENT_MS) == entry);
  assert(words[entry * SOURCE_WORDS] == SOURCE_VERIFIED);
  assert(source_take(&table, key, now + 2 * SOURCE_SILENT_MS + 1) == entry);
  assert(words[entry * SOURCE_WORDS] == 0);
  for (int i = 0; i < 10000; i++)
    source_earn(&table, entry, 65507LL * 1000);
  assert(words[entry * SOURCE_WORDS] == SOURCE_CREDIT_MOST);
  source_close(&table);
  printf("%ld sources lost their credit\n", evicted);
}

int main(int count, char **arguments) {
  state = count > 1 ? strtoull(arguments[1], NULL, 10) : 1;
  long steps = count > 2 ? strtol(arguments[2], NULL, 10) : 10000;
  test_traffic(steps);
  test_shortage(EAGAIN);
  test_shortage(ENOBUFS);
  test_failures();
  test_sources(steps * 10);
  printf("done\n");
  return 0;
}
