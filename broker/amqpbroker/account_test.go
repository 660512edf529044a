package amqpbroker_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/broker/amqpbroker"
	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

// TestPassive: an account without the right to configure uses what is there, and
// is told what is not.
func TestPassive(t *testing.T) {
	t.Parallel()
	server := testenv.RabbitMQ(t)
	url := server.Vhost(t)
	owner := open(t, url, nil)
	defer owner.Close()
	if err := owner.Declare(t.Context(), broker.Named("q"), broker.Named("other"), broker.Queue{Name: "lovage.dead"}); err != nil {
		t.Fatal(err)
	}
	narrow := server.User(t, url, "narrow", "^$", ".*", ".*")
	for _, makes := range []struct {
		delay time.Duration
		want  broker.Features
	}{
		{2 * time.Second, broker.Features{DeadLetter: true}}, // the queues that are there are too few
		{1 << 27 * time.Second, broker.Features{DeadLetter: true, Delay: true, Park: true}},
	} {
		if err := owner.Publish(t.Context(), delayedTask("other", "makes the delay queues", makes.delay)); err != nil {
			t.Fatal(err)
		}
		c := open(t, narrow, map[string]any{"passive": true})
		if f := c.Features(); f.Delay != makes.want.Delay || f.Park != makes.want.Park || f.DeadLetter != makes.want.DeadLetter {
			t.Errorf("features after a delay of %v: got %+v, want %+v", makes.delay, f, makes.want)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	s := newSite(t, narrow, map[string]any{"passive": true})
	s.works()
	if err := s.c.Publish(t.Context(), delayedTask("q", "late", time.Second)); err != nil {
		t.Errorf("a delayed message: %v", err)
	}
	if err := s.settle(s.claim(limit(t, patience)), broker.DeadLetter); err != nil {
		t.Errorf("dead letter: %v", err)
	}
	if dead, err := owner.DeadLetters(t.Context(), "q", "", 10); err != nil || len(dead) != 1 {
		t.Errorf("%d dead letters, %v, want 1", len(dead), err)
	}
	err := s.c.Declare(t.Context(), broker.Named("missing"))
	if !errors.Is(err, broker.ErrNoQueue) || !strings.Contains(err.Error(), "missing") {
		t.Errorf("a queue that is not there: %v, want ErrNoQueue with its name", err)
	}
	if err := s.c.Publish(t.Context(), task("missing", "a")); !errors.Is(err, broker.ErrNoQueue) {
		t.Errorf("a message for a queue that is not there: %v, want ErrNoQueue", err)
	}
	s.logs("a delay lasts a second at least")
	server.Manage(t, http.MethodPut, "/api/queues"+url[strings.LastIndex(url, "/"):]+"/log", map[string]any{"durable": true, "arguments": map[string]any{"x-queue-type": "stream"}})
	stream, err := s.c.Consume(t.Context(), broker.ConsumeConfig{Queues: []broker.Queue{broker.Named("log")}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	claimed := make(chan error, 1)
	go func() { _, err := stream.Claim(ctx, 1); claimed <- err }()
	s.logs("is a stream")
	cancel()
	if err := <-claimed; !errors.Is(err, context.Canceled) {
		t.Errorf("claim from a stream: %v", err)
	}
}

// TestPassiveHolds: where the delay queues are missing, workers hold what is
// early, however much of it, and what is behind runs. At worker_eta_task_limit
// nothing is claimed any more.
func TestPassiveHolds(t *testing.T) {
	t.Parallel()
	server := testenv.RabbitMQ(t)
	for name, c := range map[string]struct {
		limit, early int
		flows        bool
	}{"OthersPass": {0, 500, true}, "AtTheLimit": {50, 60, false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := server.Vhost(t)
			owner := open(t, url, nil)
			defer owner.Close()
			if err := owner.Declare(t.Context(), broker.Named("q")); err != nil {
				t.Fatal(err)
			}
			var ran atomic.Int32
			node := func() *lovage.App {
				app := lovage.New("proj", lovage.Config{BrokerURL: server.User(t, url, name, "^$", ".*", ".*"), ResultBackend: "disabled://", TaskDefaultQueue: "q",
					BrokerTransportOptions: map[string]any{"passive": true}, WorkerETATaskLimit: c.limit, WorkerEnableRemoteControl: new(false)}, lovage.WithLogger(slog.New(slog.DiscardHandler)))
				lovage.Func(app, "go.add", func(context.Context, addArgs) (int, error) { return int(ran.Add(1)), nil })
				return app
			}
			client := node()
			defer client.Close(context.Background())
			add := lovage.Remote[addArgs, int](client, "go.add")
			for range c.early {
				if _, err := add.Delay(t.Context(), addArgs{}, lovage.Countdown(time.Hour)); err != nil {
					t.Fatal(err)
				}
			}
			const plain = 20
			for range plain {
				if _, err := add.Delay(t.Context(), addArgs{}); err != nil {
					t.Fatal(err)
				}
			}
			ctx := limit(t, patience)
			w := start(t, node())
			if c.flows {
				until(t, ctx, "the tasks behind them have run", func() bool { return ran.Load() == plain })
				until(t, ctx, "all that are early are held", func() bool { return w.Stats().Parked == int64(c.early) })
				return
			}
			until(t, ctx, "as many are held as the limit says", func() bool { return w.Stats().Parked >= int64(c.limit) })
			if n := ran.Load(); n != 0 {
				t.Errorf("%d tasks behind the limit have run", n)
			}
		})
	}
}

func delayedTask(queue, id string, d time.Duration) *broker.Message {
	m := task(queue, id)
	m.NotBefore = time.Now().Add(d)
	return m
}

// TestRefusals: the errors of an account say what to do.
func TestRefusals(t *testing.T) {
	t.Parallel()
	server := testenv.RabbitMQ(t)
	url := server.Vhost(t)
	poor := server.User(t, url, "poor", "^q$", "^q$", "^q$")
	c := open(t, poor, nil)
	defer c.Close()
	err := c.Declare(t.Context(), broker.Named("other"))
	if err == nil || !strings.Contains(err.Error(), "permission") || !strings.Contains(err.Error(), "other") {
		t.Errorf("a queue that it may not make: %v", err)
	}
	for name, c := range map[string]struct{ url, says string }{
		"Password":    {strings.Replace(poor, ":poor@", ":secret@", 1), "user, password"},
		"VirtualHost": {poor + "-none", "virtual host"},
		"Scheme":      {"http://x", "scheme"},
		"Login":       {url + "?login_method=KERBEROS", "login_method"},
		"External":    {url + "?login_method=EXTERNAL", "rabbitmq_auth_mechanism_ssl"},
		"NoServer":    {"amqp://127.0.0.1:" + testenv.FreePort(t) + "/", "refused"},
	} {
		_, err := amqpbroker.Open(limit(t, patience), broker.Config{URL: c.url})
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want an error that says %q and no password", name, err, c.says)
		}
		if name == "NoServer" != broker.Retryable(err) {
			t.Errorf("%s: retryable is %v", name, broker.Retryable(err))
		}
	}
	admin := open(t, url, nil)
	defer admin.Close()
	err = admin.Declare(t.Context(), broker.Queue{Name: "log", Type: "stream"})
	if !errors.Is(err, broker.ErrUnsupported) || !strings.Contains(err.Error(), "stream") {
		t.Errorf("a stream: %v", err)
	}
	if err := admin.Declare(t.Context(), broker.Named("shaped")); err != nil {
		t.Fatal(err)
	}
	err = admin.Declare(t.Context(), broker.Queue{Name: "shaped", MaxPriority: 5})
	if err == nil || !strings.Contains(err.Error(), "another shape") {
		t.Errorf("a queue that is there with another shape: %v", err)
	}
	if err := admin.Publish(t.Context(), task("shaped", "a")); err != nil {
		t.Errorf("after a refusal: %v", err)
	}
}

// TestDocumentedPermissions: what docs/interop.md says that an account needs is
// enough for a worker with events and remote control, and a client with rpc results.
func TestDocumentedPermissions(t *testing.T) {
	t.Parallel()
	server := testenv.RabbitMQ(t)
	own := `q|celery_delayed.*|lovage_delayed.*|lovage\.dead|.*celery\.pidbox|celeryev.*|[0-9a-f-]{36}`
	url := server.User(t, server.Vhost(t), "bounded", "^("+own+")$", "^("+own+`|amq\.default)$`, "^("+own+")$")
	p := place{broker: url, backend: "rpc://", queue: "q"}
	goWorkerWith(t, p.app(), func(c *worker.Config) { c.TaskEvents = true })
	app := p.app()
	defer app.Close(context.Background())
	ctx := limit(t, patience)
	for _, wait := range []time.Duration{0, 50 * time.Millisecond, time.Second} {
		res, err := lovage.Remote[addArgs, int](app, "go.add").Delay(ctx, addArgs{X: 2, Y: 3}, lovage.Countdown(wait))
		if err != nil {
			t.Fatal(err)
		}
		if n, err := res.Get(ctx); err != nil || n != 5 {
			t.Errorf("after %v: %d, %v", wait, n, err)
		}
	}
	if replies, err := app.Control().Ping(ctx, control.Options{Reply: true, Limit: 1, Timeout: patience}); err != nil || len(replies) != 1 {
		t.Errorf("ping: %v, %v", replies, err)
	}
	c := open(t, url, nil)
	defer c.Close()
	if err := c.Declare(ctx, broker.Named("another")); err == nil {
		t.Error("a queue was made that the account may not make: the test shows nothing")
	}
}
