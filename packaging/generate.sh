#!/bin/sh
# What a package has besides the program, out of the program and of CHANGELOG.md: manual pages, completions, changelogs.
#   packaging/generate.sh target/release/ipsecd target/package VERSION
set -eu
rm -rf "$2"
mkdir -p "$2/man"
"$1" man "$2/man"
for shell in bash fish zsh; do
  "$1" completions $shell >"$2/ipsecd.$shell"
done

gzip -9nc CHANGELOG.md >"$2/changelog.gz"
# The day of the commit, so that two builds of it are alike.
day=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}
cat >"$2/changelog" <<END
ipsecd ($3) unstable; urgency=medium

  * Built of what CHANGELOG.md (changelog.gz beside this file) describes.

 -- The ipsecd authors <ipsecd@example.net>  $(LC_ALL=C date --utc --date="@$day" +'%a, %d %b %Y %T +0000')
END
