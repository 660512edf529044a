package main

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// peer is a task queue that is measured by the same work: a task that adds two
// integers. Its name is in the figures; its worker is a process of its own.
type peer interface {
	name() string
	// server is where its tasks and results are.
	server(b *bed) *server
	// worker starts a worker process and returns when it consumes.
	worker(ctx context.Context, b *bed, results bool) (*process, error)
	// open connects the producing side.
	open(ctx context.Context, b *bed, results bool) (queue, error)
}

// queue is the producing side of a peer. Each call of hold has its own release.
type queue interface {
	// enqueue sends n tasks from callers goroutines, one call each.
	enqueue(ctx context.Context, n, callers int) (time.Duration, error)
	// hold has n tasks in the store where a running worker does not see them.
	hold(ctx context.Context, n int) error
	// release lets the worker see what is held.
	release(ctx context.Context) error
	// left tells how many of the released tasks have not ended.
	left(ctx context.Context) (int, error)
	// clear deletes everything.
	clear(ctx context.Context) error
	close()
}

// caller is a queue that can wait for results.
type caller interface {
	// roundTrips calls n times, one after another, and tells how long each took
	// until its result was there.
	roundTrips(ctx context.Context, n int) ([]time.Duration, error)
}

// bulker is a queue that takes many tasks in one call.
type bulker interface {
	bulk(ctx context.Context, n int) (time.Duration, error)
}

// bed holds the servers that the peers share.
type bed struct {
	redis    *server
	postgres *server
	rabbit   *server
}

// start starts what the parts of a name need, once.
func (b *bed) start(ctx context.Context, dir, part string) (err error) {
	switch {
	case strings.HasPrefix(part, "redis/") && b.redis == nil:
		if b.redis, err = startRedis(ctx); err == nil {
			b.postgres, err = startPostgres(ctx, dir)
		}
	case strings.HasPrefix(part, "rabbitmq/") && b.rabbit == nil:
		b.rabbit, err = startRabbit(ctx, dir)
	}
	return err
}

func (b *bed) stop() {
	for _, s := range []*server{b.redis, b.postgres, b.rabbit} {
		if s != nil {
			s.stop()
		}
	}
}

// server is a server process that was started for this run.
type server struct {
	*process
	beside *process // that it needs, nil: none
	url    string   // for clients
	addr   string
}

func (s *server) stop() {
	s.process.stop()
	if s.beside != nil {
		s.beside.stop()
	}
}

// share spreads n calls over callers goroutines and tells how long it took.
func share(ctx context.Context, n, callers int, call func(context.Context) error) (time.Duration, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range callers {
		wg.Go(func() {
			for next.Add(1) <= int64(n) && ctx.Err() == nil {
				if err := call(ctx); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start), context.Cause(ctx)
}

// oneByOne measures n calls that each return when their result is there.
func oneByOne(ctx context.Context, n int, call func(context.Context) error) ([]time.Duration, error) {
	out := make([]time.Duration, n)
	for i := range out {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		start := time.Now()
		err := call(ctx)
		cancel()
		if err != nil {
			return nil, err
		}
		out[i] = time.Since(start)
	}
	return out, nil
}
