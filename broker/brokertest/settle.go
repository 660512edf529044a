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
		w.wantLengthBefore(until, "q", broker.Length{Claimed: 1, Delayed: 1})
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
	// Two processes begin to park at the same time, in a store where nobody has
	// before, each into a queue of its own. None comes early, those with less to wait
	// are not behind the longest, and what is back can be parked again.
	{"Settle/ParkedComeBackAtTheirTimes", []Ability{Park}, func(w *world) {
		waits := []time.Duration{1200 * time.Millisecond, 3 * time.Second, 5 * time.Second, 9 * time.Second}
		queues, consumers := []string{"q", "r"}, []broker.Consumer{w.consumer(w.conn, "q"), w.consumer(w.other(), "r")}
		until := map[string]time.Time{}
		park := func(queue string, d *broker.Delivery, wait time.Duration) broker.Settlement {
			at := time.Now().Add(wait)
			until[queue+string(d.Body)] = at
			return broker.Settlement{Delivery: d, Action: broker.Park, Until: at}
		}
		var parked []<-chan error
		for i, cs := range consumers {
			w.send(queues[i], "a", "b", "c", "d")
			var all []broker.Settlement
			for j, d := range w.claim(cs, len(waits)) {
				all = append(all, park(queues[i], d, waits[j]))
			}
			parked = append(parked, after(func() error { return cs.Settle(w.ctx, all...) }))
		}
		for _, err := range parked {
			w.must(wait(w, "park", err))
		}
		last := make([]time.Time, len(queues))
		for n := range len(waits) + 1 {
			for i, cs := range consumers {
				d := w.claimOne(cs)
				last[i] = until[queues[i]+string(d.Body)]
				if early := time.Until(last[i].Add(-slack)); early > 0 {
					w.Errorf("%s of queue %s came %v before its time", d.Body, queues[i], early)
				}
				if n == 0 {
					w.must(cs.Settle(w.ctx, park(queues[i], d, 100*time.Millisecond)))
				} else {
					w.ack(cs, d)
				}
			}
		}
		for i, queue := range queues {
			for id, at := range until {
				if id[:1] == queue && at.After(last[i]) {
					w.Errorf("%s, which had the longest to wait, did not come last", id)
				}
			}
		}
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
