package brokertest

import (
	"fmt"
	"slices"
	"time"

	"github.com/lovage-go/lovage/broker"
)

func prioritised(queue, id string, p int) *broker.Message {
	m := message(queue, id)
	m.Properties.Priority = &p
	return m
}

func delayed(queue, id string, until time.Time) *broker.Message {
	m := message(queue, id)
	m.NotBefore = until
	return m
}

var orderCases = []testCase{
	{"Order/FirstInFirstOut", []Ability{Ordered}, func(w *world) {
		var ids []string
		for i := range 100 {
			ids = append(ids, fmt.Sprint(i))
		}
		w.send("q", ids[:40]...)
		for _, id := range ids[40:60] {
			w.send("q", id)
		}
		w.send("q", ids[60:]...)
		cs := w.consumer(w.conn, "q")
		w.ack(cs, w.expect(cs, ids...)...)
	}},
	{"Order/Priority", []Ability{Ordered, Priority}, func(w *world) {
		w.publish(prioritised("q", "3a", 3), prioritised("q", "0a", 0), prioritised("q", "9a", 9),
			prioritised("q", "3b", 3), message("q", "none"), prioritised("q", "9b", 9))
		want := []string{"9a", "9b", "3a", "3b", "0a", "none"}
		if w.conn.Features().LowFirst {
			want = []string{"0a", "none", "3a", "3b", "9a", "9b"}
		}
		cs := w.consumer(w.conn, "q")
		w.ack(cs, w.expect(cs, want...)...)
	}},
	{"Order/PriorityAfterHandBack", []Ability{Ordered, Priority, Places}, func(w *world) {
		w.publish(prioritised("q", "low", 1), prioritised("q", "high", 8))
		first, last := "high", "low"
		if w.conn.Features().LowFirst {
			first, last = last, first
		}
		cs := w.consumer(w.conn, "q")
		w.settle(cs, broker.HandBack, w.expect(cs, first)...)
		w.ack(cs, w.expect(cs, first, last)...)
	}},
	{"Order/QueuesTakeTurns", nil, func(w *world) {
		for _, limit := range []int{1, 2, 3} { // whatever the number that is claimed at once
			flood, other := fmt.Sprint("flood", limit), fmt.Sprint("other", limit)
			cs := w.consumer(w.conn, flood, other)
			for i := range 40 {
				w.send(flood, fmt.Sprint("f", i))
			}
			for i := range 4 {
				w.send(other, fmt.Sprint("o", i))
			}
			left := 4
			for claimed := 0; left > 0; {
				ds, err := cs.Claim(w.ctx, limit)
				w.must(err)
				claimed += len(ds)
				for i := range ds {
					if ds[i].Queue == other {
						left--
					}
					w.ack(cs, &ds[i])
				}
				if claimed > 30 {
					w.Fatalf("with %d at once: %d messages of the other queue wait after %d claims, want turns", limit, left, claimed)
				}
			}
			w.must(cs.Close())
		}
	}},
	{"Order/Strict", []Ability{Ordered, Leases}, func(w *world) {
		cs := w.consume(w.conn, broker.ConsumeConfig{Strict: true}, "last", "first", "middle")
		for _, q := range []string{"first", "middle", "last"} {
			w.send(q, q+"0", q+"1", q+"2")
		}
		var got []string
		for len(got) < 9 {
			ds, err := cs.Claim(w.ctx, 2)
			w.must(err)
			for i := range ds {
				got = append(got, string(ds[i].Body))
				w.ack(cs, &ds[i])
			}
		}
		want := []string{"last0", "last1", "last2", "first0", "first1", "first2", "middle0", "middle1", "middle2"}
		if !slices.Equal(got, want) {
			w.Errorf("got %v, want %v", got, want)
		}
	}},
	{"Delay/NotEarly", []Ability{Delay}, func(w *world) {
		due := time.Now().Add(400 * time.Millisecond)
		w.publish(delayed("q", "later", due), message("q", "now"))
		w.wantLengthBefore(due, "q", broker.Length{Ready: 1, Delayed: 1})
		cs := w.consumer(w.conn, "q")
		w.ack(cs, w.expect(cs, "now")...)
		w.ack(cs, w.expect(cs, "later")...)
		if now := time.Now(); now.Before(due.Add(-slack)) {
			w.Errorf("delivered %v before its time", due.Sub(now))
		}
	}},
	{"Delay/WakesABlockedClaim", []Ability{Delay}, func(w *world) {
		// The claim is blocked on another connection when the message comes.
		cs := w.consumer(w.other(), "q")
		claimed := after(func() error {
			ds, err := cs.Claim(w.ctx, 1)
			if err != nil {
				return err
			}
			return cs.Settle(w.ctx, broker.Settlement{Delivery: &ds[0]})
		})
		w.publish(delayed("q", "a", time.Now().Add(200*time.Millisecond)))
		w.must(wait(w, "claim", claimed))
	}},
	{"Delay/InOrderOfTime", []Ability{Delay, Ordered}, func(w *world) {
		now := time.Now()
		at := func(ms int) time.Time { return now.Add(time.Duration(ms) * time.Millisecond) }
		w.publish(delayed("q", "c", at(900)), delayed("q", "a", at(300)), delayed("q", "b", at(600)))
		cs := w.consumer(w.conn, "q")
		w.ack(cs, w.expect(cs, "a", "b", "c")...)
	}},
	{"Delay/DueMessagesKeepTheirOrder", []Ability{Delay, Ordered}, func(w *world) {
		// Nobody consumes while they fall due; they still come by their time.
		now := time.Now()
		w.publish(delayed("q", "b", now.Add(900*time.Millisecond)), delayed("q", "a", now.Add(500*time.Millisecond)))
		clock := w.consumer(w.conn, "clock")
		w.publish(delayed("clock", "tick", now.Add(1200*time.Millisecond)))
		w.ack(clock, w.expect(clock, "tick")...)
		cs := w.consumer(w.conn, "q")
		w.ack(cs, w.expect(cs, "a", "b")...)
	}},
	{"Delay/KeepsItsAddress", []Ability{Delay}, func(w *world) {
		w.must(w.conn.Declare(w.ctx, bound("a.q", "dotted.tasks", "topic", "a.#"), broker.Named("q")))
		now := time.Now()
		var msgs []*broker.Message
		for i := range 40 {
			plain, topic := delayed("q", fmt.Sprint("q", i), now.Add(time.Duration(i)*7*time.Millisecond)), addressed("dotted.tasks", "a.b", fmt.Sprint("t", i))
			topic.NotBefore = plain.NotBefore
			msgs = append(msgs, plain, topic)
		}
		w.publish(msgs...)
		cs := w.consumer(w.conn, "q")
		w.must(cs.Update(w.ctx, broker.Named("q"), bound("a.q", "dotted.tasks", "topic", "a.#")))
		ds := w.claim(cs, len(msgs))
		seen := map[string]bool{}
		for _, d := range ds {
			seen[string(d.Body)] = true
			if want := map[string]string{"q": " q", "a.q": "dotted.tasks a.b"}[d.Queue]; d.Exchange+" "+d.RoutingKey != want {
				w.Errorf("%s came to queue %q as %q %q, want %q", d.Body, d.Queue, d.Exchange, d.RoutingKey, want)
			}
		}
		if len(seen) != len(msgs) {
			w.Errorf("%d different messages came, want %d", len(seen), len(msgs))
		}
		w.ack(cs, ds...)
		w.nothing(cs)
	}},
	{"Delay/PastIsNow", []Ability{Delay}, func(w *world) {
		w.publish(delayed("q", "a", time.Now().Add(-time.Hour)))
		cs := w.consumer(w.conn, "q")
		w.ack(cs, w.expect(cs, "a")...)
	}},
	{"Delay/FarAwayStaysInTheStore", []Ability{Delay, Lengths, Purge, Delays}, func(w *world) {
		w.publish(delayed("q", "a", time.Now().AddDate(50, 0, 0)))
		cs := w.consumer(w.conn, "q")
		w.nothing(cs)
		w.wantLength("q", broker.Length{Delayed: 1})
		n, err := w.conn.(broker.Purger).Purge(w.ctx, "q")
		if err != nil || n != 1 {
			w.Errorf("purge: %d, %v, want 1", n, err)
		}
	}},
	{"Delay/Priority", []Ability{Delay, Priority, Ordered}, func(w *world) {
		due := time.Now().Add(150 * time.Millisecond)
		low, high := prioritised("q", "low", 1), prioritised("q", "high", 8)
		low.NotBefore, high.NotBefore = due, due
		w.publish(low, high)
		clock := w.consumer(w.conn, "clock")
		w.publish(delayed("clock", "tick", due.Add(100*time.Millisecond)))
		w.ack(clock, w.expect(clock, "tick")...)
		want := []string{"high", "low"}
		if w.conn.Features().LowFirst {
			slices.Reverse(want)
		}
		cs := w.consumer(w.conn, "q")
		w.ack(cs, w.expect(cs, want...)...)
	}},
}
