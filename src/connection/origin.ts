/**
 * What is known of where a connection comes from beside what its socket says: found by the stages of its preface
 * (preface.ts), kept as long as it lives, and taken along when it moves. Connections that had no preface have none.
 */
import type { ProxyInfo } from "../codec/proxy-header.ts";
import type { ConnectionTls } from "../service/connection.ts";

export interface Origin {
  /** The socket's peer, where that is a proxy. */
  readonly peer?: { readonly host: string; readonly port: number };
  /** What the PROXY header said, if there was one. */
  readonly proxy?: ProxyInfo;
  /** Of a connection with TLS, which never moves. */
  readonly tls?: ConnectionTls;
}
