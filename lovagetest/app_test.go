package lovagetest_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/lovagetest"
	"github.com/lovage-go/lovage/worker"
)

func TestMain(m *testing.M) { lovagetest.Main(m) }

type addArgs struct{ X, Y int }

func add(_ context.Context, in addArgs) (int, error) { return in.X + in.Y, nil }

func TestWorkerRunsWhatWasSent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := lovagetest.New(t, lovage.Config{})
		h := lovage.Func(x.App, "t.add", add)
		next := lovage.Func(x.App, "t.next", add)
		x.Start(worker.Config{})
		began := time.Now()
		r, err := h.Delay(t.Context(), addArgs{1, 2}, lovage.Countdown(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if n, err := r.Get(t.Context()); n != 3 || err != nil {
			t.Fatalf("Get: got %d, %v, want 3", n, err)
		}
		if d := time.Since(began); d < time.Hour || d > time.Hour+time.Second {
			t.Errorf("ran after %s, want an hour", d)
		}
		x.WantSent(next.Name(), 0)
		sent := x.WantSent("t.add", 1)
		if got := x.WantSentWith("t.add", 1, 2); got.ID != sent[0].ID || got.Queue != "celery" {
			t.Errorf("sent: got %+v, want the call to queue celery", got)
		}
		x.Forget()
		x.WantSent("", 0)
	})
}

func TestAssertionsFail(t *testing.T) {
	t.Parallel()
	x := lovagetest.New(t, lovage.Config{})
	h := lovage.Func(x.App, "t.add", add)
	if _, err := h.Delay(t.Context(), addArgs{1, 2}); err != nil {
		t.Fatal(err)
	}
	for name, check := range map[string]func(*lovagetest.App){
		"Times":     func(x *lovagetest.App) { x.WantSent("t.add", 2) },
		"OtherTask": func(x *lovagetest.App) { x.WantSent("t.sub", 1) },
		"OtherArgs": func(x *lovagetest.App) { x.WantSentWith("t.add", 2, 2) },
	} {
		rec := &recorder{TB: t}
		check(x.For(rec))
		if rec.failures != 1 {
			t.Errorf("%s: got %d failures, want 1", name, rec.failures)
		}
	}
}

// recorder counts failures instead of failing.
type recorder struct {
	testing.TB
	failures int
}

func (r *recorder) Errorf(string, ...any) { r.failures++ }
