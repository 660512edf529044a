package amqpbroker

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/lovage-go/lovage/broker"
	amqp "github.com/rabbitmq/amqp091-go"
)

// console is a person's channel. RabbitMQ closes a channel at the first mistake;
// the next command opens another.
type console struct {
	conn *Conn
	s    *session
	ch   *amqp.Channel
}

// Console opens a session for AMQP's operations, under Celery's names for them.
func (c *Conn) Console(ctx context.Context) (broker.Console, error) {
	if err := c.alive(); err != nil {
		return nil, err
	}
	return &console{conn: c}, nil
}

// operation is a command of the console: args[:least] are given, those that are
// left out are "".
type operation struct {
	broker.ConsoleCommand
	least, most int
	do          func(ch *amqp.Channel, args []string, on []bool) (string, error)
}

const ok = "OK"

// operations read their switches (passive, durable, if_unused ...) from on, which
// has them by position.
var operations = []operation{
	{broker.ConsoleCommand{Name: "basic.ack", Args: "delivery_tag"}, 1, 1, func(ch *amqp.Channel, a []string, _ []bool) (string, error) {
		tag, err := strconv.ParseUint(a[0], 10, 64)
		if err != nil {
			return "", fmt.Errorf("delivery_tag is %q: want the number that basic.get told", a[0])
		}
		return ok, ch.Ack(tag, false)
	}},
	{broker.ConsoleCommand{Name: "basic.get", Args: "queue [no_ack]"}, 1, 2, func(ch *amqp.Channel, a []string, on []bool) (string, error) {
		d, there, err := ch.Get(a[0], on[1])
		if err != nil || !there {
			return "No messages in queue. basic.publish something.\n" + ok, err
		}
		text, err := json.MarshalIndent(map[string]any{
			"body": string(d.Body),
			"properties": map[string]any{
				"content_type": d.ContentType, "content_encoding": d.ContentEncoding, "application_headers": d.Headers, "delivery_mode": d.DeliveryMode,
				"priority": d.Priority, "correlation_id": d.CorrelationId, "reply_to": d.ReplyTo, "expiration": d.Expiration,
			},
			"delivery_info": map[string]any{
				"delivery_tag": d.DeliveryTag, "redelivered": d.Redelivered, "exchange": d.Exchange, "routing_key": d.RoutingKey, "message_count": d.MessageCount,
			},
		}, "", "  ")
		return string(text) + "\n" + ok, err
	}},
	{broker.ConsoleCommand{Name: "basic.publish", Args: "msg exchange routing_key [mandatory]"}, 3, 4, func(ch *amqp.Channel, a []string, on []bool) (string, error) {
		return ok, publishOne(ch, a[1], a[2], on[3], a[0])
	}},
	{broker.ConsoleCommand{Name: "exchange.declare", Args: "exchange type [passive] [durable] [auto_delete]"}, 2, 5, func(ch *amqp.Channel, a []string, on []bool) (string, error) {
		if on[2] {
			return ok, ch.ExchangeDeclarePassive(a[0], a[1], on[3], on[4], false, false, nil)
		}
		return ok, ch.ExchangeDeclare(a[0], a[1], on[3], on[4], false, false, nil)
	}},
	{broker.ConsoleCommand{Name: "exchange.delete", Args: "exchange [if_unused]"}, 1, 2, func(ch *amqp.Channel, a []string, on []bool) (string, error) {
		return ok, ch.ExchangeDelete(a[0], on[1], false)
	}},
	{broker.ConsoleCommand{Name: "queue.bind", Args: "queue exchange routing_key"}, 3, 3, func(ch *amqp.Channel, a []string, _ []bool) (string, error) {
		return ok, ch.QueueBind(a[0], a[2], a[1], false, nil)
	}},
	{broker.ConsoleCommand{Name: "queue.declare", Args: "queue [passive] [durable] [auto_delete]"}, 1, 4, func(ch *amqp.Channel, a []string, on []bool) (string, error) {
		declare := ch.QueueDeclare
		if on[1] {
			declare = ch.QueueDeclarePassive
		}
		q, err := declare(a[0], on[2], on[3], false, false, nil)
		return fmt.Sprintf("queue:%s messages:%d consumers:%d\n%s", q.Name, q.Messages, q.Consumers, ok), err
	}},
	{broker.ConsoleCommand{Name: "queue.delete", Args: "queue [if_unused] [if_empty]"}, 1, 3, func(ch *amqp.Channel, a []string, on []bool) (string, error) {
		n, err := ch.QueueDelete(a[0], on[1], on[2], false)
		return fmt.Sprintf("%d messages deleted.\n%s", n, ok), err
	}},
	{broker.ConsoleCommand{Name: "queue.purge", Args: "queue"}, 1, 1, func(ch *amqp.Channel, a []string, _ []bool) (string, error) {
		n, err := ch.QueuePurge(a[0], false)
		return fmt.Sprintf("%d messages deleted.\n%s", n, ok), err
	}},
}

