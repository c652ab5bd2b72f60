#!/usr/bin/env node
/**
 * The command's entry. For `run`, the signal handlers come before everything else, also before the imports that
 * take time: so this file imports nothing but them by itself.
 */
import { captureSignals } from "../primary/signals.ts";

const command = process.argv.slice(2).find((argument) => !argument.startsWith("-"));
const signals = command === "run" ? captureSignals() : undefined;
const { main } = await import("./program.ts");
process.exit(await main(process.argv.slice(2), signals));
