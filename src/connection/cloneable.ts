/**
 * Whether a value is the same after a structured clone. That drops the class of an object without a word, and its
 * methods with it: a connection would arrive with a state that its service cannot use. So whatever is not plain data
 * is found beforehand, and the connection stays.
 */

/** What node:v8 gives back as what it was. */
const PLAIN: ReadonlySet<object | null> = new Set([
  null,
  ...[Object, Array, Map, Set, Date, RegExp, Error, ArrayBuffer, DataView, Buffer].map(prototypeOf),
  ...[Int8Array, Uint8Array, Uint8ClampedArray, Int16Array, Uint16Array, Int32Array, Uint32Array].map(prototypeOf),
  ...[Float32Array, Float64Array, BigInt64Array, BigUint64Array].map(prototypeOf),
]);

function prototypeOf(type: { readonly prototype: object }): object {
  return type.prototype;
}

/** A part of the value and the way to it. */
interface Part {
  readonly value: unknown;
  readonly key: string;
  readonly of: Part | undefined;
}

function pathOf(part: Part): string {
  return part.of ? `${pathOf(part.of)}${part.key}` : part.key;
}

/** What it is, in words, when a clone would not be the same. */
function oddity(value: unknown): string | undefined {
  if (typeof value === "function") return "a function";
  if (typeof value === "symbol") return "a symbol";
  if (typeof value !== "object" || value === null) return undefined;
  if (ArrayBuffer.isView(value) && value.buffer instanceof SharedArrayBuffer) return "shared memory";
  const prototype: { constructor?: { name?: string } } | null = Object.getPrototypeOf(value);
  return PLAIN.has(prototype) ? undefined : `a ${prototype?.constructor?.name || "class instance"}`;
}

function partsOf(part: Part): Part[] {
  const { value } = part;
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return [];
  if (value instanceof Map) {
    return [...value].flatMap(([key, each]) => [
      { value: key, key: " (a key)", of: part },
      { value: each, key: `.get(${String(typeof key === "object" ? "…" : key)})`, of: part },
    ]);
  }
  if (value instanceof Set) return [...value].map((each) => ({ value: each, key: " (a member)", of: part }));
  const list = Array.isArray(value);
  return Object.entries(value).map(([key, each]) => ({ value: each, key: list ? `[${key}]` : `.${key}`, of: part }));
}

/** The first part of `value` that a clone would lose or refuse: "state.socket is a Socket". Undefined when there is none. */
export function uncloneable(value: unknown): string | undefined {
  const seen = new Set<unknown>();
  const left: Part[] = [{ value, key: "state", of: undefined }];
  for (let part = left.pop(); part; part = left.pop()) {
    const odd = oddity(part.value);
    if (odd) return `${pathOf(part)} is ${odd}`;
    if (typeof part.value !== "object" || seen.has(part.value)) continue;
    seen.add(part.value);
    left.push(...partsOf(part));
  }
  return undefined;
}
