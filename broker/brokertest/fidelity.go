package brokertest

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
)

func ptr[T any](v T) *T { return &v }

// fullMessage sets everything that a message can carry.
func fullMessage() *broker.Message {
	m := message("q", "id-ÿ-日本-🌿")
	m.Headers = protocol.Headers{
		Lang: "py", Task: "proj.задача", ID: "id-ÿ-日本-🌿", Shadow: "sh\"adow\\", ETA: "2026-11-21T10:00:00+00:00",
		Expires: "2026-11-22T10:00:00+00:00", Group: "g", GroupIndex: ptr(0), Retries: 3,
		TimeLimit: protocol.TimeLimit{Hard: ptr(10.5), Soft: ptr(5.0)}, RootID: "root", ParentID: "parent",
		ArgsRepr: "('<&>', '\u2028')", KwargsRepr: "{}", Origin: "gen1@host", IgnoreResult: true, ReplacedTaskNesting: 2,
		StampedHeaders: []string{"tenant"}, Stamps: map[string]json.RawMessage{"tenant": json.RawMessage(`["a","b"]`)},
		Extra: map[string]json.RawMessage{"x-big": json.RawMessage(`123456789012345678`), "x-null": json.RawMessage(`null`), "x-deep": json.RawMessage(`{"a":[1,2.5,"ü"]}`)},
	}
	m.Properties = protocol.Properties{
		ContentType: "application/x-own", ContentEncoding: "binary", CorrelationID: "corr", ReplyTo: "reply-queue",
		DeliveryMode: 1, Priority: ptr(4), Expiration: 90 * time.Second, HasExpiration: true,
		Extra: map[string]string{"message_id": "mid", "app_id": "äpp", "type": "t"},
	}
	return m
}

func (w *world) roundTrip(m *broker.Message) *broker.Delivery {
	w.Helper()
	w.publish(m)
	cs := w.consumer(w.other(), "q")
	d := w.claimOne(cs)
	w.ack(cs, d)
	w.must(cs.Close())
	return d
}

func (w *world) sameProperties(got, want protocol.Properties) {
	w.Helper()
	if (got.Priority == nil) != (want.Priority == nil) || got.Priority != nil && *got.Priority != *want.Priority {
		w.Errorf("priority %v, want %v", show(got.Priority), show(want.Priority))
	}
	for k, v := range want.Extra {
		if got.Extra[k] != v {
			w.Errorf("extra properties %v, want %v", got.Extra, maps.Clone(want.Extra))
			break
		}
	}
	got.Priority, want.Priority, got.Extra, want.Extra = nil, nil, nil, nil
	a, errA := json.Marshal(got)
	b, errB := json.Marshal(want)
	w.must(errors.Join(errA, errB))
	if !bytes.Equal(a, b) {
		w.Errorf("properties\n got %s\nwant %s", a, b)
	}
}

func show(p *int) any {
	if p == nil {
		return nil
	}
	return *p
}

