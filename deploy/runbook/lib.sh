# shellcheck shell=bash
# What the scripts of this folder share; they source it. Invariant: nothing here changes the server or the machine, and
# every question to the server has a deadline, so that a script also ends when the server hangs or is not there.

# Exit codes of all scripts. `headrace` itself has the same 1, 2 and 75.
readonly EXIT_FAILED=1 EXIT_USAGE=2 EXIT_UNREACHABLE=3 EXIT_BUSY=75
export EXIT_FAILED EXIT_USAGE EXIT_UNREACHABLE EXIT_BUSY

SELF=${0##*/}
HERE=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# Handed on to `headrace` as it is; empty: headrace finds it itself (HEADRACE_CONTROL, the runtime directory).
CONTROL=""
# 1: say what would be done, do nothing.
DRY=0

say() { printf '%s\n' "$*"; }
warn() { printf '%s: %s\n' "$SELF" "$*" >&2; }
# die CODE WORDS...
die() { local code=$1; shift; warn "$*"; exit "$code"; }
misused() { die "$EXIT_USAGE" "$*; see $SELF --help"; }

# The script's own header is its help: its comment from the second line to the first that is none.
show_help() { sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"; }

# An option's value, or the error that there is none: value "$@"
value() {
  if [ $# -lt 2 ] || [ -z "$2" ]; then misused "$1 needs a value"; fi
  printf '%s' "$2"
}

# whole NAME VALUE LEAST MOST: refuses what is no whole number in these bounds.
whole() {
  if ! [[ $2 =~ ^[0-9]{1,9}$ ]] || [ "$2" -lt "$3" ] || [ "$2" -gt "$4" ]; then
    misused "$1 is a whole number from $3 to $4, not '$2'"
  fi
}

# The command of the release that this folder belongs to, by its real path: it stays the same while a link is switched.
find_headrace() {
  command -v node >/dev/null || die "$EXIT_FAILED" "node is not in PATH ($PATH)"
  if [ -f "$HERE/../../dist/cli/main.js" ]; then
    HEADRACE=(node "$(readlink -f "$HERE/../../dist/cli/main.js")")
  elif command -v headrace >/dev/null; then
    HEADRACE=(headrace)
  else
    die "$EXIT_FAILED" "headrace is neither beside this folder ($HERE/../../dist) nor in PATH"
  fi
}

# headrace_within SECONDS ARGS...: one command, with a deadline.
headrace_within() {
  local seconds=$1
  shift
  if [ -n "$CONTROL" ]; then set -- "$@" --control "$CONTROL"; fi
  timeout --kill-after=2 "$seconds" "${HEADRACE[@]}" "$@"
}

# read_status: sets STATUS to what `headrace status --json` says. Fails, with its reason in STATUS, when nobody answers.
# Longer than the 10 s after which headrace itself says that a server which is there gave no answer: it hangs.
readonly ASK_S=15
read_status() { STATUS=$(headrace_within "$ASK_S" status --json 2>&1); }

need_status() { read_status || die "$EXIT_UNREACHABLE" "no server answers; nothing was changed: $STATUS"; }

# of_status EXPRESSION: what the expression of JavaScript makes of STATUS (`s` in it); lists come as lines.
of_status() {
  # shellcheck disable=SC2016 # JavaScript's own
  node -e '
    const s = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
    const found = new Function("s", `return ${process.argv[1]}`)(s);
    console.log([found].flat().map((each) => each ?? "").join("\n"));' "$1" <<<"$STATUS"
}

# source_of: the absolute path of the configuration file that the server of STATUS was started with; nothing when it has
# none. A relative one is looked up where the server's process is, not here.
source_of() {
  local source
  source=$(of_status s.source)
  [[ $source = /* ]] || source=$(readlink "/proc/$(of_status s.pid)/cwd")/$source
  [ ! -f "$source" ] || printf '%s' "$source"
}

# token_beside CONTROL: where the server with this control socket keeps its generated admin token.
token_beside() {
  if [ "${1##*/}" = control.sock ]; then printf '%s' "${1%control.sock}admin-token"; else printf '%s' "$1.admin-token"; fi
}

# Waits until the server's last change is over, at most SECONDS; STATUS is then what it was last.
settle() {
  local until=$((SECONDS + $1))
  while [ "$SECONDS" -lt "$until" ]; do
    if read_status && [ "$(of_status 's.lastChange?.outcome ?? "none"')" != running ]; then return 0; fi
    sleep 0.5
  done
  return 1
}

# One line for people about STATUS.
summary() {
  # shellcheck disable=SC2016 # JavaScript's own
  of_status '`headrace ${s.version}, generation ${s.generation}, configuration ${s.configVersion}, ${s.state}, health ${s.health}, ` +
    `${s.workers.filter((w) => w.state === "accepting").length} workers accept, ${s.totals.open} connections`'
}

# Runs what changes something, or says what it would be.
act() {
  if [ "$DRY" = 1 ]; then
    say "would run: $*"
  else
    "$@"
  fi
}
