package events_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/events"
)

// away is the answer of a broker that cannot be reached.
func away([]*broker.Message) error { return fmt.Errorf("dial: %w", broker.ErrUnavailable) }

func newDispatcher(t *testing.T, h broker.Conn, change func(*events.Config)) (*events.Dispatcher, *bytes.Buffer) {
	t.Helper()
	log := new(bytes.Buffer)
	cfg := events.Config{Conn: h, Hostname: "w1@host", PID: 42, Enabled: true, Logger: slog.New(slog.NewTextHandler(log, nil))}
	if change != nil {
		change(&cfg)
	}
	return events.NewDispatcher(cfg), log
}

// parsed are the events of all messages that the broker accepted.
func parsed(t *testing.T, h *hub) (all []events.Event) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.accepted {
		list, err := events.Parse(m.Body)
		if err != nil {
			t.Fatalf("%v in %s", err, m.Body)
		}
		all = append(all, list...)
	}
	return all
}

func TestSend(t *testing.T) {
	t.Parallel()
	t.Run("TheMessageIsCelerys", func(t *testing.T) {
		t.Parallel()
		h := new(hub)
		d, _ := newDispatcher(t, h, nil)
		before := time.Now()
		if err := d.Send(t.Context(), "task-progress-step", map[string]any{"step": 3}, events.UUID("id-1")); err != nil {
			t.Fatal(err)
		}
		m := h.accepted[0]
		if m.RoutingKey != "task.progress.step" || m.Exchange != "celeryev" || m.Properties.ContentType != "application/json" ||
			m.Properties.ContentEncoding != "utf-8" || m.Properties.DeliveryMode != 1 || string(m.Headers.AppendJSON(nil)) != `{"hostname": "w1@host"}` {
			t.Errorf("message is %+v", m)
		}
		e := parsed(t, h)[0]
		if e.UUID != "id-1" || e.Hostname != "w1@host" || e.PID != 42 || e.Clock != 1 || fmt.Sprint(e.Fields["step"]) != "3" {
			t.Errorf("event is %+v", e)
		}
		if at := e.Time(); at.Before(before.Add(-time.Millisecond)) || at.After(time.Now().Add(time.Millisecond)) {
			t.Errorf("timestamp is %v, sent after %v", at, before)
		}
		if m.Body[0] != '{' {
			t.Errorf("a single event is sent as %s, want an object", m.Body)
		}
	})
	t.Run("TimestampCanBeGivenAndClockLeftOut", func(t *testing.T) {
		t.Parallel()
		h := new(hub)
		d, _ := newDispatcher(t, h, nil)
		fields := map[string]any{"timestamp": 12.5}
		if err := d.Send(t.Context(), "a-b", fields, events.Blind()); err != nil {
			t.Fatal(err)
		}
		if e := parsed(t, h)[0]; e.Timestamp != 12.5 || d.Clock().Value() != 0 {
			t.Errorf("timestamp %v, clock %d; want 12.5 and 0", e.Timestamp, d.Clock().Value())
		}
		if len(fields) != 1 {
			t.Errorf("the caller's map was changed: %v", fields)
		}
	})
	t.Run("DisabledAndFilteredAreSilent", func(t *testing.T) {
		t.Parallel()
		h := new(hub)
		told := ""
		d, _ := newDispatcher(t, h, func(c *events.Config) {
			c.Groups = []string{"worker"}
			c.OnEnabled = func() { told += "on " }
			c.OnDisabled = func() { told += "off " }
		})
		send := func(typ string) {
			t.Helper()
			if err := d.Send(t.Context(), typ, nil); err != nil {
				t.Error(err)
			}
		}
		send("task-sent")
		send("worker-online")
		if !d.Disable() || d.Disable() {
			t.Error("Disable must report the change, once")
		}
		send("worker-heartbeat")
		if !d.Enable() || d.Enable() {
			t.Error("Enable must report the change, once")
		}
		d.SetGroups("worker", "task")
		send("task-sent")
		if got, want := h.keys(), "worker.online task.sent"; got != want {
			t.Errorf("sent %q, want %q", got, want)
		}
		if told != "off on " || fmt.Sprint(d.Groups()) != "[task worker]" {
			t.Errorf("callbacks %q, groups %v", told, d.Groups())
		}
	})
	t.Run("RetryFollowsThePolicy", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			h := new(hub)
			tries := 0
			h.fail = func(m []*broker.Message) error {
				if tries++; tries <= 3 {
					return away(m)
				}
				return nil
			}
			d, _ := newDispatcher(t, h, nil)
			if err := d.Send(t.Context(), "a-b", nil); !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), "a-b") {
				t.Fatalf("without retry: error is %v", err)
			}
			begin := time.Now()
			p := events.RetryPolicy{MaxRetries: 3, IntervalStep: 200 * time.Millisecond, IntervalMax: time.Second}
			if err := d.Send(t.Context(), "a-b", nil, events.Retry(p)); err != nil {
				t.Fatal(err)
			}
			if tries != 4 || time.Since(begin) != 200*time.Millisecond {
				t.Errorf("%d tries, the retried call took %v; want 4 and 200ms", tries, time.Since(begin))
			}
		})
	})
	t.Run("ABrokerWithoutFanoutIsNamed", func(t *testing.T) {
		t.Parallel()
		d, _ := newDispatcher(t, struct{ broker.Conn }{}, nil)
		for _, err := range []error{d.Send(t.Context(), "a-b", nil), d.Run(t.Context())} {
			if !errors.Is(err, broker.ErrUnsupported) || !strings.Contains(err.Error(), "fan-out") {
				t.Errorf("error is %v", err)
			}
		}
	})
	t.Run("AFieldThatIsNoJSONIsNamed", func(t *testing.T) {
		t.Parallel()
		d, _ := newDispatcher(t, new(hub), nil)
		err := d.Send(t.Context(), "a-b", map[string]any{"f": func() {}})
		if err == nil || !strings.Contains(err.Error(), `event a-b: field "f"`) {
			t.Errorf("error is %v", err)
		}
	})
}

