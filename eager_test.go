package lovage_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lovage-go/lovage"
)

func TestApply(t *testing.T) {
	t.Parallel()
	t.Run("RunsEverythingHereAndSendsNothing", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lovage.Config{})
		c := lovage.Register(w.app, "t.rec", &recorded{recorder{d: &diary{}}})
		res := must[*lovage.Result[int]](t)(c.Apply(w.ctx(), AddArgs{X: 1, Y: 2}, lovage.TaskID("id"), lovage.Countdown(time.Hour)))
		if n, err := res.Get(w.ctx()); n != 3 || err != nil || res.ID() != "id" {
			t.Errorf("got %d, %v", n, err)
		}
		equal(t, "state", must[lovage.State](t)(res.State(w.ctx())), lovage.Success)
		equalLines(t, c.Self.d.take(), []string{"BeforeStart id [1] {\"y\":2} 0 []", "Around id [1] {\"y\":2} 0 []", "Run", "Around ends 3 <nil>",
			"OnSuccess id [1] {\"y\":2} 0 [3]", "AfterReturn id [1] {\"y\":2} 0 [SUCCESS 3 false]"})
		equal(t, "messages", w.waiting("celery"), 0)
		equal(t, "stored", w.state("id"), lovage.Pending)
	})
	t.Run("AnErrorComesOutOfGet", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lovage.Config{})
		c := lovage.Register(w.app, "t.rec", &recorded{recorder{d: &diary{}}})
		res := must[*lovage.Result[int]](t)(c.Apply(w.ctx(), AddArgs{X: -1}))
		_, err := res.Get(w.ctx())
		if te, ok := errors.AsType[*lovage.TaskError](err); !ok || te.Message() != "negative" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("RetriesRunAtOnce", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, lovage.Config{})
			var retries []int
			h := body(w, func(ctx context.Context) (any, error) {
				r := lovage.RequestFrom(ctx)
				if !r.IsEager {
					t.Error("IsEager is off")
				}
				if retries = append(retries, r.Retries); r.Retries < 2 {
					return nil, lovage.Retry(errNegative, lovage.Countdown(time.Hour))
				}
				return "ok", nil
			})
			begin := time.Now()
			v, err := must[*lovage.Result[any]](t)(h.Apply(w.ctx(), struct{}{})).Get(w.ctx())
			if v != "ok" || err != nil || len(retries) != 3 || time.Since(begin) != 0 {
				t.Errorf("got %v, %v, retries %v", v, err, retries)
			}
		})
	})
	t.Run("EndlessRetriesEndWithTheContext", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lovage.Config{})
		ctx, cancel := context.WithCancel(context.Background())
		n := 0
		h := body(w, func(context.Context) (any, error) {
			if n++; n == 50 {
				cancel()
			}
			return nil, lovage.Retry(errNegative)
		}, lovage.MaxRetries(lovage.NoLimit))
		if _, err := h.Apply(ctx, struct{}{}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v after %d runs", err, n)
		}
	})
	t.Run("CallIsTheBareFunction", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lovage.Config{})
		c := lovage.Register(w.app, "t.rec", &recorded{recorder{d: &diary{}}})
		watch(w.app, w.log)
		if n, err := c.Call(w.ctx(), AddArgs{X: 1, Y: 2}); n != 3 || err != nil {
			t.Errorf("got %d, %v", n, err)
		}
		_, err := c.Call(w.ctx(), AddArgs{X: -1})
		if err != errNegative {
			t.Errorf("got %v, want the error itself", err)
		}
		// checklist A39: the current error, and nothing published
		_, err = c.Call(w.ctx(), AddArgs{X: -2})
		if !errors.Is(err, errNegative) {
			t.Errorf("a retry: %v", err)
		}
		equalLines(t, c.Self.d.take(), []string{"Run", "Run", "Run"})
		equalLines(t, w.log.take(), nil)
		equal(t, "messages", w.waiting("celery"), 0)
	})
	t.Run("FollowUpsAreSent", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lovage.Config{})
		h := lovage.Func(w.app, "t.add", add)
		res := must[*lovage.Result[int]](t)(h.Apply(w.ctx(), AddArgs{X: 1, Y: 2}, lovage.Link(h.After(AddArgs{Y: 10}))))
		equal(t, "args", string(w.next().Args), "[3]")
		equal(t, "children", len(must[[]string](t)(res.Children(w.ctx()))), 1)
	})
	t.Run("Version1", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lovage.Config{TaskProtocol: 1, TaskCompression: "zlib"})
		tries := 0
		h := lovage.Func(w.app, "t.add", func(_ context.Context, in AddArgs) (int, error) {
			if tries++; tries < 3 {
				return 0, lovage.Retry(errNegative)
			}
			return in.X, nil
		})
		if n, err := must[*lovage.Result[int]](t)(h.Apply(w.ctx(), AddArgs{X: 8})).Get(w.ctx()); n != 8 || err != nil {
			t.Errorf("got %d, %v", n, err)
		}
	})
}

