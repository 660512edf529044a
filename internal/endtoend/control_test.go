package endtoend_test

import (
	"context"
	"crypto/rand"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	_ "github.com/lovage-go/lovage/backend/redisbackend"
	"github.com/lovage-go/lovage/broker"
	_ "github.com/lovage-go/lovage/broker/redisbroker"
	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/internal/redisconn"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

// brokers are all stores that are broker and result store in one.
var brokers = map[string]func(t *testing.T) string{
	"memory": func(t *testing.T) string {
		return "memory://" + strings.ReplaceAll(t.Name(), "/", "-") + "-" + rand.Text()
	},
	"sqlite": file,
	"redis":  func(t *testing.T) string { s := testenv.Redis(t); return s.URL(s.DB(t)) },
}

// onEvery runs a test on each broker.
func onEvery(t *testing.T, test func(t *testing.T, url string)) {
	t.Parallel()
	for name, open := range brokers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

// member is a worker of a fleet, in a process of its own as far as it can tell.
type member struct {
	app   *lovage.App
	w     *worker.Worker
	ended chan error
	stop  func()
}

// member starts a worker on a store.
func startMember(t *testing.T, conf lovage.Config, log *logbook, cfg worker.Config, tasks func(*lovage.App)) *member {
	t.Helper()
	app := lovage.New("proj", conf, lovage.WithLogger(slog.New(log)))
	tasks(app)
	ready := make(chan struct{})
	cfg.Ready = func(worker.Info) { close(ready) }
	m := &member{app: app, w: worker.New(app, cfg), ended: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { m.ended <- m.w.Run(ctx) }()
	stopped := false
	m.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := receive(t, m.ended); err != nil {
			t.Errorf("%s: %v", cfg.Hostname, err)
		}
		if err := app.Close(context.Background()); err != nil {
			t.Errorf("%s: close: %v", cfg.Hostname, err)
		}
	}
	t.Cleanup(m.stop)
	receive(t, ready)
	return m
}

func startClient(t *testing.T, url string) *lovage.App {
	t.Helper()
	app := lovage.New("client", lovage.Config{BrokerURL: url, ResultBackend: url}, lovage.WithLogger(slog.New(slog.DiscardHandler)))
	t.Cleanup(func() {
		if err := app.Close(context.Background()); err != nil {
			t.Errorf("client: close: %v", err)
		}
	})
	return app
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not after %s", what, patience)
		}
		<-tick.C
	}
}

