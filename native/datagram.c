#include "datagram.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "udp.h"

/* The first table of watches; it doubles. */
#define WATCHES_LEAST 64
/* A datagram's other end begins at a cache line. */
#define ALIGNMENT 64
/* Room for both control messages: a dual-stack socket gets both with a datagram over IPv4. */
#define CONTROL_BYTES                                                                              \
  (CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(struct in_pktinfo)))

typedef union {
  struct sockaddr any;
  struct sockaddr_in v4;
  struct sockaddr_in6 v6;
} name;

typedef struct {
  uint8_t bytes[CONTROL_BYTES];
} __attribute__((aligned(8))) control;

/* A batch on its way in or out. */
typedef struct {
  struct mmsghdr messages[DATAGRAM_BATCH];
  struct iovec parts[DATAGRAM_BATCH];
  name names[DATAGRAM_BATCH];
  control controls[DATAGRAM_BATCH];
  datagram_end *ends[DATAGRAM_BATCH];
} batch;

typedef struct {
  int fd; /* -1: not in use */
  uint8_t listener;
  bool tells_local; /* with each datagram comes where it came to */
} receiver;

typedef struct {
  datagram_rule rule; /* no counters: there is none */
  int fd;             /* ours, to send by; -1: none */
  int family;
} sender;

/* What waits for its second attempt. */
typedef struct waiting {
  struct waiting *next;
  int listener;
  uint32_t length;
  datagram_end end;
  uint8_t bytes[];
} waiting;

struct datagrams {
  receiver *receivers; /* by the number of the watch */
  int32_t receivers_size;
  uint32_t turn; /* who of those that are ready comes first */
  sender senders[LISTENERS_MAX];
  source_table sources;
  batch in, out;
  int out_count, out_listener;
  waiting *first, *last;
  int waiting_count, timer_fd;
};

/* ---- opening ---- */

static void prepare(batch *self) {
  for (int i = 0; i < DATAGRAM_BATCH; i++) {
    struct msghdr *header = &self->messages[i].msg_hdr;
    header->msg_name = &self->names[i];
    header->msg_iov = &self->parts[i];
    header->msg_iovlen = 1;
  }
}

static int open_all(engine *self, int32_t *words) {
  struct datagrams *all = calloc(1, sizeof *all);
  if (!all) return -ENOMEM;
  for (int listener = 0; listener < LISTENERS_MAX; listener++)
    all->senders[listener].fd = -1;
  prepare(&all->in);
  prepare(&all->out);
  int error = source_open(&all->sources, words);
  all->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  if (!error && all->timer_fd < 0) error = -errno;
  struct epoll_event event = {.events = EPOLLIN,
                              .data.u64 = LISTENER_BIT | DATAGRAM_BIT | DATAGRAM_TIMER};
  if (!error && epoll_ctl(self->epoll_fd, EPOLL_CTL_ADD, all->timer_fd, &event) != 0)
    error = -errno;
  self->datagrams = all;
  if (error) datagram_close_all(self);
  return error;
}

static bool is_listener(int listener) {
  return listener >= 0 && listener < LISTENERS_MAX;
}

int datagram_rule_set(engine *self, int listener, const datagram_rule *rule, int32_t *sources) {
  if (!is_listener(listener) || rule->most < 1 || rule->most > DATAGRAM_MOST || rule->factor < 0)
    return -EINVAL;
  /* Else not one would ever fit. */
  if (sizeof(datagram_end) + rule->most + ALIGNMENT > self->memory.input_bytes) return -EINVAL;
  int error = self->datagrams ? 0 : open_all(self, sources);
  if (!error) self->datagrams->senders[listener].rule = *rule;
  return error;
}

static receiver *receiver_at(engine *self, int number) {
  struct datagrams *all = self->datagrams;
  if (!all || number < 0 || number >= all->receivers_size) return NULL;
  receiver *from = &all->receivers[number];
  return from->fd >= 0 ? from : NULL;
}

static int grow(struct datagrams *all, int number) {
  int32_t size = all->receivers_size > 0 ? all->receivers_size : WATCHES_LEAST;
  while (size <= number)
    size *= 2;
  if (size == all->receivers_size) return 0;
  receiver *grown = realloc(all->receivers, (size_t)size * sizeof *grown);
  if (!grown) return -ENOMEM;
  for (int32_t i = all->receivers_size; i < size; i++)
    grown[i] = (receiver){.fd = -1};
  all->receivers = grown;
  all->receivers_size = size;
  return 0;
}

