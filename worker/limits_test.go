package worker_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/worker"
)

func TestLimits(t *testing.T) {
	t.Parallel()
	// deaf ignores its context for d.
	deaf := func(d time.Duration) func(context.Context, Order) (string, error) {
		return func(ctx context.Context, _ Order) (string, error) {
			<-time.After(d)
			return "late", nil
		}
	}
	t.Run("SoftLimitCancelsWithItsCause", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[Order, string]
		in(t, setup{tasks: func(app *lovage.App) {
			h = lovage.Func(app, "t.obey", obey, lovage.SoftTimeLimit(time.Minute))
		}}, func(x *world) {
			r, err := h.Delay(context.Background(), Order{"wait"})
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			if _, err := r.Get(context.Background()); !errors.Is(err, lovage.ErrSoftTimeLimit) {
				t.Errorf("Get: got %v, want ErrSoftTimeLimit", err)
			}
			if d := time.Since(began); d < time.Minute || d > time.Minute+time.Second {
				t.Errorf("cancelled after %s, want a minute", d)
			}
		})
	})
	t.Run("NoSoftLimitIsToldAfterTheHardOne", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[Order, string]
		in(t, setup{tasks: func(app *lovage.App) {
			h = lovage.Func(app, "t.deaf", deaf(time.Hour), lovage.SoftTimeLimit(2*time.Minute))
		}, cfg: worker.Config{TimeLimit: time.Minute}}, func(x *world) {
			id := delay(x, h, Order{})
			pause(2 * time.Hour)
			x.wantState(id, lovage.Failure)
			x.wantLog(1, "Hard time limit (1m0s) exceeded for t.deaf["+id+"]")
			x.wantLog(0, "Soft time limit")
		})
	})
	t.Run("HardLimitFreesTheSlotAndDropsWhatComesLater", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[Order, string]
		var quick *lovage.Handle[AddArgs, int]
		in(t, setup{cfg: worker.Config{Concurrency: 1}, tasks: func(app *lovage.App) {
			h = lovage.Func(app, "t.deaf", deaf(time.Hour), lovage.TimeLimit(time.Minute))
			quick = lovage.Func(app, "t.add", add)
		}}, func(x *world) {
			id := delay(x, h, Order{})
			pause(time.Second)
			next := delay(x, quick, AddArgs{})
			pause(58 * time.Second)
			x.wantState(next, "")
			pause(3 * time.Second)
			x.wantState(id, lovage.Failure)
			x.wantState(next, lovage.Success)
			if s := x.w.Stats(); s.Stuck != 1 || s.SlotsUsed != 0 {
				t.Errorf("stats: got %+v, want one stuck and no slot used", s)
			}
			var shown struct{ Pool struct{ Stuck int } }
			replies, err := x.app.Control().Inspect(x.t.Context(), "stats", nil, one)
			if err != nil || len(replies) != 1 || replies[0].Decode(&shown) != nil || shown.Pool.Stuck != 1 {
				t.Errorf("inspect stats: got %+v, %v; want one stuck", replies, err)
			}
			pause(time.Hour)
			if s := x.w.Stats(); s.Stuck != 0 || s.Succeeded != 1 {
				t.Errorf("stats: got %+v, want none stuck and one success", s)
			}
			x.wantState(id, lovage.Failure)
			x.wantLog(1, "Hard time limit (1m0s) exceeded for t.deaf["+id+"]")
			x.wantLog(1, "returned after it was given up")
		})
	})
	t.Run("TimeoutIsRequeuedIfNotAcked", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[Order, string]
		var runs atomic.Int32
		in(t, setup{tasks: func(app *lovage.App) {
			h = lovage.Func(app, "t.deaf", func(ctx context.Context, in Order) (string, error) {
				if runs.Add(1) == 1 {
					return deaf(2*time.Minute)(ctx, in)
				}
				return "", nil
			}, lovage.TimeLimit(time.Minute), lovage.AcksOnTimeout(false))
		}}, func(x *world) {
			id := delay(x, h, Order{})
			pause(3 * time.Minute)
			x.wantState(id, lovage.Success)
			if n := runs.Load(); n != 2 {
				t.Errorf("runs: got %d, want 2", n)
			}
		})
	})
	t.Run("MessageThenTaskThenWorker", func(t *testing.T) {
		t.Parallel()
		var own, plain *lovage.Handle[Order, string]
		in(t, setup{cfg: worker.Config{SoftTimeLimit: 30 * time.Second}, tasks: func(app *lovage.App) {
			own = lovage.Func(app, "t.own", obey, lovage.SoftTimeLimit(20*time.Second))
			plain = lovage.Func(app, "t.plain", obey)
		}}, func(x *world) {
			byWorker := delay(x, plain, Order{"wait"})
			byTask := delay(x, own, Order{"wait"})
			byMessage := delay(x, own, Order{"wait"}, lovage.SoftTimeLimit(10*time.Second))
			pause(11 * time.Second)
			x.wantState(byMessage, lovage.Failure)
			x.wantState(byTask, "")
			pause(10 * time.Second)
			x.wantState(byTask, lovage.Failure)
			x.wantState(byWorker, "")
			pause(10 * time.Second)
			x.wantState(byWorker, lovage.Failure)
		})
	})
	t.Run("TheTasksOwnLimitHolds", func(t *testing.T) {
		t.Parallel()
		var same, none, plain *lovage.Handle[Order, string]
		in(t, setup{conf: lovage.Config{TaskSoftTimeLimit: 30 * time.Second}, cfg: worker.Config{SoftTimeLimit: 10 * time.Second}, tasks: func(app *lovage.App) {
			same = lovage.Func(app, "t.same", obey, lovage.SoftTimeLimit(30*time.Second))
			none = lovage.Func(app, "t.none", obey, lovage.SoftTimeLimit(lovage.NoLimit))
			plain = lovage.Func(app, "t.plain", obey)
		}}, func(x *world) {
			ofTask, without, ofWorker := delay(x, same, Order{"wait"}), delay(x, none, Order{"wait"}), delay(x, plain, Order{"wait"})
			pause(11 * time.Second)
			x.wantState(ofWorker, lovage.Failure) // the flag, before the setting
			x.wantState(ofTask, "")               // though it is the setting's
			pause(20 * time.Second)
			x.wantState(ofTask, lovage.Failure)
			pause(time.Hour)
			x.wantState(without, "")
			x.w.Revoke(true, without)
			pause(time.Second)
		})
	})
	t.Run("ChangedAtRunTime", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[Order, string]
		in(t, setup{cfg: worker.Config{SoftTimeLimit: 30 * time.Second}, tasks: func(app *lovage.App) {
			h = lovage.Func(app, "t.obey", obey, lovage.SoftTimeLimit(20*time.Second))
		}}, func(x *world) {
			set := func(soft time.Duration) {
				replies, err := x.app.Control().TimeLimit(x.t.Context(), "t.obey", soft, 0, one)
				if err != nil || len(replies) != 1 || !strings.Contains(string(replies[0].Value), "time limits set successfully") {
					t.Fatalf("time_limit: got %+v, %v", replies, err)
				}
			}
			before := delay(x, h, Order{"wait"})
			pause(time.Second)
			set(5 * time.Second)
			after, own := delay(x, h, Order{"wait"}), delay(x, h, Order{"wait"}, lovage.SoftTimeLimit(10*time.Second))
			pause(6 * time.Second)
			x.wantState(after, lovage.Failure)
			x.wantState(own, "") // the message's own comes first
			pause(5 * time.Second)
			x.wantState(own, lovage.Failure)
			x.wantState(before, "") // it had begun
			pause(10 * time.Second)
			x.wantState(before, lovage.Failure)
			set(0) // back to the worker's, as in Celery
			last := delay(x, h, Order{"wait"})
			pause(29 * time.Second)
			x.wantState(last, "")
			pause(2 * time.Second)
			x.wantState(last, lovage.Failure)
		})
	})
	t.Run("StuckRunsStopTheWorker", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[Order, string]
		in(t, setup{cfg: worker.Config{Concurrency: 1, StuckLimit: 2}, tasks: func(app *lovage.App) {
			h = lovage.Func(app, "t.deaf", deaf(time.Hour), lovage.TimeLimit(time.Minute))
		}}, func(x *world) {
			delay(x, h, Order{})
			delay(x, h, Order{})
			if err := <-x.ended; !errors.Is(err, worker.ErrStuck) {
				t.Errorf("Run: got %v, want ErrStuck", err)
			}
			x.cancel()
			x.cancel = nil
			pause(time.Hour) // the runs return
		})
	})
}
