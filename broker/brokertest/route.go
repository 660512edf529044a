package brokertest

import (
	"errors"

	"github.com/lovage-go/lovage/broker"
)

func addressed(exchange, key, id string) *broker.Message {
	m := message("", id)
	m.Exchange, m.RoutingKey = exchange, key
	return m
}

func bound(queue, exchange, kind, key string) broker.Queue {
	return broker.Queue{Name: queue, Exchange: broker.Exchange{Name: exchange, Type: kind}, RoutingKey: key}
}

var routeCases = []testCase{
	{"Route/Direct", nil, func(w *world) {
		w.must(w.conn.Declare(w.ctx, bound("red", "colours", "direct", "r"), bound("blue", "colours", "direct", "b")))
		w.publish(addressed("colours", "r", "1"), addressed("colours", "b", "2"))
		red, blue := w.consumer(w.conn, "red-only"), w.consumer(w.conn, "blue-only")
		w.must(red.Update(w.ctx, bound("red", "colours", "direct", "r")))
		w.must(blue.Update(w.ctx, bound("blue", "colours", "direct", "b")))
		d := w.expect(red, "1")
		if d[0].Exchange != "colours" || d[0].RoutingKey != "r" || d[0].Queue != "red" {
			w.Errorf("delivered as exchange %q, key %q, queue %q", d[0].Exchange, d[0].RoutingKey, d[0].Queue)
		}
		w.ack(red, d...)
		w.ack(blue, w.expect(blue, "2")...)
	}},
	{"Route/Topic", nil, func(w *world) {
		w.must(w.conn.Declare(w.ctx, bound("media", "tasks", "topic", "media.#"), bound("video", "tasks", "topic", "*.video")))
		w.publish(addressed("tasks", "media.video", "both"), addressed("tasks", "media.image.png", "media"), addressed("tasks", "old.video", "video"))
		media, err := w.conn.Consume(w.ctx, broker.ConsumeConfig{Queues: []broker.Queue{bound("media", "tasks", "topic", "media.#")}})
		w.must(err)
		w.consumers = append(w.consumers, media)
		w.ack(media, w.claim(media, 2)...)
		w.nothing(media)
		video, err := w.conn.Consume(w.ctx, broker.ConsumeConfig{Queues: []broker.Queue{bound("video", "tasks", "topic", "*.video")}})
		w.must(err)
		w.consumers = append(w.consumers, video)
		w.ack(video, w.claim(video, 2)...)
		w.nothing(video)
	}},
	{"Route/FanoutExchange", nil, func(w *world) {
		w.must(w.conn.Declare(w.ctx, bound("one", "all", "fanout", ""), bound("two", "all", "fanout", "ignored")))
		w.publish(addressed("all", "whatever", "x"))
		for _, q := range []broker.Queue{bound("one", "all", "fanout", ""), bound("two", "all", "fanout", "ignored")} {
			cs, err := w.conn.Consume(w.ctx, broker.ConsumeConfig{Queues: []broker.Queue{q}})
			w.must(err)
			w.consumers = append(w.consumers, cs)
			w.ack(cs, w.expect(cs, "x")...)
			w.nothing(cs)
		}
	}},
	{"Route/FurtherBindingsAndOneCopy", nil, func(w *world) {
		q := bound("q", "tasks", "topic", "a.*")
		q.Bindings = []broker.Binding{
			{Exchange: broker.Exchange{Name: "tasks", Type: "topic"}, RoutingKey: "*.b"},
			{Exchange: broker.Exchange{Name: "other", Type: "direct"}, RoutingKey: "k"},
		}
		w.must(w.conn.Declare(w.ctx, q))
		w.publish(addressed("tasks", "a.b", "1")) // both bindings match: one copy
		w.publish(addressed("other", "k", "2"))
		cs, err := w.conn.Consume(w.ctx, broker.ConsumeConfig{Queues: []broker.Queue{q}})
		w.must(err)
		w.consumers = append(w.consumers, cs)
		w.ack(cs, w.claim(cs, 2)...)
		w.nothing(cs)
	}},
	{"Route/AnotherConnectionKnowsTheBindings", nil, func(w *world) {
		w.must(w.conn.Declare(w.ctx, bound("q", "tasks", "topic", "a.#")))
		w.must(w.other().Publish(w.ctx, addressed("tasks", "a.b.c", "1")))
		cs := w.consumer(w.other(), "elsewhere")
		w.must(cs.Update(w.ctx, bound("q", "tasks", "topic", "a.#")))
		w.ack(cs, w.expect(cs, "1")...)
	}},
	{"Route/PlainQueueByItsOwnExchange", nil, func(w *world) {
		// Celery's direct queue of a name has an exchange and a key of that name.
		w.must(w.conn.Declare(w.ctx, broker.Named("q")))
		w.publish(addressed("q", "q", "1"))
		cs := w.consumer(w.conn, "q")
		w.ack(cs, w.expect(cs, "1")...)
	}},
	{"Route/AnonymousExchangeByRoutingKey", nil, func(w *world) {
		w.must(w.conn.Declare(w.ctx, broker.Named("q")))
		w.publish(addressed("", "q", "1"))
		cs := w.consumer(w.conn, "q")
		w.ack(cs, w.expect(cs, "1")...)
	}},
	{"Route/UnroutableIsDropped", nil, func(w *world) {
		w.must(w.conn.Declare(w.ctx, bound("q", "tasks", "direct", "k")))
		w.publish(addressed("tasks", "nobody", "1"), addressed("tasks", "k", "2"))
		cs := w.consumer(w.conn, "elsewhere")
		w.must(cs.Update(w.ctx, bound("q", "tasks", "direct", "k")))
		w.ack(cs, w.expect(cs, "2")...)
		w.nothing(cs)
	}},
	{"Route/MandatoryUnroutableIsRefused", nil, func(w *world) {
		w.must(w.conn.Declare(w.ctx, bound("q", "tasks", "direct", "k")))
		m := addressed("tasks", "nobody", "1")
		m.Mandatory = true
		if err := w.conn.Publish(w.ctx, m); !errors.Is(err, broker.ErrNoQueue) {
			w.Errorf("got %v, want ErrNoQueue", err)
		}
		m.RoutingKey = "k"
		w.publish(m)
		cs := w.consumer(w.conn, "elsewhere")
		w.must(cs.Update(w.ctx, bound("q", "tasks", "direct", "k")))
		w.ack(cs, w.expect(cs, "1")...)
	}},
	{"Route/PartialFailureIsByPosition", nil, func(w *world) {
		w.must(w.conn.Declare(w.ctx, broker.Named("q")))
		bad := addressed("nowhere", "nobody", "b")
		bad.Mandatory = true
		err := w.conn.Publish(w.ctx, message("q", "a"), bad, message("q", "c"))
		var be *broker.BatchError
		if !errors.As(err, &be) || len(be.Errs) != 3 {
			w.Fatalf("got %v, want a BatchError of 3", err)
		}
		if be.Errs[0] != nil || be.Errs[2] != nil || !errors.Is(be.Errs[1], broker.ErrNoQueue) {
			w.Errorf("got %v, want only the second refused", be.Errs)
		}
		cs := w.consumer(w.conn, "q")
		w.ack(cs, w.claim(cs, 2)...)
		w.nothing(cs)
	}},
}
