/* Random operations on an engine with real sockets, without Node: for a sanitizer to watch.
 *
 *   random [seed [steps]]
 *
 * One process is both ends: it plays JavaScript (owns slots, writes output records, reads input
 * records) and the peers (plain sockets). Every byte carries its stream's position, so that loss,
 * repetition and mixing of streams are seen at once. Prints the seed; exits 0 or aborts. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../native/engine.h"
#include "../../native/fds.h"

#define SLOTS 64
#define PEERS 96
#define INPUT_BYTES (3 * RECEIVE_SHARE)
#define OUTPUT_BYTES (256 * 1024)
#define INPUT_RECORDS 32
#define OUTPUT_RECORDS 128
#define LEFT_TO_KERNEL -1
#define NOBODY -1

static uint64_t state;

static uint32_t next_random(void) {
  state = state * 6364136223846793005ull + 1442695040888963407ull;
  return (uint32_t)(state >> 33);
}

static uint32_t below(uint32_t bound) {
  return next_random() % bound;
}

/* What a stream's byte at a position is. */
static uint8_t byte_at(uint32_t stream, uint64_t position) {
  uint64_t mixed = (stream * 2654435761u) ^ (position * 0x9e3779b97f4a7c15ull);
  return (uint8_t)(mixed >> 24);
}

/* ---- the peers ---- */

typedef struct {
  int fd;
  int slot; /* of the served end, or NOBODY */
  uint32_t stream;
  uint64_t sent, received;
  bool finished, broken;
} peer;

static peer peers[PEERS];

/* ---- what JavaScript would keep ---- */

typedef struct {
  bool owned, dead, ended, finishing, paused;
  bool held; /* the pause has been carried out */
  uint32_t generation, stream;
  int peer, listener;
  uint64_t sent, received;
} owner;

static owner owners[SLOTS];
static engine core;
static uint16_t port_number;
static uint32_t streams;
static int32_t header[HEADER_WORDS], input_records[INPUT_RECORDS * INPUT_WORDS];
static int32_t output_records[OUTPUT_RECORDS * OUTPUT_WORDS], generations[SLOTS], unsent[SLOTS];
static double totals[TOTAL_COUNT], counters[SLOTS * COUNTER_WORDS];
static uint8_t input[INPUT_BYTES], output[OUTPUT_BYTES];
static int32_t *table, caps_most, addresses_most;
static uint64_t checked, moved;
static bool addresses_watched;
static int wake_fd;

/* Where it counts: beside another worker, which holds some places already. */
#define OWN_COLUMN (ADMISSION_SEATS + 1)
#define CAP 60
#define TAKEN 10

static int32_t *cell(int row, int column) {
  return &table[ADMISSION_HEADER_WORDS + row * ADMISSION_COLUMNS + column];
}

/* ---- listening sockets: two of a group, and a copy of the first ---- */

#define WATCHES 3

static const struct {
  int number, listener;
} watches[WATCHES] = {{0, 0}, {WATCHES_MAX - 1, 0}, {100, 63}};

static int listening[WATCHES];
static bool watched[WATCHES];

static void watch_again(int index) {
  int linger_ms = below(2) ? -1 : (int)below(20);
  assert(listener_open(&core, watches[index].number, watches[index].listener, listening[index],
                       linger_ms) == 0);
  assert(listener_open(&core, watches[index].number, 0, listening[index], -1) == -EBUSY);
  watched[index] = true;
}

static void unwatch(int index) {
  assert(listener_close(&core, watches[index].number) == 0);
  assert(listener_close(&core, watches[index].number) == -EINVAL);
  watched[index] = false;
}

static void flush(void) {
  engine_flush(&core);
  assert(header[HEADER_OUTPUT_RECORDS] == 0 && header[HEADER_OUTPUT_BYTES] == 0);
  for (int i = 0; i < SLOTS; i++)
    owners[i].held = owners[i].paused;
}

