package interop_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	_ "github.com/lovage-go/lovage/backend/sqlbackend"
	"github.com/lovage-go/lovage/broker"
	_ "github.com/lovage-go/lovage/broker/sqlbroker"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

// dedupPy is a Python worker that dies with its first task: when the result is
// stored, before the acknowledgement, or before the task counts in its chord.
const dedupPy = `
import os, signal
from celery import Celery, chord, signals
app = Celery('dedup', broker=%[1]q, backend=%[2]q)
app.conf.update(task_default_queue='q', task_acks_late=True, broker_transport_options={'visibility_timeout': 60})

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def deadly():
    if %[3]q == 'chord':
        app.backend.on_chord_part_return = die
    else:
        signals.task_success.connect(die, weak=False)

@app.task(name='d.first')
def first(n):
    return n

@app.task(name='d.next')
def next(n):
    return n

@app.task(name='d.body')
def body(all):
    return sum(all)

if 'worker' in __import__('sys').argv:
    deadly()
`

// dedupApp has the same tasks, and counts their runs.
func dedupApp(u urls) (*lovage.App, func(task string) int) {
	var mu sync.Mutex
	ran := map[string]int{}
	count := func(task string) {
		mu.Lock()
		defer mu.Unlock()
		ran[task]++
	}
	app := lovage.New("dedup", lovage.Config{
		BrokerURL: u.Broker, ResultBackend: u.Results, TaskDefaultQueue: "q", BrokerTransportOptions: map[string]any{"visibility_timeout": 2.0},
	}, lovage.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil))))
	for _, name := range []string{"d.first", "d.next"} {
		lovage.Func(app, name, func(_ context.Context, n int) (int, error) { count(name); return n, nil })
	}
	lovage.Func(app, "d.body", func(_ context.Context, all []int) (sum int, err error) {
		count("d.body")
		for _, n := range all {
			sum += n
		}
		return sum, nil
	})
	return app, func(task string) int {
		mu.Lock()
		defer mu.Unlock()
		return ran[task]
	}
}

// dedupConfig is what a worker of the tasks is given.
var dedupConfig = worker.Config{Hostname: "go@test", Concurrency: 2}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	if !reached(t.Context(), 90*time.Second, ok) {
		t.Fatalf("not after 90 s: %s", what)
	}
}

// allEnded waits until all messages have come to one of two ends, and tells how many
// there were: a run, or none since the task had succeeded, which one has at least.
func allEnded(t *testing.T, w *worker.Worker, client *lovage.App, ran func(string) int) (received int) {
	t.Helper()
	conn, err := client.Broker(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "all messages have ended, one of them without a run", func() bool {
		s := w.Stats()
		received = int(s.Received - s.Returned)
		ls, err := conn.(broker.Lengther).Lengths(t.Context(), "q")
		return err == nil && ls["q"].Ready == 0 && s.Active+s.Reserved+s.Finishing == 0 && s.Duplicates > 0 &&
			received == ran("d.first")+ran("d.next")+ran("d.body")+int(s.Duplicates)
	})
	return received
}

// TestDeduplication: a task whose worker died between result and acknowledgement
// is not run again by a Go worker, and nothing that follows it is lost or doubled,
// with every broker and every store that can be asked.
func TestDeduplication(t *testing.T) {
	t.Parallel()
	redis := func(t *testing.T) string { s := testenv.Redis(t); return s.URL(s.DB(t)) }
	sqlite := func(t *testing.T) string { return "sqlite://" + filepath.Join(t.TempDir(), "store.db") }
	rabbit := func(t *testing.T) string { return testenv.RabbitMQ(t).Vhost(t) }
	same := func(open func(*testing.T) string) func(t *testing.T) urls {
		return func(t *testing.T) urls { url := open(t); return urls{url, url} }
	}
	apart := func(calls, results func(*testing.T) string) func(t *testing.T) urls {
		return func(t *testing.T) urls { return urls{calls(t), results(t)} }
	}
	for name, c := range map[string]struct {
		open   func(t *testing.T) urls
		python bool // can read the store
	}{
		"SQLite":            {same(sqlite), false},
		"SQLiteApart":       {apart(sqlite, sqlite), false},
		"Redis":             {same(redis), true},
		"RedisApart":        {apart(redis, redis), true},
		"RabbitMQAndRedis":  {apart(rabbit, redis), true},
		"RabbitMQAndSQLite": {apart(rabbit, sqlite), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			t.Run("GoDied", func(t *testing.T) {
				t.Parallel()
				goDied(t, c.open(t))
			})
			if !c.python {
				return
			}
			for _, when := range []string{"ack", "chord"} {
				t.Run("PythonDiedBefore/"+when, func(t *testing.T) {
					t.Parallel()
					pythonDied(t, c.open(t), when)
				})
			}
		})
	}
}

