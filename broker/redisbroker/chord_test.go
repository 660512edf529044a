package redisbroker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/protocol"
)

// chordWorld is an app on one database, with what the tests look at.
type chordWorld struct {
	t    *testing.T
	url  string
	app  *lovage.App
	conn broker.Conn
	back backend.Backend
}

func newChordWorld(t *testing.T) *chordWorld {
	server := testenv.Redis(t)
	w := &chordWorld{t: t, url: server.URL(server.DB(t))}
	w.app = goApp(w.url, "q")
	var err error
	if w.conn, err = w.app.Broker(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.back, err = w.app.Backend(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.app.Close(context.Background()) })
	return w
}

// member sends the member of a chord whose body goes to the queue bodies.
func (w *chordWorld) member(id string, index int) {
	w.t.Helper()
	body := protocol.Body{Args: []byte(fmt.Sprintf("[%d, 1]", index)), Embed: protocol.Embed{Chord: &protocol.Signature{
		Task: "go.body", Options: map[string]json.RawMessage{"task_id": []byte(`"body"`), "queue": []byte(`"bodies"`)},
	}}}
	m := &broker.Message{Queue: "q", RoutingKey: "q", Body: body.AppendJSON(nil),
		Headers:    protocol.Headers{Lang: "py", Task: "go.add", ID: id, RootID: id, Group: "g", GroupIndex: &index},
		Properties: protocol.Properties{ContentType: "application/json", ContentEncoding: "utf-8", DeliveryMode: 2}}
	if err := w.app.PublishMessages(limit(w.t), m); err != nil {
		w.t.Fatal(err)
	}
}

func (w *chordWorld) bodies() int {
	w.t.Helper()
	l, err := w.conn.(broker.Lengther).Lengths(limit(w.t), "bodies")
	if err != nil {
		w.t.Fatal(err)
	}
	return l["bodies"].Ready
}

func (w *chordWorld) claim(cs broker.Consumer) *broker.Delivery {
	w.t.Helper()
	ds, err := cs.Claim(limit(w.t), 1)
	if err != nil {
		w.t.Fatal(err)
	}
	return &ds[0]
}

var errDied = errors.New("the worker died")

// run executes a delivery. With dies the worker is gone once the member is
// counted, before anything is kept.
func (w *chordWorld) run(cs broker.Consumer, d *broker.Delivery, dies bool) *broker.ChordEnd {
	w.t.Helper()
	r, err := w.app.Receive(d)
	if err != nil {
		w.t.Fatal(err)
	}
	var end *broker.ChordEnd
	w.app.Execute(limit(w.t), r, lovage.FinisherFunc(func(ctx context.Context, e *lovage.Effects) error {
		if err := w.app.CountChords(ctx, e); err != nil {
			w.t.Error(err)
		}
		if len(e.Ends) > 0 {
			end = e.Ends[0]
		}
		if dies {
			return errDied
		}
		for _, end := range e.Ends {
			if err := w.app.DeclareFor(ctx, end.Publish...); err != nil {
				w.t.Error(err)
			}
		}
		return cs.(broker.AtomicFinisher).FinishAll(ctx, broker.Finish{Publish: e.Publish, Store: e.Store, Ends: e.Ends,
			Settle: broker.Settlement{Delivery: d, Action: broker.Ack}})
	}))
	return end
}

