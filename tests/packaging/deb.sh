#!/usr/bin/env bash
# The Debian package in a clean root: installed, the tunnel of the README's quick start up from it, upgraded, removed, purged.
#   tests/packaging/deb.sh PACKAGE.deb NEWER.deb      as root; SKIP where there is no mirror
# Everything happens in namespaces and a directory of its own, which are gone when it ends, however it ends.
set -euo pipefail
package=$(readlink -f "$1") newer=$(readlink -f "$2")

if [[ ${3:-} != --inside ]]; then
  skip() { echo "SKIP deb: $*" >&2; [[ ${CI:-} != true ]]; exit; }
  ((EUID == 0)) || skip "needs root"
  command -v mmdebstrap >/dev/null || skip "needs mmdebstrap"
  [[ -e /dev/net/tun ]] || skip "needs /dev/net/tun"
  work=$(mktemp -d "${TMPDIR:-/tmp}/ipsecd-deb.XXXXXX")
  trap 'rm -rf --one-file-system "$work"' EXIT
  # shellcheck source=/dev/null
  suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
  mmdebstrap --quiet --variant=minbase --include=iproute2,iputils-ping,man-db "$suite" "$work/root" 2>"$work/log" || {
    cat "$work/log" >&2
    skip "no mirror"
  }
  unshare --mount --net --pid --fork --kill-child "$0" "$package" "$newer" --inside "$work"
  exit
fi

work=$4 root=$4/root
ok() { printf '  ok  %s\n' "$*"; }
fail() { printf 'deb: %s\n' "$*" >&2; exit 1; }
mount --make-rprivate /
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount -t tmpfs tmpfs /run
in_root() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }
dpkg_root() { in_root dpkg "$@" >"$work/dpkg.log" 2>&1 || { cat "$work/dpkg.log" >&2; fail "dpkg $*"; }; }
absent() { for path; do [[ ! -e $root$path ]] || fail "$path is still there"; done; }
present() { for path; do [[ -e $root$path ]] || fail "$path is missing"; done; }

# ---- install
cp "$package" "$root/old.deb"
cp "$newer" "$root/new.deb"
dpkg_root -i /old.deb
present /usr/sbin/ipsecd /lib/systemd/system/ipsecd.service /lib/systemd/system/ipsecd@.service /etc/default/ipsecd \
  /usr/share/man/man1/ipsecd.1.gz /usr/share/man/man1/ipsecd-reload.1.gz /usr/share/bash-completion/completions/ipsecd \
  /usr/share/zsh/vendor-completions/_ipsecd /usr/share/fish/vendor_completions.d/ipsecd.fish \
  /usr/share/doc/ipsecd/copyright /usr/share/doc/ipsecd/examples/all-options.conf /usr/share/doc/ipsecd/sysctl.conf
[[ $(stat -c '%a %U' "$root/etc/ipsecd") == "700 root" ]] || fail "/etc/ipsecd: $(stat -c '%a %U' "$root/etc/ipsecd")"
in_root ipsecd --version | grep -q '(commit ' || fail "no commit in: $(in_root ipsecd --version)"
in_root ipsecd --help >/dev/null
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
    exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"' "$root" "$work/$host" "${@:2}"
}
mkdir -p "$root/var/lib/ipsecd"
in_root ipsecd genpsk /etc/ipsecd/site.psk
site() { # OUR LETTER, OUR NET, PEER'S ADDRESS, LETTER, NET
  printf '[local]\nid = "%s.example.net"\nsubnets = ["%s"]\n[peer]\naddress = "%s"\nid = "%s.example.net"\nsubnets = ["%s"]\n[auth]\npsk = { file = "site.psk" }\n' "$@"
}
site a 10.1.0.0/16 192.0.2.2 b 10.2.0.0/16 >"$root/etc/ipsecd/site-b.conf"
mkdir -m 700 "$root/etc/ipsecd/b"
cp -p "$root/etc/ipsecd/site.psk" "$root/etc/ipsecd/b/"
site b 10.2.0.0/16 192.0.2.1 a 10.1.0.0/16 >"$root/etc/ipsecd/b/site-a.conf"
in_root ipsecd check /etc/ipsecd/site-b.conf
on b ipsecd up --keep /etc/ipsecd/b/site-a.conf >"$work/up-b.log" 2>&1 & b_up=$!
on a ipsecd up /etc/ipsecd/site-b.conf >"$work/up-a.log" 2>&1 || { cat "$work/up-a.log" >&2; fail "up at A"; }
wait $b_up || { cat "$work/up-b.log" >&2; fail "up at B"; }
on a ping -n -q -c5 -i0.2 -W5 -I 10.1.0.1 10.2.0.1 | grep -q ' 0% packet loss' || fail "no ping through the tunnel"
ok "the tunnel of the quick start is up, five pings answered"

# ---- upgrade: what was changed stays, the tunnel of the running daemon as well
echo 'IPSECD_METRICS=127.0.0.1:9814' >>"$root/etc/default/ipsecd"
before=$(in_root dpkg-query -W -f '${Version}' ipsecd)
dpkg_root -i --force-confold /new.deb
after=$(in_root dpkg-query -W -f '${Version}' ipsecd)
[[ $before != "$after" ]] || fail "$before is not upgraded"
grep -q '^IPSECD_METRICS=' "$root/etc/default/ipsecd" || fail "a changed file was overwritten"
present /etc/ipsecd/site.psk /etc/ipsecd/site-b.conf
on a ping -n -q -c3 -i0.2 -W5 -I 10.1.0.1 10.2.0.1 | grep -q ' 0% packet loss' || fail "the upgrade ended the tunnel"
on a ipsecd status --json | grep -q '"state":"up"' || fail "the new command does not talk to the old daemon"
on a ipsecd down --all >/dev/null
on b ipsecd down --all >/dev/null
ok "upgraded from $before to $after with the tunnel up"

# ---- remove, purge
dpkg_root -r ipsecd
absent /usr/sbin/ipsecd /lib/systemd/system/ipsecd.service /usr/share/man/man1/ipsecd.1.gz
present /etc/default/ipsecd /etc/ipsecd/site.psk
ok "removed; configuration and keys stay"
dpkg_root -P ipsecd
absent /etc/default/ipsecd /var/lib/ipsecd /var/log/ipsecd
present /etc/ipsecd/site.psk
rm -r "$root/etc/ipsecd"
[[ -z $(in_root dpkg -l ipsecd 2>/dev/null | grep '^[a-z]i') ]] || fail "dpkg still has it"
ok "purged; the administrator's own keys stay"