// goDied has a worker that stored a result, as one with two stores does first,
// and then sent and acknowledged nothing.
func goDied(t *testing.T, u urls) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client := lovage.New("client", lovage.Config{BrokerURL: u.Broker, ResultBackend: u.Results, TaskDefaultQueue: "q"}, lovage.WithLogger(slog.New(slog.DiscardHandler)))
	t.Cleanup(func() { client.Close(context.Background()) })
	next := lovage.Remote[int, int](client, "d.next")
	_, err := client.Send(ctx, "d.first", lovage.Args{Positional: []any{4}}, lovage.TaskID("first"),
		lovage.Link(next.After().With(lovage.TaskID("next"))))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := client.OpenBroker(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c, err := conn.Consume(ctx, broker.ConsumeConfig{Queues: []broker.Queue{broker.Named("q")}, Worker: "dead@test"})
	if err != nil {
		t.Fatal(err)
	}
	if ds, err := c.Claim(ctx, 1); err != nil || len(ds) != 1 {
		t.Fatalf("claim: got %d, %v, want one", len(ds), err)
	}
	b, err := client.Backend(ctx)
	if err == nil {
		err = b.Store(ctx, &backend.Record{TaskID: "first", State: lovage.Success, Expires: time.Hour,
			Meta: []byte(`{"status": "SUCCESS", "result": 5, "traceback": null, "children": [], "task_id": "first"}`)})
	}
	if err = errors.Join(err, c.Close(), conn.Close()); err != nil {
		t.Fatal(err)
	}
	app, ran := dedupApp(u)
	w := runGo(t, app, dedupConfig)
	if got, err := client.Result("next").Get(ctx); err != nil || fmt.Sprint(got) != "5" {
		t.Errorf("the callback: got %v, %v, want the stored 5", got, err)
	}
	if received := allEnded(t, w, client, ran); ran("d.first") != 0 || ran("d.next") != 1 || received != 2 {
		t.Errorf("runs: got %d and %d of the callback, of %d messages, want 0 and 1 of 2", ran("d.first"), ran("d.next"), received)
	}
}

// pythonDied has a Python worker killed between the result and the
// acknowledgement of a task, or between its result and its part of a chord.
func pythonDied(t *testing.T, u urls, when string) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	source := fmt.Sprintf(dedupPy, u.Broker, u.Results, when)
	script := "import d; c = d.first.s(5).set(task_id='first') | d.next.s().set(task_id='next'); c.apply_async(); print('next', end='')"
	if when == "chord" {
		script = "import d; from celery import chord; chord([d.first.s(5).set(task_id='first'), d.next.s(6).set(task_id='next')])(d.body.s().set(task_id='body')); print('body', end='')"
	}
	testenv.CeleryWorker(t, "d", source, "-P", "solo", "-n", "py@test", "--prefetch-multiplier=1", "--without-gossip", "--without-mingle")
	last := strings.TrimSpace(string(testenv.Python(t, ctx, map[string]string{"d": source}, script)))
	client, _ := dedupApp(u)
	t.Cleanup(func() { client.Close(context.Background()) })
	if got, err := client.Result("first").Get(ctx); err != nil || fmt.Sprint(got) != "5" {
		t.Fatalf("Python's result: got %v, %v, want 5", got, err)
	}
	app, ran := dedupApp(u)
	w := runGo(t, app, dedupConfig)
	want := map[string]string{"next": "5", "body": "11"}[last]
	if got, err := client.Result(last).Get(ctx); err != nil || fmt.Sprint(got) != want {
		t.Errorf("%s: got %v, %v, want %s", last, got, err, want)
	}
	received := allEnded(t, w, client, ran)
	// Python has sent the next step. A copy is sent if its result is not there yet,
	// and both run if they do so at once; else the second one is not run either.
	// So it is with the body, which both members may find complete, but that runs once.
	most := map[string]int{"ack": 2, "chord": 1}[when]
	few := map[string]int{"ack": 2, "chord": 3}[when]
	if first, next, body := ran("d.first"), ran("d.next"), ran("d.body"); first != 0 || next < 1 || next > most || body != few-2 || received < few || received > few+1 {
		t.Errorf("runs: got %d, %d and %d of the body, of %d messages, want 0, 1 to %d and %d, of %d or one more", first, next, body, received, most, few-2, few)
	}
}
