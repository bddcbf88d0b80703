#!/bin/sh
# Runs every fuzz target for SECONDS seconds each, seeds and earlier findings first.
#
#   fuzz/run.sh [SECONDS [TARGET...]]
#
# Needs cargo-fuzz (cargo install cargo-fuzz --locked). No sanitizer is used: the code has no unsafe,
# and so a stable compiler will do. New inputs go to fuzz/target/found/, the seeds stay as they are;
# an input that fails is left in fuzz/artifacts/ and named with the command that runs it again.
set -eu
cd "$(dirname "$0")"
seconds=${1:-10}
[ $# -eq 0 ] || shift
case $seconds in '' | *[!0-9]*)
	echo "fuzz/run.sh: SECONDS must be a number, not '$seconds'" >&2
	exit 2
	;;
esac
if ! cargo fuzz --version >/dev/null 2>&1; then
	echo "fuzz/run.sh: cargo-fuzz is missing: cargo install cargo-fuzz --locked" >&2
	exit 2
fi
# The list of targets: the [[bin]] sections of Cargo.toml.
targets=${*:-$(sed -n '/^\[\[bin\]\]/,/^$/s/^name = "\(.*\)"/\1/p' Cargo.toml)}
cargo fuzz build -s none

failed=
for target in $targets; do
	mkdir -p "target/found/$target"
	set -- "target/found/$target"
	[ ! -d "corpus/$target" ] || set -- "$@" "corpus/$target"
	echo "== $target"
	cargo fuzz run -s none "$target" "$@" -- \
		-max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=4096 \
		-print_final_stats=1 -verbosity=0 || failed="$failed $target"
done
if [ -n "$failed" ]; then
	echo "fuzz/run.sh: failed:$failed" >&2
	exit 1
fi
