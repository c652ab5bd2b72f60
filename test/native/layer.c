/* Connections with a stream layer, without Node and without TLS: for a sanitizer to watch.
 *
 * The layer here turns every byte over (xor) and takes some as orders: 'H' secures, 'E' is the
 * peer's last, 'F' fails with an alert, 'A' has it answer by itself. One process is both ends. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../native/engine.h"

#define SLOTS 8
#define INPUT_BYTES (4 * RECEIVE_SHARE)
#define OUTPUT_BYTES (1 << 20)
#define RECORDS 64
#define MASK 0x80
#define ANSWER 1000

/* ---- the layer ---- */

typedef struct {
  stream base;
  uint32_t calls;
} fake;

static uint8_t made[STREAM_BATCH + ANSWER * 64];
static int living;

static void give(stream *self, uint32_t length) {
  self->output = made;
  self->output_length = length;
}

static uint32_t fake_receive(stream *self, const uint8_t *bytes, uint32_t length, uint8_t *plain,
                             uint32_t size) {
  uint32_t written = 0, answered = 0;
  ((fake *)self)->calls++;
  assert(size >= length);
  give(self, 0);
  for (uint32_t i = 0; i < length && !self->ended && !self->failed; i++) {
    uint8_t byte = bytes[i] ^ MASK;
    if (byte == 'H') {
      self->secured = true;
    } else if (byte == 'E') {
      self->ended = true;
    } else if (byte == 'F') {
      self->failed = true;
      self->error = "ordered to fail";
      memcpy(made, "alert", 5);
      answered = 5;
    } else if (byte == 'A') {
      memset(made + answered, 'a', ANSWER);
      answered += ANSWER;
    } else if (self->secured) {
      plain[written++] = byte;
    }
  }
  give(self, answered);
  return written;
}

static bool fake_send(stream *self, const uint8_t *plain, uint32_t length) {
  assert(length <= STREAM_BATCH);
  give(self, 0);
  if (!self->secured) return false;
  for (uint32_t i = 0; i < length; i++)
    made[i + 1] = plain[i] ^ MASK;
  made[0] = '[';
  made[length + 1] = ']';
  give(self, length + 2);
  return true;
}

static void fake_finish(stream *self) {
  made[0] = '.';
  give(self, self->secured ? 1 : 0);
}

static void fake_free(stream *self) {
  living--;
  free(self);
}

static const stream_ops OPS = {
    .receive = fake_receive, .send = fake_send, .finish = fake_finish, .free = fake_free};

static stream *make_layer(const void *early, uint32_t length) {
  fake *self = calloc(1, sizeof *self);
  self->base.ops = &OPS;
  if (length > 0) {
    self->base.early = malloc(length);
    memcpy(self->base.early, early, length);
    self->base.early_to = length;
  }
  living++;
  return &self->base;
}

/* ---- the engine and its ends ---- */

static engine core;
static int32_t header[HEADER_WORDS], input_records[RECORDS * INPUT_WORDS];
static int32_t output_records[RECORDS * OUTPUT_WORDS], generations[SLOTS], unsent[SLOTS];
static double totals[TOTAL_COUNT], counters[SLOTS * COUNTER_WORDS];
static uint8_t input[INPUT_BYTES], output[OUTPUT_BYTES];

static void start(void) {
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
                          .input_records_max = RECORDS,
                          .output_records_max = RECORDS,
                          .slots = SLOTS};
  assert(engine_open(&core, &memory) == 0);
}

typedef struct {
  int far, slot;
  uint32_t generation;
  char heard[64]; /* a letter per record */
  uint8_t got[1 << 20];
  uint32_t got_length;
} end;

static end ends[2];

static void open_end(end *self) {
  int pair[2];
  memset(self, 0, sizeof *self);
  assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0);
  self->far = pair[0];
  self->slot = engine_adopt(&core, 0, pair[1], NULL, (engine_place){.entry = ADDRESS_NONE});
  assert(self->slot >= 0);
  self->generation = (uint32_t)generations[self->slot];
}

