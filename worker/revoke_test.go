package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/events"
	"github.com/lovage-go/lovage/protocol"
	"github.com/lovage-go/lovage/worker"
)

// quickAndNap are two tasks: one that ends at once and one that waits.
func quickAndNap(quick, nap **lovage.Handle[lovage.Args, any], ran *[]string) func(*lovage.App) {
	return func(app *lovage.App) {
		*quick = lovage.Func(app, "quick", func(ctx context.Context, _ lovage.Args) (any, error) {
			*ran = append(*ran, lovage.RequestFrom(ctx).ID)
			return 1, nil
		})
		*nap = lovage.Func(app, "nap", func(ctx context.Context, _ lovage.Args) (any, error) {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		})
	}
}

// put stores an end as another worker would.
func (x *world) put(id string, s lovage.State) {
	x.t.Helper()
	b := x.store.Backend()
	defer b.Close()
	meta := protocol.ResultMeta{Status: s, Result: json.RawMessage("1"), TaskID: id}
	if err := b.Store(context.Background(), &backend.Record{TaskID: id, State: s, Meta: meta.AppendJSON(nil)}); err != nil {
		x.t.Fatal(err)
	}
}

func TestRevokeIsStoredAtOnce(t *testing.T) {
	t.Parallel()
	var quick, nap *lovage.Handle[lovage.Args, any]
	var ran []string
	in(t, setup{cfg: worker.Config{Concurrency: 1}, tasks: quickAndNap(&quick, &nap, &ran)}, func(x *world) {
		ctx, c := context.Background(), x.app.Control()
		x.put("won", lovage.Success)
		x.put("lost", lovage.Failure)
		x.put("tries", lovage.StateRetry)
		ids := []string{"never-sent", "won", "lost", "tries"}
		replies, err := c.Revoke(ctx, ids, one)
		want(x, ask(x, replies, err), "tasks {'never-sent', 'won', 'lost', 'tries'} flagged as revoked")
		for id, state := range map[string]lovage.State{"never-sent": lovage.Revoked, "won": lovage.Success, "lost": lovage.Failure, "tries": lovage.Revoked} {
			x.wantState(id, state) // when the reply is there, the records are
		}
		meta, err := x.app.Result("never-sent").Wait(ctx, func(m *lovage.Meta) bool { return m.Status.Ready() })
		if err != nil || string(meta.Result) != `{"exc_type": "TaskRevokedError", "exc_message": ["revoked"], "exc_module": "celery.exceptions"}` {
			x.t.Errorf("record: got %s, %v; want Celery's TaskRevokedError", meta.Result, err)
		}

		// One that waits for its time: REVOKED at once, and no run when it is due.
		later := delay(x, quick, lovage.Args{}, lovage.Countdown(time.Minute))
		replies, err = c.Revoke(ctx, []string{later}, one)
		ask(x, replies, err)
		x.wantState(later, lovage.Revoked)
		pause(2 * time.Minute)
		x.wantState(later, lovage.Revoked)
		if len(ran) > 0 || x.w.Stats().Revoked != 1 {
			x.t.Errorf("ran %q, %d revoked; want none and 1", ran, x.w.Stats().Revoked)
		}
	})
}

func TestRevokeWhileTheStoreIsAway(t *testing.T) {
	t.Parallel()
	var quick, nap *lovage.Handle[lovage.Args, any]
	var ran []string
	store := &awayStore{}
	in(t, setup{tasks: quickAndNap(&quick, &nap, &ran), backend: func(b backend.Backend) backend.Backend { store.Backend = b; return store }}, func(x *world) {
		store.away.Store(true)
		began := time.Now()
		replies, err := x.app.Control().Broadcast(context.Background(), "revoke", map[string]any{"task_id": "a"}, control.Options{Reply: true, Limit: 1, Timeout: 5 * time.Second})
		want(x, ask(x, replies, err), "tasks {'a'} flagged as revoked")
		if took := time.Since(began); took > 1100*time.Millisecond {
			x.t.Errorf("the reply took %s, want about a second at most", took)
		}
		store.away.Store(false)
		pause(5 * time.Second)
		x.wantState("a", lovage.Revoked)
		x.wantLog(1, "revokes are not in the result store yet")
	})
}

