package testenv

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// python is where apt puts Celery; another interpreter may come first on the PATH.
const python = "/usr/bin/python3"

// Python runs a script with real Celery at hand, in a directory of its own that
// also holds the modules given by name, and returns what it printed.
func Python(t testing.TB, ctx context.Context, modules map[string]string, script string, args ...string) []byte {
	t.Helper()
	cmd := pythonCommand(t, ctx, modules, append([]string{"-c", script}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("python: %v\n%s%s", err, out, stderr.Bytes())
	}
	return out
}

// CeleryWorker starts a worker of a module's app and returns when it is ready.
// It is stopped, warm, at the end of the test.
func CeleryWorker(t testing.TB, module, source string, args ...string) *CeleryProcess {
	t.Helper()
	return startWorker(t, pythonCommand(t, context.Background(), map[string]string{module: source},
		append([]string{"-m", "celery", "-A", module, "worker", "-l", "INFO"}, args...)...), false)
}

// Again starts this test program once more, as a worker, with a variable in its
// environment for TestMain to see. It returns when the worker logs that it is
// ready; the process is stopped, warm, at the end of the test.
func Again(t testing.TB, key, value string) *CeleryProcess {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(cmd.Environ(), key+"="+value)
	return startWorker(t, cmd, true)
}

func startWorker(t testing.TB, cmd *exec.Cmd, ours bool) *CeleryProcess {
	t.Helper()
	w := &CeleryProcess{ours: ours, ready: make(chan struct{})}
	var err error
	if w.proc, err = startProcessTo(cmd, w); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Stop(t) })
	select {
	case <-w.ready:
	case <-w.proc.done:
		t.Fatalf("the worker ended at once:\n%s", w.Log())
	case <-time.After(patience):
		t.Fatalf("the worker is not ready after %s:\n%s", patience, w.Log())
	}
	return w
}

// CeleryProcess is a running worker, of Celery or of ours.
type CeleryProcess struct {
	ours  bool // runs this test program
	proc  *process
	ready chan struct{}

	mu      sync.Mutex
	log     strings.Builder
	isReady bool
}

// Write takes what the worker prints.
func (w *CeleryProcess) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log.Write(p)
	if !w.isReady && strings.Contains(w.log.String(), " ready.") {
		w.isReady = true
		close(w.ready)
	}
	return len(p), nil
}

// Log is what the worker has printed so far.
func (w *CeleryProcess) Log() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.String()
}

// Logs waits until the worker has printed one of the texts.
func (w *CeleryProcess) Logs(t testing.TB, texts ...string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for late := time.Now().Add(patience); ; <-tick.C {
		log := w.Log()
		if slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(log, text) }) {
			return
		}
		if time.Now().After(late) {
			t.Fatalf("the worker does not log any of %q:\n%s", texts, log)
		}
	}
}

// Kill kills the worker at once.
func (w *CeleryProcess) Kill() { w.proc.kill() }

// Signal sends the worker a signal, if it has not ended.
func (w *CeleryProcess) Signal(s os.Signal) { _ = w.proc.cmd.Process.Signal(s) }

// Stop lets the worker end what it has, and kills it if it does not stop. Of a
// worker of ours that is a failure. Celery's may wait on a connection for ever, or
// miss the signal: Celery 5.2 raises WorkerShutdown out of the signal's handler,
// wherever the main thread is, and Python drops it in a __del__ (celery#7339). A
// test of what a Celery worker does as it goes asks for it by remote control.
func (w *CeleryProcess) Stop(t testing.TB) {
	t.Helper()
	limit := 15 * time.Second
	if w.ours {
		limit = patience
	}
	w.Signal(os.Interrupt)
	select {
	case <-w.proc.done:
	case <-time.After(limit):
		w.proc.kill()
		if w.ours {
			t.Errorf("the worker did not stop:\n%s", w.Log())
			return
		}
		t.Logf("Celery's worker did not stop within %s and was killed:\n%s", limit, w.Log())
	}
}

func pythonCommand(t testing.TB, ctx context.Context, modules map[string]string, args ...string) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	for name, source := range modules {
		if err := os.WriteFile(filepath.Join(dir, name+".py"), []byte(source), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(python); errors.Is(err, os.ErrNotExist) {
		t.Fatalf("this test needs %s with Celery, which `make test` installs (scripts/deps.sh celery)", python)
	}
	cmd := exec.CommandContext(ctx, python, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8", "PYTHONPATH=" + dir, "C_FORCE_ROOT=1", "PYTHONDONTWRITEBYTECODE=1"}
	return cmd
}

// PythonSession is a Python process that answers line by line. It is safe for
// concurrent use.
type PythonSession struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr bytes.Buffer
	mu     sync.Mutex // one question at a time
}

// StartPython starts a script that answers each line of its input with one; it
// ends with the test.
func StartPython(t testing.TB, modules map[string]string, script string) *PythonSession {
	t.Helper()
	s := &PythonSession{cmd: pythonCommand(t, context.Background(), modules, "-c", script)}
	s.cmd.Stderr, s.cmd.SysProcAttr = &s.stderr, dieWithParent()
	in, err := s.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.in, s.out = in, bufio.NewReaderSize(out, 1<<20)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.in.Close()
		stop := time.AfterFunc(patience, func() { _ = s.cmd.Process.Kill() })
		defer stop.Stop()
		if err := s.cmd.Wait(); err != nil {
			t.Errorf("python: %v\n%s", err, s.stderr.Bytes())
		}
	})
	return s
}

// Ask sends a line and returns the one that answers it. A process that does not
// answer within two minutes is killed.
func (s *PythonSession) Ask(line []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stop := time.AfterFunc(2*patience, func() { _ = s.cmd.Process.Kill() })
	defer stop.Stop()
	if _, err := s.in.Write(append(line, '\n')); err != nil {
		return nil, fmt.Errorf("python: %w: %s", err, s.stderr.Bytes())
	}
	answer, err := s.out.ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("python: %w: %s", err, s.stderr.Bytes())
	}
	return answer, nil
}
