/* The engine, for JavaScript, and its place in the event loop. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#include "addon.h"
#include "addon_host.h"
#include "engine.h"

/* In place of the entry of a connection that holds no place at all. */
#define NOT_COUNTED (-2)

/* ---- the engine in the event loop ---- */

/* The epoll descriptor hangs on the loop by one uv_poll. Replies made outside a round (a timer, a
 * promise) leave in uv_prepare, the last thing the loop does before it sleeps. While slots wait in
 * the ready list, uv_idle keeps the loop from sleeping and runs the next round. */
typedef struct {
  engine core;
  napi_env env;
  napi_async_context context;
  napi_ref on_round, memory, admission;
  napi_async_cleanup_hook_handle hook;
  uv_poll_t poll;
  uv_prepare_t prepare;
  uv_idle_t idle;
  int handles, holders;
  bool idling, closed, in_round;
  double flushed; /* seconds of flushes that JavaScript asked for */
} host;

static void on_idle(uv_idle_t *idle);

static void keep_going(host *self) {
  bool wanted = !self->closed && engine_backlog(&self->core) > 0;
  if (wanted == self->idling) return;
  self->idling = wanted;
  if (wanted) {
    uv_idle_start(&self->idle, on_idle);
  } else {
    uv_idle_stop(&self->idle);
  }
}

