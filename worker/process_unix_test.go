//go:build unix

package worker_test

import (
	"strings"
	"syscall"
	"testing"
)

// TestHangup: SIGHUP lets what runs end and executes the program again, as the
// same process.
func TestHangup(t *testing.T) {
	t.Parallel()
	p := begin(t, again(t, "signals", "short"))
	for range 3 {
		p.says("running")
		p.signal(syscall.SIGHUP)
		p.logs("Restarting, told by SIGHUP")
		p.says("ended by itself")
	}
	p.says("running") // the fourth program of this process
	p.signal(syscall.SIGTERM)
	p.logs("Warm shutdown")
	p.says("ended by itself")
	p.says("gone")
	if err := p.cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// TestCry: SIGUSR1 tells what the worker is at, and stops nothing.
func TestCry(t *testing.T) {
	t.Parallel()
	p := begin(t, again(t, "signals", "wait"))
	p.says("running")
	for range 2 {
		p.signal(syscall.SIGUSR1)
		line := p.logs("told by SIGUSR1")
		for _, want := range []string{"1 running", "ready", "t.sleep[", "goroutine ", "worker_test.signalled"} {
			if !strings.Contains(line, want) {
				t.Errorf("the log lacks %q: %s", want, line)
			}
		}
	}
	p.signal(syscall.SIGQUIT)
	p.logs("Cold shutdown")
	p.says("cancelled: worker shutting down (cold)")
	p.says("gone")
	if err := p.cmd.Wait(); err != nil {
		t.Error(err)
	}
}
