package lovage_test

import (
	"context"
	"errors"
	"testing"

	"github.com/lovage-go/lovage"
)

// later is a finisher that may be told and not waited for.
type later struct {
	lovage.Finisher
	noted []*lovage.Effects
	then  []func(error)
}

func (f *later) FinishLater(_ context.Context, e *lovage.Effects, then func(error)) {
	f.noted, f.then = append(f.noted, e), append(f.then, then)
}

type hooked struct{ lovage.Task }

func (*hooked) Run(context.Context, AddArgs) (int, error)                           { return 5, nil }
func (*hooked) OnFailure(context.Context, *lovage.Request, *lovage.ErrorInfo) error { return nil }

// TestFinishLater holds when a run is over before its end is kept, and what
// follows when it is.
func TestFinishLater(t *testing.T) {
	t.Parallel()
	run := func(w *world) (*later, lovage.Outcome) {
		d := w.claim()
		fin := &later{Finisher: w.finisher(d)}
		return fin, w.app.Execute(w.ctx(), w.receive(d), fin)
	}
	t.Run("NothingFollows", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lovage.Config{})
		h := body(w, func(context.Context) (any, error) { return 5, nil })
		must[*lovage.Result[any]](t)(h.Delay(w.ctx(), struct{}{}))
		fin, out := run(w)
		if !out.Later || len(fin.noted) != 1 {
			t.Fatalf("got %+v and %d effects noted, want one to be kept later", out, len(fin.noted))
		}
		fin.then[0](nil)
		if got := fin.noted[0].Outcome; got.State != lovage.Success || got.Fenced != nil {
			t.Errorf("outcome: got %+v, want a success", got)
		}
	})
	t.Run("TheAnswerFences", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lovage.Config{})
		h := body(w, func(context.Context) (any, error) { return 5, nil })
		must[*lovage.Result[any]](t)(h.Delay(w.ctx(), struct{}{}))
		fin, _ := run(w)
		lost := errors.New("lost")
		fin.then[0](lost)
		if got := fin.noted[0].Outcome.Fenced; !errors.Is(got, lost) {
			t.Errorf("fenced: got %v, want the answer", got)
		}
	})
	t.Run("ASignalIsWaitedFor", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lovage.Config{})
		h := body(w, func(context.Context) (any, error) { return 5, nil })
		heard := 0
		w.app.Signals.TaskPostrun.Connect(func(context.Context, lovage.TaskPostrun) { heard++ })
		must[*lovage.Result[any]](t)(h.Delay(w.ctx(), struct{}{}))
		if fin, out := run(w); out.Later || len(fin.noted) != 0 || heard != 1 {
			t.Errorf("got %+v, %d noted, postrun heard %d times; want the run to wait for its end", out, len(fin.noted), heard)
		}
	})
	t.Run("AHookIsWaitedFor", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lovage.Config{})
		h := lovage.Register(w.app, "t.hooked", &hooked{})
		must[*lovage.Result[int]](t)(h.Delay(w.ctx(), AddArgs{}))
		if fin, out := run(w); out.Later || len(fin.noted) != 0 {
			t.Errorf("got %+v, %d noted; want the run to wait for its end", out, len(fin.noted))
		}
	})
	t.Run("WithItsFollowUps", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lovage.Config{})
		h := body(w, func(context.Context) (any, error) { return nil, lovage.Retry(nil) })
		must[*lovage.Result[any]](t)(h.Delay(w.ctx(), struct{}{}))
		fin, out := run(w)
		if !out.Later || len(fin.noted) != 1 || len(fin.noted[0].Publish) != 1 {
			t.Fatalf("got %+v and %d effects noted, want the retry among them", out, len(fin.noted))
		}
	})
	t.Run("ASignalOfPublishingIsWaitedFor", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lovage.Config{})
		h := body(w, func(context.Context) (any, error) { return nil, lovage.Retry(nil) })
		w.app.Signals.AfterTaskPublish.Connect(func(context.Context, lovage.AfterTaskPublish) {})
		must[*lovage.Result[any]](t)(h.Delay(w.ctx(), struct{}{}))
		if _, out := run(w); out.Later || out.State != lovage.StateRetry {
			t.Errorf("got %+v, want the run to wait for its end", out)
		}
	})
}
