package worker_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/memory"
	"github.com/lovage-go/lovage/worker"
)

// one is for calls that wait for the one worker of a world.
var one = control.Options{Reply: true, Limit: 1}

// ask wants one reply and returns its text.
func ask(x *world, replies []control.Reply, err error) string {
	x.t.Helper()
	if err != nil || len(replies) != 1 {
		x.t.Fatalf("got %v, %v; want one reply\n%s", replies, err, x.log)
	}
	if replies[0].Node != x.w.Hostname() {
		x.t.Errorf("reply of %q, want %q", replies[0].Node, x.w.Hostname())
	}
	if err := replies[0].Err(); err != nil {
		return err.(*control.NodeError).Text
	}
	return replies[0].OK()
}

func want(x *world, got, want string) {
	x.t.Helper()
	if got != want {
		x.t.Errorf("reply: got %q, want %q", got, want)
	}
}

func TestRemoteRevokeAndTerminate(t *testing.T) {
	t.Parallel()
	var nap, quick *lovage.Handle[lovage.Args, any]
	cause := make(chan error, 1)
	in(t, setup{cfg: worker.Config{Concurrency: 1}, tasks: func(app *lovage.App) {
		nap = lovage.Func(app, "nap", func(ctx context.Context, _ lovage.Args) (any, error) {
			<-ctx.Done()
			cause <- context.Cause(ctx)
			return nil, context.Cause(ctx)
		})
		quick = lovage.Func(app, "quick", func(context.Context, lovage.Args) (any, error) { return 1, nil })
	}}, func(x *world) {
		ctx, c := context.Background(), x.app.Control()
		running := delay(x, nap, lovage.Args{})
		pause(time.Millisecond)
		waiting, err := quick.Delay(ctx, lovage.Args{})
		if err != nil {
			x.t.Fatal(err)
		}
		if err := waiting.Revoke(ctx, false); err != nil {
			x.t.Fatal(err)
		}
		replies, err := c.Terminate(ctx, []string{"stranger"}, one)
		want(x, ask(x, replies, err), "terminate: tasks unknown")

		var active []control.TaskInfo
		replies, err = c.Inspect(ctx, "active", nil, one)
		ask(x, replies, err)
		if err := replies[0].Decode(&active); err != nil || len(active) != 1 || active[0].ID != running || active[0].TimeStart == nil || active[0].Type != "nap" {
			x.t.Errorf("active: got %s (%v), want the run of %s", replies[0].Value, err, running)
		}
		replies, err = c.Terminate(ctx, []string{running}, one)
		want(x, ask(x, replies, err), "terminate: "+running)
		if got := <-cause; !errors.Is(got, lovage.ErrRevoked) {
			x.t.Errorf("cause in the run: got %v, want ErrRevoked", got)
		}
		pause(time.Second)
		x.wantState(running, lovage.Revoked)
		x.wantState(waiting.ID(), lovage.Revoked)
		replies, err = c.Inspect(ctx, "revoked", nil, one)
		ask(x, replies, err)
		var ids []string
		if err := replies[0].Decode(&ids); err != nil || !slices.Contains(ids, running) || !slices.Contains(ids, waiting.ID()) || len(ids) != 3 {
			x.t.Errorf("revoked: got %s (%v), want three ids", replies[0].Value, err)
		}
	})
}

