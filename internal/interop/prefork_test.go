package interop_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

// runPrefork is a Go worker process with children.
func runPrefork(s site) error {
	app := withTasks(newApp(s.urls, os.Stderr), s.Gate)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	cfg := goConfig()
	cfg.Pool = "prefork"
	if err := worker.New(app, cfg).Run(ctx); err != nil {
		return err
	}
	return app.Close(context.Background())
}

// TestInteropPrefork has prefork workers of both languages on one queue: the
// table, and what Python's inspect and control see and do of a pool.
func TestInteropPrefork(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(t *testing.T) urls{
		"Redis": func(t *testing.T) urls {
			server := testenv.Redis(t)
			url := server.URL(server.DB(t))
			return urls{url, url}
		},
		"RabbitMQ": func(t *testing.T) urls {
			redis := testenv.Redis(t)
			return urls{testenv.RabbitMQ(t).Vhost(t), redis.URL(redis.DB(t))}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := start(t, open(t), true)
			runTable(t, f, map[string]int{"Redis": 300, "RabbitMQ": 288}[name])
			t.Run("Stats", f.sameStats)
			t.Run("Terminate", f.terminates)
			t.Run("Resize", f.resizes)
		})
	}
}

var nodes = []string{"py@test", "go@test"}

// poolStats is what Celery's stats say of a pool of processes.
type poolStats struct {
	Size      int   `json:"max-concurrency"`
	Processes []int `json:"processes"`
	MaxTasks  any   `json:"max-tasks-per-child"`
	Guarded   bool  `json:"put-guarded-by-semaphore"`
	Timeouts  []int `json:"timeouts"`
	raw       map[string]any
}

// inspect has Python ask workers.
func (f *fleet) inspect(t *testing.T, method string, into any, to ...string) {
	t.Helper()
	raw, err := f.ask("inspect", map[string]any{"method": method, "to": to})
	if err == nil {
		err = json.Unmarshal(raw, into)
	}
	if err != nil {
		t.Fatalf("inspect %s: %v", method, err)
	}
}

func (f *fleet) stats(t *testing.T) map[string]poolStats {
	t.Helper()
	var raw map[string]struct{ Pool json.RawMessage }
	f.inspect(t, "stats", &raw, nodes...)
	all := map[string]poolStats{}
	for node, r := range raw {
		var s poolStats
		if err := json.Unmarshal(r.Pool, &s); err != nil {
			t.Fatalf("%s: %v in %s", node, err, r.Pool)
		}
		if err := json.Unmarshal(r.Pool, &s.raw); err != nil {
			t.Fatal(err)
		}
		all[node] = s
	}
	for _, node := range nodes {
		if _, ok := all[node]; !ok {
			t.Fatalf("%s has not answered: %v", node, slices.Collect(maps.Keys(all)))
		}
	}
	return all
}

func (f *fleet) sameStats(t *testing.T) {
	all := f.stats(t)
	py, ours := all["py@test"], all["go@test"]
	for key := range py.raw {
		if _, ok := ours.raw[key]; !ok && key != "writes" { // of pipes to children
			t.Errorf("the pool's stats lack %q, which Celery's have", key)
		}
	}
	if ours.Size != slots || ours.MaxTasks != py.MaxTasks || !slices.Equal(ours.Timeouts, py.Timeouts) || len(ours.Processes) != len(py.Processes) {
		t.Errorf("the pool is %v, Celery's of the same size is %v", ours.raw, py.raw)
	}
}

// terminates has Python end a run in a child of either worker.
func (f *fleet) terminates(t *testing.T) {
	var seen []outcome
	for _, language := range languages {
		id, node := "nap-"+language, language+"@test"
		f.send(t, golang, call{Name: id, Task: "t.nap", Args: []any{3600}, Options: options{ID: id, Queue: queue(language)}})
		pid := 0
		f.until(t, "the nap is active", func() bool {
			var active map[string][]struct {
				ID  string
				PID int `json:"worker_pid"`
			}
			f.inspect(t, "active", &active, node)
			for _, r := range active[node] {
				if r.ID == id {
					pid = r.PID
				}
			}
			return pid != 0
		})
		if s := f.stats(t)[node]; !slices.Contains(s.Processes, pid) {
			t.Errorf("%s: the task is active in process %d, the pool has %v", node, pid, s.Processes)
		}
		if _, err := f.ask("control", map[string]any{"method": "revoke", "args": []any{id}, "kwargs": map[string]any{"terminate": true, "signal": "SIGTERM", "destination": []string{node}}}); err != nil {
			t.Fatal(err)
		}
		for _, reader := range languages {
			seen = append(seen, f.outcome(t, reader, id))
		}
		f.until(t, "another process in the place of the one that was killed", func() bool {
			s := f.stats(t)[node]
			return len(s.Processes) == slots && !slices.Contains(s.Processes, pid)
		})
	}
	for _, o := range seen { // a Go worker has said that it is revoked before its run is killed, and why is then the revoke
		if o.State != string(lovage.Revoked) || o.Type != "TaskRevokedError" || o.Module != "celery.exceptions" {
			t.Errorf("got %v, want each client to read the same of each worker", seen)
			break
		}
	}
	f.golang.Logs(t, "Task t.nap[nap-go] was terminated: signal 15 (SIGTERM)") // the signal that Python named
}

// resizes has Python make both pools larger and smaller.
func (f *fleet) resizes(t *testing.T) {
	for _, change := range []struct {
		method string
		want   int
	}{{"pool_grow", slots + 2}, {"pool_shrink", slots}} {
		if _, err := f.ask("control", map[string]any{"method": change.method, "args": []any{2}, "kwargs": map[string]any{"destination": nodes, "reply": true, "timeout": 20, "limit": 2}}); err != nil {
			t.Fatal(err)
		}
		f.until(t, fmt.Sprintf("%d processes after %s", change.want, change.method), func() bool {
			ours := f.stats(t)["go@test"]
			return ours.Size == change.want && len(ours.Processes) == change.want
		})
	}
}

func (f *fleet) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(60 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not after a minute: %s\n%s", what, tail(f.golang.Log()))
		}
	}
}
