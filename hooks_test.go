package lovage_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lovage-go/lovage"
)

// recorder is a base that writes down what each hook is given.
type recorder struct {
	lovage.Task
	d       *diary
	failing string // the hook that returns an error, or panics: "OnSuccess!"
}

func (b *recorder) note(hook string, r *lovage.Request, rest ...any) error {
	b.d.write("%s", strings.TrimSpace(fmt.Sprintf("%s %s %s %s %d %v", hook, r.ID, r.Args, r.Kwargs, r.Retries, rest)))
	switch b.failing {
	case hook:
		return errors.New("hook broke")
	case hook + "!":
		panic("hook panicked")
	}
	return nil
}

func (b *recorder) BeforeStart(_ context.Context, r *lovage.Request) error {
	return b.note("BeforeStart", r)
}
func (b *recorder) Around(ctx context.Context, r *lovage.Request, next lovage.Next) (any, error) {
	if err := b.note("Around", r); err != nil {
		return nil, err
	}
	v, err := next(ctx)
	b.d.write("Around ends %v %v", v, err)
	return v, err
}
func (b *recorder) OnSuccess(_ context.Context, r *lovage.Request, v any) error {
	return b.note("OnSuccess", r, v)
}
func (b *recorder) OnFailure(_ context.Context, r *lovage.Request, i *lovage.ErrorInfo) error {
	return b.note("OnFailure", r, i.Repr(), i.Traceback != "")
}
func (b *recorder) OnRetry(_ context.Context, r *lovage.Request, i *lovage.ErrorInfo) error {
	return b.note("OnRetry", r, i.Repr(), i.Err.(*lovage.RetryError).When)
}
func (b *recorder) AfterReturn(_ context.Context, r *lovage.Request, s lovage.State, v any, i *lovage.ErrorInfo) error {
	return b.note("AfterReturn", r, s, v, i != nil)
}

type recorded struct{ recorder }

var errNegative = errors.New("negative")

func (c *recorded) Run(_ context.Context, in AddArgs) (int, error) {
	c.d.write("Run")
	switch {
	case in.X == -1:
		return 0, errNegative
	case in.X == -2:
		return 0, lovage.Retry(errNegative, lovage.Countdown(time.Minute))
	case in.X == -3:
		return 0, lovage.ErrIgnore
	case in.X == -4:
		return 0, lovage.Reject(errNegative, false)
	}
	return in.X + in.Y, nil
}

// watch writes the signals of runs into the diary.
func watch(app *lovage.App, d *diary) {
	s := &app.Signals
	s.TaskPrerun.Connect(func(_ context.Context, e lovage.TaskPrerun) { d.write("prerun %s", e.Request.ID) })
	s.TaskPostrun.Connect(func(_ context.Context, e lovage.TaskPostrun) { d.write("postrun %s %v", e.State, e.Result) })
	s.TaskSuccess.Connect(func(_ context.Context, e lovage.TaskSuccess) { d.write("success %v", e.Result) })
	s.TaskFailure.Connect(func(_ context.Context, e lovage.TaskFailure) { d.write("failure %s", e.Info.Type) })
	s.TaskRetry.Connect(func(_ context.Context, e lovage.TaskRetry) { d.write("retry %v", e.Delay) })
	s.TaskInternalError.Connect(func(_ context.Context, e lovage.TaskInternalError) { d.write("internal %s: %v", e.Where, e.Err) })
	s.BeforeTaskPublish.Connect(func(_ context.Context, e lovage.BeforeTaskPublish) { d.write("before publish %s", e.Task) })
	s.AfterTaskPublish.Connect(func(_ context.Context, e lovage.AfterTaskPublish) { d.write("after publish %s", e.Task) })
}

