#!/usr/bin/env bash
# The Debian package in a clean root without systemd, as a container has it: installed, the tunnel of the quick start up from it,
# reloaded under traffic, upgraded, removed, purged; and what lintian says of it.
#   tests/packaging/deb.sh PACKAGE.deb NEWER.deb      as root; SKIP where no root can be made
# Everything happens in namespaces and a directory of its own, which are gone when it ends, however it ends.
set -euo pipefail
TEST=deb
package=$(readlink -f "$1") newer=$(readlink -f "$2")
# shellcheck source=tests/packaging/lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"

if [[ ${3:-} != --inside ]]; then
  ((EUID == 0)) || skip "needs root"
  command -v mmdebstrap >/dev/null || skip "needs mmdebstrap"
  [[ -e /dev/net/tun ]] || skip "needs /dev/net/tun"
  work=$(mktemp -d "${TMPDIR:-/tmp}/ipsecd-deb.XXXXXX")
  trap 'rm -rf --one-file-system "$work"' EXIT
  clean_root "$work/root" iproute2 iputils-ping man-db
  unshare --mount --net --pid --fork --kill-child "$0" "$package" "$newer" --inside "$work"
  exit
fi

work=$4 root=$4/root
mount --make-rprivate /
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount -t tmpfs tmpfs /run
in_root() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }
logged() { "$@" >"$work/last.log" 2>&1 || { cat "$work/last.log" >&2; fail "failed: ${*:2}"; }; }
apt() { logged in_root apt-get -y -q -o APT::Sandbox::User=root "$@" </dev/null; }
absent() { for path; do [[ ! -e $root$path && ! -L $root$path ]] || fail "$path is still there"; done; }
present() { for path; do [[ -e $root$path ]] || fail "$path is missing"; done; }

# ---- what lintian says: no error
if command -v lintian >/dev/null; then
  lintian --no-tag-display-limit --allow-root "$package" >"$work/lintian" 2>&1 || true
  ! grep '^E:' "$work/lintian" || fail "lintian finds errors"
  ok "lintian: no error, $(grep -c '^W:' "$work/lintian" || true) warnings"
else
  echo "  --  lintian is not installed, not asked"
fi

# ---- install
cp "$package" "$root/old.deb"
cp "$newer" "$root/new.deb"
files_of "$root" >"$work/before"
apt install ./old.deb
present /usr/sbin/ipsecd /usr/lib/systemd/system/ipsecd.service /usr/lib/systemd/system/ipsecd@.service /etc/default/ipsecd \
  /usr/share/man/man1/ipsecd.1.gz /usr/share/man/man1/ipsecd-reload.1.gz /usr/share/bash-completion/completions/ipsecd \
  /usr/share/zsh/vendor-completions/_ipsecd /usr/share/fish/vendor_completions.d/ipsecd.fish \
  /usr/share/doc/ipsecd/copyright /usr/share/doc/ipsecd/changelog.Debian.gz /usr/share/doc/ipsecd/examples/all-options.conf \
  /usr/share/doc/ipsecd/sysctl.conf
[[ $(stat -c '%a %U' "$root/etc/ipsecd") == "700 root" ]] || fail "/etc/ipsecd: $(stat -c '%a %U' "$root/etc/ipsecd")"
[[ $(in_root dpkg-query -W -f '${Conffiles}' ipsecd | awk '{print $1}') == /etc/default/ipsecd ]] || fail "conffiles: not /etc/default/ipsecd alone"
in_root ipsecd --version | grep -E '\(commit [0-9a-f]{12}; features [a-z,]*daemon[a-z,]*; ' >/dev/null || fail "no commit or features in: $(in_root ipsecd --version)"
in_root ipsecd --help >/dev/null
in_root dpkg --verify ipsecd
ok "installed: $(in_root ipsecd --version)"

# ---- the quick start: two hosts, the key, a file each, up
link() { ip -n "$1" addr add "$2" dev "$3"; ip -n "$1" link set "$3" up; }
for host in a b; do
  ip netns add $host
  ip -n $host link set lo up
  ip netns exec $host sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
