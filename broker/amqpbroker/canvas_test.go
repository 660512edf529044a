package amqpbroker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/testenv"
)

// canvasTasks are the same tasks under py. and go., a queue each.
const canvasTasks = `
from celery import Celery
app = Celery('proj', broker='%[1]s', backend='%[2]s')
app.conf.update(task_default_queue='py', broker_connection_retry_on_startup=True, task_routes={'py.*': {'queue': 'py'}, 'go.*': {'queue': 'go'}})
class Tasks: pass
T = {}
def add(x, y): return x + y
def mul(x, y): return x * y
def total(xs): return sum(xs)
def fail(*args): raise ValueError('boom')
for ns in ('py', 'go'):
    t = T[ns] = Tasks()
    for f in (add, mul, total, fail):
        setattr(t, f.__name__, app.task(name=ns + '.' + f.__name__)(f))
`

// canvasPy composes, each case once for each mix of languages.
const canvasPy = `
import json, sys, time, itertools
import tasks as t
from celery import chain, group, chord
class Mix:
    def __init__(self, order): self.it = itertools.cycle(order)
    def __getattr__(self, name): return getattr(t.T[next(self.it)], name)
def cases(m):
    yield 'chain', chain(m.add.s(1, 2), m.mul.s(10), m.add.s(5))
    yield 'group', group(m.add.s(i, i) for i in range(4))
    yield 'chord', chord([m.add.s(i, i) for i in range(10)], m.total.s())
    yield 'chord_of_chains', chord([chain(m.add.s(i, 1), m.mul.s(2)) for i in range(4)], m.total.s())
    yield 'chord_body_chain', chord([m.add.s(1, 1), m.add.s(2, 2)], chain(m.total.s(), m.mul.s(10)))
    yield 'chord_in_chain', m.add.s(1, 1) | chord([m.add.s(1), m.add.s(2)], m.total.s()) | m.mul.s(10)
    yield 'chord_of_100', chord([m.add.s(i, i) for i in range(100)], m.total.s())
    yield 'chord_fails', chord([m.add.s(1, 1), m.fail.s()], m.total.s())
sent = [(name + ' ' + '/'.join(mix), sig.apply_async()) for mix in json.loads(sys.argv[1]) for name, sig in cases(Mix(mix))]
end, out = time.time() + 20, {}
for name, r in sent:
    try:
        while not r.ready() and time.time() < end: time.sleep(0.02)
        out[name] = r.get(timeout=max(end - time.time(), 0.1))
    except Exception as e:
        out[name] = type(e).__name__
print(json.dumps(out))
`

// TestInteropCanvas: workflows of Python over RabbitMQ with results in Redis, on
// Go workers alone and step by step with Python's. Two stores: the body of a
// chord is sent in another step than its last member is counted in.
func TestInteropCanvas(t *testing.T) {
	t.Parallel()
	want := map[string]string{"chain": `35`, "group": `[0,2,4,6]`, "chord": `90`, "chord_of_chains": `20`, "chord_body_chain": `60`,
		"chord_in_chain": `70`, "chord_of_100": `9900`, "chord_fails": `"ValueError"`} // get raises the error of the member
	p := newPlace(t)
	module := fmt.Sprintf(canvasTasks, p.broker, p.backend)
	testenv.CeleryWorker(t, "tasks", module, "-P", "solo", "-Q", "py", "-n", "py@test", "--without-gossip", "--without-mingle")
	app := lovage.New("proj", lovage.Config{BrokerURL: p.broker, ResultBackend: p.backend, TaskDefaultQueue: "go", TaskQueues: []broker.Queue{broker.Named("go")},
		TaskRoutes: []lovage.Route{{Pattern: "py.*", Queue: "py"}}}, lovage.WithLogger(slog.New(slog.DiscardHandler)))
	type two struct{ X, Y int }
	lovage.Func(app, "go.add", func(_ context.Context, in two) (int, error) { return in.X + in.Y, nil })
	lovage.Func(app, "go.mul", func(_ context.Context, in two) (int, error) { return in.X * in.Y, nil })
	lovage.Func(app, "go.total", func(_ context.Context, in []int) (sum int, err error) {
		for _, x := range in {
			sum += x
		}
		return sum, nil
	})
	lovage.Func(app, "go.fail", func(context.Context, lovage.Args) (int, error) {
		return 0, &lovage.TaskError{Type: "ValueError", Module: "builtins", Args: []any{"boom"}}
	})
	goWorker(t, app)
	mixes := [][]string{{"go"}, {"py", "go"}, {"go", "py", "py"}}
	arg, _ := json.Marshal(mixes)
	var got map[string]json.RawMessage
	out := testenv.Python(t, limit(t, patience), map[string]string{"tasks": module}, canvasPy, string(arg))
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	for _, mix := range []string{"go", "py/go", "go/py/py"} {
		for name, want := range want {
			var v any
			_ = json.Unmarshal(got[name+" "+mix], &v)
			if text, _ := json.Marshal(v); string(text) != want {
				t.Errorf("%s on %s: got %s, want %s", name, mix, text, want)
			}
		}
	}
}
