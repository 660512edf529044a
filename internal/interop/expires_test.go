package interop_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

// heldPy is the queue of a Python worker whose slot is held, and its name.
const heldPy = "py.held"

// expiresReserved has a task expire that a worker has claimed, while its slot is
// held. RabbitMQ drops what expires before that, so that nobody could tell; from then
// on it is the worker's to say that it is revoked, on every broker.
func (f *fleet) expiresReserved(t *testing.T) {
	// Celery looks at the expiry again when a slot is free with processes alone.
	testenv.CeleryWorker(t, "project", f.source, "-P", "prefork", "-c", "1", "-n", heldPy+"@test", "-Q", heldPy, "--without-gossip", "--without-mingle")
	want := outcome{State: "REVOKED", Type: "TaskRevokedError", Module: "celery.exceptions", Args: []any{"expired"}}
	for _, client := range languages {
		for _, runs := range languages {
			t.Run(client+"To"+runs, func(t *testing.T) {
				id := f.expireReserved(t, client, runs)
				for _, reader := range f.readers(client) {
					if got := f.outcome(t, reader, id); got.String() != want.String() {
						t.Errorf("%s reads %s, want %s", reader, got, want)
					}
				}
			})
		}
	}
}

// expireReserved returns the id of the task. One that expires on its way shows
// nothing, and another one is sent.
func (f *fleet) expireReserved(t *testing.T, client, runs string) string {
	t.Helper()
	left := 2 * time.Second
	if runs == golang {
		left = 900 * time.Millisecond // what has waited for a second in a Go worker goes back
	}
	for try := range 10 {
		id := fmt.Sprintf("%s-%s-reserved%d", client, runs, try)
		queue, reserved, end := f.hold(t, runs, id)
		f.send(t, client, call{Name: id, Task: "t.add", Args: []any{1, 1}, Options: options{ID: id, Queue: queue, Expires: left.Seconds()}})
		expired := time.Now().Add(left)
		there := false
		for !there && time.Now().Before(expired) {
			if there = reserved(); !there {
				<-time.After(5 * time.Millisecond)
			}
		}
		<-time.After(time.Until(expired))
		end()
		if there {
			return id
		}
	}
	t.Fatalf("of ten tasks each had expired before a worker had it")
	return ""
}

// hold takes the slot of a worker that consumes from a queue, until end is called;
// reserved reports whether it has the task in waiting.
func (f *fleet) hold(t *testing.T, runs, id string) (from string, reserved func() bool, end func()) {
	t.Helper()
	dir, from := t.TempDir(), heldPy
	if runs == golang { // one that has seen no long run yet, after which it claims nothing ahead
		from = id
		w := runGo(t, withTasks(newApp(f.urls, io.Discard), f.gate), worker.Config{Hostname: id + "@test", Concurrency: 1, Queues: []string{from}})
		reserved = func() bool { return w.Stats().Reserved == 1 }
	} else {
		reserved = func() bool {
			var waiting map[string][]struct{ ID string }
			f.inspect(t, "reserved", &waiting, heldPy+"@test")
			return strings.Contains(fmt.Sprint(waiting), id)
		}
	}
	end = func() {
		if err := os.WriteFile(filepath.Join(dir, "end"), nil, 0o600); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(end)
	name := id + "-held"
	f.send(t, golang, call{Name: name, Task: "t.hold", Args: []any{dir, name}, Options: options{ID: name, Queue: from}})
	eventually(t, name+" runs", func() bool { _, err := os.Stat(filepath.Join(dir, name)); return err == nil })
	return from, reserved, end
}
