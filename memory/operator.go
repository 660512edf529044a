package memory

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/lovage-go/lovage/broker"
)

// Purge deletes what waits in a queue; an unknown queue holds nothing.
func (c *Conn) Purge(ctx context.Context, name string) (int, error) {
	_, unlock, err := c.enter(ctx, OpOperate)
	if err != nil {
		return 0, err
	}
	defer unlock()
	q := c.store.queues[name]
	if q == nil {
		return 0, nil
	}
	q.advance(time.Now())
	n := len(q.ready.s) + len(q.delayed.s)
	q.ready.s, q.delayed.s = nil, nil
	c.store.held -= n
	return n, nil
}

// Bindings lists those of all exchanges; there are no others.
func (c *Conn) Bindings(ctx context.Context, _ ...string) (list []broker.Bound, err error) {
	_, unlock, err := c.enter(ctx, OpOperate)
	if err != nil {
		return nil, err
	}
	defer unlock()
	for name, x := range c.store.exchanges {
		for _, b := range x.bindings {
			list = append(list, broker.Bound{Queue: b.queue.name, Exchange: name, RoutingKey: b.key})
		}
	}
	return list, nil
}

// Lengths counts queues; an unknown name counts as empty.
func (c *Conn) Lengths(ctx context.Context, names ...string) (map[string]broker.Length, error) {
	_, unlock, err := c.enter(ctx, OpOperate)
	if err != nil {
		return nil, err
	}
	defer unlock()
	s, now := c.store, time.Now()
	if len(names) == 0 {
		names = slices.Collect(maps.Keys(s.queues))
	}
	dead := map[string]int{}
	for _, it := range s.dead {
		dead[it.queue.name]++
	}
	out := make(map[string]broker.Length, len(names))
	for _, name := range names {
		l := broker.Length{Dead: dead[name]}
		if q := s.queues[name]; q != nil {
			q.advance(now)
			l.Ready, l.Claimed, l.Delayed = len(q.ready.s), len(q.claimed.s), len(q.delayed.s)
		}
		out[name] = l
	}
	return out, nil
}

// Peek lists waiting messages, next one first, the delayed ones last.
func (c *Conn) Peek(ctx context.Context, name string, offset, limit int) ([]broker.Delivery, error) {
	_, unlock, err := c.enter(ctx, OpOperate)
	if err != nil {
		return nil, err
	}
	defer unlock()
	q := c.store.queues[name]
	if q == nil {
		return nil, nil
	}
	now := time.Now()
	q.advance(now)
	its := q.waiting()
	its = its[min(max(offset, 0), len(its)):]
	its = its[:min(max(limit, 0), len(its))]
	ds := make([]broker.Delivery, len(its))
	for i, it := range its {
		ds[i] = it.delivery(c.store.lossesOf(it.lossKey(), now))
	}
	return ds, nil
}

// PeekDelayed lists the messages that wait for their time.
func (c *Conn) PeekDelayed(ctx context.Context, name string, offset, limit int) ([]broker.Delayed, error) {
	_, unlock, err := c.enter(ctx, OpOperate)
	if err != nil {
		return nil, err
	}
	defer unlock()
	q := c.store.queues[name]
	if q == nil {
		return nil, nil
	}
	now := time.Now()
	q.advance(now)
	its := q.waiting()[len(q.ready.s):]
	its = its[min(max(offset, 0), len(its)):]
	its = its[:min(max(limit, 0), len(its))]
	ds := make([]broker.Delayed, len(its))
	for i, it := range its {
		ds[i] = broker.Delayed{Delivery: it.delivery(c.store.lossesOf(it.lossKey(), now)), Due: it.due}
	}
	return ds, nil
}

// Pause stops deliveries from a queue, which need not exist yet.
func (c *Conn) Pause(ctx context.Context, name string) error {
	_, unlock, err := c.enter(ctx, OpOperate)
	if err != nil {
		return err
	}
	defer unlock()
	c.store.paused[name] = true
	return nil
}

// Resume starts them again.
func (c *Conn) Resume(ctx context.Context, name string) error {
	_, unlock, err := c.enter(ctx, OpOperate)
	if err != nil {
		return err
	}
	defer unlock()
	delete(c.store.paused, name)
	if q := c.store.queues[name]; q != nil {
		q.ring()
	}
	return nil
}

// Paused lists the paused queues by name.
func (c *Conn) Paused(ctx context.Context) ([]string, error) {
	_, unlock, err := c.enter(ctx, OpOperate)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return slices.Sorted(maps.Keys(c.store.paused)), nil
}

var (
	_ broker.Purger        = (*Conn)(nil)
	_ broker.Lengther      = (*Conn)(nil)
	_ broker.BindingLister = (*Conn)(nil)
	_ broker.Peeker        = (*Conn)(nil)
	_ broker.DelayPeeker   = (*Conn)(nil)
	_ broker.Pauser        = (*Conn)(nil)
)
