package amqpbroker_test

import (
	"context"
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/events"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

func limit(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// controlPy asks the Go worker as a Python program does.
const controlPy = `
import json, time
import tasks as t
c = t.app.control
out = {'ping': c.ping(timeout=30, limit=1), 'registered': c.inspect(timeout=30, limit=1).registered()}
r = t.app.send_task('go.nap')
for _ in range(200):
    active = c.inspect(timeout=30, limit=1).active()
    if active and list(active.values())[0]: break
    time.sleep(0.05)
out['active'] = list(active.values())[0][0]['id'] == r.id
out['terminate'] = c.revoke(r.id, terminate=True, reply=True, timeout=30, limit=1)
try:
    r.get(timeout=20)
except Exception as e:
    out['raised'] = type(e).__name__
out['rate'] = c.rate_limit('go.add', '100/m', reply=True, timeout=30, limit=1)
out['hello'] = c.inspect(timeout=30, limit=1).hello('other@host', {'x': time.monotonic()})
from celery.utils.collections import LimitedSet
s = LimitedSet(maxlen=10, expires=3600)
s.update(list(out['hello'].values())[0]['revoked']); s.purge()
out['known'] = sorted(s)
out['id'] = r.id
print(json.dumps(out))
`

func TestInteropControlPythonToGo(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.queue = "celery"
	app := p.app()
	lovage.Func(app, "go.nap", func(ctx context.Context, _ lovage.Args) (any, error) {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	})
	goWorker(t, app)
	var got struct {
		Ping       []map[string]map[string]string
		Registered map[string][]string
		Active     bool
		Terminate  []map[string]map[string]string
		Raised, ID string
		Rate       []map[string]map[string]string
		Known      []string
	}
	out := testenv.Python(t, t.Context(), map[string]string{"tasks": p.tasks()}, controlPy)
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	only := func(list []map[string]map[string]string) string {
		for _, m := range list {
			for _, v := range m {
				return v["ok"]
			}
		}
		return ""
	}
	known := []string{got.ID, "x"}
	slices.Sort(known)
	if only(got.Ping) != "pong" || !got.Active || only(got.Terminate) != "terminate: "+got.ID || got.Raised != "TaskRevokedError" ||
		only(got.Rate) != "new rate limit set successfully" || !slices.Equal(got.Known, known) || len(got.Registered) != 1 {
		t.Errorf("Python got %s", out)
	}
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "-m", "celery", "-b", p.broker, "inspect", "ping", "-t", "5")
	text, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(text), "pong") || !strings.Contains(string(text), "1 node online") {
		t.Errorf("celery inspect ping: %v\n%s", err, text)
	}
}

func TestInteropControlGoToPython(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.queue = "celery"
	app := p.app()
	defer app.Close(context.Background())
	testenv.CeleryWorker(t, "tasks", p.tasks(), "-P", "solo", "-n", "py@%h")
	c, o := app.Control(), control.Options{Reply: true, Limit: 1, Timeout: patience}
	// A Celery worker says that it is ready a moment before it subscribes to its
	// mailbox, and pub/sub keeps nothing: it is asked until it answers.
	awake, first := limit(t, patience), control.Options{Reply: true, Limit: 1, Timeout: time.Second}
	for answers, err := c.Ping(awake, first); len(answers) == 0; answers, err = c.Ping(awake, first) {
		if err != nil {
			t.Fatalf("ping: %v", err)
		}
	}
	for _, call := range []struct {
		want string
		do   func() ([]control.Reply, error)
	}{
		{"pong", func() ([]control.Reply, error) { return c.Ping(t.Context(), o) }},
		{"tasks an-id flagged as revoked", func() ([]control.Reply, error) { return c.Revoke(t.Context(), []string{"an-id"}, o) }},
		{"terminate: tasks unknown", func() ([]control.Reply, error) { return c.Terminate(t.Context(), []string{"b"}, o) }},
		{"new rate limit set successfully", func() ([]control.Reply, error) { return c.RateLimit(t.Context(), "py.add", "10/m", o) }},
		{"rate limit disabled successfully", func() ([]control.Reply, error) { return c.RateLimit(t.Context(), "py.add", "", o) }},
		{"time limits set successfully", func() ([]control.Reply, error) {
			return c.TimeLimit(t.Context(), "py.add", time.Second, time.Minute, o)
		}},
		{"add consumer extra", func() ([]control.Reply, error) { return c.AddConsumer(t.Context(), broker.Queue{Name: "extra"}, o) }},
		{"no longer consuming from extra", func() ([]control.Reply, error) { return c.CancelConsumer(t.Context(), "extra", o) }},
	} {
		replies, err := call.do()
		if err != nil || len(replies) != 1 || !strings.HasPrefix(replies[0].Node, "py@") || replies[0].OK() != call.want {
			t.Errorf("got %+v, %v; want %q", replies, err, call.want)
		}
	}
	replies, err := c.Inspect(t.Context(), "revoked", nil, o)
	var ids []string
	if err != nil || len(replies) != 1 || replies[0].Decode(&ids) != nil || !slices.Contains(ids, "an-id") {
		t.Errorf("revoked: got %+v, %v; want an-id among them", replies, err)
	}
}

// eventsPy listens as Python's monitors do, sends a task to the Go worker when it
// does, and prints what it heard of it.
const eventsPy = `
import json
import tasks as t
heard, sent = [], {}
def on(event):
    if event.get('uuid') == sent['id']:
        heard.append(event['type'])
        if event['type'] == 'task-succeeded':
            receiver.should_stop = True
with t.app.connection() as c:
    receiver = t.app.events.Receiver(c, handlers={'*': on})
    receiver.on_consume_ready = lambda *a, **k: sent.update(id=t.go_add.delay(2, 3).id)
    receiver.capture(limit=None, timeout=20, wakeup=False)
print(json.dumps(heard))
`

func TestInteropEventsGoToPython(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	app := p.app()
	goWorkerWith(t, app, func(c *worker.Config) { c.TaskEvents = true })
	out := testenv.Python(t, limit(t, patience), map[string]string{"tasks": p.tasks()}, eventsPy)
	var heard []string
	if err := json.Unmarshal(out, &heard); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if want := []string{"task-received", "task-started", "task-succeeded"}; !slices.Equal(heard, want) {
		t.Errorf("Python heard %v, want %v", heard, want)
	}
}

func TestInteropEventsPythonToGo(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	app := p.app()
	defer app.Close(context.Background())
	ctx := limit(t, patience)
	conn, err := app.Broker(ctx)
	if err != nil {
		t.Fatal(err)
	}
	r, err := events.Listen(ctx, conn, events.ListenConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	testenv.CeleryWorker(t, "tasks", p.tasks(), "-P", "solo", "-Q", "q", "-n", "py@test", "-E")
	res, err := lovage.Remote[addArgs, int](app, "py.add").Delay(ctx, addArgs{X: 2, Y: 3})
	if err != nil {
		t.Fatal(err)
	}
	var heard []string
	for !slices.Contains(heard, "task-succeeded") {
		e, err := r.Next(ctx)
		if err != nil {
			t.Fatalf("heard %v, then %v", heard, err)
		}
		if e.UUID == res.ID() {
			heard = append(heard, e.Type)
		}
	}
	if want := []string{"task-received", "task-started", "task-succeeded"}; !slices.Equal(heard, want) {
		t.Errorf("heard %v, want %v", heard, want)
	}
}
