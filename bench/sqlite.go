package main

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lovage-go/lovage"
	_ "github.com/lovage-go/lovage/backend/sqlbackend"
	"github.com/lovage-go/lovage/broker"
	_ "github.com/lovage-go/lovage/broker/sqlbroker"
)

func sqliteApp(file, synchronous string) (*lovage.App, *lovage.Handle[AddArgs, int]) {
	u := url.URL{Scheme: "sqlite", Path: file}
	if synchronous != "" {
		u.RawQuery = "synchronous=" + synchronous
	}
	app := lovage.New("bench", lovage.Config{BrokerURL: u.String(), ResultBackend: u.String()}, lovage.WithLogger(quiet()))
	add := lovage.Func(app, "bench.add", func(_ context.Context, in AddArgs) (int, error) { return in.X + in.Y, nil })
	return app, add
}

var serial atomic.Int64

func freshFile(dir string) string {
	return filepath.Join(dir, fmt.Sprintf("lovage-%d.db", serial.Add(1)))
}

// fillSQLite sends n tasks from callers goroutines and returns how long it took.
func fillSQLite(ctx context.Context, add *lovage.Handle[AddArgs, int], n, callers int, opts ...lovage.CallOption) (time.Duration, error) {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, callers)
	start := time.Now()
	for range callers {
		wg.Go(func() {
			for next.Add(1) <= int64(n) {
				if _, err := add.Delay(ctx, AddArgs{2, 3}, opts...); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	select {
	case err := <-errs:
		return 0, err
	default:
		return took, nil
	}
}

func sqliteEnqueue(ctx context.Context, o *options, r *report) error {
	single, many := 3000, 40_000
	if o.short {
		single, many = 500, 5000
	}
	for range o.rounds {
		app, add := sqliteApp(freshFile(o.dir), o.synchronous)
		if _, err := fillSQLite(ctx, add, 100, 4); err != nil {
			return err
		}
		took, err := fillSQLite(ctx, add, single, 1)
		if err != nil {
			return err
		}
		r.add("enqueue, 1 caller", "tasks/s", float64(single)/took.Seconds())
		if took, err = fillSQLite(ctx, add, many, 32); err != nil {
			return err
		}
		r.add("enqueue, 32 callers", "tasks/s", float64(many)/took.Seconds())
		if err := app.Close(ctx); err != nil {
			return err
		}
		for _, batch := range []int{1, 32, 100} {
			b, err := openBare(o.dir, o.synchronous)
			if err != nil {
				return err
			}
			n := many
			if batch == 1 {
				n = single
			}
			took, err := b.enqueue(n, batch)
			b.close()
			if err != nil {
				return err
			}
			r.add(fmt.Sprintf("bare insert, %d a transaction", batch), "rows/s", float64(n)/took.Seconds())
		}
	}
	r.atLeast("enqueue, 1 caller", "bare insert, 1 a transaction", 0.5)
	r.atLeast("enqueue, 32 callers", "bare insert, 32 a transaction", 0.5)
	return nil
}

func sqliteWork(ctx context.Context, o *options, r *report) error {
	best := 0.0
	bestBatch := 0
	for _, batch := range []int{10, 50, 100, 200, 500} {
		rate, err := bareRate(o, 20_000, batch)
		if err != nil {
			return err
		}
		if rate > best {
			best, bestBatch = rate, batch
		}
	}
	bareName := func(n int) string {
		return fmt.Sprintf("bare claim, store and ack, backlog %d (batch %d)", n, bestBatch)
	}
	var sizes []int
	for n := 1000; n <= cmp.Or(o.backlog, 100_000); n *= 10 {
		sizes = append(sizes, n)
	}
	for round := range o.rounds {
		for _, n := range sizes {
			if n >= 1_000_000 && round > 0 {
				continue // minutes each
			}
			res, err := drainByWorker(ctx, o, n)
			if err != nil {
				return err
			}
			if n >= firstTasks {
				r.add(fmt.Sprintf("worker, first %d of %d", firstTasks, n), "tasks/s", res.first)
			}
			name := fmt.Sprintf("worker, backlog %d", n)
			r.add(name, "tasks/s", res.rate)
			r.add(name+", worker CPU", "us/task", res.cpu)
			if n == sizes[len(sizes)-1] {
				r.add("worker, RSS after backlog", "MiB", res.rss)
			}
			rate, err := bareRate(o, n, bestBatch)
			if err != nil {
				return err
			}
			r.add(bareName(n), "tasks/s", rate)
		}
	}
	for _, n := range sizes {
		r.atLeast(fmt.Sprintf("worker, backlog %d", n), bareName(n), 0.5)
		r.atLeast(fmt.Sprintf("worker, first %d of %d", firstTasks, n), fmt.Sprintf("worker, first %d of %d", firstTasks, 10_000), 0.8)
	}
	return nil
}

func bareRate(o *options, n, batch int) (float64, error) {
	b, err := openBare(o.dir, o.synchronous)
	if err != nil {
		return 0, err
	}
	defer b.close()
	if _, err := b.enqueue(n, 500); err != nil {
		return 0, err
	}
	got, took, err := b.drain(batch)
	if err != nil {
		return 0, err
	}
	return float64(got) / took.Seconds(), nil
}

// firstTasks is how many tasks the flatness over backlogs is judged by: the same
// number from each, so that only what waits behind them differs.
const firstTasks = 10_000

type sqliteDrained struct{ first, rate, cpu, rss float64 }

// drainByWorker lets a worker that is up and warm empty a backlog: the queue is
// paused while it is filled, and the clock runs from the moment it is released.
func drainByWorker(ctx context.Context, o *options, n int) (d sqliteDrained, err error) {
	file := freshFile(o.dir)
	app, add := sqliteApp(file, o.synchronous)
	defer app.Close(ctx)
	if _, err := fillSQLite(ctx, add, warmUp, 32); err != nil {
		return d, err
	}
	w, err := startSQLite(ctx, o, file, warmUp)
	if err != nil {
		return d, err
	}
	defer w.stop()
	if _, err := w.wait("drained"); err != nil {
		return d, err
	}
	conn, err := app.Broker(ctx)
	if err != nil {
		return d, err
	}
	queue := conn.(broker.Pauser)
	if err := queue.Pause(ctx, "celery"); err != nil {
		return d, err
	}
	if _, err := fillSQLite(ctx, add, n, 32); err != nil {
		return d, err
	}
	first := min(n, firstTasks)
	if err := w.expect(first); err != nil {
		return d, err
	}
	if err := queue.Resume(ctx, "celery"); err != nil {
		return d, err
	}
	released := time.Now()
	m, err := w.wait("drained")
	if err != nil {
		return d, err
	}
	m.Seconds = time.Unix(0, m.At).Sub(released).Seconds()
	d = sqliteDrained{first: float64(first) / m.Seconds, rate: float64(n) / m.Seconds, cpu: m.CPU * 1e6 / float64(n), rss: m.RSS}
	if rest := n - first; rest > 0 {
		if err := w.expect(rest); err != nil {
			return d, err
		}
		more, err := w.wait("drained")
		if err != nil {
			return d, err
		}
		d.rate, d.cpu, d.rss = float64(n)/(m.Seconds+more.Seconds), (m.CPU+more.CPU)*1e6/float64(n), more.RSS
	}
	return d, nil
}

func sqliteLatency(ctx context.Context, o *options, r *report) error {
	file := freshFile(o.dir)
	app, add := sqliteApp(file, o.synchronous)
	defer app.Close(ctx)
	w, err := startSQLite(ctx, o, file, 0)
	if err != nil {
		return err
	}
	defer w.stop()
	for range o.rounds {
		times := make([]time.Duration, 0, o.roundTrips)
		for i := range o.roundTrips + 20 {
			start := time.Now()
			res, err := add.Delay(ctx, AddArgs{2, 3})
			if err != nil {
				return err
			}
			wait, cancel := context.WithTimeout(ctx, 10*time.Second)
			v, err := res.Get(wait)
			cancel()
			if err != nil || v != 5 {
				return fmt.Errorf("call %d: %d, %v", i, v, err)
			}
			if i >= 20 {
				times = append(times, time.Since(start))
			}
		}
		r.add("latency p50, another process waits", "ms", percentile(times, 0.50).Seconds()*1e3)
		r.add("latency p99, another process waits", "ms", percentile(times, 0.99).Seconds()*1e3)
	}
	r.below("latency p50, another process waits", 5)
	return nil
}

func sqliteIdle(ctx context.Context, o *options, r *report) error {
	for range o.rounds {
		start := time.Now()
		w, err := startSQLite(ctx, o, freshFile(o.dir), 0)
		if err != nil {
			return err
		}
		r.add("start-up to ready", "ms", time.Since(start).Seconds()*1e3)
		m, err := w.idle(o)
		w.stop()
		if err != nil {
			return err
		}
		r.add("idle CPU", "% of a core", m.CPU/m.Seconds*100)
		r.add("idle RSS", "MiB", m.RSS)
	}
	r.below("idle CPU", 1)
	r.below("idle RSS", 30)
	return nil
}

func sqliteDelayed(ctx context.Context, o *options, r *report) error {
	file := freshFile(o.dir)
	app, add := sqliteApp(file, o.synchronous)
	took, err := fillSQLite(ctx, add, o.delayed, 64, lovage.Countdown(24*time.Hour))
	if err != nil {
		return err
	}
	if err := app.Close(ctx); err != nil {
		return err
	}
	r.add(fmt.Sprintf("enqueue %d delayed, 64 callers", o.delayed), "tasks/s", float64(o.delayed)/took.Seconds())
	w, err := startSQLite(ctx, o, file, 0)
	if err != nil {
		return err
	}
	defer w.stop()
	m, err := w.idle(o)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("RSS with %d delayed", o.delayed)
	r.add(name, "MiB", m.RSS)
	r.add(fmt.Sprintf("idle CPU with %d delayed", o.delayed), "% of a core", m.CPU/m.Seconds*100)
	r.below(name, 64)
	return nil
}
