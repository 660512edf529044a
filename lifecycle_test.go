package lovage_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/lovage-go/lovage"
)

// Four levels: a base with a value receiver, a generic one behind a pointer, a
// mixin without Task, the class.
type (
	lifeRoot struct {
		lovage.Task
		d *diary
	}
	lifeGeneric[T any] struct {
		lifeRoot
		made T
	}
	lifeMixin struct{ D *diary }
	lifeValue struct{ v *diary }
	lifeClass struct {
		*lifeGeneric[int]
		lifeMixin
		lifeValue
		fail  error
		panic bool
	}
	lifeEmpty struct{ lifeClass }
)

func (b *lifeRoot) Init(context.Context) error  { b.d.write("init root"); return nil }
func (b *lifeRoot) Close(context.Context) error { b.d.write("close root"); return nil }
func (b *lifeGeneric[T]) Init(context.Context) error {
	b.d.write("init generic %T", b.made)
	return nil
}
func (b *lifeGeneric[T]) Close() error           { b.d.write("close generic"); return nil }
func (m *lifeMixin) Init(context.Context) error  { m.D.write("init mixin"); return nil }
func (m *lifeMixin) Close(context.Context) error { m.D.write("close mixin"); return nil }
func (m lifeValue) Init(context.Context) error   { m.v.write("init value"); return nil }
func (c *lifeClass) Init(ctx context.Context) error {
	c.v.write("init class")
	if c.panic {
		panic("no model")
	}
	if lovage.RequestFrom(ctx) != nil {
		return errors.New("Init has the request of a run")
	}
	return errors.Join(c.fail, ctx.Err())
}
func (c *lifeClass) Close(context.Context) error                { c.v.write("close class"); return nil }
func (c *lifeClass) Run(context.Context, struct{}) (int, error) { return 1, nil }

func newLife(d *diary) lifeClass {
	return lifeClass{lifeGeneric: &lifeGeneric[int]{lifeRoot: lifeRoot{d: d}}, lifeMixin: lifeMixin{d}, lifeValue: lifeValue{d}}
}

var (
	inits  = []string{"init root", "init generic int", "init mixin", "init value", "init class"}
	closes = []string{"close class", "close mixin", "close generic", "close root"}
)

func TestInitAndCloseChain(t *testing.T) {
	t.Parallel()
	t.Run("EachLevelOnceWithTheClassItself", func(t *testing.T) {
		t.Parallel()
		w, d := newWorld(t, lovage.Config{}), &diary{}
		c := newLife(d)
		h := lovage.Register(w.app, "t.life", &c)
		var wg sync.WaitGroup
		for range 32 {
			wg.Go(func() { must[*lovage.Result[int]](t)(h.Apply(w.ctx(), struct{}{})) })
		}
		wg.Wait()
		equalLines(t, d.take(), inits)
		if err := errors.Join(w.app.Close(w.ctx()), w.app.Close(w.ctx())); err != nil {
			t.Error(err)
		}
		equalLines(t, d.take(), closes)
	})
	t.Run("PromotedThroughAClassWithoutHooks", func(t *testing.T) {
		t.Parallel()
		w, d := newWorld(t, lovage.Config{}), &diary{}
		lovage.Register(w.app, "t.life", &lifeEmpty{newLife(d)})
		if err := errors.Join(w.app.Init(w.ctx()), w.app.Init(w.ctx()), w.app.Close(w.ctx())); err != nil {
			t.Error(err)
		}
		equalLines(t, d.take(), append(append([]string{}, inits...), closes...))
	})
	t.Run("NeverInAClient", func(t *testing.T) {
		t.Parallel()
		w, d := newWorld(t, lovage.Config{}), &diary{}
		c := newLife(d)
		h := lovage.Register(w.app, "t.life", &c)
		must[*lovage.Result[int]](t)(h.Delay(w.ctx(), struct{}{}))
		if err := w.app.Close(w.ctx()); err != nil {
			t.Error(err)
		}
		equalLines(t, d.take(), nil)
	})
	t.Run("TheFirstRunsCancellationDoesNotReachInit", func(t *testing.T) {
		t.Parallel()
		w, d := newWorld(t, lovage.Config{}), &diary{}
		c := newLife(d)
		h := lovage.Register(w.app, "t.life", &c)
		must[*lovage.Result[int]](t)(h.Delay(w.ctx(), struct{}{}))
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(lovage.ErrSoftTimeLimit)
		equal(t, "state", w.runIn(ctx).State, lovage.Success)
	})
	for name, set := range map[string]func(*lifeClass){
		"AnErrorNamesTaskAndLevel": func(c *lifeClass) { c.fail = errors.New("no model") },
		"APanicNamesTaskAndLevel":  func(c *lifeClass) { c.panic = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, d := newWorld(t, lovage.Config{}), &diary{}
			c := newLife(d)
			set(&c)
			h := lovage.Register(w.app, "t.life", &c)
			err := w.app.Init(w.ctx())
			if err == nil {
				t.Fatal("no error")
			}
			contains(t, err.Error(), `task "t.life": Init of lovage_test.lifeClass: `, "no model")
			if _, again := h.Apply(w.ctx(), struct{}{}); again == nil || again.Error() != err.Error() {
				t.Errorf("Apply: %v, want the same error", again)
			}
			if err := w.app.Close(w.ctx()); err != nil {
				t.Error(err)
			}
			// The class never came to be; its bases did.
			equalLines(t, d.take(), append(append([]string{}, inits...), closes[1:]...))
		})
	}
	t.Run("AnErrorOfCloseNamesTheTaskAndEndsNothing", func(t *testing.T) {
		t.Parallel()
		w, d := newWorld(t, lovage.Config{}), &diary{}
		lovage.Register(w.app, "t.bad", &closeFails{lifeRoot{d: d}})
		err := errors.Join(w.app.Init(w.ctx()), w.app.Close(w.ctx()))
		if err == nil {
			t.Fatal("no error")
		}
		contains(t, err.Error(), `task "t.bad": Close of lovage_test.closeFails: panic: torn`)
		equalLines(t, d.take(), []string{"init root", "close root"})
	})
}

type closeFails struct{ lifeRoot }

func (*closeFails) Close(context.Context) error                { panic("torn") }
func (*closeFails) Run(context.Context, struct{}) (int, error) { return 0, nil }

func TestAppAfterClose(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lovage.Config{})
	h := lovage.Func(w.app, "t.add", add)
	if err := w.app.Close(w.ctx()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Delay(w.ctx(), AddArgs{}); !errors.Is(err, lovage.ErrClosed) {
		t.Errorf("Delay: %v", err)
	}
	if _, err := w.app.Result("x").Get(w.ctx()); !errors.Is(err, lovage.ErrClosed) {
		t.Errorf("Get: %v", err)
	}
}
