package redisbroker

import (
	"context"

	"github.com/lovage-go/lovage/broker"
)

// Cut cuts the connection off as kill -9 would: nothing is handed back.
func (c *Conn) Cut() error {
	c.cut.Store(true)
	return c.Close()
}

// ReadEnvelope is the driver's reader, for a loop that does without the driver.
func ReadEnvelope(raw string) (headers, body []byte, err error) {
	e, err := parseEnvelope(raw)
	if err != nil {
		return nil, nil, err
	}
	return e.deliveredHeaders(), e.body, nil
}

// WriteEnvelope is the driver's writer.
func (c *Conn) WriteEnvelope(m *broker.Message) string { return c.encode(m) }

// Mark rewrites a raw envelope.
func Mark(raw string, redelivered, orphaned bool, losses int) string {
	return mark(raw, marks{redelivered: redelivered, orphaned: orphaned, losses: losses})
}

// Tail is the end of a claim's record.
func Tail(list string) string { return tail(list) }

// Sweep gives back what Python workers hold for too long.
func (c *Conn) Sweep(ctx context.Context) error { return c.sweep(ctx) }
