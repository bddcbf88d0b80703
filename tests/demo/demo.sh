#!/usr/bin/env bash
# Two sites, a tunnel between them, a file across, and a look at the wire. Installs what it needs, Rust too; IPSECD=FILE shows a
# program that was built already.
# As root, or without it where users may make namespaces. Everything happens in namespaces of its own, which are gone
# when it ends, however it ends: nothing of this machine's network is touched.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."

if [[ -t 1 ]]; then bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' plain=$'\e[0m'; else bold='' dim='' green='' plain=''; fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
ok() { printf '%s  ok  %s%s\n' "$green" "$plain" "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }
shown() { printf '%s%s $ %s%s\n' "$dim" "$1" "${*:2}" "$plain"; }

if [[ ${1:-} != --inside ]]; then
  for tool in ip:iproute2 ping:iputils-ping python3:python3 unshare:util-linux; do
    command -v "${tool%%:*}" >/dev/null || missing+=("${tool##*:}")
  done
  [[ -z ${missing+x} ]] || tests/lab/install.sh "${missing[@]}"
  if [[ -z ${IPSECD:-} ]]; then
    say "Building (once)"
    tests/lab/cargo.sh build --locked --release --quiet --bins
    IPSECD=$(tests/lab/cargo.sh metadata --format-version 1 --no-deps --locked |
      python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')/release/ipsecd
  fi
  binary=$(readlink -f "$IPSECD")

  [[ -r /dev/net/tun && -w /dev/net/tun ]] ||
    fail "cannot open /dev/net/tun: load the module tun, or run this as root"
  spaces=(--mount --net --pid --fork --kill-child --mount-proc)
  ((EUID == 0)) || spaces+=(--user --map-root-user)
  unshare "${spaces[@]}" true 2>/dev/null ||
    fail "this user may not make namespaces here: run it as root (or allow user namespaces)"
  exec unshare "${spaces[@]}" "$0" --inside "$binary"
fi

# What follows mounts over /run and /mnt: only in the namespaces made above, whose first process this is.
(($$ == 1)) || fail "--inside is for this script's own use"
ipsecd=$2
demo=$PWD/tests/demo
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /mnt
work=/mnt
began=$SECONDS

# ---- the network: each host a namespace, with a /run of its own
for host in lan-a gw-a router gw-b lan-b; do
  ip netns add $host
  ip -n $host link set lo up
  mkdir -p $work/$host/run
done
on() { # HOST COMMAND...
  local host=$1
  ip netns exec "$host" sh -c 'mount --bind "$0" /run && exec "$@"' "$work/$host/run" "${@:2}"
}
link() { # HOST DEVICE ADDRESS HOST DEVICE ADDRESS
  ip -n "$1" link add "$2" type veth peer name "$5" netns "$4"
  ip -n "$1" addr add "$3" dev "$2"
  ip -n "$4" addr add "$6" dev "$5"
  ip -n "$1" link set "$2" up
  ip -n "$4" link set "$5" up
}
link lan-a eth0 10.1.0.2/24 gw-a lan0 10.1.0.1/24
link gw-a wan0 192.0.2.1/24 router to-a 192.0.2.254/24
link gw-b wan0 198.51.100.1/24 router to-b 198.51.100.254/24
link lan-b eth0 10.2.0.2/24 gw-b lan0 10.2.0.1/24
ip -n lan-a route add default via 10.1.0.1
ip -n lan-b route add default via 10.2.0.1
ip -n gw-a route add default via 192.0.2.254
ip -n gw-b route add default via 198.51.100.254
for host in gw-a router gw-b; do ip netns exec $host sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'; done

say "Two sites, and an internet that knows neither LAN"
cat <<'PICTURE'
  LAN A            gateway A     internet     gateway B            LAN B
  10.1.0.2 ------- 192.0.2.1 ---- router ---- 198.51.100.1 ------- 10.2.0.2
PICTURE
if on lan-a ping -n -q -c1 -W1 10.2.0.2 >/dev/null; then fail "the LANs reach each other without a tunnel"; fi
ok "10.1.0.2 cannot reach 10.2.0.2"

# ---- the two configurations
say "One file each, and one key"
shown "either site" ipsecd genpsk site.psk
mkdir -p -m 700 $work/gw-a/etc $work/gw-b/etc
"$ipsecd" genpsk $work/gw-a/etc/site.psk >/dev/null
cp -p $work/gw-a/etc/site.psk $work/gw-b/etc/site.psk
configure() { # SITE PEER PEER-ADDRESS OWN-SUBNET PEER-SUBNET
  cat >"$work/gw-$1/etc/site-$2.conf" <<CONF
[local]
id      = "$1.example.net"
subnets = ["$4"]
[peer]
address = "$3"
id      = "$2.example.net"
subnets = ["$5"]
[auth]
psk = { file = "site.psk" }
CONF
}
configure a b 198.51.100.1 10.1.0.0/24 10.2.0.0/24
configure b a 192.0.2.1 10.2.0.0/24 10.1.0.0/24
sed 's/^/  /' $work/gw-a/etc/site-b.conf

# ---- up
ip netns exec router python3 "$demo/wire.py" watch to-b $work/wire >$work/watch.out &
watcher=$!
until grep -q watching $work/watch.out; do kill -0 $watcher; sleep 0.05; done

say "ipsecd up, on both gateways"
shown "gateway B" ipsecd up site-a.conf
on gw-b "$ipsecd" up $work/gw-b/etc/site-a.conf >$work/up-b 2>&1 &
first=$!
shown "gateway A" ipsecd up site-b.conf
on gw-a "$ipsecd" up $work/gw-a/etc/site-b.conf || fail "gateway A: ipsecd up failed"
wait $first || { cat $work/up-b; fail "gateway B: ipsecd up failed"; }
ok "both ends are up"

# ---- traffic
say "Through the tunnel"
on lan-a ping -n -q -c3 -i0.2 -W2 10.2.0.2 >/dev/null || fail "no answer to ping from LAN A"
ok "10.1.0.2 pings 10.2.0.2"
on lan-b ping -n -q -c3 -i0.2 -W2 10.1.0.2 >/dev/null || fail "no answer to ping from LAN B"
ok "10.2.0.2 pings 10.1.0.2"
{ yes 'the secret recipe' || true; } | head -c 5000000 >$work/sent
head -c 15000000 /dev/urandom >>$work/sent
ip netns exec lan-b python3 "$demo/wire.py" receive 10.2.0.2 $work/received >$work/receive.out &
receiver=$!
until grep -q listening $work/receive.out; do kill -0 $receiver; sleep 0.05; done
ip netns exec lan-a python3 "$demo/wire.py" send 10.2.0.2 $work/sent
wait $receiver
sum() { sha256sum "$1" | cut -d' ' -f1; }
[[ $(sum $work/sent) == "$(sum $work/received)" ]] || fail "another file arrived"
ok "a file of 20 MB crossed; both ends have sha256 $(sum $work/received | cut -c1-16)..."

say "ipsecd status, on gateway A"
on gw-a "$ipsecd" status

say "What the internet saw"
kill -TERM $watcher
wait $watcher || true
sed 's/^/  /' $work/wire
if grep -q 'in clear' $work/wire; then fail "something crossed in clear"; fi
grep -qE ' ESP' $work/wire || fail "no ESP was seen"
grep -q '^ *0 packets that show' $work/wire || fail "the file was legible"
ok "only ESP and IKE: nothing of the file, of the LANs or of the ping"

say "ipsecd down"
on gw-a "$ipsecd" down --all
on gw-b "$ipsecd" down --all
left=$(ip -n gw-a rule show | grep -c 4301 || true)
left=$((left + $(ip -n gw-a route show table all | grep -c ipsec || true)))
left=$((left + $(ip -n gw-a link show | grep -c ipsec || true)))
((left == 0)) || fail "something stayed: $(ip -n gw-a rule show; ip -n gw-a route show table all; ip -n gw-a link)"
ok "no route, no rule, no device left"
printf '\n%sDone in %d s.%s Everything was in namespaces that are gone now.\n' "$bold" $((SECONDS - began)) "$plain"
