/** What a connection's preface has found out, as text for the way to another worker; the proxy's values in base64. */
import type { Origin } from "../connection/origin.ts";

/** The same, as JSON has it. */
interface Written extends Omit<Origin, "proxy"> {
  readonly proxy?: Omit<NonNullable<Origin["proxy"]>, "tlvs"> & {
    readonly tlvs: readonly { readonly type: number; readonly value: string }[];
  };
}

export function writeOrigin({ proxy, ...origin }: Origin): string {
  if (!proxy) return JSON.stringify(origin);
  const tlvs = proxy.tlvs.map(({ type, value }) => ({ type, value: value.toString("base64") }));
  return JSON.stringify({ ...origin, proxy: { ...proxy, tlvs } } satisfies Written);
}

/** Throws RangeError for what is none. */
export function readOrigin(text: string): Origin {
  try {
    const { proxy, ...origin }: Written = JSON.parse(text);
    if (!proxy) return origin;
    const tlvs = proxy.tlvs.map(({ type, value }) => ({ type, value: Buffer.from(value, "base64") }));
    return { ...origin, proxy: { ...proxy, tlvs } };
  } catch {
    throw new RangeError("migration: an origin that is none");
  }
}
