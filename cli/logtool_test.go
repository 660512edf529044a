package cli_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/internal/testenv"
)

// TestLogtool reads what a worker of ours and one of Celery's have logged.
func TestLogtool(t *testing.T) {
	t.Parallel()
	const old = `[2024-01-02 03:04:05,678: INFO/MainProcess] Received task: proj.old[lost]
[2024-01-02 03:04:05,679: INFO/MainProcess] Task proj.old[rev] received
[2024-01-02 03:04:05,680: INFO/MainProcess] Discarding revoked task: proj.old[rev]
`
	server := testenv.Redis(t)
	url := server.URL(server.DB(t))
	celery := testenv.CeleryWorker(t, "tasks", fmt.Sprintf(`
from celery import Celery
app = Celery('tasks', broker=%q, backend=%q)

@app.task(name='proj.add')
def add(x, y): return x + y

@app.task(name='proj.fail')
def fail(why): raise ValueError(why)
`, url, url), "-l", "info", "-c", "1")
	client := lovage.New("client", lovage.Config{BrokerURL: url, ResultBackend: url})
	defer client.Close(t.Context())
	for id, c := range map[string]lovage.Args{"good": {Positional: []any{1, 2}}, "bad": {Positional: []any{"boom"}}} {
		name := map[string]string{"good": "proj.add", "bad": "proj.fail"}[id]
		res, err := client.Send(t.Context(), name, c, lovage.TaskID(id))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		_, _ = lovage.ResultOf[any](client, res.ID()).Get(ctx)
		cancel()
	}
	for _, text := range []string{"[good] succeeded", "ValueError: boom"} { // the log comes after the results
		celery.Logs(t, text)
	}
	celery.Stop(t)
	python := celery.Log()

	s := newShell(t)
	s.setup = withFailures
	stop := s.startWorker("-q", "-l", "info", "-c", "1")
	s.run("call", "proj.add", "--args", "[1, 2]", "--wait")
	s.run("call", "proj.fail", "--args", `["boom"]`, "--wait")
	_, _, ours := stop()

	for name, c := range map[string]struct {
		log                          string
		total, failed, good          int
		types, errs, trace, left, of string
	}{
		"Celery": {python, 2, 1, 1, "proj.add: 1\nproj.fail: 1", "] Task proj.fail[bad] raised", "ValueError: boom", "", "celery@"},
		"Ours":   {ours, 2, 1, 1, "proj.add: 1\nproj.fail: 1", "] Task proj.fail[", "", "", " ready."},
		"Old":    {old, 2, 1, 0, "proj.old: 2", "Discarding revoked task: proj.old[rev]", "", "Did not complete: lost\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "worker.log")
			if err := os.WriteFile(path, []byte(c.log), 0o600); err != nil {
				t.Fatal(err)
			}
			want := fmt.Sprintf("\nReport\n======\nTask total: %d\nTask errors: %d\nTask success: %d\nTask completed: %d\nTasks\n=====\n%s\n\n", c.total, c.failed, c.good, c.failed+c.good, c.types)
			if got := s.ok("logtool", "stats", path); got != want {
				t.Errorf("stats: %s, want %s\nof %s", got, want, c.log)
			}
			if got := s.ok("logtool", "errors", path); strings.Count(got, "\n") != c.failed || !strings.Contains(got, c.errs) {
				t.Errorf("errors: %s, want %s", got, c.errs)
			}
			if got := s.ok("logtool", "traces", path); !strings.Contains(got, c.trace) {
				t.Errorf("traces: %s, want %s", got, c.trace)
			}
			if got := s.ok("logtool", "incomplete", path); got != c.left {
				t.Errorf("incomplete: %q, want %q", got, c.left)
			}
			if got := s.ok("logtool", "debug", path); !strings.Contains(got, c.of) || strings.Contains(got, "received") {
				t.Errorf("debug: %s, want %s", got, c.of)
			}
		})
	}
	if code, _, stderr := s.run("logtool", "stats", "/nowhere"); code == 0 || !strings.Contains(stderr, "/nowhere") {
		t.Errorf("a file that is not there: exit code %d, %s", code, stderr)
	}
	if code, _, stderr := s.run("logtool", "stat"); code != 2 || !strings.Contains(stderr, "Did you mean stats?") {
		t.Errorf("a wrong command: exit code %d, %s", code, stderr)
	}
}
