#!/usr/bin/env bash
# The Debian package under systemd: a clean root is booted, with systemd as its first process, in namespaces and a cgroup of its own
# on this kernel, whose seccomp and device filters are thereby those that the units meet. A is ipsecd.service, B is ipsecd@b.service.
#   tests/packaging/units.sh PACKAGE.deb NEWER.deb      as root; SKIP where no root can be made or booted
#   KEEP=FILE                                           the journal of it all is copied there
set -euo pipefail
TEST=units
package=$(readlink -f "$1") newer=$(readlink -f "$2")
self=$(readlink -f "$0")
# shellcheck source=tests/packaging/lib.sh
. "${self%/*}/lib.sh"

# ---- the first process of a namespace: mounts what systemd wants to find, and becomes it
if [[ ${3:-} == --boot ]]; then
  root=$4
  mount --make-rprivate /
  mount --bind "$root" "$root"
  cd "$root"
  mount -t proc proc proc
  # The kernel is another's, its settings too, but for those of the network namespace.
  mount --bind proc/sys proc/sys
  mount --bind proc/sys/net proc/sys/net
  mount -o remount,bind,ro proc/sys
  mount -t sysfs -o ro sysfs sys
  mount -t cgroup2 cgroup2 sys/fs/cgroup
  mount -t tmpfs -o mode=755 tmpfs dev
  mkdir dev/net dev/pts dev/shm
  for device in null zero full random urandom tty net/tun; do
    touch dev/$device
    mount --bind /dev/$device dev/$device
  done
  ln -s /proc/self/fd dev/fd
  for number in 0:stdin 1:stdout 2:stderr; do ln -s "fd/${number%:*}" "dev/${number#*:}"; done
  mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
  ln -s pts/ptmx dev/ptmx
  mount -t tmpfs -o mode=1777 tmpfs dev/shm
  mount -t tmpfs -o mode=755 tmpfs run
  mkdir -p run/old
  pivot_root . run/old
  umount -l run/old
  # As systemd expects it, which makes the mounts of credentials known by that.
  mount --make-rshared /
  # What a container has no business with: the clock, modules, devices of the machine.
  exec setpriv --bounding-set -sys_time,-sys_module,-sys_rawio,-sys_boot,-syslog \
    env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --show-status=no
fi

