/**
 * What the certificate files of a listener hold. Secret: it is in the memory of the primary and of the workers, goes
 * from one to the other by the channel between them, and never into a log, an error or a status.
 */

/** A certificate and its key. */
export interface CertificateMaterial {
  /** PEM: the certificate, then the intermediate ones. */
  readonly chain: string;
  /** PEM. */
  readonly key: string;
  /** Server names that get it. */
  readonly names: readonly string[];
}

export interface TlsMaterial {
  /** At least one. The first is for clients that name no server, or one that none is for. */
  readonly certificates: readonly CertificateMaterial[];
  /** PEM: who signs the certificates of clients. */
  readonly ca?: string;
}

/** By listener key; those without TLS are not there. */
export type TlsSecrets = Readonly<Record<string, TlsMaterial>>;
