package worker_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/worker"
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

// TestWorkerSignals: a worker says what Celery's says, in its order.
func TestWorkerSignals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var h *lovage.Handle[AddArgs, int]
		x := build(t, setup{tasks: func(app *lovage.App) { h = lovage.Func(app, "t.add", add) }})
		var mu sync.Mutex
		var got []string
		note := func(name string) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, name)
		}
		s := &x.app.Signals
		s.WorkerInit.Connect(func(context.Context, lovage.WorkerInit) { note("init") })
		s.WorkerReady.Connect(func(context.Context, lovage.WorkerReady) { note("ready") })
		s.TaskReceived.Connect(func(_ context.Context, e lovage.TaskReceived) { note("received " + e.Request.ID) })
		s.TaskPrerun.Connect(func(_ context.Context, e lovage.TaskPrerun) { note("prerun " + e.Request.ID) })
		s.CelerydAfterSetup.Connect(func(_ context.Context, e lovage.CelerydAfterSetup) {
			note("after setup")
			*e.Queues = append(*e.Queues, broker.Named("added"))
		})
		beats := 0
		s.HeartbeatSent.Connect(func(context.Context, lovage.HeartbeatSent) { beats++ })
		s.WorkerShuttingDown.Connect(func(_ context.Context, e lovage.WorkerShuttingDown) {
			note(fmt.Sprintf("shutting down %s %d", e.How, e.ExitCode))
		})
		s.WorkerShutdown.Connect(func(context.Context, lovage.WorkerShutdown) { note("shutdown") })
		x.start()
		pause(time.Second)
		delay(x, h, AddArgs{}, lovage.TaskID("id"), lovage.Queue("added"))
		pause(6 * time.Second)
		x.stop()
		want := []string{"init", "after setup", "ready", "received id", "prerun id", "shutting down warm 0", "shutdown"}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if beats != 3 {
			t.Errorf("heartbeats: got %d, want 3 in seven seconds", beats)
		}
		x.invariants()
	})
}

// TestSetup: what CelerydInit changes is what the worker is made with.
func TestSetup(t *testing.T) {
	t.Parallel()
	app := lovage.New("test", lovage.Config{})
	app.Signals.CelerydInit.Connect(func(_ context.Context, e lovage.CelerydInit) {
		if e.Hostname == "big@box" {
			e.Config.WorkerConcurrency = 100
		}
	})
	for hostname, want := range map[string]bool{"small@box": false, "big@box": true} {
		if err := worker.Setup(app, hostname); err != nil {
			t.Fatal(err)
		}
		if got := worker.New(app, worker.Config{Hostname: hostname}).Stats().Slots == 100; got != want && hostname == "big@box" {
			t.Errorf("%s has 100 slots: %t, want %t", hostname, got, want)
		}
	}
}
