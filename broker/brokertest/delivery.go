package brokertest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lovage-go/lovage/broker"
)

var deliveryCases = []testCase{
	{"Delivery/OneMessage", nil, func(w *world) {
		cs := w.consumer(w.conn, "q")
		w.send("q", "a")
		d := w.expect(cs, "a")[0]
		if d.Queue != "q" || d.Redelivered || d.Orphaned || d.Losses != 0 || d.Malformed != nil {
			w.Errorf("first delivery: queue %q, redelivered %v, orphaned %v, losses %d, malformed %v",
				d.Queue, d.Redelivered, d.Orphaned, d.Losses, d.Malformed)
		}
		w.wantLength("q", broker.Length{Claimed: 1})
		w.ack(cs, d)
		w.wantLength("q", broker.Length{})
		w.nothing(cs)
	}},
	{"Delivery/PublishedBeforeAnybodyConsumes", nil, func(w *world) {
		w.must(w.conn.Declare(w.ctx, broker.Named("q")))
		w.send("q", "a", "b")
		cs := w.consumer(w.other(), "q")
		w.ack(cs, w.claim(cs, 2)...)
	}},
	{"Delivery/UndeclaredQueueIsMade", nil, func(w *world) {
		w.send("fresh", "a")
		cs := w.consumer(w.other(), "fresh")
		w.ack(cs, w.expect(cs, "a")...)
	}},
	{"Delivery/DeclareTwice", nil, func(w *world) {
		w.must(w.conn.Declare(w.ctx, broker.Named("q"), broker.Named("r")))
		w.send("q", "a")
		w.must(w.other().Declare(w.ctx, broker.Named("q")))
		cs := w.consumer(w.conn, "q")
		w.ack(cs, w.expect(cs, "a")...)
	}},
	{"Delivery/BatchNeverWaitsForMore", nil, func(w *world) {
		cs := w.consumer(w.conn, "q")
		w.send("q", "a", "b", "c")
		var got []*broker.Delivery
		for len(got) < 3 {
			ds, err := cs.Claim(w.ctx, 100) // would wait for ever for 97 more
			w.must(err)
			got = append(got, pointers(ds)...)
		}
		w.ack(cs, got...)
	}},
	{"Delivery/BatchStopsAtTheLimit", nil, func(w *world) {
		cs := w.consumer(w.conn, "q")
		w.send("q", "a", "b", "c", "d", "e")
		ds, err := cs.Claim(w.ctx, 2)
		w.must(err)
		if len(ds) > 2 {
			w.Errorf("claim of at most 2 gave %d", len(ds))
		}
		w.ack(cs, pointers(ds)...)
		w.ack(cs, w.claim(cs, 5-len(ds))...)
		w.nothing(cs)
	}},
	{"Delivery/ClaimWakesForAPublishElsewhere", nil, func(w *world) {
		cs := w.consumer(w.conn, "q")
		claimed := after(func() error {
			ds, err := cs.Claim(w.ctx, 1)
			if err != nil {
				return err
			}
			return cs.Settle(w.ctx, broker.Settlement{Delivery: &ds[0]})
		})
		w.must(w.other().Publish(w.ctx, message("q", "a")))
		w.must(wait(w, "claim", claimed))
	}},
	{"Delivery/SeveralQueues", nil, func(w *world) {
		cs := w.consumer(w.conn, "q", "r", "s")
		w.send("q", "a")
		w.send("r", "b")
		w.send("s", "c")
		seen := map[string]string{}
		ds := w.claim(cs, 3)
		for _, d := range ds {
			seen[d.Queue] = string(d.Body)
		}
		if seen["q"] != "a" || seen["r"] != "b" || seen["s"] != "c" {
			w.Errorf("got %v", seen)
		}
		w.ack(cs, ds...)
	}},
	{"Delivery/NoQueueStarves", nil, func(w *world) {
		cs := w.consumer(w.conn, "busy", "quiet")
		var ids []string
		for i := range 200 {
			ids = append(ids, fmt.Sprint(i))
		}
		w.send("busy", ids...)
		w.send("quiet", "x")
		at := -1
		for i := range 201 {
			d := w.claimOne(cs)
			if d.Queue == "quiet" {
				at = i
			}
			w.ack(cs, d)
		}
		if at < 0 || at > 150 {
			w.Errorf("the quiet queue was served as number %d of 201, want among the first 150", at)
		}
	}},
	{"Delivery/UpdateChangesQueues", nil, func(w *world) {
		cs := w.consumer(w.conn, "q")
		w.send("q", "held")
		held := w.expect(cs, "held")
		w.must(cs.Update(w.ctx, broker.Named("r")))
		w.send("q", "unseen")
		w.send("r", "b")
		w.ack(cs, w.expect(cs, "b")...)
		w.nothing(cs)
		w.ack(cs, held...) // claims are untouched by an update
		w.must(cs.Update(w.ctx, broker.Named("q"), broker.Named("r")))
		w.ack(cs, w.expect(cs, "unseen")...)
	}},
	{"Delivery/UpdateReachesABlockedClaim", nil, func(w *world) {
		cs := w.consumer(w.conn, "q")
		w.send("r", "b")
		claimed := after(func() error {
			ds, err := cs.Claim(w.ctx, 1)
			if err != nil {
				return err
			}
			return cs.Settle(w.ctx, broker.Settlement{Delivery: &ds[0]})
		})
		w.must(cs.Update(w.ctx, broker.Named("r")))
		w.must(wait(w, "claim", claimed))
	}},
	{"Delivery/CancelWhileBlocked", nil, func(w *world) {
		cs := w.consumer(w.conn, "q")
		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(w.ctx)
		claimed := after(func() error {
			_, err := cs.Claim(ctx, 1)
			return err
		})
		cancel(cause)
		if err := wait(w, "claim", claimed); !errors.Is(err, cause) {
			w.Errorf("cancelled claim: %v, want the context's cause", err)
		}
		w.send("q", "a")
		w.ack(cs, w.expect(cs, "a")...)
	}},
	{"Delivery/CancelLosesNothing", nil, func(w *world) {
		// Cancel races with publish; each message must come, once, to this
		// call of Claim or to the next.
		cs := w.consumer(w.conn, "q")
		for i := range 50 {
			ctx, cancel := context.WithCancel(w.ctx)
			claimed := after(func() []broker.Delivery {
				ds, _ := cs.Claim(ctx, 1)
				return ds
			})
			id := fmt.Sprint(i)
			sent := after(func() error { return w.conn.Publish(w.ctx, message("q", id)) })
			cancel()
			ds := pointers(wait(w, "claim", claimed))
			w.must(wait(w, "publish", sent))
			if len(ds) == 0 {
				ds = w.claim(cs, 1)
			}
			if got := string(ds[0].Body); got != id {
				w.Fatalf("claimed %q, want %q", got, id)
			}
			w.ack(cs, ds...)
		}
		w.nothing(cs)
	}},
	{"Delivery/CloseConsumerWhileBlocked", nil, func(w *world) {
		cs := w.consumer(w.conn, "q")
		claimed := after(func() error {
			_, err := cs.Claim(w.ctx, 1)
			return err
		})
		w.must(cs.Close())
		if err := wait(w, "claim", claimed); !errors.Is(err, broker.ErrClosed) {
			w.Errorf("claim on a closed consumer: %v, want ErrClosed", err)
		}
		if _, err := cs.Claim(w.ctx, 1); !errors.Is(err, broker.ErrClosed) {
			w.Errorf("a later claim: %v, want ErrClosed", err)
		}
		w.send("q", "a") // the connection lives
		cs = w.consumer(w.conn, "q")
		w.ack(cs, w.expect(cs, "a")...)
	}},
	{"Delivery/CloseConnectionWhileBlocked", nil, func(w *world) {
		c := w.other()
		cs := w.consumer(c, "q")
		claimed := after(func() error {
			_, err := cs.Claim(w.ctx, 1)
			return err
		})
		w.must(c.Close())
		if err := wait(w, "claim", claimed); !errors.Is(err, broker.ErrClosed) {
			w.Errorf("claim on a closed connection: %v, want ErrClosed", err)
		}
		if err := c.Publish(w.ctx, message("q", "a")); !errors.Is(err, broker.ErrClosed) {
			w.Errorf("publish on a closed connection: %v, want ErrClosed", err)
		}
		if _, err := c.Consume(w.ctx, broker.ConsumeConfig{Queues: []broker.Queue{broker.Named("q")}}); !errors.Is(err, broker.ErrClosed) {
			w.Errorf("consume on a closed connection: %v, want ErrClosed", err)
		}
	}},
	{"Delivery/OutlivesItsPublisher", nil, func(w *world) {
		c := w.other()
		w.must(c.Publish(w.ctx, message("q", "a")))
		w.must(c.Close())
		cs := w.consumer(w.other(), "q")
		w.ack(cs, w.expect(cs, "a")...)
	}},
	{"Delivery/PublishWithAnEndedContext", nil, func(w *world) {
		ctx, cancel := context.WithCancel(w.ctx)
		cancel()
		if err := w.conn.Publish(ctx, message("q", "a")); err == nil {
			w.Error("publish with an ended context reports success")
		}
	}},
	{"Delivery/EmptyPublish", nil, func(w *world) {
		w.must(w.conn.Publish(w.ctx))
		cs := w.consumer(w.conn, "q")
		w.must(cs.Settle(w.ctx))
		w.nothing(cs)
	}},
	{"Delivery/ExpiryIsTheWorkersAffair", nil, func(w *world) {
		// What has expired is delivered: the worker stores REVOKED for it.
		m := message("q", "a")
		m.ExpiresAt = time.Now().Add(-time.Minute)
		m.Headers.Expires = m.ExpiresAt.UTC().Format(time.RFC3339Nano)
		fresh := message("q", "b")
		fresh.ExpiresAt = time.Now().Add(time.Hour)
		w.publish(m, fresh)
		cs := w.consumer(w.conn, "q")
		w.ack(cs, w.claim(cs, 2)...)
	}},
	{"Delivery/StoreIdentity", []Ability{Identity}, func(w *world) {
		id := w.conn.(broker.StoreIdentity).StoreID()
		if id == "" {
			w.Error("empty store id")
		}
		if got := w.other().(broker.StoreIdentity).StoreID(); got != id {
			w.Errorf("another connection calls the store %q, want %q", got, id)
		}
		fresh := w.h.Open(w.T)
		w.conns = append(w.conns, fresh)
		if got := fresh.(broker.StoreIdentity).StoreID(); got == id {
			w.Errorf("two stores share the id %q", id)
		}
	}},
}
