package lovage_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
)

// next claims a message, reads it and gives it back as done.
func (w *world) next() *lovage.Request {
	w.t.Helper()
	d := w.claim()
	r := w.receive(d)
	if err := w.cons.Settle(w.ctx(), broker.Settlement{Delivery: d, Action: broker.Ack}); err != nil {
		w.t.Fatal(err)
	}
	return r
}

func TestLinks(t *testing.T) {
	t.Parallel()
	cb := lovage.Remote[twoArgs, int](nil, "t.cb")
	eb := lovage.Remote[string, any](nil, "t.eb")
	setup := func(t *testing.T, x int, opts ...lovage.CallOption) (*world, *lovage.Result[int]) {
		w := newWorld(t, lovage.Config{})
		h := lovage.Func(w.app, "t.add", func(_ context.Context, in AddArgs) (int, error) {
			if in.X < 0 {
				return 0, errNegative
			}
			return in.X + in.Y, nil
		})
		res := must[*lovage.Result[int]](t)(h.Delay(w.ctx(), AddArgs{X: x, Y: 1}, append(opts, lovage.TaskID("me"), lovage.RootID("root"))...))
		w.run()
		return w, res
	}
	t.Run("TheResultIsPutFirst", func(t *testing.T) {
		t.Parallel()
		w, res := setup(t, 4, lovage.Link(cb.After(), cb.After(twoArgs{Y: 7})))
		a, b := w.next(), w.next()
		equal(t, "args", string(a.Args)+string(a.Kwargs)+string(b.Args)+string(b.Kwargs), `[5]{}[5]{"y":7}`)
		for _, r := range []*lovage.Request{a, b} {
			if r.ParentID != "me" || r.RootID != "root" {
				t.Errorf("parent %s, root %s", r.ParentID, r.RootID)
			}
		}
		ids := must[[]string](t)(res.Children(w.ctx()))
		equal(t, "children", strings.Join(ids, " "), a.ID+" "+b.ID)
	})
	t.Run("ACompleteSignatureKeepsItsArguments", func(t *testing.T) {
		t.Parallel()
		w, _ := setup(t, 4, lovage.Link(cb.S(twoArgs{1, 2})))
		r := w.next()
		equal(t, "args", string(r.Args), "[1,2]")
	})
	t.Run("NotOnFailure", func(t *testing.T) {
		t.Parallel()
		w, _ := setup(t, -1, lovage.Link(cb.After()))
		equal(t, "messages", w.waiting("celery"), 0)
	})
	t.Run("AnErrbackGetsTheIDOfTheFailedTask", func(t *testing.T) {
		t.Parallel()
		w, _ := setup(t, -1, lovage.LinkError(eb.After(), cb.S(twoArgs{1, 2})))
		a, b := w.next(), w.next()
		equal(t, "args", string(a.Args)+string(b.Args), `["me"][1,2]`)
		if a.ParentID != "me" || a.RootID != "root" {
			t.Errorf("parent %s, root %s", a.ParentID, a.RootID)
		}
	})
	t.Run("NoErrbackOnSuccess", func(t *testing.T) {
		t.Parallel()
		w, _ := setup(t, 1, lovage.LinkError(eb.After()))
		equal(t, "messages", w.waiting("celery"), 0)
	})
	t.Run("OptionsOfTheSignature", func(t *testing.T) {
		t.Parallel()
		w, _ := setup(t, 4, lovage.Link(cb.After().With(lovage.TaskID("given"), lovage.Queue("q2"), lovage.Priority(3), lovage.Countdown(time.Hour),
			lovage.Expires(2*time.Hour), lovage.TimeLimit(9*time.Second), lovage.SoftTimeLimit(8*time.Second), lovage.Headers(map[string]any{"a": "b"}),
			lovage.Shadow("nick"), lovage.IgnoreResult(true), lovage.ReplyTo("rq"), lovage.Compression("zlib"), lovage.AddToParent(false),
			lovage.Link(cb.After()), lovage.LinkError(eb.After()))))
		d := peek(t, w, "q2")
		r := w.receive(&d)
		if r.ID != "given" || *d.Properties.Priority != 3 || time.Until(r.ETA) < 59*time.Minute || time.Until(r.Expires) < 119*time.Minute ||
			r.TimeLimit != 9*time.Second || r.SoftLimit != 8*time.Second || string(r.Headers["a"]) != `"b"` || r.Shadow != "nick" || !r.IgnoreResult || r.ReplyTo != "rq" {
			t.Errorf("%+v %s", r, d.Headers)
		}
		// What it links in turn comes along.
		w.cons.Close()
		w.cons = nil
		h := must[protocol.Headers](t)(protocol.ParseHeaders(d.Headers))
		equal(t, "compression", h.Compression, "application/x-gzip")
		if ids := must[[]string](t)(w.app.Result("me").Children(w.ctx())); len(ids) != 0 {
			t.Errorf("children %v", ids)
		}
	})
	t.Run("LinksOfLinks", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lovage.Config{})
		h := lovage.Func(w.app, "t.add", add)
		plus := func(n int, more ...lovage.CallOption) *lovage.Signature[int] {
			return h.After(AddArgs{Y: n}).With(more...)
		}
		must[*lovage.Result[int]](t)(h.Delay(w.ctx(), AddArgs{X: 1}, lovage.Link(plus(10, lovage.Link(plus(100))))))
		var last lovage.Outcome
		for range 3 {
			last = w.run()
		}
		equal(t, "result", last.Result, any(111))
	})
	t.Run("MistakesComeOutOfDelay", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lovage.Config{})
		h := lovage.Func(w.app, "t.add", add)
		none := lovage.Remote[struct{}, int](w.app, "t.none")
		_, err := h.Delay(w.ctx(), AddArgs{}, lovage.Link(none.After()))
		if err == nil || !strings.Contains(err.Error(), `link: task "t.none" takes no positional argument`) {
			t.Errorf("got %v", err)
		}
	})
}

