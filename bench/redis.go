package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// The figures on Redis, each peer by the same work. A figure's name is the peer's
// and the work's.

// redisPeers are measured beside Lovage.
func redisPeers(o *options) ([]peer, error) {
	best, err := newCelery(o.dir, "celery best", true)
	if err != nil {
		return nil, err
	}
	plain := best
	plain.title, plain.best = "celery default", false
	all := []peer{
		lovagePeer{}, best, plain,
		asynqPeer{"asynq best", "asynq"}, asynqPeer{"asynq default", "asynq default"},
		riverPeer{"river best", "river"}, riverPeer{"river default", "river default"},
	}
	return slices.DeleteFunc(all, func(p peer) bool { return p != peer(lovagePeer{}) && !contains(p.name(), o.peers) }), nil
}

// bestOnes are the peers at their best settings.
func bestOnes(peers []peer) []peer {
	var out []peer
	for _, p := range peers {
		switch p.name() {
		case "celery default", "asynq default", "river default":
		default:
			out = append(out, p)
		}
	}
	return out
}

func redisEnqueue(ctx context.Context, o *options, r *report) error {
	peers, err := redisPeers(o)
	if err != nil {
		return err
	}
	work := append(bestOnes(peers), barePeer{title: "raw client"})
	for range o.rounds {
		for _, p := range work {
			single, many := 10_000, 100_000
			switch p.(type) {
			case celeryPeer:
				single, many = 1000, 3200
			case riverPeer:
				single, many = 1000, 5000
			}
			if err := enqueueOnce(ctx, o, r, p, single, many); err != nil {
				return fmt.Errorf("%s: %w", p.name(), err)
			}
		}
	}
	r.atLeast("enqueue, 1 caller: lovage", "enqueue, 1 caller: raw client", 0.9)
	r.atLeast("enqueue, 32 callers: lovage", "enqueue, 32 callers: raw client", 0.6)
	for _, what := range []string{"enqueue, 1 caller", "enqueue, 32 callers", "enqueue, bulk"} {
		for _, p := range work[1:] {
			r.compare(what+": "+p.name(), what+": lovage")
		}
	}
	return nil
}

// enqueueOnce has one caller send so many tasks, and many callers so many.
func enqueueOnce(ctx context.Context, o *options, r *report, p peer, single, many int) error {
	q, err := p.open(ctx, o.bed, true)
	if err != nil {
		return err
	}
	defer q.close()
	if o.short {
		single, many = single/10, many/10
	}
	for _, callers := range []int{1, 32} {
		if _, err := q.enqueue(ctx, 32, callers); err != nil { // connects
			return err
		}
		n := single
		if callers > 1 {
			n = many
		}
		took, err := q.enqueue(ctx, n, callers)
		if err != nil {
			return err
		}
		what := "enqueue, 1 caller: "
		if callers > 1 {
			what = "enqueue, 32 callers: "
		}
		r.add(what+p.name(), "tasks/s", float64(n)/took.Seconds())
		if err := q.clear(ctx); err != nil {
			return err
		}
	}
	if b, ok := q.(bulker); ok {
		took, err := b.bulk(ctx, many)
		if err != nil {
			return err
		}
		r.add("enqueue, bulk: "+p.name(), "tasks/s", float64(many)/took.Seconds())
	}
	return q.clear(ctx)
}

// bestBare looks for the batch and the number of loops that suit the raw loop.
func bestBare(ctx context.Context, o *options, r *report) (barePeer, error) {
	best, rate := barePeer{}, 0.0
	n := 60_000
	if o.short {
		n = 15_000
	}
	for _, loops := range []int{1, 2, 4, 8} {
		for _, batch := range []int{50, 100, 200} {
			if o.short && batch != 100 {
				continue
			}
			p := barePeer{title: "raw loop", batch: batch, loops: loops}
			d, err := drain(ctx, p, o.bed, n, 1, true)
			if err != nil {
				return best, err
			}
			r.progress(fmt.Sprintf("  raw loop, batch %d, %d loops: %s tasks/s", batch, loops, number(d.rate())))
			if d.rate() > rate {
				best, rate = p, d.rate()
			}
		}
	}
	r.note(fmt.Sprintf("The raw loop that did best claims %d at a time in %d loops.", best.batch, best.loops))
	return best, nil
}

func redisWorker(ctx context.Context, o *options, r *report) error {
	peers, err := redisPeers(o)
	if err != nil {
		return err
	}
	raw, err := bestBare(ctx, o, r)
	if err != nil {
		return err
	}
	peers = append(peers, raw)
	for range o.rounds {
		for _, results := range []bool{true, false} {
			for _, p := range peers {
				if !results && (p.name() == "celery default" || p.name() == "asynq default" || p.name() == "river default") {
					continue
				}
				d, err := drain(ctx, p, o.bed, workSize(o, p), 1, results)
				if err != nil {
					return fmt.Errorf("%s: %w", p.name(), err)
				}
				r.drained(withResults(results)+": "+p.name(), d)
			}
		}
	}
	own := withResults(true) + ": lovage"
	r.atLeastMost(own, []string{withResults(true) + ": celery best", withResults(true) + ": celery default"}, 20)
	r.atLeastMost(own, []string{withResults(true) + ": asynq best", withResults(true) + ": asynq default"}, 3)
	r.atLeastMost(own, []string{withResults(true) + ": asynq best", withResults(true) + ": river best", withResults(true) + ": river default"}, 2)
	r.atLeast(own, withResults(true)+": raw loop", 0.6)
	r.atMost(own+", worker CPU", withResults(true)+": asynq best, worker CPU", 1.0/3)
	return nil
}

func withResults(on bool) string {
	if on {
		return "worker, results stored"
	}
	return "worker, results ignored"
}