/* On a machine with several addresses an answer has to come from the one that was asked. A socket
 * that is bound to one of them needs no telling. What an IPv6 socket gets over IPv4 is told by
 * IP_PKTINFO, because IPV6_PKTINFO gives the address that it was sent to, which may be a group's or
 * a network's. */
static int tell_local(int fd) {
  int family = 0, on = 1;
  socklen_t length = sizeof family;
  if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &length) != 0) return -errno;
  if (setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on) != 0) return -errno;
  if (family != AF_INET6) return 0;
  return setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on) == 0 ? 0 : -errno;
}

int datagram_receive(engine *self, int number, int listener, int fd) {
  struct datagrams *all = self->datagrams;
  if (!all || !is_listener(listener) || !all->senders[listener].rule.counters) return -EINVAL;
  if (number < 0 || number >= WATCHES_MAX) return -EINVAL;
  if (receiver_at(self, number)) return -EBUSY;
  bool wildcard = udp_is_wildcard(fd);
  int error = grow(all, number);
  if (!error && wildcard) error = tell_local(fd);
  if (error) return error;
  /* Exclusive, because several workers may receive from one socket (listener.c). */
  struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE,
                              .data.u64 = LISTENER_BIT | DATAGRAM_BIT | (uint64_t)number};
  if (epoll_ctl(self->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) return -errno;
  all->receivers[number] =
      (receiver){.fd = fd, .listener = (uint8_t)listener, .tells_local = wildcard};
  return 0;
}

int datagram_stop(engine *self, int number) {
  receiver *from = receiver_at(self, number);
  if (!from) return -EINVAL;
  epoll_ctl(self->epoll_fd, EPOLL_CTL_DEL, from->fd, NULL);
  from->fd = -1;
  return 0;
}

int datagram_sender(engine *self, int listener, int fd) {
  if (!self->datagrams || !is_listener(listener)) return -EINVAL;
  sender *by = &self->datagrams->senders[listener];
  int copy = -1, family = 0;
  if (fd >= 0) {
    socklen_t length = sizeof family;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &length) != 0) return -errno;
    copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0) return -errno;
  }
  if (by->fd >= 0) close(by->fd);
  by->fd = copy;
  by->family = family;
  return 0;
}

int32_t datagram_source(engine *self, const datagram_end *end, bool take) {
  struct datagrams *all = self->datagrams;
  if (!all) return SOURCE_NONE;
  const uint8_t *key = (const uint8_t *)end;
  return take ? source_take(&all->sources, key, (uint32_t)(int64_t)self->now)
              : source_find(&all->sources, key);
}

void datagram_close_all(engine *self) {
  struct datagrams *all = self->datagrams;
  if (!all) return;
  for (int32_t number = 0; number < all->receivers_size; number++)
    datagram_stop(self, number);
  for (int listener = 0; listener < LISTENERS_MAX; listener++)
    if (all->senders[listener].fd >= 0) close(all->senders[listener].fd);
  while (all->first) {
    waiting *gone = all->first;
    all->first = gone->next;
    free(gone);
  }
  if (all->timer_fd >= 0) {
    epoll_ctl(self->epoll_fd, EPOLL_CTL_DEL, all->timer_fd, NULL);
    close(all->timer_fd);
  }
  source_close(&all->sources);
  free(all->receivers);
  free(all);
  self->datagrams = NULL;
}

/* ---- receiving ---- */

static void map_v4(uint8_t address[16], const struct in_addr *v4) {
  memset(address, 0, 10);
  memset(address + 10, 0xff, 2);
  memcpy(address + 12, v4, 4);
}

/* Where an answer comes from: where it came to, as a rule. An address of a group is nobody's to
 * answer from; over IPv4 the kernel says which of our own is in its place (ipi_spec_dst). */
static void read_local(struct msghdr *header, datagram_end *end) {
  for (struct cmsghdr *each = CMSG_FIRSTHDR(header); each; each = CMSG_NXTHDR(header, each)) {
    if (each->cmsg_level == IPPROTO_IP && each->cmsg_type == IP_PKTINFO) {
      struct in_pktinfo info;
      memcpy(&info, CMSG_DATA(each), sizeof info);
      map_v4(end->local, &info.ipi_spec_dst);
    } else if (each->cmsg_level == IPPROTO_IPV6 && each->cmsg_type == IPV6_PKTINFO) {
      struct in6_pktinfo info;
      memcpy(&info, CMSG_DATA(each), sizeof info);
      const struct in6_addr *to = &info.ipi6_addr;
      if (!IN6_IS_ADDR_MULTICAST(to) && !IN6_IS_ADDR_V4MAPPED(to)) memcpy(end->local, to, 16);
    }
  }
}

