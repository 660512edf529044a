package amqpbroker_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	_ "github.com/lovage-go/lovage/backend/rpcbackend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/broker/amqpbroker"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

// TestLosses: workers die while they run a task. Redis counts them by task id;
// with rpc:// nobody does, and the message carries the count.
func TestLosses(t *testing.T) {
	t.Parallel()
	redis := testenv.Redis(t)
	server := testenv.RabbitMQ(t)
	for name, c := range map[string]struct {
		options []lovage.TaskOption
		kills   int
		quorum  bool
		dead    bool
		fails   bool
	}{
		"ALostWorkerIsForgiven":        {kills: 2},
		"AtTheCapItIsADeadLetter":      {kills: 3, dead: true, fails: true},
		"OnQuorumQueues":               {kills: 3, quorum: true, dead: true, fails: true},
		"NotRequeuedMayOnlyHaveWaited": {options: []lovage.TaskOption{lovage.RejectOnWorkerLost(false)}, kills: 1},
		"NotRequeuedFailsWhenItRan":    {options: []lovage.TaskOption{lovage.RejectOnWorkerLost(false)}, kills: 2, fails: true},
	} {
		for _, backend := range []string{"rpc://", redis.URL(redis.DB(t))} {
			scheme, _, _ := strings.Cut(backend, ":")
			t.Run(name+"/"+scheme, func(t *testing.T) {
				t.Parallel()
				p := place{broker: server.Vhost(t), backend: backend, queue: "q"}
				options := map[string]any{"delayed_queue_type": "classic"}
				if c.quorum {
					options["queue_type"] = "quorum"
				}
				x := &deadly{kills: int32(c.kills), started: make(chan struct{}, 10), options: c.options}
				client := x.app(t, p, options, nil)
				defer client.Close(context.Background())
				ctx := limit(t, 25*time.Second)
				res, err := lovage.Remote[addArgs, int](client, "t.deadly").Delay(ctx, addArgs{X: 7})
				if err != nil {
					t.Fatal(err)
				}
				for range c.kills {
					x.dies(t, p, options)
				}
				last := x.app(t, p, options, nil)
				goWorker(t, last)
				n, err := res.Get(ctx)
				runs, want := x.runs.Load(), int32(c.kills)
				if !c.fails {
					want++
				}
				if scheme == "rpc" && (runs > want || c.fails && err == nil) {
					t.Logf("a death right after the copy with the count has left the original too: %d runs", runs)
					return
				}
				if runs != want {
					t.Errorf("%d runs, %d workers died", runs, c.kills)
				}
				if te, ok := errors.AsType[*lovage.TaskError](err); c.fails && (!ok || te.Type != "WorkerLostError") || !c.fails && (n != 7 || err != nil) {
					t.Errorf("after %d deaths: got %d, %v, want a failure: %t", c.kills, n, err, c.fails)
				}
				conn := open(t, p.broker, options)
				defer conn.Close()
				dead, err := conn.DeadLetters(ctx, "q", "", 10)
				for tick := time.NewTicker(20 * time.Millisecond); c.dead && err == nil && len(dead) == 0; dead, err = conn.DeadLetters(ctx, "q", "", 10) {
					<-tick.C // the result is stored before the letter is
				}
				if err != nil || c.dead != (len(dead) == 1) || c.dead && !strings.Contains(dead[0].Reason, "workers died while they ran it") {
					t.Errorf("dead letters: got %v, %v, want one: %t", dead, err, c.dead)
				}
			})
		}
	}
}

// deadly is a task in whose first runs the worker dies.
type deadly struct {
	kills   int32
	runs    atomic.Int32
	started chan struct{}
	options []lovage.TaskOption
}

// app is an App whose broker connections are also told to opened.
func (x *deadly) app(t *testing.T, p place, options map[string]any, opened func(*amqpbroker.Conn)) *lovage.App {
	app := lovage.New("proj", lovage.Config{BrokerURL: p.broker, ResultBackend: p.backend, TaskDefaultQueue: p.queue, BrokerTransportOptions: options},
		lovage.WithLogger(slog.New(slog.DiscardHandler)),
		lovage.WithBroker(func(ctx context.Context) (broker.Conn, error) {
			c, err := amqpbroker.Open(ctx, broker.Config{URL: p.broker, Options: options})
			if err == nil && opened != nil {
				opened(c)
			}
			return c, err
		}))
	lovage.Func(app, "t.deadly", func(ctx context.Context, in addArgs) (int, error) {
		if x.runs.Add(1) <= x.kills {
			x.started <- struct{}{}
			<-ctx.Done()
			return 0, context.Cause(ctx)
		}
		return in.X, nil
	}, x.options...)
	return app
}

// dies lets a worker start the task and die, as far as the servers can tell.
func (x *deadly) dies(t *testing.T, p place, options map[string]any) {
	t.Helper()
	conns := make(chan *amqpbroker.Conn, 16)
	app := x.app(t, p, options, func(c *amqpbroker.Conn) { conns <- c })
	w := worker.New(app, worker.Config{Hostname: "victim@%h", Concurrency: 1})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	select {
	case <-x.started:
	case <-time.After(15 * time.Second):
		t.Error("the task did not start again")
	}
	for len(conns) > 0 {
		(<-conns).Cut()
	}
	w.Stop(worker.Cold)
	<-ended
	_ = app.Close(context.Background())
}
