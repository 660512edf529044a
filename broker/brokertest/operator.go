package brokertest

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/lovage-go/lovage/broker"
)

var operatorCases = []testCase{
	{"Purge/LeavesClaimed", []Ability{Purge}, func(w *world) {
		cs := w.narrow(w.conn, "q", "r")
		w.send("q", "a")
		d := w.claim(cs, 1)
		w.send("q", "b", "c")
		w.send("r", "other")
		n, err := w.other().(broker.Purger).Purge(w.ctx, "q")
		if err != nil || n != 2 {
			w.Errorf("purge: %d, %v, want 2", n, err)
		}
		w.ack(cs, d...)
		w.ack(cs, w.expect(cs, "other")...)
		w.nothing(cs)
		if n, err := w.conn.(broker.Purger).Purge(w.ctx, "q"); n != 0 || err != nil {
			w.Errorf("purge of the empty queue: %d, %v", n, err)
		}
	}},
	{"Lengths/CountsReady", []Ability{Lengths}, func(w *world) {
		w.send("q", "a", "b", "c")
		w.must(w.conn.Declare(w.ctx, broker.Named("empty")))
		w.wantLength("q", broker.Length{Ready: 3})
		got := w.lengths(w.other(), "q", "empty", "unknown")
		if got["q"].Ready != 3 || got["empty"].Ready != 0 || got["unknown"].Ready != 0 || len(got) > 3 {
			w.Errorf("lengths: %+v", got)
		}
	}},
	{"Lengths/CountsByState", []Ability{Lengths, Delay, Claims, Delays, Listing}, func(w *world) {
		w.send("q", "a", "b", "c")
		w.publish(delayed("q", "d", time.Now().Add(time.Hour)))
		w.send("r", "e")
		cs := w.consumer(w.conn, "q")
		d := w.claimOne(cs)
		all := w.lengths(w.other())
		if want := (broker.Length{Ready: 2, Claimed: 1, Delayed: 1}); all["q"] != want {
			w.Errorf("q has %+v, want %+v", all["q"], want)
		}
		if want := (broker.Length{Ready: 1}); all["r"] != want {
			w.Errorf("r has %+v, want %+v", all["r"], want)
		}
		if one := w.lengths(w.conn, "r"); len(one) != 1 || one["r"].Ready != 1 {
			w.Errorf("asked for r alone: %v", one)
		}
		if none := w.lengths(w.conn, "unknown"); none["unknown"] != (broker.Length{}) {
			w.Errorf("an unknown queue has %v", none)
		}
		w.ack(cs, d)
	}},
	{"Bindings/AreListed", []Ability{Bindings}, func(w *world) {
		tasks := bound("media", "tasks", "topic", "media.#")
		tasks.Bindings = []broker.Binding{{Exchange: broker.Exchange{Name: "colours", Type: "direct"}, RoutingKey: "r"}}
		w.must(w.conn.Declare(w.ctx, broker.Named("q"), tasks, bound("red", "colours", "direct", "r"), bound("all", "alarm", "fanout", "")))
		w.must(w.conn.Declare(w.ctx, broker.Named("q"))) // once more
		for _, exchanges := range [][]string{nil, {"colours", "unknown"}} {
			got, err := w.other().(broker.BindingLister).Bindings(w.ctx, exchanges...)
			w.must(err)
			var lines []string
			for _, b := range got {
				lines = append(lines, fmt.Sprintf("%s <- %s %q", b.Queue, b.Exchange, b.RoutingKey))
			}
			slices.Sort(lines)
			if want := []string{`all <- alarm ""`, `media <- colours "r"`, `media <- tasks "media.#"`, `q <- q "q"`, `red <- colours "r"`}; !slices.Equal(lines, want) {
				w.Errorf("bindings, with %q: got %q, want %q", exchanges, lines, want)
			}
		}
	}},
	{"Peek/NextOneFirst", []Ability{Peek, Ordered}, func(w *world) {
		w.send("q", "a", "b", "c", "d")
		cs := w.consumer(w.conn, "q")
		w.ack(cs, w.expect(cs, "a")...)
		peek := func(offset, limit int) []string {
			ds, err := w.other().(broker.Peeker).Peek(w.ctx, "q", offset, limit)
			w.must(err)
			return bodies(pointers(ds))
		}
		if got, want := peek(0, 2), []string{"b", "c"}; !slices.Equal(got, want) {
			w.Errorf("peek(0, 2) = %v, want %v", got, want)
		}
		if got, want := peek(1, 10), []string{"c", "d"}; !slices.Equal(got, want) {
			w.Errorf("peek(1, 10) = %v, want %v", got, want)
		}
		if got := peek(10, 10); len(got) != 0 {
			w.Errorf("peek past the end = %v", got)
		}
		w.ack(cs, w.expect(cs, "b", "c", "d")...) // looking took nothing
	}},
	{"PeekDelayed/FirstDueFirst", []Ability{PeekDelayed, Delay}, func(w *world) {
		w.consumer(w.conn, "q") // where there is none, the driver may leave waiting to others
		soon := time.Now().Add(time.Hour).Truncate(time.Second)
		w.publish(delayed("q", "b", soon.Add(time.Minute)), delayed("q", "a", soon), delayed("q", "c", soon.Add(time.Hour)), delayed("r", "other", soon))
		w.send("q", "ready")
		peek := func(offset, limit int) []string {
			ds, err := w.other().(broker.DelayPeeker).PeekDelayed(w.ctx, "q", offset, limit)
			w.must(err)
			out := []string{}
			for _, d := range ds {
				out = append(out, fmt.Sprintf("%s %s", d.Body, d.Due.Sub(soon)))
			}
			return out
		}
		if got, want := peek(0, 2), []string{"a 0s", "b 1m0s"}; !slices.Equal(got, want) {
			w.Errorf("page 1: got %q, want %q", got, want)
		}
		if got, want := peek(2, 10), []string{"c 1h0m0s"}; !slices.Equal(got, want) {
			w.Errorf("page 2: got %q, want %q", got, want)
		}
		if got := append(peek(3, 10), peek(0, 0)...); len(got) > 0 {
			w.Errorf("past the end, and none: got %q", got)
		}
		if ds, err := w.other().(broker.DelayPeeker).PeekDelayed(w.ctx, "unknown", 0, 10); err != nil || len(ds) > 0 {
			w.Errorf("an unknown queue: got %v, %v", ds, err)
		}
	}},
	{"PeekDelayed/Parked", []Ability{PeekDelayed, Park}, func(w *world) {
		cs := w.consumer(w.conn, "q")
		w.send("q", "a")
		until := time.Now().Add(time.Hour).Truncate(time.Second)
		w.must(cs.Settle(w.ctx, broker.Settlement{Delivery: w.claimOne(cs), Action: broker.Park, Until: until}))
		ds, err := w.other().(broker.DelayPeeker).PeekDelayed(w.ctx, "q", 0, 10)
		w.must(err)
		if len(ds) != 1 || string(ds[0].Body) != "a" || !ds[0].Due.Equal(until) || ds[0].Queue != "q" {
			w.Errorf("got %+v, want a, until %v", ds, until)
		}
	}},
	{"Pause/StopsAllConsumers", []Ability{Pause}, func(w *world) {
		cs := w.consumer(w.conn, "q", "r")
		p := w.other().(broker.Pauser)
		w.must(p.Pause(w.ctx, "q"))
		w.send("q", "a")
		w.send("r", "b")
		w.ack(cs, w.expect(cs, "b")...)
		w.nothing(cs)
		late := w.consumer(w.other(), "q")
		w.nothing(late)
		names, err := w.other().(broker.Pauser).Paused(w.ctx)
		if err != nil || !slices.Equal(names, []string{"q"}) {
			w.Errorf("paused: %v, %v", names, err)
		}
		w.must(late.Close())
		claimed := after(func() error {
			ds, err := cs.Claim(w.ctx, 1)
			if err != nil {
				return err
			}
			return cs.Settle(w.ctx, broker.Settlement{Delivery: &ds[0]})
		})
		w.must(p.Resume(w.ctx, "q"))
		w.must(wait(w, "claim after resume", claimed))
		names, err = p.Paused(w.ctx)
		if err != nil || len(names) != 0 {
			w.Errorf("paused after resume: %v, %v", names, err)
		}
	}},
	{"Pause/ClaimedMessagesCanEnd", []Ability{Pause}, func(w *world) {
		cs := w.consumer(w.conn, "q")
		w.send("q", "a")
		d := w.claim(cs, 1)
		w.must(w.conn.(broker.Pauser).Pause(w.ctx, "q"))
		w.must(w.conn.(broker.Pauser).Pause(w.ctx, "q")) // twice is no error
		w.ack(cs, d...)
		w.wantLength("q", broker.Length{})
	}},
	{"Dead/KeptWithReason", []Ability{Dead}, func(w *world) {
		cs := w.consumer(w.conn, "q")
		m := message("q", "id-1")
		m.Body = []byte("\x00\xffraw\n")
		w.publish(m)
		d := w.claimOne(cs)
		before := time.Now().Add(-slack)
		w.must(cs.Settle(w.ctx, broker.Settlement{Delivery: d, Action: broker.DeadLetter, Reason: "no such task: häh"}))
		w.nothing(cs)
		w.wantLength("q", broker.Length{Dead: 1})
		dl := w.other().(broker.DeadLetterer)
		list, err := dl.DeadLetters(w.ctx, "q", "", 10)
		w.must(err)
		if len(list) != 1 {
			w.Fatalf("got %d dead letters, want 1", len(list))
		}
		got, err := dl.DeadLetter(w.ctx, list[0].ID)
		w.must(err)
		if got.Reason != "no such task: häh" || got.Queue != "q" || got.TaskID != "id-1" || got.Task != "suite.task" {
			w.Errorf("got reason %q, queue %q, id %q, task %q", got.Reason, got.Queue, got.TaskID, got.Task)
		}
		if !bytes.Equal(got.Body, m.Body) || !sameJSON(got.Headers, m.Headers.AppendJSON(nil)) || got.Properties.CorrelationID != "id-1" {
			w.Errorf("the letter has body %q, headers %s, properties %+v", got.Body, got.Headers, got.Properties)
		}
		if got.At.Before(before) || got.At.After(time.Now().Add(slack)) {
			w.Errorf("dated %v", got.At)
		}
		if _, err := dl.DeadLetter(w.ctx, "999999999"); err == nil {
			w.Error("an unknown id gives no error")
		}
	}},
	{"Dead/NewestFirstByPages", []Ability{Dead}, func(w *world) {
		cs := w.consumer(w.conn, "q", "r")
		for i := range 5 {
			w.send("q", fmt.Sprint(i))
			w.settle(cs, broker.DeadLetter, w.claimOne(cs))
		}
		w.send("r", "other")
		w.settle(cs, broker.DeadLetter, w.claimOne(cs))
		dl := w.conn.(broker.DeadLetterer)
		page, err := dl.DeadLetters(w.ctx, "q", "", 2)
		w.must(err)
		next, err := dl.DeadLetters(w.ctx, "q", page[len(page)-1].ID, 10)
		w.must(err)
		var got []string
		for _, d := range append(page, next...) {
			got = append(got, string(d.Body))
		}
		if want := []string{"4", "3", "2", "1", "0"}; !slices.Equal(got, want) {
			w.Errorf("listed %v, want %v", got, want)
		}
		all, err := dl.DeadLetters(w.ctx, "", "", 100)
		if err != nil || len(all) != 6 {
			w.Errorf("all queues: %d letters, %v, want 6", len(all), err)
		}
	}},
	{"Dead/RequeueAsItWas", []Ability{Dead}, func(w *world) {
		cs := w.consumer(w.conn, "q")
		m := prioritised("q", "a", 7)
		m.Body = []byte("\xfe\x00body")
		w.publish(m)
		first := w.claimOne(cs)
		w.settle(cs, broker.DeadLetter, first)
		dl := w.other().(broker.DeadLetterer)
		list, err := dl.DeadLetters(w.ctx, "", "", 10)
		w.must(err)
		n, err := dl.RequeueDead(w.ctx, list[0].ID, "999999999")
		if err != nil || n != 1 {
			w.Fatalf("requeue: %d, %v, want 1", n, err)
		}
		d := w.claimOne(cs)
		if !bytes.Equal(d.Body, m.Body) || !bytes.Equal(d.Headers, first.Headers) || d.Properties.Priority == nil || *d.Properties.Priority != 7 {
			w.Errorf("came back with body %q, headers %s, properties %+v", d.Body, d.Headers, d.Properties)
		}
		if d.Orphaned || d.Losses != 0 {
			w.Errorf("came back orphaned %v with %d losses", d.Orphaned, d.Losses)
		}
		w.ack(cs, d)
		w.wantLength("q", broker.Length{})
	}},
	{"Dead/Drop", []Ability{Dead}, func(w *world) {
		cs := w.consumer(w.conn, "q")
		w.send("q", "a", "b")
		w.settle(cs, broker.DeadLetter, w.claim(cs, 2)...)
		dl := w.conn.(broker.DeadLetterer)
		list, err := dl.DeadLetters(w.ctx, "q", "", 10)
		w.must(err)
		n, err := dl.DropDead(w.ctx, list[0].ID)
		if err != nil || n != 1 {
			w.Errorf("drop: %d, %v, want 1", n, err)
		}
		if n, err := dl.DropDead(w.ctx, list[0].ID); err != nil || n != 0 {
			w.Errorf("drop again: %d, %v, want 0", n, err)
		}
		w.wantLength("q", broker.Length{Dead: 1})
		w.nothing(cs)
	}},
}
