package redisbroker_test

import (
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/broker/redisbroker"
	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/internal/redisconn"
	"github.com/lovage-go/lovage/internal/testenv"
)

// everything lists all keys of a database.
func everything(t *testing.T, url string) []string {
	t.Helper()
	rdb, err := redisconn.Dial(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	keys, err := rdb.Do(t.Context(), rdb.B().Keys().Pattern("*").Build()).AsStrSlice()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(keys)
	return keys
}

func TestReplyQueues(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	url := server.URL(server.DB(t))
	conn, err := redisbroker.Open(t.Context(), broker.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	reply := func(key, body string, keep time.Duration) {
		t.Helper()
		if err := conn.Reply(t.Context(), keep, &broker.Message{Exchange: "reply.x", RoutingKey: key, Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
	reply("nobody", "lost", time.Minute)
	if keys := everything(t, url); len(keys) > 0 {
		t.Errorf("a reply that nobody waits for left %q", keys)
	}
	a, err := conn.Replies(t.Context(), "reply.x", "a")
	if err != nil {
		t.Fatal(err)
	}
	b, err := conn.Replies(t.Context(), "reply.x", "b")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"1", "2"} {
		reply("a", text, time.Minute)
	}
	for _, want := range []string{"1", "2"} {
		if d, err := a.Next(t.Context()); err != nil || string(d.Body) != want {
			t.Errorf("got %q, %v; want %q", d.Body, err, want)
		}
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if d, err := b.Next(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %q, %v; want the end of the context", d.Body, err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := b.Next(context.Background())
		ended <- err
	}()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, broker.ErrClosed) {
			t.Errorf("Next after Close: got %v, want ErrClosed", err)
		}
	case <-time.After(patience):
		t.Fatal("Next goes on after Close")
	}
	reply("a", "late", 20*time.Millisecond)
	deadline := time.Now().Add(patience)
	for slices.Contains(everything(t, url), "a.reply.x") {
		if time.Now().After(deadline) {
			t.Fatal("the list of a reply that nobody fetched has not expired")
		}
	}
	if err := errors.Join(a.Close(), a.Close()); err != nil {
		t.Error(err)
	}
	if keys := everything(t, url); len(keys) > 0 {
		t.Errorf("at the end there are %q, want nothing", keys)
	}
}

// controlPy asks the Go worker as a Python program does.
const controlPy = `
import json, time
import tasks as t
c = t.app.control
out = {'ping': c.ping(timeout=5, limit=1), 'registered': c.inspect(timeout=5, limit=1).registered()}
r = t.app.send_task('go.nap')
for _ in range(200):
    active = c.inspect(timeout=5, limit=1).active()
    if active and list(active.values())[0]: break
    time.sleep(0.05)
out['active'] = list(active.values())[0][0]['id'] == r.id
out['terminate'] = c.revoke(r.id, terminate=True, reply=True, timeout=5, limit=1)
try:
    r.get(timeout=20)
except Exception as e:
    out['raised'] = type(e).__name__
out['rate'] = c.rate_limit('go.add', '100/m', reply=True, timeout=5, limit=1)
out['hello'] = c.inspect(timeout=5, limit=1).hello('other@host', {'x': time.monotonic()})
from celery.utils.collections import LimitedSet
s = LimitedSet(maxlen=10, expires=3600)
s.update(list(out['hello'].values())[0]['revoked']); s.purge()
out['known'] = sorted(s)
out['id'] = r.id
print(json.dumps(out))
`

func TestInteropControlPythonToGo(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	url := server.URL(server.DB(t))
	app := goApp(url, "celery")
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
	out := testenv.Python(t, t.Context(), map[string]string{"tasks": tasks(url, "celery")}, controlPy)
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
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "-m", "celery", "-b", url, "inspect", "ping", "-t", "5")
	text, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(text), "pong") || !strings.Contains(string(text), "1 node online") {
		t.Errorf("celery inspect ping: %v\n%s", err, text)
	}
	for _, k := range everything(t, url) {
		if strings.Contains(k, "reply.celery.pidbox") {
			t.Errorf("key %q is left", k)
		}
	}
}

// TestInteropCeleryCommandLine: what an operator types at Python's command line
// reads Go workers.
func TestInteropCeleryCommandLine(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	url := server.URL(server.DB(t))
	app := goApp(url, "celery")
	lovage.Func(app, "go.slow", func(context.Context, lovage.Args) (any, error) { return nil, nil }, lovage.RateLimit("10/m"))
	goWorker(t, app)
	later, err := app.Send(t.Context(), "go.add", lovage.Args{Positional: []any{1, 2}}, lovage.Countdown(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	replies, err := app.Control().Ping(t.Context(), control.Options{Limit: 1, Timeout: 20 * time.Second})
	if err != nil || len(replies) != 1 {
		t.Fatalf("ping: %v, %v", replies, err)
	}
	for words, want := range map[string][]string{
		"status":                            {": OK", "1 node online"},
		"inspect active":                    {"- empty -", "1 node online"},
		"inspect reserved":                  {"- empty -"},
		"inspect scheduled":                 {later.ID(), "'eta': '", "'priority': 6", "'name': 'go.add'"},
		"inspect registered":                {"* go.add", "* go.slow [rate_limit=10/m]"},
		"inspect stats":                     {`"max-concurrency": `, `"transport": "redis"`, `"maxrss": `, `"prefetch_count": `},
		"inspect active_queues":             {"'name': 'celery'", "'routing_key': 'celery'", "'type': 'direct'"},
		"inspect conf":                      {`"broker_url": "redis://`},
		"inspect report":                    {"software -> lovage:"},
		"inspect clock":                     {`"clock": `},
		"inspect memsample":                 {"MB"},
		"inspect query_task nobody":         {"{}"},
		"control rate_limit go.add 5/s":     {"OK", "new rate limit set successfully"},
		"control time_limit go.add 1 2":     {"time limits set successfully"},
		"control enable_events":             {"task events enabled"},
		"control disable_events":            {"events"}, // before or after the other
		"control heartbeat":                 {"OK"},
		"control pool_grow 1":               {"pool will grow"},
		"control pool_restart":              {"ERROR", "ValueError('Pool restarts not enabled')"},
		"control autoscale 5 2":             {"ERROR", "ValueError('Autoscale not enabled')"},
		"control add_consumer extra":        {"add consumer extra"},
		"control cancel_consumer nothing":   {"no longer consuming from nothing"},
		"control revoke some-id":            {"tasks {'some-id'} flagged as revoked"},
		"control terminate SIGKILL nothing": {"terminate: tasks unknown"},
		"control rate_limit go.nope 5/s":    {"ERROR", "unknown task"},
	} {
		t.Run(words, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"-m", "celery", "-b", url}, strings.Fields(words)...)
			out, err := exec.CommandContext(t.Context(), "/usr/bin/python3", append(args, "-t", "20", "-d", replies[0].Node)...).CombinedOutput()
			for _, w := range want {
				if err != nil || !strings.Contains(string(out), w) {
					t.Errorf("celery %s: %v, want %q in it\n%s", words, err, w, out)
				}
			}
		})
	}
}

func TestInteropControlGoToPython(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	url := server.URL(server.DB(t))
	app := goApp(url, "celery")
	defer app.Close(context.Background())
	testenv.CeleryWorker(t, "tasks", tasks(url, "celery"), "-P", "solo", "-n", "py@%h")
	c, o := app.Control(), control.Options{Reply: true, Limit: 1, Timeout: 20 * time.Second}
	// A Celery worker says that it is ready a moment before it subscribes to its
	// mailbox, and pub/sub keeps nothing: it is asked until it answers.
	awake, first := limit(t), control.Options{Reply: true, Limit: 1, Timeout: time.Second}
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
