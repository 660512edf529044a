package worker_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/events"
	"github.com/lovage-go/lovage/worker"
)

// TestCancelOnConnectionLoss: worker_cancel_long_running_tasks_on_connection_loss.
func TestCancelOnConnectionLoss(t *testing.T) {
	t.Parallel()
	on := true
	t.Run("LateAcksAreCancelledAndGoBack", func(t *testing.T) {
		t.Parallel()
		o := new(outage)
		var late, early *lovage.Handle[Order, string]
		var runs, retries, published atomic.Int32
		var cause error
		body := func(ctx context.Context, _ Order) (string, error) {
			if runs.Add(1) > 2 {
				return "again", nil
			}
			select {
			case <-time.After(time.Minute):
				return "slept", nil
			case <-ctx.Done():
				cause = context.Cause(ctx)
				return "", cause
			}
		}
		in(t, setup{
			conf: lovage.Config{WorkerCancelLongRunningTasksOnConnectionLoss: &on},
			cfg:  worker.Config{TaskEvents: true}, conn: shaky(o),
			tasks: func(app *lovage.App) {
				late = lovage.Func(app, "t.late", body)
				early = lovage.Func(app, "t.early", body, lovage.AcksLate(false))
			},
		}, func(x *world) {
			heard, err := events.Listen(x.t.Context(), x.store.Broker(), events.ListenConfig{})
			if err != nil {
				t.Fatal(err)
			}
			defer heard.Close()
			x.app.Signals.TaskRetry.Connect(func(_ context.Context, e lovage.TaskRetry) {
				if e.Info.Type == "Retry" {
					retries.Add(1)
				}
			})
			lateID, earlyID := delay(x, late, Order{}), delay(x, early, Order{})
			x.app.Signals.AfterTaskPublish.Connect(func(context.Context, lovage.AfterTaskPublish) { published.Add(1) })
			pause(10 * time.Second)
			o.off.Store(true)
			pause(10 * time.Second)
			if cause == nil || !strings.Contains(cause.Error(), "worker_cancel_long_running_tasks_on_connection_loss") {
				t.Errorf("the cause of the context's end: got %v", cause)
			}
			if n := x.w.Stats().SlotsUsed; n != 1 {
				t.Errorf("slots used after the loss: got %d, want that of the early ack", n)
			}
			o.off.Store(false)
			pause(3 * time.Second)
			x.wantState(lateID, lovage.Success) // it went back and ran again
			pause(time.Minute)
			x.wantState(earlyID, lovage.Success)
			if n, m, p := runs.Load(), retries.Load(), published.Load(); n != 3 || m != 1 || p != 0 {
				t.Errorf("got %d runs, %d retry signals, %d messages sent; want 3, 1 and none: the message itself goes back", n, m, p)
			}
			for {
				ctx, cancel := context.WithTimeout(x.t.Context(), time.Second)
				e, err := heard.Next(ctx)
				cancel()
				if err != nil {
					t.Fatalf("no task-cancelled event: %v", err)
				}
				if e.Type == events.TaskCancelled {
					if e.UUID != lateID {
						t.Errorf("task-cancelled is for %s, want %s", e.UUID, lateID)
					}
					break
				}
			}
			if s := x.w.Stats(); s.Losses != 0 || s.Stuck != 0 {
				t.Errorf("stats: got %+v, want no loss and nothing stuck", s)
			}
			x.wantLog(1, "is cancelled: the connection that it came by is lost")
		})
	})
	t.Run("TheStateIsRetryUntilItRunsAgain", func(t *testing.T) {
		t.Parallel()
		o := new(outage)
		var h *lovage.Handle[Order, string]
		in(t, setup{
			conf: lovage.Config{WorkerCancelLongRunningTasksOnConnectionLoss: &on}, backend: plainBackend,
			conn:  func(c broker.Conn) broker.Conn { return &claimless{c, o} },
			tasks: func(app *lovage.App) { h = lovage.Func(app, "t.sleep", sleeper) },
		}, func(x *world) {
			id := delay(x, h, Order{})
			pause(10 * time.Second)
			o.off.Store(true)
			pause(10 * time.Second)
			x.wantState(id, lovage.StateRetry)
			b := x.store.Backend()
			defer b.Close()
			recs, err := b.Fetch(context.Background(), id)
			if err != nil {
				t.Fatal(err)
			}
			if text := string(recs[0].Meta); !strings.Contains(text, `"exc_type":"Retry"`) && !strings.Contains(text, `"exc_type": "Retry"`) {
				t.Errorf("the record is %s, want Celery's Retry", text)
			}
			o.off.Store(false)
			pause(2 * time.Minute)
			x.wantState(id, lovage.Success)
		})
	})
	t.Run("OffRunsGoOn", func(t *testing.T) {
		t.Parallel()
		o := new(outage)
		var h *lovage.Handle[Order, string]
		in(t, setup{conn: shaky(o), tasks: func(app *lovage.App) { h = lovage.Func(app, "t.sleep", sleeper) }}, func(x *world) {
			id := delay(x, h, Order{})
			pause(10 * time.Second)
			o.off.Store(true)
			pause(10 * time.Second)
			o.off.Store(false)
			pause(time.Minute)
			x.wantState(id, lovage.Success)
			x.wantLog(0, "is cancelled")
		})
	})
	t.Run("ARunThatHeedsNothingIsFenced", func(t *testing.T) {
		t.Parallel()
		o := new(outage)
		var h *lovage.Handle[Order, string]
		var runs atomic.Int32
		in(t, setup{conf: lovage.Config{WorkerCancelLongRunningTasksOnConnectionLoss: &on}, conn: shaky(o), tasks: func(app *lovage.App) {
			h = lovage.Func(app, "t.deaf", func(context.Context, Order) (string, error) {
				if runs.Add(1) > 1 {
					return "second", nil
				}
				<-time.After(time.Minute)
				return "first", nil
			})
		}}, func(x *world) {
			r, err := h.Delay(context.Background(), Order{})
			if err != nil {
				t.Fatal(err)
			}
			pause(10 * time.Second)
			o.off.Store(true)
			pause(10 * time.Second)
			o.off.Store(false)
			pause(2 * time.Minute)
			ctx, cancel := context.WithTimeout(x.t.Context(), time.Second)
			defer cancel()
			if got, err := r.Get(ctx); got != "second" || err != nil {
				t.Errorf("result: got %q, %v; want that of the second run", got, err)
			}
		})
	})
}

