/** The Kubernetes manifests: valid by the API's schemas, without a field that these do not know, and in themselves consistent. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Deployment } from "kubernetes-models/apps/v1/Deployment";
import { HorizontalPodAutoscaler } from "kubernetes-models/autoscaling/v2/HorizontalPodAutoscaler";
import { PodDisruptionBudget } from "kubernetes-models/policy/v1/PodDisruptionBudget";
import { ConfigMap } from "kubernetes-models/v1/ConfigMap";
import { Service } from "kubernetes-models/v1/Service";
import { parse, parseAllDocuments } from "yaml";
import { packageRoot } from "#src/os/addon.js";
import { packagedSettings } from "#src/primary/sysctl-file.js";
import { headrace } from "../support/command.js";
import { makeFolder } from "../support/folder.js";

const FOLDER = join(packageRoot(), "deploy", "kubernetes");
/** By what an object says that it is. */
const KINDS = { ConfigMap, Deployment, HorizontalPodAutoscaler, PodDisruptionBudget, Service } as const;
type Kind = keyof typeof KINDS;

interface Manifest {
  readonly apiVersion: string;
  readonly kind: Kind;
  readonly metadata: { readonly name: string };
}

function manifests(): Manifest[] {
  return readdirSync(FOLDER)
    .filter((file) => file.endsWith(".yaml"))
    .flatMap((file) => parseAllDocuments(readFileSync(join(FOLDER, file), "utf8")))
    .map((document) => {
      assert.deepEqual(document.errors, []);
      return document.toJS() as Manifest;
    });
}

function the<K extends Kind>(kind: K, name = "headrace"): InstanceType<(typeof KINDS)[K]> {
  const found = manifests().find((each) => each.kind === kind && each.metadata.name === name);
  assert.ok(found, `${kind} ${name}`);
  return new KINDS[kind](found as never) as InstanceType<(typeof KINDS)[K]>;
}

/** The validator knows which fields are needed and of what kind; the compiler knows which there are. */
function complaints(objects: readonly Manifest[]): string {
  for (const each of objects) {
    const Model = KINDS[each.kind];
    assert.ok(Model, `${each.kind}: no schema for it here`);
    assert.equal(each.apiVersion, Model.apiVersion);
    new Model(each as never).validate();
  }
  const root = packageRoot();
  const folder = join(root, "build", `manifests-${process.pid}`);
  mkdirSync(folder, { recursive: true });
  const lines = objects.map(({ kind, apiVersion, ...rest }, index) => {
    const path = `kubernetes-models/${apiVersion}/${kind}`;
    return `export const o${index}: import("${path}").I${kind} = ${JSON.stringify({ apiVersion, kind, ...rest }, null, 1)};`;
  });
  const file = join(folder, "manifests.ts");
  writeFileSync(file, lines.join("\n"));
  const options = [
    "--noEmit",
    "--strict",
    "--skipLibCheck",
    "--module",
    "nodenext",
    "--types",
    "node",
    "--ignoreConfig",
  ];
  try {
    execFileSync(process.execPath, [join(root, "node_modules", "typescript", "bin", "tsc"), ...options, file], {
      cwd: root,
    });
    return "";
  } catch (error) {
    return String((error as { stdout?: Buffer }).stdout);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test("every object is valid, and has no field that its schema does not know", () => {
  assert.equal(complaints(manifests()), "");
});

test("a wrong object is found: a field missing, one of another kind, one that nobody knows", () => {
  const deployment = the("Deployment").toJSON() as Manifest & {
    spec: { template: { spec: object }; selector?: object };
  };
  const pod = deployment.spec.template.spec as { containers: { ports: object[] }[] };
  const without = structuredClone(deployment);
  delete without.spec.selector;
  assert.throws(() => complaints([without]), /selector/);
  const text = structuredClone(deployment) as unknown as { spec: { replicas: unknown } };
  text.spec.replicas = "2";
  assert.throws(() => complaints([text as unknown as Manifest]), /replicas/);
  Object.assign(pod, { termnationGracePeriodSeconds: 50 });
  assert.match(complaints([deployment]), /termnationGracePeriodSeconds/);
});

test("what belongs together: ports, labels, probes, the grace period", () => {
  const { spec } = the("Deployment");
  const pod = spec?.template.spec;
  const [container] = pod?.containers ?? [];
  assert.ok(spec && pod && container);
  const labels = spec.template.metadata?.labels;
  assert.deepEqual(spec.selector.matchLabels, labels);
  assert.deepEqual(the("PodDisruptionBudget").spec?.selector?.matchLabels, labels);
  for (const service of [the("Service"), the("Service", "headrace-admin")]) {
    assert.deepEqual(service.spec?.selector, labels);
    for (const { targetPort, port } of service.spec?.ports ?? []) {
      assert.ok(container.ports?.some(({ name, containerPort }) => name === targetPort && containerPort === port));
    }
  }
  const names = container.ports?.map(({ name }) => name);
  for (const probe of [container.startupProbe, container.readinessProbe, container.livenessProbe]) {
    assert.ok(names?.includes(String(probe?.httpGet?.port)));
  }
  assert.deepEqual(container.readinessProbe?.httpGet?.path, "/readyz");
  assert.deepEqual(container.livenessProbe?.httpGet?.path, "/healthz");

  const file = parse(the("ConfigMap").data?.["headrace.yaml"] ?? "");
  const drainS = Number.parseInt(file.timeouts.drain, 10);
  const pauseS = Number(container.lifecycle?.preStop?.exec?.command?.[1]);
  assert.equal(pod.terminationGracePeriodSeconds, drainS + pauseS + 15);
  const portOf = (address: string): number => Number(address.split(":").at(-1));
  const served = [portOf(file.listeners[0].address), portOf(file.admin.address)];
  assert.deepEqual(
    container.ports?.map(({ containerPort }) => containerPort),
    served,
  );
});

test("nothing more than it needs: no root, no capability, nothing to write to, no token of the cluster", () => {
  const pod = the("Deployment").spec?.template.spec;
  const [container] = pod?.containers ?? [];
  assert.equal(pod?.automountServiceAccountToken, false);
  assert.equal(pod?.securityContext?.runAsNonRoot, true);
  assert.equal(pod?.securityContext?.seccompProfile?.type, "RuntimeDefault");
  assert.deepEqual(container?.securityContext, {
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    capabilities: { drop: ["ALL"] },
  });
  assert.ok(container?.resources?.limits?.cpu && container.resources.limits.memory);
});

test("the sysctls are safe ones, which every node allows", () => {
  // https://kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster, of 1.29.
  const SAFE = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_syncookies",
  ];
  const packaged = new Map(packagedSettings(2 ** 33, 4096).map(({ key, wanted }) => [key, wanted]));
  for (const { name, value } of the("Deployment").spec?.template.spec?.securityContext?.sysctls ?? []) {
    assert.ok(SAFE.includes(name), name);
    assert.equal(value, packaged.get(name), `${name} is that of sysctl/90-headrace.conf`);
  }
});

test("its configuration is right", async (t) => {
  const folder = makeFolder(t);
  const file = join(folder, "headrace.yaml");
  writeFileSync(file, the("ConfigMap").data?.["headrace.yaml"] ?? "");
  const env = { HEADRACE_ADMIN_TOKEN: "0123456789abcdef0123456789abcdef", HEADRACE_WORKERS: "2" };
  const { code, stderr } = await headrace(["check", "--config", file], { env });
  assert.equal(code, 0, stderr);
});
