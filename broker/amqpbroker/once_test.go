package amqpbroker_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/broker/amqpbroker"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

// laterPy sends one task with an ETA.
const laterPy = `
import sys, tasks as t
t.go_add.apply_async((1,), countdown=float(sys.argv[1]))
`

// TestETAIsRunOnce: a worker is killed between sending a message that came too
// early to the delay queues and acking it. There are two of it then, and one runs.
func TestETAIsRunOnce(t *testing.T) {
	t.Parallel()
	server := testenv.RabbitMQ(t)
	for name, passed := range map[string]bool{"TheOriginalIsSentAgain": false, "TheOriginalRuns": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			const wait = 8 * time.Second // for Python and a worker to start in
			tp := newTap(t, server.Addr)
			tp.drop = basicAck
			var runs atomic.Int32
			conns := make(chan *amqpbroker.Conn, 8)
			node := func(url string) *lovage.App {
				app := lovage.New("proj", lovage.Config{BrokerURL: url, ResultBackend: p.backend, TaskDefaultQueue: p.queue}, lovage.WithLogger(slog.New(slog.DiscardHandler)),
					lovage.WithBroker(func(ctx context.Context) (broker.Conn, error) {
						c, err := amqpbroker.Open(ctx, broker.Config{URL: url})
						if err == nil {
							conns <- c
						}
						return c, err
					}))
				lovage.Func(app, "go.add", func(context.Context, addArgs) (int, error) { return int(runs.Add(1)), nil })
				return app
			}
			ctx := limit(t, patience)
			testenv.Python(t, ctx, map[string]string{"tasks": p.tasks()}, laterPy, fmt.Sprint(wait.Seconds()))
			due := time.After(wait)
			there := node(strings.Replace(p.broker, server.Addr, tp.addr, 1))
			victim := worker.New(there, worker.Config{Hostname: "victim@%h", Concurrency: 1})
			ended := make(chan error, 1)
			go func() { ended <- victim.Run(context.WithoutCancel(ctx)) }()
			until(t, ctx, "the message is sent on and its ack swallowed", func() bool {
				for _, m := range tp.all() {
					if m.name() == basicAck {
						return true
					}
				}
				return false
			})
			for len(conns) > 0 {
				(<-conns).Cut()
			}
			victim.Stop(worker.Cold)
			<-ended
			_ = there.Close(ctx)
			if passed {
				<-due
			}
			heir := start(t, node(p.broker))
			until(t, ctx, "one copy is dropped", func() bool { return heir.Stats().Duplicates == 1 })
			until(t, ctx, "the task has run", func() bool { return runs.Load() > 0 })
			if n := runs.Load(); n != 1 {
				t.Errorf("it ran %d times, want once", n)
			}
		})
	}
}

// until waits for a condition.
func until(t *testing.T, ctx context.Context, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("it is not so that %s", what)
		}
	}
}

// start runs a worker until the end of the test.
func start(t *testing.T, app *lovage.App) *worker.Worker {
	t.Helper()
	w := worker.New(app, worker.Config{Hostname: "heir@%h", Concurrency: 1})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := testenv.End(t, ended, func() { w.Stop(worker.Cold) }); err != nil {
			t.Errorf("worker: %v", err)
		}
		if err := app.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return w
}