/* Seconds, CLOCK_MONOTONIC. */
static double stopwatch(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void count_seconds(host *self, int total, double seconds) {
  self->core.memory.totals[total] += seconds;
}

/* Returns when it was done. */
static double flush_since(host *self, double begun) {
  engine_flush(&self->core);
  double done = stopwatch();
  count_seconds(self, TOTAL_SEND_SECONDS, done - begun);
  return done;
}

/* The clock is read four times a round, whatever is in it. */
static void run_round(host *self) {
  if (self->closed || self->in_round) return;
  double begun = stopwatch();
  int count = engine_round(&self->core);
  double now = stopwatch();
  count_seconds(self, TOTAL_RECEIVE_SECONDS, now - begun);
  if (count > 0) {
    double before = now;
    self->in_round = true;
    self->flushed = 0;
    /* Promise continuations run in here, so their replies leave in the same flush. */
    call_back(self->env, self->context, self->on_round, count);
    self->in_round = false;
    now = stopwatch();
    /* The memory may have gone with the engine. */
    if (!self->closed) count_seconds(self, TOTAL_SCRIPT_SECONDS, now - before - self->flushed);
  }
  if (self->closed) return;
  flush_since(self, now);
  keep_going(self);
}

static void on_poll(uv_poll_t *poll, int status, int events) {
  (void)status;
  (void)events;
  run_round(poll->data);
}

static void on_idle(uv_idle_t *idle) {
  run_round(idle->data);
}

static void on_prepare(uv_prepare_t *prepare) {
  host *self = prepare->data;
  if (self->core.memory.header[HEADER_OUTPUT_RECORDS] > 0) flush_since(self, stopwatch());
  keep_going(self);
}

/* The struct lives until libuv has let go of its handles and JavaScript of the handle object. */
static void let_go(host *self) {
  if (--self->holders == 0) free(self);
}

static void on_handle_closed(uv_handle_t *handle) {
  host *self = handle->data;
  if (--self->handles == 0 && self->hook) napi_remove_async_cleanup_hook(self->hook);
  let_go(self);
}

static void on_handle_collected(napi_env env, void *data, void *hint) {
  (void)env;
  (void)hint;
  let_go(data);
}

/* Ends the engine. Idempotent. */
static void shut(host *self) {
  if (self->closed) return;
  self->closed = true;
  engine_close(&self->core);
  uv_poll_stop(&self->poll);
  uv_close((uv_handle_t *)&self->poll, on_handle_closed);
  uv_close((uv_handle_t *)&self->prepare, on_handle_closed);
  uv_close((uv_handle_t *)&self->idle, on_handle_closed);
}

/* The environment ends with the engine open: references must not be touched any more. */
static void on_cleanup(napi_async_cleanup_hook_handle hook, void *data) {
  host *self = data;
  (void)hook;
  shut(self);
}

/* Looks one array of the memory object up and keeps it alive through that object's reference. */
static void *memory_array(arguments *args, const char *name, napi_typedarray_type kind,
                          size_t at_least, size_t *length) {
  napi_value value;
  if (napi_get_named_property(args->env, args->values[0], name, &value) != napi_ok) {
    args->wrong = true;
    return NULL;
  }
  void *data = take_array(args, value, kind, length);
  if (*length < at_least) args->wrong = true;
  return data;
}

static engine_memory take_memory(arguments *args) {
  engine_memory memory = {0};
  size_t length, slots;
  memory.header = memory_array(args, "header", napi_int32_array, HEADER_WORDS, &length);
  memory.totals = memory_array(args, "totals", napi_float64_array, TOTAL_COUNT, &length);
  memory.input = memory_array(args, "input", napi_uint8_array, RECEIVE_SHARE, &length);
  memory.input_bytes = (uint32_t)length;
  memory.output = memory_array(args, "output", napi_uint8_array, 1, &length);
  memory.output_bytes = (uint32_t)length;
  memory.input_records =
      memory_array(args, "inputRecords", napi_int32_array, 16 * INPUT_WORDS, &length);
  memory.input_records_max = (uint32_t)(length / INPUT_WORDS);
  memory.output_records =
      memory_array(args, "outputRecords", napi_int32_array, OUTPUT_WORDS, &length);
  memory.output_records_max = (uint32_t)(length / OUTPUT_WORDS);
  memory.generations = memory_array(args, "generations", napi_int32_array, 1, &slots);
  memory.slots = (uint32_t)slots;
  memory.unsent = memory_array(args, "unsent", napi_int32_array, slots, &length);
  memory.counters =
      memory_array(args, "counters", napi_float64_array, slots * COUNTER_WORDS, &length);
  return memory;
}

static void start_handles(host *self, uv_loop_t *loop) {
  uv_poll_init(loop, &self->poll, self->core.epoll_fd);
  uv_prepare_init(loop, &self->prepare);
  uv_idle_init(loop, &self->idle);
  self->handles = 3;
  self->holders = self->handles + 1;
  self->poll.data = self->prepare.data = self->idle.data = self;
  uv_poll_start(&self->poll, UV_READABLE, on_poll);
  uv_prepare_start(&self->prepare, on_prepare);
  uv_unref((uv_handle_t *)&self->prepare);
}

static napi_value engine_open_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  /* One engine belongs to one process's main thread: signals, forks and descriptors are its own. */
  if (syscall(SYS_gettid) != getpid()) return give_int(env, -EPERM);
  engine_memory memory = take_memory(&args);
  napi_valuetype type;
  if (napi_typeof(env, args.values[1], &type) != napi_ok || type != napi_function)
    args.wrong = true;
  uv_loop_t *loop;
  if (args.wrong || napi_get_uv_event_loop(env, &loop) != napi_ok) return throw_wrong(env);
  host *self = calloc(1, sizeof *self);
  if (!self) return give_int(env, -ENOMEM);
  int error = engine_open(&self->core, &memory);
  if (error) {
    free(self);
    return give_int(env, error);
  }
  self->env = env;
  napi_create_reference(env, args.values[0], 1, &self->memory);
  napi_create_reference(env, args.values[1], 1, &self->on_round);
  napi_async_init(env, NULL, give_text(env, "headrace"), &self->context);
  napi_add_async_cleanup_hook(env, on_cleanup, self, &self->hook);
  start_handles(self, loop);
  napi_value handle;
  napi_create_external(env, self, on_handle_collected, NULL, &handle);
  return handle;
}

static host *take_host(arguments *args) {
  void *self = NULL;
  if (napi_get_value_external(args->env, args->values[0], &self) != napi_ok) args->wrong = true;
  return self;
}

engine *take_engine(arguments *args, int index) {
  void *self = NULL;
  if (napi_get_value_external(args->env, args->values[index], &self) != napi_ok) {
    args->wrong = true;
    return NULL;
  }
  return ((host *)self)->closed ? NULL : &((host *)self)->core;
}

