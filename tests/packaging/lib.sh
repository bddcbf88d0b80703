# What the tests of the package share; sourced by them.
# shellcheck shell=bash
ok() { printf '  ok  %s\n' "$*"; }
fail() { printf '%s: %s\n' "$TEST" "$*" >&2; exit 1; }
skip() { printf 'SKIP %s: %s\n' "$TEST" "$*" >&2; [[ ${CI:-} != true ]]; exit; }

# The clean root of a Debian like this one, with some packages: made once a day, and kept beside what is built.
clean_root() { # DIRECTORY PACKAGES...
  local suite kept
  # shellcheck source=/dev/null
  suite=${SUITE:-$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")}
  kept=${CARGO_TARGET_DIR:-target}/packaging/$suite-$(printf '%s\n' "${@:2}" | sha256sum | cut -c1-12).tar
  if [[ -z $(find "$kept" -mmin -1440 2>/dev/null) ]]; then
    mkdir -p "${kept%/*}"
    mmdebstrap --quiet --variant=minbase --include="$(IFS=,; echo "${*:2}")" "$suite" "${kept%.tar}.$$.tar" 2>"$kept.log" || {
      cat "$kept.log" >&2
      rm -f "${kept%.tar}.$$.tar"
      skip "mmdebstrap cannot make a Debian $suite here"
    }
    mv "${kept%.tar}.$$.tar" "$kept"
  fi
  mkdir -p "$1"
  tar --extract --file "$kept" --directory "$1" --numeric-owner --xattrs
}

# Waits until a command succeeds.
within() { # SECONDS WHAT COMMAND...
  local end=$((SECONDS + $1))
  until "${@:3}" >/dev/null 2>&1; do
    ((SECONDS < end)) || fail "$2: not within $1 s"
    sleep 0.1
  done
}

# What is in a root that a package may have put there: not what apt, dpkg and the journal write down for themselves.
files_of() { # ROOT
  find "$1" -xdev \( -path "$1/proc" -o -path "$1/sys" -o -path "$1/dev" -o -path "$1/run" -o -path "$1/tmp" -o -path "$1/root" \
    -o -path "$1/var/cache" -o -path "$1/var/log/journal" -o -path "$1/var/lib/apt" -o -path "$1/var/lib/dpkg" \) -prune \
    -o -printf '%P %y %m %U:%G %l\n' |
    grep -vE '^(var/log/(dpkg\.log|alternatives\.log|apt(/.*)?)|old\.deb|new\.deb) ' | LC_ALL=C sort
}

# A's and B's file of the quick start, with the addresses of the ends and where the secret is.
site() { # OUR-LETTER OUR-NET PEER-ADDRESS PEER-LETTER PEER-NET SECRET
  printf '[local]\nid = "%s.example.net"\nsubnets = ["%s"]\n[peer]\naddress = "%s"\nid = "%s.example.net"\nsubnets = ["%s"]\n[auth]\npsk = { %s }\n' "$@"
}
