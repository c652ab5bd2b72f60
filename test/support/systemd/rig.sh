#!/bin/bash
# rig.sh - boot a REAL, throw-away systemd (the system manager, as PID 1) on a machine that need not run one.
#
#   rig.sh start              boot; returns when the boot is finished (about 0.3 s); 0 = running (or degraded: listed)
#   rig.sh hold               start, stay until the input is closed, then stop: nothing is left of it whatever
#                             becomes of the caller.  Prints one line when it has booted.
#   rig.sh exec CMD [ARG...]  run CMD inside as root (same cwd if it exists there; VAR=x CMD works; rc is passed on;
#                             CMD dies with this process: what must outlive it belongs in a unit, or systemd-run)
#   rig.sh put SRC... DIR     copy files/directories from the machine into the rig's DIR (created)
#   rig.sh status             running/degraded/... ; exit 3 when there is no rig
#   rig.sh stop               kill everything inside, remove every trace (also after a half-failed start; idempotent)
#
# The rig: own mount, PID, UTS, IPC, cgroup and (by default) network namespaces; root = overlay of the machine's /
# with a tmpfs on top, so the machine's programs (node, the project, ...) are all there, and everything written,
# installed or enabled inside is gone after stop.  /proc/sys is read-only there except net.*; /sys is read-only.
# Nothing is installed on the machine: packages that are missing (systemd itself) are installed into the overlay.
# Only / is in the overlay, and /tmp and /run are fresh: what lives in /tmp, /run or on another mount (findmnt), or
# is edited while the rig is up, must be named in RIG_BIND or copied in with put.  Not a security boundary: the
# rig's root is the machine's root.  cgroup limits (MemoryMax, TasksMax, CPUQuota) do nothing where the machine
# keeps the controllers in cgroup v1.  Needs root and a cgroup2 mount.
#
#   RIG_NAME=rig        several rigs can run side by side under different names
#   RIG_NET=private     private: own network namespace with only lo (127.0.0.1, ::1); host: share the machine's
#   RIG_BIND="P..."     files and directories shared live, read-only (absolute paths, no blanks); SRC=DST puts SRC
#                       elsewhere in the rig
#   RIG_BIND_RW="P..."  the same, writable: the only way to write to the machine from inside
#   RIG_APT="PKG..."    Debian packages to install inside before the boot (nothing reaches the machine)
#   RIG_SYSTEMD=SUITE   empty: the machine's systemd (252 on Debian 12); bookworm-backports: 254; trixie: 257
#   RIG_LOG=info        systemd's own log level (debug: state changes, notify messages), in the rig's journal
#   RIG_MASK="U..."     further units to mask
#   RIG_TIMEOUT=30      seconds allowed for the boot
set -u
NAME=${RIG_NAME:-rig}
SELF=$(readlink -f "${BASH_SOURCE[0]}")
STATE=/run/sdrig-$NAME                       # on the machine: mount point, pid, log; removed by stop
SAFEPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
MASK="systemd-udevd.service systemd-udevd-kernel.socket systemd-udevd-control.socket systemd-udev-trigger.service
 systemd-logind.service systemd-modules-load.service systemd-sysctl.service systemd-update-utmp.service
 systemd-random-seed.service systemd-tmpfiles-clean.timer systemd-binfmt.service systemd-hwdb-update.service
 kmod-static-nodes.service modprobe@.service modprobe@configfs.service modprobe@dm_mod.service modprobe@fuse.service
 modprobe@loop.service modprobe@drm.service modprobe@efi_pstore.service proc-sys-fs-binfmt_misc.automount
 sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount
 dev-hugepages.mount apparmor.service getty.target getty-static.service systemd-ask-password-wall.path
 systemd-ask-password-console.path systemd-user-sessions.service systemd-update-utmp-runlevel.service
 networking.service systemd-journald-audit.socket"
die() { echo "rig: $*" >&2; exit 1; }

