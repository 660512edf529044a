package endtoend_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	_ "github.com/lovage-go/lovage/backend/rpcbackend"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

// aborting waits until it is to be aborted, or is let go.
func aborting(free <-chan struct{}) func(*lovage.App) {
	return func(app *lovage.App) {
		lovage.Func(app, "t.wait", func(ctx context.Context, _ lovage.Args) (string, error) {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return "", context.Cause(ctx)
				case <-free:
					return "let go", nil
				case <-tick.C:
					if lovage.RequestFrom(ctx).Aborted() {
						return "aborted", nil
					}
				}
			}
		})
	}
}

// TestAbort: a client asks a run to end, on every store that a run can read.
func TestAbort(t *testing.T) {
	onEvery(t, func(t *testing.T, url string) {
		for _, pool := range []string{"goroutine", "solo"} {
			client := startClient(t, url)
			m := startMember(t, lovage.Config{BrokerURL: url, ResultBackend: url}, newLogbook(), worker.Config{Hostname: pool + "@host", Pool: pool}, aborting(nil))
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			res, err := client.Send(ctx, "t.wait", lovage.Args{})
			if err != nil {
				t.Fatal(err)
			}
			until(t, "it runs", func() bool { return m.w.Stats().Active == 1 })
			if err := res.Abort(ctx); err != nil {
				t.Fatal(err)
			}
			if got, err := res.Get(ctx); err != nil || got != "aborted" {
				t.Errorf("got %v, %v; want the run to see it", got, err)
			}
			if is, err := res.IsAborted(ctx); err != nil || is {
				t.Errorf("IsAborted after the end: got %t, %v", is, err)
			}
			m.stop()
		}
	})
}

// TestAbortOverRPC: where no run can read results, both ends say so.
func TestAbortOverRPC(t *testing.T) {
	t.Parallel()
	conf := lovage.Config{BrokerURL: testenv.RabbitMQ(t).Vhost(t), ResultBackend: "rpc://"}
	client := lovage.New("client", conf)
	t.Cleanup(func() { _ = client.Close(context.Background()) })
	free, log := make(chan struct{}), newLogbook()
	m := startMember(t, conf, log, worker.Config{Hostname: "a@host"}, aborting(free))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	res, err := client.Send(ctx, "t.wait", lovage.Args{})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "it runs", func() bool { return m.w.Stats().Active == 1 })
	if err := res.Abort(ctx); !errors.Is(err, backend.ErrUnsupported) {
		t.Errorf("Abort: got %v, want ErrUnsupported", err)
	}
	log.await(t, "cannot see whether it is to be aborted")
	close(free)
	if got, err := res.Get(ctx); err != nil || got != "let go" {
		t.Errorf("got %v, %v", got, err)
	}
	if told := log.find("cannot see whether it is to be aborted"); len(told) != 1 {
		t.Errorf("told %q, want it once", told)
	}
}
