#!/usr/bin/env bash
# diagnose.sh - one archive of all that somebody else needs to see what is wrong; it changes nothing.
#
# Usage: diagnose.sh [--output DIR] [--profile SECONDS] [--log FILE] [--unit UNIT] [--within SECONDS]
#                    [--control PATH] [--dry-run]
#
#   --output DIR       where the archive goes (default: here); it is 0600
#   --profile SECONDS  a CPU profile of each worker too, 1 to 60 s (default: none; it costs some percent of CPU)
#   --log FILE         the server's log file (default: the journal of the unit)
#   --unit UNIT        its systemd unit (default: headrace)
#   --within SECONDS   stop collecting after this (default 120); what is left out is in MANIFEST. Profiles come last and
#                      have time of their own
#   --control PATH     the server's control socket (default: HEADRACE_CONTROL, else the runtime directory)
#   --dry-run          list what would be collected
#
# In it: sockets (ss, TCP_INFO), kernel counters, limits, sysctl, what /proc says of the server's processes, headrace's
# status, connections, metrics and doctor, the last log lines. At most 4 MiB of each, whatever the number of clients.
# Not in it: the admin token, keys, the configuration file, heap snapshots, the environment but for names and a few harmless
# values. What looks like a secret is taken out of everything else (passwords in URLs, cookies, what follows words such as
# token), but what your service writes into its log is its own affair: look through `log` before you give the archive away.
# Clients' addresses are in it: they are personal data in most places.
# It also works when no server answers, with what the machine alone can tell.
# Exit codes: 0 the archive is there (its path is the last line), 1 failed, 2 usage.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib.sh"

output=. profile=0 log="" unit=headrace within=120
while [ $# -gt 0 ]; do
  case $1 in
    --output) output=$(value "$@") || exit; shift ;;
    --profile) profile=$(value "$@") || exit; whole --profile "$profile" 1 60; shift ;;
    --log) log=$(value "$@") || exit; shift ;;
    --unit) unit=$(value "$@") || exit; shift ;;
    --within) within=$(value "$@") || exit; shift ;;
    --control) CONTROL=$(value "$@") || exit; shift ;;
    --dry-run) DRY=1 ;;
    -h | --help) show_help; exit ;;
    *) misused "unknown argument '$1'" ;;
  esac
  shift
done
whole --within "$within" 5 3600
if ! [ -d "$output" ] || ! [ -w "$output" ]; then misused "--output is a folder that can be written, not '$output'"; fi
[ -z "$log" ] || [ -r "$log" ] || misused "the log '$log' cannot be read"
find_headrace

readonly MOST_BYTES=$((4 * 1024 * 1024)) ITEM_S=15 LINE_BYTES=$((16 * 1024))
umask 077
stamp=$(date -u +%Y%m%dT%H%M%SZ)
name="headrace-$(uname -n)-$stamp"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM
place=$folder/$name
mkdir "$place"