bool host_is_in_round(arguments *args, int index) {
  void *self = NULL;
  napi_get_value_external(args->env, args->values[index], &self);
  return self && ((host *)self)->in_round;
}

static napi_value engine_close_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  if (args.wrong) return throw_wrong(env);
  if (self->closed) return NULL;
  napi_delete_reference(env, self->on_round);
  napi_delete_reference(env, self->memory);
  if (self->admission) napi_delete_reference(env, self->admission);
  napi_async_destroy(env, self->context);
  shut(self);
  return NULL;
}

static napi_value engine_listen_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  int number = take_int(&args, 1), listener = take_int(&args, 2);
  int fd = take_int(&args, 3), linger_ms = take_int(&args, 4);
  if (args.wrong) return throw_wrong(env);
  if (self->closed) return give_int(env, -EBADF);
  return give_int(env, listener_open(&self->core, number, listener, fd, linger_ms));
}

static napi_value engine_accept_queued_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  int number = take_int(&args, 1);
  if (args.wrong) return throw_wrong(env);
  /* Inside a round the input records are being read. */
  if (self->closed || self->in_round) return give_int(env, 0);
  return give_int(env, engine_accept_queued(&self->core, number));
}

static napi_value engine_unlisten_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  int number = take_int(&args, 1);
  if (args.wrong) return throw_wrong(env);
  return give_int(env, listener_close(&self->core, number));
}

static napi_value engine_admission_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  size_t words, rows;
  int32_t *table = take_array(&args, args.values[1], napi_int32_array, &words);
  int32_t column = take_int(&args, 2);
  int32_t *caps = take_array(&args, args.values[3], napi_int32_array, &rows);
  int memory = take_int(&args, 4), wake = take_int(&args, 5);
  if (args.wrong) return throw_wrong(env);
  if (self->closed) return give_int(env, -EBADF);
  if (words < ADMISSION_WORDS || rows != ADMISSION_ROWS) return give_int(env, -EINVAL);
  int error = admission_open(&self->core.admission, table, column, caps);
  if (error || self->admission) return give_int(env, error);
  napi_create_reference(env, args.values[1], 1, &self->admission);
  return give_int(env, memory < 0 ? 0 : engine_share(&self->core, memory, wake));
}

static napi_value engine_rule_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  int listener = take_int(&args, 1);
  size_t length;
  const double *given = take_array(&args, args.values[2], napi_float64_array, &length);
  if (args.wrong || length != RULE_WORDS) return throw_wrong(env);
  if (self->closed) return give_int(env, -EBADF);
  address_rule rule = {.connections = (int32_t)given[RULE_CONNECTIONS],
                       .interval_ns = (int64_t)given[RULE_INTERVAL_NS],
                       .burst_ns = (int64_t)given[RULE_BURST_NS],
                       .space = (uint32_t)given[RULE_SPACE],
                       .prefix = (uint8_t)given[RULE_PREFIX],
                       .named_later = given[RULE_NAMED_LATER] != 0};
  return give_int(env, engine_rule(&self->core, listener, &rule, (int)given[RULE_ON_LIMIT]));
}

static napi_value engine_list_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  int listener = take_int(&args, 1);
  size_t length, count;
  const uint8_t *starts = take_bytes(&args, 2, &length), *denied = take_bytes(&args, 3, &count);
  if (args.wrong) return throw_wrong(env);
  if (self->closed) return give_int(env, -EBADF);
  if (listener < 0 || listener >= LISTENERS_MAX || length != count * CIDR_BYTES)
    return give_int(env, -EINVAL);
  return give_int(env, cidr_set(&self->core.admission.lists[listener], starts, denied, count));
}

static napi_value engine_admit_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  int slot_index = take_int(&args, 1), generation = take_int(&args, 2);
  socket_address client;
  int error = take_address(&args, 3, 4, &client);
  if (args.wrong) return throw_wrong(env);
  if (self->closed) return give_int(env, -EBADF);
  if (error) return give_int(env, error);
  return give_int(env,
                  engine_admit(&self->core, (uint32_t)slot_index, (uint32_t)generation, &client));
}

