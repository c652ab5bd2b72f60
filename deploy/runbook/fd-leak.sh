#!/usr/bin/env bash
# fd-leak.sh - which kinds of descriptors grow, in which process of the server.
#
# Usage: fd-leak.sh [--seconds N] [--samples N] [--pid PID]... [--control PATH] [--dry-run]
#
#   --seconds N     how long to look (default 60)
#   --samples N     how often in that time (default 6)
#   --pid PID       this process instead of the server's (may be repeated)
#   --control PATH  the server's control socket (default: HEADRACE_CONTROL, else the runtime directory)
#   --dry-run       say which processes would be looked at
#
# Kinds: files by their path (digits as #), pipes, events, and sockets by what they are: a client's (by the listener's
# port), a connection this host made (by its destination), listening, unix, UDP, or unconnected. Clients that come and
# stay are no leak: compare their growth with `open`, which is what the worker itself says it serves.
# Exit codes: 0 nothing grows but clients, 1 failed, 2 usage, 3 no server answers, 4 something grows: it is named.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib.sh"

seconds=60 samples=6 pids=()
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) seconds=$(value "$@") || exit; shift ;;
    --samples) samples=$(value "$@") || exit; shift ;;
    --pid) pids+=("$(value "$@")") || exit; shift ;;
    --control) CONTROL=$(value "$@") || exit; shift ;;
    --dry-run) DRY=1 ;;
    -h | --help) show_help; exit ;;
    *) misused "unknown argument '$1'" ;;
  esac
  shift
done
whole --seconds "$seconds" 1 86400
whole --samples "$samples" 2 1000
for pid in "${pids[@]}"; do whole --pid "$pid" 1 4194304; done
command -v ss >/dev/null || die "$EXIT_FAILED" "ss is not there: install iproute2"
find_headrace

declare -A named=()
if [ ${#pids[@]} -eq 0 ]; then
  need_status
  # shellcheck disable=SC2016 # JavaScript's own
  while read -r pid name; do
    pids+=("$pid")
    named[$pid]=$name
  done < <(of_status '[`${s.pid} primary`, ...s.workers.map((w) => `${w.pid} worker-${w.slot}`), ...s.draining.map((d) => `${d.pid} draining`)]')
fi
for pid in "${pids[@]}"; do
  [ -d "/proc/$pid/fd" ] || die "$EXIT_FAILED" "there is no process $pid"
  [ -r "/proc/$pid/fd" ] || die "$EXIT_FAILED" "the descriptors of process $pid cannot be read by this user"
done
if [ "$DRY" = 1 ]; then
  for pid in "${pids[@]}"; do say "would look at ${named[$pid]:-process} $pid, $samples times in $seconds s"; done
  exit
fi

# One sample: lines "pid kind count". What ss knows of the sockets comes first, by inode; a socket that it does not know
# is of a kind of its own.
sample() {
  {
    timeout 20 ss -Htunape 2>/dev/null || true
    echo "--"
    for pid in "${pids[@]}"; do
      find "/proc/$pid/fd" -mindepth 1 -printf "$pid %l\n" 2>/dev/null || true
    done
  } | awk '
    function port(address) { sub(/.*:/, "", address); return address }
    /^--$/ { listed = 1; next }
    !listed {
      inode = ""
      for (i = 7; i <= NF; i++) if ($i ~ /^ino:/) inode = substr($i, 5)
      if (inode == "") next
      if ($1 == "udp") kind[inode] = "socket:udp-port-" port($5)
      else if ($2 == "LISTEN") { kind[inode] = "socket:listening-" port($5); listens[port($5)] = 1 }
      else { from[inode] = port($5); to[inode] = $6; state[inode] = ($2 == "ESTAB" ? "" : "-" $2) }
      next
    }
    {
      pid = $1; sub(/^[0-9]+ /, ""); what = $0
      if (match(what, /^socket:\[[0-9]+\]$/)) {
        inode = substr(what, 9, length(what) - 9)
        if (inode in kind) what = kind[inode]
        else if (inode in from) what = (from[inode] in listens ? "socket:client-of-port-" from[inode] : "socket:to-" to[inode]) state[inode]
        else what = "socket:unix-or-unconnected"
      } else if (what ~ /^(pipe|anon_inode):/) sub(/:\[[0-9]+\]$/, "", what)
      else { gsub(/[0-9]+/, "#", what); gsub(/ /, "_", what) }
      count[pid " " what]++
    }
    END { for (each in count) print each, count[each] }'
}

# A worker's own count of its connections, beside what the kernel has.
opens() {
  read_status || return 0
  # shellcheck disable=SC2016 # JavaScript's own
  of_status 's.workers.map((w) => `${w.pid} open ${w.open}`)'
}

all=""
for ((round = 1; round <= samples; round++)); do
  all+=$(sample | sed "s/^/$round /"; [ ${#named[@]} -eq 0 ] || opens | sed "s/^/$round /")$'\n'
  [ "$round" = "$samples" ] || sleep "$(awk "BEGIN { print $seconds / ($samples - 1) }")"
done

names=""
for pid in "${!named[@]}"; do names+="$pid=${named[$pid]} "; done
awk -v samples="$samples" -v names="$names" '
  NF == 4 { value[$2 " " $3, $1] = $4; seen[$2 " " $3] = 1 }
  END {
    n = split(names, pairs, " ")
    for (i = 1; i <= n; i++) { split(pairs[i], pair, "="); name[pair[1]] = pair[2] }
    printf "%8s  %-10s %8s %8s %8s  %s\n", "pid", "process", "first", "last", "growth", "kind"
    # What sort prints comes from another process.
    fflush()
    for (each in seen) {
      split(each, part, " ")
      growth = value[each, samples] - value[each, 1]
      # It grows when it never went back, and more than once went up: one descriptor more is no leak.
      steps = 0; back = 0
      for (i = 2; i <= samples; i++) {
        step = value[each, i] - value[each, i - 1]
        if (step > 0) steps++
        if (step < 0) back++
      }
      leak = steps >= 2 && back == 0 && part[2] !~ /^(open$|socket:client-of-)/
      if (part[2] ~ /^socket:client-of-/) clients[part[1]] += growth
      if (growth != 0 || part[2] == "open")
        printf "%8d  %-10s %8d %8d %+8d  %s\n", part[1], name[part[1]] ? name[part[1]] : "-", value[each, 1], value[each, samples], growth, part[2] | "sort -k1,1n -k5,5rn"
      if (leak) culprit[each] = growth
    }
    close("sort -k1,1n -k5,5rn")
    for (each in culprit) {
      split(each, part, " "); found = 1
      printf "\nGROWS: %s in %s %d: +%d\n", part[2], name[part[1]] ? name[part[1]] : "process", part[1], culprit[each]
    }
    for (pid in clients) if (((pid " open") in seen)) {
      extra = clients[pid] - (value[pid " open", samples] - value[pid " open", 1])
      if (clients[pid] > 2 && extra > clients[pid] / 2 && extra > 2) {
        found = 1
        printf "\nGROWS: sockets of clients in %s %d: +%d more than the worker serves\n", name[pid], pid, extra
      }
    }
    if (!found) print "\nnothing grows but the number of clients"
    exit found ? 4 : 0
  }' <<<"$all"
