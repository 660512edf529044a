package amqpbroker

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/lovage-go/lovage/broker"
)

// Reply publishes to the reply queue that is bound by the routing key. How long
// it is kept the queue says, which its owner declared.
func (c *Conn) Reply(ctx context.Context, _ time.Duration, m *broker.Message) error {
	if err := c.alive(); err != nil {
		return err
	}
	ctx, cancel := c.bound(ctx)
	defer cancel()
	if err := c.ensureExchange(ctx, m.Exchange); err != nil {
		return err
	}
	if len(m.Body) > c.maxBody {
		return fmt.Errorf("reply to %q has a body of %d bytes, the limit is %d: %w", m.Exchange, len(m.Body), c.maxBody, broker.ErrTooLarge)
	}
	msg, err := c.publishing(m)
	if err != nil {
		return fmt.Errorf("reply to %q: %w", m.Exchange, err)
	}
	if err := c.deliver(ctx, []*outgoing{{exchange: m.Exchange, key: m.RoutingKey, msg: msg}})[0]; err != nil {
		return fmt.Errorf("reply to %q: %w", m.Exchange, err)
	}
	return nil
}

// Replies makes the queue that Celery's clients would have for a routing key.
func (c *Conn) Replies(ctx context.Context, exchange, routingKey string) (broker.Listener, error) {
	l, err := c.listen(ctx, c.opt.control.queue(broker.Queue{Name: routingKey + "." + exchange, Exchange: exchangeOf(exchange), RoutingKey: routingKey}))
	if err != nil {
		return nil, err
	}
	return l, nil
}

// ResultQueue makes the queue that Celery's rpc clients have: durable, on the
// anonymous exchange, deleted with its consumer.
func (c *Conn) ResultQueue(ctx context.Context, expires time.Duration) (broker.ResultListener, error) {
	l, err := c.listen(ctx, broker.Queue{Name: uuid.NewString(), AutoDelete: true, Arguments: map[string]any{"x-expires": expires.Milliseconds()}})
	if err != nil {
		return nil, err
	}
	return l, nil
}
