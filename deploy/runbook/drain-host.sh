#!/usr/bin/env bash
# drain-host.sh - take this host out of its balancer, wait until its clients have left, and stop the server if asked.
#
# Usage: drain-host.sh --haproxy SOCKET --server BACKEND/NAME [--within SECONDS] [--stop] [--back] [--dry-run]
#        drain-host.sh --stop [--within SECONDS] [--dry-run]
#
#   --haproxy SOCKET   HAProxy's admin socket: a path, or host:port (`stats socket … level admin`)
#   --server B/NAME    this host as HAProxy calls it: headrace/one
#   --within SECONDS   wait so long for clients to leave by themselves (default 900)
#   --stop             stop the server then: what is left is drained as `headrace stop --wait` does (timeouts.drain)
#   --back             the other way: put the host back into the balancer
#   --control PATH     the server's control socket (default: HEADRACE_CONTROL, else the runtime directory)
#   --dry-run          say what would be done
#
# First the balancer, then the server: newcomers go elsewhere from the first second, and who is here stays until they
# leave. Without --haproxy newcomers are refused from the moment of the stop: HAProxy, nginx and Kubernetes try another
# server then, so use it where one of these stands in front.
# Exit codes: 0 done, 1 failed or clients are still there (nothing was stopped), 2 usage, 3 no server answers
# (with --haproxy the host is taken out nevertheless; its clients cannot be counted then).
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib.sh"

socket="" server="" within=900 stop=0 back=0
while [ $# -gt 0 ]; do
  case $1 in
    --haproxy) socket=$(value "$@") || exit; shift ;;
    --server) server=$(value "$@") || exit; shift ;;
    --within) within=$(value "$@") || exit; shift ;;
    --stop) stop=1 ;;
    --back) back=1 ;;
    --control) CONTROL=$(value "$@") || exit; shift ;;
    --dry-run) DRY=1 ;;
    -h | --help) show_help; exit ;;
    *) misused "unknown argument '$1'" ;;
  esac
  shift
done
whole --within "$within" 0 604800
if [ -n "$socket" ]; then
  [[ $server =~ ^[A-Za-z0-9_.:-]+/[A-Za-z0-9_.:-]+$ ]] || misused "--haproxy needs --server BACKEND/NAME"
else
  [ -z "$server" ] || misused "--server needs --haproxy"
  [ "$stop" = 1 ] || misused "what is to be done? --haproxy SOCKET --server BACKEND/NAME, or --stop"
fi
[ "$back" = 0 ] || { [ -n "$socket" ] && [ "$stop" = 0 ]; } || misused "--back goes with --haproxy, and not with --stop"
find_headrace

# haproxy COMMAND: what its admin socket answers, within 5 s.
haproxy() {
  # shellcheck disable=SC2016 # JavaScript's own
  node -e '
    const [where, command] = process.argv.slice(1);
    const at = /^(.+):(\d+)$/.exec(where);
    const socket = require("node:net").connect(at ? { host: at[1], port: Number(at[2]) } : { path: where });
    const fail = (why) => { console.error(`HAProxy at ${where}: ${why}`); process.exit(1); };
    setTimeout(() => fail("no answer within 5 s"), 5_000).unref();
    socket.on("error", (error) => fail(error.message)).on("connect", () => socket.write(`${command}\n`)).pipe(process.stdout);' \
    "$socket" "$1"
}

# Its words are for people: what it says when it did something is nothing.
tell_haproxy() {
  local answer
  answer=$(haproxy "$1") || die "$EXIT_FAILED" "nothing was changed"
  [ -z "${answer//[$'\n ']/}" ] || die "$EXIT_FAILED" "HAProxy: $answer"
}

if [ "$back" = 1 ]; then
  act tell_haproxy "set server $server state ready"
  say "$server takes newcomers again as soon as its checks pass"
  exit
fi

# A server that does not answer is a reason to take its host out, not one against it.
answers=1
if read_status; then
  say "now: $(summary)"
elif [ -n "$socket" ]; then
  answers=0
  warn "no server answers: $STATUS"
else
  die "$EXIT_UNREACHABLE" "no server answers; nothing was changed: $STATUS"
fi
if [ -n "$socket" ]; then
  act tell_haproxy "set server $server state drain"
  [ "$DRY" = 1 ] || say "$server takes no newcomers any more"
  [ "$answers" = 1 ] || die "$EXIT_UNREACHABLE" "its clients cannot be counted, and nothing was stopped: the server does not answer"
  if [ "$DRY" = 1 ]; then
    say "would wait up to $within s until its clients have left"
  else
    open=""
    until=$((SECONDS + within))
    while read_status && open=$(of_status s.totals.open) && [ "$open" -gt 0 ] && [ "$SECONDS" -lt "$until" ]; do
      sleep 1
    done
    read_status || die "$EXIT_UNREACHABLE" "the server has gone meanwhile"
    if [ "$open" -gt 0 ]; then
      warn "$open clients are still there after $within s"
      [ "$stop" = 1 ] || die "$EXIT_FAILED" "wait longer (run it again), or stop the server: $SELF --stop"
    else
      say "nobody is connected"
    fi
  fi
fi
if [ "$stop" = 1 ]; then
  # timeouts.drain may be long; the stop itself keeps to it.
  act headrace_within 86400 stop --wait || die "$EXIT_FAILED" "the stop failed"
fi
