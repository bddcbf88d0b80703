#!/usr/bin/env bash
# The first command of the README on a fresh Debian, which has neither Rust nor a C compiler nor make: a clean root, the sources as git
# has them (without git), and that command, with the network of this host for packages and crates.
#   tests/packaging/fresh.sh [SUITE]      as root; SKIP where no root can be made
set -euo pipefail
TEST=fresh
self=$(readlink -f "$0")
# shellcheck source=tests/packaging/lib.sh
. "${self%/*}/lib.sh"
cd "${self%/*}/../.."

if [[ ${1:-} != --inside ]]; then
  ((EUID == 0)) || skip "needs root"
  command -v mmdebstrap >/dev/null || skip "needs mmdebstrap"
  [[ -e /dev/net/tun ]] || skip "needs /dev/net/tun"
  work=$(mktemp -d "${TMPDIR:-/tmp}/ipsecd-fresh.XXXXXX")
  trap 'rm -rf --one-file-system "$work"' EXIT
  SUITE=${1:-} clean_root "$work/root" apt
  mkdir "$work/root/root/ipsecd"
  git archive HEAD | tar --extract --directory "$work/root/root/ipsecd"
  unshare --mount --pid --fork --kill-child "$self" --inside "$work"
  exit
fi

root=$2/root
mount --make-rprivate /
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
# What this host tells cargo about where crates come from.
through=()
for name in "${!CARGO_@}"; do
  [[ $name == CARGO_@(HOME|TARGET_DIR|MANIFEST_*|PKG_*) ]] || through+=("$name=${!name}")
done
# And whom it trusts: between it and them may stand somebody with a certificate authority of their own.
if [[ -s /etc/ssl/certs/ca-certificates.crt ]]; then
  cp /etc/ssl/certs/ca-certificates.crt "$root/root/trusted.pem"
  through+=(CARGO_HTTP_CAINFO=/root/trusted.pem)
fi
in_root() { chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "${through[@]}" "$@"; }
for command in cargo rustc cc make git ip python3; do
  ! in_root sh -c "command -v $command" >/dev/null || fail "$command is there already: not fresh"
done
in_root bash -c 'cd /root/ipsecd && tests/demo/demo.sh'
said=$(in_root /root/ipsecd/target/release/ipsecd --version)
[[ $said == *"(commit $(git rev-parse --short=12 HEAD);"* ]] || fail "the commit is lost without git: $said"
ok "$said, built and shown by one command on a fresh $(in_root sh -c '. /etc/os-release; echo $PRETTY_NAME')"
