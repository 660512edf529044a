package amqpbroker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	_ "github.com/lovage-go/lovage/backend/redisbackend"
	_ "github.com/lovage-go/lovage/broker/amqpbroker"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

// place is where a project lives: broker, results and queue.
type place struct{ broker, backend, queue string }

func newPlace(t *testing.T) place {
	redis := testenv.Redis(t)
	return place{broker: testenv.RabbitMQ(t).Vhost(t), backend: redis.URL(redis.DB(t)), queue: "q"}
}

// tasksPy is a Celery project as a user has it.
const tasksPy = `
from celery import Celery
app = Celery('proj', broker='%[1]s', backend='%[2]s')
app.conf.update(task_default_queue='%[3]s', broker_connection_retry_on_startup=True, worker_hijack_root_logger=True)

@app.task(name='py.add')
def add(x, y=0):
    return x + y

@app.task(name='py.echo')
def echo(*args, **kwargs):
    return [list(args), kwargs]

@app.task(name='py.fail')
def fail(text):
    raise ValueError(text, 17)

@app.task(name='py.flaky', bind=True, max_retries=3)
def flaky(self, until):
    if self.request.retries < until:
        raise self.retry(countdown=0.1)
    return self.request.retries

@app.task(name='py.progress', bind=True)
def progress(self):
    self.update_state(state='PROGRESS', meta={'done': 1})
    return 'ok'

@app.task(name='go.add')
def go_add(x, y=0): ...

@app.task(name='go.echo')
def go_echo(text, number=0.0, flag=False): ...

@app.task(name='go.fail')
def go_fail(text): ...

@app.task(name='go.flaky')
def go_flaky(until): ...
`

func (p place) tasks() string { return fmt.Sprintf(tasksPy, p.broker, p.backend, p.queue) }

type addArgs struct {
	X int `lovage:"x"`
	Y int `lovage:"y,default=0"`
}

type echoArgs struct {
	Text   string  `lovage:"text"`
	Number float64 `lovage:"number,default=0"`
	Flag   bool    `lovage:"flag,default=false"`
}

type textArgs struct {
	Text string `lovage:"text"`
}

type untilArgs struct {
	Until int `lovage:"until"`
}

// goApp is the same project in Go.
func (p place) app() *lovage.App {
	app := lovage.New("proj", lovage.Config{BrokerURL: p.broker, ResultBackend: p.backend, TaskDefaultQueue: p.queue}, lovage.WithLogger(slog.New(slog.DiscardHandler)))
	lovage.Func(app, "go.add", func(_ context.Context, in addArgs) (int, error) { return in.X + in.Y, nil })
	lovage.Func(app, "go.echo", func(_ context.Context, in echoArgs) (map[string]any, error) {
		return map[string]any{"text": in.Text, "number": in.Number, "flag": in.Flag}, nil
	})
	lovage.Func(app, "go.fail", func(_ context.Context, in textArgs) (int, error) {
		return 0, &lovage.TaskError{Type: "ValueError", Module: "builtins", Args: []any{in.Text, 17}}
	})
	lovage.Func(app, "go.flaky", func(ctx context.Context, in untilArgs) (int, error) {
		r := lovage.RequestFrom(ctx)
		if r.Retries < in.Until {
			return 0, lovage.Retry(errors.New("not yet"), lovage.Countdown(100*time.Millisecond))
		}
		return r.Retries, nil
	})
	return app
}

// goWorker runs a worker until the end of the test.
func goWorker(t *testing.T, app *lovage.App) (stop func()) {
	t.Helper()
	return goWorkerWith(t, app, func(*worker.Config) {})
}

