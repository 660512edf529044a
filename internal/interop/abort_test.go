package interop_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

const abortProject = `
import time
from celery import Celery
from celery.contrib.abortable import AbortableTask
app = Celery("proj", broker="BROKER", backend="RESULTS")
app.conf.update(task_default_queue="py")

@app.task(name="py.wait", bind=True, base=AbortableTask)
def wait(self):
    for _ in range(1200):
        if self.is_aborted():
            return "aborted in Python"
        time.sleep(0.05)
    return "never asked to stop"
`

const abortClient = `
import sys
from proj import app
from celery.contrib.abortable import AbortableAsyncResult
for line in sys.stdin:
    word, id = line.split()
    r = AbortableAsyncResult(id, app=app)
    if word == "abort":
        r.abort()
        print("done", flush=True)
    elif word == "is_aborted":
        print(r.is_aborted(), flush=True)
    else:
        print(r.get(timeout=60), flush=True)
`

// TestInteropAbort: each language aborts the runs of the other.
func TestInteropAbort(t *testing.T) {
	t.Parallel()
	brokers(t, func(t *testing.T, u urls) {
		source := strings.NewReplacer("BROKER", u.Broker, "RESULTS", u.Results).Replace(abortProject)
		testenv.CeleryWorker(t, "proj", source, "-P", "solo", "-n", "py@host")
		python := testenv.StartPython(t, map[string]string{"proj": source}, abortClient)
		app := lovage.New("go", lovage.Config{BrokerURL: u.Broker, ResultBackend: u.Results, TaskDefaultQueue: "go"})
		wait := lovage.Func(app, "go.wait", func(ctx context.Context, _ lovage.Args) (string, error) {
			r, tick := lovage.RequestFrom(ctx), time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for n := 0; !r.Aborted(); n++ { // and does not overwrite the wish
				if err := r.UpdateState(ctx, "PROGRESS", map[string]any{"n": n}); err != nil {
					return "", err
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
					return "", context.Cause(ctx)
				}
			}
			return "aborted in Go", nil
		})
		runGo(t, app, worker.Config{Hostname: "go@host", Concurrency: 2})
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()

		res, err := app.Send(ctx, "py.wait", lovage.Args{}, lovage.Queue("py"))
		if err != nil {
			t.Fatal(err)
		}
		if err := res.Abort(ctx); err != nil {
			t.Fatal(err)
		}
		if got, err := res.Get(ctx); err != nil || got != "aborted in Python" {
			t.Errorf("a run in Python: got %v, %v", got, err)
		}
		mine, err := wait.Delay(ctx, lovage.Args{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := mine.Wait(ctx, func(m *lovage.Meta) bool { return m.Status == "PROGRESS" }); err != nil {
			t.Fatal(err)
		}
		ask(t, python, "abort "+mine.ID())
		if got := ask(t, python, "get "+mine.ID()); got != "aborted in Go" {
			t.Errorf("a run in Go: got %q", got)
		}

		ask(t, python, "abort nobody-1")
		if is, err := app.Result("nobody-1").IsAborted(ctx); err != nil || !is {
			t.Errorf("IsAborted of what Python aborted: got %t, %v", is, err)
		}
		if err := app.Result("nobody-2").Abort(ctx); err != nil {
			t.Fatal(err)
		}
		if got := ask(t, python, "is_aborted nobody-2"); got != "True" {
			t.Errorf("is_aborted of what Go aborted: got %s", got)
		}
		if err := mine.Abort(ctx); err != nil {
			t.Fatal(err)
		}
		if got, err := mine.State(ctx); err != nil || got != lovage.Success {
			t.Errorf("what had ended: got %s, %v; want it as it was", got, err)
		}
	})
}

func ask(t *testing.T, python *testenv.PythonSession, line string) string {
	t.Helper()
	got, err := python.Ask([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(got))
}