/* False for what has no address to answer to. */
static bool read_end(struct msghdr *header, int listener, datagram_end *end) {
  const name *from = header->msg_name;
  memset(end, 0, sizeof *end);
  if (from->any.sa_family == AF_INET) {
    map_v4(end->address, &from->v4.sin_addr);
    end->port = ntohs(from->v4.sin_port);
  } else if (from->any.sa_family == AF_INET6) {
    memcpy(end->address, &from->v6.sin6_addr, 16);
    end->port = ntohs(from->v6.sin6_port);
    end->scope = from->v6.sin6_scope_id;
  } else {
    return false;
  }
  end->listener = (uint16_t)listener;
  end->source = SOURCE_NONE;
  if (header->msg_controllen > 0) read_local(header, end);
  return true;
}

static bool is_asked(const admission *gate, int listener) {
  return gate->lists[listener].count > 0 || address_is_limited(&gate->rules[listener]);
}

/* Lists and rates are those of admission; a datagram takes no place there. */
static admission_verdict judge(admission *gate, int listener, const datagram_end *end) {
  int32_t entry;
  admission_verdict verdict = admission_name(gate, listener, end->address, &entry);
  if (verdict == ADMITTED) address_leave(&gate->addresses, entry);
  return verdict;
}

static void receive_one(engine *self, int listener, int index) {
  struct datagrams *all = self->datagrams;
  const datagram_rule *rule = &all->senders[listener].rule;
  struct msghdr *header = &all->in.messages[index].msg_hdr;
  uint32_t length = all->in.messages[index].msg_len;
  datagram_end *end = all->in.ends[index];
  if (header->msg_flags & MSG_TRUNC) {
    rule->counters[DATAGRAM_TRUNCATED]++;
    return;
  }
  if (!read_end(header, listener, end)) return;
  if (is_asked(&self->admission, listener)) {
    admission_verdict verdict = judge(&self->admission, listener, end);
    if (verdict != ADMITTED) {
      rule->counters[verdict == REJECT_DENIED ? DATAGRAM_DENIED : DATAGRAM_LIMITED]++;
      return;
    }
  }
  if (rule->factor > 0) {
    end->source = datagram_source(self, end, true);
    source_earn(&all->sources, end->source, (int64_t)length * rule->factor);
    end->generation = all->sources.words[end->source * SOURCE_WORDS + SOURCE_GENERATION];
  }
  rule->counters[DATAGRAM_RECEIVED]++;
  self->memory.totals[TOTAL_BYTES_RECEIVED] += length;
  int32_t at = (int32_t)((uint8_t *)end - self->memory.input + sizeof *end);
  engine_emit(self, INPUT_DATAGRAM, listener, at, (int32_t)length);
}