// publishOne sends a text and waits until the server has it.
func publishOne(ch *amqp.Channel, exchange, key string, mandatory bool, text string) error {
	if err := ch.Confirm(false); err != nil {
		return err
	}
	returned := ch.NotifyReturn(make(chan amqp.Return, 1))
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	sent, err := ch.PublishWithDeferredConfirm(exchange, key, mandatory, false, amqp.Publishing{Body: []byte(text), ContentType: "text/plain"})
	if err != nil {
		return err
	}
	select {
	case <-sent.Done():
	case err := <-closed:
		return err
	}
	select {
	case r := <-returned:
		return fmt.Errorf("returned: %s: %w", r.ReplyText, broker.ErrNoQueue)
	default:
	}
	if !sent.Acked() {
		return fmt.Errorf("the server did not take it: %w", broker.ErrUnavailable)
	}
	return nil
}

// Commands lists the operations.
func (c *console) Commands() []broker.ConsoleCommand {
	list := make([]broker.ConsoleCommand, len(operations))
	for i := range operations {
		list[i] = operations[i].ConsoleCommand
	}
	return list
}

// Do carries an operation out.
func (c *console) Do(ctx context.Context, name string, args ...string) (string, error) {
	for i := range operations {
		o := &operations[i]
		if o.Name != name {
			continue
		}
		if len(args) < o.least || len(args) > o.most {
			return "", fmt.Errorf("%s takes %s: got %d arguments", name, o.Args, len(args))
		}
		full, on := make([]string, o.most), make([]bool, o.most)
		for i, a := range args {
			full[i] = a
			if i >= o.least {
				var err error
				if on[i], err = strconv.ParseBool(strings.ToLower(a)); err != nil {
					return "", fmt.Errorf("%s takes %s: got %q, want true or false", name, o.Args, a)
				}
			}
		}
		ctx, cancel := c.conn.bound(ctx)
		defer cancel()
		if err := c.open(ctx); err != nil {
			return "", err
		}
		var said string // whoever leaves early does not look
		err := c.s.call(ctx, func() (err error) { said, err = o.do(c.ch, full, on); return err })
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, fault(ctx, err))
		}
		return said, nil
	}
	return "", fmt.Errorf("there is no command %q", name)
}

// open makes sure that there is a channel.
func (c *console) open(ctx context.Context) error {
	if c.ch != nil && !c.ch.IsClosed() && c.s.alive() {
		return nil
	}
	s, err := c.conn.out.get(ctx)
	if err != nil {
		return err
	}
	c.s = s
	var ch *amqp.Channel
	err = s.call(ctx, func() (err error) { ch, err = s.conn.Channel(); return err })
	if err == nil {
		c.ch = ch
	}
	return err
}

// Close hands back what was taken and not acknowledged.
func (c *console) Close() error {
	if c.ch == nil || c.ch.IsClosed() || !c.s.alive() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	return c.s.call(ctx, c.ch.Close)
}

var _ broker.Consoler = (*Conn)(nil)
