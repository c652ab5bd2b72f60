#!/usr/bin/env bash
# Brings the kernel's settings to what 90-headrace.conf says, or says how far they are from it.
#
# Invariants: a value that is better already stays; what was there before is in the state file before anything is
# written, and a second apply does not overwrite it; whatever fails, the state file names exactly what was changed.
set -uo pipefail
# Reasons are read from the messages of failed writes.
export LC_ALL=C

readonly DONE=0 FAILED=1 USAGE=2
readonly NAME=90-headrace.conf
readonly MARK="# Written by headrace's tune.sh persist; tune.sh rollback removes it."
readonly PROC=/proc/sys

here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
command=""
conf="$here/$NAME"
# Not /var/lib/headrace, which systemd gives to the service's user: what root restores must be root's.
state=/var/lib/headrace-tune/sysctl.saved
etc=/etc/sysctl.d
reserve=""
dry=false
json=false

help() {
  cat <<TEXT
Usage: tune.sh check|apply|persist|rollback [options]

  check      compares the kernel's settings with the file; changes nothing
  apply      sets what is worse than in the file, until the next boot; remembers what was there before
  persist    installs the file, with this machine's values, to /etc/sysctl.d: the same at every boot
  rollback   sets what was there before the first apply, and removes what persist has installed

Options:
  --file CONF      settings (default: $NAME beside this script, where each is explained)
  --state FILE     where apply remembers (default: $state)
  --etc DIR        where persist installs (default: $etc)
  --reserve PORTS  more for net.ipv4.ip_local_reserved_ports: 7000,7100-7110 (check, apply, persist)
  --dry-run        says what would be done, and does nothing (apply, persist, rollback)
  --json           as JSON (check)
  -h, --help       this

Exit codes: 0 done, or nothing to do; 1 something is not as the file has it (check), or could not be set; 2 usage.
A setting that this kernel does not have is said and skipped. One that cannot be set here is named, with what to do.

Examples:
  \$ ./tune.sh check
  \$ sudo ./tune.sh apply --dry-run
  \$ sudo ./tune.sh apply --reserve 7000 && sudo ./tune.sh persist --reserve 7000
  \$ sudo ./tune.sh rollback
TEXT
}

usage() {
  echo "tune.sh: $1; see tune.sh --help" >&2
  exit $USAGE
}

fail() {
  echo "tune.sh: $1" >&2
  exit $FAILED
}

# --- the command line -------------------------------------------------------------------------------------------------

while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      help
      exit $DONE
      ;;
    --file | --state | --etc | --reserve)
      if [ $# -lt 2 ] || [ -z "$2" ] || [[ $2 == --* ]]; then usage "$1 needs a value"; fi
      case $1 in
        --file) conf=$2 ;;
        --state) state=$2 ;;
        --etc) etc=$2 ;;
        --reserve) reserve=$2 ;;
      esac
      shift
      ;;
    --dry-run) dry=true ;;
    --json) json=true ;;
    check | apply | persist | rollback)
      [ -z "$command" ] || usage "one command, not both $command and $1"
      command=$1
      ;;
    *) usage "unknown: $1; allowed: check, apply, persist, rollback and options" ;;
  esac
  shift
