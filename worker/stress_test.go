package worker_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/memory"
	"github.com/lovage-go/lovage/worker"
)

var (
	battery = flag.Int("battery", 6, "number of seeds of the stress test")
	seed    = flag.Uint64("seed", 1, "first seed of the stress test")
)

// TestStress runs four workers through kills and faults, by seed: whatever
// happens, each task ends in exactly the state that its body decides, and
// nothing is left over.
func TestStress(t *testing.T) {
	t.Parallel()
	for i := range *battery {
		s := *seed + uint64(i)
		t.Run(fmt.Sprintf("Seed=%d", s), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { stress(t, s) })
		})
	}
}

func stress(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 7))
	opts := []memory.Option{memory.WithFaults(memory.Plan{Seed: seed, Rate: 0.05, MaxDelay: 200 * time.Millisecond})}
	if rnd.IntN(2) == 0 {
		opts = append(opts, memory.WithOrphansAfterLease())
	}
	store := memory.New(opts...)
	// A task that is killed often is not to be given up here, so that each
	// outcome is known.
	conf := lovage.Config{TaskMaxWorkerLosses: lovage.NoLimit}
	work := func(ctx context.Context, in Order) (string, error) {
		r := lovage.RequestFrom(ctx)
		select {
		case <-time.After(time.Duration(len(r.ID)*7+r.Retries*50) * time.Millisecond):
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
		if in.Do == "retry" && r.Retries < 2 {
			return "", lovage.Retry(errBoom, lovage.Countdown(time.Second))
		}
		if in.Do == "retry" {
			return "retried", nil
		}
		return obey(ctx, in)
	}
	tasks := func(app *lovage.App) {
		lovage.Func(app, "t.late", work)
		lovage.Func(app, "t.limited", work, lovage.RateLimit("20/s"))
	}
	client := lovage.New("client", conf,
		lovage.WithBroker(func(context.Context) (broker.Conn, error) { return store.Broker(), nil }),
		lovage.WithBackend(func(context.Context) (backend.Backend, error) { return store.Backend(), nil }))
	wants := map[string]lovage.State{}
	kinds := []string{"work", "fail", "retry", "reject", "panic"}
	states := map[string]lovage.State{"work": lovage.Success, "retry": lovage.Success, "fail": lovage.Failure, "reject": lovage.Failure, "panic": lovage.Failure}

	var nodes [4]*node
	names := 0
	start := func(i int) {
		names++
		nodes[i] = spawn(store, fmt.Sprintf("w%d", names), conf, worker.Config{Concurrency: 1 + rnd.IntN(4)}, tasks)
	}
	for i := range nodes {
		start(i)
	}
	for n := range 150 {
		do := kinds[rnd.IntN(len(kinds))]
		name := "t.late"
		if rnd.IntN(4) == 0 {
			name = "t.limited"
		}
		h := lovage.Remote[Order, string](client, name)
		id := fmt.Sprintf("task-%d", n)
		for { // what the client is told failed may have been sent all the same
			if _, err := h.Delay(context.Background(), Order{do}, lovage.TaskID(id)); err == nil {
				break
			}
		}
		wants[id] = states[do]
		if n%15 == 14 {
			pause(time.Duration(rnd.IntN(1000)) * time.Millisecond)
			i := rnd.IntN(len(nodes))
			switch rnd.IntN(3) {
			case 0: // SIGKILL
				nodes[i].kill()
				start(i)
			case 1: // a deploy
				nodes[i].stop(t)
				start(i)
			case 2: // out of touch for longer than a lease
				p := nodes[i].proc
				p.Stop()
				pause(40 * time.Second)
				p.Resume()
			}
		}
	}
	pause(10 * time.Minute)
	for i := range nodes {
		nodes[i].stop(t)
	}
	check(t, store, wants, nodes[0].log)
	if n := len(store.Met()); n < 20 {
		t.Errorf("faults met: got %d, want many", n)
	}
	if err := client.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// check looks at what the store holds in the end.
func check(t *testing.T, store *memory.Store, wants map[string]lovage.State, log *logbook) {
	t.Helper()
	again := func(f func() error) { // faults meet the check too
		for {
			if err := f(); err == nil {
				return
			}
		}
	}
	conn, back := store.Broker(), store.Backend()
	defer conn.Close()
	defer back.Close()
	for id, want := range wants {
		var recs []backend.Record
		again(func() (err error) { recs, err = back.Fetch(context.Background(), id); return err })
		if recs[0].State != want {
			t.Errorf("state of %s: got %q, want %q", id, recs[0].State, want)
		}
	}
	var lengths map[string]broker.Length
	again(func() (err error) { lengths, err = conn.Lengths(context.Background()); return err })
	for q, l := range lengths {
		if l.Ready+l.Claimed+l.Delayed != 0 {
			t.Errorf("queue %s: got %+v, want it empty", q, l)
		}
	}
	if t.Failed() {
		t.Log(log)
	}
}
