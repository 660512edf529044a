#!/usr/bin/env bash
# Runs the long batteries and writes their report to docs/battery.md. With logs as
# arguments it runs nothing, and reports what they have.
set -euo pipefail
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
seed=${SEED:-1}
failed=
run() { go test -count=1 -timeout 60m -v "$@" | tee -a "$log" || failed=1; }
if [ $# -gt 0 ]; then
	cat "$@" > "$log"
else
	run -run TestCrash ./internal/battery -battery -seed "$seed"
	run -run TestStorm ./internal/battery -battery -seed "$seed"
	run -run TestPathologies ./internal/battery -battery
	run -run TestChordsEndOnce ./internal/battery -chords 2000 -seed "$seed"
	run -run Stress ./worker -battery 250 -seed "$seed"
	run ./internal/faults -battery -seed "$seed"
	run -run InteropKill ./internal/interop -battery -seed "$seed"
	run -run ETAFromPython ./broker/amqpbroker -battery
fi
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
		echo "$line" | sed -E 's/\{"Seed":([0-9]+),"Confirmed":([0-9]+),"Kills":([0-9]+),"Stops":([0-9]+),"Restarts":([0-9]+),"Poisoned":([0-9]+),"GivenUp":([0-9]+),"Took":([0-9]+)[0-9]{9},.*\}/| \1 | \2 | \3 | \4 | \5 | \6 | \7 | \8 |/'
	done
	echo
	echo '## Storm'
	echo
	echo 'Two goroutine and two prefork workers of four slots each, and 10,000 tasks that come to every end there is: success,'
	echo 'failure, retry, ignore, reject, soft and hard limits, panics, an ETA, a callback, a chain; and killers of their process'
	echo '(SIGKILL, SIGSEGV, exit, a panic in a goroutine of its own, a stack overflow). Each second a worker or a child of'
	echo 'one is killed. Each task came to the one end it was meant to; a killer started three times at most. No slot was taken'
	echo 'and no process left at the end. "Again" are runs that were repeated, "orphaned" is how long children outlived a killed'
	echo 'parent at most.'
	echo
	echo '| store | seed | tasks | killers | workers killed | children killed | again | orphaned | seconds |'
	echo '|---|---|---|---|---|---|---|---|---|'
	grep -o 'storm {.*}' "$log" | sed -E 's/storm \{"store": "([^"]*)", "seed": ([0-9]+), "tasks": ([0-9]+), "killers": ([0-9]+), "kills": ([0-9]+), "children": ([0-9]+), "again": ([0-9]+), "orphaned": "([^"]*)", "seconds": ([0-9]+)\}/| \1 | \2 | \3 | \4 | \5 | \6 | \7 | \8 | \9 |/' | sort
	echo
	echo '## Pathologies'
	echo
	echo 'One task of each kind that harms its process, beside others that do not, with a worker that is started again when it'
	echo 'is gone. The states are right, no slot is taken and no process left, and others ran on.'
	echo
	echo '| store | pool | deaths | innocent | seconds |'
	echo '|---|---|---|---|---|'
	grep -o 'pathology {.*}' "$log" | sed -E 's/pathology \{"store": "([^"]*)", "pool": "([^"]*)", "deaths": ([0-9]+), "innocent": ([0-9]+), "seconds": ([0-9]+)\}/| \1 | \2 | \3 | \4 | \5 |/' | sort
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
	echo
	echo '## Faults'
	echo
	echo 'A worker with tasks that wait, run and end, 40 at a time, each fifth with a callback, while its network and its'
	echo 'servers misbehave. Held against a ledger outside of the server: each confirmed task ran once, each callback was'
	echo 'sent once, no slot is taken and nothing is claimed at the end. "Again" is when a task that was sent once the server'
	echo 'was well had started; 5 s are allowed. "Losses" are connections that the consumer lost.'
	echo 'On RabbitMQ a task may run again whose acknowledgement was lost with its connection: it does where no result store knows'
	echo 'that it is done (RPC, Alone). In RabbitMQCaller the network of the caller breaks, and with it its `rpc://` queue: each'
	echo 'result came, or who waited was told at the deadline that it may be lost.'
	echo
	echo '| fault | tasks | repeated | again | losses |'
	echo '|---|---|---|---|---|'
	grep -o 'fault {.*}' "$log" | sed -E 's/fault \{"name": "([^"]*)", "tasks": ([0-9]+), "repeated": ([0-9]+), "again": "([^"]*)", "losses": ([0-9]+)\}/| \1 | \2 | \3 | \4 | \5 |/' | sort
	echo
	echo '## Kills across languages'
	echo
	echo 'Two Go and two Python workers (Celery, threads, acks_late) of four slots each on one queue, one of them killed with'
	echo 'SIGKILL every 2 s and replaced: on Redis, on RabbitMQ with results in Redis, and there with results by `rpc://` to a'
	echo 'Go client. All tasks ended well, nothing is claimed and no dead letter there at the end. On Redis a Python worker is'
	echo 'killed in any moment but the one in which Celery itself loses a message: after `BRPOP`, before it is in `unacked`.'
	echo '"Last" is the time from the last kill to the last result.'
	echo
	echo '| store | seed | tasks | Go killed | Python killed | runs in Go | runs in Python | run again | seconds | last |'
	echo '|---|---|---|---|---|---|---|---|---|---|'
	grep -o 'kill {.*}' "$log" | sed -E 's/^kill \{|"[a-z_]+": |"|\}$//g; s/, / | /g; s/.*/| & |/' | sort
	echo
	echo '## Far ETAs from Python on RabbitMQ'
	echo
	echo 'Tasks for the next day, sent by Python to a classic queue with plain ones behind them, and a worker of two slots that'
	echo 'is started then. "Behind" is the time until the plain ones have run; the rates are those of as many plain tasks with no'
	echo 'other before, and while all the others are parked. Memory is that of the process: before, at most, and after.'
	echo
	echo '| date | commit | parked | plain | behind | tasks/s before | tasks/s while parked | MiB before | most | after |'
	echo '|---|---|---|---|---|---|---|---|---|---|'
	grep -o 'eta {.*}' "$log" | sed -E "s/eta \{\"parked\": ([0-9]+), \"plain\": ([0-9]+), \"behind\": \"([^\"]*)\", \"rate_before\": ([0-9]+), \"rate_parked\": ([0-9]+), \"mib_before\": ([0-9]+), \"mib_most\": ([0-9]+), \"mib_after\": ([0-9]+)\}/| $(date -u +%F) | $(git rev-parse --short HEAD) | \1 | \2 | \3 | \4 | \5 | \6 | \7 | \8 |/"
} > docs/battery.md
if [ -n "$failed" ]; then
	echo "A part of the battery failed; docs/battery.md has the others." >&2
	exit 1
fi
