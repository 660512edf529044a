package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"

	"github.com/jackc/pgx/v5"
)

// riverPeer is github.com/riverqueue/river on PostgreSQL. Its result is the
// recorded output of the job.
type riverPeer struct {
	title string
	key   string // of selves
}

var (
	riverBest    = river.Config{FetchCooldown: 2 * time.Millisecond, FetchPollInterval: 100 * time.Millisecond, Queues: map[string]river.QueueConfig{"default": {MaxWorkers: 1000}}}
	riverDefault = river.Config{Queues: map[string]river.QueueConfig{"default": {MaxWorkers: 100}}}
)

// Kind names the job.
func (AddArgs) Kind() string { return taskName }

func (r riverPeer) name() string { return r.title }

func (riverPeer) server(b *bed) *server { return b.postgres }

func (r riverPeer) worker(ctx context.Context, b *bed, results bool) (*process, error) {
	return startSelf(ctx, r.key, b.postgres.url, results)
}

func riverWorker(cfg river.Config) func(context.Context, string, bool, func()) error {
	return func(ctx context.Context, url string, results bool, ready func()) error {
		pool, err := pgxpool.New(ctx, url)
		if err != nil {
			return err
		}
		defer pool.Close()
		cfg.Logger = quiet()
		cfg.Workers = river.NewWorkers()
		river.AddWorker(cfg.Workers, river.WorkFunc(func(ctx context.Context, job *river.Job[AddArgs]) error {
			sum := job.Args.X + job.Args.Y
			if !results {
				return nil
			}
			return river.RecordOutput(ctx, sum)
		}))
		c, err := river.NewClient(riverpgxv5.New(pool), &cfg)
		if err != nil {
			return err
		}
		run := context.WithoutCancel(ctx)
		if err := c.Start(run); err != nil {
			return err
		}
		ready()
		<-ctx.Done()
		return c.Stop(run)
	}
}

func (r riverPeer) open(ctx context.Context, b *bed, results bool) (queue, error) {
	pool, err := pgxpool.New(ctx, b.postgres.url)
	if err != nil {
		return nil, err
	}
	m, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Logger: quiet()})
	if err != nil {
		return nil, err
	}
	if _, err := m.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, err
	}
	c, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Logger: quiet()})
	if err != nil {
		return nil, err
	}
	q := &riverQueue{pool: pool, client: c}
	return q, q.clear(ctx)
}

type riverQueue struct {
	pool   *pgxpool.Pool
	client *river.Client[pgx.Tx]
}

func (q *riverQueue) enqueue(ctx context.Context, n, callers int) (time.Duration, error) {
	return share(ctx, n, callers, func(ctx context.Context) error {
		_, err := q.client.Insert(ctx, AddArgs{2, 3}, nil)
		return err
	})
}

func (q *riverQueue) bulk(ctx context.Context, n int) (time.Duration, error) {
	start := time.Now()
	for at := 0; at < n; at += 1000 {
		many := make([]river.InsertManyParams, min(1000, n-at))
		for i := range many {
			many[i].Args = AddArgs{2, 3}
		}
		if _, err := q.client.InsertManyFast(ctx, many); err != nil {
			return 0, err
		}
	}
	return time.Since(start), nil
}

func (q *riverQueue) hold(ctx context.Context, n int) error {
	if err := q.client.QueuePause(ctx, "default", nil); err != nil && !errors.Is(err, rivertype.ErrNotFound) {
		return err
	}
	time.Sleep(100 * time.Millisecond) // the worker hears of it by a notification
	if _, err := q.bulk(ctx, n); err != nil {
		return err
	}
	_, err := q.pool.Exec(ctx, "VACUUM ANALYZE river_job")
	return err
}

func (q *riverQueue) release(ctx context.Context) error {
	return q.client.QueueResume(ctx, "default", nil)
}

// left looks at two partial lists that an index gives.
func (q *riverQueue) left(ctx context.Context) (int, error) {
	var some bool
	err := q.pool.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM river_job WHERE state = 'available') OR EXISTS (SELECT 1 FROM river_job WHERE state = 'running')").Scan(&some)
	if some {
		return 1, err
	}
	return 0, err
}

// roundTrips polls the row of the job.
func (q *riverQueue) roundTrips(ctx context.Context, n int) ([]time.Duration, error) {
	return oneByOne(ctx, n, func(ctx context.Context) error {
		job, err := q.client.Insert(ctx, AddArgs{2, 3}, nil)
		if err != nil {
			return err
		}
		for ctx.Err() == nil {
			got, err := q.client.JobGet(ctx, job.Job.ID)
			if err != nil {
				return err
			}
			if got.State == rivertype.JobStateCompleted {
				if out := string(got.Output()); out != "5" {
					return fmt.Errorf("river: got %q", out)
				}
				return nil
			}
			time.Sleep(200 * time.Microsecond)
		}
		return ctx.Err()
	})
}

func (q *riverQueue) clear(ctx context.Context) error {
	_, err := q.pool.Exec(ctx, "TRUNCATE river_job")
	return err
}

func (q *riverQueue) close() { q.pool.Close() }
