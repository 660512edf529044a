package amqpbroker

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/lovage-go/lovage/broker"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Celery's exchanges for what is not a task are known by their names: requests of
// remote control are fanned out, replies go by routing key, and events by topic.
// Those of remote control do not outlive the server.
func exchangeOf(name string) broker.Exchange {
	switch {
	case strings.HasPrefix(name, "reply.") && strings.HasSuffix(name, ".pidbox"):
		return broker.Exchange{Name: name, Type: "direct", Transient: true}
	case strings.HasSuffix(name, ".pidbox"):
		return broker.Exchange{Name: name, Type: "fanout", Transient: true}
	}
	return broker.Exchange{Name: name, Type: "topic"}
}

// Broadcast publishes to an exchange, which is made if it is not there.
func (c *Conn) Broadcast(ctx context.Context, exchange string, msgs ...*broker.Message) error {
	if err := c.alive(); err != nil {
		return err
	}
	ctx, cancel := c.bound(ctx)
	defer cancel()
	if err := c.ensureExchange(ctx, exchange); err != nil {
		return err
	}
	outs := make([]*outgoing, len(msgs))
	for i, m := range msgs {
		if len(m.Body) > c.maxBody {
			return fmt.Errorf("broadcast to %q has a body of %d bytes, the limit is %d: %w", exchange, len(m.Body), c.maxBody, broker.ErrTooLarge)
		}
		msg, err := c.publishing(m)
		if err != nil {
			return fmt.Errorf("broadcast to %q: %w", exchange, err)
		}
		outs[i] = &outgoing{exchange: exchange, key: m.RoutingKey, msg: msg}
	}
	errs := c.deliver(ctx, outs)
	for i, err := range errs {
		if err != nil {
			errs[i] = fmt.Errorf("broadcast to %q: %w", exchange, err)
		}
	}
	return collapse(errs)
}

func (c *Conn) ensureExchange(ctx context.Context, name string) error {
	c.mu.Lock()
	_, known := c.exchanges[name]
	c.mu.Unlock()
	if known {
		return nil
	}
	if c.opt.passive {
		return c.hasExchange(ctx, name)
	}
	s, err := c.out.get(ctx)
	if err != nil {
		return err
	}
	e := exchangeOf(name)
	err = s.with(ctx, func(ch *amqp.Channel) error { return c.declareExchange(ch, &e) })
	if err != nil {
		return fmt.Errorf("declare exchange %q: %w", name, fault(ctx, err))
	}
	c.found(name)
	return nil
}

// Listen receives by a queue of its own, which the server deletes with the
// connection.
func (c *Conn) Listen(ctx context.Context, exchange, pattern string) (broker.Listener, error) {
	q := c.opt.events.queue(broker.Queue{Name: cmp.Or(c.opt.events.prefix, exchange) + "." + token(), Exchange: exchangeOf(exchange), RoutingKey: pattern})
	if q.Exchange.Transient {
		q = c.opt.control.queue(broker.Queue{Name: token() + "." + exchange, Exchange: q.Exchange, RoutingKey: pattern})
		if q.Exchange.Type == "fanout" {
			q.RoutingKey = ""
		}
	}
	l, err := c.listen(ctx, q)
	if err != nil {
		return nil, err
	}
	return l, nil
}
