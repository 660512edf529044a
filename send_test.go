package lovage_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
)

// away is a broker that cannot be reached for its first fails publishes.
type away struct {
	broker.Conn
	mu    sync.Mutex
	fails int
	err   error
	tries []time.Time
	block bool
}

func (a *away) Publish(ctx context.Context, msgs ...*broker.Message) error {
	a.mu.Lock()
	a.tries = append(a.tries, time.Now())
	fail := len(a.tries) <= a.fails
	a.mu.Unlock()
	if a.block {
		<-ctx.Done()
		return ctx.Err()
	}
	if fail {
		return a.err
	}
	return a.Conn.Publish(ctx, msgs...)
}

func (a *away) gaps() (gaps []time.Duration) {
	for i := 1; i < len(a.tries); i++ {
		gaps = append(gaps, a.tries[i].Sub(a.tries[i-1]))
	}
	return gaps
}

func TestPublishing(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	inBubble := func(name string, cfg lovage.Config, a *away, f func(t *testing.T, w *world, h *lovage.Handle[AddArgs, int])) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var w *world
				w = newWorld(t, cfg, lovage.WithBroker(func(context.Context) (broker.Conn, error) {
					a.Conn = w.store.Broker()
					return a, nil
				}))
				f(t, w, lovage.Func(w.app, "t.add", add))
			})
		})
	}
	gaps := func(t *testing.T, a *away, want ...time.Duration) {
		t.Helper()
		got := a.gaps()
		if len(got) != len(want) {
			t.Errorf("waits %v, want %v", got, want)
			return
		}
		for i := range got {
			equal(t, "wait", got[i], want[i])
		}
	}
	a := &away{fails: 99, err: broker.ErrUnavailable}
	inBubble("ThreeRetriesAfter0And200And400ms", lovage.Config{}, a, func(t *testing.T, w *world, h *lovage.Handle[AddArgs, int]) {
		_, err := h.Delay(w.ctx(), AddArgs{})
		if !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), `publish task "t.add"`) {
			t.Errorf("got %v", err)
		}
		gaps(t, a, 0, 200*ms, 400*ms)
	})
	b := &away{fails: 2, err: broker.ErrUnavailable}
	inBubble("SucceedsWhenTheBrokerIsBack", lovage.Config{}, b, func(t *testing.T, w *world, h *lovage.Handle[AddArgs, int]) {
		must[*lovage.Result[int]](t)(h.Delay(w.ctx(), AddArgs{}))
		gaps(t, b, 0, 200*ms)
	})
	c := &away{fails: 99, err: broker.ErrUnavailable}
	inBubble("PolicyOfTheCall", lovage.Config{}, c, func(t *testing.T, w *world, h *lovage.Handle[AddArgs, int]) {
		_, _ = h.Delay(w.ctx(), AddArgs{}, lovage.PublishRetry(2, time.Second, time.Second, 5*time.Second))
		gaps(t, c, time.Second, 2*time.Second)
	})
	d := &away{fails: 99, err: broker.ErrUnavailable}
	inBubble("PolicyOfTheApp", lovage.Config{TaskPublishRetryPolicy: &lovage.RetryPolicy{MaxRetries: 1, IntervalStart: time.Second, IntervalMax: time.Second}}, d,
		func(t *testing.T, w *world, h *lovage.Handle[AddArgs, int]) {
			_, _ = h.Delay(w.ctx(), AddArgs{})
			gaps(t, d, time.Second)
		})
	for name, opt := range map[string]struct {
		cfg  lovage.Config
		opts []lovage.CallOption
	}{"OffForTheCall": {opts: []lovage.CallOption{lovage.NoPublishRetry()}}, "OffForTheApp": {cfg: lovage.Config{TaskPublishRetry: new(false)}}} {
		e := &away{fails: 99, err: broker.ErrUnavailable}
		inBubble(name, opt.cfg, e, func(t *testing.T, w *world, h *lovage.Handle[AddArgs, int]) {
			_, _ = h.Delay(w.ctx(), AddArgs{}, opt.opts...)
			equal(t, "tries", len(e.tries), 1)
		})
	}
	f := &away{fails: 99, err: broker.ErrTooLarge}
	inBubble("WhatCannotHealIsTriedOnce", lovage.Config{}, f, func(t *testing.T, w *world, h *lovage.Handle[AddArgs, int]) {
		if _, err := h.Delay(w.ctx(), AddArgs{}); !errors.Is(err, broker.ErrTooLarge) {
			t.Errorf("got %v", err)
		}
		equal(t, "tries", len(f.tries), 1)
	})
	g := &away{block: true}
	inBubble("GivesUpAfterFiveSeconds", lovage.Config{}, g, func(t *testing.T, w *world, h *lovage.Handle[AddArgs, int]) {
		begin := time.Now()
		_, err := h.Delay(context.Background(), AddArgs{})
		if time.Since(begin) != 5*time.Second || !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), "broker_publish_timeout (5s)") {
			t.Errorf("got %v after %v", err, time.Since(begin))
		}
	})
	g2 := &away{block: true}
	inBubble("TheCallersDeadlineWins", lovage.Config{}, g2, func(t *testing.T, w *world, h *lovage.Handle[AddArgs, int]) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		begin := time.Now()
		_, err := h.Delay(ctx, AddArgs{})
		if time.Since(begin) != time.Minute || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v after %v", err, time.Since(begin))
		}
	})
	g3 := &away{fails: 4, err: broker.ErrUnavailable}
	inBubble("WithoutAPublishTimeoutItMayTakeLong", lovage.Config{BrokerPublishTimeout: lovage.NoLimit}, g3, func(t *testing.T, w *world, h *lovage.Handle[AddArgs, int]) {
		begin := time.Now()
		must[*lovage.Result[int]](t)(h.Delay(context.Background(), AddArgs{}, lovage.PublishRetry(lovage.NoLimit, 10*time.Second, 0, 10*time.Second)))
		equal(t, "time", time.Since(begin), 40*time.Second)
	})
}

