package amqpbroker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/earshot"
	amqp "github.com/rabbitmq/amqp091-go"
)

// listener receives from a queue of its own and keeps what came until Next takes
// it. After a lost connection it makes its queue again.
type listener struct {
	conn  *Conn
	queue broker.Queue
	done  chan struct{} // closed by Close
	turn  chan struct{}
	ended chan struct{} // closed when the pump is gone
	heard *earshot.Buffer[amqp.Delivery]

	mu     sync.Mutex // guards what follows
	closed bool
	s      *session
	ch     *amqp.Channel
	lost   int64
}

func (c *Conn) listen(ctx context.Context, q broker.Queue) (*listener, error) {
	if err := c.alive(); err != nil {
		return nil, err
	}
	ctx, cancel := c.bound(ctx)
	defer cancel()
	l := &listener{conn: c, queue: q, done: make(chan struct{}), turn: make(chan struct{}, 1), ended: make(chan struct{}), heard: earshot.New[amqp.Delivery]()}
	messages, err := l.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("listen to %q: %w", cmp.Or(q.Exchange.Name, q.Name), fault(ctx, err))
	}
	c.mu.Lock()
	c.listeners[l] = struct{}{}
	c.mu.Unlock()
	c.group.Go(func() { l.pump(messages) })
	if c.closed.Load() {
		return nil, errors.Join(c.errClosed(), l.Close())
	}
	return l, nil
}

// open declares the queue, which is bound when it returns, and consumes from it.
func (l *listener) open(ctx context.Context) (<-chan amqp.Delivery, error) {
	s, err := l.conn.in.get(ctx)
	if err != nil {
		return nil, err
	}
	q := &l.queue
	args, err := tableOf(q.Arguments)
	if err != nil {
		return nil, err
	}
	var messages <-chan amqp.Delivery // whoever leaves early does not look
	err = s.call(ctx, func() error {
		ch, err := s.conn.Channel()
		if err != nil {
			return err
		}
		if !l.conn.opt.passive {
			err = l.conn.declareExchange(ch, &q.Exchange) // the anonymous one is there
		}
		if err == nil {
			_, err = ch.QueueDeclare(q.Name, !q.Transient, q.AutoDelete, q.Exclusive, false, args)
		}
		if err == nil && q.Exchange.Name != "" {
			err = ch.QueueBind(q.Name, q.RoutingKey, q.Exchange.Name, false, nil)
		}
		if err == nil {
			const noAck = true
			messages, err = ch.Consume(q.Name, "", noAck, q.Exclusive, false, false, nil)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if err == nil && (l.closed || ctx.Err() != nil) {
			err = broker.ErrClosed
		}
		if err != nil {
			_ = ch.Close() // it is of no use
			return err
		}
		l.s, l.ch = s, ch
		return nil
	})
	if err != nil {
		return nil, err
	}
	if q.Exchange.Name != "" {
		l.conn.found(q.Exchange.Name)
	}
	return messages, nil
}

// pump takes what comes and makes the queue again when it is lost.
func (l *listener) pump(messages <-chan amqp.Delivery) {
	defer close(l.ended)
	wait, there := mendPause, true
	for {
		for m := range messages {
			l.heard.Put(m)
		}
		if l.isClosed() {
			return
		}
		if there {
			there = false
			l.lose()
		}
		select {
		case <-time.After(wait):
		case <-l.done:
			return
		}
		wait = min(2*wait, mendLimit)
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		again, err := l.open(ctx)
		cancel()
		switch {
		case err == nil:
			messages, wait, there = again, mendPause, true
			l.lose() // what was asked for since the loss may have been answered already
			l.conn.log.Info("a queue of our own is there again after a lost connection; what was sent in between is lost", "queue", l.queue.Name)
		case errors.Is(err, broker.ErrClosed) || l.conn.closed.Load():
			return
		default:
			closed := make(chan amqp.Delivery)
			close(closed)
			messages = closed
		}
	}
}

func (l *listener) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed || l.conn.closed.Load()
}

// Next waits for the next message.
func (l *listener) Next(ctx context.Context) (broker.Delivery, error) {
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-l.done:
		return broker.Delivery{}, l.errClosed()
	case <-ctx.Done():
		return broker.Delivery{}, context.Cause(ctx)
	}
	for {
		select {
		case <-l.done:
			return broker.Delivery{}, l.errClosed()
		default:
		}
		if m, ok := l.heard.Take(); ok {
			return l.conn.delivery(l.queue.Name, &m), nil
		}
		select {
		case <-l.heard.Bell():
		case <-l.done:
			return broker.Delivery{}, l.errClosed()
		case <-ctx.Done():
			return broker.Delivery{}, context.Cause(ctx)
		}
	}
}

// Missed counts what was lost because the listener did not keep up. What is
// broadcast while the connection is away is not known, and not counted.
func (l *listener) Missed() int64 { return l.heard.Missed() }

// Queue is the name of the queue.
func (l *listener) Queue() string { return l.queue.Name }

// Lost counts how often the queue was lost, and how often it was made again.
func (l *listener) Lost() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}

func (l *listener) lose() {
	l.mu.Lock()
	l.lost++
	l.mu.Unlock()
}

// Close ends the subscription, and its queue with it. Closing twice is no error.
func (l *listener) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	close(l.done)
	s, ch := l.s, l.ch
	l.mu.Unlock()
	l.conn.mu.Lock()
	delete(l.conn.listeners, l)
	l.conn.mu.Unlock()
	if !s.alive() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := s.call(ctx, ch.Close)
	if err != nil && s.alive() && !errors.Is(err, amqp.ErrClosed) {
		return fmt.Errorf("stop listening to %q: %w", cmp.Or(l.queue.Exchange.Name, l.queue.Name), fault(ctx, err))
	}
	return nil
}

func (l *listener) errClosed() error {
	return fmt.Errorf("rabbitmq broker %s: listener of %q: %w", l.conn.at.id(), cmp.Or(l.queue.Exchange.Name, l.queue.Name), broker.ErrClosed)
}
