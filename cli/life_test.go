package cli_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/user"
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
	for !strings.Contains(w.output(), "ready") {
		<-w.more
	}
	deadline := time.Now().Add(10 * time.Second)
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
	w.sees("connection lost; trying to connect again")
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

// TestSystemd: what systemd is told, from the first start over a restart in
// place to the end.
func TestSystemd(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	hears := func(want string) {
		t.Helper()
		if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		var all []string
		for buf := make([]byte, 4096); ; {
			n, err := conn.Read(buf)
			if err != nil {
				t.Fatalf("not told %q: %v; told %q", want, err, all)
			}
			all = append(all, string(buf[:n]))
			if slices.ContainsFunc(strings.Split(string(buf[:n]), "\n"), func(line string) bool { return strings.HasPrefix(line, want) }) {
				return
			}
		}
	}
	p := newProgram(t)
	p.env = append(p.env, "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=100000")
	w := p.worker("-q", "-l", "info", "-n", "w1@box", "-c", "3")
	hears("READY=1")
	hears("WATCHDOG=1")
	hears("WATCHDOG=1")
	w.signal(syscall.SIGHUP)
	hears("RELOADING=1")
	hears("READY=1")
	w.signal(syscall.SIGTERM)
	hears("STOPPING=1")
	if code := w.wait(); code != 0 {
		t.Errorf("exit code %d: %s", code, w.output())
	}
	if strings.Count(w.output(), "w1@box ready.") != 2 {
		t.Errorf("the log is %s", w.output())
	}
}

// TestRestartTakesTheNewFile: SIGHUP starts what the program's file is by then,
// where the program was started.
func TestRestartTakesTheNewFile(t *testing.T) {
	t.Parallel()
	p, dir := newProgram(t), t.TempDir()
	p.self = filepath.Join(dir, "proj")
	copyProgram(t, p.self)
	w := p.worker("-l", "info", "--workdir", dir, "-n", "w1@box")
	w.sees("w1@box ready.")
	next := filepath.Join(dir, "next")
	if err := os.WriteFile(next, []byte("#!/bin/sh\necho version 2 in $PWD: $*\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, p.self); err != nil {
		t.Fatal(err)
	}
	w.signal(syscall.SIGHUP)
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	w.sees("version 2 in " + here + ": worker -l info --workdir " + dir + " -n w1@box")
	if code := w.wait(); code != 0 {
		t.Errorf("exit code %d: %s", code, w.output())
	}
}

// TestUser: root gives a worker to another user before it opens anything; who is
// not root is told so.
func TestUser(t *testing.T) {
	t.Parallel()
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	p := newProgram(t)
	dir := t.TempDir()
	if os.Geteuid() != 0 {
		if code, _, stderr := p.run("worker", "--uid", "nobody"); code != cli.ExitUsage || !strings.Contains(stderr, "only root may") {
			t.Errorf("exit code %d, %q; want 2 and the reason", code, stderr)
		}
		return
	}
	for _, d := range []string{dir, filepath.Dir(dir), filepath.Dir(p.path), filepath.Dir(filepath.Dir(p.path))} {
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	p.self = filepath.Join(dir, "proj") // where nobody may execute it again
	copyProgram(t, p.self)
	logfile := filepath.Join(dir, "w.log")
	w := p.worker("-l", "info", "--uid", "nobody", "--umask", "077", "-f", logfile)
	w.sees(".> app:")
	deadline := time.Now().Add(20 * time.Second)
	for text := ""; !strings.Contains(text, " ready."); {
		if time.Now().After(deadline) {
			t.Fatalf("not ready: %s%s", text, w.output())
		}
		raw, _ := os.ReadFile(logfile)
		text = string(raw)
		<-time.After(20 * time.Millisecond)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Uid:\t" + strings.Repeat(nobody.Uid+"\t", 3) + nobody.Uid + "\n", "Gid:\t" + strings.Repeat(nobody.Gid+"\t", 3) + nobody.Gid + "\n",
		"Groups:\t" + nobody.Gid, "Umask:\t0077\n",
	} {
		if !strings.Contains(string(status), want) {
			t.Errorf("the process's status lacks %q:\n%s", want, status)
		}
	}
	info, err := os.Stat(logfile)
	if err != nil || info.Mode().Perm() != 0o600 || fmt.Sprint(info.Sys().(*syscall.Stat_t).Uid) != nobody.Uid {
		t.Errorf("the log file is %v of user %v, %v; want 0600 of nobody", info.Mode(), info.Sys(), err)
	}
	w.signal(syscall.SIGHUP) // who is nobody already may say so again
	for deadline := time.Now().Add(20 * time.Second); ; {
		raw, _ := os.ReadFile(logfile)
		if strings.Count(string(raw), " ready.") == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("not ready again: %s%s", raw, w.output())
		}
		<-time.After(20 * time.Millisecond)
	}
	w.signal(syscall.SIGTERM)
	if code := w.wait(); code != 0 {
		t.Errorf("exit code %d: %s", code, w.output())
	}
	for _, c := range [][]string{{"--uid", "no-such-user"}, {"--gid", "no-such-group"}, {"--umask", "888"}, {"--uid", "4000000"}} {
		if code, _, stderr := p.run(append([]string{"worker"}, c...)...); code != cli.ExitUsage || !strings.Contains(stderr, c[1]) {
			t.Errorf("%q: exit code %d, %q; want 2 and the value", c, code, stderr)
		}
	}
	if code, _, stderr := newShell(t).run("worker", "--uid", "nobody"); code != cli.ExitUsage || !strings.Contains(stderr, "cli.Main") {
		t.Errorf("in a process that is not the worker's: exit code %d, %q", code, stderr)
	}
}

func copyProgram(t *testing.T, path string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if os.Link(self, path) == nil {
		return
	}
	text, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o755); err != nil {
		t.Fatal(err)
	}
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
