package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	fast "github.com/goccy/go-json"
	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"
)

// bareRabbit is the limit: a loop over the same client library that consumes with
// a window, decodes with the quickest codec that we know, adds, publishes the
// reply without a confirm, and acknowledges many at a time.
type bareRabbit struct {
	title         string
	window, batch int
}

func (p bareRabbit) name() string { return p.title }

func (bareRabbit) server(b *bed) *server { return b.rabbit }

func (p bareRabbit) worker(ctx context.Context, b *bed, results bool) (*process, error) {
	return startSelf(ctx, "bare rabbitmq", b.rabbit.url, results, strconv.Itoa(p.window), strconv.Itoa(p.batch))
}

// open has Lovage's client fill the queue.
func (bareRabbit) open(ctx context.Context, b *bed, results bool) (queue, error) {
	q, err := lovageRabbit{}.open(ctx, b, results)
	if err != nil {
		return nil, err
	}
	return &bareRabbitQueue{q.(*rabbitQueue)}, nil
}

// bareRabbitQueue sends one message again and again, confirmed: what the client
// library can do. One caller waits for each confirm; many are one loop that has up
// to confirmWindow messages on the way.
type bareRabbitQueue struct{ *rabbitQueue }

const confirmWindow = 500

// message is what Lovage's client sends.
func (q *bareRabbitQueue) message(ctx context.Context) (p amqp.Publishing, err error) {
	if _, err := q.rabbitQueue.enqueue(ctx, 1, 1); err != nil {
		return p, err
	}
	d, ok, err := q.ch.Get(workList, true)
	if err != nil || !ok {
		return p, fmt.Errorf("no message to send again: %w", err)
	}
	return amqp.Publishing{Headers: d.Headers, ContentType: d.ContentType, ContentEncoding: d.ContentEncoding, DeliveryMode: d.DeliveryMode,
		CorrelationId: d.CorrelationId, ReplyTo: d.ReplyTo, Body: d.Body}, nil
}

func (q *bareRabbitQueue) enqueue(ctx context.Context, n, callers int) (time.Duration, error) {
	msg, err := q.message(ctx)
	if err != nil {
		return 0, err
	}
	ch, err := q.conn.Channel()
	if err != nil {
		return 0, err
	}
	defer ch.Close()
	if err := ch.Confirm(false); err != nil {
		return 0, err
	}
	room := 1
	if callers > 1 {
		room = confirmWindow
	}
	ways := make(chan *amqp.DeferredConfirmation, room)
	failed := make(chan error, 1)
	start := time.Now()
	go func() {
		defer close(failed)
		for c := range ways {
			if ok, err := c.WaitContext(ctx); err != nil || !ok {
				failed <- fmt.Errorf("not confirmed: %w", err)
				return
			}
		}
	}()
	for range n {
		const mandatory, immediate = true, false
		c, err := ch.PublishWithDeferredConfirmWithContext(ctx, "", workList, mandatory, immediate, msg)
		if err != nil {
			return 0, err
		}
		if room == 1 {
			if _, err := c.WaitContext(ctx); err != nil {
				return 0, err
			}
		}
		select {
		case ways <- c:
		case err := <-failed:
			return 0, err
		}
	}
	close(ways)
	err = <-failed
	return time.Since(start), err
}

// bareRabbitWorker runs the loop; args are window and batch. It heeds the remote
// commands by which a backlog is held and released.
func bareRabbitWorker(ctx context.Context, url string, args []string, ready func()) error {
	window, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	batch, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	conn, err := amqp.Dial(url)
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := ch.Qos(window, 0, false); err != nil {
		return err
	}
	commands, err := bareCommands(ch)
	if err != nil {
		return err
	}
	consume := func() (<-chan amqp.Delivery, error) {
		return ch.Consume(workList, "bare", false, false, false, false, nil)
	}
	work, err := consume()
	if err != nil {
		return err
	}
	ready()
	var last *amqp.Delivery // unacknowledged
	for count := 0; ; {
		var d amqp.Delivery
		var ok bool
		select {
		case d, ok = <-work:
		default:
			if last != nil { // nothing is there
				if err := last.Ack(true); err != nil {
					return err
				}
				last, count = nil, 0
			}
			select {
			case d, ok = <-work:
			case c := <-commands:
				if work, err = bareObey(ch, c.Body, work, consume); err != nil {
					return err
				}
				continue
			case <-ctx.Done():
				return nil
			}
		}
		if !ok {
			work = nil // its consumer was cancelled
			continue
		}
		if err := bareRun(ctx, ch, &d); err != nil {
			return err
		}
		last = &d
		if count++; count >= batch {
			if err := last.Ack(true); err != nil {
				return err
			}
			last, count = nil, 0
		}
	}
}

func bareCommands(ch *amqp.Channel) (<-chan amqp.Delivery, error) {
	if err := ch.ExchangeDeclare("celery.pidbox", "fanout", false, false, false, false, nil); err != nil {
		return nil, err
	}
	box, err := ch.QueueDeclare("", false, true, true, false, nil)
	if err != nil {
		return nil, err
	}
	if err := ch.QueueBind(box.Name, "", "celery.pidbox", false, nil); err != nil {
		return nil, err
	}
	return ch.Consume(box.Name, "", true, true, false, false, nil)
}

func bareObey(ch *amqp.Channel, command []byte, work <-chan amqp.Delivery, consume func() (<-chan amqp.Delivery, error)) (<-chan amqp.Delivery, error) {
	var c struct{ Method string }
	if err := json.Unmarshal(command, &c); err != nil {
		return nil, err
	}
	switch {
	case c.Method == "add_consumer" && work == nil:
		return consume()
	case c.Method == "cancel_consumer" && work != nil:
		return work, ch.Cancel("bare", false)
	}
	return work, nil
}

func bareRun(ctx context.Context, ch *amqp.Channel, d *amqp.Delivery) error {
	id, _ := d.Headers["id"].(string)
	if _, err := uuid.Parse(id); err != nil {
		return err
	}
	var parts [3]fast.RawMessage
	var args [2]int
	if err := errors.Join(fast.Unmarshal(d.Body, &parts), fast.Unmarshal(parts[0], &args)); err != nil {
		return err
	}
	return ch.PublishWithContext(ctx, "", d.ReplyTo, false, false, amqp.Publishing{
		ContentType: "application/json", ContentEncoding: "utf-8", CorrelationId: d.CorrelationId, DeliveryMode: 1,
		Body: bareResult(id, args[0]+args[1]),
	})
}
