/* All of N-API: arguments in, results out, and the engine's place in the event loop. Functions
 * return a negative errno instead of throwing; a wrong argument type is a bug and throws. */
#include <errno.h>
#include <fcntl.h>
#include <node_api.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <uv.h>

#include "engine.h"
#include "fds.h"

#define ARGUMENTS_MAX 6
#define HOST_BYTES 64
/* The largest message of a channel between processes; more does not fit a seqpacket. */
#define CHANNEL_BYTES (64 * 1024)

/* ---- arguments ---- */

typedef struct {
  napi_env env;
  napi_value values[ARGUMENTS_MAX];
  bool wrong;
} arguments;

static arguments take_arguments(napi_env env, napi_callback_info info) {
  arguments args = {.env = env};
  size_t count = ARGUMENTS_MAX;
  if (napi_get_cb_info(env, info, &count, args.values, NULL, NULL) != napi_ok) args.wrong = true;
  return args;
}

static int32_t take_int(arguments *args, int index) {
  int32_t value = 0;
  if (napi_get_value_int32(args->env, args->values[index], &value) != napi_ok) args->wrong = true;
  return value;
}

static bool take_bool(arguments *args, int index) {
  bool value = false;
  if (napi_get_value_bool(args->env, args->values[index], &value) != napi_ok) args->wrong = true;
  return value;
}

static void take_text(arguments *args, int index, char *text, size_t size) {
  size_t length;
  text[0] = 0;
  if (napi_get_value_string_utf8(args->env, args->values[index], text, size, &length) != napi_ok)
    args->wrong = true;
}

/* The memory of a typed array of the given kind and its length in elements. */
static void *take_array(arguments *args, napi_value value, napi_typedarray_type kind,
                        size_t *length) {
  napi_typedarray_type found;
  void *data = NULL;
  *length = 0;
  napi_status status =
      napi_get_typedarray_info(args->env, value, &found, length, &data, NULL, NULL);
  if (status != napi_ok || found != kind) {
    args->wrong = true;
    *length = 0;
    return NULL;
  }
  return data;
}

static const uint8_t *take_bytes(arguments *args, int index, size_t *length) {
  return take_array(args, args->values[index], napi_uint8_array, length);
}

static const int32_t *take_options(arguments *args, int index) {
  static const int32_t none[OPTION_COUNT];
  size_t length;
  const int32_t *options = take_array(args, args->values[index], napi_int32_array, &length);
  if (options && length == OPTION_COUNT) return options;
  args->wrong = true;
  return none;
}

static int take_address(arguments *args, int host, int port, socket_address *address) {
  char text[HOST_BYTES];
  take_text(args, host, text, sizeof text);
  return socket_address_parse(address, text, (uint16_t)take_int(args, port));
}

static napi_value throw_wrong(napi_env env) {
  napi_throw_type_error(env, NULL, "headrace addon: wrong argument type");
  return NULL;
}

/* ---- results ---- */

static napi_value give_int(napi_env env, int32_t value) {
  napi_value result;
  napi_create_int32(env, value, &result);
  return result;
}

static napi_value give_text(napi_env env, const char *text) {
  napi_value result;
  napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &result);
  return result;
}

static napi_value give_fds(napi_env env, const int *fds, size_t count) {
  napi_value array;
  napi_create_array_with_length(env, count, &array);
  for (size_t i = 0; i < count; i++)
    napi_set_element(env, array, (uint32_t)i, give_int(env, fds[i]));
  return array;
}

static napi_value give_object(napi_env env) {
  napi_value object;
  napi_create_object(env, &object);
  return object;
}

static void set(napi_env env, napi_value object, const char *name, napi_value value) {
  napi_set_named_property(env, object, name, value);
}

static napi_value give_address(napi_env env, int error, const socket_address *address) {
  char text[SOCKET_TEXT_BYTES];
  if (!error) error = socket_address_format(address, text);
  return error ? give_int(env, error) : give_text(env, text);
}