static int32_t *add_record(int kind, int slot, uint32_t generation) {
  if (header[HEADER_OUTPUT_RECORDS] == OUTPUT_RECORDS) flush();
  int32_t *record = &output_records[header[HEADER_OUTPUT_RECORDS]++ * OUTPUT_WORDS];
  memset(record, 0, OUTPUT_WORDS * sizeof *record);
  record[0] = kind;
  record[1] = slot;
  record[2] = (int32_t)generation;
  return record;
}

/* ---- input records ---- */

static void learn_peer(int slot) {
  socket_address address;
  engine_peer(engine_slot(&core, (uint32_t)slot, owners[slot].generation), &address);
  for (int i = 0; i < PEERS; i++) {
    struct sockaddr_in own, other;
    socklen_t length = sizeof own;
    if (peers[i].fd < 0 || peers[i].slot != NOBODY) continue;
    /* A socket that was reset keeps its name, while the port may be another's by now. */
    socklen_t other_length = sizeof other;
    if (getpeername(peers[i].fd, (struct sockaddr *)&other, &other_length) != 0) continue;
    if (getsockname(peers[i].fd, (struct sockaddr *)&own, &length) != 0) continue;
    if (own.sin_port != address.v4.sin_port) continue;
    owners[slot].peer = i;
    peers[i].slot = slot;
    return;
  }
}

static void on_accept(int slot, int listener) {
  assert(!owners[slot].owned && (listener == 0 || listener == 63));
  uint32_t generation = (uint32_t)generations[slot];
  owners[slot] = (owner){.owned = true,
                         .generation = generation,
                         .stream = generation * SLOTS + (uint32_t)slot,
                         .peer = NOBODY,
                         .listener = listener};
  learn_peer(slot);
}

static void on_data(int slot, int32_t offset, int32_t length) {
  owner *own = &owners[slot];
  assert(offset >= 0 && length > 0 && offset + length <= INPUT_BYTES && length <= RECEIVE_SHARE);
  if (!own->owned) return;
  assert(!own->ended && !own->dead && !own->held);
  if (own->peer == NOBODY) return;
  for (int32_t i = 0; i < length; i++, own->received++, checked++)
    assert(input[offset + i] == byte_at(peers[own->peer].stream, own->received));
}

static void forget_owner(int slot) {
  int index = owners[slot].peer;
  if (index != NOBODY && peers[index].slot == slot) peers[index].slot = NOBODY;
  owners[slot].owned = false;
}

static void read_records(int count) {
  for (int i = 0; i < count; i++) {
    const int32_t *record = &input_records[i * INPUT_WORDS];
    int slot = record[1];
    owner *own = &owners[slot];
    switch (record[0]) {
    case INPUT_ACCEPT:
      on_accept(slot, record[2]);
      break;
    case INPUT_DATA:
      on_data(slot, record[2], record[3]);
      break;
    case INPUT_END:
      if (own->owned) {
        assert(!own->ended && !own->dead);
        own->ended = true;
        /* Everything that a peer sent before an orderly end has come. */
        if (own->peer != NOBODY && peers[own->peer].finished && !peers[own->peer].broken)
          assert(own->received == peers[own->peer].sent);
      }
      break;
    case INPUT_ERROR:
      assert(record[2] > 0);
      if (own->owned) {
        assert(!own->dead);
        own->dead = true;
      }
      break;
    case INPUT_ACCEPT_ERROR:
    case INPUT_WRITABLE:
    case INPUT_BLOCKED:
    case INPUT_CONNECTED:
      break;
    default:
      abort();
    }
  }
}

/* ---- what JavaScript might order ---- */

