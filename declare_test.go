package lovage_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/lovage-go/lovage"
)

// counter is a task class with state, safe for concurrent runs.
type counter struct {
	lovage.Task
	mu sync.Mutex
	n  int
}

func (c *counter) Add(by int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += by
	return c.n
}
func (c *counter) Run(_ context.Context, by int) (int, error) { return c.Add(by), nil }

func TestRegister(t *testing.T) {
	t.Parallel()
	newApp := func(t *testing.T) *lovage.App { return newWorld(t, lovage.Config{}).app }
	t.Run("DuplicateNamePanics", func(t *testing.T) {
		app := newApp(t)
		lovage.Func(app, "t.add", add)
		contains(t, panics(t, func() { lovage.Func(app, "t.add", add) }), `task "t.add" is registered twice`)
	})
	t.Run("OnePointerTwicePanics", func(t *testing.T) {
		app, c := newApp(t), &counter{}
		lovage.Register(app, "t.one", c)
		contains(t, panics(t, func() { lovage.Register(app, "t.two", c) }), `task "t.two"`, `registered already, as "t.one"`)
	})
	t.Run("NilPointersPanic", func(t *testing.T) {
		app := newApp(t)
		contains(t, panics(t, func() { lovage.Register(app, "t.nil", (*counter)(nil)) }), `task "t.nil"`, "non-nil pointer")
		contains(t, panics(t, func() { lovage.Register(app, "t.nil", &nilBase{}) }), `task "t.nil"`, "base that *lovage_test.nilBase embeds by a pointer is nil")
	})
	t.Run("EmptyNameAndBadOptionsPanic", func(t *testing.T) {
		app := newApp(t)
		contains(t, panics(t, func() { lovage.Func(app, "", add) }), "a task needs a name")
		contains(t, panics(t, func() { lovage.RetryOn(nil) }), "RetryOn: an error is nil")
		type bad struct {
			X int `lovage:"x,wrong"`
		}
		contains(t, panics(t, func() {
			lovage.Func(app, "t.bad", func(context.Context, bad) (int, error) { return 0, nil })
		}), `task "t.bad"`, "wrong")
	})
	t.Run("TheRegistryFreezesAtFirstUse", func(t *testing.T) {
		app := newApp(t)
		h := lovage.Func(app, "t.add", add)
		must[*lovage.Result[int]](t)(h.Delay(context.Background(), AddArgs{}))
		contains(t, panics(t, func() { lovage.Func(app, "t.late", add) }), `task "t.late" is declared after the app's first use`)
		contains(t, panics(t, func() { app.Use(publishFunc(nil)) }), "Use after the app's first use")
		contains(t, panics(t, func() { app.RegisterBase("b", nil) }), "RegisterBase after")
		if err := app.Configure(nil); err == nil {
			t.Error("Configure after first use gave no error")
		}
		late := lovage.Remote[AddArgs, int](app, "py.late") // a name needs no registry
		must[*lovage.Result[int]](t)(late.Delay(context.Background(), AddArgs{}))
	})
	t.Run("UnknownNamesSuggest", func(t *testing.T) {
		app := newApp(t)
		lovage.Func(app, "proj.add", add)
		_, err := app.Task("proj.ad")
		if !errors.Is(err, lovage.ErrNotRegistered) {
			t.Fatalf("got %v", err)
		}
		contains(t, err.Error(), `"proj.ad"`, `did you mean "proj.add"`)
		equal(t, "names", strings.Join(app.TaskNames(), " "), "proj.add")
	})
	t.Run("AMistakeInTheConfigurationComesOutOfEachUse", func(t *testing.T) {
		app := lovage.New("t", lovage.Config{TaskProtocol: 7})
		h := lovage.Func(app, "t.add", add)
		_, delay := h.Delay(context.Background(), AddArgs{})
		_, apply := h.Apply(context.Background(), AddArgs{})
		_, call := h.Call(context.Background(), AddArgs{})
		_, send := app.Send(context.Background(), "x", lovage.Args{})
		_, conn := app.Broker(context.Background())
		for _, err := range []error{delay, apply, call, send, conn, app.Freeze()} {
			if err == nil || !strings.Contains(err.Error(), "task_protocol") {
				t.Errorf("got %v", err)
			}
		}
		lovage.Remote[AddArgs, int](app, "py.x")
	})
}

type nilBase struct{ *counter }