// workSize makes runs of some seconds.
func workSize(o *options, p peer) int {
	n := 200_000
	switch p.(type) {
	case celeryPeer:
		n = 10_000
	case asynqPeer:
		n = 50_000
	case riverPeer:
		n = 100_000
	}
	if p.name() == "river default" {
		n = 2000
	}
	if o.short {
		n /= 10
	}
	return n
}

// redisFlat empties backlogs of all sizes.
func redisFlat(ctx context.Context, o *options, r *report) error {
	most := cmp.Or(o.backlog, 1_000_000)
	for range o.rounds {
		for n := 1000; n <= most; n *= 10 {
			d, err := drain(ctx, lovagePeer{}, o.bed, n, max(1, min(20, 100_000/n)), true)
			if err != nil {
				return err
			}
			name := fmt.Sprintf("backlog of %d: lovage", n)
			r.drained(name, d)
			if n*10 > most {
				r.add(name+", RSS after", "MiB", d.rss)
				r.below(name+", RSS after", 50)
			}
		}
	}
	for n := 10_000; n <= most; n *= 10 {
		r.atLeast(fmt.Sprintf("backlog of %d: lovage", n), "backlog of 1000: lovage", 0.85)
	}
	return nil
}

func redisLatency(ctx context.Context, o *options, r *report) error {
	peers, err := redisPeers(o)
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
	r.below("latency p50: lovage", 1)
	r.atMost("latency p50: lovage", "latency p50: celery best", 1)
	return nil
}

func latencyOnce(ctx context.Context, o *options, r *report, p peer) error {
	q, err := p.open(ctx, o.bed, true)
	if err != nil {
		return err
	}
	defer q.close()
	w, err := p.worker(ctx, o.bed, true)
	if err != nil {
		return err
	}
	defer w.stop()
	c := q.(caller)
	n := o.roundTrips
	if _, ok := q.(*riverQueue); ok {
		n = max(n/20, 10)
	}
	if _, err := c.roundTrips(ctx, min(n, 20)); err != nil {
		return err
	}
	times, err := c.roundTrips(ctx, n)
	if err != nil {
		return err
	}
	r.add("latency p50: "+p.name(), "ms", percentile(times, 0.50).Seconds()*1e3)
	r.add("latency p99: "+p.name(), "ms", percentile(times, 0.99).Seconds()*1e3)
	return nil
}

// redisIdle measures start-up, and then a worker that has nothing to do.
func redisIdle(ctx context.Context, o *options, r *report) error {
	peers, err := redisPeers(o)
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

func idleOnce(ctx context.Context, o *options, r *report, p peer) error {
	settle, measure := 2*time.Second, 10*time.Second
	if o.short {
		settle, measure = 500*time.Millisecond, 2*time.Second
	}
	q, err := p.open(ctx, o.bed, true)
	if err != nil {
		return err
	}
	q.close()
	w, err := p.worker(ctx, o.bed, true)
	if err != nil {
		return err
	}
	r.add("start-up to ready: "+p.name(), "ms", w.took.Seconds()*1e3)
	time.Sleep(settle)
	cpu, rss, err := idle(w, measure)
	w.stop()
	if err != nil {
		return err
	}
	r.add("idle CPU: "+p.name(), "% of a core", cpu)
	r.add("idle RSS: "+p.name(), "MiB", rss)
	return nil
}

func idle(w *process, d time.Duration) (cpu, rss float64, err error) {
	before, err := w.usage()
	if err != nil {
		return 0, 0, err
	}
	time.Sleep(d)
	after, err := w.usage()
	return (after.cpu - before.cpu).Seconds() / d.Seconds() * 100, after.rss, err
}

// redisParked has tasks wait for their time while other work is done.
func redisParked(ctx context.Context, o *options, r *report) error {
	n := 100_000
	work := workSize(o, lovagePeer{}) / 2
	if o.short {
		n /= 10
	}
	for range o.rounds {
		for _, parked := range []int{0, n} {
			if err := parkedOnce(ctx, o, r, parked, work); err != nil {
				return err
			}
		}
	}
	parkedBars(r, n)
	return nil
}

// parkedBars: what is parked leaves other work and the RSS where they were.
func parkedBars(r *report, n int) {
	title := fmt.Sprintf("%d tasks parked: lovage", n)
	r.atLeast(title+", other work", "nothing parked: lovage, other work", 0.9)
	r.atMost(title+", RSS", "nothing parked: lovage, RSS", 1.1)
}

// parkedOnce measures beside n parked tasks, with a worker and a server that hold
// nothing else: what earlier rounds have stored makes a server slower too.
func parkedOnce(ctx context.Context, o *options, r *report, n, work int) error {
	opened, err := lovagePeer{}.open(ctx, o.bed, true) // and clears
	if err != nil {
		return err
	}
	defer opened.close()
	q := opened.(*lovageQueue)
	w, err := lovagePeer{}.worker(ctx, o.bed, true)
	if err != nil {
		return err
	}
	defer w.stop()
	if _, err := drainOnce(ctx, q, work, nil, nil); err != nil { // warm, and the heap has its size
		return err
	}
	title := "nothing parked: lovage"
	if n > 0 {
		title = fmt.Sprintf("%d tasks parked: lovage", n)
		if err := q.park(ctx, n, time.Hour); err != nil {
			return err
		}
	}
	d, err := drainOnce(ctx, q, work, w, o.bed.redis.process)
	if err != nil {
		return err
	}
	r.add(title+", other work", "tasks/s", d.rate())
	r.add(title+", RSS", "MiB", d.rss)
	cpu, _, err := idle(w, 3*time.Second)
	if err != nil {
		return err
	}
	r.add(title+", idle CPU", "% of a core", cpu)
	return q.clear(ctx)
}
