package brokertest

import (
	"errors"
	"slices"
	"time"

	"github.com/lovage-go/lovage/broker"
)

// orphan publishes a message, lets a consumer claim it and kills that consumer's
// connection; it returns the dead consumer and its delivery.
func (w *world) orphan(id string) (broker.Consumer, *broker.Delivery) {
	w.Helper()
	w.send("q", id)
	return w.claimAndDie(id)
}

func (w *world) claimAndDie(id string) (broker.Consumer, *broker.Delivery) {
	w.Helper()
	c := w.other()
	cs := w.leased(c, w.h.Lease, "q")
	d := w.expect(cs, id)[0]
	w.consumers = slices.DeleteFunc(w.consumers, func(x broker.Consumer) bool { return x == cs })
	w.kill(c)
	return cs, d
}

// count asks for the losses of a delivery. Where the count travels in a copy, d is
// the copy afterwards.
func (w *world) count(cs broker.Consumer, d *broker.Delivery) int {
	w.Helper()
	if counter, ok := cs.(broker.LossCounter); ok {
		n, err := counter.CountLoss(w.ctx, d)
		w.must(err)
		return n
	}
	n, moved, err := cs.(broker.LossMarker).MarkLoss(w.ctx, d)
	w.must(err)
	if !moved {
		w.Fatalf("losses %d of an uncounted orphan were told without a copy", n)
	}
	w.wantLost(cs.Settle(w.ctx, broker.Settlement{Delivery: d}))
	again := w.expect(cs, string(d.Body))[0]
	if !again.Orphaned || !again.Redelivered || again.Losses != n-1 {
		w.Errorf("the copy: orphaned %v, redelivered %v, losses %d, want true, true, %d", again.Orphaned, again.Redelivered, again.Losses, n-1)
	}
	told, moved, err := cs.(broker.LossMarker).MarkLoss(w.ctx, again)
	w.must(err)
	if told != n || moved {
		w.Errorf("the copy was counted again: got %d, moved %v, want %d, false", told, moved, n)
	}
	*d = *again
	return n
}

