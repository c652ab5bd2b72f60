/* The TLS addon for JavaScript: contexts and ticket keys. Connections do not come by here: the
 * engine takes them from a context. A text instead of a handle says what is wrong. */
#include <errno.h>
#include <node_api.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tls.h"

/* Copies of the options' texts, keys among them: wiped and freed when the context is made. */
typedef struct text text;
struct text {
  text *next;
  size_t length;
  char bytes[];
};

typedef struct {
  napi_env env;
  text *texts;
  bool wrong; /* set by every take_… that does not find what it wants */
} taker;

static napi_value property(taker *from, napi_value object, const char *name) {
  napi_value value = NULL;
  if (napi_get_named_property(from->env, object, name, &value) != napi_ok) from->wrong = true;
  return value;
}

static const char *take_text(taker *from, napi_value value) {
  size_t length;
  if (napi_get_value_string_utf8(from->env, value, NULL, 0, &length) != napi_ok) {
    from->wrong = true;
    return "";
  }
  text *copy = malloc(sizeof *copy + length + 1);
  if (!copy) {
    from->wrong = true;
    return "";
  }
  napi_get_value_string_utf8(from->env, value, copy->bytes, length + 1, &copy->length);
  copy->next = from->texts;
  from->texts = copy;
  return copy->bytes;
}

static const char *text_property(taker *from, napi_value object, const char *name) {
  return take_text(from, property(from, object, name));
}

static int int_property(taker *from, napi_value object, const char *name) {
  int32_t value = 0;
  if (napi_get_value_int32(from->env, property(from, object, name), &value) != napi_ok)
    from->wrong = true;
  return value;
}

static uint32_t take_length(taker *from, napi_value array) {
  uint32_t length = 0;
  if (napi_get_array_length(from->env, array, &length) != napi_ok) from->wrong = true;
  return length;
}

static napi_value take_element(taker *from, napi_value array, uint32_t index) {
  napi_value value = NULL;
  if (napi_get_element(from->env, array, index, &value) != napi_ok) from->wrong = true;
  return value;
}

/* The caller's to free(). */
static const char **take_texts(taker *from, napi_value array, uint32_t *count) {
  uint32_t length = take_length(from, array);
  const char **texts = calloc((size_t)length + 1, sizeof *texts);
  if (!texts) from->wrong = true;
  for (*count = 0; texts && *count < length; (*count)++)
    texts[*count] = take_text(from, take_element(from, array, *count));
  return texts;
}

static void take_certificates(taker *from, napi_value array, tls_options *options) {
  uint32_t length = take_length(from, array);
  options->certificates = calloc((size_t)length + 1, sizeof *options->certificates);
  if (!options->certificates) from->wrong = true;
  for (uint32_t i = 0; options->certificates && i < length; i++) {
    napi_value each = take_element(from, array, i);
    tls_certificate *certificate = &options->certificates[options->certificates_count++];
    certificate->chain = text_property(from, each, "chain");
    certificate->key = text_property(from, each, "key");
    certificate->names = take_texts(from, property(from, each, "names"), &certificate->names_count);
  }
}

static tls_verify take_verify(const char *word) {
  if (strcmp(word, "required") == 0) return VERIFY_REQUIRED;
  return strcmp(word, "optional") == 0 ? VERIFY_OPTIONAL : VERIFY_NONE;
}

static tickets *take_tickets(taker *from, napi_value value) {
  napi_valuetype type;
  void *data = NULL;
  if (napi_typeof(from->env, value, &type) != napi_ok) from->wrong = true;
  if (from->wrong || type == napi_undefined) return NULL;
  if (napi_get_value_external(from->env, value, &data) != napi_ok) from->wrong = true;
  return data;
}

