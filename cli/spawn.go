package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// multiStart is how long a node may take to hold its pid file.
const multiStart = 30 * time.Second

// launch starts a node and tells how it went; it returns 1 for a failure.
func (m *multi) launch(n *node) int {
	err := m.spawn(n)
	m.note("%s\n", m.verdict(err == nil))
	if m.verbose {
		m.note("  %s\n", n.commandLine())
	}
	if err != nil {
		fmt.Fprintf(m.s.err, "* %s: %v\n", n.name, err)
		return 1
	}
	return 0
}

// spawn starts the process of a node and waits until it holds its pid file.
func (m *multi) spawn(n *node) error {
	if pid := readPid(n.pidfile); pid > 0 && alive(pid) {
		return fmt.Errorf("it runs already, as process %d (%s)", pid, n.pidfile)
	}
	for _, dir := range n.directories() {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make its directory: %w", err)
		}
	}
	log, err := os.OpenFile(n.logfile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open its log file: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(n.executable, n.argv...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, detached()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start it: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends with this process, if not with the node
	poll, limit := time.NewTicker(multiPoll/2), time.NewTimer(multiStart)
	defer poll.Stop()
	defer limit.Stop()
	for {
		select {
		case err := <-ended:
			return fmt.Errorf("it ended at once (%s): see %s", or(errorText(err), "exit status 0"), n.logfile)
		case <-poll.C:
			if readPid(n.pidfile) == cmd.Process.Pid {
				return nil
			}
		case <-limit.C:
			return fmt.Errorf("it does not hold its pid file %s after %s, and goes on: see %s", n.pidfile, multiStart, n.logfile)
		case <-m.ctx.Done():
			return context.Cause(m.ctx)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// readPid is the process id of a file, 0 if there is none.
func readPid(path string) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 0 {
		return 0
	}
	return pid
}

func signalPid(pid int, sig os.Signal) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	if err := p.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}