if [[ ${3:-} != --inside ]]; then
  ((EUID == 0)) || skip "needs root"
  command -v mmdebstrap >/dev/null || skip "needs mmdebstrap"
  [[ -e /dev/net/tun ]] || skip "needs /dev/net/tun"
  work=$(mktemp -d "${TMPDIR:-/tmp}/ipsecd-units.XXXXXX")
  mkdir "$work/cgroup"
  mount -t cgroup2 cgroup2 "$work/cgroup" 2>/dev/null || { rm -r "$work"; skip "no cgroup2 can be mounted here"; }
  group=$work/cgroup/${work##*/}
  # shellcheck disable=SC2317
  clean_up() {
    # What ran in it was ended with its first process; the kernel may take a moment to notice.
    for _ in {1..100}; do
      find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
      [[ -d $group ]] || break
      sleep 0.1
    done
    umount "$work/cgroup"
    rm -rf --one-file-system "$work"
  }
  trap clean_up EXIT
  mkdir "$group"
  clean_root "$work/root" systemd systemd-sysv dbus iproute2 iputils-ping procps man-db
  unshare --mount --net --pid --fork --kill-child --mount-proc "$self" "$package" "$newer" --inside "$work"
  exit
fi

work=$4 root=$4/root group=$4/cgroup/${4##*/}
mount --make-rprivate /
(
  echo $BASHPID >"$group/cgroup.procs"
  exec unshare --mount --net --uts --ipc --cgroup --pid --fork --kill-child "$self" "$package" "$newer" --boot "$root"
) >"$work/console" 2>&1 &
outer=$!
first() { init=$(pgrep -P "$outer") && [[ $(<"/proc/$init/comm") == systemd ]]; }
within 20 "the first process" first
in_root() { nsenter --target "$init" --all --root --wd env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }
logged() { "$@" >"$work/last.log" 2>&1 || { cat "$work/last.log" >&2; fail "failed: ${*:2}"; }; }
apt() { logged in_root apt-get -y -q -o APT::Sandbox::User=root "$@" </dev/null; }
booted() { [[ $(in_root systemctl is-system-running) == @(running|degraded) ]]; }
# shellcheck disable=SC2317
gone_wrong() {
  local status=$?
  [[ -z ${KEEP:-} ]] || in_root journalctl --no-pager -o short-precise >"$KEEP" 2>/dev/null || true
  ((status == 0)) || {
    cat "$work/console"
    in_root journalctl --no-pager -n 40 || true
    in_root ipsecd status || true
    in_root ipsecd --socket /run/ipsecd-b/ipsecd.sock status || true
  } >&2
}
trap gone_wrong EXIT
if ! (within 60 "systemd" booted) 2>/dev/null; then
  cat "$work/console" >&2
  trap - EXIT
  skip "systemd does not come up in a container here"
fi
ok "$(in_root systemctl --version | head -n 1) is $(in_root systemctl is-system-running || true), on Linux $(uname -r)"

is() { # UNIT PROPERTY VALUE
  local value
  value=$(in_root systemctl show -p "$2" --value "$1")
  [[ $value == "$3" ]] || fail "$1: $2 is $value, not $3"
}
pid_of() { in_root systemctl show -p MainPID --value "$1"; }
active() { [[ $(in_root systemctl is-active "$1") == active ]]; }
journal() { in_root journalctl --no-pager -u "$@"; }
ping_a() { in_root ping -n -q -W5 -I 10.1.0.1 "$@" 10.2.0.1; }
no_loss() { # COUNT INTERVAL WHAT
  ping_a -c"$1" -i"$2" >"$work/ping" || true
  grep -q ' 0% packet loss' "$work/ping" || { cat "$work/ping" >&2; fail "$3"; }
}
through() { within "${1:-30}" "a ping through the tunnel" ping_a -c1; }
nothing_left() { # [ip netns exec b]
  local left
  left=$(for what in rule "-6 rule" "route show table all" "-6 route show table all" link; do in_root "$@" sh -c "ip $what"; done)
  ! grep -E '4301|ipsec' <<<"$left" || fail "something of ipsecd's is left"
}

# ---- install: nothing starts, nothing is enabled
cp "$package" "$root/old.deb"
cp "$newer" "$root/new.deb"
in_root systemctl daemon-reload
files_of "$root" >"$work/before"
apt install /old.deb
is ipsecd.service LoadState loaded
is ipsecd.service ActiveState inactive
is ipsecd.service UnitFileState disabled
logged in_root systemd-analyze verify /usr/lib/systemd/system/ipsecd.service
[[ ! -s $work/last.log ]] || { cat "$work/last.log" >&2; fail "systemd-analyze verify has something to say"; }
for unit in ipsecd.service ipsecd@b.service; do
  logged in_root systemd-analyze security --no-pager --threshold=30 $unit
  ok "systemd-analyze security $unit: $(sed -n 's/.*Overall exposure level for [^:]*: \([0-9.]*\).*/\1/p' "$work/last.log")"
done

# ---- the quick start: A's key is a credential, B's a file
in_root ip link set lo up
in_root ip netns add b
in_root ip -n b link set lo up
in_root ip link add wan type veth peer name wan netns b
in_root ip addr add 192.0.2.1/24 dev wan
in_root ip addr add 2001:db8::1/64 dev wan nodad
in_root ip link set wan up
in_root ip -n b addr add 192.0.2.2/24 dev wan
in_root ip -n b addr add 2001:db8::2/64 dev wan nodad
in_root ip -n b link set wan up
in_root ip addr add 10.1.0.1/32 dev lo
in_root ip -n b addr add 10.2.0.1/32 dev lo
in_root sysctl -q -w net.ipv4.ip_forward=1
in_root install -d -m 700 /etc/ipsecd/b
in_root ipsecd genpsk /etc/ipsecd/b/site.psk
in_root install -m 600 /etc/ipsecd/b/site.psk /root/site.psk
site a 10.1.0.0/16 192.0.2.2 b 10.2.0.0/16 'credential = "site.psk"' >"$root/etc/ipsecd/site-b.conf"
site b 10.2.0.0/16 192.0.2.1 a 10.1.0.0/16 'file = "site.psk"' >"$root/etc/ipsecd/b/site-a.conf"
drop_in() { # UNIT NAME: from standard input
  mkdir -p "$root/etc/systemd/system/$1.d"
  cat >"$root/etc/systemd/system/$1.d/$2.conf"
  in_root systemctl daemon-reload
}
drop_in ipsecd.service credential <<<$'[Service]\nLoadCredential=site.psk:/root/site.psk'

# ---- a file with an error: the start fails, with the reason in the journal
echo 'nonsense = 1' >"$root/etc/ipsecd/wrong.conf"
! in_root systemctl start ipsecd 2>/dev/null || fail "starts with an error in a file"
is ipsecd.service ExecMainStatus 2
is ipsecd.service NRestarts 0
rm "$root/etc/ipsecd/wrong.conf"
journal ipsecd.service | grep 'wrong.conf' >/dev/null || fail "the journal does not name the file with the error"
in_root systemctl reset-failed ipsecd
ok "an error in a file: no start, and the file is named in the journal"

# ---- start
for unit in ipsecd@b.service ipsecd.service; do
  logged in_root systemctl enable --now $unit
  is $unit ActiveState active
  is $unit SubState running
done
through
ok "active by sd_notify after $(in_root systemctl show -p ActiveEnterTimestampMonotonic -p InactiveExitTimestampMonotonic --value ipsecd | sort -n | awk 'NR==1{a=$1} NR==2{printf "%.2f", ($1-a)/1e6}') s; a ping through the tunnel of the quick start, its key a credential at A"
no_loss 20 0.05 "pings are lost"
in_root ipsecd status >"$work/status"
grep -q ' up' "$work/status" || { cat "$work/status" >&2; fail "not up by ipsecd status"; }
in_root ipsecd --socket /run/ipsecd-b/ipsecd.sock status | grep ' up' >/dev/null || fail "the instance does not answer at its socket"
for unit in ipsecd ipsecd@b; do
  status=/proc/$(pid_of $unit)/status
  in_root grep -qx $'Seccomp:\t2' "$status" || fail "$unit has no system call filter"
  in_root grep -qx $'NoNewPrivs:\t1' "$status" || fail "$unit may gain privileges"
  # CAP_DAC_READ_SEARCH (2), CAP_NET_BIND_SERVICE (10), CAP_NET_ADMIN (12), CAP_NET_RAW (13)
  in_root grep -qx $'CapEff:\t0000000000003404' "$status" || fail "$unit has other capabilities: $(in_root grep Cap "$status")"
done
for host in "" "ip netns exec b"; do
  [[ $(in_root $host cat /proc/sys/net/ipv6/conf/ipsec0/addr_gen_mode) == 1 ]] || fail "a daemon could not set addr_gen_mode of its TUN ($host)"
done
[[ $(in_root stat -c %a /run/ipsecd /var/lib/ipsecd/ | sort -u) == 700 ]] || fail "others may enter /run/ipsecd or /var/lib/ipsecd"
ok "under the system call filter, with four capabilities, and with what it needs: TUN, netlink, raw sockets, its directories"

# ---- the journal
in_root journalctl --no-pager -u ipsecd -o json >"$work/journal.json"
python3 - "$work/journal.json" <<'PY' || fail "the journal lacks what it should have"
import json, sys
entries = [json.loads(line) for line in open(sys.argv[1])]
ours = [entry for entry in entries if entry.get("SYSLOG_IDENTIFIER") == "ipsecd" and entry.get("_TRANSPORT") == "journal"]
assert ours, "nothing came in the journal's own form"
child = [e for e in ours if e["MESSAGE"].startswith("CHILD_SA installed")]
assert child, [e["MESSAGE"] for e in ours]
fields = child[-1]
print("  --  " + fields["MESSAGE"])
assert fields["F_PEER"] == "site-b", fields
for name in ("F_SPI_INBOUND", "F_SPI_OUTBOUND", "F_SPI_I", "F_SPI_R", "F_SUITE"):
    assert fields[name] in fields["MESSAGE"], fields
loud = [e["MESSAGE"] for e in ours if int(e["PRIORITY"]) < 5]
assert not loud, loud
PY
ok "the journal has the fields of each line, and no warning"

# ---- reload under traffic: a peer comes and goes, the tunnel loses nothing
no_loss 2000 0.002 "a reload loses packets of a tunnel that did not change" & traffic=$!
for turn in 1 2 3; do
  site a 10.1.0.0/16 192.0.2.9 c 10.3.0.0/16 'credential = "site.psk"' >"$root/etc/ipsecd/site-c.conf"
  printf '[esp]\nstart = "on-traffic"\n' >>"$root/etc/ipsecd/site-c.conf"
  logged in_root systemctl reload ipsecd
  in_root ipsecd status | grep site-c >/dev/null || fail "reload $turn: the new peer is not there"
  rm "$root/etc/ipsecd/site-c.conf"
  logged in_root systemctl reload ipsecd
  ! in_root ipsecd status | grep site-c >/dev/null || fail "reload $turn: the peer is still there"
done
echo 'nonsense = 1' >"$root/etc/ipsecd/wrong.conf"
! in_root systemctl reload ipsecd 2>/dev/null || fail "a reload with an error in a file succeeds"
rm "$root/etc/ipsecd/wrong.conf"
logged in_root systemctl reload ipsecd
logged in_root systemctl reload ipsecd@b
wait $traffic
active ipsecd || fail "not active after reloads"
ok "2,000 pings across nine reloads, one of them refused, none lost"

# ---- what the daemon writes: keys, audit events, metrics, captures
drop_in ipsecd.service more <<'END'
[Service]
WatchdogSec=4s
Environment=IPSECD_METRICS=127.0.0.1:9814 IPSECD_AUDIT=/var/log/ipsecd/eve.json
ExecStart=
ExecStart=/usr/sbin/ipsecd daemon --keylog /var/log/ipsecd/keys
END
logged in_root systemctl restart ipsecd
through
in_root test -s /var/log/ipsecd/keys/esp_sa || fail "no key log"
# A packet for an SPI that nobody has.
in_root ip netns exec b bash -c 'printf "\1\2\3\4\0\0\0\1%032d" 0 >/dev/udp/192.0.2.1/4500'
within 20 "an audit event" in_root grep -q '"unknown_spi"' /var/log/ipsecd/eve.json
in_root bash -c 'exec 3<>/dev/tcp/127.0.0.1/9814; printf "GET /metrics HTTP/1.0\r\n\r\n" >&3; cat <&3' >"$work/metrics"
grep -q '^ipsecd_' "$work/metrics" || fail "no metrics"
in_root timeout 20 ipsecd capture -w /root/capture.pcapng --count 6 >"$work/capture.log" 2>&1 & capture=$!
within 20 "the capture" eval 'ping_a -c4 -i0.2 >/dev/null; in_root test -s /root/capture.pcapng'
wait $capture || { cat "$work/capture.log" >&2; fail "ipsecd capture fails"; }
ok "key log, audit events, metrics and a capture"

# ---- watchdog: alive for longer than it, and begun anew when it stands still
before=$(pid_of ipsecd)
passed() { (($(in_root cut -d. -f1 /proc/uptime) >= until)); }
until=$(($(in_root cut -d. -f1 /proc/uptime) + 6))
within 20 "six seconds" passed
[[ $(pid_of ipsecd) == "$before" ]] || fail "the watchdog ended a daemon that runs"
in_root kill -STOP "$before"
another() { active "$1" && [[ $(pid_of "$1") != @(0|"$2") ]]; }
within 40 "a new process after the watchdog" another ipsecd "$before"
journal ipsecd.service | grep 'Watchdog timeout' >/dev/null || fail "it was not the watchdog"
through 60
ok "the watchdog leaves a daemon of 6 s alone (WatchdogSec=4s), and replaces one that was stopped: the tunnel is back"
before=$(pid_of ipsecd)
in_root kill -KILL "$before"
within 40 "a new process after SIGKILL" another ipsecd "$before"
through 60
ok "killed: begun anew, the tunnel is back"

# ---- upgrade: the changed file stays, running daemons go on
echo 'IPSECD_LOG_FORMAT=journald' >>"$root/etc/default/ipsecd"
before="$(pid_of ipsecd) $(pid_of ipsecd@b)"
no_loss 1000 0.01 "an upgrade loses packets" & traffic=$!
apt install -o Dpkg::Options::=--force-confold /new.deb
cp "$work/last.log" "$work/upgrade.log"
wait $traffic
[[ "$(pid_of ipsecd) $(pid_of ipsecd@b)" == "$before" ]] || fail "an upgrade restarts daemons"
[[ $(in_root dpkg-query -W -f '${Version}' ipsecd) == 99.0-1 ]] || fail "not upgraded"
grep -q '^IPSECD_LOG_FORMAT=journald' "$root/etc/default/ipsecd" || fail "a changed file was overwritten"
for unit in ipsecd.service ipsecd@b.service; do
  grep -q "$unit goes on with the old program" "$work/upgrade.log" || fail "the upgrade does not say that $unit is the old one"
  is $unit NeedDaemonReload no
done
is ipsecd.service UnitFileState enabled
logged in_root systemctl restart ipsecd ipsecd@b
through 60
ok "upgraded: both daemons went on, 1,000 pings and none lost, and the admin is told; restarted, the tunnel is back"

# ---- stop: in order, and nothing left
began=$SECONDS
logged in_root systemctl stop ipsecd ipsecd@b
for unit in ipsecd.service ipsecd@b.service; do
  is $unit ActiveState inactive
  is $unit Result success
done
nothing_left
nothing_left ip netns exec b
ok "stopped in $((SECONDS - began)) s: no route, rule or device left in either namespace"

# ---- remove with both running; purge
logged in_root systemctl start ipsecd@b ipsecd
through
apt remove ipsecd
for unit in ipsecd.service ipsecd@b.service; do is $unit ActiveState inactive; done
[[ -z $(in_root pgrep -x ipsecd) ]] || fail "a daemon is still running"
nothing_left
nothing_left ip netns exec b
[[ -e $root/etc/default/ipsecd && -e $root/etc/ipsecd/site-b.conf ]] || fail "remove takes configuration away"
ok "removed: both daemons are stopped, nothing of them left but configuration and state"
apt purge ipsecd
[[ -e $root/etc/ipsecd/b/site.psk ]] || fail "purge takes the administrator's keys away"
rm -r "$root/etc/ipsecd" "$root/etc/systemd/system/ipsecd.service.d"
files_of "$root" >"$work/after"
diff "$work/before" "$work/after" >"$work/left" || { cat "$work/left" >&2; fail "files are left, gone or changed"; }
is ipsecd.service LoadState not-found
ok "purged: every other file is as it was before"
in_root systemctl --failed --no-legend --plain | grep . && fail "units failed" || true
