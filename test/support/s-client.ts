/** `openssl s_client`: a TLS client that is nobody's idea of headrace. */
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { X509Certificate } from "node:crypto";
import type { TestContext } from "node:test";
import { until, within } from "./until.js";

export class SClient {
  readonly #child: ChildProcessWithoutNullStreams;
  /** Its exit code, once it has ended. */
  readonly exited: Promise<number | null>;
  /** Everything on stdout and stderr so far. */
  text = "";

  constructor(t: TestContext, port: number, args: readonly string[] = []) {
    this.#child = spawn("openssl", ["s_client", "-connect", `127.0.0.1:${port}`, ...args]);
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream.setEncoding("utf8").on("data", (chunk: string) => {
        this.text += chunk;
      });
    }
    // It may end before everything was written.
    this.#child.stdin.on("error", () => {});
    this.exited = new Promise((resolve) => this.#child.once("close", resolve));
    t.after(() => this.#child.kill("SIGKILL"));
  }

  send(line: string): void {
    this.#child.stdin.write(`${line}\n`);
  }

  /** Waits for what fits in its output. */
  async seen(pattern: RegExp): Promise<RegExpExecArray> {
    return until(`openssl prints ${pattern}; so far:\n${this.text}`, () => pattern.exec(this.text) ?? undefined);
  }

  /** Sends a line that the service answers with JSON. */
  async ask<T>(line: string): Promise<T> {
    this.send(line);
    const [, json = ""] = await this.seen(/^(\{.*\})$/m);
    this.text = this.text.replace(json, "");
    return JSON.parse(json) as T;
  }

  /** Ends it in order, and returns all it printed. */
  async close(): Promise<string> {
    this.#child.stdin.end("Q\n");
    await within("openssl ends", this.exited);
    return this.text;
  }

  /** Serial number of the certificate that it got. */
  get serial(): string {
    const pem = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/.exec(this.text)?.[0];
    return pem === undefined ? "" : new X509Certificate(pem).serialNumber;
  }
}
