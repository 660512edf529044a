package amqpbroker_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/lovage-go/lovage"
	_ "github.com/lovage-go/lovage/backend/rpcbackend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/testenv"
)

// TestFailoverListSaysWhy: each broker of a list is told of with its own reason, and
// what will not mend itself is not tried again.
func TestFailoverListSaysWhy(t *testing.T) {
	t.Parallel()
	vhost := testenv.RabbitMQ(t).Vhost(t)
	closed := "amqp://127.0.0.1:" + testenv.FreePort(t)
	for name, c := range map[string]struct {
		urls  string
		retry bool
		says  []string
	}{
		"OneIsAway": {closed + ";" + vhost + "-none", true, []string{"connection refused", "virtual host"}},
		"AllRefuse": {vhost + "-none;" + vhost + "-nil", false, []string{"-none", "-nil", "virtual host"}},
	} {
		app := lovage.New("proj", lovage.Config{BrokerURL: c.urls, ResultBackend: "disabled://"}, quiet())
		_, err := app.Broker(limit(t, patience))
		if err == nil || broker.Retryable(err) != c.retry {
			t.Errorf("%s: %v, retryable is %v, want %v", name, err, broker.Retryable(err), c.retry)
		}
		for _, text := range c.says {
			if err != nil && !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v, want %q in it", name, err, text)
			}
		}
		if err := app.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

// TestFailoverList: the node of a worker and its client is killed. Both go to the
// second of broker_url, rpc:// replies included, without an error of a call.
func TestFailoverList(t *testing.T) {
	t.Parallel()
	first, second, redis := testenv.PrivateRabbitMQ(t), testenv.RabbitMQ(t), testenv.Redis(t)
	type fleet struct {
		log logged
		run func(x int)
	}
	fleets := map[string]*fleet{}
	for name, results := range map[string]string{"rpc": "rpc://", "redis": redis.URL(redis.DB(t))} {
		f := &fleet{}
		conf := lovage.Config{BrokerURL: first.Vhost(t) + ";" + second.Vhost(t), ResultBackend: results, TaskDefaultQueue: "q", BrokerPublishTimeout: patience}
		node := func() (*lovage.App, *lovage.Handle[addArgs, int]) {
			app := lovage.New("proj", conf, lovage.WithLogger(slog.New(slog.NewTextHandler(&f.log, nil))))
			return app, lovage.Func(app, "add", func(_ context.Context, in addArgs) (int, error) { return in.X + in.Y, nil })
		}
		there, _ := node()
		goWorker(t, there)
		client, add := node()
		t.Cleanup(func() { client.Close(context.Background()) })
		f.run = func(x int) {
			t.Helper()
			ctx := limit(t, patience)
			r, err := add.Delay(ctx, addArgs{X: x, Y: 1})
			if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, &f.log)
			}
			if got, err := r.Get(ctx); got != x+1 || err != nil {
				t.Fatalf("%s: add: %d, %v\n%s", name, got, err, &f.log)
			}
		}
		fleets[name] = f
	}
	for _, f := range fleets {
		f.run(1)
	}
	first.Stop(t)
	for name, f := range fleets {
		f.run(2)
		if !strings.Contains(f.log.String(), "another broker is used") {
			t.Errorf("%s: the log does not say that another broker is used:\n%s", name, &f.log)
		}
	}
}
