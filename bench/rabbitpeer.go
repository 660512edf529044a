package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/lovage-go/lovage"
	_ "github.com/lovage-go/lovage/backend/rpcbackend"
	"github.com/lovage-go/lovage/broker"
	_ "github.com/lovage-go/lovage/broker/amqpbroker"
	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/worker"
	amqp "github.com/rabbitmq/amqp091-go"
)

// lovageRabbit is Lovage with its defaults, on RabbitMQ with results by rpc.
type lovageRabbit struct{}

func (lovageRabbit) name() string { return "lovage" }

func (lovageRabbit) server(b *bed) *server { return b.rabbit }

func (lovageRabbit) worker(ctx context.Context, b *bed, results bool) (*process, error) {
	return startSelf(ctx, "rabbitmq", b.rabbit.url, results)
}

func rabbitApp(url string, results bool) (*lovage.App, *lovage.Handle[AddArgs, int]) {
	app := lovage.New("bench", lovage.Config{BrokerURL: url, ResultBackend: "rpc://"}, lovage.WithLogger(quiet()))
	add := lovage.Func(app, taskName, func(_ context.Context, in AddArgs) (int, error) { return in.X + in.Y, nil }, lovage.IgnoreResult(!results))
	return app, add
}

func rabbitWorkerProcess(ctx context.Context, url string, results bool, ready func()) error {
	app, _ := rabbitApp(url, results)
	worker.TuneProcess() // as the worker command does
	w := worker.New(app, worker.Config{Ready: func(worker.Info) { ready() }})
	if err := w.Run(ctx); err != nil {
		return err
	}
	return app.Close(context.WithoutCancel(ctx))
}

// rabbitQueue sends with Lovage's client. Backlogs have results that come to a
// queue of the bench's own, where they are counted.
type rabbitQueue struct {
	app     *lovage.App
	add     *lovage.Handle[AddArgs, int]
	conn    *amqp.Connection
	ch      *amqp.Channel
	replies string
	counted atomic.Int64
	want    int64 // of counted, at the end of what was held
}

func (lovageRabbit) open(ctx context.Context, b *bed, results bool) (queue, error) {
	q := &rabbitQueue{}
	q.app, q.add = rabbitApp(b.rabbit.url, results)
	conn, err := q.app.Broker(ctx)
	if err != nil {
		return nil, err
	}
	if err := conn.Declare(ctx, broker.Named(workList)); err != nil {
		return nil, err
	}
	if err := q.listen(b.rabbit.url); err != nil {
		return nil, err
	}
	return q, q.clear(ctx)
}

// listen counts replies, as they come to a client of Celery's.
func (q *rabbitQueue) listen(url string) (err error) {
	if q.conn, err = amqp.Dial(url); err != nil {
		return err
	}
	if q.ch, err = q.conn.Channel(); err != nil {
		return err
	}
	q.replies = uuid.NewString()
	const durable, autoDelete, exclusive, noWait, autoAck, noLocal = true, true, false, false, true, false
	if _, err = q.ch.QueueDeclare(q.replies, durable, autoDelete, exclusive, noWait, nil); err != nil {
		return err
	}
	come, err := q.ch.Consume(q.replies, "", autoAck, exclusive, noLocal, noWait, nil)
	if err != nil {
		return err
	}
	go func() { // until the connection is closed
		for range come {
			q.counted.Add(1)
		}
	}()
	return nil
}

func (q *rabbitQueue) enqueue(ctx context.Context, n, callers int) (time.Duration, error) {
	return share(ctx, n, callers, func(ctx context.Context) error {
		_, err := q.add.Delay(ctx, AddArgs{2, 3})
		return err
	})
}

func (q *rabbitQueue) roundTrips(ctx context.Context, n int) ([]time.Duration, error) {
	return oneByOne(ctx, n, func(ctx context.Context) error {
		res, err := q.add.Delay(ctx, AddArgs{2, 3})
		if err != nil {
			return err
		}
		if v, err := res.Get(ctx); err != nil || v != 5 {
			return fmt.Errorf("got %d, %w", v, err)
		}
		return nil
	})
}

