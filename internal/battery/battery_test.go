package battery_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
)

var (
	full = flag.Bool("battery", false, "run the full battery: minutes, several seeds")
	seed = flag.Uint64("seed", 1, "seed of the first round")
	keep = flag.String("keeplog", "", "append what the processes log to this file")
)

const roleKey = "BATTERY_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleKey); role != "" {
		f := strings.Split(role, "|")
		var err error
		switch f[0] {
		case "worker":
			n, _ := strconv.Atoi(f[3])
			err = runWorker(f[1], f[2], n)
		case "chords":
			err = runChordWorker(f[1], f[2], f[3])
		case "producer":
			n, _ := strconv.Atoi(f[4])
			err = runProducer(f[1], f[2], f[3], n, f[5] == "true")
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, f[0]+":", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// plan is the size of one round.
type plan struct {
	seed        uint64
	tasks       int // per producer process
	producers   int
	workers     int
	concurrency int
	killEvery   time.Duration
	killFor     time.Duration // so long; a producer that is killed begins anew
	stops       bool          // also SIGSTOP past the lease
	poison      bool
	lease       time.Duration
}

// report is what one round came to.
type report struct {
	Seed      uint64
	Confirmed int
	Kills     int
	Stops     int
	Restarts  int // starts of a task beyond those its fate asks for
	Poisoned  int
	GivenUp   int // innocent tasks that had three processes die on them
	Took      time.Duration
}

func TestCrash(t *testing.T) {
	p := plan{seed: *seed, tasks: 3000, producers: 2, workers: 3, concurrency: 4, killEvery: 300 * time.Millisecond, killFor: 20 * time.Second, poison: true, lease: 5 * time.Second}
	rounds := 1
	if *full {
		p.tasks, p.producers, p.workers, p.concurrency = 20_000, 3, 4, 8
		p.killEvery, p.killFor, p.stops = time.Second, 2*time.Minute, true
		rounds = 5
	}
	for i := range rounds {
		p.seed = *seed + uint64(i)
		t.Run(fmt.Sprintf("seed%d", p.seed), func(t *testing.T) {
			r := runRound(t, p)
			line, _ := json.Marshal(r)
			t.Logf("report %s", line)
		})
	}
}

// proc is a process of the fleet.
type proc struct {
	cmd  *exec.Cmd
	role string
	gone chan struct{}
}

func start(t *testing.T, dir, role string) *proc {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), roleKey+"="+role)
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
	p := &proc{cmd: cmd, role: role, gone: make(chan struct{})}
	ready := make(chan bool, 1)
	go func() {
		in := bufio.NewScanner(out)
		ready <- in.Scan()
		for in.Scan() {
		}
		_ = cmd.Wait()
		close(p.gone)
	}()
	select {
	case ok := <-ready:
		if !ok {
			t.Fatalf("a %s did not start:\n%s", strings.SplitN(role, "|", 2)[0], tail(dir))
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("a process is not ready after 30 s:\n%s", tail(dir))
	}
	return p
}

func (p *proc) running() bool {
	select {
	case <-p.gone:
		return false
	default:
		return true
	}
}

func logOf(dir string) string { return cmp.Or(*keep, filepath.Join(dir, "log")) }

func tail(dir string) string {
	data, _ := os.ReadFile(logOf(dir))
	return string(data[max(0, len(data)-4000):])
}

