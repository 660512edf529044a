package lovage_test

import (
	"context"
	"errors"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lovage-go/lovage"
)

// thing is a resource that records its closing.
type thing struct {
	n      int
	closed *diary
}

func (r *thing) Close() error { r.closed.write("close %d", r.n); return nil }

func TestLazy(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	t.Run("OpensOnceUnder64Gets", func(t *testing.T) {
		t.Parallel()
		var l lovage.Lazy[*thing]
		var opened atomic.Int32
		gate := make(chan struct{})
		var wg sync.WaitGroup
		seen := make([]*thing, 64)
		for i := range seen {
			wg.Go(func() {
				v, err := l.Get(ctx, func(context.Context) (*thing, error) {
					opened.Add(1)
					<-gate
					return &thing{closed: &diary{}}, nil
				})
				if err != nil {
					t.Error(err)
				}
				seen[i] = v
			})
		}
		close(gate)
		wg.Wait()
		equal(t, "openings", opened.Load(), 1)
		for _, v := range seen {
			if v == nil || v != seen[0] {
				t.Fatalf("callers got %p and %p", v, seen[0])
			}
		}
		equal(t, "Opened", l.Opened(), true)
	})
	t.Run("FailureGoesToAllAndTheNextGetTriesAgainAfterABackoff", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var l lovage.Lazy[int]
			boom := errors.New("boom")
			calls := 0
			open := func(context.Context) (int, error) {
				if calls++; calls <= 2 {
					time.Sleep(time.Second)
					return 0, boom
				}
				return 7, nil
			}
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					if _, err := l.Get(ctx, open); !errors.Is(err, boom) {
						t.Errorf("got %v, want boom", err)
					}
				})
			}
			wg.Wait()
			equal(t, "calls", calls, 1)
			var waits []time.Duration
			for range 2 {
				begin := time.Now()
				v, err := l.Get(ctx, open)
				waits = append(waits, time.Since(begin))
				if (err == nil) != (v == 7) {
					t.Errorf("got %d, %v", v, err)
				}
			}
			if waits[0] != time.Second+50*time.Millisecond || waits[1] != 100*time.Millisecond {
				t.Errorf("waits are %v, want 1.05s and 100ms", waits)
			}
		})
	})
	t.Run("AWaiterLeavesAtItsDeadlineAndTheOpeningGoesOn", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var l lovage.Lazy[int]
			open := func(context.Context) (int, error) { time.Sleep(10 * time.Second); return 7, nil }
			short, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			begin := time.Now()
			if _, err := l.Get(short, open); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
				t.Errorf("got %v after %v", err, time.Since(begin))
			}
			v, err := l.Get(ctx, func(context.Context) (int, error) { t.Error("opened twice"); return 0, nil })
			if v != 7 || err != nil || time.Since(begin) != 10*time.Second {
				t.Errorf("got %d, %v after %v", v, err, time.Since(begin))
			}
		})
	})
	t.Run("TheOpenerHasTheCallersValuesButNotItsCancellation", func(t *testing.T) {
		t.Parallel()
		type key struct{}
		var l lovage.Lazy[any]
		ctx, cancel := context.WithCancel(context.WithValue(ctx, key{}, "v"))
		asked := make(chan struct{})
		result := make(chan error, 1)
		var seen any
		go func() {
			_, _ = l.Get(ctx, func(octx context.Context) (any, error) {
				seen = octx.Value(key{})
				close(asked)
				<-ctx.Done()
				result <- octx.Err()
				return 1, nil
			})
		}()
		<-asked
		cancel()
		if err := <-result; err != nil {
			t.Errorf("the opener's context ended with the caller's: %v", err)
		}
		equal(t, "value", seen, any("v"))
		if v, err := l.Get(context.Background(), nil); v != 1 || err != nil {
			t.Errorf("got %v, %v", v, err)
		}
	})
	t.Run("AnOpenerHasATimeout", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			for limit, l := range map[time.Duration]*lovage.Lazy[int]{
				30 * time.Second: {}, time.Second: {Timeout: time.Second},
			} {
				begin := time.Now()
				_, err := l.Get(ctx, func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() })
				if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != limit {
					t.Errorf("got %v after %v, want the deadline after %v", err, time.Since(begin), limit)
				}
			}
		})
	})
	t.Run("APanicOrAGoexitIsAnError", func(t *testing.T) {
		t.Parallel()
		var l lovage.Lazy[int]
		_, err := l.Get(ctx, func(context.Context) (int, error) { panic("ouch") })
		if p, ok := errors.AsType[*lovage.PanicError](err); !ok || p.Value != "ouch" || len(p.Stack) == 0 {
			t.Errorf("got %v, want the panic", err)
		}
		if _, err = l.Get(ctx, func(context.Context) (int, error) { runtime.Goexit(); return 0, nil }); err == nil {
			t.Error("no error after Goexit")
		}
		if v, err := l.Get(ctx, func(context.Context) (int, error) { return 3, nil }); v != 3 || err != nil {
			t.Errorf("got %d, %v afterwards", v, err)
		}
	})
	t.Run("ResetDropsAndCloseEnds", func(t *testing.T) {
		t.Parallel()
		var l lovage.Lazy[*thing]
		d := &diary{}
		n := 0
		open := func(context.Context) (*thing, error) { n++; return &thing{n, d}, nil }
		must[*thing](t)(l.Get(ctx, open))
		if err := l.Reset(ctx); err != nil || l.Opened() {
			t.Errorf("after Reset: %v, open %v", err, l.Opened())
		}
		equal(t, "opening after Reset", must[*thing](t)(l.Get(ctx, open)).n, 2)
		for range 2 {
			if err := l.Close(ctx); err != nil {
				t.Error(err)
			}
		}
		if _, err := l.Get(ctx, open); !errors.Is(err, lovage.ErrLazyClosed) {
			t.Errorf("Get after Close: %v", err)
		}
		equalLines(t, d.read(), []string{"close 1", "close 2"})
	})
	t.Run("ClosedWhileOpening", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var l lovage.Lazy[*thing]
			d := &diary{}
			var wg sync.WaitGroup
			wg.Go(func() {
				_, err := l.Get(ctx, func(ctx context.Context) (*thing, error) {
					<-ctx.Done() // Close cancels it; this opener opens all the same
					d.write("%v", errors.Is(context.Cause(ctx), lovage.ErrLazyClosed))
					return &thing{1, d}, nil
				})
				if !errors.Is(err, lovage.ErrLazyClosed) {
					t.Errorf("the waiter got %v", err)
				}
			})
			synctest.Wait()
			if err := l.Close(ctx); err != nil {
				t.Error(err)
			}
			equalLines(t, d.read(), []string{"true", "close 1"})
			wg.Wait()
		})
	})
	t.Run("CloseEndsTheBackoff", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var l lovage.Lazy[int]
			fail := func(context.Context) (int, error) { return 0, errors.New("no") }
			for range 8 {
				_, _ = l.Get(ctx, fail)
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				if _, err := l.Get(ctx, fail); !errors.Is(err, lovage.ErrLazyClosed) {
					t.Errorf("got %v", err)
				}
			})
			synctest.Wait()
			begin := time.Now()
			_ = l.Close(ctx)
			wg.Wait()
			equal(t, "wait", time.Since(begin), 0)
		})
	})
	t.Run("CloseLeavesAnOpenerThatDoesNotObey", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var l lovage.Lazy[*thing]
			d := &diary{}
			go func() {
				_, _ = l.Get(ctx, func(context.Context) (*thing, error) { time.Sleep(time.Minute); return &thing{1, d}, nil })
			}()
			synctest.Wait()
			short, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			if err := l.Close(short); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Close: %v", err)
			}
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			equalLines(t, d.read(), []string{"close 1"}) // late, but closed
		})
	})
	t.Run("OnCloseReplacesClose", func(t *testing.T) {
		t.Parallel()
		var l lovage.Lazy[*thing]
		d := &diary{}
		boom := errors.New("boom")
		l.OnClose(func(_ context.Context, v *thing) error { d.write("own %d", v.n); return boom })
		must[*thing](t)(l.Get(ctx, func(context.Context) (*thing, error) { return &thing{4, d}, nil }))
		if err := l.Close(ctx); !errors.Is(err, boom) {
			t.Errorf("Close: %v", err)
		}
		equalLines(t, d.read(), []string{"own 4"})
	})
	t.Run("ACopyPanics", func(t *testing.T) {
		t.Parallel()
		var l, c lovage.Lazy[int]
		must[int](t)(l.Get(ctx, func(context.Context) (int, error) { return 1, nil }))
		reflect.ValueOf(&c).Elem().Set(reflect.ValueOf(&l).Elem()) // as c = l, past go vet
		contains(t, panics(t, func() { _, _ = c.Get(ctx, nil) }), "copied after first use")
	})
}