// claimless is a connection that only claims are lost of.
type claimless struct {
	broker.Conn
	o *outage
}

func (c *claimless) Consume(ctx context.Context, cfg broker.ConsumeConfig) (broker.Consumer, error) {
	if err := c.o.err("consume"); err != nil {
		return nil, err
	}
	cons, err := c.Conn.Consume(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &claimlessConsumer{cons, cons.(broker.LeaseRenewer), c.o}, nil
}

type claimlessConsumer struct {
	broker.Consumer
	broker.LeaseRenewer
	o *outage
}

func (c *claimlessConsumer) Claim(ctx context.Context, limit int) ([]broker.Delivery, error) {
	if err := c.o.err("claim"); err != nil {
		return nil, err
	}
	return c.Consumer.Claim(ctx, limit)
}

// TestWorkerDirect: a queue of each worker's own, as Celery names it.
func TestWorkerDirect(t *testing.T) {
	t.Parallel()
	on := true
	var h *lovage.Handle[AddArgs, int]
	in(t, setup{conf: lovage.Config{WorkerDirect: &on}, cfg: worker.Config{Hostname: "w1@box"}, tasks: func(app *lovage.App) {
		h = lovage.Func(app, "t.add", add)
	}}, func(x *world) {
		direct := delay(x, h, AddArgs{1, 2}, lovage.Queue("w1@box.dq2"))
		elsewhere := delay(x, h, AddArgs{1, 2}, lovage.Queue("w2@box.dq2"))
		usual := delay(x, h, AddArgs{1, 2})
		keyed := delay(x, h, AddArgs{1, 2}, lovage.Exchange("C.dq2"), lovage.RoutingKey("w1@box"))
		pause(2 * time.Second)
		for _, id := range []string{direct, usual, keyed} {
			x.wantState(id, lovage.Success)
		}
		x.wantState(elsewhere, "")
	})
	if q := broker.Direct("w1@box"); q.Name != "w1@box.dq2" || q.Exchange.Name != "C.dq2" || q.RoutingKey != "w1@box" {
		t.Errorf("the queue is %+v", q)
	}
}