// goWorkerWith starts a worker, which ends with the test or when it is stopped.
func goWorkerWith(t *testing.T, app *lovage.App, change func(*worker.Config)) (stop func()) {
	t.Helper()
	ready := make(chan struct{})
	cfg := worker.Config{Hostname: "go@%h", Concurrency: 4, Ready: func(worker.Info) { close(ready) }}
	change(&cfg)
	w := worker.New(app, cfg)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := testenv.End(t, ended, func() { w.Stop(worker.Cold) }); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("worker: %v", err)
		}
		if err := app.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	t.Cleanup(stop)
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		t.Fatalf("worker: %v", err)
	case <-time.After(patience):
		t.Fatal("the worker is not ready after 60 s")
	}
	return stop
}

// clientPy sends to the Go worker and prints what it got.
const clientPy = `
import json, sys
from datetime import datetime, timedelta, timezone
import tasks as t

out = {}
def get(name, r):
    try:
        out[name] = r.get(timeout=30)
    except Exception as e:
        out[name] = {'exc': type(e).__name__, 'module': type(e).__module__, 'args': list(e.args), 'state': r.state}

sent = {
    'plain': t.go_add.delay(2, 3),
    'default': t.go_add.delay(2),
    'kwargs': t.go_add.apply_async(kwargs={'x': 4, 'y': 5}),
    'unicode': t.go_echo.delay('äß日本🌿\u2028\x00', number=1.5, flag=True),
    'big': t.go_echo.delay('x' * 2000000),
    'countdown': t.go_add.apply_async((1, 1), countdown=0.3),
    'eta': t.go_add.apply_async((1, 2), eta=datetime.now(timezone(timedelta(hours=5))) + timedelta(seconds=0.2)),
    'priority': t.go_add.apply_async((1, 3), priority=9),
    'header': t.go_add.apply_async((2, 4), headers={'big': 2**40, 'deep': [{'n': -2**50}]}),
    'zlib': t.go_add.apply_async((1, 4), compression='zlib'),
    'fail': t.go_fail.delay('böse'),
    'flaky': t.go_flaky.delay(2),
    'unknown_arg': t.app.send_task('go.add', kwargs={'z': 1}),
}
for name, r in sent.items():
    get(name, r)
# RabbitMQ itself drops what has expired, but where a worker waits for it.
get('expired', t.go_add.apply_async((1, 2), expires=-5))
out['big'] = len(out['big']['text'])
print(json.dumps(out))
`

func TestInteropPythonClientGoWorker(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	goWorker(t, p.app())
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	var got map[string]any
	raw := testenv.Python(t, ctx, map[string]string{"tasks": p.tasks()}, clientPy)
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	want := map[string]string{
		"plain": `5`, "default": `2`, "kwargs": `9`, "big": `2000000`, "countdown": `2`, "eta": `3`, "priority": `4`, "header": `6`, "zlib": `5`, "flaky": `2`,
		"unicode": `{"flag":true,"number":1.5,"text":"äß日本🌿\u2028\u0000"}`,
		"fail":    `{"args":["böse",17],"exc":"ValueError","module":"builtins","state":"FAILURE"}`,
	}
	for name, w := range want {
		if g, err := json.Marshal(got[name]); err != nil || string(g) != w {
			t.Errorf("%s: Python got %s, want %s", name, g, w)
		}
	}
	if e, _ := got["expired"].(map[string]any); e["state"] != "REVOKED" || e["exc"] != "TaskRevokedError" {
		t.Errorf("expired: Python got %v", got["expired"])
	}
	if e, _ := got["unknown_arg"].(map[string]any); e["state"] != "FAILURE" || e["exc"] != "TypeError" {
		t.Errorf("a wrong argument: Python got %v", got["unknown_arg"])
	}
}

