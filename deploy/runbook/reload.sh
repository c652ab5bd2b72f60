#!/usr/bin/env bash
# reload.sh - have the running server read its configuration again, and see that it took it.
#
# Usage: reload.sh [--replace] [--control PATH] [--dry-run]
#
#   --replace       new workers even if the configuration asks for none (services that read files at their start)
#   --control PATH  the server's control socket (default: HEADRACE_CONTROL, else the runtime directory)
#   --dry-run       check the configuration from here, reload nothing. A fault is a warning: the server has variables and
#                   flags of its own (HEADRACE_ADMIN_TOKEN), so only its own check counts
#
# The server checks the configuration itself: a file with a fault changes nothing, it is told with its line, and the old
# configuration serves on.
# Exit codes: 0 done, 1 failed (the old configuration serves), 2 usage or a faulty file, 3 no server answers, 75 busy.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib.sh"

replace=()
while [ $# -gt 0 ]; do
  case $1 in
    --replace) replace=(--replace) ;;
    --control) CONTROL=$(value "$@") || exit; shift ;;
    --dry-run) DRY=1 ;;
    -h | --help) show_help; exit ;;
    *) misused "unknown argument '$1'" ;;
  esac
  shift
done
find_headrace
need_status
before=$(of_status s.configVersion)
say "now: $(summary)"

if [ "$DRY" = 1 ]; then
  # A service given on the command line has no file; then there is nothing to check.
  source=$(source_of)
  if [ -n "$source" ]; then
    if CONTROL='' headrace_within 60 check --config "$source" >/dev/null; then
      say "checked: $source"
    else
      warn "$source seems to have a fault, as far as can be told from here"
    fi
  fi
fi
act headrace_within 300 reload --wait "${replace[@]}" || {
  code=$?
  [ "$code" = "$EXIT_BUSY" ] && exit "$EXIT_BUSY"
  settle 60 || warn "the reload still goes on; look at: headrace status"
  # The server names its file as it was given.
  if read_status && [ "$(of_status 's.lastChange?.outcome === "failed" && s.lastChange.message.split("\n")[0].includes(s.source)')" = true ]; then
    code=$EXIT_USAGE
  else
    code=$EXIT_FAILED
  fi
  die "$code" "the reload failed; configuration $before serves on: $(summary)"
}
[ "$DRY" = 1 ] && exit
need_status
say "then: $(summary)"
[ "$(of_status s.health)" = ok ] || die "$EXIT_FAILED" "reloaded, but the server is degraded"
