package worker_test

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/memory"
	"github.com/lovage-go/lovage/worker"
)

// node is one "process": an app and a worker whose connections die together.
type node struct {
	proc   *memory.Process
	app    *lovage.App
	w      *worker.Worker
	log    *logbook
	cancel context.CancelFunc
	ended  chan error
}

// spawn starts a node on a store.
func spawn(store *memory.Store, name string, conf lovage.Config, cfg worker.Config, tasks func(*lovage.App)) *node {
	return spawnWith(store, name, conf, cfg, tasks, func(c broker.Conn) broker.Conn { return c })
}

// spawnWith is spawn with something between worker and broker.
func spawnWith(store *memory.Store, name string, conf lovage.Config, cfg worker.Config, tasks func(*lovage.App), between func(broker.Conn) broker.Conn) *node {
	n := &node{proc: store.Process(name), log: &logbook{}, ended: make(chan error, 1)}
	n.app = lovage.New(name, conf,
		lovage.WithLogger(slog.New(slog.NewTextHandler(n.log, nil))),
		lovage.WithBroker(func(context.Context) (broker.Conn, error) { return between(n.proc.Broker()), nil }),
		lovage.WithBackend(func(context.Context) (backend.Backend, error) { return n.proc.Backend(), nil }))
	tasks(n.app)
	if cfg.Hostname == "" {
		cfg.Hostname = name + "@host"
	}
	n.w = worker.New(n.app, cfg)
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	go func() { n.ended <- n.w.Run(ctx) }()
	return n
}

// kill ends the process as SIGKILL does, then clears away what still runs of it
// here, which can have no effect any more.
func (n *node) kill() {
	n.proc.Kill()
	n.w.Stop(worker.Cold)
	<-n.ended
	n.cancel()
	_ = n.app.Close(context.Background())
}

func (n *node) stop(t *testing.T) {
	t.Helper()
	n.cancel()
	if err := <-n.ended; err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
	if err := n.app.Close(context.Background()); err != nil {
		t.Errorf("app.Close: %v", err)
	}
}

// uncounted is a broker that knows of no losses, as RabbitMQ.
type uncounted struct{ plainConn }

