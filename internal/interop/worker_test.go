package interop_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

// brokers runs a test on each broker that Python shares: on Redis with results in
// the same database, and on RabbitMQ with results in Redis.
func brokers(t *testing.T, run func(t *testing.T, u urls)) {
	t.Helper()
	redis := testenv.Redis(t)
	url := redis.URL(redis.DB(t))
	for name, u := range map[string]urls{
		"Redis":    {url, url},
		"RabbitMQ": {testenv.RabbitMQ(t).Vhost(t), redis.URL(redis.DB(t))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, u)
		})
	}
}

// runGo runs a worker of app until the test ends.
func runGo(t *testing.T, app *lovage.App, cfg worker.Config) *worker.Worker {
	t.Helper()
	ready, ended := make(chan struct{}), make(chan error, 1)
	cfg.Ready = func(worker.Info) { close(ready) }
	w := worker.New(app, cfg)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		err := testenv.End(t, ended, func() { w.Stop(worker.Cold) })
		if err := errors.Join(err, app.Close(context.Background())); err != nil {
			t.Errorf("worker: %v", err)
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		t.Fatalf("the worker ended at once: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("the worker is not ready after a minute")
	}
	return w
}