func TestSendChecksArguments(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lovage.Config{})
	lovage.Func(w.app, "t.add", add)
	lovage.Func(w.app, "t.free", add, lovage.Typing(false))
	for name, c := range map[string]struct {
		args lovage.Args
		want string // Python's words
	}{
		"Missing": {lovage.Args{}, "add() missing 1 required positional argument: 'x'"},
		"TooMany": {lovage.Args{Positional: []any{1, 2, 3}}, "add() takes from 1 to 2 positional arguments but 3 were given"},
		"Unknown": {lovage.Args{Positional: []any{1}, Keyword: map[string]any{"z": 1}}, "add() got an unexpected keyword argument 'z'"},
		"Twice":   {lovage.Args{Positional: []any{1}, Keyword: map[string]any{"x": 1}}, "add() got multiple values for argument 'x'"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.app.Send(w.ctx(), "t.add", c.args)
			te, ok := errors.AsType[*lovage.TaskError](err)
			if !ok || te.Type != "TypeError" || te.Module != "builtins" || !strings.HasSuffix(te.Message(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
			h := must[*lovage.AnyHandle](t)(w.app.Task("t.add"))
			if _, again := h.Delay(w.ctx(), c.args); again == nil || again.Error() != err.Error() {
				t.Errorf("by the registry's handle: %v", again)
			}
			if _, again := h.Apply(w.ctx(), c.args); again == nil || again.Error() != err.Error() {
				t.Errorf("eagerly: %v", again)
			}
			// Without typing it is the worker that finds out.
			res := must[*lovage.Result[any]](t)(w.app.Send(w.ctx(), "t.free", c.args))
			equal(t, "state", w.run().State, lovage.Failure)
			_, err = res.Get(w.ctx())
			if !errors.Is(err, &lovage.TaskError{Type: "TypeError", Module: "builtins"}) {
				t.Errorf("from the worker: %v", err)
			}
		})
	}
	equal(t, "messages", w.waiting("celery"), 0)
}

func TestSendLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lovage.Config{TaskMaxMessageSize: 500})
	for _, c := range []struct {
		n    int
		opts []lovage.CallOption
		ok   bool
	}{{300, nil, true}, {600, nil, false}, {600, []lovage.CallOption{lovage.Compression("zlib")}, true}} {
		_, err := w.app.Send(w.ctx(), "x", lovage.Args{Positional: []any{strings.Repeat("a", c.n)}}, c.opts...)
		if (err == nil) != c.ok {
			t.Errorf("%d bytes, %d options: %v", c.n, len(c.opts), err)
		}
		if err != nil {
			contains(t, err.Error(), "bytes, more than task_max_message_size (500)", "send a reference")
		}
	}
	if _, err := w.app.Send(w.ctx(), "x", lovage.Args{}, lovage.Compression("zib")); err == nil || !strings.Contains(err.Error(), "zib") {
		t.Errorf("unknown compression: %v", err)
	}
	if _, err := w.app.Send(w.ctx(), "x", lovage.Args{}, lovage.Serializer("jsn")); err == nil || !strings.Contains(err.Error(), "jsn") {
		t.Errorf("unknown serializer: %v", err)
	}
	for p, ok := range map[int]bool{0: true, 255: true, -1: false, 256: false} {
		_, err := w.app.Send(w.ctx(), "x", lovage.Args{}, lovage.Priority(p))
		if (err == nil) != ok {
			t.Errorf("priority %d: %v", p, err)
		}
		if err != nil {
			contains(t, err.Error(), "want 0 to 255")
		}
	}
	if _, err := w.app.Send(w.ctx(), "x", lovage.Args{Positional: []any{func() {}}}); err == nil || !strings.Contains(err.Error(), "positional arguments") {
		t.Errorf("what JSON cannot carry: %v", err)
	}
}

// TestMandatory: what nobody is bound to is an error only for a sender who asks.
func TestMandatory(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lovage.Config{})
	nowhere := []lovage.CallOption{lovage.Exchange("nobody"), lovage.RoutingKey("k")}
	if _, err := w.app.Send(w.ctx(), "x", lovage.Args{}, nowhere...); err != nil {
		t.Errorf("not mandatory: %v", err)
	}
	_, err := w.app.Send(w.ctx(), "x", lovage.Args{}, append(nowhere, lovage.Mandatory(true))...)
	if !errors.Is(err, broker.ErrNoQueue) {
		t.Errorf("mandatory: got %v, want ErrNoQueue", err)
	}
	must[*lovage.Result[any]](t)(w.app.Send(w.ctx(), "x", lovage.Args{}, lovage.Mandatory(true)))
}

