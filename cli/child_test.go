package cli_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	_ "github.com/lovage-go/lovage/backend/sqlbackend"
	_ "github.com/lovage-go/lovage/broker/sqlbroker"
	"github.com/lovage-go/lovage/cli"
	"github.com/lovage-go/lovage/internal/proc"
)

// patience is how long anything is waited for.
const patience = time.Minute

// childKey makes this test binary the program under test.
const childKey = "PROJ_CLI_TEST"

func TestMain(m *testing.M) {
	if os.Getenv(childKey) == "" {
		if signal.Ignored(syscall.SIGHUP) { // by nohup: the programs started here would leave it alone too
			signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
		}
		os.Exit(m.Run())
	}
	app := lovage.New("proj", lovage.Config{})
	lovage.Func(app, "proj.add", add)
	lovage.Func(app, "proj.hang", func(ctx context.Context, _ struct{}) (string, error) {
		lovage.RequestFrom(ctx).Log().Warn("hanging", "pid", "its own")
		<-ctx.Done()
		return "", context.Cause(ctx)
	})
	lovage.Func(app, "proj.deaf", func(context.Context, struct{}) (string, error) { select {} }, lovage.TimeLimit(500*time.Millisecond))
	cli.Main(app)
}

// program runs this test binary as ./proj on one SQLite file.
type program struct {
	t    *testing.T
	env  []string
	path string // of the store
	self string // the program, if not this test binary
}

func newProgram(t *testing.T) *program {
	path := filepath.Join(t.TempDir(), "proj.db")
	url := "sqlite://" + path
	return &program{t: t, path: path, env: append(os.Environ(), childKey+"=1", "NO_COLOR=1", "CELERY_BROKER_URL="+url, "CELERY_RESULT_BACKEND="+url)}
}

func (p *program) command(ctx context.Context, args ...string) *exec.Cmd {
	self := p.self
	if self == "" {
		var err error
		if self, err = os.Executable(); err != nil {
			p.t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = p.env
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// run is one command from start to end.
func (p *program) run(args ...string) (code int, stdout, stderr string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	cmd := p.command(ctx, args...)
	var out, errw bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errw
	return exitCode(p.t, cmd.Run()), out.String(), errw.String()
}

func exitCode(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	t.Fatal(err)
	return -1
}

// workerProcess is a worker that has been started.
type workerProcess struct {
	t      *testing.T
	cmd    *exec.Cmd
	cancel context.CancelFunc

	mu    sync.Mutex // guards lines
	lines []string
	more  chan struct{}
	ended chan struct{}
}

func (p *program) worker(args ...string) *workerProcess {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.t.Context()), 3*patience)
	w := &workerProcess{t: p.t, cmd: p.command(ctx, append([]string{"worker"}, args...)...), cancel: cancel, more: make(chan struct{}, 1), ended: make(chan struct{})}
	r, pipe, err := os.Pipe()
	if err != nil {
		p.t.Fatal(err)
	}
	w.cmd.Stdout, w.cmd.Stderr = pipe, pipe
	if err := w.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	pipe.Close()
	go func() {
		defer close(w.ended)
		defer r.Close()
		for s := bufio.NewScanner(r); s.Scan(); {
			w.mu.Lock()
			w.lines = append(w.lines, s.Text())
			w.mu.Unlock()
			select {
			case w.more <- struct{}{}:
			default:
			}
		}
	}()
	p.t.Cleanup(func() { cancel(); <-w.ended })
	return w
}

func (w *workerProcess) output() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.lines, "\n")
}

// sees waits until the worker has printed text.
func (w *workerProcess) sees(text string) {
	w.t.Helper()
	w.until(strconv.Quote(text), func(output string) bool { return strings.Contains(output, text) })
}

// until waits until what the worker has printed is as it is to be.
func (w *workerProcess) until(what string, is func(output string) bool) {
	w.t.Helper()
	deadline := time.After(patience)
	for !is(w.output()) {
		select {
		case <-w.more:
		case <-w.ended:
			if !is(w.output()) {
				w.t.Fatalf("the worker ended (%v) without %s:\n%s", w.cmd.ProcessState, what, w.output())
			}
		case <-deadline:
			w.t.Fatalf("no %s within %s:\n%s", what, patience, w.output())
		}
	}
}

func (w *workerProcess) signal(s os.Signal) {
	w.t.Helper()
	if err := w.cmd.Process.Signal(s); err != nil {
		w.t.Fatal(err)
	}
}

// wait is the exit code of the worker.
func (w *workerProcess) wait() int {
	w.t.Helper()
	<-w.ended
	return exitCode(w.t, w.cmd.Wait())
}

