package redisbroker_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	_ "github.com/lovage-go/lovage/backend/redisbackend"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

// tasksPy is a Celery project as a user has it, on the server given by the
// environment's stead: the two %s.
const tasksPy = `
from celery import Celery
app = Celery('proj', broker='%[1]s', backend='%[1]s')
app.conf.update(task_default_queue='%[2]s', broker_connection_retry_on_startup=True, worker_hijack_root_logger=True)

@app.task(name='py.add')
def add(x, y=0):
    return x + y

@app.task(name='go.add')
def go_add(x, y=0): ...
`

func tasks(url, queue string) string { return fmt.Sprintf(tasksPy, url, queue) }

type addArgs struct {
	X int `lovage:"x"`
	Y int `lovage:"y,default=0"`
}

// goApp is the same project in Go.
func goApp(url, queue string) *lovage.App {
	app := lovage.New("proj", lovage.Config{BrokerURL: url, ResultBackend: url, TaskDefaultQueue: queue}, lovage.WithLogger(slog.New(slog.DiscardHandler)))
	lovage.Func(app, "go.add", func(_ context.Context, in addArgs) (int, error) { return in.X + in.Y, nil })
	return app
}

// goWorker runs a worker until the end of the test.
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
	case err := <-ended:
		ended <- err
		t.Fatalf("worker: %v", err)
	case <-time.After(patience):
		t.Fatal("the worker is not ready after 20 s")
	}
}

// TestInteropWorkerDirect: Python sends to the queue of one Go worker.
func TestInteropWorkerDirect(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	url := server.URL(server.DB(t))
	app, on := goApp(url, "q"), true
	if err := app.Configure(func(c *lovage.Config) ([]lovage.Warning, error) { c.WorkerDirect = &on; return nil, nil }); err != nil {
		t.Fatal(err)
	}
	goWorker(t, app)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	got := testenv.Python(t, ctx, map[string]string{"tasks": tasks(url, "q")}, `
import socket, tasks
from celery.utils.nodenames import worker_direct
print(tasks.go_add.apply_async((2, 3), queue=worker_direct('go@' + socket.gethostname())).get(timeout=30))
`)
	if string(got) != "5\n" {
		t.Errorf("Python got %q, want 5", got)
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
	server := testenv.Redis(t)
	url := server.URL(server.DB(t))
	module := tasks(url, "q") + `
@app.task(name='both.twice')
def twice(i):
    return 2 * i
`
	py := testenv.CeleryWorker(t, "tasks", module, "-P", "solo", "-Q", "q", "-n", "py@test", "--prefetch-multiplier=1")
	app := goApp(url, "q")
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
	inGo, inPython := len(ran), 0
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(patience); ; { // Celery logs after it has stored the result
		if inPython = strings.Count(py.Log(), "succeeded in"); inGo+inPython >= 2*n {
			break
		}
		select {
		case <-tick.C:
			continue
		case <-late:
		}
		break
	}
	t.Logf("%d ran in Go, %d in Python", inGo, inPython)
	if inGo+inPython != 2*n || inGo == 0 || inPython == 0 {
		t.Errorf("%d ran in Go and %d in Python of %d", inGo, inPython, 2*n)
	}
}
