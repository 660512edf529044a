package battery_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
)

// plan is a fleet and what is done to it.
type plan struct {
	role                  // of all processes
	seed    uint64        // of the kills
	pools   []string      // of the workers, one each
	crowd   int           // producers
	every   time.Duration // between two kills
	killFor time.Duration
	stops   bool              // also SIGSTOP past the lease
	refill  bool              // producers are killed too, and others begin anew
	through *strings.Replacer // makes addresses those that the workers are given; may be nil
	resends bool              // a run whose ack is lost has sent its callbacks, and the next one sends them again
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
	Children  int           // of a pool, killed
	Drops     int           // of all connections of all workers
	Orphaned  time.Duration // that children outlived their parent at most
}

// fleet are processes that are killed and replaced.
type fleet struct {
	*testing.T
	plan
	report
	dir       string
	rng       *rand.Rand
	began     time.Time
	workers   []*process
	producers []*process
	sent      int // producers that were started
	judge     *parts
	conn      broker.Conn

	wakes    sync.WaitGroup
	mu       sync.Mutex // guards orphaned
	orphaned time.Duration
}

func newFleet(t *testing.T, p plan) *fleet {
	t.Helper()
	f := &fleet{T: t, plan: p, dir: t.TempDir(), rng: rand.New(rand.NewPCG(p.seed, p.seed)), began: time.Now()}
	f.report.Seed = p.seed
	f.Ledger = filepath.Join(f.dir, "ledger")
	l, err := openLedger(f.Ledger)
	if err != nil {
		t.Fatal(err)
	}
	f.judge = newParts(f.role, l, slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		for _, w := range slices.Concat(f.workers, f.producers) {
			w.end()
		}
		f.wakes.Wait()
		_ = f.judge.app.Close(context.Background())
	})
	if f.conn, err = f.judge.app.Broker(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, pool := range p.pools {
		f.workers = append(f.workers, start(t, f.dir, f.worker(pool)))
	}
	for range p.crowd {
		f.producers = append(f.producers, f.producer())
	}
	return f
}

func (f *fleet) worker(pool string) role {
	r := f.role
	r.Kind, r.Pool = "worker", pool
	if f.through != nil {
		r.Broker, r.Results = f.through.Replace(r.Broker), f.through.Replace(r.Results)
	}
	return r
}

func (f *fleet) producer() *process {
	f.sent++
	r := f.role
	r.Kind, r.Prefix = "producer", fmt.Sprint("p", f.sent)
	return start(f.T, f.dir, r)
}

// mend replaces what has died, and reports whether producers are at work.
func (f *fleet) mend() (busy bool) {
	f.Helper()
	for i, w := range f.workers {
		if !w.running() {
			f.workers[i] = start(f.T, f.dir, w.role)
		}
	}
	for i, w := range f.producers {
		switch {
		case w.running():
			busy = true
		case w.cmd.ProcessState.Success():
		case !f.refill:
			f.Fatalf("a producer failed:\n%s", tail(f.dir))
		default: // killed: a new one takes its place, with ids of its own
			f.producers[i] = f.producer()
			busy = true
		}
	}
	return busy
}

// harm does one thing to one process.
func (f *fleet) harm() {
	w := f.workers[f.rng.IntN(len(f.workers))]
	if f.stops && f.rng.IntN(6) == 0 {
		if w.running() && w.cmd.Process.Signal(syscall.SIGSTOP) == nil {
			f.Stops++
			f.wakes.Add(1)
			time.AfterFunc(f.Lease+3*time.Second, func() {
				defer f.wakes.Done()
				_ = w.cmd.Process.Signal(syscall.SIGCONT)
			})
		}
		return
	}
	if f.refill && f.rng.IntN(5) == 0 {
		w = f.producers[f.rng.IntN(len(f.producers))]
	}
	if !w.running() {
		return
	}
	children := w.children()
	if n := len(children); n > 0 && f.rng.IntN(2) == 0 {
		if syscall.Kill(children[f.rng.IntN(n)], syscall.SIGKILL) == nil {
			f.Children++
		}
		return
	}
	if w.cmd.Process.Kill() == nil {
		f.Kills++
		f.wakes.Go(func() { f.orphans(children) })
	}
}