func TestWorkerProcess(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	pidfile := filepath.Join(t.TempDir(), "worker.pid")
	w := p.worker("-l", "info", "-c", "2", "-n", "w1@%h", "--pidfile", pidfile)
	w.sees(" ready.")

	code, stdout, stderr := p.run("call", "proj.add", "-a", "[2, 3]", "--wait=20", "-q")
	if code != cli.ExitOK || stdout != "5\n" || stderr != "" {
		t.Errorf("call --wait: exit code %d, stdout %q, stderr %q; want 0, 5 and nothing", code, stdout, stderr)
	}
	code, stdout, _ = p.run("status", "-t", "60", "-j", "-d", proc.NodeName("w1@%h", ""))
	if code != cli.ExitOK || !strings.Contains(stdout, `"w1@`) {
		t.Errorf("status: exit code %d, stdout %q; want 0 and w1", code, stdout)
	}
	if code, _, stderr := p.run("worker", "--pidfile", pidfile); code != cli.ExitFailure || !strings.Contains(stderr, "is held by process") {
		t.Errorf("a second worker on the pid file: exit code %d, stderr %q; want 1 and the reason", code, stderr)
	}
	w.signal(syscall.SIGTERM)
	if code := w.wait(); code != cli.ExitOK {
		t.Errorf("SIGTERM: exit code %d, want 0:\n%s", code, w.output())
	}
	if _, err := os.Stat(pidfile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pid file is still there: %v", err)
	}
	for _, want := range []string{".> app:         proj", ".> concurrency: 2 (goroutine)", ".> celery ", "  . proj.add", ": INFO/MainProcess] Task proj.add[", "] received", "] succeeded in "} {
		if !strings.Contains(w.output(), want) {
			t.Errorf("the worker's output lacks %q:\n%s", want, w.output())
		}
	}
}

func TestSecondSignalIsCold(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	w := p.worker("-q")
	code, id, _ := p.run("call", "proj.hang")
	if code != cli.ExitOK {
		t.Fatalf("call: exit code %d, want 0", code)
	}
	w.sees("proj.hang[" + strings.TrimSpace(id) + "]: hanging")
	w.signal(syscall.SIGINT)
	w.sees("Warm shutdown")
	w.signal(syscall.SIGINT)
	if code := w.wait(); code != cli.ExitFailure {
		t.Errorf("exit code %d, want 1:\n%s", code, w.output())
	}
	if code, out, _ := p.run("queues", "celery", "-j"); code != 0 || !strings.Contains(out, `"ready":1,"claimed":0`) {
		t.Errorf("queues: exit code %d, %q; want the message back in its queue", code, out)
	}
}

// TestStuckTasksEndTheWorker: what ignores its hard limit cannot be killed in a
// goroutine. A supervisor learns by the exit code that a fresh process is wanted.
func TestStuckTasksEndTheWorker(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	w := p.worker("-c", "1", "--stuck-limit=2")
	for range 2 {
		if code, _, _ := p.run("call", "proj.deaf"); code != cli.ExitOK {
			t.Fatalf("call: exit code %d, want 0", code)
		}
	}
	if code := w.wait(); code != cli.ExitStuck {
		t.Errorf("exit code %d, want 75:\n%s", code, w.output())
	}
	w.sees("too many runs ignore their hard time limit")
	if code, out, _ := p.run("queues", "celery", "-j"); code != 0 || !strings.Contains(out, `"ready":0,"claimed":0`) {
		t.Errorf("queues: exit code %d, %q; want nothing left", code, out)
	}
}

func TestPreforkProcess(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	w := p.worker("-l", "info", "-P", "processes", "-c", "2", "--max-tasks-per-child=1", "-n", "w1@%h")
	w.sees(" ready.")
	for range 2 {
		code, stdout, stderr := p.run("call", "proj.add", "-a", "[2, 3]", "--wait=20", "-q")
		if code != cli.ExitOK || stdout != "5\n" || stderr != "" {
			t.Errorf("call --wait: exit code %d, stdout %q, stderr %q; want 0, 5 and nothing", code, stdout, stderr)
		}
	}
	w.sees(" is replaced: it has run 1 tasks (worker_max_tasks_per_child)")
	if code, _, _ := p.run("call", "proj.hang"); code != cli.ExitOK {
		t.Fatalf("call: exit code %d, want 0", code)
	}
	w.sees("]: hanging pid=\"its own\"") // and not taken for the child's
	w.signal(syscall.SIGTERM)
	w.sees("Warm shutdown")
	w.signal(syscall.SIGTERM)
	if code := w.wait(); code != cli.ExitFailure {
		t.Errorf("the second SIGTERM: exit code %d, want 1:\n%s", code, w.output())
	}
	for _, want := range []string{".> concurrency: 2 (prefork)", ": INFO/MainProcess] Task proj.add[", ": INFO/ForkPoolWorker-", ": WARNING/ForkPoolWorker-"} {
		if !strings.Contains(w.output(), want) {
			t.Errorf("the worker's output lacks %q:\n%s", want, w.output())
		}
	}
}
