//go:build unix

package demo_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/lovage-go/lovage/backend/redisbackend"
	_ "github.com/lovage-go/lovage/backend/rpcbackend"
	_ "github.com/lovage-go/lovage/broker/amqpbroker"
	"github.com/lovage-go/lovage/cmd/lovage/internal/demo"
	"github.com/lovage-go/lovage/internal/testenv"
)

var update = flag.Bool("update", false, "write the golden file anew")

// worker makes this test binary a worker process; see TestMain.
var worker = []string{"demo-worker"}

// TestMain is also the main of worker processes. Temporary directories have a
// parent of their own, where no demo may leave anything.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "demo", "demo-worker":
			cmd := demo.Command()
			cmd.SetArgs(slices.DeleteFunc(os.Args[1:], func(a string) bool { return a == "demo" }))
			if cmd.ExecuteContext(context.Background()) != nil {
				os.Exit(1)
			}
			os.Exit(0)
		case "broken":
			fmt.Fprintln(os.Stderr, "no worker today")
			os.Exit(3)
		}
	}
	base, err := os.MkdirTemp("", "demo-test-")
	if err == nil {
		err = os.Setenv("TMPDIR", base)
	}
	if err != nil {
		panic(err)
	}
	code := m.Run()
	if left, _ := filepath.Glob(filepath.Join(base, "lovage-demo-*")); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "left behind: %q\n", left)
		code = max(code, 1)
	}
	os.RemoveAll(base)
	os.Exit(code)
}

// small is a demo that takes long enough to be killed in.
func small(t *testing.T) demo.Options {
	return demo.Options{Dir: tree(t, 60), Concurrency: 2, Pause: 100 * time.Millisecond, Worker: worker}
}

func TestDemoSurvivesTheKill(t *testing.T) {
	t.Parallel()
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		survives(t, "", "")
	})
	t.Run("RabbitMQ", func(t *testing.T) {
		t.Parallel()
		survives(t, testenv.RabbitMQ(t).Vhost(t), "") // rpc://
	})
	t.Run("RabbitMQAndRedis", func(t *testing.T) {
		t.Parallel()
		redis := testenv.Redis(t)
		survives(t, testenv.RabbitMQ(t).Vhost(t), redis.URL(redis.DB(t)))
	})
}

// survives runs a demo on stores and looks at its report.
func survives(t *testing.T, broker, backend string) {
	t.Helper()
	opts := small(t)
	opts.JSON, opts.Broker, opts.Backend = true, broker, backend
	var stdout, stderr bytes.Buffer
	if err := demo.Run(t.Context(), opts, &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	var r demo.Report
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		t.Fatalf("%v in %s", err, &stdout)
	}
	if !r.Job.ExactlyOnce || r.Job.Total.Files != 60 || r.Job.Total.Digest != r.Job.Witness.Digest {
		t.Errorf("the job came to %+v", r.Job)
	}
	if len(r.Workers) != 3 || !r.Workers[0].Killed || r.Workers[1].Killed || r.Workers[2].Killed {
		t.Errorf("the workers are %+v, want three, the first killed", r.Workers)
	}
	if r.Job.Victim != "worker-1" || r.Job.KilledAt != 24 {
		t.Errorf("%s was killed after %d results, want worker-1 after 24", r.Job.Victim, r.Job.KilledAt)
	}
	if r.Job.TakenOver < 1 || r.Job.FirstTakeover <= 0 || r.Job.LastTakeover < r.Job.FirstTakeover {
		t.Errorf("%d messages were taken over, %s to %s after the kill, want at least one", r.Job.TakenOver, r.Job.FirstTakeover, r.Job.LastTakeover)
	}
	if len(r.Cases) != 6 || r.Latency.P50 <= 0 || r.Latency.P99 < r.Latency.P50 {
		t.Errorf("cases %+v, latency %+v", r.Cases, r.Latency)
	}
	gone(t, r.Workers)
	if stderr.Len() > 0 {
		t.Errorf("on stderr: %s", &stderr)
	}
}

// TestText holds what people read, its numbers masked, against a golden file.
func TestText(t *testing.T) {
	t.Parallel()
	opts := small(t)
	var stdout, stderr bytes.Buffer
	if err := demo.Run(t.Context(), opts, &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	got := masked(strings.ReplaceAll(stdout.String(), opts.Dir, "DIR"))
	golden := filepath.Join("testdata", "demo.txt")
	if *update {
		write(t, golden, got)
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// masked keeps what is the same in every run: no numbers, widths and bars.
func masked(text string) string {
	for _, m := range []struct{ find, put string }{
		{`(?m)^   counting .*\n`, ""},
		{`sha256 [0-9a-f]{16}\b`, "sha256 HASH"},
		{`\b[0-9][0-9,.]*( (ms|s|KiB|MiB)\b)?`, "#"},
		{`(#/#,? ?)+`, "#/# "},
		{`(?m)(\S)  +`, "$1  "},
		{`\( +`, "("},
		{`(?m)( +RETRY .*\n)+`, "                RETRY\n"},
	} {
		text = regexp.MustCompile(m.find).ReplaceAllString(text, m.put)
	}
	return text
}

func TestRunRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		opts demo.Options
		want string
	}{
		"OneWorker":            {demo.Options{Dir: tree(t, 1), Workers: 1}, "give at least 2"},
		"BackendWithoutBroker": {demo.Options{Dir: tree(t, 1), Backend: "sqlite:x.db"}, "--backend needs --broker"},
		"NoGoFiles":            {demo.Options{Dir: t.TempDir()}, "no .go files below"},
		"NoDirectory":          {demo.Options{Dir: filepath.Join(t.TempDir(), "none")}, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.opts.Worker = worker
			var stdout, stderr bytes.Buffer
			err := demo.Run(t.Context(), c.opts, &stdout, &stderr)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if stdout.Len()+stderr.Len() > 0 {
				t.Errorf("said %s%s", &stdout, &stderr)
			}
		})
	}
}

