#!/usr/bin/env bash
# Runs the long batteries and writes their report to docs/battery.md.
set -euo pipefail
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
seed=${SEED:-1}
go test -count=1 -timeout 60m -v -run TestCrash ./internal/battery -battery -seed "$seed" | tee "$log"
go test -count=1 -timeout 60m -v -run TestChordsEndOnce ./internal/battery -chords 2000 -seed "$seed" | tee -a "$log"
go test -count=1 -timeout 60m -v -run Stress ./worker -battery 250 -seed "$seed" | tee -a "$log"
{
	echo '# The last full battery'
	echo
	echo "$(date -u '+%Y-%m-%d %H:%M') UTC, commit $(git rev-parse --short HEAD), $(go version | cut -d' ' -f3), $(nproc) CPUs."
	echo 'Written by `make battery`; `make test` runs the same code small, with a fixed seed.'
	echo
	echo '## Crash'
	echo
	echo 'Worker and producer processes on one SQLite file, one of them killed each second, some stopped past'
	echo 'their lease and woken, some tasks killing their own process. Judged by a ledger outside of the store:'
	echo 'every confirmed task ended in the state it was meant to, each callback was sent once, nothing is left.'
	echo
	echo '| seed | confirmed | kills | stops | runs repeated | poisoned | given up | seconds |'
	echo '|---|---|---|---|---|---|---|---|'
	grep -o 'report {.*}' "$log" | sed 's/^report //' | while read -r line; do
		echo "$line" | sed -E 's/\{"Seed":([0-9]+),"Confirmed":([0-9]+),"Kills":([0-9]+),"Stops":([0-9]+),"Restarts":([0-9]+),"Poisoned":([0-9]+),"GivenUp":([0-9]+),"Took":([0-9]+)[0-9]{9}\}/| \1 | \2 | \3 | \4 | \5 | \6 | \7 | \8 |/'
	done
	echo
	echo '## Chords'
	echo
	echo 'Python sends chords of ten to Go workers that are killed all the while, broker and results in one Redis database'
	echo 'and in two. Each body had the results of all members in order and was delivered once.'
	echo
	grep -o '[0-9]* chords of 10, .*' "$log" | sed 's/^/* /'
	echo
	echo '## Stress'
	echo
	echo 'Four workers on the memory broker with kills, stops, deploys and faults from a seed: '"$(grep -c -- '--- PASS: .*Stress/' "$log") seeds passed, $(grep -c -- '--- FAIL: .*Stress/' "$log" || true) failed."
	echo 'The command: `go test ./worker -run Stress -battery 250`.'
} > docs/battery.md