static void order_send(int slot) {
  owner *own = &owners[slot];
  uint32_t length = below(4) == 0 ? below(OUTPUT_BYTES / 4) : below(300);
  if (own->finishing) return;
  if (below(8) == 0) {
    static uint8_t large[OUTPUT_BYTES * 2];
    flush();
    length = below(sizeof large);
    for (uint32_t i = 0; i < length; i++)
      large[i] = byte_at(own->stream, own->sent + i);
    slot_state before = (slot_state)core.slots[slot].state;
    assert(before == SLOT_OPEN || before == SLOT_DEAD);
    unsent[slot] += (int32_t)length;
    conn_send(&core, &core.slots[slot], large, length);
  } else {
    if ((uint32_t)header[HEADER_OUTPUT_BYTES] + length > OUTPUT_BYTES) flush();
    /* Before the offset: a full list is flushed by this, and with it the arena. */
    int32_t *record =
        add_record(below(5) == 0 ? OUTPUT_SEND_ALONE : OUTPUT_SEND, slot, own->generation);
    int32_t offset = header[HEADER_OUTPUT_BYTES];
    for (uint32_t i = 0; i < length; i++)
      output[(uint32_t)offset + i] = byte_at(own->stream, own->sent + i);
    record[3] = offset;
    record[4] = (int32_t)length;
    header[HEADER_OUTPUT_BYTES] += (int32_t)length;
    unsent[slot] += (int32_t)length;
  }
  own->sent += length;
}

/* Gives a connection up, and takes it over again as a worker that was handed it would; or not. */
static void move(int slot) {
  owner own = owners[slot];
  engine_released released;
  flush();
  if (engine_release(&core, (uint32_t)slot, own.generation, &released) != 0) return;
  assert(released.place.counted);
  forget_owner(slot);
  int next = -EBADF;
  if (below(3)) {
    if (below(2)) {
      engine_leave(&core, own.listener, released.place.entry);
      own.listener = below(2) ? 0 : 63;
      released.place = (engine_place){.counted = false, .entry = ADDRESS_NONE};
    }
    next = engine_adopt(&core, own.listener, released.fd, NULL, released.place);
    assert(next >= 0 || next == -ENOSPC);
  }
  if (next < 0) {
    if (own.peer != NOBODY) peers[own.peer].broken = true;
    if (released.place.counted) engine_leave(&core, own.listener, released.place.entry);
    close(released.fd);
  } else {
    moved++;
    own.generation = (uint32_t)generations[next];
    /* The end of a stream is told again, and pauses are the new owner's business. */
    own.ended = own.paused = own.held = false;
    owners[next] = own;
    if (own.peer != NOBODY) peers[own.peer].slot = next;
    unsent[next] += (int32_t)released.length;
    if (released.length > 0) conn_send(&core, &core.slots[next], released.unsent, released.length);
    if (own.finishing) add_record(OUTPUT_FINISH, next, own.generation);
  }
  free(released.unsent);
}

static void order(int slot) {
  owner *own = &owners[slot];
  switch (below(16)) {
  case 0:
    add_record(OUTPUT_PAUSE, slot, own->generation);
    own->paused = true;
    break;
  case 1:
  case 2:
    add_record(OUTPUT_RESUME, slot, own->generation);
    own->paused = false;
    break;
  case 3:
    add_record(OUTPUT_NOTIFY, slot, own->generation)[3] = (int32_t)(1 + below(100000));
    break;
  case 4:
    if (below(3) == 0) {
      add_record(OUTPUT_FINISH, slot, own->generation);
      own->finishing = true;
    }
    break;
  case 5:
    add_record(OUTPUT_CLOSE, slot, own->generation)[3] = (int32_t)below(50);
    forget_owner(slot);
    break;
  case 6:
    if (below(3) == 0) {
      add_record(OUTPUT_RESET, slot, own->generation);
      if (own->peer != NOBODY) peers[own->peer].broken = true;
      forget_owner(slot);
    }
    break;
  case 7:
    /* Nonsense and stale records: nothing may come of them. */
    add_record((int)below(12), (int)below(2 * SLOTS) - 3, next_random());
    if (below(4) == 0) {
      int32_t *record = add_record(OUTPUT_SEND, slot, own->generation);
      record[3] = OUTPUT_BYTES - 1;
      record[4] = below(2) ? 2 : -1;
    }
    add_record(OUTPUT_CLOSE, slot, own->generation - 2);
    break;
  case 8:
    if (below(4) == 0) move(slot);
    break;
  default:
    order_send(slot);
  }
}

/* ---- what peers might do ---- */

