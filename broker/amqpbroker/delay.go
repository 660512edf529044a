package amqpbroker

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/lovage-go/lovage/broker"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Celery's delayed delivery: a message waits in 28 queues of 2^27 s down to 1 s,
// in those whose bit is set in its delay. The bits, most significant first and
// parted by dots, begin its routing key; each exchange looks at its own word and
// sends the message to its queue, which dead-letters it to the next exchange when
// its time is over, or straight on. The last one is celery_delayed_delivery, to
// which the queues of tasks are bound.
//
// Ours besides: ten queues of 512 ms down to 1 ms for delays of less than a
// second. Longer ones end on a whole second, and come up to a second late.
const (
	delayLevels  = 28
	fineLevels   = 10
	delayPrefix  = "celery_delayed_"
	finePrefix   = "lovage_delayed_"
	delayArrival = "celery_delayed_delivery"
	longestDelay = (1<<delayLevels - 1) * time.Second
)

// Patterns of the words before a routing key. Celery binds by "#.", by which a
// message for "fast.video" comes to the queue "video" as well.
var (
	afterDelay = strings.Repeat("*.", delayLevels)
	afterFine  = strings.Repeat("*.", fineLevels)
)

// delayAddress is where a message waits for a time, and by which key.
func delayAddress(d time.Duration, exchange, key string) (string, string, error) {
	target := key
	if exchange != "" {
		target = exchangeWord(exchange) + "." + key
	}
	levels, name, n := delayLevels, delayPrefix, int64((min(d, longestDelay)+time.Second-1)/time.Second)
	if d < time.Second {
		levels, name, n = fineLevels, finePrefix, int64((d+time.Millisecond-1)/time.Millisecond)
		if n >= 1<<fineLevels {
			n = 1<<fineLevels - 1
		}
	}
	b := make([]byte, 0, 2*levels+len(target))
	for i := levels - 1; i >= 0; i-- {
		b = append(b, byte('0'+n>>i&1), '.')
	}
	b = append(b, target...)
	if len(b) > 255 {
		return "", "", fmt.Errorf("routing key %.40q... is too long to be delayed by RabbitMQ, %d bytes are left for it: %w", target, 255-2*levels, broker.ErrUnsupported)
	}
	return name + strconv.Itoa(levels-1), string(b), nil
}

// exchangeWord names an exchange in a delayed routing key, as one word.
func exchangeWord(exchange string) string { return "@" + strings.ReplaceAll(exchange, ".", "\x1f") }

// undelay gives a message that comes from a delay the address it was sent to.
func undelay(d *broker.Delivery) bool {
	if d.Exchange != delayArrival {
		return false
	}
	words := 0
	key := d.RoutingKey
	for words < delayLevels && len(key) > 1 && (key[0] == '0' || key[0] == '1') && key[1] == '.' {
		key = key[2:]
		words++
	}
	d.Exchange, d.RoutingKey = "", key
	if word, rest, ok := strings.Cut(key, "."); ok && strings.HasPrefix(word, "@") {
		d.Exchange, d.RoutingKey = strings.ReplaceAll(word[1:], "\x1f", "."), rest
	}
	return true
}

// ensureDelays makes the exchanges and queues of delayed delivery, once.
func (c *Conn) ensureDelays(ctx context.Context) error {
	if c.delays.Load() {
		return nil
	}
	s, err := c.out.get(ctx)
	if err != nil {
		return err
	}
	if c.opt.passive {
		err = s.with(ctx, func(ch *amqp.Channel) error {
			for _, name := range []string{delayPrefix + strconv.Itoa(delayLevels-1), finePrefix + strconv.Itoa(fineLevels-1), delayArrival} {
				if err := ch.ExchangeDeclarePassive(name, "topic", true, false, false, false, nil); err != nil {
					return err
				}
			}
			return nil
		})
	} else {
		err = s.with(ctx, c.declareDelays)
	}
	if err != nil {
		return fmt.Errorf("delayed delivery needs the exchanges %s0 to %d, %s0 to %d and %s: %w", delayPrefix, delayLevels-1, finePrefix, fineLevels-1, delayArrival, fault(ctx, err))
	}
	c.delays.Store(true)
	return nil
}

func (c *Conn) declareDelays(ch *amqp.Channel) error {
	if err := c.levels(ch, delayPrefix, delayLevels, time.Second); err != nil {
		return err
	}
	return c.levels(ch, finePrefix, fineLevels, time.Millisecond)
}

// levels declares one ladder of queues. All but the last step wait for no answer.
func (c *Conn) levels(ch *amqp.Channel, prefix string, levels int, unit time.Duration) error {
	const noWait = true
	if err := ch.ExchangeDeclare(delayArrival, "topic", true, false, false, noWait, nil); err != nil {
		return err
	}
	for i := range levels {
		if err := ch.ExchangeDeclare(prefix+strconv.Itoa(i), "topic", true, false, false, noWait, nil); err != nil {
			return err
		}
	}
	kind := "classic"
	if c.opt.quorum {
		kind = "quorum"
	}
	for i := levels - 1; i >= 0; i-- {
		name, next := prefix+strconv.Itoa(i), delayArrival
		if i > 0 {
			next = prefix + strconv.Itoa(i-1)
		}
		args := amqp.Table{"x-queue-type": kind, "x-overflow": "reject-publish", "x-dead-letter-exchange": next,
			"x-message-ttl": (time.Duration(1<<i) * unit).Milliseconds()}
		if c.opt.quorum {
			args["x-dead-letter-strategy"] = "at-least-once"
		}
		before := strings.Repeat("*.", levels-1-i)
		if _, err := ch.QueueDeclare(name, true, false, false, noWait, args); err != nil {
			return err
		}
		if err := ch.QueueBind(name, before+"1.#", name, noWait, nil); err != nil {
			return err
		}
		if err := ch.ExchangeBind(next, before+"0.#", name, noWait, nil); err != nil {
			return err
		}
	}
	// The answer to this one says that all were taken.
	return ch.ExchangeDeclarePassive(delayArrival, "topic", true, false, false, false, nil)
}

// delayBindings are the keys by which a queue is bound to where delays end.
func delayBindings(q *broker.Queue) (keys []string) {
	add := func(key string) {
		for _, before := range []string{afterDelay, afterFine} {
			if len(before)+len(key) <= 255 {
				keys = append(keys, before+key)
			}
		}
	}
	add(q.Name)
	seen := map[string]bool{q.Name: true}
	for _, b := range bindings(q) {
		key := b.RoutingKey
		switch b.Exchange.Type {
		case "headers":
			continue
		case "fanout":
			key = "#"
		}
		if b.Exchange.Name == q.Name && key == q.Name {
			continue // its own exchange
		}
		if b.Exchange.Type != "fanout" && !seen[key] && len(afterDelay)+len(key) <= 255 {
			seen[key] = true
			keys = append(keys, afterDelay+key) // Python's producers name no exchange
		}
		add(exchangeWord(b.Exchange.Name) + "." + key)
	}
	return keys
}