static void take_options(taker *from, napi_value object, tls_options *options) {
  options->server = strcmp(text_property(from, object, "side"), "server") == 0;
  take_certificates(from, property(from, object, "certificates"), options);
  options->ca = text_property(from, object, "ca");
  options->verify = take_verify(text_property(from, object, "verify"));
  options->alpn = take_texts(from, property(from, object, "alpn"), &options->alpn_count);
  options->min_version = strcmp(text_property(from, object, "minVersion"), "TLSv1.3") == 0
                             ? TLS1_3_VERSION
                             : TLS1_2_VERSION;
  options->ciphers = text_property(from, object, "ciphers");
  options->ciphersuites = text_property(from, object, "ciphersuites");
  options->session_context = text_property(from, object, "sessionIdContext");
  options->tickets = take_tickets(from, property(from, object, "tickets"));
  options->key_log_fd = int_property(from, object, "keyLogFd");
}

static void drop_options(taker *from, tls_options *options) {
  for (uint32_t i = 0; i < options->certificates_count; i++)
    free(options->certificates[i].names);
  free(options->certificates);
  free(options->alpn);
  while (from->texts) {
    text *each = from->texts;
    from->texts = each->next;
    OPENSSL_cleanse(each->bytes, each->length);
    free(each);
  }
}

/* ---- results ---- */

static napi_value give_text(napi_env env, const char *words) {
  napi_value result;
  napi_create_string_utf8(env, words, NAPI_AUTO_LENGTH, &result);
  return result;
}

static napi_value throw_wrong(napi_env env) {
  napi_throw_type_error(env, NULL, "headrace TLS addon: wrong argument type");
  return NULL;
}

static void on_context_collected(napi_env env, void *data, void *hint) {
  (void)env;
  (void)hint;
  context_release(data);
}

static void on_tickets_collected(napi_env env, void *data, void *hint) {
  (void)env;
  (void)hint;
  tickets_release(data);
}

static napi_value context_js(napi_env env, napi_callback_info info) {
  taker from = {.env = env};
  tls_options options = {0};
  tls_error error = "";
  size_t count = 1;
  napi_value object, handle;
  if (napi_get_cb_info(env, info, &count, &object, NULL, NULL) != napi_ok) return throw_wrong(env);
  take_options(&from, object, &options);
  tls_context *context = from.wrong ? NULL : context_open(&options, error);
  drop_options(&from, &options);
  if (from.wrong) return throw_wrong(env);
  if (!context) return give_text(env, error);
  napi_create_external(env, context, on_context_collected, NULL, &handle);
  return handle;
}

static napi_value tickets_js(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument, handle;
  int32_t fd = -1;
  if (napi_get_cb_info(env, info, &count, &argument, NULL, NULL) != napi_ok ||
      napi_get_value_int32(env, argument, &fd) != napi_ok)
    return throw_wrong(env);
  tickets *keys;
  int result = tickets_open(fd, &keys);
  if (result == -EINVAL) return give_text(env, "the memory holds no ticket keys of this version");
  if (result) return give_text(env, strerror(-result));
  napi_create_external(env, keys, on_tickets_collected, NULL, &handle);
  return handle;
}

/* ---- exports ---- */

static bool export_function(napi_env env, napi_value exports, const char *name,
                            napi_callback call) {
  napi_value function;
  return napi_create_function(env, name, NAPI_AUTO_LENGTH, call, NULL, &function) == napi_ok &&
         napi_set_named_property(env, exports, name, function) == napi_ok;
}

NAPI_MODULE_INIT() {
  /* The symbols are there, or it would not have been loaded; their meaning may be another. */
  if (OPENSSL_version_major() != OPENSSL_VERSION_MAJOR) {
    char words[128];
    snprintf(words, sizeof words, "made for OpenSSL %d, and this Node has %s",
             OPENSSL_VERSION_MAJOR, OpenSSL_version(OPENSSL_VERSION_STRING));
    napi_throw_error(env, NULL, words);
    return NULL;
  }
  if (!wire_open() || !tickets_prepare()) {
    napi_throw_error(env, NULL, "OpenSSL cannot make what TLS needs");
    return NULL;
  }
  export_function(env, exports, "context", context_js);
  export_function(env, exports, "tickets", tickets_js);
  return exports;
}
