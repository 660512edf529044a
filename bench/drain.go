package main

import (
	"context"
	"fmt"
	"time"
)

// drained is what emptying a backlog took.
type drained struct {
	tasks   int
	seconds float64
	worker  float64 // CPU, us a task
	server  float64
	rss     float64 // MiB of the worker, after it
}

func (d drained) rate() float64 { return float64(d.tasks) / d.seconds }

func (d *drained) sum(one drained) {
	d.tasks += one.tasks
	d.seconds += one.seconds
	d.worker += one.worker
	d.server += one.server
	d.rss = one.rss
}

// perTask makes CPU times of sums those of a task.
func (d *drained) perTask() {
	d.worker /= float64(d.tasks)
	d.server /= float64(d.tasks)
}

// drain lets a worker that is up and warm empty a backlog of n tasks, times
// times, each time from the moment the backlog is released.
func drain(ctx context.Context, p peer, b *bed, n, times int, results bool) (d drained, err error) {
	q, err := p.open(ctx, b, results)
	if err != nil {
		return d, err
	}
	defer q.close()
	w, err := p.worker(ctx, b, results)
	if err != nil {
		return d, err
	}
	defer w.stop()
	if _, err := drainOnce(ctx, q, warmUp, nil, nil); err != nil {
		return d, fmt.Errorf("warm-up: %w", err)
	}
	for range times {
		one, err := drainOnce(ctx, q, n, w, p.server(b).process)
		if err != nil {
			return d, err
		}
		d.sum(one)
	}
	d.perTask()
	return d, q.clear(ctx)
}

const warmUp = 2000

// drainOnce gives CPU times in us, not per task.
func drainOnce(ctx context.Context, q queue, n int, w, srv *process) (d drained, err error) {
	if err := q.hold(ctx, n); err != nil {
		return d, fmt.Errorf("fill: %w", err)
	}
	var w0, s0 usage
	if w != nil { // else it is the warm-up
		time.Sleep(50 * time.Millisecond) // the fill's tail
		if w0, err = w.usage(); err != nil {
			return d, err
		}
		if s0, err = srv.usage(); err != nil {
			return d, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	released := time.Now()
	if err := q.release(ctx); err != nil {
		return d, fmt.Errorf("release: %w", err)
	}
	for {
		left, err := q.left(ctx)
		if err != nil {
			return d, err
		}
		if left == 0 {
			break
		}
		pause := 300 * time.Microsecond
		if left > 20_000 {
			pause = 5 * time.Millisecond
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return d, fmt.Errorf("%d of %d tasks are left: %w", left, n, context.Cause(ctx))
		}
	}
	d.tasks, d.seconds = n, time.Since(released).Seconds()
	if w != nil {
		w1, err := w.usage()
		if err != nil {
			return d, err
		}
		s1, err := srv.usage()
		if err != nil {
			return d, err
		}
		d.worker = float64((w1.cpu - w0.cpu).Microseconds())
		d.server = float64((s1.cpu - s0.cpu).Microseconds())
		d.rss = w1.rss
	}
	return d, nil
}
