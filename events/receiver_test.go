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

func listen(t *testing.T, h *hub, change func(*events.ListenConfig)) (*events.Receiver, *bytes.Buffer) {
	t.Helper()
	log := new(bytes.Buffer)
	cfg := events.ListenConfig{Logger: slog.New(slog.NewTextHandler(log, nil))}
	if change != nil {
		change(&cfg)
	}
	r, err := events.Listen(t.Context(), h, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r, log
}

func TestReceiver(t *testing.T) {
	t.Parallel()
	t.Run("BatchesAndSinglesComeInOrder", func(t *testing.T) {
		t.Parallel()
		h := new(hub)
		r, _ := listen(t, h, nil)
		d, _ := newDispatcher(t, h, nil)
		d.Publish(events.TaskReceived, "1", nil)
		d.Publish(events.TaskStarted, "1", nil)
		if err := d.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := d.Send(t.Context(), "my-own", map[string]any{"a": 1}); err != nil {
			t.Fatal(err)
		}
		got := ""
		for e, err := range r.All(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if e.LocalReceived.IsZero() {
				t.Errorf("%s has no LocalReceived", e.Type)
			}
			if got += e.Type + " "; e.Type == "my-own" {
				break
			}
		}
		if want := "task-received task-started my-own "; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if r.Missed() != 4 { // what the listener of the fake says
			t.Errorf("missed %d", r.Missed())
		}
	})
	t.Run("ThePatternReachesTheBroker", func(t *testing.T) {
		t.Parallel()
		h := new(hub)
		r, _ := listen(t, h, func(c *events.ListenConfig) { c.Pattern = "worker.online"; c.Exchange = "ev2" })
		d, _ := newDispatcher(t, h, func(c *events.Config) { c.Exchange = "ev2" })
		for _, typ := range []string{"task-sent", events.WorkerOnline} {
			if err := d.Send(t.Context(), typ, nil); err != nil {
				t.Fatal(err)
			}
		}
		if e, err := r.Next(t.Context()); err != nil || e.Type != events.WorkerOnline {
			t.Errorf("got %q, %v", e.Type, err)
		}
	})
	t.Run("TheClockFollows", func(t *testing.T) {
		t.Parallel()
		h := new(hub)
		r, _ := listen(t, h, nil)
		h.put(`[{"type":"a-b","clock":10},{"type":"task-sent","clock":9000},{"type":"a-b"},{"type":"a-b","clock":9223372036854775807}]`, "")
		for i, want := range []int64{10, 10, 13, 9223372036854775807} {
			e, err := r.Next(t.Context())
			if err != nil || e.Clock != want {
				t.Errorf("event %d: clock %d, %v; want %d", i, e.Clock, err, want)
			}
		}
		if got := r.Clock().Value(); got != 14 {
			t.Errorf("the receiver's clock is %d, want 14", got)
		}
	})
	t.Run("MalformedIsCountedAndPassedOver", func(t *testing.T) {
		t.Parallel()
		h := new(hub)
		r, log := listen(t, h, func(c *events.ListenConfig) { c.MaxBody = 50 })
		h.put(`{`, "")
		h.put(`{"type":"yaml"}`, "application/x-yaml")
		h.put(`{"type":"`+strings.Repeat("x", 50)+`"}`, "")
		h.put(`[3,{"type":"good"}]`, "application/json")
		if e, err := r.Next(t.Context()); err != nil || e.Type != "good" {
			t.Errorf("got %q, %v", e.Type, err)
		}
		if r.Malformed() != 4 || strings.Count(log.String(), "Malformed event") != 3 {
			t.Errorf("%d malformed, want 4 of which the 1st, 2nd and 4th are in\n%s", r.Malformed(), log)
		}
	})
	t.Run("HandlersByTypeAndStar", func(t *testing.T) {
		t.Parallel()
		h := new(hub)
		r, log := listen(t, h, nil)
		h.put(`[{"type":"a-b"},{"type":"boom"},{"type":"c-d"}]`, "")
		got := ""
		stop := errors.New("stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		err := r.Capture(ctx, map[string]func(events.Event){
			"a-b":  func(e events.Event) { got += "handler " },
			"boom": func(events.Event) { panic("oh") },
			"*":    func(e events.Event) { got += e.Type; cancel(stop) },
		})
		if got != "handler c-d" || !errors.Is(err, stop) {
			t.Errorf("got %q, %v", got, err)
		}
		if r.Panics() != 1 || !strings.Contains(log.String(), "oh") {
			t.Errorf("%d panics, log %s", r.Panics(), log)
		}
	})
	t.Run("CloseEndsAWaitingReader", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			r, _ := listen(t, new(hub), nil)
			time.AfterFunc(time.Minute, func() {
				if err := r.Close(); err != nil {
					t.Error(err)
				}
			})
			if err := r.Capture(t.Context(), nil); err != nil {
				t.Errorf("Capture after Close gave %v", err)
			}
			if _, err := r.Next(t.Context()); !errors.Is(err, broker.ErrClosed) {
				t.Errorf("Next after Close gave %v", err)
			}
		})
	})
	t.Run("ABrokerWithoutFanoutIsNamed", func(t *testing.T) {
		t.Parallel()
		_, err := events.Listen(t.Context(), struct{ broker.Conn }{}, events.ListenConfig{})
		if !errors.Is(err, broker.ErrUnsupported) {
			t.Errorf("error is %v", err)
		}
		_, err = events.Listen(t.Context(), stuck{}, events.ListenConfig{})
		if !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(fmt.Sprint(err), "celeryev") {
			t.Errorf("error is %v", err)
		}
	})
}

func TestClockIsLamports(t *testing.T) {
	t.Parallel()
	var c events.Clock
	if got := []int64{c.Forward(), c.Adjust(10), c.Adjust(3), c.Forward(), c.Value()}; fmt.Sprint(got) != "[1 11 12 13 13]" {
		t.Errorf("got %v, want [1 11 12 13 13]", got)
	}
}
