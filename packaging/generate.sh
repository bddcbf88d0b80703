#!/bin/sh
# What a package has besides the program, out of the program: manual pages and completions.
#   packaging/generate.sh target/release/ipsecd target/package
set -eu
rm -rf "$2"
mkdir -p "$2/man"
"$1" man "$2/man"
for shell in bash fish zsh; do
  "$1" completions $shell >"$2/ipsecd.$shell"
done
