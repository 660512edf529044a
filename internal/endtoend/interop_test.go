package endtoend_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/cli"
	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

const projectPy = `
import time
from celery import Celery
app = Celery('proj', broker='%[1]s', backend='%[1]s')
app.conf.update(broker_connection_retry_on_startup=True)

@app.task(name='py.add')
def add(x, y=0):
    return x + y

@app.task(name='py.nap', rate_limit='100/s')
def nap(seconds):
    time.sleep(seconds)
`

// python starts a Celery worker on the server and returns its node name.
func python(t *testing.T, client *lovage.App, url string) (*testenv.CeleryProcess, string) {
	t.Helper()
	w := testenv.CeleryWorker(t, "proj", fmt.Sprintf(projectPy, url), "-P", "threads", "-c", "2", "-n", "py@%h")
	node := ""
	until(t, "the Celery worker listens", func() bool { // it is ready before it does
		replies, err := client.Control().Ping(t.Context(), control.Options{Pattern: "py@*", Limit: 1, Timeout: time.Second})
		if err == nil && len(replies) == 1 {
			node = replies[0].Node
		}
		return node != ""
	})
	return w, node
}

// TestInteropCommandLine: the command line asks Celery workers and Go workers
// alike.
func TestInteropCommandLine(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	url := server.URL(server.DB(t))
	client := startClient(t, url)
	process, py := python(t, client, url)
	startMember(t, lovage.Config{BrokerURL: url, ResultBackend: url}, newLogbook(), worker.Config{Hostname: "go@host", Queues: []string{"go"}}, withAdd)
	run := func(words ...string) (int, string, string) {
		t.Helper()
		var out, errs bytes.Buffer
		app := lovage.New("ops", lovage.Config{BrokerURL: url, ResultBackend: url})
		code := cli.Run(t.Context(), app, words, strings.NewReader(""), &out, &errs, cli.Environ(nil))
		return code, out.String(), errs.String()
	}
	ask := func(line string, nodes ...string) string {
		t.Helper()
		words := append(strings.Fields(line), "-t", "20", "-d", strings.Join(nodes, ","))
		code, out, errs := run(words...)
		want := cli.ExitOK
		if strings.HasPrefix(line, "control autoscale") { // which all refuse
			want = cli.ExitFailure
		}
		if code != want {
			t.Errorf("%s: exit code %d, want %d: %s", line, code, want, errs)
		}
		for _, node := range nodes {
			if !strings.Contains(out, node) {
				t.Errorf("%s: got %s, want an answer of %s", line, out, node)
			}
		}
		return out
	}
	nap, err := client.Send(t.Context(), "py.nap", lovage.Args{Positional: []any{3}})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "Celery runs the task", func() bool { return strings.Contains(ask("inspect active", py), nap.ID()) })
	later, err := client.Send(t.Context(), "py.add", lovage.Args{Positional: []any{3}}, lovage.Countdown(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	until(t, "Celery has the task for later", func() bool { return strings.Contains(ask("inspect scheduled", py), later.ID()) })
	for line, want := range map[string][]string{
		"status":                                {"->  " + py + ": OK", "->  go@host: OK", "2 nodes online."},
		"inspect ping":                          {"        pong", "2 nodes online."},
		"inspect registered":                    {"    * py.add", "    * py.nap [rate_limit=100/s]", "    * t.add"},
		"inspect stats":                         {`"threads": `, `        "implementation": "lovage:goroutine"`},
		"inspect active_queues":                 {"'name': 'celery'", "'name': 'go'"},
		"inspect conf yes":                      {`    "task_default_queue": "celery"`, `"broker_url": "redis://`},
		"inspect report":                        {"software -> celery:", "software -> lovage:"},
		"inspect clock":                         {`    "clock": `},
		"inspect query_task " + nap.ID() + " x": {nap.ID()},
		"control rate_limit py.add 5/s":         {"new rate limit set successfully", "ERROR", "unknown task"},
		"control time_limit py.nap 60 120":      {"time limits set successfully"},
		"control revoke some-id":                {"tasks some-id flagged as revoked", "tasks {'some-id'} flagged as revoked"},
		"control add_consumer other":            {"add consumer other"},
		"control heartbeat":                     {"None"},
		"control autoscale 4 1":                 {"ERROR", "ValueError('Autoscale not enabled')"},
	} {
		out := ask(line, py, "go@host")
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: got %s, want %q in it", line, out, w)
			}
		}
	}
	var revoked map[string][]string
	if err := json.Unmarshal([]byte(ask("inspect revoked -j", py, "go@host")), &revoked); err != nil {
		t.Error(err)
	}
	for _, node := range []string{py, "go@host"} {
		if !slices.Contains(revoked[node], "some-id") {
			t.Errorf("revoked at %s: got %q, want some-id among them", node, revoked[node])
		}
	}
	if code, _, errs := run("control", "shutdown", "-t", "0.1", "-d", py); code != cli.ExitUnavailable {
		t.Errorf("shutdown: exit code %d, %s; want 69: nobody answers it", code, errs)
	}
	until(t, "Celery shuts down", func() bool { return strings.Contains(process.Log(), "Got shutdown from remote") })
}

// TestInteropSharedQueue: a Go worker that knows none of the tasks of a Celery
// worker's queue loses none of its messages, and tells at its start.
func TestInteropSharedQueue(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	url := server.URL(server.DB(t))
	client := startClient(t, url)
	_, py := python(t, client, url)
	log := newLogbook()
	conf := lovage.Config{BrokerURL: url, ResultBackend: url, WorkerUnknownTask: "return"}
	m := startMember(t, conf, log, worker.Config{Hostname: "go@host", Concurrency: 2}, withAdd)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	var all []*lovage.Result[any]
	for i := range 60 {
		res, err := client.Send(ctx, "py.add", lovage.Args{Positional: []any{i, 1}})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, res)
	}
	for i, res := range all {
		if got, err := res.Get(ctx); err != nil || fmt.Sprint(got) != fmt.Sprint(i+1) {
			t.Fatalf("task %d: got %v, %v; want %d", i, got, err, i+1)
		}
	}
	met := m.w.Stats().Received
	t.Logf("the Go worker met 60 messages of Python's %d times", met)
	if met > 60*20 {
		t.Errorf("60 messages were met %d times: a hot loop", met)
	}
	until(t, "the warning at the start", func() bool {
		lines := log.find("Queue celery is shared with " + py)
		return len(lines) == 1 && strings.Contains(lines[0], "t.add only this one; py.add, py.nap only the others;")
	})
}