static napi_value engine_connect_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  socket_address address, local;
  char host_text[HOST_BYTES];
  int error = take_address(&args, 1, 2, &address);
  take_text(&args, 3, host_text, sizeof host_text);
  bool has_local = host_text[0] != 0;
  if (!error && has_local) error = socket_address_parse(&local, host_text, 0);
  const int32_t *options = take_options(&args, 4);
  if (args.wrong) return throw_wrong(env);
  if (!error && self->closed) error = -EBADF;
  if (!error) error = engine_connect(&self->core, &address, has_local ? &local : NULL, options);
  return give_int(env, error);
}

static napi_value engine_linger_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  int listener = take_int(&args, 1), linger_ms = take_int(&args, 2);
  if (args.wrong) return throw_wrong(env);
  return give_int(env, engine_linger(&self->core, listener, linger_ms));
}

static napi_value engine_adopt_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  int listener = take_int(&args, 1), fd = take_int(&args, 2), entry = take_int(&args, 3);
  socket_address peer;
  bool named = take_address(&args, 4, 5, &peer) == 0;
  if (args.wrong) return throw_wrong(env);
  if (self->closed) return give_int(env, -EBADF);
  if (entry < NOT_COUNTED || entry >= ADDRESS_ENTRIES) return give_int(env, -EINVAL);
  engine_place place = {.counted = entry != NOT_COUNTED, .entry = entry};
  return give_int(env, engine_adopt(&self->core, listener, fd, named ? &peer : NULL, place));
}

static napi_value engine_abandon_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  double bytes = 0;
  if (napi_get_value_double(env, args.values[1], &bytes) != napi_ok) args.wrong = true;
  if (args.wrong) return throw_wrong(env);
  napi_value freed;
  napi_create_double(env, self->closed ? 0 : engine_abandon(&self->core, bytes), &freed);
  return freed;
}

static napi_value give_bytes(napi_env env, const uint8_t *bytes, size_t length) {
  void *copy;
  napi_value buffer, array;
  napi_create_arraybuffer(env, length, &copy, &buffer);
  if (length > 0) memcpy(copy, bytes, length);
  napi_create_typedarray(env, napi_uint8_array, length, buffer, 0, &array);
  return array;
}

static napi_value engine_release_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  int slot_index = take_int(&args, 1), generation = take_int(&args, 2);
  engine_released released;
  if (args.wrong) return throw_wrong(env);
  /* The records of this round may still hold bytes of the connection. */
  if (self->in_round) return give_int(env, -EBUSY);
  int error = engine_release(&self->core, (uint32_t)slot_index, (uint32_t)generation, &released);
  if (error) return give_int(env, error);
  napi_value result = give_object(env);
  set_property(env, result, "fd", give_int(env, released.fd));
  set_property(env, result, "unsent", give_bytes(env, released.unsent, released.length));
  free(released.unsent);
  int32_t entry = released.place.counted ? released.place.entry : NOT_COUNTED;
  set_property(env, result, "entry", give_int(env, entry));
  return result;
}

static napi_value engine_leave_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  int listener = take_int(&args, 1), entry = take_int(&args, 2);
  if (args.wrong) return throw_wrong(env);
  engine_leave(&self->core, listener, entry);
  return NULL;
}

static napi_value engine_flush_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  if (args.wrong) return throw_wrong(env);
  if (self->closed) return NULL;
  double begun = stopwatch();
  self->flushed += flush_since(self, begun) - begun;
  return NULL;
}

static napi_value engine_send_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  int slot_index = take_int(&args, 1), generation = take_int(&args, 2);
  size_t length;
  const uint8_t *bytes = take_bytes(&args, 3, &length);
  if (args.wrong) return throw_wrong(env);
  if (self->closed) return give_int(env, -EBADF);
  double begun = stopwatch();
  engine_flush(&self->core);
  slot *conn = engine_slot(&self->core, (uint32_t)slot_index, (uint32_t)generation);
  if (conn) conn_send(&self->core, conn, bytes, (uint32_t)length);
  double seconds = stopwatch() - begun;
  count_seconds(self, TOTAL_SEND_SECONDS, seconds);
  self->flushed += seconds;
  return give_int(env, conn ? 0 : -EBADF);
}

