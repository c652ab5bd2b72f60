/**
 * Socket options on their way to the addon: one Int32Array, one row per option, -1 for "leave it to the kernel".
 * The order is that of native/socket.h (enum socket_option). On a listener each is set where accepted sockets
 * inherit it (Linux copies TCP_NODELAY, SO_KEEPALIVE and its times, TCP_USER_TIMEOUT, buffers and
 * TCP_NOTSENT_LOWAT at accept: tcp_create_openreq_child clones the listener's sock); an outbound connection gets
 * them before connect().
 */
import type { Deadline, SocketOptions } from "../base/settings.ts";

export const SOCKET_OPTION_NAMES: readonly (keyof SocketOptions)[] = [
  "noDelay",
  "keepAlive",
  "keepAliveInterval",
  "keepAliveCount",
  "userTimeout",
  "deferAccept",
  "fastOpen",
  "notSentLowWater",
  "receiveBuffer",
  "sendBuffer",
  "ipv6Only",
  "backlog",
];

/** TCP takes whole seconds for some options: rounded up, so that 500ms never becomes "off". */
function seconds(ms: Deadline): number {
  return ms === "off" ? -1 : Math.ceil(ms / 1000);
}

const orKernel = (value: number | "off"): number => (value === "off" ? -1 : value);

/** In the order of SOCKET_OPTION_NAMES; keepalive and defer-accept in seconds, the user timeout in ms. */
export function packSocketOptions(options: SocketOptions): Int32Array {
  return Int32Array.of(
    options.noDelay ? 1 : 0,
    seconds(options.keepAlive),
    seconds(options.keepAliveInterval),
    options.keepAliveCount,
    orKernel(options.userTimeout),
    seconds(options.deferAccept),
    orKernel(options.fastOpen),
    orKernel(options.notSentLowWater),
    orKernel(options.receiveBuffer),
    orKernel(options.sendBuffer),
    options.ipv6Only ? 1 : 0,
    options.backlog,
  );
}
