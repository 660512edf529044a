package events_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lovage-go/lovage/events"
	"github.com/lovage-go/lovage/memory"
)

// TestOnTheMemoryBroker lets two processes of one store talk to each other.
func TestOnTheMemoryBroker(t *testing.T) {
	t.Parallel()
	t.Run("ALifeIsSeenByAnotherProcess", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			store := memory.New()
			worker, monitor := store.Process("worker").Broker(), store.Process("monitor").Broker()
			all, err := events.Listen(t.Context(), monitor, events.ListenConfig{})
			if err != nil {
				t.Fatal(err)
			}
			workers, err := events.Listen(t.Context(), monitor, events.ListenConfig{Pattern: "worker.#"})
			if err != nil {
				t.Fatal(err)
			}
			d, _ := newDispatcher(t, worker, nil)
			ended := running(t, d)
			if err := d.Send(t.Context(), events.WorkerOnline, events.WorkerInfo{Freq: 2 * time.Second, Version: "1"}.Fields()); err != nil {
				t.Fatal(err)
			}
			d.Publish(events.TaskReceived, "u", events.ReceivedFields(events.TaskInfo{Name: "add", Args: "(2, 3)", Kwargs: "{}"}))
			d.Publish(events.TaskStarted, "u", nil)
			d.Publish(events.TaskSucceeded, "u", events.SucceededFields("5", 1500*time.Millisecond))
			want := []string{events.WorkerOnline, events.TaskReceived, events.TaskStarted, events.TaskSucceeded}
			var last events.Event
			for i, typ := range want {
				e, err := all.Next(t.Context())
				if err != nil || e.Type != typ || e.Clock != int64(i+1) {
					t.Fatalf("event %d is %q at %d (%v), want %q", i, e.Type, e.Clock, err, typ)
				}
				last = e
			}
			if last.UUID != "u" || last.Text("result") != "5" || fmt.Sprint(last.Fields["runtime"]) != "1.5" {
				t.Errorf("task-succeeded is %+v", last)
			}
			if lag := last.LocalReceived.Sub(last.Time()); lag != 500*time.Millisecond {
				t.Errorf("the batch took %v, want the flush interval", lag)
			}
			if e, err := workers.Next(t.Context()); err != nil || e.Type != events.WorkerOnline {
				t.Errorf("worker.# got %q, %v", e.Type, err)
			}
			for _, close := range []func() error{func() error { return d.Close(t.Context()) }, ended, all.Close, workers.Close, worker.Close, monitor.Close} {
				if err := close(); err != nil {
					t.Error(err)
				}
			}
		})
	})
	t.Run("AnEventTooLargeIsDroppedAlone", func(t *testing.T) {
		t.Parallel()
		conn := memory.New(memory.WithMaxBody(1000)).Broker()
		r, err := events.Listen(t.Context(), conn, events.ListenConfig{})
		if err != nil {
			t.Fatal(err)
		}
		d, _ := newDispatcher(t, conn, nil)
		d.Publish(events.TaskFailed, "large", events.FailedFields(strings.Repeat("x", 2000), ""))
		d.Publish(events.TaskStarted, "small", nil)
		if err := d.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if e, err := r.Next(t.Context()); err != nil || e.UUID != "small" {
			t.Errorf("got %q, %v", e.UUID, err)
		}
		if s := d.Stats(); s.Dropped != 1 || s.Sent != 1 {
			t.Errorf("stats %+v", s)
		}
	})
	t.Run("AKilledConnectionKeepsTheBuffer", func(t *testing.T) {
		t.Parallel()
		store := memory.New()
		dead, alive := store.Process("a").Broker(), store.Process("b").Broker()
		r, err := events.Listen(t.Context(), alive, events.ListenConfig{})
		if err != nil {
			t.Fatal(err)
		}
		d, _ := newDispatcher(t, dead, nil)
		d.Publish(events.TaskStarted, "u", nil)
		dead.Kill()
		if err := d.Flush(t.Context()); err == nil {
			t.Error("a flush through a killed connection succeeded")
		}
		d.SetConn(alive)
		if err := d.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		if e, err := r.Next(t.Context()); err != nil || e.UUID != "u" {
			t.Errorf("got %q, %v", e.UUID, err)
		}
	})
}
