package worker_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/memory"
	"github.com/lovage-go/lovage/worker"
)

// outage is a switch that makes a store unavailable, and counts.
type outage struct {
	off      atomic.Bool
	hang     atomic.Bool // claims do not return
	consumes atomic.Int32
	closed   sync.WaitGroup
}

func (o *outage) err(what string) error {
	if o.off.Load() {
		return fmt.Errorf("%s: database is locked: %w", what, broker.ErrUnavailable)
	}
	return nil
}

type shakyConn struct {
	*memory.Conn
	o *outage
}

func (c shakyConn) Consume(ctx context.Context, cfg broker.ConsumeConfig) (broker.Consumer, error) {
	if err := c.o.err("consume"); err != nil {
		return nil, err
	}
	c.o.consumes.Add(1)
	cons, err := c.Conn.Consume(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &shakyConsumer{cons, cons.(broker.AtomicFinisher), cons.(broker.LeaseRenewer), cons.(broker.LossCounter), c.o}, nil
}

type shakyConsumer struct {
	broker.Consumer
	fin broker.AtomicFinisher
	broker.LeaseRenewer
	broker.LossCounter
	o *outage
}

func (c *shakyConsumer) Claim(ctx context.Context, limit int) ([]broker.Delivery, error) {
	if c.o.hang.Load() {
		c.o.closed.Wait()
		return nil, broker.ErrClosed
	}
	if err := c.o.err("claim"); err != nil {
		return nil, err
	}
	ds, err := c.Consumer.Claim(ctx, limit)
	if e := c.o.err("claim"); e != nil && len(ds) == 0 {
		return nil, e
	}
	return ds, err
}

func (c *shakyConsumer) FinishAll(ctx context.Context, fs ...broker.Finish) error {
	if err := c.o.err("finish"); err != nil {
		return err
	}
	return c.fin.FinishAll(ctx, fs...)
}

func shaky(o *outage) func(broker.Conn) broker.Conn {
	return func(c broker.Conn) broker.Conn { return shakyConn{c.(*memory.Conn), o} }
}

func TestConnection(t *testing.T) {
	t.Parallel()
	t.Run("AStoreGoneForAWhileCostsNothing", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[Order, string]
		o := new(outage)
		var runs atomic.Int32
		in(t, setup{conn: shaky(o), tasks: func(app *lovage.App) {
			h = lovage.Func(app, "t.sleep", func(ctx context.Context, in Order) (string, error) {
				runs.Add(1)
				return sleeper(ctx, in)
			})
		}}, func(x *world) {
			id := delay(x, h, Order{})
			pause(10 * time.Second)
			o.off.Store(true)
			pause(2 * time.Minute) // the run ends in the middle of the outage
			x.wantState(id, "")
			if s := x.w.Stats(); s.Finishing != 1 || s.SlotsUsed != 0 {
				t.Errorf("while the store is away: got %+v, want one finish that waits and no slot used", s)
			}
			o.off.Store(false)
			pause(5 * time.Second)
			x.wantState(id, lovage.Success)
			next := delay(x, h, Order{})
			pause(2 * time.Minute)
			x.wantState(next, lovage.Success)
			if n := runs.Load(); n != 2 {
				t.Errorf("runs: got %d, want 2", n)
			}
			x.wantLog(1, "consumer: connection lost")
			x.wantLog(1, "consumer: connection is back")
			x.wantLog(1, "the store does not take the ends of tasks")
			x.wantLog(1, "the store takes the ends of tasks again")
			if s := x.w.Stats(); s.Losses != 0 || s.Fenced != 0 {
				t.Errorf("stats: got %+v, want no loss and nothing fenced", s)
			}
		})
	})
	t.Run("ShutdownWhileTheStoreIsAway", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[Order, string]
		o := new(outage)
		in(t, setup{conn: shaky(o), tasks: func(app *lovage.App) { h = lovage.Func(app, "t.obey", obey) }}, func(x *world) {
			o.off.Store(true)
			id := delay(x, h, Order{"work"})
			pause(10 * time.Second)
			x.w.Stop(worker.Cold)
			if err := <-x.ended; err != nil {
				t.Errorf("Run: got %v, want nil", err)
			}
			x.cancel()
			x.cancel = nil
			x.wantState(id, "")
			if l := x.lengths("celery"); l.Ready != 1 || l.Claimed != 0 {
				t.Errorf("queue: got %+v, want the message back", l)
			}
		})
	})
	t.Run("UnfinishedRunsAreBounded", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[Order, string]
		o := new(outage)
		in(t, setup{conn: func(c broker.Conn) broker.Conn { return finishless{shakyConn{c.(*memory.Conn), o}} }, cfg: worker.Config{Concurrency: 1}, tasks: func(app *lovage.App) {
			h = lovage.Func(app, "t.obey", obey)
		}}, func(x *world) {
			o.off.Store(true)
			for range 3000 {
				delay(x, h, Order{"work"})
			}
			pause(time.Minute)
			s := x.w.Stats()
			if s.Finishing < 1000 || s.Finishing > 1004+513 { // and what had been claimed ahead
				t.Errorf("unfinished: got %d, want about 1004, and the look-ahead at most", s.Finishing)
			}
			o.off.Store(false)
			pause(time.Minute)
			if s := x.w.Stats(); s.Succeeded != 3000 {
				t.Errorf("succeeded: got %d, want 3000", s.Succeeded)
			}
		})
	})
	t.Run("UnfinishedRunsAreBoundedByBytes", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[Order, string]
		o := new(outage)
		large := strings.Repeat("x", 1<<20)
		in(t, setup{conn: func(c broker.Conn) broker.Conn { return finishless{shakyConn{c.(*memory.Conn), o}} }, cfg: worker.Config{Concurrency: 1, LookAhead: -1}, tasks: func(app *lovage.App) {
			h = lovage.Func(app, "t.large", func(context.Context, Order) (string, error) { return large, nil })
		}}, func(x *world) {
			o.off.Store(true)
			for range 200 {
				delay(x, h, Order{})
			}
			pause(time.Minute)
			// Some runs end between a look at the bound and the claim after it.
			if n := x.w.Stats().Finishing; n < 60 || n > 100 {
				t.Errorf("ends of 1 MiB that wait: got %d, want about 64 of 200", n)
			}
			o.off.Store(false)
			pause(time.Minute)
			if s := x.w.Stats(); s.Succeeded != 200 {
				t.Errorf("succeeded: got %d, want 200", s.Succeeded)
			}
		})
	})
	t.Run("AWarmShutdownGivesUpOnAStoreThatIsAway", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[Order, string]
		o := new(outage)
		in(t, setup{conn: shaky(o), tasks: func(app *lovage.App) { h = lovage.Func(app, "t.sleep", sleeper) }}, func(x *world) {
			id := delay(x, h, Order{}) // a minute
			pause(time.Second)
			o.off.Store(true)
			began := time.Now()
			x.stop()
			if took := time.Since(began); took < time.Minute-time.Second || took > 75*time.Second {
				t.Errorf("the shutdown took %v, want the rest of the run and a grace", took)
			}
			x.wantState(id, "")
			if l := x.lengths("celery"); l.Ready != 1 || l.Claimed != 0 {
				t.Errorf("queue: got %+v, want the message back", l)
			}
			x.wantLog(1, "the store does not take the ends of tasks; their messages go back")
		})
	})
	for what, b := range map[string]func(backend.Backend) backend.Backend{
		"AResult":       func(b backend.Backend) backend.Backend { return silent{b} },
		"APartOfAChord": func(b backend.Backend) backend.Backend { return uncounting{silent{b}, &counting{}} },
	} {
		t.Run("AWarmShutdownGivesUpOnWhoDoesNotTake"+what, func(t *testing.T) {
			t.Parallel()
			s := canvasSetup(&called{})
			s.backend = b
			in(t, s, func(x *world) {
				x.send("t.part", "m0", "[1]", bodyChord, inChord("g", 0))
				pause(time.Second)
				if s := x.w.Stats(); s.Succeeded != 0 || s.Finishing == 0 {
					t.Errorf("the store does not answer: got %+v, want a run whose end is being kept", s)
				}
				began := time.Now()
				x.stop()
				if took := time.Since(began); took > 10*time.Second {
					t.Errorf("the shutdown took %v, want a grace of 5 s", took)
				}
				if l := x.lengths("celery"); l.Ready != 1 || l.Claimed != 0 {
					t.Errorf("queue: got %+v, want the message back", l)
				}
			})
		})
	}
	t.Run("AStalledBrokerIsLeft", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[Order, string]
		o := new(outage)
		in(t, setup{conn: shaky(o), tasks: func(app *lovage.App) { h = lovage.Func(app, "t.obey", obey) }}, func(x *world) {
			o.closed.Add(1)
			o.hang.Store(true)
			pause(20 * time.Second)
			o.hang.Store(false) // for new connections; the old call still hangs
			pause(30 * time.Second)
			id := delay(x, h, Order{"work"})
			pause(time.Second)
			x.wantState(id, lovage.Success)
			x.wantLog(1, "trying to connect again: the broker does not answer")
			if n := o.consumes.Load(); n != 2 {
				t.Errorf("connections: got %d, want 2", n)
			}
			o.closed.Done()
		})
	})
	t.Run("ManyDisconnectsLeaveSlotsAlone", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[Order, string]
		var active atomic.Int32
		o := new(outage)
		in(t, setup{conn: shaky(o), tasks: func(app *lovage.App) {
			h = lovage.Func(app, "t.nap", func(context.Context, Order) (string, error) {
				active.Add(1)
				defer active.Add(-1)
				<-time.After(3 * time.Second)
				return "", nil
			})
		}}, func(x *world) {
			ids := make([]string, 200)
			for i := range ids {
				ids[i] = delay(x, h, Order{})
			}
			for range 500 {
				o.off.Store(true)
				pause(60 * time.Millisecond)
				if used, runs := x.w.Stats().SlotsUsed, int(active.Load()); used != runs || used > 4 {
					t.Fatalf("slots used %d, runs %d, want them equal and at most 4", used, runs)
				}
				o.off.Store(false)
				pause(200 * time.Millisecond)
			}
			pause(3 * time.Minute)
			for _, id := range ids {
				x.wantState(id, lovage.Success)
			}
			if s := x.w.Stats(); s.Succeeded != 200 {
				t.Errorf("succeeded: got %d, want 200 (each once)", s.Succeeded)
			}
		})
	})
	t.Run("AtStartARefusalIsFinal", func(t *testing.T) {
		t.Parallel()
		fails(t, setup{conn: func(c broker.Conn) broker.Conn { return refusing{c} }}, "the directory is read-only")
	})
	t.Run("AtStartAnOutageIsWaitedFor", func(t *testing.T) {
		t.Parallel()
		o := new(outage)
		o.off.Store(true)
		var h *lovage.Handle[Order, string]
		in(t, setup{conn: shaky(o), tasks: func(app *lovage.App) { h = lovage.Func(app, "t.obey", obey) }}, func(x *world) {
			pause(10 * time.Second)
			x.wantLog(0, "ready.")
			o.off.Store(false)
			pause(3 * time.Second)
			x.wantLog(1, "ready.")
			x.wantLog(0, "connection lost")
			id := delay(x, h, Order{"work"})
			pause(time.Second)
			x.wantState(id, lovage.Success)
			x.wantLog(1, "consumer: cannot connect; trying again")
			x.wantLog(1, "consumer: connected")
		})
	})
	t.Run("AtStartItGivesUpAsConfigured", func(t *testing.T) {
		t.Parallel()
		no := false
		for want, conf := range map[string]lovage.Config{
			"no connection to the broker after 4 tries (broker_connection_max_retries)": {BrokerConnectionMaxRetries: 3},
			"connect to the broker: consume: database is locked":                        {BrokerConnectionRetryOnStartup: &no},
		} {
			o := new(outage)
			o.off.Store(true)
			fails(t, setup{conf: conf, conn: shaky(o)}, want)
		}
	})
	t.Run("RetryOff", func(t *testing.T) {
		t.Parallel()
		o := new(outage)
		no := false
		in(t, setup{conf: lovage.Config{BrokerConnectionRetry: &no}, conn: shaky(o)}, func(x *world) {
			o.off.Store(true)
			if err := <-x.ended; err == nil || !strings.Contains(err.Error(), "broker_connection_retry is off") {
				t.Errorf("Run: got %v, want an error that names the setting", err)
			}
			x.cancel()
			x.cancel = nil
		})
	})
}

