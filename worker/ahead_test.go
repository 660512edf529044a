package worker_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/events"
	"github.com/lovage-go/lovage/worker"
)

func TestLookAhead(t *testing.T) {
	t.Parallel()
	// nap takes as long as it is told.
	nap := func(_ context.Context, d time.Duration) (int, error) { <-time.After(d); return 0, nil }
	t.Run("LongRunsAreNotHoarded", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[time.Duration, int]
		in(t, setup{cfg: worker.Config{Concurrency: 2}, tasks: func(app *lovage.App) { h = lovage.Func(app, "t.nap", nap) }}, func(x *world) {
			for range 20 {
				delay(x, h, 10*time.Second)
			}
			pause(5 * time.Second)
			if l := x.lengths("celery"); l.Claimed != 2 {
				t.Errorf("claimed: got %d, want the 2 that run", l.Claimed)
			}
			pause(7 * time.Second)
			if l := x.lengths("celery"); l.Claimed != 2 || l.Ready != 16 {
				t.Errorf("after the first two: got %+v, want 2 claimed and 16 ready", l)
			}
			pause(3 * time.Minute)
		})
	})
	t.Run("ShortRunsAreClaimedAhead", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[time.Duration, int]
		in(t, setup{cfg: worker.Config{Concurrency: 2}, tasks: func(app *lovage.App) { h = lovage.Func(app, "t.nap", nap) }}, func(x *world) {
			for range 400 {
				delay(x, h, time.Millisecond)
			}
			pause(50 * time.Millisecond)
			if s := x.w.Stats(); s.Reserved < 70 || s.Reserved > 160 {
				t.Errorf("claimed ahead: got %d, want about 150 (75 ms of two slots)", s.Reserved)
			}
			pause(10 * time.Second)
			if s := x.w.Stats(); s.Succeeded != 400 {
				t.Errorf("succeeded: got %d, want 400", s.Succeeded)
			}
		})
	})
	t.Run("WhatWaitsBehindALongRunGoesBack", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[time.Duration, int]
		in(t, setup{cfg: worker.Config{Concurrency: 1}, tasks: func(app *lovage.App) { h = lovage.Func(app, "t.nap", nap) }}, func(x *world) {
			for range 50 {
				delay(x, h, time.Millisecond)
			}
			delay(x, h, time.Hour)
			for range 50 {
				delay(x, h, time.Millisecond)
			}
			pause(3 * time.Second)
			if l := x.lengths("celery"); l.Claimed != 1 || l.Ready != 50 {
				t.Errorf("queue: got %+v, want the 50 behind the long run back", l)
			}
			other := spawn(x.store, "other", lovage.Config{}, worker.Config{}, func(app *lovage.App) { lovage.Func(app, "t.nap", nap) })
			pause(5 * time.Second)
			if s := other.w.Stats(); s.Succeeded != 50 || s.Losses != 0 {
				t.Errorf("the other worker: got %+v, want 50 successes and no loss", s)
			}
			other.stop(t)
			pause(time.Hour)
		})
	})
	t.Run("TheMultiplierBoundsIt", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[time.Duration, int]
		in(t, setup{conf: lovage.Config{WorkerPrefetchMultiplier: 3}, cfg: worker.Config{Concurrency: 2}, tasks: func(app *lovage.App) { h = lovage.Func(app, "t.nap", nap) }}, func(x *world) {
			for range 200 {
				delay(x, h, time.Millisecond)
			}
			most := int64(0)
			for range 60 {
				pause(time.Millisecond)
				most = max(most, int64(x.w.Stats().Reserved))
			}
			if most < 4 || most > 6 {
				t.Errorf("claimed ahead: got %d, want up to 6 (3 for each of 2 slots)", most)
			}
			pause(10 * time.Second)
		})
	})
	t.Run("OverTheLimitIsNotHoarded", func(t *testing.T) {
		t.Parallel()
		var limited, free *lovage.Handle[time.Duration, int]
		in(t, setup{cfg: worker.Config{Concurrency: 2}, tasks: func(app *lovage.App) {
			limited, free = lovage.Func(app, "t.limited", nap, lovage.RateLimit("2/s")), lovage.Func(app, "t.nap", nap)
		}}, func(x *world) {
			for range 1000 {
				delay(x, limited, 0)
			}
			id := delay(x, free, 0)
			pause(100 * time.Millisecond)
			x.wantState(id, lovage.Success)
			if l := x.lengths("celery"); l.Claimed > 3 || l.Delayed < 990 {
				t.Errorf("got %+v, want the turns of a second claimed and the rest parked", l)
			}
			pause(time.Minute)
			if n := x.w.Stats().ByTask["t.limited"]; n < 115 || n > 122 {
				t.Errorf("limited runs in a minute: got %d, want about 120", n)
			}
			pause(10 * time.Minute)
			if n := x.w.Stats().ByTask["t.limited"]; n != 1000 {
				t.Errorf("limited runs: got %d, want all 1000 after their 500 s", n)
			}
		})
	})
	t.Run("TwoWorkersHaveTwiceTheRate", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[time.Duration, int]
		declare := func(app *lovage.App) { h = lovage.Func(app, "t.limited", nap, lovage.RateLimit("2/s")) }
		in(t, setup{cfg: worker.Config{Concurrency: 2}, tasks: declare}, func(x *world) {
			other := spawn(x.store, "other", lovage.Config{}, worker.Config{Concurrency: 2}, declare)
			synctest.Wait()
			for range 40 {
				delay(x, h, 0)
				synctest.Wait()
			}
			pause(15 * time.Second) // one alone would take 20
			if one, two := x.w.Stats().Succeeded, other.w.Stats().Succeeded; one < 15 || two < 15 || one+two != 40 {
				t.Errorf("runs at 2/s each in 15 s: got %d and %d of 40, want all, and about half of them each", one, two)
			}
			other.stop(t)
		})
	})
	t.Run("NoneBySetting", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[time.Duration, int]
		in(t, setup{conf: lovage.Config{WorkerDisablePrefetch: new(true), WorkerPrefetchMultiplier: 4}, cfg: worker.Config{Concurrency: 2}, tasks: func(app *lovage.App) { h = lovage.Func(app, "t.nap", nap) }}, func(x *world) {
			for range 100 {
				delay(x, h, time.Millisecond)
			}
			for range 20 {
				if l := x.lengths("celery"); l.Claimed > 2 {
					t.Fatalf("claimed: got %d, want at most the 2 slots", l.Claimed)
				}
				pause(time.Millisecond)
			}
			pause(time.Second)
		})
	})
	t.Run("NoneIfOff", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[time.Duration, int]
		in(t, setup{cfg: worker.Config{Concurrency: 2, LookAhead: -1}, tasks: func(app *lovage.App) { h = lovage.Func(app, "t.nap", nap) }}, func(x *world) {
			for range 100 {
				delay(x, h, time.Millisecond)
			}
			for range 20 {
				if l := x.lengths("celery"); l.Claimed > 2 {
					t.Fatalf("claimed: got %d, want at most the 2 slots", l.Claimed)
				}
				pause(time.Millisecond)
			}
			pause(time.Second)
		})
	})
}

