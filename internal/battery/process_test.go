package battery_test

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is one of the fleet.
type process struct {
	cmd  *exec.Cmd
	role role
	gone chan struct{}
	told chan state // what it answers to SIGUSR1
}

// state is what a worker process tells of itself.
type state struct {
	Used, Active, Reserved, Finishing, Stuck int
	Goroutines                               int
	Fixed                                    int // goroutines that run no task and wait for none
	Ran                                      int64
}

func (s state) idle() bool { return s.Used+s.Active+s.Reserved+s.Finishing == 0 }

func start(t testing.TB, dir string, r role) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), roleKey+"="+r.String())
	log, err := os.OpenFile(logOf(dir), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	cmd.SysProcAttr = deathSignal()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: cmd, role: r, gone: make(chan struct{}), told: make(chan state, 8)}
	ready := make(chan bool, 1)
	go func() {
		in := bufio.NewScanner(out)
		ready <- in.Scan()
		for in.Scan() {
			var s state
			if json.Unmarshal(in.Bytes(), &s) == nil {
				select {
				case p.told <- s:
				default: // nobody asked
				}
			}
		}
		_ = cmd.Wait()
		close(p.gone)
	}()
	select {
	case ok := <-ready:
		if !ok {
			t.Fatalf("a %s did not start:\n%s", r.Kind, tail(dir))
		}
	case <-time.After(60 * time.Second):
		t.Fatalf("a %s is not ready after a minute:\n%s", r.Kind, tail(dir))
	}
	return p
}

func (p *process) running() bool {
	select {
	case <-p.gone:
		return false
	default:
		return true
	}
}

// end kills the process, also one that is stopped, and waits for its end.
func (p *process) end() {
	_ = p.cmd.Process.Signal(syscall.SIGCONT)
	_ = p.cmd.Process.Kill()
	<-p.gone
}

// ask has a worker tell its state. It reports false for one that is no more.
func (p *process) ask(t testing.TB) (state, bool) {
	t.Helper()
	for len(p.told) > 0 {
		<-p.told
	}
	if p.cmd.Process.Signal(syscall.SIGUSR1) != nil {
		return state{}, false
	}
	select {
	case s := <-p.told:
		return s, true
	case <-p.gone:
		return state{}, false
	case <-time.After(30 * time.Second):
		t.Fatal("a worker does not tell its state within 30 s")
		return state{}, false
	}
}

// children are the processes that a process has started, and has not ended.
func (p *process) children() []int {
	return slices.DeleteFunc(family(p.role.Ledger), func(pid int) bool { return parentOf(pid) != p.cmd.Process.Pid })
}

// family are all processes whose environment names the ledger, zombies left out.
func family(ledger string) (pids []int) {
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range all {
		env, _ := os.ReadFile(dir + "/environ")
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil && bytes.Contains(env, []byte(strconv.Quote(ledger))) && parentOf(pid) > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// parentOf is the parent of a process, 0 for one that is gone or a zombie.
func parentOf(pid int) (parent int) {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	var state string
	if i := bytes.LastIndexByte(stat, ')'); i > 0 {
		_, _ = fmt.Sscanf(string(stat[i+1:]), " %s %d", &state, &parent)
	}
	if strings.ContainsAny(state, "ZX") {
		return 0
	}
	return parent
}

func logOf(dir string) string { return cmp.Or(*keep, filepath.Join(dir, "log")) }

// mentions are the lines of a file that name a task.
func mentions(path, id string) string {
	data, _ := os.ReadFile(path)
	return strings.Join(regexp.MustCompile(`(?m)^.*\b`+regexp.QuoteMeta(id)+`\b.*\n`).FindAllString(string(data), 50), "")
}

func tail(dir string) string {
	data, _ := os.ReadFile(logOf(dir))
	return string(data[max(0, len(data)-16_000):])
}
