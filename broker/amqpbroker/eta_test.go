package amqpbroker_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

var full = flag.Bool("battery", false, "run the full battery: minutes")

// etaPy fills the queue with tasks for the next day, and plain ones behind them.
const etaPy = `
import sys
from datetime import datetime, timedelta, timezone
import tasks as t
n, plain = int(sys.argv[1]), int(sys.argv[2])
eta = datetime.now(timezone.utc) + timedelta(days=1)
with t.app.producer_pool.acquire(block=True) as p:
    for i in range(n):
        t.go_add.apply_async((i,), eta=eta, producer=p)
    for i in range(plain):
        t.go_add.apply_async((i, 1), producer=p)
print('sent')
`

// TestETAFromPythonLetsOthersPass: a two-slot worker on a classic queue, before
// it a wall of messages whose time has not come. They go to the delay queues, and
// what is behind them runs. In the worker nothing of them stays, and once they
// are parked others run as they did before.
func TestETAFromPythonLetsOthersPass(t *testing.T) {
	t.Parallel()
	n, plain, patience := 1_000, 200, patience
	if *full {
		n, plain, patience = 100_000, 10_000, 10*time.Minute
	}
	p := newPlace(t)
	var early atomic.Int64
	// run starts a worker on what fill has sent and tells how long it takes until all
	// plain tasks have run, and what its process has of memory then and at most.
	run := func(t *testing.T, fill func(*lovage.App)) (took time.Duration, after, most int) {
		t.Helper()
		app := lovage.New("proj", lovage.Config{BrokerURL: p.broker, ResultBackend: p.backend, TaskDefaultQueue: p.queue}, lovage.WithLogger(slog.New(slog.DiscardHandler)))
		var ran atomic.Int64
		all := make(chan struct{})
		lovage.Func(app, "go.add", func(_ context.Context, in addArgs) (int, error) {
			if in.Y == 0 {
				early.Add(1)
			} else if ran.Add(1) == int64(plain) {
				close(all)
			}
			return 0, nil
		})
		fill(app)
		start, late, sample := time.Now(), time.After(patience), time.NewTicker(100*time.Millisecond)
		defer sample.Stop()
		goWorkerWith(t, app, func(c *worker.Config) { c.Concurrency = 2 })
		for {
			select {
			case <-all:
				after = rss(t)
				return time.Since(start), after, max(most, after)
			case <-sample.C:
				most = max(most, rss(t))
			case <-late:
				t.Fatalf("%d of %d plain tasks ran within %v", ran.Load(), plain, patience)
			}
		}
	}
	fromGo := func(app *lovage.App) {
		for i := range plain {
			if _, err := app.Send(t.Context(), "go.add", lovage.Args{Positional: []any{i, 1}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	fromPython := func(*lovage.App) {
		testenv.Python(t, limit(t, patience), map[string]string{"tasks": p.tasks()}, etaPy, fmt.Sprint(n), fmt.Sprint(plain))
	}
	rate := func(took time.Duration) int { return int(float64(plain) / took.Seconds()) }
	var free, behind, beside time.Duration
	var before, after, most int
	t.Run("Before", func(t *testing.T) { free, before, _ = run(t, fromGo) })
	t.Run("Behind", func(t *testing.T) { behind, after, most = run(t, fromPython) })
	t.Run("Parked", func(t *testing.T) { beside, _, _ = run(t, fromGo) })
	if t.Failed() {
		return
	}
	t.Logf(`eta {"parked": %d, "plain": %d, "behind": "%v", "rate_before": %d, "rate_parked": %d, "mib_before": %d, "mib_most": %d, "mib_after": %d}`,
		n, plain, behind.Round(time.Millisecond), rate(free), rate(beside), before, most, after)
	if *full && most > before+64 {
		t.Errorf("the process grew from %d to %d MiB, as if it kept what it parks", before, most)
	}
	if early.Load() > 0 {
		t.Errorf("%d tasks for tomorrow ran today", early.Load())
	}
}

// rss is what this process has of memory, in MiB; 0 where nobody tells.
func rss(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, resident int
	if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
		t.Fatal(err)
	}
	return resident * os.Getpagesize() >> 20
}
