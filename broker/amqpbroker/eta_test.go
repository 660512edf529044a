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
// what is behind them runs.
func TestETAFromPythonLetsOthersPass(t *testing.T) {
	t.Parallel()
	n, plain, patience := 1_000, 200, 25*time.Second
	if *full {
		n, plain, patience = 100_000, 5_000, 10*time.Minute
	}
	p := newPlace(t)
	testenv.Python(t, limit(t, patience), map[string]string{"tasks": p.tasks()}, etaPy, fmt.Sprint(n), fmt.Sprint(plain))
	app := lovage.New("proj", lovage.Config{BrokerURL: p.broker, ResultBackend: p.backend, TaskDefaultQueue: p.queue}, lovage.WithLogger(slog.New(slog.DiscardHandler)))
	var ran, early atomic.Int64
	all := make(chan struct{})
	lovage.Func(app, "go.add", func(_ context.Context, in addArgs) (int, error) {
		if in.Y == 0 {
			early.Add(1)
		}
		if ran.Add(1) == int64(plain) {
			close(all)
		}
		return 0, nil
	})
	start := time.Now()
	goWorkerWith(t, app, func(c *worker.Config) { c.Concurrency = 2 })
	select {
	case <-all:
	case <-time.After(patience):
		t.Fatalf("%d of %d plain tasks ran within %v behind %d that have to wait", ran.Load(), plain, patience, n)
	}
	t.Logf("%d plain tasks behind %d for tomorrow ran within %v, the worker's process has %d MiB", plain, n, time.Since(start).Round(time.Millisecond), rss(t))
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
