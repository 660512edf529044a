package matrix_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/lovage-go/lovage/internal/testenv"
)

var (
	record = flag.Bool("record", false, "run Celery in each cell, and keep what it does: some minutes")
	update = flag.Bool("update", false, "write docs/reliability.md anew")
)

const recording = "testdata/celery.json"

// recorded is what Celery came to in a cell.
type recorded struct {
	End, Settings string
	Again         bool
	State, Fate   string
	Steps, Events []string
}

// TestRecord runs Celery through the matrix, if it is asked to.
func TestRecord(t *testing.T) {
	if !*record {
		t.Log("what was recorded is compared; -record runs Celery again")
		return
	}
	server := testenv.Redis(t)
	ctx, cancel := context.WithTimeout(t.Context(), 9*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/usr/bin/python3", "testdata/record.py", server.URL(server.DB(t)))
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8", "C_FORCE_ROOT=1", "PYTHONDONTWRITEBYTECODE=1"}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(recording, out, 0o644); err != nil {
		t.Fatal(err)
	}
}

func readRecording(t *testing.T) map[cell]outcome {
	t.Helper()
	text, err := os.ReadFile(recording)
	if err != nil {
		t.Fatal(err)
	}
	var list []recorded
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	out := map[cell]outcome{}
	for _, r := range list {
		var s settings
		for i, f := range s.fields() {
			*f = r.Settings[i] == '1'
		}
		if r.Again {
			r.Events = firstRun(r.Events)
		}
		out[cell{end(r.End), s}] = outcome{r.State, r.Fate, r.Steps, r.Events}
	}
	return out
}

func (o outcome) differs(other outcome) (list []string) {
	for _, f := range []struct{ name, a, b string }{
		{"state", o.State, other.State}, {"message", o.Fate, other.Fate},
		{"steps", fmt.Sprint(o.Steps), fmt.Sprint(other.Steps)}, {"events", fmt.Sprint(o.Events), fmt.Sprint(other.Events)},
	} {
		if f.a != f.b {
			list = append(list, f.name)
		}
	}
	return list
}

// difference is a cell in which Celery came to something else.
type difference struct {
	cell
	what   []string // fields of the outcome
	celery outcome
}

// asCelery is where Celery was recorded.
var asCelery = place{"redis", "prefork"}

// recordedAs is the end of the recording that an end is held against.
func recordedAs(e end) end {
	if e == coldDeaf { // Celery asks nobody
		return cold
	}
	return e
}

func compared(celery map[cell]outcome, e end) bool {
	_, ok := celery[cell{recordedAs(e), settings{}}]
	return ok
}

func differences(celery map[cell]outcome) (list []difference) {
	for _, c := range cellsOf(ends...) {
		got, ok := celery[cell{recordedAs(c.end), c.settings}]
		if !ok {
			continue
		}
		if what := got.differs(expect(c, asCelery)); len(what) > 0 {
			list = append(list, difference{c, what, got})
		}
	}
	return list
}

// onPurpose says why an end differs from Celery's.
var onPurpose = map[end]string{
	failure:    "with `acks_on_failure_or_timeout` off Celery rejects the message, which Redis deletes; here it is kept as a dead letter. Celery sends `task-rejected` beside `task-failed`; here an end is one event.",
	soft:       "as for a failure.",
	reject:     "Celery stores nothing, so whoever waits for the result waits for ever, and Redis deletes the message. Here the task is FAILURE, monitors are told, and with late acks the message is a dead letter.",
	requeue:    "Celery cannot put back what it has acknowledged, and drops the task without a word. Here it fails.",
	hard:       "Celery calls no hook of the task. With `acks_on_failure_or_timeout` off its version 5.2 rejects the message, which Redis deletes; here it goes back, as in Celery since `task_acks_on_timeout`.",
	terminated: "Celery's child lives to send `task_postrun`, before or after `task_revoked`; here it is dead. A revoke is stored here for the id, whatever its task keeps.",
	lost:       "Celery calls no hook of the task, and puts a message back as often as it kills; here the losses are counted, and `task_max_worker_losses` ends it. A Celery worker may put back, or run twice, what its child had begun and not told.",
	killed:     "Celery's message waits for the visibility timeout of Redis, an hour; here for the end of the lease.",
	cold:       "Celery loses what it has acknowledged, and stores nothing; here the task fails.",
	coldDeaf:   "as above; and Celery's child sends `task_postrun`, as it has an exception that cannot be ignored.",
}

// TestCelery holds the model against what Celery did: each difference has a reason,
// and each reason a difference.
func TestCelery(t *testing.T) {
	t.Parallel()
	celery := readRecording(t)
	for _, e := range ends {
		if cells := len(allSettings()); compared(celery, e) {
			for _, s := range allSettings() {
				if _, ok := celery[cell{recordedAs(e), s}]; !ok {
					t.Errorf("%s: one of %d cells is not in the recording: %s", e, cells, s)
				}
			}
		}
	}
	found := map[end]bool{}
	for _, d := range differences(celery) {
		found[d.end] = true
		if onPurpose[d.end] == "" {
			t.Errorf("%s:\nCelery %v\n  ours %v", d.cell, d.celery, expect(d.cell, asCelery))
		}
	}
	for e := range onPurpose {
		if !found[e] {
			t.Errorf("%s: there is a reason, and Celery does the same", e)
		}
	}
}