static void hear(const int32_t *record) {
  static const char LETTERS[] = "?DAeXCWbfS";
  for (size_t i = 0; i < 2; i++) {
    end *self = &ends[i];
    if (self->slot != record[1]) continue;
    size_t length = strlen(self->heard);
    assert(length + 1 < sizeof self->heard);
    bool more = record[0] == INPUT_DATA && length > 0 && self->heard[length - 1] == 'D';
    if (!more) self->heard[length] = LETTERS[record[0]];
    if (record[0] != INPUT_DATA) continue;
    assert((uint32_t)record[3] <= RECEIVE_SHARE);
    memcpy(self->got + self->got_length, input + record[2], (size_t)record[3]);
    self->got_length += (uint32_t)record[3];
  }
}

static void rounds(void) {
  for (int idle = 0; idle < 3;) {
    int count = engine_round(&core);
    for (int i = 0; i < count; i++)
      hear(&input_records[i * INPUT_WORDS]);
    engine_flush(&core);
    idle = count == 0 && engine_backlog(&core) == 0 ? idle + 1 : 0;
  }
}

static void order(end *self, int kind, int a, int b) {
  int32_t record[] = {kind, self->slot, (int32_t)self->generation, a, b};
  memcpy(&output_records[header[HEADER_OUTPUT_RECORDS]++ * OUTPUT_WORDS], record, sizeof record);
}

static void say(const end *self, const char *text) {
  for (; *text; text++) {
    uint8_t byte = (uint8_t)*text ^ MASK;
    assert(send(self->far, &byte, 1, MSG_NOSIGNAL) == 1);
  }
}

static void send_text(end *self, const char *text) {
  uint32_t at = (uint32_t)header[HEADER_OUTPUT_BYTES], length = (uint32_t)strlen(text);
  memcpy(output + at, text, length);
  header[HEADER_OUTPUT_BYTES] += (int32_t)length;
  unsent[self->slot] += (int32_t)length;
  order(self, OUTPUT_SEND, (int)at, (int)length);
}

/* What arrived at the far end, texts turned back. */
static const char *arrived(const end *self) {
  static char text[1 << 16];
  ssize_t length = recv(self->far, text, sizeof text - 1, 0);
  if (length < 0) return errno == EAGAIN ? "" : "reset";
  for (ssize_t i = 0; i < length; i++)
    if (text[i] & MASK) text[i] = (char)((uint8_t)text[i] ^ MASK);
  text[length] = 0;
  return length == 0 ? "FIN" : text;
}

static stream *put_layer(end *self, const void *early, uint32_t length) {
  stream *layer = make_layer(early, length);
  assert(engine_secure(&core, (uint32_t)self->slot, self->generation, layer) == 0);
  return layer;
}

static slot *slot_of(const end *self) {
  return &core.slots[self->slot];
}

static void end_all(void) {
  for (size_t i = 0; i < 2; i++)
    if (ends[i].far > 0) close(ends[i].far);
  rounds();
  memset(ends, 0, sizeof ends);
  ends[0].slot = ends[1].slot = NONE;
}

/* ---- what is promised ---- */

static void test_there_and_back(void) {
  open_end(&ends[0]);
  put_layer(&ends[0], NULL, 0);
  engine_released released;
  assert(engine_release(&core, (uint32_t)ends[0].slot, ends[0].generation, &released) ==
         -EOPNOTSUPP);
  assert(engine_secure(&core, (uint32_t)ends[0].slot, ends[0].generation, NULL) == -EALREADY);
  assert(engine_secure(&core, (uint32_t)ends[0].slot, ends[0].generation + 1, NULL) == -EBADF);
  say(&ends[0], "ignoredHhello");
  rounds();
  assert(strcmp(ends[0].heard, "SD") == 0 && memcmp(ends[0].got, "hello", 5) == 0);
  assert(counters[ends[0].slot * COUNTER_WORDS + COUNTER_RECEIVED] == 5);
  send_text(&ends[0], "one");
  order(&ends[0], OUTPUT_NOTIFY, 1, 0);
  send_text(&ends[0], "two");
  rounds();
  assert(strcmp(arrived(&ends[0]), "[onetwo]") == 0);
  assert(unsent[ends[0].slot] == 0);
  assert(counters[ends[0].slot * COUNTER_WORDS + COUNTER_SENT] == 6);
  order(&ends[0], OUTPUT_FINISH, 0, 0);
  rounds();
  assert(strcmp(arrived(&ends[0]), ".") == 0 && strcmp(arrived(&ends[0]), "FIN") == 0);
  say(&ends[0], "moreE");
  rounds();
  assert(strcmp(ends[0].heard, "SDWDe") == 0);
  order(&ends[0], OUTPUT_CLOSE, 1000, 0);
  engine_flush(&core);
  assert(slot_of(&ends[0])->state == SLOT_FREE && living == 0);
  end_all();
}

