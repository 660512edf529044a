package amqpbroker

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/lovage-go/lovage/broker"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Purge deletes what waits in a queue. Messages whose time has not come wait in
// queues that all share, and stay.
func (c *Conn) Purge(ctx context.Context, queue string) (int, error) {
	if err := c.alive(); err != nil {
		return 0, err
	}
	ctx, cancel := c.bound(ctx)
	defer cancel()
	s, err := c.out.get(ctx)
	if err != nil {
		return 0, err
	}
	n := 0
	err = s.with(ctx, func(ch *amqp.Channel) (err error) {
		n, err = ch.QueuePurge(queue, false)
		return err
	})
	if code(err) == amqp.NotFound {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("purge queue %q: %w", queue, fault(ctx, err))
	}
	return n, nil
}

// Lengths counts what AMQP tells: messages that are ready, and dead letters while
// there are not too many to look at. What is claimed or delayed is
// [broker.Unknown]. With no names it counts the queues that this connection has
// declared or consumes, and those of dead letters.
func (c *Conn) Lengths(ctx context.Context, queues ...string) (map[string]broker.Length, error) {
	if err := c.alive(); err != nil {
		return nil, err
	}
	ctx, cancel := c.bound(ctx)
	defer cancel()
	s, err := c.out.get(ctx)
	if err != nil {
		return nil, err
	}
	dead, err := c.countDead(ctx)
	if err != nil {
		return nil, err
	}
	if len(queues) == 0 {
		queues = c.heardOf(dead)
	}
	out := make(map[string]broker.Length, len(queues))
	for _, name := range queues {
		l := broker.Length{Claimed: broker.Unknown, Delayed: broker.Unknown, Dead: broker.Unknown}
		if dead != nil {
			l.Dead = dead[name]
		}
		err := s.with(ctx, func(ch *amqp.Channel) error {
			q, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
			l.Ready = q.Messages
			return err
		})
		if err != nil && code(err) != amqp.NotFound {
			return nil, fmt.Errorf("count queue %q: %w", name, fault(ctx, err))
		}
		out[name] = l
	}
	return out, nil
}

// heardOf are the queues of this connection and of dead letters.
func (c *Conn) heardOf(dead map[string]int) []string {
	names := maps.Clone(dead)
	if names == nil {
		names = map[string]int{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for name := range c.queues {
		names[name] = 0
	}
	delete(names, c.opt.dead)
	return slices.Sorted(maps.Keys(names))
}

// countDead counts dead letters by queue; nil: there are too many.
func (c *Conn) countDead(ctx context.Context) (map[string]int, error) {
	n, seen := map[string]int{}, 0
	err := c.scan(ctx, func(_ *amqp.Delivery, m marks) (bool, bool, error) {
		n[m.queue]++
		seen++
		return false, seen > scanLimit, nil
	})
	if err != nil || seen > scanLimit {
		return nil, err
	}
	return n, nil
}
