package worker_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/memory"
	"github.com/lovage-go/lovage/worker"
)

// BenchmarkBacklog is the rate at which a worker empties a queue in memory:
// what the worker itself costs.
func BenchmarkBacklog(b *testing.B) {
	for _, c := range []int{2, 8, 64} {
		b.Run(fmt.Sprintf("Concurrency=%d", c), func(b *testing.B) {
			store := memory.New(memory.WithCapacity(b.N + 1))
			app := lovage.New("bench", lovage.Config{},
				lovage.WithLogger(slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelWarn}))),
				lovage.WithBroker(func(context.Context) (broker.Conn, error) { return store.Broker(), nil }),
				lovage.WithBackend(func(context.Context) (backend.Backend, error) { return store.Backend(), nil }))
			var done atomic.Int64
			all := make(chan struct{})
			h := lovage.Func(app, "bench.add", add)
			app.Signals.TaskPostrun.Connect(func(context.Context, lovage.TaskPostrun) {
				if done.Add(1) == int64(b.N) {
					close(all)
				}
			})
			for range b.N {
				if _, err := h.Delay(b.Context(), AddArgs{X: 1, Y: 2}); err != nil {
					b.Fatal(err)
				}
			}
			w := worker.New(app, worker.Config{Concurrency: c})
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			b.ReportAllocs()
			b.ResetTimer()
			go func() { ended <- w.Run(ctx) }()
			<-all
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
			cancel()
			if err := <-ended; err != nil {
				b.Fatal(err)
			}
			if err := app.Close(context.Background()); err != nil {
				b.Fatal(err)
			}
		})
	}
}