func runRound(t *testing.T, p plan) report {
	began := time.Now()
	dir := t.TempDir()
	url := fmt.Sprintf("sqlite://%s?lease=%s", filepath.Join(dir, "battery.db"), p.lease)
	path := filepath.Join(dir, "ledger")
	rng := rand.New(rand.NewPCG(p.seed, p.seed))
	r := report{Seed: p.seed}

	workerRole := fmt.Sprintf("worker|%s|%s|%d", url, path, p.concurrency)
	workers := make([]*proc, p.workers)
	for i := range workers {
		workers[i] = start(t, dir, workerRole)
	}
	generation := 0
	producer := func() *proc {
		generation++
		return start(t, dir, fmt.Sprintf("producer|%s|%s|p%d|%d|%t", url, path, generation, p.tasks, p.poison))
	}
	producers := make([]*proc, p.producers)
	for i := range producers {
		producers[i] = producer()
	}
	t.Cleanup(func() {
		for _, w := range slices.Concat(workers, producers) {
			_ = w.cmd.Process.Signal(syscall.SIGCONT)
			_ = w.cmd.Process.Kill()
			<-w.gone
		}
	})

	judge := newParts(url, &ledger{f: os.Stderr}, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { _ = judge.app.Close(context.Background()) })
	conn, err := judge.app.Broker(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lengths := conn.(broker.Lengther)

	// Kill, stop and replace until the producers are done and the queue is empty.
	deadline := time.Now().Add(4*time.Minute + time.Duration(p.tasks*p.producers/100)*time.Second)
	killing := true
	tick := time.NewTicker(p.killEvery)
	defer tick.Stop()
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for {
		select {
		case <-tick.C:
			if !killing || time.Since(began) > p.killFor {
				continue
			}
			if p.stops && rng.IntN(6) == 0 {
				w := workers[rng.IntN(len(workers))]
				if w.running() && w.cmd.Process.Signal(syscall.SIGSTOP) == nil {
					r.Stops++
					time.AfterFunc(p.lease+3*time.Second, func() { _ = w.cmd.Process.Signal(syscall.SIGCONT) })
				}
				continue
			}
			all := workers
			if rng.IntN(5) == 0 {
				all = producers
			}
			victim := all[rng.IntN(len(all))]
			if victim.running() && victim.cmd.Process.Kill() == nil {
				r.Kills++
			}
		case <-poll.C:
		}
		busy := false
		for i, w := range workers {
			if !w.running() {
				workers[i] = start(t, dir, workerRole)
			}
		}
		for i, w := range producers {
			if w.running() {
				busy = true
			} else if !w.cmd.ProcessState.Success() { // killed: a new one takes its place, with ids of its own
				producers[i] = producer()
				busy = true
			}
		}
		if busy {
			if time.Now().After(deadline) {
				t.Fatalf("the producers are not done after %v\n%s", time.Since(began), tail(dir))
			}
			continue
		}
		killing = false
		l, err := lengths.Lengths(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		left := 0
		for _, q := range l {
			left += q.Ready + q.Claimed + q.Delayed
		}
		if left == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d messages are still in the store: %+v\n%s", left, l, tail(dir))
		}
	}
	for _, w := range workers {
		_ = w.cmd.Process.Signal(syscall.SIGTERM)
	}
	for _, w := range workers {
		select {
		case <-w.gone:
		case <-time.After(30 * time.Second):
			t.Fatalf("a worker did not end on SIGTERM:\n%s", tail(dir))
		}
	}
	r.Took = time.Since(began).Round(time.Millisecond)
	verify(t, p, path, judge, conn, &r)
	return r
}

// verify holds the ledger against the store.
func verify(t *testing.T, p plan, path string, judge *parts, conn broker.Conn, r *report) {
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sent := map[string]bool{}
	starts := map[string]int{}
	callbacks := map[string]map[string]bool{}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		switch f[0] {
		case "sent":
			sent[f[1]] = true
		case "start":
			starts[f[1]+" "+f[2]]++
		case "after":
			if callbacks[f[1]] == nil {
				callbacks[f[1]] = map[string]bool{}
			}
			callbacks[f[1]][f[2]] = true
		}
	}
	r.Confirmed = len(sent)
	ids := make([]string, 0, len(sent))
	for id := range sent {
		ids = append(ids, id)
	}
	back, err := judge.app.Backend(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wrong := 0
	bad := func(format string, args ...any) {
		if wrong++; wrong <= 20 {
			t.Errorf(format, args...)
		}
	}
	dead, err := conn.(broker.DeadLetterer).DeadLetters(t.Context(), "celery", "", 10_000)
	if err != nil {
		t.Fatal(err)
	}
	givenUp := map[string]bool{}
	for _, d := range dead {
		givenUp[d.TaskID] = true
	}
	for chunk := range slices.Chunk(ids, 500) {
		recs, err := back.Fetch(t.Context(), chunk...)
		if err != nil {
			t.Fatal(err)
		}
		for i, id := range chunk {
			want := lovage.Success
			f := fateOf(id, p.poison)
			if f == fails || f == poisoned {
				want = lovage.Failure
			}
			if givenUp[id] && f != poisoned {
				// How often it was started says nothing: a loss is counted just
				// before an orphan starts again, and the process may die between the
				// two, of a kill or of what it started beside it.
				r.GivenUp++
				if recs[i].State != lovage.Failure {
					bad("task %s was given up and its state is %q, want FAILURE", id, recs[i].State)
				}
				continue
			}
			if got := recs[i].State; got != want {
				bad("task %s: state %q, want %s", id, got, want)
			}
			switch f {
			case linked:
				if n := len(callbacks[id]); n != 1 {
					bad("task %s: its callback was sent %d times, want once", id, n)
				}
			case poisoned:
				r.Poisoned++
				if n := starts[id+" 0"]; n < 1 || n > 3 {
					bad("poisoned task %s started %d times, want 1 to 3", id, n)
				}
			}
			if starts[id+" 0"] == 0 {
				bad("task %s has a result and never started", id)
			}
		}
	}
	extra := 0
	for key, n := range starts {
		if id, _, _ := strings.Cut(key, " "); fateOf(id, p.poison) != poisoned {
			extra += n - 1
		}
	}
	r.Restarts = extra
	if most := (r.Kills + r.Stops + 3*r.Poisoned) * p.concurrency * 2; extra > most {
		bad("%d runs were repeated, more than %d slots were lost", extra, most)
	}
	if deaths := r.Kills + 3*r.Poisoned; r.GivenUp > 2+deaths/6 {
		bad("%d innocent tasks were given up in %d deaths, more than %d are no accident", r.GivenUp, deaths, 2+deaths/6)
	}
}
