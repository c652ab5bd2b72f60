/* UDP sockets and the engine's datagrams, for JavaScript. */
#include <errno.h>

#include "addon.h"
#include "addon_host.h"
#include "datagram.h"
#include "udp.h"

/* ---- sockets ---- */

static napi_value udp_bind_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  socket_address address;
  int result = take_address(&args, 0, 1, &address);
  bool exclusive = take_bool(&args, 2);
  const int32_t *options = take_options(&args, 3);
  if (args.wrong) return throw_wrong(env);
  return give_int(env, result ? result : udp_bind(&address, exclusive, options));
}

static napi_value udp_probe_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  socket_address address;
  int result = take_address(&args, 0, 1, &address);
  const int32_t *options = take_options(&args, 2);
  if (args.wrong) return throw_wrong(env);
  return give_int(env, result ? result : udp_probe(&address, options));
}

static napi_value udp_apply_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  int fd = take_int(&args, 0);
  const int32_t *options = take_options(&args, 1);
  if (args.wrong) return throw_wrong(env);
  return give_int(env, udp_apply(fd, options));
}

static napi_value udp_steer_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  int fd = take_int(&args, 0), count = take_int(&args, 1);
  if (args.wrong) return throw_wrong(env);
  return give_int(env, udp_steer(fd, count));
}

static napi_value udp_drops_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  int fd = take_int(&args, 0);
  if (args.wrong) return throw_wrong(env);
  return give_int(env, udp_drops(fd));
}

/* ---- the engine ---- */

/* The arrays are kept alive by the engine's memory object, which JavaScript has put them in. */
static napi_value engine_datagrams_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  engine *core = take_engine(&args, 0);
  int listener = take_int(&args, 1), most = take_int(&args, 2), factor = take_int(&args, 3);
  size_t counters_length, sources_length;
  double *counters = take_array(&args, args.values[4], napi_float64_array, &counters_length);
  int32_t *sources = take_array(&args, args.values[5], napi_int32_array, &sources_length);
  if (args.wrong) return throw_wrong(env);
  if (!core) return give_int(env, -EBADF);
  if (counters_length < DATAGRAM_COUNTERS || sources_length != SOURCE_ENTRIES * SOURCE_WORDS)
    return give_int(env, -EINVAL);
  datagram_rule rule = {.most = (uint32_t)most, .factor = factor, .counters = counters};
  return give_int(env, datagram_rule_set(core, listener, &rule, sources));
}

static napi_value engine_receive_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  engine *core = take_engine(&args, 0);
  int number = take_int(&args, 1), listener = take_int(&args, 2), fd = take_int(&args, 3);
  if (args.wrong) return throw_wrong(env);
  return give_int(env, core ? datagram_receive(core, number, listener, fd) : -EBADF);
}

static napi_value engine_receive_queued_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  engine *core = take_engine(&args, 0);
  int number = take_int(&args, 1);
  if (args.wrong) return throw_wrong(env);
  /* Inside a round the input records are being read. */
  if (!core || host_is_in_round(&args, 0)) return give_int(env, 0);
  return give_int(env, datagram_receive_queued(core, number));
}

static napi_value engine_receive_stop_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  engine *core = take_engine(&args, 0);
  int number = take_int(&args, 1);
  if (args.wrong) return throw_wrong(env);
  return give_int(env, core ? datagram_stop(core, number) : -EBADF);
}

static napi_value engine_sender_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  engine *core = take_engine(&args, 0);
  int listener = take_int(&args, 1), fd = take_int(&args, 2);
  if (args.wrong) return throw_wrong(env);
  return give_int(env, core ? datagram_sender(core, listener, fd) : -EBADF);
}

static napi_value engine_source_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  engine *core = take_engine(&args, 0);
  size_t words;
  const int32_t *end = take_array(&args, args.values[1], napi_int32_array, &words);
  bool take = take_bool(&args, 2);
  if (args.wrong || words * sizeof *end != sizeof(datagram_end)) return throw_wrong(env);
  if (!core) return give_int(env, SOURCE_NONE);
  return give_int(env, datagram_source(core, (const datagram_end *)end, take));
}

/* ---- exports ---- */

static const addon_export EXPORTS[] = {
    {"udpBind", udp_bind_js},
    {"udpProbe", udp_probe_js},
    {"udpApply", udp_apply_js},
    {"udpSteer", udp_steer_js},
    {"udpDrops", udp_drops_js},
    {"engineDatagrams", engine_datagrams_js},
    {"engineReceive", engine_receive_js},
    {"engineReceiveQueued", engine_receive_queued_js},
    {"engineReceiveStop", engine_receive_stop_js},
    {"engineSender", engine_sender_js},
    {"engineSource", engine_source_js},
};

const addon_exports DATAGRAM_EXPORTS = {EXPORTS, sizeof EXPORTS / sizeof EXPORTS[0]};
