package endtoend_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	_ "github.com/lovage-go/lovage/broker/amqpbroker"
	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/protocol"
	"github.com/lovage-go/lovage/worker"
)

// revoking is a fleet of one, with a slot that can be kept busy.
type revoking struct {
	*testing.T
	client *lovage.App
	worker *member

	mu      sync.Mutex // guards what follows
	ran     map[string]error
	release chan struct{}
}

// send publishes a call, with a stamp if there is one.
func (x *revoking) send(task, id, stamp string) {
	x.Helper()
	m := &protocol.Message{
		Headers: protocol.Headers{Lang: "py", Task: task, ID: id, RootID: id}, Body: []byte("[[],{},{}]"), Queue: "celery", RoutingKey: "celery",
		Properties: protocol.Properties{ContentType: protocol.ContentJSON, ContentEncoding: protocol.EncodingUTF8, CorrelationID: id, DeliveryMode: 2},
	}
	if stamp != "" {
		m.Headers.StampedHeaders, m.Headers.Stamps = []string{"order"}, map[string]json.RawMessage{"order": json.RawMessage(`["` + stamp + `"]`)}
	}
	if err := x.client.PublishMessages(x.Context(), m); err != nil {
		x.Fatal(err)
	}
}

func (x *revoking) later(id string, d time.Duration) {
	x.Helper()
	if _, err := x.client.Send(x.Context(), "t.mark", lovage.Args{}, lovage.TaskID(id), lovage.Countdown(d)); err != nil {
		x.Fatal(err)
	}
}

// obeyed wants the one reply of the worker.
func (x *revoking) obeyed(replies []control.Reply, err error) {
	x.Helper()
	if err != nil || len(replies) != 1 || replies[0].Err() != nil {
		x.Fatalf("got %v, %v; want one reply", replies, err)
	}
}

// busy keeps the only slot busy until the returned func is called.
func (x *revoking) busy(id string) (release func()) {
	x.Helper()
	x.mu.Lock()
	done := make(chan struct{})
	x.release, release = done, sync.OnceFunc(func() { close(done) })
	x.mu.Unlock()
	x.Cleanup(release) // should the test end before
	x.send("t.block", id, "busy-"+id)
	until(x.T, id+" runs", func() bool { return x.worker.w.Stats().Active == 1 })
	return release
}

var oneReply = control.Options{Reply: true, Limit: 1, Timeout: patience}

// TestRevokes: whatever names a task, and wherever it is when the revoke comes,
// it does not run, and what runs is ended. On every broker.
func TestRevokes(t *testing.T) {
	t.Parallel()
	stores := map[string]func(t *testing.T) lovage.Config{
		"rabbitmq": func(t *testing.T) lovage.Config {
			s := testenv.Redis(t)
			return lovage.Config{BrokerURL: testenv.RabbitMQ(t).Vhost(t), ResultBackend: s.URL(s.DB(t))}
		},
	}
	for name, open := range brokers {
		stores[name] = func(t *testing.T) lovage.Config {
			url := open(t)
			return lovage.Config{BrokerURL: url, ResultBackend: url}
		}
	}
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conf := open(t)
			x := &revoking{T: t, ran: map[string]error{}, release: make(chan struct{})}
			x.client = lovage.New("client", conf)
			t.Cleanup(func() { _ = x.client.Close(context.Background()) })
			x.worker = startMember(t, conf, newLogbook(), worker.Config{Hostname: "a@host", Concurrency: 1}, x.tasks)
			x.all()
		})
	}
}

func (x *revoking) tasks(app *lovage.App) {
	note := func(ctx context.Context, err error) {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.ran[lovage.RequestFrom(ctx).ID] = err
	}
	lovage.Func(app, "t.mark", func(ctx context.Context, _ lovage.Args) (any, error) { note(ctx, nil); return nil, nil })
	lovage.Func(app, "t.rated", func(ctx context.Context, _ lovage.Args) (any, error) { note(ctx, nil); return nil, nil }, lovage.RateLimit("6/m"))
	lovage.Func(app, "t.block", func(ctx context.Context, _ lovage.Args) (any, error) {
		x.mu.Lock()
		release := x.release
		x.mu.Unlock()
		select {
		case <-release:
		case <-ctx.Done():
		}
		note(ctx, context.Cause(ctx))
		return nil, context.Cause(ctx)
	})
}

func (x *revoking) all() {
	ctx, c := x.Context(), x.client.Control()
	var revoked []string
	gone := func(ids ...string) { revoked = append(revoked, ids...) }

	// At receipt: many ids, of which the messages come later, and a stamp.
	x.obeyed(c.Revoke(ctx, []string{"receipt-1", "receipt-2"}, oneReply))
	x.obeyed(c.RevokeStamped(ctx, map[string]any{"order": []string{"o1", "o2"}}, false, oneReply))
	x.send("t.mark", "receipt-1", "")
	x.send("t.mark", "receipt-2", "")
	x.send("t.mark", "receipt-stamped", "o2")
	gone("receipt-1", "receipt-2", "receipt-stamped")

	// While they wait for their time, or for their task's rate.
	x.later("eta", 6*time.Second)
	x.later("eta-kept", 6*time.Second)
	x.send("t.rated", "rated-first", "")
	x.send("t.rated", "rated", "")
	until(x.T, "the rate holds a task back", func() bool { return x.worker.w.Stats().Parked >= 1 })
	x.obeyed(c.Revoke(ctx, []string{"eta", "rated"}, oneReply))
	gone("eta", "rated")

	// While they wait for the slot: claimed by now, or not.
	release := x.busy("busy")
	x.send("t.mark", "reserved", "")
	x.send("t.mark", "reserved-stamped", "o3")
	x.send("t.mark", "reserved-kept", "o4")
	x.obeyed(c.Revoke(ctx, []string{"reserved"}, oneReply))
	x.obeyed(c.RevokeStamped(ctx, map[string]any{"order": "o3"}, false, oneReply))
	release()
	gone("reserved", "reserved-stamped")

	// While they run: by id with the name of a signal, and by stamp.
	kill := oneReply
	kill.Signal = "SIGUSR1"
	until(x.T, "the slot is free", func() bool { return x.worker.w.Stats().Active == 0 })
	x.busy("run-1")
	x.obeyed(c.Terminate(ctx, []string{"run-1", "nobody"}, kill))
	until(x.T, "the slot is free", func() bool { return x.worker.w.Stats().Active == 0 })
	x.busy("run-2")
	x.obeyed(c.RevokeStamped(ctx, map[string]any{"order": "busy-run-2"}, true, kill))
	for _, id := range []string{"run-1", "run-2"} {
		wantState(x.T, x.client, id, lovage.Revoked)
	}

	for _, id := range revoked {
		wantState(x.T, x.client, id, lovage.Revoked)
	}
	for _, id := range []string{"eta-kept", "rated-first", "reserved-kept", "busy"} {
		wantState(x.T, x.client, id, lovage.Success)
	}
	until(x.T, fmt.Sprintf("%d messages are dropped", len(revoked)), func() bool {
		return x.worker.w.Stats().Revoked == int64(len(revoked)+2)
	})
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, id := range revoked {
		if _, ran := x.ran[id]; ran {
			x.Errorf("%s was revoked, and ran", id)
		}
	}
	for _, id := range []string{"run-1", "run-2"} {
		if err := x.ran[id]; err != lovage.ErrRevoked {
			x.Errorf("%s ended with %v, want ErrRevoked", id, err)
		}
	}
}