// TestOrderOfEffects is checklist A31 and A32, all in one list.
func TestOrderOfEffects(t *testing.T) {
	t.Parallel()
	setup := func(t *testing.T, failing string) (*world, *lovage.Class[*recorded, AddArgs, int]) {
		w := newWorld(t, lovage.Config{})
		c := lovage.Register(w.app, "t.rec", &recorded{recorder{d: w.log, failing: failing}})
		lovage.Remote[AddArgs, int](w.app, "t.next")
		watch(w.app, w.log)
		w.finished = func(e *lovage.Effects) {
			for _, m := range e.Publish {
				w.log.write("publish %s %d", m.Headers.Task, m.Headers.Retries)
			}
			for _, r := range e.Store {
				w.log.write("store %s %s", r.TaskID, r.State)
			}
		}
		return w, c
	}
	next := lovage.Remote[AddArgs, int](nil, "t.next")
	send := func(w *world, c *lovage.Class[*recorded, AddArgs, int], x int, opts ...lovage.CallOption) lovage.Outcome {
		must[*lovage.Result[int]](t)(c.Delay(w.ctx(), AddArgs{X: x, Y: 5}, append(opts, lovage.TaskID("id"))...))
		w.log.take()
		out := w.run()
		for i, l := range w.log.lines { // run times vary
			if at := strings.Index(l, "succeeded in"); at >= 0 {
				w.log.lines[i] = l[:at] + "succeeded" + l[strings.LastIndex(l, ":"):]
			}
		}
		return out
	}
	t.Run("Success", func(t *testing.T) {
		t.Parallel()
		w, c := setup(t, "")
		send(w, c, 2, lovage.Link(next.After()))
		equalLines(t, w.log.take(), []string{
			"prerun id", "BeforeStart id [2] {\"y\":5} 0 []", "Around id [2] {\"y\":5} 0 []", "Run", "Around ends 7 <nil>",
			"before publish t.next", "publish t.next 0", "store id SUCCESS", "after publish t.next",
			"OnSuccess id [2] {\"y\":5} 0 [7]", "success 7", "log INFO Task t.rec[id] succeeded: 7",
			"AfterReturn id [2] {\"y\":5} 0 [SUCCESS 7 false]", "postrun SUCCESS 7",
		})
	})
	t.Run("Failure", func(t *testing.T) {
		t.Parallel()
		w, c := setup(t, "")
		send(w, c, -1, lovage.LinkError(next.After()))
		equalLines(t, w.log.take(), []string{
			"prerun id", "BeforeStart id [-1] {\"y\":5} 0 []", "Around id [-1] {\"y\":5} 0 []", "Run", "Around ends 0 negative",
			"before publish t.next", "publish t.next 0", "store id FAILURE", "after publish t.next",
			"OnFailure id [-1] {\"y\":5} 0 [Error('negative') true]", "failure Error",
			"log ERROR Task t.rec[id] raised unexpected: Error('negative') +traceback",
			"AfterReturn id [-1] {\"y\":5} 0 [FAILURE <nil> true]", "postrun FAILURE <nil>",
		})
	})
	t.Run("RetryHasNoAfterReturn", func(t *testing.T) {
		t.Parallel()
		w, c := setup(t, "")
		send(w, c, -2)
		equalLines(t, w.log.take()[5:], []string{
			"before publish t.rec", "publish t.rec 1", "store id RETRY", "after publish t.rec",
			"OnRetry id [-2] {\"y\":5} 0 [Error('negative') 1m0s]", "retry 1m0s",
			"log INFO Task t.rec[id] retry: Retry in 60s: Error('negative')", "postrun RETRY <nil>",
		})
	})
	t.Run("IgnoreStoresNothing", func(t *testing.T) {
		t.Parallel()
		w, c := setup(t, "")
		send(w, c, -3)
		equalLines(t, w.log.take()[5:], []string{"log INFO Task t.rec[id] ignored", "postrun IGNORED <nil>"})
		equal(t, "state", w.state("id"), lovage.Pending)
	})
	t.Run("RejectIsAFailureWithoutHooks", func(t *testing.T) {
		t.Parallel()
		w, c := setup(t, "")
		send(w, c, -4)
		equalLines(t, w.log.take()[5:], []string{
			"store id FAILURE", "failure Reject",
			"log WARN Task t.rec[id] rejected: Reject('negative', False) (requeue=false)", "postrun REJECTED <nil>",
		})
	})
	for _, hook := range []string{"BeforeStart", "BeforeStart!", "Around", "Around!"} {
		t.Run(hook+"FailsTheTask", func(t *testing.T) {
			t.Parallel()
			w, c := setup(t, hook)
			out := send(w, c, 2)
			equal(t, "state", out.State, lovage.Failure)
			contains(t, out.Info.Err.Error(), "hook ")
			equal(t, "stored", w.state("id"), lovage.Failure)
			for _, line := range w.log.take() {
				if line == "Run" {
					t.Error("the body ran")
				}
			}
		})
	}
	for hook, x := range map[string]int{"OnSuccess": 2, "OnFailure": -1, "OnRetry": -2, "AfterReturn": 2} {
		for _, how := range []string{"", "!"} {
			t.Run(hook+how+"ChangesNothing", func(t *testing.T) {
				t.Parallel()
				w, c := setup(t, hook+how)
				out := send(w, c, x)
				want := map[int]lovage.State{2: lovage.Success, -1: lovage.Failure, -2: lovage.StateRetry}[x]
				equal(t, "state", out.State, want)
				equal(t, "stored", w.state("id"), want)
				text := map[string]string{"": "hook broke", "!": "panic: hook panicked"}[how]
				log := strings.Join(w.log.take(), "\n")
				contains(t, log, "internal "+hook+": "+text, "log ERROR Task t.rec[id] INTERNAL ERROR in "+hook+": "+text, "postrun "+string(want))
				if n := w.waiting("celery"); n != map[int]int{2: 0, -1: 0, -2: 1}[x] {
					t.Errorf("%d messages wait afterwards", n)
				}
			})
		}
	}
}

