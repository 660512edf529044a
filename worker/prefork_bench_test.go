//go:build linux

package worker_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/memory"
	"github.com/lovage-go/lovage/worker"
)

// BenchmarkPools compares what a task costs, in CPU of all processes, in the
// pools, with processes that are tuned as the worker command tunes them.
func BenchmarkPools(b *testing.B) {
	worker.TuneProcess()
	for _, pool := range []string{"goroutine", "prefork"} {
		b.Run(pool, func(b *testing.B) {
			store := memory.New(memory.WithCapacity(b.N + 1))
			var done atomic.Int64
			all := make(chan struct{})
			app, _ := yardApp(lovage.Config{},
				lovage.WithLogger(slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelWarn}))),
				lovage.WithBroker(func(context.Context) (broker.Conn, error) { return store.Broker(), nil }),
				lovage.WithBackend(func(context.Context) (backend.Backend, error) {
					return tallied{store.Backend(), func(n int) {
						if done.Add(int64(n)) == int64(b.N) {
							close(all)
						}
					}}, nil
				}))
			for range b.N {
				if _, err := app.Send(b.Context(), "yard.add", lovage.Args{Positional: []any{1, 2}}); err != nil {
					b.Fatal(err)
				}
			}
			ledger := filepath.Join(b.TempDir(), "ledger")
			ready := make(chan struct{})
			start := make(chan struct{})
			w := worker.New(app, worker.Config{
				Pool: pool, Concurrency: 2, ChildEnv: append(strings.Fields(os.Getenv("BENCH_CHILD_ENV")), roleKey+"=yard", ledgerKey+"="+ledger),
				Ready: func(worker.Info) { close(ready); <-start },
			})
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- w.Run(ctx) }()
			select {
			case <-ready:
			case err := <-ended:
				b.Fatal(err)
			}
			kids, parent := childrenOf(os.Getpid(), ledger), []int{os.Getpid()}
			theirs, ours := cpuOf(kids), cpuOf(parent)
			b.ResetTimer()
			close(start)
			<-all
			b.StopTimer()
			theirs, ours = cpuOf(kids)-theirs, cpuOf(parent)-ours
			b.ReportMetric(float64((theirs+ours).Microseconds())/float64(b.N), "cpu-µs/task")
			b.ReportMetric(float64(theirs.Microseconds())/float64(b.N), "of-children")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
			cancel()
			if err := <-ended; err != nil {
				b.Fatal(err)
			}
		})
	}
}

// tallied is a result store that counts successes.
type tallied struct {
	backend.Backend
	stored func(int)
}

func (c tallied) Store(ctx context.Context, recs ...*backend.Record) error {
	err := c.Backend.Store(ctx, recs...)
	n := 0
	for _, r := range recs {
		if r.State == lovage.Success {
			n++
		}
	}
	c.stored(n)
	return err
}

// cpuOf is the processor time of processes.
func cpuOf(pids []int) (total time.Duration) {
	for _, pid := range pids {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		var skip string
		var user, system int64
		_, rest, _ := bytes.Cut(stat, []byte(") "))
		fmt.Sscan(string(rest), &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &user, &system)
		total += time.Duration(user+system) * 10 * time.Millisecond
	}
	return total
}

// BenchmarkPreforkStart is the time until eight children are ready, and what
// they take when idle.
func BenchmarkPreforkStart(b *testing.B) {
	for b.Loop() {
		y := newYard(b, lovage.Config{}, worker.Config{Concurrency: 8})
		began := time.Now()
		ctx, cancel := context.WithCancel(context.Background())
		go func() { y.ended <- y.w.Run(ctx) }()
		<-y.ready
		b.ReportMetric(float64(time.Since(began).Microseconds())/1e3, "ms-to-ready")
		var rss, pss int
		for _, pid := range childrenOf(os.Getpid(), y.ledger) {
			r, p := memoryOf(pid)
			rss, pss = rss+r, pss+p
		}
		b.ReportMetric(float64(rss)/1024, "rss-MiB")
		b.ReportMetric(float64(pss)/1024, "pss-MiB")
		cancel()
		if err := <-y.ended; err != nil {
			b.Fatal(err)
		}
	}
}

// memoryOf is the resident memory of a process in KiB, and its share of it.
func memoryOf(pid int) (rss, pss int) {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	for _, line := range bytes.Split(data, []byte("\n")) {
		_, _ = fmt.Sscanf(string(line), "Rss: %d kB", &rss)
		_, _ = fmt.Sscanf(string(line), "Pss: %d kB", &pss)
	}
	return rss, pss
}