func (c uncounted) Consume(ctx context.Context, cfg broker.ConsumeConfig) (broker.Consumer, error) {
	cons, err := c.plainConn.Consume(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return uncountedConsumer{cons.(plainConsumer)}, nil
}

type uncountedConsumer struct{ plainConsumer }

func (c uncountedConsumer) Claim(ctx context.Context, limit int) ([]broker.Delivery, error) {
	ds, err := c.plainConsumer.Claim(ctx, limit)
	for i := range ds {
		ds[i].Losses = 0
	}
	return ds, err
}

func TestLosses(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		opts  []lovage.TaskOption
		kills int // workers killed while they run the task
		runs  int32
		state lovage.State
		dead  bool
	}{
		"ALostWorkerIsForgiven":        {kills: 2, runs: 3, state: lovage.Success},
		"AtTheCapItIsADeadLetter":      {kills: 3, runs: 3, state: lovage.Failure, dead: true},
		"CapOfTheTask":                 {opts: []lovage.TaskOption{lovage.MaxWorkerLosses(1)}, kills: 1, runs: 1, state: lovage.Failure, dead: true},
		"NoCap":                        {opts: []lovage.TaskOption{lovage.MaxWorkerLosses(lovage.NoLimit)}, kills: 5, runs: 6, state: lovage.Success},
		"NotRequeuedMayOnlyHaveWaited": {opts: []lovage.TaskOption{lovage.RejectOnWorkerLost(false)}, kills: 1, runs: 2, state: lovage.Success},
		"NotRequeuedFailsWhenItRan":    {opts: []lovage.TaskOption{lovage.RejectOnWorkerLost(false)}, kills: 2, runs: 2, state: lovage.Failure},
		"EarlyAckIsNotRunAgain":        {opts: []lovage.TaskOption{lovage.AcksLate(false)}, kills: 1, runs: 1, state: ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := memory.New()
				var runs atomic.Int32
				var told atomic.Value
				tasks := func(app *lovage.App) {
					lovage.Func(app, "t.deadly", func(ctx context.Context, in Order) (string, error) {
						if runs.Add(1) <= int32(c.kills) {
							<-ctx.Done() // until the process is killed
						}
						return "survived", nil
					}, c.opts...)
					lovage.Proc(app, "t.told", func(_ context.Context, id string) error { told.Store(id); return nil })
				}
				client := lovage.New("client", lovage.Config{},
					lovage.WithBroker(func(context.Context) (broker.Conn, error) { return store.Broker(), nil }),
					lovage.WithBackend(func(context.Context) (backend.Backend, error) { return store.Backend(), nil }))
				h := lovage.Remote[Order, string](client, "t.deadly")
				errback := lovage.Remote[string, lovage.None](client, "t.told")
				r, err := h.Delay(t.Context(), Order{}, lovage.LinkError(errback.After()))
				if err != nil {
					t.Fatal(err)
				}
				for range c.kills {
					n := spawn(store, "w", lovage.Config{}, worker.Config{Concurrency: 1}, tasks)
					pause(time.Second)
					n.kill()
				}
				last := spawn(store, "w", lovage.Config{}, worker.Config{Concurrency: 1}, tasks)
				pause(time.Minute)
				state, err := r.State(t.Context())
				if c.state == "" {
					c.state = lovage.Pending
				}
				if state != c.state || err != nil {
					t.Errorf("state: got %s, %v, want %s\n%s", state, err, c.state, last.log)
				}
				if got := runs.Load(); got != c.runs {
					t.Errorf("runs: got %d, want %d", got, c.runs)
				}
				conn := store.Broker()
				dead, err := conn.DeadLetters(t.Context(), "", "", 10)
				if err != nil {
					t.Fatal(err)
				}
				if c.dead != (len(dead) == 1) || c.dead && !strings.Contains(dead[0].Reason, "workers died while they ran it") {
					t.Errorf("dead letters: got %v, want one: %t", dead, c.dead)
				}
				if (c.state == lovage.Failure) != (told.Load() == r.ID()) {
					t.Errorf("errback: got %v, state is %s", told.Load(), state)
				}
				conn.Close()
				last.stop(t)
				if err := client.Close(context.Background()); err != nil {
					t.Error(err)
				}
			})
		})
	}
	for name, between := range map[string]func(broker.Conn) broker.Conn{
		"CountedByTheBroker":      func(c broker.Conn) broker.Conn { return c },
		"CountedInTheResultStore": func(c broker.Conn) broker.Conn { return uncounted{plainConn{c}} },
	} {
		t.Run("WhatRanBesideAKillerIsNotGivenUp/"+name, func(t *testing.T) {
			t.Parallel()
			testBesideAKiller(t, between)
		})
	}
	t.Run("HandBackAndFirstRunCostNothing", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[Order, string]
		in(t, setup{tasks: func(app *lovage.App) { h = lovage.Func(app, "t.obey", obey) }}, func(x *world) {
			delay(x, h, Order{"work"})
			pause(time.Second)
			if n := x.w.Stats().Losses; n != 0 {
				t.Errorf("losses: got %d, want 0", n)
			}
		})
	})
}

// slowCounter takes a while to tell the losses of a task.
type slowCounter struct {
	backend.Backend
	backend.LossCounter
}

func (s slowCounter) Losses(ctx context.Context, id string) (int, error) {
	<-time.After(time.Second)
	return s.LossCounter.Losses(ctx, id)
}

// TestWhatIsAskedForWillWantASlot: messages that come again are not claimed beyond
// the slots while the result store is asked for their losses.
func TestWhatIsAskedForWillWantASlot(t *testing.T) {
	t.Parallel()
	var h *lovage.Handle[Order, string]
	s := setup{
		cfg:     worker.Config{Concurrency: 2, LookAhead: -1},
		conn:    func(c broker.Conn) broker.Conn { return uncounted{plainConn{c}} },
		backend: func(b backend.Backend) backend.Backend { return slowCounter{b, b.(backend.LossCounter)} },
		tasks:   func(app *lovage.App) { h = lovage.Func(app, "t.obey", obey) },
	}
	bubble(t, func(t *testing.T) {
		x := build(t, s)
		for range 8 {
			delay(x, h, Order{"work"})
		}
		conn := x.store.Broker()
		cons, err := conn.Consume(t.Context(), broker.ConsumeConfig{Queues: []broker.Queue{broker.Named("celery")}})
		if err != nil {
			t.Fatal(err)
		}
		if ds, err := cons.Claim(t.Context(), 8); len(ds) != 8 || err != nil {
			t.Fatalf("claimed %d, %v", len(ds), err)
		}
		conn.Close() // all come again
		x.start()
		for range 100 {
			pause(100 * time.Millisecond)
			if n := x.lengths("celery").Claimed; n > 2 {
				t.Fatalf("claimed: got %d, want 2 at most", n)
			}
		}
		if s := x.w.Stats(); s.Succeeded != 8 || s.Returned != 0 {
			t.Errorf("got %+v, want 8 that succeeded and none given back", s)
		}
		x.stop()
		x.invariants()
	})
}

