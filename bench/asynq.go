package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/rueidis"
)

// asynqPeer is github.com/hibiken/asynq.
type asynqPeer struct {
	title string
	key   string // of selves
}

var (
	// asynqBest: 10 and 200 slots, and polls each 1 ms, cost as much CPU for a task.
	asynqBest    = asynq.Config{Concurrency: 50, TaskCheckInterval: 5 * time.Millisecond}
	asynqDefault = asynq.Config{}
)

func (a asynqPeer) name() string { return a.title }

func (asynqPeer) server(b *bed) *server { return b.redis }

func (a asynqPeer) worker(ctx context.Context, b *bed, results bool) (*process, error) {
	return startSelf(ctx, a.key, b.redis.addr, results)
}

func asynqWorker(cfg asynq.Config) func(context.Context, string, bool, func()) error {
	return func(ctx context.Context, addr string, results bool, ready func()) error {
		cfg.LogLevel = asynq.FatalLevel
		s := asynq.NewServer(asynq.RedisClientOpt{Addr: addr}, cfg)
		mux := asynq.NewServeMux()
		mux.HandleFunc(taskName, func(_ context.Context, t *asynq.Task) error {
			var in AddArgs
			if err := json.Unmarshal(t.Payload(), &in); err != nil || !results {
				return err
			}
			_, err := t.ResultWriter().Write([]byte(strconv.Itoa(in.X + in.Y)))
			return err
		})
		if err := s.Start(mux); err != nil {
			return err
		}
		ready()
		<-ctx.Done()
		s.Shutdown()
		return nil
	}
}

func (a asynqPeer) open(ctx context.Context, b *bed, results bool) (queue, error) {
	r, err := openRedisQueue(b)
	if err != nil {
		return nil, err
	}
	opt := asynq.RedisClientOpt{Addr: b.redis.addr}
	q := &asynqQueue{redisQueue: r, client: asynq.NewClient(opt), inspector: asynq.NewInspector(opt), results: results}
	return q, q.clear(ctx)
}

type asynqQueue struct {
	*redisQueue
	client    *asynq.Client
	inspector *asynq.Inspector
	results   bool
}

const (
	asynqPending = "asynq:{default}:pending"
	asynqHeld    = "asynq:{default}:held"
)

func (q *asynqQueue) send(ctx context.Context) (*asynq.TaskInfo, error) {
	payload, err := json.Marshal(AddArgs{2, 3})
	if err != nil {
		return nil, err
	}
	var opts []asynq.Option
	if q.results {
		opts = append(opts, asynq.Retention(24*time.Hour))
	}
	return q.client.EnqueueContext(ctx, asynq.NewTask(taskName, payload), opts...)
}

func (q *asynqQueue) enqueue(ctx context.Context, n, callers int) (time.Duration, error) {
	return share(ctx, n, callers, func(ctx context.Context) error {
		_, err := q.send(ctx)
		return err
	})
}

// hold pauses the queue and then moves the list aside, since a paused server
// would not look again for seconds.
func (q *asynqQueue) hold(ctx context.Context, n int) error {
	pause := "asynq:{default}:paused"
	if err := q.rdb.Do(ctx, q.rdb.B().Set().Key(pause).Value("1").Build()).Error(); err != nil {
		return err
	}
	if _, err := q.enqueue(ctx, n, 32); err != nil {
		return err
	}
	for _, r := range q.rdb.DoMulti(ctx, q.rdb.B().Rename().Key(asynqPending).Newkey(asynqHeld).Build(), q.rdb.B().Del().Key(pause).Build()) {
		if err := r.Error(); err != nil {
			return err
		}
	}
	return nil
}

func (q *asynqQueue) release(ctx context.Context) error {
	return q.rdb.Do(ctx, q.rdb.B().Rename().Key(asynqHeld).Newkey(asynqPending).Build()).Error()
}

func (q *asynqQueue) left(ctx context.Context) (int, error) {
	n := int64(0)
	for _, a := range q.rdb.DoMulti(ctx, rueidis.Commands{q.rdb.B().Llen().Key(asynqPending).Build(), q.rdb.B().Llen().Key("asynq:{default}:active").Build()}...) {
		v, err := a.AsInt64()
		if err != nil {
			return 0, err
		}
		n += v
	}
	return int(n), nil
}

// roundTrips polls: asynq has no way to wait for a result.
func (q *asynqQueue) roundTrips(ctx context.Context, n int) ([]time.Duration, error) {
	return oneByOne(ctx, n, func(ctx context.Context) error {
		info, err := q.send(ctx)
		if err != nil {
			return err
		}
		for ctx.Err() == nil {
			got, err := q.inspector.GetTaskInfo("default", info.ID)
			if err != nil {
				return err
			}
			if got.State == asynq.TaskStateCompleted {
				if string(got.Result) != "5" {
					return fmt.Errorf("asynq: got %q", got.Result)
				}
				return nil
			}
			time.Sleep(200 * time.Microsecond)
		}
		return ctx.Err()
	})
}

func (q *asynqQueue) close() {
	q.client.Close()
	q.inspector.Close()
	q.redisQueue.close()
}