static void test_early(void) {
  static uint8_t early[3 * RECEIVE_SHARE];
  memset(early, 'x' ^ MASK, sizeof early);
  early[0] = 'H' ^ MASK;
  open_end(&ends[0]);
  put_layer(&ends[0], early, sizeof early);
  order(&ends[0], OUTPUT_PAUSE, 0, 0);
  engine_flush(&core);
  rounds();
  assert(strcmp(ends[0].heard, "") == 0);
  say(&ends[0], "y");
  order(&ends[0], OUTPUT_RESUME, 0, 0);
  rounds();
  assert(strcmp(ends[0].heard, "SD") == 0 && ends[0].got_length == sizeof early);
  assert(ends[0].got[sizeof early - 1] == 'y');
  order(&ends[0], OUTPUT_RESET, 0, 0);
  engine_flush(&core);
  assert(living == 0);
  end_all();
}

static void test_failure(void) {
  open_end(&ends[0]);
  put_layer(&ends[0], NULL, 0);
  say(&ends[0], "HbeforeFafter");
  rounds();
  assert(strcmp(ends[0].heard, "SDX") == 0 && memcmp(ends[0].got, "before", 6) == 0);
  assert(strcmp(slot_of(&ends[0])->stream->error, "ordered to fail") == 0);
  assert(strcmp(arrived(&ends[0]), "alert") == 0 && strcmp(arrived(&ends[0]), "FIN") == 0);
  say(&ends[0], "what is on its way");
  send_text(&ends[0], "too late");
  order(&ends[0], OUTPUT_CLOSE, 1000, 0);
  rounds();
  assert(slot_of(&ends[0])->state == SLOT_CLOSING);
  close(ends[0].far);
  ends[0].far = 0;
  rounds();
  assert(slot_of(&ends[0])->state == SLOT_FREE && living == 0);
  end_all();
}

/* The far end does not read: the alert cannot leave, and the descriptor goes at once. */
static void test_failure_while_blocked(void) {
  open_end(&ends[0]);
  put_layer(&ends[0], NULL, 0);
  say(&ends[0], "H");
  rounds();
  memset(output, 'x', OUTPUT_BYTES);
  for (int i = 0; i < 4; i++) {
    unsent[ends[0].slot] += OUTPUT_BYTES;
    order(&ends[0], OUTPUT_SEND, 0, OUTPUT_BYTES);
  }
  rounds();
  assert(strcmp(ends[0].heard, "Sb") == 0 && unsent[ends[0].slot] > OUTPUT_BYTES);
  say(&ends[0], "F");
  rounds();
  assert(strcmp(ends[0].heard, "SbX") == 0);
  assert(slot_of(&ends[0])->fd == -1 && unsent[ends[0].slot] == 0);
  assert(totals[TOTAL_BYTES_HELD_OUT] == 0);
  order(&ends[0], OUTPUT_CLOSE, 1000, 0);
  rounds();
  assert(living == 0);
  end_all();
}

