/* What the addon's files share: arguments in, results out. Functions that JavaScript calls return a
 * negative errno instead of throwing; a wrong argument type is a bug and throws.
 *
 * addon.c: this header and the exports. addon_os.c: sockets, descriptors, memory. addon_channel.c:
 * channels in the event loop. addon_engine.c: the engine in the event loop. addon_datagram.c: UDP.
 * addon_bell.c: being woken by other processes. Nothing else in this folder knows N-API. */
#ifndef HEADRACE_ADDON_H
#define HEADRACE_ADDON_H

#include <node_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "socket.h"

#define ARGUMENTS_MAX 7
#define HOST_BYTES 64

typedef struct {
  napi_env env;
  napi_value values[ARGUMENTS_MAX];
  bool wrong; /* set by every take_… that does not find what it wants */
} arguments;

arguments take_arguments(napi_env env, napi_callback_info info);
int32_t take_int(arguments *args, int index);
bool take_bool(arguments *args, int index);
void take_text(arguments *args, int index, char *text, size_t size);
bool take_is_function(arguments *args, int index);

/* The memory of a typed array of the given kind and its length in elements. */
void *take_array(arguments *args, napi_value value, napi_typedarray_type kind, size_t *length);
const uint8_t *take_bytes(arguments *args, int index, size_t *length);

/* The option array of socket.h. */
const int32_t *take_options(arguments *args, int index);

/* 0, or -EINVAL when the text is no IP literal. */
int take_address(arguments *args, int host, int port, socket_address *address);

napi_value throw_wrong(napi_env env);

napi_value give_int(napi_env env, int32_t value);
napi_value give_bool(napi_env env, bool value);
napi_value give_text(napi_env env, const char *text);
napi_value give_fds(napi_env env, const int *fds, size_t count);
napi_value give_object(napi_env env);
/* "address port", or the error. */
napi_value give_address(napi_env env, int error, const socket_address *address);
void set_property(napi_env env, napi_value object, const char *name, napi_value value);

/* Calls back into JavaScript from the event loop. Promise continuations run before this returns; an
 * exception ends the process as an uncaught one. */
void call_back(napi_env env, napi_async_context context, napi_ref callback, int32_t argument);

/* What one file exports. */
typedef struct {
  const char *name;
  napi_callback call;
} addon_export;

typedef struct {
  const addon_export *list;
  size_t count;
} addon_exports;

extern const addon_exports OS_EXPORTS, CHANNEL_EXPORTS, ENGINE_EXPORTS, BELL_EXPORTS,
    DATAGRAM_EXPORTS;

#endif