done
[ -n "$command" ] || usage "no command; allowed: check, apply, persist, rollback"
$json && [ "$command" != check ] && usage "--json is for check"
$dry && [ "$command" = check ] && usage "check changes nothing, with or without --dry-run"
[ -n "$reserve" ] && [ "$command" = rollback ] && usage "--reserve is for check, apply and persist"
if [ -n "$reserve" ]; then
  [[ $reserve =~ ^[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*$ ]] ||
    usage "--reserve $reserve: allowed: ports and ranges, as in 7000,7100-7110"
  for part in ${reserve//,/ }; do
    if [ "${part%-*}" -gt "${part#*-}" ] || [ "${part#*-}" -gt 65535 ] || [ "${part%-*}" -lt 1 ]; then
      usage "--reserve $part: allowed: 1 to 65535, the lower one first"
    fi
  done
fi
if [ ! -f "$conf" ] || [ ! -r "$conf" ]; then usage "--file $conf cannot be read"; fi

# --- values -----------------------------------------------------------------------------------------------------------

# The words of a value with one blank between them: the kernel writes tabs.
plain() {
  local -a words
  read -r -a words <<<"$1" || true
  echo "${words[*]}"
}

# Bytes of memory of the machine; nothing where it cannot be read.
memory_bytes() {
  local word value rest
  while read -r word value rest; do
    [ "$word" = MemTotal: ] && echo $((value * 1024))
  done </proc/meminfo 2>/dev/null
  : "${rest:-}"
}

page_bytes=$(getconf PAGESIZE 2>/dev/null || echo 4096)
memory=$(memory_bytes)

# computed "9% 12% 18%" UNIT: so much of memory, in units of so many bytes. UNIT 0: pages.
computed() {
  local word out="" unit=$2
  [ "$unit" = 0 ] && unit=$page_bytes
  for word in $1; do
    out+=" $((memory * ${word%\%} / 100 / unit))"
  done
  echo "${out# }"
}

# Whether a list of ports, as in 9000-9001,9900, has all from $2 to $3.
ports_have() {
  local port=$2 part first last found
  while [ "$port" -le "$3" ]; do
    found=false
    for part in ${1//,/ }; do
      first=${part%-*} last=${part#*-}
      if [ "$first" -le "$port" ] && [ "$port" -le "$last" ]; then
        port=$((last + 1)) found=true
        break
      fi
    done
    $found || return 1
  done
}

# better RULE FOUND WANTED: what the value is to be: WANTED, or FOUND as far as that is better.
better() {
  local rule=$1 at out="" part
  local -a have want
  read -r -a have <<<"$2"
  read -r -a want <<<"$3"
  case $rule in
    ports)
      out=$2
      for part in ${3//,/ }; do
        ports_have "$out" "${part%-*}" "${part#*-}" || out="${out:+$out,}$part"
      done
      echo "$out"
      return
      ;;
    exact)
      echo "$3"
      return
      ;;
  esac
  # Not the numbers that the rule is about: whoever wrote the file knows better.
  if [ ${#have[@]} -ne ${#want[@]} ] || [[ $2 == *[!0-9\ ]* ]]; then
    echo "$3"
    return
  fi
  for at in "${!want[@]}"; do
    local more=$rule
    if [ "$rule" = range ]; then
      more="at-least"
      if [ "$at" = 0 ]; then more="at-most"; fi
    fi
    if { [ "$more" = at-least ] && [ "${have[$at]}" -gt "${want[$at]}" ]; } ||
      { [ "$more" = at-most ] && [ "${have[$at]}" -lt "${want[$at]}" ]; }; then
      out+=" ${have[$at]}"
    else
      out+=" ${want[$at]}"
    fi
  done
  echo "${out# }"
}

# --- the file ---------------------------------------------------------------------------------------------------------

keys=()
declare -A rule_of wanted_of host_of

# entry KEY VALUE LINE RULE HOST UNIT: one setting of the file; UNIT is empty where the value is no share of memory.
entry() {
  local key=$1 value
  value=$(plain "$2")
  [[ $key =~ ^[a-z][a-z0-9_]*(\.[A-Za-z0-9_-]+)+$ ]] || usage "$conf:$3: $key is no name of a setting"
  [ -z "${rule_of[$key]:-}" ] || usage "$conf:$3: $key is set twice"
  if [ -n "$6" ]; then
    [[ $value =~ ^[0-9]{1,2}%(\ [0-9]{1,2}%)*$ ]] || usage "$conf:$3: $key: allowed: percentages, as in 9% 12% 18%"
    if [ -z "$memory" ]; then
      echo "skipped  $key: the machine's memory cannot be read (/proc/meminfo)" >&2
      return 0
    fi
    value=$(computed "$value" "$6")
  elif [ "$4" = ports ]; then
    [[ $value =~ ^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$ ]] || usage "$conf:$3: $key: allowed: ports and ranges"
  elif [ "$4" = exact ]; then
    [[ $value =~ ^[A-Za-z0-9\ ._:,/+-]+$ ]] || usage "$conf:$3: $key: not a value: $value"
  else
    [[ $value =~ ^[0-9]{1,18}(\ [0-9]{1,18})*$ ]] || usage "$conf:$3: $key: allowed: numbers"
  fi
  [ "$key" = net.ipv4.ip_local_reserved_ports ] && [ -n "$reserve" ] && value=$(better ports "$value" "$reserve")
  keys+=("$key")
  rule_of[$key]=$4 wanted_of[$key]=$value host_of[$key]=$5
}

read_conf() {
  local line at=0 rule=exact host=false unit="" word
  while IFS= read -r line || [ -n "$line" ]; do
    at=$((at + 1))
    if [[ $line =~ ^#:\ *(.*)$ ]]; then
      rule=exact host=false unit=""
      for word in ${BASH_REMATCH[1]}; do
        case $word in
          exact | at-least | at-most | range | ports) rule=$word ;;
          host) host=true ;;
          memory/pages) unit=0 ;;
          memory/[1-9]*) unit=${word#memory/} ;;
          *) usage "$conf:$at: $word; allowed: exact, at-least, at-most, range, ports, host, memory/N, memory/pages" ;;
        esac
      done
      [[ $unit =~ ^[0-9]*$ ]] || usage "$conf:$at: memory/$unit; allowed: a number of bytes, or pages"
    elif [[ $line =~ ^(#=|-)?\ *([^#\;=\ ]+)\ *=\ *(.*)$ ]]; then
      [ "${BASH_REMATCH[1]}" != "#=" ] || [ -n "$unit" ] || usage "$conf:$at: a line with #= needs memory/N above it"
      entry "${BASH_REMATCH[2]}" "${BASH_REMATCH[3]}" "$at" "$rule" "$host" "$unit"
      rule=exact host=false unit=""
    elif [[ ! $line =~ ^\ *([#\;]|$) ]]; then
      usage "$conf:$at: neither a comment nor KEY = VALUE: $line"
    fi
  done <"$conf"
  [ ${#keys[@]} -gt 0 ] || usage "$conf has no settings"
}

# --- the kernel -------------------------------------------------------------------------------------------------------

path_of() { echo "$PROC/${1//.//}"; }

# found KEY: its value; fails where there is none, or it cannot be read.
found() {
  local value
  value=$(cat "$(path_of "$1")" 2>/dev/null) || return 1
  plain "$value"
}

# Opens it for writing and writes nothing. Says the error.
try_open() { { : >>"$(path_of "$1")"; } 2>&1; }

# write KEY VALUE: says the error.
write() { { printf '%s\n' "$2" >"$(path_of "$1")"; } 2>&1; }

# What kind of container this is; nothing where it seems to be none.
container() {
  if [[ ${AWS_EXECUTION_ENV:-} == *FARGATE* ]]; then
    echo fargate
  elif [ -n "${KUBERNETES_SERVICE_HOST:-}" ] || [ -e /var/run/secrets/kubernetes.io ]; then
    echo kubernetes
  elif [ -e /.dockerenv ] || [ -e /run/.containerenv ]; then
    echo docker
  elif [ -n "${container:-}" ]; then
    echo other
  fi
}

# instead KEY VALUE: what to do where it cannot be set from here.
instead() {
  local where
  where=$(container)
  if ${host_of[$1]}; then
    case $where in
      fargate) echo "Fargate fixes it: there is no way to change it" ;;
      kubernetes) echo "it is the node's: run tune.sh there" ;;
      *) echo "it is the host's: run tune.sh there, not in a container" ;;
    esac
    return
  fi
  case $where in
    fargate) echo "in the task definition: systemControls: namespace $1, value \"$2\" (platform 1.4.0 or later)" ;;
    kubernetes) echo "in the pod: securityContext.sysctls: name: $1, value: \"$2\" (most need the kubelet's --allowed-unsafe-sysctls)" ;;
    docker) echo "when the container is started: docker run --sysctl $1=\"$2\"" ;;
    *) echo "on the host; for a container when it is started: docker run --sysctl $1=\"$2\", Kubernetes securityContext.sysctls, Fargate systemControls" ;;
  esac
}

# why KEY VALUE ERROR: one line, why it was not set and what to do.
why() {
  case $3 in
    *"Read-only file system"*) echo "/proc/sys is read-only here; $(instead "$1" "$2")" ;;
    *"Invalid argument"*) echo "the kernel refuses the value $2" ;;
    *"Permission denied"* | *"Operation not permitted"*)
      if [ "$EUID" -ne 0 ]; then
        echo "only root may: sudo $0 $command"
      else
        echo "it is fixed in this namespace; $(instead "$1" "$2")"
      fi
      ;;
    *) echo "${3##*: }" ;;
  esac
}

# --- what is to be done -----------------------------------------------------------------------------------------------

declare -A found_of target_of
absent=()
worse=()

compare() {
  local key value
  for key in "${keys[@]}"; do
    if ! value=$(found "$key"); then
      absent+=("$key")
      continue
    fi
    found_of[$key]=$value
    target_of[$key]=$(better "${rule_of[$key]}" "$value" "${wanted_of[$key]}")
    [ "${target_of[$key]}" = "$value" ] || worse+=("$key")
  done
}

say_absent() {
  local key
  for key in "${absent[@]}"; do
    echo "skipped  $key: $(why_absent "$key")"
  done
}

why_absent() {
  if [ -e "$(path_of "$1")" ]; then
    echo "it cannot be read"
  elif ${host_of[$1]} && [[ $1 == net.* ]]; then
    echo "not here: its module is not loaded, or it is the host's and this is a container"
  else
    echo "not in this kernel, or its module is not loaded"
  fi
}

quoted() {
  local text=${1//\\/\\\\}
  printf '"%s"' "${text//\"/\\\"}"
}

check_json() {
  local key error mark="" have
  printf '{"file":%s,"keys":[' "$(quoted "$conf")"
  for key in "${keys[@]}"; do
    printf '%s\n{"key":%s,"rule":"%s","host":%s,' "$mark" "$(quoted "$key")" "${rule_of[$key]}" "${host_of[$key]}"
    mark=,
    have=${found_of[$key]-}
    if [ -z "${target_of[$key]+x}" ]; then
      printf '"found":null,"wanted":%s,"state":"absent","why":%s}' \
        "$(quoted "${wanted_of[$key]}")" "$(quoted "$(why_absent "$key")")"
    elif [ "${target_of[$key]}" = "$have" ]; then
      printf '"found":%s,"wanted":%s,"state":"ok"}' "$(quoted "$have")" "$(quoted "${target_of[$key]}")"
    else
      printf '"found":%s,"wanted":%s,"state":"worse"' "$(quoted "$have")" "$(quoted "${target_of[$key]}")"
      error=$(try_open "$key") || printf ',"why":%s' "$(quoted "$(why "$key" "${target_of[$key]}" "$error")")"
      printf '}'
    fi
  done
  printf '\n],"worse":%d}\n' "${#worse[@]}"
}

check_text() {
  local key error
  for key in "${keys[@]}"; do
    [ -n "${target_of[$key]+x}" ] || continue
    if [ "${target_of[$key]}" = "${found_of[$key]}" ]; then
      printf 'ok       %s: %s\n' "$key" "${found_of[$key]:-none}"
    else
      printf 'worse    %s: %s, wanted %s\n' "$key" "${found_of[$key]:-none}" "${target_of[$key]}"
      error=$(try_open "$key") || printf '         %s\n' "$(why "$key" "${target_of[$key]}" "$error")"
    fi
  done
  say_absent
  if [ ${#worse[@]} -eq 0 ]; then
    echo "nothing to do"
  else
    echo "${#worse[@]} of ${#keys[@]} are worse than in $conf: sudo $0 apply"
  fi
}

# --- what was there before --------------------------------------------------------------------------------------------

saved_keys=()
declare -A saved_of

read_state() {
  local line
  if [ ! -e "$state" ]; then
    local folder
    folder=$(dirname "$state")
    if [ -d "$folder" ] && [ ! -x "$folder" ]; then fail "the state file $state cannot be read: sudo $0 $command"; fi
    return 0
  fi
  [ -r "$state" ] || fail "the state file $state cannot be read: sudo $0 $command"
  # Whoever can write it could have root set anything.
  [ -O "$state" ] || fail "the state file $state belongs to somebody else: it is not trusted"
  while IFS= read -r line; do
    if [[ $line =~ ^([a-z][A-Za-z0-9_.-]*)\ =\ ?(.*)$ ]]; then
      saved_keys+=("${BASH_REMATCH[1]}")
      saved_of[${BASH_REMATCH[1]}]=${BASH_REMATCH[2]}
    elif [[ $line != "#"* ]]; then
      fail "the state file $state is damaged: $line"
    fi
  done <"$state"
}

# Replaces the state file as one; removes it when nothing is left to restore.
write_state() {
  local key folder new="" text
  folder=$(dirname "$state")
  if [ ${#saved_keys[@]} -eq 0 ]; then
    rm -f "$state"
    return
  fi
  text="# What was there before headrace's tune.sh apply. tune.sh rollback restores it."
  for key in "${saved_keys[@]}"; do
    text+=$'\n'"$key = ${saved_of[$key]}"
  done
  (
    umask 077
    mkdir -p "$folder" && new=$(mktemp "$state.XXXXXX") && printf '%s\n' "$text" >"$new" && mv -f "$new" "$state" && exit
    # Where the disk is full, say.
    [ -z "$new" ] || rm -f "$new"
    exit 1
  ) 2>/dev/null
}

forget() {
  local key
  local -a rest=()
  for key in "${saved_keys[@]}"; do
    [ "$key" = "$1" ] || rest+=("$key")
  done
  saved_keys=("${rest[@]}")
  unset "saved_of[$1]"
}

# --- commands ---------------------------------------------------------------------------------------------------------

apply() {
  local key error failed=0 set=0
  local -a writable=() fresh=()
  read_state
  say_absent
  for key in "${worse[@]}"; do
    if ! error=$(try_open "$key"); then
      echo "not set  $key: $(why "$key" "${target_of[$key]}" "$error")" >&2
      failed=$((failed + 1))
    elif $dry; then
      echo "would set $key: ${found_of[$key]:-none} -> ${target_of[$key]}"
    else
      writable+=("$key")
      [ -n "${saved_of[$key]+x}" ] || fresh+=("$key")
    fi
  done
  for key in "${fresh[@]}"; do
    saved_keys+=("$key")
    saved_of[$key]=${found_of[$key]}
  done
  if [ ${#fresh[@]} -gt 0 ]; then
    write_state || fail "what is there now cannot be remembered in $state, so nothing was changed; try --state FILE"
  fi
  for key in "${writable[@]}"; do
    error=$(write "$key" "${target_of[$key]}")
    if [ "$(better "${rule_of[$key]}" "$(found "$key")" "${target_of[$key]}")" = "$(found "$key")" ]; then
      echo "set      $key: ${found_of[$key]:-none} -> $(found "$key")"
      set=$((set + 1))
      continue
    fi
    echo "not set  $key: $(why "$key" "${target_of[$key]}" "${error:-: the kernel took another value}")" >&2
    failed=$((failed + 1))
    # Unchanged, so there is nothing of it to restore.
    if [[ " ${fresh[*]} " == *" $key "* ]] && [ "$(found "$key")" = "${found_of[$key]}" ]; then forget "$key"; fi
  done
  [ ${#fresh[@]} -eq 0 ] || write_state || fail "the state file $state could not be written again"
  if [ $failed -gt 0 ]; then
    echo "$failed could not be set" >&2
    return $FAILED
  fi
  if [ ${#worse[@]} -eq 0 ]; then echo "nothing to do"; fi
  if [ $set -gt 0 ]; then echo "until the next boot; for longer: sudo $0 persist"; fi
  return $DONE
}

# The file with this machine's values in it, comments and all.
rendered() {
  local line key
  echo "$MARK"
  while IFS= read -r line || [ -n "$line" ]; do
    if [[ ! $line =~ ^#: ]] && [[ $line =~ ^(#=|-)?\ *([^#\;=\ ]+)\ *=\ * ]]; then
      key=${BASH_REMATCH[2]}
      if [ -n "${target_of[$key]+x}" ]; then
        echo "$key = ${target_of[$key]}"
      else
        echo "# $key: $(why_absent "$key")"
      fi
    else
      echo "$line"
    fi
  done <"$conf"
}

# Whether the file is ours to replace or remove.
ours() {
  local first=""
  IFS= read -r first <"$1" || true
  [ "$first" = "$MARK" ]
}

persist() {
  local target=$etc/$NAME text new
  say_absent
  text=$(rendered)
  if [ -e "$target" ]; then
    [ -r "$target" ] || fail "$target cannot be read"
    ours "$target" || fail "$target was not written by tune.sh: move it away first"
    if [ "$text" = "$(cat "$target")" ]; then
      echo "nothing to do"
      return $DONE
    fi
  fi
  if $dry; then
    echo "would install $target:"
    grep -v -e '^#' -e '^$' <<<"$text"
    return $DONE
  fi
  if ! { mkdir -p "$etc" && new=$(mktemp "$target.XXXXXX") && printf '%s\n' "$text" >"$new" && chmod 0644 "$new" &&
    mv -f "$new" "$target"; } 2>/dev/null; then
    [ -z "${new:-}" ] || rm -f "$new"
    if [ "$EUID" -ne 0 ]; then fail "$target could not be written: sudo $0 persist"; fi
    fail "$target could not be written; is the disk full, or read-only?"
  fi
  echo "installed $target"
}

rollback() {
  local key error failed=0 target=$etc/$NAME did=false
  local -a again
  read_state
  again=("${saved_keys[@]}")
  for key in "${again[@]}"; do
    did=true
    if $dry; then
      echo "would restore $key: $(found "$key") -> ${saved_of[$key]:-none}"
      continue
    fi
    : "${host_of[$key]:=false}"
    error=$(write "$key" "${saved_of[$key]}")
    if [ "$(found "$key")" = "${saved_of[$key]}" ]; then
      echo "restored $key: ${saved_of[$key]:-none}"
      forget "$key"
    else
      echo "not restored $key: $(why "$key" "${saved_of[$key]}" "${error:-: the kernel took another value}")" >&2
      failed=$((failed + 1))
    fi
  done
  if ! $dry && $did; then
    write_state || fail "the state file $state could not be written again"
  fi
  if [ -e "$target" ] && ours "$target"; then
    did=true
    if $dry; then
      echo "would remove $target"
    elif rm -f "$target" 2>/dev/null; then
      echo "removed $target"
    else
      echo "not removed $target" >&2
      failed=$((failed + 1))
    fi
  fi
  $did || echo "nothing to do"
  [ $failed -eq 0 ] || return $FAILED
}

read_conf
# Two at a time would remember each other's values as those that were there before, whatever files they were given.
if [ "$command" != check ] && ! $dry && command -v flock >/dev/null; then
  exec {lock}<"$PROC"
  flock -w 10 "$lock" || fail "another tune.sh is at work"
fi
[ "$command" = rollback ] || compare
case $command in
  check)
    if $json; then check_json; else check_text; fi
    [ ${#worse[@]} -eq 0 ] || exit $FAILED
    ;;
  *) "$command" ;;
esac
