package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// The figures on RabbitMQ: classic queues, persistent tasks, results by rpc, whose
// replies a client takes. Lovage waits for the confirm of each task and each
// result; Celery waits for none, as is its default, and the raw loop for none of
// its replies.

func rabbitPeers(o *options) ([]peer, error) {
	best, err := newCelery(o.dir, "celery best", true)
	if err != nil {
		return nil, err
	}
	best.rabbit = true
	plain := best
	plain.title, plain.best = "celery default", false
	all := []peer{lovageRabbit{}, best, plain}
	return slices.DeleteFunc(all, func(p peer) bool { return p != peer(lovageRabbit{}) && !contains(p.name(), o.peers) }), nil
}

func rabbitEnqueue(ctx context.Context, o *options, r *report) error {
	peers, err := rabbitPeers(o)
	if err != nil {
		return err
	}
	for range 2 * o.rounds {
		for _, p := range append(bestOnes(peers), bareRabbit{title: "raw client"}) {
			many := 12_800
			if p.name() == "celery best" {
				many = 1600
			}
			if err := enqueueOnce(ctx, o, r, p, 1000, many); err != nil {
				return fmt.Errorf("%s: %w", p.name(), err)
			}
		}
	}
	r.atLeast("enqueue, 1 caller: lovage", "enqueue, 1 caller: raw client", 0.9)
	r.atLeast("enqueue, 32 callers: lovage", "enqueue, 32 callers: raw client", 0.6)
	r.note(fmt.Sprintf("The raw client of RabbitMQ waits for each confirm; beside 32 callers it is one loop with up to %d messages on the way. Celery's client waits for no confirm.", confirmWindow))
	return nil
}

// bestBareRabbit looks for the window and the batch of acks that suit the raw loop.
func bestBareRabbit(ctx context.Context, o *options, r *report) (bareRabbit, error) {
	best, rate := bareRabbit{}, 0.0
	for _, window := range []int{200, 500, 2000} {
		for _, batch := range []int{50, 150} {
			if o.short && (window != 500 || batch != 50) {
				continue
			}
			p := bareRabbit{title: "raw loop", window: window, batch: batch}
			d, err := drain(ctx, p, o.bed, workSizeRabbit(o, p)/2, 1, true)
			if err != nil {
				return best, err
			}
			r.progress(fmt.Sprintf("  raw loop, window %d, acks by %d: %s tasks/s", window, batch, number(d.rate())))
			if d.rate() > rate {
				best, rate = p, d.rate()
			}
		}
	}
	r.note(fmt.Sprintf("The raw loop on RabbitMQ that did best has a window of %d and acknowledges by %d.", best.window, best.batch))
	return best, nil
}

func rabbitWorker(ctx context.Context, o *options, r *report) error {
	peers, err := rabbitPeers(o)
	if err != nil {
		return err
	}
	raw, err := bestBareRabbit(ctx, o, r)
	if err != nil {
		return err
	}
	const what = "worker, rpc results: "
	for range 2 * o.rounds {
		for _, p := range append(peers, raw) {
			d, err := drain(ctx, p, o.bed, workSizeRabbit(o, p), 1, true)
			if err != nil {
				return fmt.Errorf("%s: %w", p.name(), err)
			}
			r.drained(what+p.name(), d)
		}
	}
	own, celery := what+"lovage", []string{what + "celery best", what + "celery default"}
	r.atLeast(own, what+"raw loop", 0.6)
	r.atMost(own+", worker CPU", what+"celery best, worker CPU", 1.0/8)
	r.atLeastMost(own, celery, machineryToCelery)
	return nil
}

// machineryToCelery is how much faster machinery 2 is than Celery on RabbitMQ with
// results, each at its best: 4,009 to 2,971 tasks/s when they were measured side by
// side.
const machineryToCelery = 1.35

// workSizeRabbit makes runs of some seconds.
func workSizeRabbit(o *options, p peer) int {
	n := 20_000
	if _, ok := p.(celeryPeer); ok {
		n = 6000
	}
	if o.short {
		n /= 4
	}
	return n
}

// rabbitFlat works at backlogs of all sizes, beside the raw loop, since the server
// has its own ways with long queues. Of a long one only the first part is taken, in
// turn.
func rabbitFlat(ctx context.Context, o *options, r *report) error {
	most := cmp.Or(o.backlog, 1_000_000)
	peers := []peer{lovageRabbit{}, bareRabbit{title: "raw loop", window: 500, batch: 50}}
	for n := 1000; n <= most; n *= 10 {
		if err := flatAt(ctx, o, r, peers, n, n*10 > most); err != nil {
			return err
		}
	}
	r.note("Of a backlog on RabbitMQ up to 15,000 tasks are taken at a time; what was taken of a long one is replaced before the next round.")
	for n := 10_000; n <= most; n *= 10 {
		r.atLeast(fmt.Sprintf("backlog of %d: lovage", n), "backlog of 1000: lovage", 0.85)
	}
	return nil
}