func (q *rabbitQueue) bulk(ctx context.Context, n int) (time.Duration, error) {
	return q.fill(ctx, n, "")
}

// fill has n tasks in the queue, with an ETA if there is one.
func (q *rabbitQueue) fill(ctx context.Context, n int, eta string) (time.Duration, error) {
	const most = 500
	conn, err := q.app.Broker(ctx)
	if err != nil {
		return 0, err
	}
	var sent atomic.Int64
	return share(ctx, (n+most-1)/most, 4, func(ctx context.Context) error {
		at := sent.Add(most)
		msgs := make([]*broker.Message, min(most, n-int(at-most)))
		for i := range msgs {
			m := bulkMessage(uuid.NewString())
			m.Headers.ETA, m.Properties.ReplyTo = eta, q.replies
			msgs[i] = m
		}
		return conn.Publish(ctx, msgs...)
	})
}

// fillUp has n tasks in the queue, which nobody consumes from.
func (q *rabbitQueue) fillUp(ctx context.Context, n int) error {
	s, err := q.ch.QueueDeclarePassive(workList, true, false, false, false, nil)
	if err != nil {
		return err
	}
	_, err = q.fill(ctx, n-s.Messages, "")
	return err
}

// hold stops the worker's consumer: messages cannot be moved from another queue.
func (q *rabbitQueue) hold(ctx context.Context, n int) error {
	if err := q.pause(ctx, n); err != nil {
		return err
	}
	_, err := q.fill(ctx, n, "")
	return err
}

// pause stops the worker's consumer, and has the next n tasks awaited.
func (q *rabbitQueue) pause(ctx context.Context, n int) error {
	if _, err := q.app.Control().CancelConsumer(ctx, workList, control.Options{}); err != nil {
		return err
	}
	if err := q.until(ctx, func(s amqp.Queue) bool { return s.Consumers == 0 }); err != nil {
		return err
	}
	for last := int64(-1); last != q.counted.Load(); { // what it has taken
		last = q.counted.Load()
		time.Sleep(30 * time.Millisecond)
	}
	q.want = q.counted.Load() + int64(n)
	return nil
}

// until waits for a state of the queue of tasks.
func (q *rabbitQueue) until(ctx context.Context, is func(amqp.Queue) bool) error {
	return q.untilQueue(ctx, workList, is)
}

func (q *rabbitQueue) untilQueue(ctx context.Context, name string, is func(amqp.Queue) bool) error {
	for ctx.Err() == nil {
		s, err := q.ch.QueueDeclarePassive(name, true, false, false, false, nil)
		if err != nil || is(s) {
			return err
		}
		time.Sleep(2 * time.Millisecond)
	}
	return context.Cause(ctx)
}

func (q *rabbitQueue) release(ctx context.Context) error {
	_, err := q.app.Control().AddConsumer(ctx, broker.Queue{Name: workList}, control.Options{})
	return err
}

func (q *rabbitQueue) left(context.Context) (int, error) {
	return int(max(q.want-q.counted.Load(), 0)), nil
}

// delayedList is where the messages wait whose time is in an hour.
const delayedList = "celery_delayed_11"

// park sends tasks for later as Python's clients do, and waits until the worker
// has put them off.
func (q *rabbitQueue) park(ctx context.Context, n int, later time.Duration) error {
	if _, err := q.fill(ctx, n, time.Now().Add(later).UTC().Format("2006-01-02T15:04:05.000000+00:00")); err != nil {
		return err
	}
	if err := q.until(ctx, func(s amqp.Queue) bool { return s.Messages == 0 }); err != nil {
		return err
	}
	return q.untilQueue(ctx, delayedList, func(s amqp.Queue) bool { return s.Messages >= n })
}

func (q *rabbitQueue) clear(context.Context) error {
	_, err := q.ch.QueuePurge(workList, false)
	return err
}

func (q *rabbitQueue) close() {
	_ = q.app.Close(context.Background()) // the server is thrown away
	_ = q.conn.Close()
}
