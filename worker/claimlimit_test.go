package worker_test

import (
	"context"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
)

// takesAway is a broker that lets nobody hold a message for longer than half an hour.
type takesAway struct {
	broker.Conn
	park bool
}

func (c takesAway) Features() broker.Features {
	f := c.Conn.Features()
	f.ClaimLimit, f.Park = 30*time.Minute, c.park
	return f
}

func TestClaimLimitIsTold(t *testing.T) {
	t.Parallel()
	task := func(context.Context, Order) (string, error) { return "", nil }
	for name, park := range map[string]bool{"Parks": true, "Holds": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := setup{conn: func(c broker.Conn) broker.Conn { return takesAway{c, park} }, tasks: func(app *lovage.App) {
				lovage.Func(app, "t.long", task, lovage.TimeLimit(time.Hour))
				lovage.Func(app, "t.longsoft", task, lovage.SoftTimeLimit(30*time.Minute))
				lovage.Func(app, "t.short", task, lovage.TimeLimit(time.Minute))
				lovage.Func(app, "t.unknown", task)
				lovage.Func(app, "t.early", task, lovage.TimeLimit(time.Hour), lovage.AcksLate(false))
			}}
			in(t, s, func(x *world) {
				pause(time.Second)
				held := 1
				if park {
					held = 0
				}
				x.wantLog(1, "runs of t.long, t.longsoft may last as long")
				x.wantLog(held, "those with a later ETA are held")
			})
		})
	}
}