// pythonChain is what Celery's client sends for chain(a, b, c).
func pythonChain(t *testing.T, w *world, first string) {
	t.Helper()
	sig := func(task, id string, args ...any) protocol.Signature {
		return protocol.Signature{Task: task, Args: json.RawMessage(jsonText(t, append([]any{}, args...))), Kwargs: json.RawMessage("{}"),
			Options: map[string]json.RawMessage{"task_id": json.RawMessage(jsonText(t, id)), "reply_to": json.RawMessage("null")}}
	}
	body := protocol.Body{Args: json.RawMessage("[1]"), Kwargs: json.RawMessage("{}"), Embed: protocol.Embed{
		Chain: []protocol.Signature{sig("t.add", "id3", 100), sig("t.add", "id2", 10)}, // a stack: the next is the last
	}}
	m := &protocol.Message{Queue: "celery", RoutingKey: "celery", Body: body.AppendJSON(nil),
		Headers:    protocol.Headers{Lang: "py", Task: first, ID: "id1", RootID: "id1"},
		Properties: protocol.Properties{ContentType: "application/json", ContentEncoding: "utf-8", CorrelationID: "id1", DeliveryMode: 2}}
	conn := must[broker.Conn](t)(w.app.Broker(w.ctx()))
	if err := errors.Join(conn.Declare(w.ctx(), broker.Named("celery")), conn.Publish(w.ctx(), m)); err != nil {
		t.Fatal(err)
	}
}

func TestChainFromPython(t *testing.T) {
	t.Parallel()
	setup := func(t *testing.T) *world {
		w := newWorld(t, lovage.Config{})
		lovage.Func(w.app, "t.add", add)
		lovage.Func(w.app, "t.fail", func(context.Context, AddArgs) (int, error) { return 0, errNegative })
		return w
	}
	t.Run("GoesOnFromTheEndOfTheList", func(t *testing.T) {
		t.Parallel()
		w := setup(t)
		pythonChain(t, w, "t.add")
		w.run()
		d := peek(t, w, "celery")
		embed := parse(t, d.Body).([]any)[2].(map[string]any)
		if r := w.receive(&d); r.ID != "id2" || string(r.Args) != "[1,10]" || r.ParentID != "id1" || r.RootID != "id1" || len(embed["chain"].([]any)) != 1 {
			t.Errorf("second step: %+v %s", r, d.Body)
		}
		w.run()
		d = peek(t, w, "celery")
		// The last hop has an empty chain, not null, as Celery's workers send it.
		if embed := parse(t, d.Body).([]any)[2].(map[string]any); embed["chain"] == nil || len(embed["chain"].([]any)) != 0 {
			t.Errorf("chain of the last step: %v", embed["chain"])
		}
		w.run()
		if n, err := lovage.ResultOf[int](w.app, "id3").Get(w.ctx()); n != 111 || err != nil {
			t.Errorf("got %d, %v", n, err)
		}
		for id, child := range map[string]string{"id1": "id2", "id2": "id3"} {
			equal(t, "children of "+id, strings.Join(must[[]string](t)(w.app.Result(id).Children(w.ctx())), " "), child)
		}
	})
	t.Run("AFailureFailsTheRest", func(t *testing.T) {
		t.Parallel()
		w := setup(t)
		pythonChain(t, w, "t.fail")
		w.run()
		equal(t, "messages", w.waiting("celery"), 0)
		for _, id := range []string{"id1", "id2", "id3"} {
			_, err := w.app.Result(id).Get(w.ctx())
			if te, ok := errors.AsType[*lovage.TaskError](err); !ok || te.Message() != "negative" {
				t.Errorf("%s: %v", id, err)
			}
		}
	})
	t.Run("WhatCannotBeAppliedIsRefusedUpFront", func(t *testing.T) {
		t.Parallel()
		w := setup(t)
		for name, next := range map[string]string{
			"UnknownType":      `{"task": "celery.star", "kwargs": {}, "subtask_type": "star"}`,
			"ChordWithoutBody": `{"task": "celery.chord", "kwargs": {"header": []}, "subtask_type": "chord"}`,
			"Inside":           `{"task": "celery.group", "kwargs": {"tasks": [{"task": "a", "subtask_type": "star"}]}, "subtask_type": "group"}`,
			"NoList":           `{"task": "celery.group", "kwargs": {"tasks": 3}, "subtask_type": "group"}`,
		} {
			raw := `[[1], {}, {"callbacks": null, "errbacks": null, "chain": [` + next + `], "chord": null}]`
			h := protocol.Headers{Lang: "py", Task: "t.add", ID: "id1"}
			_, err := w.app.Receive(&broker.Delivery{Headers: h.AppendJSON(nil), Body: []byte(raw),
				Properties: protocol.Properties{ContentType: "application/json", ContentEncoding: "utf-8"}})
			if me, ok := errors.AsType[*lovage.MessageError](err); !ok || me.Kind != lovage.Unsupported || me.ID != "id1" {
				t.Errorf("%s: got %v", name, err)
			}
		}
	})
}
