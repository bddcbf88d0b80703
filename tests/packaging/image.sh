#!/usr/bin/env bash
# The container image: two containers of it, each in a network namespace, and a tunnel between them.
#   tests/packaging/image.sh IMAGE      as root, with podman; SKIP where containers cannot run
#   PODMAN='podman --runtime runc' PODMAN_RUN='--pids-limit -1'    another program, and what each run needs besides, on an odd host
# Everything happens in namespaces and a directory of its own, which are gone when it ends, however it ends.
set -euo pipefail
TEST=image
image=$1
self=$(readlink -f "$0")
# shellcheck source=tests/packaging/lib.sh
. "${self%/*}/lib.sh"
read -ra podman <<<"${PODMAN:-podman}"
read -ra options <<<"${PODMAN_RUN:-}"

if [[ ${2:-} != --inside ]]; then
  ((EUID == 0)) || skip "needs root"
  command -v "${podman[0]}" >/dev/null || skip "needs podman"
  [[ -e /dev/net/tun ]] || skip "needs /dev/net/tun"
  "${podman[@]}" image exists "$image" || fail "no image $image: make image"
  work=$(mktemp -d "${TMPDIR:-/tmp}/ipsecd-image.XXXXXX")
  # shellcheck disable=SC2317
  clean_up() {
    "${podman[@]}" rm --force --time 0 "${work##*.}-a" "${work##*.}-b" >/dev/null 2>&1 || true
    for host in a b; do ip netns del "${work##*.}-$host" 2>/dev/null || true; done
    rm -rf --one-file-system "$work"
  }
  trap clean_up EXIT
  "$self" "$image" --inside "$work"
  exit
fi

work=$3 mark=${3##*.}
for host in a b; do
  ip netns add "$mark-$host"
  ip -n "$mark-$host" link set lo up
done
ip -n "$mark-a" link add wan type veth peer name wan netns "$mark-b"
for host in a:1 b:2; do
  number=${host#*:} host=$mark-${host%:*}
  ip -n "$host" addr add "192.0.2.$number/24" dev wan
  ip -n "$host" addr add "10.$number.0.1/32" dev lo
  ip -n "$host" link set wan up
done
mkdir -p "$work/a" "$work/b"
run() { "${podman[@]}" run "${options[@]}" --network "ns:/run/netns/$mark-$1" --device /dev/net/tun --cap-drop all --cap-add NET_ADMIN,NET_RAW,NET_BIND_SERVICE "${@:2}"; }
"${podman[@]}" run --rm "${options[@]}" --network none -v "$work/a:/out" "$image" genpsk /out/site.psk >"$work/log" 2>&1 || {
  cat "$work/log" >&2
  skip "podman cannot run a container here"
}
cp -p "$work/a/site.psk" "$work/b/"
site a 10.1.0.0/16 192.0.2.2 b 10.2.0.0/16 'file = "site.psk"' >"$work/a/site-b.conf"
site b 10.2.0.0/16 192.0.2.1 a 10.1.0.0/16 'file = "site.psk"' >"$work/b/site-a.conf"
for host in a b; do
  run "$host" --detach --name "$mark-$host" -v "$work/$host:/etc/ipsecd:ro" "$image" >/dev/null
done
ping_a() { ip netns exec "$mark-a" ping -n -q -W5 -I 10.1.0.1 "$@" 10.2.0.1; }
(within 30 "a ping through the tunnel" ping_a -c1) || {
  for host in a b; do "${podman[@]}" logs "$mark-$host" >&2 || true; done
  exit 1
}
"${podman[@]}" exec "$mark-a" /usr/sbin/ipsecd status
"${podman[@]}" exec "$mark-a" /usr/sbin/ipsecd reload >/dev/null
"${podman[@]}" stop --time 10 "$mark-a" >/dev/null
! ip -n "$mark-a" rule show | grep 4301 || fail "a rule is left"
ok "$("${podman[@]}" run --rm "${options[@]}" --network none "$image" --version): a tunnel between two containers of it"
