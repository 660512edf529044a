package lovage_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/protocol"
)

type (
	publishFunc func(context.Context, *protocol.Message, func(context.Context, *protocol.Message) error) error
	executeFunc func(context.Context, *lovage.Request, func(context.Context, *lovage.Request) lovage.Outcome) lovage.Outcome
)

func (f publishFunc) Publish(ctx context.Context, m *protocol.Message, next func(context.Context, *protocol.Message) error) error {
	return f(ctx, m, next)
}

func (f executeFunc) Execute(ctx context.Context, r *lovage.Request, next func(context.Context, *lovage.Request) lovage.Outcome) lovage.Outcome {
	return f(ctx, r, next)
}

func tracer(d *diary, name string) any {
	return publishFunc(func(ctx context.Context, m *protocol.Message, next func(context.Context, *protocol.Message) error) error {
		d.write("%s %s retries=%d", name, m.Headers.Task, m.Headers.Retries)
		if m.Headers.Extra == nil {
			m.Headers.Extra = map[string]json.RawMessage{}
		}
		m.Headers.Extra["x-"+name] = json.RawMessage(`"1"`)
		defer d.write("%s ends", name)
		return next(ctx, m)
	})
}

func TestInterceptors(t *testing.T) {
	t.Parallel()
	t.Run("WrapCallsCallbacksAndRetriesOutermostFirst", func(t *testing.T) {
		t.Parallel()
		w, d := newWorld(t, lovage.Config{}), &diary{}
		w.app.Use(tracer(d, "a"), tracer(d, "b"))
		tries := 0
		h := lovage.Func(w.app, "t.flaky", func(ctx context.Context, in AddArgs) (int, error) {
			if tries++; tries == 1 {
				return 0, lovage.Retry(errNegative, lovage.Countdown(0))
			}
			return 5, nil
		})
		must[*lovage.Result[int]](t)(h.Delay(w.ctx(), AddArgs{}, lovage.Link(lovage.Remote[AddArgs, int](w.app, "t.cb").After())))
		equalLines(t, d.take(), []string{"a t.flaky retries=0", "b t.flaky retries=0", "b ends", "a ends"})
		w.run()
		equalLines(t, d.take(), []string{"a t.flaky retries=1", "b t.flaky retries=1", "b ends", "a ends"})
		w.run()
		equalLines(t, d.take(), []string{"a t.cb retries=0", "b t.cb retries=0", "b ends", "a ends"})
		r := w.receive(w.claim())
		if string(r.Headers["x-a"]) != `"1"` || string(r.Headers["x-b"]) != `"1"` {
			t.Errorf("headers are %s", r.Headers)
		}
	})
	t.Run("MayRefuseACall", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lovage.Config{})
		quota := errors.New("quota")
		w.app.Use(publishFunc(func(context.Context, *protocol.Message, func(context.Context, *protocol.Message) error) error {
			return quota
		}))
		h := lovage.Func(w.app, "t.add", add)
		if _, err := h.Delay(w.ctx(), AddArgs{}); !errors.Is(err, quota) {
			t.Errorf("got %v", err)
		}
		equal(t, "messages", w.waiting("celery"), 0)
	})
	t.Run("ARefusedCallbackFailsTheTaskByItsOwnName", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lovage.Config{})
		w.app.Use(publishFunc(func(ctx context.Context, m *protocol.Message, next func(context.Context, *protocol.Message) error) error {
			if m.Headers.Task != "t.add" {
				return &quotaError{m.Headers.Task}
			}
			return next(ctx, m)
		}))
		h := lovage.Func(w.app, "t.add", add)
		cb := lovage.Remote[AddArgs, int](w.app, "t.cb")
		res := must[*lovage.Result[int]](t)(h.Delay(w.ctx(), AddArgs{X: 1}, lovage.Link(cb.After()), lovage.LinkError(cb.After())))
		out := w.run()
		equal(t, "state", out.State, lovage.Failure)
		equal(t, "type", out.Info.Type, "quotaError")
		equal(t, "stored", w.state(res.ID()), lovage.Failure)
		if ids := must[[]string](t)(res.Children(w.ctx())); len(ids) != 0 {
			t.Errorf("children that were never sent: %v", ids)
		}
		contains(t, strings.Join(w.log.read(), "\n"), "INTERNAL ERROR in link_error")
	})
	t.Run("ARefusedRetryIsAReject", func(t *testing.T) { // checklist A40
		t.Parallel()
		w := newWorld(t, lovage.Config{})
		w.app.Use(publishFunc(func(ctx context.Context, m *protocol.Message, next func(context.Context, *protocol.Message) error) error {
			if m.Headers.Retries > 0 {
				return &quotaError{m.Headers.Task}
			}
			return next(ctx, m)
		}))
		h := lovage.Func(w.app, "t.flaky", func(context.Context, AddArgs) (int, error) { return 0, lovage.Retry(errNegative) })
		res := must[*lovage.Result[int]](t)(h.Delay(w.ctx(), AddArgs{X: 1}))
		out := w.run()
		if out.State != lovage.Rejected || out.Requeue || w.state(res.ID()) != lovage.Failure || w.waiting("celery") != 0 {
			t.Errorf("outcome %+v, stored %s", out, w.state(res.ID()))
		}
	})
	t.Run("AroundRuns", func(t *testing.T) {
		t.Parallel()
		w, d := newWorld(t, lovage.Config{}), &diary{}
		type key struct{}
		for _, name := range []string{"a", "b"} {
			w.app.Use(executeFunc(func(ctx context.Context, r *lovage.Request, next func(context.Context, *lovage.Request) lovage.Outcome) lovage.Outcome {
				d.write("%s %s", name, r.Task)
				out := next(context.WithValue(ctx, key{}, name), r)
				d.write("%s ends %s", name, out.State)
				return out
			}))
		}
		h := lovage.Func(w.app, "t.add", func(ctx context.Context, in AddArgs) (int, error) { d.write("%v", ctx.Value(key{})); return 1, nil })
		must[*lovage.Result[int]](t)(h.Delay(w.ctx(), AddArgs{}))
		w.run()
		equalLines(t, d.take(), []string{"a t.add", "b t.add", "b", "b ends SUCCESS", "a ends SUCCESS"})
	})
	for name, c := range map[string]struct {
		f    executeFunc
		want lovage.State
		typ  string
	}{
		"ARefusedRunIsFinished": {func(context.Context, *lovage.Request, func(context.Context, *lovage.Request) lovage.Outcome) lovage.Outcome {
			return lovage.RevokedOutcome()
		}, lovage.Revoked, "TaskRevokedError"},
		"ARunRefusedWithoutAWordIsAFailure": {func(context.Context, *lovage.Request, func(context.Context, *lovage.Request) lovage.Outcome) lovage.Outcome {
			return lovage.Outcome{State: lovage.Failure}
		}, lovage.Failure, "Error"},
		"SoIsTheZeroOutcome": {func(context.Context, *lovage.Request, func(context.Context, *lovage.Request) lovage.Outcome) lovage.Outcome {
			return lovage.Outcome{}
		}, lovage.Failure, "Error"},
		"APanicBeforeTheRunIsAFailure": {func(context.Context, *lovage.Request, func(context.Context, *lovage.Request) lovage.Outcome) lovage.Outcome {
			panic("oops")
		}, lovage.Failure, "Panic"},
		"APanicAfterTheRunChangesNothing": {func(ctx context.Context, r *lovage.Request, next func(context.Context, *lovage.Request) lovage.Outcome) lovage.Outcome {
			next(ctx, r)
			panic("oops")
		}, lovage.Success, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, lovage.Config{})
			w.app.Use(c.f)
			h := lovage.Func(w.app, "t.add", add)
			res := must[*lovage.Result[int]](t)(h.Delay(w.ctx(), AddArgs{X: 1}))
			out := w.run()
			m := must[*lovage.Meta](t)(res.Meta(w.ctx()))
			equal(t, "outcome", out.State, c.want)
			equal(t, "stored", m.Status, c.want)
			if form, ok := m.Error(); ok {
				equal(t, "type", form.Type, c.typ)
			}
			equal(t, "messages left", w.waiting("celery"), 0)
		})
	}
	t.Run("UseWantsAnInterceptor", func(t *testing.T) {
		contains(t, panics(t, func() { newWorld(t, lovage.Config{}).app.Use(3) }), "neither a Publish nor an Execute method")
	})
}

type quotaError struct{ task string }

func (e *quotaError) Error() string { return "quota of " + e.task }
