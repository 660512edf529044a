//go:build unix

package cli_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMulti is the life of two workers in the background.
func TestMulti(t *testing.T) {
	t.Parallel()
	p, dir := newProgram(t), t.TempDir()
	multi := func(wantCode int, command string, more ...string) string {
		t.Helper()
		args := append([]string{"multi", command, "w1@box", "w2@box", "--pidfile=" + dir + "/run/%n.pid", "--logfile=" + dir + "/log/%n%I.log", "-l", "INFO", "-c:1", "3"}, more...)
		code, stdout, stderr := p.run(args...)
		if code != wantCode {
			t.Fatalf("multi %s: exit code %d, want %d: %s%s", command, code, wantCode, stdout, stderr)
		}
		return stdout + stderr
	}
	pid := func(node string) int {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, "run", node+".pid"))
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	t.Cleanup(func() {
		for _, node := range []string{"w1", "w2"} {
			if text, err := os.ReadFile(filepath.Join(dir, "run", node+".pid")); err == nil {
				if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && n > 1 {
					_ = syscall.Kill(n, syscall.SIGKILL)
				}
			}
		}
	})
	logs := func(node, want string, times int) {
		t.Helper()
		deadline := time.Now().Add(patience)
		for {
			text, err := os.ReadFile(filepath.Join(dir, "log", node+".log"))
			if err == nil && strings.Count(string(text), want) >= times {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("no %q in the log of %s (%v):\n%s", want, node, err, text)
			}
			<-time.After(20 * time.Millisecond)
		}
	}
	log := func(node, want string) { t.Helper(); logs(node, want, 1) }

	if out := multi(0, "start"); !strings.Contains(out, "> w1@box: OK") || !strings.Contains(out, "> w2@box: OK") {
		t.Errorf("start: %s", out)
	}
	first := pid("w1")
	if session, err := syscall.Getpgid(first); err != nil || session != first {
		t.Errorf("the worker's process group is %d, %v; want its own, %d", session, err, first)
	}
	log("w1", ".> concurrency: 3 (goroutine)")
	log("w1", "w1@box ready.")
	log("w2", "w2@box ready.")
	if code, stdout, _ := p.run("call", "proj.add", "-a", "[2, 3]", "--wait=20", "-q"); code != 0 || stdout != "5\n" {
		t.Errorf("call: exit code %d, %q", code, stdout)
	}
	if out := multi(1, "start"); strings.Count(out, "it runs already, as process") != 2 {
		t.Errorf("a second start: %s", out)
	}
	if out := multi(0, "restart"); strings.Count(out, "> Restarting node") != 2 || strings.Count(out, ": OK") != 4 {
		t.Errorf("restart: %s", out)
	}
	if pid("w1") == first {
		t.Error("the worker is still the one from before the restart")
	}
	logs("w1", "w1@box ready.", 2) // a node holds its pid file before it hears SIGHUP
	second := pid("w1")
	if err := syscall.Kill(second, syscall.SIGHUP); err != nil { // it has no terminal: it restarts in place
		t.Fatal(err)
	}
	log("w1", "Restarting, told by SIGHUP")
	if pid("w1") != second {
		t.Error("the pid file changes while the worker restarts in place")
	}
	logs("w1", "w1@box ready.", 3)
	if out := multi(0, "stopwait", "-QUIT"); !strings.Contains(out, "QUIT -> ") || strings.Count(out, "DOWN") != 2 {
		t.Errorf("stopwait: %s", out)
	}
	for _, node := range []string{"w1", "w2"} {
		if _, err := os.Stat(filepath.Join(dir, "run", node+".pid")); !os.IsNotExist(err) {
			t.Errorf("%s is stopped and its pid file is there: %v", node, err)
		}
	}
	if out := multi(0, "stop"); strings.Count(out, "DOWN") != 2 {
		t.Errorf("stop of none: %s", out)
	}
	multi(0, "start")
	killed := pid("w2")
	if out := multi(0, "kill"); strings.Count(out, "Sending KILL to node") != 2 {
		t.Errorf("kill: %s", out)
	}
	if out := multi(0, "stopwait"); strings.Contains(out, "-> "+strconv.Itoa(killed)) && !strings.Contains(out, "DOWN") {
		t.Errorf("stopwait of the killed: %s", out)
	}
	if out := multi(1, "start", "--prefetch-multiplier=-1"); !strings.Contains(out, "it ended at once (exit status 2): see ") {
		t.Errorf("start with a bad flag: %s", out)
	}
	log("w1", "Invalid value for --prefetch-multiplier")
}
