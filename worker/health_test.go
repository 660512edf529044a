package worker_test

import (
	"context"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/probe"
	"github.com/lovage-go/lovage/lovagetest"
	"github.com/lovage-go/lovage/worker"
)

// health wants what Live and Ready say: "" is well.
func (x *world) health(when, live, ready string) {
	x.t.Helper()
	for name, c := range map[string]struct {
		got  error
		want string
	}{"Live": {x.w.Live(), live}, "Ready": {x.w.Ready(), ready}} {
		if c.want == "" && c.got != nil || c.want != "" && (c.got == nil || !strings.Contains(c.got.Error(), c.want)) {
			x.t.Errorf("%s: %s: got %v, want %q", when, name, c.got, c.want)
		}
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	t.Run("FromStartToEnd", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			init, o := make(chan struct{}), new(outage)
			var h *lovage.Handle[Order, string]
			x := build(t, setup{conn: shaky(o), tasks: func(app *lovage.App) {
				lovage.Register(app, "t.model", &slowInit{done: init})
				h = lovage.Func(app, "t.sleep", sleeper)
			}})
			x.health("before Run", "", "it is starting")
			o.off.Store(true)
			x.start()
			x.health("while a task is initialised", "", "it is starting")
			close(init)
			pause(10 * time.Second)
			x.health("without a broker", "", "it is not connected")
			o.off.Store(false)
			pause(5 * time.Second)
			x.health("connected", "", "")
			o.off.Store(true)
			pause(10 * time.Second)
			x.health("connection lost", "", "it is not connected")
			pause(2 * time.Minute)
			x.health("a long outage is no reason to die", "", "it is not connected")
			o.off.Store(false)
			pause(5 * time.Second)
			for range 4 {
				delay(x, h, Order{})
			}
			pause(30 * time.Second)
			x.health("all slots busy", "", "")
			x.cancel()
			pause(time.Second)
			x.health("while the last runs end", "", "it is stopping")
			if err := <-x.ended; err != nil {
				t.Errorf("Run: got %v, want nil", err)
			}
			x.invariants()
		})
	})
	t.Run("ABusyWorkerStaysLive", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[Order, string]
		in(t, setup{cfg: worker.Config{Concurrency: 1}, tasks: func(app *lovage.App) {
			h = lovage.Func(app, "t.hour", func(context.Context, Order) (string, error) { <-time.After(time.Hour); return "", nil })
		}}, func(x *world) {
			for range 3 {
				delay(x, h, Order{})
			}
			pause(50 * time.Minute)
			x.health("a long task in the only slot", "", "")
		})
	})
	t.Run("AStalledBrokerIsNotReady", func(t *testing.T) {
		t.Parallel()
		o := new(outage)
		in(t, setup{conn: shaky(o)}, func(x *world) {
			o.closed.Add(1)
			o.hang.Store(true)
			pause(20 * time.Second)
			x.health("a claim hangs", "", "the broker has not answered a claim for")
			o.hang.Store(false)
			pause(30 * time.Second)
			x.health("with a new connection", "", "")
			o.closed.Done()
		})
	})
	t.Run("AStuckLoopIsNotLive", func(t *testing.T) {
		t.Parallel()
		for name, c := range map[string]struct {
			conn func(broker.Conn, *trap) broker.Conn
			want string
		}{
			"Committer": {func(c broker.Conn, tr *trap) broker.Conn { return trapConn{c, tr, false} }, "the committer has been stuck"},
			"Connector": {func(c broker.Conn, tr *trap) broker.Conn { return trapConn{c, tr, true} }, "the connecting loop has been stuck"},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					tr := &trap{open: make(chan struct{})}
					var h *lovage.Handle[Order, string]
					x := build(t, setup{conn: func(conn broker.Conn) broker.Conn { return c.conn(conn, tr) }, tasks: func(app *lovage.App) {
						h = lovage.Func(app, "t.obey", obey)
					}})
					tr.set.Store(true)
					x.start()
					delay(x, h, Order{"work"})
					pause(50 * time.Second)
					if err := x.w.Live(); err != nil {
						t.Errorf("within the time of any call: got %v, want nil", err)
					}
					pause(time.Minute)
					if err := x.w.Live(); err == nil || !strings.Contains(err.Error(), c.want) {
						t.Errorf("Live: got %v, want %q", err, c.want)
					}
					tr.set.Store(false)
					close(tr.open)
					pause(10 * time.Second)
					x.health("after it came loose", "", "")
					x.stop()
					x.invariants()
				})
			})
		}
	})
	t.Run("AStuckSignalReceiverHoldsTheClaimLoop", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			var h *lovage.Handle[Order, string]
			x := build(t, setup{tasks: func(app *lovage.App) { h = lovage.Func(app, "t.obey", obey) }})
			x.app.Signals.TaskReceived.Connect(func(context.Context, lovage.TaskReceived) { <-release })
			x.start()
			delay(x, h, Order{"work"})
			pause(2 * time.Minute)
			x.health("a receiver never returns", "the claim loop has been stuck", "the broker has not answered the first claim")
			close(release)
			pause(time.Second)
			x.health("after it came loose", "", "")
			x.stop()
			x.invariants()
		})
	})
}

