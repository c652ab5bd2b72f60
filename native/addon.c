#include "addon.h"

#include <errno.h>

/* ---- arguments ---- */

arguments take_arguments(napi_env env, napi_callback_info info) {
  arguments args = {.env = env};
  size_t count = ARGUMENTS_MAX;
  if (napi_get_cb_info(env, info, &count, args.values, NULL, NULL) != napi_ok) args.wrong = true;
  return args;
}

int32_t take_int(arguments *args, int index) {
  int32_t value = 0;
  if (napi_get_value_int32(args->env, args->values[index], &value) != napi_ok) args->wrong = true;
  return value;
}

bool take_bool(arguments *args, int index) {
  bool value = false;
  if (napi_get_value_bool(args->env, args->values[index], &value) != napi_ok) args->wrong = true;
  return value;
}

void take_text(arguments *args, int index, char *text, size_t size) {
  size_t length;
  text[0] = 0;
  if (napi_get_value_string_utf8(args->env, args->values[index], text, size, &length) != napi_ok)
    args->wrong = true;
}

bool take_is_function(arguments *args, int index) {
  napi_valuetype type;
  return napi_typeof(args->env, args->values[index], &type) == napi_ok && type == napi_function;
}

void *take_array(arguments *args, napi_value value, napi_typedarray_type kind, size_t *length) {
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

const uint8_t *take_bytes(arguments *args, int index, size_t *length) {
  return take_array(args, args->values[index], napi_uint8_array, length);
}

const int32_t *take_options(arguments *args, int index) {
  static const int32_t none[OPTION_COUNT];
  size_t length;
  const int32_t *options = take_array(args, args->values[index], napi_int32_array, &length);
  if (options && length == OPTION_COUNT) return options;
  args->wrong = true;
  return none;
}

int take_address(arguments *args, int host, int port, socket_address *address) {
  char text[HOST_BYTES];
  take_text(args, host, text, sizeof text);
  return socket_address_parse(address, text, (uint16_t)take_int(args, port));
}

napi_value throw_wrong(napi_env env) {
  napi_throw_type_error(env, NULL, "headrace addon: wrong argument type");
  return NULL;
}

/* ---- results ---- */

napi_value give_int(napi_env env, int32_t value) {
  napi_value result;
  napi_create_int32(env, value, &result);
  return result;
}

napi_value give_bool(napi_env env, bool value) {
  napi_value result;
  napi_get_boolean(env, value, &result);
  return result;
}

napi_value give_text(napi_env env, const char *text) {
  napi_value result;
  napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &result);
  return result;
}

napi_value give_fds(napi_env env, const int *fds, size_t count) {
  napi_value array;
  napi_create_array_with_length(env, count, &array);
  for (size_t i = 0; i < count; i++)
    napi_set_element(env, array, (uint32_t)i, give_int(env, fds[i]));
  return array;
}

napi_value give_object(napi_env env) {
  napi_value object;
  napi_create_object(env, &object);
  return object;
}

void set_property(napi_env env, napi_value object, const char *name, napi_value value) {
  napi_set_named_property(env, object, name, value);
}

napi_value give_address(napi_env env, int error, const socket_address *address) {
  char text[SOCKET_TEXT_BYTES];
  if (!error) error = socket_address_format(address, text);
  return error ? give_int(env, error) : give_text(env, text);
}

void call_back(napi_env env, napi_async_context context, napi_ref callback, int32_t argument) {
  napi_handle_scope scope;
  napi_value function, receiver, value;
  napi_open_handle_scope(env, &scope);
  napi_get_reference_value(env, callback, &function);
  napi_get_global(env, &receiver);
  napi_create_int32(env, argument, &value);
  if (napi_make_callback(env, context, receiver, function, 1, &value, NULL) ==
      napi_pending_exception) {
    napi_value error;
    napi_get_and_clear_last_exception(env, &error);
    napi_fatal_exception(env, error);
  }
  napi_close_handle_scope(env, scope);
}

/* ---- exports ---- */

NAPI_MODULE_INIT() {
  const addon_exports *const files[] = {&OS_EXPORTS, &CHANNEL_EXPORTS, &ENGINE_EXPORTS,
                                        &BELL_EXPORTS, &DATAGRAM_EXPORTS};
  for (size_t file = 0; file < sizeof files / sizeof files[0]; file++) {
    for (size_t i = 0; i < files[file]->count; i++) {
      const addon_export *each = &files[file]->list[i];
      napi_value function;
      if (napi_create_function(env, each->name, NAPI_AUTO_LENGTH, each->call, NULL, &function) !=
          napi_ok)
        return NULL;
      set_property(env, exports, each->name, function);
    }
  }
  return exports;
}