func TestARevokeIsHeededByAWorkerThatStartsLater(t *testing.T) {
	t.Parallel()
	var quick, nap *lovage.Handle[lovage.Args, any]
	var ran []string
	bubble(t, func(t *testing.T) {
		x := build(t, setup{tasks: quickAndNap(&quick, &nap, &ran), cfg: worker.Config{WithoutMingle: true}})
		ctx := context.Background()
		lost, err := quick.Delay(ctx, lovage.Args{})
		if err != nil {
			t.Fatal(err)
		}
		kept := delay(x, quick, lovage.Args{})
		if err := lost.Revoke(ctx, false); err != nil { // nobody is there to hear it
			t.Fatal(err)
		}
		x.start()
		pause(time.Second)
		x.wantState(lost.ID(), lovage.Revoked)
		x.wantState(kept, lovage.Success)
		if !slices.Equal(ran, []string{kept}) {
			t.Errorf("ran %q, want %q", ran, kept)
		}
		x.stop()
		x.invariants()
		list, err := x.app.Revokes(ctx)
		if err == nil && len(list) != 1 {
			t.Errorf("list of revokes: got %v", list)
		}
	})
}

func TestRevokesAreForgottenInTime(t *testing.T) {
	t.Parallel()
	var quick, nap *lovage.Handle[lovage.Args, any]
	var ran []string
	in(t, setup{tasks: quickAndNap(&quick, &nap, &ran), cfg: worker.Config{Concurrency: 1}}, func(x *world) {
		ctx, c := context.Background(), x.app.Control()
		replies, err := c.Revoke(ctx, []string{"a"}, one)
		ask(x, replies, err)
		pause(3*time.Hour + time.Second)
		delay(x, quick, lovage.Args{}, lovage.TaskID("a"))
		pause(time.Second)
		x.wantState("a", lovage.Success)
		if list, err := x.app.Revokes(ctx); err != nil || len(list) > 0 {
			x.t.Errorf("the list still has %v (%v)", list, err)
		}
		many := make([]string, 50_001)
		for i := range many {
			many[i] = fmt.Sprint("id", i)
		}
		x.w.Revoke(false, many...)
		pause(time.Second)
		replies, err = c.Inspect(ctx, "revoked", nil, one)
		ask(x, replies, err)
		var ids []string
		if err := replies[0].Decode(&ids); err != nil || len(ids) != 50_000 || slices.Contains(ids, "id0") || !slices.Contains(ids, "id50000") {
			x.t.Errorf("revoked: got %d ids (%v), want 50000 without the oldest", len(ids), err)
		}
		if list, err := x.app.Revokes(ctx); err != nil || len(list) > 10_000 {
			x.t.Errorf("the list has %d ids (%v), want 10000 at most", len(list), err)
		}
	})
}

func TestRevokeByStamps(t *testing.T) {
	t.Parallel()
	signals := make(chan lovage.TaskRevoked, 8)
	in(t, setup{cfg: worker.Config{Concurrency: 2, TaskEvents: true}, tasks: func(app *lovage.App) {
		demo(app)
		app.Signals.TaskRevoked.Connect(func(_ context.Context, e lovage.TaskRevoked) { signals <- e })
	}}, func(x *world) {
		ctx, c := context.Background(), x.app.Control()
		send := func(id, stamps string) {
			stamped(x, `{"lang": "py", "task": "demo.tasks.nap", "id": "`+id+`", "root_id": "`+id+`", "stamps": `+stamps+`}`)
		}
		heard := listen(x)
		send("mine", `{"order": ["o1"], "n": [7]}`)
		send("other", `{"order": "o2"}`)
		replies, err := c.RevokeStamped(ctx, map[string]any{"order": "o9"}, true, one)
		want(x, ask(x, replies, err), "headers {'order': 'o9'} were not terminated")
		replies, err = c.RevokeStamped(ctx, map[string]any{"n": []int{7, 8}}, true, one)
		want(x, ask(x, replies, err), "headers defaultdict(<class 'set'>, {'n': {7}}) revoked")
		pause(time.Second)
		x.wantState("mine", lovage.Revoked)
		if e := heard(events.TaskRevoked); len(e) != 1 || e[0].Fields["terminated"] != true || fmt.Sprint(e[0].Fields["signum"]) != "15" || e[0].Fields["expired"] != false {
			x.t.Errorf("events: got %v, want one task-revoked, terminated by 15", e)
		}
		if e := <-signals; !e.Terminated || e.Expired || e.Request.ID != "mine" || e.Signal != int(syscall.SIGTERM) {
			x.t.Errorf("signal: got %+v, want mine, terminated", e)
		}
		send("late", `{"order": "x", "n": 8}`) // one value, and not a list
		pause(time.Second)
		x.wantState("late", lovage.Revoked)
		replies, err = c.Terminate(ctx, []string{"other"}, one)
		want(x, ask(x, replies, err), "terminate: other")
		pause(time.Second)
		x.wantState("other", lovage.Revoked)
	})
}

