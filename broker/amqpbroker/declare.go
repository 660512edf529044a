package amqpbroker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/lovage-go/lovage/broker"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Declare makes queues, exchanges and bindings exist, and binds the queues to
// where delayed messages arrive. With the option passive it looks whether queues
// and exchanges are there, and an error names what is missing. The queue of a
// [broker.Broadcast] is its consumer's own: for others its exchange is enough.
func (c *Conn) Declare(ctx context.Context, queues ...broker.Queue) error {
	if err := c.alive(); err != nil {
		return err
	}
	if len(queues) == 0 {
		return nil
	}
	s, err := c.out.get(ctx)
	if err != nil {
		return err
	}
	return c.declareBy(ctx, s, queues, false)
}

// declareBy is Declare on a session, by whoever consumes from the queues or not.
func (c *Conn) declareBy(ctx context.Context, s *session, queues []broker.Queue, consumes bool) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	for i := range queues {
		q := &queues[i]
		if err := refuse(q); err != nil {
			return err
		}
		err := s.with(ctx, func(ch *amqp.Channel) error {
			exchanges := isCopy(q) && !consumes
			if c.opt.passive || q.NoDeclare {
				return c.look(ch, q, exchanges)
			}
			return c.declare(ch, q, exchanges)
		})
		if err != nil {
			return fmt.Errorf("declare queue %q: %w", q.Name, fault(ctx, err))
		}
		c.learn(q)
	}
	return nil
}

// refuse says what the driver does not take.
func refuse(q *broker.Queue) error {
	kind, _ := q.Arguments["x-queue-type"].(string)
	switch kind = cmp.Or(q.Type, kind); {
	case q.Name == "":
		return errors.New("a queue needs a name")
	case len(q.Name) > 255:
		return fmt.Errorf("the name of queue %.40q... is longer than the 255 bytes that AMQP allows", q.Name)
	case kind == "stream":
		return streamError(q.Name)
	case kind != "" && kind != "classic" && kind != "quorum":
		return fmt.Errorf("queue %q has type %q: use classic or quorum: %w", q.Name, kind, broker.ErrUnsupported)
	}
	return nil
}

// streamError refuses a stream.
func streamError(name string) error {
	return fmt.Errorf("queue %q is a stream, which hands out a message again to everybody and never forgets one that is done: use classic or quorum: %w", name, broker.ErrUnsupported)
}

// bindings are the queue's own and the further ones, without the anonymous exchange.
func bindings(q *broker.Queue) (out []broker.Binding) {
	for _, b := range append([]broker.Binding{{Exchange: q.Exchange, RoutingKey: q.RoutingKey}}, q.Bindings...) {
		if b.Exchange.Name != "" {
			out = append(out, b)
		}
	}
	return out
}

// isCopy reports whether a queue has one consumer's copies of a broadcast, by the
// name that it gets here and in kombu. It is deleted with its consumer, so that
// one that had none would stay for ever, and grow.
func isCopy(q *broker.Queue) bool {
	return q.AutoDelete && q.Exchange.Type == "fanout" && strings.HasPrefix(q.Name, "bcast.")
}

func (c *Conn) declare(ch *amqp.Channel, q *broker.Queue, exchanges bool) error {
	bound := bindings(q)
	for _, b := range bound {
		if err := c.declareExchange(ch, &b.Exchange); err != nil {
			return fmt.Errorf("exchange %q: %w", b.Exchange.Name, err)
		}
	}
	if exchanges {
		return bindArrival(ch, bound)
	}
	args, err := c.arguments(q)
	if err != nil {
		return err
	}
	if _, err := ch.QueueDeclare(q.Name, !q.Transient, q.AutoDelete, q.Exclusive, false, args); err != nil {
		return err
	}
	for _, b := range bound {
		t, err := tableOf(b.Arguments)
		if err != nil {
			return err
		}
		if err := ch.QueueBind(q.Name, b.RoutingKey, b.Exchange.Name, false, t); err != nil {
			return fmt.Errorf("bind to exchange %q: %w", b.Exchange.Name, err)
		}
	}
	if err := bindArrival(ch, bound); err != nil {
		return err
	}
	keys := delayBindings(q)
	for i, key := range keys {
		if err := ch.QueueBind(q.Name, key, delayArrival, i < len(keys)-1, nil); err != nil {
			return err
		}
	}
	return nil
}

// passesOn reports whether an exchange alone can tell which of its queues a delayed
// message is for; it is bound to where they arrive, and its queues are not.
func passesOn(e *broker.Exchange) bool { return e.Type == "headers" || e.Type == "fanout" }

