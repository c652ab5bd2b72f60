/**
 * What TLS needs while a server runs, from when this primary is the main one until it stops or has handed over: its
 * certificate files are watched, their end is thought of, and the keys of session tickets change.
 */
import type { Logger } from "../base/log.ts";
import { CertificateWatch } from "./certificate-watch.ts";
import type { Primary } from "./primary.ts";

/** How often the age of the ticket keys is looked at: not a timer of hours, because machines sleep. */
const TICKETS_MS = 60_000;
const REMIND_MS: number = 12 * 3_600_000;

export function careForTls(primary: Primary, log: Logger): void {
  const { certificates, crew, stopSignal } = primary;
  const watch = new CertificateWatch({
    files: () => certificates.files,
    onChange: (settled) => primary.renewCertificates({ tell: settled }),
  });
  certificates.onOthers = () => watch.follow();
  const rotate = (): void => {
    if (crew.tickets.rotate(Date.now())) log.debug("new key for session tickets");
  };
  rotate();
  const rotation = setInterval(rotate, TICKETS_MS).unref();
  const reminder = setInterval(() => certificates.remind(Date.now()), REMIND_MS).unref();
  const end = (): void => {
    clearInterval(rotation);
    clearInterval(reminder);
    watch.end();
  };
  if (stopSignal.aborted) end();
  else stopSignal.addEventListener("abort", end, { once: true });
}
