package cli_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/cli"
	"github.com/lovage-go/lovage/worker"
)

func TestWorkerHealth(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	address := "unix:" + filepath.Join(t.TempDir(), "h.sock")
	want := func(code int, text string, args ...string) {
		t.Helper()
		if got, stdout, stderr := p.run(append([]string{"worker-health"}, args...)...); got != code || !strings.Contains(stdout+stderr, text) {
			t.Errorf("worker-health %q: exit code %d, %q; want %d and %q", args, got, stdout+stderr, code, text)
		}
	}
	want(cli.ExitUsage, "Missing option '--health'")
	want(cli.ExitUsage, "want seconds", "--health", address, "-t", "0")
	want(cli.ExitUnavailable, "ask "+address, "--health", address)
	w := p.worker("-l", "info", "-n", "w1@box", "--health", address)
	w.sees("w1@box ready.")
	deadline := time.Now().Add(patience)
	for { // the first claim is answered within a moment
		if code, _, _ := p.run("worker-health", "--health", address); code == 0 || time.Now().After(deadline) {
			break
		}
	}
	want(cli.ExitOK, "w1@box is ready.", "--health", address)
	want(cli.ExitOK, "w1@box is live.", "--health", address, "--live")
	want(cli.ExitOK, `{"ok":true,"node":"w1@box"}`, "--health", address, "-j")
	p.env = append(p.env, "LOVAGE_WORKER_HEALTH="+address, "CELERY_BROKER_URL=redis://127.0.0.1:1/0") // it needs no broker
	want(cli.ExitOK, "w1@box is ready.")
	w.signal(syscall.SIGTERM)
	if code := w.wait(); code != 0 {
		t.Errorf("the worker's exit code is %d: %s", code, w.output())
	}
	want(cli.ExitUnavailable, "ask unix:")

	w = p.worker("-n", "w2@box") // by the setting, and its broker is away
	w.sees("cannot connect; trying again")
	want(cli.ExitFailure, "w2@box is not ready: it is not connected to the broker")
	want(cli.ExitFailure, `{"ok":false,"node":"w2@box","reasons":["it is not connected to the broker"]}`, "-j")
	want(cli.ExitOK, "w2@box is live.", "--live")
	if code, _, stderr := p.run("worker", "--health", ":8080"); code != cli.ExitFailure || !strings.Contains(stderr, "public::8080 if that is meant") {
		t.Errorf("a public address: exit code %d, %q", code, stderr)
	}
}

func TestGraphCommand(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.opts = []cli.Option{cli.Worker(func(c *worker.Config) {
		c.Steps = []worker.Step{{Name: "web", Requires: []string{"Pool"}}}
		c.ConsumerSteps = []worker.Step{{Name: "listener", Requires: []string{"Tasks"}}}
	})}
	var b strings.Builder
	b.WriteString(s.transcript("graph", "bootsteps") + "\n")
	b.WriteString(s.transcript("graph", "bootsteps", "consumer") + "\n")
	b.WriteString(s.transcript("graph", "workers", "nodes:w1,w2", "threads:2,9", "broker:amqp://", "backend:redis://") + "\n")
	b.WriteString(s.transcript("graph", "workers", "nodes:a,b,c,d,e,f", "threads:1,1,1,1,1,1", "broker:redis://localhost", "generic", "enumerate", "wmax:3", "tmax:0") + "\n")
	b.WriteString(s.transcript("graph", "bootsteps", "pool") + "\n")
	b.WriteString(s.transcript("graph", "boot") + "\n")
	golden(t, "graph", b.String())
	stop := s.startWorker("-q", "-n", "w7@box", "-c", "2")
	if out := s.ok("graph", "workers"); !strings.Contains(out, `"w7@box" -> "memory://`) || strings.Count(out, `-> "w7@box"`) != 2 {
		t.Errorf("graph workers: %s", out)
	}
	stop()
}

// upper is a handler that shouts.
type upper struct{ slog.Handler }

func (h upper) Handle(ctx context.Context, r slog.Record) error {
	r.Message = strings.ToUpper(r.Message)
	return h.Handler.Handle(ctx, r)
}

func TestLoggingSignals(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.setup = func(app *lovage.App) {
		app.Signals.AfterSetupLogger.Connect(func(_ context.Context, e lovage.AfterSetupLogger) {
			if e.Level != slog.LevelInfo || e.LogFile != "" || e.Colorize {
				t.Errorf("AfterSetupLogger is sent with %+v", e)
			}
			*e.Handler = upper{*e.Handler}
		})
	}
	if _, _, stderr := s.startWorker("-q", "-l", "info", "-n", "w1@box")(); !strings.Contains(stderr, "W1@BOX READY.") {
		t.Errorf("with a wrapped handler: %s", stderr)
	}
	path := filepath.Join(t.TempDir(), "w1.log")
	heard := 0
	s.setup = func(app *lovage.App) {
		app.Signals.SetupLogging.Connect(func(_ context.Context, e lovage.SetupLogging) {
			if heard++; e.LogFile != path || e.Level != slog.LevelDebug {
				t.Errorf("SetupLogging is sent with %+v", e)
			}
		})
	}
	if _, _, stderr := s.startWorker("-q", "-l", "debug", "-n", "w1@box", "-f", filepath.Join(filepath.Dir(path), "%n.log"))(); strings.Contains(stderr, "ready") || heard != 1 {
		t.Errorf("with a program that sets its log up: heard %d, stderr %s", heard, stderr)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the log file is there: %v", err)
	}
}

// TestFilesFromSettings: worker_pidfile and worker_logfile are the flags' defaults.
func TestFilesFromSettings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := newShell(t)
	s.env = []string{"CELERY_WORKER_PIDFILE=" + dir + "/%n.pid", "CELERY_WORKER_LOGFILE=" + dir + "/%n.log"}
	s.setup = func(app *lovage.App) {
		app.Signals.CelerydInit.Connect(func(_ context.Context, e lovage.CelerydInit) { e.Config.WorkerConcurrency = 5 })
	}
	stop := s.startWorker("-l", "info", "-n", "w1@box")
	if _, err := os.Stat(dir + "/w1.pid"); err != nil {
		t.Error(err)
	}
	_, banner, _ := stop()
	if text, err := os.ReadFile(dir + "/w1.log"); err != nil || !strings.Contains(string(text), "w1@box ready.") {
		t.Errorf("the log file has %q, %v", text, err)
	}
	if !strings.Contains(banner, ".> concurrency: 5 (goroutine)") {
		t.Errorf("CelerydInit has no effect: %s", banner)
	}
}

// TestUnitFiles: what the unit files start, the program takes.
func TestUnitFiles(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../docs/systemd/*.service")
	if err != nil || len(files) != 2 {
		t.Fatalf("unit files: got %q, %v, want two", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, command, ok := strings.Cut(string(text), "\nExecStart=/usr/local/bin/proj ")
		command, _, _ = strings.Cut(command, "\n")
		words := slices.DeleteFunc(strings.Fields(command), func(w string) bool { return strings.HasPrefix(w, "$") })
		if code, _, stderr := newShell(t).run(append(words, "--help")...); !ok || code != 0 || len(words) < 6 {
			t.Errorf("%s starts %q: exit code %d, %s", file, words, code, stderr)
		}
		if !strings.Contains(string(text), "\nType=notify\n") {
			t.Errorf("%s is not of Type=notify", file)
		}
	}
}
