/** What `check` and `doctor` say of TLS before a server is started with it. */
import type { Config } from "../config/config.ts";
import { tlsAddon } from "../os/tls-addon.ts";
import { checkCertificates } from "../primary/certificates.ts";

/** Warnings. Throws `config-invalid` for files that cannot be used, `tls-unavailable` where this Node has no TLS. */
export function checkTls(config: Config): ReturnType<typeof checkCertificates> {
  if (config.listeners.some(({ tls }) => tls)) tlsAddon();
  return checkCertificates(config);
}