static napi_value engine_tick_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  if (args.wrong) return throw_wrong(env);
  if (!self->closed) engine_tick(&self->core);
  return NULL;
}

static napi_value engine_address_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  int slot_index = take_int(&args, 1), generation = take_int(&args, 2);
  if (args.wrong) return throw_wrong(env);
  slot *conn = engine_slot(&self->core, (uint32_t)slot_index, (uint32_t)generation);
  socket_address address;
  if (conn) engine_peer(conn, &address);
  return give_address(env, conn ? 0 : -EBADF, &address);
}

/* Costs no string: for what is noted of every connection that ends. */
static napi_value engine_write_peer_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  int slot_index = take_int(&args, 1), generation = take_int(&args, 2);
  size_t length;
  uint8_t *into = (uint8_t *)take_bytes(&args, 3, &length);
  if (args.wrong || length < ENGINE_PEER_BYTES) return throw_wrong(env);
  const slot *conn = engine_slot(&self->core, (uint32_t)slot_index, (uint32_t)generation);
  memset(into, 0, ENGINE_PEER_BYTES);
  if (conn) engine_write_peer(conn, into);
  return NULL;
}

static napi_value engine_timing_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  int slot_index = take_int(&args, 1), generation = take_int(&args, 2);
  size_t length;
  uint8_t *into = (uint8_t *)take_bytes(&args, 3, &length);
  uint32_t figures[2];
  if (args.wrong || length < sizeof figures) return throw_wrong(env);
  const slot *conn = engine_slot(&self->core, (uint32_t)slot_index, (uint32_t)generation);
  int result = conn ? conn_timing(conn, &figures[0], &figures[1]) : -EBADF;
  if (result == 0) memcpy(into, figures, sizeof figures);
  return give_int(env, result);
}

static napi_value engine_unread_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  int slot_index = take_int(&args, 1), generation = take_int(&args, 2);
  if (args.wrong) return throw_wrong(env);
  slot *conn = engine_slot(&self->core, (uint32_t)slot_index, (uint32_t)generation);
  return give_int(env, conn ? conn_unread(conn) : -EBADF);
}

static napi_value engine_peek_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  int slot_index = take_int(&args, 1), generation = take_int(&args, 2);
  if (args.wrong) return throw_wrong(env);
  slot *conn = engine_slot(&self->core, (uint32_t)slot_index, (uint32_t)generation);
  return give_int(env, conn ? conn_peek(conn) : -EBADF);
}

static napi_value engine_unref_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  if (args.wrong) return throw_wrong(env);
  if (self->closed) return NULL;
  uv_unref((uv_handle_t *)&self->poll);
  uv_unref((uv_handle_t *)&self->idle);
  return NULL;
}

/* ---- stream layers ---- */

#define SERVER_NAME_BYTES 256

static napi_value engine_secure_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  uint32_t index = (uint32_t)take_int(&args, 1), generation = (uint32_t)take_int(&args, 2);
  void *handle = NULL;
  if (napi_get_value_external(env, args.values[3], &handle) != napi_ok) args.wrong = true;
  stream_source *source = handle;
  size_t early_length, session_length;
  const uint8_t *early = take_bytes(&args, 4, &early_length);
  char server_name[SERVER_NAME_BYTES];
  take_text(&args, 5, server_name, sizeof server_name);
  const uint8_t *session = take_bytes(&args, 6, &session_length);
  if (args.wrong || !source || source->magic != STREAM_SOURCE) return throw_wrong(env);
  slot *conn = engine_slot(&self->core, index, generation);
  if (!conn || conn->state != SLOT_OPEN) return give_int(env, -EBADF);
  stream_options options = {
      .server_name = server_name, .session = session, .session_length = (uint32_t)session_length};
  stream *layer;
  int error = source->open(source, &options, &layer);
  if (error) return give_int(env, error);
  if (early_length > 0) {
    layer->early = malloc(early_length);
    if (layer->early) memcpy(layer->early, early, early_length);
    layer->early_to = (uint32_t)early_length;
  }
  error = early_length > 0 && !layer->early ? -ENOMEM
                                            : engine_secure(&self->core, index, generation, layer);
  if (error) {
    free(layer->early);
    layer->ops->free(layer);
  }
  return give_int(env, error);
}

