package interop_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

const gossipProject = `
from celery import Celery
app = Celery("proj", broker="BROKER", backend="RESULTS")
app.conf.update(task_default_queue="py")

@app.task(name="t.elected", bind=True)
def elected(self):
    return "Python ran " + self.request.id
`

const gossipClient = `
import sys
from proj import app
for line in sys.stdin:
    word, id = line.split()
    if word == "elect":
        app.control.election(id, "task", app.signature("t.elected", task_id=id))
    else:
        app.control.shutdown(destination=[id])
    print("done", flush=True)
`

// party is what Go workers hear of each other and of Python's.
type party struct {
	mu     sync.Mutex
	heard  map[string]bool
	change chan struct{}
}

func (p *party) of(name string) worker.Config {
	note := func(what string) func(worker.Peer) {
		return func(peer worker.Peer) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.heard[name+": "+what+" "+peer.Hostname] = true
			close(p.change)
			p.change = make(chan struct{})
		}
	}
	return worker.Config{Hostname: name, Concurrency: 1, Gossip: worker.Gossip{Joined: note("joined"), Left: note("left"), Lost: note("lost"),
		Topics: map[string]func(context.Context, json.RawMessage) error{}}}
}

func (p *party) hears(t *testing.T, what string) {
	t.Helper()
	late := time.After(time.Minute)
	for {
		p.mu.Lock()
		heard, change := p.heard[what], p.change
		p.mu.Unlock()
		if heard {
			return
		}
		select {
		case <-change:
		case <-late:
			t.Fatalf("not heard within a minute: %s", what)
		}
	}
}

// TestInteropGossip: Python's and Go's workers know of each other, and an election
// among them is decided, whoever calls it: each elected task runs, where it was
// not lost to two winners, once.
func TestInteropGossip(t *testing.T) {
	t.Parallel()
	brokers(t, func(t *testing.T, u urls) {
		p := &party{heard: map[string]bool{}, change: make(chan struct{})}
		goWorker := func(name string) {
			app := lovage.New("go", lovage.Config{BrokerURL: u.Broker, ResultBackend: u.Results, TaskDefaultQueue: "go"})
			lovage.Func(app, "t.elected", func(ctx context.Context, _ lovage.Args) (string, error) {
				return "Go ran " + lovage.RequestFrom(ctx).ID, nil
			})
			runGo(t, app, p.of(name))
		}
		goWorker("go1@host")
		goWorker("go2@host")
		source := strings.NewReplacer("BROKER", u.Broker, "RESULTS", u.Results).Replace(gossipProject)
		py := testenv.CeleryWorker(t, "proj", source, "-P", "solo", "-n", "py@host", "-l", "DEBUG")
		python := testenv.StartPython(t, map[string]string{"proj": source}, gossipClient)
		p.hears(t, "go1@host: joined go2@host")
		p.hears(t, "go1@host: joined py@host")
		p.hears(t, "go2@host: joined py@host")
		for _, name := range []string{"go1", "go2"} {
			py.Logs(t, name+"@host joined the party")
		}

		client := lovage.New("client", lovage.Config{BrokerURL: u.Broker, ResultBackend: u.Results})
		t.Cleanup(func() { _ = client.Close(context.Background()) })
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		for i := range 6 {
			id := fmt.Sprint("elected-", i)
			if i%2 == 0 {
				ask(t, python, "elect "+id)
			} else if _, err := client.Control().Election(ctx, id, "task", map[string]any{
				"task": "t.elected", "args": []any{}, "kwargs": map[string]any{}, "options": map[string]any{"task_id": id}, "subtask_type": nil, "immutable": false,
			}, control.Options{}); err != nil {
				t.Fatal(err)
			}
			got, err := lovage.ResultOf[string](client, id).Get(ctx)
			if err != nil || !strings.HasSuffix(got, " ran "+id) {
				t.Fatalf("election %d: got %q, %v\n%s", i, got, err, py.Log())
			}
			py.Logs(t, "elected for '"+id+"'", "I won the election '"+id+"'")
		}
		if log := py.Log(); strings.Contains(log, "Traceback") {
			t.Errorf("Python's worker stumbles:\n%s", log)
		}
		ask(t, python, "shutdown py@host") // a signal may be lost, see CeleryProcess.Stop
		p.hears(t, "go1@host: left py@host")
	})
}
