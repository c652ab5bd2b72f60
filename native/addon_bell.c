/* Bells: how one process wakes another that shares memory with it. A bell is a word of shared
 * memory; whoever has written something adds to it and wakes those who sleep on it (futex(2)). Each
 * listener has a thread that sleeps there and calls into its event loop once, until it is armed
 * again: while a process is busy it costs the others nothing. */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "addon.h"
#include "fds.h"

/* The bell's words: it is rung by changing the first; the second counts those who sleep. One that
 * died in its sleep is counted for ever, which costs the others a system call per ring and nothing
 * else. */
enum { BELL_RUNG, BELL_SLEEPERS, BELL_WORDS };

/* The bell of a memory is in its first page. */
#define BELL_PAGE 4096

typedef struct {
  napi_threadsafe_function ring;
  void *memory; /* mapped for the thread: JavaScript's mapping may end before it */
  _Atomic int32_t *words;
  int32_t heard; /* JavaScript has looked since the bell had this value */
  sem_t armed;
  atomic_bool stopped;
  pthread_t thread;
} bell;

static void wake(_Atomic int32_t *words) {
  atomic_fetch_add(&words[BELL_RUNG], 1);
  if (atomic_load(&words[BELL_SLEEPERS]) > 0)
    syscall(SYS_futex, &words[BELL_RUNG], FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static void *listen_to(void *data) {
  bell *self = data;
  for (;;) {
    while (sem_wait(&self->armed) != 0 && errno == EINTR) {
    }
    atomic_fetch_add(&self->words[BELL_SLEEPERS], 1);
    while (!atomic_load(&self->stopped) && atomic_load(&self->words[BELL_RUNG]) == self->heard)
      syscall(SYS_futex, &self->words[BELL_RUNG], FUTEX_WAIT, self->heard, NULL, NULL, 0);
    atomic_fetch_sub(&self->words[BELL_SLEEPERS], 1);
    if (atomic_load(&self->stopped)) return NULL;
    napi_call_threadsafe_function(self->ring, NULL, napi_tsfn_nonblocking);
  }
}

static void discard(bell *self) {
  sem_destroy(&self->armed);
  munmap(self->memory, BELL_PAGE);
  free(self);
}

/* The environment ends: the thread must have gone before the memory does. */
static void on_end(void *data) {
  bell *self = data;
  atomic_store(&self->stopped, true);
  sem_post(&self->armed);
  wake(self->words);
  pthread_join(self->thread, NULL);
  discard(self);
}

/* What was rung before this is for the caller to look at, afterwards. */
static napi_value bell_arm_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  void *data = NULL;
  if (napi_get_value_external(env, args.values[0], &data) != napi_ok) return throw_wrong(env);
  bell *self = data;
  self->heard = atomic_load(&self->words[BELL_RUNG]);
  sem_post(&self->armed);
  return NULL;
}

static int listen_bell(napi_env env, bell *self, int fd, int word, napi_value on_ring) {
  int error = fds_map(fd, 0, BELL_PAGE, &self->memory);
  if (error) return error;
  self->words = (_Atomic int32_t *)self->memory + word;
  if (napi_create_threadsafe_function(env, on_ring, NULL, give_text(env, "headrace bell"), 1, 1,
                                      NULL, NULL, NULL, NULL, &self->ring) != napi_ok) {
    munmap(self->memory, BELL_PAGE);
    return -ENOMEM;
  }
  napi_unref_threadsafe_function(env, self->ring);
  sem_init(&self->armed, 0, 0);
  error = -pthread_create(&self->thread, NULL, listen_to, self);
  if (!error) return 0;
  napi_release_threadsafe_function(self->ring, napi_tsfn_abort);
  sem_destroy(&self->armed);
  munmap(self->memory, BELL_PAGE);
  return error;
}

static napi_value bell_listen_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  int fd = take_int(&args, 0), word = take_int(&args, 1);
  if (!take_is_function(&args, 2)) args.wrong = true;
  if (args.wrong || word < 0 || (word + BELL_WORDS) * 4 > BELL_PAGE) return throw_wrong(env);
  bell *self = calloc(1, sizeof *self);
  if (!self) return give_int(env, -ENOMEM);
  int error = listen_bell(env, self, fd, word, args.values[2]);
  if (error) {
    free(self);
    return give_int(env, error);
  }
  napi_add_env_cleanup_hook(env, on_end, self);
  napi_value handle;
  napi_create_external(env, self, NULL, NULL, &handle);
  return handle;
}

static napi_value bell_ring_js(napi_env env, napi_callback_info info) {
  arguments args = take_arguments(env, info);
  size_t length;
  int32_t *words = take_array(&args, args.values[0], napi_int32_array, &length);
  if (args.wrong || length < BELL_WORDS) return throw_wrong(env);
  wake((_Atomic int32_t *)words);
  return NULL;
}

static const addon_export EXPORTS[] = {
    {"bellListen", bell_listen_js},
    {"bellArm", bell_arm_js},
    {"bellRing", bell_ring_js},
};

const addon_exports BELL_EXPORTS = {EXPORTS, sizeof EXPORTS / sizeof EXPORTS[0]};
