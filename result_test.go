package lovage_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lovage-go/lovage"
)

func TestResult(t *testing.T) {
	t.Parallel()
	t.Run("PendingUntilItEnds", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lovage.Config{})
		h := lovage.Func(w.app, "t.add", add)
		res := must[*lovage.Result[int]](t)(h.Delay(w.ctx(), AddArgs{X: 2, Y: 3}))
		equal(t, "state", must[lovage.State](t)(res.State(w.ctx())), lovage.Pending)
		equal(t, "ready", must[bool](t)(res.Ready(w.ctx())), false)
		w.run()
		equal(t, "ready", must[bool](t)(res.Ready(w.ctx())), true)
		for _, r := range []*lovage.Result[int]{res, lovage.ResultOf[int](w.app, res.ID())} {
			if n, err := r.Get(w.ctx()); n != 5 || err != nil {
				t.Errorf("got %d, %v", n, err)
			}
		}
		if v, err := w.app.Result(res.ID()).Get(w.ctx()); err != nil || v.(lovage.Number).String() != "5" {
			t.Errorf("untyped: %v, %v", v, err)
		}
		if _, err := lovage.ResultOf[[]string](w.app, res.ID()).Get(w.ctx()); err == nil || !strings.Contains(err.Error(), "decode the result of task "+res.ID()) {
			t.Errorf("wrong type: %v", err)
		}
		var n int
		if s, err := res.Info(w.ctx(), &n); s != lovage.Success || n != 5 || err != nil {
			t.Errorf("Info: %s %d %v", s, n, err)
		}
		if err := res.Forget(w.ctx()); err != nil {
			t.Error(err)
		}
		equal(t, "state after Forget", w.state(res.ID()), lovage.Pending)
	})
	t.Run("GetWaitsAsLongAsItsContext", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, lovage.Config{})
			res := lovage.ResultOf[int](w.app, "never")
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			defer cancel()
			begin := time.Now()
			_, err := res.Get(ctx)
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 3*time.Second || !strings.Contains(err.Error(), "task never") {
				t.Errorf("got %v after %v", err, time.Since(begin))
			}
		})
	})
	t.Run("KeptForResultExpires", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, lovage.Config{ResultExpires: time.Minute})
			h := lovage.Func(w.app, "t.add", add)
			res := must[*lovage.Result[int]](t)(h.Delay(w.ctx(), AddArgs{X: 2}))
			w.run()
			<-time.After(59 * time.Second)
			equal(t, "before", w.state(res.ID()), lovage.Success)
			<-time.After(2 * time.Second)
			equal(t, "after", w.state(res.ID()), lovage.Pending)
			_ = w.cons.Close()
		})
	})
	t.Run("NoBackendIsSaid", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, lovage.Config{ResultBackend: "disabled"}, lovage.WithBackend(nil))
			h := lovage.Func(w.app, "t.add", add, lovage.TrackStarted(true))
			res := must[*lovage.Result[int]](t)(h.Delay(w.ctx(), AddArgs{}))
			d := w.claim()
			begin := time.Now()
			out := w.app.Execute(w.ctx(), w.receive(d), w.finisher(d))
			equal(t, "state", out.State, lovage.Success)
			for range 9 {
				if _, err := res.Get(w.ctx()); !errors.Is(err, lovage.ErrNoBackend) {
					t.Fatalf("got %v", err)
				}
			}
			if since := time.Since(begin); since > 0 {
				t.Errorf("a missing setting was retried for %v", since)
			}
			equal(t, "log", strings.Contains(strings.Join(w.log.read(), "\n"), "STARTED"), false)
			_ = w.cons.Close()
		})
	})
	t.Run("ResultsYieldsEach", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lovage.Config{})
		h := lovage.Func(w.app, "t.add", add)
		var ids []string
		for i := range 3 {
			ids = append(ids, must[*lovage.Result[int]](t)(h.Delay(w.ctx(), AddArgs{X: i})).ID())
			w.run()
		}
		sum := 0
		err := w.app.Results(w.ctx(), ids, func(m *lovage.Meta) error {
			n, err := lovage.DecodeResult[int](m)
			sum += n
			return err
		})
		if sum != 3 || err != nil {
			t.Errorf("got %d, %v", sum, err)
		}
		stop := errors.New("stop")
		if err := w.app.Results(w.ctx(), ids, func(*lovage.Meta) error { return stop }); !errors.Is(err, stop) {
			t.Errorf("got %v", err)
		}
	})
}

func TestUpdateStateAndWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lovage.Config{})
	type progress struct{ Done, Of int }
	step, seen := make(chan struct{}), make(chan progress)
	h := body(w, func(ctx context.Context) (any, error) {
		r := lovage.RequestFrom(ctx)
		for i := range 3 {
			if err := r.UpdateState(ctx, "PROGRESS", progress{i + 1, 3}); err != nil {
				return nil, err
			}
			<-step
		}
		return "done", nil
	})
	res := must[*lovage.Result[any]](t)(h.Delay(w.ctx(), struct{}{}))
	d := w.claim()
	done := make(chan lovage.Outcome)
	go func() { done <- w.app.Execute(context.Background(), w.receive(d), w.finisher(d)) }()
	go func() {
		last := 0
		_, err := res.Wait(w.ctx(), func(m *lovage.Meta) bool {
			p, _ := lovage.DecodeResult[progress](m)
			if m.Status == "PROGRESS" && p.Done > last {
				last = p.Done
				seen <- p
			}
			return last == 3
		})
		if err != nil {
			t.Error(err)
		}
	}()
	for i := range 3 {
		equal(t, "progress", <-seen, progress{i + 1, 3})
		var p progress
		if s, err := res.Info(w.ctx(), &p); s != "PROGRESS" || p.Done != i+1 || err != nil {
			t.Errorf("Info: %s %+v %v", s, p, err)
		}
		step <- struct{}{}
	}
	equal(t, "state", (<-done).State, lovage.Success)
	// A SUCCESS is never overwritten.
	r := w.receive(d)
	if err := r.UpdateState(w.ctx(), "PROGRESS", nil); err != nil {
		t.Error(err)
	}
	equal(t, "state", w.state(res.ID()), lovage.Success)
}

