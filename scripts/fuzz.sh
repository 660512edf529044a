#!/usr/bin/env bash
# Runs every fuzz target of the module for the time given (default 20s), one
# after another: go test takes one at a time.
set -euo pipefail
time=${1:-20s}
found=0
while IFS=: read -r file target; do
  found=1
  package=./$(dirname "$file")
  echo "== $package $target"
  go test "$package" -run '^$' -fuzz "^$target\$" -fuzztime "$time"
done < <(git ls-files '*_test.go' | xargs grep -oE '^func Fuzz[A-Za-z0-9_]+' | sed 's/:func /:/')
[ $found -eq 1 ] || { echo "there is no fuzz target" >&2; exit 1; }
