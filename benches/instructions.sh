#!/usr/bin/env bash
# Counts the instructions of a 64-byte packet's way through the datapath, out and in, and compares them with
# benches/instructions.txt: more than 3 % above it is a failure. An instruction count is the same in each run, whatever else
# the machine does, but not with each compiler: another than that of the file is told and not judged.
#   benches/instructions.sh [--write]     --write: what is found becomes what is expected
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

tests/lab/install.sh valgrind
program=$(cargo bench --locked --quiet --no-run --bench path --message-format json |
  python3 -c 'import json, sys
print([m["executable"] for m in map(json.loads, sys.stdin) if m.get("executable") and m["target"]["name"] == "path"][-1])')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
count() { # FUNCTION: its instructions and those of what it calls, for each packet
  valgrind --tool=callgrind --callgrind-out-file="$work/out" --toggle-collect="*Datapath*::$1" "$program" --count \
    >"$work/log" 2>&1 || { cat "$work/log" >&2; return 1; }
  awk '/^summary:|^totals:/ { sum = $2 } END { if (!sum) exit 1; printf "%d\n", sum / (100 * 32) }' "$work/out"
}
compiler=$(rustc --version)
out=$(count outbound_batch_with)
in=$(count inbound_batch)
echo "instructions of a 64-byte packet: $out out, $in in; $compiler"
if [[ ${1:-} == --write ]]; then
  printf '%s\nout %d\nin %d\n' "$compiler" "$out" "$in" >benches/instructions.txt
  exit
fi
if [[ $(head -n 1 benches/instructions.txt) != "$compiler" ]]; then
  echo "counted with another compiler than benches/instructions.txt, not judged; benches/instructions.sh --write renews it"
  exit
fi
judge() { # WAY FOUND
  local expected
  expected=$(awk -v way="$1" '$1 == way { print $2 }' benches/instructions.txt)
  if (($2 * 100 > expected * 103)); then
    echo "a packet costs $2 instructions $1, more than 3 % above $expected" >&2
    return 1
  fi
}
judge out "$out"
judge in "$in"