// TestEvents: a custom event of a run is seen by another process.
func TestEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lovage.Config{TaskSendSentEvent: new(true)})
	other := lovage.New("other", lovage.Config{}, on(w.store)...)
	defer other.Close(context.Background())
	rc, err := other.Events(w.ctx())
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	silent := lovage.New("silent", lovage.Config{}, on(w.store)...) // task_send_sent_event is off
	defer silent.Close(context.Background())
	must[*lovage.Result[any]](t)(silent.Send(w.ctx(), "t.unheard", lovage.Args{}, lovage.Queue("q2")))
	h := body(w, func(ctx context.Context) (any, error) {
		return nil, lovage.RequestFrom(ctx).SendEvent(ctx, "task-progress", map[string]any{"done": 3})
	})
	must[*lovage.Result[any]](t)(h.Delay(w.ctx(), struct{}{}, lovage.TaskID("id"), lovage.Queue("q")))
	out := w.run("q")
	if out.State != lovage.Success {
		t.Fatal(out.Info.Err)
	}
	if err := w.app.SendEvent(w.ctx(), "shop-open", map[string]any{"n": 1}); err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for range 3 {
		e, err := rc.Next(w.ctx())
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, e.Type)
		switch e.Type {
		case "task-sent":
			if e.UUID != "id" || e.Text("queue") != "q" || e.Text("routing_key") != "q" || e.Text("name") != "t.body" || e.Fields["exchange"] == nil {
				t.Errorf("%+v", e)
			}
		case "task-progress":
			if e.UUID != "id" || e.Fields["done"] == nil || !strings.HasPrefix(e.Hostname, "t@") {
				t.Errorf("%+v", e)
			}
		}
	}
	equalLines(t, kinds, []string{"task-sent", "task-progress", "shop-open"})
}

func TestSignals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lovage.Config{})
	h := lovage.Func(w.app, "t.add", add)
	var got []string
	note := func(name string) func(context.Context, lovage.TaskSuccess) {
		return func(_ context.Context, e lovage.TaskSuccess) { got = append(got, name) }
	}
	s := &w.app.Signals.TaskSuccess
	equal(t, "Connected", s.Connected(), false)
	off := s.Connect(note("a"))
	s.Connect(func(context.Context, lovage.TaskSuccess) { panic("receiver broke") })
	offC := s.Connect(note("c"))
	apply := func() []string {
		got = nil
		must[*lovage.Result[int]](t)(h.Apply(w.ctx(), AddArgs{}))
		return slices.Clone(got)
	}
	equalLines(t, apply(), []string{"a", "c"})
	contains(t, strings.Join(w.log.read(), "\n"), "log ERROR a signal receiver panicked +traceback")
	off()
	off()
	equalLines(t, apply(), []string{"c"})
	offC()
	equalLines(t, apply(), nil)
	t.Run("SendersAreASieve", func(t *testing.T) {
		var names []string
		for _, from := range [][]string{{"t.add"}, {"t.other"}, {"t.other", "t.add"}, nil} {
			defer w.app.Signals.TaskPrerun.Connect(func(_ context.Context, e lovage.TaskPrerun) {
				names = append(names, strings.Join(from, "+")+" hears "+e.Sender())
			}, from...)()
		}
		must[*lovage.Result[int]](t)(h.Apply(w.ctx(), AddArgs{}))
		equalLines(t, names, []string{"t.add hears t.add", "t.other+t.add hears t.add", " hears t.add"})
	})
	t.Run("ConnectAndDisconnectAtAnyTime", func(t *testing.T) {
		var heard atomic.Int64
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				for range 200 {
					off := w.app.Signals.TaskPrerun.Connect(func(context.Context, lovage.TaskPrerun) { heard.Add(1) })
					w.app.Signals.TaskPrerun.Send(w.ctx(), lovage.TaskPrerun{})
					off()
				}
			})
		}
		group.Wait()
		equal(t, "Connected", w.app.Signals.TaskPrerun.Connected(), false)
		if heard.Load() < 8*200 {
			t.Errorf("heard %d, want each sender to hear itself at least", heard.Load())
		}
	})
	t.Run("BeforePublishMayChangeTheMessage", func(t *testing.T) {
		w.app.Signals.BeforeTaskPublish.Connect(func(_ context.Context, e lovage.BeforeTaskPublish) {
			e.Message.Headers.Shadow = "changed"
		})
		must[*lovage.Result[int]](t)(h.Delay(w.ctx(), AddArgs{}))
		equal(t, "shadow", w.next().Shadow, "changed")
	})
}
