/**
 * Paths as the user gave them, made absolute. Symbolic links stay as they are, so that a path through
 * `/srv/current` means the release that `current` names when the path is used, not when it was read.
 */
import { realpathSync } from "node:fs";
import { isAbsolute, resolve } from "node:path";

function physical(folder: string): string {
  try {
    return realpathSync(folder);
  } catch {
    return folder;
  }
}

/**
 * `given` from the absolute `folder`. What goes up (`../shared.yaml`) does so from where the folder really is, as the
 * kernel has it (path_resolution(7)): cutting off its last name would lead to another place when that is a link.
 */
export function absolutePath(folder: string, given: string): string {
  if (isAbsolute(given)) return resolve(given);
  return resolve(given.split("/").includes("..") ? physical(folder) : folder, given);
}