// orphans waits until processes are gone whose parent was killed.
func (f *fleet) orphans(pids []int) {
	died := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for slices.ContainsFunc(pids, func(pid int) bool { return parentOf(pid) > 0 }) && time.Since(died) < time.Minute {
		<-tick.C
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(pids) > 0 {
		f.orphaned = max(f.orphaned, time.Since(died))
	}
}

// run kills, stops and replaces until the producers are done, and then waits
// until all is done.
func (f *fleet) run() {
	f.Helper()
	deadline := time.Now().Add(f.killFor + 2*time.Minute + time.Duration(f.Tasks*f.crowd/100)*time.Second)
	tick, poll := time.NewTicker(f.every), time.NewTicker(50*time.Millisecond)
	defer tick.Stop()
	defer poll.Stop()
	for busy := true; busy; busy = f.mend() {
		select {
		case <-tick.C:
			if time.Since(f.began) < f.killFor {
				f.harm()
			}
		case <-poll.C:
		}
		if time.Now().After(deadline) {
			f.Fatalf("the producers are not done after %v\n%s", time.Since(f.began), tail(f.dir))
		}
	}
	f.drain(time.Until(deadline))
}

// drain waits until no message is left, no slot is taken and every task has
// come to its end.
func (f *fleet) drain(limit time.Duration) {
	f.Helper()
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(limit); ; <-poll.C {
		f.mend()
		why := f.unsettled()
		if why == "" {
			return
		}
		if time.Now().After(deadline) {
			f.Fatalf("not done after %v: %s\n%s", time.Since(f.began), why, tail(f.dir))
		}
	}
}

// unsettled tells what is left to do.
func (f *fleet) unsettled() string {
	f.Helper()
	if n := f.left(); n != (broker.Length{}) {
		return fmt.Sprintf("%+v messages are in the store", n)
	}
	for _, w := range f.workers {
		if s, ok := w.ask(f.T); !ok || !s.idle() {
			return fmt.Sprintf("a %s worker has %+v", w.role.Pool, s)
		}
	}
	if strings.HasPrefix(f.Broker, "amqp:") { // it does not tell what waits for its time
		a := readLedger(f.T, f.Ledger)
		for id, got := range f.states(a) {
			if want := fateOf(id, f.Mix).state; got.state != want && (got.state == "" || got.state == lovage.StateRetry) {
				return fmt.Sprintf("task %s is %q", id, got.state)
			}
		}
	}
	return ""
}

// left counts the messages that are not dead letters.
func (f *fleet) left() (n broker.Length) {
	f.Helper()
	all, err := f.conn.(broker.Lengther).Lengths(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	for name, q := range all {
		if strings.HasSuffix(name, ".pidbox") || strings.HasPrefix(name, "celeryev") {
			continue
		}
		n.Ready, n.Claimed, n.Delayed = n.Ready+q.Ready, n.Claimed+max(q.Claimed, 0), n.Delayed+max(q.Delayed, 0)
	}
	return n
}

// stop ends the workers, warm, and wants nothing to be left of them.
func (f *fleet) stop() {
	f.Helper()
	for _, w := range f.workers {
		_ = w.cmd.Process.Signal(syscall.SIGTERM)
	}
	for _, w := range f.workers {
		select {
		case <-w.gone:
		case <-time.After(60 * time.Second):
			_ = w.cmd.Process.Signal(syscall.SIGQUIT) // its stacks
			<-w.gone
			f.Fatalf("a %s worker did not end on SIGTERM:\n%s", w.role.Pool, tail(f.dir))
		}
	}
	f.wakes.Wait()
	f.report.Orphaned = f.orphaned.Round(time.Millisecond)
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(20 * time.Second); len(family(f.Ledger)) > 0; <-poll.C {
		if time.Now().After(deadline) {
			f.Fatalf("processes are left: %v\n%s", family(f.Ledger), tail(f.dir))
		}
	}
	if n := f.left(); n != (broker.Length{}) {
		f.Errorf("messages are left when the workers have ended: %+v", n)
	}
	f.Took = time.Since(f.began).Round(time.Millisecond)
}