// slowInit is a task that is long in coming.
type slowInit struct {
	lovage.Task
	done chan struct{}
}

func (s *slowInit) Init(context.Context) error                 { <-s.done; return nil }
func (s *slowInit) Run(context.Context, Order) (string, error) { return "", nil }

// trap holds calls that heed no context.
type trap struct {
	set  atomic.Bool
	open chan struct{}
}

func (tr *trap) pass() {
	if tr.set.Load() {
		<-tr.open
	}
}

type trapConn struct {
	broker.Conn
	tr      *trap
	consume bool
}

func (c trapConn) Consume(ctx context.Context, cfg broker.ConsumeConfig) (broker.Consumer, error) {
	if c.consume {
		c.tr.pass()
		ctx = context.WithoutCancel(ctx)
	}
	cons, err := c.Conn.Consume(ctx, cfg)
	if err != nil || c.consume {
		return cons, err
	}
	return trapConsumer{cons, cons.(broker.LeaseRenewer), c.tr}, nil
}

type trapConsumer struct {
	broker.Consumer
	broker.LeaseRenewer
	tr *trap
}

func (c trapConsumer) Settle(ctx context.Context, ss ...broker.Settlement) error {
	c.tr.pass()
	return c.Consumer.Settle(context.WithoutCancel(ctx), ss...)
}

// TestHealthOverHTTP: the same over the wire, as a probe asks for it.
func TestHealthOverHTTP(t *testing.T) {
	t.Parallel()
	app := lovagetest.New(t, lovage.Config{})
	hold := make(chan struct{})
	h := lovage.Func(app.App, "t.hold", func(context.Context, struct{}) (string, error) { <-hold; return "", nil })
	address := "unix:" + filepath.Join(t.TempDir(), "health.sock")
	app.Configure(func(c *lovage.Config) ([]lovage.Warning, error) { c.WorkerHealth = address; return nil, nil })
	began := make(chan struct{})
	app.Signals.TaskPrerun.Connect(func(context.Context, lovage.TaskPrerun) { close(began) })
	w := app.Start(worker.Config{Hostname: "w1@box"})
	want := func(path string, ok bool, reason string) {
		t.Helper()
		deadline := time.Now().Add(time.Minute)
		for {
			a, err := probe.Ask(t.Context(), address, path)
			if err == nil && a.OK == ok && a.Node == "w1@box" && strings.Join(a.Reasons, "; ") == reason {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: got %+v, %v; want %t with %q", path, a, err, ok, reason)
			}
			<-time.After(10 * time.Millisecond)
		}
	}
	want("/livez", true, "")
	want("/readyz", true, "")
	if _, err := h.Delay(t.Context(), struct{}{}); err != nil {
		t.Fatal(err)
	}
	<-began
	w.Stop(worker.Warm)
	want("/livez", true, "")
	want("/readyz", false, "it is stopping")
	close(hold)
	if err := w.Shutdown(); err != nil {
		t.Error(err)
	}
	if a, err := probe.Ask(t.Context(), address, "/livez"); err == nil {
		t.Errorf("after the end: got %+v, want no answer", a)
	}
	if err := worker.New(app.App, worker.Config{Health: "0.0.0.0:1"}).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "public:0.0.0.0:1 if that is meant") {
		t.Errorf("a public address: got %v, want an error that says how", err)
	}
}