func TestSlots(t *testing.T) {
	t.Parallel()
	t.Run("WaitingForAnotherTaskLendsTheSlot", func(t *testing.T) {
		t.Parallel()
		var outer *lovage.Handle[AddArgs, int]
		in(t, setup{cfg: worker.Config{Concurrency: 1}, tasks: func(app *lovage.App) {
			inner := lovage.Func(app, "t.add", add)
			outer = lovage.Func(app, "t.outer", func(ctx context.Context, in AddArgs) (int, error) {
				r, err := inner.Delay(ctx, in)
				if err != nil {
					return 0, err
				}
				n, err := r.Get(lovage.AllowJoin(ctx))
				return 10 * n, err
			})
		}}, func(x *world) {
			r, err := outer.Delay(context.Background(), AddArgs{X: 1, Y: 2})
			if err != nil {
				t.Fatal(err)
			}
			if n, err := r.Get(context.Background()); n != 30 || err != nil {
				t.Errorf("Get: got %d, %v, want 30", n, err)
			}
		})
	})
	t.Run("NeverMoreRunsThanSlots", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[AddArgs, int]
		var mu sync.Mutex
		active, most := 0, 0
		in(t, setup{cfg: worker.Config{Concurrency: 3}, tasks: func(app *lovage.App) {
			h = lovage.Func(app, "t.count", func(context.Context, AddArgs) (int, error) {
				mu.Lock()
				active++
				most = max(most, active)
				mu.Unlock()
				<-time.After(10 * time.Millisecond)
				mu.Lock()
				active--
				mu.Unlock()
				return 0, nil
			})
		}}, func(x *world) {
			for range 100 {
				delay(x, h, AddArgs{})
			}
			pause(time.Minute)
			if most != 3 {
				t.Errorf("runs at once: got %d, want 3", most)
			}
		})
	})
}

