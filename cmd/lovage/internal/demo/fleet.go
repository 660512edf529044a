package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// How long worker processes may take to start and to stop.
const (
	startTimeout = 30 * time.Second
	stopTimeout  = 10 * time.Second
)

// fleet is the worker processes of one run. A process that ends without being
// asked to calls lost. It is safe for concurrent use.
type fleet struct {
	argv []string // of a worker process, without its flags
	dir  string   // of the logs
	lost func(error)

	mu  sync.Mutex
	all []*child
}

// child is one worker process.
type child struct {
	name    string
	pid     int
	log     string
	readyIn time.Duration

	cmd     *exec.Cmd
	stdin   io.Closer
	ready   chan struct{}
	done    chan struct{} // closed when the process has ended
	err     error         // how, once done is closed
	wanted  atomic.Bool   // the end was asked for
	killed  atomic.Bool   // by SIGKILL
	logFile *os.File
}

// start starts a worker process and waits until it consumes.
func (f *fleet) start(ctx context.Context, c workerConfig) (*child, error) {
	begun := time.Now()
	w, err := f.spawn(c)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	timer := time.NewTimer(startTimeout)
	defer timer.Stop()
	select {
	case <-w.ready:
		w.readyIn = time.Since(begun)
		return w, nil
	case <-w.done:
		return nil, fmt.Errorf("%s ended before it was ready: %w", c.name, w.end())
	case <-timer.C:
		return nil, fmt.Errorf("%s was not ready within %s", c.name, startTimeout)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (f *fleet) spawn(c workerConfig) (*child, error) {
	w := &child{
		name: c.name, log: filepath.Join(f.dir, c.name+".log"),
		ready: make(chan struct{}), done: make(chan struct{}),
	}
	var err error
	if w.logFile, err = os.Create(w.log); err != nil {
		return nil, err
	}
	w.cmd = exec.Command(f.argv[0], append(f.argv[1:len(f.argv):len(f.argv)], c.args()...)...)
	w.cmd.Stdout = &readyWriter{ready: w.ready}
	w.cmd.Stderr = w.logFile
	w.cmd.WaitDelay = time.Second
	dieWithParent(w.cmd)
	if w.stdin, err = w.cmd.StdinPipe(); err == nil { // its end tells the child that we are gone
		err = w.cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(err, w.logFile.Close())
	}
	w.pid = w.cmd.Process.Pid
	f.mu.Lock()
	f.all = append(f.all, w)
	f.mu.Unlock()
	go func() { // waited for by stop and kill, through done
		w.err = w.cmd.Wait()
		w.logFile.Close() // it was the child's; nothing of ours is in it
		close(w.done)
		if !w.wanted.Load() {
			f.lost(fmt.Errorf("%s (pid %d) ended on its own: %w", w.name, w.pid, w.end()))
		}
	}()
	return w, nil
}

// kill ends a worker with SIGKILL and waits until it is gone.
func (w *child) kill() error {
	w.wanted.Store(true)
	w.killed.Store(true)
	if err := w.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s (pid %d): %w", w.name, w.pid, err)
	}
	<-w.done
	return nil
}

// stopAll stops all workers, warm, and those that take too long with SIGKILL.
func (f *fleet) stopAll() error {
	f.mu.Lock()
	all := f.all
	f.mu.Unlock()
	for _, w := range all {
		w.wanted.Store(true)
		w.stdin.Close() // an error means that the process is gone
	}
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	var errs []error
	late := false
	for _, w := range all {
		if !late {
			select {
			case <-w.done:
				continue
			case <-timer.C:
				late = true
			}
		}
		select {
		case <-w.done:
		default:
			errs = append(errs, fmt.Errorf("%s (pid %d) did not stop within %s and was killed", w.name, w.pid, stopTimeout), w.kill())
		}
	}
	return errors.Join(errs...)
}

// end tells how an ended process ended.
func (w *child) end() error {
	if w.err != nil {
		return w.err
	}
	return errors.New("exit status 0")
}

// tail is the end of a worker's log.
func (w *child) tail(lines int) string {
	text, err := os.ReadFile(w.log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// workers are all that were started, the oldest first.
func (f *fleet) workers() []*child {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*child(nil), f.all...)
}

// readyWriter closes ready at the line of that name. It is used by one goroutine.
type readyWriter struct {
	ready chan struct{}
	seen  []byte
	told  bool
}

func (w *readyWriter) Write(p []byte) (int, error) {
	if !w.told {
		w.seen = append(w.seen, p...)
		if bytes.Contains(w.seen, []byte(readyLine+"\n")) {
			w.told = true
			close(w.ready)
		}
		w.seen = w.seen[max(0, len(w.seen)-len(readyLine)):]
	}
	return len(p), nil
}