### inside, 1: PID 1 of the new PID namespace, still on the machine's network: build the root, add packages
init1() {
  set -e
  exec 2>&1
  mount --make-rprivate /
  local M=$STATE/mnt R=$STATE/mnt/root d n a b
  mount -n -t tmpfs -o mode=755 rig "$M"                      # -n: libmount would leave /run/mount on the machine
  mkdir "$M/up" "$M/work" "$R"
  mount -n -t overlay -o "lowerdir=/,upperdir=$M/up,workdir=$M/work" overlay "$R"
  mount -n -t proc -o nosuid,nodev,noexec proc "$R/proc"
  mount -n -t tmpfs -o mode=755,nosuid dev "$R/dev"
  for d in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
    IFS=: read -r n a b <<<"$d"; mknod -m 666 "$R/dev/$n" c "$a" "$b"
  done
  mkdir "$R/dev/pts" "$R/dev/shm" "$R/dev/mqueue"
  mount -n -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$R/dev/pts"
  mount -n -t tmpfs -o mode=1777,nosuid,nodev shm "$R/dev/shm"
  ln -s pts/ptmx "$R/dev/ptmx"; ln -s /proc/self/fd "$R/dev/fd"
  ln -s fd/0 "$R/dev/stdin"; ln -s fd/1 "$R/dev/stdout"; ln -s fd/2 "$R/dev/stderr"
  mount -n -t tmpfs -o mode=755,nosuid,nodev run "$R/run"
  mount -n -t tmpfs -o mode=1777,nosuid,nodev tmp "$R/tmp"
  # packages, into the overlay only
  local pk="${RIG_APT:-}" tgt=() list
  [ -x /lib/systemd/systemd ] || pk="$pk systemd"
  [ -e /lib/systemd/system/dbus.service ] || pk="$pk dbus"            # systemd-run, and systemctl as another user, need it
  if [ -n "${RIG_SYSTEMD:-}" ]; then
    list=$R/etc/apt/sources.list.d/rig.list
    local uri
    # shellcheck disable=SC2016
    uri=$(chroot "$R" apt-get indextargets --format '$(REPO_URI) $(RELEASE)' | awk '$2=="bookworm"{print $1; exit}')
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $RIG_SYSTEMD main" >"$list"
    pk="$pk systemd"; tgt=(-t "$RIG_SYSTEMD")
  fi
  if [ -n "${pk// }" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$R/usr/sbin/policy-rc.d"; chmod 755 "$R/usr/sbin/policy-rc.d"   # start no daemons
    export DEBIAN_FRONTEND=noninteractive
    chroot "$R" apt-get -qq update
    # shellcheck disable=SC2086
    chroot "$R" apt-get -qq -y --no-install-recommends -o Dpkg::Options::=--force-confold "${tgt[@]}" install $pk
    rm -f "$R/usr/sbin/policy-rc.d"
  fi
  # now into the rig's own cgroup, and the namespaces that must be made after that
  echo $$ >"$(cat "$STATE/cgroup")/payload/cgroup.procs"
  local net=--net; [ "$RIG_NET" = host ] && net=
  exec unshare --cgroup $net -- /bin/bash "$SELF" __init2
}

share() { # SRC DST
  if [ -d "$1" ]; then mkdir -p "$2"; else mkdir -p "${2%/*}"; [ -e "$2" ] || touch "$2"; fi
  mount -n --bind "$1" "$2"
}

### inside, 2: the rest of the mounts, a known minimal configuration, then systemd
init2() {
  set -e
  local R=$STATE/mnt/root b g u
  mount -n --bind "$R/proc/sys" "$R/proc/sys"
  [ "$RIG_NET" = host ] || mount -n --bind "$R/proc/sys/net" "$R/proc/sys/net"
  mount -n -o remount,bind,ro "$R/proc/sys"
  b=$R/proc/sysrq-trigger; if [ -e "$b" ]; then mount -n --bind "$b" "$b"; mount -n -o remount,bind,ro "$b"; fi
  mount -n -t sysfs -o ro,nosuid,nodev,noexec sysfs "$R/sys"
  mount -n -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$R/sys/fs/cgroup"
  for b in $RIG_BIND;    do share "${b%%=*}" "$R${b#*=}"; mount -n -o remount,bind,ro "$R${b#*=}"; done
  for b in $RIG_BIND_RW; do share "${b%%=*}" "$R${b#*=}"; done
  cd "$R"
  rm -rf etc/systemd/system etc/systemd/*.conf.d etc/tmpfiles.d var/log/journal etc/fstab
  mkdir -p etc/systemd/{system,system-generators,journald.conf.d} etc/tmpfiles.d
  for g in lib/systemd/system-generators/* usr/local/lib/systemd/system-generators/*; do
    if [ -e "$g" ]; then ln -sf /dev/null "etc/systemd/system-generators/${g##*/}"; fi
  done
  ln -s /dev/null etc/tmpfiles.d/tmp.conf; ln -s /dev/null etc/tmpfiles.d/x11.conf    # these would empty /tmp
  for u in $MASK $RIG_MASK; do ln -sf /dev/null "etc/systemd/system/$u"; done
  printf '[Journal]\nStorage=volatile\nAudit=no\nRateLimitIntervalSec=0\nReadKMsg=no\n' >etc/systemd/journald.conf.d/rig.conf
  echo "$NAME" >etc/hostname
  echo 5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d >etc/machine-id       # present = not a "first boot" (no preset-all)
  pivot_root . .
  umount -n -l .
  mount -n --make-rshared /
  cd /
  exec env -i container=rig PATH=$SAFEPATH LANG=C.UTF-8 \
    /lib/systemd/systemd --system --unit=multi-user.target --show-status=0 --log-level="$RIG_LOG" </dev/null
}

### outside
alive() { local p s; p=$(cat "$STATE/pid" 2>/dev/null) && s=$(cat "$STATE/start" 2>/dev/null) &&
          [ "$(cut -d' ' -f22 "/proc/$p/stat" 2>/dev/null)" = "$s" ]; }

