#!/usr/bin/env bash
# scale.sh - more or fewer workers, and see that they serve.
#
# Usage: scale.sh WORKERS [--control PATH] [--dry-run]
#
#   WORKERS         how many there are to be, 1 to 256
#   --control PATH  the server's control socket (default: HEADRACE_CONTROL, else the runtime directory)
#   --dry-run       say what would be done
#
# Nobody is disconnected: the workers that go hand their connections to those that stay. It holds over reloads and
# upgrades, until a restart: write `workers` into the configuration too if it shall stay.
# Exit codes: 0 done, 1 failed (as many as before serve), 2 usage, 3 no server answers, 75 busy.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib.sh"

workers=""
while [ $# -gt 0 ]; do
  case $1 in
    --control) CONTROL=$(value "$@") || exit; shift ;;
    --dry-run) DRY=1 ;;
    -h | --help) show_help; exit ;;
    -*) misused "unknown option '$1'" ;;
    *) [ -z "$workers" ] || misused "one number, not '$workers' and '$1'"; workers=$1 ;;
  esac
  shift
done
[ -n "$workers" ] || misused "how many workers?"
whole WORKERS "$workers" 1 256
find_headrace
need_status
say "now: $(summary)"
cpus=$(nproc)
[ "$workers" -le "$cpus" ] || warn "$workers workers on $cpus CPUs: they will take turns"
act headrace_within 300 scale "$workers" --wait || {
  code=$?
  [ "$code" = "$EXIT_BUSY" ] && exit "$EXIT_BUSY"
  die "$EXIT_FAILED" "the server serves as before: $(read_status && summary || printf '%s' "$STATUS")"
}
[ "$DRY" = 1 ] && exit
need_status
say "then: $(summary)"
accepting=$(of_status 's.workers.filter((w) => w.state === "accepting").length')
[ "$accepting" = "$workers" ] || die "$EXIT_FAILED" "$accepting of $workers workers accept"
