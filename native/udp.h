/* UDP sockets: binding, options, steering, what the kernel dropped. As socket.h, whose addresses
 * and option array these take; of the options only buffers and IPV6_V6ONLY mean anything here. */
#ifndef HEADRACE_UDP_H
#define HEADRACE_UDP_H

#include "socket.h"

/* A bound socket. With `exclusive` SO_REUSEPORT is set only after bind(): a socket of anyone else
 * on the address makes it fail with EADDRINUSE, and later members of our own group may still join.
 */
int udp_bind(const socket_address *address, bool exclusive, const int32_t options[OPTION_COUNT]);

/* 0 when udp_bind(exclusive) could bind now. */
int udp_probe(const socket_address *address, const int32_t options[OPTION_COUNT]);

/* Sets the buffers of a bound socket. One that is -1 gets what udp_bind gives it. */
int udp_apply(int fd, const int32_t options[OPTION_COUNT]);

/* Spreads what comes to the socket's SO_REUSEPORT group over its first `count` members, in the
 * order of their bind(), by a hash of source address and port: each flow stays together. What waits
 * in the others' queues stays there. socket_unsteer() ends it. */
int udp_steer(int fd, int count);

/* Datagrams that the kernel has dropped since the socket was made, for want of room above all: what
 * SO_RXQ_OVFL reports with the next datagram, asked for without waiting for one. Modulo 2^31. */
int udp_drops(int fd);

/* Is it bound to all addresses of the machine? */
bool udp_is_wildcard(int fd);

#endif
