package battery_test

import (
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
)

// outcome is what the result store says of a task.
type outcome struct {
	state lovage.State
	kind  string
}

// states are those of the tasks that were sent, and of later steps of chains.
func (f *fleet) states(a account) map[string]outcome {
	f.Helper()
	back, err := f.judge.app.Backend(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	ids := slices.Clone(a.sent)
	for _, id := range a.sent {
		if fateOf(id, f.Mix).name == "chain" {
			ids = append(ids, steps(id)...)
		}
	}
	all := make(map[string]outcome, len(ids))
	for chunk := range slices.Chunk(ids, 500) {
		recs, err := back.Fetch(f.Context(), chunk...)
		if err != nil {
			f.Fatal(err)
		}
		for i, id := range chunk {
			var meta struct {
				Result any `json:"result"`
			}
			_ = json.Unmarshal(recs[i].Meta, &meta) // of one that is not there
			exc, _ := meta.Result.(map[string]any)
			kind, _ := exc["exc_type"].(string)
			all[id] = outcome{recs[i].State, kind}
		}
	}
	return all
}

// givenUp are the tasks whose messages are dead letters.
func (f *fleet) givenUp() map[string]bool {
	f.Helper()
	dead, err := f.conn.(broker.DeadLetterer).DeadLetters(f.Context(), "celery", "", 100_000)
	if err != nil && !errors.Is(err, broker.ErrUnsupported) {
		f.Fatal(err)
	}
	ids := map[string]bool{}
	for _, d := range dead {
		ids[d.TaskID] = true
	}
	return ids
}

// unmeant are last words of a process that no task wanted.
var unmeant = regexp.MustCompile(`(?m)^(panic: |fatal error: ).*|^.*DATA RACE.*`)

// verify holds the ledger against the stores.
func (f *fleet) verify() {
	f.Helper()
	wrong := 0
	bad := func(format string, args ...any) {
		if wrong++; wrong <= 20 {
			f.Errorf(format, args...)
		}
	}
	a := readLedger(f.T, f.Ledger)
	f.Confirmed = len(a.sent)
	states, givenUp := f.states(a), f.givenUp()
	for _, id := range a.early {
		bad("task %s ran before its time", id)
	}
	for _, id := range a.sent {
		ft, got := fateOf(id, f.Mix), states[id]
		if givenUp[id] && !ft.kills && ft.name != "reject" && f.Mix == "crash" {
			// How often it was started says nothing: a loss is counted just
			// before an orphan starts again, and the process may die between the
			// two, of a kill or of what it started beside it.
			f.GivenUp++
			if got.state != lovage.Failure {
				bad("task %s was given up and its state is %q, want FAILURE", id, got.state)
			}
			continue
		}
		if got.state != ft.state || ft.kind != "" && got.kind != ft.kind {
			bad("task %s, meant to %s: state %q %s, want %q %s", id, ft.name, got.state, got.kind, ft.state, ft.kind)
		}
		starts := a.starts[id+" 0"]
		switch {
		case ft.kills:
			f.Poisoned++
			if starts > 3 {
				bad("killer %s started %d times, want 3 at most", id, starts)
			}
		case ft.name == "link":
			if n := len(a.callbacks[id]); n != 1 && !(n > 1 && f.resends) {
				bad("task %s: its callback was sent %d times, want once:\n%s%s", id, n, mentions(f.Ledger, id), mentions(logOf(f.dir), id))
			}
		case ft.name == "chain":
			for _, step := range steps(id) {
				if s := states[step]; s.state != lovage.Success || len(a.callbacks[step]) != 1 {
					bad("step %s of a chain: state %q, %d ids, want one SUCCESS", step, s.state, len(a.callbacks[step]))
				}
			}
		}
		// A loss is counted just before an orphan starts, and another killer may
		// be faster; a hard limit may come before a busy machine has a child run.
		if starts == 0 && !ft.kills && ft.kind != "TimeLimitExceeded" {
			bad("task %s has come to its end and never started", id)
		}
		if ft.state != lovage.Failure && !a.ends[id] {
			bad("task %s never ran to its end", id)
		}
	}
	for key, n := range a.starts {
		if id, _, _ := strings.Cut(key, " "); !fateOf(id, f.Mix).kills {
			f.Restarts += n - 1
		}
	}
	if most := (f.Kills + f.Stops + f.Children + 3*f.Poisoned + f.Drops*len(f.workers)) * f.Slots * 2; f.Restarts > most {
		bad("%d runs were repeated, more than %d slots were lost", f.Restarts, most)
	}
	if deaths := f.Kills + 3*f.Poisoned; f.GivenUp > 2+deaths/6 {
		bad("%d innocent tasks were given up in %d deaths, more than %d are no accident", f.GivenUp, deaths, 2+deaths/6)
	}
	log, err := os.ReadFile(logOf(f.dir))
	if err != nil {
		f.Fatal(err)
	}
	for _, line := range unmeant.FindAllString(string(log), -1) {
		if !strings.Contains(line, "meant to, alone") && !strings.HasPrefix(line, "fatal error: stack overflow") && !strings.Contains(line, "memory") && !strings.Contains(line, "address space") {
			bad("the log has %q: see -keeplog", line)
		}
	}
}