func TestBrokenWorkerIsShown(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	err := demo.Run(t.Context(), demo.Options{Dir: tree(t, 1), Worker: []string{"broken"}}, &stdout, &stderr)
	if err == nil || !strings.Contains(err.Error(), "worker-1") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("got %v, want that worker-1 ended with exit status 3", err)
	}
	if !strings.Contains(stderr.String(), "no worker today") {
		t.Errorf("stderr has no tail of the log: %s", &stderr)
	}
	removeKept(t, stderr.String())
}

// TestDeathOfTheOtherWorkerFailsTheDemo: it was not asked for.
func TestDeathOfTheOtherWorkerFailsTheDemo(t *testing.T) {
	t.Parallel()
	var stderr bytes.Buffer
	stdout := &trigger{at: "kill -9", do: func(text string) {
		if err := syscall.Kill(pids(text)[1], syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	}}
	err := demo.Run(t.Context(), small(t), stdout, &stderr)
	if err == nil || !strings.Contains(err.Error(), "worker-2") || !strings.Contains(err.Error(), "signal: killed") {
		t.Errorf("got %v, want that worker-2 was killed", err)
	}
	removeKept(t, stderr.String())
}

func TestInterruptLeavesNothing(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stderr bytes.Buffer
	stdout := &trigger{at: "   counting", do: func(string) { cancel() }}
	if err := demo.Run(ctx, small(t), stdout, &stderr); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if stderr.Len() > 0 {
		t.Errorf("on stderr: %s", &stderr)
	}
	for _, pid := range pids(stdout.text.String()) {
		if alive(pid) {
			t.Errorf("process %d is there", pid)
		}
	}
}

// TestWorkerEndsWithItsInput: that is how it learns that its parent is gone.
func TestWorkerEndsWithItsInput(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	url := "sqlite://" + filepath.Join(t.TempDir(), "demo.db")
	out, err := exec.CommandContext(ctx, os.Args[0], "demo-worker", "--broker", url, "--backend", url, "--dir", t.TempDir(), "--queue", "q").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestWorkersDieWithTheirParent kills the demo itself.
func TestWorkersDieWithTheirParent(t *testing.T) {
	t.Parallel()
	opts := small(t)
	cmd := exec.Command(os.Args[0], "demo", opts.Dir, "--pause", "1s", "--concurrency", "2")
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	stdout := &trigger{at: "2. Count", do: func(string) {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
	}}
	cmd.Stdout = stdout
	if err := cmd.Run(); err == nil {
		t.Fatalf("the demo was not killed: %s", &stdout.text)
	}
	workers := pids(stdout.text.String())
	if len(workers) != 2 {
		t.Fatalf("workers %v in %s", workers, &stdout.text)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for _, pid := range workers {
		for alive(pid) {
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatalf("process %d outlives its parent", pid)
			}
		}
	}
}

// trigger calls do once, with all that was written, when it contains at.
type trigger struct {
	at string
	do func(text string)

	mu   sync.Mutex
	text strings.Builder
	done bool
}

func (w *trigger) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text.Write(p)
	if !w.done && strings.Contains(w.text.String(), w.at) {
		w.done = true
		w.do(w.text.String())
	}
	return len(p), nil
}

// pids reads the processes of the first section.
func pids(text string) (out []int) {
	for _, m := range regexp.MustCompile(`worker-\d+ +pid (\d+)`).FindAllStringSubmatch(text, -1) {
		pid, _ := strconv.Atoi(m[1])
		out = append(out, pid)
	}
	return out
}

// alive reports whether a process runs; one that nobody has reaped does not.
func alive(pid int) bool {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return syscall.Kill(pid, 0) == nil && !bytes.Contains(stat, []byte(") Z "))
}

func gone(t *testing.T, workers []demo.WorkerReport) {
	t.Helper()
	for _, w := range workers {
		if alive(w.PID) {
			t.Errorf("%s (pid %d) is there", w.Name, w.PID)
		}
	}
}

// removeKept removes the directory that a failed demo keeps and names.
func removeKept(t *testing.T, stderr string) {
	t.Helper()
	m := regexp.MustCompile(`store and logs are in (\S+)`).FindStringSubmatch(stderr)
	if m == nil {
		t.Fatalf("stderr does not name the directory that was kept: %s", stderr)
	}
	if _, err := os.Stat(filepath.Join(m[1], "worker-1.log")); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(m[1]); err != nil {
		t.Error(err)
	}
}