// refusing is a broker that will never work.
type refusing struct{ broker.Conn }

func (refusing) Consume(context.Context, broker.ConsumeConfig) (broker.Consumer, error) {
	return nil, fmt.Errorf("open the store: the directory is read-only: make it writable")
}

// finishless is away for finishes only.
type finishless struct{ shakyConn }

func (c finishless) Consume(ctx context.Context, cfg broker.ConsumeConfig) (broker.Consumer, error) {
	cons, err := c.Conn.Consume(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &finishlessConsumer{cons, cons.(broker.LeaseRenewer), cons.(broker.AtomicFinisher), c.o}, nil
}

type finishlessConsumer struct {
	broker.Consumer
	broker.LeaseRenewer
	fin broker.AtomicFinisher
	o   *outage
}

func (c *finishlessConsumer) FinishAll(ctx context.Context, fs ...broker.Finish) error {
	if err := c.o.err("finish"); err != nil {
		return err
	}
	return c.fin.FinishAll(ctx, fs...)
}

func TestStoresApart(t *testing.T) {
	t.Parallel()
	t.Run("AResultStoreGoneForAWhile", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[Order, string]
		var note *lovage.Handle[string, lovage.None]
		var noted atomic.Int32
		o := new(outage)
		in(t, setup{backend: func(b backend.Backend) backend.Backend { return &shakyBackend{b, o} }, tasks: func(app *lovage.App) {
			h = lovage.Func(app, "t.obey", obey)
			note = lovage.Proc(app, "t.note", func(context.Context, string) error { noted.Add(1); return nil }, lovage.IgnoreResult(true))
		}}, func(x *world) {
			o.off.Store(true)
			id := delay(x, h, Order{"work"}, lovage.Link(note.After()))
			pause(time.Minute)
			o.off.Store(false)
			pause(5 * time.Second)
			x.wantState(id, lovage.Success)
			if n := noted.Load(); n != 1 {
				t.Errorf("callbacks: got %d, want 1: what was published is not published again", n)
			}
		})
	})
	t.Run("EffectsThatAreRefusedFailTheTask", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[Order, string]
		o := new(outage)
		in(t, setup{backend: func(b backend.Backend) backend.Backend { return &shakyBackend{b, o} }, tasks: func(app *lovage.App) {
			h = lovage.Func(app, "t.obey", func(context.Context, Order) (string, error) { return "REFUSED", nil })
		}}, func(x *world) {
			id := delay(x, h, Order{})
			pause(time.Second)
			x.wantState(id, lovage.Failure)
			if d := x.dead(); len(d) != 1 || !strings.Contains(d[0].Reason, "its effects were refused: the record is too large") {
				t.Errorf("dead letters: got %v, want one with the reason", d)
			}
			if n := x.w.Stats().Refused; n != 1 {
				t.Errorf("refused: got %d, want 1", n)
			}
		})
	})
}

// silent takes no result and never says so.
type silent struct{ backend.Backend }

func (silent) Store(ctx context.Context, _ ...*backend.Record) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// uncounting counts no part of a chord while it is away, which is always.
type uncounting struct {
	silent
	backend.ChordCounter
}

func (uncounting) CountPart(context.Context, *backend.ChordPart) (backend.ChordCount, error) {
	return backend.ChordCount{}, backend.ErrUnavailable
}

// shakyBackend is away while the switch is off, and refuses some results.
type shakyBackend struct {
	backend.Backend
	o *outage
}

func (b *shakyBackend) Store(ctx context.Context, recs ...*backend.Record) error {
	if b.o.off.Load() {
		return fmt.Errorf("store: %w", backend.ErrUnavailable)
	}
	for _, r := range recs {
		if strings.Contains(string(r.Meta), `"REFUSED"`) {
			return fmt.Errorf("the record is too large")
		}
	}
	return b.Backend.Store(ctx, recs...)
}
