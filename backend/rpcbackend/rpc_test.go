package rpcbackend_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/backend/rpcbackend"
	"github.com/lovage-go/lovage/broker"
	_ "github.com/lovage-go/lovage/broker/amqpbroker"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/protocol"
	"github.com/lovage-go/lovage/worker"
)

// patience is how long anything is waited for.
const patience = time.Minute

type pair struct {
	X int `lovage:"x"`
	Y int `lovage:"y,default=0"`
}

func newApp(url string) *lovage.App {
	return lovage.New("proj", lovage.Config{BrokerURL: url, ResultBackend: "rpc://"}, lovage.WithLogger(slog.New(slog.DiscardHandler)))
}

// project declares the tasks on an app.
func project(app *lovage.App) *lovage.Handle[pair, int] {
	lovage.Func(app, "go.fail", func(_ context.Context, in pair) (int, error) {
		return 0, &lovage.TaskError{Type: "ValueError", Module: "builtins", Args: []any{"böse", in.X}}
	})
	lovage.Func(app, "go.flaky", func(ctx context.Context, in pair) (int, error) {
		if r := lovage.RequestFrom(ctx); r.Retries < in.X {
			return 0, lovage.Retry(errors.New("not yet"), lovage.Countdown(50*time.Millisecond))
		}
		return in.X, nil
	})
	lovage.Func(app, "go.progress", func(ctx context.Context, in pair) (string, error) {
		if err := lovage.RequestFrom(ctx).UpdateState(ctx, "PROGRESS", map[string]int{"done": in.X}); err != nil {
			return "", err
		}
		return "ok", nil
	})
	return lovage.Func(app, "go.add", func(_ context.Context, in pair) (int, error) { return in.X + in.Y, nil })
}

func goWorker(t *testing.T, app *lovage.App) {
	t.Helper()
	ready := make(chan struct{})
	w := worker.New(app, worker.Config{Hostname: "go@%h", Concurrency: 4, Ready: func(worker.Info) { close(ready) }})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := testenv.End(t, ended, func() { w.Stop(worker.Cold) }); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("worker: %v", err)
		}
		if err := app.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	select {
	case <-ready:
	case <-time.After(patience):
		t.Fatalf("the worker is not ready after %v", patience)
	}
}

func limit(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestResults(t *testing.T) {
	t.Parallel()
	url := testenv.RabbitMQ(t).Vhost(t)
	there := newApp(url)
	goOn := make(chan struct{})
	project(there)
	lovage.Func(there, "go.waits", func(ctx context.Context, in pair) (string, error) {
		if err := lovage.RequestFrom(ctx).UpdateState(ctx, "PROGRESS", map[string]int{"done": in.X}); err != nil {
			return "", err
		}
		<-goOn
		return "ok", nil
	})
	goWorker(t, there)
	app := newApp(url)
	defer app.Close(context.Background())
	add := lovage.Remote[pair, int](app, "go.add")
	ctx := limit(t, patience)
	t.Run("ManyAtOnceInAnyOrder", func(t *testing.T) {
		var results []*lovage.Result[int]
		for i := range 200 {
			r, err := add.Delay(ctx, pair{i, i})
			if err != nil {
				t.Fatal(err)
			}
			results = append(results, r)
		}
		for i := len(results) - 1; i >= 0; i-- {
			if n, err := results[i].Get(ctx); err != nil || n != 2*i {
				t.Fatalf("task %d gave %d, %v", i, n, err)
			}
		}
		if n, err := results[7].Get(ctx); err != nil || n != 14 {
			t.Errorf("asked again: %d, %v", n, err)
		}
	})
	t.Run("FailureAndRetry", func(t *testing.T) {
		r, err := lovage.Remote[pair, int](app, "go.fail").Delay(ctx, pair{X: 3})
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Get(ctx)
		if te, ok := errors.AsType[*lovage.TaskError](err); !ok || te.Type != "ValueError" || fmt.Sprint(te.Args...) != "böse3" && fmt.Sprint(te.Args) != "[böse 3]" {
			t.Errorf("got %#v", err)
		}
		r, err = lovage.Remote[pair, int](app, "go.flaky").Delay(ctx, pair{X: 2})
		if err != nil {
			t.Fatal(err)
		}
		if n, err := r.Get(ctx); err != nil || n != 2 {
			t.Errorf("after two retries: %d, %v", n, err)
		}
	})
	t.Run("StatesInOrder", func(t *testing.T) {
		r, err := lovage.Remote[pair, string](app, "go.waits").Delay(ctx, pair{X: 1})
		if err != nil {
			t.Fatal(err)
		}
		var info map[string]int
		m, err := r.Wait(ctx, func(m *lovage.Meta) bool { return m.Status != lovage.Pending })
		if err == nil {
			_, err = lovage.DecodeResult[any](m)
		}
		if err == nil {
			err = json.Unmarshal(m.Result, &info)
		}
		if err != nil || m.Status != "PROGRESS" || info["done"] != 1 {
			t.Errorf("the first state is %+v, %v, want PROGRESS", m, err)
		}
		close(goOn)
		if text, err := r.Get(ctx); err != nil || text != "ok" {
			t.Errorf("got %q, %v", text, err)
		}
	})
	t.Run("NotOurs", func(t *testing.T) {
		_, err := app.Result("11111111-2222-3333-4444-555555555555").Get(ctx)
		if !errors.Is(err, rpcbackend.ErrNotOurs) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want ErrNotOurs at once", err)
		}
	})
	t.Run("Ignored", func(t *testing.T) {
		r, err := add.Delay(ctx, pair{1, 1}, lovage.IgnoreResult(true))
		if err != nil {
			t.Fatal(err)
		}
		if !r.Ignored() {
			t.Error("the result is not ignored")
		}
	})
}

