/**
 * The sockets that a listener serves from, whatever its protocol: bound, asked whether they could be, set, and steered.
 * Each function is that of the addon for TCP or for UDP, with its errno.
 */
import type { Address } from "../base/address.ts";
import { addon } from "./addon.ts";

type Protocol = Address["protocol"];

/** `port`: what the kernel chose before, where the address says 0. */
export function bindSocket({ protocol, host }: Address, port: number, exclusive: boolean, options: Int32Array): number {
  const { udpBind, socketListen } = addon();
  return (protocol === "udp" ? udpBind : socketListen)(host, port, exclusive, options);
}

/** 0, or why it could not be bound exclusively now. */
export function probeSocket({ protocol, host, port }: Address, options: Int32Array): number {
  const { udpProbe, socketProbe } = addon();
  return (protocol === "udp" ? udpProbe : socketProbe)(host, port, options);
}

/** Sets the options of a socket that is bound. */
export function applySocket({ protocol }: { readonly protocol: Protocol }, fd: number, options: Int32Array): number {
  const { udpApply, socketApply } = addon();
  return (protocol === "udp" ? udpApply : socketApply)(fd, options);
}

/** Newcomers go to the first `count` members of the socket's group; datagrams of one source to the same one. */
export function steerSocket({ protocol }: { readonly protocol: Protocol }, fd: number, count: number): number {
  const { udpSteer, socketSteer } = addon();
  return (protocol === "udp" ? udpSteer : socketSteer)(fd, count);
}
