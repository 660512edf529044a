package redisbroker_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/internal/testenv"
)

// TestFailoverList: an app with two brokers goes to the second when the first is
// dead, at the start and later, with its worker, and stays there.
func TestFailoverList(t *testing.T) {
	t.Parallel()
	first, second, store := testenv.PrivateRedis(t), testenv.PrivateRedis(t), testenv.Redis(t)
	url := "redis://:pw@127.0.0.1:" + testenv.FreePort(t) + ";" + first.URL(0) + ";" + second.URL(0)
	first.Stop(t)
	var log syncBuffer
	app := lovage.New("proj", lovage.Config{
		BrokerURL: url, ResultBackend: store.URL(store.DB(t)), BrokerPublishTimeout: 15 * time.Second,
		BrokerTransportOptions: map[string]any{"socket_timeout": 1},
	}, lovage.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	add := lovage.Func(app, "add", func(_ context.Context, in addArgs) (int, error) { return in.X + in.Y, nil })
	goWorker(t, app)
	runs := func(x int) {
		t.Helper()
		r, err := add.Delay(t.Context(), addArgs{X: x, Y: 1})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := r.Get(limit(t)); got != x+1 || err != nil {
			t.Fatalf("add: %d, %v", got, err)
		}
	}
	runs(1)
	if len(second.Keys(t, "*")) == 0 || !strings.Contains(log.String(), "another broker is used") {
		t.Errorf("the second broker is not used:\n%s", log.String())
	}
	first.Start(t) // it works, but the other one does too
	runs(2)
	if keys := first.Keys(t, "*"); len(keys) > 0 {
		t.Errorf("the first broker is used again: %q", keys)
	}
	second.Stop(t)
	start := time.Now()
	runs(3) // on the first, without an error
	t.Logf("a task ran on the other broker %v after the death of this one", time.Since(start).Round(time.Millisecond))
	first.Stop(t)
	_, err := app.OpenBroker(limit(t))
	if err == nil || strings.Count(err.Error(), "redis://") < 3 || strings.Contains(err.Error(), "pw@") || strings.Contains(log.String(), "pw@") {
		t.Errorf("with no broker left: %v, want an error that names all three without the password", err)
	}
	first.Start(t) // for the end of the worker
}

// TestFailoverShuffles: the order differs from app to app.
func TestFailoverShuffles(t *testing.T) {
	t.Parallel()
	a, b := testenv.PrivateRedis(t), testenv.PrivateRedis(t)
	for range 100 {
		app := lovage.New("proj", lovage.Config{BrokerURL: a.URL(0) + ";" + b.URL(0), BrokerFailoverStrategy: "shuffle"})
		if _, err := app.Send(limit(t), "add", lovage.Args{}); err != nil {
			t.Fatal(err)
		}
		if err := app.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(a.Keys(t, "*")) > 0 && len(b.Keys(t, "*")) > 0 {
			return
		}
	}
	t.Error("100 apps went to the same broker")
}
