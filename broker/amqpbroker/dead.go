package amqpbroker

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Dead letters of all queues wait in one durable queue, lovage.dead, each as it
// was, with its queue, the reason, the time and an id in the header x-lovage. An
// operator sees their number in rabbitmqctl list_queues and may consume, move or
// purge them with any tool. AMQP cannot look into a queue: to list letters, all
// are taken and put back.

// scanLimit is how many letters are looked at for a count.
const scanLimit = 1000

// maxReason bounds the reason, in bytes: a header has to fit into a frame.
const maxReason = 4 << 10

func (c *Conn) ensureDead(ctx context.Context) error {
	if c.dead.Load() {
		return nil
	}
	if err := c.Declare(ctx, broker.Queue{Name: c.opt.dead, NoDeclare: c.opt.passive, Type: "classic"}); err != nil {
		return fmt.Errorf("dead letters: %w", err)
	}
	c.dead.Store(true)
	return nil
}

// deadLetter is a claimed message as a dead letter.
func (c *Conn) deadLetter(cl *claim, queue, reason string, m, own marks) *outgoing {
	m.queue, m.reason, m.at = queue, strings.ToValidUTF8(reason[:min(len(reason), maxReason)], ""), time.Now()
	m.id = strconv.FormatInt(m.at.UnixNano(), 36) + token()[:8]
	m.expiration = own.expiration
	if cl.msg.Expiration != "" {
		m.expiration = cl.msg.Expiration
	}
	o := &outgoing{key: c.opt.dead, mandatory: true, msg: again(&cl.msg, m)}
	o.msg.Expiration, o.msg.DeliveryMode = "", amqp.Persistent
	return o
}

// scan takes letters one after the other and tells visit of each, until it says
// stop. All that visit does not drop go back to their places.
func (c *Conn) scan(ctx context.Context, visit func(*amqp.Delivery, marks) (drop, stop bool, err error)) error {
	if err := c.alive(); err != nil {
		return err
	}
	ctx, cancel := c.bound(ctx)
	defer cancel()
	s, err := c.out.get(ctx)
	if err != nil {
		return err
	}
	err = s.with(ctx, func(ch *amqp.Channel) error {
		for ctx.Err() == nil {
			d, ok, err := ch.Get(c.opt.dead, false)
			if code(err) == amqp.NotFound || err == nil && !ok {
				return nil // there is none, or no more
			}
			if err != nil {
				return err
			}
			drop, stop, err := visit(&d, marksOf(d.Headers))
			if err == nil && drop {
				err = d.Ack(false)
			}
			if err != nil || stop {
				return err
			}
		}
		return context.Cause(ctx)
	})
	if err != nil {
		return fmt.Errorf("dead letters in queue %q: %w", c.opt.dead, fault(ctx, err))
	}
	return nil
}

func (c *Conn) letter(d *amqp.Delivery, m marks) broker.Dead {
	got := c.delivery(m.queue, d)
	h, _ := protocol.ParseHeaders(got.Headers) // what cannot be read is shown as it is
	return broker.Dead{
		ID: m.id, Queue: m.queue, Reason: m.reason, At: m.at, TaskID: h.ID, Task: h.Task, Losses: m.losses,
		Headers: got.Headers, Properties: got.Properties, Body: got.Body,
	}
}

// DeadLetters lists newest first.
func (c *Conn) DeadLetters(ctx context.Context, queue, after string, limit int) ([]broker.Dead, error) {
	var all []broker.Dead
	err := c.scan(ctx, func(d *amqp.Delivery, m marks) (bool, bool, error) {
		if queue == "" || m.queue == queue {
			all = append(all, c.letter(d, m))
		}
		return false, false, nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b broker.Dead) int {
		if n := b.At.Compare(a.At); n != 0 {
			return n
		}
		return compareIDs(b.ID, a.ID)
	})
	if after != "" {
		i := slices.IndexFunc(all, func(d broker.Dead) bool { return d.ID == after })
		all = all[i+1:]
	}
	return all[:min(max(limit, 0), len(all))], nil
}

// compareIDs orders ids by when they were made.
func compareIDs(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return slices.Compare([]byte(a), []byte(b))
}

// DeadLetter gives one letter.
func (c *Conn) DeadLetter(ctx context.Context, id string) (broker.Dead, error) {
	var found *broker.Dead
	err := c.scan(ctx, func(d *amqp.Delivery, m marks) (bool, bool, error) {
		if m.id == id {
			l := c.letter(d, m)
			found = &l
		}
		return false, found != nil, nil
	})
	if err == nil && found == nil {
		err = fmt.Errorf("there is no dead letter %q", id)
	}
	if err != nil {
		return broker.Dead{}, err
	}
	return *found, nil
}

// RequeueDead sends letters back to their queues, under confirm, and drops them.
func (c *Conn) RequeueDead(ctx context.Context, ids ...string) (int, error) {
	return c.take(ctx, ids, func(d *amqp.Delivery, m marks) error {
		back := marks{exchange: m.exchange, routingKey: m.routingKey}
		o := &outgoing{key: m.queue, mandatory: true, msg: again(d, back)}
		o.msg.Expiration = "" // its time is over while it lay here; the worker looks at expires
		return c.deliver(ctx, []*outgoing{o})[0]
	})
}

// DropDead deletes letters.
func (c *Conn) DropDead(ctx context.Context, ids ...string) (int, error) {
	return c.take(ctx, ids, func(*amqp.Delivery, marks) error { return nil })
}

func (c *Conn) take(ctx context.Context, ids []string, do func(*amqp.Delivery, marks) error) (n int, err error) {
	want := make(map[string]bool, len(ids))
	for _, id := range ids {
		want[id] = true
	}
	err = c.scan(ctx, func(d *amqp.Delivery, m marks) (bool, bool, error) {
		if !want[m.id] {
			return false, false, nil
		}
		if err := do(d, m); err != nil {
			return false, false, err
		}
		n++
		delete(want, m.id)
		return true, len(want) == 0, nil
	})
	return n, err
}
