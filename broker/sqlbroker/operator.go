package sqlbroker

import (
	"context"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/sqlstore"
)

// Purge deletes what waits in a queue, in bounded transactions; an unknown
// queue holds nothing.
func (c *Conn) Purge(ctx context.Context, queue string) (int, error) {
	n, err := c.db.Purge(ctx, queue)
	return n, fault(err)
}

// Lengths counts queues; an unknown name counts as empty. It reads an index
// entry for each message.
func (c *Conn) Lengths(ctx context.Context, queues ...string) (map[string]broker.Length, error) {
	var out map[string]broker.Length
	err := c.db.Snapshot(ctx, func(tx *sqlstore.Tx) error {
		ls, err := tx.Lengths(queues...)
		if err != nil {
			return err
		}
		out = make(map[string]broker.Length, len(ls))
		for name, l := range ls {
			out[name] = broker.Length(l)
		}
		return nil
	})
	return out, fault(err)
}

// Bindings lists those of all exchanges; there are no others.
func (c *Conn) Bindings(ctx context.Context, _ ...string) (list []broker.Bound, err error) {
	err = c.db.Snapshot(ctx, func(tx *sqlstore.Tx) error {
		list = nil
		return tx.Bindings(func(queue, exchange, pattern string) {
			list = append(list, broker.Bound{Queue: queue, Exchange: exchange, RoutingKey: pattern})
		})
	})
	return list, fault(err)
}

// Peek lists waiting messages, next one first, the delayed ones last.
func (c *Conn) Peek(ctx context.Context, queue string, offset, limit int) ([]broker.Delivery, error) {
	var out []broker.Delivery
	err := c.db.Snapshot(ctx, func(tx *sqlstore.Tx) error {
		rows, err := tx.Peek(queue, offset, limit)
		if err != nil {
			return err
		}
		losses, err := lossesOf(tx, rows)
		if err != nil {
			return err
		}
		out = make([]broker.Delivery, len(rows))
		for i := range rows {
			out[i] = deliveryOf(&rows[i])
			if losses != nil {
				out[i].Losses = losses[i]
			}
		}
		return nil
	})
	return out, fault(err)
}

// PeekDelayed lists the messages that wait for their time.
func (c *Conn) PeekDelayed(ctx context.Context, queue string, offset, limit int) ([]broker.Delayed, error) {
	var out []broker.Delayed
	err := c.db.Snapshot(ctx, func(tx *sqlstore.Tx) error {
		rows, err := tx.PeekDelayed(queue, offset, limit)
		out = make([]broker.Delayed, len(rows))
		for i := range rows {
			out[i] = broker.Delayed{Delivery: deliveryOf(&rows[i]), Due: time.UnixMicro(rows[i].Due())}
		}
		return err
	})
	return out, fault(err)
}

// Pause stops deliveries from a queue, which need not exist yet, in all processes.
func (c *Conn) Pause(ctx context.Context, queue string) error {
	return fault(c.db.Update(ctx, func(tx *sqlstore.Tx) error { return tx.Pause(queue, true) }))
}

// Resume starts them again.
func (c *Conn) Resume(ctx context.Context, queue string) error {
	return fault(c.db.Update(ctx, func(tx *sqlstore.Tx) error { return tx.Pause(queue, false) }))
}

// Paused lists the paused queues by name.
func (c *Conn) Paused(ctx context.Context) (names []string, err error) {
	err = c.db.View(ctx, func(tx *sqlstore.Tx) (err error) {
		names, err = tx.Paused()
		return err
	})
	return names, fault(err)
}