func TestChordEndsInTheCommitOfItsLastMember(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T) (*chordWorld, broker.Consumer) {
		w := newChordWorld(t)
		if err := w.back.(backend.ChordCounter).StartChord(limit(t), "g", 2, time.Hour); err != nil {
			t.Fatal(err)
		}
		w.member("a", 0)
		w.member("b", 1)
		return w, consume(t, w.conn, "q")
	}
	t.Run("Once", func(t *testing.T) {
		t.Parallel()
		w, cs := start(t)
		a, b := w.claim(cs), w.claim(cs)
		if end := w.run(cs, a, false); end != nil {
			t.Errorf("the first member ends the chord: %+v", end)
		}
		if end := w.run(cs, b, false); end == nil || !end.Won {
			t.Errorf("the last member does not end the chord: %+v", end)
		}
		if n := w.bodies(); n != 1 {
			t.Errorf("%d bodies were sent, want 1", n)
		}
		for _, k := range keysOf(t, client(t, w.url)) {
			if k == "celery-taskset-meta-g.j" || k == "celery-taskset-meta-g.s" || k == "celery-taskset-meta-g.t" {
				t.Errorf("key %s is left", k)
			}
		}
		w.member("a", 0) // sent again: it changes nothing
		if end := w.run(cs, w.claim(cs), false); end != nil || w.bodies() != 1 {
			t.Errorf("a member after the end: %+v, %d bodies", end, w.bodies())
		}
	})
	t.Run("ADeathBeforeTheCommitLosesNothing", func(t *testing.T) {
		t.Parallel()
		w, cs := start(t)
		a, b := w.claim(cs), w.claim(cs)
		w.run(cs, a, false)
		if end := w.run(cs, b, true); end == nil || w.bodies() != 0 {
			t.Errorf("counted: %+v, %d bodies", end, w.bodies())
		}
		if end := w.run(cs, b, false); end == nil || !end.Won || w.bodies() != 1 {
			t.Errorf("run again: %+v, %d bodies", end, w.bodies())
		}
	})
	t.Run("TwoThatSeeItCompleteSendOneBody", func(t *testing.T) {
		t.Parallel()
		w, cs := start(t)
		a, b := w.claim(cs), w.claim(cs)
		w.run(cs, a, true)
		w.run(cs, b, true)
		first, second := w.run(cs, a, false), w.run(cs, b, false)
		if first == nil || !first.Won || second != nil || w.bodies() != 1 {
			t.Errorf("first %+v, second %+v, %d bodies", first, second, w.bodies())
		}
	})
	t.Run("TheFenceIsInTheScript", func(t *testing.T) {
		t.Parallel()
		w, cs := start(t)
		a, b := w.claim(cs), w.claim(cs)
		end := func() *broker.ChordEnd {
			return &broker.ChordEnd{Group: "g", Publish: []*broker.Message{{Queue: "bodies", RoutingKey: "bodies", Headers: protocol.Headers{ID: "body"}, Body: []byte("[]")}},
				Store: []*protocol.Record{{TaskID: "body", State: protocol.Failure, Meta: []byte(`{"status": "FAILURE"}`)}}}
		}
		one, two, three := end(), end(), end()
		err := cs.(broker.AtomicFinisher).FinishAll(limit(t),
			broker.Finish{Ends: []*broker.ChordEnd{one}, Settle: broker.Settlement{Delivery: a, Action: broker.Ack}},
			broker.Finish{Ends: []*broker.ChordEnd{two}, Store: []*protocol.Record{{TaskID: "own", State: protocol.Success, Meta: []byte(`{"status": "SUCCESS"}`)}},
				Settle: broker.Settlement{Delivery: b, Action: broker.Ack}})
		if err != nil || !one.Won || two.Won || w.bodies() != 1 {
			t.Errorf("%v, won %v and %v, %d bodies", err, one.Won, two.Won, w.bodies())
		}
		if recs, err := w.back.Fetch(limit(t), "own"); err != nil || recs[0].State != protocol.Success {
			t.Errorf("what is not of the end: %+v, %v", recs, err)
		}
		three.Group = "h"
		err = cs.(broker.AtomicFinisher).FinishAll(limit(t), broker.Finish{Ends: []*broker.ChordEnd{three}, Settle: broker.Settlement{Delivery: b, Action: broker.Ack}})
		if !errors.Is(err, broker.ErrLeaseLost) || three.Won || w.bodies() != 1 {
			t.Errorf("a claim that has ended: %v, won %v, %d bodies", err, three.Won, w.bodies())
		}
	})
}