# Run in the rig's namespaces, in a cgroup of the rig that systemd does not manage; if this process is killed, so is CMD.
# own session when there is no terminal, so that a "kill 0" inside cannot reach the caller's process group.
# shellcheck disable=SC2016
nsargs() { local own=(setsid --wait); [ -t 0 ] && own=()
  E=(nsenter -t "$(cat "$STATE/pid")" -m -u -i -n -p -C -r -w -- setpriv --pdeathsig KILL "${own[@]}"
     env -i container=rig HOME=/root USER=root LOGNAME=root TERM="${TERM:-dumb}" LANG=C.UTF-8 PATH="$SAFEPATH" SYSTEMD_PAGER=
     /bin/sh -c 'cd "$1" 2>/dev/null || cd /; shift; exec env "$@"' sh "$PWD")
}
join() { echo $BASHPID >"$(cat "$STATE/cgroup")/payload/rig-exec/cgroup.procs"; }
enter() { nsargs; ( join; exec "${E[@]}" "$@" ); }

start() {
  [ "$(id -u)" = 0 ] || die "needs root"
  [ -e "$STATE" ] && die "$STATE exists: a rig of this name runs, or is left from a failed start (rig.sh stop)"
  local root CG up i p s t0; t0=$(date +%s%N)
  root=$(awk '$3=="cgroup2"{print $2; exit}' /proc/mounts); [ -n "$root" ] || die "no cgroup2 mount on this machine"
  CG=$root/sdrig-$NAME
  mkdir "$STATE" || die "cannot make $STATE"
  mkdir -p "$STATE/mnt" "$CG/sup" "$CG/payload/rig-exec" || die "cannot make $CG"
  echo "$CG" >"$STATE/cgroup"
  export RIG_NAME=$NAME RIG_NET=${RIG_NET:-private} RIG_BIND=${RIG_BIND:-} RIG_BIND_RW=${RIG_BIND_RW:-} \
         RIG_MASK=${RIG_MASK:-} RIG_LOG=${RIG_LOG:-info}
  ( echo $BASHPID >"$CG/sup/cgroup.procs" || exit 1
    exec setsid unshare --mount --pid --fork --kill-child --uts --ipc -- /bin/bash "$SELF" __init1
  ) </dev/null >"$STATE/log" 2>&1 &
  up=$!
  for ((i = 0; ; i++)); do
    p=$(cat /proc/$up/task/$up/children 2>/dev/null); p=${p%% *}
    [ -n "$p" ] && case $(cat "/proc/$p/comm" 2>/dev/null) in systemd) break;; esac
    if ! kill -0 $up 2>/dev/null || ((i > 12000)); then cat "$STATE/log" >&2; stop; die "could not start"; fi
    sleep 0.02
  done
  echo "$p" >"$STATE/pid"; cut -d' ' -f22 "/proc/$p/stat" >"$STATE/start"
  for ((i = 0; i < ${RIG_TIMEOUT:-30} * 25; i++)); do
    alive || { cat "$STATE/log" >&2; stop; die "systemd died"; }
    s=$(enter systemctl is-system-running 2>/dev/null)
    case $s in running|degraded) break;; esac
    sleep 0.04
  done
  echo "rig $NAME: $s, $(enter systemctl --version | head -1), pid $p, $(( ($(date +%s%N) - t0) / 1000000 )) ms"
  case $s in running) return 0;; degraded) enter systemctl --failed; return 0;; *) return 1;; esac
}

stop() {
  [ -e "$STATE" ] || return 0
  local CG i; CG=$(cat "$STATE/cgroup" 2>/dev/null)
  if [ -n "$CG" ] && [ -d "$CG" ]; then
    echo 1 >"$CG/cgroup.kill"                                 # all of it at once: PID 1, its services, execs
    for ((i = 0; i < 500; i++)); do grep -q 'populated 0' "$CG/cgroup.events" && break; sleep 0.01; done
    find "$CG" -depth -type d -exec rmdir {} + || return 1
  fi
  rm -rf --one-file-system "$STATE"
}

# Also when it is told to end, or its caller has gone.
hold() {
  trap stop EXIT
  trap exit HUP INT TERM PIPE
  start || exit 1
  disown -a                                                   # or bash reports on its own stderr how they ended
  while read -r _; do :; done                                 # a builtin, so that a signal ends it at once
}

put() { # SRC... DIR
  [ $# -ge 2 ] || die "put SRC... DIR"
  local dir=${*: -1} s
  enter mkdir -p "$dir" || return
  for s in "${@:1:$#-1}"; do tar -C "$(dirname "$s")" -cf - "$(basename "$s")" | enter tar --no-same-owner -C "$dir" -xf - || return; done
}

case ${1:-} in
  __init1) init1;;
  __init2) init2;;
  start) start;;
  hold) hold;;
  stop) stop;;
  status) alive || { echo "no rig"; exit 3; }; enter systemctl is-system-running;;
  exec|put) alive || die "not running"; c=$1; shift; [ $# -gt 0 ] || die "usage: $c ARGS"
    [ "$c" = put ] && { put "$@"; exit; }
    nsargs; join; exec "${E[@]}" "$@";;
  *) sed -n '2,/^set -u/p' "$SELF" | sed '$d;s/^# \{0,1\}//'; exit 2;;
esac