# Takes out keys, the admin token wherever it may stand, passwords in URLs, headers with credentials, and what follows a
# word that announces a secret: a string, a list, an object, a word. Rather a harmless word too many than a secret.
# Lines are cut first, because the search is quadratic in their length; and it ends in any case.
token=""
redact() {
  # shellcheck disable=SC2016 # awk's own
  LC_ALL=C cut -b "-$LINE_BYTES" | SECRET=$token LC_ALL=C timeout --kill-after=2 "$ITEM_S" awk '
    BEGIN {
      word = "(token|secret|password|passwd|passphrase|pwd|credential|authorization|cookie|api[_-]?key|private[_-]?key)"
      # In JSON that is in JSON quotes have a backslash.
      quote = "[\\\\]*[\"\047]"
      named = word "[a-z0-9_.-]*(" quote "[ \t]*[,:=]|[ \t]*[:=])[:=>]*[ \t]*[\\\\]*"
      string = "(\"([^\"\\\\]|\\\\.)*(\"|[\\\\]?$)|\047([^\047\\\\]|\\\\.|\047\047)*(\047|[\\\\]?$))"
      list = "\\[(" string "|[^]\"\047])*(\\]|$)"
      object = "[{](" string "|[^}\"\047])*([}]|$)"
      scheme = "((bearer|basic|digest|token)[ \t]+)?"
      value = "(" string "|" list "|" object "|" scheme "[^ \t\"\047[{][^ \t\"]*)"
      # Behind a blank, as in --token VALUE.
      blank = word "s?[ \t]+"
      plain = "(" string "|[^ \t\"\047[{(:=][^ \t\"]*)"
      either = "(" named value "|" blank plain ")"
      keys = "^(" named "|" blank ")"
    }
    /-----BEGIN [A-Z ]*PRIVATE KEY-----/ { print "(a private key was here)"; hidden = 1 }
    hidden { if (/-----END/) hidden = 0; next }
    {
      secret = ENVIRON["SECRET"]
      while (secret != "" && (at = index($0, secret))) $0 = substr($0, 1, at - 1) "(hidden)" substr($0, at + length(secret))
      gsub(/:\/\/[^\/@ ]*@/, "://(hidden)@")
      # Such a header is secret to its end.
      if (match(tolower($0), /(authorization|cookie)[ \t]*[:=]/)) $0 = substr($0, 1, RSTART + RLENGTH - 1) " (hidden)"
      line = $0; out = ""
      while (match(tolower(line), either)) {
        from = RSTART; size = RLENGTH
        match(tolower(substr(line, from, size)), keys)
        out = out substr(line, 1, from + RLENGTH - 1) "\"(hidden)\""
        line = substr(line, from + size)
      }
      print out line
    }' || echo "(cut off here: hiding what is secret took too long)"
}

# collect FILE WORDS...: what the command prints, within its share of time and bytes. Its failure is a line, no more.
collect() {
  local file=$1 code=0 began=$SECONDS seconds=${limit_s:-$ITEM_S}
  shift
  if [ "$DRY" = 1 ]; then
    say "$file: $*"
    return
  fi
  if [ "$SECONDS" -ge "$within" ]; then
    printf '%-28s left out: time is up\n' "$file" >>"$place/MANIFEST"
    return
  fi
  mkdir -p "$(dirname "$place/$file")"
  { timeout --kill-after=2 "$seconds" "$@" 2>&1 || code=$?; echo "$code" >"$folder/code"; } |
    head -c "$MOST_BYTES" | redact >"$place/$file" || true
  code=$(<"$folder/code")
  # Cut off by head: its writer got SIGPIPE.
  printf '%-28s exit %s, %s s, %s bytes: %s\n' "$file" "$code" "$((SECONDS - began))" "$(wc -c <"$place/$file")" "$*" >>"$place/MANIFEST"
}
# The same of a command of headrace.
ask() {
  local file=$1
  shift
  if [ -n "$CONTROL" ]; then set -- "$@" --control "$CONTROL"; fi
  collect "$file" "${HEADRACE[@]}" "$@"
}

pids=() ports=() source="" answers=0 server=""
if read_status; then
  answers=1
  mapfile -t pids < <(of_status '[s.pid, ...s.workers.map((w) => w.pid), ...s.draining.map((d) => d.pid)]')
  mapfile -t ports < <(of_status 's.listeners.map((l) => l.address.split(":").at(-1)).filter((p) => /^[0-9]+$/.test(p))')
  control=$(of_status s.control)
  file=$(token_beside "$control")
  if [ -r "$file" ]; then token=$(head -c 4096 "$file"); fi
  source=$(source_of)
  server=$(summary)
  say "collecting from: $server"
else
  mapfile -t pids < <(pgrep -f '^headrace (primary|worker)' || true)
  server=$(head -1 <<<"${STATUS:0:400}" | redact)
  warn "no server answers; what the machine knows is collected (${#pids[@]} processes of that name): $STATUS"
fi

{
  echo "headrace diagnosis of $(uname -n), $stamp"
  echo "server: $server"
} >"$place/MANIFEST"

# What headrace itself tells.
ask_headrace() {
  local path
  ask headrace/version --version
  ask headrace/status.json status --json
  collect headrace/doctor "${HEADRACE[@]}" doctor ${source:+--config "$source"}
  ask headrace/connections connections --sort buffered --limit 1000
  ask headrace/closed connections --closed --limit 1000
  for path in /readyz /metrics; do
    # It asks for the status first.
    limit_s=$((ASK_S + 10)) collect "headrace$path" bash "$HERE/admin.sh" ${CONTROL:+--control "$CONTROL"} --within 8 "$path"
  done
}
# A server that hangs takes its time to say nothing: then the machine comes first.
[ "$answers" = 0 ] || ask_headrace

