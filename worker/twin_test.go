package worker_test

import (
	"context"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
)

// forgetful is a broker that takes away what is claimed for longer than its lease,
// whatever its holder does.
type forgetful struct{ broker.Conn }

func (c forgetful) Consume(ctx context.Context, cfg broker.ConsumeConfig) (broker.Consumer, error) {
	cons, err := c.Conn.Consume(ctx, cfg)
	return struct{ broker.Consumer }{cons}, err
}

// TestComesAgainWhileItRuns: the message of a run that goes on comes back to its
// worker. It waits, and is done when the run is.
func TestComesAgainWhileItRuns(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		lasts   time.Duration // in halves of a lease
		stop    bool          // in the second lease
		waited  int
		doubles int64
		left    int
	}{
		"OnceMore":    {lasts: 3, waited: 1, doubles: 1},
		"AgainAgain":  {lasts: 9, waited: 4, doubles: 1},
		"StopInThere": {lasts: 3, stop: true, waited: 1, left: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const lease = 10 * time.Second
			runs := 0
			var h *lovage.Handle[Order, string]
			s := setup{conn: func(c broker.Conn) broker.Conn { return forgetful{c} }, backend: plainBackend, tasks: func(app *lovage.App) {
				h = lovage.Func(app, "t.long", func(context.Context, Order) (string, error) {
					runs++
					<-time.After(c.lasts * lease / 2)
					return "", nil
				})
			}}
			s.cfg.Lease = lease
			in(t, s, func(x *world) {
				id := delay(x, h, Order{})
				pause(lease * 13 / 10)
				if c.stop {
					x.stop()
				} else {
					pause(c.lasts * lease)
				}
				if s := x.w.Stats(); runs != 1 || s.Succeeded != 1 || s.Duplicates != c.doubles || s.Losses != 0 {
					t.Errorf("%d runs, stats %+v, want one run that succeeds\n%s", runs, s, x.log)
				}
				x.wantState(id, lovage.Success)
				x.wantLog(c.waited, "has come again while it runs here")
				if n := x.lengths("celery"); n.Ready != c.left || n.Claimed != 0 {
					t.Errorf("the queue has %+v, want %d ready", n, c.left)
				}
			})
		})
	}
}