// TestCallsInARun: parents, roots, children, priority.
func TestCallsInARun(t *testing.T) {
	t.Parallel()
	setup := func(t *testing.T, cfg lovage.Config, call func(ctx context.Context, child *lovage.Handle[AddArgs, int]) error, opts ...lovage.TaskOption) (*world, *lovage.Result[any]) {
		w := newWorld(t, cfg)
		child := lovage.Func(w.app, "t.child", add)
		h := body(w, func(ctx context.Context) (any, error) { return nil, call(ctx, child) }, opts...)
		res := must[*lovage.Result[any]](t)(h.Delay(w.ctx(), struct{}{}, lovage.TaskID("me"), lovage.RootID("root"), lovage.Priority(6)))
		equal(t, "state", w.run().State, lovage.Success)
		return w, res
	}
	send := func(opts ...lovage.CallOption) func(context.Context, *lovage.Handle[AddArgs, int]) error {
		return func(ctx context.Context, h *lovage.Handle[AddArgs, int]) error {
			_, err := h.Delay(ctx, AddArgs{}, append([]lovage.CallOption{lovage.TaskID("kid")}, opts...)...)
			return err
		}
	}
	for name, c := range map[string]struct {
		cfg          lovage.Config
		opts         []lovage.CallOption
		task         []lovage.TaskOption
		root, parent string
		priority     int // -1: none
		children     string
	}{
		"Inherit":             {root: "root", parent: "me", priority: -1, children: "kid"},
		"Given":               {opts: []lovage.CallOption{lovage.RootID("r"), lovage.ParentID("p")}, root: "r", parent: "p", priority: -1, children: "kid"},
		"Priority":            {cfg: lovage.Config{TaskInheritParentPriority: new(true)}, root: "root", parent: "me", priority: 6, children: "kid"},
		"PriorityOfTheCall":   {cfg: lovage.Config{TaskInheritParentPriority: new(true)}, opts: []lovage.CallOption{lovage.Priority(2)}, root: "root", parent: "me", priority: 2, children: "kid"},
		"NotAddedToTheParent": {opts: []lovage.CallOption{lovage.AddToParent(false)}, root: "root", parent: "me", priority: -1},
		"TrailOff":            {task: []lovage.TaskOption{lovage.Trail(false)}, root: "root", parent: "me", priority: -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, res := setup(t, c.cfg, send(c.opts...), c.task...)
			d := peek(t, w, "celery")
			r := w.receive(&d)
			equal(t, "root", r.RootID, c.root)
			equal(t, "parent", r.ParentID, c.parent)
			got := -1
			if d.Properties.Priority != nil {
				got = *d.Properties.Priority
			}
			equal(t, "priority", got, c.priority)
			equal(t, "children", strings.Join(must[[]string](t)(res.Children(w.ctx())), " "), c.children)
		})
	}
	t.Run("ADirectCallBelongsToTheRunAroundIt", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lovage.Config{})
		child := lovage.Remote[AddArgs, int](w.app, "t.child")
		inner := lovage.Func(w.app, "t.inner", func(ctx context.Context, _ struct{}) (string, error) {
			if lovage.RequestFrom(ctx).Task != "t.inner" {
				t.Error("RequestFrom is not that of the call")
			}
			res, err := child.Delay(ctx, AddArgs{})
			if err != nil {
				return "", err
			}
			if _, err := res.Get(ctx); !errors.Is(err, lovage.ErrGetInTask) {
				t.Errorf("Get: %v", err)
			}
			return res.ID(), nil
		})
		h := body(w, func(ctx context.Context) (any, error) { return inner.Call(ctx, struct{}{}) })
		res := must[*lovage.Result[any]](t)(h.Delay(w.ctx(), struct{}{}, lovage.TaskID("me")))
		w.run()
		id := must[any](t)(res.Get(w.ctx()))
		equal(t, "child", strings.Join(must[[]string](t)(res.Children(w.ctx())), " "), id.(string))
		equal(t, "parent", w.receive(w.claim()).ParentID, "me")
	})
	t.Run("ADirectCallOutsideOfRunsHasNoParentAndMayWait", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lovage.Config{})
		child := lovage.Func(w.app, "t.child", add)
		inner := lovage.Func(w.app, "t.inner", func(ctx context.Context, _ struct{}) (int, error) {
			res, err := child.Delay(ctx, AddArgs{X: 4})
			if err != nil {
				return 0, err
			}
			r := w.claim()
			equal(t, "parent", w.receive(r).ParentID, "")
			w.app.Execute(context.Background(), w.receive(r), w.finisher(r))
			return res.Get(ctx)
		})
		if n, err := inner.Call(w.ctx(), struct{}{}); n != 4 || err != nil {
			t.Errorf("got %d, %v", n, err)
		}
	})
}
