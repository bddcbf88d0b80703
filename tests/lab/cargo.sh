#!/usr/bin/env bash
# cargo, for those who have none that is new enough: tests/lab/cargo.sh build --release
# With `--path` alone it prints the PATH with which there is one.
# Takes the one of PATH or of rustup's home; else installs what the system's packages have of it, with a C compiler, as root or
# through sudo; else says where Rust is to be had.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$here/../../Cargo.toml")

suffices() { # VERSION
  [[ $1 == [0-9]* && $(printf '%s\n' "$needed" "$1" | sort -V | head -n 1) == "$needed" ]]
}
found() { # is there a rustc, new enough, with its cargo?
  command -v cargo >/dev/null && suffices "$(rustc --version 2>/dev/null | cut -d' ' -f2)"
}
candidate() { # PACKAGE: the version that would be installed
  apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: \(([^)]*)\|[0-9]*:\)\?//p'
}
packages() { # those that have a Rust of that version: of the suite, of its security updates (for browsers), with the version in the name
  local suffix
  for suffix in '' -web $(apt-cache --names-only search '^cargo-[0-9.]*$' 2>/dev/null | sed -n 's/^cargo\(-[0-9.]*\) .*/\1/p' | sort -rV); do
    if suffices "$(candidate "rustc$suffix")" && suffices "$(candidate "cargo$suffix" | sed 's/^0\.\([0-9]*\)/1.\1/')"; then
      echo "rustc$suffix cargo$suffix"
      return
    fi
  done
  return 1
}

if ! found; then
  PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
fi
if ! found && command -v apt-cache >/dev/null; then
  if ! chosen=$(packages); then
    # The package lists may be absent.
    root=()
    ((EUID == 0)) || root=(sudo)
    said=$("${root[@]}" apt-get update -q 2>&1) || tail -n 3 <<<"$said" >&2
    chosen=$(packages) || chosen=
  fi
  if [[ -n $chosen ]]; then
    read -ra chosen <<<"$chosen"
    "$here/install.sh" build-essential ca-certificates "${chosen[@]}" >&2
    [[ ${chosen[0]} != rustc-[0-9]* ]] || PATH=/usr/lib/rust-${chosen[0]#rustc-}/bin:$PATH
  elif [[ $(candidate rustup) == [0-9]* ]]; then
    "$here/install.sh" build-essential rustup ca-certificates >&2
    rustup default stable >&2 || true
  fi
fi
found || {
  echo "cargo.sh: needs Rust $needed or later, found $(rustc --version 2>/dev/null || echo none); rustup installs it" >&2
  exit 1
}
# The C compiler is for the few dependencies that have C or assembler in them.
command -v cc >/dev/null || "$here/install.sh" build-essential >&2
[[ ${1:-} != --path ]] || { echo "$PATH"; exit; }
exec cargo "$@"