/* Answers that are not read are bounded; those that are read may be as many as the peer likes. */
static void test_answers(void) {
  open_end(&ends[0]);
  put_layer(&ends[0], NULL, 0);
  say(&ends[0], "H");
  rounds();
  for (int i = 0; i < 100; i++) {
    say(&ends[0], "A");
    rounds();
    assert(strlen(arrived(&ends[0])) == ANSWER);
  }
  assert(strcmp(ends[0].heard, "S") == 0);
  memset(output, 'x', OUTPUT_BYTES);
  unsent[ends[0].slot] += OUTPUT_BYTES;
  order(&ends[0], OUTPUT_SEND, 0, OUTPUT_BYTES);
  rounds();
  for (int i = 0; i < 100 && !strchr(ends[0].heard, 'X'); i++) {
    say(&ends[0], "A");
    rounds();
    assert(totals[TOTAL_BYTES_HELD_OUT] < 4 * OUTPUT_BYTES);
  }
  assert(strcmp(ends[0].heard, "SbX") == 0);
  order(&ends[0], OUTPUT_CLOSE, 0, 0);
  rounds();
  assert(living == 0);
  end_all();
}

static void test_sent_too_early(void) {
  open_end(&ends[0]);
  put_layer(&ends[0], NULL, 0);
  send_text(&ends[0], "too early");
  rounds();
  assert(strcmp(ends[0].heard, "X") == 0);
  order(&ends[0], OUTPUT_CLOSE, 0, 0);
  rounds();
  assert(living == 0);
  end_all();
}

/* Parts of all sizes, joined and not: nothing is lost or changes places. */
static void test_parts(void) {
  open_end(&ends[0]);
  open_end(&ends[1]);
  put_layer(&ends[0], "\xc8", 1);
  rounds();
  uint32_t at = 0, sum = 0, seen = 0;
  for (uint32_t length = 1; at + length < OUTPUT_BYTES && length < 40000;
       length = length * 3 / 2 + 1) {
    for (uint32_t i = 0; i < length; i++)
      output[at + i] = (uint8_t)('a' + (sum + i) % 7);
    unsent[ends[0].slot] += (int32_t)length;
    order(&ends[0], length % 5 == 0 ? OUTPUT_SEND_ALONE : OUTPUT_SEND, (int)at, (int)length);
    order(&ends[1], OUTPUT_NOTIFY, 0, 0);
    at += length;
    sum += length;
  }
  engine_flush(&core);
  while (seen < sum) {
    rounds();
    const char *text = arrived(&ends[0]);
    assert(*text && strcmp(text, "reset") != 0);
    for (; *text; text++) {
      if (*text == '[' || *text == ']') continue;
      assert(*text == (char)('a' + seen % 7));
      seen++;
    }
  }
  assert(unsent[ends[0].slot] == 0);
  end_all();
}

/* Newcomers whose first bytes are all there: the round takes a few, and the rest comes next, in order. */
static void test_handshakes_take_turns(void) {
  enum { COUNT = 6 };
  static end crowd[COUNT];
  fake *layers[COUNT];
  for (int i = 0; i < COUNT; i++) {
    open_end(&crowd[i]);
    layers[i] = (fake *)make_layer("", 0);
    layers[i]->base.begun = true;
    assert(engine_secure(&core, (uint32_t)crowd[i].slot, crowd[i].generation, &layers[i]->base) == 0);
    assert(write(crowd[i].far, "\x01", 1) == 1);
  }
  for (int done = 0; done < COUNT;) {
    engine_round(&core);
    engine_flush(&core);
    int most = done + HANDSHAKES_PER_ROUND < COUNT ? done + HANDSHAKES_PER_ROUND : COUNT;
    for (int i = 0; i < COUNT; i++)
      assert(layers[i]->calls == (uint32_t)(i < most));
    done = most;
  }
  for (int i = 0; i < COUNT; i++) {
    close(crowd[i].far);
    order(&crowd[i], OUTPUT_RESET, 0, 0);
  }
  engine_flush(&core);
  rounds();
}

int main(void) {
  ends[0].slot = ends[1].slot = NONE;
  start();
  test_there_and_back();
  test_early();
  test_failure();
  test_failure_while_blocked();
  test_answers();
  test_sent_too_early();
  test_parts();
  test_handshakes_take_turns();
  open_end(&ends[0]);
  put_layer(&ends[0], "\xc8", 1);
  engine_close(&core);
  assert(living == 0);
  printf("done\n");
  return 0;
}
