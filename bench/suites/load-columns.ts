/** The columns and remarks that the suites under load (echo, churn, flood) share. */
import type { LoadSample } from "../measure.ts";
import type { Column } from "../scenario.ts";
import { spread } from "../statistics.ts";
import { figure, percent } from "../table.ts";

export const SERVER_SHARE: Column<LoadSample> = {
  title: "server core",
  of: (sample) => sample.serverShare,
  show: percent,
};

export const CLIENT_SHARE: Column<LoadSample> = {
  title: "client cores",
  of: (sample) => sample.clientShare,
  show: percent,
};

export const LATENCY: readonly Column<LoadSample>[] = (["p50", "p99", "max"] as const).map((name) => ({
  title: `${name} ms`,
  of: (sample) => sample.result.latencyMs?.[name],
  show: figure,
}));

/** A server whose core was less busy than this was waiting for the client. */
const BUSY_SHARE = 0.9;
/** More than this of the server's core went elsewhere. */
const DISTURBED_SHARE = 0.05;

/** Says who was the limit, and whether something else ran on the server's core. */
export function loadRemarks(samples: readonly LoadSample[], clientCores: number): string[] {
  const remarks: string[] = [];
  const waiting = samples.filter((sample) => sample.serverShare + (sample.othersShare ?? 0) < BUSY_SHARE);
  if (waiting.length > 0) {
    const full = waiting.filter((sample) => sample.clientShare > BUSY_SHARE * clientCores).length;
    remarks.push(
      `In ${waiting.length} of ${samples.length} runs the server's core was under ${percent(BUSY_SHARE)} busy (in ${full} ` +
        "of them the clients' cores were full): rates there are the client's, and batches smaller than at full load.",
    );
  }
  const late = samples.filter((sample) => sample.result.messages.unsent > 0).length;
  if (late > 0) remarks.push(`In ${late} runs the rate was more than the server could follow.`);
  const disturbed = spread(samples.flatMap((sample) => sample.othersShare ?? []));
  if (disturbed !== undefined && disturbed.max > DISTURBED_SHARE) {
    remarks.push(
      `The server's core was taken by others for ${percent(disturbed.median)} of the time (at worst ` +
        `${percent(disturbed.max)}): close what else runs here.`,
    );
  }
  return remarks;
}
