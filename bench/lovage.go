package main

import (
	"context"
	"fmt"
	"time"

	"github.com/lovage-go/lovage"
	_ "github.com/lovage-go/lovage/backend/redisbackend"
	"github.com/lovage-go/lovage/broker"
	_ "github.com/lovage-go/lovage/broker/redisbroker"
	"github.com/lovage-go/lovage/protocol"
	"github.com/lovage-go/lovage/worker"
	"github.com/redis/rueidis"
)

// AddArgs are the arguments of the task that is measured.
type AddArgs struct{ X, Y int }

const taskName = "bench.add"

// lovagePeer is Lovage with its defaults, on Redis.
type lovagePeer struct{}

func (lovagePeer) name() string { return "lovage" }

func (lovagePeer) server(b *bed) *server { return b.redis }

func (lovagePeer) worker(ctx context.Context, b *bed, results bool) (*process, error) {
	return startSelf(ctx, "lovage", b.redis.url, results)
}

func redisApp(url string, results bool) (*lovage.App, *lovage.Handle[AddArgs, int]) {
	app := lovage.New("bench", lovage.Config{BrokerURL: url, ResultBackend: url}, lovage.WithLogger(quiet()))
	add := lovage.Func(app, taskName, func(_ context.Context, in AddArgs) (int, error) { return in.X + in.Y, nil }, lovage.IgnoreResult(!results))
	return app, add
}

func lovageWorker(ctx context.Context, url string, results bool, ready func()) error {
	app, _ := redisApp(url, results)
	worker.TuneProcess() // as the worker command does
	w := worker.New(app, worker.Config{Ready: func(worker.Info) { ready() }})
	if err := w.Run(ctx); err != nil {
		return err
	}
	return app.Close(context.WithoutCancel(ctx))
}

func (lovagePeer) open(ctx context.Context, b *bed, results bool) (queue, error) {
	q, err := openRedisQueue(b)
	if err != nil {
		return nil, err
	}
	l := &lovageQueue{redisQueue: q, results: results}
	l.app, l.add = redisApp(b.redis.url, results)
	return l, l.clear(ctx)
}

// lovageQueue sends with Lovage's client.
type lovageQueue struct {
	*redisQueue
	app     *lovage.App
	add     *lovage.Handle[AddArgs, int]
	results bool
	held    int
}

func (l *lovageQueue) send(ctx context.Context, opts ...lovage.CallOption) error {
	_, err := l.add.Delay(ctx, AddArgs{2, 3}, opts...)
	return err
}

func (l *lovageQueue) enqueue(ctx context.Context, n, callers int) (time.Duration, error) {
	return share(ctx, n, callers, func(ctx context.Context) error { return l.send(ctx) })
}

func (l *lovageQueue) hold(ctx context.Context, n int) error {
	l.held = n
	_, err := share(ctx, n, 32, func(ctx context.Context) error { return l.send(ctx, lovage.Queue(heldList)) })
	return err
}

// park sends tasks for later.
func (l *lovageQueue) park(ctx context.Context, n int, later time.Duration) error {
	_, err := share(ctx, n, 32, func(ctx context.Context) error { return l.send(ctx, lovage.Countdown(later)) })
	return err
}

func (l *lovageQueue) bulk(ctx context.Context, n int) (time.Duration, error) {
	conn, err := l.app.Broker(ctx)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	for at := 0; at < n; at += 500 {
		msgs := make([]*broker.Message, min(500, n-at))
		for i := range msgs {
			msgs[i] = bulkMessage(fmt.Sprintf("4df3aeed-8130-4b61-88a7-%012d", at+i))
		}
		if err := conn.Publish(ctx, msgs...); err != nil {
			return 0, err
		}
	}
	return time.Since(start), nil
}

func bulkMessage(id string) *broker.Message {
	return &broker.Message{
		Headers:    protocol.Headers{Lang: "go", Task: taskName, ID: id, RootID: id, ArgsRepr: "(2, 3)", KwargsRepr: "{}", Origin: "gen1@host.example"},
		Properties: protocol.Properties{ContentType: protocol.ContentJSON, ContentEncoding: protocol.EncodingUTF8, CorrelationID: id, DeliveryMode: 2},
		Body:       []byte(`[[2, 3], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]`),
		RoutingKey: workList, Queue: workList,
	}
}

func (l *lovageQueue) roundTrips(ctx context.Context, n int) ([]time.Duration, error) {
	return oneByOne(ctx, n, func(ctx context.Context) error {
		res, err := l.add.Delay(ctx, AddArgs{2, 3})
		if err != nil {
			return err
		}
		if v, err := res.Get(ctx); err != nil || v != 5 {
			return fmt.Errorf("got %d, %w", v, err)
		}
		return nil
	})
}

func (l *lovageQueue) close() {
	_ = l.app.Close(context.Background()) // the server is thrown away
	l.redisQueue.close()
}

const (
	workList = "celery"
	heldList = "held"
)

// redisQueue is what Celery's layout on Redis lets one do from outside.
type redisQueue struct{ rdb rueidis.Client }

func openRedisQueue(b *bed) (*redisQueue, error) {
	rdb, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{b.redis.addr}, ForceSingleClient: true, DisableCache: true})
	return &redisQueue{rdb}, err
}

func (r *redisQueue) release(ctx context.Context) error {
	return r.rdb.Do(ctx, r.rdb.B().Rename().Key(heldList).Newkey(workList).Build()).Error()
}

// left counts what waits and what is claimed.
func (r *redisQueue) left(ctx context.Context) (int, error) {
	n := int64(0)
	for _, a := range r.rdb.DoMulti(ctx, r.rdb.B().Llen().Key(workList).Build(), r.rdb.B().Hlen().Key("unacked").Build()) {
		v, err := a.AsInt64()
		if err != nil {
			return 0, err
		}
		n += v
	}
	return int(n), nil
}

func (r *redisQueue) clear(ctx context.Context) error {
	return r.rdb.Do(ctx, r.rdb.B().Flushall().Async().Build()).Error()
}

func (r *redisQueue) close() { r.rdb.Close() }
