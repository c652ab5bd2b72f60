/** What a service sees of a connection's TLS. The client's certificate is parsed when somebody looks at it. */
import { X509Certificate } from "node:crypto";
import { alternativeNames } from "../base/alternative-names.ts";
import type { TlsInfo } from "../os/addon.ts";
import type { ConnectionTls, ConnectionTlsClient } from "../service/connection.ts";

export class TlsDetails implements ConnectionTls {
  readonly protocol: string;
  readonly cipher: string;
  readonly serverName: string | undefined;
  readonly alpn: string | undefined;
  readonly resumed: boolean;
  /** DER, until somebody has looked. */
  #certificate: Uint8Array | undefined;
  readonly #problem: string | undefined;
  #client: ConnectionTlsClient | undefined;

  constructor(info: TlsInfo) {
    this.protocol = info.protocol;
    this.cipher = info.cipher;
    this.serverName = info.serverName;
    this.alpn = info.alpn;
    this.resumed = info.resumed;
    this.#certificate = info.peerCertificate;
    this.#problem = info.verifyError;
  }

  get client(): ConnectionTlsClient | undefined {
    if (this.#certificate) {
      this.#client = clientOf(this.#certificate, this.#problem);
      this.#certificate = undefined;
    }
    return this.#client;
  }
}

function clientOf(der: Uint8Array, problem: string | undefined): ConnectionTlsClient {
  const certificate = new X509Certificate(der);
  const { subject } = certificate.toLegacyObject();
  return {
    subject: { ...(subject as unknown as Record<string, string | string[]>) },
    subjectAltNames: alternativeNames(certificate.subjectAltName).map(({ type, value }) => `${type}:${value}`),
    fingerprint256: certificate.fingerprint256,
    verified: problem === undefined,
    problem,
  };
}