static void hang_up(peer *each) {
  close(each->fd);
  if (each->slot != NOBODY) owners[each->slot].peer = NOBODY;
  *each = (peer){.fd = -1, .slot = NOBODY};
}

static void open_peer(peer *each) {
  int32_t options[OPTION_COUNT];
  for (int i = 0; i < OPTION_COUNT; i++)
    options[i] = LEFT_TO_KERNEL;
  if (below(3) == 0) options[OPTION_SEND_BUFFER] = 4096;
  if (below(2)) options[OPTION_RECEIVE_BUFFER] = 4096;
  if (below(2)) options[OPTION_SEND_BUFFER] = 300000;
  socket_address address;
  assert(socket_address_parse(&address, "127.0.0.1", port_number) == 0);
  int fd = socket_connect(&address, NULL, options);
  if (fd < 0) return;
  *each = (peer){.fd = fd, .slot = NOBODY, .stream = 1u << 24 | ++streams};
}

static void peer_receives(peer *each) {
  static uint8_t bytes[100000];
  ssize_t received = recv(each->fd, bytes, 1 + below(sizeof bytes), MSG_DONTWAIT);
  if (received <= 0 || each->slot == NOBODY) {
    if (received > 0) each->received += (uint64_t)received;
    return;
  }
  owner *own = &owners[each->slot];
  for (ssize_t i = 0; i < received; i++, each->received++, checked++)
    assert(bytes[i] == byte_at(own->stream, each->received));
}

static void peer_sends(peer *each) {
  static uint8_t bytes[200000];
  uint32_t length = below(4) == 0 ? below(sizeof bytes) : below(2000);
  if (each->finished) return;
  for (uint32_t i = 0; i < length; i++)
    bytes[i] = byte_at(each->stream, each->sent + i);
  ssize_t sent = send(each->fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent > 0) each->sent += (uint64_t)sent;
}

static void act_as_peer(peer *each) {
  if (each->fd < 0) {
    open_peer(each);
    return;
  }
  switch (below(20)) {
  case 0:
    if (!each->finished && shutdown(each->fd, SHUT_WR) == 0) each->finished = true;
    break;
  case 1:
    if (below(2)) socket_make_reset(each->fd);
    hang_up(each);
    break;
  case 2:
    if (!each->finished) send(each->fd, "", 0, MSG_NOSIGNAL);
    break;
  case 3:
  case 4:
  case 5:
  case 6:
  case 7:
  case 8:
  case 9:
    peer_receives(each);
    break;
  default:
    peer_sends(each);
  }
}

/* ---- invariants ---- */

/* The list of closing slots, read from both ends. */
static void check_closing(int closing) {
  int forwards = 0, backwards = 0;
  for (int32_t i = core.closing.first; i != NONE; i = core.slots[i].close_after, forwards++)
    assert(core.slots[i].state == SLOT_CLOSING);
  for (int32_t i = core.closing.last; i != NONE; i = core.slots[i].close_before)
    backwards++;
  assert(forwards == closing && backwards == closing);
}

