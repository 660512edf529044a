package redisbroker_test

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

// benchApp is an app with a task that adds, and its running worker.
func benchApp(b *testing.B, url string) (*lovage.Handle[addArgs, int], func()) {
	b.Helper()
	app := lovage.New("bench", lovage.Config{BrokerURL: url, ResultBackend: url}, lovage.WithLogger(slog.New(slog.DiscardHandler)))
	add := lovage.Func(app, "go.add", func(_ context.Context, in addArgs) (int, error) { return in.X + in.Y, nil })
	return add, func() {
		ready := make(chan struct{})
		w := worker.New(app, worker.Config{Hostname: "bench@%h", Ready: func(worker.Info) { close(ready) }})
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		b.Cleanup(func() {
			cancel()
			<-ended
			app.Close(context.Background())
		})
		<-ready
	}
}

// BenchmarkRoundTrip is one call after another, from Delay to the result in the
// client's hands.
func BenchmarkRoundTrip(b *testing.B) {
	server := testenv.Redis(b)
	add, start := benchApp(b, server.URL(server.DB(b)))
	start()
	ctx := b.Context()
	took := make([]time.Duration, 0, b.N)
	b.ResetTimer()
	for i := range b.N {
		t := time.Now()
		res, err := add.Delay(ctx, addArgs{X: i, Y: 1})
		if err != nil {
			b.Fatal(err)
		}
		if n, err := res.Get(ctx); err != nil || n != i+1 {
			b.Fatalf("got %d, %v", n, err)
		}
		took = append(took, time.Since(t))
	}
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
}

// BenchmarkBacklog is a worker with results that empties a queue.
func BenchmarkBacklog(b *testing.B) {
	server := testenv.Redis(b)
	url := server.URL(server.DB(b))
	add, start := benchApp(b, url)
	ctx := b.Context()
	c := open(b, url, nil)
	defer c.Close()
	var last *lovage.Result[int]
	for i := range b.N {
		res, err := add.Delay(ctx, addArgs{X: i, Y: 1})
		if err != nil {
			b.Fatal(err)
		}
		last = res
	}
	b.ResetTimer()
	start()
	if _, err := last.Get(ctx); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
}