static uint32_t align(uint32_t size) {
  return (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* How many fit: into a batch, the arena, and the records. */
static int room_for(const engine *self, uint32_t stride, uint32_t share_end, int most) {
  uint32_t bytes_end = share_end < self->memory.input_bytes ? share_end : self->memory.input_bytes;
  uint32_t bytes = self->input_used < bytes_end ? bytes_end - self->input_used : 0;
  uint32_t room = bytes / stride;
  uint32_t records = self->memory.input_records_max / 2;
  uint32_t left = self->input_count < records ? records - self->input_count : 0;
  if (room > left) room = left;
  if (room > DATAGRAM_BATCH) room = DATAGRAM_BATCH;
  return room < (uint32_t)most ? (int)room : most;
}

/* One system call. Returns how many it took; less than `most` when nothing more waits. */
static int receive_batch(engine *self, const receiver *from, uint32_t stride, int most) {
  batch *in = &self->datagrams->in;
  uint32_t length = self->datagrams->senders[from->listener].rule.most;
  for (int i = 0; i < most; i++) {
    uint8_t *at = self->memory.input + self->input_used + (uint32_t)i * stride;
    in->ends[i] = (datagram_end *)at;
    in->parts[i] = (struct iovec){.iov_base = at + sizeof(datagram_end), .iov_len = length};
    struct msghdr *header = &in->messages[i].msg_hdr;
    header->msg_namelen = sizeof(name);
    header->msg_control = from->tells_local ? &in->controls[i] : NULL;
    header->msg_controllen = from->tells_local ? CONTROL_BYTES : 0;
  }
  int count = recvmmsg(from->fd, in->messages, (unsigned)most, MSG_DONTWAIT, NULL);
  self->memory.totals[TOTAL_RECEIVES]++;
  for (int i = 0; i < count; i++)
    receive_one(self, from->listener, i);
  if (count > 0) self->input_used += (uint32_t)count * stride;
  return count;
}

/* Returns whether anything was there. */
static bool receive(engine *self, int number, int most) {
  const receiver *from = receiver_at(self, number);
  if (!from) return false;
  uint32_t bytes = self->datagrams->senders[from->listener].rule.most;
  uint32_t stride = align((uint32_t)sizeof(datagram_end) + bytes);
  uint32_t share_end = DATAGRAM_SHARE < stride ? stride : DATAGRAM_SHARE;
  bool any = false;
  while (most > 0) {
    int room = room_for(self, stride, share_end, most);
    if (room <= 0) break;
    int count = receive_batch(self, from, stride, room);
    any = any || count > 0;
    if (count < room) break;
    most -= count;
  }
  return any;
}

static void try_again(engine *self);

void datagram_receive_ready(engine *self, const int32_t *ready, int count) {
  struct datagrams *all = self->datagrams;
  if (count == 0 || !all) return;
  int share = count < DATAGRAMS_PER_ROUND ? DATAGRAMS_PER_ROUND / count : 1;
  uint32_t first = all->turn++ % (uint32_t)count;
  for (int i = 0; i < count; i++) {
    int32_t number = ready[(first + (uint32_t)i) % (uint32_t)count];
    if (number == DATAGRAM_TIMER) {
      try_again(self);
    } else {
      receive(self, number, share);
    }
  }
}

int datagram_receive_queued(engine *self, int number) {
  self->input_used = self->input_count = 0;
  /* A batch of which nothing is left over says nothing about the next one. */
  while (self->input_count == 0 && receive(self, number, DATAGRAMS_PER_ROUND)) {
  }
  return (int)self->input_count;
}

/* ---- sending ---- */

static bool is_v4(const uint8_t address[16]) {
  static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
  return memcmp(address, mapped, sizeof mapped) == 0;
}

/* False when a socket of this family cannot reach the address. */
static bool write_name(int family, const datagram_end *end, struct msghdr *header) {
  name *to = header->msg_name;
  if (family == AF_INET6) {
    to->v6 = (struct sockaddr_in6){
        .sin6_family = AF_INET6, .sin6_port = htons(end->port), .sin6_scope_id = end->scope};
    memcpy(&to->v6.sin6_addr, end->address, 16);
    header->msg_namelen = sizeof to->v6;
    return true;
  }
  if (!is_v4(end->address)) return false;
  to->v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(end->port)};
  memcpy(&to->v4.sin_addr, end->address + 12, 4);
  header->msg_namelen = sizeof to->v4;
  return true;
}

/* From where it leaves, where that is not the socket's own address. */
static void write_local(int family, const datagram_end *end, struct msghdr *header,
                        control *buffer) {
  static const uint8_t zeros[16];
  header->msg_control = NULL;
  header->msg_controllen = 0;
  if (memcmp(end->local, zeros, sizeof zeros) == 0) return;
  memset(buffer, 0, sizeof *buffer);
  header->msg_control = buffer;
  header->msg_controllen = sizeof *buffer;
  struct cmsghdr *message = CMSG_FIRSTHDR(header);
  if (family == AF_INET6) {
    struct in6_pktinfo info = {.ipi6_ifindex = end->scope};
    memcpy(&info.ipi6_addr, end->local, 16);
    *message = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(sizeof info), .cmsg_level = IPPROTO_IPV6, .cmsg_type = IPV6_PKTINFO};
    memcpy(CMSG_DATA(message), &info, sizeof info);
    header->msg_controllen = CMSG_SPACE(sizeof info);
  } else {
    struct in_pktinfo info = {0};
    memcpy(&info.ipi_spec_dst, end->local + 12, 4);
    *message = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(sizeof info), .cmsg_level = IPPROTO_IP, .cmsg_type = IP_PKTINFO};
    memcpy(CMSG_DATA(message), &info, sizeof info);
    header->msg_controllen = CMSG_SPACE(sizeof info);
  }
}

static void arm(const struct datagrams *all) {
  struct itimerspec when = {.it_value.tv_nsec = DATAGRAM_RETRY_MS * 1000000};
  timerfd_settime(all->timer_fd, 0, &when, NULL);
}

static void show_waiting(engine *self) {
  self->memory.header[HEADER_WAITING] = self->datagrams->waiting_count;
}