func TestRemote(t *testing.T) {
	t.Parallel()
	t.Run("OfARegisteredNameIsASecondHandleInBothOrders", func(t *testing.T) {
		for _, remoteFirst := range []bool{true, false} {
			app := newWorld(t, lovage.Config{}).app
			var r, h *lovage.Handle[AddArgs, int]
			if remoteFirst {
				r = lovage.Remote[AddArgs, int](app, "t.add")
			}
			h = lovage.Func(app, "t.add", add, lovage.MaxRetries(7))
			if !remoteFirst {
				r = lovage.Remote[AddArgs, int](app, "t.add")
			}
			if r.Definition() != h.Definition() {
				t.Error("the handles have different definitions")
			}
			equal(t, "MaxRetries by the remote handle", r.Definition().Settings().MaxRetries, 7)
			if v, err := r.Call(t.Context(), AddArgs{X: 1, Y: 2}); v != 3 || err != nil {
				t.Errorf("Call: %d, %v", v, err)
			}
		}
	})
	t.Run("OtherTypesPanicInBothOrders", func(t *testing.T) {
		app := newWorld(t, lovage.Config{}).app
		lovage.Func(app, "t.a", add)
		lovage.Remote[AddArgs, int](app, "t.b")
		text := panics(t, func() { lovage.Remote[AddArgs, string](app, "t.a") })
		contains(t, text, `task "t.a" is declared with lovage_test.AddArgs -> int and with lovage_test.AddArgs -> string`)
		contains(t, panics(t, func() { lovage.Func(app, "t.b", func(context.Context, int) (int, error) { return 0, nil }) }), `task "t.b"`)
	})
	t.Run("HasNoCodeHere", func(t *testing.T) {
		app := newWorld(t, lovage.Config{}).app
		r := lovage.Remote[AddArgs, int](app, "py.add")
		_, apply := r.Apply(t.Context(), AddArgs{})
		_, call := r.Call(t.Context(), AddArgs{})
		for _, err := range []error{apply, call} {
			if !errors.Is(err, lovage.ErrNotRegistered) {
				t.Errorf("got %v", err)
			}
		}
		if _, ok := app.Lookup("py.add"); ok || len(app.Tasks()) != 0 {
			t.Error("a worker would run it")
		}
		if h := must[*lovage.AnyHandle](t)(app.Task("py.add")); h.Instance() != nil {
			t.Errorf("its instance is %v", h.Instance())
		}
	})
	t.Run("BoundLater", func(t *testing.T) {
		type client struct {
			Add  *lovage.Handle[AddArgs, int]
			Mul  *lovage.Handle[AddArgs, int]
			None *lovage.Handle[AddArgs, int]
		}
		c := client{Add: lovage.Remote[AddArgs, int](nil, "py.add"), Mul: lovage.Remote[AddArgs, int](nil, "py.mul")}
		single := lovage.Remote[AddArgs, int](nil, "py.one")
		if _, err := c.Add.Delay(t.Context(), AddArgs{}); err == nil || !strings.Contains(err.Error(), `task "py.add" is bound to no app: call app.Bind`) {
			t.Errorf("unbound: %v", err)
		}
		w := newWorld(t, lovage.Config{})
		w.app.Bind(&c, single)
		for _, h := range []*lovage.Handle[AddArgs, int]{c.Add, c.Mul, single} {
			must[*lovage.Result[int]](t)(h.Delay(w.ctx(), AddArgs{X: 1}))
		}
		equal(t, "messages", w.waiting("celery"), 3)
		contains(t, panics(t, func() { w.app.Bind(3) }), "Bind takes handles or structs of handles, not int")
	})
}

