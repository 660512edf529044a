package amqpbroker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lovage-go/lovage/broker"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Pauses before a delay queue that refuses is asked again: 10 ms, doubled each
// time, 5 s together.
const (
	firstPause = 10 * time.Millisecond
	lastPause  = 5 * time.Second
)

// Publish sends messages, their confirms pipelined, and returns when the server
// has confirmed them. All are sent mandatory, so that none is dropped unseen: one
// for a queue that does not exist makes the queue, a Mandatory one that no queue
// takes is ErrNoQueue, and any other is logged and dropped. After a lost
// connection it is open whether a message arrived.
func (c *Conn) Publish(ctx context.Context, msgs ...*broker.Message) error {
	if err := c.alive(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if len(msgs) == 0 {
		return nil
	}
	ctx, cancel := c.bound(ctx)
	defer cancel()
	errs := make([]error, len(msgs))
	outs := make([]*outgoing, 0, len(msgs))
	at := make([]int, 0, len(msgs))
	for i, m := range msgs {
		o, err := c.prepare(ctx, m)
		if errs[i] = err; err == nil {
			outs, at = append(outs, o), append(at, i)
		}
	}
	sent := c.deliver(ctx, outs)
	var missing []*outgoing
	var whose []int
	for j, err := range sent {
		m, i := msgs[at[j]], at[j]
		switch {
		case !errors.Is(err, broker.ErrNoQueue):
			errs[i] = err
		case m.Queue != "" && m.Exchange == "":
			missing, whose = append(missing, outs[j]), append(whose, i)
		case m.Mandatory:
			errs[i] = err
		default:
			c.log.Warn("message dropped, no queue takes it", "id", m.Headers.ID, "task", m.Headers.Task, "exchange", m.Exchange, "routing_key", m.RoutingKey)
		}
	}
	if len(missing) > 0 {
		for j, err := range c.makeAndDeliver(ctx, msgs, missing, whose) {
			errs[whose[j]] = err
		}
	}
	for i, err := range errs {
		if err != nil {
			errs[i] = fmt.Errorf("publish message %s: %w", msgs[i].Headers.ID, err)
		}
	}
	return collapse(errs)
}

// makeAndDeliver makes the queues that messages did not find, and sends again.
func (c *Conn) makeAndDeliver(ctx context.Context, msgs []*broker.Message, outs []*outgoing, whose []int) []error {
	errs := make([]error, len(outs))
	made := map[string]error{}
	var next []*outgoing
	var at []int
	for j, o := range outs {
		name := msgs[whose[j]].Queue
		if _, done := made[name]; !done {
			made[name] = c.Declare(ctx, c.known(name))
		}
		if errs[j] = made[name]; errs[j] == nil {
			next, at = append(next, o), append(at, j)
		}
	}
	for k, err := range c.deliver(ctx, next) {
		errs[at[k]] = err
	}
	return errs
}

// known is a queue as it was declared here, or the plain one of the name.
func (c *Conn) known(name string) broker.Queue {
	c.mu.Lock()
	defer c.mu.Unlock()
	if q, ok := c.queues[name]; ok {
		return q
	}
	return broker.Named(name)
}

// deliver publishes and gives the outcome of each. A quorum queue can be seen a
// moment before it takes messages, so that a delay queue that somebody else has
// just made refuses them: it is asked again for some seconds.
func (c *Conn) deliver(ctx context.Context, outs []*outgoing) []error {
	errs := c.deliverOnce(ctx, outs)
	for pause := firstPause; pause < lastPause; pause *= 2 {
		var refused []*outgoing
		var whose []int
		for i, err := range errs {
			if outs[i].delayed && errors.Is(err, errRefused) {
				refused, whose = append(refused, outs[i]), append(whose, i)
			}
		}
		if len(refused) == 0 {
			break
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return errs
		}
		for k, err := range c.deliverOnce(ctx, refused) {
			errs[whose[k]] = err
		}
	}
	return errs
}

func (c *Conn) deliverOnce(ctx context.Context, outs []*outgoing) []error {
	errs := make([]error, len(outs))
	if len(outs) == 0 {
		return errs
	}
	p, err := c.publisher(ctx)
	if err == nil {
		err = p.send(ctx, outs)
	}
	for i, o := range outs {
		if err != nil {
			if c.closed.Load() {
				err = c.errClosed()
			}
			errs[i] = fault(ctx, err)
		} else {
			errs[i] = o.err
		}
	}
	return errs
}

// prepare addresses and encodes a message, before anything is sent.
func (c *Conn) prepare(ctx context.Context, m *broker.Message) (*outgoing, error) {
	if len(m.Body) > c.maxBody {
		return nil, fmt.Errorf("its body has %d bytes, the limit is %d: send a reference to the data or raise the limit: %w",
			len(m.Body), c.maxBody, broker.ErrTooLarge)
	}
	exchange, key := m.Exchange, m.RoutingKey
	if exchange == "" && m.Queue != "" {
		key = m.Queue
	}
	if err := c.hasExchange(ctx, exchange); err != nil {
		return nil, err
	}
	msg, err := c.publishing(m)
	if err != nil {
		return nil, err
	}
	o := &outgoing{exchange: exchange, key: key, mandatory: true, msg: msg}
	if wait := time.Until(m.NotBefore); wait > 0 && !c.lacks.delays && c.arrives(exchange) {
		if m.Queue != "" && m.Exchange == "" {
			if err := c.ensureQueue(ctx, m.Queue); err != nil {
				return nil, err
			}
		}
		if err := c.delay(ctx, o, wait, marks{}); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// arrives reports whether what is late comes to an exchange when its time comes. Of
// one that we have declared no queue for it is not known whether any of its queues
// is bound to where delays end, and Python's are not: what goes there waits in the
// worker that gets it, or is parked by it.
func (c *Conn) arrives(exchange string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return exchange == "" || c.exchanges[exchange]
}

// ensureQueue makes the queue exist that a delayed message will come to: nobody
// is told when it does not.
func (c *Conn) ensureQueue(ctx context.Context, name string) error {
	c.mu.Lock()
	_, known := c.queues[name]
	c.mu.Unlock()
	if known {
		return nil
	}
	return c.Declare(ctx, broker.Named(name))
}

// delay readdresses a message to the delay queues.
func (c *Conn) delay(ctx context.Context, o *outgoing, wait time.Duration, m marks) error {
	if c.lacks.fine {
		wait = max(wait, time.Second)
	}
	l, level, key, err := delayAddress(wait, o.exchange, o.key)
	if err != nil {
		return err
	}
	if err := c.ensureDelays(ctx, l, level); err != nil {
		return err
	}
	o.exchange, o.key, o.delayed = l.at(level), key, true
	// It would end the wait, in the wrong place.
	m.expiration, o.msg.Expiration = o.msg.Expiration, ""
	if own := m.table(); len(own) > 0 {
		if o.msg.Headers == nil {
			o.msg.Headers = amqp.Table{}
		}
		o.msg.Headers[ownMarks] = own
	}
	return nil
}

// collapse gives one error if all failed by it, which a caller may retry as one.
func collapse(errs []error) error {
	err := broker.Batch(errs)
	if err == nil {
		return nil
	}
	for _, e := range errs {
		if e == nil || !broker.Retryable(e) {
			if len(errs) == 1 {
				return errs[0]
			}
			return err
		}
	}
	return errs[0]
}
