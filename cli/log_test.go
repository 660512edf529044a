package cli_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/cli"
)

// withLines adds a task that logs in all the ways there are.
func withLines(app *lovage.App) {
	lovage.Func(app, "proj.log", func(ctx context.Context, _ struct{}) (string, error) {
		r := lovage.RequestFrom(ctx)
		r.Log().Debug("a detail")
		r.Log().Info("rows read", "rows", 3, "from", "table one", "empty", "")
		r.Log().Info("rows 4, 5 are bad", "rows", []string{"4", "5"}, "tables", []string{"a", "5"})
		r.Log().WithGroup("db").With("host", "a").Warn("slow on a", "ms", 12)
		r.Log().Error("it broke", "traceback", "line 1\nline 2\n")
		r.App().Logger().InfoContext(ctx, "by its context", "group", "x")
		r.App().Logger().Info("by nobody")
		r.App().Logger().Info("for " + r.ID + " itself")
		return "done", nil
	})
}

var clock = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}`)
var unsettled = regexp.MustCompile(`jobs=\d`)
var runtimes = regexp.MustCompile(`succeeded in [0-9.]+s`)

// logged is what a worker logs about one run of proj.log.
func logged(t *testing.T, args ...string) string {
	t.Helper()
	s := newShell(t)
	ran := make(chan struct{}, 1)
	s.setup = func(app *lovage.App) {
		withLines(app)
		app.Signals.TaskPostrun.Connect(func(context.Context, lovage.TaskPostrun) { ran <- struct{}{} })
	}
	stop := s.startWorker(append([]string{"-q", "-n", "w@host", "-c", "2"}, args...)...)
	if got := s.ok("call", "proj.log", "--wait=20", "-q"); got != "done\n" {
		t.Fatalf("got %q, want done", got)
	}
	<-ran // its last line is written
	code, stdout, stderr := stop()
	if code != cli.ExitOK || stdout != "" {
		t.Errorf("exit code %d, stdout %q; want 0 and none", code, stdout)
	}
	return stderr
}

func TestLogLines(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"celery":  {"-l", "INFO"},
		"warning": {},
		"formats": {"-l", "debug", "--without-mingle", "worker_log_format=%(levelname)-8s|%(name)s|%(process)s0%%|%(nothing)s|%(task_id)s %(message)s", "worker_task_log_format=%(task_name)s: %(message)s"},
		"colour":  {"-l", "info", "worker_log_color=true"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := clock.ReplaceAllString(logged(t, args...), "<time>")
			text = runtimes.ReplaceAllString(text, "succeeded in <n>s")
			text = unsettled.ReplaceAllString(text, "jobs=<n>")
			text = strings.ReplaceAll(text, fmt.Sprintf("|%d0%%|", os.Getpid()), "|<pid>0%|")
			golden(t, "log_"+name, strings.ReplaceAll(text, "\x1b", "<esc>"))
		})
	}
}

func TestLogJSON(t *testing.T) {
	t.Parallel()
	found := false
	for line := range strings.Lines(logged(t, "-l", "info", "--json")) {
		var rec map[string]any
		if err := json.Unmarshal([]byte(line), &rec); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		if rec["msg"] == "slow on a" {
			found = true
			if rec["level"] != "WARNING" || rec["task"] != "proj.log" || rec["db"].(map[string]any)["ms"] != 12.0 {
				t.Errorf("got %v, want WARNING with task and db.ms", rec)
			}
		}
	}
	if !found {
		t.Error("the task's line is not there")
	}
}

func TestLogFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if stderr := logged(t, "-l", "info", "-f", filepath.Join(dir, "%n-%h.log")); stderr != "" {
		t.Errorf("stderr %q, want none", stderr)
	}
	text, err := os.ReadFile(filepath.Join(dir, "w-host.log"))
	if err != nil || !strings.Contains(string(text), "proj.log[") {
		t.Errorf("got %q, %v; want the run's lines", text, err)
	}
	s := newShell(t)
	if code, _, stderr := s.run("worker", "-f", filepath.Join(dir, "no", "such.log")); code != cli.ExitFailure || !strings.Contains(stderr, "open the log file") {
		t.Errorf("exit code %d, stderr %q; want 1 and the reason", code, stderr)
	}
}
