package worker_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/worker"
)

// parallelConn says that commits gain by company, takes 50 ms for each, and counts
// those under way.
type parallelConn struct {
	shakyConn
	now, most *atomic.Int32
}

func (c parallelConn) Features() broker.Features {
	f := c.shakyConn.Features()
	f.Parallel = true
	return f
}

func (c parallelConn) Consume(ctx context.Context, cfg broker.ConsumeConfig) (broker.Consumer, error) {
	cons, err := c.shakyConn.Consume(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &parallelConsumer{cons.(*shakyConsumer), c}, nil
}

type parallelConsumer struct {
	*shakyConsumer
	conn parallelConn
}

func (c *parallelConsumer) FinishAll(ctx context.Context, fs ...broker.Finish) error {
	n := c.conn.now.Add(1)
	defer c.conn.now.Add(-1)
	for most := c.conn.most.Load(); n > most && !c.conn.most.CompareAndSwap(most, n); most = c.conn.most.Load() {
	}
	time.Sleep(50 * time.Millisecond) // in a bubble
	return c.shakyConsumer.FinishAll(ctx, fs...)
}

// TestParallelCommits empties a backlog by two commits at a time, with an outage in
// the middle of it.
func TestParallelCommits(t *testing.T) {
	t.Parallel()
	const n = 3000
	var h *lovage.Handle[Order, string]
	var now, most, runs atomic.Int32
	o := new(outage)
	in(t, setup{cfg: worker.Config{Concurrency: 40}, conn: func(c broker.Conn) broker.Conn {
		return parallelConn{shaky(o)(c).(shakyConn), &now, &most}
	}, tasks: func(app *lovage.App) {
		h = lovage.Func(app, "t.short", func(context.Context, Order) (string, error) {
			<-time.After(5 * time.Millisecond)
			runs.Add(1)
			return "", nil
		})
	}}, func(x *world) {
		var ids []string
		for range n {
			ids = append(ids, delay(x, h, Order{}))
		}
		for runs.Load() < n/2 {
			pause(time.Millisecond)
		}
		o.off.Store(true)
		pause(time.Minute)
		o.off.Store(false)
		pause(2 * time.Minute)
		for _, id := range ids {
			x.wantState(id, lovage.Success)
		}
		if s := x.w.Stats(); s.Fenced != 0 || s.Losses != 0 || s.Finishing != 0 || s.Succeeded != int64(runs.Load()) || runs.Load() != n {
			t.Errorf("%d runs, stats %+v: want %d runs, each kept once", runs.Load(), s, n)
		}
		if got := most.Load(); got != 2 {
			t.Errorf("commits at a time: got %d, want 2", got)
		}
		x.wantLog(1, "the store does not take the ends of tasks")
		x.wantLog(1, "the store takes the ends of tasks again")
		if l := x.lengths("celery"); l.Ready+l.Claimed != 0 {
			t.Errorf("queue: got %+v, want it empty", l)
		}
		if text := x.log.String(); strings.Contains(text, "panic") {
			t.Error(text)
		}
	})
}

// retryStore looks what is in the queue when a retry is stored.
type retryStore struct {
	backend.Backend
	look func()
}

func (s retryStore) Store(ctx context.Context, recs ...*backend.Record) error {
	for _, r := range recs {
		if r.State == lovage.StateRetry {
			s.look()
		}
	}
	return s.Backend.Store(ctx, recs...)
}

// TestRetryIsStoredBeforeItIsSent: where broker and result store are two, the
// retry may run and end elsewhere at once, and RETRY must not replace its end.
func TestRetryIsStoredBeforeItIsSent(t *testing.T) {
	t.Parallel()
	var x *world
	var h *lovage.Handle[Order, string]
	stored := 0
	in(t, setup{broker: plainBroker, backend: func(b backend.Backend) backend.Backend {
		return retryStore{b, func() {
			stored++
			if l := x.lengths("celery"); l.Ready+l.Delayed != 0 {
				t.Errorf("the retry is sent before it is stored: %+v", l)
			}
		}}
	}, tasks: func(app *lovage.App) {
		h = lovage.Func(app, "t.never", func(ctx context.Context, _ Order) (string, error) {
			return "", lovage.Retry(errors.New("no"), lovage.Countdown(time.Second))
		}, lovage.MaxRetries(3))
	}}, func(y *world) {
		x = y
		id := delay(x, h, Order{})
		pause(time.Minute)
		x.wantState(id, lovage.Failure)
		if stored != 3 {
			t.Errorf("%d retries were stored, want 3", stored)
		}
	})
}
