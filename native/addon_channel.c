/* Channels between processes in the event loop: a uv_poll of its own for each, level-triggered, so
 * that nobody has to ask whether a message has come. It keeps the loop alive until it is ended. */
#include <stdlib.h>
#include <uv.h>

#include "addon.h"

typedef struct {
  napi_env env;
  napi_async_context context;
  napi_ref on_readable;
  napi_async_cleanup_hook_handle hook;
  uv_poll_t poll;
  int holders; /* libuv, JavaScript */
  bool closed;
} channel_watch;

static void let_go(channel_watch *self) {
  if (--self->holders == 0) free(self);
}

static void on_closed(uv_handle_t *handle) {
  channel_watch *self = handle->data;
  if (self->hook) napi_remove_async_cleanup_hook(self->hook);
  let_go(self);
}

static void on_collected(napi_env env, void *data, void *hint) {
  (void)env;
  (void)hint;
  let_go(data);
}

static void shut(channel_watch *self) {
  if (self->closed) return;
  self->closed = true;
  /* Takes the descriptor out of libuv's epoll at once: it may be closed as soon as this returns. */
  uv_poll_stop(&self->poll);
  uv_close((uv_handle_t *)&self->poll, on_closed);
}

/* The environment ends: references must not be touched any more. */
static void on_cleanup(napi_async_cleanup_hook_handle hook, void *data) {
  (void)hook;
  shut(data);
}

static void on_poll(uv_poll_t *poll, int status, int events) {
  channel_watch *self = poll->data;
  (void)events;
  call_back(self->env, self->context, self->on_readable, 0);
  /* A peer that closed without having read everything leaves ECONNRESET behind, and libuv stops a
   * poll with an error; what that peer sent before is still to be received. */
  if (status < 0 && !self->closed) uv_poll_start(poll, UV_READABLE, on_poll);
}

static napi_value channel_watch_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  int fd = take_int(&args, 0);
  uv_loop_t *loop;
  if (!take_is_function(&args, 1) || args.wrong || napi_get_uv_event_loop(env, &loop) != napi_ok)
    return throw_wrong(env);
  channel_watch *self = calloc(1, sizeof *self);
  if (!self) return give_int(env, UV_ENOMEM);
  int error = uv_poll_init(loop, &self->poll, fd);
  if (error) {
    free(self);
    return give_int(env, error);
  }
  self->env = env;
  self->poll.data = self;
  self->holders = 2;
  napi_create_reference(env, args.values[1], 1, &self->on_readable);
  napi_async_init(env, NULL, give_text(env, "headrace channel"), &self->context);
  napi_add_async_cleanup_hook(env, on_cleanup, self, &self->hook);
  uv_poll_start(&self->poll, UV_READABLE, on_poll);
  napi_value handle;
  napi_create_external(env, self, on_collected, NULL, &handle);
  return handle;
}

static napi_value channel_unwatch_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  void *data = NULL;
  if (napi_get_value_external(env, args.values[0], &data) != napi_ok || args.wrong)
    return throw_wrong(env);
  channel_watch *self = data;
  if (self->closed) return NULL;
  napi_delete_reference(env, self->on_readable);
  napi_async_destroy(env, self->context);
  shut(self);
  return NULL;
}

/* ---- exports ---- */

static const addon_export EXPORTS[] = {
    {"channelWatch", channel_watch_js},
    {"channelUnwatch", channel_unwatch_js},
};

const addon_exports CHANNEL_EXPORTS = {EXPORTS, sizeof EXPORTS / sizeof EXPORTS[0]};
