package amqpbroker_test

import (
	"context"
	"errors"
	"strings"
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
	if err := owner.Declare(t.Context(), broker.Named("q"), broker.Queue{Name: "lovage.dead"}); err != nil {
		t.Fatal(err)
	}
	if err := owner.Publish(t.Context(), delayedTask("q", "makes the delay queues", 2*time.Second)); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, server.User(t, url, "narrow", "^$", ".*", ".*"), map[string]any{"passive": true})
	s.works(healed)
	if err := s.c.Publish(t.Context(), delayedTask("q", "late", time.Second)); err != nil {
		t.Errorf("a delayed message: %v", err)
	}
	ctx := limit(t, 20*time.Second)
	for range 2 {
		if err := s.settle(s.claim(ctx), broker.DeadLetter); err != nil {
			t.Errorf("dead letter: %v", err)
		}
	}
	if dead, err := owner.DeadLetters(t.Context(), "q", "", 10); err != nil || len(dead) != 2 {
		t.Errorf("%d dead letters, %v, want 2", len(dead), err)
	}
	err := s.c.Declare(t.Context(), broker.Named("missing"))
	if !errors.Is(err, broker.ErrNoQueue) || !strings.Contains(err.Error(), "missing") {
		t.Errorf("a queue that is not there: %v, want ErrNoQueue with its name", err)
	}
	if err := s.c.Publish(t.Context(), task("missing", "a")); !errors.Is(err, broker.ErrNoQueue) {
		t.Errorf("a message for a queue that is not there: %v, want ErrNoQueue", err)
	}
	err = s.c.Publish(t.Context(), delayedTask("q", "too late", time.Hour))
	if !errors.Is(err, broker.ErrNoQueue) || !strings.Contains(err.Error(), "celery_delayed_0 to 11") {
		t.Errorf("a delay whose queues are not there: %v, want ErrNoQueue with their names", err)
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
		"NoServer":    {"amqp://127.0.0.1:" + testenv.FreePort(t) + "/", "refused"},
	} {
		_, err := amqpbroker.Open(limit(t, 10*time.Second), broker.Config{URL: c.url})
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
	ctx := limit(t, 25*time.Second)
	for _, wait := range []time.Duration{0, 50 * time.Millisecond, time.Second} {
		res, err := lovage.Remote[addArgs, int](app, "go.add").Delay(ctx, addArgs{X: 2, Y: 3}, lovage.Countdown(wait))
		if err != nil {
			t.Fatal(err)
		}
		if n, err := res.Get(ctx); err != nil || n != 5 {
			t.Errorf("after %v: %d, %v", wait, n, err)
		}
	}
	if replies, err := app.Control().Ping(ctx, control.Options{Reply: true, Limit: 1, Timeout: 10 * time.Second}); err != nil || len(replies) != 1 {
		t.Errorf("ping: %v, %v", replies, err)
	}
	c := open(t, url, nil)
	defer c.Close()
	if err := c.Declare(ctx, broker.Named("another")); err == nil {
		t.Error("a queue was made that the account may not make: the test shows nothing")
	}
}
