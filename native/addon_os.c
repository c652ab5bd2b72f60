/* Sockets, descriptors and shared memory, for JavaScript. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "addon.h"
#include "address.h"
#include "fds.h"
#include "unix.h"

/* The largest message of a channel between processes; more does not fit a seqpacket. */
#define CHANNEL_BYTES (64 * 1024)
/* More than a path of a unix socket may have: one too long is told, not cut off. */
#define PATH_BYTES 256

/* For the many that take a descriptor and give an int. */
static napi_value call_with_fd(napi_env env, napi_callback_info info, int (*call)(int fd)) {
  arguments args = take_arguments(env, info);
  int fd = take_int(&args, 0);
  if (args.wrong) return throw_wrong(env);
  return give_int(env, call(fd));
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

static napi_value socket_apply_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  int fd = take_int(&args, 0);
  const int32_t *options = take_options(&args, 1);
  if (args.wrong) return throw_wrong(env);
  return give_int(env, socket_apply(fd, options));
}

static napi_value socket_steer_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  int fd = take_int(&args, 0), count = take_int(&args, 1);
  if (args.wrong) return throw_wrong(env);
  return give_int(env, socket_steer(fd, count));
}

static napi_value socket_unsteer_js(napi_env env, napi_callback_info info) {
  return call_with_fd(env, info, socket_unsteer);
}

static napi_value socket_queue_js(napi_env env, napi_callback_info info) {
  return call_with_fd(env, info, socket_queue);
}

static napi_value socket_queue_limit_js(napi_env env, napi_callback_info info) {
  return call_with_fd(env, info, socket_queue_limit);
}

static napi_value socket_cookie_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  int fd = take_int(&args, 0);
  uint64_t cookie;
  if (args.wrong) return throw_wrong(env);
  int error = socket_cookie(fd, &cookie);
  if (error) return give_int(env, error);
  char text[24];
  snprintf(text, sizeof text, "%" PRIu64, cookie);
  return give_text(env, text);
}

static napi_value socket_kind_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  int fd = take_int(&args, 0);
  socket_facts facts;
  if (args.wrong) return throw_wrong(env);
  int error = socket_kind(fd, &facts);
  if (error) return give_int(env, error);
  const char *type = facts.type == SOCK_STREAM  ? "stream"
                     : facts.type == SOCK_DGRAM ? "datagram"
                                                : "other";
  const char *family = facts.family == AF_INET    ? "ipv4"
                       : facts.family == AF_INET6 ? "ipv6"
                       : facts.family == AF_UNIX  ? "unix"
                                                  : "other";
  napi_value object = give_object(env);
  set_property(env, object, "type", give_text(env, type));
  set_property(env, object, "family", give_text(env, family));
  set_property(env, object, "listening", give_bool(env, facts.listening));
  return object;
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
  return call_with_fd(env, info, fds_lock);
}

static napi_value fd_inherit_js(napi_env env, napi_callback_info info) {
  return call_with_fd(env, info, fds_inherit);
}

static napi_value fd_pair_js(napi_env env, napi_callback_info info) {
  (void)info;
  int pair[2];
  int error = fds_pair(pair);
  return error ? give_int(env, error) : give_fds(env, pair, 2);
}

/* A message in arguments 1 and 2: bytes and descriptors. */
typedef struct {
  const uint8_t *bytes;
  size_t length;
  int fds[FDS_MAX];
  uint32_t count;
} outgoing;

/* 0, or -EMSGSIZE. */
static int take_message(arguments *args, outgoing *message) {
  message->bytes = take_bytes(args, 1, &message->length);
  message->count = 0;
  napi_value list = args->values[2];
  if (napi_get_array_length(args->env, list, &message->count) != napi_ok) args->wrong = true;
  if (message->count > FDS_MAX || message->length > CHANNEL_BYTES) return -EMSGSIZE;
  for (uint32_t i = 0; i < message->count && !args->wrong; i++) {
    napi_value element;
    if (napi_get_element(args->env, list, i, &element) != napi_ok ||
        napi_get_value_int32(args->env, element, &message->fds[i]) != napi_ok)
      args->wrong = true;
  }
  return 0;
}

