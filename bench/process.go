package main

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
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a child: a worker or a server. It dies with this program.
type process struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Scanner
	out   *tail
	ended chan struct{}
	took  time.Duration // from start to ready
}

// start starts a command and waits for a line on its standard output that is
// the word ready; with an empty word it waits for nothing.
func start(ctx context.Context, cmd *exec.Cmd, ready string) (*process, error) {
	p := &process{cmd: cmd, out: &tail{}, ended: make(chan struct{})}
	cmd.Stderr = p.out
	cmd.SysProcAttr = dieWithParent(cmd.SysProcAttr)
	var err error
	if p.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	said := make(chan struct{})
	if ready == "" {
		cmd.Stdout = p.out
		close(said)
	} else {
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		p.lines = bufio.NewScanner(out)
	}
	began := time.Now()
	started := make(chan error, 1)
	go func() {
		// Linux sends the death signal when the thread ends that started the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.ended)
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		if p.lines != nil {
			once := sync.OnceFunc(func() { p.took = time.Since(began); close(said) })
			for p.lines.Scan() {
				if p.lines.Text() == ready {
					once()
				}
			}
		}
		_ = cmd.Wait() // it is stopped, or its output tells why it ended
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	select {
	case <-said:
		return p, nil
	case <-p.ended:
		return nil, fmt.Errorf("%s ended before it was ready: %s", cmd.Path, p.out)
	case <-ctx.Done():
		p.stop()
		return nil, context.Cause(ctx)
	case <-time.After(time.Minute):
		p.stop()
		return nil, fmt.Errorf("%s is not ready after a minute: %s", cmd.Path, p.out)
	}
}

// stop asks the process to end, by the end of its input and by SIGTERM, and
// kills it if it does not.
func (p *process) stop() {
	p.in.Close()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(15 * time.Second):
		for _, pid := range p.tree() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		<-p.ended
	}
}

// usage is what a process and its children have used.
type usage struct {
	cpu time.Duration // user and system
	rss float64       // MiB
}

// usage reads /proc.
func (p *process) usage() (u usage, err error) {
	for _, pid := range p.tree() {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return u, err
		}
		_, after, _ := bytes.Cut(stat, []byte(") "))
		f := strings.Fields(string(after))
		for _, at := range []int{11, 12} { // utime, stime; in ticks of 1/100 s
			ticks, err := strconv.Atoi(f[at])
			if err != nil {
				return u, err
			}
			u.cpu += time.Duration(ticks) * 10 * time.Millisecond
		}
		pages, err := strconv.Atoi(f[21])
		if err != nil {
			return u, err
		}
		u.rss += float64(pages*os.Getpagesize()) / (1 << 20)
	}
	return u, nil
}

// tree are the process and all that come from it.
func (p *process) tree() []int {
	out := []int{p.cmd.Process.Pid}
	for i := 0; i < len(out); i++ {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", out[i]))
		for _, t := range tasks {
			text, _ := os.ReadFile(t)
			for _, f := range strings.Fields(string(text)) {
				if pid, err := strconv.Atoi(f); err == nil && !slices.Contains(out, pid) {
					out = append(out, pid)
				}
			}
		}
	}
	return out
}

func dieWithParent(a *syscall.SysProcAttr) *syscall.SysProcAttr {
	if a == nil {
		a = &syscall.SysProcAttr{}
	}
	a.Pdeathsig = syscall.SIGKILL
	return a
}

// tail keeps the last of what a process printed. It is safe for concurrent use.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if over := len(t.text) - 4096; over > 0 {
		t.text = t.text[over:]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}