/* ---- sockets ---- */

static napi_value socket_listen_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  socket_address address;
  int result = take_address(&args, 0, 1, &address);
  bool exclusive = take_bool(&args, 2);
  const int32_t *options = take_options(&args, 3);
  if (args.wrong) return throw_wrong(env);
  return give_int(env, result ? result : socket_listen(&address, exclusive, options));
}

static napi_value socket_probe_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  socket_address address;
  int result = take_address(&args, 0, 1, &address);
  const int32_t *options = take_options(&args, 2);
  if (args.wrong) return throw_wrong(env);
  return give_int(env, result ? result : socket_probe(&address, options));
}

static napi_value socket_name_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  int fd = take_int(&args, 0);
  bool peer = take_bool(&args, 1);
  socket_address address;
  if (args.wrong) return throw_wrong(env);
  int error = socket_name(fd, peer, &address);
  return give_address(env, error, &address);
}

static napi_value socket_option_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  int fd = take_int(&args, 0), option = take_int(&args, 1);
  if (args.wrong) return throw_wrong(env);
  return give_int(env, socket_option_read(fd, option));
}

/* ---- descriptors ---- */

static napi_value fd_close_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  int fd = take_int(&args, 0);
  if (args.wrong) return throw_wrong(env);
  return give_int(env, close(fd) == 0 ? 0 : -errno);
}

static napi_value fd_duplicate_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  int fd = take_int(&args, 0);
  if (args.wrong) return throw_wrong(env);
  int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  return give_int(env, copy < 0 ? -errno : copy);
}

static napi_value fd_lock_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  int fd = take_int(&args, 0);
  if (args.wrong) return throw_wrong(env);
  return give_int(env, fds_lock(fd));
}

static napi_value fd_pair_js(napi_env env, napi_callback_info info) {
  (void)info;
  int pair[2];
  int error = fds_pair(pair);
  return error ? give_int(env, error) : give_fds(env, pair, 2);
}

static napi_value fd_send_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  int channel = take_int(&args, 0);
  size_t length;
  const uint8_t *bytes = take_bytes(&args, 1, &length);
  int fds[FDS_MAX];
  uint32_t count = 0;
  if (napi_get_array_length(env, args.values[2], &count) != napi_ok) args.wrong = true;
  if (count > FDS_MAX || length > CHANNEL_BYTES) return give_int(env, -EMSGSIZE);
  for (uint32_t i = 0; i < count && !args.wrong; i++) {
    napi_value element;
    if (napi_get_element(env, args.values[2], i, &element) != napi_ok ||
        napi_get_value_int32(env, element, &fds[i]) != napi_ok)
      args.wrong = true;
  }
  if (args.wrong) return throw_wrong(env);
  return give_int(env, fds_send(channel, bytes, length, fds, count));
}

static napi_value fd_receive_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  int channel = take_int(&args, 0);
  size_t size, count;
  uint8_t *bytes = (uint8_t *)take_bytes(&args, 1, &size);
  int fds[FDS_MAX];
  if (args.wrong) return throw_wrong(env);
  int length = fds_receive(channel, bytes, size, fds, &count);
  if (length < 0) return give_int(env, length);
  napi_value message = give_object(env);
  set(env, message, "length", give_int(env, length));
  set(env, message, "fds", give_fds(env, fds, count));
  return message;
}

static napi_value fd_peer_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  int fd = take_int(&args, 0);
  struct ucred peer;
  if (args.wrong) return throw_wrong(env);
  int error = fds_peer(fd, &peer);
  if (error) return give_int(env, error);
  napi_value object = give_object(env);
  set(env, object, "pid", give_int(env, peer.pid));
  set(env, object, "uid", give_int(env, (int32_t)peer.uid));
  set(env, object, "gid", give_int(env, (int32_t)peer.gid));
  return object;
}

static napi_value exit_with_peer_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  int channel = take_int(&args, 0), after_ms = take_int(&args, 1);
  if (args.wrong) return throw_wrong(env);
  return give_int(env, fds_exit_with_peer(channel, after_ms));
}

