#!/usr/bin/env bash
# rollback.sh - back to the release of before: an upgrade to it, which disconnects nobody.
#
# Usage: rollback.sh [RELEASE] [--link PATH] [--control PATH] [--restart UNIT] [--dry-run]
#
#   RELEASE         go back to this folder (default: what LINK.previous names, which upgrade.sh keeps)
#   --link PATH     the symbolic link through which the server was started (default: HEADRACE_LINK, else /opt/headrace)
#   --control PATH  the server's control socket (default: HEADRACE_CONTROL, else the runtime directory)
#   --restart UNIT  when no server answers: switch the link and have systemd restart the unit (cuts what is connected)
#   --dry-run       check everything that can be checked, change nothing
#
# A second rollback goes forward again. Configuration and data do not go back: the old release must understand them.
# Exit codes: 0 done, 1 failed, 2 usage, 3 no server answers (and no --restart), 75 busy.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib.sh"

LINK=${HEADRACE_LINK:-/opt/headrace}
release=""
unit=""
rest=()
while [ $# -gt 0 ]; do
  case $1 in
    --link) LINK=$(value "$@") || exit; shift ;;
    --control) CONTROL=$(value "$@") || exit; rest+=(--control "$CONTROL"); shift ;;
    --restart) unit=$(value "$@") || exit; shift ;;
    --dry-run) DRY=1; rest+=(--dry-run) ;;
    -h | --help) show_help; exit ;;
    -*) misused "unknown option '$1'" ;;
    *) [ -z "$release" ] || misused "one release, not '$release' and '$1'"; release=$1 ;;
  esac
  shift
done
[ -L "$LINK" ] || misused "$LINK is no symbolic link; --link names the one through which the server was started"
if [ -z "$release" ]; then
  [ -L "$LINK.previous" ] || die "$EXIT_FAILED" "there is no $LINK.previous: name the release to go back to"
  release=$(readlink -f "$LINK.previous") || die "$EXIT_FAILED" "$LINK.previous names $(readlink "$LINK.previous"), which is not there"
fi
[ -d "$release" ] || misused "the release '$release' is no folder"
find_headrace
say "back from $(readlink -f "$LINK" || readlink "$LINK") to $release"
if read_status || [ -z "$unit" ]; then
  exec bash "$HERE/upgrade.sh" "$release" --link "$LINK" "${rest[@]}"
fi

warn "no server answers ($STATUS)"
# As upgrade.sh: two of these at once would take each other's link.
exec 9<"$(dirname "$LINK")"
flock -n 9 || die "$EXIT_BUSY" "another upgrade.sh or rollback.sh is at work on $LINK"
old=$(readlink "$LINK")
trap 'rm -f "$LINK.new.$$" "$LINK.previous.new.$$"' EXIT
act ln -sfn "$(readlink -f "$release")" "$LINK.new.$$"
act mv -fT "$LINK.new.$$" "$LINK"
act ln -sfn "$old" "$LINK.previous.new.$$"
act mv -fT "$LINK.previous.new.$$" "$LINK.previous"
act timeout 120 systemctl restart "$unit" || die "$EXIT_FAILED" "systemctl restart $unit failed; look at: journalctl -u $unit -n 50"
[ "$DRY" = 1 ] && exit
need_status
say "then: $(summary)"