func TestAlwaysEager(t *testing.T) {
	t.Parallel()
	type task = *lovage.Handle[AddArgs, int]
	setup := func(t *testing.T, cfg lovage.Config) (*world, task) {
		cfg.TaskAlwaysEager = new(true)
		w := newWorld(t, cfg)
		return w, lovage.Func(w.app, "t.add", func(_ context.Context, in AddArgs) (int, error) {
			if in.X < 0 {
				return 0, errNegative
			}
			return in.X + in.Y, nil
		})
	}
	t.Run("DelayRunsHere", func(t *testing.T) {
		t.Parallel()
		w, h := setup(t, lovage.Config{})
		res := must[*lovage.Result[int]](t)(h.Delay(w.ctx(), AddArgs{X: 2, Y: 3}, lovage.Link(h.After(AddArgs{Y: 1}))))
		if n, err := res.Get(w.ctx()); n != 5 || err != nil {
			t.Errorf("got %d, %v", n, err)
		}
		equal(t, "messages", w.waiting("celery"), 0)
		equal(t, "stored", w.state(res.ID()), lovage.Pending)
	})
	t.Run("SendAndRemoteTasksDoNot", func(t *testing.T) {
		t.Parallel()
		w, _ := setup(t, lovage.Config{})
		r := lovage.Remote[AddArgs, int](w.app, "py.add")
		must[*lovage.Result[int]](t)(r.Delay(w.ctx(), AddArgs{}))
		must[*lovage.Result[any]](t)(w.app.Send(w.ctx(), "t.add", lovage.Args{Positional: []any{1}}))
		equal(t, "messages", w.waiting("celery"), 2)
	})
	t.Run("EagerPropagates", func(t *testing.T) {
		t.Parallel()
		w, h := setup(t, lovage.Config{TaskEagerPropagates: new(true)})
		if _, err := h.Delay(w.ctx(), AddArgs{X: -1}); !errors.Is(err, errNegative) {
			t.Errorf("got %v", err)
		}
		must[*lovage.Result[int]](t)(h.Delay(w.ctx(), AddArgs{X: 1}))
	})
	t.Run("StoreEagerResult", func(t *testing.T) {
		t.Parallel()
		w, h := setup(t, lovage.Config{TaskStoreEagerResult: new(true)})
		must[*lovage.Result[int]](t)(h.Delay(w.ctx(), AddArgs{X: 2}, lovage.TaskID("ok"), lovage.Link(h.After().With(lovage.TaskID("linked")))))
		must[*lovage.Result[int]](t)(h.Delay(w.ctx(), AddArgs{X: -2}, lovage.TaskID("bad")))
		for id, want := range map[string]lovage.State{"ok": "SUCCESS", "linked": "SUCCESS", "bad": "FAILURE"} {
			equal(t, "stored "+id, w.state(id), want)
		}
	})
	t.Run("GetIsAllowedInAnEagerRun", func(t *testing.T) {
		t.Parallel()
		w, h := setup(t, lovage.Config{})
		outer := body(w, func(ctx context.Context) (any, error) {
			res, err := h.Delay(ctx, AddArgs{X: 1, Y: 1})
			if err != nil {
				return nil, err
			}
			return res.Get(ctx)
		})
		if v, err := must[*lovage.Result[any]](t)(outer.Delay(w.ctx(), struct{}{})).Get(w.ctx()); err != nil || v.(lovage.Number).String() != "2" {
			t.Errorf("got %v, %v", v, err)
		}
	})
}