func TestRemoteLimits(t *testing.T) {
	t.Parallel()
	var nap, tick *lovage.Handle[lovage.Args, any]
	in(t, setup{conf: lovage.Config{TaskTimeLimit: time.Hour}, tasks: func(app *lovage.App) {
		nap = lovage.Func(app, "nap", func(ctx context.Context, _ lovage.Args) (any, error) {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		})
		tick = lovage.Func(app, "tick", func(context.Context, lovage.Args) (any, error) { return nil, nil })
	}}, func(x *world) {
		ctx, c := context.Background(), x.app.Control()
		replies, err := c.TimeLimit(ctx, "nap", 0, 3*time.Second, one)
		want(x, ask(x, replies, err), "time limits set successfully")
		id := delay(x, nap, lovage.Args{})
		pause(2900 * time.Millisecond)
		if s := x.state(id); s.Ready() {
			x.t.Errorf("state before the limit: got %s", s)
		}
		pause(200 * time.Millisecond)
		x.wantState(id, lovage.Failure)
		replies, err = c.TimeLimit(ctx, "nap", 5*time.Second, time.Second, one)
		want(x, ask(x, replies, err), "ValueError('the soft time limit (5s) is above the hard one (1s)')")
		replies, err = c.TimeLimit(ctx, "nope", 1, 1, one)
		want(x, ask(x, replies, err), "unknown task")

		replies, err = c.RateLimit(ctx, "tick", "1/m", one)
		want(x, ask(x, replies, err), "new rate limit set successfully")
		replies, err = c.Inspect(ctx, "registered", nil, one)
		ask(x, replies, err)
		if got := string(replies[0].Value); got != `["nap","tick [rate_limit=1/m]"]` {
			x.t.Errorf("registered: got %s", got)
		}
		first, second := delay(x, tick, lovage.Args{}), delay(x, tick, lovage.Args{})
		pause(50 * time.Second)
		if a, b := x.state(first).Ready(), x.state(second).Ready(); a == b {
			x.t.Errorf("after 50 s at one a minute: ready %t and %t, want one of them", a, b)
		}
		pause(20 * time.Second)
		x.wantState(first, lovage.Success)
		x.wantState(second, lovage.Success)
		replies, err = c.RateLimit(ctx, "tick", "0", one)
		want(x, ask(x, replies, err), "rate limit disabled successfully")
		for range 3 {
			id := delay(x, tick, lovage.Args{})
			pause(time.Second)
			x.wantState(id, lovage.Success)
		}
	})
}

func TestRemotePoolOfOne(t *testing.T) {
	t.Parallel()
	in(t, setup{cfg: worker.Config{Pool: "solo"}}, func(x *world) {
		replies, err := x.app.Control().PoolGrow(context.Background(), 2, one)
		want(x, ask(x, replies, err), "ValueError('the pool solo has one slot: start the worker with another pool')")
		if got := x.w.Stats().Slots; got != 1 {
			x.t.Errorf("slots: got %d, want 1", got)
		}
	})
}

func TestRemotePoolAndQueues(t *testing.T) {
	t.Parallel()
	var quick *lovage.Handle[lovage.Args, any]
	in(t, setup{cfg: worker.Config{Concurrency: 2}, tasks: func(app *lovage.App) {
		quick = lovage.Func(app, "quick", func(context.Context, lovage.Args) (any, error) { return 1, nil })
	}}, func(x *world) {
		ctx, c := context.Background(), x.app.Control()
		replies, err := c.PoolGrow(ctx, 3, one)
		want(x, ask(x, replies, err), "pool will grow")
		if got := x.w.Stats().Slots; got != 5 {
			x.t.Errorf("slots: got %d, want 5", got)
		}
		replies, err = c.PoolShrink(ctx, 4, one)
		want(x, ask(x, replies, err), "pool will shrink")
		if got := x.w.Stats().Slots; got != 1 {
			x.t.Errorf("slots: got %d, want 1", got)
		}
		replies, err = c.PoolShrink(ctx, 1, one)
		if got := ask(x, replies, err); !strings.HasPrefix(got, "ValueError(") {
			x.t.Errorf("the last slot: got %q, want a ValueError", got)
		}

		id := delay(x, quick, lovage.Args{}, lovage.Queue("extra"))
		pause(10 * time.Second)
		x.wantState(id, "")
		replies, err = c.AddConsumer(ctx, broker.Queue{Name: "extra"}, one)
		want(x, ask(x, replies, err), "add consumer extra")
		pause(time.Second)
		x.wantState(id, lovage.Success)
		for _, q := range []string{"extra", "celery"} {
			replies, err = c.CancelConsumer(ctx, q, one)
			want(x, ask(x, replies, err), "no longer consuming from "+q)
		}
		id = delay(x, quick, lovage.Args{})
		pause(20 * time.Second)
		x.wantState(id, "")
		replies, err = c.AddConsumer(ctx, broker.Queue{Name: "celery"}, one)
		want(x, ask(x, replies, err), "add consumer celery")
		pause(time.Second)
		x.wantState(id, lovage.Success)

		replies, err = c.Inspect(ctx, "stats", nil, one)
		ask(x, replies, err)
		var stats struct {
			Total  map[string]int
			PID    int
			Clock  string
			Uptime int
			Pool   map[string]any
		}
		if err := replies[0].Decode(&stats); err != nil || stats.Total["quick"] != 2 || stats.PID == 0 || stats.Clock == "" ||
			stats.Uptime < 30 || stats.Pool["max-concurrency"] != 1.0 {
			x.t.Errorf("stats: got %s (%v)", replies[0].Value, err)
		}
	})
}