static napi_value fd_send_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  int channel = take_int(&args, 0);
  outgoing message;
  int error = take_message(&args, &message);
  if (args.wrong) return throw_wrong(env);
  if (!error) error = fds_send(channel, message.bytes, message.length, message.fds, message.count);
  return give_int(env, error);
}

static napi_value unix_send_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  char path[PATH_BYTES];
  take_text(&args, 0, path, sizeof path);
  outgoing message;
  int error = take_message(&args, &message);
  if (args.wrong) return throw_wrong(env);
  if (!error) error = unix_send(path, message.bytes, message.length, message.fds, message.count);
  return give_int(env, error);
}

static napi_value unix_listen_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  char path[PATH_BYTES];
  take_text(&args, 0, path, sizeof path);
  if (args.wrong) return throw_wrong(env);
  return give_int(env, unix_listen(path));
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
  set_property(env, message, "length", give_int(env, length));
  set_property(env, message, "fds", give_fds(env, fds, count));
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
  set_property(env, object, "pid", give_int(env, peer.pid));
  set_property(env, object, "uid", give_int(env, (int32_t)peer.uid));
  set_property(env, object, "gid", give_int(env, (int32_t)peer.gid));
  return object;
}

static napi_value exit_with_peer_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  int channel = take_int(&args, 0), after_ms = take_int(&args, 1);
  if (args.wrong) return throw_wrong(env);
  return give_int(env, fds_exit_with_peer(channel, after_ms));
}

static napi_value event_create_js(napi_env env, napi_callback_info info) {
  (void)info;
  return give_int(env, fds_event());
}

static napi_value address_clear_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  int fd = take_int(&args, 0), first = take_int(&args, 1), columns = take_int(&args, 2);
  if (args.wrong) return throw_wrong(env);
  return give_int(env, address_clear(fd, first, columns));
}

static napi_value exit_now_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  int code = take_int(&args, 0);
  if (args.wrong) return throw_wrong(env);
  _exit(code);
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
  int32_t size = take_int(&args, 1), offset = take_int(&args, 2);
  void *memory;
  if (args.wrong || size <= 0 || offset < 0) return throw_wrong(env);
  int error = fds_map(fd, (size_t)offset, (size_t)size, &memory);
  napi_value result = NULL;
  if (!error && napi_create_external_arraybuffer(env, memory, (size_t)size, unmap,
                                                 (void *)(size_t)size, &result) == napi_ok)
    return result;
  if (!error) munmap(memory, (size_t)size);
  napi_throw_error(env, NULL, "headrace addon: shared memory could not be mapped");
  return NULL;
}

/* ---- exports ---- */

static const addon_export EXPORTS[] = {
    {"socketListen", socket_listen_js},
    {"socketProbe", socket_probe_js},
    {"socketName", socket_name_js},
    {"socketOption", socket_option_js},
    {"socketApply", socket_apply_js},
    {"socketSteer", socket_steer_js},
    {"socketUnsteer", socket_unsteer_js},
    {"socketQueue", socket_queue_js},
    {"socketQueueLimit", socket_queue_limit_js},
    {"socketCookie", socket_cookie_js},
    {"socketKind", socket_kind_js},
    {"fdClose", fd_close_js},
    {"fdDuplicate", fd_duplicate_js},
    {"fdLock", fd_lock_js},
    {"fdInherit", fd_inherit_js},
    {"fdPair", fd_pair_js},
    {"fdSend", fd_send_js},
    {"fdReceive", fd_receive_js},
    {"fdPeer", fd_peer_js},
    {"unixListen", unix_listen_js},
    {"unixSend", unix_send_js},
    {"exitWithPeer", exit_with_peer_js},
    {"eventCreate", event_create_js},
    {"addressClear", address_clear_js},
    {"exitNow", exit_now_js},
    {"memoryCreate", memory_create_js},
    {"memoryMap", memory_map_js},
};

const addon_exports OS_EXPORTS = {EXPORTS, sizeof EXPORTS / sizeof EXPORTS[0]};