func TestBasesOfFunctions(t *testing.T) {
	t.Parallel()
	count := func(ctx context.Context, by int) (int, error) { return lovage.Self[*counter](ctx).Add(by), nil }
	newBase := func() lovage.Base { return &counter{} }
	check := func(t *testing.T, app *lovage.App, h *lovage.Handle[int, int]) {
		t.Helper()
		for _, want := range []int{2, 4} {
			if n, err := must[*lovage.Result[int]](t)(h.Apply(t.Context(), 2)).Get(t.Context()); n != want || err != nil {
				t.Errorf("got %d, %v, want %d", n, err, want)
			}
		}
		base, ok := must[*lovage.AnyHandle](t)(app.Task(h.Name())).Instance().(*counter)
		if !ok || base.Add(0) != 4 || base.Name() != h.Name() || base.App() != app {
			t.Errorf("the registry has %v", base)
		}
	}
	t.Run("WithBase", func(t *testing.T) {
		app := newWorld(t, lovage.Config{}).app
		check(t, app, lovage.Func(app, "t.count", count, lovage.WithBase(newBase)))
	})
	t.Run("WithDefaultTaskOneForEachTask", func(t *testing.T) {
		app := newWorld(t, lovage.Config{}, lovage.WithDefaultTask(newBase)).app
		h, other := lovage.Func(app, "t.count", count), lovage.Func(app, "t.other", count)
		check(t, app, h)
		check(t, app, other)
	})
	t.Run("TaskClsByConfig", func(t *testing.T) {
		app := newWorld(t, lovage.Config{TaskCls: "proj.Counter"}).app
		app.RegisterBase("proj.Counter", newBase)
		check(t, app, lovage.Func(app, "t.count", count))
	})
	t.Run("TaskClsByEnvironment", func(t *testing.T) {
		app := newWorld(t, lovage.Config{}).app
		h := lovage.Func(app, "t.count", count)
		app.RegisterBase("proj.Counter", newBase)
		err := app.Configure(func(c *lovage.Config) ([]lovage.Warning, error) {
			return c.LoadEnv([]string{"LOVAGE_TASK_CLS=proj.Counter"})
		})
		if err != nil {
			t.Fatal(err)
		}
		check(t, app, h)
	})
	t.Run("AnUnknownTaskClsSaysWhatThereIs", func(t *testing.T) {
		app := newWorld(t, lovage.Config{TaskCls: "proj.Counter"}).app
		app.RegisterBase("proj.Other", newBase)
		err := app.Freeze()
		if err == nil {
			t.Fatal("no error")
		}
		contains(t, err.Error(), `task_cls "proj.Counter"`, "RegisterBase", "proj.Other")
	})
	t.Run("AClassOfItsOwnWinsOverTheDefault", func(t *testing.T) {
		app := newWorld(t, lovage.Config{}, lovage.WithDefaultTask(func() lovage.Base { return &recorded{} })).app
		c := lovage.Register(app, "t.own", &counter{})
		if must[*lovage.AnyHandle](t)(app.Task("t.own")).Instance() != lovage.Base(c.Self) {
			t.Error("the default class replaced it")
		}
	})
	t.Run("Bound", func(t *testing.T) {
		app := newWorld(t, lovage.Config{}).app
		c := lovage.Bound(app, "t.count", &counter{}, func(_ context.Context, self *counter, by int) (int, error) { return self.Add(by), nil })
		check(t, app, c.Handle)
		equal(t, "Self", c.Self.Add(0), 4)
	})
	t.Run("ASharedBaseIsRefused", func(t *testing.T) {
		one := &counter{}
		app := newWorld(t, lovage.Config{}).app
		for _, name := range []string{"t.a", "t.b"} {
			lovage.Func(app, name, count, lovage.WithBase(func() lovage.Base { return one }))
		}
		if err := app.Freeze(); err == nil || !strings.Contains(err.Error(), `task "t.b": a base class is a new instance for each task; this one belongs to "t.a"`) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("SelfOfAnotherTypeSaysBoth", func(t *testing.T) {
		app := newWorld(t, lovage.Config{}).app
		h := lovage.Func(app, "t.count", count)
		_, err := must[*lovage.Result[int]](t)(h.Apply(t.Context(), 1)).Get(t.Context())
		if err == nil {
			t.Fatal("no error")
		}
		contains(t, err.Error(), `task "t.count": Self wants a *lovage_test.counter, but the task's instance is a *lovage.plain`)
		contains(t, panics(t, func() { lovage.Self[*counter](t.Context()) }), "outside a task's run")
	})
}

// TestOneInstanceServes64Runs is checklist A02 under -race.
func TestOneInstanceServes64Runs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lovage.Config{})
	c := lovage.Register(w.app, "t.count", &counter{})
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			if _, err := must[*lovage.Result[int]](t)(c.Apply(w.ctx(), 1)).Get(w.ctx()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	equal(t, "count", c.Self.Add(0), 64)
}

func TestProcs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lovage.Config{})
	f := lovage.Proc(w.app, "t.proc", func(_ context.Context, fail bool) error {
		if fail {
			return errNegative
		}
		return nil
	})
	c := lovage.RegisterProc(w.app, "t.class", &procClass{})
	for _, h := range []*lovage.Handle[bool, lovage.None]{f, c.Handle} {
		res := must[*lovage.Result[lovage.None]](t)(h.Delay(w.ctx(), false))
		w.run()
		if _, err := res.Get(w.ctx()); err != nil {
			t.Error(err)
		}
		if m := must[*lovage.Meta](t)(res.Meta(w.ctx())); string(m.Result) != "null" {
			t.Errorf("stored %s", m.Result)
		}
		contains(t, strings.Join(w.log.take(), "\n"), ": None")
		res = must[*lovage.Result[lovage.None]](t)(h.Delay(w.ctx(), true))
		w.run()
		if _, err := res.Get(w.ctx()); err == nil {
			t.Error("no error")
		}
	}
}

type procClass struct{ lovage.Task }

func (*procClass) Run(_ context.Context, fail bool) error {
	if fail {
		return errNegative
	}
	return nil
}
