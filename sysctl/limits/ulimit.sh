#!/usr/bin/env bash
# Plain shells: starts a command with more open files, as far as this shell may give them.
#   ./ulimit.sh headrace run --config headrace.yaml
# Where more is wanted than the hard limit, only root can raise it: sudo prlimit --pid $$ --nofile=262144:262144
# changes the shell that runs.
set -euo pipefail

wanted=${NOFILE:-262144}

case ${1:---help} in
  -h | --help)
    echo "Usage: [NOFILE=262144] ulimit.sh COMMAND [ARGUMENTS]"
    echo "Runs the command with RLIMIT_NOFILE (soft and hard) of NOFILE; with the hard limit, and a word about it, where that is lower."
    echo "Exit code: the command's; 2 for a wrong NOFILE."
    exit 0
    ;;
esac
case $wanted in
  '' | *[!0-9]*)
    echo "ulimit.sh: NOFILE=$wanted; allowed: a number" >&2
    exit 2
    ;;
esac
if ! ulimit -n "$wanted" 2>/dev/null; then
  hard=$(ulimit -H -n)
  echo "ulimit.sh: $hard open files instead of $wanted: that is the hard limit of this shell" >&2
  ulimit -S -n "$hard"
fi
exec "$@"