// running starts Run inside a bubble and returns what waits for its end.
func running(t *testing.T, d *events.Dispatcher) (ended func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- d.Run(t.Context()) }()
	return func() error { return <-done }
}

func TestPublish(t *testing.T) {
	t.Parallel()
	t.Run("FlushedByTimeAndByNumber", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			h := new(hub)
			d, _ := newDispatcher(t, h, nil)
			ended := running(t, d)
			d.Publish(events.TaskStarted, "u1", nil)
			time.Sleep(499 * time.Millisecond) // the bubble's time
			synctest.Wait()
			if h.keys() != "" {
				t.Errorf("sent before the interval: %q", h.keys())
			}
			time.Sleep(time.Millisecond)
			synctest.Wait()
			if h.keys() != "task.multi" || h.accepted[0].Body[0] != '[' {
				t.Errorf("after the interval: %q", h.keys())
			}
			for range 24 {
				d.Publish(events.TaskStarted, "u2", nil)
			}
			synctest.Wait()
			if got := len(parsed(t, h)); got != 25 {
				t.Errorf("a full batch waited: %d events, want 25", got)
			}
			d.Publish(events.TaskSucceeded, "u3", events.SucceededFields("5", time.Second))
			d.Publish("shop-order", "", nil)
			if err := d.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if err := ended(); err != nil {
				t.Errorf("Run after Close gave %v", err)
			}
			if got, want := h.keys(), "task.multi task.multi task.multi shop.multi"; got != want {
				t.Errorf("keys %q, want %q", got, want)
			}
			for i, e := range parsed(t, h) {
				if e.Clock != int64(i+1) {
					t.Errorf("event %d has clock %d", i, e.Clock)
				}
			}
			if s := d.Stats(); s != (events.Stats{Sent: 27}) {
				t.Errorf("stats %+v", s)
			}
			d.Publish(events.TaskStarted, "late", nil)
			if s := d.Stats(); s.Buffered != 0 {
				t.Errorf("a closed dispatcher took an event: %+v", s)
			}
		})
	})
	t.Run("KeptInOrderWhileTheBrokerIsAway", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			h := &hub{fail: away}
			d, log := newDispatcher(t, h, func(c *events.Config) { c.MaxBuffer = 60; c.BufferLimit = 10 })
			ended := running(t, d)
			for i := range 100 {
				d.Publish(events.TaskStarted, fmt.Sprint(i), nil)
				time.Sleep(100 * time.Millisecond)
			}
			synctest.Wait() // the flush of this very moment has its answer
			if s := d.Stats(); s.Buffered != 60 || s.Dropped != 40 || s.Sent != 0 {
				t.Errorf("while away: %+v, want 60 kept and 40 dropped", s)
			}
			if h.calls > 30 {
				t.Errorf("the broker was asked %d times in 10s, want about two a second", h.calls)
			}
			back := &hub{}
			d.SetConn(back)
			time.Sleep(time.Second)
			synctest.Wait()
			all := parsed(t, back)
			if len(all) != 60 || all[0].UUID != "40" || all[59].UUID != "99" {
				t.Errorf("after the return: %d events %+v", len(all), all)
			}
			if err := d.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if err := ended(); err != nil {
				t.Error(err)
			}
			for _, line := range []string{"Events cannot be sent", "Events are being lost", "Events are sent again"} {
				if n := strings.Count(log.String(), line); n != 1 {
					t.Errorf("%q was logged %d times in\n%s", line, n, log)
				}
			}
		})
	})
	t.Run("AnEventTooLargeDoesNotTakeItsNeighbours", func(t *testing.T) {
		t.Parallel()
		h := &hub{fail: func(msgs []*broker.Message) error {
			errs := make([]error, len(msgs))
			for i, m := range msgs {
				if len(m.Body) > 1000 {
					errs[i] = broker.ErrTooLarge
				}
			}
			return &broker.BatchError{Errs: errs}
		}}
		d, log := newDispatcher(t, h, nil)
		d.Publish(events.TaskStarted, "a", nil)
		d.Publish(events.TaskFailed, "b", events.FailedFields("E()", strings.Repeat("x", 2000)))
		d.Publish(events.TaskStarted, "c", nil)
		if err := d.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s := d.Stats(); s != (events.Stats{Sent: 2, Dropped: 1}) || !strings.Contains(log.String(), "too large") {
			t.Errorf("stats %+v, log %s", s, log)
		}
	})
	t.Run("OnlyWhatFailedIsSentAgain", func(t *testing.T) {
		t.Parallel()
		h := &hub{fail: func(msgs []*broker.Message) error {
			errs := make([]error, len(msgs))
			errs[0] = broker.ErrUnavailable
			return &broker.BatchError{Errs: errs}
		}}
		d, _ := newDispatcher(t, h, func(c *events.Config) { c.BufferLimit = 2 })
		for i := range 4 {
			d.Publish(events.TaskStarted, fmt.Sprint(i), nil)
		}
		if err := d.Flush(t.Context()); !errors.Is(err, broker.ErrUnavailable) {
			t.Errorf("error is %v", err)
		}
		h.setFail(nil)
		if err := d.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		got := ""
		for _, e := range parsed(t, h) {
			got += e.UUID
		}
		if got != "2301" {
			t.Errorf("sent %q, want each event once: 2301", got)
		}
	})
	t.Run("CloseIsBounded", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			d, _ := newDispatcher(t, stuck{}, nil)
			d.Publish(events.TaskStarted, "a", nil)
			begin := time.Now()
			err := d.Close(t.Context())
			if err == nil || !strings.Contains(err.Error(), "1 events lost") || time.Since(begin) != 5*time.Second {
				t.Errorf("error %v after %v, want a loss after 5s", err, time.Since(begin))
			}
			if s := d.Stats(); s.Dropped != 1 {
				t.Errorf("stats %+v", s)
			}
		})
	})
	t.Run("CloseTriesAgain", func(t *testing.T) {
		t.Parallel()
		for name, c := range map[string]struct {
			tries int
			want  events.Stats
		}{
			"ALostConnection": {2, events.Stats{Sent: 2}},
			"ABrokerAway":     {100, events.Stats{Dropped: 2}},
		} {
			synctest.Test(t, func(t *testing.T) {
				h, n := new(hub), 0
				h.setFail(func(msgs []*broker.Message) error {
					if n++; n <= c.tries {
						return away(msgs)
					}
					return nil
				})
				d, _ := newDispatcher(t, h, nil)
				d.Publish(events.TaskStarted, "a", nil)
				d.Publish(events.TaskStarted, "b", nil)
				begin := time.Now()
				err := d.Close(t.Context())
				if took := time.Since(begin); (err == nil) != (c.want.Dropped == 0) || took > time.Second || d.Stats() != c.want {
					t.Errorf("%s: %v after %v, %+v, want %+v within a second", name, err, took, d.Stats(), c.want)
				}
			})
		}
	})
	t.Run("AFieldThatIsNoJSONIsLogged", func(t *testing.T) {
		t.Parallel()
		d, log := newDispatcher(t, new(hub), nil)
		d.Publish("task-x", "u9", map[string]any{"f": func() {}})
		if s := d.Stats(); s.Dropped != 1 || !strings.Contains(log.String(), "u9") {
			t.Errorf("stats %+v, log %s", s, log)
		}
	})
}

// stuck is a broker that answers only when it is no longer asked.
type stuck struct{ broker.Conn }

func (stuck) Broadcast(ctx context.Context, _ string, _ ...*broker.Message) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

func (stuck) Listen(context.Context, string, string) (broker.Listener, error) {
	return nil, broker.ErrUnavailable
}

// TestWorkerEventsGoAlone: Python's gossip reads them and breaks on a batch.
func TestWorkerEventsGoAlone(t *testing.T) {
	t.Parallel()
	h := new(hub)
	d, _ := newDispatcher(t, h, nil)
	d.Publish(events.WorkerOnline, "", nil)
	d.Publish(events.TaskStarted, "id", nil)
	d.Publish(events.WorkerHeartbeat, "", nil)
	if err := d.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := h.keys(), "worker.online task.multi worker.heartbeat"; got != want {
		t.Errorf("sent under %q, want %q", got, want)
	}
	if h.accepted[0].Body[0] != '{' || h.accepted[1].Body[0] != '[' {
		t.Errorf("sent %s and %s", h.accepted[0].Body, h.accepted[1].Body)
	}
}
