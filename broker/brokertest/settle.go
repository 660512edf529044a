package brokertest

import (
	"errors"
	"slices"
	"time"

	"github.com/lovage-go/lovage/broker"
)

var settleCases = []testCase{
	{"Settle/RejectDeletes", nil, func(w *world) {
		cs := w.consumer(w.conn, "q")
		w.send("q", "a")
		w.settle(cs, broker.Reject, w.expect(cs, "a")...)
		w.nothing(cs)
		w.wantLength("q", broker.Length{})
	}},
	{"Settle/RequeueIsRedelivered", nil, func(w *world) {
		cs := w.consumer(w.conn, "q")
		w.send("q", "a")
		w.settle(cs, broker.Requeue, w.expect(cs, "a")...)
		d := w.expect(cs, "a")[0]
		if !d.Redelivered {
			w.Error("requeued: redelivered is false")
		}
		w.wantNoOrphan(d)
		w.ack(cs, d)
	}},
	{"Settle/RequeueGoesToTheProducingEnd", []Ability{Ordered}, func(w *world) {
		cs := w.consumer(w.conn, "q")
		w.send("q", "a", "b", "c")
		w.settle(cs, broker.Requeue, w.expect(cs, "a")...)
		w.ack(cs, w.expect(cs, "b", "c", "a")...)
	}},
	{"Settle/HandBackIsUncounted", nil, func(w *world) {
		cs := w.consumer(w.conn, "q")
		w.send("q", "a")
		w.settle(cs, broker.HandBack, w.expect(cs, "a")...)
		d := w.expect(cs, "a")[0]
		w.wantNoOrphan(d)
		if d.Losses != 0 {
			w.Errorf("handed back: losses %d, want 0", d.Losses)
		}
		if !d.Redelivered {
			w.Error("handed back: redelivered is false")
		}
		w.ack(cs, d)
	}},
	{"Settle/HandBackOfARunIsNoDeathToOthers", nil, func(w *world) {
		cs := w.consumer(w.conn, "q")
		w.send("q", "a")
		d := w.expect(cs, "a")[0]
		w.must(cs.Settle(w.ctx, broker.Settlement{Delivery: d, Action: broker.HandBack, Started: true}))
		other := w.consumer(w.other(), "q")
		d = w.expect(other, "a")[0]
		w.wantNoOrphan(d)
		if d.Losses != 0 || !d.Redelivered {
			w.Errorf("handed back: losses %d, redelivered %v, want 0, true", d.Losses, d.Redelivered)
		}
		w.ack(other, d)
	}},
	{"Settle/HandBackGoesToTheConsumingEnd", []Ability{Ordered, Places}, func(w *world) {
		cs := w.consumer(w.conn, "q")
		w.send("q", "a", "b", "c")
		w.settle(cs, broker.HandBack, w.expect(cs, "a")...)
		w.ack(cs, w.expect(cs, "a", "b", "c")...)
	}},
	{"Settle/HandBackWakesAnotherConsumer", nil, func(w *world) {
		cs := w.consumer(w.conn, "q")
		w.send("q", "a")
		d := w.expect(cs, "a")
		other := w.consumer(w.other(), "q")
		claimed := after(func() error {
			ds, err := other.Claim(w.ctx, 1)
			if err != nil {
				return err
			}
			return other.Settle(w.ctx, broker.Settlement{Delivery: &ds[0]})
		})
		w.settle(cs, broker.HandBack, d...)
		w.must(wait(w, "claim", claimed))
	}},
	{"Settle/TwiceIsALostLease", nil, func(w *world) {
		cs := w.consumer(w.conn, "q")
		w.send("q", "a")
		d := w.expect(cs, "a")[0]
		w.ack(cs, d)
		w.wantLost(cs.Settle(w.ctx, broker.Settlement{Delivery: d, Action: broker.Requeue}))
		w.nothing(cs)
	}},
	{"Settle/ManyAtOnce", []Ability{Ordered}, func(w *world) {
		cs := w.consumer(w.conn, "q")
		w.send("q", "a", "b", "c", "d")
		ds := w.expect(cs, "a", "b", "c", "d")
		w.must(cs.Settle(w.ctx,
			broker.Settlement{Delivery: ds[0], Action: broker.Ack},
			broker.Settlement{Delivery: ds[1], Action: broker.Requeue},
			broker.Settlement{Delivery: ds[2], Action: broker.HandBack},
			broker.Settlement{Delivery: ds[3], Action: broker.Reject}))
		left := w.claim(cs, 2)
		if got := bodies(left); slices.Contains(w.has, Places) && !slices.Equal(got, []string{"c", "b"}) {
			w.Errorf("claimed %v, want [c b]", got)
		} else if slices.Sort(got); !slices.Equal(got, []string{"b", "c"}) {
			w.Errorf("claimed %v, want b and c", got)
		}
		w.ack(cs, left...)
		w.nothing(cs)
	}},
	{"Settle/PartialFailureIsByPosition", nil, func(w *world) {
		cs := w.consumer(w.conn, "q")
		w.send("q", "a", "b", "c")
		ds := w.claim(cs, 3)
		w.ack(cs, ds[1])
		err := cs.Settle(w.ctx,
			broker.Settlement{Delivery: ds[0]}, broker.Settlement{Delivery: ds[1]}, broker.Settlement{Delivery: ds[2]})
		var be *broker.BatchError
		if !errors.As(err, &be) || len(be.Errs) != 3 {
			w.Fatalf("got %v, want a BatchError of 3", err)
		}
		if be.Errs[0] != nil || be.Errs[2] != nil || !errors.Is(be.Errs[1], broker.ErrLeaseLost) {
			w.Errorf("got %v, want only the second lost", be.Errs)
		}
		w.nothing(cs)
	}},
	{"Settle/ParkUntil", []Ability{Park}, func(w *world) {
		cs := w.consumer(w.conn, "q")
		w.send("q", "a", "b")
		ds := w.claim(cs, 2)
		until := time.Now().Add(400 * time.Millisecond)
		w.must(cs.Settle(w.ctx, broker.Settlement{Delivery: ds[0], Action: broker.Park, Until: until}))
		w.wantLength("q", broker.Length{Claimed: 1, Delayed: 1})
		w.ack(cs, ds[1])
		d := w.claimOne(cs)
		if now := time.Now(); now.Before(until.Add(-slack)) {
			w.Errorf("delivered %v before its time", until.Sub(now))
		}
		if string(d.Body) != string(ds[0].Body) || d.Orphaned || d.Losses != 0 {
			w.Errorf("parked %q came back as %q, orphaned %v, losses %d", ds[0].Body, d.Body, d.Orphaned, d.Losses)
		}
		w.ack(cs, d)
	}},
	{"Settle/ParkInThePastIsNow", []Ability{Park}, func(w *world) {
		cs := w.consumer(w.conn, "q")
		w.send("q", "a")
		d := w.expect(cs, "a")[0]
		w.must(cs.Settle(w.ctx, broker.Settlement{Delivery: d, Action: broker.Park, Until: time.Now().Add(-time.Hour)}))
		w.ack(cs, w.expect(cs, "a")...)
	}},
	{"Settle/CloseConsumerHandsBack", nil, func(w *world) {
		cs := w.consumer(w.conn, "q")
		w.send("q", "a", "b")
		ds := w.claim(cs, 2)
		w.must(cs.Close())
		w.wantLost(cs.Settle(w.ctx, broker.Settlement{Delivery: ds[0]}))
		next := w.consumer(w.other(), "q")
		again := w.claim(next, 2)
		for _, d := range again {
			if !d.Redelivered || d.Losses != 0 {
				w.Errorf("after Close: redelivered %v, losses %d, want true, 0", d.Redelivered, d.Losses)
			}
			w.wantNoOrphan(d)
		}
		w.ack(next, again...)
	}},
	{"Settle/CloseConnectionHandsBack", nil, func(w *world) {
		c := w.other()
		cs := w.consumer(c, "q")
		w.send("q", "a")
		w.expect(cs, "a")
		w.must(c.Close())
		next := w.consumer(w.conn, "q")
		d := w.expect(next, "a")[0]
		w.wantNoOrphan(d)
		w.ack(next, d)
	}},
	{"Settle/CloseTwice", nil, func(w *world) {
		c := w.other()
		cs := w.consumer(c, "q")
		w.must(cs.Close())
		w.must(cs.Close())
		w.must(c.Close())
		w.must(c.Close())
	}},
}