func flatAt(ctx context.Context, o *options, r *report, peers []peer, n int, last bool) error {
	opened, err := lovageRabbit{}.open(ctx, o.bed, true)
	if err != nil {
		return err
	}
	defer opened.close()
	q := opened.(*rabbitQueue)
	take, times := min(n, 15_000), max(1, min(5, 10_000/n))
	for range 2 * o.rounds {
		for _, p := range peers {
			if n > take { // a backlog that stays
				if err := q.fillUp(ctx, n); err != nil {
					return err
				}
			}
			d, err := takeOf(ctx, o, q, p, take, times, n > take)
			if err != nil {
				return fmt.Errorf("backlog of %d: %s: %w", n, p.name(), err)
			}
			name := fmt.Sprintf("backlog of %d: %s", n, p.name())
			r.drained(name, d)
			if last && p.name() == "lovage" {
				r.add(name+", RSS after", "MiB", d.rss)
			}
		}
	}
	if last {
		r.below(fmt.Sprintf("backlog of %d: lovage, RSS after", n), 50)
	}
	return q.clear(ctx)
}

// takeOf measures n tasks of what a worker has before it, which is there or is made.
func takeOf(ctx context.Context, o *options, q *rabbitQueue, p peer, n, times int, there bool) (d drained, err error) {
	w, err := p.worker(ctx, o.bed, true)
	if err != nil {
		return d, err
	}
	defer w.stop()
	warm := queue(q)
	if there {
		warm = stock{q}
	}
	if _, err := drainOnce(ctx, warm, warmUp, nil, nil); err != nil {
		return d, fmt.Errorf("warm-up: %w", err)
	}
	for range times {
		one, err := drainOnce(ctx, warm, n, w, o.bed.rabbit.process)
		if err != nil {
			return d, err
		}
		d.sum(one)
	}
	d.perTask()
	return d, q.pause(ctx, 0)
}

// stock is a queue that has its tasks already.
type stock struct{ *rabbitQueue }

func (s stock) hold(ctx context.Context, n int) error { return s.pause(ctx, n) }

func rabbitLatency(ctx context.Context, o *options, r *report) error {
	peers, err := rabbitPeers(o)
	if err != nil {
		return err
	}
	for range o.rounds {
		for _, p := range bestOnes(peers) {
			if err := latencyOnce(ctx, o, r, p); err != nil {
				return fmt.Errorf("%s: %w", p.name(), err)
			}
		}
	}
	r.below("latency p50: lovage", 2)
	return nil
}

// rabbitParked has tasks wait for their time, sent as Python's clients do, so that
// each comes to the worker first, while other work is done.
func rabbitParked(ctx context.Context, o *options, r *report) error {
	n := 100_000
	if o.short {
		n /= 10
	}
	for range o.rounds {
		if err := rabbitParkedOnce(ctx, o, r, n, workSizeRabbit(o, lovageRabbit{})); err != nil {
			return err
		}
	}
	parkedBars(r, n)
	return nil
}

func rabbitParkedOnce(ctx context.Context, o *options, r *report, n, work int) error {
	opened, err := lovageRabbit{}.open(ctx, o.bed, true)
	if err != nil {
		return err
	}
	defer opened.close()
	q := opened.(*rabbitQueue)
	w, err := lovageRabbit{}.worker(ctx, o.bed, true)
	if err != nil {
		return err
	}
	defer w.stop()
	if _, err := drainOnce(ctx, q, work, nil, nil); err != nil { // warm, and the heap has its size
		return err
	}
	for _, title := range []string{"nothing parked: lovage", fmt.Sprintf("%d tasks parked: lovage", n)} {
		if title != "nothing parked: lovage" {
			began := time.Now()
			if err := q.park(ctx, n, time.Hour); err != nil {
				return err
			}
			r.add(title+", sent and put off", "tasks/s", float64(n)/time.Since(began).Seconds())
		}
		for range 2 {
			d, err := drainOnce(ctx, q, work, w, o.bed.rabbit.process)
			if err != nil {
				return err
			}
			r.add(title+", other work", "tasks/s", d.rate())
			r.add(title+", RSS", "MiB", d.rss)
		}
	}
	if _, err := q.ch.QueuePurge(delayedList, false); err != nil {
		return err
	}
	return q.clear(ctx)
}

func rabbitIdle(ctx context.Context, o *options, r *report) error {
	peers, err := rabbitPeers(o)
	if err != nil {
		return err
	}
	for range o.rounds {
		for _, p := range bestOnes(peers) {
			if err := idleOnce(ctx, o, r, p); err != nil {
				return fmt.Errorf("%s: %w", p.name(), err)
			}
		}
	}
	r.below("start-up to ready: lovage", 100)
	r.below("idle CPU: lovage", 0.5)
	return nil
}