var fidelityCases = []testCase{
	{"Fidelity/EveryField", nil, func(w *world) {
		m := fullMessage()
		d := w.roundTrip(m)
		if want := m.Headers.AppendJSON(nil); !sameJSON(d.Headers, want) {
			w.Errorf("headers\n got %s\nwant %s", d.Headers, want)
		}
		w.sameProperties(d.Properties, m.Properties)
		if !bytes.Equal(d.Body, m.Body) {
			w.Errorf("body %q, want %q", d.Body, m.Body)
		}
	}},
	{"Fidelity/BarestMessage", nil, func(w *world) {
		m := &broker.Message{Queue: "q", RoutingKey: "q"}
		d := w.roundTrip(m)
		if len(d.Body) != 0 {
			w.Errorf("body %q, want none", d.Body)
		}
		if d.Properties.Priority != nil || d.Properties.HasExpiration || d.Properties.CorrelationID != "" {
			w.Errorf("properties %+v, want none", d.Properties)
		}
		if !sameJSON(d.Headers, m.Headers.AppendJSON(nil)) {
			w.Errorf("headers %s", d.Headers)
		}
	}},
	{"Fidelity/PriorityZeroIsNotNone", []Ability{Zero}, func(w *world) {
		if d := w.roundTrip(prioritised("q", "a", 0)); d.Properties.Priority == nil || *d.Properties.Priority != 0 {
			w.Errorf("priority %v, want 0", show(d.Properties.Priority))
		}
		if d := w.roundTrip(message("q", "b")); d.Properties.Priority != nil {
			w.Errorf("priority %v, want none", *d.Properties.Priority)
		}
	}},
	{"Fidelity/ExpirationZeroIsNotNone", []Ability{Unexpiry}, func(w *world) {
		m := message("q", "a")
		m.Properties.HasExpiration = true
		if d := w.roundTrip(m); !d.Properties.HasExpiration || d.Properties.Expiration != 0 {
			w.Errorf("expiration %v, %v, want 0 and given", d.Properties.Expiration, d.Properties.HasExpiration)
		}
	}},
	{"Fidelity/BinaryBody", nil, func(w *world) {
		m := message("q", "a")
		m.Body = make([]byte, 256)
		for i := range m.Body {
			m.Body[i] = byte(i)
		}
		if d := w.roundTrip(m); !bytes.Equal(d.Body, m.Body) {
			w.Errorf("body %x", d.Body)
		}
	}},
	{"Fidelity/SenderMayReuseItsBuffer", nil, func(w *world) {
		m := message("q", "kept")
		buf := []byte("kept")
		m.Body = buf
		w.publish(m)
		copy(buf, "lost")
		m.Headers.ID = "changed"
		cs := w.consumer(w.conn, "q")
		w.ack(cs, w.expect(cs, "kept")...)
	}},
	{"Fidelity/ReceiverMayChangeItsCopy", nil, func(w *world) {
		cs := w.consumer(w.conn, "q")
		w.send("q", "kept")
		d := w.expect(cs, "kept")[0]
		copy(d.Body, "lost")
		clear(d.Headers)
		w.settle(cs, broker.HandBack, d)
		again := w.expect(cs, "kept")[0]
		if want := message("q", "kept").Headers.AppendJSON(nil); !sameJSON(again.Headers, want) {
			w.Errorf("headers %s, want %s", again.Headers, want)
		}
		w.ack(cs, again)
	}},
	{"Fidelity/SurvivesRequeue", nil, func(w *world) {
		m := fullMessage()
		w.publish(m)
		cs := w.consumer(w.conn, "q")
		first := w.claimOne(cs)
		w.settle(cs, broker.Requeue, first)
		d := w.claimOne(cs)
		if !sameJSON(d.Headers, m.Headers.AppendJSON(nil)) || !bytes.Equal(d.Body, m.Body) {
			w.Errorf("after a requeue: headers %s, body %q", d.Headers, d.Body)
		}
		w.sameProperties(d.Properties, m.Properties)
		w.ack(cs, d)
	}},
	{"Size/FiveMegabytes", nil, func(w *world) {
		m := message("q", "a")
		m.Body = bytes.Repeat([]byte("lovage\x00\xff"), 5<<20/8)
		if d := w.roundTrip(m); !bytes.Equal(d.Body, m.Body) {
			w.Errorf("a body of %d bytes came back with %d", len(m.Body), len(d.Body))
		}
	}},
	{"Size/OverTheLimitIsRefused", []Ability{Bounded}, func(w *world) {
		big := message("q", "big")
		big.Body = make([]byte, w.conn.Features().MaxBody+1)
		if err := w.conn.Publish(w.ctx, big); !errors.Is(err, broker.ErrTooLarge) {
			w.Errorf("got %v, want ErrTooLarge", err)
		}
		err := w.conn.Publish(w.ctx, message("q", "a"), big)
		errs := broker.EachError(err, 2)
		if errs[0] != nil || !errors.Is(errs[1], broker.ErrTooLarge) {
			w.Errorf("in a batch: %v, want only the second refused", errs)
		}
		cs := w.consumer(w.conn, "q")
		w.ack(cs, w.expect(cs, "a")...)
		w.nothing(cs)
	}},
}