type lazyBase struct {
	lovage.Task
	d  *diary
	db lovage.Lazy[*thing]
}

func (b *lazyBase) open(ctx context.Context, l *lovage.Lazy[*thing], n int) error {
	_, err := l.Get(ctx, func(context.Context) (*thing, error) { return &thing{n, b.d}, nil })
	return err
}

type lazyMixin struct{ Cache lovage.Lazy[*thing] }

type lazyClass struct {
	lazyBase
	*lazyMixin
	model, unused lovage.Lazy[*thing]
}

func (c *lazyClass) Close(context.Context) error { c.d.write("close class"); return nil }
func (c *lazyClass) Run(ctx context.Context, _ struct{}) (int, error) {
	return 0, errors.Join(c.open(ctx, &c.model, 1), c.open(ctx, &c.db, 2), c.open(ctx, &c.Cache, 3), c.model.Reset(ctx), c.open(ctx, &c.model, 4))
}

func TestLazyFieldsCloseWithTheirTask(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lovage.Config{})
	d := &diary{}
	c := lovage.Register(w.app, "t.lazy", &lazyClass{lazyBase: lazyBase{d: d}, lazyMixin: &lazyMixin{}})
	if _, err := c.Call(w.ctx(), struct{}{}); err != nil {
		t.Fatal(err)
	}
	if err := w.app.Close(w.ctx()); err != nil {
		t.Fatal(err)
	}
	equalLines(t, d.read(), []string{"close 1", "close class", "close 4", "close 3", "close 2"})
	if err := c.Self.open(w.ctx(), &c.Self.unused, 5); !errors.Is(err, lovage.ErrLazyClosed) {
		t.Errorf("a Lazy that was never opened still opens after Close: %v", err)
	}
}

type sharing struct {
	lovage.Task
	*lazyMixin
	d *diary
}

func (c *sharing) Run(ctx context.Context, n int) (int, error) {
	_, err := c.Cache.Get(ctx, func(context.Context) (*thing, error) { return &thing{n, c.d}, nil })
	return n, err
}

func (c *sharing) Close(context.Context) error {
	c.d.write("close %s, open %t", c.Name(), c.Cache.Opened())
	return nil
}

func TestALazySharedByTasksClosesWithTheLast(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lovage.Config{})
	d, mixin := &diary{}, &lazyMixin{}
	lovage.Register(w.app, "t.a", &sharing{lazyMixin: mixin, d: d})
	b := lovage.Register(w.app, "t.b", &sharing{lazyMixin: mixin, d: d})
	lovage.Register(w.app, "t.c", &sharing{lazyMixin: mixin, d: d})
	if _, err := b.Call(w.ctx(), 7); err != nil {
		t.Fatal(err)
	}
	if err := w.app.Close(w.ctx()); err != nil {
		t.Fatal(err)
	}
	equalLines(t, d.read(), []string{"close t.b, open true", "close t.a, open true", "close 7"})
}
