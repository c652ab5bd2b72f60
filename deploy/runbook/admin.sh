#!/usr/bin/env bash
# admin.sh - ask the admin server, without its token on a command line or in a history.
#
# Usage: admin.sh [--delete | --put JSON] [--control PATH] [--admin HOST:PORT] [--token-file FILE]
#                 [--within SECONDS] [--dry-run] PATH
#
#   PATH               /metrics, /status, /readyz, '/connections?sort=buffered&limit=20', /closed, '/profile/heap?worker=0', …
#   --delete           DELETE instead of GET: /connections/ID ends a connection
#   --put JSON         PUT instead of GET: /log-level '{"level":"debug"}'
#   --control PATH     the server's control socket (default: HEADRACE_CONTROL, else the runtime directory)
#   --admin HOST:PORT  where it is (default: HEADRACE_ADMIN, else where the server says, else 127.0.0.1:9900)
#   --token-file FILE  its token (default: HEADRACE_ADMIN_TOKEN, else the file that this server keeps beside its control socket)
#   --within SECONDS   how long it may take (default 150: a profile waits for its own time)
#   --dry-run          say what would be asked
#
# While the server does not answer on its control socket and --admin is not given, 127.0.0.1:9900 is a guess: it is asked
# without a token, which is enough for /readyz.
# Exit codes: 0 done, 1 failed or refused (the answer is on stderr), 2 usage, 3 no admin server answers.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib.sh"

method=GET body="" path="" file="" within=150
admin=${HEADRACE_ADMIN:-}
while [ $# -gt 0 ]; do
  case $1 in
    --delete) method=DELETE ;;
    --put) method=PUT; body=$(value "$@") || exit; shift ;;
    --control) CONTROL=$(value "$@") || exit; shift ;;
    --admin) admin=$(value "$@") || exit; shift ;;
    --token-file) file=$(value "$@") || exit; shift ;;
    --within) within=$(value "$@") || exit; shift ;;
    --dry-run) DRY=1 ;;
    -h | --help) show_help; exit ;;
    -*) misused "unknown option '$1'" ;;
    *) [ -z "$path" ] || misused "one path, not '$path' and '$1'"; path=$1 ;;
  esac
  shift
done
[[ $path = /* ]] || misused "which path? /metrics, /status, /connections, …"
whole --within "$within" 1 3600
find_headrace
# Which server this is: its token is the file beside its own control socket, and no other server's.
control="" guessed=0
if [ -z "$admin" ] || { [ -z "$file" ] && [ -z "${HEADRACE_ADMIN_TOKEN:-}" ]; }; then
  if read_status; then
    control=$(of_status s.control)
    if [ -z "$admin" ]; then admin=$(of_status 's.admin ?? ""'); fi
    [ -n "$admin" ] || die "$EXIT_UNREACHABLE" "this server has no admin server (admin.address)"
  elif [ -z "$admin" ]; then
    guessed=1
    admin=127.0.0.1:9900
    warn "no server answers: $STATUS"
    warn "$admin is a guess, and is asked without a token; --admin says where it is"
  fi
fi
# An address for everybody is asked on this machine.
admin=${admin/#0.0.0.0:/127.0.0.1:}
admin=${admin/#\[::\]:/[::1]:}

if [ "$guessed" = 1 ]; then
  # Whoever listens there may be somebody else.
  file=""
  unset HEADRACE_ADMIN_TOKEN
elif [ -z "$file" ] && [ -z "${HEADRACE_ADMIN_TOKEN:-}" ]; then
  control=${control:-${CONTROL:-${HEADRACE_CONTROL:-}}}
  if [ -n "$control" ]; then
    file=$(token_beside "$control")
  else
    for folder in "${RUNTIME_DIRECTORY:-}" "${XDG_RUNTIME_DIR:+$XDG_RUNTIME_DIR/headrace}" /run/headrace "/tmp/headrace-$(id -u)"; do
      if [ -n "$folder" ] && [ -r "$folder/admin-token" ]; then file=$folder/admin-token; break; fi
    done
  fi
  # A token of the configuration is in no file.
  [ -e "$file" ] || file=""
fi
[ -z "$file" ] || [ -r "$file" ] || die "$EXIT_FAILED" "the token file $file cannot be read by this user"
if [ "$DRY" = 1 ]; then
  say "would ask: $method http://$admin$path${file:+ with the token of $file}"
  exit
fi
# shellcheck disable=SC2016 # JavaScript's own
METHOD=$method BODY=$body TOKEN_FILE=$file URL="http://$admin$path" WITHIN=$within exec node -e '
  const { METHOD: method, BODY: body, TOKEN_FILE: file, URL: url, WITHIN: within } = process.env;
  const fail = (code, why) => { console.error(`admin.sh: ${why}`); process.exitCode = code; };
  const token = file ? require("node:fs").readFileSync(file, "utf8").trim() : process.env.HEADRACE_ADMIN_TOKEN;
  const headers = { ...(token ? { authorization: `Bearer ${token}` } : {}), ...(body ? { "content-type": "application/json" } : {}) };
  const host = new URL(url).host;
  const request = require("node:http").request(url, { method, headers, agent: false, signal: AbortSignal.timeout(within * 1000) });
  // An answer that breaks off is no answer, and is said to be none.
  request.on("error", (error) => {
    fail(3, error.name === "AbortError" ? `no answer from ${host} within ${within} s` : `no admin server answers at ${host}: ${error.message}`);
  });
  request.on("response", (answer) => {
    answer.on("error", (error) => fail(1, `the answer of ${host} broke off: ${error.message}`));
    if (answer.statusCode < 300) {
      // Piece by piece: a heap snapshot is large.
      answer.pipe(process.stdout);
      return;
    }
    let text = "";
    answer.on("data", (piece) => { if (text.length < 1000) text += piece; });
    answer.on("end", () => fail(1, `${answer.statusCode} ${text.slice(0, 1000)}`));
  });
  process.stdout.on("error", (error) => process.exit(error.code === "EPIPE" ? 0 : 1));
  request.end(body || undefined);'