// listen collects events; the func returns those of a type so far.
func listen(x *world) func(typ string) []events.Event {
	x.t.Helper()
	rec, err := x.app.Events(context.Background())
	if err != nil {
		x.t.Fatal(err)
	}
	x.t.Cleanup(func() { rec.Close() })
	var all []events.Event
	return func(typ string) (list []events.Event) {
		for {
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			e, err := rec.Next(ctx)
			cancel()
			if errors.Is(err, context.DeadlineExceeded) {
				break
			}
			if err != nil {
				x.t.Fatal(err)
			}
			all = append(all, e)
		}
		for _, e := range all {
			if e.Type == typ {
				list = append(list, e)
			}
		}
		all = slices.DeleteFunc(all, func(e events.Event) bool { return e.Type == typ })
		return list
	}
}

func TestEventsAreTurnedOnAndOff(t *testing.T) {
	t.Parallel()
	var quick, nap *lovage.Handle[lovage.Args, any]
	var ran []string
	in(t, setup{tasks: quickAndNap(&quick, &nap, &ran)}, func(x *world) {
		ctx, c := context.Background(), x.app.Control()
		heard := listen(x)
		round := func(tasks int) {
			x.t.Helper()
			delay(x, quick, lovage.Args{})
			pause(4 * time.Second)
			for _, typ := range []string{events.TaskReceived, events.TaskStarted, events.TaskSucceeded} {
				if got := len(heard(typ)); got != tasks {
					x.t.Errorf("%s: got %d, want %d", typ, got, tasks)
				}
			}
			if got := len(heard(events.WorkerHeartbeat)); got < 1 {
				x.t.Errorf("heartbeats: got %d, want them to go on", got)
			}
		}
		round(0) // as without -E
		for _, step := range []struct {
			do    func(context.Context, control.Options) ([]control.Reply, error)
			reply string
			tasks int
		}{
			{c.EnableEvents, "task events enabled", 1}, {c.EnableEvents, "task events already enabled", 1},
			{c.DisableEvents, "task events disabled", 0}, {c.DisableEvents, "task events already disabled", 0},
		} {
			replies, err := step.do(ctx, one)
			want(x, ask(x, replies, err), step.reply)
			round(step.tasks)
		}
	})
}

func TestEventsWithoutHeartbeats(t *testing.T) {
	t.Parallel()
	var quick, nap *lovage.Handle[lovage.Args, any]
	var ran []string
	in(t, setup{cfg: worker.Config{WithoutHeartbeat: true}, tasks: quickAndNap(&quick, &nap, &ran)}, func(x *world) {
		heard := listen(x)
		replies, err := x.app.Control().EnableEvents(context.Background(), one)
		want(x, ask(x, replies, err), "task events enabled")
		delay(x, quick, lovage.Args{})
		pause(10 * time.Second)
		if got, beats := len(heard(events.TaskSucceeded)), len(heard(events.WorkerHeartbeat)); got != 1 || beats != 0 {
			x.t.Errorf("got %d task-succeeded and %d heartbeats, want 1 and none", got, beats)
		}
		if strings.Contains(x.log.String(), "panic") {
			x.t.Error(x.log)
		}
	})
}

func TestHeartbeatIsSentWhenAsked(t *testing.T) {
	t.Parallel()
	in(t, setup{cfg: worker.Config{HeartbeatInterval: time.Hour}}, func(x *world) {
		heard := listen(x)
		before := time.Now()
		replies, err := x.app.Control().Heartbeat(context.Background(), one)
		if err != nil || len(replies) != 1 || string(replies[0].Value) != "null" || time.Since(before) > 0 {
			x.t.Errorf("got %v, %v after %s; want null at once", replies, err, time.Since(before))
		}
		pause(time.Second)
		if got := heard(events.WorkerHeartbeat); len(got) != 1 {
			x.t.Errorf("heartbeats: got %d, want the one asked for", len(got))
		}
	})
}