// testBesideAKiller has a task kill the workers that three others run on too.
func testBesideAKiller(t *testing.T, between func(broker.Conn) broker.Conn) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		kills := make(chan struct{}, 1)
		tasks := func(app *lovage.App) {
			lovage.Func(app, "t.work", func(ctx context.Context, in Order) (string, error) {
				if in.Do == "kill" {
					<-time.After(500 * time.Millisecond)
					kills <- struct{}{}
					<-ctx.Done()
					return "", context.Cause(ctx)
				}
				return sleeper(ctx, in)
			})
		}
		client := lovage.New("client", lovage.Config{},
			lovage.WithBroker(func(context.Context) (broker.Conn, error) { return store.Broker(), nil }),
			lovage.WithBackend(func(context.Context) (backend.Backend, error) { return store.Backend(), nil }))
		h := lovage.Remote[Order, string](client, "t.work")
		want := map[string]lovage.State{}
		for _, do := range []string{"work", "kill", "work", "work"} {
			r, err := h.Delay(t.Context(), Order{do})
			if err != nil {
				t.Fatal(err)
			}
			want[r.ID()] = map[string]lovage.State{"work": lovage.Success, "kill": lovage.Failure}[do]
		}
		start := func() *node {
			return spawnWith(store, "w", lovage.Config{}, worker.Config{Concurrency: 4}, tasks, between)
		}
		n, died := start(), 0
		for done := false; !done; {
			select {
			case <-kills:
				died++
				n.kill()
				n = start()
			case <-time.After(10 * time.Minute):
				done = true
			}
		}
		if died != 3 {
			t.Errorf("workers that died: got %d, want the cap of 3", died)
		}
		for id, state := range want {
			if got, err := client.Result(id).State(t.Context()); got != state || err != nil {
				t.Errorf("state: got %s, %v, want %s\n%s", got, err, state, n.log)
			}
		}
		n.stop(t)
		if err := client.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

func TestLeases(t *testing.T) {
	t.Parallel()
	t.Run("ALongRunKeepsItsLease", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[Order, string]
		var runs atomic.Int32
		in(t, setup{tasks: func(app *lovage.App) {
			h = lovage.Func(app, "t.long", func(context.Context, Order) (string, error) {
				runs.Add(1)
				<-time.After(10 * time.Minute)
				return "", nil
			})
		}}, func(x *world) {
			id := delay(x, h, Order{})
			pause(time.Second)
			other := spawn(x.store, "other", lovage.Config{}, worker.Config{Concurrency: 1}, func(app *lovage.App) { lovage.Func(app, "t.long", obey) })
			pause(11 * time.Minute)
			x.wantState(id, lovage.Success)
			if runs.Load() != 1 || other.w.Stats().Received != 0 {
				t.Errorf("runs here %d, received there %d, want 1 and 0", runs.Load(), other.w.Stats().Received)
			}
			other.stop(t)
		})
	})
	t.Run("AStoppedWorkerIsFenced", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			store := memory.New()
			var causes []error
			a := spawn(store, "a", lovage.Config{}, worker.Config{Concurrency: 1}, func(app *lovage.App) {
				lovage.Func(app, "t.long", func(ctx context.Context, _ Order) (string, error) {
					select {
					case <-ctx.Done():
						causes = append(causes, context.Cause(ctx))
					case <-time.After(100 * time.Second):
					}
					return "a", nil
				})
			})
			synctest.Wait()
			conn := store.Broker()
			client := lovage.New("client", lovage.Config{}, lovage.WithBroker(func(context.Context) (broker.Conn, error) { return conn, nil }),
				lovage.WithBackend(func(context.Context) (backend.Backend, error) { return store.Backend(), nil }))
			r, err := lovage.Remote[Order, string](client, "t.long").Delay(t.Context(), Order{})
			if err != nil {
				t.Fatal(err)
			}
			pause(time.Second)
			a.proc.Stop() // SIGSTOP
			b := spawn(store, "b", lovage.Config{}, worker.Config{Concurrency: 1}, func(app *lovage.App) {
				lovage.Func(app, "t.long", func(context.Context, Order) (string, error) { return "b", nil })
			})
			pause(time.Minute)
			a.proc.Resume()
			pause(2 * time.Minute)
			if v, err := r.Get(t.Context()); v != "b" || err != nil {
				t.Errorf("Get: got %q, %v, want that of the second worker", v, err)
			}
			if n := a.w.Stats().Fenced; n != 1 {
				t.Errorf("fenced: got %d, want 1\n%s", n, a.log)
			}
			if len(causes) != 1 || causes[0] != lovage.ErrLeaseLost {
				t.Errorf("cause of the run: got %v, want ErrLeaseLost", causes)
			}
			a.stop(t)
			b.stop(t)
			if err := client.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
	})
}