static void keep(engine *self, int listener, const datagram_end *end, uint32_t length) {
  struct datagrams *all = self->datagrams;
  double *counters = all->senders[listener].rule.counters;
  counters[DATAGRAM_RETRIED]++;
  waiting *kept = all->waiting_count < DATAGRAMS_WAITING ? malloc(sizeof *kept + length) : NULL;
  if (!kept) {
    counters[DATAGRAM_DROPPED]++;
    return;
  }
  *kept = (waiting){.listener = listener, .length = length, .end = *end};
  memcpy(kept->bytes, (const uint8_t *)end + sizeof *end, length);
  if (all->last) {
    all->last->next = kept;
  } else {
    all->first = kept;
    arm(all);
  }
  all->last = kept;
  all->waiting_count++;
  show_waiting(self);
}

static bool is_shortage(int error) {
  return error == EAGAIN || error == ENOBUFS || error == ENOMEM;
}

static void count_sent(engine *self, int listener, uint32_t length) {
  self->datagrams->senders[listener].rule.counters[DATAGRAM_SENT]++;
  self->memory.totals[TOTAL_BYTES_SENT] += length;
}

/* sendmmsg() stops at the first that the kernel does not take, and says why when that is the first
 * of all. A shortage concerns those behind it too: they are kept without asking for each. */
void datagram_flush(engine *self) {
  struct datagrams *all = self->datagrams;
  if (!all || all->out_count == 0) return;
  batch *out = &all->out;
  int listener = all->out_listener, count = all->out_count;
  const sender *by = &all->senders[listener];
  all->out_count = 0;
  for (int done = 0; done < count;) {
    int sent = sendmmsg(by->fd, out->messages + done, (unsigned)(count - done),
                        MSG_DONTWAIT | MSG_NOSIGNAL);
    int error = errno;
    self->memory.totals[TOTAL_SENDS]++;
    for (int i = 0; i < sent; i++)
      count_sent(self, listener, (uint32_t)out->parts[done + i].iov_len);
    if (sent > 0) {
      done += sent;
    } else if (is_shortage(error)) {
      for (; done < count; done++)
        keep(self, listener, out->ends[done], (uint32_t)out->parts[done].iov_len);
    } else if (error != EINTR) {
      by->rule.counters[DATAGRAM_FAILED]++;
      done++;
    }
  }
}

/* Puts one into a batch of its listener. False when it cannot be sent at all. */
static bool address_one(const sender *by, datagram_end *end, uint32_t length, batch *out,
                        int index) {
  struct msghdr *header = &out->messages[index].msg_hdr;
  if (by->fd < 0 || !write_name(by->family, end, header)) return false;
  write_local(by->family, end, header, &out->controls[index]);
  out->parts[index] = (struct iovec){.iov_base = end + 1, .iov_len = length};
  out->ends[index] = end;
  return true;
}

void datagram_collect(engine *self, int listener, int32_t a, int32_t b) {
  struct datagrams *all = self->datagrams;
  if (!all || !is_listener(listener) || a < 0 || b < 0 || b > DATAGRAM_MOST) return;
  if ((uint64_t)a + sizeof(datagram_end) + (uint64_t)b > self->memory.output_bytes) return;
  if (a % 8 != 0) return;
  const sender *by = &all->senders[listener];
  if (!by->rule.counters) return;
  if (all->out_count == DATAGRAM_BATCH || all->out_listener != listener) datagram_flush(self);
  all->out_listener = listener;
  datagram_end *end = (datagram_end *)(self->memory.output + a);
  if (address_one(by, end, (uint32_t)b, &all->out, all->out_count)) {
    all->out_count++;
  } else {
    by->rule.counters[DATAGRAM_FAILED]++;
  }
}

/* The second attempt, and the last. */
static void try_again(engine *self) {
  struct datagrams *all = self->datagrams;
  uint64_t expirations;
  if (read(all->timer_fd, &expirations, sizeof expirations) < 0) return;
  waiting *next = all->first;
  all->first = all->last = NULL;
  all->waiting_count = 0;
  while (next) {
    waiting *each = next;
    next = each->next;
    const sender *by = &all->senders[each->listener];
    batch *out = &all->out;
    int sent = -1;
    errno = EBADF;
    if (address_one(by, &each->end, each->length, out, 0))
      sent = sendmmsg(by->fd, out->messages, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent == 1) {
      count_sent(self, each->listener, each->length);
    } else {
      by->rule.counters[is_shortage(errno) ? DATAGRAM_DROPPED : DATAGRAM_FAILED]++;
    }
    free(each);
  }
  show_waiting(self);
}
