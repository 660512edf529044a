#!/usr/bin/env bash
# Runs the soak test for a time on one broker and writes its lines to docs/soak.md,
# beside those of the other broker.
set -euo pipefail
cd "$(dirname "$0")/.."
duration=${1:-10m}
store=${2:-Redis}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=
go test -count=1 -timeout 3h -v -run TestSoak ./internal/battery -soak "$duration" -soakon "$store" -seed "${SEED:-1}" | tee "$log" || failed=1
others=$(grep '^| ' docs/soak.md 2>/dev/null | grep -v -e "^| $store |" -e '^| store |' || true)
{
	echo '# The last soak'
	echo
	echo 'A goroutine and a prefork worker of four slots each, which share one queue with 200 tasks a second: successes,'
	echo 'failures, retries, callbacks, chains, ETAs, panics, soft limits. All their connections are dropped each 20 s. Once a'
	echo 'second it is looked at what they take; the line is fitted by least squares, without the first fifth of the time.'
	echo 'At the end each task had come to its end, no slot was taken and no process left.'
	echo
	echo 'A form of ten minutes fails above 20 MiB or 90 goroutines an hour: keeping the id of each task would be 36 MiB, the'
	echo 'buffers of a connection for each loss 22 MiB, a connection that is not closed 360 goroutines.'
	echo 'Written by `make soak` (`DURATION`, `STORE`); `make test` runs the same code for 15 s and counts goroutines.'
	echo
	echo '| store | of | tasks | minutes | losses | mean | slope an hour | ended, UTC |'
	echo '|---|---|---|---|---|---|---|---|'
	{
		if [ -n "$others" ]; then echo "$others"; fi
		grep -o 'soak {.*}' "$log" | sed -E 's/soak \{"store": "([^"]*)", "what": "([^"]*)", "tasks": ([0-9]+), "minutes": ([0-9.]+), "drops": ([0-9]+), "mean": ([0-9.]+), "slope": (-?[0-9.]+)\}/| \1 | \2 | \3 | \4 | \5 | \6 | \7 | '"$(date -u '+%Y-%m-%d %H:%M')"' |/'
	} | sort
} > docs/soak.md.new
mv docs/soak.md.new docs/soak.md
if [ -n "$failed" ]; then
	echo "The soak failed." >&2
	exit 1
fi
