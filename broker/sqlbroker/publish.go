package sqlbroker

import (
	"context"
	"errors"
	"fmt"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/sqlstore"
)

// Publish writes messages in one transaction, together with whatever other
// callers are writing, and returns when it is committed.
func (c *Conn) Publish(ctx context.Context, msgs ...*broker.Message) error {
	if err := c.alive(); err != nil {
		return err
	}
	if len(msgs) == 0 {
		return nil
	}
	errs := make([]error, len(msgs))
	rows := make([]sqlstore.Message, len(msgs))
	for i, m := range msgs {
		rows[i], errs[i] = c.encode(m)
	}
	invalid := append([]error(nil), errs...)
	err := c.db.Update(ctx, func(tx *sqlstore.Tx) error {
		copy(errs, invalid)
		for i := range rows {
			if invalid[i] != nil {
				continue
			}
			err := tx.Publish(&rows[i])
			if errors.Is(err, sqlstore.ErrNoQueue) {
				errs[i] = fmt.Errorf("publish message %s: %w", msgs[i].Headers.ID, fault(err))
			} else if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fault(err)
	}
	for i := range rows {
		if errs[i] == nil && rows[i].Routed == 0 {
			c.unrouted(msgs[i])
		}
	}
	return broker.Batch(errs)
}

func (c *Conn) unrouted(m *broker.Message) {
	c.log.Warn("message dropped, no queue takes it", "id", m.Headers.ID, "task", m.Headers.Task,
		"exchange", m.Exchange, "routing_key", m.RoutingKey, "store", c.db.Path())
}

// encode makes the rows' content before the store is asked for anything.
func (c *Conn) encode(m *broker.Message) (sqlstore.Message, error) {
	if len(m.Body) > c.maxBody {
		return sqlstore.Message{}, fmt.Errorf("message %s has a body of %d bytes, the limit is %d: send a reference to the data or raise the limit: %w",
			m.Headers.ID, len(m.Body), c.maxBody, broker.ErrTooLarge)
	}
	out := sqlstore.Message{
		Queue: m.Queue, Exchange: m.Exchange, RoutingKey: m.RoutingKey, Mandatory: m.Mandatory, Body: m.Body,
	}
	if p := m.Properties.Priority; p != nil {
		out.Priority = *p
	}
	if !m.NotBefore.IsZero() {
		// Rounded up: no message comes before its time.
		out.NotBefore = m.NotBefore.UnixMicro()
		if m.NotBefore.Nanosecond()%1000 != 0 {
			out.NotBefore++
		}
	}
	out.Headers, out.Envelope = encodeMeta(m)
	return out, nil
}

// encodeMeta gives headers and envelope, from one allocation.
func encodeMeta(m *broker.Message) (headers, envelope []byte) {
	buf := m.Headers.AppendJSON(make([]byte, 0, 1024))
	n := len(buf)
	e := sqlstore.Envelope{Exchange: m.Exchange, RoutingKey: m.RoutingKey, Properties: m.Properties}
	buf = e.AppendJSON(buf)
	return buf[:n:n], buf[n:]
}
