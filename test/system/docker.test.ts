/** The image's steps, run as the Dockerfile has them: what comes out serves as another user, on a root that is read-only. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { buildScript, lastOf, readStages } from "../support/dockerfile.js";
import { makeFolder } from "../support/folder.js";

const CONFIGURATION = 'listeners: [{ address: "127.0.0.1:9000", service: echo-line }]';
const BUILD_MS = 10 * 60_000;

/** Starts what the image would, waits until it is healthy, asks it, reloads it, and tells it to end. */
function serveScript(stages: ReturnType<typeof readStages>): string {
  const final = stages.at(-1);
  assert.ok(final);
  const words = (keyword: string): string => lastOf(final, keyword).words.join(" ");
  const [uid = "", gid = ""] = lastOf(final, "USER").text.split(":");
  const rights = `--reuid ${uid} --regid ${gid} --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs`;
  const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  // Node.js is this machine's, wherever that is.
  const env = `env -i PATH=${path}:\${NODE%/*} HEADRACE_WORKERS=2 ${lastOf(final, "ENV").text}`;
  const inside = `chroot $ROOT setpriv ${rights} ${env}`;
  return `
ROOT=$W/${final.name}/root
echo '${CONFIGURATION}' >$ROOT/etc/headrace/headrace.yaml
du -sm $W/${final.name}/up | sed 's/\\t.*/ MiB in the last stage/'
find $ROOT/app -name '*.node' -printf '%P\\n' | sort
mount -o remount,ro $ROOT
mount -t tmpfs -o uid=${uid},gid=${gid},mode=0700 run $ROOT/run/headrace
ip link set lo up
cd /
unshare -m -p --fork --kill-child bash -c "mount -t proc proc $ROOT/proc; exec ${inside} ${words("ENTRYPOINT")} ${words("CMD")}" >&2 &
trap "kill $!" EXIT
for ((i = 0; i < 100; i++)); do [ -e $ROOT/run/headrace/control.sock ] && break; sleep 0.2; done
for ((i = 0; i < 100; i++)); do
  ${inside} ${words("HEALTHCHECK")} >$W/health 2>&1 && break
  sleep 0.2
done
grep -o '"health": "[a-z]*"' $W/health || { cat $W/health; exit 1; }
exec 3<>/dev/tcp/127.0.0.1/9000
echo hello >&3
read -r -t 10 line <&3
echo "said: $line"
${inside} headrace upgrade --wait || echo "upgrade: $?"
${inside} headrace reload --replace --wait
echo again >&3
read -r -t 10 line <&3
echo "said: $line"
exec 3>&-
${inside} headrace stop --wait
trap - EXIT
wait $!
echo "ended: $?"`;
}

test("what the steps make serves, is healthy, reloads and ends in order", async (t) => {
  const stages = readStages();
  const script = `${buildScript(stages)}\nexport NODE=${process.execPath}\n${serveScript(stages)}`;
  const network = `${script.slice(0, script.indexOf("\nROOT="))}`;
  const served = script.slice(script.indexOf("\nROOT="));
  // The build needs the network; what is served has one of its own.
  const whole = `${network}\nexport W\nexec unshare -n bash -euo pipefail -c "$SERVED"`;
  const child = spawn("unshare", ["-m", "bash", "-c", whole, "bash", makeFolder(t)], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, SERVED: served, NODE_ENV: "", HEADRACE_CONTROL: "" },
    timeout: BUILD_MS,
  });
  const [stdout, stderr, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, "exit")]);
  assert.equal(code, 0, `${stdout}\n${stderr.slice(-4_000)}`);
  t.diagnostic(stdout);
  assert.match(stdout, /^native\/build\/Release\/headrace\.node\nnative\/tls\/build\/Release\/headrace_tls\.node$/m);
  assert.match(stdout, /"health": "ok"/);
  assert.match(stdout, /said: hello/);
  // As process 1 it cannot be replaced, and says so; its workers can.
  assert.match(stdout, /upgrade: 1\n/);
  assert.match(stderr, /this is process 1, which cannot be replaced/);
  assert.match(stdout, /said: again/);
  assert.match(stdout, /ended: 0\n$/);
});