// bindArrival makes the exchange where delayed messages arrive, which passes on to
// others what they alone can tell: by the headers whose a message is, and who has
// a copy of it.
func bindArrival(ch *amqp.Channel, bound []broker.Binding) error {
	if err := ch.ExchangeDeclare(delayArrival, "topic", true, false, false, true, nil); err != nil {
		return err
	}
	for _, b := range bound {
		if !passesOn(&b.Exchange) {
			continue
		}
		for _, before := range []string{afterDelay, afterFine} {
			if err := ch.ExchangeBind(b.Exchange.Name, before+exchangeWord(b.Exchange.Name)+".#", delayArrival, false, nil); err != nil {
				return fmt.Errorf("bind exchange %q to %s: %w", b.Exchange.Name, delayArrival, err)
			}
		}
	}
	return nil
}

func (c *Conn) declareExchange(ch *amqp.Channel, e *broker.Exchange) error {
	if e.Name == "" || strings.HasPrefix(e.Name, "amq.") {
		return nil // they are there
	}
	args, err := tableOf(e.Arguments)
	if err != nil {
		return err
	}
	return ch.ExchangeDeclare(e.Name, cmp.Or(e.Type, "direct"), !e.Transient, e.AutoDelete, false, false, args)
}

// look checks that a queue and its exchanges are there, or the exchanges alone.
func (c *Conn) look(ch *amqp.Channel, q *broker.Queue, exchanges bool) error {
	for _, b := range bindings(q) {
		if b.Exchange.Name == q.Name && c.opt.passive {
			continue // a plain queue is reached without its exchange
		}
		if err := ch.ExchangeDeclarePassive(b.Exchange.Name, cmp.Or(b.Exchange.Type, "direct"), !b.Exchange.Transient, b.Exchange.AutoDelete, false, false, nil); err != nil {
			return fmt.Errorf("exchange %q: %w", b.Exchange.Name, err)
		}
	}
	if exchanges {
		return nil
	}
	_, err := ch.QueueDeclarePassive(q.Name, !q.Transient, q.AutoDelete, q.Exclusive, false, nil)
	return err
}

// arguments are the queue's, as Celery writes them: seconds become milliseconds.
func (c *Conn) arguments(q *broker.Queue) (amqp.Table, error) {
	args := maps.Clone(q.Arguments)
	if args == nil {
		args = map[string]any{}
	}
	set := func(name string, v any, on bool) {
		if on {
			args[name] = v
		}
	}
	set("x-message-ttl", q.MessageTTL.Milliseconds(), q.MessageTTL > 0)
	set("x-expires", q.Expires.Milliseconds(), q.Expires > 0)
	set("x-max-length", q.MaxLength, q.MaxLength > 0)
	set("x-queue-type", q.Type, q.Type != "" && q.Type != "classic")
	if args["x-queue-type"] == nil && q.Type == "" {
		set("x-queue-type", c.opt.queueType, c.opt.queueType != "" && !q.Exclusive && !q.AutoDelete && !q.Transient)
	}
	if args["x-queue-type"] != "quorum" {
		set("x-max-priority", c.opt.priority, c.opt.priority > 0 && args["x-max-priority"] == nil)
		set("x-max-priority", q.MaxPriority, q.MaxPriority > 0)
	}
	return tableOf(args)
}

// tableOf types arguments from code or from a file as Python's client does.
func tableOf(m map[string]any) (amqp.Table, error) {
	if len(m) == 0 {
		return nil, nil
	}
	t := make(amqp.Table, len(m))
	for k, v := range m {
		switch n := v.(type) {
		case int:
			v = whole(int64(n))
		case int64:
			v = whole(n)
		case map[string]any, []any:
			f, err := fieldOf(v)
			if err != nil {
				return nil, fmt.Errorf("argument %s: %w", k, err)
			}
			v = f
		default:
			f, err := fieldOf(v)
			if err != nil {
				return nil, fmt.Errorf("argument %s: %w", k, err)
			}
			v = f
		}
		t[k] = v
	}
	return t, t.Validate()
}

// learn remembers a queue by its name.
func (c *Conn) learn(q *broker.Queue) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queues[q.Name] = *q
	for _, b := range bindings(q) {
		c.exchanges[b.Exchange.Name] = true
	}
}

// found remembers that an exchange is there.
func (c *Conn) found(exchange string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.exchanges[exchange] {
		c.exchanges[exchange] = false
	}
}

// hasExchange reports whether an exchange is there: publishing to one that is not
// would close the channel under everybody else's messages.
func (c *Conn) hasExchange(ctx context.Context, name string) error {
	c.mu.Lock()
	_, known := c.exchanges[name]
	c.mu.Unlock()
	if known || name == "" {
		return nil
	}
	s, err := c.out.get(ctx)
	if err != nil {
		return err
	}
	err = s.with(ctx, func(ch *amqp.Channel) error {
		return ch.ExchangeDeclarePassive(name, "direct", true, false, false, false, nil)
	})
	if err != nil {
		return fmt.Errorf("exchange %q: %w", name, fault(ctx, err))
	}
	c.found(name)
	return nil
}
