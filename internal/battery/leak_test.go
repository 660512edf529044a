package battery_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/events"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/memory"
	"github.com/lovage-go/lovage/worker"
)

// TestNothingIsLeft: when the worker has ended and the App is closed, no
// goroutine of this module goes on.
func TestNothingIsLeft(t *testing.T) {
	for name, open := range map[string]func(*testing.T) (lovage.Config, []lovage.AppOption){
		"SQLite": func(t *testing.T) (lovage.Config, []lovage.AppOption) {
			url := "sqlite://" + filepath.Join(t.TempDir(), "leak.db")
			return lovage.Config{BrokerURL: url, ResultBackend: url}, nil
		},
		"Memory": func(t *testing.T) (lovage.Config, []lovage.AppOption) {
			store := memory.New()
			return lovage.Config{}, []lovage.AppOption{
				lovage.WithBroker(func(context.Context) (broker.Conn, error) { return store.Broker(), nil }),
				lovage.WithBackend(func(context.Context) (backend.Backend, error) { return store.Backend(), nil }),
			}
		},
	} {
		for _, how := range []worker.How{worker.Warm, worker.Cold} {
			t.Run(name+"/"+string(how), func(t *testing.T) {
				before := ours()
				conf, opts := open(t)
				live(t, lovage.New("leak", conf, append(opts, lovage.WithLogger(slog.New(slog.DiscardHandler)))...), how)
				tick := time.NewTicker(time.Millisecond)
				defer tick.Stop()
				deadline := time.After(time.Minute) // the last instructions of a goroutine that told that it ends
				for {
					left := ours()
					for id := range before {
						delete(left, id)
					}
					if len(left) == 0 {
						return
					}
					select {
					case <-tick.C:
					case <-deadline:
						for _, stack := range left {
							t.Errorf("still there:\n%s", stack)
						}
						return
					}
				}
			})
		}
	}
}

// live has an App and a worker do what they can do, and ends them.
func live(t *testing.T, app *lovage.App, how worker.How) {
	add := lovage.Func(app, "leak.add", func(_ context.Context, n int) (int, error) { return n + 1, nil })
	again := lovage.Func(app, "leak.again", func(ctx context.Context, n int) (int, error) {
		if lovage.RequestFrom(ctx).Retries < n {
			return 0, lovage.Retry(errors.New("once more"), lovage.Countdown(time.Millisecond))
		}
		return n, nil
	})
	long := lovage.Func(app, "leak.long", func(ctx context.Context, _ int) (int, error) {
		<-ctx.Done()
		return 0, context.Cause(ctx)
	}, lovage.SoftTimeLimit(200*time.Millisecond), lovage.TimeLimit(time.Minute))
	ctx := context.Background()
	heard, err := app.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	w := worker.New(app, worker.Config{Concurrency: 4, TaskEvents: true, Ready: func(worker.Info) { close(ready) }})
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	<-ready
	if _, err := long.Delay(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := add.Delay(ctx, 1, lovage.Countdown(time.Hour)); err != nil {
		t.Fatal(err)
	}
	for n := range 20 {
		res, err := add.Delay(ctx, n, lovage.Link(add.S(n)))
		if err == nil {
			_, err = res.Get(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	res, err := again.Delay(ctx, 2)
	if err == nil {
		_, err = res.Get(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	impatient, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	if _, err := app.Result("nobody").Get(impatient); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a wait for nothing gave %v, want its deadline", err)
	}
	cancel()
	w.Stop(how)
	if err := testenv.End(t, ended, func() { w.Stop(worker.Cold) }); err != nil {
		t.Errorf("Run: %v", err)
	}
	for kind := ""; kind != events.WorkerOffline; {
		patient, cancel := context.WithTimeout(ctx, time.Minute)
		e, err := heard.Next(patient)
		cancel()
		if err != nil {
			t.Fatalf("no %s after %q: %v", events.WorkerOffline, kind, err)
		}
		kind = e.Type
	}
	if err := errors.Join(heard.Close(), app.Close(ctx)); err != nil {
		t.Error(err)
	}
}

// ours are the goroutines with a frame of this module, by their ids, without
// those of the test itself.
func ours() map[string]string {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	all := map[string]string{}
	for _, stack := range strings.Split(string(buf), "\n\n") {
		id, _, _ := strings.Cut(strings.TrimPrefix(stack, "goroutine "), " ")
		if strings.Contains(stack, "github.com/lovage-go/lovage") && !strings.Contains(stack, "battery_test.ours") && !strings.Contains(stack, "testing.(*T).Run") {
			all[id] = stack
		}
	}
	return all
}