filter=()
for port in "${ports[@]}"; do
  [ ${#filter[@]} -eq 0 ] || filter+=(or)
  filter+=(sport "=" ":$port")
done
collect net/summary ss -s
collect net/listening ss -tulnm
# All of the machine's where it is not known which are the server's.
collect net/tcp-info ss -tinmo "${filter[@]}"
collect net/time-wait bash "$HERE/time-wait.sh"
for file in sockstat sockstat6 netstat snmp softnet_stat; do collect "net/$file" cat "/proc/net/$file"; done
collect net/interfaces ip -s -s link

# Patterns that people ask for; keys of TFO and of addresses are secrets.
collect sysctl sh -c "sysctl -a --pattern '^(net\.core\.|net\.ipv4\.(tcp_|udp_|ip_local_)|net\.netfilter\.nf_conntrack_(max|count)|fs\.(file-|nr_open)|vm\.(overcommit|swappiness|max_map)|kernel\.(pid_max|threads-max))' 2>/dev/null | grep -viE 'key|secret'"
collect machine/kernel uname -a
collect machine/cpus lscpu
collect machine/memory cat /proc/meminfo
collect machine/load sh -c 'uptime; nproc; head -n 20 /proc/pressure/*'
collect machine/disk df -h
collect machine/kernel-log sh -c 'dmesg 2>/dev/null | grep -iE "oom|killed process|conntrack|TCP:|segfault|hung" | tail -n 200'

# Which descriptors a process has, by kind; digits are #, so that thousands are a few lines.
# shellcheck disable=SC2016 # the inner shell's
readonly KINDS='find "/proc/$1/fd" -mindepth 1 -printf "%l\n" | sed -E "s/[0-9]+/#/g" | sort | uniq -c | sort -rn | head -n 100'
# Values of variables that say nothing secret; of all others the name.
# shellcheck disable=SC2016
readonly ENVIRONMENT='tr "\0\n" "\n " <"/proc/$1/environ" | awk -F= "
  /^(NODE_ENV|UV_THREADPOOL_SIZE|TZ|LANG|LC_ALL|RUNTIME_DIRECTORY|MALLOC_ARENA_MAX|HEADRACE_(CONTROL|WORKERS|LOG_LEVEL))=/ { print; next }
  { print \$1 \" (not shown)\" }" | sort'
for pid in "${pids[@]}"; do
  [ -d "/proc/$pid" ] || continue
  for file in status limits io schedstat smaps_rollup cgroup wchan; do collect "process-$pid/$file" cat "/proc/$pid/$file"; done
  collect "process-$pid/descriptors" sh -c "$KINDS" sh "$pid"
  collect "process-$pid/environment" sh -c "$ENVIRONMENT" sh "$pid"
  collect "process-$pid/threads" ps -L -o tid,comm,stat,wchan:24,pcpu,time -p "$pid"
done

if [ -n "$log" ]; then
  collect log tail -n 5000 "$log"
elif command -v journalctl >/dev/null; then
  collect log journalctl --no-pager -n 5000 -u "$unit"
  collect unit systemctl --no-pager -l status "$unit"
fi
[ "$answers" = 1 ] || ask_headrace
if [ "$profile" -gt 0 ] && [ "$answers" = 1 ]; then
  mapfile -t slots < <(of_status 's.workers.map((w) => w.slot)')
  # One at a time is what the server does; each has its seconds beside those of everything else.
  within=$((within + ${#slots[@]} * (profile + 20)))
  for slot in "${slots[@]}"; do
    limit_s=$((profile + 20)) ask "profile/worker-$slot.txt" profile cpu --worker "$slot" --seconds "$profile" --out "$place/worker-$slot.cpuprofile"
  done
fi
[ "$DRY" = 1 ] && exit

archive=$output/$name.tar.gz
tar -C "$folder" -czf "$folder/archive" "$name"
mv "$folder/archive" "$archive"
say "$(wc -c <"$archive") bytes, for your eyes only (0600); the log of your service in it is yours to look through:"
say "$archive"
