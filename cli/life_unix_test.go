//go:build unix

package cli_test

import (
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lovage-go/lovage/cli"
)

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
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
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

// TestHangupsDuringARestart: one more SIGHUP, at any moment of a restart, ends
// nothing.
func TestHangupsDuringARestart(t *testing.T) {
	t.Parallel()
	w := newProgram(t).worker("-q", "-l", "info", "-n", "w1@box")
	w.sees("w1@box ready.")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for tick := time.Tick(200 * time.Microsecond); ; <-tick {
			select {
			case <-stop:
				return
			default:
				_ = w.cmd.Process.Signal(syscall.SIGHUP)
			}
		}
	})
	const restarting = "Restarting, told by SIGHUP"
	w.until("sixth restart", func(output string) bool { return strings.Count(output, restarting) >= 6 })
	close(stop)
	wg.Wait()
	w.until("worker that is ready after the last restart", func(output string) bool {
		return strings.LastIndex(output, "w1@box ready.") > strings.LastIndex(output, restarting)
	})
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
	writeProgram(t, next, []byte("#!/bin/sh\necho version 2 in $PWD: $*\n"))
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
	deadline := time.Now().Add(patience)
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
	for deadline := time.Now().Add(patience); ; {
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
	writeProgram(t, path, text)
}

// writeProgram writes a file to be executed: a process that is being forked in the
// meantime would have it open for writing, and nobody could run it.
func writeProgram(t *testing.T, path string, text []byte) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, text, 0o755); err != nil {
		t.Fatal(err)
	}
}
