/** Tokens and sessions: who is let in, for how long, how many. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { cookieOf, Gatekeeper, sessionCookie } from "#src/admin/auth.js";
import { hostnameOf, isNotForeign, isOwnHost, isOwnPage } from "#src/admin/origin.js";

test("a bearer's token is compared whole, whatever its length", () => {
  const keeper = new Gatekeeper("0123456789abcdef");
  assert.ok(keeper.bears("Bearer 0123456789abcdef"));
  assert.ok(keeper.bears("bearer 0123456789abcdef"));
  for (const wrong of [
    undefined,
    "",
    "Bearer",
    "Bearer 0123456789abcde",
    "Bearer 0123456789abcdeff",
    "Basic 0123456789abcdef",
  ]) {
    assert.equal(keeper.bears(wrong), false, String(wrong));
  }
});

test("a session ends by time, by its owner, by another token", () => {
  let now = 1_000;
  const keeper = new Gatekeeper("0123456789abcdef", () => now);
  const first = keeper.open();
  assert.ok(keeper.knows(first.id));
  assert.equal(keeper.knows(`${first.id}x`), false);
  assert.equal(keeper.knows(undefined), false);
  keeper.close(first.id);
  assert.equal(keeper.knows(first.id), false);
  const second = keeper.open();
  now += second.ms;
  assert.equal(keeper.knows(second.id), false);
  const third = keeper.open();
  keeper.replaceToken("0123456789abcdef");
  assert.ok(keeper.knows(third.id), "the same token changes nothing");
  keeper.replaceToken("another-0123456789");
  assert.equal(keeper.knows(third.id), false);
});

test("there are never more than 64 sessions: the oldest makes room", () => {
  const keeper = new Gatekeeper("0123456789abcdef");
  const ids = Array.from({ length: 65 }, () => keeper.open().id);
  assert.equal(keeper.handed.sessions.length, 64);
  assert.equal(keeper.knows(ids[0]), false);
  assert.ok(ids.slice(1).every((id) => keeper.knows(id)));
});

test("sessions are handed on as hashes, and known by whoever has those", () => {
  const before = new Gatekeeper("0123456789abcdef");
  const { id } = before.open();
  const handed = JSON.parse(JSON.stringify(before.handed));
  assert.ok(!JSON.stringify(handed).includes(id));
  assert.equal(new Gatekeeper("0123456789abcdef").knows(id), false, "a restart knows nobody");
  const [same, other] = [new Gatekeeper("0123456789abcdef"), new Gatekeeper("another-0123456789")];
  same.adopt(handed);
  other.adopt(handed);
  assert.ok(same.knows(id));
  assert.equal(other.knows(id), false, "the token has changed meanwhile");
});

test("cookies", () => {
  assert.equal(cookieOf("a=1; headrace-session-1=x=y; b=2", "headrace-session-1"), "x=y");
  assert.equal(cookieOf("headrace-session-11=x", "headrace-session-1"), undefined);
  assert.equal(cookieOf(undefined, "a"), undefined);
  assert.equal(sessionCookie("s", "id", 5_500), "s=id; Path=/; HttpOnly; SameSite=Strict; Max-Age=5");
});

test("hosts: addresses, localhost and configured names, no other", () => {
  for (const host of [
    "127.0.0.1:9900",
    "localhost:9900",
    "[::1]:9900",
    "10.1.2.3",
    "[fe80::1]",
    "LOCALHOST",
    "box.example:1",
  ]) {
    assert.ok(isOwnHost(host, ["box.example"]), host);
  }
  for (const host of [
    undefined,
    "",
    "evil.example",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "a b",
    "[::1",
    "x:y:z",
  ]) {
    assert.equal(isOwnHost(host, ["box.example"]), false, String(host));
  }
  assert.equal(hostnameOf("Box.Example.:80"), "box.example");
});

test("where a browser's request comes from", () => {
  const host = "localhost:9900";
  assert.ok(isNotForeign({ host }), "no browser");
  assert.equal(isOwnPage({ host }), false);
  assert.ok(isOwnPage({ host, "sec-fetch-site": "same-origin" }));
  assert.ok(isOwnPage({ host, origin: "http://localhost:9900" }));
  assert.ok(isNotForeign({ host, "sec-fetch-site": "none" }), "typed into the address line");
  assert.equal(isOwnPage({ host, "sec-fetch-site": "none" }), false);
  for (const foreign of [
    { host, "sec-fetch-site": "same-site" },
    { host, "sec-fetch-site": "cross-site" },
    { host, origin: "http://localhost:3000" },
    { host, origin: "null" },
    { host, "sec-fetch-site": "same-origin", origin: "http://localhost:3000" },
  ]) {
    assert.equal(isNotForeign(foreign), false, JSON.stringify(foreign));
  }
});
