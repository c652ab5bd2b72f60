#!/usr/bin/env node
// heap-growth.mjs - what grew between two heap snapshots of a worker, by the names that hold it.
//
// Usage: node heap-growth.mjs BEFORE.heapsnapshot AFTER.heapsnapshot [--top N]
//
// Each object counts for the nearest name on its way from the root: `history` of an `Object` is "Object.history", with
// all that hangs below it and has no name of its own. So a list that nobody empties shows under the name of the list.
// Reading takes about three times the size of the files in memory; run it elsewhere than on the server if it is short.
// Exit codes: 0 done, 1 a file cannot be read, 2 usage.
import { readFileSync } from "node:fs";

const [before, after, ...options] = process.argv.slice(2);
const top = options[0] === "--top" ? Number(options[1]) : options.length === 0 ? 15 : Number.NaN;
if (before === "--help" || before === "-h") {
  const text = readFileSync(new URL(import.meta.url), "utf8")
    .split("\n")
    .slice(1);
  const lines = text.slice(
    0,
    text.findIndex((line) => !line.startsWith("//")),
  );
  console.log(lines.map((line) => line.slice(3)).join("\n"));
  process.exit(0);
}
if (before === undefined || after === undefined || !(top >= 1)) {
  console.error("heap-growth.mjs: two heap snapshots, and --top N if you like; see heap-growth.mjs --help");
  process.exit(2);
}

/** Bytes and objects by name. The format: https://v8.dev docs of --heap-snapshot; `meta` names its columns. */
function holdings(file) {
  const { snapshot, nodes, edges, strings } = JSON.parse(readFileSync(file, "utf8"));
  const {
    node_fields: ofNode,
    edge_fields: ofEdge,
    node_types: [nodeTypes],
    edge_types: [edgeTypes],
  } = snapshot.meta;
  const [width, edgeWidth] = [ofNode.length, ofEdge.length];
  const [nameAt, sizeAt, countAt, typeAt] = ["name", "self_size", "edge_count", "type"].map((field) =>
    ofNode.indexOf(field),
  );
  const [edgeTypeAt, edgeNameAt, targetAt] = ["type", "name_or_index", "to_node"].map((field) => ofEdge.indexOf(field));
  const total = nodes.length / width;
  const firstEdge = new Uint32Array(total + 1);
  for (let node = 0; node < total; node++) firstEdge[node + 1] = firstEdge[node] + nodes[node * width + countAt];

  // Breadth first from the root, by strong edges: the shortest way is the one that people recognise.
  const labels = new Array(total);
  labels[0] = "(root)";
  const queue = [0];
  const sums = new Map();
  for (let next = 0; next < queue.length; next++) {
    const node = queue[next];
    const sum = sums.get(labels[node]) ?? { bytes: 0, objects: 0 };
    sum.bytes += nodes[node * width + sizeAt];
    sum.objects += 1;
    sums.set(labels[node], sum);
    const owner = strings[nodes[node * width + nameAt]].slice(0, 60);
    const known = nodeTypes[nodes[node * width + typeAt]];
    for (let edge = firstEdge[node]; edge < firstEdge[node + 1]; edge++) {
      const type = edgeTypes[edges[edge * edgeWidth + edgeTypeAt]];
      const target = edges[edge * edgeWidth + targetAt] / width;
      if (type === "weak" || labels[target] !== undefined) continue;
      const name = edges[edge * edgeWidth + edgeNameAt];
      // Elements of lists, and what V8 keeps for itself, belong to the name above.
      const named = (type === "property" || type === "context") && typeof strings[name] === "string";
      const inner =
        !named ||
        ["__proto__", "constructor"].includes(strings[name]) ||
        !["object", "closure", "object shape", "hidden"].includes(known);
      labels[target] = inner ? labels[node] : `${type === "context" ? "variable" : owner}.${strings[name]}`;
      queue.push(target);
    }
  }
  return sums;
}

let first;
let last;
try {
  first = holdings(before);
  last = holdings(after);
} catch (error) {
  console.error(`heap-growth.mjs: ${error.message}`);
  process.exit(1);
}
const rows = [...last].map(([name, { bytes, objects }]) => {
  const old = first.get(name) ?? { bytes: 0, objects: 0 };
  return { name, grown: bytes - old.bytes, more: objects - old.objects, bytes };
});
const kib = (bytes) => `${(bytes / 1024).toFixed(0)} KiB`;
console.log(`${"grown by".padStart(12)} ${"objects".padStart(10)} ${"now".padStart(12)}  held by`);
for (const { name, grown, more, bytes } of rows
  .filter((row) => row.grown > 1024)
  .sort((a, b) => b.grown - a.grown)
  .slice(0, top)) {
  console.log(`${kib(grown).padStart(12)} ${String(more).padStart(10)} ${kib(bytes).padStart(12)}  ${name}`);
}
