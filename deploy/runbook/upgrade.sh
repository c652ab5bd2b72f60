#!/usr/bin/env bash
# upgrade.sh - let the running server hand over to another release, and put the link back if it does not.
#
# Usage: upgrade.sh RELEASE [--link PATH] [--control PATH] [--dry-run]
#
#   RELEASE         folder of the release that shall run from now on
#   --link PATH     the symbolic link through which the server was started (default: HEADRACE_LINK, else /opt/headrace)
#   --control PATH  the server's control socket (default: HEADRACE_CONTROL, else the runtime directory)
#   --dry-run       check everything that can be checked, change nothing
#
# The link is switched in one step, `headrace upgrade --wait` runs, and what then serves is compared with what should:
# one generation more, healthy, the release's version. If it failed, the link names the old release again, which never
# stopped serving. The release of before is kept as LINK.previous, for rollback.sh. Safe to interrupt: it waits until the
# server has decided, and leaves the link as what runs.
# Exit codes: 0 done, 1 failed (the old release serves, the link is put back), 2 usage, 3 no server answers, 75 busy.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib.sh"

LINK=${HEADRACE_LINK:-/opt/headrace}
# Check, start, readiness, proving time: with their longest deadlines.
readonly UPGRADE_S=300
release=""
while [ $# -gt 0 ]; do
  case $1 in
    --link) LINK=$(value "$@") || exit; shift ;;
    --control) CONTROL=$(value "$@") || exit; shift ;;
    --dry-run) DRY=1 ;;
    -h | --help) show_help; exit ;;
    -*) misused "unknown option '$1'" ;;
    *) [ -z "$release" ] || misused "one release, not '$release' and '$1'"; release=$1 ;;
  esac
  shift
done
[ -n "$release" ] || misused "which release?"
[ -d "$release" ] || misused "the release '$release' is no folder"
[ -L "$LINK" ] || misused "$LINK is no symbolic link; --link names the one through which the server was started"
# Where releases bring their headrace (and are not only the service's files), this one has to.
has_headrace() { [ -f "$1/dist/cli/main.js" ] || [ -f "$1/node_modules/headrace/dist/cli/main.js" ]; }
if has_headrace "$LINK" && ! has_headrace "$release"; then
  misused "the release '$release' has neither dist/cli/main.js nor node_modules/headrace/dist/cli/main.js: is it built and installed?"
fi
[ -w "$(dirname "$LINK")" ] || die "$EXIT_FAILED" "$(dirname "$LINK") cannot be written by this user"
find_headrace

# A link that was relative stays relative where it can: what it names is looked up from its own folder.
old=$(readlink "$LINK")
new=$(readlink -f "$release")
[ "$new" != "$(readlink -f "$LINK")" ] || say "note: $LINK names $new already"

# name_by LINK TARGET: in one step; there is no moment without a link.
name_by() {
  ln -sfn "$2" "$1.new.$$"
  mv -fT "$1.new.$$" "$1"
}
trap 'rm -f "$LINK.new.$$" "$LINK.previous.new.$$"' EXIT

# The version of headrace in the release: it is headrace itself, or has it among its modules.
version_of() {
  local file
  for file in "$1/node_modules/headrace/package.json" "$1/package.json"; do
    [ -f "$file" ] || continue
    node -p 'const p = JSON.parse(require("node:fs").readFileSync(process.argv[1], "utf8")); p.name === "headrace" ? p.version : ""' "$file"
    return
  done
}

# Two of these at once would take each other's link. The lock ends with this process.
exec 9<"$(dirname "$LINK")"
flock -n 9 || die "$EXIT_BUSY" "another upgrade.sh or rollback.sh is at work on $LINK"

need_status
generation=$(of_status s.generation)
say "now: $(summary), release $old"
if [ "$DRY" = 1 ]; then
  say "would name $new by $LINK, and run: headrace upgrade --wait"
  exit
fi
[ "$(of_status 's.lastChange?.outcome ?? "none"')" != running ] || die "$EXIT_BUSY" "the server is $(of_status s.state); try again"

# From here on the link must end as what runs, whatever happens to this shell or to its terminal.
interrupted=0
trap 'interrupted=1' HUP INT TERM
name_by "$LINK" "$new"
code=0
headrace_within "$UPGRADE_S" upgrade --wait || code=$?
[ "$code" = 0 ] || settle "$UPGRADE_S" || warn "the server has not decided within ${UPGRADE_S} s"
after=$generation
if read_status; then after=$(of_status s.generation); fi
if [ "$after" = "$generation" ]; then
  name_by "$LINK" "$old"
  [ "$code" = "$EXIT_BUSY" ] && die "$EXIT_BUSY" "busy; $LINK names $old again"
  die "$EXIT_FAILED" "the upgrade failed, $LINK names $old again: $(read_status && summary || printf '%s' "$STATUS")"
fi
[ "$(readlink -f "$LINK")" = "$(cd "$(dirname "$LINK")" && readlink -f "$old")" ] || name_by "$LINK.previous" "$old"
say "then: $(summary), release $new"
running=$(of_status s.version)
wanted=$(version_of "$new")
if [ -n "$wanted" ] && [ "$wanted" != "$running" ]; then
  name_by "$LINK" "$old"
  die "$EXIT_FAILED" "headrace $running runs, the release has $wanted: the server was not started through $LINK, which names $old again"
fi
[ "$(of_status s.health)" = ok ] || die "$EXIT_FAILED" "the new release serves, but is degraded; rollback.sh goes back to $old"
[ "$interrupted" = 0 ] || warn "was interrupted, but the upgrade is done"
