package worker_test

import (
	"context"
	"testing"

	"github.com/lovage-go/lovage"
)

func TestRun(t *testing.T) {
	t.Parallel()
	t.Run("SuccessIsStoredAndAcked", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[AddArgs, int]
		in(t, setup{tasks: func(app *lovage.App) { h = lovage.Func(app, "t.add", add) }}, func(x *world) {
			r, err := h.Delay(context.Background(), AddArgs{X: 2, Y: 3})
			if err != nil {
				t.Fatal(err)
			}
			if n, err := r.Get(context.Background()); n != 5 || err != nil {
				t.Fatalf("Get: got %d, %v, want 5", n, err)
			}
			x.stop()
			if l := x.lengths("celery"); l.Ready+l.Claimed != 0 {
				t.Errorf("queue: got %+v, want it empty", l)
			}
			x.wantLog(1, "Task t.add["+r.ID()+"] received")
			x.wantLog(1, "] succeeded in ")
			x.wantLog(1, "ready.")
		})
	})
}