func TestQueues(t *testing.T) {
	t.Parallel()
	t.Run("AnUnknownOrderStopsTheStart", func(t *testing.T) {
		t.Parallel()
		fails(t, setup{conf: lovage.Config{BrokerTransportOptions: map[string]any{"queue_order_strategy": "shuffle"}}, tasks: func(app *lovage.App) { lovage.Func(app, "t.add", add) }}, "queue_order_strategy is shuffle: use round_robin")
	})
	t.Run("OnlyThoseThatAreNamed", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[AddArgs, int]
		in(t, setup{cfg: worker.Config{Queues: []string{"math"}}, tasks: func(app *lovage.App) { h = lovage.Func(app, "t.add", add) }}, func(x *world) {
			there, elsewhere := delay(x, h, AddArgs{}, lovage.Queue("math")), delay(x, h, AddArgs{})
			pause(time.Minute)
			x.wantState(there, lovage.Success)
			x.wantState(elsewhere, "")
		})
	})
	t.Run("PurgeEmptiesThemFirst", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var h *lovage.Handle[AddArgs, int]
			x := build(t, setup{cfg: worker.Config{Purge: true}, tasks: func(app *lovage.App) { h = lovage.Func(app, "t.add", add) }})
			id := delay(x, h, AddArgs{})
			x.start()
			pause(time.Minute)
			x.wantState(id, "")
			x.wantLog(1, "Erased 1 messages")
			x.stop()
			x.invariants()
		})
	})
}

func TestEvents(t *testing.T) {
	t.Parallel()
	listen := func(x *world) (stop func() []events.Event) {
		recv, err := x.app.Events(context.Background())
		if err != nil {
			x.t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var got []events.Event
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = recv.Capture(ctx, map[string]func(events.Event){"*": func(e events.Event) { got = append(got, e) }})
		}()
		return func() []events.Event {
			pause(time.Second)
			cancel()
			<-done
			if err := recv.Close(); err != nil {
				x.t.Error(err)
			}
			return got
		}
	}
	count := func(got []events.Event) map[string]int {
		n := map[string]int{}
		for _, e := range got {
			n[e.Type]++
		}
		return n
	}
	t.Run("TaskAndWorkerEvents", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var h *lovage.Handle[Order, string]
			x := build(t, setup{cfg: worker.Config{TaskEvents: true, Hostname: "w1@here"}, tasks: func(app *lovage.App) { h = lovage.Func(app, "t.obey", obey) }})
			stop := listen(x)
			x.start()
			id := delay(x, h, Order{"work"})
			for _, do := range []string{"fail", "retry", "reject"} {
				delay(x, h, Order{do})
			}
			delay(x, h, Order{"work"}, lovage.Expires(time.Nanosecond))
			if _, err := x.app.Send(x.t.Context(), "t.nobody.knows", lovage.Args{}); err != nil {
				x.t.Fatal(err)
			}
			pause(5 * time.Minute)
			x.stop()
			got := stop()
			want := map[string]int{
				events.WorkerOnline: 1, events.WorkerOffline: 1, events.TaskReceived: 6, events.TaskStarted: 6,
				events.TaskSucceeded: 2, events.TaskFailed: 2 /* one is unknown */, events.TaskRetried: 2, events.TaskRejected: 1, events.TaskRevoked: 1,
			}
			n := count(got)
			for typ, times := range want {
				if n[typ] != times {
					t.Errorf("events %s: got %d, want %d", typ, n[typ], times)
				}
			}
			if n[events.WorkerHeartbeat] < 145 || n[events.WorkerHeartbeat] > 152 {
				t.Errorf("heartbeats in 5 minutes: got %d, want about 150", n[events.WorkerHeartbeat])
			}
			for _, e := range got {
				if e.Type == events.TaskSucceeded && e.UUID == id && (e.Hostname != "w1@here" || e.Fields["result"] != "'done work'") {
					t.Errorf("task-succeeded: got %+v", e)
				}
			}
			x.invariants()
		})
	})
	t.Run("WorkerEventsWithoutE", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var h *lovage.Handle[Order, string]
			x := build(t, setup{tasks: func(app *lovage.App) { h = lovage.Func(app, "t.obey", obey) }})
			stop := listen(x)
			x.start()
			delay(x, h, Order{"work"})
			pause(time.Minute)
			x.stop()
			n := count(stop())
			if n[events.TaskSucceeded] != 0 || n[events.WorkerHeartbeat] < 25 {
				t.Errorf("events: got %v, want heartbeats and no task events", n)
			}
			x.invariants()
		})
	})
	t.Run("ABrokerWithoutFanoutRunsTasks", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[Order, string]
		in(t, setup{conn: func(c broker.Conn) broker.Conn { return struct{ broker.Conn }{c} }, cfg: worker.Config{TaskEvents: true}, tasks: func(app *lovage.App) {
			h = lovage.Func(app, "t.obey", obey)
		}}, func(x *world) {
			id := delay(x, h, Order{"work"})
			pause(time.Minute)
			x.wantState(id, lovage.Success)
			x.wantLog(1, "events are not sent")
		})
	})
}