static void check_invariants(void) {
  int in_use = 0, counted = 0, closing = 0;
  int32_t addresses = 0;
  double held = 0;
  for (uint32_t i = 0; i < core.used; i++) {
    const slot *conn = &core.slots[i];
    if (conn->state == SLOT_FREE) {
      assert(!owners[i].owned || header[HEADER_OUTPUT_RECORDS] > 0);
      continue;
    }
    in_use++;
    held += conn->unsent_size;
    if (conn->state == SLOT_CLOSING) closing++;
    if (conn->flags & FLAG_COUNTED) counted++;
    if (conn->entry != ADDRESS_NONE) addresses++;
    if (conn->state == SLOT_DEAD || conn->state == SLOT_OPEN)
      assert((uint32_t)generations[i] == conn->generation);
    if (conn->state == SLOT_OPEN && header[HEADER_OUTPUT_RECORDS] == 0)
      assert(unsent[i] == (int32_t)(conn->unsent_to - conn->unsent_from));
    assert(conn->unsent_from <= conn->unsent_to && conn->unsent_to <= conn->unsent_size);
    assert((conn->unsent == NULL) == (conn->unsent_size == 0));
  }
  assert(totals[TOTAL_BYTES_HELD_OUT] == held);
  assert(in_use == header[HEADER_OPEN] && totals[TOTAL_OPEN] == in_use);
  assert(*cell(0, OWN_COLUMN) == counted);
  assert(*cell(1, OWN_COLUMN) + *cell(64, OWN_COLUMN) == counted);
  int32_t sum = 0;
  const int32_t *column = core.admission.addresses.counts + (size_t)OWN_COLUMN * ADDRESS_ENTRIES;
  for (int32_t entry = 0; addresses_watched && entry < ADDRESS_ENTRIES; entry++)
    sum += column[entry];
  if (addresses_watched) assert(sum == addresses);
  if (addresses > addresses_most) addresses_most = addresses;
  if (counted > caps_most) caps_most = counted;
  check_closing(closing);
  int32_t queued = 0;
  for (int32_t i = core.ready.first; i != NONE; i = core.slots[i].next)
    queued++;
  assert(queued == core.ready_count);
}

static void open_engine(void) {
  engine_memory memory = {.header = header,
                          .totals = totals,
                          .input = input,
                          .output = output,
                          .input_records = input_records,
                          .output_records = output_records,
                          .generations = generations,
                          .unsent = unsent,
                          .counters = counters,
                          .input_bytes = INPUT_BYTES,
                          .output_bytes = OUTPUT_BYTES,
                          .input_records_max = INPUT_RECORDS,
                          .output_records_max = OUTPUT_RECORDS,
                          .slots = SLOTS};
  assert(engine_open(&core, &memory) == 0);
  static const int32_t caps[ADMISSION_ROWS] = {CAP};
  void *memory_of_table;
  int shared = fds_memory("table", address_memory_size());
  wake_fd = fds_event();
  assert(fds_map(shared, 0, ADDRESS_OFFSET, &memory_of_table) == 0);
  table = memory_of_table;
  table[ADMISSION_HIGH_WATER] = 1;
  table[ADMISSION_HIGH_WATER1] = OWN_COLUMN % ADMISSION_SEATS + 1;
  *cell(0, 0) = TAKEN;
  assert(admission_open(&core.admission, table, OWN_COLUMN, caps) == 0);
  assert(engine_share(&core, shared, wake_fd) == 0);
  close(shared);
}

/* Another configuration: limits of addresses, and what becomes of those who find no place. */
static void change_rules(void) {
  for (int listener = 0; listener < ADMISSION_LISTENERS; listener += ADMISSION_LISTENERS - 1) {
    address_rule rule = {.connections = below(3) ? (int32_t)below(40) : 0,
                         .interval_ns = below(2) ? 1000 : 0,
                         .burst_ns = 1000 * (1 + below(3)),
                         .space = below(2),
                         .prefix = 64,
                         .named_later = below(3) == 0};
    assert(engine_rule(&core, listener, &rule, (int)below(3)) == 0);
    static const uint8_t starts[2][CIDR_BYTES] = {{0}, {[15] = 1}};
    uint8_t denied[2] = {below(2), below(20) == 0};
    assert(cidr_set(&core.admission.lists[listener], starts[0], denied, below(2) * 2) == 0);
  }
}

/* A proxy names the client of a connection. */
static void name_client(int slot) {
  socket_address client;
  char host[16];
  snprintf(host, sizeof host, "10.0.0.%u", below(20));
  assert(socket_address_parse(&client, host, 7) == 0);
  int verdict = engine_admit(&core, (uint32_t)slot, owners[slot].generation, &client);
  assert(verdict >= -EBADF && verdict != -EINVAL && verdict < ADMISSION_VERDICTS);
}