func TestRemoteShutdown(t *testing.T) {
	t.Parallel()
	in(t, setup{}, func(x *world) {
		if _, err := x.app.Control().Shutdown(context.Background(), control.Options{Destination: []string{"other@host"}}); err != nil {
			x.t.Fatal(err)
		}
		pause(time.Second)
		select {
		case err := <-x.ended:
			x.t.Fatalf("the worker ended (%v), but another was meant", err)
		default:
		}
		replies, err := x.app.Control().Shutdown(context.Background(), one)
		if err != nil || len(replies) != 0 {
			x.t.Errorf("got %v, %v; want no reply", replies, err)
		}
		if err := <-x.ended; err != nil {
			x.t.Errorf("Run: got %v, want nil", err)
		}
		x.wantLog(1, "Got shutdown from remote")
		x.cancel()
		x.cancel = nil
	})
}

func TestRemoteControlIsHeardAgainAfterALoss(t *testing.T) {
	t.Parallel()
	in(t, setup{store: []memory.Option{memory.WithFaults(memory.Plan{Faults: []memory.Fault{
		{Op: memory.OpListen, Nth: 1, Kind: memory.Fail}, {Op: memory.OpClaim, Nth: 3, Kind: memory.Fail},
	}})}}, func(x *world) {
		pause(time.Second)
		x.wantLog(1, "remote control is not heard")
		x.wantLog(1, "remote control is heard again")
		replies, err := x.app.Control().Ping(context.Background(), one)
		want(x, ask(x, replies, err), "pong")
		pause(20 * time.Second)
		x.wantLog(1, "consumer: connection lost")
		replies, err = x.app.Control().Ping(context.Background(), control.Options{})
		want(x, ask(x, replies, err), "pong") // and by one mailbox only
	})
}

func TestRemoteControlOff(t *testing.T) {
	t.Parallel()
	off := false
	in(t, setup{conf: lovage.Config{WorkerEnableRemoteControl: &off}}, func(x *world) {
		replies, err := x.app.Control().Ping(context.Background(), one)
		if err != nil || len(replies) != 0 {
			x.t.Errorf("got %v, %v; want no reply", replies, err)
		}
	})
}

func TestCommandsOfTheProgram(t *testing.T) {
	t.Parallel()
	in(t, setup{cfg: worker.Config{Commands: []control.Command{{
		Name: "greet", Args: []string{"name"}, Run: func(_ context.Context, n control.Node, a control.Args) (any, error) {
			name, err := a.Text("name")
			return control.OK("hello %s from %s", name, n.Hostname()), err
		},
	}}}}, func(x *world) {
		replies, err := x.app.Control().Broadcast(context.Background(), "greet", map[string]any{"name": "you"}, one)
		want(x, ask(x, replies, err), "hello you from "+x.w.Hostname())
	})
}