done
ip -n a link add wan type veth peer name wan netns b
link a 192.0.2.1/24 wan
link b 192.0.2.2/24 wan
# The networks behind them are an address each.
link a 10.1.0.1/32 lo
link b 10.2.0.1/32 lo
on() { # HOST COMMAND...: in the namespace and in the root, with a /run and a /var/lib of the host's own
  local host=$1
  mkdir -p "$work/$host/run" "$work/$host/lib"
  ip netns exec "$host" unshare --mount sh -c '
    mount --bind "$1/run" "$0/run" && mount --bind "$1/lib" "$0/var/lib/ipsecd" && root=$0 && shift &&
    exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"' "$root" "$work/$host" "${@:2}"
}
no_loss() { # COUNT INTERVAL WHAT
  on a ping -n -q -c"$1" -i"$2" -W5 -I 10.1.0.1 10.2.0.1 >"$work/ping" || true
  grep -q ' 0% packet loss' "$work/ping" || { cat "$work/ping" >&2; fail "$3"; }
}
nothing_left() { # HOST
  local left
  left=$(ip -n "$1" rule show; ip -n "$1" -6 rule show; ip -n "$1" route show table all; ip -n "$1" -6 route show table all; ip -n "$1" link show)
  ! grep -E '4301|ipsec' <<<"$left" || fail "something of ipsecd's is left at $1"
}
mkdir -p "$root/var/lib/ipsecd"
in_root ipsecd genpsk /etc/ipsecd/site.psk
site a 10.1.0.0/16 192.0.2.2 b 10.2.0.0/16 'file = "site.psk"' >"$root/etc/ipsecd/site-b.conf"
mkdir -m 700 "$root/etc/ipsecd/b"
cp -p "$root/etc/ipsecd/site.psk" "$root/etc/ipsecd/b/"
site b 10.2.0.0/16 192.0.2.1 a 10.1.0.0/16 'file = "site.psk"' >"$root/etc/ipsecd/b/site-a.conf"
logged in_root ipsecd check /etc/ipsecd/site-b.conf
on b ipsecd up --keep /etc/ipsecd/b/site-a.conf >"$work/up-b.log" 2>&1 & b_up=$!
on a ipsecd up /etc/ipsecd/site-b.conf >"$work/up-a.log" 2>&1 || { cat "$work/up-a.log" >&2; fail "up at A"; }
wait $b_up || { cat "$work/up-b.log" >&2; fail "up at B"; }
no_loss 5 0.2 "no ping through the tunnel"
ok "the tunnel of the quick start is up, five pings answered"

# ---- reload under traffic: a peer comes, a peer goes, the tunnel loses nothing
no_loss 1000 0.002 "a reload loses packets of a tunnel that did not change" & traffic=$!
site a 10.1.0.0/16 192.0.2.9 c 10.3.0.0/16 'file = "site.psk"' >"$root/etc/ipsecd/site-c.conf"
printf '[esp]\nstart = "on-traffic"\n' >>"$root/etc/ipsecd/site-c.conf"
for _ in 1 2 3; do
  on a ipsecd reload >/dev/null
  on a ipsecd reload --dry-run >/dev/null
done
wait $traffic
rm "$root/etc/ipsecd/site-c.conf"
ok "a thousand pings across three reloads, none lost"

# ---- upgrade: what was changed stays, the tunnel of the running daemon as well
echo 'IPSECD_METRICS=127.0.0.1:9814' >>"$root/etc/default/ipsecd"
before=$(in_root dpkg-query -W -f '${Version}' ipsecd)
no_loss 1000 0.005 "an upgrade loses packets" & traffic=$!
apt install -o Dpkg::Options::=--force-confold ./new.deb
wait $traffic
after=$(in_root dpkg-query -W -f '${Version}' ipsecd)
[[ $before != "$after" ]] || fail "$before is not upgraded"
grep -q '^IPSECD_METRICS=' "$root/etc/default/ipsecd" || fail "a changed file was overwritten"
present /etc/ipsecd/site.psk /etc/ipsecd/site-b.conf
on a ipsecd status --json | grep '"state":"up"' >/dev/null || fail "the new command does not talk to the old daemon"
ok "upgraded from $before to $after with the tunnel up: no packet lost, the changed /etc/default/ipsecd kept"

# ---- remove, purge
logged on a dpkg --remove ipsecd
absent /usr/sbin/ipsecd /usr/lib/systemd/system/ipsecd.service /usr/share/man/man1/ipsecd.1.gz
present /etc/default/ipsecd /etc/ipsecd/site.psk
nothing_left a
[[ ! -e $work/a/run/ipsecd ]] || fail "/run/ipsecd is still there"
ok "removed: the tunnel is down, no route, rule or device left; configuration and keys stay"
logged in_root dpkg --purge ipsecd
absent /etc/default/ipsecd /var/lib/ipsecd /var/log/ipsecd
present /etc/ipsecd/site.psk
rm -r "$root/etc/ipsecd"
[[ -z $(in_root dpkg -l ipsecd 2>/dev/null | grep '^[a-z]i') ]] || fail "dpkg still has it"
files_of "$root" >"$work/after"
diff "$work/before" "$work/after" >"$work/left" || { cat "$work/left" >&2; fail "files are left, gone or changed"; }
ok "purged: every other file is as it was before; the administrator's own keys stay"

# ---- again after a purge, and away in one step
apt install ./new.deb
apt purge ipsecd
absent /etc/ipsecd /etc/default/ipsecd
files_of "$root" >"$work/after"
diff "$work/before" "$work/after" >"$work/left" || { cat "$work/left" >&2; fail "files are left, gone or changed"; }
ok "installed and purged in one step: nothing left at all"