int main(int argc, char **argv) {
  uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
  int steps = argc > 2 ? atoi(argv[2]) : 20000;
  printf("seed %llu steps %d\n", (unsigned long long)seed, steps);
  fflush(stdout);
  state = seed;
  for (int i = 0; i < PEERS; i++)
    peers[i] = (peer){.fd = -1, .slot = NOBODY};
  open_engine();
  int32_t options[OPTION_COUNT];
  for (int i = 0; i < OPTION_COUNT; i++)
    options[i] = LEFT_TO_KERNEL;
  options[OPTION_BACKLOG] = 128;
  options[OPTION_SEND_BUFFER] = 8192;
  socket_address address;
  assert(socket_address_parse(&address, "127.0.0.1", 0) == 0);
  listening[0] = socket_listen(&address, true, options);
  assert(listening[0] >= 0 && socket_name(listening[0], false, &address) == 0);
  port_number = ntohs(address.v4.sin_port);
  listening[1] = socket_listen(&address, false, options);
  listening[2] = dup(listening[0]);
  for (int i = 0; i < WATCHES; i++)
    watch_again(i);

  for (int step = 0; step < steps; step++) {
    switch (below(8)) {
    case 0:
    case 1:
    case 2:
      act_as_peer(&peers[below(PEERS)]);
      break;
    case 3:
    case 4: {
      int slot = (int)below(SLOTS);
      if (owners[slot].owned) order(slot);
      break;
    }
    case 5:
      if (below(3) == 0) engine_tick(&core);
      if (below(2)) flush();
      break;
    default:
      read_records(engine_round(&core));
      if (below(4)) flush();
      check_invariants();
    }
    if (below(200) == 0) change_rules();
    if (below(20) == 0) {
      int slot = (int)below(SLOTS);
      if (owners[slot].owned) name_client(slot);
    }
    /* Every count of an address, now and then: there are many. */
    addresses_watched = step % 500 == 0;
    if (addresses_watched) check_invariants();
    addresses_watched = false;
    /* Now and then everybody at once: more than one round can take. */
    if (below(100) == 0)
      for (int i = 0; i < PEERS; i++)
        if (peers[i].fd >= 0) peer_sends(&peers[i]);
    if (below(100) == 0)
      for (int slot = 0; slot < SLOTS; slot++)
        if (owners[slot].owned)
          add_record(OUTPUT_NOTIFY, slot, owners[slot].generation)[3] = INT32_MAX;
    if (below(500) == 0) {
      int index = (int)below(WATCHES);
      if (watched[index]) {
        if (below(2)) read_records(engine_accept_queued(&core, watches[index].number));
        unwatch(index);
      } else {
        watch_again(index);
      }
    }
  }
  for (int i = 0; i < WATCHES; i++)
    if (!watched[i]) watch_again(i);
  /* The end: everyone hangs up; every slot must come back without a descriptor left. */
  flush();
  for (int i = 0; i < PEERS; i++)
    if (peers[i].fd >= 0) hang_up(&peers[i]);
  for (int turn = 0; turn < 2000 && (header[HEADER_OPEN] > 0 || turn < 3); turn++) {
    read_records(engine_round(&core));
    for (int slot = 0; slot < SLOTS; slot++) {
      if (!owners[slot].owned) continue;
      add_record(OUTPUT_CLOSE, slot, owners[slot].generation)[3] = 1;
      forget_owner(slot);
    }
    flush();
    usleep(1000);
    engine_tick(&core);
  }
  check_invariants();
  assert(header[HEADER_OPEN] == 0 && *cell(0, OWN_COLUMN) == 0 && caps_most <= CAP - TAKEN);
  addresses_watched = true;
  check_invariants();
  assert(addresses_most > 0);
  engine_close(&core);
  munmap(table, ADDRESS_OFFSET);
  close(wake_fd);
  for (int i = 0; i < WATCHES; i++)
    close(listening[i]);
  /* 0, 1 and 2 are what is left. */
  int lowest = dup(0);
  assert(lowest == 3);
  close(lowest);
  printf("checked %llu bytes, accepted %.0f, rejected %.0f, moved %llu\n",
         (unsigned long long)checked, totals[TOTAL_ACCEPTED], totals[TOTAL_REJECTED],
         (unsigned long long)moved);
  return 0;
}
