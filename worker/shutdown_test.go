package worker_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/events"
	"github.com/lovage-go/lovage/worker"
)

// sleeper runs for a minute, or until its context ends.
func sleeper(ctx context.Context, _ Order) (string, error) {
	select {
	case <-time.After(time.Minute):
		return "slept", nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

func TestShutdown(t *testing.T) {
	t.Parallel()
	t.Run("WarmWaitsForRunsAndHandsBackTheRest", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[Order, string]
		in(t, setup{cfg: worker.Config{Concurrency: 2}, tasks: func(app *lovage.App) {
			h = lovage.Func(app, "t.sleep", sleeper)
		}}, func(x *world) {
			for range 3 {
				delay(x, h, Order{})
			}
			pause(100 * time.Millisecond)
			if s := x.w.Stats(); s.Active != 2 || s.Reserved != 1 {
				t.Fatalf("stats: got %+v, want 2 active and 1 reserved", s)
			}
			began := time.Now()
			x.cancel()
			synctest.Wait()
			if l := x.lengths("celery"); l.Ready != 1 || l.Claimed != 2 {
				t.Errorf("just after the word: got %+v, want the unstarted one back at once", l)
			}
			if err := <-x.ended; err != nil {
				t.Errorf("Run: got %v, want nil", err)
			}
			x.cancel = nil
			if d := time.Since(began); d < 59*time.Second || d > 61*time.Second {
				t.Errorf("stopped after %s, want the rest of the minute", d)
			}
			if s := x.w.Stats(); s.Succeeded != 2 || s.Losses != 0 {
				t.Errorf("stats: got %+v, want two successes", s)
			}
			x.wantLog(1, "Warm shutdown")
		})
	})
	t.Run("WarmStopByContextIsNil", func(t *testing.T) {
		t.Parallel()
		in(t, setup{}, func(x *world) { x.stop() })
	})
	t.Run("ColdCancelsAndHandsBack", func(t *testing.T) {
		t.Parallel()
		for _, late := range []bool{true, false} {
			t.Run(fmt.Sprintf("AcksLate=%t", late), func(t *testing.T) {
				t.Parallel()
				var h *lovage.Handle[Order, string]
				in(t, setup{tasks: func(app *lovage.App) {
					h = lovage.Func(app, "t.sleep", sleeper, lovage.AcksLate(late))
				}}, func(x *world) {
					id := delay(x, h, Order{})
					pause(time.Second)
					began := time.Now()
					x.w.Stop(worker.Warm)
					synctest.Wait()
					x.w.Stop(worker.Cold)
					if err := <-x.ended; err != nil {
						t.Errorf("Run: got %v, want nil", err)
					}
					x.cancel()
					x.cancel = nil
					if d := time.Since(began); d > time.Second {
						t.Errorf("stopped after %s, want at once", d)
					}
					l, state := x.lengths("celery"), x.state(id)
					if late && (l.Ready != 1 || state != "") {
						t.Errorf("late ack: got %+v and state %q, want the message back and no state", l, state)
					}
					if !late && (l.Ready != 0 || state != lovage.Failure) {
						t.Errorf("early ack: got %+v and state %q, want a failure\n%s", l, state, x.log)
					}
				})
			})
		}
	})
	t.Run("ColdGivesUpRunsThatDoNotEnd", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[Order, string]
		release := make(chan struct{})
		synctest.Test(t, func(t *testing.T) {
			release = make(chan struct{})
			x := build(t, setup{tasks: func(app *lovage.App) {
				h = lovage.Func(app, "t.deaf", func(context.Context, Order) (string, error) { <-release; return "late", nil })
			}})
			x.start()
			id := delay(x, h, Order{})
			pause(time.Second)
			began := time.Now()
			x.w.Stop(worker.Cold)
			if err := <-x.ended; err != nil {
				t.Errorf("Run: got %v, want nil", err)
			}
			x.cancel()
			if d := time.Since(began); d < 5*time.Second || d > 6*time.Second {
				t.Errorf("stopped after %s, want the grace of 5s", d)
			}
			if l := x.lengths("celery"); l.Ready != 1 {
				t.Errorf("queue: got %+v, want the message back", l)
			}
			if s := x.w.Stats(); s.Stuck != 1 {
				t.Errorf("stuck: got %d, want 1", s.Stuck)
			}
			close(release)
			synctest.Wait()
			x.wantState(id, "") // its result is dropped
			x.invariants()
		})
	})
	t.Run("SoftShutdownGivesTime", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[Order, string]
		in(t, setup{cfg: worker.Config{SoftShutdownTimeout: 2 * time.Minute}, tasks: func(app *lovage.App) {
			h = lovage.Func(app, "t.sleep", sleeper)
		}}, func(x *world) {
			id := delay(x, h, Order{})
			pause(time.Second)
			x.w.Stop(worker.Cold)
			if err := <-x.ended; err != nil {
				t.Errorf("Run: got %v, want nil", err)
			}
			x.cancel()
			x.cancel = nil
			x.wantState(id, lovage.Success)
		})
	})
	t.Run("SoftShutdownOfAnIdleWorker", func(t *testing.T) {
		t.Parallel()
		for _, on := range []bool{false, true} {
			t.Run(fmt.Sprintf("OnIdle=%t", on), func(t *testing.T) {
				t.Parallel()
				in(t, setup{conf: lovage.Config{WorkerSoftShutdownTimeout: time.Minute, WorkerEnableSoftShutdownOnIdle: &on}}, func(x *world) {
					began := time.Now()
					x.w.Stop(worker.Cold)
					if err := <-x.ended; err != nil {
						t.Errorf("Run: got %v, want nil", err)
					}
					x.cancel()
					x.cancel = nil
					if d := time.Since(began).Round(time.Second); d != map[bool]time.Duration{true: time.Minute}[on] {
						t.Errorf("stopped after %s", d)
					}
					x.wantLog(map[bool]int{true: 1}[on], "Initiating Soft Shutdown, terminating in 1m0s")
				})
			})
		}
	})
	t.Run("SoftShutdownEndsWithTheLastRunOrItsTime", func(t *testing.T) {
		t.Parallel()
		for timeout, want := range map[time.Duration]lovage.State{10 * time.Second: "", 2 * time.Minute: lovage.Success} {
			var h *lovage.Handle[Order, string]
			in(t, setup{cfg: worker.Config{SoftShutdownTimeout: timeout}, tasks: func(app *lovage.App) { h = lovage.Func(app, "t.sleep", sleeper) }}, func(x *world) {
				id := delay(x, h, Order{})
				pause(time.Second)
				began := time.Now()
				x.w.Stop(worker.Cold)
				if err := <-x.ended; err != nil {
					t.Errorf("Run: got %v, want nil", err)
				}
				x.cancel()
				x.cancel = nil
				if d := time.Since(began); d > min(timeout, time.Minute)+time.Second {
					t.Errorf("stopped after %s, want at most %s", d, timeout)
				}
				x.wantState(id, want)
			})
		}
	})
	t.Run("HeartbeatsGoOnAndNothingUnstartedCounts", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[Order, string]
		in(t, setup{cfg: worker.Config{Concurrency: 1}, tasks: func(app *lovage.App) { h = lovage.Func(app, "t.sleep", sleeper) }}, func(x *world) {
			var beats atomic.Int64
			x.app.Signals.HeartbeatSent.Connect(func(context.Context, lovage.HeartbeatSent) { beats.Add(1) })
			delay(x, h, Order{})
			ids := []string{delay(x, h, Order{}), delay(x, h, Order{})}
			pause(time.Second)
			x.w.Stop(worker.Warm)
			synctest.Wait()
			before := beats.Load()
			other := lovage.New("other", lovage.Config{}, lovage.WithBroker(func(context.Context) (broker.Conn, error) { return x.store.Broker(), nil }))
			conn, err := other.Broker(x.t.Context())
			if err != nil {
				t.Fatal(err)
			}
			cons, err := conn.Consume(x.t.Context(), broker.ConsumeConfig{Queues: []broker.Queue{broker.Named("celery")}, Worker: "other"})
			if err != nil {
				t.Fatal(err)
			}
			ds, err := cons.Claim(x.t.Context(), 10)
			if err != nil || len(ds) != len(ids) {
				t.Fatalf("another worker claims %d messages, %v; want %d at once", len(ds), err, len(ids))
			}
			for _, d := range ds {
				if d.Orphaned || d.Losses != 0 {
					t.Errorf("a message that was not started came back as orphaned=%t with %d losses", d.Orphaned, d.Losses)
				}
			}
			if err := cons.Close(); err != nil {
				t.Error(err)
			}
			if err := other.Close(x.t.Context()); err != nil {
				t.Error(err)
			}
			if err := <-x.ended; err != nil {
				t.Errorf("Run: got %v, want nil", err)
			}
			x.cancel()
			x.cancel = nil
			if n := beats.Load() - before; n < 28 || n > 31 {
				t.Errorf("heartbeats while the last run ended, in a minute: got %d, want about 30", n)
			}
		})
	})
	t.Run("WorkHeldForItsTimeGoesBack", func(t *testing.T) {
		t.Parallel()
		in(t, setup{broker: plainBroker, tasks: func(app *lovage.App) { lovage.Func(app, "t.add", add) }}, func(x *world) {
			x.raw(`{"task":"t.add","id":"x","eta":"2000-01-01T05:00:00"}`, `[[1],{},{}]`, "")
			pause(time.Second)
			if l := x.lengths("celery"); l.Claimed != 1 {
				t.Fatalf("queue: got %+v, want the message held", l)
			}
			x.stop()
			if l := x.lengths("celery"); l.Claimed != 0 || l.Ready != 1 {
				t.Errorf("queue: got %+v, want the message back", l)
			}
		})
	})
	t.Run("AConnectionThatComesTooLateIsClosed", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			open := make(chan struct{})
			x := build(t, setup{conn: func(c broker.Conn) broker.Conn { return slowConn{c, open} }})
			x.start()
			x.cancel()
			pause(time.Minute)
			close(open)
			select {
			case err := <-x.ended:
				if err != nil {
					t.Errorf("Run: got %v, want nil", err)
				}
			case <-time.After(time.Minute):
				t.Fatalf("the worker does not end\n%s", x.log)
			}
			x.wantLog(0, "ready.")
			x.invariants()
		})
	})
	t.Run("TheLastEventIsHeard", func(t *testing.T) {
		t.Parallel()
		for _, life := range []time.Duration{0, time.Millisecond, 499 * time.Millisecond, 501 * time.Millisecond, time.Minute} {
			t.Run(life.String(), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					x := build(t, setup{})
					heard, err := events.Listen(t.Context(), x.store.Broker(), events.ListenConfig{})
					if err != nil {
						t.Fatal(err)
					}
					x.start()
					pause(life)
					x.stop()
					last, count := "", 0
					for last != events.WorkerOffline {
						ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
						e, err := heard.Next(ctx)
						cancel()
						if err != nil {
							t.Fatalf("after %d events, the last %q: %v\n%s", count, last, err, x.log)
						}
						if count++; count == 1 && e.Type != events.WorkerOnline {
							t.Errorf("the first event is %q, want %q", e.Type, events.WorkerOnline)
						}
						last = e.Type
					}
					x.wantLog(0, "Events are being lost")
					if err := heard.Close(); err != nil {
						t.Error(err)
					}
					x.invariants()
				})
			})
		}
	})
	t.Run("InitErrorStopsTheStart", func(t *testing.T) {
		t.Parallel()
		fails(t, setup{tasks: func(app *lovage.App) { lovage.Register(app, "t.broken", &broken{}) }}, `task "t.broken": Init`)
	})
	t.Run("NoQueueLeft", func(t *testing.T) {
		t.Parallel()
		fails(t, setup{cfg: worker.Config{ExcludeQueues: []string{"celery"}}}, "no queue is left")
	})
	t.Run("RunTwice", func(t *testing.T) {
		t.Parallel()
		in(t, setup{}, func(x *world) {
			if err := x.w.Run(context.Background()); err == nil {
				t.Error("second Run: got nil, want an error")
			}
		})
	})
}

type broken struct{ lovage.Task }

func (*broken) Init(context.Context) error                        { return errBoom }
func (*broken) Run(ctx context.Context, in Order) (string, error) { return obey(ctx, in) }

// slowConn has consumers that are there long before anybody is told.
type slowConn struct {
	broker.Conn
	open <-chan struct{}
}

func (c slowConn) Consume(ctx context.Context, cfg broker.ConsumeConfig) (broker.Consumer, error) {
	cs, err := c.Conn.Consume(ctx, cfg)
	<-c.open
	return cs, err
}