// TestRemoteControl runs each command against workers on each broker, and wants
// the replies that Celery's workers gave.
func TestRemoteControl(t *testing.T) {
	onEvery(t, func(t *testing.T, url string) {
		log := newLogbook()
		tasks := func(app *lovage.App) {
			withAdd(app)
			lovage.Func(app, "t.nap", func(ctx context.Context, _ lovage.Args) (any, error) {
				<-ctx.Done()
				return nil, context.Cause(ctx)
			})
		}
		conf := lovage.Config{BrokerURL: url, ResultBackend: url}
		a := startMember(t, conf, log, worker.Config{Hostname: "a@host", Concurrency: 2}, tasks)
		b := startMember(t, conf, log, worker.Config{Hostname: "b@host", Concurrency: 2, Queues: []string{"idle"}}, tasks)
		client := startClient(t, url)
		c, ctx := client.Control(), t.Context()
		nap := lovage.Remote[lovage.Args, any](client, "t.nap")
		add := lovage.Remote[addArgs, int](client, "t.add")
		both := control.Options{Reply: true, Timeout: patience, Limit: 2}
		toA := control.Options{Reply: true, Timeout: patience, Destination: []string{"a@host"}}

		// Who is meant.
		for name, o := range map[string]control.Options{
			"a@host b@host": both, "a@host": toA,
			"b@host":  {Reply: true, Timeout: patience, Limit: 1, Pattern: "b@*"},
			"a@host ": {Reply: true, Timeout: patience, Limit: 1, Pattern: "^a.*t$", Matcher: control.PCRE},
		} {
			replies, err := c.Ping(ctx, o)
			var nodes []string
			for _, r := range replies {
				nodes = append(nodes, r.Node)
				if r.OK() != "pong" || r.Clock == 0 || r.Ticket == "" {
					t.Errorf("ping: got %+v", r)
				}
			}
			slices.Sort(nodes)
			if err != nil || !slices.Equal(nodes, strings.Fields(name)) {
				t.Errorf("%s: got %v, %v", name, nodes, err)
			}
		}
		if replies, err := c.Ping(ctx, control.Options{Destination: []string{"nobody@nowhere"}, Timeout: 50 * time.Millisecond}); err != nil || len(replies) > 0 {
			t.Errorf("nobody: got %v, %v; want no reply and no error", replies, err)
		}

		// Each command to one of them, with its text.
		running, err := nap.Delay(ctx, lovage.Args{})
		if err != nil {
			t.Fatal(err)
		}
		until(t, "the task runs", func() bool { return a.w.Stats().Active == 1 })
		for _, call := range []struct {
			method, reply string
			args          map[string]any
		}{
			{"revoke", `{"ok":"tasks {'x1'} flagged as revoked"}`, map[string]any{"task_id": "x1"}},
			{"terminate", `{"ok":"terminate: tasks unknown"}`, map[string]any{"signal": "KILL", "task_id": "x2"}},
			{"revoke", `{"ok":"terminate: ` + running.ID() + `"}`, map[string]any{"task_id": running.ID(), "terminate": true, "signal": "SIGTERM"}},
			{"revoke_by_stamped_headers", `{"ok":"headers {'tenant': ['acme', 'other']} flagged as revoked, but not terminated"}`, map[string]any{"headers": map[string]any{"tenant": []string{"acme", "other"}}}},
			{"rate_limit", `{"ok":"new rate limit set successfully"}`, map[string]any{"task_name": "t.add", "rate_limit": "100/s"}},
			{"rate_limit", `{"ok":"rate limit disabled successfully"}`, map[string]any{"task_name": "t.add", "rate_limit": 0}},
			{"rate_limit", `{"error":"unknown task"}`, map[string]any{"task_name": "t.nope", "rate_limit": "1/s"}},
			{"time_limit", `{"ok":"time limits set successfully"}`, map[string]any{"task_name": "t.nap", "soft": 60, "hard": 120}},
			{"time_limit", `{"error":"unknown task"}`, map[string]any{"task_name": "t.nope", "soft": nil, "hard": 120}},
			{"pool_grow", `{"ok":"pool will grow"}`, map[string]any{"n": 2}},
			{"pool_shrink", `{"ok":"pool will shrink"}`, map[string]any{"n": 1}},
			{"pool_restart", `{"error":"ValueError('Pool restarts not enabled')"}`, map[string]any{"modules": nil, "reload": false, "reloader": nil}},
			{"autoscale", `{"error":"ValueError('Autoscale not enabled')"}`, map[string]any{"max": 5, "min": 2}},
			{"enable_events", `{"ok":"task events enabled"}`, nil},
			{"enable_events", `{"ok":"task events already enabled"}`, nil},
			{"disable_events", `{"ok":"task events disabled"}`, nil},
			{"heartbeat", `null`, nil},
			{"election", `null`, map[string]any{"id": "e1", "topic": "task", "action": nil}},
			{"add_consumer", `{"ok":"add consumer extra"}`, map[string]any{"queue": "extra", "exchange": nil, "exchange_type": "direct", "routing_key": nil}},
			{"no_such_command", `{"error":"KeyError('no_such_command')"}`, nil},
			{"query_task", `{}`, map[string]any{"ids": []string{"x"}}},
			{"active", `[]`, map[string]any{"safe": nil}},
			{"reserved", `[]`, nil},
			{"scheduled", `[]`, nil},
			{"registered", `["t.add","t.nap"]`, nil},
		} {
			if call.method == "active" {
				until(t, "the terminated run ends", func() bool { return a.w.Stats().Active == 0 })
			}
			replies, err := c.Broadcast(ctx, call.method, call.args, toA)
			if err != nil || len(replies) != 1 || string(replies[0].Value) != call.reply {
				t.Errorf("%s %v: got %v, %v; want %s", call.method, call.args, replies, err, call.reply)
			}
		}
		wantState(t, client, "x1", lovage.Revoked)
		wantState(t, client, running.ID(), lovage.Revoked)
		if size := a.w.Stats().Slots; size != 3 {
			t.Errorf("slots: got %d, want 3", size)
		}
		res, err := add.Delay(ctx, addArgs{X: 1, Y: 2}, lovage.Queue("extra"))
		if err != nil {
			t.Fatal(err)
		}
		if n, err := res.Get(ctx); err != nil || n != 3 {
			t.Errorf("a task on the queue that was added: got %d, %v", n, err)
		}
		replies, err := c.CancelConsumer(ctx, "extra", toA)
		if err != nil || len(replies) != 1 || replies[0].OK() != "no longer consuming from extra" {
			t.Errorf("cancel_consumer: got %v, %v", replies, err)
		}

		// What waits for its time is listed by the workers of its queue.
		later, err := add.Delay(ctx, addArgs{X: 1}, lovage.Countdown(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		until(t, "the task is listed as scheduled", func() bool {
			var list []control.Scheduled
			replies, err := c.Inspect(ctx, "scheduled", nil, toA)
			return err == nil && len(replies) == 1 && replies[0].Decode(&list) == nil && len(list) == 1 &&
				list[0].Request.ID == later.ID() && list[0].Request.Name == "t.add" && strings.HasPrefix(list[0].ETA, time.Now().UTC().Format("2006-01"))
		})

		// hello has what was revoked, and takes over what the other had.
		replies, err = c.Inspect(ctx, "hello", map[string]any{"from_node": "c@host", "revoked": map[string]any{"theirs": 1.5}}, toA)
		if err != nil || len(replies) != 1 || !strings.Contains(string(replies[0].Value), `"x1"`) || !strings.Contains(string(replies[0].Value), `"theirs"`) {
			t.Errorf("hello: got %v, %v", replies, err)
		}

		if _, err := c.Shutdown(ctx, control.Options{Destination: []string{"b@host"}}); err != nil {
			t.Error(err)
		}
		if err := receive(t, b.ended); err != nil {
			t.Errorf("the worker that was shut down: %v", err)
		}
		b.ended <- nil // for the cleanup
		if _, err := c.Ping(ctx, toA); err != nil {
			t.Error(err)
		}
		if strings.HasPrefix(url, "redis://") {
			noReplyKeys(t, url)
		}
	})
}

// noReplyKeys wants no list of replies left behind.
func noReplyKeys(t *testing.T, url string) {
	t.Helper()
	rdb, err := redisconn.Dial(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	keys, err := rdb.Do(t.Context(), rdb.B().Keys().Pattern("*reply*").Build()).AsStrSlice()
	if err != nil || len(keys) > 0 {
		t.Errorf("keys of replies are left: %q, %v", keys, err)
	}
}

func wantState(t *testing.T, app *lovage.App, id string, want lovage.State) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if m, err := app.Result(id).Wait(ctx, func(m *lovage.Meta) bool { return m.Status == want }); err != nil {
		t.Errorf("state of %s: got %+v, %v; want %s", id, m, err, want)
	}
}

// TestRevokeOutlivesWorkers: what was revoked when nobody was there is not run by
// who comes later, on any store.
func TestRevokeOutlivesWorkers(t *testing.T) {
	onEvery(t, func(t *testing.T, url string) {
		client := startClient(t, url)
		add := lovage.Remote[addArgs, int](client, "t.add")
		gone, err := add.Delay(t.Context(), addArgs{X: 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := gone.Revoke(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		kept, err := add.Delay(t.Context(), addArgs{X: 2})
		if err != nil {
			t.Fatal(err)
		}
		m := startMember(t, lovage.Config{BrokerURL: url, ResultBackend: url}, newLogbook(), worker.Config{Hostname: "a@host", WithoutMingle: true}, withAdd)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if n, err := kept.Get(ctx); err != nil || n != 2 {
			t.Errorf("the other task: got %d, %v", n, err)
		}
		wantState(t, client, gone.ID(), lovage.Revoked)
		until(t, "one is counted as revoked and one as succeeded", func() bool {
			s := m.w.Stats()
			return s.Revoked == 1 && s.Succeeded == 1
		})
	})
}

// TestWorkersThatShareAQueue know different tasks, and each message comes to one
// that knows it.
func TestWorkersThatShareAQueue(t *testing.T) {
	onEvery(t, func(t *testing.T, url string) {
		log := newLogbook()
		conf := lovage.Config{BrokerURL: url, ResultBackend: url, WorkerUnknownTask: "return"}
		knows := func(name string) func(*lovage.App) {
			return func(app *lovage.App) {
				lovage.Func(app, name, func(context.Context, lovage.Args) (string, error) { return name, nil })
			}
		}
		a := startMember(t, conf, log, worker.Config{Hostname: "a@host", Concurrency: 2}, knows("t.a"))
		b := startMember(t, conf, log, worker.Config{Hostname: "b@host", Concurrency: 2}, knows("t.b"))
		client := startClient(t, url)
		ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
		defer cancel()
		var all []*lovage.Result[any]
		for i := range 20 {
			res, err := client.Send(ctx, []string{"t.a", "t.b"}[i%2], lovage.Args{})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, res)
		}
		for i, res := range all {
			if got, err := res.Get(ctx); err != nil || got != []string{"t.a", "t.b"}[i%2] {
				t.Fatalf("task %d: got %v, %v", i, got, err)
			}
		}
		nobody, err := client.Send(ctx, "t.c", lovage.Args{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := nobody.Get(ctx); err == nil || !strings.Contains(err.Error(), "NotRegistered") {
			t.Errorf("a task that nobody knows: got %v, want NotRegistered", err)
		}
		if met := a.w.Stats().Received + b.w.Stats().Received; met > 21*20 {
			t.Errorf("21 messages were met %d times: a hot loop", met)
		}
		conn, err := client.OpenBroker(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		dead, err := conn.(broker.DeadLetterer).DeadLetters(ctx, "", "", 10)
		if err != nil || len(dead) != 1 || dead[0].TaskID != nobody.ID() {
			t.Errorf("dead letters: got %+v, %v; want the one that nobody knows", dead, err)
		}
		until(t, "the warning at the start", func() bool { return len(log.find("Queue celery is shared with a@host")) == 1 })
	})
}