type overriding struct{ recorder }

func (c *overriding) Run(_ context.Context, in AddArgs) (int, error) { return 0, errNegative }
func (c *overriding) OnFailure(ctx context.Context, r *lovage.Request, i *lovage.ErrorInfo) {
	c.d.write("own OnFailure")
	_ = c.recorder.OnFailure(ctx, r, i) // super
}

type reporting struct {
	lovage.Task
	seen lovage.State
}

func (*reporting) Run(context.Context, AddArgs) (int, error) { return 0, errNegative }
func (c *reporting) OnFailure(ctx context.Context, r *lovage.Request, _ *lovage.ErrorInfo) error {
	s, err := r.App().Result(r.ID).State(ctx)
	c.seen = s
	_, sent := r.App().Send(ctx, "t.report", lovage.Args{Positional: []any{r.ID}})
	return errors.Join(err, sent)
}

// TestAHookMayCallTasks is checklist A26.
func TestAHookMayCallTasks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lovage.Config{})
	c := lovage.Register(w.app, "t.rep", &reporting{})
	must[*lovage.Result[int]](t)(c.Delay(w.ctx(), AddArgs{}, lovage.TaskID("id"), lovage.RootID("root")))
	w.run()
	equal(t, "stored before the hook", c.Self.seen, lovage.Failure)
	r := w.next()
	equal(t, "task", r.Task+string(r.Args), `t.report["id"]`)
	equal(t, "parent and root", r.ParentID+" "+r.RootID, "id root")
}

type mixin struct{ D *diary }

func (m *mixin) OnSuccess(_ context.Context, _ *lovage.Request, v any) { m.D.write("mixin %v", v) }

type mixed struct {
	lovage.Task
	mixin
}

func (*mixed) Run(_ context.Context, in AddArgs) (int, error) { return in.X, nil }

func TestHooksOverrideAndMixins(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lovage.Config{})
	d := &diary{}
	o := lovage.Register(w.app, "t.over", &overriding{recorder{d: d}})
	m := lovage.Register(w.app, "t.mixed", &mixed{mixin: mixin{d}})
	must[*lovage.Result[int]](t)(o.Apply(w.ctx(), AddArgs{X: 1}, lovage.TaskID("i")))
	equalLines(t, d.take(), []string{
		"BeforeStart i [1] {} 0 []", "Around i [1] {} 0 []", "Around ends 0 negative",
		"own OnFailure", "OnFailure i [1] {} 0 [Error('negative') true]", "AfterReturn i [1] {} 0 [FAILURE <nil> true]",
	})
	must[*lovage.Result[int]](t)(m.Apply(w.ctx(), AddArgs{X: 3}))
	equalLines(t, d.take(), []string{"mixin 3"})
}

// Classes whose hooks are mistakes.
type (
	wrongInit     struct{ lovage.Task }
	wrongInitBase struct{ wrongInit }
	wrongSuccess  struct{ lovage.Task }
	Left          struct{}
	Right         struct{}
	ambiguous     struct {
		lovage.Task
		Left
		Right
	}
	library struct{ closed *bool }
	usesLib struct {
		lovage.Task
		*library
	}
	oddMixin struct{}
	usesOdd  struct {
		lovage.Task
		oddMixin
	}
)