// connect opens a backend, which the caller closes.
func connect(t *testing.T, url string) *rpcbackend.Backend {
	t.Helper()
	b, err := rpcbackend.Open(t.Context(), backend.Config{URL: "rpc://", BrokerURL: url, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// open opens a backend that is closed with the test.
func open(t *testing.T, url string) *rpcbackend.Backend {
	t.Helper()
	b := connect(t, url)
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func result(id, queue string, state protocol.State) *backend.Record {
	return &backend.Record{TaskID: id, CorrelationID: id, ReplyTo: queue, State: state,
		Meta: []byte(`{"status": "` + string(state) + `", "result": null, "traceback": null, "children": [], "date_done": null, "task_id": "` + id + `"}`)}
}

// TestSuccessStays: a late state of a second run changes nothing.
func TestSuccessStays(t *testing.T) {
	t.Parallel()
	url := testenv.RabbitMQ(t).Vhost(t)
	client, worker := open(t, url), open(t, url)
	ctx := limit(t, patience)
	queue, err := client.Expect(ctx, "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	if err := worker.Store(ctx, result("a", queue, "STARTED"), result("a", queue, protocol.Success), result("a", queue, protocol.Failure),
		result("b", queue, protocol.Success), result("b", "", protocol.Success)); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"b", "a"} {
		rec, err := backend.Await(ctx, client, id, func(r backend.Record) bool { return r.State.Ready() })
		if err != nil || rec.State != protocol.Success {
			t.Errorf("%s: %q, %v", id, rec.State, err)
		}
	}
	if err := client.Forget(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Fetch(ctx, "a"); !errors.Is(err, rpcbackend.ErrNotOurs) {
		t.Errorf("a forgotten id: %v", err)
	}
}

// TestUnasked: of results that nobody asks for the oldest go, and say so.
func TestUnasked(t *testing.T) {
	t.Parallel()
	const kept, more = 10_000, 500
	url := testenv.RabbitMQ(t).Vhost(t)
	client, worker := open(t, url), open(t, url)
	ctx := limit(t, patience)
	recs := make([]*backend.Record, kept+more)
	for i := range recs {
		id := fmt.Sprint(i)
		queue, err := client.Expect(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		recs[i] = result(id, queue, protocol.Success)
	}
	if err := worker.Store(ctx, recs...); err != nil {
		t.Fatal(err)
	}
	last := recs[len(recs)-1].TaskID
	if _, err := backend.Await(ctx, client, last, func(r backend.Record) bool { return r.State.Ready() }); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Fetch(ctx, "0"); !errors.Is(err, rpcbackend.ErrDropped) {
		t.Errorf("the oldest: %v, want ErrDropped", err)
	}
	if got, err := client.Fetch(ctx, fmt.Sprint(more+1), last); err != nil || got[0].Meta == nil || got[1].Meta == nil {
		t.Errorf("what was to be kept is not: %v", err)
	}
	if n := client.Dropped(); n < more-1 || n > more {
		t.Errorf("%d are counted as dropped, want about %d", n, more)
	}
}

// TestQueueLost: waiters go on after the queue was lost; who waits for a result
// that was lost with it is told so at its deadline.
func TestQueueLost(t *testing.T) {
	t.Parallel()
	server := testenv.RabbitMQ(t)
	url := server.Vhost(t)
	client, worker := open(t, url), open(t, url)
	ctx := limit(t, patience)
	queue, err := client.Expect(ctx, "lost", "later")
	if err != nil {
		t.Fatal(err)
	}
	vhost := url[strings.LastIndex(url, "/")+1:]
	server.Control(t, "delete_queue", "--vhost", vhost, queue)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !errors.Is(client.LateError("lost"), rpcbackend.ErrResultLost) { // the server may tell late
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("the client does not hear that its queue is gone")
		}
	}
	short, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err = backend.Await(short, client, "lost", func(r backend.Record) bool { return r.State.Ready() })
	if !errors.Is(err, rpcbackend.ErrResultLost) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want ErrResultLost at the deadline", err)
	}
	for { // until the queue is there again
		if err := worker.Store(ctx, result("later", queue, protocol.Success)); err != nil {
			t.Fatal(err)
		}
		if recs, err := client.Fetch(ctx, "later"); err == nil && recs[0].State == protocol.Success {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("no result comes by the queue that was made again")
		}
	}
	if again, err := client.Expect(ctx, "next"); err != nil || again != queue {
		t.Errorf("the queue is called %q now, was %q; %v", again, queue, err)
	}
}

// TestReconnect: after a dropped connection the queue is there again under its
// name, and who waited meanwhile gets what comes then.
func TestReconnect(t *testing.T) {
	t.Parallel()
	url := testenv.RabbitMQ(t).Vhost(t)
	head, rest, _ := strings.Cut(url, "@")
	host, vhost, _ := strings.Cut(rest, "/")
	proxy := testenv.NewProxy(t, host)
	client, worker := open(t, head+"@"+proxy.Addr+"/"+vhost), open(t, url)
	ctx := limit(t, patience)
	queue, err := client.Expect(ctx, "a", "b", "never")
	if err != nil {
		t.Fatal(err)
	}
	ready := func(r backend.Record) bool { return r.State.Ready() }
	got := make(chan error, 2)
	for _, id := range []string{"a", "b"} {
		go func() {
			rec, err := backend.Await(ctx, client, id, ready)
			if err == nil && rec.State != protocol.Success {
				err = fmt.Errorf("%s is %s", id, rec.State)
			}
			got <- err
		}()
	}
	proxy.Drop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for waiting := 2; waiting > 0; { // what is sent before the queue is there again is lost
		if err := worker.Store(ctx, result("a", queue, protocol.Success), result("b", queue, protocol.Success)); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-got:
			if waiting--; err != nil {
				t.Fatal(err)
			}
		case <-tick.C:
		}
	}
	if again, err := client.Expect(ctx, "next"); err != nil || again != queue {
		t.Errorf("the queue is called %q now, was %q; %v", again, queue, err)
	}
	for id, lost := range map[string]bool{"a": false, "next": false, "never": true} {
		if err := client.LateError(id); errors.Is(err, rpcbackend.ErrResultLost) != lost {
			t.Errorf("%s: %v, want lost: %v", id, err, lost)
		}
	}
}

// TestCalledWithoutQueue: a call that is made while the queue is away may have been
// answered before it is there again. Who waits for it is told so.
func TestCalledWithoutQueue(t *testing.T) {
	t.Parallel()
	server := testenv.RabbitMQ(t)
	url := server.Vhost(t)
	account := func(configure string) string {
		return server.User(t, url, t.Name(), configure, ".*", ".*")
	}
	client, worker := open(t, account(".*")), open(t, url)
	ctx := limit(t, patience)
	queue, err := client.Expect(ctx, "before")
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	until := func(is func() bool) {
		t.Helper()
		for !is() {
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatal("it does not come to that")
			}
		}
	}
	account("^$") // so that it stays away
	server.Control(t, "delete_queue", "--vhost", url[strings.LastIndex(url, "/")+1:], queue)
	until(func() bool { return errors.Is(client.LateError("before"), rpcbackend.ErrResultLost) })
	if _, err := client.Expect(ctx, "between", "later"); err != nil {
		t.Fatal(err)
	}
	if err := worker.Store(ctx, result("between", queue, protocol.Success)); err != nil { // and nobody gets it
		t.Fatal(err)
	}
	account(".*")
	until(func() bool {
		if err := worker.Store(ctx, result("later", queue, protocol.Success)); err != nil {
			t.Fatal(err)
		}
		recs, err := client.Fetch(ctx, "later")
		return err == nil && recs[0].State == protocol.Success
	})
	for id, lost := range map[string]bool{"between": true, "later": false} {
		if err := client.LateError(id); errors.Is(err, rpcbackend.ErrResultLost) != lost {
			t.Errorf("%s: %v, want lost: %v", id, err, lost)
		}
	}
}

// TestKeptUntilExpired: a state that nobody waits for is kept for result_expires.
func TestKeptUntilExpired(t *testing.T) {
	t.Parallel()
	const keep = 1500 * time.Millisecond
	url := testenv.RabbitMQ(t).Vhost(t)
	client, err := rpcbackend.Open(t.Context(), backend.Config{BrokerURL: url, Expires: keep, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	worker := open(t, url)
	ctx := limit(t, patience)
	start := time.Now()
	queue, err := client.Expect(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	waits, err := client.Watch(ctx, "a") // until it is closed nothing is dropped
	if err != nil {
		t.Fatal(err)
	}
	if err := worker.Store(ctx, result("a", queue, protocol.Success)); err != nil {
		t.Fatal(err)
	}
	if _, err := backend.Await(ctx, client, "a", func(r backend.Record) bool { return r.State.Ready() }); err != nil {
		t.Fatal(err)
	}
	if err := waits.Close(); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for err == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("it is never dropped")
		}
		_, err = client.Fetch(ctx, "a")
	}
	if took := time.Since(start); !errors.Is(err, rpcbackend.ErrDropped) || took < keep {
		t.Errorf("after %v: %v, want ErrDropped after %v", took, err, keep)
	}
	if n := client.Dropped(); n != 0 { // it was not too much
		t.Errorf("%d are counted as dropped", n)
	}
}

// TestPersistent: result_persistent is the delivery mode of the results.
func TestPersistent(t *testing.T) {
	t.Parallel()
	url := testenv.RabbitMQ(t).Vhost(t)
	ctx := limit(t, patience)
	conn, err := broker.Open(ctx, broker.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	replies, err := conn.(broker.ResultQueuer).ResultQueue(ctx, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer replies.Close()
	for persistent, want := range map[bool]int{false: 1, true: 2} {
		worker, err := rpcbackend.Open(ctx, backend.Config{BrokerURL: url, Persistent: persistent})
		if err != nil {
			t.Fatal(err)
		}
		defer worker.Close()
		if err := worker.Store(ctx, result("a", replies.Queue(), protocol.Success)); err != nil {
			t.Fatal(err)
		}
		d, err := replies.Next(ctx)
		if err != nil || d.Properties.DeliveryMode != want {
			t.Errorf("persistent %v: delivery mode %d, %v, want %d", persistent, d.Properties.DeliveryMode, err, want)
		}
	}
}

func TestNoBroker(t *testing.T) {
	t.Parallel()
	_, err := rpcbackend.Open(t.Context(), backend.Config{URL: "rpc://"})
	if err == nil || !strings.Contains(err.Error(), "broker_url") {
		t.Errorf("without a broker: %v", err)
	}
}

// TestFirstCallIsTriedAgain: who cannot make the reply queue now is served by the
// publish retry policy, as who cannot send.
func TestFirstCallIsTriedAgain(t *testing.T) {
	t.Parallel()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	var tries atomic.Int32
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			tries.Add(1)
			c.Close()
		}
	}()
	app := lovage.New("proj", lovage.Config{BrokerURL: "amqp://" + server.Addr().String(), ResultBackend: "rpc://",
		TaskPublishRetryPolicy: &lovage.RetryPolicy{MaxRetries: 2}}, lovage.WithLogger(slog.New(slog.DiscardHandler)))
	defer app.Close(context.Background())
	_, err = lovage.Remote[pair, int](app, "py.add").Delay(limit(t, patience), pair{2, 3})
	if !errors.Is(err, backend.ErrUnavailable) || tries.Load() != 3 {
		t.Errorf("got %v after %d tries, want ErrUnavailable after 3", err, tries.Load())
	}
}

// tasksPy is a Celery project with rpc results.
const tasksPy = `
from celery import Celery
app = Celery('proj', broker='%s', backend='rpc://')
app.conf.update(broker_connection_retry_on_startup=True, worker_hijack_root_logger=True)

@app.task(name='py.add')
def add(x, y=0):
    return x + y

@app.task(name='py.fail')
def fail(x, y=0):
    raise ValueError('böse', x)

@app.task(name='py.flaky', bind=True, max_retries=3)
def flaky(self, x, y=0):
    if self.request.retries < x:
        raise self.retry(countdown=0.1)
    return x
`

func TestInteropPythonWorker(t *testing.T) {
	t.Parallel()
	url := testenv.RabbitMQ(t).Vhost(t)
	testenv.CeleryWorker(t, "tasks", fmt.Sprintf(tasksPy, url), "-P", "solo", "-n", "py@test")
	app := newApp(url)
	defer app.Close(context.Background())
	ctx := limit(t, patience)
	for name, want := range map[string]int{"py.add": 5, "py.flaky": 2} {
		r, err := lovage.Remote[pair, int](app, name).Delay(ctx, pair{2, 3})
		if err != nil {
			t.Fatal(err)
		}
		if n, err := r.Get(ctx); err != nil || n != want {
			t.Errorf("%s: got %d, %v, want %d", name, n, err, want)
		}
	}
	r, err := lovage.Remote[pair, int](app, "py.fail").Delay(ctx, pair{X: 7})
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Get(ctx)
	if te, ok := errors.AsType[*lovage.TaskError](err); !ok || te.Type != "ValueError" || len(te.Args) != 2 || te.Traceback == "" {
		t.Errorf("a failure in Python: %#v", err)
	}
}

const clientPy = `
import json
import tasks as t
out = {'add': t.app.send_task('go.add', (2, 3)).get(timeout=30),
       'flaky': t.app.send_task('go.flaky', (2,)).get(timeout=30),
       'progress': t.app.send_task('go.progress', (2,)).get(timeout=30)}
r = t.app.send_task('go.fail', (5,))
try:
    r.get(timeout=30)
except Exception as e:
    out['fail'] = [type(e).__name__, list(e.args), r.state]
print(json.dumps(out))
`

func TestInteropPythonClient(t *testing.T) {
	t.Parallel()
	url := testenv.RabbitMQ(t).Vhost(t)
	app := newApp(url)
	project(app)
	goWorker(t, app)
	raw := testenv.Python(t, limit(t, patience), map[string]string{"tasks": fmt.Sprintf(tasksPy, url)}, clientPy)
	var got map[string]any
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	for name, want := range map[string]string{"add": `5`, "flaky": `2`, "progress": `"ok"`, "fail": `["ValueError",["böse",5],"FAILURE"]`} {
		if text, err := json.Marshal(got[name]); err != nil || string(text) != want {
			t.Errorf("%s: Python got %s, want %s", name, text, want)
		}
	}
}