/* The layer of the slot that the first arguments mean, or NULL. */
static stream *take_layer(arguments *args) {
  host *self = take_host(args);
  uint32_t index = (uint32_t)take_int(args, 1), generation = (uint32_t)take_int(args, 2);
  slot *conn = args->wrong ? NULL : engine_slot(&self->core, index, generation);
  return conn ? conn->stream : NULL;
}

static void set_text(napi_env env, napi_value object, const char *name, const char *text) {
  if (text) set_property(env, object, name, give_text(env, text));
}

static napi_value engine_tls_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  stream *layer = take_layer(&args);
  if (args.wrong) return throw_wrong(env);
  if (!layer || !layer->secured) return give_int(env, -ENOTCONN);
  stream_facts facts = {0};
  layer->ops->describe(layer, &facts);
  napi_value result = give_object(env);
  set_text(env, result, "protocol", facts.protocol);
  set_text(env, result, "cipher", facts.cipher);
  set_text(env, result, "serverName", facts.server_name);
  if (facts.alpn_length > 0) {
    napi_value alpn;
    napi_create_string_latin1(env, (const char *)facts.alpn, facts.alpn_length, &alpn);
    set_property(env, result, "alpn", alpn);
  }
  set_property(env, result, "resumed", give_bool(env, facts.resumed));
  if (facts.certificate_length > 0) {
    set_property(env, result, "peerCertificate",
                 give_bytes(env, facts.certificate, facts.certificate_length));
  }
  free(facts.certificate);
  set_text(env, result, "verifyError", facts.verify_error);
  return result;
}

static napi_value engine_tls_error_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  stream *layer = take_layer(&args);
  if (args.wrong) return throw_wrong(env);
  return give_text(env, layer && layer->error ? layer->error : "");
}

static napi_value engine_tls_session_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  stream *layer = take_layer(&args);
  if (args.wrong) return throw_wrong(env);
  uint8_t *bytes = NULL;
  uint32_t length = layer && layer->secured ? layer->ops->session(layer, &bytes) : 0;
  napi_value result = give_bytes(env, bytes, length);
  free(bytes);
  return result;
}

/* ---- exports ---- */

static const addon_export EXPORTS[] = {
    {"engineOpen", engine_open_js},
    {"engineClose", engine_close_js},
    {"engineListen", engine_listen_js},
    {"engineUnlisten", engine_unlisten_js},
    {"engineAcceptQueued", engine_accept_queued_js},
    {"engineAdmission", engine_admission_js},
    {"engineRule", engine_rule_js},
    {"engineList", engine_list_js},
    {"engineAdmit", engine_admit_js},
    {"engineConnect", engine_connect_js},
    {"engineAdopt", engine_adopt_js},
    {"engineLinger", engine_linger_js},
    {"engineRelease", engine_release_js},
    {"engineAbandon", engine_abandon_js},
    {"engineLeave", engine_leave_js},
    {"engineFlush", engine_flush_js},
    {"engineSend", engine_send_js},
    {"engineTick", engine_tick_js},
    {"engineSecure", engine_secure_js},
    {"engineTls", engine_tls_js},
    {"engineTlsError", engine_tls_error_js},
    {"engineTlsSession", engine_tls_session_js},
    {"engineAddress", engine_address_js},
    {"engineWritePeer", engine_write_peer_js},
    {"engineTiming", engine_timing_js},
    {"engineUnread", engine_unread_js},
    {"enginePeek", engine_peek_js},
    {"engineUnref", engine_unref_js},
};

const addon_exports ENGINE_EXPORTS = {EXPORTS, sizeof EXPORTS / sizeof EXPORTS[0]};