func TestInteropGoClientPythonWorker(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	testenv.CeleryWorker(t, "tasks", p.tasks(), "-P", "solo", "-Q", "q", "-n", "py@test")
	app := p.app()
	defer app.Close(context.Background())
	add := lovage.Remote[addArgs, int](app, "py.add")
	flaky := lovage.Remote[untilArgs, int](app, "py.flaky")
	fail := lovage.Remote[textArgs, int](app, "py.fail")
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, opts := range map[string][]lovage.CallOption{
		"Plain": nil, "Countdown": {lovage.Countdown(200 * time.Millisecond)}, "Priority": {lovage.Priority(6)},
	} {
		res, err := add.Delay(ctx, addArgs{X: 2, Y: 3}, opts...)
		must(err)
		if n, err := res.Get(ctx); err != nil || n != 5 {
			t.Errorf("%s: got %d, %v, want 5", name, n, err)
		}
	}
	raw, err := app.Send(ctx, "py.echo", lovage.Args{Positional: []any{"äß日本🌿", 1.0, nil}, Keyword: map[string]any{"ключ": []any{true}}})
	must(err)
	v, err := raw.Get(ctx)
	must(err)
	if text, err := json.Marshal(v); err != nil || string(text) != `[["äß日本🌿",1.0,null],{"ключ":[true]}]` {
		t.Errorf("echo: got %s, %v", text, err)
	}
	res, err := flaky.Delay(ctx, untilArgs{Until: 2})
	must(err)
	if n, err := res.Get(ctx); err != nil || n != 2 {
		t.Errorf("a retry in Python: got %d, %v, want 2", n, err)
	}
	res, err = fail.Delay(ctx, textArgs{Text: "böse"})
	must(err)
	_, err = res.Get(ctx)
	te, ok := errors.AsType[*lovage.TaskError](err)
	if !ok || te.Type != "ValueError" || !strings.Contains(te.Traceback, "raise ValueError(text, 17)") || len(te.Args) != 2 {
		t.Errorf("a failure in Python: got %#v", err)
	}
}

// bothPy sends from Python while Go sends too.
const bothPy = `
import sys
import tasks as t
from celery import group
n = int(sys.argv[1])
rs = [t.app.send_task('both.twice', (i,)) for i in range(n)]
bad = [(i, r.get(timeout=60)) for i, r in enumerate(rs) if r.get(timeout=60) != 2 * i]
print(bad)
`

// TestInteropBothOnOneQueue has a Python and a Go worker share a queue, and a
// Python and a Go client send to it.
func TestInteropBothOnOneQueue(t *testing.T) {
	t.Parallel()
	const n = 200
	p := newPlace(t)
	module := p.tasks() + `
@app.task(name='both.twice')
def twice(i):
    return 2 * i
`
	py := testenv.CeleryWorker(t, "tasks", module, "-P", "solo", "-Q", "q", "-n", "py@test", "--prefetch-multiplier=1")
	app := p.app()
	ran := make(chan struct{}, 2*n)
	twice := lovage.Func(app, "both.twice", func(_ context.Context, in struct{ I int }) (int, error) {
		ran <- struct{}{}
		return 2 * in.I, nil
	})
	goWorker(t, app)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	sent := make(chan error, 1)
	go func() {
		sent <- func() error {
			for i := range n {
				res, err := twice.Delay(ctx, struct{ I int }{i})
				if err != nil {
					return err
				}
				if v, err := res.Get(ctx); err != nil || v != 2*i {
					return fmt.Errorf("task %d gave %d, %w", i, v, err)
				}
			}
			return nil
		}()
	}()
	out := testenv.Python(t, ctx, map[string]string{"tasks": module}, bothPy, fmt.Sprint(n))
	if got := strings.TrimSpace(string(out)); got != "[]" {
		t.Errorf("Python got wrong results: %s", got)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if log := py.Log(); strings.Contains(log, "ERROR") || strings.Contains(log, "Traceback") {
		t.Errorf("the Python worker is not content with its peer:\n%s", log)
	}
	count := func() (int, int) { return len(ran), strings.Count(py.Log(), "succeeded in") }
	inGo, inPython := count()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for inGo+inPython < 2*n && ctx.Err() == nil { // Python sends a result before it logs it
		<-tick.C
		inGo, inPython = count()
	}
	t.Logf("%d ran in Go, %d in Python", inGo, inPython)
	if inGo+inPython != 2*n || inGo == 0 || inPython == 0 {
		t.Errorf("%d ran in Go and %d in Python of %d", inGo, inPython, 2*n)
	}
}
