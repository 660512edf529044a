package battery_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/lovage-go/lovage/internal/proc"
)

// TestPathologies gives a worker tasks that harm it, of every kind, beside
// others, on each broker and in each pool. In the goroutine pool a killer takes
// the worker with it, which is started again as a supervisor would; in the
// prefork pool the worker lives on. (On memory://, which ends with its process,
// TestPreforkDeaths and TestLimits of package worker do the same.)
func TestPathologies(t *testing.T) {
	for store, on := range stores {
		for _, pool := range []string{"goroutine", "prefork"} {
			t.Run(store+"/"+pool, func(t *testing.T) {
				if !*full {
					t.Parallel()
				}
				p := plan{role: role{Slots: 4, Lease: 3 * time.Second, Memory: 160 << 10}, pools: []string{pool}, seed: *seed}
				if *full {
					p.Memory = 1 << 20
				}
				on(t, &p)
				pathologies(t, newFleet(t, p), pool, store)
			})
		}
	}
}

func pathologies(t *testing.T, f *fleet, pool, store string) {
	innocent := 0
	send := func(names ...string) {
		t.Helper()
		for _, name := range names {
			for i, id := range []string{name + ".1", fmt.Sprint("ok.", innocent+1), fmt.Sprint("ok.", innocent+2)} {
				in := work{ID: id, Millis: 20 * i, Bytes: int(f.Memory) << 10 * 2}
				if err := f.judge.send(t.Context(), in); err != nil {
					t.Fatal(err)
				}
				f.judge.ledger.write("sent", id)
			}
			innocent += 2
		}
	}
	send("deaf", "hard", "soft", "leak", "panic", "hoard", "fail", "retry", "ignore", "reject")
	f.drain(time.Minute)
	w := f.workers[0]
	stuck := 0
	if pool == "goroutine" { // the one that never returns, once unless this machine stands still past a lease
		stuck = readLedger(t, f.Ledger).starts["deaf.1 0"]
	}
	f.until(fmt.Sprint(stuck, " stuck runs"), func() bool {
		s, ok := w.ask(t)
		return ok && s.Stuck == stuck
	})
	f.until("children of a bearable size", func() bool {
		return !slices.ContainsFunc(w.children(), func(pid int) bool { return proc.RSSOf(pid) > f.Memory })
	})
	first := w.cmd.Process.Pid
	send("kill", "exit", "segv", "alone", "overflow", "memory")
	f.drain(2 * time.Minute)
	if same := f.workers[0].cmd.Process.Pid == first; same != (pool == "prefork") {
		t.Errorf("the worker is the same process: %t, in a pool of %s", same, pool)
	}
	send("chain")
	f.drain(time.Minute)
	f.stop()
	f.verify()
	deaths := 0
	for key, n := range readLedger(t, f.Ledger).starts {
		if fateOf(key, f.Mix).kills {
			deaths += n
		}
	}
	t.Logf("pathology {%q: %q, \"pool\": %q, \"deaths\": %d, \"innocent\": %d, \"seconds\": %.0f}", "store", store, pool, deaths, innocent, f.Took.Seconds())
}

func (f *fleet) until(what string, ok func() bool) {
	f.Helper()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(30 * time.Second); !ok(); <-poll.C {
		if time.Now().After(deadline) {
			f.Fatalf("not after 30 s: %s\n%s", what, tail(f.dir))
		}
	}
}
