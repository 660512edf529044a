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
	f.Park = c.park
	return f
}

func (c takesAway) ClaimLimit(queue string) time.Duration {
	if queue == "quick" {
		return time.Minute
	}
	return 30 * time.Minute
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

// TestLongClaimIsTold: once a run, or a held message, has most of the time behind
// it that its broker gives it.
func TestLongClaimIsTold(t *testing.T) {
	t.Parallel()
	var long, early, quick *lovage.Handle[Order, string]
	naps := func(d time.Duration) func(context.Context, Order) (string, error) {
		return func(context.Context, Order) (string, error) { <-time.After(d); return "", nil }
	}
	s := setup{conn: func(c broker.Conn) broker.Conn { return takesAway{rawConn{c}, false} }, tasks: func(app *lovage.App) {
		long = lovage.Func(app, "t.long", naps(29*time.Minute))
		early = lovage.Func(app, "t.early", naps(40*time.Minute), lovage.AcksLate(false))
		quick = lovage.Func(app, "t.quick", naps(50*time.Second))
	}}
	s.conf.TaskQueues = []broker.Queue{broker.Named("celery"), broker.Named("quick")}
	in(t, s, func(x *world) {
		id := delay(x, long, Order{})
		first := delay(x, early, Order{})
		eta := time.Now().UTC().Add(26 * time.Minute).Format("2006-01-02T15:04:05.000000+00:00")
		x.raw(`{"task":"t.long","id":"held","eta":"`+eta+`"}`, `[[{"do":"x"}],{},{}]`, "")
		short := delay(x, quick, Order{}, lovage.Queue("quick"))
		pause(47 * time.Second)
		x.wantLog(0, "its message is claimed since")
		pause(4 * time.Second)
		x.wantLog(1, "Task t.quick["+short+"] runs, and its message is claimed since 48s")
		pause(22 * time.Minute)
		x.wantLog(1, "its message is claimed since")
		pause(3 * time.Minute)
		x.wantLog(1, "Task t.long["+id+"] runs, and its message is claimed since 24m0s: the broker takes it away after 30m0s")
		x.wantLog(1, "Task t.long[held] waits, and its message is claimed since 24m0s")
		x.wantLog(3, "consumer_timeout in rabbitmq.conf, or consumer-timeout in a policy) and tell it in broker_transport_options, set acks_late to false, or split the task")
		pause(time.Hour)
		x.wantLog(3, "its message is claimed since")
		x.wantLog(0, "t.early["+first+"] runs")
	})
}
