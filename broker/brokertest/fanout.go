package brokertest

import (
	"context"
	"errors"
	"fmt"

	"github.com/lovage-go/lovage/broker"
)

func (w *world) listen(c broker.Conn, exchange, pattern string) broker.Listener {
	w.Helper()
	l, err := c.(broker.Fanouter).Listen(w.ctx, exchange, pattern)
	w.must(err)
	w.Cleanup(func() { l.Close() })
	return l
}

func (w *world) broadcast(exchange, key string, ids ...string) {
	w.Helper()
	for _, id := range ids {
		w.must(w.conn.(broker.Fanouter).Broadcast(w.ctx, exchange, addressed(exchange, key, id)))
	}
}

func (w *world) hears(l broker.Listener, ids ...string) {
	w.Helper()
	for _, id := range ids {
		d, err := l.Next(w.ctx)
		w.must(err)
		if string(d.Body) != id {
			w.Fatalf("heard %q, want %q", d.Body, id)
		}
	}
}

func (w *world) hearsNothing(l broker.Listener) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, silence)
	defer cancel()
	if d, err := l.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		w.Fatalf("heard %q, %v, want nothing", d.Body, err)
	}
}

var fanoutCases = []testCase{
	{"Fanout/EveryListener", []Ability{Fanout}, func(w *world) {
		ls := []broker.Listener{w.listen(w.conn, "ev", "#"), w.listen(w.other(), "ev", "#"), w.listen(w.other(), "ev", "#")}
		w.broadcast("ev", "task.sent", "a", "b")
		for _, l := range ls {
			w.hears(l, "a", "b")
		}
	}},
	{"Fanout/Message", []Ability{Fanout}, func(w *world) {
		l := w.listen(w.other(), "ev", "#")
		m := message("", "a")
		m.Exchange, m.RoutingKey, m.Body = "ev", "worker.online", []byte("\x00\xff")
		w.must(w.conn.(broker.Fanouter).Broadcast(w.ctx, "ev", m))
		d, err := l.Next(w.ctx)
		w.must(err)
		if string(d.Body) != "\x00\xff" || d.RoutingKey != "worker.online" || d.Exchange != "ev" || d.Properties.CorrelationID != "a" || !sameJSON(d.Headers, m.Headers.AppendJSON(nil)) {
			w.Errorf("heard %+v", d)
		}
	}},
	{"Fanout/Patterns", []Ability{Fanout}, func(w *world) {
		task, online, all := w.listen(w.other(), "ev", "task.*"), w.listen(w.other(), "ev", "*.online.#"), w.listen(w.other(), "ev", "#")
		w.broadcast("ev", "task.sent", "1")
		w.broadcast("ev", "worker.online", "2")
		w.broadcast("ev", "task.x.y", "3")
		w.broadcast("ev", "task.online", "4")
		w.broadcast("ev", "worker.online.a.b", "5")
		w.hears(task, "1", "4")
		w.hears(online, "2", "4", "5")
		w.hears(all, "1", "2", "3", "4", "5")
		w.hearsNothing(task)
	}},
	{"Fanout/ExchangesAreApart", []Ability{Fanout}, func(w *world) {
		one, two := w.listen(w.conn, "one", "#"), w.listen(w.conn, "two", "#")
		w.broadcast("one", "k", "a")
		w.hears(one, "a")
		w.hearsNothing(two)
	}},
	{"Fanout/LateListenerHearsNothing", []Ability{Fanout}, func(w *world) {
		w.broadcast("ev", "k", "early") // nobody listens: no error
		l := w.listen(w.other(), "ev", "#")
		w.broadcast("ev", "k", "late")
		w.hears(l, "late")
		w.hearsNothing(l)
	}},
	{"Fanout/WakesABlockedListener", []Ability{Fanout}, func(w *world) {
		l := w.listen(w.other(), "ev", "#")
		heard := after(func() error {
			_, err := l.Next(w.ctx)
			return err
		})
		w.broadcast("ev", "k", "a")
		w.must(wait(w, "next", heard))
	}},
	{"Fanout/SlowListenerIsBounded", []Ability{Fanout}, func(w *world) {
		// Broadcasts go on until the listener misses some: a bounded number,
		// and then the oldest are gone and the newest are there.
		slow := w.listen(w.conn, "ev", "#")
		sent := 0
		for slow.Missed() == 0 {
			if sent > 1<<18 || w.ctx.Err() != nil {
				w.Fatalf("after %d broadcasts nothing is missed: the buffer has no bound", sent)
			}
			msgs := make([]*broker.Message, 256)
			for i := range msgs {
				msgs[i] = addressed("ev", "k", fmt.Sprint(sent))
				sent++
			}
			w.must(w.conn.(broker.Fanouter).Broadcast(w.ctx, "ev", msgs...))
		}
		last, heard, first := fmt.Sprint(sent-1), 0, ""
		for {
			d, err := slow.Next(w.ctx)
			w.must(err)
			if heard++; heard == 1 {
				first = string(d.Body)
			}
			if string(d.Body) == last {
				break
			}
		}
		if first == "0" {
			w.Error("the oldest was kept, want it dropped")
		}
		if got := int64(heard) + slow.Missed(); got != int64(sent) {
			w.Errorf("heard %d and missed %d of %d", heard, slow.Missed(), sent)
		}
	}},
	{"Fanout/CancelAndClose", []Ability{Fanout}, func(w *world) {
		l := w.listen(w.conn, "ev", "#")
		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(w.ctx)
		next := func(ctx context.Context) <-chan error {
			return after(func() error {
				_, err := l.Next(ctx)
				return err
			})
		}
		heard := next(ctx)
		cancel(cause)
		if err := wait(w, "next", heard); !errors.Is(err, cause) {
			w.Errorf("cancelled: %v, want the context's cause", err)
		}
		heard = next(w.ctx)
		w.must(l.Close())
		if err := wait(w, "next", heard); !errors.Is(err, broker.ErrClosed) {
			w.Errorf("closed: %v, want ErrClosed", err)
		}
		w.broadcast("ev", "k", "a") // nobody listens any more
	}},
	{"Fanout/CloseConnectionEndsListeners", []Ability{Fanout}, func(w *world) {
		c := w.other()
		l := w.listen(c, "ev", "#")
		heard := after(func() error {
			_, err := l.Next(w.ctx)
			return err
		})
		w.must(c.Close())
		if err := wait(w, "next", heard); !errors.Is(err, broker.ErrClosed) {
			w.Errorf("got %v, want ErrClosed", err)
		}
	}},
}
