#!/usr/bin/env bash
# time-wait.sh - who makes the TIME_WAIT sockets of this host: which port, which peers, and who closed first.
#
# Usage: time-wait.sh [--top N]
#
#   --top N     so many lines of each table (default 10)
#   --dry-run   the same: it only looks
#
# A socket is in TIME_WAIT for 60 s at the end that closed first. With a port that somebody here listens on, it is this
# server that closed its clients; with any other, this host was the client and closed its own connection, and each of
# these takes one of its local ports from that destination.
# Exit codes: 0 done, 1 failed, 2 usage.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib.sh"

top=10
while [ $# -gt 0 ]; do
  case $1 in
    --top) top=$(value "$@") || exit; shift ;;
    --dry-run) ;;
    -h | --help) show_help; exit ;;
    *) misused "unknown argument '$1'" ;;
  esac
  shift
done
whole --top "$top" 1 1000
command -v ss >/dev/null || die "$EXIT_FAILED" "ss is not there: install iproute2"

# Of inputs as `ss -Htan` prints them: state, queues, local, peer. One pass, whatever their number.
read -r low high </proc/sys/net/ipv4/ip_local_port_range
ports=$((high - low + 1))
{
  timeout 20 ss -Htln || die "$EXIT_FAILED" "ss failed"
  echo "--"
  timeout 20 ss -Htn state time-wait || die "$EXIT_FAILED" "ss failed"
} | awk -v top="$top" -v ports="$ports" '
  function port(address) { sub(/.*:/, "", address); return address }
  function host(address) { sub(/:[^:]*$/, "", address); return address }
  function print_top(count, title, column,   name, command) {
    printf "\n%s\n%10s  %s\n", title, "sockets", column
    # What sort prints comes from another process.
    fflush()
    command = "sort -rn | head -n " top
    for (name in count) printf "%10d  %s\n", count[name], name | command
    close(command)
  }
  /^--$/ { listed = 1; next }
  !listed { listens[port($4)] = 1; next }
  # With a state filter ss leaves the column of states out.
  {
    all++
    if (port($3) in listens) { ours++; by_port["port " port($3)]++; by_client[host($4)]++ }
    else { out++; by_target[$4]++; by_source[host($3) " -> " $4]++ }
  }
  END {
    printf "%d sockets in TIME_WAIT: %d of clients that this host closed first, %d of connections that it made itself\n", all, ours, out
    fflush()
    if (ours) { print_top(by_port, "closed first by the server", "its port"); print_top(by_client, "their clients", "address") }
    if (out) {
      print_top(by_target, "closed first by this host as a client", "destination")
      for (name in by_source) if (by_source[name] > ports * 0.5)
        printf "\nwarning: %s takes %d of %d local ports (net.ipv4.ip_local_port_range)\n", name, by_source[name], ports
    }
  }'
say
say "limit: net.ipv4.tcp_max_tw_buckets $(</proc/sys/net/ipv4/tcp_max_tw_buckets); net.ipv4.tcp_tw_reuse $(</proc/sys/net/ipv4/tcp_tw_reuse); local ports $low to $high"
