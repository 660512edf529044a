package amqpbroker

import (
	"context"
	"fmt"
	"math/bits"
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

// ladder is one of the two rows of delay queues.
type ladder struct {
	prefix string
	levels int
	unit   time.Duration
}

var (
	slow = ladder{delayPrefix, delayLevels, time.Second}
	fine = ladder{finePrefix, fineLevels, time.Millisecond}
)

// delayAddress is where a message waits for a time, and by which key. It goes in
// at the level of the highest bit, since those above only pass it on.
func delayAddress(d time.Duration, exchange, key string) (l ladder, level int, routingKey string, err error) {
	target := key
	if exchange != "" {
		target = exchangeWord(exchange) + "." + key
	}
	l = slow
	if d < time.Second-time.Millisecond {
		l = fine
	}
	n := int64((min(d, longestDelay) + l.unit - 1) / l.unit)
	b := make([]byte, 0, 2*l.levels+len(target))
	for i := l.levels - 1; i >= 0; i-- {
		b = append(b, byte('0'+n>>i&1), '.')
	}
	b = append(b, target...)
	if len(b) > 255 {
		return l, 0, "", fmt.Errorf("routing key %.40q... is too long to be delayed by RabbitMQ, %d bytes are left for it: %w", target, 255-2*l.levels, broker.ErrUnsupported)
	}
	return l, bits.Len64(uint64(n)) - 1, string(b), nil
}

func (l ladder) at(level int) string { return l.prefix + strconv.Itoa(level) }

// after is the exchange that a step sends to.
func (l ladder) after(level int) string {
	if level == 0 {
		return delayArrival
	}
	return l.at(level - 1)
}

// exchangeWord names an exchange in a delayed routing key, as one word.
func exchangeWord(exchange string) string { return "@" + strings.ReplaceAll(exchange, ".", "\x1f") }

// undelay gives a message that comes from a delay the address it was sent to.
func undelay(d *broker.Delivery) bool {
	if !strings.HasPrefix(d.Exchange, delayPrefix) && !strings.HasPrefix(d.Exchange, finePrefix) {
		return false // it names the exchange of the last step that was waited in
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

// ensureDelays makes the exchanges and queues of a ladder exist up to a level. What
// is there already is taken as it is, whatever the type of its queues, but bound
// all the same: whoever makes it may not have come to that yet.
func (c *Conn) ensureDelays(ctx context.Context, l ladder, level int) error {
	c.mu.Lock()
	made := c.delays[l.prefix]
	c.mu.Unlock()
	if level < made {
		return nil
	}
	s, err := c.out.get(ctx)
	if err != nil {
		return err
	}
	for i := made; i <= level && err == nil; i++ {
		look := func(ch *amqp.Channel) error {
			if _, err := ch.QueueDeclarePassive(l.at(i), true, false, false, false, nil); err != nil {
				return err
			}
			return ch.ExchangeDeclarePassive(l.at(i), "topic", true, false, false, false, nil)
		}
		err = s.with(ctx, look)
		if code(err) == amqp.NotFound && !c.opt.passive {
			err = s.with(ctx, func(ch *amqp.Channel) error { return c.declareLevel(ch, l, i) })
			if code(err) == amqp.PreconditionFailed { // somebody was faster
				err = s.with(ctx, look)
			}
		}
		if err == nil && !c.opt.passive {
			err = s.with(ctx, func(ch *amqp.Channel) error { return l.bind(ch, i) })
			if code(err) == amqp.AccessRefused { // an account that may use it and no more
				err = nil
			}
		}
	}
	if err != nil {
		return fmt.Errorf("delayed delivery needs the exchanges and queues %s to %d, and the exchange %s: %w", l.at(0), level, delayArrival, fault(ctx, err))
	}
	c.mu.Lock()
	c.delays[l.prefix] = max(c.delays[l.prefix], level+1)
	c.mu.Unlock()
	return nil
}

// declareLevel declares one step; all but the last call wait for no answer.
func (c *Conn) declareLevel(ch *amqp.Channel, l ladder, i int) error {
	const noWait = true
	name, next := l.at(i), l.after(i)
	args := amqp.Table{"x-queue-type": "classic", "x-overflow": "reject-publish", "x-dead-letter-exchange": next,
		"x-message-ttl": whole((time.Duration(1<<i) * l.unit).Milliseconds())}
	if c.opt.quorum {
		args["x-queue-type"], args["x-dead-letter-strategy"] = "quorum", "at-least-once"
	}
	for _, exchange := range []string{next, name} {
		if err := ch.ExchangeDeclare(exchange, "topic", true, false, false, noWait, nil); err != nil {
			return err
		}
	}
	_, err := ch.QueueDeclare(name, true, false, false, false, args)
	return err
}

// bind has a step keep the messages whose bit is set, and pass on the others.
func (l ladder) bind(ch *amqp.Channel, i int) error {
	name, before := l.at(i), strings.Repeat("*.", l.levels-1-i)
	if err := ch.QueueBind(name, before+"1.#", name, true, nil); err != nil { // answered with the next
		return err
	}
	return ch.ExchangeBind(l.after(i), before+"0.#", name, false, nil)
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
		if passesOn(&b.Exchange) {
			continue // its queue gets what is its, see bindArrival
		}
		if b.Exchange.Name == q.Name && key == q.Name {
			continue // its own exchange
		}
		if !seen[key] && len(afterDelay)+len(key) <= 255 {
			seen[key] = true
			keys = append(keys, afterDelay+key) // Python's producers name no exchange
		}
		add(exchangeWord(b.Exchange.Name) + "." + key)
	}
	return keys
}