var lossCases = []testCase{
	{"Loss/OrphanIsRedelivered", []Ability{Killable}, func(w *world) {
		w.orphan("a")
		start := time.Now()
		cs := w.leased(w.conn, w.h.Lease, "q")
		d := w.expect(cs, "a")[0]
		if took := time.Since(start); took > w.h.TakeOver {
			w.Errorf("taken over after %v, want at most %v", took, w.h.TakeOver)
		}
		if !d.Redelivered || !d.Orphaned {
			w.Errorf("redelivered %v, orphaned %v, want true, true", d.Redelivered, d.Orphaned)
		}
		w.ack(cs, d)
	}},
	{"Loss/OrphanWakesABlockedClaim", []Ability{Killable}, func(w *world) {
		w.send("q", "a")
		c := w.other()
		holder := w.leased(c, w.h.Lease, "q")
		w.expect(holder, "a")
		cs := w.leased(w.conn, w.h.Lease, "q")
		claimed := after(func() error {
			ds, err := cs.Claim(w.ctx, 1)
			if err != nil {
				return err
			}
			return cs.Settle(w.ctx, broker.Settlement{Delivery: &ds[0]})
		})
		w.consumers = slices.DeleteFunc(w.consumers, func(x broker.Consumer) bool { return x == holder })
		w.kill(c)
		w.must(wait(w, "claim of the orphan", claimed))
	}},
	{"Loss/KilledPublisherLosesNothing", []Ability{Killable}, func(w *world) {
		c := w.other()
		w.must(c.Publish(w.ctx, message("q", "a")))
		w.kill(c)
		cs := w.consumer(w.conn, "q")
		d := w.expect(cs, "a")[0]
		if d.Redelivered || d.Orphaned {
			w.Errorf("never claimed, yet redelivered %v, orphaned %v", d.Redelivered, d.Orphaned)
		}
		w.ack(cs, d)
	}},
	{"Loss/AckSurvivesAKill", []Ability{Killable}, func(w *world) {
		w.send("q", "a")
		c := w.other()
		cs := w.leased(c, w.h.Lease, "q")
		w.ack(cs, w.expect(cs, "a")...)
		w.consumers = slices.DeleteFunc(w.consumers, func(x broker.Consumer) bool { return x == cs })
		w.kill(c)
		next := w.consumer(w.conn, "q")
		w.nothing(next)
		w.wantLength("q", broker.Length{})
	}},
	{"Loss/CountedOnlyWhenTold", []Ability{Killable, Losses}, func(w *world) {
		w.orphan("a")
		cs := w.leased(w.conn, w.h.Lease, "q")
		d := w.expect(cs, "a")[0]
		if d.Losses != 0 {
			w.Errorf("losses %d before anybody counted, want 0", d.Losses)
		}
		if n := w.count(cs, d); n != 1 {
			w.Errorf("counted %d, want 1", n)
		}
		w.settle(cs, broker.HandBack, d)
		d = w.expect(cs, "a")[0]
		if d.Losses != 1 {
			w.Errorf("losses %d after a hand-back, want 1", d.Losses)
		}
		if d.Orphaned {
			w.Error("the loss is counted and the message handed back, yet it is still an orphan: it would be counted twice")
		}
		w.ack(cs, d)
	}},
	{"Loss/UncountedStaysAnOrphan", []Ability{Killable, Losses}, func(w *world) {
		w.orphan("a")
		cs := w.leased(w.conn, w.h.Lease, "q")
		d := w.expect(cs, "a")[0]
		w.settle(cs, broker.HandBack, d) // handed back before it ran, so not counted
		d = w.expect(cs, "a")[0]
		if !d.Orphaned {
			w.Error("handed back uncounted, the message is no orphan any more: its loss would never be counted")
		}
		w.ack(cs, d)
	}},
	{"Loss/Accumulate", []Ability{Killable, Losses}, func(w *world) {
		w.orphan("a")
		for want := 1; want <= 3; want++ {
			c := w.other()
			cs := w.leased(c, w.h.Lease, "q")
			d := w.expect(cs, "a")[0]
			if d.Losses != want-1 {
				w.Errorf("delivered with %d losses, want %d", d.Losses, want-1)
			}
			if n := w.count(cs, d); n != want {
				w.Errorf("counted %d, want %d", n, want)
			}
			w.consumers = slices.DeleteFunc(w.consumers, func(x broker.Consumer) bool { return x == cs })
			w.kill(c)
		}
		cs := w.leased(w.conn, w.h.Lease, "q")
		w.ack(cs, w.expect(cs, "a")...)
	}},
	{"Loss/OfAChildAfterThatOfAWorker", []Ability{Killable, Losses}, func(w *world) {
		w.orphan("a")
		cs := w.leased(w.conn, w.h.Lease, "q")
		d := w.expect(cs, "a")[0]
		counter, ok := cs.(broker.LossCounter)
		if !ok { // the copies of a LossMarker have a case of their own
			w.ack(cs, d)
			return
		}
		for range 2 {
			if n := w.count(cs, d); n != 1 {
				w.Errorf("asked again for one loss: got %d, want 1", n)
			}
		}
		d.Losses = 1
		if n, err := counter.CountLoss(w.ctx, d); n != 2 || err != nil {
			w.Errorf("a loss more of one delivery: got %d, %v, want 2", n, err)
		}
		w.settle(cs, broker.Requeue, d)
		if d = w.expect(cs, "a")[0]; d.Losses != 2 || d.Orphaned {
			w.Errorf("requeued with %d losses, orphaned %v, want 2, false", d.Losses, d.Orphaned)
		}
		w.ack(cs, d)
	}},
	{"Loss/OfACopyThatWasTold", []Ability{Killable, Losses}, func(w *world) {
		w.orphan("a")
		cs := w.leased(w.conn, w.h.Lease, "q")
		d := w.expect(cs, "a")[0]
		w.count(cs, d)
		if marker, ok := cs.(broker.LossMarker); ok { // others count a delivery once
			n, moved, err := marker.MarkLoss(w.ctx, d)
			w.must(err)
			if n != 2 || !moved {
				w.Errorf("a second loss: got %d, moved %v, want 2, true", n, moved)
			}
			d = w.expect(cs, "a")[0]
		}
		w.ack(cs, d)
	}},
	{"Loss/CountedElsewhereIsInTheDeadLetter", []Ability{Losses, Dead}, func(w *world) {
		w.send("q", "a")
		cs := w.consumer(w.conn, "q")
		d := w.expect(cs, "a")[0]
		if _, ok := cs.(broker.LossMarker); !ok { // nobody else counts them
			w.ack(cs, d)
			return
		}
		d.Losses = 3 // as a worker has them from its result store
		w.settle(cs, broker.DeadLetter, d)
		list, err := w.conn.(broker.DeadLetterer).DeadLetters(w.ctx, "q", "", 1)
		w.must(err)
		if len(list) != 1 || list[0].Losses != 3 {
			w.Errorf("dead letters: %+v, want one with 3 losses", list)
		}
	}},
	{"Loss/ForgottenByRequeueDead", []Ability{Killable, Losses, Dead}, func(w *world) {
		w.orphan("a")
		cs := w.leased(w.conn, w.h.Lease, "q")
		d := w.expect(cs, "a")[0]
		w.count(cs, d)
		w.settle(cs, broker.DeadLetter, d)
		dl := w.conn.(broker.DeadLetterer)
		list, err := dl.DeadLetters(w.ctx, "q", "", 1)
		w.must(err)
		if len(list) != 1 || list[0].Losses != 1 {
			w.Fatalf("dead letters: %+v, want one with 1 loss", list)
		}
		_, err = dl.RequeueDead(w.ctx, list[0].ID)
		w.must(err)
		d = w.expect(cs, "a")[0]
		if d.Losses != 0 || d.Orphaned {
			w.Errorf("requeued with %d losses, orphaned %v, want 0, false", d.Losses, d.Orphaned)
		}
		w.ack(cs, d)
	}},
	{"Fence/KilledHolderCannotSettle", []Ability{Killable}, func(w *world) {
		dead, d := w.orphan("a")
		for _, a := range []broker.Action{broker.Ack, broker.Requeue, broker.HandBack} {
			w.wantLost(dead.Settle(w.ctx, broker.Settlement{Delivery: d, Action: a}))
		}
		cs := w.leased(w.conn, w.h.Lease, "q")
		again := w.expect(cs, "a")
		w.wantLost(dead.Settle(w.ctx, broker.Settlement{Delivery: d}))
		w.ack(cs, again...)
		w.nothing(cs)
	}},
	{"Fence/LapsedLease", []Ability{Leases}, func(w *world) {
		// The holder lives but does not renew, as one that is stopped.
		w.send("q", "a")
		holder := w.leased(w.other(), w.h.Lease, "q")
		d := w.expect(holder, "a")[0]
		cs := w.consumer(w.conn, "q")
		again := w.expect(cs, "a")[0] // blocks until the lease has lapsed
		if !again.Orphaned || !again.Redelivered {
			w.Errorf("after the lease: orphaned %v, redelivered %v, want true, true", again.Orphaned, again.Redelivered)
		}
		w.wantLost(holder.Settle(w.ctx, broker.Settlement{Delivery: d}))
		w.wantLost(holder.Settle(w.ctx, broker.Settlement{Delivery: d, Action: broker.Requeue}))
		w.ack(cs, again)
		w.nothing(cs)
	}},
	{"Fence/LapsedDeliveryOfOneConsumer", []Ability{Leases}, func(w *world) {
		// The same consumer claims its own lapsed message again: the old
		// delivery is fenced, the new one is good.
		w.send("q", "a")
		cs := w.leased(w.conn, w.h.Lease, "q")
		old := w.expect(cs, "a")[0]
		d := w.expect(cs, "a")[0]
		w.wantLost(cs.Settle(w.ctx, broker.Settlement{Delivery: old}))
		w.ack(cs, d)
		w.nothing(cs)
	}},
	{"Lease/RenewedClaimStays", []Ability{Leases}, func(w *world) {
		w.send("q", "a", "b")
		cs := w.leased(w.conn, w.h.Lease, "q")
		ds := w.claim(cs, 2)
		lr := cs.(broker.LeaseRenewer)
		if every := lr.RenewEvery(); every <= 0 || every > w.h.Lease/2 {
			w.Errorf("renew every %v for a lease of %v", every, w.h.Lease)
		}
		other := w.consumer(w.other(), "q")
		stolen := after(func() error {
			ds, err := other.Claim(w.ctx, 1)
			if len(ds) > 0 {
				return other.Settle(w.ctx, broker.Settlement{Delivery: &ds[0], Action: broker.HandBack})
			}
			return err
		})
		tick := time.NewTicker(lr.RenewEvery())
		defer tick.Stop()
		for end := time.Now().Add(5 * w.h.Lease / 2); time.Now().Before(end); {
			select {
			case <-tick.C:
			case err := <-stolen:
				w.Fatalf("a renewed claim was given to another consumer (%v)", err)
			}
			lost, err := lr.Renew(w.ctx, ds)
			if err != nil || len(lost) > 0 {
				w.Fatalf("renew: lost %v, %v", bodies(lost), err)
			}
		}
		w.ack(cs, ds...)
		w.must(other.Close())
		if err := wait(w, "the other consumer", stolen); !errors.Is(err, broker.ErrClosed) {
			w.Errorf("the other consumer: %v, want ErrClosed", err)
		}
	}},
	{"Lease/RenewTellsWhatIsLost", []Ability{Leases}, func(w *world) {
		w.send("q", "a", "b")
		cs := w.leased(w.conn, w.h.Lease, "q")
		ds := w.claim(cs, 2)
		w.ack(cs, ds[1])
		lost, err := cs.(broker.LeaseRenewer).Renew(w.ctx, ds)
		if err != nil || len(lost) != 1 || lost[0] != ds[1] {
			w.Errorf("lost %v, %v, want the settled one", bodies(lost), err)
		}
		w.ack(cs, ds[0])
	}},
}
