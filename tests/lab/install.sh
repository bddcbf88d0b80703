#!/usr/bin/env bash
# Installs what the tests need and this machine lacks: Debian packages, as root or through sudo.
#   tests/lab/install.sh [PACKAGE...]     default: everything that the tests need
# Nothing that it installs is left running, and no service of it starts with the machine.
set -euo pipefail

PACKAGES=(
  build-essential             # a C compiler and make
  iproute2 iputils-ping       # namespaces, links, routes; ping
  nftables                    # NAT and loss on the router
  user-mode-linux kmod        # a Linux kernel with its own IPsec as the peer
  tcpdump tshark              # captures, and their independent reader
  python3-scapy python3-cryptography # the second reader
  prometheus                  # the reader of metrics
  openssl                     # a reader of certificate requests
  tmux                        # a real terminal
  gnupg                       # the other end of bundles
  strongswan-charon strongswan-swanctl libcharon-extra-plugins libstrongswan-standard-plugins # the peer
  libcharon-extauth-plugins   # its EAP-MSCHAPv2
  openiked libevent-2.1-7 procps # another
  libreswan libnss3-tools libevent-core-2.1-7 libevent-pthreads-2.1-7 libldns3 libunbound8 libcurl3-nss # another peer
)
(($#)) && PACKAGES=("$@")

# Packages that Debian does not let stand beside strongSwan: unpacked here, each into a directory of its name. What
# they depend on is named above.
BESIDE=(libreswan openiked)
LAB=/usr/local/lib/ipsecd-lab

command -v dpkg-query >/dev/null || {
  echo "install.sh: not a Debian system; the tests need, by their Debian names: ${PACKAGES[*]}" >&2
  exit 1
}
missing=() beside=()
for package in "${PACKAGES[@]}"; do
  if [[ " ${BESIDE[*]} " == *" $package "* ]]; then
    [[ -d $LAB/$package ]] || beside+=("$package")
    continue
  fi
  [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
done
((${#missing[@]} + ${#beside[@]})) || exit 0

root=()
if ((EUID != 0)); then
  if sudo -n true 2>/dev/null || { [[ -t 0 ]] && command -v sudo >/dev/null; }; then
    root=(sudo)
  else
    echo "install.sh: not root, and no sudo; install these first: ${missing[*]} ${beside[*]}" >&2
    exit 1
  fi
fi

# Packages ask this script whether they may start their services: no.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
  printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" >/dev/null
  "${root[@]}" chmod 755 "$policy"
  trap '"${root[@]}" rm -f "$policy"' EXIT
fi

# Both are run as conditions, in which `set -e` does nothing.
apt_install() {
  ((!${#missing[@]})) || "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -q --no-install-recommends "${missing[@]}" </dev/null || return
  ((!${#beside[@]})) || unpack
}
unpack() (
  cd "$(mktemp -d)" || exit
  trap 'rm -rf "$PWD"' EXIT
  for package in "${beside[@]}"; do
    # Not as the user of apt's, who may not write here.
    apt-get -o APT::Sandbox::User=root download -q "$package" || exit
    # Whole or not at all: a directory of the package's name counts as installed.
    "${root[@]}" rm -rf "$LAB/$package.part" || exit
    "${root[@]}" mkdir -p "$LAB/$package.part" || exit
    "${root[@]}" dpkg-deb -x "$package"_*.deb "$LAB/$package.part" || exit
    "${root[@]}" mv "$LAB/$package.part" "$LAB/$package" || exit
  done
)
echo "install.sh: installing ${missing[*]} ${beside[*]}"
log=$(mktemp)
# The package lists may be absent or old: fetched once the first try has failed.
if ! apt_install >"$log" 2>&1 && ! { "${root[@]}" apt-get update -q && apt_install; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "install.sh: could not install: ${missing[*]} ${beside[*]}" >&2
  exit 1
fi
rm -f "$log"

if [[ -d /run/systemd/system ]]; then
  for unit in strongswan-starter.service nftables.service; do
    case " ${missing[*]} " in
      *" strongswan-charon "* | *" nftables "*) "${root[@]}" systemctl disable -q "$unit" 2>/dev/null || true ;;
    esac
  done
fi