func (*wrongInit) Init() error                                              { return nil }
func (*wrongInitBase) Init(context.Context) error                           { return nil }
func (*wrongInitBase) Run(context.Context, struct{}) (int, error)           { return 0, nil }
func (*wrongSuccess) OnSuccess(context.Context, *lovage.Request, int)       {}
func (*wrongSuccess) Run(context.Context, struct{}) (int, error)            { return 0, nil }
func (*Left) OnFailure(context.Context, *lovage.Request, *lovage.ErrorInfo) {}
func (*Right) OnFailure(context.Context, *lovage.Request, *lovage.ErrorInfo) error {
	return nil
}
func (*ambiguous) Run(context.Context, struct{}) (int, error) { return 0, nil }
func (l *library) Close() error                               { *l.closed = true; return nil }
func (*usesLib) Run(context.Context, struct{}) (int, error)   { return 0, nil }
func (oddMixin) OnRetry(int) string                           { return "not a hook" }
func (*usesOdd) Run(context.Context, struct{}) (int, error)   { return 0, nil }

func TestHookMistakesPanicAtRegistration(t *testing.T) {
	t.Parallel()
	app := newWorld(t, lovage.Config{}).app
	t.Run("WrongSignature", func(t *testing.T) {
		contains(t, panics(t, func() { lovage.Register(app, "t.ws", &wrongSuccess{}) }),
			`task "t.ws"`, "hook OnSuccess of lovage_test.wrongSuccess", "wrong signature func(context.Context, *lovage.Request, int)",
			"want func(context.Context, *lovage.Request, interface {}) or func(context.Context, *lovage.Request, interface {}) error")
	})
	t.Run("WrongSignatureOfABaseThatIsOverridden", func(t *testing.T) {
		contains(t, panics(t, func() { lovage.Register(app, "t.wi", &wrongInitBase{}) }),
			`task "t.wi"`, "hook Init of lovage_test.wrongInit ", "func() error; want func(context.Context) error")
	})
	t.Run("TwoOffersAtOneDepth", func(t *testing.T) {
		contains(t, panics(t, func() { lovage.Register(app, "t.amb", &ambiguous{}) }),
			`task "t.amb"`, "hook OnFailure", "lovage_test.Left and lovage_test.Right", "declare OnFailure on lovage_test.ambiguous")
	})
	t.Run("ALibrarysCloseIsNoHook", func(t *testing.T) {
		w := newWorld(t, lovage.Config{})
		var closed bool
		c := lovage.Register(w.app, "t.lib", &usesLib{library: &library{&closed}})
		if err := errors.Join(w.app.Init(w.ctx()), w.app.Close(w.ctx())); err != nil {
			t.Error(err)
		}
		if closed {
			t.Errorf("Close of %T was called for the task", c.Self.library)
		}
	})
	t.Run("AnotherMethodOfAMixinIsNoHook", func(t *testing.T) {
		lovage.Register(app, "t.odd", &usesOdd{})
	})
}

type slow struct {
	lovage.Task
	seen chan error
}

func (*slow) Run(ctx context.Context, _ struct{}) (int, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}
func (s *slow) OnFailure(ctx context.Context, r *lovage.Request, _ *lovage.ErrorInfo) {
	_, has := ctx.Deadline()
	if lovage.RequestFrom(ctx) != r || !has {
		s.seen <- errors.New("the hook's context has no request or no deadline")
		return
	}
	s.seen <- ctx.Err()
}

func TestLateHooksOutliveTheSoftLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, lovage.Config{})
		c := lovage.Register(w.app, "t.slow", &slow{seen: make(chan error, 1)})
		res := must[*lovage.Result[int]](t)(c.Delay(w.ctx(), struct{}{}))
		ctx, cancel := context.WithTimeoutCause(context.Background(), time.Second, lovage.ErrSoftTimeLimit)
		defer cancel()
		out := w.runIn(ctx)
		equal(t, "type", out.Info.Type, "SoftTimeLimitExceeded")
		if err := <-c.Self.seen; err != nil {
			t.Errorf("OnFailure's context: %v", err)
		}
		_, err := res.Get(w.ctx())
		if !errors.Is(err, lovage.ErrSoftTimeLimit) {
			t.Errorf("Get: %v", err)
		}
		_ = w.cons.Close()
	})
}
