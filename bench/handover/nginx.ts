/**
 * nginx as a TCP proxy in front of the C echo, with `reuseport` and as many workers, reloaded by HUP. An old worker
 * stays as long as one of its clients does; with `worker_shutdown_timeout` it cuts them off instead.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { firstLine, onCores } from "../machine.ts";
import { buildEcho } from "../peers.ts";
import { startChild } from "../process/child.ts";
import { processTree } from "../process/tree.ts";
import { Absent, eventually, freePort, Place, type Subject, type SubjectOptions } from "./subject.ts";

const STREAM_MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so";
const SHUTDOWN_TIMEOUT_S = 5;

function configuration(folder: string, port: number, backend: string, workers: number, timeout: boolean): string {
  return `load_module ${STREAM_MODULE};
daemon off;
worker_processes ${workers};
worker_rlimit_nofile 20000;
${timeout ? `worker_shutdown_timeout ${SHUTDOWN_TIMEOUT_S}s;` : ""}
pid ${folder}/nginx.pid;
error_log ${folder}/error.log warn;
events { worker_connections 19000; }
stream {
  server {
    listen 127.0.0.1:${port} reuseport backlog=65535;
    tcp_nodelay on;
    proxy_timeout 10m;
    proxy_pass ${backend};
  }
}
`;
}

const titleOf = (pid: number): string => {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "latin1").replaceAll("\0", " ");
  } catch {
    return "";
  }
};

export async function startNginx({ machine, workers }: SubjectOptions, timeout: boolean): Promise<Subject> {
  if (firstLine("nginx", "-v") === undefined || !existsSync(STREAM_MODULE)) {
    throw new Absent("nginx with the stream module is missing (Debian: apt install nginx-light libnginx-mod-stream)");
  }
  const echo = buildEcho();
  if (echo === undefined) throw new Absent("no C compiler for the echo behind nginx (Debian: build-essential)");
  const place = new Place();
  const { folder } = place;
  let backend = "";
  const echoArgv = onCores(machine, "server", [echo, "0"]);
  const behind = await startChild({ argv: echoArgv, env: place.env, cwd: folder }, (line) => {
    backend = JSON.parse(line).listeners[0].address;
  });
  await eventually("the echo behind nginx listens", () => backend);
  const port = await freePort();
  const file = join(folder, "nginx.conf");
  writeFileSync(file, configuration(folder, port, backend, workers, timeout));
  const argv = onCores(machine, "server", ["nginx", "-p", folder, "-c", file]);
  const nginx = await startChild({ argv, env: place.env, cwd: folder }, () => {});
  // nginx writes its titles over its environment: the mark is gone, but nothing leaves the tree here.
  const processes = (): number[] => [nginx, behind].flatMap(({ pid }) => processTree(pid).map((entry) => entry.pid));
  // Those that are on their way out say so in their title.
  const serving = (): number[] => processes().filter((pid) => /^nginx: worker process *$/.test(titleOf(pid)));
  await eventually("nginx serves", () => serving().length === workers);
  return {
    name: timeout ? `nginx, worker_shutdown_timeout ${SHUTDOWN_TIMEOUT_S}s` : "nginx",
    port,
    changes: [
      {
        name: "reload",
        async run() {
          const before = serving();
          process.kill(nginx.pid, "SIGHUP");
          await eventually("nginx has new workers", () => {
            const now = serving();
            return now.length === workers && now.every((pid) => !before.includes(pid));
          });
        },
      },
    ],
    processes,
    async end() {
      await nginx.end();
      await behind.end();
      place.clear();
    },
  };
}