static napi_value memory_create_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  char name[64];
  take_text(&args, 0, name, sizeof name);
  int32_t size = take_int(&args, 1);
  if (args.wrong || size <= 0) return throw_wrong(env);
  return give_int(env, fds_memory(name, (size_t)size));
}

static void unmap(napi_env env, void *memory, void *size) {
  (void)env;
  munmap(memory, (size_t)size);
}

static napi_value memory_map_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  int fd = take_int(&args, 0);
  int32_t size = take_int(&args, 1);
  void *memory;
  if (args.wrong || size <= 0) return throw_wrong(env);
  int error = fds_map(fd, (size_t)size, &memory);
  napi_value result = NULL;
  if (!error && napi_create_external_arraybuffer(env, memory, (size_t)size, unmap,
                                                 (void *)(size_t)size, &result) == napi_ok)
    return result;
  if (!error) munmap(memory, (size_t)size);
  napi_throw_error(env, NULL, "headrace addon: shared memory could not be mapped");
  return NULL;
}

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

static void run_round(host *self) {
  if (self->closed || self->in_round) return;
  int count = engine_round(&self->core);
  if (count > 0) {
    napi_handle_scope scope;
    napi_value callback, receiver, argument;
    napi_open_handle_scope(self->env, &scope);
    napi_get_reference_value(self->env, self->on_round, &callback);
    napi_create_int32(self->env, count, &argument);
    napi_get_global(self->env, &receiver);
    self->in_round = true;
    /* Promise continuations run before this returns, so their replies leave in the same flush. */
    napi_status status =
        napi_make_callback(self->env, self->context, receiver, callback, 1, &argument, NULL);
    self->in_round = false;
    if (status == napi_pending_exception) {
      napi_value error;
      napi_get_and_clear_last_exception(self->env, &error);
      napi_fatal_exception(self->env, error);
    }
    napi_close_handle_scope(self->env, scope);
  }
  if (self->closed) return;
  engine_flush(&self->core);
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
  engine_flush(&self->core);
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
  int id = take_int(&args, 1), fd = take_int(&args, 2), linger_ms = take_int(&args, 3);
  if (args.wrong) return throw_wrong(env);
  if (self->closed) return give_int(env, -EBADF);
  return give_int(env, listener_open(&self->core, id, fd, linger_ms));
}

static napi_value engine_accept_queued_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  int id = take_int(&args, 1);
  if (args.wrong) return throw_wrong(env);
  /* Inside a round the input records are being read. */
  if (self->closed || self->in_round) return give_int(env, 0);
  return give_int(env, engine_accept_queued(&self->core, id));
}

static napi_value engine_unlisten_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  int id = take_int(&args, 1);
  if (args.wrong) return throw_wrong(env);
  return give_int(env, listener_close(&self->core, id));
}

static napi_value engine_admission_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  size_t words, rows;
  int32_t *table = take_array(&args, args.values[1], napi_int32_array, &words);
  int32_t columns = take_int(&args, 2), column = take_int(&args, 3);
  int32_t *caps = take_array(&args, args.values[4], napi_int32_array, &rows);
  if (args.wrong) return throw_wrong(env);
  if (self->closed) return give_int(env, -EBADF);
  bool fits = columns > 0 && column >= 0 && column < columns && rows > 0 &&
              rows <= ADMISSION_ROWS_MAX && words >= rows * (size_t)columns;
  if (!fits) return give_int(env, -EINVAL);
  admission *counts = &self->core.admission;
  *counts =
      (admission){.table = table, .columns = columns, .column = column, .rows = (int32_t)rows};
  memcpy(counts->caps, caps, rows * sizeof *caps);
  if (self->admission) napi_delete_reference(env, self->admission);
  napi_create_reference(env, args.values[1], 1, &self->admission);
  return give_int(env, 0);
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

