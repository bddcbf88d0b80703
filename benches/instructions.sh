#!/usr/bin/env bash
# Counts the instructions of a 64-byte packet's way through the datapath, out and in, and compares them with
# benches/instructions.txt: more than 3 % above it is a failure. An instruction count is the same in each run, whatever else
# the machine does, but not with each compiler, nor with each processor, for which the cipher has code of its own: others than
# those of the file are told and not judged.
#   benches/instructions.sh [--write]     --write: what is found becomes what is expected
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
readonly EXPECTED=benches/instructions.txt FEW=20 MANY=120 BATCH=32

tests/lab/install.sh valgrind
# As the step `long` of .ci/run builds, so that dependencies are built once.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
program=$(cargo bench --locked --quiet --no-run --bench path --message-format json |
  python3 -c 'import json, sys
print([m["executable"] for m in map(json.loads, sys.stdin) if m.get("executable") and m["target"]["name"] == "path"][-1])')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
run() { # FUNCTION BATCHES: instructions in it and in what it calls
  valgrind --tool=callgrind --callgrind-out-file="$work/out" --toggle-collect="*Datapath*::$1" "$program" --count "$2" \
    >"$work/log" 2>&1 || { cat "$work/log" >&2; return 1; }
  awk '/^summary:|^totals:/ { sum = $2 } END { if (!sum) exit 1; print sum }' "$work/out"
}
count() { # FUNCTION: its instructions for a packet, without those of the first batches, for which memory is made
  local few many
  few=$(run "$1" "$FEW")
  many=$(run "$1" "$MANY")
  echo $(((many - few) / ((MANY - FEW) * BATCH)))
}
on="$(rustc --version), $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
out=$(count outbound_batch_with)
in=$(count inbound_batch)
echo "instructions of a 64-byte packet: $out out, $in in; $on"
if [[ ${1:-} == --write ]]; then
  printf '%s\nout %d\nin %d\n' "$on" "$out" "$in" >"$EXPECTED"
  exit
fi
if [[ ! -e $EXPECTED ]]; then
  echo "not judged: there is no $EXPECTED; benches/instructions.sh --write makes it"
  exit
fi
if [[ $(head -n 1 "$EXPECTED") != "$on" ]]; then
  echo "not judged: $EXPECTED is of $(head -n 1 "$EXPECTED"); benches/instructions.sh --write makes one of this"
  exit
fi
judge() { # WAY FOUND
  local expected
  expected=$(awk -v way="$1" '$1 == way { print $2 }' "$EXPECTED")
  if (($2 * 100 > expected * 103)); then
    echo "a packet costs $2 instructions $1, more than 3 % above $expected" >&2
    return 1
  fi
}
judge out "$out"
judge in "$in"
