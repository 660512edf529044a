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
	"github.com/lovage-go/lovage/backend"
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
		for _, results := range []string{"rpc://", redis.URL(redis.DB(t))} {
			scheme, _, _ := strings.Cut(results, ":")
			t.Run(name+"/"+scheme, func(t *testing.T) {
				t.Parallel()
				p := place{broker: server.Vhost(t), backend: results, queue: "q"}
				options := map[string]any{"delayed_queue_type": "classic"}
				if c.quorum {
					options["queue_type"] = "quorum"
				}
				x := &deadly{kills: int32(c.kills), started: make(chan struct{}, 10), options: c.options}
				client := x.app(t, p, options, nil)
				defer client.Close(context.Background())
				ctx := limit(t, 90*time.Second)
				res, err := lovage.Remote[addArgs, int](client, "t.deadly").Delay(ctx, addArgs{X: 7})
				if err != nil {
					t.Fatal(err)
				}
				for range c.kills {
					x.dies(t, p, options)
				}
				last := x.app(t, p, options, nil)
				stop := goWorker(t, last)
				n, err := res.Get(ctx)
				runs, want := x.runs.Load(), int32(c.kills)
				if !c.fails {
					want++
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
					t.Fatalf("dead letters: got %v, %v, want one: %t", dead, err, c.dead)
				}
				x.forgotten(t, ctx, client, res.ID())
				if !c.dead {
					return
				}
				// An operator sends it back, and it has all its chances again.
				stop()
				x.kills += 2
				if n, err := conn.RequeueDead(ctx, dead[0].ID); n != 1 || err != nil {
					t.Fatalf("requeued %d, %v", n, err)
				}
				for range 2 {
					x.dies(t, p, options)
				}
				goWorker(t, x.app(t, p, options, nil))
				x.until(t, ctx, "the dead letter that was sent back has run to its end", func() bool { return x.runs.Load() == 6 })
				x.forgotten(t, ctx, client, res.ID())
			})
		}
	}
}

// TestLossIsToldWhenTheAckIsHandled: the server has not read the ack of a message
// that was sent again with its losses. Until it has, nobody is told of the losses,
// neither by the message nor by its copy, which comes to the same worker meanwhile: no
// run begins whose death would leave both.
func TestLossIsToldWhenTheAckIsHandled(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"classic", "quorum"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			server := testenv.RabbitMQ(t)
			url := server.Vhost(t)
			ctx := limit(t, patience)
			dead := newSite(t, url, map[string]any{"queue_type": kind})
			dead.publish("a")
			dead.claim(ctx)
			dead.c.Cut()
			tp := newTap(t, server.Addr)
			s := newSite(t, strings.Replace(url, server.Addr, tp.addr, 1), map[string]any{"queue_type": kind})
			release := tp.hold(basicAck)
			defer release()
			type answer struct {
				n     int
				moved bool
				err   error
			}
			mark := func(d *broker.Delivery) func() answer {
				told := make(chan struct{})
				var a answer
				go func() {
					defer close(told)
					a.n, a.moved, a.err = s.cs.(broker.LossMarker).MarkLoss(ctx, d)
				}()
				return func() answer { <-told; return a }
			}
			ds, err := s.cs.Claim(ctx, 2) // with room for the copy
			if err != nil {
				t.Fatal(err)
			}
			original := mark(&ds[0])
			copied := mark(s.claim(ctx))
			early := make(chan answer, 2)
			for _, told := range []func() answer{original, copied} {
				go func() { early <- told() }()
			}
			select {
			case a := <-early:
				t.Errorf("told %+v before the ack arrived", a)
			case <-time.After(300 * time.Millisecond): // whatever happens in that time, it must not be an answer
			}
			release()
			if a := original(); a.n != 1 || !a.moved || a.err != nil {
				t.Errorf("the original told %+v, want 1, by a copy", a)
			}
			if a := copied(); a.n != 1 || a.moved || a.err != nil {
				t.Errorf("the copy told %+v, want 1", a)
			}
			s.c.Cut()
			last := newSite(t, url, map[string]any{"queue_type": kind})
			d := last.claim(ctx)
			if !d.Orphaned || d.Losses != 1 {
				t.Errorf("after the death: orphaned %t, losses %d, want the copy with one", d.Orphaned, d.Losses)
			}
			if err := last.cs.Settle(ctx, broker.Settlement{Delivery: d}); err != nil {
				t.Error(err)
			}
			if n, err := last.c.Lengths(ctx, "q"); err != nil || n["q"].Ready+n["q"].Claimed > 0 {
				t.Errorf("what is left: %+v, %v, want nothing", n["q"], err)
			}
		})
	}
}

// deadly is a task in whose first runs the worker dies.
type deadly struct {
	kills   int32
	runs    atomic.Int32
	started chan struct{}
	options []lovage.TaskOption
}

func (x *deadly) until(t *testing.T, ctx context.Context, what string, is func() bool) {
	t.Helper()
	for tick := time.NewTicker(20 * time.Millisecond); !is(); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not so in time: %s; %d runs", what, x.runs.Load())
		}
	}
}

// forgotten wants no losses in the result store of a task whose message is gone.
func (x *deadly) forgotten(t *testing.T, ctx context.Context, client *lovage.App, id string) {
	t.Helper()
	b, err := client.Backend(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if counter, ok := b.(backend.LossCounter); ok {
		x.until(t, ctx, "its losses are forgotten", func() bool {
			n, err := counter.Losses(ctx, id)
			return err == nil && n == 0
		})
	}
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
	case <-time.After(patience):
		t.Error("the task did not start again")
	}
	for len(conns) > 0 {
		(<-conns).Cut()
	}
	w.Stop(worker.Cold)
	<-ended
	_ = app.Close(context.Background())
}
