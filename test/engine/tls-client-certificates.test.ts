/** Client certificates: not asked for, optional, required. */
import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { test } from "node:test";
import { passingAuthority } from "../support/authority.js";
import {
  authority,
  beginPeer,
  openPair,
  openSecure,
  openSecurePeer,
  secured,
  serverContext,
  tlsErrorOf,
  tlsOf,
} from "../support/secured.js";
import { until } from "../support/until.js";

const known = authority.identity({ name: "device 7", names: ["DNS:device-7.example.org"], usage: "clientAuth" });
const stranger = passingAuthority("strangers").identity({ name: "device 8" });
const wrongUse = authority.identity({ name: "a server", usage: "serverAuth" });
const as = ({ chain, key }: typeof known) => ({ cert: chain, key });

for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
  const speaking = { minVersion: version, maxVersion: version } as const;

  test(`${version}: required, and it is there: the service gets it`, async (t) => {
    const { served } = await openPair(t, {
      context: serverContext({ verify: "required", ca: authority.text }),
      peer: { ...as(known), ...speaking },
    });
    const info = tlsOf(served) ?? assert.fail();
    const certificate = new X509Certificate(info.peerCertificate ?? assert.fail("no certificate"));
    assert.equal(certificate.subject, "CN=device 7");
    assert.equal(certificate.subjectAltName, "DNS:device-7.example.org");
    assert.equal(info.verifyError, undefined);
  });

  for (const [what, identity, reason] of [
    ["none is there", undefined, /peer did not return a certificate/],
    ["it is not believed", stranger, /certificate verify failed: unable to get local issuer certificate/],
    ["it is for another use", wrongUse, /certificate verify failed: unsuit.*purpose|unsupported certificate purpose/],
  ] as const) {
    test(`${version}: required, and ${what}: refused, and the client hears of it`, async (t) => {
      const loopback = openSecure(t, serverContext({ verify: "required", ca: authority.text }));
      const peer = beginPeer(t, loopback.port, { ...(identity ? as(identity) : {}), ...speaking });
      // In TLS 1.3 the client is through before it is judged: what it sends meanwhile must not cost it the alert.
      peer.write(Buffer.alloc(100_000));
      const said: string[] = [];
      peer.socket.on("error", (error) => said.push(error.message));
      const served = await loopback.nth(0);
      await until("the refusal", () => served.errno);
      const error = tlsErrorOf(served);
      served.close();
      await until("the alert", () => peer.error);
      assert.match(error, reason);
      assert.match(said.join(), / alert /);
      assert.deepEqual(served.events, ["open", "error"]);
      peer.socket.destroy();
      await until("the slot is given back", () => loopback.engine.open === 0);
    });
  }
}

test("optional: without one, with one, and with one that is not believed, which is said", async (t) => {
  const loopback = openSecure(t, serverContext({ verify: "optional", ca: authority.text }));
  const told = async (identity?: typeof known): Promise<[boolean, string | undefined]> => {
    const count = loopback.accepted.length;
    await openSecurePeer(t, loopback.port, identity ? as(identity) : {});
    const served = await loopback.nth(count);
    await secured(served);
    const info = tlsOf(served) ?? assert.fail();
    return [info.peerCertificate !== undefined, info.verifyError];
  };
  assert.deepEqual(await told(), [false, undefined]);
  assert.deepEqual(await told(known), [true, undefined]);
  const [given, error] = await told(stranger);
  assert.equal(given, true);
  assert.match(String(error), /unable to (get local issuer|verify the first) certificate/);
});

test("none: nobody is asked for one", async (t) => {
  const { served } = await openPair(t, { peer: as(known) });
  assert.equal(tlsOf(served)?.peerCertificate, undefined);
});