static napi_value engine_adopt_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  int id = take_int(&args, 1), fd = take_int(&args, 2);
  socket_address peer;
  if (args.wrong) return throw_wrong(env);
  if (self->closed) return give_int(env, -EBADF);
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) return give_int(env, -errno);
  bool known = socket_name(fd, true, &peer) == 0;
  return give_int(env, engine_add(&self->core, fd, SLOT_OPEN, (uint8_t)id, known ? &peer : NULL));
}

static napi_value engine_release_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  int slot_index = take_int(&args, 1), generation = take_int(&args, 2);
  uint8_t *unsent = NULL;
  uint32_t length = 0;
  if (args.wrong) return throw_wrong(env);
  /* The records of this round may still hold bytes of the connection. */
  if (self->in_round) return give_int(env, -EBUSY);
  int fd =
      engine_release(&self->core, (uint32_t)slot_index, (uint32_t)generation, &unsent, &length);
  if (fd < 0) return give_int(env, fd);
  void *copy;
  napi_value buffer, bytes, result = give_object(env);
  napi_create_arraybuffer(env, length, &copy, &buffer);
  if (length > 0) memcpy(copy, unsent, length);
  free(unsent);
  napi_create_typedarray(env, napi_uint8_array, length, buffer, 0, &bytes);
  set(env, result, "fd", give_int(env, fd));
  set(env, result, "unsent", bytes);
  return result;
}

static napi_value engine_flush_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  if (args.wrong) return throw_wrong(env);
  if (!self->closed) engine_flush(&self->core);
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
  engine_flush(&self->core);
  slot *conn = engine_slot(&self->core, (uint32_t)slot_index, (uint32_t)generation);
  if (!conn) return give_int(env, -EBADF);
  conn_send(&self->core, conn, bytes, (uint32_t)length);
  return give_int(env, 0);
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

static napi_value engine_unread_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  host *self = take_host(&args);
  int slot_index = take_int(&args, 1), generation = take_int(&args, 2);
  if (args.wrong) return throw_wrong(env);
  slot *conn = engine_slot(&self->core, (uint32_t)slot_index, (uint32_t)generation);
  return give_int(env, conn ? conn_unread(conn) : -EBADF);
}

/* ---- exports ---- */

static const struct {
  const char *name;
  napi_callback call;
} EXPORTS[] = {
    {"socketListen", socket_listen_js},
    {"socketProbe", socket_probe_js},
    {"socketName", socket_name_js},
    {"socketOption", socket_option_js},
    {"fdClose", fd_close_js},
    {"fdDuplicate", fd_duplicate_js},
    {"fdLock", fd_lock_js},
    {"fdPair", fd_pair_js},
    {"fdSend", fd_send_js},
    {"fdReceive", fd_receive_js},
    {"fdPeer", fd_peer_js},
    {"exitWithPeer", exit_with_peer_js},
    {"memoryCreate", memory_create_js},
    {"memoryMap", memory_map_js},
    {"engineOpen", engine_open_js},
    {"engineClose", engine_close_js},
    {"engineListen", engine_listen_js},
    {"engineUnlisten", engine_unlisten_js},
    {"engineAcceptQueued", engine_accept_queued_js},
    {"engineAdmission", engine_admission_js},
    {"engineConnect", engine_connect_js},
    {"engineAdopt", engine_adopt_js},
    {"engineRelease", engine_release_js},
    {"engineFlush", engine_flush_js},
    {"engineSend", engine_send_js},
    {"engineTick", engine_tick_js},
    {"engineAddress", engine_address_js},
    {"engineUnread", engine_unread_js},
};

NAPI_MODULE_INIT() {
  for (size_t i = 0; i < sizeof EXPORTS / sizeof EXPORTS[0]; i++) {
    napi_value function;
    if (napi_create_function(env, EXPORTS[i].name, NAPI_AUTO_LENGTH, EXPORTS[i].call, NULL,
                             &function) != napi_ok)
      return NULL;
    set(env, exports, EXPORTS[i].name, function);
  }
  return exports;
}
